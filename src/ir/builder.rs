//! The only way a [`Graph`] comes to be: names resolved, nodes sorted, dims bound, shapes inferred, shape arithmetic folded.
//!
//! Folding is what makes real exports analysable: chains like Shape → Gather → Concat → Reshape are computed here, with the
//! operators' own reference kernels, so that every later shape is a number.

use super::graph::{Graph, Node, NodeId, Source, Value, ValueId};
use super::inline::inline;
use crate::error::{Error, Result};
use crate::ops::control::Refused;
use crate::ops::custom::Rules;
use crate::ops::spec::{Attr, DimSpec, GraphSpec, ModelSpec, NodeSpec, ValueSpec};
use crate::ops::{Body, EvalCx, Infer, Input, Op};
use crate::tensor::{Container, DType, Fact, Shape, Tensor};
use foldhash::{HashMap, HashMapExt, HashSet};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What the user binds free dims to.
#[derive(Debug, Clone, Default)]
pub struct Bindings {
    /// Sizes of named dims (`--dim batch=1`).
    pub dims: BTreeMap<String, usize>,
    /// Whole input shapes (`--input-shape x=1x3x224x224`).
    pub shapes: BTreeMap<String, Vec<usize>>,
    /// Values of small inputs (`--value sr=16000`): they become constants, so what depends on them is decided.
    pub values: BTreeMap<String, Vec<f64>>,
    /// What the user says operators cost that this build does not know.
    pub rules: Arc<Rules>,
}

/// A model ready for analysis and execution.
#[derive(Debug, Clone)]
pub struct Model {
    /// The top graph.
    pub graph: Graph,
    /// Imported operator sets.
    pub opsets: Vec<(String, i64)>,
    /// Producer name and version.
    pub producer: (String, String),
    /// What every free dim was bound to, by the user or by default.
    pub bound: BTreeMap<String, usize>,
    /// Things the user should know: dims taken as 1, files read with care.
    pub notes: Vec<String>,
}

/// Builds a model from what a file or the zoo says.
///
/// # Errors
/// If a dim is unbound (the message names the flag that binds it), the graph is malformed (cycle, missing or doubly produced
/// value), or a node contradicts its operator.
pub fn build(spec: &ModelSpec, bindings: &Bindings) -> Result<Model> {
    if let Some((domain, version)) = spec.opsets.iter().find(|(_, v)| *v < 1) {
        let domain = if domain.is_empty() { "ai.onnx" } else { domain };
        return Err(Error::input(format!(
            "imports version {version} of the operator set {domain}; versions start at 1"
        )));
    }
    let mut notes = spec.notes.clone();
    let fixed = with_values(&spec.graph, &bindings.values)?;
    let top = fixed.as_ref().unwrap_or(&spec.graph);
    let (facts, bound) = bind_inputs(top, bindings, &mut notes)?;
    let mut scopes = Vec::new();
    let built = build_graph(top, &mut scopes, Formals::Facts(facts), &bindings.rules)?;
    notes.extend(built.notes);
    Ok(Model { graph: built.graph, opsets: spec.opsets.clone(), producer: spec.producer.clone(), bound, notes })
}

// ---------------------------------------------------------------------------------------------------------------- inputs

/// The graph with inputs of given value turned into constants; `None` when there are none.
fn with_values(graph: &GraphSpec, values: &BTreeMap<String, Vec<f64>>) -> Result<Option<GraphSpec>> {
    if values.is_empty() {
        return Ok(None);
    }
    let mut graph = graph.clone();
    for (name, numbers) in values {
        let Some(at) = graph.inputs.iter().position(|v| v.name == *name) else {
            let known: Vec<&str> = graph.inputs.iter().map(|v| v.name.as_str()).collect();
            return Err(Error::usage(format!("--value: the model has no input '{name}'"))
                .hint(format!("its inputs are: {}", known.join(", "))));
        };
        let input = graph.inputs.remove(at);
        let dtype = input
            .dtype
            .filter(|d| *d != DType::Str)
            .ok_or_else(|| Error::usage(format!("--value {name}: the input's element type takes no numbers")))?;
        let free = |d: &DimSpec| !matches!(d, DimSpec::Size(_));
        let dims: Vec<usize> = match &input.shape {
            // One free dim takes the length of the list.
            Some(dims) if dims.iter().filter(|d| free(d)).count() <= 1 => {
                let rest: usize = dims.iter().map(|d| if let DimSpec::Size(n) = d { *n } else { 1 }).product();
                let open = numbers.len() / rest.max(1);
                dims.iter().map(|d| if let DimSpec::Size(n) = d { *n } else { open }).collect()
            }
            Some(_) => {
                return Err(Error::usage(format!("--value {name}: the input has several free dims"))
                    .hint("only small inputs can be fixed; --input gives whole arrays"));
            }
            None if numbers.len() == 1 => Vec::new(),
            None => vec![numbers.len()],
        };
        let wide = Tensor::from_vec(numbers.clone(), &dims).map_err(|_| {
            let want = Shape::known(&dims);
            Error::usage(format!("--value {name}: {} numbers for a shape of {want}", numbers.len()))
        })?;
        let value = crate::ops::cast::cast(&wide, dtype, true)?;
        graph.initializers.retain(|(n, _)| n != name);
        graph.initializers.push((name.clone(), value));
    }
    Ok(Some(graph))
}

