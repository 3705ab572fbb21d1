//! Label Studio: a task an image, its regions as a prediction.

use serde_json::{Value, json};

use super::{ImageNames, LABEL};
use crate::report::inspected::{InspectedImage, short};

/// The labelling configuration that the tasks are for: an image, and polygons over it.
pub const LABEL_STUDIO_CONFIG: &str = "\
<View>
  <Header value=\"$decision: raw score $raw_score, threshold $threshold\"/>
  <Image name=\"image\" value=\"$image\" zoom=\"true\" zoomControl=\"true\"/>
  <PolygonLabels name=\"defect\" toName=\"image\" strokeWidth=\"2\" pointSize=\"small\" opacity=\"0.3\">
    <Label value=\"defect\" background=\"#d1242f\"/>
  </PolygonLabels>
</View>
";

/// The tasks, worst first. Points are in percent of the image's sides; a prediction's `score` is the raw score, by which tasks
/// are put in order, its regions' scores the largest values of the map in them. An image without regions has a prediction with
/// none.
///
/// `image` is where Label Studio serves local files, `/data/local-files/?d=PATH`, with the path from the folder that holds
/// [`ImageNames::folder`].
pub fn label_studio(images: &[InspectedImage], names: &ImageNames, model: &str) -> Value {
    // The folder itself must be below the one that is served.
    let folder = names.folder.file_name().map(|name| name.to_string_lossy().into_owned());
    let mut order: Vec<usize> = (0..images.len()).collect();
    order.sort_by(|&a, &b| images[b].raw_score.total_cmp(&images[a].raw_score));
    let tasks = order.into_iter().map(|at| {
        let (image, name) = (&images[at], &names.names[at]);
        let path = match &folder {
            Some(folder) => format!("{folder}/{name}"),
            None => name.clone(),
        };
        let results: Vec<Value> = image
            .regions
            .iter()
            .enumerate()
            .map(|(number, region)| {
                let percent = |&[x, y]: &[f64; 2]| {
                    let of =
                        |value: f64, side: usize| short(value * 100.0 / side as f64).min(100.0);
                    [of(x, image.size.width), of(y, image.size.height)]
                };
                let points: Vec<[f64; 2]> = region.polygon.iter().map(percent).collect();
                json!({
                    "id": format!("region{}", number + 1),
                    "type": "polygonlabels",
                    "from_name": LABEL,
                    "to_name": "image",
                    "original_width": image.size.width,
                    "original_height": image.size.height,
                    "image_rotation": 0,
                    "score": short(f64::from(region.peak.value)),
                    "value": { "points": points, "closed": true, "polygonlabels": [LABEL] },
                })
            })
            .collect();
        json!({
            "data": {
                "image": format!("/data/local-files/?d={}", percent_encoded(&path)),
                "file_name": name,
                "class": image.class,
                "decision": image.decision(),
                "score": image.score,
                "raw_score": short(f64::from(image.raw_score)),
                "threshold": image.threshold,
            },
            "predictions": [{
                "model_version": model,
                "score": short(f64::from(image.raw_score)),
                "result": results,
            }],
        })
    });
    Value::Array(tasks.collect())
}

/// A path for a query: letters, digits, `-._~` and `/` stay, every other byte is `%` and two hexadecimal digits.
fn percent_encoded(path: &str) -> String {
    let mut text = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::inspected::samples::image;

    #[test]
    fn tasks_come_worst_first_with_points_in_percent() {
        let images =
            [image("/data/my set/a.png", "a", 0.25), image("/data/my set/b&c=ü.png", "a", 0.9)];
        let tasks = label_studio(&images, &ImageNames::of(&images), "musc 1");
        let tasks = tasks.as_array().expect("tasks");
        assert_eq!(tasks.len(), 2);
        let address = "/data/local-files/?d=my%20set/b%26c%3D%C3%BC.png";
        assert_eq!(tasks[0]["data"]["image"], address);
        assert_eq!(tasks[0]["data"]["decision"], "NG");
        let prediction = &tasks[0]["predictions"][0];
        assert_eq!(
            (&prediction["model_version"], &prediction["score"]),
            (&json!("musc 1"), &json!(0.9))
        );
        let results = prediction["result"].as_array().expect("results");
        assert_eq!(results.len(), 2);
        assert_eq!(
            (&results[0]["original_width"], &results[0]["original_height"]),
            (&json!(30), &json!(20))
        );
        // 6 to 16 of 30, 4 to 12 of 20.
        let square = json!([[20.0, 20.0], [53.333332, 20.0], [53.333332, 60.0], [20.0, 60.0]]);
        assert_eq!(results[0]["value"]["points"], square);
        assert_eq!(results[1]["value"]["points"][2], json!([100.0, 100.0]));
        assert_ne!(results[0]["id"], results[1]["id"]);
        // What has no defect is a task all the same.
        assert_eq!(tasks[1]["data"]["decision"], "OK");
        assert_eq!(tasks[1]["predictions"][0]["result"], json!([]));
    }

    #[test]
    fn the_configuration_has_the_names_that_tasks_use() {
        for part in [
            "<Image name=\"image\" value=\"$image\"",
            "<PolygonLabels name=\"defect\" toName=\"image\"",
            "<Label value=\"defect\"",
        ] {
            assert!(LABEL_STUDIO_CONFIG.contains(part), "{part}");
        }
    }
}
