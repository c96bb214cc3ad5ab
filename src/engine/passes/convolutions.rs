//! Convolutions with what follows them: scales, offsets and BatchNormalization in the weights, a residual sum, an activation.

use super::super::meaning as read;
use super::{Item, Walk};
use crate::ir::{Node, NodeId, ValueId};
use crate::kernels::{Act, BinaryOp, Kind, Share, convolves};
use crate::ops::Op;
use crate::ops::conv_transpose::ConvTranspose;
use crate::ops::detect::{Deform, Detect};
use crate::tensor::map;
use crate::tensor::{DType, Tensor};
use std::borrow::Cow;
use std::hash::Hash;

/// What follows a convolution and is done in it: a factor and an offset per channel, the value after that, the nodes so far.
struct Tail {
    covers: Vec<NodeId>,
    out: ValueId,
    scale: Option<Vec<f32>>,
    bias: Option<Vec<f32>>,
}

/// Weights times a factor per output channel, multiplied when they are packed; `None` if they are not `f32`.
fn scaled(weights: &Tensor, scale: Option<&[f32]>) -> Option<Tensor> {
    let Some(scale) = scale else { return Some(weights.clone()) };
    let bits: Vec<u32> = scale.iter().map(|s| s.to_bits()).collect();
    let scale = scale.to_vec();
    derived(weights, weights.dims(), ("scaled", bits), move |mut values| {
        let per = values.len() / scale.len().max(1);
        values.chunks_mut(per.max(1)).zip(&scale).for_each(|(row, s)| row.iter_mut().for_each(|w| *w *= s));
        values
    })
}

