//! Who computes what: blocks travel round the ring of processes, from each to the one before it.
//!
//! In step s process r has block r + s. Where everybody's table fits at once, half a round is enough: each pair of blocks is
//! computed by one of the two, that of processes opposite each other in two halves, and the other's numbers are sent to it.
//! Otherwise each computes its group of queries against all blocks, a whole round a group.

use std::ops::Range;

/// The ring, as one process sees it.
#[derive(Debug, Clone, Copy)]
pub struct Ring {
    pub rank: usize,
    pub ranks: usize,
}

impl Ring {
    /// The process, and the block, `steps` ahead.
    pub fn ahead(self, steps: usize) -> usize {
        (self.rank + steps) % self.ranks
    }

    /// The process `steps` behind.
    pub fn behind(self, steps: usize) -> usize {
        (self.rank + self.ranks - steps % self.ranks) % self.ranks
    }

    /// Steps of half a round.
    pub fn half(self) -> usize {
        self.ranks / 2
    }

    /// Which of its own images, and which of those of the block `step` ahead, a process compares in half a round, `images`
    /// being those of the blocks.
    pub fn share(self, step: usize, images: &[usize]) -> (Range<usize>, Range<usize>) {
        let other = self.ahead(step);
        let (own, theirs) = (images[self.rank], images[other]);
        // Of two opposite each other each has the pair; the first computes the first half of the second's images.
        match 2 * step == self.ranks {
            true if self.rank < other => (0..own, 0..theirs / 2),
            true => (own / 2..own, 0..theirs),
            false => (0..own, 0..theirs),
        }
    }
}

/// Images in as many runs as there are processes, the first ones longer by one where it does not come out even.
pub fn deal(images: usize, ranks: usize, rank: usize) -> Range<usize> {
    let (each, more) = (images / ranks, images % ranks);
    let start = rank * each + rank.min(more);
    start..start + each + usize::from(rank < more)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_round_has_every_pair_across_blocks_once() {
        for ranks in 1..=9 {
            for sizes in [vec![1; ranks], (0..ranks).map(|rank| 1 + rank * 5 % 7).collect()] {
                let start = |rank: usize| sizes[..rank].iter().sum::<usize>();
                let all = start(ranks);
                let mut times = vec![0; all * all];
                for rank in 0..ranks {
                    let ring = Ring { rank, ranks };
                    for step in 1..=ring.half() {
                        let (own, theirs) = ring.share(step, &sizes);
                        for i in own {
                            for j in theirs.clone() {
                                let (i, j) = (start(rank) + i, start(ring.ahead(step)) + j);
                                times[i.min(j) * all + i.max(j)] += 1;
                            }
                        }
                    }
                }
                let block = |image: usize| (0..ranks).rposition(|rank| start(rank) <= image);
                for i in 0..all {
                    for j in i + 1..all {
                        let expected = usize::from(block(i) != block(j));
                        assert_eq!(times[i * all + j], expected, "{sizes:?} {i} {j}");
                    }
                }
            }
        }
    }

    #[test]
    fn work_is_even_where_blocks_are() {
        for ranks in 2..=8 {
            let sizes = vec![10; ranks];
            let pairs = |rank: usize| -> usize {
                let ring = Ring { rank, ranks };
                let of = |step| {
                    let (own, theirs) = ring.share(step, &sizes);
                    own.len() * theirs.len()
                };
                (1..=ring.half()).map(of).sum()
            };
            assert!((0..ranks).all(|rank| pairs(rank) == 10 * 10 * (ranks - 1) / 2), "{ranks}");
        }
    }

    #[test]
    fn images_are_dealt_in_runs() {
        let runs = |images, ranks| -> Vec<_> {
            (0..ranks).map(|rank| deal(images, ranks, rank)).collect()
        };
        assert_eq!(runs(7, 3), [0..3, 3..5, 5..7]);
        assert_eq!(runs(3, 3), [0..1, 1..2, 2..3]);
        let ring = Ring { rank: 0, ranks: 5 };
        assert_eq!((ring.ahead(7), ring.behind(1), ring.behind(5)), (2, 4, 0));
    }
}
