//! The cards the model knows, with where each figure comes from.
//!
//! | figure | source |
//! |---|---|
//! | tensor TFLOP/s (f16 products, f32 sums, dense, boost clock) | 3090, 4090, A100, H100: `llmc/mfu.h` of karpathy/llm.c; T4, L4: NVIDIA's data sheets; 5090: published half rate, 209.5 |
//! | multiprocessors, boost clock, GB/s, L2 | NVIDIA's data sheets and architecture papers of the chips |
//! | f32 lanes, warps, blocks, shared memory of a multiprocessor | CUDA C++ Programming Guide, tables of arithmetic throughput and of technical specifications |
//! | L2 GB/s | measured by te42kyfo/gpu-benches, folder `gpu-l2-cache`: A100-80G 5400, H200 9700 (for the H100 SXM: the same chip and multiprocessors), L40 5200 over 142 multiprocessors at 2.49 GHz, which is 14.7 bytes a clock and multiprocessor; that rate is assumed for the other GeForce and inference cards |
//!
//! Share of each limit that a good kernel reaches (`reach`), calibrated on published figures of others:
//!
//! | limit | factor | source |
//! |---|---|---|
//! | tensor, GEMM, GeForce | 0.88 | cuBLAS 4096³ on a 4090 93.0 % (spatters/mma-matmul); cuBLAS on a 3090 94 % at 5120 (f16 sums; Bruce-Lee-LY/cuda_hgemm); a whole ViT-L in timm 84 % and 82 % |
//! | tensor, GEMM, A100 | 0.78 | best of many shapes 81 to 87 % (stas00/ml-engineering); FaSTED, the closest relative, 64 % tensor pipe busy and throttled by power |
//! | tensor, GEMM, H100 | 0.63 · 0.85 | `mma.sync` tops out at 63 to 65 % of 989 (arXiv 2501.12084); CUTLASS with `mma.sync` is 1.3 (K = 8192) to 1.65 times (K = 512) slower than with `wgmma` |
//! | tensor, GEMM, T4 and L4 | 0.60 | cuBLAS 48.8 of 65 on a T4 (alexarmbr/matmul-playground); both are 70 W cards that do not hold their boost clock |
//! | tensor, attention | 0.87, A100 0.50, H100 0.31, T4 and L4 0.50 | FlashAttention-2 at 1k tokens, heads of 64: 3090 62 of 71, 4090 143 of 165, A100 153 of 312, H100 306 of 989 (plots of thu-ml/SageAttention and Dao-AILab/flash-attention) |
//! | instruction issue and arithmetic pipes | 0.70 | an assumption: no published figure fits; 0.6 to 0.85 are usual for kernels with a barrier a step |
//! | passes through shared memory | 0.90 | an assumption |
//! | DRAM | 0.88 | gpu-benches, same files: A100-80G 1.73 to 1.87 of 2.04, H200 3.89 of 4.8, H100 PCIe 1.97 of 2.04, L40 0.80 to 0.85 of 0.864 TB/s |

/// A card as the model sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Card {
    /// Its name, as `--card` takes it.
    pub name: &'static str,
    /// Compute capability: 86 for 8.6.
    pub arch: u32,
    /// Multiprocessors.
    pub multiprocessors: u32,
    /// Boost clock in GHz.
    pub clock_ghz: f64,
    /// Dense tensor TFLOP/s with f32 sums at that clock.
    pub tensor_tflops: f64,
    /// f32 lanes of a multiprocessor.
    pub fp32_lanes: u32,
    /// DRAM GB/s.
    pub dram_gbs: f64,
    /// L2 in MB.
    pub l2_mb: f64,
    /// L2 GB/s, measured (see the module).
    pub l2_gbs: f64,
    /// Shared memory of a multiprocessor in KiB.
    pub shared_kib: u32,
    /// Warps of a multiprocessor.
    pub warps: u32,
    /// Blocks of a multiprocessor.
    pub blocks: u32,
    /// What a good kernel reaches of each limit.
    pub reach: Reach,
}

/// Shares of a limit that are reached.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reach {
    /// Tensor pipe, matrix products.
    pub gemm: f64,
    /// Tensor pipe, attention.
    pub attention: f64,
    /// Issue slots and arithmetic pipes.
    pub issue: f64,
    /// Passes through shared memory.
    pub shared: f64,
    /// DRAM.
    pub dram: f64,
}

