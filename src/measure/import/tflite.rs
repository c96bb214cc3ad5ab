//! TFLite's (LiteRT's) `benchmark_model --enable_op_profiling --profiling_output_csv_file=FILE`, or what it prints without a file: tables
//! of the start-up, then of the runs, each in the order of the run, by time and by operator. Of the runs the first table is read; where a
//! delegate did a part of them, its own table stands for that part.

use super::{File, Import, Row, number};
use crate::error::{Error, Result};
use serde_json::Value;

/// What stands above the tables of the runs.
const RUNS: &str = "Operator-wise Profiling Info";
/// What stands above the tables of a delegate.
const DELEGATE: &str = "Delegate internal";

pub(super) fn read(file: &File) -> Option<Result<Import>> {
    let lines: Vec<&str> = file.text.lines().collect();
    let runs = lines.iter().position(|l| l.contains(RUNS)).unwrap_or(0);
    let mut rows = table(&lines[runs..])?;
    let inside = lines[runs..].iter().position(|l| l.contains(DELEGATE));
    if let Some(inside) = inside.and_then(|at| table(&lines[runs + at..])).filter(|t| !t.is_empty())
        && let Some(at) = rows.iter().position(|r| r.op.contains("Delegate"))
    {
        // Where there are several parts the file does not say which row is whose: all stand where the first part ran.
        let rest = rows.split_off(at);
        rows.extend(inside);
        rows.extend(rest.into_iter().filter(|r| !r.op.contains("Delegate")));
    }
    if rows.is_empty() {
        return Some(Err(Error::input("holds no operator that ran")));
    }
    Some(Ok(Import { runtime: "TFLite", runs: 0, rows, walls_s: Vec::new() }))
}

/// A cell without what people get it dressed in: `[avg ms]`, `44.9%`.
fn plain(cell: &str) -> String {
    cell.trim().trim_matches(['[', ']', '"', '%']).trim().to_lowercase()
}

/// The cells of a line: split at commas in files, at tabs or wide gaps in what is printed.
fn cells(line: &str, by: char) -> Vec<String> {
    match by {
        ',' => line.split(',').map(|c| c.trim().to_string()).collect(),
        '\t' => line.trim().split('\t').map(|c| c.trim().to_string()).collect(),
        _ => line.trim().split("  ").map(str::trim).filter(|c| !c.is_empty()).map(str::to_string).collect(),
    }
}

/// The first table of single operators; `None` where there is none.
fn table(lines: &[&str]) -> Option<Vec<Row>> {
    let is_head = |l: &str, by: char| {
        let head: Vec<String> = cells(l, by).iter().map(|c| plain(c)).collect();
        (head.iter().any(|c| c == "node type") && head.last().is_some_and(|c| c == "name")).then_some(head)
    };
    let (at, by, head) = lines
        .iter()
        .enumerate()
        .find_map(|(i, l)| [',', '\t', ' '].into_iter().find_map(|by| is_head(l, by).map(|h| (i, by, h))))?;
    let column = |names: &[&str]| head.iter().position(|c| names.contains(&c.as_str()));
    let op = column(&["node type"]).filter(|&i| i == 0)?;
    let (time, unit) = column(&["avg_ms", "avg ms", "mean_ms"])
        .map(|i| (i, 1e3))
        .or(column(&["avg_us", "avg us"]).map(|i| (i, 1e6)))?;
    let per_run = column(&["times called"]);
    let figure = |c: &str| number(&Value::from(plain(c)));
    // Operators and names may hold commas themselves: the figures between them do not.
    let figures = head.len() - 2;
    let mut rows = Vec::new();
    for line in &lines[at + 1..] {
        let cells = cells(line, by);
        let starts = (1..cells.len().saturating_sub(figures))
            .find(|&i| cells[i..i + figures].iter().all(|c| figure(c).is_some()));
        let Some(first) = starts else { break };
        let value = |column: usize| figure(&cells[first + column - 1]);
        let Some(t) = value(time) else { break };
        let times = per_run.and_then(value).filter(|t| *t >= 1.0).unwrap_or(1.0);
        let glue = if by == ',' { ", " } else { " " };
        rows.push(Row {
            name: label(&cells[first + figures..].join(glue)),
            op: kind(&cells[op..first].join(glue)),
            seconds: t * times / unit,
            ..Row::default()
        });
    }
    Some(rows)
}

/// `[a;b]:12`: the results the operator writes, and its number.
fn label(text: &str) -> String {
    let text = text.trim_matches('"');
    text.rsplit_once("]:").map_or(text, |(l, _)| l).trim_start_matches('[').to_string()
}

/// `Convolution (NHWC, F32) IGEMM` is a convolution.
fn kind(text: &str) -> String {
    text.split(" (").next().unwrap_or(text).trim_matches('"').to_string()
}
