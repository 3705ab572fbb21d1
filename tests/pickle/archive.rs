//! The zip archive around the pickle.

use musc::model::pickle::TorchFile;

use crate::support::{archive, data, one_tensor, refusal};

fn refused(bytes: Vec<u8>) -> String {
    refusal(TorchFile::from_bytes("test.pth", bytes))
}

#[test]
fn an_archive_made_by_hand_is_read() {
    let pickle = one_tensor(1, 0, &[1], &[1]);
    let entries: [(&str, &[u8]); 3] =
        [("x/data.pkl", &pickle), ("x/byteorder", b"little"), ("x/data/0", &[0, 0, 128, 63])];
    let file = TorchFile::from_bytes("test.pth", archive(&entries)).expect("open");
    assert_eq!(file.state_dict(None).expect("state dict").tensors.len(), 1);
}

#[test]
fn what_is_no_such_archive_is_refused() {
    let pickle = one_tensor(1, 0, &[1], &[1]);
    let value: &[u8] = &[0, 0, 128, 63];
    for (bytes, part) in [
        (b"PK\x03\x04".to_vec(), "not a readable zip archive"),
        (b"hello".to_vec(), "does not start as a zip archive"),
        (archive(&[("x/data", b"")]), "without `data.pkl`"),
        (archive(&[("x/data.pkl", &pickle), ("y/data.pkl", &pickle)]), "several entries"),
        (archive(&[("x/data.pkl", &pickle)]), "found no entry `data/0`"),
        (archive(&[("x/data.pkl", &pickle), ("y/data/0", value)]), "found no entry `data/0`"),
        (archive(&[("x/data.pkl", &pickle), ("x/data/0", &[0; 3])]), "found 3 bytes in `data/0`"),
        (archive(&[("x/data.pkl", &pickle), ("x/byteorder", b"big")]), "byte order"),
        (archive(&[("x/data.pkl", &pickle), ("x/code/a.py", b"")]), "TorchScript"),
        (archive(&[("x/data.pkl", &pickle), ("x/constants.pkl", b"")]), "TorchScript"),
    ] {
        let message = refused(bytes);
        assert!(message.contains(part), "{part} in {message}");
    }
    assert!(refusal(TorchFile::open(&data("no_such.pth"))).contains("no_such.pth"));
    assert!(refusal(TorchFile::open(&data(""))).contains("not a file"));
}

/// Found by mutation with a zip reader that believed it: a directory said to be of 65535 entries is not made room for.
#[test]
fn a_number_of_entries_is_not_believed() {
    let mut bytes = archive(&[("x/data.pkl", &one_tensor(1, 0, &[1], &[1]))]);
    let end = bytes.len() - 22;
    bytes[end + 8..end + 12].fill(0xff);
    assert!(refused(bytes).contains("it has 1 entries, expected 65535"));
}

#[test]
fn an_archive_past_four_gigabytes_keeps_its_sizes_elsewhere() {
    // As large files are written, in small: sizes and places in extra fields and in a second end.
    let pickle = one_tensor(1, 0, &[1], &[1]);
    let entries: [(&str, &[u8]); 2] = [("x/data.pkl", &pickle), ("x/data/0", &[0, 0, 128, 63])];
    let plain = archive(&entries);
    let central = find(&plain, b"PK\x01\x02");
    let mut bytes = plain[..central].to_vec();
    let mut at = central;
    while plain[at..].starts_with(b"PK\x01\x02") {
        let name = usize::from(u16::from_le_bytes([plain[at + 28], plain[at + 29]]));
        let mut entry = plain[at..at + 46 + name].to_vec();
        let field = |entry: &[u8], at: usize| {
            u64::from(u32::from_le_bytes(entry[at..at + 4].try_into().unwrap()))
        };
        let values = [field(&entry, 24), field(&entry, 20), field(&entry, 42)];
        for place in [20, 24, 42] {
            entry[place..place + 4].fill(0xff);
        }
        entry[30] = 6 + 28;
        bytes.extend(&entry);
        // Another field comes first.
        bytes.extend([9, 9, 2, 0, 7, 7, 1, 0, 24, 0]);
        values.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
        at += 46 + name;
    }
    let (second, size) = (bytes.len() as u64, (bytes.len() - central) as u64);
    bytes.extend(b"PK\x06\x06");
    bytes.extend(44u64.to_le_bytes());
    bytes.extend([0; 12]);
    for value in [2, 2, size, central as u64] {
        bytes.extend(value.to_le_bytes());
    }
    bytes.extend(b"PK\x06\x07\0\0\0\0");
    bytes.extend(second.to_le_bytes());
    bytes.extend(1u32.to_le_bytes());
    bytes.extend(b"PK\x05\x06\0\0\0\0");
    bytes.extend([0xff; 12]);
    bytes.extend([0, 0]);
    let file = TorchFile::from_bytes("test.pth", bytes).expect("open");
    assert_eq!(file.state_dict(None).expect("state dict").tensors.len(), 1);
}

#[test]
fn a_changed_value_is_found_by_its_checksum() {
    let whole = std::fs::read(data("vit.pth")).expect("read");
    let file = TorchFile::from_bytes("vit.pth", whole.clone()).expect("open");
    assert_eq!(file.size(), whole.len());
    let mut found = 0;
    for at in (0..whole.len()).step_by(1009) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        if let Err(reason) = TorchFile::from_bytes("vit.pth", bytes) {
            found += usize::from(reason.to_string().contains("damaged"));
        }
    }
    assert!(found > 35, "{found}");
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let whole = std::fs::read(data("nested.pth")).expect("read");
    for size in 0..whole.len() {
        refused(whole[..size].to_vec());
    }
}

#[test]
fn entries_that_share_their_bytes_are_refused() {
    // Many central entries for one large local one: the work would be their product.
    let pickle = one_tensor(1, 0, &[1], &[1]);
    let zeros = vec![0u8; 1000];
    let mut entries: Vec<(&str, &[u8])> = vec![("x/data.pkl", &pickle)];
    let names: Vec<String> = (0..20).map(|key| format!("x/data/{key:02}")).collect();
    entries.extend(names.iter().map(|name| (name.as_str(), zeros.as_slice())));
    let mut bytes = archive(&entries);
    let first = find(&bytes, b"x/data/00") - 30;
    let mut at = find(&bytes, b"PK\x01\x02");
    let mut index = 0;
    // Point every central entry but the pickle's to the first storage; the names in the local headers are not compared.
    while bytes[at..].starts_with(b"PK\x01\x02") {
        if index > 0 {
            bytes[at + 42..at + 46].copy_from_slice(&(first as u32).to_le_bytes());
        }
        at += 46 + usize::from(u16::from_le_bytes([bytes[at + 28], bytes[at + 29]]));
        index += 1;
    }
    // Drop the other local entries' bytes: the file shrinks, the announced sizes do not.
    let start = first + 30 + 9 + 1000;
    let end = find(&bytes, b"PK\x01\x02");
    bytes.drain(start..end);
    let tail = bytes.len() - 6;
    bytes[tail..tail + 4].copy_from_slice(&(start as u32).to_le_bytes());
    let message = refused(bytes);
    assert!(message.contains("its entries take more bytes than the file has"), "{message}");
}

fn find(bytes: &[u8], part: &[u8]) -> usize {
    bytes.windows(part.len()).position(|window| window == part).expect("part")
}
