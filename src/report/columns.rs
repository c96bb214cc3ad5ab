//! The columns of the layer table: one list, used by every format. Keys are a contract; new columns go to the end.

use super::model::{Kind, Layer, Report, Time};
use crate::cost::Span;
use crate::engine::Path;
use crate::tensor::Shape;

/// A typed value with its unit.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// Words.
    Text(String),
    /// A name from a file.
    Name(String),
    /// A shape.
    Shape(Shape),
    /// An exact count.
    Count(u64),
    /// What is known of a count that is not known whole: a lower bound.
    AtLeast(u64),
    /// A count between bounds.
    Between(Span),
    /// Bytes.
    Bytes(u64),
    /// What is known of bytes that are not known whole.
    AtLeastBytes(u64),
    /// Milliseconds.
    Ms(f64),
    /// 10⁹ per second.
    Giga(f64),
    /// A plain ratio.
    Ratio(f64),
    /// A share of a total, 0 to 1.
    Share(f64),
    /// Attainable ÷ measured time; above 1 something is to be explained.
    Efficiency(f64),
    /// A difference of counts.
    Delta(i64),
    /// Yes or no.
    Flag(bool),
    /// Done inside the named row.
    FusedInto(String),
    /// Not known: never zero.
    Unknown,
    /// Does not apply.
    Blank,
}

/// One column.
pub struct Column {
    /// Key in CSV and JSON, with the unit.
    pub key: &'static str,
    /// Heading for people; `None` where the column is for machines only.
    pub title: Option<&'static str>,
    /// Which columns give way first on a narrow terminal (larger first; 0 never).
    pub yields: u8,
    /// Whether it only means something once times were measured.
    pub measured: bool,
    /// The value of a row.
    pub get: fn(&Layer, &Report) -> Cell,
}

fn spanned(l: &Layer, span: Span) -> Cell {
    match (l.kind, span.known(), span) {
        (Kind::Overhead, ..) => Cell::Blank,
        (_, Some(n), _) => Cell::Count(n),
        (_, None, Span { low: 0, high: None }) => Cell::Unknown,
        (_, None, Span { low, high: None }) => Cell::AtLeast(low),
        (_, None, span) => Cell::Between(span),
    }
}
/// A bound of a count that is not known; blank where it is, or where there is no bound.
fn bound(l: &Layer, span: Span, bound: Option<u64>) -> Cell {
    match bound {
        Some(n) if l.kind != Kind::Overhead && span.known().is_none() => Cell::Count(n),
        _ => Cell::Blank,
    }
}
fn counted(l: &Layer, n: u64) -> Cell {
    match l.kind {
        Kind::Overhead => Cell::Blank,
        _ if l.unknown_nodes == 0 => Cell::Count(n),
        _ if l.unknown_nodes == l.nodes => Cell::Unknown,
        _ => Cell::AtLeast(n),
    }
}
fn moved(l: &Layer, n: u64) -> Cell {
    match l.kind {
        Kind::Overhead => Cell::Blank,
        _ if l.unknown_traffic == 0 => Cell::Bytes(n),
        _ if l.unknown_traffic == l.nodes => Cell::Unknown,
        _ => Cell::AtLeastBytes(n),
    }
}
fn plain(l: &Layer, n: u64) -> Cell {
    if l.kind == Kind::Overhead { Cell::Blank } else { Cell::Count(n) }
}
fn time(t: &Time) -> Cell {
    match t {
        Time::None => Cell::Blank,
        Time::Ms(ms) => Cell::Ms(*ms),
        Time::FusedInto(name) => Cell::FusedInto(name.clone()),
    }
}
fn opt(v: Option<f64>, make: fn(f64) -> Cell) -> Cell {
    v.map_or(Cell::Blank, make)
}

