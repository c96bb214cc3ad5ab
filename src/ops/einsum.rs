//! Einsum.
//!
//! <https://onnx.ai/onnx/operators/onnx__Einsum.html>. MAdds of two operands: the product of the sizes of all their labels. More
//! operands are contracted pairwise from left to right, a label being summed as soon as neither the output nor a later operand
//! names it; MAdds add up. One operand has none: summing costs one other FLOP per element read.

use super::matmul::{Ring, from_ints};
use super::spec::{Attr, NodeSpec};
use super::{Case, Charge, CostCx, Entry, EvalCx, Family, Infer, Inputs, Op, Role, input, sample};
use crate::cost::{Work, product};
use crate::error::{Error, Result};
use crate::tensor::{Dim, Fact, Shape, Tensor, element_count, is_num};
use crate::with_num;

/// The family's table rows.
pub const ENTRIES: &[Entry] = &[Entry { domain: "", name: "Einsum", parse: Einsum::parse, cases }];

/// A label of the equation: a letter, or an axis of the ellipsis counted from its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Label {
    Ellipsis(usize),
    Letter(u8),
}

/// Labels of each operand, of the output, and the size of each.
type Resolved = (Vec<Vec<Label>>, Vec<Label>, Vec<(Label, Dim)>);

/// A side of the equation: letters, `None` for the ellipsis.
type Term = Vec<Option<u8>>;

/// A tensor contraction.
#[derive(Debug, Clone)]
pub struct Einsum {
    terms: Vec<Term>,
    output: Option<Term>,
}

impl Einsum {
    fn parse(node: &NodeSpec) -> Result<Op> {
        let n = node.inputs.len();
        node.expect_inputs(1.max(n), 1.max(n))?;
        let wrong = |why: String| Error::input(why).at_attribute("equation");
        let equation: String = node
            .opt_str("equation")?
            .ok_or_else(|| wrong("is required".into()))?
            .chars()
            .filter(|c| !c.is_whitespace())
            .collect();
        let term = |text: &str| -> Result<Term> {
            let mut out = Term::new();
            let mut rest = text.as_bytes();
            while let Some((&c, tail)) = rest.split_first() {
                if rest.starts_with(b"...") {
                    if out.contains(&None) {
                        return Err(wrong(format!("'{text}' has two ellipses")));
                    }
                    out.push(None);
                    rest = &rest[3..];
                } else if c.is_ascii_alphabetic() {
                    out.push(Some(c));
                    rest = tail;
                } else {
                    return Err(wrong(format!("'{text}' is not a term")));
                }
            }
            Ok(out)
        };
        let (inputs, output) = match equation.split_once("->") {
            Some((i, o)) => (i, Some(term(o)?)),
            None => (&equation[..], None),
        };
        let terms: Vec<Term> = inputs.split(',').map(term).collect::<Result<_>>()?;
        if terms.len() != n {
            return Err(wrong(format!("has {} terms for {n} operands", terms.len())));
        }
        if let Some(o) = &output {
            for (i, l) in o.iter().enumerate() {
                if o[..i].contains(l) || (l.is_some() && !terms.iter().any(|t| t.contains(l))) {
                    return Err(wrong("each output label must be new and come from an operand".into()));
                }
            }
        }
        Ok(Op::Einsum(Einsum { terms, output }))
    }

    /// Labels of each operand and of the output, for operands of the given ranks.
    fn labels(&self, ranks: &[usize]) -> Result<(Vec<Vec<Label>>, Vec<Label>)> {
        let mut operands = Vec::with_capacity(ranks.len());
        let mut widest = 0;
        for (term, &rank) in self.terms.iter().zip(ranks) {
            let letters = term.iter().flatten().count();
            let dots = rank.checked_sub(letters).filter(|&d| d == 0 || term.contains(&None));
            let dots = dots.ok_or_else(|| {
                Error::input(format!("a term of {letters} letters for a rank-{rank} operand")).at_attribute("equation")
            })?;
            widest = widest.max(dots);
            operands.push(expand(term, dots));
        }
        let output = match &self.output {
            Some(term) => expand(term, widest),
            None => {
                let mut once: Vec<u8> = self.terms.iter().flatten().flatten().copied().collect();
                once.sort_unstable();
                let letters = once.chunk_by(|a, b| a == b).filter(|c| c.len() == 1).map(|c| Some(c[0]));
                expand(&std::iter::once(None).chain(letters).collect::<Term>(), widest)
            }
        };
        Ok((operands, output))
    }

