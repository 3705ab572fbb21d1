//! OK or NG: from the raw scores of a batch to a threshold, by a rule that is stated.
//!
//! No rule is right for every share of defects (`docs/decisions.md`): so a decision comes with its rule and its threshold, and
//! another rule costs nothing but a second call.

use std::fmt;
use std::str::FromStr;

use crate::{Error, Result};

/// Standard deviations above the mean of the shortest half, where none are named.
pub const SIGMAS: f64 = 3.5;
/// Standard deviations above the mean of the shortest half up to which the widest gap is looked for, where none are named.
pub const GAP_SIGMAS: f64 = 6.0;

/// The rules as they are written.
const ALL: &str =
    "gap[:SIGMAS], shortest-half[:SIGMAS], quantile:Q, share:P, f1, mebin or a number";

/// How the threshold above which an image is defective (NG) comes from the raw scores of its batch.
///
/// Written and read as `gap[:SIGMAS]`, `shortest-half[:SIGMAS]`, `quantile:Q`, `share:P`, `f1`, `mebin`, or a number.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum DecisionRule {
    /// The middle of the widest gap between neighbouring scores from c + σ to c + `sigmas`·σ, both ends counted as scores; c and σ
    /// are those of [`DecisionRule::ShortestHalf`]. Normal images fill that range densely up to their last one, and defects
    /// scatter above it; the upper end is there because the gaps among defects are the widest of all.
    Gap {
        /// Multiples of σ, at least 1.
        sigmas: f64,
    },
    /// The mean c of the shortest interval that holds half of the scores (rounded up), and `sigmas` times σ, where σ² is the
    /// mean of (s - c)² over the scores s ≤ c: what normal images scatter, seen from below, where no defect is.
    ShortestHalf {
        /// Multiples of σ, at least 0.
        sigmas: f64,
    },
    /// The quantile of the scores, in 0..=1, linear between them.
    Quantile(f64),
    /// The highest of the scores, this share of the batch, 0..=1, rounded to whole images.
    Share(f64),
    /// The threshold with the largest F1 against the labels: the best that any rule could do.
    F1,
    /// Of each image's map on its own, by how many regions it has above which threshold (MEBin): see
    /// [`mebin`](crate::defects::mebin). Reads maps and not scores, so [`threshold`] refuses it.
    Mebin,
    /// A threshold of one's own.
    Value(f64),
}

impl Default for DecisionRule {
    fn default() -> Self {
        DecisionRule::Gap { sigmas: GAP_SIGMAS }
    }
}

impl DecisionRule {
    /// Whether each image gets a threshold of its own.
    pub const fn is_per_image(&self) -> bool {
        matches!(self, DecisionRule::Mebin)
    }

    /// Why an image is defective by this rule, in one sentence.
    pub const fn reason(&self) -> &'static str {
        match self {
            DecisionRule::Gap { .. } => {
                "An image is NG when its raw score is above the widest gap that follows the densest half of the scores, which \
                 normal images make up."
            }
            DecisionRule::ShortestHalf { .. } => {
                "An image is NG when its raw score is more than so many standard deviations above the densest half of the scores, \
                 which normal images make up."
            }
            DecisionRule::Quantile(_) => {
                "An image is NG when its raw score is above this quantile of the scores."
            }
            DecisionRule::Share(_) => {
                "The images with the highest raw scores, this share of them, are NG."
            }
            DecisionRule::F1 => "The threshold is the one with the best F1 against the labels.",
            DecisionRule::Mebin => {
                "Each image has a threshold of its own, because the rule looks at each map alone: it is the end of the longest \
                 stretch of thresholds over which the number of regions stays the same."
            }
            DecisionRule::Value(_) => "The threshold was given.",
        }
    }
}

