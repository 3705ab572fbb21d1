//! `lnamd`, `gram_pool`, `patch_distance` and `local_distance`: from tokens to the largest cosines.

use rayon::prelude::*;

use super::Class;
use super::images::{Against, Images, near};
use super::judge::Want;
use super::memory::{Guarded, Lab, Outcome, Pass};
use super::numbers::{Random, TINY, U32, roundoff};
use musc::backend::cuda::launch::gemm::{self, Operands};
use musc::backend::cuda::launch::gram_pool::{self, Shape};
use musc::backend::cuda::launch::lnamd::{self, Statistics};
use musc::backend::cuda::launch::local_distance::{self, TokenShape};
use musc::backend::cuda::launch::{
    GRAM_STRIDE, Half, Keys, Matrix, PairBlock, Side, patch_distance, value_of_key,
};
use musc::backend::cuda::{Buffer, Stream};
use musc::{Grid, Result};

/// The number of a key.
fn cosine(key: u32) -> f64 {
    f64::from(value_of_key(key))
}

/// What lnamd makes of a set, on the card; the norms of patches that are left out are NaN.
struct Prepared {
    tokens: Buffer<u16>,
    row_sum: Buffer<f32>,
    mean: Buffer<f32>,
    inv_norm: Buffer<f32>,
    images: usize,
}

impl Prepared {
    fn new(stream: &Stream, images: &Images, degrees: &[usize]) -> Result<Self> {
        let rows = images.n * images.patches();
        let card = stream.card();
        let tokens = stream.upload_new(&images.bits, "tokens")?;
        let mut row_sum = card.alloc(rows, "row sums")?;
        let mut mean = card.alloc(images.n, "means")?;
        let mut inv_norm = card.alloc(degrees.len() * rows, "norms")?;
        let out = Statistics {
            row_sum: row_sum.view_mut(),
            mean: mean.view_mut(),
            inv_norm: inv_norm.view_mut(),
            norm_images: images.n,
        };
        let (sizes, widths) = ((images.n, images.grid), (images.width, images.channels));
        lnamd::statistics(stream, images.half, tokens.view(), sizes, widths, degrees, &out)?;
        if images.left_out.contains(&true) {
            let mut norms = stream.download_new(inv_norm.view())?;
            for of_degree in norms.chunks_exact_mut(rows) {
                for (norm, _) in of_degree.iter_mut().zip(&images.left_out).filter(|(_, out)| **out)
                {
                    *norm = f32::NAN;
                }
            }
            stream.upload(inv_norm.view_mut(), &norms)?;
        }
        Ok(Prepared { tokens, row_sum, mean, inv_norm, images: images.n })
    }

    fn side(&self) -> Side<'_> {
        Side {
            row_sum: self.row_sum.view(),
            mean: self.mean.view(),
            inv_norm: self.inv_norm.view(),
            images: self.images,
        }
    }
}

/// Row sums, means and norms, each on its own.
pub fn statistics(lab: &Lab<'_>, images: &Images, class: Class) -> Result<Vec<Outcome>> {
    let degrees = [1, 3, 5, 7];
    let (n, l) = (images.n, images.patches());
    let exact =
        |value: f64, off: f64| Want::Near(value, if class == Class::Exact { 0.0 } else { off });
    let sums: Vec<Want> = (0..n * l)
        .map(|at| {
            let (sum, magnitude) = images.row_sum(at / l, at % l);
            exact(sum, images.row_sum_off(magnitude))
        })
        .collect();
    let means: Vec<Want> = (0..n)
        .map(|image| {
            let (mean, off) = images.mean(image);
            exact(mean, off)
        })
        .collect();
    // More images from one degree to the next than there are: what lies between is not the kernel's.
    let room = n + 1;
    let mut norms = Vec::new();
    for degree in degrees {
        for image in 0..n {
            let pooled = images.pooled(image, degree);
            norms.extend(pooled.iter().map(|of| Want::Near(of.inverse, of.inverse * of.off)));
        }
        norms.extend(vec![Want::Untouched; l]);
    }
    let name = images.half.name();
    lab.judge(|pass| {
        let tokens = pass.input("tokens", &images.bits)?;
        let mut row_sum = pass.output::<f32>("row_sum", n * l)?;
        let mut mean = pass.output::<f32>("mean", n)?;
        let mut inv_norm = pass.output::<f32>("inv_norm", degrees.len() * room * l)?;
        let out = Statistics {
            row_sum: row_sum.view_mut()?,
            mean: mean.view_mut()?,
            inv_norm: inv_norm.view_mut()?,
            norm_images: room,
        };
        let (sizes, widths) = ((n, images.grid), (images.width, images.channels));
        lnamd::statistics(pass.stream, images.half, tokens.view()?, sizes, widths, &degrees, &out)?;
        pass.want(&format!("lnamd_sums_{name}"), &row_sum, f64::from, &sums)?;
        pass.want("lnamd_mean_f32", &mean, f64::from, &means)?;
        pass.want(&format!("lnamd_norms_{name}"), &inv_norm, f64::from, &norms)?;
        pass.unchanged(&tokens)
    })
}

