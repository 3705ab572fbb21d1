//! A device with a backbone on it.

use std::ffi::{c_char, c_void};
use std::sync::Arc;

use musc::inspect::{Inspection, Inspector};
use rayon::ThreadPoolBuilder;

use crate::batch::{batch_of, musc_batch};
use crate::handle::{Handle, find, free, give, using};
use crate::inspection::{Inspected, musc_inspection};
use crate::options::{musc_options, options_of};
use crate::output::{Buffer, put_text};
use crate::progress::{Watcher, musc_progress};
use crate::status::musc_status::MUSC_DEVICE;
use crate::status::{Failure, Outcome, musc_status};

/// A device with a backbone on it, ready to inspect batches. May be used by many threads at once; each call has all threads of the
/// inspector, so one after the other is as fast.
pub struct musc_inspector(());

impl Handle for musc_inspector {
    type Value = Arc<Inspector>;
    const NAME: &'static str = "musc_inspector";
}

/// Does work that takes rayon's current pool on one of so many threads, 0 meaning one a core, which ends with it: the global one's
/// threads would stay until the process ends.
pub fn on_a_pool<T: Send>(threads: usize, work: impl FnOnce() -> Outcome<T> + Send) -> Outcome<T> {
    let pool = ThreadPoolBuilder::new().num_threads(threads).build();
    let pool = pool.map_err(|error| Failure::new(MUSC_DEVICE, format!("device `cpu`: {error}")))?;
    pool.install(work)
}

/// Opens the device, reads the weights and checks that all options fit together.
///
/// `*inspector` is to be freed with musc_inspector_free(). The options may be freed or changed afterwards.
///
/// Errors: MUSC_DEVICE, MUSC_OUT_OF_MEMORY, MUSC_NOT_FOUND and MUSC_BAD_FILE for weights, MUSC_BAD_ARGUMENT for an option by its name.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn musc_inspector_new(
    options: *const musc_options,
    inspector: *mut *mut musc_inspector,
) -> musc_status {
    using(options, |options| {
        let make = || Ok(Arc::new(options_of(options).inspector()?));
        // SAFETY: musc.h asks for a place to write to.
        unsafe { give(inspector, make) }
    })
}

/// Frees an inspector; NULL is fine. Inspections and banks stay, and a predictor keeps what it needs of it.
#[unsafe(no_mangle)]
pub extern "C" fn musc_inspector_free(inspector: *mut musc_inspector) -> musc_status {
    free(inspector)
}

/// One line for people: the device and what it uses. A string as a buffer, with its 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn musc_inspector_device(
    inspector: *const musc_inspector,
    buffer: *mut c_char,
    capacity: usize,
    needed: *mut usize,
) -> musc_status {
    using(inspector, |inspector| {
        // SAFETY: musc.h asks for a buffer of this capacity.
        unsafe { put_text(Buffer { buffer, capacity, needed }, inspector.device()) }
    })
}

/// The name of the backbone. A string as a buffer, with its 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn musc_inspector_backbone(
    inspector: *const musc_inspector,
    buffer: *mut c_char,
    capacity: usize,
    needed: *mut usize,
) -> musc_status {
    using(inspector, |inspector| {
        // SAFETY: musc.h asks for a buffer of this capacity.
        unsafe { put_text(Buffer { buffer, capacity, needed }, inspector.backbone().name()) }
    })
}

/// Scores the images of a batch, two at least, against each other. `progress` may be NULL.
///
/// `*inspection` is to be freed with musc_inspection_free().
///
/// Errors: MUSC_NOT_FOUND and MUSC_BAD_FILE with every file that cannot be read; MUSC_BAD_ARGUMENT for fewer than two images, or an
/// option that does not fit them; MUSC_INTERRUPTED; MUSC_OUT_OF_MEMORY and MUSC_DEVICE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn musc_inspector_inspect(
    inspector: *const musc_inspector,
    batch: *const musc_batch,
    progress: musc_progress,
    user_data: *mut c_void,
    inspection: *mut *mut musc_inspection,
) -> musc_status {
    using(inspector, |inspector| {
        let make = || {
            let batch = batch_of(find(batch)?.value()?);
            let found: Inspection =
                inspector.inspect(&batch, &Watcher::new(progress, user_data))?;
            Ok(Inspected::new(found, None))
        };
        // SAFETY: musc.h asks for a place to write to.
        unsafe { give(inspection, make) }
    })
}
