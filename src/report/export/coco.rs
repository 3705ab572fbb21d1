//! COCO: images, annotations with polygons, one category.

use serde_json::{Value, json};

use super::{ImageNames, LABEL};
use crate::report::inspected::{InspectedImage, short, short_box};

/// The document. Ids count from 1; an annotation is one region, a polygon of at least 3 points, its box and the area that the
/// polygon encloses. `names` are of these images; the folder they start from is `info.folder`.
///
/// Beside the format's own keys an image has `class`, `score`, `raw_score`, `threshold`, `decision`, an annotation `score` (the
/// largest value of the map in it).
pub fn coco(images: &[InspectedImage], names: &ImageNames, model: &str) -> Value {
    let mut annotations = Vec::new();
    let mut listed = Vec::new();
    for (at, (image, name)) in images.iter().zip(&names.names).enumerate() {
        listed.push(json!({
            "id": at + 1,
            "file_name": name,
            "width": image.size.width,
            "height": image.size.height,
            "class": image.class,
            "score": image.score,
            "raw_score": short(f64::from(image.raw_score)),
            "threshold": image.threshold,
            "decision": image.decision(),
        }));
        for region in &image.regions {
            let points: Vec<f64> = region.polygon.iter().flatten().copied().map(short).collect();
            annotations.push(json!({
                "id": annotations.len() + 1,
                "image_id": at + 1,
                "category_id": 1,
                "segmentation": [points],
                "bbox": short_box(&region.polygon),
                "area": short(region.polygon_area()),
                "iscrowd": 0,
                "score": short(f64::from(region.peak.value)),
            }));
        }
    }
    json!({
        "info": { "description": model, "folder": names.folder.display().to_string() },
        "licenses": [],
        "categories": [{ "id": 1, "name": LABEL, "supercategory": "anomaly" }],
        "images": listed,
        "annotations": annotations,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::report::inspected::samples::image;

    fn numbers(value: &Value) -> Vec<f64> {
        value.as_array().expect("array").iter().map(|v| v.as_f64().expect("number")).collect()
    }

    #[test]
    fn importers_find_nothing_to_refuse() {
        let images = [
            image("/data/good/a.png", "a", 0.25),
            image("/data/bad/a.png", "a", 0.9),
            image("/data/bad/b.png", "a", 0.8),
        ];
        let document = coco(&images, &ImageNames::of(&images), "musc");
        // Images without defects are listed; names are relative, with `/`, and no two equal.
        let listed = document["images"].as_array().expect("images");
        let names: Vec<&str> =
            listed.iter().map(|i| i["file_name"].as_str().expect("name")).collect();
        assert_eq!(names, ["good/a.png", "bad/a.png", "bad/b.png"]);
        assert_eq!(document["info"]["folder"], "/data");
        assert_eq!(
            document["categories"],
            json!([{"id": 1, "name": "defect", "supercategory": "anomaly"}])
        );
        assert_eq!(listed[0]["decision"], "OK");
        let ids: Vec<u64> = listed.iter().map(|i| i["id"].as_u64().expect("id")).collect();
        assert_eq!(ids, [1, 2, 3]);
        // One annotation a region.
        let annotations = document["annotations"].as_array().expect("annotations");
        assert_eq!(annotations.len(), 4);
        let mut seen = HashSet::new();
        for (at, annotation) in annotations.iter().enumerate() {
            assert!(seen.insert(annotation["id"].as_u64().expect("id")) && !seen.contains(&0));
            assert_eq!(annotation["image_id"], if at < 2 { 2 } else { 3 });
            assert_eq!(
                (&annotation["category_id"], &annotation["iscrowd"]),
                (&json!(1), &json!(0))
            );
            let polygons = annotation["segmentation"].as_array().expect("polygons");
            assert_eq!(polygons.len(), 1);
            let points = numbers(&polygons[0]);
            assert!(points.len() >= 6 && points.len().is_multiple_of(2));
            let (x, y): (Vec<f64>, Vec<f64>) = points.chunks_exact(2).map(|p| (p[0], p[1])).unzip();
            let span =
                |v: &[f64]| v.iter().fold((f64::MAX, f64::MIN), |a, &b| (a.0.min(b), a.1.max(b)));
            let ((left, right), (top, bottom)) = (span(&x), span(&y));
            assert!(left >= 0.0 && top >= 0.0 && right <= 30.0 && bottom <= 20.0);
            assert_eq!(numbers(&annotation["bbox"]), [left, top, right - left, bottom - top]);
            let area = annotation["area"].as_f64().expect("area");
            assert!(area > 0.0 && area <= (right - left) * (bottom - top));
        }
        assert_eq!(annotations[0]["area"], 80.0);
        assert_eq!(annotations[0]["score"], 0.9);
    }

    #[test]
    fn no_images_are_no_fault() {
        let document = coco(&[], &ImageNames::of(&[]), "musc");
        assert_eq!((&document["images"], &document["annotations"]), (&json!([]), &json!([])));
    }
}
