//! TFLite's (LiteRT's) `benchmark_model --enable_op_profiling --profiling_output_csv_file=FILE`, or what it prints without a file: tables
//! of the start-up, then of the runs, each in the order of the run, by time and by operator. Of the runs the first table is read; where a
//! delegate did a part of them, its rows stand among the others, or in a table of its own that stands for that part. The summary of
//! LiteRT's own profiler (`LiteRtGetProfileSummary`) is the same table with wider rules and sums over all runs.

use super::{File, Import, Row, number};
use crate::error::{Error, Result};
use serde_json::Value;

/// What stands above the tables of the runs.
const RUNS: &str = "Operator-wise Profiling Info";
/// What stands above the tables of a delegate.
const DELEGATE: &str = "Delegate internal";
/// What begins the names a delegate gives to what it does.
const DELEGATED: &str = "Delegate/";

pub(super) fn read(file: &File) -> Option<Result<Import>> {
    let lines: Vec<&str> = file.text.lines().collect();
    let runs = lines.iter().position(|l| l.contains(RUNS)).unwrap_or(0);
    let Table { mut rows, runs: told } = table(&lines[runs..])?;
    let inside = lines[runs..].iter().position(|l| l.contains(DELEGATE));
    if let Some(inside) = inside.and_then(|at| table(&lines[runs + at..])).map(|t| t.rows).filter(|t| !t.is_empty())
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
    let mut notes = Vec::new();
    if rows.iter().any(|r| r.merged) {
        // One row may be the first convolution of every part: neither it nor its neighbours have a place in the order.
        rows.iter_mut().filter(|r| r.name.starts_with(DELEGATED)).for_each(|r| r.merged = true);
        notes.push(
            "the delegate ran in several parts and its rows are sums over them: they stay without nodes \
             (benchmark_model --use_xnnpack=false tells operators apart)"
                .to_string(),
        );
    }
    let whole = rows.iter().filter(|r| is_whole_delegate(&r.op)).count();
    if whole > 0 {
        notes.push(format!(
            "{whole} of the rows are a delegate's, which covers many operators: the file does not say which"
        ));
    }
    let counted = || {
        lines[runs..]
            .iter()
            .find_map(|l| l.split_once("Timings (microseconds): count=")?.1.split(' ').next()?.parse().ok())
    };
    let runs = told.or_else(counted).unwrap_or(0);
    let walls_s = lines.iter().find_map(|l| wall(l)).into_iter().collect();
    Some(Ok(Import { runtime: "TFLite", runs, rows, walls_s, notes }))
}

/// `TfLiteXNNPackDelegate`, and in old versions `DELEGATE`: all that a delegate did in one row.
fn is_whole_delegate(op: &str) -> bool {
    op == "DELEGATE" || op.starts_with("TfLite") && op.contains("Delegate")
}

/// Seconds of a run, where they are printed: in microseconds, and in milliseconds since the tool is LiteRT's.
fn wall(line: &str) -> Option<f64> {
    let mut words = line.split_once("Inference (avg): ")?.1.split_whitespace();
    let figure = number(&Value::from(words.next()?.trim_end_matches(',')))?;
    Some(if words.next() == Some("ms") { figure / 1e3 } else { figure / 1e6 })
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
        // A title may be as wide as its column.
        _ => line
            .trim()
            .replace("] [", "]  [")
            .split("  ")
            .map(str::trim)
            .filter(|c| !c.is_empty())
            .map(str::to_string)
            .collect(),
    }
}

