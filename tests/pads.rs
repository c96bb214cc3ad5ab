//! Zeros around a map that the window reading it puts there itself: what is merged gives what the reference gives, on every instruction
//! set and on one, two and three threads, and what must stay a step of its own stays one.

use madd_prof::engine::{Options, Path, Session};
use madd_prof::ir::{Bindings, Graph, build};
use madd_prof::ops::spec::{Attr, DimSpec, GraphSpec, ModelSpec, NodeSpec, ValueSpec};
use madd_prof::ops::{NEWEST_OPSET, sample};
use madd_prof::simd::Isa;
use madd_prof::tensor::Tensor;
use std::collections::BTreeSet;
use std::sync::Arc;

/// A model of one input `x`, written node by node.
struct Draft {
    graph: GraphSpec,
    x: Tensor,
    opset: i64,
}

impl Draft {
    fn new(x: &[usize]) -> Draft {
        let mut graph = GraphSpec::default();
        let x = sample::floats(x, 1);
        graph.inputs.push(ValueSpec {
            name: "x".into(),
            dtype: Some(x.dtype()),
            shape: Some(x.dims().iter().map(|&d| DimSpec::Size(d)).collect()),
            container: x.fact().container,
        });
        Draft { graph, x, opset: NEWEST_OPSET }
    }
    fn constant(&mut self, name: &str, t: Tensor) -> &mut Self {
        self.graph.initializers.push((name.into(), t));
        self
    }
    fn weights(&mut self, name: &str, dims: &[usize]) -> &mut Self {
        let seed = 7 + self.graph.initializers.len() as u64;
        self.constant(name, sample::floats(dims, seed))
    }
    fn node(&mut self, op: &str, inputs: &[&str], output: &str, attrs: &[(&str, Attr)]) -> &mut Self {
        self.graph.nodes.push(NodeSpec {
            name: output.into(),
            op_type: op.into(),
            inputs: inputs.iter().map(|s| s.to_string()).collect(),
            outputs: vec![output.into()],
            attrs: attrs.iter().map(|(k, v)| (k.to_string(), v.clone())).collect(),
            opset: self.opset,
            ..NodeSpec::default()
        });
        self
    }
    /// A Pad, as all but the oldest files have it.
    fn pad(&mut self, from: &str, to: &str, pads: &[i64]) -> &mut Self {
        let name = format!("{to} pads");
        self.constant(&name, sample::ints(pads)).node("Pad", &[from, &name], to, &[])
    }
    fn graph(&self, outputs: &[&str]) -> Arc<Graph> {
        let mut graph = self.graph.clone();
        graph.outputs = outputs.iter().map(|s| ValueSpec { name: s.to_string(), ..ValueSpec::default() }).collect();
        let spec = ModelSpec { graph, opsets: vec![(String::new(), self.opset)], ..ModelSpec::default() };
        Arc::new(build(&spec, &Bindings::default()).expect("a model").graph)
    }
    /// Runs both paths and compares: the kernels used, and how many Pads have a step of their own.
    fn run(&self, what: &str, outputs: &[&str], winograd: bool) -> (BTreeSet<String>, usize) {
        let (graph, x) = (self.graph(outputs), std::slice::from_ref(&self.x));
        let want = Session::new(&graph, &Options::new(Path::Reference, 1)).and_then(|mut s| s.run(x)).expect(what);
        let (mut kernels, mut apart) = (BTreeSet::new(), BTreeSet::new());
        for isa in Isa::for_tests() {
            for threads in [1, 2, 3] {
                let what = format!("{what} on {}, {threads} thread(s)", isa.name());
                let options = Options { isa, poison: true, winograd, ..Options::new(Path::Optimized, threads) };
                let mut fast = Session::new(&graph, &options).expect(&what);
                fast.run(x).expect(&what);
                let got = fast.run(x).expect(&what);
                assert_eq!(want.len(), got.len(), "{what}");
                for (w, g) in want.iter().zip(&got) {
                    assert_eq!(w.dims(), g.dims(), "{what}");
                    let (w, g) = (w.to_f64s().expect("floats"), g.to_f64s().expect("floats"));
                    let largest = w.iter().fold(1e-3f64, |a, v| a.max(v.abs()));
                    let close = |(a, b): (&f64, &f64)| (a - b).abs() <= 3e-5 * largest;
                    assert!(
                        w.iter().zip(&g).all(close),
                        "{what}: {:?} for {:?}",
                        &g[..g.len().min(9)],
                        &w[..9.min(w.len())]
                    );
                }
                let is_pad = |c: &madd_prof::ir::NodeId| graph.node(*c).op_type == "Pad";
                let alone = fast.steps().iter().filter(|s| s.covers.len() == 1 && s.covers.iter().all(is_pad)).count();
                let covered = fast.steps().iter().flat_map(|s| &s.covers).filter(|c| is_pad(c)).count();
                assert_eq!(covered, graph.nodes().iter().filter(|n| n.op_type == "Pad").count(), "{what}");
                apart.insert(alone);
                kernels.extend(fast.steps().iter().map(|s| format!("{} {}", s.kernel, s.detail)));
            }
        }
        assert_eq!(apart.len(), 1, "{what}: Pads of their own {apart:?}");
        (kernels, apart.into_iter().sum())
    }
}

