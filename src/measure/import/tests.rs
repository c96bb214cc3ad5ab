//! Small profiles of every runtime against a small network: what is read, and where it is put.

use super::*;
use crate::ir::{Bindings, build};
use crate::ops::spec::{Attr, DimSpec, GraphSpec, ModelSpec, NodeSpec, ValueSpec};
use crate::tensor::{Container, DType, Tensor};

/// conv1 → BatchNormalization → Relu → conv2, added to the Relu's result, → Relu.
fn graph() -> Graph {
    let node = |name: &str, op: &str, inputs: &[&str], output: &str| NodeSpec {
        name: name.into(),
        op_type: op.into(),
        inputs: inputs.iter().map(ToString::to_string).collect(),
        outputs: vec![output.into()],
        attrs: if op == "Conv" { [("pads".to_string(), Attr::Ints(vec![1; 4]))].into() } else { Default::default() },
        opset: 17,
        ..NodeSpec::default()
    };
    let value = |name: &str| ValueSpec {
        name: name.into(),
        dtype: Some(DType::F32),
        shape: Some([1, 4, 8, 8].map(DimSpec::Size).to_vec()),
        container: Container::Tensor,
    };
    let floats = |name: &str, dims: &[usize]| {
        let n = dims.iter().product();
        (name.to_string(), Tensor::from_vec(vec![0.5f32; n], dims).unwrap())
    };
    let spec = ModelSpec {
        graph: GraphSpec {
            name: "small".into(),
            nodes: vec![
                node("/conv1/Conv", "Conv", &["x", "w1"], "/conv1/Conv_output_0"),
                node("/bn/BN", "BatchNormalization", &["/conv1/Conv_output_0", "s", "s", "s", "s"], "/bn/BN_output_0"),
                node("/relu/Relu", "Relu", &["/bn/BN_output_0"], "/relu/Relu_output_0"),
                node("/conv2/Conv", "Conv", &["/relu/Relu_output_0", "w2"], "/conv2/Conv_output_0"),
                node("/Add", "Add", &["/conv2/Conv_output_0", "/relu/Relu_output_0"], "/Add_output_0"),
                node("/relu_1/Relu", "Relu", &["/Add_output_0"], "y"),
            ],
            inputs: vec![value("x")],
            outputs: vec![value("y")],
            initializers: vec![floats("w1", &[4, 4, 3, 3]), floats("w2", &[4, 4, 3, 3]), floats("s", &[4])],
            value_info: vec![],
        },
        opsets: vec![(String::new(), 17)],
        ..ModelSpec::default()
    };
    build(&spec, &Bindings::default()).unwrap().graph
}

/// Rows as `name: nodes by how`, and the sum of their milliseconds.
fn joined(content: &str) -> (String, Vec<String>, f64) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("profile");
    std::fs::write(&path, content).unwrap();
    let graph = graph();
    let joined = read(&path).unwrap().join(&graph);
    let nodes = |c: &[NodeId]| c.iter().map(|&id| graph.node(id).name.as_str()).collect::<Vec<_>>().join(" ");
    let rows = joined.import.rows.iter().zip(&joined.covers);
    let lines = rows.map(|(r, (c, by))| format!("{}: {} by {}", r.name, nodes(c), by.name())).collect();
    (joined.import.runtime.to_string(), lines, joined.measured_s().0 * 1e3)
}

const FIRST: &str = "/conv1/Conv /bn/BN /relu/Relu";
const SECOND: &str = "/conv2/Conv /Add /relu_1/Relu";

#[test]
fn onnxruntime_names_fused_convolutions_after_their_last_result() {
    let node = |name: &str, op: &str, index: u32, dur: u32| {
        format!(
            r#"{{"cat":"Node","name":"{name}_kernel_time","dur":{dur},"args":{{"op_name":"{op}","node_index":"{index}","provider":"CPUExecutionProvider"}}}}"#
        )
    };
    let run = |extra: u32| {
        [
            node("reorder_token_1", "ReorderInput", 1, 10),
            node("/relu/Relu_output_0_nchwc", "Conv", 2, 100 + extra),
            node("y_nchwc", "Conv", 3, 200),
            r#"{"cat":"Session","name":"model_run","dur":400}"#.to_string(),
        ]
        .join(",")
    };
    let text = format!("[{},{},{}]", run(50), run(0), run(0));
    let (runtime, rows, ms) = joined(&text);
    assert_eq!(runtime, "ONNX Runtime");
    assert_eq!(
        rows,
        [
            "reorder_token_1:  by nothing".to_string(),
            "/relu/Relu_output_0_nchwc: /conv1/Conv /relu/Relu /bn/BN by name".to_string(),
            "y_nchwc: /conv2/Conv /relu_1/Relu /Add by name".to_string(),
        ]
    );
    assert!((ms - 0.31).abs() < 1e-9, "{ms}");
    // A process that was stopped leaves no closing bracket.
    assert_eq!(joined(text.trim_end_matches(']')).1, rows);
}

