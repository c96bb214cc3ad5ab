//! Moves of channels: shuffles recognised, and joins, cuts and shuffles that follow each other composed into one step.
//!
//! A ShuffleNet unit writes Concat → Reshape → Transpose → Reshape → Split: for each of the two results it is one map that says which
//! operand and channel every channel comes from. Joins and cuts on block borders stay what they are, since nothing moves for them.

use super::super::joins::whole_blocks;
use super::super::plan::is_view;
use super::super::planner::fast_dims;
use super::{Item, Walk, Work};
use crate::ir::{Graph, Node, NodeId, ValueId};
use crate::kernels::{Act, Kind};
use crate::ops::Op;
use crate::ops::transpose::Transpose;
use std::collections::HashMap;

/// For each destination, for each of its channels: the operand and the channel of it.
type Map = Vec<Vec<(usize, usize)>>;

impl Walk<'_> {
    /// `[n, g·k, h, w] → [n, g, k, h, w] → [n, k, g, h, w] → [n, k·g, h, w]`.
    pub(super) fn shuffle(&self, id: NodeId, node: &Node) -> Option<Item> {
        let x = node.inputs.first().copied().flatten()?;
        let out = self.output(id)?;
        if !is_view(self.graph, id) || self.is_static(x) {
            return None;
        }
        let (from, apart) = (self.dims(x)?, self.dims(out)?);
        let ([n, c, h, w], &[n1, groups, each, h1, w1]) = (<[usize; 4]>::try_from(from.clone()).ok()?, &apart[..])
        else {
            return None;
        };
        if [n1, groups * each, h1, w1] != [n, c, h, w] {
            return None;
        }
        let turn = self.sole_reader(out)?;
        match &self.graph.node(turn).op {
            Op::Transpose(Transpose::Axes(perm)) if Transpose::order(perm, 5).ok()? == [0, 2, 1, 3, 4] => {}
            _ => return None,
        }
        let back = self.sole_reader(self.output(turn)?)?;
        let end = self.output(back)?;
        if !is_view(self.graph, back) || self.dims(end)? != from {
            return None;
        }
        let map = (0..c).map(|j| (0, j % groups * each + j / groups)).collect();
        Some(self.finish(Kind::Channels(vec![map]), vec![id, turn, back], vec![x], end))
    }

    /// Tokens that become the map of a convolution (Transpose, Reshape), or a map that becomes tokens (Reshape, Transpose): one move.
    pub(super) fn tokens(&self, id: NodeId, node: &Node) -> Option<Item> {
        let x = node.inputs.first().copied().flatten().filter(|v| !self.is_static(*v))?;
        let turns = |id: NodeId| match &self.graph.node(id).op {
            Op::Transpose(Transpose::Axes(perm)) => Transpose::order(perm, 3).is_ok_and(|p| p == [0, 2, 1]),
            _ => false,
        };
        let (from, out) = (self.dims(x)?, self.output(id)?);
        if from.len() == 3 && turns(id) {
            let (map, more) = self.past_views(out);
            let convolved = |r: &NodeId| matches!(self.graph.node(*r).op, Op::Conv(_));
            if self.dims(map)?.len() != 4
                || self.dims(map)?[..2] != [from[0], from[2]]
                || !self.readers[map.0 as usize].iter().any(convolved)
            {
                return None;
            }
            return Some(self.finish(Kind::Tokens(Act::None), [vec![id], more].concat(), vec![x], map));
        }
        let turn = self.sole_reader(out)?;
        let flat = self.dims(out)?;
        if from.len() != 4 || flat.len() != 3 || flat[..2] != from[..2] || self.stays(id) != Some(x) || !turns(turn) {
            return None;
        }
        let tokens = self.output(turn)?;
        self.dims(tokens)?;
        let (act, out, more) = self.activation(tokens);
        Some(self.finish(Kind::Tokens(act), [vec![id, turn], more].concat(), vec![x], out))
    }
}

