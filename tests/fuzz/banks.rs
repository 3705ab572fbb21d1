//! Banks: a head that lies, values that are none.

use musc::inspect::{Bank, Batch};
use musc::scoring::decision::DecisionRule;

use crate::memory::{alone, peak};
use crate::mutate::{Numbers, mutate};
use crate::rounds::{fuzz, refused};

/// A small bank, as it is written.
fn bank() -> Vec<u8> {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("b.safetensors");
    let frame = |seed: u8| {
        let data = (0..56 * 56 * 3).map(|at| (at as u8).wrapping_mul(seed)).collect();
        musc::image::RgbImage::new(56, 56, data).expect("a frame")
    };
    let inspector = musc::inspect::Inspector::builder()
        .weights(musc::inspect::Weights::File(
            concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/dinov2_tiny_weights.safetensors")
                .into(),
        ))
        .layers([1])
        .size(42)
        .device(musc::backend::device::Device::Cpu)
        .build()
        .expect("an inspector");
    let batch = Batch::images(vec![frame(3), frame(5), frame(7)]).expect("a batch");
    let bank = inspector.bank(&batch, DecisionRule::default(), &()).expect("a bank");
    bank.save(&path).expect("save");
    std::fs::read(path).expect("read")
}

#[test]
fn banks() {
    let _alone = alone();
    let seeds = [bank()];
    let pieces: [&[u8]; 14] = [
        b"0",
        b"99",
        b"18446744073709551615",
        b"F32",
        b"U64",
        b"BF16",
        b"[",
        b"]",
        b"\\\"",
        b"null",
        b"left_out",
        b"1e999",
        b"musc-bank",
        b"[0,0]",
    ];
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("fuzzed.safetensors");
    let change = |bytes: &mut Vec<u8>, numbers: &mut Numbers| {
        let length = u64::from_le_bytes(bytes[..8].try_into().expect("eight")) as usize;
        let mut head = bytes[8..8 + length].to_vec();
        mutate(&mut head, numbers, &pieces);
        let mut values = bytes[8 + length..].to_vec();
        if numbers.below(4) == 0 {
            mutate(&mut values, numbers, &[b"\xff\xff", b"\x00\x7c"]);
        }
        *bytes = (head.len() as u64).to_le_bytes().to_vec();
        bytes.extend(head);
        bytes.extend(values);
    };
    // Single tensors are read as f32 whatever they are: four times a byte. The head is JSON, twice over.
    fuzz("banks", &seeds, 8, 1 << 20, change, |bytes| {
        std::fs::write(&path, bytes).expect("write");
        match Bank::open(&path) {
            Ok(bank) => {
                assert_eq!(bank.raw_scores().len(), bank.len());
                assert!(bank.threshold().is_finite() && !bank.is_empty());
                true
            }
            Err(reason) => refused(reason),
        }
    });
    // What a whole bank takes: itself.
    let whole = &seeds[0];
    std::fs::write(&path, whole).expect("write");
    let (_, most) = peak(|| Bank::open(&path).expect("a bank"));
    assert!(most <= whole.len() + (4 << 20), "{most} bytes for a bank of {}", whole.len());
}
