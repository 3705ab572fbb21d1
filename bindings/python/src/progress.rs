//! Work without the interpreter's lock, which Ctrl-C stops and a function of the caller's watches.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use musc::{Progress, Stage};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::error::raise;
use crate::process;

/// How often signals are looked for. Each look takes the interpreter's lock for a moment.
const LOOK: Duration = Duration::from_millis(100);

/// What the work says of itself.
#[derive(Debug, Default)]
struct Watch {
    stop: AtomicBool,
    stage: Mutex<Option<Stage>>,
    done: AtomicU64,
    steps: AtomicU64,
}

impl Watch {
    fn stage(&self) -> Option<Stage> {
        *self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_stage(&self, stage: Option<Stage>, steps: u64) {
        let mut held = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        *held = stage;
        self.done.store(0, Ordering::Relaxed);
        self.steps.store(steps, Ordering::Relaxed);
    }

    /// Looks for signals, and tells the caller's function where the work is.
    fn look(&self, py: Python<'_>, told: Option<&Py<PyAny>>) -> PyResult<()> {
        py.check_signals()?;
        if let (Some(told), Some(stage)) = (told, self.stage()) {
            let (done, steps) =
                (self.done.load(Ordering::Relaxed), self.steps.load(Ordering::Relaxed));
            told.call1(py, (stage.name(), done, steps))?;
        }
        Ok(())
    }
}

impl Progress for Watch {
    fn begin(&self, stage: Stage, steps: u64) {
        self.set_stage(Some(stage), steps);
    }
    fn advance(&self, steps: u64) {
        self.done.fetch_add(steps, Ordering::Relaxed);
    }
    fn end(&self) {
        self.set_stage(None, 0);
    }
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Does work on the module's threads: what the library does in parallel without a pool of its own. The rest is as in [`run`].
pub fn run_on_pool<T: Send>(
    py: Python<'_>,
    told: Option<&Bound<'_, PyAny>>,
    work: impl FnOnce(&dyn Progress) -> musc::Result<T> + Send,
) -> PyResult<T> {
    let pool = process::pool()?;
    run(py, told, |progress| {
        // A stopper is asked from the pool's threads: it is shared, not sent.
        let progress: &(dyn Progress + Sync) = &progress;
        pool.install(|| work(progress))
    })
}

/// Does work on a thread of its own, without the interpreter's lock. The calling thread waits, and looks for signals: only
/// Python's main thread is told of them. It calls `told` with the stage, the steps done and their number, and an exception
/// of either stops the work and is raised.
pub fn run<T: Send>(
    py: Python<'_>,
    told: Option<&Bound<'_, PyAny>>,
    work: impl FnOnce(&dyn Progress) -> musc::Result<T> + Send,
) -> PyResult<T> {
    // Before any work: a signal may be waiting.
    py.check_signals()?;
    let told = told.map(|told| told.clone().unbind());
    let watch = Watch::default();
    py.detach(|| {
        std::thread::scope(|scope| {
            let (end, ended) = channel::<()>();
            let watch = &watch;
            let worker = std::thread::Builder::new().name("musc-work".into());
            let worker = worker
                .spawn_scoped(scope, move || {
                    // Dropped at the end, by a panic too.
                    let _end = end;
                    work(watch)
                })
                .map_err(|reason| PyRuntimeError::new_err(format!("a thread: {reason}")))?;
            let mut raised = None;
            while ended.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                if raised.is_none() {
                    raised = Python::attach(|py| watch.look(py, told.as_ref())).err();
                    watch.stop.store(raised.is_some(), Ordering::Relaxed);
                }
            }
            let done = worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            match raised {
                Some(raised) => Err(raised),
                None => done.map_err(raise),
            }
        })
    })
}
