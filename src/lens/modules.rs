//! Which module made each call: from its class where the file tells, else from who else is in its scope. Attention modules are put
//! together, and encoder layers that torch runs as one kernel are marked.

use super::calls::{Act, Call, Module, MultiHead, Norm, Pool, Program, Spelling, What};
use super::evidence;
use super::recognize::Draft;
use crate::ir::{Graph, Model, NodeId, Source};
use std::collections::{BTreeSet, HashMap};

/// Decides modules and finishes the program.
pub fn assign(model: &Model, mut drafts: Vec<Draft>, told: bool, mut program: Program) -> Program {
    let graph = &model.graph;
    // What the built-in networks do is done by modules in the code they follow; their paths join what belongs together.
    let built_in = model.producer.0 == "madd-prof";
    let scopes = Scopes::of(graph, &drafts);
    let act_norms = norms_with_activations(graph, &drafts);
    for (i, d) in drafts.iter_mut().enumerate() {
        d.call.module = if built_in { usual(&d.call.what) } else { scopes.module(d) };
        if act_norms.contains(&i) {
            d.call.module = Module::Custom("BatchNormAct2d".into());
        }
        // transformers' activation modules hold torch.nn.functional.gelu as an attribute.
        let class = d.origin.classes.last().map_or("", String::as_str);
        let held = class.starts_with("transformers.activations.")
            || (class.is_empty() && path(d).ends_with("intermediate_act_fn"));
        if held && matches!(d.call.what, What::Act(Act::Gelu)) {
            d.call.module = Module::Custom("GELUActivation".into());
            d.call.kept_function = true;
        }
    }
    if drafts.iter().any(|d| d.origin.path.is_none()) {
        program
            .notes
            .push("node names do not say which calls were modules: taken for modules wherever torch.nn has one".into());
    }
    if !told {
        spelling(graph, &mut drafts, &mut program);
    }
    parameters(graph, &mut drafts, &scopes);
    timm(&mut drafts);
    let mut calls = attention_modules(graph, drafts);
    fused_layers(&mut calls);
    program.calls = calls.into_iter().map(|(call, _)| call).collect();
    program
}

/// The parent of a dotted path.
fn parent(path: &str) -> &str {
    path.rsplit_once('.').map_or("", |(p, _)| p)
}

fn path(d: &Draft) -> &str {
    d.origin.path.as_deref().unwrap_or("")
}

/// Kinds of calls, to tell whether a scope holds only one.
fn kind(what: &What) -> &'static str {
    match what {
        What::Conv(_) => "conv",
        What::Linear { .. } => "linear",
        What::Addmm { .. } => "addmm",
        What::Product { .. } => "product",
        What::Attention => "attention",
        What::MultiHead(_) => "multi-head",
        What::Recurrent(_) => "recurrent",
        What::Norm { .. } => "norm",
        What::Act(_) => "activation",
        What::Softmax { .. } => "softmax",
        What::Pool(_) => "pool",
        What::Upsample { .. } => "upsample",
        What::Embedding(_) => "embedding",
        What::Mul { .. } => "mul",
        What::Add => "add",
        What::Parameters(_) => "parameters",
        What::GridSample(_) => "grid sample",
    }
}

/// Folded BatchNorms that were timm's BatchNormAct2d, which runs its activation inside (`bn1.act`): those whose convolution is read by
/// such an activation alone, and all of them where most are.
fn norms_with_activations(graph: &Graph, drafts: &[Draft]) -> BTreeSet<usize> {
    let inside = |path: &str| {
        let Some(norm) = path.strip_suffix(".act") else { return false };
        let last = norm.rsplit('.').next().unwrap_or(norm);
        last.starts_with("bn") || last.starts_with("norm")
    };
    let norms: Vec<usize> =
        (0..drafts.len()).filter(|&i| folded(&drafts[i].call.what) && drafts[i].origin.classes.is_empty()).collect();
    if norms.is_empty() || !drafts.iter().any(|d| inside(path(d))) {
        return BTreeSet::new();
    }
    let mut readers: HashMap<crate::ir::ValueId, Vec<NodeId>> = HashMap::new();
    for (id, node) in graph.iter() {
        node.inputs.iter().flatten().for_each(|v| readers.entry(*v).or_default().push(id));
    }
    let at: HashMap<NodeId, &str> = drafts.iter().flat_map(|d| d.call.nodes.iter().map(|&n| (n, path(d)))).collect();
    let with = |i: &usize| {
        let out = drafts[*i].call.nodes.first().and_then(|&n| graph.node(n).outputs.first().copied().flatten());
        let next = out.and_then(|o| readers.get(&o)).map_or(&[][..], Vec::as_slice);
        next.iter().any(|n| {
            at.get(n).is_some_and(|p| inside(p)) || evidence::origin(graph.node(*n)).path.is_some_and(|p| inside(&p))
        })
    };
    let found: BTreeSet<usize> = norms.iter().copied().filter(with).collect();
    if 2 * found.len() > norms.len() { norms.into_iter().collect() } else { found }
}

