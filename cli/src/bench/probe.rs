//! Runs a launch of the pipeline on seeded numbers, on the simulator or a card, through the launchers of the runtime.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::counts::Counts;
use super::op::{Epilogue, Norm, Op, count};
use musc::backend::cuda::driver::sim::{Sim, SimOptions};
use musc::backend::cuda::launch::gemm::{self, Operands};
use musc::backend::cuda::launch::layer_norm::{self, Rows};
use musc::backend::cuda::launch::lnamd::{self, Statistics};
use musc::backend::cuda::launch::{
    GRAM_STRIDE, Half, Keys, Matrix, PairBlock, Side, attention, gram_pool, interval_mean,
    patch_distance, patch_embed,
};
use musc::backend::cuda::{Buffer, Card, Stream, View, ViewMut};
use musc::image::Normalisation;
use musc::model::Activation;
use musc::{Error, Grid, Result};

const HALF: Half = Half::F16;

/// A launch with its memory: inputs filled, ready to run any number of times.
pub struct Probe {
    op: Op,
    /// The stream it runs on.
    pub stream: Stream,
    pixels: Buffer<u8>,
    a: Buffer<u16>,
    b: Buffer<u16>,
    half_out: Buffer<u16>,
    /// Bias, scale, row sums, norms: positive numbers of about 1.
    vector: Buffer<f32>,
    matrix: Buffer<f32>,
    keys: Buffer<u32>,
    /// Of the images that `interval_mean` scores.
    ranks: Buffer<u32>,
}

/// Values of each buffer.
#[derive(Default)]
struct Lengths {
    pixels: usize,
    a: usize,
    b: usize,
    half_out: usize,
    vector: usize,
    matrix: usize,
    keys: usize,
}

fn lengths(op: &Op) -> Lengths {
    let none = Lengths::default();
    match op {
        Op::PatchRows { images, grid, patch } => Lengths {
            pixels: images * (grid * patch).pow(2) * 3,
            half_out: images * grid * grid * patch_embed::row_width(*patch),
            ..none
        },
        Op::ClassRows { images, grid, width } => {
            Lengths { vector: *width, matrix: images * (grid * grid + 1) * width, ..none }
        }
        Op::Gemm { epilogue, m, n, k } => {
            let (half_out, matrix) = match epilogue {
                Epilogue::Residual => (0, m * n),
                Epilogue::Embed(patches) => (0, m / patches * (patches + 1) * n),
                _ => (m * n, 0),
            };
            let vector =
                if let Epilogue::Embed(patches) = epilogue { (1 + patches) * n } else { *n };
            Lengths { a: m * k, b: n * k, half_out, vector, matrix, ..none }
        }
        Op::LayerNorm { norm, rows, width } => {
            let read = match *rows {
                Rows::All(rows) => rows,
                Rows::Patches { images, patches } | Rows::Class { images, patches } => {
                    images * (patches + 1)
                }
            };
            let half_out = if *norm == Norm::Stream { 0 } else { count(*rows) * width };
            Lengths { half_out, vector: *width, matrix: read * width, ..none }
        }
        Op::Attention { images, tokens, heads } => {
            let values = images * tokens * heads * attention::HEAD;
            Lengths { a: 3 * values, half_out: values, ..none }
        }
        Op::Sums { images, grid, width, degrees }
        | Op::Mean { images, grid, width, degrees }
        | Op::Norms { images, grid, width, degrees } => Lengths {
            a: images * grid * grid * width,
            matrix: images * (grid * grid * (1 + degrees.len()) + 1),
            ..none
        },
        Op::Gram { block, patches, width } => {
            let last = (block.first_a + block.images_a).max(block.first_b + block.images_b);
            Lengths {
                a: block.images_a * patches * width,
                b: block.images_b * patches * width,
                vector: last * patches,
                matrix: block.images_a * patches * GRAM_STRIDE,
                keys: last * last * patches,
                ..none
            }
        }
        Op::Pool { block, grid, degrees } => {
            let last = (block.first_a + block.images_a).max(block.first_b + block.images_b);
            let (patches, degrees) = (grid * grid, degrees.len());
            Lengths {
                vector: degrees * last * patches,
                matrix: block.images_a * patches * GRAM_STRIDE,
                keys: degrees * last * last * patches,
                ..none
            }
        }
        Op::PatchDistance { block, patches, width } => {
            let last = (block.first_a + block.images_a).max(block.first_b + block.images_b);
            Lengths {
                a: block.images_a * patches * width,
                b: block.images_b * patches * width,
                vector: last * patches,
                keys: last * last * patches,
                ..none
            }
        }
        Op::IntervalMean { images, patches, scored, .. } => {
            Lengths { matrix: scored * patches, keys: scored * images * patches, ..none }
        }
    }
}