/// Whether a dim's name says "batch": what exporters and people write, and the names exporters make up.
fn is_batch_name(name: &str) -> bool {
    let n = name.to_ascii_lowercase();
    matches!(n.as_str(), "n" | "b" | "bs" | "none" | "batch") || n.contains("batch")
}

/// Names exporters make up for nameless dims (`s77`, `unk__12`, `dim_0`, `x.1_dim_0`).
fn is_made_up_name(name: &str) -> bool {
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    name.strip_prefix('s').is_some_and(digits)
        || name.strip_prefix("unk__").is_some_and(digits)
        || name.rsplit_once("dim_").is_some_and(|(_, d)| digits(d))
        || name.rsplit_once("DynamicDimension.").is_some_and(|(_, d)| digits(d))
        || name.rsplit_once("dynamic_axes_").is_some_and(|(_, d)| digits(d))
}

fn bind_inputs(
    graph: &GraphSpec,
    bindings: &Bindings,
    notes: &mut Vec<String>,
) -> Result<(HashMap<String, Fact>, BTreeMap<String, usize>)> {
    let constants: HashSet<&str> = graph.initializers.iter().map(|(n, _)| n.as_str()).collect();
    let inputs: Vec<&ValueSpec> = graph.inputs.iter().filter(|v| !constants.contains(v.name.as_str())).collect();
    for name in bindings.shapes.keys() {
        if !inputs.iter().any(|v| v.name == *name) {
            let known: Vec<&str> = inputs.iter().map(|v| v.name.as_str()).collect();
            return Err(Error::usage(format!("--input-shape: the model has no input '{name}'"))
                .hint(format!("its inputs are: {}", known.join(", "))));
        }
    }
    let mut bound: BTreeMap<String, usize> = BTreeMap::new();
    // Shapes given whole also bind the names they cover.
    for v in &inputs {
        let (Some(given), Some(dims)) = (bindings.shapes.get(&v.name), &v.shape) else { continue };
        if given.len() != dims.len() {
            return Err(Error::usage(format!(
                "--input-shape {}={}: the input has {} dims",
                v.name,
                Shape::known(given),
                dims.len()
            )));
        }
        for (d, &size) in dims.iter().zip(given) {
            if let DimSpec::Named(name) = d
                && bound.insert(name.clone(), size).is_some_and(|other| other != size)
            {
                return Err(Error::usage(format!("--input-shape binds the dim '{name}' to two sizes")));
            }
        }
    }
    let free: BTreeSet<&str> = inputs
        .iter()
        .flat_map(|v| v.shape.iter().flatten())
        .filter_map(|d| if let DimSpec::Named(n) = d { Some(n.as_str()) } else { None })
        .collect();
    for (name, &size) in &bindings.dims {
        if !free.contains(name.as_str()) {
            let hint = if free.is_empty() {
                "the model has no named free dims; --input-shape NAME=1x3x224x224 overrides a whole input".to_string()
            } else {
                format!("its free dims are: {}", free.iter().copied().collect::<Vec<_>>().join(", "))
            };
            return Err(Error::usage(format!("--dim {name}={size}: the model has no free dim '{name}'")).hint(hint));
        }
        if let Some(other) = bound.insert(name.clone(), size).filter(|&o| o != size) {
            return Err(Error::usage(format!("--dim {name}={size} contradicts --input-shape, which makes it {other}")));
        }
    }
    // A nameless or made-up dim is taken for the batch only in the first place of an input of rank 2 or more.
    for v in &inputs {
        for (axis, d) in v.shape.iter().flatten().enumerate() {
            let DimSpec::Named(name) = d else { continue };
            let batch = is_batch_name(name)
                || (is_made_up_name(name) && axis == 0 && v.shape.as_ref().is_some_and(|s| s.len() >= 2));
            if batch && !bound.contains_key(name) {
                notes.push(format!("dim '{name}' is free and taken as 1; --dim {name}=N sets it"));
                bound.insert(name.clone(), 1);
            }
        }
    }
    let mut facts = HashMap::new();
    for v in &inputs {
        let fact = if v.container != Container::Tensor {
            Fact { dtype: v.dtype, shape: Shape::UNKNOWN, container: v.container }
        } else if let Some(given) = bindings.shapes.get(&v.name) {
            if let Some(dims) = &v.shape {
                let fixed = dims.iter().zip(given).any(|(d, g)| matches!(d, DimSpec::Size(s) if s != g));
                if fixed {
                    notes.push(format!("the shape of input '{}' is overridden: {}", v.name, Shape::known(given)));
                }
            }
            Fact { dtype: v.dtype, shape: Shape::known(given), container: Container::Tensor }
        } else {
            let Some(dims) = &v.shape else {
                return Err(Error::usage(format!("input '{}' declares no shape", v.name))
                    .hint(format!("give it with --input-shape {}=1x3x224x224", v.name)));
            };
            let mut sizes = Vec::with_capacity(dims.len());
            for (axis, d) in dims.iter().enumerate() {
                sizes.push(match d {
                    DimSpec::Size(n) => *n,
                    DimSpec::Named(name) => *bound.get(name).ok_or_else(|| {
                        Error::usage(format!("dim '{name}' (axis {axis} of input '{}') is free", v.name))
                            .hint(format!("bind it, for example --dim {name}=128"))
                    })?,
                    DimSpec::Free if axis == 0 && dims.len() >= 2 => {
                        notes.push(format!(
                            "the first dim of input '{}' is free and taken as 1; --input-shape {}=… sets it",
                            v.name, v.name
                        ));
                        1
                    }
                    DimSpec::Free => {
                        let example: Vec<String> = dims
                            .iter()
                            .enumerate()
                            .map(|(i, d)| match d {
                                DimSpec::Size(n) => n.to_string(),
                                DimSpec::Named(n) => bound.get(n).map_or("1".into(), usize::to_string),
                                DimSpec::Free => if i == 0 { "1" } else { "224" }.to_string(),
                            })
                            .collect();
                        return Err(Error::usage(format!("axis {axis} of input '{}' is free and has no name", v.name))
                            .hint(format!(
                                "give the whole shape, for example --input-shape {}={}",
                                v.name,
                                example.join("x")
                            )));
                    }
                });
            }
            Fact { dtype: v.dtype, shape: Shape::known(&sizes), container: Container::Tensor }
        };
        if let Some(dims) = fact.shape.concrete() {
            crate::tensor::element_count(&dims).map_err(|e| e.at_node(&v.name, "input"))?;
        }
        facts.insert(v.name.clone(), fact);
    }
    bound.retain(|name, _| free.contains(name.as_str()));
    Ok((facts, bound))
}

