//! LNAMD and MSM of the CPU backend: against the definition in f64, and against the goldens.

use std::sync::atomic::{AtomicU64, Ordering};

use musc::backend::cpu::{Cpu, CpuOptions, Format, Instructions};
use musc::backend::{Backend, HostFeatures, References};
use musc::scoring::MutualScoring;
use musc::scoring::schedule::Schedule;
use musc::{Error, Grid, Progress, Stage};
use safetensors::SafeTensors;

use self::compare::assert_within;
use self::random_features::random_features;
use self::sides::Sides;
use self::stages::Stages;

#[path = "common/compare.rs"]
mod compare;
#[path = "common/random_features.rs"]
mod random_features;
#[path = "common/sides.rs"]
mod sides;
#[path = "common/stages.rs"]
mod stages;

/// Grids that no vector width, no window and no square fits.
const GRIDS: [(usize, usize); 9] =
    [(1, 17), (64, 5), (7, 7), (1, 1), (16, 3), (2, 9), (17, 1), (3, 28), (5, 41)];

fn cpu() -> Cpu {
    Cpu::new(2).unwrap()
}

/// A backend for each kind of vector instructions that this machine has. Those it lacks are named, and how many they are.
fn each_kind() -> Vec<Cpu> {
    let (here, lacking): (Vec<_>, Vec<_>) =
        Instructions::ALL.into_iter().partition(|each| each.available());
    println!("not on this machine, not tested: {} {lacking:?}", lacking.len());
    here.into_iter()
        .map(|each| {
            Cpu::open(CpuOptions::default().with_threads(2).with_instructions(each)).unwrap()
        })
        .collect()
}

/// Scoring in bf16, where this machine can be tested with it; else that is said.
fn cpu_in_bf16(threads: usize) -> Option<Cpu> {
    if !Instructions::Avx512Bf16.available() {
        println!("not on this machine, not tested: {}", Instructions::Avx512Bf16);
        return None;
    }
    let options = CpuOptions::default().with_threads(threads);
    let options = options.with_instructions(Instructions::Avx512Bf16);
    Some(Cpu::open(options.with_formats(Format::F32, Format::Bf16)).unwrap())
}

/// Degrees whose window fits the grid on one side at least.
fn degrees(grid: Grid) -> Vec<usize> {
    [1, 3, 5, 7].into_iter().filter(|degree| *degree < 2 * grid.longest()).collect()
}

/// The pooled product equals pooling first, on awkward sizes.
#[test]
fn equals_the_definition_on_awkward_sizes() {
    for (images, grid, width, degrees) in [
        (2, 1, 2, vec![1]),
        (2, 1, 5, vec![1]),
        (2, 2, 3, vec![1, 3]),
        (3, 3, 7, vec![1, 3, 5]),
        (5, 4, 16, vec![5, 3, 1]),
        (4, 5, 17, vec![1, 3, 5, 7, 9]),
        (11, 7, 31, vec![3]),
        (9, 8, 33, vec![1, 3, 5]),
        (3, 16, 64, vec![1, 3, 5]),
        (2, 17, 24, vec![7, 1]),
    ] {
        let sides = Sides::others(random_features(images, Grid::square(grid), width, 2));
        sides.assert_scored(&cpu(), &MutualScoring::default().with_degrees(degrees));
    }
}

/// Every kind of vectors, both kinds of references, with and without a radius, with and without patches left out.
#[test]
fn equals_the_definition_with_each_kind_of_vectors() {
    for cpu in each_kind() {
        for (rows, columns) in GRIDS {
            let grid = Grid::new(rows, columns);
            let scoring = MutualScoring::default().with_degrees(degrees(grid));
            let others = || Sides::others(random_features(4, grid, 19, 2));
            let set = || Sides::set(3, 5, grid, 19, 2);
            for radius in [None, Some(0), Some(1), Some(2)] {
                let scoring = scoring.clone().with_radius(radius);
                for sides in [others(), set(), others().with_left_out(), set().with_left_out()] {
                    sides.assert_scored(&cpu, &scoring);
                }
            }
        }
    }
}

