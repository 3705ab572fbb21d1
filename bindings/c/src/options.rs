//! Options of an inspector, set one by one: a function that is added breaks nothing.

use std::ffi::c_char;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use musc::ImageSize;
use musc::backend::device::{AnyBackend, Device, DeviceOptions, Precision};
use musc::inspect::{
    InputSize, Inspector, InspectorBuilder, Rescoring, Subsets, TileMatch, Tiles, Weights,
};
use musc::scoring::MutualScoring;
use musc::scoring::rscin::Similarity;

use crate::embedded::{BUILT_IN_BACKBONE, weights_of};
use crate::handle::{Handle, free, give, using};
use crate::input::{flag, path, slice, text};
use crate::inspector::on_a_pool;
use crate::status::musc_status::MUSC_WRONG_ABI;
use crate::status::{Failure, MUSC_ABI_VERSION, Outcome, guard, musc_status};

/// Options of an inspector. They have defaults; many inspectors can be made of the same ones, and they are still there afterwards.
pub struct musc_options(());

/// What the setters have set.
#[derive(Debug, Clone)]
pub struct Options {
    pub builder: InspectorBuilder,
    pub backbone: Option<String>,
    pub weights: Option<PathBuf>,
    pub scoring: MutualScoring,
    pub device: Device,
    pub machine: DeviceOptions,
    /// As it was named; otherwise it is left to the device.
    pub precision: Option<Precision>,
}

impl Handle for musc_options {
    type Value = Mutex<Options>;
    const NAME: &'static str = "musc_options";
}

impl Default for Options {
    fn default() -> Self {
        Options {
            builder: Inspector::builder(),
            backbone: None,
            weights: None,
            scoring: MutualScoring::default(),
            device: Device::default(),
            machine: DeviceOptions::default(),
            precision: None,
        }
    }
}

impl Options {
    /// An inspector with these options.
    pub fn inspector(&self) -> Outcome<Inspector> {
        let mut builder = self.builder.clone();
        let name = match (&self.backbone, &self.weights) {
            (Some(name), _) => Some(name.as_str()),
            (None, Some(_)) => None,
            (None, None) => Some(BUILT_IN_BACKBONE),
        };
        if let Some(name) = name {
            builder = builder.backbone(name);
        }
        let weights = match &self.weights {
            Some(file) => Weights::File(file.clone()),
            None => weights_of(name.unwrap_or_default()),
        };
        let builder = builder
            .weights(weights)
            .scoring(self.scoring.clone())
            .device(self.device.clone())
            .threads(self.machine.threads)
            .precision(self.precision)
            .memory_limit(self.machine.memory_limit);
        on_a_pool(self.machine.threads, || Ok(builder.build()?))
    }

    /// The device alone.
    pub fn open_device(&self) -> Outcome<AnyBackend> {
        Ok(self.device.open(self.machine.with_precision(self.precision.unwrap_or_default()))?.0)
    }
}

/// A copy of what is behind a handle.
pub fn options_of(options: &Mutex<Options>) -> Options {
    options.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Changes options.
fn set(options: *mut musc_options, change: impl FnOnce(&mut Options) -> Outcome) -> musc_status {
    using(options, |held| change(&mut held.lock().unwrap_or_else(PoisonError::into_inner)))
}

/// Changes the builder, which is taken by value.
fn build(
    options: &mut Options,
    change: impl FnOnce(InspectorBuilder) -> InspectorBuilder,
) -> Outcome {
    options.builder = change(options.builder.clone());
    Ok(())
}

/// Refuses the header of another version.
pub fn check_abi(version: u32) -> Outcome {
    if version == MUSC_ABI_VERSION {
        return Ok(());
    }
    let message = format!("ABI version: found {version}, expected {MUSC_ABI_VERSION}");
    Err(Failure::new(MUSC_WRONG_ABI, message))
}

/// New options, all at their defaults. `abi_version` is MUSC_ABI_VERSION.
///
/// `*options` is to be freed with musc_options_free().
///
/// Errors: MUSC_WRONG_ABI.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn musc_options_new(
    abi_version: u32,
    options: *mut *mut musc_options,
) -> musc_status {
    guard(|| {
        let make = || {
            check_abi(abi_version)?;
            Ok(Mutex::new(Options::default()))
        };
        // SAFETY: musc.h asks for a place to write to.
        unsafe { give(options, make) }
    })
}

