//! Zeros that a node puts around a map, put there by the windows that read it: a Pad before a convolution at stride 2 ("same" padding as
//! TensorFlow has it) or before an average that counts its padding. It saves writing and reading the map once more, and often two
//! changes of layout.

use super::{Item, Work};
use crate::ir::ValueId;
use crate::kernels::{Kind, PoolWindow};
use crate::ops::window::Axis;
use std::collections::HashMap;

/// Zeros before and after each spatial axis, if an item does nothing but put them there.
fn margin(item: &Item) -> Option<&[(usize, usize)]> {
    let Work::Kernel(kind) = &item.work else { return None };
    match kind.as_ref() {
        Kind::Pad { pads, value } if *value == 0.0 && pads.len() > 2 && pads[..2] == [(0, 0); 2] => Some(&pads[2..]),
        _ => None,
    }
}

/// The axes of windows that put the margin there themselves.
fn unpadded(axes: &[Axis], margin: &[(usize, usize)]) -> Option<Vec<Axis>> {
    if axes.len() != margin.len() {
        return None;
    }
    axes.iter().zip(margin).map(|(a, &(before, after))| a.unpadded(before, after)).collect()
}

/// What reads a padded map, reading the map without its margin.
fn reading(kind: &Kind, margin: &[(usize, usize)]) -> Option<Kind> {
    let mut kind = kind.clone();
    match &mut kind {
        Kind::Conv { geometry, pre: None, .. } | Kind::ConvComputed { geometry, .. } => {
            geometry.axes = unpadded(&geometry.axes, margin)?;
        }
        Kind::Pool(window) if window.average => *window = average(window, margin)?,
        _ => return None,
    }
    Some(kind)
}

/// An average counts the margin, which it has as values, and must count its own padding alike.
fn average(window: &PoolWindow, margin: &[(usize, usize)]) -> Option<PoolWindow> {
    let counted = window.include_pad || window.axes.iter().all(|a| (a.begin, a.end) == (0, 0));
    let axes: [Axis; 2] = unpadded(&window.axes, margin)?.try_into().ok()?;
    // The kernel takes windows that touch each other's values, and every one must reach the map.
    let fits = |a: &Axis| a.d == 1 && a.begin < a.k && a.o.saturating_sub(1) * a.s < a.i + a.begin;
    (counted && axes.iter().all(fits)).then_some(PoolWindow { axes, average: true, include_pad: true })
}

/// Merges such nodes into what alone reads them. `sole` tells whether a value has one reader and is no output.
pub(super) fn fuse(items: Vec<Item>, sole: &dyn Fn(ValueId) -> bool) -> Vec<Item> {
    let makers: HashMap<ValueId, usize> =
        items.iter().enumerate().filter(|(_, i)| margin(i).is_some()).map(|(i, item)| (item.dsts[0], i)).collect();
    let mut items: Vec<Option<Item>> = items.into_iter().map(Some).collect();
    for i in 0..items.len() {
        // One margin around another, too.
        while let Some(Item { work: Work::Kernel(kind), srcs, .. }) = &items[i]
            && let Some(&m) = srcs.first().filter(|&&v| sole(v)).and_then(|v| makers.get(v))
            && let Some(kind) = items[m].as_ref().and_then(margin).and_then(|margin| reading(kind, margin))
            && let Some(maker) = items[m].take()
            && let Some(item) = &mut items[i]
        {
            item.work = Work::Kernel(Box::new(kind));
            item.covers.extend(maker.covers);
            item.srcs[0] = maker.srcs[0];
        }
    }
    items.into_iter().flatten().collect()
}
