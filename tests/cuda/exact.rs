//! What must not change a bit: batches, groups, blocks from the host, several cards, the order in which streams run.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use musc::backend::cpu::Cpu;
use musc::backend::cuda::plan::{BackboneSizes, MAX_LAUNCH_IMAGES, ScoringSizes, SetSizes, total};
use musc::backend::cuda::{Cuda, Features, Half};
use musc::backend::{Backend, Extraction, FeatureSet, HostFeatures, Pixels, References};
use musc::image::{Normalisation, RgbImage};
use musc::model::{Activation, Vit};
use musc::scoring::{MutualScoring, PatchScores};
use musc::{Grid, ImageSize, Progress, Stage};

use crate::support::*;

/// Counts the steps that were announced and those that were done.
#[derive(Default)]
struct Counter {
    announced: AtomicU64,
    done: AtomicU64,
    ended: AtomicU64,
}

impl Progress for Counter {
    fn begin(&self, _: Stage, steps: u64) {
        self.announced.fetch_add(steps, Ordering::SeqCst);
    }
    fn advance(&self, steps: u64) {
        self.done.fetch_add(steps, Ordering::SeqCst);
    }
    fn end(&self) {
        self.ended.fetch_add(1, Ordering::SeqCst);
    }
}

impl Counter {
    /// The steps of the one stage there was, all of them done.
    fn steps(&self) -> u64 {
        let read = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
        assert_eq!((read(&self.announced), read(&self.ended)), (read(&self.done), 1));
        read(&self.done)
    }
}

/// A backend on so many cards; `None` where the tests run on real ones, and there are fewer.
fn several(late_streams: u64, limit: Option<u64>, count: usize) -> Option<Cuda> {
    Some(Cuda::with_cards(cards(count, late_streams, limit)?, Half::F16).unwrap())
}

fn backend(late_streams: u64, limit: Option<u64>) -> Cuda {
    several(late_streams, limit, 1).unwrap()
}

fn images(count: u32, size: ImageSize) -> Vec<RgbImage> {
    (0..count)
        .map(|image| {
            let bytes = (0..size.pixels() * 3)
                .map(|at| ((at as u32 + 977 * image).wrapping_mul(2_654_435_761) >> 21) as u8);
            RgbImage::new(size.width, size.height, bytes.collect()).unwrap()
        })
        .collect()
}

fn clip_tiny(layers: Vec<usize>, input: ImageSize, batch_size: usize) -> (Vit, Extraction) {
    let vit = Vit::open(Path::new(&data("clip_tiny_weights.safetensors"))).unwrap();
    let extraction = Extraction::new(layers, input, Activation::Gelu, Normalisation::CLIP);
    (vit, extraction.with_batch_size(batch_size))
}

fn extracted(cuda: &Cuda, images: &[RgbImage], batch_size: usize) -> (HostFeatures, bool) {
    let (vit, extraction) = clip_tiny(vec![1, 3], images[0].size(), batch_size);
    let model = cuda.load(&vit, &extraction).unwrap();
    let counted = Counter::default();
    let features = cuda.extract(&model, Pixels::Rgb(images), &counted).unwrap();
    assert_eq!(counted.steps(), images.len() as u64);
    (features.to_host().unwrap(), features.on_card())
}

/// Room for the weights of the tiny backbone (1.8 MB) and a batch, not for a Gram block (1.6 MB) beside them.
const LITTLE: u64 = 3_000_000;

#[test]
#[cfg_attr(packaged, ignore = "a file that is in the repository only")]
fn tokens_do_not_depend_on_batches_streams_or_cards() {
    let mut images = images(7, ImageSize::new(70, 126));
    images[5] = images[2].clone();
    let (expected, on_card) = extracted(&backend(0, None), &images, 7);
    assert!(on_card);
    let mut known: Vec<u64> = expected.content.clone();
    assert_eq!((known.len(), known[5]), (7, known[2]));
    known.sort_unstable();
    known.dedup();
    assert_eq!(known.len(), 6, "equal images have one content, others each their own");
    for &late in late_streams() {
        for batch in [0, 1, 2, 3] {
            let (features, _) = extracted(&backend(late, None), &images, batch);
            assert!(features == expected, "batches of {batch}, late {late:b}");
        }
        for count in [2, 3] {
            let Some(cuda) = several(late, None, count) else { continue };
            let (features, on_card) = extracted(&cuda, &images, 2);
            assert!(!on_card);
            assert!(features == expected, "{count} cards, late {late:b}");
        }
    }
    let (features, on_card) = extracted(&backend(2, Some(LITTLE)), &images, 1);
    assert!(!on_card, "tokens go to the host when they and the scoring do not fit");
    assert!(features == expected, "tokens on the host");
}

