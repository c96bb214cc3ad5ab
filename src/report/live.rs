//! Rows as a spreadsheet can recompute them: where a row's sizes come from, so that another resolution or width goes through the whole
//! model. A rule is only used where it gives exactly what was counted; other rows stay constants.

use super::model::Layer;
use crate::ir::{Graph, Node, NodeId, Source, ValueId};
use crate::ops::Op;
use crate::ops::window::{AutoPad, Window};

/// Sizes as the sheet holds them: batch, channels (everything between batch and map), height, width; 1 where a tensor has fewer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Batch.
    pub n: u64,
    /// Channels.
    pub c: u64,
    /// Height of the map.
    pub h: u64,
    /// Width of the map.
    pub w: u64,
}

impl Sizes {
    fn of(dims: &[usize]) -> Option<Sizes> {
        let d: Vec<u64> = dims.iter().map(|&d| d as u64).collect();
        match d[..] {
            [n, c] => Some(Sizes { n, c, h: 1, w: 1 }),
            [n, ref c @ .., h, w] if !c.is_empty() => {
                Some(Sizes { n, c: c.iter().try_fold(1u64, |a, b| a.checked_mul(*b))?, h, w })
            }
            _ => None,
        }
    }
    /// Elements.
    pub fn elements(&self) -> u64 {
        self.n.saturating_mul(self.c).saturating_mul(self.h).saturating_mul(self.w)
    }
}

/// Where sizes come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// The graph input whose sizes are cells.
    Input,
    /// The row of this node.
    Row(usize),
}

/// One axis of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Axis {
    /// Kernel.
    pub k: u64,
    /// Stride.
    pub s: u64,
    /// Dilation.
    pub d: u64,
    /// Pads of both ends.
    pub p: u64,
    /// `ceil(i/s)`, whatever the pads.
    pub same: bool,
    /// Rounded up.
    pub ceil: bool,
}

impl Axis {
    /// Output size.
    pub fn out(&self, i: u64) -> Option<u64> {
        if self.same {
            return Some(i.div_ceil(self.s));
        }
        let free = (i + self.p).checked_sub(self.d * (self.k - 1) + 1)?;
        Some(if self.ceil { free.div_ceil(self.s) } else { free / self.s } + 1)
    }
}

/// How a row's output sizes follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shape {
    /// A convolution; `oc` is scaled by the width unless `is_last`.
    Conv {
        /// Height and width.
        axes: [Axis; 2],
        /// Output channels as they are.
        oc: u64,
        /// Nothing that has weights comes after it.
        is_last: bool,
        /// One group per input channel, with this many outputs each.
        depthwise: Option<u64>,
        /// Groups, where they are fixed.
        groups: u64,
    },
    /// A product with a weight matrix over all that is not batch.
    Dense {
        /// Columns as they are.
        oc: u64,
        /// Nothing that has weights comes after it.
        is_last: bool,
    },
    /// A window over each channel.
    Window([Axis; 2]),
    /// Map to one element per channel.
    Global,
    /// Channels of several tensors, one after the other.
    Concat,
    /// Everything but the batch as channels.
    Flat,
    /// The same sizes, times fixed ratios (numerator, denominator) of channels, height and width.
    Ratio([(u64, u64); 3]),
}

/// A row's rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Live {
    /// What its sizes come from.
    pub from: Vec<From>,
    /// How.
    pub shape: Shape,
    /// What comes out now.
    pub now: Sizes,
}

fn known_dims(graph: &Graph, v: ValueId) -> Option<Vec<usize>> {
    graph.value(v).fact.shape.dims()?.iter().copied().collect()
}

fn sizes_of(graph: &Graph, v: ValueId) -> Option<Sizes> {
    Sizes::of(&known_dims(graph, v)?)
}

fn axes(window: &Window, kernel: &[usize]) -> Option<[Axis; 2]> {
    let list = window.axes(kernel).ok()?;
    let axis = |&(k, s, d, begin, end): &(usize, usize, usize, usize, usize)| {
        let p = if window.auto_pad == AutoPad::NotSet { begin + end } else { 0 };
        let same = matches!(window.auto_pad, AutoPad::SameUpper | AutoPad::SameLower);
        Axis { k: k as u64, s: s as u64, d: d as u64, p: p as u64, same, ceil: window.ceil }
    };
    match &list[..] {
        [h, w] => Some([axis(h), axis(w)]),
        _ => None,
    }
}

/// The first graph input that is an image: its sizes become cells.
pub fn image_input(graph: &Graph) -> Option<ValueId> {
    graph.inputs().iter().copied().find(|&v| graph.value(v).fact.shape.rank() == Some(4))
}

/// Its sizes.
pub fn image_sizes(graph: &Graph) -> Option<Sizes> {
    image_input(graph).and_then(|v| sizes_of(graph, v))
}

fn reduced(a: u64, b: u64) -> (u64, u64) {
    let (mut x, mut y) = (a, b);
    while y > 0 {
        (x, y) = (y, x % y);
    }
    (a / x.max(1), b / x.max(1))
}

/// Whether anything with weights of its own follows a node.
fn weighted_after(graph: &Graph) -> Vec<bool> {
    let n = graph.nodes().len();
    let mut after = vec![false; n];
    for i in (0..n).rev() {
        let node = &graph.nodes()[i];
        let weighs = matches!(node.op, Op::Conv(_)) || is_dense(graph, node);
        for v in node.inputs.iter().flatten() {
            if let Source::Node(NodeId(from), _) = graph.value(*v).source {
                after[from as usize] |= weighs || after[i];
            }
        }
    }
    after
}

