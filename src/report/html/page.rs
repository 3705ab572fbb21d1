//! The document: every text goes through the template's escaping, but for the style and the script, which are ours.

use std::collections::HashMap;
use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use sha2::{Digest, Sha256};

use super::pictures::heat_colour;
use super::{PAGE_IMAGES, ReportClass, ReportImage, ReportPage, check};
use crate::Result;
use crate::metrics::ClassMetrics;
use crate::report::plot::{CurveKind, LEFT, RIGHT, ScorePlot, curve_markup, figure};
use crate::report::scores_csv::ranks;

pub(super) const SCRIPT: &str = include_str!("report.js");
const STYLE: &str = include_str!("report.css");

/// What the page's keys do: the help, and `docs/report.md`.
const KEYS: [(&str, &str); 11] = [
    ("j, k", "next image, previous image"),
    ("← → ↑ ↓", "move among the images, once one is chosen"),
    ("o, n, u", "review: OK, NG, unsure, and on to the next image"),
    ("x", "take the review back"),
    ("Enter, Esc", "large view, and back"),
    ("h", "heat map off and on"),
    ("[ , ]", "heat map fainter, stronger"),
    ("d", "outlines of defects off and on"),
    ("t", "to the threshold; there ← → move it, Home and End go to its ends"),
    ("/", "find by name"),
    ("?", "this help"),
];

/// The whole page.
pub(super) fn document(page: &ReportPage) -> Result<String> {
    check(page)?;
    let scores: Vec<f64> = page.images.iter().map(|image| image.score).collect();
    let mut ranked: Vec<(usize, &ReportImage)> =
        ranks(&scores).into_iter().zip(&page.images).collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    let shown = &ranked[..ranked.len().min(PAGE_IMAGES)];
    let left_out = &ranked[shown.len()..];
    let shapes = Shapes::of(shown.iter().map(|(_, image)| *image));
    let style = format!("{STYLE}{}", shapes.rules);
    let beside = shown.iter().any(|(_, image)| image.picture.is_beside());
    let pictures = if beside { "data: 'self' file:" } else { "data:" };
    let policy = format!(
        "default-src 'none'; img-src {pictures}; style-src 'sha256-{}'; script-src 'sha256-{}'; \
         base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'",
        hash(&style),
        hash(SCRIPT)
    );
    // Checked: every image is of one of the classes.
    let class_of: HashMap<&String, usize> =
        page.classes.iter().enumerate().map(|(at, class)| (&class.name, at)).collect();
    let several = page.classes.len() > 1;
    let markup = html! {
        (DOCTYPE)
        html lang="en" data-id=(identity(page)) {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(policy);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="referrer" content="no-referrer";
                meta name="color-scheme" content="light dark";
                link rel="icon" href="data:,";
                title { (visible(&page.title)) " – musc report" }
                style { (PreEscaped(&style)) }
            }
            body {
                a.skip href="#images" { "Skip to the images" }
                (bar(page, several))
                main {
                    div.top.single[!several] {
                    (plots(page, left_out))
                    @if page.classes.iter().any(|class| class.figures.is_some()) { (figures(page)) }
                    }
                    section #images aria-label="Images, worst first" tabindex="-1" {
                        @for (rank, image) in shown { (card(*rank, image, class_of[&image.class], several, &shapes)) }
                    }
                    p #nothing hidden { "No image is left by these filters." }
                    @if !left_out.is_empty() {
                        p.note { "The " (shown.len()) " images with the highest scores are on this page; the other "
                            (left_out.len()) " count in the histogram and stand in scores.csv." }
                    }
                    (about(page))
                }
                (large_view())
                (help())
                script { (PreEscaped(SCRIPT)) }
            }
        }
    };
    Ok(markup.into_string())
}

