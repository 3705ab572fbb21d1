//! Pixels and masks of many samples at once: the check of every file and the load are one pass.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};

use rayon::prelude::*;

use super::{Mask, MaskRule, Sample};
use crate::image::{Filter, PixelSource, RgbImage, decode, load_mask, resize};
use crate::{Error, Result};

/// The images of samples, decoded and resized.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// One image a readable sample, `size` x `size`.
    pub images: Vec<RgbImage>,
    /// Which sample each image is of, in rising order.
    pub kept: Vec<usize>,
    /// Files that could not be read, each with its reason; empty unless they were to be skipped.
    pub bad: Vec<(PathBuf, String)>,
    /// Width and height of each image's file, in the order of `images`.
    pub sizes: Vec<(u32, u32)>,
    /// How many of the images had 16 bits a channel.
    pub scaled_from_16_bit: usize,
}

/// One file's pixels, resized, with what is kept of the original.
struct File {
    image: RgbImage,
    sides: (u32, u32),
    scaled_from_16_bit: bool,
}

/// Decodes and resizes every sample's image, in parallel on rayon's current pool.
///
/// Every file is read to its last pixel before this returns, so bad files are known before other work starts.
/// Takes `size * size * 3` bytes an image, and one file's full size a thread on the way. `progress` is told the
/// number of files done after each; `stop` is asked before each.
///
/// # Errors
/// [`Error::BadImages`] with all files that cannot be read, unless `skip_bad`, and with it too when no image is
/// left; [`Error::Interrupted`] when `stop` says so.
pub fn load_pixels(
    samples: &[Sample],
    size: usize,
    filter: Filter,
    skip_bad: bool,
    progress: &(dyn Fn(usize) + Sync),
    stop: &(dyn Fn() -> bool + Sync),
) -> Result<Loaded> {
    let done = AtomicUsize::new(0);
    let results: Vec<Result<File>> = samples
        .par_iter()
        // Files differ in size: one at a time keeps the threads busy to the end.
        .with_max_len(1)
        .map(|sample| {
            let result = read(sample, size, filter, stop)?;
            progress(done.fetch_add(1, Ordering::Relaxed) + 1);
            result
        })
        .collect();
    gather(samples, results, skip_bad)
}

/// As [`load_pixels`], with `work` done beside it: what it asks of its source it gets as soon as it is read. Bad files are
/// known when this returns, all of them, whatever `work` came to.
///
/// # Errors
/// [`Error::BadImages`] with all files that cannot be read; [`Error::Interrupted`] when `stop` says so; then the
/// error of `work`.
pub fn load_pixels_beside<T>(
    samples: &[Sample],
    size: usize,
    filter: Filter,
    stop: &(dyn Fn() -> bool + Sync),
    work: impl FnOnce(&dyn PixelSource) -> Result<T>,
) -> Result<(Loaded, T)> {
    let reading = Reading {
        files: samples.iter().map(|_| OnceLock::new()).collect(),
        ended: Mutex::new(false),
        more: Condvar::new(),
    };
    let done = std::thread::scope(|scope| {
        scope.spawn(|| {
            let _ends = Ends(&reading);
            // Bridged, so that the files are taken in order: what is worked on first is read first.
            samples.iter().zip(&reading.files).par_bridge().for_each(|(sample, file)| {
                // Each is set once, here.
                let _ = file.set(read(sample, size, filter, stop).unwrap_or_else(Err));
                reading.tell(false);
            });
        });
        work(&reading)
    });
    let results = reading.files.into_iter().map(|file| match file.into_inner() {
        Some(result) => result,
        None => Err(Error::Interrupted),
    });
    let loaded = gather(samples, results.collect(), false)?;
    Ok((loaded, done?))
}

/// Files that are being read: each is there once it is.
struct Reading {
    files: Vec<OnceLock<Result<File>>>,
    /// No more files will be set.
    ended: Mutex<bool>,
    more: Condvar,
}

impl Reading {
    fn tell(&self, ended: bool) {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) |= ended;
        self.more.notify_all();
    }
}

