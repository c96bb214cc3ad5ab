//! The builder the blocks write with: values with sizes in, nodes and seeded weights out.
//!
//! Names follow the module hierarchy as exporters write them: the module path `features.1.conv.0` owns the weight
//! `features.1.conv.0.weight` and the node `features.1/conv.0/Conv`.

use super::seed::{self, Fill};
use super::slimmable::Switch;
use crate::error::{Error, Result};
use crate::ops::spec::{Attr, DimSpec, GraphSpec, Header, ModelSpec, NodeSpec, ValueSpec};
use crate::tensor::{Container, DType, Tensor};
use std::collections::{HashMap, HashSet};

/// The opset the zoo's graphs are written in.
pub const OPSET: i64 = 18;

/// A value on its way through a network: its name in the graph, and its sizes.
#[derive(Debug, Clone)]
pub struct Value {
    /// Name in the graph.
    pub name: String,
    /// Sizes: N, C, H, W for images; N, S, H for sequences.
    pub dims: Vec<usize>,
}

impl Value {
    /// Channels of an image.
    pub fn c(&self) -> usize {
        self.dims.get(1).copied().unwrap_or(1)
    }
    /// The last dim: features of a sequence or a matrix.
    pub fn features(&self) -> usize {
        self.dims.last().copied().unwrap_or(1)
    }
}

/// A convolution's attributes. Padding is (k-1)/2 unless set.
#[derive(Debug, Clone, Copy)]
pub struct Conv {
    kernel: [usize; 2],
    stride: usize,
    pad: [usize; 2],
    groups: usize,
    bias: bool,
    gain: f32,
}

impl Conv {
    /// A `k` x `k` convolution.
    pub fn of(k: usize) -> Conv {
        Conv::rect(k, k)
    }
    /// A `kh` x `kw` convolution.
    pub fn rect(kh: usize, kw: usize) -> Conv {
        let half = |k: usize| k.saturating_sub(1) / 2;
        Conv { kernel: [kh, kw], stride: 1, pad: [half(kh), half(kw)], groups: 1, bias: false, gain: 2.0 }
    }
    /// With a stride.
    pub fn stride(self, stride: usize) -> Conv {
        Conv { stride, ..self }
    }
    /// With another padding on all sides.
    pub fn pad(self, pad: usize) -> Conv {
        Conv { pad: [pad; 2], ..self }
    }
    /// With groups.
    pub fn groups(self, groups: usize) -> Conv {
        Conv { groups, ..self }
    }
    /// With a bias (or not).
    pub fn bias(self, bias: bool) -> Conv {
        Conv { bias, ..self }
    }
    /// Not followed by a rectifier: weights are scaled to keep the variance as it is.
    pub fn linear(self) -> Conv {
        Conv { gain: 1.0, ..self }
    }
    /// With weights of another variance: so many times as much.
    pub fn gained(self, by: f32) -> Conv {
        Conv { gain: self.gain * by, ..self }
    }
    /// Its groups.
    pub fn groups_of(&self) -> usize {
        self.groups
    }
    /// Sizes of its weights, from `c` channels to `out`.
    pub fn weight_dims(&self, c: usize, out: usize) -> [usize; 4] {
        [out, c / self.groups.max(1), self.kernel[0], self.kernel[1]]
    }
    /// How its weights are filled, from `c` channels.
    pub fn fill(&self, c: usize) -> Fill {
        Fill::scaled(self.gain, self.weight_dims(c, 1)[1..].iter().product())
    }
    /// Height and width of its result.
    fn sizes(&self, path: &str, [h, w]: [usize; 2]) -> Result<[usize; 2]> {
        let side = |i: usize, size: usize| slide(path, size, self.kernel[i], self.stride, self.pad[i], false);
        Ok([side(0, h)?, side(1, w)?])
    }
    fn attrs(&self, groups: usize) -> [(&'static str, Attr); 5] {
        let ([ph, pw], s) = (self.pad, self.stride);
        [
            ("dilations", ints(&[1, 1])),
            ("group", Attr::Int(groups as i64)),
            ("kernel_shape", ints(&self.kernel)),
            ("pads", ints(&[ph, pw, ph, pw])),
            ("strides", ints(&[s, s])),
        ]
    }
}

/// A pooling window.
#[derive(Debug, Clone, Copy)]
pub struct Pool {
    /// Window side.
    pub k: usize,
    /// Stride.
    pub s: usize,
    /// Padding on all sides.
    pub p: usize,
    /// Whether a last, partial window counts.
    pub ceil: bool,
}

/// An activation, written as exporters write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Nothing.
    None,
    /// Relu.
    Relu,
    /// Clip to 0..6.
    Relu6,
    /// HardSwish.
    HardSwish,
    /// HardSigmoid with slope 1/6.
    HardSigmoid,
    /// Sigmoid.
    Sigmoid,
    /// x · sigmoid(x): Sigmoid and Mul.
    Silu,
    /// x · Φ(x) with Erf.
    Gelu,
    /// The tanh approximation of GELU.
    GeluTanh,
    /// Tanh.
    Tanh,
}

