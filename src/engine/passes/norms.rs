//! Normalisations that exporters write as several nodes.

use super::super::meaning as read;
use super::{Item, Walk};
use crate::ir::{Node, NodeId, ValueId};
use crate::kernels::{Act, BinaryOp, Kind};

impl Walk<'_> {
    /// `x · rsqrt(mean(x²) + ε) · weight` as exporters write it: Pow/Mul, ReduceMean, Add, Sqrt, Reciprocal/Div, Mul, Mul.
    pub(super) fn rms_norm(&self, id: NodeId, node: &Node) -> Option<Item> {
        let x = node.inputs.first().copied().flatten()?;
        let square = match read::binary(node)? {
            BinaryOp::Pow if self.scalar(node.inputs[1]?) == Some(2.0) => true,
            BinaryOp::Mul => node.inputs[1] == Some(x),
            _ => false,
        };
        let dims = self.dims(x)?;
        let inner = *dims.last()?;
        if !square {
            return None;
        }
        let mut covers = vec![id];
        let mut step = |v: ValueId| -> Option<(NodeId, &Node, ValueId)> {
            let next = self.sole_reader(v)?;
            covers.push(next);
            Some((next, self.graph.node(next), self.output(next)?))
        };
        let (mean_id, mean, v) = step(self.output(id)?)?;
        if !read::is_mean_of_last(self.graph, mean, &|v| self.value(v)) {
            return None;
        }
        let _ = mean_id;
        let mean_value = v;
        let (_, add, v) = step(v)?;
        let epsilon = self.scalar(self.other(add, mean_value)?)?;
        if read::binary(add)? != BinaryOp::Add {
            return None;
        }
        let (_, sqrt, v) = step(v)?;
        if read::unary(sqrt, &|v| self.value(v))? != Act::Sqrt {
            return None;
        }
        let root = v;
        let (_, recip, mut v) = step(v)?;
        let reciprocal = read::unary(recip, &|v| self.value(v)) == Some(Act::Reciprocal)
            || (read::binary(recip) == Some(BinaryOp::Div)
                && recip.inputs[1] == Some(root)
                && recip.inputs[0].and_then(|c| self.scalar(c)) == Some(1.0));
        if reciprocal {
            let r = v;
            let (_, mul, after) = step(r)?;
            if read::binary(mul)? != BinaryOp::Mul || self.other(mul, r)? != x {
                return None;
            }
            v = after;
        } else if !(read::binary(recip) == Some(BinaryOp::Div)
            && recip.inputs[0] == Some(x)
            && recip.inputs[1] == Some(root))
        {
            return None;
        }
        let mut scale = None;
        if let Some(next) = self.sole_reader(v) {
            let mul = self.graph.node(next);
            if read::binary(mul) == Some(BinaryOp::Mul)
                && let Some(w) =
                    self.other(mul, v).filter(|w| self.is_static(*w)).and_then(|w| self.row_vector(w, inner))
            {
                scale = Some(w);
                v = self.output(next)?;
                covers.push(next);
            }
        }
        (self.dims(v)? == dims).then_some(())?;
        let kind = Kind::Norm { inner, epsilon, rms: true, scale, shift: None };
        Some(self.finish(kind, covers, vec![x], v))
    }
}
