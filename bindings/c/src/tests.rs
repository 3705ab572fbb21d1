//! Tests over the whole of the interface, in Rust: what a C program cannot bring about, and that the numbers are the library's.

use std::ffi::{CStr, CString};
use std::path::{Path, PathBuf};
use std::ptr::{null, null_mut};

use musc::backend::cpu::Cpu;
use musc::backend::device::Device;
use musc::backend::{Backend, HostFeatures, References};
use musc::inspect::{Batch, Inspector, Weights};
use musc::scoring::MutualScoring;
use musc::{Error, Grid};

use crate::batch::{musc_batch, musc_batch_folder, musc_batch_free};
use crate::handle::using;
use crate::inspection::{
    musc_inspection, musc_inspection_free, musc_inspection_map, musc_inspection_patch_scores,
    musc_inspection_raw_scores, musc_inspection_scores,
};
use crate::inspector::{
    musc_inspector, musc_inspector_free, musc_inspector_inspect, musc_inspector_new,
};
use crate::options::{
    musc_options, musc_options_free, musc_options_new, musc_options_set_device,
    musc_options_set_precision, musc_options_set_size, musc_options_set_threads,
    musc_options_set_weights,
};
use crate::scores::musc_mutual_scores;
use crate::status::musc_status::*;
use crate::status::{Failure, MUSC_ABI_VERSION, guard, musc_last_error, musc_status};

fn in_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

fn c_string(path: &Path) -> CString {
    CString::new(path.to_str().unwrap()).unwrap()
}

fn words() -> String {
    // SAFETY: a C string that lasts until the next failure on this thread.
    unsafe { CStr::from_ptr(musc_last_error()) }.to_str().unwrap().to_string()
}

fn ok(status: musc_status) {
    assert_eq!(status, MUSC_OK, "{}", words());
}

fn options() -> *mut musc_options {
    let mut options = null_mut();
    // SAFETY: a place to write to.
    ok(unsafe { musc_options_new(MUSC_ABI_VERSION, &mut options) });
    options
}

#[test]
fn the_library_is_named_for_the_abi() {
    assert_eq!(env!("MUSC_SONAME_VERSION").parse(), Ok(MUSC_ABI_VERSION));
}

#[test]
fn a_panic_stays_inside_and_has_words() {
    assert_eq!(guard(|| panic!("seeded {}", 7)), MUSC_INTERNAL);
    assert!(
        words().contains("a fault in this library") && words().ends_with("seeded 7"),
        "{}",
        words()
    );
    let payload = || std::panic::panic_any(3.5f32);
    assert_eq!(guard(payload), MUSC_INTERNAL);
    assert!(words().ends_with("no words"), "{}", words());
    // On a thread of a pool.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    assert_eq!(guard(|| pool.install(|| panic!("afar"))), MUSC_INTERNAL);
    assert!(words().ends_with("afar"), "{}", words());
}

#[test]
fn a_handle_that_was_in_use_at_a_panic_refuses_and_is_freed() {
    let options = options();
    assert_eq!(using(options, |_| panic!("seeded")), MUSC_INTERNAL);
    assert_eq!(musc_options_set_threads(options, 1), MUSC_INTERNAL);
    assert!(words().contains("free it"), "{}", words());
    ok(musc_options_free(options));
    assert_eq!(musc_options_set_threads(options, 1), MUSC_BAD_ARGUMENT);
    assert!(words().contains("freed"), "{}", words());
}

#[test]
fn a_handle_that_is_freed_in_use_lasts_until_the_end() {
    let options = options();
    ok(using(options, |held| {
        ok(musc_options_free(options));
        assert!(held.lock().unwrap().backbone.is_none());
        Ok(())
    }));
    assert_eq!(musc_options_free(options), MUSC_BAD_ARGUMENT);
}

#[test]
fn messages_are_those_of_their_thread() {
    assert_eq!(guard(|| Err(Failure::new(MUSC_DEVICE, "one"))), MUSC_DEVICE);
    std::thread::spawn(|| assert_eq!(words(), "")).join().unwrap();
    assert_eq!(guard(|| Ok(())), MUSC_OK);
    assert_eq!(words(), "one");
    assert_eq!(guard(|| Err(Failure::new(MUSC_DEVICE, "a\0b"))), MUSC_DEVICE);
    assert_eq!(words(), "a\\0b");
}

#[test]
fn every_class_of_error_has_its_status() {
    let (here, away) = (in_repository("Cargo.toml"), in_repository("no such file"));
    let io = |kind: std::io::ErrorKind| Error::Io {
        action: "read",
        path: here.clone(),
        source: kind.into(),
    };
    let image = |path: &Path| Error::Image { path: path.into(), reason: String::new() };
    let bad = |paths: &[&PathBuf]| Error::BadImages {
        bad: paths.iter().map(|path| (PathBuf::clone(path), String::new())).collect(),
    };
    let device = || String::from("cuda:0");
    let cases = [
        (io(std::io::ErrorKind::NotFound), MUSC_NOT_FOUND),
        (io(std::io::ErrorKind::PermissionDenied), MUSC_BAD_FILE),
        (image(&here), MUSC_BAD_FILE),
        (image(&away), MUSC_NOT_FOUND),
        (bad(&[&away, &away]), MUSC_NOT_FOUND),
        (bad(&[&away, &here]), MUSC_BAD_FILE),
        (Error::Exists { path: here.clone() }, MUSC_BAD_FILE),
        (Error::Dataset { path: away.clone(), reason: String::new() }, MUSC_NOT_FOUND),
        (Error::Weights { file: String::new(), problems: Vec::new() }, MUSC_BAD_FILE),
        (
            Error::NoWeights {
                backbone: device(),
                pretrained: String::new(),
                places: Vec::new(),
                pytorch: None,
            },
            MUSC_NOT_FOUND,
        ),
        (Error::Download { url: device(), reason: String::new() }, MUSC_BAD_FILE),
        (Error::Interrupted, MUSC_INTERRUPTED),
        (Error::Device { device: device(), reason: String::new() }, MUSC_DEVICE),
        (Error::Kernel { kernel: device(), reason: String::new() }, MUSC_DEVICE),
        (
            Error::OutOfMemory { device: device(), what: String::new(), need: 2, have: 1 },
            MUSC_OUT_OF_MEMORY,
        ),
    ];
    for (error, status) in cases {
        let said = error.to_string();
        let failure = Failure::from(error);
        assert_eq!((failure.status, failure.message), (status, said));
    }
}

