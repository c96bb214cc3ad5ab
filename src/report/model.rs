//! The report: everything that is told, typed, with nothing formatted.

use super::conventions::Convention;
use super::live::{Live, Sizes};
use super::roofline::Roofline;
use crate::analysis::symbolic::Symbolic;
use crate::analysis::{Class, Distinct, Totals};
use crate::cost::{Span, Traffic, Work, WorkSpan};
use crate::engine::Path;
use crate::ir::{Graph, NodeId};
use crate::lens::Lens;
use crate::machine::{Bound, Machine};
use crate::measure::Stats;
use crate::measure::host::Host;
use crate::measure::import::{self, By, Joined};
use crate::tensor::{DType, Fact, Shape};
use std::collections::BTreeMap;

/// Name and version of the machine-readable contract. Keys may be added; what is there keeps its meaning within a version.
pub const SCHEMA: &str = "madd-prof/1";

/// What a row stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A node that runs per inference.
    Layer,
    /// A node computed once per model: no cost per inference.
    Static,
    /// Time that belongs to no node.
    Overhead,
    /// Several nodes of one module, summed.
    Group,
    /// A repeated block, or what `--top` left out, summed.
    Rest,
    /// A subgraph of the control-flow node above it: shown, but part of that node's numbers.
    Body,
    /// A module above its rows: shown, but the sum of what is below it.
    Module,
}

impl Kind {
    /// As in machine-readable reports.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Layer => "layer",
            Kind::Static => "static",
            Kind::Overhead => "overhead",
            Kind::Group => "group",
            Kind::Rest => "rest",
            Kind::Body => "body",
            Kind::Module => "module",
        }
    }
}

/// A measured time of a row.
#[derive(Debug, Clone, PartialEq)]
pub enum Time {
    /// Not measured.
    None,
    /// Milliseconds of the median run.
    Ms(f64),
    /// The work is done inside the step of another node, which holds the time.
    FusedInto(String),
}

impl Time {
    /// Milliseconds; `None` where none are attributed to this row.
    pub fn ms(&self) -> Option<f64> {
        if let Time::Ms(ms) = self { Some(*ms) } else { None }
    }
}

/// One row.
#[derive(Debug, Clone)]
pub struct Layer {
    /// What it stands for.
    pub kind: Kind,
    /// Name in the file.
    pub name: String,
    /// Module path by name hierarchy, outermost first.
    pub path: Vec<String>,
    /// Operator; empty for overhead.
    pub op: String,
    /// Class of work.
    pub class: Option<Class>,
    /// Position of its node in the graph, where it stands for one.
    pub id: Option<usize>,
    /// Name of the first output.
    pub output_name: Option<String>,
    /// How its sizes follow others', for spreadsheets.
    pub live: Option<Live>,
    /// Elements of the tensor it reads first.
    pub source_elements: Option<u64>,
    /// Shape of the first output.
    pub output_shape: Option<Shape>,
    /// Its element type.
    pub output_dtype: Option<DType>,
    /// Learned elements first used here.
    pub params: u64,
    /// Learned elements charged to an earlier row.
    pub shared_params: u64,
    /// BatchNormalization statistics.
    pub statistics: u64,
    /// Arithmetic of what is known.
    pub work: Work,
    /// What is known of all its arithmetic.
    pub span: WorkSpan,
    /// Whether a run told what its rules could not.
    pub is_executed: bool,
    /// Element types its multiply-adds multiply.
    pub operands: Option<String>,
    /// Multiply-adds between two activations.
    pub activation_madds: u64,
    /// Subgraphs with their own rows; their numbers are part of this row's.
    pub bodies: Vec<BodyRows>,
    /// Traffic of what is known.
    pub traffic: Traffic,
    /// Nodes in this row.
    pub nodes: usize,
    /// Of these, with unknown arithmetic.
    pub unknown_nodes: usize,
    /// Of these, with unknown traffic.
    pub unknown_traffic: usize,
    /// How many equal blocks this row sums over (1: none).
    pub repeat: usize,
    /// Reference path.
    pub reference: Time,
    /// Optimized path.
    pub optimized: Time,
    /// Another runtime.
    pub runtime: Time,
    /// Kernel of the optimized path.
    pub kernel: Option<String>,
    /// Share of the model's MAdds.
    pub madds_share: Option<f64>,
    /// Share of the time of the main path: the optimized one where measured.
    pub time_share: Option<f64>,
    /// MAdds per second of the main path, where the time is this row's own.
    pub madds_per_s: Option<f64>,
    /// What sets the least time of this row's steps on the optimized path.
    pub bound: Option<Bound>,
    /// That least time on this machine; of steps whose cost is known and that were measured.
    pub attainable_ms: Option<f64>,
    /// Activation bytes alive while this row runs, by the graph's order; of several rows the most.
    pub live_bytes: Option<u64>,
    /// Where modules stand above rows: how many stand above this one, and how many parts of its path they say already.
    pub nesting: Option<(usize, usize)>,
}

