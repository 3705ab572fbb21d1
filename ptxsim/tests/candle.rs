//! The kernels of another project: candle-kernels, as nvcc compiles them. `tools/driver/candle.sh`
//! fetches and compiles them and runs these tests; none of it is in the repository.

use std::path::PathBuf;

use ptxsim::{Arg, Device, DeviceConfig, LaunchConfig, Module};

const FILES: [&str; 11] = [
    "affine",
    "binary",
    "cast",
    "conv",
    "fill",
    "indexing",
    "quantized",
    "reduce",
    "sort",
    "ternary",
    "unary",
];

fn module(name: &str) -> Module {
    let folder = std::env::var_os("PTXSIM_CANDLE").expect("PTXSIM_CANDLE names a folder of PTX");
    let path = PathBuf::from(folder).join(format!("{name}.ptx"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    Module::parse(name, &text).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
#[ignore = "wants PTXSIM_CANDLE: tools/driver/candle.sh"]
fn every_entry_is_known() {
    let mut known = 0;
    for name in FILES {
        let module = module(name);
        for (entry, error) in module.refused() {
            println!("{name}: {entry}: {error}");
        }
        assert_eq!(module.refused().len(), 0, "{name}");
        println!("{name}: {} entries", module.entries().len());
        known += module.entries().len();
    }
    println!("{known} entries");
    assert_eq!(known, 685);
}

/// A device and what a launch on it needs.
struct Bench {
    device: Device,
}

impl Bench {
    fn new() -> Bench {
        Bench { device: Device::new(DeviceConfig::new(80)) }
    }

    fn up<T: Copy, const N: usize>(&self, values: &[T], to: impl Fn(T) -> [u8; N]) -> u64 {
        let bytes: Vec<u8> = values.iter().flat_map(|&v| to(v)).collect();
        let at = self.device.alloc(bytes.len() as u64).unwrap();
        self.device.write(at, &bytes).unwrap();
        at
    }

    fn floats(&self, values: &[f32]) -> u64 {
        self.up(values, f32::to_le_bytes)
    }

    fn sizes(&self, values: &[u64]) -> u64 {
        self.up(values, u64::to_le_bytes)
    }

    fn out(&self, bytes: usize) -> u64 {
        self.device.alloc(bytes as u64).unwrap()
    }

    fn run(&self, file: &str, entry: &str, config: LaunchConfig, args: &[Arg]) {
        let launched = self.device.launch(&module(file), entry, config.with_seed(3), args);
        launched.unwrap_or_else(|e| panic!("{entry}: {e}"));
    }

    fn read<T, const N: usize>(&self, at: u64, n: usize, from: impl Fn([u8; N]) -> T) -> Vec<T> {
        let mut bytes = vec![0; N * n];
        self.device.read(at, &mut bytes).unwrap();
        bytes.as_chunks::<N>().0.iter().map(|&b| from(b)).collect()
    }

    fn back(&self, at: u64, n: usize) -> Vec<f32> {
        self.read(at, n, f32::from_le_bytes)
    }
}

/// Numbers between -2 and 2, no two alike near each other.
fn values(n: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7919 + 13) % 1009) as f32 / 252.25 - 2.0).collect()
}

#[track_caller]
fn near(what: &str, got: &[f32], want: &[f64], bound: f64) {
    assert_eq!(got.len(), want.len());
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        let off = (f64::from(*got) - want).abs();
        assert!(off <= bound * want.abs().max(1.0), "{what}: at {i} {got}, expected {want}");
    }
}

macro_rules! args {
    ($($a:expr),*) => { &[$(Arg::from($a)),*] };
}

const U: f64 = f32::EPSILON as f64;

