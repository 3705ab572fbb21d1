//! The table the build script writes, and what the PTX in it must have: names, parameter sizes, versions.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use ptxsim::Module;

use musc::backend::cuda::kernels::{KERNEL_ORIGIN, KERNELS};

use crate::params::*;

/// Bytes of the parameter struct of a kernel file.
fn parameter_bytes(stem: &str) -> usize {
    match stem {
        "attention" => size_of::<AttentionParams>(),
        "gemm" => size_of::<GemmParams>(),
        "gram_pool" => size_of::<GramPoolParams>(),
        "interval_mean" => size_of::<IntervalMeanParams>(),
        "layer_norm" => size_of::<LayerNormParams>(),
        "lnamd" => size_of::<LnamdParams>(),
        "local_distance" => size_of::<LocalDistanceParams>(),
        "patch_distance" => size_of::<PatchDistanceParams>(),
        "patch_embed" => size_of::<PatchEmbedParams>(),
        _ => panic!("kernel {stem} has no parameter struct here"),
    }
}

fn kernel_folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels")
}

fn stems_of(folder: &Path, ending: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).expect("the folder is part of the repository");
    let names = entries.filter_map(|e| e.ok()?.file_name().into_string().ok());
    names.filter_map(|n| n.strip_suffix(ending).map(str::to_string)).collect()
}

#[test]
fn every_kernel_is_in_the_table() {
    let in_table: BTreeSet<String> = KERNELS.iter().map(|(stem, ..)| stem.to_string()).collect();
    assert_eq!(in_table, stems_of(&kernel_folder(), ".cu"));
    assert!(
        KERNELS.is_sorted_by(|a, b| (a.0, a.1) < (b.0, b.1)),
        "by stem, then target, each once"
    );
    for target in [75, 80] {
        let prebuilt =
            stems_of(&kernel_folder().join("prebuilt"), &format!(".compute_{target}.ptx"));
        assert_eq!(prebuilt, in_table, "prebuilt for compute_{target}");
    }
}

#[test]
fn entries_are_named_and_sized_alike() {
    for &(stem, target, ptx) in KERNELS {
        let module = Module::parse(stem, ptx).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(module.target(), target, "{stem}");
        if KERNEL_ORIGIN == "prebuilt" {
            let newest = if target == 75 { (6, 5) } else { (7, 0) };
            assert!(module.version() <= newest, "{stem}: a driver of CUDA 11.0 must load it");
            assert!(!ptx.contains("used_bytes"), "{stem}: a hint that old drivers do not know");
            assert!(!ptx.contains(".loc"), "{stem}: line information, most of the text");
        }
        assert!(!module.entries().is_empty(), "{stem}: no entry");
        for entry in module.entries() {
            let name = &entry.name;
            let types = ["_f16", "_bf16", "_f32"];
            assert!(
                name.starts_with(&format!("{stem}_")) && types.iter().any(|t| name.ends_with(t)),
                "{name}"
            );
            assert!(
                target >= 80 || !name.ends_with("_bf16"),
                "{name}: compute_75 has no bf16 tensor cores"
            );
            assert_eq!(entry.params.len(), 1, "{name}: one struct");
            assert_eq!(entry.params[0].size, parameter_bytes(stem), "{name}: size of the struct");
            assert_eq!(entry.local_bytes, 0, "{name}: an array that does not fit registers");
            assert_eq!(
                entry.max_threads,
                Some([launch_threads(name), 1, 1]),
                "{name}: launch bounds"
            );
        }
    }
}

/// Threads of a block as the launchers have them; where the block depends on the shape, the most.
fn launch_threads(entry: &str) -> u32 {
    match entry.trim_end_matches("_f32").trim_end_matches("_bf16").trim_end_matches("_f16") {
        "gram_pool_35" => gram_pool::MAX_THREADS_35 as u32,
        "gram_pool_to5" | "gram_pool_to7" => gram_pool::MAX_THREADS_ANY as u32,
        "interval_mean_keys" => interval_mean::THREADS,
        "lnamd_sums" => lnamd::SUMS_THREADS,
        "lnamd_mean" => lnamd::MEAN_THREADS,
        "lnamd_norms" => (layer_norm::MAX_WIDTH / lnamd::NORMS_CHANNELS) as u32,
        "local_distance_pool" => (layer_norm::MAX_WIDTH / local_distance::POOL_CHANNELS) as u32,
        "patch_embed_rows" | "patch_embed_class" => patch_embed::THREADS,
        "attention_flash" => attention::THREADS,
        "layer_norm_store" | "layer_norm_round" | "layer_norm_stream" => layer_norm::THREADS,
        _ => gemm::THREADS,
    }
}
