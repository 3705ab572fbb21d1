//! The same tests as through a real driver: this program again, in a process that finds the driver API on the simulator
//! (`ptxsim-cuda`) under NVIDIA's name, so that `driver/card` is what runs. And its error paths, each in a process of its
//! own, since a card that failed once fails for good.
//!
//! The tests in [`inside`] are those processes: `ignored` in the list of tests, and run by the one that names them.
#![cfg(target_os = "linux")]

use std::path::Path;
use std::process::{Command, Output};

use crate::driver::stand_in;

/// A process of this program that runs these tests with the driver in its way; `ignored` ones where they are meant.
fn process(tests: &[&str], ignored: bool, switches: &[(&str, &str)]) -> Output {
    let folder = stand_in();
    let mut process = Command::new(std::env::current_exe().unwrap());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PTXSIM_CUDA_")) {
        process.env_remove(name);
    }
    process
        .args(tests)
        .args(if ignored { &["--exact", "--ignored"][..] } else { &[] })
        .args(["--nocapture", "--test-threads=2"])
        .env("LD_LIBRARY_PATH", folder.path())
        .env("MUSC_TEST_DEVICE", "cuda:0,cuda:1,cuda:2")
        .env("PTXSIM_CUDA_LEAKS", "fail")
        .env_remove("CUDA_LAUNCH_BLOCKING")
        .envs(switches.iter().copied())
        .output()
        .unwrap()
}

/// What a process printed, once it is certain that it ran `count` tests and that all of them passed.
#[track_caller]
fn passed(output: &Output, count: usize) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    let expected = format!("test result: ok. {count} passed; 0 failed;");
    assert!(
        output.status.success() && out.contains(&expected),
        "{:?}, expected {count} tests to pass\n{out}\n{err}",
        output.status.code()
    );
    err
}

/// One of the tests in [`inside`], alone.
#[track_caller]
fn inside(test: &str, switches: &[(&str, &str)]) -> String {
    let name = format!("by_the_driver::inside::{test}");
    passed(&process(&[&name], true, switches), 1)
}

/// As many tests as the modules have, counted in their sources: one that is filtered out by mistake would not be missed.
fn tests_of(modules: &[&str]) -> usize {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cuda");
    let of = |module: &&str| {
        let text = std::fs::read_to_string(folder.join(format!("{module}.rs"))).unwrap();
        text.lines().filter(|line| line.trim() == "#[test]").count()
    };
    modules.iter().map(of).sum()
}

#[test]
#[cfg_attr(packaged, ignore = "a file that is in the repository only")]
fn every_test_of_the_backend() {
    let modules = ["exact", "goldens", "real", "refused"];
    let filters: Vec<String> = modules.iter().map(|module| format!("{module}::")).collect();
    let filters: Vec<&str> = filters.iter().map(String::as_str).collect();
    let count = tests_of(&modules);
    assert!(count > 20, "{count}");
    for switches in [
        &[("PTXSIM_CUDA_DEVICES", "3"), ("PTXSIM_CUDA_LATE", "random")][..],
        &[("PTXSIM_CUDA_DEVICES", "3"), ("PTXSIM_CUDA_LATE", "all"), ("PTXSIM_CUDA_POOLS", "1")],
    ] {
        // The second run is for what differs there: memory from pools, and all work as late as can be.
        let (filters, count) = if switches.len() == 2 {
            (&filters[..], count)
        } else {
            (&filters[..1], tests_of(&["exact"]))
        };
        passed(&process(filters, false, switches), count);
    }
}

#[test]
fn no_card_and_no_such_card() {
    inside("no_card", &[("PTXSIM_CUDA_DEVICES", "0")]);
    inside("no_such_card", &[("PTXSIM_CUDA_DEVICES", "2")]);
}

#[test]
fn drivers_and_cards_that_are_too_old() {
    inside("old_driver", &[("PTXSIM_CUDA_VERSION", "10.1")]);
    inside("old_card", &[("PTXSIM_CUDA_CC", "70")]);
    inside("oldest_driver", &[("PTXSIM_CUDA_VERSION", "11.0"), ("PTXSIM_CUDA_LEAKS", "list")]);
}

#[test]
fn modules_that_are_refused() {
    inside("bad_ptx", &[]);
    inside("no_entry", &[]);
}

