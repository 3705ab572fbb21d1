//! What is fuzzed: safetensors headers, archives, state dicts, class features.

use musc::model::pickle::{TorchFile, class_features_of_bytes};
use musc::model::{Vit, WeightFile};

use crate::memory::{alone, peak};
use crate::mutate::{Numbers, mutate};
use crate::rounds::{fuzz, read, refused};

/// A safetensors file whose tensors are those of `weights/README.md`'s smallest model, from the committed PyTorch file.
fn smallest_safetensors() -> Vec<u8> {
    let mut bytes = Vec::new();
    let file = TorchFile::from_bytes("vit.pth", read("pickles/vit.pth")).expect("open");
    file.state_dict(None).expect("state").write_safetensors(&mut bytes).expect("write");
    bytes
}

#[test]
fn safetensors_headers() {
    let _alone = alone();
    let seeds = [smallest_safetensors()];
    let pieces: [&[u8]; 22] = [
        b"0",
        b"9",
        b"18446744073709551615",
        b"9223372036854775807",
        b"-",
        b"[",
        b"]",
        b"{",
        b"}",
        b",",
        b":",
        b"\"",
        b"1e9",
        b"\"blocks.0.ls1.gamma\"",
        b"\"F32\"",
        b"\"BF16\"",
        b"\"I64\"",
        b"\\u0000",
        b"[[[[[[[[",
        b"[0,0]",
        b"model.module.",
        b"\"blocks.1023.ls1.gamma\":{\"dtype\":\"F16\",\"shape\":[0],\"data_offsets\":[0,0]},",
    ];
    let change = |bytes: &mut Vec<u8>, numbers: &mut Numbers| {
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let mut header = bytes[8..8 + length].to_vec();
        mutate(&mut header, numbers, &pieces);
        let mut whole = (header.len() as u64).to_le_bytes().to_vec();
        if numbers.below(16) == 0 {
            mutate(&mut whole, numbers, &[b"\xff"]);
        }
        whole.extend(header);
        // Sometimes the header alone: then memory is its own.
        if numbers.below(4) > 0 {
            whole.extend(&bytes[8 + length..]);
        }
        *bytes = whole;
    };
    // A file in memory is a copy; a JSON header costs up to some hundred bytes a tensor of forty.
    fuzz("safetensors headers", &seeds, 16, 1 << 20, change, |bytes| {
        let file = WeightFile::from_bytes("fuzzed", bytes.to_vec());
        match file.and_then(|file| Vit::from_file(&file)) {
            Ok(vit) => {
                assert_eq!(vit.class_token.to_f32().len(), vit.architecture.width);
                true
            }
            Err(reason) => refused(reason),
        }
    });
}

/// Opens, reads and writes out.
fn convert(bytes: &[u8]) -> bool {
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let file = match TorchFile::from_bytes("fuzzed", bytes.to_vec()) {
        Ok(file) => file,
        Err(reason) => return refused(reason),
    };
    let state = match file.state_dict(None) {
        Ok(state) => state,
        Err(reason) => return refused(reason),
    };
    let mut written = Count(0);
    state.write_safetensors(&mut written).expect("a tensor that was checked is written");
    let header = 1000 + state.tensors.iter().map(|t| 400 + 6 * t.name().len()).sum::<usize>();
    assert!(written.0 <= 4 * bytes.len() + header, "{} bytes from {}", written.0, bytes.len());
    true
}

fn archives() -> Vec<Vec<u8>> {
    ["checkpoint", "vit", "nested", "module", "namespace", "expanded", "legacy"]
        .map(|name| read(&format!("pickles/{name}.pth")))
        .to_vec()
}

#[test]
fn archives_as_they_are() {
    let _alone = alone();
    let pieces: [&[u8]; 8] = [
        b"PK\x03\x04",
        b"PK\x01\x02",
        b"PK\x05\x06",
        b"PK\x06\x06",
        b"PK\x06\x07",
        b"/data.pkl",
        b"/data/0",
        b"\x01\x00\x10\x00",
    ];
    let change = |bytes: &mut Vec<u8>, numbers: &mut Numbers| mutate(bytes, numbers, &pieces);
    fuzz("archives", &archives(), 64, 1 << 20, change, convert);
}

/// Where the pickle of an archive lies: its first entry is stored.
fn first_entry(bytes: &[u8]) -> std::ops::Range<usize> {
    let half = |at: usize| usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]));
    let start = 30 + half(26) + half(28);
    let central = bytes.windows(4).position(|w| w == b"PK\x01\x02").expect("central directory");
    let size = u32::from_le_bytes(bytes[central + 20..central + 24].try_into().unwrap()) as usize;
    start..start + size
}