/// Seeded numbers: the high bits of a multiplicative generator.
struct Seeded(u64);

impl Seeded {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (self.0 >> 33) as u32
    }
    /// In [-1, 1).
    fn number(&mut self) -> f32 {
        (self.next() >> 7) as f32 / (1 << 23) as f32 - 1.0
    }
}

impl Probe {
    /// Takes memory and fills it.
    ///
    /// # Errors
    /// No memory, or the driver's.
    pub fn new(card: &Arc<Card>, op: Op) -> Result<Self> {
        let stream = card.stream()?;
        let sizes = lengths(&op);
        let mut seeded = Seeded(7);
        let mut halves = |length: usize| -> Result<Buffer<u16>> {
            let values: Vec<u16> = (0..length).map(|_| HALF.bits(seeded.number())).collect();
            stream.upload_new(&values, "operands")
        };
        let (a, b) = (halves(sizes.a)?, halves(sizes.b)?);
        let half_out = halves(sizes.half_out)?;
        let mut seeded = Seeded(11);
        let values: Vec<f32> = (0..sizes.vector).map(|_| 1.0 + seeded.number() / 4.0).collect();
        let vector = stream.upload_new(&values, "vectors")?;
        let values: Vec<f32> = (0..sizes.matrix).map(|_| seeded.number()).collect();
        let matrix = stream.upload_new(&values, "a matrix")?;
        let values: Vec<u8> = (0..sizes.pixels).map(|_| (seeded.next() & 255) as u8).collect();
        let pixels = stream.upload_new(&values, "pixels")?;
        // Cosines for interval_mean; nothing written yet for those that fill the table.
        let cosines = matches!(op, Op::IntervalMean { .. });
        let key = |value: f32| {
            let bits = value.to_bits();
            if bits >> 31 == 1 { !bits } else { bits | 1 << 31 }
        };
        let values: Vec<u32> =
            (0..sizes.keys).map(|_| if cosines { key(seeded.number()) } else { 0 }).collect();
        let keys = stream.upload_new(&values, "keys")?;
        let ranks = match op {
            Op::IntervalMean { scored, ranks, .. } => {
                [ranks.0 as u32, ranks.1 as u32].repeat(scored)
            }
            _ => Vec::new(),
        };
        let ranks = stream.upload_new(&ranks, "ranks")?;
        Ok(Probe { op, stream, pixels, a, b, half_out, vector, matrix, keys, ranks })
    }

