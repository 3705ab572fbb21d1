//! The head of a safetensors file: what tensors it holds and where, checked before anything is made of it.

use std::collections::BTreeMap;
use std::io::{self, Read};

use safetensors::tensor::{Metadata, TensorInfo};

/// Largest header that is read: thirty times that of the largest model here. What a header says is parsed
/// into memory, so its size is bounded before.
pub const MAX_HEADER_BYTES: u64 = 4 << 20;

/// Bytes in front of the header: its length.
const LENGTH_BYTES: usize = 8;

/// What a file holds.
#[derive(Debug)]
pub(crate) struct Header {
    /// Where the tensors' values begin.
    pub data: usize,
    /// The tensors by name; their offsets count from `data`, fit their shapes and end inside the file.
    pub tensors: BTreeMap<String, TensorInfo>,
    /// Notes, by key.
    pub metadata: BTreeMap<String, String>,
}

/// Why a head is not taken.
#[derive(Debug)]
pub(crate) enum HeaderFault {
    /// The source could not be read.
    Read(io::Error),
    /// What is wrong with the content.
    Content(String),
}

/// Reads the head of a file that is `size` bytes long.
///
/// The header is parsed, and offsets compared with shapes, by the safetensors crate. Its own check of the
/// whole file is not used: it does not say the sizes, and adds offsets unchecked.
pub(crate) fn header(source: &mut impl Read, size: u64) -> Result<Header, HeaderFault> {
    let content = |reason: String| Err(HeaderFault::Content(reason));
    let not_safetensors =
        |reason: String| Err(HeaderFault::Content(format!("not a safetensors file: {reason}")));
    if size < LENGTH_BYTES as u64 {
        return not_safetensors(format!("{size} bytes, too short for a header"));
    }
    let mut length = [0u8; LENGTH_BYTES];
    source.read_exact(&mut length).map_err(HeaderFault::Read)?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER_BYTES {
        return not_safetensors(format!(
            "its header would have {length} bytes, more than the {MAX_HEADER_BYTES} allowed"
        ));
    }
    // At most MAX_HEADER_BYTES, so it fits any usize.
    let length = length as usize;
    let data = LENGTH_BYTES + length;
    if (data as u64) > size {
        return content(format!(
            "cut short: the header ends at byte {data}, the file has {size} bytes"
        ));
    }
    let mut text = vec![0u8; length];
    source.read_exact(&mut text).map_err(HeaderFault::Read)?;
    let text = match std::str::from_utf8(&text) {
        Ok(text) => text,
        Err(error) => return not_safetensors(format!("its header is not text: {error}")),
    };
    let parsed: Metadata = match serde_json::from_str(text) {
        Ok(parsed) => parsed,
        Err(error) => {
            return not_safetensors(printable(&format!("its header is not valid: {error}")));
        }
    };
    match (data as u64).checked_add(parsed.data_len() as u64) {
        Some(expected) if expected == size => {}
        Some(expected) => {
            let how = if expected > size { "cut short" } else { "too long" };
            return content(format!(
                "{how}: the header describes a file of {expected} bytes, the file has {size}"
            ));
        }
        None => {
            return content(format!(
                "the header describes more data than can exist, the file has {size} bytes"
            ));
        }
    }
    let tensors = parsed.tensors().into_iter().map(|(name, info)| (name, info.clone())).collect();
    let metadata = parsed.metadata().clone().unwrap_or_default().into_iter().collect();
    Ok(Header { data, tensors, metadata })
}

/// Text from a file, with control characters made visible: a terminal must not obey a tensor's name.
pub fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, values: usize) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.resize(bytes.len() + values, 0);
        bytes
    }

    fn read(bytes: &[u8]) -> Result<Header, String> {
        header(&mut &bytes[..], bytes.len() as u64).map_err(|fault| match fault {
            HeaderFault::Content(reason) => reason,
            HeaderFault::Read(error) => panic!("{error}"),
        })
    }

    #[test]
    fn a_sound_head_is_taken() {
        let text = r#"{"__metadata__":{"grid":"2x3"},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
        let header = read(&file(text, 8)).unwrap();
        assert_eq!(header.data, 8 + text.len());
        assert_eq!(header.tensors["a"].shape, [2]);
        assert_eq!(header.metadata["grid"], "2x3");
    }

    #[test]
    fn every_lie_is_named() {
        let a = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
        let huge = r#"{"a":{"dtype":"U8","shape":[18446744073709551615],"data_offsets":[0,18446744073709551615]}}"#;
        let large = r#"{"a":{"dtype":"U8","shape":[1152921504606846976],"data_offsets":[0,1152921504606846976]}}"#;
        let unlike = r#"{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}"#;
        let wraps = r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}"#;
        let mut long = file(a, 8);
        long[..8].copy_from_slice(&(MAX_HEADER_BYTES + 1).to_le_bytes());
        let mut far = file(a, 8);
        far[..8].copy_from_slice(&(MAX_HEADER_BYTES).to_le_bytes());
        for (bytes, named) in [
            (b"abc".to_vec(), "3 bytes, too short for a header"),
            (Vec::new(), "0 bytes, too short"),
            (long, "more than the 4194304 allowed"),
            (far, "cut short: the header ends at byte 4194312"),
            (file(a, 7), "cut short: the header describes a file of 70 bytes, the file has 69"),
            (file(a, 9), "too long: the header describes a file of 70 bytes, the file has 71"),
            (file("{\"a\":\u{1b}", 0), "not valid"),
            (file(huge, 0), "not valid"),
            (file(large, 0), "cut short: the header describes a file of 1152921504606847"),
            (file(unlike, 8), "not valid"),
            (file(wraps, 0), "not valid"),
        ] {
            let said = read(&bytes).unwrap_err();
            assert!(said.contains(named) && !said.contains('\u{1b}'), "{named}: {said}");
        }
        let mut broken = file(a, 8);
        broken[9] = 0xFF;
        assert!(read(&broken).unwrap_err().contains("not text"));
        // The length that was told is the source's word; a source that ends before is a fault of reading.
        assert!(matches!(header(&mut &b"abc"[..], 100), Err(HeaderFault::Read(_))));
    }
}
