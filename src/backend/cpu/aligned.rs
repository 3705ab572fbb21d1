//! Buffers of f32 that start on a cache line, so that no whole vector straddles two.

/// One cache line.
#[repr(C, align(64))]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Line([f32; LANES]);

/// Values of a cache line.
pub const LANES: usize = 16;

/// A buffer of zeros at first, aligned to 64 bytes; it derefs to a slice of exactly the length asked for.
pub struct Aligned {
    lines: Vec<Line>,
    length: usize,
}

impl Aligned {
    /// `length` zeros.
    pub fn zeros(length: usize) -> Self {
        Aligned { lines: vec![bytemuck::Zeroable::zeroed(); length.div_ceil(LANES)], length }
    }
}

/// Its length: the values are many.
impl std::fmt::Debug for Aligned {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Aligned({})", self.length)
    }
}

impl std::ops::Deref for Aligned {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &bytemuck::cast_slice(&self.lines)[..self.length]
    }
}

impl std::ops::DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.length]
    }
}
