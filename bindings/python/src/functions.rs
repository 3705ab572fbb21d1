//! The method's steps as functions of arrays.

use std::path::PathBuf;

use musc::Progress;
use musc::backend::device::{Device, DeviceOptions};
use musc::backend::{Backend, HostFeatures, References};
use musc::model::hub::Hub;
use musc::model::{self, BACKBONES, Published, Vit, locate};
use musc::progress::go_on;
use musc::scoring::PatchScores;
use musc::scoring::decision;
use musc::scoring::rscin::{RscinOptions, rscin as rescore};
use musc::scoring::upsample::upsample;
use musc::{Error, Grid, ImageSize};
use numpy::{Ix1, Ix2, PyArray1, PyArray2, PyArray3, PyArrayMethods};
use pyo3::prelude::*;
use rayon::prelude::*;

use crate::arrays::{self, Layers, Tokens};
use crate::error::{raise, wrong_value};
use crate::progress::{run, run_on_pool};
use crate::settings::{self, count, counts};

/// The score of each patch of N images: LNAMD, then MSM against the other images, or against references.
///
/// tokens: patch tokens of any backbone, float32 or float16: one array [layers, N, L, C], or a list with [N, L, C] for each
/// feature layer, class tokens left out. NumPy arrays, and whatever hands over its memory by DLPack and lies in the processor's
/// (PyTorch tensors), are read where they lie; the library holds a float32 copy of one layer at a time.
/// They must not be written meanwhile.
/// r: aggregation degrees, odd. references: tokens of other images in the same form; an image whose tokens are among them
/// does not see itself. grid: rows and columns of the L patches; without it they are a square. interval: which of the sorted
/// distances the score is the mean of. radius: a patch sees only those within so many rows and columns of its place. left_out,
/// references_left_out: bool [N, L] and [M, L], patches that are no part of their image: they score 0, and nothing is compared
/// with them.
///
/// precision: "auto", "f32", "f16" or "bf16", as of Inspector.
///
/// Returns float32 [N, L], distances from 0 to 2.
#[pyfunction]
#[pyo3(
    signature = (
        tokens, r=vec![1, 3, 5], references=None, *, grid=None, interval=(0.0, 0.3), radius=None, left_out=None,
        references_left_out=None, device="auto", threads=0, precision="auto", memory_limit=None, table_bytes=None, progress=None,
    ),
    text_signature = "(tokens, r=(1, 3, 5), references=None, *, grid=None, interval=(0.0, 0.3), radius=None, left_out=None, \
        references_left_out=None, device='auto', threads=0, precision='auto', memory_limit=None, table_bytes=None, progress=None)"
)]
#[expect(clippy::too_many_arguments, reason = "each is a keyword of the function")]
pub fn mutual_scores<'py>(
    py: Python<'py>,
    tokens: &Bound<'py, PyAny>,
    r: Vec<i64>,
    references: Option<&Bound<'py, PyAny>>,
    grid: Option<(i64, i64)>,
    interval: (f64, f64),
    radius: Option<i64>,
    left_out: Option<&Bound<'py, PyAny>>,
    references_left_out: Option<&Bound<'py, PyAny>>,
    device: &str,
    threads: i64,
    precision: &str,
    memory_limit: Option<i64>,
    table_bytes: Option<i64>,
    progress: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyArray2<f32>>> {
    let scoring = settings::scoring(&r, interval, radius, table_bytes)?;
    let device: Device = device.parse().map_err(raise)?;
    let options = DeviceOptions::default()
        .with_threads(count("threads", threads)?)
        .with_precision(precision.parse().map_err(raise)?)
        .with_memory_limit(memory_limit.map(|bytes| count("memory_limit", bytes)).transpose()?);
    let layers = Layers::of("tokens", tokens)?;
    let references = references.map(|tokens| Layers::of("references", tokens)).transpose()?;
    let layers = layers.tokens();
    let references = references.as_ref().map(Layers::tokens);
    if let Some(references) = references.as_ref().filter(|others| others.len() != layers.len()) {
        let found = format!("{} feature layers", references.len());
        return Err(wrong_value("references", found, &format!("{}, as tokens have", layers.len())));
    }
    let (images, patches, _) = layers.first().map_or((0, 0, 0), Tokens::shape);
    let grid = arrays::grid(grid, patches).map_err(raise)?;
    if let Some(theirs) = references.as_ref().map(|others| others[0].shape().1)
        && theirs != patches
    {
        let found = format!("{theirs} patches an image");
        return Err(wrong_value("references", found, &format!("{patches}, as tokens have")));
    }
    let seen = references.as_ref().map_or(images.saturating_sub(1), |others| others[0].shape().0);
    scoring.check(seen, grid).map_err(raise)?;
    let marks = |name: &str, marks: Option<&Bound<'py, PyAny>>, images: usize| {
        marks.map_or(Ok(Vec::new()), |marks| marks_of(name, marks, images, patches))
    };
    let left_out = marks("left_out", left_out, images)?;
    if references.is_none() && references_left_out.is_some() {
        return Err(wrong_value("references_left_out", "marks without references", "references"));
    }
    let their_left_out = marks("references_left_out", references_left_out, seen)?;
    let content = references.as_ref().map(|others| (&layers, others));
    let scores = run(py, progress, |progress| {
        let content =
            content.map(|(own, others)| (content_of(own, grid), content_of(others, grid)));
        let (backend, _) = device.open(options)?;
        let score = |at: usize, progress: &dyn Progress| -> musc::Result<PatchScores> {
            let own = features(&layers[at], at, grid);
            let own = match &content {
                Some((own_content, _)) => own.with_content(own_content.clone()),
                // Each image sees every other: what they are is not asked.
                None => own.with_content((0..images as u64).collect()),
            };
            let own = backend.upload(own.with_left_out(left_out.clone()))?;
            match (&references, &content) {
                (Some(others), Some((_, content))) => {
                    let others = features(&others[at], at, grid).with_content(content.clone());
                    let others = backend.upload(others.with_left_out(their_left_out.clone()))?;
                    backend.patch_scores(&own, References::Set(&others), &scoring, progress)
                }
                _ => backend.patch_scores(&own, References::Others, &scoring, progress),
            }
        };
        let parts = (0..layers.len()).map(|at| score(at, progress)).collect::<musc::Result<_>>()?;
        PatchScores::of_layers(parts)
    })?;
    PyArray1::from_vec(py, scores.mean()).reshape([images, patches])
}

