//! Images as Python has them, as a batch: folders, patterns, lists, files, arrays.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use musc::dataset::FolderOptions;
use musc::image::{RegionMask, RgbImage};
use musc::inspect::{Batch, Regions};
use musc::{Error, ImageSize};
use numpy::ndarray::{ArrayView, Axis, Ix3};
use numpy::{IxDyn, PyReadonlyArray, PyUntypedArrayMethods};
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::arrays;
use crate::error::{raise, wrong_type, wrong_value};

const IMAGES: &str = "a folder, a pattern, a list file, paths, or uint8 arrays [H, W, 3]";
const PIXELS: &str = "uint8 [H, W, 3], red, green and blue";

/// What is said of images beside them.
#[derive(Default)]
pub struct About<'a, 'py> {
    /// Names of arrays, in their order.
    pub names: Option<Vec<PathBuf>>,
    /// `from-folders`, or a table of labels.
    pub labels: Option<PathBuf>,
    /// The part of the images that is looked at.
    pub roi: Option<&'a Bound<'py, PyAny>>,
    /// Pixels at the edges that are not looked at.
    pub border: i64,
    /// Goes on without files that cannot be read.
    pub skip_bad: bool,
}

/// A batch, and whether it is of files.
pub fn batch(images: &Bound<'_, PyAny>, about: About<'_, '_>) -> PyResult<(Batch, bool)> {
    let from_folders = about
        .labels
        .as_ref()
        .is_some_and(|word| matches!(word.to_str(), Some("from-folders" | "from_folders")));
    let options = FolderOptions::default().with_labels_from_folders(from_folders);
    let given = Given::of(images)?;
    let of_files = matches!(given, Given::Paths(_));
    let mut batch = match given {
        Given::Paths(paths) => of_paths(paths, &options)?,
        Given::Arrays(arrays) => of_arrays(images.py(), &arrays)?,
    };
    if let Some(names) = about.names {
        batch = batch.with_names(names).map_err(raise)?;
    }
    if let Some(table) = about.labels.filter(|_| !from_folders) {
        batch = batch.with_labels_of(table).map_err(raise)?;
    }
    let regions = regions(about.roi, about.border)?;
    if !regions.is_everywhere() {
        batch = batch.with_regions(regions).map_err(raise)?;
    }
    Ok((batch.skip_bad(about.skip_bad), of_files))
}

/// What was given, looked at for the first time.
enum Given<'py> {
    Paths(Vec<PathBuf>),
    Arrays(Vec<PyReadonlyArray<'py, u8, IxDyn>>),
}

impl<'py> Given<'py> {
    fn of(images: &Bound<'py, PyAny>) -> PyResult<Self> {
        if is_path(images)? {
            return Ok(Given::Paths(vec![path("images", images)?]));
        }
        if arrays::is_array(images)? {
            return Ok(Given::Arrays(vec![pixels("images", images, true)?]));
        }
        let Ok(items) = images.try_iter() else {
            return Err(wrong_type("images", images.get_type().name()?, IMAGES));
        };
        let (mut paths, mut arrays) = (Vec::new(), Vec::new());
        for (at, item) in items.enumerate() {
            let (item, what) = (item?, format!("images[{at}]"));
            if is_path(&item)? {
                paths.push(path(&what, &item)?);
            } else if arrays::is_array(&item)? {
                arrays.push(pixels(&what, &item, false)?);
            } else {
                return Err(wrong_type(&what, item.get_type().name()?, IMAGES));
            }
        }
        match (paths.is_empty(), arrays.is_empty()) {
            (true, true) => Err(wrong_value("images", "none", IMAGES)),
            (false, true) => Ok(Given::Paths(paths)),
            (true, false) => Ok(Given::Arrays(arrays)),
            (false, false) => {
                let found = format!("{} paths and {} arrays", paths.len(), arrays.len());
                Err(wrong_type("images", found, "either paths or arrays"))
            }
        }
    }
}

fn is_path(value: &Bound<'_, PyAny>) -> PyResult<bool> {
    Ok(value.is_instance_of::<PyString>() || value.hasattr("__fspath__")?)
}

fn path(what: &str, value: &Bound<'_, PyAny>) -> PyResult<PathBuf> {
    let path: PathBuf = value.extract()?;
    // Such a path means the working folder to nobody.
    if path.as_os_str().is_empty() {
        return Err(wrong_value(what, "an empty path", IMAGES));
    }
    Ok(path)
}

