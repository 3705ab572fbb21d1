//! What a card cannot do is an error that names the kernel or the device, what it needs and what there is.

use std::path::Path;

use musc::backend::cuda::driver::sim::SimOptions;
use musc::backend::cuda::kernels::KERNEL_ORIGIN;
use musc::backend::cuda::launch::{Matrix, attention, gemm, gram_pool, interval_mean, layer_norm};
use musc::backend::cuda::{Cuda, Half};
use musc::backend::{Backend, Extraction, HostFeatures, Pixels, References};
use musc::image::Normalisation;
use musc::model::{Activation, Vit};
use musc::scoring::MutualScoring;
use musc::{Error, Grid, ImageSize};

use crate::support::*;

fn says<T>(result: Result<T, Error>, words: &[&str]) {
    let message = match result {
        Ok(_) => panic!("was not refused; expected words {words:?}"),
        Err(error) => error.to_string(),
    };
    for word in words {
        assert!(message.contains(word), "`{word}` is not in: {message}");
    }
}

fn extraction(input: ImageSize) -> Extraction {
    Extraction::new(vec![1], input, Activation::Gelu, Normalisation::IMAGENET).with_batch_size(1)
}

fn with(options: SimOptions, half: Half) -> Result<Cuda, Error> {
    Cuda::with_cards(vec![card(options, None)], half)
}

#[test]
fn old_cards_and_drivers() {
    let old = SimOptions { compute_capability: 70, ..SimOptions::default() };
    says(with(old, Half::F16), &["kernel gemm", "7.0", "need 7.5"]);
    let driver = SimOptions { cuda_version: (10, 1), ..SimOptions::default() };
    says(with(driver.clone(), Half::F16), &["kernel gemm", "needs a driver of CUDA", "found 10.1"]);
    // What an installed toolkit compiles needs a driver as new as the toolkit.
    if KERNEL_ORIGIN == "prebuilt" {
        says(with(driver.clone(), Half::F16), &["ISA 7.0", "CUDA 11.0"]);
        let turing = SimOptions { compute_capability: 75, ..driver };
        says(with(turing.clone(), Half::F16), &["ISA 6.5", "CUDA 10.2"]);
        // And the oldest that know the PTX are let in.
        let ampere = SimOptions { cuda_version: (11, 0), ..SimOptions::default() };
        with(ampere, Half::F16).unwrap();
        with(SimOptions { cuda_version: (10, 2), ..turing }, Half::F16).unwrap();
    }
    let turing = SimOptions { compute_capability: 75, ..SimOptions::default() };
    says(with(turing, Half::Bf16), &["7.5", "bf16 needs 8.0"]);
}

#[test]
fn cards_named_twice_or_not_at_all() {
    let same = vec![simulated(SimOptions::default()), simulated(SimOptions::default())];
    says(Cuda::with_cards(same, Half::F16), &["sim", "twice"]);
    says(Cuda::with_cards(Vec::new(), Half::F16), &["no card"]);
}

#[test]
fn too_little_memory_says_need_and_have() {
    let vit = Vit::open(Path::new(&data("dinov2_tiny_weights.safetensors"))).unwrap();
    let extraction = extraction(ImageSize::square(56));
    let small = |limit| Cuda::with_cards(vec![card(SimOptions::default(), Some(limit))], Half::F16);
    says(small(100_000).unwrap().load(&vit, &extraction), &["device", "need", "have", "MiB"]);
    let memory = SimOptions { memory_bytes: Some(200_000), ..SimOptions::default() };
    says(with(memory, Half::F16).unwrap().load(&vit, &extraction), &["need", "have"]);
    let features = random_features(3, Grid::square(8), 128, 1);
    let cuda = small(1_000_000).unwrap();
    let uploaded = cuda.upload(features).unwrap();
    says(
        cuda.patch_scores(&uploaded, References::Others, &MutualScoring::default(), &()),
        &["scoring 3 images", "need", "have"],
    );
}

#[test]
fn sizes_that_the_kernels_do_not_take() {
    let cuda = sim(80, Half::F16);
    says(cuda.upload(random_features(2, Grid::square(2), 1100, 1)), &["width", "1100", "1024"]);
    let mut large = random_features(2, Grid::square(2), 128, 1);
    large.tokens[0][5] = 1e6;
    says(cuda.upload(large), &["layer 0", "1000000", "65504", "bf16"]);
    let features = cuda.upload(random_features(3, Grid::square(6), 128, 1)).unwrap();
    let nine = MutualScoring::default().with_degrees([1, 9]);
    says(
        cuda.patch_scores(&features, References::Others, &nine, &()),
        &["degree r", "9", "at most 7", "CPU"],
    );
    let long = cuda.upload(random_features(2, Grid::new(1, 129), 128, 1)).unwrap();
    let usual = MutualScoring::default();
    says(
        cuda.patch_scores(&long, References::Others, &usual, &()),
        &["grid of patches", "1x129", "128", "8192"],
    );
    let vit = Vit::open(Path::new(&data("dinov2_tiny_weights.safetensors"))).unwrap();
    let square = extraction(ImageSize::square(56));
    let model = cuda.load(&vit, &square).unwrap();
    let pixels = vec![0.0; 3 * 42 * 42];
    says(cuda.extract(&model, Pixels::Normalised(&pixels), &()), &["pixels", "3x56x56"]);
    says(cuda.load(&vit, &extraction(ImageSize::new(56, 60))), &["width", "60", "patch size 14"]);
    let long = extraction(ImageSize::new(14, 14 * 8192));
    says(cuda.load(&vit, &long), &["grid of patches", "1x8192", "at most 8191"]);
}

