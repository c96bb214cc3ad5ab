//! Reads an ONNX file into a [`ModelSpec`]: weights stay in the memory map, functions are inlined, nothing is trusted.

use super::foreign::not_onnx;
use super::inline::{self, Function, Key};
use super::payload::{External, sparse, tensor};
use super::proto::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto,
    TensorShapeProto, TensorType, TypeProto, ValueInfoProto, attribute_type, text,
};
use crate::error::{Error, Result};
use crate::ops::spec::{Attr, Attrs, DimSpec, GraphSpec, Header, ModelSpec, NodeSpec, ValueSpec};
use crate::tensor::{Container, DType, map};
use bytes::Bytes;
use prost::encoding::varint::decode_varint;
use prost::{DecodeError, Message};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

/// Reads the model in a file. Its weights are not read, only mapped.
///
/// # Errors
/// If the file cannot be mapped, is not an ONNX model, is damaged, or refers to data that is not there.
pub fn read(path: &Path) -> Result<ModelSpec> {
    map::map(path).and_then(|bytes| model(bytes, &External::beside(path))).map_err(|e| e.in_file(path))
}

/// Where a model's tensors lie beside its file, in the order of first use. The files themselves are not looked at.
///
/// # Errors
/// If the file cannot be mapped or is not an ONNX model.
pub fn data_locations(path: &Path) -> Result<Vec<String>> {
    let proto = map::map(path).and_then(|bytes| decode(&bytes)).map_err(|e| e.in_file(path))?;
    let mut out: Vec<String> = Vec::new();
    for t in proto.graph.iter().flat_map(|g| &g.initializer) {
        for entry in t.0.external_data.iter().filter(|e| &e.key[..] == b"location") {
            let location = text(&entry.value);
            if !out.contains(&location) {
                out.push(location);
            }
        }
    }
    Ok(out)
}

/// Reads a model in memory; `base_dir` is where its external data is, if it may have any.
///
/// # Errors
/// As [`read`].
pub fn read_bytes(bytes: Bytes, base_dir: Option<&Path>) -> Result<ModelSpec> {
    model(bytes, &base_dir.map(External::within).unwrap_or_default())
}

fn model(bytes: Bytes, external: &External) -> Result<ModelSpec> {
    let proto = decode(&bytes)?;
    let opsets = opsets(&proto.opset_import);
    let mut functions = HashMap::new();
    for f in proto.functions {
        let (key, function) = function(f, &bytes, &opsets, external)?;
        functions.insert(key, function);
    }
    let cx = Cx { file: &bytes, opsets: &opsets, fallback: &[], external, in_function: false, depth: 0 };
    let has_external_data = proto.graph.iter().flat_map(|g| &g.initializer).any(|t| t.0.data_location == Some(1));
    let header = Header {
        domain: text(&proto.domain),
        version: proto.model_version.unwrap_or(0),
        doc: text(&proto.doc_string),
        graph_doc: proto.graph.as_ref().map(|g| text(&g.doc_string)).unwrap_or_default(),
        graph_metadata: proto.graph.as_ref().map(|g| pairs(&g.metadata_props)).unwrap_or_default(),
    };
    let graph = proto.graph.map(|g| cx.graph(g)).transpose()?.unwrap_or_default();
    if graph.nodes.is_empty() && graph.outputs.is_empty() {
        return Err(unreadable(&bytes, Error::input("is not an ONNX model: it has no nodes and no outputs")));
    }
    let mut notes = Vec::new();
    if !proto.training_info.is_empty() {
        notes.push("the training graphs in the file are ignored".to_string());
    }
    let mut model = ModelSpec {
        graph,
        opsets,
        ir_version: proto.ir_version.unwrap_or(0),
        producer: (text(&proto.producer_name), text(&proto.producer_version)),
        metadata: pairs(&proto.metadata_props),
        notes,
        has_external_data,
        data_files: external.files(),
        header,
    };
    inline::inline(&mut model, &functions)?;
    Ok(model)
}

