//! The progress function of C as [`Progress`].

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use musc::{Progress, Stage};

/// Is told how a long call goes, and stops it by returning another number than 0: the call then ends with MUSC_INTERRUPTED. NULL
/// watches nothing.
///
/// `stage` is a word: "reading", "features", "scoring", "rescoring", "pictures", …; `done` of `total` steps of it are done, and a total
/// of 0 is not known. A stage may come again. Besides, while a step takes long, it is called with the numbers that it had before.
///
/// It is called from threads of this library, by one at a time, and must return: no exception, no longjmp. It may not use the handles
/// that the call works with.
pub type musc_progress = Option<
    unsafe extern "C" fn(
        user_data: *mut c_void,
        stage: *const c_char,
        done: u64,
        total: u64,
    ) -> c_int,
>;

/// How often a step that takes long is asked whether to stop.
const ASKED: Duration = Duration::from_millis(50);

/// [`musc_progress`] with what it is called with.
pub struct Watcher {
    function: musc_progress,
    user_data: *mut c_void,
    stopped: AtomicBool,
    state: Mutex<State>,
}

struct State {
    stage: &'static CStr,
    done: u64,
    total: u64,
    asked: Instant,
}

// SAFETY: the pointer is not used by this library, only handed back; musc.h says that other threads do so, one at a time, which the
// mutex sees to.
unsafe impl Sync for Watcher {}
// SAFETY: as above.
unsafe impl Send for Watcher {}

impl Watcher {
    pub fn new(function: musc_progress, user_data: *mut c_void) -> Self {
        let state = State { stage: c"", done: 0, total: 0, asked: Instant::now() };
        Watcher { function, user_data, stopped: AtomicBool::new(false), state: Mutex::new(state) }
    }

    fn tell(&self, state: &mut State) {
        let Some(function) = self.function else { return };
        if self.stopped.load(Ordering::Relaxed) {
            return;
        }
        // SAFETY: C gave a function of this type; the name is static and ends with a 0.
        let answer =
            unsafe { function(self.user_data, state.stage.as_ptr(), state.done, state.total) };
        state.asked = Instant::now();
        if answer != 0 {
            self.stopped.store(true, Ordering::Relaxed);
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        self.tell(&mut state);
    }
}

impl Progress for Watcher {
    fn begin(&self, stage: Stage, steps: u64) {
        self.change(|state| (state.stage, state.done, state.total) = (name(stage), 0, steps));
    }

    fn advance(&self, steps: u64) {
        self.change(|state| state.done = state.done.saturating_add(steps));
    }

    fn stopped(&self) -> bool {
        // Nobody waits for another thread's call to return.
        let held = match self.state.try_lock() {
            Ok(state) => Some(state),
            Err(TryLockError::Poisoned(error)) => Some(error.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        };
        if let Some(mut state) = held
            && !state.stage.is_empty()
            && state.asked.elapsed() >= ASKED
        {
            self.tell(&mut state);
        }
        self.stopped.load(Ordering::Relaxed)
    }
}

/// [`Stage::name`] with a 0 at its end; a test compares them.
fn name(stage: Stage) -> &'static CStr {
    match stage {
        Stage::Checking => c"checking",
        Stage::Reading => c"reading",
        Stage::Features => c"features",
        Stage::Scoring => c"scoring",
        Stage::Rescoring => c"rescoring",
        Stage::Figures => c"figures",
        Stage::Pictures => c"pictures",
        Stage::Download => c"download",
        _ => c"working",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_have_the_names_of_the_library() {
        use Stage::*;
        for stage in [Checking, Reading, Features, Scoring, Rescoring, Figures, Pictures, Download]
        {
            assert_eq!(name(stage).to_str().unwrap(), stage.name());
        }
    }

    #[test]
    fn the_function_is_told_of_steps_and_stops() {
        unsafe extern "C" fn stop_at_two(
            seen: *mut c_void,
            stage: *const c_char,
            done: u64,
            total: u64,
        ) -> c_int {
            // SAFETY: the test below gives a vector, and one thread calls; the name is a C string.
            let (seen, stage) =
                unsafe { (&mut *seen.cast::<Vec<_>>(), CStr::from_ptr(stage).to_owned()) };
            seen.push((stage.into_string().unwrap(), done, total));
            c_int::from(done == 2)
        }
        let mut seen: Vec<(String, u64, u64)> = Vec::new();
        let watcher = Watcher::new(Some(stop_at_two), (&raw mut seen).cast());
        watcher.begin(Stage::Reading, 3);
        watcher.advance(1);
        assert!(!watcher.stopped());
        watcher.advance(1);
        assert!(watcher.stopped());
        watcher.advance(1);
        let told = [("reading", 0, 3), ("reading", 1, 3), ("reading", 2, 3)];
        assert_eq!(seen, told.map(|(stage, done, total)| (stage.to_string(), done, total)));
    }

    #[test]
    fn without_a_function_nothing_stops() {
        let watcher = Watcher::new(None, std::ptr::null_mut());
        watcher.begin(Stage::Reading, 3);
        watcher.advance(3);
        assert!(!watcher.stopped());
    }
}
