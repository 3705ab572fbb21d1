//! Streams: queues whose work runs in the call that needs it, and in no other order than they promise.
//!
//! A piece of work has a position in its stream and needs positions of other streams. Nothing runs on a thread of its
//! own, so a run repeats. What may run early is drawn from the seed (see [`Late`]).

use std::collections::VecDeque;

use crate::code::{self, Code, Fail, fail};
use crate::driver::{Kind, Session};
use crate::options::Late;
use crate::work::{self, Work};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// The stream behind handle 0: waits for the blocking ones, and they for it.
    Null,
    Blocking,
    NonBlocking,
}

#[derive(Debug)]
pub(crate) struct Piece {
    pub position: u64,
    pub work: Work,
    /// Streams and positions in them that come first.
    pub needs: Vec<(u64, u64)>,
    /// The host's time when it was given.
    pub given_at: f64,
}

/// Why work runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// The host waits for it.
    Wait,
    /// It happens to run early. Not with a host function before it, which may wait for the host.
    Early,
    /// The host asked whether it is done: one piece.
    Asked,
}

#[derive(Debug)]
pub(crate) struct Stream {
    pub context: u64,
    pub order: Order,
    pub flags: u32,
    pub priority: i32,
    pub waiting: VecDeque<Piece>,
    /// Pieces given, and run.
    pub given: u64,
    pub done: u64,
    /// A piece of it is running.
    pub busy: bool,
    /// Destroyed, with work left.
    pub closed: bool,
    /// Queries that were answered with "not ready".
    pub asked: u32,
    /// When the last pieces were done, in nanoseconds of the model; the last is that of `done`.
    ends: VecDeque<f64>,
}

/// Pieces of a stream whose end is known.
const KNOWN_ENDS: usize = 4096;

impl Stream {
    pub fn new(context: u64, order: Order, flags: u32, priority: i32) -> Stream {
        Stream {
            context,
            order,
            flags,
            priority,
            waiting: VecDeque::new(),
            given: 0,
            done: 0,
            busy: false,
            closed: false,
            asked: 0,
            ends: VecDeque::new(),
        }
    }

    /// When a piece was done, or one soon after it.
    pub fn end_of(&self, position: u64) -> f64 {
        let back = self.done.saturating_sub(position) as usize;
        let at = self.ends.len().saturating_sub(back + 1);
        self.ends.get(at).copied().unwrap_or(0.0)
    }

    /// When its last piece was done.
    pub fn end(&self) -> f64 {
        self.ends.back().copied().unwrap_or(0.0)
    }

    /// A piece is done.
    pub fn ended(&mut self, end: f64) {
        if self.ends.len() == KNOWN_ENDS {
            self.ends.pop_front();
        }
        self.ends.push_back(end);
    }

    pub fn null(context: u64) -> Stream {
        Stream::new(context, Order::Null, 0, 0)
    }
}

