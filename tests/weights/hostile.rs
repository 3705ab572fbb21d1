//! Thousands of damaged files: each is accepted or refused, and none ends the program.

use musc::Error;

use crate::support::*;

/// A generator of known numbers (Marsaglia's xorshift), so that a failure can be met again.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}

/// Loads; true when accepted. A refusal must be about the weights.
fn accepted(bytes: Vec<u8>) -> bool {
    match load_bytes(bytes) {
        Ok(vit) => {
            // What is accepted is whole: every value can be read.
            assert_eq!(vit.class_token.to_f32().len(), vit.architecture.width);
            assert!(vit.parameter_count() > 0);
            true
        }
        Err(Error::Weights { problems, .. }) => {
            assert!(!problems.is_empty());
            false
        }
        Err(other) => panic!("{other}"),
    }
}

fn header_length(bytes: &[u8]) -> usize {
    u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let whole = file_bytes(&smallest());
    let header = 8 + header_length(&whole);
    for size in (0..header + 64).chain((header..whole.len()).step_by(997)) {
        assert!(!accepted(whole[..size].to_vec()), "{size}");
    }
    assert!(accepted(whole));
}

#[test]
fn a_header_with_any_one_byte_changed_is_safe() {
    let whole = file_bytes(&smallest());
    let mut refused = 0;
    let mut tried = 0;
    for at in 0..8 + header_length(&whole) {
        for change in [0x01, 0x02, 0x10, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] ^= change;
            tried += 1;
            refused += usize::from(!accepted(bytes));
        }
    }
    // A change of white space or of a letter outside names may go unnoticed; nearly all others may not.
    assert!(refused * 100 > tried * 95, "{refused} of {tried}");
}

#[test]
fn headers_damaged_in_many_ways_are_safe() {
    let whole = file_bytes(&smallest());
    let header = header_length(&whole);
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let pieces: [&[u8]; 12] = [
        b"0",
        b"9",
        b"18446744073709551615",
        b"-",
        b"[",
        b"]",
        b"{",
        b"}",
        b",",
        b"\"",
        b"1e9",
        b"\"blocks.0.ls1.gamma\"",
    ];
    for _ in 0..4000 {
        let mut text = whole[8..8 + header].to_vec();
        for _ in 0..1 + numbers.below(3) {
            let at = numbers.below(text.len());
            let piece = pieces[numbers.below(pieces.len())];
            let until = (at + numbers.below(12)).min(text.len());
            text.splice(at..until, piece.iter().copied());
        }
        let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
        bytes.extend(text);
        bytes.extend(&whole[8 + header..]);
        accepted(bytes);
    }
}

#[test]
fn data_with_any_bits_are_safe() {
    let whole = file_bytes(&smallest());
    let data = 8 + header_length(&whole);
    let mut numbers = Numbers(0x2545_f491_4f6c_dd1d);
    for _ in 0..200 {
        let mut bytes = whole.clone();
        let at = data + numbers.below((bytes.len() - data) / 2) * 2;
        // All five bits of an f16's exponent: infinity or not a number, which must not pass.
        bytes[at + 1] |= 0x7c;
        assert!(!accepted(bytes), "{at}");
    }
    for _ in 0..200 {
        let mut bytes = whole.clone();
        let at = data + numbers.below(bytes.len() - data);
        // Any other value passes.
        bytes[at] ^= 0x03;
        assert!(accepted(bytes), "{at}");
    }
}
