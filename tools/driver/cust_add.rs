//! `cust` on the simulated driver: the kernel that it ships, over page-locked and device memory, two streams and an event.

use cust::event::{Event, EventFlags};
use cust::function::{BlockSize, GridSize};
use cust::memory::{AsyncCopyDestination, LockedBuffer};
use cust::prelude::*;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let _context = cust::quick_init()?;
    let device = Device::get_device(0)?;
    assert!(device.name()?.starts_with("ptxsim"), "the device is {}", device.name()?);
    let module = Module::from_ptx(include_str!(env!("CUST_ADD_PTX")), &[])?;
    let sum = module.get_function("sum")?;
    let (copies, work) =
        (Stream::new(StreamFlags::NON_BLOCKING, None)?, Stream::new(StreamFlags::NON_BLOCKING, None)?);
    let x = LockedBuffer::new(&10.0f32, 10)?;
    let y = LockedBuffer::new(&20.0f32, 10)?;
    // SAFETY: the buffers live until both streams are done.
    let (mut on_x, mut on_y) = unsafe { (DeviceBuffer::uninitialized(10)?, DeviceBuffer::uninitialized(10)?) };
    let out = DeviceBuffer::from_slice(&[0.0f32; 10])?;
    let ready = Event::new(EventFlags::DISABLE_TIMING)?;
    // SAFETY: as above; the work waits for the copies.
    unsafe {
        on_x.async_copy_from(&x, &copies)?;
        on_y.async_copy_from(&y, &copies)?;
        ready.record(&copies)?;
        work.wait_event(ready, cust::stream::StreamWaitEventFlags::DEFAULT)?;
        launch!(sum<<<GridSize::x(1), BlockSize::x(16), 0, work>>>(
            on_x.as_device_ptr(), on_y.as_device_ptr(), out.as_device_ptr(), out.len()
        ))?;
    }
    work.synchronize()?;
    let mut host = [0.0f32; 10];
    out.copy_to(&mut host)?;
    assert_eq!(host, [30.0; 10]);
    let wrong = Module::from_ptx("no ptx", &[]);
    assert!(matches!(wrong, Err(cust::error::CudaError::InvalidPtx)), "text that is no PTX was loaded");
    println!("cust: its kernel is right on {}", device.name()?);
    Ok(())
}
