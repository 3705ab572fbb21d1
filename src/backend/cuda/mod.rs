//! The CUDA backend: the kernels of `kernels/`, launched through the driver API on one card or several; or on the
//! simulator, by the same code.
//!
//! | module | what it owns |
//! |---|---|
//! | [`driver`] | the trait of a driver; a real card; the simulator |
//! | [`kernels`] | the PTX in this program, and which of it a card gets |
//! | card, buffer, stream | [`Card`], [`Buffer`], [`Pinned`], [`Stream`], [`Event`]: handles with an owner |
//! | [`launch`] | one safe function a kernel, for any crate's buffers |
//! | staging, weights, extract | host memory to the card; the weights; images to tokens |
//! | features, left_out | tokens on the card or in blocks from the host; patches that are no part of their image |
//! | image_set, patch_scores, ready | a set of images on one card; queries and references to patch scores |
//! | blocks | the same for a set in blocks |
//! | [`plan`] | how much memory all that takes |
//!
//! Numbers: tokens, weights and activations are 16-bit ([`Half`]); every sum, norm and softmax is f32. Scores do not
//! depend on the batch size, on groups, on blocks or on the number of cards of one kind, to the last bit; kinds of cards
//! differ in how tensor cores sum (`docs/fidelity.md`).
//!
//! # Memory
//! Tokens stay on the card when they and the scoring fit; else they go to page-locked host memory as they are made, and
//! scoring takes them in blocks, each read once a row of blocks. [`CudaOptions::memory_limit`] lowers what counts as
//! fitting. `docs/memory.md` has the sizes.

mod blocks;
mod buffer;
mod card;
#[cfg(feature = "cust-interop")]
pub mod cust_interop;
pub mod driver;
mod extract;
mod features;
mod host_memory;
mod image_set;
pub mod kernels;
pub mod launch;
mod left_out;
mod merge;
mod patch_scores;
pub mod plan;
mod ready;
mod staging;
mod stream;
mod weights;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

pub use buffer::{Buffer, Pinned, View, ViewMut};
pub use card::{Card, Loaded, LoadedKernel};
pub use features::Features;
pub use launch::Half;
pub use ready::Ready;
pub use staging::{SLOT_BYTES, Staging};
pub use stream::{Event, Stream};

use self::driver::card::CudaCard;
use self::extract::{CardModel, OfImages};
use self::features::{Place, Sink, WIDTH_STEP};
use self::kernels::{OLDEST_COMPUTE_CAPABILITY, decimal};
use self::launch::layer_norm::MAX_WIDTH;
use self::plan::{ScoringSizes, SetSizes, total};
use crate::backend::blocks::{BestCosines, Pairs, QueryTable};
use crate::backend::input::Images;
use crate::backend::{Backend, Extraction, HostFeatures, Pixels, References};
use crate::model::{Family, Vit};
use crate::scoring::{MutualScoring, PatchScores};
use crate::{Error, Grid, ImageSize, Progress, Result, Stage};

/// From so many seconds on, what a driver took to compile the kernels is told.
const NOTICEABLE_SECONDS: f64 = 1.0;

/// How the backend uses its cards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct CudaOptions {
    /// The 16-bit format of tokens, weights and activations.
    pub half: Half,
    /// The most bytes to take on each card; `None` leaves it to what is free.
    pub memory_limit: Option<u64>,
    /// Waits for every launch, so that a kernel that fails is named. The environment's `CUDA_LAUNCH_BLOCKING=1` asks for
    /// it too.
    pub checked: bool,
}

impl CudaOptions {
    /// With every launch waited for, so that a kernel that fails is named; or not.
    pub fn with_checked(mut self, checked: bool) -> Self {
        self.checked = checked;
        self
    }

    /// With this 16-bit format.
    pub fn with_half(mut self, half: Half) -> Self {
        self.half = half;
        self
    }

    /// With at most so many bytes on each card; `None` leaves it to what is free.
    pub fn with_memory_limit(mut self, bytes: Option<u64>) -> Self {
        self.memory_limit = bytes;
        self
    }
}

/// One card or several.
#[derive(Debug)]
pub struct Cuda {
    cards: Vec<Arc<Card>>,
    half: Half,
    /// How the kernels were loaded, a card each; empty where they are loaded as they are used.
    loaded: Vec<Loaded>,
}

