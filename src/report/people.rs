//! What the formats for people share: rounded cells, the summary lines around the layer table.

use super::columns::Cell;
use super::model::{Kind, Latency, Layer, Report, Time};
use crate::cost::Span;
use crate::error::printable;
use crate::lens::Lens;
use crate::measure::import::By;
use crate::units::{exact, iec, ms, percent, plural, rate, si};

/// A cell as people read it.
pub fn cell(c: &Cell) -> String {
    match c {
        Cell::Text(s) | Cell::Name(s) => printable(s),
        Cell::Shape(s) => s.to_string(),
        Cell::Count(0) => "-".to_string(),
        Cell::Count(n) => si(*n),
        // The bounds are in the totals and, for machines, in columns of their own.
        Cell::Between(s) if s.low == 0 => "unknown".to_string(),
        Cell::Between(s) => format!("≥ {}", si(s.low)),
        Cell::AtLeast(n) => format!("≥ {}", si(*n)),
        Cell::AtLeastBytes(n) => format!("≥ {}", iec(*n)),
        Cell::Bytes(0) => "-".to_string(),
        Cell::Bytes(n) => iec(*n),
        Cell::Ms(v) => ms(*v),
        Cell::Giga(v) | Cell::Ratio(v) => rate(*v),
        Cell::Share(v) if *v == 0.0 => "-".to_string(),
        Cell::Share(v) => format!("{:.1}", v * 100.0),
        // Above its ceiling: the ceiling or the count does not tell all, and the mark says so.
        Cell::Efficiency(v) => format!("{:.1}{}", v * 100.0, if *v > 1.0 { "!" } else { "" }),
        Cell::Delta(0) => "-".to_string(),
        Cell::Delta(n) => format!("{}{}", if *n < 0 { "-" } else { "+" }, si(n.unsigned_abs())),
        Cell::Flag(b) => if *b { "yes" } else { "no" }.to_string(),
        Cell::FusedInto(_) => "fused".to_string(),
        Cell::Unknown => "unknown".to_string(),
        Cell::Blank => String::new(),
    }
}

/// A row's name as people read it: its module path. Where the operator has a column of its own, the path does not repeat it.
pub fn display_name(l: &Layer, with_op: bool) -> String {
    if let Some((level, said)) = l.nesting {
        // Under its module a row need not repeat the module's path.
        let own = Layer {
            path: l.path.get(said..).unwrap_or_default().to_vec(),
            nesting: None,
            ..Layer::empty(l.kind, &l.name)
        };
        let name = match l.kind {
            Kind::Module => printable(&own.path.join(".")),
            _ => display_name(&Layer { op: l.op.clone(), ..own }, with_op),
        };
        return format!("{}{name}", "  ".repeat(level));
    }
    let fixed = !matches!(l.kind, Kind::Layer | Kind::Static) || l.path.is_empty();
    if fixed {
        return printable(&l.name);
    }
    let op = l.op.rsplit('.').next().unwrap_or(&l.op);
    let (last, parents) = l.path.split_last().map_or(("", &[][..]), |(a, b)| (a.as_str(), b));
    let parts = if with_op && !parents.is_empty() && last.eq_ignore_ascii_case(op) { parents } else { &l.path };
    printable(&parts.join("."))
}

/// Whether a cell's text belongs to the right.
pub fn is_number(c: &Cell) -> bool {
    !matches!(c, Cell::Text(_) | Cell::Name(_) | Cell::Shape(_))
}

/// One line that says what the model is.
pub fn heading(report: &Report) -> String {
    let m = &report.model;
    let mut parts = vec![printable(&m.name)];
    if let Some((_, version)) = m.opsets.iter().find(|(d, _)| d.is_empty() || d == "ai.onnx") {
        parts.push(format!("opset {version}"));
    }
    let port = |p: &super::model::Port| {
        let dtype = p.fact.dtype.map_or("?", |d| d.name());
        format!("{}={} {dtype}", printable(&p.name), p.fact.shape)
    };
    let inputs: Vec<String> = m.inputs.iter().take(4).map(port).collect();
    let more = m.inputs.len().saturating_sub(4);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    if !inputs.is_empty() {
        parts.push(format!("{}{more}", inputs.join(", ")));
    }
    if let Some(host) = &report.host
        && let Some(cpu) = &host.cpu
    {
        parts.push(printable(cpu));
    }
    parts.join(" · ")
}

