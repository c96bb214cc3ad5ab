//! ONNX files: read into a [`crate::ops::spec::ModelSpec`] without copying weights, and written from one.

mod foreign;
mod inline;
mod payload;
pub mod proto;
mod read;
mod write;

pub use read::{data_locations, read, read_bytes};
pub use write::write;
