//! Loads and stores in every space and width.

use crate::harness::*;
use ptxsim::{Arg, Device, DeviceConfig, LaunchConfig, Module};

#[test]
fn narrow_loads_extend() {
    let body = "shl.b32 %r1, %tid, 3; mov.u32 %r2, sm; add.u32 %r2, %r2, %r1; st.shared.u32 [%r2], %i0;
        ld.shared.s8 %o0, [%r2+3]; ld.shared.u8 %o1, [%r2+3]; ld.shared.s16 %o2, [%r2+2]; ld.shared.u16 %o3, [%r2];";
    let out = warp(body, &by_lane(|_| vec![0xf012_3456]), 4).unwrap();
    assert_eq!(out[5], [0xffff_fff0, 0xf0, 0xffff_f012, 0x3456]);
}

#[test]
fn narrow_stores_touch_only_their_bytes() {
    let body = "shl.b32 %r1, %tid, 2; mov.u32 %r2, sm; add.u32 %r2, %r2, %r1; st.shared.u32 [%r2], %i0;
        st.shared.u8 [%r2+1], 0x77; mov.u16 %h1, 0x9999; st.shared.b16 [%r2+2], %h1; ld.shared.u32 %o0, [%r2];";
    let out = warp(body, &by_lane(|_| vec![0x1122_3344]), 1).unwrap();
    assert_eq!(out[9], [0x9999_7744]);
}

#[test]
fn vectors_in_shared_and_global_memory() {
    let body = "shl.b32 %r1, %tid, 4; mov.u32 %r2, sm; add.u32 %r2, %r2, %r1;
        st.shared.v4.u32 [%r2], {%i0, %i1, %i2, %i3}; ld.shared.v2.u32 {%o0, %o1}, [%r2+8];
        ld.shared.v2.u64 {%x4, %x5}, [%r2]; cvt.u32.u64 %o2, %x5; shr.u64 %x4, %x4, 32; cvt.u32.u64 %o3, %x4;
        ld.global.nc.L1::no_allocate.v4.u32 {%o4, %o5, _, %o6}, [%at];
        ld.shared.v4.u16 {%h1, %h2, %h3, %h4}, [%r2]; cvt.u32.u16 %o7, %h3;";
    let out = warp(body, &by_lane(|l| vec![l, l + 100, l + 200, l + 300]), 8).unwrap();
    assert_eq!(out[7], [207, 307, 207, 107, 7, 107, 307, 107]);
}

#[test]
fn generic_accesses_find_their_space() {
    let body =
        "shl.b32 %r1, %tid, 2; cvt.u64.u32 %x2, %r1; mov.u64 %x3, sm; cvta.shared.u64 %x4, %x3;
        add.s64 %x4, %x4, %x2; st.u32 [%x4], %i0; ld.u32 %o0, [%x4]; ld.u32 %o1, [%at];
        setp.lt.u32 %p1, %tid, 16; selp.b64 %x5, %x4, %at, %p1; ld.u32 %o2, [%x5+0];";
    let out = warp(body, &by_lane(|l| vec![l * 3]), 3).unwrap();
    assert_eq!(out[20], [60, 60, 60]);
    assert_eq!(out[3], [9, 9, 9]);
}