/// A step of the path that shares and rates refer to: one kernel call.
#[derive(Debug, Clone, PartialEq)]
pub struct StepRow {
    /// What it does.
    pub label: String,
    /// The kernel.
    pub kernel: String,
    /// Names of the nodes whose work it does.
    pub covers: Vec<String>,
    /// Its part of the median run.
    pub ms: f64,
    /// Class of the node with most multiply-adds.
    pub class: Option<Class>,
    /// Multiply-adds of all its nodes, where known.
    pub madds: Option<u64>,
    /// FLOPs of all its nodes, where known.
    pub flops: Option<u64>,
    /// Bytes that cross its border, where known: what flows between its nodes is not in it.
    pub bytes: Option<u64>,
    /// Bytes of the arena that hold something while it runs.
    pub live_bytes: Option<u64>,
    /// What sets its least time.
    pub bound: Option<Bound>,
    /// Its least time on this machine.
    pub attainable_ms: Option<f64>,
}

/// A subgraph of a control-flow node.
#[derive(Debug, Clone)]
pub struct BodyRows {
    /// `then`, `else` or `body`.
    pub name: &'static str,
    /// How often it runs per inference.
    pub rounds: Span,
    /// What is known of the sum of its rows.
    pub span: WorkSpan,
    /// Whether the rows are sums over a run, rather than one round.
    pub is_executed: bool,
    /// Its rows.
    pub layers: Vec<Layer>,
}

impl Layer {
    /// A row of `kind` with no content.
    pub fn empty(kind: Kind, name: &str) -> Layer {
        Layer {
            kind,
            name: name.to_string(),
            path: Vec::new(),
            op: String::new(),
            class: None,
            id: None,
            output_name: None,
            live: None,
            source_elements: None,
            output_shape: None,
            output_dtype: None,
            params: 0,
            shared_params: 0,
            statistics: 0,
            work: Work::NONE,
            span: WorkSpan::NONE,
            is_executed: false,
            operands: None,
            activation_madds: 0,
            bodies: Vec::new(),
            traffic: Traffic::default(),
            nodes: 0,
            unknown_nodes: 0,
            unknown_traffic: 0,
            repeat: 1,
            reference: Time::None,
            optimized: Time::None,
            runtime: Time::None,
            kernel: None,
            madds_share: None,
            time_share: None,
            madds_per_s: None,
            bound: None,
            attainable_ms: None,
            live_bytes: None,
            nesting: None,
        }
    }
    /// Attainable ÷ measured time of the optimized path: 1 at the ceiling. Times near the cost of measuring them have none.
    pub fn efficiency(&self) -> Option<f64> {
        if self.bound == Some(Bound::Overhead) {
            return None;
        }
        let ms = self.optimized.ms().filter(|ms| *ms > 0.0)?;
        Some(self.attainable_ms? / ms)
    }
    /// FLOPs per byte; `None` where either is unknown or nothing moves.
    pub fn intensity(&self) -> Option<f64> {
        let bytes = self.traffic.total();
        (bytes > 0 && self.unknown_nodes == 0 && self.unknown_traffic == 0)
            .then(|| self.work.flops() as f64 / bytes as f64)
    }
    /// Time on the main path.
    pub fn main_ms(&self, main: Option<Path>) -> Option<f64> {
        match main? {
            Path::Reference => self.reference.ms(),
            Path::Optimized => self.optimized.ms(),
            Path::Runtime => self.runtime.ms(),
        }
    }
}