impl Act {
    /// The activation a definition names.
    ///
    /// # Errors
    /// If there is no such activation.
    pub fn named(name: &str) -> Result<Act> {
        Ok(match name {
            "none" => Act::None,
            "relu" => Act::Relu,
            "relu6" => Act::Relu6,
            "hardswish" => Act::HardSwish,
            "hardsigmoid" => Act::HardSigmoid,
            "sigmoid" => Act::Sigmoid,
            "silu" => Act::Silu,
            "gelu" => Act::Gelu,
            "gelu_tanh" => Act::GeluTanh,
            "tanh" => Act::Tanh,
            other => return Err(Error::input(format!("the zoo knows no activation '{other}'"))),
        })
    }
}

/// A network being written.
#[derive(Debug)]
pub struct Net {
    graph: GraphSpec,
    nodes_named: HashMap<String, usize>,
    constants: HashSet<String>,
    counter: usize,
    opset: i64,
    /// Of a slimmable network: the switch in force.
    switch: Option<Switch>,
    /// The share of a weight's inputs that the last convolution used.
    share: f32,
}

impl Default for Net {
    fn default() -> Net {
        Net {
            graph: GraphSpec::default(),
            nodes_named: HashMap::new(),
            constants: HashSet::new(),
            counter: 0,
            opset: OPSET,
            switch: None,
            share: 1.0,
        }
    }
}

impl Net {
    /// Nothing yet; of a slimmable network, at one of its switches.
    pub fn at(switch: Option<Switch>) -> Net {
        Net { switch, ..Net::default() }
    }

    /// The path of the next leaf module: `{+}` becomes a running number.
    pub fn leaf(&mut self, path: &str) -> String {
        if !path.contains("{+}") {
            return path.to_string();
        }
        self.counter += 1;
        path.replace("{+}", &(self.counter - 1).to_string())
    }

    /// The path of the next block: `{i}` becomes a running number shared with [`Net::leaf`].
    pub fn numbered(&mut self, path: &str) -> String {
        self.leaf(&path.replace("{i}", "{+}"))
    }

    /// Declares a graph input.
    pub fn input(&mut self, name: &str, dtype: DType, dims: &[usize]) -> Value {
        self.graph.inputs.push(declared(name, dtype, dims));
        Value { name: name.into(), dims: dims.to_vec() }
    }

    /// Declares a graph output; the value goes by that name from here on.
    pub fn output(&mut self, value: &Value, name: &str) -> Value {
        for node in &mut self.graph.nodes {
            for port in node.outputs.iter_mut().chain(&mut node.inputs) {
                if *port == value.name {
                    *port = name.into();
                }
            }
        }
        self.graph.outputs.push(declared(name, DType::F32, &value.dims));
        Value { name: name.into(), dims: value.dims.clone() }
    }