/// A grid of the size of real ones, whose rows are whole cache lines and whose columns are not.
#[test]
fn equals_the_definition_on_a_large_grid() {
    let grid = Grid::new(37, 16);
    for cpu in each_kind() {
        let others = Sides::others(random_features(3, grid, 24, 1));
        others.assert_scored(&cpu, &MutualScoring::default());
        let set = Sides::set(2, 3, grid, 24, 1).with_left_out();
        for radius in [None, Some(3)] {
            set.assert_scored(&cpu, &MutualScoring::default().with_radius(radius));
        }
        // Its rows of products are visited in two tiles.
        let wide = Sides::set(1, 2, Grid::new(4, 100), 24, 1).with_left_out();
        wide.assert_scored(&cpu, &MutualScoring::default());
    }
}

/// Of tokens that bf16 has, scoring in bf16 is as exact as in f32.
#[test]
fn equals_the_definition_in_bf16() {
    let Some(cpu) = cpu_in_bf16(2) else { return };
    for (rows, columns) in GRIDS.into_iter().chain([(37, 16)]) {
        let grid = Grid::new(rows, columns);
        let scoring = MutualScoring::default().with_degrees(degrees(grid));
        for width in [19, 64] {
            let others = || Sides::others(random_features(4, grid, width, 2)).in_bf16();
            let set = || Sides::set(3, 5, grid, width, 2).in_bf16();
            for sides in [others(), set(), others().with_left_out(), set().with_left_out()] {
                sides.assert_scored(&cpu, &scoring);
            }
        }
    }
}

/// Of any tokens, what rounding moves is within its bound; images without structure and tokens of any size stay finite.
#[test]
fn rounding_to_bf16_moves_scores_within_its_bound() {
    let Some(cpu) = cpu_in_bf16(2) else { return };
    let grid = Grid::new(5, 7);
    let scoring = MutualScoring::default();
    type Change = fn(usize, &mut f32);
    let changed = |change: Change| {
        let mut features = random_features(6, grid, 48, 2);
        for layer in &mut features.tokens {
            layer.iter_mut().enumerate().for_each(|(at, value)| change(at, value));
        }
        Sides::others(features)
    };
    let kinds: [(&str, Change); 6] = [
        ("random", |_, _| ()),
        ("an outlier channel", |at, value| {
            if at % 48 == 5 {
                *value = 1e4 * (1.0 + value.abs());
            }
        }),
        ("a constant image", |at, value| {
            if at / (48 * 35) == 2 {
                *value = 0.7;
            }
        }),
        ("all zero", |_, value| *value = 0.0),
        ("large", |_, value| *value *= 1e15),
        ("small", |_, value| *value *= 1e-15),
    ];
    for (name, change) in kinds {
        let sides = changed(change);
        let exact = sides.expected(&scoring);
        let found = sides.scores(&cpu, &scoring);
        // Each coordinate of both tokens is moved by 2⁻⁸ of itself at most: both vectors by 2⁻⁸ of their length, and their
        // unit vectors by no more, so that the distance between those moves by twice that. Pooled tokens are sums: what
        // moves them is 2⁻⁸ of the sum of the lengths, and these random ones are up to 5 times shorter than that.
        let bound = |_: usize| 5.0 * 2.0 / 256.0;
        let part = assert_within(name, &found.by_degree_layer, &exact, bound);
        println!("{name}: {part:.3} of the bound");
        if name == "all zero" {
            assert!(found.by_degree_layer == sides.scores(&self::cpu(), &scoring).by_degree_layer);
        }
    }
}

/// Equal images are at distance 0, whatever rounding does to them.
#[test]
fn duplicates_are_at_distance_zero_in_bf16() {
    let Some(cpu) = cpu_in_bf16(2) else { return };
    let mut features = random_features(3, Grid::new(6, 5), 40, 1);
    let values = 30 * 40;
    features.tokens[0].copy_within(..values, 2 * values);
    let scoring = MutualScoring::default().with_interval(0.0, 0.01);
    let scores = Sides::others(features).scores(&cpu, &scoring);
    for degree in scores.by_degree_layer.chunks_exact(3 * 30) {
        for image in [0, 2] {
            // As a difference of cosines, 1e-6.
            let largest = degree[image * 30..][..30].iter().copied().fold(0.0, f32::max);
            assert!(largest < 1.5e-3, "{largest:e}");
        }
    }
}

