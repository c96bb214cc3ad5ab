//! Every fast kernel against the reference: all operator cases and fused patterns, on every instruction set and with one and two
//! threads, activation memory filled with NaN beforehand. A kernel of the table that no case reaches is a failure.

use madd_prof::engine::{Kept, Options, Pack, Path, Session};
use madd_prof::ir::{Bindings, Source, build};
use madd_prof::ops::spec::{Attr, DimSpec, GraphSpec, ModelSpec, NodeSpec, ValueSpec};
use madd_prof::ops::{NEWEST_OPSET, TABLE, sample};
use madd_prof::simd::Isa;
use madd_prof::tensor::{DType, Tensor};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A small model and the inputs to run it on.
struct Model {
    name: String,
    spec: ModelSpec,
    inputs: Vec<Tensor>,
}

/// Builds models line by line: `m.node("Conv", &["x", "w"], "y", &[…])`.
struct Draft {
    name: String,
    graph: GraphSpec,
    inputs: Vec<Tensor>,
    opset: i64,
}

impl Draft {
    fn new(name: &str) -> Draft {
        Draft { name: name.into(), graph: GraphSpec::default(), inputs: Vec::new(), opset: NEWEST_OPSET }
    }
    fn input(&mut self, name: &str, t: Tensor) -> &mut Self {
        self.graph.inputs.push(ValueSpec {
            name: name.into(),
            dtype: Some(t.dtype()),
            shape: t.sequence().is_err().then(|| t.dims().iter().map(|&d| DimSpec::Size(d)).collect()),
            container: t.fact().container,
        });
        self.inputs.push(t);
        self
    }
    fn constant(&mut self, name: &str, t: Tensor) -> &mut Self {
        self.graph.initializers.push((name.into(), t));
        self
    }
    fn node(&mut self, op: &str, inputs: &[&str], outputs: &[&str], attrs: &[(&str, Attr)]) -> &mut Self {
        self.graph.nodes.push(NodeSpec {
            name: format!("{op}{}", self.graph.nodes.len()),
            op_type: op.into(),
            inputs: inputs.iter().map(|s| s.to_string()).collect(),
            outputs: outputs.iter().map(|s| s.to_string()).collect(),
            attrs: attrs.iter().map(|(k, v)| (k.to_string(), v.clone())).collect(),
            opset: self.opset,
            ..NodeSpec::default()
        });
        self
    }
    fn done(&mut self, outputs: &[&str]) -> Model {
        self.graph.outputs =
            outputs.iter().map(|s| ValueSpec { name: s.to_string(), ..ValueSpec::default() }).collect();
        Model {
            name: self.name.clone(),
            spec: ModelSpec {
                graph: self.graph.clone(),
                opsets: vec![(String::new(), self.opset)],
                ..ModelSpec::default()
            },
            inputs: self.inputs.clone(),
        }
    }
}

/// Every operator case as a model: the first input comes from outside, later ones are constants (as weights are) and, in a second
/// form, come from outside too.
fn operator_models() -> Vec<Model> {
    let mut models = Vec::new();
    for entry in TABLE.iter() {
        for (i, case) in (entry.cases)().into_iter().enumerate() {
            if case.node.op_type != entry.name || case.node.domain != entry.domain {
                continue;
            }
            for constants in [true, false] {
                let mut d = Draft::new(&format!("{} case {i} constants={constants}", entry.name));
                let mut node = case.node.clone();
                let mut given = false;
                for (name, t) in node.inputs.iter_mut().zip(&case.inputs) {
                    let Some(t) = t else { continue };
                    // Integers are shapes, axes and indices: operators want them constant.
                    let float = t.dtype().is_float();
                    if (float && !(constants && given)) || (!given && !float && !t.is_empty() && t.rank() > 1) {
                        d.input(name, t.clone());
                        given = true;
                    } else {
                        d.constant(name, t.clone());
                    }
                }
                if d.inputs.is_empty() {
                    continue;
                }
                node.name = "n".into();
                let outputs: Vec<String> = node.outputs.iter().filter(|o| !o.is_empty()).cloned().collect();
                let outputs: Vec<&str> = outputs.iter().map(String::as_str).collect();
                d.graph.nodes.push(node);
                models.push(d.done(&outputs));
            }
        }
    }
    models
}

/// Runs both paths; the largest difference relative to the largest magnitude, and the kernels used.
fn compare(m: &Model, isa: Isa, threads: usize) -> Result<(f64, BTreeSet<String>), String> {
    let say = |e: madd_prof::error::Error| e.to_string();
    let model = build(&m.spec, &Bindings::default()).map_err(say)?;
    if model.graph.nodes().iter().any(|n| n.op.family().is_random()) {
        return Ok((0.0, BTreeSet::new()));
    }
    assert!(model.graph.inputs().iter().all(|v| matches!(model.graph.value(*v).source, Source::Input(_))));
    let graph = Arc::new(model.graph);
    let mut reference = Session::new(&graph, &Options::new(Path::Reference, 1)).map_err(say)?;
    let want = reference.run(&m.inputs);
    let mut fast =
        Session::new(&graph, &Options { isa, poison: true, ..Options::new(Path::Optimized, threads) }).map_err(say)?;
    let kernels = fast.steps().iter().map(|s| s.kernel.clone()).collect();
    // Three times: the first run packs weights and throws them away, the second packs them for good and must not see the first.
    let got: Result<Vec<_>, _> = (0..3).map(|_| fast.run(&m.inputs)).collect();
    let (want, got) = match (want, got) {
        (Ok(w), Ok(g)) => (w, g),
        (Err(_), Err(_)) => return Ok((0.0, kernels)),
        (w, g) => return Err(format!("reference: {:?}, optimized: {:?}", w.err(), g.err())),
    };
    if !fast.settled() {
        return Err("weights are not packed for good after three runs".into());
    }
    let mut worst = 0f64;
    for (w, g) in got.iter().flat_map(|got| want.iter().zip(got)) {
        if w.dtype() != g.dtype() || w.dims() != g.dims() {
            return Err(format!("reference {w:?}, optimized {g:?}"));
        }
        if !matches!(w.dtype(), DType::F32 | DType::F64) {
            if w.dtype() != DType::Str && w.sequence().is_err() && !w.is_absent() && w.bytes().ok() != g.bytes().ok() {
                return Err(format!("{w:?} differs"));
            }
            continue;
        }
        let (Ok(w), Ok(g)) = (w.to_f64s(), g.to_f64s()) else { continue };
        let largest = w.iter().filter(|v| v.is_finite()).fold(1e-3f64, |a, v| a.max(v.abs()));
        for (a, b) in w.iter().zip(&g) {
            let same = a == b || (a.is_nan() && b.is_nan());
            worst = worst.max(if same { 0.0 } else { (a - b).abs() / largest });
            if !same && !(a - b).is_finite() {
                return Err(format!("reference {a}, optimized {b}"));
            }
        }
    }
    Ok((worst, kernels))
}