fn folded(what: &What) -> bool {
    matches!(what, What::Norm { norm: Norm::Batch(true), .. })
}

/// Who is in which scope.
struct Scopes {
    kinds: HashMap<String, BTreeSet<&'static str>>,
    /// Paths with transpositions.
    transposed: BTreeSet<String>,
    /// Paths with modules inside.
    outer: BTreeSet<String>,
}

impl Scopes {
    fn of(graph: &Graph, drafts: &[Draft]) -> Scopes {
        let mut scopes = Scopes { kinds: HashMap::new(), transposed: BTreeSet::new(), outer: BTreeSet::new() };
        for node in graph.nodes().iter().filter(|n| !n.is_static) {
            let origin = evidence::origin(node);
            let mut at = origin.path.as_deref().unwrap_or("");
            if node.op_type == "Transpose" {
                scopes.transposed.insert(at.to_string());
            }
            while !at.is_empty() {
                at = parent(at);
                if !scopes.outer.insert(at.to_string()) {
                    break;
                }
            }
        }
        let beside = |what: &What| folded(what) || matches!(what, What::Parameters(_));
        for d in drafts.iter().filter(|d| !beside(&d.call.what)) {
            scopes.kinds.entry(path(d).to_string()).or_default().insert(kind(&d.call.what));
        }
        scopes
    }

    /// Whether the scope is a module that does one thing.
    fn is_leaf(&self, path: &str) -> bool {
        !path.is_empty() && !self.outer.contains(path) && self.kinds.get(path).is_some_and(|k| k.len() == 1)
    }

    fn module(&self, d: &Draft) -> Module {
        let usual = usual(&d.call.what);
        let always =
            matches!(d.call.what, What::Conv(_) | What::Norm { norm: Norm::Batch(_), .. } | What::Recurrent(_));
        let Some(class) = d.origin.classes.last() else {
            // A norm that transposes is a subclass for images.
            if matches!(d.call.what, What::Norm { norm: Norm::Layer, .. })
                && self.is_leaf(path(d))
                && self.transposed.contains(path(d))
            {
                return Module::Custom("LayerNorm2d".into());
            }
            let module = d.origin.path.is_none() || self.is_leaf(path(d)) || always;
            return if module { usual } else { Module::Function };
        };
        let short = class.rsplit('.').next().unwrap_or(class);
        let norm = short.contains("Norm");
        match class.strip_prefix("torch.nn.modules.") {
            // The node of a folded BatchNorm says BatchNorm, of which the convolution is no part.
            Some(_) if norm && !matches!(d.call.what, What::Norm { .. }) => usual,
            Some(rest)
                if !rest.starts_with("container.")
                    && !rest.starts_with("transformer.")
                    && short != "MultiheadAttention" =>
            {
                Module::Nn(short.to_string())
            }
            Some(_) => Module::Function,
            None if norm && !matches!(d.call.what, What::Norm { .. }) && by_batch_norm(d) => usual,
            None if folded(&d.call.what) => {
                if norm {
                    Module::Custom(short.to_string())
                } else {
                    usual
                }
            }
            None if self.is_leaf(path(d)) => Module::Custom(short.to_string()),
            None => Module::Function,
        }
    }
}

/// Whether the nodes say they are a BatchNorm (what it was folded into is beside it).
fn by_batch_norm(d: &Draft) -> bool {
    d.origin.aten.as_deref().is_some_and(|a| a.contains("batch_norm"))
}

