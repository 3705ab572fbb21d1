//! Runs a few lines of PTX on one warp, with three inputs and one output a lane.

use ptxsim::{Arg, Device, DeviceConfig, LaunchConfig, Module, Result};

/// A module around `body`, with registers of every kind declared.
pub fn module(target: u32, body: &str) -> Result<Module> {
    let text = format!(
        "
.version 8.4
.target sm_{target}
.address_size 64
.visible .entry k(.param .u64 in_a, .param .u64 in_b, .param .u64 in_c, .param .u64 out)
{{
    .reg .pred %p<8>;
    .reg .b16 %h<16>;
    .reg .b32 %r<64>;
    .reg .b64 %x<32>;
    .reg .b32 %a, %b, %c, %d, %tid;
    .reg .b64 %la, %lb, %lc, %ld, %at, %o;
    mov.u32 %tid, %tid.x;
    mul.wide.u32 %o, %tid, 8;
    ld.param.u64 %at, [in_a]; add.s64 %at, %at, %o; ld.global.u64 %la, [%at]; cvt.u32.u64 %a, %la;
    ld.param.u64 %at, [in_b]; add.s64 %at, %at, %o; ld.global.u64 %lb, [%at]; cvt.u32.u64 %b, %lb;
    ld.param.u64 %at, [in_c]; add.s64 %at, %at, %o; ld.global.u64 %lc, [%at]; cvt.u32.u64 %c, %lc;
    mov.u32 %d, 0; mov.u64 %ld, 0;
    {body}
    ld.param.u64 %at, [out]; add.s64 %at, %at, %o; st.global.u64 [%at], %ld;
    ret;
}}"
    );
    let module = Module::parse("test", &text)?;
    module.entry("k")?;
    Ok(module)
}

/// Runs the body on `inputs.len()` lanes; the result is what it left in `%ld`.
pub fn run64(body: &str, inputs: &[[u64; 3]]) -> Vec<u64> {
    let module = module(90, body).unwrap_or_else(|e| panic!("{e}"));
    let device = Device::new(DeviceConfig::new(90));
    let n = inputs.len();
    let pointers: Vec<u64> = (0..4).map(|_| device.alloc(8 * n as u64).unwrap()).collect();
    for (i, p) in pointers.iter().enumerate().take(3) {
        let bytes: Vec<u8> = inputs.iter().flat_map(|x| x[i].to_le_bytes()).collect();
        device.write(*p, &bytes).unwrap();
    }
    let args: Vec<Arg> = pointers.iter().map(|p| Arg::from(*p)).collect();
    let config = LaunchConfig::linear(1, n as u32);
    device.launch(&module, "k", config, &args).unwrap_or_else(|e| panic!("{e}"));
    let mut out = vec![0; 8 * n];
    device.read(pointers[3], &mut out).unwrap();
    out.chunks(8).map(|c| u64::from_le_bytes(c.try_into().unwrap())).collect()
}

/// The same for a body that leaves 32 bits in `%d`.
pub fn run(body: &str, inputs: &[[u32; 3]]) -> Vec<u32> {
    let wide: Vec<[u64; 3]> = inputs.iter().map(|x| x.map(u64::from)).collect();
    let body = format!("{body}\n cvt.u64.u32 %ld, %d;");
    run64(&body, &wide).into_iter().map(|v| v as u32).collect()
}

/// One instruction on 32-bit operands: `op %d, %a, …`, checked against the last column.
#[track_caller]
pub fn check(op: &str, operands: usize, table: &[([u32; 3], u32)]) {
    let names = ["%a", "%b", "%c"][..operands].join(", ");
    let inputs: Vec<_> = table.iter().map(|t| t.0).collect();
    let out = run(&format!("{op} %d, {names};"), &inputs);
    for ((input, want), got) in table.iter().zip(out) {
        assert_eq!(got, *want, "{op} of {input:x?}: {got:#x}, expected {want:#x}");
    }
}

