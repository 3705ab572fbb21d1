//! A batch in blocks, each with a holder of its own, comes to the bits of the batch scored whole.

#[cfg(feature = "sim")]
use musc::backend::device::Device;
use musc::backend::{Backend, FeatureSet};
use musc::inspect::{Batch, Block, Inspection, Inspector, Part, Regions, Subsets};
use musc::report::write_image;
use musc::scoring::MutualScoring;

use crate::parts::bits;
use crate::support::{builder, frame, frames};

/// The inspection by way of blocks of about so many images, each held by an inspector of its own.
fn in_blocks(make: &dyn Fn() -> Inspector, batch: &Batch, images: usize) -> Inspection {
    let first = make();
    let plan = first.plan(batch, &()).unwrap();
    let all = plan.part(0).unwrap().len();
    let job = first.store_terms(batch, &plan).unwrap().job(images);
    let runs = (0..all).step_by(images).map(|start| start..all.min(start + images));
    let holders: Vec<(Inspector, Block)> = runs
        .map(|run| {
            let one = make();
            let block = one.block(batch, &plan, run, &()).unwrap();
            (one, block)
        })
        .collect();
    let sizes: Vec<usize> = holders.iter().map(|(_, block)| block.len()).collect();
    let tokens: Vec<_> =
        holders.iter().map(|(_, block)| block.features().to_host().unwrap()).collect();
    let mut parts = Vec::new();
    for (own, (one, block)) in holders.into_iter().enumerate() {
        let mut scoring = one.block_scoring(&sizes, own, &block).unwrap();
        for group in 0..scoring.groups() {
            for layer in 0..tokens[own].layers.len() {
                let mut pass = scoring.begin(group, layer).unwrap();
                scoring.within(&mut pass, &()).unwrap();
                for other in (0..sizes.len()).filter(|&other| other != own) {
                    let part = tokens[other].part(0..sizes[other], layer).unwrap();
                    let part = one.backend().upload(part).unwrap();
                    scoring.take(&mut pass, other, &part, &()).unwrap();
                }
                scoring.finish(pass).unwrap();
            }
        }
        let scores = scoring.scores().unwrap();
        let part = one.part_of_block(block, &scores).unwrap();
        parts.push(part.to_bytes(&job).unwrap());
    }
    // A part is of its job alone.
    let said = Part::of_bytes(&parts[0], "another").unwrap_err().to_string();
    assert!(said.contains("job"), "{said}");
    let parts = parts.iter().map(|bytes| Part::of_bytes(bytes, &job));
    first.join(batch, &plan, parts, &()).unwrap()
}

#[test]
fn blocks_come_to_the_bits_of_one_run() {
    let right = Regions::everywhere().with_border(9);
    type Make = fn() -> Inspector;
    let makers: [(&str, Make); 3] = [
        ("all", || builder().build().unwrap()),
        ("authors", || builder().paper().subsets(Subsets::All).build().unwrap()),
        ("groups", || {
            let scoring = MutualScoring::default().with_table_bytes(Some(3 * 3 * 13 * 16 * 4));
            builder().scoring(scoring).subsets(Subsets::All).build().unwrap()
        }),
    ];
    for batch in [frames(13, 60, 52), frames(13, 60, 52).with_regions(right).unwrap()] {
        for (name, make) in makers {
            let whole = make().inspect(&batch, &()).unwrap();
            for images in [13, 6, 5] {
                let found = in_blocks(&make, &batch, images);
                assert_eq!(bits(&found), bits(&whole), "{name}, blocks of {images}");
                assert_eq!(found.notes(), whole.notes(), "{name}");
            }
        }
    }
}

#[test]
fn unreadable_files_are_no_part_of_a_block() {
    let folder = tempfile::tempdir().unwrap();
    for seed in 0..9 {
        write_image(&folder.path().join(format!("{seed:02}.png")), &frame(seed, 60, 52)).unwrap();
    }
    for bad in ["03.png", "06.png"] {
        std::fs::write(folder.path().join(bad), b"no image").unwrap();
    }
    let batch = Batch::folder(folder.path()).unwrap().skip_bad(true);
    let make = || builder().build().unwrap();
    let whole = make().inspect(&batch, &()).unwrap();
    let found = in_blocks(&make, &batch, 4);
    assert_eq!(bits(&found), bits(&whole));
    assert_eq!((found.len(), found.skipped()), (7, whole.skipped()));
}

#[cfg(feature = "sim")]
#[test]
fn a_simulated_card_s_blocks_come_to_the_same() {
    let make = || builder().size(42).device(Device::Sim).build().unwrap();
    let batch = frames(5, 60, 52).with_regions(Regions::everywhere().with_border(9)).unwrap();
    let whole = make().inspect(&batch, &()).unwrap();
    let found = in_blocks(&make, &batch, 3);
    assert_eq!(bits(&found), bits(&whole));
}

#[test]
fn what_is_not_all_against_all_is_named() {
    let batch = frames(9, 60, 52);
    let one = builder().subsets(Subsets::References(2)).build().unwrap();
    let plan = one.plan(&batch, &()).unwrap();
    let said = one.block(&batch, &plan, 0..2, &()).unwrap_err().to_string();
    assert!(said.contains("subsets of the batch: found 3"), "{said}");
    let one = builder().build().unwrap();
    let plan = one.plan(&batch, &()).unwrap();
    for run in [7..11, 3..3] {
        let said = one.block(&batch, &plan, run, &()).unwrap_err().to_string();
        assert!(said.contains("some of 9"), "{said}");
    }
}
