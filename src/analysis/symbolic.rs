//! Counts as formulas of free dims, found by counting and proved by counting.
//!
//! Along each dim the model is counted at equally spaced sizes; the order at which the finite differences of every count vanish is its
//! degree there. On the grid of these degrees Newton's forward differences determine one polynomial, with exact rational
//! coefficients (Newton's interpolation formula; the binomial basis keeps every step an integer). Then the model is counted at sizes
//! that played no part, larger ones among them, and a count that differs from its polynomial there is called *piecewise*: somewhere a
//! size is rounded, a branch taken or a limit met. Sizes that a network divides (image sides under strides) give a polynomial only on
//! multiples of a period; the smallest that works is found and told.

use super::{Analysis, analyze};
use crate::error::{Error, Result};
use crate::ir::{self, Bindings};
use crate::ops::spec::ModelSpec;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Mutex;

/// Highest degree in one dim that is looked for.
const MOST: usize = 4;
/// Sizes the dims start from, tried in turn: a model may be too small at the first.
const STARTS: &[usize] = &[2, 4, 8, 16, 32, 64, 128];
/// Distances between sizes, tried in turn.
const PERIODS: &[usize] = &[1, 2, 4, 8, 16, 32, 64];
/// Points that check a polynomial.
pub const CHECKS: usize = 10;

/// A rational number in lowest terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ratio {
    /// Numerator.
    pub num: i128,
    /// Denominator, positive.
    pub den: i128,
}

fn gcd(a: i128, b: i128) -> i128 {
    if b == 0 { a } else { gcd(b, a % b) }
}

impl Ratio {
    const ZERO: Ratio = Ratio { num: 0, den: 1 };

    fn new(num: i128, den: i128) -> Option<Ratio> {
        let g = gcd(num.checked_abs()?, den.checked_abs()?).max(1);
        let sign = if den < 0 { -1 } else { 1 };
        (den != 0).then_some(Ratio { num: sign * (num / g), den: sign * (den / g) })
    }
    fn add(self, o: Ratio) -> Option<Ratio> {
        let g = gcd(self.den, o.den);
        let left = self.num.checked_mul(o.den / g)?;
        Ratio::new(left.checked_add(o.num.checked_mul(self.den / g)?)?, self.den.checked_mul(o.den / g)?)
    }
    fn mul(self, o: Ratio) -> Option<Ratio> {
        let (a, b) = (Ratio::new(self.num, o.den)?, Ratio::new(o.num, self.den)?);
        Ratio::new(a.num.checked_mul(b.num)?, a.den.checked_mul(b.den)?)
    }
}

/// A polynomial with exact coefficients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Polynomial {
    /// Dims it is in.
    pub dims: Vec<String>,
    /// Terms: power of each dim, coefficient; highest total power first.
    pub terms: Vec<(Vec<u32>, Ratio)>,
}

impl Polynomial {
    fn new(dims: &[String], terms: BTreeMap<Vec<u32>, Ratio>) -> Polynomial {
        let mut terms: Vec<_> = terms.into_iter().filter(|(_, c)| c.num != 0).collect();
        terms.sort_by(|(a, _), (b, _)| {
            let total = |p: &[u32]| p.iter().sum::<u32>();
            total(b).cmp(&total(a)).then(b.cmp(a))
        });
        Polynomial { dims: dims.to_vec(), terms }
    }
    /// Its value at sizes; `None` where it does not come out even or does not fit.
    pub fn at(&self, sizes: &[usize]) -> Option<i128> {
        let mut sum = Ratio::ZERO;
        for (powers, c) in &self.terms {
            let mut term = *c;
            for (&size, &p) in sizes.iter().zip(powers) {
                term = term.mul(Ratio { num: i128::try_from(size).ok()?.checked_pow(p)?, den: 1 })?;
            }
            sum = sum.add(term)?;
        }
        (sum.den == 1).then_some(sum.num)
    }
    /// Whether it is the same everywhere.
    pub fn is_constant(&self) -> bool {
        self.terms.iter().all(|(p, _)| p.iter().all(|&p| p == 0))
    }
}

const SUPERSCRIPTS: [&str; 5] = ["", "", "²", "³", "⁴"];

