//! The exported functions. What each does, and what it asks of its caller, is NVIDIA's documentation of the driver API;
//! here stands what the simulator makes of it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::code::{self, Code, Fail, fail};
use crate::driver::driver_if_made;
use crate::options::Log;

/// Exports functions of the driver API: each returns a result code, never unwinds, and is told where it fails.
macro_rules! api {
    ($(
        $(#[$meta:meta])*
        fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $body:block
    )*) => {$(
        $(#[$meta])*
        // SAFETY: the name is the driver API's, and taking its place is what this library is for.
        #[unsafe(no_mangle)]
        #[allow(non_snake_case, clippy::too_many_arguments)]
        pub(crate) unsafe extern "C" fn $name($($arg: $ty),*) -> u32 {
            $crate::api::call(stringify!($name), || $body)
        }
    )*};
}

mod address;
mod context;
mod copy;
mod device;
mod event;
mod kernel;
mod module;
mod stream;
mod stubs;

/// Runs the body of an exported function.
fn call(name: &str, body: impl FnOnce() -> Result<(), Fail>) -> u32 {
    let done = catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|_| {
        Err(fail(code::UNKNOWN, "the simulator failed; this is a fault of it"))
    });
    let log = driver_if_made().map_or(Log::Errors, |driver| driver.options.log);
    match done {
        Ok(()) => {
            if log == Log::Calls {
                crate::report::say(name);
            }
            code::SUCCESS.0
        }
        Err(Fail { code, said }) => {
            match said {
                Some(said) => {
                    crate::report::say(&format!("{name}: {} ({}): {said}", code.label(), code.0))
                }
                None if log == Log::Calls => {
                    crate::report::say(&format!("{name}: {} ({})", code.label(), code.0))
                }
                None => {}
            }
            code.0
        }
    }
}

/// A code whose sentence says which function is not there.
fn unsupported(what: &str) -> Fail {
    fail(code::NOT_SUPPORTED, format!("{what} is not simulated"))
}

/// Errors unless a flag word has known bits alone.
fn flags_within(flags: u32, known: u32) -> Result<(), Fail> {
    if flags & !known == 0 {
        return Ok(());
    }
    Err(fail(code::INVALID_VALUE, format!("flags {flags:#x}, expected bits of {known:#x}")))
}

/// Success or this code.
fn unless(bad: bool, code: Code, said: impl FnOnce() -> String) -> Result<(), Fail> {
    if bad { Err(fail(code, said())) } else { Ok(()) }
}