#[test]
fn memory_that_is_not_there() {
    for pools in ["0", "1"] {
        inside("no_memory", &[("PTXSIM_CUDA_MEMORY", "64M"), ("PTXSIM_CUDA_POOLS", pools)]);
    }
    inside("no_pinned_memory", &[]);
}

#[test]
fn launches_that_fail() {
    inside("too_many_threads", &[]);
    // A card that failed frees nothing any more.
    let leaks = ("PTXSIM_CUDA_LEAKS", "list");
    inside("a_fault_is_not_the_next_kernels", &[leaks]);
    inside("a_checked_launch_names_its_kernel", &[("PTXSIM_CUDA_DEVICES", "2"), leaks]);
    inside("launch_blocking_asks_for_checked_launches", &[("CUDA_LAUNCH_BLOCKING", "1"), leaks]);
}

#[test]
fn freed_behind_the_work_of_streams() {
    for pools in ["0", "1"] {
        for late in ["all", "random", "none"] {
            let switches = [("PTXSIM_CUDA_POOLS", pools), ("PTXSIM_CUDA_LATE", late)];
            inside("memory_is_dropped_while_work_waits", &switches);
        }
    }
}

#[test]
#[cfg_attr(packaged, ignore = "minutes, and the same from the repository")]
fn every_call_fails_once() {
    // With memory from pools a run makes all calls that it makes without, and more.
    let off = ("PTXSIM_CUDA_LOG", "off");
    inside("each_call_in_turn", &[off, ("PTXSIM_CUDA_POOLS", "1")]);
    inside("each_call_in_turn", &[off, ("MUSC_TEST_EVERY", "11")]);
}

/// Run by the tests above, in processes of their own.
mod inside {
    use std::path::Path;
    use std::sync::Arc;

    use musc::backend::cuda::driver::card::CudaCard;
    use musc::backend::cuda::driver::{LaunchShape, StreamHandle};
    use musc::backend::cuda::launch::layer_norm;
    use musc::backend::cuda::{Card, Cuda, CudaOptions, Half, Stream};
    use musc::backend::{Backend, Extraction, FeatureSet, Pixels, References};
    use musc::image::{Normalisation, RgbImage};
    use musc::model::{Activation, Vit};
    use musc::scoring::MutualScoring;
    use musc::{Error, ImageSize};

    use crate::support::data;

    fn open() -> Arc<Card> {
        Card::with_driver(Arc::new(CudaCard::open(0).unwrap()), None)
    }

    #[track_caller]
    fn says<T>(result: Result<T, Error>, words: &[&str]) -> String {
        let message = match result {
            Ok(_) => panic!("was not refused; expected words {words:?}"),
            Err(error) => error.to_string(),
        };
        for word in words {
            assert!(message.contains(word), "`{word}` is not in: {message}");
        }
        assert_eq!(message.trim(), message);
        message
    }

    #[test]
    #[ignore = "run by a test of by_the_driver, which names it"]
    fn no_card() {
        says(CudaCard::open(0), &["`cuda:0`", "CUDA_ERROR_NO_DEVICE"]);
    }

    #[test]
    #[ignore = "run by a test of by_the_driver, which names it"]
    fn no_such_card() {
        says(Cuda::open(&[0, 5], CudaOptions::default()), &["`cuda:5`", "found 2"]);
    }

    #[test]
    #[ignore = "run by a test of by_the_driver, which names it"]
    fn old_driver() {
        says(Cuda::open(&[0], CudaOptions::default()), &["CUDA 11.0", "found 10.1", "cuda:0"]);
    }

    #[test]
    #[ignore = "run by a test of by_the_driver, which names it"]
    fn old_card() {
        says(Cuda::open(&[0], CudaOptions::default()), &["7.0", "need 7.5", "cuda:0"]);
    }

    #[test]
    #[ignore = "run by a test of by_the_driver, which names it"]
    fn oldest_driver() {
        let cuda = Cuda::open(&[0], CudaOptions::default()).unwrap();
        let loaded = &cuda.loaded()[0];
        assert!(loaded.kernels.len() > 30 && loaded.seconds > 0.0, "{loaded:?}");
        assert_eq!(loaded.spilling().count(), 0);
    }

