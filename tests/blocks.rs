//! A set scored in blocks, by holders that have two of them at a time, comes to the bits of the set scored whole.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use musc::backend::blocks::{BlockScoring, Pairs, QueryTable, Run, Wanted};
use musc::backend::cpu::Cpu;
use musc::backend::cuda::driver::sim::{Sim, SimOptions};
use musc::backend::cuda::{Card, Cuda, Half};
use musc::backend::{Backend, HostFeatures, References};
use musc::scoring::MutualScoring;
use musc::{Grid, Progress};

use self::random_features::random_features;

#[path = "common/random_features.rs"]
mod random_features;

/// Tokens that f16 holds, with about one patch in five left out of some images.
fn features(images: usize, grid: Grid, layers: usize, marks: bool) -> HostFeatures {
    let mut features = random_features(images, grid, 20, layers);
    for value in features.tokens.iter_mut().flatten() {
        *value = Half::F16.value(Half::F16.bits(*value));
    }
    if marks {
        let patches = grid.patches();
        features.left_out = (0..images * patches)
            .map(|at| at / patches % 3 != 1 && at % patches != 0 && (at * 7919) % 11 < 2)
            .collect();
    }
    features
}

fn card(label: &str, limit: Option<u64>) -> Arc<Card> {
    let options = SimOptions { label: label.into(), ..SimOptions::default() };
    Card::with_driver(Arc::new(Sim::new(options)), limit)
}

fn sim(limit: Option<u64>) -> Cuda {
    Cuda::with_cards(vec![card("sim", limit)], Half::F16).unwrap()
}

/// Features of one layer and run of images.
fn part<B: Backend>(backend: &B, all: &HostFeatures, images: Range<usize>) -> B::Features {
    let layers = (0..all.layers.len()).map(|layer| all.part(images.clone(), layer).unwrap());
    let mut layers: Vec<_> = layers.collect();
    let mut whole = layers[0].clone();
    whole.layers = all.layers.clone();
    whole.tokens = layers.iter_mut().map(|layer| std::mem::take(&mut layer.tokens[0])).collect();
    backend.upload(whole).unwrap()
}

/// How the holders work together.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Way {
    /// Each takes every other block whole.
    Alone,
    /// Each pair of blocks is computed once, in two parts, and the other's half given away.
    Shared,
}

#[derive(Default)]
struct Steps(AtomicU64);

impl Progress for Steps {
    fn advance(&self, steps: u64) {
        self.0.fetch_add(steps, Ordering::Relaxed);
    }
}

/// Scores of the whole set `[R, layers, N, L]` and the pairs that were computed, all holders in turn.
fn in_blocks<B: Backend>(
    backend: &B,
    all: &HostFeatures,
    blocks: &[usize],
    scoring: &MutualScoring,
    way: Way,
) -> (Vec<f32>, u64) {
    let steps = Steps::default();
    let starts: Vec<usize> = blocks
        .iter()
        .scan(0, |sum, images| {
            *sum += images;
            Some(*sum - images)
        })
        .collect();
    let range = |block: usize| starts[block]..starts[block] + blocks[block];
    let own: Vec<_> = (0..blocks.len()).map(|block| part(backend, all, range(block))).collect();
    let mut holders: Vec<_> = (0..blocks.len())
        .map(|block| BlockScoring::new(backend, scoring, blocks, block, &own[block]).unwrap())
        .collect();
    let layers = all.layers.len();
    for layer in 0..layers {
        // A block comes with one layer, as it travels.
        let one = |block: usize| backend.upload(all.part(range(block), layer).unwrap()).unwrap();
        if way == Way::Shared {
            let begin = |holder: &BlockScoring<'_, B>| {
                assert_eq!(holder.groups(), 1);
                holder.begin(0, layer).unwrap()
            };
            let mut passes: Vec<_> = holders.iter().map(begin).collect();
            let mut given = Vec::new();
            for (block, (holder, pass)) in holders.iter().zip(&mut passes).enumerate() {
                holder.within(pass, &steps).unwrap();
                // From the last to the first: the order does not matter.
                for other in (block + 1..blocks.len()).rev() {
                    let part = (0..blocks[block], 0..blocks[other] / 2);
                    given.push(holder.share(pass, other, &one(other), part, &steps).unwrap());
                }
                for other in 0..block {
                    let part = (blocks[block] / 2..blocks[block], 0..blocks[other]);
                    given.push(holder.share(pass, other, &one(other), part, &steps).unwrap());
                }
            }
            for shared in given.iter().filter(|shared| !shared.queries.is_empty()) {
                let to = starts.iter().rposition(|&start| start <= shared.queries.start).unwrap();
                holders[to].accept(&mut passes[to], shared).unwrap();
            }
            for (holder, pass) in holders.iter_mut().zip(passes) {
                holder.finish(pass).unwrap();
            }
            continue;
        }
        for (block, holder) in holders.iter_mut().enumerate() {
            for group in 0..holder.groups() {
                let mut pass = holder.begin(group, layer).unwrap();
                for other in (0..blocks.len()).rev().filter(|&other| other != block) {
                    let features = one(other);
                    holder.take(&mut pass, other, &features, &steps).unwrap();
                }
                holder.within(&mut pass, &steps).unwrap();
                holder.finish(pass).unwrap();
            }
        }
    }
    let patches = all.grid.patches();
    let (degrees, plane) = (scoring.degrees.len(), all.images * patches);
    let mut scores = vec![f32::NAN; degrees * layers * plane];
    for (block, holder) in holders.into_iter().enumerate() {
        let of_block = holder.scores().unwrap();
        assert_eq!((of_block.images, of_block.layers), (blocks[block], layers));
        let run = blocks[block] * patches;
        for (at, from) in of_block.by_degree_layer.chunks_exact(run).enumerate() {
            scores[at * plane + starts[block] * patches..][..run].copy_from_slice(from);
        }
    }
    (scores, steps.0.into_inner())
}

