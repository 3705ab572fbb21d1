//! State dicts that PyTorch wrote.

use musc::model::Vit;
use musc::model::pickle::TorchFile;
use safetensors::{Dtype, SafeTensors};

use crate::support::{data, file_of, one_tensor, refusal};

/// The state dict as the bytes of a safetensors file.
fn written(file: &TorchFile, key: Option<&str>) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.state_dict(key).expect("state dict").write_safetensors(&mut bytes).expect("write");
    bytes
}

#[test]
fn every_type_and_view_equals_what_pytorch_makes_of_it() {
    let file = TorchFile::open(&data("checkpoint.pth")).expect("open");
    let state = file.state_dict(None).expect("state dict");
    assert_eq!(state.key, "teacher");
    assert_eq!((state.left_out.len(), state.rounded()), (0, 2));
    let ours = written(&file, None);
    let ours = SafeTensors::deserialize(&ours).expect("safetensors");
    let theirs = std::fs::read(data("teacher.safetensors")).expect("read");
    let theirs = SafeTensors::deserialize(&theirs).expect("safetensors");
    assert_eq!(ours.len(), theirs.len());
    for (name, expected) in theirs.tensors() {
        let found = ours.tensor(&name).expect(&name);
        assert_eq!((found.dtype(), found.shape()), (expected.dtype(), expected.shape()), "{name}");
        assert_eq!(found.data(), expected.data(), "{name}");
    }
    let names: Vec<&str> = state.tensors.iter().map(|tensor| tensor.name()).collect();
    assert!(names.is_sorted() && names.len() == 20, "{names:?}");
    let double = state.tensors.iter().find(|tensor| tensor.name() == "float64").expect("float64");
    assert_eq!((double.dtype(), double.shape(), double.elements()), (Dtype::F64, &[3, 2][..], 6));
}

#[test]
fn a_backbone_goes_all_the_way() {
    let file = TorchFile::open(&data("vit.pth")).expect("open");
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("vit.safetensors");
    std::fs::write(&path, written(&file, None)).expect("write");
    let vit = Vit::open(&path).expect("weights");
    assert_eq!((vit.architecture.width, vit.architecture.depth), (64, 1));
    // The first values of the fixture: multiples of 37 modulo 257, less 128, in eighths.
    assert_eq!(vit.class_token.to_f32()[..3], [-16.0, -11.375, -6.75]);
    let values: usize =
        file.state_dict(None).expect("state dict").tensors.iter().map(|t| t.elements()).sum();
    assert_eq!(vit.parameter_count(), values);
}

#[test]
fn of_several_models_one_is_named_or_known() {
    let file = TorchFile::open(&data("checkpoint.pth")).expect("open");
    assert_eq!(file.state_dict(Some("student")).expect("student").tensors.len(), 1);
    let nested = TorchFile::open(&data("nested.pth")).expect("open");
    assert_eq!(nested.state_dict(Some("model.state_dict")).expect("model").tensors[0].name(), "a");
    let absent = nested.state_dict(Some("teacher")).expect_err("no teacher").to_string();
    assert!(absent.contains("`model.state_dict`, `other`"), "{absent}");
    let ambiguous = refusal(TorchFile::open(&data("ambiguous.pth")));
    assert!(
        ambiguous.contains("`other`, `weird`; name the one that is meant with --key"),
        "{ambiguous}"
    );
}

#[test]
fn what_is_more_than_tensors_is_refused_by_its_name() {
    for (name, parts) in [
        ("module.pth", &["`torch.nn.modules.linear.Linear`", "nothing is executed"][..]),
        ("namespace.pth", &["`argparse.Namespace`", "byte "]),
        ("legacy.pth", &["PyTorch before 1.6", "torch.save(torch.load("]),
        ("script.pt", &["TorchScript", "torch.jit.load(IN).state_dict()", "as safetensors"]),
        (
            "expanded.pth",
            &["tensor `a`", "[1000] repeats the values of its storage, of which there are 1"],
        ),
    ] {
        let message = refusal(TorchFile::open(&data(name)));
        assert!(message.contains(name), "{message}");
        for part in parts {
            assert!(message.contains(part), "{part} in {message}");
        }
    }
    let system = b"\x80\x02cposix\nsystem\nX\x04\x00\x00\x00true\x85R.";
    assert!(refusal(file_of(system)).contains("`posix.system`"));
    let by_stack = b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x011\x85R.";
    assert!(refusal(file_of(by_stack)).contains("`builtins.eval`"));
    let escape = b"\x80\x02cos\x1b[2J\nsystem\n)R.";
    assert!(refusal(file_of(escape)).contains("`os\\u{1b}[2J.system`"));
}

