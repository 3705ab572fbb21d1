//! Regions of interest: what lies outside is in no number.

use musc::image::{RegionMask, RgbImage};
use musc::inspect::{Batch, InputSize, Inspection, Inspector, PictureFiles, Regions, Subsets};
use musc::report::write_image;
use musc::{Error, ImageSize, Stage};

use crate::support::{Watcher, builder, exact, frame, frames};

fn inspector() -> Inspector {
    builder().build().unwrap()
}

/// The left half of frames of 60x52 pixels.
fn left_half() -> Regions {
    let size = ImageSize::new(52, 60);
    Regions::mask(RegionMask::new(size, (0..52 * 60).map(|at| at % 60 < 30).collect()).unwrap())
}

fn with_regions(regions: Regions) -> Batch {
    frames(8, 60, 52).with_regions(regions).unwrap()
}

fn map(inspection: &Inspection, image: usize) -> Vec<f32> {
    let mut map = vec![f32::NAN; 56 * 56];
    inspection.map(image, ImageSize::square(56), &mut map).unwrap();
    map
}

#[test]
fn a_region_over_the_whole_image_changes_no_bit() {
    let plain = inspector().inspect(&frames(8, 60, 52), &()).unwrap();
    let whole = RegionMask::everywhere(ImageSize::new(52, 60));
    for regions in [Regions::everywhere(), Regions::mask(whole)] {
        let found = inspector().inspect(&with_regions(regions), &()).unwrap();
        assert_eq!(found.scores(), plain.scores());
        assert_eq!(found.raw_scores(), plain.raw_scores());
        for image in 0..8 {
            assert_eq!(found.patch_scores(image), plain.patch_scores(image));
            assert_eq!(map(&found, image), map(&plain, image));
            assert!(found.left_out(image).is_empty());
        }
    }
}

#[test]
fn what_lies_outside_is_in_no_number() {
    let inspector = exact().build().unwrap();
    let found = inspector.inspect(&with_regions(left_half()), &()).unwrap();
    // Four patches of 14 in a row, 15 pixels each: two are inside.
    let row = [false, false, true, true];
    for image in 0..8 {
        assert_eq!(found.left_out(image), [row; 4].concat());
        let (scores, _) = found.patch_scores(image);
        assert!(scores.iter().zip(found.left_out(image)).all(|(&s, &out)| (s == 0.0) == out));
        let map = map(&found, image);
        for (at, &value) in map.iter().enumerate() {
            assert_eq!(value == 0.0, at % 56 >= 28, "image {image} pixel {at}");
        }
        let largest = map.iter().copied().fold(0.0, f32::max);
        assert_eq!(found.raw_scores()[image], largest);
    }
    // By the definition in f64, of the same tokens.
    let batch = with_regions(left_half());
    let features = inspector.features(&batch, &()).unwrap().0;
    assert_eq!(features.left_out, [row; 4 * 8].concat());
    let (mut expected, mut bounds) = (vec![0.0; 8 * 16], vec![0.0; 8 * 16]);
    let scoring = inspector.mutual_scoring();
    for tokens in &features.tokens {
        let layer = musc::scoring::reference::Layer {
            tokens,
            images: 8,
            grid: features.grid,
            width: features.width,
            left_out: &features.left_out,
        };
        for &degree in &scoring.degrees {
            let of = musc::scoring::reference::patch_scores(&layer, None, degree, scoring);
            let terms = (features.tokens.len() * scoring.degrees.len()) as f64;
            for (at, score) in of.into_iter().enumerate() {
                expected[at] += score / terms;
                // The bound of one term is that of tests/patch_scores.rs.
                bounds[at] += 1e-6 / score.max(1e-3) / terms;
            }
        }
    }
    for (at, &expected) in expected.iter().enumerate() {
        let score = f64::from(found.patch_scores(at / 16).0[at % 16]);
        assert!((score - expected).abs() <= bounds[at], "{at}: {score} {expected}");
    }
}

