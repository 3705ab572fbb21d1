use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::ImageSize;
use crate::image::{Filter, Fit};

fn sample(path: PathBuf, mask: Mask) -> Sample {
    Sample::new(path, "c", "", None, mask)
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

/// 4 rows of 6.
const SIZE: ImageSize = ImageSize::new(4, 6);

fn resize() -> Resize {
    Resize::new(SIZE, Filter::Bicubic)
}

/// Keeps what it is told, and stops after so many files were begun.
#[derive(Default)]
struct Told {
    stages: Mutex<Vec<(&'static str, u64)>>,
    done: AtomicUsize,
    asked: AtomicUsize,
    limit: Option<usize>,
}

impl Told {
    fn stopping_after(limit: usize) -> Self {
        Told { limit: Some(limit), ..Told::default() }
    }

    fn stages(&self) -> Vec<(&'static str, u64)> {
        self.stages.lock().unwrap().clone()
    }
}

impl Progress for Told {
    fn begin(&self, stage: Stage, steps: u64) {
        self.stages.lock().unwrap().push((stage.name(), steps));
    }
    fn advance(&self, steps: u64) {
        self.done.fetch_add(steps as usize, Ordering::Relaxed);
    }
    fn end(&self) {
        let done = self.done.load(Ordering::Relaxed) as u64;
        self.stages.lock().unwrap().push(("end", done));
    }
    fn stopped(&self) -> bool {
        let asked = self.asked.fetch_add(1, Ordering::Relaxed);
        self.limit.is_some_and(|limit| asked >= limit)
    }
}

#[test]
fn images_come_in_the_order_of_the_samples() {
    let folder = tempfile::tempdir().unwrap();
    let samples = samples(folder.path());
    let told = Told::default();
    let loaded = load_pixels(&samples[..7], &resize(), false, &told).unwrap();
    assert_eq!(loaded.kept, [0, 1, 2, 3, 4, 5, 6]);
    for (index, image) in loaded.images.iter().enumerate() {
        assert_eq!((image.width, image.height), (6, 4));
        assert_eq!(image.data, vec![index as u8 * 30; 72]);
        assert_eq!(loaded.pictures[index], Rectangle::whole(SIZE));
        assert_eq!(loaded.sizes[index], (5 + index as u32, 3));
    }
    assert_eq!((loaded.bad.len(), loaded.scaled_from_16_bit), (0, 0));
    assert_eq!(told.stages(), [("reading", 7), ("end", 7)]);
}

#[test]
fn checking_keeps_no_pixels_and_tells_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let samples = samples(folder.path());
    let told = Told::default();
    let checked = check_pixels(&samples, true, &told).unwrap();
    assert_eq!(told.stages(), [("checking", 10), ("end", 10)]);
    assert!(checked.images.is_empty() && checked.pictures.is_empty());
    let loaded = load_pixels(&samples, &resize(), true, &()).unwrap();
    assert_eq!(
        (&checked.kept, &checked.bad, &checked.sizes),
        (&loaded.kept, &loaded.bad, &loaded.sizes)
    );
    let error = check_pixels(&samples, false, &()).unwrap_err().to_string();
    assert!(error.starts_with("3 files are not readable images"), "{error}");
    // Bad files alone are bad whatever is asked.
    assert!(check_pixels(&samples[7..], true, &()).is_err());
}

#[test]
fn padded_images_tell_where_their_pictures_are() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wide.png");
    image::GrayImage::from_pixel(6, 2, image::Luma([9])).save(&path).unwrap();
    let samples = [sample(path, Mask::Unknown)];
    let padded = resize().with_fit(Fit::Pad);
    let loaded = load_pixels(&samples, &padded, false, &()).unwrap();
    assert_eq!(loaded.pictures, [Rectangle { top: 1, left: 0, size: ImageSize::new(2, 6) }]);
    assert_eq!(loaded.images[0].data[18..54], [9; 36]);
}