/// The torch.nn class such a call usually comes from.
fn usual(what: &What) -> Module {
    let class = match what {
        What::Conv(c) if c.transposed => "ConvTranspose2d",
        What::Conv(_) => "Conv2d",
        What::Linear { .. } => "Linear",
        What::Addmm { .. } => return Module::Custom("Conv1D".into()),
        What::Recurrent(r) => match r.gates {
            4 => "LSTM",
            3 => "GRU",
            _ => "RNN",
        },
        What::Norm { norm, .. } => match norm {
            Norm::Batch(_) => "BatchNorm2d",
            Norm::Layer => "LayerNorm",
            Norm::Group => "GroupNorm",
            Norm::Instance => "InstanceNorm2d",
            Norm::Rms => "RMSNorm",
        },
        What::Act(act) => match act {
            Act::Relu => "ReLU",
            Act::Relu6 => "ReLU6",
            Act::LeakyRelu => "LeakyReLU",
            Act::PRelu => "PReLU",
            Act::Elu => "ELU",
            Act::Silu => "SiLU",
            Act::Gelu => "GELU",
            Act::HardSwish => "Hardswish",
            Act::HardSigmoid => "Hardsigmoid",
            Act::Sigmoid => "Sigmoid",
            Act::Tanh => "Tanh",
            Act::Mish => "Mish",
            Act::Softplus => "Softplus",
        },
        What::Softmax { log: true, .. } => "LogSoftmax",
        What::Softmax { .. } => "Softmax",
        What::Pool(pool) => match pool {
            Pool::Max => "MaxPool2d",
            Pool::Average(_) => "AvgPool2d",
            Pool::AdaptiveAverage => "AdaptiveAvgPool2d",
            Pool::AdaptiveMax => "AdaptiveMaxPool2d",
            Pool::Mean => return Module::Function,
        },
        What::Upsample { .. } => "Upsample",
        What::Embedding(_) => "Embedding",
        What::Parameters(_) => "PReLU",
        What::Product { .. }
        | What::Attention
        | What::MultiHead(_)
        | What::Mul { .. }
        | What::Add
        | What::GridSample(_) => return Module::Function,
    };
    Module::Nn(class.into())
}

/// How products of activations were written, where nothing tells: one linear layer for q, k and v, or a scaled query, goes with `@`
/// and `x.softmax()`; separate layers and divided scores go with `torch.matmul` and `F.softmax`.
fn spelling(graph: &Graph, drafts: &mut [Draft], program: &mut Program) {
    let mut at = BTreeSet::new();
    for d in drafts.iter() {
        if let What::Linear { k, n, .. } = d.call.what
            && n == 3 * k
            && d.call.module != Module::Function
        {
            at.insert(parent(path(d)).to_string());
        }
        if let (What::Product { .. }, Some(&node)) = (&d.call.what, d.call.nodes.first())
            && scaled_query(graph, node)
        {
            at.insert(path(d).to_string());
        }
    }
    // Code that calls its projections as functions (torchvision's) calls its products so too.
    for d in drafts.iter().filter(|d| matches!(d.call.what, What::Linear { .. }) && d.call.module == Module::Function) {
        at.remove(path(d));
    }
    let mut assumed = false;
    for d in drafts.iter_mut() {
        let by_operator = at.contains(path(d));
        match &mut d.call.what {
            What::Product { spelling: spelling @ Spelling::Matmul, .. } => {
                assumed = true;
                if by_operator {
                    *spelling = Spelling::At;
                }
            }
            What::Softmax { patched, .. } if d.call.module == Module::Function => *patched = !by_operator,
            _ => {}
        }
    }
    program.spelling_assumed = assumed;
}

/// Whether the first operand of a product is something times a single number.
fn scaled_query(graph: &Graph, product: NodeId) -> bool {
    let node = graph.node(product);
    let Some(lhs) = node.inputs.first().copied().flatten() else { return false };
    let Source::Node(id, _) = graph.value(lhs).source else { return false };
    let mul = graph.node(id);
    let scalar = |v: &crate::ir::ValueId| graph.value(*v).is_static && graph.value(*v).fact.elements() == Some(1);
    mul.op_type == "Mul" && mul.inputs.iter().flatten().any(scalar)
}

