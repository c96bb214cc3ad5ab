//! OpenVINO's `benchmark_app -pc -report_type average_counters`: one line per layer of the compiled model, as CSV or JSON. Several
//! versions wrote several headings; columns are found by their names and times by their unit.

use super::{File, Import, Row, number, text};
use crate::error::{Error, Result};
use serde_json::Value;

pub(super) fn read(file: &File) -> Option<Result<Import>> {
    if let Some(json) = &file.json {
        let performance = json.get("avg_performance").or_else(|| json.get("detailed_performance"))?;
        return Some(from_json(performance));
    }
    let head = file.text.lines().find(|l| l.to_lowercase().replace(' ', "").contains("exectype"))?;
    Some(from_csv(&file.text, head))
}

fn made(mut rows: Vec<Row>) -> Result<Import> {
    rows.retain(|r| r.seconds > 0.0);
    if rows.is_empty() {
        return Err(Error::input("holds no layer that ran")
            .hint("make it with benchmark_app -pc -report_type average_counters"));
    }
    Ok(Import { runtime: "OpenVINO", rows, ..Import::default() })
}

fn from_json(performance: &Value) -> Result<Import> {
    let node = |n: &Value| Row {
        name: text(&n["name"]),
        op: text(&n["node_type"]),
        kernel: text(&n["exec_type"]),
        seconds: number(&n["real_time"]).unwrap_or(0.0) / 1e3,
        ..Row::default()
    };
    made(performance["nodes"].as_array().into_iter().flatten().map(node).collect())
}

fn from_csv(content: &str, head: &str) -> Result<Import> {
    let separator = if head.contains(';') { ';' } else { ',' };
    let plain: Vec<String> = head.split(separator).map(|c| c.to_lowercase().replace(' ', "")).collect();
    let column = |name: &str| plain.iter().position(|c| c.starts_with(name));
    let (Some(name), Some(time)) = (column("layername").or(column("name")), column("realtime")) else {
        return Err(Error::input("has no columns layerName and realTime"));
    };
    let (op, kernel) = (column("layertype"), column("exectype"));
    let scale = if plain[time].contains("(ms)") { 1e3 } else { 1e6 };
    let lines = content.lines().skip_while(|l| *l != head).skip(1);
    let row = |line: &str| {
        let cells: Vec<&str> = line.split(separator).collect();
        let cell = |i: Option<usize>| i.and_then(|i| cells.get(i)).map(|c| c.trim().to_string()).unwrap_or_default();
        let seconds = number(&Value::from(cell(Some(time)))).unwrap_or(0.0) / scale;
        Row { name: cell(Some(name)), op: cell(op), kernel: cell(kernel), seconds, ..Row::default() }
    };
    made(
        lines
            .map(row)
            .filter(|r| !r.name.is_empty() && !r.name.eq_ignore_ascii_case("total") && !r.op.is_empty())
            .collect(),
    )
}
