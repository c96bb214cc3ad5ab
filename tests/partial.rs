//! What is counted when not everything is known at once: branches and loops, sizes that only a run tells, operators nobody knows,
//! free dims left free.

use madd_prof::onnx::write;
use madd_prof::ops::spec::{Attr, DimSpec, GraphSpec, ModelSpec, NodeSpec, ValueSpec};
use madd_prof::tensor::{Container, DType, Tensor};
use serde_json::Value;
use std::fs;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

fn value(name: &str, dtype: DType, dims: &[&str]) -> ValueSpec {
    let dim = |d: &&str| d.parse().map_or(DimSpec::Named(d.to_string()), DimSpec::Size);
    ValueSpec {
        name: name.into(),
        dtype: Some(dtype),
        shape: Some(dims.iter().map(dim).collect()),
        container: Container::Tensor,
    }
}

fn float(name: &str, dims: &[&str]) -> ValueSpec {
    value(name, DType::F32, dims)
}

fn node(op: &str, inputs: &[&str], outputs: &[&str], attrs: &[(&str, Attr)]) -> NodeSpec {
    let (domain, op) = op.rsplit_once("::").unwrap_or(("", op));
    NodeSpec {
        name: outputs.join("_"),
        op_type: op.into(),
        domain: domain.into(),
        inputs: inputs.iter().map(ToString::to_string).collect(),
        outputs: outputs.iter().map(ToString::to_string).collect(),
        attrs: attrs.iter().map(|(k, v)| (k.to_string(), v.clone())).collect(),
        opset: if domain.is_empty() { 17 } else { 1 },
        ..NodeSpec::default()
    }
}

/// Numbers no two of which are equal, so that no weight is taken for a fill.
fn weight(name: &str, dims: &[usize]) -> (String, Tensor) {
    let seed = name.bytes().map(usize::from).sum::<usize>();
    let n: usize = dims.iter().product();
    let values = (0..n).map(|i| ((i * 7919 + seed * 104_729) % 99_991) as f32 / 99_991.0 - 0.5).collect();
    (name.into(), Tensor::from_vec::<f32>(values, dims).unwrap())
}

fn body(
    inputs: Vec<ValueSpec>,
    nodes: Vec<NodeSpec>,
    outputs: Vec<ValueSpec>,
    initializers: Vec<(String, Tensor)>,
) -> Attr {
    Attr::Graph(Arc::new(GraphSpec { name: "body".into(), nodes, inputs, outputs, initializers, value_info: vec![] }))
}

/// A model file and the folder it lies in, where the program is run.
struct File(tempfile::TempDir);

impl File {
    fn new(graph: GraphSpec) -> File {
        let folder = tempfile::tempdir().unwrap();
        let opsets = vec![(String::new(), 17), ("my.domain".into(), 1)];
        let model = ModelSpec { graph, opsets, ir_version: 8, ..ModelSpec::default() };
        write(&model, &folder.path().join("m.onnx"), None).unwrap();
        File(folder)
    }
    fn run(&self, args: &[&str]) -> Output {
        let mut c = Command::new(env!("CARGO_BIN_EXE_madd-prof"));
        c.env_remove("COLUMNS").env_remove("MADD_PROF_ISA").stdin(Stdio::null()).current_dir(self.0.path());
        c.args(["count", "m.onnx"]).args(args).output().unwrap()
    }
    fn text(&self, args: &[&str]) -> String {
        let o = self.run(args);
        assert_eq!(o.status.code(), Some(0), "{args:?}: {}", String::from_utf8_lossy(&o.stderr));
        String::from_utf8(o.stdout).unwrap()
    }
    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.text(&[args, &["--format", "json"]].concat())).unwrap()
    }
    fn error(&self, args: &[&str]) -> String {
        let o = self.run(args);
        assert_eq!(o.status.code(), Some(2), "{args:?}");
        String::from_utf8(o.stderr).unwrap()
    }
}