    /// The finished model.
    pub fn finish(mut self, name: &str) -> ModelSpec {
        self.graph.name = name.into();
        for node in &mut self.graph.nodes {
            node.opset = self.opset;
        }
        ModelSpec {
            graph: self.graph,
            opsets: vec![(String::new(), self.opset)],
            // Operator set 19 came with version 9 of the file format.
            ir_version: if self.opset > OPSET { 9 } else { 8 },
            producer: ("madd-prof".into(), env!("CARGO_PKG_VERSION").into()),
            metadata: vec![("zoo".into(), name.into())],
            notes: Vec::new(),
            has_external_data: false,
            data_files: Vec::new(),
            header: Header::default(),
        }
    }

    // --- constants ---------------------------------------------------------------------------------------------------

    /// A learned tensor; asking twice for a name gives the same one.
    pub fn weight(&mut self, name: &str, dims: &[usize], fill: Fill) -> Result<String> {
        if self.constants.insert(name.into()) {
            let tensor = match &self.switch {
                Some(switch) => switch.tensor(name, dims, fill)?,
                None => seed::tensor(name, dims, fill)?,
            };
            self.graph.initializers.push((name.into(), tensor));
        }
        Ok(name.into())
    }

    /// Names and sizes of its learned tensors.
    pub fn stored(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.graph.initializers.iter().map(|(name, t)| (name.as_str(), t.dims()))
    }

    /// A constant that nobody learned.
    pub fn constant(&mut self, name: &str, tensor: impl FnOnce() -> Result<Tensor>) -> Result<String> {
        if self.constants.insert(name.into()) {
            self.graph.initializers.push((name.into(), tensor()?));
        }
        Ok(name.into())
    }

    /// A scalar setting.
    pub fn scalar(&mut self, value: f32) -> Result<String> {
        self.constant(&format!("scalar_{value}"), || Ok(Tensor::scalar(value)))
    }

    /// A list of integers: a shape, axes, split sizes.
    pub fn ints(&mut self, values: &[i64]) -> Result<String> {
        let name = values.iter().fold("ints".to_string(), |name, v| format!("{name}_{v}"));
        self.constant(&name, || Tensor::from_vec(values.to_vec(), &[values.len()]))
    }

    // --- nodes -------------------------------------------------------------------------------------------------------

    /// A node with several outputs of the given sizes.
    pub fn nodes(
        &mut self,
        path: &str,
        op: &str,
        inputs: &[&str],
        attrs: &[(&str, Attr)],
        outputs: &[Vec<usize>],
    ) -> Vec<Value> {
        let base = format!("{}/{op}", scope(path));
        let seen = self.nodes_named.entry(base.clone()).or_insert(0);
        let name = if *seen == 0 { base } else { format!("{base}_{seen}") };
        *seen += 1;
        let values: Vec<Value> = outputs
            .iter()
            .enumerate()
            .map(|(i, dims)| Value { name: format!("{name}_output_{i}"), dims: dims.clone() })
            .collect();
        self.graph.nodes.push(NodeSpec {
            name,
            op_type: op.into(),
            inputs: inputs.iter().map(ToString::to_string).collect(),
            outputs: values.iter().map(|v| v.name.clone()).collect(),
            attrs: attrs.iter().map(|(k, v)| (k.to_string(), v.clone())).collect(),
            opset: OPSET,
            ..NodeSpec::default()
        });
        values
    }

    /// A node with one output.
    pub fn node(&mut self, path: &str, op: &str, inputs: &[&str], attrs: &[(&str, Attr)], dims: &[usize]) -> Value {
        let mut values = self.nodes(path, op, inputs, attrs, &[dims.to_vec()]);
        values.swap_remove(0)
    }

    /// A node that several blocks share: asking for the same operator at the same path again gives the first one.
    pub fn once(&mut self, path: &str, op: &str, inputs: &[&str], dims: &[usize]) -> Value {
        self.once_with(path, op, inputs, &[], dims)
    }

    /// [`Net::once`] with attributes.
    pub fn once_with(
        &mut self,
        path: &str,
        op: &str,
        inputs: &[&str],
        attrs: &[(&str, Attr)],
        dims: &[usize],
    ) -> Value {
        let name = format!("{}/{op}", scope(path));
        if self.nodes_named.contains_key(&name) {
            return Value { name: format!("{name}_output_0"), dims: dims.to_vec() };
        }
        self.node(path, op, inputs, attrs, dims)
    }

