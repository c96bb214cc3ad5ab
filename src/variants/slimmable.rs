//! Slimmable width: every layer keeps its leading channels (arXiv:1812.08928, arXiv:1903.05134), weights, biases and normalisations cut to
//! match. The model's inputs and outputs keep their sizes.
//!
//! Channels are followed through the graph: what is added must be cut alike, what is joined is cut part by part, what is flattened
//! position by position. Where an operator's way with channels is not known, the channels that reach it stay whole.

use super::draft::Change;
use super::{Choice, Draft, Editor, Entry, Knob, Make, Reason};
use crate::error::Result;
use crate::ir::{Graph, ValueId};
use crate::ops::spec::{Attr, DimSpec, NodeSpec};
use crate::tensor::{DType, Tensor};
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

/// A run of channels that is cut as one: the first so many of it stay.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Run {
    atom: usize,
    /// Entries per channel: more than one where a map was flattened.
    each: usize,
}

/// Channels that belong together.
#[derive(Debug, Clone, Copy)]
struct Atom {
    size: usize,
    same_as: usize,
    whole: bool,
}

/// A tensor to be cut: name, axis, runs along it.
struct Cut {
    tensor: String,
    axis: usize,
    runs: Vec<Run>,
}

#[derive(Default)]
struct Channels {
    atoms: Vec<Atom>,
    /// Channels of values; those that are not here stay whole.
    of: HashMap<String, Vec<Run>>,
    cuts: Vec<Cut>,
    /// Depthwise convolutions, whose groups follow their channels: node and channels.
    depthwise: Vec<(usize, Vec<Run>)>,
    /// Reshapes of maps to rows, whose target names the old size.
    flattened: Vec<usize>,
    /// Layers with weights: node and output channels.
    layers: Vec<(usize, Vec<Run>)>,
    why: HashMap<usize, String>,
}

impl Channels {
    fn root(&self, mut atom: usize) -> usize {
        while self.atoms[atom].same_as != atom {
            atom = self.atoms[atom].same_as;
        }
        atom
    }
    fn make(&mut self, size: usize) -> Vec<Run> {
        let atom = self.atoms.len();
        self.atoms.push(Atom { size, same_as: atom, whole: false });
        vec![Run { atom, each: 1 }]
    }
    fn keep_whole(&mut self, runs: &[Run], why: &str) {
        for run in runs {
            let root = self.root(run.atom);
            self.atoms[root].whole = true;
            self.why.entry(root).or_insert_with(|| why.to_string());
        }
    }
    fn keep_value_whole(&mut self, value: &str, why: &str) {
        if let Some(runs) = self.of.remove(value) {
            self.keep_whole(&runs, why);
        }
    }
    /// Two values that meet element by element: their channels from here on, if they can be cut alike.
    fn meet(&mut self, a: &[Run], b: &[Run], why: &str) -> bool {
        let sizes = |c: &Channels, r: &[Run]| r.iter().map(|r| (c.atoms[r.atom].size, r.each)).collect::<Vec<_>>();
        if sizes(self, a) != sizes(self, b) {
            self.keep_whole(a, why);
            self.keep_whole(b, why);
            return false;
        }
        for (a, b) in a.iter().zip(b) {
            let (a, b) = (self.root(a.atom), self.root(b.atom));
            if a != b {
                self.atoms[b].same_as = a;
                self.atoms[a].whole |= self.atoms[b].whole;
                if let Some(why) = self.why.remove(&b) {
                    self.why.entry(a).or_insert(why);
                }
            }
        }
        true
    }
}

/// Operators that treat every channel alike and by itself.
const PLAIN: &[&str] = &[
    "Relu",
    "LeakyRelu",
    "Sigmoid",
    "HardSigmoid",
    "HardSwish",
    "Tanh",
    "Clip",
    "Elu",
    "Identity",
    "Dropout",
    "Erf",
    "Exp",
    "Sqrt",
    "MaxPool",
    "AveragePool",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "Selu",
    "Softplus",
    "Mish",
    "Gelu",
    "Abs",
    "Neg",
];

struct Walk<'a> {
    graph: &'a Graph,
    values: HashMap<&'a str, ValueId>,
    readers: HashMap<String, usize>,
    stored: HashMap<String, Tensor>,
    channels: Channels,
}