/// `x·w` with `w` of 8 x `n`.
fn product(n: usize, out: &str) -> (Vec<NodeSpec>, Vec<(String, Tensor)>) {
    let w = format!("w{n}");
    (vec![node("MatMul", &["x", &w], &[out], &[])], vec![weight(&w, &[8, n])])
}

/// An If over a flag: 4·8·16 MAdds or 4·8·8·2.
fn branches() -> File {
    let (then_nodes, then_weights) = product(16, "a");
    let then_nodes = [then_nodes, vec![node("ReduceSum", &["a"], &["s"], &[])]].concat();
    let (mut else_nodes, else_weights) = product(8, "b");
    else_nodes.push(node("MatMul", &["b", "w8"], &["c"], &[]));
    else_nodes.push(node("ReduceSum", &["c"], &["s"], &[]));
    let out = || vec![ValueSpec { shape: None, ..float("s", &[]) }];
    let attrs = [
        ("then_branch", body(vec![], then_nodes, out(), then_weights)),
        ("else_branch", body(vec![], else_nodes, out(), else_weights)),
    ];
    File::new(GraphSpec {
        name: "g".into(),
        nodes: vec![node("If", &["flag"], &["y"], &attrs)],
        inputs: vec![float("x", &["4", "8"]), value("flag", DType::Bool, &[])],
        outputs: vec![ValueSpec { shape: None, ..float("y", &[]) }],
        ..GraphSpec::default()
    })
}

#[test]
fn an_if_shows_both_branches_and_counts_the_one_taken() {
    let file = branches();
    let open = file.json(&[]);
    let t = &open["totals"];
    assert_eq!((&t["madds_range"]["low"], &t["madds_range"]["high"]), (&512.into(), &512.into()));
    // MAdds agree in both branches; the sums afterwards do not.
    assert!(t["other_flops_range"]["low"].as_u64() < t["other_flops_range"]["high"].as_u64());
    assert_eq!(open["layers"][0]["bodies"][0]["name"], "then");
    assert_eq!(open["layers"][0]["bodies"][0]["layers"][0]["madds"], 512);
    assert_eq!(t["params"], 8 * 16 + 8 * 8);
    for (flag, nodes) in [("true", 2), ("false", 3)] {
        let fixed = file.json(&["--value", &format!("flag={flag}")]);
        assert_eq!(fixed["totals"]["unknown_nodes"], 0, "{flag}");
        assert_eq!(fixed["layers"].as_array().unwrap().len(), nodes, "{flag}: the branch stands in the If's place");
    }
    let run = file.json(&["--executed"]);
    // Made-up flags are false.
    assert_eq!(run["layers"][0]["basis"], "executed");
    assert_eq!(run["layers"][0]["bodies"][1]["rounds"]["low"], 1);
    assert_eq!(run["layers"][0]["bodies"][0]["rounds"]["high"], 0);
    assert_eq!(run["totals"]["coverage"]["node_share"], 1.0);
    assert!(file.text(&[]).contains("y › then"));
    assert_eq!(file.run(&["--min-coverage", "100"]).status.code(), Some(1));
    assert_eq!(file.run(&["--min-coverage", "100", "--executed"]).status.code(), Some(0));
}

/// A Loop of `x ← x·w`, 4·8·8 MAdds a round, for `n` rounds given as an input.
fn repeated() -> File {
    let nodes = vec![node("MatMul", &["v", "w"], &["v2"], &[]), node("Identity", &["go"], &["go2"], &[])];
    let inputs = vec![value("i", DType::I64, &[]), value("go", DType::Bool, &[]), float("v", &["4", "8"])];
    let outputs = vec![value("go2", DType::Bool, &[]), float("v2", &["4", "8"])];
    File::new(GraphSpec {
        name: "g".into(),
        nodes: vec![node(
            "Loop",
            &["n", "", "x"],
            &["y"],
            &[("body", body(inputs, nodes, outputs, vec![weight("w", &[8, 8])]))],
        )],
        inputs: vec![float("x", &["4", "8"]), value("n", DType::I64, &[])],
        outputs: vec![float("y", &["4", "8"])],
        ..GraphSpec::default()
    })
}