fn fused_models() -> Vec<Model> {
    let f = sample::floats;
    let ints = |v: &[i64]| Attr::Ints(v.to_vec());
    let scalar = |v: f32| Tensor::scalar(v);
    let positive = |dims: &[usize], seed| {
        let t = f(dims, seed);
        Tensor::from_vec(t.view::<f32>().unwrap().iter().map(|v| v.abs() + 0.5).collect(), dims).unwrap()
    };
    let mut all = Vec::new();
    // Convolutions: channels around the lane counts, strides, pads, groups, maps of every awkward size.
    let convs: &[(usize, usize, usize, usize, usize, usize, usize)] = &[
        // ic, oc, k, stride, pad, hw, groups
        (3, 16, 3, 2, 1, 17, 1),
        (3, 20, 7, 2, 3, 30, 1),
        (1, 5, 3, 1, 0, 9, 1),
        (16, 32, 1, 1, 0, 14, 1),
        (24, 40, 1, 1, 0, 7, 1),
        (13, 17, 1, 2, 0, 9, 1),
        (16, 16, 3, 1, 1, 13, 1),
        (32, 48, 3, 2, 1, 15, 1),
        (7, 9, 3, 1, 1, 6, 1),
        (32, 32, 3, 1, 1, 28, 32),
        (24, 24, 5, 2, 2, 15, 24),
        (19, 19, 3, 2, 1, 11, 19),
        (40, 40, 7, 1, 3, 8, 40),
        (32, 64, 3, 1, 1, 9, 2),
        (24, 48, 3, 1, 1, 9, 4),
        (12, 24, 3, 1, 1, 9, 12),
        (64, 10, 1, 1, 0, 1, 1),
        (96, 33, 1, 1, 0, 3, 1),
    ];
    for (i, &(ic, oc, k, s, p, hw, g)) in convs.iter().enumerate() {
        for (act, residual, bn) in
            [("", false, false), ("Relu", true, false), ("Clip", false, true), ("Silu", true, true)]
        {
            let mut d =
                Draft::new(&format!("conv {ic}->{oc} k{k} s{s} p{p} {hw} g{g} {act} residual={residual} bn={bn}"));
            d.input("x", f(&[2, ic, hw, hw + 1], i as u64));
            d.constant("w", f(&[oc, ic / g, k, k], 100 + i as u64)).constant("b", f(&[oc], 7));
            let attrs =
                [("pads", ints(&[p as i64; 4])), ("strides", ints(&[s as i64; 2])), ("group", Attr::Int(g as i64))];
            d.node("Conv", if bn { &["x", "w"] } else { &["x", "w", "b"] }, &["c"], &attrs);
            let mut at = "c";
            if bn {
                d.constant("g", f(&[oc], 8)).constant("m", f(&[oc], 9)).constant("v", positive(&[oc], 10));
                d.node("BatchNormalization", &["c", "g", "b", "m", "v"], &["n"], &[]);
                at = "n";
            }
            if residual {
                let o = |i: usize| (i + 2 * p - k) / s + 1;
                d.input("r", f(&[2, oc, o(hw), o(hw + 1)], 11));
                d.node("Add", &["r", at], &["s"], &[]);
                at = "s";
            }
            match act {
                "Relu" => {
                    d.node("Relu", &[at], &["y"], &[]);
                    at = "y";
                }
                "Clip" => {
                    d.constant("lo", scalar(0.0)).constant("hi", scalar(0.6));
                    d.node("Clip", &[at, "lo", "hi"], &["y"], &[]);
                    at = "y";
                }
                "Silu" => {
                    d.node("Sigmoid", &[at], &["q"], &[]).node("Mul", &[at, "q"], &["y"], &[]);
                    at = "y";
                }
                _ => {}
            }
            all.push(d.done(&[at]));
        }
    }
    // Layouts meeting: residual from a pool, channel concat and split on and off block borders, squeeze-excite.
    for c in [16usize, 24, 32, 21] {
        let mut d = Draft::new(&format!("mixed layouts, {c} channels"));
        d.input("x", f(&[1, c, 10, 12], 1));
        d.constant("w", f(&[c, c, 3, 3], 2)).constant("w1", f(&[c, 2 * c, 1, 1], 3)).constant("half", scalar(0.5));
        d.constant("ws", f(&[c, c, 1, 1], 4));
        d.node("Conv", &["x", "w"], &["a"], &[("pads", ints(&[1; 4]))]);
        d.node("MaxPool", &["a"], &["p"], &[("kernel_shape", ints(&[3, 3])), ("pads", ints(&[1; 4]))]);
        d.node("Concat", &["a", "p"], &["ap"], &[("axis", Attr::Int(1))]);
        d.node("Conv", &["ap", "w1"], &["e"], &[]);
        d.node("GlobalAveragePool", &["e"], &["q"], &[]);
        d.node("Conv", &["q", "ws"], &["qs"], &[]).node("Sigmoid", &["qs"], &["gate"], &[]);
        d.node("Mul", &["e", "gate"], &["m"], &[]).node("Add", &["m", "a"], &["r"], &[]);
        d.node("Mul", &["r", "half"], &["h"], &[]);
        d.node("AveragePool", &["h"], &["v"], &[("kernel_shape", ints(&[2, 2])), ("strides", ints(&[2, 2]))]);
        d.node("Flatten", &["v"], &["flat"], &[]);
        all.push(d.done(&["flat", "r"]));
    }
    // Maps resized, pooled and spread between convolutions, in the layout these leave them in.
    for (i, c) in [16usize, 21, 32].into_iter().enumerate() {
        let mut d = Draft::new(&format!("resized and pooled between convolutions, {c} channels"));
        let side = |n: usize| Tensor::from_vec(vec![2, c as i64, n as i64, n as i64 + 3], &[4]).expect("four sizes");
        d.input("x", f(&[2, c, 6, 7], 1)).constant("w", f(&[c, c, 3, 3], 2)).constant("u", f(&[c, c, 3, 2], 3));
        for n in [5, 11, 40] {
            d.constant(&format!("to{n}"), side(n));
        }
        let mode = |m: &str| ("mode", Attr::Str(m.into()));
        let same = ("pads", ints(&[1; 4]));
        d.node("Conv", &["x", "w"], &["a"], std::slice::from_ref(&same));
        d.node("Resize", &["a", "", "", "to11"], &["r"], &[mode(["linear", "cubic", "nearest"][i])]);
        d.node("Conv", &["r", "w"], &["b"], std::slice::from_ref(&same));
        d.node("AveragePool", &["b"], &["v"], &[("kernel_shape", ints(&[3, 3])), same.clone()]);
        d.node("Resize", &["v", "", "", "to5"], &["s"], &[mode(["nearest", "linear", "cubic"][i])]);
        d.node("Conv", &["s", "w"], &["e"], &[same]);
        let strides = ("strides", ints(&[3, 2]));
        d.node("ConvTranspose", &["e", "u"], &["t"], &[("kernel_shape", ints(&[3, 2])), strides]);
        d.node("Resize", &["e", "", "", "to40"], &["y"], &[mode("linear")]);
        all.push(d.done(&["y", "t"]));
    }
    // Squeeze-excite whose gate a pointwise convolution takes, gate first and last; a second reader of the scaled map.
    for (i, c) in [16usize, 20, 48].into_iter().enumerate() {
        for twice in [false, true] {
            let mut d = Draft::new(&format!("gated pointwise convolution, {c} channels, read twice={twice}"));
            d.input("x", f(&[2, c, 9, 8], 1)).constant("w", f(&[c, c, 1, 1], 2)).constant("r", f(&[c / 4, c, 1, 1], 3));
            d.constant("e", f(&[c, c / 4, 1, 1], 4)).constant("v", f(&[24, c, 1, 1], 5));
            d.node("Conv", &["x", "w"], &["a"], &[]).node("GlobalAveragePool", &["a"], &["q"], &[]);
            d.node("Conv", &["q", "r"], &["s"], &[]).node("Relu", &["s"], &["sr"], &[]);
            d.node("Conv", &["sr", "e"], &["z"], &[]).node("HardSigmoid", &["z"], &["gate"], &[]);
            d.node("Mul", if i == 1 { &["gate", "a"] } else { &["a", "gate"] }, &["m"], &[]);
            d.node("Conv", &["m", "v"], &["p"], &[]).node("Conv", &["x", "v"], &["xv"], &[]);
            d.node("Add", &["p", "xv"], &["y"], &[]);
            all.push(d.done(if twice { &["y", "m"] } else { &["y"] }));
        }
    }
    // Inverted residuals and their parts, on maps wide enough to go in bands: strides, windows, gates, odd channels.
    for (i, &(c, mid, k, s, h, w)) in [
        (16usize, 96usize, 3usize, 1usize, 34usize, 37usize),
        (24, 100, 3, 2, 61, 40),
        (20, 72, 5, 1, 40, 41),
        (8, 64, 5, 2, 57, 50),
        (16, 48, 7, 1, 50, 49),
        (16, 136, 5, 1, 36, 37),
    ]
    .iter()
    .enumerate()
    {
        for form in ["block", "expand", "project", "residual"] {
            let p = (k / 2) as i64;
            let mut d = Draft::new(&format!("chain {form} {c}->{mid} k{k} s{s} on {h}x{w}"));
            let ic = if form == "project" { mid } else { c };
            d.input("x", f(&[1 + i % 2, ic, h, w], 1)).constant("w", f(&[mid, c, 1, 1], 2)).constant("b", f(&[mid], 3));
            d.constant("k", f(&[mid, 1, k, k], 4)).constant("kb", f(&[mid], 5)).constant("p", f(&[c, mid, 1, 1], 6));
            let mut at = "x";
            if form != "project" {
                d.node("Conv", &["x", "w", "b"], &["e"], &[]);
                d.node(if i == 0 { "HardSwish" } else { "Relu" }, &["e"], &["er"], &[]);
                at = "er";
            }
            let window = [("pads", ints(&[p; 4])), ("strides", ints(&[s as i64; 2])), ("group", Attr::Int(mid as i64))];
            d.node("Conv", &[at, "k", "kb"], &["d"], &window).node("Relu", &["d"], &["y"], &[]);
            if form == "expand" {
                d.node("GlobalAveragePool", &["y"], &["q"], &[]).node("Mul", &["y", "q"], &["yq"], &[]);
                all.push(d.done(&["yq"]));
                continue;
            }
            d.node("Conv", &["y", "p"], &["z"], &[]);
            if form == "residual" && s == 1 {
                d.node("Add", &["z", "x"], &["zx"], &[]);
                all.push(d.done(&["zx"]));
            } else {
                all.push(d.done(&["z"]));
            }
        }
    }
    // Transposed convolutions: taps that overlap, touch and leave gaps, cropped, padded at the end, in groups, of one axis.
    for (i, &(ic, oc, k, s, p, extra, dil, g)) in [
        (16usize, 8usize, 2usize, 2usize, 0usize, 0usize, 1usize, 1usize),
        (12, 20, 4, 2, 1, 0, 1, 1),
        (7, 5, 3, 1, 1, 0, 1, 1),
        (8, 12, 3, 2, 1, 1, 1, 4),
        (6, 6, 2, 3, 0, 2, 1, 1),
        (9, 4, 3, 2, 2, 0, 2, 1),
    ]
    .iter()
    .enumerate()
    {
        for one_axis in [false, true] {
            let mut d = Draft::new(&format!("transposed {ic}->{oc} k{k} s{s} p{p} d{dil} g{g}, one axis={one_axis}"));
            let n = if one_axis { 1 } else { 2 };
            let dims = |lead: [usize; 2], a: usize| [&lead[..], &[a, a + 1][..n]].concat();
            d.input("x", f(&dims([2, ic], 9), i as u64)).constant("b", f(&[oc], 3));
            d.constant("w", f(&[vec![ic, oc / g], vec![k; n]].concat(), 2));
            let attrs = [
                ("pads", ints(&vec![p as i64; 2 * n])),
                ("strides", ints(&vec![s as i64; n])),
                ("dilations", ints(&vec![dil as i64; n])),
                ("output_padding", ints(&vec![extra as i64; n])),
                ("group", Attr::Int(g as i64)),
            ];
            d.node("ConvTranspose", &["x", "w", "b"], &["c"], &attrs).node("Relu", &["c"], &["y"], &[]);
            all.push(d.done(&["y"]));
        }
    }
    // Computed weights: dense and pointwise, in groups, depthwise, of an image's few channels, of one axis, of two images as groups.
    for &(ic, oc, k, s, g, axes) in [
        (16usize, 40usize, 1usize, 1usize, 1usize, 2usize),
        (20, 16, 3, 1, 1, 2),
        (3, 24, 3, 2, 1, 2),
        (24, 24, 3, 1, 24, 2),
        (32, 48, 3, 2, 4, 2),
        (12, 18, 1, 1, 3, 2),
        (10, 33, 3, 1, 1, 1),
    ]
    .iter()
    {
        for whole in [false, true] {
            let mut d = Draft::new(&format!("computed weights {ic}->{oc} k{k} s{s} g{g} axes {axes}, tail={whole}"));
            let dims = |a: usize, b: usize, size: usize| [vec![a, b], vec![size; axes]].concat();
            d.input("x", f(&dims(2, ic, 9), 1)).input("m", f(&[1, 3], 2)).constant("b", f(&[oc], 4));
            d.constant("e", f(&[3, oc * (ic / g) * k.pow(axes as u32)], 3));
            let shape = dims(oc, ic / g, k).iter().map(|&v| v as i64).collect::<Vec<_>>();
            d.constant("shape", Tensor::from_vec(shape, &[axes + 2]).unwrap());
            d.node("MatMul", &["m", "e"], &["mixed"], &[]).node("Reshape", &["mixed", "shape"], &["w"], &[]);
            let attrs = [
                ("pads", ints(&vec![(k / 2) as i64; 2 * axes])),
                ("strides", ints(&vec![s as i64; axes])),
                ("group", Attr::Int(g as i64)),
            ];
            d.node("Conv", &["x", "w", "b"], &["c"], &attrs);
            if whole {
                d.constant("q", f(&[oc], 5)).constant("v", positive(&[oc], 6));
                d.node("BatchNormalization", &["c", "q", "b", "q", "v"], &["n"], &[]);
                d.input("r", f(&dims(2, oc, 9usize.div_ceil(s)), 7));
                d.node("Add", &["n", "r"], &["a"], &[]).node("Relu", &["a"], &["y"], &[]);
                all.push(d.done(&["y"]));
            } else {
                all.push(d.done(&["c"]));
            }
        }
    }
    // Deformed windows: channels that fill no block, masks, groups of whole blocks, and groups that are not.
    for &(ic, oc, k, s, dil, g, og, masked) in [
        (20usize, 18usize, 3usize, 1usize, 1usize, 1usize, 1usize, false),
        (32, 33, 3, 2, 1, 1, 2, true),
        (64, 32, 3, 1, 2, 2, 4, true),
        (12, 12, 2, 1, 1, 3, 2, false),
        (16, 300, 1, 1, 1, 1, 1, true),
    ]
    .iter()
    {
        let mut d = Draft::new(&format!("deformed {ic}->{oc} k{k} s{s} d{dil} g{g} offset groups {og}, mask={masked}"));
        let o = |i: usize| (i + 2 - (k - 1) * dil - 1) / s + 1;
        let (h, w, taps) = (o(11), o(10), og * k * k);
        d.input("x", f(&[2, ic, 11, 10], 1)).input("o", f(&[2, 2 * taps, h, w], 2)).input("m", f(&[2, taps, h, w], 3));
        d.constant("w", f(&[oc, ic / g, k, k], 4)).constant("b", f(&[oc], 5)).constant("q", f(&[oc], 6));
        d.constant("v", positive(&[oc], 7)).constant("wide", scalar(3.0));
        let attrs = [
            ("pads", ints(&[1; 4])),
            ("strides", ints(&[s as i64; 2])),
            ("dilations", ints(&[dil as i64; 2])),
            ("group", Attr::Int(g as i64)),
            ("offset_group", Attr::Int(og as i64)),
        ];
        let inputs = ["x", "w", "far", "b", "m"];
        d.node("Mul", &["o", "wide"], &["far"], &[]);
        d.node("DeformConv", if masked { &inputs } else { &inputs[..4] }, &["c"], &attrs);
        d.node("BatchNormalization", &["c", "q", "b", "q", "v"], &["n"], &[]).node("Relu", &["n"], &["y"], &[]);
        if !masked {
            d.node("Neg", &["m"], &["unused"], &[]);
        }
        all.push(d.done(&["y"]));
    }
    // Repetitions, and results nobody reads: an activation of an activation is no repetition of it.
    let mut d = Draft::new("repeated and unread nodes");
    d.input("x", f(&[1, 16, 6, 6], 1)).constant("w", f(&[16, 16, 3, 3], 2));
    for i in ["0", "1"] {
        let name = |what: &str| format!("{what}{i}");
        d.node("Conv", &["x", "w"], &[&name("c")], &[]).node("Exp", &[&name("c")], &[&name("e")], &[]);
        d.node("Exp", &[&name("e")], &[&name("ee")], &[]).node("Sigmoid", &[&name("c")], &[&name("s")], &[]);
        d.node("Identity", &[&name("s")], &[&name("i")], &[]);
    }
    d.node("Mul", &["c1", "i1"], &["silu"], &[]).node("Add", &["e0", "i0"], &["a"], &[]);
    d.node("Relu", &["ee0"], &["nobody"], &[]).node("Add", &["silu", "a"], &["y"], &[]);
    all.push(d.done(&["y", "e1", "s1"]));
    // Wide enough for Winograd, and so little work that it is not.
    for (c, hw) in [(32usize, 30usize), (64, 14), (96, 7)] {
        let mut d = Draft::new(&format!("3x3 of {c} channels on {hw}"));
        d.input("x", f(&[1, c, hw, hw + 1], 1))
            .constant("w", f(&[c + 8, c, 3, 3], 2))
            .constant("u", f(&[c, c + 8, 3, 3], 3));
        d.node("Conv", &["x", "w"], &["a"], &[("pads", ints(&[1; 4]))]).node("Relu", &["a"], &["r"], &[]);
        d.node("Conv", &["r", "u"], &["b"], &[("pads", ints(&[1; 4]))]).node("Add", &["b", "x"], &["y"], &[]);
        all.push(d.done(&["y"]));
    }
    // Wide enough for products of halves; sizes that are no whole number of lanes.
    let (m, k, n) = (70usize, 504usize, 506usize);
    let mut d = Draft::new("long linear layer with bias, gelu and residual");
    d.input("x", f(&[2, m, k], 1)).constant("w", f(&[k, n], 2)).constant("b", f(&[n], 3)).input("r", f(&[2, m, n], 4));
    d.constant("u", f(&[k, n], 5));
    d.node("MatMul", &["x", "w"], &["p"], &[]).node("Add", &["b", "p"], &["pb"], &[]);
    d.node("Sigmoid", &["pb"], &["s"], &[]).node("Mul", &["pb", "s"], &["silu"], &[]);
    d.node("MatMul", &["x", "u"], &["q"], &[]).node("Add", &["q", "r"], &["y"], &[]);
    all.push(d.done(&["silu", "y"]));
    let (k, n) = (1016usize, 1018usize);
    let mut d = Draft::new("deep pointwise convolutions with residual");
    d.input("x", f(&[1, k, 9, 11], 1)).constant("w", f(&[n, k, 1, 1], 2)).constant("b", f(&[n], 3));
    d.constant("u", f(&[k, n, 1, 1], 4));
    d.node("Conv", &["x", "w", "b"], &["p"], &[]).node("HardSwish", &["p"], &["h"], &[]);
    d.node("Conv", &["h", "u"], &["q"], &[]).node("Add", &["q", "x"], &["s"], &[]).node("Relu", &["s"], &["y"], &[]);
    all.push(d.done(&["y"]));
    // Matrix products with everything around them.
    for (m, k, n) in [(1usize, 64usize, 100usize), (5, 33, 47), (128, 96, 64), (13, 256, 7), (37, 300, 130)] {
        let mut d = Draft::new(&format!("linear {m}x{k}x{n} with bias, gelu and residual"));
        d.input("x", f(&[1, m, k], 1)).input("r", f(&[1, m, n], 4));
        d.constant("w", f(&[k, n], 2)).constant("b", f(&[n], 3));
        d.constant("s", scalar(std::f32::consts::SQRT_2)).constant("one", scalar(1.0)).constant("half", scalar(0.5));
        d.node("MatMul", &["x", "w"], &["p"], &[]).node("Add", &["b", "p"], &["pb"], &[]);
        d.node("Div", &["pb", "s"], &["d"], &[]).node("Erf", &["d"], &["e"], &[]).node(
            "Add",
            &["e", "one"],
            &["e1"],
            &[],
        );
        d.node("Mul", &["pb", "e1"], &["t"], &[]).node("Mul", &["t", "half"], &["y"], &[]);
        all.push(d.done(&["y"]));
        let mut d = Draft::new(&format!("linear {m}x{k}x{n} residual"));
        d.input("x", f(&[m, k], 1)).input("r", f(&[m, n], 4)).constant("w", f(&[n, k], 2)).constant("b", f(&[n], 3));
        d.node("Gemm", &["x", "w", "b"], &["p"], &[("transB", Attr::Int(1)), ("alpha", Attr::Float(0.5))]);
        d.node("Add", &["p", "r"], &["y"], &[]);
        all.push(d.done(&["y"]));
        let mut d = Draft::new(&format!("attention scores {m}x{k}x{n}"));
        d.input("q", f(&[2, 3, m, k], 1)).input("k", f(&[2, 3, n, k], 2)).input("v", f(&[2, 3, n, 20], 3));
        d.constant("s", scalar(8.0));
        d.node("Transpose", &["k"], &["kt"], &[("perm", ints(&[0, 1, 3, 2]))]);
        d.node("MatMul", &["q", "kt"], &["qk"], &[]).node("Div", &["qk", "s"], &["sc"], &[]);
        d.node("Softmax", &["sc"], &["a"], &[("axis", Attr::Int(-1))]).node("MatMul", &["a", "v"], &["y"], &[]);
        all.push(d.done(&["y"]));
    }
    all.extend(channel_models());
    all.extend(attention_models());
    all.extend(decoder_models());
    all.extend(moved_models());
    // Recurrent layers: both ways, with and without first states, batches on both sides of the vector kernel's bound.
    for (op, gates) in [("LSTM", 4usize), ("GRU", 3), ("RNN", 1)] {
        for (batch, hidden, way, late) in
            [(1usize, 20usize, "forward", 0), (2, 16, "bidirectional", 1), (6, 33, "reverse", 0)]
        {
            let (ways, size) = (if way == "bidirectional" { 2 } else { 1 }, 13);
            let mut d = Draft::new(&format!("{op} {way}, batch {batch}, hidden {hidden}"));
            d.input("x", f(&[7, batch, size], 1))
                .input("h0", f(&[ways, batch, hidden], 2))
                .input("c0", f(&[ways, batch, hidden], 3));
            d.constant("w", f(&[ways, gates * hidden, size], 4)).constant("r", f(&[ways, gates * hidden, hidden], 5));
            d.constant("b", f(&[ways, 2 * gates * hidden], 6));
            let mut attrs = vec![("hidden_size", Attr::Int(hidden as i64)), ("direction", Attr::Str(way.into()))];
            if op == "GRU" {
                attrs.push(("linear_before_reset", Attr::Int(late)));
            }
            let inputs: &[&str] = match (op, batch) {
                (_, 1) => &["x", "w", "r"],
                ("LSTM", _) => &["x", "w", "r", "b", "", "h0", "c0"],
                _ => &["x", "w", "r", "b", "", "h0"],
            };
            let outputs: &[&str] = if op == "LSTM" { &["y", "h", "c"] } else { &["y", "h"] };
            d.node(op, inputs, outputs, &attrs);
            if batch == 1 {
                d.node("Add", &["h0", "c0"], &["unused"], &[]);
            } else if op != "LSTM" {
                d.node("Neg", &["c0"], &["unused"], &[]);
            }
            all.push(d.done(outputs));
        }
    }
    // Dynamic quantisation as ONNX Runtime's tool writes it, two products of the same data.
    for (m, k, n) in [(1usize, 40usize, 70usize), (9, 64, 33)] {
        let bytes = |len: usize, step: usize| (0..len).map(|i| (i * step % 251) as u8).collect::<Vec<u8>>();
        let mut d = Draft::new(&format!("dynamic quantisation {m}x{k}x{n}"));
        d.input("x", f(&[1, m, k], 1))
            .constant("b", f(&[n], 2))
            .constant("ws", scalar(0.01))
            .constant("vs", positive(&[n], 3));
        d.constant("w", Tensor::from_vec(bytes(k * n, 37), &[k, n]).unwrap());
        d.constant("wz", Tensor::from_vec(vec![120u8], &[]).unwrap());
        let signed: Vec<i8> = bytes(k * n, 91).into_iter().map(|b| b as i8).collect();
        d.constant("v", Tensor::from_vec(signed, &[k, n]).unwrap());
        d.constant("vz", Tensor::from_vec(vec![0i8; n], &[n]).unwrap());
        d.node("DynamicQuantizeLinear", &["x"], &["q", "s", "z"], &[]);
        for (w, out) in [("w", "y"), ("v", "u")] {
            let name = |x: &str| format!("{w}_{x}");
            let (zero, scale) = (format!("{w}z"), format!("{w}s"));
            d.node("MatMulInteger", &["q", w, "z", &zero], &[&name("i")], &[]);
            d.node("Cast", &[&name("i")], &[&name("f")], &[("to", Attr::Int(1))]);
            d.node("Mul", &["s", &scale], &[&name("s")], &[]).node(
                "Mul",
                &[&name("f"), &name("s")],
                &[&name("y")],
                &[],
            );
            d.node("Add", &[&name("y"), "b"], &[&name("b")], &[]).node("Relu", &[&name("b")], &[out], &[]);
        }
        all.push(d.done(&["y", "u"]));
    }
    // Layer norm as exporters write it, with and without its weights, read again behind.
    for (square, weights) in [("Pow", true), ("Mul", true), ("Pow", false)] {
        let mut d = Draft::new(&format!("layer norm in nodes, {square}, weights={weights}"));
        d.input("x", f(&[2, 7, 48], 1)).constant("w", f(&[48], 2)).constant("b", f(&[48], 3));
        d.constant("two", scalar(2.0)).constant("e", scalar(1e-5)).constant("axes", sample::ints(&[-1]));
        d.node("ReduceMean", &["x", "axes"], &["m"], &[]).node("Sub", &["x", "m"], &["c"], &[]);
        d.node(square, if square == "Pow" { &["c", "two"] } else { &["c", "c"] }, &["s"], &[]);
        d.node("ReduceMean", &["s", "axes"], &["v"], &[]).node("Add", &["v", "e"], &["ve"], &[]);
        d.node("Sqrt", &["ve"], &["r"], &[]).node("Div", &["c", "r"], &["n"], &[]);
        if weights {
            d.node("Mul", &["n", "w"], &["nw"], &[]).node("Add", &["nw", "b"], &["y"], &[]);
            d.node("Add", &["y", "x"], &["z"], &[]);
            all.push(d.done(&["z", "y"]));
        } else {
            all.push(d.done(&["n"]));
        }
    }
    // Group norm as exporters write it, one group and several, with and without its weights, on a network's edge and inside.
    for (n, groups, weights) in [(1, 1, true), (2, 3, true), (2, 6, false)] {
        let mut d = Draft::new(&format!("group norm in nodes, {n} x {groups} groups, weights={weights}"));
        d.input("x", f(&[n, 6, 5, 7], 1)).constant("w", f(&[6, 1, 1], 2)).constant("b", f(&[1, 6, 1, 1], 3));
        d.constant("g", f(&[groups], 4)).constant("h", f(&[groups], 5)).constant("k", f(&[6, 6, 1, 1], 6));
        d.constant("to", sample::ints(&[0, groups as i64, -1]));
        d.constant("back", sample::ints(&[n as i64, 6, 5, 7]));
        d.node("Conv", &["x", "k"], &["c"], &[]).node("Reshape", &["c", "to"], &["r"], &[]);
        d.node("InstanceNormalization", &["r", "g", "h"], &["i"], &[]).node("Reshape", &["i", "back"], &["n"], &[]);
        if weights {
            d.node("Mul", &["n", "w"], &["nw"], &[]).node("Add", &["nw", "b"], &["y"], &[]);
            d.node("Conv", &["y", "k"], &["z"], &[]);
            all.push(d.done(&["z"]));
        } else {
            d.node("Add", &["n", "x"], &["y"], &[]);
            all.push(d.done(&["y"]));
        }
    }
    // A product of three axes whose positions are all put in one for the normalisation, as LeViT does.
    for bias in [false, true] {
        let mut d = Draft::new(&format!("linear, batch norm, hard-swish, bias={bias}"));
        d.input("x", f(&[2, 9, 12], 1)).constant("w", f(&[12, 20], 2)).constant("a", f(&[20], 7));
        d.constant("g", f(&[20], 3)).constant("b", f(&[20], 4)).constant("e", f(&[20], 5));
        d.constant("v", f(&[20], 6)).node("Abs", &["v"], &["var"], &[]);
        d.constant("to", sample::ints(&[18, 20])).constant("back", sample::ints(&[2, 9, 20]));
        d.node("MatMul", &["x", "w"], &["p"], &[]);
        if bias {
            d.node("Add", &["p", "a"], &["pa"], &[]);
        }
        d.node("Reshape", &[if bias { "pa" } else { "p" }, "to"], &["r"], &[]);
        d.node("BatchNormalization", &["r", "g", "b", "e", "var"], &["n"], &[]);
        d.node("Reshape", &["n", "back"], &["m"], &[]).node("HardSwish", &["m"], &["y"], &[]);
        all.push(d.done(&["y"]));
    }
    // A factor for each column after a product, before or after its bias, with a residual sum; and factors of one.
    for (bias, turned, rows) in [(true, false, 9), (false, false, 1), (true, true, 33)] {
        let mut d = Draft::new(&format!("layer scale, bias {bias}, turned {turned}, {rows} rows"));
        d.input("x", f(&[2, rows, 40], 1)).input("r", f(&[2, rows, 24], 2)).constant("one", scalar(1.0));
        d.constant("b", f(&[24], 4)).constant("g", f(&[1, 1, 24], 5)).constant("h", f(&[24], 6));
        if turned {
            d.constant("wt", f(&[24, 40], 3)).node("Transpose", &["wt"], &["w"], &[("perm", Attr::Ints(vec![1, 0]))]);
        } else {
            d.constant("w", f(&[40, 24], 3));
        }
        d.node("MatMul", &["x", "w"], &["p"], &[]).node("Mul", &["h", "p"], &["q"], &[]);
        d.node("Mul", &["q", "one"], &["o"], &[]);
        if bias {
            d.node("Add", &["b", "o"], &["a"], &[]);
        }
        d.node("Mul", &[if bias { "a" } else { "o" }, "g"], &["s"], &[]).node("Add", &["r", "s"], &["y"], &[]);
        all.push(d.done(&["y"]));
    }
    // A matrix of more than 2 MiB that meets few vectors: in panels, two steps with the same one.
    let mut d = Draft::new("few vectors and a large matrix");
    d.input("x", f(&[3, 1030], 1)).input("z", f(&[1, 1030], 2));
    d.constant("w", f(&[1030, 517], 3)).constant("b", f(&[517], 4));
    d.node("MatMul", &["x", "w"], &["p"], &[]).node("Add", &["p", "b"], &["pb"], &[]).node(
        "Relu",
        &["pb"],
        &["y"],
        &[],
    );
    d.node("MatMul", &["z", "w"], &["v"], &[]);
    all.push(d.done(&["y", "v"]));
    // Many of one size: each has weights of its own, also when those of the one before are gone.
    let mut d = Draft::new("layer scales one after another");
    d.input("x", f(&[1, 33, 48], 1));
    let mut at = "x".to_string();
    for i in 0..12u64 {
        let name = |v: &str| format!("{v}{i}");
        d.constant(&name("w"), f(&[48, 48], 20 + i)).constant(&name("g"), f(&[48], 40 + i));
        d.node("MatMul", &[&at, &name("w")], &[&name("p")], &[]).node(
            "Mul",
            &[&name("p"), &name("g")],
            &[&name("s")],
            &[],
        );
        d.node("Add", &["x", &name("s")], &[&name("y")], &[]);
        at = name("y");
    }
    all.push(d.done(&[&at]));
    // Softmax and reductions over axes that are not the last, and rows of all channels scaled at once.
    let mut d = Draft::new("axes inside");
    d.input("x", f(&[2, 9, 20], 1)).input("m", f(&[5, 20], 2));
    for (i, axis) in [0, 1, 2].into_iter().enumerate() {
        d.node("Softmax", &["x"], &[&format!("s{i}")], &[("axis", Attr::Int(axis))]);
    }
    for (i, axes) in [&[0][..], &[1], &[0, 1], &[1, 2], &[0, 2], &[0, 1, 2]].into_iter().enumerate() {
        d.constant(&format!("a{i}"), sample::ints(axes));
        for (op, keep) in [("ReduceL2", 1), ("ReduceMean", 0), ("ReduceMax", 0)] {
            d.node(op, &["x", &format!("a{i}")], &[&format!("{op}{i}")], &[("keepdims", Attr::Int(keep))]);
        }
    }
    d.constant("g", f(&[20], 3)).constant("b", f(&[20], 4)).constant("e", f(&[20], 5));
    d.constant("v", f(&[20], 6)).node("Abs", &["v"], &["var"], &[]);
    d.node("BatchNormalization", &["m", "g", "b", "e", "var"], &["bn"], &[]);
    let made = d.graph.nodes.iter().filter(|n| n.op_type != "Abs").map(|n| n.outputs[0].clone()).collect::<Vec<_>>();
    all.push(d.done(&made.iter().map(String::as_str).collect::<Vec<_>>()));
    // RMS norm as exporters write it.
    let mut d = Draft::new("rms norm");
    d.input("x", f(&[2, 7, 48], 1)).constant("w", f(&[48], 2)).constant("two", scalar(2.0)).constant("e", scalar(1e-5));
    d.constant("axes", sample::ints(&[-1])).constant("one", scalar(1.0));
    d.node("Pow", &["x", "two"], &["p"], &[]).node("ReduceMean", &["p", "axes"], &["m"], &[]);
    d.node("Add", &["m", "e"], &["me"], &[]).node("Sqrt", &["me"], &["r"], &[]).node("Div", &["one", "r"], &["i"], &[]);
    d.node("Mul", &["x", "i"], &["n"], &[]).node("Mul", &["w", "n"], &["y"], &[]);
    all.push(d.done(&["y"]));
    all
}

