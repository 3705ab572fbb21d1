/* Parameters of every kernel, one struct each, passed by value as the kernel's only argument.
 *
 * Plain C, so that the device code, a host program and `bindgen` read the same text. Rules: fixed-width integers;
 * a pointer is 8 bytes on both sides (`MUSC_PTR` spells it typed on the device, `uint64_t` elsewhere); no implicit
 * padding (pointers first, then an even number of 32-bit fields).
 *
 * Letters: N images; H x W the patch grid, rows by columns; L = H*W patch tokens an image, row by row; T = L + 1 tokens
 * with the class token; C the width of a token; P the patch size. "half" is f16 or bf16, as the entry point's name says.
 * Strides count elements.
 */
#ifndef MUSC_PARAMS_H
#define MUSC_PARAMS_H

#if defined(__CUDACC_RTC__)
typedef unsigned char uint8_t;
typedef unsigned short uint16_t;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef unsigned long long uint64_t;
#else
#include <stdint.h>
#endif

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
#define MUSC_PTR(type) type *
#else
#define MUSC_PTR(type) uint64_t
#endif

/* Largest number of aggregation degrees in one launch. */
#define MUSC_MAX_DEGREES 4
/* Largest aggregation degree. */
#define MUSC_MAX_DEGREE 7
/* The longest side of a grid whose tokens are scored. */
#define MUSC_MAX_SIDE 128
/* Row stride of a Gram block in floats: a constant, so that gram_pool addresses the rows of a grid by immediates. The
 * largest L, too. */
#define MUSC_GRAM_STRIDE 8192

/* patch_embed: 8-bit pixels to normalised patch rows; and the class rows of the residual stream. */
typedef struct PatchEmbedParams {
    MUSC_PTR(const uint8_t) pixels;    /* `[N, H*P, W*P, 3]` */
    MUSC_PTR(uint16_t) rows;           /* half `[N*L, k_padded]` */
    MUSC_PTR(const float) class_row;   /* `[C]` class token + its position embedding */
    MUSC_PTR(float) stream;            /* `[N, T, C]` residual stream */
    uint32_t images;                   /* N */
    uint32_t grid_rows;                /* H */
    uint32_t grid_columns;             /* W */
    uint32_t patch;                    /* P */
    uint32_t k_padded;                 /* 3*P*P rounded up to a multiple of 32 */
    uint32_t width;                    /* C */
    float scale[3];                    /* 1 / (255 * std), per channel */
    float shift[3];                    /* -mean / std, per channel */
} PatchEmbedParams;

/* gemm: out = epilogue(A * B^T). */
typedef struct GemmParams {
    MUSC_PTR(const uint16_t) a;        /* half `[m, k]`, row stride lda */
    MUSC_PTR(const uint16_t) b;        /* half `[n, k]`, row stride ldb */
    MUSC_PTR(void) out;                /* half or f32 `[m, n]`, row stride ldo */
    MUSC_PTR(const float) bias;        /* f32 `[n]` */
    MUSC_PTR(const float) layer_scale; /* f32 `[n]`, or null for 1 */
    MUSC_PTR(const float) addend;      /* f32 `[m, n]` residual, or `[T, n]` position embedding; row stride ldo */
    MUSC_PTR(const float) row_sum_a;   /* gram: f32 `[N, L]` of the set of A, from lnamd */
    MUSC_PTR(const float) mean_a;      /* gram: f32 `[N]` of the set of A, from lnamd */
    MUSC_PTR(const float) row_sum_b;   /* gram: f32 `[N, L]` of the set of B */
    MUSC_PTR(const float) mean_b;      /* gram: f32 `[N]` of the set of B */
    MUSC_PTR(const float) inv_norm_a;  /* gram_max: f32 `[N, L]` of the set of A, of degree 1 */
    MUSC_PTR(const float) inv_norm_b;  /* gram_max: f32 `[N, L]` of the set of B, of degree 1 */
    MUSC_PTR(uint32_t) keys;           /* gram_max: `[kept, N, L]` of degree 1, N of the set of B */
    uint32_t m;                        /* rows of A and of the output */
    uint32_t n;                        /* rows of B, columns of the output */
    uint32_t k;                        /* length of the sums */
    uint32_t lda;                      /* row stride of A */
    uint32_t ldb;                      /* row stride of B */
    uint32_t ldo;                      /* row stride of the output */
    uint32_t rows_per_image;           /* embed, gram: L */
    uint32_t first_image_a;            /* gram: index of the image of row 0 of A in its set */
    uint32_t first_image_b;            /* gram: index of the image of row 0 of B in its set */
    uint32_t channels;                 /* gram: C, k less the zeros that pad a token */
    uint32_t symmetric;                /* gram: 1: A and B are of one set, and only pairs i < j count; 0: every pair */
    uint32_t images;                   /* gram_max: N of the set of B */
    uint32_t first_kept;               /* gram_max: images first_kept .. first_kept + kept have a row of keys */
    uint32_t kept;                     /* gram_max: see first_kept */
} GemmParams;

