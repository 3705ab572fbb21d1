//! The keys of several cards into one table, in pieces through page-locked memory.
//!
//! A group's table is gigabytes (`docs/memory.md`), and pageable memory of its size, twice, is what a machine may not
//! have. Two pieces are under way: while the host takes the largest of one, the next is copied.

use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;

use super::buffer::{Buffer, Pinned};
use super::card::Card;
use super::staging::SLOT_BYTES;
use super::stream::{Event, Stream};
use crate::Result;

/// Keys that a thread takes at a time.
const RUN: usize = 1 << 16;

/// A card's table and the stream that works on it.
pub(super) type Table<'a> = (&'a Stream, &'a Buffer<u32>);

/// Page-locked memory for the pieces that are under way; none of it for one card.
pub(super) struct Merge {
    turns: Vec<Turn>,
}

/// A piece of the first card's table, and the same of another's.
struct Turn {
    table: Pinned<u32>,
    other: Pinned<u32>,
    /// The copy from each card is done.
    copied: Vec<Event>,
}

impl Merge {
    /// For the cards of a run.
    ///
    /// # Errors
    /// No page-locked memory, or the driver's.
    pub fn new(cards: &[Arc<Card>]) -> Result<Self> {
        Self::in_pieces(cards, SLOT_BYTES / size_of::<u32>())
    }

    /// With so many keys a piece.
    fn in_pieces(cards: &[Arc<Card>], piece: usize) -> Result<Self> {
        let turns = if cards.len() < 2 { 0 } else { 2 };
        let turn = |_| {
            Ok(Turn {
                table: cards[0].alloc_pinned(piece)?,
                other: cards[0].alloc_pinned(piece)?,
                copied: cards.iter().map(Card::event).collect::<Result<_>>()?,
            })
        };
        Ok(Merge { turns: (0..turns).map(turn).collect::<Result<_>>()? })
    }

    /// Every one of the first `used` keys was written by one card, and is 0 on the others: the largest of each is the table,
    /// on the first card. The tables are of the cards this was made for, in their order.
    ///
    /// # Errors
    /// The driver's.
    pub fn keys(
        &mut self,
        (stream, table): (&Stream, &mut Buffer<u32>),
        others: &[Table<'_>],
        used: usize,
    ) -> Result<()> {
        for (at, other) in others.iter().enumerate() {
            let merged = self.keys_of((stream, table), *other, 1 + at, used);
            // Whatever happened, nothing is copied any more when the memory is used again.
            let waited = stream.synchronise().and(other.0.synchronise());
            merged.and(waited)?;
        }
        Ok(())
    }

    /// The keys of one other card, the `at`-th.
    fn keys_of(
        &mut self,
        (stream, table): (&Stream, &mut Buffer<u32>),
        other: Table<'_>,
        at: usize,
        used: usize,
    ) -> Result<()> {
        let [first, second] = self.turns.as_mut_slice() else { return Ok(()) };
        let keys = first.table.len();
        let piece = |number: usize| number * keys..used.min((number + 1) * keys);
        let pieces = used.div_ceil(keys);
        let (mut next, mut before) = (first, second);
        for number in 0..=pieces {
            if number < pieces {
                next.fetch((stream, table), other, at, piece(number))?;
            }
            if number > 0 {
                before.put((stream, table), at, piece(number - 1))?;
            }
            std::mem::swap(&mut next, &mut before);
        }
        Ok(())
    }
}

impl Turn {
    /// Begins the copies of a piece to the host.
    fn fetch(
        &mut self,
        (stream, table): Table<'_>,
        (other_stream, other): Table<'_>,
        at: usize,
        piece: Range<usize>,
    ) -> Result<()> {
        let (to_table, to_other) = (&mut self.table[..piece.len()], &mut self.other[..piece.len()]);
        // SAFETY: both live until `keys` has waited for both streams. The table's slot was last read by an upload before on
        // the same stream, the other's by the host, in `put`; each is read again behind its event.
        unsafe {
            stream.download_async(table.view().part(piece.clone())?, to_table)?;
            other_stream.download_async(other.view().part(piece)?, to_other)?;
        }
        stream.record(&self.copied[0])?;
        other_stream.record(&self.copied[at])
    }

    /// Takes the largest of each key of a piece, and begins the copy back.
    fn put(
        &mut self,
        (stream, table): (&Stream, &mut Buffer<u32>),
        at: usize,
        piece: Range<usize>,
    ) -> Result<()> {
        self.copied[0].synchronise()?;
        self.copied[at].synchronise()?;
        let (largest, other) = (&mut self.table[..piece.len()], &self.other[..piece.len()]);
        largest.par_chunks_mut(RUN).zip(other.par_chunks(RUN)).for_each(|(largest, other)| {
            for (largest, &key) in largest.iter_mut().zip(other) {
                *largest = (*largest).max(key);
            }
        });
        // SAFETY: the slot is written again by a copy behind this one on the same stream, and lives until `keys` has waited.
        unsafe { stream.upload_async(table.view_mut().part(piece)?, largest) }
    }
}

#[cfg(all(test, feature = "sim"))]
mod tests {
    use super::*;
    use crate::backend::cuda::driver::sim::{Sim, SimOptions};

    /// Two and three cards, their streams early and late, tables of no piece, a part of one, and several.
    #[test]
    fn largest_keys_of_all_cards_in_pieces() {
        for (count, late) in [(2, 0), (2, u64::MAX), (3, 0), (3, u64::MAX)] {
            let cards: Vec<_> = (0..count)
                .map(|at| {
                    let label = format!("sim:{at}");
                    let options = SimOptions { label, late_streams: late, ..SimOptions::default() };
                    Card::with_driver(Arc::new(Sim::new(options)), None)
                })
                .collect();
            let mut merge = Merge::in_pieces(&cards, 5).unwrap();
            for used in [0, 1, 4, 5, 6, 10, 23] {
                // Each key is one card's; what lies behind is nobody's business.
                let key = |card: usize, at: usize| {
                    if at >= used || at * 7 % count == card { 100 * (card + 1) + at } else { 0 }
                };
                let streams: Vec<_> = cards.iter().map(|card| card.stream().unwrap()).collect();
                let mut tables: Vec<_> = streams
                    .iter()
                    .enumerate()
                    .map(|(card, stream)| {
                        let keys: Vec<u32> = (0..used + 3).map(|at| key(card, at) as u32).collect();
                        stream.upload_new(&keys, "keys").unwrap()
                    })
                    .collect();
                let (first, rest) = tables.split_at_mut(1);
                let others: Vec<Table<'_>> = streams[1..].iter().zip(&*rest).collect();
                merge.keys((&streams[0], &mut first[0]), &others, used).unwrap();
                let found = streams[0].download_new(first[0].view()).unwrap();
                let owner = |at: usize| if at < used { at * 7 % count } else { 0 };
                let expected: Vec<u32> =
                    (0..used + 3).map(|at| key(owner(at), at) as u32).collect();
                assert_eq!(found, expected, "{count} cards, {used} keys, late {late:x}");
            }
        }
    }
}