fn scored(
    cuda: &Cuda,
    queries: &HostFeatures,
    references: Option<&HostFeatures>,
    scoring: &MutualScoring,
) -> PatchScores {
    let queries = cuda.upload(queries.clone()).unwrap();
    let references = references.map(|set| cuda.upload(set.clone()).unwrap());
    let references = references.as_ref().map_or(References::Others, References::Set);
    let counted = Counter::default();
    let scores = cuda.patch_scores(&queries, references, scoring, &counted).unwrap();
    assert!(counted.steps() > 0);
    assert!(scores.by_degree_layer.iter().all(|score| score.is_finite()));
    scores
}

/// Both kinds of references, with and without a radius. How few bytes cut the work in blocks is checked.
#[test]
fn scores_do_not_depend_on_groups_blocks_streams_or_cards() {
    let (n, m) = (11, 7);
    for (grid, degrees, radius, little) in [
        // A Gram block of an image takes 35 * 8192 * 4 bytes, a block of an image's tokens 35 * 128 * 2.
        (Grid::new(7, 5), vec![1, 3, 5], None, 1_260_000),
        (Grid::new(7, 5), vec![1], None, 110_000),
        (Grid::new(3, 4), vec![1, 3], Some(1), 70_000),
    ] {
        let queries = random_features(n, grid, 128, 2);
        let references = random_features(m, grid, 128, 2);
        let scoring = MutualScoring::default().with_degrees(degrees).with_radius(radius);
        for set in [None, Some(&references)] {
            let what = format!("{:?}, radius {radius:?}, set {}", scoring.degrees, set.is_some());
            let expected = scored(&backend(0, None), &queries, set, &scoring);
            let row = 4 * scoring.degrees.len() * set.map_or(n, |_| m) * grid.patches();
            for table_bytes in [0, 4 * row] {
                let grouped = scoring.clone().with_table_bytes(Some(table_bytes));
                let scores = scored(&backend(0, None), &queries, set, &grouped);
                assert!(scores == expected, "{what}, table of {table_bytes} bytes");
            }
            let host = |images| SetSizes { images, on_card: false };
            let sizes = ScoringSizes::new(host(n), set.map(|_| host(m)), (grid, 128), &scoring);
            let plan = sizes.plan(&scoring, little).unwrap();
            let cut = (plan.blocks.0 < n, plan.blocks.1 < sizes.images().1);
            assert_eq!(cut, (true, true), "{what}: not in blocks: {plan:?}");
            for late in [0, 1, 2, u64::MAX] {
                let cuda = backend(late, Some(little));
                assert!(!cuda.upload(queries.clone()).unwrap().on_card());
                let scores = scored(&cuda, &queries, set, &scoring);
                assert!(scores == expected, "{what}, blocks from the host, late {late:b}");
                let Some(two) = several(late, None, 2) else { continue };
                let scores = scored(&two, &queries, set, &scoring);
                assert!(scores == expected, "{what}, two cards, late {late:b}");
            }
            if let Some(three) = several(0, Some(little), 3) {
                let scores = scored(&three, &queries, set, &scoring);
                assert!(scores == expected, "{what}, three cards and blocks");
            }
        }
    }
}

/// Tokens of one set on the card and of the other on the host, either way.
#[test]
fn scores_do_not_depend_on_where_tokens_are() {
    let grid = Grid::new(3, 5);
    let (queries, references) =
        (random_features(5, grid, 128, 1), random_features(9, grid, 128, 1));
    for radius in [None, Some(1)] {
        let scoring = MutualScoring::default().with_radius(radius);
        let expected = scored(&backend(0, None), &queries, Some(&references), &scoring);
        for queries_on_card in [true, false] {
            let cuda = backend(0, Some(1_000_000));
            let upload = |features: &HostFeatures, on_card: bool| {
                if on_card {
                    return cuda.upload(features.clone()).unwrap();
                }
                // Memory that is taken meanwhile leaves too little for the tokens.
                let card = &cuda.cards()[0];
                let available = card.available_bytes().unwrap() as usize;
                let _taken = card.alloc::<u8>(available - 10_000, "ballast").unwrap();
                cuda.upload(features.clone()).unwrap()
            };
            let queries = upload(&queries, queries_on_card);
            let references = upload(&references, !queries_on_card);
            assert_eq!(
                (queries.on_card(), references.on_card()),
                (queries_on_card, !queries_on_card)
            );
            let scores =
                cuda.patch_scores(&queries, References::Set(&references), &scoring, &()).unwrap();
            assert!(scores == expected, "radius {radius:?}, queries on card: {queries_on_card}");
        }
    }
}

