//! Regions of interest: masks and borders of a batch's images, and the patches that lie outside of them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;

use crate::dataset::Sample;
use crate::image::{Fit, RegionMask, Resize, has_image_extension, padding};
use crate::model::{sha256_of_bytes, sha256_of_file};
use crate::progress::go_on;
use crate::{Error, Grid, ImageSize, Progress, Result};

/// Names that a message shows of many.
const SHOWN: usize = 3;

/// Which part of a batch's images is looked at: a mask for all of them or one each, and a border that is not looked at.
///
/// Patches of which less than half of the area is inside are left out: they are neither scored nor compared with, and they
/// are in no number. The backbone still sees the whole image, and so does the class token that RsCIN compares.
#[derive(Debug, Clone, Default)]
pub struct Regions {
    masks: Masks,
    border: usize,
}

#[derive(Debug, Clone, Default)]
enum Masks {
    #[default]
    None,
    /// One for all images.
    One { mask: Arc<RegionMask>, path: PathBuf },
    /// One an image, of the image's name.
    Folder(PathBuf),
    /// One an image, in the order of the batch that they were found for, and the folder.
    Each { folder: PathBuf, paths: Vec<PathBuf> },
}

impl Regions {
    /// Every pixel.
    pub fn everywhere() -> Self {
        Regions::default()
    }

    /// The white part of a mask, the same for all images: see [`RegionMask::read`]. A folder has a mask for each image: a
    /// file of the same name, its extension apart, in the same sub-folder or, where no other image has that name, at
    /// the top.
    ///
    /// # Errors
    /// A mask that cannot be read or is black everywhere; a path that is not there. Masks in a folder are looked for by
    /// [`Batch::with_regions`](super::Batch::with_regions), and read when the work comes to them.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_path_buf();
        if path.is_dir() {
            return Ok(Regions { masks: Masks::Folder(path), border: 0 });
        }
        let mask = Arc::new(RegionMask::read(&path)?);
        Ok(Regions { masks: Masks::One { mask, path }, border: 0 })
    }

    /// The inside of a mask, the same for all images.
    pub fn mask(mask: RegionMask) -> Self {
        let path = PathBuf::from("region mask");
        Regions { masks: Masks::One { mask: Arc::new(mask), path }, border: 0 }
    }

    /// Without what lies within so many pixels of an image's edges, in pixels of the image's own size.
    pub fn with_border(mut self, pixels: usize) -> Self {
        self.border = pixels;
        self
    }

    /// Whether every pixel is looked at.
    pub fn is_everywhere(&self) -> bool {
        self.border == 0 && matches!(self.masks, Masks::None)
    }

    /// What they are, for comparing with others: masks by a hash of what they say.
    pub(super) fn words(&self) -> Result<String> {
        let masks = match &self.masks {
            Masks::None => return Ok(format!("everything but a border of {}", self.border)),
            Masks::Folder(folder) => format!("masks in {}", folder.display()),
            Masks::One { mask, .. } => {
                let size = mask.size();
                let inside: Vec<u8> = mask.inside().iter().map(|&inside| inside.into()).collect();
                format!("a mask of {size} with SHA-256 {}", sha256_of_bytes(&inside))
            }
            Masks::Each { paths, .. } => {
                let hashes = paths.iter().map(|path| sha256_of_file(path));
                let hashes: Vec<String> = hashes.collect::<Result<_>>()?;
                let all = sha256_of_bytes(hashes.concat().as_bytes());
                format!("{} masks with SHA-256 {all}", paths.len())
            }
        };
        Ok(format!("{masks}, but a border of {}", self.border))
    }

    /// With the mask of each image found, if they lie in a folder. `names` are the images' paths in what they share.
    pub(super) fn of(mut self, samples: &[Sample], names: &[String]) -> Result<Self> {
        // Found again where they were found for another batch.
        if let Masks::Folder(folder) | Masks::Each { folder, .. } = &self.masks {
            let paths = masks_in(folder, samples, names)?;
            self.masks = Masks::Each { folder: folder.clone(), paths };
        }
        Ok(self)
    }

    /// What is looked at in the image at a place of the batch, of this size; nothing for all of it.
    fn of_image(&self, at: usize, image: &Path, size: ImageSize) -> Result<Option<RegionMask>> {
        let (mask, path) = match &self.masks {
            Masks::None if self.border == 0 => return Ok(None),
            Masks::None | Masks::Folder(_) => (RegionMask::everywhere(size), image),
            Masks::One { mask, path } => (RegionMask::clone(mask), path.as_path()),
            Masks::Each { paths, .. } => {
                let path = paths.get(at).ok_or_else(|| {
                    Error::invalid(
                        "image",
                        at,
                        format!("below {}, the number of masks", paths.len()),
                    )
                })?;
                (RegionMask::read(path)?, path.as_path())
            }
        };
        let refuse = |reason: String| Error::Dataset { path: path.to_path_buf(), reason };
        if mask.size() != size {
            let (of, to) = (mask.size(), image.display());
            return Err(refuse(format!(
                "the mask is {}x{} pixels, its image {to} {}x{}: both must be of one size",
                of.width, of.height, size.width, size.height
            )));
        }
        mask.without_border(self.border).map(Some).map_err(|error| refuse(error.to_string()))
    }
}

