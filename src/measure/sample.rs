//! How often to run: warm-up until steady, then repetitions until the median is known well enough or time is up.
//!
//! Several subjects are interleaved in rounds, and the order within a round alternates, so that drift of the machine (heat,
//! frequency, neighbours) falls on all of them alike. A subject much faster than the slowest runs several times per round.

use super::clock::Clock;
use super::interrupt;
use super::stats::Stats;
use crate::error::Result;

/// When to stop.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// Time for each subject, warm-up included; a few runs may go beyond it (`least_runs`).
    pub limit_s: f64,
    /// Stop when half the confidence interval of every median is below this share of it.
    pub relative_error: f64,
    /// Runs after warm-up that are made even if steady earlier (time permitting).
    pub min_runs: usize,
    /// Runs that are never exceeded.
    pub max_runs: usize,
    /// A first run that takes more than this share of the limit counts, cold as it is; a shorter one is thrown away.
    pub cold_share: f64,
    /// Runs that follow one thrown away, also beyond the limit.
    pub least_runs: usize,
}

impl Default for Policy {
    fn default() -> Self {
        Policy { limit_s: 2.0, relative_error: 0.005, min_runs: 20, max_runs: 2000, cold_share: 1.0, least_runs: 3 }
    }
}

/// Why sampling stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// The median is known well enough.
    Steady,
    /// The time limit.
    TimeLimit,
    /// The largest number of runs.
    MaxRuns,
    /// Somebody asked for an early end.
    Interrupted,
}

impl Stop {
    /// As in machine-readable reports.
    pub fn name(self) -> &'static str {
        match self {
            Stop::Steady => "steady",
            Stop::TimeLimit => "time limit",
            Stop::MaxRuns => "run limit",
            Stop::Interrupted => "interruption",
        }
    }
}

/// One subject's samples.
#[derive(Debug, Clone, PartialEq)]
pub struct Samples {
    /// Wall time of every run after warm-up, in order.
    pub seconds: Vec<f64>,
    /// The round each run was in: runs of equal rounds were made at the same time.
    pub rounds: Vec<usize>,
    /// Runs thrown away at the start. Zero when a single run already took most of the time limit: then the first run counts.
    pub warmup_runs: usize,
    /// Why sampling stopped.
    pub stop: Stop,
}

/// Share of the time limit that warm-up may take.
const WARMUP_SHARE: f64 = 0.25;
/// Warm-up ends when this many runs in a row were not faster than the fastest before them by more than 2 %.
const STEADY_RUNS: usize = 3;
/// Most runs of one subject in one round.
const PER_ROUND: usize = 64;
/// Rounds that a subject's time should last for: a confidence interval of paired ratios needs six.
const ROUNDS: f64 = 9.0;

/// Samples subjects (`run(i)` runs subject `i` once). `tell` is called after every run with the share of the time that is spent.
///
/// # Errors
/// If a run fails.
pub fn sample(
    clock: &dyn Clock,
    policy: &Policy,
    subjects: usize,
    run: &mut dyn FnMut(usize) -> Result<()>,
    tell: &mut dyn FnMut(f64),
) -> Result<Vec<Samples>> {
    let _sampling = interrupt::Sampling::begin();
    let mut out = Vec::with_capacity(subjects);
    let mut typical_s = Vec::with_capacity(subjects);
    let mut spent_s = vec![0.0; subjects];
    let whole_s = (policy.limit_s * subjects as f64).max(f64::MIN_POSITIVE);
    let mut timed = |i: usize, spent_s: &mut [f64]| -> Result<f64> {
        let start = clock.now_s();
        run(i)?;
        let took = (clock.now_s() - start - clock.read_cost_s()).max(0.0);
        spent_s[i] += took;
        tell((spent_s.iter().sum::<f64>() / whole_s).min(1.0));
        Ok(took)
    };
    for i in 0..subjects {
        let first = timed(i, &mut spent_s)?;
        let mut samples = Samples { seconds: Vec::new(), rounds: Vec::new(), warmup_runs: 1, stop: Stop::TimeLimit };
        let mut best = first;
        if first > policy.cold_share * policy.limit_s {
            // Too slow to throw a run away.
            samples.warmup_runs = 0;
            samples.seconds.push(first);
            samples.rounds.push(0);
        } else {
            let mut steady = 0;
            while steady < STEADY_RUNS && !interrupt::asked() && spent_s[i] + best < WARMUP_SHARE * policy.limit_s {
                let took = timed(i, &mut spent_s)?;
                samples.warmup_runs += 1;
                steady = if took < 0.98 * best { 0 } else { steady + 1 };
                best = best.min(took);
            }
        }
        typical_s.push(best.max(1e-9));
        out.push(samples);
    }
    let slowest = typical_s.iter().copied().fold(0.0, f64::max);
    // As often as the slowest takes, but not so often that a few rounds use up the time.
    let lasting = |t: f64| policy.limit_s * (1.0 - WARMUP_SHARE) / t / ROUNDS;
    let per_round: Vec<usize> =
        typical_s.iter().map(|&t| ((slowest / t).min(lasting(t)).round() as usize).clamp(1, PER_ROUND)).collect();
    // When to look whether the median is known: each look costs a sort.
    let mut look_at = policy.min_runs.max(6);
    for round in 1.. {
        let mut ran = false;
        for k in 0..subjects {
            let i = if round % 2 == 1 { k } else { subjects - 1 - k };
            for _ in 0..per_round[i] {
                let none_yet = out[i].seconds.is_empty();
                if !none_yet && interrupt::asked() {
                    out[i].stop = Stop::Interrupted;
                    break;
                }
                let least = if out[i].warmup_runs > 0 { policy.least_runs } else { 1 };
                if out[i].seconds.len() >= least.max(1) && spent_s[i] + typical_s[i] > policy.limit_s {
                    break;
                }
                if out[i].seconds.len() >= policy.max_runs {
                    out[i].stop = Stop::MaxRuns;
                    break;
                }
                let took = timed(i, &mut spent_s)?;
                out[i].seconds.push(took);
                out[i].rounds.push(round);
                ran = true;
            }
        }
        if !ran {
            break;
        }
        if out.iter().all(|s| s.seconds.len() >= policy.min_runs) && out.iter().any(|s| s.seconds.len() >= look_at) {
            look_at = out.iter().map(|s| s.seconds.len()).max().unwrap_or(0) * 5 / 4 + 1;
            if out.iter().all(|s| Stats::of(&s.seconds).is_some_and(|s| s.relative_error() <= policy.relative_error)) {
                out.iter_mut().for_each(|s| s.stop = Stop::Steady);
                break;
            }
        }
    }
    Ok(out)
}

