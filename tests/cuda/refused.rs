//! What a card cannot do is an error that names the kernel or the device, what it needs and what there is.

use std::path::Path;
use std::sync::Arc;

use musc::Error;
use musc::Grid;
use musc::backend::cuda::driver::sim::SimOptions;
use musc::backend::cuda::launch::{Matrix, attention, gemm, gram_pool, interval_mean, layer_norm};
use musc::backend::cuda::{Card, Cuda, Half};
use musc::backend::{Backend, Extraction, Pixels};
use musc::image::Normalisation;
use musc::model::{Activation, Vit};
use musc::scoring::MutualScoring;

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

fn with(options: SimOptions, half: Half) -> Result<Cuda, Error> {
    Cuda::with_cards(vec![card(options, None)], half)
}

#[test]
fn old_cards_and_drivers() {
    let old = SimOptions { compute_capability: 70, ..SimOptions::default() };
    says(with(old, Half::F16), &["kernel gemm", "7.0", "need 7.5"]);
    let driver = SimOptions { cuda_version: (11, 8), ..SimOptions::default() };
    says(with(driver, Half::F16), &["kernel gemm", "12.4", "found 11.8"]);
    let turing = SimOptions { compute_capability: 75, ..SimOptions::default() };
    says(with(turing, Half::Bf16), &["7.5", "bf16 needs 8.0"]);
}

#[test]
fn cards_named_twice_or_not_at_all() {
    let same = vec![card(SimOptions::default(), None), card(SimOptions::default(), None)];
    says(Cuda::with_cards(same, Half::F16), &["sim", "twice"]);
    says(Cuda::with_cards(Vec::new(), Half::F16), &["no card"]);
}

#[test]
fn too_little_memory_says_need_and_have() {
    let vit = Vit::open(Path::new(&data("dinov2_tiny_weights.safetensors"))).unwrap();
    let extraction = Extraction {
        layers: vec![1],
        image_size: 56,
        activation: Activation::Gelu,
        normalisation: Normalisation::IMAGENET,
        batch_size: 1,
    };
    let small = |limit| Cuda::with_cards(vec![card(SimOptions::default(), Some(limit))], Half::F16);
    says(small(100_000).unwrap().load(&vit, &extraction), &["sim", "need", "have", "MiB"]);
    let memory = SimOptions { memory_bytes: Some(200_000), ..SimOptions::default() };
    says(with(memory, Half::F16).unwrap().load(&vit, &extraction), &["need", "have"]);
    let features = random_features(3, 8, 128, 1);
    let cuda = small(1_000_000).unwrap();
    let uploaded = cuda.upload(features).unwrap();
    says(
        cuda.mutual_scores(&uploaded, &MutualScoring::default(), &()),
        &["scoring 3 images", "need", "have"],
    );
}

#[test]
fn sizes_that_the_kernels_do_not_take() {
    let cuda = sim(80, Half::F16);
    says(cuda.upload(random_features(2, 2, 1100, 1)), &["width", "1100", "1024"]);
    let mut large = random_features(2, 2, 128, 1);
    large.tokens[0][5] = 1e6;
    says(cuda.upload(large), &["layer 0", "1000000", "65504", "bf16"]);
    let features = cuda.upload(random_features(3, 6, 128, 1)).unwrap();
    let nine = MutualScoring { degrees: vec![1, 9], ..MutualScoring::default() };
    says(cuda.mutual_scores(&features, &nine, &()), &["degree r", "9", "at most 7"]);
    let vit = Vit::open(Path::new(&data("dinov2_tiny_weights.safetensors"))).unwrap();
    let extraction = Extraction {
        layers: vec![1],
        image_size: 56,
        activation: Activation::Gelu,
        normalisation: Normalisation::IMAGENET,
        batch_size: 1,
    };
    let model = cuda.load(&vit, &extraction).unwrap();
    let pixels = vec![0.0; 3 * 42 * 42];
    says(cuda.extract(&model, Pixels::Normalised(&pixels), &()), &["pixels", "3x56x56"]);
    let odd = Extraction { image_size: 60, ..extraction };
    says(cuda.load(&vit, &odd), &["60", "patch size 14"]);
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
    let ranks = card.alloc::<u32>(5, "ranks").unwrap();
    says(
        interval_mean::keys(&stream, keys.view(), third.view_mut(), (3, 4), 3, ranks.view()),
        &["interval_mean", "ranks", "5 values", "at least 6"],
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
    let card: Arc<Card> = card(SimOptions::default(), None);
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
