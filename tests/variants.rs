//! Variants: the classic layer examples to the last digit, every variant on layers and networks with its interface kept, both kernel
//! paths equal on every one, and models that come back from a file as they were written.

use madd_prof::analysis::{Totals, analyze};
use madd_prof::engine::{Options, Pack, Path, Session};
use madd_prof::ir::{Bindings, interp};
use madd_prof::onnx;
use madd_prof::ops::spec::{Attr, ModelSpec};
use madd_prof::tensor::Tensor;
use madd_prof::variants::layer::LayerSpec;
use madd_prof::variants::{Choice, Make, Policy, Ranges, Reason, Rewritten, VARIANTS, apply, watched};
use madd_prof::zoo;
use std::sync::Arc;

fn layer(text: &str) -> ModelSpec {
    LayerSpec::parse(text).unwrap().model().unwrap()
}

fn totals(spec: &ModelSpec) -> Totals {
    analyze(&madd_prof::ir::build(spec, &Bindings::default()).unwrap().graph).totals
}

fn forced() -> Policy {
    Policy { force: true, ..Policy::default() }
}

fn rewrite(spec: &ModelSpec, variants: &str, policy: &Policy) -> Rewritten {
    let choices: Vec<Choice> = variants.split(',').map(|v| Choice::parse(v).unwrap()).collect();
    apply(spec, &Bindings::default(), &choices, policy).unwrap()
}

/// Params and MAdds of a layer before and after a variant.
fn costs(text: &str, variant: &str) -> [(u64, u64); 2] {
    let spec = layer(text);
    let after = rewrite(&spec, variant, &forced());
    assert_eq!(after.steps[0].changes.len(), 1, "{text} as {variant}: {:?}", after.steps[0].left);
    [totals(&spec), analyze(&after.model.graph).totals].map(|t| (t.params, t.work.madds))
}

#[test]
fn the_classic_examples_are_exact() {
    // At one position, parameters and multiply-adds are the same number.
    let one = |layer: &str, variant: &str| {
        let [a, b] = costs(&format!("{layer} @1x1"), variant);
        assert_eq!((a.0, b.0), (a.1, b.1), "{layer} as {variant}");
        (a.0, b.0)
    };
    assert_eq!(one("conv 3x3 16->32", "separable"), (4608, 144 + 512));
    let (five, two) = one("conv 5x5 64->64", "stacked-3x3");
    assert_eq!(two * 25, five * 18);
    let (seven, three) = one("conv 7x7 48->48", "stacked-3x3");
    assert_eq!(three * 49, seven * 27);
    // Two 3x3 for a 5x5 cost more where channels grow.
    assert_eq!(one("conv 5x5 16->32", "stacked-3x3"), (12_800, 13_824));
    let (five, pair) = one("conv 5x5 64->64", "asymmetric");
    assert_eq!(pair * 5, five * 2);
    assert_eq!(one("conv 3x3 256->256", "bottleneck"), (589_824, 69_632));
    // A DenseNet layer of growth 32 behind 256 channels, without and with its bottleneck.
    assert_eq!(one("conv 3x3 256->288", "dense"), (663_552, 9 * 256 * 32));
    assert_eq!(one("conv 3x3 256->288", "dense-bottleneck"), (663_552, 4 * 32 * 256 + 36 * 32 * 32));
    // Ghost with ratio 2 and a cheap 3x3: k²·Ci·m + d²·m.
    assert_eq!(one("conv 3x3 64->128", "ghost"), (73_728, 9 * 64 * 64 + 9 * 64));
    assert_eq!(one("conv 3x3 64->128", "ghost@ratio=4"), (73_728, 9 * 64 * 32 + 9 * 32 * 3));
    assert_eq!(one("conv 1x1 64->128", "grouped@groups=8"), (8192, 1024));
    // Low rank: r·(k²·Ci + Co) with the largest r under half.
    assert_eq!(one("conv 3x3 64->64", "low-rank"), (36_864, 28 * (576 + 64)));
}

