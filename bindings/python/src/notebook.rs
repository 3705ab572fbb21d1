//! An inspection as a notebook shows it: the worst images first, under their maps, in one piece of HTML.

use std::path::Path;

use maud::{PreEscaped, html};
use musc::image::{Filter, Resize, RgbImage};
use musc::inspect::{Batch, Inspection};
use musc::progress::go_on;
use musc::report::html::ReportPictures;
use musc::report::ranks;
use musc::{Error, ImageSize, Progress, Result};

use crate::inspection::Decided;

/// Images that are shown.
const SHOWN: usize = 20;
/// The longest side of a picture: more than it is shown at, for fine screens, and not much, because a notebook keeps it.
const SIDE: usize = 160;

/// Where the pictures of an inspection come from.
#[derive(Debug)]
pub enum Pictures {
    /// Files are read again when they are shown.
    Files(Batch),
    /// Of arrays, which may have changed by then, the worst are kept small.
    Frames(Vec<(usize, RgbImage)>),
}

impl Pictures {
    /// Of a batch that was inspected.
    pub fn of(batch: Batch, of_files: bool, inspection: &Inspection) -> Result<Self> {
        if of_files {
            return Ok(Pictures::Files(batch));
        }
        let small = |at: usize| Ok((at, small(&batch, inspection, at)?));
        worst(inspection).into_iter().map(small).collect::<Result<_>>().map(Pictures::Frames)
    }

    /// Whether the images are files.
    pub fn are_files(&self) -> bool {
        matches!(self, Pictures::Files(_))
    }

    /// The picture of an image; an even grey where its file is not there any more.
    fn picture(&self, inspection: &Inspection, at: usize) -> Result<RgbImage> {
        let known = match self {
            Pictures::Files(batch) => small(batch, inspection, at).ok(),
            Pictures::Frames(kept) => {
                kept.iter().find(|(image, _)| *image == at).map(|(_, picture)| picture.clone())
            }
        };
        let ImageSize { height, width } = shown_size(inspection, at)?;
        known.map_or_else(|| RgbImage::new(width, height, vec![224; width * height * 3]), Ok)
    }
}

/// The images with the highest scores, the highest first.
fn worst(inspection: &Inspection) -> Vec<usize> {
    let rank = ranks(inspection.scores());
    let mut order: Vec<usize> = (0..rank.len()).collect();
    order.sort_by_key(|&at| rank[at]);
    order.truncate(SHOWN);
    order
}

fn small(batch: &Batch, inspection: &Inspection, at: usize) -> Result<RgbImage> {
    let place = inspection.kept().get(at).copied();
    let place = place.ok_or_else(|| Error::invalid("image", at, "one that was scored"))?;
    batch.image(place, &Resize::new(shown_size(inspection, at)?, Filter::Bilinear))
}

/// A picture's size: the image's proportions.
fn shown_size(inspection: &Inspection, at: usize) -> Result<ImageSize> {
    let own = inspection.image_size(at)?;
    let longest = own.height.max(own.width).max(1);
    let scaled = |side: usize| (side * SIDE.min(longest) / longest).max(1);
    Ok(ImageSize::new(scaled(own.height), scaled(own.width)))
}

/// The whole as HTML, styles beside each element: notebooks drop style sheets.
pub fn page(decided: &Decided, progress: &dyn Progress) -> Result<String> {
    let inspection = &*decided.inspection;
    let count = inspection.len();
    let defective = (0..count).filter(|&at| decided.is_defective(at)).count();
    let maker = ReportPictures::new(Path::new("inspection"), 1);
    let mut cards = Vec::new();
    for at in worst(inspection) {
        go_on(progress)?;
        let (map, size) = inspection.picture_map(at)?;
        let picture = decided.pictures.picture(inspection, at)?;
        let (picture, heat) = maker.make(at, &picture, &map, size, inspection.heat_scale())?;
        cards.push(card(decided, at, picture.address(), heat.address()));
    }
    let above = decided.threshold.map_or_else(String::new, |above| format!(" above {above:.4}"));
    let shown = if count > cards.len() {
        format!(", the worst {} shown", cards.len())
    } else {
        String::new()
    };
    let page = html! {
        div class="musc-inspection" style="font-family:sans-serif;font-size:13px" {
            p { b { (count) " images, " (defective) " NG" } (above) " (" (decided.rule) ")" (shown) }
            div style="display:flex;flex-wrap:wrap;gap:10px;align-items:flex-end" {
                @for card in &cards { (card) }
            }
            @for note in inspection.notes() { p style="opacity:0.75" { "note: " (note) } }
        }
    };
    Ok(page.into_string())
}

fn card(decided: &Decided, at: usize, picture: &str, heat: &str) -> PreEscaped<String> {
    let inspection = &*decided.inspection;
    let (score, raw) = (inspection.scores()[at], inspection.raw_scores()[at]);
    let name = inspection.samples()[at].path.display().to_string();
    let last = Path::new(&name).file_name().map(|last| last.to_string_lossy().into_owned());
    let (word, colour) =
        if decided.is_defective(at) { ("NG", "#b3261e") } else { ("OK", "#2e6b34") };
    html! {
        figure style="margin:0;width:120px" title=(name) {
            div style="position:relative;line-height:0" {
                img src=(picture) alt=(name) style="width:100%";
                img src=(heat) alt="" style="position:absolute;inset:0;width:100%;height:100%";
            }
            figcaption {
                b style={ "color:" (colour) } { (word) }
                " " (format!("{score:.3}"))
                span style="opacity:0.6" { " (" (format!("{raw:.3}")) ")" }
                div style="overflow:hidden;text-overflow:ellipsis;white-space:nowrap" { (last.as_deref().unwrap_or(&name)) }
            }
        }
    }
}
