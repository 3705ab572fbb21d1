//! In which order pairs of images are computed: cut in groups, blocks and pieces, and dealt out in turns.
//!
//! Queries are rows, references columns. Images of one set that are scored against each other are both, and each pair
//! i < j is computed once for the two. Knows nothing of devices: each walks the [`Chunk`]s and does what it does to them.
//!
//! | cut | what it bounds | its price |
//! |---|---|---|
//! | group | queries with a row of minima at a time | pairs across groups of one set are computed twice |
//! | block | images whose tokens are in memory at a time | tokens of columns are loaded once a block of rows |
//! | piece | images of a chunk, the unit of work | |

use std::ops::Range;

/// The order of all pairs of images, and how it is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    queries: usize,
    references: usize,
    symmetric: bool,
    /// Of one set, where its images are of two kinds: only pairs of an image before this one with another are computed.
    split: Option<usize>,
    group: usize,
    blocks: (usize, usize),
    pieces: (usize, usize),
}

/// A run of queries against a run of references: a unit of work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// The queries.
    pub rows: Range<usize>,
    /// The references.
    pub columns: Range<usize>,
    /// The block of queries that holds the rows.
    pub block_a: usize,
    /// The block of references that holds the columns; of one set, a block of the same numbering.
    pub block_b: usize,
    /// One set against itself: only its pairs row < column are computed, each for both images.
    pub symmetric: bool,
}

impl Schedule {
    /// The images of one set against each other, whole: one group, one block, one piece.
    pub fn others(images: usize) -> Self {
        Schedule { symmetric: true, ..Self::set(images, images) }
    }

    /// Queries against references of another set, whole.
    pub fn set(queries: usize, references: usize) -> Self {
        let whole = (queries.max(1), references.max(1));
        Schedule {
            queries,
            references,
            symmetric: false,
            split: None,
            group: whole.0,
            blocks: whole,
            pieces: whole,
        }
    }

    /// With so many queries to a group, at least one.
    pub fn in_groups(mut self, queries: usize) -> Self {
        self.group = queries.max(1);
        self
    }

    /// With so many queries and references to a block, at least one; of one set both are the same number.
    pub fn in_blocks(mut self, queries: usize, references: usize) -> Self {
        self.blocks = (queries.max(1), if self.symmetric { queries } else { references }.max(1));
        self
    }

    /// With at most so many queries and references to a chunk, at least one.
    pub fn in_pieces(mut self, queries: usize, references: usize) -> Self {
        self.pieces = (queries.max(1), references.max(1));
        self
    }

    /// Of one set only the pairs of an image before `split` with one from there on.
    #[cfg(any(feature = "cuda", test))]
    pub(crate) fn across(mut self, split: usize) -> Self {
        self.split = self.symmetric.then_some(split.min(self.queries));
        self
    }

    /// Whether a set is scored against itself.
    pub fn symmetric(&self) -> bool {
        self.symmetric
    }

    /// The groups of queries, in order.
    pub fn groups(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        pieces(0..self.queries, self.group)
    }

    /// The queries of a block.
    pub fn rows_of_block(&self, block: usize) -> Range<usize> {
        of_block(block, self.blocks.0, self.queries)
    }

    /// The references of a block.
    pub fn columns_of_block(&self, block: usize) -> Range<usize> {
        of_block(block, self.blocks.1, self.references)
    }

    /// The chunks with a query of the group in them, as worker `turn` of `turns` gets them: dealt out by pairs of blocks
    /// where there are several, else by chunks. Each pair of blocks comes once, all its chunks together, the blocks of
    /// columns in rising order for a block of rows. Of one set the group's images come against all from the first of
    /// them on, then those before it against the group.
    pub fn chunks(
        &self,
        group: Range<usize>,
        (turn, turns): (usize, usize),
    ) -> impl Iterator<Item = Chunk> + use<> {
        let schedule = *self;
        let several = self.blocks.0 < self.queries || self.blocks.1 < self.references;
        let mine = move |part: usize| part % turns.max(1) == turn;
        let rectangles = if let Some(split) = self.split {
            let after = group.start.max(split)..group.end.max(split);
            [
                (group.start.min(split)..group.end.min(split), split..self.references),
                (0..group.start.min(split), after),
            ]
        } else if self.symmetric {
            [(group.clone(), group.start..self.references), (0..group.start, group)]
        } else {
            [(group, 0..self.references), (0..0, 0..0)]
        };
        rectangles
            .into_iter()
            .flat_map(move |(rows, columns)| schedule.pairs_of_blocks(rows, columns))
            .enumerate()
            .filter(move |(part, _)| !several || mine(*part))
            .flat_map(move |(_, pair)| schedule.pieces_of(pair))
            .enumerate()
            .filter(move |(part, _)| several || mine(*part))
            .map(|(_, chunk)| chunk)
    }

