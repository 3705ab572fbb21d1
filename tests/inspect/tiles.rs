//! Images in tiles: against the tiles as images of their own.

use musc::image::{Cut, RegionMask, RgbImage, decode};
use musc::inspect::{
    Batch, InputSize, Inspection, InspectorBuilder, PictureFiles, Regions, Subsets, TileMatch,
    Tiles,
};
use musc::report::write_image;
use musc::scoring::reference;
use musc::{Grid, ImageSize, Stage};

use crate::support::{Watcher, builder, exact, frame};

const WIDTH: usize = 120;
const HEIGHT: usize = 104;

fn images(count: usize) -> Vec<RgbImage> {
    (0..count).map(|seed| frame(seed, WIDTH, HEIGHT)).collect()
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|at| format!("part/{at:02}.png")).collect()
}

fn batch(count: usize) -> Batch {
    Batch::images(images(count)).unwrap().with_names(names(count)).unwrap()
}

fn tiled(rows: usize, columns: usize) -> InspectorBuilder {
    builder().tiles(Tiles::new(rows, columns).unwrap())
}

/// The rectangle of an image, pixel by pixel.
fn cut_out(
    image: &RgbImage,
    (top, left): (usize, usize),
    (height, width): (usize, usize),
) -> RgbImage {
    let mut data = Vec::new();
    for y in top..top + height {
        for x in left..left + width {
            data.extend_from_slice(&image.data[(y * image.width + x) * 3..][..3]);
        }
    }
    RgbImage::new(width, height, data).unwrap()
}

/// Tiles 2x2 of 120x104 pixels: ⌈104/1.9⌉ = 55 and ⌈120/1.9⌉ = 64, row by row.
const TILES: [(usize, usize); 4] = [(0, 0), (0, 56), (49, 0), (49, 56)];
const TILE: (usize, usize) = (55, 64);

fn tile_batch(count: usize, tile: usize) -> Batch {
    let tiles = images(count).iter().map(|image| cut_out(image, TILES[tile], TILE)).collect();
    Batch::images(tiles).unwrap().with_names(names(count)).unwrap()
}

fn map(inspection: &Inspection, image: usize, size: ImageSize) -> Vec<f32> {
    let mut map = vec![f32::NAN; size.pixels()];
    inspection.map(image, size, &mut map).unwrap();
    map
}

#[test]
fn one_tile_is_the_whole_image_to_the_last_bit() {
    let plain = builder().build().unwrap().inspect(&batch(9), &()).unwrap();
    for matching in [TileMatch::Same, TileMatch::Any] {
        let one = Tiles::new(1, 1).unwrap().with_matching(matching);
        let found = builder().tiles(one).build().unwrap().inspect(&batch(9), &()).unwrap();
        assert_eq!(found.scores(), plain.scores());
        assert_eq!(found.raw_scores(), plain.raw_scores());
        assert_eq!(found.map_size(), plain.map_size());
        for image in 0..9 {
            assert_eq!(found.patch_scores(image), plain.patch_scores(image));
            assert_eq!(found.class_token(image), plain.class_token(image));
            for size in [ImageSize::square(56), ImageSize::new(31, 97)] {
                assert_eq!(map(&found, image, size), map(&plain, image, size));
            }
        }
    }
}

#[test]
fn tiles_of_one_position_are_scored_as_images_of_their_own() {
    let watcher = Watcher::default();
    let found = tiled(2, 2).build().unwrap().inspect(&batch(9), &watcher).unwrap();
    let plain = builder().build().unwrap().inspect(&batch(9), &()).unwrap();
    for tile in 0..4 {
        let alone = builder().build().unwrap().inspect(&tile_batch(9, tile), &()).unwrap();
        for image in 0..9 {
            let (scores, grid) = found.patch_scores(image);
            assert_eq!((scores.len(), grid), (64, Grid::square(4)));
            assert_eq!(&scores[tile * 16..][..16], alone.patch_scores(image).0, "{tile} {image}");
        }
    }
    for image in 0..9 {
        // RsCIN compares whole images.
        assert_eq!(found.class_token(image), plain.class_token(image));
        let largest = map(&found, image, found.map_size()).into_iter().fold(0.0, f32::max);
        assert_eq!(found.raw_scores()[image], largest);
    }
    // 56/55 of 120x104.
    assert_eq!(found.map_size(), ImageSize::new(106, 122));
    // The tokens of one position at a time, after those of whole images.
    let stages = watcher.stages.lock().unwrap();
    let extracted = stages.iter().filter(|(stage, _)| *stage == Stage::Features);
    assert!(extracted.clone().count() == 5 && extracted.clone().all(|(_, images)| *images == 9));
}

