//! `metrics.json`: the figures of each class and their mean.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::run_json::write_json;
use crate::Result;
use crate::metrics::{ClassMetrics, ImageMetrics, PixelMetrics, merge_mean};

/// The seven figures under their names in JSON, in 0..1; `null` for a figure without meaning.
///
/// Keys: `image_auroc`, `image_f1max`, `image_ap`, `pixel_auroc`, `pixel_f1max`, `pixel_ap`, `pixel_aupro`.
pub fn metrics_object(image: &ImageMetrics, pixel: &PixelMetrics) -> Map<String, Value> {
    [
        ("image_auroc", image.auroc),
        ("image_f1max", image.f1_max),
        ("image_ap", image.ap),
        ("pixel_auroc", pixel.auroc),
        ("pixel_f1max", pixel.f1_max),
        ("pixel_ap", pixel.ap),
        ("pixel_aupro", pixel.aupro),
    ]
    .into_iter()
    .map(|(key, figure)| (key.to_string(), json!(figure)))
    .collect()
}

/// `{"classes": {CLASS: figures, …}, "mean": figures}`, each with the seven figures and `image_auroc_raw` (before RsCIN).
pub fn metrics_json(classes: &[ClassMetrics]) -> Value {
    let with_raw = |class: &ClassMetrics| {
        let mut object = metrics_object(&class.image, &class.pixel);
        object.insert(String::from("image_auroc_raw"), json!(class.image_auroc_raw));
        Value::Object(object)
    };
    let by_class: Map<String, Value> =
        classes.iter().map(|class| (class.class.clone(), with_raw(class))).collect();
    json!({"classes": by_class, "mean": with_raw(&merge_mean(classes))})
}

/// Writes [`metrics_json`] to a file.
///
/// # Errors
/// [`crate::Error::Io`] with the path.
pub fn write_metrics_json(path: &Path, classes: &[ClassMetrics]) -> Result<()> {
    write_json(path, &metrics_json(classes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_the_golden() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/metrics.json");
        let text = std::fs::read_to_string(path).expect("golden");
        let golden: Map<String, Value> = serde_json::from_str(&text).expect("json");
        let object = metrics_object(&ImageMetrics::default(), &PixelMetrics::default());
        assert!(object.keys().eq(golden.keys()));
        assert!(object.values().all(Value::is_null));
    }

    #[test]
    fn classes_and_mean_are_written() {
        let class = |name: &str, auroc| ClassMetrics {
            class: name.to_string(),
            image: ImageMetrics { auroc, ..Default::default() },
            image_auroc_raw: auroc,
            ..Default::default()
        };
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("metrics.json");
        let classes = [class("b", Some(0.5)), class("a", Some(1.0)), class("c", None)];
        write_metrics_json(&path, &classes).expect("write");
        let text = std::fs::read_to_string(&path).expect("read");
        let value: Value = serde_json::from_str(&text).expect("json");
        assert_eq!(value["mean"]["image_auroc"], 0.75);
        assert_eq!(value["classes"]["a"]["image_auroc_raw"], 1.0);
        assert_eq!(value["classes"]["c"]["image_auroc"], Value::Null);
        let order: Vec<&String> = value["classes"].as_object().expect("object").keys().collect();
        assert_eq!(order, ["b", "a", "c"]);
    }
}