// ----------------------------------------------------------------------------------------------------------------- graphs

/// What the formal inputs of a graph are.
enum Formals {
    /// By name, for the top graph; declared inputs not listed are constants.
    Facts(HashMap<String, Fact>),
    /// By position, for a subgraph; missing ones fall back on their declarations.
    Positional(Vec<Fact>),
}

/// A graph under construction.
#[derive(Default)]
struct Scope {
    graph: Graph,
    names: HashMap<String, ValueId>,
    /// Outer values captured, in capture order, as ids of the enclosing scope.
    captured: Vec<ValueId>,
    node_names: HashSet<String>,
    /// What the user should know; kept in the outermost scope.
    notes: Vec<String>,
    /// The user's cost rules.
    rules: Arc<Rules>,
    /// Whether subgraphs see values of this scope without their shapes.
    shapeless: bool,
}

struct Built {
    notes: Vec<String>,
    graph: Graph,
    captured: Vec<ValueId>,
}

impl Scope {
    fn add(
        &mut self,
        name: &str,
        fact: Fact,
        source: Source,
        constant: Option<Tensor>,
        is_static: bool,
    ) -> Result<ValueId> {
        let id = ValueId(
            u32::try_from(self.graph.values.len()).map_err(|_| Error::input("more values than can be numbered"))?,
        );
        if self.names.insert(name.to_string(), id).is_some() {
            return Err(Error::input(format!("value '{name}' is defined twice"))
                .hint("ONNX graphs are in single-assignment form; run onnx.checker on the file"));
        }
        self.graph.values.push(Value { name: name.to_string(), fact, source, constant, is_static });
        Ok(id)
    }

