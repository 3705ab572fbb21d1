//! JPEG as libjpeg writes it with its own settings: the file that OpenCV's `imwrite` makes of the same pixels.
//!
//! The library is `mozjpeg`'s; with the settings of libjpeg it makes libjpeg-turbo's files.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use mozjpeg::{ColorSpace, Compress};

use crate::image::RgbImage;

/// Encodes an image whose data fit its size, at this quality, colour at half the resolution (4:2:0).
pub(super) fn encode(image: &RgbImage, quality: u8) -> io::Result<Vec<u8>> {
    // The library reports a fatal error (a side above 65500, say) by unwinding through its C frames; nothing is shared
    // with the closure that could be left half-changed.
    catch_unwind(AssertUnwindSafe(|| {
        let mut file = Compress::new(ColorSpace::JCS_RGB);
        file.set_fastest_defaults();
        file.set_size(image.width, image.height);
        file.set_quality(f32::from(quality));
        file.set_chroma_sampling_pixel_sizes((2, 2), (2, 2));
        file.set_optimize_coding(false);
        let mut started = file.start_compress(Vec::new())?;
        started.write_scanlines(&image.data)?;
        started.finish()
    }))
    .unwrap_or_else(|payload| {
        let reason = payload.downcast_ref::<String>().map_or("unknown", String::as_str);
        Err(io::Error::other(format!(
            "JPEG: {}",
            reason.trim_start_matches("libjpeg fatal error: ")
        )))
    })
}