    /// The equation as one product of matrices of the operands as they lie, where it is one: `[batch…][m…][k…]` or `[batch…][k…][m…]`
    /// by `[batch…][k…][n…]` or `[batch…][n…][k…]` to `[batch…][m…][n…]`.
    pub(crate) fn product(&self, a: &[usize], b: &[usize]) -> Option<Matrices> {
        if self.terms.len() != 2 {
            return None;
        }
        let (terms, out) = self.labels(&[a.len(), b.len()]).ok()?;
        let (la, lb) = (&terms[0], &terms[1]);
        let repeated = |t: &[Label]| t.iter().enumerate().any(|(i, l)| t[..i].contains(l));
        if repeated(la) || repeated(lb) {
            return None;
        }
        let size_in = |t: &[Label], dims: &[usize], l: &Label| t.iter().position(|x| x == l).map(|i| dims[i]);
        // A size of 1 that is repeated along the other operand's is no matrix as it lies.
        if la.iter().any(|l| size_in(lb, b, l).is_some_and(|d| Some(d) != size_in(la, a, l))) {
            return None;
        }
        let batch: Vec<Label> = out.iter().copied().take_while(|l| la.contains(l) && lb.contains(l)).collect();
        let own = |t: &[Label], other: &[Label]| -> Vec<Label> {
            t.iter().copied().filter(|l| !other.contains(l)).collect()
        };
        let (m, n) = (own(la, lb), own(lb, la));
        let k: Vec<Label> = la.iter().copied().filter(|l| lb.contains(l) && !batch.contains(l)).collect();
        if k.is_empty() || [&batch[..], &m, &n].concat() != out {
            return None;
        }
        let trans_a = *la != [&batch[..], &m, &k].concat();
        let trans_b = *lb != [&batch[..], &k, &n].concat();
        if trans_a && *la != [&batch[..], &k, &m].concat() || trans_b && *lb != [&batch[..], &n, &k].concat() {
            return None;
        }
        let sizes = |of: &[Label], t: &[Label], dims: &[usize]| -> Vec<usize> {
            of.iter().filter_map(|l| size_in(t, dims, l)).collect()
        };
        Some(Matrices {
            batch: sizes(&batch, la, a),
            m: sizes(&m, la, a).iter().product(),
            n: sizes(&n, lb, b).iter().product(),
            k: sizes(&k, la, a).iter().product(),
            trans_a,
            trans_b,
            single: m.len() == 1 && n.len() == 1 && k.len() == 1,
        })
    }

    fn resolve(&self, operands: &[&[Dim]]) -> Result<Resolved> {
        let ranks: Vec<usize> = operands.iter().map(|d| d.len()).collect();
        let (labels, output) = self.labels(&ranks)?;
        let mut sizes: Vec<(Label, Dim)> = Vec::new();
        for (l, &d) in labels.iter().flatten().zip(operands.iter().flat_map(|d| d.iter())) {
            match sizes.iter_mut().find(|s| s.0 == *l) {
                None => sizes.push((*l, d)),
                Some((_, known)) => {
                    *known = match (*known, d) {
                        (Some(1), x) | (x, Some(1)) => x,
                        (Some(a), Some(b)) if a != b => {
                            return Err(Error::input(format!("a label has sizes {a} and {b}")).at_attribute("equation"));
                        }
                        (a, b) => a.or(b),
                    }
                }
            }
        }
        Ok((labels, output, sizes))
    }
}

/// A contraction as a product of matrices, see [`Einsum::product`].
pub(crate) struct Matrices {
    pub(crate) batch: Vec<usize>,
    pub(crate) m: usize,
    pub(crate) n: usize,
    pub(crate) k: usize,
    pub(crate) trans_a: bool,
    pub(crate) trans_b: bool,
    /// Rows, columns and the summed axis are one axis each.
    pub(crate) single: bool,
}

fn expand(term: &Term, dots: usize) -> Vec<Label> {
    let mut out = Vec::new();
    for l in term {
        match l {
            Some(c) => out.push(Label::Letter(*c)),
            None => out.extend((0..dots).rev().map(Label::Ellipsis)),
        }
    }
    out
}

/// One contraction: the labels that are kept, in order, and those that are summed.
struct Step {
    keep: Vec<Label>,
    sum: Vec<Label>,
}

