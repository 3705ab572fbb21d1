use super::*;
use crate::dataset::Mask;
use crate::image::Filter;

fn mask(path: &Path, width: u32, height: u32, inside: impl Fn(u32, u32) -> bool) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let level = |x, y| image::Luma([u8::from(inside(x, y)) * 255]);
    image::GrayImage::from_fn(width, height, level).save(path).unwrap();
}

fn samples(names: &[&str]) -> (Vec<Sample>, Vec<String>) {
    let sample = |name: &&str| Sample::new(format!("data/{name}"), "c", "", None, Mask::Unknown);
    (names.iter().map(sample).collect(), names.iter().map(|name| name.to_string()).collect())
}

fn found(folder: &Path, names: &[&str]) -> Result<Vec<String>> {
    let (samples, names) = samples(names);
    let regions = Regions::read(folder).unwrap().of(&samples, &names)?;
    let Masks::Each { paths, .. } = regions.masks else { panic!("one each") };
    let relative = |path: &PathBuf| path.strip_prefix(folder).unwrap().display().to_string();
    Ok(paths.iter().map(relative).collect())
}

#[test]
fn masks_go_by_the_images_names() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for name in ["a.png", "b.bmp", "good/c.png", "bad/c.png", "c.d.tif"] {
        mask(&root.join(name), 4, 3, |_, _| true);
    }
    std::fs::write(root.join("a.txt"), "no mask").unwrap();
    assert_eq!(found(root, &["a.jpg", "b.png"]).unwrap(), ["a.png", "b.bmp"]);
    let names = ["good/c.png", "bad/c.png", "bad/a.png", "c.d.png"];
    assert_eq!(found(root, &names).unwrap(), ["good/c.png", "bad/c.png", "a.png", "c.d.tif"]);
    // Two images of one name in two folders: the mask at the top is nobody's.
    let said = found(root, &["good/a.png", "bad/a.png", "b.png"]).unwrap_err().to_string();
    assert!(said.contains("no mask for 2 of 3 images (data/good/a.png, data/bad/a.png)"), "{said}");
    let many = ["1.png", "2.png", "3.png", "4.png", "5.png"];
    let said = found(root, &many).unwrap_err().to_string();
    assert!(said.contains("data/3.png and 2 more"), "{said}");
    mask(&root.join("a.bmp"), 4, 3, |_, _| true);
    let said = found(root, &["a.jpg"]).unwrap_err().to_string();
    assert!(said.contains("second mask") && said.contains("a."), "{said}");
}

fn marks(regions: &Regions, sizes: &[(u32, u32)]) -> Result<Vec<bool>> {
    let names: Vec<String> = (0..sizes.len()).map(|at| format!("{at}.png")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (samples, names) = samples(&names);
    let regions = regions.clone().of(&samples, &names)?;
    let resize = Resize::new(ImageSize::new(4, 8), Filter::Bilinear);
    let marking = Marking {
        samples: &samples,
        regions: &regions,
        resize: &resize,
        grid: Grid::new(2, 4),
        patch: 2,
    };
    marking.left_out(&(0..sizes.len()).collect::<Vec<_>>(), sizes, false, &())
}

#[test]
fn patches_outside_are_marked_for_each_image() {
    let folder = tempfile::tempdir().unwrap();
    let one = folder.path().join("one.png");
    mask(&one, 16, 8, |x, _| x < 8);
    let regions = Regions::read(&one).unwrap();
    let half = [false, false, true, true, false, false, true, true];
    assert_eq!(marks(&regions, &[(16, 8); 2]).unwrap(), [half, half].concat());
    // 4 of 16 pixels at each side are one column of patches of 4 pixels; of 8 rows 4 at each side are all.
    let border = Regions::everywhere().with_border(3);
    let inner = [true, false, false, true];
    // One of 4 rows of the upper patches is left: a quarter. Nothing is half inside.
    let said = marks(&border, &[(16, 8)]).unwrap_err().to_string();
    assert!(said.contains("0.png") && said.contains("too small"), "{said}");
    let border = Regions::everywhere().with_border(2);
    // Two of four rows, and two of four columns of the outer patches: a quarter of those, half of the inner ones.
    assert_eq!(marks(&border, &[(16, 8)]).unwrap(), [inner, inner].concat());
    // A larger image has the same border in its own pixels.
    let larger = marks(&border, &[(16, 8), (64, 32)]).unwrap();
    assert_eq!(larger, [&inner[..], &inner, &[false; 8]].concat());
    assert!(marks(&Regions::everywhere(), &[(16, 8)]).unwrap().is_empty());
    mask(&one, 16, 8, |_, _| true);
    assert!(marks(&Regions::read(&one).unwrap(), &[(16, 8)]).unwrap().is_empty());
}

#[test]
fn masks_that_do_not_fit_name_both() {
    let folder = tempfile::tempdir().unwrap();
    let one = folder.path().join("one.png");
    mask(&one, 16, 8, |x, _| x < 8);
    let regions = Regions::read(&one).unwrap();
    let said = marks(&regions, &[(16, 8), (8, 16)]).unwrap_err().to_string();
    for part in ["one.png", "16x8", "data/1.png", "8x16"] {
        assert!(said.contains(part), "{part} in {said}");
    }
    let said = marks(&regions.clone().with_border(4), &[(16, 8)]).unwrap_err().to_string();
    assert!(said.contains("one.png") && said.contains("border"), "{said}");
    mask(&one, 16, 8, |x, y| x == 0 && y == 0);
    let said = marks(&Regions::read(&one).unwrap(), &[(16, 8)]).unwrap_err().to_string();
    assert!(said.contains("one.png") && said.contains("data/0.png"), "{said}");
    assert!(Regions::read(folder.path().join("none.png")).is_err());
    // Masks in a folder are read when their image is.
    let each = folder.path().join("each");
    mask(&each.join("0.png"), 16, 8, |x, _| x < 8);
    mask(&each.join("1.png"), 16, 8, |_, _| false);
    let regions = Regions::read(&each).unwrap();
    assert_eq!(marks(&regions, &[(16, 8)]).unwrap().len(), 8);
    let said = marks(&regions, &[(16, 8); 2]).unwrap_err().to_string();
    assert!(said.contains("1.png") && said.contains("black"), "{said}");
}