#[test]
fn a_loop_costs_its_body_times_its_rounds_once_they_are_known() {
    let file = repeated();
    let open = file.json(&[]);
    assert_eq!(open["layers"][0]["madds"], Value::Null);
    assert_eq!(open["layers"][0]["bodies"][0]["madds"]["low"], 256);
    assert_eq!(open["totals"]["madds_range"]["high"], Value::Null);
    for n in [0, 1, 10] {
        let fixed = file.json(&["--value", &format!("n={n}")]);
        assert_eq!(fixed["totals"]["madds"], 256 * n, "{n} rounds");
    }
    let x = file.0.path().join("x.npz");
    let (given, rounds) = (weight("x", &[4, 8]).1, Tensor::scalar(7i64));
    madd_prof::tensor::npz::write(&x, [("x", &given), ("n", &rounds)]).unwrap();
    let run = file.json(&["--executed", "--input", "x.npz"]);
    assert_eq!(
        (&run["totals"]["madds"], &run["layers"][0]["bodies"][0]["rounds"]["low"]),
        (&(256 * 7).into(), &7.into())
    );
}

#[test]
fn sizes_that_only_data_tells_leave_madds_exact_and_a_run_tells_the_rest() {
    let (mut nodes, weights) = product(8, "h");
    nodes.push(node("NonZero", &["h"], &["at"], &[]));
    nodes.push(node("Cast", &["at"], &["f"], &[("to", Attr::Int(1))]));
    nodes.push(node("Mul", &["f", "f"], &["sq"], &[]));
    nodes.push(node("MatMul", &["wt", "sq"], &["y"], &[]));
    let file = File::new(GraphSpec {
        name: "g".into(),
        nodes,
        inputs: vec![float("x", &["4", "8"])],
        outputs: vec![ValueSpec { shape: None, ..float("y", &[]) }],
        initializers: [weights, vec![weight("wt", &[3, 2])]].concat(),
        ..GraphSpec::default()
    });
    let open = file.json(&[]);
    assert_eq!(open["layers"][3]["madds"], 0, "an elementwise product has no multiply-adds, whatever its size");
    assert_eq!(open["layers"][3]["other_flops"], Value::Null);
    assert_eq!(open["layers"][4]["madds"], Value::Null);
    let run = file.json(&["--executed"]);
    assert_eq!(run["totals"]["unknown_nodes"], 0);
    let found = run["layers"][2]["output_shape"][1].as_u64().unwrap();
    assert_eq!(run["totals"]["madds"].as_u64().unwrap(), 4 * 8 * 8 + 3 * 2 * found);
    assert!(run["totals"]["coverage"]["executed_nodes"].as_u64().unwrap() >= 2);
}

#[test]
fn work_that_no_rule_can_tell_is_counted_as_it_is_done() {
    let most = Tensor::from_vec(vec![3i64], &[1]).unwrap();
    let file = File::new(GraphSpec {
        name: "g".into(),
        nodes: vec![node("NonMaxSuppression", &["boxes", "scores", "most"], &["kept"], &[])],
        inputs: vec![float("boxes", &["1", "6", "4"]), float("scores", &["1", "1", "6"])],
        outputs: vec![ValueSpec { shape: None, ..value("kept", DType::I64, &[]) }],
        initializers: vec![("most".into(), most)],
        ..GraphSpec::default()
    });
    let open = file.json(&[]);
    assert_eq!((&open["layers"][0]["madds"], &open["layers"][0]["other_flops"]), (&0.into(), &Value::Null));
    let run = file.json(&["--executed"]);
    assert_eq!((&run["layers"][0]["basis"], &run["totals"]["unknown_nodes"]), (&"executed".into(), &0.into()));
    assert!(run["totals"]["other_flops"].as_u64().unwrap() > 0);
    // The proof by counting sees the same operations.
    let proof = file.run(&["--verify"]);
    let said = String::from_utf8_lossy(&proof.stderr).into_owned();
    assert!(said.contains(&format!("{} other FLOPs", run["totals"]["other_flops"])), "{said}");
}