#[test]
fn what_is_added_is_counted_too() {
    let params = |layer: &str, variant: &str| {
        let [a, b] = costs(layer, variant);
        b.0 - a.0
    };
    assert_eq!(params("conv 3x3 512->512 @8x8", "deformable"), 82_962);
    assert_eq!(params("conv 3x3 512->512 @8x8", "deformable-v2"), 124_443);
    // 2C²/r + C/r + C.
    assert_eq!(params("conv 3x3 64->64 @8x8", "se"), 2 * 64 * 64 / 16 + 64 / 16 + 64);
    let [a, b] = costs("conv 3x3 64->64 @8x8", "se");
    assert_eq!(b.1 - a.1, 2 * 64 * 64 / 16);
    // Strides and maps: depthwise and pointwise both on the output map.
    let [_, b] = costs("conv 3x3 32->64 @56x56 s2", "separable");
    assert_eq!(b.1, 28 * 28 * (9 * 32 + 32 * 64));
    // The first of three carries the stride, so the others run on the small map.
    let [_, b] = costs("conv 7x7 3->64 @224x224 s2", "stacked-3x3");
    assert_eq!(b.1, 112 * 112 * (9 * 3 * 64 + 2 * 9 * 64 * 64));
}

fn inputs_of(r: &madd_prof::ir::Model) -> Vec<Tensor> {
    let g = &r.graph;
    g.inputs().iter().enumerate().map(|(i, &v)| interp::made_up_input(g.value(v), i as u64 + 1).unwrap()).collect()
}

/// Runs both paths and compares; gives the reference result.
fn both_paths(what: &str, model: &madd_prof::ir::Model, tolerance: f32) -> Vec<f32> {
    let graph = Arc::new(model.graph.clone());
    let inputs = inputs_of(model);
    let run = |path| {
        let mut session = Session::new(&graph, &Options::new(path, 2)).unwrap();
        session.run(&inputs).unwrap().remove(0).widened().unwrap().view::<f32>().unwrap().into_owned()
    };
    let (a, b) = (run(Path::Reference), run(Path::Optimized));
    let largest = a.iter().fold(0f32, |m, v| m.max(v.abs()));
    assert!(largest > 0.0 && largest.is_finite(), "{what}: largest result {largest}");
    for (x, y) in a.iter().zip(&b) {
        assert!((x - y).abs() <= tolerance * largest, "{what}: {x} and {y} (largest {largest})");
    }
    a
}

fn ranges(spec: &ModelSpec) -> Ranges {
    let (names, watched) = watched(spec);
    let model = madd_prof::ir::build(&watched, &Bindings::default()).unwrap();
    let mut session = Session::new(&Arc::new(model.graph.clone()), &Options::new(Path::Optimized, 2)).unwrap();
    let seen = session.run(&inputs_of(&model)).unwrap();
    let range = |t: &Tensor| {
        let v = t.view::<f32>().unwrap();
        v.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(l, h), x| (l.min(*x), h.max(*x)))
    };
    names.into_iter().zip(seen.iter().map(range)).collect()
}

#[test]
fn every_variant_of_a_layer_runs_alike_on_both_paths() {
    for text in ["conv 3x3 32->48 @12x10 bias", "conv 5x5 16->32 @11x11 s2", "pw 32->64 @9x9"] {
        let spec = layer(text);
        let policy = Policy { force: true, ranges: ranges(&spec) };
        let mut fitting = 0;
        for entry in VARIANTS {
            let r = rewrite(&spec, entry.name, &policy);
            if r.steps[0].changes.is_empty() {
                assert!(!r.steps[0].left.is_empty(), "{text} as {}: silence", entry.name);
                continue;
            }
            fitting += 1;
            // A quantum of eight bits is the largest step between paths.
            let tolerance = match entry.name {
                "int8" => 2e-2,
                "fp16" => 5e-3,
                _ => 1e-4,
            };
            both_paths(&format!("{text} as {}", entry.name), &r.model, tolerance);
        }
        assert!(fitting >= 9, "{text}: {fitting} variants");
    }
}

