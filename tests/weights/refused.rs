//! Files that are refused, each with a message that names what is wrong.

use std::path::Path;

use musc::Error;
use musc::model::{MAX_HEADER_BYTES, Vit, WeightFile, backbone};
use safetensors::tensor::Dtype;

use crate::support::*;

fn expect_message(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "no {part:?} in: {message}");
    }
}

#[test]
fn a_file_read_into_memory_is_the_file_that_is_mapped() {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/dinov2_tiny_weights.safetensors");
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("copy.safetensors");
    std::fs::copy(path, &copy).unwrap();
    let vit = Vit::from_file(&WeightFile::read(&copy).unwrap()).unwrap();
    let mapped = Vit::open(&copy).unwrap();
    // What was read stays, whatever becomes of the file.
    let token = mapped.class_token.to_f32().to_vec();
    std::fs::write(&copy, b"").unwrap();
    assert_eq!(vit.class_token.to_f32().to_vec(), token);
    let message = WeightFile::read(&copy).err().unwrap().to_string();
    expect_message(&message, &["copy.safetensors", "the file is empty"]);
    std::fs::remove_file(&copy).unwrap();
    let message = WeightFile::read(&copy).err().unwrap().to_string();
    expect_message(&message, &["copy.safetensors", "cannot read"]);
}

