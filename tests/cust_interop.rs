//! Memory and streams of the crate `cust`, here and there, in one process with one driver: `tools/driver/check.sh` links it with
//! the driver API on the simulator.
#![cfg(feature = "cust-interop")]

use cust::memory::{CopyDestination, DeviceBuffer};
use cust::stream::{Stream, StreamFlags};
use musc::backend::cuda::launch::layer_norm::{self, Norm, Rows};
use musc::backend::cuda::{Card, cust_interop};

const WIDTH: usize = 256;

fn values(rows: usize) -> Vec<f32> {
    (0..rows * WIDTH).map(|at| ((at * 7 + at / WIDTH) % 23) as f32 - 11.0).collect()
}

/// The layer norm of rows in f64, without scale and shift.
fn expected(values: &[f32]) -> Vec<f64> {
    let norm = |row: &[f32]| {
        let mean = row.iter().map(|&v| f64::from(v)).sum::<f64>() / WIDTH as f64;
        let square = |&v: &f32| (f64::from(v) - mean).powi(2);
        let variance = row.iter().map(square).sum::<f64>() / WIDTH as f64;
        let scale = 1.0 / (variance + 1e-6).sqrt();
        row.iter().map(|&v| (f64::from(v) - mean) * scale).collect::<Vec<_>>()
    };
    values.chunks_exact(WIDTH).flat_map(norm).collect()
}

#[test]
fn memory_and_streams_of_cust() {
    cust::init(cust::CudaFlags::empty()).unwrap();
    let card = Card::open(0).unwrap();
    let ours = card.stream().unwrap();
    let rows = 3;
    let (values, ones, zeros) = (values(rows), vec![1.0f32; WIDTH], vec![0.0f32; WIDTH]);
    // Making the stream made the card's context this thread's: what cust allocates is in it.
    let theirs = DeviceBuffer::from_slice(&values).unwrap();
    let gamma = ours.upload_new(&ones, "gamma").unwrap();
    let beta = DeviceBuffer::from_slice(&zeros).unwrap();
    let stream = Stream::new(StreamFlags::NON_BLOCKING, None).unwrap();
    let mut out = card.alloc::<f32>(values.len(), "out").unwrap();
    {
        // A kernel of ours, on cust's stream and memory, into a buffer of ours.
        let lent = cust_interop::stream(&card, &stream).unwrap();
        let input = cust_interop::view(&card, &theirs).unwrap();
        let beta = cust_interop::view(&card, &beta).unwrap();
        let norm = Norm { gamma: gamma.view(), beta, eps: 1e-6 };
        layer_norm::stream(&lent, input, Rows::All(rows), WIDTH, norm, out.view_mut()).unwrap();
    }
    stream.synchronize().unwrap();
    // And read through cust.
    let mut found = vec![0.0f32; values.len()];
    cust_interop::device_slice(&out).copy_to(&mut found[..]).unwrap();
    let worst = found.iter().zip(expected(&values)).map(|(&a, b)| (f64::from(a) - b).abs());
    let worst = worst.fold(0.0, f64::max);
    assert!(found.iter().all(|v| v.is_finite()) && worst < 1e-5, "{worst:e}");
    // Written by ours, read by theirs; written by theirs, read by ours.
    let mut theirs = theirs;
    ours.zero(cust_interop::view_mut(&card, &mut theirs).unwrap()).unwrap();
    ours.synchronise().unwrap();
    assert_eq!(theirs.as_host_vec().unwrap(), vec![0.0; values.len()]);
    // SAFETY: used in place, neither moved nor swapped.
    unsafe { cust_interop::device_slice_mut(&mut out) }.copy_from(&values[..]).unwrap();
    assert_eq!(ours.download_new(out.view()).unwrap(), values);
}

#[test]
fn memory_and_streams_of_another_context_are_refused() {
    cust::init(cust::CudaFlags::empty()).unwrap();
    let card = Card::open(0).unwrap();
    let device = cust::device::Device::get_device(0).unwrap();
    // A context of cust's own in place of the card's primary one.
    let context = cust::context::legacy::Context::create_and_push(
        cust::context::legacy::ContextFlags::SCHED_AUTO,
        device,
    )
    .unwrap();
    let elsewhere = DeviceBuffer::from_slice(&[1.0f32; 8]).unwrap();
    let stream = Stream::new(StreamFlags::NON_BLOCKING, None).unwrap();
    let told = cust_interop::view(&card, &elsewhere).map(drop).unwrap_err().to_string();
    assert!(told.contains("cuda:0") && told.contains("primary context"), "{told}");
    let told = cust_interop::stream(&card, &stream).map(drop).unwrap_err().to_string();
    assert!(told.contains("stream of cust"), "{told}");
    drop((elsewhere, stream, context));
}
