// Number formats: f16 and bf16 are storage only, every sum is f32.
#pragma once
#include "params.h"

#define MUSC_DEVICE __device__ __forceinline__

// Tensor cores of compute capability 8.0 and later: m16n8k16, bf16, cp.async.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
#define MUSC_SM80 0
#else
#define MUSC_SM80 1
#endif

constexpr unsigned FULL_WARP = 0xffffffffu;
constexpr int WARP = 32;

// A C-like ceiling division for launch shapes and tile counts.
MUSC_DEVICE constexpr uint32_t ceil_div(uint32_t a, uint32_t b) { return (a + b - 1) / b; }

// Two numbers of a 16-bit format in one register; the lower address is the lower half.
struct F16 {
    MUSC_DEVICE static uint32_t pack(float lo, float hi) {
        uint32_t r;
#if MUSC_SM80
        asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
#else
        asm("{.reg .b16 l, h;\n\tcvt.rn.f16.f32 l, %1;\n\tcvt.rn.f16.f32 h, %2;\n\tmov.b32 %0, {l, h};}"
            : "=r"(r) : "f"(lo), "f"(hi));
#endif
        return r;
    }
    MUSC_DEVICE static float2 unpack(uint32_t v) {
        float2 r;
        asm("{.reg .b16 l, h;\n\tmov.b32 {l, h}, %2;\n\tcvt.f32.f16 %0, l;\n\tcvt.f32.f16 %1, h;}"
            : "=f"(r.x), "=f"(r.y) : "r"(v));
        return r;
    }
};

#if MUSC_SM80
struct BF16 {
    MUSC_DEVICE static uint32_t pack(float lo, float hi) {
        uint32_t r;
        asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
        return r;
    }
    MUSC_DEVICE static float2 unpack(uint32_t v) {
        return make_float2(__uint_as_float(v << 16), __uint_as_float(v & 0xffff0000u));
    }
};
#endif

// One line an entry point: NAME_f16 always, NAME_bf16 where the tensor cores know bf16.
#if MUSC_SM80
#define MUSC_ENTRY(name, Params, threads, min_blocks, body)                                             \
    extern "C" __global__ void __launch_bounds__(threads, min_blocks) name##_f16(                       \
        const __grid_constant__ Params p) { body<F16>(p); }                                             \
    extern "C" __global__ void __launch_bounds__(threads, min_blocks) name##_bf16(                      \
        const __grid_constant__ Params p) { body<BF16>(p); }
#else
#define MUSC_ENTRY(name, Params, threads, min_blocks, body)                                             \
    extern "C" __global__ void __launch_bounds__(threads, min_blocks) name##_f16(                       \
        const __grid_constant__ Params p) { body<F16>(p); }
#endif