fn decode(bytes: &Bytes) -> Result<ModelProto> {
    if bytes.is_empty() {
        return Err(Error::input("is empty").hint("the download or export did not finish"));
    }
    let mut rest = bytes.clone();
    let model = ModelProto::decode(&mut rest).map_err(|e| damaged(bytes, bytes.len() - rest.len(), &e))?;
    match model.graph {
        Some(_) => Ok(model),
        None => Err(unreadable(bytes, Error::input("is not an ONNX model: it has no graph"))),
    }
}

/// The error for a file with something in it, near byte `at`, that cannot be decoded.
fn damaged(file: &Bytes, at: usize, e: &DecodeError) -> Error {
    if let Some(error) = cut_off(file) {
        return unreadable(file, error);
    }
    let what = e.to_string();
    let what = what.strip_prefix("failed to decode Protobuf message: ").unwrap_or(&what);
    if what.contains("recursion limit") {
        return too_deep();
    }
    unreadable(file, Error::input(format!("is not a valid ONNX model, or is damaged: near byte {at}: {what}")))
}

/// Subgraphs nest at most this deep.
const DEEPEST: usize = 30;

fn too_deep() -> Error {
    Error::unsupported("its subgraphs nest too deeply")
        .hint(format!("models nested beyond {DEEPEST} levels are refused"))
}

/// Says what the file is instead, if that shows.
fn unreadable(bytes: &[u8], otherwise: Error) -> Error {
    match not_onnx(bytes) {
        Some((what, hint)) => Error::input(format!("is not an ONNX model but {what}")).hint(hint),
        None => otherwise.hint("fetch or export the file again, and check it with onnx.checker.check_model"),
    }
}

/// The error for a file that ends inside one of the model's own fields, as an unfinished download does.
fn cut_off(bytes: &[u8]) -> Option<Error> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let key = decode_varint(&mut rest).ok()?;
        let skip = match key & 7 {
            0 => {
                decode_varint(&mut rest).ok()?;
                0
            }
            1 => 8,
            2 => usize::try_from(decode_varint(&mut rest).ok()?).ok()?,
            5 => 4,
            _ => return None,
        };
        if skip > rest.len() {
            let field = match key >> 3 {
                7 => "graph",
                8 => "opset imports",
                14 => "metadata",
                20 => "training graphs",
                25 => "functions",
                2..=6 => "header",
                _ => return None,
            };
            let missing = skip - rest.len();
            let message = format!("is cut off: its {field} should go on for {missing} more bytes after the file's end");
            return (missing < 1 << 40)
                .then(|| Error::input(message).hint("the download or export did not finish; fetch the file again"));
        }
        rest = &rest[skip..];
    }
    None
}

/// What a graph is read in.
#[derive(Clone, Copy)]
struct Cx<'a> {
    /// The whole file, to say where it is damaged.
    file: &'a Bytes,
    opsets: &'a [(String, i64)],
    /// The model's operator sets, for domains that a function forgets to import.
    fallback: &'a [(String, i64)],
    external: &'a External,
    in_function: bool,
    /// How many graphs it lies in.
    depth: usize,
}

