//! The Rosetta lens against what other counters really printed: `fixtures/lens/figures.json` for small exports of both torch exporters,
//! `zoo.json` for networks that are built in too. `fixtures/counters.py` runs the tools and writes both.

use madd_prof::analysis::{Analysis, analyze};
use madd_prof::ir::{Bindings, Model, build};
use madd_prof::lens::{Lens, look, names};
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/lens")
}

fn recorded(name: &str) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(folder().join(name)).unwrap()).unwrap()
}

fn file(name: &str) -> (Model, Analysis) {
    let spec = madd_prof::onnx::read(&folder().join(name)).unwrap();
    let model = build(&spec, &Bindings::default()).unwrap();
    let analysis = analyze(&model.graph);
    (model, analysis)
}

fn balanced(l: &Lens) {
    let lines: i64 = l.lines.iter().map(|line| line.amount).sum();
    let Some(figure) = l.figure else { return assert!(!l.notes.is_empty(), "{} says nothing", l.tool) };
    assert_eq!(l.ours_madds as i64 + lines, figure as i64, "{}: the books do not balance", l.tool);
    assert!(l.lines.iter().all(|line| line.amount != 0 && !line.why.is_empty()), "{}: an empty line", l.tool);
}

/// Compares every recorded figure with what is said; gives the number of comparisons and of equal ones.
fn compare(
    true_figures: &serde_json::Value,
    said: &[Lens],
    file_tools: Option<&str>,
    tolerance: f64,
    label: &str,
) -> (usize, usize) {
    let (mut all, mut equal) = (0, 0);
    for l in said {
        balanced(l);
        let on_file = matches!(l.tool, "onnx-tool" | "tract");
        let key = match (on_file, file_tools) {
            (true, Some(exporter)) => format!("{}@{exporter}", l.tool),
            (true, None) => continue,
            (false, _) => l.tool.to_string(),
        };
        let name = if l.tool == "tract" { "FMA" } else { l.figure_name };
        // A tool that failed has no figure.
        let Some(want) = true_figures[&key][name].as_u64() else { continue };
        let got = l.figure.unwrap_or_else(|| panic!("{label}: {} is not comparable: {:?}", l.tool, l.notes));
        let gap = got.abs_diff(want) as f64 / (want.max(1)) as f64;
        assert!(gap <= tolerance, "{label}: {} prints {want} {name}, the lens says {got}\n{:#?}", l.tool, l.lines);
        all += 1;
        equal += usize::from(got == want);
    }
    (all, equal)
}

#[test]
fn small_exports_are_counted_as_the_tools_count_them() {
    let doc = recorded("figures.json");
    let (mut all, mut equal) = (0, 0);
    for (name, figures) in doc["figures"].as_object().unwrap() {
        for (exporter, file_name) in
            [("torchscript", format!("{name}.onnx")), ("dynamo", format!("{name}_dynamo.onnx"))]
        {
            let (model, analysis) = file(&file_name);
            let said = look("all", &model, &analysis).unwrap();
            let (a, e) = compare(figures, &said, Some(exporter), 1e-3, &file_name);
            all += a;
            equal += e;
        }
    }
    assert!(all >= 260, "only {all} comparisons");
    assert!(equal * 100 >= all * 99, "only {equal} of {all} are equal");
}

#[test]
fn built_in_networks_are_counted_as_the_tools_count_their_models() {
    let doc = recorded("zoo.json");
    for (name, figures) in doc["figures"].as_object().unwrap() {
        let spec = madd_prof::zoo::build(name).unwrap();
        let model = build(&spec, &Bindings::default()).unwrap();
        let analysis = analyze(&model.graph);
        let said = look("all", &model, &analysis).unwrap();
        let (all, _) = compare(figures, &said, None, 1e-3, name);
        assert!(all >= 9, "{name}: only {all} comparisons");
    }
}

#[test]
fn tools_are_chosen_by_name_and_each_once() {
    let (model, analysis) = file("deconv.onnx");
    let said = look("thop, fvcore,thop", &model, &analysis).unwrap();
    assert_eq!(said.iter().map(|l| l.tool).collect::<Vec<_>>(), ["thop", "fvcore"]);
    assert!(look("nobody", &model, &analysis).unwrap_err().to_string().contains("nobody"));
    assert_eq!(
        look("all", &model, &analysis).unwrap().iter().map(|l| l.tool).collect::<std::collections::BTreeSet<_>>().len(),
        names().len()
    );
}

#[test]
fn folded_batch_norms_are_told_from_biases() {
    let (model, analysis) = file("conv.onnx");
    let said = look("ptflops-aten,thop", &model, &analysis).unwrap();
    let line = |l: &Lens, part: &str| l.lines.iter().find(|x| x.why.contains(part)).map(|x| x.nodes);
    assert_eq!(line(&said[1], "BatchNorm folded"), Some(2));
    assert_eq!(
        line(&said[0], "bias of convolutions"),
        Some(2),
        "only the convolutions of the excitation have biases of their own"
    );
}
