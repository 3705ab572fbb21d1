//! Pixels and masks of many samples at once: the check of every file and the load are one pass.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};

use rayon::ThreadPool;
use rayon::prelude::*;

use super::{Mask, MaskRule, Sample};
use crate::image::{Canvas, Decoded, PixelSource, Rectangle, Resize, RgbImage, decode, load_mask};
use crate::progress::go_on;
use crate::{Error, Progress, Result, Stage};

/// The images of samples, decoded and resized.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Loaded {
    /// One image a readable sample, of the size asked for; empty where the files were only to be checked.
    pub images: Vec<RgbImage>,
    /// Which part of each image is picture: all of it, but for [`Fit::Pad`](crate::image::Fit::Pad).
    pub pictures: Vec<Rectangle>,
    /// Which sample each image is of, in rising order.
    pub kept: Vec<usize>,
    /// Files that could not be read, each with its reason; empty unless they were to be skipped.
    pub bad: Vec<(PathBuf, String)>,
    /// Width and height of each image's file, in the order of `kept`.
    pub sizes: Vec<(u32, u32)>,
    /// How many of the images had 16 bits a channel.
    pub scaled_from_16_bit: usize,
}

/// One file's pixels, resized, with what is kept of the original.
struct File {
    /// The image, and which part of it is picture; nothing where the file was only to be checked.
    image: Option<(RgbImage, Rectangle)>,
    sides: (u32, u32),
    scaled_from_16_bit: bool,
}

/// Decodes and resizes every sample's image, in parallel on rayon's current pool: the stage [`Stage::Reading`], a step a file.
///
/// Every file is read to its last pixel before this returns, so bad files are known before other work starts.
/// Takes `height * width * 3` bytes an image, and one file's full size a thread on the way.
///
/// # Errors
/// [`Error::BadImages`] with all files that cannot be read, unless `skip_bad`, and with it too when no image is
/// left; [`Error::Interrupted`] when `progress` says so.
pub fn load_pixels(
    samples: &[Sample],
    resize: &Resize,
    skip_bad: bool,
    progress: &dyn Progress,
) -> Result<Loaded> {
    read_all(samples, Stage::Reading, Some(resize), skip_bad, progress)
}

/// Opens every sample's image to its last pixel and keeps none: the stage [`Stage::Checking`], a step a file. What is told of
/// the files is as [`load_pixels`] tells it.
///
/// # Errors
/// As [`load_pixels`].
pub fn check_pixels(samples: &[Sample], skip_bad: bool, progress: &dyn Progress) -> Result<Loaded> {
    read_all(samples, Stage::Checking, None, skip_bad, progress)
}

fn read_all(
    samples: &[Sample],
    stage: Stage,
    resize: Option<&Resize>,
    skip_bad: bool,
    progress: &dyn Progress,
) -> Result<Loaded> {
    progress.begin(stage, samples.len() as u64);
    let results: Vec<Result<File>> = samples
        .par_iter()
        // Files differ in size: one at a time keeps the threads busy to the end.
        .with_max_len(1)
        .map(|sample| {
            go_on(progress)?;
            let result = read(sample, resize);
            progress.advance(1);
            result
        })
        .collect();
    let loaded = gather(samples, results, skip_bad)?;
    progress.end();
    Ok(loaded)
}

