//! Times on a real card, by its own events.
//!
//! Nothing is timed that did not verify: before the first launch of a kernel file its trials ([`super::verify`]) have to come
//! out right on that card. Then a launch runs at its real shape: work for half a second, so that clocks are up; then repeats
//! with the level-2 cache flushed before each (a write of twice its size), and repeats without; an event on either side, the
//! median and the extremes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::op::{Epilogue, Norm, Op};
use super::probe::Probe;
use super::verify;
use musc::backend::cuda::launch::layer_norm::Rows;
use musc::backend::cuda::{Buffer, Card, Event, Stream};
use musc::{Error, Result};

/// Work before the first launch that counts.
const WARM_UP: Duration = Duration::from_millis(500);
/// Launches of the warm-up that are given before one is waited for.
const AT_ONCE: usize = 8;
/// Launches that count.
pub const REPEATS: usize = 30;
/// Side of the product that shows what the card's tensor cores give.
const PRODUCT: usize = 8192;
/// Rows of 1024 that are read and written to show what its memory gives: 1 GiB each way.
const COPY_ROWS: usize = 1 << 18;
/// Bytes of a copy between host and card.
const HOST_BYTES: usize = 128 << 20;

/// Times of one launch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measured {
    /// The middle of the repeats, in milliseconds.
    pub median_ms: f64,
    /// The fastest.
    pub least_ms: f64,
    /// The slowest.
    pub most_ms: f64,
}

impl Measured {
    /// Of times in milliseconds; `None` of none.
    pub fn of(mut times: Vec<f64>) -> Option<Self> {
        times.sort_by(f64::total_cmp);
        let (first, last) = (*times.first()?, *times.last()?);
        let middle = times.len() / 2;
        let median = if times.len() % 2 == 1 {
            times[middle]
        } else {
            (times[middle - 1] + times[middle]) / 2.0
        };
        Some(Measured { median_ms: median, least_ms: first, most_ms: last })
    }

    /// As a document, in microseconds.
    pub fn json(&self) -> Value {
        json!({
            "median_us": self.median_ms * 1e3,
            "least_us": self.least_ms * 1e3,
            "most_us": self.most_ms * 1e3,
        })
    }
}

/// Times of one launch with nothing in the level-2 cache, and with what the launch before left there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Timed {
    /// Cache flushed before each.
    pub cold: Measured,
    /// One after the other.
    pub warm: Measured,
}

/// What the card itself gives, by this program's own kernels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ceilings {
    /// Bytes a nanosecond read and written by a norm of f32 rows.
    pub copy_gbs: f64,
    /// TFLOP/s of a product of 8192 x 8192 x 8192.
    pub product_tflops: f64,
    /// Bytes a nanosecond from page-locked host memory.
    pub to_card_gbs: f64,
    /// And to it.
    pub from_card_gbs: f64,
}

impl Ceilings {
    /// As a document.
    pub fn json(&self) -> Value {
        json!({
            "copy_gb_s": self.copy_gbs,
            "product_8192_tflop_s": self.product_tflops,
            "host_to_card_gb_s": self.to_card_gbs,
            "card_to_host_gb_s": self.from_card_gbs,
        })
    }
}

/// Whether the launcher of this launch runs it alone, so that it can be timed: the three of `lnamd` come together and are
/// timed as the last of them.
pub fn alone(op: &Op) -> bool {
    !matches!(op, Op::Sums { .. } | Op::Mean { .. })
}

/// Times launches on a card, of kernels that verified there.
pub struct Timer {
    card: Arc<Card>,
    flush: Buffer<u8>,
    /// Kernel files that verified.
    verified: Vec<&'static str>,
}

impl Timer {
    /// On a card.
    ///
    /// # Errors
    /// No memory, or the driver's.
    pub fn new(card: &Arc<Card>) -> Result<Self> {
        let bytes = (2 * card.info().l2_bytes as usize).max(1 << 20);
        let flush = card.alloc::<u8>(bytes, "what flushes the cache")?;
        Ok(Timer { card: Arc::clone(card), flush, verified: Vec::new() })
    }

    /// Has a kernel file prove itself, once.
    ///
    /// # Errors
    /// [`Error::Kernel`] when it does not.
    pub fn verify(&mut self, stem: &'static str) -> Result<()> {
        if !self.verified.contains(&stem) {
            verify::check(&self.card, stem)?;
            self.verified.push(stem);
        }
        Ok(())
    }

    /// Times a launch at its real shape.
    ///
    /// # Errors
    /// A kernel that does not verify, no memory, the driver's, or a device that keeps no time.
    pub fn time(&mut self, op: &Op) -> Result<Timed> {
        self.verify(op.stem())?;
        let mut probe = Probe::new(&self.card, op.clone())?;
        self.timed(&mut probe, Probe::launch)
    }

    /// Times a Gram product and the pooling of what it made, together.
    ///
    /// # Errors
    /// As [`time`](Self::time).
    pub fn time_chain(&mut self, product: &Op, pooling: &Op) -> Result<Timed> {
        self.verify(product.stem())?;
        self.verify(pooling.stem())?;
        let mut pool = Probe::new(&self.card, pooling.clone())?;
        let mut probe = Probe::new(&self.card, product.clone())?;
        self.timed(&mut probe, |probe| {
            probe.launch()?;
            pool.pool_of(probe)
        })
    }