/// The images of a set against that same set: each query leaves out its own content, and what is left is `Others`. The
/// products are the same; their sums may be taken in another order.
#[test]
fn a_set_against_itself_is_others() {
    let features = random_features(7, Grid::new(4, 6), 128, 1);
    for scoring in [
        MutualScoring::default(),
        MutualScoring::default().with_degrees([1]),
        MutualScoring::default().with_degrees([1, 3]).with_radius(Some(1)),
    ] {
        let cuda = backend(0, None);
        let others = scored(&cuda, &features, None, &scoring);
        let set = scored(&cuda, &features, Some(&features), &scoring);
        let what = format!("{:?}", scoring.degrees);
        assert_within(&what, &set.by_degree_layer, &others.by_degree_layer, |_| 1e-5);
        // A reference twice over is left out twice.
        let mut tokens = features.tokens.clone();
        let image = features.patches() * 128;
        let again = tokens[0][2 * image..3 * image].to_vec();
        tokens[0].extend(again);
        let more = HostFeatures::new(8, features.grid, 128, vec![0], tokens);
        let set = scored(&cuda, &features, Some(&more), &scoring);
        let plane = features.patches();
        let of_third = |scores: &PatchScores| -> Vec<f32> {
            let planes = scores.by_degree_layer.chunks_exact(plane);
            planes.skip(2).step_by(7).flatten().copied().collect()
        };
        assert_within(&what, &of_third(&set), &of_third(&others), |_| 1e-5);
    }
}

/// What a left-out patch holds makes no difference, and it may be left out before or after the upload; on one card, on
/// two, and from the host.
#[test]
fn left_out_patches_make_no_difference() {
    let grid = Grid::new(4, 6);
    let mut features = random_features(5, grid, 128, 2);
    let marks: Vec<bool> = (0..5 * 24).map(|at| at % 24 < 6 && at >= 24 || at == 50).collect();
    let scoring = MutualScoring::default();
    for radius in [None, Some(1)] {
        let scoring = scoring.clone().with_radius(radius);
        let cuda = backend(0, None);
        let marked = features.clone().with_left_out(marks.clone());
        let expected = scored(&cuda, &marked, None, &scoring);
        let without = scored(&cuda, &features, None, &scoring);
        assert!(expected != without, "leaving out does something");
        for layer in &mut features.tokens {
            for (token, _) in layer.chunks_exact_mut(128).zip(&marks).filter(|(_, mark)| **mark) {
                token.fill(777.0);
            }
        }
        let mut later = cuda.upload(features.clone()).unwrap();
        cuda.leave_out(&mut later, marks.clone()).unwrap();
        assert!(later.left_out() == marks);
        let scores = cuda.patch_scores(&later, References::Others, &scoring, &()).unwrap();
        assert!(scores == expected, "radius {radius:?}, other tokens under the marks");
        let marked = features.clone().with_left_out(marks.clone());
        for (cuda, what) in [
            (Some(backend(0, Some(900_000))), "tokens on the host"),
            (several(0, None, 2), "two cards"),
        ] {
            let Some(cuda) = cuda else { continue };
            let scores = scored(&cuda, &marked, None, &scoring);
            assert!(scores == expected, "radius {radius:?}, {what}");
        }
    }
}

