//! Files of `tests/data/pickles`, and archives and pickles put together by hand.

use std::path::PathBuf;

use musc::model::pickle::TorchFile;

/// A file of `tests/data/pickles`, made by `tests/data/make_pickle_fixtures.py`.
pub fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/pickles").join(name)
}

/// The message with which a file is refused, when it is opened or when its tensors are asked for.
pub fn refusal(file: musc::Result<TorchFile>) -> String {
    match file {
        Err(reason) => reason.to_string(),
        Ok(file) => file.state_dict(None).expect_err("refused").to_string(),
    }
}

/// An archive as `torch.save` makes it, with these entries stored.
pub fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut central = Vec::new();
    for (name, content) in entries {
        let offset = bytes.len() as u32;
        let mut fields = Vec::new();
        // Version, flags, method 0, time, date.
        for field in [20u16, 0, 0, 0, 0x21] {
            fields.extend(field.to_le_bytes());
        }
        for field in [crc32(content), content.len() as u32, content.len() as u32] {
            fields.extend(field.to_le_bytes());
        }
        fields.extend((name.len() as u16).to_le_bytes());
        fields.extend(0u16.to_le_bytes());
        bytes.extend(b"PK\x03\x04");
        bytes.extend(&fields);
        bytes.extend(name.as_bytes());
        bytes.extend(*content);
        central.extend(b"PK\x01\x02\x14\x00");
        central.extend(&fields);
        central.extend([0; 2 + 2 + 2 + 4]);
        central.extend(offset.to_le_bytes());
        central.extend(name.as_bytes());
    }
    let (start, count) = (bytes.len() as u32, entries.len() as u16);
    bytes.extend(&central);
    bytes.extend(b"PK\x05\x06\0\0\0\0");
    bytes.extend(count.to_le_bytes());
    bytes.extend(count.to_le_bytes());
    bytes.extend((central.len() as u32).to_le_bytes());
    bytes.extend(start.to_le_bytes());
    bytes.extend([0, 0]);
    bytes
}

/// The checksum of zip entries, bit by bit.
pub fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 }
        })
    })
}

/// A pickle of a dict `{"a": tensor}` over the f32 storage `0`, with these numbers in place of the real ones.
pub fn one_tensor(elements: u32, offset: i32, shape: &[i32], strides: &[i32]) -> Vec<u8> {
    let mut pickle = b"\x80\x02}X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n((".to_vec();
    pickle.extend(
        b"X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu",
    );
    let integer = |pickle: &mut Vec<u8>, value: i32| {
        pickle.push(b'J');
        pickle.extend(value.to_le_bytes());
    };
    integer(&mut pickle, elements as i32);
    pickle.extend(b"tQ");
    integer(&mut pickle, offset);
    for numbers in [shape, strides] {
        pickle.push(b'(');
        numbers.iter().for_each(|&number| integer(&mut pickle, number));
        pickle.push(b't');
    }
    pickle.extend(b"\x89ccollections\nOrderedDict\n)RtRs.");
    pickle
}

/// A file with that one tensor and six values.
pub fn file_of(pickle: &[u8]) -> musc::Result<TorchFile> {
    let values: Vec<u8> = (0..6).flat_map(|at| (at as f32).to_le_bytes()).collect();
    TorchFile::from_bytes("test.pth", archive(&[("x/data.pkl", pickle), ("x/data/0", &values)]))
}
