//! References that are kept.

use std::ffi::{c_char, c_void};
use std::sync::Mutex;

use musc::inspect::Bank;
use musc::model::backbone;

use crate::batch::{batch_of, musc_batch};
use crate::handle::{Handle, find, free, give, using};
use crate::input::path;
use crate::inspection::rule_or_usual;
use crate::inspector::musc_inspector;
use crate::options::{Options, check_abi, musc_options};
use crate::output::{Buffer, out_pointer, put_text};
use crate::progress::{Watcher, musc_progress};
use crate::status::{Failure, guard, musc_status};

/// Known-good images with all that is needed to compare others with them: their tokens, the threshold, and the settings that they were
/// made with. It does not change, and is independent of the inspector that it was made with.
pub struct musc_bank(());

impl Handle for musc_bank {
    type Value = Bank;
    const NAME: &'static str = "musc_bank";
}

/// A bank of the images of a batch, two at least; an image that is there twice, by its pixels, is kept once. The rule for the threshold
/// is as in musc_inspection_threshold(), and NULL is "gap"; `progress` may be NULL.
///
/// `*bank` is to be freed with musc_bank_free().
///
/// Errors: as musc_inspector_inspect(), and MUSC_BAD_ARGUMENT for an inspector with tiles and for the rule "mebin".
#[unsafe(no_mangle)]
pub unsafe extern "C" fn musc_bank_build(
    inspector: *const musc_inspector,
    batch: *const musc_batch,
    rule: *const c_char,
    progress: musc_progress,
    user_data: *mut c_void,
    bank: *mut *mut musc_bank,
) -> musc_status {
    using(inspector, |inspector| {
        let make = || {
            let batch = batch_of(find(batch)?.value()?);
            // SAFETY: musc.h asks for NULL or a string.
            let rule = unsafe { rule_or_usual(rule) }?;
            Ok(inspector.bank(&batch, rule, &Watcher::new(progress, user_data))?)
        };
        // SAFETY: musc.h asks for a place to write to.
        unsafe { give(bank, make) }
    })
}

/// A new bank with the images of a batch besides, but for those that are in it already, by their pixels; the threshold is made anew. The
/// inspector is one of the bank's settings.
///
/// `*bigger` is to be freed with musc_bank_free(), as `bank` still is.
///
/// Errors: as musc_bank_build(), and MUSC_BAD_ARGUMENT for an inspector of other settings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn musc_bank_add(
    inspector: *const musc_inspector,
    bank: *const musc_bank,
    batch: *const musc_batch,
    progress: musc_progress,
    user_data: *mut c_void,
    bigger: *mut *mut musc_bank,
) -> musc_status {
    using(inspector, |inspector| {
        let make = || {
            let batch = batch_of(find(batch)?.value()?);
            let bank = find(bank)?.value()?.clone();
            Ok(inspector.add_to_bank(bank, &batch, &Watcher::new(progress, user_data))?)
        };
        // SAFETY: musc.h asks for a place to write to.
        unsafe { give(bigger, make) }
    })
}

/// Reads a bank from a file.
///
/// `*bank` is to be freed with musc_bank_free().
///
/// Errors: MUSC_NOT_FOUND, and MUSC_BAD_FILE for a file that is no bank.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn musc_bank_open(
    file: *const c_char,
    bank: *mut *mut musc_bank,
) -> musc_status {
    guard(|| {
        // SAFETY: musc.h asks for a string and a place to write to.
        unsafe { give(bank, || Ok(Bank::open(&path(file, "file")?)?)) }
    })
}

/// Writes a bank to a file, whole or not at all; one of that name is replaced, and folders that are missing are made.
///
/// Errors: MUSC_BAD_FILE when it cannot be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn musc_bank_save(
    bank: *const musc_bank,
    file: *const c_char,
) -> musc_status {
    using(bank, |bank| {
        // SAFETY: musc.h asks for a string.
        Ok(bank.save(&unsafe { path(file, "file") }?)?)
    })
}