#[test]
fn other_intervals_are_means_of_those_ranks() {
    let grid = Grid::square(4);
    for sides in [Sides::others(random_features(8, grid, 12, 1)), Sides::set(4, 9, grid, 12, 1)] {
        for (low, high) in [(0.0, 1.0), (0.3, 0.7), (0.9, 1.0), (0.0, 0.01)] {
            sides.assert_scored(&cpu(), &MutualScoring::default().with_interval(low, high));
        }
    }
}

/// Two ways to one number: pooling after the product, and the product of what is pooled.
#[test]
fn radius_over_the_whole_grid_is_none() {
    for (rows, columns) in GRIDS {
        let grid = Grid::new(rows, columns);
        let scoring = MutualScoring::default().with_degrees(degrees(grid));
        for sides in [
            Sides::others(random_features(5, grid, 20, 2)),
            Sides::set(3, 5, grid, 20, 2),
            Sides::set(3, 5, grid, 20, 2).with_left_out(),
        ] {
            let anywhere = sides.scores(&cpu(), &scoring);
            for radius in [grid.longest() - 1, usize::MAX] {
                let near = sides.scores(&cpu(), &scoring.clone().with_radius(Some(radius)));
                let anywhere = &anywhere.by_degree_layer;
                // As in `assert_scored`, for both.
                let bound = |at: usize| 2e-6 / f64::from(anywhere[at]).max(1e-3);
                let what = format!("grid {grid}, radius {radius}");
                assert_within(&what, &near.by_degree_layer, anywhere, bound);
            }
        }
    }
}

#[test]
fn groups_and_threads_change_no_bit() {
    let grid = Grid::new(5, 6);
    let kinds = [
        Sides::others(random_features(13, grid, 20, 2)),
        Sides::others(random_features(13, grid, 20, 2)).with_left_out(),
        Sides::set(7, 11, grid, 20, 2),
        Sides::set(70, 3, grid, 20, 2).with_left_out(),
    ];
    let make: [fn(usize) -> Option<Cpu>; 2] = [|threads| Cpu::new(threads).ok(), cpu_in_bf16];
    let each = kinds.iter().flat_map(|sides| [(sides, None), (sides, Some(1))]);
    for ((sides, radius), make) in each.flat_map(|each| make.map(|make| (each, make))) {
        let whole = MutualScoring::default().with_radius(radius);
        let Some(one) = make(1) else { continue };
        let expected = sides.scores(&one, &whole);
        let references = sides.references.as_ref().unwrap_or(&sides.queries).images;
        let three_images = 3 * 3 * references * grid.patches() * 4;
        for (threads, table_bytes) in [(2, 1 << 30), (3, 0), (2, three_images)] {
            let scoring = whole.clone().with_table_bytes(Some(table_bytes));
            let cpu = make(threads).unwrap();
            let counted = Counter::default();
            let scores =
                cpu.patch_scores(&sides.queries, sides.references(), &scoring, &counted).unwrap();
            assert!(scores == expected, "{threads} threads, table of {table_bytes} bytes");
            let images = sides.queries.images;
            let pairs = match (&sides.references, radius) {
                (None, None) => {
                    let group = scoring.group_images((images, images), grid.patches(), 0);
                    Schedule::others(images).in_groups(group).pairs()
                }
                (None, Some(_)) => (images * (images - 1) / 2) as u64,
                (Some(_), _) => {
                    let unseen = sides.unseen().iter().map(Vec::len).sum::<usize>();
                    (images * references - unseen) as u64
                }
            };
            assert_eq!(counted.all(), [2 * pairs, 2 * pairs, 1], "table of {table_bytes} bytes");
        }
    }
}