    /// Makes room for what a graph holds, so that nothing grows, and moves, while it is filled.
    fn reserve(&mut self, spec: &GraphSpec) {
        let values = spec.initializers.len() + spec.inputs.len() + spec.nodes.len();
        self.graph.values.reserve(values);
        self.names.reserve(values);
        // Constant nodes become values.
        let nodes = spec.nodes.iter().filter(|n| n.op_type != "Constant").count();
        self.graph.nodes.reserve(nodes);
        self.node_names.reserve(nodes);
    }

    fn add_constant(&mut self, name: &str, t: Tensor) -> Result<ValueId> {
        self.add(name, t.fact(), Source::Constant, Some(t), true)
    }
}

/// Finds a name in a scope or, through captures, in one of its enclosing scopes.
fn resolve(scopes: &mut [Scope], level: usize, name: &str) -> Option<ValueId> {
    if let Some(&id) = scopes[level].names.get(name) {
        return Some(id);
    }
    let outer = resolve(scopes, level.checked_sub(1)?, name)?;
    let value = scopes[level - 1].graph.values[outer.0 as usize].clone();
    let shapeless = scopes[level - 1].shapeless;
    let scope = &mut scopes[level];
    let number = scope.captured.len();
    let is_static = value.constant.is_some();
    let mut fact = value.fact;
    if shapeless && !is_static {
        fact.shape = Shape::UNKNOWN;
    }
    let id = scope.add(name, fact, Source::Capture(number), value.constant, is_static).ok()?;
    scope.captured.push(outer);
    scope.graph.captures.push(id);
    Some(id)
}

/// Results with more elements than this are not folded while building: they are weights, not shape arithmetic.
const FOLD_LIMIT: usize = 1 << 14;

fn build_graph(spec: &GraphSpec, scopes: &mut Vec<Scope>, formals: Formals, rules: &Arc<Rules>) -> Result<Built> {
    let level = scopes.len();
    scopes.push(Scope { rules: rules.clone(), ..Scope::default() });
    scopes[level].graph.name = spec.name.clone();
    let result = fill_graph(spec, scopes, level, formals);
    let scope = scopes.pop();
    result?;
    let scope = scope.unwrap_or_default();
    Ok(Built { notes: scope.notes, graph: scope.graph, captured: scope.captured })
}

fn fill_graph(spec: &GraphSpec, scopes: &mut Vec<Scope>, level: usize, formals: Formals) -> Result<()> {
    let constants: HashSet<&str> = spec.initializers.iter().map(|(n, _)| n.as_str()).collect();
    scopes[level].reserve(spec);
    for (name, t) in &spec.initializers {
        scopes[level].add_constant(name, t.clone())?;
    }
    for (i, v) in spec.inputs.iter().filter(|v| !constants.contains(v.name.as_str())).enumerate() {
        let fact = match &formals {
            Formals::Facts(facts) => facts.get(&v.name).cloned(),
            Formals::Positional(facts) => facts.get(i).cloned(),
        };
        let fact = fact.unwrap_or_else(|| declared(v));
        let id = scopes[level].add(&v.name, fact, Source::Input(i), None, false)?;
        scopes[level].graph.inputs.push(id);
    }
    let hints: HashMap<&str, &ValueSpec> =
        spec.value_info.iter().chain(&spec.outputs).map(|v| (v.name.as_str(), v)).collect();
    add_nodes(spec, scopes, level, &hints)?;
    for v in &spec.outputs {
        let id = resolve(scopes, level, &v.name)
            .ok_or_else(|| Error::input(format!("output '{}' is produced by no node", v.name)))?;
        scopes[level].graph.outputs.push(id);
    }
    Ok(())
}

