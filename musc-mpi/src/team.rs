//! The processes of the job: who there is, what goes from one to another, and how all end when one does.
//!
//! Only the main thread calls MPI. It keeps transfers going while another thread computes, and sleeps between looks, so that
//! waiting costs no processor.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use mpi::Tag;
use mpi::point_to_point::{Destination, Source};
use mpi::request;
use mpi::topology::{Communicator, SimpleCommunicator};
use musc::{Error, Result};
use musc_cli::team::{Stop, end, interrupt, say};

/// Bytes of a message: counts are 32 bits in MPI, and more than this is no faster.
const MESSAGE: usize = 32 << 20;
/// Time between looks at what is under way, first and at most.
const LOOKS: (Duration, Duration) = (Duration::from_micros(50), Duration::from_millis(1));

/// Bytes for another process.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    pub to: usize,
    pub tag: Tag,
    pub bytes: &'a [u8],
}

/// Room for bytes from another process, as many as it sends.
#[derive(Debug)]
pub struct Incoming<'a> {
    pub from: usize,
    pub tag: Tag,
    pub bytes: &'a mut [u8],
}

/// The processes of the job, as one of them sees them.
pub struct Team {
    world: SimpleCommunicator,
    rank: usize,
    ranks: usize,
    host: String,
}

impl Team {
    pub fn new(world: SimpleCommunicator) -> Self {
        let number = |number: i32| usize::try_from(number).unwrap_or(0);
        let (rank, ranks) = (number(world.rank()), number(world.size()));
        let host = mpi::environment::processor_name().unwrap_or_else(|_| "a host".into());
        Team { world, rank, ranks, host }
    }

    /// The processes on this machine, and which of them this is.
    pub fn on_this_host(&self) -> Team {
        Team::new(self.world.split_shared(self.world.rank()))
    }

    pub fn rank(&self) -> usize {
        self.rank
    }

    pub fn ranks(&self) -> usize {
        self.ranks
    }

    pub fn host(&self) -> &str {
        &self.host
    }

    /// Tells how this process ended, and ends all of them.
    pub fn fail(&self, stop: Stop) -> ! {
        let interrupted = matches!(&stop, Stop::Failed(Error::Interrupted));
        let (words, code) = end(Err(stop));
        // All are interrupted at once, and by the end of another process, too: one word is enough.
        if let Some(words) = words
            && (!interrupted || self.rank == 0)
        {
            say(&format!("rank {} of {} on {}: {words}", self.rank, self.ranks, self.host));
        }
        self.world.abort(code.into())
    }

