//! The kernel table: of those that accept a step, the one with the least estimated cost runs it; the first of equals. One line per kernel.

use super::task::Entry;
use super::{
    affine, attention_step, chain, channels, channels_last, conv, conv_computed, conv_deformed, deconv, join,
    pointwise, product, recurrent, reduce, reorder_step, resize2d, rotary, rows, winograd,
};

/// All kernels.
pub const TABLE: &[Entry] = &[
    conv::ENTRY,
    conv::STRASSEN,
    chain::ENTRY,
    winograd::F4,
    winograd::F2,
    conv_computed::ENTRY,
    conv_deformed::ENTRY,
    deconv::ENTRY,
    product::GEMV,
    product::GEMM,
    product::STRASSEN,
    product::FEW_BITS,
    product::TOGETHER,
    pointwise::UNARY,
    pointwise::BINARY,
    pointwise::BROADCAST,
    pointwise::AFFINE,
    attention_step::ENTRY,
    rotary::ENTRY,
    recurrent::ENTRY,
    rows::SOFTMAX,
    rows::NORM,
    reduce::ENTRY,
    channels_last::ENTRY,
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
