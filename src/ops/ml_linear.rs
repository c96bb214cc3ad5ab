//! LinearClassifier, LinearRegressor, SVMClassifier, SVMRegressor.
//!
//! <https://onnx.ai/onnx/operators/onnx_aionnxml_LinearClassifier.html>, <https://onnx.ai/onnx/operators/onnx_aionnxml_SVMClassifier.html>
//! and their neighbours; Chang and Lin, LIBSVM (2011).
//!
//! Linear models: `N·C·E` MAdds for E results, 1 other FLOP per result for an intercept. Support vector machines: per row and support vector
//! C MAdds for the kernel function, and other FLOPs: RBF C + 2, polynomial and sigmoid 3, linear none; then one MAdd per support vector and
//! decision function. Intercepts of decision functions are where their sums begin, so free. Then what becomes of scores, see [`Post`].
//! Probabilities of a classifier (Platt's sigmoids coupled by Wu, Lin and Weng 2004) are found by iteration: at least nothing.
//!
//! Coefficients, intercepts, support vectors and Platt's factors are learned.

use super::cast::cast;
use super::ml::{DOMAIN, Labels, Lone, Post, features, largest, row_dims, rows, scores_fact, two_scores, two_scores_flops};
use super::spec::{Attr, NodeSpec};
use super::{Case, Charge, CostCx, Entry, EvalCx, Family, Held, Infer, Inputs, Op, input, sample};
use crate::cost::{Span, Work, WorkSpan, product};
use crate::error::{Error, Result};
use crate::tensor::{DType, Fact, Num, Shape, Tensor, element_count};
use crate::with_num;

const fn entry(name: &'static str) -> Entry {
    Entry { domain: DOMAIN, name, parse: MlLinear::parse, cases }
}

/// The family's table rows.
pub const ENTRIES: &[Entry] =
    &[entry("LinearClassifier"), entry("LinearRegressor"), entry("SVMClassifier"), entry("SVMRegressor")];

/// A linear model or a support vector machine.
#[derive(Debug, Clone)]
pub struct MlLinear {
    /// Class labels; `None` for a regressor.
    labels: Option<Labels>,
    post: Post,
    /// Factors: per result and feature, or per decision function and support vector.
    coefficients: Vec<f32>,
    /// What sums begin with.
    intercepts: Vec<f32>,
    /// Number of results (linear) before a second class is made up.
    results: usize,
    machine: Option<Machine>,
    /// A regressor that only tells inliers from outliers.
    one_class: bool,
}

/// The support vectors of a machine.
#[derive(Debug, Clone)]
struct Machine {
    kernel: Kernel,
    vectors: Vec<f32>,
    /// Vectors per class; one entry for a regressor.
    per_class: Vec<usize>,
    /// Platt's factors per pair of classes.
    platt: Option<(Vec<f32>, Vec<f32>)>,
}

/// A kernel function with its γ, c₀ and degree.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kernel {
    Linear,
    Poly(f32, f32, f32),
    Rbf(f32),
    Sigmoid(f32, f32),
}

impl Kernel {
    fn parse(node: &NodeSpec) -> Result<Kernel> {
        let p = node.opt_floats("kernel_params")?.unwrap_or_default();
        let at = |i: usize| p.get(i).copied().unwrap_or(0.0);
        Ok(match node.str("kernel_type", "LINEAR")? {
            "LINEAR" => Kernel::Linear,
            "POLY" => Kernel::Poly(at(0), at(1), at(2)),
            "RBF" => Kernel::Rbf(at(0)),
            "SIGMOID" => Kernel::Sigmoid(at(0), at(1)),
            other => return Err(Error::input(format!("'{other}' is not a kernel function")).at_attribute("kernel_type")),
        })
    }
    /// Other FLOPs for vectors of a length.
    fn flops(self, n: usize) -> Option<u64> {
        match self {
            Kernel::Linear => Some(0),
            Kernel::Poly(..) | Kernel::Sigmoid(..) => Some(3),
            Kernel::Rbf(_) => (n as u64).checked_add(2),
        }
    }
    fn of<T: Num>(self, x: &[T], v: &[f32]) -> T {
        let c = |v: f32| T::of(f64::from(v));
        let dot = || x.iter().zip(v).fold(T::zero(), |sum, (&x, &v)| sum.madd(x, c(v)));
        match self {
            Kernel::Linear => dot(),
            Kernel::Poly(gamma, bias, degree) => (dot() * c(gamma) + c(bias)).apply2(c(degree), f64::powf),
            Kernel::Sigmoid(gamma, bias) => (dot() * c(gamma) + c(bias)).tanh(),
            Kernel::Rbf(gamma) => {
                let square = x.iter().zip(v).fold(T::zero(), |sum, (&x, &v)| {
                    let d = x - c(v);
                    sum.madd(d, d)
                });
                (square * c(-gamma)).exp()
            }
        }
    }
}

