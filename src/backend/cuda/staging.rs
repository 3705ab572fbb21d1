//! Host data to the card through page-locked memory: the host fills one slot while the other is copied.

use std::sync::Arc;

use bytemuck::Pod;

use super::buffer::{Pinned, ViewMut};
use super::card::Card;
use super::stream::{Event, Stream};
use crate::Result;

/// Bytes of a slot: large enough for full speed over PCIe (a copy of this size takes 0.3 ms at 25 GB/s), small beside
/// everything else.
pub const SLOT_BYTES: usize = 8 << 20;

/// Two slots of page-locked memory and the stream that copies from them.
pub struct Staging {
    stream: Stream,
    slots: [Slot; 2],
    next: usize,
}

impl std::fmt::Debug for Staging {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Staging").field("slots", &self.slots.len()).finish_non_exhaustive()
    }
}

struct Slot {
    memory: Pinned<u8>,
    /// The copy out of it is done.
    copied: Event,
}

impl Staging {
    /// Slots for a card, with a stream of their own.
    ///
    /// # Errors
    /// The driver's.
    pub fn new(card: &Arc<Card>) -> Result<Self> {
        let slot = || Ok(Slot { memory: card.alloc_pinned(SLOT_BYTES)?, copied: card.event()? });
        Ok(Staging { stream: card.stream()?, slots: [slot()?, slot()?], next: 0 })
    }

    /// The stream that copies: others wait for an event recorded on it.
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Fills `to` in pieces: `fill(first, part)` writes the values from index `first` on. What `fill` wrote is copied
    /// without waiting for it; when this returns, the last pieces may still be under way on [`stream`](Self::stream).
    ///
    /// # Errors
    /// The driver's.
    pub fn send<T: Pod>(
        &mut self,
        to: ViewMut<'_, T>,
        mut fill: impl FnMut(usize, &mut [T]),
    ) -> Result<()> {
        const { assert!(size_of::<T>() != 0 && size_of::<T>() <= SLOT_BYTES) };
        let values = SLOT_BYTES / size_of::<T>();
        let total = to.len();
        let mut to = Some(to);
        for first in (0..total).step_by(values) {
            let last = total.min(first.saturating_add(values));
            let slot = &mut self.slots[self.next];
            self.next = 1 - self.next;
            slot.copied.synchronise()?;
            let bytes = &mut slot.memory[..(last - first) * size_of::<T>()];
            // Page-locked memory is aligned to a page, and the length is a multiple, so the cast cannot fail.
            let part: &mut [T] = bytemuck::cast_slice_mut(bytes);
            fill(first, part);
            let Some(whole) = to.take() else { break };
            let (head, tail) = whole.split(last - first)?;
            to = Some(tail);
            // SAFETY: the slot is not touched again before its event, recorded next, has passed; nor is it freed.
            unsafe { self.stream.upload_async(head, part)? };
            self.stream.record(&slot.copied)?;
        }
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // The slots are freed next. An error of the copies shows again at the next synchronisation.
        let _ = self.stream.synchronise();
    }
}