/// Which images meet, in which launches, and which rows of keys are kept.
#[derive(Debug, Clone, Copy)]
pub struct Meeting {
    /// Images of A's set, and of B's where it is another.
    pub images: (usize, Option<usize>),
    /// First of A, images of A, first of B, images of B.
    pub blocks: &'static [[usize; 4]],
    /// The first image with a row of keys, and how many have one.
    pub kept: (usize, usize),
}

/// One set in one block, tiles across images and pairs i >= j in it; one set in blocks of which a row is kept; two sets.
pub const MEETINGS: [Meeting; 3] = [
    Meeting { images: (3, None), blocks: &[[0, 3, 0, 3]], kept: (0, 3) },
    Meeting { images: (3, None), blocks: &[[0, 1, 1, 2], [1, 1, 2, 1]], kept: (1, 1) },
    Meeting { images: (2, Some(3)), blocks: &[[0, 2, 0, 2], [0, 2, 2, 1]], kept: (1, 1) },
];

impl Meeting {
    fn symmetric(&self) -> bool {
        self.images.1.is_none()
    }

    fn set_b(&self) -> usize {
        self.images.1.unwrap_or(self.images.0)
    }

    fn block(&self, [first_a, images_a, first_b, images_b]: [usize; 4]) -> PairBlock {
        PairBlock { first_a, images_a, first_b, images_b, symmetric: self.symmetric() }
    }

    /// Those of the rows `[degrees, N of a, ...]` that are kept.
    fn of_kept(&self, all: &[Want], degrees: usize) -> Vec<Want> {
        // No degree, no rows.
        let row = (all.len() / degrees / self.images.0).max(1);
        let (first, kept) = self.kept;
        let rows = all.chunks_exact(row).enumerate();
        rows.filter(|(at, _)| (first..first + kept).contains(&(at % self.images.0)))
            .flat_map(|(_, row)| row.iter().copied())
            .collect()
    }

    fn keys<'a>(&self, keys: &'a mut Guarded<u32>) -> Result<Keys<'a>> {
        let (first_kept, kept) = self.kept;
        Ok(Keys { keys: keys.view_mut()?, images: self.set_b(), first_kept, kept })
    }

    /// What meets, in words.
    pub fn words(&self) -> String {
        match self.images {
            (n, None) => format!("{n} images in {} blocks", self.blocks.len()),
            (n, Some(m)) => format!("{n} queries, {m} references in {} blocks", self.blocks.len()),
        }
    }

    /// Both sets, with patches that are left out.
    pub fn sets(&self, half: Half, grid: Grid, widths: (usize, usize)) -> (Images, Images) {
        let a = Images::new(half, self.images.0, grid, widths, 1).leaving_out(7);
        let b = Images::new(half, self.set_b(), grid, widths, 1 << 32).leaving_out(5);
        (a, b)
    }
}

