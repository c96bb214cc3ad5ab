//! Profiles of the runtimes people deploy on: read from the files those write, joined with the nodes of the source graph.
//!
//! A runtime fuses, renames and inserts; `mapping.rs` says for every row it measured which source nodes it covers, and how that is known.
//! Rows of no source node (layout changes the runtime put in) stay rows of their own, so nothing measured is lost.

mod mapping;
mod onnxruntime;
mod openvino;
mod tensorrt;
mod tflite;
mod torch;
mod words;

use super::profile::{Profile, StepTime};
use super::sample::{Samples, Stop};
use super::stats::Stats;
use crate::engine::Path;
use crate::error::{Error, Result};
use crate::ir::{Graph, NodeId};
use serde_json::Value;
use std::path::{Path as FilePath, PathBuf};

/// What a runtime measured.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Import {
    /// The runtime, as people call it.
    pub runtime: &'static str,
    /// Runs the times are taken from; 0 where the file does not say.
    pub runs: usize,
    /// Rows in the order they ran.
    pub rows: Vec<Row>,
    /// Whole runs in seconds, where the file tells.
    pub walls_s: Vec<f64>,
    /// What a reader of the figures should know.
    pub notes: Vec<String>,
}

/// One measured row.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Row {
    /// As the runtime calls it.
    pub name: String,
    /// The source nodes it came from, where the file names them.
    pub parts: Vec<String>,
    /// What of the name may hold names of source nodes, where that is not all of it.
    pub names: Option<String>,
    /// Several steps in one sum, and nothing says which: it is not placed by order.
    pub merged: bool,
    /// What the runtime says it does: its operator.
    pub op: String,
    /// The kernel or provider, where the file tells.
    pub kernel: String,
    /// Seconds per run.
    pub seconds: f64,
    /// Shape of the first output, where the file tells.
    pub output: Option<Vec<usize>>,
    /// Shapes of the inputs, where the file tells.
    pub inputs: Vec<Vec<usize>>,
}

/// How it is known which nodes a row covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// Its name holds a node's name or that of its result.
    Name,
    /// The only reading that fits operator, shape and order among its neighbours.
    Order,
    /// It is not: a row of the runtime's own.
    Nothing,
}

impl By {
    /// `name`, `order`, `nothing`.
    pub fn name(self) -> &'static str {
        match self {
            By::Name => "name",
            By::Order => "order",
            By::Nothing => "nothing",
        }
    }
}

/// An import joined with a graph.
#[derive(Debug, Clone)]
pub struct Joined {
    /// What was measured.
    pub import: Import,
    /// For every row the source nodes it covers, the one that gave it its place first.
    pub covers: Vec<(Vec<NodeId>, By)>,
}

/// Readers: each gives `None` where the file is none of its own.
const READERS: &[(&str, fn(&File) -> Option<Result<Import>>)] = &[
    ("ONNX Runtime's profiling JSON", onnxruntime::read),
    ("PyTorch's trace", torch::read),
    ("TensorRT's trtexec --exportProfile JSON or --dumpProfile print", tensorrt::read),
    ("OpenVINO's benchmark_app report (CSV or JSON)", openvino::read),
    ("TFLite's op-profile CSV or print", tflite::read),
];

/// A file's content, parsed as far as its kind needs.
struct File {
    text: String,
    json: Option<Value>,
    /// What TensorRT says about its layers, from a file of its own.
    layers: Option<Value>,
}

/// Longest run that is believed, in seconds: beyond it a file is broken.
const LONGEST_S: f64 = 1e9;

fn open(path: &FilePath) -> Result<File> {
    let text = std::fs::read(path).map_err(|e| Error::input(format!("cannot be read: {e}")).in_file(path))?;
    let text = String::from_utf8_lossy(&text).into_owned();
    let json = if text.trim_start().starts_with(['[', '{']) { parsed(&text) } else { None };
    Ok(File { text, json, layers: None })
}

/// Reads a profile of any runtime known: one file, and TensorRT's layer information where that is given as well.
///
/// # Errors
/// If a file cannot be read, none or several are a profile of a runtime known, or one holds no time.
pub fn read(paths: &[PathBuf]) -> Result<Import> {
    let (mut file, mut layers): (Option<(&FilePath, File)>, _) = (None, None);
    for path in paths {
        let one = open(path)?;
        match (one.json.as_ref().filter(|j| tensorrt::is_layer_info(j)), &file) {
            (Some(info), _) => layers = Some(info.clone()),
            (None, None) => file = Some((path, one)),
            (None, Some((first, _))) => {
                return Err(Error::usage(format!("--import-profile: {} is a profile already", first.display()))
                    .in_file(path)
                    .hint("a second file can only be what trtexec --exportLayerInfo writes"));
            }
        }
    }
    let Some((path, mut file)) = file else {
        return Err(Error::usage("--import-profile: layer information holds no times")
            .in_file(paths.first().map_or(FilePath::new(""), PathBuf::as_path))
            .hint("give the file of trtexec --exportProfile too"));
    };
    file.layers = layers;
    let found = READERS.iter().find_map(|(_, read)| read(&file));
    let import = found.unwrap_or_else(|| {
        let known: Vec<&str> = READERS.iter().map(|r| r.0).collect();
        Err(Error::input("is no profile of a runtime known").hint(format!("known: {}", known.join(", "))))
    });
    let import = import.map_err(|e| e.in_file(path))?;
    if import.rows.iter().all(|r| r.seconds <= 0.0) {
        return Err(Error::input(format!("{} wrote no time of any operator into it", import.runtime)).in_file(path));
    }
    if import.rows.iter().map(|r| r.seconds).chain(import.walls_s.iter().copied()).sum::<f64>() > LONGEST_S {
        return Err(Error::input(format!("{} wrote times into it that cannot be", import.runtime)).in_file(path));
    }
    Ok(import)
}