/// The line that stays in sight: what came out, and what is shown.
fn bar(page: &ReportPage, several: bool) -> Markup {
    let ng = page.images.iter().filter(|image| image.is_defective()).count();
    html! {
        header.bar {
            div.row {
                h1 title=(visible(&page.title)) { bdi { (visible(&page.title)) } }
                p.counts role="status" aria-live="polite" {
                    span.badge.ng { b #ng-count { (ng) } " NG" }
                    span.badge.ok { b #ok-count { (page.images.len() - ng) } " OK" }
                    span #truth-count {}
                    span #review-count {}
                }
                div.actions {
                    button #save type="button" { "Save review.csv" }
                    button #help-open type="button" aria-label="Help: keys" title="Keys (?)" { "?" }
                }
            }
            div.row {
                div.group role="group" aria-label="Show" {
                    @for (name, text) in [
                        ("all", "All"), ("ng", "NG"), ("ok", "OK"), ("unsure", "Unsure"), ("open", "Not reviewed"),
                        ("odd", "Disagree"),
                    ] {
                        button type="button" data-filter=(name) aria-pressed=(name == "all") { (text) }
                    }
                }
                @if several {
                    select #class aria-label="Class" {
                        option value="" { "All classes" }
                        @for (at, class) in page.classes.iter().enumerate() {
                            option value=(at) { (visible(&class.name)) }
                        }
                    }
                }
                input #find type="search" placeholder="Find by name" aria-label="Find images by name";
                select #sort aria-label="Order of the images" {
                    option value="rank" { "Worst first, by score" }
                    option value="raw" { "Worst first, by raw score" }
                    option value="name" { "By name" }
                }
                label.opacity { "Heat map"
                    input #heat type="range" min="0" max="100" value="70" aria-label="Opacity of the heat maps";
                }
                output #seen aria-live="polite" {}
            }
        }
    }
}

/// The histogram of each class, with the handle of its threshold.
fn plots(page: &ReportPage, left_out: &[(usize, &ReportImage)]) -> Markup {
    html! {
        section.plots aria-label="Scores and thresholds" {
            @for (number, class) in page.classes.iter().enumerate() {
                (plot(page, class, number, left_out))
            }
        }
    }
}

fn plot(
    page: &ReportPage,
    class: &ReportClass,
    number: usize,
    left_out: &[(usize, &ReportImage)],
) -> Markup {
    let of_class: Vec<&ReportImage> =
        page.images.iter().filter(|image| image.class == class.name).collect();
    // Where each image has its own threshold the handle starts in their middle.
    let mut own: Vec<f64> = of_class.iter().map(|image| image.threshold).collect();
    own.sort_by(f64::total_cmp);
    let at = class.threshold.unwrap_or(own[own.len() / 2]);
    let scores = of_class.iter().map(|image| image.raw_score).collect();
    let labels = of_class.iter().map(|image| image.label).collect();
    let plot = ScorePlot { scores, labels, threshold: Some(at) };
    let name = visible(&class.name);
    let rest: Vec<String> = left_out
        .iter()
        .filter(|(_, image)| image.class == class.name)
        .map(|(_, image)| {
            format!("{} {}", f64::from(image.raw_score), u8::from(image.is_defective()))
        })
        .collect();
    let (low, high) = plot.axis();
    let place = |value: f32| {
        LEFT + ((f64::from(value) - low) / (high - low)).clamp(0.0, 1.0) * (RIGHT - LEFT)
    };
    let (start, end) = (place(class.scale.0), place(class.scale.1));
    let handle = html! {
        linearGradient id={ "heat-" (number) } {
            @for step in 0..=10u8 {
                @let [red, green, blue, alpha] = heat_colour(f32::from(step) / 10.0);
                stop offset={ (step * 10) "%" } stop-color={ "rgb(" (red) "," (green) "," (blue) ")" }
                    stop-opacity=(format!("{:.2}", f32::from(alpha) / 255.0)) {}
            }
        }
        rect x=(start) y="178" width=((end - start).max(1.0)) height="5" fill={ "url(#heat-" (number) ")" } {}
        g.threshold tabindex="0" role="slider" aria-label={ "Threshold of " (name) } aria-orientation="horizontal"
            aria-valuemin=(low) aria-valuemax=(high) aria-valuenow=(at) aria-valuetext=(figure(at)) {
            rect.grip x="-12" y="0" width="24" height="162" {}
            path.line d="M0 12V158" {}
            path.knob d="M-6 2h12v8l-6 6-6-6z" {}
        }
    };
    html! {
        figure.histogram data-class=(number) data-threshold=[class.threshold] data-at=(at) data-rest=(rest.join(" ")) {
            figcaption {
                h2 { @if page.classes.len() > 1 { bdi { (name) } } @else { "Scores" } }
                span { "threshold "
                    input.value type="number" step="any" value=(format!("{at:.4}")) aria-label={ "Threshold of " (name) ", as a number" };
                    @if class.threshold.is_none() { span.own { " each image has its own until this is moved" } }
                }
                span.rule { "from " (visible(&class.rule)) }
                button.reset type="button" hidden aria-label={ "Back to the run’s threshold of " (name) } { "Reset" }
                span.above {}
            }
            (plot.markup(&format!("Raw scores of {name}"), number, &handle, false))
        }
    }
}

