//! The parts of the method alone, on tokens of a caller's own.

use std::ffi::c_void;

use musc::Grid;
use musc::backend::{Backend, HostFeatures, References};
use musc::scoring::rscin::{RscinOptions, Similarity, rscin};

use crate::handle::find;
use crate::input::{flag, product, slice};
use crate::inspector::on_a_pool;
use crate::options::{Options, musc_options, options_of};
use crate::output::Buffer;
use crate::progress::{Watcher, musc_progress};
use crate::status::{Outcome, guard, musc_status};

/// The tokens of a set of images.
///
/// # Safety
/// `tokens` is NULL, or has `layers * images * rows * columns * width` values.
unsafe fn features(
    tokens: *const f32,
    layers: usize,
    images: usize,
    grid: Grid,
    width: usize,
    what: &str,
) -> Outcome<HostFeatures> {
    let of_layer = product(&[images, grid.rows, grid.columns, width], what)?;
    let all = product(&[layers, of_layer], what)?;
    // SAFETY: the caller's promise.
    let tokens = unsafe { slice(tokens, all, what) }?;
    let tokens = tokens.chunks_exact(of_layer.max(1)).map(<[f32]>::to_vec).collect();
    Ok(HostFeatures::new(images, grid, width, (0..layers).collect(), tokens))
}

/// Mutual scoring of patch tokens of any backbone: one score a patch, the mean over aggregation degrees and feature layers.
///
/// `tokens` is [layers, images, rows * columns, width], row by row, finite. Without references, `reference_tokens` NULL and
/// `references` 0, each image is compared with all others; with them, [layers, references, rows * columns, width], each image is compared
/// with all references but those of the very same tokens. The degrees, the interval, the radius, the device and its threads are those of
/// `options`, and NULL is all of them at their defaults. `progress` may be NULL.
///
/// `buffer` gets images * rows * columns scores, [images, rows * columns]. With `buffer` NULL nothing is computed.
///
/// Errors: MUSC_BAD_ARGUMENT for sizes of 0, values that are not finite, fewer than two images without references, a degree that is even
/// or too large for the grid; MUSC_INTERRUPTED; MUSC_OUT_OF_MEMORY and MUSC_DEVICE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn musc_mutual_scores(
    options: *const musc_options,
    tokens: *const f32,
    layers: usize,
    images: usize,
    rows: usize,
    columns: usize,
    width: usize,
    reference_tokens: *const f32,
    references: usize,
    progress: musc_progress,
    user_data: *mut c_void,
    buffer: *mut f32,
    capacity: usize,
    needed: *mut usize,
) -> musc_status {
    guard(|| {
        let options = match options.is_null() {
            true => Options::default(),
            false => options_of(find(options)?.value()?),
        };
        let grid = Grid::new(rows, columns);
        let count = product(&[images, rows, columns], "patches")?;
        let fill = |scores: &mut [f32]| {
            // SAFETY: musc.h asks for so many values.
            let queries = unsafe { features(tokens, layers, images, grid, width, "tokens") }?;
            let device = options.open_device()?;
            let queries = device.upload(queries)?;
            let others = if references == 0 && reference_tokens.is_null() {
                None
            } else {
                let what = "reference tokens";
                // SAFETY: musc.h asks for so many values.
                let others =
                    unsafe { features(reference_tokens, layers, references, grid, width, what) }?;
                Some(device.upload(others)?)
            };
            let seen = others.as_ref().map_or(References::Others, References::Set);
            let watcher = Watcher::new(progress, user_data);
            let found = device.patch_scores(&queries, seen, &options.scoring, &watcher)?;
            scores.copy_from_slice(&found.mean());
            Ok(())
        };
        // SAFETY: musc.h asks for a buffer of this capacity.
        unsafe { Buffer { buffer, capacity, needed }.fill(count, fill) }
    })
}

/// RsCIN: the image scores of a batch, smoothed over images whose class tokens are alike.
///
/// `scores` is [images], `class_tokens` [images, width], both finite; `k` are `k_count` neighbourhood sizes, each at least 1, the image
/// itself counted, and with `k_count` 0 they are 1, 2, 3. With `dot` 0 class tokens are compared by their cosine, with 1 by the plain
/// product.
///
/// `buffer` gets `images` scores.
///
/// Errors: MUSC_BAD_ARGUMENT for a value or a k outside what is allowed, and for a class token that cannot be compared, by its image.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn musc_rscin(
    scores: *const f64,
    images: usize,
    class_tokens: *const f32,
    width: usize,
    k: *const usize,
    k_count: usize,
    dot: i32,
    buffer: *mut f64,
    capacity: usize,
    needed: *mut usize,
) -> musc_status {
    guard(|| {
        let values = product(&[images, width], "class tokens")?;
        // SAFETY: musc.h asks for so many values.
        let (scores, tokens, k) = unsafe {
            (
                slice(scores, images, "scores")?,
                slice(class_tokens, values, "class tokens")?,
                slice(k, k_count, "k")?,
            )
        };
        let similarity = if flag(dot, "dot")? { Similarity::Dot } else { Similarity::Cosine };
        let mut options = RscinOptions::default().with_similarity(similarity);
        if !k.is_empty() {
            options = options.with_k(k);
        }
        let fill = |rescored: &mut [f64]| {
            let found = on_a_pool(0, || Ok(rscin(scores, tokens, width, &options)?))?;
            rescored.copy_from_slice(&found);
            Ok(())
        };
        // SAFETY: musc.h asks for a buffer of this capacity.
        unsafe { Buffer { buffer, capacity, needed }.fill(images, fill) }
    })
}
