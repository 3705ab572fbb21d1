//! What goes in: the images that are scored together, from wherever they come.

use std::path::{Path, PathBuf};

use super::Regions;
use crate::dataset::{self, Category, FolderOptions, Loaded, Mask, MaskRule, Sample};
use crate::image::{Resize, RgbImage, image_size};
use crate::{Error, ImageSize, Progress, Result};

/// Images that are scored together, with what is known of them. None is opened before the work starts.
#[derive(Debug, Clone)]
pub struct Batch {
    name: String,
    samples: Vec<Sample>,
    /// Pixels in memory, one image a sample; without them the samples' files are read.
    images: Option<Vec<RgbImage>>,
    mask_rule: MaskRule,
    rscin_k: Vec<usize>,
    ignored: Vec<PathBuf>,
    duplicates: Vec<PathBuf>,
    skip_bad: bool,
    regions: Regions,
}

impl Batch {
    /// Every image of a folder and of its sub-folders, sorted by path.
    ///
    /// # Errors
    /// [`Error::Dataset`] when there is no such folder, or no image in it; [`Error::Io`] when it cannot be listed.
    pub fn folder(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        if !path.is_dir() {
            let reason = String::from("no such folder");
            return Err(Error::Dataset { path: path.to_path_buf(), reason });
        }
        Self::paths(&[path.display().to_string()], &FolderOptions::default())
    }

    /// The images that a list names: `.txt` with a path a line, `.csv` with the columns `path,label[,mask]`.
    ///
    /// # Errors
    /// As [`dataset::collect`].
    pub fn list(path: impl AsRef<Path>) -> Result<Self> {
        let list = format!("@{}", path.as_ref().display());
        Self::paths(&[list], &FolderOptions::default())
    }