/// The contractions from left to right.
fn steps(operands: &[Vec<Label>], output: &[Label]) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut current = operands[0].clone();
    current.sort_unstable();
    current.dedup();
    if operands.len() == 1 {
        let sum = current.into_iter().filter(|l| !output.contains(l)).collect();
        return vec![Step { keep: output.to_vec(), sum }];
    }
    for i in 1..operands.len() {
        let mut all = current.clone();
        all.extend(operands[i].iter().copied());
        all.sort_unstable();
        all.dedup();
        let later = &operands[i + 1..];
        let is_kept = |l: &Label| output.contains(l) || later.iter().any(|o| o.contains(l));
        let (keep, sum): (Vec<Label>, Vec<Label>) = all.into_iter().partition(is_kept);
        let keep = if later.is_empty() { output.to_vec() } else { keep };
        current.clone_from(&keep);
        steps.push(Step { keep, sum });
    }
    steps
}

/// A tensor with a label per axis.
struct Labelled<T> {
    labels: Vec<Label>,
    dims: Vec<usize>,
    values: Vec<T>,
}

impl<T> Labelled<T> {
    /// How far one step along `label` goes; repeated labels walk the diagonal, sizes of 1 repeat.
    fn step(&self, label: Label) -> usize {
        let mut step = 0;
        for (i, _) in self.labels.iter().enumerate().filter(|(i, l)| **l == label && self.dims[*i] != 1) {
            step += self.dims[i + 1..].iter().product::<usize>();
        }
        step
    }
}

/// Offsets into both operands for every combination of `labels`, in row-major order.
fn offsets<T>(
    labels: &[Label],
    size: &impl Fn(Label) -> usize,
    a: &Labelled<T>,
    b: Option<&Labelled<T>>,
) -> Vec<(usize, usize)> {
    let mut all = vec![(0, 0)];
    for &l in labels {
        let (sa, sb) = (a.step(l), b.map_or(0, |b| b.step(l)));
        all = all.iter().flat_map(|&(x, y)| (0..size(l)).map(move |i| (x + i * sa, y + i * sb))).collect();
    }
    all
}

fn contract<T: Ring>(mut operands: Vec<Labelled<T>>, output: &[Label], sizes: &[(Label, usize)]) -> Result<Vec<T>> {
    let size = |l: Label| sizes.iter().find(|s| s.0 == l).map_or(1, |s| s.1);
    let labels: Vec<Vec<Label>> = operands.iter().map(|o| o.labels.clone()).collect();
    let plan = steps(&labels, output);
    let mut rest = operands.split_off(1).into_iter();
    let mut current = operands.swap_remove(0);
    for step in plan {
        let next = rest.next();
        let dims: Vec<usize> = step.keep.iter().map(|&l| size(l)).collect();
        element_count(&dims)?;
        element_count(&step.sum.iter().map(|&l| size(l)).collect::<Vec<_>>())?;
        let inner = offsets(&step.sum, &size, &current, next.as_ref());
        let outer = offsets(&step.keep, &size, &current, next.as_ref());
        let values = outer
            .into_iter()
            .map(|(x, y)| match &next {
                Some(b) => {
                    T::looped(inner.len());
                    inner.iter().fold(T::ZERO(), |sum, &(i, j)| sum.fma(current.values[x + i], b.values[y + j]))
                }
                None if step.sum.is_empty() => current.values[x],
                None => inner.iter().fold(T::ZERO(), |sum, &(i, _)| sum.plus(current.values[x + i])),
            })
            .collect();
        current = Labelled { labels: step.keep, dims, values };
    }
    Ok(current.values)
}

impl Family for Einsum {
    fn infer(&self, cx: &Infer) -> Result<Vec<Fact>> {
        let x = cx.fact(0)?;
        let mut dims = Vec::with_capacity(self.terms.len());
        for i in 0..self.terms.len() {
            match cx.shape(i)?.dims() {
                Some(d) => dims.push(d),
                None => return Ok(vec![x.with_shape(Shape::UNKNOWN)]),
            }
        }
        let (_, output, sizes) = self.resolve(&dims)?;
        let size = |l: &Label| sizes.iter().find(|s| s.0 == *l).map_or(Some(1), |s| s.1);
        Ok(vec![x.with_shape(Shape::partial(output.iter().map(size).collect()))])
    }