#[track_caller]
fn same<B: Backend>(
    backend: &B,
    all: &HostFeatures,
    blocks: &[usize],
    scoring: &MutualScoring,
    way: Way,
) -> u64 {
    let whole = backend.upload(all.clone()).unwrap();
    let usual = scoring.clone().with_table_bytes(None);
    let expected = backend.patch_scores(&whole, References::Others, &usual, &()).unwrap();
    let (scores, pairs) = in_blocks(backend, all, blocks, scoring, way);
    let bits = |scores: &[f32]| scores.iter().map(|score| score.to_bits()).collect::<Vec<_>>();
    let (found, expected) = (bits(&scores), bits(&expected.by_degree_layer));
    assert!(expected.iter().any(|&bits| bits != 0));
    let differ = found.iter().zip(&expected).position(|(a, b)| a != b);
    assert_eq!(differ, None, "{blocks:?}, {scoring:?}, {way:?}");
    pairs
}

const BLOCKS: [&[usize]; 6] = [&[13], &[1, 12], &[7, 2, 1, 3], &[2, 11], &[6, 7], &[1; 13]];

#[test]
fn the_processor_s_scores_are_those_of_the_whole() {
    let cpu = Cpu::new(2).unwrap();
    for (marks, grid, degrees) in [
        (false, Grid::new(5, 7), vec![1, 3, 5]),
        (true, Grid::new(4, 3), vec![5, 1, 3, 3]),
        (true, Grid::new(1, 17), vec![3]),
    ] {
        let all = features(13, grid, 3, marks);
        let scoring = MutualScoring::default().with_degrees(degrees).with_interval(0.2, 0.7);
        for blocks in BLOCKS {
            let pairs = same(&cpu, &all, blocks, &scoring, Way::Shared);
            assert_eq!(pairs, 3 * 13 * 12 / 2, "each pair once");
            let within: usize = blocks.iter().map(|images| images * (images - 1) / 2).sum();
            let across = 13 * 12 / 2 - within;
            let pairs = same(&cpu, &all, blocks, &scoring, Way::Alone);
            assert_eq!(pairs as usize, 3 * (within + 2 * across), "pairs across blocks twice");
        }
    }
}

#[test]
fn groups_are_the_same_bits() {
    let cpu = Cpu::new(1).unwrap();
    let all = features(11, Grid::new(3, 4), 2, true);
    // Room for so many queries, and a little less than one.
    for queries in [1, 2, 3, 5] {
        let bytes = queries * 2 * 11 * 12 * 4;
        let scoring = MutualScoring::default().with_degrees([1, 3]);
        let scoring = scoring.with_table_bytes(Some(bytes - usize::from(queries == 1)));
        for blocks in [&[11][..], &[5, 6], &[1, 7, 3]] {
            same(&cpu, &all, blocks, &scoring, Way::Alone);
        }
    }
}

#[test]
fn a_card_s_scores_are_those_of_the_whole() {
    let sim = sim(None);
    for (marks, degrees) in [(false, vec![1]), (true, vec![3, 1, 3])] {
        let all = features(7, Grid::new(3, 4), 2, marks);
        let scoring = MutualScoring::default().with_degrees(degrees).with_interval(0.1, 0.8);
        for blocks in [&[7][..], &[1, 6], &[4, 2, 1]] {
            same(&sim, &all, blocks, &scoring, Way::Shared);
            same(&sim, &all, blocks, &scoring, Way::Alone);
        }
        let bytes = 2 * scoring.degrees.len() * 7 * 12 * 4;
        let scoring = scoring.with_table_bytes(Some(bytes));
        same(&sim, &all, &[3, 4], &scoring, Way::Alone);
    }
}

