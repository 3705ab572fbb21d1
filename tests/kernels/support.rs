//! What the kernel tests share: seeded inputs, 16-bit formats, launches on the simulator, comparisons with a bound.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytemuck::Pod;
use musc::backend::cuda::kernels::KERNELS;
use ptxsim::{Arg, Counters, DeviceConfig, LaunchConfig, Module};

/// Unit roundoff of f32.
pub const U32: f64 = 1.0 / (1u64 << 24) as f64;

pub use crate::compare::largest_difference;
pub use musc::backend::cuda::Half;
pub use musc::backend::cuda::launch::value_of_key as of_key;

/// What the bounds need to know of a 16-bit format.
pub trait Rounding: Copy {
    /// Unit roundoff.
    fn u(self) -> f64;
    /// Rounded numbers, as bits and as what they stand for.
    fn round(self, x: &[f32]) -> (Vec<u16>, Vec<f64>);
    /// What bits stand for.
    fn values(self, bits: &[u16]) -> Vec<f64>;
}

impl Rounding for Half {
    fn u(self) -> f64 {
        match self {
            Half::F16 => 1.0 / 2048.0,
            _ => 1.0 / 256.0,
        }
    }
    fn round(self, x: &[f32]) -> (Vec<u16>, Vec<f64>) {
        let bits: Vec<u16> = x.iter().map(|&v| self.bits(v)).collect();
        let values = self.values(&bits);
        (bits, values)
    }
    fn values(self, bits: &[u16]) -> Vec<f64> {
        bits.iter().map(|&b| f64::from(self.value(b))).collect()
    }
}

/// Every (target, format) that ships: compute_75 has no bf16.
pub const SHIPPED: [(u32, Half); 3] = [(75, Half::F16), (80, Half::F16), (80, Half::Bf16)];
/// Targets, for kernels that do not touch a 16-bit format.
pub const TARGETS: [u32; 2] = [75, 80];

/// `compare::assert_within`. Where `MUSC_SIM_ERRORS` names a file, a line of it tells the test, the largest error and its
/// largest share of the bound: `tools/sim_errors.py` makes a table of them.
#[track_caller]
pub fn assert_within(what: &str, got: &[f64], expected: &[f64], bound: impl Fn(usize) -> f64) {
    let worst = crate::compare::assert_within(what, got, expected, bound);
    if let Some(path) = std::env::var_os("MUSC_SIM_ERRORS") {
        let error = largest_difference(what, got, expected);
        let thread = std::thread::current();
        let test = thread.name().unwrap_or("unknown");
        let line = format!("{test}\t{what}\t{error:e}\t{worst:e}\n");
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
        file.and_then(|mut file| std::io::Write::write_all(&mut file, line.as_bytes())).unwrap();
    }
}

/// A small seeded generator (SplitMix64).
pub struct Random(pub u64);

impl Random {
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    /// Uniform in [-1, 1).
    pub fn uniform(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
    pub fn vec(&mut self, n: usize, scale: f32) -> Vec<f32> {
        (0..n).map(|_| self.uniform() * scale).collect()
    }
}

/// A float as the key of the same order, as `key_of` in `kernels/common/reduce.cuh`.
pub fn key_of(v: f32) -> u32 {
    let bits = v.to_bits();
    if bits & 0x8000_0000 != 0 { !bits } else { bits | 0x8000_0000 }
}

pub fn widen(v: &[f32]) -> Vec<f64> {
    v.iter().map(|&x| f64::from(x)).collect()
}

/// The module of a kernel as this build ships it (prebuilt, or by the toolkit that was found), parsed once.
fn module(stem: &str, target: u32) -> Arc<Module> {
    type Modules = Mutex<HashMap<(String, u32), Arc<Module>>>;
    static PARSED: OnceLock<Modules> = OnceLock::new();
    let mut parsed =
        PARSED.get_or_init(Default::default).lock().unwrap_or_else(PoisonError::into_inner);
    let load = || {
        let found = KERNELS.iter().find(|kernel| (kernel.0, kernel.1) == (stem, target));
        let (_, _, text) = found.unwrap_or_else(|| panic!("no {stem} for compute_{target}"));
        let name = format!("{stem}.compute_{target}.ptx");
        Arc::new(Module::parse(&name, text).unwrap_or_else(|e| panic!("{e}")))
    };
    parsed.entry((stem.to_string(), target)).or_insert_with(load).clone()
}

/// A simulated card of the oldest kind a target runs on; any error of the simulator fails the test.
pub struct Device {
    device: ptxsim::Device,
}

impl Device {
    pub fn new(target: u32) -> Self {
        let mma_sums = crate::mma_sums::mma_sums();
        let config = DeviceConfig { mma_sums, ..DeviceConfig::new(target) };
        Device { device: ptxsim::Device::new(config) }
    }

    /// A copy of the values on the card.
    pub fn upload<T: Pod>(&mut self, values: &[T]) -> u64 {
        let at = self.alloc::<T>(values.len());
        self.device.write(at, bytemuck::cast_slice(values)).unwrap_or_else(|e| panic!("{e}"));
        at
    }

    /// Memory nobody has written: reading it is an error.
    pub fn alloc<T: Pod>(&mut self, count: usize) -> u64 {
        self.device.alloc((count * size_of::<T>()) as u64).unwrap_or_else(|e| panic!("{e}"))
    }

    /// What is there now; all of it must have been written.
    pub fn download<T: Pod>(&self, at: u64, count: usize) -> Vec<T> {
        let mut values = vec![T::zeroed(); count];
        self.device
            .read(at, bytemuck::cast_slice_mut(&mut values))
            .unwrap_or_else(|e| panic!("{e}"));
        values
    }

    /// Runs a kernel with all checks on, its warps in an order of its own.
    pub fn launch<P: Pod>(
        &mut self,
        stem: &str,
        entry: &str,
        grid: [u32; 3],
        threads: u32,
        shared: u32,
        params: &P,
    ) -> Counters {
        let target = self.device.config().compute_capability;
        let config = LaunchConfig::new(grid, [threads, 1, 1])
            .with_shared(shared)
            .with_seed(u64::from(grid[0] + threads));
        let argument = Arg::bytes(bytemuck::bytes_of(params));
        self.device
            .launch(&module(stem, target), entry, config, &[argument])
            .unwrap_or_else(|e| panic!("{stem} for compute_{target}: {e}"))
    }
}