/// Joins, cuts and shuffles of channels, on and off block borders, nested, repeated, of one image and of two.
fn channel_models() -> Vec<Model> {
    let f = sample::floats;
    let ints = |v: &[i64]| Attr::Ints(v.to_vec());
    let axis = |a: i64| [("axis", Attr::Int(a))];
    let mut all = Vec::new();
    for n in [1usize, 2] {
        // A dense block: every layer joins all before it. Growths on and off the lanes.
        for (c, growth) in [(32usize, 16usize), (16, 8), (20, 12)] {
            let mut d = Draft::new(&format!("dense block {c}+{growth}, {n} image(s)"));
            d.input("x", f(&[n, c, 9, 7], 1));
            let mut joined = "x".to_string();
            let mut parts = vec!["x".to_string()];
            for i in 0..3 {
                let ic = c + i * growth;
                let name = |what: &str| format!("{what}{i}");
                for (k, what) in ["g", "b", "m"].iter().enumerate() {
                    d.constant(&name(what), f(&[ic], 10 + k as u64));
                }
                d.constant(&name("v"), Tensor::from_vec(vec![0.7; ic], &[ic]).unwrap());
                d.constant(&name("w"), f(&[growth, ic, 1, 1], 20)).constant(&name("u"), f(&[growth, growth, 3, 3], 21));
                let bn = [joined.clone(), name("g"), name("b"), name("m"), name("v")];
                d.node("BatchNormalization", &bn.each_ref().map(String::as_str), &[&name("n")], &[]);
                d.node("Relu", &[&name("n")], &[&name("r")], &[]);
                d.node("Conv", &[&name("r"), &name("w")], &[&name("p")], &[]);
                d.node("Conv", &[&name("p"), &name("u")], &[&name("y")], &[("pads", ints(&[1; 4]))]);
                parts.push(name("y"));
                joined = name("j");
                let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
                d.node("Concat", &parts, &[&joined], &axis(1));
            }
            all.push(d.done(&["j2", "j1", "y1"]));
        }
        // A ShuffleNet unit, and joins that name a value twice, an input of the graph, or a value with its place elsewhere.
        for c in [16usize, 20, 58] {
            let mut d = Draft::new(&format!("shuffle unit of {c}, {n} image(s)"));
            d.input("x", f(&[n, c, 6, 5], 1)).constant("w", f(&[c, c, 1, 1], 2)).constant("v", f(&[c, c, 1, 1], 3));
            d.constant("apart", sample::ints(&[n as i64, 2, c as i64, 6, 5]));
            d.constant("back", sample::ints(&[n as i64, 2 * c as i64, 6, 5]));
            d.node("Conv", &["x", "w"], &["a"], &[]).node("Conv", &["a", "v"], &["b"], &[]);
            d.node("Concat", &["a", "b"], &["ab"], &axis(1)).node("Reshape", &["ab", "apart"], &["s5"], &[]);
            d.node("Transpose", &["s5"], &["t5"], &[("perm", ints(&[0, 2, 1, 3, 4]))]);
            d.node("Reshape", &["t5", "back"], &["s"], &[]);
            d.node("Split", &["s"], &["p", "q"], &[("axis", Attr::Int(1)), ("num_outputs", Attr::Int(2))]);
            d.node("Conv", &["q", "w"], &["qw"], &[]).node("Concat", &["p", "qw"], &["pq"], &axis(1));
            d.node("Relu", &["pq"], &["y"], &[]);
            all.push(d.done(&["y"]));
            let mut d = Draft::new(&format!("joins of {c} channels, {n} image(s)"));
            d.input("x", f(&[n, c, 6, 5], 1)).constant("w", f(&[c, c, 1, 1], 2)).constant("k", f(&[n, c, 6, 5], 4));
            for (name, v) in [("from", c as i64 / 2), ("to", c as i64), ("axes", 1), ("back", -1), ("far", -1000)] {
                d.constant(name, sample::ints(&[v]));
            }
            d.node("Conv", &["x", "w"], &["a"], &[]).node("Conv", &["a", "w"], &["b"], &[]);
            d.node("Concat", &["a", "a", "x"], &["aax"], &axis(1)).node("Concat", &["b", "a", "k"], &["bak"], &axis(1));
            d.node("Concat", &["b", "aax"], &["baax"], &axis(1));
            d.node("Slice", &["bak", "from", "to", "axes"], &["cut"], &[]);
            d.node("Slice", &["aax", "back", "far", "axes", "back"], &["turned"], &[]);
            d.node("MaxPool", &["cut"], &["m"], &[("kernel_shape", ints(&[2, 2]))]);
            d.node("MaxPool", &["turned"], &["o"], &[("kernel_shape", ints(&[2, 2]))]);
            d.node("MaxPool", &["baax"], &["r"], &[("kernel_shape", ints(&[3, 3]))]);
            d.node("Split", &["bak"], &["s0", "s1", "s2"], &[("axis", Attr::Int(1)), ("num_outputs", Attr::Int(3))]);
            d.node("Add", &["s0", "s2"], &["s02"], &[]).node("Mul", &["s02", "s1"], &["z"], &[]);
            all.push(d.done(&["m", "o", "r", "z"]));
        }
    }
    all
}

