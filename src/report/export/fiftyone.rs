//! FiftyOne: a folder that `fiftyone.Dataset.from_dir` reads as a `FiftyOneDataset`.

use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::{ImageNames, LABEL};
use crate::report::inspected::{InspectedImage, short};
use crate::{Error, Result};

/// The files of the folder.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct FiftyOneFolder {
    /// `metadata.json`. It states no version, by which FiftyOne knows the layout without ids of its data base, the one of
    /// before 0.8, which other programs can write and which it still reads.
    pub metadata: Value,
    /// `samples.json`, with whole paths of images.
    pub samples: Value,
}

/// The folder's files: a sample an image with the fields `defects` (polylines, filled, in shares of the image's sides),
/// `decision` (a classification), `score`, `raw_score`, `threshold`, `category`, and `anomaly_map` (a heat map) where
/// `heat_maps` has the grey pictures of the maps, their paths whole or from the folder on; the latter below `fields/anomaly_map`,
/// where FiftyOne looks for them.
///
/// # Errors
/// [`Error::Invalid`] for another number of heat maps than images.
pub fn fiftyone(
    images: &[InspectedImage],
    names: &ImageNames,
    model: &str,
    heat_maps: Option<&[PathBuf]>,
) -> Result<FiftyOneFolder> {
    if let Some(maps) = heat_maps
        && maps.len() != images.len()
    {
        return Err(Error::invalid(
            "heat maps",
            maps.len(),
            format!("{}, one an image", images.len()),
        ));
    }
    let samples = images.iter().zip(&names.paths).enumerate().map(|(at, (image, path))| {
        let polylines: Vec<Value> = image
            .regions
            .iter()
            .map(|region| {
                let share = |&[x, y]: &[f64; 2]| {
                    let of = |value: f64, side: usize| short(value / side as f64).min(1.0);
                    [of(x, image.size.width), of(y, image.size.height)]
                };
                let points: Vec<[f64; 2]> = region.polygon.iter().map(share).collect();
                json!({
                    "_cls": "Polyline",
                    "label": LABEL,
                    "points": [points],
                    "closed": true,
                    "filled": true,
                    "confidence": short(f64::from(region.peak.value)),
                })
            })
            .collect();
        let mut sample = Map::new();
        let mut put = |key: &str, value: Value| sample.insert(key.to_string(), value);
        put("filepath", json!(path.display().to_string()));
        put("tags", json!([]));
        put("metadata", Value::Null);
        put("_media_type", json!("image"));
        put("category", json!(image.class));
        put("score", json!(image.score));
        put("raw_score", json!(short(f64::from(image.raw_score))));
        put("threshold", json!(image.threshold));
        put("decision", json!({ "_cls": "Classification", "label": image.decision() }));
        put("defects", json!({ "_cls": "Polylines", "polylines": polylines }));
        if let Some(maps) = heat_maps {
            let path = maps[at].display().to_string();
            put("anomaly_map", json!({ "_cls": "Heatmap", "map_path": path }));
        }
        Value::Object(sample)
    });
    let samples = json!({ "samples": samples.collect::<Vec<_>>() });
    let metadata = json!({ "media_type": "image", "info": { "model": model } });
    Ok(FiftyOneFolder { metadata, samples })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::inspected::samples::image;

    #[test]
    fn samples_have_shares_of_their_sides() {
        let images = [image("/data/a.png", "a", 0.25), image("/data/b.png", "a", 0.9)];
        let maps = ["a.png", "b.png"].map(|name| PathBuf::from("fields/anomaly_map").join(name));
        let made = fiftyone(&images, &ImageNames::of(&images), "musc", Some(&maps)).unwrap();
        assert!(made.metadata.get("version").is_none());
        let samples = made.samples["samples"].as_array().expect("samples");
        assert_eq!(samples.len(), 2);
        assert_eq!(samples[0]["defects"]["polylines"], json!([]));
        assert_eq!(samples[0]["decision"]["label"], "OK");
        assert_eq!(samples[1]["filepath"], "/data/b.png");
        assert_eq!(samples[1]["anomaly_map"]["map_path"], "fields/anomaly_map/b.png");
        let polylines = samples[1]["defects"]["polylines"].as_array().expect("polylines");
        assert_eq!(polylines.len(), 2);
        let square = json!([[[0.2, 0.2], [0.53333336, 0.2], [0.53333336, 0.6], [0.2, 0.6]]]);
        assert_eq!(polylines[0]["points"], square);
        assert_eq!(polylines[1]["points"][0][2], json!([1.0, 1.0]));
    }
}