impl MlLinear {
    fn parse(node: &NodeSpec) -> Result<Op> {
        node.expect_inputs(1, 1)?;
        let needed = |name: &str| Error::input("is required").at_attribute(name);
        let coefficients = node.opt_floats("coefficients")?.ok_or_else(|| needed("coefficients"))?;
        let post = Post::parse(node)?;
        let svm = node.op_type.starts_with("SVM");
        let labels = if node.op_type.ends_with("Classifier") {
            Some(Labels::parse(node, "classlabels_ints", "classlabels_strings")?)
        } else {
            None
        };
        let classes = labels.as_ref().map_or(1, |l| l.len().max(1));
        let intercepts = node.opt_floats(if svm { "rho" } else { "intercepts" })?.unwrap_or_default();
        let mut op =
            MlLinear { labels, post, coefficients, intercepts, results: classes, machine: None, one_class: false };
        if !svm {
            if op.labels.is_none() {
                op.results = node.opt_size("targets")?.unwrap_or(1);
            } else if !op.intercepts.is_empty() {
                op.results = op.intercepts.len();
            }
            let fits = op.results > 0 && op.coefficients.len().is_multiple_of(op.results);
            if !fits || !(op.intercepts.is_empty() || op.intercepts.len() == op.results) {
                return Err(Error::input(format!("does not divide into {} results", op.results)).at_attribute("coefficients"));
            }
            return Ok(Op::MlLinear(op));
        }
        op.one_class = node.flag("one_class", false)?;
        let vectors = node.opt_floats("support_vectors")?.unwrap_or_default();
        let per_class = match &op.labels {
            Some(_) => node.opt_sizes("vectors_per_class")?.unwrap_or_default(),
            None => vec![node.opt_size("n_supports")?.unwrap_or(0)],
        };
        let count = per_class.iter().try_fold(0usize, |n, &v| n.checked_add(v)).ok_or_else(|| needed("vectors_per_class"))?;
        if count == 0 {
            // LIBLINEAR's form: a linear function per class.
            let fits = op.coefficients.len().is_multiple_of(op.results);
            if !fits || op.intercepts.is_empty() {
                return Err(Error::input("does not fit the number of classes").at_attribute("coefficients"));
            }
            let first = op.intercepts[0];
            op.intercepts = vec![first; op.results];
            return Ok(Op::MlLinear(op));
        }
        let functions = if op.labels.is_some() { per_class.len().saturating_sub(1) } else { 1 };
        let pairs = if op.labels.is_some() { per_class.len().saturating_mul(functions) / 2 } else { 1 };
        let platt = match (node.opt_floats("prob_a")?.unwrap_or_default(), node.opt_floats("prob_b")?.unwrap_or_default()) {
            (a, b) if a.is_empty() && b.is_empty() => None,
            (a, b) if a.len() == pairs && b.len() == pairs => Some((a, b)),
            _ => return Err(Error::input("must have one value per pair of classes").at_attribute("prob_a")),
        };
        if vectors.is_empty() || !vectors.len().is_multiple_of(count) {
            return Err(Error::input(format!("is not {count} vectors")).at_attribute("support_vectors"));
        }
        if Some(op.coefficients.len()) != count.checked_mul(functions) || op.intercepts.len() < pairs {
            return Err(Error::input(format!("does not fit {count} vectors")).at_attribute("coefficients"));
        }
        if op.labels.as_ref().is_some_and(|l| l.len() > 1 && l.len() != per_class.len()) {
            return Err(Error::input("must have one value per class").at_attribute("vectors_per_class"));
        }
        op.machine = Some(Machine { kernel: Kernel::parse(node)?, vectors, per_class, platt });
        Ok(Op::MlLinear(op))
    }