/// One feature layer as the library has it.
fn features(tokens: &Tokens<'_>, layer: usize, grid: Grid) -> HostFeatures {
    let (images, _, width) = tokens.shape();
    HostFeatures::new(images, grid, width, vec![layer], vec![tokens.to_f32()])
}

/// A number for each image that all its layers' tokens make.
fn content_of(layers: &[Tokens<'_>], grid: Grid) -> Vec<u64> {
    let mut all: Vec<u64> = Vec::new();
    for (at, tokens) in layers.iter().enumerate() {
        let one = features(tokens, at, grid).with_known_content().content;
        if all.is_empty() {
            all = one;
            continue;
        }
        for (all, one) in all.iter_mut().zip(one) {
            // Not the same for layers in another order.
            *all = all.rotate_left(23).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ one;
        }
    }
    all
}

fn marks_of(
    name: &str,
    marks: &Bound<'_, PyAny>,
    images: usize,
    patches: usize,
) -> PyResult<Vec<bool>> {
    let expected = format!("bool [{images}, {patches}]");
    let marks = arrays::truths::<Ix2>(name, marks, &expected)?;
    if marks.as_array().dim() != (images, patches) {
        return Err(wrong_value(name, arrays::found(marks.as_untyped()), &expected));
    }
    Ok(arrays::values(&marks.as_array()))
}

/// Re-scores images by their class tokens (RsCIN).
///
/// scores: [N]. class_tokens: float32 or float16 [N, E]. k: how many most similar images are kept, the image itself counted.
/// similarity: "cosine" or "dot".
///
/// Returns float64 [N].
#[pyfunction]
#[pyo3(
    signature = (scores, class_tokens, k=vec![1, 2, 3], *, similarity="cosine"),
    text_signature = "(scores, class_tokens, k=(1, 2, 3), *, similarity='cosine')"
)]
pub fn rscin<'py>(
    py: Python<'py>,
    scores: &Bound<'py, PyAny>,
    class_tokens: &Bound<'py, PyAny>,
    k: Vec<i64>,
    similarity: &str,
) -> PyResult<Bound<'py, PyArray1<f64>>> {
    let scores = arrays::floats::<Ix1>("scores", scores, "numbers [N]")?;
    let tokens = arrays::tokens("class_tokens", class_tokens, "float32 or float16 [N, E]")?;
    let options = RscinOptions::default()
        .with_k(counts("k", &k)?)
        .with_similarity(settings::similarity(similarity)?);
    let (scores, width) = (arrays::values(&scores.as_array()), tokens.as_array().dim().1);
    let tokens = arrays::values(&tokens.as_array());
    let made = run_on_pool(py, None, |_| rescore(&scores, &tokens, width, &options))?;
    Ok(PyArray1::from_vec(py, made))
}

