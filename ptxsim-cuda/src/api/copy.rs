//! Copies and fills.

use crate::code::{self, Fail, fail};
use crate::driver::Session;
use crate::memory::{End, Shape, Wait};
use crate::raw::In;

/// `CUDA_MEMCPY2D`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct Copy2d {
    from: Place,
    to: Place,
    width: usize,
    height: usize,
}

/// One half of `CUDA_MEMCPY2D`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    x: usize,
    y: usize,
    /// 1 host, 2 device, 3 array, 4 by the address.
    kind: u32,
    host: usize,
    device: u64,
    array: usize,
    pitch: usize,
}

impl Place {
    fn end(&self, width: usize, rows: usize) -> Result<(End, usize), Fail> {
        let pitch = if self.pitch == 0 { width } else { self.pitch };
        if rows > 1 && pitch < width + self.x {
            return Err(fail(
                code::INVALID_VALUE,
                format!("rows of {width} bytes from byte {} on, {pitch} bytes apart", self.x),
            ));
        }
        let skip = self.y.checked_mul(pitch).and_then(|skip| skip.checked_add(self.x));
        let skip =
            skip.ok_or_else(|| fail(code::INVALID_VALUE, "more bytes than there are addresses"))?;
        let end = match self.kind {
            1 => End::Host(self.host.wrapping_add(skip)),
            2 => End::Device(self.device.wrapping_add(skip as u64)),
            4 => End::Any(self.device.wrapping_add(skip as u64)),
            3 => return Err(super::unsupported("an array")),
            kind => return Err(fail(code::INVALID_VALUE, format!("no memory type {kind}"))),
        };
        Ok((end, pitch))
    }
}

fn copy(from: End, to: End, bytes: usize, stream: u64, wait: Wait) -> Result<(), Fail> {
    let mut session = Session::open()?;
    let stream = session.stream(stream)?;
    session.copy(stream, from, to, Shape::line(bytes), wait)
}

fn copy_2d(given: In<Copy2d>, stream: u64, wait: Wait) -> Result<(), Fail> {
    let mut session = Session::open()?;
    let stream = session.stream(stream)?;
    let copy = given.get()?;
    let (from, from_pitch) = copy.from.end(copy.width, copy.height)?;
    let (to, to_pitch) = copy.to.end(copy.width, copy.height)?;
    session.copy(
        stream,
        from,
        to,
        Shape { row: copy.width, rows: copy.height, from_pitch, to_pitch },
        wait,
    )
}

/// Between contexts; in order with all that both have to do where `stream` is none.
fn copy_peer(
    (to, to_context): (u64, u64),
    (from, from_context): (u64, u64),
    bytes: usize,
    stream: Option<u64>,
) -> Result<(), Fail> {
    let mut session = Session::open()?;
    let on = session.stream(stream.unwrap_or(0))?;
    for (at, context) in [(to, to_context), (from, from_context)] {
        let card = session.context(context)?.card;
        if let Some(about) = session.about(at, card) {
            return Err(fail(code::INVALID_VALUE, about));
        }
        if stream.is_none() {
            session.drain(context);
            session.healthy(context)?;
        }
    }
    let wait = if stream.is_none() { Wait::Always } else { Wait::Memory };
    session.copy_between(on, End::Device(from), End::Device(to), Shape::line(bytes), wait, None)
}

fn fill(at: u64, value: &[u8], shape: (usize, usize, usize), stream: u64) -> Result<(), Fail> {
    let mut session = Session::open()?;
    let stream = session.stream(stream)?;
    session.fill(stream, at, value, shape)
}