    /// A convolution.
    pub fn conv(&mut self, x: &Value, path: &str, out: usize, conv: Conv) -> Result<Value> {
        let &[n, c, h, w] = &x.dims[..] else { return Err(not_an_image(path, x)) };
        let Conv { groups, bias, .. } = conv;
        if out == 0 {
            return Err(Error::usage(format!("the network is too narrow: at {path} no channel is left"))
                .hint("ask for a larger `width`"));
        }
        if groups == 0 || !c.is_multiple_of(groups) || !out.is_multiple_of(groups) {
            return Err(Error::usage(format!("{path}: {c} channels to {out} do not split into {groups} groups")));
        }
        let name = format!("{path}.weight");
        let mut fill = conv.fill(c);
        self.share = 1.0;
        if let Some(full) = self.switch.as_ref().and_then(|s| s.full.get(&name)) {
            // One set of weights for all widths, scaled for the widest; normalisations make up for it.
            let all: usize = full[1..].iter().product();
            self.share = conv.weight_dims(c, out)[1..].iter().product::<usize>() as f32 / all as f32;
            fill = Fill::scaled(conv.gain, all);
        }
        let weight = self.weight(&name, &conv.weight_dims(c, out), fill)?;
        let bias = match bias {
            true => Some(self.weight(&format!("{path}.bias"), &[out], Fill::Within(0.1))?),
            false => None,
        };
        let sizes = conv.sizes(path, [h, w])?;
        let inputs: Vec<&str> = [&x.name, &weight].into_iter().chain(&bias).map(String::as_str).collect();
        Ok(self.node(path, "Conv", &inputs, &conv.attrs(groups), &[n, out, sizes[0], sizes[1]]))
    }

    /// A convolution whose `[out, in / groups, kh, kw]` weights are computed; one set of `groups` for each image of a batch.
    pub fn conv_computed(&mut self, x: &Value, path: &str, weight: &Value, conv: Conv) -> Result<Value> {
        let &[n, c, h, w] = &x.dims[..] else { return Err(not_an_image(path, x)) };
        let sizes = conv.sizes(path, [h, w])?;
        let all = weight.dims[0];
        // Images side by side as groups of one.
        let side = if n == 1 { x.clone() } else { self.reshape(x, &[1, n * c, h, w], path)? };
        let dims = [1, all, sizes[0], sizes[1]];
        let y = self.node(path, "Conv", &[&side.name, &weight.name], &conv.attrs(conv.groups * n), &dims);
        if n == 1 { Ok(y) } else { self.reshape(&y, &[n, all / n, sizes[0], sizes[1]], path) }
    }

    /// A deformable convolution with its offsets and, in the second version, weights of the samples.
    pub fn deform_conv(&mut self, x: &Value, path: &str, out: usize, conv: Conv, modulated: bool) -> Result<Value> {
        let &[n, c, h, w] = &x.dims[..] else { return Err(not_an_image(path, x)) };
        self.opset = self.opset.max(19);
        let [kh, kw] = conv.kernel;
        let (taps, sizes) = (kh * kw, conv.sizes(path, [h, w])?);
        let all = if modulated { 3 * taps } else { 2 * taps };
        // Offsets of a pixel or so, as after training: small weights, no bias to begin with.
        let told = Conv { gain: 0.1, groups: 1, bias: true, ..conv };
        let told = self.conv(x, &format!("{path}.conv_offset"), all, told)?;
        let weight = self.weight(&format!("{path}.weight"), &conv.weight_dims(c, out), conv.fill(c))?;
        let mut attrs = conv.attrs(conv.groups).to_vec();
        attrs.push(("offset_group", Attr::Int(1)));
        let dims = [n, out, sizes[0], sizes[1]];
        if !modulated {
            return Ok(self.node(path, "DeformConv", &[&x.name, &weight, &told.name], &attrs, &dims));
        }
        let moves = self.slice(&told, 0, 2 * taps, 1, path)?;
        let mask = self.slice(&told, 2 * taps, all, 1, path)?;
        let mask = self.act(&mask, path, Act::Sigmoid)?;
        Ok(self.node(path, "DeformConv", &[&x.name, &weight, &moves.name, "", &mask.name], &attrs, &dims))
    }

