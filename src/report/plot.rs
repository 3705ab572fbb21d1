//! Plots as SVG: the scores of a batch with their threshold, and the curves of its figures. The same drawings stand in
//! `report.html` and in files of their own.

use std::path::Path;

use maud::{Markup, PreEscaped, html};

use crate::atomic::write_file;
use crate::metrics::ImageCurves;
use crate::{Error, Result};

/// Size of the histogram, in the units of its drawing.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 214.0;
/// The part of it that holds the bars.
pub(super) const LEFT: f64 = 40.0;
pub(super) const RIGHT: f64 = 708.0;
const TOP: f64 = 26.0;
const BOTTOM: f64 = 158.0;
/// Where each image has its mark.
const MARKS: (f64, f64) = (165.0, 173.0);
/// Above so many images there are no single marks: they would be one band.
const MOST_MARKS: usize = 5000;
/// The lowest bar that is seen at all.
const LEAST_BAR: f64 = 2.5;
/// Side of a curve's drawing, and the part that holds the curve.
const SIDE: f64 = 220.0;
const INSIDE: (f64, f64) = (34.0, 206.0);
/// Points of a curve nearer to each other than this share of the axis are drawn as one.
const NEAR: f64 = 1.0 / 800.0;

/// Colours of a plot in a file of its own; in a page the page's style sheet says more.
const STYLE: &str = ":root{color-scheme:light dark}svg{background:#fff;color:#1f2328;\
font:12px system-ui,sans-serif}text{fill:currentColor}.faint{fill:#656d76}.axis{stroke:#8c959f;fill:none}\
.grid{stroke:#8c959f;stroke-opacity:.3;fill:none}.ok{fill:#8aa0b8}.ng{fill:#cf3a4c}.mark{stroke-width:1.2;stroke-opacity:.75}\
.of-normal{stroke:#2f7d5b}.of-defective{stroke:#cf3a4c}.of-unknown{stroke:#8c959f}.line{stroke:#1f2328;stroke-width:1.5}\
.curve{fill:none;stroke:#2563a8;stroke-width:2}.raw{stroke:#8a5a00;stroke-width:1.4;stroke-dasharray:4 3}\
@media(prefers-color-scheme:dark){svg{background:#16191d;color:#e6e8eb}.faint{fill:#9aa4af}.line{stroke:#e6e8eb}\
.curve{stroke:#6cabf0}.raw{stroke:#e0b050}.of-normal{stroke:#58c596}}";

/// The raw scores of a batch, to be drawn with their threshold.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ScorePlot {
    /// Raw scores, one an image.
    pub scores: Vec<f32>,
    /// What is known of each image: defective, normal, or nothing.
    pub labels: Vec<Option<bool>>,
    /// The threshold that all images share; nothing where each has its own.
    pub threshold: Option<f64>,
}

impl ScorePlot {
    /// A plot of these scores.
    ///
    /// # Errors
    /// [`Error::Invalid`] for another number of labels than scores, for none, or for one that is not finite.
    pub fn new(
        scores: Vec<f32>,
        labels: Vec<Option<bool>>,
        threshold: Option<f64>,
    ) -> Result<Self> {
        if scores.is_empty() || scores.len() != labels.len() {
            let found = format!("{} with {} labels", scores.len(), labels.len());
            return Err(Error::invalid("scores to draw", found, "at least 1, a label each"));
        }
        if let Some(at) = scores.iter().position(|score| !score.is_finite()) {
            let found = format!("{} of image {at}", scores[at]);
            return Err(Error::invalid("scores to draw", found, "finite numbers"));
        }
        Ok(ScorePlot { scores, labels, threshold: threshold.filter(|value| value.is_finite()) })
    }