impl fmt::Display for Polynomial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.terms.is_empty() {
            return f.write_str("0");
        }
        for (i, (powers, c)) in self.terms.iter().enumerate() {
            let sign = match (i, c.num < 0) {
                (0, false) => "",
                (0, true) => "-",
                (_, false) => " + ",
                (_, true) => " - ",
            };
            f.write_str(sign)?;
            let mut factors = Vec::new();
            let number = c.num.unsigned_abs();
            let bare = powers.iter().all(|&p| p == 0);
            if number != 1 || bare {
                factors.push(u64::try_from(number).map_or_else(|_| number.to_string(), crate::units::exact));
            }
            for (dim, &p) in self.dims.iter().zip(powers).filter(|(_, p)| **p > 0) {
                factors.push(format!("{dim}{}", SUPERSCRIPTS.get(p as usize).copied().unwrap_or("^n")));
            }
            f.write_str(&factors.join("·"))?;
            if c.den != 1 {
                write!(f, "/{}", c.den)?;
            }
        }
        Ok(())
    }
}

/// A count as a function of the dims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Formula {
    /// This polynomial, at every size that was tried.
    Polynomial(Polynomial),
    /// No polynomial fits; the count at the first size where one failed.
    Piecewise {
        /// Sizes of the dims there.
        sizes: Vec<usize>,
        /// What was counted.
        counted: u64,
    },
    /// The cost is not known.
    Unknown,
}

impl fmt::Display for Formula {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Formula::Polynomial(p) => p.fmt(f),
            Formula::Piecewise { .. } => f.write_str("piecewise"),
            Formula::Unknown => f.write_str("unknown"),
        }
    }
}

/// A row's formulas.
#[derive(Debug, Clone)]
pub struct RowFormula {
    /// Node name.
    pub name: String,
    /// Operator.
    pub op: String,
    /// Learned elements.
    pub params: u64,
    /// Multiply-adds.
    pub madds: Formula,
    /// Other floating-point operations.
    pub other_flops: Formula,
}

/// A model's counts as formulas.
#[derive(Debug, Clone)]
pub struct Symbolic {
    /// The dims.
    pub dims: Vec<String>,
    /// For each dim the first size and the distance between sizes: the formulas hold at sizes `start + k·period`.
    pub lattice: Vec<(usize, usize)>,
    /// Learned elements.
    pub params: Formula,
    /// Multiply-adds.
    pub madds: Formula,
    /// Other floating-point operations.
    pub other_flops: Formula,
    /// Bytes moved.
    pub bytes: Formula,
    /// Rows.
    pub rows: Vec<RowFormula>,
    /// Sizes at which the model was counted to find the formulas, and to check them.
    pub counted: (usize, usize),
}

/// All counts of a model at one point, as one list.
type Counts = Vec<Option<u64>>;

/// Per row MAdds and other FLOPs, then totals.
fn counts(a: &Analysis) -> Counts {
    let rows = a.rows.iter().flat_map(|r| {
        let w = r.work();
        [r.span.madds.known(), w.map(|w| w.other_flops)]
    });
    let t = &a.totals;
    let bytes = (t.unknown_traffic == 0).then(|| t.traffic.total());
    let totals = [Some(t.params), t.span.madds.known(), t.span.other_flops.known(), bytes];
    rows.chain(totals).collect()
}

struct Counter<'a> {
    spec: &'a ModelSpec,
    bindings: &'a Bindings,
    dims: &'a [String],
    known: Mutex<BTreeMap<Vec<usize>, Counts>>,
    names: Mutex<Option<Vec<String>>>,
}

