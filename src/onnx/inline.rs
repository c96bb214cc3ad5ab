//! Replaces the calls of model-local functions by their bodies, so that later stages know only operators.
//!
//! A call `layer0/mlp` of a function with an inner node `fc` becomes a node `layer0/mlp/fc`; inner values are named the same way
//! and kept apart from every name in the model. Expansion is bounded: functions that call each other can grow without
//! end, and do so exponentially even when they are not recursive.

use crate::error::{Error, Result};
use crate::ops::spec::{Attr, Attrs, GraphSpec, ModelSpec, NodeSpec};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Domain, name, overload.
pub(super) type Key = (String, String, String);

/// A model-local function.
pub(super) struct Function {
    pub(super) inputs: Vec<String>,
    pub(super) outputs: Vec<String>,
    /// Default values of attributes.
    pub(super) defaults: Attrs,
    pub(super) nodes: Vec<NodeSpec>,
}

/// How deep calls and subgraphs may nest, together.
const DEEPEST: usize = 64;
/// Roughly how many bytes of nodes the expansion may make.
const MOST_BYTES: usize = 1 << 28;

/// Inlines every call in the model.
///
/// # Errors
/// If functions call themselves, nest too deeply, or expand beyond bounds.
pub(super) fn inline(model: &mut ModelSpec, functions: &HashMap<Key, Function>) -> Result<()> {
    if functions.is_empty() {
        return Ok(());
    }
    let mut inliner = Inliner {
        functions,
        identity_opset: model.opset(""),
        used: HashSet::new(),
        prefixes: HashMap::new(),
        fresh: 0,
        bytes: 0,
        calls: 0,
        called: HashSet::new(),
    };
    collect_names(&model.graph, &mut inliner.used);
    inliner.graph(&mut model.graph, &mut Vec::new(), 0)?;
    if inliner.calls > 0 {
        let (calls, functions) = (inliner.calls, inliner.called.len());
        let s = |n: usize| if n == 1 { "" } else { "s" };
        model.notes.push(format!(
            "inlined {calls} call{} of {functions} model-local function{}",
            s(calls),
            s(functions)
        ));
    }
    Ok(())
}

fn collect_names(g: &GraphSpec, names: &mut HashSet<String>) {
    names.extend(g.inputs.iter().map(|v| v.name.clone()));
    names.extend(g.initializers.iter().map(|(n, _)| n.clone()));
    for node in &g.nodes {
        names.extend(node.inputs.iter().chain(&node.outputs).cloned());
        for attr in node.attrs.values() {
            if let Attr::Graph(g) = attr {
                collect_names(g, names);
            }
        }
    }
}

struct Inliner<'a> {
    functions: &'a HashMap<Key, Function>,
    identity_opset: i64,
    /// Every value name there is.
    used: HashSet<String>,
    /// How often a call of this name was inlined.
    prefixes: HashMap<String, usize>,
    fresh: usize,
    bytes: usize,
    calls: usize,
    called: HashSet<&'a Key>,
}

/// The names inside one call: the function's own at the bottom, a layer for each subgraph above.
struct Names {
    prefix: String,
    layers: Vec<HashMap<String, String>>,
}

impl<'a> Inliner<'a> {
    fn graph(&mut self, g: &mut GraphSpec, stack: &mut Vec<&'a Key>, depth: usize) -> Result<()> {
        g.nodes = self.nodes(std::mem::take(&mut g.nodes), stack, depth)?;
        Ok(())
    }

    fn nodes(&mut self, nodes: Vec<NodeSpec>, stack: &mut Vec<&'a Key>, depth: usize) -> Result<Vec<NodeSpec>> {
        if depth > DEEPEST {
            return Err(Error::unsupported(format!("functions and subgraphs nest more than {DEEPEST} deep")));
        }
        let mut out = Vec::with_capacity(nodes.len());
        for mut node in nodes {
            for attr in node.attrs.values_mut() {
                if let Attr::Graph(g) = attr {
                    let mut own = Arc::unwrap_or_clone(std::mem::take(g));
                    self.graph(&mut own, stack, depth + 1)?;
                    *g = Arc::new(own);
                }
            }
            let key = (node.domain.clone(), node.op_type.clone(), node.overload.clone());
            match self.functions.get_key_value(&key) {
                None => out.push(node),
                Some((key, function)) => {
                    if stack.contains(&key) {
                        return Err(Error::input(format!("the function {} calls itself", key.1))
                            .at_node(&node.name, &node.op_type));
                    }
                    let body = self.instantiate(function, &node).map_err(|e| e.at_node(&node.name, &node.op_type))?;
                    self.calls += 1;
                    self.called.insert(key);
                    stack.push(key);
                    out.append(&mut self.nodes(body, stack, depth + 1)?);
                    stack.pop();
                }
            }
        }
        Ok(out)
    }

