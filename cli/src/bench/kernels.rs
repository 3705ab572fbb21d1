//! `musc-bench kernels`: each kernel at the shapes of a backbone.

use serde_json::{Value, json};

use super::args::{Device, KernelsArgs};
use super::cards::{CARDS, Card};
use super::counts::Counts;
use super::measure::{self, Timed, Timer};
use super::model::{Launch, Modelled, model};
use super::op::Op;
use super::pipeline::{self, Setting, Work};
use super::probe::Counter;
use super::resources::{Resources, resources};
use super::text::{cells, percent, table};
use crate::shell::{Stop, interrupt, out};
use crate::smi;
use musc::Result;
use musc::backend::cuda::Card as OpenCard;
use musc::backend::cuda::driver::CardInfo;
use musc::backend::cuda::launch::{GRAM_STRIDE, PairBlock};
use musc::backend::cuda::plan::MAX_LAUNCH_IMAGES;

/// Memory that the plan of the scoring is made for: a card with room for the runtime's largest chunks.
pub const PLAN_BYTES: u64 = 16 << 30;

/// What is known of a launch on one card.
pub struct OnCard {
    pub card: &'static Card,
    pub resources: Resources,
    pub modelled: Modelled,
}

/// Counts a launch and models it on every card.
pub fn account(
    counters: &mut Counters,
    op: &Op,
    cards: &[&'static Card],
) -> Result<(Counts, Vec<OnCard>)> {
    let mut on_cards = Vec::new();
    for &card in cards {
        interrupt::check()?;
        let counts = counters.of(card.target(), op)?;
        let shared_bytes = card.shared_bytes_per_block();
        let shape = op.launch(shared_bytes);
        let resources = resources(&op.entry(), card.arch)?;
        let launch = Launch {
            counts: &counts,
            blocks: op.working_blocks(shared_bytes),
            threads: shape.threads,
            dynamic_shared: shape.shared_bytes,
            dram_bytes: op.dram_bytes(card.l2_mb * 1e6),
            attention: matches!(op, Op::Attention { .. }),
            rows: resources.rows.and_then(|rows| op.row_work(shared_bytes, &rows)),
        };
        on_cards.push(OnCard { card, resources, modelled: model(card, &launch, &resources) });
    }
    let target = cards.first().map_or(80, |card| card.target());
    Ok((counters.of(target, op)?, on_cards))
}

/// Simulators by PTX target, made when needed.
#[derive(Default)]
pub struct Counters(Vec<(u32, Counter)>);

impl Counters {
    /// The counts of a launch with the PTX of a target.
    pub fn of(&mut self, target: u32, op: &Op) -> Result<Counts> {
        if let Some((_, counter)) = self.0.iter_mut().find(|(known, _)| *known == target) {
            return counter.counts(op);
        }
        let mut counter = Counter::new(target);
        let counts = counter.counts(op);
        self.0.push((target, counter));
        counts
    }
}

/// Runs the command.
pub fn run(args: &KernelsArgs) -> std::result::Result<(), Stop> {
    let settings = args.settings().map_err(Stop::Usage)?;
    let cards = args.common.cards().map_err(Stop::Usage)?;
    let device = args.common.device().map_err(Stop::Usage)?;
    let mut documents = Vec::new();
    for setting in &settings {
        let works = shown(setting, args.only.as_deref())?;
        let document = match device {
            Device::Sim => counted(setting, &works, &cards, args.common.json)?,
            Device::Cuda(number) => measured(setting, &works, number, args.common.json)?,
        };
        documents.push(document);
    }
    if args.common.json {
        out::print_json(&json!({ "kind": "kernels", "models": documents }))?;
    }
    Ok(())
}

/// A launch of each kind that a run has, and those of kernels that the usual run does without.
fn shown(setting: &Setting, only: Option<&str>) -> Result<Vec<Work>> {
    let mut works: Vec<Work> = Vec::new();
    let mut all = pipeline::features(setting);
    all.extend(pipeline::scoring(setting, PLAN_BYTES)?);
    let grid = setting.grid();
    let width = setting.backbone.width.next_multiple_of(128);
    let patches = grid * grid;
    // A launch of the runtime, of pairs i < j alone.
    let images_b = (GRAM_STRIDE / patches).clamp(1, setting.images / 2);
    let images_a = MAX_LAUNCH_IMAGES.clamp(1, setting.images - images_b);
    let block = PairBlock { first_a: 0, images_a, first_b: images_a, images_b, symmetric: true };
    let r1 = Op::PatchDistance { block, patches, width };
    all.push(Work { role: "degree 1 alone", op: r1, times: 1 });
    for work in all {
        if only.is_some_and(|stem| work.op.stem() != stem) {
            continue;
        }
        // Of several shapes in one place, the one that comes most often.
        match works.iter_mut().find(|known| known.role == work.role) {
            Some(known) if known.times < work.times => *known = work,
            Some(_) => {}
            None => works.push(work),
        }
    }
    Ok(works)
}

fn title(setting: &Setting, what: &str) -> String {
    format!(
        "\n## {} at {} px, batch {}, N = {}: {what}\n\n",
        setting.backbone.name, setting.image_size, setting.batch, setting.images
    )
}

fn counted(
    setting: &Setting,
    works: &[Work],
    cards: &[&'static Card],
    quiet: bool,
) -> Result<Value> {
    let mut counters = Counters::default();
    let (mut counts_rows, mut needs_rows, mut time_rows) = (Vec::new(), Vec::new(), Vec::new());
    let mut documents = Vec::new();
    for Work { role, op, .. } in works {
        let (counts, on_cards) = account(&mut counters, op, cards)?;
        let useful = op.useful_flops();
        let share = (counts.mma_flops > 0.0).then(|| useful / counts.mma_flops);
        let looped = counts.main_loop;
        let main = looped.unwrap_or_default();
        let machine = on_cards.first().and_then(|c| c.resources.main_loop);
        let others = machine.map(|(all, mma, _)| f64::from(all - mma) / f64::from(mma));
        let tensor = counts.mma_flops > 0.0;
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| String::from("-"));
        counts_rows.push(vec![
            format!("{role}: `{}`", op.entry()),
            op.shape(),
            or_dash(share.map(percent)),
            percent(counts.sector_efficiency()),
            or_dash(looped.map(|main| percent(main.sector_efficiency))),
            or_dash(looped.map(|main| main.conflicts.to_string())),
            or_dash(tensor.then(|| format!("{:.2}", main.others_per_mma))),
            or_dash(others.map(|o| format!("{o:.2}"))),
            or_dash(tensor.then(|| format!("{:.0}:1", main.mma_per_ldmatrix))),
        ]);
        let mut needs = vec![format!("`{}`", op.entry())];
        let mut times = vec![format!("{role}: `{}`", op.entry()), op.shape()];
        for on in &on_cards {
            let shape = op.launch(on.card.shared_bytes_per_block());
            let made = &on.modelled;
            needs.push(format!(
                "{} regs, {} spilled, {}+{} B, {}x{} warps ({})",
                on.resources.registers,
                on.resources.spilled,
                on.resources.shared_bytes,
                shape.shared_bytes,
                made.occupancy.blocks,
                made.occupancy.warps / made.occupancy.blocks.max(1),
                made.occupancy.limit
            ));
            let rate = if useful > 0.0 {
                format!(", {:.0} TF", useful / made.seconds / 1e12)
            } else {
                String::new()
            };
            times.push(format!("{:.1} ({}{rate})", made.seconds * 1e6, made.binding));
        }
        if !needs_rows.iter().any(|row: &Vec<String>| row.first() == needs.first()) {
            needs_rows.push(needs);
        }
        time_rows.push(times);
        documents.push(json!({
            "kernel": op.entry(),
            "role": role,
            "shape": op.shape(),
            "simulated": { "blocks": counts.simulated_blocks, "scale": counts.scale },
            "useful_flops": useful,
            "issued_flops": counts.mma_flops,
            "useful_share": share,
            "sector_efficiency": counts.sector_efficiency(),
            "bank_conflicts": counts.conflicts,
            "main_loop": looped.map(|main| json!({
                "sector_efficiency": main.sector_efficiency,
                "bank_conflicts": main.conflicts,
                "others_per_mma_ptx": tensor.then_some(main.others_per_mma),
                "others_per_mma_machine": others,
                "mma_per_ldmatrix": tensor.then_some(main.mma_per_ldmatrix),
            })),
            "dynamic_shared_bytes": op.launch(u32::MAX).shared_bytes,
            "cards": on_cards.iter().map(|on| {
                let mut value = on.modelled.json();
                value["card"] = json!(on.card.name);
                value["registers"] = json!(on.resources.registers);
                value["spilled_bytes"] = json!(on.resources.spilled);
                value["static_shared_bytes"] = json!(on.resources.shared_bytes);
                value
            }).collect::<Vec<_>>(),
        }));
    }
    if !quiet {
        let names = cards.iter().map(|card| card.name.to_string());
        out::print(&title(setting, "counted on the simulator"))?;
        let head = cells([
            "kernel",
            "shape",
            "useful ÷ issued tensor FLOP, %",
            "sectors needed ÷ asked, %",
            "in the main loop",
            "conflicts there",
            "others per mma, PTX",
            "machine code",
            "mma : ldmatrix",
        ]);
        out::print(&table(&head, &counts_rows))?;
        out::print(&title(
            setting,
            "what ptxas and the multiprocessor give (static + dynamic shared)",
        ))?;
        let head: Vec<String> = std::iter::once("kernel".into()).chain(names.clone()).collect();
        out::print(&table(&head, &needs_rows))?;
        out::print(&title(setting, "modelled µs of a launch (what binds, useful TFLOP/s)"))?;
        let head: Vec<String> = cells(["kernel", "shape"]).into_iter().chain(names).collect();
        out::print(&table(&head, &time_rows))?;
    }
    Ok(json!({
        "model": setting.backbone.name,
        "image_size": setting.image_size,
        "images": setting.images,
        "batch": setting.batch,
        "device": "sim",
        "times": "modelled",
        "kernels": documents,
    }))
}

/// The time of a launch on an open card whose kernels verified; none of those that come with another.
pub fn timed(timer: &mut Timer, op: &Op) -> Result<Option<Timed>> {
    interrupt::check()?;
    if measure::alone(op) { timer.time(op).map(Some) } else { Ok(None) }
}

/// The card of the model that an open card is, if it knows it.
fn known_card(info: &CardInfo) -> Option<&'static Card> {
    CARDS.iter().find(|known| {
        info.name.contains(&known.name.replace('-', " "))
            && (info.compute_capability, info.multiprocessors)
                == (known.arch, known.multiprocessors)
    })
}