    /// These files, sorted by path, each once.
    ///
    /// # Errors
    /// As [`dataset::collect`].
    pub fn files<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>) -> Result<Self> {
        let paths: Vec<String> =
            paths.into_iter().map(|path| path.as_ref().display().to_string()).collect();
        Self::paths(&paths, &FolderOptions::default())
    }

    /// These files, in this order, named as images or not.
    ///
    /// # Errors
    /// [`Error::Invalid`] for no file.
    pub fn files_as_given<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>) -> Result<Self> {
        let sample = |path: P| Sample::new(path.as_ref(), "images", "", None, Mask::Unknown);
        let samples: Vec<Sample> = paths.into_iter().map(sample).collect();
        if samples.is_empty() {
            return Err(Error::invalid("images", "none", "at least one"));
        }
        Ok(Batch { name: "images".into(), samples, ..Self::nothing() })
    }

    /// Folders, files, patterns and lists, as [`dataset::collect`] reads them.
    ///
    /// # Errors
    /// As [`dataset::collect`].
    pub fn paths(inputs: &[String], options: &FolderOptions) -> Result<Self> {
        Ok(dataset::collect(inputs, options)?.into())
    }

    /// Pixels that are decoded already, such as a camera's frames, in this order. They go by the names `image 0`,
    /// `image 1`, … unless others are given ([`Self::with_names`]).
    ///
    /// # Errors
    /// [`Error::Invalid`] for no image, or one without pixels.
    pub fn images(images: Vec<RgbImage>) -> Result<Self> {
        if images.is_empty() {
            return Err(Error::invalid("images", "none", "at least one"));
        }
        if let Some(at) = images.iter().position(|image| image.data.is_empty()) {
            return Err(Error::invalid(format!("image {at}"), "no pixels", "at least one pixel"));
        }
        let samples = (0..images.len())
            .map(|at| Sample::new(format!("image {at}"), "images", "", None, Mask::Unknown))
            .collect();
        Ok(Batch { name: "images".into(), samples, images: Some(images), ..Self::nothing() })
    }

    /// A batch without images.
    fn nothing() -> Self {
        Batch {
            name: String::new(),
            samples: Vec::new(),
            images: None,
            mask_rule: MaskRule::AnyPositive,
            rscin_k: vec![1, 2, 3],
            ignored: Vec::new(),
            duplicates: Vec::new(),
            skip_bad: false,
            regions: Regions::everywhere(),
        }
    }

    /// With these names for the images, in their order.
    ///
    /// # Errors
    /// [`Error::Invalid`] for another number of names than images.
    pub fn with_names<N: Into<PathBuf>>(
        mut self,
        names: impl IntoIterator<Item = N>,
    ) -> Result<Self> {
        let names: Vec<PathBuf> = names.into_iter().map(Into::into).collect();
        if names.len() != self.len() {
            let expected = format!("{}, one an image", self.len());
            return Err(Error::invalid("names of the images", names.len(), expected));
        }
        for (sample, name) in self.samples.iter_mut().zip(names) {
            sample.path = name;
        }
        Ok(self)
    }

    /// With the labels of a table, such as the review of a report, in place of all that were known; images that it does not
    /// name, or is unsure of, have none. A mask file that is known stays.
    ///
    /// # Errors
    /// As [`dataset::labels_of`].
    pub fn with_labels_of(mut self, table: impl AsRef<Path>) -> Result<Self> {
        let labels = dataset::labels_of(&self.samples, table.as_ref())?;
        for (sample, label) in self.samples.iter_mut().zip(labels) {
            sample.label = label;
            sample.mask = match (&sample.mask, label) {
                (Mask::Unknown | Mask::Normal, Some(false)) => Mask::Normal,
                (Mask::Normal, _) => Mask::Unknown,
                (known, _) => known.clone(),
            };
        }
        Ok(self)
    }

    /// With this name for the whole.
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Goes on without files that cannot be read, or stops at them, which is the default.
    pub fn skip_bad(mut self, skip: bool) -> Self {
        self.skip_bad = skip;
        self
    }

    /// With this part of its images looked at, see [`Regions`]. Where there is a mask for each image, they are found now, by
    /// the images' names: names come first.
    ///
    /// # Errors
    /// [`Error::Dataset`] for images without a mask, or a mask there twice; [`Error::Io`] for a folder that cannot be listed.
    pub fn with_regions(mut self, regions: Regions) -> Result<Self> {
        self.regions = regions.of(&self.samples, &self.relative_names())?;
        Ok(self)
    }

    /// Which part of its images is looked at.
    pub fn regions(&self) -> &Regions {
        &self.regions
    }

    /// Its name: the class of a data set, the folder's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The images, in the order in which they are scored.
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// Files that were passed over because their names are not an image's.
    pub fn ignored(&self) -> &[PathBuf] {
        &self.ignored
    }

    /// Files that were given more than once, and are scored once.
    pub fn duplicates(&self) -> &[PathBuf] {
        &self.duplicates
    }

    /// The neighbourhood sizes that RsCIN takes for these images where none are asked for.
    pub fn rscin_k(&self) -> &[usize] {
        &self.rscin_k
    }

    /// How masks are cut after the resize.
    pub fn mask_rule(&self) -> MaskRule {
        self.mask_rule
    }

    pub(super) fn skips_bad(&self) -> bool {
        self.skip_bad
    }

    pub(super) fn in_memory(&self) -> bool {
        self.images.is_some()
    }

    /// Some of the samples.
    pub(super) fn some(&self, indices: &[usize]) -> Vec<Sample> {
        indices.iter().map(|&at| self.samples[at].clone()).collect()
    }

    /// Names from which the order of subsets is drawn: paths from the folder all have in common.
    pub(super) fn relative_names(&self) -> Vec<String> {
        let base = dataset::shared_folder(self.samples.iter().map(|sample| sample.path.as_path()));
        let relative = |path: &Path| path.strip_prefix(&base).unwrap_or(path).to_path_buf();
        self.samples
            .iter()
            .map(|sample| {
                let path = relative(&sample.path);
                let parts = path.components().map(|part| part.as_os_str().to_string_lossy());
                parts.collect::<Vec<_>>().join("/")
            })
            .collect()
    }

    /// The images' own sizes, with their names; files' from their heads alone. Files that have none are left out: the
    /// reading says why.
    pub(super) fn sizes(&self) -> Vec<(String, ImageSize)> {
        let name = |at: usize| self.samples[at].path.display().to_string();
        match &self.images {
            Some(images) => {
                images.iter().enumerate().map(|(at, image)| (name(at), image.size())).collect()
            }
            None => (0..self.len())
                .filter_map(|at| Some((name(at), image_size(&self.samples[at].path).ok()?)))
                .collect(),
        }
    }

    /// Width and height of the images at these places, files' from their heads; nothing where one has none, of which the
    /// reading will tell.
    pub(super) fn sides(&self, places: &[usize]) -> Option<Vec<(u32, u32)>> {
        let size = |&at: &usize| {
            let size = match &self.images {
                Some(images) => images[at].size(),
                None => image_size(&self.samples[at].path).ok()?,
            };
            Some((u32::try_from(size.width).ok()?, u32::try_from(size.height).ok()?))
        };
        places.iter().map(size).collect()
    }

    /// Images at these places, decoded and resized; the places of `kept` count within `indices`.
    pub(super) fn load(
        &self,
        indices: &[usize],
        resize: &Resize,
        progress: &dyn Progress,
    ) -> Result<Loaded> {
        match &self.images {
            None => dataset::load_pixels(&self.some(indices), resize, self.skip_bad, progress),
            Some(images) => {
                let chosen: Vec<&RgbImage> = indices.iter().map(|&at| &images[at]).collect();
                dataset::resize_images(&chosen, resize, progress)
            }
        }
    }

    /// One image, decoded and resized: for pictures, long after the scoring has let its pixels go.
    ///
    /// # Errors
    /// An index past the last image, or a file that cannot be read any more.
    pub fn image(&self, index: usize, resize: &Resize) -> Result<RgbImage> {
        if index >= self.len() {
            return Err(Error::invalid("image", index, format!("below {}", self.len())));
        }
        let mut loaded = self.load(&[index], resize, &())?;
        loaded.images.pop().ok_or_else(|| Error::invalid("image", index, "one that can be read"))
    }
}