/// Near a patch nothing of a reference may be left: then they are as far apart as can be, on one card, on two, in groups.
#[test]
fn nothing_left_near_a_patch_is_as_far_as_can_be() {
    let (n, grid) = (5, Grid::new(2, 6));
    let features = random_features(n, grid, 128, 1);
    // The left half of images 3 and 4 is left out: patches in columns 0 and 1 see nothing of them within 1.
    let marks: Vec<bool> = (0..n * 12).map(|at| at >= 3 * 12 && at % 6 < 3).collect();
    let marked = features.clone().with_left_out(marks);
    let scoring = MutualScoring::default().with_degrees([1]).with_radius(Some(1));
    let scoring = scoring.with_interval(0.0, 1.0);
    let cuda = backend(0, None);
    let first = features.tokens[0][..3 * 12 * 128].to_vec();
    let three = HostFeatures::new(3, grid, 128, vec![0], vec![first]);
    let without = scored(&cuda, &three, None, &scoring);
    let scores = scored(&cuda, &marked, None, &scoring);
    for (at, (score, without)) in
        scores.by_degree_layer.iter().zip(&without.by_degree_layer).enumerate()
    {
        // Two distances among the three, and two of 2.
        if at % 6 < 2 {
            let expected = (2.0 * without + 2.0 * 2.0) / 4.0;
            assert!((score - expected).abs() < 1e-6, "patch {at}: {score} {expected}");
        }
    }
    let grouped = scoring.clone().with_table_bytes(Some(0));
    assert!(scored(&cuda, &marked, None, &grouped) == scores, "in groups");
    if let Some(two) = several(0, None, 2) {
        assert!(scored(&two, &marked, None, &scoring) == scores, "two cards");
    }
    // The same images as references: each leaves itself out, and sees the same nothing.
    let set = scored(&cuda, &marked, Some(&marked), &scoring);
    assert_within("as references", &set.by_degree_layer, &scores.by_degree_layer, |_| 1e-6);
}

/// More images than a Gram block has columns for, and more than it has rows for: against the CPU on the same rounded
/// tokens, whose own error is a hundredth of this.
#[test]
fn many_images_equal_the_cpu() {
    let features = random_features(11, Grid::square(28), 128, 1);
    let scoring = MutualScoring::default();
    let scores = scored(&backend(0, None), &features, None, &scoring);
    let cpu = Cpu::new(2).unwrap();
    let expected = cpu.patch_scores(&features, References::Others, &scoring, &()).unwrap();
    scores_within("28x28", &scores.by_degree_layer, &expected.by_degree_layer, 1e-4);
}

/// More images than a launch takes where its time grows with them, against themselves and against references.
#[test]
fn launches_of_many_images_are_cut() {
    let cpu = Cpu::new(2).unwrap();
    let images = MAX_LAUNCH_IMAGES + 6;
    let queries = random_features(images, Grid::new(1, 3), 64, 1);
    let references = random_features(5, Grid::new(1, 3), 64, 1);
    for degrees in [&[1][..], &[1, 3]] {
        for set in [None, Some(&references)] {
            let scoring = MutualScoring::default().with_degrees(degrees);
            let scores = scored(&backend(0, None), &queries, set, &scoring);
            let against = set.map_or(References::Others, References::Set);
            let expected = cpu.patch_scores(&queries, against, &scoring, &()).unwrap();
            let what = format!("{images} images, {degrees:?}, {}", set.is_some());
            scores_within(&what, &scores.by_degree_layer, &expected.by_degree_layer, 1e-4);
        }
    }
}

/// Both kinds of references, with and without a radius and patches left out, on grids that are not square. Through Gram
/// blocks as above; where unit tokens or a mean are rounded to f16 the spec's tolerance of a score.
#[test]
fn card_and_cpu_agree_on_grids_that_are_not_square() {
    let cpu = Cpu::new(2).unwrap();
    for (grid, width) in [(Grid::new(1, 17), 128), (Grid::new(9, 4), 96), (Grid::new(2, 40), 200)] {
        let marks = |images: usize| -> Vec<bool> {
            (0..images * grid.patches()).map(|at| at % grid.columns > 12 || at % 29 == 3).collect()
        };
        for left_out in [false, true] {
            let mut queries = random_features(4, grid, width, 2);
            let mut references = random_features(5, grid, width, 2);
            if left_out {
                queries = queries.with_left_out(marks(4));
                references = references.with_left_out(marks(5));
            }
            for (degrees, radius) in
                [(&[1, 3, 5][..], None), (&[1], None), (&[1, 3, 5], Some(0)), (&[3], Some(2))]
            {
                let scoring = MutualScoring::default().with_degrees(degrees).with_radius(radius);
                let bound = if left_out || radius.is_some() { 5e-3 } else { 1e-4 };
                for set in [None, Some(&references)] {
                    let scores = scored(&backend(0, None), &queries, set, &scoring);
                    let against = set.map_or(References::Others, References::Set);
                    let expected = cpu.patch_scores(&queries, against, &scoring, &()).unwrap();
                    let what = format!(
                        "{grid}, {degrees:?}, radius {radius:?}, {left_out}, {}",
                        set.is_some()
                    );
                    scores_within(&what, &scores.by_degree_layer, &expected.by_degree_layer, bound);
                }
            }
        }
    }
}