/// A pair's numbers do not depend on which other images there are, nor on which side they stand.
#[test]
fn set_gives_the_bits_of_others() {
    let grid = Grid::new(3, 7);
    let all = random_features(6, grid, 24, 1);
    let scoring = MutualScoring::default();
    let one = |at: usize| {
        let values = grid.patches() * all.width;
        let tokens = vec![all.tokens[0][at * values..(at + 1) * values].to_vec()];
        HostFeatures::new(1, grid, all.width, vec![0], tokens)
    };
    let others = Sides::others(all.clone()).scores(&cpu(), &scoring);
    let (patches, plane) = (grid.patches(), 6 * grid.patches());
    // Image 0 is the row of all its pairs, as a query is.
    let set = Sides { queries: one(0), references: Some(all.clone()) }.scores(&cpu(), &scoring);
    for degree in 0..3 {
        let got = &set.by_degree_layer[degree * patches..][..patches];
        assert_eq!(got, &others.by_degree_layer[degree * plane..][..patches]);
    }
    // Left-out patches may hold anything.
    let marked = Sides::others(all.clone()).with_left_out();
    let mut changed = Sides::others(marked.queries.clone());
    let width = all.width;
    for (token, _) in changed.queries.tokens[0]
        .chunks_exact_mut(width)
        .zip(&marked.queries.left_out)
        .filter(|(_, out)| **out)
    {
        token.fill(-3.0);
    }
    for radius in [None, Some(1)] {
        let scoring = scoring.clone().with_radius(radius);
        assert!(marked.scores(&cpu(), &scoring) == changed.scores(&cpu(), &scoring));
    }
    // Marks that leave nothing out change nothing.
    let mut unmarked = Sides::others(all.clone());
    unmarked.queries.left_out = vec![false; 6 * patches];
    assert!(unmarked.scores(&cpu(), &scoring) == others);
}

#[test]
fn what_cannot_be_compared_is_refused() {
    let cpu = cpu();
    let grid = Grid::new(2, 3);
    let queries = random_features(2, grid, 5, 1);
    let scoring = MutualScoring::default().with_degrees([1]);
    let said = |queries: &HostFeatures, references: References<'_, HostFeatures>| {
        cpu.patch_scores(queries, references, &scoring, &()).unwrap_err().to_string()
    };
    let set = |other: &HostFeatures| said(&queries, References::Set(other));
    let turned = set(&random_features(2, Grid::new(3, 2), 5, 1));
    assert!(turned.contains("2x3") && turned.contains("3x2"), "{turned}");
    let wide = set(&random_features(2, grid, 6, 1));
    assert!(wide.contains("found 5") && wide.contains("expected 6"), "{wide}");
    assert!(set(&random_features(2, grid, 5, 2)).contains("layers"));
    assert!(set(&random_features(0, grid, 5, 1)).contains("none"));
    let one = Sides::set(1, 2, grid, 5, 1);
    let mut itself = one.queries.clone();
    itself.content.clear();
    let alone = said(&one.queries, References::Set(&itself));
    assert!(alone.contains("query 0") && alone.contains("own content"), "{alone}");
    let single = said(&one.queries, References::Others);
    assert!(single.contains("at least 1"), "{single}");
    let mut short = queries.clone();
    short.tokens[0].pop();
    assert!(said(&short, References::Others).contains("59 values"));

    let mut marked = queries.clone();
    let nothing = [vec![false; 6], vec![true; 6]].concat();
    let refused = cpu.leave_out(&mut marked, nothing).unwrap_err().to_string();
    assert!(refused.contains("image 1"), "{refused}");
    assert!(cpu.leave_out(&mut marked, vec![false; 5]).is_err());
    assert!(marked == queries, "changed by what was refused");
    let marks = [true, false, false, false, false, false].repeat(2);
    cpu.leave_out(&mut marked, marks.clone()).unwrap();
    assert_eq!(marked.left_out, marks);
    for radius in [None, Some(1)] {
        let scoring = scoring.clone().with_radius(radius);
        let stopped = cpu.patch_scores(&queries, References::Others, &scoring, &Stopped);
        assert!(matches!(stopped, Err(Error::Interrupted)));
    }
}

/// Steps announced and done, and stages that ended.
#[derive(Default)]
struct Counter([AtomicU64; 3]);

impl Counter {
    fn all(&self) -> [u64; 3] {
        self.0.each_ref().map(|count| count.load(Ordering::SeqCst))
    }
}

impl Progress for Counter {
    fn begin(&self, stage: Stage, steps: u64) {
        assert_eq!(stage, Stage::Scoring);
        self.0[0].fetch_add(steps, Ordering::SeqCst);
    }
    fn advance(&self, steps: u64) {
        self.0[1].fetch_add(steps, Ordering::SeqCst);
    }
    fn end(&self) {
        self.0[2].fetch_add(1, Ordering::SeqCst);
    }
}

