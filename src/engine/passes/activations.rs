//! Activations that exporters write as several nodes: SiLU, hard-swish, GELU in its exported forms.

use super::super::meaning as read;
use super::{Composite, Walk};
use crate::ir::{Node, NodeId, ValueId};
use crate::kernels::{Act, BinaryOp};

impl Walk<'_> {
    pub(super) fn find_composites(&mut self) {
        let mut found = Vec::new();
        for (id, node) in self.graph.iter() {
            if node.is_static {
                continue;
            }
            if let Some(c) =
                self.self_gated(id, node).or_else(|| self.erf_gelu(id, node)).or_else(|| self.tanh_gelu(id, node))
            {
                found.push(c);
            }
        }
        for c in found {
            self.composites.entry(c.input).or_insert(c);
        }
    }

    /// Checks that inner values of a pattern are read by covered nodes only, and completes it.
    pub(super) fn composite(
        &self,
        act: Act,
        input: ValueId,
        output: ValueId,
        mut covers: Vec<NodeId>,
    ) -> Option<Composite> {
        covers.sort();
        covers.dedup();
        self.dims(input)?;
        for &id in &covers {
            let out = self.output(id)?;
            let inside = |v: ValueId| {
                !self.is_output[v.0 as usize] && self.readers[v.0 as usize].iter().all(|r| covers.contains(r))
            };
            if out != output && !inside(out) {
                return None;
            }
        }
        let sole =
            !self.is_output[input.0 as usize] && self.readers[input.0 as usize].iter().all(|r| covers.contains(r));
        Some(Composite { act, input, output, covers, sole })
    }

    /// `x · sigmoid(x)` and `x · hardsigmoid(x)`.
    pub(super) fn self_gated(&self, id: NodeId, node: &Node) -> Option<Composite> {
        if read::binary(node)? != BinaryOp::Mul {
            return None;
        }
        let (a, b) = (node.inputs[0]?, node.inputs[1]?);
        for (x, gate) in [(a, b), (b, a)] {
            let Some((gate_id, gate_node)) = self.producer(gate) else { continue };
            if gate_node.inputs.first().copied().flatten() != Some(x) {
                continue;
            }
            let act = match read::unary(gate_node, &|v| self.value(v)) {
                Some(Act::Sigmoid) => Act::Silu,
                Some(Act::HardSigmoid { alpha, beta }) if (alpha - 1.0 / 6.0).abs() < 1e-6 && beta == 0.5 => {
                    Act::HardSwish
                }
                _ => continue,
            };
            return self.composite(act, x, self.output(id)?, vec![gate_id, id]);
        }
        None
    }

    /// `x/√2 → Erf → +1`, times `x` and `1/2` in any order (torch's exported GELU).
    pub(super) fn erf_gelu(&self, erf: NodeId, node: &Node) -> Option<Composite> {
        if read::unary(node, &|v| self.value(v))? != Act::Erf {
            return None;
        }
        let near = |a: f32, b: f32| (a - b).abs() < 1e-4;
        let (scale_id, scale_node) = self.producer(node.inputs[0]?)?;
        let a = scale_node.inputs.first().copied().flatten()?;
        let b = scale_node.inputs.get(1).copied().flatten()?;
        let x = match read::binary(scale_node)? {
            BinaryOp::Div if self.scalar(b).is_some_and(|s| near(s, std::f32::consts::SQRT_2)) => a,
            BinaryOp::Mul if self.scalar(b).is_some_and(|s| near(s, std::f32::consts::FRAC_1_SQRT_2)) => a,
            BinaryOp::Mul if self.scalar(a).is_some_and(|s| near(s, std::f32::consts::FRAC_1_SQRT_2)) => b,
            _ => return None,
        };
        let add = self.sole_reader(self.output(erf)?)?;
        let add_node = self.graph.node(add);
        let one = self.other(add_node, self.output(erf)?)?;
        if read::binary(add_node)? != BinaryOp::Add || self.scalar(one)? != 1.0 {
            return None;
        }
        self.times_half(x, self.output(add)?, vec![scale_id, erf, add])
            .and_then(|(out, covers)| self.composite(Act::Gelu, x, out, covers))
    }

    /// `t · x · 1/2` in any association, from `t`.
    pub(super) fn times_half(&self, x: ValueId, t: ValueId, mut covers: Vec<NodeId>) -> Option<(ValueId, Vec<NodeId>)> {
        let mul = self.sole_reader(t)?;
        let node = self.graph.node(mul);
        if read::binary(node)? != BinaryOp::Mul {
            return None;
        }
        let partner = self.other(node, t)?;
        covers.push(mul);
        let half = |v: ValueId| self.scalar(v) == Some(0.5);
        if half(partner) {
            // (t · ½) · x
            let last = self.sole_reader(self.output(mul)?)?;
            let node = self.graph.node(last);
            if read::binary(node)? != BinaryOp::Mul || self.other(node, self.output(mul)?)? != x {
                return None;
            }
            covers.push(last);
            return Some((self.output(last)?, covers));
        }
        if partner == x {
            // (t · x) · ½
            let last = self.sole_reader(self.output(mul)?)?;
            let node = self.graph.node(last);
            if read::binary(node)? != BinaryOp::Mul || !half(self.other(node, self.output(mul)?)?) {
                return None;
            }
            covers.push(last);
            return Some((self.output(last)?, covers));
        }
        // t · (x · ½)
        let (id, node) = self.producer(partner)?;
        if read::binary(node)? == BinaryOp::Mul && half(self.other(node, x)?) {
            covers.push(id);
            return Some((self.output(mul)?, covers));
        }
        None
    }

    /// `½·x·(1 + tanh(√(2/π)·(x + 0.044715·x³)))` (GPT-2's GELU).
    pub(super) fn tanh_gelu(&self, tanh: NodeId, node: &Node) -> Option<Composite> {
        if read::unary(node, &|v| self.value(v))? != Act::Tanh {
            return None;
        }
        let near = |a: f32, b: f32| (a - b).abs() < 1e-4;
        let scaled = |v: ValueId, s: f32| -> Option<(NodeId, ValueId)> {
            let (id, node) = self.producer(v)?;
            if read::binary(node)? != BinaryOp::Mul {
                return None;
            }
            let (a, b) = (node.inputs[0]?, node.inputs[1]?);
            if self.scalar(b).is_some_and(|x| near(x, s)) {
                Some((id, a))
            } else if self.scalar(a).is_some_and(|x| near(x, s)) {
                Some((id, b))
            } else {
                None
            }
        };
        let (outer, sum) = scaled(node.inputs[0]?, 0.797_884_6)?;
        let (add, add_node) = self.producer(sum)?;
        if read::binary(add_node)? != BinaryOp::Add {
            return None;
        }
        let (p, q) = (add_node.inputs[0]?, add_node.inputs[1]?);
        for (x, cubic) in [(p, q), (q, p)] {
            let Some((inner, cube)) = scaled(cubic, 0.044_715) else { continue };
            let mut covers = vec![tanh, outer, add, inner];
            let (cube_id, cube_node) = self.producer(cube)?;
            covers.push(cube_id);
            match read::binary(cube_node)? {
                BinaryOp::Pow if cube_node.inputs[0] == Some(x) && self.scalar(cube_node.inputs[1]?) == Some(3.0) => {}
                BinaryOp::Mul => {
                    // x·(x·x) in either order
                    let square = self.other(cube_node, x)?;
                    let (square_id, square_node) = self.producer(square)?;
                    if read::binary(square_node)? != BinaryOp::Mul || square_node.inputs != [Some(x), Some(x)] {
                        return None;
                    }
                    covers.push(square_id);
                }
                _ => return None,
            }
            let plus = self.sole_reader(self.output(tanh)?)?;
            let plus_node = self.graph.node(plus);
            let one = self.other(plus_node, self.output(tanh)?)?;
            if read::binary(plus_node)? != BinaryOp::Add || self.scalar(one)? != 1.0 {
                return None;
            }
            covers.push(plus);
            let (out, covers) = self.times_half(x, self.output(plus)?, covers)?;
            return self.composite(Act::GeluTanh, x, out, covers);
        }
        None
    }
}