/// JSON, also of a profile that was cut off before its closing bracket (a process that was stopped).
fn parsed(text: &str) -> Option<Value> {
    serde_json::from_str(text).ok().or_else(|| {
        let at = text.rfind('}')?;
        serde_json::from_str(&format!("{}]", &text[..=at])).ok()
    })
}

impl Import {
    /// Finds the source nodes of every row.
    pub fn join(self, graph: &Graph) -> Joined {
        let covers = mapping::map(&self.rows, graph);
        let mut import = self;
        import.notes.extend(other_shapes(&import, &covers, graph));
        Joined { import, covers }
    }
}

/// Says where a profile was taken with other shapes than the model has here: its times then belong to other counts.
fn other_shapes(import: &Import, covers: &[(Vec<NodeId>, By)], graph: &Graph) -> Option<String> {
    let product = |d: &[usize]| d.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    let (mut same, mut other) = (0, Vec::new());
    for (row, (nodes, _)) in import.rows.iter().zip(covers).filter(|(_, (_, by))| *by == By::Name) {
        let Some(theirs) = row.output.as_deref().filter(|d| product(d).is_some_and(|n| n > 1)) else { continue };
        let results = nodes.iter().flat_map(|&n| graph.node(n).outputs.iter().flatten());
        let mut ours = results.filter_map(|v| graph.value(*v).fact.shape.concrete()).peekable();
        let Some(first) = ours.peek().cloned() else { continue };
        if ours.any(|o| product(&o) == product(theirs)) {
            same += 1;
        } else {
            other.push((theirs, first));
        }
    }
    let (theirs, ours) = other.first().filter(|_| other.len() > same)?;
    let list = |d: &[usize]| d.iter().map(ToString::to_string).collect::<Vec<_>>().join("x");
    Some(format!(
        "the profile was taken with other shapes: {} there, {} here (--input-shape or --dim gives the model its own)",
        list(theirs),
        list(ours)
    ))
}

impl Joined {
    /// Seconds of all rows, and of those that cover source nodes.
    pub fn measured_s(&self) -> (f64, f64) {
        let all = self.import.rows.iter().map(|r| r.seconds).sum();
        let mapped = self.import.rows.iter().zip(&self.covers).filter(|(_, c)| !c.0.is_empty());
        (all, mapped.map(|(r, _)| r.seconds).sum())
    }
    /// As a profile of the runtime's path, for reports.
    pub fn profile(&self) -> Profile {
        let (all, _) = self.measured_s();
        let walls = if self.import.walls_s.is_empty() { vec![all] } else { self.import.walls_s.clone() };
        let median = super::stats::median(&walls).max(all);
        // Whole runs can take less than the sum of rows only where rows ran at the same time or were taken from other runs.
        let walls: Vec<f64> = if super::stats::median(&walls) < all { vec![all] } else { walls };
        let stats = Stats::of(&walls).unwrap_or_else(|| unreachable!("there is a run"));
        let steps = self.import.rows.iter().zip(&self.covers).map(|(r, (covers, _))| StepTime {
            label: r.name.clone(),
            kernel: if r.kernel.is_empty() { r.op.clone() } else { r.kernel.clone() },
            covers: covers.clone(),
            declined: Vec::new(),
            live_bytes: None,
            seconds: r.seconds,
        });
        Profile {
            path: Path::Runtime,
            isa: self.import.runtime.to_string(),
            threads: 0,
            arena_bytes: None,
            prepare_s: None,
            first_s: None,
            kept_bytes: None,
            steps: steps.collect(),
            timer_s: 0.0,
            other_s: median - all,
            stats,
            samples: Samples { rounds: vec![0; walls.len()], seconds: walls, warmup_runs: 0, stop: Stop::Steady },
        }
    }
}

/// Rows from single events, by key in order of first appearance: the median where a key comes once per run, the sum over a run else.
fn gathered(events: impl Iterator<Item = (String, f64, Row)>, runs: usize) -> Vec<Row> {
    let mut at = std::collections::HashMap::new();
    let mut rows: Vec<(Row, Vec<f64>)> = Vec::new();
    for (key, seconds, row) in events {
        let i = *at.entry(key).or_insert_with(|| {
            rows.push((row, Vec::new()));
            rows.len() - 1
        });
        rows[i].1.push(seconds);
    }
    let per_run = |times: &[f64]| {
        let times_per_run = times.len() as f64 / runs.max(1) as f64;
        super::stats::median(times) * times_per_run
    };
    rows.into_iter().map(|(row, times)| Row { seconds: per_run(&times), ..row }).collect()
}

/// A number, also one in quotes.
fn number(v: &Value) -> Option<f64> {
    let n = v.as_f64().or_else(|| v.as_str()?.trim().replace(',', ".").parse().ok());
    n.filter(|n: &f64| n.is_finite() && *n >= 0.0)
}

fn text(v: &Value) -> String {
    v.as_str().unwrap_or_default().to_string()
}

/// A list of sizes.
fn dims(v: &Value) -> Option<Vec<usize>> {
    v.as_array()?.iter().map(|d| d.as_u64().map(|d| d as usize)).collect()
}

#[cfg(test)]
mod tests;
