//! `count --symbolic` and `count --sweep`: counts as functions of free dims.

use super::args::CountArgs;
use super::{FINE, load, note, output};
use crate::analysis::symbolic::{CHECKS, Formula, Polynomial, Symbolic};
use crate::analysis::{self, Analysis};
use crate::error::{Error, Result};
use crate::ir::{self, Bindings};
use crate::ops::spec::{DimSpec, ModelSpec};
use crate::report::Cell;
use crate::report::grid::{Grid, GridColumn};
use crate::units::{exact, plural};
use serde_json::{Value, json};

/// The named dims of a model's inputs that are free.
fn free_dims(spec: &ModelSpec) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for d in spec.graph.inputs.iter().flat_map(|v| v.shape.iter().flatten()) {
        if let DimSpec::Named(n) = d
            && !names.contains(n)
        {
            names.push(n.clone());
        }
    }
    names
}

/// Refuses dims that the model does not have.
fn check(spec: &ModelSpec, dims: &[String], bindings: &Bindings) -> Result<()> {
    let free = free_dims(spec);
    for (i, dim) in dims.iter().enumerate() {
        if !free.contains(dim) {
            let hint = if free.is_empty() {
                "the model has no named free dims".to_string()
            } else {
                format!("its free dims are: {}", free.join(", "))
            };
            return Err(Error::usage(format!("the model has no free dim '{dim}'")).hint(hint));
        }
        if bindings.dims.contains_key(dim) {
            return Err(Error::usage(format!("'{dim}' is bound by --dim and cannot vary too")));
        }
        if dims[..i].contains(dim) {
            return Err(Error::usage(format!("'{dim}' is named twice")));
        }
    }
    Ok(())
}

/// Prints counts as polynomials.
///
/// # Errors
/// If a dim is not free or the model cannot be counted.
pub fn symbolic(args: &CountArgs) -> Result<u8> {
    output::grid_format(&args.output)?;
    let bindings = args.model.binding.bindings()?;
    let loaded = load::load(&args.model.model)?;
    let dims: Vec<String> = args.symbolic.iter().map(|d| d.trim().to_string()).filter(|d| !d.is_empty()).collect();
    check(&loaded.spec, &dims, &bindings)?;
    let found = analysis::symbolic::symbolic(&loaded.spec, &bindings, &dims).map_err(|e| match &loaded.path {
        Some(path) => e.in_file(std::path::Path::new(path)),
        None => e,
    })?;
    output::show_grid(&formulas(&loaded.name, &found, args.view.all), &args.output)?;
    Ok(FINE)
}

fn as_json(f: &Formula) -> Value {
    let terms = |p: &Polynomial| -> Value {
        let term = |(powers, c): &(Vec<u32>, analysis::symbolic::Ratio)| {
            let powers: serde_json::Map<String, Value> =
                p.dims.iter().zip(powers).filter(|(_, n)| **n > 0).map(|(d, n)| (d.clone(), json!(n))).collect();
            json!({ "numerator": c.num.to_string(), "denominator": c.den.to_string(), "powers": powers })
        };
        p.terms.iter().map(term).collect()
    };
    match f {
        Formula::Polynomial(p) => json!({ "kind": "polynomial", "text": p.to_string(), "terms": terms(p) }),
        Formula::Piecewise { sizes, counted } => json!({ "kind": "piecewise", "sizes": sizes, "counted": counted }),
        Formula::Unknown => json!({ "kind": "unknown" }),
    }
}

