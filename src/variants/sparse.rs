//! 2:4 sparsity: of every four consecutive input channels the two smallest weights are set to zero.
//!
//! Stored with two-bit indices that takes 53.1 % of the float bytes (56.25 % in half precision) and half of the multiply-adds on
//! hardware that has it. The file stays dense, as ONNX has no other form, and so do its counts: what is saved is said beside them.

use super::draft::Change;
use super::{Choice, Draft, Entry, Make, Reason};
use crate::error::Result;
use crate::ops::spec::NodeSpec;
use crate::tensor::{DType, Tensor};
use std::collections::{HashMap, HashSet};

/// The table's row.
pub static ENTRY: Entry = Entry {
    name: "sparse-2-4",
    about: "two of four weights pruned by magnitude",
    knobs: &[],
    make: Make::Model(prune),
};

/// Where the inputs of a product lie in its weights: blocks of `outer × inputs × inner` numbers.
#[derive(Clone, Copy)]
struct Layout {
    outer: usize,
    inputs: usize,
    inner: usize,
}

/// A product with weights.
fn is_product(node: &NodeSpec) -> bool {
    node.domain.is_empty() && matches!(node.op_type.as_str(), "Conv" | "Gemm" | "MatMul")
}

fn prune(draft: &mut Draft, _: &Choice) -> Result<()> {
    let mut done: HashSet<String> = HashSet::new();
    let readers = draft.readers();
    let mut products: HashMap<String, usize> = HashMap::new();
    for node in draft.spec.graph.nodes.iter().filter(|n| is_product(n)) {
        *products.entry(node.inputs.get(1).cloned().unwrap_or_default()).or_default() += 1;
    }
    for at in 0..draft.spec.graph.nodes.len() {
        let node = &draft.spec.graph.nodes[at];
        if !is_product(node) {
            continue;
        }
        let (name, op) = (node.name.clone(), node.op_type.clone());
        let Some(weight) = node.inputs.get(1).cloned() else { continue };
        let turned = node.flag("transB", false)?;
        let Some(tensor) = draft.constant(&weight).cloned() else {
            draft.leave(&name, op, Reason::Illegal("its weights are not stored as an initializer".into()));
            continue;
        };
        let dims = tensor.dims().to_vec();
        let layout = match (op.as_str(), &dims[..]) {
            ("Conv", [oc, ic, window @ ..]) => Layout { outer: *oc, inputs: *ic, inner: window.iter().product() },
            ("Gemm", [n, k]) if turned => Layout { outer: *n, inputs: *k, inner: 1 },
            (_, [outer @ .., k, n]) => Layout { outer: outer.iter().product(), inputs: *k, inner: *n },
            _ => continue,
        };
        let what = format!("{op} of {} inputs", layout.inputs);
        let reason = match () {
            () if tensor.dtype() != DType::F32 => Some(format!("its weights are {}", tensor.dtype())),
            () if readers.get(&weight) > products.get(&weight) => {
                Some("its weights are read elsewhere too, where they must stay".to_string())
            }
            () if layout.inputs == 1 => Some("is depthwise: there are no input channels to choose from".to_string()),
            () if !layout.inputs.is_multiple_of(4) => Some(format!("{} inputs are no multiple of 4", layout.inputs)),
            () => None,
        };
        if let Some(reason) = reason {
            draft.leave(&name, what, Reason::Illegal(reason));
            continue;
        }
        if done.insert(weight.clone()) {
            let pruned = Tensor::lazy(&dims, move || pruned(&tensor, layout))?;
            let slot = draft.spec.graph.initializers.iter_mut().find(|(n, _)| *n == weight);
            slot.into_iter().for_each(|s| s.1 = pruned.clone());
        }
        draft.changed(Change::of(&name, what));
    }
    Ok(())
}

fn pruned(tensor: &Tensor, l: Layout) -> Vec<f32> {
    let mut w = tensor.view::<f32>().map(|v| v.into_owned()).unwrap_or_default();
    for block in w.chunks_exact_mut((l.inputs * l.inner).max(1)).take(l.outer) {
        for i in 0..l.inner {
            for group in 0..l.inputs / 4 {
                let mut at: [usize; 4] = std::array::from_fn(|k| (group * 4 + k) * l.inner + i);
                at.sort_by(|a, b| block[*a].abs().total_cmp(&block[*b].abs()));
                at[..2].iter().for_each(|&k| block[k] = 0.0);
            }
        }
    }
    w
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_smallest_of_four_inputs_vanish() {
        // Two outputs of four inputs each, one tap.
        let t = Tensor::from_vec(vec![1.0f32, -3.0, 2.0, 0.5, -1.0, -2.0, -3.0, -4.0], &[2, 4, 1, 1]).unwrap();
        let l = Layout { outer: 2, inputs: 4, inner: 1 };
        assert_eq!(pruned(&t, l), [0.0, -3.0, 2.0, 0.0, 0.0, 0.0, -3.0, -4.0]);
        // The same numbers as a matrix of four inputs to two outputs: columns are outputs.
        let l = Layout { outer: 1, inputs: 4, inner: 2 };
        assert_eq!(pruned(&t, l), [0.0, -3.0, 2.0, 0.0, 0.0, 0.0, -3.0, -4.0]);
    }
}
