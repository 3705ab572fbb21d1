//! What was found, as text and as a document that holds no path and no name of a user.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::args::{SumsArg, VerifyArgs};
use super::super::text::{cells, table};
use super::{Class, Findings, Record, Verdict, verdicts, whole};
use crate::shell::out;
use crate::smi;
use musc::Result;
use musc::backend::cuda::kernels::{KERNEL_ORIGIN, decimal, ptx_for, stems};

/// For what cannot be seen from inside: on a card, with NVIDIA's toolkit.
const SANITIZER: [&str; 5] = [
    "compute-sanitizer --tool memcheck musc-bench verify --device cuda:0 --quick --kernels-only",
    "compute-sanitizer --tool racecheck musc-bench verify --device cuda:0 --quick --kernels-only",
    "compute-sanitizer --tool synccheck musc-bench verify --device cuda:0 --quick --kernels-only",
    "compute-sanitizer --tool initcheck musc-bench verify --device cuda:0 --quick --kernels-only",
    "CUDA_LAUNCH_BLOCKING=1 musc-bench verify --device cuda:0 --quick --kernels-only",
];

/// Prints the report.
pub fn tell(findings: &Findings, args: &VerifyArgs) -> Result<()> {
    let all = smi::ask();
    let told = smi::of_card(&all, &findings.card.info().name);
    if args.json {
        return out::print_json(&document(findings, told.as_ref()));
    }
    out::print(&text(findings, told.as_ref()))
}

/// The last words of a run that found something.
pub fn summary(findings: &Findings) -> String {
    let verdicts = verdicts(&findings.entries, &findings.records);
    let of = |wanted: Verdict| verdicts.values().filter(|verdict| **verdict == wanted).count();
    let missed = findings.defects.iter().filter(|seeded| !seeded.caught()).count();
    let mut parts = vec![format!(
        "{} of {} kernels verified, {} differ, {} not run",
        of(Verdict::Verified),
        verdicts.len(),
        of(Verdict::Differs),
        of(Verdict::NotRun)
    )];
    if missed > 0 {
        parts.push(format!("{missed} seeded defects went unnoticed"));
    }
    if findings.repeats.as_ref().is_some_and(|repeats| !repeats.verified()) {
        parts.push(String::from("the scoring does not repeat"));
    }
    if findings.images.as_ref().is_some_and(|images| !images.verified()) {
        parts.push(String::from("scores of images differ from the CPU's"));
    }
    parts.join("; ")
}

/// A hash of all PTX that the card gets (FNV-1a), to tell builds apart.
fn kernels_hash(findings: &Findings) -> String {
    let texts = stems().into_iter().filter_map(|stem| ptx_for(stem, findings.card.info()).ok());
    let bytes = texts.flat_map(|(_, ptx)| ptx.bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

fn number(value: Option<u32>) -> String {
    value.map_or_else(|| String::from("-"), |value| value.to_string())
}

fn scientific(value: f64) -> String {
    if value == 0.0 { String::from("0") } else { format!("{value:.1e}") }
}

/// The records of one output in one class: the worst of each figure over the shapes.
struct Row<'a> {
    records: Vec<&'a Record>,
}

impl Row<'_> {
    fn most(&self, of: impl Fn(&super::Judged) -> f64) -> f64 {
        let judged = self.records.iter().filter_map(|record| record.result.as_ref().ok());
        judged
            .map(of)
            .fold(0.0, |most, value| if value.abs() > f64::abs(most) { value } else { most })
    }
}

fn rows(records: &[Record]) -> BTreeMap<(String, Class), Row<'_>> {
    let mut rows: BTreeMap<_, Row<'_>> = BTreeMap::new();
    for record in records {
        let class = match &record.result {
            Ok(judged) if judged.exact => Class::Exact,
            Ok(_) => Class::Rounding,
            Err(_) => record.class,
        };
        let name = format!("`{}` {}", record.entry, record.output);
        rows.entry((name, class))
            .or_insert_with(|| Row { records: Vec::new() })
            .records
            .push(record);
    }
    rows
}