/// Says that the reading has ended, even when it ends by a panic: nobody must wait for ever.
struct Ends<'a>(&'a Reading);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.tell(true);
    }
}

impl PixelSource for Reading {
    fn images(&self) -> usize {
        self.files.len()
    }

    fn image(&self, index: usize) -> Result<&RgbImage> {
        let Some(file) = self.files.get(index) else {
            return Err(Error::invalid("image", index, format!("below {}", self.files.len())));
        };
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match file.get() {
                Some(Ok(file)) => return Ok(&file.image),
                // Why, is told with all other bad files when the reading ends.
                Some(Err(_)) => return Err(Error::Interrupted),
                None if *ended => return Err(Error::Interrupted),
                None => ended = self.more.wait(ended).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

/// One file; the outer error is an interruption.
fn read(
    sample: &Sample,
    size: usize,
    filter: Filter,
    stop: &(dyn Fn() -> bool + Sync),
) -> Result<Result<File>> {
    if stop() {
        return Err(Error::Interrupted);
    }
    Ok(decode(&sample.path).map(|decoded| {
        let image = &decoded.image;
        let sides = (image.width as u32, image.height as u32);
        let image = resize(image, size, filter);
        File { image, sides, scaled_from_16_bit: decoded.scaled_from_16_bit }
    }))
}

fn gather(samples: &[Sample], results: Vec<Result<File>>, skip_bad: bool) -> Result<Loaded> {
    let mut loaded = Loaded {
        images: Vec::with_capacity(samples.len()),
        kept: Vec::with_capacity(samples.len()),
        bad: Vec::new(),
        sizes: Vec::with_capacity(samples.len()),
        scaled_from_16_bit: 0,
    };
    for (index, result) in results.into_iter().enumerate() {
        match result {
            Ok(File { image, sides, scaled_from_16_bit }) => {
                loaded.images.push(image);
                loaded.kept.push(index);
                loaded.sizes.push(sides);
                loaded.scaled_from_16_bit += usize::from(scaled_from_16_bit);
            }
            Err(Error::Interrupted) => return Err(Error::Interrupted),
            Err(error) => loaded.bad.push(reason(&samples[index].path, error)),
        }
    }
    if !loaded.bad.is_empty() && (!skip_bad || loaded.images.is_empty()) {
        return Err(Error::BadImages { bad: loaded.bad });
    }
    Ok(loaded)
}

/// A file with what is wrong with it, the path said once.
fn reason(path: &Path, error: Error) -> (PathBuf, String) {
    let reason = match error {
        Error::Image { reason, .. } => reason,
        Error::Io { action, source, .. } => format!("cannot {action} it: {source}"),
        other => other.to_string(),
    };
    (path.to_path_buf(), reason)
}

/// Reads every sample's mask, in parallel on rayon's current pool: `None` where nothing is known.
///
/// # Shapes
/// Each mask is `[size, size]`, a byte a pixel, 1 where defective. `sizes` holds width and height of each
/// sample's image file.
///
/// # Errors
/// [`Error::Invalid`] when `sizes` has another length than `samples`; otherwise the first sample's error as
/// [`load_mask`]; [`Error::Interrupted`] when `stop` says so.
pub fn load_masks(
    samples: &[Sample],
    sizes: &[(u32, u32)],
    size: usize,
    rule: MaskRule,
    stop: &(dyn Fn() -> bool + Sync),
) -> Result<Vec<Option<Vec<u8>>>> {
    if samples.len() != sizes.len() {
        return Err(Error::invalid("image sizes", sizes.len(), format!("{}", samples.len())));
    }
    let results: Vec<Result<Option<Vec<u8>>>> = samples
        .par_iter()
        .zip(sizes)
        .map(|(sample, &sides)| {
            if stop() {
                return Err(Error::Interrupted);
            }
            match &sample.mask {
                Mask::Unknown => Ok(None),
                Mask::Normal => Ok(Some(vec![0; size * size])),
                Mask::File(path) => load_mask(path, size, rule, Some(sides)).map(Some),
            }
        })
        .collect();
    results.into_iter().collect()
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