/// Adds a graph's nodes in order. The branch of an If that is decided now takes the If's place.
fn add_nodes(spec: &GraphSpec, scopes: &mut Vec<Scope>, level: usize, hints: &HashMap<&str, &ValueSpec>) -> Result<()> {
    for index in topological_order(spec)? {
        let node = &spec.nodes[index];
        let at_node = |e: Error| e.at_node(&node.name, &node.op_type);
        let Some(branch) = decided_branch(node, scopes, level) else {
            add_node(node, scopes, level, hints).map_err(at_node)?;
            continue;
        };
        let later: HashSet<&str> = spec.nodes.iter().flat_map(|n| n.outputs.iter().map(String::as_str)).collect();
        let inlined = inline(node, branch, &|name| later.contains(name) || scopes[level].names.contains_key(name));
        for (name, t) in inlined.initializers {
            scopes[level].add_constant(&name, t).map_err(at_node)?;
        }
        let inner_hints = inlined.graph.value_info.iter().map(|v| (v.name.as_str(), v));
        add_nodes(&inlined.graph, scopes, level, &inner_hints.collect())?;
    }
    Ok(())
}

/// The branch of an If whose condition is known now, if it gives all the node's outputs.
fn decided_branch<'a>(node: &'a NodeSpec, scopes: &mut [Scope], level: usize) -> Option<&'a GraphSpec> {
    if node.op_type != "If" || !(node.domain.is_empty() || node.domain == "ai.onnx") || node.inputs.len() != 1 {
        return None;
    }
    let condition = resolve(scopes, level, &node.inputs[0])?;
    let value = scopes[level].graph.values[condition.0 as usize].constant.as_ref()?;
    let holds = *value.to_i64s().ok()?.first()? != 0;
    let attr = if holds { "then_branch" } else { "else_branch" };
    let Some(Attr::Graph(branch)) = node.attrs.get(attr) else { return None };
    // A file whose other branch gives something else is malformed, also where it never runs: the usual way says so.
    let fits = |a: &Attr| matches!(a, Attr::Graph(g) if g.inputs.is_empty() && g.outputs.len() == node.outputs.len());
    let both = ["then_branch", "else_branch"].iter().all(|name| node.attrs.get(name).is_some_and(fits));
    both.then_some(branch)
}

/// The fact a declaration gives by itself; free dims are unknown.
fn declared(v: &ValueSpec) -> Fact {
    let dim = |d: &DimSpec| if let DimSpec::Size(n) = d { Some(*n) } else { None };
    Fact {
        dtype: v.dtype,
        shape: v.shape.as_ref().map_or(Shape::UNKNOWN, |s| Shape::partial(s.iter().map(dim).collect())),
        container: v.container,
    }
}