    /// Batch normalisation with running statistics near mean 0 and variance 1.
    pub fn bn(&mut self, x: &Value, path: &str) -> Result<Value> {
        self.bn_scaled(x, path, 1.0)
    }

    /// Batch normalisation that closes a residual branch: a smaller scale keeps deep sums in range.
    pub fn bn_residual(&mut self, x: &Value, path: &str) -> Result<Value> {
        self.bn_scaled(x, path, 0.3)
    }

    fn bn_scaled(&mut self, x: &Value, path: &str, gamma: f32) -> Result<Value> {
        let c = [x.c()];
        let (learned, seen) = match &self.switch {
            Some(switch) => switch.norm(path),
            None => (path.to_string(), path.to_string()),
        };
        let scale = self.weight(&format!("{learned}.weight"), &c, Fill::Around(gamma, 0.1 * gamma))?;
        let shift = self.weight(&format!("{learned}.bias"), &c, Fill::Within(0.1))?;
        let mean = self.weight(&format!("{seen}.running_mean"), &c, Fill::Within(0.1))?;
        // A narrower layer sums fewer products: its statistics are those of its width.
        let share = if seen == path { 1.0 } else { self.share };
        let var = Fill::Around(share, 0.1 * share);
        let var = self.weight(&format!("{seen}.running_var"), &c, var)?;
        let attrs = [("epsilon", Attr::Float(1e-5)), ("momentum", Attr::Float(0.9))];
        Ok(self.node(path, "BatchNormalization", &[&x.name, &scale, &shift, &mean, &var], &attrs, &x.dims))
    }

    /// An activation.
    pub fn act(&mut self, x: &Value, path: &str, act: Act) -> Result<Value> {
        let simple = |net: &mut Net, op: &str, attrs: &[(&str, Attr)]| net.node(path, op, &[&x.name], attrs, &x.dims);
        Ok(match act {
            Act::None => x.clone(),
            Act::Relu => simple(self, "Relu", &[]),
            Act::HardSwish => simple(self, "HardSwish", &[]),
            Act::HardSigmoid => {
                simple(self, "HardSigmoid", &[("alpha", Attr::Float(1.0 / 6.0)), ("beta", Attr::Float(0.5))])
            }
            Act::Sigmoid => simple(self, "Sigmoid", &[]),
            Act::Tanh => simple(self, "Tanh", &[]),
            Act::Relu6 => {
                let (low, high) = (self.scalar(0.0)?, self.scalar(6.0)?);
                self.node(path, "Clip", &[&x.name, &low, &high], &[], &x.dims)
            }
            Act::Silu => {
                let gate = simple(self, "Sigmoid", &[]);
                self.mul(x, &gate, path)
            }
            Act::Gelu => {
                let (root2, one, half) = (self.scalar(std::f32::consts::SQRT_2)?, self.scalar(1.0)?, self.scalar(0.5)?);
                let y = self.node(path, "Div", &[&x.name, &root2], &[], &x.dims);
                let y = self.node(path, "Erf", &[&y.name], &[], &x.dims);
                let y = self.node(path, "Add", &[&y.name, &one], &[], &x.dims);
                let y = self.mul(x, &y, path);
                self.node(path, "Mul", &[&y.name, &half], &[], &x.dims)
            }
            Act::GeluTanh => {
                let cubic = self.scalar(0.044_715)?;
                let (three, root, one, half) = (
                    self.scalar(3.0)?,
                    self.scalar((2.0 / std::f32::consts::PI).sqrt())?,
                    self.scalar(1.0)?,
                    self.scalar(0.5)?,
                );
                let y = self.node(path, "Pow", &[&x.name, &three], &[], &x.dims);
                let y = self.node(path, "Mul", &[&y.name, &cubic], &[], &x.dims);
                let y = self.add(x, &y, path)?;
                let y = self.node(path, "Mul", &[&y.name, &root], &[], &x.dims);
                let y = self.node(path, "Tanh", &[&y.name], &[], &x.dims);
                let y = self.node(path, "Add", &[&y.name, &one], &[], &x.dims);
                let y = self.mul(x, &y, path);
                self.node(path, "Mul", &[&y.name, &half], &[], &x.dims)
            }
        })
    }

