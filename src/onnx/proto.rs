//! The messages of `onnx.proto`, tagged by hand for `prost`: no `protoc`, no build script.
//!
//! Four choices differ from what a generator would make:
//!
//! - Strings are [`Bytes`]: a name costs a reference count rather than an allocation, and a file whose text is not UTF-8 is
//!   still read (lossily, see [`text`]).
//! - The packed payloads of [`TensorProto`] (`float_data` and its siblings) are kept as the bytes they are in the file, one
//!   [`Bytes`] per chunk; little-endian floats are then usable in place, exactly like `raw_data`. [`Lenient`] also accepts the
//!   unpacked form, which the wire format allows.
//! - Nodes ([`GraphProto::node`], [`FunctionProto::node`]) and their attributes ([`NodeProto::attribute`]) are kept as the bytes
//!   they are and decoded one at a time, as each is turned into what the program keeps of it: thousands of decoded messages at
//!   once would cost more memory than all the rest.
//! - Fields nobody here reads (documentation strings, device configurations, quantization annotations) are not declared, so
//!   they are skipped. Each place says which.
//!
//! The names of structs and fields appear in error messages (`ModelProto.graph: GraphProto.node: …`), so they are those of the
//! standard.

use bytes::{Buf, BufMut, Bytes};
use prost::encoding::{DecodeContext, WireType, varint};
use prost::{DecodeError, Message};

/// Text of a file, with what is not UTF-8 replaced.
pub fn text(bytes: &Bytes) -> String {
    // The plain check is several times as fast as the lossy one, and nearly all text passes it.
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_string(),
        Err(_) => String::from_utf8_lossy(bytes).into_owned(),
    }
}

/// `ModelProto` (device configurations are skipped).
#[derive(Clone, PartialEq, Message)]
pub struct ModelProto {
    /// The version of the format.
    #[prost(int64, optional, tag = "1")]
    pub ir_version: Option<i64>,
    /// Imported operator sets.
    #[prost(message, repeated, tag = "8")]
    pub opset_import: Vec<OperatorSetIdProto>,
    /// Exporter.
    #[prost(bytes = "bytes", tag = "2")]
    pub producer_name: Bytes,
    /// Exporter's version.
    #[prost(bytes = "bytes", tag = "3")]
    pub producer_version: Bytes,
    /// The model's own namespace.
    #[prost(bytes = "bytes", tag = "4")]
    pub domain: Bytes,
    /// The model's own version.
    #[prost(int64, optional, tag = "5")]
    pub model_version: Option<i64>,
    /// What it is, in words.
    #[prost(bytes = "bytes", tag = "6")]
    pub doc_string: Bytes,
    /// The graph.
    #[prost(message, optional, tag = "7")]
    pub graph: Option<GraphProto>,
    /// Free-form pairs.
    #[prost(message, repeated, tag = "14")]
    pub metadata_props: Vec<StringStringEntryProto>,
    /// Training graphs, kept as bytes: only their presence is reported.
    #[prost(bytes = "bytes", repeated, tag = "20")]
    pub training_info: Vec<Bytes>,
    /// Model-local functions.
    #[prost(message, repeated, tag = "25")]
    pub functions: Vec<FunctionProto>,
}

/// `GraphProto` (quantization annotations are skipped).
#[derive(Clone, PartialEq, Message)]
pub struct GraphProto {
    /// Nodes: a [`NodeProto`] each.
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub node: Vec<Bytes>,
    /// Name.
    #[prost(bytes = "bytes", tag = "2")]
    pub name: Bytes,
    /// What it is, in words.
    #[prost(bytes = "bytes", tag = "10")]
    pub doc_string: Bytes,
    /// Constants.
    #[prost(message, repeated, tag = "5")]
    pub initializer: Vec<Lenient>,
    /// Sparse constants.
    #[prost(message, repeated, tag = "15")]
    pub sparse_initializer: Vec<SparseTensorProto>,
    /// Inputs.
    #[prost(message, repeated, tag = "11")]
    pub input: Vec<ValueInfoProto>,
    /// Outputs.
    #[prost(message, repeated, tag = "12")]
    pub output: Vec<ValueInfoProto>,
    /// Declared facts of intermediate values.
    #[prost(message, repeated, tag = "13")]
    pub value_info: Vec<ValueInfoProto>,
    /// Free-form pairs.
    #[prost(message, repeated, tag = "16")]
    pub metadata_props: Vec<StringStringEntryProto>,
}

