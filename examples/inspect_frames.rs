//! Images that never were files: a camera's frames, scored as they lie in memory, and a new one against them.
//!
//! `cargo run --release --example inspect_frames`

use musc::image::RgbImage;
use musc::inspect::{Batch, Inspector};

/// Stands for the camera: a woven cloth, with a spot on some frames.
fn frame(number: usize) -> musc::Result<RgbImage> {
    let (width, height) = (320, 240);
    let mut data = Vec::with_capacity(width * height * 3);
    for y in 0..height {
        for x in 0..width {
            let thread = 110 + 30 * ((x / 5 + y / 5) % 2) + (x * 7 + y * 13 + number * 29) % 9;
            let spot = number % 6 == 5 && (x.abs_diff(200)).pow(2) + (y.abs_diff(90)).pow(2) < 150;
            data.extend(if spot { [20, 15, 10] } else { [thread as u8, (thread - 20) as u8, 90] });
        }
    }
    RgbImage::new(width, height, data)
}

fn main() -> musc::Result<()> {
    let frames = (0..12).map(frame).collect::<musc::Result<Vec<_>>>()?;
    let batch = Batch::images(frames)?.named("camera 1");
    let inspector = Inspector::builder().backbone("dinov2_vits14").size(224).build()?;
    let inspection = inspector.inspect(&batch, &())?;
    for (sample, score) in inspection.samples().iter().zip(inspection.raw_scores()) {
        println!("{score:.3}  {}", sample.path.display());
    }
    // The good ones are worth keeping: a frame that comes later is compared with them alone.
    let good =
        (0..12).filter(|number| number % 6 != 5).map(frame).collect::<Result<Vec<_>, _>>()?;
    let references = inspector.learn(&Batch::images(good)?, &())?;
    let later = Batch::images(vec![frame(101)?, frame(102)?])?.with_names(["spot", "none"])?;
    let compared = inspector.compare(&later, &references, &())?;
    for (sample, score) in compared.samples().iter().zip(compared.raw_scores()) {
        println!("{score:.3}  {}, against the good ones", sample.path.display());
    }
    Ok(())
}