#[test]
fn images_in_memory_become_what_their_files_would() {
    let folder = tempfile::tempdir().unwrap();
    let samples = samples(folder.path());
    let decoded: Vec<RgbImage> =
        samples[..7].iter().map(|sample| decode(&sample.path).unwrap().image).collect();
    let images: Vec<&RgbImage> = decoded.iter().collect();
    for resize in [resize(), resize().with_fit(Fit::Pad)] {
        let told = Told::default();
        let loaded = resize_images(&images, &resize, &told).unwrap();
        assert_eq!(loaded, load_pixels(&samples[..7], &resize, false, &()).unwrap());
        assert_eq!(told.stages(), [("reading", 7), ("end", 7)]);
    }
    let result = resize_images(&images, &resize(), &Told::stopping_after(2));
    assert!(matches!(result, Err(Error::Interrupted)));
    let torn = RgbImage { width: 2, height: 2, data: vec![0; 11] };
    let empty = RgbImage { width: 0, height: 2, data: vec![] };
    let huge = RgbImage { width: usize::MAX, height: 2, data: vec![0; 6] };
    for wrong in [&torn, &empty, &huge] {
        let said = resize_images(&[images[0], wrong], &resize(), &()).unwrap_err().to_string();
        assert!(said.contains("image 1"), "{said}");
    }
}

#[test]
fn all_bad_files_are_named_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let samples = samples(folder.path());
    let error = load_pixels(&samples, &resize(), false, &()).unwrap_err().to_string();
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
    let loaded = load_pixels(&samples, &resize(), true, &()).unwrap();
    assert_eq!(loaded.kept, [2, 3, 4, 5, 6, 7, 8]);
    assert_eq!((loaded.images.len(), loaded.sizes.len(), loaded.bad.len()), (7, 7, 3));
    // Nothing left is an error all the same.
    let result = load_pixels(&samples[..2], &resize(), true, &());
    assert!(matches!(result, Err(Error::BadImages { bad }) if bad.len() == 2));
}

#[test]
fn a_stop_ends_the_load() {
    let folder = tempfile::tempdir().unwrap();
    let samples = samples(folder.path());
    let told = Told::stopping_after(2);
    let result = load_pixels(&samples[..7], &resize(), false, &told);
    assert!(matches!(result, Err(Error::Interrupted)));
    assert_eq!((told.stages(), told.done.into_inner()), (vec![("reading", 7)], 2));
    let sizes = vec![(1, 1); 7];
    let told = Told::stopping_after(0);
    let result = load_masks(&samples[..7], &sizes, SIZE, MaskRule::FullOnly, &told);
    assert!(matches!(result, Err(Error::Interrupted)));
}

#[test]
fn no_samples_give_no_images() {
    let loaded = load_pixels(&[], &resize(), false, &()).unwrap();
    assert_eq!(loaded.images.len(), 0);
}

#[test]
fn sixteen_bit_files_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep.png");
    image::ImageBuffer::from_pixel(3, 3, image::Luma([0x1234u16])).save(&path).unwrap();
    let samples = [sample(path, Mask::Unknown)];
    let loaded = load_pixels(&samples, &resize(), false, &()).unwrap();
    assert_eq!((loaded.scaled_from_16_bit, &loaded.images[0].data), (1, &vec![0x12; 72]));
    assert_eq!(check_pixels(&samples, false, &()).unwrap().scaled_from_16_bit, 1);
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
    let load = |sizes: &[(u32, u32)]| load_masks(&all, sizes, SIZE, MaskRule::FullOnly, &());
    let masks = load(&[(6, 4); 3]).unwrap();
    assert_eq!(masks, [None, Some(vec![0; 24]), Some(vec![1; 24])]);
    let error = load(&[(6, 4), (6, 4), (4, 6)]).unwrap_err().to_string();
    assert!(error.contains("the mask is 6x4 pixels, its image 4x6"), "{error}");
    assert!(load(&[(6, 4)]).is_err());
}

#[test]
fn work_beside_gets_every_image_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let samples = samples(folder.path());
    let before = load_pixels(&samples[..7], &resize(), false, &()).unwrap();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    for pool in [None, Some(&pool)] {
        let (loaded, seen) = load_pixels_beside(&samples[..7], &resize(), pool, &(), |source| {
            assert_eq!(source.images(), 7);
            assert!(source.image(7).unwrap_err().to_string().contains("found 7"));
            (0..7).map(|index| Ok(source.image(index)?.into_owned())).collect::<Result<Vec<_>>>()
        })
        .unwrap();
        assert_eq!(seen, before.images);
        assert_eq!(loaded, before);
    }
}

/// Pools of one thread and of many.
fn pools() -> [rayon::ThreadPool; 2] {
    [1, 4].map(|threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap())
}