/// Channels last between convolutions, Einsum in attention, windows with two masks, parts picked out, taps in the padding.
fn moved_models() -> Vec<Model> {
    let f = sample::floats;
    let ints = |v: &[i64]| Attr::Ints(v.to_vec());
    let perm = |v: &[i64]| [("perm", Attr::Ints(v.to_vec()))];
    let last = [("axis", Attr::Int(-1))];
    let mut all = Vec::new();
    for c in [8usize, 20, 32] {
        let mut d = Draft::new(&format!("channels last and back {c}"));
        d.input("x", f(&[2, c, 7, 10], 1)).constant("w0", f(&[c, c, 1, 1], 2)).constant("w1", f(&[c, 2 * c], 3));
        d.constant("w2", f(&[2 * c, c], 4)).constant("by", f(&[c, 1, 1], 5)).constant("plus", f(&[1, c, 1, 1], 6));
        d.constant("w3", f(&[c, c, 3, 3], 7));
        d.node("Conv", &["x", "w0"], &["c0"], &[]).node("Transpose", &["c0"], &["t"], &perm(&[0, 2, 3, 1]));
        d.node("MatMul", &["t", "w1"], &["m1"], &[]).node("Relu", &["m1"], &["r"], &[]);
        d.node("MatMul", &["r", "w2"], &["m2"], &[]).node("Transpose", &["m2"], &["back"], &perm(&[0, 3, 1, 2]));
        d.node("Mul", &["back", "by"], &["scaled"], &[]).node("Add", &["scaled", "plus"], &["moved"], &[]);
        d.node("Add", &["moved", "c0"], &["sum"], &[]);
        d.node("Conv", &["sum", "w3"], &["y"], &[("pads", ints(&[1; 4]))]);
        all.push(d.done(&["y"]));
    }
    // Tokens become a map and a map tokens, in blocks and (few channels, a map that is an input) not; windows with a depth multiplier.
    for c in [5usize, 16, 24] {
        let mut d = Draft::new(&format!("tokens and maps of {c}"));
        d.input("x", f(&[2, 42, c], 1))
            .input("z", f(&[2, c, 6, 7], 2))
            .constant("map", sample::ints(&[2, c as i64, 6, 7]));
        d.constant("w0", f(&[2 * c, 1, 3, 3], 3)).constant("w1", f(&[c, 2 * c, 1, 1], 4));
        d.constant("flat", sample::ints(&[0, 0, -1])).constant("w2", f(&[c, c], 5));
        d.node("Relu", &["x"], &["r"], &[]).node("Transpose", &["r"], &["t"], &perm(&[0, 2, 1]));
        d.node("Reshape", &["t", "map"], &["m"], &[]);
        let attrs = [("pads", ints(&[1; 4])), ("group", Attr::Int(c as i64))];
        d.node("Conv", &["m", "w0"], &["c0"], &attrs).node("Conv", &["c0", "w1"], &["c1"], &[]);
        d.node("Reshape", &["c1", "flat"], &["f"], &[]).node("Transpose", &["f"], &["back"], &perm(&[0, 2, 1]));
        let act = [(16, "Sigmoid"), (24, "Gelu")].into_iter().find(|a| a.0 == c);
        if let Some((_, act)) = act {
            d.node(act, &["back"], &["act"], &[]);
        }
        d.node("MatMul", &[if act.is_some() { "act" } else { "back" }, "w2"], &["y"], &[]);
        d.node("Reshape", &["z", "flat"], &["fz"], &[]).node("Transpose", &["fz"], &["tz"], &perm(&[0, 2, 1]));
        d.node("Relu", &["tz"], &["y2"], &[]);
        all.push(d.done(&["y", "y2"]));
    }
    let mut d = Draft::new("attention by Einsum in windows");
    d.input("q", f(&[2, 3, 2, 9, 12], 1)).input("k", f(&[2, 3, 2, 9, 12], 2)).input("v", f(&[2, 3, 2, 9, 12], 3));
    d.constant("s", Tensor::scalar(0.3f32)).constant("bias", f(&[2, 9, 9], 4));
    let equation = |e: &str| [("equation", Attr::Str(e.into()))];
    d.node("Mul", &["q", "s"], &["qs"], &[]).node("Einsum", &["qs", "k"], &["qk"], &equation("bghid,bghjd->bghij"));
    d.node("Add", &["qk", "bias"], &["b"], &[]).node("Softmax", &["b"], &["p"], &last);
    d.node("Einsum", &["p", "v"], &["y"], &equation("bghij,bghjd->bghid"));
    all.push(d.done(&["y"]));
    let mut d = Draft::new("Einsum with constants");
    d.input("x", f(&[2, 3, 5, 7], 1)).constant("w", f(&[7, 11], 2)).constant("u", f(&[3, 5, 4], 3));
    d.node("Einsum", &["x", "w"], &["y"], &equation("abij,jk->abik"));
    d.node("Einsum", &["x", "u"], &["z"], &equation("abij,bik->abjk")).node("Relu", &["z"], &["r"], &[]);
    all.push(d.done(&["y", "r"]));
    let mut d = Draft::new("shifted windows");
    d.input("q", f(&[8, 2, 9, 16], 1)).input("k", f(&[8, 2, 16, 9], 2)).input("v", f(&[8, 2, 9, 16], 3));
    d.constant("bias", f(&[1, 2, 9, 9], 4)).constant("mask", f(&[1, 4, 1, 9, 9], 5));
    d.constant("five", sample::ints(&[2, 4, 2, 9, 9])).constant("four", sample::ints(&[8, 2, 9, 9]));
    d.node("MatMul", &["q", "k"], &["qk"], &[]).node("Add", &["qk", "bias"], &["a"], &[]);
    d.node("Reshape", &["a", "five"], &["a5"], &[]).node("Add", &["a5", "mask"], &["m"], &[]);
    d.node("Reshape", &["m", "four"], &["m4"], &[]).node("Softmax", &["m4"], &["p"], &last);
    d.node("MatMul", &["p", "v"], &["y"], &[]);
    all.push(d.done(&["y"]));
    let mut d = Draft::new("parts picked by Gather");
    d.input("x", f(&[3, 16, 5, 6], 1)).constant("one", sample::ints(&[1])).constant("run", sample::ints(&[1, 2, 3]));
    d.constant("back", sample::ints(&[-2]));
    d.node("Gather", &["x", "one"], &["a"], &[("axis", Attr::Int(0))]).node("Relu", &["a"], &["y0"], &[]);
    d.node("Gather", &["x", "run"], &["b"], &[("axis", Attr::Int(2))]).node("Relu", &["b"], &["y1"], &[]);
    d.node("Gather", &["x", "back"], &["c"], &[("axis", Attr::Int(1))]).node("Relu", &["c"], &["y2"], &[]);
    all.push(d.done(&["y0", "y1", "y2"]));
    for (dilation, hw) in [(6i64, 6usize), (4, 6), (9, 5)] {
        let mut d = Draft::new(&format!("dilation {dilation} on {hw}"));
        d.input("x", f(&[1, 16, hw, hw], 1)).constant("w", f(&[24, 16, 3, 3], 2)).constant("b", f(&[24], 3));
        let attrs = [("pads", ints(&[dilation; 4])), ("dilations", ints(&[dilation; 2]))];
        d.node("Conv", &["x", "w", "b"], &["c"], &attrs).node("Relu", &["c"], &["y"], &[]);
        all.push(d.done(&["y"]));
    }
    all
}