/// Frees options; NULL is fine. Inspectors that were made with them stay.
#[unsafe(no_mangle)]
pub extern "C" fn musc_options_free(options: *mut musc_options) -> musc_status {
    free(options)
}

/// The backbone by its name, such as "ViT-L-14-336" [default: "dinov2_vits14"]; with a weight file and no name it is whatever the file
/// holds. Whether there is one of that name is seen when the inspector is made.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn musc_options_set_backbone(
    options: *mut musc_options,
    name: *const c_char,
) -> musc_status {
    set(options, |options| {
        // SAFETY: musc.h asks for a string.
        options.backbone = Some(unsafe { text(name, "backbone") }?.to_string());
        Ok(())
    })
}

/// The weights, a safetensors file [default: those inside this library for "dinov2_vits14", else
/// `weights/NAME.safetensors` in the working folder or the cache of the Hugging Face Hub]. It is opened when the inspector is made.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn musc_options_set_weights(
    options: *mut musc_options,
    file: *const c_char,
) -> musc_status {
    set(options, |options| {
        // SAFETY: musc.h asks for a string.
        options.weights = Some(unsafe { path(file, "weights") }?);
        Ok(())
    })
}

/// The set that the weights were trained on, where a backbone has several [default: "openai"].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn musc_options_set_pretrained(
    options: *mut musc_options,
    name: *const c_char,
) -> musc_status {
    set(options, |options| {
        // SAFETY: musc.h asks for a string.
        let name = unsafe { text(name, "pretrained") }?;
        build(options, |builder| builder.pretrained(name))
    })
}

/// The device: "auto" (a card if there is one, else the processor), "cpu", "cuda", "cuda:0", "cuda:0,1" [default: "auto"].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn musc_options_set_device(
    options: *mut musc_options,
    device: *const c_char,
) -> musc_status {
    set(options, |options| {
        // SAFETY: musc.h asks for a string.
        options.device = unsafe { text(device, "device") }?.parse()?;
        Ok(())
    })
}

/// The number format of products: "auto" (a card's is f16; the processor's features f32, and their scoring bf16 where it has
/// AVX512-BF16), "f32" (processors alone), "f16" (cards alone), or "bf16", features too [default: "auto"].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn musc_options_set_precision(
    options: *mut musc_options,
    precision: *const c_char,
) -> musc_status {
    set(options, |options| {
        // SAFETY: musc.h asks for a string.
        options.precision = Some(unsafe { text(precision, "precision") }?.parse()?);
        Ok(())
    })
}

/// The number of threads; 0 is one a core [default: 0]. It changes no number.
#[unsafe(no_mangle)]
pub extern "C" fn musc_options_set_threads(
    options: *mut musc_options,
    threads: usize,
) -> musc_status {
    set(options, |options| {
        options.machine.threads = threads;
        Ok(())
    })
}

/// The most bytes to take on each card; 0 is what is free [default: 0].
#[unsafe(no_mangle)]
pub extern "C" fn musc_options_set_memory_limit(
    options: *mut musc_options,
    bytes: u64,
) -> musc_status {
    set(options, |options| {
        options.machine.memory_limit = (bytes > 0).then_some(bytes);
        Ok(())
    })
}

/// The number of images that go through the backbone together; 0 leaves it to the device [default: 0]. It changes no number.
#[unsafe(no_mangle)]
pub extern "C" fn musc_options_set_batch_size(
    options: *mut musc_options,
    images: usize,
) -> musc_status {
    set(options, |options| build(options, |builder| builder.batch_size(images)))
}

/// A folder in which tokens are kept, `bytes` at most, and taken from when the same images come again [default: none are kept].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn musc_options_set_cache(
    options: *mut musc_options,
    folder: *const c_char,
    bytes: u64,
) -> musc_status {
    set(options, |options| {
        // SAFETY: musc.h asks for a string.
        let folder = unsafe { path(folder, "cache") }?;
        build(options, |builder| builder.cache(folder, bytes))
    })
}

/// Images are resized to this height and width in pixels, multiples of the backbone's patch size [default: 518 x 518]. With tiles it is
/// the size of a tile.
#[unsafe(no_mangle)]
pub extern "C" fn musc_options_set_size(
    options: *mut musc_options,
    height: usize,
    width: usize,
) -> musc_status {
    set(options, |options| {
        let size = InputSize::Exactly(ImageSize::new(height, width));
        build(options, |builder| builder.input(size))
    })
}

