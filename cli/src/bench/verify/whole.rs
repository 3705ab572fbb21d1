//! The kernels together: the whole scoring again and again, cut in other ways, beside other work; and images to scores
//! against the CPU.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::numbers::Random;
use crate::embedded::{BUILT_IN_BACKBONE, built_in_weights, weights_of};
use crate::run::demo;
use crate::shell::interrupt;
use musc::backend::cuda::launch::gemm::{self, Operands};
use musc::backend::cuda::launch::{Half, Matrix};
use musc::backend::cuda::{Card, Cuda, driver};
use musc::backend::device::Device as Named;
use musc::backend::{Backend, HostFeatures, References};
use musc::inspect::{Batch, Inspector};
use musc::metrics::image_metrics;
use musc::scoring::MutualScoring;
use musc::{Grid, Result};

/// One way to do the whole scoring, and whether it came to the same bits as the first.
pub struct Way {
    /// In words.
    pub what: &'static str,
    /// Times it was done.
    pub times: usize,
    /// Times that the bits were others, or why it was not done.
    pub others: std::result::Result<usize, String>,
}

/// The whole scoring, repeated.
pub struct Repeats {
    /// Images, grid and width.
    pub shape: String,
    /// The ways.
    pub ways: Vec<Way>,
}

impl Repeats {
    /// Whether all came to the same bits.
    pub fn verified(&self) -> bool {
        self.ways.iter().all(|way| way.others == Ok(0))
    }
}

fn tokens(images: usize, grid: Grid, width: usize, layers: usize) -> HostFeatures {
    let all = (0..layers)
        .map(|layer| {
            let raw = Random(layer as u64).tokens(images * grid.patches(), width);
            raw.into_iter().map(|value| Half::F16.value(Half::F16.bits(value))).collect()
        })
        .collect();
    HostFeatures::new(images, grid, width, (0..layers).collect(), all)
}

/// Scores features on cards, as bits.
fn scored(
    cards: Vec<Arc<Card>>,
    features: &HostFeatures,
    scoring: &MutualScoring,
) -> Result<Vec<u32>> {
    let backend = Cuda::with_cards(cards, Half::F16)?;
    let features = backend.upload(features.clone())?;
    let scores = backend.patch_scores(&features, References::Others, scoring, &())?;
    Ok(scores.by_degree_layer.iter().map(|score| score.to_bits()).collect())
}

/// Keeps a card busy from a stream of its own until it is told to stop.
fn load(card: &Arc<Card>, stop: &AtomicBool) -> Result<()> {
    const SIDE: usize = 256;
    let stream = card.stream()?;
    let values = stream.upload_new(&vec![Half::F16.bits(0.5); SIDE * SIDE], "a load")?;
    let bias = stream.upload_new(&vec![0.0f32; SIDE], "a load")?;
    let mut out = card.alloc::<u16>(SIDE * SIDE, "a load")?;
    while !stop.load(Ordering::Relaxed) {
        let matrix = Matrix { values: values.view(), rows: SIDE, stride: SIDE };
        let operands = Operands { half: Half::F16, a: matrix, b: matrix, k: SIDE };
        gemm::bias(&stream, &operands, bias.view(), None, out.view_mut())?;
        stream.synchronise()?;
        // The simulator does one thing at a time: leave it to the other.
        if card.driver().raw_context().is_none() {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
    Ok(())
}

/// Repeats the scoring in every way that must not change a bit.
pub fn repeats(card: &Arc<Card>, quick: bool) -> Result<Repeats> {
    let (images, grid, width, layers, times) =
        if quick { (4, Grid::square(4), 128, 1, 2) } else { (16, Grid::square(37), 1024, 2, 50) };
    let features = tokens(images, grid, width, layers);
    let scoring = MutualScoring::default();
    let first = scored(vec![Arc::clone(card)], &features, &scoring)?;
    let few = times.min(3);
    let count = |what, times, run: &dyn Fn() -> Result<Vec<u32>>| -> Result<Way> {
        let mut others = Ok(0);
        for _ in 0..times {
            interrupt::check()?;
            match run() {
                Ok(bits) => others = others.map(|count| count + usize::from(bits != first)),
                Err(error) => others = Err(error.to_string()),
            }
        }
        Ok(Way { what, times, others })
    };
    let again = || scored(vec![Arc::clone(card)], &features, &scoring);
    let mut ways = vec![count("again", times, &again)?];
    // A table for one image at a time.
    let row = scoring.degrees.len() * images * grid.patches() * size_of::<f32>();
    let small = MutualScoring::default().with_table_bytes(Some(row));
    let grouped = || scored(vec![Arc::clone(card)], &features, &small);
    ways.push(count("in groups of one image", few, &grouped)?);
    ways.push(count("beside another kernel", few, &|| {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let load = scope.spawn(|| load(card, &stop));
            let bits = again();
            stop.store(true, Ordering::Relaxed);
            match load.join() {
                Ok(loaded) => loaded.and(bits),
                Err(_) => bits,
            }
        })
    })?);
    if !quick && driver::card::count().unwrap_or(0) > 1 {
        let second = Card::open(1)?;
        if second.info().name == card.info().name && second.info().label != card.info().label {
            let both = || scored(vec![Arc::clone(card), Arc::clone(&second)], &features, &scoring);
            ways.push(count("on two cards of a kind", few, &both)?);
        }
    }
    Ok(Repeats { shape: format!("{images}x{grid}x{width}, {layers} layers"), ways })
}