/// The exact totals, as (label, exact value, remark).
pub fn totals(report: &Report) -> Vec<(String, String, String)> {
    let t = &report.totals;
    let mut out = Vec::new();
    let mut params = iec(t.param_bytes);
    if t.statistics > 0 {
        params.push_str(&format!("; BatchNorm statistics {} more", exact(t.statistics)));
    }
    out.push(("Params".into(), exact(t.params), params));
    if t.statistics > 0 {
        let both = exact(t.params.saturating_add(t.statistics));
        out.push((
            "  with statistics".into(),
            both,
            "running means and variances included, as a checkpoint holds them".into(),
        ));
    }
    if let Some(d) = &report.distinct {
        let one = |c: &crate::analysis::Copied| {
            let how = if c.is_transposed { " transposed" } else { "" };
            format!("'{}' is '{}'{how}", printable(&c.name), printable(&c.of))
        };
        let mut list: Vec<String> = d.copies.iter().take(3).map(one).collect();
        if d.copies.len() > 3 {
            list.push(format!("{} more", d.copies.len() - 3));
        }
        let words = if list.is_empty() { "no tensor repeats another".to_string() } else { list.join("; ") };
        out.push(("  distinct".into(), exact(d.params), words));
    }
    let mut madds = "multiply-adds (MACs)".to_string();
    if let Some(remark) = bounds(t.span.madds) {
        madds.push_str(&remark);
    }
    if t.activation_madds > 0 && t.activation_madds < t.work.madds {
        let weights = exact(t.work.madds - t.activation_madds);
        madds.push_str(&format!("; {weights} with weights, {} between activations", exact(t.activation_madds)));
    }
    out.push(("MAdds".into(), at_least(t.span.madds), madds));
    if report.madds_by_type.len() > 1 || report.madds_by_type.iter().any(|(k, _)| k != "float32 x float32") {
        let types: Vec<String> = report.madds_by_type.iter().map(|(k, n)| format!("{k} {}", exact(*n))).collect();
        out.push(("  by type".into(), String::new(), types.join(", ")));
    }
    let other = format!("2 x MAdds + {} other", at_least(t.span.other_flops));
    out.push(("FLOPs".into(), at_least(t.span.flops()), other));
    let b = &t.traffic;
    let split = format!("weights {}, read {}, written {}", iec(b.weight_bytes), iec(b.read_bytes), iec(b.write_bytes));
    let bound = if t.unknown_traffic > 0 { "≥ " } else { "" };
    out.push(("Bytes moved".into(), format!("{bound}{}", exact(b.total())), split));
    // Indices and conditions are of other types in nearly every model; what matters is a second type of weight.
    let typed: Vec<&(String, u64)> =
        report.bytes_by_type.iter().filter(|(_, n)| *n as f64 >= 0.01 * b.total() as f64).collect();
    if typed.len() > 1 || typed.iter().any(|(k, _)| k != "float32") {
        let types: Vec<String> = typed.iter().map(|(k, n)| format!("{k} {}", iec(*n))).collect();
        out.push(("  by type".into(), String::new(), types.join(", ")));
    }
    if let Some(peak) = t.peak_activation_bytes {
        out.push(("Peak activations".into(), exact(peak), iec(peak)));
    }
    let mut nodes = Vec::new();
    if report.static_nodes > 0 {
        nodes.push(format!("{} computed once when the model loads", report.static_nodes));
    }
    let (unknown, c) = (t.unknown_nodes, &t.coverage);
    let run = if c.executed_nodes > 0 { format!(", {} from a run", c.executed_nodes) } else { String::new() };
    nodes.push(if unknown == 0 { format!("all costs known{run}") } else { format!("{unknown} of unknown cost{run}") });
    out.push(("Nodes".into(), exact(t.nodes as u64), nodes.join(", ")));
    if unknown > 0 {
        let bytes = c.byte_share().map_or("unknown share of bytes".into(), |s| format!("{} of bytes", share(s)));
        let time = report.time_coverage.map_or(String::new(), |s| format!(", {} of time", share(s)));
        let text = format!("of nodes, {bytes}{time} have a known cost");
        out.push(("Coverage".into(), share(c.node_share()), text));
    }
    for c in &report.conventions {
        out.push((c.name.to_string(), exact(c.value), c.words.to_string()));
    }
    out
}

