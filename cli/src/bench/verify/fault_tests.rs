//! Kernels that are wrong themselves: their PTX is changed on its way to the simulator.

use std::ptr::NonNull;
use std::sync::Arc;

use musc::Result;
use musc::backend::cuda::Card;
use musc::backend::cuda::driver::{
    CardInfo, Driver, EventHandle, Function, LaunchShape, ModuleHandle, StreamHandle,
};

use super::super::measure::Timer;
use super::super::op::Op;
use super::*;
use musc::backend::cuda::launch::PairBlock;

/// Changes the text of a kernel file.
type Edit = fn(&str, &str) -> Option<String>;

/// The simulator behind a driver that edits what it loads.
struct Faulty {
    sim: Sim,
    edit: Edit,
}

// SAFETY: all of it is the simulator's, but for the text of modules.
unsafe impl Driver for Faulty {
    fn info(&self) -> &CardInfo {
        self.sim.info()
    }
    fn free_bytes(&self) -> Result<u64> {
        self.sim.free_bytes()
    }
    fn load_module(&self, name: &str, ptx: &str) -> Result<ModuleHandle> {
        let edited = (self.edit)(name, ptx);
        self.sim.load_module(name, edited.as_deref().unwrap_or(ptx))
    }
    fn function(&self, module: ModuleHandle, entry: &str, tiles: bool) -> Result<Function> {
        self.sim.function(module, entry, tiles)
    }
    fn alloc(&self, bytes: u64, what: &str) -> Result<u64> {
        self.sim.alloc(bytes, what)
    }
    unsafe fn free(&self, address: u64) {
        // SAFETY: the caller's promise, here and below.
        unsafe { self.sim.free(address) }
    }
    fn alloc_pinned(&self, bytes: usize) -> Result<NonNull<u8>> {
        self.sim.alloc_pinned(bytes)
    }
    unsafe fn free_pinned(&self, at: NonNull<u8>, bytes: usize) {
        // SAFETY: as above.
        unsafe { self.sim.free_pinned(at, bytes) }
    }
    fn create_stream(&self) -> Result<StreamHandle> {
        self.sim.create_stream()
    }
    unsafe fn destroy_stream(&self, stream: StreamHandle) {
        // SAFETY: as above.
        unsafe { self.sim.destroy_stream(stream) }
    }
    unsafe fn copy_to_card(
        &self,
        stream: StreamHandle,
        to: u64,
        from: *const u8,
        bytes: usize,
    ) -> Result<()> {
        // SAFETY: as above.
        unsafe { self.sim.copy_to_card(stream, to, from, bytes) }
    }
    unsafe fn copy_to_host(
        &self,
        stream: StreamHandle,
        to: *mut u8,
        from: u64,
        bytes: usize,
    ) -> Result<()> {
        // SAFETY: as above.
        unsafe { self.sim.copy_to_host(stream, to, from, bytes) }
    }
    unsafe fn zero(&self, stream: StreamHandle, at: u64, bytes: u64) -> Result<()> {
        // SAFETY: as above.
        unsafe { self.sim.zero(stream, at, bytes) }
    }
    unsafe fn launch(
        &self,
        stream: StreamHandle,
        kernel: &str,
        function: Function,
        shape: LaunchShape,
        params: &[u8],
    ) -> Result<()> {
        // SAFETY: as above.
        unsafe { self.sim.launch(stream, kernel, function, shape, params) }
    }
    fn create_event(&self, timing: bool) -> Result<EventHandle> {
        self.sim.create_event(timing)
    }
    unsafe fn destroy_event(&self, event: EventHandle) {
        // SAFETY: as above.
        unsafe { self.sim.destroy_event(event) }
    }
    unsafe fn record(&self, event: EventHandle, stream: StreamHandle) -> Result<()> {
        // SAFETY: as above.
        unsafe { self.sim.record(event, stream) }
    }
    unsafe fn wait(&self, stream: StreamHandle, event: EventHandle) -> Result<()> {
        // SAFETY: as above.
        unsafe { self.sim.wait(stream, event) }
    }
    unsafe fn synchronise_event(&self, event: EventHandle) -> Result<()> {
        // SAFETY: as above.
        unsafe { self.sim.synchronise_event(event) }
    }
    unsafe fn elapsed_ms(&self, from: EventHandle, to: EventHandle) -> Result<Option<f32>> {
        // SAFETY: as above.
        unsafe { self.sim.elapsed_ms(from, to) }
    }
    unsafe fn synchronise(&self, stream: StreamHandle) -> Result<()> {
        // SAFETY: as above.
        unsafe { self.sim.synchronise(stream) }
    }
}

fn faulty(edit: Edit) -> Arc<Card> {
    Card::with_driver(Arc::new(Faulty { sim: Sim::new(SimOptions::default()), edit }), None)
}

/// The text with one line of an entry changed: the first that holds the words.
fn edited(ptx: &str, entry: &str, words: &str, change: impl Fn(&str) -> String) -> Option<String> {
    let start = ptx.find(&format!(".entry {entry}("))?;
    let at = start + ptx[start..].find(words)?;
    let (first, last) = (ptx[..at].rfind('\n')? + 1, at + ptx[at..].find('\n')?);
    Some(format!("{}{}{}", &ptx[..first], change(&ptx[first..last]), &ptx[last..]))
}

/// What [`check`] says of a kernel file with an edit.
fn told(stem: &str, edit: Edit) -> String {
    check(&faulty(edit), stem).expect_err("the fault is in the kernel").to_string()
}