fn map_of(graph: &Graph, item: &Item) -> Option<Map> {
    let Work::Kernel(kind) = &item.work else { return None };
    let dims = |v: ValueId| fast_dims(graph, v).filter(|d| d.len() == 4);
    let channels = |v: &ValueId| dims(*v).map(|d| d[1]);
    Some(match kind.as_ref() {
        Kind::Channels(map) => map.clone(),
        Kind::Concat(1) => {
            let counts = item.srcs.iter().map(channels).collect::<Option<Vec<_>>>()?;
            vec![counts.into_iter().enumerate().flat_map(|(i, c)| (0..c).map(move |j| (i, j))).collect()]
        }
        Kind::Split { axis: 1, parts } => {
            channels(&item.srcs[0])?;
            parts.iter().map(|&(start, len)| (start..start + len).map(|j| (0, j)).collect()).collect()
        }
        Kind::Slice(cuts) => {
            let (from, to) = (dims(item.srcs[0])?, dims(item.dsts[0])?);
            if [0, 2, 3].iter().any(|&a| cuts[a] != (0, 1) || from[a] != to[a]) {
                return None;
            }
            let (start, step) = cuts[1];
            vec![(0..to[1]).map(|j| (0, (start as isize + j as isize * step) as usize)).collect()]
        }
        _ => return None,
    })
}

/// Whether nothing has to move, or only whole blocks.
fn stays(graph: &Graph, item: &Item, lanes: usize) -> bool {
    let Work::Kernel(kind) = &item.work else { return true };
    let one_image = |v: ValueId| {
        fast_dims(graph, v).map(|mut d| {
            d[0] = 1;
            d
        })
    };
    match kind.as_ref() {
        Kind::Concat(1) => {
            let Some(dims) = one_image(item.dsts[0]) else { return true };
            let mut at = 0;
            let parts: Vec<(usize, usize)> = (item.srcs.iter())
                .map(|&v| {
                    let c = fast_dims(graph, v).map_or(0, |d| d[1]);
                    at += c;
                    (at - c, c)
                })
                .collect();
            whole_blocks(&dims, &parts, lanes)
        }
        Kind::Split { parts, .. } => one_image(item.srcs[0]).is_none_or(|d| whole_blocks(&d, parts, lanes)),
        Kind::Slice(cuts) => {
            let Some((from, to)) = one_image(item.srcs[0]).zip(one_image(item.dsts[0])) else { return true };
            cuts[1].1 == 1 && whole_blocks(&from, &[(cuts[1].0, to[1])], lanes)
        }
        _ => false,
    }
}

/// Composes the moves of channels among `items` (in the order of the walk). `sole` tells whether a value has one reader and is no
/// output of the graph.
pub(super) fn compose(graph: &Graph, items: Vec<Item>, lanes: usize, sole: &dyn Fn(ValueId) -> bool) -> Vec<Item> {
    let mut out: Vec<Option<Item>> = Vec::with_capacity(items.len());
    // Moves with one result, by that result.
    let mut moves: HashMap<ValueId, usize> = HashMap::new();
    for mut item in items {
        let Some(mut map) = map_of(graph, &item) else {
            out.push(Some(item));
            continue;
        };
        let still = stays(graph, &item, lanes);
        let mut srcs: Vec<ValueId> = Vec::new();
        let mut place = |v: ValueId| {
            srcs.iter().position(|&s| s == v).unwrap_or_else(|| {
                srcs.push(v);
                srcs.len() - 1
            })
        };
        // Where each channel of each operand really comes from.
        let mut sources: Vec<Option<Vec<(usize, usize)>>> = Vec::new();
        let mut covers = Vec::new();
        let mut taken: Vec<usize> = Vec::new();
        for &v in &item.srcs {
            let before = moves.get(&v).filter(|_| sole(v)).and_then(|&i| out[i].as_ref().map(|p| (i, p)));
            let joined = before.and_then(|(i, p)| {
                let inner = map_of(graph, p)?;
                (!still || !stays(graph, p, lanes)).then_some((i, p, inner))
            });
            sources.push(joined.map(|(i, p, inner)| {
                covers.extend(p.covers.iter().copied());
                taken.push(i);
                inner[0].iter().map(|&(operand, c)| (place(p.srcs[operand]), c)).collect()
            }));
        }
        if taken.is_empty() {
            if !still {
                item.work = Work::Kernel(Box::new(Kind::Channels(map)));
            }
        } else {
            let own: Vec<usize> =
                item.srcs.iter().zip(&sources).map(|(&v, s)| if s.is_some() { 0 } else { place(v) }).collect();
            for (operand, channel) in map.iter_mut().flatten() {
                (*operand, *channel) = match &sources[*operand] {
                    Some(inner) => inner[*channel],
                    None => (own[*operand], *channel),
                };
            }
            taken.iter().for_each(|&i| out[i] = None);
            item.covers.extend(covers);
            item.srcs = srcs;
            item.work = Work::Kernel(Box::new(Kind::Channels(map)));
        }
        if let [one] = item.dsts[..] {
            moves.insert(one, out.len());
        }
        out.push(Some(item));
    }
    out.into_iter().flatten().collect()
}