fn formulas(name: &str, s: &Symbolic, all: bool) -> Grid {
    let mut grid = Grid {
        name: "layers",
        heading: format!("{} · {}", crate::error::printable(name), s.dims.join(", ")),
        columns: vec![
            GridColumn::new("layer", "Layer"),
            GridColumn::new("op", "Op").yields_last(1),
            GridColumn::new("rows", "Rows").yields_last(2),
            GridColumn::new("params", "Params"),
            GridColumn::new("madds", "MAdds"),
            GridColumn::machine("other_flops"),
        ],
        ..Grid::default()
    };
    let summary = [
        ("params", "Params", &s.params),
        ("madds", "MAdds", &s.madds),
        ("other_flops", "Other FLOPs", &s.other_flops),
        ("bytes", "Bytes moved", &s.bytes),
    ];
    for (key, title, f) in summary {
        grid.summary.push((title.to_string(), f.to_string()));
        grid.extra.push((key.to_string(), as_json(f)));
    }
    let lattice: Vec<Value> = s
        .dims
        .iter()
        .zip(&s.lattice)
        .map(|(d, (start, period))| json!({ "dim": d, "start": start, "period": period }))
        .collect();
    grid.extra.push(("dims".into(), lattice.into()));
    // Rows of the same operator and formula are one line, unless all are asked for.
    let mut groups: Vec<(usize, Vec<usize>)> = Vec::new();
    for (i, r) in s.rows.iter().enumerate() {
        let free = matches!(&r.madds, Formula::Polynomial(p) if p.terms.is_empty());
        if free && !all {
            continue;
        }
        let same = |&(first, _): &(usize, Vec<usize>)| {
            let f = &s.rows[first];
            (&f.op, &f.madds, f.params) == (&r.op, &r.madds, r.params)
        };
        match groups.iter().position(same).filter(|_| !all) {
            Some(at) => groups[at].1.push(i),
            None => groups.push((i, vec![i])),
        }
    }
    for (first, members) in groups {
        let r = &s.rows[first];
        let params: u64 = members.iter().map(|&i| s.rows[i].params).sum();
        grid.rows.push(vec![
            Cell::Name(r.name.clone()),
            Cell::Name(r.op.clone()),
            Cell::Count(members.len() as u64),
            Cell::Count(params),
            Cell::Text(r.madds.to_string()),
            Cell::Text(r.other_flops.to_string()),
        ]);
    }
    let (used, checked) = s.counted;
    grid.notes.push(format!(
        "Found from {} and verified at {} that played no part{}.",
        plural(used, "count"),
        plural(checked, "further binding"),
        if checked < CHECKS { ": the model can be counted at few sizes" } else { "" },
    ));
    if !all && s.rows.len() > grid.rows.len() {
        grid.notes.push("MAdds are those of one row; rows with equal formulas are one line, rows without MAdds are left out. --all shows each.".into());
    }
    for (dim, (start, period)) in s.dims.iter().zip(&s.lattice).filter(|(_, l)| l.1 > 1) {
        let _ = start;
        grid.notes.push(format!(
            "The formulas hold where {dim} is a multiple of {period}; between, sizes are rounded (strides, pooling) and the counts are piecewise."
        ));
    }
    let rough: Vec<&str> =
        s.rows.iter().filter(|r| matches!(r.madds, Formula::Piecewise { .. })).map(|r| r.name.as_str()).collect();
    if let Some(first) = rough.first() {
        let at = s
            .rows
            .iter()
            .find_map(|r| if let Formula::Piecewise { sizes, .. } = &r.madds { Some(sizes) } else { None });
        let at: Vec<String> = s.dims.iter().zip(at.into_iter().flatten()).map(|(d, n)| format!("{d}={n}")).collect();
        grid.notes.push(format!(
            "Piecewise in {}, '{}' first (no polynomial holds at {}): a size is rounded there or depends on a branch.",
            plural(rough.len(), "row"),
            crate::error::printable(first),
            at.join(", ")
        ));
    }
    let unknown = s.rows.iter().filter(|r| r.madds == Formula::Unknown).count();
    if unknown > 0 {
        grid.notes.push(format!("The cost of {} is unknown; the totals are too.", plural(unknown, "row")));
    }
    grid
}

