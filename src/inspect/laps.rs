//! Seconds by stage, taken down on the way to whoever watches.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::{Progress, Stage};

/// Passes everything on, and keeps the time.
pub(super) struct Laps<'a> {
    to: &'a dyn Progress,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    under_way: Option<(Stage, Instant)>,
    done: Vec<(Stage, f64)>,
}

impl<'a> Laps<'a> {
    pub fn new(to: &'a dyn Progress) -> Self {
        Laps { to, state: Mutex::default() }
    }

    /// The seconds of each stage, the same ones summed.
    pub fn seconds(self) -> Vec<(Stage, f64)> {
        self.state.into_inner().unwrap_or_else(PoisonError::into_inner).done
    }
}

impl Progress for Laps<'_> {
    fn begin(&self, stage: Stage, steps: u64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.under_way = Some((stage, Instant::now()));
        drop(state);
        self.to.begin(stage, steps);
    }

    fn advance(&self, steps: u64) {
        self.to.advance(steps);
    }

    fn end(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((stage, since)) = state.under_way.take() {
            let seconds = since.elapsed().as_secs_f64();
            match state.done.iter_mut().find(|(known, _)| *known == stage) {
                Some((_, sum)) => *sum += seconds,
                None => state.done.push((stage, seconds)),
            }
        }
        drop(state);
        self.to.end();
    }

    fn stopped(&self) -> bool {
        self.to.stopped()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_stage_adds_up() {
        let laps = Laps::new(&());
        for stage in [Stage::Features, Stage::Scoring, Stage::Features] {
            laps.begin(stage, 1);
            std::thread::sleep(std::time::Duration::from_millis(2));
            laps.end();
        }
        // An end without a beginning counts for nothing.
        laps.end();
        let seconds = laps.seconds();
        let stages: Vec<Stage> = seconds.iter().map(|(stage, _)| *stage).collect();
        assert_eq!(stages, [Stage::Features, Stage::Scoring]);
        assert!(seconds[0].1 >= 0.004 && seconds[1].1 >= 0.002, "{seconds:?}");
    }
}
