//! The exported functions. What each does, and what it asks of its caller, is NVIDIA's documentation of the driver API;
//! here stands what the simulator makes of it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::code::{self, Code, Fail, fail};
use crate::driver::driver_if_made;
use crate::options::Log;

/// Exports functions of the driver API: each returns a result code, never unwinds, and is told where it fails.
///
/// `fn name as name_ptsz(...)` exports a second one, in which the null stream is the thread's own.
macro_rules! api {
    ($(
        $(#[$meta:meta])*
        fn $name:ident $(as $own:ident)? ($($arg:ident: $ty:ty),* $(,)?) $body:block
    )*) => {
        $(
            $(#[$meta])*
            // SAFETY: the name is the driver API's, and taking its place is what this library is for.
            #[unsafe(no_mangle)]
            #[allow(non_snake_case, clippy::too_many_arguments, reason = "the driver API's names and arguments")]
            pub(crate) unsafe extern "C" fn $name($($arg: $ty),*) -> u32 {
                $crate::api::call(stringify!($name), || $body)
            }
            own! { [$($own)?] $name($($arg: $ty),*) }
        )*

        /// The functions of this file, by name.
        pub(super) fn exports(add: &mut impl FnMut(&'static str, usize)) {
            $(
                add(stringify!($name), $name as *const () as usize);
                $(add(stringify!($own), $own as *const () as usize);)?
            )*
        }
    };
}

/// The second form of a function, where there is one.
macro_rules! own {
    ([] $name:ident $args:tt) => {};
    ([$own:ident] $name:ident ($($arg:ident: $ty:ty),*)) => {
        // SAFETY: as in `api`.
        #[unsafe(no_mangle)]
        #[allow(non_snake_case, clippy::too_many_arguments, reason = "the driver API's names and arguments")]
        pub(crate) unsafe extern "C" fn $own($($arg: $ty),*) -> u32 {
            // SAFETY: the same arguments for the same function.
            $crate::driver::with_own_stream(|| unsafe { $name($($arg),*) })
        }
    };
}

mod address;
mod context;
mod copy;
mod device;
mod event;
mod host;
mod kernel;
mod library;
mod managed;
mod module;
mod occupancy;
mod pool;
mod proc_address;
mod stream;
mod stubs;

/// Runs the body of an exported function.
fn call(name: &str, body: impl FnOnce() -> Result<(), Fail>) -> u32 {
    let due = crate::fail::due(name);
    let told = |result| Err(Fail { code: Code(result), said: Some("it was told to fail".into()) });
    let done = match due {
        Some((result, false)) => told(result),
        _ => catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|_| {
            Err(fail(code::UNKNOWN, "the simulator failed; this is a fault of it"))
        }),
    };
    let done = match due {
        Some((result, true)) => done.and(told(result)),
        _ => done,
    };
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