/// `NodeProto` (device configurations are skipped).
#[derive(Clone, PartialEq, Message)]
pub struct NodeProto {
    /// Input value names.
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub input: Vec<Bytes>,
    /// Output value names.
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub output: Vec<Bytes>,
    /// Name.
    #[prost(bytes = "bytes", tag = "3")]
    pub name: Bytes,
    /// Operator.
    #[prost(bytes = "bytes", tag = "4")]
    pub op_type: Bytes,
    /// Attributes: an [`AttributeProto`] each.
    #[prost(bytes = "bytes", repeated, tag = "5")]
    pub attribute: Vec<Bytes>,
    /// What it is, in words: exporters put the source line there.
    #[prost(bytes = "bytes", tag = "6")]
    pub doc_string: Bytes,
    /// Operator domain.
    #[prost(bytes = "bytes", tag = "7")]
    pub domain: Bytes,
    /// Which overload of a model-local function.
    #[prost(bytes = "bytes", tag = "8")]
    pub overload: Bytes,
    /// Free-form pairs.
    #[prost(message, repeated, tag = "9")]
    pub metadata_props: Vec<StringStringEntryProto>,
}

/// `AttributeProto` (`doc_string` is skipped).
#[derive(Clone, PartialEq, Message)]
pub struct AttributeProto {
    /// Name.
    #[prost(bytes = "bytes", tag = "1")]
    pub name: Bytes,
    /// A float.
    #[prost(float, optional, tag = "2")]
    pub f: Option<f32>,
    /// An integer.
    #[prost(int64, optional, tag = "3")]
    pub i: Option<i64>,
    /// A string.
    #[prost(bytes = "bytes", optional, tag = "4")]
    pub s: Option<Bytes>,
    /// A tensor.
    #[prost(message, optional, boxed, tag = "5")]
    pub t: Option<Box<Lenient>>,
    /// A graph.
    #[prost(message, optional, boxed, tag = "6")]
    pub g: Option<Box<GraphProto>>,
    /// Floats.
    #[prost(float, repeated, packed = "false", tag = "7")]
    pub floats: Vec<f32>,
    /// Integers.
    #[prost(int64, repeated, packed = "false", tag = "8")]
    pub ints: Vec<i64>,
    /// Strings.
    #[prost(bytes = "bytes", repeated, tag = "9")]
    pub strings: Vec<Bytes>,
    /// Tensors.
    #[prost(message, repeated, tag = "10")]
    pub tensors: Vec<Lenient>,
    /// Graphs.
    #[prost(message, repeated, tag = "11")]
    pub graphs: Vec<GraphProto>,
    /// A type.
    #[prost(message, optional, boxed, tag = "14")]
    pub tp: Option<Box<TypeProto>>,
    /// Types.
    #[prost(message, repeated, tag = "15")]
    pub type_protos: Vec<TypeProto>,
    /// Which field is meant ([`attribute_type`]); absent in very old files.
    #[prost(int32, optional, tag = "20")]
    pub r#type: Option<i32>,
    /// The attribute of the enclosing function this one takes its value from.
    #[prost(bytes = "bytes", tag = "21")]
    pub ref_attr_name: Bytes,
    /// A sparse tensor.
    #[prost(message, optional, boxed, tag = "22")]
    pub sparse_tensor: Option<Box<SparseTensorProto>>,
    /// Sparse tensors.
    #[prost(message, repeated, tag = "23")]
    pub sparse_tensors: Vec<SparseTensorProto>,
}

/// The values of `AttributeProto.AttributeType`.
pub mod attribute_type {
    #![allow(missing_docs)]
    pub const FLOAT: i32 = 1;
    pub const INT: i32 = 2;
    pub const STRING: i32 = 3;
    pub const TENSOR: i32 = 4;
    pub const GRAPH: i32 = 5;
    pub const FLOATS: i32 = 6;
    pub const INTS: i32 = 7;
    pub const STRINGS: i32 = 8;
    pub const TENSORS: i32 = 9;
    pub const GRAPHS: i32 = 10;
    pub const SPARSE_TENSOR: i32 = 11;
    pub const SPARSE_TENSORS: i32 = 12;
    pub const TYPE_PROTO: i32 = 13;
    pub const TYPE_PROTOS: i32 = 14;
}

