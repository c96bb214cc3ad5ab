//! TensorRT's `trtexec --exportProfile=FILE`: a list of `{"count"}` and of layers with their average time in milliseconds. Names of
//! fused layers list their parts: `conv + relu`, `PWN(a, b)`, `{ForeignNode[first...last]}`. Those of its Myelin compiler do not;
//! `--exportLayerInfo=FILE --profilingVerbosity=detailed`, given as well, says which nodes of the ONNX file they are.

use super::{File, Import, Row, number, text};
use crate::error::Result;
use serde_json::Value;
use std::collections::HashMap;

/// What a layer says about the nodes it came from.
const NODE: &str = "[ONNX Layer: ";

pub(super) fn read(file: &File) -> Option<Result<Import>> {
    let list = file.json.as_ref()?.as_array()?;
    let is_layer = |e: &&Value| e.get("averageMs").is_some() && e.get("name").is_some();
    list.iter().find(is_layer)?;
    let runs = list.iter().find_map(|e| e["count"].as_u64()).unwrap_or(0) as usize;
    let described: HashMap<&str, &Value> = file
        .layers
        .iter()
        .flat_map(|l| l["Layers"].as_array().into_iter().flatten())
        .filter_map(|l| Some((l["Name"].as_str()?, l)))
        .collect();
    let row = |e: &Value| {
        let name = text(&e["name"]);
        let about = described.get(name.as_str());
        let op = match op_of(&name) {
            "" => about.and_then(|l| l["LayerType"].as_str()).map_or("", type_of),
            known => known,
        };
        Row {
            op: op.to_string(),
            parts: about.map(|l| nodes_of(&text(&l["Metadata"]))).unwrap_or_default(),
            kernel: about.and_then(|l| l["TacticName"].as_str()).unwrap_or_default().to_string(),
            seconds: number(&e["averageMs"]).unwrap_or(0.0) / 1e3,
            name,
            ..Row::default()
        }
    };
    Some(Ok(Import {
        runtime: "TensorRT",
        runs,
        rows: list.iter().filter(is_layer).map(row).collect(),
        walls_s: Vec::new(),
    }))
}

/// Whether a document is what `--exportLayerInfo` writes.
pub(super) fn is_layer_info(json: &Value) -> bool {
    json.get("Layers").is_some_and(Value::is_array)
}

/// The nodes named in a layer's metadata, which are separated by a control character.
fn nodes_of(metadata: &str) -> Vec<String> {
    let one = |part: &str| Some(part.trim().strip_prefix(NODE)?.strip_suffix(']')?.to_string());
    metadata.split('\u{1e}').filter_map(one).collect()
}

/// What a layer is, as far as its name says.
fn op_of(name: &str) -> &'static str {
    // What another runtime would call a cast or a copy says for which layer it is.
    if name.starts_with("Reformatting") || name.ends_with(" copy") {
        return "Reformat";
    }
    // Myelin names its kernels after the beginnings of what they do.
    if name.contains("_myl") {
        return match name {
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
        "gemm" | "MatrixMultiply" | "CaskFullyConnected" => "MatMul",
        "Reformat" | "NoOp" => "Reformat",
        "SoftMax" | "CudaSoftMax" => "Softmax",
        _ => "",
    }
}
