//! Latency against a baseline: the paired ratio of interleaved runs, judged by what this runner's A/A ratios say of its noise.

use super::Outcome;
use crate::measure::Ratio;

/// What was measured: the head against the base, and each against itself, all in the same rounds.
#[derive(Debug, Clone, PartialEq)]
pub struct Race {
    /// Head ÷ base, one per pair of sessions or processes.
    pub ab: Vec<Ratio>,
    /// Equal against equal: 1 on a machine without noise.
    pub aa: Vec<Ratio>,
    /// Medians in milliseconds: head and base.
    pub ms: (f64, f64),
}

impl Race {
    /// The factor within which A/A ratios lie, at least 1; `None` where too few rounds were made to say.
    pub fn noise(&self) -> Option<f64> {
        let far = |v: f64| if v > 0.0 { v.max(1.0 / v) } else { f64::INFINITY };
        let one = |r: &Ratio| r.interval.map(|(low, high)| far(low).max(far(high)));
        self.aa.iter().map(one).collect::<Option<Vec<f64>>>()?.into_iter().reduce(f64::max)
    }

    /// The interval the true ratio lies in: all of A/B, widened by the noise of A/A.
    pub fn interval(&self) -> Option<(f64, f64)> {
        let noise = self.noise()?;
        let all: Option<Vec<(f64, f64)>> = self.ab.iter().map(|r| r.interval).collect();
        let all = all?;
        let low = all.iter().map(|i| i.0).reduce(f64::min)?;
        let high = all.iter().map(|i| i.1).reduce(f64::max)?;
        Some((low / noise, high * noise))
    }

    /// Whether head takes at most `most` times what the base takes.
    pub fn judge(&self, most: f64) -> Outcome {
        match self.interval() {
            Some((low, _)) if low > most => Outcome::Breach,
            Some((_, high)) if high <= most => Outcome::Pass,
            _ => Outcome::CannotTell,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ratio(low: f64, median: f64, high: f64) -> Ratio {
        Ratio { median, interval: Some((low, high)) }
    }

    #[test]
    fn noise_turns_verdicts_into_cannot_tell_never_into_the_other() {
        let race = |ab: Ratio, aa: Ratio| Race { ab: vec![ab], aa: vec![aa], ms: (1.0, 1.0) };
        let quiet = ratio(0.999, 1.0, 1.001);
        let loud = ratio(0.9, 1.0, 1.08);
        let slower = ratio(1.08, 1.1, 1.12);
        let same = ratio(0.995, 1.0, 1.005);
        assert_eq!(race(slower, quiet).judge(1.05), Outcome::Breach);
        assert_eq!(race(same, quiet).judge(1.05), Outcome::Pass);
        assert_eq!(race(slower, loud).judge(1.05), Outcome::CannotTell);
        assert_eq!(race(same, loud).judge(1.05), Outcome::CannotTell);
        assert_eq!(race(ratio(1.5, 1.6, 1.7), loud).judge(1.05), Outcome::Breach);
        let few = Ratio { median: 2.0, interval: None };
        assert_eq!(race(few, quiet).judge(1.05), Outcome::CannotTell);
        assert_eq!(race(slower, few).judge(1.05), Outcome::CannotTell);
        assert!((race(same, loud).noise().unwrap() - 1.0 / 0.9).abs() < 1e-12);
    }
}
