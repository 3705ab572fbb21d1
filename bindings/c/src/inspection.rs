//! What a batch came to.

use std::ffi::c_char;

use musc::ImageSize;
use musc::inspect::Inspection;
use musc::scoring::decision::DecisionRule;

use crate::handle::{Handle, free, using};
use crate::input::{product, text};
use crate::inspector::on_a_pool;
use crate::output::{Buffer, out_pointer, put_text};
use crate::status::{Failure, Outcome, musc_status};

/// What a batch came to, image by image in the batch's order. It does not change: any number of threads may read it.
pub struct musc_inspection(());

/// An inspection, and the threshold of the bank that it was compared with.
#[derive(Debug)]
pub struct Inspected {
    found: Inspection,
    threshold: Option<f64>,
}

impl Handle for musc_inspection {
    type Value = Inspected;
    const NAME: &'static str = "musc_inspection";
}

impl Inspected {
    pub fn new(found: Inspection, threshold: Option<f64>) -> Self {
        Inspected { found, threshold }
    }

    /// Refuses an image past the last.
    fn check(&self, image: usize) -> Outcome {
        match image < self.found.len() {
            true => Ok(()),
            false => Err(Failure::argument("image", image, format!("below {}", self.found.len()))),
        }
    }

    /// The rule of a caller; NULL is the bank's threshold, or the usual rule.
    ///
    /// # Safety
    /// `rule` is NULL or a string.
    unsafe fn rule(&self, rule: *const c_char) -> Outcome<DecisionRule> {
        if rule.is_null() {
            return Ok(self.threshold.map_or_else(DecisionRule::default, DecisionRule::Value));
        }
        // SAFETY: the caller's promise.
        unsafe { rule_of(rule) }
    }

    fn thresholds(&self, rule: DecisionRule) -> Outcome<Vec<f64>> {
        match rule.is_per_image() {
            true => on_a_pool(0, || Ok(self.found.thresholds(rule)?)),
            false => Ok(self.found.thresholds(rule)?),
        }
    }
}

/// A decision rule by its name.
///
/// # Safety
/// `rule` is NULL or a string.
pub unsafe fn rule_of(rule: *const c_char) -> Outcome<DecisionRule> {
    // SAFETY: the caller's promise.
    Ok(unsafe { text(rule, "rule") }?.parse()?)
}

/// As [`rule_of`]; NULL is the usual rule.
///
/// # Safety
/// `rule` is NULL or a string.
pub unsafe fn rule_or_usual(rule: *const c_char) -> Outcome<DecisionRule> {
    if rule.is_null() {
        return Ok(DecisionRule::default());
    }
    // SAFETY: the caller's promise.
    unsafe { rule_of(rule) }
}

/// Frees an inspection; NULL is fine.
#[unsafe(no_mangle)]
pub extern "C" fn musc_inspection_free(inspection: *mut musc_inspection) -> musc_status {
    free(inspection)
}

/// The number N of images that were scored: all of the batch, unless bad files were to be skipped.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn musc_inspection_count(
    inspection: *const musc_inspection,
    count: *mut usize,
) -> musc_status {
    using(inspection, |held| {
        // SAFETY: musc.h asks for a place to write to.
        *unsafe { out_pointer(count, "count") }? = held.found.len();
        Ok(())
    })
}

/// The places of the N images in their batch, rising: 0, 1, 2, … unless bad files were skipped.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn musc_inspection_places(
    inspection: *const musc_inspection,
    buffer: *mut usize,
    capacity: usize,
    needed: *mut usize,
) -> musc_status {
    using(inspection, |held| {
        // SAFETY: musc.h asks for a buffer of this capacity.
        unsafe { Buffer { buffer, capacity, needed }.copy(held.found.kept()) }
    })
}

