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
    joined_all(&[content])
}

/// The same of several files.
fn joined_all(contents: &[&str]) -> (String, Vec<String>, f64) {
    let dir = tempfile::tempdir().unwrap();
    let write = |(i, content): (usize, &&str)| {
        let path = dir.path().join(format!("profile{i}"));
        std::fs::write(&path, content).unwrap();
        path
    };
    let paths: Vec<_> = contents.iter().enumerate().map(write).collect();
    let graph = graph();
    let joined = read(&paths).unwrap().join(&graph);
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
fn tensorrt_copies_serve_their_layer_and_layer_information_names_what_myelin_compiled() {
    // As trtexec 8.6 and 10 write it.
    let text = r#"[
  { "count" : 625 }
, { "name" : "Reformatting CopyNode for Input Tensor 0 to /conv1/Conv + PWN(/relu/Relu)", "timeMs" : 36.6844, "averageMs" : 0.058695, "medianMs" : 0.0584, "percentage" : 1.20497 }
, { "name" : "/conv1/Conv + PWN(/relu/Relu)", "timeMs" : 41.4232, "averageMs" : 0.0662771, "medianMs" : 0.066, "percentage" : 1.36062 }
, { "name" : "/relu/Relu_output_0 copy", "timeMs" : 0, "averageMs" : 0.01, "medianMs" : 0, "percentage" : 0 }
, { "name" : "/conv2/Conv_myl0_1", "timeMs" : 39.2477, "averageMs" : 0.0627963, "medianMs" : 0.06, "percentage" : 1.28917 }
, { "name" : "__myl_AddMax_myl0_2", "timeMs" : 12.5, "averageMs" : 0.02, "medianMs" : 0.02, "percentage" : 0.4 }
]"#;
    let (_, rows, ms) = joined(text);
    assert_eq!(rows[1], "/conv1/Conv + PWN(/relu/Relu): /conv1/Conv /relu/Relu /bn/BN by name");
    assert!(rows[0].ends_with("by name") && rows[2].ends_with("by name") && !rows[2].contains("/Add"), "{rows:?}");
    assert!(rows[3].contains("/conv2/Conv") && rows[4] == "__myl_AddMax_myl0_2:  by nothing", "{rows:?}");
    assert!((ms - 0.2177684).abs() < 1e-9, "{ms}");
    let info = "{\"Layers\": [{\"Name\": \"/conv2/Conv_myl0_1\", \"LayerType\": \"gemm\", \"Metadata\": \"[ONNX Layer: /conv2/Conv]\"},
        {\"Name\": \"__myl_AddMax_myl0_2\", \"LayerType\": \"kgen\", \"TacticName\": \"__myl_AddMax_0x1\",
         \"Metadata\": \"[ONNX Layer: /Add]\\u001e[ONNX Layer: /relu_1/Relu]\"}], \"Bindings\": [\"x\", \"y\"]}";
    for files in [[text, info], [info, text]] {
        let (_, rows, _) = joined_all(&files);
        assert_eq!(rows[3], "/conv2/Conv_myl0_1: /conv2/Conv by name");
        assert_eq!(rows[4], "__myl_AddMax_myl0_2: /Add /relu_1/Relu by name");
    }
}

#[test]
fn tflite_start_up_is_no_run_and_a_delegate_is_what_it_did() {
    // As `benchmark_model` writes it: tables of the start-up first, and of the runs the one in their order first.
    let start = "Profiling Info for Benchmark Initialization:
============================== Run Order ==============================
node type, start, first, avg_ms, %, cdf%, mem KB, times called, name
ModifyGraphWithDelegate, 0, 413.346, 413.346, 56.67%, 56.67%, 1748, 1, ModifyGraphWithDelegate/0
AllocateTensors, 255.36, 316.039, 158.023, 43.33%, 100%, 0, 2, AllocateTensors/0

Number of nodes executed: 2
============================== Summary by node type ==============================
node type, count, avg_ms, avg %, cdf %, mem KB, times called
AllocateTensors, 1, 0.029, 100%, 100%, 0, 1

Timings (microseconds): count=1 curr=29
Memory (bytes): count=0
2 nodes observed


Operator-wise Profiling Info for Regular Benchmark Runs:
============================== Run Order ==============================
node type, start, first, avg_ms, %, cdf%, mem KB, times called, name
";
    let plain = "CONV_2D, 0, 0.11, 0.8, 44.8994%, 44.8994%, 0, 1, [model/a/Relu;model/a/bn]:0
CONV_2D, 0.0931277, 0.034, 1.0, 44.5203%, 89.4197%, 0, 1, [model/b/Conv2D]:1
ADD, 0.12, 0.03, 0.1, 5.5%, 95%, 0, 1, [model/add]:2
RELU, 0.123291, 0.026, 0.1, 5.1393%, 100%, 0, 1, [Identity]:3

============================== Top by Computation Time ==============================
node type, start, first, avg_ms, %, cdf%, mem KB, times called, name
CONV_2D, 0, 0.11, 1.0, 44.8994%, 44.8994%, 0, 1, [model/b/Conv2D]:1
";
    let (runtime, rows, ms) = joined(&format!("{start}{plain}"));
    assert_eq!((runtime.as_str(), rows.len()), ("TFLite", 4));
    assert!(rows[0].starts_with("model/a/Relu;model/a/bn: /conv1/Conv"), "{rows:?}");
    assert!(rows[3].starts_with("Identity: /relu_1/Relu"), "{rows:?}");
    assert!((ms - 2.0).abs() < 1e-9, "{ms}");
    let delegated = "TfLiteXNNPackDelegate, 0, 2.1, 2.05, 100%, 100%, 0, 1, [Identity]:4

Number of nodes executed: 1
Delegate internal:
============================== Run Order ==============================
node type, start, first, avg_ms, %, cdf%, mem KB, times called, name
Convolution (NHWC, F32) IGEMM, 0, 0.9, 0.8, 40%, 40%, 0, 1, Delegate/Convolution (NHWC, F32) IGEMM:0
Convolution (NHWC, F32) IGEMM, 0.8, 1.1, 1.0, 50%, 90%, 0, 1, Delegate/Convolution (NHWC, F32) IGEMM:1
Add (ND, F32), 1.8, 0.2, 0.2, 10%, 100%, 0, 1, Delegate/Add (ND, F32):2

";
    let (_, rows, ms) = joined(&format!("{start}{delegated}"));
    assert_eq!(rows.len(), 3, "{rows:?}");
    assert!(rows[0].starts_with("Delegate/Convolution (NHWC, F32) IGEMM:0: /conv1/Conv"), "{rows:?}");
    assert!(rows[2].contains(": /Add"), "{rows:?}");
    assert!((ms - 2.0).abs() < 1e-9, "{ms}");
    // What is printed where no file is asked for: brackets, and tabs or wide gaps.
    for gap in ["\t", "    "] {
        let text = start.to_string()
            + "CONV_2D, 0, 0.11, 0.8, 80%, 80%, 0, 1, [model/a/Relu]:0\nRELU, 0.8, 0.2, 0.2, 20%, 100%, 0, 1, [Identity]:1\n";
        let head = "node type, start, first, avg_ms, %, cdf%, mem KB, times called, name";
        let printed = "[node type], [start], [first], [avg ms], [%], [cdf%], [mem KB], [times called], [Name]";
        let (_, rows, ms) = joined(&text.replace(head, printed).replace(", ", gap));
        assert!(
            rows.len() == 2 && rows[0].starts_with("model/a/Relu: /conv1/Conv") && (ms - 1.0).abs() < 1e-9,
            "{rows:?}"
        );
    }
}

#[test]
fn tensorrt_names_hold_numbers_that_are_no_nodes_and_regions_between_them() {
    // A value that is named by a number, as old exporters did, is not layer 108, nor tensor 12.
    let text = r#"[{"count": 11},
        {"name": "[trainStation1]", "averageMs": 0.1},
        {"name": "(Unnamed Layer* 108) [Shuffle]", "averageMs": 0.1},
        {"name": "Reformatting CopyNode for Output Tensor 12 to /conv1/Conv + /relu/Relu", "averageMs": 0.1},
        {"name": "w1 + /conv1/_weight_quantizer/QuantizeLinear + /conv1/Conv + /relu/Relu", "averageMs": 0.4},
        {"name": "reshape_before_/conv2/Conv", "averageMs": 0.1},
        {"name": "/conv2/Conv || /Add", "averageMs": 0.5},
        {"name": "/relu_1/Relu_clone_1", "averageMs": 0.1}]"#;
    let (_, rows, ms) = joined(text);
    assert_eq!(rows[0], "[trainStation1]:  by nothing");
    assert_eq!(rows[1], "(Unnamed Layer* 108) [Shuffle]:  by nothing");
    assert!(rows[2].ends_with("/Relu: /conv1/Conv by name"), "{rows:?}");
    assert!(rows[3].ends_with("/relu/Relu: /conv1/Conv /relu/Relu /bn/BN by name"), "{rows:?}");
    // What stands around a layer does not take it from the row that is the layer.
    assert_eq!(rows[4], "reshape_before_/conv2/Conv: /conv2/Conv by name");
    assert_eq!(rows[5], "/conv2/Conv || /Add: /conv2/Conv /Add by name");
    assert_eq!(rows[6], "/relu_1/Relu_clone_1: /relu_1/Relu by name");
    assert!((ms - 1.4).abs() < 1e-9, "{ms}");
    // A region that begins at a weight or at a layer without a name, and one whose last part is fused, leave named layers theirs.
    for first in ["w2", "(Unnamed Layer* 3) [Constant]", "/conv2/Conv"] {
        let text = format!(
            r#"[{{"count": 1}}, {{"name": "{{ForeignNode[{first}.../Add + /relu_1/Relu]}}", "averageMs": 1.0}},
                {{"name": "/conv1/Conv + /bn/BN + /relu/Relu", "averageMs": 1.0}}]"#
        );
        let (_, rows, _) = joined(&text);
        assert!(rows[0].ends_with(&format!(": {SECOND} by name")), "{first}: {rows:?}");
        assert!(rows[1].ends_with(&format!(": {FIRST} by name")), "{first}: {rows:?}");
    }
}