    /// The ends of the axis: those of the scores with some room, and the threshold where it is not far from them.
    pub(super) fn axis(&self) -> (f64, f64) {
        let ends = |(low, high): (f64, f64), value: f64| (low.min(value), high.max(value));
        let scores = self.scores.iter().map(|&score| f64::from(score));
        let (low, high) = scores.fold((f64::INFINITY, f64::NEG_INFINITY), ends);
        let width = (high - low).max(low.abs().max(high.abs()) * 1e-3).max(1e-6);
        let near = |value: &f64| (low - width / 2.0..=high + width / 2.0).contains(value);
        let (low, high) = self.threshold.filter(near).into_iter().fold((low, high), ends);
        let room = (high - low).max(width) * 0.03;
        (low - room, high + room)
    }

    /// Where a score lies across the drawing; outside the axis at its end.
    fn across(&self, value: f64) -> f64 {
        let (low, high) = self.axis();
        LEFT + ((value - low) / (high - low)).clamp(0.0, 1.0) * (RIGHT - LEFT)
    }

    /// Images in each of the equal parts of the axis.
    fn bins(&self) -> Vec<usize> {
        let count = (2.0 * (self.scores.len() as f64).sqrt()).clamp(16.0, 64.0) as usize;
        let (low, high) = self.axis();
        let mut bins = vec![0; count];
        for &score in &self.scores {
            let at = (f64::from(score) - low) / (high - low) * count as f64;
            bins[(at as usize).min(count - 1)] += 1;
        }
        bins
    }

    /// The drawing. `number` tells the drawings of one page apart; `handle` is drawn at the threshold.
    pub(super) fn markup(
        &self,
        title: &str,
        number: usize,
        handle: &Markup,
        style: bool,
    ) -> Markup {
        let (low, high) = self.axis();
        let bins = self.bins();
        let most = bins.iter().copied().max().unwrap_or(0).max(1);
        let step = (RIGHT - LEFT) / bins.len() as f64;
        let height = |count: usize| {
            (count as f64 / most as f64 * (BOTTOM - TOP)).clamp(LEAST_BAR, BOTTOM - TOP)
        };
        let bars = html! {
            @for (at, &count) in bins.iter().enumerate().filter(|(_, count)| **count > 0) {
                rect x=(short(LEFT + at as f64 * step + 0.5)) y=(short(BOTTOM - height(count)))
                    width=(short(step - 1.0)) height=(short(height(count))) {}
            }
        };
        let cut = self.threshold.map_or(RIGHT, |threshold| self.across(threshold));
        let (ok, ng) = (format!("ok-{number}"), format!("ng-{number}"));
        html! {
            svg xmlns="http://www.w3.org/2000/svg" viewBox={ "0 0 " (WIDTH) " " (HEIGHT) }
                class="plot scores" data-low=(low) data-high=(high) data-left=(LEFT) data-right=(RIGHT) {
                title { (title) }
                @if style { style { (PreEscaped(STYLE)) } }
                clipPath id=(ok) { rect.cut-ok x="0" y="0" width=(short(cut)) height=(HEIGHT) {} }
                clipPath id=(ng) { rect.cut-ng x=(short(cut)) y="0" width=(WIDTH) height=(HEIGHT) {} }
                (level_lines(most))
                g.ok clip-path={ "url(#" (ok) ")" } { (bars) }
                g.ng clip-path={ "url(#" (ng) ")" } { (bars) }
                path.axis d={ "M" (LEFT) " " (BOTTOM + 0.5) "H" (RIGHT) } {}
                (self.marks())
                @for value in round_values(low, high, 8) {
                    text.faint x=(short(self.across(value.0))) y="196" text-anchor="middle" { (value.1) }
                }
                text.faint x=(RIGHT) y="210" text-anchor="end" { "raw score, the largest value of the image’s map" }
                @if self.threshold.is_some() { (handle) }
            }
        }
    }