    /// Pairs of images that are computed, all groups together.
    pub fn pairs(&self) -> u64 {
        let pairs = |group: Range<usize>| {
            let size = group.len() as u64;
            if self.split.is_some() {
                self.chunks(group, (0, 1)).map(|chunk| chunk.count()).sum()
            } else if self.symmetric {
                size * size.saturating_sub(1) / 2 + size * (self.queries as u64 - size)
            } else {
                size * self.references as u64
            }
        };
        self.groups().map(pairs).sum()
    }

    /// A rectangle cut at the borders of blocks, without the parts that hold no pair.
    fn pairs_of_blocks(
        self,
        rows: Range<usize>,
        columns: Range<usize>,
    ) -> impl Iterator<Item = Chunk> {
        let first_column =
            move |rows: &Range<usize>| if self.symmetric { rows.start + 1 } else { 0 };
        overlapping(&rows, self.blocks.0).flat_map(move |block_a| {
            let rows = overlap(&self.rows_of_block(block_a), &rows);
            let columns = columns.clone();
            overlapping(&columns, self.blocks.1).filter_map(move |block_b| {
                let columns = overlap(&self.columns_of_block(block_b), &columns);
                let columns = columns.start.max(first_column(&rows))..columns.end;
                let rows = rows.clone();
                (!columns.is_empty()).then_some(Chunk {
                    rows,
                    columns,
                    block_a,
                    block_b,
                    symmetric: self.symmetric,
                })
            })
        })
    }

    fn pieces_of(self, pair: Chunk) -> impl Iterator<Item = Chunk> {
        let (row_pieces, column_pieces) = self.pieces;
        pieces(pair.rows.clone(), row_pieces).flat_map(move |rows| {
            let (pair, end) = (pair.clone(), pair.columns.end);
            let before = if self.symmetric { rows.start + 1 } else { 0 };
            pieces(pair.columns.start.max(before)..end, column_pieces).map(move |columns| Chunk {
                rows: rows.clone(),
                columns,
                ..pair.clone()
            })
        })
    }
}

impl Chunk {
    /// Its pairs (query, reference), row by row; of one set those with the lower number first.
    pub fn pairs(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let Chunk { rows, columns, symmetric, .. } = self.clone();
        rows.flat_map(move |row| {
            let first = if symmetric { columns.start.max(row + 1) } else { columns.start };
            (first..columns.end).map(move |column| (row, column))
        })
    }

    /// Number of its pairs.
    pub fn count(&self) -> u64 {
        let of_row = |row: usize| {
            let first = if self.symmetric { row + 1 } else { 0 };
            self.columns.end.saturating_sub(self.columns.start.max(first)) as u64
        };
        self.rows.clone().map(of_row).sum()
    }
}

fn of_block(block: usize, size: usize, all: usize) -> Range<usize> {
    let start = block.saturating_mul(size).min(all);
    start..all.min(start.saturating_add(size))
}

fn overlap(a: &Range<usize>, b: &Range<usize>) -> Range<usize> {
    let start = a.start.max(b.start);
    start..a.end.min(b.end).max(start)
}

/// The blocks of `size` images that hold some of `images`.
fn overlapping(images: &Range<usize>, size: usize) -> Range<usize> {
    if images.is_empty() { 0..0 } else { images.start / size..images.end.div_ceil(size) }
}

