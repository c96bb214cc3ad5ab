//! Chains of convolutions that one kernel runs in bands: pointwise, depthwise, pointwise, or two of the three.

use super::{Item, Work};
use crate::ir::ValueId;
use crate::kernels::{self, ConvChain, ConvPart, Kind};
use std::collections::HashMap;

/// The convolution an item is, if it can be part of a chain; `residual` tells whether a sum at its end is fine.
fn part(item: &Item, residual: bool) -> Option<(&Kind, ConvPart)> {
    let Work::Kernel(kind) = &item.work else { return None };
    match kind.as_ref() {
        Kind::Conv { geometry, weights, bias, act, residual: sum, pre: None, share }
            if geometry.axes.len() == 2 && (residual || !sum) =>
        {
            let (geometry, weights, bias) = (geometry.clone(), weights.clone(), bias.clone());
            let part = ConvPart { geometry, weights, bias, act: *act, share: share.clone() };
            Some((kind, part))
        }
        _ => None,
    }
}

fn is_depthwise(p: &ConvPart) -> bool {
    let g = &p.geometry;
    // Every window starts inside the map or its padding, and reaches into the map.
    g.g == g.ic && g.g == g.oc && g.g > 1 && g.axes.iter().all(|a| a.begin < a.k && a.end < a.k && a.d == 1 && a.k > 1)
}

fn is_pointwise(p: &ConvPart) -> bool {
    kernels::takes_pre(&p.geometry)
}

/// Merges chains whose wide maps would leave the cache. `sole` tells whether a value has one reader and is no output.
pub(super) fn fuse(items: Vec<Item>, sole: &dyn Fn(ValueId) -> bool) -> Vec<Item> {
    let mut reader: HashMap<ValueId, usize> = HashMap::new();
    let mut maker: HashMap<ValueId, usize> = HashMap::new();
    for (i, item) in items.iter().enumerate() {
        item.srcs.first().map(|&v| reader.insert(v, i));
        item.dsts.first().map(|&v| maker.insert(v, i));
    }
    let mut items: Vec<Option<Item>> = items.into_iter().map(Some).collect();
    for i in 0..items.len() {
        let Some(item) = &items[i] else { continue };
        let Some((_, middle)) = part(item, false).filter(|(_, p)| is_depthwise(p)) else { continue };
        let (x, y) = (item.srcs[0], item.dsts[0]);
        let before = maker.get(&x).filter(|_| sole(x)).and_then(|&m| {
            let p = part(items[m].as_ref()?, false)?.1;
            is_pointwise(&p).then_some((m, p))
        });
        let after = reader.get(&y).filter(|_| sole(y)).and_then(|&r| {
            let item = items[r].as_ref()?;
            let p = part(item, true)?.1;
            (is_pointwise(&p) && item.srcs[0] == y).then_some((r, p))
        });
        // All three, or the depthwise one with one of them.
        let worth = |before: &Option<(usize, ConvPart)>, after: &Option<(usize, ConvPart)>| {
            let (before, after) = (before.as_ref().map(|b| &b.1), after.as_ref().map(|a| &a.1));
            kernels::chain_worth(before, &middle, after)
        };
        let (expand, project) = match (before, after) {
            (before, after) if worth(&before, &after) => (before, after),
            (before, Some(_)) if worth(&before, &None) => (before, None),
            (Some(_), after) if worth(&None, &after) => (None, after),
            _ => continue,
        };
        let mut covers = Vec::new();
        let mut srcs = vec![x];
        let mut dst = y;
        if let Some((m, _)) = &expand
            && let Some(first) = items[*m].take()
        {
            srcs[0] = first.srcs[0];
            covers.extend(first.covers);
        }
        covers.extend(items[i].take().map(|m| m.covers).unwrap_or_default());
        let mut residual = false;
        let mut end = i;
        if let Some((r, _)) = &project
            && let Some(last) = items[*r].take()
        {
            dst = last.dsts[0];
            residual = last.srcs.len() > 1;
            srcs.extend(&last.srcs[1..]);
            covers.extend(last.covers);
            end = *r;
        }
        let (expand, project) = (expand.map(|e| e.1), project.map(|p| p.1));
        let kind = Kind::ConvChain(Box::new(ConvChain { expand, depthwise: middle, project, residual }));
        // Found again where its end stood: a chain does not start another.
        items[end] = Some(Item { work: Work::Kernel(Box::new(kind)), covers, srcs, dsts: vec![dst] });
    }
    items.into_iter().flatten().collect()
}
