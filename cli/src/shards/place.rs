//! Which share of a job this process has, as schedulers tell their processes.

use musc::{Error, Result};

use crate::args::ShardArg;
use crate::shell::voice::Voice;

/// A share of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// From 0.
    pub index: usize,
    /// Of how many.
    pub count: usize,
    /// Where it was read, for people; nothing where it was said on the command line.
    pub from: Option<String>,
}

impl Place {
    /// Says what was taken from the environment.
    pub fn introduce(&self, voice: Voice) {
        if let Some(from) = &self.from {
            voice.say(&format!("shard {} of {}, by {from}", self.index, self.count));
        }
    }

    /// Which of so many parts are this share's, where `before` others have been dealt out already.
    pub fn of(&self, parts: usize, before: usize) -> Vec<usize> {
        (0..parts).filter(|part| (before + part) % self.count == self.index).collect()
    }
}

/// How a scheduler tells: the variables of a process's number and of how many there are, and those of what to take off it
/// and of what lies between two numbers.
struct Teller {
    index: &'static str,
    count: &'static str,
    first: Option<&'static str>,
    step: Option<&'static str>,
}

const fn teller(index: &'static str, count: &'static str) -> Teller {
    Teller { index, count, first: None, step: None }
}

/// In the order in which they are taken, behind MUSC_SHARD.
const TELLERS: [Teller; 6] = [
    Teller {
        index: "SLURM_ARRAY_TASK_ID",
        count: "SLURM_ARRAY_TASK_COUNT",
        first: Some("SLURM_ARRAY_TASK_MIN"),
        step: Some("SLURM_ARRAY_TASK_STEP"),
    },
    teller("JOB_COMPLETION_INDEX", SHARDS),
    teller("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    teller("PMI_RANK", "PMI_SIZE"),
    teller("RANK", "WORLD_SIZE"),
    teller("HQ_TASK_ID", SHARDS),
];
const SHARD: &str = "MUSC_SHARD";
const SHARDS: &str = "MUSC_SHARDS";

/// The share that was asked for; `variable` looks up the environment.
///
/// # Errors
/// [`Error::Invalid`] by the variable: nothing that tells, half of it, what is no number or beyond the count, and variables
/// that contradict each other.
pub fn place(asked: ShardArg, variable: impl Fn(&str) -> Option<String>) -> Result<Place> {
    match asked {
        ShardArg::Of { index, count } => Ok(Place { index, count, from: None }),
        ShardArg::Auto => told(variable),
    }
}

fn told(variable: impl Fn(&str) -> Option<String>) -> Result<Place> {
    let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
    let mut found: Vec<Place> = Vec::new();
    if let Some(text) = variable(SHARD) {
        let parsed = crate::args::parse_shard(&text);
        let Ok(ShardArg::Of { index, count }) = parsed else {
            return Err(Error::invalid(SHARD, text, "I/N with I from 0 to N - 1"));
        };
        found.push(Place { index, count, from: Some(format!("{SHARD}={text}")) });
    }
    let mut halves = Vec::new();
    for of in &TELLERS {
        match (variable(of.index), variable(of.count)) {
            (Some(index), Some(count)) => found.push(of.place(&index, &count, &variable)?),
            (Some(index), None) => halves.push((of, index)),
            _ => {}
        }
    }
    // A job of one process says nothing of a larger one around it.
    let several = |place: &&Place| place.count > 1;
    let Some(first) = found.iter().find(several).or(found.first()) else {
        return match halves.first() {
            Some((of, index)) => Err(Error::invalid(
                of.count,
                format!("nothing, beside {}={index}", of.index),
                "how many shards there are",
            )),
            None => {
                let names: Vec<&str> = TELLERS.iter().map(|of| of.index).collect();
                let expected = format!("one of {SHARD}, {} to be set, or I/N", names.join(", "));
                Err(Error::invalid("--shard", "auto, and nothing that tells", expected))
            }
        };
    };
    let same = |place: &Place| (place.index, place.count) == (first.index, first.count);
    if let Some(other) = found.iter().filter(several).find(|place| !same(place)) {
        let words = |place: &Place| {
            let from = place.from.as_deref().unwrap_or_default();
            format!("{}/{} by {from}", place.index, place.count)
        };
        let found = format!("{} and {}", words(first), words(other));
        return Err(Error::invalid("--shard auto", found, "variables that say the same"));
    }
    Ok(first.clone())
}

impl Teller {
    fn place(
        &self,
        index: &str,
        count: &str,
        variable: &impl Fn(&str) -> Option<String>,
    ) -> Result<Place> {
        let number = |name: &str, text: &str| {
            text.parse::<usize>().map_err(|_| Error::invalid(name, text, "a whole number"))
        };
        let optional = |name: Option<&str>, usual: usize| match name {
            Some(name) => variable(name).map_or(Ok(usual), |text| number(name, &text)),
            None => Ok(usual),
        };
        let (id, count) = (number(self.index, index)?, number(self.count, count)?);
        let (first, step) = (optional(self.first, 0)?, optional(self.step, 1)?.max(1));
        let from = format!("{}={id}, {}={count}", self.index, self.count);
        match id.checked_sub(first).map(|number| number / step) {
            Some(index) if index < count => Ok(Place { index, count, from: Some(from) }),
            _ => {
                let found = format!("{id} beside {}={count}", self.count);
                let last = (count.max(1) - 1) * step + first;
                Err(Error::invalid(self.index, found, format!("{first} to {last}")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Result<(usize, usize)> {
        let look = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| value.to_string())
        };
        place(ShardArg::Auto, look).map(|place| (place.index, place.count))
    }

    #[test]
    fn every_scheduler_s_words_are_read() {
        let slurm = |id: &str, more: &[(&str, &str)]| {
            let mut all = vec![("SLURM_ARRAY_TASK_ID", id), ("SLURM_ARRAY_TASK_COUNT", "4")];
            all.extend(more);
            of(&all)
        };
        assert_eq!(slurm("3", &[]).unwrap(), (3, 4));
        assert_eq!(slurm("4", &[("SLURM_ARRAY_TASK_MIN", "1")]).unwrap(), (3, 4));
        let stepped = [("SLURM_ARRAY_TASK_MIN", "10"), ("SLURM_ARRAY_TASK_STEP", "5")];
        assert_eq!(slurm("20", &stepped).unwrap(), (2, 4));
        for (index, count) in [
            ("JOB_COMPLETION_INDEX", "MUSC_SHARDS"),
            ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
            ("PMI_RANK", "PMI_SIZE"),
            ("RANK", "WORLD_SIZE"),
            ("HQ_TASK_ID", "MUSC_SHARDS"),
        ] {
            assert_eq!(of(&[(index, "2"), (count, "7")]).unwrap(), (2, 7), "{index}");
        }
        assert_eq!(of(&[("MUSC_SHARD", "0/3")]).unwrap(), (0, 3));
        let asked = place(ShardArg::Of { index: 1, count: 2 }, |_| Some("9".into())).unwrap();
        assert_eq!((asked.index, asked.count, asked.from), (1, 2, None));
    }

    #[test]
    fn words_that_do_not_fit_are_named() {
        let said = |variables: &[(&str, &str)]| of(variables).unwrap_err().to_string();
        assert!(said(&[]).contains("HQ_TASK_ID"));
        assert!(said(&[("RANK", "0")]).contains("WORLD_SIZE: found nothing, beside RANK=0"));
        assert!(said(&[("HQ_TASK_ID", "4")]).contains("MUSC_SHARDS"));
        let beyond = said(&[("RANK", "4"), ("WORLD_SIZE", "4")]);
        assert!(beyond.contains("RANK: found 4") && beyond.contains("expected 0 to 3"), "{beyond}");
        let below = [
            ("SLURM_ARRAY_TASK_ID", "0"),
            ("SLURM_ARRAY_TASK_COUNT", "4"),
            ("SLURM_ARRAY_TASK_MIN", "1"),
        ];
        assert!(said(&below).contains("expected 1 to 4"));
        assert!(said(&[("PMI_RANK", "x"), ("PMI_SIZE", "4")]).contains("PMI_RANK: found x"));
        assert!(said(&[("MUSC_SHARD", "3/3")]).contains("MUSC_SHARD: found 3/3"));
        let both = said(&[("MUSC_SHARD", "1/3"), ("RANK", "2"), ("WORLD_SIZE", "3")]);
        assert!(both.contains("1/3 by MUSC_SHARD=1/3") && both.contains("2/3 by RANK=2"), "{both}");
    }

    #[test]
    fn what_agrees_is_no_contradiction() {
        let twice = [("MUSC_SHARD", "1/3"), ("RANK", "1"), ("WORLD_SIZE", "3")];
        assert_eq!(of(&twice).unwrap(), (1, 3));
        // A step of one process in an array of four.
        let step = [
            ("SLURM_ARRAY_TASK_ID", "2"),
            ("SLURM_ARRAY_TASK_COUNT", "4"),
            ("PMI_RANK", "0"),
            ("PMI_SIZE", "1"),
        ];
        assert_eq!(of(&step).unwrap(), (2, 4));
        // A process of one, known before the job around it.
        let one = [("PMI_RANK", "0"), ("PMI_SIZE", "1"), ("RANK", "1"), ("WORLD_SIZE", "3")];
        assert_eq!(of(&one).unwrap(), (1, 3));
        assert_eq!(of(&[("PMI_RANK", "0"), ("PMI_SIZE", "1"), ("RANK", "")]).unwrap(), (0, 1));
    }
}