/// `TensorProto`, its payloads as they lie in the file (`doc_string` is skipped).
#[derive(Clone, PartialEq, Message)]
pub struct TensorProto {
    /// Dims.
    #[prost(int64, repeated, packed = "false", tag = "1")]
    pub dims: Vec<i64>,
    /// Element type.
    #[prost(int32, optional, tag = "2")]
    pub data_type: Option<i32>,
    /// Which part of a larger tensor this is; nothing writes it.
    #[prost(message, optional, tag = "3")]
    pub segment: Option<Segment>,
    /// Packed little-endian `f32`, in chunks.
    #[prost(bytes = "bytes", repeated, tag = "4")]
    pub float_data: Vec<Bytes>,
    /// Packed varints, in chunks: `i32` and every narrower type.
    #[prost(bytes = "bytes", repeated, tag = "5")]
    pub int32_data: Vec<Bytes>,
    /// Strings.
    #[prost(bytes = "bytes", repeated, tag = "6")]
    pub string_data: Vec<Bytes>,
    /// Packed varints, in chunks.
    #[prost(bytes = "bytes", repeated, tag = "7")]
    pub int64_data: Vec<Bytes>,
    /// Name.
    #[prost(bytes = "bytes", tag = "8")]
    pub name: Bytes,
    /// Little-endian elements.
    #[prost(bytes = "bytes", optional, tag = "9")]
    pub raw_data: Option<Bytes>,
    /// Packed little-endian `f64`, in chunks.
    #[prost(bytes = "bytes", repeated, tag = "10")]
    pub double_data: Vec<Bytes>,
    /// Packed varints, in chunks: `u64` and `u32`.
    #[prost(bytes = "bytes", repeated, tag = "11")]
    pub uint64_data: Vec<Bytes>,
    /// Where the payload lies when it is outside the file.
    #[prost(message, repeated, tag = "13")]
    pub external_data: Vec<StringStringEntryProto>,
    /// 1 when the payload is outside the file.
    #[prost(int32, optional, tag = "14")]
    pub data_location: Option<i32>,
    /// Free-form pairs.
    #[prost(message, repeated, tag = "16")]
    pub metadata_props: Vec<StringStringEntryProto>,
}

/// `TensorProto.Segment`.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Segment {
    /// First element.
    #[prost(int64, optional, tag = "1")]
    pub begin: Option<i64>,
    /// One past the last element.
    #[prost(int64, optional, tag = "2")]
    pub end: Option<i64>,
}

/// A [`TensorProto`] whose repeated numbers may also be unpacked, as the wire format lets a writer choose.
///
/// Unpacked numbers are gathered into the packed form, so readers see one form only.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Lenient(pub TensorProto);

/// Appends to the last chunk where this process owns it, else starts a chunk.
fn append(chunks: &mut Vec<Bytes>, add: &[u8]) {
    // A chunk inside the memory map is never unique and never written to.
    let mut last = match chunks.pop().map(Bytes::try_into_mut) {
        Some(Ok(own)) => own,
        Some(Err(shared)) => {
            chunks.push(shared);
            bytes::BytesMut::new()
        }
        None => bytes::BytesMut::new(),
    };
    last.extend_from_slice(add);
    chunks.push(last.freeze());
}

/// The error for a number cut short; `prost` offers no other public way to make one than to decode nothing.
fn ends_early(field: &'static str) -> Result<(), DecodeError> {
    varint::decode_varint(&mut &[][..]).map(drop).map_err(|mut e| {
        e.push("TensorProto", field);
        e
    })
}

impl Message for Lenient {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        self.0.encode_raw(buf);
    }
    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        let t = &mut self.0;
        match (tag, wire_type) {
            (4, WireType::ThirtyTwoBit) => {
                let mut word = [0; 4];
                if buf.try_copy_to_slice(&mut word).is_err() {
                    return ends_early("float_data");
                }
                append(&mut t.float_data, &word);
            }
            (10, WireType::SixtyFourBit) => {
                let mut word = [0; 8];
                if buf.try_copy_to_slice(&mut word).is_err() {
                    return ends_early("double_data");
                }
                append(&mut t.double_data, &word);
            }
            (5 | 7 | 11, WireType::Varint) => {
                let value = varint::decode_varint(buf)?;
                let mut word = Vec::with_capacity(10);
                varint::encode_varint(value, &mut word);
                let chunks = match tag {
                    5 => &mut t.int32_data,
                    7 => &mut t.int64_data,
                    _ => &mut t.uint64_data,
                };
                append(chunks, &word);
            }
            _ => return t.merge_field(tag, wire_type, buf, ctx),
        }
        Ok(())
    }
    fn encoded_len(&self) -> usize {
        self.0.encoded_len()
    }
    fn clear(&mut self) {
        self.0.clear();
    }
}

