//! How fast the simulator is on one core: tensor-core FLOP/s on a GEMM, lane instructions a
//! second on a softmax. `cargo run --release -p ptxsim --example speed [threads]`

use std::time::Instant;

use ptxsim::{Arg, Class, Counters, Device, DeviceConfig, LaunchConfig, Module, Result};

fn report(name: &str, c: &Counters, seconds: f64, threads: usize) {
    let t = c.total();
    let lanes = t.total.lanes as f64 / seconds / threads as f64;
    let flops = t.class(Class::Mma).mma_flops as f64 / seconds / threads as f64;
    println!(
        "{name}: {seconds:.3} s, {:.1} M lane instructions/s a core, {:.2} GFLOP/s of mma a core",
        lanes / 1e6,
        flops / 1e9
    );
}

/// The best of three runs.
fn time(run: impl Fn() -> Result<Counters>) -> Result<(Counters, f64)> {
    let timed = || {
        let start = Instant::now();
        run().map(|c| (c, start.elapsed().as_secs_f64()))
    };
    let mut best = timed()?;
    for _ in 0..2 {
        let next = timed()?;
        if next.1 < best.1 {
            best = next;
        }
    }
    Ok(best)
}

fn main() -> Result<()> {
    let threads = std::env::args().nth(1).and_then(|a| a.parse().ok()).unwrap_or(1);
    let device = Device::new(DeviceConfig::new(80));
    let gemm = Module::parse("gemm.ptx", include_str!("../tests/fixtures/gemm.ptx"))?;
    let (m, n, k) = (512u32, 512, 512);
    let a = device.alloc(u64::from(2 * m * k))?;
    let b = device.alloc(u64::from(2 * n * k))?;
    let c = device.alloc(u64::from(4 * m * n))?;
    device.memset(a, 0x3c, u64::from(2 * m * k))?;
    device.memset(b, 0x38, u64::from(2 * n * k))?;
    let args = [a.into(), b.into(), c.into(), m.into(), n.into(), k.into()];
    let mut config = LaunchConfig::new([n / 64, m / 64, 1], [128, 1, 1]);
    config.host_threads = Some(threads);
    let (counters, s) = time(|| device.launch(&gemm, "gemm", config.clone(), &args))?;
    report("gemm 512x512x512", &counters, s, threads);

    let mixed = Module::parse("mixed.ptx", include_str!("../tests/fixtures/mixed.ptx"))?;
    let (rows, columns) = (512u32, 1024u32);
    let input = device.alloc(u64::from(4 * rows * columns))?;
    let output = device.alloc(u64::from(4 * rows * columns))?;
    let bias = device.alloc(u64::from(4 * columns))?;
    device.memset(input, 0, u64::from(4 * rows * columns))?;
    device.memset(bias, 0, u64::from(4 * columns))?;
    let mut shape = 1f32.to_le_bytes().to_vec();
    shape.extend(rows.to_le_bytes());
    shape.extend(columns.to_le_bytes());
    shape.extend([0; 4]);
    shape.extend(bias.to_le_bytes());
    let args = [input.into(), output.into(), Arg(shape)];
    let mut config = LaunchConfig::linear(rows / 4, 128);
    config.host_threads = Some(threads);
    let (counters, s) = time(|| device.launch(&mixed, "softmax", config.clone(), &args))?;
    report("softmax 512x1024", &counters, s, threads);
    Ok(())
}