/// The median over rounds of (median of `a` ÷ median of `b`): the paired ratio, in which drift cancels. Also the smallest and the
/// largest ratio of a round. Where no round has both, as when one was too slow for a second run, the ratio of the medians; `None` when
/// either never ran.
pub fn paired_ratio(a: &Samples, b: &Samples) -> Option<(f64, f64, f64)> {
    let s = Stats::of(&round_ratios(a, b))?;
    Some((s.median, s.min, s.max))
}

/// A paired ratio with what is known of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ratio {
    /// Median over rounds.
    pub median: f64,
    /// Its 95 % confidence interval; `None` below 6 rounds, where none exists.
    pub interval: Option<(f64, f64)>,
}

impl Ratio {
    /// Whether it is below 1 beyond doubt.
    pub fn is_below_one(&self) -> bool {
        self.interval.is_some_and(|(_, high)| high < 1.0)
    }
    /// Whether it is above 1 beyond doubt.
    pub fn is_above_one(&self) -> bool {
        self.interval.is_some_and(|(low, _)| low > 1.0)
    }
}

/// The paired ratio of `a` to `b` with its confidence interval, as [`paired_ratio`]. `None` when either never ran.
pub fn paired(a: &Samples, b: &Samples) -> Option<Ratio> {
    Stats::of(&round_ratios(a, b)).map(|s| Ratio { median: s.median, interval: s.median_ci })
}