/// The mask of each image among the files of a folder.
fn masks_in(folder: &Path, samples: &[Sample], names: &[String]) -> Result<Vec<PathBuf>> {
    let refuse = |reason: String| Error::Dataset { path: folder.to_path_buf(), reason };
    let stem = |name: &str| Path::new(name).with_extension("");
    let mut files: HashMap<PathBuf, HashMap<PathBuf, PathBuf>> = HashMap::new();
    let mut find = |name: &Path| -> Result<Option<PathBuf>> {
        let parent = name.parent().unwrap_or(Path::new("")).to_path_buf();
        let of_parent = match files.get(&parent) {
            Some(known) => known,
            None => {
                let found = images_in(&folder.join(&parent))?;
                files.entry(parent).or_insert(found)
            }
        };
        Ok(name.file_name().and_then(|name| of_parent.get(Path::new(name))).cloned())
    };
    let mut count: HashMap<PathBuf, usize> = HashMap::new();
    let last = |name: &str| stem(name).file_name().map(PathBuf::from).unwrap_or_default();
    for name in names {
        *count.entry(last(name)).or_default() += 1;
    }
    let mut masks = Vec::with_capacity(names.len());
    let mut missing = Vec::new();
    for (sample, name) in samples.iter().zip(names) {
        let mut mask = find(&stem(name))?;
        if mask.is_none() && count.get(&last(name)) == Some(&1) {
            mask = find(&last(name))?;
        }
        match mask {
            Some(mask) => masks.push(mask),
            None => missing.push(sample.path.display().to_string()),
        }
    }
    if missing.is_empty() {
        return Ok(masks);
    }
    let more = match missing.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Err(refuse(format!(
        "found no mask for {} of {} images ({}{more}), expected an image file of the same name for each",
        missing.len(),
        samples.len(),
        missing[..missing.len().min(SHOWN)].join(", ")
    )))
}

/// Image files of one folder by their names without extension; none where there is no such folder.
fn images_in(folder: &Path) -> Result<HashMap<PathBuf, PathBuf>> {
    let mut images: HashMap<PathBuf, PathBuf> = HashMap::new();
    if !folder.is_dir() {
        return Ok(images);
    }
    for entry in std::fs::read_dir(folder).map_err(Error::io("list", folder))? {
        let path = entry.map_err(Error::io("list", folder))?.path();
        let Some(stem) = path.file_stem().map(PathBuf::from) else { continue };
        if !has_image_extension(&path) || !path.is_file() {
            continue;
        }
        if let Some(other) = images.insert(stem, path.clone()) {
            let other = other.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let reason = format!("found a second mask of that name, {other}, expected one");
            return Err(Error::Dataset { path, reason });
        }
    }
    Ok(images)
}

/// Images of a batch, and where patches lie in them.
pub(super) struct Marking<'a> {
    /// All of the batch's samples.
    pub samples: &'a [Sample],
    /// What is looked at.
    pub regions: &'a Regions,
    /// How they become the backbone's input.
    pub resize: &'a Resize,
    /// The patches of the input.
    pub grid: Grid,
    /// Side of a patch.
    pub patch: usize,
}

impl Marking<'_> {
    /// Whether no patch of any image is left out.
    pub fn is_nothing(&self) -> bool {
        self.regions.is_everywhere() && self.resize.fit == Fit::Stretch
    }

    /// The patches of the images at these places that are left out, padding or outside the region: `[n, L]`, or nothing
    /// where there are none. `sizes` are widths and heights of the images.
    ///
    /// # Errors
    /// A mask that cannot be read or does not fit its image; an image of which nothing is left, unless `may_be_empty`.
    pub fn left_out(
        &self,
        places: &[usize],
        sizes: &[(u32, u32)],
        may_be_empty: bool,
        progress: &dyn Progress,
    ) -> Result<Vec<bool>> {
        if self.is_nothing() {
            return Ok(Vec::new());
        }
        let size_of = |(width, height): (u32, u32)| ImageSize::new(height as usize, width as usize);
        // Images of one size share what does not come from a mask of their own.
        let shared = !matches!(self.regions.masks, Masks::Each { .. });
        let mut first_of: HashMap<(u32, u32), usize> = HashMap::new();
        let from: Vec<usize> = (0..places.len())
            .map(|at| if shared { *first_of.entry(sizes[at]).or_insert(at) } else { at })
            .collect();
        let own: Vec<Option<Vec<bool>>> = (0..places.len())
            .into_par_iter()
            .with_max_len(1)
            .map(|at| {
                go_on(progress)?;
                if from[at] != at {
                    return Ok(None);
                }
                let marks = self.of_image(places[at], size_of(sizes[at]))?;
                if !may_be_empty && !marks.contains(&false) {
                    return Err(self.nothing_left(places[at]));
                }
                Ok(Some(marks))
            })
            .collect::<Result<_>>()?;
        let marks: Vec<bool> =
            from.iter().flat_map(|&at| own[at].iter().flatten().copied()).collect();
        Ok(if marks.contains(&true) { marks } else { Vec::new() })
    }

    /// `[L]` of one image.
    fn of_image(&self, at: usize, size: ImageSize) -> Result<Vec<bool>> {
        let part = self.resize.part(size);
        let place = self.resize.canvas().place(part.size);
        let mut marks = padding(place, self.grid, self.patch);
        if let Some(mask) = self.regions.of_image(at, &self.samples[at].path, size)? {
            let outside = mask.outside(part, place, self.grid, self.patch);
            for (mark, outside) in marks.iter_mut().zip(outside) {
                *mark |= outside;
            }
        }
        Ok(marks)
    }

    fn nothing_left(&self, at: usize) -> Error {
        let path = match &self.regions.masks {
            Masks::One { path, .. } => path,
            Masks::Each { paths, .. } => &paths[at],
            Masks::None | Masks::Folder(_) => &self.samples[at].path,
        };
        let reason = format!(
            "the region is too small: found no patch of {} at least half inside it, expected one of {} at least",
            self.samples[at].path.display(),
            self.grid.patches()
        );
        Error::Dataset { path: path.clone(), reason }
    }
}

#[cfg(test)]
#[path = "regions_tests.rs"]
mod tests;
