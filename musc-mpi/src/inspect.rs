//! A batch, scored all against all by the processes of the job: each makes the tokens of its block and scores it while the
//! other blocks come round.

use std::time::Duration;

use musc::backend::blocks::{BlockScoring, Pass, Shared};
use musc::backend::device::AnyBackend;
use musc::backend::{Backend, FeatureSet, HostFeatures};
use musc::inspect::{Batch, Inspection, Inspector, Part, StoreTerms};
use musc::scoring::MutualScoring;
use musc::{Error, Progress, Result, Stage};
use musc_cli::team::{Stop, say};

use crate::ring::{Ring, deal};
use crate::team::{Incoming, Outgoing, Team, tags};

/// Scores a batch: its inspection at rank 0, nothing elsewhere.
///
/// # Errors
/// Other images or settings than those of rank 0; fewer images than processes; otherwise as [`Inspector::inspect`].
pub fn inspect(
    team: &Team,
    inspector: &Inspector,
    batch: &Batch,
    quiet: bool,
    progress: &dyn Progress,
) -> Result<Option<Inspection>> {
    let plan = inspector.plan(batch, progress)?;
    let terms = inspector.store_terms(batch, &plan)?;
    agree(team, &terms)?;
    introduce(team, inspector, quiet);
    let images = plan.part(0)?.len();
    if images < team.ranks() {
        let expected = format!("at most {images}, one an image of `{}`", batch.name());
        return Err(Error::invalid("processes", team.ranks(), expected));
    }
    let run = deal(images, team.ranks(), team.rank());
    let block = inspector.block(batch, &plan, run, progress)?;
    let sizes = team.all_gather_number(block.len());
    let marks = team
        .all_gather(&block.features().left_out().iter().map(|&m| m.into()).collect::<Vec<u8>>());
    let features = block.features();
    let mut scoring = inspector.block_scoring(&sizes, team.rank(), &block)?;
    let groups = team.all_gather_number(scoring.groups()).into_iter().max().unwrap_or(1);
    let work = Work {
        ring: Ring { rank: team.rank(), ranks: team.ranks() },
        inspector,
        like: HostFeatures::new(
            0,
            features.grid(),
            features.width(),
            features.layers().to_vec(),
            Vec::new(),
        ),
        degrees: inspector.mutual_scoring().degrees.len(),
        sizes,
        marks,
        progress,
    };
    progress.begin(Stage::Scoring, work.steps(inspector.mutual_scoring(), groups));
    for layer in 0..features.layers().len() {
        let tokens = features.patch_tokens(layer)?;
        if groups == 1 {
            work.half_a_round(team, &mut scoring, layer, tokens)?;
        } else {
            for group in 0..groups {
                work.a_round(team, &mut scoring, (group, layer), &tokens)?;
            }
        }
    }
    progress.end();
    let scores = scoring.scores()?;
    let job = terms.job(team.ranks());
    let part = inspector.part_of_block(block, &scores)?.to_bytes(&job)?;
    let Some(parts) = team.gather(part) else { return Ok(None) };
    let parts = parts.iter().map(|bytes| Part::of_bytes(bytes, &job));
    inspector.join(batch, &plan, parts, progress).map(Some)
}

/// That every process has the images and settings of rank 0.
fn agree(team: &Team, terms: &StoreTerms) -> Result<()> {
    let jobs = team.all_gather(terms.job(1).as_bytes());
    let differs = |rank: &usize| jobs[*rank] != jobs[0];
    let Some(first) = (0..team.ranks()).find(differs) else { return Ok(()) };
    let lines = terms.lines();
    let mut all = team.all_gather(lines.as_bytes()).into_iter();
    if team.rank() != first {
        // The first that differs tells of it, and ends the job.
        std::thread::sleep(Duration::from_secs(10));
    }
    let expected = String::from_utf8_lossy(&all.next().unwrap_or_default()).into_owned();
    let (mut own, mut known) = (lines.lines(), expected.lines());
    let (found, expected) = loop {
        match (own.next(), known.next()) {
            (one, two) if one != two => break (one.unwrap_or("no more"), two.unwrap_or("no more")),
            (None, None) => break ("others", "those"),
            _ => {}
        }
    };
    let expected = format!("`{expected}`, as rank 0 has");
    Err(Error::invalid("images and settings of a process", format!("`{found}`"), expected))
}