/// For every round that has both, the ratio of their medians in it; if none has, that of all.
fn round_ratios(a: &Samples, b: &Samples) -> Vec<f64> {
    let of_round = |s: &Samples, r: usize| -> Vec<f64> {
        s.rounds.iter().zip(&s.seconds).filter(|(x, _)| **x == r).map(|(_, s)| *s).collect()
    };
    let ratio = |x: &[f64], y: &[f64]| {
        let (x, y) = (Stats::of(x)?.median, Stats::of(y)?.median);
        (y > 0.0).then(|| x / y)
    };
    let mut rounds = a.rounds.clone();
    rounds.dedup();
    let mut ratios: Vec<f64> = rounds.into_iter().filter_map(|r| ratio(&of_round(a, r), &of_round(b, r))).collect();
    if ratios.is_empty() {
        ratios.extend(ratio(&a.seconds, &b.seconds));
    }
    ratios
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::clock::FakeClock;

    fn run_with(times: &mut dyn FnMut(usize, usize) -> f64, n: usize, policy: &Policy) -> Vec<Samples> {
        let clock = FakeClock::new(0.0);
        let mut calls = vec![0; n];
        sample(
            &clock,
            policy,
            n,
            &mut |i| {
                calls[i] += 1;
                clock.advance(times(i, calls[i]));
                Ok(())
            },
            &mut |_| {},
        )
        .unwrap()
    }

    #[test]
    fn warm_up_lasts_until_runs_stop_getting_faster() {
        // 64, 32, 16, … down to a steady 1 ms.
        let mut times = |_: usize, call: usize| if call < 7 { 0.064 / f64::powi(2.0, call as i32 - 1) } else { 0.001 };
        let s = run_with(&mut times, 1, &Policy { limit_s: 10.0, ..Policy::default() });
        assert!(s[0].warmup_runs >= 9, "{}", s[0].warmup_runs);
        assert!(s[0].seconds.iter().all(|&t| (t - 0.001).abs() < 1e-9));
        assert_eq!(s[0].stop, Stop::Steady);
        assert_eq!(s[0].seconds.len(), 20);
    }

    #[test]
    fn a_run_longer_than_the_limit_still_gives_one_sample() {
        let s = run_with(&mut |_, _| 9.0, 1, &Policy { limit_s: 2.0, ..Policy::default() });
        assert_eq!((s[0].seconds.len(), s[0].warmup_runs, s[0].stop), (1, 0, Stop::TimeLimit));
    }

    #[test]
    fn a_cold_run_is_not_held_against_warm_ones() {
        // The first run of the slower one reads its weights for the first time.
        let mut times = |i: usize, call: usize| {
            if i == 1 {
                0.01
            } else if call == 1 {
                1.0
            } else {
                0.3
            }
        };
        let s = run_with(&mut times, 2, &Policy { limit_s: 0.5, cold_share: 3.0, least_runs: 1, ..Policy::default() });
        assert_eq!((s[0].warmup_runs, s[0].seconds.len()), (1, 1));
        assert!((s[0].seconds[0] - 0.3).abs() < 1e-9, "{:?}", s[0].seconds);
        // A run of many times the limit is not made twice; though no round has both, there is a ratio.
        let mut times = |i: usize, _: usize| if i == 1 { 0.01 } else { 2.0 };
        let s = run_with(&mut times, 2, &Policy { limit_s: 0.5, cold_share: 3.0, ..Policy::default() });
        assert_eq!((s[0].warmup_runs, s[0].seconds.len()), (0, 1));
        let ratio = paired(&s[0], &s[1]).unwrap();
        assert!((ratio.median - 200.0).abs() < 1e-6 && ratio.interval.is_none(), "{ratio:?}");
    }

    #[test]
    fn one_whose_cold_run_fits_the_limit_is_run_a_few_times_more() {
        let mut times = |_: usize, call: usize| if call == 1 { 0.4 } else { 0.25 };
        let s = run_with(&mut times, 1, &Policy { limit_s: 0.5, ..Policy::default() });
        assert_eq!((s[0].warmup_runs, s[0].stop), (1, Stop::TimeLimit));
        assert!(s[0].seconds.len() == 3 && s[0].seconds.iter().all(|t| (t - 0.25).abs() < 1e-9), "{:?}", s[0].seconds);
    }

    #[test]
    fn one_slow_subject_does_not_take_the_rounds_of_the_others() {
        let mut times = |i: usize, _: usize| [0.003, 0.002, 0.300][i];
        let s = run_with(&mut times, 3, &Policy { limit_s: 0.5, relative_error: 0.0, ..Policy::default() });
        let ratio = paired(&s[1], &s[0]).unwrap();
        assert!((ratio.median - 2.0 / 3.0).abs() < 1e-9 && ratio.is_below_one(), "{ratio:?}");
        assert!(s[2].seconds.len() <= 3);
    }

    #[test]
    fn noise_keeps_it_running_to_the_limit_and_no_further() {
        let mut spread = |_: usize, call: usize| 0.010 + 0.001 * (call % 7) as f64;
        let s = run_with(&mut spread, 1, &Policy { limit_s: 1.0, ..Policy::default() });
        let total: f64 = s[0].seconds.iter().sum();
        assert_eq!(s[0].stop, Stop::TimeLimit);
        assert!(total > 0.7 && total <= 1.0, "{total}");
    }

    #[test]
    fn subjects_are_interleaved_and_drift_cancels_in_the_paired_ratio() {
        // Both get steadily slower; the second is always exactly twice as fast.
        let clock = FakeClock::new(0.0);
        let s = sample(
            &clock,
            &Policy { limit_s: 2.0, relative_error: 0.0, ..Policy::default() },
            2,
            &mut |i| {
                let slow = 0.010 * (1.0 + clock.now_s() / 4.0);
                clock.advance(if i == 0 { slow } else { slow / 2.0 });
                Ok(())
            },
            &mut |_| {},
        )
        .unwrap();
        let (ratio, _, _) = paired_ratio(&s[0], &s[1]).unwrap();
        assert!((ratio - 2.0).abs() < 0.02, "{ratio}");
        assert!(s[1].seconds.len() > s[0].seconds.len() * 3 / 2);
        let certain = paired(&s[0], &s[1]).unwrap();
        assert!(certain.is_above_one() && !certain.is_below_one() && certain.median == ratio, "{certain:?}");
        let (low, high) = paired(&s[1], &s[0]).unwrap().interval.unwrap();
        assert!(low <= 0.5 && 0.5 <= high && high - low < 0.03, "{low} to {high}");
    }
}