/// One instruction on f32 operands.
#[track_caller]
pub fn check_f32(op: &str, operands: usize, table: &[([f32; 3], f32)]) {
    let bits: Vec<_> = table.iter().map(|(i, o)| (i.map(f32::to_bits), nan(o.to_bits()))).collect();
    check(op, operands, &bits);
}

/// The NaN of PTX arithmetic for any NaN.
fn nan(bits: u32) -> u32 {
    if f32::from_bits(bits).is_nan() { 0x7fff_ffff } else { bits }
}

/// One instruction on 64-bit operands.
#[track_caller]
pub fn check64(op: &str, operands: usize, table: &[([u64; 3], u64)]) {
    let names = ["%la", "%lb", "%lc"][..operands].join(", ");
    let inputs: Vec<_> = table.iter().map(|t| t.0).collect();
    let out = run64(&format!("{op} %ld, {names};"), &inputs);
    for ((input, want), got) in table.iter().zip(out) {
        assert_eq!(got, *want, "{op} of {input:x?}: {got:#x}, expected {want:#x}");
    }
}

/// A full warp with `n_in` 32-bit inputs (`%i0…`) and `n_out` outputs (`%o0…`) a lane, and 4 KB
/// of shared memory named `sm`.
pub fn warp(body: &str, inputs: &[Vec<u32>], n_out: usize) -> Result<Vec<Vec<u32>>> {
    warp_on(DeviceConfig::new(80), body, inputs, n_out)
}

/// The same on a device of this kind.
pub fn warp_on(
    device: DeviceConfig,
    body: &str,
    inputs: &[Vec<u32>],
    n_out: usize,
) -> Result<Vec<Vec<u32>>> {
    let n_in = inputs[0].len();
    let load: String =
        (0..n_in).map(|i| format!("ld.global.u32 %i{i}, [%at+{}];\n", 4 * i)).collect();
    let store: String =
        (0..n_out).map(|i| format!("st.global.u32 [%at+{}], %o{i};\n", 4 * i)).collect();
    let text = format!(
        "
.version 8.4
.target sm_80
.address_size 64
.visible .entry k(.param .u64 src, .param .u64 dst)
{{
    .reg .pred %p<8>; .reg .b16 %h<8>; .reg .b32 %r<32>; .reg .b64 %x<16>;
    .reg .b32 %i<32>; .reg .b32 %o<32>; .reg .b32 %tid; .reg .b64 %at;
    .shared .align 16 .b8 sm[4096];
    mov.u32 %tid, %tid.x;
    mul.wide.u32 %x1, %tid, {};
    ld.param.u64 %at, [src]; add.s64 %at, %at, %x1;
    {load}
    {body}
    mul.wide.u32 %x1, %tid, {};
    ld.param.u64 %at, [dst]; add.s64 %at, %at, %x1;
    {store}
    ret;
}}",
        4 * n_in,
        4 * n_out
    );
    let module = Module::parse("warp", &text)?;
    let device = Device::new(device);
    let n = inputs.len();
    let src = device.alloc_named(4 * (n * n_in) as u64, "src")?;
    let dst = device.alloc_named(4 * (n * n_out) as u64, "dst")?;
    let bytes: Vec<u8> = inputs.iter().flatten().flat_map(|v| v.to_le_bytes()).collect();
    device.write(src, &bytes)?;
    let config = LaunchConfig::linear(1, n as u32);
    device.launch(&module, "k", config, &[Arg::from(src), Arg::from(dst)])?;
    let mut out = vec![0; 4 * n * n_out];
    device.read(dst, &mut out)?;
    let words: Vec<u32> =
        out.chunks(4).map(|c| u32::from_le_bytes(c.try_into().unwrap())).collect();
    Ok(words.chunks(n_out).map(<[u32]>::to_vec).collect())
}

/// Inputs `f(lane)` for 32 lanes.
pub fn by_lane(f: impl Fn(u32) -> Vec<u32>) -> Vec<Vec<u32>> {
    (0..32).map(f).collect()
}