api! {
    fn cuMemcpyHtoD_v2 as cuMemcpyHtoD_v2_ptds(to: u64, from: usize, bytes: usize) {
        copy(End::Host(from), End::Device(to), bytes, 0, Wait::Always)
    }

    fn cuMemcpyHtoDAsync_v2 as cuMemcpyHtoDAsync_v2_ptsz(to: u64, from: usize, bytes: usize, stream: u64) {
        copy(End::Host(from), End::Device(to), bytes, stream, Wait::Memory)
    }

    fn cuMemcpyDtoH_v2 as cuMemcpyDtoH_v2_ptds(to: usize, from: u64, bytes: usize) {
        copy(End::Device(from), End::Host(to), bytes, 0, Wait::Always)
    }

    fn cuMemcpyDtoHAsync_v2 as cuMemcpyDtoHAsync_v2_ptsz(to: usize, from: u64, bytes: usize, stream: u64) {
        copy(End::Device(from), End::Host(to), bytes, stream, Wait::Memory)
    }

    /// The host does not wait for copies inside the device.
    fn cuMemcpyDtoD_v2 as cuMemcpyDtoD_v2_ptds(to: u64, from: u64, bytes: usize) {
        copy(End::Device(from), End::Device(to), bytes, 0, Wait::Memory)
    }

    fn cuMemcpyDtoDAsync_v2 as cuMemcpyDtoDAsync_v2_ptsz(to: u64, from: u64, bytes: usize, stream: u64) {
        copy(End::Device(from), End::Device(to), bytes, stream, Wait::Memory)
    }

    fn cuMemcpy as cuMemcpy_ptds(to: u64, from: u64, bytes: usize) {
        copy(End::Any(from), End::Any(to), bytes, 0, Wait::Always)
    }

    fn cuMemcpyAsync as cuMemcpyAsync_ptsz(to: u64, from: u64, bytes: usize, stream: u64) {
        copy(End::Any(from), End::Any(to), bytes, stream, Wait::Memory)
    }

    fn cuMemcpyPeer as cuMemcpyPeer_ptds(to: u64, to_context: u64, from: u64, from_context: u64, bytes: usize) {
        copy_peer((to, to_context), (from, from_context), bytes, None)
    }

    fn cuMemcpyPeerAsync as cuMemcpyPeerAsync_ptsz(to: u64, to_context: u64, from: u64, from_context: u64, bytes: usize, stream: u64) {
        copy_peer((to, to_context), (from, from_context), bytes, Some(stream))
    }

    fn cuMemcpy2D_v2 as cuMemcpy2D_v2_ptds(given: In<Copy2d>) {
        copy_2d(given, 0, Wait::Always)
    }

    fn cuMemcpy2DUnaligned_v2 as cuMemcpy2DUnaligned_v2_ptds(given: In<Copy2d>) {
        copy_2d(given, 0, Wait::Always)
    }

    fn cuMemcpy2DAsync_v2 as cuMemcpy2DAsync_v2_ptsz(given: In<Copy2d>, stream: u64) {
        copy_2d(given, stream, Wait::Memory)
    }

    /// The host does not wait for fills, whatever their name says.
    fn cuMemsetD8_v2 as cuMemsetD8_v2_ptds(at: u64, value: u8, count: usize) {
        fill(at, &[value], (count, 1, count), 0)
    }

    fn cuMemsetD8Async as cuMemsetD8Async_ptsz(at: u64, value: u8, count: usize, stream: u64) {
        fill(at, &[value], (count, 1, count), stream)
    }

    fn cuMemsetD16_v2 as cuMemsetD16_v2_ptds(at: u64, value: u16, count: usize) {
        fill(at, &value.to_le_bytes(), (count, 1, 0), 0)
    }

    fn cuMemsetD16Async as cuMemsetD16Async_ptsz(at: u64, value: u16, count: usize, stream: u64) {
        fill(at, &value.to_le_bytes(), (count, 1, 0), stream)
    }

    fn cuMemsetD32_v2 as cuMemsetD32_v2_ptds(at: u64, value: u32, count: usize) {
        fill(at, &value.to_le_bytes(), (count, 1, 0), 0)
    }

    fn cuMemsetD32Async as cuMemsetD32Async_ptsz(at: u64, value: u32, count: usize, stream: u64) {
        fill(at, &value.to_le_bytes(), (count, 1, 0), stream)
    }

    fn cuMemsetD2D8_v2 as cuMemsetD2D8_v2_ptds(at: u64, pitch: usize, value: u8, width: usize, height: usize) {
        fill(at, &[value], (width, height, pitch), 0)
    }

    fn cuMemsetD2D8Async as cuMemsetD2D8Async_ptsz(at: u64, pitch: usize, value: u8, width: usize, height: usize, stream: u64) {
        fill(at, &[value], (width, height, pitch), stream)
    }

    fn cuMemsetD2D16_v2 as cuMemsetD2D16_v2_ptds(at: u64, pitch: usize, value: u16, width: usize, height: usize) {
        fill(at, &value.to_le_bytes(), (width, height, pitch), 0)
    }

    fn cuMemsetD2D16Async as cuMemsetD2D16Async_ptsz(at: u64, pitch: usize, value: u16, width: usize, height: usize, stream: u64) {
        fill(at, &value.to_le_bytes(), (width, height, pitch), stream)
    }

    fn cuMemsetD2D32_v2 as cuMemsetD2D32_v2_ptds(at: u64, pitch: usize, value: u32, width: usize, height: usize) {
        fill(at, &value.to_le_bytes(), (width, height, pitch), 0)
    }

    fn cuMemsetD2D32Async as cuMemsetD2D32Async_ptsz(at: u64, pitch: usize, value: u32, width: usize, height: usize, stream: u64) {
        fill(at, &value.to_le_bytes(), (width, height, pitch), stream)
    }
}