/// A share that is 100 % only when it is all.
fn share(s: f64) -> String {
    if s < 1.0 { percent(s.min(0.999)) } else { "100 %".into() }
}

/// A count, or the least it can be.
fn at_least(s: Span) -> String {
    if s.known().is_some() { exact(s.low) } else { format!("≥ {}", exact(s.low)) }
}

/// What bounds a count from above when it is not known.
fn bounds(s: Span) -> Option<String> {
    match (s.known(), s.high) {
        (Some(_), _) => None,
        (None, Some(high)) => Some(format!(", at most {}", exact(high))),
        (None, None) => Some(", with no upper bound".to_string()),
    }
}

/// What other counters print: (tool and figure, our MAdds and every line that leads there as (amount, nodes, reason), notes).
pub fn rosetta(l: &Lens) -> (String, Vec<[String; 3]>) {
    let name = format!("{} {} \"{}\"", l.tool, l.version, l.figure_name);
    let signed = |n: i64| format!("{}{}", if n < 0 { "-" } else { "+" }, exact(n.unsigned_abs()));
    let mut rows = Vec::new();
    if let Some(figure) = l.figure {
        rows.push([exact(l.ours_madds), String::new(), "our MAdds".to_string()]);
        rows.extend(l.lines.iter().map(|line| [signed(line.amount), line.nodes.to_string(), line.why.clone()]));
        rows.push([format!("= {}", exact(figure)), String::new(), format!("what {} prints", l.tool)]);
    }
    (name, rows)
}

/// The latency lines, as (path, sentence).
pub fn latencies(report: &Report) -> Vec<(String, String)> {
    let mut out: Vec<(String, String)> =
        report.latency.iter().map(|l| (l.path.name().to_string(), latency(l))).collect();
    if let Some(i) = &report.imported {
        out.push(("imported".to_string(), imported(i)));
    }
    if let Some(r) = &report.roofline {
        out.push(("floor".to_string(), r.words()));
    }
    if let Some(bytes) = report.peak_resident_bytes {
        out.push(("memory".to_string(), format!("{} at most, the whole process", iec(bytes))));
    }
    out
}

/// How much of another runtime's time the source nodes account for, and what is left.
fn imported(i: &super::model::Imported) -> String {
    let by = |by: By| i.rows.iter().filter(|r| r.by == by).count();
    let mut text = format!(
        "{} of the {} ms that {} rows of {} took is mapped to source nodes ({} rows by name, {} by order and shape",
        percent(if i.measured_ms > 0.0 { i.mapped_ms / i.measured_ms } else { 0.0 }),
        ms(i.measured_ms),
        i.rows.len(),
        i.runtime,
        by(By::Name),
        by(By::Order)
    );
    let rest = i.remainder();
    if rest.is_empty() {
        text.push_str("; nothing is left)");
        return text;
    }
    let mut list: Vec<String> =
        rest.iter().take(6).map(|(op, n, t)| format!("{} x{n} {} ms", printable(op), ms(*t))).collect();
    if rest.len() > 6 {
        list.push(format!("{} more", rest.len() - 6));
    }
    text.push_str(&format!("); of the runtime's own: {}", list.join(", ")));
    text
}