/// Attention as exporters write it: heads moved by Reshape and Transpose, factors and masks in every place, keys shared by groups of
/// heads, causal, with few queries, and with something else reading what lies between.
fn attention_models() -> Vec<Model> {
    let f = sample::floats;
    let ints = |v: &[i64]| Attr::Ints(v.to_vec());
    let perm = |v: &[i64]| [("perm", Attr::Ints(v.to_vec()))];
    let last = [("axis", Attr::Int(-1))];
    let mut all = Vec::new();
    // batch, heads, queries, keys, dim
    let sizes =
        [(1i64, 2i64, 5i64, 5i64, 8i64), (2, 3, 17, 17, 20), (2, 4, 1, 33, 16), (1, 2, 40, 40, 64), (2, 2, 9, 21, 7)];
    for (b, h, s, t, e) in sizes {
        let u = |v: i64| v as usize;
        for mask in ["none", "keys", "full", "causal", "two", "guarded"] {
            for style in ["apart", "fused", "scaled", "flat"] {
                if style == "fused" && s != t {
                    continue;
                }
                let mut d = Draft::new(&format!("attention {b}x{h}x{s}x{t}x{e}, mask {mask}, {style}"));
                let heads = |d: &mut Draft, x: &str, y: &str, n: i64, order: &[i64]| {
                    d.constant(&format!("{y}_dims"), sample::ints(&[b, n, h, e]));
                    d.node("Reshape", &[x, &format!("{y}_dims")], &[&format!("{y}_4")], &[]);
                    d.node("Transpose", &[&format!("{y}_4")], &[y], &perm(order));
                };
                if style == "fused" {
                    d.input("x", f(&[u(b), u(s), u(3 * h * e)], 1))
                        .constant("parts", sample::ints(&[h * e, h * e, h * e]));
                    d.node("Split", &["x", "parts"], &["qx", "kx", "vx"], &[("axis", Attr::Int(2))]);
                } else {
                    d.input("qx", f(&[u(b), u(s), u(h * e)], 1));
                    d.input("kx", f(&[u(b), u(t), u(h * e)], 2)).input("vx", f(&[u(b), u(t), u(h * e)], 3));
                }
                heads(&mut d, "qx", "q", s, &[0, 2, 1, 3]);
                heads(&mut d, "kx", "k", t, &[0, 2, 3, 1]);
                heads(&mut d, "vx", "v", t, &[0, 2, 1, 3]);
                d.constant("c", Tensor::scalar(0.35f32)).constant("root", Tensor::scalar(0.6f32));
                let mut at = "qk";
                if style == "scaled" {
                    d.node("Mul", &["q", "root"], &["qs"], &[]).node("Mul", &["root", "k"], &["ks"], &[]);
                    d.node("MatMul", &["qs", "ks"], &["qk"], &[]);
                } else {
                    d.node("MatMul", &["q", "k"], &["raw"], &[]);
                    d.node(if s % 2 == 0 { "Mul" } else { "Div" }, &["raw", "c"], &["qk"], &[]);
                }
                let hidden = |i: usize, j: usize, low: f32| if j + u(s) > i + u(t) { low } else { 0.0 };
                match mask {
                    "keys" => {
                        d.input("m", f(&[u(b), 1, 1, u(t)], 4));
                        d.node("Add", &[at, "m"], &["masked"], &[]);
                        at = "masked";
                    }
                    "full" => {
                        d.constant("m", f(&[1, u(h), u(s), u(t)], 5));
                        d.node("Add", &["m", at], &["masked"], &[]);
                        at = "masked";
                    }
                    "causal" => {
                        let plane = (0..u(s * t)).map(|i| hidden(i / u(t), i % u(t), f32::MIN)).collect();
                        d.constant("m", Tensor::from_vec(plane, &[1, 1, u(s), u(t)]).unwrap());
                        d.node("Add", &[at, "m"], &["masked"], &[]);
                        at = "masked";
                    }
                    "two" => {
                        d.constant("m", f(&[u(h), u(s), u(t)], 6)).constant("n", f(&[u(b), 1, u(s), 1], 7));
                        d.node("Add", &[at, "m"], &["one"], &[]).node("Add", &["one", "n"], &["masked"], &[]);
                        at = "masked";
                    }
                    "guarded" => {
                        let plane = (0..u(s * t)).map(|i| if i < u(t) { f32::NEG_INFINITY } else { 0.1 }).collect();
                        d.input("m", Tensor::from_vec(plane, &[1, 1, u(s), u(t)]).unwrap());
                        d.node("Add", &[at, "m"], &["masked"], &[]);
                        at = "masked";
                    }
                    _ => {}
                }
                d.node("Softmax", &[at], &["p"], &last);
                let mut p = "p";
                if mask == "guarded" {
                    d.constant("zero", Tensor::scalar(0f32));
                    d.node("IsNaN", &["p"], &["nan"], &[]).node("Where", &["nan", "zero", "p"], &["safe"], &[]);
                    p = "safe";
                }
                if style == "flat" {
                    d.constant("p3", sample::ints(&[b * h, s, t])).constant("v3", sample::ints(&[b * h, t, e]));
                    d.constant("o4", sample::ints(&[b, h, s, e]));
                    d.node("Reshape", &[p, "p3"], &["pf"], &[]).node("Reshape", &["v", "v3"], &["vf"], &[]);
                    d.node("MatMul", &["pf", "vf"], &["of"], &[]).node("Reshape", &["of", "o4"], &["o"], &[]);
                } else {
                    d.node("MatMul", &[p, "v"], &["o"], &[]);
                }
                d.constant("rows", sample::ints(&[b, s, h * e]));
                d.node("Transpose", &["o"], &["ot"], &perm(&[0, 2, 1, 3])).node(
                    "Reshape",
                    &["ot", "rows"],
                    &["y"],
                    &[],
                );
                // Sometimes what was moved is wanted elsewhere too (a cache of keys and values).
                if h == 3 {
                    all.push(d.done(&["y", "k", "v"]));
                } else {
                    all.push(d.done(&["y"]));
                }
            }
        }
        // Keys and values of one group of heads, repeated by Expand.
        let mut d = Draft::new(&format!("attention in groups {b}x{h}x{s}x{t}x{e}"));
        let g = 2i64;
        d.input("q", f(&[u(b), u(g * h), u(s), u(e)], 1));
        d.input("k", f(&[u(b), u(g), u(t), u(e)], 2)).input("v", f(&[u(b), u(g), u(t), u(e)], 3));
        d.constant("axes", sample::ints(&[2])).constant("wide", sample::ints(&[b, g, h, t, e]));
        d.constant("all", sample::ints(&[b, g * h, t, e]));
        for (x, y) in [("k", "ka"), ("v", "va")] {
            let (one, many) = (format!("{x}1"), format!("{x}2"));
            d.node("Unsqueeze", &[x, "axes"], &[&one], &[]).node("Expand", &[&one, "wide"], &[&many], &[]);
            d.node("Reshape", &[&many, "all"], &[y], &[]);
        }
        d.node("Transpose", &["ka"], &["kt"], &perm(&[0, 1, 3, 2])).node("MatMul", &["q", "kt"], &["qk"], &[]);
        d.node("Softmax", &["qk"], &["p"], &last).node("MatMul", &["p", "va"], &["y"], &[]);
        all.push(d.done(&["y"]));
    }
    // A head picked out of joined projections, positions first (as torch's own module writes it).
    let mut d = Draft::new("attention, positions first");
    let (s, h, e) = (11i64, 2i64, 24i64);
    d.input("x", f(&[11, 1, 3 * 48], 1)).constant("split", sample::ints(&[s, 1, 3, h * e]));
    d.constant("first", sample::ints(&[0]))
        .constant("third", sample::ints(&[3]))
        .constant("root", Tensor::scalar(0.4f32));
    d.constant("heads", sample::ints(&[s, h, e])).constant("four", sample::ints(&[1, h, s, e]));
    d.constant("rows", sample::ints(&[s, h * e]));
    d.node("Reshape", &["x", "split"], &["x4"], &[]).node("Unsqueeze", &["x4", "first"], &["x5"], &[]);
    d.node("Transpose", &["x5"], &["xt"], &perm(&[3, 1, 2, 0, 4])).node("Squeeze", &["xt", "third"], &["x3"], &[]);
    for (i, n) in ["q", "k", "v"].iter().enumerate() {
        let name = |x: &str| format!("{n}{x}");
        d.constant(&name("i"), Tensor::scalar(i as i64));
        d.node("Gather", &["x3", &name("i")], &[&name("g")], &[("axis", Attr::Int(0))]);
        d.node("Reshape", &[&name("g"), "heads"], &[&name("h")], &[]);
        d.node("Transpose", &[&name("h")], &[&name("moved")], &perm(&[1, 0, 2]));
        d.node("Reshape", &[&name("moved"), "four"], &[n], &[]);
    }
    d.node("Transpose", &["k"], &["kt"], &perm(&[0, 1, 3, 2]));
    d.node("Mul", &["q", "root"], &["qs"], &[]).node("Mul", &["kt", "root"], &["ks"], &[]);
    d.node("MatMul", &["qs", "ks"], &["qk"], &[]).node("Softmax", &["qk"], &["p"], &last);
    d.node("MatMul", &["p", "v"], &["o"], &[]).node("Transpose", &["o"], &["ot"], &[("perm", ints(&[2, 0, 1, 3]))]);
    d.node("Reshape", &["ot", "rows"], &["y"], &[]);
    all.push(d.done(&["y"]));
    all.push(standardised(&mut Draft::new("standardised")));
    // Large constants that follow from each other, more than wait for each other.
    let mut d = Draft::new("long chain of constants");
    d.input("x", f(&[1, 1 << 14], 1)).constant("c0", f(&[1, 1 << 14], 2));
    for i in 0..200 {
        d.node(if i % 2 == 0 { "Neg" } else { "Cos" }, &[&format!("c{i}")], &[&format!("c{}", i + 1)], &[]);
    }
    all.push(d.node("Add", &["x", "c200"], &["y"], &[]).done(&["y"]));
    all
}