#[test]
fn openvino_names_them_after_their_first_and_moves_serve_their_reader() {
    let text = "layerName;execStatus;layerType;execType;realTime (ms);cpuTime (ms)\n\
        x;Status.NOT_RUN;Parameter;unknown;0.000;0.000\n\
        x_abcd_acdb_/conv1/Conv/WithoutBiases;Status.EXECUTED;Reorder;jit_uni;0.5;0.5\n\
        /conv1/Conv/WithoutBiases;Status.EXECUTED;Convolution;brgconv;1.5;1.5\n\
        /relu/Relu;Status.NOT_RUN;Relu;undef;0.000;0.000\n\
        /conv2/Conv/WithoutBiases;Status.EXECUTED;Convolution;brgconv;2;2\n\
        Total;;;;4;4\n";
    let (runtime, rows, ms) = joined(text);
    assert_eq!(runtime, "OpenVINO");
    assert_eq!(
        rows,
        [
            "x_abcd_acdb_/conv1/Conv/WithoutBiases: /conv1/Conv by name".to_string(),
            format!("/conv1/Conv/WithoutBiases: {FIRST} by name"),
            format!("/conv2/Conv/WithoutBiases: {SECOND} by name"),
        ]
    );
    assert!((ms - 4.0).abs() < 1e-9, "{ms}");
}

#[test]
fn tensorrt_lists_the_parts_of_a_fused_layer() {
    let text = r#"[{"count": 20},
        {"name": "Reformatting CopyNode for Input Tensor 0", "timeMs": 2.0, "averageMs": 0.1, "percentage": 10},
        {"name": "/conv1/Conv + /relu/Relu", "timeMs": 8.0, "averageMs": 0.4, "percentage": 40},
        {"name": "/conv2/Conv + PWN(/Add, /relu_1/Relu)", "timeMs": 10.0, "averageMs": 0.5, "percentage": 50}]"#;
    let (runtime, rows, ms) = joined(text);
    assert_eq!(runtime, "TensorRT");
    assert_eq!(rows[0], "Reformatting CopyNode for Input Tensor 0:  by nothing");
    assert_eq!(rows[1], format!("/conv1/Conv + /relu/Relu: /conv1/Conv /relu/Relu /bn/BN by name"));
    assert_eq!(rows[2], format!("/conv2/Conv + PWN(/Add, /relu_1/Relu): {SECOND} by name"));
    assert!((ms - 1.0).abs() < 1e-9, "{ms}");
    let whole = r#"[{"count": 1}, {"name": "{ForeignNode[/conv1/Conv.../relu_1/Relu]}", "averageMs": 1.0}]"#;
    assert!(joined(whole).1[0].contains("/conv1/Conv /conv2/Conv") && joined(whole).1[0].contains("/Add"));
}

#[test]
fn tflite_and_pytorch_rows_are_placed_by_order_and_shape() {
    let text = "Operator-wise Profiling Info for Regular Benchmark Runs:\n\
        node type, first, avg_ms, %, cdf%, mem KB, times called, name\n\
        CONV_2D, 0.9, 0.8, 40, 40, 0, 1, [model/a/Relu]:0\n\
        CONV_2D, 1.1, 1.0, 50, 90, 0, 1, [model/b/add]:1\n\
        RELU, 0.2, 0.2, 10, 100, 0, 1, [Identity]:2\n\n\
        [summary]\n";
    let (runtime, rows, ms) = joined(text);
    assert_eq!(runtime, "TFLite");
    assert_eq!(rows[0], format!("model/a/Relu: {FIRST} by order"));
    assert_eq!(rows[1], "model/b/add: /conv2/Conv /Add by order", "{rows:?}");
    assert!((ms - 2.0).abs() < 1e-9, "{ms}");
    let op = |name: &str, ts: u32, dur: u32, dims: &str| {
        format!(
            r#"{{"ph":"X","cat":"cpu_op","name":"aten::{name}","tid":1,"ts":{ts},"dur":{dur},"args":{{"Input Dims":{dims}}}}}"#
        )
    };
    let conv = "[[1,4,8,8],[4,4,3,3],[]]";
    let run = |at: u32| {
        [
            op("conv2d", at, 100, conv),
            op("convolution", at + 1, 90, conv),
            op("batch_norm", at + 100, 20, "[[1,4,8,8],[4]]"),
            op("relu_", at + 120, 10, "[[1,4,8,8]]"),
            op("conv2d", at + 130, 100, conv),
            op("add_", at + 230, 10, "[[1,4,8,8],[1,4,8,8]]"),
            op("relu_", at + 240, 10, "[[1,4,8,8]]"),
        ]
        .join(",")
    };
    let (runtime, rows, ms) = joined(&format!(r#"{{"traceEvents":[{},{}]}}"#, run(0), run(1000)));
    assert_eq!(runtime, "PyTorch");
    assert_eq!(rows.len(), 6, "inner operators are part of outer ones, runs are told apart: {rows:?}");
    assert_eq!(rows[0], "aten::conv2d: /conv1/Conv by order");
    assert_eq!(rows[4], "aten::add_: /Add by order");
    assert!((ms - 0.25).abs() < 1e-9, "{ms}");
}

#[test]
fn what_is_no_profile_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    for (name, content, says) in [
        ("a.txt", "hello", "no profile of a runtime known"),
        ("b.json", "[]", "no profile of a runtime known"),
        ("c.json", r#"[{"cat":"Session","name":"model_run","dur":3}]"#, "holds no kernel times"),
        ("d.json", r#"{"traceEvents":[]}"#, "holds no operators"),
        (
            "e.csv",
            "layerName;execStatus;layerType;execType;realTime (ms)\nx;NOT_RUN;Parameter;u;0\n",
            "holds no layer that ran",
        ),
        ("f.json", "{\"avg_performance\": {}}", "holds no layer that ran"),
    ] {
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        let e = read(&path).unwrap_err().to_string();
        assert!(e.contains(says) && e.contains(name), "{name}: {e}");
    }
    assert!(read(&dir.path().join("none")).unwrap_err().to_string().contains("cannot be read"));
}
