//! Latency limits of `check`: the model against another, or this build against another, in turns, with each also against itself.

use super::check::Counted;
use super::load;
use super::progress::Progress;
use super::{race, revision};
use crate::analysis::analyze;
use crate::budget::judge::Subject;
use crate::budget::latency::Race;
use crate::budget::settings::{Against, Limit, Test};
use crate::budget::{Culprit, Finding, Metric, blame};
use crate::engine::{Options, Pack, Path as KernelPath, Session};
use crate::error::{Error, Result};
use crate::measure::{Ratio, Samples, Stats, host, paired};
use crate::tensor::Tensor;
use crate::units::ms;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

/// Times the limit is measured, each twice as long as before, until it can be told.
const TRIES: usize = 3;
/// Pairs of processes in the first try at a limit against another build.
const PAIRS: usize = 8;

/// Measures and judges.
///
/// # Errors
/// If the other model or build cannot be had, or a run fails.
pub fn look(s: &Subject, limit: &Limit, c: &Counted, folder: &Path, quiet: bool) -> Result<Finding> {
    let Test::Latency { against, most, threads, seconds } = &limit.test else {
        return Err(Error::run("this limit is not about latency"));
    };
    let threads = threads.unwrap_or_else(host::cores);
    let mut measured = None;
    for attempt in 0..TRIES {
        let factor = 1 << attempt;
        let race = match against {
            Against::Model(text) => models(c, text, folder, threads, seconds * f64::from(factor), quiet)?,
            Against::Build(path) => {
                builds(s, c, &folder.join(path), threads, *seconds, PAIRS * factor as usize, quiet)?
            }
        };
        let outcome = race.judge(*most);
        measured = Some((race, outcome));
        if outcome != crate::budget::Outcome::CannotTell {
            break;
        }
    }
    let Some((race, outcome)) = measured else { return Err(Error::run("nothing was measured")) };
    let ratios: Vec<f64> = race.ab.iter().map(|r| r.median).collect();
    let ratio = crate::measure::stats::median(&ratios);
    let noise = race.noise();
    let percent = |r: f64| format!("{:+.1} %", (r - 1.0) * 100.0);
    let other = match against {
        Against::Model(text) => format!("'{text}'"),
        Against::Build(path) => path.display().to_string(),
    };
    let interval = race.interval().map_or("too few rounds for an interval".into(), |(low, high)| {
        format!("{} to {} with this runner's noise", percent(low), percent(high))
    });
    let mut notes = Vec::new();
    if outcome == crate::budget::Outcome::CannotTell {
        notes.push(match noise {
            Some(n) => format!(
                "equal runs differ by up to {:.1} % here (A/A); a quieter machine, more seconds or a wider growth tells",
                (n - 1.0) * 100.0
            ),
            None => "too few rounds fit the time; give it more seconds".into(),
        });
    }
    if cfg!(debug_assertions) {
        notes.push("this is a debug build: its times say little of a release".into());
    }
    let culprits: Vec<Culprit> = match outcome {
        crate::budget::Outcome::Breach => blame::blame(s.now, s.before, Metric::Madds, &|_| true),
        _ => Vec::new(),
    };
    Ok(Finding {
        budget: s.budget.name.clone(),
        model: s.model.clone(),
        is_file: s.is_file,
        rule: limit.rule.clone(),
        limit: format!("at most {} against {other}", percent(*most)),
        found: format!("{} ({interval}; {} against {} ms)", percent(ratio), ms(race.ms.0), ms(race.ms.1)),
        value: Some(ratio),
        bound: Some(*most),
        outcome,
        level: limit.level,
        culprits,
        notes,
        line: limit.line,
    })
}