const PICKLE_PIECES: [&[u8]; 40] = [
    b"(",
    b")",
    b"t",
    b"\x85",
    b"\x86",
    b"\x87",
    b"]",
    b"}",
    b"a",
    b"e",
    b"s",
    b"u",
    b"N",
    b"\x88",
    b"R",
    b"b",
    b"Q",
    b"\x93",
    b"\x94",
    b"h\x00",
    b"h\x01",
    b"q\x00",
    b"j\xff\xff\xff\xff",
    b"r\xff\xff\xff\xff",
    b"K\x00",
    b"K\x01",
    b"J\xff\xff\xff\xff",
    b"J\xff\xff\xff\x7f",
    b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"X\xff\xff\xff\xff",
    b"\x8e\xff\xff\xff\xff\xff\xff\xff\xff",
    b"X\x01\x00\x00\x00a",
    b"X\x05\x00\x00\x00model",
    b"ccollections\nOrderedDict\n",
    b"ctorch._utils\n_rebuild_tensor_v2\n",
    b"ctorch._utils\n_rebuild_parameter\n",
    b"ctorch\nFloatStorage\n",
    b"ctorch\nSize\n",
    b"c_codecs\nencode\n",
    b"cnumpy\ndtype\n",
];

#[test]
fn state_dicts_in_sound_archives() {
    let _alone = alone();
    // The checksum would refuse a changed pickle before it is read, so it is set right.
    let archives = archives();
    let change = |bytes: &mut Vec<u8>, numbers: &mut Numbers| {
        let entry = first_entry(bytes);
        let mut pickle = bytes[entry.clone()].to_vec();
        mutate(&mut pickle, numbers, &PICKLE_PIECES);
        // Enough for every tensor of the seeds.
        let values: Vec<Vec<u8>> = (0..24).map(|key| vec![key; 480]).collect();
        let names: Vec<String> = (0..24).map(|key| format!("x/data/{key}")).collect();
        let mut entries: Vec<(&str, &[u8])> = vec![("x/data.pkl", &pickle)];
        entries.extend(names.iter().map(String::as_str).zip(values.iter().map(Vec::as_slice)));
        *bytes = archive::archive(&entries);
    };
    // The last is no archive; the second has larger storages than these.
    let sound = [archives[0].clone(), archives[2].clone(), archives[5].clone()];
    fuzz("state dicts", &sound, 128, 1 << 20, change, convert);
}

#[test]
fn class_features() {
    let _alone = alone();
    let seeds: Vec<Vec<u8>> = [
        "features_2",
        "features_3",
        "features_4",
        "features_5",
        "array",
        "list",
        "rows",
        "big_endian",
    ]
    .map(|name| read(&format!("pickles/{name}.dat")))
    .to_vec();
    let change =
        |bytes: &mut Vec<u8>, numbers: &mut Numbers| mutate(bytes, numbers, &PICKLE_PIECES);
    fuzz("class features", &seeds, 128, 1 << 20, change, |bytes| {
        let taken = [None, Some("bottle")].map(|category| {
            match class_features_of_bytes("fuzzed", bytes, category) {
                Ok(features) => {
                    assert_eq!(features.tokens.len(), features.images * features.width);
                    true
                }
                Err(reason) => refused(reason),
            }
        });
        taken.contains(&true)
    });
}

/// Files made to take as much as can be for their size.
#[test]
fn files_made_to_be_costly_stay_within_the_bound() {
    let _alone = alone();
    let mut costly: Vec<(&str, Vec<u8>)> = Vec::new();
    for (name, opcode) in [
        ("dicts", &b"}"[..]),
        ("marks and tuples", b"(t"),
        ("tuples of one", b"N\x85"),
        ("lists", b"]"),
        ("memory", b"N\x94"),
        ("recalls", b"h\x00"),
        ("integers", b"K\x01"),
        ("marks", b"("),
    ] {
        let many = opcode.repeat(400_000 / opcode.len());
        costly.push((name, [b"\x80\x04N\x94".as_slice(), &many, b"."].concat()));
    }
    // The same long text, decoded again and again; as a shape; as a key on a deep path.
    let text = [b"\x80\x02X\x00\x40\x00\x00".as_slice(), &[b'a'; 0x4000], b"q\x00"].concat();
    let latin = b"c_codecs\nencode\nq\x01X\x06\x00\x00\x00latin1q\x020";
    let decode = b"h\x01h\x00h\x02\x86R";
    costly.push((
        "decoding",
        [&text, &latin[..latin.len() - 1], &decode.repeat(5000), b"."].concat(),
    ));
    let keys = b"}h\x00".repeat(5000);
    costly.push(("long keys", [&text, &keys[..], b"."].concat()));
    for (name, pickle) in costly {
        let bytes = archive::archive(&[("x/data.pkl", &pickle)]);
        let (_, most) = peak(|| convert(&bytes));
        let limit = 128 * bytes.len() + (1 << 20);
        println!(
            "{name}: {most} bytes for {}, {:.1} times",
            bytes.len(),
            most as f64 / bytes.len() as f64
        );
        assert!(most <= limit, "{name}: {most} bytes for a file of {}", bytes.len());
    }
}

/// The zip writer of the pickle's tests.
#[path = "../pickle/support.rs"]
#[allow(dead_code, reason = "shared with another test, which needs more of it")]
mod archive;
