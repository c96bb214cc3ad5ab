//! Every built-in architecture against integers that others counted: `fixtures/published.csv`, to the last digit.

use madd_prof::ir::{Bindings, Model, Node, build};
use madd_prof::ops::spec::{Attr, ModelSpec};
use madd_prof::zoo;
use std::collections::{HashMap, HashSet};

#[derive(Debug, PartialEq)]
struct Count {
    params: u64,
    madds: u64,
    dw_madds: u64,
    bn_statistics: u64,
}

fn facts() -> Vec<(String, Count)> {
    let mut reader = csv::Reader::from_reader(include_str!("../fixtures/published.csv").as_bytes());
    let row = |r: csv::StringRecord| {
        let n = |i: usize| r[i].parse().unwrap();
        (r[1].to_string(), Count { params: n(2), madds: n(3), dw_madds: n(4), bn_statistics: n(5) })
    };
    reader.records().map(|r| row(r.unwrap())).collect()
}

/// Learned elements and running statistics, read off the definition's constants without the analysis.
fn stored(spec: &ModelSpec) -> (u64, u64) {
    let (mut learned, mut statistics) = (0, 0);
    for (name, tensor) in &spec.graph.initializers {
        let float = tensor.dtype() == madd_prof::tensor::DType::F32 && tensor.rank() > 0;
        match name.rsplit('.').next() {
            Some("running_mean" | "running_var") => statistics += tensor.len() as u64,
            Some(last) if float && !matches!(last, "inv_freq" | "attn_mask") => learned += tensor.len() as u64,
            _ => {}
        }
    }
    (learned, statistics)
}

/// Whether a node convolves each channel on its own: by the sizes of its weights, stored or computed.
fn depthwise(spec: &ModelSpec, model: &Model) -> HashSet<String> {
    let groups: HashMap<&str, i64> = spec.graph.nodes.iter().map(|n| (n.name.as_str(), group(n))).collect();
    let is = |n: &&Node| {
        let weight = || model.graph.value(n.inputs[1].unwrap()).fact.shape.concrete().unwrap();
        n.op_type == "Conv" && groups[n.name.as_str()] > 1 && weight()[1] == 1
    };
    model.graph.nodes().iter().filter(is).map(|n| n.name.clone()).collect()
}

fn group(n: &madd_prof::ops::spec::NodeSpec) -> i64 {
    match n.attrs.get("group") {
        Some(Attr::Int(g)) => *g,
        _ => 1,
    }
}

fn analysed(name: &str, spec: &ModelSpec) -> Count {
    let model = build(spec, &Bindings::default()).unwrap_or_else(|e| panic!("{name}: {e}"));
    let analysis = madd_prof::analysis::analyze(&model.graph);
    let totals = analysis.totals;
    assert_eq!((totals.unknown_nodes, totals.unknown_traffic), (0, 0), "{name}");
    let depthwise = depthwise(spec, &model);
    let dw = analysis.rows.iter().filter(|r| depthwise.contains(&r.name));
    Count {
        params: totals.params,
        madds: totals.work.madds,
        dw_madds: dw.map(|r| r.work().unwrap().madds).sum(),
        bn_statistics: totals.statistics,
    }
}

#[test]
fn every_count_hits_the_published_integer() {
    for (name, want) in facts() {
        let spec = zoo::build(&name).unwrap();
        assert_eq!(stored(&spec), (want.params, want.bn_statistics), "{name}");
        assert_eq!(analysed(&name, &spec), want, "{name}");
    }
}

/// Weights by name, with their numbers, as a width of a slimmable network holds them.
fn tensors(name: &str) -> HashMap<String, (Vec<usize>, Vec<f32>)> {
    let spec = zoo::build(name).unwrap();
    let float = |t: &madd_prof::tensor::Tensor| t.dtype() == madd_prof::tensor::DType::F32;
    let all = spec.graph.initializers.into_iter().filter(|(_, t)| float(t));
    all.map(|(n, t)| (n, (t.dims().to_vec(), t.view::<f32>().unwrap().into_owned()))).collect()
}