#[test]
fn anywhere_is_all_tiles_of_the_other_images() {
    let any = Tiles::new(2, 2).unwrap().with_matching(TileMatch::Any);
    let inspector = exact().tiles(any).build().unwrap();
    let found = inspector.inspect(&batch(5), &()).unwrap();
    // Tiles as images of their own, position by position; none sees a tile of its image.
    let tiles = (0..4).flat_map(|tile| {
        images(5).into_iter().map(move |image| cut_out(&image, TILES[tile], TILE))
    });
    let tiles = Batch::images(tiles.collect()).unwrap();
    let features = builder().build().unwrap().features(&tiles, &()).unwrap().0;
    let unseen: Vec<Vec<usize>> =
        (0..20).map(|at| (0..4).map(|tile| tile * 5 + at % 5).collect()).collect();
    let scoring = inspector.mutual_scoring();
    let (mut expected, mut bounds) = (vec![0.0; 20 * 16], vec![0.0; 20 * 16]);
    for tokens in &features.tokens {
        let (images, grid, width) = (20, features.grid, features.width);
        let layer = reference::Layer { tokens, images, grid, width, left_out: &[] };
        for &degree in &scoring.degrees {
            let of = reference::patch_scores(&layer, Some((&layer, &unseen)), degree, scoring);
            let terms = (features.tokens.len() * scoring.degrees.len()) as f64;
            for (at, score) in of.into_iter().enumerate() {
                expected[at] += score / terms;
                // The bound of one term is that of tests/patch_scores.rs.
                bounds[at] += 1e-6 / score.max(1e-3) / terms;
            }
        }
    }
    for at in 0..20 * 16 {
        let (tile, image, patch) = (at / 16 / 5, at / 16 % 5, at % 16);
        let score = f64::from(found.patch_scores(image).0[tile * 16 + patch]);
        assert!((score - expected[at]).abs() <= bounds[at], "{at}: {score} {}", expected[at]);
    }
}

#[test]
fn subsets_are_those_of_whole_images() {
    let subsets = Subsets::References(4);
    let found = tiled(2, 2).subsets(subsets).build().unwrap().inspect(&batch(11), &()).unwrap();
    assert_eq!(found.subsets(), 3);
    for tile in 0..4 {
        let alone = builder().subsets(subsets).build().unwrap();
        let alone = alone.inspect(&tile_batch(11, tile), &()).unwrap();
        for image in 0..11 {
            let scores = &found.patch_scores(image).0[tile * 16..][..16];
            assert_eq!(scores, alone.patch_scores(image).0, "{tile} {image}");
        }
    }
    let any = Tiles::new(2, 2).unwrap().with_matching(TileMatch::Any);
    let any = builder().tiles(any).subsets(subsets).build().unwrap();
    assert!(any.inspect(&batch(11), &()).unwrap().raw_scores().iter().all(|&raw| raw > 0.0));
}

fn region(inside: impl Fn(usize, usize) -> bool) -> Regions {
    let pixels = (0..WIDTH * HEIGHT).map(|at| inside(at % WIDTH, at / WIDTH)).collect();
    Regions::mask(RegionMask::new(ImageSize::new(HEIGHT, WIDTH), pixels).unwrap())
}