/// The threshold of a decision rule on raw scores: an image is defective when its own is above it.
///
/// raw_scores: float32 [N]. rule: "gap[:SIGMAS]", "shortest-half[:SIGMAS]", "quantile:Q", "share:P", "f1", or a number.
/// labels: for "f1", 0 (normal) and 1 (defective) [N].
#[pyfunction]
#[pyo3(
    signature = (raw_scores, rule=None, *, labels=None),
    text_signature = "(raw_scores, rule='gap', *, labels=None)"
)]
pub fn threshold(
    raw_scores: &Bound<'_, PyAny>,
    rule: Option<&Bound<'_, PyAny>>,
    labels: Option<&Bound<'_, PyAny>>,
) -> PyResult<f64> {
    let scores = arrays::floats::<Ix1>("raw_scores", raw_scores, "numbers [N]")?;
    let scores: Vec<f32> = scores.as_array().iter().map(|&score| score as f32).collect();
    let labels = labels.map(|labels| arrays::labels("labels", labels)).transpose()?;
    let labels: Vec<Option<bool>> = labels.unwrap_or_default().into_iter().map(Some).collect();
    decision::threshold(settings::rule(rule)?, &scores, &labels).map_err(raise)
}

/// Anomaly maps of patch scores: bilinear, corners aligned. The largest value of each is the image's raw score.
///
/// patch_scores: float32 [N, L]. size: height and width. grid: rows and columns of the L patches; without it they are a
/// square.
///
/// Returns float32 [N, height, width].
#[pyfunction]
#[pyo3(signature = (patch_scores, size, *, grid=None))]
pub fn anomaly_maps<'py>(
    py: Python<'py>,
    patch_scores: &Bound<'py, PyAny>,
    size: (i64, i64),
    grid: Option<(i64, i64)>,
) -> PyResult<Bound<'py, PyArray3<f32>>> {
    let scores = arrays::floats::<Ix2>("patch_scores", patch_scores, "numbers [N, L]")?;
    let (images, patches) = scores.as_array().dim();
    let scores: Vec<f32> = scores.as_array().iter().map(|&score| score as f32).collect();
    let grid = arrays::grid(grid, patches).map_err(raise)?;
    let size = match size {
        (height @ 1.., width @ 1..) => {
            ImageSize::new(count("size", height)?, count("size", width)?)
        }
        other => return Err(wrong_value("size", format!("{other:?}"), "(height, width)")),
    };
    let maps = run_on_pool(py, None, |progress| {
        let mut maps = vec![0f32; images * size.pixels()];
        let both = maps.par_chunks_exact_mut(size.pixels()).zip(scores.par_chunks_exact(patches));
        both.try_for_each(|(map, scores)| {
            go_on(progress)?;
            upsample(scores, grid, size, map)
        })?;
        Ok(maps)
    })?;
    PyArray1::from_vec(py, maps).reshape([images, size.height, size.width])
}

/// The names of the backbones that are known.
#[pyfunction]
pub fn backbones() -> Vec<&'static str> {
    BACKBONES.iter().map(|known| known.name).collect()
}

/// Gets the weights of a backbone into the cache of the Hugging Face Hub, where an Inspector finds them, and returns the file.
/// What came before an interruption is kept, and the same call goes on from there.
#[pyfunction]
#[pyo3(signature = (backbone, pretrained=locate::DEFAULT_PRETRAINED, *, progress=None), text_signature = "(backbone, pretrained='openai', *, progress=None)")]
pub fn download_weights(
    py: Python<'_>,
    backbone: &str,
    pretrained: &str,
    progress: Option<&Bound<'_, PyAny>>,
) -> PyResult<PathBuf> {
    run_on_pool(py, progress, |progress| {
        let known = model::backbone(backbone)?;
        locate::check_pretrained(known, pretrained)?;
        let row = Published::of(known.name, pretrained).next().ok_or_else(|| {
            Error::invalid("backbone", known.name, "one whose weights are published")
        })?;
        let hub = Hub::of_environment()?;
        let path = match hub.cache().find(row.repository, row.file) {
            Some(path) if hub.is_offline() => path,
            _ => hub.fetch(&hub.look_up(row.repository, row.file)?, progress)?,
        };
        // What came is what was published; whether that is this backbone only its tensors say.
        Vit::open(&path)?.check_backbone(known)?;
        Ok(path)
    })
}