    #[test]
    #[ignore = "run by a test of by_the_driver, which names it"]
    fn bad_ptx() {
        let card = open();
        let bad = ".version 7.0\n.target sm_80\n.address_size 64\n.visible .entry k()\n{\nfrobnicate;\n}\n";
        let load = || {
            let module = card.driver().load_module("bad.ptx", bad)?;
            card.driver().function(module, "k", false)
        };
        says(load(), &["frobnicate"]);
        says(card.driver().load_module("zero.ptx", "a\0b"), &["zero.ptx", "zero byte"]);
        let none = card.driver().load_module("empty.ptx", "");
        says(none, &["kernel empty.ptx", "does not load", "CUDA_ERROR_INVALID_PTX"]);
    }

    const STORE: &str = ".version 7.0\n.target sm_80\n.address_size 64\n\
        .visible .entry store(.param .u64 at)\n{\n.reg .b64 %rd<2>;\n.reg .b32 %r<2>;\n\
        ld.param.u64 %rd1, [at];\nmov.u32 %r1, 7;\nst.global.u32 [%rd1], %r1;\nret;\n}\n";

    #[test]
    #[ignore = "run by a test of by_the_driver, which names it"]
    fn no_entry() {
        let card = open();
        let module = card.driver().load_module("store.ptx", STORE).unwrap();
        let found = card.driver().function(module, "stroe", false);
        says(found, &["kernel stroe", "CUDA_ERROR_NOT_FOUND"]);
    }

    #[test]
    #[ignore = "run by a test of by_the_driver, which names it"]
    fn no_memory() {
        let card = open();
        let kept = card.alloc::<u8>(32 << 20, "half").unwrap();
        let message = says(
            card.alloc::<u8>(33 << 20, "the other half"),
            &["`cuda:0`", "the other half", "need 33.0 MiB"],
        );
        assert!(message.contains("have 32.0 MiB"), "{message}");
        drop(kept);
        card.alloc::<u8>(64 << 20, "all").unwrap();
    }

    #[test]
    #[ignore = "run by a test of by_the_driver, which names it"]
    fn no_pinned_memory() {
        let card = open();
        let words = ["`cuda:0`", "page-locked", "need 4398046511104.0 MiB", "have"];
        says(card.alloc_pinned::<u8>(1 << 62), &words);
        assert_eq!(card.alloc_pinned::<u32>(5000).unwrap()[..], [0; 5000]);
    }

    /// Stores 7 to an address.
    fn store(card: &Card, at: u64, threads: u32) -> musc::Result<()> {
        let module = card.driver().load_module("store.ptx", STORE)?;
        let function = card.driver().function(module, "store", false)?;
        let stream = card.driver().create_stream()?;
        let shape = LaunchShape { grid: [1; 3], threads, shared_bytes: 0 };
        // SAFETY: one parameter, an address; the simulator finds out what is wrong with it. The stream is this driver's.
        unsafe {
            let launched =
                card.driver().launch(stream, "store", function, shape, &at.to_le_bytes());
            let waited = card.driver().synchronise(stream);
            card.driver().destroy_stream(stream);
            launched.and(waited)
        }
    }

    #[test]
    #[ignore = "run by a test of by_the_driver, which names it"]
    fn too_many_threads() {
        let card = open();
        let to = card.alloc::<u32>(1, "a word").unwrap();
        says(store(&card, to.address(), 1025), &["kernel store", "CUDA_ERROR_INVALID_VALUE"]);
        store(&card, to.address(), 1).unwrap();
        assert_eq!(card.stream().unwrap().download_new(to.view()).unwrap(), [7]);
    }

    #[test]
    #[ignore = "run by a test of by_the_driver, which names it"]
    fn a_fault_is_not_the_next_kernels() {
        let card = open();
        let stream = card.stream().unwrap();
        let values = stream.upload_new(&[1.0f32; 256], "values").unwrap();
        let mut out = card.alloc::<f32>(256, "out").unwrap();
        let mut next = || {
            let norm = layer_norm::Norm { gamma: values.view(), beta: values.view(), eps: 1e-6 };
            let (rows, input) = (layer_norm::Rows::All(1), values.view());
            layer_norm::stream(&stream, input, rows, 256, norm, out.view_mut())
        };
        next().unwrap();
        // The launch succeeds; the wait for it tells.
        says(store(&card, 64, 1), &["`cuda:0`", "CUDA_ERROR_ILLEGAL_ADDRESS"]);
        let words = ["device `cuda:0`", "CUDA_ERROR_ILLEGAL_ADDRESS", "work before this failed"];
        let message = says(next(), &words);
        assert!(!message.contains("layer_norm"), "{message}");
        // And a module is not to blame either.
        let message = says(card.driver().load_module("store.ptx", STORE), &words);
        assert!(!message.contains("store"), "{message}");
    }

