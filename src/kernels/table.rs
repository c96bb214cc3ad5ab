//! The kernel table: tried in order, the first that accepts a step runs it. One line per kernel.

use super::task::Entry;
use super::{affine, channels, conv, join, pointwise, product, reorder_step, resize2d, rows};

/// All kernels, best first.
pub const TABLE: &[Entry] = &[
    conv::ENTRY,
    product::GEMV,
    product::GEMM,
    pointwise::UNARY,
    pointwise::BINARY,
    pointwise::BROADCAST,
    pointwise::AFFINE,
    rows::SOFTMAX,
    rows::NORM,
    rows::REDUCE,
    rows::TRANSPOSE,
    rows::POOL,
    rows::GLOBAL_POOL,
    join::ENTRY,
    channels::ENTRY,
    channels::COPY,
    affine::ENTRY,
    resize2d::ENTRY,
    reorder_step::REORDER,
];