/// `SparseTensorProto`.
#[derive(Clone, PartialEq, Message)]
pub struct SparseTensorProto {
    /// The non-zero values; its name is the sparse tensor's.
    #[prost(message, optional, tag = "1")]
    pub values: Option<Lenient>,
    /// Where they are: `[n]` linear positions or `[n, rank]` coordinates.
    #[prost(message, optional, tag = "2")]
    pub indices: Option<Lenient>,
    /// The dense dims.
    #[prost(int64, repeated, packed = "false", tag = "3")]
    pub dims: Vec<i64>,
}

/// `ValueInfoProto` (`doc_string` and `metadata_props` are skipped).
#[derive(Clone, PartialEq, Message)]
pub struct ValueInfoProto {
    /// Name.
    #[prost(bytes = "bytes", tag = "1")]
    pub name: Bytes,
    /// Type.
    #[prost(message, optional, tag = "2")]
    pub r#type: Option<TypeProto>,
}

/// `TypeProto`: the members of its oneof, of which a valid file sets one (`denotation` is skipped).
#[derive(Clone, PartialEq, Message)]
pub struct TypeProto {
    /// A tensor.
    #[prost(message, optional, tag = "1")]
    pub tensor_type: Option<TensorType>,
    /// A sequence.
    #[prost(message, optional, boxed, tag = "4")]
    pub sequence_type: Option<Box<ElementType>>,
    /// A map.
    #[prost(message, optional, boxed, tag = "5")]
    pub map_type: Option<Box<MapType>>,
    /// An opaque type.
    #[prost(message, optional, tag = "7")]
    pub opaque_type: Option<OpaqueType>,
    /// A sparse tensor.
    #[prost(message, optional, tag = "8")]
    pub sparse_tensor_type: Option<TensorType>,
    /// An optional.
    #[prost(message, optional, boxed, tag = "9")]
    pub optional_type: Option<Box<ElementType>>,
}

/// `TypeProto.Tensor` and `TypeProto.SparseTensor`.
#[derive(Clone, PartialEq, Message)]
pub struct TensorType {
    /// Element type.
    #[prost(int32, optional, tag = "1")]
    pub elem_type: Option<i32>,
    /// Shape; absent when not even the rank is declared.
    #[prost(message, optional, tag = "2")]
    pub shape: Option<TensorShapeProto>,
}

/// `TypeProto.Sequence` and `TypeProto.Optional`.
#[derive(Clone, PartialEq, Message)]
pub struct ElementType {
    /// What it contains.
    #[prost(message, optional, boxed, tag = "1")]
    pub elem_type: Option<Box<TypeProto>>,
}

/// `TypeProto.Map`.
#[derive(Clone, PartialEq, Message)]
pub struct MapType {
    /// Key type.
    #[prost(int32, optional, tag = "1")]
    pub key_type: Option<i32>,
    /// Value type.
    #[prost(message, optional, boxed, tag = "2")]
    pub value_type: Option<Box<TypeProto>>,
}

/// `TypeProto.Opaque`.
#[derive(Clone, PartialEq, Message)]
pub struct OpaqueType {
    /// Domain.
    #[prost(bytes = "bytes", tag = "1")]
    pub domain: Bytes,
    /// Name.
    #[prost(bytes = "bytes", tag = "2")]
    pub name: Bytes,
}

/// `TensorShapeProto`.
#[derive(Clone, PartialEq, Message)]
pub struct TensorShapeProto {
    /// Dims.
    #[prost(message, repeated, tag = "1")]
    pub dim: Vec<Dimension>,
}

/// `TensorShapeProto.Dimension`: the members of its oneof (`denotation` is skipped).
#[derive(Clone, PartialEq, Message)]
pub struct Dimension {
    /// A size.
    #[prost(int64, optional, tag = "1")]
    pub dim_value: Option<i64>,
    /// A name.
    #[prost(bytes = "bytes", optional, tag = "2")]
    pub dim_param: Option<Bytes>,
}

/// `StringStringEntryProto`.
#[derive(Clone, PartialEq, Message)]
pub struct StringStringEntryProto {
    /// Key.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// Value.
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
}