/// From tokens to keys by lnamd, the Gram product, which has degree 1, and pooling, which has the others.
pub fn chain(
    lab: &Lab<'_>,
    meeting: Meeting,
    (a, b): (&Images, &Images),
    degrees: &[usize],
    step: usize,
) -> Result<Vec<Outcome>> {
    let symmetric = meeting.symmetric();
    let b = if symmetric { a } else { b };
    let all = Against { a, b, symmetric, local: None, step }.wants(degrees);
    let ones = usize::from(degrees.first() == Some(&1));
    let (first, others) = all.split_at(all.len() / degrees.len() * ones);
    let wants_1 = meeting.of_kept(first, 1);
    let pooled = &degrees[ones..];
    let wants = meeting.of_kept(others, pooled.len());
    let entry_1 = format!("gemm_gram_max_{}", a.half.name());
    let entry = pool_entry(a.grid, pooled, lab.card.info().shared_bytes_per_block);
    lab.judge(|pass| {
        let side_a = Prepared::new(pass.stream, a, degrees)?;
        let side_b = Prepared::new(pass.stream, b, degrees)?;
        let sides = (&side_a.side(), &side_b.side());
        // The norms of the degrees that are pooled.
        let behind = |norms: &Side<'_>, images: &Images| {
            ones * images.n * images.patches()..norms.inv_norm.len()
        };
        let (norms_a, norms_b) = (sides.0.inv_norm, sides.1.inv_norm);
        let of_pooled = (
            &Side { inv_norm: norms_a.part(behind(sides.0, a))?, ..*sides.0 },
            &Side { inv_norm: norms_b.part(behind(sides.1, b))?, ..*sides.1 },
        );
        let mut keys_1 = pass.in_place("keys of degree 1", &vec![0u32; wants_1.len()])?;
        let mut keys = pass.in_place("keys", &vec![0u32; wants.len()])?;
        for &block in meeting.blocks {
            let block = meeting.block(block);
            let image = a.patches() * a.width;
            let (m, n) = (block.images_a * a.patches(), block.images_b * a.patches());
            let mut gram = pass.stream.card().alloc::<f32>(m * GRAM_STRIDE, "a Gram block")?;
            let part_a = side_a.tokens.view().part(block.first_a * image..side_a.tokens.len())?;
            let part_b = side_b.tokens.view().part(block.first_b * image..side_b.tokens.len())?;
            let operands = Operands {
                half: a.half,
                a: Matrix { values: part_a, rows: m, stride: a.width },
                b: Matrix { values: part_b, rows: n, stride: a.width },
                k: a.width,
            };
            let (sizes, out) = ((a.patches(), a.channels), gram.view_mut());
            if ones == 1 {
                let mut to = meeting.keys(&mut keys_1)?;
                gemm::gram_max(pass.stream, &operands, block, sizes, sides, out, &mut to)?;
            } else {
                gemm::gram(pass.stream, &operands, block, sizes, sides, out)?;
            }
            let mut to = meeting.keys(&mut keys)?;
            gram_pool::pool(pass.stream, gram.view(), of_pooled, block, a.grid, pooled, &mut to)?;
        }
        if ones == 1 {
            pass.want(&entry_1, &keys_1, cosine, &wants_1)?;
        }
        pass.want(&entry, &keys, cosine, &wants)
    })
}

/// The entry that pools these degrees on such a card.
pub fn pool_entry(grid: Grid, degrees: &[usize], shared: u32) -> String {
    let variant = Shape::best(grid, degrees, shared).map_or("35_f32", |shape| shape.variant);
    format!("gram_pool_{variant}")
}

/// Sums over windows of a grid, of the values at every patch.
fn windows(grid: Grid, degree: usize, values: &[i32]) -> Vec<i32> {
    let of_patch = |p| near(grid, p, degree / 2).into_iter().map(|q| values[q]).sum();
    (0..grid.patches()).map(of_patch).collect()
}

/// The 4-D box sums of an integer Gram block of a pair, by rows, then by columns.
fn boxes(grid: Grid, degree: usize, gram: &[i32]) -> Vec<i32> {
    let l = grid.patches();
    let rows: Vec<Vec<i32>> =
        gram.par_chunks_exact(l).map(|row| windows(grid, degree, row)).collect();
    (0..l)
        .into_par_iter()
        .flat_map_iter(|p| {
            let mut sum = vec![0; l];
            for near in near(grid, p, degree / 2) {
                sum.iter_mut().zip(&rows[near]).for_each(|(sum, value)| *sum += value);
            }
            sum
        })
        .collect()
}