#[test]
fn masks_are_cut_as_images_are() {
    let inspector = tiled(2, 2).build().unwrap();
    let plain = inspector.inspect(&batch(6), &()).unwrap();
    let white = batch(6).with_regions(region(|_, _| true)).unwrap();
    let white = inspector.inspect(&white, &()).unwrap();
    assert_eq!(white.scores(), plain.scores());
    assert!(white.left_out(0).is_empty());
    // 32 columns are half of the left tiles' 64; of the right ones, which begin at 56, nothing.
    let half = batch(6).with_regions(region(|x, _| x < 32)).unwrap();
    let any = Tiles::new(2, 2).unwrap().with_matching(TileMatch::Any);
    for inspector in [inspector, builder().tiles(any).build().unwrap()] {
        let found = inspector.inspect(&half, &()).unwrap();
        let (left, right) = ([false, false, true, true].repeat(4), [true; 16].to_vec());
        let marks = [left.clone(), right.clone(), left, right].concat();
        for image in 0..6 {
            assert_eq!(found.left_out(image), marks);
            let (scores, _) = found.patch_scores(image);
            assert!(scores.iter().zip(&marks).all(|(&score, &out)| (score == 0.0) == out));
            let size = ImageSize::new(HEIGHT, WIDTH);
            let inside = found.inside(image, size).unwrap();
            for (at, value) in map(&found, image, size).into_iter().enumerate() {
                assert_eq!(inside[at], at % WIDTH < 32, "pixel {at}");
                assert_eq!(value == 0.0, !inside[at], "pixel {at}");
            }
        }
    }
    // A region at a tile of one image alone cannot be compared there.
    let folder = tempfile::tempdir().unwrap();
    for at in 0..3 {
        write_image(&folder.path().join(format!("images/{at}.png")), &images(3)[at]).unwrap();
        let white = |pixel: usize| if at == 1 || pixel % WIDTH < 32 { 255 } else { 0 };
        let data = (0..WIDTH * HEIGHT).flat_map(|pixel| [white(pixel); 3]).collect();
        let mask = RgbImage::new(WIDTH, HEIGHT, data).unwrap();
        write_image(&folder.path().join(format!("masks/{at}.png")), &mask).unwrap();
    }
    let masks = Regions::read(folder.path().join("masks")).unwrap();
    let lonely = Batch::folder(folder.path().join("images")).unwrap().with_regions(masks).unwrap();
    let said = tiled(2, 2).build().unwrap().inspect(&lonely, &()).unwrap_err().to_string();
    assert!(said.contains("1.png") && said.contains("tile 2 of 2x2"), "{said}");
}

#[test]
fn kept_proportions_are_those_of_a_tile() {
    // Two tiles side by side of 120x104 are 64 wide: as 8 to 13.
    let keep = |pad| InputSize::KeepAspect { longest: 84, pad };
    let inspector = tiled(1, 2).input(keep(false)).build().unwrap();
    let found = inspector.inspect(&batch(4), &()).unwrap();
    assert_eq!(found.input(), ImageSize::new(84, 56));
    let said = tiled(1, 2).input(keep(true)).build().unwrap_err().to_string();
    assert!(said.contains("tiles: found 1x2 with padding"), "{said}");
}

#[test]
fn figures_and_pictures_are_of_the_joined_map() {
    let folder = tempfile::tempdir().unwrap();
    let mut list = String::from("path,label,mask\n");
    for at in 0..8 {
        write_image(&folder.path().join(format!("{at}.png")), &images(8)[at]).unwrap();
        // The bright square of image 6, as in support.rs.
        let hit = |pixel: usize| {
            at == 6 && (20..36).contains(&(pixel % WIDTH)) && (16..32).contains(&(pixel / WIDTH))
        };
        let data = (0..WIDTH * HEIGHT).flat_map(|pixel| [u8::from(hit(pixel)) * 255; 3]).collect();
        let mask = RgbImage::new(WIDTH, HEIGHT, data).unwrap();
        write_image(&folder.path().join(format!("mask/{at}.png")), &mask).unwrap();
        list += &format!(
            "{at}.png,{},{}\n",
            u8::from(at == 6),
            if at == 6 { "mask/6.png" } else { "" }
        );
    }
    std::fs::write(folder.path().join("list.csv"), list).unwrap();
    let batch = Batch::list(folder.path().join("list.csv")).unwrap();
    for paper in [false, true] {
        let builder = if paper { tiled(2, 2).paper() } else { tiled(2, 2) };
        let inspector = builder.build().unwrap();
        let mut found = inspector.inspect(&batch, &()).unwrap();
        let metrics = inspector.figures(&batch, &mut found, &()).unwrap().unwrap();
        assert_eq!(metrics.image_auroc_raw, Some(1.0));
        // The square is 256 of some 100,000 pixels.
        assert!(metrics.pixel.auroc.unwrap() > 0.9, "{metrics:?}");
        let size = found.map_size();
        let mut files = PictureFiles::default();
        let named = |kind: &str| -> Vec<_> {
            (0..8).map(|at| folder.path().join(format!("{kind}/{at}.png"))).collect()
        };
        files.heat_maps = Some(named("heat"));
        files.overlays = Some(named("over"));
        files.sheet = Some(folder.path().join("sheet.png"));
        files.maps = Some(folder.path().join("maps.safetensors"));
        inspector.write_pictures(&batch, &mut found, &files, &()).unwrap();
        for kind in ["heat", "over"] {
            let picture = decode(&folder.path().join(kind).join("6.png")).unwrap().image;
            assert_eq!(picture.size(), size);
        }
        let bytes = std::fs::read(folder.path().join("maps.safetensors")).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let shape = tensors.tensor("anomaly_map").unwrap().shape().to_vec();
        assert_eq!(shape, [8, size.height, size.width]);
    }
}

