//! Images that go in together.

use std::ffi::c_char;
use std::sync::{Arc, Mutex, PoisonError};

use musc::image::RgbImage;
use musc::inspect::{Batch, Regions};

use crate::handle::{Handle, free, give, using};
use crate::input::{check, flag, path, product, slice, text};
use crate::output::out_pointer;
use crate::status::{Failure, Outcome, guard, musc_status};

/// Images that are scored together: a folder, files, or frames in memory. Files are opened when they are scored, and not before.
pub struct musc_batch(());

impl Handle for musc_batch {
    type Value = Mutex<Arc<Batch>>;
    const NAME: &'static str = "musc_batch";
}

/// An image in memory, 8 bits a channel.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct musc_frame {
    /// R, G, B of each pixel, row by row from the top. Copied: it may go when the call returns.
    pub pixels: *const u8,
    /// Rows.
    pub height: usize,
    /// Pixels in a row.
    pub width: usize,
    /// Bytes from the start of a row to the start of the next, at least 3 * width; 0 is 3 * width.
    pub stride: usize,
    /// What it goes by, in UTF-8; NULL is "image N", with its number in the batch.
    pub name: *const c_char,
}

/// A frame's pixels, without what is between its rows.
///
/// # Safety
/// `frame.pixels` is NULL or has as many bytes as the frame says.
unsafe fn image_of(frame: &musc_frame, what: &str) -> Outcome<RgbImage> {
    let musc_frame { pixels, height, width, stride, .. } = *frame;
    if height == 0 || width == 0 {
        return Err(Failure::argument(
            what,
            format!("{height}x{width} pixels"),
            "at least one pixel",
        ));
    }
    let row = product(&[width, 3], what)?;
    let stride = if stride == 0 { row } else { stride };
    if stride < row {
        let expected = format!("at least {row}, 3 bytes a pixel");
        return Err(Failure::argument(&format!("{what}: stride"), stride, expected));
    }
    // Nothing needs to follow the last row.
    let bytes = product(&[height - 1, stride], what)?.checked_add(row);
    let bytes =
        bytes.ok_or_else(|| Failure::argument(what, "its sizes", "as much as fits into memory"))?;
    check(pixels, bytes, &format!("{what}: pixels"))?;
    // SAFETY: checked above; the rest is the caller's promise.
    let pixels = unsafe { slice(pixels, bytes, what) }?;
    let rows = pixels.chunks(stride);
    let data: Vec<u8> = rows.flat_map(|line| &line[..row]).copied().collect();
    Ok(RgbImage::new(width, height, data)?)
}

/// A batch of frames.
///
/// # Safety
/// As [`image_of`] for each; names are NULL or strings.
pub unsafe fn batch_of_frames(frames: &[musc_frame]) -> Outcome<Batch> {
    let mut images = Vec::with_capacity(frames.len());
    let mut names = Vec::with_capacity(frames.len());
    for (at, frame) in frames.iter().enumerate() {
        let what = format!("frame {at}");
        // SAFETY: the caller's promise.
        images.push(unsafe { image_of(frame, &what) }?);
        names.push(if frame.name.is_null() {
            format!("image {at}")
        } else {
            // SAFETY: the caller's promise.
            unsafe { text(frame.name, &format!("{what}: name")) }?.to_string()
        });
    }
    Ok(Batch::images(images)?.with_names(names)?)
}

/// What is behind a handle, as it is now.
pub fn batch_of(batch: &Mutex<Arc<Batch>>) -> Arc<Batch> {
    Arc::clone(&batch.lock().unwrap_or_else(PoisonError::into_inner))
}

/// A new batch behind a handle.
fn new_batch(batch: Batch) -> Mutex<Arc<Batch>> {
    Mutex::new(Arc::new(batch))
}

/// Changes the batch behind a handle, and leaves it as it was on an error.
fn change(batch: *mut musc_batch, change: impl FnOnce(Batch) -> Outcome<Batch>) -> musc_status {
    using(batch, |held| {
        let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
        *held = Arc::new(change(Batch::clone(&held))?);
        Ok(())
    })
}

/// Every image of a folder and of its sub-folders, sorted by path.
///
/// `*batch` is to be freed with musc_batch_free().
///
/// Errors: MUSC_NOT_FOUND for no such folder, MUSC_BAD_FILE for one without an image.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn musc_batch_folder(
    folder: *const c_char,
    batch: *mut *mut musc_batch,
) -> musc_status {
    guard(|| {
        // SAFETY: musc.h asks for a string and a place to write to.
        unsafe { give(batch, || Ok(new_batch(Batch::folder(path(folder, "folder")?)?))) }
    })
}

/// These `count` files, in this order. Whether they are there is seen when they are scored.
///
/// `*batch` is to be freed with musc_batch_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn musc_batch_paths(
    paths: *const *const c_char,
    count: usize,
    batch: *mut *mut musc_batch,
) -> musc_status {
    guard(|| {
        let make = || {
            // SAFETY: musc.h asks for `count` strings.
            let paths = unsafe { slice(paths, count, "paths") }?;
            let paths: Vec<_> = (0..)
                .zip(paths)
                // SAFETY: as above.
                .map(|(at, &one)| unsafe { path(one, &format!("path {at}")) })
                .collect::<Outcome<_>>()?;
            Ok(new_batch(Batch::files_as_given(paths)?))
        };
        // SAFETY: musc.h asks for a place to write to.
        unsafe { give(batch, make) }
    })
}

/// These `count` frames, in this order. Their pixels are copied.
///
/// `*batch` is to be freed with musc_batch_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn musc_batch_frames(
    frames: *const musc_frame,
    count: usize,
    batch: *mut *mut musc_batch,
) -> musc_status {
    guard(|| {
        let make = || {
            // SAFETY: musc.h asks for `count` frames with their pixels.
            let frames = unsafe { batch_of_frames(slice(frames, count, "frames")?) }?;
            Ok(new_batch(frames))
        };
        // SAFETY: musc.h asks for a place to write to.
        unsafe { give(batch, make) }
    })
}

/// Frees a batch; NULL is fine. What was made of it stays.
#[unsafe(no_mangle)]
pub extern "C" fn musc_batch_free(batch: *mut musc_batch) -> musc_status {
    free(batch)
}

/// The number of images.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn musc_batch_count(
    batch: *const musc_batch,
    count: *mut usize,
) -> musc_status {
    using(batch, |held| {
        // SAFETY: musc.h asks for a place to write to.
        *unsafe { out_pointer(count, "count") }? = batch_of(held).len();
        Ok(())
    })
}

/// With `skip` 1 files that cannot be read are left out, see musc_inspection_places(); with 0 they are an error [default: 0].
#[unsafe(no_mangle)]
pub extern "C" fn musc_batch_set_skip_bad(batch: *mut musc_batch, skip: i32) -> musc_status {
    change(batch, |batch| Ok(batch.skip_bad(flag(skip, "skip")?)))
}

/// Only a part of the images is looked at: what is white in `mask`, a picture for all images or a folder with one for each, and no
/// closer than `border` pixels to an image's edge. `mask` may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn musc_batch_set_region(
    batch: *mut musc_batch,
    mask: *const c_char,
    border: usize,
) -> musc_status {
    change(batch, |batch| {
        let regions = if mask.is_null() {
            Regions::everywhere()
        } else {
            // SAFETY: musc.h asks for a string.
            Regions::read(unsafe { path(mask, "mask") }?)?
        };
        Ok(batch.with_regions(regions.with_border(border))?)
    })
}
