//! The kernels: how to compute fast. One file per algorithm, safe code over slices and geometry.

pub mod buffer;
pub mod conv_blocked;
pub mod epilogue;

#[cfg(test)]
mod testing;
