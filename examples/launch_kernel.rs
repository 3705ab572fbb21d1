//! Launches a kernel on buffers of one's own: softmax attention of two images, on a card or on the simulator.
//!
//! ```sh
//! cargo run --example launch_kernel            # the simulator
//! cargo run --example launch_kernel -- 0       # card 0
//! ```
use musc::backend::cuda::launch::attention;
use musc::backend::cuda::{Card, Half};

fn main() -> musc::Result<()> {
    let card = match std::env::args().nth(1).and_then(|number| number.parse().ok()) {
        Some(number) => Card::open(number)?,
        None => Card::sim(),
    };
    let (images, tokens, heads) = (2, 50, 3);
    let values = images * tokens * heads * attention::HEAD;
    // Query, key and value of every token, 16-bit.
    let qkv: Vec<u16> =
        (0..3 * values).map(|at| Half::F16.bits((at * 37 % 101) as f32 / 50.0 - 1.0)).collect();

    let stream = card.stream()?;
    let qkv = stream.upload_new(&qkv, "query, key, value")?;
    let mut out = card.alloc::<u16>(values, "attention")?;
    // Shapes, alignment and the card are checked; nothing is waited for.
    attention::flash(&stream, Half::F16, qkv.view(), out.view_mut(), images, tokens, heads)?;
    // The download waits for what the stream was given before.
    let out = stream.download_new(out.view())?;
    let first: Vec<f32> = out.iter().take(4).map(|&bits| Half::F16.value(bits)).collect();
    println!("{}: {first:?}", card.info().name);
    Ok(())
}
