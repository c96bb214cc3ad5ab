//! Convolutions with what follows them: scales, offsets and BatchNormalization in the weights, a residual sum, an activation.

use super::super::meaning as read;
use super::{Item, Walk};
use crate::ir::{Node, NodeId, ValueId};
use crate::kernels::{Act, BinaryOp, Kind, Share};
use crate::ops::Op;
use crate::ops::conv_transpose::ConvTranspose;
use crate::tensor::Tensor;

impl Walk<'_> {
    pub(super) fn batch_norm(&self, node: &Node) -> Option<(Vec<f32>, Vec<f32>)> {
        let epsilon = read::batch_norm_epsilon(node)?;
        let get = |i: usize| self.floats(node.inputs.get(i).copied().flatten()?);
        let (gamma, beta, mean, var) = (get(1)?, get(2)?, get(3)?, get(4)?);
        let scale: Vec<f32> = gamma.iter().zip(&var).map(|(g, v)| g / (v + epsilon).sqrt()).collect();
        let shift = beta.iter().zip(&mean).zip(&scale).map(|((b, m), s)| b - m * s).collect();
        Some((scale, shift))
    }

    pub(super) fn conv(&self, id: NodeId, node: &Node, conv: &crate::ops::conv::Conv, out: ValueId) -> Option<Item> {
        let (x, w) = (node.inputs[0]?, node.inputs[1]?);
        let (xd, wd) = (self.dims(x)?, self.dims(w)?);
        if !self.is_static(w) {
            return None;
        }
        let geometry = conv.geometry(&xd, &wd).ok().filter(|g| g.axes.len() <= 2)?;
        let mut weights = self.value(w)?.clone();
        let mut share = self.set.map(|set| Share {
            set: set.clone(),
            name: self.graph.value(w).name.clone(),
            stored: weights.clone(),
            scale: None,
        });
        let mut bias = self.bias(node)?;
        let (mut covers, mut out) = (vec![id], out);
        // Per-channel scale and offset go into weights and bias.
        while let Some(next) = self.sole_reader(out) {
            let follower = self.graph.node(next);
            let (scale, shift) = if follower.op_type == "BatchNormalization" && follower.inputs[0] == Some(out) {
                match self.batch_norm(follower) {
                    Some((s, t)) => (Some(s), t),
                    None => break,
                }
            } else if let Some(op @ (BinaryOp::Add | BinaryOp::Mul)) = read::binary(follower) {
                let Some(c) = self.other(follower, out).filter(|c| self.is_static(*c)) else { break };
                let Some(v) = self.channel_vector(c, geometry.oc, xd.len()) else { break };
                if op == BinaryOp::Add { (None, v) } else { (Some(v), vec![0.0; geometry.oc]) }
            } else {
                break;
            };
            let Some(after) = self.output(next).filter(|v| self.dims(*v).is_some()) else { break };
            if scale.as_ref().is_some_and(|s| s.len() != geometry.oc) || shift.len() != geometry.oc {
                break;
            }
            let mut b = bias.take().unwrap_or_else(|| vec![0.0; geometry.oc]);
            if let Some(s) = scale {
                let per = weights.len() / geometry.oc.max(1);
                let mut values = weights.view::<f32>().ok()?.into_owned();
                values.chunks_mut(per.max(1)).zip(&s).for_each(|(row, s)| row.iter_mut().for_each(|w| *w *= s));
                weights = Tensor::from_vec(values, &wd).ok()?;
                b.iter_mut().zip(&s).for_each(|(b, s)| *b *= s);
                if let Some(share) = &mut share {
                    let all = share.scale.get_or_insert_with(|| vec![1.0; geometry.oc]);
                    all.iter_mut().zip(&s).for_each(|(a, s)| *a *= s);
                }
            }
            b.iter_mut().zip(&shift).for_each(|(b, t)| *b += t);
            bias = Some(b);
            covers.push(next);
            out = after;
        }
        let mut srcs = vec![x];
        let residual = self.residual(out, id);
        if let Some((other, after, next)) = residual {
            srcs.push(other);
            covers.push(next);
            out = after;
        }
        let (act, out, more) = self.activation(out);
        covers.extend(more);
        // Weights that widths share keep their taps.
        let (mut geometry, mut weights) = (geometry, weights);
        if let Some((fewer, left)) = geometry.cropped().filter(|_| share.is_none()) {
            weights = cropped(&weights, &left)?;
            geometry = fewer;
        }
        let kind = Kind::Conv { geometry, weights, bias, act, residual: residual.is_some(), pre: None, share };
        Some(self.finish(kind, covers, srcs, out))
    }

    pub(super) fn conv_transpose(&self, id: NodeId, node: &Node, conv: &ConvTranspose, out: ValueId) -> Option<Item> {
        let (x, w) = (node.inputs[0]?, node.inputs[1]?);
        let geometry = conv.geometry(&self.dims(x)?, &self.dims(w)?).ok().filter(|g| g.axes.len() <= 2)?;
        let weights = self.value(w).filter(|_| self.is_static(w))?.clone();
        let bias = self.bias(node)?;
        let (act, out, more) = self.activation(out);
        let covers = std::iter::once(id).chain(more).collect();
        Some(self.finish(Kind::ConvTranspose { geometry, weights, bias, act }, covers, vec![x], out))
    }

    /// The bias of a convolution, if it has one; `None` if it is not constant.
    fn bias(&self, node: &Node) -> Option<Option<Vec<f32>>> {
        match node.inputs.get(2).copied().flatten() {
            Some(b) => self.floats(b).map(Some),
            None => Some(None),
        }
    }

    /// A constant that is one number per channel of an activation of `rank` dims (channels second), or one for all.
    pub(super) fn channel_vector(&self, v: ValueId, channels: usize, rank: usize) -> Option<Vec<f32>> {
        let t = self.value(v)?;
        let values = t.view::<f32>().ok()?;
        if values.len() == 1 {
            return (t.rank() <= rank).then(|| vec![values[0]; channels]);
        }
        // Right-aligned: [c,1,1] or [1,c,1,1] for rank 4.
        let dims = t.dims();
        let at = dims.len().checked_sub(rank - 1)?;
        let fits = dims.len() <= rank && dims.iter().enumerate().all(|(i, &d)| d == if i == at { channels } else { 1 });
        (fits && values.len() == channels).then(|| values.to_vec())
    }

    /// A convolution or Gemm that the file itself fused with what follows.
    pub(super) fn fused(&self, id: NodeId, node: &Node, f: &read::FusedProduct, out: ValueId) -> Option<Item> {
        let conv = match f.product {
            Op::Conv(conv) => conv,
            _ if f.residual.is_some() => return None,
            product => return self.matmul(id, node, product, out, f.act),
        };
        let (x, w) = (node.inputs[0]?, node.inputs[1]?);
        let geometry = conv.geometry(&self.dims(x)?, &self.dims(w)?).ok().filter(|g| g.axes.len() <= 2)?;
        let weights = self.value(w).filter(|_| self.is_static(w))?.clone();
        let bias = self.bias(node)?;
        let mut srcs = vec![x];
        if let Some(z) = f.residual {
            let z = node.inputs.get(z).copied().flatten().filter(|z| !self.is_static(*z))?;
            (self.dims(z)? == self.dims(out)?).then_some(())?;
            srcs.push(z);
        }
        let (mut covers, mut act, mut end) = (vec![id], f.act, out);
        if act == Act::None {
            let (follows, after, more) = self.activation(out);
            covers.extend(more);
            (act, end) = (follows, after);
        }
        let residual = f.residual.is_some();
        let kind = Kind::Conv { geometry, weights, bias, act, residual, pre: None, share: None };
        Some(self.finish(kind, covers, srcs, end))
    }
}

/// Weights `[oc][ic][taps…]` without the taps that are not in `left`.
fn cropped(weights: &Tensor, left: &[std::ops::Range<usize>]) -> Option<Tensor> {
    let dims = weights.dims();
    let values = weights.view::<f32>().ok()?;
    let (rows, cols) = match left {
        [cols] => (0..1, cols.clone()),
        [rows, cols] => (rows.clone(), cols.clone()),
        _ => return None,
    };
    let kw = *dims.last()?;
    let taps: usize = dims[2..].iter().product();
    let mut out = Vec::new();
    for window in values.chunks_exact(taps.max(1)) {
        rows.clone().for_each(|r| out.extend_from_slice(&window[r * kw..][cols.clone()]));
    }
    let dims = [dims[..2].to_vec(), left.iter().map(|r| r.len()).collect()].concat();
    Tensor::from_vec(out, &dims).ok()
}