/// Learned vectors that custom leaf modules (an RMSNorm written out) use elementwise.
fn parameters(graph: &Graph, drafts: &mut Vec<Draft>, scopes: &Scopes) {
    let mut made: Vec<Draft> = Vec::new();
    for d in drafts.iter().filter(|d| matches!(d.call.what, What::Mul { .. })) {
        let (Some(&id), at) = (d.call.nodes.first(), path(d)) else { continue };
        if at.is_empty() || scopes.outer.contains(at) {
            continue;
        }
        let class = d.origin.classes.last().map_or("", |c| c.rsplit('.').next().unwrap_or(c)).to_string();
        let own = |v: &crate::ir::ValueId| {
            let value = graph.value(*v);
            let rest = value.name.rsplit_once('.');
            let owned = rest.is_some_and(|(p, n)| p.ends_with(at) && (n == "weight" || n == "bias"));
            if value.is_static && owned { value.fact.elements() } else { None }
        };
        if let Some(n) = graph.node(id).inputs.iter().flatten().find_map(own) {
            let what = What::Parameters(n as i128);
            made.push(Draft {
                call: Call { what, module: Module::Custom(class), ..d.call.clone() },
                origin: d.origin.clone(),
            });
        }
    }
    drafts.extend(made);
}

/// Marks what runs inside timm's Attention: its class, or `blocks.N.attn` with a joint projection.
fn timm(drafts: &mut [Draft]) {
    let joint: BTreeSet<String> = drafts
        .iter()
        .filter(|d| matches!(d.call.what, What::Linear { k, n, .. } if n == 3 * k) && path(d).ends_with(".qkv"))
        .map(|d| parent(path(d)).to_string())
        .collect();
    for d in drafts.iter_mut() {
        let is = |c: &String| c == "timm.layers.attention.Attention" || c == "timm.models.vision_transformer.Attention";
        let told = d.origin.classes.iter().any(is);
        let at = path(d);
        let inside =
            |scope: &String| at.strip_prefix(scope.as_str()).is_some_and(|r| r.is_empty() || r.starts_with('.'));
        let named = d.origin.classes.is_empty() && at.starts_with("blocks.") && joint.iter().any(inside);
        d.call.in_timm_attention = told || named;
    }
}

/// The scope of the nn.MultiheadAttention a draft belongs to.
fn multi_head_scope(graph: &Graph, d: &Draft, squeezed: &BTreeSet<String>) -> Option<String> {
    let at = path(d);
    if let Some(class) = d.origin.classes.last() {
        return (class == "torch.nn.modules.activation.MultiheadAttention").then(|| at.to_string());
    }
    let What::Linear { k, n, .. } = d.call.what else { return None };
    if let Some(outer) = at.strip_suffix(".in_proj") {
        return Some(outer.to_string());
    }
    if d.call.module != Module::Function {
        return None;
    }
    let names =
        |id: NodeId| graph.node(id).inputs.iter().flatten().map(|v| graph.value(*v).name.clone()).collect::<Vec<_>>();
    let mut all: Vec<String> = d.call.nodes.iter().flat_map(|&id| names(id)).collect();
    // The Add of a bias is not among the costly nodes.
    for &id in &d.call.nodes {
        for out in graph.node(id).outputs.iter().flatten() {
            let readers = graph.iter().filter(|(_, r)| r.inputs.contains(&Some(*out)));
            all.extend(readers.flat_map(|(r, _)| names(r)));
        }
    }
    let own = all.iter().any(|name| name.contains("in_proj_") || name.contains("out_proj."));
    (own || (n == 3 * k && squeezed.contains(at))).then(|| at.to_string())
}

/// Puts the calls of each nn.MultiheadAttention together.
fn attention_modules(graph: &Graph, drafts: Vec<Draft>) -> Vec<(Call, String)> {
    let squeezed: BTreeSet<String> = graph
        .nodes()
        .iter()
        .filter(|n| n.op_type == "Squeeze" && !n.is_static)
        .filter_map(|n| evidence::origin(n).path)
        .collect();
    let scopes: BTreeSet<String> = drafts.iter().filter_map(|d| multi_head_scope(graph, d, &squeezed)).collect();
    let scope_of = |d: &Draft| {
        let at = path(d);
        let inner = at.strip_suffix(".in_proj").or_else(|| at.strip_suffix(".out_proj")).unwrap_or(at);
        scopes.get(inner).cloned()
    };
    let mut out: Vec<(Call, String)> = Vec::new();
    let mut open: Vec<(String, Vec<Draft>)> = Vec::new();
    for d in drafts {
        let Some(scope) = scope_of(&d) else {
            out.push((d.call.clone(), path(&d).to_string()));
            continue;
        };
        // A module that is called again starts again with its input projection.
        let starts = matches!(d.call.what, What::Linear { k, n, .. } if n == 3 * k);
        match open.iter_mut().rev().find(|(s, _)| *s == scope).filter(|_| !starts) {
            Some((_, group)) => group.push(d),
            None => open.push((scope, vec![d])),
        }
    }
    for (scope, group) in open {
        match multi_head(graph, &group) {
            Some(call) => out.push((call, scope)),
            None => out.extend(group.into_iter().map(|d| (d.call, scope.clone()))),
        }
    }
    out.sort_by_key(|(call, _)| call.nodes.first().copied());
    out
}