    /// The body of one call, its names and attributes resolved.
    fn instantiate(&mut self, f: &Function, call: &NodeSpec) -> Result<Vec<NodeSpec>> {
        if call.inputs.len() > f.inputs.len() || call.outputs.len() > f.outputs.len() {
            return Err(Error::input(format!(
                "calls a function of {} inputs and {} outputs with {} and {}",
                f.inputs.len(),
                f.outputs.len(),
                call.inputs.len(),
                call.outputs.len()
            )));
        }
        let times = self.prefixes.entry(call.name.clone()).or_default();
        *times += 1;
        let prefix = if *times == 1 { format!("{}/", call.name) } else { format!("{}_{times}/", call.name) };
        let mut outer = HashMap::new();
        for (i, formal) in f.inputs.iter().enumerate() {
            outer.insert(formal.clone(), call.inputs.get(i).cloned().unwrap_or_default());
        }
        let mut passed_through = Vec::new();
        for (i, formal) in f.outputs.iter().enumerate() {
            let Some(actual) = call.outputs.get(i).filter(|a| !a.is_empty()) else { continue };
            match outer.get(formal) {
                None => {
                    outer.insert(formal.clone(), actual.clone());
                }
                Some(from) => passed_through.push((from.clone(), actual.clone())),
            }
        }
        let mut names = Names { prefix, layers: vec![outer] };
        let mut body = Vec::with_capacity(f.nodes.len() + passed_through.len());
        for node in &f.nodes {
            body.push(self.node(node, &mut names, f, call)?);
        }
        for (from, to) in passed_through {
            body.push(NodeSpec {
                name: format!("{}Identity_{}", names.prefix, body.len()),
                op_type: "Identity".into(),
                inputs: vec![from],
                outputs: vec![to],
                opset: self.identity_opset,
                metadata: call.metadata.clone(),
                ..NodeSpec::default()
            });
        }
        Ok(body)
    }

    fn node(&mut self, node: &NodeSpec, names: &mut Names, f: &Function, call: &NodeSpec) -> Result<NodeSpec> {
        let metadata = if node.metadata.is_empty() { &call.metadata } else { &node.metadata };
        let text = names.prefix.len() * (node.inputs.len() + node.outputs.len() + 1)
            + node.inputs.iter().chain(&node.outputs).map(String::len).sum::<usize>()
            + metadata.iter().map(|(k, v)| k.len() + v.len() + 48).sum::<usize>();
        self.spend(256 + text)?;
        let mut attrs = Attrs::default();
        for (name, attr) in node.attrs.iter() {
            let attr = match attr {
                // Missing in the call and without a default: the attribute is omitted, as the standard says.
                Attr::Ref(outer) => match call.attrs.get(outer).or_else(|| f.defaults.get(outer)) {
                    Some(given) => given.clone(),
                    None => continue,
                },
                Attr::Graph(g) => Attr::Graph(Arc::new(self.subgraph(g, names, f, call)?)),
                other => other.clone(),
            };
            self.spend(64 + size_of(&attr))?;
            attrs.insert(name.clone(), attr);
        }
        Ok(NodeSpec {
            name: format!("{}{}", names.prefix, node.name),
            op_type: node.op_type.clone(),
            domain: node.domain.clone(),
            inputs: node.inputs.iter().map(|n| self.value(names, n)).collect(),
            outputs: node.outputs.iter().map(|n| self.value(names, n)).collect(),
            attrs,
            opset: node.opset,
            metadata: metadata.clone(),
            overload: node.overload.clone(),
            // Words are not worth repeating at every call.
            doc: String::new(),
        })
    }

