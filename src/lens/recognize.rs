//! From a graph to the torch program behind it.

use super::calls::{Act, Call, Conv, Module, Norm, Pool, Program, Recurrent, Spelling, Upsample, What};
use super::evidence::{self, Bias, Origin};
use super::modules;
use super::patterns::{Group, Matcher};
use crate::ir::{Graph, Model, Node, NodeId, Source, ValueId};
use crate::ops::Op;
use crate::ops::resize::Mode;
use crate::ops::transpose::Transpose;
use std::collections::{BTreeMap, HashMap};

/// Reconstructs the program.
pub fn program(model: &Model) -> Program {
    let graph = &model.graph;
    let groups = groups(graph);
    let mut r = Reader { graph, program: Program::default(), drafts: Vec::new() };
    for group in &groups {
        r.read(group);
    }
    let first = graph.inputs().first().map(|&v| &graph.value(v).fact.shape);
    r.program.batch = first.and_then(|s| s.dim(0)).unwrap_or(1);
    let told = groups.iter().any(|g| !g.origin.classes.is_empty());
    r.program.classes_told = told || model.producer.0 == "madd-prof";
    r.program.foreign = foreign(graph, &r.drafts);
    r.program.foreign.extend(unrolled(&r.drafts));
    match evidence::folded_had_bias(graph, r.program.lost_bias) {
        Some(true) => r.drafts.iter_mut().for_each(|d| give_bias(&mut d.call)),
        Some(false) => {}
        None => r.program.bias_assumed = r.program.lost_bias,
    }
    modules::assign(model, r.drafts, told, r.program)
}

/// The bias that folding hid.
fn give_bias(call: &mut Call) {
    if let What::Conv(c) = &mut call.what {
        c.bias |= c.folded;
    }
}

/// Calls of recurrent modules that are no recurrent operators: the exporter unrolled them.
fn unrolled(drafts: &[Draft]) -> Option<(String, usize)> {
    let inside = |d: &&Draft| {
        let recurrent = d.origin.classes.last().is_some_and(|c| c.starts_with("torch.nn.modules.rnn."));
        recurrent && !matches!(d.call.what, What::Recurrent(_))
    };
    let n = drafts.iter().filter(inside).count();
    (n > 0).then(|| ("the steps of an unrolled recurrent module".to_string(), n))
}

/// A call whose module is not decided yet.
#[derive(Debug, Clone)]
pub struct Draft {
    pub call: Call,
    pub origin: Origin,
}

/// Groups of nodes that are one call, in order of their last node (what a call needs is there).
fn groups(graph: &Graph) -> Vec<Group> {
    let mut named: BTreeMap<NodeId, Group> = BTreeMap::new();
    let mut by_call: HashMap<String, NodeId> = HashMap::new();
    let mut taken = vec![false; graph.nodes().len()];
    for (id, node) in graph.iter() {
        let origin = evidence::origin(node);
        let Some(call) = origin.call.clone() else { continue };
        taken[id.0 as usize] = true;
        if node.is_static && node.op_type != "Gather" {
            continue;
        }
        match by_call.get(&call).and_then(|first| named.get_mut(first)) {
            Some(group) => group.nodes.push(id),
            None => {
                by_call.insert(call, id);
                let aten = origin.aten.clone().unwrap_or_default();
                named.insert(id, Group { nodes: vec![id], aten, origin });
            }
        }
    }
    let mut matcher = Matcher::new(graph, taken);
    // Look-ups of constant positions are static, but a module made them.
    for (id, node) in graph.iter().filter(|(_, n)| !n.is_static || n.op_type == "Gather") {
        if let Some((nodes, aten)) = matcher.group(id) {
            let origin = evidence::origin(node);
            named.insert(nodes[0], Group { nodes, aten: aten.to_string(), origin });
        }
    }
    named.into_values().collect()
}

