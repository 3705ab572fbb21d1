//! Kernels as the compilers emit them (sources beside the PTX in `fixtures/`): NVRTC 12.4, PTX
//! 8.4, and nvcc 13, PTX 9.

use ptxsim::{Arg, Class, Counters, Device, DeviceConfig, LaunchConfig, Module};

fn module(name: &str) -> Module {
    let path = format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
    Module::parse(name, &std::fs::read_to_string(path).unwrap()).unwrap_or_else(|e| panic!("{e}"))
}

fn floats(v: &[f32]) -> Vec<u8> {
    v.iter().flat_map(|x| x.to_le_bytes()).collect()
}

fn upload(device: &Device, label: &str, bytes: &[u8]) -> u64 {
    let p = device.alloc_named(bytes.len() as u64, label).unwrap();
    device.write(p, bytes).unwrap();
    p
}

fn download(device: &Device, at: u64, n: usize) -> Vec<f32> {
    let mut bytes = vec![0; 4 * n];
    device.read(at, &mut bytes).unwrap();
    bytes.chunks(4).map(|c| f32::from_le_bytes(c.try_into().unwrap())).collect()
}

/// Small multiples of 1/8 as f16 bits: their sums of products are exact in f32.
fn value(i: usize) -> (f32, u16) {
    let v = ((i * 7919) % 17) as f32 / 8.0 - 1.0;
    let bits = v.to_bits();
    let h =
        if v == 0.0 { 0 } else { ((bits >> 13) & 0x3ff) | ((((bits >> 23) & 255) - 112) << 10) };
    (v, (h | (bits >> 16) & 0x8000) as u16)
}

fn gemm(m: usize, n: usize, k: usize, seed: u64) -> Counters {
    let device = Device::new(DeviceConfig::new(80));
    let half = |count: usize, from: usize| -> Vec<u8> {
        (0..count).flat_map(|i| value(i + from).1.to_le_bytes()).collect()
    };
    let a = upload(&device, "a", &half(m * k, 0));
    let b = upload(&device, "b", &half(n * k, 5));
    let c = device.alloc_named(4 * (m * n) as u64, "c").unwrap();
    let args =
        [a.into(), b.into(), c.into(), (m as u32).into(), (n as u32).into(), (k as u32).into()];
    let config = LaunchConfig::new([n as u32 / 64, m as u32 / 64, 1], [128, 1, 1]).with_seed(seed);
    let counters =
        device.launch(&module("gemm.ptx"), "gemm", config, &args).unwrap_or_else(|e| panic!("{e}"));
    let out = download(&device, c, m * n);
    for (i, got) in out.iter().enumerate() {
        let (row, col) = (i / n, i % n);
        let want: f32 = (0..k).map(|x| value(row * k + x).0 * value(col * k + x + 5).0).sum();
        assert_eq!(*got, want, "row {row}, column {col}");
    }
    counters
}

#[test]
fn a_tensor_core_gemm_is_exact_and_its_main_loop_is_clean() {
    for seed in 0..3 {
        gemm(64, 128, 96, seed);
    }
    let c = gemm(128, 64, 64, 7);
    let flops = c.total().class(Class::Mma).mma_flops;
    assert_eq!(flops, 2 * 128 * 64 * 64);
    let main = c.main_loop().unwrap();
    assert_eq!(main.summary.class(Class::Mma).mma_flops, flops);
    assert_eq!(main.summary.total.bank_conflicts(), 0);
    assert_eq!(main.summary.sector_efficiency(), Some(1.0));
    // 16 mma and 8 ldmatrix in 32 columns of k.
    assert_eq!(main.summary.class(Class::Mma).warps, 2 * main.summary.class(Class::LdMatrix).warps);
    let mma = c.instructions().into_iter().find(|i| i.class == Class::Mma).unwrap();
    let (file, line) = mma.source.unwrap();
    assert!(file == "gemm.cu" && (10..40).contains(&line), "{file}:{line}");
}

#[test]
fn a_gemm_without_its_wait_or_its_barriers_is_caught() {
    let path = format!("{}/tests/fixtures/gemm.ptx", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    let breaks = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        let module = Module::parse("broken.ptx", &text.replace(from, to)).unwrap();
        let device = Device::new(DeviceConfig::new(80));
        let a = upload(&device, "a", &[0; 2 * 64 * 128]);
        let c = device.alloc(4 * 64 * 64).unwrap();
        let args: [Arg; 6] =
            [a.into(), a.into(), c.into(), 64u32.into(), 64u32.into(), 128u32.into()];
        device.launch(&module, "gemm", LaunchConfig::new([1; 3], [128, 1, 1]), &args)
    };
    breaks("bar.sync", "bar.sync").unwrap();
    let e = breaks("cp.async.wait_group 1;", "").unwrap_err();
    assert!(matches!(e, ptxsim::Error::PendingCopy { .. }), "{e}");
    assert!(e.to_string().contains("gemm.cu:"), "{e}");
    let e = breaks("cp.async.wait_group 0;", "cp.async.wait_group 1;").unwrap_err();
    assert!(matches!(e, ptxsim::Error::PendingCopy { .. }), "{e}");
    let e = breaks("bar.sync \t0;", "").unwrap_err();
    assert!(
        matches!(
            e,
            ptxsim::Error::SharedRace { .. }
                | ptxsim::Error::PendingCopy { .. }
                | ptxsim::Error::Uninitialised { .. }
        ),
        "{e}"
    );
}