/// Queries and references that cannot be compared, and references that are none.
#[test]
fn references_that_do_not_fit() {
    let cuda = sim(80, Half::F16);
    let usual = MutualScoring::default();
    let queries = random_features(2, Grid::new(3, 4), 128, 2);
    let on_card = cuda.upload(queries.clone()).unwrap();
    let against = |references: HostFeatures| {
        let references = cuda.upload(references).unwrap();
        cuda.patch_scores(&on_card, References::Set(&references), &usual, &())
    };
    says(against(random_features(2, Grid::new(4, 3), 128, 2)), &["patch grid", "3x4", "4x3"]);
    says(against(random_features(2, Grid::new(3, 4), 64, 2)), &["token width", "128", "64"]);
    says(against(random_features(2, Grid::new(3, 4), 128, 1)), &["feature layers", "0 1"]);
    says(against(random_features(0, Grid::new(3, 4), 128, 2)), &["references", "none"]);
    let first = |layer: &Vec<f32>| layer[..12 * 128].to_vec();
    let tokens = queries.tokens.iter().map(first).collect();
    let itself = HostFeatures::new(1, queries.grid, 128, vec![0, 1], tokens);
    says(against(itself), &["references of query 0", "own content"]);
    let single = cuda.upload(random_features(1, Grid::new(3, 4), 128, 1)).unwrap();
    says(cuda.patch_scores(&single, References::Others, &usual, &()), &["compared with", "0"]);
}

#[test]
fn marks_that_leave_nothing() {
    let cuda = sim(80, Half::F16);
    let features = random_features(2, Grid::new(2, 3), 128, 1);
    let mut on_card = cuda.upload(features.clone()).unwrap();
    says(cuda.leave_out(&mut on_card, vec![false; 11]), &["left out", "11", "12"]);
    let mut marks = vec![false; 12];
    marks[6..].fill(true);
    says(cuda.leave_out(&mut on_card, marks.clone()), &["image 1", "found 0", "at least 1 of 6"]);
    says(cuda.upload(features.with_left_out(marks)), &["image 1"]);
}

/// Launchers refuse what their kernels' headers do not allow, before anything is launched.
#[test]
fn launches_that_do_not_fit() {
    let card = card(SimOptions::default(), None);
    let stream = card.stream().unwrap();
    let mut out = card.alloc::<u16>(1000, "out").unwrap();
    let halves = card.alloc::<u16>(1000, "in").unwrap();
    let floats = card.alloc::<f32>(1000, "f32").unwrap();
    says(
        attention::flash(&stream, Half::F16, halves.view(), out.view_mut(), 1, 16, 1),
        &["kernel attention_flash_f16", "qkv", "1000 values", "at least 3072"],
    );
    let matrix = |rows, stride| Matrix { values: halves.view(), rows, stride };
    let product = |k, rows, stride| gemm::Operands {
        half: Half::F16,
        a: matrix(rows, stride),
        b: matrix(8, stride),
        k,
    };
    let mut bias = |operands: gemm::Operands<'_>| {
        gemm::bias(&stream, &operands, floats.view(), None, out.view_mut())
    };
    says(bias(product(33, 4, 40)), &["gemm_bias_f16", "k: found 33", "multiple of 32"]);
    says(bias(product(32, 4, 36)), &["stride of a", "36", "multiple of 8"]);
    says(bias(product(32, 64, 32)), &["a: found 1000 values", "2048"]);
    let mut third = card.alloc::<f32>(300, "out").unwrap();
    let norm = layer_norm::Norm { gamma: floats.view(), beta: floats.view(), eps: 1e-6 };
    let rows = layer_norm::Rows::All(1);
    says(
        layer_norm::stream(&stream, floats.view(), rows, 200, norm, third.view_mut()),
        &["layer_norm_stream_f32", "width C: found 200", "multiple of 128"],
    );
    let keys = card.alloc::<u32>(3 * 3 * 4, "keys").unwrap();
    let ranks = card.alloc::<u32>(4, "ranks").unwrap();
    says(
        interval_mean::keys(&stream, keys.view(), third.view_mut(), (3, 4), 3, ranks.view()),
        &["interval_mean", "ranks", "found 4 values", "at least 6"],
    );
    says(
        gemm::bias(
            &stream,
            &product(32, 4, 32),
            floats.view().part(1..900).unwrap(),
            None,
            out.view_mut(),
        ),
        &["bias", "address", "multiple of 16"],
    );
    let other = crate::support::card(SimOptions::default(), None);
    let elsewhere = other.alloc::<f32>(1000, "f32").unwrap();
    says(
        gemm::bias(&stream, &product(32, 4, 32), elsewhere.view(), None, out.view_mut()),
        &["bias", "memory of"],
    );
    assert!(gram_pool::Shape::best(Grid::square(64), &[1, 3, 5, 7], 64 << 10).is_none());
}

/// What the simulator finds in a stream's work is told by whoever waits for it.
#[test]
fn reading_what_nobody_wrote_is_an_error() {
    let card = simulated(SimOptions::default());
    let stream = card.stream().unwrap();
    let input = card.alloc::<f32>(128, "input").unwrap();
    let mut out = card.alloc::<u16>(128, "out").unwrap();
    let rows = layer_norm::Rows::All(1);
    says(
        layer_norm::store(&stream, Half::F16, input.view(), rows, 128, None, out.view_mut())
            .and_then(|()| stream.synchronise()),
        &["layer_norm_round_f16", "uninitialised global memory"],
    );
}