/// Pooling alone, of a Gram block of integers with norms that are powers of two.
pub fn pool_exact(
    lab: &Lab<'_>,
    meeting: Meeting,
    grid: Grid,
    degrees: &[usize],
) -> Result<Vec<Outcome>> {
    let (l, block) = (grid.patches(), meeting.block(meeting.blocks[0]));
    let (n, m) = (meeting.images.0, meeting.set_b());
    let mut random = Random((l + degrees.len()) as u64);
    let gram: Vec<f32> = random.integers(block.images_a * l * GRAM_STRIDE, 8);
    let mut norms = |images: usize| -> Vec<f32> {
        (0..degrees.len() * images * l)
            .map(|at| {
                if at % 11 == 3 { f32::NAN } else { [1.0, 0.5, 0.25][(random.bits() % 3) as usize] }
            })
            .collect()
    };
    let norms_a = norms(n);
    let norms_b = if meeting.symmetric() { norms_a.clone() } else { norms(m) };
    let mut best: Vec<Option<f64>> = vec![None; degrees.len() * n * m * l];
    let mut own_nan = vec![false; best.len()];
    for (d, &degree) in degrees.iter().enumerate() {
        for (i, j) in (0..n).flat_map(|i| (0..m).map(move |j| (i, j))) {
            for p in 0..l {
                own_nan[((d * n + i) * m + j) * l + p] = norms_a[(d * n + i) * l + p].is_nan();
            }
        }
        for a in 0..block.images_a {
            for b in 0..block.images_b {
                let (i, j) = (block.first_a + a, block.first_b + b);
                if block.symmetric && i >= j {
                    continue;
                }
                let of_pair: Vec<i32> = (0..l * l)
                    .map(|at| gram[(a * l + at / l) * GRAM_STRIDE + b * l + at % l] as i32)
                    .collect();
                let sums = boxes(grid, degree, &of_pair);
                for (at, sum) in sums.into_iter().enumerate() {
                    let (p, q) = (at / l, at % l);
                    let scale = norms_a[(d * n + i) * l + p] * norms_b[(d * m + j) * l + q];
                    if scale.is_nan() {
                        continue;
                    }
                    let value = f64::from(sum) * f64::from(scale);
                    let mut merge = |at: usize| {
                        best[at] = Some(best[at].map_or(value, |best: f64| best.max(value)));
                    };
                    merge(((d * n + i) * m + j) * l + p);
                    if block.symmetric {
                        merge(((d * n + j) * m + i) * l + q);
                    }
                }
            }
        }
    }
    let all: Vec<Want> = best
        .iter()
        .zip(&own_nan)
        .map(|(best, nan)| match best {
            _ if *nan => Want::Free,
            Some(value) => Want::Near(*value, 0.0),
            None => Want::Untouched,
        })
        .collect();
    let wants = meeting.of_kept(&all, degrees.len());
    let entry = pool_entry(grid, degrees, lab.card.info().shared_bytes_per_block);
    lab.judge(|pass| {
        let gram = pass.input("gram", &gram)?;
        let (inv_a, inv_b) =
            (pass.input("inv_norm_a", &norms_a)?, pass.input("inv_norm_b", &norms_b)?);
        let mut keys = pass.in_place("keys", &vec![0u32; wants.len()])?;
        // Row sums and means are not read.
        let side_a = Side {
            row_sum: inv_a.view()?,
            mean: inv_a.view()?,
            inv_norm: inv_a.view()?,
            images: n,
        };
        let side_b = Side {
            row_sum: inv_b.view()?,
            mean: inv_b.view()?,
            inv_norm: inv_b.view()?,
            images: m,
        };
        let mut out = meeting.keys(&mut keys)?;
        let sides = (&side_a, if block.symmetric { &side_a } else { &side_b });
        gram_pool::pool(pass.stream, gram.view()?, sides, block, grid, degrees, &mut out)?;
        pass.want(&entry, &keys, cosine, &wants)?;
        pass.unchanged(&gram)?;
        pass.unchanged(&inv_a)?;
        pass.unchanged(&inv_b)
    })
}