    /// A mark for each image, by what is known of it.
    fn marks(&self) -> Markup {
        let mut paths = [String::new(), String::new(), String::new()];
        if self.scores.len() <= MOST_MARKS {
            for (&score, label) in self.scores.iter().zip(&self.labels) {
                let path = &mut paths[label.map_or(0, |defective| 1 + usize::from(defective))];
                path.push_str(&format!("M{} {}", short(self.across(f64::from(score))), MARKS.0));
                path.push_str(&format!("V{}", MARKS.1));
            }
        }
        let classes = ["mark of-unknown", "mark of-normal", "mark of-defective"];
        html! {
            @for (path, class) in paths.iter().zip(classes).filter(|(path, _)| !path.is_empty()) {
                path class=(class) d=(path) {}
            }
        }
    }
}

/// The heights of one, two or three round counts.
fn level_lines(most: usize) -> Markup {
    html! {
        @for (value, text) in round_values(0.0, most as f64, 3).into_iter().filter(|(value, _)| value.fract() == 0.0) {
            @let y = BOTTOM - value / most as f64 * (BOTTOM - TOP);
            @if value > 0.0 { path.grid d={ "M" (LEFT) " " (short(y)) "H" (RIGHT) } {} }
            text.faint x=(LEFT - 6.0) y=(short(y + 4.0)) text-anchor="end" { (text) }
        }
    }
}

/// The histogram as a file: bars below the threshold in one colour, those above it in another, the images' labels as marks.
///
/// # Errors
/// [`Error::Io`] with the path.
pub fn write_scores_svg(path: &Path, title: &str, plot: &ScorePlot) -> Result<()> {
    let at = plot.threshold.map_or(RIGHT, |threshold| plot.across(threshold));
    let (anchor, aside) = if at > WIDTH * 0.8 { ("end", -6.0) } else { ("start", 6.0) };
    let above = |threshold| plot.scores.iter().filter(|s| f64::from(**s) > threshold).count();
    let handle = html! {
        @if let Some(threshold) = plot.threshold {
            path.line d={ "M" (short(at)) " " (TOP - 14.0) "V" (BOTTOM) } {}
            text x=(short(at + aside)) y=(TOP - 6.0) text-anchor=(anchor) {
                "threshold " (figure(threshold)) ": " (above(threshold)) " of " (plot.scores.len()) " NG"
            }
        }
    };
    write(path, &plot.markup(&for_xml(title), 0, &handle, true))
}

/// Which curve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CurveKind {
    /// True positive rate over false positive rate.
    Roc,
    /// Precision over recall, as the steps whose area is the average precision.
    PrecisionRecall,
}

/// Curves as a file: that of the scores, and dashed that of the raw scores.
///
/// # Errors
/// [`Error::Io`] with the path.
pub fn write_curve_svg(
    path: &Path,
    title: &str,
    kind: CurveKind,
    scores: &ImageCurves,
    raw: Option<&ImageCurves>,
) -> Result<()> {
    write(path, &curve_markup(&for_xml(title), kind, scores, raw, true))
}

