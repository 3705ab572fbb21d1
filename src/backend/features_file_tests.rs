use std::path::PathBuf;

use super::*;

/// Two images of a grid, three channels, layers 5 and 11.
fn features(grid: Grid) -> HostFeatures {
    let values = 2 * grid.patches() * 3;
    let tokens = |first: usize| (first..first + values).map(|at| at as f32 / 8.0).collect();
    HostFeatures::new(2, grid, 3, vec![5, 11], vec![tokens(1), tokens(1000)])
}

/// A file in a folder of its own.
fn file() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("features.safetensors");
    (folder, path)
}

#[test]
fn what_is_written_reads_back() {
    let (_folder, path) = file();
    for grid in [Grid::square(4), Grid::new(1, 17), Grid::new(16, 1), Grid::new(5, 3)] {
        let bare = features(grid);
        let whole = features(grid)
            .with_class_tokens(2, vec![1.0, -2.0, 3.0, 0.5])
            .with_content(vec![7, u64::MAX])
            .with_left_out((0..2 * grid.patches()).map(|at| at % 5 == 0).collect());
        for features in [bare, whole] {
            write_features(&path, &features, &[("image_size", "98".into())]).unwrap();
            assert_eq!(read_features(&path, None).unwrap(), features, "{grid}");
            assert_eq!(read_features(&path, Some(grid)).unwrap(), features, "{grid}");
            let file = TensorFile::open(&path).unwrap();
            assert_eq!(file.metadata("grid"), Some(&*grid.to_string()));
            assert_eq!(file.metadata("image_size"), Some("98"));
        }
    }
}

#[test]
fn a_file_without_a_grid_is_square_unless_it_is_named() {
    let (_folder, path) = file();
    let write = |patches: usize| {
        let data = vec![0.5; 2 * patches];
        let shape = [2, patches, 1];
        let tensor = Tensor::f32("tokens.0", &shape, &data);
        write_tensors(&path, &[tensor], &[]).unwrap();
    };
    write(16);
    assert_eq!(read_features(&path, None).unwrap().grid, Grid::square(4));
    assert_eq!(read_features(&path, Some(Grid::new(2, 8))).unwrap().grid, Grid::new(2, 8));
    write(6);
    assert_eq!(read_features(&path, Some(Grid::new(2, 3))).unwrap().grid, Grid::new(2, 3));
    let said = read_features(&path, None).unwrap_err().to_string();
    assert!(said.contains("6 patches an image") && said.contains("square"), "{said}");
    let said = read_features(&path, Some(Grid::new(2, 4))).unwrap_err().to_string();
    assert!(said.contains("6 patches") && said.contains("8, those of a grid of 2x4"), "{said}");
}

#[test]
fn grids_that_contradict_each_other_are_named() {
    let (_folder, path) = file();
    write_features(&path, &features(Grid::new(2, 3)), &[]).unwrap();
    let said = read_features(&path, Some(Grid::new(3, 2))).unwrap_err().to_string();
    assert!(said.contains("2x3") && said.contains("3x2"), "{said}");
    let tokens = [0.5; 12];
    let write = |grid: &str| {
        let tensor = Tensor::f32("tokens.0", &[2, 6, 1], &tokens);
        write_tensors(&path, &[tensor], &[("grid", grid.into())]).unwrap();
        read_features(&path, None).map(|features| features.grid)
    };
    assert_eq!(write("6x1").unwrap(), Grid::new(6, 1));
    let said = write("3x3").unwrap_err().to_string();
    assert!(said.contains("6 patches") && said.contains("3x3"), "{said}");
    for wrong in ["", "6", "6x\u{1b}1", "0x6", "4294967296x4294967296"] {
        let said = write(wrong).unwrap_err().to_string();
        assert!(said.contains("grid") && !said.contains('\u{1b}'), "{wrong}: {said}");
    }
    let twice = write_features(&path, &features(Grid::new(2, 3)), &[("grid", "3x2".into())]);
    assert!(twice.is_err());
}

#[test]
fn tensors_that_do_not_fit_are_named() {
    let (_folder, path) = file();
    let (tokens, marks) = ([0.5f32; 8], [0u8; 8]);
    let said = |tensors: &[Tensor<'_>]| {
        write_tensors(&path, tensors, &[]).unwrap();
        read_features(&path, None).unwrap_err().to_string()
    };
    let good = Tensor::f32("tokens.3", &[2, 4, 1], &tokens);
    assert!(said(&[Tensor::f32("x", &[8], &tokens)]).contains("tokens.LAYER"));
    assert!(said(&[Tensor::f32("tokens.x", &[2, 4, 1], &tokens)]).contains("ends in no number"));
    assert!(said(&[Tensor::f32("tokens.3", &[2, 4], &tokens)]).contains("[2, 4]"));
    let other = Tensor::f32("tokens.4", &[4, 1, 2], &tokens);
    assert!(said(&[good, other]).contains("[2, 4, 1], as the first layer"));
    let again = Tensor::f32("tokens.03", &[2, 4, 1], &tokens);
    assert!(said(&[good, again]).contains("one a layer"));
    for value in [f32::NAN, f32::INFINITY] {
        let mut broken = tokens;
        broken[5] = value;
        let text = said(&[Tensor::f32("tokens.3", &[2, 4, 1], &broken)]);
        assert!(text.contains("tokens.3") && text.contains("at position 5"), "{text}");
        let text = said(&[good, Tensor::f32("class_tokens", &[2, 4], &broken)]);
        assert!(text.contains("class_tokens") && text.contains("at position 5"), "{text}");
    }
    let text = said(&[good, Tensor::f32("class_tokens", &[4, 2], &tokens)]);
    assert!(text.contains("[4, 2]") && text.contains("[2, any]"), "{text}");
    let text = said(&[good, Tensor::u64("content", &[3], &[0; 3])]);
    assert!(text.contains("content") && text.contains("[3]"), "{text}");
    let text = said(&[good, Tensor::f32("content", &[2], &tokens[..2])]);
    assert!(text.contains("64-bit integers"), "{text}");
    let text = said(&[good, Tensor::u8("left_out", &[4, 2], &marks)]);
    assert!(text.contains("left_out") && text.contains("[2, 4]"), "{text}");
}

#[test]
fn what_cannot_be_read_is_not_written() {
    let (_folder, path) = file();
    let mut broken = features(Grid::square(2));
    broken.tokens[1][3] = f32::NAN;
    assert!(write_features(&path, &broken, &[]).unwrap_err().to_string().contains("NaN"));
    assert!(!path.exists());
}

#[test]
fn hashes_survive_as_signed_integers() {
    // PyTorch has no unsigned 64-bit tensors: the bits count.
    let (_folder, path) = file();
    let tokens = [0.5; 2];
    let tensors = [
        Tensor::f32("tokens.0", &[2, 1, 1], &tokens),
        Tensor::u64("content", &[2], &[1, u64::MAX]),
    ];
    write_tensors(&path, &tensors, &[]).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(5).position(|word| word == b"\"U64\"").unwrap();
    bytes[at..at + 5].copy_from_slice(b"\"I64\"");
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(read_features(&path, None).unwrap().content, [1, u64::MAX]);
}
