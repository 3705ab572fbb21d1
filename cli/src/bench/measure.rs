//! Times on a real card, by its own events.
//!
//! A launch is first compared with the simulator on its small sample, then run at its real shape: warm-up, then repeats
//! with the level-2 cache flushed before each (a write of twice its size), an event on either side, the median and the
//! extremes. What cannot be compared is not timed.

use std::sync::Arc;

use super::op::Op;
use super::probe::Probe;
use musc::backend::cuda::Card;
use musc::{Error, Result};

/// Launches before the first that counts.
const WARM_UP: usize = 3;
/// Launches that count.
pub const REPEATS: usize = 20;
/// The most that the outputs of the card and of the simulator may differ, ‖a − b‖ / ‖b‖: outputs of 16 bits are rounded at
/// 2^-11, and the two sum in another order.
pub const TOLERANCE: f64 = 2e-3;

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
}

/// Whether the launcher of this launch runs it alone, so that it can be timed: the three of `lnamd` come together and are
/// timed as the last of them.
pub fn alone(op: &Op) -> bool {
    !matches!(op, Op::Sums { .. } | Op::Mean { .. })
}

/// Compares the sample of a launch on two devices.
///
/// # Errors
/// [`Error::Kernel`] when they differ by more than [`TOLERANCE`], or a launch fails.
pub fn verify(card: &Arc<Card>, reference: &Arc<Card>, op: &Op) -> Result<f64> {
    let run = |on: &Arc<Card>| -> Result<Vec<f32>> {
        let mut probe = Probe::new(on, op.sample())?;
        probe.launch()?;
        probe.output()
    };
    let (found, expected) = (run(card)?, run(reference)?);
    let square = |value: f64| value * value;
    let pairs = || found.iter().zip(&expected);
    let error: f64 = pairs().map(|(&a, &b)| square(f64::from(a) - f64::from(b))).sum();
    let size: f64 = expected.iter().map(|&b| square(f64::from(b))).sum();
    let relative = (error / size.max(f64::MIN_POSITIVE)).sqrt();
    if found.len() == expected.len() && relative <= TOLERANCE {
        return Ok(relative);
    }
    Err(Error::Kernel {
        kernel: op.entry(),
        reason: format!(
            "{} and the simulator differ by {relative:.2e} on {}, expected at most {TOLERANCE:e}",
            card.info().label,
            op.sample().shape()
        ),
    })
}

/// Times a launch at its real shape.
///
/// # Errors
/// No memory, the driver's, or a device that keeps no time.
pub fn measure(card: &Arc<Card>, op: &Op) -> Result<Measured> {
    let mut probe = Probe::new(card, op.clone())?;
    let flush_bytes = (2 * card.info().l2_bytes as usize).max(1 << 20);
    let mut flush = card.alloc::<u8>(flush_bytes, "what flushes the cache")?;
    let no_time = || Error::Device {
        device: card.info().label.clone(),
        reason: String::from("it keeps no time between events"),
    };
    for _ in 0..WARM_UP {
        probe.launch()?;
    }
    let mut times = Vec::with_capacity(REPEATS);
    for _ in 0..REPEATS {
        probe.stream.zero(flush.view_mut())?;
        let (start, end) = (card.event()?, card.event()?);
        probe.stream.record(&start)?;
        probe.launch()?;
        probe.stream.record(&end)?;
        end.synchronise()?;
        times.push(f64::from(end.ms_since(&start)?.ok_or_else(no_time)?));
    }
    Measured::of(times).ok_or_else(no_time)
}

#[cfg(test)]
mod tests {
    use super::super::op::{Epilogue, Norm};
    use super::super::probe::Counter;
    use super::*;
    use musc::backend::cuda::launch::PairBlock;
    use musc::backend::cuda::launch::layer_norm::Rows;

    #[test]
    fn median_and_extremes() {
        let made = Measured::of(vec![3.0, 1.0, 2.0, 10.0]).unwrap();
        assert_eq!((made.least_ms, made.median_ms, made.most_ms), (1.0, 2.5, 10.0));
        assert!(Measured::of(Vec::new()).is_none());
    }

    /// Two targets of the PTX stand for two devices: what is compared on a card is compared here.
    #[test]
    fn every_launch_can_be_verified() {
        let (new, old) = (Counter::new(80), Counter::new(75));
        let degrees = vec![3, 5];
        let block = PairBlock { first_a: 0, images_a: 2, first_b: 1, images_b: 2, symmetric: true };
        for op in [
            Op::PatchRows { images: 2, grid: 4, patch: 14 },
            Op::ClassRows { images: 2, grid: 4, width: 128 },
            Op::Gemm { epilogue: Epilogue::Gelu, m: 300, n: 256, k: 128 },
            Op::Gemm { epilogue: Epilogue::QuickGelu, m: 300, n: 256, k: 128 },
            Op::Gemm { epilogue: Epilogue::Residual, m: 300, n: 256, k: 128 },
            Op::Gemm { epilogue: Epilogue::Embed(16), m: 32, n: 256, k: 128 },
            Op::LayerNorm { norm: Norm::Store, rows: Rows::All(9), width: 128 },
            Op::LayerNorm { norm: Norm::Stream, rows: Rows::All(9), width: 128 },
            Op::LayerNorm {
                norm: Norm::Round,
                rows: Rows::Patches { images: 1, patches: 9 },
                width: 128,
            },
            Op::LayerNorm {
                norm: Norm::Stream,
                rows: Rows::Class { images: 2, patches: 9 },
                width: 128,
            },
            Op::Attention { images: 1, tokens: 130, heads: 2 },
            Op::Norms { images: 2, grid: 5, width: 128, degrees: degrees.clone() },
            Op::Gram { block, patches: 130, width: 64 },
            Op::Pool { block, grid: 5, degrees },
            Op::PatchDistance { block, patches: 130, width: 64 },
            Op::IntervalMean { images: 20, patches: 40, scored: 2, ranks: (0, 5) },
        ] {
            let difference = verify(new.card(), old.card(), &op).unwrap();
            assert!(difference < TOLERANCE, "{op:?}");
        }
    }

    #[test]
    fn simulator_keeps_no_time() {
        let op = Op::IntervalMean { images: 20, patches: 40, scored: 2, ranks: (0, 5) };
        let told = measure(Counter::new(80).card(), &op).unwrap_err().to_string();
        assert!(told.contains("keeps no time"), "{told}");
    }
}