#[test]
fn tensorrt_prints_its_profile_with_names_before_or_behind() {
    let old = "[07/01/2021-12:27:29] [I] === Profile (613 iterations ) ===
[07/01/2021-12:27:29] [I]                                               Layer   Time (ms)   Avg. Time (ms)   Time %
[07/01/2021-12:27:29] [I]                       /conv1/Conv + /relu/Relu       19.98           0.4000      40.0
[07/01/2021-12:27:29] [I]             {/conv2/Conv,/Add,/relu_1/Relu}       96.17           0.6000      60.0
[07/01/2021-12:27:29] [I]                                               Total      116.15           1.0000     100.0
[07/01/2021-12:27:29] [I] 
";
    let new = "[05/08/2024-14:05:14] [I] === Profile (613 iterations ) ===
[05/08/2024-14:05:14] [I]    Time(ms)     Avg.(ms)   Median(ms)   Time(%)   Layer
[05/08/2024-14:05:14] [I]       19.98       0.4000       0.4100      40.0   /conv1/Conv + /relu/Relu
[05/08/2024-14:05:14] [I]       96.17       0.6000       0.6100      60.0   {/conv2/Conv,/Add,/relu_1/Relu}
[05/08/2024-14:05:14] [I]      116.15       1.0000       1.0200     100.0   Total
[05/08/2024-14:05:14] [I] 
";
    for text in [old.to_string(), new.to_string(), new.replace("Total\n", "Total\r\n")] {
        let (runtime, rows, ms) = joined(&format!("&&&& RUNNING TensorRT.trtexec\n{text}&&&& PASSED\n"));
        assert_eq!((runtime.as_str(), rows.len()), ("TensorRT", 2), "{rows:?}");
        assert_eq!(rows[0], "/conv1/Conv + /relu/Relu: /conv1/Conv /relu/Relu /bn/BN by name");
        assert_eq!(rows[1], format!("{{/conv2/Conv,/Add,/relu_1/Relu}}: {SECOND} by name"));
        assert!((ms - 1.0).abs() < 1e-9, "{ms}");
    }
}