#[test]
fn variants_that_keep_what_was_learned_stay_near() {
    let spec = layer("conv 3x3 32->32 @10x10 bias");
    let policy = Policy { force: true, ranges: ranges(&spec) };
    let original = rewrite(&spec, "bf16", &Policy::default());
    let plain = both_paths("plain", &madd_prof::ir::build(&spec, &Bindings::default()).unwrap(), 1e-4);
    let norm = |v: &[f32]| v.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    for (variant, most) in [
        ("fp16", 2e-3),
        ("bf16", 2e-2),
        ("bf16@activations=1", 2e-2),
        ("int8", 2e-2),
        ("low-rank@share=1", 0.5),
        ("sparse-2-4", 0.6),
    ] {
        let r = rewrite(&spec, variant, &policy);
        let y = both_paths(variant, &r.model, 2e-2);
        let difference: Vec<f32> = plain.iter().zip(&y).map(|(a, b)| a - b).collect();
        let share = norm(&difference) / norm(&plain);
        assert!(share > 0.0 && share < most, "{variant} is off by {share}");
    }
    assert_eq!(totals(&original.spec).params, totals(&spec).params);
}

#[test]
fn networks_keep_their_interface_and_say_what_was_left_alone() {
    let spec = zoo::build("mobilenet_v2@res=64").unwrap();
    let before = totals(&spec);
    for entry in VARIANTS.iter().filter(|e| e.name != "int8") {
        let r = rewrite(&spec, entry.name, &Policy::default());
        let after = analyze(&r.model.graph).totals;
        let [step] = &r.steps[..] else { panic!("{} steps", r.steps.len()) };
        match entry.name {
            "grouped" => {
                assert!(after.work.madds < before.work.madds && !step.changes.is_empty());
                assert!(step.left.iter().any(|l| l.reason.words().contains("depthwise")), "{:?}", step.left);
            }
            // The only dense convolution with a window is the stem, whose three channels are too few.
            "separable" => {
                assert!(step.changes.is_empty());
                let unwise = |l: &&madd_prof::variants::Left| matches!(l.reason, Reason::Unwise(_));
                assert_eq!(step.left.iter().filter(unwise).count(), 1);
            }
            _ => {}
        }
        if let Make::Block(block) = &entry.make
            && !block.adds
        {
            let saved: u64 = step.changes.iter().map(|c| c.madds.map_or(0, |(a, b)| a - b)).sum();
            assert_eq!(before.work.madds - after.work.madds, saved, "{}: layers and whole differ", entry.name);
        }
    }
}

#[test]
fn slimmed_networks_are_the_networks_of_that_width() {
    // Width by cutting equals width by building, to the last digit: channels are rounded alike.
    for (name, width, wide) in [
        ("mobilenet_v1@res=64", 0.5, "mobilenet_v1@res=64,width=0.5"),
        ("mobilenet_v1@res=64", 0.25, "mobilenet_v1@res=64,width=0.25"),
        ("mobilenet_v1@res=64", 0.75, "mobilenet_v1@res=64,width=0.75"),
    ] {
        let r = rewrite(&zoo::build(name).unwrap(), &format!("slim@width={width}"), &Policy::default());
        let (got, want) = (analyze(&r.model.graph).totals, totals(&zoo::build(wide).unwrap()));
        assert_eq!((got.params, got.work.madds), (want.params, want.work.madds), "{name} at {width}");
    }
    for name in [
        "resnet50@res=64",
        "vgg11_bn@res=64",
        "densenet121@res=64",
        "mobilenet_v3_small@res=64",
        "squeezenet1_1@res=64",
    ] {
        let r = rewrite(&zoo::build(name).unwrap(), "slim", &Policy::default());
        let (before, after) = (totals(&zoo::build(name).unwrap()), analyze(&r.model.graph).totals);
        assert!(after.work.madds * 2 < before.work.madds, "{name}: {} of {}", after.work.madds, before.work.madds);
    }
}

#[test]
fn what_is_not_float32_is_left_alone() {
    let half = rewrite(&zoo::build("mobilenet_v2@res=32").unwrap(), "fp16", &Policy::default());
    for entry in VARIANTS {
        let r = rewrite(&half.spec, entry.name, &Policy::default());
        assert!(r.steps[0].changes.is_empty(), "{} touches half precision: {:?}", entry.name, r.steps[0].changes);
    }
}

#[test]
fn a_reshape_that_takes_zeros_literally_is_slimmed_too() {
    let mut spec = zoo::build("vgg11@res=32").unwrap();
    let flatten = spec.graph.nodes.iter_mut().find(|n| n.op_type == "Flatten").unwrap();
    flatten.op_type = "Reshape".into();
    flatten.attrs = [("allowzero".to_string(), madd_prof::ops::spec::Attr::Int(1))].into();
    flatten.inputs.push("rows".into());
    let rows = totals(&spec_with(&spec, &[1, 512]));
    let r = rewrite(&spec_with(&spec, &[1, 512]), "slim", &Policy::default());
    assert!(analyze(&r.model.graph).totals.params * 3 < rows.params);
}