    /// Sends and receives while `work` is done on another thread. Ends the job where the work fails.
    pub fn exchange<R: Send>(
        &self,
        outgoing: &[Outgoing<'_>],
        incoming: &mut [Incoming<'_>],
        work: impl FnOnce() -> Result<R> + Send,
    ) -> R {
        request::scope(|scope| {
            let mut under_way = Vec::new();
            for Incoming { from, tag, bytes } in incoming.iter_mut() {
                let process = self.world.process_at_rank(rank_of(*from));
                for part in bytes.chunks_mut(MESSAGE) {
                    under_way.push(process.immediate_receive_into_with_tag(scope, part, *tag));
                }
            }
            let mut sent = Vec::new();
            for Outgoing { to, tag, bytes } in outgoing {
                let process = self.world.process_at_rank(rank_of(*to));
                for part in bytes.chunks(MESSAGE) {
                    sent.push(process.immediate_send_with_tag(scope, part, *tag));
                }
            }
            // What failed is told of at once: others may never send what is waited for.
            let failed = AtomicBool::new(false);
            thread::scope(|threads| {
                let failing = &failed;
                let worker = threads.spawn(move || {
                    let done = catch_unwind(AssertUnwindSafe(work));
                    failing.store(!matches!(done, Ok(Ok(_))), Ordering::SeqCst);
                    done
                });
                let mut pause = LOOKS.0;
                loop {
                    let before = under_way.len() + sent.len();
                    under_way = under_way.drain(..).filter_map(|one| one.test().err()).collect();
                    sent = sent.drain(..).filter_map(|one| one.test().err()).collect();
                    let left = under_way.len() + sent.len();
                    let done = left == 0 || failed.load(Ordering::SeqCst);
                    if worker.is_finished() && done {
                        break;
                    }
                    if interrupt::asked() {
                        self.fail(Stop::Failed(Error::Interrupted));
                    }
                    pause = if left < before { LOOKS.0 } else { (2 * pause).min(LOOKS.1) };
                    thread::sleep(pause);
                }
                match worker.join() {
                    Ok(Ok(Ok(done))) => done,
                    Ok(Ok(Err(error))) => self.fail(Stop::Failed(error)),
                    _ => {
                        let found = "a thread that failed";
                        let error = Error::invalid("work of a process", found, "one that ends");
                        self.fail(Stop::Failed(error))
                    }
                }
            })
        })
    }

    /// Everybody's bytes, in the order of the ranks.
    pub fn all_gather(&self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let own = (bytes.len() as u64).to_le_bytes();
        let others: Vec<usize> = (0..self.ranks).filter(|&rank| rank != self.rank).collect();
        let mut lengths = vec![[0u8; 8]; self.ranks];
        lengths[self.rank] = own;
        let to_all = |bytes| -> Vec<Outgoing<'_>> {
            others.iter().map(|&to| Outgoing { to, tag: tags::GATHER, bytes }).collect()
        };
        let mut incoming = rooms(self.rank, lengths.iter_mut().map(|length| &mut length[..]));
        self.exchange(&to_all(&own), &mut incoming, || Ok(()));
        let length = |bytes: [u8; 8]| usize::try_from(u64::from_le_bytes(bytes)).unwrap_or(0);
        let mut all: Vec<Vec<u8>> = lengths.iter().map(|&bytes| vec![0; length(bytes)]).collect();
        all[self.rank].copy_from_slice(bytes);
        let mut incoming = rooms(self.rank, all.iter_mut().map(|bytes| &mut bytes[..]));
        self.exchange(&to_all(bytes), &mut incoming, || Ok(()));
        all
    }

    /// Everybody's number, in the order of the ranks.
    pub fn all_gather_number(&self, number: usize) -> Vec<usize> {
        let all = self.all_gather(&(number as u64).to_le_bytes());
        let number = |bytes: Vec<u8>| {
            let bytes = <[u8; 8]>::try_from(bytes).unwrap_or_default();
            usize::try_from(u64::from_le_bytes(bytes)).unwrap_or(usize::MAX)
        };
        all.into_iter().map(number).collect()
    }

    /// Bytes of every process at rank 0, in the order of the ranks; nothing elsewhere.
    pub fn gather(&self, bytes: Vec<u8>) -> Option<Vec<Vec<u8>>> {
        let lengths = self.all_gather_number(bytes.len());
        if self.rank > 0 {
            let outgoing = [Outgoing { to: 0, tag: tags::GATHER, bytes: &bytes }];
            self.exchange(&outgoing, &mut [], || Ok(()));
            return None;
        }
        let mut all: Vec<Vec<u8>> = lengths.into_iter().map(|length| vec![0; length]).collect();
        all[0] = bytes;
        let mut incoming: Vec<Incoming<'_>> = all[1..]
            .iter_mut()
            .enumerate()
            .map(|(at, bytes)| Incoming { from: at + 1, tag: tags::GATHER, bytes })
            .collect();
        self.exchange(&[], &mut incoming, || Ok(()));
        Some(all)
    }

    /// Waits for everybody, without the processor that MPI's own waiting takes.
    pub fn wait_for_all(&self) {
        self.all_gather(&[]);
    }
}

/// Room for what every other process gathers.
fn rooms<'a>(own: usize, rooms: impl Iterator<Item = &'a mut [u8]>) -> Vec<Incoming<'a>> {
    let others = rooms.enumerate().filter(|(from, _)| *from != own);
    others.map(|(from, bytes)| Incoming { from, tag: tags::GATHER, bytes }).collect()
}

fn rank_of(rank: usize) -> i32 {
    i32::try_from(rank).unwrap_or(i32::MAX)
}

/// What messages are.
pub mod tags {
    use mpi::Tag;

    /// Small facts.
    pub const GATHER: Tag = 1;
    /// A block's tokens.
    pub const TOKENS: Tag = 2;
    /// The half of a pair of blocks.
    pub const SHARED: Tag = 3;
}
