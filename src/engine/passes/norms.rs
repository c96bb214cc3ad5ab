//! Normalisations that exporters write as several nodes.

use super::super::meaning as read;
use super::{Item, Walk};
use crate::ir::{Node, NodeId, ValueId};
use crate::kernels::{Act, BinaryOp, Kind};
use crate::ops::Op;
use crate::ops::norm::Norm;

impl Walk<'_> {
    /// `(x − mean) / √(mean of squares + ε) · weight + bias` as exporters write it: ReduceMean, Sub, Pow/Mul, ReduceMean, Add, Sqrt, Div,
    /// Mul, Add.
    pub(super) fn layer_norm(&self, id: NodeId, node: &Node) -> Option<Item> {
        let mean_of_last = |n: &Node| read::is_mean_of_last(self.graph, n, &|v| self.value(v));
        let x = node.inputs.first().copied().flatten()?;
        let dims = self.dims(x)?;
        let inner = *dims.last()?;
        if !mean_of_last(node) {
            return None;
        }
        let mean = self.output(id)?;
        let kept = self.dims(mean)?;
        // The mean stays an axis of one.
        (kept.len() == dims.len() && kept.last() == Some(&1)).then_some(())?;
        let sub = self.sole_reader(mean)?;
        let sub_node = self.graph.node(sub);
        (read::binary(sub_node)? == BinaryOp::Sub && sub_node.inputs == [Some(x), Some(mean)]).then_some(())?;
        let centred = self.output(sub)?;
        let mut covers = vec![id, sub];
        // The centred values are squared and divided, nothing else.
        let readers = &self.readers[centred.0 as usize];
        let square = readers.iter().copied().find(|r| {
            let n = self.graph.node(*r);
            match read::binary(n) {
                Some(BinaryOp::Pow) => n.inputs[1].and_then(|p| self.scalar(p)) == Some(2.0),
                Some(BinaryOp::Mul) => n.inputs == [Some(centred), Some(centred)],
                _ => false,
            }
        })?;
        covers.push(square);
        let mut v = self.output(square)?;
        let mut step = |v: ValueId| -> Option<(&Node, ValueId)> {
            let next = self.sole_reader(v)?;
            covers.push(next);
            Some((self.graph.node(next), self.output(next)?))
        };
        let (second, variance) = step(v)?;
        mean_of_last(second).then_some(())?;
        let (add, after) = step(variance)?;
        let epsilon = self.scalar(self.other(add, variance)?)?;
        (read::binary(add)? == BinaryOp::Add && epsilon >= 0.0).then_some(())?;
        let (sqrt, root) = step(after)?;
        (read::unary(sqrt, &|v| self.value(v))? == Act::Sqrt).then_some(())?;
        let (div, out) = step(root)?;
        (read::binary(div)? == BinaryOp::Div && div.inputs == [Some(centred), Some(root)]).then_some(())?;
        let inside = readers.iter().all(|r| covers.contains(r)) && !self.is_output[centred.0 as usize];
        (inside && self.dims(out)? == dims).then_some(())?;
        v = out;
        let (mut scale, mut shift) = (None, None);
        for (op, to) in [(BinaryOp::Mul, &mut scale), (BinaryOp::Add, &mut shift)] {
            let Some(next) = self.sole_reader(v) else { break };
            let follower = self.graph.node(next);
            let vector = (read::binary(follower) == Some(op)).then(|| self.other(follower, v)).flatten();
            let vector = vector.filter(|w| self.is_static(*w)).and_then(|w| self.row_vector(w, inner));
            if let (Some(w), Some(after)) =
                (vector, self.output(next).filter(|o| self.dims(*o).as_ref() == Some(&dims)))
            {
                *to = Some(w);
                v = after;
                covers.push(next);
            }
        }
        Some(self.finish(Kind::Norm { inner, plane: 1, epsilon, rms: false, scale, shift }, covers, vec![x], v))
    }

    /// GroupNorm as exporters write it: Reshape to `[n, groups, …]`, InstanceNormalization, Reshape back, Mul, Add.
    pub(super) fn group_norm(&self, id: NodeId, node: &Node, out: ValueId) -> Option<Item> {
        let Op::Norm(Norm::Grouped { .. }) = node.op else { return None };
        let shaped = read::shaped(self.graph, node, &|v| self.value(v))?;
        let Kind::Norm { inner, epsilon, scale: Some(gamma), shift: Some(beta), .. } = shaped.kind else { return None };
        let x = node.inputs.first().copied().flatten()?;
        self.dims(x)?;
        let back = self.sole_reader(out)?;
        (self.stays(back) == Some(out)).then_some(())?;
        let mut v = self.output(back)?;
        let dims = self.dims(v)?;
        let &[_, channels, ref rest @ ..] = &dims[..] else { return None };
        let plane: usize = rest.iter().product();
        // The groups are whole channels: then so many in each.
        let groups = gamma.len();
        (groups > 0 && channels.is_multiple_of(groups) && channels / groups * plane == inner).then_some(())?;
        let spread = |g: &[f32]| (0..channels).map(|c| g[c * groups / channels]).collect::<Vec<f32>>();
        let (mut scale, mut shift) = (spread(&gamma), spread(&beta));
        let mut covers = vec![id, back];
        for op in [BinaryOp::Mul, BinaryOp::Add] {
            let Some(next) = self.sole_reader(v) else { break };
            let follower = self.graph.node(next);
            let other = (read::binary(follower) == Some(op)).then(|| self.other(follower, v)).flatten();
            let vector =
                other.filter(|w| self.is_static(*w)).and_then(|w| self.channel_vector(w, channels, dims.len()));
            let after = self.output(next).filter(|o| self.dims(*o).as_ref() == Some(&dims));
            let (Some(w), Some(after)) = (vector, after) else { continue };
            for (c, w) in w.into_iter().enumerate() {
                match op {
                    BinaryOp::Mul => (scale[c], shift[c]) = (scale[c] * w, shift[c] * w),
                    _ => shift[c] += w,
                }
            }
            v = after;
            covers.push(next);
        }
        let kind = Kind::Norm { inner, plane, epsilon, rms: false, scale: Some(scale), shift: Some(shift) };
        Some(self.finish(kind, covers, vec![x], v))
    }

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
        let kind = Kind::Norm { inner, plane: 1, epsilon, rms: true, scale, shift: None };
        Some(self.finish(kind, covers, vec![x], v))
    }
}