/// A backbone on every card.
pub struct Model {
    cards: Vec<CardModel>,
    input: ImageSize,
    grid: Grid,
    width: usize,
    layers: Vec<usize>,
    family: Family,
    class_width: usize,
    /// CLIP's `[D, E]`.
    projection: Option<Vec<f32>>,
}

impl fmt::Debug for Model {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Model")
            .field("cards", &self.cards.len())
            .field("input", &self.input)
            .field("grid", &self.grid)
            .field("width", &self.width)
            .field("layers", &self.layers)
            .finish_non_exhaustive()
    }
}

impl Cuda {
    /// The 16-bit format of numbers on the cards.
    pub fn half(&self) -> Half {
        self.half
    }

    /// Opens cards of this machine by their numbers; none stands for card 0.
    ///
    /// # Errors
    /// [`Error::Device`]: no driver, no such card, a card named twice. [`Error::Kernel`]: a card or driver too old.
    pub fn open(ordinals: &[usize], options: CudaOptions) -> Result<Self> {
        Self::open_with(ordinals, options, &())
    }

    /// As [`open`](Self::open), watched: the stage [`Kernels`](Stage::Kernels), a step a file of kernels and card. All
    /// kernels are loaded, so that what is timed later has nothing to compile.
    ///
    /// # Errors
    /// As there, or [`Error::Interrupted`].
    pub fn open_with(
        ordinals: &[usize],
        options: CudaOptions,
        progress: &dyn Progress,
    ) -> Result<Self> {
        let ordinals = if ordinals.is_empty() { &[0] } else { ordinals };
        let cards = ordinals
            .iter()
            .map(|&ordinal| {
                let driver = Arc::new(CudaCard::open(ordinal)?);
                Ok(Card::with_driver(driver, options.memory_limit))
            })
            .collect::<Result<Vec<_>>>()?;
        let checked = options.checked
            || std::env::var("CUDA_LAUNCH_BLOCKING").is_ok_and(|asked| asked.trim() == "1");
        let mut opened = Self::with_cards(cards, options.half)?;
        opened.cards.iter().for_each(|card| card.set_checked(checked));
        progress.begin(Stage::Kernels, (kernels::stems().len() * opened.cards.len()) as u64);
        opened.loaded = at_once(opened.cards.iter(), |card| card.load_kernels(progress))?;
        progress.end();
        Ok(opened)
    }

    /// How the kernels were loaded, a card each, in the order of [`cards`](Self::cards); nothing of cards that load each
    /// kernel at its first use, as [`with_cards`](Self::with_cards) leaves them.
    pub fn loaded(&self) -> &[Loaded] {
        &self.loaded
    }