/// A custom convolution of the user's own between two products.
fn custom() -> File {
    File::new(GraphSpec {
        name: "g".into(),
        nodes: vec![
            node("Relu", &["x"], &["r"], &[]),
            node("my.domain::FooConv", &["r", "w"], &["y"], &[("stride", Attr::Int(2))]),
        ],
        inputs: vec![float("x", &["1", "4", "8", "8"])],
        outputs: vec![float("y", &["1", "6", "4", "4"])],
        initializers: vec![weight("w", &[6, 4, 3, 3])],
        ..GraphSpec::default()
    })
}

#[test]
fn an_unknown_operator_is_bounded_gated_and_may_be_given_a_rule() {
    let file = custom();
    let open = file.json(&[]);
    let (inputs, outputs) = (4 * 8 * 8 + 6 * 4 * 9, 6 * 4 * 4);
    assert_eq!(open["totals"]["madds_range"]["high"], inputs * outputs);
    assert_eq!((&open["layers"][1]["madds"], &open["layers"][1]["basis"]), (&Value::Null, &"unknown".into()));
    assert_eq!(open["totals"]["coverage"]["node_share"], 0.5);
    let gated = file.run(&["--min-coverage", "99"]);
    assert_eq!(gated.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&gated.stderr).contains("50.00 % of nodes"));
    let rule = |text: &str| {
        fs::write(file.0.path().join("madd-prof.toml"), format!("[ops.\"my.domain::FooConv\"]\n{text}\n")).unwrap()
    };
    rule("madds = \"n*oc*oh*ow*ic*kh*kw\"\nother_flops = \"out[0] * attr.stride\"");
    let ruled = file.json(&["--min-coverage", "100", "--strict"]);
    assert_eq!(ruled["totals"]["madds"], 6 * 4 * 4 * 4 * 9);
    assert_eq!(ruled["layers"][1]["other_flops"], 6 * 4 * 4 * 2);
    for (text, says) in [
        ("madds = \"n*och\"", "'och'"),
        ("madds = \"n - 5\"", "no count"),
        ("madds = \"n*\"", "ends where"),
        ("madds = \"n*z\"\ninputs = [\"n z\"]", "names 2 sizes of input 0"),
    ] {
        rule(text);
        let e = file.error(&[]);
        assert!(e.contains(says) && e.contains("hint") | e.contains("rule"), "{text}: {e}");
    }
}

/// One attention head without weights behind a projection: linear and quadratic in `seq`.
fn attention() -> File {
    File::new(GraphSpec {
        name: "g".into(),
        nodes: vec![
            node("MatMul", &["x", "w"], &["q"], &[]),
            node("Transpose", &["q"], &["k"], &[("perm", Attr::Ints(vec![0, 2, 1]))]),
            node("MatMul", &["q", "k"], &["s"], &[]),
            node("Softmax", &["s"], &["p"], &[]),
            node("MatMul", &["p", "q"], &["y"], &[]),
        ],
        inputs: vec![float("x", &["batch", "seq", "32"])],
        outputs: vec![ValueSpec { shape: None, ..float("y", &[]) }],
        initializers: vec![weight("w", &[32, 32])],
        ..GraphSpec::default()
    })
}