/// As [`load_pixels`], with `work` done beside it: what it asks of its source it gets as soon as it is read. The files are
/// read on `pool`, or on rayon's global one. The stage is the work's own to tell of.
///
/// Bad files are known when this returns, all of them, whatever `work` came to.
///
/// # Errors
/// [`Error::BadImages`] with all files that cannot be read; [`Error::Interrupted`] when `progress` says so; then the
/// error of `work`.
pub(crate) fn load_pixels_beside<T>(
    samples: &[Sample],
    resize: &Resize,
    pool: Option<&ThreadPool>,
    progress: &dyn Progress,
    work: impl FnOnce(&dyn PixelSource) -> Result<T>,
) -> Result<(Loaded, T)> {
    let reading = Reading {
        samples,
        files: samples.iter().map(|_| OnceLock::new()).collect(),
        ended: Mutex::new(false),
        more: Condvar::new(),
    };
    let read_files = || {
        // Bridged, so that the files are taken in order: what is worked on first is read first.
        samples.iter().zip(&reading.files).par_bridge().for_each(|(sample, file)| {
            // Each is set once, here.
            let _ = file.set(go_on(progress).and_then(|()| read(sample, Some(resize))));
            reading.tell(false);
        });
    };
    let done = std::thread::scope(|scope| {
        scope.spawn(|| {
            let _ends = Ends(&reading);
            match pool {
                Some(pool) => pool.install(read_files),
                None => read_files(),
            }
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

/// Resizes images that are in memory, in parallel on rayon's current pool: the stage [`Stage::Reading`], a step an image.
///
/// # Errors
/// [`Error::Invalid`] for an image without pixels, or whose data does not fit its sides, by its number;
/// [`Error::Interrupted`] when `progress` says so.
pub fn resize_images(
    images: &[&RgbImage],
    resize: &Resize,
    progress: &dyn Progress,
) -> Result<Loaded> {
    progress.begin(Stage::Reading, images.len() as u64);
    let results: Vec<Result<File>> = images
        .par_iter()
        .enumerate()
        .map(|(at, image)| {
            go_on(progress)?;
            let file = resized(image, Some(resize), false).ok_or_else(|| {
                Error::invalid(
                    format!("image {at}"),
                    format!("{} bytes", image.data.len()),
                    format!("{} RGB pixels, at least 1", image.size()),
                )
            })?;
            progress.advance(1);
            Ok(file)
        })
        .collect();
    let mut loaded = Loaded::with_room(images.len());
    for (at, result) in results.into_iter().enumerate() {
        loaded.add(at, result?);
    }
    progress.end();
    Ok(loaded)
}

/// Files that are being read: each is there once it is.
struct Reading<'a> {
    samples: &'a [Sample],
    files: Vec<OnceLock<Result<File>>>,
    /// No more files will be set.
    ended: Mutex<bool>,
    more: Condvar,
}

impl Reading<'_> {
    fn tell(&self, ended: bool) {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) |= ended;
        self.more.notify_all();
    }
}

/// Says that the reading has ended, even when it ends by a panic: nobody must wait for ever.
struct Ends<'a, 'b>(&'a Reading<'b>);

impl Drop for Ends<'_, '_> {
    fn drop(&mut self) {
        self.0.tell(true);
    }
}

impl PixelSource for Reading<'_> {
    fn images(&self) -> usize {
        self.files.len()
    }

    fn image(&self, index: usize) -> Result<Cow<'_, RgbImage>> {
        let Some(file) = self.files.get(index) else {
            return Err(past_the_last(index, self.files.len()));
        };
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match file.get() {
                Some(Ok(File { image: Some((image, _)), .. })) => return Ok(Cow::Borrowed(image)),
                Some(Err(Error::Interrupted)) => return Err(Error::Interrupted),
                // All other bad files are told with it when the reading ends.
                Some(Err(error)) => {
                    let bad = vec![reason(&self.samples[index].path, error)];
                    return Err(Error::BadImages { bad });
                }
                // Only a reading that panicked ends without its files, and that panic goes on when the threads join.
                Some(Ok(_)) => return Err(Error::Interrupted),
                None if *ended => return Err(Error::Interrupted),
                None => ended = self.more.wait(ended).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

/// As [`load_pixels`], for `work` that reads the files itself: an image is read and resized by the thread that asks for it, when
/// it does, and is that thread's alone, so that no pixels are kept. The stage is the work's own to tell of.
///
/// When the work has ended, whatever it came to, files that it did not come to are opened, on rayon's current pool: bad files are
/// known when this returns, all of them.
///
/// # Errors
/// As [`load_pixels_beside`].
pub(crate) fn load_pixels_on_demand<T>(
    samples: &[Sample],
    resize: &Resize,
    progress: &dyn Progress,
    work: impl FnOnce(&dyn PixelSource) -> Result<T>,
) -> Result<(Loaded, T)> {
    let files = samples.iter().map(|_| OnceLock::new()).collect();
    let demand = OnDemand { samples, resize, files };
    let done = work(&demand);
    let results: Vec<Result<File>> = samples
        .par_iter()
        .zip(demand.files)
        .with_max_len(1)
        .map(|(sample, file)| match file.into_inner() {
            Some(result) => result,
            None => go_on(progress).and_then(|()| read(sample, None)),
        })
        .collect();
    let loaded = gather(samples, results, false)?;
    Ok((loaded, done?))
}

/// Files that are read when they are asked for. Of those that were, what is not pixels is kept.
struct OnDemand<'a> {
    samples: &'a [Sample],
    resize: &'a Resize,
    files: Vec<OnceLock<Result<File>>>,
}

impl PixelSource for OnDemand<'_> {
    fn images(&self) -> usize {
        self.samples.len()
    }

    fn image(&self, index: usize) -> Result<Cow<'_, RgbImage>> {
        let (Some(sample), Some(file)) = (self.samples.get(index), self.files.get(index)) else {
            return Err(past_the_last(index, self.samples.len()));
        };
        let (result, image) = match read(sample, Some(self.resize)) {
            Ok(mut read) => {
                let image = read.image.take().map(|(image, _)| Cow::Owned(image));
                (Ok(read), image.ok_or(Error::Interrupted))
            }
            // All other bad files are told with it when the work has ended.
            Err(error) => {
                let bad = vec![reason(&sample.path, &error)];
                (Err(error), Err(Error::BadImages { bad }))
            }
        };
        // Of one that is asked for again, what was found first stands.
        let _ = file.set(result);
        image
    }
}