/// Says what each process works on.
fn introduce(team: &Team, inspector: &Inspector, quiet: bool) {
    let own = format!("{}: {}", team.host(), inspector.device());
    let all = team.all_gather(own.as_bytes());
    if team.rank() > 0 || quiet {
        return;
    }
    for (rank, words) in all.iter().enumerate() {
        say(&format!("rank {rank} of {} on {}", team.ranks(), String::from_utf8_lossy(words)));
    }
}

/// What the rounds of a batch have in common.
struct Work<'a> {
    ring: Ring,
    inspector: &'a Inspector,
    /// Grid, width and layers.
    like: HostFeatures,
    degrees: usize,
    /// Images of each block.
    sizes: Vec<usize>,
    /// Patches that are left out in each, a byte each, or none.
    marks: Vec<Vec<u8>>,
    progress: &'a dyn Progress,
}

impl Work<'_> {
    /// Pairs of images, for each layer, that this process compares.
    fn steps(&self, scoring: &MutualScoring, groups: usize) -> u64 {
        let (own, all) = (self.sizes[self.ring.rank], self.sizes.iter().sum::<usize>());
        let across = if groups == 1 {
            let of = |step| {
                let (own, theirs) = self.ring.share(step, &self.sizes);
                own.len() * theirs.len()
            };
            (1..=self.ring.half()).map(of).sum()
        } else {
            own * (all - own)
        };
        let usual = 1 << 30;
        let group = scoring.group_images((own, all), self.like.grid.patches(), usual);
        let within: usize = (0..own)
            .step_by(group)
            .map(|start| group.min(own - start))
            .map(|group| group * (group - 1) / 2 + group * (own - group))
            .sum();
        ((across + within) * self.like.layers.len()) as u64
    }

    fn values(&self, block: usize) -> usize {
        self.sizes[block] * self.like.grid.patches() * self.like.width
    }

    /// A block's tokens that have arrived, on the device.
    fn features(
        &self,
        block: usize,
        layer: usize,
        tokens: Vec<f32>,
    ) -> Result<<AnyBackend as Backend>::Features> {
        let HostFeatures { grid, width, layers, .. } = &self.like;
        let marks = self.marks[block].iter().map(|&mark| mark != 0).collect();
        let images = self.sizes[block];
        let features = HostFeatures::new(images, *grid, *width, vec![layers[layer]], vec![tokens]);
        // Who is the same image does not matter where everybody sees all others.
        let features = features.with_left_out(marks).with_content(vec![0; images]);
        self.inspector.backend().upload(features)
    }

    /// A layer, each pair of images computed once in the whole job.
    fn half_a_round(
        &self,
        team: &Team,
        scoring: &mut BlockScoring<'_, AnyBackend>,
        layer: usize,
        own: Vec<f32>,
    ) -> Result<()> {
        let (ring, half) = (self.ring, self.ring.half());
        let mut pass = scoring.begin(0, layer)?;
        let mut held = own;
        let mut given: Option<Shared> = None;
        // In the step after the last nothing is computed: what was found in that is still on its way.
        for step in 0..=half + usize::from(half > 0) {
            let next = (step < half).then(|| ring.ahead(step + 1));
            let mut tokens = vec![0f32; next.map_or(0, |block| self.values(block))];
            // What the process behind has found for this one in the step before.
            let before = step.checked_sub(1).filter(|&before| before > 0);
            let mut shared = before.map(|step| self.room(scoring, ring.behind(step), step));
            let mut outgoing = Vec::new();
            let mut incoming = Vec::new();
            if let Some((sent, step)) = given.as_ref().zip(before) {
                let bytes = bytemuck::cast_slice(&sent.cosines);
                outgoing.push(Outgoing { to: ring.ahead(step), tag: tags::SHARED, bytes });
            }
            if let Some((shared, step)) = shared.as_mut().zip(before) {
                let bytes = bytemuck::cast_slice_mut(&mut shared.cosines);
                incoming.push(Incoming { from: ring.behind(step), tag: tags::SHARED, bytes });
            }
            if next.is_some() {
                let bytes = bytemuck::cast_slice(&held);
                outgoing.push(Outgoing { to: ring.behind(1), tag: tags::TOKENS, bytes });
                let bytes = bytemuck::cast_slice_mut(&mut tokens);
                incoming.push(Incoming { from: ring.ahead(1), tag: tags::TOKENS, bytes });
            }
            let found = team.exchange(&outgoing, &mut incoming, || {
                self.compute(scoring, &mut pass, (layer, step), &held)
            });
            drop((outgoing, incoming));
            if let Some(shared) = &shared {
                scoring.accept(&mut pass, shared)?;
            }
            given = found;
            held = tokens;
        }
        scoring.finish(pass)
    }

    /// The step's pairs: the block itself, or the one that is here.
    fn compute(
        &self,
        scoring: &BlockScoring<'_, AnyBackend>,
        pass: &mut Pass,
        (layer, step): (usize, usize),
        held: &[f32],
    ) -> Result<Option<Shared>> {
        if step == 0 {
            scoring.within(pass, self.progress)?;
            return Ok(None);
        }
        if step > self.ring.half() {
            return Ok(None);
        }
        let other = self.ring.ahead(step);
        let ranges = self.ring.share(step, &self.sizes);
        let features = self.features(other, layer, held.to_vec())?;
        scoring.share(pass, other, &features, ranges, self.progress).map(Some)
    }

    /// Room for what another process finds for this one in a step.
    fn room(&self, scoring: &BlockScoring<'_, AnyBackend>, from: usize, step: usize) -> Shared {
        let theirs = Ring { rank: from, ..self.ring };
        let (images, queries) = theirs.share(step, &self.sizes);
        let cells = self.degrees * queries.len() * images.len() * self.like.grid.patches();
        let of_set = |block: usize, run: std::ops::Range<usize>| {
            let start = scoring.images_of(block).start;
            start + run.start..start + run.end
        };
        Shared {
            queries: of_set(self.ring.rank, queries),
            images: of_set(from, images),
            cosines: vec![0; cells],
        }
    }

    /// A layer of a group of queries against all blocks.
    fn a_round(
        &self,
        team: &Team,
        scoring: &mut BlockScoring<'_, AnyBackend>,
        (group, layer): (usize, usize),
        own: &[f32],
    ) -> Result<()> {
        let (ring, steps) = (self.ring, self.ring.ranks);
        // Others may have more groups; their blocks still go by here.
        let mut pass =
            (group < scoring.groups()).then(|| scoring.begin(group, layer)).transpose()?;
        let mut held = Vec::new();
        for step in 0..steps {
            let next = (step + 1 < steps).then(|| ring.ahead(step + 1));
            let mut tokens = vec![0f32; next.map_or(0, |block| self.values(block))];
            let mut outgoing = Vec::new();
            let mut incoming = Vec::new();
            let here: &[f32] = if step == 0 { own } else { &held };
            if next.is_some() {
                let bytes = bytemuck::cast_slice(here);
                outgoing.push(Outgoing { to: ring.behind(1), tag: tags::TOKENS, bytes });
                let bytes = bytemuck::cast_slice_mut(&mut tokens);
                incoming.push(Incoming { from: ring.ahead(1), tag: tags::TOKENS, bytes });
            }
            team.exchange(&outgoing, &mut incoming, || match &mut pass {
                None => Ok(()),
                Some(pass) if step == 0 => scoring.within(pass, self.progress),
                Some(pass) => {
                    let other = ring.ahead(step);
                    let features = self.features(other, layer, here.to_vec())?;
                    scoring.take(pass, other, &features, self.progress)
                }
            });
            drop((outgoing, incoming));
            held = tokens;
        }
        pass.map_or(Ok(()), |pass| scoring.finish(pass))
    }
}

/// Ends the job where a process could not do its part.
pub fn or_fail<T>(team: &Team, done: Result<T>) -> T {
    done.unwrap_or_else(|error| team.fail(Stop::Failed(error)))
}
