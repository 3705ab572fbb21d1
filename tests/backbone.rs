//! The backbone on the CPU against goldens: at the native grid, at another one, and on grids that are not square.

#[path = "common/compare.rs"]
mod compare;

use compare::{floats, relative_l2};
use musc::ImageSize;
use musc::backend::cpu::{Cpu, CpuOptions, Format, Instructions};
use musc::backend::{Backend, Extraction, FeatureSet, Pixels};
use musc::image::Normalisation;
use musc::model::{Activation, Vit};
use safetensors::SafeTensors;

fn data(name: &str) -> String {
    format!("{}/tests/data/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// Several numbers of threads, and each kind of vector instructions that this machine has; those it lacks are named, and how
/// many they are.
fn backends() -> Vec<Cpu> {
    let (here, lacking): (Vec<_>, Vec<_>) =
        Instructions::ALL.into_iter().partition(|each| each.available());
    println!("not on this machine, not tested: {} {lacking:?}", lacking.len());
    let threads = [1, 2, 5].into_iter().map(|threads| Cpu::new(threads).unwrap());
    let options = |threads| CpuOptions::default().with_threads(threads);
    let open = |options| Cpu::open(options).unwrap();
    let kinds = here.iter().map(|&each| open(options(2).with_instructions(each)));
    let in_bf16 = if here.contains(&Instructions::Avx512Bf16) { &[1, 5][..] } else { &[] };
    let in_bf16 = in_bf16.iter().map(|&threads| {
        let options = options(threads).with_instructions(Instructions::Avx512Bf16);
        open(options.with_formats(Format::Bf16, Format::F32))
    });
    threads.chain(kinds).chain(in_bf16).collect()
}

/// The largest error of tokens, as a vector over their length.
///
/// In bf16 each operand of a product is rounded by up to 2^-8 of itself, about 2^-8/3 in quadratic mean over all sizes, and both
/// operands are: 1.8e-3 of a product. Each of the eight sublayers of these backbones adds a part of one or two such products to
/// the tokens: 1.8e-3·√(2·8) = 7.4e-3 when they add up by chance, and no more than that when the parts were the whole.
fn bound(format: Format) -> f64 {
    match format {
        Format::Bf16 => 7.4e-3,
        _ => 1e-4,
    }
}

/// One family: the grids of a golden file, by the prefix of their tensors.
fn goldens(family: &str, file: &str, kinds: &[&str], activation: Option<Activation>) {
    let bytes = std::fs::read(data(file)).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let weights = data(&format!("{family}_tiny_weights.safetensors"));
    let vit = Vit::open(std::path::Path::new(&weights)).unwrap();
    for kind in kinds {
        let pixels = floats(&file, &format!("{kind}.pixels"));
        let shape = file.tensor(&format!("{kind}.pixels")).unwrap().shape().to_vec();
        let input = ImageSize::new(shape[2], shape[3]);
        for cpu in backends() {
            let activation_of = activation.unwrap_or(Activation::Gelu);
            let normalisation = Normalisation::IMAGENET;
            let extraction = Extraction::new(vec![3, 1], input, activation_of, normalisation);
            let model = cpu.load(&vit, &extraction).unwrap();
            let got = cpu.extract(&model, Pixels::Normalised(&pixels), &()).unwrap();
            assert_eq!((got.images, got.width), (shape[0], 128));
            assert_eq!(got.grid, input.grid(vit.architecture.patch));
            let prefix = match activation {
                Some(Activation::QuickGelu) => format!("{kind}.quick_gelu"),
                Some(_) => format!("{kind}.gelu"),
                None => kind.to_string(),
            };
            for (name, got) in [
                ("layer3", &got.tokens[0]),
                ("layer1", &got.tokens[1]),
                ("class_token", &got.class_tokens),
            ] {
                let what = format!("{family} {prefix} {name}");
                let error = relative_l2(&what, got, &floats(&file, &format!("{prefix}.{name}")));
                let what = format!("{what}, {}", cpu.description());
                println!("{what}: {error:.1e}");
                assert!(error < bound(cpu.features_format()), "{what}: {error:e}");
            }
        }
    }
}

fn golden(family: &str, activation: Option<Activation>) {
    let square = format!("{family}_tiny.safetensors");
    goldens(family, &square, &["native", "resized"], activation);
    let wide = format!("{family}_tiny_wide.safetensors");
    goldens(family, &wide, &["wide", "tall"], activation);
}

#[test]
#[cfg_attr(packaged, ignore = "a file that is in the repository only")]
fn golden_clip_gelu() {
    golden("clip", Some(Activation::Gelu));
}

#[test]
#[cfg_attr(packaged, ignore = "a file that is in the repository only")]
fn golden_clip_quick_gelu() {
    golden("clip", Some(Activation::QuickGelu));
}

#[test]
#[cfg_attr(packaged, ignore = "a file that is in the repository only")]
fn golden_dino() {
    golden("dino", None);
}

#[test]
fn golden_dinov2() {
    golden("dinov2", None);
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let vit = Vit::open(std::path::Path::new(&data("dinov2_tiny_weights.safetensors"))).unwrap();
    // Large enough that products are cut where an image has several threads.
    let input = ImageSize::square(224);
    let extraction = Extraction::new(vec![1, 3], input, Activation::Gelu, Normalisation::IMAGENET);
    let mut state = 1u32;
    let pixels: Vec<f32> = (0..5 * 3 * input.pixels())
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect();
    let on = |threads: usize, images: usize| {
        let cpu = Cpu::new(threads).unwrap();
        let model = cpu.load(&vit, &extraction).unwrap();
        let pixels = &pixels[..images * 3 * input.pixels()];
        cpu.extract(&model, Pixels::Normalised(pixels), &()).unwrap()
    };
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    // One over, two over, none over; fewer images than threads.
    for (threads, images) in [(2, 5), (3, 5), (4, 5), (5, 5), (2, 1), (7, 2)] {
        let (one, many) = (on(1, images), on(threads, images));
        assert_eq!(one.content().len(), images);
        assert_eq!(one.content(), many.content());
        let layers = one.tokens.iter().zip(&many.tokens);
        for (one, many) in layers.chain([(&one.class_tokens, &many.class_tokens)]) {
            assert!(one.iter().all(|value| value.is_finite()));
            assert!(bits(one) == bits(many), "{images} images, {threads} threads");
        }
    }
}