impl Counter<'_> {
    fn analysis(&self, sizes: &[usize]) -> Result<Analysis> {
        let mut bindings = self.bindings.clone();
        for (dim, &n) in self.dims.iter().zip(sizes) {
            bindings.dims.insert(dim.clone(), n);
        }
        Ok(analyze(&ir::build(self.spec, &bindings)?.graph))
    }

    fn count(&self, sizes: &[usize]) -> Result<()> {
        let lock = |e| Error::run(format!("counting stopped: {e}"));
        if self.known.lock().map_err(|e| lock(e.to_string()))?.contains_key(sizes) {
            return Ok(());
        }
        let a = self.analysis(sizes)?;
        let names: Vec<String> = a.rows.iter().map(|r| r.name.clone()).collect();
        let first = self.names.lock().map_err(|e| lock(e.to_string()))?.get_or_insert_with(|| names.clone()).clone();
        if first != names {
            return Err(Error::unsupported("the nodes that run differ with the sizes: a branch depends on them")
                .hint("count it at single sizes with --dim, or --sweep one dim"));
        }
        self.known.lock().map_err(|e| lock(e.to_string()))?.insert(sizes.to_vec(), counts(&a));
        Ok(())
    }

    /// Counts at all points, side by side.
    fn count_all(&self, points: &[Vec<usize>]) -> Result<()> {
        let workers = std::thread::available_parallelism().map_or(1, usize::from).min(points.len()).max(1);
        let results: Vec<Result<()>> = std::thread::scope(|scope| {
            let run = |w: usize| move || points.iter().skip(w).step_by(workers).try_for_each(|p| self.count(p));
            let threads: Vec<_> = (0..workers).map(|w| scope.spawn(run(w))).collect();
            threads.into_iter().map(|t| t.join().unwrap_or_else(|_| Err(Error::run("counting stopped")))).collect()
        });
        results.into_iter().collect()
    }

    fn at(&self, sizes: &[usize]) -> Counts {
        self.known.lock().map(|k| k.get(sizes).cloned().unwrap_or_default()).unwrap_or_default()
    }
}

/// Order of the last finite difference that is not all zero; `None` if more points would be needed.
fn degree(values: &[i128]) -> Option<usize> {
    let mut d = values.to_vec();
    let mut order = 0usize;
    while d.iter().any(|&v| v != 0) {
        d = d.windows(2).map(|w| w[1].checked_sub(w[0])).collect::<Option<_>>()?;
        order += 1;
        // A difference of one or two values proves nothing.
        if d.len() < 2 {
            return None;
        }
    }
    Some(order.saturating_sub(1))
}

/// Finds the formulas of a model's counts in some of its free dims; the others are bound by `bindings`.
///
/// # Errors
/// If a dim is not free, the model cannot be counted at any sizes tried, or its nodes change with the sizes.
pub fn symbolic(spec: &ModelSpec, bindings: &Bindings, dims: &[String]) -> Result<Symbolic> {
    let counter = Counter { spec, bindings, dims, known: Mutex::new(BTreeMap::new()), names: Mutex::new(None) };
    let lattice = lattice(&counter)?;
    let points_along = |m: usize, n: usize| -> Vec<Vec<usize>> {
        let at = |k: usize| (0..dims.len()).map(|i| lattice[i].0 + if i == m { k * lattice[m].1 } else { 0 }).collect();
        (0..n).map(at).collect()
    };
    // Degrees of each count along each dim.
    let mut degrees: Vec<Vec<Option<usize>>> = Vec::new();
    for m in 0..dims.len() {
        let points = points_along(m, MOST + 3);
        counter.count_all(&points)?;
        let lines: Vec<Counts> = points.iter().map(|p| counter.at(p)).collect();
        let of = |q: usize| -> Option<usize> {
            let line: Option<Vec<i128>> = lines.iter().map(|l| l[q].map(i128::from)).collect();
            degree(&line?)
        };
        degrees.push((0..lines[0].len()).map(of).collect());
    }
    // One grid for all counts, of the highest degrees that occur.
    let highest: Vec<usize> = degrees.iter().map(|d| d.iter().flatten().copied().max().unwrap_or(0)).collect();
    let mut grid: Vec<Vec<usize>> = vec![Vec::new()];
    for &h in &highest {
        grid = grid.into_iter().flat_map(|p| (0..=h).map(move |k| [&p[..], &[k]].concat())).collect();
    }
    let sizes_of = |steps: &[usize]| -> Vec<usize> {
        steps.iter().zip(&lattice).map(|(k, (start, period))| start + k * period).collect()
    };
    let points: Vec<Vec<usize>> = grid.iter().map(|p| sizes_of(p)).collect();
    counter.count_all(&points)?;
    let used = counter.known.lock().map_or(0, |k| k.len());
    let checks = check_points(&counter, &highest, &sizes_of)?;
    let quantities = degrees.first().map_or(0, Vec::len);
    let formula = |q: usize| -> Formula {
        let on_grid: Option<Vec<i128>> = points.iter().map(|p| counter.at(p)[q].map(i128::from)).collect();
        let Some(on_grid) = on_grid else { return Formula::Unknown };
        let polynomial = newton(&grid, &highest, on_grid).and_then(|d| expand(dims, &lattice, &d));
        for sizes in &checks {
            let Some(counted) = counter.at(sizes)[q] else { return Formula::Unknown };
            if polynomial.as_ref().and_then(|p| p.at(sizes)) != Some(i128::from(counted)) {
                return Formula::Piecewise { sizes: sizes.clone(), counted };
            }
        }
        match (polynomial, checks.first()) {
            (Some(p), Some(_)) => Formula::Polynomial(p),
            (_, first) => {
                let sizes = first.cloned().unwrap_or_else(|| points[0].clone());
                let counted = counter.at(&sizes)[q].unwrap_or(0);
                Formula::Piecewise { sizes, counted }
            }
        }
    };
    let formulas: Vec<Formula> = (0..quantities).map(formula).collect();
    let sample = counter.analysis(&points[0])?;
    let n = sample.rows.len();
    let rows = sample.rows.iter().enumerate().filter(|(_, r)| !r.is_static).map(|(i, r)| RowFormula {
        name: r.name.clone(),
        op: r.op.clone(),
        params: r.params,
        madds: formulas[2 * i].clone(),
        other_flops: formulas[2 * i + 1].clone(),
    });
    Ok(Symbolic {
        dims: dims.to_vec(),
        params: formulas[2 * n].clone(),
        madds: formulas[2 * n + 1].clone(),
        other_flops: formulas[2 * n + 2].clone(),
        bytes: formulas[2 * n + 3].clone(),
        rows: rows.collect(),
        counted: (used, checks.len()),
        lattice,
    })
}