impl fmt::Display for DecisionRule {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DecisionRule::Gap { sigmas } if *sigmas == GAP_SIGMAS => out.write_str("gap"),
            DecisionRule::Gap { sigmas } => write!(out, "gap:{sigmas}"),
            DecisionRule::ShortestHalf { sigmas } if *sigmas == SIGMAS => {
                out.write_str("shortest-half")
            }
            DecisionRule::ShortestHalf { sigmas } => write!(out, "shortest-half:{sigmas}"),
            DecisionRule::Quantile(quantile) => write!(out, "quantile:{quantile}"),
            DecisionRule::Share(share) => write!(out, "share:{share}"),
            DecisionRule::F1 => out.write_str("f1"),
            DecisionRule::Mebin => out.write_str("mebin"),
            DecisionRule::Value(value) => write!(out, "{value}"),
        }
    }
}

impl FromStr for DecisionRule {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = |expected: &str| Err(Error::invalid("decision rule", text, expected));
        let (name, number) = match text.split_once(':') {
            Some((name, number)) => (name, Some(number.trim().parse::<f64>().ok())),
            None => (text, None),
        };
        let share = |number: Option<f64>| number.filter(|number| (0.0..=1.0).contains(number));
        match (name.trim(), number) {
            ("gap", None) => Ok(DecisionRule::Gap { sigmas: GAP_SIGMAS }),
            ("gap", Some(sigmas)) => match sigmas {
                Some(sigmas) if sigmas.is_finite() && sigmas >= 1.0 => {
                    Ok(DecisionRule::Gap { sigmas })
                }
                _ => wrong("gap:SIGMAS with a number of at least 1"),
            },
            ("shortest-half", None) => Ok(DecisionRule::ShortestHalf { sigmas: SIGMAS }),
            ("shortest-half", Some(sigmas)) => match sigmas {
                Some(sigmas) if sigmas.is_finite() && sigmas >= 0.0 => {
                    Ok(DecisionRule::ShortestHalf { sigmas })
                }
                _ => wrong("shortest-half:SIGMAS with a number of at least 0"),
            },
            ("quantile", Some(number)) => match share(number) {
                Some(quantile) => Ok(DecisionRule::Quantile(quantile)),
                None => wrong("quantile:Q with Q from 0 to 1"),
            },
            ("share", Some(number)) => match share(number) {
                Some(share) => Ok(DecisionRule::Share(share)),
                None => wrong("share:P with P from 0 to 1"),
            },
            ("f1", None) => Ok(DecisionRule::F1),
            ("mebin", None) => Ok(DecisionRule::Mebin),
            (value, None) => match value.parse::<f64>() {
                Ok(value) if value.is_finite() => Ok(DecisionRule::Value(value)),
                _ => wrong(ALL),
            },
            _ => wrong(ALL),
        }
    }
}

/// The threshold of a rule: an image is defective when its raw score is above it.
///
/// `labels` has one an image; only [`DecisionRule::F1`] reads them.
///
/// # Errors
/// [`Error::Invalid`] for [`DecisionRule::Mebin`], for no scores, a score that is not finite, a rule's number out of its range, and for F1 without a label
/// for each image or without a defective one.
pub fn threshold(rule: DecisionRule, scores: &[f32], labels: &[Option<bool>]) -> Result<f64> {
    if scores.is_empty() {
        return Err(Error::invalid("scores to decide by", 0, "at least 1"));
    }
    if let Some(at) = scores.iter().position(|score| !score.is_finite()) {
        let found = format!("{} of image {at}", scores[at]);
        return Err(Error::invalid("scores to decide by", found, "finite numbers"));
    }
    let mut sorted: Vec<f64> = scores.iter().map(|&score| f64::from(score)).collect();
    sorted.sort_by(f64::total_cmp);
    let part = |what: &str, number: f64| match (0.0..=1.0).contains(&number) {
        true => Ok(number),
        false => Err(Error::invalid(what, number, "a number from 0 to 1")),
    };
    match rule {
        DecisionRule::Gap { sigmas } if sigmas.is_finite() && sigmas >= 1.0 => {
            Ok(middle_of_gap(&sorted, sigmas))
        }
        DecisionRule::Gap { sigmas } => {
            Err(Error::invalid("sigmas of the gap", sigmas, "a number of at least 1"))
        }
        DecisionRule::ShortestHalf { sigmas } if sigmas.is_finite() && sigmas >= 0.0 => {
            let (centre, sigma) = shortest_half(&sorted);
            Ok(centre + sigmas * sigma)
        }
        DecisionRule::ShortestHalf { sigmas } => {
            Err(Error::invalid("sigmas of the shortest half", sigmas, "a number of at least 0"))
        }
        DecisionRule::Quantile(quantile) => {
            let at = part("quantile of the scores", quantile)? * (sorted.len() - 1) as f64;
            let (low, share) = (at.floor() as usize, at.fract());
            let high = sorted[(low + 1).min(sorted.len() - 1)];
            Ok(sorted[low] + share * (high - sorted[low]))
        }
        DecisionRule::Share(share) => {
            let most = part("share of defective images", share)? * sorted.len() as f64;
            Ok(match sorted.len() - most.round() as usize {
                // Every image: below the lowest, by the least that f32 scores differ.
                0 => f64::from((sorted[0] as f32).next_down()),
                normal => sorted[normal - 1],
            })
        }
        DecisionRule::F1 => best_f1(scores, labels),
        DecisionRule::Mebin => {
            let expected = "a rule with one threshold for all; `Inspection::thresholds` has this one's, one an image";
            Err(Error::invalid("decision rule", rule, expected))
        }
        DecisionRule::Value(value) if value.is_finite() => Ok(value),
        DecisionRule::Value(value) => Err(Error::invalid("threshold", value, "a finite number")),
    }
}