#[test]
fn softmax_with_a_struct_by_value() {
    for (file, cc) in [("mixed.ptx", 80), ("mixed_nvcc13.ptx", 75)] {
        let device = Device::new(DeviceConfig::new(cc));
        let (rows, columns) = (7, 45);
        let x: Vec<f32> =
            (0..rows * columns).map(|i| ((i * 37) % 101) as f32 / 25.0 - 2.0).collect();
        let bias: Vec<f32> = (0..columns).map(|i| i as f32).collect();
        let input = upload(&device, "in", &floats(&x));
        let bias_at = upload(&device, "bias", &floats(&bias));
        let out = device.alloc(4 * x.len() as u64).unwrap();
        let mut shape = 1.5f32.to_le_bytes().to_vec();
        shape.extend((rows as i32).to_le_bytes());
        shape.extend((columns as i32).to_le_bytes());
        shape.extend([0; 4]);
        shape.extend(bias_at.to_le_bytes());
        let args = [input.into(), out.into(), Arg(shape)];
        device
            .launch(&module(file), "softmax", LaunchConfig::linear(2, 128), &args)
            .unwrap_or_else(|e| panic!("{e}"));
        let got = download(&device, out, x.len());
        for r in 0..rows {
            let row: Vec<f64> =
                x[r * columns..][..columns].iter().map(|v| f64::from(*v) * 1.5).collect();
            let top = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = row.iter().map(|v| (v - top).exp()).sum();
            for c in 0..columns {
                let want = (row[c] - top).exp() / sum + c as f64;
                let have = f64::from(got[r * columns + c]);
                // expf: 2 ulp; the sum, the quotient and the sum with the bias: half an ulp each.
                assert!(
                    (have - want).abs() <= 4e-7 * want.max(1.0),
                    "{file} row {r} column {c}: {have} {want}"
                );
            }
        }
    }
}

#[test]
fn a_kernel_of_many_instructions() {
    for (file, cc) in [("mixed.ptx", 80), ("mixed_nvcc13.ptx", 75)] {
        let m = module(file);
        let device = Device::new(DeviceConfig::new(cc));
        let n = 500usize;
        let data: Vec<u32> = (0..n as u32).map(|i| i.wrapping_mul(2_654_435_761) >> 7).collect();
        let input =
            upload(&device, "in", &data.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>());
        let histogram = upload(&device, "histogram", &[0; 64]);
        let sums = device.alloc_named(24, "sums").unwrap();
        let args = [input.into(), histogram.into(), sums.into(), (n as i32).into()];
        let config = LaunchConfig::linear(3, 64).with_shared(64);
        device.launch(&m, "mixed", config, &args).unwrap_or_else(|e| panic!("{e}"));
        let mut bins = [0; 64];
        device.read(histogram, &mut bins).unwrap();
        for (i, c) in bins.chunks(4).enumerate() {
            let want = data.iter().filter(|v| **v & 15 == i as u32).count();
            assert_eq!(u32::from_le_bytes(c.try_into().unwrap()) as usize, want);
        }
        let mut bytes = [0; 24];
        device.read(sums, &mut bytes).unwrap();
        let got: f64 = bytes.chunks(8).map(|c| f64::from_le_bytes(c.try_into().unwrap())).sum();
        let mut want = 0.0;
        for t in 0..192 {
            let mut local: Vec<i32> = (0..8).map(|i| i * 3).collect();
            for &v in data.iter().skip(t).step_by(192) {
                want += match v % 7 {
                    0 => f64::from(v).sqrt(),
                    1 => f64::from(v / 3),
                    2 => f64::from(v.count_ones()),
                    3 => f64::from(v.leading_zeros()),
                    4 => (u64::from(v) * u64::from(v) % 1_000_003) as f64,
                    5 => [1.0, 2.0, 4.0, 8.0][v as usize & 3],
                    _ => f64::from(local[v as usize & 7]),
                };
                local[v as usize >> 3 & 7] += 1;
            }
        }
        // Another order of 500 sums.
        assert!((got - want).abs() <= 500.0 * f64::EPSILON * want, "{got} {want}");
        let (at, _) = device.variable(&m, "visits").unwrap();
        let mut visits = [0; 8];
        device.read(at, &mut visits).unwrap();
        assert_eq!(u64::from_le_bytes(visits), 3);
    }
}

#[test]
fn halves_of_both_kinds() {
    let device = Device::new(DeviceConfig::new(80));
    // a: (0.5, 3), b: (1.5, -2).
    let a = upload(&device, "a", &[0x00, 0x38, 0x00, 0x42].repeat(32));
    let b = upload(&device, "b", &[0xc0, 0x3f, 0x00, 0xc0].repeat(32));
    let out = device.alloc(256).unwrap();
    let args = [a.into(), b.into(), out.into()];
    device.launch(&module("mixed.ptx"), "halves", LaunchConfig::linear(1, 32), &args).unwrap();
    let got = download(&device, out, 64);
    // h = (0.5·2 + 1, 3·2 − 1) = (2, 5).
    assert_eq!(got[0], 2.0 + 1.5 + 3.0);
    assert_eq!(got[63], -10.0 + (1.0 / 5f64.sqrt()) as f32);
}
