//! The kernel table: tried in order, the first that accepts a step runs it. One line per kernel.

use super::task::Entry;
use super::{affine, conv, join, resize2d};

/// All kernels, best first.
pub const TABLE: &[Entry] = &[
    conv::ENTRY,
    Entry { name: "join", accepts: join::accepts, prepare: join::prepare, tolerance: 0.0 },
    Entry { name: "affine", accepts: affine::accepts, prepare: affine::prepare, tolerance: 0.0 },
    Entry { name: "resize2d", accepts: resize2d::accepts, prepare: resize2d::prepare, tolerance: 1e-5 },
];