/// Figures and curves, where there are labels.
fn figures(page: &ReportPage) -> Markup {
    let percent = |figure: Option<f64>| {
        figure.map_or_else(|| "n/a".into(), |figure| format!("{:.1}", figure * 100.0))
    };
    let row = |metrics: &ClassMetrics| {
        let (image, pixel) = (&metrics.image, &metrics.pixel);
        [
            image.auroc,
            metrics.image_auroc_raw,
            image.f1_max,
            image.ap,
            pixel.auroc,
            pixel.f1_max,
            pixel.ap,
            pixel.aupro,
        ]
        .map(percent)
    };
    let known: Vec<&ClassMetrics> =
        page.classes.iter().filter_map(|class| class.figures.as_ref()).collect();
    let pixels = known.iter().any(|metrics| metrics.pixel.auroc.is_some());
    let columns = if pixels { 8 } else { 4 };
    let heads = ["AUROC", "raw", "F1-max", "AP", "pixel AUROC", "F1-max", "AP", "AUPRO"];
    html! {
        details.figures open {
            summary { h2 { "Figures against the labels, %" } }
            div.side {
                div.scroll {
                    table {
                        thead { tr { th scope="col" { "class" } @for head in &heads[..columns] { th scope="col" { (head) } } } }
                        tbody {
                            @for metrics in known {
                                tr { th scope="row" { (visible(&metrics.class)) }
                                    @for cell in &row(metrics)[..columns] { td { (cell) } } }
                            }
                        }
                    }
                    p.faint { "“raw” and the dashed curves: before re-scoring (RsCIN)." }
                }
                @for (number, class) in page.classes.iter().enumerate() {
                    @if let Some(curves) = &class.curves {
                        @let name = visible(&class.name);
                        @let raw = class.raw_curves.as_ref();
                        @for (kind, text) in [(CurveKind::Roc, "ROC"), (CurveKind::PrecisionRecall, "Precision and recall")] {
                            figure.curve-of data-class=(number) {
                                (curve_markup(&format!("{text} of {name}"), kind, curves, raw, false))
                                figcaption { (text) @if page.classes.len() > 1 { ", " bdi { (name) } } }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// An image with its heat map, its outlines, its scores and its review.
fn card(rank: usize, image: &ReportImage, class: usize, several: bool, shapes: &Shapes) -> Markup {
    let path = image.path.to_string_lossy();
    let name = visible(&image.path.file_name().unwrap_or_default().to_string_lossy());
    let parent = image.path.parent().and_then(|parent| parent.file_name());
    let folder = visible(&parent.unwrap_or_default().to_string_lossy());
    let defective = image.is_defective();
    let word = if defective { "NG" } else { "OK" };
    let label = image.label.map(|defective| if defective { "defective" } else { "normal" });
    html! {
        article.card.ng[defective] tabindex="-1" data-rank=(rank) data-raw=(f64::from(image.raw_score)) data-score=(image.score)
            data-threshold=(image.threshold) data-class=(class) data-label=[image.label.map(u8::from)]
            // JSON, because an attribute would not keep a carriage return.
            data-path=(serde_json::json!(path)) data-size={ (image.file_size.0) " × " (image.file_size.1) }
            aria-label={ (name) ", " (word) } {
            div.frame {
                div class={ "stack " (shapes.class_of(image)) } {
                    @if image.picture.source.is_empty() { span.none { "no picture" } } @else {
                        img.picture src=(image.picture.source) alt={ "Image " (name) } loading="lazy" decoding="async"
                            width=(image.shown.width) height=(image.shown.height);
                        img.heat src=(image.heat.source) alt="" loading="lazy" decoding="async";
                    }
                    @if !image.regions.is_empty() {
                        svg.outlines viewBox="0 0 1 1" preserveAspectRatio="none" aria-hidden="true" {
                            @for region in &image.regions { polygon points=(points(region)) {} }
                        }
                    }
                }
            }
            div.caption {
                span.badge.decision { (word) }
                span.name title=(visible(&path)) {
                    @if several && image.class != folder { bdi.where { (visible(&image.class)) " · " } }
                    @if !folder.is_empty() { bdi.where { (folder) "/" } }
                    bdi.file { (name) }
                }
                span.rank title="Rank by score" { "#" (rank) }
            }
            div.caption {
                span.numbers { b title="Score" { (figure(image.score)) } " · raw " (figure(f64::from(image.raw_score))) }
                @if let Some(label) = label { span.label title="Label" { (label) } }
            }
            div.review role="group" aria-label={ "Review of " (name) } {
                @for (value, text) in [("OK", "OK"), ("NG", "NG"), ("unsure", "?")] {
                    button type="button" data-review=(value) aria-pressed="false" tabindex="-1"
                        aria-label={ "Review as " (value) } title={ "Review as " (value) } { (text) }
                }
            }
        }
    }
}

/// The points of a polygon, as shares of the picture.
fn points(region: &[[f32; 2]]) -> String {
    let mut text = String::new();
    for [x, y] in region {
        let inside = |value: f32| if value.is_finite() { value.clamp(0.0, 1.0) } else { 0.0 };
        let _ = write!(text, "{:.4},{:.4} ", inside(*x), inside(*y));
    }
    text.trim_end().to_string()
}

fn about(page: &ReportPage) -> Markup {
    html! {
        section.about aria-label="About this run" {
            @if !page.notes.is_empty() {
                h2 { "Notes" }
                ul { @for note in &page.notes { li { (visible(note)) } } }
            }
            @if !page.settings.is_empty() {
                details {
                    summary { h2 { "Settings" } }
                    table.settings {
                        @for (name, value) in &page.settings {
                            tr { th scope="row" { (visible(name)) } td { (visible(value)) } }
                        }
                    }
                }
            }
            p.faint { (visible(&page.made_by)) }
        }
    }
}

fn large_view() -> Markup {
    html! {
        dialog #large aria-label="Large view" {
            div.row {
                span.badge.decision {}
                strong #large-name {}
                span #large-facts.faint {}
                span.spring {}
                div.review role="group" aria-label="Review of this image" {
                    @for value in ["OK", "NG", "unsure"] {
                        button type="button" data-review=(value) aria-pressed="false" { (value) }
                    }
                }
                button #before type="button" aria-label="Previous image" { "‹" }
                button #after type="button" aria-label="Next image" { "›" }
                button #large-close type="button" autofocus { "Close" }
            }
            div #large-frame {}
        }
    }
}

fn help() -> Markup {
    html! {
        dialog #help aria-labelledby="help-title" {
            h2 #help-title { "Keys" }
            table { @for (keys, text) in KEYS { tr { th scope="row" { kbd { (keys) } } td { (text) } } } }
            p { "A review stays in this browser; “Save review.csv” takes it out, and " code { "musc-run PATH --labels review.csv" }
                " reads it back. The threshold is tried out here alone: " code { "--decide VALUE" } " sets it for a run." }
            button #help-close type="button" { "Close" }
        }
    }
}

/// Proportions of the pictures, as rules of the style sheet: attributes with style are what the policy forbids.
struct Shapes {
    rules: String,
    numbers: HashMap<(usize, usize), usize>,
}

impl Shapes {
    fn of<'a>(images: impl Iterator<Item = &'a ReportImage>) -> Self {
        let mut numbers = HashMap::new();
        let mut sizes = Vec::new();
        for image in images {
            let size = (image.shown.width.max(1), image.shown.height.max(1));
            numbers.entry(size).or_insert_with(|| {
                sizes.push(size);
                sizes.len() - 1
            });
        }
        // Images of one shape leave no room beside them; others lie in a square.
        let frame = if let [one] = sizes[..] { one } else { (1, 1) };
        let mut rules = format!(".frame{{aspect-ratio:{}/{}}}", frame.0, frame.1);
        for (number, (width, height)) in sizes.iter().enumerate() {
            let side = if width * frame.1 >= height * frame.0 { "width" } else { "height" };
            let _ = write!(rules, ".s{number}{{aspect-ratio:{width}/{height};{side}:100%}}");
        }
        Shapes { rules, numbers }
    }

    fn class_of(&self, image: &ReportImage) -> String {
        let size = (image.shown.width.max(1), image.shown.height.max(1));
        self.numbers.get(&size).map_or_else(String::new, |number| format!("s{number}"))
    }
}

/// Text as it may be shown: letters that cannot be seen, or that turn the direction of what follows, are replaced.
fn visible(text: &str) -> String {
    let hidden = |letter: char| {
        letter.is_control()
            || matches!(letter, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
    };
    text.chars().map(|letter| if hidden(letter) { '\u{fffd}' } else { letter }).collect()
}

/// By what a browser keeps the review of this page: the same run gives the same page, another another.
fn identity(page: &ReportPage) -> String {
    let mut hash = Sha256::new();
    hash.update(page.title.as_bytes());
    for image in &page.images {
        hash.update(image.path.as_os_str().as_encoded_bytes());
        hash.update([0]);
        hash.update(image.raw_score.to_bits().to_le_bytes());
    }
    hash.finalize()[..12].iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn hash(text: &str) -> String {
    STANDARD.encode(Sha256::digest(text.as_bytes()))
}