/// One call of an nn.MultiheadAttention from what is inside.
fn multi_head(graph: &Graph, group: &[Draft]) -> Option<Call> {
    let zoo = group.iter().any(|d| path(d).ends_with(".in_proj"));
    let softmax = |d: &&Draft| matches!(d.call.what, What::Softmax { .. });
    let mut calls: Vec<Call> = group.iter().filter(|d| !(zoo && softmax(d))).map(|d| d.call.clone()).collect();
    for c in &mut calls {
        c.module = Module::Function;
        if zoo && matches!(c.what, What::Product { .. }) {
            // Built-in networks spell out what their models call scaled_dot_product_attention.
            c.what = What::Attention;
        }
        match &mut c.what {
            What::Product { spelling: spelling @ (Spelling::At | Spelling::Matmul), .. } => *spelling = Spelling::Bmm,
            What::Softmax { patched, .. } => *patched = true,
            _ => {}
        }
    }
    let first = calls.iter().find(|c| matches!(c.what, What::Linear { .. }))?;
    let What::Linear { k: embed, n, bias, .. } = first.what else { return None };
    let last = calls.iter().rev().find(|c| matches!(c.what, What::Product { .. } | What::Attention))?;
    let &[.., queries, width] = last.output.as_slice() else { return None };
    let heads = embed / (width as i128).max(1);
    let keys = match group.iter().find(|d| matches!(d.call.what, What::Product { .. })) {
        Some(scores) => *scores.call.output.last()? as i128,
        // Two products of q·k·(d + d).
        None => last.madds / (last.made() * 2).max(1),
    };
    let packed = n == 3 * embed;
    let batch = first.read() / (embed * queries as i128).max(1);
    let data = graph.node(*first.nodes.first()?).inputs.first().copied().flatten()?;
    let batch_first = match graph.value(data).source {
        Source::Node(id, _) => {
            graph.node(id).op_type == "Transpose"
                && evidence::origin(graph.node(id)).path.as_deref() == Some(path(&group[0]))
        }
        _ => false,
    };
    let fused = packed && bias && heads % 2 == 0 && (batch_first || zoo);
    let costly: Vec<NodeId> = calls.iter().filter(|c| c.madds > 0).flat_map(|c| c.nodes.clone()).collect();
    Some(Call {
        nodes: costly,
        madds: calls.iter().map(|c| c.madds).sum(),
        input: first.input.clone(),
        output: calls.last()?.output.clone(),
        module: Module::Nn("MultiheadAttention".into()),
        kept_function: false,
        in_fused_layer: false,
        in_timm_attention: false,
        what: What::MultiHead(MultiHead {
            batch,
            queries: queries as i128,
            keys,
            embed,
            heads,
            bias,
            fused,
            inner: calls,
        }),
    })
}

/// Finds encoder and decoder layers (attention, two linear layers, two norms): they keep their activation as a function, and torch runs
/// some encoder layers as one kernel.
fn fused_layers(calls: &mut [(Call, String)]) {
    let paths: BTreeSet<String> = calls.iter().map(|(_, p)| p.clone()).collect();
    let mut layers: Vec<(String, bool)> = Vec::new();
    for (call, path) in calls.iter() {
        let What::MultiHead(m) = &call.what else { continue };
        let layer = parent(path).to_string();
        let has = |child: &str| {
            paths.contains(&if layer.is_empty() { child.to_string() } else { format!("{layer}.{child}") })
        };
        if path.ends_with("self_attn") && ["linear1", "linear2", "norm1", "norm2"].iter().all(|c| has(c)) {
            let decoder = has("multihead_attn");
            layers.push((layer, m.fused && !decoder));
        }
    }
    for (call, path) in calls.iter_mut() {
        let inside = |l: &str| l.is_empty() || path == l || path.strip_prefix(l).is_some_and(|r| r.starts_with('.'));
        let act = matches!(call.what, What::Act(_)) && call.module == Module::Function;
        call.kept_function |= act && layers.iter().any(|(l, _)| inside(l));
        call.in_fused_layer = layers.iter().any(|(l, fused)| *fused && inside(l));
    }
}