#[test]
#[ignore = "wants PTXSIM_CANDLE: tools/driver/candle.sh"]
fn elementwise_kernels() {
    let (rows, columns) = (7usize, 45usize);
    let n = rows * columns;
    let x = values(n);
    let blocks = LaunchConfig::linear(3, 64);
    let b = Bench::new();
    let (input, out) = (b.floats(&x), b.out(4 * n));
    // Contiguous, and the transpose of it.
    let transposed = b.sizes(&[columns as u64, rows as u64, 1, columns as u64]);
    for (info, at) in [(0, None), (transposed, Some(rows))] {
        let from = |i: usize| at.map_or(i, |rows| i % rows * columns + i / rows);
        b.run(
            "affine",
            "affine_f32",
            blocks.clone(),
            args![n as u64, 2u64, info, input, out, 2.5f32, -1.0f32],
        );
        let want: Vec<f64> = (0..n).map(|i| f64::from(x[from(i)]) * 2.5 - 1.0).collect();
        near("affine", &b.back(out, n), &want, 2.0 * U);

        let half = b.out(2 * n);
        b.run("cast", "cast_f32_f16", blocks.clone(), args![n as u64, 2u64, info, input, half]);
        b.run("cast", "cast_f16_f32", blocks.clone(), args![n as u64, 1u64, 0u64, half, out]);
        let want: Vec<f64> = (0..n).map(|i| f64::from(x[from(i)])).collect();
        near("cast", &b.back(out, n), &want, 2f64.powi(-11));
        let whole = b.out(n);
        b.run("cast", "cast_f32_u8", blocks.clone(), args![n as u64, 2u64, info, input, whole]);
        let got = b.read(whole, n, |v: [u8; 1]| v[0]);
        assert!((0..n).all(|i| got[i] == x[from(i)].max(0.0) as u8), "cast to u8");
    }
    let y: Vec<f32> = x.iter().rev().copied().collect();
    let other = b.floats(&y);
    b.run("binary", "badd_f32", blocks.clone(), args![n as u64, 1u64, 0u64, input, other, out]);
    let want: Vec<f64> = x.iter().zip(&y).map(|(a, b)| f64::from(a + b)).collect();
    near("badd", &b.back(out, n), &want, 0.0);
    // One row added to every row.
    let info = b.sizes(&[rows as u64, columns as u64, columns as u64, 1, 0, 1]);
    b.run("binary", "badd_f32", blocks.clone(), args![n as u64, 2u64, info, input, other, out]);
    let want: Vec<f64> = (0..n).map(|i| f64::from(x[i] + y[i % columns])).collect();
    near("badd of a row", &b.back(out, n), &want, 0.0);

    let ids: Vec<u8> = (0..n).map(|i| u8::from(i % 3 == 0)).collect();
    let ids_at = b.up(&ids, |v| [v]);
    let contiguous = [rows as u64, columns as u64, columns as u64, 1, columns as u64, 1];
    let info = b.sizes(&[&contiguous[..], &[0, 1]].concat());
    b.run(
        "ternary",
        "where_u8_f32",
        blocks.clone(),
        args![n as u64, 2u64, info, ids_at, input, other, out],
    );
    let want: Vec<f64> =
        (0..n).map(|i| f64::from(if ids[i] == 1 { x[i] } else { y[i % columns] })).collect();
    near("where", &b.back(out, n), &want, 0.0);

    b.run("fill", "fill_f32", blocks, args![out, 3.25f32, n as u64]);
    assert_eq!(b.back(out, n), vec![3.25; n]);
}