/// Beginnings of a decoder's layer: several products in few bits of one value, one after the other or with their readers between them, and
/// rotary embeddings in the forms of exporters.
fn decoder_models() -> Vec<Model> {
    let f = sample::floats;
    let mut all = Vec::new();
    for (seq, bits, style) in [
        (1usize, 4usize, "slices"),
        (1, 8, "split"),
        (1, 4, "zeros"),
        (1, 4, "constant"),
        (3, 4, "slices"),
        (3, 8, "swapped"),
        (1, 4, "read twice"),
    ] {
        let (hidden, width) = (64usize, 16usize);
        let mut d = Draft::new(&format!("decoder of {seq}, {bits} bits, {style}"));
        d.input("x", f(&[1, seq, hidden], 1));
        let product = |d: &mut Draft, y: &str, n: usize, seed: usize, zeros: bool| {
            let blocks = hidden / 32;
            let bytes =
                |len: usize, by: usize| (0..len).map(|i| (((i + by) * 2_654_435_761) >> 9) as u8).collect::<Vec<_>>();
            let data = Tensor::from_vec(bytes(n * blocks * 4 * bits, seed), &[n, blocks, 4 * bits]).unwrap();
            let mut inputs = vec!["x".to_string(), format!("{y}_w"), format!("{y}_s")];
            d.constant(&inputs[1], data).constant(&inputs[2], f(&[n * blocks], seed as u64 + 2));
            if zeros {
                inputs.push(format!("{y}_z"));
                let len = n * (blocks * bits).div_ceil(8);
                d.constant(&inputs[3], Tensor::from_vec(bytes(len, seed + 1), &[len]).unwrap());
            }
            let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
            let size = |name: &'static str, v: usize| (name, Attr::Int(v as i64));
            let attrs = [size("K", hidden), size("N", n), size("bits", bits), size("block_size", 32)];
            d.node("MatMulNBits", &inputs, &[y], &attrs);
            d.graph.nodes.last_mut().unwrap().domain = "com.microsoft".into();
        };
        let turn = |d: &mut Draft, y: &str, heads: usize| {
            let name = |part: &str| format!("{y}_{part}");
            let [dims, apart, x, low, high, minus, turned, by_cos, by_sin, out] =
                ["dims", "apart", "t", "low", "high", "minus", "turned", "cos", "sin", "out"].map(name);
            d.constant(&dims, sample::ints(&[1, seq as i64, heads as i64, width as i64]));
            d.node("Reshape", &[y, &dims], &[&apart], &[]);
            d.node("Transpose", &[&apart], &[&x], &[("perm", Attr::Ints(vec![0, 2, 1, 3]))]);
            if style == "split" {
                d.node("Split", &[&x, "halves"], &[&low, &high], &[("axis", Attr::Int(-1))]);
            } else {
                d.node("Slice", &[&x, "zero", "half", "axis"], &[&low], &[]);
                d.node("Slice", &[&x, "half", "all", "axis"], &[&high], &[]);
            }
            d.node("Neg", &[&high], &[&minus], &[]);
            d.node("Concat", &[&minus, &low], &[&turned], &[("axis", Attr::Int(3))]);
            if style == "swapped" {
                d.node("Mul", &["c", &x], &[&by_cos], &[]).node("Mul", &["s", &turned], &[&by_sin], &[]);
                d.node("Add", &[&by_sin, &by_cos], &[&out], &[]);
            } else {
                d.node("Mul", &[&x, "c"], &[&by_cos], &[]).node("Mul", &[&turned, "s"], &[&by_sin], &[]);
                d.node("Add", &[&by_cos, &by_sin], &[&out], &[]);
            }
            out
        };
        let ends: [(&str, i64); 3] = [("zero", 0), ("half", width as i64 / 2), ("all", width as i64)];
        ends.iter().for_each(|(name, at)| {
            d.constant(name, sample::ints(&[*at]));
        });
        d.constant("axis", sample::ints(&[3])).constant("halves", sample::ints(&[width as i64 / 2; 2]));
        for (name, seed) in [("c", 7), ("s", 8)] {
            let angles = f(&[1, 1, seq, width], seed);
            if style == "constant" {
                d.constant(name, angles)
            } else {
                d.input(name, angles)
            };
        }
        product(&mut d, "q", 3 * width, 3, false);
        let q = turn(&mut d, "q", 3);
        product(&mut d, "k", width, 5, style == "zeros");
        let k = turn(&mut d, "k", 1);
        product(&mut d, "v", 2 * width + 1, 9, false);
        d.node("Relu", &["v"], &["va"], &[]);
        if style == "read twice" {
            d.node("Abs", &["q_turned"], &["also"], &[]);
            all.push(d.done(&[&q, &k, "va", "also", "v"]));
        } else {
            all.push(d.done(&[&q, &k, "va"]));
        }
    }
    all
}

