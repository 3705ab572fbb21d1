//! What a run says while it works, on stderr: bars on a terminal, plain lines elsewhere, nothing when quiet.

use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressState, ProgressStyle};

use super::interrupt;
use crate::backend::Monitor;

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

    /// Starts a stage of `steps` steps, counted in `unit`.
    pub fn stage(self, name: &'static str, steps: u64, unit: &'static str) -> Stage {
        let bar = match self {
            Voice::Bars => {
                let bar = ProgressBar::new(steps);
                let template = format!(
                    "{{prefix:10}} {{bar:32}} {{human_pos}}/{{human_len}} {unit} {{rate}} {{eta}} left"
                );
                if let Ok(style) = ProgressStyle::with_template(&template) {
                    bar.set_style(style.with_key("rate", rate).progress_chars("=> "));
                }
                bar.set_prefix(name);
                Some(bar)
            }
            Voice::Lines | Voice::Quiet => None,
        };
        let now = Instant::now();
        Stage {
            voice: self,
            name,
            unit,
            steps,
            done: AtomicU64::new(0),
            start: now,
            last_line: Mutex::new(now),
            bar,
        }
    }
}

/// The bar's steps a second; a key of its template, which has nobody to tell of a failed write.
fn rate(state: &ProgressState, out: &mut dyn std::fmt::Write) {
    let _ = write!(out, "{:.1}/s", state.per_sec());
}

/// A message on stderr, shown always. A closed stderr is no reason to stop.
pub fn warn(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// One stage under way. Work polls it for Ctrl-C.
pub struct Stage {
    voice: Voice,
    name: &'static str,
    unit: &'static str,
    steps: u64,
    done: AtomicU64,
    start: Instant,
    last_line: Mutex<Instant>,
    bar: Option<ProgressBar>,
}

impl Stage {
    /// Ends the stage and returns its seconds.
    pub fn finish(self) -> f64 {
        let seconds = self.start.elapsed().as_secs_f64();
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let done = self.done.load(Ordering::Relaxed);
        if done > 0 {
            self.voice.say(&format!(
                "{}: {done} {} in {}",
                self.name,
                self.unit,
                duration(seconds)
            ));
        } else {
            self.voice.say(&format!("{}: {}", self.name, duration(seconds)));
        }
        seconds
    }
}

impl Monitor for Stage {
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
                self.name,
                self.steps,
                self.unit,
                duration(left)
            ));
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
        let stage = Voice::Quiet.stage("scoring", 3, "pairs");
        rayon::join(|| stage.advance(2), || stage.advance(5));
        assert_eq!(stage.done.load(Ordering::Relaxed), 7);
        assert!(!stage.stopped());
        assert!(stage.finish() >= 0.0);
    }
}