/// `OperatorSetIdProto`.
#[derive(Clone, PartialEq, Message)]
pub struct OperatorSetIdProto {
    /// Domain; empty for `ai.onnx`.
    #[prost(bytes = "bytes", tag = "1")]
    pub domain: Bytes,
    /// Version.
    #[prost(int64, optional, tag = "2")]
    pub version: Option<i64>,
}

/// `FunctionProto` (`doc_string` and `value_info` are skipped: facts inside a function depend on its call).
#[derive(Clone, PartialEq, Message)]
pub struct FunctionProto {
    /// Name: the operator type of its calls.
    #[prost(bytes = "bytes", tag = "1")]
    pub name: Bytes,
    /// Formal inputs.
    #[prost(bytes = "bytes", repeated, tag = "4")]
    pub input: Vec<Bytes>,
    /// Formal outputs.
    #[prost(bytes = "bytes", repeated, tag = "5")]
    pub output: Vec<Bytes>,
    /// Attributes without a default.
    #[prost(bytes = "bytes", repeated, tag = "6")]
    pub attribute: Vec<Bytes>,
    /// Body: a [`NodeProto`] each.
    #[prost(bytes = "bytes", repeated, tag = "7")]
    pub node: Vec<Bytes>,
    /// Operator sets of the body.
    #[prost(message, repeated, tag = "9")]
    pub opset_import: Vec<OperatorSetIdProto>,
    /// Domain of its calls.
    #[prost(bytes = "bytes", tag = "10")]
    pub domain: Bytes,
    /// Attributes with a default.
    #[prost(message, repeated, tag = "11")]
    pub attribute_proto: Vec<AttributeProto>,
    /// Which overload.
    #[prost(bytes = "bytes", tag = "13")]
    pub overload: Bytes,
    /// Free-form pairs.
    #[prost(message, repeated, tag = "14")]
    pub metadata_props: Vec<StringStringEntryProto>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_are_slices_of_the_input_even_below_nested_messages() {
        let tensor = |name: &str| {
            Lenient(TensorProto {
                name: Bytes::copy_from_slice(name.as_bytes()),
                raw_data: Some(Bytes::from(vec![7u8; 1000])),
                float_data: vec![Bytes::from(vec![1u8; 400])],
                ..Default::default()
            })
        };
        let inner = GraphProto { initializer: vec![tensor("inner")], ..Default::default() };
        let attribute = AttributeProto { g: Some(Box::new(inner)), ..Default::default() };
        let node = NodeProto { attribute: vec![attribute.encode_to_vec().into()], ..Default::default() };
        let node = vec![node.encode_to_vec().into()];
        let graph = GraphProto { node, initializer: vec![tensor("outer")], ..Default::default() };
        let file = Bytes::from(ModelProto { graph: Some(graph), ..Default::default() }.encode_to_vec());
        let range = file.as_ptr_range();
        let model = ModelProto::decode(&mut file.clone()).unwrap();
        let graph = model.graph.unwrap();
        let node = NodeProto::decode(&mut graph.node[0].clone()).unwrap();
        let attribute = AttributeProto::decode(&mut node.attribute[0].clone()).unwrap();
        let inner = attribute.g.as_ref().unwrap();
        for t in [&graph.initializer[0].0, &inner.initializer[0].0] {
            for payload in [t.raw_data.as_ref().unwrap(), &t.float_data[0], &t.name] {
                let p = payload.as_ptr_range();
                assert!(range.start <= p.start && p.end <= range.end, "copied");
            }
        }
    }

    #[test]
    fn unpacked_numbers_read_like_packed_ones() {
        let mut wire = Vec::new();
        for v in [1.5f32, -2.0] {
            wire.push(4 << 3 | 5);
            wire.extend_from_slice(&v.to_le_bytes());
        }
        wire.extend_from_slice(&[7 << 3, 3, 7 << 3, 0xac, 2]);
        wire.extend_from_slice(&[5 << 3 | 2, 2, 1, 2, 5 << 3, 9]);
        let t = Lenient::decode(Bytes::from(wire)).unwrap().0;
        assert_eq!(t.float_data.concat(), [1.5f32.to_le_bytes(), (-2f32).to_le_bytes()].concat());
        assert_eq!(t.int64_data.concat(), [3, 0xac, 2]);
        assert_eq!(t.int32_data.concat(), [1, 2, 9]);
        assert!(Lenient::decode(Bytes::from_static(&[4 << 3 | 5, 0, 0])).is_err());
        assert!(Lenient::decode(Bytes::from_static(&[10 << 3 | 1, 0, 0])).is_err());
    }
}