fn spec_with(spec: &ModelSpec, rows: &[i64]) -> ModelSpec {
    let mut spec = spec.clone();
    spec.graph.initializers.push(("rows".into(), Tensor::from_vec(rows.to_vec(), &[rows.len()]).unwrap()));
    spec
}

/// A model of nodes `(operator, inputs, outputs)` on `x` `[1, 16, 8, 8]`, with seeded weights.
fn graph(nodes: &[(&str, &[&str], &[&str])], weights: &[(&str, &[usize])]) -> ModelSpec {
    let mut spec = layer("conv 1x1 16->16 @8x8");
    let (x, y) = (spec.graph.inputs[0].name.clone(), spec.graph.outputs[0].name.clone());
    let name = |n: &&str| match *n {
        "x" => x.clone(),
        "y" => y.clone(),
        n => n.to_string(),
    };
    let pattern = spec.graph.nodes[0].clone();
    let made = nodes.iter().enumerate().map(|(i, (op, inputs, outputs))| {
        let mut node = pattern.clone();
        (node.name, node.op_type) = (format!("{op}{i}"), op.to_string());
        node.inputs = inputs.iter().map(name).collect();
        node.outputs = outputs.iter().map(name).collect();
        node.attrs.clear();
        if op.starts_with("Max") {
            for a in ["kernel_shape", "strides"] {
                node.attrs.insert(a.into(), Attr::Ints(vec![2, 2]));
            }
        }
        node
    });
    spec.graph.nodes = made.collect();
    spec.graph.value_info.clear();
    spec.graph.initializers =
        weights.iter().map(|(n, dims)| (n.to_string(), madd_prof::ops::sample::floats(dims, 1))).collect();
    spec
}

#[test]
fn places_of_maxima_keep_the_channels_they_count() {
    let spec = graph(
        &[
            ("Conv", &["x", "a"], &["ca"]),
            ("MaxPool", &["ca"], &["p", "i"]),
            ("Conv", &["p", "b"], &["cb"]),
            ("MaxUnpool", &["cb", "i"], &["u"]),
            ("Conv", &["u", "c"], &["cc"]),
            ("Conv", &["cc", "d"], &["y"]),
        ],
        &[("a", &[24, 16, 1, 1]), ("b", &[24, 24, 1, 1]), ("c", &[32, 24, 1, 1]), ("d", &[16, 32, 1, 1])],
    );
    let slim = rewrite(&spec, "slim", &Policy::default());
    let changed: Vec<&str> = slim.steps[0].changes.iter().map(|c| c.node.as_str()).collect();
    assert_eq!(changed, ["Conv4"]);
    both_paths("slimmed around an unpooling", &slim.model, 1e-4);
}

#[test]
fn weights_that_are_read_elsewhere_too_are_not_pruned() {
    let weights: &[(&str, &[usize])] = &[("a", &[16, 16, 1, 1]), ("b", &[16, 16, 1, 1])];
    let spec = graph(
        &[
            ("Conv", &["x", "a"], &["ca"]),
            ("Identity", &["a"], &["again"]),
            ("Conv", &["ca", "again"], &["cb"]),
            ("Conv", &["cb", "b"], &["cc"]),
            ("Conv", &["cc", "b"], &["y"]),
        ],
        weights,
    );
    let pruned = rewrite(&spec, "sparse-2-4", &Policy::default());
    let changed: Vec<&str> = pruned.steps[0].changes.iter().map(|c| c.node.as_str()).collect();
    assert_eq!(changed, ["Conv3", "Conv4"], "{:?}", pruned.steps[0].left);
    assert_eq!(pruned.spec.graph.initializers[0].1.bytes().unwrap(), spec.graph.initializers[0].1.bytes().unwrap());
}