impl Cx<'_> {
    fn graph(&self, g: GraphProto) -> Result<GraphSpec> {
        let mut initializers = Vec::with_capacity(g.initializer.len());
        for t in g.initializer {
            initializers.push((text(&t.0.name), tensor(t, self.external)?));
        }
        for s in g.sparse_initializer {
            initializers.push(sparse(s, self.external)?);
        }
        let values = |v: Vec<ValueInfoProto>| v.iter().map(value).collect();
        Ok(GraphSpec {
            name: text(&g.name),
            nodes: self.nodes(g.node, "GraphProto")?,
            inputs: values(g.input),
            outputs: values(g.output),
            initializers,
            value_info: values(g.value_info),
        })
    }

    /// The nodes of a message.
    fn nodes(&self, encoded: Vec<Bytes>, message: &'static str) -> Result<Vec<NodeSpec>> {
        let mut nodes = Vec::with_capacity(encoded.len());
        for (i, bytes) in encoded.into_iter().enumerate() {
            nodes.push(self.node(i, self.decode(bytes, message, "node")?)?);
        }
        Ok(nodes)
    }

    /// Decodes a message of the file that was kept as bytes in a field of another.
    fn decode<M: Message + Default>(&self, bytes: Bytes, message: &'static str, field: &'static str) -> Result<M> {
        let (start, length) = (bytes.as_ptr() as usize, bytes.len());
        let mut rest = bytes;
        M::decode(&mut rest).map_err(|mut e| {
            e.push(message, field);
            let at = start.saturating_sub(self.file.as_ptr() as usize) + length - rest.len();
            damaged(self.file, at, &e)
        })
    }

    fn node(&self, index: usize, n: NodeProto) -> Result<NodeSpec> {
        let op_type = text(&n.op_type);
        let name = if n.name.is_empty() { format!("{op_type}_{index}") } else { text(&n.name) };
        let domain = domain(&n.domain);
        let mut attrs = Vec::with_capacity(n.attribute.len());
        for bytes in n.attribute {
            let a: AttributeProto = self.decode(bytes, "NodeProto", "attribute")?;
            let at = text(&a.name);
            let attr = self.attr(a).map_err(|e| e.at_attribute(&at).at_node(&name, &op_type))?;
            attrs.push((at, attr));
        }
        let mut attrs: Attrs = attrs.into_iter().collect();
        // A constant given sparsely is a constant all the same.
        if op_type == "Constant"
            && let Some(Attr::Tensor(t)) = attrs.remove("sparse_value")
        {
            attrs.insert("value".into(), Attr::Tensor(t));
        }
        let opset = self.opsets.iter().chain(self.fallback).find(|(d, _)| *d == domain).map_or(0, |o| o.1);
        Ok(NodeSpec {
            inputs: n.input.iter().map(text).collect(),
            outputs: n.output.iter().map(text).collect(),
            metadata: pairs(&n.metadata_props),
            overload: text(&n.overload),
            doc: text(&n.doc_string),
            name,
            op_type,
            domain,
            attrs,
            opset,
        })
    }

    fn subgraph(&self, g: GraphProto) -> Result<GraphSpec> {
        if self.depth >= DEEPEST {
            return Err(too_deep());
        }
        Cx { depth: self.depth + 1, ..*self }.graph(g)
    }

    fn attr(&self, a: AttributeProto) -> Result<Attr> {
        use attribute_type as kind;
        if !a.ref_attr_name.is_empty() {
            return if self.in_function {
                Ok(Attr::Ref(text(&a.ref_attr_name)))
            } else {
                Err(Error::input("refers to a function's attribute, outside of any function"))
            };
        }
        let missing = |what: &str| Error::input(format!("says it is a {what} but holds none"));
        Ok(match a.r#type.filter(|&t| t != 0).unwrap_or_else(|| implied_type(&a)) {
            kind::FLOAT => Attr::Float(a.f.unwrap_or(0.0)),
            kind::INT => Attr::Int(a.i.unwrap_or(0)),
            kind::STRING => Attr::Str(a.s.as_ref().map(text).unwrap_or_default()),
            kind::TENSOR => Attr::Tensor(tensor(*a.t.ok_or_else(|| missing("tensor"))?, self.external)?),
            kind::GRAPH => Attr::Graph(Arc::new(self.subgraph(*a.g.ok_or_else(|| missing("graph"))?)?)),
            kind::FLOATS => Attr::Floats(a.floats),
            kind::INTS => Attr::Ints(a.ints),
            kind::STRINGS => Attr::Strs(a.strings.iter().map(text).collect()),
            kind::TENSORS => {
                Attr::Tensors(a.tensors.into_iter().map(|t| tensor(t, self.external)).collect::<Result<_>>()?)
            }
            kind::SPARSE_TENSOR => {
                Attr::Tensor(sparse(*a.sparse_tensor.ok_or_else(|| missing("sparse tensor"))?, self.external)?.1)
            }
            kind::GRAPHS => Attr::Other("graphs"),
            kind::SPARSE_TENSORS => Attr::Other("sparse tensors"),
            kind::TYPE_PROTO => Attr::Other("type"),
            kind::TYPE_PROTOS => Attr::Other("types"),
            code => return Err(Error::input(format!("has the unknown type code {code}"))),
        })
    }
}