/// The columns, in order.
pub static COLUMNS: &[Column] = &[
    Column { key: "name", title: Some("Layer"), yields: 0, measured: false, get: |l, _| Cell::Name(l.name.clone()) },
    Column { key: "kind", title: None, yields: 0, measured: false, get: |l, _| Cell::Text(l.kind.name().to_string()) },
    Column { key: "op", title: Some("Op"), yields: 3, measured: false, get: |l, _| Cell::Name(l.op.clone()) },
    Column {
        key: "class",
        title: None,
        yields: 0,
        measured: false,
        get: |l, _| l.class.map_or(Cell::Blank, |c| Cell::Text(c.name().to_string())),
    },
    Column {
        key: "output_shape",
        title: Some("Output"),
        yields: 5,
        measured: false,
        get: |l, _| l.output_shape.clone().map_or(Cell::Blank, Cell::Shape),
    },
    Column { key: "params", title: Some("Params"), yields: 2, measured: false, get: |l, _| plain(l, l.params) },
    Column { key: "shared_params", title: None, yields: 0, measured: false, get: |l, _| plain(l, l.shared_params) },
    Column { key: "statistics", title: None, yields: 0, measured: false, get: |l, _| plain(l, l.statistics) },
    Column { key: "madds", title: Some("MAdds"), yields: 0, measured: false, get: |l, _| spanned(l, l.span.madds) },
    Column {
        key: "useful_madds",
        title: None,
        yields: 0,
        measured: false,
        get: |l, _| counted(l, l.work.useful_madds),
    },
    Column { key: "other_flops", title: None, yields: 0, measured: false, get: |l, _| spanned(l, l.span.other_flops) },
    Column { key: "flops", title: Some("FLOPs"), yields: 8, measured: false, get: |l, _| spanned(l, l.span.flops()) },
    Column {
        key: "weight_bytes",
        title: None,
        yields: 0,
        measured: false,
        get: |l, _| moved(l, l.traffic.weight_bytes),
    },
    Column { key: "read_bytes", title: None, yields: 0, measured: false, get: |l, _| moved(l, l.traffic.read_bytes) },
    Column { key: "write_bytes", title: None, yields: 0, measured: false, get: |l, _| moved(l, l.traffic.write_bytes) },
    Column { key: "bytes", title: Some("Bytes"), yields: 7, measured: false, get: |l, _| moved(l, l.traffic.total()) },
    Column {
        key: "intensity",
        title: Some("FLOP/B"),
        yields: 6,
        measured: false,
        get: |l, _| opt(l.intensity(), Cell::Ratio),
    },
    Column {
        key: "known",
        title: None,
        yields: 0,
        measured: false,
        get: |l, _| if l.kind == Kind::Overhead { Cell::Blank } else { Cell::Flag(l.unknown_nodes == 0) },
    },
    Column {
        key: "static",
        title: None,
        yields: 0,
        measured: false,
        get: |l, _| if l.kind == Kind::Overhead { Cell::Blank } else { Cell::Flag(l.kind == Kind::Static) },
    },
    Column { key: "reference_ms", title: Some("Ref ms"), yields: 4, measured: true, get: |l, _| time(&l.reference) },
    Column { key: "optimized_ms", title: Some("Opt ms"), yields: 0, measured: true, get: |l, _| time(&l.optimized) },
    Column {
        key: "gmadds_per_s",
        title: Some("GMAdd/s"),
        yields: 1,
        measured: true,
        get: |l, _| opt(l.madds_per_s, |v| Cell::Giga(v / 1e9)),
    },
    Column {
        key: "madds_share",
        title: Some("%MAdds"),
        yields: 0,
        measured: false,
        get: |l, _| opt(l.madds_share, Cell::Share),
    },
    Column {
        key: "time_share",
        title: Some("%time"),
        yields: 0,
        measured: true,
        get: |l, _| opt(l.time_share, Cell::Share),
    },
    Column {
        key: "kernel",
        title: None,
        yields: 0,
        measured: true,
        get: |l, _| l.kernel.clone().map_or(Cell::Blank, Cell::Text),
    },
    Column { key: "nodes", title: None, yields: 0, measured: false, get: |l, _| Cell::Count(l.nodes as u64) },
    Column {
        key: "operands",
        title: None,
        yields: 0,
        measured: false,
        get: |l, _| l.operands.clone().map_or(Cell::Blank, Cell::Text),
    },
    Column {
        key: "activation_madds",
        title: None,
        yields: 0,
        measured: false,
        get: |l, _| counted(l, l.activation_madds),
    },
    Column {
        key: "madds_low",
        title: None,
        yields: 0,
        measured: false,
        get: |l, _| bound(l, l.span.madds, Some(l.span.madds.low)),
    },
    Column {
        key: "madds_high",
        title: None,
        yields: 0,
        measured: false,
        get: |l, _| bound(l, l.span.madds, l.span.madds.high),
    },
    Column { key: "basis", title: None, yields: 0, measured: false, get: |l, _| basis(l) },
    Column {
        key: "attainable_ms",
        title: Some("Roof ms"),
        yields: 9,
        measured: true,
        get: |l, _| opt(l.attainable_ms, Cell::Ms),
    },
    Column {
        key: "bound",
        title: Some("Bound"),
        yields: 3,
        measured: true,
        get: |l, _| l.bound.map_or(Cell::Blank, |b| Cell::Text(b.name())),
    },
    Column {
        key: "efficiency",
        title: Some("%roof"),
        yields: 2,
        measured: true,
        get: |l, _| opt(l.efficiency(), Cell::Efficiency),
    },
    Column {
        key: "above_ceiling",
        title: None,
        yields: 0,
        measured: true,
        get: |l, _| l.efficiency().map_or(Cell::Blank, |e| Cell::Flag(e > 1.0)),
    },
    Column { key: "runtime_ms", title: Some("Run ms"), yields: 0, measured: true, get: |l, _| time(&l.runtime) },
    Column { key: "module", title: None, yields: 0, measured: false, get: |l, _| module(l) },
    Column {
        key: "live_bytes",
        title: None,
        yields: 0,
        measured: false,
        get: |l, _| l.live_bytes.map_or(Cell::Blank, Cell::Bytes),
    },
];

