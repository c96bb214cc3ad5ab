//! Follows channels through a graph: which run together, which stay whole and why, and along which axes weights are cut with them.

use crate::ir::{Graph, ValueId};
use crate::ops::spec::NodeSpec;
use crate::tensor::{DType, Tensor};
use std::collections::HashMap;

/// A run of channels that is cut as one: the first so many of it stay.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Run {
    pub(super) atom: usize,
    /// Entries per channel: more than one where a map was flattened.
    pub(super) each: usize,
}

/// Channels that belong together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Atom {
    pub(super) size: usize,
    pub(super) same_as: usize,
    pub(super) whole: bool,
}

/// A tensor to be cut: name, axis, runs along it.
pub(super) struct Cut {
    pub(super) tensor: String,
    pub(super) axis: usize,
    pub(super) runs: Vec<Run>,
}

#[derive(Default)]
pub(super) struct Channels {
    pub(super) atoms: Vec<Atom>,
    /// Channels of values; those that are not here stay whole.
    pub(super) of: HashMap<String, Vec<Run>>,
    pub(super) cuts: Vec<Cut>,
    /// Depthwise convolutions, whose groups follow their channels: node and channels.
    pub(super) depthwise: Vec<(usize, Vec<Run>)>,
    /// Reshapes of maps to rows, whose target names the old size.
    pub(super) flattened: Vec<usize>,
    /// Layers with weights: node and output channels.
    pub(super) layers: Vec<(usize, Vec<Run>)>,
    pub(super) why: HashMap<usize, String>,
}

impl Channels {
    pub(super) fn root(&self, mut atom: usize) -> usize {
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
    pub(super) fn keep_value_whole(&mut self, value: &str, why: &str) {
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

pub(super) struct Walk<'a> {
    pub(super) graph: &'a Graph,
    pub(super) values: HashMap<&'a str, ValueId>,
    pub(super) readers: HashMap<String, usize>,
    pub(super) stored: HashMap<String, Tensor>,
    pub(super) channels: Channels,
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
    pub(super) fn node(&mut self, at: usize, node: &NodeSpec) {
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
                // Where a maximum was found counts channels too.
                if node.outputs.iter().skip(1).any(|o| self.readers.contains_key(o)) {
                    return None;
                }
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
