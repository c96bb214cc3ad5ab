//! `conformance`: many small cases in one process, for the project's own operator conformance test. A panic is a result here.

use super::args::ConformanceArgs;
use super::{FINE, load, output, run};
use crate::engine::Path;
use crate::error::{Error, Result};
use crate::ir::{Bindings, Graph};
use crate::tensor::{Container, DType, Tensor, npz};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

/// Runs every case on both paths; prints one JSON line per case and path.
///
/// # Errors
/// If the folder cannot be read.
pub fn run(args: &ConformanceArgs) -> Result<u8> {
    let cannot = |e: std::io::Error| Error::input(format!("cannot be read: {e}")).in_file(&args.folder);
    let mut cases: Vec<PathBuf> =
        std::fs::read_dir(&args.folder).map_err(cannot)?.filter_map(|e| Some(e.ok()?.path())).collect();
    cases.retain(|c| c.join("model.onnx").exists());
    cases.sort();
    for case in cases {
        for path in [Path::Reference, Path::Optimized] {
            let outcome = match catch_unwind(AssertUnwindSafe(|| one(&case, path, args.threads))) {
                Ok(Ok(())) => "ok".to_string(),
                Ok(Err(e)) => format!("error: {e}"),
                Err(_) => "panic".to_string(),
            };
            let name = case.file_name().map(|n| n.to_string_lossy().into_owned());
            let line = serde_json::json!({ "case": name, "path": path.name(), "outcome": outcome });
            output::print(format!("{line}\n").as_bytes())?;
        }
    }
    Ok(FINE)
}

fn one(case: &std::path::Path, path: Path, threads: usize) -> Result<()> {
    let file = case.join("model.onnx");
    let given = read(&case.join("inputs.npz"))?;
    let loaded = load::load(&file.to_string_lossy())?;
    let mut bindings = Bindings::default();
    load::bindings_of(&loaded.spec, &given, &mut bindings);
    let model = load::build(&loaded, &bindings)?;
    let inputs = gathered(&model.graph, given)?;
    let outputs = run::execute(&model, &inputs, &load::plain_options(path, threads)?)?;
    let mut flat = Vec::new();
    for (name, value) in run::output_names(&model.graph).iter().zip(outputs) {
        flatten(name, value, &mut flat)?;
    }
    npz::write(&case.join(format!("{}.npz", path.name())), flat.iter().map(|(n, t)| (n.as_str(), t))).map(drop)
}

/// Slashes in names are escaped in these archives, whose members NumPy would otherwise put in folders.
fn read(file: &std::path::Path) -> Result<Vec<(String, Tensor)>> {
    Ok(npz::read(file)?.into_iter().map(|(name, t)| (name.replace("%2F", "/"), t)).collect())
}

/// Sequences are stored as `name[0]`, `name[1]` …; an empty optional leaves no trace.
fn flatten(name: &str, value: Tensor, out: &mut Vec<(String, Tensor)>) -> Result<()> {
    if value.is_absent() {
        return Ok(());
    }
    if let Ok(elements) = value.sequence() {
        for (i, t) in elements.iter().enumerate() {
            flatten(&format!("{name}[{i}]"), t.clone(), out)?;
        }
        return Ok(());
    }
    out.push((name.replace('/', "%2F"), value));
    Ok(())
}

/// Inputs in the graph's order, sequences put together again.
fn gathered(graph: &Graph, given: Vec<(String, Tensor)>) -> Result<Vec<Tensor>> {
    let mut plain = given;
    for &id in graph.inputs() {
        let value = graph.value(id);
        if value.fact.container == Container::Tensor || plain.iter().any(|(n, _)| *n == value.name) {
            continue;
        }
        let dtype = value.fact.dtype.unwrap_or(DType::F32);
        let start = format!("{}[", value.name);
        let (elements, rest): (Vec<_>, Vec<_>) = plain.into_iter().partition(|(n, _)| n.starts_with(&start));
        plain = rest;
        let elements: Vec<Tensor> = elements.into_iter().map(|(_, t)| t).collect();
        let absent = elements.is_empty() && value.fact.container == Container::Optional;
        let whole = if absent { Tensor::absent(dtype) } else { Tensor::from_sequence(dtype, elements) };
        plain.push((value.name.clone(), whole));
    }
    run::ordered(graph, plain)
}
