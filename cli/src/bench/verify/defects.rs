//! Faults that are seeded in every run, on the same device and through the same trials, and have to be found: the verifier
//! proves itself. The kernels stay as they are; what they read, or what they gave, is changed.

use std::sync::Arc;

use super::gemm::GramCase;
use super::{Trial, gemm, run_trial, trials};
use musc::Result;
use musc::backend::cuda::Card;
use musc::backend::cuda::launch::{Half, PairBlock};

/// A fault and whether it was found.
pub struct Seeded {
    /// The kernel file.
    pub stem: &'static str,
    /// What was done.
    pub fault: &'static str,
    /// What was told of it, of outputs that have to tell; empty where it went unnoticed.
    pub told: Vec<String>,
}

impl Seeded {
    /// Whether it was found.
    pub fn caught(&self) -> bool {
        !self.told.is_empty()
    }
}

/// Width of the tokens of the Gram block: 64 k-steps of 16.
const WIDTH: usize = 1024;
/// Tokens of each of its two images.
const PATCHES: usize = 40;

fn gram_trial() -> Trial {
    let block = PairBlock { first_a: 0, images_a: 1, first_b: 1, images_b: 1, symmetric: true };
    let case = GramCase { block, patches: PATCHES, width: WIDTH };
    let shape = format!("{PATCHES}x{PATCHES}x{WIDTH}");
    // Tokens, not integers: the bounds of the rounding class have to be tight enough.
    let class = super::Class::Rounding;
    Trial::new("gemm", "gemm_gram_max_f16", shape, class, move |lab| {
        gemm::gram(lab, Half::F16, case, true, class)
    })
}

/// The first trial of a file that compares such an output of such an entry.
fn trial_of(stem: &str, entry: &str, shape: &str) -> Option<Trial> {
    let all = trials(Half::F16, Some(stem), true);
    all.into_iter().find(|trial| trial.entry.starts_with(entry) && trial.shape.contains(shape))
}

type Change = fn(&mut [u8], &[u8]);

