//! One new image after the other against a bank.

use std::ffi::{c_char, c_void};
use std::mem::ManuallyDrop;
use std::sync::{Arc, Mutex, PoisonError};

use musc::inspect::{Batch, InputSize, Inspector, Predictor};

use crate::bank::musc_bank;
use crate::batch::{batch_of, batch_of_frames, musc_batch, musc_frame};
use crate::handle::{Handle, find, free, give, using};
use crate::input::{check, path, slice};
use crate::inspection::{Inspected, musc_inspection, rule_of};
use crate::inspector::musc_inspector;
use crate::output::out_pointer;
use crate::progress::{Watcher, musc_progress};
use crate::status::{Failure, Outcome, musc_status};

/// A bank in use on an inspector's device. Many threads may ask it at once, and are answered one after the other.
pub struct musc_predictor(());

/// A predictor with the inspector that it borrows from.
#[derive(Debug)]
pub struct Owned {
    predictor: ManuallyDrop<Predictor<'static>>,
    /// Never moved while the predictor is there: it is behind a pointer of its own.
    inspector: ManuallyDrop<Arc<Inspector>>,
}

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: both are dropped here and nowhere else, what borrows before what it borrows from.
        unsafe {
            ManuallyDrop::drop(&mut self.predictor);
            ManuallyDrop::drop(&mut self.inspector);
        }
    }
}

impl Owned {
    fn new(
        inspector: Arc<Inspector>,
        make: impl FnOnce(&'static Inspector) -> Outcome<Predictor<'static>>,
    ) -> Outcome<Self> {
        // SAFETY: the reference goes into the predictor alone, which `drop` ends before the inspector, and is not handed out.
        let borrowed: &'static Inspector = unsafe { &*Arc::as_ptr(&inspector) };
        let predictor = ManuallyDrop::new(make(borrowed)?);
        Ok(Owned { predictor, inspector: ManuallyDrop::new(inspector) })
    }
}

impl Handle for musc_predictor {
    type Value = Mutex<Owned>;
    const NAME: &'static str = "musc_predictor";
}

/// Compares a batch with the bank.
///
/// # Safety
/// `inspection` is NULL, or can be written to.
unsafe fn predict(
    predictor: *const musc_predictor,
    batch: impl FnOnce() -> Outcome<Arc<Batch>>,
    (progress, user_data): (musc_progress, *mut c_void),
    inspection: *mut *mut musc_inspection,
) -> musc_status {
    using(predictor, |held| {
        let make = || {
            let batch = batch()?;
            let watcher = Watcher::new(progress, user_data);
            let mut owned = held.lock().unwrap_or_else(PoisonError::into_inner);
            let found = owned.predictor.predict(&batch, &watcher)?;
            Ok(Inspected::new(found, Some(owned.predictor.threshold())))
        };
        // SAFETY: the caller's promise.
        unsafe { give(inspection, make) }
    })
}

/// Takes a bank to an inspector's device. The rule makes another threshold of the bank's raw scores, see musc_inspection_threshold();
/// NULL leaves the bank's. With `keep` of 2 or more the bank slides: an image that is not defective takes the place of the oldest
/// reference, and `keep` of them are kept; with 0 it stays as it is.
///
/// `*predictor` is to be freed with musc_predictor_free(). Inspector and bank may be freed before.
///
/// Errors: MUSC_BAD_ARGUMENT for an inspector of other settings than the bank's, with both; MUSC_OUT_OF_MEMORY and MUSC_DEVICE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn musc_predictor_new(
    inspector: *const musc_inspector,
    bank: *const musc_bank,
    rule: *const c_char,
    keep: usize,
    predictor: *mut *mut musc_predictor,
) -> musc_status {
    using(inspector, |inspector| {
        let make = || {
            let bank = find(bank)?.value()?.clone();
            // Now, and not when the first image comes.
            let wanted = bank.settings().input;
            if let InputSize::Exactly(size) = inspector.input()
                && size != wanted
            {
                let expected = format!("{wanted}, as the bank has");
                return Err(Failure::argument("size of the images", size, expected));
            }
            // SAFETY: musc.h asks for NULL or a string.
            let rule = (!rule.is_null()).then(|| unsafe { rule_of(rule) }).transpose()?;
            let owned = Owned::new(Arc::clone(inspector), |inspector| {
                let mut made = Predictor::new(inspector, bank)?;
                if let Some(rule) = rule {
                    made = made.with_rule(rule)?;
                }
                Ok(if keep == 0 { made } else { made.keep(keep)? })
            });
            Ok(Mutex::new(owned?))
        };
        // SAFETY: musc.h asks for a place to write to.
        unsafe { give(predictor, make) }
    })
}

/// Frees a predictor; NULL is fine.
#[unsafe(no_mangle)]
pub extern "C" fn musc_predictor_free(predictor: *mut musc_predictor) -> musc_status {
    free(predictor)
}

/// Compares the images of a batch, one at least, with the bank; with one that slides one after the other, each with the bank that those
/// before it have left. Each image is decided by the bank's threshold (rule NULL). `progress` may be NULL.
///
/// `*inspection` is to be freed with musc_inspection_free().
///
/// Errors: as musc_inspector_inspect(), but one image is enough.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn musc_predictor_predict(
    predictor: *const musc_predictor,
    batch: *const musc_batch,
    progress: musc_progress,
    user_data: *mut c_void,
    inspection: *mut *mut musc_inspection,
) -> musc_status {
    let batch = || Ok(batch_of(find(batch)?.value()?));
    // SAFETY: musc.h asks for a place to write to.
    unsafe { predict(predictor, batch, (progress, user_data), inspection) }
}

/// As musc_predictor_predict(), for one file.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn musc_predictor_path(
    predictor: *const musc_predictor,
    file: *const c_char,
    inspection: *mut *mut musc_inspection,
) -> musc_status {
    // SAFETY: musc.h asks for a string.
    let batch = || Ok(Arc::new(Batch::files_as_given([unsafe { path(file, "file") }?])?));
    // SAFETY: musc.h asks for a place to write to.
    unsafe { predict(predictor, batch, (None, std::ptr::null_mut()), inspection) }
}

/// As musc_predictor_predict(), for one frame. Its pixels are copied.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn musc_predictor_frame(
    predictor: *const musc_predictor,
    frame: *const musc_frame,
    inspection: *mut *mut musc_inspection,
) -> musc_status {
    let batch = || {
        check(frame, 1, "frame")?;
        // SAFETY: musc.h asks for a frame with its pixels.
        Ok(Arc::new(unsafe { batch_of_frames(slice(frame, 1, "frame")?) }?))
    };
    // SAFETY: musc.h asks for a place to write to.
    unsafe { predict(predictor, batch, (None, std::ptr::null_mut()), inspection) }
}

/// The threshold: an image whose raw score is above it is defective. A bank that slides keeps it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn musc_predictor_threshold(
    predictor: *const musc_predictor,
    threshold: *mut f64,
) -> musc_status {
    using(predictor, |held| {
        let owned = held.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: musc.h asks for a place to write to.
        *unsafe { out_pointer(threshold, "threshold") }? = owned.predictor.threshold();
        Ok(())
    })
}

/// The bank as it is now: with one that slides, to save what it has become.
///
/// `*bank` is to be freed with musc_bank_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn musc_predictor_bank(
    predictor: *const musc_predictor,
    bank: *mut *mut musc_bank,
) -> musc_status {
    using(predictor, |held| {
        let owned = held.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: musc.h asks for a place to write to.
        unsafe { give(bank, || Ok(owned.predictor.bank())) }
    })
}