    fn charge(&self, cx: &CostCx) -> Charge {
        Charge::of((|| {
            let dims: Vec<Vec<Dim>> = (0..self.terms.len())
                .map(|i| Some(cx.dims(i)?.into_iter().map(Some).collect()))
                .collect::<Option<_>>()?;
            let dims: Vec<&[Dim]> = dims.iter().map(|d| &d[..]).collect();
            let (labels, output, sizes) = self.resolve(&dims).ok()?;
            let size = |l: &Label| sizes.iter().find(|s| s.0 == *l).and_then(|s| s.1).unwrap_or(1);
            let mut total = 0u64;
            for step in steps(&labels, &output) {
                if labels.len() == 1 && step.sum.is_empty() {
                    return Some(Work::NONE);
                }
                total = total.checked_add(product(step.keep.iter().chain(&step.sum).map(size))?)?;
            }
            Some(match labels.len() {
                1 if cx.dtype(0)?.is_float() => Work::other(total),
                1 => Work::NONE,
                _ => Work::madds(total),
            })
        })())
    }

    fn eval(&self, cx: &EvalCx, inputs: &Inputs) -> Result<Vec<Tensor>> {
        let mut tensors = Vec::with_capacity(self.terms.len());
        for i in 0..self.terms.len() {
            tensors.push(input(inputs, i)?);
        }
        let dims: Vec<Vec<Dim>> = tensors.iter().map(|t| t.dims().iter().map(|&d| Some(d)).collect()).collect();
        let (labels, output, sizes) = self.resolve(&dims.iter().map(|d| &d[..]).collect::<Vec<_>>())?;
        let sizes: Vec<(Label, usize)> = sizes.into_iter().map(|(l, d)| (l, d.unwrap_or(1))).collect();
        let out: Vec<usize> = output.iter().map(|l| sizes.iter().find(|s| s.0 == *l).map_or(1, |s| s.1)).collect();
        let x = tensors[0];
        macro_rules! operands {
            ($load:expr) => {
                tensors
                    .iter()
                    .zip(&labels)
                    .map(|(t, l)| Ok(Labelled { labels: l.clone(), dims: t.dims().to_vec(), values: $load(t)? }))
                    .collect::<Result<Vec<_>>>()?
            };
        }
        if !is_num(x.dtype()) {
            let y = contract::<i64>(operands!(|t: &&Tensor| t.to_i64s()), &output, &sizes)?;
            return Ok(vec![from_ints(x.dtype(), &y, &out)?]);
        }
        with_num!(cx.arith, x.dtype(), T => {
            use crate::tensor::Num;
            let y = contract::<T>(operands!(|t: &&Tensor| T::load(t)), &output, &sizes)?;
            Ok(vec![T::store(y, &out)?])
        })
    }

    fn role(&self, _i: usize) -> Role {
        Role::Weight
    }
}

fn cases() -> Vec<Case> {
    let f = sample::floats;
    let case = |equation: &str, dims: &[&[usize]]| {
        let inputs = dims.iter().enumerate().map(|(i, d)| f(d, i as u64)).collect();
        Case::new("Einsum", &[("equation", Attr::Str(equation.into()))], inputs)
    };
    let ints = |v: &[i64], dims: &[usize]| sample::ints(v).reshaped(dims).expect("as many as the dims say");
    let product = Case::new(
        "Einsum",
        &[("equation", Attr::Str("ij,jk".into()))],
        vec![ints(&[1, 2, 3, 4, 5, 6], &[2, 3]), ints(&[1, 0, 2], &[3, 1])],
    );
    vec![
        case("ij->ji", &[&[2, 3]]),
        case("ij->i", &[&[2, 3]]),
        case("...ii->...i", &[&[2, 3, 3]]),
        case("ii", &[&[3, 3]]),
        case("i,i", &[&[4], &[4]]),
        case("i,j->ij", &[&[3], &[4]]),
        case("bij, bjk -> bik", &[&[2, 3, 4], &[2, 4, 5]]),
        case("bhqd,bhkd->bhqk", &[&[2, 2, 3, 4], &[2, 2, 5, 4]]),
        case("...ij,...jk", &[&[2, 1, 3, 4], &[3, 4, 2]]),
        case("ij,jk,kl->il", &[&[2, 3], &[3, 4], &[4, 5]]),
        case("ab,b,abc->ca", &[&[2, 3], &[3], &[2, 3, 4]]).opset(12),
        case("ij,kj->k", &[&[2, 3], &[4, 3]]),
        product,
    ]
}
