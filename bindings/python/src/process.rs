//! The process that threads belong to: a fork has none of them.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use rayon::ThreadPool;

/// The process in which something with threads was made.
#[derive(Debug, Clone, Copy)]
pub struct Process(u32);

impl Process {
    /// This one.
    pub fn this() -> Self {
        Process(std::process::id())
    }

    /// Refuses to use `what` in a fork of the process it was made in, where its threads are missing and work for them would
    /// wait for ever.
    pub fn check(self, what: &str) -> PyResult<()> {
        let here = std::process::id();
        if self.0 == here {
            return Ok(());
        }
        Err(PyRuntimeError::new_err(format!(
            "{what} started its threads in process {}, and this is process {here}, a fork of it without them: make it in each \
             process, or start processes by \"spawn\" (multiprocessing.set_start_method)",
            self.0
        )))
    }
}

/// The process of [`POOL`]; 0 until there is one.
static OWNER: AtomicU32 = AtomicU32::new(0);
static POOL: OnceLock<ThreadPool> = OnceLock::new();

/// The threads of the module's functions and of what is made of an inspection, started when they are needed first.
pub fn pool() -> PyResult<&'static ThreadPool> {
    let here = std::process::id();
    // Told apart before the pool is looked at: a fork may come while it is being made.
    let owner = OWNER.compare_exchange(0, here, Ordering::AcqRel, Ordering::Acquire);
    Process(owner.map_or_else(|owner| owner, |_| here)).check("the module musc")?;
    if let Some(pool) = POOL.get() {
        return Ok(pool);
    }
    let made = rayon::ThreadPoolBuilder::new()
        .thread_name(|index| format!("musc-py-{index}"))
        .build()
        .map_err(|reason| PyRuntimeError::new_err(format!("threads: {reason}")))?;
    // Of two that come at once one is kept.
    Ok(POOL.get_or_init(|| made))
}