/// Where to count: for each dim the first size that works and the smallest distance at which every count behaves.
fn lattice(counter: &Counter) -> Result<Vec<(usize, usize)>> {
    let k = counter.dims.len();
    let mut failed = None;
    let start = STARTS.iter().copied().find(|&s| match counter.count(&vec![s; k]) {
        Ok(()) => true,
        Err(e) => {
            failed.get_or_insert(e);
            false
        }
    });
    let Some(start) = start else {
        return Err(failed.unwrap_or_else(|| Error::run("nothing was counted")));
    };
    let mut lattice = vec![(start, 1); k];
    for m in 0..k {
        // With a larger distance the first size moves to a multiple of it.
        let fits = PERIODS.iter().copied().find(|&period| {
            let first = start.next_multiple_of(period);
            let points: Vec<Vec<usize>> = (0..MOST + 3)
                .map(|step| {
                    let mut sizes: Vec<usize> = lattice.iter().map(|l| l.0).collect();
                    sizes[m] = first + step * period;
                    sizes
                })
                .collect();
            if counter.count_all(&points).is_err() {
                return false;
            }
            let lines: Vec<Counts> = points.iter().map(|p| counter.at(p)).collect();
            let totals = lines[0].len() - 4..lines[0].len();
            totals.clone().all(|q| {
                let line: Option<Vec<i128>> = lines.iter().map(|l| l[q].map(i128::from)).collect();
                line.is_none_or(|l| degree(&l).is_some())
            })
        });
        let period = fits.unwrap_or(1);
        lattice[m] = (start.next_multiple_of(period), period);
    }
    Ok(lattice)
}

/// Points that played no part in finding the polynomials: spread, and beyond the grid.
fn check_points(
    counter: &Counter,
    highest: &[usize],
    sizes_of: &dyn Fn(&[usize]) -> Vec<usize>,
) -> Result<Vec<Vec<usize>>> {
    let mut good = Vec::new();
    let mut failed = None;
    // Multiples of odd numbers, so that dims do not move together.
    for i in 1..=3 * CHECKS {
        if good.len() == CHECKS {
            break;
        }
        let steps: Vec<usize> = (0..highest.len()).map(|m| MOST + 3 + (i * (2 * m + 3) + m) % (19 + 8 * m)).collect();
        let sizes = sizes_of(&steps);
        if good.contains(&sizes) {
            continue;
        }
        match counter.count(&sizes) {
            Ok(()) => good.push(sizes),
            Err(e) => drop(failed.get_or_insert(e)),
        }
    }
    match failed {
        Some(e) if good.is_empty() => Err(e),
        _ => Ok(good),
    }
}