fn text(findings: &Findings, told: Option<&smi::Told>) -> String {
    let info = findings.card.info();
    let mut text = format!(
        "## {}: {}\n\ncapability   {}, {} multiprocessors, L2 {:.1} MB, memory {:.1} GB, {} KiB shared a block\n",
        info.label,
        info.name,
        decimal(info.compute_capability),
        info.multiprocessors,
        info.l2_bytes as f64 / 1e6,
        info.memory_bytes as f64 / 1e9,
        info.shared_bytes_per_block >> 10,
    );
    let (major, minor) = info.cuda_version;
    text += &format!("driver       knows CUDA {major}.{minor}\n");
    let smi = told.map_or_else(|| String::from("not known"), smi::Told::line);
    text += &format!("nvidia-smi   {smi}\n");
    text += &format!(
        "kernels      {KERNEL_ORIGIN}, hash {}, musc {}\n",
        kernels_hash(findings),
        crate::version()
    );
    let (longest, stem) = findings.loaded.longest;
    text += &format!(
        "loading      {:.2} s (the driver's compiler or its cache), {longest:.2} s of it {stem}\n",
        findings.loaded.seconds
    );
    let shapes = if findings.quick { "small shapes; --full takes all" } else { "all shapes" };
    if findings.sums != SumsArg::F32 {
        text +=
            &format!("sums         of tensor cores cut toward zero, as an {:?}'s\n", findings.sums);
    }
    text += &format!("verified on  {shapes}, in {:.1} s\n", findings.seconds);

    text += "\n## Kernels\n\n";
    let verdicts = verdicts(&findings.entries, &findings.records);
    let kernels: Vec<Vec<String>> = verdicts
        .iter()
        .map(|(entry, verdict)| {
            let of_entry = findings.records.iter().filter(|record| record.entry == *entry).count();
            let loaded = findings.loaded.entries.get(entry);
            let table = loaded.and_then(|l| l.table);
            vec![
                format!("`{entry}`"),
                verdict.name().to_string(),
                of_entry.to_string(),
                number(loaded.and_then(|l| l.registers)),
                number(table.map(|t| t.0)),
                number(loaded.and_then(|l| l.local_bytes)),
                number(loaded.and_then(|l| l.blocks)),
            ]
        })
        .collect();
    let head = cells([
        "kernel",
        "verdict",
        "outputs",
        "registers",
        "by ptxas",
        "local bytes",
        "blocks an SM",
    ]);
    text += &table(&head, &kernels);

    text += "\n## Errors, the worst over the shapes (bias: below 0 is too near zero)\n\n";
    let errors: Vec<Vec<String>> = rows(&findings.records)
        .iter()
        .map(|((name, class), row)| {
            let (max_bound, l2_bound) = (row.most(|j| j.max_abs.1), row.most(|j| j.relative.1));
            vec![
                name.clone(),
                class.name().to_string(),
                row.records.len().to_string(),
                format!("{:.3}", row.most(|j| j.worst)),
                format!("{} of {}", scientific(row.most(|j| j.max_abs.0)), scientific(max_bound)),
                format!("{} of {}", scientific(row.most(|j| j.relative.0)), scientific(l2_bound)),
                scientific(row.most(|j| j.bias)),
                scientific(row.most(|j| j.spread)),
            ]
        })
        .collect();
    let head = cells([
        "output",
        "class",
        "shapes",
        "÷ bound",
        "max, of bound",
        "relative L2, of bound",
        "bias",
        "spread",
    ]);
    text += &table(&head, &errors);

    text += "\n## Seeded defects\n\n";
    let defects: Vec<Vec<String>> = findings
        .defects
        .iter()
        .map(|seeded| {
            let found =
                if seeded.caught() { seeded.told[0].clone() } else { String::from("UNNOTICED") };
            vec![format!("{}: {}", seeded.stem, seeded.fault), found]
        })
        .collect();
    text += &table(&cells(["fault", "found"]), &defects);
    text += &whole_text(findings);

    let bad: Vec<&Record> = findings.records.iter().filter(|record| !record.verified()).collect();
    if !bad.is_empty() {
        text += "\n## Differences\n\n";
        for record in bad {
            text += &format!(
                "* `{}` {}, {} ({}): {}\n",
                record.entry,
                record.output,
                record.shape,
                record.class.name(),
                faults(record)
            );
        }
    }
    text += "\n## What this cannot see\n\nRaces, reads of memory that nobody wrote, accesses outside allocations:\n\n";
    for line in SANITIZER {
        text += &format!("    {line}\n");
    }
    text += &format!(
        "\n{}\n",
        if findings.verified() {
            format!("verified: {}", summary(findings))
        } else {
            String::from("NOT verified")
        }
    );
    text
}

fn faults(record: &Record) -> String {
    match &record.result {
        Ok(judged) => judged.faults().join("; "),
        Err(reason) => reason.clone(),
    }
}