/// The fused path of degree 1.
pub fn distances(
    lab: &Lab<'_>,
    meeting: Meeting,
    (a, b): (&Images, &Images),
    step: usize,
) -> Result<Vec<Outcome>> {
    let symmetric = meeting.symmetric();
    let b = if symmetric { a } else { b };
    let all = Against { a, b, symmetric, local: None, step }.wants(&[1]);
    let wants = meeting.of_kept(&all, 1);
    let entry = format!("patch_distance_max_{}", a.half.name());
    lab.judge(|pass| {
        let side_a = Prepared::new(pass.stream, a, &[1])?;
        let side_b = Prepared::new(pass.stream, b, &[1])?;
        let sides = (&side_a.side(), &side_b.side());
        let tokens = (&side_a.tokens, &side_b.tokens);
        let mut keys = pass.in_place("keys", &vec![0u32; wants.len()])?;
        launch_distances(pass, meeting, (a, tokens), sides, &mut keys)?;
        pass.want(&entry, &keys, cosine, &wants)
    })
}

fn launch_distances(
    pass: &Pass<'_, '_>,
    meeting: Meeting,
    (a, tokens): (&Images, (&Buffer<u16>, &Buffer<u16>)),
    sides: (&Side<'_>, &Side<'_>),
    keys: &mut Guarded<u32>,
) -> Result<()> {
    let image = a.patches() * a.width;
    for &block in meeting.blocks {
        let block = meeting.block(block);
        let parts = (
            tokens.0.view().part(block.first_a * image..tokens.0.len())?,
            tokens.1.view().part(block.first_b * image..tokens.1.len())?,
        );
        let sizes = (a.patches(), a.width, a.channels);
        let mut out = meeting.keys(keys)?;
        patch_distance::max(pass.stream, a.half, parts, sides, block, sizes, &mut out)?;
    }
    Ok(())
}

/// The same of integer tokens, means and norms that are powers of two.
pub fn distances_exact(
    lab: &Lab<'_>,
    half: Half,
    meeting: Meeting,
    patches: usize,
    width: usize,
) -> Result<Vec<Outcome>> {
    let (n, m) = (meeting.images.0, meeting.set_b());
    let grid = Grid::new(1, patches);
    let a = Images::integers(half, n, grid, width, 1);
    let b = if meeting.symmetric() {
        Images::integers(half, n, grid, width, 1)
    } else {
        Images::integers(half, m, grid, width, 2)
    };
    let sums = |of: &Images| -> Vec<f32> {
        (0..of.n * patches).map(|at| of.row_sum(at / patches, at % patches).0 as f32).collect()
    };
    let means = |of: &Images| -> Vec<f32> { (0..of.n).map(|i| [0.5, -0.25, 1.0][i % 3]).collect() };
    let norms = |of: &Images| -> Vec<f32> {
        (0..of.n * patches).map(|at| [0.5, 0.25, 1.0][at % 3]).collect()
    };
    let made = |of: &Images| (sums(of), means(of), norms(of));
    let ((sum_a, mean_a, norm_a), (sum_b, mean_b, norm_b)) = (made(&a), made(&b));
    let mut all = Vec::new();
    for (i, j) in (0..n).flat_map(|i| (0..m).map(move |j| (i, j))) {
        for p in 0..patches {
            if meeting.symmetric() && i == j {
                all.push(Want::Untouched);
                continue;
            }
            let (s, m_i, m_j) =
                (f64::from(sum_a[i * patches + p]), f64::from(mean_a[i]), f64::from(mean_b[j]));
            let value = |q: usize| {
                let product: f64 =
                    a.token(i, p).iter().zip(b.token(j, q)).map(|(x, y)| x * y).sum();
                let centred = f64::from(sum_b[j * patches + q]) - width as f64 * m_j;
                (product - m_j * s - m_i * centred)
                    * f64::from(norm_a[i * patches + p])
                    * f64::from(norm_b[j * patches + q])
            };
            all.push(Want::Near((0..patches).map(value).fold(f64::NEG_INFINITY, f64::max), 0.0));
        }
    }
    let wants = meeting.of_kept(&all, 1);
    let entry = format!("patch_distance_max_{}", half.name());
    lab.judge(|pass| {
        let stream = pass.stream;
        let upload = |values: &[f32]| stream.upload_new(values, "statistics");
        let (sum_a, mean_a, norm_a) = (upload(&sum_a)?, upload(&mean_a)?, upload(&norm_a)?);
        let (sum_b, mean_b, norm_b) = (upload(&sum_b)?, upload(&mean_b)?, upload(&norm_b)?);
        let side_a =
            Side { row_sum: sum_a.view(), mean: mean_a.view(), inv_norm: norm_a.view(), images: n };
        let side_b =
            Side { row_sum: sum_b.view(), mean: mean_b.view(), inv_norm: norm_b.view(), images: m };
        let tokens = (stream.upload_new(&a.bits, "tokens")?, stream.upload_new(&b.bits, "tokens")?);
        let mut keys = pass.in_place("keys", &vec![0u32; wants.len()])?;
        launch_distances(
            pass,
            meeting,
            (&a, (&tokens.0, &tokens.1)),
            (&side_a, &side_b),
            &mut keys,
        )?;
        pass.want(&entry, &keys, cosine, &wants)
    })
}