/// Latency of one path.
#[derive(Debug, Clone)]
pub struct Latency {
    /// Kernel path.
    pub path: Path,
    /// Wall time of whole runs, seconds.
    pub stats: Stats,
    /// Runs thrown away before.
    pub warmup_runs: usize,
    /// Why measuring stopped.
    pub stop: &'static str,
    /// Threads.
    pub threads: usize,
    /// Instruction set.
    pub isa: String,
    /// Planned activation memory.
    pub arena_bytes: Option<u64>,
    /// From opening the file to a session that is ready to run, seconds.
    pub prepare_s: Option<f64>,
    /// From opening the file to the result of the first run, seconds.
    pub first_s: Option<f64>,
    /// Bytes of packed weights that an earlier run had kept and this one did not make; `None` where none are kept.
    pub kept_bytes: Option<u64>,
    /// All samples, seconds.
    pub samples: Vec<f64>,
    /// Whether every step was timed too (as in `profile`), or only whole runs (as in `bench`).
    pub per_step: bool,
}

/// A graph input or output.
#[derive(Debug, Clone)]
pub struct Port {
    /// Name.
    pub name: String,
    /// Dtype and shape.
    pub fact: Fact,
}

/// The model.
#[derive(Debug, Clone, Default)]
pub struct ModelInfo {
    /// File stem or zoo name.
    pub name: String,
    /// The file, unless it came from the zoo.
    pub path: Option<String>,
    /// Imported operator sets.
    pub opsets: Vec<(String, i64)>,
    /// Producer name and version.
    pub producer: (String, String),
    /// Inputs.
    pub inputs: Vec<Port>,
    /// Outputs.
    pub outputs: Vec<Port>,
    /// What free dims were bound to.
    pub bound: BTreeMap<String, usize>,
}

/// Sums over one class of work.
#[derive(Debug, Clone)]
pub struct ClassRow {
    /// The class.
    pub class: Class,
    /// Nodes.
    pub nodes: usize,
    /// Of these, fused into another node's step on the main path.
    pub fused: usize,
    /// Arithmetic.
    pub work: Work,
    /// Traffic.
    pub traffic: Traffic,
    /// Share of MAdds.
    pub madds_share: f64,
    /// Time on the main path.
    pub ms: Option<f64>,
    /// Share of time on the main path.
    pub time_share: Option<f64>,
}

/// A row of an imported profile.
#[derive(Debug, Clone, PartialEq)]
pub struct ImportedRow {
    /// As the runtime calls it.
    pub name: String,
    /// Its operator.
    pub op: String,
    /// Its kernel or provider.
    pub kernel: String,
    /// Milliseconds per run.
    pub ms: f64,
    /// Source nodes it covers, the one that holds its time first.
    pub nodes: Vec<String>,
    /// How that is known.
    pub by: By,
}

/// An imported profile and how much of it is accounted for.
#[derive(Debug, Clone, PartialEq)]
pub struct Imported {
    /// The runtime.
    pub runtime: &'static str,
    /// Runs the times are taken from; 0 where its file does not say.
    pub runs: usize,
    /// All its rows.
    pub rows: Vec<ImportedRow>,
    /// Milliseconds of all rows.
    pub measured_ms: f64,
    /// Of these, in rows that cover source nodes.
    pub mapped_ms: f64,
}

