//! `zoo`: the built-in networks.

use super::args::{OutputArgs, ZooArgs, ZooCommand};
use super::{FINE, load, output};
use crate::analysis;
use crate::error::{Result, printable};
use crate::ir::Bindings;
use crate::report::Cell;
use crate::report::grid::{Grid, GridColumn};
use crate::units::{exact, plural};
use crate::{onnx, report, zoo};
use std::path::Path;

/// Lists, shows or exports.
///
/// # Errors
/// If a name or knob is unknown, or the file cannot be written.
pub fn run(args: &ZooArgs) -> Result<u8> {
    match &args.command {
        ZooCommand::List { filter, output } => list(filter.as_deref(), output),
        ZooCommand::Show { name } => show(name),
        ZooCommand::Export { name, output } => export(name, output),
    }
}

fn counted(name: &str) -> Result<analysis::Totals> {
    let loaded = load::load(name)?;
    Ok(analysis::analyze(&load::build(&loaded, &Bindings::default())?.graph).totals)
}

fn list(filter: Option<&str>, args: &OutputArgs) -> Result<u8> {
    output::grid_format(args)?;
    let mut rows = Vec::new();
    for info in zoo::list()? {
        let wanted = filter.unwrap_or("").to_ascii_lowercase();
        if !info.name.contains(&wanted) && !info.family.to_ascii_lowercase().contains(&wanted) {
            continue;
        }
        let totals = counted(info.name)?;
        let top1 = zoo::show(info.name)?.published.iter().find_map(|p| p.top1_pct.filter(|_| p.at == info.name));
        rows.push(vec![
            Cell::Name(info.name.to_string()),
            Cell::Count(totals.params),
            Cell::Count(totals.work.madds),
            top1.map_or(Cell::Blank, Cell::Ratio),
            Cell::Text(info.knobs.join(",")),
            Cell::Text(info.about.to_string()),
        ]);
    }
    let grid = Grid {
        name: "networks",
        heading: match filter {
            Some(f) => format!("{} with '{}'", plural(rows.len(), "built-in network"), printable(f)),
            None => plural(rows.len(), "built-in network"),
        },
        heading_key: "title",
        columns: vec![
            GridColumn::new("name", "Name"),
            GridColumn::new("params", "Params"),
            GridColumn::new("madds", "MAdds"),
            GridColumn::new("top1_pct", "Top-1 %").yields_last(1),
            GridColumn::new("knobs", "Knobs").yields(1),
            GridColumn::new("about", "About").yields_last(2),
        ],
        rows,
        notes: vec![
            "A name stands wherever a file does: madd-prof count mobilenet_v2@width=0.5,res=192".into(),
            "Top-1 is what the authors published, not measured here: weights are random.".into(),
        ],
        ..Grid::default()
    };
    output::show_grid(&grid, args)?;
    Ok(FINE)
}

fn show(name: &str) -> Result<u8> {
    let d = zoo::show(name)?;
    let totals = counted(name)?;
    let width = super::width();
    let heads =
        [format!("{}: {}", d.name, d.about), format!("{} ({})", d.family, d.source), d.family_about.to_string()];
    let mut text: String = heads.iter().map(|line| report::wrapped(line, "", "  ", width)).collect();
    text.push('\n');
    let rows: Vec<Vec<String>> = d
        .stages
        .iter()
        .map(|s| {
            let settings: Vec<String> = s.settings.iter().map(|(k, v)| format!("{k}={v}")).collect();
            let sizes: Vec<String> = s.output.iter().map(ToString::to_string).collect();
            vec![s.path.clone(), s.block.clone(), format!("x{}", s.repeat), sizes.join("x"), settings.join(" ")]
        })
        .collect();
    let heads = ["Stage", "Block", "Repeat", "Output", "Settings"];
    text.push_str(&report::simple_table(&heads, &rows, &[false, false, true], &[0, 0, 0, 1, 2], width));
    if !d.knobs.is_empty() {
        let rows: Vec<Vec<String>> = d
            .knobs
            .iter()
            .map(|(k, v)| vec![k.name.clone(), v.to_string(), k.allowed.to_string(), k.about.clone()])
            .collect();
        text.push('\n');
        text.push_str(&report::simple_table(
            &["Knob", "Value", "Allowed", "What it does"],
            &rows,
            &[],
            &[0, 0, 0, 1],
            width,
        ));
    }
    let mut lines = vec![format!(
        "Exact   Params {}   MAdds {}   FLOPs {}",
        exact(totals.params),
        exact(totals.work.madds),
        exact(totals.work.flops())
    )];
    if totals.statistics > 0 {
        lines.push(format!("        BatchNorm statistics {} besides", exact(totals.statistics)));
    }
    if let Some(w) = &zoo::whole(name)? {
        lines.push(format!(
            "Whole   Params {}   BatchNorm statistics {}: what {} hold together",
            exact(w.params),
            exact(w.statistics),
            w.switches.join(", ")
        ));
    }
    text.push('\n');
    for line in lines {
        match line.chars().count() <= width {
            true => text.push_str(&(line + "\n")),
            false => text.push_str(&report::wrapped(line[8..].trim_start(), &line[..8], "        ", width)),
        }
    }
    if !d.published.is_empty() {
        let figure = |v: Option<f64>, unit: &str| v.map_or("-".into(), |v| format!("{v}{unit}"));
        let rows: Vec<Vec<String>> = d
            .published
            .iter()
            .map(|p| {
                vec![
                    p.at.clone(),
                    figure(p.params_m, " M"),
                    figure(p.madds_m, " M"),
                    figure(p.top1_pct, ""),
                    p.note.as_ref().map_or(p.source.clone(), |n| format!("{} ({n})", p.source)),
                ]
            })
            .collect();
        text.push('\n');
        let heads = ["Published", "Params", "MAdds", "Top-1 %", "Source"];
        text.push_str(&report::simple_table(&heads, &rows, &[false, true, true, true], &[0, 0, 0, 0, 1], width));
    }
    output::print(text.as_bytes())?;
    Ok(FINE)
}

fn export(name: &str, path: &Path) -> Result<u8> {
    onnx::write(&zoo::build(name)?, path, None)?;
    Ok(FINE)
}