#[test]
fn scores_are_the_library_s_to_the_last_bit() {
    let weights = in_repository("tests/data/dinov2_tiny_weights.safetensors");
    let folder = in_repository("assets/textile/defect");
    if !weights.is_file() || !folder.is_dir() {
        eprintln!("the weights or the images are in the repository only");
        return;
    }
    let inspector = Inspector::builder()
        .weights(Weights::File(weights.clone()))
        .device(Device::Cpu)
        .size(70)
        .build()
        .unwrap();
    let expected = inspector.inspect(&Batch::folder(&folder).unwrap(), &()).unwrap();

    let options = options();
    let (mut batch, mut inspector, mut found): (
        *mut musc_batch,
        *mut musc_inspector,
        *mut musc_inspection,
    ) = (null_mut(), null_mut(), null_mut());
    let (mut scores, mut raw) = (vec![0f64; expected.len()], vec![0f32; expected.len()]);
    let (mut patches, mut map) = (vec![0f32; 25], vec![0f32; 70 * 70]);
    // SAFETY: strings, places to write to, and buffers of their lengths.
    unsafe {
        ok(musc_options_set_weights(options, c_string(&weights).as_ptr()));
        ok(musc_options_set_device(options, c"cpu".as_ptr()));
        ok(musc_options_set_size(options, 70, 70));
        ok(musc_batch_folder(c_string(&folder).as_ptr(), &mut batch));
        ok(musc_inspector_new(options, &mut inspector));
        ok(musc_inspector_inspect(inspector, batch, None, null_mut(), &mut found));
        ok(musc_inspection_scores(found, scores.as_mut_ptr(), scores.len(), null_mut()));
        ok(musc_inspection_raw_scores(found, raw.as_mut_ptr(), raw.len(), null_mut()));
    }
    assert_eq!(scores, expected.scores());
    assert_eq!(raw, expected.raw_scores());
    for image in 0..expected.len() {
        let (places, nothing) = (map.as_mut_ptr(), null_mut());
        // SAFETY: buffers of their lengths.
        unsafe {
            let patches = patches.as_mut_ptr();
            ok(musc_inspection_patch_scores(found, image, patches, 25, nothing));
            ok(musc_inspection_map(found, image, 70, 70, places, 70 * 70, nothing));
        }
        let mut theirs = vec![0f32; 70 * 70];
        expected.map(image, expected.map_size(), &mut theirs).unwrap();
        assert_eq!(map, theirs);
        assert_eq!(patches, expected.patch_scores(image).0);
    }
    ok(musc_inspection_free(found));
    ok(musc_inspector_free(inspector));
    ok(musc_batch_free(batch));
    ok(musc_options_free(options));
}

#[test]
fn mutual_scores_are_the_library_s_to_the_last_bit() {
    let (layers, images, references, grid, width) = (2, 3, 4, Grid::new(3, 5), 8);
    let of_layer = |images: usize| images * grid.patches() * width;
    let tokens = |images: usize, seed: usize| -> Vec<f32> {
        (0..layers * of_layer(images)).map(|at| ((at * 37 + seed) % 101) as f32 / 16.0).collect()
    };
    let (queries, others) = (tokens(images, 0), tokens(references, 53));
    let of = |tokens: &[f32], images: usize| {
        let layers = tokens.chunks_exact(of_layer(images)).map(<[f32]>::to_vec).collect();
        HostFeatures::new(images, grid, width, vec![0, 1], layers)
    };
    let cpu = Cpu::new(2).unwrap();
    let features = cpu.upload(of(&queries, images)).unwrap();
    let seen = cpu.upload(of(&others, references)).unwrap();
    let scoring = MutualScoring::default();
    let options = options();
    // SAFETY: strings.
    unsafe {
        ok(musc_options_set_device(options, c"cpu".as_ptr()));
        // As `Cpu::new` works.
        ok(musc_options_set_precision(options, c"f32".as_ptr()));
    }
    for (set, pointer, count) in
        [(References::Others, null(), 0), (References::Set(&seen), others.as_ptr(), references)]
    {
        let expected = cpu.patch_scores(&features, set, &scoring, &()).unwrap().mean();
        let mut found = vec![0f32; images * grid.patches()];
        // SAFETY: tokens of these shapes, and a buffer of its length.
        ok(unsafe {
            musc_mutual_scores(
                options,
                queries.as_ptr(),
                layers,
                images,
                grid.rows,
                grid.columns,
                width,
                pointer,
                count,
                None,
                null_mut(),
                found.as_mut_ptr(),
                found.len(),
                null_mut(),
            )
        });
        assert_eq!(found, expected);
        assert!(found.iter().any(|&score| score > 0.0));
    }
    ok(musc_options_free(options));
}
