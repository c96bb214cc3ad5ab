//! Every built-in architecture against integers that others counted: `fixtures/published.csv`, to the last digit.

use madd_prof::zoo;

/// Learned elements and running statistics, read off the graph's constants by the operators that use them.
fn params(spec: &madd_prof::ops::spec::ModelSpec) -> (u64, u64) {
    let (mut learned, mut statistics) = (0, 0);
    for (name, tensor) in &spec.graph.initializers {
        let uses = spec.graph.nodes.iter().flat_map(|n| {
            n.inputs.iter().enumerate().filter(|(_, i)| *i == name).map(|(k, _)| (n.op_type.as_str(), k))
        });
        let n = tensor.len() as u64;
        let is_setting = |(op, k): (&str, usize)| matches!((op, k), ("Clip" | "Reshape" | "Slice" | "Split", 1..));
        match uses.clone().next() {
            Some(("BatchNormalization", 3 | 4)) => statistics += n,
            Some(first) if !is_setting(first) && tensor.rank() > 0 => learned += n,
            _ => {}
        }
    }
    (learned, statistics)
}

struct Fact {
    name: String,
    params: u64,
    bn_statistics: u64,
}

fn facts() -> Vec<Fact> {
    let text = include_str!("../fixtures/published.csv");
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let rows = reader.records().map(|r| r.unwrap());
    rows.map(|r| Fact { name: r[1].into(), params: r[2].parse().unwrap(), bn_statistics: r[5].parse().unwrap() })
        .collect()
}

#[test]
fn parameters_and_statistics_hit_the_published_integers() {
    for fact in facts() {
        let spec = zoo::build(&fact.name).unwrap();
        assert_eq!(params(&spec), (fact.params, fact.bn_statistics), "{}", fact.name);
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
