//! A batch by several workers: the same bits, whoever makes which part, and stores that do not mix jobs.

use std::path::Path;

use musc::inspect::{
    Batch, Inspection, Inspector, Part, PartStore, Plan, Regions, Subsets, TileMatch, Tiles,
};
use musc::report::write_image;
use musc::scoring::decision::DecisionRule;
use musc::{Error, ImageSize, Result};
use serde_json::json;

use crate::support::{builder, frame, frames};

fn inspector(references: usize) -> Inspector {
    builder().subsets(Subsets::References(references)).build().unwrap()
}

/// Everything that a run's numbers are made of, bit by bit.
pub fn bits(found: &Inspection) -> Vec<u64> {
    let mut bits: Vec<u64> = found.scores().iter().map(|score| score.to_bits()).collect();
    bits.extend(found.raw_scores().iter().map(|score| u64::from(score.to_bits())));
    for image in 0..found.len() {
        bits.extend(found.patch_scores(image).0.iter().map(|score| u64::from(score.to_bits())));
        bits.extend(found.class_token(image).iter().map(|value| u64::from(value.to_bits())));
        bits.extend(found.left_out(image).iter().map(|&mark| u64::from(mark)));
        let size = found.image_size(image).unwrap();
        bits.extend([size.height as u64, size.width as u64]);
    }
    bits.extend(found.kept().iter().map(|&at| at as u64));
    bits.push(found.subsets() as u64);
    bits
}

/// The parts of a plan by way of a folder, made by a worker of their own each, the last one first.
fn by_way_of_a_folder(folder: &Path, make: impl Fn() -> Inspector, batch: &Batch) -> Inspection {
    let plan_of = |one: &Inspector| {
        let plan = one.plan(batch, &()).unwrap();
        let terms = one.store_terms(batch, &plan).unwrap();
        let store = PartStore::open(folder, &terms, plan.len(), &json!("x")).unwrap();
        (plan, store)
    };
    let parts = plan_of(&make()).0.len();
    for part in (0..parts).rev() {
        let one = make();
        let (plan, store) = plan_of(&one);
        assert_eq!(store.missing(), (0..=part).collect::<Vec<_>>());
        store.write(part, &one.inspect_part(batch, &plan, part, &()).unwrap()).unwrap();
    }
    let one = make();
    let (plan, store) = plan_of(&one);
    let read = |part| store.read(part).map(|part| part.expect("it is there"));
    one.join(batch, &plan, (0..plan.len()).map(read), &()).unwrap()
}

#[test]
fn parts_come_to_the_bits_of_one_run() {
    let folder = tempfile::tempdir().unwrap();
    let right = Regions::everywhere().with_border(9);
    let batches = [frames(23, 60, 52), frames(23, 60, 52).with_regions(right).unwrap()];
    for (at, batch) in batches.iter().enumerate() {
        type Make = fn() -> Inspector;
        let makers: [(&str, usize, Make); 5] = [
            ("subsets", 5, || inspector(4)),
            ("one", 1, || builder().build().unwrap()),
            ("divided", 3, || builder().subsets(Subsets::Divide(3)).build().unwrap()),
            ("authors", 4, || builder().paper().subsets(Subsets::References(5)).build().unwrap()),
            ("tiles", 4, || {
                let tiles = Tiles::new(2, 1).unwrap().with_matching(TileMatch::Any);
                builder().tiles(tiles).subsets(Subsets::References(5)).build().unwrap()
            }),
        ];
        for (name, parts, make) in makers {
            let whole = make().inspect(batch, &()).unwrap();
            assert_eq!(whole.subsets(), parts, "{name}");
            let found = by_way_of_a_folder(&folder.path().join(format!("{name}{at}")), make, batch);
            assert_eq!(bits(&found), bits(&whole), "{name} {at}");
            assert_eq!(found.notes(), whole.notes(), "{name} {at}");
            assert_eq!(found.image_size(22).unwrap(), ImageSize::new(52, 60));
            // Of the last subset as well as of the first.
            assert!((0..23).all(|image| found.left_out(image).contains(&true) == (at == 1)));
            // What figures are made of, where they are to equal the authors'.
            let (a, b) =
                (found.thresholds(DecisionRule::Mebin), whole.thresholds(DecisionRule::Mebin));
            assert_eq!(a.unwrap(), b.unwrap(), "{name}");
        }
    }
}

