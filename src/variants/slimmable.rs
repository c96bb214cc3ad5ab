//! Slimmable width: every layer keeps its leading channels (arXiv:1812.08928, arXiv:1903.05134), weights, biases and normalisations cut to
//! match. The model's inputs and outputs keep their sizes.
//!
//! Channels are followed through the graph ([`super::channels`]): what is added must be cut alike, what is joined is cut part by part,
//! what is flattened position by position. Where an operator's way with channels is not known, the channels that reach it stay whole.

use super::channels::{Channels, Run, Walk};
use super::draft::Change;
use super::{Choice, Draft, Editor, Entry, Knob, Make, Reason};
use crate::error::Result;
use crate::ops::spec::{Attr, DimSpec, NodeSpec};
use crate::tensor::Tensor;
use std::collections::{HashMap, HashSet};

/// The table's row.
pub static ENTRY: Entry = Entry {
    name: "slim",
    about: "the leading channels of every layer",
    knobs: &[
        Knob { name: "width", default: 0.5, range: (0.05, 1.0), whole: false, about: "share of channels kept" },
        Knob {
            name: "multiple",
            default: 8.0,
            range: (1.0, 256.0),
            whole: true,
            about: "what numbers of channels are multiples of",
        },
    ],
    make: Make::Model(slim),
};

/// So many of a number of channels: the nearest multiple, never under nine tenths of what was asked for, as MobileNets round.
pub fn kept(size: usize, width: f64, multiple: usize) -> usize {
    let wanted = size as f64 * width;
    // Numbers that are no multiple themselves are rounded to whole channels.
    let step = if size.is_multiple_of(multiple) { multiple } else { 1 };
    let near = ((wanted / step as f64 + 0.5).floor() as usize * step).max(step);
    let near = if (near as f64) < 0.9 * wanted { near + step } else { near };
    near.min(size)
}

/// Exporters keep equal tensors once and write Identity for the others: each gets its own again, since each is cut by itself.
fn part_equals(draft: &mut Draft) {
    let graph = &mut draft.spec.graph;
    let stored: HashMap<String, Tensor> = graph.initializers.iter().cloned().collect();
    let outputs: HashSet<String> = graph.outputs.iter().map(|o| o.name.clone()).collect();
    let mut own = Vec::new();
    graph.nodes.retain(|n| {
        let same = match (n.op_type.as_str(), &n.inputs[..], &n.outputs[..]) {
            ("Identity", [x], [y]) if n.domain.is_empty() && !outputs.contains(y) => stored.get(x).map(|t| (y, t)),
            _ => None,
        };
        own.extend(same.map(|(y, t)| (y.clone(), t.clone())));
        same.is_none()
    });
    graph.initializers.append(&mut own);
}

