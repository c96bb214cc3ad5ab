//! Writes a [`ModelSpec`] as an ONNX file, for zoo exports and emitted variants.
//!
//! The messages are `onnx-protobuf`'s, serialised by `protobuf` 3.4.0, which carries RUSTSEC-2024-0437 (unbounded recursion
//! while *parsing*); nothing is ever parsed with it: reading is [`super::read()`]'s, with another library.
//!
//! What a spec cannot say is not written: words on single values and attributes, training graphs, and functions, which were inlined
//! when the model was read. The schema of `onnx-protobuf` has every field that is needed, overloads and node metadata included;
//! element types are plain numbers in it, so newer ones pass through.

use crate::error::{Error, Result};
use crate::files::{Output, cannot_write};
use crate::ops::spec::{Attr, DimSpec, GraphSpec, ModelSpec, NodeSpec, ValueSpec};
use crate::tensor::{Container, DType, Tensor};
use onnx_protobuf::attribute_proto::AttributeType;
use onnx_protobuf::tensor_proto::DataLocation;
use onnx_protobuf::tensor_shape_proto::{Dimension, dimension};
use onnx_protobuf::{
    AttributeProto, GraphProto, Message, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto,
    TensorProto, TensorShapeProto, TypeProto, ValueInfoProto, type_proto,
};
use std::io::Write;
use std::path::Path;

/// Protocol buffers end at 2 GiB; beyond this much payload, tensors go to a file of their own.
const MOST_INLINE_BYTES: usize = 2_000_000_000;
/// The threshold used when external data was not asked for but is needed.
const DEFAULT_THRESHOLD_BYTES: usize = 1024;
/// Offsets of external tensors are multiples of this, or of a page for those that are worth mapping by themselves.
const ALIGN_BYTES: u64 = 64;
const PAGE_BYTES: u64 = 4096;
/// From which size a tensor begins on a page.
const PAGED_BYTES: usize = 1 << 16;

/// Numbers of the fields of `AttributeProto` that hold a single value.
const F_FIELD: u32 = 2;
const I_FIELD: u32 = 3;
const S_FIELD: u32 = 4;

/// Writes the model to `path`. Initializers of at least `external` bytes go to `NAME.data` beside it; with `None`, that
/// happens only to models too large for one file.
///
/// # Errors
/// If the files cannot be written, or the model holds what the format cannot (a built subgraph, a reference to a
/// function's attribute, a node inlined from a function of another operator set version).
pub fn write(model: &ModelSpec, path: &Path, external: Option<usize>) -> Result<()> {
    write_model(model, path, external).map_err(|e| e.in_file(path))
}

fn write_model(model: &ModelSpec, path: &Path, external: Option<usize>) -> Result<()> {
    let inline_bytes = payload_bytes(&model.graph);
    let threshold = external.or((inline_bytes > MOST_INLINE_BYTES).then_some(DEFAULT_THRESHOLD_BYTES));
    let mut writer = Writer { opsets: model.opsets.clone(), data: None };
    if let Some(threshold) = threshold {
        let mut name = path.file_name().unwrap_or_default().to_os_string();
        name.push(".data");
        let location =
            name.to_str().ok_or_else(|| Error::input("external data needs a file name that is valid text"))?;
        let file = Output::create(&path.with_file_name(&name))?;
        writer.data = Some(Data { file, location: location.to_string(), threshold, at: 0 });
    }
    let mut out = Output::create(path)?;
    let mut graph = writer.graph(&model.graph)?;
    graph.doc_string = model.header.graph_doc.clone();
    graph.metadata_props = pairs(&model.header.graph_metadata);
    let mut proto = ModelProto::new();
    proto.opset_import = writer.opsets.iter().map(|(domain, version)| opset(domain, *version)).collect();
    let version = writer.opsets.iter().find(|(d, _)| d.is_empty()).map_or(0, |o| o.1);
    proto.ir_version = if model.ir_version > 0 { model.ir_version } else { ir_version(version) };
    (proto.producer_name, proto.producer_version) = model.producer.clone();
    proto.metadata_props = pairs(&model.metadata);
    proto.domain = model.header.domain.clone();
    proto.model_version = model.header.version;
    proto.doc_string = model.header.doc.clone();
    proto.graph = Some(graph).into();
    proto.write_to_writer(&mut out).map_err(|e| match e.to_string() {
        m if m.contains("too large") => {
            Error::unsupported("the model is larger than one file of this format can be").hint("ask for external data")
        }
        m => Error::input(format!("cannot be written: {m}")),
    })?;
    // The data first: a model never refers to data that is not there yet.
    match writer.data {
        Some(data) if data.at > 0 => data.file.commit()?,
        _ => {}
    }
    out.commit()
}

