//! `scores.csv`: a line an image.

use std::path::{Path, PathBuf};

use crate::Result;
use crate::atomic::write_file;

/// One image of `scores.csv`.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ScoreRow {
    /// The image's path as the run was given it.
    pub path: PathBuf,
    /// Its class (category).
    pub class: String,
    /// Defective or normal, if known: written as 1, 0 or nothing.
    pub label: Option<bool>,
    /// The score after RsCIN.
    pub score: f64,
    /// The largest value of the image's anomaly map.
    pub raw_score: f32,
    /// The threshold that the raw score was held against, if it was.
    pub threshold: Option<f64>,
}

impl ScoreRow {
    /// A row of an image.
    pub fn new(
        path: impl Into<PathBuf>,
        class: impl Into<String>,
        label: Option<bool>,
        score: f64,
        raw_score: f32,
    ) -> Self {
        ScoreRow {
            path: path.into(),
            class: class.into(),
            label,
            score,
            raw_score,
            threshold: None,
        }
    }

    /// Decided by a threshold: defective (NG) when the raw score is above it.
    #[must_use]
    pub fn with_threshold(mut self, threshold: f64) -> Self {
        self.threshold = Some(threshold);
        self
    }

    /// Whether the image is defective (NG) by its threshold; nothing without one.
    pub fn is_defective(&self) -> Option<bool> {
        self.threshold.map(|threshold| f64::from(self.raw_score) > threshold)
    }

    /// The decision in a word: `NG` or `OK`; nothing without a threshold.
    pub fn decision(&self) -> Option<&'static str> {
        self.is_defective().map(|defective| if defective { "NG" } else { "OK" })
    }
}

/// The rank of each score, 1 = highest; of equal scores the earlier one comes first. NaN ranks last.
pub fn ranks(scores: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| match (scores[a].is_nan(), scores[b].is_nan()) {
        (false, false) => scores[b].total_cmp(&scores[a]),
        (a, b) => a.cmp(&b),
    });
    let mut ranks = vec![0; scores.len()];
    for (rank, image) in order.into_iter().enumerate() {
        ranks[image] = rank + 1;
    }
    ranks
}

/// Writes columns `path,class,label,score,raw_score,rank,decision,threshold`, in the order of the rows; the rank is by `score`
/// within the class, the decision is `NG`, `OK` or nothing.
/// Numbers have the fewest digits that read back as the same value.
///
/// # Errors
/// [`crate::Error::Io`] with the path.
pub fn write_scores_csv(path: &Path, rows: &[ScoreRow]) -> Result<()> {
    let mut class_ranks = vec![0; rows.len()];
    let mut by_class: Vec<usize> = (0..rows.len()).collect();
    by_class.sort_by(|&a, &b| rows[a].class.cmp(&rows[b].class));
    for members in by_class.chunk_by(|&a, &b| rows[a].class == rows[b].class) {
        let scores: Vec<f64> = members.iter().map(|&row| rows[row].score).collect();
        for (&row, rank) in members.iter().zip(ranks(&scores)) {
            class_ranks[row] = rank;
        }
    }
    write_file(path, |writer| {
        let mut csv = csv::Writer::from_writer(writer);
        csv.write_record([
            "path",
            "class",
            "label",
            "score",
            "raw_score",
            "rank",
            "decision",
            "threshold",
        ])?;
        for (row, rank) in rows.iter().zip(&class_ranks) {
            let label = row.label.map_or("", |defective| if defective { "1" } else { "0" });
            // A path need not be UTF-8: its bytes go out as they are.
            csv.write_field(row.path.as_os_str().as_encoded_bytes())?;
            csv.write_field(&row.class)?;
            csv.write_field(label)?;
            csv.write_field(row.score.to_string())?;
            csv.write_field(row.raw_score.to_string())?;
            csv.write_field(rank.to_string())?;
            csv.write_field(row.decision().unwrap_or_default())?;
            csv.write_field(row.threshold.map_or(String::new(), |value| value.to_string()))?;
            csv.write_record(None::<&[u8]>)?;
        }
        csv.flush()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_keep_their_order_and_rank_within_their_class() {
        let row = |path: &str, class: &str, label, score, raw_score| {
            ScoreRow::new(path, class, label, score, raw_score)
        };
        let rows = [
            row("b/1.png", "b", Some(true), 0.1, 0.3),
            row("a/1.png", "a", Some(false), 1.0 / 3.0, 1e-7),
            row("b/2, \"x\".png", "b", None, 0.75, 0.5).with_threshold(0.25),
            row("b/3.png", "b", None, 0.75, 0.5).with_threshold(0.5),
        ];
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("scores.csv");
        write_scores_csv(&path, &rows).expect("write");
        assert_eq!(
            std::fs::read_to_string(&path).expect("read").lines().collect::<Vec<_>>(),
            [
                "path,class,label,score,raw_score,rank,decision,threshold",
                "b/1.png,b,1,0.1,0.3,3,,",
                "a/1.png,a,0,0.3333333333333333,0.0000001,1,,",
                "\"b/2, \"\"x\"\".png\",b,,0.75,0.5,1,NG,0.25",
                "b/3.png,b,,0.75,0.5,2,OK,0.5",
            ]
        );
    }

    #[test]
    fn ranks_put_the_highest_first_and_nan_last() {
        assert_eq!(ranks(&[]), Vec::<usize>::new());
        assert_eq!(ranks(&[f64::NAN, 0.5, 2.0, 0.5]), [4, 2, 1, 3]);
    }
}