/// A fault: the file, in words, the trial, the buffer, and what is done to it.
type Fault = (&'static str, &'static str, Option<Trial>, &'static str, Change);

fn swap_rows(bytes: &mut [u8], row: usize) {
    let (first, second) = bytes.split_at_mut(row);
    first.swap_with_slice(&mut second[..row]);
}

/// Sets the second of the 32-bit numbers to zero.
fn zero_second(bytes: &mut [u8], _: &[u8]) {
    bytes[4..8].fill(0);
}

fn faults() -> Vec<Fault> {
    vec![
        (
            "gemm",
            "one k-step of 64 dropped from the Gram product",
            Some(gram_trial()),
            "b",
            |bytes, _| {
                for row in bytes.chunks_exact_mut(2 * WIDTH) {
                    row[2 * 512..2 * 528].fill(0);
                }
            },
        ),
        ("gemm", "two columns of the Gram block swapped", Some(gram_trial()), "b", |bytes, _| {
            swap_rows(bytes, 2 * WIDTH);
        }),
        (
            "gemm",
            "an element of the Gram block not written",
            Some(gram_trial()),
            "gram",
            |bytes, before| {
                bytes[..4].copy_from_slice(&before[..4]);
            },
        ),
        (
            "gemm",
            "a byte behind the Gram block overwritten",
            Some(gram_trial()),
            "margin",
            |bytes, _| {
                bytes[0] ^= 1;
            },
        ),
        (
            "gemm",
            "a NaN in a product",
            trial_of("gemm", "gemm_bias_gelu", "127"),
            "out",
            |bytes, _| {
                bytes[..2].copy_from_slice(&0x7e00u16.to_le_bytes());
            },
        ),
        (
            "gemm",
            "the layer scale of a column zeroed",
            trial_of("gemm", "gemm_bias_residual", "129"),
            "layer_scale",
            zero_second,
        ),
        (
            "attention",
            "the values of two tokens swapped",
            trial_of("attention", "attention", "65x64, size"),
            "qkv",
            |bytes, _| {
                let values = bytes.len() / 2 / 2 / 65 / 3;
                let (token, at) = (2 * 3 * values, 2 * 2 * values);
                let (first, second) = bytes.split_at_mut(token);
                first[at..].swap_with_slice(&mut second[at..token]);
            },
        ),
        (
            "layer_norm",
            "the scale of a channel zeroed",
            trial_of("layer_norm", "layer_norm_store", "all(5)"),
            "gamma",
            zero_second,
        ),
        (
            "patch_embed",
            "two patches swapped",
            trial_of("patch_embed", "patch_embed_rows", "2x3x3"),
            "rows",
            |bytes, _| {
                swap_rows(bytes, 2 * musc::backend::cuda::launch::patch_embed::row_width(14));
            },
        ),
        (
            "lnamd",
            "every norm of degree 5 zeroed",
            trial_of("lnamd", "lnamd_norms", "2x5x5"),
            "inv_norm",
            |bytes, _| {
                let degree = bytes.len() / 4;
                bytes[2 * degree..3 * degree - degree / 3].fill(0);
            },
        ),
        (
            "lnamd",
            "one norm zeroed",
            trial_of("lnamd", "lnamd_norms", "2x5x5"),
            "inv_norm",
            zero_second,
        ),
        (
            "lnamd",
            "a mean off by a thousandth",
            trial_of("lnamd", "lnamd_norms", "2x5x5"),
            "mean",
            |bytes, _| {
                let mut value = [0; 4];
                value.copy_from_slice(&bytes[..4]);
                bytes[..4].copy_from_slice(&(f32::from_le_bytes(value) * 1.001).to_le_bytes());
            },
        ),
        (
            "gram_pool",
            "a norm zeroed",
            trial_of("gram_pool", "gram_pool_35", "5x5"),
            "inv_norm_a",
            zero_second,
        ),
        (
            "gram_pool",
            "neighbouring cosines swapped",
            trial_of("gram_pool", "gram_pool_to7", "5x5"),
            "keys",
            swap_keys,
        ),
        (
            "patch_distance",
            "neighbouring cosines swapped",
            trial_of("patch_distance", "patch_distance", "7x7"),
            "keys",
            swap_keys,
        ),
        (
            "local_distance",
            "neighbouring cosines swapped",
            trial_of("local_distance", "local_distance", "5x5"),
            "keys",
            swap_keys,
        ),
        (
            "interval_mean",
            "one rank too many",
            trial_of("interval_mean", "interval_mean", "5x49"),
            "ranks",
            |bytes, _| {
                bytes[4] += 1;
            },
        ),
    ]
}

/// Swaps keys of neighbours that are both written.
fn swap_keys(bytes: &mut [u8], _: &[u8]) {
    for pair in bytes.chunks_exact_mut(8) {
        let (first, second) = pair.split_at_mut(4);
        if first != [0; 4] && second != [0; 4] {
            first.swap_with_slice(second);
        }
    }
}

/// Seeds every fault of a kernel file, or of all.
pub fn seed(card: &Arc<Card>, only: Option<&str>) -> Result<Vec<Seeded>> {
    let mut seeded = Vec::new();
    for (stem, fault, trial, buffer, change) in faults() {
        if only.is_some_and(|only| only != stem) {
            continue;
        }
        let Some(trial) = trial else {
            // A table of trials that has changed: not found, so not caught.
            seeded.push(Seeded { stem, fault, told: Vec::new() });
            continue;
        };
        let tamper = move |name: &str, bytes: &mut [u8], before: &[u8]| {
            if name == buffer {
                change(bytes, before);
            }
        };
        let records = run_trial(card, &trial, Some(&tamper))?;
        // A trial that does not come to an end shows nothing of the fault.
        let told = records.iter().filter_map(|record| record.result.as_ref().ok());
        let told = told.flat_map(|judged| judged.faults()).collect();
        seeded.push(Seeded { stem, fault, told });
    }
    Ok(seeded)
}