#[test]
#[ignore = "wants PTXSIM_CANDLE: tools/driver/candle.sh"]
fn reductions_and_norms() {
    let (rows, columns) = (5usize, 300usize);
    let n = rows * columns;
    let x = values(n);
    let b = Bench::new();
    let (input, out) = (b.floats(&x), b.out(4 * n));
    let info = b.sizes(&[rows as u64, columns as u64, columns as u64, 1]);
    let of_rows = |f: &dyn Fn(&[f32]) -> f64| x.chunks(columns).map(f).collect::<Vec<f64>>();
    let grid = |threads: u32| LaunchConfig::linear(rows as u32, threads);
    let fast = args![n as u64, columns as u64, 2u64, info, input, out];
    b.run("reduce", "fast_sum_f32", grid(128), fast);
    let sum = |v: &[f32]| v.iter().map(|x| f64::from(*x)).sum::<f64>();
    near("fast_sum", &b.back(out, rows), &of_rows(&sum), columns as f64 * U);
    b.run("reduce", "fast_max_f32", grid(128), fast);
    let max = |v: &[f32]| v.iter().fold(f64::NEG_INFINITY, |m, x| m.max(f64::from(*x)));
    near("fast_max", &b.back(out, rows), &of_rows(&max), 0.0);
    b.run("reduce", "fast_argmax_f32", grid(128), fast);
    let got = b.read(out, rows, u32::from_le_bytes);
    for (row, at) in x.chunks(columns).zip(got) {
        assert_eq!(f64::from(row[at as usize]), max(row), "fast_argmax");
    }

    let softmax = LaunchConfig::new([rows as u32, 1, 1], [1, 32, 1]);
    b.run("reduce", "softmax_f32", softmax, args![input, out, columns as i32]);
    let mut want = vec![];
    for row in x.chunks(columns) {
        let e: Vec<f64> = row.iter().map(|v| f64::from(*v).exp()).collect();
        let all: f64 = e.iter().sum();
        want.extend(e.iter().map(|v| v / all));
    }
    // exp to 2 units in the last place of an argument of at most 4, then a sum of 300 terms.
    near("softmax", &b.back(out, n), &want, (columns as f64 + 8.0) * U);

    let (alpha, beta) = (values(columns), values(2 * columns)[columns..].to_vec());
    let (alpha_at, beta_at) = (b.floats(&alpha), b.floats(&beta));
    let f = f64::from;
    for threads in [32, 1024] {
        let (c, t) = (columns as i32, threads as i32);
        b.run("reduce", "rmsnorm_f32", grid(threads), args![input, out, alpha_at, c, t, 1e-5f32]);
        let mut want = vec![];
        for row in x.chunks(columns) {
            let mean = row.iter().map(|v| f(*v) * f(*v)).sum::<f64>() / columns as f64;
            let scale = 1.0 / (mean + 1e-5).sqrt();
            want.extend(row.iter().zip(&alpha).map(|(v, a)| f(*v) * scale * f(*a)));
        }
        near("rmsnorm", &b.back(out, n), &want, columns as f64 * U);
        b.run(
            "reduce",
            "layernorm_f32",
            grid(threads),
            args![input, out, alpha_at, beta_at, c, t, 1e-5f32],
        );
        let mut want = vec![];
        for row in x.chunks(columns) {
            let mean = sum(row) / columns as f64;
            let square = row.iter().map(|v| f(*v) * f(*v)).sum::<f64>() / columns as f64;
            let scale = 1.0 / (square - mean * mean + 1e-5).sqrt();
            let of = |(i, v): (usize, &f32)| (f(*v) - mean) * scale * f(alpha[i]) + f(beta[i]);
            want.extend(row.iter().enumerate().map(of));
        }
        near("layernorm", &b.back(out, n), &want, 2.0 * columns as f64 * U);
    }
}

#[test]
#[ignore = "wants PTXSIM_CANDLE: tools/driver/candle.sh"]
fn sorting() {
    let (rows, columns, padded) = (3usize, 100usize, 128usize);
    let x = values(rows * columns);
    let b = Bench::new();
    let (input, out) = (b.floats(&x), b.out(4 * x.len()));
    let config = LaunchConfig::linear(rows as u32, 64).with_shared(4 * padded as u32);
    for (entry, sign) in [("asort_asc_f32", 1.0), ("asort_desc_f32", -1.0)] {
        b.run("sort", entry, config.clone(), args![input, out, columns as i32, padded as i32]);
        let got = b.read(out, x.len(), u32::from_le_bytes);
        for (row, order) in x.chunks(columns).zip(got.chunks(columns)) {
            let sorted: Vec<f32> = order.iter().map(|&i| sign * row[i as usize]).collect();
            assert!(sorted.is_sorted(), "{entry}");
            let mut all = order.to_vec();
            all.sort_unstable();
            assert!(all.iter().enumerate().all(|(i, &v)| i as u32 == v), "{entry}: not all once");
        }
    }
}