#[test]
fn a_card_with_little_memory_and_several_cards_give_the_same() {
    let all = features(9, Grid::new(3, 4), 1, true);
    // Through a Gram block, and fused, where a table of a few images is all that fits: tiles of 1, of 2, of more.
    for (degrees, kilobytes) in [(&[1, 3][..], [460, 480, 600]), (&[1], [12, 16, 64])] {
        let scoring = MutualScoring::default().with_degrees(degrees);
        let (expected, _) = in_blocks(&sim(None), &all, &[5, 4], &scoring, Way::Shared);
        let cards = vec![card("sim:0", None), card("sim:1", None)];
        let two = Cuda::with_cards(cards, Half::F16).unwrap();
        let (of_two, _) = in_blocks(&two, &all, &[5, 4], &scoring, Way::Shared);
        assert!(of_two == expected, "two cards");
        for kilobytes in kilobytes {
            let little = sim(Some(kilobytes << 10));
            let (scores, pairs) = in_blocks(&little, &all, &[5, 4], &scoring, Way::Shared);
            assert!(scores == expected, "{kilobytes} KiB");
            assert_eq!(pairs, 9 * 8 / 2);
        }
    }
}

/// Scores of a whole set from its table, with this in the place of each image's cosines with itself.
fn scores_with<B: Backend>(backend: &B, itself: u32) -> Vec<f32> {
    let (all, grid) = (features(5, Grid::new(3, 4), 1, false), Grid::new(3, 4));
    let features = backend.upload(all).unwrap();
    let scoring = MutualScoring::default().with_degrees([1]).with_interval(0.0, 1.0);
    let rows = Run { features: &features, images: 0..5, layer: 0 };
    let pairs = Pairs { rows, columns: None, wanted: Wanted::Both };
    let mut cosines = backend.best_cosines(&pairs, &scoring, &()).unwrap().of_rows;
    for image in 0..5 {
        cosines[(image * 5 + image) * 12..][..12].fill(itself);
    }
    let table = QueryTable { cosines: &cosines, queries: 0..5, images: 5, grid, left_out: &[] };
    backend.scores_of_table(&table, &scoring).unwrap()
}

#[test]
fn an_image_s_cosines_with_itself_are_not_looked_at() {
    let cpu = Cpu::new(1).unwrap();
    assert_eq!(scores_with(&cpu, 0), scores_with(&cpu, 0.9f32.to_bits()));
    // The key of 0.9.
    let sim = sim(None);
    assert_eq!(scores_with(&sim, 0), scores_with(&sim, 0.9f32.to_bits() | 1 << 31));
}

#[test]
fn what_does_not_fit_is_named() {
    let cpu = Cpu::new(1).unwrap();
    let all = cpu.upload(features(5, Grid::new(3, 4), 2, false)).unwrap();
    let scoring = MutualScoring::default();
    let said = |scoring: &MutualScoring, blocks: &[usize], own: usize| {
        BlockScoring::new(&cpu, scoring, blocks, own, &all).unwrap_err().to_string()
    };
    let near = scoring.clone().with_radius(Some(1));
    assert!(said(&near, &[5, 2], 0).contains("radius"), "{}", said(&near, &[5, 2], 0));
    assert!(said(&scoring, &[4, 2], 0).contains("found 5, expected 4"));
    assert!(said(&scoring, &[5, 0], 0).contains("block 1"));
    assert!(said(&scoring, &[5, 2], 2).contains("block"));
    assert!(said(&scoring, &[5], 7).contains("block"));
    let holder = BlockScoring::new(&cpu, &scoring, &[5, 2], 0, &all).unwrap();
    assert!(holder.begin(1, 0).unwrap_err().to_string().contains("group"));
    assert!(holder.begin(0, 2).unwrap_err().to_string().contains("layer"));
    let mut pass = holder.begin(0, 1).unwrap();
    let mut said = |block: usize, other: HostFeatures| {
        holder.take(&mut pass, block, &other, &()).unwrap_err().to_string()
    };
    let two = features(2, Grid::new(3, 4), 2, false);
    assert!(said(0, two.clone()).contains("block to compare with"));
    assert!(said(2, two.clone()).contains("block to compare with"));
    assert!(said(1, features(3, Grid::new(3, 4), 2, false)).contains("found 3, expected 2"));
    assert!(said(1, features(2, Grid::new(4, 3), 2, false)).contains("4x3"));
    assert!(said(1, two.part(0..2, 0).unwrap()).contains("feature layers of block 1"));
    // A block that never came.
    holder.within(&mut pass, &()).unwrap();
    let mut holder = holder;
    let error = holder.finish(pass).unwrap_err().to_string();
    assert!(error.contains("image 0") && error.contains("image 5"), "{error}");
    assert!(holder.scores().unwrap_err().to_string().contains("group 0 in layer 0"));
    let run = |images: Range<usize>, layer: usize| Run { features: &all, images, layer };
    let pairs = |rows, columns| Pairs { rows, columns, wanted: Wanted::Both };
    for wrong in [
        pairs(run(0..6, 0), None),
        pairs(run(2..2, 0), None),
        pairs(run(0..2, 2), None),
        pairs(run(0..2, 0), Some(run(2..3, 1))),
    ] {
        cpu.best_cosines(&wrong, &scoring, &()).unwrap_err();
    }
}
