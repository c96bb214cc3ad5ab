//! TFLite's (LiteRT's) `benchmark_model --enable_op_profiling --profiling_output_csv_file=FILE`: tables of which the one of single
//! operators has the columns node type, average milliseconds and name.

use super::{File, Import, Row, number};
use crate::error::Result;
use serde_json::Value;

pub(super) fn read(file: &File) -> Option<Result<Import>> {
    let plain = |line: &str| -> Vec<String> {
        line.trim_matches(['[', ']'])
            .split(',')
            .map(|c| c.trim().trim_matches(['[', ']', '"']).to_lowercase())
            .collect()
    };
    // The table in the order of the run comes first; a later one is sorted by time.
    let head = file
        .text
        .lines()
        .position(|l| plain(l).iter().any(|c| c == "node type") && plain(l).iter().any(|c| c == "name"))?;
    let columns = plain(file.text.lines().nth(head)?);
    let column = |names: &[&str]| columns.iter().position(|c| names.contains(&c.as_str()));
    let (op, name) = (column(&["node type"])?, column(&["name"])?);
    let time = column(&["avg_ms", "avg ms", "mean_ms"])
        .map(|i| (i, 1e3))
        .or(column(&["avg_us", "avg us"]).map(|i| (i, 1e6)))?;
    let per_run = column(&["times called"]);
    let mut rows = Vec::new();
    for line in file.text.lines().skip(head + 1) {
        let cells: Vec<&str> = line.splitn(columns.len(), ',').map(str::trim).collect();
        if cells.len() < columns.len() {
            break;
        }
        let value = |i: usize| number(&Value::from(cells[i].trim_matches(['%', '"'])));
        let Some(t) = value(time.0) else { break };
        let times = per_run.and_then(value).filter(|t| *t >= 1.0).unwrap_or(1.0);
        // `[a;b]:12`: the results the operator writes, and its number.
        let label = cells[name].trim_matches('"');
        let label = label.rsplit_once("]:").map_or(label, |(l, _)| l).trim_start_matches('[');
        rows.push(Row {
            name: label.to_string(),
            op: cells[op].to_string(),
            seconds: t * times / time.1,
            ..Row::default()
        });
    }
    Some(Ok(Import { runtime: "TFLite", runs: 0, rows, walls_s: Vec::new() }))
}