#[test]
fn a_defect_outside_is_not_seen_and_one_inside_is() {
    // The bright square of image 6 is in columns 20 to 36 of 60, rows 16 to 32 of 52.
    let regions = |inside: fn(usize, usize) -> bool| {
        let size = ImageSize::new(52, 60);
        let pixels = (0..52 * 60).map(|at| inside(at % 60, at / 60)).collect();
        Regions::mask(RegionMask::new(size, pixels).unwrap())
    };
    let inspector = inspector();
    let raw = |batch: Batch| inspector.inspect(&batch, &()).unwrap().raw_scores().to_vec();
    let inside = raw(with_regions(regions(|x, _| x < 40)));
    assert!((0..8).filter(|&at| at != 6).all(|at| inside[at] < inside[6]), "{inside:?}");
    // The last column of patches, which it does not touch.
    let outside = raw(with_regions(regions(|x, _| x >= 45)));
    let all = raw(frames(8, 60, 52));
    assert!(outside[6] < 0.5 * all[6], "{outside:?} {all:?}");
}

#[test]
fn references_have_their_region_too() {
    let inspector = inspector();
    let set = inspector.learn(&with_regions(left_half()), &()).unwrap();
    let alone = inspector.inspect(&with_regions(left_half()), &()).unwrap();
    assert_eq!(set.raw_scores(), alone.raw_scores());
    let others = Batch::images((20..24).map(|seed| frame(seed, 60, 52)).collect()).unwrap();
    let found = inspector.compare(&others.clone().with_regions(left_half()).unwrap(), &set, &());
    let found = found.unwrap();
    for image in 0..4 {
        let (scores, _) = found.patch_scores(image);
        assert!(scores.iter().zip(found.left_out(image)).all(|(&s, &out)| (s == 0.0) == out));
        assert!(found.left_out(image).contains(&true));
    }
}

#[test]
fn subsets_padding_and_regions_go_together() {
    // Of an image laid on a larger canvas, what is outside and what is padding are left out both.
    let input = InputSize::KeepAspect { longest: 84, pad: true };
    let mut images: Vec<_> = (0..7).map(|seed| frame(seed, 120, 60)).collect();
    images.push(frame(7, 60, 120));
    let pad = builder().input(input).subsets(Subsets::References(3)).build().unwrap();
    let batch = Batch::images(images).unwrap();
    let plain = pad.inspect(&batch, &()).unwrap();
    let border = batch.clone().with_regions(Regions::everywhere().with_border(10)).unwrap();
    let found = pad.inspect(&border, &()).unwrap();
    assert_eq!((plain.subsets(), found.subsets()), (2, 2));
    assert!(plain.left_out(0).iter().all(|&out| !out), "{:?}", plain.left_out(0));
    // 10 pixels of 120x60 are 7 of 84x42, half a patch: the corners keep a quarter.
    let ends = [true, false, false, false, false, true];
    assert_eq!(found.left_out(0), [ends, [false; 6], ends].concat());
    // The tall one lies on columns 31 to 52, its inside on 34.5 to 48.5 and rows 3.5 to 38.5: the outer rows of its first
    // patch keep 7.5 · 10.5 of 196, its second patches 6.5 of 14 columns.
    let middle = [true, true, false, true, true, true];
    assert_eq!(found.left_out(7), [[true; 6], middle, [true; 6]].concat());
    let padding = plain.left_out(7).iter().filter(|out| **out).count();
    assert!((9..15).contains(&padding), "{padding}");
    // A mask of another size is told of before the first subset is scored.
    let watcher = Watcher::default();
    let wrong = batch.with_regions(left_half()).unwrap();
    let said = pad.inspect(&wrong, &watcher).unwrap_err().to_string();
    assert!(said.contains("60x52") && said.contains("120x60"), "{said}");
    assert!(watcher.stages.lock().unwrap().iter().all(|(stage, _)| *stage != Stage::Scoring));
}