/// Forward differences of values on a grid: the coefficients of Newton's formula in the binomial basis.
fn newton(grid: &[Vec<usize>], highest: &[usize], mut values: Vec<i128>) -> Option<BTreeMap<Vec<usize>, i128>> {
    let mut stride = vec![1; highest.len()];
    for m in (0..highest.len().saturating_sub(1)).rev() {
        stride[m] = stride[m + 1] * (highest[m + 1] + 1);
    }
    for m in 0..highest.len() {
        for order in 1..=highest[m] {
            for i in (0..values.len()).rev() {
                if grid[i][m] >= order {
                    values[i] = values[i].checked_sub(values[i - stride[m]])?;
                }
            }
        }
    }
    Some(grid.iter().cloned().zip(values).filter(|(_, v)| *v != 0).collect())
}

/// From the binomial basis in `(x − start) / period` to powers of `x`.
fn expand(dims: &[String], lattice: &[(usize, usize)], differences: &BTreeMap<Vec<usize>, i128>) -> Option<Polynomial> {
    let mut sum: BTreeMap<Vec<u32>, Ratio> = BTreeMap::new();
    for (orders, &d) in differences {
        let mut term: BTreeMap<Vec<u32>, Ratio> = BTreeMap::from([(vec![0; dims.len()], Ratio { num: d, den: 1 })]);
        for (m, &order) in orders.iter().enumerate() {
            let (start, period) = (lattice[m].0 as i128, lattice[m].1 as i128);
            // C(t, order) = Π (t − i) / (i + 1), with t − i = (x − start − i·period) / period.
            for i in 0..order as i128 {
                let slope = Ratio::new(1, period.checked_mul(i + 1)?)?;
                let shift = slope.mul(Ratio { num: -start - i * period, den: 1 })?;
                let mut next: BTreeMap<Vec<u32>, Ratio> = BTreeMap::new();
                for (powers, c) in &term {
                    let mut up = powers.clone();
                    up[m] += 1;
                    for (powers, factor) in [(up, slope), (powers.clone(), shift)] {
                        let entry = next.entry(powers).or_insert(Ratio::ZERO);
                        *entry = entry.add(c.mul(factor)?)?;
                    }
                }
                term = next;
            }
        }
        for (powers, c) in term {
            let entry = sum.entry(powers).or_insert(Ratio::ZERO);
            *entry = entry.add(c)?;
        }
    }
    Some(Polynomial::new(dims, sum))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What interpolation makes of a function given at the grid.
    fn found(highest: &[usize], lattice: &[(usize, usize)], f: impl Fn(&[usize]) -> i128) -> Polynomial {
        let dims = ["batch".to_string(), "seq".to_string()];
        let mut grid: Vec<Vec<usize>> = vec![Vec::new()];
        for &h in highest {
            grid = grid.into_iter().flat_map(|p| (0..=h).map(move |k| [&p[..], &[k]].concat())).collect();
        }
        let sizes = |p: &[usize]| -> Vec<usize> { p.iter().zip(lattice).map(|(k, (s, d))| s + k * d).collect() };
        let values = grid.iter().map(|p| f(&sizes(p))).collect();
        expand(&dims, lattice, &newton(&grid, highest, values).unwrap()).unwrap()
    }

    #[test]
    fn polynomials_come_back_as_they_were() {
        let f = |x: &[usize]| {
            let (b, s) = (x[0] as i128, x[1] as i128);
            85_054_464 * b * s + 18_432 * b * s * s + 1536 * b - 7
        };
        let p = found(&[1, 2], &[(2, 1), (2, 1)], f);
        assert_eq!(p.to_string(), "18,432·batch·seq² + 85,054,464·batch·seq + 1,536·batch - 7");
        assert_eq!(p.at(&[3, 511]), Some(f(&[3, 511])));
        let triangle = found(&[1, 2], &[(3, 4), (8, 2)], |x| (x[1] * (x[1] + 1) / 2) as i128);
        assert_eq!(triangle.to_string(), "seq²/2 + seq/2");
        assert_eq!(triangle.at(&[1, 4]), Some(10));
        assert_eq!(found(&[1, 2], &[(2, 1), (2, 1)], |_| 0).to_string(), "0");
    }

    #[test]
    fn degrees_need_enough_points() {
        let line = |f: &dyn Fn(i128) -> i128| -> Vec<i128> { (0..7).map(f).collect() };
        assert_eq!(degree(&line(&|_| 5)), Some(0));
        assert_eq!(degree(&line(&|x| 3 * x + 1)), Some(1));
        assert_eq!(degree(&line(&|x| x * x * x * x)), Some(4));
        assert_eq!(degree(&line(&|x| x / 2)), None);
        assert_eq!(degree(&line(&|x| 1 << x)), None);
    }
}