/* layer_norm: rows of the residual stream, normalised or only rounded. */
typedef struct LayerNormParams {
    MUSC_PTR(const float) input;       /* f32 rows, row stride width */
    MUSC_PTR(void) out;                /* half or f32 `[rows, width]` */
    MUSC_PTR(const float) gamma;       /* f32 `[width]` */
    MUSC_PTR(const float) beta;        /* f32 `[width]` */
    uint32_t rows;                     /* rows written */
    uint32_t width;                    /* C */
    uint32_t out_rows_per_image;       /* output row o reads input row */
    uint32_t in_rows_per_image;        /*   (o / out_rows_per_image) * in_rows_per_image */
    uint32_t in_first_row;             /*   + in_first_row + o % out_rows_per_image */
    float eps;                         /* added to the variance */
} LayerNormParams;

/* attention: softmax(Q K^T / 8) V for every image and head. */
typedef struct AttentionParams {
    MUSC_PTR(const uint16_t) qkv;      /* half `[N, tokens, 3*heads*64]` */
    MUSC_PTR(uint16_t) out;            /* half `[N, tokens, heads*64]` */
    uint32_t images;                   /* N */
    uint32_t tokens;                   /* T */
    uint32_t heads;                    /* width / 64 */
    float scale_log2;                  /* log2(e) / sqrt(64) */
} AttentionParams;

/* lnamd: row sums, image means and inverse norms of the pooled tokens. */
typedef struct LnamdParams {
    MUSC_PTR(const uint16_t) tokens;   /* half `[N, L, width]` */
    MUSC_PTR(float) row_sum;           /* f32 `[N, L]` sum over the channels of a token */
    MUSC_PTR(float) mean;              /* f32 `[N]` */
    MUSC_PTR(float) inv_norm;          /* f32 `[degrees, norm_images, L]`, the first N images of each */
    uint32_t images;                   /* N */
    uint32_t rows;                     /* H */
    uint32_t columns;                  /* W */
    uint32_t width;                    /* row stride of tokens: C, padded with zeros to a multiple of 128 */
    uint32_t degrees;                  /* 1 to MUSC_MAX_DEGREES */
    uint32_t degree[MUSC_MAX_DEGREES]; /* odd, 1 to MUSC_MAX_DEGREE */
    uint32_t norm_images;              /* images from one degree to the next in inv_norm, at least N */
    uint32_t channels;                 /* C, width less the zeros that pad a token */
    uint32_t reserved;                 /* no meaning; keeps the size a multiple of 8 */
} LnamdParams;

/* What gemm_gram_max, gram_pool, patch_distance and local_distance write: the largest cosine of a patch token p of
 * image i with any patch token of image j, as a key (see common/reduce.cuh) in `keys[degree][i - first_kept][j][p]` for
 * the images i that are kept; 0 before the first launch.
 *
 * symmetric 1: A and B are runs of one set of N images, only the pairs i < j count, and each serves both images. 0: A
 * is a run of one set, B of another of N; every pair counts, and serves the image of A alone. A patch whose inverse
 * norm is NaN is in nobody's maximum; its own key may be anything. */
typedef struct PatchDistanceParams {
    MUSC_PTR(const uint16_t) tokens_a; /* half `[images_a, L, width]` */
    MUSC_PTR(const uint16_t) tokens_b; /* half `[images_b, L, width]` */
    MUSC_PTR(const float) row_sum_a;   /* f32 `[N, L]` of the set of A */
    MUSC_PTR(const float) mean_a;      /* f32 `[N]` of the set of A */
    MUSC_PTR(const float) inv_norm_a;  /* f32 `[N, L]` of the set of A, of this degree */
    MUSC_PTR(const float) row_sum_b;   /* f32 `[N, L]` of the set of B */
    MUSC_PTR(const float) mean_b;      /* f32 `[N]` of the set of B */
    MUSC_PTR(const float) inv_norm_b;  /* f32 `[N, L]` of the set of B, of this degree */
    MUSC_PTR(uint32_t) keys;           /* `[kept, N, L]` of this degree, N of the set of B */
    uint32_t images;                   /* N of the set of B */
    uint32_t rows_per_image;           /* L */
    uint32_t width;                    /* row stride of tokens: C, padded with zeros to a multiple of 32 */
    uint32_t first_image_a;            /* the block of pairs: images a .. a + images_a against b .. b + images_b */
    uint32_t images_a;                 /* images of A */
    uint32_t first_image_b;            /* first image of B */
    uint32_t images_b;                 /* images of B */
    uint32_t first_kept;               /* images first_kept .. first_kept + kept have a row of keys */
    uint32_t kept;                     /* see first_kept */
    uint32_t channels;                 /* C, width less the zeros that pad a token */
    uint32_t symmetric;                /* 1: only pairs i < j of one set; 0: every pair of two */
    uint32_t reserved;                 /* no meaning; keeps the size a multiple of 8 */
} PatchDistanceParams;