impl Imported {
    /// Of a joined profile.
    pub fn of(joined: &Joined, graph: &Graph) -> Imported {
        let (all, mapped) = joined.measured_s();
        let row = |(r, (covers, by)): (&import::Row, &(Vec<NodeId>, By))| ImportedRow {
            name: r.name.clone(),
            op: r.op.clone(),
            kernel: r.kernel.clone(),
            ms: r.seconds * 1e3,
            nodes: covers.iter().map(|&id| graph.node(id).name.clone()).collect(),
            by: *by,
        };
        Imported {
            runtime: joined.import.runtime,
            runs: joined.import.runs,
            rows: joined.import.rows.iter().zip(&joined.covers).map(row).collect(),
            measured_ms: all * 1e3,
            mapped_ms: mapped * 1e3,
        }
    }
    /// Rows that cover no source node, summed by operator, the longest first: operator, rows, milliseconds.
    pub fn remainder(&self) -> Vec<(String, usize, f64)> {
        let mut sums: BTreeMap<&str, (usize, f64)> = BTreeMap::new();
        for r in self.rows.iter().filter(|r| r.nodes.is_empty()) {
            let sum = sums.entry(if r.op.is_empty() { &r.name } else { &r.op }).or_default();
            *sum = (sum.0 + 1, sum.1 + r.ms);
        }
        let mut list: Vec<_> = sums.into_iter().map(|(op, (n, ms))| (op.to_string(), n, ms)).collect();
        list.sort_by(|a, b| b.2.total_cmp(&a.2));
        list
    }
}

/// The whole report.
#[derive(Debug, Clone)]
pub struct Report {
    /// Subcommand that made it.
    pub command: &'static str,
    /// The model.
    pub model: ModelInfo,
    /// Sums.
    pub totals: Totals,
    /// Share of the time of the main path spent in nodes of known cost.
    pub time_coverage: Option<f64>,
    /// Multiply-adds by the element types they multiply, the largest first.
    pub madds_by_type: Vec<(String, u64)>,
    /// Bytes moved by element type, the largest first.
    pub bytes_by_type: Vec<(String, u64)>,
    /// Learned elements without copies, if asked for.
    pub distinct: Option<Distinct>,
    /// Of the nodes, computed once per model.
    pub static_nodes: usize,
    /// Constants that do not count as learned: reason and elements.
    pub not_learned: Vec<(&'static str, u64)>,
    /// Rows: nodes in execution order.
    pub layers: Vec<Layer>,
    /// Rows of time that belongs to no node. `layers` and `overhead` together sum to the median latency of each path.
    pub overhead: Vec<Layer>,
    /// The steps of the main path, where they were measured.
    pub steps: Vec<StepRow>,
    /// Sums by class of work, largest time (or MAdds) first.
    pub classes: Vec<ClassRow>,
    /// End-to-end latency by path.
    pub latency: Vec<Latency>,
    /// Reference ÷ optimized latency, paired where they were interleaved.
    pub speedup: Option<f64>,
    /// The path that shares and rates refer to.
    pub main: Option<Path>,
    /// Totals under other conventions, if asked for.
    pub conventions: Vec<Convention>,
    /// What other counters print, if asked for.
    pub lenses: Vec<Lens>,
    /// The machine, if something was measured.
    pub host: Option<Host>,
    /// Its ceilings, if they were probed.
    pub machine: Option<Machine>,
    /// What they allow this model.
    pub roofline: Option<Roofline>,
    /// What another runtime measured.
    pub imported: Option<Imported>,
    /// The most memory this process has held at once.
    pub peak_resident_bytes: Option<u64>,
    /// Sizes of the image input, where there is one.
    pub image: Option<Sizes>,
    /// Counts as polynomials of the free dims, where a format needs them.
    pub symbolic: Option<Symbolic>,
    /// Plain sentences: where time and MAdds part, and why.
    pub findings: Vec<String>,
    /// Things the reader must know.
    pub warnings: Vec<String>,
}
