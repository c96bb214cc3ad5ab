//! TensorRT's `trtexec --exportProfile=FILE`: a list of `{"count"}` and of layers with their average time in milliseconds. Names of
//! fused layers list their parts: `conv + relu`, `PWN(a, b)`, `{ForeignNode[first...last]}`.

use super::{File, Import, Row, number, text};
use crate::error::Result;
use serde_json::Value;

pub(super) fn read(file: &File) -> Option<Result<Import>> {
    let list = file.json.as_ref()?.as_array()?;
    let is_layer = |e: &&Value| e.get("averageMs").is_some() && e.get("name").is_some();
    list.iter().find(is_layer)?;
    let runs = list.iter().find_map(|e| e["count"].as_u64()).unwrap_or(0) as usize;
    let row = |e: &Value| {
        let name = text(&e["name"]);
        Row { op: op_of(&name), name, seconds: number(&e["averageMs"]).unwrap_or(0.0) / 1e3, ..Row::default() }
    };
    Some(Ok(Import {
        runtime: "TensorRT",
        runs,
        rows: list.iter().filter(is_layer).map(row).collect(),
        walls_s: Vec::new(),
    }))
}

/// What a layer is, as far as its name says.
fn op_of(name: &str) -> String {
    for (part, op) in
        [("Reformatting", "Reformat"), ("ForeignNode", "Myelin"), ("PWN(", "PointWise"), ("(Unnamed Layer", "")]
    {
        if name.contains(part) {
            return op.to_string();
        }
    }
    String::new()
}