/// Modelled seconds of a launch and what binds it, where the model knows the card.
fn modelled(
    counters: &mut Counters,
    op: &Op,
    known: Option<&'static Card>,
) -> Result<Option<Modelled>> {
    let Some(known) = known else { return Ok(None) };
    let (_, on_cards) = account(counters, op, &[known])?;
    Ok(on_cards.into_iter().next().map(|on| on.modelled))
}

fn measured(setting: &Setting, works: &[Work], number: usize, quiet: bool) -> Result<Value> {
    let card = OpenCard::open(number)?;
    let loaded = card.load_kernels(&())?;
    let known = known_card(card.info());
    let (mut timer, mut counters) = (Timer::new(&card)?, Counters::default());
    let (mut rows, mut documents) = (Vec::new(), Vec::new());
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| String::from("-"));
    let mut tell =
        |role: &str, kernel: String, op: &Op, time: Timed, modelled: Option<Modelled>| {
            let bytes = op.dram_bytes(card.info().l2_bytes as f64);
            let cold = time.cold;
            let over = modelled.as_ref().map(|made| cold.median_ms / 1e3 / made.seconds);
            let binding = modelled.as_ref().map(|made| made.binding);
            rows.push(vec![
                format!("{role}: `{kernel}`"),
                op.shape(),
                format!("{:.1}", cold.median_ms * 1e3),
                format!("{:.1} to {:.1}", cold.least_ms * 1e3, cold.most_ms * 1e3),
                format!("{:.1}", time.warm.median_ms * 1e3),
                format!("{:.1}", op.useful_flops() / cold.median_ms / 1e9),
                format!("{:.0}", bytes / cold.median_ms / 1e6),
                or_dash(over.zip(binding).map(|(over, binding)| format!("{over:.2} ({binding})"))),
            ]);
            documents.push(json!({
                "kernel": kernel,
                "role": role,
                "shape": op.shape(),
                "measured_us": cold.median_ms * 1e3,
                "least_us": cold.least_ms * 1e3,
                "most_us": cold.most_ms * 1e3,
                "warm": time.warm.json(),
                "useful_flops": op.useful_flops(),
                "dram_bytes_by_formula": bytes,
                "over_model": over,
                "binding": binding,
            }));
        };
    let mut product: Option<Op> = None;
    for Work { role, op, .. } in works {
        // The degree-1 path over all images at once is too much for a repeat; its chunk is that of the others.
        if matches!(op, Op::PatchDistance { .. }) {
            continue;
        }
        let Some(time) = timed(&mut timer, op)? else { continue };
        tell(role, op.entry(), op, time, modelled(&mut counters, op, known)?);
        if let (Op::Pool { .. }, Some(product)) = (op, &product) {
            let both = timer.time_chain(product, op)?;
            let kernel = format!("{} + {}", product.entry(), op.entry());
            tell("gram and pooling together", kernel, product, both, None);
        }
        if matches!(op, Op::Gram { .. }) {
            product = Some(op.clone());
        }
    }
    let ceilings = timer.ceilings()?;
    let told = smi::of_card(&smi::ask(), &card.info().name);
    if !quiet {
        out::print(&title(setting, &format!("measured on {}", card.info().name)))?;
        let head = cells([
            "kernel",
            "shape",
            "µs, median",
            "least to most",
            "cache warm",
            "useful TFLOP/s",
            "GB/s by formula",
            "÷ model (binds)",
        ]);
        out::print(&table(&head, &rows))?;
        let clocks =
            told.as_ref().map_or_else(|| String::from("clocks not known"), smi::Told::line);
        out::print(&format!(
            "\nThe card's own: {:.0} GB/s read and written, {:.1} TFLOP/s in a product of 8192³, {:.1} GB/s from the host, \
             {:.1} to it. Loading the kernels took {:.2} s. {clocks}.\n",
            ceilings.copy_gbs,
            ceilings.product_tflops,
            ceilings.to_card_gbs,
            ceilings.from_card_gbs,
            loaded.seconds
        ))?;
    }
    Ok(json!({
        "model": setting.backbone.name,
        "image_size": setting.image_size,
        "images": setting.images,
        "batch": setting.batch,
        "device": card.info().label,
        "card": card.info().name,
        "times": "measured",
        "repeats": measure::REPEATS,
        "ceilings": ceilings.json(),
        "load_seconds": loaded.seconds,
        "nvidia_smi": told.map(|told| told.json()),
        "kernels": documents,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_is_known_by_name_and_size() {
        let info = |name: &str, compute_capability, multiprocessors| CardInfo {
            label: "cuda:0".into(),
            name: name.into(),
            compute_capability,
            multiprocessors,
            memory_bytes: 0,
            l2_bytes: 0,
            shared_bytes_per_block: 0,
            cuda_version: (12, 0),
        };
        let name = |info: &CardInfo| known_card(info).map(|card| card.name);
        assert_eq!(name(&info("NVIDIA GeForce RTX 3090", 86, 82)), Some("RTX-3090"));
        assert_eq!(name(&info("NVIDIA GeForce RTX 3090 Ti", 86, 84)), None);
        assert_eq!(name(&info("NVIDIA A100-SXM4-80GB", 80, 108)), Some("A100"));
        assert_eq!(name(&info("NVIDIA A100-SXM4-80GB MIG 3g.40gb", 80, 42)), None);
    }
}