/// Weights made of others when they are packed, by a change that `how` tells completely; `None` if they are not `f32`.
pub(super) fn derived(
    weights: &Tensor,
    dims: &[usize],
    how: impl Hash,
    make: impl Fn(Vec<f32>) -> Vec<f32> + Send + Sync + 'static,
) -> Option<Tensor> {
    (weights.dtype() == DType::F32).then_some(())?;
    let (source, identity) = (weights.clone(), map::identity(weights).map(|i| i.changed(how)));
    let values = move || source.view::<f32>().map(Cow::into_owned).unwrap_or_default();
    Tensor::derived(dims, identity, move || make(values())).ok()
}

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
        let geometry = conv.geometry(&xd, &wd).ok().filter(convolves)?;
        let mut tail = self.affine_tail(node, geometry.oc, xd.len(), id, out)?;
        let residual = self.residual(tail.out, id);
        let other = residual.map(|(other, after, next)| {
            tail.covers.push(next);
            tail.out = after;
            other
        });
        let (act, out, more) = self.activation(tail.out);
        tail.covers.extend(more);
        let (scale, bias, residual) = (tail.scale, tail.bias, other.is_some());
        if !self.is_static(w) {
            let srcs = [x, w].into_iter().chain(other).collect();
            let kind = Kind::ConvComputed { geometry, scale, bias, act, residual };
            return Some(self.finish(kind, tail.covers, srcs, out));
        }
        let stored = self.value(w)?;
        let share = self.set.map(|set| Share {
            set: set.clone(),
            name: self.graph.value(w).name.clone(),
            stored: stored.clone(),
            scale: scale.clone(),
        });
        let mut weights = scaled(stored, scale.as_deref())?;
        let mut geometry = geometry;
        // Weights that widths share keep their taps.
        if let Some((fewer, left)) = geometry.cropped().filter(|_| share.is_none()) {
            weights = cropped(&weights, &left)?;
            geometry = fewer;
        }
        let srcs = std::iter::once(x).chain(other).collect();
        let kind = Kind::Conv { geometry, weights, bias, act, residual, pre: None, share };
        Some(self.finish(kind, tail.covers, srcs, out))
    }

    pub(super) fn conv_deformed(&self, id: NodeId, node: &Node, op: &Detect, out: ValueId) -> Option<Item> {
        let input = |i: usize| node.inputs.get(i).copied().flatten();
        let (x, w, offsets, mask) = (input(0)?, input(1)?, input(2)?, input(4));
        let dims = [x, w, offsets].map(|v| self.dims(v));
        let [Some(xd), Some(wd), Some(od)] = dims else { return None };
        let geometry = Deform::of(op, &xd, &wd, Some(&od)).ok().filter(|d| d.in_blocks(self.lanes))?;
        let masked = [geometry.n, geometry.offset_groups * geometry.k[0] * geometry.k[1], geometry.o[0], geometry.o[1]];
        if mask.is_some_and(|m| self.dims(m).is_none_or(|d| d != masked)) {
            return None;
        }
        let stored = self.value(w).filter(|_| self.is_static(w))?;
        let bias = input(3).map_or(Some(None), |b| self.floats(b).map(Some))?;
        let mut tail = self.affine_tail_after(bias, geometry.oc, xd.len(), id, out);
        let (act, out, more) = self.activation(tail.out);
        tail.covers.extend(more);
        let weights = scaled(stored, tail.scale.as_deref())?;
        let kind = Kind::ConvDeformed { geometry, weights, bias: tail.bias, act, mask: mask.is_some() };
        let srcs = [x, offsets].into_iter().chain(mask).collect();
        Some(self.finish(kind, tail.covers, srcs, out))
    }

    fn affine_tail(&self, node: &Node, channels: usize, rank: usize, id: NodeId, out: ValueId) -> Option<Tail> {
        Some(self.affine_tail_after(self.bias(node)?, channels, rank, id, out))
    }

    /// The factors and offsets per channel that follow a convolution and can go into its weights and bias.
    fn affine_tail_after(
        &self,
        bias: Option<Vec<f32>>,
        channels: usize,
        rank: usize,
        id: NodeId,
        out: ValueId,
    ) -> Tail {
        let mut tail = Tail { covers: vec![id], out, scale: None, bias };
        while let Some(next) = self.sole_reader(tail.out) {
            let follower = self.graph.node(next);
            let (scale, shift) = if follower.op_type == "BatchNormalization" && follower.inputs[0] == Some(tail.out) {
                match self.batch_norm(follower) {
                    Some((s, t)) => (Some(s), t),
                    None => break,
                }
            } else if let Some(op @ (BinaryOp::Add | BinaryOp::Mul)) = read::binary(follower) {
                let Some(c) = self.other(follower, tail.out).filter(|c| self.is_static(*c)) else { break };
                let Some(v) = self.channel_vector(c, channels, rank) else { break };
                if op == BinaryOp::Add { (None, v) } else { (Some(v), vec![0.0; channels]) }
            } else {
                break;
            };
            let Some(after) = self.output(next).filter(|v| self.dims(*v).is_some()) else { break };
            if scale.as_ref().is_some_and(|s| s.len() != channels) || shift.len() != channels {
                break;
            }
            let b = tail.bias.get_or_insert_with(|| vec![0.0; channels]);
            if let Some(s) = scale {
                b.iter_mut().zip(&s).for_each(|(b, s)| *b *= s);
                let all = tail.scale.get_or_insert_with(|| vec![1.0; channels]);
                all.iter_mut().zip(&s).for_each(|(a, s)| *a *= s);
            }
            b.iter_mut().zip(&shift).for_each(|(b, t)| *b += t);
            tail.covers.push(next);
            tail.out = after;
        }
        tail
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
        let geometry = conv.geometry(&self.dims(x)?, &self.dims(w)?).ok().filter(convolves)?;
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
    let (rows, cols) = match left {
        [cols] => (0..1, cols.clone()),
        [rows, cols] => (rows.clone(), cols.clone()),
        _ => return None,
    };
    let kw = *dims.last()?;
    let taps: usize = dims[2..].iter().product();
    let dims = [dims[..2].to_vec(), left.iter().map(|r| r.len()).collect()].concat();
    let how = ("cropped", dims.clone(), rows.clone(), cols.clone());
    derived(weights, &dims, how, move |values| {
        let windows = values.chunks_exact(taps.max(1));
        windows.flat_map(|w| rows.clone().flat_map(|r| &w[r * kw..][cols.clone()])).copied().collect()
    })
}