    /// Gives the launch to the stream. The three of `lnamd` come together.
    ///
    /// # Errors
    /// The launcher's.
    pub fn launch(&mut self) -> Result<()> {
        let stream = &self.stream;
        let (vector, no_norm) = (self.vector.view(), self.vector.view());
        match self.op.clone() {
            Op::PatchRows { images, grid, patch } => {
                let sizes = (images, Grid::square(grid), patch);
                let out = self.half_out.view_mut();
                patch_embed::rows(
                    stream,
                    HALF,
                    self.pixels.view(),
                    &Normalisation::CLIP,
                    sizes,
                    out,
                )
            }
            Op::ClassRows { images, grid, width } => {
                let sizes = (images, Grid::square(grid), width);
                patch_embed::class(stream, vector, sizes, self.matrix.view_mut())
            }
            Op::Gemm { epilogue, m, n, k } => {
                let operands = Operands {
                    half: HALF,
                    a: Matrix { values: self.a.view(), rows: m, stride: k },
                    b: Matrix { values: self.b.view(), rows: n, stride: k },
                    k,
                };
                let activation = match epilogue {
                    Epilogue::Gelu => Some(Activation::Gelu),
                    Epilogue::QuickGelu => Some(Activation::QuickGelu),
                    _ => None,
                };
                match epilogue {
                    Epilogue::Residual => {
                        gemm::bias_residual(stream, &operands, vector, None, self.matrix.view_mut())
                    }
                    Epilogue::Embed(patches) => {
                        gemm::embed(stream, &operands, vector, patches, self.matrix.view_mut())
                    }
                    _ => {
                        gemm::bias(stream, &operands, vector, activation, self.half_out.view_mut())
                    }
                }
            }
            Op::LayerNorm { norm, rows, width } => {
                let scale = layer_norm::Norm { gamma: vector, beta: no_norm, eps: 1e-5 };
                let out = self.half_out.view_mut();
                match (norm, rows) {
                    (Norm::Stream, Rows::All(rows)) => {
                        let values = self.matrix.view_mut();
                        layer_norm::stream_in_place(stream, rows, width, scale, values)
                    }
                    (Norm::Stream, rows) => {
                        let out = stream.card().alloc(count(rows) * width, "normalised rows")?;
                        let mut out = out;
                        let input = self.matrix.view();
                        layer_norm::stream(stream, input, rows, width, scale, out.view_mut())?;
                        stream.synchronise()
                    }
                    (norm, rows) => {
                        let scale = (norm == Norm::Store).then_some(scale);
                        layer_norm::store(stream, HALF, self.matrix.view(), rows, width, scale, out)
                    }
                }
            }
            Op::Attention { images, tokens, heads } => {
                let out = self.half_out.view_mut();
                attention::flash(stream, HALF, self.a.view(), out, images, tokens, heads)
            }
            Op::Sums { images, grid, width, degrees }
            | Op::Mean { images, grid, width, degrees }
            | Op::Norms { images, grid, width, degrees } => {
                let (row_sum, rest) = self.matrix.view_mut().split(images * grid * grid)?;
                let (mean, inv_norm) = rest.split(images)?;
                let out = Statistics { row_sum, mean, inv_norm, norm_images: images };
                let tokens = self.a.view();
                let sizes = (images, Grid::square(grid));
                lnamd::statistics(stream, HALF, tokens, sizes, (width, width), &degrees, &out)
            }
            Op::Gram { block, patches, width } => {
                let matrix = |values, images: usize| Matrix {
                    values,
                    rows: images * patches,
                    stride: width,
                };
                let operands = Operands {
                    half: HALF,
                    a: matrix(self.a.view(), block.images_a),
                    b: matrix(self.b.view(), block.images_b),
                    k: width,
                };
                let out = self.matrix.view_mut();
                let side = side(vector, &block);
                let images = (block.first_a + block.images_a).max(block.first_b + block.images_b);
                let mut keys =
                    Keys { keys: self.keys.view_mut(), images, first_kept: 0, kept: images };
                let (sizes, sides) = ((patches, width), (&side, &side));
                gemm::gram_max(stream, &operands, block, sizes, sides, out, &mut keys)
            }
            Op::Pool { block, grid, degrees } => {
                let gram = self.matrix.view();
                pool(stream, gram, vector, self.keys.view_mut(), block, grid, &degrees)
            }
            Op::PatchDistance { block, patches, width } => {
                let images = (block.first_a + block.images_a).max(block.first_b + block.images_b);
                let mut keys =
                    Keys { keys: self.keys.view_mut(), images, first_kept: 0, kept: images };
                let side = side(vector, &block);
                let tokens = (self.a.view(), self.b.view());
                let sizes = (patches, width, width);
                let sides = (&side, &side);
                patch_distance::max(stream, HALF, tokens, sides, block, sizes, &mut keys)
            }
            Op::IntervalMean { images, patches, scored, .. } => {
                let scores = self.matrix.view_mut();
                let keys = self.keys.view();
                let sizes = (images, patches);
                interval_mean::keys(stream, keys, scores, sizes, scored, self.ranks.view())
            }
        }
    }