/// Frees a bank; NULL is fine. Predictors that were made with it stay.
#[unsafe(no_mangle)]
pub extern "C" fn musc_bank_free(bank: *mut musc_bank) -> musc_status {
    free(bank)
}

/// Options of an inspector that fits a bank. The device is to be chosen still, and the weights where they are not found by the
/// backbone's name. `abi_version` is MUSC_ABI_VERSION.
///
/// `*options` is to be freed with musc_options_free().
///
/// Errors: MUSC_WRONG_ABI.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn musc_bank_options(
    bank: *const musc_bank,
    abi_version: u32,
    options: *mut *mut musc_options,
) -> musc_status {
    using(bank, |bank| {
        let make = || {
            check_abi(abi_version)?;
            let settings = bank.settings();
            let known = backbone(&settings.backbone).is_ok();
            Ok(Mutex::new(Options {
                builder: settings.builder(),
                backbone: known.then(|| settings.backbone.clone()),
                scoring: settings.scoring.clone(),
                ..Options::default()
            }))
        };
        // SAFETY: musc.h asks for a place to write to.
        unsafe { give(options, make) }
    })
}

/// The number M of references.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn musc_bank_count(bank: *const musc_bank, count: *mut usize) -> musc_status {
    using(bank, |bank| {
        // SAFETY: musc.h asks for a place to write to.
        *unsafe { out_pointer(count, "count") }? = bank.len();
        Ok(())
    })
}

/// The threshold: an image whose raw score is above it is defective.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn musc_bank_threshold(
    bank: *const musc_bank,
    threshold: *mut f64,
) -> musc_status {
    using(bank, |bank| {
        // SAFETY: musc.h asks for a place to write to.
        *unsafe { out_pointer(threshold, "threshold") }? = bank.threshold();
        Ok(())
    })
}

/// The M raw scores of the references among themselves.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn musc_bank_raw_scores(
    bank: *const musc_bank,
    buffer: *mut f32,
    capacity: usize,
    needed: *mut usize,
) -> musc_status {
    using(bank, |bank| {
        // SAFETY: musc.h asks for a buffer of this capacity.
        unsafe { Buffer { buffer, capacity, needed }.copy(bank.raw_scores()) }
    })
}

/// The name of a reference: the path that it was read from, or the frame's name. A string as a buffer, with its 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn musc_bank_name(
    bank: *const musc_bank,
    reference: usize,
    buffer: *mut c_char,
    capacity: usize,
    needed: *mut usize,
) -> musc_status {
    using(bank, |bank| {
        let name = bank.names().get(reference).ok_or_else(|| {
            Failure::argument("reference", reference, format!("below {}", bank.len()))
        })?;
        // SAFETY: musc.h asks for a buffer of this capacity.
        unsafe { put_text(Buffer { buffer, capacity, needed }, name) }
    })
}

/// What a bank is, as a JSON object: `references`, `backbone`, `weights_sha256`, `input` and `grid` ("HxW"), `layers`, `r_list`, `radius`,
/// `rscin_k`, `decision`, `threshold`. Keys may be added. A string as a buffer, with its 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn musc_bank_info(
    bank: *const musc_bank,
    buffer: *mut c_char,
    capacity: usize,
    needed: *mut usize,
) -> musc_status {
    using(bank, |bank| {
        let settings = bank.settings();
        let facts = serde_json::json!({
            "references": bank.len(),
            "backbone": settings.backbone,
            "weights_sha256": settings.weights_sha256,
            "input": settings.input.to_string(),
            "grid": bank.grid().to_string(),
            "layers": settings.layers,
            "r_list": settings.scoring.degrees,
            "radius": settings.scoring.radius,
            "rscin_k": settings.rescoring.as_ref().and_then(|rescoring| rescoring.k.clone()),
            "decision": settings.rule.to_string(),
            "threshold": bank.threshold(),
        });
        // SAFETY: musc.h asks for a buffer of this capacity.
        unsafe { put_text(Buffer { buffer, capacity, needed }, &facts.to_string()) }
    })
}