/// A range in pieces of `size`.
fn pieces(range: Range<usize>, size: usize) -> impl Iterator<Item = Range<usize>> + use<> {
    let end = range.end;
    range.step_by(size).map(move |start| start..end.min(start.saturating_add(size)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: (usize, usize) = (0, 1);

    /// The chunks of all groups, after checking that each lies in its blocks and pieces and says its number of pairs.
    fn all_chunks(schedule: &Schedule, turn: (usize, usize)) -> Vec<(Range<usize>, Vec<Chunk>)> {
        let groups = schedule.groups().map(|group| {
            let chunks: Vec<_> = schedule.chunks(group.clone(), turn).collect();
            (group, chunks)
        });
        let groups: Vec<_> = groups.collect();
        for chunk in groups.iter().flat_map(|(_, chunks)| chunks) {
            let within = |inner: &Range<usize>, outer: Range<usize>| {
                outer.start <= inner.start && inner.end <= outer.end
            };
            assert!(within(&chunk.rows, schedule.rows_of_block(chunk.block_a)), "{chunk:?}");
            assert!(within(&chunk.columns, schedule.columns_of_block(chunk.block_b)), "{chunk:?}");
            assert!(chunk.rows.len() <= schedule.pieces.0, "{chunk:?}");
            assert!(chunk.columns.len() <= schedule.pieces.1, "{chunk:?}");
            assert_eq!(chunk.pairs().count() as u64, chunk.count(), "{chunk:?}");
            assert!(chunk.count() > 0, "{chunk:?}");
        }
        groups
    }

    /// How often each pair is computed for each group.
    fn met(
        groups: &[(Range<usize>, Vec<Chunk>)],
    ) -> Vec<std::collections::HashMap<(usize, usize), usize>> {
        let count = |chunks: &[Chunk]| {
            let mut met = std::collections::HashMap::new();
            for pair in chunks.iter().flat_map(Chunk::pairs) {
                *met.entry(pair).or_insert(0) += 1;
            }
            met
        };
        groups.iter().map(|(_, chunks)| count(chunks)).collect()
    }

    const SIZES: [usize; 7] = [0, 1, 2, 3, 7, 12, 13];
    const CUTS: [usize; 6] = [0, 1, 2, 3, 5, 100];

    #[test]
    fn each_pair_of_one_set_once_a_group() {
        for images in SIZES {
            for (group, block, rows, columns) in cuts() {
                let schedule = Schedule::others(images)
                    .in_groups(group)
                    .in_blocks(block, block)
                    .in_pieces(rows, columns);
                let groups = all_chunks(&schedule, ALL);
                let mut computed = 0;
                for ((group, _), met) in groups.iter().zip(met(&groups)) {
                    for i in 0..images {
                        for j in 0..images {
                            let wanted = i < j && (group.contains(&i) || group.contains(&j));
                            let times = met.get(&(i, j)).copied().unwrap_or(0);
                            assert_eq!(
                                times,
                                usize::from(wanted),
                                "{schedule:?} {group:?} {i} {j}"
                            );
                        }
                    }
                    computed += met.len() as u64;
                }
                assert_eq!(computed, schedule.pairs(), "{schedule:?}");
                assert_eq!(groups.iter().map(|(group, _)| group.len()).sum::<usize>(), images);
            }
        }
    }

    #[test]
    fn across_a_split_each_pair_once_a_group() {
        for images in SIZES {
            for (group, block, rows, columns) in cuts() {
                for split in [0, 1, images / 2, images] {
                    let schedule = Schedule::others(images)
                        .across(split)
                        .in_groups(group)
                        .in_blocks(block, block)
                        .in_pieces(rows, columns);
                    let groups = all_chunks(&schedule, ALL);
                    let mut computed = 0;
                    for ((group, chunks), met) in groups.iter().zip(met(&groups)) {
                        let of_group = |(i, j): &(usize, usize)| {
                            *i < split && split <= *j && (group.contains(i) || group.contains(j))
                        };
                        assert!(met.keys().all(of_group), "{schedule:?} {group:?}");
                        assert!(met.values().all(|&times| times == 1), "{schedule:?} {chunks:?}");
                        let pairs = (0..images).flat_map(|i| (0..images).map(move |j| (i, j)));
                        assert_eq!(met.len(), pairs.filter(of_group).count(), "{schedule:?}");
                        computed += met.len() as u64;
                    }
                    assert_eq!(computed, schedule.pairs(), "{schedule:?}");
                }
            }
        }
    }

    #[test]
    fn each_pair_of_a_rectangle_once() {
        for (queries, references) in SIZES.into_iter().flat_map(|q| SIZES.map(|r| (q, r))) {
            for (group, block, rows, columns) in cuts() {
                let schedule = Schedule::set(queries, references)
                    .in_groups(group)
                    .in_blocks(block, rows)
                    .in_pieces(rows, columns);
                let groups = all_chunks(&schedule, ALL);
                let mut computed = 0;
                for ((group, _), met) in groups.iter().zip(met(&groups)) {
                    assert!(met.values().all(|&times| times == 1), "{schedule:?}");
                    assert!(met.keys().all(|&(i, j)| group.contains(&i) && j < references));
                    assert_eq!(met.len(), group.len() * references, "{schedule:?}");
                    computed += met.len() as u64;
                }
                assert_eq!(computed, (queries * references) as u64, "{schedule:?}");
                assert_eq!(computed, schedule.pairs(), "{schedule:?}");
            }
        }
    }

    fn cuts() -> impl Iterator<Item = (usize, usize, usize, usize)> {
        CUTS.into_iter().flat_map(|group| {
            [
                (1, 1, 1),
                (2, 1, 3),
                (3, 4, 2),
                (4, 2, 2),
                (5, 5, 1),
                (0, 0, 0),
                (100, 3, 100),
                (100, 4, 2),
            ]
            .map(move |(block, rows, columns)| (group, block, rows, columns))
        })
    }

    #[test]
    fn turns_are_a_partition_and_keep_the_order() {
        for symmetric in [true, false] {
            for (group, block) in [(13, 13), (4, 13), (5, 3), (13, 4)] {
                let whole = if symmetric { Schedule::others(13) } else { Schedule::set(13, 11) };
                let schedule = whole.in_groups(group).in_blocks(block, 5).in_pieces(2, 3);
                for turns in [1, 2, 3, 7, 100] {
                    for group in schedule.groups() {
                        let all: Vec<_> = schedule.chunks(group.clone(), ALL).collect();
                        let mut dealt = vec![false; all.len()];
                        for turn in 0..turns {
                            let mut after = 0;
                            for chunk in schedule.chunks(group.clone(), (turn, turns)) {
                                let at = after
                                    + all[after..]
                                        .iter()
                                        .position(|other| *other == chunk)
                                        .unwrap();
                                assert!(
                                    !std::mem::replace(&mut dealt[at], true),
                                    "{chunk:?} twice"
                                );
                                after = at + 1;
                            }
                        }
                        assert!(dealt.iter().all(|&dealt| dealt), "{schedule:?} {turns} turns");
                    }
                }
            }
        }
    }

    /// Where tokens do not fit, a pair of blocks is one worker's, and all its chunks come together: each block of columns
    /// is loaded once a block of rows.
    #[test]
    fn blocks_are_loaded_once_a_row_of_blocks() {
        let schedule = Schedule::others(20).in_groups(9).in_blocks(4, 4).in_pieces(2, 3);
        let loads = |turn| {
            let mut pairs: Vec<(usize, usize)> = schedule
                .groups()
                .next()
                .into_iter()
                .flat_map(|group| schedule.chunks(group, turn))
                .map(|chunk| (chunk.block_a, chunk.block_b))
                .collect();
            pairs.dedup();
            pairs
        };
        let of_row = |a: usize| (a..5).map(move |b| (a, b));
        let expected: Vec<_> = (0..3).flat_map(of_row).collect();
        assert_eq!(loads(ALL), expected);
        let (first, second) = (loads((0, 2)), loads((1, 2)));
        assert_eq!(first, expected.iter().copied().step_by(2).collect::<Vec<_>>());
        assert_eq!(second, expected.iter().copied().skip(1).step_by(2).collect::<Vec<_>>());
    }

    /// The order itself, of the second of two groups: its images against all from its first on, then those before it.
    #[test]
    fn order_of_a_group() {
        let chunks = |schedule: Schedule| -> Vec<_> {
            let group = schedule.groups().nth(1).unwrap_or(0..0);
            schedule.chunks(group, ALL).map(|c| (c.rows, c.columns, c.block_a, c.block_b)).collect()
        };
        let schedule = Schedule::others(7).in_groups(4).in_pieces(2, 2);
        assert_eq!(
            chunks(schedule),
            [
                (4..6, 5..7, 0, 0),
                (0..2, 4..6, 0, 0),
                (0..2, 6..7, 0, 0),
                (2..4, 4..6, 0, 0),
                (2..4, 6..7, 0, 0),
            ]
        );
        assert_eq!(
            chunks(schedule.in_blocks(3, 3)),
            [
                (4..6, 5..6, 1, 1),
                (4..6, 6..7, 1, 2),
                (0..2, 4..6, 0, 1),
                (2..3, 4..6, 0, 1),
                (0..2, 6..7, 0, 2),
                (2..3, 6..7, 0, 2),
                (3..4, 4..6, 1, 1),
                (3..4, 6..7, 1, 2),
            ]
        );
        let schedule = Schedule::set(5, 4).in_groups(3).in_blocks(2, 3).in_pieces(2, 2);
        assert_eq!(
            chunks(schedule),
            [
                (3..4, 0..2, 1, 0),
                (3..4, 2..3, 1, 0),
                (3..4, 3..4, 1, 1),
                (4..5, 0..2, 2, 0),
                (4..5, 2..3, 2, 0),
                (4..5, 3..4, 2, 1),
            ]
        );
    }

    #[test]
    fn pairs_of_a_chunk() {
        let chunk = |rows, columns, symmetric| {
            Chunk { rows, columns, block_a: 0, block_b: 0, symmetric }.count()
        };
        assert_eq!(chunk(0..3, 1..4, true), 6);
        assert_eq!(chunk(0..2, 5..9, true), 8);
        assert_eq!(chunk(4..5, 5..5, true), 0);
        assert_eq!(chunk(0..3, 1..4, false), 9);
    }
}