#[test]
fn parameters_structs_constants_and_module_variables() {
    let text = "
.version 8.4
.target sm_80
.address_size 64
.const .align 4 .b8 bytes[4] = {1, 2, 3, 4};
.const .align 4 .f32 factors[3] = {0f3F800000, 0f40000000, 0f40400000};
.global .align 8 .u64 counter = 40;
.visible .entry k(.param .align 8 .b8 p[24], .param .u8 small)
{
    .reg .b32 %r<10>; .reg .b64 %x<6>; .reg .b16 %h<3>;
    ld.param.u64 %x1, [p];
    ld.param.u32 %r1, [p+8];
    mov.b64 %x2, p;
    ld.param.v2.u32 {%r2, %r3}, [%x2+16];
    ld.param.u8 %h1, [small];
    cvt.u32.u16 %r4, %h1;
    ld.const.u8 %h2, [bytes+2];
    cvt.u32.u16 %r5, %h2;
    ld.const.f32 %r6, [factors+8];
    ld.global.u64 %x3, [counter];
    add.s64 %x3, %x3, 2;
    st.global.u64 [counter], %x3;
    st.global.v4.u32 [%x1], {%r1, %r2, %r3, %r4};
    st.global.v2.u32 [%x1+16], {%r5, %r6};
    ret;
}";
    let module = Module::parse("m", text).unwrap();
    let device = Device::new(DeviceConfig::new(80));
    let out = device.alloc(24).unwrap();
    let mut p = out.to_le_bytes().to_vec();
    for v in [11u32, 0, 22, 33] {
        p.extend(v.to_le_bytes());
    }
    let args = [Arg(p), Arg::from(44u8)];
    for _ in 0..2 {
        device.launch(&module, "k", LaunchConfig::linear(1, 1), &args).unwrap();
    }
    let mut bytes = [0; 24];
    device.read(out, &mut bytes).unwrap();
    let words: Vec<u32> =
        bytes.chunks(4).map(|c| u32::from_le_bytes(c.try_into().unwrap())).collect();
    assert_eq!(words, [11, 22, 33, 44, 3, 3f32.to_bits()]);
    let (at, n) = device.variable(&module, "counter").unwrap();
    assert_eq!(n, 8);
    let mut counter = [0; 8];
    device.read(at, &mut counter).unwrap();
    assert_eq!(u64::from_le_bytes(counter), 44);
}

#[test]
fn local_memory_belongs_to_a_thread() {
    let text = "
.version 8.4
.target sm_80
.address_size 64
.visible .entry k(.param .u64 out)
{
    .local .align 8 .b8 depot[16];
    .reg .b32 %r<4>; .reg .b64 %SP; .reg .b64 %SPL; .reg .b64 %x<4>;
    mov.u64 %SPL, depot;
    cvta.local.u64 %SP, %SPL;
    mov.u32 %r1, %tid.x;
    st.local.u32 [%SPL+4], %r1;
    ld.u32 %r2, [%SP+4];
    ld.param.u64 %x1, [out];
    mul.wide.u32 %x2, %r1, 4;
    add.s64 %x1, %x1, %x2;
    st.global.u32 [%x1], %r2;
    ret;
}";
    let module = Module::parse("m", text).unwrap();
    assert_eq!(module.entry("k").unwrap().local_bytes, 16);
    let device = Device::new(DeviceConfig::new(80));
    let out = device.alloc(4 * 50).unwrap();
    device.launch(&module, "k", LaunchConfig::linear(1, 50), &[Arg::from(out)]).unwrap();
    let mut bytes = [0; 200];
    device.read(out, &mut bytes).unwrap();
    assert!(bytes.chunks(4).enumerate().all(|(i, c)| c[0] as usize == i));
}

#[test]
fn dynamic_shared_memory_starts_after_the_static() {
    let text = "
.version 8.4
.target sm_80
.address_size 64
.extern .shared .align 16 .b8 dyn[];
.shared .align 4 .b8 unused[400];
.visible .entry k(.param .u64 out)
{
    .shared .align 4 .b8 fixed[20];
    .reg .b32 %r<6>; .reg .b64 %x<2>;
    mov.u32 %r1, fixed;
    mov.u32 %r2, dyn;
    mov.u32 %r3, %dynamic_smem_size;
    mov.u32 %r4, %total_smem_size;
    st.shared.u32 [dyn+60], %r1;
    ld.param.u64 %x1, [out];
    st.global.v4.u32 [%x1], {%r1, %r2, %r3, %r4};
    ret;
}";
    let module = Module::parse("m", text).unwrap();
    assert_eq!(module.entry("k").unwrap().static_shared_bytes, 20);
    let device = Device::new(DeviceConfig::new(80));
    let out = device.alloc(16).unwrap();
    let config = LaunchConfig::linear(1, 1).with_shared(64);
    device.launch(&module, "k", config, &[Arg::from(out)]).unwrap();
    let mut bytes = [0; 16];
    device.read(out, &mut bytes).unwrap();
    let words: Vec<u32> =
        bytes.chunks(4).map(|c| u32::from_le_bytes(c.try_into().unwrap())).collect();
    assert_eq!(words, [0, 32, 64, 96]);
}
