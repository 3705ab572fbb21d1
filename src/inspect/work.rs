//! The way of a batch: pixels, features, patch scores, raw scores, RsCIN; a subset at a time.

use std::path::PathBuf;

use rayon::prelude::*;

use super::cache::Cache;
use super::laps::Laps;
use super::maps::{Maps, Scores};
use super::regions::Marking;
use super::{
    Batch, InputSize, Inspection, Inspector, MANY, Note, Subsets, USUAL_REFERENCES, likeness,
};
use crate::backend::device::{AnyBackend, AnyFeatures};
use crate::backend::{Backend, FeatureSet, Pixels, References};
use crate::dataset::{self, Loaded, check_pixels, divide, load_masks, load_pixels_beside};
use crate::image::{Filter, Resize, common_size, common_size_padded};
use crate::progress::{Stage, go_on};
use crate::scoring::rscin::{RscinOptions, rscin};
use crate::{Error, Grid, ImageSize, Progress, Result};

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

/// See [`Inspector::inspect`].
pub(super) fn inspect(
    inspector: &Inspector,
    batch: &Batch,
    progress: &dyn Progress,
) -> Result<Inspection> {
    let laps = Laps::new(progress);
    let input = input_of(inspector, batch)?;
    let grid = input.grid(inspector.backbone.architecture().patch);
    let scoring = &inspector.settings.scoring;
    scoring.check(batch.len().saturating_sub(1), grid)?;
    let mut notes = Vec::new();
    let (mut files, subsets) = deal(inspector, batch, input, &mut notes, &laps)?;
    if subsets.len() > 1
        && let Some(sides) = batch.sides(&files.kept)
    {
        // Masks that do not fit are told of before the first subset is scored.
        let resize = inspector.resize_to(input);
        let marking = marking(batch, &resize, inspector.backbone.architecture().patch);
        inspector.on_pool(|| marking.left_out(&files.kept, &sides, false, &laps))?;
    }
    let mut joined = Joined::new(inspector.settings.paper, grid);
    for subset in &subsets {
        go_on(&laps)?;
        scoring.check(subset.len().saturating_sub(1), grid)?;
        let (loaded, features) = features_of(inspector, batch, subset, input, &laps)?;
        let scored: Vec<usize> = loaded.kept.iter().map(|&at| subset[at]).collect();
        if subsets.len() == 1 {
            // The only subset holds every image, and its reading tells of all files.
            files = Files::of(loaded);
        }
        let scores =
            inspector.backend.patch_scores(&features, References::Others, scoring, &laps)?;
        joined.add(&files.kept, &scored, &scores.mean_f64(), &features)?;
    }
    let maps = Maps::whole(grid, input);
    finish(inspector, batch, (input, maps), subsets.len(), files, joined, notes, laps)
}