/// The drawing of a curve.
pub(super) fn curve_markup(
    title: &str,
    kind: CurveKind,
    scores: &ImageCurves,
    raw: Option<&ImageCurves>,
    style: bool,
) -> Markup {
    let (start, end) = INSIDE;
    let place = |value: f64| short(start + value * (end - start));
    let up = |value: f64| short(SIDE - end + (1.0 - value) * (end - start));
    let (across, upwards) = match kind {
        CurveKind::Roc => ("false alarms", "defects found"),
        CurveKind::PrecisionRecall => ("recall", "precision"),
    };
    let drawn = |curves: &ImageCurves| -> String {
        let mut path = String::new();
        match kind {
            CurveKind::Roc => {
                for (at, (x, y)) in thinned(&curves.roc).into_iter().enumerate() {
                    path.push_str(&format!(
                        "{}{} {}",
                        if at == 0 { "M" } else { "L" },
                        place(x),
                        up(y)
                    ));
                }
            }
            CurveKind::PrecisionRecall => {
                for (at, (x, y)) in thinned(&curves.precision_recall).into_iter().enumerate() {
                    path.push_str(&match at {
                        0 => format!("M{} {}H{}", place(0.0), up(y), place(x)),
                        _ => format!("V{}H{}", up(y), place(x)),
                    });
                }
            }
        }
        path
    };
    html! {
        svg xmlns="http://www.w3.org/2000/svg" viewBox={ "0 0 " (SIDE) " " (SIDE) } class="plot curve-plot" {
            title { (title) }
            @if style { style { (PreEscaped(STYLE)) } }
            @for value in [0.0, 0.25, 0.5, 0.75, 1.0] {
                path.grid d={ "M" (start) " " (up(value)) "H" (end) "M" (place(value)) " " (up(0.0)) "V" (up(1.0)) } {}
            }
            @if kind == CurveKind::Roc {
                path.grid d={ "M" (place(0.0)) " " (up(0.0)) "L" (place(1.0)) " " (up(1.0)) } {}
            }
            path.axis d={ "M" (start) " " (up(1.0)) "V" (up(0.0)) "H" (end) } {}
            @if let Some(raw) = raw { path.curve.raw d=(drawn(raw)) {} }
            path.curve d=(drawn(scores)) {}
            @for value in ["0", "0.5", "1"] {
                @let number: f64 = value.parse().unwrap_or_default();
                text.faint x=(place(number)) y=(short(SIDE - end + (end - start) + 15.0)) text-anchor="middle" { (value) }
                text.faint x=(start - 5.0) y=(short(SIDE - end + (1.0 - number) * (end - start) + 4.0)) text-anchor="end" { (value) }
            }
            text.faint x=(place(0.5)) y=(short(SIDE - end + (end - start) + 30.0)) text-anchor="middle" { (across) }
            text.faint x=(start + 4.0) y=(short(SIDE - end - 3.0)) { (upwards) }
        }
    }
}

/// The points without those that lie on the one before.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut kept: Vec<(f64, f64)> = Vec::new();
    for (at, &point) in points.iter().enumerate() {
        let near = kept
            .last()
            .is_some_and(|last| (last.0 - point.0).abs() < NEAR && (last.1 - point.1).abs() < NEAR);
        if !near || at + 1 == points.len() {
            kept.push(point);
        }
    }
    kept
}

/// Round values within an axis, about so many, with their text.
fn round_values(low: f64, high: f64, about: usize) -> Vec<(f64, String)> {
    let rough = (high - low) / about.max(1) as f64;
    if !(rough.is_finite() && rough > 0.0) {
        return Vec::new();
    }
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
    let step = step.into_iter().find(|step| *step >= rough).unwrap_or(rough);
    let decimals = (-step.log10()).ceil().clamp(0.0, 9.0) as usize;
    let first = (low / step).ceil();
    (0..)
        .map(|at| (first + f64::from(at)) * step)
        .take_while(|value| *value <= high)
        .take(4 * about)
        .map(|value| (value, format!("{value:.decimals$}")))
        .collect()
}

/// A score for people: four decimals, or three digits where those would say little.
pub(super) fn figure(value: f64) -> String {
    if value != 0.0 && (value.abs() < 0.01 || value.abs() >= 1e4) {
        format!("{value:.2e}")
    } else {
        format!("{value:.4}")
    }
}

/// A coordinate with as many digits as can be seen.
fn short(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

/// Text without what XML has no way to hold.
fn for_xml(text: &str) -> String {
    let held = |letter: char| matches!(letter, '\t' | '\n' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..);
    text.chars().map(|letter| if held(letter) { letter } else { '\u{fffd}' }).collect()
}

fn write(path: &Path, markup: &Markup) -> Result<()> {
    write_file(path, |writer| {
        writer.write_all(markup.0.as_bytes())?;
        writer.write_all(b"\n")
    })
}

#[cfg(test)]
#[path = "plot_tests.rs"]
mod tests;