/// The name of an image: its path, or the frame's name. A string as a buffer, with its 0. What is no UTF-8 in a file's name is
/// replaced by U+FFFD.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn musc_inspection_name(
    inspection: *const musc_inspection,
    image: usize,
    buffer: *mut c_char,
    capacity: usize,
    needed: *mut usize,
) -> musc_status {
    using(inspection, |held| {
        held.check(image)?;
        let name = held.found.samples()[image].path.to_string_lossy();
        // SAFETY: musc.h asks for a buffer of this capacity.
        unsafe { put_text(Buffer { buffer, capacity, needed }, &name) }
    })
}

/// What a person should hear of, a line each: files that were skipped with why, images that are nearly the same, and the like. A string
/// as a buffer, with its 0; empty when there is nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn musc_inspection_notes(
    inspection: *const musc_inspection,
    buffer: *mut c_char,
    capacity: usize,
    needed: *mut usize,
) -> musc_status {
    using(inspection, |held| {
        let skipped = held.found.skipped().iter();
        let skipped = skipped.map(|(path, why)| format!("{}: skipped: {why}", path.display()));
        let notes = held.found.notes().iter().map(ToString::to_string);
        let lines: Vec<String> = skipped.chain(notes).collect();
        // SAFETY: musc.h asks for a buffer of this capacity.
        unsafe { put_text(Buffer { buffer, capacity, needed }, &lines.join("\n")) }
    })
}

/// The N scores after RsCIN; the raw scores where there was none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn musc_inspection_scores(
    inspection: *const musc_inspection,
    buffer: *mut f64,
    capacity: usize,
    needed: *mut usize,
) -> musc_status {
    using(inspection, |held| {
        // SAFETY: musc.h asks for a buffer of this capacity.
        unsafe { Buffer { buffer, capacity, needed }.copy(held.found.scores()) }
    })
}

/// The N raw scores: the largest value of each image's map at the size of musc_inspection_map_size().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn musc_inspection_raw_scores(
    inspection: *const musc_inspection,
    buffer: *mut f32,
    capacity: usize,
    needed: *mut usize,
) -> musc_status {
    using(inspection, |held| {
        // SAFETY: musc.h asks for a buffer of this capacity.
        unsafe { Buffer { buffer, capacity, needed }.copy(held.found.raw_scores()) }
    })
}

/// The grid of patches of an image, or of a tile. `rows` and `columns` are not NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn musc_inspection_grid(
    inspection: *const musc_inspection,
    rows: *mut usize,
    columns: *mut usize,
) -> musc_status {
    using(inspection, |held| {
        let grid = held.found.grid();
        // SAFETY: musc.h asks for places to write to.
        let (to_rows, to_columns) =
            unsafe { (out_pointer(rows, "rows")?, out_pointer(columns, "columns")?) };
        (*to_rows, *to_columns) = (grid.rows, grid.columns);
        Ok(())
    })
}

/// The patch scores of an image, rows * columns of musc_inspection_grid(), row by row; with tiles those of each tile, one tile behind
/// the other, row by row.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn musc_inspection_patch_scores(
    inspection: *const musc_inspection,
    image: usize,
    buffer: *mut f32,
    capacity: usize,
    needed: *mut usize,
) -> musc_status {
    using(inspection, |held| {
        held.check(image)?;
        // SAFETY: musc.h asks for a buffer of this capacity.
        unsafe { Buffer { buffer, capacity, needed }.copy(held.found.patch_scores(image).0) }
    })
}

/// The class token of an image, for musc_rscin().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn musc_inspection_class_token(
    inspection: *const musc_inspection,
    image: usize,
    buffer: *mut f32,
    capacity: usize,
    needed: *mut usize,
) -> musc_status {
    using(inspection, |held| {
        held.check(image)?;
        // SAFETY: musc.h asks for a buffer of this capacity.
        unsafe { Buffer { buffer, capacity, needed }.copy(held.found.class_token(image)) }
    })
}

