//! What is written is read back equal, and no damaged file makes the reader panic.

use bytes::Bytes;
use madd_prof::error::Result;
use madd_prof::onnx::{read, read_bytes, write};
use madd_prof::ops::spec::{Attr, DimSpec, GraphSpec, Header, ModelSpec, NodeSpec, ValueSpec};
use madd_prof::tensor::{Container, DType, Tensor};
use std::path::Path;
use std::sync::Arc;

fn value(name: &str, dtype: Option<DType>, shape: Option<Vec<DimSpec>>) -> ValueSpec {
    ValueSpec { name: name.into(), dtype, shape, container: Container::Tensor }
}

fn node(op: &str, inputs: &[&str], outputs: &[&str], attrs: &[(&str, Attr)]) -> NodeSpec {
    NodeSpec {
        name: format!("{op}_of_{}", outputs.join("_")),
        op_type: op.into(),
        inputs: inputs.iter().map(ToString::to_string).collect(),
        outputs: outputs.iter().map(ToString::to_string).collect(),
        attrs: attrs.iter().map(|(k, v)| (k.to_string(), v.clone())).collect(),
        opset: 21,
        ..NodeSpec::default()
    }
}

/// A model with something of everything: all element types, all attribute kinds, subgraphs, free and named dims.
fn everything() -> ModelSpec {
    let mut graph = GraphSpec { name: "g".into(), ..GraphSpec::default() };
    for &d in DType::ALL.iter().filter(|&&d| d != DType::Str) {
        let bytes: Vec<u8> = (0..d.bytes_of(6).unwrap()).map(|i| i as u8 & 1).collect();
        graph.initializers.push((format!("w.{d}"), Tensor::from_file_bytes(d, bytes.into(), &[2, 3]).unwrap()));
    }
    let strings = Tensor::from_strings(vec!["a".into(), String::new(), "é".into()], &[3]).unwrap();
    graph.initializers.push(("text".into(), strings));
    graph.initializers.push(("none".into(), Tensor::zeros(DType::F32, &[0]).unwrap()));
    graph.initializers.push(("scalar".into(), Tensor::scalar(4i64)));
    let branch = |name: &str| {
        Attr::Graph(Arc::new(GraphSpec {
            name: name.into(),
            nodes: vec![node("Add", &["x", "own"], &["branch_out"], &[])],
            outputs: vec![value("branch_out", Some(DType::F32), None)],
            initializers: vec![("own".into(), Tensor::from_vec(vec![1f32, 2.], &[2]).unwrap())],
            ..GraphSpec::default()
        }))
    };
    let mut if_node = node("If", &["c"], &["y"], &[("then_branch", branch("then")), ("else_branch", branch("else"))]);
    if_node.doc = "line 7 of the model".into();
    if_node.metadata = vec![("namespace".into(), "Model/layer".into()), ("k".into(), String::new())];
    let attrs = [
        ("float", Attr::Float(1.5)),
        ("int", Attr::Int(0)),
        ("str", Attr::Str("s".into())),
        ("zero", Attr::Float(0.0)),
        ("minus_zero", Attr::Float(-0.0)),
        ("empty", Attr::Str(String::new())),
        ("tensor", Attr::Tensor(Tensor::from_vec(vec![1u8, 2], &[2]).unwrap())),
        ("floats", Attr::Floats(vec![0.0, -1.0])),
        ("ints", Attr::Ints(vec![3, -4, i64::MIN])),
        ("no_ints", Attr::Ints(vec![])),
        ("strs", Attr::Strs(vec!["a".into(), String::new()])),
        ("tensors", Attr::Tensors(vec![Tensor::scalar(1f32), Tensor::scalar(2f32)])),
    ];
    let mut custom = node("Custom", &["y", "", "w.float32"], &["", "z"], &attrs);
    custom.domain = "my.domain".into();
    custom.opset = 3;
    custom.overload = "v2".into();
    graph.nodes = vec![if_node, custom];
    let dims = vec![DimSpec::Named("batch".into()), DimSpec::Size(2), DimSpec::Free];
    graph.inputs = vec![value("x", Some(DType::F32), Some(dims)), value("c", Some(DType::Bool), Some(vec![]))];
    graph
        .inputs
        .push(ValueSpec { container: Container::Sequence, ..value("s", Some(DType::F16), Some(vec![DimSpec::Free])) });
    graph.inputs.push(ValueSpec { container: Container::Optional, ..value("o", Some(DType::I64), None) });
    graph.outputs = vec![value("z", Some(DType::F32), None)];
    graph.value_info = vec![value("y", Some(DType::F32), Some(vec![DimSpec::Size(7)]))];
    ModelSpec {
        graph,
        opsets: vec![(String::new(), 21), ("my.domain".into(), 3)],
        ir_version: 10,
        producer: ("madd-prof".into(), "1".into()),
        metadata: vec![("author".into(), "me".into())],
        notes: vec![],
        has_external_data: false,
        data_files: Vec::new(),
        header: Header {
            domain: "org.example".into(),
            version: 7,
            doc: "a model".into(),
            graph_doc: "its graph".into(),
            graph_metadata: vec![("stage".into(), "test".into())],
        },
    }
}

