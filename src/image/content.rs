//! What a file's bytes are, whatever its name says, and whether they go on to the end.

use std::ffi::OsStr;
use std::path::Path;

use image::ImageFormat;

/// The format of `bytes`, or why they cannot be read as an image named `path`.
pub(super) fn identify(path: &Path, bytes: &[u8]) -> Result<ImageFormat, String> {
    if bytes.is_empty() {
        return Err(String::from("the file is empty (0 bytes)"));
    }
    let named = path.extension().and_then(ImageFormat::from_extension);
    let found = sniff(bytes);
    let content = match found {
        Some(format) => name_of(format),
        None => other_content(bytes),
    };
    if let Some(named) = named
        && found != Some(named)
    {
        let extension = path.extension().unwrap_or(OsStr::new("")).to_string_lossy();
        return Err(format!(
            "the name (.{extension}) says {}, the content is {content}",
            name_of(named)
        ));
    }
    match found {
        Some(
            format @ (ImageFormat::Png | ImageFormat::Jpeg | ImageFormat::Bmp | ImageFormat::Tiff),
        ) => Ok(format),
        _ => Err(format!("the content is {content}, expected PNG, JPEG, BMP or TIFF")),
    }
}

fn sniff(bytes: &[u8]) -> Option<ImageFormat> {
    // TIFF with 64-bit offsets has its own mark.
    if bytes.starts_with(b"II+\0") || bytes.starts_with(b"MM\0+") {
        return Some(ImageFormat::Tiff);
    }
    image::guess_format(bytes).ok()
}

fn name_of(format: ImageFormat) -> &'static str {
    match format {
        ImageFormat::Png => "PNG",
        ImageFormat::Jpeg => "JPEG",
        ImageFormat::Bmp => "BMP",
        ImageFormat::Tiff => "TIFF",
        ImageFormat::Gif => "GIF",
        ImageFormat::WebP => "WebP",
        ImageFormat::Avif => "AVIF",
        ImageFormat::Pnm => "PNM",
        ImageFormat::Ico => "an icon",
        ImageFormat::OpenExr => "OpenEXR",
        _ => "another image format",
    }
}

fn other_content(bytes: &[u8]) -> &'static str {
    let head = &bytes[..bytes.len().min(512)];
    if head.iter().all(|&byte| byte == 0) {
        "zero bytes"
    } else if head.starts_with(b"%PDF") {
        "PDF"
    } else if head.starts_with(b"PK\x03\x04") {
        "a ZIP archive"
    } else if head.starts_with(b"\x1f\x8b") {
        "gzip data"
    } else if head.starts_with(b"version https://git-lfs") {
        "a Git LFS pointer, not the file it stands for"
    } else if head.iter().all(|&byte| byte >= 0x20 || matches!(byte, b'\t' | b'\n' | b'\r')) {
        "text"
    } else {
        "no known image format"
    }
}

/// Finds files that stop early and whose decoder would fill the rest with grey, or not look.
///
/// JPEG must have its end-of-image marker and PNG its IEND chunk; the decoders of BMP and TIFF miss absent
/// pixels by themselves.
pub(super) fn check_whole(format: ImageFormat, bytes: &[u8]) -> Result<(), String> {
    let whole = match format {
        ImageFormat::Jpeg => jpeg_is_whole(bytes),
        ImageFormat::Png => png_is_whole(bytes),
        _ => return Ok(()),
    };
    let end = if format == ImageFormat::Jpeg { "end-of-image marker" } else { "IEND chunk" };
    match whole {
        Some(()) => Ok(()),
        None => Err(format!(
            "the file is truncated: its {} bytes end before the {} {end}",
            bytes.len(),
            name_of(format)
        )),
    }
}

/// Walks the segments; a thumbnail's own end marker lies inside a segment and is stepped over.
fn jpeg_is_whole(bytes: &[u8]) -> Option<()> {
    let mut rest = bytes.get(2..)?;
    loop {
        // Between segments there is coded data, in which 0xFF is always followed by 0 or a restart marker.
        let start = rest.iter().position(|&byte| byte == 0xFF)?;
        rest = &rest[start + 1..];
        match *rest.first()? {
            // A fill byte: the next one may be the marker.
            0xFF => {}
            0xD9 => return Some(()),
            0x00 | 0x01 | 0xD0..=0xD8 => rest = &rest[1..],
            _ => {
                let length = u16::from_be_bytes([*rest.get(1)?, *rest.get(2)?]);
                rest = rest.get(1 + usize::from(length)..)?;
            }
        }
    }
}

fn png_is_whole(bytes: &[u8]) -> Option<()> {
    let mut rest = bytes.get(8..)?;
    loop {
        let head: [u8; 8] = rest.get(..8)?.try_into().ok()?;
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let next = length.checked_add(12)?;
        rest = rest.get(next..)?;
        if &head[4..] == b"IEND" {
            return Some(());
        }
    }
}

/// True for a PNG of one grey bit a pixel, which Pillow opens in mode "1".
pub(super) fn is_one_bit_png(format: ImageFormat, bytes: &[u8]) -> bool {
    // IHDR is the first chunk: depth and colour type stand after the two sides.
    format == ImageFormat::Png && bytes.get(24..26) == Some(&[1, 0])
}