    /// What the card gives.
    ///
    /// # Errors
    /// As [`time`](Self::time).
    pub fn ceilings(&mut self) -> Result<Ceilings> {
        let width = 1024;
        let copy = Op::LayerNorm { norm: Norm::Stream, rows: Rows::All(COPY_ROWS), width };
        let product = Op::Gemm { epilogue: Epilogue::Bias, m: PRODUCT, n: PRODUCT, k: PRODUCT };
        let (copied, multiplied) = (self.time(&copy)?.cold, self.time(&product)?.warm);
        let (to_card, from_card) = self.host_copies()?;
        Ok(Ceilings {
            copy_gbs: (8 * COPY_ROWS * width) as f64 / copied.median_ms / 1e6,
            product_tflops: product.useful_flops() / multiplied.median_ms / 1e9,
            to_card_gbs: HOST_BYTES as f64 / to_card / 1e6,
            from_card_gbs: HOST_BYTES as f64 / from_card / 1e6,
        })
    }

    /// Milliseconds of a copy to the card and of one from it.
    fn host_copies(&self) -> Result<(f64, f64)> {
        let stream = self.card.stream()?;
        let mut host = self.card.alloc_pinned::<u8>(HOST_BYTES)?;
        let mut there = self.card.alloc::<u8>(HOST_BYTES, "a copy")?;
        let (mut to, mut from) = (Vec::new(), Vec::new());
        for _ in 0..REPEATS {
            // SAFETY: both live, and the stream is waited for before either is used again.
            let mut up = || unsafe { stream.upload_async(there.view_mut(), &host) };
            let time = self.between(&stream, &mut up);
            stream.synchronise()?;
            to.push(time?);
            // SAFETY: as above.
            let mut down = || unsafe { stream.download_async(there.view(), &mut host) };
            let time = self.between(&stream, &mut down);
            stream.synchronise()?;
            from.push(time?);
        }
        let median = |times| Measured::of(times).map_or(f64::NAN, |measured| measured.median_ms);
        Ok((median(to), median(from)))
    }

    fn no_time(&self) -> Error {
        Error::Device {
            device: self.card.info().label.clone(),
            reason: String::from("it keeps no time between events"),
        }
    }

    fn milliseconds(&self, start: &Event, end: &Event) -> Result<f64> {
        end.synchronise()?;
        Ok(f64::from(end.ms_since(start)?.ok_or_else(|| self.no_time())?))
    }

    fn between(&self, stream: &Stream, work: &mut dyn FnMut() -> Result<()>) -> Result<f64> {
        let (start, end) = (self.card.timing_event()?, self.card.timing_event()?);
        stream.record(&start)?;
        // What failed may still have been given in part: it is waited for before it is told.
        let done = work();
        stream.record(&end)?;
        let time = self.milliseconds(&start, &end);
        done.and(time)
    }

    fn timed(
        &mut self,
        probe: &mut Probe,
        mut launch: impl FnMut(&mut Probe) -> Result<()>,
    ) -> Result<Timed> {
        // A device without time is told of before any work.
        self.between(&probe.stream, &mut || Ok(()))?;
        let begun = Instant::now();
        while begun.elapsed() < WARM_UP {
            for _ in 0..AT_ONCE {
                launch(probe)?;
            }
            probe.stream.synchronise()?;
        }
        let (mut cold, mut warm) = (Vec::new(), Vec::new());
        for flush in [true, false] {
            for _ in 0..REPEATS {
                if flush {
                    probe.stream.zero(self.flush.view_mut())?;
                }
                let (start, end) = (self.card.timing_event()?, self.card.timing_event()?);
                probe.stream.record(&start)?;
                launch(probe)?;
                probe.stream.record(&end)?;
                let time = self.milliseconds(&start, &end)?;
                if flush { cold.push(time) } else { warm.push(time) }
            }
        }
        match (Measured::of(cold), Measured::of(warm)) {
            (Some(cold), Some(warm)) => Ok(Timed { cold, warm }),
            _ => Err(self.no_time()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::probe::Counter;
    use super::*;

    #[test]
    fn median_and_extremes() {
        let made = Measured::of(vec![3.0, 1.0, 2.0, 10.0]).unwrap();
        assert_eq!((made.least_ms, made.median_ms, made.most_ms), (1.0, 2.5, 10.0));
        assert!(Measured::of(Vec::new()).is_none());
    }

    #[test]
    fn simulator_keeps_no_time() {
        let op = Op::IntervalMean { images: 20, patches: 40, scored: 2, ranks: (0, 5) };
        let counter = Counter::new(80);
        let mut timer = Timer::new(counter.card()).unwrap();
        let told = timer.time(&op).unwrap_err().to_string();
        assert!(told.contains("keeps no time"), "{told}");
        assert_eq!(timer.verified, ["interval_mean"]);
        let told = timer.host_copies().unwrap_err().to_string();
        assert!(told.contains("keeps no time"), "{told}");
    }
}
