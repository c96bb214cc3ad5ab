//! What a node multiplies: element types as stored, and whether one operand is a weight.
//!
//! A product whose operand comes out of a DequantizeLinear is a product of the quantised numbers (QDQ form): that is what
//! runtimes execute and what the type of the multiply-add is. Operators that quantise an operand on the way (DynamicQuantizeMatMul,
//! DynamicQuantizeLSTM) are told by their name.

use crate::ir::{Graph, Node, Source, ValueId};
use crate::ops::{Op, Role};
use crate::tensor::DType;

/// The two sides of a node's multiply-adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Operands {
    /// Element type of the first.
    pub a: Option<DType>,
    /// Element type of the second: the weight where there is one.
    pub b: Option<DType>,
    /// Whether one of them depends on constants only.
    pub weighted: bool,
}

impl Operands {
    /// As in reports: `uint8 x int8`.
    pub fn name(&self) -> String {
        let name = |d: Option<DType>| d.map_or("unknown", |d| d.name());
        format!("{} x {}", name(self.a), name(self.b))
    }
}

/// Longest chain of moves looked through; real ones have two or three.
const LONGEST_CHAIN: usize = 16;

/// The operands of a node that may multiply; `None` for others.
pub fn operands_of(graph: &Graph, node: &Node) -> Option<Operands> {
    if !node.op.multiplies() || matches!(node.op, Op::Control(_) | Op::Over(_) | Op::Opaque(_)) {
        return None;
    }
    let op = node.op_type.as_str();
    // QLinear forms put scale and zero point behind each operand.
    let second = if matches!(op, "QLinearConv" | "QLinearMatMul" | "QGemm") { 3 } else { 1 };
    let at = |i: usize| node.inputs.get(i).copied().flatten();
    // What is set rather than multiplied (the length of a DFT) is no operand; what attributes hold is.
    let family = node.op.family();
    let other = at(second).filter(|_| family.role(second) != Role::Setting);
    let mut sides = [at(0), other].map(|v| v.and_then(|v| stored_type(graph, v)));
    let is_static = |i: usize| at(i).is_some_and(|v| graph.value(v).is_static);
    if op.starts_with("DynamicQuantize") {
        sides[0] = Some(DType::U8);
    }
    if op == "MatMulNBits" {
        // Several weights share a stored byte; N rows of K weights tell how many.
        let logical = at(0).and_then(|v| graph.value(v).fact.shape.dims()?.last().copied().flatten());
        let stored =
            at(1).and_then(|v| graph.value(v).fact.shape.concrete()).map(|d| d.iter().skip(1).product::<usize>());
        sides[1] = match logical.zip(stored).map(|(k, bytes)| bytes * 8 / k.max(1)) {
            Some(8..) => Some(DType::U8),
            Some(4..) => Some(DType::U4),
            Some(2..) => Some(DType::U2),
            _ => None,
        };
    }
    let weighted = is_static(0) || (other.is_some() && is_static(second)) || family.held().learned > 0;
    // The weight stands second, on whichever side it was written.
    if is_static(0) && !is_static(second) {
        sides.swap(0, 1);
    }
    Some(Operands { a: sides[0], b: sides[1].or(sides[0]), weighted })
}

/// The type in which a value is stored before it is dequantised on the way here.
pub(super) fn stored_type(graph: &Graph, mut v: ValueId) -> Option<DType> {
    let own = graph.value(v).fact.dtype;
    for _ in 0..LONGEST_CHAIN {
        let Source::Node(id, _) = graph.value(v).source else { return own };
        let node = graph.node(id);
        let Some(from) = node.inputs.first().copied().flatten() else { return own };
        match node.op_type.as_str() {
            "DequantizeLinear" => return graph.value(from).fact.dtype,
            "Transpose" | "Reshape" | "Squeeze" | "Unsqueeze" | "Flatten" | "Identity" | "Slice" | "Split" => v = from,
            _ => return own,
        }
    }
    own
}
