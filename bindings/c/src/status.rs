//! What a call came to: its status, the message behind it, and the border that no panic passes.

use std::any::Any;
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};
#[cfg(not(test))]
use std::sync::Once;
use std::sync::{Mutex, PoisonError};

use musc::Error;

use crate::embedded;

/// The version of this header. It becomes another number when a program that was compiled with this one would no longer work;
/// functions and status codes that are added leave it as it is.
pub const MUSC_ABI_VERSION: u32 = 1;

/// What a call came to. Everything but MUSC_OK is an error, and musc_last_error() says in words which one.
///
/// More may be added: take one that you do not know for an error.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum musc_status {
    /// Done.
    MUSC_OK = 0,
    /// An argument or an option outside what is allowed: NULL, bytes that are no UTF-8, an image past the last, a handle that was
    /// freed, a setting that does not fit the images.
    MUSC_BAD_ARGUMENT = 1,
    /// A file or folder that is not there, or no weights of a backbone.
    MUSC_NOT_FOUND = 2,
    /// A file that cannot be read, written or made sense of.
    MUSC_BAD_FILE = 3,
    /// A device has too little memory left.
    MUSC_OUT_OF_MEMORY = 4,
    /// A device that is not there, or that failed.
    MUSC_DEVICE = 5,
    /// The progress function asked to stop.
    MUSC_INTERRUPTED = 6,
    /// A buffer is too small for what should go into it. Nothing was written, and `needed` has the number of elements.
    MUSC_BUFFER_TOO_SMALL = 7,
    /// The program was compiled with the header of another version than that of this library.
    MUSC_WRONG_ABI = 8,
    /// A fault in this library. A handle that was in use meanwhile answers every later call with this, and is there to be freed.
    MUSC_INTERNAL = 9,
}

use musc_status::*;

/// The status codes with their names, by number.
const NAMES: [(musc_status, &CStr); 10] = [
    (MUSC_OK, c"ok"),
    (MUSC_BAD_ARGUMENT, c"bad argument"),
    (MUSC_NOT_FOUND, c"not found"),
    (MUSC_BAD_FILE, c"bad file"),
    (MUSC_OUT_OF_MEMORY, c"out of memory"),
    (MUSC_DEVICE, c"device"),
    (MUSC_INTERRUPTED, c"interrupted"),
    (MUSC_BUFFER_TOO_SMALL, c"buffer too small"),
    (MUSC_WRONG_ABI, c"wrong ABI"),
    (MUSC_INTERNAL, c"internal"),
];

/// A call that failed.
#[derive(Debug)]
pub struct Failure {
    pub status: musc_status,
    pub message: String,
}

/// Result of what stands behind a function of the header.
pub type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    pub fn new(status: musc_status, message: impl Into<String>) -> Self {
        Failure { status, message: message.into() }
    }

    /// An argument outside what is allowed, in the library's words.
    pub fn argument(
        what: &str,
        found: impl std::fmt::Display,
        expected: impl std::fmt::Display,
    ) -> Self {
        Self::new(MUSC_BAD_ARGUMENT, format!("{what}: found {found}, expected {expected}"))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let of_path =
            |path: &std::path::Path| if path.exists() { MUSC_BAD_FILE } else { MUSC_NOT_FOUND };
        let status = match &error {
            Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                MUSC_NOT_FOUND
            }
            Error::NoWeights { .. } => MUSC_NOT_FOUND,
            Error::Image { path, .. } | Error::Dataset { path, .. } => of_path(path),
            Error::BadImages { bad } => match bad.iter().find(|(path, _)| path.exists()) {
                None => MUSC_NOT_FOUND,
                Some(_) => MUSC_BAD_FILE,
            },
            Error::Io { .. }
            | Error::Exists { .. }
            | Error::Weights { .. }
            | Error::Tensor { .. }
            | Error::Download { .. } => MUSC_BAD_FILE,
            Error::Invalid { .. } => MUSC_BAD_ARGUMENT,
            Error::Device { .. } | Error::Kernel { .. } => MUSC_DEVICE,
            Error::OutOfMemory { .. } => MUSC_OUT_OF_MEMORY,
            Error::Interrupted => MUSC_INTERRUPTED,
            _ => MUSC_INTERNAL,
        };
        Failure::new(status, error.to_string())
    }
}