#[test]
fn layer_information_parts_nodes_by_any_mark_and_tells_other_shapes() {
    let text =
        r#"[{"count": 1}, {"name": "__myl_A_myl0_1", "averageMs": 1.0}, {"name": "__myl_B_myl0_2", "averageMs": 1.0}]"#;
    for mark in ["\\u001e", "\\u001f", ""] {
        let info = |batch: usize| {
            format!(
                r#"{{"Layers": [{{"Name": "__myl_A_myl0_1", "LayerType": "correlation", "Outputs": [{{"Dimensions": [{batch},4,8,8]}}],
                "Metadata": "[ONNX Layer: /conv1/Conv]{mark}[ONNX Layer: /relu/Relu]"}}, {{"Name": "__myl_B_myl0_2", "LayerType": "kgen",
                "Outputs": [{{"Dimensions": [-1,4,8,8]}}], "Metadata": "[ONNX Layer: /conv2/Conv]"}}]}}"#
            )
        };
        let (_, rows, _) = joined_all(&[text, &info(1)]);
        assert_eq!(rows[0], "__myl_A_myl0_1: /conv1/Conv /relu/Relu /bn/BN by name");
        let dir = tempfile::tempdir().unwrap();
        let (times, layers) = (dir.path().join("times"), dir.path().join("layers"));
        std::fs::write(&times, text).unwrap();
        let notes = |batch: usize| {
            std::fs::write(&layers, info(batch)).unwrap();
            read(&[times.clone(), layers.clone()]).unwrap().join(&graph()).import.notes
        };
        assert_eq!(notes(1), [""; 0]);
        assert!(notes(32)[0].contains("32x4x8x8 there, 1x4x8x8 here"), "{:?}", notes(32));
    }
}

