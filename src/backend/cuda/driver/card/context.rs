//! A card's primary context, retained as long as this lives.
//!
//! In place of cudarc's `CudaContext`: that one keeps the context for ever when a call after `cuDevicePrimaryCtxRetain`
//! fails, and asks every driver for memory pools, which those before CUDA 11.2 answer with an error.

use cudarc::driver::{DriverError, result, sys};

/// A primary context, retained.
pub(super) struct PrimaryContext {
    device: sys::CUdevice,
    context: sys::CUcontext,
}

// SAFETY: handles of the driver, which any thread may use.
unsafe impl Send for PrimaryContext {}
// SAFETY: as above; nothing here changes.
unsafe impl Sync for PrimaryContext {}

impl PrimaryContext {
    /// Retains the primary context of a card by its number, after `cuInit`.
    ///
    /// # Errors
    /// The driver's, with the function's name.
    pub fn retain(ordinal: i32) -> Result<Self, (&'static str, DriverError)> {
        let device = result::device::get(ordinal).map_err(|error| ("cuDeviceGet", error))?;
        // SAFETY: the driver gave the device just now; `Drop` releases what is retained here.
        let context = unsafe { result::primary_ctx::retain(device) }
            .map_err(|error| ("cuDevicePrimaryCtxRetain", error))?;
        Ok(PrimaryContext { device, context })
    }

    /// The device.
    pub fn device(&self) -> sys::CUdevice {
        self.device
    }

    /// The context.
    pub fn handle(&self) -> sys::CUcontext {
        self.context
    }

    /// Makes it the calling thread's current context.
    ///
    /// # Errors
    /// The driver's.
    pub fn make_current(&self) -> Result<(), DriverError> {
        // SAFETY: retained, so it lives.
        unsafe { result::ctx::set_current(self.context) }
    }
}

impl Drop for PrimaryContext {
    fn drop(&mut self) {
        // SAFETY: retained once, by `retain`; whoever owns this has given back what is in it. An error is of earlier work.
        let _ = unsafe { result::primary_ctx::release(self.device) };
    }
}
