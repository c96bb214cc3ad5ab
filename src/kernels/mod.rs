//! The kernels: how to compute fast. One file per algorithm, safe code over slices and geometry, and one table that says
//! which kernel takes which step.

pub mod attention;
pub mod conv_blocked;
pub mod eltwise;
pub mod epilogue;
pub mod few_bits;
pub mod gemm;
pub mod gemv;
pub mod norm;
pub mod pool2d;
pub mod recurrent;
pub mod reorder;
pub mod softmax;
pub mod strassen;
pub mod transpose;
pub mod winograd;

mod affine;
mod attention_step;
mod chain;
mod channels;
mod channels_last;
mod conv;
mod conv_computed;
mod conv_deformed;
mod deconv;
mod join;
mod kept;
mod packed_bits;
mod pointwise;
mod product;
mod reduce;
mod reorder_step;
mod resize2d;
mod rotary;
mod rows;
pub mod shared;
mod sweep;
mod table;
pub mod task;

pub use chain::worth as chain_worth;
pub use channels::COPY;
pub use conv::{convolves, takes_pre};
pub use epilogue::Act;
pub use kept::{Kept, Source};
pub use product::Packs;
pub use reorder_step::REORDER;
pub use shared::{Share, WeightSet};
pub use table::TABLE;
pub use task::{
    Accept, Attention, BinaryOp, ConvChain, ConvPart, Entry, FewBitsProduct, Kind, Layout, Mask, MatMul, PoolWindow,
    Pre, Prepared, Recurrent, ReduceOp, Task, buffer_len,
};

#[cfg(test)]
mod testing;