#[test]
fn tflite_rows_of_a_delegate_stand_among_others_and_may_be_sums() {
    let head = "Operator-wise Profiling Info for Regular Benchmark Runs:
============================== Run Order ==============================
\t     [node type]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]\t[times called]\t[Name]
";
    let tail = "
Timings (microseconds): count=64 first=15808 curr=14892 min=14470 max=17363 avg=2000.2 std=542
";
    let one = "\t  QUANTIZE\t 0.2\t 0.2\t 10.000%\t 10.000%\t 0.000\t 1\t[tfl.quantize]:0
\t AllocateTensors\t 9.000\t 9.000\t 5.000%\t 15.000%\t 452.000\t 0\tAllocateTensors/0
\t Convolution (NHWC, QC8) IGEMM\t 0.8\t 0.8\t 40.000%\t 55.000%\t 0.000\t 1\tDelegate/Convolution (NHWC, QC8) IGEMM:0
\t Convolution (NHWC, QC8) GEMM\t 0.7\t 0.7\t 35.000%\t 90.000%\t 0.000\t 1\tDelegate/Convolution (NHWC, QC8) GEMM:1
\t Add (ND, QS8)\t 0.2\t 0.2\t 10.000%\t 100.000%\t 0.000\t 1\tDelegate/Add (ND, QS8):2
";
    // What is called less than once a run counts by its share: 5 % beside the 95 % that take 1.9 ms.
    for prefix in ["", "05-31 10:31:13.006 21767 21767 I tflite  : "] {
        let text = format!("{head}{one}{tail}").replace("\n\t", &format!("\n{prefix}\t"));
        let (_, rows, ms) = joined(&text);
        assert!((ms - 2.0).abs() < 1e-9, "{ms}");
        assert_eq!(rows[1], "AllocateTensors/0:  by nothing");
        assert!(rows[2].ends_with(&format!("IGEMM:0: {FIRST} by order")), "{rows:?}");
        assert!(rows[3].ends_with(":1: /conv2/Conv by order") && rows[4].contains(": /Add "), "{rows:?}");
    }
    // Several parts: the first convolution of each is one row, and which nodes those are nobody can tell.
    let several = one.replace(
        "0.000\t 1\tDelegate/Convolution (NHWC, QC8) GEMM",
        "0.000\t 3\tDelegate/Convolution (NHWC, QC8) GEMM",
    );
    let (_, rows, ms) = joined(&format!("{head}{several}{tail}"));
    assert!((ms - 3.3 * 100.0 / 95.0).abs() < 1e-9, "{ms}");
    assert_eq!(rows[3], "Delegate/Convolution (NHWC, QC8) GEMM:1 (sum of 3):  by nothing");
    assert!(rows[2].ends_with("by nothing") && rows[4].ends_with("by nothing"), "{rows:?}");
    // What a GPU's delegate writes.
    let gpu =
        "\t convolution_2d 0 -> relu 1\t 0.3\t 0.3\t 30.0%\t 30.0%\t 0.000\t 1\tDelegate/convolution_2d 0 -> relu 1:0