fn add_node(spec: &NodeSpec, scopes: &mut Vec<Scope>, level: usize, hints: &HashMap<&str, &ValueSpec>) -> Result<()> {
    let mut inputs = Vec::with_capacity(spec.inputs.len());
    for name in &spec.inputs {
        inputs.push(match name.as_str() {
            "" => None,
            name => Some(resolve(scopes, level, name).ok_or_else(|| {
                Error::input(format!("input '{name}' is produced by no node and is no graph input"))
                    .hint("the file may be truncated or was cut out of a larger model")
            })?),
        });
    }
    let mut spec = std::borrow::Cow::Borrowed(spec);
    let mut captured = Vec::new();
    if spec.attrs.values().any(|a| matches!(a, Attr::Graph(_))) {
        captured = build_bodies(spec.to_mut(), &inputs, scopes, level)?;
    }
    let mut op = Op::parse(&spec)?;
    if let Op::Opaque(opaque) = &mut op {
        opaque.rule = scopes[level].rules.get(&opaque.domain, &opaque.name);
    }
    let formal_inputs = inputs.len();
    inputs.extend(captured.iter().map(|&v| Some(v)));
    // A Constant node is only another way to write an initializer.
    if let Some(value) = op.family().constant() {
        if let Some(name) = spec.outputs.first().filter(|n| !n.is_empty()) {
            scopes[level].add_constant(name, value.clone())?;
        }
        return Ok(());
    }
    let scope = &mut scopes[level];
    let node_number = scope.graph.nodes.len();
    let is_static = inputs.iter().flatten().all(|v| scope.graph.values[v.0 as usize].is_static)
        && !op.family().is_random()
        && !matches!(op, Op::Opaque(_));
    let node = Node {
        name: unique_name(&mut scope.node_names, &spec, node_number),
        op_type: spec.op_type.clone(),
        domain: spec.domain.clone(),
        op,
        captured: inputs.len() - formal_inputs,
        inputs,
        outputs: Vec::new(),
        metadata: spec.metadata.clone(),
        is_static,
    };
    let rule_inputs = scope.graph.rule_inputs(&node);
    let facts = node.op.family().infer(&Infer { inputs: &rule_inputs, outputs: spec.outputs.len() })?;
    let folded = fold(&node, &facts, &rule_inputs, spec.outputs.len())?;
    let id = NodeId(u32::try_from(node_number).map_err(|_| Error::input("more nodes than can be numbered"))?);
    drop(rule_inputs);
    let mut outputs = Vec::with_capacity(spec.outputs.len());
    let mut facts = facts.into_iter();
    for (i, name) in spec.outputs.iter().enumerate() {
        let mut fact = facts.next().unwrap_or_else(Fact::unknown);
        if name.is_empty() {
            outputs.push(None);
            continue;
        }
        let constant = folded.as_ref().and_then(|f| f.get(i)).cloned();
        if let Some(t) = &constant {
            fact = t.fact();
        } else if let Some(hint) = hints.get(name.as_str()) {
            fact = complete(fact, hint, matches!(node.op, Op::Opaque(_)));
        }
        let known = constant.is_some();
        outputs.push(Some(scope.add(name, fact, Source::Node(id, i), constant, node.is_static || known)?));
    }
    // Folding from facts alone (Shape of an activation) makes a node static although its input is not.
    let is_static = node.is_static
        || outputs.iter().flatten().all(|v| scope.graph.values[v.0 as usize].constant.is_some()) && folded.is_some();
    let node = Node { outputs, is_static, ..node };
    if let Op::Opaque(opaque) = &node.op {
        let graph = &scope.graph;
        let facts = |ids: &[Option<ValueId>]| -> Vec<Option<Fact>> {
            ids.iter().map(|v| v.map(|v| graph.values[v.0 as usize].fact.clone())).collect()
        };
        opaque.check(&facts(&node.inputs), &facts(&node.outputs))?;
    }
    scope.graph.nodes.push(node);
    Ok(())
}

/// Fills what the shape rule left open from the file's own declaration. Only sizes the rule does not know are taken, and only
/// for unknown operators or a missing dtype: declared shapes of known operators may be stale.
fn complete(fact: Fact, hint: &ValueSpec, opaque: bool) -> Fact {
    let declared = declared(hint);
    Fact {
        dtype: fact.dtype.or(declared.dtype),
        shape: if opaque && fact.shape.dims().is_none() { declared.shape } else { fact.shape },
        container: if opaque { declared.container } else { fact.container },
    }
}

/// Computes a small node now if its inputs are all known.
fn fold(node: &Node, facts: &[Fact], inputs: &[Option<Input>], outputs: usize) -> Result<Option<Vec<Tensor>>> {
    if let Some(t) = node.op.family().fold(inputs) {
        return Ok(Some(vec![t]));
    }
    if !node.is_static || facts.iter().any(|f| f.elements().is_some_and(|n| n > FOLD_LIMIT)) {
        return Ok(None);
    }
    let values: Option<Vec<Option<&Tensor>>> =
        inputs.iter().map(|i| i.map_or(Some(None), |i| i.value.map(Some))).collect();
    let Some(values) = values else { return Ok(None) };
    // A large constant reduced to a small one (a slice of a table) is still cheap; a large sum is not shape arithmetic, nor is a mean of weights.
    let large = |t: &&Tensor| t.len() > if t.dtype().is_float() { FOLD_LIMIT } else { 64 * FOLD_LIMIT };
    if values.iter().flatten().any(large) {
        return Ok(None);
    }
    let cx = EvalCx { outputs, ..EvalCx::default() };
    let made = node.op.eval(&cx, &values)?;
    Ok((!made.iter().any(|t| t.len() > FOLD_LIMIT)).then_some(made))
}

fn unique_name(taken: &mut HashSet<String>, spec: &NodeSpec, number: usize) -> String {
    let base = if spec.name.is_empty() { format!("{}_{number}", spec.op_type) } else { spec.name.clone() };
    if taken.insert(base.clone()) {
        return base;
    }
    let mut n = 2;
    loop {
        let name = format!("{base}#{n}");
        if taken.insert(name.clone()) {
            return name;
        }
        n += 1;
    }
}