#[test]
fn squeeze_and_excitation_comes_and_goes() {
    let with = zoo::build("mobilenet_v3_small@res=64").unwrap();
    let r = rewrite(&with, "se-off", &Policy::default());
    assert_eq!(r.steps[0].changes.len(), 9);
    let (before, after) = (totals(&with), analyze(&r.model.graph).totals);
    assert!(after.params < before.params);
    // What is put into ResNet-50 is what SE-ResNet-50 has, biases included.
    let r = rewrite(&zoo::build("resnet50@res=64").unwrap(), "se", &Policy::default());
    let (got, want) = (analyze(&r.model.graph).totals, totals(&zoo::build("se_resnet50@res=64").unwrap()));
    assert_eq!(r.steps[0].changes.len(), 16);
    assert_eq!(got.params, want.params);
    // And what is taken out of it again leaves the network as it was.
    let again = rewrite(&r.spec, "se-off", &Policy::default());
    let plain = zoo::build("resnet50@res=64").unwrap();
    assert_eq!(totals(&again.spec), totals(&plain));
    assert_eq!(again.spec.graph.nodes.len(), plain.graph.nodes.len());
}

#[test]
fn combinations_are_written_and_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let spec = zoo::build("resnet18@res=32").unwrap();
    let r = rewrite(&spec, "separable,se,slim@width=0.5", &Policy::default());
    assert!(r.steps.iter().all(|s| !s.changes.is_empty()));
    let file = folder.path().join("x.onnx");
    onnx::write(&r.spec, &file, None).unwrap();
    let back = onnx::read(&file).unwrap();
    assert_eq!(totals(&back), totals(&r.spec));
    assert!(back.metadata.contains(&("madd-prof.variants".to_string(), "separable,se,slim".to_string())));
    assert!(back.metadata.contains(&("zoo".to_string(), "resnet18@res=32".to_string())));
    both_paths("combination", &madd_prof::ir::build(&back, &Bindings::default()).unwrap(), 1e-4);
    // Untouched weights are the very same bytes.
    let light = rewrite(&spec, "separable", &Policy::default());
    let bytes = |s: &ModelSpec, name: &str| {
        s.graph.initializers.iter().find(|(n, _)| n == name).map(|(_, t)| t.bytes().unwrap().to_vec())
    };
    let same = ["conv1.weight", "fc.weight", "fc.bias"].map(|n| (bytes(&spec, n), bytes(&light.spec, n)));
    assert!(same.iter().all(|(a, b)| a.is_some() && a == b));
    assert!(bytes(&light.spec, "layer1.0.conv1.weight").is_none(), "replaced weights are gone");
}

#[test]
fn wrong_names_and_knobs_are_explained() {
    for (text, part) in [
        ("gost", "no variant"),
        ("ghost@ration=2", "no knob"),
        ("ghost@ratio", "knob=value"),
        ("ghost@ratio=1", "whole number from 2"),
        ("ghost@ratio=2.5", "whole number"),
        ("separable@x=1", "has no knobs"),
    ] {
        let e = Choice::parse(text).unwrap_err();
        assert!(e.to_string().contains(part), "{text}: {e}");
        assert!(e.hint_text().is_some(), "{text}");
    }
    assert_eq!(Choice::parse("Dense_Bottleneck@growth=12").unwrap().name(), "dense-bottleneck@growth=12");
    assert_eq!(Choice::parse("ghost@ratio=2").unwrap().name(), "ghost");
}

