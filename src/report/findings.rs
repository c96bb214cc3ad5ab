//! Plain sentences: where time and MAdds part, and why. Each is computed from the report's numbers and left out when they do not
//! support it.

use super::model::{ClassRow, Kind, Layer, Report};
use crate::analysis::Class;
use crate::engine::Path;
use crate::machine::Bound;
use crate::units::{iec, ms, percent, plural, rate, si};

/// A class is worth a sentence from this share of time or MAdds.
const WORTH: f64 = 0.05;
/// Shares part when one is this many times the other.
const PART: f64 = 1.5;

/// The sentences, most important first.
pub fn findings(report: &Report) -> Vec<String> {
    let mut out = Vec::new();
    coverage(report, &mut out);
    match report.main {
        Some(main) if report.latency.iter().any(|l| l.per_step) => {
            speed(report, main, &mut out);
            dominant(report, &mut out);
            parting(report, &mut out);
            free_of_madds(report, &mut out);
            fused(report, &mut out);
            fallbacks(report, main, &mut out);
            hottest(report, &mut out);
            bounds(report, &mut out);
            above(report, &mut out);
            overhead(report, &mut out);
        }
        Some(main) => speed(report, main, &mut out),
        None => on_paper(report, &mut out),
    }
    padding(report, &mut out);
    out
}

fn capital(words: &str) -> String {
    let mut c = words.chars();
    c.next().map_or(String::new(), |f| f.to_uppercase().chain(c).collect())
}

/// The operators of some rows, each once; of many the first five.
fn operators<'a>(rows: impl Iterator<Item = &'a Layer>) -> String {
    let mut ops: Vec<&str> = Vec::new();
    for l in rows {
        if !ops.contains(&l.op.as_str()) {
            ops.push(&l.op);
        }
    }
    let more = ops.len().saturating_sub(5);
    ops.truncate(5);
    let list: Vec<String> = ops.iter().map(|o| crate::error::printable(o)).collect();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", list.join(", "))
}

fn coverage(report: &Report, out: &mut Vec<String>) {
    let t = &report.totals;
    if t.unknown_nodes == 0 {
        return;
    }
    out.push(format!(
        "The cost of {} of {} is unknown ({}): the totals are lower bounds.",
        t.unknown_nodes,
        plural(t.nodes, "node"),
        operators(report.layers.iter().filter(|l| l.unknown_nodes > 0))
    ));
}

fn speed(report: &Report, main: Path, out: &mut Vec<String>) {
    let Some(l) = report.latency.iter().find(|l| l.path == main) else { return };
    let s = l.stats.median;
    if s <= 0.0 {
        return;
    }
    let madds = report.totals.work.madds as f64;
    let pace = if madds > 0.0 { format!(", {} GMAdd/s", rate(madds / s / 1e9)) } else { String::new() };
    // Another runtime's profile does not say on how many.
    let threads = if l.threads > 0 { format!(" on {}", plural(l.threads, "thread")) } else { String::new() };
    let mut text =
        format!("The {} path takes {} ms (median){pace}{threads} with {} kernels", main.name(), ms(s * 1e3), l.isa);
    if let (Some(x), Some(r)) = (report.speedup, report.latency.iter().find(|l| l.path == Path::Reference)) {
        if x >= 1.05 {
            text.push_str(&format!(
                "; the reference path takes {} ms, {} times as long",
                ms(r.stats.median * 1e3),
                rate(x)
            ));
        } else {
            text.push_str(&format!(
                "; the reference path takes {} ms, so the kernels gain nothing here",
                ms(r.stats.median * 1e3)
            ));
        }
    }
    text.push('.');
    out.push(text);
}

/// GMAdd/s of a class.
fn pace(c: &ClassRow) -> Option<f64> {
    c.ms.filter(|ms| *ms > 0.0 && c.work.madds > 0).map(|ms| c.work.madds as f64 / ms / 1e6)
}

fn intensity(c: &ClassRow) -> Option<f64> {
    let bytes = c.traffic.total();
    (bytes > 0).then(|| c.work.flops() as f64 / bytes as f64)
}

/// FLOPs per byte at which arithmetic and traffic would take equally long at the best paces any class reached in this very run.
fn balance(report: &Report) -> Option<f64> {
    let rates = |f: &dyn Fn(&ClassRow) -> u64| {
        let of = |c: &ClassRow| Some(f(c) as f64 / c.ms.filter(|ms| *ms > 0.0)?);
        let classes = report.classes.iter().filter(|c| c.time_share.unwrap_or(0.0) >= 0.01);
        classes.filter_map(of).fold(0.0, f64::max)
    };
    let (flops, bytes) = (rates(&|c| c.work.flops()), rates(&|c| c.traffic.total()));
    (flops > 0.0 && bytes > 0.0).then(|| flops / bytes)
}