/// The module a row belongs to; of a module, the one above it.
fn module(l: &Layer) -> Cell {
    match l.path.split_last() {
        Some((_, parents)) if !parents.is_empty() => Cell::Name(parents.join(".")),
        _ => Cell::Blank,
    }
}

/// What a row's counts rest on.
fn basis(l: &Layer) -> Cell {
    let word = match l.kind {
        Kind::Overhead => return Cell::Blank,
        _ if l.unknown_nodes == 0 && l.is_executed => "executed",
        _ if l.unknown_nodes == 0 => "rule",
        _ if l.unknown_nodes < l.nodes || l.span.madds.low > 0 => "partial",
        _ => "unknown",
    };
    Cell::Text(word.to_string())
}

/// Whether a column says something in this report.
pub fn applies(column: &Column, report: &Report) -> bool {
    let has = |path: Path| report.latency.iter().any(|l| l.path == path);
    match column.key {
        "reference_ms" => has(Path::Reference),
        "optimized_ms" => has(Path::Optimized),
        "runtime_ms" => has(Path::Runtime),
        "attainable_ms" | "bound" | "efficiency" | "above_ceiling" => report.roofline.is_some(),
        _ => !column.measured || report.main.is_some(),
    }
}

/// The sums, as a row of the same columns.
pub fn total_row(report: &Report) -> Layer {
    let t = &report.totals;
    let latency = |path: Path| {
        let l = report.latency.iter().find(|l| l.path == path && l.per_step);
        l.map_or(Time::None, |l| Time::Ms(l.stats.median * 1e3))
    };
    let main_s = report.latency.iter().find(|l| Some(l.path) == report.main).map(|l| l.stats.median);
    Layer {
        params: t.params,
        statistics: t.statistics,
        work: t.work,
        span: t.span,
        activation_madds: t.activation_madds,
        traffic: t.traffic,
        nodes: t.nodes,
        unknown_nodes: t.unknown_nodes,
        unknown_traffic: t.unknown_traffic,
        reference: latency(Path::Reference),
        optimized: latency(Path::Optimized),
        runtime: latency(Path::Runtime),
        madds_share: (t.work.madds > 0).then_some(1.0),
        time_share: report.main.map(|_| 1.0),
        attainable_ms: report.roofline.as_ref().filter(|r| r.unknown_steps == 0).map(|r| r.attainable_ms),
        madds_per_s: main_s.filter(|s| *s > 0.0 && t.work.madds > 0).map(|s| t.work.madds as f64 / s),
        ..Layer::empty(Kind::Rest, "total")
    }
}
