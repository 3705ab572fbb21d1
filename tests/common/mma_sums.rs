//! How the simulator takes the sums of tensor cores in these tests.

use musc::backend::cuda::driver::sim::MmaSums;

/// What `MUSC_SIM_MMA` names: `f32` (as without it), `v100`, `a100` or `h100`.
pub fn mma_sums() -> MmaSums {
    let Ok(named) = std::env::var("MUSC_SIM_MMA") else { return MmaSums::F32 };
    MmaSums::named(&named)
        .unwrap_or_else(|| panic!("MUSC_SIM_MMA={named}: expected f32, v100, a100 or h100"))
}