\t convolution_2d 2\t 0.7\t 0.7\t 70.0%\t 100.0%\t 0.000\t 1\tDelegate/convolution_2d 2:1
";
    let (_, rows, _) = joined(&format!("{head}{gpu}{tail}"));
    assert!(rows[0].contains(&format!(": {FIRST} ")) && rows[1].contains(&format!(": {SECOND} ")), "{rows:?}");
}

#[test]
fn litert_sums_over_all_runs() {
    let text = "============================================= Run Order =============================================
                            [node type]    [start]    [first]   [avg ms]        [%]     [cdf%]   [mem KB] [times called]   [Name]
        Delegate/Convolution (NHWC) DWConv      0.000      0.500      0.400    40.000%    40.000%      0.000             20   [Delegate]:0
             Delegate/Convolution (NC) GEMM      0.000      0.500      0.400    40.000%    80.000%      0.000             20   [Delegate]:1
                          Delegate/Add (ND)      0.000      0.200      0.200    20.000%   100.000%      0.000             20   [Delegate]:2

================================ Delegate Statistics ================================
Op Name                                                    Count    Avg(us)    Min(us)    Max(us)  Total(us)
Delegate/Add (ND)                                             20     200.00          0       8141       4000

Timings (microseconds): count=3 curr=20000
";
    let (runtime, rows, ms) = joined(text);
    assert_eq!((runtime.as_str(), rows.len()), ("TFLite", 3));
    assert!((ms - 1.0).abs() < 1e-9, "{ms}");
    assert_eq!(rows[0], format!("Delegate/Convolution (NHWC) DWConv:0: {FIRST} by order"));
    assert!(rows[2].starts_with("Delegate/Add (ND):2: /Add"), "{rows:?}");
    // A product of its own is no convolution of 3x3, and what was left to the interpreter has no name either.
    let text =
        text.replace("Convolution (NC) GEMM", "Fully Connected (NC) GEMM").replace("[Delegate]:2", "[Builtin]:2");
    let (_, rows, _) = joined(&text.replace("Delegate/Add (ND)", "ADD"));
    assert!(rows[1].ends_with(":1:  by nothing") && rows[2].contains("/Add"), "{rows:?}");
    // Nor does its neighbour's time belong to a convolution whose own row has no place.
    let text = text.replace(
        "(NC) GEMM      0.000      0.500      0.400    40.000%    80.000%      0.000             20",
        "(NC) GEMM  0.000  0.500  0.400  40.000%  80.000%  0.000  60",
    );
    let (_, rows, _) = joined(&text.replace("Delegate/Add (ND)", "ADD").replace("Fully Connected", "Convolution"));
    assert!(rows[1].ends_with("(sum of 3):  by nothing") && !rows[2].contains("/conv2/Conv"), "{rows:?}");
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
        (
            "g.json",
            r#"[{"count": 1}, {"name": "a", "averageMs": 1e308}, {"name": "b", "averageMs": 1e308}]"#,
            "cannot be",
        ),
        ("h.json", r#"[{"count": 1}, {"name": "a", "averageMs": -1}]"#, "wrote no time"),
        ("i.json", r#"{"Layers": ["a", "b"], "Bindings": []}"#, "holds no times"),
        ("j.csv", "node type, start, avg_ms, name\n", "holds no operator"),
    ] {
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        let e = read(&[path]).unwrap_err().to_string();
        assert!(e.contains(says) && e.contains(name), "{name}: {e}");
    }
    assert!(read(&[dir.path().join("none")]).unwrap_err().to_string().contains("cannot be read"));
}
