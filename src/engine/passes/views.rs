//! Values as strided views of other values: what Reshape, Transpose, Split, Slice, Expand and the like move can be read in place by
//! kernels that take strides.

use super::super::meaning as read;
use super::super::plan::is_view;
use super::Walk;
use crate::ir::{NodeId, Source, ValueId};
use crate::kernels::{BinaryOp, Kind};
use crate::ops::Op;
use crate::ops::cast::Cast;
use crate::ops::gather::Gather;

/// Where the elements of a value are in another one's memory. An axis is a list of (size, stride), outermost first: reshaping may join
/// axes that do not follow each other in memory.
#[derive(Debug, Clone)]
pub(super) struct Strided {
    pub(super) offset: usize,
    pub(super) axes: Vec<Vec<(usize, usize)>>,
}

impl Strided {
    /// Row-major.
    pub(super) fn plain(dims: &[usize]) -> Strided {
        let mut at = 1;
        let mut axes: Vec<Vec<(usize, usize)>> = dims
            .iter()
            .rev()
            .map(|&d| {
                let axis = vec![(d, at)];
                at *= d;
                axis
            })
            .collect();
        axes.reverse();
        Strided { offset: 0, axes }
    }

    pub(super) fn size(&self, axis: usize) -> usize {
        self.axes[axis].iter().map(|p| p.0).product()
    }

    /// The stride of an axis that has one; 0 for an axis of one element.
    pub(super) fn stride(&self, axis: usize) -> Option<usize> {
        match joined(&self.axes[axis]).as_slice() {
            [] => Some(0),
            [(_, stride)] => Some(*stride),
            _ => None,
        }
    }

    fn transposed(&self, perm: &[usize]) -> Strided {
        Strided { offset: self.offset, axes: perm.iter().map(|&p| self.axes[p].clone()).collect() }
    }

    /// The same elements, in the same order, under other dims.
    pub(super) fn reshaped(&self, dims: &[usize]) -> Option<Strided> {
        let mut parts: Vec<(usize, usize)> = joined(&self.axes.concat());
        parts.reverse();
        let mut axes = Vec::with_capacity(dims.len());
        for &d in dims.iter().rev() {
            let (mut left, mut axis) = (d, Vec::new());
            while left > 1 {
                let (n, stride) = parts.first().copied()?;
                if n <= left && left.is_multiple_of(n) {
                    axis.push((n, stride));
                    left /= n;
                    parts.remove(0);
                } else if n > left && n.is_multiple_of(left) {
                    axis.push((left, stride));
                    parts[0] = (n / left, stride * left);
                    left = 1;
                } else {
                    return None;
                }
            }
            axis.reverse();
            axes.push(axis);
        }
        axes.reverse();
        parts.is_empty().then_some(Strided { offset: self.offset, axes })
    }

    fn sliced(&self, axis: usize, start: usize, step: usize, len: usize) -> Option<Strided> {
        if start == 0 && step == 1 && len == self.size(axis) {
            return Some(self.clone());
        }
        let stride = self.stride(axis)?;
        let mut out = self.clone();
        out.offset += start * stride;
        out.axes[axis] = vec![(len, stride * step)];
        Some(out)
    }

    /// Broadcast to dims, numpy's way.
    pub(super) fn spread(&self, dims: &[usize]) -> Option<Strided> {
        let lead = dims.len().checked_sub(self.axes.len())?;
        let mut axes = Vec::with_capacity(dims.len());
        for (i, &d) in dims.iter().enumerate() {
            let own = i.checked_sub(lead).map(|a| (&self.axes[a], self.size(a)));
            axes.push(match own {
                Some((axis, n)) if n == d => axis.clone(),
                None | Some((_, 1)) => vec![(d, 0)],
                _ => return None,
            });
        }
        Some(Strided { offset: self.offset, axes })
    }

    /// `[batch, heads, positions, dim]`: as it is, or out of `[batch, positions, heads · dim]`.
    pub(super) fn by_heads(&self, heads: Option<usize>) -> Option<Strided> {
        match (self.axes.len(), heads) {
            (4, _) => Some(self.clone()),
            (3, Some(h)) if h > 0 && self.size(2).is_multiple_of(h) => {
                let split = self.reshaped(&[self.size(0), self.size(1), h, self.size(2) / h])?;
                Some(split.transposed(&[0, 2, 1, 3]))
            }
            _ => None,
        }
    }

    /// Offsets of the elements over the first axes, row-major.
    pub(super) fn offsets(&self, axes: usize) -> Vec<usize> {
        let mut out = vec![self.offset];
        for &(n, stride) in self.axes[..axes].iter().flatten() {
            out = out.iter().flat_map(|at| (0..n).map(move |i| at + i * stride)).collect();
        }
        out
    }
}