    /// Scores of a row before anything becomes of them: per result, class with a probability, or pair of classes.
    fn raw(&self) -> usize {
        match &self.machine {
            Some(Machine { platt: Some(_), per_class, .. }) => per_class.len(),
            Some(m) if self.labels.is_some() => m.per_class.len() * m.per_class.len().saturating_sub(1) / 2,
            Some(_) => 1,
            None => self.results,
        }
    }
    /// Whether a second score is made up for the other of two classes.
    fn makes_second(&self) -> bool {
        self.raw() == 1 && self.labels.as_ref().is_some_and(|l| l.len() == 2)
    }
    /// What a lone score of a classifier is taken for.
    fn lone(&self) -> Lone {
        if self.machine.is_some() && self.post == Post::None { Lone::Margin } else { Lone::Share }
    }

    /// A row's scores, and the votes of a machine that decides between pairs of classes.
    fn scores<T: Num>(&self, x: &[T]) -> (Vec<T>, Option<Vec<usize>>) {
        let c = |v: f32| T::of(f64::from(v));
        let start = |i: usize| self.intercepts.get(i).map_or(T::zero(), |&v| c(v));
        let Some(m) = &self.machine else {
            let per = self.coefficients.len() / self.results;
            let of = |r: usize| {
                let w = &self.coefficients[r * per..][..per];
                let sum = x.iter().zip(w).fold(T::zero(), |sum, (&x, &w)| sum.madd(x, c(w)));
                if self.intercepts.is_empty() { sum } else { sum + start(r) }
            };
            return ((0..self.results).map(of).collect(), None);
        };
        let count: usize = m.per_class.iter().sum();
        let kernels: Vec<T> = m.vectors.chunks_exact(m.vectors.len() / count).map(|v| m.kernel.of(x, v)).collect();
        let weighted = |from: T, function: usize, at: usize, n: usize| {
            let w = &self.coefficients[function * count + at..][..n];
            w.iter().zip(&kernels[at..at + n]).fold(from, |sum, (&w, &k)| sum.madd(c(w), k))
        };
        if self.labels.is_none() {
            return (vec![weighted(start(0), 0, 0, count)], None);
        }
        let classes = m.per_class.len();
        let begins: Vec<usize> = (0..classes).map(|k| m.per_class[..k].iter().sum()).collect();
        let (mut scores, mut votes) = (Vec::new(), vec![0; classes]);
        for i in 0..classes {
            for j in i + 1..classes {
                let first = weighted(start(scores.len()), j - 1, begins[i], m.per_class[i]);
                let score = weighted(first, i, begins[j], m.per_class[j]);
                votes[if score.get() > 0.0 { i } else { j }] += 1;
                scores.push(score);
            }
        }
        if let Some((a, b)) = &m.platt {
            let pairs: Vec<f64> = scores.iter().map(|s| s.get()).collect();
            scores = coupled(&pairs, a, b, classes).into_iter().map(T::of).collect();
            return (scores, Some(votes));
        }
        (scores, Some(votes))
    }

    fn run<T: Num>(&self, x: &Tensor) -> Result<Vec<Tensor>> {
        let (n, width) = rows(x.dims())?;
        let want = match &self.machine {
            Some(m) => m.vectors.len() / m.per_class.iter().sum::<usize>(),
            None => self.coefficients.len() / self.results,
        };
        if width != want {
            return Err(Error::input(format!("{width} features where the model has {want}")));
        }
        let columns = if self.makes_second() { 2 } else { self.raw() };
        let x = T::load(x)?;
        let mut y = super::elements::reserved(element_count(&[n, columns])?)?;
        let mut classes = Vec::with_capacity(n);
        for row in 0..n {
            let (mut scores, votes) = self.scores(&x[row * width..][..width]);
            let Some(labels) = &self.labels else {
                if self.one_class {
                    scores.iter_mut().for_each(|s| *s = T::of(if s.get() > 0.0 { 1.0 } else { -1.0 }));
                }
                self.post.apply(&mut scores);
                y.extend(scores);
                continue;
            };
            let voted = votes.map(|v| (0..v.len()).fold(0, |best, i| if v[i] > v[best] { i } else { best }));
            if self.makes_second() {
                // Of a machine, votes decide.
                classes.push(voted.unwrap_or(usize::from(scores[0].get() > 0.0)));
                y.extend(two_scores(scores[0], self.lone(), self.post));
                continue;
            }
            classes.push(match voted {
                Some(class) if labels.len() > 1 => class,
                _ if scores.len() == 1 => usize::from(scores[0].get() > 0.0),
                _ => largest(&scores),
            });
            self.post.apply(&mut scores);
            y.extend(scores);
        }
        let scores = cast(&T::store(y, &[n, columns])?, DType::F32, true)?;
        Ok(match &self.labels {
            Some(labels) => vec![labels.of(&classes)?, scores],
            None => vec![scores],
        })
    }
}