/// Counts at several sizes of a dim.
///
/// # Errors
/// If the dim is not free or the model cannot be counted at one of the sizes.
pub fn sweep(args: &CountArgs, dim: &str, sizes: &[usize]) -> Result<u8> {
    output::grid_format(&args.output)?;
    let bindings = args.model.binding.bindings()?;
    let loaded = load::load(&args.model.model)?;
    check(&loaded.spec, &[dim.to_string()], &bindings)?;
    let at = |n: usize| -> Result<(Analysis, Vec<String>)> {
        let mut bindings = bindings.clone();
        bindings.dims.insert(dim.to_string(), n);
        let model = ir::build(&loaded.spec, &bindings).map_err(|e| match &loaded.path {
            Some(path) => e.in_file(std::path::Path::new(path)),
            None => e,
        })?;
        let notes = model.notes;
        Ok((analysis::analyze(&model.graph), notes))
    };
    let mut grid = Grid {
        name: "sweep",
        heading: format!("{} · {dim}", crate::error::printable(&loaded.name)),
        columns: vec![
            GridColumn::new(dim, dim),
            GridColumn::new("params", "Params"),
            GridColumn::new("madds", "MAdds"),
            GridColumn::new("weight_madds", "w/ weights").yields(5),
            GridColumn::new("activation_madds", "activations").yields(6),
            GridColumn::new("flops", "FLOPs"),
            GridColumn::new("bytes", "Bytes").yields(1),
            GridColumn::new("intensity", "FLOP/B").yields(4),
            GridColumn::new("peak_activation_bytes", "Peak act.").yields(2),
            GridColumn::machine("other_flops"),
            GridColumn::machine("weight_bytes"),
            GridColumn::machine("read_bytes"),
            GridColumn::machine("write_bytes"),
            GridColumn::machine("unknown_nodes"),
        ],
        ..Grid::default()
    };
    let mut counted: Vec<(usize, Analysis)> = Vec::new();
    for (i, &n) in sizes.iter().enumerate() {
        let (a, notes) = at(n)?;
        if i == 0 {
            notes.iter().for_each(|text| note(args.model.quiet, text));
        }
        counted.push((n, a));
    }
    for (n, a) in &counted {
        let t = &a.totals;
        let known = |v: u64| if t.unknown_nodes == 0 { Cell::Count(v) } else { Cell::AtLeast(v) };
        let moved = |v: u64| if t.unknown_traffic == 0 { Cell::Bytes(v) } else { Cell::AtLeastBytes(v) };
        let bytes = t.traffic.total();
        let whole = t.unknown_nodes == 0 && t.unknown_traffic == 0 && bytes > 0;
        grid.rows.push(vec![
            Cell::Text(n.to_string()),
            Cell::Count(t.params),
            known(t.work.madds),
            known(t.work.madds - t.activation_madds.min(t.work.madds)),
            known(t.activation_madds),
            known(t.work.flops()),
            moved(bytes),
            if whole { Cell::Ratio(t.work.flops() as f64 / bytes as f64) } else { Cell::Unknown },
            t.peak_activation_bytes.map_or(Cell::Unknown, Cell::Bytes),
            known(t.work.other_flops),
            moved(t.traffic.weight_bytes),
            moved(t.traffic.read_bytes),
            moved(t.traffic.write_bytes),
            Cell::Count(t.unknown_nodes as u64),
        ]);
    }
    crossings(&mut grid, dim, &counted, &|n| at(n).map(|(a, _)| a));
    output::show_grid(&grid, &args.output)?;
    Ok(FINE)
}

/// What changes sides along a sweep, and exactly where: found between two sizes by halving.
fn crossings(grid: &mut Grid, dim: &str, counted: &[(usize, Analysis)], at: &dyn Fn(usize) -> Result<Analysis>) {
    let facts: [(&str, &str, &dyn Fn(&Analysis) -> bool); 2] = [
        ("activation_madds", "products of activations (attention) need more MAdds than all weights together", &|a| {
            2 * u128::from(a.totals.activation_madds) > u128::from(a.totals.work.madds)
        }),
        ("activation_bytes", "activations move more bytes than weights", &|a| {
            let t = a.totals.traffic;
            t.read_bytes.saturating_add(t.write_bytes) > t.weight_bytes
        }),
    ];
    let mut found = Vec::new();
    for (key, words, holds) in facts {
        for pair in counted.windows(2) {
            let [(a, before), (b, after)] = pair else { continue };
            if holds(before) || !holds(after) {
                continue;
            }
            let (mut low, mut high) = (*a, *b);
            while high - low > 1 {
                let middle = low + (high - low) / 2;
                // A size the model cannot take tells nothing; the bound found so far stands.
                let Ok(a) = at(middle) else { break };
                if holds(&a) { high = middle } else { low = middle }
            }
            grid.notes.push(format!("From {dim}={} on, {words}.", exact(high as u64)));
            found.push(json!({ "what": key, dim: high }));
            break;
        }
    }
    grid.extra.push(("crossovers".into(), found.into()));
}
