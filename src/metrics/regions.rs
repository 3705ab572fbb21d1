//! Connected regions of a mask, 8 neighbours.

/// The regions of one mask.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Regions {
    /// The mask's defective pixels (row-major index), grouped by region.
    pub pixels: Vec<u32>,
    /// Where each region ends in `pixels`.
    pub ends: Vec<usize>,
}

impl Regions {
    /// The pixels of each region.
    pub fn iter(&self) -> impl Iterator<Item = &[u32]> {
        self.ends.iter().scan(0, |from, &end| {
            let region = &self.pixels[*from..end];
            *from = end;
            Some(region)
        })
    }
}

/// Finds the regions of a mask of rows of `width` pixels: pixels other than 0 that touch by a side or a corner. Regions come
/// in the order of their first pixel.
pub(crate) fn regions(mask: &[u8], width: usize) -> Regions {
    // Runs of defective pixels in a row are nodes of a union-find forest; the root is a region's first run.
    let mut runs: Vec<Run> = Vec::new();
    let mut above = 0..0;
    for (y, row) in mask.chunks_exact(width.max(1)).enumerate() {
        let row_start = runs.len();
        let mut touching = above.start;
        let mut x = 0;
        while x < width {
            if row[x] == 0 {
                x += 1;
                continue;
            }
            let from = x;
            while x < width && row[x] != 0 {
                x += 1;
            }
            let this = runs.len();
            runs.push(Run {
                start: (y * width + from) as u32,
                len: (x - from) as u32,
                parent: this,
            });
            // Runs of the row above that end before this one's left neighbour cannot touch any later run either.
            while touching < above.end && runs[touching].end_in_row(width) < from {
                touching += 1;
            }
            let mut other = touching;
            while other < above.end && runs[other].start_in_row(width) <= x {
                join(&mut runs, other, this);
                other += 1;
            }
        }
        above = row_start..runs.len();
    }
    group(&mut runs)
}

struct Run {
    /// Row-major index of the first pixel.
    start: u32,
    len: u32,
    parent: usize,
}

impl Run {
    fn start_in_row(&self, width: usize) -> usize {
        self.start as usize % width
    }
    /// One past the last column.
    fn end_in_row(&self, width: usize) -> usize {
        self.start_in_row(width) + self.len as usize
    }
}

fn root(runs: &mut [Run], mut node: usize) -> usize {
    while runs[node].parent != node {
        runs[node].parent = runs[runs[node].parent].parent;
        node = runs[node].parent;
    }
    node
}

fn join(runs: &mut [Run], a: usize, b: usize) {
    let (a, b) = (root(runs, a), root(runs, b));
    runs[a.max(b)].parent = a.min(b);
}

/// A counting sort of the runs by region.
fn group(runs: &mut [Run]) -> Regions {
    let mut number = vec![0usize; runs.len()];
    let mut sizes: Vec<usize> = Vec::new();
    for run in 0..runs.len() {
        // A root comes before the other runs of its region, so its number is known by then.
        let root = root(runs, run);
        if root == run {
            number[run] = sizes.len();
            sizes.push(0);
        }
        number[run] = number[root];
        sizes[number[run]] += runs[run].len as usize;
    }
    let mut ends: Vec<usize> = Vec::with_capacity(sizes.len());
    let mut total = 0;
    for size in &sizes {
        ends.push(total);
        total += size;
    }
    let mut pixels = vec![0u32; total];
    for (run, &region) in runs.iter().zip(&number) {
        for pixel in run.start..run.start + run.len {
            pixels[ends[region]] = pixel;
            ends[region] += 1;
        }
    }
    Regions { pixels, ends }
}