    fn unwritten(card: &Arc<Card>) -> musc::Result<()> {
        let stream = card.stream()?;
        let unwritten = card.alloc::<f32>(256, "nobody wrote this")?;
        let norm = layer_norm::Norm { gamma: unwritten.view(), beta: unwritten.view(), eps: 1e-6 };
        let mut out = card.alloc::<f32>(256, "out")?;
        let rows = layer_norm::Rows::All(1);
        layer_norm::stream(&stream, unwritten.view(), rows, 256, norm, out.view_mut())
    }

    #[test]
    #[ignore = "run by a test of by_the_driver, which names it"]
    fn a_checked_launch_names_its_kernel() {
        let card = open();
        unwritten(&card).unwrap();
        // What was launched there has failed by now, or fails when it runs: a card of its own for the other half.
        let card = Card::with_driver(Arc::new(CudaCard::open(1).unwrap()), None);
        card.set_checked(true);
        says(unwritten(&card), &["kernel layer_norm_stream_f32", "cuda:1", "LAUNCH_FAILED"]);
    }

    #[test]
    #[ignore = "run by a test of by_the_driver, which names it"]
    fn launch_blocking_asks_for_checked_launches() {
        let cuda = Cuda::open(&[0], CudaOptions::default()).unwrap();
        assert!(cuda.cards()[0].checked());
        says(unwritten(&cuda.cards()[0]), &["kernel layer_norm_stream_f32"]);
    }

    #[test]
    #[ignore = "run by a test of by_the_driver, which names it"]
    fn memory_is_dropped_while_work_waits() {
        let card = open();
        let (first, second) = (card.stream().unwrap(), card.stream().unwrap());
        let values: Vec<u32> = (0..1000).collect();
        let from = first.upload_new(&values, "values").unwrap();
        // Page-locked: a copy to other memory is done when the call returns.
        let mut to = card.alloc_pinned::<u32>(1000).unwrap();
        // SAFETY: `to` lives until the stream is waited for.
        unsafe { second.download_async(from.view(), &mut to).unwrap() };
        // The buffer goes while the copy out of it may not have begun. Asking what is free waits until it is gone, and so for
        // the copy; its place may be taken at once.
        drop(from);
        card.available_bytes().unwrap();
        let mut next = card.alloc::<u32>(1000, "the next").unwrap();
        first.zero(next.view_mut()).unwrap();
        second.synchronise().unwrap();
        assert_eq!(to[..], values);
        to.fill(0);
        // Somebody else's stream: what it was given still counts when it is let go.
        type Create = unsafe extern "C" fn(*mut u64, u32) -> u32;
        type OfStream = unsafe extern "C" fn(u64) -> u32;
        // SAFETY: the driver's stand-in is loaded already; the functions are declared so in the driver's manual.
        let library = unsafe { libloading::Library::new("libcuda.so.1") }.unwrap();
        // SAFETY: as above.
        let (create, synchronise, destroy) = unsafe {
            (
                library.get::<Create>(b"cuStreamCreate").unwrap(),
                library.get::<OfStream>(b"cuStreamSynchronize").unwrap(),
                library.get::<OfStream>(b"cuStreamDestroy_v2").unwrap(),
            )
        };
        let from = first.upload_new(&values, "values").unwrap();
        let mut theirs = 0;
        // SAFETY: writes one handle; the calls above made the card's context this thread's. 1: waits for no null stream.
        assert_eq!(unsafe { create(&mut theirs, 1) }, 0);
        // SAFETY: a stream of the card's context, which outlives what stands for it.
        let lent = unsafe { Stream::from_raw(&card, StreamHandle(theirs)) };
        // SAFETY: as above.
        unsafe { lent.download_async(from.view(), &mut to).unwrap() };
        drop(lent);
        drop(from);
        card.available_bytes().unwrap();
        let mut next = card.alloc::<u32>(1000, "the next").unwrap();
        first.zero(next.view_mut()).unwrap();
        // SAFETY: the stream lives until here.
        assert_eq!(unsafe { (synchronise(theirs), destroy(theirs)) }, (0, 0));
        assert_eq!(to[..], values);
        assert_eq!(card.available_bytes().unwrap() / 1_000_000_000, 16);
    }