fn same_tensor(a: &Tensor, b: &Tensor) {
    assert_eq!(a.fact(), b.fact());
    match a.dtype() {
        DType::Str => assert_eq!(a.strings().unwrap(), b.strings().unwrap()),
        _ => assert_eq!(a.bytes().unwrap(), b.bytes().unwrap()),
    }
}

fn same_attr(a: &Attr, b: &Attr) {
    match (a, b) {
        (Attr::Graph(a), Attr::Graph(b)) => same_graph(a, b),
        (Attr::Tensor(a), Attr::Tensor(b)) => same_tensor(a, b),
        (Attr::Tensors(a), Attr::Tensors(b)) => {
            assert_eq!(a.len(), b.len());
            a.iter().zip(b).for_each(|(a, b)| same_tensor(a, b));
        }
        // No tensors inside: the debug text says all.
        _ => assert_eq!(format!("{a:?}"), format!("{b:?}")),
    }
}

fn same_graph(a: &GraphSpec, b: &GraphSpec) {
    assert_eq!(a.name, b.name);
    let values = |v: &[ValueSpec]| format!("{v:?}");
    assert_eq!(values(&a.inputs), values(&b.inputs));
    assert_eq!(values(&a.outputs), values(&b.outputs));
    assert_eq!(values(&a.value_info), values(&b.value_info));
    assert_eq!(a.initializers.len(), b.initializers.len());
    for ((an, at), (bn, bt)) in a.initializers.iter().zip(&b.initializers) {
        assert_eq!(an, bn);
        same_tensor(at, bt);
    }
    assert_eq!(a.nodes.len(), b.nodes.len());
    for (a, b) in a.nodes.iter().zip(&b.nodes) {
        let head = |n: &NodeSpec| {
            let n = n.clone();
            (n.name, n.op_type, n.domain, n.overload, n.inputs, n.outputs, n.opset, n.metadata, n.doc)
        };
        assert_eq!(head(a), head(b));
        assert_eq!(a.attrs.keys().collect::<Vec<_>>(), b.attrs.keys().collect::<Vec<_>>());
        for (attr, back) in a.attrs.values().zip(b.attrs.values()) {
            same_attr(attr, back);
        }
    }
}

fn same_model(a: &ModelSpec, b: &ModelSpec) {
    let head =
        |m: &ModelSpec| (m.opsets.clone(), m.ir_version, m.producer.clone(), m.metadata.clone(), m.notes.clone());
    assert_eq!(head(a), head(b));
    assert_eq!(a.header, b.header);
    same_graph(&a.graph, &b.graph);
}

#[test]
fn everything_survives_writing_and_reading() -> Result<()> {
    let dir = tempfile::tempdir().unwrap();
    let model = everything();
    for (name, external) in [("inline.onnx", None), ("external.onnx", Some(8)), ("all_external.onnx", Some(0))] {
        let path = dir.path().join(name);
        write(&model, &path, external)?;
        let data = dir.path().join(format!("{name}.data"));
        assert_eq!(data.exists(), external.is_some());
        let back = read(&path)?;
        same_model(&model, &back);
        // Over the very file the weights are mapped from.
        write(&back, &path, external)?;
        same_model(&model, &back);
        same_model(&model, &read(&path)?);
    }
    Ok(())
}

