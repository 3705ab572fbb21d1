//! The pictures of a page: each image as a small JPEG, its heat map as a small PNG that is clear where nothing is found.

use std::path::{Path, PathBuf};

use ::image::ImageEncoder;
use ::image::codecs::png::{CompressionType, FilterType, PngEncoder};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::INLINE_IMAGES;
use crate::atomic::write_file;
use crate::image::{Canvas, Filter, Fit, RgbImage, resize};
use crate::report::heat_map::check_map;
use crate::report::image_file::jpeg_bytes;
use crate::report::overlay::check_image;
use crate::report::sheet::reduce;
use crate::{Error, ImageSize, Result};

/// Longest side of a picture. Above the 224 that a card shows, so that the large view has something to show.
const SIDE: usize = 448;
/// Longest side of a heat map: it has no more detail than the grid of patches it comes from.
const HEAT_SIDE: usize = 96;
/// Most bytes of a picture and of a heat map: 4/3 of both, 200 times, are 18.7 MB, which leaves room below 20 MB for the rest.
const PICTURE_BYTES: usize = 56_000;
const HEAT_BYTES: usize = 14_000;
/// Qualities that are tried, one after another, before the picture gets smaller.
const QUALITIES: [u8; 4] = [88, 80, 68, 52];
/// Levels of a heat map. More are not told apart, and fewer make smaller files.
const LEVELS: f32 = 48.0;

/// Where a picture of a page is: inside it, or a file beside it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ReportPicture {
    /// A `data:` address or one relative to the page; empty for no picture.
    pub(super) source: String,
}

impl ReportPicture {
    /// Its address, to be an image's source: `data:` with the picture in it, or one relative to the page.
    pub fn address(&self) -> &str {
        &self.source
    }

    /// Whether it is a file beside the page.
    pub(super) fn is_beside(&self) -> bool {
        !self.source.is_empty() && !self.source.starts_with("data:")
    }
}

/// Makes the pictures of one page.
#[derive(Debug, Clone)]
pub struct ReportPictures {
    /// The folder, and its name as an address, where pictures are not inside the page.
    folder: Option<(PathBuf, String)>,
}

impl ReportPictures {
    /// For a page at this path with so many images in all: inside it up to [`INLINE_IMAGES`], else in [`Self::folder_of`].
    pub fn new(page: &Path, images: usize) -> Self {
        let folder = Self::folder_of(page);
        let name = folder.file_name().unwrap_or_default().as_encoded_bytes();
        let address = name.iter().map(|&byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        });
        let address = address.collect();
        ReportPictures { folder: (images > INLINE_IMAGES).then_some((folder, address)) }
    }

    /// The folder beside a page for its pictures: `report_files` for `report.html`.
    pub fn folder_of(page: &Path) -> PathBuf {
        let mut name = page.file_stem().unwrap_or_default().to_os_string();
        name.push("_files");
        page.with_file_name(name)
    }

    /// Removes the pictures of an earlier page at this path that are none of this page's `images`, and their folder if nothing
    /// is left in it.
    ///
    /// # Errors
    /// [`Error::Io`] when one cannot be removed.
    pub fn remove_stale(&self, page: &Path, images: usize) -> Result<()> {
        let folder = Self::folder_of(page);
        let own = if self.folder.is_some() { images } else { 0 };
        let Ok(entries) = std::fs::read_dir(&folder) else { return Ok(()) };
        for entry in entries {
            let path = entry.map_err(Error::io("list", &folder))?.path();
            let number = path.file_stem().and_then(|stem| stem.to_str()?.parse::<usize>().ok());
            let kind = path.extension().and_then(|ending| ending.to_str());
            if number.is_some_and(|number| number >= own) && matches!(kind, Some("jpg" | "png")) {
                std::fs::remove_file(&path).map_err(Error::io("remove", &path))?;
            }
        }
        // Not empty: somebody else's files.
        let _ = std::fs::remove_dir(&folder);
        Ok(())
    }

    /// The size that a picture of a file of this size (width, height) has in the page: its proportions, its longest side at
    /// most 448 pixels.
    pub fn size_of(file: (u32, u32)) -> ImageSize {
        let file = ImageSize::new(file.1.max(1) as usize, file.0.max(1) as usize);
        let side = SIDE.min(file.height.max(file.width));
        Canvas::new(ImageSize::square(side)).with_fit(Fit::Pad).place(file).size
    }

    /// Makes picture and heat map of an image; `number` tells the images of a page apart.
    ///
    /// # Shapes
    /// `image` of any size; `map` `[height, width]` of `size`, laid over the whole image. Its colours begin at the first value
    /// of `scale`, where it is clear, and end at the second.
    ///
    /// # Errors
    /// [`Error::Invalid`] when a length does not fit; [`Error::Io`] when a file cannot be written.
    pub fn make(
        &self,
        number: usize,
        image: &RgbImage,
        map: &[f32],
        size: ImageSize,
        scale: (f32, f32),
    ) -> Result<(ReportPicture, ReportPicture)> {
        check_image(image)?;
        check_map(map, size)?;
        let failed = || Error::io("encode the picture of", format!("image {number} of the report"));
        let picture = jpeg_within(image, PICTURE_BYTES).map_err(failed())?;
        let heat = heat_within(image.size(), map, size, scale, HEAT_BYTES).map_err(failed())?;
        Ok((self.keep(number, "jpg", &picture)?, self.keep(number, "png", &heat)?))
    }

    fn keep(&self, number: usize, kind: &str, bytes: &[u8]) -> Result<ReportPicture> {
        let source = match &self.folder {
            None => {
                let kind = if kind == "jpg" { "jpeg" } else { kind };
                format!("data:image/{kind};base64,{}", STANDARD.encode(bytes))
            }
            Some((folder, address)) => {
                let name = format!("{number:06}.{kind}");
                write_file(&folder.join(&name), |writer| writer.write_all(bytes))?;
                format!("{address}/{name}")
            }
        };
        Ok(ReportPicture { source })
    }
}

