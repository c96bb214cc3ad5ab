//! What an operator's node means to the kernels: typed operators read as activations, elementwise operations, products and moves.

use crate::ir::{Graph, Node, ValueId};
use crate::kernels::{Act, BinaryOp, Kind, MatMul};
use crate::tensor::{DType, Tensor};

/// The value of a one-element float constant.
pub(super) fn scalar(t: &Tensor) -> Option<f32> {
    (t.len() == 1 && t.dtype() == DType::F32).then(|| t.view::<f32>().ok().map(|v| v[0])).flatten()
}

pub(super) fn unary(_graph: &Graph, _node: &Node) -> Option<Act> {
    None
}
pub(super) fn binary(_node: &Node) -> Option<BinaryOp> {
    None
}
pub(super) fn batch_norm_epsilon(_node: &Node) -> Option<f32> {
    None
}
pub(super) fn matmul(_node: &Node, _a: &[usize], _b: &[usize]) -> Option<MatMul> {
    None
}
pub(super) fn gemm_bias(_node: &Node) -> Option<(ValueId, f32)> {
    None
}
pub(super) fn is_mean_of_last<'a>(
    _graph: &Graph,
    _node: &Node,
    _value: &dyn Fn(ValueId) -> Option<&'a Tensor>,
) -> bool {
    false
}
pub(super) struct Shaped {
    pub(super) kind: Kind,
    pub(super) operands: Vec<ValueId>,
    pub(super) results: Vec<ValueId>,
}
pub(super) fn shaped<'a>(
    _graph: &Graph,
    _node: &Node,
    _value: &dyn Fn(ValueId) -> Option<&'a Tensor>,
) -> Option<Shaped> {
    None
}