#[test]
fn zeros_are_written_explicitly() {
    // The type alone would make our reader see a zero; others want the field.
    use madd_prof::onnx::proto::{AttributeProto, ModelProto, NodeProto};
    use prost::Message;
    let model = ModelProto::decode(&wire(None)[..]).unwrap();
    let node = NodeProto::decode(model.graph.unwrap().node[1].clone()).unwrap();
    let attributes: Vec<_> = node.attribute.into_iter().map(|a| AttributeProto::decode(a).unwrap()).collect();
    let attribute = |name: &str| attributes.iter().find(|a| a.name == name).unwrap();
    assert_eq!(attribute("int").i, Some(0));
    assert_eq!(attribute("zero").f.map(f32::to_bits), Some(0));
    assert_eq!(attribute("minus_zero").f.map(f32::to_bits), Some((-0f32).to_bits()));
    assert_eq!(attribute("empty").s.as_deref(), Some(&[][..]));
}

#[test]
fn what_a_file_cannot_say_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.onnx");
    let fails = |attr: Attr, opset: i64| {
        let mut model = everything();
        model.graph.nodes[0].attrs.insert("a".into(), attr);
        model.graph.nodes[0].opset = opset;
        let error = write(&model, &path, None).unwrap_err().to_string();
        assert!(!path.exists() && error.contains("If_of_y"), "{error}");
    };
    fails(Attr::Ref("b".into()), 21);
    fails(Attr::Other("types"), 21);
    fails(Attr::Int(1), 17);
}

#[test]
fn external_data_that_is_missing_or_short_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.onnx");
    let data = dir.path().join("m.onnx.data");
    write(&everything(), &path, Some(8)).unwrap();
    let full = std::fs::read(&data).unwrap();
    std::fs::write(&data, &full[..full.len() / 2]).unwrap();
    let e = read(&path).unwrap_err().to_string();
    assert!(e.contains("m.onnx") && e.contains("beyond the end") && e.contains("hint"), "{e}");
    std::fs::remove_file(&data).unwrap();
    let e = read(&path).unwrap_err().to_string();
    assert!(e.contains("tensor 'w.") && e.contains("m.onnx.data"), "{e}");
    let bytes = Bytes::from(std::fs::read(&path).unwrap());
    assert!(read_bytes(bytes, None).unwrap_err().to_string().contains("in memory"));
}

fn wire(external: Option<usize>) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.onnx");
    write(&everything(), &path, external).unwrap();
    std::fs::read(&path).unwrap()
}

#[test]
fn every_truncation_is_an_error_that_says_so_or_a_model() {
    let whole = wire(None);
    for cut in 0..whole.len() {
        // A cut between two fields of the model leaves a valid, shorter one.
        if let Err(e) = read_bytes(Bytes::copy_from_slice(&whole[..cut]), None) {
            assert!(e.hint_text().is_some(), "{cut}: {e}");
        }
    }
    let e = read_bytes(Bytes::copy_from_slice(&whole[..whole.len() - 100]), None).unwrap_err().to_string();
    assert!(e.contains("cut off") && e.contains("more bytes"), "{e}");
}

#[test]
fn flipped_bytes_never_panic() {
    let dir = tempfile::tempdir().unwrap();
    for external in [None, Some(8)] {
        let whole = wire(external);
        let mut seed = 7u64;
        let mut random = || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed
        };
        for _ in 0..20_000 {
            let mut bytes = whole.clone();
            for _ in 0..1 + random() % 4 {
                let at = random() as usize % bytes.len();
                bytes[at] = random() as u8;
            }
            let _ = read_bytes(bytes.into(), Some(dir.path()));
        }
    }
}

#[test]
fn other_files_are_recognised() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.onnx");
    let says = |bytes: &[u8], what: &str| {
        std::fs::write(&path, bytes).unwrap();
        let e = read(&path).unwrap_err().to_string();
        assert!(e.contains(what) && e.contains("hint"), "{what}: {e}");
    };
    says(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "Git LFS");
    says(b"<!DOCTYPE html><html></html>", "HTML");
    says(b"{\"model\": []}", "JSON");
    says(b"PK\x03\x04\x14\0\0\0archive/data.pkl", "PyTorch");
    says(b"\x1c\0\0\0TFL3\x14\0\x20\0", "TensorFlow Lite");
    says(b"\x20\0\0\0ORTM\0\0\0\0", ".ort");
    says(b"ir_version: 8\ngraph {\n}\n", "text");
    says(&[0xff; 64], "not a valid ONNX model");
    says(&[0x3a, 0x00], "no nodes");
    says(b"", "empty");
    assert!(read(Path::new("no/such.onnx")).unwrap_err().to_string().contains("no such file"));
}
