//! Packed weights that start on a cache line.

/// A vector of f32 whose first value is 64-byte aligned.
#[derive(Clone, Debug, Default)]
pub struct Aligned {
    store: Vec<f32>,
    start: usize,
    len: usize,
}

impl Aligned {
    /// `len` zeros.
    pub fn zeros(len: usize) -> Aligned {
        let store = vec![0.0f32; len + 15];
        let start = store.as_ptr().align_offset(64).min(15);
        Aligned { store, start, len }
    }
}

impl std::ops::Deref for Aligned {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &self.store[self.start..self.start + self.len]
    }
}

impl std::ops::DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.store[self.start..self.start + self.len]
    }
}