/// Probabilities of classes from those of pairs: Wu, Lin and Weng (2004), second method, as LIBSVM computes it.
fn coupled(scores: &[f64], a: &[f32], b: &[f32], k: usize) -> Vec<f64> {
    let mut r = vec![0.0; k * k];
    let mut pair = 0;
    for i in 0..k {
        for j in i + 1..k {
            let v = scores[pair] * f64::from(a[pair]) + f64::from(b[pair]);
            let p = (1.0 / (1.0 + v.exp())).clamp(1e-7, 1.0 - 1e-7);
            (r[i * k + j], r[j * k + i]) = (p, 1.0 - p);
            pair += 1;
        }
    }
    let mut q = vec![0.0; k * k];
    for t in 0..k {
        for j in (0..k).filter(|&j| j != t) {
            q[t * k + t] += r[j * k + t] * r[j * k + t];
            q[t * k + j] = -r[j * k + t] * r[t * k + j];
        }
    }
    let mut p = vec![1.0 / k as f64; k];
    for _ in 0..k.max(100) {
        let mut qp: Vec<f64> = (0..k).map(|t| (0..k).map(|j| q[t * k + j] * p[j]).sum()).collect();
        let mut pqp: f64 = p.iter().zip(&qp).map(|(p, q)| p * q).sum();
        if qp.iter().all(|v| (v - pqp).abs() < 0.005 / k as f64) {
            break;
        }
        for t in 0..k {
            let diff = (pqp - qp[t]) / q[t * k + t];
            p[t] += diff;
            pqp = (pqp + diff * (diff * q[t * k + t] + 2.0 * qp[t])) / (1.0 + diff).powi(2);
            for j in 0..k {
                qp[j] = (qp[j] + diff * q[t * k + j]) / (1.0 + diff);
                p[j] /= 1.0 + diff;
            }
        }
    }
    p
}

impl Family for MlLinear {
    fn infer(&self, cx: &Infer) -> Result<Vec<Fact>> {
        let (n, _) = row_dims(cx.input(0)?)?;
        let columns = if self.makes_second() { 2 } else { self.raw() };
        let scores = scores_fact(n, Some(columns));
        Ok(match &self.labels {
            Some(labels) => vec![Fact::new(labels.dtype(), Shape::partial(vec![n])), scores],
            None => vec![scores],
        })
    }
    fn charge(&self, cx: &CostCx) -> Charge {
        let work = || {
            let (n, width) = rows(&cx.dims(0)?).ok()?;
            let (mut madds, mut other) = (0u64, 0u64);
            match &self.machine {
                None => {
                    madds = product([self.results, width])?;
                    other = self.intercepts.len() as u64;
                }
                Some(m) => {
                    let count = m.per_class.iter().sum::<usize>();
                    let functions = if self.labels.is_some() { m.per_class.len().saturating_sub(1) } else { 1 };
                    madds = madds.checked_add(product([count, width])?)?.checked_add(product([count, functions])?)?;
                    other = other.checked_add((count as u64).checked_mul(m.kernel.flops(width)?)?)?;
                }
            }
            let post =
                if self.makes_second() { two_scores_flops(self.post) } else { self.post.flops(self.raw())? };
            Work::madds(madds).and_other(other.checked_add(post)?).times(n as u64)
        };
        match (work(), &self.machine) {
            (Some(work), Some(Machine { platt: Some(_), .. })) => {
                let other_flops = Span { low: work.other_flops, high: None };
                Charge::Between(WorkSpan { other_flops, ..WorkSpan::exact(work) })
            }
            (work, _) => Charge::of(work),
        }
    }
    fn eval(&self, cx: &EvalCx, inputs: &Inputs) -> Result<Vec<Tensor>> {
        let x = features(input(inputs, 0)?)?;
        with_num!(cx.arith, x.dtype(), T => self.run::<T>(&x))
    }
    fn held(&self) -> Held {
        let machine = self.machine.as_ref().map_or(0, |m| {
            m.vectors.len() + m.platt.as_ref().map_or(0, |(a, b)| a.len() + b.len())
        });
        Held::floats(self.coefficients.len() + self.intercepts.len() + machine, 0)
    }
}

