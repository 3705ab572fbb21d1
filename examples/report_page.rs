//! Writes a `report.html` of drawn images, to look at: `cargo run --example report_page -- FOLDER [IMAGES]`.
//!
//! The page takes plain data, from this crate's inspections or from anything else that has images, maps and scores.

use std::path::{Path, PathBuf};

use musc::ImageSize;
use musc::image::RgbImage;
use musc::report::html::{ReportClass, ReportImage, ReportPage, ReportPictures, write_report};

/// A name that would do harm if it were not taken as text, and names that a spreadsheet would take for formulas.
const NAMES: [&str; 4] = [
    "\"><script>\"document.title='harmed'\"</script>.png",
    "=1+2.png",
    "'-@quoted,\"x\".png",
    "ä & ö.png",
];

fn main() -> musc::Result<()> {
    let mut words = std::env::args().skip(1);
    let folder = PathBuf::from(words.next().unwrap_or_else(|| "output/report_page".into()));
    let count = words.next().and_then(|word| word.parse().ok()).unwrap_or(30);
    let path = folder.join("report.html");
    let pictures = ReportPictures::new(&path, count);
    let mut page = ReportPage::new("drawn images");
    let threshold = 0.5;
    for name in ["plates", "wide <plates>"].iter().take(count.min(2)) {
        page.classes.push(ReportClass::new(*name, Some(threshold), "a value", (0.2, 1.0)));
    }
    for at in 0..count {
        let (image, map, size, peak) = drawn(at);
        let class = &page.classes[at % 2];
        let name = NAMES.get(at).map_or_else(|| format!("{at:04}.png"), |name| (*name).to_string());
        let raw = f64::from(peak);
        let mut made = ReportImage::new(Path::new("plates").join(name), &class.name, raw, peak);
        made.threshold = threshold;
        made.file_size = (image.width as u32, image.height as u32);
        made.shown = ReportPictures::size_of(made.file_size);
        (made.picture, made.heat) = pictures.make(at, &image, &map, size, class.scale)?;
        if made.is_defective() {
            made.regions =
                vec![vec![[0.4, 0.35], [0.6, 0.35], [0.65, 0.5], [0.6, 0.65], [0.4, 0.65]]];
        }
        page.images.push(made);
    }
    page.settings = vec![("images".into(), count.to_string())];
    write_report(&path, &page)
}

/// An image with stripes, its map with a spot in the middle, the map's size and its peak.
fn drawn(seed: usize) -> (RgbImage, Vec<f32>, ImageSize, f32) {
    let (width, height) = if seed.is_multiple_of(2) { (320, 320) } else { (448, 256) };
    let mut data = Vec::with_capacity(width * height * 3);
    for y in 0..height {
        for x in 0..width {
            let stripes =
                ((x + y * 2 + seed * 17) / 9 % 2) * 18 + (x * 7 + y * 13 + seed * 29) % 23;
            let value = (110 + stripes) as u8;
            data.extend([value, value, value - 20]);
        }
    }
    let peak = if seed.is_multiple_of(5) {
        0.6 + (seed % 37) as f32 / 100.0
    } else {
        0.2 + (seed % 29) as f32 / 100.0
    };
    let size = ImageSize::square(32);
    let map = (0..size.pixels()).map(|at| {
        let (x, y) = ((at % 32) as f32 - 15.5, (at / 32) as f32 - 15.5);
        0.1 + (peak - 0.1) * (-(x * x + y * y) / 18.0).exp()
    });
    (RgbImage { width, height, data }, map.collect(), size, peak)
}
