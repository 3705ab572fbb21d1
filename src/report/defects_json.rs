//! `defects.json`: the regions of every image that is NG.

use std::path::Path;

use serde_json::{Value, json};

use super::inspected::{InspectedImage, short, short_box};
use super::run_json::write_compact_json;
use crate::Result;
use crate::defects::Region;

/// The version of the file's layout: it grows when a reader of the one before would go wrong.
pub const DEFECTS_VERSION: u32 = 1;

/// `{"version", "images": [{"path", "class", "width", "height", "score", "raw_score", "threshold", "regions": […]}, …]}` with the
/// NG images in their order; a region is `{"polygon": [[x, y], …], "box": [x, y, width, height], "area", "peak": {"x", "y",
/// "value"}, "mean"}`, worst first, as [`Region`] has them: in pixels of the original image.
pub fn defects_json(images: &[InspectedImage]) -> Value {
    let defective = images.iter().filter(|image| image.is_defective());
    let listed: Vec<Value> = defective
        .map(|image| {
            let regions: Vec<Value> = image.regions.iter().map(region_json).collect();
            json!({
                "path": image.path.display().to_string(),
                "class": image.class,
                "width": image.size.width,
                "height": image.size.height,
                "score": image.score,
                "raw_score": short(f64::from(image.raw_score)),
                "threshold": image.threshold,
                "regions": regions,
            })
        })
        .collect();
    json!({ "version": DEFECTS_VERSION, "images": listed })
}

/// A region as [`defects_json`] has it.
pub fn region_json(region: &Region) -> Value {
    let polygon: Vec<[f64; 2]> =
        region.polygon.iter().map(|&[x, y]| [short(x), short(y)]).collect();
    json!({
        "polygon": polygon,
        "box": short_box(&region.polygon),
        "area": short(region.area),
        "peak": {
            "x": short(region.peak.x),
            "y": short(region.peak.y),
            "value": short(f64::from(region.peak.value)),
        },
        "mean": short(region.mean),
    })
}

/// Writes [`defects_json`] to a file.
///
/// # Errors
/// [`crate::Error::Io`] with the path.
pub fn write_defects_json(path: &Path, images: &[InspectedImage]) -> Result<()> {
    write_compact_json(path, &defects_json(images))
}

#[cfg(test)]
mod tests {
    use super::super::inspected::samples::image;
    use super::*;

    #[test]
    fn defective_images_have_their_regions() {
        let images = [image("b/1.png", "b", 0.9), image("b/2.png", "b", 0.25)];
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("defects.json");
        write_defects_json(&path, &images).expect("write");
        let text = std::fs::read_to_string(&path).expect("read");
        let value: Value = serde_json::from_str(&text).expect("json");
        assert_eq!(value["version"], 1);
        let listed = value["images"].as_array().expect("images");
        assert_eq!(listed.len(), 1);
        let found = &listed[0];
        assert_eq!((found["path"].as_str(), found["class"].as_str()), (Some("b/1.png"), Some("b")));
        assert_eq!((found["width"].as_u64(), found["height"].as_u64()), (Some(30), Some(20)));
        assert_eq!(
            (found["raw_score"].as_f64(), found["threshold"].as_f64()),
            (Some(0.9), Some(0.3))
        );
        // A pixel of the map is 2 by 2 of the image.
        let regions = found["regions"].as_array().expect("regions");
        assert_eq!(regions.len(), 2);
        let square = json!([[6.0, 4.0], [16.0, 4.0], [16.0, 12.0], [6.0, 12.0]]);
        assert_eq!(regions[0]["polygon"], square);
        assert_eq!(regions[0]["box"], json!([6.0, 4.0, 10.0, 8.0]));
        assert_eq!(regions[0]["area"], 80.0);
        assert_eq!(regions[0]["peak"], json!({ "x": 9.0, "y": 7.0, "value": 0.9 }));
        assert_eq!(regions[1]["box"], json!([28.0, 18.0, 2.0, 2.0]));
    }
}