/// A JPEG of at most so many bytes: of lower quality, then smaller, until it fits. The last resort is 16 pixels.
fn jpeg_within(image: &RgbImage, most: usize) -> std::io::Result<Vec<u8>> {
    let mut smaller = image.clone();
    loop {
        for quality in QUALITIES {
            let bytes = jpeg_bytes(&smaller, quality)?;
            if bytes.len() <= most || smaller.width.max(smaller.height) <= 16 {
                return Ok(bytes);
            }
        }
        let less = |side: usize| (side * 3 / 4).max(1);
        let size = ImageSize::new(less(smaller.height), less(smaller.width));
        smaller = resize(&smaller, size, Filter::Bilinear);
    }
}

/// A PNG of at most so many bytes of the map, with the picture's proportions.
fn heat_within(
    picture: ImageSize,
    map: &[f32],
    size: ImageSize,
    scale: (f32, f32),
    most: usize,
) -> std::io::Result<Vec<u8>> {
    let mut side = HEAT_SIDE.min(size.height.max(size.width));
    loop {
        let inside = Canvas::new(ImageSize::square(side)).with_fit(Fit::Pad).place(picture).size;
        let small = reduce::<1>(map, size, inside);
        let pixels: Vec<u8> =
            small.iter().flat_map(|&value| heat_colour(share(value, scale))).collect();
        let mut bytes = Vec::new();
        let (width, height) = (inside.width as u32, inside.height as u32);
        PngEncoder::new_with_quality(&mut bytes, CompressionType::Best, FilterType::Adaptive)
            .write_image(&pixels, width, height, ::image::ExtendedColorType::Rgba8)
            .map_err(std::io::Error::other)?;
        if bytes.len() <= most || side <= 16 {
            return Ok(bytes);
        }
        side = side * 3 / 4;
    }
}

/// Where a value lies on the scale, 0..=1, in steps.
fn share(value: f32, (low, high): (f32, f32)) -> f32 {
    let extent = high - low;
    if extent > 0.0 && value.is_finite() {
        (((value - low) / extent).clamp(0.0, 1.0) * LEVELS).round() / LEVELS
    } else {
        0.0
    }
}

/// Red, green, blue and opacity of a share of the scale: clear, then yellow, orange, red and a dark red.
pub(super) fn heat_colour(share: f32) -> [u8; 4] {
    const STOPS: [(f32, [f32; 4]); 6] = [
        (0.0, [255.0, 236.0, 120.0, 0.0]),
        (0.1, [255.0, 222.0, 86.0, 44.0]),
        (0.25, [255.0, 178.0, 44.0, 140.0]),
        (0.45, [250.0, 112.0, 26.0, 205.0]),
        (0.7, [218.0, 38.0, 48.0, 240.0]),
        (1.0, [150.0, 0.0, 60.0, 255.0]),
    ];
    let at = STOPS.iter().rposition(|stop| stop.0 <= share).unwrap_or(0).min(STOPS.len() - 2);
    let ((from, low), (to, high)) = (STOPS[at], STOPS[at + 1]);
    let part = ((share - from) / (to - from)).clamp(0.0, 1.0);
    std::array::from_fn(|channel| {
        (low[channel] + (high[channel] - low[channel]) * part).round() as u8
    })
}
