//! `profile`: the main job. Counts, both kernel paths measured step by step, and why the two differ.

use super::args::ProfileArgs;
use super::load::{Started, Want};
use super::{count, load, note, output, progress::Progress};
use crate::analysis;
use crate::engine::Path;
use crate::error::Result;
use crate::measure::host::Host;
use crate::measure::interrupt;
use crate::measure::profile::{Prepared, profile};
use crate::measure::{Policy, Stop, WallClock};
use crate::report::{Source, compose};
use std::sync::Arc;
use std::time::Instant;

/// Profiles and reports.
///
/// # Errors
/// If the model cannot be read, built or run.
pub fn run(args: &ProfileArgs) -> Result<u8> {
    output::format(&args.output)?;
    let quiet = args.model.quiet;
    let start = Instant::now();
    let (loaded, model) = load::model(&args.model)?;
    let loading_s = start.elapsed().as_secs_f64();
    let mut analysis = analysis::analyze(&model.graph);
    // What a run tells is told: the reference path runs anyway.
    let runs_reference = args.measure.path.list().contains(&crate::engine::Path::Reference);
    if analysis.totals.unknown_nodes > 0 && runs_reference && crate::engine::refuse_unknown(&model.graph).is_ok() {
        count::settle(quiet, &model, &mut analysis, &load::made_up_inputs(&model)?)?;
    }
    count::strict(&args.view, &analysis)?;
    let conventions = count::asked(&args.view, &model, &analysis)?;
    for text in &model.notes {
        note(quiet, text);
    }
    let imported = count::imported(&args.view, args.model.quiet, &model)?;
    let paths = args.measure.path.list();
    let mut warnings = load::conditions(&args.measure);
    load::check_memory(&analysis, 2)?;
    let graph = Arc::new(model.graph.clone());
    let inputs = load::made_up_inputs(&model)?;
    let clock = WallClock::start();
    let policy = Policy { limit_s: args.measure.seconds, ..Policy::default() };
    let ceilings = if paths.contains(&Path::Optimized) { load::ceilings(Want::Any, quiet) } else { None };
    let mut profiles = Vec::new();
    for path in paths {
        if interrupt::asked() && !profiles.is_empty() {
            warnings.push(format!("interrupted: the {} path was not measured", path.name()));
            break;
        }
        let progress = Progress::new(&format!("{}: preparing", path.name()), quiet);
        progress.spin();
        let Started { session, prepare_s, first_s, kept_bytes } =
            load::start(&graph, path, &args.measure.engine, &inputs, loading_s, quiet)?;
        drop(progress);
        let progress = Progress::new(&format!("{}: measuring", path.name()), quiet);
        progress.spin();
        let mut subject = Prepared { session, path, inputs: inputs.clone() };
        let mut done = profile(&clock, &policy, &mut subject, &mut |share| progress.tell(share))?;
        drop(progress);
        load::keep_weights(quiet);
        (done.prepare_s, done.first_s, done.kept_bytes) = (Some(prepare_s), first_s, kept_bytes);
        let runs = done.stats.runs;
        if runs == 1 && done.samples.stop != Stop::Interrupted {
            warnings.push(format!(
                "the {} path ran once, without warm-up: one run takes more than the limit of {} s; --seconds raises it",
                path.name(),
                args.measure.seconds
            ));
        } else if done.stats.p90 > 1.3 * done.stats.median {
            warnings.push(format!(
                "times of the {} path scatter (p90 is {} x the median): something else uses this machine",
                path.name(),
                crate::units::rate(done.stats.p90 / done.stats.median)
            ));
        }
        profiles.push(done);
    }
    for text in &warnings {
        note(quiet, text);
    }
    profiles.extend(imported.iter().map(|j| j.profile()));
    let report = compose(Source {
        command: "profile",
        name: loaded.name,
        path: loaded.path,
        model: &model,
        analysis: &analysis,
        profiles: &profiles,
        latency: Vec::new(),
        paired_speedup: None,
        host: Some(Host::read()),
        machine: ceilings.as_ref().map(|(m, age)| (m, *age)),
        steps: Vec::new(),
        imported,
        peak_resident_bytes: None,
        conventions,
        lenses: Vec::new(),
        warnings,
    });
    let covered = count::covered(&args.view, &report);
    output::show(report, Some(&args.view), &args.output)?;
    Ok(covered)
}
