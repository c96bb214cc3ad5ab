//! Squeeze-and-excitation (arXiv:1709.01507): the map's mean decides, over two small layers, how much of each channel passes. Put in
//! and taken out.
//!
//! `2·C²/r + C/r + C` parameters. It goes to the end of a residual branch, before the addition; in a network without residual
//! connections behind every convolution with a window. A BatchNormalization directly behind the convolution stays in front of it.

use super::draft::Change;
use super::{Choice, Draft, Editor, Entry, Knob, Make, Reason, Site};
use crate::error::Result;
use crate::ops::spec::NodeSpec;
use crate::tensor::DType;
use std::collections::{HashMap, HashSet};

/// The table's row of putting it in.
pub static ENTRY: Entry = Entry {
    name: "se",
    about: "squeeze-and-excitation added",
    knobs: &[Knob {
        name: "reduction",
        default: 16.0,
        range: (1.0, 256.0),
        whole: true,
        about: "of channels between the two layers",
    }],
    make: Make::Model(add),
};

/// The table's row of taking it out.
pub static OFF: Entry =
    Entry { name: "se-off", about: "squeeze-and-excitation taken out", knobs: &[], make: Make::Model(remove) };

/// Fewest channels worth weighing.
const FEW: usize = 16;

fn producers(nodes: &[NodeSpec]) -> HashMap<String, usize> {
    let outputs = nodes.iter().enumerate().flat_map(|(i, n)| n.outputs.iter().map(move |o| (o.clone(), i)));
    outputs.filter(|(o, _)| !o.is_empty()).collect()
}

fn add(draft: &mut Draft, choice: &Choice) -> Result<()> {
    let readers = draft.readers();
    let mut places: Vec<(String, usize)> = Vec::new();
    let mut left: Vec<(String, String, Reason)> = Vec::new();
    {
        let nodes = &draft.spec.graph.nodes;
        let (made_by, values) = (producers(nodes), draft.values());
        let dims = |v: &str| {
            let fact = &draft.model.graph.value(*values.get(v)?).fact;
            fact.shape.concrete().filter(|d| d.len() == 4 && fact.dtype == Some(DType::F32))
        };
        let from_layer = |v: &&String| {
            made_by.get(*v).is_some_and(|&i| matches!(nodes[i].op_type.as_str(), "Conv" | "BatchNormalization"))
        };
        let mut residual = false;
        for node in nodes.iter().filter(|n| n.op_type == "Add" && n.inputs.len() == 2) {
            let (a, b) = (dims(&node.inputs[0]), dims(&node.inputs[1]));
            if a.is_none() || a != b || node.inputs.iter().any(|v| !made_by.contains_key(v)) {
                continue;
            }
            residual = true;
            match node.inputs.iter().find(from_layer) {
                Some(v) if places.iter().any(|(p, _)| p == v) => {}
                Some(v) => places.push((v.clone(), a.map_or(0, |d| d[1]))),
                None => left.push((
                    node.name.clone(),
                    "residual addition".into(),
                    Reason::Unwise("neither side ends in a convolution".into()),
                )),
            }
        }
        if !residual {
            for node in nodes.iter().filter(|n| n.op_type == "Conv" && n.domain.is_empty()) {
                match Site::at(node, &draft.model.graph, &values, &readers) {
                    Ok(s) if s.is_pointwise() && !draft.policy.force => {
                        left.push((s.name.clone(), s.words(), Reason::Unwise("is pointwise".into())));
                    }
                    Ok(s) => {
                        let sole = |n: &&NodeSpec| n.op_type == "BatchNormalization" && n.inputs.first() == Some(&s.y);
                        let norm = nodes.iter().find(sole).filter(|_| readers.get(&s.y) == Some(&1));
                        places.push((norm.map_or(s.y.clone(), |n| n.outputs[0].clone()), s.oc));
                    }
                    Err(reason) => left.push((node.name.clone(), String::new(), reason)),
                }
            }
        }
    }
    for (name, what, reason) in left {
        draft.leave(&name, what, reason);
    }
    let names = draft.names();
    for (value, c) in places {
        let h = c / choice.size("reduction");
        if h == 0 || (c < FEW && !draft.policy.force) {
            draft.leave(&value, format!("{c} channels"), Reason::Unwise("has too few channels to weigh".into()));
            continue;
        }
        let Some(at) = producers(&draft.spec.graph.nodes).get(&value).copied() else { continue };
        let opset = draft.spec.opset("");
        let nodes = &mut draft.spec.graph.nodes;
        let owner = nodes[at].name.clone();
        let mut ed = Editor::new(&owner, opset, &names);
        let raw = ed.unique("before_se");
        nodes[at].outputs.iter_mut().filter(|o| **o == value).for_each(|o| *o = raw.clone());
        let pooled = ed.node("se_mean", "GlobalAveragePool", &[&raw], &[]);
        let (w, b) = (ed.seeded("se_reduce", &[h, c, 1, 1], 2.0)?, ed.bias("se_reduce", h)?);
        let y = ed.conv("se_reduce", &pooled, &w, Some(&b), &super::edit::Window::POINT);
        let y = ed.relu("se_relu", &y);
        let (w, b) = (ed.seeded("se_expand", &[c, h, 1, 1], 1.0)?, ed.bias("se_expand", c)?);
        let y = ed.conv("se_expand", &y, &w, Some(&b), &super::edit::Window::POINT);
        let gate = ed.node("se_gate", "Sigmoid", &[&y], &[]);
        let y = ed.node("se_scale", "Mul", &[&raw, &gate], &[]);
        ed.finish(&y, &value)?;
        let Editor { nodes: new, initializers, .. } = ed;
        draft.spec.graph.nodes.splice(at + 1..at + 1, new);
        draft.spec.graph.initializers.extend(initializers);
        draft.changed(Change::of(&owner, format!("{c} channels weighed over {h}")));
    }
    Ok(())
}

