// Math: d(i, p; j) = sqrt(max(0, 2 - 2 cos)), cos the largest cosine of patch token p of image i with image j. Over the
//   images j that i was compared with, sorted: mean = 1 / (high - low) * sum of d at the ranks low <= rank < high, low
//   and high those of image i. Then score(i, p) = weight * mean, added to what is there or not.
//
// Shapes: keys u32 [images_a, N, L] (common/reduce.cuh), 0 where i was not compared with j; scores f32 [images_a, L];
//   ranks u32 [images_a, 2], low and high.
//
// Launch: grid (ceil(L / 32), images_a), block 256. A lane owns a patch; the eight warps deal out the images j.
//
// Shared memory: static, a histogram of 256 bins for each of 32 patches and what the warps pass on: 256*32*4 + 8*32*4 =
//   33792. Bin b of patch l is word b*32 + l: a lane keeps to its own bank.
//
// Numerics: selection, no sort: distance falls as the key rises, so rank r is the (r+1)-th largest key, found exactly by
//   four passes over 8 bits of the key each. The sum takes what lies strictly between the two limits and the limits
//   themselves as often as ranks are left for them, so ties cost nothing. f32, in a fixed order.
//
//   Key 0 is below every other: no rank reaches it while there are keys that are not 0. A score whose ranks reach it, or
//   are empty, is NaN.
//
// Preconditions: images_a <= 65535; N > 0. Any ranks are safe.
#include "common/reduce.cuh"

constexpr int INTERVAL_THREADS = 256;
constexpr int INTERVAL_WARPS = INTERVAL_THREADS / WARP;
constexpr int BITS = 8;
constexpr int BINS = 1 << BITS;
constexpr int BINS_PER_WARP = BINS / INTERVAL_WARPS;
static_assert(32 % BITS == 0 && BINS % INTERVAL_WARPS == 0, "digits and bins divide evenly");

// The key at a rank (0: the largest) among a lane's images; how many are larger, and how many equal it.
struct Ranked {
    uint32_t key, larger, equal;
};

MUSC_DEVICE float distance(uint32_t key) { return sqrtf(fmaxf(0.0f, 2.0f - 2.0f * of_key(key))); }

// All threads of the block call it; every warp returns the same for a lane.
MUSC_DEVICE Ranked select(const uint32_t *keys, uint32_t stride, uint32_t images, bool owns, uint32_t rank,
                          uint32_t *s_bins, uint32_t *s_parts) {
    const uint32_t lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    Ranked found = {0, 0, 0};
    for (int shift = 32 - BITS; shift >= 0; shift -= BITS) {
        for (int b = 0; b < BINS_PER_WARP; b++) s_bins[(warp * BINS_PER_WARP + b) * WARP + lane] = 0;
        __syncthreads();
        if (owns)
            for (uint32_t j = warp; j < images; j += INTERVAL_WARPS) {
                const uint32_t key = __ldg(keys + uint64_t(j) * stride);
                // Shifted in two steps: the first pass has no upper bits to agree on.
                if ((key >> shift) >> BITS == (found.key >> shift) >> BITS)
                    atomicAdd(&s_bins[(key >> shift) % BINS * WARP + lane], 1u);
            }
        __syncthreads();
        uint32_t part = 0;
        for (int b = 0; b < BINS_PER_WARP; b++) part += s_bins[(warp * BINS_PER_WARP + b) * WARP + lane];
        s_parts[warp * WARP + lane] = part;
        __syncthreads();
        // Down from the top bin, first by the parts of a warp, then by bins.
        uint32_t left = rank - found.larger;
        int at = INTERVAL_WARPS - 1;
        for (; at > 0 && left >= s_parts[at * WARP + lane]; at--) left -= s_parts[at * WARP + lane];
        int bin = at * BINS_PER_WARP + BINS_PER_WARP - 1;
        for (; bin > at * BINS_PER_WARP && left >= s_bins[bin * WARP + lane]; bin--) left -= s_bins[bin * WARP + lane];
        found.key |= uint32_t(bin) << shift;
        found.larger = rank - left;
        found.equal = s_bins[bin * WARP + lane];
        __syncthreads();
    }
    return found;
}

extern "C" __global__ void __launch_bounds__(INTERVAL_THREADS) interval_mean_keys_f32(
    const __grid_constant__ IntervalMeanParams p) {
    __shared__ uint32_t s_bins[BINS * WARP];
    __shared__ uint32_t s_parts[INTERVAL_WARPS * WARP];
    const uint32_t lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const uint32_t patch = blockIdx.x * WARP + lane, image = blockIdx.y;
    const uint32_t rank_low = __ldg(p.ranks + 2 * image), rank_high = __ldg(p.ranks + 2 * image + 1);
    const bool owns = patch < p.patches;
    const uint32_t *keys = p.keys + uint64_t(image) * p.images * p.patches + patch;

    const Ranked high = select(keys, p.patches, p.images, owns, rank_high - 1, s_bins, s_parts);
    Ranked low = {0xffffffffu, 0, 0};
    if (rank_low > 0) low = select(keys, p.patches, p.images, owns, rank_low - 1, s_bins, s_parts);

    float sum = 0.0f;
    if (owns)
        for (uint32_t j = warp; j < p.images; j += INTERVAL_WARPS) {
            const uint32_t key = __ldg(keys + uint64_t(j) * p.patches);
            if (key > high.key && (rank_low == 0 || key < low.key)) sum += distance(key);
        }
    float *s_sum = reinterpret_cast<float *>(s_parts);
    s_sum[warp * WARP + lane] = sum;
    __syncthreads();
    if (warp == 0 && owns) {
        sum = 0.0f;
        for (int w = 0; w < INTERVAL_WARPS; w++) sum += s_sum[w * WARP + lane];
        if (rank_low > 0 && low.key == high.key)
            sum = float(rank_high - rank_low) * distance(high.key);
        else {
            sum += float(rank_high - high.larger) * distance(high.key);
            if (rank_low > 0) sum += float(low.larger + low.equal - rank_low) * distance(low.key);
        }
        // Beyond what was compared there is nothing to take a mean of.
        if (rank_low >= rank_high || high.key == 0) sum = __uint_as_float(0x7fffffffu);
        const float score = p.weight * (sum / float(rank_high - rank_low));
        float *to = p.scores + uint64_t(image) * p.patches + patch;
        *to = p.accumulate ? *to + score : score;
    }
}
