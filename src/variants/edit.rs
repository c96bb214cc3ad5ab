//! Writes nodes and weights into a model: what blocks are built with.

use super::Site;
use crate::error::{Error, Result};
use crate::ops::spec::{Attr, NodeSpec};
use crate::ops::window::Axis;
use crate::tensor::Tensor;
use crate::zoo::seed::{self, Fill};
use std::collections::HashSet;

/// How much new weights amplify.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Gain {
    /// The variance stays as it is.
    Unit,
    /// Inside a block, behind a ReLU, which halves the mean square.
    AfterRelu,
    /// At the end of a block: as much as the convolution that is replaced.
    Closing,
    /// At the end of a block, behind a ReLU.
    ClosingAfterRelu,
    /// A fixed share of the variance.
    Share(f32),
}

/// Nodes and constants to be put into a model.
#[derive(Debug, Default)]
pub struct Editor<'a> {
    /// New nodes, in order.
    pub nodes: Vec<NodeSpec>,
    /// New constants.
    pub initializers: Vec<(String, Tensor)>,
    prefix: String,
    opset: i64,
    taken: Option<&'a HashSet<String>>,
    own: HashSet<String>,
}

/// Where a convolution looks.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// Kernel height and width.
    pub k: [usize; 2],
    /// Strides.
    pub s: [usize; 2],
    /// Dilations.
    pub d: [usize; 2],
    /// Pads: top, left, bottom, right.
    pub pads: [usize; 4],
    /// Groups.
    pub group: usize,
}

impl Window {
    /// One position.
    pub const POINT: Window = Window { k: [1, 1], s: [1, 1], d: [1, 1], pads: [0; 4], group: 1 };
    /// The window of a convolution.
    pub fn of(axes: &[Axis; 2]) -> Window {
        let [a, b] = axes;
        Window { k: [a.k, b.k], s: [a.s, b.s], d: [a.d, b.d], pads: [a.begin, b.begin, a.end, b.end], group: 1 }
    }
    /// With groups.
    #[must_use]
    pub fn groups(self, group: usize) -> Window {
        Window { group, ..self }
    }
    /// A square window of odd size that keeps the size of the map.
    pub fn same(k: usize) -> Window {
        Window { k: [k, k], pads: [(k - 1) / 2; 4], ..Window::POINT }
    }
    /// As attributes of a node.
    pub fn attrs(&self) -> Vec<(&'static str, Attr)> {
        let ints = |v: &[usize]| Attr::Ints(v.iter().map(|&v| v as i64).collect());
        vec![
            ("dilations", ints(&self.d)),
            ("group", Attr::Int(self.group as i64)),
            ("kernel_shape", ints(&self.k)),
            ("pads", ints(&self.pads)),
            ("strides", ints(&self.s)),
        ]
    }
}