/// The IR version that came with an operator set.
fn ir_version(opset: i64) -> i64 {
    match opset {
        ..=14 => 7,
        15..=18 => 8,
        19..=20 => 9,
        21..=22 => 10,
        23 => 11,
        24 => 12,
        25..=27 => 13,
        _ => 14,
    }
}

fn payload_bytes(g: &GraphSpec) -> usize {
    let tensor = |t: &Tensor| t.dtype().bytes_of(t.len()).unwrap_or(0);
    let inits: usize = g.initializers.iter().map(|(_, t)| tensor(t)).sum();
    let attr = |a: &Attr| match a {
        Attr::Tensor(t) => tensor(t),
        Attr::Tensors(v) => v.iter().map(tensor).sum(),
        Attr::Graph(g) => payload_bytes(g),
        _ => 0,
    };
    inits.saturating_add(g.nodes.iter().flat_map(|n| n.attrs.values()).map(attr).sum())
}

struct Data {
    file: Output,
    location: String,
    threshold: usize,
    at: u64,
}

impl Data {
    /// Appends a payload and says where it is.
    fn put(&mut self, bytes: &[u8]) -> Result<u64> {
        let align = if bytes.len() >= PAGED_BYTES { PAGE_BYTES } else { ALIGN_BYTES };
        let offset = self.at.next_multiple_of(align);
        let zeros = [0u8; PAGE_BYTES as usize];
        let gap = usize::try_from(offset - self.at).unwrap_or(0);
        let wrote = self.file.write_all(&zeros[..gap]).and_then(|()| self.file.write_all(bytes));
        wrote.map_err(|e| cannot_write(self.file.target(), &e))?;
        self.at = offset + bytes.len() as u64;
        Ok(offset)
    }
}

struct Writer {
    opsets: Vec<(String, i64)>,
    data: Option<Data>,
}

impl Writer {
    fn graph(&mut self, g: &GraphSpec) -> Result<GraphProto> {
        let mut out = GraphProto::new();
        // The standard wants a name.
        out.name = if g.name.is_empty() { "graph".into() } else { g.name.clone() };
        for node in &g.nodes {
            out.node.push(self.node(node).map_err(|e| e.at_node(&node.name, &node.op_type))?);
        }
        for (name, t) in &g.initializers {
            let proto = self.initializer(name, t);
            out.initializer.push(proto.map_err(|e| Error::input(format!("tensor '{name}': {}", e.message())))?);
        }
        out.input = g.inputs.iter().map(value).collect();
        out.output = g.outputs.iter().map(value).collect();
        // A declared fact without an element type says nothing, and is not valid.
        out.value_info = g.value_info.iter().filter(|v| v.dtype.is_some()).map(value).collect();
        Ok(out)
    }

    fn node(&mut self, node: &NodeSpec) -> Result<NodeProto> {
        match self.opsets.iter().find(|(d, _)| *d == node.domain) {
            None => self.opsets.push((node.domain.clone(), node.opset.max(1))),
            Some((_, version)) if node.opset != 0 && node.opset != *version => {
                return Err(Error::unsupported(format!(
                    "is of operator set version {} in a model of version {version}, which a file cannot say",
                    node.opset
                ))
                .hint("convert the model with onnx.version_converter first"));
            }
            Some(_) => {}
        }
        let mut out = NodeProto::new();
        out.input = node.inputs.clone();
        out.output = node.outputs.clone();
        out.name = node.name.clone();
        out.op_type = node.op_type.clone();
        out.domain = node.domain.clone();
        out.overload = node.overload.clone();
        out.doc_string = node.doc.clone();
        out.metadata_props = pairs(&node.metadata);
        for (name, attr) in node.attrs.iter() {
            out.attribute.push(self.attr(name, attr).map_err(|e| e.at_attribute(name))?);
        }
        Ok(out)
    }