fn cases() -> Vec<Case> {
    let f = |n: usize, seed: u64| {
        Attr::Floats(sample::floats(&[n], seed).view::<f32>().map(|v| v.into_owned()).unwrap_or_default())
    };
    let x = || sample::floats(&[3, 4], 1);
    let str = |name: &'static str, v: &str| (name, Attr::Str(v.into()));
    let ints = |name: &'static str, v: &[i64]| (name, Attr::Ints(v.to_vec()));
    let make = |op: &str, attrs: &[(&str, Attr)], x: Tensor| {
        let outputs = if op.ends_with("Classifier") { 2 } else { 1 };
        Case::with_optional(op, attrs, vec![Some(x)], outputs).domain(DOMAIN)
    };
    let linear = |n: usize, post: &str| {
        vec![("coefficients", f(4 * n, 2)), ("intercepts", f(n, 3)), str("post_transform", post)]
    };
    let with = |mut attrs: Vec<(&'static str, Attr)>, more: &[(&'static str, Attr)]| {
        attrs.extend_from_slice(more);
        attrs
    };
    let machine = |kernel: &str, count: usize, functions: usize, pairs: usize| {
        vec![
            ("coefficients", f(count * functions, 4)),
            ("rho", f(pairs, 5)),
            ("support_vectors", f(count * 4, 6)),
            str("kernel_type", kernel),
            ("kernel_params", Attr::Floats(vec![0.5, 0.1, 3.0])),
        ]
    };
    let mut all = Vec::new();
    for post in ["NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO", "PROBIT"] {
        let three = [ints("classlabels_ints", &[5, 6, 7])];
        all.push(make("LinearClassifier", &with(linear(3, post), &three), x()));
        all.push(make("LinearClassifier", &with(linear(1, post), &[ints("classlabels_ints", &[0, 1])]), x()));
    }
    let named = ("classlabels_strings", Attr::Strs(vec!["no".into(), "yes".into()]));
    all.push(make("LinearClassifier", &with(linear(2, "LOGISTIC"), std::slice::from_ref(&named)), sample::ints(&[1, 2, 3, 4])));
    all.push(make("LinearRegressor", &linear(1, "NONE"), x()));
    all.push(make("LinearRegressor", &with(linear(2, "NONE"), &[("targets", Attr::Int(2))]), x()));
    for kernel in ["LINEAR", "POLY", "RBF", "SIGMOID"] {
        let support = [("n_supports", Attr::Int(5))];
        all.push(make("SVMRegressor", &with(machine(kernel, 5, 1, 1), &support), x()));
        let classes = [ints("classlabels_ints", &[0, 1, 2]), ints("vectors_per_class", &[2, 1, 3])];
        all.push(make("SVMClassifier", &with(machine(kernel, 6, 2, 3), &classes), x()));
    }
    let two = [named, ints("vectors_per_class", &[2, 3])];
    let platt = [("prob_a", Attr::Floats(vec![-1.5])), ("prob_b", Attr::Floats(vec![0.1]))];
    all.extend([
        make("SVMClassifier", &with(machine("RBF", 5, 1, 1), &two), x()),
        make("SVMClassifier", &with(with(machine("RBF", 5, 1, 1), &two), &platt), x()),
        make("SVMClassifier", &[("coefficients", f(8, 1)), ("rho", f(1, 2)), ints("classlabels_ints", &[3, 4])], x()),
        make("SVMRegressor", &[("coefficients", f(4, 1)), ("rho", f(1, 2)), ("one_class", Attr::Int(1))], x()),
    ]);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coupled_probabilities_add_up_and_follow_their_pairs() {
        let p = coupled(&[1.0, 2.0, 0.5], &[-2.0; 3], &[0.0; 3], 3);
        assert!((p.iter().sum::<f64>() - 1.0).abs() < 1e-9, "{p:?}");
        assert!(p[0] > p[1] && p[1] > p[2], "{p:?}");
    }
}
