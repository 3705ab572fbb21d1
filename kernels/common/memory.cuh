// Moves between global and shared memory, 16 bytes at a time.
#pragma once
#include "types.cuh"

// Address of a shared-memory object in the shared window, as ldmatrix and cp.async take it.
MUSC_DEVICE uint32_t shared_address(const void *p) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

// 16 bytes global -> shared. On 8.0 and later they arrive only after a wait; on 7.5 at once.
MUSC_DEVICE void copy16(uint32_t shared, const void *global) {
#if MUSC_SM80
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared), "l"(__cvta_generic_to_global(global))
                 : "memory");
#else
    uint4 v = *static_cast<const uint4 *>(global);
    asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(shared), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w)
                 : "memory");
#endif
}

MUSC_DEVICE void store_shared16(uint32_t shared, uint4 v) {
    asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(shared), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w)
                 : "memory");
}

// 16 bytes of floats at once: a plain load of which only a part is used would be split, and conflict.
MUSC_DEVICE float4 load_shared16(uint32_t shared) {
    float4 v;
    asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w) : "r"(shared) : "memory");
    return v;
}

MUSC_DEVICE void copy_commit() {
#if MUSC_SM80
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits until at most PENDING of the newest groups of this thread are still under way.
template <int PENDING>
MUSC_DEVICE void copy_wait() {
#if MUSC_SM80
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
#endif
}
