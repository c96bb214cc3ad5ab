//! Products that read the same vector become one step: the queries, keys and values of a token, the two halves of a gated perceptron. The
//! vector is brought into the form that meets the codes once, and the threads come together once.

use super::{Item, Work};
use crate::ir::ValueId;
use crate::kernels::{FewBitsProduct, Kind};
use std::collections::HashMap;

/// The product of a vector that an item is, if it needs nothing but the vector.
fn product(item: &Item) -> Option<&FewBitsProduct> {
    let Work::Kernel(kind) = &item.work else { return None };
    let Kind::FewBits(few) = &**kind else { return None };
    let p = &few.product;
    let one = p.m == 1 && p.batch.iter().all(|&d| d == 1);
    (one && !p.residual && !p.trans_a && !few.rounded && item.srcs.len() == 1).then_some(few)
}

/// Joins them where the first of them stands: all they read is there by then. Items are in the order they run in.
pub(super) fn join(items: Vec<Item>) -> Vec<Item> {
    let mut groups: HashMap<ValueId, Vec<usize>> = HashMap::new();
    for (i, item) in items.iter().enumerate() {
        if product(item).is_some() {
            groups.entry(item.srcs[0]).or_default().push(i);
        }
    }
    let mut items: Vec<Option<Item>> = items.into_iter().map(Some).collect();
    for group in groups.into_values().filter(|g| g.len() > 1) {
        let all: Vec<Item> = group.iter().filter_map(|&i| items[i].take()).collect();
        let products = all.iter().filter_map(product).cloned().collect();
        let srcs = all[0].srcs.clone();
        let dsts = all.iter().flat_map(|i| i.dsts.iter().copied()).collect();
        let covers = all.into_iter().flat_map(|i| i.covers).collect();
        let work = Work::Kernel(Box::new(Kind::FewBitsTogether(products)));
        items[group[0]] = Some(Item { work, covers, srcs, dsts });
    }
    items.into_iter().flatten().collect()
}