    /// A small run: two images through the tiny backbone, scored against each other.
    fn small_run() -> musc::Result<Vec<f32>> {
        let card = Card::with_driver(Arc::new(CudaCard::open(0)?), None);
        let cuda = Cuda::with_cards(vec![card], Half::F16)?;
        let vit = Vit::open(Path::new(&data("dinov2_tiny_weights.safetensors")))?;
        let size = ImageSize::square(28);
        let extraction = Extraction::new(vec![1], size, Activation::Gelu, Normalisation::IMAGENET)
            .with_batch_size(2);
        let image = |seed: u8| {
            let bytes = (0..size.pixels() * 3).map(|at| (at as u8).wrapping_mul(seed));
            RgbImage::new(28, 28, bytes.collect())
        };
        let images = [image(7)?, image(31)?];
        let model = cuda.load(&vit, &extraction)?;
        let features = cuda.extract(&model, Pixels::Rgb(&images), &())?;
        features.to_host()?;
        let scoring = MutualScoring::default().with_degrees([1]);
        Ok(cuda.patch_scores(&features, References::Others, &scoring, &())?.mean())
    }

    /// To look at one of [`each_call_in_turn`]'s failures: with `PTXSIM_CUDA_FAIL=N PTXSIM_CUDA_LOG=calls`.
    #[test]
    #[ignore = "a small run by the driver, to look at"]
    fn one_small_run() {
        println!("{:?}", small_run());
    }

    #[test]
    #[ignore = "run by a test of by_the_driver, which names it"]
    fn each_call_in_turn() {
        type Fail = unsafe extern "C" fn(u64, u32);
        type Count = unsafe extern "C" fn() -> u64;
        // SAFETY: the driver's stand-in runs no code on loading that could go wrong.
        let library = unsafe { libloading::Library::new("libcuda.so.1") }.unwrap();
        // SAFETY: the functions are declared so in `ptxsim-cuda/src/fail.rs`.
        let (fail, calls, leaks) = unsafe {
            (
                library.get::<Fail>(b"ptxsim_cuda_fail").unwrap(),
                library.get::<Count>(b"ptxsim_cuda_calls").unwrap(),
                library.get::<Count>(b"ptxsim_cuda_leaks").unwrap(),
            )
        };
        // SAFETY: numbers in, numbers out.
        let count = || unsafe { calls() };
        let expected = small_run().unwrap();
        let before = count();
        assert_eq!(small_run().unwrap(), expected);
        let of_a_run = count() - before;
        assert!(of_a_run > 200, "{of_a_run}");
        let (mut told, mut unharmed) = (0, 0);
        let every = std::env::var("MUSC_TEST_EVERY").map_or(1, |every| every.parse().unwrap());
        for number in (1..=of_a_run).step_by(every) {
            let before = count();
            // SAFETY: as above.
            unsafe { fail(number, 0) };
            match small_run() {
                // An error names the device or the kernel, and what the driver said.
                Err(error) => {
                    let message = error.to_string();
                    assert!(
                        message.contains("CUDA_ERROR_UNKNOWN")
                            && (message.contains("`cuda:0`") || message.contains("kernel ")),
                        "call {number}: {message}"
                    );
                    told += 1;
                }
                // What only frees has nobody to tell.
                Ok(scores) => {
                    assert_eq!(scores, expected, "call {number}");
                    unharmed += 1;
                }
            }
            // SAFETY: as above.
            let left = unsafe {
                fail(0, 0);
                leaks()
            };
            assert_eq!(left, 0, "call {number} of {of_a_run}");
            assert!(count() >= before + number, "call {number} never came");
        }
        assert_eq!(small_run().unwrap(), expected);
        println!("{of_a_run} calls: {told} told, {unharmed} without harm");
        assert!(told > 2 * unharmed, "{told} of {of_a_run}");
    }
}