fn whole_text(findings: &Findings) -> String {
    let mut text = String::new();
    if let Some(repeats) = &findings.repeats {
        text += &format!("\n## The whole scoring, bits equal ({})\n\n", repeats.shape);
        for way in &repeats.ways {
            let others = match &way.others {
                Ok(0) => String::from("equal"),
                Ok(others) => format!("{others} DIFFER"),
                Err(reason) => format!("FAILED: {reason}"),
            };
            text += &format!("* {} times {}: {others}\n", way.times, way.what);
        }
    }
    match &findings.images {
        Some(whole) => {
            let (of_tokens, of_scores) = whole::Whole::bounds();
            let auroc =
                |auroc: Option<f64>| auroc.map_or_else(|| String::from("-"), |a| format!("{a:.4}"));
            text += &format!(
                "\n## Images to scores, against the CPU ({} sample images at {} px, DINOv2-S{})\n\n",
                whole.images,
                whole.side,
                if findings.quick { "; --full takes 30 at 448 px" } else { "" }
            );
            text +=
                &format!("* tokens: relative L2 {} of {of_tokens:e}\n", scientific(whole.tokens));
            text += &format!(
                "* patch scores: at most {} of {of_scores:e}\n",
                scientific(whole.patch_scores)
            );
            text +=
                &format!("* image scores: at most {} of {of_scores:e}\n", scientific(whole.scores));
            text +=
                &format!("* AUROC {}, on the CPU {}\n", auroc(whole.auroc.0), auroc(whole.auroc.1));
        }
        None => text += "\nImages to scores: not run.\n",
    }
    text
}

fn document(findings: &Findings, told: Option<&smi::Told>) -> Value {
    let info = findings.card.info();
    let verdicts = verdicts(&findings.entries, &findings.records);
    let kernels: Vec<Value> = verdicts
        .iter()
        .map(|(entry, verdict)| {
            let of_entry = findings.records.iter().filter(|record| record.entry == *entry);
            let outputs: Vec<Value> = of_entry
                .map(|record| {
                    let mut value = match &record.result {
                        Ok(judged) => judged.json(),
                        Err(reason) => json!({ "verdict": "failed", "faults": [reason] }),
                    };
                    value["output"] = json!(record.output);
                    value["shape"] = json!(record.shape);
                    value
                })
                .collect();
            let loaded = findings.loaded.entries.get(entry);
            let table = loaded.and_then(|l| l.table);
            json!({
                "kernel": entry,
                "verdict": verdict.name(),
                "registers": loaded.and_then(|l| l.registers),
                "local_bytes": loaded.and_then(|l| l.local_bytes),
                "registers_by_ptxas": table.map(|t| t.0),
                "spilled_by_ptxas": table.map(|t| t.1),
                "blocks_a_multiprocessor": loaded.and_then(|l| l.blocks),
                "outputs": outputs,
            })
        })
        .collect();
    let defects: Vec<Value> = findings
        .defects
        .iter()
        .map(|seeded| json!({ "kernel": seeded.stem, "fault": seeded.fault, "caught": seeded.caught(), "told": seeded.told }))
        .collect();
    let repeats = findings.repeats.as_ref().map(|repeats| {
        let ways: Vec<Value> = repeats
            .ways
            .iter()
            .map(|way| match &way.others {
                Ok(others) => json!({ "way": way.what, "times": way.times, "others": others }),
                Err(reason) => json!({ "way": way.what, "times": way.times, "failed": reason }),
            })
            .collect();
        json!({ "shape": repeats.shape, "verified": repeats.verified(), "ways": ways })
    });
    let (of_tokens, of_scores) = whole::Whole::bounds();
    let images = findings.images.as_ref().map(|whole| {
        json!({
            "images": whole.images,
            "side": whole.side,
            "verified": whole.verified(),
            "tokens_relative_l2": whole.tokens,
            "tokens_bound": of_tokens,
            "patch_scores_max_abs": whole.patch_scores,
            "image_scores_max_abs": whole.scores,
            "scores_bound": of_scores,
            "auroc": whole.auroc.0,
            "auroc_cpu": whole.auroc.1,
        })
    });
    json!({
        "kind": "verify",
        "verdict": if findings.verified() { "verified" } else { "differs" },
        "summary": summary(findings),
        "version": crate::version(),
        "system": format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        "shapes": if findings.quick { "quick" } else { "full" },
        "sums": format!("{:?}", findings.sums).to_lowercase(),
        "seconds": findings.seconds,
        "device": {
            "label": info.label,
            "name": info.name,
            "compute_capability": decimal(info.compute_capability),
            "multiprocessors": info.multiprocessors,
            "memory_bytes": info.memory_bytes,
            "l2_bytes": info.l2_bytes,
            "shared_bytes_a_block": info.shared_bytes_per_block,
            "cuda_version": format!("{}.{}", info.cuda_version.0, info.cuda_version.1),
            "nvidia_smi": told.map(smi::Told::json),
        },
        "kernels_origin": KERNEL_ORIGIN,
        "kernels_hash": kernels_hash(findings),
        "load_seconds": findings.loaded.seconds,
        "kernels": kernels,
        "seeded_defects": defects,
        "scoring": repeats,
        "images_to_scores": images,
        "sanitizer": SANITIZER,
    })
}