#[test]
fn layers_are_read_in_every_spelling() {
    for (text, plain) in [
        ("conv 3x3 64->128 @56x56", "conv 3x3 64->128 @56x56"),
        ("Conv 3 64->128 @56 s=2", "conv 3x3 64->128 @56x56 s2"),
        ("conv3x3 64->128@56x56", "conv 3x3 64->128 @56x56"),
        ("Conv2D3x3, 64 -> 128, @ 56 x 56, stride=2, pad 0", ""),
        ("Conv 5×5, 16→32, @28, stride=2, pad=0, groups=2", "conv 5x5 16->32 @28x28 s2 g2 p0"),
        ("dw3 64@56", "conv 3x3 64->64 @56x56 g64"),
        ("conv k=3x1 8 @9 batch=2 dilation=2", "conv 3x1 8->8 @9x9 d2 n2"),
        ("conv2d 7x7 3->64 @224x224 s2", "conv 7x7 3->64 @224x224 s2"),
        ("3x3 64→128 @56x56 d2 g4 bias", "conv 3x3 64->128 @56x56 d2 g4 bias"),
        ("dw 3x3 64 @56x56 s2", "conv 3x3 64->64 @56x56 s2 g64"),
        ("pw 64->128 @28x28", "conv 1x1 64->128 @28x28"),
        ("conv 1x7 192 -> 192 @ 17x17 n=2", "conv 1x7 192->192 @17x17 n2"),
        ("conv 3x3 8->8 @9x9 p0", "conv 3x3 8->8 @9x9 p0"),
    ] {
        let read = LayerSpec::parse(text);
        if plain.is_empty() {
            assert!(read.is_err(), "{text}: 'pad' and its number are one word");
            continue;
        }
        let read = read.unwrap();
        assert_eq!(read.to_string(), plain, "{text}");
        assert_eq!(LayerSpec::parse(plain).unwrap(), read);
        totals(&read.model().unwrap());
    }
    for (text, part) in [
        ("conv 3x3 @56x56", "lacks its channels"),
        ("conv 3x3 64->128", "lacks the size"),
        ("conv 64->128 @56x56", "lacks its kernel"),
        ("conv 3x3 0->128 @56x56", "number of channels"),
        ("conv 3x3 64->128 @56x56 q7", "not understood"),
        ("conv 3x3 64->128 5 @56x56", "'5' is not understood"),
        ("conv 64->128 5 7 @56x56", "'5' is not understood"),
        ("conv 3x3 64->128 @56x56 g3", "do not split"),
        ("conv 9x9 4->4 @3x3 p0", "larger than"),
        ("pw 3x3 4->4 @3x3", "is 1x1"),
        ("conv 3x3 999999->4 @3x3", "number of channels"),
        ("", "lacks"),
    ] {
        let e = LayerSpec::parse(text).unwrap_err();
        assert!(e.to_string().contains(part), "{text}: {e}");
        assert!(e.hint_text().is_some());
    }
}

#[test]
fn widths_run_on_the_packed_weights_of_the_widest_and_give_what_they_give_alone() {
    let slim =
        |width: &str| rewrite(&zoo::build("mobilenet_v2@res=32").unwrap(), &format!("slim@width={width}"), &forced());
    let zoo = |name: &str| zoo::build(name).unwrap();
    for (widest, narrower, own) in [
        // Own normalisations: a factor per channel. At 3×3 and stride 1 transformed weights are shared.
        (
            zoo("s_resnet50@res=32"),
            vec![zoo("s_resnet50@res=32,width=0.75"), zoo("s_resnet50@res=32,width=0.25")],
            0.05,
        ),
        // Any width: blocks of channels cut in half.
        (zoo("us_mobilenet_v2@res=32"), vec![zoo("us_mobilenet_v2@res=32,width=0.45")], 0.15),
        // The original's normalisations, cut: nothing to multiply.
        (zoo("mobilenet_v2@res=32"), vec![slim("0.75").spec], 0.15),
    ] {
        let options = Options { weights: Some(Arc::default()), poison: true, ..Options::new(Path::Optimized, 2) };
        let run = |spec: &ModelSpec, options: &Options| {
            let model = madd_prof::ir::build(spec, &Bindings::default()).unwrap();
            let inputs = inputs_of(&model);
            let mut session = Session::new(&Arc::new(model.graph), options).unwrap();
            let out = session.run(&inputs).unwrap()[0].view::<f32>().unwrap().into_owned();
            (out, session)
        };
        // The sessions stay open: what is shared lives as long as its users.
        let (_, all) = run(&widest, &options);
        let all_bytes = all.packed_bytes().unwrap() as f64;
        let mut open = vec![all];
        for spec in &narrower {
            let (want, alone) = run(spec, &Options { weights: None, pack: Pack::AtOnce, ..options.clone() });
            let (got, shared) = run(spec, &options);
            let error: f64 = got.iter().zip(&want).map(|(g, w)| f64::from(g - w).powi(2)).sum();
            let size: f64 = want.iter().map(|w| f64::from(*w).powi(2)).sum();
            let (alone, added) = (alone.packed_bytes().unwrap() as f64, shared.packed_bytes().unwrap() as f64);
            let name = &spec.graph.name;
            assert!((error / size).sqrt() < 1e-5 && size > 0.0, "{name}: {error} of {size}");
            assert!(
                added < own * all_bytes && added < alone,
                "{name}: {added} bytes beside {all_bytes}, alone {alone}"
            );
            open.push(shared);
        }
    }
}