/// Builds the subgraphs of a control-flow node in place and returns the outer values they capture.
fn build_bodies(
    spec: &mut NodeSpec,
    inputs: &[Option<ValueId>],
    scopes: &mut Vec<Scope>,
    level: usize,
) -> Result<Vec<ValueId>> {
    let mut captured = Vec::new();
    let fact_of = |scopes: &[Scope], i: usize| -> Fact {
        inputs
            .get(i)
            .copied()
            .flatten()
            .map_or_else(Fact::unknown, |v| scopes[level].graph.values[v.0 as usize].fact.clone())
    };
    let op_type = spec.op_type.clone();
    let scan_inputs = spec.opt_size("num_scan_inputs")?.unwrap_or(0);
    let scan_axes = spec.opt_ints("scan_input_axes")?.unwrap_or_default();
    let batched = op_type == "Scan" && spec.opset == 8;
    // In attribute-name order, which for If is else_branch, then_branch: `Family::bodies` uses the same order.
    let spec_name = spec.name.clone();
    let mut refused = false;
    let rules = scopes[level].rules.clone();
    'attrs: for (name, attr) in spec.attrs.iter_mut() {
        let Attr::Graph(graph) = attr else { continue };
        let (mut formals, states): (Vec<Fact>, std::ops::Range<usize>) = match op_type.as_str() {
            "Loop" => {
                let scalars = [Fact::of(DType::I64, &[]), Fact::of(DType::Bool, &[])];
                let carried = (2..inputs.len()).map(|i| fact_of(scopes, i));
                (scalars.into_iter().chain(carried).collect(), 2..inputs.len())
            }
            // In opset 8 sequence lengths come first, and everything has a batch axis in front.
            "Scan" => {
                let first = usize::from(batched);
                let states = inputs.len().saturating_sub(scan_inputs + first);
                let carry = |fact: Fact| match fact.shape.dims() {
                    Some([_, rest @ ..]) if batched => fact.with_shape(Shape::partial(rest.to_vec())),
                    _ => fact,
                };
                let slice = |(k, i): (usize, usize)| {
                    let fact = carry(fact_of(scopes, i));
                    let Some(dims) = fact.shape.dims() else { return fact };
                    let axis = scan_axes.get(k).copied().unwrap_or(0);
                    let axis = if axis < 0 { axis + dims.len() as i64 } else { axis };
                    let rest = dims.iter().enumerate().filter(|(a, _)| *a as i64 != axis).map(|(_, d)| *d).collect();
                    fact.with_shape(Shape::partial(rest))
                };
                let carried = (first..first + states).map(|i| carry(fact_of(scopes, i)));
                (carried.chain((first + states..inputs.len()).enumerate().map(slice)).collect(), 0..states)
            }
            "SequenceMap" => {
                let element = |i| Fact { container: Container::Tensor, ..fact_of(scopes, i) };
                ((0..inputs.len()).map(element).collect(), 0..0)
            }
            _ => (Vec::new(), 0..0),
        };
        // State shapes may change from one iteration to the next; what changes becomes unknown, until nothing does.
        let built = loop {
            let built = match build_graph(graph, scopes, Formals::Positional(formals.clone()), &rules) {
                Err(error) if op_type == "If" && !refused => {
                    // Whatever does not depend on shapes still holds: what it captures, gives and has for weights.
                    let mut shapeless = || -> Result<Built> {
                        let known: Vec<_> = scopes.iter().map(|s| s.shapeless).collect();
                        scopes.iter_mut().for_each(|s| s.shapeless = true);
                        let built = build_graph(graph, scopes, Formals::Positional(Vec::new()), &rules);
                        scopes.iter_mut().zip(known).for_each(|(s, k)| s.shapeless = k);
                        built
                    };
                    let Ok(built) = shapeless() else { return Err(error) };
                    refused = true;
                    let branch = name.trim_end_matches("_branch");
                    scopes[0].notes.push(format!(
                        "the {branch} branch of '{spec_name}' does not fit these shapes and is taken as the one not taken: {error}"
                    ));
                    captured.extend(built.captured.iter().copied());
                    *attr = Attr::Body(Arc::new(Refused { error, body: Arc::new(built.graph) }));
                    continue 'attrs;
                }
                built => built?,
            };
            let skip = usize::from(op_type == "Loop");
            let results = built.graph.output_facts();
            let mut changed = false;
            for (k, i) in states.clone().enumerate() {
                let Some(result) = results.get(k + skip) else { continue };
                let merged = meet(&formals[i], result);
                changed |= merged != formals[i];
                formals[i] = merged;
            }
            if !changed {
                break built;
            }
        };
        captured.extend(built.captured.iter().copied());
        *attr = Attr::Body(Arc::new(built.graph));
    }
    Ok(captured)
}