#[test]
fn kernels_as_they_are_verify() {
    for stem in ["gemm", "lnamd", "interval_mean"] {
        check(&faulty(|_, _| None), stem).unwrap();
    }
}

/// One of the products of each k-step is left out: 16x8 of a warp's 64x64.
#[test]
fn a_product_that_is_missing_is_found() {
    let said =
        told("gemm", |_, ptx| edited(ptx, "gemm_gram_max_f16", "mma.sync", |_| String::new()));
    assert!(said.contains("gemm_gram_max_f16") && said.contains("beyond their bound"), "{said}");
}

/// A store that is left out, by a predicate that is never true: elements keep what was there.
#[test]
fn a_store_that_is_missing_is_found() {
    let said = told("gemm", |_, ptx| edited(ptx, "gemm_bias_f16", "st.global", |_| String::new()));
    assert!(said.contains("gemm_bias_f16") && said.contains("not written"), "{said}");
}

/// Norms are 1/‖·‖: of a root that is another.
#[test]
fn norms_that_are_wrong_are_found() {
    let said = told("lnamd", |_, ptx| {
        edited(ptx, "lnamd_norms_f16", "sqrt", |line| line.replacen("sqrt.rn.f32", "rcp.rn.f32", 1))
    });
    assert!(said.contains("lnamd_norms_f16") && said.contains("beyond their bound"), "{said}");
}

/// Both of what the comparison that stood here before let pass, through the same path that is run before a measurement.
#[test]
fn a_k_step_of_64_and_norms_of_a_degree_are_found() {
    let counter = super::super::probe::Counter::new(80);
    let seeded = defects::seed(counter.card(), None).unwrap();
    for fault in ["one k-step of 64 dropped from the Gram product", "every norm of degree 5 zeroed"]
    {
        let of = seeded.iter().find(|seeded| seeded.fault == fault).unwrap();
        assert!(of.told.iter().any(|told| told.contains("beyond their bound")), "{:?}", of.told);
    }
    assert!(seeded.iter().all(defects::Seeded::caught));
}

#[test]
fn what_does_not_verify_is_not_timed() {
    let block = PairBlock { first_a: 0, images_a: 1, first_b: 1, images_b: 1, symmetric: true };
    let gram = Op::Gram { block, patches: 16, width: 64 };
    let pool = Op::Pool { block, grid: 4, degrees: vec![3, 5] };
    let broken = faulty(|_, ptx| edited(ptx, "gemm_gram_max_f16", "mma.sync", |_| String::new()));
    let mut timer = Timer::new(&broken).unwrap();
    for said in [timer.time(&gram).unwrap_err(), timer.time_chain(&gram, &pool).unwrap_err()] {
        let said = said.to_string();
        assert!(said.contains("gemm_gram_max_f16") && said.contains("not timed"), "{said}");
    }
    // Kernels that need none of it may be timed: only then is the clock asked for.
    let other = Op::IntervalMean { images: 20, patches: 40, scored: 2, ranks: (0, 5) };
    let said = timer.time(&other).unwrap_err().to_string();
    assert!(said.contains("keeps no time"), "{said}");
}

/// A launch that fails is a verdict, not the end: the others are still run.
#[test]
fn a_launch_that_fails_is_told() {
    let card =
        faulty(|_, ptx| edited(ptx, "interval_mean_keys_f32", "st.shared", |_| String::new()));
    let all = trials(Half::F16, Some("interval_mean"), true);
    let records: Vec<Record> =
        all.iter().flat_map(|trial| run_trial(&card, trial, None).unwrap()).collect();
    assert!(records.len() >= all.len() && records.iter().any(|record| !record.verified()));
    let entries = [
        ("interval_mean", String::from("interval_mean_keys_f32")),
        ("gemm", String::from("gemm_x")),
    ];
    let verdicts = verdicts(&entries, &records);
    assert_eq!(verdicts["interval_mean_keys_f32"], Verdict::Differs);
    assert_eq!(verdicts["gemm_x"], Verdict::NotRun);
}

/// Bounds hold for tensor cores that cut their sums, those of every generation; and so much is lost that it shows in the bias.
#[test]
fn sums_that_are_cut_toward_zero_verify() {
    for (mma_sums, compute_capability) in
        [(MmaSums::V100, 75), (MmaSums::A100, 80), (MmaSums::H100, 90)]
    {
        let options = SimOptions { mma_sums, compute_capability, ..SimOptions::default() };
        let card = Card::with_driver(Arc::new(Sim::new(options)), None);
        let mut duplicates = Vec::new();
        for stem in ["gemm", "attention", "patch_distance"] {
            for trial in trials(Half::F16, Some(stem), true) {
                for record in run_trial(&card, &trial, None).unwrap() {
                    let judged = record.result.unwrap();
                    assert!(
                        judged.verified(),
                        "{mma_sums:?} {} {}: {:?}",
                        record.entry,
                        record.shape,
                        judged.faults()
                    );
                    if record.shape.contains("an image twice") {
                        duplicates.push(judged.bias);
                    }
                }
            }
        }
        // The cosine of a patch with itself is a sum of one sign.
        assert!(duplicates.len() == 1 && duplicates[0] < -1e-7, "{mma_sums:?}: {duplicates:?}");
        assert!(defects::seed(&card, Some("gemm")).unwrap().iter().all(defects::Seeded::caught));
    }
}
