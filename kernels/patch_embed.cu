// Math: rows: row[k] = pixel * scale[c] + shift[c], the normalised pixels of a patch in the order of the convolution's
//   weights, k = (c * P + y) * P + x; zero from 3*P*P to k_padded. The patch convolution is then a matrix product.
//   class: stream[image][0][:] = class token + its position embedding.
//
// Shapes: pixels u8 [N, H*P, W*P, 3]; rows half [N*L, k_padded], 16-byte aligned; class_row f32 [C]; stream f32
//   [N, T, C], both 16-byte aligned.
//
// Launch: rows: grid (ceil(W / 8), H, N), block 256. A block owns 8 neighbouring patches; a thread 8 neighbouring
//   numbers of a row at a time. class: grid N, block 256; a thread owns 4 channels at a time.
//
// Shared memory: rows: static, the pixels of 8 patches of 32x32: 24576.
//
// Numerics: f32, one rounding to the half. |row[k]| < 3 for the normalisations in use.
//
// Preconditions: P <= 32; k_padded % 32 == 0, 3*P*P <= k_padded; C % 4 == 0; N, H <= 65535.
#include "common/reduce.cuh"

constexpr int EMBED_THREADS = 256;
constexpr int EMBED_PATCHES = 8;
constexpr int EMBED_MAX_PATCH = 32;
constexpr int EMBED_SHARED_BYTES = EMBED_PATCHES * EMBED_MAX_PATCH * EMBED_MAX_PATCH * 3;
static_assert(EMBED_SHARED_BYTES <= 48 * 1024, "static shared memory holds at most 48 KiB");

template <class Half>
MUSC_DEVICE void patch_rows(const PatchEmbedParams &p) {
    __shared__ uint8_t s_pixels[EMBED_SHARED_BYTES];
    const uint32_t first_patch = blockIdx.x * EMBED_PATCHES;
    const uint32_t patches = min(EMBED_PATCHES, p.grid_columns - first_patch);
    const uint32_t image_width = p.grid_columns * p.patch;
    // Bytes of a row of pixels of these patches.
    const uint32_t pitch = patches * p.patch * 3;
    const uint64_t first_line = (uint64_t(blockIdx.z) * p.grid_rows + blockIdx.y) * p.patch;
    const uint8_t *from = p.pixels + (first_line * image_width + first_patch * p.patch) * 3;
    for (uint32_t i = threadIdx.x; i < p.patch * pitch; i += EMBED_THREADS)
        s_pixels[i] = __ldg(from + uint64_t(i / pitch) * image_width * 3 + i % pitch);
    __syncthreads();

    const uint32_t area = p.patch * p.patch;
    const uint32_t chunks = p.k_padded / 8;
    const uint64_t first_row = (uint64_t(blockIdx.z) * p.grid_rows + blockIdx.y) * p.grid_columns + first_patch;
    for (uint32_t i = threadIdx.x; i < patches * chunks; i += EMBED_THREADS) {
        const uint32_t patch = i / chunks, first = i % chunks * 8;
        float v[8];
#pragma unroll
        for (uint32_t e = 0; e < 8; e++) {
            const uint32_t k = first + e;
            v[e] = 0.0f;
            if (k < 3 * area) {
                const uint32_t c = k / area, y = k % area / p.patch, x = k % p.patch;
                const float scale = c == 0 ? p.scale[0] : c == 1 ? p.scale[1] : p.scale[2];
                const float shift = c == 0 ? p.shift[0] : c == 1 ? p.shift[1] : p.shift[2];
                v[e] = fmaf(float(s_pixels[y * pitch + (patch * p.patch + x) * 3 + c]), scale, shift);
            }
        }
        *reinterpret_cast<uint4 *>(p.rows + (first_row + patch) * p.k_padded + first) =
            make_uint4(Half::pack(v[0], v[1]), Half::pack(v[2], v[3]), Half::pack(v[4], v[5]), Half::pack(v[6], v[7]));
    }
}

MUSC_ENTRY(patch_embed_rows, PatchEmbedParams, EMBED_THREADS, 4, patch_rows)

extern "C" __global__ void __launch_bounds__(EMBED_THREADS) patch_embed_class_f32(
    const __grid_constant__ PatchEmbedParams p) {
    const uint64_t row = uint64_t(blockIdx.x) * (p.grid_rows * p.grid_columns + 1) * p.width;
    for (uint32_t c = threadIdx.x * 4; c < p.width; c += EMBED_THREADS * 4)
        *reinterpret_cast<float4 *>(p.stream + row + c) = __ldg(reinterpret_cast<const float4 *>(p.class_row + c));
}