struct Stopped;

impl Progress for Stopped {
    fn stopped(&self) -> bool {
        true
    }
}

/// Holds patch scores to a golden: 2e-4 where the score is above 0.05. A score near 0 is a distance of nearly equal vectors,
/// whose square is what is rounded: √(2·1e-6), as in `assert_scored`.
fn assert_golden(what: &str, got: &[f32], expected: &[f32]) {
    let bound = |at: usize| if expected[at] > 0.05 { 2e-4 } else { 1.5e-3 };
    let part = assert_within(what, got, expected, bound);
    println!("{what}: {part:.3} of the bound");
}

fn golden_stages(path: &str) {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let patches = file.tensor("tokens.0").unwrap().shape()[1];
    let stages = Stages::new(&file, "", Grid::of_square(patches).unwrap());
    let scores = Sides::others(stages.queries()).scores(&cpu(), &MutualScoring::default());
    let by_layer = stages.floats("patch_scores_by_r_layer");
    assert_golden("by degree and layer", &scores.by_degree_layer, &by_layer);
    assert_golden("mean", &scores.mean(), &stages.floats("patch_scores"));
}

fn data(name: &str) -> String {
    format!("{}/tests/data/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn golden_stages_small() {
    golden_stages(&data("stages_small.safetensors"));
}

/// The large twin of `stages_small`, which is not in the repository: where `MUSC_GOLDENS` names the folder it must be there;
/// where it does not, nothing is claimed, and a line says so.
#[test]
fn golden_stages_large() {
    let Some(folder) = std::env::var_os("MUSC_GOLDENS") else {
        println!("left out: MUSC_GOLDENS names no folder of goldens");
        return;
    };
    let path = std::path::Path::new(&folder).join("stages.safetensors");
    golden_stages(&path.display().to_string());
}

/// All that a case of the goldens on grids that are not square holds of scoring.
fn golden_case(cpu: &Cpu, stages: &Stages<'_>, with_left_out: bool) {
    let others = Sides::others(stages.queries());
    let set = Sides { queries: stages.queries(), references: Some(stages.references()) };
    for (kind, sides, mean) in
        [("others", &others, "patch_scores"), ("set", &set, "set_patch_scores")]
    {
        let plain = MutualScoring::default();
        for (suffix, scoring) in [
            ("", plain.clone()),
            ("_radius1", plain.clone().with_radius(Some(1))),
            ("_radius2", plain.clone().with_radius(Some(2))),
            ("_interval", plain.clone().with_interval(0.25, 0.75)),
        ] {
            let scores = sides.scores(cpu, &scoring);
            let name = format!("{kind}{suffix}");
            assert_golden(&name, &scores.by_degree_layer, &stages.floats(&name));
            if suffix.is_empty() {
                assert_golden(mean, &scores.mean(), &stages.floats(mean));
            }
        }
    }
    if with_left_out {
        let mut queries = stages.queries();
        cpu.leave_out(&mut queries, stages.marks("left_out")).unwrap();
        let mut references = stages.references();
        cpu.leave_out(&mut references, stages.marks("reference_left_out")).unwrap();
        let others = Sides::others(queries.clone()).scores(cpu, &MutualScoring::default());
        let expected = stages.floats("others_left_out");
        assert_golden("others_left_out", &others.by_degree_layer, &expected);
        let set = Sides { queries, references: Some(references) };
        let set = set.scores(cpu, &MutualScoring::default());
        assert_golden("set_left_out", &set.by_degree_layer, &stages.floats("set_left_out"));
    }
}

#[test]
fn golden_stages_wide() {
    let bytes = std::fs::read(data("stages_wide.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    for cpu in each_kind() {
        golden_case(&cpu, &Stages::new(&file, "", Grid::new(5, 9)), true);
    }
}

#[test]
fn golden_stages_awkward() {
    let bytes = std::fs::read(data("stages_awkward.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    for cpu in each_kind() {
        golden_case(&cpu, &Stages::new(&file, "1x17.", Grid::new(1, 17)), false);
        golden_case(&cpu, &Stages::new(&file, "16x3.", Grid::new(16, 3)), false);
    }
}