#[test]
fn a_slimmable_networks_widths_are_leading_parts_of_one_set_of_weights() {
    // Published: the widest network, and a BatchNormalization for every other switch.
    for (name, params) in [("s_mobilenet_v1", 4_264_808), ("s_mobilenet_v2", 3_556_456), ("s_resnet50", 25_636_712)] {
        assert_eq!(zoo::whole(name).unwrap().unwrap().params, params, "{name}");
    }
    // Universally: scale and shift are shared, only statistics are each width's own.
    let whole = zoo::whole("us_mobilenet_v1").unwrap().unwrap();
    assert_eq!((whole.params, whole.statistics), (4_231_976, 5472 + 10_944 + 16_416 + 21_888));
    for base in ["mobilenet_v1", "mobilenet_v2"] {
        let (wide, narrow) = (tensors(&format!("s_{base}")), tensors(&format!("s_{base}@width=0.5")));
        let mut parts = 0;
        for (name, (dims, values)) in &narrow {
            let Some((full, all)) = wide.get(name) else {
                assert!(name.contains(".bn.1."), "{name}");
                continue;
            };
            if full == dims {
                assert_eq!(all, values, "{name}");
                continue;
            }
            parts += 1;
            // Of a [out, in, ...] tensor: the first rows, and of each the first columns.
            let (row, part) = (all.len() / full[0], values.len() / dims[0]);
            for o in 0..dims[0] {
                assert_eq!(all[o * row..][..part], values[o * part..][..part], "{name}");
            }
        }
        assert!(parts > 20, "{base}: {parts}");
    }
}

#[test]
fn definitions_carry_the_same_integers_as_the_fixture() {
    let facts: HashMap<String, Count> = facts().into_iter().collect();
    let mut carried = 0;
    for info in zoo::list().unwrap() {
        for exact in zoo::show(info.name).unwrap().exact {
            let zoo::Exact { at, params, madds, dw_madds, bn_statistics } = exact;
            assert_eq!(facts.get(&at), Some(&Count { params, madds, dw_madds, bn_statistics }), "{at}");
            assert_eq!(zoo::show(&at).unwrap().name, at, "not the shortest name");
            carried += 1;
        }
    }
    assert_eq!(carried, facts.len());
}

#[test]
fn published_figures_lie_near_the_counts_unless_a_note_says_why() {
    let facts: HashMap<String, Count> = facts().into_iter().collect();
    for info in zoo::list().unwrap() {
        for p in zoo::show(info.name).unwrap().published {
            let Some(count) = facts.get(&p.at).filter(|_| p.note.is_none()) else { continue };
            let near = |printed: f64, exact: u64| (printed * 1e6 - exact as f64).abs() <= 0.04 * exact as f64;
            assert!(p.params_m.is_none_or(|v| near(v, count.params)), "{}: {:?}", p.at, p.params_m);
            assert!(p.madds_m.is_none_or(|v| near(v, count.madds)), "{}: {:?}", p.at, p.madds_m);
        }
    }
}

#[test]
fn every_model_builds_and_shows_at_its_defaults() {
    for info in zoo::list().unwrap() {
        let shown = zoo::show(info.name).unwrap();
        assert_eq!(shown.name, info.name);
        assert!(!shown.stages.is_empty() && !shown.source.is_empty());
        assert!(!zoo::build(info.name).unwrap().graph.nodes.is_empty());
    }
}

#[test]
fn wrong_knobs_name_the_right_ones() {
    let e = zoo::build("mobilenet_v2@widht=0.5").unwrap_err();
    assert!(e.hint_text().unwrap().contains("width"), "{e}");
    let e = zoo::build("mobilenet_v2@width=x").unwrap_err();
    assert!(e.hint_text().unwrap().contains("0.05"), "{e}");
    assert!(zoo::build("mobilenet_v2@res").is_err());
    assert!(zoo::build("mobilenet_v2@res=64,res=96").is_err());
    assert!(zoo::build("mobilenet_v2@width=nan").is_err());
    assert_eq!(zoo::show("MobileNet-V2@res=224, width=0.50").unwrap().name, "mobilenet_v2@width=0.5");
}

#[test]
fn names_of_values_nodes_and_constants_are_unique() {
    for info in zoo::list().unwrap() {
        let graph = zoo::build(info.name).unwrap().graph;
        let mut seen = std::collections::HashSet::new();
        for name in graph.nodes.iter().flat_map(|n| n.outputs.iter().chain([&n.name])) {
            assert!(seen.insert(name), "{}: {name}", info.name);
        }
        for (name, _) in &graph.initializers {
            assert!(seen.insert(name), "{}: {name}", info.name);
        }
    }
}
