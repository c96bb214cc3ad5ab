//! When values live, and the most memory they need at once.

use crate::ir::{Graph, ValueId};
use crate::ops::Access;

/// The peak of [`live_bytes`], or of the graph's inputs where it has no nodes.
pub fn peak_activation_bytes(graph: &Graph) -> Option<u64> {
    peak_activation(graph).map(|(bytes, _)| bytes)
}

/// The peak with the position of the node at which it is first met; `None` in place of the position: before any node runs.
pub fn peak_activation(graph: &Graph) -> Option<(u64, Option<usize>)> {
    let inputs = graph.inputs().iter().try_fold(0u64, |sum, &v| sum.checked_add(graph.value(v).fact.bytes()?))?;
    let (mut peak, mut at) = (inputs, None);
    for (i, bytes) in live_bytes(graph)?.into_iter().enumerate() {
        if bytes > peak {
            (peak, at) = (bytes, Some(i));
        }
    }
    Some((peak, at))
}

/// Live activation bytes while each node runs, in the graph's order: its inputs, its outputs and everything needed later.
/// Views share their input's memory; weights and other static values do not count. `None` when a size is unknown.
pub fn live_bytes(graph: &Graph) -> Option<Vec<u64>> {
    let n = graph.values().len();
    // Views resolve to the value whose memory they show.
    let mut root: Vec<usize> = (0..n).collect();
    for node in graph.nodes() {
        if node.op.family().access() == Access::View && !node.is_static {
            let (Some(Some(from)), Some(Some(to))) = (node.inputs.first(), node.outputs.first()) else { continue };
            root[to.0 as usize] = root[from.0 as usize];
        }
    }
    // The last node (by position) that needs each root; graph outputs are needed to the end.
    let mut last_use = vec![0usize; n];
    for (i, node) in graph.nodes().iter().enumerate() {
        for v in node.inputs.iter().chain(&node.outputs).flatten() {
            last_use[root[v.0 as usize]] = i;
        }
    }
    for v in graph.outputs() {
        last_use[root[v.0 as usize]] = usize::MAX;
    }
    // Bytes that come alive with node i (slot 0: graph inputs), and bytes that die after it.
    let nodes = graph.nodes();
    let (mut born, mut dead) = (vec![0u64; nodes.len() + 1], vec![0u64; nodes.len() + 1]);
    let mut add = |v: ValueId, slot: usize| -> Option<()> {
        let value = graph.value(v);
        if value.is_static || root[v.0 as usize] != v.0 as usize {
            return Some(());
        }
        let bytes = value.fact.bytes()?;
        born[slot] = born[slot].checked_add(bytes)?;
        if let Some(sum) = last_use[v.0 as usize].checked_add(1).and_then(|i| dead.get_mut(i)) {
            *sum += bytes;
        }
        Some(())
    };
    for &v in graph.inputs() {
        add(v, 0)?;
    }
    for (i, node) in nodes.iter().enumerate() {
        for v in node.outputs.iter().flatten() {
            add(*v, i + 1)?;
        }
    }
    let mut live = 0u64;
    let mut out = Vec::with_capacity(nodes.len());
    for (slot, (b, d)) in born.iter().zip(&dead).enumerate() {
        live = live.checked_add(*b)?;
        if slot > 0 {
            out.push(live);
        }
        live -= d;
    }
    Some(out)
}