fn dominant(report: &Report, out: &mut Vec<String>) {
    let Some(c) = report.classes.first() else { return };
    let Some(time) = c.time_share.filter(|t| *t >= WORTH) else { return };
    if c.work.madds > 0 && (time > PART * c.madds_share || c.madds_share > PART * time) {
        return; // the sentence on where shares part says it
    }
    let most = if time > 0.5 { "most" } else { "the largest part" };
    let mut text = format!("{} take {most} of the time: {}", capital(c.class.words()), percent(time));
    if c.work.madds > 0 {
        text.push_str(&format!(" of it for {} of the MAdds", percent(c.madds_share)));
        if let Some(p) = pace(c) {
            text.push_str(&format!(", {} GMAdd/s", rate(p)));
        }
    }
    text.push('.');
    out.push(text);
}

/// Classes whose share of time is far from their share of MAdds, with the reason the numbers give.
fn parting(report: &Report, out: &mut Vec<String>) {
    // The best pace among classes that matter, to compare with.
    let best = report
        .classes
        .iter()
        .filter(|c| c.madds_share >= WORTH)
        .filter_map(|c| Some((c, pace(c)?)))
        .max_by(|a, b| a.1.total_cmp(&b.1));
    let balance = balance(report);
    for c in report.classes.iter().filter(|c| c.work.madds > 0) {
        let (time, madds) = (c.time_share.unwrap_or(0.0), c.madds_share);
        let Some(own) = pace(c) else { continue };
        if time >= WORTH && time > PART * madds {
            let mut text = format!(
                "{} are {} of the MAdds but {} of the time: {} GMAdd/s",
                capital(c.class.words()),
                percent(madds),
                percent(time),
                rate(own)
            );
            if let Some((other, p)) = best.filter(|(o, _)| o.class != c.class) {
                text.push_str(&format!(" where {} reach {}", other.class.words(), rate(p)));
            }
            if let Some(i) = intensity(c) {
                text.push_str(&format!(". They do {} FLOPs per byte they must move", rate(i)));
                match balance {
                    Some(b) if i < b => text.push_str(&format!(
                        ", below the {} at which this run's best arithmetic and best traffic break even: memory sets their pace",
                        rate(b)
                    )),
                    Some(b) => text.push_str(&format!(
                        ", above this run's break-even of {}: it is not memory that slows them, but kernels that fill the vector units badly (few channels, small maps, odd shapes)",
                        rate(b)
                    )),
                    None => {}
                }
            }
            text.push('.');
            out.push(text);
        } else if madds >= WORTH && madds > PART * time {
            out.push(format!(
                "{} are {} of the MAdds in only {} of the time: {} GMAdd/s.",
                capital(c.class.words()),
                percent(madds),
                percent(time),
                rate(own)
            ));
        }
    }
}

/// Time spent where there is no MAdd at all.
fn free_of_madds(report: &Report, out: &mut Vec<String>) {
    let classes: Vec<&ClassRow> = report
        .classes
        .iter()
        .filter(|c| c.work.madds == 0 && c.time_share.unwrap_or(0.0) >= 0.005 && c.class != Class::Unknown)
        .collect();
    let time: f64 = classes.iter().filter_map(|c| c.time_share).sum();
    if time < WORTH {
        return;
    }
    let list: Vec<String> = classes
        .iter()
        .take(4)
        .map(|c| format!("{} {}", c.class.words(), percent(c.time_share.unwrap_or(0.0))))
        .collect();
    let bytes: u64 = classes.iter().map(|c| c.traffic.total()).fold(0, u64::saturating_add);
    out.push(format!(
        "{} of the time goes to work without a single MAdd ({}), which moves {}.",
        percent(time),
        list.join(", "),
        iec(bytes)
    ));
}

fn fused(report: &Report, out: &mut Vec<String>) {
    let fused: Vec<&ClassRow> = report.classes.iter().filter(|c| c.fused > 0).collect();
    let n: usize = fused.iter().map(|c| c.fused).sum();
    if n == 0 {
        return;
    }
    let mut by_count = fused.clone();
    by_count.sort_by_key(|c| std::cmp::Reverse(c.fused));
    let list: Vec<String> =
        by_count.iter().take(3).map(|c| format!("{} of {} {}", c.fused, c.nodes, c.class.words())).collect();
    let bytes: u64 = report
        .layers
        .iter()
        .filter(|l| matches!(l.optimized, super::model::Time::FusedInto(_)))
        .map(|l| l.traffic.total())
        .fold(0, u64::saturating_add);
    out.push(format!(
        "{} run inside their neighbours' steps and cost no time of their own ({}); on paper they would move {}.",
        plural(n, "node"),
        list.join(", "),
        iec(bytes)
    ));
}