#[test]
fn parts_of_a_comparison_come_to_the_bits_of_one() {
    let one = builder().build().unwrap();
    let references = one.learn(&frames(9, 60, 52), &()).unwrap();
    let batch = frames(150, 60, 52);
    let whole = one.compare(&batch, &references, &()).unwrap();
    let plan = one.plan_to_compare(&batch, &references).unwrap();
    assert_eq!(plan.len(), 3);
    let folder = tempfile::tempdir().unwrap();
    let terms = one.store_terms(&batch, &plan).unwrap().with("references", "nine");
    let store = PartStore::open(folder.path(), &terms, plan.len(), &json!(null)).unwrap();
    for part in [1, 0, 2] {
        let made = one.compare_part(&batch, &plan, part, &references, &()).unwrap();
        store.write(part, &made).unwrap();
    }
    let parts = [2, 0, 1].map(|part| store.read(part).map(|part| part.expect("it is there")));
    let found = one.join_compared(&batch, &plan, parts, &references, &()).unwrap();
    assert_eq!(bits(&found), bits(&whole));
}

#[test]
fn files_that_cannot_be_read_are_told_of_once() {
    let folder = tempfile::tempdir().unwrap();
    for seed in 0..15 {
        write_image(&folder.path().join(format!("{seed:02}.png")), &frame(seed, 60, 52)).unwrap();
    }
    for bad in ["03.png", "11.png"] {
        std::fs::write(folder.path().join(bad), b"no image").unwrap();
    }
    let batch = Batch::folder(folder.path()).unwrap().skip_bad(true);
    for references in [4, 100] {
        let whole = inspector(references).inspect(&batch, &()).unwrap();
        let store = folder.path().join(format!("store {references}"));
        let found = by_way_of_a_folder(&store, || inspector(references), &batch);
        assert_eq!(bits(&found), bits(&whole));
        assert_eq!((found.len(), found.skipped().len()), (13, 2));
        assert_eq!(found.skipped(), whole.skipped());
    }
    // Where they are not skipped, the worker whose part they are in tells.
    let strict = Batch::folder(folder.path()).unwrap();
    let one = inspector(4);
    let plan = one.plan(&strict, &()).unwrap();
    let holds_bad = |part: usize| plan.part(part).unwrap().iter().any(|at| [3, 11].contains(at));
    for part in 0..plan.len() {
        let made = one.inspect_part(&strict, &plan, part, &());
        assert_eq!(matches!(made, Err(Error::BadImages { .. })), holds_bad(part), "{part}");
    }
}

fn plan_and_parts(one: &Inspector, batch: &Batch) -> (Plan, Vec<Part>) {
    let plan = one.plan(batch, &()).unwrap();
    let parts = (0..plan.len()).map(|part| one.inspect_part(batch, &plan, part, &()).unwrap());
    let parts = parts.collect();
    (plan, parts)
}

#[test]
fn parts_that_do_not_make_a_batch_are_refused() {
    let (one, batch) = (inspector(4), frames(15, 60, 52));
    let (plan, parts) = plan_and_parts(&one, &batch);
    let said =
        |parts: Vec<Result<Part>>| one.join(&batch, &plan, parts, &()).unwrap_err().to_string();
    let some = |which: &[usize]| which.iter().map(|&at| Ok(parts[at].clone())).collect();
    assert!(said(some(&[0, 2])).contains("5 of 15 images in none"));
    assert!(said(some(&[0, 1, 1])).contains("one of no other part"));
    let other = inspector(6);
    let (_, others) = plan_and_parts(&other, &frames(30, 60, 52));
    let foreign = others.into_iter().find(|part| part.places().iter().any(|&at| at > 14)).unwrap();
    assert!(said(vec![Ok(foreign)]).contains("one of the batch"));
    let small = builder().size(42).subsets(Subsets::References(4)).build().unwrap();
    let (_, smaller) = plan_and_parts(&small, &batch);
    let mixed = vec![Ok(parts[0].clone()), Ok(smaller[1].clone())];
    assert!(said(mixed).contains("found 9 patch scores in f32"), "{}", said(some(&[0])));
    let lost = Error::invalid("part", "lost", "found");
    assert!(said(vec![Err(lost)]).contains("lost"));
    assert!(one.inspect_part(&batch, &plan, 3, &()).unwrap_err().to_string().contains("below 3"));
}