#[test]
fn formulas_are_exact_and_equal_counting_anywhere() {
    let file = attention();
    let text = file.text(&["--symbolic", "batch,seq"]);
    assert!(text.contains("64·batch·seq² + 1,024·batch·seq"), "{text}");
    let found = file.json(&["--symbolic", "batch,seq"]);
    let terms = found["madds"]["terms"].as_array().unwrap();
    let number = |v: &Value| v.as_str().unwrap().parse::<i128>().unwrap();
    for (batch, seq) in [(1u32, 1u32), (1, 77), (13, 2), (9, 500), (64, 1024)] {
        let counted = file.json(&["--dim", &format!("batch={batch}"), "--dim", &format!("seq={seq}")]);
        let sum: i128 = terms
            .iter()
            .map(|t| {
                let power = |d: &str| t["powers"][d].as_u64().unwrap_or(0) as u32;
                let sizes = i128::from(batch).pow(power("batch")) * i128::from(seq).pow(power("seq"));
                number(&t["numerator"]) * sizes / number(&t["denominator"])
            })
            .sum();
        assert_eq!(i128::from(counted["totals"]["madds"].as_u64().unwrap()), sum, "batch={batch} seq={seq}");
    }
    assert!(file.error(&["--symbolic", "sequence"]).contains("batch, seq"));
    assert!(file.error(&["--symbolic", "seq", "--dim", "seq=3"]).contains("bound"));
}

#[test]
fn a_sweep_finds_where_attention_overtakes_the_weights() {
    let file = attention();
    let swept = file.json(&["--sweep", "seq=4..64:x2", "--dim", "batch=2"]);
    assert_eq!(swept["sweep"].as_array().unwrap().len(), 5);
    assert_eq!(swept["sweep"][2]["madds"], 2 * (1024 * 16 + 64 * 16 * 16));
    // 64·seq² > 1024·seq from seq = 17 on.
    let crossing = swept["crossovers"].as_array().unwrap().iter().find(|c| c["what"] == "activation_madds").unwrap();
    assert_eq!(crossing["seq"], 17);
    assert!(file.error(&["--sweep", "seq=9..4"]).contains("FROM is larger"));
    let csv = file.text(&["--sweep", "seq=8,9", "--dim", "batch=1", "--format", "csv"]);
    assert_eq!(csv.lines().count(), 3);
}

#[test]
fn strides_make_a_formula_hold_on_multiples_only_and_it_says_so() {
    let attrs = [("strides", Attr::Ints(vec![2, 2])), ("pads", Attr::Ints(vec![1, 1, 1, 1]))];
    let file = File::new(GraphSpec {
        name: "g".into(),
        nodes: vec![node("Conv", &["x", "w"], &["h"], &attrs), node("Conv", &["h", "v"], &["y"], &attrs)],
        inputs: vec![float("x", &["1", "3", "side", "side"])],
        outputs: vec![ValueSpec { shape: None, ..float("y", &[]) }],
        initializers: vec![weight("w", &[8, 3, 3, 3]), weight("v", &[8, 8, 3, 3])],
        ..GraphSpec::default()
    });
    let text = file.text(&["--symbolic", "side"]);
    // 8·27·side²/4 + 8·72·side²/16
    assert!(text.contains("MAdds        90·side²") && text.contains("multiple of 4"), "{text}");
}

#[test]
fn copies_of_learned_tensors_are_told_apart() {
    let (name, w) = weight("w", &[8, 16]);
    let v = w.view::<f32>().unwrap();
    let turned = (0..16).flat_map(|c| (0..8).map(move |r| (r, c))).map(|(r, c)| v[r * 16 + c]).collect();
    let turned = Tensor::from_vec::<f32>(turned, &[16, 8]).unwrap();
    let file = File::new(GraphSpec {
        name: "g".into(),
        nodes: vec![node("MatMul", &["x", "w"], &["h"], &[]), node("MatMul", &["h", "wt"], &["y"], &[])],
        inputs: vec![float("x", &["4", "8"])],
        outputs: vec![float("y", &["4", "8"])],
        initializers: vec![(name, w.clone()), ("wt".into(), turned)],
        ..GraphSpec::default()
    });
    let t = &file.json(&["--distinct"])["totals"];
    assert_eq!((&t["params"], &t["params_distinct"]), (&256.into(), &128.into()));
    assert_eq!((&t["param_copies"][0]["name"], &t["param_copies"][0]["transposed"]), (&"wt".into(), &true.into()));
}
