//! `bench`: end-to-end latency, nothing timed inside; both paths interleaved so that drift falls on both alike.

use super::args::BenchArgs;
use super::{FINE, load, note, output, progress::Progress};
use crate::analysis;
use crate::engine::Session;
use crate::error::Result;
use crate::measure::host::Host;
use crate::measure::{Policy, Stats, WallClock, sample};
use crate::report::{Latency, Source, compose};
use std::sync::Arc;

/// Measures and reports.
///
/// # Errors
/// If the model cannot be read, built or run.
pub fn run(args: &BenchArgs) -> Result<u8> {
    output::format(&args.output)?;
    let quiet = args.model.quiet;
    let (loaded, model) = load::model(&args.model)?;
    let analysis = analysis::analyze(&model.graph);
    for text in &model.notes {
        note(quiet, text);
    }
    let mut warnings = load::conditions(&args.measure);
    load::check_memory(&analysis, 2)?;
    let graph = Arc::new(model.graph.clone());
    let inputs = load::made_up_inputs(&model)?;
    let progress = Progress::new("preparing", quiet);
    progress.spin();
    let paths = args.measure.path.list();
    let mut sessions = Vec::new();
    for &path in &paths {
        sessions.push(Session::new(&graph, &load::options(path, args.measure.threads)?)?);
    }
    drop(progress);
    let progress = Progress::new("measuring", quiet);
    let clock = WallClock::start();
    let policy = Policy { limit_s: args.measure.seconds, ..Policy::default() };
    let samples =
        sample::sample(&clock, &policy, sessions.len(), &mut |i| sessions[i].run(&inputs).map(drop), &mut |share| {
            progress.tell(share)
        })?;
    drop(progress);
    let paired = match &samples[..] {
        [a, b] => sample::paired_ratio(a, b).map(|r| r.0),
        _ => None,
    };
    let mut latency = Vec::new();
    for ((path, session), s) in paths.iter().zip(&sessions).zip(samples) {
        let Some(stats) = Stats::of(&s.seconds) else { continue };
        if stats.runs == 1 {
            warnings.push(format!("the {} path ran once within its limit of {} s", path.name(), args.measure.seconds));
        }
        latency.push(Latency {
            path: *path,
            stats,
            warmup_runs: s.warmup_runs,
            stop: s.stop.name(),
            threads: session.threads(),
            isa: session.isa().to_string(),
            arena_bytes: session.arena_bytes(),
            samples: s.seconds,
            per_step: false,
        });
    }
    for text in &warnings {
        note(quiet, text);
    }
    let mut report = compose(Source {
        command: "bench",
        name: loaded.name,
        path: loaded.path,
        model: &model,
        analysis: &analysis,
        profiles: &[],
        latency,
        paired_speedup: paired,
        host: Some(Host::read()),
        conventions: Vec::new(),
        lenses: Vec::new(),
        warnings,
    });
    report.layers.clear();
    output::show(report, None, &args.output)?;
    Ok(FINE)
}