/// One picture, or several of one size.
fn pixels<'py>(
    what: &str,
    value: &Bound<'py, PyAny>,
    several: bool,
) -> PyResult<PyReadonlyArray<'py, u8, IxDyn>> {
    let array = arrays::array(what, value)?;
    let expected =
        if several { "uint8 [H, W, 3] or [N, H, W, 3], red, green and blue" } else { PIXELS };
    let Some(read) = arrays::typed(what, &array, expected)? else {
        return Err(wrong_type(what, arrays::found(&array), expected));
    };
    let fits = array.ndim() == 3 || (several && array.ndim() == 4);
    if !fits || array.shape().last() != Some(&3) || array.is_empty() {
        return Err(wrong_value(what, arrays::found(&array), expected));
    }
    Ok(read)
}

/// Files in the order that they are given in; folders, patterns and lists, or those among files, sorted by path.
fn of_paths(paths: Vec<PathBuf>, options: &FolderOptions) -> PyResult<Batch> {
    let is_list = |path: &Path| {
        let ending = path.extension().map(|ending| ending.to_ascii_lowercase());
        ending.is_some_and(|ending| ending == "txt" || ending == "csv")
    };
    if paths.iter().all(|path| path.is_file() && !is_list(path)) && !options.labels_from_folders {
        let mut seen = HashSet::new();
        if let Some(twice) = paths.iter().find(|path| !seen.insert(*path)) {
            let found = format!("{} twice", twice.display());
            return Err(wrong_value("images", found, "each file once"));
        }
        return Batch::files_as_given(paths).map_err(raise);
    }
    let texts: Vec<String> = paths.iter().map(|path| path.to_string_lossy().into_owned()).collect();
    Batch::paths(&texts, options).map_err(raise)
}

fn of_arrays(py: Python<'_>, arrays: &[PyReadonlyArray<'_, u8, IxDyn>]) -> PyResult<Batch> {
    let views: Vec<ArrayView<'_, u8, Ix3>> = arrays.iter().flat_map(pictures).collect();
    // Bytes are copied: the caller may write into an array while images are compared.
    py.detach(|| {
        let images: Vec<RgbImage> = views.iter().map(arrays::image).collect::<musc::Result<_>>()?;
        Batch::images(images)
    })
    .map_err(raise)
}

/// Each picture of an array.
fn pictures<'a>(array: &'a PyReadonlyArray<'_, u8, IxDyn>) -> Vec<ArrayView<'a, u8, Ix3>> {
    let view = array.as_array();
    let pictures: Vec<ArrayView<'a, u8, IxDyn>> = if view.ndim() == 4 {
        (0..view.len_of(Axis(0))).map(|at| view.clone().index_axis_move(Axis(0), at)).collect()
    } else {
        vec![view]
    };
    pictures.into_iter().filter_map(|picture| picture.into_dimensionality().ok()).collect()
}

/// The part of the images that is looked at: a mask's file, a folder with one an image, or an array.
fn regions(roi: Option<&Bound<'_, PyAny>>, border: i64) -> PyResult<Regions> {
    const ROI: &str = "a mask's file, a folder of masks, or a bool array [H, W]";
    let border =
        usize::try_from(border).map_err(|_| wrong_value("border", border, "pixels, at least 0"))?;
    let regions = match roi {
        None => Regions::everywhere(),
        Some(roi) if is_path(roi)? => {
            let path: PathBuf = roi.extract()?;
            if !path.exists() {
                let reason = String::from("no such file or folder");
                return Err(raise(Error::Dataset { path, reason }));
            }
            Regions::read(path).map_err(raise)?
        }
        Some(roi) if arrays::is_array(roi)? => {
            let inside = arrays::truths::<numpy::Ix2>("roi", roi, ROI)?;
            let (height, width) = inside.as_array().dim();
            let mask =
                RegionMask::new(ImageSize::new(height, width), arrays::values(&inside.as_array()));
            Regions::mask(mask.map_err(raise)?)
        }
        Some(roi) => return Err(wrong_type("roi", roi.get_type().name()?, ROI)),
    };
    Ok(regions.with_border(border))
}