fn slim(draft: &mut Draft, choice: &Choice) -> Result<()> {
    let (width, multiple) = (choice.float("width"), choice.size("multiple"));
    part_equals(draft);
    let readers = draft.readers();
    let stored: HashMap<String, Tensor> = draft.spec.graph.initializers.iter().cloned().collect();
    let mut walk =
        Walk { graph: &draft.model.graph, values: draft.values(), readers, stored, channels: Channels::default() };
    for (at, node) in draft.spec.graph.nodes.iter().enumerate() {
        walk.node(at, node);
    }
    let outputs: Vec<String> = draft.spec.graph.outputs.iter().map(|v| v.name.clone()).collect();
    for name in &outputs {
        walk.channels.keep_value_whole(name, "is an output of the model");
    }
    // What subgraphs read from outside is not followed.
    for node in &draft.spec.graph.nodes {
        for name in captured(node) {
            walk.channels.keep_value_whole(&name, "is read by a subgraph");
        }
    }
    let Walk { channels, stored, .. } = walk;
    let stay = |run: &Run| {
        let root = channels.root(run.atom);
        let a = channels.atoms[root];
        if a.whole { a.size } else { kept(a.size, width, multiple) }
    };
    let index = |runs: &[Run]| -> Vec<usize> {
        let mut start = 0;
        let mut list = Vec::new();
        for run in runs {
            list.extend(start..start + stay(run) * run.each);
            start += channels.atoms[run.atom].size * run.each;
        }
        list
    };
    let mut made: HashMap<&str, Tensor> = HashMap::new();
    for cut in &channels.cuts {
        let Some(t) = made.get(cut.tensor.as_str()).or_else(|| stored.get(&cut.tensor)).cloned() else { continue };
        let keep = index(&cut.runs);
        if t.dims().get(cut.axis) != Some(&keep.len()) {
            made.insert(&cut.tensor, taken(&t, cut.axis, keep)?);
        }
    }
    let names = draft.names();
    let version = draft.spec.opset("");
    let mut ed = Editor::new("slim", version, &names);
    for (at, runs) in &channels.depthwise {
        let node = &mut draft.spec.graph.nodes[*at];
        node.attrs.insert("group".into(), Attr::Int(index(runs).len() as i64));
    }
    for at in &channels.flattened {
        let shape = ed.ints("rows", &[0, -1])?;
        let node = &mut draft.spec.graph.nodes[*at];
        node.inputs[1] = shape;
        // In the new shape a zero means the batch as it is.
        node.attrs.remove("allowzero");
    }
    // Older files list their constants among the inputs, with sizes.
    for v in &mut draft.spec.graph.inputs {
        if let Some(t) = made.get(v.name.as_str()) {
            v.shape = Some(t.dims().iter().map(|&d| DimSpec::Size(d)).collect());
        }
    }
    for (name, tensor) in &mut draft.spec.graph.initializers {
        if let Some(t) = made.remove(name.as_str()) {
            *tensor = t;
        }
    }
    draft.spec.graph.initializers.append(&mut ed.initializers);
    for (at, runs) in &channels.layers {
        let name = draft.spec.graph.nodes[*at].name.clone();
        let size = channels.atoms[runs[0].atom].size;
        match stay(&runs[0]) {
            n if n < size => draft.changed(Change::of(&name, format!("{size} channels to {n}"))),
            _ => {
                let why = channels.why.get(&channels.root(runs[0].atom)).cloned();
                let why = why.unwrap_or_else(|| "has too few channels".into());
                draft.leave(&name, format!("{size} channels"), Reason::Illegal(format!("its result {why}")));
            }
        }
    }
    Ok(())
}

fn captured(node: &NodeSpec) -> HashSet<String> {
    let mut names = HashSet::new();
    for attr in node.attrs.values() {
        if let Attr::Graph(g) = attr {
            for n in &g.nodes {
                names.extend(n.inputs.iter().cloned());
                names.extend(captured(n));
            }
            names.extend(g.outputs.iter().map(|o| o.name.clone()));
        }
    }
    names
}

/// The entries of a tensor at given places of an axis.
fn taken(t: &Tensor, axis: usize, keep: Vec<usize>) -> Result<Tensor> {
    let mut dims = t.dims().to_vec();
    let size = dims[axis];
    dims[axis] = keep.len();
    let (outer, inner) = (dims[..axis].iter().product::<usize>(), dims[axis + 1..].iter().product::<usize>());
    let t = t.clone();
    Tensor::lazy(&dims, move || {
        let v = t.view::<f32>().map(|v| v.into_owned()).unwrap_or_default();
        let rows = (0..outer).flat_map(|o| keep.iter().map(move |k| (o * size + k) * inner));
        rows.flat_map(|at| v[at..at + inner].iter().copied()).collect::<Vec<f32>>()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_rounded_as_mobilenets_do() {
        assert_eq!((kept(32, 0.5, 8), kept(24, 0.5, 8), kept(16, 0.35, 8), kept(320, 0.35, 8)), (16, 16, 8, 112));
        assert_eq!((kept(1000, 0.5, 8), kept(30, 0.5, 8), kept(64, 1.0, 8), kept(8, 0.1, 8)), (504, 15, 64, 8));
        assert_eq!((kept(64, 0.75, 1), kept(3, 0.05, 1)), (48, 1));
    }

    #[test]
    fn cutting_takes_the_leading_entries_of_every_part() {
        let t = Tensor::from_vec((0..12).map(|v| v as f32).collect(), &[2, 3, 2]).unwrap();
        let cut = taken(&t, 1, vec![0, 2]).unwrap();
        assert_eq!(cut.dims(), [2, 2, 2]);
        assert_eq!(&*cut.view::<f32>().unwrap(), &[0., 1., 4., 5., 6., 7., 10., 11.]);
    }
}