/// What f16 may cost in a token, as relative L2, and in a patch score above 0.05 (`docs/fidelity.md`).
const TOKEN_BOUND: f64 = 2e-3;
const SCORE_BOUND: f64 = 5e-3;
const SMALL_SCORE: f32 = 0.05;

/// Images to scores by the built-in backbone, beside the CPU.
pub struct Whole {
    /// Images, and the side they were resized to.
    pub images: usize,
    pub side: usize,
    /// ‖token − CPU's‖ / ‖CPU's‖ of the worst layer.
    pub tokens: f64,
    /// The largest difference of a patch score above 0.05.
    pub patch_scores: f64,
    /// The largest difference of an image score.
    pub scores: f64,
    /// AUROC here, and on the CPU.
    pub auroc: (Option<f64>, Option<f64>),
}

impl Whole {
    /// Whether all is within its bound. An AUROC may move by the pairs whose scores are nearer than the bound: it is within them
    /// when the scores are, so it is shown, not bounded.
    pub fn verified(&self) -> bool {
        self.tokens <= TOKEN_BOUND && self.patch_scores <= SCORE_BOUND && self.scores <= SCORE_BOUND
    }

    /// The bounds: tokens, scores.
    pub fn bounds() -> (f64, f64) {
        (TOKEN_BOUND, SCORE_BOUND)
    }
}

struct Made {
    features: HostFeatures,
    patch_scores: Vec<f32>,
    scores: Vec<f64>,
    auroc: Option<f64>,
}

fn made(device: &str, batch: &Batch, side: usize) -> Result<Made> {
    let inspector = Inspector::builder()
        .backbone(BUILT_IN_BACKBONE)
        .weights(weights_of(BUILT_IN_BACKBONE))
        .device(device.parse::<Named>()?)
        .size(side)
        .build()?;
    let (features, _) = inspector.features(batch, &())?;
    let inspection = inspector.inspect(batch, &())?;
    let patch_scores =
        (0..inspection.len()).flat_map(|image| inspection.patch_scores(image).0.to_vec()).collect();
    let labels: Vec<bool> =
        inspection.samples().iter().map(|sample| is_in(&sample.path, "defect")).collect();
    let scores = inspection.scores().to_vec();
    let auroc = image_metrics(&labels, &scores)?.auroc;
    Ok(Made { features, patch_scores, scores, auroc })
}

/// Whether a file lies in a folder of that name.
fn is_in(file: &Path, folder: &str) -> bool {
    file.parent().is_some_and(|parent| parent.ends_with(folder))
}

/// Tokens and scores of the sample images, here and on the CPU; nothing in a program without weights or images.
pub fn images(device: &str, quick: bool) -> Result<Option<Whole>> {
    if built_in_weights().is_none() {
        return Ok(None);
    }
    let root = std::env::temp_dir().join(format!("musc-verify-{}", std::process::id()));
    let whole = of_images(device, quick, &root);
    // What cannot be removed from a folder for what is temporary is the system's.
    let _ = std::fs::remove_dir_all(&root);
    whole.map(Some)
}

fn of_images(device: &str, quick: bool, root: &Path) -> Result<Whole> {
    let folder = demo::write_images(root)?;
    let folder = Path::new(&folder);
    let side = if quick { 56 } else { 448 };
    let (defects, goods) = if quick { (2, 2) } else { (10, 20) };
    let names = |kind: &'static str, count: usize| {
        (1..=count).map(move |at| folder.join(kind).join(format!("textile_{at:04}.jpg")))
    };
    let batch = Batch::files_as_given(names("defect", defects).chain(names("good", goods)))?;
    let (here, cpu) = (made(device, &batch, side)?, made("cpu", &batch, side)?);
    let mut tokens = 0.0f64;
    for (found, expected) in here.features.tokens.iter().zip(&cpu.features.tokens) {
        let pairs = found.iter().zip(expected).map(|(&a, &b)| (f64::from(a), f64::from(b)));
        let (error, size) =
            pairs.fold((0.0, 0.0), |(error, size), (a, b)| (error + (a - b).powi(2), size + b * b));
        let of_layer: f64 = (error / size).sqrt();
        // NaN is no small difference.
        tokens = if of_layer <= tokens { tokens } else { of_layer };
    }
    let widest = |pairs: &mut dyn Iterator<Item = (f64, f64)>| {
        pairs.map(|(a, b)| (a - b).abs()).fold(0.0f64, |most, d| if d <= most { most } else { d })
    };
    let of_patches = here.patch_scores.iter().zip(&cpu.patch_scores);
    let mut of_patches = of_patches
        .filter(|(_, expected)| **expected > SMALL_SCORE)
        .map(|(&a, &b)| (f64::from(a), f64::from(b)));
    let mut of_images = here.scores.iter().zip(&cpu.scores).map(|(&a, &b)| (a, b));
    Ok(Whole {
        images: batch.len(),
        side,
        tokens,
        patch_scores: widest(&mut of_patches),
        scores: widest(&mut of_images),
        auroc: (here.auroc, cpu.auroc),
    })
}