fn past_the_last(index: usize, images: usize) -> Error {
    Error::invalid("image", index, format!("below {images}"))
}

fn read(sample: &Sample, resize: Option<&Resize>) -> Result<File> {
    let Decoded { image, scaled_from_16_bit } = decode(&sample.path)?;
    resized(&image, resize, scaled_from_16_bit).ok_or_else(|| Error::Image {
        path: sample.path.clone(),
        reason: format!("it has no pixels: {}x{}", image.width, image.height),
    })
}

/// An image at its new size; nothing for one without pixels, or whose data does not fit its sides.
fn resized(image: &RgbImage, resize: Option<&Resize>, scaled_from_16_bit: bool) -> Option<File> {
    let bytes = image.width.checked_mul(image.height)?.checked_mul(3)?;
    if bytes == 0 || bytes != image.data.len() {
        return None;
    }
    let sides = (u32::try_from(image.width).ok()?, u32::try_from(image.height).ok()?);
    Some(File { image: resize.map(|resize| resize.apply(image)), sides, scaled_from_16_bit })
}

fn gather(samples: &[Sample], results: Vec<Result<File>>, skip_bad: bool) -> Result<Loaded> {
    let mut loaded = Loaded::with_room(samples.len());
    for (index, result) in results.into_iter().enumerate() {
        match result {
            Ok(file) => loaded.add(index, file),
            Err(Error::Interrupted) => return Err(Error::Interrupted),
            Err(error) => loaded.bad.push(reason(&samples[index].path, &error)),
        }
    }
    if !loaded.bad.is_empty() && (!skip_bad || loaded.kept.is_empty()) {
        return Err(Error::BadImages { bad: loaded.bad });
    }
    Ok(loaded)
}

impl Loaded {
    fn with_room(images: usize) -> Self {
        Loaded {
            images: Vec::with_capacity(images),
            pictures: Vec::with_capacity(images),
            kept: Vec::with_capacity(images),
            bad: Vec::new(),
            sizes: Vec::with_capacity(images),
            scaled_from_16_bit: 0,
        }
    }

    fn add(&mut self, index: usize, File { image, sides, scaled_from_16_bit }: File) {
        if let Some((image, picture)) = image {
            self.images.push(image);
            self.pictures.push(picture);
        }
        self.kept.push(index);
        self.sizes.push(sides);
        self.scaled_from_16_bit += usize::from(scaled_from_16_bit);
    }
}

/// A file with what is wrong with it, the path said once.
fn reason(path: &Path, error: &Error) -> (PathBuf, String) {
    let reason = match error {
        Error::Image { reason, .. } => reason.clone(),
        Error::Io { action, source, .. } => format!("cannot {action} it: {source}"),
        other => other.to_string(),
    };
    (path.to_path_buf(), reason)
}

/// Reads every sample's mask, in parallel on rayon's current pool: `None` where nothing is known.
///
/// # Shapes
/// Each mask is `[height, width]` of `to`, a byte a pixel, 1 where defective, and 0 where a padded image has no picture.
/// `sizes` holds width and height of each sample's image file.
///
/// # Errors
/// [`Error::Invalid`] when `sizes` has another length than `samples`; otherwise the first sample's error as
/// [`load_mask`]; [`Error::Interrupted`] when `progress` says so.
pub fn load_masks(
    samples: &[Sample],
    sizes: &[(u32, u32)],
    to: impl Into<Canvas>,
    rule: MaskRule,
    progress: &dyn Progress,
) -> Result<Vec<Option<Vec<u8>>>> {
    let to = to.into();
    if samples.len() != sizes.len() {
        return Err(Error::invalid("image sizes", sizes.len(), format!("{}", samples.len())));
    }
    let results: Vec<Result<Option<Vec<u8>>>> = samples
        .par_iter()
        .zip(sizes)
        .map(|(sample, &sides)| {
            go_on(progress)?;
            match &sample.mask {
                Mask::Unknown => Ok(None),
                Mask::Normal => Ok(Some(vec![0; to.size.pixels()])),
                Mask::File(path) => load_mask(path, to, rule, Some(sides)).map(Some),
            }
        })
        .collect();
    results.into_iter().collect()
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