#[test]
fn masks_of_each_image_are_files_of_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let (images, masks) = (folder.path().join("images"), folder.path().join("masks"));
    for at in 0..4 {
        write_image(&images.join(format!("{at}.png")), &frame(at, 60, 52)).unwrap();
        let level = |x: usize| if x < 15 * (at + 1) { 255 } else { 0 };
        let data = (0..52 * 60).flat_map(|pixel| [level(pixel % 60); 3]).collect();
        let mask = RgbImage::new(60, 52, data).unwrap();
        write_image(&masks.join(format!("{at}.bmp")), &mask).unwrap();
    }
    let regions = Regions::read(&masks).unwrap();
    let batch = Batch::folder(&images).unwrap().with_regions(regions.clone()).unwrap();
    let found = inspector().inspect(&batch, &()).unwrap();
    for image in 0..4 {
        let inside = found.left_out(image).iter().filter(|out| !**out).count();
        assert_eq!(inside, 4 * (image + 1));
    }
    // Colours of a map's own range do not count what is outside.
    let heat = folder.path().join("heat");
    let mut files = PictureFiles::default();
    files.heat_maps = Some((0..4).map(|at| heat.join(format!("{at}.png"))).collect());
    files.by_each_map = true;
    let mut found = found;
    inspector().write_pictures(&batch, &mut found, &files, &()).unwrap();
    let picture = musc::image::decode(&heat.join("0.png")).unwrap().image;
    let blue = [0, 0, 128];
    let lowest =
        (0..56 * 14).filter(|at| picture.data[(at / 14 * 56 + at % 14) * 3..][..3] == blue);
    // The lowest of the inside has the lowest colour, and not only what is outside.
    assert!(lowest.count() >= 1);
    std::fs::remove_file(masks.join("2.bmp")).unwrap();
    let said = Batch::folder(&images).unwrap().with_regions(regions).unwrap_err().to_string();
    assert!(said.contains("2.png") && said.contains("1 of 4"), "{said}");
    // Looking through several batches reads the masks as well.
    let wrong = RgbImage::new(59, 52, vec![255; 59 * 52 * 3]).unwrap();
    write_image(&masks.join("2.png"), &wrong).unwrap();
    let regions = Regions::read(&masks).unwrap();
    let batch = Batch::folder(&images).unwrap().with_regions(regions).unwrap();
    let said = inspector().check(&[batch], &()).unwrap_err();
    assert!(matches!(said, Error::Dataset { .. }) && said.to_string().contains("59x52"), "{said}");
}

#[cfg(feature = "sim")]
#[test]
fn the_simulated_card_leaves_the_same_out() {
    use musc::backend::device::Device;
    let folder = tempfile::tempdir().unwrap();
    for seed in 0..4 {
        let path = folder.path().join(format!("{seed}.png"));
        write_image(&path, &frame(seed, 60, 52)).unwrap();
    }
    let batch = |regions| Batch::folder(folder.path()).unwrap().with_regions(regions).unwrap();
    let input = InputSize::Exactly(ImageSize::new(28, 70));
    let on = |device: Device| {
        let inspector = builder().device(device).input(input).build().unwrap();
        inspector.inspect(&batch(left_half()), &()).unwrap()
    };
    let (cpu, sim) = (on(Device::Cpu), on(Device::Sim));
    for image in 0..4 {
        assert_eq!(cpu.left_out(image), sim.left_out(image));
        for (one, other) in cpu.patch_scores(image).0.iter().zip(sim.patch_scores(image).0) {
            // See simulated.rs.
            assert!((one - other).abs() <= 5e-3 && (*one == 0.0) == (*other == 0.0));
        }
    }
    // Files are read beside the card: the mask is looked at before.
    let watcher = Watcher::default();
    let size = ImageSize::new(51, 60);
    let wrong = Regions::mask(RegionMask::everywhere(size));
    let sim = builder().device(Device::Sim).input(input).build().unwrap();
    let said = sim.inspect(&batch(wrong), &watcher).unwrap_err().to_string();
    assert!(said.contains("60x51") && said.contains("60x52"), "{said}");
    assert!(watcher.stages.lock().unwrap().is_empty());
}