    /// What there is to say of [`loaded`](Self::loaded): seconds that somebody waited for, and kernels that spill.
    pub(crate) fn kernel_notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        for (card, loaded) in self.cards.iter().zip(&self.loaded) {
            let label = &card.info().label;
            if loaded.seconds >= NOTICEABLE_SECONDS {
                notes.push(format!(
                    "{label}: its driver took {:.1} s to compile the kernels, and keeps them for the next run",
                    loaded.seconds
                ));
            }
            let spilling: Vec<String> = loaded
                .spilling()
                .map(|kernel| format!("{} ({} bytes)", kernel.entry, kernel.local_bytes))
                .collect();
            if !spilling.is_empty() {
                notes.push(format!(
                    "{label}: as its driver compiles them, kernels spill registers and are slower: {}",
                    spilling.join(", ")
                ));
            }
        }
        notes
    }

    /// A simulated card of compute capability 8.0.
    ///
    /// # Errors
    /// As [`with_cards`](Self::with_cards).
    #[cfg(feature = "sim")]
    pub fn sim(options: CudaOptions) -> Result<Self> {
        let sim = driver::sim::Sim::new(driver::sim::SimOptions::default());
        let card = Card::with_driver(Arc::new(sim), options.memory_limit);
        card.set_checked(options.checked);
        Self::with_cards(vec![card], options.half)
    }

    /// Cards that are open already, the same one only once.
    ///
    /// # Errors
    /// [`Error::Device`] for no card, or one twice. [`Error::Kernel`] for a card or a driver that is too old, or one
    /// without the format.
    pub fn with_cards(cards: Vec<Arc<Card>>, half: Half) -> Result<Self> {
        let wrong = |device: &str, reason: String| {
            Err(Error::Device { device: device.to_string(), reason })
        };
        if cards.is_empty() {
            return wrong("cuda", "no card was named".into());
        }
        for (at, card) in cards.iter().enumerate() {
            let info = card.info();
            if cards[..at].iter().any(|other| other.info().label == info.label) {
                return wrong(&info.label, "it was named twice".into());
            }
            let capability = info.compute_capability;
            if half == Half::Bf16 && (OLDEST_COMPUTE_CAPABILITY..80).contains(&capability) {
                return wrong(
                    &info.label,
                    format!(
                        "{} has compute capability {}, bf16 needs 8.0 or newer: use f16",
                        info.name,
                        decimal(capability)
                    ),
                );
            }
            // Old cards and old drivers are told of before any work.
            kernels::ptx_for("gemm", info)?;
        }
        Ok(Cuda { cards, half, loaded: Vec::new() })
    }

    /// The cards.
    pub fn cards(&self) -> &[Arc<Card>] {
        &self.cards
    }

    /// The card on which tokens of these sizes stay, with `workspace` bytes used beside them and scoring after; none
    /// where they do not fit, or several cards share them.
    fn card_that_holds(
        &self,
        token_bytes: u64,
        workspace: u64,
        scoring: &ScoringSizes,
    ) -> Result<Option<&Arc<Card>>> {
        let [card] = self.cards.as_slice() else { return Ok(None) };
        let beside = workspace.max(scoring.least());
        let fits = token_bytes.saturating_add(beside) <= card.available_bytes()?;
        Ok(fits.then_some(card))
    }

    /// What the decision where tokens live reckons with, before it is known how they will be scored.
    fn usual_sizes(images: usize, grid: Grid, width: usize) -> ScoringSizes {
        let set = SetSizes { images, on_card: true };
        ScoringSizes::new(set, None, (grid, width), &MutualScoring::default())
    }
}