/// The type of an attribute that does not say: files before IR version 2, and careless writers.
fn implied_type(a: &AttributeProto) -> i32 {
    use attribute_type as kind;
    let candidates = [
        (a.f.is_some(), kind::FLOAT),
        (a.i.is_some(), kind::INT),
        (a.s.is_some(), kind::STRING),
        (a.t.is_some(), kind::TENSOR),
        (a.g.is_some(), kind::GRAPH),
        (!a.floats.is_empty(), kind::FLOATS),
        (!a.strings.is_empty(), kind::STRINGS),
        (!a.tensors.is_empty(), kind::TENSORS),
        (!a.graphs.is_empty(), kind::GRAPHS),
        (a.sparse_tensor.is_some(), kind::SPARSE_TENSOR),
        (!a.sparse_tensors.is_empty(), kind::SPARSE_TENSORS),
        (a.tp.is_some(), kind::TYPE_PROTO),
        (!a.type_protos.is_empty(), kind::TYPE_PROTOS),
    ];
    // With nothing set, an empty list of integers is the commonest meaning (`axes=[]`).
    candidates.iter().find(|c| c.0).map_or(kind::INTS, |c| c.1)
}

fn function(
    f: FunctionProto,
    file: &Bytes,
    model_opsets: &[(String, i64)],
    external: &External,
) -> Result<(Key, Function)> {
    let own = opsets(&f.opset_import);
    let cx = Cx { file, opsets: &own, fallback: model_opsets, external, in_function: true, depth: 0 };
    let key = (domain(&f.domain), text(&f.name), text(&f.overload));
    let mut defaults = Attrs::default();
    for a in f.attribute_proto {
        let name = text(&a.name);
        if a.ref_attr_name.is_empty() {
            let attr = cx.attr(a).map_err(|e| e.at_attribute(&name).at_node(&key.1, "function"))?;
            defaults.insert(name, attr);
        }
    }
    let names = |v: &[Bytes]| v.iter().map(text).collect();
    let nodes = cx.nodes(f.node, "FunctionProto")?;
    let function = Function { inputs: names(&f.input), outputs: names(&f.output), defaults, nodes };
    Ok((key, function))
}

fn domain(name: &Bytes) -> String {
    if &name[..] == b"ai.onnx" { String::new() } else { text(name) }
}

fn opsets(imports: &[OperatorSetIdProto]) -> Vec<(String, i64)> {
    imports.iter().map(|o| (domain(&o.domain), o.version.unwrap_or(0))).collect()
}

fn pairs(entries: &[StringStringEntryProto]) -> Vec<(String, String)> {
    entries.iter().map(|e| (text(&e.key), text(&e.value))).collect()
}

fn value(v: &ValueInfoProto) -> ValueSpec {
    let mut spec = ValueSpec { name: text(&v.name), ..ValueSpec::default() };
    let mut described = v.r#type.as_ref();
    while let Some(t) = described {
        let (container, element) = match t {
            TypeProto { sequence_type: Some(s), .. } => (Container::Sequence, s.elem_type.as_deref()),
            // A map is held as a sequence of keys and values; its type is that of the values.
            TypeProto { map_type: Some(m), .. } => (Container::Sequence, m.value_type.as_deref()),
            TypeProto { optional_type: Some(o), .. } => (Container::Optional, o.elem_type.as_deref()),
            _ => {
                if let Some(tensor) = t.tensor_type.as_ref().or(t.sparse_tensor_type.as_ref()) {
                    describe(tensor, &mut spec);
                }
                break;
            }
        };
        // The outermost container is what the value is; an optional sequence's elements are described below it.
        if spec.container == Container::Tensor {
            spec.container = container;
        }
        described = element;
    }
    spec
}

fn describe(t: &TensorType, spec: &mut ValueSpec) {
    spec.dtype = t.elem_type.and_then(DType::from_onnx);
    spec.shape = t.shape.as_ref().map(dims);
}

fn dims(shape: &TensorShapeProto) -> Vec<DimSpec> {
    let dim = |d: &super::proto::Dimension| match (&d.dim_value, &d.dim_param) {
        (Some(size), _) if *size > 0 => usize::try_from(*size).map_or(DimSpec::Free, DimSpec::Size),
        (None, Some(name)) if !name.is_empty() && &name[..] != b"?" => DimSpec::Named(text(name)),
        _ => DimSpec::Free,
    };
    shape.dim.iter().map(dim).collect()
}
