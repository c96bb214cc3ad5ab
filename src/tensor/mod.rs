//! What flows through a graph: element types, facts known beforehand, tensors with values, and the numbers kernels compute with.

mod dense;
mod dtype;
mod fact;
pub mod map;
mod narrow;
pub mod npz;
pub mod num;
mod pages;

pub use dense::{Element, Identity, Tensor, element_count};
pub use dtype::DType;
pub use fact::{Container, Dim, Fact, Shape};
pub use num::{Arith, Num, Tallied, Tally, is_num, tallied, tally_madds, tally_other};
pub use pages::{PageFile, Pages};