impl<'a> Editor<'a> {
    /// Writes under a path, avoiding names that are taken.
    pub fn new(prefix: &str, opset: i64, taken: &'a HashSet<String>) -> Editor<'a> {
        Editor { prefix: prefix.to_string(), opset, taken: Some(taken), ..Editor::default() }
    }

    /// A name under the path that nobody has.
    pub fn unique(&mut self, suffix: &str) -> String {
        let base = format!("{}/{suffix}", self.prefix);
        let mut name = base.clone();
        let mut n = 1;
        while self.taken.is_some_and(|t| t.contains(&name)) || !self.own.insert(name.clone()) {
            n += 1;
            name = format!("{base}_{n}");
        }
        name
    }

    /// A constant; gives its name.
    pub fn constant(&mut self, role: &str, tensor: Tensor) -> String {
        let name = self.unique(role);
        self.initializers.push((name.clone(), tensor));
        name
    }

    /// A list of integers as a constant.
    pub fn ints(&mut self, role: &str, values: &[i64]) -> Result<String> {
        Ok(self.constant(role, Tensor::from_vec(values.to_vec(), &[values.len()])?))
    }

    /// A node with one output; gives the output's name.
    pub fn node(&mut self, role: &str, op: &str, inputs: &[&str], attrs: &[(&str, Attr)]) -> String {
        let name = self.unique(role);
        let output = self.unique(&format!("{role}_out"));
        self.nodes.push(NodeSpec {
            name,
            op_type: op.into(),
            inputs: inputs.iter().map(ToString::to_string).collect(),
            outputs: vec![output.clone()],
            attrs: attrs.iter().map(|(k, v)| (k.to_string(), v.clone())).collect(),
            opset: self.opset,
            ..NodeSpec::default()
        });
        output
    }

    /// A convolution with the given weights and bias (names).
    pub fn conv(&mut self, role: &str, x: &str, w: &str, bias: Option<&str>, window: &Window) -> String {
        let inputs: Vec<&str> = [x, w].into_iter().chain(bias).collect();
        self.node(role, "Conv", &inputs, &window.attrs())
    }

    /// A ReLU.
    pub fn relu(&mut self, role: &str, x: &str) -> String {
        self.node(role, "Relu", &[x], &[])
    }

    /// Channels `from..to` of a map of any rank.
    pub fn channels(&mut self, role: &str, x: &str, from: usize, to: usize) -> Result<String> {
        let (from, to) = (from as i64, to as i64);
        if self.opset < 10 {
            let attrs =
                [("axes", Attr::Ints(vec![1])), ("ends", Attr::Ints(vec![to])), ("starts", Attr::Ints(vec![from]))];
            return Ok(self.node(role, "Slice", &[x], &attrs));
        }
        let starts = self.ints(&format!("{role}_from"), &[from])?;
        let ends = self.ints(&format!("{role}_to"), &[to])?;
        let axes = self.ints(&format!("{role}_axis"), &[1])?;
        Ok(self.node(role, "Slice", &[x, &starts, &ends, &axes], &[]))
    }

    /// New weights `dims`, seeded by their name; `Closing` ones amplify as the site's do, which is looked up when they are made.
    pub fn weights(&mut self, role: &str, site: &Site, dims: &[usize], gain: Gain) -> Result<String> {
        let name = self.unique(&format!("{role}.weight"));
        let fan_in: usize = dims[1..].iter().product();
        let (scale, of_site) = match gain {
            Gain::Unit => (1.0, false),
            Gain::AfterRelu => (2.0, false),
            Gain::Closing => (1.0, true),
            Gain::ClosingAfterRelu => (2.0, true),
            Gain::Share(share) => (share, false),
        };
        let (original, seeded, count) = (site.weight.clone(), name.clone(), dims.iter().product());
        let tensor = Tensor::lazy(dims, move || {
            let gain = if of_site { amplification(&original) } else { 1.0 };
            seed::values(&seeded, count, Fill::scaled(scale * gain, fan_in))
        })?;
        self.initializers.push((name.clone(), tensor));
        Ok(name)
    }

    /// New weights `dims` that belong to no site: `share` of the variance that goes in comes out.
    pub fn seeded(&mut self, role: &str, dims: &[usize], share: f32) -> Result<String> {
        let name = self.unique(&format!("{role}.weight"));
        let fan_in: usize = dims[1..].iter().product();
        self.initializers.push((name.clone(), seed::tensor(&name, dims, Fill::scaled(share, fan_in))?));
        Ok(name)
    }

    /// A seeded bias.
    pub fn bias(&mut self, role: &str, n: usize) -> Result<String> {
        let name = self.unique(&format!("{role}.bias"));
        self.initializers.push((name.clone(), seed::tensor(&name, &[n], Fill::Within(0.1))?));
        Ok(name)
    }

    /// Elements `from..to` of the site's bias as a bias of its own, zeros beyond its end; `None` where it has none.
    pub fn part_of_bias(&mut self, role: &str, site: &Site, from: usize, to: usize) -> Result<Option<String>> {
        let Some((_, bias)) = site.bias.clone() else { return Ok(None) };
        let part = Tensor::lazy(&[to - from], move || {
            let all = bias.view::<f32>().map(|v| v.into_owned()).unwrap_or_default();
            (from..to).map(|i| all.get(i).copied().unwrap_or(0.0)).collect::<Vec<f32>>()
        })?;
        Ok(Some(self.constant(&format!("{role}.bias"), part)))
    }

    /// Says that a value is the block's result: it takes the name of the site's output.
    ///
    /// # Errors
    /// If no node made it.
    pub fn finish(&mut self, value: &str, y: &str) -> Result<()> {
        let node = self.nodes.iter_mut().rev().find(|n| n.outputs.iter().any(|o| o == value));
        let node = node.ok_or_else(|| Error::run(format!("'{value}' is made by no node of the block")))?;
        node.outputs.iter_mut().filter(|o| *o == value).for_each(|o| *o = y.to_string());
        Ok(())
    }
}

/// By how much a layer amplifies a variance: the mean square of its weights times the number of products in a sum.
fn amplification(weights: &Tensor) -> f32 {
    let Ok(w) = weights.view::<f32>() else { return 1.0 };
    let fan_in: usize = weights.dims().get(1..).map_or(1, |d| d.iter().product());
    let square = w.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>() / w.len().max(1) as f64;
    let gain = (square * fan_in as f64) as f32;
    if gain.is_finite() && gain > 0.0 { gain } else { 1.0 }
}