#[test]
fn what_cannot_be_cut_is_named() {
    // ⌈104/7.3⌉ = 15 rows of pixels would do; ⌈104/8.2⌉ = 13 do not.
    let said = tiled(9, 3).build().unwrap().inspect(&batch(4), &()).unwrap_err().to_string();
    for part in ["tiles", "9x3", "part/00.png", "120x104", "43x13", "14x14"] {
        assert!(said.contains(part), "{part} in {said}");
    }
    let inspector = tiled(2, 2).build().unwrap();
    let whole = builder().build().unwrap();
    let set = whole.learn(&batch(4), &()).unwrap();
    for said in [
        inspector.learn(&batch(4), &()).map(drop).unwrap_err().to_string(),
        inspector.compare(&batch(4), &set, &()).map(drop).unwrap_err().to_string(),
        inspector.features(&batch(4), &()).map(drop).unwrap_err().to_string(),
    ] {
        assert!(said.contains("tiles: found 2x2"), "{said}");
    }
    let said = inspector.inspect(&batch(1), &()).unwrap_err().to_string();
    assert!(said.contains("1"), "{said}");
    assert!(Tiles::new(2, 2).unwrap().with_overlap(0.6).is_err());
    assert_eq!(Tiles::new(2, 3).unwrap().cut, Cut::new(2, 3, 0.1).unwrap());
}

#[test]
fn memory_expected_is_that_of_one_position() {
    let size = ImageSize::square(56);
    let bytes = |builder: InspectorBuilder| builder.build().unwrap().expected_bytes(10, size);
    let (plain, same) = (bytes(builder()), bytes(tiled(3, 4)));
    // Patch scores alone: 12 tiles of 16 in place of one.
    assert_eq!(same - plain, 10 * 11 * 16 * 4);
    let any = Tiles::new(3, 4).unwrap().with_matching(TileMatch::Any);
    assert_eq!(bytes(builder().tiles(any)) - same, 10 * 11 * (56 * 56 * 3 + 2 * 16 * 128 * 4));
}

#[cfg(feature = "sim")]
#[test]
fn tiles_on_the_simulated_card_are_those_of_the_cpu() {
    use musc::backend::device::Device;
    let folder = tempfile::tempdir().unwrap();
    for (at, image) in images(3).iter().enumerate() {
        write_image(&folder.path().join(format!("{at}.png")), image).unwrap();
    }
    let batch = Batch::folder(folder.path()).unwrap();
    let half = batch.clone().with_regions(region(|x, _| x < 32)).unwrap();
    for matching in [TileMatch::Same, TileMatch::Any] {
        let tiles = Tiles::new(1, 2).unwrap().with_matching(matching);
        let on = |device: Device, batch: &Batch| {
            let input = InputSize::Exactly(ImageSize::new(28, 42));
            let inspector = builder().device(device).input(input).tiles(tiles).build().unwrap();
            inspector.inspect(batch, &()).unwrap()
        };
        for batch in [&batch, &half] {
            let (cpu, sim) = (on(Device::Cpu, batch), on(Device::Sim, batch));
            for image in 0..3 {
                assert_eq!(cpu.left_out(image), sim.left_out(image));
                for (one, other) in cpu.patch_scores(image).0.iter().zip(sim.patch_scores(image).0)
                {
                    // See simulated.rs.
                    assert!((one - other).abs() <= 5e-3, "{one} {other}");
                }
            }
        }
    }
}