fn ints(v: &[usize]) -> Attr {
    Attr::Ints(v.iter().map(|&v| v as i64).collect())
}

/// Pads of a rank-4 map: above, left, below, right.
fn around([top, left, bottom, right]: [i64; 4]) -> [i64; 8] {
    [0, 0, top, left, 0, 0, bottom, right]
}

const MARGINS: [[i64; 4]; 5] = [[0, 0, 1, 1], [1, 1, 0, 0], [2, 0, 0, 1], [0, 0, 0, 0], [1, 3, 2, 0]];

#[derive(Clone, Copy)]
struct Layer {
    /// The kernel that takes it, and how.
    kernel: &'static str,
    ic: usize,
    oc: usize,
    k: usize,
    s: usize,
    d: usize,
    g: usize,
    hw: (usize, usize),
}

const LAYERS: &[Layer] = &[
    Layer { kernel: "depthwise", ic: 40, oc: 40, k: 3, s: 2, d: 1, g: 40, hw: (16, 17) },
    Layer { kernel: "depthwise", ic: 19, oc: 19, k: 5, s: 2, d: 1, g: 19, hw: (15, 30) },
    Layer { kernel: "depthwise", ic: 16, oc: 16, k: 7, s: 1, d: 1, g: 16, hw: (9, 8) },
    Layer { kernel: "depthwise", ic: 16, oc: 48, k: 3, s: 2, d: 2, g: 16, hw: (13, 12) },
    Layer { kernel: "direct ", ic: 24, oc: 40, k: 1, s: 1, d: 1, g: 1, hw: (9, 10) },
    Layer { kernel: "direct ", ic: 24, oc: 17, k: 1, s: 2, d: 1, g: 1, hw: (9, 10) },
    Layer { kernel: "direct ", ic: 20, oc: 33, k: 3, s: 2, d: 1, g: 1, hw: (14, 15) },
    Layer { kernel: "direct ", ic: 13, oc: 20, k: 3, s: 1, d: 3, g: 1, hw: (14, 9) },
    Layer { kernel: "direct ", ic: 24, oc: 48, k: 3, s: 2, d: 1, g: 4, hw: (11, 10) },
    Layer { kernel: "direct ", ic: 32, oc: 32, k: 3, s: 1, d: 1, g: 2, hw: (11, 10) },
    Layer { kernel: "direct-plain", ic: 3, oc: 32, k: 3, s: 2, d: 1, g: 1, hw: (24, 21) },
    Layer { kernel: "direct-plain", ic: 3, oc: 20, k: 7, s: 2, d: 1, g: 1, hw: (24, 25) },
    Layer { kernel: "conv-winograd-4", ic: 64, oc: 64, k: 3, s: 1, d: 1, g: 1, hw: (26, 21) },
    Layer { kernel: "conv-winograd", ic: 96, oc: 40, k: 3, s: 1, d: 1, g: 1, hw: (6, 6) },
];

