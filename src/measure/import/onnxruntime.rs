//! ONNX Runtime's profiling JSON (`SessionOptions.enable_profiling`): events of sessions and nodes, times in microseconds.

use super::{File, Import, Row, dims, gathered, number, text};
use crate::error::{Error, Result};
use serde_json::Value;

pub(super) fn read(file: &File) -> Option<Result<Import>> {
    let events = file.json.as_ref()?.as_array()?;
    let is_ours = |e: &Value| matches!(e["cat"].as_str(), Some("Session" | "Node")) && e.get("dur").is_some();
    if !events.iter().take(20).any(is_ours) {
        return None;
    }
    Some(import(events))
}

fn import(events: &[Value]) -> Result<Import> {
    let seconds = |e: &Value| number(&e["dur"]).unwrap_or(0.0) / 1e6;
    let walls: Vec<f64> = events.iter().filter(|e| e["name"] == "model_run").map(seconds).collect();
    // Older versions write a fence before and after the kernel's own time.
    let nodes: Vec<&Value> = events
        .iter()
        .filter(|e| e["cat"] == "Node" && e["name"].as_str().is_some_and(|n| n.ends_with("_kernel_time")))
        .collect();
    if nodes.is_empty() {
        return Err(Error::input("holds no kernel times")
            .hint("run the model with profiling on, then end_profiling(): the file is complete only after that"));
    }
    let event = |e: &&Value| {
        let name = text(&e["name"]);
        let name = name.strip_suffix("_kernel_time").unwrap_or(&name).to_string();
        let args = &e["args"];
        let key = format!("{} {name}", text(&args["node_index"]));
        let shapes = |v: &Value| -> Vec<Vec<usize>> {
            v.as_array().into_iter().flatten().filter_map(|t| dims(t.as_object()?.values().next()?)).collect()
        };
        let row = Row {
            name,
            op: text(&args["op_name"]),
            kernel: text(&args["provider"]).replace("ExecutionProvider", ""),
            seconds: 0.0,
            output: shapes(&args["output_type_shape"]).into_iter().next(),
            inputs: shapes(&args["input_type_shape"]),
            ..Row::default()
        };
        (key, seconds(e), row)
    };
    let runs = walls.len().max(1);
    let rows = gathered(nodes.iter().map(event), runs);
    // The first run allocates.
    let walls_s = if walls.len() > 2 { walls[1..].to_vec() } else { walls };
    Ok(Import { runtime: "ONNX Runtime", runs, rows, walls_s, ..Import::default() })
}
