//! The inner loop of products of bf16, in AVX512-BF16.
//!
//! It keeps a tile of 6 rows and 64 columns in 24 registers. In a step it multiplies two columns of A by two rows of B: four
//! vectors of B, one pair of A for each row, 24 instructions for 10 loads. The tile goes to memory once, and from there through
//! an epilogue ([`Finish`]).

use std::arch::x86_64::*;

use half::bf16;

use super::finish::{Finish, Rows};
use crate::backend::cpu::panels::PANEL;
use crate::gemm::Shape;
use crate::simd::Bf16;

/// Rows of a tile.
pub const ROWS: usize = 6;

/// f32 values of a vector.
const LANES: usize = 16;

/// A tile of products.
#[repr(C, align(64))]
struct Tile([[f32; PANEL]; ROWS]);

/// A·B on this thread, of which the first row is row `above` of the whole. The processor has the features, by the proof.
///
/// # Safety
/// `a` holds `shape`, `panels` `[shape.columns, columns]`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub unsafe fn whole<T, F: Finish<T>>(
    _proof: Bf16,
    (a, shape): (&[bf16], Shape),
    (panels, columns): (&[bf16], usize),
    (mut c, finish, above): (Rows<'_, T>, F, usize),
) {
    let mut tile = Tile([[0.0; PANEL]; ROWS]);
    let depth = shape.columns;
    for first in (0..columns).step_by(PANEL) {
        let panel = &panels[first * depth..];
        let width = PANEL.min(columns - first);
        for row in (0..shape.rows).step_by(ROWS) {
            let rows = ROWS.min(shape.rows - row);
            let left = &a[row * shape.stride..];
            let of = if rows == ROWS { Some(width.div_ceil(LANES)) } else { None };
            // SAFETY: `rows` rows of `a` from `row` on, of `depth` values `stride` apart, lie in `left`, and a whole panel,
            // `[depth/2, 64, 2]`, in `panel`, by what the caller vouches for. Tiles at the lower edge have fewer rows.
            unsafe {
                match of {
                    Some(4) => fill::<ROWS, 4>(left, shape.stride, panel, depth, &mut tile, 0),
                    Some(3) => fill::<ROWS, 3>(left, shape.stride, panel, depth, &mut tile, 0),
                    Some(2) => fill::<ROWS, 2>(left, shape.stride, panel, depth, &mut tile, 0),
                    Some(_) => fill::<ROWS, 1>(left, shape.stride, panel, depth, &mut tile, 0),
                    None => edge(left, rows, shape.stride, panel, depth, &mut tile),
                }
            }
            for (row, products) in (row..).zip(&tile.0[..rows]) {
                finish.row(above + row, first, &products[..width], c.at(row, first, width));
            }
        }
    }
}

/// Fewer than a tile's rows: three, two and one at a time.
///
/// # Safety
/// As [`fill`], for `rows` rows.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn edge(
    a: &[bf16],
    rows: usize,
    stride: usize,
    panel: &[bf16],
    depth: usize,
    tile: &mut Tile,
) {
    let mut done = 0;
    while done < rows {
        let left = &a[done * stride..];
        // SAFETY: no more rows than the caller vouches for.
        unsafe {
            match rows - done {
                1 => fill::<1, 4>(left, stride, panel, depth, tile, done),
                2 => fill::<2, 4>(left, stride, panel, depth, tile, done),
                _ => fill::<3, 4>(left, stride, panel, depth, tile, done),
            }
        }
        done += 3.min(rows - done);
    }
}

/// R rows of a tile, from `at` on, and 16·V of its columns.
///
/// # Safety
/// The processor has the features; `a` holds R rows of `depth` values `stride` apart, `panel` `[depth/2, 64, 2]`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
#[inline]
unsafe fn fill<const R: usize, const V: usize>(
    a: &[bf16],
    stride: usize,
    panel: &[bf16],
    depth: usize,
    tile: &mut Tile,
    at: usize,
) {
    debug_assert!(a.len() >= (R - 1) * stride + depth && panel.len() >= depth * PANEL);
    let (left, right) = (a.as_ptr(), panel.as_ptr());
    let mut sums = [[_mm512_setzero_ps(); V]; R];
    for pair in 0..depth / 2 {
        let mut b = [_mm512_setzero_si512(); V];
        for (at, b) in b.iter_mut().enumerate() {
            // SAFETY: `pair` < depth/2 and 16·V <= 64: inside the panel.
            *b = unsafe { _mm512_loadu_si512(right.add((pair * PANEL + at * LANES) * 2).cast()) };
        }
        for (row, sums) in sums.iter_mut().enumerate() {
            // SAFETY: `row` < R and 2·pair + 1 < depth: inside the rows of `a`.
            let two = unsafe { left.add(row * stride + 2 * pair).cast::<i32>().read_unaligned() };
            let two = _mm512_set1_epi32(two);
            for (sum, &b) in sums.iter_mut().zip(&b) {
                // SAFETY: both are 512 bits, and any bits are numbers of either type.
                *sum = unsafe { _mm512_dpbf16_ps(*sum, bits(two), bits(b)) };
            }
        }
    }
    for (sums, out) in sums.iter().zip(&mut tile.0[at..]) {
        for (&sum, out) in sums.iter().zip(out.as_chunks_mut::<LANES>().0) {
            // SAFETY: 16 values are 512 bits.
            unsafe { _mm512_storeu_ps(out.as_mut_ptr(), sum) };
        }
    }
}

/// The same bits as pairs of bf16.
///
/// # Safety
/// None beyond the feature: any bits are 32 numbers.
#[target_feature(enable = "avx512f,avx512bf16")]
#[inline]
unsafe fn bits(vector: __m512i) -> __m512bh {
    // SAFETY: both are 512 bits, and any bits are numbers of either type.
    unsafe { std::mem::transmute(vector) }
}
