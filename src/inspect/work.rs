//! The way of a batch: pixels, features, patch scores, raw scores, RsCIN; a subset at a time.

use std::path::PathBuf;

use rayon::prelude::*;

use super::cache::Cache;
use super::laps::Laps;
use super::maps::{Maps, Scores};
use super::parts::{Joined, Part, PartFiles, Scored};
use super::regions::Marking;
use super::{
    Batch, InputSize, Inspection, Inspector, MANY, Note, Subsets, USUAL_REFERENCES, likeness, tiles,
};
use crate::backend::device::{AnyBackend, AnyFeatures};
use crate::backend::{Backend, Pixels, References};
use crate::dataset::{self, Loaded, check_pixels, divide, load_masks};
use crate::image::{Filter, PixelSource, Resize, common_size, common_size_padded};
use crate::progress::{Stage, go_on};
use crate::scoring::rscin::{RscinOptions, rscin};
use crate::{Error, ImageSize, Progress, Result};

/// Below so many references an image, hard sets lose accuracy.
const ENOUGH_REFERENCES: usize = 64;

/// Opens all files and masks of some batches, see [`Inspector::check`].
pub(super) fn check(batches: &[Batch], progress: &dyn Progress) -> Result<()> {
    let mut all_bad = Vec::new();
    for batch in batches.iter().filter(|batch| !batch.in_memory()) {
        match check_pixels(batch.samples(), batch.skips_bad(), progress) {
            Ok(read) => {
                let kept = batch.some(&read.kept);
                let one = ImageSize::square(1);
                load_masks(&kept, &read.sizes, one, batch.mask_rule(), progress)?;
                let whole = Resize::new(one, Filter::Bilinear);
                marking(batch, &whole, 1).left_out(&read.kept, &read.sizes, true, progress)?;
            }
            Err(Error::BadImages { bad }) => all_bad.extend(bad),
            Err(other) => return Err(other),
        }
    }
    if all_bad.is_empty() { Ok(()) } else { Err(Error::BadImages { bad: all_bad }) }
}

/// How a batch is dealt out: which images are scored together.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The size at which the images, or their tiles, go through the backbone.
    pub(super) input: ImageSize,
    /// Places in the batch, each part rising.
    pub(super) parts: Vec<Vec<usize>>,
    /// Files that are known to be unreadable, and are in no part.
    pub(super) bad: Vec<(PathBuf, String)>,
    /// What is worth saying of it.
    pub(super) notes: Vec<Note>,
}

/// Deals a batch out; with `check` every file is opened where there are several parts, so that bad ones are told of before
/// any is scored.
pub(super) fn plan(
    inspector: &Inspector,
    batch: &Batch,
    check: bool,
    progress: &dyn Progress,
) -> Result<Plan> {
    let input = match inspector.settings.tiles {
        Some(tiles) => tiles::input_of(inspector, batch, tiles.cut)?,
        None => input_of(inspector, batch)?,
    };
    let grid = input.grid(inspector.backbone.architecture().patch);
    inspector.settings.scoring.check(batch.len().saturating_sub(1), grid)?;
    deal(inspector, batch, input, check, progress)
}

/// See [`Inspector::inspect`].
pub(super) fn inspect(
    inspector: &Inspector,
    batch: &Batch,
    progress: &dyn Progress,
) -> Result<Inspection> {
    let laps = Laps::new(progress);
    let plan = plan(inspector, batch, true, &laps)?;
    let places = plan.places();
    if plan.len() > 1
        && inspector.settings.tiles.is_none()
        && let Some(sides) = batch.sides(&places)
    {
        // Masks that do not fit are told of before the first subset is scored.
        let resize = inspector.resize_to(plan.input);
        let marking = marking(batch, &resize, inspector.backbone.architecture().patch);
        inspector.on_pool(|| marking.left_out(&places, &sides, false, &laps))?;
    }
    let mut joined = Joined::new(places, inspector.settings.paper);
    for subset in &plan.parts {
        go_on(&laps)?;
        joined.add(part(inspector, batch, plan.input, subset, &laps)?)?;
    }
    finish(inspector, batch, &plan, joined, laps)
}