    /// Convolution, batch normalisation, activation, each under its own path.
    pub fn conv_bn_act(&mut self, x: &Value, paths: [&str; 3], out: usize, conv: Conv, act: Act) -> Result<Value> {
        let conv = if act == Act::None { conv.linear() } else { conv };
        let y = self.conv(x, paths[0], out, conv)?;
        let y = self.bn(&y, paths[1])?;
        self.act(&y, paths[2], act)
    }

    /// Convolution and batch normalisation that close a residual branch (or not).
    pub fn conv_bn(&mut self, x: &Value, paths: [&str; 2], out: usize, conv: Conv, closing: bool) -> Result<Value> {
        let y = self.conv(x, paths[0], out, conv.linear())?;
        if closing { self.bn_residual(&y, paths[1]) } else { self.bn(&y, paths[1]) }
    }

    /// Convolution, batch normalisation, activation as a sequence `path.0`, `path.1`, `path.2`.
    pub fn conv_seq(&mut self, x: &Value, path: &str, out: usize, conv: Conv, act: Act) -> Result<Value> {
        let [a, b, c] = [0, 1, 2].map(|i| format!("{path}.{i}"));
        self.conv_bn_act(x, [&a, &b, &c], out, conv, act)
    }

    /// Elementwise sum of equal shapes.
    pub fn add(&mut self, a: &Value, b: &Value, path: &str) -> Result<Value> {
        if a.dims != b.dims {
            return Err(Error::input(format!("{path}: sizes {:?} and {:?} do not add", a.dims, b.dims)));
        }
        Ok(self.node(path, "Add", &[&a.name, &b.name], &[], &a.dims))
    }

    /// `a` scaled by `b`, which has `a`'s shape or broadcasts to it.
    pub fn mul(&mut self, a: &Value, b: &Value, path: &str) -> Value {
        self.node(path, "Mul", &[&a.name, &b.name], &[], &a.dims)
    }

    /// Concatenation along an axis; all other sizes are equal.
    pub fn concat(&mut self, parts: &[&Value], axis: usize, path: &str) -> Result<Value> {
        let Some(first) = parts.first() else { return Err(Error::input(format!("{path}: nothing to concatenate"))) };
        let mut dims = first.dims.clone();
        let along = |v: &Value| v.dims.get(axis).copied().unwrap_or(0);
        let same = |v: &&Value| {
            v.dims.len() == dims.len() && v.dims.iter().zip(&dims).enumerate().all(|(i, (a, b))| i == axis || a == b)
        };
        if !parts.iter().all(same) {
            return Err(Error::usage(format!("{path}: sizes differ where they must be equal to concatenate")));
        }
        dims[axis] = parts.iter().map(|v| along(v)).sum();
        let names: Vec<&str> = parts.iter().map(|v| v.name.as_str()).collect();
        Ok(self.node(path, "Concat", &names, &[("axis", Attr::Int(axis as i64))], &dims))
    }

    /// Parts of the given sizes along an axis.
    pub fn split(&mut self, x: &Value, sizes: &[usize], axis: usize, path: &str) -> Result<Vec<Value>> {
        if x.dims.get(axis).copied() != Some(sizes.iter().sum()) {
            return Err(Error::input(format!("{path}: {:?} does not split into {sizes:?}", x.dims)));
        }
        let outputs: Vec<Vec<usize>> = sizes
            .iter()
            .map(|&s| {
                let mut dims = x.dims.clone();
                dims[axis] = s;
                dims
            })
            .collect();
        let lengths = self.ints(&sizes.iter().map(|&s| s as i64).collect::<Vec<_>>())?;
        Ok(self.nodes(path, "Split", &[&x.name, &lengths], &[("axis", Attr::Int(axis as i64))], &outputs))
    }

