//! Matrix products with what follows them: a row of biases, a factor, a residual sum, an activation.

use super::super::meaning as read;
use super::{Item, Walk};
use crate::ir::{Node, NodeId, ValueId};
use crate::kernels::{Act, BinaryOp, Kind};
use crate::ops::Op;
use crate::ops::matmul::MatMul;
use crate::ops::nbits::NBits;
use crate::tensor::Tensor;

impl Walk<'_> {
    /// A product with packed weights: they are unpacked once, here.
    pub(super) fn nbits(&self, id: NodeId, node: &Node, out: ValueId) -> Option<Item> {
        let Op::NBits(op @ NBits::Product { n, k, transposed, .. }) = &node.op else { return None };
        let a = node.inputs[0].filter(|a| !self.is_static(*a))?;
        let (ad, _) = (self.dims(a)?, self.dims(out)?);
        let mut packed = Vec::with_capacity(node.inputs.len());
        for (i, v) in node.inputs.iter().enumerate() {
            packed.push(match v {
                Some(v) if i > 0 => Some(self.value(*v)?),
                _ => None,
            });
        }
        let weights = Tensor::from_vec(op.weights(&packed).ok()?, &[*n, *k]).ok()?;
        let product = Op::MatMul(MatMul::Broadcast { trans_a: false, trans_b: *transposed, alpha: 1.0 });
        let mut task = read::matmul(&product, &ad, &[*n, *k])?;
        task.b = Some(weights);
        if let Some(bias) = node.inputs.get(5).copied().flatten() {
            task.bias = Some(self.row_vector(bias, task.n)?);
        }
        self.product(id, task, vec![a], out, Act::None)
    }

    pub(super) fn matmul(&self, id: NodeId, node: &Node, op: &Op, out: ValueId, act: Act) -> Option<Item> {
        let (a, b) = (node.inputs[0]?, node.inputs[1]?);
        let (ad, bd) = (self.dims(a)?, self.dims(b)?);
        if self.is_static(a) {
            return None;
        }
        let mut task = read::matmul(op, &ad, &bd)?;
        let mut srcs = vec![a];
        if self.is_static(b) && task.batch_b.iter().all(|&d| d == 1) {
            task.b = Some(self.value(b)?.clone());
        } else {
            srcs.push(b);
        }
        if let Some((c, beta)) = read::gemm_bias(node, op) {
            let v = self.row_vector(c, task.n)?;
            task.bias = Some(v.into_iter().map(|x| x * beta).collect());
        }
        self.product(id, task, srcs, out, act)
    }

    /// A product with what follows it; nothing does if it has an activation already.
    pub(super) fn product(
        &self,
        id: NodeId,
        mut task: crate::kernels::MatMul,
        mut srcs: Vec<ValueId>,
        out: ValueId,
        act: Act,
    ) -> Option<Item> {
        let (mut covers, mut out, od) = (vec![id], out, self.dims(out)?);
        if act != Act::None {
            task.act = act;
            return Some(self.finish(Kind::MatMul(task), covers, srcs, out));
        }
        // Row-vector bias, then a scalar factor when nothing was added yet.
        while let Some(next) = self.sole_reader(out) {
            let follower = self.graph.node(next);
            let Some(op) = read::binary(follower) else { break };
            let Some(c) = self.other(follower, out).filter(|c| self.is_static(*c)) else { break };
            let Some(after) = self.output(next).filter(|v| self.dims(*v) == Some(od.clone())) else { break };
            match op {
                BinaryOp::Add if task.bias.is_none() => {
                    let Some(v) = self.row_vector(c, task.n) else { break };
                    task.bias = Some(v);
                }
                BinaryOp::Mul if task.bias.is_none() && self.scalar(c).is_some() => task.alpha *= self.scalar(c)?,
                BinaryOp::Div
                    if task.bias.is_none()
                        && follower.inputs[0] == Some(out)
                        && self.scalar(c).is_some_and(|s| s != 0.0) =>
                {
                    task.alpha /= self.scalar(c)?;
                }
                _ => break,
            }
            covers.push(next);
            out = after;
        }
        if let Some((other, after, next)) = self.residual(out, id) {
            srcs.push(other);
            covers.push(next);
            out = after;
            task.residual = true;
        }
        let (act, out, more) = self.activation(out);
        covers.extend(more);
        task.act = act;
        Some(self.finish(Kind::MatMul(task), covers, srcs, out))
    }

    /// A constant that is one number per column (`[n]`, `[1, n]` …), or one for all.
    pub(super) fn row_vector(&self, v: ValueId, n: usize) -> Option<Vec<f32>> {
        let t = self.value(v)?;
        let values = t.view::<f32>().ok()?;
        if values.len() == 1 {
            return Some(vec![values[0]; n]);
        }
        (values.len() == n && t.dims().last() == Some(&n)).then(|| values.to_vec())
    }
}