/// Scores images of a batch against each other.
pub(super) fn part(
    inspector: &Inspector,
    batch: &Batch,
    input: ImageSize,
    subset: &[usize],
    progress: &dyn Progress,
) -> Result<Part> {
    if let Some(tiles) = inspector.settings.tiles {
        return tiles::part(inspector, batch, tiles, input, subset, progress);
    }
    let scoring = &inspector.settings.scoring;
    let grid = input.grid(inspector.backbone.architecture().patch);
    scoring.check(subset.len().saturating_sub(1), grid)?;
    let (loaded, features) = features_of(inspector, batch, subset, input, progress)?;
    let scores =
        inspector.backend.patch_scores(&features, References::Others, scoring, progress)?;
    let exact = inspector.settings.paper;
    let files = PartFiles::of(subset, loaded);
    Part::of_features(files, &features, &scores.mean_f64(), exact)
}

/// Raw scores and RsCIN, of the whole batch.
pub(super) fn finish(
    inspector: &Inspector,
    batch: &Batch,
    plan: &Plan,
    joined: Joined,
    laps: Laps<'_>,
) -> Result<Inspection> {
    let (mut files, scored) = joined.finish()?;
    files.bad.splice(0..0, plan.bad.iter().cloned());
    let count = files.kept.len();
    let maps = plan.maps(inspector, files.sizes.first().copied().unwrap_or((1, 1)));
    laps.begin(Stage::Rescoring, count as u64);
    let raw_scores =
        raw_scores(inspector, &scored.patch_scores, &scored.left_out, &maps, &files.sizes)?;
    let tokens = (&scored.class_tokens[..], scored.class_width);
    let (scores, k) = rescore(inspector, batch, &raw_scores, tokens)?;
    laps.advance(count as u64);
    laps.end();
    let mut notes = plan.notes.clone();
    if let Some(&k) = k.iter().find(|&&k| k > count) {
        notes.push(Note::LargeK { k, images: count });
    }
    let mut inspection = outcome(
        inspector,
        batch,
        (plan.input, maps),
        (files, scored),
        (raw_scores, scores, k),
        plan.len(),
        laps,
    );
    inspection.notes.extend(notes);
    let alike = inspector.on_pool(|| likeness::notes_of(&inspection));
    inspection.notes.extend(alike);
    Ok(inspection)
}

/// RsCIN of raw scores `[N]` by class tokens `[N, E]`, and the k it took.
pub(super) fn rescore(
    inspector: &Inspector,
    batch: &Batch,
    raw_scores: &[f32],
    (class_tokens, width): (&[f32], usize),
) -> Result<(Vec<f64>, Vec<usize>)> {
    let wide: Vec<f64> = raw_scores.iter().map(|&score| f64::from(score)).collect();
    let Some(rescoring) = &inspector.settings.rescoring else { return Ok((wide, Vec::new())) };
    let k = rescoring.k.clone().unwrap_or_else(|| batch.rscin_k().to_vec());
    let options = RscinOptions::default().with_k(k.clone()).with_similarity(rescoring.similarity);
    let scores = inspector.on_pool(|| rscin(&wide, class_tokens, width, &options))?;
    Ok((scores, k))
}

/// What a batch came to, of its parts.
pub(super) fn outcome(
    inspector: &Inspector,
    batch: &Batch,
    (input, maps): (ImageSize, Maps),
    (files, scored): (Files, Scored),
    (raw_scores, scores, k): (Vec<f32>, Vec<f64>, Vec<usize>),
    subsets: usize,
    laps: Laps<'_>,
) -> Inspection {
    let mut notes = inspector.cache.as_ref().map(Cache::take_notes).unwrap_or_default();
    if files.sixteen_bits > 0 {
        notes.push(Note::SixteenBits { images: files.sixteen_bits });
    }
    Inspection {
        name: batch.name().to_string(),
        samples: batch.some(&files.kept),
        kept: files.kept,
        file_sizes: files.sizes,
        fit: inspector.resize_to(input).fit,
        input,
        maps,
        patch_scores: scored.patch_scores,
        left_out: scored.left_out,
        exact_scores: scored.exact_scores,
        raw_scores,
        scores,
        class_tokens: scored.class_tokens,
        class_width: scored.class_width,
        k,
        subsets,
        skipped: files.bad,
        notes,
        seconds: laps.seconds(),
    }
}