    fn attr(&mut self, name: &str, attr: &Attr) -> Result<AttributeProto> {
        let mut out = AttributeProto::new();
        out.name = name.to_string();
        // `onnx-protobuf` leaves out fields that hold their default; readers of the standard's own schema take that for
        // an attribute without a value, so zeros and empty strings are written as fields of the same number.
        let explicit = out.special_fields.mut_unknown_fields();
        let kind = match attr {
            Attr::Int(v) => {
                if *v == 0 {
                    explicit.add_varint(I_FIELD, 0);
                }
                out.i = *v;
                AttributeType::INT
            }
            Attr::Float(v) => {
                if *v == 0.0 {
                    explicit.add_fixed32(F_FIELD, v.to_bits());
                } else {
                    out.f = *v;
                }
                AttributeType::FLOAT
            }
            Attr::Str(v) => {
                if v.is_empty() {
                    explicit.add_length_delimited(S_FIELD, Vec::new());
                }
                out.s = v.clone().into_bytes();
                AttributeType::STRING
            }
            Attr::Tensor(t) => {
                out.t = Some(tensor("", t)?).into();
                AttributeType::TENSOR
            }
            Attr::Graph(g) => {
                out.g = Some(self.graph(g)?).into();
                AttributeType::GRAPH
            }
            Attr::Ints(v) => {
                out.ints = v.clone();
                AttributeType::INTS
            }
            Attr::Floats(v) => {
                out.floats = v.clone();
                AttributeType::FLOATS
            }
            Attr::Strs(v) => {
                out.strings = v.iter().map(|s| s.clone().into_bytes()).collect();
                AttributeType::STRINGS
            }
            Attr::Tensors(v) => {
                out.tensors = v.iter().map(|t| tensor("", t)).collect::<Result<_>>()?;
                AttributeType::TENSORS
            }
            Attr::Body(_) => return Err(Error::unsupported("is a built subgraph, which cannot be written")),
            Attr::Ref(_) => {
                return Err(Error::unsupported("refers to a function's attribute, which cannot be written"));
            }
            Attr::Other(what) => return Err(Error::unsupported(format!("holds {what}, which cannot be written"))),
        };
        out.type_ = kind.into();
        Ok(out)
    }

    fn initializer(&mut self, name: &str, t: &Tensor) -> Result<TensorProto> {
        let large = |d: &Data| {
            t.dtype() != DType::Str && t.dtype().bytes_of(t.len()).is_some_and(|b| b > 0 && b >= d.threshold)
        };
        let Some(data) = self.data.as_mut().filter(|d| large(d)) else { return tensor(name, t) };
        let bytes = t.bytes()?;
        let offset = data.put(bytes)?;
        let mut out = described(name, t);
        out.data_location = DataLocation::EXTERNAL.into();
        out.external_data = pairs(&[
            ("location".to_string(), data.location.clone()),
            ("offset".to_string(), offset.to_string()),
            ("length".to_string(), bytes.len().to_string()),
        ]);
        Ok(out)
    }
}

fn described(name: &str, t: &Tensor) -> TensorProto {
    let mut out = TensorProto::new();
    out.name = name.to_string();
    // Dims of a tensor that exists are far below the limit.
    out.dims = t.dims().iter().map(|&d| i64::try_from(d).unwrap_or(i64::MAX)).collect();
    out.data_type = t.dtype().to_onnx();
    out
}

fn tensor(name: &str, t: &Tensor) -> Result<TensorProto> {
    let mut out = described(name, t);
    if t.dtype() == DType::Str {
        out.string_data = t.strings()?.iter().map(|s| s.clone().into_bytes()).collect();
    } else {
        out.raw_data = t.bytes()?.to_vec();
    }
    Ok(out)
}

fn value(v: &ValueSpec) -> ValueInfoProto {
    let mut tensor = type_proto::Tensor::new();
    tensor.elem_type = v.dtype.map_or(0, DType::to_onnx);
    if let Some(dims) = &v.shape {
        let mut shape = TensorShapeProto::new();
        shape.dim = dims.iter().map(dim).collect();
        tensor.shape = Some(shape).into();
    }
    let mut described = TypeProto::new();
    described.value = Some(type_proto::Value::TensorType(tensor));
    let described = match v.container {
        Container::Tensor => described,
        Container::Sequence => {
            let mut sequence = type_proto::Sequence::new();
            sequence.elem_type = Some(described).into();
            let mut outer = TypeProto::new();
            outer.value = Some(type_proto::Value::SequenceType(sequence));
            outer
        }
        Container::Optional => {
            let mut optional = type_proto::Optional::new();
            optional.elem_type = Some(described).into();
            let mut outer = TypeProto::new();
            outer.value = Some(type_proto::Value::OptionalType(optional));
            outer
        }
    };
    let mut out = ValueInfoProto::new();
    out.name = v.name.clone();
    // A subgraph's inputs may be undescribed; an empty type would not be valid.
    if v.dtype.is_some() {
        out.type_ = Some(described).into();
    }
    out
}

fn dim(d: &DimSpec) -> Dimension {
    let mut out = Dimension::new();
    out.value = match d {
        DimSpec::Size(n) => i64::try_from(*n).ok().map(dimension::Value::DimValue),
        DimSpec::Named(name) => Some(dimension::Value::DimParam(name.clone())),
        DimSpec::Free => None,
    };
    out
}

fn opset(domain: &str, version: i64) -> OperatorSetIdProto {
    let mut out = OperatorSetIdProto::new();
    out.domain = domain.to_string();
    out.version = version;
    out
}

fn pairs(entries: &[(String, String)]) -> Vec<StringStringEntryProto> {
    let pair = |(key, value): &(String, String)| {
        let mut out = StringStringEntryProto::new();
        out.key = key.clone();
        out.value = value.clone();
        out
    };
    entries.iter().map(pair).collect()
}