impl Layer {
    fn attrs(&self) -> Vec<(&'static str, Attr)> {
        vec![("strides", ints(&[self.s; 2])), ("dilations", ints(&[self.d; 2])), ("group", Attr::Int(self.g as i64))]
    }
    /// A pointwise convolution, so that the map comes in blocks, and this layer over a Pad of it; a first layer reads `x`.
    fn draft(&self, margin: [i64; 4], more: &[(&'static str, Attr)]) -> Draft {
        let Layer { ic, oc, k, g, hw: (h, w), .. } = *self;
        let mut d = Draft::new(&[2, ic, h, w]);
        d.weights("w0", &[ic, ic, 1, 1]).weights("w", &[oc, ic / g, k, k]).weights("b", &[oc]);
        d.node("Conv", &["x", "w0"], "before", &[]);
        d.pad(if ic == 3 { "x" } else { "before" }, "padded", &around(margin));
        d.node("Conv", &["padded", "w", "b"], "conv", &[self.attrs(), more.to_vec()].concat());
        d.node("Relu", &["conv"], "y", &[]);
        d
    }
}

#[test]
fn convolutions_put_the_zeros_there() {
    let mut all = BTreeSet::new();
    for layer in LAYERS {
        for margin in MARGINS {
            let what = format!("{} {}->{} k{} s{} {margin:?}", layer.kernel, layer.ic, layer.oc, layer.k, layer.s);
            let (kernels, apart) = layer.draft(margin, &[]).run(&what, &["y"], true);
            assert_eq!(apart, 0, "{what}");
            let reached = kernels.iter().any(|k| k.contains(layer.kernel));
            // Without a margin a pointwise convolution is one.
            assert!(reached || layer.k == 1 && layer.s == 1 && margin == [0; 4], "{what}: {kernels:?}");
            all.extend(kernels);
        }
    }
    for m in ["2", "4"] {
        assert!(all.iter().any(|k| k.starts_with(&format!("conv-winograd-{m}"))), "{all:?}");
    }
}

#[test]
fn without_winograd() {
    let layer = Layer { kernel: "conv-nchwc direct", hw: (19, 6), ..LAYERS[12] };
    for margin in MARGINS {
        let (kernels, apart) = layer.draft(margin, &[]).run("without Winograd", &["y"], false);
        assert!(apart == 0 && kernels.iter().any(|k| k.contains(layer.kernel)), "{kernels:?}");
    }
}

#[test]
fn the_convolution_pads_too() {
    let pads = |p: [usize; 4]| [("pads", ints(&p))];
    let auto = |mode: &str| [("auto_pad", Attr::Str(mode.into()))];
    for layer in LAYERS {
        for margin in [[0, 0, 1, 1], [2, 1, 0, 0]] {
            for own in [pads([1, 1, 1, 1]), pads([0, 2, 1, 0]), auto("SAME_UPPER"), auto("SAME_LOWER"), auto("VALID")] {
                let what = format!("{} k{} {margin:?} and {own:?}", layer.kernel, layer.k);
                assert_eq!(layer.draft(margin, &own).run(&what, &["y"], true).1, 0, "{what}");
            }
        }
    }
}

#[test]
fn with_what_follows_and_in_bands() {
    // BatchNormalization, a residual, an activation.
    for layer in [LAYERS[0], LAYERS[6], LAYERS[12]] {
        let mut d = layer.draft([0, 0, 1, 1], &[]);
        let o = |n: usize| (n + 1 - layer.k) / layer.s + 1;
        d.weights("r", &[2, layer.oc, o(layer.hw.0), o(layer.hw.1)]).weights("g", &[layer.oc]);
        d.constant("v", Tensor::from_vec(vec![0.7f32; layer.oc], &[layer.oc]).expect("a vector"));
        d.node("BatchNormalization", &["conv", "g", "b", "b", "v"], "n", &[]);
        d.node("Add", &["n", "r"], "s", &[]).node("HardSwish", &["s"], "z", &[]);
        d.graph.nodes.retain(|n| n.outputs != ["y"]);
        assert_eq!(d.run("what follows", &["z"], true).1, 0);
    }
    // An inverted residual on a map that goes in bands, and its halves.
    for (margin, k, s) in [([0, 0, 1, 1], 3, 2), ([1, 2, 2, 1], 5, 2), ([2, 0, 0, 2], 3, 1)] {
        for (expand, project) in [(true, true), (true, false), (false, true)] {
            let (c, mid) = (16, 100);
            let mut d = Draft::new(&[1, if expand { c } else { mid }, 61, 47]);
            d.weights("e", &[mid, c, 1, 1]).weights("k", &[mid, 1, k, k]).weights("p", &[c, mid, 1, 1]);
            let mut at = "x";
            if expand {
                d.node("Conv", &["x", "e"], "ex", &[]).node("Relu", &["ex"], "er", &[]);
                at = "er";
            }
            let attrs = [("strides", ints(&[s; 2])), ("group", Attr::Int(mid as i64))];
            d.pad(at, "padded", &around(margin)).node("Conv", &["padded", "k"], "d", &attrs);
            d.node("Relu", &["d"], "y", &[]);
            if project {
                d.node("Conv", &["y", "p"], "z", &[]);
            }
            let what = format!("bands {margin:?} k{k} s{s} {expand} {project}");
            let (kernels, apart) = d.run(&what, &[if project { "z" } else { "y" }], true);
            assert_eq!(apart, 0, "{what}");
            let wide = expand || s == 1;
            assert!(!wide || kernels.iter().any(|k| k.starts_with("conv-chain")), "{what}: {kernels:?}");
        }
    }
}

#[test]
fn other_forms() {
    // One axis.
    let mut d = Draft::new(&[2, 16, 30]);
    d.weights("w", &[24, 16, 3]).pad("x", "p", &[0, 0, 0, 0, 0, 2]);
    d.node("Conv", &["p", "w"], "y", &[("strides", ints(&[2]))]);
    assert_eq!(d.run("one axis", &["y"], true).1, 0);
    // Weights that are computed.
    let mut d = Draft::new(&[1, 16, 9, 8]);
    d.weights("w", &[24, 16, 1, 1]).pad("x", "p", &around([0, 0, 1, 1])).node("GlobalAveragePool", &["x"], "q", &[]);
    d.node("Mul", &["w", "q"], "m", &[]).node("Conv", &["p", "m"], "y", &[("strides", ints(&[2; 2]))]);
    let (kernels, apart) = d.run("computed weights", &["y"], true);
    assert!(apart == 0 && kernels.iter().any(|k| k.starts_with("conv-computed")), "{kernels:?}");
    // Attributes of old files, an axes input, a value that is given, one Pad around another.
    let mut d = Draft::new(&[1, 16, 9, 8]);
    d.opset = 10;
    d.weights("w", &[24, 16, 3, 3]).node("Pad", &["x"], "p", &[("pads", Attr::Ints(around([0, 1, 2, 0]).to_vec()))]);
    d.node("Conv", &["p", "w"], "y", &[]);
    assert_eq!(d.run("attributes", &["y"], true).1, 0);
    let mut d = Draft::new(&[1, 16, 9, 8]);
    d.weights("w", &[24, 16, 3, 3])
        .constant("pads", sample::ints(&[1, 0, 0, 2]))
        .constant("zero", Tensor::scalar(0f32));
    d.constant("axes", sample::ints(&[-1, 2])).node("Pad", &["x", "pads", "zero", "axes"], "p", &[]);
    d.pad("p", "p2", &around([0, 0, 1, 1])).node("Conv", &["p2", "w"], "y", &[]);
    assert_eq!(d.run("axes, twice", &["y"], true).1, 0);
    // Averages that count their padding.
    for (include, own, k, margin, w) in [
        (0, [0; 4], 3, [1, 1, 1, 1], 11),
        (0, [0; 4], 2, [0, 0, 1, 1], 11),
        (1, [1, 0, 0, 1], 4, [0, 2, 1, 0], 11),
        (1, [1, 1, 1, 1], 3, [1, 0, 0, 1], 12),
    ] {
        for (stride, ceil) in [(1, 0), (2, 0), (2, 1)] {
            let mut d = Draft::new(&[2, 20, 11, w]);
            d.weights("w", &[20, 20, 1, 1]).node("Conv", &["x", "w"], "c", &[]);
            let attrs = [
                ("kernel_shape", ints(&[k; 2])),
                ("strides", ints(&[stride; 2])),
                ("pads", ints(&own)),
                ("count_include_pad", Attr::Int(include)),
                ("ceil_mode", Attr::Int(ceil)),
            ];
            d.pad("c", "p", &around(margin)).node("AveragePool", &["p"], "y", &attrs);
            d.pad("x", "q", &around(margin)).node("AveragePool", &["q"], "z", &attrs);
            let what = format!("average {k} {margin:?} of its own {own:?}, stride {stride}, ceil {ceil}");
            assert_eq!(d.run(&what, &["y", "z"], true).1, 0, "{what}");
        }
    }
}

#[test]
fn what_is_not_merged() {
    let conv = |d: &mut Draft| {
        d.weights("w", &[24, 16, 3, 3]).node("Conv", &["p", "w"], "y", &[("strides", ints(&[2; 2]))]);
    };
    let check = |what: &str, outputs: &[&str], make: &dyn Fn(&mut Draft)| {
        let mut d = Draft::new(&[2, 16, 9, 8]);
        make(&mut d);
        assert_eq!(d.run(what, outputs, true).1, 1, "{what}");
    };
    let below = around([0, 0, 1, 1]);
    check("an output", &["y", "p"], &|d| conv(d.pad("x", "p", &below)));
    check("two readers", &["y", "r"], &|d| conv(d.pad("x", "p", &below).node("Relu", &["p"], "r", &[])));
    check("another value", &["y"], &|d| {
        conv(d.constant("one", Tensor::scalar(1f32)).constant("pads", sample::ints(&below)).node(
            "Pad",
            &["x", "pads", "one"],
            "p",
            &[],
        ));
    });
    check("a mirror", &["y"], &|d| {
        let mode = [("mode", Attr::Str("reflect".into()))];
        conv(d.constant("pads", sample::ints(&below)).node("Pad", &["x", "pads"], "p", &mode));
    });
    check("a cut", &["y"], &|d| conv(d.pad("x", "p", &around([0, 0, 1, -1]))));
    check("images", &["y"], &|d| conv(d.pad("x", "p", &[1, 0, 0, 0, 0, 0, 1, 1])));
    check("channels", &["y"], &|d| {
        d.weights("w", &[24, 18, 3, 3]).pad("x", "p", &[0, 0, 0, 0, 0, 2, 1, 1]).node("Conv", &["p", "w"], "y", &[]);
    });
    check("the weights", &["y"], &|d| {
        d.weights("v", &[1, 16, 20, 20]).pad("x", "p", &below).node("Conv", &["v", "p"], "y", &[]);
    });
    check("the residual", &["y"], &|d| {
        d.weights("w", &[16, 16, 1, 1]).pad("x", "p", &below).node("Conv", &["p", "w"], "c", &[]);
        d.node("Add", &["c", "p"], "y", &[]);
    });
    check("a maximum", &["y"], &|d| {
        d.pad("x", "p", &below).node("MaxPool", &["p"], "y", &[("kernel_shape", ints(&[3; 2]))]);
    });
    check("an average over what is there", &["y"], &|d| {
        let attrs = [("kernel_shape", ints(&[3; 2])), ("pads", ints(&[1; 4]))];
        d.pad("x", "p", &below).node("AveragePool", &["p"], "y", &attrs);
    });
    check("a dilated average", &["y"], &|d| {
        let attrs = [("kernel_shape", ints(&[2; 2])), ("dilations", ints(&[2; 2]))];
        d.pad("x", "p", &below).node("AveragePool", &["p"], "y", &attrs);
    });
    check("an average wholly outside", &["y"], &|d| {
        d.pad("x", "p", &around([2, 3, 0, 0])).node("AveragePool", &["p"], "y", &[("kernel_shape", ints(&[2; 2]))]);
    });
    check("transposed", &["y"], &|d| {
        d.weights("w", &[16, 8, 3, 3]).pad("x", "p", &below).node("ConvTranspose", &["p", "w"], "y", &[]);
    });
    check("a window that gives another size", &["y"], &|d| {
        let attrs = [("strides", ints(&[2; 2])), ("ceil_mode", Attr::Int(1))];
        d.weights("w", &[24, 16, 3, 3]).pad("x", "p", &below).node("Conv", &["p", "w"], "c", &attrs);
        d.node("Relu", &["c"], "y", &[]);
    });
    check("an average in the margin", &["y"], &|d| {
        let attrs = [("kernel_shape", ints(&[2; 2])), ("strides", ints(&[2; 2])), ("ceil_mode", Attr::Int(1))];
        d.pad("x", "p", &around([0, 0, 0, 1])).node("AveragePool", &["p"], "y", &attrs);
    });
    // Of square channels, so that the map is as good as weights.
    let mut d = Draft::new(&[16, 16, 9, 8]);
    d.pad("x", "p", &below).node("Conv", &["p", "p"], "y", &[("pads", ints(&[1; 4]))]);
    assert_eq!(d.run("data and weights", &["y"], true).1, 1);
    // Three axes have no kernel to put them into.
    let mut d = Draft::new(&[1, 4, 5, 6, 5]);
    d.weights("w", &[8, 4, 3, 3, 3]).pad("x", "p", &[0, 0, 0, 0, 0, 0, 0, 1, 1, 1]).node("Conv", &["p", "w"], "y", &[]);
    assert_eq!(d.run("three axes", &["y"], true).1, 1);
}
