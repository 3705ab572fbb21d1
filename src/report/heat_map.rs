//! Heat maps in JET colours, in the folders and under the names of the authors' program.

use std::path::{Path, PathBuf};

use super::colour::{jet, quantise, value_range};
use super::image_file::format_of;
use crate::image::RgbImage;
use crate::{Error, ImageSize, Result};

/// Folder names that mean normal images in the authors' program.
const NORMAL_TYPES: [&str; 3] = ["good", "Normal", "ok"];

/// The scale of a heat map's colours (the authors' `vis_type`).
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum HeatMapScale {
    /// `single_norm`: each map by its own smallest and largest value.
    Single,
    /// `whole_norm`: all maps by one range, the smallest and largest value over the class.
    Whole(
        /// The range.
        (f32, f32),
    ),
}

/// Whether an image gets a heat map: with [`HeatMapScale::Single`] only those labelled defective that are not in a folder named
/// good, Normal or ok; with [`HeatMapScale::Whole`], or without a label, every image.
pub fn wants_heat_map(scale: HeatMapScale, label: Option<bool>, defect_type: &str) -> bool {
    match (scale, label) {
        (HeatMapScale::Whole(_), _) | (_, None) => true,
        (HeatMapScale::Single, Some(defective)) => {
            defective && !NORMAL_TYPES.contains(&defect_type)
        }
    }
}

/// A map in colours. A map without extent (all values equal) is all of level 0, dark blue.
///
/// # Shapes
/// `map` `[height, width]`, rows top to bottom.
///
/// # Errors
/// [`Error::Invalid`] when the length does not fit.
pub fn heat_map(map: &[f32], size: ImageSize, scale: HeatMapScale) -> Result<RgbImage> {
    check_map(map, size)?;
    let range = match scale {
        HeatMapScale::Single => value_range(map),
        HeatMapScale::Whole(range) => range,
    };
    let data = map.iter().flat_map(|&value| jet(quantise(value, range))).collect();
    Ok(RgbImage { width: size.width, height: size.height, data })
}

pub(super) fn check_map(map: &[f32], size: ImageSize) -> Result<()> {
    if !map.is_empty() && size.height.checked_mul(size.width) == Some(map.len()) {
        return Ok(());
    }
    Err(Error::invalid(
        "anomaly map",
        format!("{} values", map.len()),
        format!("{size} values, at least 1"),
    ))
}

/// Where a heat map goes inside the folder of its data set, backbone and size: `CLASS/TYPE/IMAGE`.
///
/// `image` gives the file name; its ending decides the format (PNG, JPEG, BMP, TIFF). A name with another ending, or none,
/// gets `.png` behind it.
///
/// # Errors
/// [`Error::Invalid`] for a path without a file name.
pub fn heat_map_path(
    folder: &Path,
    class: &str,
    defect_type: &str,
    image: &Path,
) -> Result<PathBuf> {
    let name = image
        .file_name()
        .ok_or_else(|| Error::invalid("image path", image.display(), "a path with a file name"))?;
    let mut name = name.to_os_string();
    if format_of(Path::new(&name)).is_none() {
        name.push(".png");
    }
    Ok(folder.join(class).join(defect_type).join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_follow_the_scale() {
        let map = [0.25, 0.5, 0.5, 0.75];
        let size = ImageSize::square(2);
        let single = heat_map(&map, size, HeatMapScale::Single).expect("map");
        assert_eq!(single.data, [jet(0), jet(127), jet(127), jet(255)].concat());
        let whole = heat_map(&map, size, HeatMapScale::Whole((0.0, 1.0))).expect("map");
        assert_eq!(whole.data, [jet(63), jet(127), jet(127), jet(191)].concat());
        let row = heat_map(&map, ImageSize::new(1, 4), HeatMapScale::Single).expect("map");
        assert_eq!((row.height, row.width, &row.data), (1, 4, &single.data));
        let flat = heat_map(&[0.4; 4], size, HeatMapScale::Single).expect("map");
        assert_eq!(flat.data, [jet(0); 4].concat());
        for (height, width) in [(3, 3), (4, 2), (0, 4), (1 << 63, 8)] {
            let size = ImageSize::new(height, width);
            assert!(heat_map(&map, size, HeatMapScale::Single).is_err(), "{size}");
        }
        assert!(heat_map(&[], ImageSize::new(0, 2), HeatMapScale::Single).is_err());
    }

    #[test]
    fn single_maps_are_for_defects_only() {
        let whole = HeatMapScale::Whole((0.0, 1.0));
        for (label, kind, single) in [
            (Some(true), "scratch", true),
            (Some(true), "good", false),
            (Some(true), "Normal", false),
            (Some(true), "ok", false),
            (Some(false), "scratch", false),
            (None, "good", true),
            (None, "", true),
        ] {
            assert_eq!(
                wants_heat_map(HeatMapScale::Single, label, kind),
                single,
                "{label:?} {kind}"
            );
            assert!(wants_heat_map(whole, label, kind));
        }
    }

    #[test]
    fn paths_are_those_of_the_authors() {
        let path = |image: &str| {
            let folder = Path::new("out/mvtec_ad/ViT-L-14-336/imagesize518");
            heat_map_path(folder, "bottle", "broken", Path::new(image)).expect("path")
        };
        let folder = "out/mvtec_ad/ViT-L-14-336/imagesize518/bottle/broken";
        assert_eq!(path("data/bottle/000.png"), Path::new(folder).join("000.png"));
        assert_eq!(path("0001.JPG"), Path::new(folder).join("0001.JPG"));
        assert_eq!(path("x.webp"), Path::new(folder).join("x.webp.png"));
        assert!(heat_map_path(Path::new("o"), "c", "t", Path::new("..")).is_err());
    }
}
