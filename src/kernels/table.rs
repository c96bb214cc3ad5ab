//! The kernel table: of those that accept a step, the one with the least estimated cost runs it; the first of equals. One line per kernel.

use super::task::Entry;
use super::{affine, chain, channels, conv, join, pointwise, product, reorder_step, resize2d, rows, winograd};

/// All kernels.
pub const TABLE: &[Entry] = &[
    conv::ENTRY,
    chain::ENTRY,
    winograd::F4,
    winograd::F2,
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
