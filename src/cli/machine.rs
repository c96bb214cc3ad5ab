//! `machine`: this machine's ceilings, from a probe that is kept, and where arithmetic and traffic break even.

use super::args::MachineArgs;
use super::load::{self, Want};
use super::{FINE, output};
use crate::error::Result;
use crate::machine::{Ceilings, Machine, Reach, STEADY, cache};
use crate::report::Cell;
use crate::report::grid::{Grid, GridColumn};
use crate::report::roofline::age;
use crate::units::{plural, rate};
use serde_json::json;

/// Probes if need be, and shows.
///
/// # Errors
/// If the format is wrong, or the result cannot be written.
pub fn run(args: &MachineArgs) -> Result<u8> {
    output::grid_format(&args.output)?;
    let want = if args.probe { Want::New } else { Want::Any };
    // Probing gives ceilings on any machine.
    if let Some((machine, age_s)) = load::ceilings(want, args.quiet) {
        output::show_grid(&grid(&machine, age_s), &args.output)?;
    }
    Ok(FINE)
}

fn grid(m: &Machine, age_s: u64) -> Grid {
    let i = &m.identity;
    let kept = cache::folder().map(|f| f.join("machine.json")).filter(|f| f.exists());
    let place = kept.as_ref().map_or_else(|| "not kept".to_string(), |f| format!("kept in {}", f.display()));
    let mut columns = vec![
        GridColumn::new("ceiling", "Ceiling"),
        GridColumn::new("unit", "Unit"),
        GridColumn::new("size_bytes", "Size").yields(1),
    ];
    for r in &m.reach {
        columns.push(GridColumn::new(&format!("threads_{}", r.threads), &plural(r.threads, "thread")));
    }
    for r in &m.reach {
        columns.push(
            GridColumn::new(&format!("ridge_flops_per_byte_{}", r.threads), &format!("ridge {}t", r.threads)).yields(2),
        );
    }
    let caches: Vec<String> = m
        .caches
        .iter()
        .map(|c| {
            let shared = if c.shared_by > 1 { format!(" for {} cores", c.shared_by) } else { String::new() };
            format!("L{} {}{shared}", c.level, crate::units::iec(c.bytes))
        })
        .collect();
    let mut notes = vec![
        "ridge: FLOPs per byte read at which the best instruction set's arithmetic takes as long as reading from that level; steps below it are bound by memory.".to_string(),
        "copy: bytes read and bytes written both count.".to_string(),
    ];
    if m.steadiness < STEADY {
        notes.push(format!(
            "The machine was busy during the probe (middle burst {} of the best): --probe when it is idle may show more.",
            crate::units::percent(m.steadiness)
        ));
    }
    let mut ceilings = cache::machine_json(m);
    if let Some(map) = ceilings.as_object_mut() {
        map.insert("age_s".into(), json!(age_s));
        map.insert("kept_in".into(), json!(kept));
        map.insert(
            "identity".into(),
            json!({
                "cpu": i.cpu, "cores": i.cores, "platform": i.platform, "isas": i.isas, "version": i.version,
            }),
        );
    }
    Grid {
        name: "ceilings",
        heading: format!("{} · {} · {}", i.cpu, plural(i.cores, "core"), i.platform),
        heading_key: "title",
        summary: vec![
            ("Probed".to_string(), format!("{} ago in {} s, {place}", age(age_s), rate(m.probe_s))),
            ("Caches".to_string(), if caches.is_empty() { "none found".to_string() } else { caches.join(", ") }),
            ("Instructions".to_string(), i.isas.join(", ")),
            ("Clock".to_string(), format!("{} ns per reading", rate(m.timer_s * 1e9))),
        ],
        columns,
        rows: rows(m),
        notes,
        extra: vec![("machine".to_string(), ceilings)],
        ..Grid::default()
    }
}

/// One row per ceiling, a column per number of threads.
fn rows(m: &Machine) -> Vec<Vec<Cell>> {
    let Some(first) = m.reach.first() else { return Vec::new() };
    let best = m.identity.isas.last().map_or("portable", String::as_str);
    let row = |name: String,
               unit: &str,
               size: Cell,
               value: &dyn Fn(&Reach) -> Option<f64>,
               ridge: &dyn Fn(&Reach) -> Option<f64>| {
        let cell = |v: Option<f64>| v.map_or(Cell::Blank, Cell::Ratio);
        let mut cells = vec![Cell::Text(name), Cell::Text(unit.to_string()), size];
        cells.extend(m.reach.iter().map(|r| cell(value(r))));
        cells.extend(m.reach.iter().map(|r| cell(ridge(r))));
        cells
    };
    let none = |_: &Reach| None;
    let mut out = Vec::new();
    for p in &first.peaks {
        let of = |r: &Reach| r.peaks.iter().find(|o| o.isa == p.isa && o.dtype == p.dtype).map(|o| o.madds_per_s / 1e9);
        out.push(row(format!("{} {}", p.isa, p.dtype), "GMAdd/s", Cell::Blank, &of, &none));
    }
    for (k, b) in first.memory.iter().enumerate() {
        let size = m.caches.iter().find(|c| crate::machine::Level::Cache(c.level) == b.level);
        let size = || size.map_or(Cell::Blank, |c| Cell::Bytes(c.bytes));
        let read = |r: &Reach| r.memory.get(k).map(|b| b.read_bytes_per_s / 1e9);
        let copy = |r: &Reach| r.memory.get(k).map(|b| b.copy_bytes_per_s / 1e9);
        let ridge = |r: &Reach| {
            let c = Ceilings::of(m, best, r.threads)?;
            Some(c.ridge(c.shelves.get(k)?))
        };
        out.push(row(format!("read {}", b.level.name()), "GB/s", size(), &read, &ridge));
        out.push(row(format!("copy {}", b.level.name()), "GB/s", size(), &copy, &none));
    }
    let join = |r: &Reach| (r.threads > 1).then_some(r.fork_join_s * 1e6);
    out.push(row("fork and join".to_string(), "µs", Cell::Blank, &join, &none));
    out
}
