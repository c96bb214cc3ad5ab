//! What happens to the input of a pointwise convolution is done on the way in: a BatchNormalization and its activation before it
//! (DenseNet), the gate of a squeeze-excite block. It saves writing and reading the whole map once more.

use super::super::planner::fast_dims;
use super::{Item, Work};
use crate::ir::{Graph, ValueId};
use crate::kernels::{Act, BinaryOp, Kind, Pre, takes_pre};
use std::collections::HashMap;

/// The map an item is, its operand and its gate.
fn map_of(graph: &Graph, item: &Item) -> Option<(Pre, ValueId, Option<ValueId>)> {
    let Work::Kernel(kind) = &item.work else { return None };
    match kind.as_ref() {
        Kind::ChannelAffine { scale, shift, act } => {
            let affine = Some((scale.clone(), shift.clone()));
            Some((Pre { affine, act: *act, gate: false }, item.srcs[0], None))
        }
        Kind::Binary(BinaryOp::Mul, Act::None) => {
            let out = fast_dims(graph, item.dsts[0])?;
            let is_gate = |v: ValueId| fast_dims(graph, v).is_some_and(|d| d.len() == 4 && d == [out[0], out[1], 1, 1]);
            let is_map = |v: ValueId| fast_dims(graph, v).is_some_and(|d| d == out && d.len() == 4 && d[2] * d[3] > 1);
            let (a, b) = (item.srcs[0], item.srcs[1]);
            let (x, gate) = match (is_map(a) && is_gate(b), is_map(b) && is_gate(a)) {
                (true, _) => (a, b),
                (_, true) => (b, a),
                _ => return None,
            };
            Some((Pre { affine: None, act: Act::None, gate: true }, x, Some(gate)))
        }
        _ => None,
    }
}

/// Merges such maps into the convolutions that alone read them. `sole` tells whether a value has one reader and is no output.
pub(super) fn fuse(graph: &Graph, items: Vec<Item>, sole: &dyn Fn(ValueId) -> bool) -> Vec<Item> {
    let makers: HashMap<ValueId, usize> =
        items.iter().enumerate().filter_map(|(i, item)| Some((*item.dsts.first()?, i))).collect();
    let mut items: Vec<Option<Item>> = items.into_iter().map(Some).collect();
    for i in 0..items.len() {
        let Some(item) = &items[i] else { continue };
        let Work::Kernel(kind) = &item.work else { continue };
        match kind.as_ref() {
            Kind::Conv { geometry, pre: None, .. } if takes_pre(geometry) && sole(item.srcs[0]) => {}
            _ => continue,
        }
        let maker = makers.get(&item.srcs[0]).copied().filter(|&m| m != i);
        let Some((m, (map, x, gate))) = maker.and_then(|m| Some((m, map_of(graph, items[m].as_ref()?)?))) else {
            continue;
        };
        let covers = items[m].take().map(|maker| maker.covers).unwrap_or_default();
        let Some(Item { work: Work::Kernel(kind), covers: own, srcs, .. }) = &mut items[i] else { continue };
        if let Kind::Conv { pre, .. } = kind.as_mut() {
            *pre = Some(map);
        }
        own.extend(covers);
        srcs.splice(..1, std::iter::once(x).chain(gate));
    }
    items.into_iter().flatten().collect()
}