/// The first table of single operators; `None` where there is none.
fn table(lines: &[&str]) -> Option<Table> {
    let is_head = |l: &str, by: char| {
        let head: Vec<String> = cells(l, by).iter().map(|c| plain(c)).collect();
        (head.iter().any(|c| c == "node type") && head.last().is_some_and(|c| c == "name")).then_some(head)
    };
    let (at, by, head) = lines
        .iter()
        .enumerate()
        .find_map(|(i, l)| [',', '\t', ' '].into_iter().find_map(|by| is_head(l, by).map(|h| (i, by, h))))?;
    let is_litert =
        at > 0 && lines[at - 1].contains("Run Order") && lines[at - 1].matches('=').count() != 60 && by != ',';
    // A log may put its own words before every line.
    let op = head.iter().position(|c| c == "node type")?;
    let column = |names: &[&str]| head.iter().position(|c| names.contains(&c.as_str()));
    let (time, unit) = column(&["avg_ms", "avg ms", "mean_ms"])
        .map(|i| (i, 1e3))
        .or(column(&["avg_us", "avg us"]).map(|i| (i, 1e6)))?;
    let (per_run, share) = (column(&["times called"]), column(&[""]).filter(|&i| i > op));
    let figure = |c: &str| number(&Value::from(plain(c)));
    // Operators and names may hold commas themselves: the figures between them do not.
    let figures = head.len() - 2 - op;
    let mut rows: Vec<(Row, f64, Option<f64>)> = Vec::new();
    for line in &lines[at + 1..] {
        let cells = cells(line, by);
        let starts = (op + 1..cells.len().saturating_sub(figures))
            .find(|&i| cells[i..i + figures].iter().all(|c| figure(c).is_some()));
        let Some(first) = starts else { break };
        let value = |column: usize| figure(&cells[first + column - op - 1]);
        let Some(t) = value(time) else { break };
        let times = per_run.and_then(value).unwrap_or(1.0);
        let glue = if by == ',' { ", " } else { " " };
        let (said, text) = (cells[op..first].join(glue), cells[first + figures..].join(glue));
        // LiteRT's profiler puts the delegate before the operator, and only a number behind.
        let numbered = ["[Delegate]:", "[Builtin]:"].iter().find_map(|p| text.strip_prefix(p));
        let name = numbered.map_or_else(|| label(&text), |number| format!("{said}:{number}"));
        rows.push((
            Row {
                op: kind(said.strip_prefix(DELEGATED).unwrap_or(&said)),
                names: Some(if numbered.is_some() { String::new() } else { nodes_of(&name) }),
                name,
                seconds: t / unit,
                ..Row::default()
            },
            times,
            share.and_then(value),
        ));
    }
    // LiteRT's profiler counts calls of all runs: what comes once per run says how many there were.
    let least = rows.iter().map(|r| r.1).filter(|t| *t >= 1.0).fold(f64::INFINITY, f64::min);
    let runs = if is_litert && least.is_finite() { least } else { 1.0 };
    for (row, times, _) in &mut rows {
        *times /= runs;
        row.merged = *times > 1.0 && row.name.starts_with(DELEGATED);
        if row.merged {
            row.name = format!("{} (sum of {times})", row.name);
        }
    }
    // Times called are whole numbers per run: 0 is less than once a run, and the share tells how much of one that is. Old versions
    // always wrote 0.
    let (seconds, percent) = rows
        .iter()
        .filter(|r| r.1 > 0.0)
        .fold((0.0, 0.0), |(s, p), (row, times, share)| (s + row.seconds * times, p + share.unwrap_or(0.0)));
    let settled = |(row, times, share): (Row, f64, Option<f64>)| {
        let seconds = match share {
            _ if times > 0.0 => row.seconds * times,
            Some(share) if percent > 0.0 => share * seconds / percent,
            _ => row.seconds,
        };
        Row { seconds, ..row }
    };
    Some(Table { rows: rows.into_iter().map(settled).collect(), runs: (runs > 1.0).then_some(runs as usize) })
}

/// A table of operators.
struct Table {
    rows: Vec<Row>,
    /// Runs, where the table itself tells.
    runs: Option<usize>,
}

/// `[a;b]:12`: the results the operator writes, and its number.
fn label(text: &str) -> String {
    let text = text.trim_matches('"');
    text.rsplit_once("]:").map_or(text, |(l, _)| l).trim_start_matches('[').to_string()
}

/// The names of nodes in a label: none where a delegate made it; weights a result was fused with say nothing of where it is.
fn nodes_of(label: &str) -> String {
    if label.starts_with(DELEGATED) {
        return String::new();
    }
    label.split(';').filter(|n| !n.contains("ReadVariableOp")).collect::<Vec<_>>().join(";")
}

/// `Convolution (NHWC, F32) IGEMM` is a convolution, and so is `convolution_2d 0 -> relu 1`.
fn kind(text: &str) -> String {
    let text = text.trim_matches('"');
    let text = text.split(" (").next().unwrap_or(text);
    let first = text.split(" -> ").next().unwrap_or(text);
    // Words of a GPU's delegate end in their place in its graph.
    first
        .rsplit_once(' ')
        .filter(|(_, n)| n.chars().all(|c| c.is_ascii_digit()))
        .map_or(first, |(op, _)| op)
        .to_string()
}