#[test]
fn degrees_come_in_the_order_that_was_asked_for() {
    let features = random_features(3, Grid::square(9), 128, 1);
    for radius in [None, Some(1)] {
        let scoring = MutualScoring::default().with_radius(radius);
        let all = scoring.clone().with_degrees([1, 3, 5, 7]);
        let ascending = scored(&backend(0, None), &features, None, &all);
        let mixed = scoring.with_degrees([7, 1, 5, 1]);
        let scores = scored(&backend(0, None), &features, None, &mixed);
        let plane = 3 * 81;
        for (at, from) in [(0, 3), (1, 0), (2, 2), (3, 0)] {
            assert_eq!(
                scores.by_degree_layer[at * plane..][..plane],
                ascending.by_degree_layer[from * plane..][..plane]
            );
        }
    }
}

/// The plan that decides what fits is what is then taken: to the byte for scoring, tokens on the card or on the host.
#[test]
fn scoring_takes_what_its_plan_says() {
    let grid = Grid::new(9, 8);
    let (queries, references) =
        (random_features(6, grid, 128, 2), random_features(5, grid, 128, 2));
    for (limit, table_bytes) in [(None, None), (None, Some(1)), (Some(2_550_000), None)] {
        for (set, radius) in
            [(None, None), (Some(&references), None), (None, Some(2)), (Some(&references), Some(2))]
        {
            let cuda = backend(0, limit);
            let degrees = if radius.is_some() { vec![1, 3] } else { vec![1, 3, 5] };
            let scoring = MutualScoring::default()
                .with_degrees(degrees)
                .with_table_bytes(table_bytes)
                .with_radius(radius);
            let uploaded = cuda.upload(queries.clone()).unwrap();
            let against = set.map(|set| cuda.upload(set.clone()).unwrap());
            let sizes_of = |features: &Features| {
                assert_eq!(features.on_card(), limit.is_none());
                SetSizes { images: features.images(), on_card: features.on_card() }
            };
            let available = cuda.cards()[0].available_bytes().unwrap();
            let images = if limit.is_some() { 0 } else { 6 + set.map_or(0, |_| 5) };
            let tokens = 2 * images * grid.patches() as u64 * 128 * 2;
            let sizes = ScoringSizes::new(
                sizes_of(&uploaded),
                against.as_ref().map(sizes_of),
                (grid, 128),
                &scoring,
            );
            let plan = sizes.plan(&scoring, available).unwrap();
            let set = against.as_ref().map_or(References::Others, References::Set);
            cuda.patch_scores(&uploaded, set, &scoring, &()).unwrap();
            let taken = cuda.cards()[0].peak_bytes() - tokens;
            assert_eq!(taken, total(&plan.parts), "{plan:?}");
        }
    }
}

/// The same for a batch of the backbone: what is taken beside weights and tokens is the workspace and the class tokens.
#[test]
fn extraction_takes_what_its_plan_says() {
    let input = ImageSize::new(42, 70);
    let images = images(5, input);
    for batch in [1, 3] {
        let cuda = backend(0, None);
        let (vit, extraction) = clip_tiny(vec![1, 3], input, batch);
        let model = cuda.load(&vit, &extraction).unwrap();
        let weights = cuda.cards()[0].peak_bytes();
        let sizes = BackboneSizes {
            width: 128,
            depth: 4,
            mlp_width: 512,
            patch: 14,
            grid: Grid::new(3, 5),
        };
        // Norms outside the blocks are left out of the plan, LayerScale is counted for every backbone.
        let planned = sizes.weights();
        assert!(weights.abs_diff(planned) * 50 < planned, "{weights} bytes, planned {planned}");
        let features = cuda.extract(&model, Pixels::Rgb(&images), &()).unwrap();
        assert!(features.on_card());
        let (tokens, class) = (2 * 5 * 15 * 128 * 2, 5 * 128 * 4);
        let taken = cuda.cards()[0].peak_bytes() - weights - tokens - class;
        assert_eq!(taken, total(&sizes.workspace(batch, 0)));
    }
}
