//! `conformance`: many small cases in one process, for the project's own operator conformance test. A panic is a result here.

use super::args::ConformanceArgs;
use super::{FINE, load, output, run};
use crate::engine::Path;
use crate::error::{Error, Result};
use crate::ir::Bindings;
use crate::tensor::npz;
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
    let given = npz::read(&case.join("inputs.npz"))?;
    let loaded = load::load(&file.to_string_lossy())?;
    let mut bindings = Bindings::default();
    load::bindings_of(&loaded.spec, &given, &mut bindings);
    let model = load::build(&loaded, &bindings)?;
    let inputs = run::ordered(&model.graph, given)?;
    let outputs = run::execute(&model, &inputs, &load::options(path, Some(threads))?)?;
    let names = run::output_names(&model.graph);
    npz::write(&case.join(format!("{}.npz", path.name())), names.iter().map(String::as_str).zip(&outputs)).map(drop)
}
