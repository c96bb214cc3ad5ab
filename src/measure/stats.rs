//! Order statistics of timing samples. Means lie when a machine hiccups; medians and quantiles do not.

/// What a set of samples says, in the samples' own unit (seconds everywhere in this crate).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stats {
    /// Number of samples.
    pub runs: usize,
    /// Smallest.
    pub min: f64,
    /// Middle one (mean of the two middle ones for an even number).
    pub median: f64,
    /// Nine tenths are at most this (nearest rank).
    pub p90: f64,
    /// Largest.
    pub max: f64,
    /// Median absolute deviation from the median.
    pub mad: f64,
    /// Distribution-free 95 % confidence interval of the median; `None` below 6 samples, where none exists.
    pub median_ci: Option<(f64, f64)>,
    /// Samples further than 5 scaled MADs above the median: interruptions.
    pub outliers: usize,
}

/// The median of values; zero of none.
pub fn median(values: &[f64]) -> f64 {
    let mut v = values.to_vec();
    v.sort_by(f64::total_cmp);
    median_of_sorted(&v)
}

fn median_of_sorted(v: &[f64]) -> f64 {
    match v.len() {
        0 => 0.0,
        n if n % 2 == 1 => v[n / 2],
        n => (v[n / 2 - 1] + v[n / 2]) / 2.0,
    }
}

impl Stats {
    /// Statistics of samples; `None` of none.
    pub fn of(samples: &[f64]) -> Option<Stats> {
        let mut v = samples.to_vec();
        v.sort_by(f64::total_cmp);
        let n = v.len();
        let (&min, &max) = (v.first()?, v.last()?);
        let mid = median_of_sorted(&v);
        let deviations: Vec<f64> = v.iter().map(|x| (x - mid).abs()).collect();
        let mad = median(&deviations);
        // 1.4826·MAD estimates a normal standard deviation.
        let far = mid + 5.0 * 1.4826 * mad;
        Some(Stats {
            runs: n,
            min,
            median: mid,
            p90: v[(n * 9).div_ceil(10) - 1],
            max,
            mad,
            median_ci: median_ci(&v),
            outliers: if mad > 0.0 { v.iter().filter(|&&x| x > far).count() } else { 0 },
        })
    }
    /// Half the width of the median's confidence interval, relative to the median; infinite below 6 samples.
    pub fn relative_error(&self) -> f64 {
        match self.median_ci {
            Some((low, high)) if self.median > 0.0 => (high - low) / 2.0 / self.median,
            _ => f64::INFINITY,
        }
    }
}

/// Spearman's rank correlation: that of the ranks, equal values sharing their mean rank. `None` where one side does not vary.
pub fn spearman(a: &[f64], b: &[f64]) -> Option<f64> {
    pearson(&ranks(a), &ranks(b))
}

/// Kendall's τ-b: (concordant − discordant pairs) ÷ the geometric mean of the pairs that are not tied on either side.
pub fn kendall(a: &[f64], b: &[f64]) -> Option<f64> {
    let n = a.len().min(b.len());
    let (mut sum, mut in_a, mut in_b) = (0i64, 0i64, 0i64);
    for i in 0..n {
        for j in 0..i {
            let sign = |v: &[f64]| v[i].total_cmp(&v[j]) as i64;
            sum += sign(a) * sign(b);
            in_a += sign(a).abs();
            in_b += sign(b).abs();
        }
    }
    (in_a > 0 && in_b > 0).then(|| sum as f64 / ((in_a as f64) * (in_b as f64)).sqrt())
}

fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&i, &j| values[i].total_cmp(&values[j]));
    let mut ranks = vec![0.0; values.len()];
    let mut start = 0;
    while start < order.len() {
        let same = order[start..].iter().take_while(|&&i| values[i] == values[order[start]]).count();
        // Ranks start+1 to start+same, each given their mean.
        order[start..start + same].iter().for_each(|&i| ranks[i] = start as f64 + (same as f64 + 1.0) / 2.0);
        start += same;
    }
    ranks
}