/* gram_pool: box sums of a Gram block for every degree, and their maxima. */
typedef struct GramPoolParams {
    MUSC_PTR(const float) gram;        /* f32 `[images_a * L, MUSC_GRAM_STRIDE]`, from gemm_gram */
    MUSC_PTR(const float) inv_norm_a;  /* f32 `[degrees, set_images_a, L]` */
    MUSC_PTR(const float) inv_norm_b;  /* f32 `[degrees, N, L]` */
    MUSC_PTR(uint32_t) keys;           /* `[degrees, kept, N, L]` */
    uint32_t set_images_a;             /* images of the set of A */
    uint32_t images;                   /* N of the set of B */
    uint32_t rows;                     /* H */
    uint32_t columns;                  /* W */
    uint32_t first_image_a;            /* first image of A */
    uint32_t images_a;                 /* images of A */
    uint32_t first_image_b;            /* first image of B */
    uint32_t images_b;                 /* images of B */
    uint32_t strip_rows;               /* rows of the grid of image b a block scores, see gram_pool.cu */
    uint32_t strip_columns;            /* columns of the grid of image b a block scores */
    uint32_t degrees;                  /* 1 to MUSC_MAX_DEGREES */
    uint32_t degree[MUSC_MAX_DEGREES]; /* odd, ascending, no two equal */
    uint32_t first_kept;               /* images first_kept .. first_kept + kept have a row of keys */
    uint32_t kept;                     /* see first_kept */
    uint32_t symmetric;                /* 1: only pairs i < j of one set; 0: every pair of two */
} GramPoolParams;

/* local_distance: pooled unit tokens, and the largest cosine of each with those near its own place. */
typedef struct LocalDistanceParams {
    MUSC_PTR(const uint16_t) tokens;   /* pool: half `[images_a, L, width]` */
    MUSC_PTR(const float) mean;        /* pool: f32 `[images_a]` */
    MUSC_PTR(const float) inv_norm;    /* pool: f32 `[images_a, L]` of the degree */
    MUSC_PTR(uint16_t) pooled;         /* pool: half `[images_a, L, width]`, written */
    MUSC_PTR(const uint16_t) pooled_a; /* max: half `[images_a, L, width]` */
    MUSC_PTR(const uint16_t) pooled_b; /* max: half `[images_b, L, width]` */
    MUSC_PTR(uint32_t) keys;           /* max: `[kept, N, L]` */
    uint32_t images;                   /* max: N of the set of B */
    uint32_t rows;                     /* H */
    uint32_t columns;                  /* W */
    uint32_t width;                    /* row stride of tokens: C, padded with zeros to a multiple of 128 */
    uint32_t channels;                 /* pool: C, width less the zeros that pad a token */
    uint32_t degree;                   /* pool: odd, 1 to MUSC_MAX_DEGREE */
    uint32_t radius;                   /* max: how far a patch looks from its own place, on both axes */
    uint32_t first_image_a;            /* max: first image of A in its set */
    uint32_t images_a;                 /* images of A */
    uint32_t first_image_b;            /* max: first image of B in its set */
    uint32_t images_b;                 /* max: images of B */
    uint32_t first_kept;               /* max: images first_kept .. first_kept + kept have a row of keys */
    uint32_t kept;                     /* max: see first_kept */
    uint32_t symmetric;                /* max: 1: A and B are of one set, and no image meets itself; 0: every pair */
} LocalDistanceParams;

/* interval_mean: mean distance over an interval of the sorted images. */
typedef struct IntervalMeanParams {
    MUSC_PTR(const uint32_t) keys;     /* `[images_a, N, L]`, 0 where an image was not compared */
    MUSC_PTR(float) scores;            /* f32 `[images_a, L]` */
    MUSC_PTR(const uint32_t) ranks;    /* `[images_a, 2]` low and high, 0 <= low < high <= images compared */
    uint32_t images;                   /* N, the images in a row of keys */
    uint32_t patches;                  /* L */
    uint32_t images_a;                 /* images scored by this launch */
    float weight;                      /* score += weight * mean */
    uint32_t accumulate;               /* 0: score = weight * mean */
    uint32_t reserved;                 /* no meaning; keeps the size a multiple of 8 */
} IntervalMeanParams;

#endif