#[test]
fn views_outside_their_storage_are_refused() {
    let state = |elements, offset, shape: &[i32], strides: &[i32]| {
        let file = file_of(&one_tensor(elements, offset, shape, strides))?;
        let mut bytes = Vec::new();
        file.state_dict(None)?.write_safetensors(&mut bytes).expect("write");
        Ok::<_, musc::Error>(bytes)
    };
    let values = |bytes: Vec<u8>| {
        let file = SafeTensors::deserialize(&bytes).expect("safetensors");
        let data = file.tensor("a").expect("a").data().to_vec();
        data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect::<Vec<_>>()
    };
    assert_eq!(values(state(6, 0, &[2, 3], &[3, 1]).unwrap()), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    assert_eq!(values(state(6, 1, &[2, 2], &[1, 3]).unwrap()), [1.0, 4.0, 2.0, 5.0]);
    assert_eq!(values(state(6, 5, &[1, 1], &[i32::MAX, 7]).unwrap()), [5.0]);
    assert_eq!(values(state(6, 3, &[], &[]).unwrap()), [3.0]);
    assert!(values(state(6, 0, &[0, 9], &[9, 1]).unwrap()).is_empty());
    for (elements, offset, shape, strides) in [
        (6, 1, &[2, 3][..], &[3, 1][..]),
        (6, 6, &[1], &[1]),
        (6, 6, &[], &[]),
        (6, 0, &[2, 3], &[4, 1]),
        (7, 0, &[7], &[1]),
        (6, -1, &[1], &[1]),
        (6, 0, &[-1], &[1]),
        (6, 0, &[2], &[-1]),
        (6, 0, &[2, 3], &[3]),
        (6, 0, &[i32::MAX, i32::MAX, i32::MAX], &[i32::MAX, i32::MAX, i32::MAX]),
        (6, 0, &[1000], &[0]),
        (-1i32 as u32, 0, &[1], &[1]),
        (6, 0, &[1; 17], &[1; 17]),
    ] {
        let message = state(elements, offset, shape, strides).err().map(|e| e.to_string());
        let message = message.unwrap_or_else(|| panic!("{shape:?} {strides:?} passed"));
        assert!(message.starts_with("test.pth: "), "{message}");
    }
}

#[test]
fn pickles_that_make_no_sense_are_refused_with_their_place() {
    for (pickle, part) in [
        (&b""[..], "cut short"),
        (b"\x80\x02", "byte 2 of the pickle: cut short"),
        (b"\x80\x02.", "an object is taken that is not there"),
        (b"\x80\x00}.", "pickle protocol 0"),
        (b"\x80\x02}}.", "middle of a container"),
        (b"\x80\x02(}.", "middle of a container"),
        (b"\x80\x02t.", "a mark is taken"),
        (b"\x80\x02}(K\x01u.", "a key without its value"),
        (b"\x80\x02]K\x01K\x02s.", "no dict"),
        (b"\x80\x02}K\x01a.", "no list"),
        (b"\x80\x02h\x07.", "object 7 was never remembered"),
        (b"\x80\x02X\xff\xff\xff\xffa.", "4294967295 more bytes expected"),
        (b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xffa.", "more bytes expected"),
        (b"\x80\x02X\x01\x00\x00\x00\xff.", "not UTF-8"),
        (b"\x80\x02}b.", "an object is asked for"),
        (b"\x80\x02K\x01}b.", "a whole number is given a state"),
        (b"\x80\x02K\x01)R.", "a whole number is called"),
        (b"\x80\x02K\x01Q.", "persistent id"),
        (b"\x80\x02c__main__\nA\n)\x81.", "`__main__.A`"),
        (b"\x80\x02I1\n.", "opcode 0x49"),
        (b"\x80\x02].", "no state dict: found a list"),
        (b"\x80\x02}X\x01\x00\x00\x00aK\x01s.", "found no tensor in a dict with keys `a`"),
    ] {
        let message = refusal(file_of(pickle));
        assert!(message.contains(part), "{part} in {message}");
    }
    let deep = [b"\x80\x02".to_vec(), vec![b'('; 300]].concat();
    assert!(refusal(file_of(&deep)).contains("more than 256 deep"));
    // A dict that holds itself is walked once.
    let cycle = b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s.";
    assert!(refusal(file_of(cycle)).contains("found no tensor"));
}
