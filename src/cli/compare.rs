//! `compare`: models side by side, timed in turns, and how well counts and roofline order them as time does.

use super::args::{CompareArgs, Paths};
use super::load::{self, Loaded};
use super::race::{self, Runner};
use super::{FINE, note, output};
use crate::error::{Error, Result, printable};
use crate::ir::Bindings;
use crate::report::candidates::{self, Candidate};
use crate::units::{plural, rate};
use crate::zoo;

/// Rows of the scatter.
const HEIGHT: usize = 17;

/// Counts, times and reports.
///
/// # Errors
/// If a model cannot be read, built or run.
pub fn run(args: &CompareArgs) -> Result<u8> {
    output::grid_format(&args.output)?;
    let (names, is_list) = names(&args.models)?;
    if names.len() < 2 {
        return Err(Error::usage("one model has nothing to be compared with").hint("name two or more, or `zoo`"));
    }
    let bindings = args.binding.bindings()?;
    let (mut runners, mut bound) = (Vec::new(), Vec::new());
    for name in &names {
        match runner(name, &bindings, args) {
            Ok((r, own)) => {
                runners.push(r);
                bound.push(own);
            }
            // Of a list that nobody spelled out, what does not fit is left out.
            Err(e) if is_list => note(args.quiet, &format!("{name} is left out: {}", e.message())),
            Err(e) => return Err(e),
        }
    }
    load::all_fit(&bindings, &bound)?;
    let mut warnings = Vec::new();
    if !args.no_run {
        warnings = race::conditions(&args.measure);
        race::race(&mut runners, &args.measure, Paths::Optimized, args.quiet)?;
    }
    warnings.iter().for_each(|w| note(args.quiet, w));
    let mut list: Vec<Candidate> = runners.into_iter().map(|r| r.candidate).collect();
    candidates::mark_pareto(&mut list);
    let mut heading = plural(list.len(), "model");
    if !args.no_run {
        heading = format!("{heading} · {}", race::how(&args.measure));
    }
    let known = list.iter().any(|c| c.top1.is_some());
    let mut grid = candidates::grid("models", heading, &list, known);
    grid.heading_key = "title";
    let correlations = candidates::correlations(&list);
    if !args.no_run {
        let few = list.len() < 6;
        for c in correlations.iter().filter(|c| c.models > 2) {
            if let (Some(s), Some(k)) = (c.spearman, c.kendall) {
                grid.summary.push((
                    format!("{} and latency", c.title),
                    format!("Spearman {}, Kendall {} over {}", rate(s), rate(k), plural(c.models, "model")),
                ));
            }
        }
        if few && list.len() > 2 {
            grid.notes.push("So few models say little about rank correlation.".into());
        }
        grid.figure = candidates::scatter(&list, super::width(), HEIGHT).map(|field| {
            let legend: Vec<String> =
                list.iter().enumerate().map(|(i, c)| format!("{} {}", candidates::mark(i), c.name)).collect();
            format!("{field}\n{}\n", fill(&legend, super::width()))
        });
        let best: Vec<&str> = list.iter().filter(|c| c.is_pareto == Some(true)).map(|c| c.name.as_str()).collect();
        if !best.is_empty() {
            grid.notes.push(format!(
                "Pareto set (nothing faster is as accurate, as published): {}.",
                best.iter().map(|n| printable(n)).collect::<Vec<_>>().join(", ")
            ));
        }
        if list.iter().any(|c| c.switch.is_some()) {
            grid.notes.push(super::switches::NOTE.into());
        }
        if list.len() <= 6 {
            grid.notes.extend(candidates::surprises(&list));
        }
    }
    grid.extra.push(("correlations".into(), candidates::correlations_json(&correlations)));
    grid.extra.push(("warnings".into(), warnings.into()));
    output::show_grid(&grid, &args.output)?;
    Ok(FINE)
}

/// Words in lines.
fn fill(words: &[String], width: usize) -> String {
    let mut lines = vec![String::new()];
    for word in words {
        let line = lines.last_mut().expect("there is a line");
        if !line.is_empty() && line.chars().count() + 3 + word.chars().count() > width {
            lines.push(word.clone());
        } else {
            *line = if line.is_empty() { word.clone() } else { format!("{line}   {word}") };
        }
    }
    lines.join("\n")
}

/// The models meant; whether some were meant by a list of which not all need fit.
fn names(given: &[String]) -> Result<(Vec<String>, bool)> {
    let (mut names, mut is_list) = (Vec::new(), false);
    for name in given {
        // One network has nothing to be compared with: alone, its name is what others begin with, too.
        let is_known = zoo::knows(name) && given.len() > 1;
        let is_one = std::path::Path::new(name).exists() || is_known || name.contains(['/', '\\', '@', '.']);
        let begins = |n: &str| name == "zoo" || n.starts_with(&name.to_ascii_lowercase());
        let matching: Vec<&str> =
            if is_one { Vec::new() } else { zoo::list()?.iter().map(|i| i.name).filter(|n| begins(n)).collect() };
        if matching.is_empty() {
            names.push(name.clone());
            continue;
        }
        is_list = true;
        // The widest switch of a slimmable network is the plain network, which is there already.
        let twin = |n: &str| name == "zoo" && zoo::switches(n).is_ok_and(|s| !s.is_empty());
        for n in matching.into_iter().filter(|n| is_image(n) && !twin(n)) {
            if !names.iter().any(|m| m == n) {
                names.push(n.to_string());
            }
        }
    }
    Ok((names, is_list))
}

/// Whether a built-in network takes images.
fn is_image(name: &str) -> bool {
    let rank =
        |spec: &crate::ops::spec::ModelSpec| spec.graph.inputs.first().and_then(|i| i.shape.as_ref().map(Vec::len));
    zoo::build(name).is_ok_and(|spec| rank(&spec) == Some(4))
}

fn runner(name: &str, bindings: &Bindings, args: &CompareArgs) -> Result<(Runner, Bindings)> {
    let loaded = load::load(name)?;
    let own = load::fitting(&loaded, bindings);
    let model = load::build(&loaded, &own)?;
    for text in &model.notes {
        note(args.quiet, &format!("{}: {text}", loaded.name));
    }
    let mut runner = Runner::new(&loaded.name, model);
    if !args.no_run {
        load::check_memory(&runner.analysis, 2)?;
    }
    runner.weights = super::switches::weights(&loaded);
    runner.candidate.top1 = top1(&loaded, &runner)?;
    Ok((runner, own))
}

/// Published accuracy: of a built-in network as it was asked for, or of a file that goes by such a name and has its exact counts.
fn top1(loaded: &Loaded, runner: &Runner) -> Result<Option<f64>> {
    if !zoo::knows(&loaded.name) {
        return Ok(None);
    }
    let Ok(d) = zoo::show(&loaded.name) else { return Ok(None) };
    if loaded.path.is_some() {
        let twin = load::build(&load::load(&d.name)?, &Bindings::default())?;
        let (mine, its) = (&runner.analysis.totals, crate::analysis::analyze(&twin.graph).totals);
        // A file whose BatchNormalization went into its convolutions has other parameters, but the same multiply-adds.
        if mine.work.madds != its.work.madds {
            return Ok(None);
        }
    }
    Ok(d.published.iter().find(|p| p.at == d.name).and_then(|p| p.top1_pct))
}