fn check(models: &[Model], isas: &[Isa], reached: &mut BTreeSet<String>) -> Vec<String> {
    let mut wrong = Vec::new();
    'models: for m in models {
        for &isa in isas {
            for threads in [1, 2] {
                match compare(m, isa, threads) {
                    Ok((worst, kernels)) => {
                        reached.extend(kernels);
                        if worst > 1e-4 {
                            wrong.push(format!("{} on {}, {threads} thread(s): error {worst:.1e}", m.name, isa.name()));
                        }
                    }
                    Err(why) => wrong.push(format!("{} on {}, {threads} thread(s): {why}", m.name, isa.name())),
                }
                // One line per model is enough to find it.
                if wrong.last().is_some_and(|w: &String| w.starts_with(&m.name)) {
                    continue 'models;
                }
            }
        }
    }
    wrong
}

/// Convolutions whose weights the graph standardises itself, by the batch normalisation of training and node by node.
fn standardised(draft: &mut Draft) -> Model {
    let (oc, ic) = (96, 96);
    let each = [oc, ic * 9];
    let ints = |v: &[i64]| Tensor::from_vec(v.to_vec(), &[v.len()]).unwrap();
    draft
        .input("x", sample::floats(&[1, ic, 9, 9], 1))
        .constant("w", sample::floats(&[1, each[0], each[1]], 2))
        .constant("scale", sample::floats(&[oc], 3))
        .constant("zeros", Tensor::zeros(DType::F32, &[oc]).unwrap())
        .constant("flat", ints(&[1, -1, each[0] as i64]))
        .constant("shape", ints(&[oc as i64, ic as i64, 3, 3]))
        .constant("axes", ints(&[0, 1]))
        .constant("each", ints(&[1, 2, 3]))
        .constant("eps", Tensor::scalar(1e-5f32))
        .constant("v", sample::floats(&[oc, ic, 3, 3], 4));
    let keep = |keep: i64| ("keepdims", Attr::Int(keep));
    draft
        // What only the running statistics would be made of.
        .node("Reshape", &["w", "flat"], &["w.flat"], &[])
        .node("ReduceMean", &["w.flat", "axes"], &["mean"], &[keep(0)])
        .node(
            "BatchNormalization",
            &["w", "scale", "zeros", "mean", "zeros"],
            &["w.even"],
            &[("training_mode", Attr::Int(1))],
        )
        .node("Reshape", &["w.even", "shape"], &["w.shaped"], &[])
        .node("Conv", &["x", "w.shaped"], &["y"], &[("pads", Attr::Ints(vec![1; 4]))])
        .node("Relu", &["y"], &["z"], &[])
        .node("ReduceMean", &["v", "each"], &["v.mean"], &[keep(1)])
        .node("Sub", &["v", "v.mean"], &["v.centred"], &[])
        .node("Mul", &["v.centred", "v.centred"], &["v.squares"], &[])
        .node("ReduceMean", &["v.squares", "each"], &["v.variance"], &[keep(1)])
        .node("Add", &["v.variance", "eps"], &["v.safe"], &[])
        .node("Sqrt", &["v.safe"], &["v.deviation"], &[])
        .node("Div", &["v.centred", "v.deviation"], &["v.even"], &[])
        .node("Conv", &["z", "v.even"], &["out"], &[("strides", Attr::Ints(vec![2; 2]))])
        .done(&["out"])
}

