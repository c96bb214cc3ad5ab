//! Groups of nodes that are one torch call, by the shape of the graph: for files whose nodes do not say what call they came from.

use super::evidence::{Origin, is_parameter};
use crate::ir::{Graph, Node, NodeId, Source, ValueId};

/// Nodes of one call.
#[derive(Debug, Clone)]
pub struct Group {
    /// The nodes, in execution order.
    pub nodes: Vec<NodeId>,
    /// The aten operator, as far as it is known or follows from the nodes.
    pub aten: String,
    /// Where the last node came from.
    pub origin: Origin,
}

/// The graph with what the matchers ask of it.
pub struct Matcher<'a> {
    pub graph: &'a Graph,
    readers: Vec<Vec<NodeId>>,
    taken: Vec<bool>,
}

impl<'a> Matcher<'a> {
    /// Nodes already `taken` belong to other groups.
    pub fn new(graph: &'a Graph, taken: Vec<bool>) -> Matcher<'a> {
        let mut readers = vec![Vec::new(); graph.values().len()];
        for (id, node) in graph.iter() {
            for v in node.inputs.iter().flatten() {
                readers[v.0 as usize].push(id);
            }
        }
        Matcher { graph, readers, taken }
    }

    fn node(&self, id: NodeId) -> &'a Node {
        self.graph.node(id)
    }
    fn op(&self, id: NodeId) -> &'a str {
        self.node(id).op_type.as_str()
    }
    fn input(&self, id: NodeId, i: usize) -> Option<ValueId> {
        self.node(id).inputs.get(i).copied().flatten()
    }
    fn is_static(&self, v: ValueId) -> bool {
        self.graph.value(v).is_static
    }
    fn is_scalar(&self, v: ValueId) -> bool {
        self.is_static(v) && self.graph.value(v).fact.elements() == Some(1)
    }
    fn producer(&self, v: ValueId) -> Option<NodeId> {
        match self.graph.value(v).source {
            Source::Node(id, _) if !self.taken[id.0 as usize] && !self.node(id).is_static => Some(id),
            _ => None,
        }
    }
    /// The only free reader of a node's first output, if it is one of `ops`.
    fn next(&self, id: NodeId, ops: &[&str]) -> Option<NodeId> {
        let out = self.node(id).outputs.first().copied().flatten()?;
        match self.readers[out.0 as usize].as_slice() {
            [one] if !self.taken[one.0 as usize] && ops.contains(&self.op(*one)) => Some(*one),
            _ => None,
        }
    }
    /// A reader of `v` that is `op` and also reads what `from` made.
    fn joins(&self, from: NodeId, v: ValueId, op: &str) -> Option<NodeId> {
        let next = self.next(from, &[op])?;
        self.node(next).inputs.contains(&Some(v)).then_some(next)
    }
    /// The one data operand of a node with a static scalar beside it.
    fn scaled(&self, id: NodeId) -> Option<ValueId> {
        let (a, b) = (self.input(id, 0)?, self.input(id, 1)?);
        match (self.is_scalar(a), self.is_scalar(b)) {
            (false, true) => Some(a),
            (true, false) => Some(b),
            _ => None,
        }
    }

    /// Matches the call that starts at (or is recognised by) a node; all its nodes are taken.
    pub fn group(&mut self, id: NodeId) -> Option<(Vec<NodeId>, &'static str)> {
        if self.taken[id.0 as usize] {
            return None;
        }
        let found = match self.op(id) {
            "MatMul" => self.linear(id),
            "Div" | "Mul" => self.gelu(id).or_else(|| self.gelu_tanh(id)).or_else(|| self.attention(id)),
            "Sigmoid" | "HardSigmoid" => self.gated(id),
            "Softplus" => self.mish(id),
            "ReduceMean" => self.layer_norm(id),
            "Reshape" => self.group_norm(id),
            _ => None,
        };
        let (mut nodes, aten) = found.unwrap_or_else(|| (vec![id], self.single(id)));
        nodes.sort();
        nodes.dedup();
        if nodes.iter().any(|n| self.taken[n.0 as usize]) {
            (nodes, _) = (vec![id], ());
            self.taken[id.0 as usize] = true;
            return Some((nodes, self.single(id)));
        }
        nodes.iter().for_each(|n| self.taken[n.0 as usize] = true);
        Some((nodes, aten))
    }

    /// The call of a node alone.
    fn single(&self, id: NodeId) -> &'static str {
        match self.op(id) {
            "Conv" | "FusedConv" => "conv",
            "ConvTranspose" => "conv_transpose",
            "Gemm" => "linear",
            "MatMul" => match self.input(id, 1) {
                Some(w) if self.is_weight(id, w) => "linear",
                _ => "matmul",
            },
            "Einsum" => "einsum",
            "BatchNormalization" => "batch_norm",
            "LayerNormalization" => "layer_norm",
            "InstanceNormalization" => "instance_norm",
            "GroupNormalization" => "group_norm",
            "RMSNormalization" | "SimplifiedLayerNormalization" => "rms_norm",
            "LSTM" => "lstm",
            "GRU" => "gru",
            "RNN" => "rnn",
            "Attention" | "MultiHeadAttention" => "scaled_dot_product_attention",
            "Relu" => "relu",
            "Clip" => "hardtanh",
            "LeakyRelu" => "leaky_relu",
            "PRelu" => "prelu",
            "Elu" => "elu",
            "Swish" => "silu",
            "Gelu" | "FastGelu" | "BiasGelu" | "QuickGelu" => "gelu",
            "HardSwish" => "hardswish",
            "HardSigmoid" => "hardsigmoid",
            "Sigmoid" => "sigmoid",
            "Tanh" => "tanh",
            "Mish" => "mish",
            "Softplus" => "softplus",
            "Softmax" => "softmax",
            "LogSoftmax" => "log_softmax",
            "MaxPool" => "max_pool2d",
            "AveragePool" => "avg_pool2d",
            "GlobalAveragePool" => "adaptive_avg_pool2d",
            "GlobalMaxPool" => "adaptive_max_pool2d",
            "ReduceMean" => "mean",
            "Resize" | "Upsample" => "upsample",
            "Gather" => "embedding",
            "Mul" => "mul",
            "GridSample" => "grid_sampler",
            _ => "",
        }
    }

    /// Whether the right operand of a product is the weight of a linear layer, which exporters store transposed under another name. A
    /// parameter used as it is was multiplied by hand (unless it is the node's own module's, as in the zoo).
    fn is_weight(&self, id: NodeId, w: ValueId) -> bool {
        let own = |name: &str| {
            let path = super::evidence::origin(self.node(id)).path.unwrap_or_default();
            name.strip_suffix(".weight").is_some_and(|p| p == path)
        };
        self.is_static(w)
            && self.graph.value(w).fact.shape.rank() == Some(2)
            && (!is_parameter(self.graph, w) || own(&self.graph.value(w).name))
    }

    /// MatMul with a weight, and the Add of its bias.
    fn linear(&self, id: NodeId) -> Option<(Vec<NodeId>, &'static str)> {
        let w = self.input(id, 1)?;
        if !self.is_weight(id, w) {
            return None;
        }
        let width = self.graph.value(w).fact.shape.concrete()?.get(1).copied();
        let add = self.next(id, &["Add"]).filter(|&a| {
            self.node(a).inputs.iter().flatten().any(|&v| {
                let fact = &self.graph.value(v).fact;
                self.is_static(v) && fact.shape.rank() == Some(1) && fact.elements() == width
            })
        });
        Some((std::iter::once(id).chain(add).collect(), "linear"))
    }

    /// x/√2 → Erf → +1 → ·x → ·½, with the factors in any place.
    fn gelu(&self, first: NodeId) -> Option<(Vec<NodeId>, &'static str)> {
        let x = self.scaled(first)?;
        let erf = self.next(first, &["Erf"])?;
        let add = self.next(erf, &["Add"])?;
        let mut nodes = vec![first, erf, add];
        let mut at = add;
        for _ in 0..2 {
            at = self.next(at, &["Mul", "Div"])?;
            nodes.push(at);
        }
        // ½x may be made apart, before.
        for v in self.node(nodes[3]).inputs.iter().chain(&self.node(nodes[4]).inputs).flatten() {
            if let Some(p) = self.producer(*v).filter(|p| !nodes.contains(p) && self.op(*p) == "Mul")
                && self.scaled(p) == Some(x)
            {
                nodes.push(p);
            }
        }
        Some((nodes, "gelu"))
    }

    /// The tanh form, as `gelu(approximate="tanh")` exports it (cubes by products); code that spells it with pow is no such call.
    fn gelu_tanh(&self, first: NodeId) -> Option<(Vec<NodeId>, &'static str)> {
        // x·x → ·x → ·0.044715 → +x → ·√(2/π) → Tanh → +1 → ·(x/2) …
        let (a, b) = (self.input(first, 0)?, self.input(first, 1)?);
        if a != b || self.is_static(a) {
            return None;
        }
        let mut nodes = vec![first];
        let mut at = first;
        for op in ["Mul", "Mul", "Add", "Mul", "Tanh", "Add", "Mul"] {
            at = self.next(at, &[op])?;
            nodes.push(at);
        }
        if let Some(last) = self.next(at, &["Mul"]).filter(|&m| self.scaled(m).is_some()) {
            nodes.push(last);
        }
        for v in self.node(at).inputs.iter().flatten() {
            if let Some(p) = self.producer(*v).filter(|p| !nodes.contains(p) && self.op(*p) == "Mul")
                && self.scaled(p) == Some(a)
            {
                nodes.push(p);
            }
        }
        Some((nodes, "gelu"))
    }

    /// Sigmoid(x)·x, HardSigmoid(x)·x.
    fn gated(&self, id: NodeId) -> Option<(Vec<NodeId>, &'static str)> {
        let mul = self.joins(id, self.input(id, 0)?, "Mul")?;
        Some((vec![id, mul], if self.op(id) == "Sigmoid" { "silu" } else { "hardswish" }))
    }

    /// Tanh(Softplus(x))·x.
    fn mish(&self, id: NodeId) -> Option<(Vec<NodeId>, &'static str)> {
        let tanh = self.next(id, &["Tanh"])?;
        Some((vec![id, tanh, self.joins(tanh, self.input(id, 0)?, "Mul")?], "mish"))
    }

    /// ReduceMean → Sub → Pow → ReduceMean → Add → Sqrt → Div, then ·scale and + shift.
    fn layer_norm(&self, mean: NodeId) -> Option<(Vec<NodeId>, &'static str)> {
        let x = self.input(mean, 0)?;
        let sub = self.joins(mean, x, "Sub")?;
        let centred = self.node(sub).outputs.first().copied().flatten()?;
        let pow = self.readers[centred.0 as usize].iter().copied().find(|&n| matches!(self.op(n), "Pow" | "Mul"))?;
        let second = self.next(pow, &["ReduceMean"])?;
        let add = self.next(second, &["Add"])?;
        let sqrt = self.next(add, &["Sqrt"])?;
        let div = self.joins(sqrt, centred, "Div")?;
        let mut nodes = vec![mean, sub, pow, second, add, sqrt, div];
        for op in ["Mul", "Add"] {
            let Some(next) = self.next(*nodes.last()?, &[op]) else { break };
            if !self.node(next).inputs.iter().flatten().any(|&v| self.is_static(v)) {
                break;
            }
            nodes.push(next);
        }
        Some((nodes, "layer_norm"))
    }

    /// Reshape → InstanceNormalization → Reshape, then ·scale and + shift.
    fn group_norm(&self, reshape: NodeId) -> Option<(Vec<NodeId>, &'static str)> {
        let norm = self.next(reshape, &["InstanceNormalization"])?;
        let back = self.next(norm, &["Reshape"])?;
        let mut nodes = vec![reshape, norm, back];
        for op in ["Mul", "Add"] {
            let Some(next) = self.next(*nodes.last()?, &[op]) else { break };
            if !self.node(next).inputs.iter().flatten().any(|&v| self.is_static(v)) {
                break;
            }
            nodes.push(next);
        }
        Some((nodes, "group_norm"))
    }

    /// `scaled_dot_product_attention` scales query and key by √scale each; code that spells attention out scales one of them or the
    /// scores. Mul, Mul → MatMul → (mask) → Softmax → MatMul.
    fn attention(&self, first: NodeId) -> Option<(Vec<NodeId>, &'static str)> {
        self.scaled(first)?;
        let product = self.next(first, &["MatMul"])?;
        let mut nodes = vec![first, product];
        for v in self.node(product).inputs.iter().flatten() {
            let mul = self.producer(*v).filter(|&p| self.op(p) == "Mul")?;
            self.scaled(mul)?;
            nodes.push(mul);
        }
        let mut at = product;
        for _ in 0..4 {
            at = self.next(at, &["Add", "Where", "Cast", "Softmax"])?;
            nodes.push(at);
            if self.op(at) == "Softmax" {
                break;
            }
        }
        // A row of a mask that hides everything gives NaN, which newer exports replace.
        if let Some(out) = self.node(at).outputs.first().copied().flatten() {
            let readers = &self.readers[out.0 as usize];
            if let Some(nan) = readers.iter().find(|&&r| self.op(r) == "IsNaN")
                && let Some(fix) = readers.iter().find(|&&r| self.op(r) == "Where")
            {
                nodes.extend([*nan, *fix]);
                at = *fix;
            }
        }
        let last = self.next(at, &["MatMul", "Cast", "Dropout"])?;
        nodes.push(last);
        let last = if self.op(last) == "MatMul" { last } else { self.next(last, &["MatMul"])? };
        nodes.push(last);
        Some((nodes, "scaled_dot_product_attention"))
    }
}