fn hottest(report: &Report, out: &mut Vec<String>) {
    let rows = report.layers.iter().filter(|l| l.kind == Kind::Layer);
    let Some(l) = rows.max_by(|a, b| a.time_share.unwrap_or(0.0).total_cmp(&b.time_share.unwrap_or(0.0))) else {
        return;
    };
    let Some(time) = l.time_share.filter(|t| *t >= 0.10 && report.layers.len() > 4) else { return };
    let madds = l.madds_share.unwrap_or(0.0);
    out.push(format!(
        "The slowest single row is {} ({}): {} of the time for {} of the MAdds.",
        crate::error::printable(&l.name),
        crate::error::printable(&l.op),
        percent(time),
        percent(madds)
    ));
}

/// Steps of the optimized path for which there is no fast kernel.
fn fallbacks(report: &Report, main: Path, out: &mut Vec<String>) {
    let fell = |l: &&Layer| l.kernel.as_deref() == Some("reference");
    let rows: Vec<&Layer> = report.layers.iter().filter(fell).collect();
    if main != Path::Optimized || rows.is_empty() {
        return;
    }
    let time: f64 = rows.iter().filter_map(|l| l.time_share).sum();
    out.push(format!(
        "{} of the optimized path {} no fast kernel yet and run{} on the reference one ({}): {} of the time.",
        plural(rows.len(), "step"),
        if rows.len() == 1 { "has" } else { "have" },
        if rows.len() == 1 { "s" } else { "" },
        operators(rows.iter().copied()),
        percent(time)
    ));
}

/// What sets the pace of the steps, and how near they come.
fn bounds(report: &Report, out: &mut Vec<String>) {
    let Some(r) = &report.roofline else { return };
    let total: f64 = r.by_bound.iter().filter_map(|b| b.ms).sum();
    let part = |b: &super::roofline::ByBound| {
        let ms = b.ms.filter(|ms| *ms >= WORTH * total && *ms > 0.0)?;
        let share = percent(ms / total);
        let what = match b.bound {
            Bound::Compute => "arithmetic".to_string(),
            Bound::Memory(level) => level.name(),
            Bound::Overhead => return Some(format!("steps with hardly any work take {share} of it")),
        };
        let reached = percent(b.attainable_ms / ms);
        Some(format!("steps bound by {what} take {share} of it at {reached} of what is attainable"))
    };
    let parts: Vec<String> = r.by_bound.iter().filter_map(part).collect();
    if !parts.is_empty() {
        out.push(format!("Of the steps' time, {}.", parts.join("; ")));
    }
}

/// Rows above their ceiling: something about the ceiling is wrong, and what it can be.
fn above(report: &Report, out: &mut Vec<String>) {
    let rows: Vec<(&Layer, f64)> =
        report.layers.iter().filter_map(|l| Some((l, l.efficiency().filter(|e| *e > 1.0)?))).collect();
    let Some((most, x)) = rows.iter().max_by(|a, b| a.1.total_cmp(&b.1)) else { return };
    out.push(format!(
        "{} above {} ceiling (!), {} by the most, {} times: an algorithm with fewer multiplications than the ceiling assumes, bytes that lay nearer than assumed, or a probe on a busy machine (`madd-prof machine --probe`).",
        if rows.len() == 1 { "1 row is".to_string() } else { format!("{} rows are", rows.len()) },
        if rows.len() == 1 { "its" } else { "their" },
        crate::error::printable(&most.name),
        rate(*x)
    ));
}

fn overhead(report: &Report, out: &mut Vec<String>) {
    let time: f64 = report.overhead.iter().filter_map(|l| l.time_share).sum();
    if time >= WORTH {
        let list: Vec<String> = report
            .overhead
            .iter()
            .filter(|l| l.time_share.unwrap_or(0.0) >= 0.01)
            .map(|l| format!("{} {}", l.name, percent(l.time_share.unwrap_or(0.0))))
            .collect();
        out.push(format!("{} of the time belongs to no operator: {}.", percent(time), list.join(", ")));
    }
}

/// Without a measurement: which class holds the MAdds and which the bytes.
fn on_paper(report: &Report, out: &mut Vec<String>) {
    let total_bytes = report.totals.traffic.total() as f64;
    for c in report.classes.iter().filter(|c| c.work.madds > 0) {
        let bytes = c.traffic.total() as f64 / total_bytes.max(1.0);
        if c.madds_share >= WORTH && bytes > PART * c.madds_share {
            out.push(format!(
                "{} are {} of the MAdds but {} of the bytes ({} FLOPs per byte): expect them to take more time than their MAdds say.",
                capital(c.class.words()),
                percent(c.madds_share),
                percent(bytes),
                rate(intensity(c).unwrap_or(0.0))
            ));
        }
    }
}

fn padding(report: &Report, out: &mut Vec<String>) {
    let w = &report.totals.work;
    let wasted = w.madds.saturating_sub(w.useful_madds);
    if w.madds > 0 && wasted as f64 / w.madds as f64 >= 0.01 {
        out.push(format!(
            "{} MAdds ({}) multiply padding; papers count them, and so do the totals here.",
            si(wasted),
            percent(wasted as f64 / w.madds as f64)
        ));
    }
}