    fn subgraph(&mut self, g: &GraphSpec, names: &mut Names, f: &Function, call: &NodeSpec) -> Result<GraphSpec> {
        let defined = g.inputs.iter().map(|v| &v.name).chain(g.initializers.iter().map(|(n, _)| n));
        let defined = defined.chain(g.nodes.iter().flat_map(|n| &n.outputs)).filter(|n| !n.is_empty());
        let mut layer = HashMap::new();
        for name in defined {
            self.spend(48 + 2 * name.len() + names.prefix.len())?;
            let unique = self.unique(&names.prefix, name);
            layer.insert(name.clone(), unique);
        }
        names.layers.push(layer);
        let mut out = g.clone();
        for value in out.inputs.iter_mut().chain(&mut out.outputs).chain(&mut out.value_info) {
            value.name = self.value(names, &value.name);
        }
        for (name, _) in &mut out.initializers {
            *name = self.value(names, name);
        }
        out.nodes = g.nodes.iter().map(|n| self.node(n, names, f, call)).collect::<Result<_>>()?;
        names.layers.pop();
        Ok(out)
    }

    /// What a name inside the call is outside of it.
    fn value(&mut self, names: &mut Names, name: &str) -> String {
        if name.is_empty() {
            return String::new();
        }
        if let Some(found) = names.layers.iter().rev().find_map(|l| l.get(name)) {
            return found.clone();
        }
        let unique = self.unique(&names.prefix, name);
        names.layers[0].insert(name.to_string(), unique.clone());
        unique
    }

    fn unique(&mut self, prefix: &str, name: &str) -> String {
        let mut candidate = format!("{prefix}{name}");
        while !self.used.insert(candidate.clone()) {
            self.fresh += 1;
            candidate = format!("{prefix}{name}_{}", self.fresh);
        }
        candidate
    }

    fn spend(&mut self, bytes: usize) -> Result<()> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > MOST_BYTES {
            return Err(Error::unsupported("its functions expand to more nodes than fit in memory"));
        }
        Ok(())
    }
}