/// Operators no call was made of although they cost multiply-adds, or that nobody knows.
fn foreign(graph: &Graph, drafts: &[Draft]) -> Vec<(String, usize)> {
    let mut covered = vec![false; graph.nodes().len()];
    drafts.iter().flat_map(|d| &d.call.nodes).for_each(|n| covered[n.0 as usize] = true);
    let mut out: BTreeMap<String, usize> = BTreeMap::new();
    for (id, node) in graph.iter().filter(|(_, n)| !n.is_static) {
        let quantised = matches!(node.op, Op::Quant(_) | Op::QLinear(_));
        let costs = madds(graph, node) > 0 && !covered[id.0 as usize];
        if costs || quantised || matches!(node.op, Op::Opaque(_)) {
            *out.entry(node.op_type.clone()).or_default() += 1;
        }
    }
    out.into_iter().collect()
}

fn madds(graph: &Graph, node: &Node) -> i128 {
    match graph.charge(node) {
        crate::ops::Charge::Known(work) => i128::from(work.madds),
        crate::ops::Charge::Between(_) | crate::ops::Charge::Unknown => 0,
    }
}

struct Reader<'a> {
    graph: &'a Graph,
    program: Program,
    drafts: Vec<Draft>,
}

impl Reader<'_> {
    fn dims(&self, v: ValueId) -> Option<Vec<usize>> {
        self.graph.value(v).fact.shape.concrete()
    }
    fn input_dims(&self, node: &Node, i: usize) -> Option<Vec<usize>> {
        self.dims(node.inputs.get(i).copied().flatten()?)
    }
    fn elements(&self, node: &Node, i: usize) -> Option<i128> {
        Some(self.graph.value(node.inputs.get(i).copied().flatten()?).fact.elements()? as i128)
    }

    /// Nodes of the group that cost multiply-adds, or all of them.
    fn costly(&self, group: &Group) -> Vec<NodeId> {
        let nodes: Vec<NodeId> =
            group.nodes.iter().copied().filter(|&n| madds(self.graph, self.graph.node(n)) > 0).collect();
        if nodes.is_empty() { group.nodes[group.nodes.len() - 1..].to_vec() } else { nodes }
    }

    fn push(&mut self, group: &Group, nodes: Vec<NodeId>, what: What, input: Vec<usize>, output: Vec<usize>) {
        let madds = match what {
            What::Norm { norm: Norm::Batch(true), .. } => 0,
            _ => nodes.iter().map(|&n| madds(self.graph, self.graph.node(n))).sum(),
        };
        let call = Call {
            nodes,
            what,
            module: Module::Function,
            input,
            output,
            madds,
            kept_function: false,
            in_fused_layer: false,
            in_timm_attention: false,
        };
        self.drafts.push(Draft { call, origin: group.origin.clone() });
    }

    /// Adds the calls of a group, if it is any that counters look at.
    fn read(&mut self, group: &Group) {
        let (input, Some(output)) = self.ends(group) else { return };
        let Some(input) = input.or_else(|| (group.aten == "embedding").then(|| output.clone())) else { return };
        let has = |op: &str| group.nodes.iter().copied().find(|&n| self.graph.node(n).op_type == op);
        let product = has("Conv").or_else(|| has("ConvTranspose")).or_else(|| has("FusedConv"));
        if let Some(id) = product {
            return self.convolution(group, id, output);
        }
        for id in group.nodes.clone() {
            if matches!(self.graph.node(id).op, Op::Rnn(_)) {
                self.recurrent(group, id);
            }
        }
        if group.nodes.iter().any(|&n| matches!(self.graph.node(n).op, Op::Rnn(_))) {
            return;
        }
        if let Some(what) = self.product(group).or_else(|| self.other(group, &input, &output)) {
            let folded = matches!(what, What::Linear { .. }) && group.aten.contains("batch_norm");
            let nodes = self.costly(group);
            if let What::Act(Act::PRelu) = what
                && let Some(slopes) = group.nodes.iter().find_map(|&n| self.elements(self.graph.node(n), 1))
            {
                self.push(group, nodes.clone(), What::Parameters(slopes), input.clone(), output.clone());
            }
            self.push(group, nodes.clone(), what, input, output.clone());
            if folded {
                let params = 2 * output.get(1).map_or(0, |&c| c as i128);
                let what = What::Norm { norm: Norm::Batch(true), affine: true, params };
                self.push(group, nodes, what, output.clone(), output);
            }
        }
    }

    /// Sizes of the first operand that is data, and of the last result.
    fn ends(&self, group: &Group) -> (Option<Vec<usize>>, Option<Vec<usize>>) {
        let made: Vec<ValueId> =
            group.nodes.iter().flat_map(|&n| self.graph.node(n).outputs.iter().copied().flatten()).collect();
        let outer = group.nodes.iter().flat_map(|&n| self.graph.node(n).inputs.iter().copied().flatten());
        let first = outer.clone().find(|v| !made.contains(v) && !self.graph.value(*v).is_static);
        let last = group.nodes.last().and_then(|&n| self.graph.node(n).outputs.first().copied().flatten());
        (first.and_then(|v| self.dims(v)), last.and_then(|v| self.dims(v)))
    }

    fn convolution(&mut self, group: &Group, id: NodeId, output: Vec<usize>) {
        let node = self.graph.node(id);
        let (Some(x), Some(w)) = (self.input_dims(node, 0), self.input_dims(node, 1)) else { return };
        if x.len() < 3 || w.len() != x.len() {
            return;
        }
        let bias = evidence::bias(self.graph, node, &group.origin);
        let (transposed, groups, window) = match &node.op {
            Op::Conv(c) => (false, c.group, &c.window),
            Op::ConvTranspose(c) => (true, c.group, &c.window),
            _ => return,
        };
        let spatial = w.len() - 2;
        let fixed = |v: &Option<Vec<usize>>, d: usize| v.clone().unwrap_or_else(|| vec![d; spatial]);
        let (ci, co) =
            if transposed { (w[0], w[1].saturating_mul(groups)) } else { (w[1].saturating_mul(groups), w[0]) };
        let conv = Conv {
            transposed,
            bias: matches!(bias, Bias::Own | Bias::Folded(true)),
            folded: bias == Bias::Folded(false) && group.origin.call.is_none(),
            groups: groups as i128,
            ci: ci as i128,
            co: co as i128,
            kernel: w[2..].to_vec(),
            strides: fixed(&window.strides, 1),
            pads: fixed(&window.pads, 0),
            dilations: fixed(&window.dilations, 1),
        };
        let made = node.outputs.first().copied().flatten().and_then(|v| self.dims(v)).unwrap_or(output);
        self.push(group, vec![id], What::Conv(conv), x, made.clone());
        if bias == Bias::Folded(false) && group.origin.call.is_none() {
            self.program.lost_bias += 1;
        }
        if let Bias::Folded(_) = bias {
            let what = What::Norm { norm: Norm::Batch(true), affine: true, params: 2 * co as i128 };
            self.push(group, vec![id], what, made.clone(), made);
        }
    }

    fn recurrent(&mut self, group: &Group, id: NodeId) {
        let node = self.graph.node(id);
        let (Some(x), Some(w)) = (self.input_dims(node, 0), self.input_dims(node, 1)) else { return };
        let (&[a, b, input], &[directions, rows, _]) = (x.as_slice(), w.as_slice()) else { return };
        let gates = match node.op_type.as_str() {
            "LSTM" => 4,
            "GRU" => 3,
            _ => 1,
        };
        let what = What::Recurrent(Recurrent {
            gates: gates as i128,
            directions: directions as i128,
            evaluations: a as i128 * b as i128,
            input: input as i128,
            hidden: (rows / gates) as i128,
            contiguous: self.contiguous(node),
            bias: node.inputs.get(3).copied().flatten().is_some_and(|b| self.is_real_bias(b)),
        });
        self.push(group, vec![id], what, x.clone(), x);
    }

    /// An exporter may write zeros where the module has no bias.
    fn is_real_bias(&self, bias: ValueId) -> bool {
        let value = self.graph.value(bias);
        let zeros = |t: &crate::tensor::Tensor| t.to_f64s().is_ok_and(|v| v.iter().all(|x| *x == 0.0));
        value.constant.as_ref().is_none_or(|t| t.is_lazy() || !zeros(t))
    }

    fn product(&self, group: &Group) -> Option<What> {
        let find = |names: &[&str]| {
            let hit = |n: &&NodeId| names.contains(&self.graph.node(**n).op_type.as_str());
            group.nodes.iter().find(hit).map(|&n| self.graph.node(n))
        };
        let line = group.origin.line.as_deref().unwrap_or("");
        if group.aten == "scaled_dot_product_attention" {
            return Some(What::Attention);
        }
        let node = find(&["Gemm", "MatMul", "Einsum", "FusedMatMul"])?;
        let (a, b) = (self.input_dims(node, 0)?, self.input_dims(node, 1)?);
        let constant = |i: usize| node.inputs.get(i).copied().flatten().is_some_and(|v| self.graph.value(v).is_static);
        let told = group.origin.call.is_some();
        let linear = group.aten == "linear" || group.aten.contains("batch_norm");
        if linear || (group.aten == "addmm" && constant(1)) {
            let out = self.dims(node.outputs.first().copied().flatten()?)?;
            let n = *out.last()? as i128;
            let k = super::volume(&b).checked_div(n.max(1))?;
            let bias = match node.op_type.as_str() {
                "Gemm" => evidence::bias(self.graph, node, &group.origin) != Bias::None,
                _ => group.nodes.iter().any(|&n| self.graph.node(n).op_type == "Add"),
            };
            let transposed = matches!(node.op, Op::MatMul(crate::ops::matmul::MatMul::Gemm { trans_b: true, .. }));
            // transformers' Conv1D keeps its weight as [in, out]; nn.Linear's needs the transposition.
            let by_hand = node.op_type == "Gemm"
                && !transposed
                && node.inputs.get(1).copied().flatten().is_some_and(|w| evidence::is_parameter(self.graph, w));
            let addmm = if told { group.aten == "addmm" } else { by_hand && bias };
            return Some(if addmm {
                What::Addmm { k, n }
            } else {
                What::Linear { k, n, bias, contiguous: self.contiguous(node) }
            });
        }
        let spelling = match group.aten.as_str() {
            _ if line.contains("einsum(") || node.op_type == "Einsum" => Spelling::Einsum,
            "bmm" if line.contains("baddbmm(") => Spelling::Baddbmm,
            "baddbmm" => Spelling::Baddbmm,
            "bmm" => Spelling::Bmm,
            "mm" => Spelling::Mm,
            _ if line.contains("matmul(") => Spelling::Matmul,
            _ if line.contains(" @ ") => Spelling::At,
            _ => Spelling::Matmul,
        };
        Some(What::Product { spelling, lhs: a, rhs: b })
    }

    /// Whether the operand is no transposed view.
    fn contiguous(&self, node: &Node) -> bool {
        let Some(mut v) = node.inputs.first().copied().flatten() else { return true };
        loop {
            let Source::Node(id, _) = self.graph.value(v).source else { return true };
            let maker = self.graph.node(id);
            match maker.op_type.as_str() {
                // Axes of size 1 move freely.
                "Transpose" => match (&maker.op, maker.inputs.first().copied().flatten()) {
                    (Op::Transpose(Transpose::Axes(Some(perm))), Some(before)) => {
                        let dims = self.dims(before).unwrap_or_default();
                        let moved: Vec<usize> = perm.iter().copied().filter(|&p| dims.get(p) != Some(&1)).collect();
                        if !moved.is_sorted() {
                            return false;
                        }
                        v = before;
                    }
                    _ => return false,
                },
                "Unsqueeze" | "Squeeze" | "Identity" | "Cast" => match maker.inputs.first().copied().flatten() {
                    Some(before) => v = before,
                    None => return true,
                },
                _ => return true,
            }
        }
    }

    fn other(&self, group: &Group, input: &[usize], output: &[usize]) -> Option<What> {
        let last = self.graph.node(*group.nodes.last()?);
        let first = self.graph.node(*group.nodes.first()?);
        let find = |name: &str| group.nodes.iter().map(|&n| self.graph.node(n)).find(|n| n.op_type == name);
        let line = group.origin.line.as_deref().unwrap_or("");
        let class = group.origin.classes.last().map_or("", String::as_str);
        let norm = |norm: Norm, affine: bool, params: i128| Some(What::Norm { norm, affine, params });
        let scale = |node: &Node| self.elements(node, 1).unwrap_or(0);
        Some(match group.aten.as_str() {
            a if a.contains("batch_norm") => {
                let node = find("BatchNormalization")?;
                return norm(Norm::Batch(false), true, 2 * scale(node));
            }
            "layer_norm" | "native_layer_norm" => {
                let node = find("LayerNormalization");
                let shift = node.and_then(|n| self.elements(n, 2)).unwrap_or(0);
                let spelt: i128 = group.nodes.iter().map(|&n| self.static_width(n)).sum();
                let params = node.map_or(spelt, |n| scale(n) + shift);
                return norm(Norm::Layer, node.is_none_or(|n| self.is_learned(n, 1)) && params > 0, params);
            }
            "group_norm" | "native_group_norm" => {
                let params: i128 = match find("GroupNormalization") {
                    Some(n) => 2 * scale(n),
                    None => group.nodes.iter().map(|&n| self.static_width(n)).sum(),
                };
                return norm(Norm::Group, params > 0, params);
            }
            "instance_norm" => {
                let affine = find("InstanceNormalization").is_some_and(|n| self.is_learned(n, 1));
                let params = if affine { 2 * input.get(1).map_or(0, |&c| c as i128) } else { 0 };
                return norm(Norm::Instance, affine, params);
            }
            "rms_norm" | "_fused_rms_norm" => {
                let params = group.nodes.iter().map(|&n| self.static_width(n)).sum::<i128>().max(0);
                return norm(Norm::Rms, params > 0, params);
            }
            "relu" => What::Act(Act::Relu),
            "relu6" => What::Act(Act::Relu6),
            "hardtanh" | "clamp" if class.ends_with(".ReLU6") || self.is_relu6(last) => What::Act(Act::Relu6),
            "leaky_relu" => What::Act(Act::LeakyRelu),
            "prelu" => What::Act(Act::PRelu),
            "elu" => What::Act(Act::Elu),
            "silu" => What::Act(Act::Silu),
            "gelu" => What::Act(Act::Gelu),
            "hardswish" => What::Act(Act::HardSwish),
            "hardsigmoid" => What::Act(Act::HardSigmoid),
            "sigmoid" => What::Act(Act::Sigmoid),
            "tanh" => What::Act(Act::Tanh),
            "mish" => What::Act(Act::Mish),
            "softplus" => What::Act(Act::Softplus),
            "softmax" | "_softmax" | "log_softmax" | "_log_softmax" => {
                let Op::Softmax(op) = &find("Softmax").or_else(|| find("LogSoftmax"))?.op else { return None };
                let axis = if op.axis < 0 { op.axis + input.len() as i64 } else { op.axis };
                let row = *input.get(usize::try_from(axis).ok()?)? as i128;
                let functional = line.contains("F.softmax") || line.contains("functional.softmax");
                let patched = functional || !line.contains("softmax(");
                What::Softmax { row, log: group.aten.contains("log"), patched }
            }
            a if a.starts_with("max_pool") => What::Pool(Pool::Max),
            a if a.starts_with("adaptive_max") => What::Pool(Pool::AdaptiveMax),
            a if a.starts_with("adaptive_avg") || a.starts_with("_adaptive_avg") => What::Pool(Pool::AdaptiveAverage),
            a if a.starts_with("avg_pool") => self.average(class, last, input, output),
            "mean" => self.mean(group, class, first, line),
            a if a.starts_with("upsample") || a.starts_with("_upsample") || a == "__interpolate" => {
                let resize = find("Resize").or_else(|| find("Upsample"))?;
                let Op::Resize(r) = &resize.op else { return None };
                let mode = match r.mode {
                    Mode::Nearest(_) => Upsample::Nearest,
                    Mode::Linear => Upsample::Linear,
                    Mode::Cubic(_) => Upsample::Cubic,
                };
                let by_size = resize.inputs.get(3).copied().flatten().is_some();
                What::Upsample { mode, by_size }
            }
            "embedding" => {
                let node = find("Gather")?;
                let float = |v: ValueId| self.graph.value(v).fact.dtype.is_some_and(|d| d.is_float());
                let table =
                    node.inputs.first().copied().flatten().filter(|&v| self.graph.value(v).is_static && float(v))?;
                let dims = self.dims(table).filter(|d| d.len() == 2)?;
                What::Embedding(super::volume(&dims))
            }
            "mul" => What::Mul { patched: line.contains(".mul(") },
            "add" if line.contains(".add(") => What::Add,
            "grid_sampler" | "grid_sampler_2d" | "grid_sample" => What::GridSample(4),
            _ => return None,
        })
    }

    /// Elements of the learned vector a node reads beside its data; 0 for scalars.
    fn static_width(&self, id: NodeId) -> i128 {
        let node = self.graph.node(id);
        let wide = |v: &ValueId| {
            let value = self.graph.value(*v);
            let float = value.fact.dtype.is_some_and(|d| d.is_float());
            if value.is_static && float { value.fact.elements().filter(|&n| n > 1) } else { None }
        };
        match node.op_type.as_str() {
            "Mul" | "Add" | "RMSNormalization" => {
                node.inputs.iter().flatten().filter_map(wide).max().unwrap_or(0) as i128
            }
            _ => 0,
        }
    }

    /// Whether an input is a parameter and not a fill that stands for a missing one.
    fn is_learned(&self, node: &Node, i: usize) -> bool {
        node.inputs
            .get(i)
            .copied()
            .flatten()
            .is_some_and(|v| evidence::is_parameter(self.graph, v) || self.graph.value(v).name.contains("weight"))
    }

    fn is_relu6(&self, node: &Node) -> bool {
        let value = |i: usize| {
            let v = node.inputs.get(i).copied().flatten()?;
            self.graph.value(v).constant.as_ref()?.to_f64s().ok()?.first().copied()
        };
        match &node.op {
            Op::Unary(crate::ops::unary::Unary::Clip { low, high }) => {
                let low = low.map(f64::from).or_else(|| value(1));
                let high = high.map(f64::from).or_else(|| value(2));
                (low, high) == (Some(0.0), Some(6.0))
            }
            _ => false,
        }
    }

    /// An average over windows, or what an adaptive pooling was exported as.
    fn average(&self, class: &str, node: &Node, input: &[usize], output: &[usize]) -> What {
        if class.contains("Adaptive") {
            return What::Pool(Pool::AdaptiveAverage);
        }
        let windows = match &node.op {
            Op::Pool(p) => p.window.as_ref().and_then(|w| {
                let kernel = w.kernel.clone()?;
                let axes = w.resolve(input.get(2..)?, &kernel).ok()?;
                let outer = super::volume(input.get(..2)?);
                let padded = matches!(p.kind, crate::ops::pool::Kind::Average { include_pad: true });
                let all: i128 = axes.iter().map(|a| a.o as i128 * a.k as i128).product();
                let inside: i128 = axes.iter().map(|a| i128::from(a.useful_taps())).product();
                Some(outer * if padded { all } else { inside })
            }),
            _ => None,
        };
        What::Pool(Pool::Average(windows.unwrap_or_else(|| super::volume(output))))
    }

    /// `x.mean(…)`, or the global average pooling that newer exporters write so: `mean(x, [-1, -2], True)`.
    fn mean(&self, group: &Group, class: &str, node: &Node, line: &str) -> What {
        let fx = node.metadata.iter().find(|(k, _)| k == "pkg.torch.onnx.fx_node").map_or("", |(_, v)| v.as_str());
        let pooled = fx.contains("[-1, -2], True)") || fx.contains("[-1], True)") && line.contains("adaptive_avg_pool");
        if class.contains("AdaptiveAvgPool") || (group.aten == "mean" && pooled && !line.contains(".mean(")) {
            What::Pool(Pool::AdaptiveAverage)
        } else {
            What::Pool(Pool::Mean)
        }
    }
}