/// Does `work` for each of the items at once, on threads of their own; for one of them here. All are waited for, and the
/// first error is told.
fn at_once<T: Send, R: Send>(
    items: impl ExactSizeIterator<Item = T>,
    work: impl Fn(T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    if items.len() < 2 {
        return items.map(work).collect();
    }
    let results: Vec<Result<R>> = std::thread::scope(|scope| {
        let work = &work;
        let running: Vec<_> = items.map(|item| scope.spawn(move || work(item))).collect();
        running
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    results.into_iter().collect()
}

/// Images in as many runs as there are cards, the first ones longer by one where it does not come out even.
fn deal(images: usize, cards: usize) -> Vec<Range<usize>> {
    let mut start = 0;
    (0..cards)
        .map(|card| {
            let count = images / cards + usize::from(card < images % cards);
            start += count;
            start - count..start
        })
        .collect()
}

impl Backend for Cuda {
    type Model = Model;
    type Features = Features;
    type Ready = Ready;

    fn make_ready(&self, references: Features, scoring: &MutualScoring) -> Result<Ready> {
        Ok(Ready { features: references, scoring: scoring.clone() })
    }

    fn replace(
        &self,
        ready: &mut Ready,
        at: usize,
        features: &Features,
        image: usize,
    ) -> Result<()> {
        ready.replace(self, at, (features, image))
    }

    fn compare(
        &self,
        queries: &Features,
        ready: &Ready,
        progress: &dyn Progress,
    ) -> Result<PatchScores> {
        self.patch_scores(queries, References::Set(&ready.features), &ready.scoring, progress)
    }

    fn leaves_processor_free(&self) -> bool {
        true
    }

    fn description(&self) -> String {
        let cards: Vec<String> = self
            .cards
            .iter()
            .map(|card| {
                let info = card.info();
                format!(
                    "{} ({}, compute capability {}, {} MiB)",
                    info.label,
                    info.name,
                    decimal(info.compute_capability),
                    info.memory_bytes >> 20
                )
            })
            .collect();
        format!("{}, {}, PTX by {}", cards.join(", "), self.half.name(), kernels::KERNEL_ORIGIN)
    }

    fn load(&self, vit: &Vit, extraction: &Extraction) -> Result<Model> {
        let cards =
            at_once(self.cards.iter(), |card| CardModel::new(card, vit, extraction, self.half))?;
        let grid = extraction.grid(vit)?;
        Ok(Model {
            cards,
            input: extraction.input,
            grid,
            width: vit.architecture.width,
            layers: extraction.layers.clone(),
            family: vit.architecture.family,
            class_width: vit.architecture.class_dim,
            projection: vit.projection.as_ref().map(|p| p.to_f32()),
        })
    }

    fn extract(
        &self,
        model: &Model,
        pixels: Pixels<'_>,
        progress: &dyn Progress,
    ) -> Result<Features> {
        let images = pixels.images(model.input)?;
        let count = images.len();
        progress.begin(Stage::Features, count as u64);
        let (patches, width, layers) = (model.grid.patches(), model.width, model.layers.len());
        let values = count * patches * width;
        // A model is on every card, and there is at least one.
        let on_first = &model.cards[0];
        let workspace = total(&on_first.sizes().workspace(on_first.least_batch(count), 0));
        let sizes = Self::usual_sizes(count, model.grid, width);
        let token_bytes = (layers * values * size_of::<u16>()) as u64;
        let (place, of_images) =
            if let Some(card) = self.card_that_holds(token_bytes, workspace, &sizes)? {
                let mut buffers = (0..layers)
                    .map(|_| card.alloc(values, "patch tokens"))
                    .collect::<Result<Vec<_>>>()?;
                let of_images = on_first.extract(&images, Sink::Card(&mut buffers), progress)?;
                (Place::Card(buffers), of_images)
            } else {
                let mut pinned = self.pinned(layers, values)?;
                let runs = deal(count, self.cards.len());
                let of_images = extract_to_host(model, &images, &runs, &mut pinned, progress)?;
                (Place::Host(pinned), of_images)
            };
        progress.end();
        Ok(Features {
            images: count,
            grid: model.grid,
            patches,
            width,
            stride: width,
            layers: model.layers.clone(),
            half: self.half,
            place,
            class_width: model.class_width,
            class_tokens: model.class_tokens(of_images.class_tokens),
            content: of_images.content,
            left_out: Vec::new(),
        })
    }

    fn upload(&self, features: HostFeatures) -> Result<Features> {
        features.check()?;
        let features = features.with_known_content();
        let HostFeatures { images, width, grid, .. } = features;
        let patches = grid.patches();
        let stride = width.next_multiple_of(WIDTH_STEP);
        if stride > MAX_WIDTH {
            return Err(Error::invalid(
                "width of the patch tokens, on a card",
                width,
                format!("at most {MAX_WIDTH}: wider ones need the CPU"),
            ));
        }
        let sizes = Self::usual_sizes(images, grid, stride);
        let values = images * patches * stride;
        let token_bytes = (features.tokens.len() * values * size_of::<u16>()) as u64;
        let round = |layer: usize, tokens: &[f32]| -> Result<Vec<u16>> {
            let mut rounded = vec![0u16; values];
            for (to, from) in rounded.chunks_exact_mut(stride).zip(tokens.chunks_exact(width)) {
                weights::round(self.half, from, &mut to[..width]);
            }
            match rounded.iter().position(|&bits| !self.half.value(bits).is_finite()) {
                None => Ok(rounded),
                Some(at) => Err(Error::invalid(
                    format!("patch tokens of layer {layer} in {}", self.half.name()),
                    tokens[at / stride * width + at % stride],
                    "numbers up to 65504: try bf16",
                )),
            }
        };
        let place = if let Some(card) = self.card_that_holds(token_bytes, 0, &sizes)? {
            let stream = card.stream()?;
            let layers = features.layers.iter().zip(&features.tokens);
            Place::Card(
                layers
                    .map(|(&layer, tokens)| {
                        stream.upload_new(&round(layer, tokens)?, "patch tokens")
                    })
                    .collect::<Result<_>>()?,
            )
        } else {
            let mut pinned = self.pinned(features.tokens.len(), values)?;
            for ((to, &layer), tokens) in
                pinned.iter_mut().zip(&features.layers).zip(&features.tokens)
            {
                to.copy_from_slice(&round(layer, tokens)?);
            }
            Place::Host(pinned)
        };
        let mut on_device = Features {
            images,
            grid,
            patches,
            width,
            stride,
            layers: features.layers,
            half: self.half,
            place,
            class_width: features.class_width,
            class_tokens: features.class_tokens,
            content: features.content,
            left_out: Vec::new(),
        };
        left_out::leave_out(&mut on_device, features.left_out)?;
        Ok(on_device)
    }

    fn leave_out(&self, features: &mut Features, left_out: Vec<bool>) -> Result<()> {
        left_out::leave_out(features, left_out)
    }

    fn patch_scores(
        &self,
        queries: &Features,
        references: References<'_, Features>,
        scoring: &MutualScoring,
        progress: &dyn Progress,
    ) -> Result<PatchScores> {
        patch_scores::patch_scores(&self.cards, queries, references, scoring, progress)
    }

    fn best_cosines(
        &self,
        pairs: &Pairs<'_, Features>,
        scoring: &MutualScoring,
        progress: &dyn Progress,
    ) -> Result<BestCosines> {
        pairs.check()?;
        blocks::of_pairs(self, pairs, scoring, progress)
    }

    fn scores_of_table(&self, table: &QueryTable<'_>, scoring: &MutualScoring) -> Result<Vec<f32>> {
        table.check(scoring)?;
        blocks::scores_of_table(self, table, scoring)
    }
}

impl Cuda {
    fn pinned(&self, layers: usize, values: usize) -> Result<Vec<Pinned<u16>>> {
        (0..layers).map(|_| self.cards[0].alloc_pinned(values)).collect()
    }
}

/// Every card extracts a run of the images into its part of the host's memory. What is known of the images, in order.
fn extract_to_host(
    model: &Model,
    images: &Images<'_>,
    runs: &[Range<usize>],
    pinned: &mut [Pinned<u16>],
    progress: &dyn Progress,
) -> Result<OfImages> {
    let values = model.grid.patches() * model.width;
    let mut sinks: Vec<Vec<&mut [u16]>> = runs.iter().map(|_| Vec::new()).collect();
    for layer in pinned {
        let mut rest: &mut [u16] = layer;
        for (run, sink) in runs.iter().zip(&mut sinks) {
            let (part, others) = rest.split_at_mut(run.len() * values);
            sink.push(part);
            rest = others;
        }
    }
    let work: Vec<_> = model.cards.iter().zip(runs).zip(sinks).collect();
    let parts = at_once(work.into_iter(), |((card, run), sink)| {
        card.extract(&images.part(run.clone()), Sink::Host(sink), progress)
    })?;
    let mut all = OfImages { class_tokens: Vec::new(), content: Vec::new() };
    for part in parts {
        all.class_tokens.extend(part.class_tokens);
        all.content.extend(part.content);
    }
    Ok(all)
}

impl Model {
    /// Class tokens as re-scoring takes them: CLIP's projected and normalised, others as the final norm left them.
    fn class_tokens(&self, normed: Vec<f32>) -> Vec<f32> {
        let Some(projection) = &self.projection else { return normed };
        let mut tokens = Vec::with_capacity(normed.len() / self.width.max(1) * self.class_width);
        for row in normed.chunks_exact(self.width) {
            let mut sums = vec![0.0f64; self.class_width];
            for (&value, weights) in row.iter().zip(projection.chunks_exact(self.class_width)) {
                for (sum, &weight) in sums.iter_mut().zip(weights) {
                    *sum += f64::from(value) * f64::from(weight);
                }
            }
            let norm = sums.iter().map(|sum| sum * sum).sum::<f64>().sqrt();
            let scale =
                if self.family.unit_class_tokens() && norm > 0.0 { 1.0 / norm } else { 1.0 };
            tokens.extend(sums.iter().map(|sum| (sum * scale) as f32));
        }
        tokens
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_dealt_out_whole() {
        assert_eq!(deal(7, 3), [0..3, 3..5, 5..7]);
        assert_eq!(deal(1, 2), [0..1, 1..1]);
        assert_eq!(deal(0, 2), [0..0, 0..0]);
    }
}