#[test]
fn computed_weights_are_kept_packed() {
    let model = standardised(&mut Draft::new("standardised"));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.onnx");
    madd_prof::onnx::write(&model.spec, &path, None).unwrap();
    // A file that was written just now may be written again: nothing is kept of it.
    let before = std::time::SystemTime::now() - std::time::Duration::from_secs(60);
    std::fs::File::options().write(true).open(&path).unwrap().set_modified(before).unwrap();
    let run = |times: usize| {
        let kept = Arc::new(Kept::new(&folder.path().join("kept"), 1 << 30, 1 << 30).unwrap());
        let spec = madd_prof::onnx::read(&path).unwrap();
        let graph = Arc::new(build(&spec, &Bindings::default()).unwrap().graph);
        let options = Options { kept: Some(kept.clone()), ..Options::new(Path::Optimized, 2) };
        let mut session = Session::new(&graph, &options).unwrap();
        let settled = session.settled();
        let got: Vec<_> = (0..times).map(|_| session.run(&model.inputs).unwrap().swap_remove(0)).collect();
        (settled, kept.write().unwrap(), kept.taken_bytes(), got)
    };
    let (settled, written, taken, first) = run(2);
    assert!(!settled && written > 0 && taken == 0);
    // Both convolutions find what the first session packed: nothing is left to be packed, nor computed.
    let (settled, more, taken, again) = run(1);
    assert!(settled && more == 0 && taken >= 2 * 4 * 96 * 96 * 9, "{settled} {more} {taken}");
    let bytes = |t: &Tensor| t.bytes().unwrap().to_vec();
    assert_eq!((bytes(&first[0]), bytes(&first[1])), (bytes(&again[0]), bytes(&again[0])));
}

#[test]
fn every_kernel_equals_the_reference_on_every_instruction_set() {
    let isas = Isa::for_tests();
    let mut reached = BTreeSet::new();
    let mut wrong = check(&operator_models(), &isas, &mut reached);
    wrong.extend(check(&fused_models(), &isas, &mut reached));
    let together = decoder_models();
    let plans = |m: &Model| {
        let graph = Arc::new(build(&m.spec, &Bindings::default()).unwrap().graph);
        let session = Session::new(&graph, &Options::new(Path::Optimized, 1)).unwrap();
        session.steps().iter().map(|s| (s.kernel.clone(), s.covers.len())).collect::<Vec<_>>()
    };
    // Three products and two rotations of seven or six nodes, whatever lies between; a value that others read stays.
    for m in &together {
        let steps = plans(m);
        let count = |kernel: &str, covers: usize| steps.iter().filter(|s| **s == (kernel.into(), covers)).count();
        let (one, nodes) = (m.name.contains(" of 1,"), if m.name.contains("split") { 6 } else { 7 });
        let turned = if m.name.contains("twice") { 1 } else { 2 };
        if count("rotary", nodes) != turned || (one && steps.iter().filter(|s| s.0 == "few-bits-together").count() != 1)
        {
            wrong.push(format!("{}: {steps:?}", m.name));
        }
    }
    for entry in madd_prof::kernels::TABLE {
        if !reached.contains(entry.name) {
            wrong.push(format!("no case reaches the kernel '{}'", entry.name));
        }
    }
    assert!(wrong.is_empty(), "{} failures:\n{}", wrong.len(), wrong[..wrong.len().min(40)].join("\n"));
}

#[test]
fn weights_are_packed_for_good_when_a_session_runs_again() {
    let models = fused_models();
    let model = |m: &Model| Arc::new(build(&m.spec, &Bindings::default()).unwrap().graph);
    let mut late = 0;
    for m in &models {
        let graph = model(m);
        let options = Options::new(Path::Optimized, 2);
        let mut session = Session::new(&graph, &options).unwrap();
        let mut at_once = Session::new(&graph, &Options { pack: Pack::AtOnce, ..options }).unwrap();
        assert!(at_once.settled() && at_once.packed_bytes().is_some(), "{}", m.name);
        let Ok(want) = at_once.run(&m.inputs) else { continue };
        let same = |got: Vec<Tensor>| got.iter().zip(&want).all(|(a, b)| a.bytes().ok() == b.bytes().ok());
        if !session.settled() {
            late += 1;
            assert_eq!(session.packed_bytes(), None, "{}", m.name);
        }
        let was = session.settled();
        assert!(same(session.run(&m.inputs).unwrap()), "{}: packed for a few steps", m.name);
        assert_eq!(session.settled(), was, "{}", m.name);
        assert!(same(session.run(&m.inputs).unwrap()), "{}: packed for good", m.name);
        assert!(session.settled() && session.packed_bytes() == at_once.packed_bytes(), "{}", m.name);
        let details = |s: &Session| s.steps().iter().map(|s| s.detail.clone()).collect::<Vec<_>>();
        assert_eq!(details(&session), details(&at_once), "{}", m.name);
    }
    assert!(late > 50 && late < models.len(), "{late} of {}", models.len());
}