/// Neighbours that are one run of equal steps, made one; single elements left out.
fn joined(parts: &[(usize, usize)]) -> Vec<(usize, usize)> {
    let mut out: Vec<(usize, usize)> = Vec::with_capacity(parts.len());
    for &(n, stride) in parts.iter().filter(|p| p.0 != 1) {
        match out.last_mut() {
            Some((m, outer)) if *outer == n * stride => (*m, *outer) = (*m * n, stride),
            _ => out.push((n, stride)),
        }
    }
    out
}

/// A value read in place: where from, how, what was on the way, and what it was multiplied by there.
pub(super) struct Traced {
    pub(super) root: ValueId,
    pub(super) view: Strided,
    /// Nodes between, the last first.
    pub(super) nodes: Vec<NodeId>,
    pub(super) factor: f32,
}

impl Walk<'_> {
    /// The operand a node shows under other dims, and how; `result` is the output looked at.
    fn shown(&self, id: NodeId, result: ValueId) -> Option<(ValueId, Box<dyn Fn(&Strided) -> Option<Strided>>)> {
        let node = self.graph.node(id);
        let x = node.inputs.first().copied().flatten()?;
        if self.is_static(x) || self.dims(x).is_none() {
            return None;
        }
        let dims = self.dims(result)?;
        if is_view(self.graph, id) || matches!(node.op_type.as_str(), "Cast" | "CastLike" | "Identity") {
            return Some((x, Box::new(move |v| v.reshaped(&dims))));
        }
        if let Op::Gather(Gather::Axis(axis)) = &node.op {
            let index = self.value(node.inputs.get(1).copied().flatten()?)?;
            let [at] = index.to_i64s().ok()?[..] else { return None };
            let rank = self.dims(x)?.len();
            let axis = crate::ops::dims::axis(*axis, rank).ok()?;
            let size = self.dims(x)?[axis];
            let at = usize::try_from(if at < 0 { at + size as i64 } else { at }).ok().filter(|&a| a < size)?;
            return Some((x, Box::new(move |v| v.sliced(axis, at, 1, 1)?.reshaped(&dims))));
        }
        match read::shaped(self.graph, node, &|v| self.value(v))?.kind {
            Kind::Transpose(perm) => Some((x, Box::new(move |v| Some(v.transposed(&perm))))),
            Kind::Expand => Some((x, Box::new(move |v| v.spread(&dims)))),
            Kind::Split { axis, parts } => {
                let which = node.outputs.iter().position(|o| *o == Some(result))?;
                let (start, len) = *parts.get(which)?;
                Some((x, Box::new(move |v| v.sliced(axis, start, 1, len))))
            }
            Kind::Slice(cuts) => Some((
                x,
                Box::new(move |v| {
                    let cuts = cuts.iter().zip(&dims).enumerate();
                    cuts.into_iter().try_fold(v.clone(), |v, (axis, (&(start, step), &len))| {
                        v.sliced(axis, start, usize::try_from(step).ok()?, len)
                    })
                }),
            )),
            _ => None,
        }
    }

    /// The operand of a node that leaves all elements where they are: a change of dims, a transposition of axes of one element, a copy.
    pub(super) fn stays(&self, id: NodeId) -> Option<ValueId> {
        let node = self.graph.node(id);
        let x = node.inputs.first().copied().flatten().filter(|v| !self.is_static(*v))?;
        let out = self.output(id)?;
        (node.outputs.iter().flatten().count() == 1).then_some(())?;
        if is_view(self.graph, id) {
            return self.graph.value(out).fact.shape.concrete().map(|_| x);
        }
        // Other nodes are looked into where they move floats.
        let (from, to) = (self.dims(x)?, self.dims(out)?);
        (from.iter().product::<usize>() == to.iter().product::<usize>()).then_some(())?;
        let plain = match &node.op {
            Op::Cast(Cast::Cast { .. }) => true,
            Op::Expand(_) | Op::Transpose(_) => {
                let (_, how) = self.shown(id, out)?;
                let parts = joined(&how(&Strided::plain(&from))?.axes.concat());
                parts.is_empty() || parts == [(from.iter().product(), 1)]
            }
            // A factor 1, as `addcmul` is exported with.
            _ => {
                let one = self.other(node, x).filter(|c| self.is_static(*c)).and_then(|c| self.scalar(c));
                read::binary(node) == Some(BinaryOp::Mul) && one == Some(1.0) && from == to
            }
        };
        plain.then_some(x)
    }

    /// The value behind the nodes that only show `v` under other dims, each the only reader of the one before, and those nodes.
    pub(super) fn past_views(&self, v: ValueId) -> (ValueId, Vec<NodeId>) {
        let (mut at, mut nodes) = (v, Vec::new());
        while let Some(id) = self.sole_reader(at) {
            let (true, Some(out)) = (self.stays(id) == Some(at), self.output(id)) else { break };
            if self.dims(out).is_none() {
                break;
            }
            nodes.push(id);
            at = out;
        }
        (at, nodes)
    }

    /// Follows a value back through nodes that only move elements (and, if `scaled`, multiply all by one number).
    pub(super) fn traced(&self, v: ValueId, scaled: bool) -> Option<Traced> {
        let mut at = v;
        let mut steps = Vec::new();
        while let Source::Node(id, _) = self.graph.value(at).source {
            if self.graph.node(id).is_static || self.covered[id.0 as usize] {
                break;
            }
            if let Some((from, how)) = self.shown(id, at) {
                steps.push((id, at, how, 1.0));
                at = from;
                continue;
            }
            match self.scaling(id).filter(|_| scaled) {
                Some((from, by)) => {
                    steps.push((id, at, Box::new(|v: &Strided| Some(v.clone())), by));
                    at = from;
                }
                None => break,
            }
        }
        // As far back as the views can be composed.
        while !steps.is_empty() {
            let start = Strided::plain(&self.dims(at)?);
            let mut done = Ok(start);
            for (i, (_, _, how, _)) in steps.iter().enumerate().rev() {
                done = match done.map(|v: Strided| how(&v)) {
                    Ok(Some(v)) => Ok(v),
                    Ok(None) => Err(i),
                    Err(i) => Err(i),
                };
            }
            match done {
                Ok(view) => {
                    let factor = steps.iter().map(|s| s.3).product();
                    return Some(Traced { root: at, view, nodes: steps.iter().map(|s| s.0).collect(), factor });
                }
                Err(i) => {
                    // Start after the node that could not be composed.
                    at = steps[i].1;
                    steps.truncate(i);
                }
            }
        }
        Some(Traced { root: at, view: Strided::plain(&self.dims(at)?), nodes: Vec::new(), factor: 1.0 })
    }

    /// A node that multiplies or divides by one number: the other operand and the factor.
    pub(super) fn scaling(&self, id: NodeId) -> Option<(ValueId, f32)> {
        let node = self.graph.node(id);
        let op = read::binary(node)?;
        let (a, b) = (node.inputs[0]?, node.inputs[1]?);
        let same = |v: ValueId| self.output(id).is_some_and(|o| self.dims(o).is_some() && self.dims(o) == self.dims(v));
        match (op, self.scalar(a), self.scalar(b)) {
            (BinaryOp::Mul, _, Some(s)) if !self.is_static(a) && same(a) => Some((a, s)),
            (BinaryOp::Mul, Some(s), _) if !self.is_static(b) && same(b) => Some((b, s)),
            (BinaryOp::Div, _, Some(s)) if s != 0.0 && !self.is_static(a) && same(a) => Some((a, 1.0 / s)),
            _ => None,
        }
    }

    /// Follows a value forward through nodes that only move its elements, each the only reader of the one before: the last value and
    /// the nodes. `fits` decides on each value whether it may be the end; the furthest that fits is taken.
    pub(super) fn carried<R>(
        &self,
        v: ValueId,
        fits: impl Fn(&Strided) -> Option<R>,
    ) -> Option<(ValueId, Vec<NodeId>, R)> {
        let mut view = Strided::plain(&self.dims(v)?);
        let (mut at, mut nodes) = (v, Vec::new());
        let mut best = fits(&view).map(|r| (v, 0, r));
        while let Some(id) = self.sole_reader(at) {
            let node = self.graph.node(id);
            if node.outputs.iter().flatten().count() != 1 {
                break;
            }
            let Some(out) = self.output(id) else { break };
            let Some((from, how)) = self.shown(id, out) else { break };
            // Every element must still be there, once.
            let count = |v: ValueId| self.dims(v).map(|d| d.iter().product::<usize>());
            if from != at || count(out) != count(at) {
                break;
            }
            let Some(next) = how(&view) else { break };
            view = next;
            at = out;
            nodes.push(id);
            if let Some(r) = fits(&view) {
                best = Some((at, nodes.len(), r));
            }
        }
        let (end, taken, r) = best?;
        nodes.truncate(taken);
        Some((end, nodes, r))
    }
}