/// What holds of both facts.
fn meet(a: &Fact, b: &Fact) -> Fact {
    let shape = match (a.shape.dims(), b.shape.dims()) {
        (Some(x), Some(y)) if x.len() == y.len() => {
            Shape::partial(x.iter().zip(y).map(|(p, q)| if p == q { *p } else { None }).collect())
        }
        _ => Shape::UNKNOWN,
    };
    Fact { dtype: if a.dtype == b.dtype { a.dtype } else { a.dtype.or(b.dtype) }, shape, container: a.container }
}

// ------------------------------------------------------------------------------------------------------------------ order

/// Names a graph (with its subgraphs) reads from outside itself.
fn free_names<'a>(graph: &'a GraphSpec, into: &mut BTreeSet<&'a str>) {
    let mut own: HashSet<&str> = graph.initializers.iter().map(|(n, _)| n.as_str()).collect();
    own.extend(graph.inputs.iter().map(|v| v.name.as_str()));
    own.extend(graph.nodes.iter().flat_map(|n| n.outputs.iter().map(String::as_str)));
    let mut read: BTreeSet<&str> = graph.outputs.iter().map(|v| v.name.as_str()).collect();
    for node in &graph.nodes {
        read.extend(node.inputs.iter().map(String::as_str));
        for attr in node.attrs.values() {
            if let Attr::Graph(g) = attr {
                free_names(g, &mut read);
            }
        }
    }
    into.extend(read.into_iter().filter(|n| !n.is_empty() && !own.contains(n)));
}

/// Node indices so that producers come before readers; file order where that already holds.
fn topological_order<'a>(spec: &'a GraphSpec) -> Result<Vec<usize>> {
    let mut producer: HashMap<&str, usize> = HashMap::with_capacity(spec.nodes.len());
    for (i, node) in spec.nodes.iter().enumerate() {
        for name in node.outputs.iter().filter(|n| !n.is_empty()) {
            if producer.insert(name, i).is_some() {
                return Err(Error::input(format!("value '{name}' is produced twice"))
                    .at_node(&node.name, &node.op_type)
                    .hint("ONNX graphs are in single-assignment form; run onnx.checker on the file"));
            }
        }
    }
    let reads = |node: &'a NodeSpec| {
        let mut inner = BTreeSet::new();
        for attr in node.attrs.values() {
            if let Attr::Graph(g) = attr {
                free_names(g, &mut inner);
            }
        }
        node.inputs.iter().map(String::as_str).chain(inner)
    };
    let after_producers = |(i, node)| reads(node).all(|name| producer.get(name).is_none_or(|&p| p < i));
    // So it is in nearly every file.
    if spec.nodes.iter().enumerate().all(after_producers) {
        return Ok((0..spec.nodes.len()).collect());
    }
    let mut readers: Vec<Vec<usize>> = vec![Vec::new(); spec.nodes.len()];
    let mut waits: Vec<usize> = vec![0; spec.nodes.len()];
    for (i, node) in spec.nodes.iter().enumerate() {
        for name in reads(node).collect::<BTreeSet<&str>>() {
            if let Some(&p) = producer.get(name) {
                readers[p].push(i);
                waits[i] += 1;
            }
        }
    }
    let mut ready: BTreeSet<usize> = (0..spec.nodes.len()).filter(|&i| waits[i] == 0).collect();
    let mut order = Vec::with_capacity(spec.nodes.len());
    while let Some(i) = ready.pop_first() {
        order.push(i);
        for &r in &readers[i] {
            waits[r] -= 1;
            if waits[r] == 0 {
                ready.insert(r);
            }
        }
    }
    if order.len() < spec.nodes.len() {
        let stuck = waits.iter().position(|&w| w > 0).unwrap_or(0);
        let node = &spec.nodes[stuck];
        return Err(Error::input("the graph has a cycle through this node").at_node(&node.name, &node.op_type));
    }
    Ok(order)
}
