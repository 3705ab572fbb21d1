//! The figures as a plain-text table.

use crate::metrics::{ClassMetrics, merge_mean};

const HEADERS: [&str; 8] = ["AUROC", "raw", "F1-max", "AP", "AUROC", "F1-max", "AP", "AUPRO"];
/// Columns of the image figures; the rest are of pixels.
const IMAGE_COLUMNS: usize = 4;
const WIDTH: usize = 8;

/// A table of the figures in percent, one decimal, `n/a` for a figure without meaning; a row a class, and the mean behind them
/// if there is more than one. `raw` is the image AUROC before RsCIN. Ends with a line end.
pub fn metrics_table(classes: &[ClassMetrics]) -> String {
    let mut rows: Vec<&ClassMetrics> = classes.iter().collect();
    let mean = merge_mean(classes);
    if classes.len() > 1 {
        rows.push(&mean);
    }
    let name_width = rows.iter().map(|row| row.class.chars().count()).max().unwrap_or(0).max(5);
    let image_width = IMAGE_COLUMNS * WIDTH;
    let pixel_width = (HEADERS.len() - IMAGE_COLUMNS) * WIDTH;
    let mut lines = vec![
        format!(
            "{:name_width$}  {}  {}",
            "%",
            ruled("image", image_width),
            ruled("pixel", pixel_width)
        ),
        line("class", name_width, HEADERS.map(String::from)),
    ];
    for (at, row) in rows.iter().enumerate() {
        if classes.len() > 1 && at == classes.len() {
            lines.push("-".repeat(name_width + 2 + image_width + 2 + pixel_width));
        }
        let figures = [
            row.image.auroc,
            row.image_auroc_raw,
            row.image.f1_max,
            row.image.ap,
            row.pixel.auroc,
            row.pixel.f1_max,
            row.pixel.ap,
            row.pixel.aupro,
        ];
        lines.push(line(&row.class, name_width, figures.map(percent)));
    }
    lines.push(String::new());
    lines.join("\n")
}

fn line(name: &str, name_width: usize, cells: [String; 8]) -> String {
    let mut text = format!("{name:name_width$}  ");
    for (at, cell) in cells.iter().enumerate() {
        if at == IMAGE_COLUMNS {
            text.push_str("  ");
        }
        text.push_str(&format!("{cell:>WIDTH$}"));
    }
    text
}

/// A heading over a group of columns, with a line to its left that spans the group.
fn ruled(name: &str, width: usize) -> String {
    let rule = "-".repeat(width - name.len() - 3);
    format!("  {rule} {name}")
}

fn percent(figure: Option<f64>) -> String {
    figure.map_or_else(|| String::from("n/a"), |figure| format!("{:.1}", figure * 100.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{ImageMetrics, PixelMetrics};

    fn class(name: &str, auroc: f64) -> ClassMetrics {
        ClassMetrics {
            class: name.to_string(),
            image: ImageMetrics { auroc: Some(auroc), f1_max: Some(1.0), ap: None },
            image_auroc_raw: Some(0.97),
            pixel: PixelMetrics { aupro: Some(0.93651), ..Default::default() },
        }
    }

    #[test]
    fn one_class_has_no_mean() {
        let table = metrics_table(&[class("textile", 0.985)]);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 3, "{table}");
        let cells: Vec<&str> = lines[2].split_whitespace().collect();
        let expected = ["textile", "98.5", "97.0", "100.0", "n/a", "n/a", "n/a", "n/a", "93.7"];
        assert_eq!(cells, expected);
        assert!(lines.iter().all(|line| line.len() == lines[0].len()), "{table}");
    }

    #[test]
    fn several_classes_end_with_the_mean() {
        let table = metrics_table(&[class("a", 0.5), class("a_much_longer_name", 1.0)]);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 6, "{table}");
        assert!(lines[5].starts_with("mean ") && lines[5].contains(" 75.0 "), "{table}");
        assert!(lines.iter().all(|line| line.len() == lines[0].len()), "{table}");
        assert_eq!(metrics_table(&[]).lines().count(), 2);
    }
}
