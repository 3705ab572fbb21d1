// Reductions over a warp, maxima across blocks, and the two fast functions the kernels share.
#pragma once
#include "types.cuh"

MUSC_DEVICE float warp_sum(float v) {
#pragma unroll
    for (int step = WARP / 2; step > 0; step /= 2) v += __shfl_xor_sync(FULL_WARP, v, step);
    return v;
}

MUSC_DEVICE float warp_max(float v) {
#pragma unroll
    for (int step = WARP / 2; step > 0; step /= 2) v = fmaxf(v, __shfl_xor_sync(FULL_WARP, v, step));
    return v;
}

// Of COUNT maxima that two lanes `step` apart share, each keeps half, the lane with `upper` the second half, in front.
template <int COUNT, int N>
MUSC_DEVICE void keep_half(float (&v)[N], bool upper, int step) {
    static_assert(COUNT % 2 == 0 && COUNT <= N, "two halves");
#pragma unroll
    for (int k = 0; k < COUNT / 2; k++) {
        const float other = __shfl_xor_sync(FULL_WARP, upper ? v[k] : v[k + COUNT / 2], step);
        v[k] = fmaxf(upper ? v[k + COUNT / 2] : v[k], other);
    }
}

// A float as an unsigned number of the same order, so that an integer maximum across blocks is exact and does not
// depend on their order. 0 is below every float: the value of memory nobody has written a maximum to.
MUSC_DEVICE uint32_t key_of(float v) {
    uint32_t bits = __float_as_uint(v);
    return (bits & 0x80000000u) ? ~bits : bits | 0x80000000u;
}

MUSC_DEVICE float of_key(uint32_t key) {
    return __uint_as_float((key & 0x80000000u) ? key & 0x7fffffffu : ~key);
}

// 2^x, relative error 2^-22; 2^-inf is 0.
MUSC_DEVICE float exp2_fast(float x) {
    float r;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}

// 1/x, one unit in the last place.
MUSC_DEVICE float reciprocal(float x) {
    float r;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}