#[test]
fn a_folder_is_of_one_job() {
    let folder = tempfile::tempdir().unwrap();
    let batch = frames(15, 60, 52);
    let open = |one: &Inspector, batch: &Batch, folder: &Path| {
        let plan = one.plan(batch, &())?;
        let terms = one.store_terms(batch, &plan)?;
        PartStore::open(folder, &terms, plan.len(), &json!({"words": ["a"]}))
    };
    let one = inspector(4);
    let (plan, parts) = plan_and_parts(&one, &batch);
    let store = open(&one, &batch, folder.path()).unwrap();
    store.write(0, &parts[0]).unwrap();
    assert_eq!(store.read(0).unwrap().as_ref(), Some(&parts[0]));
    assert_eq!(store.read(1).unwrap(), None);
    assert_eq!(PartStore::found(folder.path()).unwrap().note(), &json!({"words": ["a"]}));
    let names = |from: usize| (0..15).map(move |at| format!("{}.png", at + from));
    let said = |one: Inspector, batch: &Batch| {
        let error = open(&one, batch, folder.path()).unwrap_err();
        assert!(matches!(error, Error::Dataset { .. }), "{error:?}");
        error.to_string()
    };
    let text = said(builder().size(42).subsets(Subsets::References(4)).build().unwrap(), &batch);
    assert!(text.contains("size 56x56, this job 42x42"), "{text}");
    let text = said(inspector(7), &batch);
    assert!(text.contains("about 4 references") && text.contains("3 parts, this job"), "{text}");
    let seeded = builder().subsets(Subsets::References(4)).seed(3).build().unwrap();
    assert!(said(seeded, &batch).contains("seed 0, this job 3"));
    let renamed = frames(15, 60, 52).with_names(names(7)).unwrap();
    let text = said(inspector(4), &renamed);
    assert!(text.contains("images whose first other one") && text.contains("7.png,0"), "{text}");
    let text = said(inspector(4), &frames(14, 60, 52));
    assert!(text.contains("15 images, this job 14"), "{text}");
    let bordered = frames(15, 60, 52).with_regions(Regions::everywhere().with_border(3)).unwrap();
    assert!(said(inspector(4), &bordered).contains("regions"));

    // A part of another job, a flipped bit, a cut file.
    let other = tempfile::tempdir().unwrap();
    let others = open(&inspector(4), &renamed, other.path()).unwrap();
    std::fs::copy(store.path(0), others.path(0)).unwrap();
    assert!(others.read(0).unwrap_err().to_string().contains("no part of this job"));
    let whole = std::fs::read(store.path(0)).unwrap();
    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 1;
    std::fs::write(store.path(0), &flipped).unwrap();
    assert!(store.read(0).unwrap_err().to_string().contains("not those that were written"));
    std::fs::write(store.path(0), &whole[..whole.len() - 9]).unwrap();
    assert!(store.read(0).is_err());
    assert_eq!(plan.len(), store.parts());
    std::fs::write(folder.path().join("manifest.json"), "{}").unwrap();
    let said = PartStore::found(folder.path()).unwrap_err().to_string();
    assert!(said.contains("no manifest of a folder of parts"), "{said}");
    let said = PartStore::found(&folder.path().join("none")).unwrap_err().to_string();
    assert!(said.contains("found no manifest"), "{said}");
}
