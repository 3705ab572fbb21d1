//! Memory on the card with margins around it: what a launch reads must stay as it was, what it writes is told from what
//! nobody wrote, and nothing beside it may change.

use std::sync::Arc;

use bytemuck::Pod;

use super::judge::{Found, Judged, Want};
use musc::Result;
use musc::backend::cuda::{Buffer, Card, Stream, View, ViewMut};

/// Bytes in front of each buffer and behind it: a row of a tile, and a multiple of every alignment.
const MARGIN: usize = 512;
/// What memory holds before the launch, in the first pass and in the second: a result may look like one, never like both.
const POISON: [u8; 2] = [0xc3, 0x5a];

/// Changes the bytes of a buffer by its name: how a defect is seeded. Inputs are changed before the launch; outputs after it, with
/// the bytes that were there before, and the bytes behind them as `margin`.
pub type Tamper<'a> = &'a (dyn Fn(&str, &mut [u8], &[u8]) + Sync);

/// Where trials are run.
pub struct Lab<'a> {
    /// The card.
    pub card: &'a Arc<Card>,
    stream: Stream,
    tamper: Option<Tamper<'a>>,
}

/// A judged output: the entry point that made it and its name there.
pub struct Outcome {
    /// The entry.
    pub entry: String,
    /// What it is called in the kernel's head.
    pub output: &'static str,
    /// How it came out.
    pub judged: Judged,
}

impl<'a> Lab<'a> {
    /// On a card, with nothing changed.
    pub fn new(card: &'a Arc<Card>) -> Result<Self> {
        Ok(Lab { card, stream: card.stream()?, tamper: None })
    }

    /// The same with a defect.
    pub fn with(card: &'a Arc<Card>, tamper: Tamper<'a>) -> Result<Self> {
        Ok(Lab { card, stream: card.stream()?, tamper: Some(tamper) })
    }

    /// Runs a trial twice, each time with other bits in the memory, and judges its outputs.
    pub fn judge<'w>(
        &self,
        trial: impl Fn(&mut Pass<'_, 'w>) -> Result<()>,
    ) -> Result<Vec<Outcome>> {
        let mut passes = Vec::with_capacity(POISON.len());
        for poison in POISON {
            let mut pass = Pass {
                stream: &self.stream,
                tamper: self.tamper,
                poison,
                taken: Vec::new(),
                changed: Vec::new(),
            };
            trial(&mut pass)?;
            passes.push(pass);
        }
        let (Some(second), Some(first)) = (passes.pop(), passes.pop()) else {
            return Ok(Vec::new());
        };
        let mut outcomes = Vec::new();
        for (one, other) in first.taken.into_iter().zip(second.taken) {
            let mut judged = Judged::new(&one.found, &other.found, one.wants);
            judged.inputs = first.changed.iter().chain(&second.changed).cloned().collect();
            judged.inputs.sort();
            judged.inputs.dedup();
            outcomes.push(Outcome { entry: one.entry, output: one.output, judged });
        }
        Ok(outcomes)
    }
}

struct Taken<'w> {
    entry: String,
    output: &'static str,
    found: Found,
    wants: &'w [Want],
}

/// One pass of a trial.
pub struct Pass<'a, 'w> {
    /// The stream to launch on.
    pub stream: &'a Stream,
    tamper: Option<Tamper<'a>>,
    poison: u8,
    taken: Vec<Taken<'w>>,
    changed: Vec<String>,
}

/// A buffer between its margins, and what it held before the launch.
pub struct Guarded<T> {
    name: &'static str,
    buffer: Buffer<T>,
    before: Vec<T>,
    /// Values of a margin.
    margin: usize,
    poisoned: bool,
}

impl<T: Pod> Guarded<T> {
    /// The buffer without its margins.
    pub fn view(&self) -> Result<View<'_, T>> {
        self.buffer.view().part(self.margin..self.margin + self.before.len())
    }

    /// The same to write.
    pub fn view_mut(&mut self) -> Result<ViewMut<'_, T>> {
        let range = self.margin..self.margin + self.before.len();
        self.buffer.view_mut().part(range)
    }
}

