//! What a run says while it works, on stderr: bars on a terminal, plain lines elsewhere, nothing when quiet.

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use musc::{Progress, Stage};

use super::interrupt;

/// Time between two plain lines of one stage.
const LINE_EVERY: Duration = Duration::from_secs(15);

/// How a run speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Voice {
    /// Bars that move.
    Bars,
    /// A line now and then.
    Lines,
    /// Nothing but notes and errors.
    Quiet,
}

impl Voice {
    /// The one that fits where stderr goes.
    pub fn new(quiet: bool) -> Self {
        match (quiet, std::io::stderr().is_terminal()) {
            (true, _) => Voice::Quiet,
            (false, true) => Voice::Bars,
            (false, false) => Voice::Lines,
        }
    }

    /// A line about what happens, not shown when quiet.
    pub fn say(self, text: &str) {
        if self != Voice::Quiet {
            warn(text);
        }
    }

    /// Something that tells of every stage in this voice, and stops on Ctrl-C.
    pub fn teller(self) -> Teller {
        Teller { voice: self, stage: RwLock::new(None) }
    }
}

/// Tells of each stage as it comes.
pub struct Teller {
    voice: Voice,
    stage: RwLock<Option<Lap>>,
}

/// The bar's steps a second; a key of its template, which has nobody to tell of a failed write.
fn rate(state: &ProgressState, out: &mut dyn std::fmt::Write) {
    let _ = write!(out, "{:.1}/s", state.per_sec());
}

/// A message on stderr, shown always. A closed stderr is no reason to stop.
pub fn warn(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// One stage under way.
struct Lap {
    voice: Voice,
    stage: Stage,
    steps: u64,
    done: AtomicU64,
    start: Instant,
    last_line: Mutex<Instant>,
    bar: Option<ProgressBar>,
}

impl Lap {
    fn new(voice: Voice, stage: Stage, steps: u64) -> Self {
        let bar = match voice {
            Voice::Bars => {
                let bar = ProgressBar::new(steps);
                let template = format!(
                    "{{prefix:10}} {{bar:32}} {{human_pos}}/{{human_len}} {} {{rate}} {{eta}} left",
                    stage.unit()
                );
                if let Ok(style) = ProgressStyle::with_template(&template) {
                    bar.set_style(style.with_key("rate", rate).progress_chars("=> "));
                }
                bar.set_prefix(stage.name());
                Some(bar)
            }
            Voice::Lines | Voice::Quiet => None,
        };
        let now = Instant::now();
        Lap {
            voice,
            stage,
            steps,
            done: AtomicU64::new(0),
            start: now,
            last_line: Mutex::new(now),
            bar,
        }
    }

    fn advance(&self, steps: u64) {
        let done = self.done.fetch_add(steps, Ordering::Relaxed) + steps;
        if let Some(bar) = &self.bar {
            bar.set_position(done.min(self.steps));
        }
        if self.voice != Voice::Lines {
            return;
        }
        // Whoever finds the clock busy leaves the line to the thread that holds it.
        let Ok(mut last) = self.last_line.try_lock() else { return };
        if last.elapsed() >= LINE_EVERY {
            *last = Instant::now();
            let rate = done as f64 / self.start.elapsed().as_secs_f64();
            let left = self.steps.saturating_sub(done) as f64 / rate;
            warn(&format!(
                "{}: {done}/{} {}, {rate:.1} a second, {} left",
                self.stage,
                self.steps,
                self.stage.unit(),
                duration(left)
            ));
        }
    }

    fn finish(self) {
        let seconds = self.start.elapsed().as_secs_f64();
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let (done, stage) = (self.done.load(Ordering::Relaxed), self.stage);
        if done > 0 {
            self.voice.say(&format!("{stage}: {done} {} in {}", stage.unit(), duration(seconds)));
        } else {
            self.voice.say(&format!("{stage}: {}", duration(seconds)));
        }
    }
}

impl Progress for Teller {
    fn begin(&self, stage: Stage, steps: u64) {
        let lap = Lap::new(self.voice, stage, steps);
        *self.stage.write().unwrap_or_else(PoisonError::into_inner) = Some(lap);
    }

    fn advance(&self, steps: u64) {
        if let Some(lap) = &*self.stage.read().unwrap_or_else(PoisonError::into_inner) {
            lap.advance(steps);
        }
    }

    fn end(&self) {
        let lap = self.stage.write().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(lap) = lap {
            lap.finish();
        }
    }

    fn stopped(&self) -> bool {
        interrupt::asked()
    }
}

/// Seconds as people read them.
pub fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..60 => format!("{seconds:.2} s"),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_change_unit() {
        assert_eq!(duration(0.126), "0.13 s");
        assert_eq!(duration(59.4), "59.40 s");
        assert_eq!(duration(59.6), "1 min 00 s");
        assert_eq!(duration(3600.0), "1 h 00 min");
        assert_eq!(duration(7325.0), "2 h 02 min");
    }

    #[test]
    fn stage_counts_from_several_threads_and_past_its_steps() {
        let teller = Voice::Quiet.teller();
        teller.advance(1);
        teller.begin(Stage::Scoring, 3);
        rayon::join(|| teller.advance(2), || teller.advance(5));
        let done =
            teller.stage.read().unwrap().as_ref().map(|lap| lap.done.load(Ordering::Relaxed));
        assert_eq!(done, Some(7));
        assert!(!teller.stopped());
        teller.end();
        assert!(teller.stage.read().unwrap().is_none());
    }
}
