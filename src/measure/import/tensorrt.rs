//! TensorRT's `trtexec --exportProfile=FILE`: a list of `{"count"}` and of layers with their average time in milliseconds; or what
//! `--dumpProfile` prints. Names of fused layers list their parts: `conv + relu`, `PWN(a, b)`, `{ForeignNode[first...last]}`. Those of its
//! Myelin compiler do not; `--exportLayerInfo=FILE --profilingVerbosity=detailed`, given as well, says which nodes of the ONNX file they are.

use super::{File, Import, Row, dims, number, text};
use crate::error::Result;
use serde_json::Value;
use std::collections::HashMap;

/// What a layer says about the nodes it came from.
const NODE: &str = "[ONNX Layer: ";
/// What stands above the table of `--dumpProfile`, before the number of runs.
const PRINTED: &str = "=== Profile (";

pub(super) fn read(file: &File) -> Option<Result<Import>> {
    let (runs, times) = match file.json.as_ref().and_then(Value::as_array) {
        Some(list) => exported(list)?,
        None => printed(&file.text)?,
    };
    let described: HashMap<&str, &Value> = file
        .layers
        .iter()
        .flat_map(|l| l["Layers"].as_array().into_iter().flatten())
        .filter_map(|l| Some((l["Name"].as_str()?, l)))
        .collect();
    let row = |(name, seconds): (String, f64)| {
        let about = described.get(name.as_str());
        let op = match op_of(&name) {
            "" => about.and_then(|l| l["LayerType"].as_str()).map_or("", type_of),
            known => known,
        };
        Row {
            op: op.to_string(),
            parts: about.map(|l| nodes_of(&text(&l["Metadata"]))).unwrap_or_default(),
            kernel: about.and_then(|l| l["TacticName"].as_str()).unwrap_or_default().to_string(),
            names: Some(bare(&name)),
            output: about.filter(|_| op != "Reformat").and_then(|l| dims(&l["Outputs"][0]["Dimensions"])),
            seconds,
            name,
            ..Row::default()
        }
    };
    let rows = times.into_iter().map(row).collect();
    Some(Ok(Import { runtime: "TensorRT", runs, rows, ..Import::default() }))
}

/// Runs, and layers with their seconds, of the JSON.
fn exported(list: &[Value]) -> Option<(usize, Vec<(String, f64)>)> {
    let layer = |e: &Value| Some((text(e.get("name")?), number(e.get("averageMs")?).unwrap_or(0.0) / 1e3));
    let times: Vec<_> = list.iter().filter_map(layer).collect();
    let runs = list.iter().find_map(|e| e["count"].as_u64()).unwrap_or(0) as usize;
    (!times.is_empty()).then_some((runs, times))
}

/// The same of what is printed: figures stand behind the name up to version 8.5, before it since; the median came with 8.2.
fn printed(text: &str) -> Option<(usize, Vec<(String, f64)>)> {
    let mut lines = text.lines().skip_while(|l| !l.contains(PRINTED));
    let runs = lines.next()?.split_once(PRINTED)?.1.split(' ').next()?.parse().unwrap_or(0);
    // Every line begins with a time and a level of its own: `[05/08/2024-14:05:14] [I] `.
    let plain = |l: &str| l.split_once("[I]").map_or(l, |(_, rest)| rest).trim().to_string();
    let head = plain(lines.find(|l| l.contains("Layer"))?);
    let (first, figures) = (head.starts_with("Layer"), if head.contains("Median") { 4 } else { 3 });
    let layer = |line: &str| {
        let line = plain(line);
        let cut = |(i, c): (usize, char)| c.is_whitespace().then_some(i);
        let (name, numbers) = if first {
            let mut rest = line.as_str();
            for _ in 0..figures {
                rest = rest[..rest.trim_end().rfind(char::is_whitespace)?].trim_end();
            }
            (rest, &line[rest.len()..])
        } else {
            let mut rest = line.as_str();
            for _ in 0..figures {
                rest = rest[rest.char_indices().find_map(cut)?..].trim_start();
            }
            (rest, &line[..line.len() - rest.len()])
        };
        let numbers: Option<Vec<f64>> = numbers.split_whitespace().map(|n| n.parse().ok()).collect();
        let average = numbers.filter(|n| n.iter().all(|v: &f64| v.is_finite() && *v >= 0.0))?[1];
        (name != "Total").then(|| (name.to_string(), average / 1e3))
    };
    let times: Vec<_> = lines.map_while(layer).collect();
    (!times.is_empty()).then_some((runs, times))
}

/// A name without what it says of tensors, and of layers that the network's file does not name.
fn bare(name: &str) -> String {
    let name = match name.strip_prefix("Reformatting CopyNode for ").and_then(|n| n.split_once(" to ")) {
        Some((_, layer)) => layer,
        None => name,
    };
    let mut out = String::new();
    let mut rest = name;
    while let Some((before, behind)) = rest.split_once("(Unnamed Layer*") {
        out.push_str(before);
        // `(Unnamed Layer* 108) [Shuffle]`: the number is no node's, even where values are named by numbers.
        rest = behind.split_once(')').map_or("", |b| b.1);
        if let Some((_, after)) = rest.strip_prefix(" [").and_then(|r| r.split_once(']')) {
            rest = after;
        }
    }
    out + rest
}

/// Whether a document is what `--exportLayerInfo` writes.
pub(super) fn is_layer_info(json: &Value) -> bool {
    json.get("Layers").is_some_and(Value::is_array)
}

/// The nodes named in a layer's metadata; what stands between them differs by version (a control character, or nothing).
fn nodes_of(metadata: &str) -> Vec<String> {
    let mut starts = metadata.split(NODE).skip(1);
    let one = |part: &str| Some(part.rsplit_once(']')?.0.to_string());
    starts.by_ref().filter_map(one).collect()
}

/// What a layer is, as far as its name says.
fn op_of(name: &str) -> &'static str {
    // What another runtime would call a cast or a copy says for which layer it is; so do shuffles around a layer.
    let around = ["reshape", "squeeze", "unsqueeze", "transpose", "shuffle"];
    let is_around = |n: &str| {
        around.iter().any(|a| n.strip_prefix(a).is_some_and(|n| n.starts_with("_before_") || n.starts_with("_after_")))
    };
    if name.starts_with("Reformatting") || name.ends_with(" copy") || is_around(name) {
        return "Reformat";
    }
    // Myelin names its kernels after the beginnings of what they do.
    if name.contains("_myl") {
        return match name {
            n if n.contains("_mha_") => "Attention",
            n if n.contains("MaxSubExp") => "Softmax",
            n if n.contains("MatMul") || n.contains("__myl_Fc") => "MatMul",
            n if n.starts_with("__myl_Move") || n.starts_with("__myl_Repl") => "Reformat",
            _ => "",
        };
    }
    [("ForeignNode", "Myelin"), ("PWN(", "PointWise")].iter().find(|(part, _)| name.contains(part)).map_or("", |f| f.1)
}

/// What a layer is, as the layer information says.
fn type_of(layer_type: &str) -> &'static str {
    match layer_type {
        t if t.contains("Deconvolution") => "Deconvolution",
        t if t.contains("Convolution") => "Convolution",
        // Versions 10 and 11.
        "correlation" => "Convolution",
        "maxpool" => "MaxPool",
        "gemm" | "MatrixMultiply" | "CaskFullyConnected" => "MatMul",
        "Reformat" | "NoOp" => "Reformat",
        "SoftMax" | "CudaSoftMax" => "Softmax",
        _ => "",
    }
}
