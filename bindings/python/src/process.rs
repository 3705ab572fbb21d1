//! The process that threads belong to: a fork has none of them.

use std::sync::atomic::{AtomicPtr, Ordering};

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use rayon::ThreadPool;

/// The process in which something with threads was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process(u32);

impl Process {
    /// This one.
    pub fn this() -> Self {
        Process(std::process::id())
    }

    /// Refuses to use `what` in a fork of the process it was made in, where its threads are missing and work for them would
    /// wait for ever.
    pub fn check(self, what: &str) -> PyResult<()> {
        let here = Process::this();
        if self == here {
            return Ok(());
        }
        Err(PyRuntimeError::new_err(format!(
            "{what} started its threads in process {}, and this is process {}, a fork of it without them: make it in each \
             process, or start processes by \"spawn\" (multiprocessing.set_start_method)",
            self.0, here.0
        )))
    }
}

/// Threads, and the process that has them.
struct Pool {
    of: Process,
    threads: ThreadPool,
}

/// The pool in use. What it points to is never let go.
static POOL: AtomicPtr<Pool> = AtomicPtr::new(std::ptr::null_mut());

/// The threads of the module's functions and of what is made of an inspection, started when they are needed first: in a fork
/// anew, because no object of the caller's holds them. No lock is taken, which a fork could find closed for ever.
pub fn pool() -> PyResult<&'static ThreadPool> {
    let before = POOL.load(Ordering::Acquire);
    // SAFETY: the pointer is null or that of a box leaked below, which nobody frees or changes.
    if let Some(pool) = unsafe { before.as_ref() }
        && pool.of == Process::this()
    {
        return Ok(&pool.threads);
    }
    let threads = rayon::ThreadPoolBuilder::new()
        .thread_name(|index| format!("musc-py-{index}"))
        .build()
        .map_err(|reason| PyRuntimeError::new_err(format!("threads: {reason}")))?;
    let made = Box::into_raw(Box::new(Pool { of: Process::this(), threads }));
    match POOL.compare_exchange(before, made, Ordering::AcqRel, Ordering::Acquire) {
        // SAFETY: the box was leaked just now.
        Ok(_) => Ok(unsafe { &(*made).threads }),
        Err(other) => {
            // SAFETY: nobody else has seen `made`; of two that come at once the first is kept.
            drop(unsafe { Box::from_raw(made) });
            // SAFETY: as above: `other` was put there by another thread of this process, and stays.
            Ok(unsafe { &(*other).threads })
        }
    }
}