/// Roughly what a copy of the attribute takes. Subgraphs are charged as they are made, tensors are shared.
fn size_of(attr: &Attr) -> usize {
    match attr {
        Attr::Str(s) => s.len(),
        Attr::Ints(v) => v.len() * 8,
        Attr::Floats(v) => v.len() * 4,
        Attr::Strs(v) => v.iter().map(|s| s.len() + 24).sum(),
        Attr::Tensors(v) => v.len() * 64,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::super::proto::{
        AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, ValueInfoProto,
        attribute_type,
    };
    use super::super::read_bytes;
    use super::*;
    use bytes::Bytes;
    use prost::Message;

    fn bytes(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }
    fn list(names: &[&str]) -> Vec<Bytes> {
        names.iter().map(|n| bytes(n)).collect()
    }
    fn node(
        name: &str,
        domain: &str,
        op: &str,
        inputs: &[&str],
        outputs: &[&str],
        attribute: Vec<AttributeProto>,
    ) -> NodeProto {
        let (name, domain, op_type) = (bytes(name), bytes(domain), bytes(op));
        let attribute = encoded(attribute);
        NodeProto {
            name,
            domain,
            op_type,
            input: list(inputs),
            output: list(outputs),
            attribute,
            ..NodeProto::default()
        }
    }
    fn encoded(messages: Vec<impl Message>) -> Vec<Bytes> {
        messages.iter().map(|m| m.encode_to_vec().into()).collect()
    }
    fn int(name: &str, v: i64) -> AttributeProto {
        AttributeProto { name: bytes(name), i: Some(v), r#type: Some(attribute_type::INT), ..AttributeProto::default() }
    }
    fn reference(name: &str, to: &str) -> AttributeProto {
        let (name, ref_attr_name) = (bytes(name), bytes(to));
        AttributeProto { name, ref_attr_name, r#type: Some(attribute_type::INT), ..AttributeProto::default() }
    }
    fn body(name: &str, nodes: Vec<NodeProto>, outputs: &[&str]) -> AttributeProto {
        let output = outputs.iter().map(|o| ValueInfoProto { name: bytes(o), r#type: None }).collect();
        let g = Some(Box::new(GraphProto { node: encoded(nodes), output, ..GraphProto::default() }));
        AttributeProto { name: bytes(name), g, r#type: Some(attribute_type::GRAPH), ..AttributeProto::default() }
    }
    fn opset(domain: &str, version: i64) -> OperatorSetIdProto {
        OperatorSetIdProto { domain: bytes(domain), version: Some(version) }
    }
    fn function(name: &str, inputs: &[&str], outputs: &[&str], node: Vec<NodeProto>) -> FunctionProto {
        let (name, domain) = (bytes(name), bytes("f"));
        let opset_import = vec![opset("ai.onnx", 15)];
        FunctionProto {
            name,
            domain,
            input: list(inputs),
            output: list(outputs),
            node: encoded(node),
            opset_import,
            ..FunctionProto::default()
        }
    }
    fn read(nodes: Vec<NodeProto>, functions: Vec<FunctionProto>) -> Result<ModelSpec> {
        let graph = Some(GraphProto { node: encoded(nodes), ..GraphProto::default() });
        let opset_import = vec![opset("", 18), opset("f", 1)];
        let model = ModelProto { graph, functions, opset_import, ..ModelProto::default() };
        read_bytes(model.encode_to_vec().into(), None)
    }
    /// `name: op(inputs) -> outputs`, subgraphs in braces.
    fn show(nodes: &[NodeSpec]) -> Vec<String> {
        let one = |n: &NodeSpec| {
            let mut out = format!("{}: {}({}) -> {}", n.name, n.op_type, n.inputs.join(","), n.outputs.join(","));
            for (k, a) in n.attrs.iter() {
                out += &match a {
                    Attr::Graph(g) => {
                        let results: Vec<_> = g.outputs.iter().map(|o| o.name.as_str()).collect();
                        format!(" {k}={{{} => {}}}", show(&g.nodes).join("; "), results.join(","))
                    }
                    Attr::Int(v) => format!(" {k}={v}"),
                    other => format!(" {k}={other:?}"),
                };
            }
            out
        };
        nodes.iter().map(one).collect()
    }

    #[test]
    fn calls_nest_and_their_names_stay_apart() {
        let inner = function(
            "Inner",
            &["a"],
            &["b"],
            vec![node("r", "", "Relu", &["a"], &["t"], vec![]), node("", "", "Neg", &["t"], &["b"], vec![])],
        );
        let outer = function(
            "Outer",
            &["x"],
            &["y"],
            vec![node("i", "f", "Inner", &["x"], &["t"], vec![]), node("i", "f", "Inner", &["t"], &["y"], vec![])],
        );
        let nodes = vec![
            node("call", "f", "Outer", &["in"], &["mid"], vec![]),
            node("call", "f", "Outer", &["mid"], &["out"], vec![]),
            // A name that an inner value would get.
            node("", "", "Abs", &["out"], &["call/i/t"], vec![]),
        ];
        let model = read(nodes, vec![inner, outer]).unwrap();
        assert_eq!(
            show(&model.graph.nodes),
            [
                "call/i/r: Relu(in) -> call/i/t_1",
                "call/i/Neg_1: Neg(call/i/t_1) -> call/t",
                "call/i_2/r: Relu(call/t) -> call/i_2/t",
                "call/i_2/Neg_1: Neg(call/i_2/t) -> mid",
                "call_2/i/r: Relu(mid) -> call_2/i/t",
                "call_2/i/Neg_1: Neg(call_2/i/t) -> call_2/t",
                "call_2/i_2/r: Relu(call_2/t) -> call_2/i_2/t",
                "call_2/i_2/Neg_1: Neg(call_2/i_2/t) -> out",
                "Abs_2: Abs(out) -> call/i/t",
            ]
        );
        assert!(model.graph.nodes[..8].iter().all(|n| n.opset == 15) && model.graph.nodes[8].opset == 18);
        assert_eq!(model.notes, ["inlined 6 calls of 2 model-local functions"]);
    }

    #[test]
    fn attributes_come_from_the_call_then_the_default_then_nowhere() {
        let mut f = function(
            "F",
            &["x", "opt"],
            &["y", "z"],
            vec![node(
                "n",
                "",
                "Op",
                &["x", "opt"],
                &["y"],
                vec![reference("given", "p"), reference("default", "q"), reference("absent", "r"), int("plain", 4)],
            )],
        );
        f.attribute_proto = vec![int("q", 2), int("p", 9)];
        let model = read(vec![node("c", "f", "F", &["a"], &["b"], vec![int("p", 1)])], vec![f.clone()]).unwrap();
        assert_eq!(show(&model.graph.nodes), ["c/n: Op(a,) -> b default=2 given=1 plain=4"]);
        // A reference inside a nested call reaches the outer call's attribute.
        let g = function("G", &["x"], &["y"], vec![node("f", "f", "F", &["x"], &["y"], vec![reference("p", "s")])]);
        let model = read(vec![node("c", "f", "G", &["a"], &["b"], vec![int("s", 7)])], vec![f, g]).unwrap();
        assert_eq!(show(&model.graph.nodes), ["c/f/n: Op(a,) -> b default=2 given=7 plain=4"]);
        assert!(read(vec![node("c", "", "Op", &[], &["b"], vec![reference("p", "s")])], vec![]).is_err());
    }

    #[test]
    fn subgraphs_capture_and_shadow() {
        let branch = body(
            "then_branch",
            vec![
                node("c", "f", "Id", &["x"], &["u"], vec![]),
                node("a", "", "Add", &["u", "t"], &["y"], vec![]), // `y` shadows the function's output
            ],
            &["y"],
        );
        let f = function(
            "F",
            &["x", "cond"],
            &["y"],
            vec![node("t", "", "Abs", &["x"], &["t"], vec![]), node("if", "", "If", &["cond"], &["y"], vec![branch])],
        );
        let id = function("Id", &["a"], &["a"], vec![]);
        let model = read(vec![node("k", "f", "F", &["p", "q"], &["out"], vec![])], vec![f, id]).unwrap();
        assert_eq!(
            show(&model.graph.nodes),
            [
                "k/t: Abs(p) -> k/t",
                "k/if: If(q) -> out then_branch={k/c/Identity_0: Identity(p) -> k/u; k/a: Add(k/u,k/t) -> k/y => k/y}",
            ]
        );
    }

    #[test]
    fn subgraphs_nest_to_a_bound() {
        let nested = |levels: usize| {
            let innermost = node("n", "", "If", &["c"], &["y"], vec![]);
            let inside = |n, _| node("n", "", "If", &["c"], &["y"], vec![body("then_branch", vec![n], &["y"])]);
            read(vec![(0..levels).fold(innermost, inside)], vec![])
        };
        assert!(nested(30).is_ok());
        assert!(nested(31).unwrap_err().to_string().contains("too deeply"));
        assert!(nested(1000).unwrap_err().to_string().contains("too deeply"));
    }

    #[test]
    fn recursion_depth_and_growth_are_bounded() {
        let calls = |to: &str, n: usize| -> Vec<NodeProto> {
            (0..n).map(|_| node("", "f", to, &["x"], &["y"], vec![])).collect()
        };
        let main = || calls("F0", 1);
        let looped =
            vec![function("F0", &["x"], &["y"], calls("F1", 1)), function("F1", &["x"], &["y"], calls("F0", 1))];
        assert!(read(main(), looped).unwrap_err().to_string().contains("calls itself"));
        let chain =
            (0..1000).map(|i| function(&format!("F{i}"), &["x"], &["y"], calls(&format!("F{}", i + 1), 1))).collect();
        assert!(read(main(), chain).unwrap_err().to_string().contains("deep"));
        let bomb =
            (0..40).map(|i| function(&format!("F{i}"), &["x"], &["y"], calls(&format!("F{}", i + 1), 10))).collect();
        assert!(read(main(), bomb).unwrap_err().to_string().contains("fit in memory"));
        let f = function("F0", &["x"], &["y"], vec![]);
        assert!(read(vec![node("", "f", "F0", &["x", "x"], &["y"], vec![])], vec![f]).is_err());
    }
}