impl<'w> Pass<'_, 'w> {
    fn guarded<T: Pod>(
        &self,
        name: &'static str,
        before: Vec<T>,
        poisoned: bool,
    ) -> Result<Guarded<T>> {
        let margin = MARGIN / size_of::<T>();
        let mut all: Vec<T> = vec![T::zeroed(); before.len() + 2 * margin];
        bytemuck::cast_slice_mut::<T, u8>(&mut all).fill(self.poison);
        all[margin..margin + before.len()].copy_from_slice(&before);
        let buffer = self.stream.upload_new(&all, name)?;
        Ok(Guarded { name, buffer, before, margin, poisoned })
    }

    /// Memory with values that the launch reads, and may not change.
    pub fn input<T: Pod>(&self, name: &'static str, values: &[T]) -> Result<Guarded<T>> {
        let mut before = values.to_vec();
        if let Some(tamper) = self.tamper {
            tamper(name, bytemuck::cast_slice_mut(&mut before), &[]);
        }
        self.guarded(name, before, false)
    }

    /// Memory that the launch writes.
    pub fn output<T: Pod>(&self, name: &'static str, length: usize) -> Result<Guarded<T>> {
        let mut before = vec![T::zeroed(); length];
        bytemuck::cast_slice_mut::<T, u8>(&mut before).fill(self.poison);
        self.guarded(name, before, true)
    }

    /// Memory that the launch reads and writes.
    pub fn in_place<T: Pod>(&self, name: &'static str, values: &[T]) -> Result<Guarded<T>> {
        self.guarded(name, values.to_vec(), false)
    }

    fn download<T: Pod>(&self, of: &Guarded<T>) -> Result<(Vec<T>, usize)> {
        let mut all = self.stream.download_new(of.buffer.view())?;
        if let Some(tamper) = self.tamper {
            let behind = &mut all[of.margin + of.before.len()..];
            tamper("margin", bytemuck::cast_slice_mut(behind), &[]);
        }
        let (front, rest) = all.split_at(of.margin);
        let (values, back) = rest.split_at(of.before.len());
        let bytes = [front, back].map(bytemuck::cast_slice::<T, u8>);
        let changed = bytes.iter().flat_map(|b| b.iter()).filter(|&&b| b != self.poison).count();
        Ok((values.to_vec(), changed))
    }

    /// Looks whether an input is as it was.
    pub fn unchanged<T: Pod>(&mut self, input: &Guarded<T>) -> Result<()> {
        let (values, margin) = self.download(input)?;
        let bytes = |values: &[T]| bytemuck::cast_slice::<T, u8>(values).to_vec();
        if margin > 0 || bytes(&values) != bytes(&input.before) {
            self.changed.push(input.name.to_string());
        }
        Ok(())
    }

    /// Takes what is in an output, to be compared.
    pub fn want<T: Pod>(
        &mut self,
        entry: &str,
        output: &Guarded<T>,
        number: impl Fn(T) -> f64,
        wants: &'w [Want],
    ) -> Result<()> {
        let (mut values, margin) = self.download(output)?;
        if let Some(tamper) = self.tamper {
            let before = bytemuck::cast_slice(&output.before);
            tamper(output.name, bytemuck::cast_slice_mut(&mut values), before);
        }
        let same = |(a, b): (&T, &T)| bytemuck::bytes_of(a) == bytemuck::bytes_of(b);
        let found = Found {
            as_before: values.iter().zip(&output.before).map(same).collect(),
            numbers: values.into_iter().map(number).collect(),
            poisoned: output.poisoned,
            margin,
        };
        let (entry, output) = (entry.to_string(), output.name);
        self.taken.push(Taken { entry, output, found, wants });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::probe::Counter;
    use super::*;

    #[test]
    fn what_is_beside_an_output_is_watched() {
        let counter = Counter::new(80);
        let lab = Lab::new(counter.card()).unwrap();
        let wants = vec![Want::Near(7.0, 0.0); 5];
        let run = |beside: bool, short: bool, input: bool| {
            let outcomes = lab.judge(|pass| {
                let mut read = pass.input("a", &[1u16, 2, 3])?;
                let mut out = pass.output::<f32>("out", 5)?;
                let values = [7.0f32; 5];
                let length = if short { 4 } else { 5 };
                pass.stream.upload(out.view_mut()?.part(0..length)?, &values[..length])?;
                if beside {
                    pass.stream.upload(
                        out.buffer.view_mut().part(5 + MARGIN / 4..6 + MARGIN / 4)?,
                        &[7.0],
                    )?;
                }
                if input {
                    pass.stream.upload(read.view_mut()?, &[1, 2, 4])?;
                }
                pass.unchanged(&read)?;
                pass.want("entry", &out, f64::from, &wants)
            });
            outcomes.unwrap().remove(0).judged
        };
        assert!(run(false, false, false).verified());
        assert_eq!(run(true, false, false).margin, 8);
        assert_eq!(run(false, true, false).unwritten, 1);
        assert_eq!(run(false, false, true).inputs, ["a"]);
    }
}