const GEFORCE: Reach = Reach { gemm: 0.88, attention: 0.87, issue: 0.70, shared: 0.90, dram: 0.88 };
const SEVENTY_WATTS: Reach = Reach { gemm: 0.60, attention: 0.50, ..GEFORCE };

/// All cards, the four of the targets first.
pub const CARDS: &[Card] = &[
    Card {
        name: "RTX-3090",
        arch: 86,
        multiprocessors: 82,
        clock_ghz: 1.695,
        tensor_tflops: 71.2,
        fp32_lanes: 128,
        dram_gbs: 936.0,
        l2_mb: 6.0,
        l2_gbs: 2040.0,
        shared_kib: 100,
        warps: 48,
        blocks: 16,
        reach: GEFORCE,
    },
    Card {
        name: "RTX-4090",
        arch: 89,
        multiprocessors: 128,
        clock_ghz: 2.52,
        tensor_tflops: 165.2,
        fp32_lanes: 128,
        dram_gbs: 1008.0,
        l2_mb: 72.0,
        l2_gbs: 4740.0,
        shared_kib: 100,
        warps: 48,
        blocks: 24,
        reach: GEFORCE,
    },
    Card {
        name: "A100",
        arch: 80,
        multiprocessors: 108,
        clock_ghz: 1.41,
        tensor_tflops: 312.0,
        fp32_lanes: 64,
        dram_gbs: 2039.0,
        l2_mb: 40.0,
        l2_gbs: 5400.0,
        shared_kib: 164,
        warps: 64,
        blocks: 32,
        reach: Reach { gemm: 0.78, attention: 0.50, ..GEFORCE },
    },
    Card {
        name: "H100",
        arch: 90,
        multiprocessors: 132,
        clock_ghz: 1.83,
        tensor_tflops: 989.4,
        fp32_lanes: 128,
        dram_gbs: 3350.0,
        l2_mb: 50.0,
        l2_gbs: 9700.0,
        shared_kib: 228,
        warps: 64,
        blocks: 32,
        reach: Reach { gemm: 0.63 * 0.85, attention: 0.31, ..GEFORCE },
    },
    Card {
        name: "L4",
        arch: 89,
        multiprocessors: 58,
        clock_ghz: 2.04,
        tensor_tflops: 121.0,
        fp32_lanes: 128,
        dram_gbs: 300.0,
        l2_mb: 48.0,
        l2_gbs: 1740.0,
        shared_kib: 100,
        warps: 48,
        blocks: 24,
        reach: SEVENTY_WATTS,
    },
    Card {
        name: "RTX-5090",
        arch: 120,
        multiprocessors: 170,
        clock_ghz: 2.407,
        tensor_tflops: 209.5,
        fp32_lanes: 128,
        dram_gbs: 1792.0,
        l2_mb: 96.0,
        l2_gbs: 6000.0,
        shared_kib: 100,
        warps: 48,
        blocks: 24,
        reach: GEFORCE,
    },
    Card {
        name: "T4",
        arch: 75,
        multiprocessors: 40,
        clock_ghz: 1.59,
        tensor_tflops: 65.1,
        fp32_lanes: 64,
        dram_gbs: 320.0,
        l2_mb: 4.0,
        l2_gbs: 935.0,
        shared_kib: 64,
        warps: 32,
        blocks: 16,
        reach: SEVENTY_WATTS,
    },
];

/// How many of them the targets name: what is shown when none is asked for.
pub const USUAL: usize = 4;

impl Card {
    /// The PTX target it gets.
    pub fn target(&self) -> u32 {
        if self.arch >= 80 { 80 } else { 75 }
    }

    /// Shared memory a block may have, in bytes (all but the 1 KiB that the system keeps).
    pub fn shared_bytes_per_block(&self) -> u32 {
        if self.arch >= 80 { (self.shared_kib - 1) * 1024 } else { self.shared_kib * 1024 }
    }

    /// Clocks of all multiprocessors in a second.
    pub fn clocks(&self) -> f64 {
        f64::from(self.multiprocessors) * self.clock_ghz * 1e9
    }
}