fn is_dense(graph: &Graph, node: &Node) -> bool {
    let is_static = |i: usize| node.inputs.get(i).copied().flatten().is_some_and(|v| graph.value(v).is_static);
    matches!(node.op, Op::MatMul(_)) && is_static(1) && !is_static(0)
}

/// The rules of all rows of a graph with an image input; rows without one stay constants.
pub fn attach(graph: &Graph, layers: &mut [Layer]) {
    let Some(image) = image_input(graph) else { return };
    let after = weighted_after(graph);
    let mut live = vec![false; graph.nodes().len()];
    for (i, node) in graph.nodes().iter().enumerate() {
        let Some(layer) = layers.get_mut(i) else { continue };
        layer.id = Some(i);
        if node.is_static {
            continue;
        }
        let from = |v: ValueId| -> Option<From> {
            if v == image {
                return Some(From::Input);
            }
            match graph.value(v).source {
                Source::Node(NodeId(id), 0) if live[id as usize] => Some(From::Row(id as usize)),
                // Parts of a cut are as large as the row says only where they are equal.
                Source::Node(NodeId(id), _) if live[id as usize] => {
                    let first = graph.nodes()[id as usize].outputs.first().copied().flatten()?;
                    (sizes_of(graph, first) == sizes_of(graph, v)).then_some(From::Row(id as usize))
                }
                _ => None,
            }
        };
        if let Some(rule) = rule(graph, node, after[i], &from) {
            live[i] = true;
            layer.live = Some(rule);
        }
    }
}

fn rule(graph: &Graph, node: &Node, weighted_after: bool, from: &dyn Fn(ValueId) -> Option<From>) -> Option<Live> {
    let now = sizes_of(graph, node.outputs.first().copied().flatten()?)?;
    let data: Vec<ValueId> = node.inputs.iter().flatten().copied().filter(|v| !graph.value(*v).is_static).collect();
    let is_last = !weighted_after;
    let one = |v: ValueId, shape: Shape| from(v).map(|f| Live { from: vec![f], shape, now });
    let first = *data.first()?;
    match &node.op {
        Op::Conv(conv) => {
            let x = sizes_of(graph, first)?;
            let weights = known_dims(graph, node.inputs.get(1).copied().flatten()?)?;
            let [oc, _, kernel @ ..] = &weights[..] else { return None };
            let axes = axes(&conv.window, kernel)?;
            let fits = axes[0].out(x.h) == Some(now.h) && axes[1].out(x.w) == Some(now.w);
            let groups = conv.group as u64;
            let depthwise = (groups > 1 && groups == x.c).then(|| *oc as u64 / groups);
            let shape = Shape::Conv { axes, oc: *oc as u64, is_last, depthwise, groups };
            fits.then(|| one(first, shape)).flatten()
        }
        Op::MatMul(_) if is_dense(graph, node) => {
            let x = sizes_of(graph, first)?;
            let flat = (x.h, x.w, now.h, now.w) == (1, 1, 1, 1) && x.n == now.n;
            flat.then(|| one(first, Shape::Dense { oc: now.c, is_last })).flatten()
        }
        Op::Pool(pool) => {
            let x = sizes_of(graph, first)?;
            let Some(window) = &pool.window else { return one(first, Shape::Global) };
            let axes = axes(window, window.kernel.as_deref()?)?;
            let fits = axes[0].out(x.h) == Some(now.h) && axes[1].out(x.w) == Some(now.w) && x.c == now.c;
            fits.then(|| one(first, Shape::Window(axes))).flatten()
        }
        _ if node.op_type == "Concat" => {
            let parts: Vec<Sizes> = data.iter().map(|v| sizes_of(graph, *v)).collect::<Option<_>>()?;
            let sum: u64 = parts.iter().map(|p| p.c).sum();
            let fits = sum == now.c
                && data.len() == node.inputs.iter().flatten().count()
                && parts.iter().all(|p| (p.n, p.h, p.w) == (now.n, now.h, now.w));
            let from: Vec<From> = data.iter().map(|v| from(*v)).collect::<Option<_>>()?;
            fits.then_some(Live { from, shape: Shape::Concat, now })
        }
        _ => {
            // Of a broadcast, the operand that has the result's sizes.
            let same = data.iter().copied().find(|v| sizes_of(graph, *v) == Some(now) && from(*v).is_some());
            if let Some(v) = same {
                return one(v, Shape::Ratio([(1, 1); 3]));
            }
            let x = sizes_of(graph, first)?;
            if x.n != now.n || data.len() > 1 {
                return None;
            }
            if (now.h, now.w) == (1, 1) && now.c == x.c * x.h * x.w {
                return one(first, Shape::Flat);
            }
            if (now.h, now.w, now.c) == (1, 1, x.c) {
                return one(first, Shape::Global);
            }
            let moved = matches!(node.op_type.as_str(), "Transpose" | "Reshape" | "Gather" | "Pad");
            if moved {
                return None;
            }
            one(first, Shape::Ratio([reduced(now.c, x.c), reduced(now.h, x.h), reduced(now.w, x.w)]))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_windows() {
        let a = Axis { k: 3, s: 2, d: 1, p: 2, same: false, ceil: false };
        assert_eq!((a.out(224), a.out(7), a.out(1)), (Some(112), Some(4), Some(1)));
        assert_eq!(Axis { p: 0, ..a }.out(2), None);
        assert_eq!(Axis { same: true, ..a }.out(7), Some(4));
        assert_eq!(Axis { ceil: true, p: 0, ..a }.out(112), Some(56));
        assert_eq!(Sizes::of(&[1, 2, 24, 28, 28]), Some(Sizes { n: 1, c: 48, h: 28, w: 28 }));
        assert_eq!(Sizes::of(&[1, 1000]).map(|s| s.elements()), Some(1000));
        assert_eq!(Sizes::of(&[5]), None);
    }
}
