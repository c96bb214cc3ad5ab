//! Joins along channels that move nothing: where the parts of a concatenation are made inside the whole.
//!
//! In the layout NCHWc one image's channels follow each other block by block. A part of whole blocks is then a stretch of the joined
//! tensor, so what makes the part can write it there. A join of joins (as in DenseNet, where each layer joins all before it) is one
//! buffer: the smaller joins are its beginnings.

use super::passes::{Item, Work};
use super::planner::fast_dims;
use crate::ir::{Graph, ValueId};
use crate::kernels::Kind;
use std::collections::HashMap;

/// Where a value lies: in which whole, from which of its channels on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spot {
    pub(super) whole: usize,
    pub(super) channel: usize,
}

/// A buffer that several values share.
#[derive(Debug)]
pub(super) struct Whole {
    /// Dims of the largest join.
    pub(super) dims: Vec<usize>,
    /// The planner's buffer, once something is made in it.
    pub(super) buffer: Option<usize>,
}

/// The wholes of a graph and what lies in them.
#[derive(Debug, Default)]
pub(super) struct Joins {
    pub(super) wholes: Vec<Whole>,
    pub(super) spots: HashMap<ValueId, Spot>,
}

/// Whether channel parts `(start, length)` of an image of `dims` are whole blocks of `lanes` channels; the last may be ragged if it
/// ends the tensor.
pub(super) fn whole_blocks(dims: &[usize], parts: &[(usize, usize)], lanes: usize) -> bool {
    dims.len() == 4
        && dims[0] == 1
        && parts
            .iter()
            .all(|&(start, len)| start.is_multiple_of(lanes) && (len.is_multiple_of(lanes) || start + len == dims[1]))
}

impl Joins {
    /// Looks through the concatenations, the last first: it is the largest of a nest.
    pub(super) fn find(graph: &Graph, items: &[Item], lanes: usize) -> Joins {
        let mut joins = Joins::default();
        for item in items.iter().rev() {
            let Work::Kernel(kind) = &item.work else { continue };
            let (Kind::Concat(1), Some(dims)) = (kind.as_ref(), fast_dims(graph, item.dsts[0])) else { continue };
            let Some(channels) =
                item.srcs.iter().map(|&v| fast_dims(graph, v)?.get(1).copied()).collect::<Option<Vec<_>>>()
            else {
                continue;
            };
            let mut parts = Vec::with_capacity(channels.len());
            let mut at = 0;
            for c in channels {
                parts.push((at, c));
                at += c;
            }
            if !whole_blocks(&dims, &parts, lanes) {
                continue;
            }
            joins.join(item, &parts, dims);
        }
        joins
    }

    fn join(&mut self, item: &Item, parts: &[(usize, usize)], dims: Vec<usize>) {
        let spot = match self.spots.get(&item.dsts[0]) {
            Some(&spot) => spot,
            None => {
                let first = self.spots.get(&item.srcs[0]).copied();
                let inside = first.filter(|f| {
                    let at = |start: usize| Spot { channel: f.channel + start, ..*f };
                    item.srcs.iter().zip(parts).all(|(v, p)| self.spots.get(v) == Some(&at(p.0)))
                });
                let spot = inside.unwrap_or_else(|| {
                    self.wholes.push(Whole { dims, buffer: None });
                    Spot { whole: self.wholes.len() - 1, channel: 0 }
                });
                self.spots.insert(item.dsts[0], spot);
                spot
            }
        };
        for (&v, p) in item.srcs.iter().zip(parts) {
            // A value that already has its place in another join is copied here.
            self.spots.entry(v).or_insert(Spot { channel: spot.channel + p.0, ..spot });
        }
    }
}