#[test]
fn work_that_reads_its_own_files_is_given_their_pixels() {
    let folder = tempfile::tempdir().unwrap();
    let samples = samples(folder.path());
    let before = load_pixels(&samples[..7], &resize(), false, &()).unwrap();
    for pool in pools() {
        let work = |source: &dyn PixelSource| {
            assert_eq!(source.images(), 7);
            assert!(source.image(7).unwrap_err().to_string().contains("found 7"));
            let taken = (0..7).into_par_iter().map(|index| match source.image(index)? {
                Cow::Owned(image) => Ok(image),
                Cow::Borrowed(_) => panic!("pixels are kept"),
            });
            taken.collect::<Result<Vec<_>>>()
        };
        let (loaded, seen) =
            pool.install(|| load_pixels_on_demand(&samples[..7], &resize(), &(), work)).unwrap();
        assert_eq!(seen, before.images);
        let rest = Loaded { images: Vec::new(), pictures: Vec::new(), ..before.clone() };
        assert_eq!(loaded, rest);
    }
}

#[test]
fn bad_files_are_all_named_in_order_whatever_work_read_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let mut samples = samples(folder.path());
    samples.swap(1, 8);
    samples.swap(4, 9);
    let expected = match load_pixels(&samples, &resize(), false, &()) {
        Err(Error::BadImages { bad }) => bad,
        other => panic!("{other:?}"),
    };
    assert_eq!(expected.len(), 3);
    for (pool, asked) in pools().iter().zip([vec![7, 4], vec![1]]).chain(
        // None, and work that goes on all the same.
        pools().iter().zip([vec![], vec![0, 1, 2, 3, 4, 5, 6, 7, 8, 9]]),
    ) {
        let mut met = Vec::new();
        let done = pool.install(|| {
            load_pixels_on_demand(&samples, &resize(), &(), |source| {
                for &index in &asked {
                    met.extend(
                        source.image(index).map(drop).map_err(|error| error.to_string()).err(),
                    );
                }
                if asked.len() == 2 { Err(Error::Interrupted) } else { Ok(()) }
            })
        });
        assert!(matches!(done, Err(Error::BadImages { bad }) if bad == expected), "{asked:?}");
        // The work is told of each as it meets it.
        let bad = asked.iter().filter(|index| [1, 4, 7].contains(index)).count();
        assert!(met.len() == bad && met.iter().all(|said| said.contains(".png: ")), "{met:?}");
    }
}

#[test]
fn a_stop_ends_reading_on_demand() {
    let folder = tempfile::tempdir().unwrap();
    let samples = samples(folder.path());
    for pool in pools() {
        // What was not read by then is not read, and bad files are not told of.
        let stop = Told::stopping_after(1);
        let done = pool.install(|| {
            load_pixels_on_demand(&samples, &resize(), &stop, |source| {
                source.image(8).unwrap_err();
                Err::<(), _>(Error::Interrupted)
            })
        });
        assert!(matches!(done, Err(Error::Interrupted)), "{done:?}");
    }
}

#[test]
fn bad_files_beside_work_are_all_named_whatever_the_work_came_to() {
    let folder = tempfile::tempdir().unwrap();
    let samples = samples(folder.path());
    for patient in [true, false] {
        let mut met = String::new();
        let error = load_pixels_beside(&samples, &resize(), None, &(), |source| {
            if patient {
                // A bad image never comes, and is not waited for.
                let error = source.image(8).unwrap_err();
                met = error.to_string();
                return Err::<(), _>(error);
            }
            Err(Error::Interrupted)
        })
        .unwrap_err()
        .to_string();
        assert!(error.starts_with("3 files are not readable images"), "{error}");
        // The work is told of the file, not of an interruption that nobody asked for.
        assert_eq!(patient, met.contains("8.png: the file is empty"), "{met}");
    }
    // Nor does work that goes on all the same hide the bad files.
    let error = load_pixels_beside(&samples, &resize(), None, &(), |_| Ok(())).unwrap_err();
    assert!(matches!(error, Error::BadImages { bad } if bad.len() == 3));
    let stop = Told::stopping_after(0);
    let stopped =
        load_pixels_beside(&samples, &resize(), None, &stop, |source| source.image(3).map(|_| ()));
    assert!(matches!(stopped, Err(Error::Interrupted)));
}