thread_local! {
    static LAST_ERROR: RefCell<Option<CString>> = const { RefCell::new(None) };
}

/// Where the last panic came from, on whatever thread.
static LAST_PANIC: Mutex<String> = Mutex::new(String::new());

/// The body of every function that can fail: no panic leaves it, and a failure is kept for [`musc_last_error`].
pub fn guard(work: impl FnOnce() -> Outcome) -> musc_status {
    guard_or(work, || ())
}

/// As [`guard`], with something to do when the work panicked.
pub fn guard_or(work: impl FnOnce() -> Outcome, panicked: impl FnOnce()) -> musc_status {
    keep_panics_quiet();
    let failure = match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(())) => return MUSC_OK,
        Ok(Err(failure)) => failure,
        Err(payload) => {
            panicked();
            let place =
                std::mem::take(&mut *LAST_PANIC.lock().unwrap_or_else(PoisonError::into_inner));
            let words = words_of(payload.as_ref());
            Failure::new(MUSC_INTERNAL, format!("a fault in this library{place}: {words}"))
        }
    };
    remember(&failure.message);
    failure.status
}

fn remember(message: &str) {
    let message = CString::new(message.replace('\0', "\\0")).ok();
    // A thread that is ending has no message any more.
    let _ = LAST_ERROR.try_with(|last| *last.borrow_mut() = message);
}

fn words_of(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no words")
}

/// A library prints nothing: what a panic has to say goes into the message. The hook is this library's own, as its Rust runtime is.
fn keep_panics_quiet() {
    #[cfg(not(test))]
    {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            std::panic::set_hook(Box::new(|info| {
                let place = info.location().map(|at| format!(" ({}:{})", at.file(), at.line()));
                *LAST_PANIC.lock().unwrap_or_else(PoisonError::into_inner) =
                    place.unwrap_or_default();
            }));
        });
    }
}

/// The version of the ABI that this library has: compare with MUSC_ABI_VERSION. musc_options_new() does, too.
#[unsafe(no_mangle)]
pub extern "C" fn musc_abi_version() -> u32 {
    MUSC_ABI_VERSION
}

/// The version of the library, such as "0.1.0". Static: it is not freed.
#[unsafe(no_mangle)]
pub extern "C" fn musc_version() -> *const c_char {
    const VERSION: &CStr =
        match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
            Ok(version) => version,
            Err(_) => c"",
        };
    VERSION.as_ptr()
}

/// A status in words, such as "bad argument"; "unknown" for a number that is none. Static: it is not freed.
#[unsafe(no_mangle)]
pub extern "C" fn musc_status_name(status: i32) -> *const c_char {
    let known = NAMES.iter().find(|(known, _)| *known as i32 == status);
    known.map_or(c"unknown", |(_, name)| *name).as_ptr()
}

/// What was wrong in the last call on this thread that failed: what was attempted, what was found, what was expected, in UTF-8.
/// Empty if none has failed; never NULL. Calls that succeed leave it as it is. Valid until the next call on this thread that fails, or
/// the thread's end; it is not freed.
#[unsafe(no_mangle)]
pub extern "C" fn musc_last_error() -> *const c_char {
    let kept = LAST_ERROR.try_with(|last| last.borrow().as_ref().map(|words| words.as_ptr()));
    kept.ok().flatten().unwrap_or(c"".as_ptr())
}

/// 1 when the default weights (DINOv2 ViT-S/14) are part of this library, 0 when it was built without them.
#[unsafe(no_mangle)]
pub extern "C" fn musc_has_built_in_weights() -> i32 {
    i32::from(embedded::built_in_weights().is_some())
}