/// The size of the maps that raw scores are the largest values of, in pixels: that at which images go through the backbone, or with
/// tiles a larger one. `height` and `width` are not NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn musc_inspection_map_size(
    inspection: *const musc_inspection,
    height: *mut usize,
    width: *mut usize,
) -> musc_status {
    using(inspection, |held| {
        let size = held.found.map_size();
        // SAFETY: musc.h asks for places to write to.
        let (to_height, to_width) =
            unsafe { (out_pointer(height, "height")?, out_pointer(width, "width")?) };
        (*to_height, *to_width) = (size.height, size.width);
        Ok(())
    })
}

/// The anomaly map of an image at any size: height * width values, row by row from the top.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn musc_inspection_map(
    inspection: *const musc_inspection,
    image: usize,
    height: usize,
    width: usize,
    buffer: *mut f32,
    capacity: usize,
    needed: *mut usize,
) -> musc_status {
    using(inspection, |held| {
        held.check(image)?;
        let pixels = product(&[height, width], "size of the map")?;
        let size = ImageSize::new(height, width);
        if pixels == 0 {
            return Err(Failure::argument("size of the map", size, "at least one pixel"));
        }
        let fill = |map: &mut [f32]| Ok(held.found.map(image, size, map)?);
        // SAFETY: musc.h asks for a buffer of this capacity.
        unsafe { Buffer { buffer, capacity, needed }.fill(pixels, fill) }
    })
}

/// The one threshold of a decision rule: an image is defective when its raw score is above it. The rule is "gap[:SIGMAS]",
/// "shortest-half[:SIGMAS]", "quantile:Q", "share:P" or a number; NULL is the threshold of the bank that the images were compared with,
/// or "gap" where they were compared with each other.
///
/// Errors: MUSC_BAD_ARGUMENT for "mebin", which has a threshold for each image: see musc_inspection_thresholds().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn musc_inspection_threshold(
    inspection: *const musc_inspection,
    rule: *const c_char,
    threshold: *mut f64,
) -> musc_status {
    using(inspection, |held| {
        // SAFETY: musc.h asks for NULL or a string, and for a place to write to.
        let (rule, to) = unsafe { (held.rule(rule)?, out_pointer(threshold, "threshold")?) };
        *to = held.found.threshold(rule)?;
        Ok(())
    })
}

/// The N thresholds of a decision rule, one an image: equal for the rules of musc_inspection_threshold(), and each map's own for
/// "mebin".
#[unsafe(no_mangle)]
pub unsafe extern "C" fn musc_inspection_thresholds(
    inspection: *const musc_inspection,
    rule: *const c_char,
    buffer: *mut f64,
    capacity: usize,
    needed: *mut usize,
) -> musc_status {
    using(inspection, |held| {
        // SAFETY: musc.h asks for NULL or a string.
        let rule = unsafe { held.rule(rule) }?;
        let thresholds = held.thresholds(rule)?;
        // SAFETY: musc.h asks for a buffer of this capacity.
        unsafe { Buffer { buffer, capacity, needed }.copy(&thresholds) }
    })
}

/// The N decisions by musc_inspection_thresholds(): 1 for a defective image, 0 for a normal one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn musc_inspection_decisions(
    inspection: *const musc_inspection,
    rule: *const c_char,
    buffer: *mut u8,
    capacity: usize,
    needed: *mut usize,
) -> musc_status {
    using(inspection, |held| {
        // SAFETY: musc.h asks for NULL or a string.
        let rule = unsafe { held.rule(rule) }?;
        let raw = held.found.raw_scores().iter();
        let decided = raw.zip(held.thresholds(rule)?);
        let decisions: Vec<u8> =
            decided.map(|(&raw, threshold)| u8::from(f64::from(raw) > threshold)).collect();
        // SAFETY: musc.h asks for a buffer of this capacity.
        unsafe { Buffer { buffer, capacity, needed }.copy(&decisions) }
    })
}
