//! What a model is: graphs, how they are built from what a file says, and what they mean.

mod builder;
mod graph;
mod inline;
pub mod interp;

pub use builder::{Bindings, Model, build};
pub use graph::{Graph, Node, NodeId, Source, Value, ValueId};
