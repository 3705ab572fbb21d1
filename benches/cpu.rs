//! The CPU stages through the public API: each result is checked, then the stage is timed. Names are op/shape/dtype/device.
//!
//! `cargo bench` runs all of them in some seconds each.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use musc::backend::cpu::{Cpu, CpuOptions, Format, Instructions};
use musc::backend::{Backend, HostFeatures, References};
use musc::image::{Filter, RgbImage, resize};
use musc::scoring::upsample::upsample;
use musc::scoring::{MutualScoring, reference};
use musc::{Grid, ImageSize};

fn picture(width: usize, height: usize) -> RgbImage {
    let data = (0..width * height * 3).map(|at| ((at * 31 + at / 97 * 7) % 251) as u8).collect();
    RgbImage { width, height, data }
}

/// Tokens with a common part, seeded.
fn features(images: usize, grid: usize, width: usize, layers: usize) -> HostFeatures {
    let mut state = 5u64;
    let mut uniform = move || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    let tokens =
        (0..layers).map(|_| (0..images * grid * grid * width).map(|_| uniform()).collect());
    let tokens = tokens.collect();
    HostFeatures::new(images, Grid::square(grid), width, (0..layers).collect(), tokens)
}

/// The processor in f32, and in bf16 where it multiplies that.
fn formats() -> Vec<Cpu> {
    let mut all = vec![Cpu::new(0).expect("a processor")];
    if Instructions::Avx512Bf16.available() {
        let options = CpuOptions::default().with_instructions(Instructions::Avx512Bf16);
        let options = options.with_formats(Format::Bf16, Format::Bf16);
        all.push(Cpu::open(options).expect("its instructions"));
    } else {
        println!("not on this machine, not timed: bf16");
    }
    all
}

/// How far scores in a format may be from the definition: f32 by rounding, bf16 by what it keeps of tokens of length 1.
fn bound(cpu: &Cpu) -> f64 {
    if cpu.scoring_format() == Format::Bf16 { 2.0 / 256.0 } else { 1e-4 }
}

/// The scores of a small set against the plain f64 definition.
fn check_scores(cpu: &Cpu) {
    let (images, grid, width) = (4, 4, 32);
    let host = features(images, grid, width, 1);
    let scoring = MutualScoring::default().with_degrees([1, 3]);
    let device = cpu.upload(host.clone()).expect("sizes fit");
    let scores = cpu.patch_scores(&device, References::Others, &scoring, &()).expect("options fit");
    let (tokens, left_out) = (&host.tokens[0], &[][..]);
    let layer = reference::Layer { tokens, images, grid: Grid::square(grid), width, left_out };
    for (degree, found) in
        scoring.degrees.iter().zip(scores.by_degree_layer.chunks(images * grid * grid))
    {
        let expected = reference::patch_scores(&layer, None, *degree, &scoring);
        for (found, expected) in found.iter().zip(expected) {
            assert!(
                (f64::from(*found) - expected).abs() < bound(cpu),
                "degree {degree}: {found}, {expected}"
            );
        }
    }
}

fn scoring(criterion: &mut Criterion) {
    // Degree 1 is the product, the lowest distances and nothing else; three degrees add the box sums.
    let each = [vec![1], vec![1, 3, 5]].into_iter();
    for (degrees, cpu) in each.flat_map(|d| formats().into_iter().map(move |c| (d.clone(), c))) {
        check_scores(&cpu);
        let (images, grid, width) = (8, 16, 384);
        let device = cpu.upload(features(images, grid, width, 1)).expect("sizes fit");
        let format = cpu.scoring_format().name();
        let name = format!("patch_scores/{images}x{grid}x{grid}x{width}_r{degrees:?}/{format}/cpu");
        let options = MutualScoring::default().with_degrees(degrees);
        criterion.bench_function(&name, |timed| {
            timed.iter(|| {
                cpu.patch_scores(black_box(&device), References::Others, &options, &())
                    .expect("options fit")
            });
        });
    }
}

/// Queries against a set, and patches that see only those near their own place.
fn references(criterion: &mut Criterion) {
    let cpu = Cpu::new(0).expect("a processor");
    let (grid, width) = (16, 384);
    let queries = cpu.upload(features(4, grid, width, 1)).expect("sizes fit");
    let all = features(12, grid, width, 1);
    let known = all.tokens[0][4 * grid * grid * width..].to_vec();
    let known = HostFeatures::new(8, all.grid, width, vec![0], vec![known]);
    let known = cpu.upload(known).expect("sizes fit");
    let whole = MutualScoring::default().with_degrees([1]).with_radius(Some(grid - 1));
    for (options, same) in [
        (MutualScoring::default(), MutualScoring::default()),
        // A radius over the whole grid is none.
        (MutualScoring::default().with_radius(Some(1)), whole),
    ] {
        let score = |options: &MutualScoring| {
            cpu.patch_scores(black_box(&queries), References::Set(&known), options, &())
                .expect("options fit")
        };
        let anywhere = MutualScoring::default().with_degrees(same.degrees.clone());
        let (found, expected) = (score(&same), score(&anywhere));
        for (a, b) in found.by_degree_layer.iter().zip(&expected.by_degree_layer) {
            assert!((a - b).abs() <= 1e-4, "{a} and {b}");
        }
        let near = options.radius.map_or("anywhere".into(), |radius| format!("radius{radius}"));
        let name = format!("patch_scores_{near}/4by8x{grid}x{grid}x{width}_r[1, 3, 5]/f32/cpu");
        criterion.bench_function(&name, |timed| timed.iter(|| score(&options)));
    }
}