    /// Pools what a Gram product has made, on its stream.
    ///
    /// # Errors
    /// The launcher's.
    pub fn pool_of(&mut self, product: &Probe) -> Result<()> {
        let Op::Pool { block, grid, degrees } = self.op.clone() else { return self.launch() };
        let (gram, vector) = (product.matrix.view(), self.vector.view());
        pool(&product.stream, gram, vector, self.keys.view_mut(), block, grid, &degrees)
    }
}

fn pool(
    stream: &Stream,
    gram: View<'_, f32>,
    vector: View<'_, f32>,
    keys: ViewMut<'_, u32>,
    block: PairBlock,
    grid: usize,
    degrees: &[usize],
) -> Result<()> {
    let images = (block.first_a + block.images_a).max(block.first_b + block.images_b);
    let mut keys = Keys { keys, images, first_kept: 0, kept: images };
    let side = side(vector, &block);
    gram_pool::pool(stream, gram, (&side, &side), block, Grid::square(grid), degrees, &mut keys)
}

/// One set of images whose row sums, means and norms are the same numbers.
fn side<'a>(vector: View<'a, f32>, block: &PairBlock) -> Side<'a> {
    let images = (block.first_a + block.images_a).max(block.first_b + block.images_b);
    Side { row_sum: vector, mean: vector, inv_norm: vector, images }
}

/// The simulator with a memory of what launches cost: each kind of launch runs once.
pub struct Counter {
    card: Arc<Card>,
    told: Arc<Mutex<Vec<(String, Counts)>>>,
    known: HashMap<String, Counts>,
}

impl Counter {
    /// A simulated card that is given the PTX of this target.
    pub fn new(target: u32) -> Self {
        let sim = Sim::new(SimOptions { compute_capability: target, ..SimOptions::default() });
        let told = Arc::new(Mutex::new(Vec::new()));
        let list = Arc::clone(&told);
        sim.observe(Box::new(move |entry, _, _, counters| {
            let counts = Counts::new(counters, 1.0);
            list.lock().unwrap_or_else(PoisonError::into_inner).push((entry.to_string(), counts));
        }));
        Counter { card: Card::with_driver(Arc::new(sim), None), told, known: HashMap::new() }
    }

    /// The simulated card.
    #[cfg(test)]
    pub fn card(&self) -> &Arc<Card> {
        &self.card
    }

    /// The counts of a launch: those of its sample, brought to its grid.
    ///
    /// # Errors
    /// Whatever the simulator finds wrong with the kernel.
    pub fn counts(&mut self, op: &Op) -> Result<Counts> {
        let sample = op.sample();
        let name = format!("{sample:?}");
        if let Some(counts) = self.known.get(&name) {
            return Ok(counts.times(op.scale()));
        }
        let entry = op.entry();
        let mut probe = Probe::new(&self.card, sample)?;
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clear();
        probe.launch()?;
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = told.iter().find(|(name, _)| *name == entry).map(|(_, counts)| counts.clone());
        let counts = counts.ok_or_else(|| Error::Kernel {
            kernel: entry.clone(),
            reason: "was not launched by its launcher".into(),
        })?;
        self.known.insert(name, counts.clone());
        Ok(counts.times(op.scale()))
    }
}
