//! Rotary position embeddings as exporters write them: two slices, a sign, a join, two products and a sum become one step.

use super::super::planner::fast_dims;
use super::{Item, Work};
use crate::ir::{Graph, ValueId};
use crate::kernels::{Act, BinaryOp, Kind};
use std::collections::HashMap;

struct Search<'a> {
    graph: &'a Graph,
    items: &'a [Option<Item>],
    makers: &'a HashMap<ValueId, usize>,
    sole: &'a dyn Fn(ValueId) -> bool,
}

impl Search<'_> {
    /// The item that makes a value which nobody else reads, and its kernel.
    fn made(&self, v: ValueId) -> Option<(usize, &Item, &Kind)> {
        let at = *self.makers.get(&v).filter(|_| (self.sole)(v))?;
        let item = self.items[at].as_ref()?;
        match &item.work {
            Work::Kernel(kind) => Some((at, item, kind)),
            _ => None,
        }
    }

    /// Operands of a product, and the item.
    fn product(&self, v: ValueId) -> Option<(usize, ValueId, ValueId)> {
        match self.made(v)? {
            (at, item, Kind::Binary(BinaryOp::Mul, Act::None)) => Some((at, item.srcs[0], item.srcs[1])),
            _ => None,
        }
    }

    /// Whether `v` is the values from `start` on of each row of `x`, half of them: the item that cuts them out.
    fn half(&self, v: ValueId, x: ValueId, start: usize) -> Option<usize> {
        let (whole, part) = (fast_dims(self.graph, x)?, fast_dims(self.graph, v)?);
        let last = whole.len().checked_sub(1)?;
        let (at, item, kind) = self.made(v)?;
        let cut = match kind {
            Kind::Slice(cuts) => cuts[..last].iter().all(|c| *c == (0, 1)) && cuts[last] == (start, 1),
            Kind::Split { axis, parts } => {
                let own = item.dsts.iter().position(|d| *d == v)?;
                *axis == last && parts[own] == (start, whole[last] / 2) && item.dsts.iter().all(|d| (self.sole)(*d))
            }
            _ => false,
        };
        let same = part.len() == whole.len() && part[..last] == whole[..last] && 2 * part[last] == whole[last];
        (cut && same && item.srcs == [x]).then_some(at)
    }

    /// `(−x₂, x₁)` of some x: x, and the items that make it.
    fn turned(&self, v: ValueId, x: ValueId) -> Option<Vec<usize>> {
        let dims = fast_dims(self.graph, x)?;
        let half = dims.last()? / 2;
        let (join, item, Kind::Concat(axis)) = self.made(v)? else { return None };
        let &[high, low] = &item.srcs[..] else { return None };
        (*axis + 1 == dims.len()).then_some(())?;
        let (sign, negated, Kind::Unary(acts)) = self.made(high)? else { return None };
        (acts[..] == [Act::Neg]).then_some(())?;
        let mut all = vec![join, sign, self.half(negated.srcs[0], x, half)?, self.half(low, x, 0)?];
        all.dedup();
        Some(all)
    }

    /// x, cosines and sines of a sum, and the other items it is made of.
    fn found(&self, item: &Item) -> Option<([ValueId; 3], Vec<usize>)> {
        let Work::Kernel(kind) = &item.work else { return None };
        let Kind::Binary(BinaryOp::Add, Act::None) = **kind else { return None };
        let (&[a, b], &[out]) = (&item.srcs[..], &item.dsts[..]) else { return None };
        for (plain, other) in [(a, b), (b, a)] {
            let (Some((by_cos, p, q)), Some((by_sin, r, t))) = (self.product(plain), self.product(other)) else {
                continue;
            };
            for (x, cos) in [(p, q), (q, p)] {
                for (turned, sin) in [(r, t), (t, r)] {
                    let Some(mut parts) = self.turned(turned, x) else { continue };
                    let dims = fast_dims(self.graph, x)?;
                    let spread = |v: ValueId| fast_dims(self.graph, v).is_some_and(|d| d.last() == dims.last());
                    if fast_dims(self.graph, out).as_ref() == Some(&dims) && spread(cos) && spread(sin) {
                        parts.extend([by_cos, by_sin]);
                        return Some(([x, cos, sin], parts));
                    }
                }
            }
        }
        None
    }
}

/// Merges them. `sole` tells whether a value has one reader and is no output.
pub(super) fn fuse(graph: &Graph, items: Vec<Item>, sole: &dyn Fn(ValueId) -> bool) -> Vec<Item> {
    let makers: HashMap<ValueId, usize> =
        items.iter().enumerate().flat_map(|(i, item)| item.dsts.iter().map(move |&v| (v, i))).collect();
    let mut items: Vec<Option<Item>> = items.into_iter().map(Some).collect();
    for i in 0..items.len() {
        let Some(item) = &items[i] else { continue };
        let search = Search { graph, items: &items, makers: &makers, sole };
        let Some((srcs, parts)) = search.found(item) else { continue };
        let covers: Vec<_> = parts.into_iter().filter_map(|p| items[p].take()).flat_map(|p| p.covers).collect();
        if let Some(item) = &mut items[i] {
            item.covers.extend(covers);
            item.srcs = srcs.to_vec();
            item.work = Work::Kernel(Box::new(Kind::Rotary));
        }
    }
    items.into_iter().flatten().collect()
}
