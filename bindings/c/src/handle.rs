//! Handles: numbers that look like pointers, and the table of what they stand for.
//!
//! A handle is looked up and never dereferenced, so that one that was freed, or is of another type, is an error and not a crash; a
//! number is never given twice. Freeing one that another thread is using lets that thread finish.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crate::output::out_pointer;
use crate::status::musc_status::{self, MUSC_BAD_ARGUMENT, MUSC_INTERNAL};
use crate::status::{Failure, Outcome, guard, guard_or};

/// A type of the header that C holds by handle.
pub trait Handle {
    /// What stands behind it.
    type Value: Send + Sync + 'static;
    /// Its name in messages.
    const NAME: &'static str;
}

/// What stands behind a handle.
#[derive(Debug)]
pub struct Held<T> {
    value: T,
    /// A panic left it half way.
    broken: AtomicBool,
}

struct Table {
    held: BTreeMap<usize, Arc<dyn Any + Send + Sync>>,
    given: usize,
}

static TABLE: RwLock<Table> = RwLock::new(Table { held: BTreeMap::new(), given: 0 });

/// What an allocator gives is a multiple of this, and so are handles.
const STEP: usize = 16;

/// Keeps a value and writes its handle to `out`, which is checked; on an error NULL.
///
/// # Safety
/// `out` is NULL, or can be written to.
pub unsafe fn give<H: Handle>(
    out: *mut *mut H,
    make: impl FnOnce() -> Outcome<H::Value>,
) -> Outcome {
    // SAFETY: the caller's promise.
    let out = unsafe { out_pointer(out, "the place for the new handle") }?;
    *out = std::ptr::null_mut();
    let held = Held { value: make()?, broken: AtomicBool::new(false) };
    let mut table = TABLE.write().unwrap_or_else(PoisonError::into_inner);
    table.given += STEP;
    let number = table.given;
    table.held.insert(number, Arc::new(held));
    *out = std::ptr::without_provenance_mut(number);
    Ok(())
}

/// What stands behind a handle.
pub fn find<H: Handle>(handle: *const H) -> Outcome<Arc<Held<H::Value>>> {
    let expected = format!("a {} that is not freed", H::NAME);
    if handle.is_null() {
        return Err(Failure::argument(H::NAME, "NULL", expected));
    }
    let found = {
        let table = TABLE.read().unwrap_or_else(PoisonError::into_inner);
        table.held.get(&handle.addr()).cloned()
    };
    let found = found.ok_or_else(|| {
        Failure::argument(H::NAME, "a handle that was freed, or never given", &expected)
    })?;
    found.downcast().map_err(|_| Failure::argument(H::NAME, "a handle of another type", expected))
}

/// The body of a function that works with what stands behind a handle. A panic breaks the handle: it refuses from then on.
pub fn using<H: Handle>(handle: *const H, work: impl FnOnce(&H::Value) -> Outcome) -> musc_status {
    let held = match find(handle) {
        Ok(held) => held,
        Err(failure) => return guard(|| Err(failure)),
    };
    guard_or(|| work(held.value()?), || held.broken.store(true, Ordering::Release))
}

impl<T> Held<T> {
    /// The value, unless a panic left it half way.
    pub fn value(&self) -> Outcome<&T> {
        if self.broken.load(Ordering::Acquire) {
            let words = "a handle that was in use when this library failed: free it";
            return Err(Failure::new(MUSC_INTERNAL, words));
        }
        Ok(&self.value)
    }
}

/// Frees a handle; NULL is nothing to free.
pub fn free<H: Handle>(handle: *mut H) -> musc_status {
    guard(|| {
        if handle.is_null() {
            return Ok(());
        }
        // Of this type, and there.
        find::<H>(handle)?;
        let removed = {
            let mut table = TABLE.write().unwrap_or_else(PoisonError::into_inner);
            table.held.remove(&handle.addr())
        };
        match removed {
            Some(_) => Ok(()),
            None => Err(Failure::new(MUSC_BAD_ARGUMENT, "two threads freed one handle")),
        }
    })
}

/// The number of handles of all kinds that are not freed yet: 0 at the end of a program that forgets none. Leak checkers see what is
/// behind a forgotten handle as reachable, and say nothing of it.
#[unsafe(no_mangle)]
pub extern "C" fn musc_live_handles() -> usize {
    TABLE.read().unwrap_or_else(PoisonError::into_inner).held.len()
}