impl From<Category> for Batch {
    fn from(category: Category) -> Self {
        Batch {
            name: category.name,
            samples: category.samples,
            images: None,
            mask_rule: category.mask_rule,
            rscin_k: category.rscin_k,
            ignored: category.ignored,
            duplicates: category.duplicates,
            skip_bad: false,
            regions: Regions::everywhere(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(count: usize) -> Vec<RgbImage> {
        (0..count).map(|at| RgbImage::new(3, 2, vec![at as u8; 18]).unwrap()).collect()
    }

    #[test]
    fn frames_have_names_and_an_order() {
        let batch = Batch::images(frames(3)).unwrap();
        assert_eq!(batch.samples()[2].path, Path::new("image 2"));
        let batch = batch.with_names(["c", "a", "b"]).unwrap().named("line 3");
        assert_eq!((batch.name(), batch.len()), ("line 3", 3));
        assert_eq!(batch.samples()[0].path, Path::new("c"));
        assert!(Batch::images(frames(3)).unwrap().with_names(["c"]).is_err());
        assert!(Batch::images(Vec::new()).is_err());
        let empty = RgbImage::new(0, 2, Vec::new()).unwrap();
        let said = Batch::images(vec![frames(1).remove(0), empty]).unwrap_err().to_string();
        assert!(said.contains("image 1"), "{said}");
    }

    #[test]
    fn names_count_from_the_folder_that_all_share() {
        let names = ["/data/part/good/a.png", "/data/part/bad/b.png", "/data/part/c.png"];
        let batch = Batch::images(frames(3)).unwrap().with_names(names).unwrap();
        assert_eq!(batch.relative_names(), ["good/a.png", "bad/b.png", "c.png"]);
    }

    #[test]
    fn a_review_s_labels_stand_for_all_that_were_known() {
        let folder = tempfile::tempdir().unwrap();
        let table = folder.path().join("review.csv");
        std::fs::write(&table, "path,review\na,OK\nb,NG\nc,unsure\n").unwrap();
        let batch = Batch::images(frames(4)).unwrap().with_names(["a", "b", "c", "d"]).unwrap();
        let mut batch = batch;
        for sample in &mut batch.samples {
            (sample.label, sample.mask) = (Some(false), Mask::Normal);
        }
        let batch = batch.with_labels_of(&table).unwrap();
        let found: Vec<_> =
            batch.samples().iter().map(|sample| (sample.label, sample.mask.clone())).collect();
        let nothing = (None, Mask::Unknown);
        let expected =
            [(Some(false), Mask::Normal), (Some(true), Mask::Unknown), nothing.clone(), nothing];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_folder_that_is_none_is_named() {
        let said = Batch::folder("no/such/folder").unwrap_err().to_string();
        assert!(said.contains("no/such/folder"), "{said}");
    }
}
