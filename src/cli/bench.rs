//! `bench`: end-to-end latency, nothing timed inside; both paths interleaved so that drift falls on both alike.

use super::args::{BenchArgs, Runtime};
use super::load::{Loaded, Started, Want};
use super::{FINE, load, note, output, progress::Progress};
use crate::analysis;
use crate::engine::Path;
use crate::error::Result;
use crate::ir::Model;
use crate::measure::host::{self, Host};
use crate::measure::onnxruntime::OnnxRuntime;
use crate::measure::{Policy, Stats, Stop, WallClock, sample};
use crate::report::{Latency, Source, compose};
use crate::tensor::Tensor;
use std::sync::Arc;
use std::time::Instant;

/// The model on another runtime: its file, or one made of a built-in network.
fn foreign(loaded: &Loaded, model: &Model, inputs: &[Tensor], args: &BenchArgs) -> Result<OnnxRuntime> {
    let threads = args.measure.engine.threads.unwrap_or_else(host::cores);
    let names = model.graph.inputs().iter().map(|&v| model.graph.value(v).name.clone());
    let named: Vec<(String, Tensor)> = names.zip(inputs.iter().cloned()).collect();
    if let Some(path) = &loaded.path {
        return OnnxRuntime::open(std::path::Path::new(path), threads, &named);
    }
    let file = std::env::temp_dir().join(format!("madd-prof-{}.onnx", std::process::id()));
    crate::onnx::write(&loaded.spec, &file, None)?;
    let opened = OnnxRuntime::open(&file, threads, &named);
    // It has been read into memory; what cannot be removed is the system's to clean up.
    let _ = std::fs::remove_file(&file);
    opened
}

/// Measures and reports.
///
/// # Errors
/// If the model cannot be read, built or run.
pub fn run(args: &BenchArgs) -> Result<u8> {
    output::format(&args.output)?;
    let quiet = args.model.quiet;
    let start = Instant::now();
    let (loaded, model) = load::model(&args.model)?;
    let loading_s = start.elapsed().as_secs_f64();
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
    let mut prepared = Vec::new();
    for &path in &paths {
        let Started { session, prepare_s, first_s, kept_bytes } =
            load::start(&graph, path, &args.measure.engine, &inputs, loading_s, quiet)?;
        sessions.push(session);
        prepared.push((prepare_s, first_s, kept_bytes));
    }
    let mut other = args.runtime.map(|Runtime::Ort| foreign(&loaded, &model, &inputs, args)).transpose()?;
    drop(progress);
    let progress = Progress::new("measuring", quiet);
    let clock = WallClock::start();
    let policy = Policy { limit_s: args.measure.seconds, ..Policy::default() };
    let subjects = sessions.len() + usize::from(other.is_some());
    let mut run = |i: usize| match (sessions.get_mut(i), &mut other) {
        (Some(session), _) => session.run(&inputs).map(drop),
        (None, Some(other)) => other.run(),
        (None, None) => Ok(()),
    };
    let samples = sample::sample(&clock, &policy, subjects, &mut run, &mut |share| progress.tell(share))?;
    drop(progress);
    // Only what is measured: neither a probe nor what is written now.
    let peak_resident_bytes = host::peak_resident_bytes();
    load::keep_weights(quiet);
    let paired = match &samples[..sessions.len()] {
        [a, b] => sample::paired_ratio(a, b).map(|r| r.0),
        _ => None,
    };
    let mut latency = Vec::new();
    let mut steps = Vec::new();
    let mut samples = samples;
    if let Some((other, s)) = other.as_ref().zip(samples.split_off(sessions.len()).pop())
        && let Some(stats) = Stats::of(&s.seconds)
    {
        latency.push(Latency {
            path: Path::Runtime,
            stats,
            warmup_runs: s.warmup_runs,
            stop: s.stop.name(),
            threads: args.measure.engine.threads.unwrap_or_else(host::cores),
            isa: other.name.clone(),
            arena_bytes: None,
            prepare_s: None,
            first_s: None,
            kept_bytes: None,
            samples: s.seconds,
            per_step: false,
        });
    }
    for (((path, session), s), (prepare_s, first_s, kept_bytes)) in
        paths.iter().zip(&sessions).zip(samples).zip(prepared)
    {
        if *path == Path::Optimized {
            steps = session.steps().iter().map(|s| s.covers.clone()).collect();
        }
        let Some(stats) = Stats::of(&s.seconds) else { continue };
        if stats.runs == 1 && s.stop != Stop::Interrupted {
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
            prepare_s: Some(prepare_s),
            first_s,
            kept_bytes,
            samples: s.seconds,
            per_step: false,
        });
    }
    for text in &warnings {
        note(quiet, text);
    }
    let ceilings = load::ceilings(Want::Kept, quiet);
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
        machine: ceilings.as_ref().map(|(m, age)| (m, *age)),
        steps,
        imported: None,
        peak_resident_bytes,
        conventions: Vec::new(),
        lenses: Vec::new(),
        warnings,
    });
    report.layers.clear();
    output::show(report, None, &args.output)?;
    Ok(FINE)
}