/// A header around which tests put what they like.
fn with_header(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

#[test]
fn the_smallest_model_is_accepted() {
    // What the tests below change is right before.
    let vit = load(&smallest()).unwrap();
    assert_eq!((vit.architecture.width, vit.architecture.mlp_width), (64, 8));
}

#[test]
fn every_missing_extra_and_misshapen_tensor_is_in_one_error() {
    let mut tensors = tiny("dinov2");
    tensors.remove("blocks.1.mlp.fc1.bias");
    tensors.remove("norm.weight");
    tensors.insert("blocks.0.attn.proj.weight".into(), Raw::zeros(&[128, 127]));
    tensors.insert("blocks.3.ls2.gamma".into(), Raw::zeros(&[1, 128]));
    tensors.insert("blocks.2.attn.q_norm.weight".into(), Raw::zeros(&[64]));
    let gamma = Raw { dtype: Dtype::F64, shape: vec![128], bytes: vec![0; 1024] };
    tensors.insert("blocks.2.ls1.gamma".into(), gamma);
    let message = refusal(&tensors);
    assert_eq!(
        message,
        "test.safetensors: 6 problems\n  \
         - tensor `blocks.0.attn.proj.weight`: found shape [128, 127], expected [128, 128]\n  \
         - tensor `blocks.1.mlp.fc1.bias` is missing, expected [512]\n  \
         - tensor `blocks.2.ls1.gamma`: found type F64, expected F32, F16 or BF16\n  \
         - tensor `blocks.3.ls2.gamma`: found shape [1, 128], expected [128]\n  \
         - tensor `norm.weight` is missing, expected [128]\n  \
         - tensor `blocks.2.attn.q_norm.weight` [64] is extra: the ViT of DINOv2 has no such part"
    );
}

#[test]
#[cfg_attr(packaged, ignore = "a file that is in the repository only")]
fn sizes_that_cannot_be_told_leave_the_list_of_names() {
    let mut tensors = tiny("clip");
    tensors.remove("visual.class_embedding");
    tensors.remove("visual.ln_post.bias");
    tensors.insert("visual.conv1.weight".into(), Raw::zeros(&[128, 588]));
    let message = refusal(&tensors);
    expect_message(
        &message,
        &[
            "3 problems",
            "tensor `visual.class_embedding` is missing",
            "tensor `visual.ln_post.bias` is missing",
            "tensor `visual.conv1.weight`: found shape [128, 588], which does not tell",
        ],
    );
}

#[test]
#[cfg_attr(packaged, ignore = "a file that is in the repository only")]
fn a_class_token_without_projection_is_not_taken_for_one() {
    let mut tensors = tiny("clip");
    tensors.remove("visual.proj");
    assert_eq!(refusal(&tensors), "test.safetensors: tensor `visual.proj` is missing");
}

#[test]
#[cfg_attr(packaged, ignore = "a file that is in the repository only")]
fn values_that_are_not_finite_are_named_with_their_position() {
    let mut tensors = tiny("dino");
    let change = |tensors: &mut Tensors, name: &str, at: usize, value: f32| {
        let raw = &tensors[name];
        let mut values = raw.values();
        values[at] = value;
        let raw = Raw::f32(&raw.shape.clone(), values);
        tensors.insert(name.into(), raw);
    };
    change(&mut tensors, "blocks.1.mlp.fc1.weight", 300 * 128 + 17, f32::NAN);
    change(&mut tensors, "pos_embed", 16 * 128 + 127, f32::NEG_INFINITY);
    let message = refusal(&tensors);
    expect_message(
        &message,
        &[
            "2 problems",
            "tensor `pos_embed`: the value at [0, 16, 127] is infinite or not a number",
            "tensor `blocks.1.mlp.fc1.weight`: the value at [300, 17] is infinite or not a number",
        ],
    );
    // f16 has its own infinity: a value that overflows in the conversion.
    let mut tensors = tiny("dino");
    change(&mut tensors, "norm.bias", 5, 1e6);
    assert!(load(&tensors).is_ok());
    let converted = tensors.iter().map(|(name, raw)| (name.clone(), raw.to_f16())).collect();
    expect_message(&refusal(&converted), &["tensor `norm.bias`: the value at [5] is infinite"]);
}

#[test]
#[cfg_attr(packaged, ignore = "a file that is in the repository only")]
fn an_unused_tensor_may_hold_anything() {
    let mut tensors = tiny("dino");
    tensors.insert("head.weight".into(), Raw::f32(&[2], [f32::NAN, f32::INFINITY]));
    assert!(load(&tensors).is_ok());
}

#[test]
fn register_tokens_are_refused_by_name() {
    for name in ["register_tokens", "reg_token", "dinov2.embeddings.register_tokens"] {
        let mut tensors = tiny("dinov2");
        tensors.insert(name.into(), Raw::zeros(&[1, 4, 128]));
        let message = refusal(&tensors);
        expect_message(&message, &[&format!("tensor `{name}`"), "with register tokens"]);
    }
}

#[test]
fn an_unknown_file_lists_what_it_holds() {
    let mut tensors = Tensors::new();
    for index in 0..20 {
        tensors.insert(format!("layer{index:02}.conv.weight"), Raw::zeros(&[1]));
    }
    let message = refusal(&tensors);
    expect_message(
        &message,
        &[
            "no known naming: found 20 tensors, `layer00.conv.weight`, ",
            "`layer11.conv.weight`, …; expected one of `visual.conv1.weight` (A, open_clip)",
            "`blocks.0.ls1.gamma` (E, DINOv2)",
        ],
    );
    assert!(!message.contains("layer12"), "{message}");
    expect_message(&refusal(&Tensors::new()), &["found 0 tensors, no names"]);
}

#[test]
fn names_in_messages_cannot_drive_a_terminal() {
    let mut tensors = smallest();
    tensors.insert("blocks.0.\u{1b}[2J".into(), Raw::zeros(&[1]));
    let message = refusal(&tensors);
    expect_message(&message, &["tensor `blocks.0.\\u{1b}[2J` [1] is extra"]);
}

#[test]
fn names_that_meet_without_their_wrappers_are_ambiguous() {
    let mut tensors = smallest();
    let again = tensors["norm.weight"].clone();
    tensors.insert("module.norm.weight".into(), again);
    let message = refusal(&tensors);
    expect_message(&message, &["`module.norm.weight` and `norm.weight` are both `norm.weight`"]);
}

#[test]
#[cfg_attr(packaged, ignore = "a file that is in the repository only")]
fn blocks_are_counted_without_gaps() {
    let mut tensors = tiny("dino");
    tensors.retain(|name, _| !name.starts_with("blocks.2."));
    let message = refusal(&tensors);
    expect_message(&message, &["block 2 of 4 is missing: no `blocks.2.…`"]);
    assert!(!message.contains("blocks.2.norm1"), "{message}");

    // Found by mutation: one index too large made a line of each of 14,000 tensors.
    let mut tensors = smallest();
    tensors.insert("blocks.1023.norm1.bias".into(), Raw::zeros(&[64]));
    let message = refusal(&tensors);
    let gap = "blocks 1 to 1022 of 1024 are missing: no `blocks.1.…` to `blocks.1022.…`";
    expect_message(&message, &[gap, "tensor `blocks.1023.norm1.weight` is missing"]);
    assert!(message.len() < 2000, "{} bytes", message.len());

    for index in ["1024", "99999999999999999999", "x"] {
        let mut tensors = smallest();
        tensors.insert(format!("blocks.{index}.norm1.bias"), Raw::zeros(&[64]));
        let message = refusal(&tensors);
        expect_message(&message, &[&format!("tensor `blocks.{index}.norm1.bias`"), "below 1024"]);
    }
}

#[test]
fn widths_must_hold_whole_heads_and_grids_be_square() {
    let mut tensors = smallest();
    tensors.insert("cls_token".into(), Raw::zeros(&[1, 1, 100]));
    let message = refusal(&tensors);
    expect_message(
        &message,
        &["the width of a token is 100, expected a multiple of the head width 64"],
    );

    for rows in [1, 3, 6] {
        let mut tensors = smallest();
        tensors.insert("pos_embed".into(), Raw::zeros(&[1, rows, 64]));
        let message = refusal(&tensors);
        expect_message(
            &message,
            &[&format!("`pos_embed`: found {rows} rows, expected 1 + a square")],
        );
    }
    for shape in [&[0][..], &[1, 0, 64], &[1, 1, 0]] {
        let mut tensors = smallest();
        tensors.insert("cls_token".into(), Raw::zeros(shape));
        expect_message(&refusal(&tensors), &["`cls_token`: found shape", "does not tell"]);
    }
}

#[test]
#[cfg_attr(packaged, ignore = "a file that is in the repository only")]
fn weights_of_another_model_are_told_by_their_sizes() {
    let vit = load(&tiny("clip")).unwrap();
    let error = vit.check_backbone(backbone("ViT-L-14-336").unwrap()).unwrap_err();
    assert!(matches!(error, Error::Weights { .. }));
    expect_message(
        &error.to_string(),
        &[
            "not the weights of ViT-L-14-336: found CLIP, width 128, depth 4, patch 14, native size 56",
            "expected CLIP, width 1024, depth 24, patch 14, native size 336",
            "no backbone known by name fits",
        ],
    );
}

#[test]
fn files_of_a_wrong_size_say_both_sizes() {
    let whole = file_bytes(&smallest());
    let header = u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    for cut in [1, 2, 1000, whole.len() - 8 - header] {
        let size = whole.len() - cut;
        let message = load_bytes(whole[..size].to_vec()).unwrap_err().to_string();
        let expected = format!("a file of {} bytes, the file has {size}", whole.len());
        expect_message(&message, &["test.safetensors: cut short: ", &expected]);
    }
    let message = load_bytes(whole[..header].to_vec()).unwrap_err().to_string();
    let expected =
        format!("cut short: the header ends at byte {}, the file has {header}", header + 8);
    expect_message(&message, &[&expected]);
    let mut longer = whole.clone();
    longer.push(0);
    let message = load_bytes(longer).unwrap_err().to_string();
    let expected = format!("too long: the header describes a file of {} bytes", whole.len());
    expect_message(&message, &[&expected]);
}

/// The length of a header may begin with the bytes that a pickle begins with.
#[test]
fn a_header_of_640_bytes_is_not_taken_for_a_pickle() {
    let bytes = file_bytes(&smallest());
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    for length in [640 + 65536, 768 + 65536] {
        let mut padded = (length as u64).to_le_bytes().to_vec();
        padded.extend(&bytes[8..header]);
        padded.resize(8 + length, b' ');
        padded.extend(&bytes[header..]);
        load_bytes(padded).unwrap();
    }
}

#[test]
fn files_of_another_format_are_named_as_such() {
    let refused = |bytes: &[u8]| load_bytes(bytes.to_vec()).unwrap_err().to_string();
    expect_message(&refused(b"\x89PNG"), &["not a safetensors file: 4 bytes, too short"]);
    expect_message(
        &refused(b"PK\x03\x04 and so on"),
        &["PyTorch file (.pt, .pth, .bin)", "has to be converted"],
    );
    expect_message(&refused(b"\x80\x02}q\x00X\x05\x00\x00"), &["PyTorch file"]);
    expect_message(&refused(b"\x89PNG\r\n\x1a\n and so on"), &["its header would have"]);
    expect_message(&refused(&with_header("[1, 2]", 0)), &["its header is not valid"]);
    expect_message(&refused(&with_header("{\"a\": \"\u{1b}", 0)), &["its header is not valid"]);
    let mut not_text = with_header("{}", 0);
    not_text[8] = 0xff;
    expect_message(&refused(&not_text), &["its header is not text"]);
    let mut large = (MAX_HEADER_BYTES + 1).to_le_bytes().to_vec();
    large.resize(100, b' ');
    expect_message(&refused(&large), &["4194305 bytes, more than the 4194304 allowed"]);
}

#[test]
fn headers_that_contradict_themselves_are_refused() {
    let entry = |name: &str, shape: &str, from: u64, to: u64| {
        format!(r#""{name}":{{"dtype":"U8","shape":[{shape}],"data_offsets":[{from},{to}]}}"#)
    };
    let header = |entries: &[String]| format!("{{{}}}", entries.join(","));
    let part = (1u64 << 61) - 1;
    let mut huge: Vec<_> = (0..8)
        .map(|i| entry(&i.to_string(), &part.to_string(), i * part, (i + 1) * part))
        .collect();
    huge.push(entry("8", "7", 8 * part, 8 * part + 7));
    for (text, data) in [
        // Overlap, hole, backwards, shape against offsets, overflow in a shape and in the sum of all.
        (header(&[entry("a", "4", 0, 4), entry("b", "4", 2, 6)]), 6),
        (header(&[entry("a", "4", 0, 4), entry("b", "4", 5, 9)]), 9),
        (header(&[entry("a", "4", 4, 0)]), 4),
        (header(&[entry("a", "5", 0, 4)]), 4),
        (header(&[entry("a", "18446744073709551615, 2", 0, 4)]), 4),
        (header(&[entry("a", "-1", 0, 4)]), 4),
        (header(&huge), 64),
    ] {
        let error = load_bytes(with_header(&text, data)).unwrap_err();
        assert!(matches!(error, Error::Weights { .. }), "{text}: {error}");
    }
}

#[test]
fn files_that_are_not_there_or_not_files() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing.safetensors");
    let message = Vit::open(&missing).unwrap_err().to_string();
    expect_message(&message, &["cannot read", "missing.safetensors"]);
    let message = Vit::open(folder.path()).unwrap_err().to_string();
    expect_message(&message, &["not a file; expected a .safetensors file"]);
    let empty = folder.path().join("empty.safetensors");
    std::fs::write(&empty, b"").unwrap();
    expect_message(&Vit::open(&empty).unwrap_err().to_string(), &["the file is empty"]);
    assert!(Vit::open(Path::new("")).is_err());
    let whole = folder.path().join("whole.safetensors");
    std::fs::write(&whole, file_bytes(&smallest())).unwrap();
    assert_eq!(Vit::open(&whole).unwrap().source(), whole.display().to_string());
}