/// Two sessions of each model: their ratios to their own kind are the noise.
fn models(c: &Counted, text: &str, folder: &Path, threads: usize, seconds: f64, quiet: bool) -> Result<Race> {
    let other = revision::open(text, Some(folder))?;
    let model = load::build(&c.loaded, &c.bindings)?;
    // Dims that only one of the two has are bound for that one.
    let base = load::build(&other.loaded, &load::fitting(&other.loaded, &c.bindings))?;
    for m in [&model, &base] {
        load::check_memory(&analyze(&m.graph), 4)?;
    }
    let options = Options { pack: Pack::AtOnce, ..load::plain_options(KernelPath::Optimized, threads)? };
    let mut sessions: Vec<(Session, Vec<Tensor>)> = Vec::new();
    for m in [&model, &base, &model, &base] {
        sessions.push((Session::new(&Arc::new(m.graph.clone()), &options)?, load::made_up_inputs(m)?));
    }
    let progress = Progress::new("latency, in turns", quiet);
    progress.spin();
    let samples: Vec<Samples> = race::timed(&mut sessions, seconds, &mut |share| progress.tell(share))?;
    let median = |i: usize| Stats::of(&samples[i].seconds).map_or(0.0, |s| s.median * 1e3);
    let ratio = |a: usize, b: usize| paired(&samples[a], &samples[b]);
    let all = |pairs: [(usize, usize); 2]| -> Vec<Ratio> { pairs.iter().filter_map(|&(a, b)| ratio(a, b)).collect() };
    Ok(Race { ab: all([(0, 1), (2, 3)]), aa: all([(2, 0), (3, 1)]), ms: (median(0), median(1)) })
}

/// Another build on the same model, process by process, in turns: its median against ours, ours against ours.
fn builds(
    s: &Subject,
    c: &Counted,
    other: &Path,
    threads: usize,
    seconds: f64,
    pairs: usize,
    quiet: bool,
) -> Result<Race> {
    let own = std::env::current_exe().map_err(|e| Error::run(format!("this program cannot be found: {e}")))?;
    let model = c.loaded.path.clone().unwrap_or_else(|| c.loaded.name.clone());
    let each = (seconds / pairs as f64).max(0.05);
    let once = |program: &Path| -> Result<f64> {
        let mut command = Command::new(program);
        command.args(["bench", &model, "--path", "optimized", "--format", "csv", "--quiet"]);
        command.args(["--threads", &threads.to_string(), "--seconds", &each.to_string()]);
        for (name, n) in &s.budget.dims {
            command.args(["--dim", &format!("{name}={n}")]);
        }
        for (name, shape) in &s.budget.shapes {
            let shape: Vec<String> = shape.iter().map(ToString::to_string).collect();
            command.args(["--input-shape", &format!("{name}={}", shape.join("x"))]);
        }
        for (name, values) in &s.budget.values {
            let values: Vec<String> = values.iter().map(ToString::to_string).collect();
            command.args(["--value", &format!("{name}={}", values.join(","))]);
        }
        let failed = |why: String| Error::input(format!("cannot bench '{model}': {why}")).in_file(program);
        let out = command.output().map_err(|e| failed(e.to_string()))?;
        if !out.status.success() {
            return Err(failed(String::from_utf8_lossy(&out.stderr).lines().next().unwrap_or("it failed").to_string()));
        }
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let mut lines = text.lines();
        let at = lines.next().and_then(|h| h.split(',').position(|k| k == "median_ms"));
        let cell = at.and_then(|i| lines.next()?.split(',').nth(i)?.parse::<f64>().ok());
        cell.filter(|v| *v > 0.0).ok_or_else(|| failed("it printed no median_ms".into()))
    };
    let progress = Progress::new("latency of builds, in turns", quiet);
    // Head, base, head again, in an order that turns round.
    let mut times: [Vec<f64>; 4] = Default::default();
    for round in 0..pairs {
        let mut order = [(0, own.as_path()), (1, other), (2, own.as_path()), (3, other)];
        if round % 2 == 1 {
            order.reverse();
        }
        for (slot, program) in order {
            times[slot].push(once(program)?);
        }
        progress.tell((round + 1) as f64 / pairs as f64);
    }
    let ratio = |a: usize, b: usize| -> Option<Ratio> {
        let ratios: Vec<f64> = times[a].iter().zip(&times[b]).map(|(x, y)| x / y).collect();
        Stats::of(&ratios).map(|s| Ratio { median: s.median, interval: s.median_ci })
    };
    let all = |list: [(usize, usize); 2]| -> Vec<Ratio> { list.iter().filter_map(|&(a, b)| ratio(a, b)).collect() };
    let median = |i: usize| crate::measure::stats::median(&times[i]);
    Ok(Race { ab: all([(0, 1), (2, 3)]), aa: all([(2, 0), (3, 1)]), ms: (median(0), median(1)) })
}