/// The largest value of each image's map. `left_out` `[N, L]` is empty where no patch is left out; `sizes` are the images'
/// widths and heights, which tiles need.
pub(super) fn raw_scores(
    inspector: &Inspector,
    patch_scores: &[f32],
    left_out: &[bool],
    maps: &Maps,
    sizes: &[(u32, u32)],
) -> Result<Vec<f32>> {
    let patches = maps.patches();
    inspector.on_pool(|| {
        patch_scores
            .par_chunks_exact(patches)
            .enumerate()
            .map(|(at, scores)| {
                let left_out = left_out.get(at * patches..(at + 1) * patches).unwrap_or_default();
                let sides = sizes.get(at).copied().unwrap_or((1, 1));
                maps.largest(Scores { scores, left_out, sides })
            })
            .collect()
    })
}

/// How patches of a batch's images are marked.
pub(super) fn marking<'a>(batch: &'a Batch, resize: &'a Resize, patch: usize) -> Marking<'a> {
    let grid = resize.size.grid(patch);
    Marking { samples: batch.samples(), regions: batch.regions(), resize, grid, patch }
}

/// The size at which a batch goes through the backbone.
pub(super) fn input_of(inspector: &Inspector, batch: &Batch) -> Result<ImageSize> {
    match inspector.settings.input {
        InputSize::Exactly(input) => Ok(input),
        InputSize::KeepAspect { longest, pad } => {
            let patch = inspector.backbone.architecture().patch;
            let sizes = batch.sizes();
            if pad {
                common_size_padded(&sizes, longest, patch)
            } else {
                common_size(&sizes, longest, patch)
            }
        }
    }
}

/// What was read of the files, once their pixels are let go.
#[derive(Default)]
pub(super) struct Files {
    pub kept: Vec<usize>,
    pub bad: Vec<(PathBuf, String)>,
    pub sizes: Vec<(u32, u32)>,
    pub sixteen_bits: usize,
}

/// Deals a batch into subsets. Where there are several, every file is opened before if that is asked for, or if bad ones are
/// skipped, since subsets are made of those that can be read.
fn deal(
    inspector: &Inspector,
    batch: &Batch,
    input: ImageSize,
    check: bool,
    progress: &dyn Progress,
) -> Result<Plan> {
    let others = batch.len().saturating_sub(1);
    let mut notes = Vec::new();
    let all =
        |notes| Ok(Plan { input, parts: vec![(0..batch.len()).collect()], bad: Vec::new(), notes });
    let references = match inspector.settings.subsets {
        Subsets::Auto if batch.len() > MANY => USUAL_REFERENCES,
        Subsets::Auto | Subsets::All | Subsets::Divide(0 | 1) => return all(notes),
        Subsets::Divide(_) => 0,
        Subsets::References(asked) if asked >= others => {
            if asked > others {
                notes.push(Note::FewImages { asked, others });
            }
            return all(notes);
        }
        Subsets::References(asked) => asked,
    };
    let (mut kept, mut bad) = ((0..batch.len()).collect(), Vec::new());
    if !batch.in_memory() && (check || batch.skips_bad()) {
        let skip = batch.skips_bad();
        let read = inspector.on_pool(|| check_pixels(batch.samples(), skip, progress))?;
        (kept, bad) = (read.kept, read.bad);
    }
    let kept: Vec<usize> = kept;
    let subsets = match inspector.settings.subsets {
        Subsets::Divide(parts) => divide(&batch.some(&kept), parts)?,
        _ => {
            let names = batch.relative_names();
            let names: Vec<String> = kept.iter().map(|&at| names[at].clone()).collect();
            dataset::subsets(&names, references, inspector.settings.seed)
        }
    };
    let count = kept.len();
    if inspector.settings.subsets == Subsets::Auto {
        let pairs = |n: usize| n as f64 * n.saturating_sub(1) as f64 / 2.0;
        let dealt: f64 = subsets.iter().map(|subset| pairs(subset.len())).sum();
        notes.push(Note::ManyImages {
            images: count,
            subsets: subsets.len(),
            references,
            work: pairs(count) / dealt.max(1.0),
            bytes: in_flight_bytes(inspector, count, input),
        });
    } else if references > 0 && references < ENOUGH_REFERENCES {
        notes.push(Note::SmallSubsets { references });
    }
    let places = |subset: Vec<usize>| subset.into_iter().map(|at| kept[at]).collect();
    Ok(Plan { input, parts: subsets.into_iter().map(places).collect(), bad, notes })
}