fn pearson(a: &[f64], b: &[f64]) -> Option<f64> {
    let n = a.len().min(b.len()) as f64;
    let mean = |v: &[f64]| v.iter().sum::<f64>() / n;
    let (ma, mb) = (mean(a), mean(b));
    let sum = |f: &dyn Fn(f64, f64) -> f64| a.iter().zip(b).map(|(x, y)| f(x - ma, y - mb)).sum::<f64>();
    let spread = (sum(&|x, _| x * x) * sum(&|_, y| y * y)).sqrt();
    (spread > 0.0).then(|| sum(&|x, y| x * y) / spread)
}

/// The sign-test interval: ranks so that the true median lies between them in 95 % of experiments, whatever the distribution.
fn median_ci(sorted: &[f64]) -> Option<(f64, f64)> {
    let n = sorted.len();
    if n < 6 {
        return None;
    }
    let half = 1.96 * (n as f64).sqrt() / 2.0;
    let low = ((n as f64 / 2.0 - half).floor() as usize).min(n - 1);
    let high = n - 1 - low;
    Some((sorted[low], sorted[high]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_statistics_of_a_known_set() {
        let s = Stats::of(&[5.0, 1.0, 4.0, 2.0, 3.0, 100.0, 6.0, 7.0, 8.0, 9.0]).unwrap();
        assert_eq!((s.runs, s.min, s.median, s.p90, s.max, s.mad), (10, 1.0, 5.5, 9.0, 100.0, 2.5));
        assert_eq!(s.outliers, 1);
        // Rank interval for n = 10: ranks 2 and 9 (Conover, Practical Nonparametric Statistics, table A3: 2 and 9).
        assert_eq!(s.median_ci, Some((2.0, 9.0)));
        assert_eq!(Stats::of(&[]), None);
        assert_eq!(Stats::of(&[3.0]).unwrap().p90, 3.0);
        assert_eq!(Stats::of(&[1.0, 2.0]).unwrap().relative_error(), f64::INFINITY);
    }

    #[test]
    fn rank_correlations_of_known_sets() {
        let a = [1.0, 2.0, 3.0, 4.0, 5.0];
        assert_eq!((spearman(&a, &a), kendall(&a, &a)), (Some(1.0), Some(1.0)));
        let down = [9.0, 7.0, 5.0, 3.0, -1.0];
        assert_eq!((spearman(&a, &down), kendall(&a, &down)), (Some(-1.0), Some(-1.0)));
        // One exchange of neighbours: 1 - 6·2/(5·24) = 0.9; of ten pairs one is discordant.
        let near = [1.0, 3.0, 2.0, 4.0, 5.0];
        assert!((spearman(&a, &near).unwrap() - 0.9).abs() < 1e-12);
        assert!((kendall(&a, &near).unwrap() - 0.8).abs() < 1e-12);
        // Ties: scipy.stats gives spearmanr 0.9486832980505138 and kendalltau 0.9128709291752769.
        let (x, y) = ([1.0, 2.0, 2.0, 3.0], [1.0, 2.0, 3.0, 4.0]);
        assert!((spearman(&x, &y).unwrap() - 0.948_683_298_050_513_8).abs() < 1e-12);
        assert!((kendall(&x, &y).unwrap() - 0.912_870_929_175_276_9).abs() < 1e-12);
        assert_eq!((spearman(&a, &[2.0; 5]), kendall(&a, &[2.0; 5])), (None, None));
        assert_eq!((spearman(&[1.0], &[1.0]), kendall(&[], &[])), (None, None));
    }

    #[test]
    fn the_interval_covers_the_median_about_95_times_in_100() {
        // A skewed distribution (exponential) with true median ln 2.
        let mut state = 7u64;
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            -(((state >> 11) as f64 + 0.5) / (1u64 << 53) as f64).ln()
        };
        let covered = (0..2000)
            .filter(|_| {
                let v: Vec<f64> = (0..25).map(|_| next()).collect();
                let (low, high) = Stats::of(&v).unwrap().median_ci.unwrap();
                (low..=high).contains(&std::f64::consts::LN_2)
            })
            .count();
        assert!((1860..=1980).contains(&covered), "{covered} of 2000");
    }
}
