//! Attention out of the nodes exporters write: a product of queries and keys, a factor, masks, Softmax, a product with values, and the
//! moves of heads around them.
//!
//! The operands are read where the projections left them, the result is written as the projection behind wants it: what lies
//! between is followed as strided views. What does not fit stays as the steps it is.

use super::super::meaning as read;
use super::views::{Strided, Traced};
use super::{Item, Walk};
use crate::ir::{Node, NodeId, ValueId};
use crate::kernels::attention::{Head, Lay, Shape};
use crate::kernels::{Attention, BinaryOp, Kind, Mask};
use crate::ops::cast::Cast;
use crate::ops::unary::Unary;
use crate::ops::{Op, attention};

/// Scores at or below this weigh nothing beside any other.
const HIDDEN: f32 = -1e30;

/// A mask met on the way from the product to the Softmax.
struct Added {
    value: ValueId,
    /// Dims of the scores there.
    dims: Vec<usize>,
}

/// What lies between the two products.
struct Middle {
    covers: Vec<NodeId>,
    first: NodeId,
    second: NodeId,
    scale: f32,
    masks: Vec<Added>,
    zero_unseen: bool,
}

impl Walk<'_> {
    /// All attentions of the graph; their nodes are marked as covered.
    pub(super) fn attentions(&mut self) -> Vec<Item> {
        let mut items = Vec::new();
        for (id, node) in self.graph.iter() {
            if node.is_static || self.covered[id.0 as usize] {
                continue;
            }
            let found = match &node.op {
                Op::Softmax(_) => self.exported_attention(id, node),
                Op::Attention(attention::Attention::Product(p)) => self.attention_node(id, node, p),
                _ => None,
            };
            if let Some(item) = found {
                item.covers.iter().for_each(|c| self.covered[c.0 as usize] = true);
                items.push(item);
            }
        }
        items
    }

    fn middle(&self, id: NodeId, node: &Node) -> Option<Middle> {
        let Kind::Softmax = read::shaped(self.graph, node, &|v| self.value(v))?.kind else { return None };
        let scores = node.inputs[0]?;
        let dims = self.dims(scores)?;
        let plane = |d: &[usize]| d.len() >= 2 && d[d.len() - 2..] == dims[dims.len().saturating_sub(2)..];
        if dims.len() < 2 {
            return None;
        }
        let mut m =
            Middle { covers: vec![id], first: id, second: id, scale: 1.0, masks: Vec::new(), zero_unseen: false };
        // Back to the product.
        let mut at = scores;
        loop {
            let here = self.dims(at).filter(|d| plane(d))?;
            self.sole_reader(at)?;
            let (before, from) = self.producer(at)?;
            m.covers.push(before);
            if read::is_product(self.graph, from) {
                m.first = before;
                break;
            }
            if let Some((x, by)) = self.scaling(before) {
                m.scale *= by;
                at = x;
            } else if read::binary(from) == Some(BinaryOp::Add) && m.scale == 1.0 {
                let (a, b) = (from.inputs[0]?, from.inputs[1]?);
                let (x, mask) = if self.is_scores(a, &here) && !self.is_static(a) { (a, b) } else { (b, a) };
                (self.dims(x)? == here && !self.is_static(x)).then_some(())?;
                self.dims(mask)?;
                m.masks.push(Added { value: mask, dims: here });
                at = x;
            } else {
                at = self.same(before)?;
            }
        }
        // On to the product with the values.
        let mut at = self.output(id)?;
        loop {
            if let [a, b] = self.readers[at.0 as usize][..]
                && let Some((guard, out)) = self.nan_guard(at, a, b)
            {
                m.covers.extend(guard);
                m.zero_unseen = true;
                at = out;
                continue;
            }
            let next = self.sole_reader(at)?;
            let node = self.graph.node(next);
            m.covers.push(next);
            if read::is_product(self.graph, node) {
                (node.inputs[0] == Some(at) && node.inputs[1] != Some(at)).then_some(())?;
                m.second = next;
                return Some(m);
            }
            (self.same(next)? == at).then_some(())?;
            at = self.output(next)?;
            self.dims(at).filter(|d| plane(d))?;
        }
    }

    /// Whether a value looks like the scores of an attention: made by what may lie between a product and its Softmax.
    fn is_scores(&self, v: ValueId, dims: &[usize]) -> bool {
        if self.dims(v).as_deref() != Some(dims) {
            return false;
        }
        let mut at = v;
        while let Some((id, node)) = self.producer(at) {
            if read::is_product(self.graph, node) {
                return true;
            }
            let add = |n: &Node| match read::binary(n) {
                Some(BinaryOp::Add) => {
                    n.inputs[0].filter(|a| n.outputs[0].is_some_and(|out| self.dims(*a) == self.dims(out)))
                }
                _ => None,
            };
            match self.scaling(id).map(|s| s.0).or_else(|| self.same(id)).or_else(|| add(node)) {
                Some(x) => at = x,
                None => return false,
            }
        }
        false
    }

    /// The operand of a node that passes all its elements on in their order.
    fn same(&self, id: NodeId) -> Option<ValueId> {
        let node = self.graph.node(id);
        let x = node.inputs.first().copied().flatten()?;
        let (from, to) = (self.dims(x)?, self.dims(self.output(id)?)?);
        let cast = matches!(&node.op, Op::Cast(Cast::Cast { .. } | Cast::Identity));
        let passes = cast || super::super::plan::is_view(self.graph, id);
        let single = node.outputs.iter().flatten().count() == 1;
        let all = from.iter().product::<usize>() == to.iter().product::<usize>();
        (passes && single && all).then_some(x)
    }

    /// `Where(IsNaN(p), 0, p)`: the two nodes and the result.
    fn nan_guard(&self, p: ValueId, a: NodeId, b: NodeId) -> Option<(Vec<NodeId>, ValueId)> {
        for (test, pick) in [(a, b), (b, a)] {
            let (t, w) = (self.graph.node(test), self.graph.node(pick));
            let nan = matches!(&t.op, Op::Unary(Unary::IsNan));
            if nan
                && w.op_type == "Where"
                && w.inputs[0] == self.output(test)
                && w.inputs[2] == Some(p)
                && w.inputs[1].and_then(|z| self.scalar(z)) == Some(0.0)
                && self.readers[self.output(test)?.0 as usize].len() == 1
                && !self.is_output[p.0 as usize]
                && !self.is_output[self.output(test)?.0 as usize]
                && self.dims(self.output(pick)?) == self.dims(p)
            {
                return Some((vec![test, pick], self.output(pick)?));
            }
        }
        None
    }

    fn exported_attention(&self, id: NodeId, node: &Node) -> Option<Item> {
        let m = self.middle(id, node)?;
        let product = |id: NodeId| {
            let node = self.graph.node(id);
            let (a, b) = (node.inputs[0]?, node.inputs[1]?);
            let (ad, bd) = (self.dims(a)?, self.dims(b)?);
            Some((a, b, read::matmul(&node.op, &ad, &bd)?))
        };
        let (q, k, first) = product(m.first)?;
        let (p, v, second) = product(m.second)?;
        // Results of a Gemm with a bias are no plain products.
        for id in [m.first, m.second] {
            (self.graph.node(id).inputs.len() == 2).then_some(())?;
        }
        let (queries, keys, dim, dim_v) = (first.m, first.n, first.k, second.n);
        let count = |d: &[usize]| d.iter().product::<usize>();
        let heads = count(&first.batch);
        if second.trans_a || second.m != queries || second.k != keys || count(&second.batch) != heads {
            return None;
        }
        if count(&self.dims(p)?) != heads * queries * keys {
            return None;
        }
        let mut srcs = Vec::new();
        let mut place = |v: ValueId| {
            srcs.iter().position(|s| *s == v).unwrap_or_else(|| {
                srcs.push(v);
                srcs.len() - 1
            })
        };
        let mut nodes = Vec::new();
        let mut factor = 1.0;
        // Offsets of the heads and the strides of rows and columns.
        let mut operand = |v: ValueId, batch: &[usize], swap: bool, scaled: bool| -> Option<(usize, Vec<usize>, Lay)> {
            let Traced { root, view, nodes: between, factor: by } = self.traced(v, scaled)?;
            let rank = view.axes.len();
            let (r, c) = if swap { (rank - 1, rank - 2) } else { (rank - 2, rank - 1) };
            let all = [batch, &[view.size(rank - 2), view.size(rank - 1)]].concat();
            let lay = Lay { row: view.stride(r)?, col: view.stride(c)? };
            let offsets = view.spread(&all)?.offsets(batch.len());
            nodes.extend(between);
            factor *= by;
            Some((place(root), offsets, lay))
        };
        let (qs, q_at, q_lay) = operand(q, &first.batch, first.trans_a, true)?;
        // The second operand of the product is [dim, keys] unless it is said to be transposed; its rows are keys here.
        let (ks, k_at, k_lay) = operand(k, &first.batch, !first.trans_b, true)?;
        let (vs, v_at, v_lay) = operand(v, &second.batch, second.trans_b, false)?;
        let scale = m.scale * first.alpha * factor;
        if second.alpha != 1.0 {
            return None;
        }
        let (mask, mask_at, mask_lay, causal) = self.mask_of(&m.masks, heads, queries, keys, &mut |v| place(v))?;
        let out = self.output(m.second)?;
        let (end, after, (inner, order)) = self.carried(out, |view| rows_of(view, heads, queries, dim_v))?;
        let all: Vec<Head> = order
            .iter()
            .map(|&i| Head { q: q_at[i], k: k_at[i], v: v_at[i], mask: mask_at.get(i).copied().unwrap_or(0) })
            .collect();
        let unit = |lay: Lay, cols: usize| if cols == 1 { Lay { col: 1, ..lay } } else { lay };
        let shape = Shape {
            heads: all,
            inner,
            queries,
            keys,
            dim,
            dim_v,
            scale,
            causal,
            zero_unseen: m.zero_unseen,
            q: unit(q_lay, dim),
            k: unit(k_lay, dim),
            v: unit(v_lay, dim_v),
            mask: mask_lay,
        };
        let mut covers = m.covers;
        covers.extend(after);
        self.cover_moves(&mut covers, nodes);
        covers.sort();
        covers.dedup();
        // The step is named after the Softmax.
        let at = covers.iter().position(|c| *c == id)?;
        covers[..=at].rotate_right(1);
        let kind = Kind::Attention(Attention { shape, operands: [qs, ks, vs], mask });
        Some(self.finish(kind, covers, srcs, end))
    }

    /// Adds to the covers the moves that only they read.
    fn cover_moves(&self, covers: &mut Vec<NodeId>, mut candidates: Vec<NodeId>) {
        candidates.sort();
        candidates.dedup();
        // Readers come after what they read, so one sweep from the end sees all.
        for &id in candidates.iter().rev() {
            let free = self.graph.node(id).outputs.iter().flatten().all(|v| {
                !self.is_output[v.0 as usize] && self.readers[v.0 as usize].iter().all(|r| covers.contains(r))
            });
            if free && !self.covered[id.0 as usize] {
                covers.push(id);
            }
        }
    }

    /// The masks as one: where it comes from, the heads' offsets, its lay-out, and whether it only hides later keys.
    fn mask_of(
        &self,
        masks: &[Added],
        heads: usize,
        queries: usize,
        keys: usize,
        place: &mut dyn FnMut(ValueId) -> usize,
    ) -> Option<(Mask, Vec<usize>, Lay, bool)> {
        let spread = |m: &Added| -> Option<(Vec<usize>, Lay)> {
            let view = Strided::plain(&self.dims(m.value)?).spread(&m.dims)?;
            let rank = m.dims.len();
            let lay = Lay { row: view.stride(rank - 2)?, col: view.stride(rank - 1)? };
            let offsets = view.offsets(rank - 2);
            (offsets.len() == heads && (lay.col <= 1)).then_some((offsets, lay))
        };
        match masks {
            [] => Some((Mask::None, Vec::new(), Lay::default(), false)),
            [one] if !self.is_static(one.value) => {
                let (offsets, lay) = spread(one)?;
                Some((Mask::Operand(place(one.value)), offsets, lay, false))
            }
            _ => {
                // Constants are added up here, once for each different combination of their parts.
                let mut parts = Vec::new();
                for m in masks {
                    let (offsets, lay) = spread(m)?;
                    parts.push((self.floats(m.value).filter(|_| self.is_static(m.value))?, offsets, lay));
                }
                let mut seen: Vec<Vec<usize>> = Vec::new();
                let mut at = Vec::with_capacity(heads);
                for h in 0..heads {
                    let key: Vec<usize> = parts.iter().map(|p| p.1[h]).collect();
                    let i = seen.iter().position(|s| *s == key).unwrap_or_else(|| {
                        seen.push(key);
                        seen.len() - 1
                    });
                    at.push(i * queries * keys);
                }
                let mut sum = Vec::with_capacity(seen.len() * queries * keys);
                for key in &seen {
                    for i in 0..queries {
                        for t in 0..keys {
                            let add =
                                |(p, &o): (&(Vec<f32>, Vec<usize>, Lay), &usize)| p.0[o + i * p.2.row + t * p.2.col];
                            sum.push(parts.iter().zip(key).map(add).sum::<f32>());
                        }
                    }
                }
                let later = |at: usize| {
                    let (i, t) = (at / keys % queries, at % keys);
                    t + queries > i + keys
                };
                let causal = keys >= queries
                    && sum.iter().enumerate().all(|(at, &x)| if later(at) { x <= HIDDEN } else { x == 0.0 });
                if causal {
                    return Some((Mask::None, Vec::new(), Lay::default(), true));
                }
                if sum.iter().all(|&x| x == 0.0) {
                    return Some((Mask::None, Vec::new(), Lay::default(), false));
                }
                Some((Mask::Constant(sum), at, Lay { row: keys, col: 1 }, false))
            }
        }
    }

    /// The operator itself, in its plain forms.
    fn attention_node(&self, id: NodeId, node: &Node, op: &attention::Product) -> Option<Item> {
        let extras =
            node.outputs.iter().skip(1).any(Option::is_some) || node.inputs.iter().skip(4).any(Option::is_some);
        if extras || op.softcap.is_some_and(|c| c != 0.0) || op.left_window.is_some() || op.right_window.is_some() {
            return None;
        }
        let (q, k, v) = (node.inputs[0]?, node.inputs[1]?, node.inputs[2]?);
        let out = self.output(id)?;
        self.dims(out)?;
        let mut srcs = Vec::new();
        let mut place = |v: ValueId| {
            srcs.iter().position(|s| *s == v).unwrap_or_else(|| {
                srcs.push(v);
                srcs.len() - 1
            })
        };
        let mut nodes = Vec::new();
        // As [batch, heads, positions, dim].
        let mut operand = |v: ValueId, heads: Option<usize>| -> Option<(usize, Strided)> {
            if self.is_static(v) {
                return None;
            }
            let Traced { root, view, nodes: between, .. } = self.traced(v, false)?;
            let view = view.by_heads(heads)?;
            nodes.extend(between);
            Some((place(root), view))
        };
        let (qs, qv) = operand(q, op.q_heads)?;
        let (ks, kv) = operand(k, op.kv_heads)?;
        let (vs, vv) = operand(v, op.kv_heads)?;
        let (batch, heads, queries, dim) = (qv.size(0), qv.size(1), qv.size(2), qv.size(3));
        let (groups, keys, dim_v) = (kv.size(1), kv.size(2), vv.size(3));
        let fits = kv.size(0) == batch && vv.size(0) == batch && vv.size(1) == groups && vv.size(2) == keys;
        if !fits || kv.size(3) != dim || groups == 0 || !heads.is_multiple_of(groups) {
            return None;
        }
        // A key that a later position hides by this operator's rule is counted from the first key.
        if op.causal && keys != queries {
            return None;
        }
        let mask = match node.inputs.get(3).copied().flatten() {
            None => Vec::new(),
            Some(m) => vec![Added { value: m, dims: vec![batch, heads, queries, keys] }],
        };
        let all = batch * heads;
        let (mask, mask_at, mask_lay, causal) = self.mask_of(&mask, all, queries, keys, &mut |v| place(v))?;
        let (q_at, k_at, v_at) = (qv.offsets(2), kv.offsets(2), vv.offsets(2));
        let head = |i: usize| {
            let g = i / heads * groups + i % heads / (heads / groups);
            Head { q: q_at[i], k: k_at[g], v: v_at[g], mask: mask_at.get(i).copied().unwrap_or(0) }
        };
        // Rank 3 results have the heads of a position side by side.
        let side_by_side = self.dims(out)?.len() == 3;
        let (outer, inner) = if side_by_side { (batch, heads) } else { (all, 1) };
        let unit = |v: &Strided| Some(Lay { row: v.stride(2)?, col: if v.size(3) == 1 { 1 } else { v.stride(3)? } });
        let shape = Shape {
            heads: (0..outer * inner).map(head).collect(),
            inner,
            queries,
            keys,
            dim,
            dim_v,
            scale: op.scale.filter(|s| *s != 0.0).unwrap_or(1.0 / (dim as f32).sqrt()),
            causal: op.causal || causal,
            zero_unseen: false,
            q: unit(&qv)?,
            k: unit(&kv)?,
            v: unit(&vv)?,
            mask: mask_lay,
        };
        let mut covers = vec![id];
        self.cover_moves(&mut covers, nodes);
        let kind = Kind::Attention(Attention { shape, operands: [qs, ks, vs], mask });
        Some(self.finish(kind, covers, srcs, out))
    }
}

/// How the moved result of the second product lies in rows: heads side by side, and which head each is. `view` shows the final value
/// over the product's own `[heads][queries][dim_v]`.
fn rows_of(view: &Strided, heads: usize, queries: usize, dim_v: usize) -> Option<(usize, Vec<usize>)> {
    for inner in (1..=heads).rev().filter(|i| heads.is_multiple_of(*i)) {
        let Some(v) = view.reshaped(&[heads / inner, queries, inner, dim_v]) else { continue };
        let row = queries == 1 || v.stride(1) == Some(dim_v);
        let col = dim_v == 1 || v.stride(3) == Some(1);
        if row && col {
            let order = Strided { offset: 0, axes: vec![v.axes[0].clone(), v.axes[2].clone()] };
            return Some((inner, order.offsets(2).into_iter().map(|o| o / (queries * dim_v)).collect()));
        }
    }
    None
}