/// Raw scores and RsCIN, of the whole batch.
#[expect(
    clippy::too_many_arguments,
    reason = "the parts of one inspection, each made by another step"
)]
pub(super) fn finish(
    inspector: &Inspector,
    batch: &Batch,
    (input, maps): (ImageSize, Maps),
    subsets: usize,
    files: Files,
    joined: Joined,
    mut notes: Vec<Note>,
    laps: Laps<'_>,
) -> Result<Inspection> {
    let count = files.kept.len();
    laps.begin(Stage::Rescoring, count as u64);
    let raw_scores =
        raw_scores(inspector, &joined.patch_scores, &joined.left_out, &maps, &files.sizes)?;
    let tokens = (&joined.class_tokens[..], joined.class_width);
    let (scores, k) = rescore(inspector, batch, &raw_scores, tokens)?;
    laps.advance(count as u64);
    laps.end();
    if let Some(&k) = k.iter().find(|&&k| k > count) {
        notes.push(Note::LargeK { k, images: count });
    }
    let mut inspection = outcome(
        inspector,
        batch,
        (input, maps),
        (files, joined),
        (raw_scores, scores, k),
        subsets,
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
    (files, joined): (Files, Joined),
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
        patch_scores: joined.patch_scores,
        left_out: joined.left_out,
        exact_scores: joined.exact_scores,
        raw_scores,
        scores,
        class_tokens: joined.class_tokens,
        class_width: joined.class_width,
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

impl Files {
    pub fn of(loaded: Loaded) -> Self {
        Files {
            kept: loaded.kept,
            bad: loaded.bad,
            sizes: loaded.sizes,
            sixteen_bits: loaded.scaled_from_16_bit,
        }
    }

    /// Takes in what was read of some more files, which are those at the places `kept` of the batch.
    pub(super) fn add(&mut self, loaded: Loaded, kept: &[usize]) {
        self.kept.extend(kept);
        self.bad.extend(loaded.bad);
        self.sizes.extend(loaded.sizes);
        self.sixteen_bits += loaded.scaled_from_16_bit;
    }
}

/// Deals a batch into subsets, each a rising list of places in the batch. Where there are several, every file is opened
/// before, so that bad ones are known and subsets are even; else `Files` is empty.
pub(super) fn deal(
    inspector: &Inspector,
    batch: &Batch,
    input: ImageSize,
    notes: &mut Vec<Note>,
    progress: &dyn Progress,
) -> Result<(Files, Vec<Vec<usize>>)> {
    let others = batch.len().saturating_sub(1);
    let all = || Ok((Files::default(), vec![(0..batch.len()).collect()]));
    let references = match inspector.settings.subsets {
        Subsets::Auto if batch.len() > MANY => USUAL_REFERENCES,
        Subsets::Auto | Subsets::All | Subsets::Divide(0 | 1) => return all(),
        Subsets::Divide(_) => 0,
        Subsets::References(asked) if asked >= others => {
            if asked > others {
                notes.push(Note::FewImages { asked, others });
            }
            return all();
        }
        Subsets::References(asked) => asked,
    };
    let files = if batch.in_memory() {
        Files { kept: (0..batch.len()).collect(), sizes: batch.frame_sides(), ..Files::default() }
    } else {
        let skip = batch.skips_bad();
        Files::of(inspector.on_pool(|| check_pixels(batch.samples(), skip, progress))?)
    };
    let subsets = match inspector.settings.subsets {
        Subsets::Divide(parts) => divide(&batch.some(&files.kept), parts)?,
        _ => {
            let names = batch.relative_names();
            let names: Vec<String> = files.kept.iter().map(|&at| names[at].clone()).collect();
            dataset::subsets(&names, references, inspector.settings.seed)
        }
    };
    let count = files.kept.len();
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
    let places = |subset: Vec<usize>| subset.into_iter().map(|at| files.kept[at]).collect();
    let subsets = subsets.into_iter().map(places).collect();
    Ok((files, subsets))
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
    // Where the device leaves the processor free, files are read while features are made. Not with files that may be
    // left out: then it must be known first which images there are.
    // Nor where tokens are kept: which images go through the backbone is known by their pixels.
    let beside = backend.leaves_processor_free()
        && !batch.skips_bad()
        && !batch.in_memory()
        && inspector.cache.is_none();
    let marking = marking(batch, resize, inspector.backbone.architecture().patch);
    let marks = |kept: &[usize], sizes: &[(u32, u32)]| {
        let kept: Vec<usize> = kept.iter().map(|&at| places[at]).collect();
        inspector.on_pool(|| marking.left_out(&kept, sizes, false, progress))
    };
    // A mask that does not fit is told of before the features are made.
    let (mut loaded, mut features) = if beside {
        if left_out.is_none()
            && let Some(sides) = batch.sides(places)
        {
            left_out = Some(marks(&(0..places.len()).collect::<Vec<_>>(), &sides)?);
        }
        let samples = batch.some(places);
        load_pixels_beside(&samples, resize, inspector.pool.as_ref(), progress, |source| {
            backend.extract(&model, Pixels::Source(source), progress)
        })?
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

/// Results of the subsets, in the order of the images that are kept.
pub(super) struct Joined {
    grid: Grid,
    pub patch_scores: Vec<f32>,
    /// Empty where no patch is left out.
    pub left_out: Vec<bool>,
    pub exact_scores: Option<Vec<f64>>,
    pub class_tokens: Vec<f32>,
    class_width: usize,
}

impl Joined {
    pub fn new(exact: bool, grid: Grid) -> Self {
        Joined {
            grid,
            patch_scores: Vec::new(),
            left_out: Vec::new(),
            exact_scores: exact.then(Vec::new),
            class_tokens: Vec::new(),
            class_width: 0,
        }
    }

    /// Makes room for so many images, of so many patches and this width of a class token.
    pub fn grow(&mut self, images: usize, patches: usize, width: usize) {
        self.class_width = width;
        self.patch_scores.resize(images * patches, 0.0);
        self.class_tokens.resize(images * width, 0.0);
        if let Some(exact) = &mut self.exact_scores {
            exact.resize(images * patches, 0.0);
        }
    }

    /// Makes room for marks of patches that are left out.
    pub fn mark(&mut self) {
        self.left_out.resize(self.patch_scores.len(), false);
    }

    /// Takes in patch scores `[n, L]` and class tokens of the images at the places `scored`, all of them in `kept`.
    pub(super) fn add(
        &mut self,
        kept: &[usize],
        scored: &[usize],
        scores: &[f64],
        features: &AnyFeatures,
    ) -> Result<()> {
        let tokens = features.class_tokens()?;
        let marks = features.left_out();
        self.add_tokens(kept, scored, scores, (&tokens, features.class_width()), marks);
        Ok(())
    }

    /// As [`Self::add`], of class tokens and marks that are on the host.
    pub(super) fn add_tokens(
        &mut self,
        kept: &[usize],
        scored: &[usize],
        scores: &[f64],
        (tokens, width): (&[f32], usize),
        marks: &[bool],
    ) {
        let patches = self.grid.patches();
        self.grow(kept.len(), patches, width);
        if !(marks.is_empty() && self.left_out.is_empty()) {
            self.mark();
        }
        for (from, place) in scored.iter().enumerate() {
            // A file that could be read when all were looked at, and cannot be now, has ended the work before.
            let Ok(to) = kept.binary_search(place) else { continue };
            let scores = &scores[from * patches..][..patches];
            for (to, &score) in self.patch_scores[to * patches..][..patches].iter_mut().zip(scores)
            {
                *to = score as f32;
            }
            if let Some(marks) = marks.get(from * patches..(from + 1) * patches) {
                self.left_out[to * patches..][..patches].copy_from_slice(marks);
            }
            if let Some(exact) = &mut self.exact_scores {
                exact[to * patches..][..patches].copy_from_slice(scores);
            }
            self.class_tokens[to * width..][..width]
                .copy_from_slice(&tokens[from * width..][..width]);
        }
    }
}
