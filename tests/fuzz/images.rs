//! Image files: PNG, JPEG, BMP, TIFF.

use musc::image::{MAX_DECODED_BYTES, decode, image_size};

use crate::memory::alone;
use crate::mutate::{Numbers, mutate};
use crate::rounds::{fuzz, read, refused};

const NAMES: [&str; 12] = [
    "gray.png",
    "gray16.png",
    "gray_alpha.png",
    "one_bit.png",
    "palette_transparent.png",
    "palette.bmp",
    "one_bit.bmp",
    "rgba.tif",
    "gray16.tif",
    "rgb_420.jpg",
    "progressive.jpg",
    "cmyk.jpg",
];

/// A PNG's checksums, made right again, so that what the damage says is read.
fn mend_png(bytes: &mut [u8]) {
    let mut at = 8;
    while at + 12 <= bytes.len() {
        let length = u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        let Some(end) = at.checked_add(8 + length).filter(|end| end + 4 <= bytes.len()) else {
            return;
        };
        let sum = !bytes[at + 4..end].iter().fold(u32::MAX, |sum, &byte| {
            (0..8).fold(sum ^ u32::from(byte), |sum, _| (sum >> 1) ^ (0xedb8_8320 * (sum & 1)))
        });
        bytes[end..end + 4].copy_from_slice(&sum.to_be_bytes());
        at = end + 4;
    }
}

#[test]
fn image_files() {
    let _alone = alone();
    let seeds = NAMES.map(|name| read(&format!("images/{name}")));
    let pieces: [&[u8]; 14] = [
        b"IHDR",
        b"PLTE",
        b"tRNS",
        b"IDAT",
        b"IEND",
        b"\xff\xd8",
        b"\xff\xc0\x00\x11\x08",
        b"\xff\xc4",
        b"\xff\xda",
        b"\xff\xd9",
        b"BM",
        b"II*\x00",
        b"MM\x00*",
        b"\x00\x00\xff\xff",
    ];
    let change = |bytes: &mut Vec<u8>, numbers: &mut Numbers| {
        mutate(bytes, numbers, &pieces);
        if bytes.starts_with(b"\x89PNG") && numbers.below(4) > 0 {
            mend_png(bytes);
        }
    };
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("fuzzed");
    // A small file may claim large pixels, up to a limit: they are there as stored, and as RGB.
    fuzz("images", &seeds, 64, 2 * MAX_DECODED_BYTES as usize, change, |bytes| {
        std::fs::write(&path, bytes).expect("write");
        let size = image_size(&path);
        match decode(&path) {
            Ok(decoded) => {
                let (width, height) = (decoded.image.width, decoded.image.height);
                assert_eq!(decoded.image.data.len(), width * height * 3);
                let size = size.expect("what can be decoded has a size");
                assert_eq!((size.width, size.height), (width, height));
                true
            }
            Err(reason) => refused(reason),
        }
    });
}