/// In place of musc_options_set_size(): the images' proportions are kept, and the longer side gets `longest` pixels. With `pad` 1 images
/// of other proportions than most are put on a larger canvas, whose empty part is not looked at; with 0 they are an error.
#[unsafe(no_mangle)]
pub extern "C" fn musc_options_set_keep_aspect(
    options: *mut musc_options,
    longest: usize,
    pad: i32,
) -> musc_status {
    set(options, |options| {
        let size = InputSize::KeepAspect { longest, pad: flag(pad, "pad")? };
        build(options, |builder| builder.input(size))
    })
}

/// Images are cut into `rows` x `columns` tiles that overlap by a tenth; 1 x 1 cuts nothing [default: 1 x 1]. With `anywhere` 0 a tile is
/// compared with the tiles at its own position, with 1 with all.
#[unsafe(no_mangle)]
pub extern "C" fn musc_options_set_tiles(
    options: *mut musc_options,
    rows: usize,
    columns: usize,
    anywhere: i32,
) -> musc_status {
    set(options, |options| {
        let matching = if flag(anywhere, "anywhere")? { TileMatch::Any } else { TileMatch::Same };
        let tiles = Tiles::new(rows, columns)?.with_matching(matching);
        let tiles = ((rows, columns) != (1, 1)).then_some(tiles);
        build(options, |builder| builder.tiles(tiles))
    })
}

/// The feature layers: `count` numbers of blocks, from 0 [default: the last block of each quarter of the depth].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn musc_options_set_layers(
    options: *mut musc_options,
    layers: *const usize,
    count: usize,
) -> musc_status {
    set(options, |options| {
        // SAFETY: musc.h asks for `count` numbers.
        let layers = unsafe { slice(layers, count, "layers") }?;
        build(options, |builder| builder.layers(layers))
    })
}

/// The aggregation degrees: `count` odd numbers [default: 1, 3, 5].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn musc_options_set_degrees(
    options: *mut musc_options,
    degrees: *const usize,
    count: usize,
) -> musc_status {
    set(options, |options| {
        // SAFETY: musc.h asks for `count` numbers.
        options.scoring.degrees = unsafe { slice(degrees, count, "degrees") }?.to_vec();
        Ok(())
    })
}

/// The interval of the sorted distances whose mean is a patch's score, as shares of the images seen; 0 <= low < high <= 1
/// [default: 0 to 0.3].
#[unsafe(no_mangle)]
pub extern "C" fn musc_options_set_interval(
    options: *mut musc_options,
    low: f64,
    high: f64,
) -> musc_status {
    set(options, |options| {
        options.scoring.interval = (low, high);
        Ok(())
    })
}

/// A patch sees only patches within so many rows and columns of its own place, for parts that always lie alike; a negative number is
/// anywhere [default: -1].
#[unsafe(no_mangle)]
pub extern "C" fn musc_options_set_radius(options: *mut musc_options, radius: i64) -> musc_status {
    set(options, |options| {
        options.scoring.radius = usize::try_from(radius).ok();
        Ok(())
    })
}

/// Scores are smoothed over images that are alike (RsCIN) with these `count` neighbourhood sizes, the image itself counted [default:
/// 1, 2, 3]. With `count` 0 they are not: then the scores are the raw scores.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn musc_options_set_rescoring(
    options: *mut musc_options,
    k: *const usize,
    count: usize,
) -> musc_status {
    set(options, |options| {
        // SAFETY: musc.h asks for `count` numbers.
        let k = unsafe { slice(k, count, "k") }?.to_vec();
        let rescoring = Rescoring::default().with_k(Some(k)).with_similarity(Similarity::Cosine);
        build(options, |builder| builder.rescoring((count > 0).then_some(rescoring)))
    })
}

/// Each image is compared with about so many others; 0 is with all [default: all up to 300 images, in subsets of about 200 above].
/// `seed` deals out the subsets [default: 0].
#[unsafe(no_mangle)]
pub extern "C" fn musc_options_set_references(
    options: *mut musc_options,
    references: usize,
    seed: u64,
) -> musc_status {
    set(options, |options| {
        let subsets = if references == 0 { Subsets::All } else { Subsets::References(references) };
        build(options, |builder| builder.subsets(subsets).seed(seed))
    })
}