    /// Elements `from..to` along an axis.
    pub fn slice(&mut self, x: &Value, from: usize, to: usize, axis: usize, path: &str) -> Result<Value> {
        let mut dims = x.dims.clone();
        dims[axis] = to - from;
        let (from, to, axis) = (self.ints(&[from as i64])?, self.ints(&[to as i64])?, self.ints(&[axis as i64])?);
        Ok(self.node(path, "Slice", &[&x.name, &from, &to, &axis], &[], &dims))
    }

    /// Another shape for the same elements; the batch stays free in the file (0 copies it).
    pub fn reshape(&mut self, x: &Value, dims: &[usize], path: &str) -> Result<Value> {
        let batch_kept = dims.first() == x.dims.first();
        let shape: Vec<i64> =
            dims.iter().enumerate().map(|(i, &d)| if i == 0 && batch_kept { 0 } else { d as i64 }).collect();
        let shape = self.ints(&shape)?;
        Ok(self.node(path, "Reshape", &[&x.name, &shape], &[], dims))
    }

    /// Another shape for the same elements, all sizes as given.
    pub fn reshape_all(&mut self, x: &Value, dims: &[usize], path: &str) -> Result<Value> {
        let shape = self.ints(&dims.iter().map(|&d| d as i64).collect::<Vec<_>>())?;
        Ok(self.node(path, "Reshape", &[&x.name, &shape], &[], dims))
    }

    /// Axes in another order.
    pub fn transpose(&mut self, x: &Value, perm: &[usize], path: &str) -> Value {
        let dims: Vec<usize> = perm.iter().filter_map(|&p| x.dims.get(p).copied()).collect();
        self.node(path, "Transpose", &[&x.name], &[("perm", ints(perm))], &dims)
    }

    /// Max pooling.
    pub fn max_pool(&mut self, x: &Value, path: &str, pool: Pool) -> Result<Value> {
        self.pool(x, path, "MaxPool", pool)
    }

    /// Average pooling; padding, where there is any, counts as zeros.
    pub fn avg_pool(&mut self, x: &Value, path: &str, pool: Pool) -> Result<Value> {
        self.pool(x, path, "AveragePool", pool)
    }

    fn pool(&mut self, x: &Value, path: &str, op: &str, pool: Pool) -> Result<Value> {
        let &[n, c, h, w] = &x.dims[..] else { return Err(not_an_image(path, x)) };
        let Pool { k, s, p, ceil } = pool;
        let (oh, ow) = (slide(path, h, k, s, p, ceil)?, slide(path, w, k, s, p, ceil)?);
        let mut attrs = vec![
            ("ceil_mode", Attr::Int(ceil.into())),
            ("kernel_shape", ints(&[k, k])),
            ("pads", ints(&[p; 4])),
            ("strides", ints(&[s, s])),
        ];
        if op == "AveragePool" {
            attrs.push(("count_include_pad", Attr::Int(1)));
        }
        Ok(self.node(path, op, &[&x.name], &attrs, &[n, c, oh, ow]))
    }

    /// A map of another size, each element the nearest below it (as `interpolate(size, mode="nearest")`).
    pub fn resize_nearest(&mut self, x: &Value, size: [usize; 2], path: &str) -> Result<Value> {
        let &[n, c, _, _] = &x.dims[..] else { return Err(not_an_image(path, x)) };
        let dims = [n, c, size[0], size[1]];
        let sizes = self.ints(&dims.map(|d| d as i64))?;
        let attrs = [
            ("coordinate_transformation_mode", Attr::Str("asymmetric".into())),
            ("mode", Attr::Str("nearest".into())),
            ("nearest_mode", Attr::Str("floor".into())),
        ];
        Ok(self.node(path, "Resize", &[&x.name, "", "", &sizes], &attrs, &dims))
    }

