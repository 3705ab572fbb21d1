//! `report.html` and the plots of a run.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use musc::inspect::{Batch, Inspection, Inspector, Subsets};
use musc::metrics::ClassMetrics;
use musc::report::html::{ReportPage, ReportPictures, write_report};
use musc::report::{CurveKind, InspectedImage, ScorePlot, write_curve_svg, write_scores_svg};
use musc::{Progress, Result};

use super::config::{Config, Source};
use super::layout::CategoryFiles;
use super::record::Record;

/// The page, as batches are added to it.
pub struct Report {
    path: PathBuf,
    pictures: ReportPictures,
    page: ReportPage,
}

impl Report {
    /// A page at `path` for so many images.
    pub fn new(config: &Config, path: PathBuf, images: usize) -> Self {
        let title = match &config.source {
            Source::Dataset { kind, .. } => kind.name().into(),
            _ => path
                .parent()
                .and_then(Path::file_name)
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
        };
        Report { pictures: ReportPictures::new(&path, images), page: ReportPage::new(title), path }
    }

    /// Adds a batch and makes its pictures. `threshold` is what its images have in common.
    pub fn add(
        &mut self,
        inspector: &Inspector,
        batch: &Batch,
        inspection: &mut Inspection,
        (rule, threshold, inspected): (&str, Option<f64>, &[InspectedImage]),
        figures: Option<&ClassMetrics>,
        progress: &dyn Progress,
    ) -> Result<()> {
        let mut class = inspector.report_class(inspection, threshold, rule)?;
        class.figures = figures.cloned();
        let pictures = (&self.pictures, self.page.images.len());
        let images = inspector.report_images(batch, inspection, inspected, pictures, progress)?;
        self.page.classes.push(class);
        self.page.images.extend(images);
        Ok(())
    }

    /// Writes the page, and removes the pictures of an earlier one that are not its own.
    pub fn write(
        mut self,
        config: &Config,
        inspector: &Inspector,
        record: &Record,
    ) -> Result<PathBuf> {
        self.page.settings = settings(config, inspector, record);
        self.page.notes.clone_from(&record.notes);
        let seconds =
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        self.page.made_by = format!("musc-run {}, {}", crate::version(), date(seconds));
        write_report(&self.path, &self.page)?;
        self.pictures.remove_stale(&self.path, self.page.images.len())?;
        Ok(self.path)
    }
}

/// Writes the plots of a batch; the paths of those that were.
pub fn write_plots(
    files: &CategoryFiles,
    inspection: &Inspection,
    threshold: Option<f64>,
) -> Result<Vec<(String, PathBuf)>> {
    let name = inspection.name();
    let labels = inspection.samples().iter().map(|sample| sample.label).collect();
    let plot = ScorePlot::new(inspection.raw_scores().to_vec(), labels, threshold)?;
    write_scores_svg(&files.scores, &format!("Raw scores of {name}"), &plot)?;
    let mut written = vec![("histogram".into(), files.scores.clone())];
    let (scores, raw) = inspection.curves()?;
    for (kind, path, what) in [
        (CurveKind::Roc, &files.roc, "ROC curve"),
        (CurveKind::PrecisionRecall, &files.pr, "PR curve"),
    ] {
        match &scores {
            Some(scores) => {
                let title = format!("{what} of {name}");
                write_curve_svg(path, &title, kind, scores, raw.as_ref())?;
                written.push((what.into(), path.clone()));
            }
            None => super::remove_stale(path)?,
        }
    }
    Ok(written)
}

/// What a reader of the page may want to know of a run, in words; `run.json` has everything.
fn settings(config: &Config, inspector: &Inspector, record: &Record) -> Vec<(String, String)> {
    let backbone = inspector.backbone();
    let numbers =
        |numbers: &[usize]| numbers.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
    let named = |values: Vec<(&String, String)>| match &values[..] {
        [(_, one)] => one.clone(),
        many => many
            .iter()
            .map(|(name, value)| format!("{name}: {value}"))
            .collect::<Vec<_>>()
            .join("; "),
    };
    let source = match &config.source {
        Source::Dataset { kind, root, .. } => format!("{}, {}", kind.name(), root.display()),
        Source::Paths { paths, .. } => paths.join(", "),
        Source::Demo => "the sample images".into(),
    };
    let references = match (&config.known, config.subsets) {
        (Some(known), _) => {
            let each_other = if known.each_other { " and each other" } else { "" };
            format!("{} images of {}{each_other}", record.known.unwrap_or_default(), known.path)
        }
        (None, Subsets::References(references)) => {
            format!("about {references} others an image")
        }
        (None, Subsets::Divide(parts)) if parts > 1 => format!("in {parts} parts"),
        (None, _) => "all others".into(),
    };
    let subsets = record.subsets.iter().map(|(_, subsets)| subsets).max().copied().unwrap_or(1);
    let scoring = inspector.mutual_scoring();
    [
        ("images", source),
        ("backbone", format!("{}, weights {}", backbone.name(), backbone.source())),
        ("input", named(record.inputs.iter().map(|(name, size)| (name, size.clone())).collect())),
        ("feature layers", numbers(backbone.layers())),
        ("aggregation degrees", numbers(&scoring.degrees)),
        (
            "compared with",
            if subsets > 1 { format!("{references}, {subsets} subsets") } else { references },
        ),
        (
            "match",
            scoring.radius.map_or("anywhere".into(), |radius| format!("within {radius} patches")),
        ),
        ("RsCIN k", named(record.k.iter().map(|(name, k)| (name, numbers(k))).collect())),
        ("decision", config.decide.to_string()),
        ("device", inspector.device().into()),
        ("skipped files", record.skipped.len().to_string()),
    ]
    .map(|(name, value)| (name.to_string(), value))
    .to_vec()
}

/// The day and minute of a time, in UTC: Howard Hinnant's `civil_from_days`.
fn date(seconds: u64) -> String {
    let days = (seconds / 86_400) as i64 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year}-{month:02}-{day:02} {:02}:{:02} UTC", seconds / 3600 % 24, seconds / 60 % 60)
}

#[cfg(test)]
mod tests {
    use super::date;

    #[test]
    fn dates_are_those_of_the_calendar() {
        // By `date -u -d @…`.
        for (seconds, text) in [
            (0, "1970-01-01 00:00 UTC"),
            (951_782_399, "2000-02-28 23:59 UTC"),
            (951_782_400, "2000-02-29 00:00 UTC"),
            (1_764_254_040, "2025-11-27 14:34 UTC"),
            (4_107_542_400, "2100-03-01 00:00 UTC"),
        ] {
            assert_eq!(date(seconds), text);
        }
    }
}