/// Unit tokens of a degree, and the largest cosines within a radius.
pub fn local(
    lab: &Lab<'_>,
    meeting: Meeting,
    a: &Images,
    degree: usize,
    radius: usize,
    step: usize,
) -> Result<Vec<Outcome>> {
    let u = roundoff(a.half);
    let (n, l) = (a.n, a.patches());
    let mut tokens = Vec::with_capacity(a.bits.len());
    for image in 0..n {
        for (p, pooled) in a.pooled(image, degree).iter().enumerate() {
            for (c, &unit) in pooled.unit.iter().enumerate() {
                // A number of a pooled token is off by no more than all of them together.
                let before = pooled.off_token + unit.abs() * pooled.off + 2.0 * U32 * unit.abs();
                tokens.push(match () {
                    () if c >= a.channels => Want::Near(0.0, 0.0),
                    () if a.left_out[image * l + p] => Want::NotANumber,
                    () => Want::Near(unit, before + u * (unit.abs() + before) + TINY),
                });
            }
        }
    }
    let against = Against { a, b: a, symmetric: true, local: Some((radius, u)), step };
    let wants = meeting.of_kept(&against.wants(&[degree]), 1);
    let name = a.half.name();
    let shape = TokenShape { half: a.half, grid: a.grid, width: a.width, channels: a.channels };
    lab.judge(|pass| {
        let side = Prepared::new(pass.stream, a, &[degree])?;
        let mut pooled = pass.output::<u16>("pooled", a.bits.len())?;
        local_distance::pool(
            pass.stream,
            &shape,
            side.tokens.view(),
            &side.side(),
            degree,
            pooled.view_mut()?,
        )?;
        let mut keys = pass.in_place("keys", &vec![0u32; wants.len()])?;
        // Each image of A gets its row: blocks of pairs i < j come a second time, the other way round.
        let turned = meeting.blocks.iter().filter(|block| block[0] != block[2]);
        let turned = turned
            .map(|&[first_a, images_a, first_b, images_b]| [first_b, images_b, first_a, images_a]);
        for block in meeting.blocks.iter().copied().chain(turned) {
            let block = meeting.block(block);
            let image = l * a.width;
            let all = pooled.view()?;
            let parts = (
                all.part(block.first_a * image..all.len())?,
                all.part(block.first_b * image..all.len())?,
            );
            let mut out = meeting.keys(&mut keys)?;
            local_distance::max(pass.stream, &shape, parts, (n, n), block, radius, &mut out)?;
        }
        pass.want(
            &format!("local_distance_pool_{name}"),
            &pooled,
            |bits| f64::from(a.half.value(bits)),
            &tokens,
        )?;
        pass.want(&format!("local_distance_max_{name}"), &keys, cosine, &wants)
    })
}