/// The mean of the shortest half, and what scatters below it.
fn shortest_half(sorted: &[f64]) -> (f64, f64) {
    let half = sorted.len().div_ceil(2);
    // Of equally short ones the lowest: defects are above.
    let (mut start, mut shortest) = (0, f64::INFINITY);
    for (at, ends) in sorted.windows(half).enumerate() {
        let length = ends[half - 1] - ends[0];
        if length < shortest {
            (start, shortest) = (at, length);
        }
    }
    let centre = sorted[start..start + half].iter().sum::<f64>() / half as f64;
    let (mut squares, mut below) = (0.0, 0u32);
    for score in sorted.iter().take_while(|score| **score <= centre) {
        squares += (score - centre).powi(2);
        below += 1;
    }
    // A mean can round to below all of what it is the mean of: then they are equal.
    let sigma = if below == 0 { 0.0 } else { (squares / f64::from(below)).sqrt() };
    (centre, sigma)
}

fn middle_of_gap(sorted: &[f64], sigmas: f64) -> f64 {
    let (centre, sigma) = shortest_half(sorted);
    let (mut from, end) = (centre + sigma, centre + sigmas * sigma);
    let (mut widest, mut middle) = (-1.0, from);
    let between = sorted.iter().copied().filter(|&score| score > centre + sigma && score < end);
    for score in between.chain([end]) {
        if score - from > widest {
            (widest, middle) = (score - from, from + (score - from) / 2.0);
        }
        from = score;
    }
    middle
}

/// The score below the best cut: what lies above it is called defective.
fn best_f1(scores: &[f32], labels: &[Option<bool>]) -> Result<f64> {
    let expected = format!("{}, one an image", scores.len());
    let known: Option<Vec<bool>> = labels.iter().copied().collect();
    let Some(known) = known.filter(|known| known.len() == scores.len()) else {
        let found = labels.iter().flatten().count();
        return Err(Error::invalid("labels to decide by", found, expected));
    };
    let all = known.iter().filter(|defective| **defective).count();
    if all == 0 {
        return Err(Error::invalid("defective images to decide by", 0, "at least 1"));
    }
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    let (mut best, mut cut, mut hits) = (-1.0, f64::NAN, 0);
    for (rank, &image) in order.iter().enumerate() {
        hits += usize::from(known[image]);
        let next = order.get(rank + 1).map(|&next| scores[next]);
        // Equal scores are on one side.
        if next == Some(scores[image]) {
            continue;
        }
        let f1 = 2.0 * hits as f64 / (rank + 1 + all) as f64;
        if f1 > best {
            (best, cut) = (f1, f64::from(next.unwrap_or(scores[image].next_down())));
        }
    }
    Ok(cut)
}

#[cfg(test)]
#[path = "decision_tests.rs"]
mod tests;
