//! What device is simulated, and how a kernel is launched on it.

/// A simulated device: its architecture and limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceConfig {
    /// Compute capability as one number: 75, 80, 86, 89, 90.
    pub compute_capability: u32,
    /// Multiprocessors (only what `%nsmid` shows).
    pub multiprocessors: u32,
    /// Device memory in bytes.
    pub memory_bytes: u64,
    /// Shared memory a block may have with the opt-in of
    /// [`LaunchConfig::allow_large_shared`], in bytes.
    pub shared_bytes_per_block: u32,
    /// Shared memory of a multiprocessor, in bytes.
    pub shared_bytes_per_multiprocessor: u32,
    /// Threads of a block.
    pub threads_per_block: u32,
    /// Warps a multiprocessor holds.
    pub warps_per_multiprocessor: u32,
    /// How `mma` of floats takes its sums; in f32 unless it is said otherwise.
    pub mma_sums: MmaSums,
}

/// How `mma` of floats takes its sums. PTX leaves it open, and cards differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum MmaSums {
    /// In f32, in the order of k, each addition rounded to nearest: no card does so, and none is
    /// far from it where terms have both signs.
    #[default]
    F32,
    /// As tensor cores: a block of products and the accumulator are aligned to the largest
    /// exponent among them, cut towards zero, and added; then the sum is cut to the accumulator's
    /// f32 (rounded to nearest into an f16). Sums of one sign come out too small.
    Truncated {
        /// Products of 16-bit factors that are added at once; of tf32 half as many. An `mma` of
        /// fewer adds what it has.
        block: u32,
        /// Bits kept below the last one of an f32; at most 20.
        extra_bits: u32,
    },
}

impl MmaSums {
    /// As a V100.
    pub const V100: MmaSums = MmaSums::Truncated { block: 4, extra_bits: 0 };
    /// As an A100; A2, A30, Ada RTX 1000 and L40S do the same with 16-bit factors and tf32.
    pub const A100: MmaSums = MmaSums::Truncated { block: 8, extra_bits: 1 };
    /// As an H100; an H200 does the same.
    pub const H100: MmaSums = MmaSums::Truncated { block: 16, extra_bits: 2 };

    /// What a switch names: `f32`, or a card whose sums it stands for: `v100`, `a100`, `h100`.
    pub fn named(name: &str) -> Option<MmaSums> {
        match name {
            "f32" => Some(MmaSums::F32),
            "v100" => Some(MmaSums::V100),
            "a100" => Some(MmaSums::A100),
            "h100" => Some(MmaSums::H100),
            _ => None,
        }
    }
}

/// Shared memory a block may have without opting in to more.
pub const SHARED_BYTES_WITHOUT_OPT_IN: u32 = 48 * 1024;

impl DeviceConfig {
    /// The limits of a compute capability (CUDA C++ Programming Guide, table of technical
    /// specifications). Unknown ones get the limits of the nearest older one known.
    pub fn new(compute_capability: u32) -> DeviceConfig {
        // (shared KB of a block, of a multiprocessor, warps, multiprocessors of a common card)
        let (block, sm, warps, sms) = match compute_capability {
            0..=79 => (64, 64, 32, 40),
            80..=85 => (163, 164, 64, 108),
            86..=88 => (99, 100, 48, 82),
            89 => (99, 100, 48, 128),
            90..=99 => (227, 228, 64, 132),
            100..=119 => (227, 228, 64, 148),
            _ => (99, 100, 48, 170),
        };
        DeviceConfig {
            compute_capability,
            multiprocessors: sms,
            memory_bytes: 16 << 30,
            shared_bytes_per_block: block * 1024,
            shared_bytes_per_multiprocessor: sm * 1024,
            threads_per_block: 1024,
            warps_per_multiprocessor: warps,
            mma_sums: MmaSums::F32,
        }
    }
}

/// What orders the lanes of a warp in shared memory, besides block barriers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WarpOrder {
    /// Only `bar.warp.sync` (`__syncwarp`), as the CUDA memory model has it.
    #[default]
    Explicit,
    /// Also `shfl.sync`, `vote.sync`, `match.sync` and `redux.sync`, among the lanes they name.
    Collectives,
}

/// A launch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchConfig {
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Dynamic shared memory in bytes.
    pub shared_bytes: u32,
    /// The kernel may have more than 48 KB of shared memory
    /// (`CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES` was set).
    pub allow_large_shared: bool,
    /// Decides the order of blocks and warps, and where warps are interrupted.
    pub seed: u64,
    /// Host threads; `None` takes all. A kernel whose result can depend on the order of its
    /// blocks (float atomics, atomics that return) always runs on one.
    pub host_threads: Option<usize>,
    /// Report blocks that touch what another block writes. Turn it off for kernels that hand
    /// data from block to block in one launch, with fences.
    pub check_blocks: bool,
    /// What orders the lanes of a warp.
    pub warp_order: WarpOrder,
    /// Instructions one warp may run before it is taken for an endless loop.
    pub instruction_limit: u64,
}

impl LaunchConfig {
    /// A launch with the given shape and everything else at its default.
    pub fn new(grid: [u32; 3], block: [u32; 3]) -> LaunchConfig {
        LaunchConfig {
            grid,
            block,
            shared_bytes: 0,
            allow_large_shared: false,
            seed: 0,
            host_threads: None,
            check_blocks: true,
            warp_order: WarpOrder::Explicit,
            instruction_limit: 1 << 36,
        }
    }

    /// A launch of `blocks` blocks of `threads` threads along x.
    pub fn linear(blocks: u32, threads: u32) -> LaunchConfig {
        LaunchConfig::new([blocks, 1, 1], [threads, 1, 1])
    }

    /// With dynamic shared memory; more than 48 KB is allowed.
    pub fn with_shared(mut self, bytes: u32) -> LaunchConfig {
        self.shared_bytes = bytes;
        self.allow_large_shared = true;
        self
    }

    /// With another order of blocks and warps.
    pub fn with_seed(mut self, seed: u64) -> LaunchConfig {
        self.seed = seed;
        self
    }
}