impl Walk<'_> {
    fn dims(&self, v: &str) -> Option<Vec<usize>> {
        self.graph.value(*self.values.get(v)?).fact.shape.concrete()
    }
    fn is_constant(&self, v: &str) -> bool {
        self.values.get(v).is_some_and(|&id| self.graph.value(id).is_static)
    }
    /// A stored float tensor that nobody else reads.
    fn own(&self, v: &str) -> Option<&Tensor> {
        let t = self.stored.get(v).filter(|t| t.dtype() == DType::F32)?;
        (self.readers.get(v) == Some(&1)).then_some(t)
    }
    fn runs(&self, v: &str) -> Option<Vec<Run>> {
        self.channels.of.get(v).cloned()
    }
    fn cut(&mut self, tensor: &str, axis: usize, runs: &[Run]) {
        self.channels.cuts.push(Cut { tensor: tensor.to_string(), axis, runs: runs.to_vec() });
    }
    fn set(&mut self, node: &NodeSpec, runs: Option<Vec<Run>>) {
        if let (Some(runs), Some(y)) = (runs, node.outputs.first()) {
            self.channels.of.insert(y.clone(), runs);
        }
    }

    /// Follows channels through a node; whatever it does not know keeps its channels whole.
    fn node(&mut self, at: usize, node: &NodeSpec) {
        let done = node.domain.is_empty() && self.known(at, node).is_some();
        if !done {
            let why = format!("reaches {} '{}'", node.op_type, node.name);
            for v in &node.inputs {
                self.channels.keep_value_whole(v, &why);
            }
        }
    }

    /// `None` where the operator, or this use of it, is not understood.
    fn known(&mut self, at: usize, node: &NodeSpec) -> Option<()> {
        let x = node.inputs.first()?.clone();
        let op = node.op_type.as_str();
        match op {
            _ if PLAIN.contains(&op) => {
                let runs = self.runs(&x);
                self.set(node, runs);
            }
            "Conv" => self.conv(at, node, &x)?,
            "Gemm" | "MatMul" => self.product(at, node, &x)?,
            "BatchNormalization" => {
                let runs = self.runs(&x)?;
                if node.inputs[1..].iter().any(|p| self.own(p).is_none()) {
                    return None;
                }
                for p in node.inputs[1..].iter().take(4) {
                    self.cut(p, 0, &runs);
                }
                self.set(node, Some(runs));
            }
            "Add" | "Mul" | "Sub" | "Div" => self.combine(node)?,
            "Concat" => {
                let rank = self.dims(&x)?.len() as i64;
                let axis = node.int("axis", 1).ok()?;
                if axis != 1 && axis != 1 - rank {
                    return None;
                }
                let mut all = Vec::new();
                for v in &node.inputs {
                    all.extend(self.runs(v)?);
                }
                self.set(node, Some(all));
            }
            "ReduceMean" => {
                let rank = self.dims(&x)?.len();
                let out = self.dims(node.outputs.first()?)?;
                // Only positions are averaged: the channels are still there.
                let keeps =
                    rank == 4 && out.len() >= 2 && out[1] == self.dims(&x)?[1] && out[2..].iter().all(|d| *d == 1);
                let runs = self.runs(&x)?;
                if !keeps {
                    return None;
                }
                self.set(node, Some(runs));
            }
            "Flatten" | "Reshape" | "Squeeze" => {
                let (from, to) = (self.dims(&x)?, self.dims(node.outputs.first()?)?);
                let runs = self.runs(&x)?;
                let rows = to.len() == 2
                    && from.len() >= 2
                    && to[0] == from[0]
                    && to[1] == from[1..].iter().product::<usize>();
                if !rows {
                    return None;
                }
                let positions: usize = from[2..].iter().product();
                let runs = runs.into_iter().map(|r| Run { each: r.each * positions, ..r }).collect();
                if op == "Reshape" {
                    self.channels.flattened.push(at);
                }
                self.set(node, Some(runs));
            }
            _ => return None,
        }
        Some(())
    }

    fn conv(&mut self, at: usize, node: &NodeSpec, x: &str) -> Option<()> {
        let w = node.inputs.get(1)?.clone();
        let dims = self.own(&w)?.dims().to_vec();
        let group = node.int("group", 1).ok()? as usize;
        let bias = node.inputs.get(2).filter(|b| !b.is_empty()).cloned();
        if bias.as_ref().is_some_and(|b| self.own(b).is_none()) {
            return None;
        }
        let runs = if group == 1 {
            if let Some(runs) = self.runs(x) {
                self.cut(&w, 1, &runs);
            }
            let out = self.channels.make(dims[0]);
            self.channels.layers.push((at, out.clone()));
            out
        } else if dims[1] == 1 && dims[0] == group {
            let runs = self.runs(x)?;
            self.channels.depthwise.push((at, runs.clone()));
            runs
        } else {
            return None;
        };
        self.cut(&w, 0, &runs);
        if let Some(b) = bias {
            self.cut(&b, 0, &runs);
        }
        self.set(node, Some(runs));
        Some(())
    }

    fn product(&mut self, at: usize, node: &NodeSpec, x: &str) -> Option<()> {
        let w = node.inputs.get(1)?.clone();
        let dims = self.own(&w)?.dims().to_vec();
        if dims.len() != 2 || self.dims(x)?.len() != 2 || node.flag("transA", false).ok()? {
            return None;
        }
        let (inputs, outputs) = if node.flag("transB", false).ok()? { (1, 0) } else { (0, 1) };
        let bias = node.inputs.get(2).filter(|b| !b.is_empty()).cloned();
        if bias.as_ref().is_some_and(|b| self.own(b).is_none_or(|t| t.dims() != [dims[outputs]])) {
            return None;
        }
        if let Some(runs) = self.runs(x) {
            self.cut(&w, inputs, &runs);
        }
        let out = self.channels.make(dims[outputs]);
        self.cut(&w, outputs, &out);
        if let Some(b) = bias {
            self.cut(&b, 0, &out);
        }
        self.channels.layers.push((at, out.clone()));
        self.set(node, Some(out));
        Some(())
    }

    fn combine(&mut self, node: &NodeSpec) -> Option<()> {
        let [a, b] = [node.inputs.first()?.clone(), node.inputs.get(1)?.clone()];
        let (constant, data) = match (self.is_constant(&a), self.is_constant(&b)) {
            (true, false) => (Some(a), b),
            (false, true) => (Some(b), a),
            (false, false) => {
                let (da, db) = (self.dims(&a)?, self.dims(&b)?);
                if da.len() != db.len() || da.len() < 2 || da[1] != db[1] {
                    return None;
                }
                let (ra, rb) = (self.runs(&a)?, self.runs(&b)?);
                let alike =
                    self.channels.meet(&ra, &rb, &format!("is combined in '{}' with other channels", node.name));
                self.set(node, alike.then_some(ra));
                return Some(());
            }
            (true, true) => return Some(()),
        };
        let (constant, runs) = (constant?, self.runs(&data)?);
        let (dims, rank) = (self.dims(&constant)?, self.dims(&data)?.len());
        // The channels are axis 1 of the data; the constant's axes are counted from the end.
        if let Some(axis) = (1 + dims.len()).checked_sub(rank)
            && dims.get(axis).is_some_and(|d| *d != 1)
        {
            self.own(&constant)?;
            self.cut(&constant, axis, &runs);
        }
        self.set(node, Some(runs));
        Some(())
    }
}

/// So many of a number of channels: the nearest multiple, never under nine tenths of what was asked for, as MobileNets round.
pub fn kept(size: usize, width: f64, multiple: usize) -> usize {
    let wanted = size as f64 * width;
    // Numbers that are no multiple themselves are rounded to whole channels.
    let step = if size.is_multiple_of(multiple) { multiple } else { 1 };
    let near = ((wanted / step as f64 + 0.5).floor() as usize * step).max(step);
    let near = if (near as f64) < 0.9 * wanted { near + step } else { near };
    near.min(size)
}

fn slim(draft: &mut Draft, choice: &Choice) -> Result<()> {
    let (width, multiple) = (choice.float("width"), choice.size("multiple"));
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