/// Pixels and tokens of `images` images.
fn in_flight_bytes(inspector: &Inspector, images: usize, input: ImageSize) -> u64 {
    let of = inspector.backbone.architecture();
    let token = match &inspector.backend {
        AnyBackend::Cpu(_) => size_of::<f32>(),
        #[cfg(feature = "cuda")]
        AnyBackend::Cuda(_) => size_of::<u16>(),
    };
    let tokens = inspector.backbone.blocks.len() * input.grid(of.patch).patches() * of.width;
    images as u64 * (3 * input.pixels() + tokens * token) as u64
}

/// See [`Inspector::expected_bytes`].
pub(super) fn expected_bytes(inspector: &Inspector, images: usize, input: ImageSize) -> u64 {
    let subset = match inspector.settings.subsets {
        Subsets::Auto if images > MANY => USUAL_REFERENCES + 1,
        Subsets::References(references) => references.saturating_add(1),
        Subsets::Divide(parts) => images.div_ceil(parts.max(1)),
        _ => images,
    };
    let of = inspector.backbone.architecture();
    let tiles = inspector.settings.tiles;
    let patches = input.grid(of.patch).patches() * tiles.map_or(1, |tiles| tiles.cut.tiles());
    let a_score = if inspector.settings.paper { 12 } else { 4 };
    let kept = images * (patches * a_score + of.class_dim * size_of::<f32>());
    let held = tiles.map_or(1, |tiles| tiles.held());
    in_flight_bytes(inspector, subset.min(images) * held, input) + kept as u64
}

/// Features of some images of a batch; of what was loaded, the pixels are gone.
pub(super) fn features_of(
    inspector: &Inspector,
    batch: &Batch,
    places: &[usize],
    input: ImageSize,
    progress: &dyn Progress,
) -> Result<(Loaded, AnyFeatures)> {
    let resize = inspector.resize_to(input);
    features_with(inspector, batch, places, &resize, None, progress)
}

/// Features of some images of a batch, or of a tile of each. The patches that are left out, `[n, L]` or none, are looked for
/// where they are not known.
pub(super) fn features_with(
    inspector: &Inspector,
    batch: &Batch,
    places: &[usize],
    resize: &Resize,
    mut left_out: Option<Vec<bool>>,
    progress: &dyn Progress,
) -> Result<(Loaded, AnyFeatures)> {
    let model = inspector.model(resize.size)?;
    let backend = &inspector.backend;
    // Files are read while features are made. Not with files that may be left out: then it must be known first which
    // images there are. Nor where tokens are kept: which images go through the backbone is known by their pixels.
    let beside = !batch.skips_bad() && !batch.in_memory() && inspector.cache.is_none();
    let marking = marking(batch, resize, inspector.backbone.architecture().patch);
    let marks = |kept: &[usize], sizes: &[(u32, u32)]| {
        let kept: Vec<usize> = kept.iter().map(|&at| places[at]).collect();
        inspector.on_pool(|| marking.left_out(&kept, sizes, false, progress))
    };
    // A mask that does not fit is told of before the features are made.
    let (mut loaded, mut features) = if beside {
        if left_out.is_none()
            && !marking.is_nothing()
            && let Some(sides) = batch.sides(places)
        {
            left_out = Some(marks(&(0..places.len()).collect::<Vec<_>>(), &sides)?);
        }
        let samples = batch.some(places);
        let extract =
            |source: &dyn PixelSource| backend.extract(&model, Pixels::Source(source), progress);
        if backend.leaves_processor_free() {
            let pool = inspector.pool.as_ref();
            dataset::load_pixels_beside(&samples, resize, pool, progress, extract)?
        } else {
            // Each thread reads the image that it works on next: nobody waits for anybody.
            inspector
                .on_pool(|| dataset::load_pixels_on_demand(&samples, resize, progress, extract))?
        }
    } else {
        let loaded = inspector.on_pool(|| batch.load(places, resize, progress))?;
        go_on(progress)?;
        if left_out.is_none() {
            left_out = Some(marks(&loaded.kept, &loaded.sizes)?);
        }
        let images = &loaded.images;
        let features = match &inspector.cache {
            Some(cache) => {
                inspector.cached_features(cache, &model, images, resize.size, progress)?
            }
            None => backend.extract(&model, Pixels::Rgb(images), progress)?,
        };
        (loaded, features)
    };
    loaded.images = Vec::new();
    let left_out = match left_out {
        Some(known) => known,
        None => marks(&loaded.kept, &loaded.sizes)?,
    };
    if !left_out.is_empty() {
        backend.leave_out(&mut features, left_out)?;
    }
    Ok((loaded, features))
}