fn latency(l: &Latency) -> String {
    let s = &l.stats;
    let v = |x: f64| ms(x * 1e3);
    let mut text = format!("median {} ms", v(s.median));
    if s.runs > 1 {
        text.push_str(&format!(", min {}, p90 {}, MAD {}", v(s.min), v(s.p90), v(s.mad)));
    }
    if let Some((low, high)) = s.median_ci {
        text.push_str(&format!(", 95 % interval {} to {}", v(low), v(high)));
    }
    text.push_str(&format!(" ({} after {} of warm-up", plural(s.runs, "run"), l.warmup_runs));
    if l.stop != "steady" {
        text.push_str(&format!(", stopped by the {}", l.stop));
    }
    match l.threads {
        0 => text.push_str(&format!("; {}", l.isa)),
        n => text.push_str(&format!("; {}, {}", plural(n, "thread"), l.isa)),
    }
    if s.outliers > 0 {
        text.push_str(&format!("; {} interrupted", plural(s.outliers, "run")));
    }
    if let Some(s) = l.prepare_s {
        text.push_str(&format!("; ready after {} ms", v(s)));
        if let Some(bytes) = l.kept_bytes.filter(|b| *b > 0) {
            text.push_str(&format!(", {} of its weights packed by an earlier run", iec(bytes)));
        }
        if let Some(s) = l.first_s {
            text.push_str(&format!(", first result after {} ms", v(s)));
        }
    }
    if let Some(bytes) = l.arena_bytes {
        text.push_str(&format!("; arena {}", iec(bytes)));
    }
    text.push(')');
    text
}

/// Rows of the class table: class, nodes, fused, MAdds, share, time, share.
pub fn classes(report: &Report) -> (Vec<&'static str>, Vec<Vec<String>>) {
    let measured = report.main.is_some() && report.classes.iter().any(|c| c.ms.is_some());
    let mut head = vec!["Kind of work", "Nodes", "MAdds", "%MAdds", "FLOP/B"];
    if measured {
        head.extend(["ms", "%time", "GMAdd/s"]);
    }
    let mut rows = Vec::new();
    for c in &report.classes {
        let bytes = c.traffic.total();
        let blank = |b: bool, s: String| if b { s } else { "-".to_string() };
        let mut row = vec![
            c.class.words().to_string(),
            c.nodes.to_string(),
            blank(c.work.madds > 0, si(c.work.madds)),
            blank(c.work.madds > 0, percent(c.madds_share).replace(" %", "")),
            blank(bytes > 0, rate(c.work.flops() as f64 / bytes.max(1) as f64)),
        ];
        if measured {
            let own = c.ms.filter(|ms| *ms > 0.0);
            row.push(match own {
                Some(v) => ms(v),
                None if c.fused == c.nodes => "fused".into(),
                None => "-".into(),
            });
            row.push(blank(own.is_some(), percent(c.time_share.unwrap_or(0.0)).replace(" %", "")));
            row.push(match own {
                Some(v) if c.work.madds > 0 => rate(c.work.madds as f64 / v / 1e6),
                _ => "-".into(),
            });
        }
        rows.push(row);
    }
    (head, rows)
}

/// Rows from which a table is called long.
const LONG: usize = 150;

/// What folding and hiding did to the rows, in words.
pub fn remarks(report: &Report) -> Vec<String> {
    let mut out = Vec::new();
    if report.layers.iter().any(|l| l.repeat > 1) {
        out.push("×N: N equal blocks in a row; values are their sum.".to_string());
    }
    if report
        .layers
        .iter()
        .any(|l| matches!(l.optimized, Time::FusedInto(_)) || matches!(l.runtime, Time::FusedInto(_)))
    {
        out.push(
            "fused: done inside the step of an earlier row, which holds the time; --format csv names it.".to_string(),
        );
    }
    if report.layers.iter().any(|l| l.efficiency().is_some()) {
        out.push("%roof: attainable / measured time; !: above the ceiling, see below.".to_string());
    }
    if report.layers.len() > LONG {
        out.push(format!("{} rows; --depth 2 sums them by module, --top 20 keeps the first.", report.layers.len()));
    }
    let shown = report.layers.iter().filter(|l| l.kind == Kind::Static).count();
    let hidden = report.static_nodes.saturating_sub(shown);
    if hidden > 0 && report.layers.iter().all(|l| l.kind != Kind::Group) {
        out.push(format!("{} computed once when the model loads not shown.", plural(hidden, "node")));
    }
    if report.totals.unknown_nodes > 0 {
        out.push("unknown: no cost rule, or a size that only a run gives; never counted as zero.".to_string());
    }
    out
}
