//! Memory and streams of the crate [`cust`], used here and lent to it, without a copy (feature `cust-interop`).
//!
//! Both crates work in the card's primary context, so an address of one is good in the other. What is lent is borrowed:
//! it cannot outlive its owner. Building `cust` needs a CUDA toolkit; nothing else of this crate does.
//!
//! `cust` 0.3 has no way to take in a stream: what it is to wait for goes through
//! [`Stream::synchronise`], or through its raw handle, [`Stream::handle`].

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use bytemuck::Pod;
use cudarc::driver::sys;
use cust::memory::{DeviceCopy, DevicePointer, DeviceSlice};

use super::buffer::{Buffer, View, ViewMut};
use super::card::Card;
use super::driver::StreamHandle;
use super::stream::Stream;
use crate::{Error, Result};

/// A value that borrows what it stands for. Only to look at: what could be swapped against another would outlive its owner.
#[derive(Debug)]
pub struct Lent<'a, V> {
    value: V,
    of: PhantomData<&'a ()>,
}

impl<V> Deref for Lent<'_, V> {
    type Target = V;

    fn deref(&self) -> &V {
        &self.value
    }
}

/// As [`Lent`], to write.
#[derive(Debug)]
pub struct LentMut<'a, V> {
    value: V,
    of: PhantomData<&'a mut ()>,
}

impl<V> Deref for LentMut<'_, V> {
    type Target = V;

    fn deref(&self) -> &V {
        &self.value
    }
}

impl<V> DerefMut for LentMut<'_, V> {
    fn deref_mut(&mut self) -> &mut V {
        &mut self.value
    }
}

/// Memory of `cust` to read.
///
/// # Errors
/// [`Error::Device`] for memory that is not of the card's primary context.
pub fn view<'a, T: Pod + DeviceCopy>(
    card: &'a Arc<Card>,
    memory: &'a DeviceSlice<T>,
) -> Result<View<'a, T>> {
    let address = address_of(card, memory)?;
    // SAFETY: `len` values of the card's context (checked), alive as long as the view, which borrows them.
    Ok(unsafe { View::from_raw(card, address, memory.len()) })
}

/// Memory of `cust` to write.
///
/// # Errors
/// As [`view`].
pub fn view_mut<'a, T: Pod + DeviceCopy>(
    card: &'a Arc<Card>,
    memory: &'a mut DeviceSlice<T>,
) -> Result<ViewMut<'a, T>> {
    let address = address_of(card, memory)?;
    // SAFETY: as in `view`, and borrowed for writing.
    Ok(unsafe { ViewMut::from_raw(card, address, memory.len()) })
}

/// The address of memory that is the card's.
fn address_of<T: DeviceCopy>(card: &Card, memory: &DeviceSlice<T>) -> Result<u64> {
    let at = memory.as_device_ptr().as_raw();
    let mut context: usize = 0;
    // SAFETY: writes one pointer, which `context` has room for; any address may be asked about.
    let asked = unsafe {
        sys::cuPointerGetAttribute(
            (&raw mut context).cast(),
            sys::CUpointer_attribute_enum::CU_POINTER_ATTRIBUTE_CONTEXT,
            at,
        )
    };
    same_context(card, asked.result().is_ok().then_some(context), "memory")?;
    Ok(at)
}

/// A stream of `cust`, for launches and copies of this crate in its order.
///
/// # Errors
/// [`Error::Device`] for a stream that is not of the card's primary context.
pub fn stream<'a>(card: &Arc<Card>, of_cust: &'a cust::stream::Stream) -> Result<Lent<'a, Stream>> {
    let handle = of_cust.as_inner();
    let mut context: sys::CUcontext = std::ptr::null_mut();
    // SAFETY: the stream lives as long as its owner, which is borrowed; one pointer is written.
    let asked = unsafe { sys::cuStreamGetCtx(handle as sys::CUstream, &mut context) };
    same_context(card, asked.result().is_ok().then_some(context as usize), "stream")?;
    // SAFETY: a stream of the card's context (checked), alive as long as the result.
    let value = unsafe { Stream::from_raw(card, StreamHandle(handle as u64)) };
    Ok(Lent { value, of: PhantomData })
}

/// A buffer as memory of `cust`.
pub fn device_slice<T: Pod + DeviceCopy>(buffer: &Buffer<T>) -> Lent<'_, DeviceSlice<T>> {
    // SAFETY: as many values lie there, and the result borrows the buffer.
    let value = unsafe {
        DeviceSlice::from_raw_parts(DevicePointer::from_raw(buffer.address()), buffer.len())
    };
    Lent { value, of: PhantomData }
}

/// A buffer as memory of `cust` that it may write.
///
/// # Safety
/// The `DeviceSlice` says nothing of how long its memory lives: it is neither moved out of the result nor swapped against
/// another.
pub unsafe fn device_slice_mut<T: Pod + DeviceCopy>(
    buffer: &mut Buffer<T>,
) -> LentMut<'_, DeviceSlice<T>> {
    // SAFETY: as many values lie there, and the result borrows the buffer for writing.
    let value = unsafe {
        DeviceSlice::from_raw_parts_mut(DevicePointer::from_raw(buffer.address()), buffer.len())
    };
    LentMut { value, of: PhantomData }
}

fn same_context(card: &Card, found: Option<usize>, what: &str) -> Result<()> {
    let expected = card.driver().raw_context();
    if expected.is_some() && found == expected {
        return Ok(());
    }
    Err(Error::Device {
        device: card.info().label.clone(),
        reason: format!("{what} of cust that is not of this card's primary context"),
    })
}