/// Most nodes of an excitation.
const LONGEST: usize = 24;

fn remove(draft: &mut Draft, _: &Choice) -> Result<()> {
    let mut found: Vec<(String, String, String)> = Vec::new();
    let mut left = Vec::new();
    {
        let nodes = &draft.spec.graph.nodes;
        let (made_by, values) = (producers(nodes), draft.values());
        let dims = |v: &str| draft.model.graph.value(*values.get(v)?).fact.shape.concrete();
        let is_constant = |v: &str| values.get(v).is_none_or(|&id| draft.model.graph.value(id).is_static);
        // Whether everything a gate depends on is the mean of x.
        let is_gate = |gate: &str, x: &str| {
            let (mut todo, mut seen, mut pooled) = (vec![gate.to_string()], HashSet::new(), false);
            while let Some(v) = todo.pop() {
                if v.is_empty() || is_constant(&v) || !seen.insert(v.clone()) {
                    continue;
                }
                let Some(&i) = made_by.get(&v) else { return false };
                let node = &nodes[i];
                let means = matches!(node.op_type.as_str(), "GlobalAveragePool" | "ReduceMean");
                if means && node.inputs.first().is_some_and(|n| n == x) {
                    pooled = true;
                } else if seen.len() > LONGEST {
                    return false;
                } else {
                    todo.extend(node.inputs.iter().cloned());
                }
            }
            pooled
        };
        for node in nodes.iter().filter(|n| n.op_type == "Mul" && n.inputs.len() == 2) {
            for (x, gate) in [(0, 1), (1, 0)].map(|(a, b)| (&node.inputs[a], &node.inputs[b])) {
                let shapes = dims(x).zip(dims(gate)).filter(|(x, g)| x.len() == 4 && g.len() == 4);
                let fits = shapes.is_some_and(|(x, g)| g[..2] == x[..2] && g[2..] == [1, 1] && x[2..] != [1, 1]);
                if !fits || !is_gate(gate, x) {
                    continue;
                }
                if draft.spec.graph.outputs.iter().any(|o| o.name == node.outputs[0]) {
                    left.push(node.name.clone());
                } else {
                    found.push((node.name.clone(), node.outputs[0].clone(), x.clone()));
                }
                break;
            }
        }
    }
    for name in left {
        draft.leave(&name, "squeeze-and-excitation", Reason::Illegal("its result is an output of the model".into()));
    }
    if found.is_empty() {
        draft.leave("model", "", Reason::Illegal("has no squeeze-and-excitation".into()));
    }
    let mut renamed: HashMap<String, String> = HashMap::new();
    for (name, y, x) in found {
        // One taken out before may have made this one's input.
        let x = renamed.get(&x).cloned().unwrap_or(x);
        for node in &mut draft.spec.graph.nodes {
            node.inputs.iter_mut().filter(|i| **i == y).for_each(|i| *i = x.clone());
        }
        draft.changed(Change::of(&name, "taken out"));
        renamed.insert(y, x);
    }
    Ok(())
}
