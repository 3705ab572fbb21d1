use super::*;
use crate::image::{Canvas, Fit, padding};

fn mask(height: usize, width: usize, inside: impl Fn(usize, usize) -> bool) -> RegionMask {
    let pixels = (0..height * width).map(|at| inside(at / width, at % width)).collect();
    RegionMask::new(ImageSize::new(height, width), pixels).unwrap()
}

#[test]
fn half_of_a_patch_is_inside_and_less_is_not() {
    // An image of 6x8 on an input of 6x8, patches of 2: what the mask covers is counted by hand.
    let size = ImageSize::new(6, 8);
    let whole = Rectangle::whole(size);
    let left = mask(6, 8, |_, x| x < 3);
    let row = [false, false, true, true];
    // Patch 1 has columns 2 and 3, one of them inside: exactly half.
    assert_eq!(left.outside(whole, whole, Grid::new(3, 4), 2), [row, row, row].concat());
    let corner = mask(6, 8, |y, x| y < 1 && x < 3);
    let mut expected = vec![true; 12];
    // Half of patch 0; a quarter of patch 1.
    expected[0] = false;
    assert_eq!(corner.outside(whole, whole, Grid::new(3, 4), 2), expected);
}

#[test]
fn a_pixel_that_a_patch_cuts_counts_by_its_area() {
    // 3 pixels on 4 input pixels, patches of 2: a patch has one and a half pixel. The middle one alone is a third of each.
    let (part, place) = (ImageSize::new(3, 3), ImageSize::new(4, 4));
    let (part, place) = (Rectangle::whole(part), Rectangle::whole(place));
    let grid = Grid::square(2);
    let middle = mask(3, 3, |_, x| x == 1);
    assert_eq!(middle.outside(part, place, grid, 2), [true; 4]);
    // The left one is two thirds of the left patches.
    let left = mask(3, 3, |_, x| x == 0);
    assert_eq!(left.outside(part, place, grid, 2), [false, true, false, true]);
    // Enlarged: one pixel is many patches.
    let enlarged = mask(1, 2, |_, x| x == 1);
    let (part, place) = (ImageSize::new(1, 2), ImageSize::new(4, 8));
    let found =
        enlarged.outside(Rectangle::whole(part), Rectangle::whole(place), Grid::new(2, 4), 2);
    assert_eq!(found, [true, true, false, false, true, true, false, false]);
}

#[test]
fn a_part_of_the_image_has_its_part_of_the_mask() {
    let right = mask(4, 8, |y, x| x >= 6 && y < 2);
    let part = Rectangle { top: 0, left: 4, size: ImageSize::square(4) };
    let place = Rectangle::whole(ImageSize::square(8));
    let found = right.outside(part, place, Grid::square(2), 4);
    assert_eq!(found, [true, false, true, true]);
    let below = Rectangle { top: 2, left: 4, size: ImageSize::new(2, 4) };
    assert_eq!(right.outside(below, place, Grid::square(2), 4), [true; 4]);
}

#[test]
fn a_mask_that_is_white_leaves_the_padding_out_and_nothing_else() {
    let patch = 7;
    for (height, width) in [(28, 28), (10, 31), (31, 10), (5, 29), (97, 13), (1, 50)] {
        let input = ImageSize::new(28, 42);
        let image = ImageSize::new(height, width);
        for fit in [Fit::Stretch, Fit::Pad] {
            let place = Canvas::new(input).with_fit(fit).place(image);
            let white = RegionMask::everywhere(image);
            let found = white.outside(Rectangle::whole(image), place, input.grid(patch), patch);
            assert_eq!(found, padding(place, input.grid(patch), patch), "{image} {fit:?}");
        }
    }
}

#[test]
fn a_border_is_taken_off_every_side() {
    let inner = RegionMask::everywhere(ImageSize::new(5, 6)).without_border(2).unwrap();
    assert_eq!(inner, mask(5, 6, |y, x| y == 2 && (2..4).contains(&x)));
    let white = || RegionMask::everywhere(ImageSize::new(6, 8));
    assert_eq!(white().without_border(0).unwrap(), white());
    assert_eq!(
        white().without_border(2).unwrap(),
        mask(6, 8, |y, x| { (2..4).contains(&y) && (2..6).contains(&x) })
    );
    let said = white().without_border(3).unwrap_err().to_string();
    assert!(said.contains("border: found 3 pixels of an image of 8x6"), "{said}");
    assert!(white().without_border(usize::MAX).is_err());
    let corner = mask(6, 8, |y, x| y == 0 && x == 0);
    assert!(corner.without_border(1).unwrap_err().to_string().contains("border"));
}

#[test]
fn masks_that_say_nothing_are_refused() {
    let size = ImageSize::new(2, 3);
    assert!(RegionMask::new(size, vec![true; 5]).is_err());
    let said = RegionMask::new(size, vec![false; 6]).unwrap_err().to_string();
    assert!(said.contains("none of 6 pixels"), "{said}");
}

#[cfg(feature = "files")]
#[test]
fn files_are_read_by_the_rules_of_masks() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("roi.png");
    // Grey 1 is inside; blue 1 comes to grey 0.11, which rounds to 0.
    let image = ::image::RgbImage::from_fn(3, 2, |x, y| {
        ::image::Rgb(match (x, y) {
            (1, 0) => [1, 1, 1],
            (2, 1) => [255, 255, 255],
            (0, 1) => [0, 0, 1],
            _ => [0, 0, 0],
        })
    });
    image.save(&path).unwrap();
    let expected = [false, true, false, false, false, true];
    let read = RegionMask::read(&path).unwrap();
    assert_eq!((read.size(), read.inside()), (ImageSize::new(2, 3), &expected[..]));
    ::image::GrayImage::new(7, 5).save(&path).unwrap();
    let said = RegionMask::read(&path).unwrap_err().to_string();
    assert!(said.contains("roi.png") && said.contains("0 of 7x5"), "{said}");
    std::fs::write(&path, b"").unwrap();
    assert!(RegionMask::read(&path).unwrap_err().to_string().contains("roi.png"));
    assert!(RegionMask::read(&folder.path().join("none.png")).is_err());
}