/// A number drawn from others: SplitMix64's finaliser.
pub(crate) fn draw(seed: u64, a: u64, b: u64) -> u64 {
    let mut x =
        seed ^ a.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ b.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

impl Session {
    /// The stream of a handle, for work of the current context.
    ///
    /// # Errors
    /// No such stream; one of a context that has ended or has a fault.
    pub fn stream(&mut self, handle: u64) -> Result<u64, Fail> {
        let own = handle == 0 && crate::driver::own_stream();
        match if own { 2 } else { handle } {
            0 | 1 => {
                let context = self.current()?;
                Ok(self.context(context)?.null)
            }
            2 => {
                let context = self.current()?;
                let thread = std::thread::current().id();
                if let Some(&stream) = self.context(context)?.per_thread.get(&thread) {
                    return Ok(stream);
                }
                let stream = self.handle(Kind::Stream);
                self.streams.insert(stream, Stream::new(context, Order::Blocking, 0, 0));
                if let Some(context) = self.contexts.get_mut(&context) {
                    context.per_thread.insert(thread, stream);
                }
                Ok(stream)
            }
            _ => {
                let found = self.streams.get(&handle).filter(|stream| !stream.closed);
                let context = found.ok_or_else(|| self.no(Kind::Stream, handle))?.context;
                self.healthy(context)?;
                Ok(handle)
            }
        }
    }

    /// Gives a stream a piece of work, and runs what is not late. Returns its position.
    pub fn give(
        &mut self,
        stream: u64,
        work: Work,
        mut needs: Vec<(u64, u64)>,
    ) -> Result<u64, Fail> {
        let Some(to) = self.streams.get(&stream) else { return Err(self.no(Kind::Stream, stream)) };
        let (context, order, position) = (to.context, to.order, to.given + 1);
        let open = |s: &Stream| s.done < s.given;
        match order {
            Order::Null => {
                let others = self.streams.iter();
                needs.extend(
                    others
                        .filter(|(_, s)| {
                            s.context == context && s.order == Order::Blocking && open(s)
                        })
                        .map(|(&at, s)| (at, s.given)),
                );
            }
            Order::Blocking => {
                let null = self.context(context)?.null;
                needs.extend(self.streams.get(&null).filter(|s| open(s)).map(|s| (null, s.given)));
            }
            Order::NonBlocking => {}
        }
        let now = match self.driver.options.late {
            Late::None => true,
            Late::All => false,
            Late::Copies => matches!(work, Work::Launch(_)),
            Late::Kernels => matches!(
                work,
                Work::Move(_) | Work::Fill(_) | Work::Alloc { .. } | Work::Free { .. }
            ),
            Late::Random => draw(self.driver.options.seed, stream, position).is_multiple_of(4),
        };
        let given_at = self.now;
        if let Some(to) = self.streams.get_mut(&stream) {
            to.waiting.push_back(Piece { position, work, needs, given_at });
            to.given = position;
        }
        if now {
            self.reach(stream, position, Why::Early);
        } else if self.driver.options.late == Late::Random {
            self.let_another_run(context, stream, position);
        }
        Ok(position)
    }

    /// Sometimes, work of another stream of the context runs at this point.
    fn let_another_run(&mut self, context: u64, stream: u64, position: u64) {
        let drawn = draw(self.driver.options.seed ^ 0x5eed, stream, position);
        if !drawn.is_multiple_of(4) {
            return;
        }
        let mut others: Vec<u64> = self
            .streams
            .iter()
            .filter(|(_, s)| s.context == context && s.done < s.given)
            .map(|(&at, _)| at)
            .collect();
        others.sort_unstable();
        if let Some(&other) = others.get((drawn >> 8) as usize % others.len().max(1)) {
            let until = self
                .streams
                .get(&other)
                .map_or(0, |s| s.done + 1 + (drawn >> 40) % (s.given - s.done));
            self.reach(other, until, Why::Early);
        }
    }

    /// Runs a stream's work up to a position, and what that needs of other streams.
    pub fn reach(&mut self, stream: u64, until: u64, why: Why) {
        let mut path = vec![(stream, until)];
        let mut ran = false;
        while let Some(&(at, until)) = path.last() {
            let Some(queue) = self.streams.get(&at).filter(|queue| queue.done < until) else {
                path.pop();
                continue;
            };
            if queue.busy {
                if why != Why::Wait {
                    return;
                }
                self.wait();
                continue;
            }
            let Some(front) = queue.waiting.front() else {
                // Dropped by a fault.
                path.pop();
                continue;
            };
            let unmet = |&&(of, until): &&(u64, u64)| {
                self.streams
                    .get(&of)
                    .is_some_and(|s| s.done < until && (s.busy || !s.waiting.is_empty()))
            };
            if let Some(&need) = front.needs.iter().find(unmet) {
                path.push(need);
                continue;
            }
            let call = matches!(front.work, Work::Call { .. });
            if why != Why::Wait && (call || why == Why::Asked && ran) {
                return;
            }
            ran = true;
            self.run_front(at);
        }
        if why == Why::Wait {
            let end = self.streams.get(&stream).map_or(0.0, |queue| queue.end_of(until));
            self.now = self.now.max(end);
        }
    }

    /// Runs the first piece of a stream.
    fn run_front(&mut self, at: u64) {
        let Some(queue) = self.streams.get_mut(&at) else { return };
        let Some(piece) = queue.waiting.pop_front() else { return };
        queue.busy = true;
        let (context, position) = (queue.context, piece.position);
        let done = work::run(self, context, at, piece);
        if let Some(queue) = self.streams.get_mut(&at) {
            queue.busy = false;
            queue.done = queue.done.max(position);
        }
        if let Err(failed) = done {
            self.fault(
                context,
                failed.code,
                failed.said.as_deref().unwrap_or("a piece of work failed"),
            );
        }
        if self.streams.get(&at).is_some_and(|queue| queue.closed && queue.done >= queue.given) {
            self.streams.remove(&at);
        }
        self.driver.changed.notify_all();
    }

    /// The context is lost: what it had to do is dropped, every later call gets the code.
    pub fn fault(&mut self, context: u64, code: Code, said: &str) {
        crate::report::say(&format!("{} ({}): {said}", code.label(), code.0));
        self.tally.faults.push(said.to_string());
        let mut dropped = Vec::new();
        for queue in self.streams.values_mut().filter(|queue| queue.context == context) {
            dropped.extend(queue.waiting.drain(..));
            queue.done = queue.given;
        }
        for piece in dropped {
            match piece.work {
                Work::Alloc { card, bytes, .. } => self.promised[card] -= bytes,
                // What a program gave back is not its leak.
                Work::Free { card, at } => {
                    let _ = self.driver.cards[card].free(at);
                }
                _ => {}
            }
        }
        if let Some(context) = self.contexts.get_mut(&context)
            && context.fault.is_none()
        {
            context.fault = Some(code);
        }
        self.streams.retain(|_, queue| !queue.closed || queue.busy || queue.done < queue.given);
        self.driver.changed.notify_all();
    }

    /// Runs all work of a context.
    pub fn drain(&mut self, context: u64) {
        let mut streams: Vec<(u64, u64)> = self
            .streams
            .iter()
            .filter(|(_, s)| s.context == context)
            .map(|(&at, s)| (at, s.given))
            .collect();
        streams.sort_unstable();
        for (stream, until) in streams {
            self.reach(stream, until, Why::Wait);
        }
    }

    /// Runs all work of a card, as freeing memory does.
    pub fn drain_card(&mut self, card: usize) {
        let mut contexts: Vec<u64> =
            self.contexts.iter().filter(|(_, c)| c.card == card).map(|(&at, _)| at).collect();
        contexts.sort_unstable();
        for context in contexts {
            self.drain(context);
        }
    }

    /// Runs all of a stream, then says whether its context is without fault.
    pub fn finish(&mut self, stream: u64) -> Result<(), Fail> {
        let Some(queue) = self.streams.get(&stream) else { return Ok(()) };
        let (context, given) = (queue.context, queue.given);
        self.reach(stream, given, Why::Wait);
        self.healthy(context)
    }

    /// Whether a position is passed. Asking is a call that needs work: the first time, nothing runs; after that a piece
    /// a time, so that a program that asks until it is done gets there.
    pub fn passed(&mut self, stream: u64, until: u64, asked: u32) -> bool {
        if asked > 0 {
            self.reach(stream, until, Why::Asked);
        }
        self.streams.get(&stream).is_none_or(|queue| queue.done >= until)
    }

    /// An event by its handle.
    pub fn event(&self, handle: u64) -> Result<&crate::driver::Event, Fail> {
        let event = self.events.get(&handle).ok_or_else(|| self.no(Kind::Event, handle))?;
        self.healthy(event.context)?;
        Ok(event)
    }

    /// Sets an event to the end of what a stream was given.
    pub fn record(&mut self, event: u64, stream: u64) -> Result<(), Fail> {
        let of = self.event(event)?.context;
        let context = self.streams.get(&stream).map_or(0, |queue| queue.context);
        if of != context {
            return Err(fail(
                code::INVALID_HANDLE,
                format!(
                    "event {event:#x} is of context {of:#x}, the stream of context {context:#x}"
                ),
            ));
        }
        let position = self.streams.get(&stream).map_or(0, |queue| queue.given + 1);
        if let Some(event) = self.events.get_mut(&event) {
            event.at = Some((stream, position));
            event.time = None;
            event.asked = 0;
        }
        self.give(stream, Work::Mark { event }, Vec::new())?;
        Ok(())
    }
}