/// Many images of few patches: what grows is the mean of the lowest distances.
fn lowest_distances(criterion: &mut Criterion) {
    let cpu = Cpu::new(0).expect("a processor");
    check_scores(&cpu);
    let device = cpu.upload(features(128, 2, 32, 1)).expect("sizes fit");
    let options = MutualScoring::default().with_degrees([1]);
    criterion.bench_function("interval_mean/128x128x4/f32/cpu", |timed| {
        timed.iter(|| {
            cpu.patch_scores(black_box(&device), References::Others, &options, &())
                .expect("options fit")
        });
    });
}

fn images(criterion: &mut Criterion) {
    let image = picture(900, 900);
    for (name, filter) in [("bicubic", Filter::Bicubic), ("bilinear", Filter::Bilinear)] {
        // A constant image stays what it is.
        let flat = RgbImage { width: 90, height: 70, data: vec![77; 90 * 70 * 3] };
        assert!(resize(&flat, ImageSize::square(51), filter).data.iter().all(|&value| value == 77));
        criterion.bench_function(&format!("resize_{name}/900x900_to_518/u8/cpu"), |timed| {
            timed.iter(|| resize(black_box(&image), ImageSize::square(518), filter));
        });
    }
    let scores: Vec<f32> = (0..37 * 37).map(|at| (at % 13) as f32).collect();
    let mut map = vec![0.0; 518 * 518];
    let (grid, size) = (Grid::square(37), ImageSize::square(518));
    upsample(&scores, grid, size, &mut map).expect("sizes fit");
    // Corners fall on patches.
    assert_eq!((map[0], map[518 * 518 - 1]), (scores[0], scores[37 * 37 - 1]));
    criterion.bench_function("upsample/37x37_to_518/f32/cpu", |timed| {
        timed.iter(|| upsample(black_box(&scores), grid, size, &mut map).expect("sizes fit"));
    });
}

/// One image through the built-in backbone: its products, mostly.
fn backbone(criterion: &mut Criterion) {
    use musc::backend::{Extraction, FeatureSet, Pixels};
    use musc::model::{Vit, backbone};
    let known = backbone("dinov2_vits14").expect("a known name");
    let weights = concat!(env!("CARGO_MANIFEST_DIR"), "/weights/dinov2_vits14.safetensors");
    let vit = Vit::open(std::path::Path::new(weights)).expect("good weights");
    let input = ImageSize::square(224);
    let extraction = Extraction::new(
        known.default_layers.to_vec(),
        input,
        known.default_activation("", input),
        known.normalisation(),
    );
    let pictures = [picture(224, 224)];
    let mut exact: Option<Vec<f32>> = None;
    for cpu in formats() {
        let model = cpu.load(&vit, &extraction).expect("a size that fits");
        let made = cpu.extract(&model, Pixels::Rgb(&pictures), &()).expect("pixels fit");
        let tokens = made.patch_tokens(3).expect("four layers");
        assert!(tokens.len() == 256 * 384 && tokens.iter().all(|value| value.is_finite()));
        // The formats agree to a few hundredths of the tokens' length.
        let exact = exact.get_or_insert_with(|| tokens.clone());
        let length = |values: &mut dyn Iterator<Item = f32>| values.map(|v| v * v).sum::<f32>();
        let moved = length(&mut tokens.iter().zip(&*exact).map(|(a, b)| a - b));
        assert!(moved.sqrt() < 0.05 * length(&mut exact.iter().copied()).sqrt(), "{moved}");
        let format = cpu.features_format().name();
        let name = format!("features/1x224x224_dinov2_vits14/{format}/cpu");
        criterion.bench_function(&name, |timed| {
            timed.iter(|| {
                cpu.extract(&model, Pixels::Rgb(black_box(&pictures)), &()).expect("pixels fit")
            });
        });
    }
}

fn short() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2))
        .without_plots()
}

criterion_group! { name = cpu; config = short(); targets = scoring, references, lowest_distances, images, backbone }
criterion_main!(cpu);
