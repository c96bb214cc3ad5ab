//! `run`: one execution on given inputs.

use super::args::RunArgs;
use super::{FINE, load, note, progress::Progress};
use crate::analysis;
use crate::engine::Session;
use crate::error::{Error, Result};
use crate::ir::{Graph, Model};
use crate::tensor::{DType, Tensor, npz};
use std::sync::Arc;

/// Runs once and writes the outputs.
///
/// # Errors
/// If the model or the inputs cannot be read, an input is missing or does not fit, or a kernel fails.
pub fn run(args: &RunArgs) -> Result<u8> {
    let quiet = args.model.quiet;
    let (_, model, given) = load::model_and_inputs(&args.model, args.input.as_deref())?;
    let inputs = ordered(&model.graph, given.unwrap_or_default())?;
    for text in &model.notes {
        note(quiet, text);
    }
    load::check_memory(&analysis::analyze(&model.graph), 1)?;
    let progress = Progress::new(&format!("running on the {} path", args.path.path().name()), quiet);
    progress.spin();
    let options = load::options(args.path.path(), &args.engine, quiet)?;
    let outputs = execute(&model, &inputs, &options)?;
    load::keep(&options, quiet);
    drop(progress);
    let names = output_names(&model.graph);
    let pairs = names.iter().map(String::as_str).zip(&outputs);
    for text in npz::write(&args.output, pairs)? {
        note(quiet, &text);
    }
    Ok(FINE)
}

/// Prepares and runs.
///
/// # Errors
/// If preparation or a kernel fails.
pub fn execute(model: &Model, inputs: &[Tensor], options: &crate::engine::Options) -> Result<Vec<Tensor>> {
    let graph = Arc::new(model.graph.clone());
    Session::new(&graph, options)?.run(inputs)
}

/// Names of the graph's outputs.
pub fn output_names(graph: &Graph) -> Vec<String> {
    graph.outputs().iter().map(|&v| graph.value(v).name.clone()).collect()
}

/// The given arrays in the order of the graph's inputs.
///
/// # Errors
/// If one is missing or belongs to no input.
pub fn ordered(graph: &Graph, given: Vec<(String, Tensor)>) -> Result<Vec<Tensor>> {
    let mut given: std::collections::BTreeMap<String, Tensor> = given.into_iter().collect();
    let mut inputs = Vec::new();
    let mut missing = Vec::new();
    for &id in graph.inputs() {
        let value = graph.value(id);
        match given.remove(&value.name) {
            Some(t) => inputs.push(fitted(t, value.fact.dtype)?),
            None => missing.push(format!("'{}' ({})", value.name, value.fact)),
        }
    }
    let known: Vec<&str> = graph.inputs().iter().map(|&v| graph.value(v).name.as_str()).collect();
    if !missing.is_empty() {
        return Err(Error::input(format!("no array is given for input {}", missing.join(", ")))
            .hint("--input takes an .npz archive with an array per graph input: numpy.savez(path, **{name: array})"));
    }
    if let Some(name) = given.keys().next() {
        return Err(Error::input(format!("the array '{name}' belongs to no input of the model"))
            .hint(format!("its inputs are: {}", known.join(", "))));
    }
    Ok(inputs)
}

/// Types that NumPy lacks come in wider ones and are narrowed to what the model declares: 2- and 4-bit integers as bytes, narrow
/// floats as `float32`.
fn fitted(t: Tensor, want: Option<DType>) -> Result<Tensor> {
    match (t.dtype(), want) {
        (DType::F32, Some(d)) if d.is_narrow_float() => t.narrowed(d, false),
        (DType::I8, Some(d @ (DType::I4 | DType::I2))) | (DType::U8, Some(d @ (DType::U4 | DType::U2))) => {
            let (bits, per) = (d.bits(), 8 / d.bits());
            let mask = (1i64 << bits) - 1;
            let values = t.to_i64s()?;
            let pack = |c: &[i64]| c.iter().enumerate().fold(0, |byte, (i, v)| byte | ((v & mask) as u8) << (i * bits));
            Tensor::from_vec_as(d, values.chunks(per).map(pack).collect::<Vec<u8>>(), t.dims())
        }
        _ => Ok(t),
    }
}
