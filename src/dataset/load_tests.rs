use std::fs;
use std::sync::Mutex;

use super::*;

fn sample(path: PathBuf, mask: Mask) -> Sample {
    Sample { path, class: String::from("c"), kind: String::new(), label: None, mask }
}

/// Seven images of different sizes, then a truncated one, an empty one and one that is not there.
fn samples(folder: &Path) -> Vec<Sample> {
    let mut paths = Vec::new();
    for index in 0..7u32 {
        let path = folder.join(format!("{index}.png"));
        let image = image::GrayImage::from_pixel(5 + index, 3, image::Luma([index as u8 * 30]));
        image.save(&path).unwrap();
        paths.push(path);
    }
    let bytes = fs::read(&paths[0]).unwrap();
    fs::write(folder.join("7.png"), &bytes[..bytes.len() - 20]).unwrap();
    fs::write(folder.join("8.png"), b"").unwrap();
    paths.extend([7, 8, 9].map(|index| folder.join(format!("{index}.png"))));
    paths.into_iter().map(|path| sample(path, Mask::Unknown)).collect()
}

fn never() -> bool {
    false
}

#[test]
fn images_come_in_the_order_of_the_samples() {
    let folder = tempfile::tempdir().unwrap();
    let samples = samples(folder.path());
    let steps = Mutex::new(Vec::new());
    let progress = |done| steps.lock().unwrap().push(done);
    let loaded = load_pixels(&samples[..7], 4, Filter::Bilinear, false, &progress, &never).unwrap();
    assert_eq!(loaded.kept, [0, 1, 2, 3, 4, 5, 6]);
    for (index, image) in loaded.images.iter().enumerate() {
        assert_eq!((image.width, image.height), (4, 4));
        assert_eq!(image.data, vec![index as u8 * 30; 48]);
        assert_eq!(loaded.sizes[index], (5 + index as u32, 3));
    }
    assert_eq!((loaded.bad.len(), loaded.scaled_from_16_bit), (0, 0));
    let mut steps = steps.into_inner().unwrap();
    steps.sort_unstable();
    assert_eq!(steps, [1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn all_bad_files_are_named_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let samples = samples(folder.path());
    let error =
        load_pixels(&samples, 4, Filter::Bicubic, false, &|_| {}, &never).unwrap_err().to_string();
    assert!(error.starts_with("3 files are not readable images"), "{error}");
    assert!(error.contains("7.png: the file is truncated"), "{error}");
    assert!(error.contains("8.png: the file is empty (0 bytes)"), "{error}");
    assert!(error.contains("9.png: cannot read it: "), "{error}");
}

#[test]
fn bad_files_are_skipped_when_asked() {
    let folder = tempfile::tempdir().unwrap();
    let mut samples = samples(folder.path());
    samples.rotate_right(2);
    let loaded = load_pixels(&samples, 4, Filter::Bicubic, true, &|_| {}, &never).unwrap();
    assert_eq!(loaded.kept, [2, 3, 4, 5, 6, 7, 8]);
    assert_eq!((loaded.images.len(), loaded.sizes.len(), loaded.bad.len()), (7, 7, 3));
    // Nothing left is an error all the same.
    let result = load_pixels(&samples[..2], 4, Filter::Bicubic, true, &|_| {}, &never);
    assert!(matches!(result, Err(Error::BadImages { bad }) if bad.len() == 2));
}

#[test]
fn a_stop_ends_the_load() {
    let folder = tempfile::tempdir().unwrap();
    let samples = samples(folder.path());
    let seen = AtomicUsize::new(0);
    let stop = || seen.fetch_add(1, Ordering::Relaxed) >= 2;
    let result = load_pixels(&samples[..7], 4, Filter::Bilinear, false, &|_| {}, &stop);
    assert!(matches!(result, Err(Error::Interrupted)));
    let sizes = vec![(1, 1); 7];
    let result = load_masks(&samples[..7], &sizes, 4, MaskRule::FullOnly, &|| true);
    assert!(matches!(result, Err(Error::Interrupted)));
}

#[test]
fn no_samples_give_no_images() {
    let loaded = load_pixels(&[], 4, Filter::Bilinear, false, &|_| {}, &never).unwrap();
    assert_eq!(loaded.images.len(), 0);
}

#[test]
fn sixteen_bit_files_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep.png");
    image::ImageBuffer::from_pixel(3, 3, image::Luma([0x1234u16])).save(&path).unwrap();
    let samples = [sample(path, Mask::Unknown)];
    let loaded = load_pixels(&samples, 2, Filter::Bilinear, false, &|_| {}, &never).unwrap();
    assert_eq!((loaded.scaled_from_16_bit, &loaded.images[0].data), (1, &vec![0x12; 12]));
}

#[test]
fn masks_follow_their_samples() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mask.png");
    image::GrayImage::from_pixel(6, 4, image::Luma([255])).save(&path).unwrap();
    let all = [
        sample(PathBuf::from("a"), Mask::Unknown),
        sample(PathBuf::from("b"), Mask::Normal),
        sample(PathBuf::from("c"), Mask::File(path)),
    ];
    let load = |sizes: &[(u32, u32)]| load_masks(&all, sizes, 3, MaskRule::FullOnly, &never);
    let masks = load(&[(6, 4); 3]).unwrap();
    assert_eq!(masks, [None, Some(vec![0; 9]), Some(vec![1; 9])]);
    let error = load(&[(6, 4), (6, 4), (4, 6)]).unwrap_err().to_string();
    assert!(error.contains("the mask is 6x4 pixels, its image 4x6"), "{error}");
    assert!(load(&[(6, 4)]).is_err());
}

#[test]
fn work_beside_gets_every_image_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let samples = samples(folder.path());
    let before = load_pixels(&samples[..7], 4, Filter::Bicubic, false, &|_| {}, &never).unwrap();
    let (loaded, seen) = load_pixels_beside(&samples[..7], 4, Filter::Bicubic, &never, |source| {
        assert_eq!(source.images(), 7);
        assert!(source.image(7).unwrap_err().to_string().contains("found 7"));
        (0..7).map(|index| source.image(index).cloned()).collect::<Result<Vec<_>>>()
    })
    .unwrap();
    assert_eq!(seen, before.images);
    assert_eq!(loaded, before);
}

#[test]
fn bad_files_beside_work_are_all_named_whatever_the_work_came_to() {
    let folder = tempfile::tempdir().unwrap();
    let samples = samples(folder.path());
    for patient in [true, false] {
        let error = load_pixels_beside(&samples, 4, Filter::Bicubic, &never, |source| {
            if patient {
                // A bad image never comes, and is not waited for.
                assert!(source.image(8).is_err());
            }
            Err::<(), _>(Error::Interrupted)
        })
        .unwrap_err()
        .to_string();
        assert!(error.starts_with("3 files are not readable images"), "{error}");
    }
    let stopped = load_pixels_beside(&samples, 4, Filter::Bicubic, &|| true, |source| {
        source.image(3).map(|_| ())
    });
    assert!(matches!(stopped, Err(Error::Interrupted)));
}