    /// The mean over each channel's plane, as a 1 x 1 image.
    pub fn global_pool(&mut self, x: &Value, path: &str) -> Result<Value> {
        let &[n, c, _, _] = &x.dims[..] else { return Err(not_an_image(path, x)) };
        Ok(self.node(path, "GlobalAveragePool", &[&x.name], &[], &[n, c, 1, 1]))
    }

    /// All but the batch in one dim.
    pub fn flatten(&mut self, x: &Value, path: &str) -> Value {
        let n = x.dims.first().copied().unwrap_or(1);
        let rest = x.dims.iter().skip(1).product();
        self.node(path, "Flatten", &[&x.name], &[("axis", Attr::Int(1))], &[n, rest])
    }

    /// A fully connected layer with bias on a matrix: Gemm with the weight as `[out, in]`.
    pub fn linear(&mut self, x: &Value, path: &str, out: usize) -> Result<Value> {
        let &[n, c] = &x.dims[..] else { return Err(Error::input(format!("{path}: {:?} is not a matrix", x.dims))) };
        let name = format!("{path}.weight");
        let all = self.switch.as_ref().and_then(|s| s.full.get(&name)).map_or(c, |full| full[1]);
        let weight = self.weight(&name, &[out, c], Fill::scaled(1.0, all))?;
        let bias = self.weight(&format!("{path}.bias"), &[out], Fill::Within(0.1))?;
        Ok(self.node(path, "Gemm", &[&x.name, &weight, &bias], &[("transB", Attr::Int(1))], &[n, out]))
    }
}

/// Module path to node scope: a new level at every segment that is not a number.
fn scope(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for (i, segment) in path.split('.').enumerate() {
        if i > 0 {
            out.push(if segment.bytes().all(|b| b.is_ascii_digit()) { '.' } else { '/' });
        }
        out.push_str(segment);
    }
    out
}

/// Output size of a sliding window.
fn slide(path: &str, size: usize, k: usize, s: usize, p: usize, ceil: bool) -> Result<usize> {
    let room = (size + 2 * p).checked_sub(k).filter(|_| s > 0).ok_or_else(|| {
        Error::usage(format!("the input is too small: at {path} a window of {k} meets a side of {size}"))
            .hint("ask for a larger `res`")
    })?;
    let mut out = room / s + 1;
    // A partial last window counts if it starts inside the input or its leading padding.
    if ceil && !room.is_multiple_of(s) && out * s < size + p {
        out += 1;
    }
    Ok(out)
}

fn not_an_image(path: &str, x: &Value) -> Error {
    Error::input(format!("{path}: {:?} is not an image", x.dims))
}

/// An integer-list attribute.
pub fn ints(values: &[usize]) -> Attr {
    Attr::Ints(values.iter().map(|&v| v as i64).collect())
}

fn declared(name: &str, dtype: DType, dims: &[usize]) -> ValueSpec {
    ValueSpec {
        name: name.into(),
        dtype: Some(dtype),
        shape: Some(dims.iter().map(|&d| DimSpec::Size(d)).collect()),
        container: Container::Tensor,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_read_as_exporters_write_them() {
        assert_eq!(scope("features.1.conv.0"), "features.1/conv.0");
        assert_eq!(scope("features.0.0"), "features.0.0");
        assert_eq!(scope("layer1.0.conv1"), "layer1.0/conv1");
        assert_eq!(scope("fc"), "fc");
    }

    #[test]
    fn windows_that_do_not_fit_are_errors_and_ceil_counts_only_windows_that_start_inside() {
        assert!(slide("a", 2, 3, 1, 0, false).is_err());
        assert_eq!(slide("a", 109, 3, 2, 0, true).unwrap(), 54);
        assert_eq!(slide("a", 110, 3, 2, 0, true).unwrap(), 55);
        assert_eq!(slide("a", 5, 1, 4, 0, true).unwrap(), 2);
        assert_eq!(slide("a", 6, 1, 4, 0, true).unwrap(), 2);
    }
}
