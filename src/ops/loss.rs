//! NegativeLogLikelihoodLoss, SoftmaxCrossEntropyLoss.
//!
//! <https://onnx.ai/onnx/operators/onnx__NegativeLogLikelihoodLoss.html>,
//! <https://onnx.ai/onnx/operators/onnx__SoftmaxCrossEntropyLoss.html>.
//!
//! Cost: per labelled position 1 for the negation and, with class weights or an ignored index, 1 for the weight; a sum or mean adds
//! 1 per position, a mean one division at the end and, with weights, 1 per position for their sum. SoftmaxCrossEntropyLoss adds the
//! log-softmax: 5 per element and 1 per position. Ignored positions are counted like the others: they have weight zero.

use super::dims::unify;
use super::softmax::log_softmax;
use super::spec::{Attr, NodeSpec};
use super::{Case, Charge, CostCx, Entry, EvalCx, Family, Infer, Inputs, Op, Role, input, opt, sample};
use crate::cost::{Work, product};
use crate::error::{Error, Result};
use crate::tensor::{DType, Dim, Fact, Num, Shape, Tensor};
use crate::with_num;

/// The family's table rows.
pub const ENTRIES: &[Entry] = &[
    Entry { domain: "", name: "NegativeLogLikelihoodLoss", parse: Loss::parse, cases },
    Entry { domain: "", name: "SoftmaxCrossEntropyLoss", parse: Loss::parse, cases },
];

/// How the losses of all positions become the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reduction {
    /// They are the result.
    None,
    /// Their sum.
    Sum,
    /// Their mean, weighted if there are weights.
    Mean,
}

/// A classification loss over `[N, C, d1, …]` scores and `[N, d1, …]` labels.
#[derive(Debug, Clone)]
pub struct Loss {
    /// Scores are logits (SoftmaxCrossEntropyLoss) rather than log-probabilities.
    pub logits: bool,
    /// What is made of the positions' losses.
    pub reduction: Reduction,
    /// The label of positions that do not count.
    pub ignore_index: Option<i64>,
}

/// Scores as (batch, classes, positions per batch entry).
fn sizes(scores: &[usize], labels: &[usize]) -> Result<(usize, usize, usize)> {
    let fits = scores.len() >= 2
        && labels.len() + 1 == scores.len()
        && labels.first() == scores.first()
        && labels[1..] == scores[2..];
    if !fits {
        let (scores, labels) = (Shape::known(scores), Shape::known(labels));
        return Err(Error::input(format!("labels {labels} do not fit scores {scores}")));
    }
    Ok((scores[0], scores[1], scores[2..].iter().product()))
}

impl Loss {
    fn parse(node: &NodeSpec) -> Result<Op> {
        node.expect_inputs(2, 3)?;
        let reduction = match node.str("reduction", "mean")? {
            "none" => Reduction::None,
            "sum" => Reduction::Sum,
            "mean" => Reduction::Mean,
            other => return Err(Error::input(format!("'{other}' is not a reduction")).at_attribute("reduction")),
        };
        let logits = node.op_type == "SoftmaxCrossEntropyLoss";
        Ok(Op::Loss(Loss { logits, reduction, ignore_index: node.opt_int("ignore_index")? }))
    }

    fn run<T: Num>(&self, cx: &EvalCx, inputs: &Inputs) -> Result<Vec<Tensor>> {
        let (x, labels) = (input(inputs, 0)?, input(inputs, 1)?);
        let (n, classes, inner) = sizes(x.dims(), labels.dims())?;
        let class_weights = opt(inputs, 2).map(T::load).transpose()?;
        if class_weights.as_ref().is_some_and(|w| w.len() != classes) {
            return Err(Error::input(format!("the weights are not one per class ({classes})")));
        }
        let mut scores = T::load(x)?;
        if self.logits && !x.is_empty() {
            let mut row = Vec::with_capacity(classes);
            for at in (0..n).flat_map(|b| (0..inner).map(move |i| b * classes * inner + i)) {
                row.clear();
                row.extend((0..classes).map(|c| scores[at + c * inner]));
                log_softmax(&mut row);
                row.iter().enumerate().for_each(|(c, &v)| scores[at + c * inner] = v);
            }
        }
        let weighted = class_weights.is_some() || self.ignore_index.is_some();
        let (mut losses, mut weights) = (Vec::with_capacity(n * inner), Vec::with_capacity(n * inner));
        for (p, label) in labels.to_i64s()?.into_iter().enumerate() {
            let (mut score, mut weight) = (T::zero(), T::zero());
            if Some(label) != self.ignore_index {
                let c = usize::try_from(label).ok().filter(|&c| c < classes);
                let c = c.ok_or_else(|| Error::run(format!("label {label} where there are {classes} classes")))?;
                score = scores[(p / inner * classes + c) * inner + p % inner];
                weight = class_weights.as_ref().map_or(T::of(1.0), |w| w[c]);
            }
            losses.push(if weighted { -score * weight } else { -score });
            weights.push(weight);
        }
        let sum = |v: &[T]| v.iter().fold(T::zero(), |sum, &v| sum + v);
        let loss = match self.reduction {
            Reduction::None => T::store(losses, labels.dims())?,
            Reduction::Sum => T::store(vec![sum(&losses)], &[])?,
            Reduction::Mean => {
                let by = if weighted { sum(&weights) } else { T::of(losses.len() as f64) };
                T::store(vec![sum(&losses) / by], &[])?
            }
        };
        let mut out = vec![loss];
        if self.logits && cx.outputs > 1 {
            out.push(T::store(scores, x.dims())?);
        }
        Ok(out)
    }
}

impl Family for Loss {
    fn infer(&self, cx: &Infer) -> Result<Vec<Fact>> {
        let (x, labels) = (cx.fact(0)?, cx.fact(1)?);
        let mut shape = labels.shape.clone();
        if let (Some(xd), Some(ld)) = (x.shape.dims(), labels.shape.dims()) {
            if xd.len() < 2 || xd.len() != ld.len() + 1 {
                return Err(Error::input(format!("labels {} do not fit scores {}", labels.shape, x.shape)));
            }
            let positions = xd.iter().enumerate().filter(|(a, _)| *a != 1).map(|(_, d)| *d);
            let dims = positions.zip(ld).map(|(a, b)| unify(a, *b)).collect::<Result<Vec<Dim>>>()?;
            shape = Shape::partial(dims);
        }
        if self.reduction != Reduction::None {
            shape = Shape::known(&[]);
        }
        let loss = x.with_shape(shape);
        Ok(if self.logits { vec![loss, x.clone()] } else { vec![loss] })
    }
    fn charge(&self, cx: &CostCx) -> Charge {
        Charge::of((|| {
            let (n, classes, inner) = sizes(&cx.dims(0)?, &cx.dims(1)?).ok()?;
            let positions = product([n, inner])?;
            let weighted = cx.has(2) || self.ignore_index.is_some();
            let (per, once) = match self.reduction {
                Reduction::None => (0, 0),
                Reduction::Sum => (1, 0),
                Reduction::Mean => (1 + u64::from(weighted), 1),
            };
            let mut flops = positions.checked_mul(1 + u64::from(weighted) + per)?.checked_add(once)?;
            let elements = product([n, classes, inner])?;
            if self.logits && elements > 0 {
                flops = flops.checked_add(elements.checked_mul(5)?)?.checked_add(positions)?;
            }
            Some(Work::other(flops))
        })())
    }
    fn eval(&self, cx: &EvalCx, inputs: &Inputs) -> Result<Vec<Tensor>> {
        with_num!(cx.arith, input(inputs, 0)?.dtype(), T => self.run::<T>(cx, inputs))
    }
    fn role(&self, i: usize) -> Role {
        // Class weights balance the data; they are chosen, not learned.
        if i == 0 { Role::Data } else { Role::Setting }
    }
}

fn cases() -> Vec<Case> {
    let f = sample::floats;
    let labels = |dims: &[usize]| {
        let n: usize = dims.iter().product();
        let values: Vec<i64> = (0..n as i64).map(|i| i * 7 % 5).collect();
        Tensor::from_vec(values, dims).unwrap_or_else(|_| sample::ints(&[]))
    };
    let reduction = |r: &str| ("reduction", Attr::Str(r.into()));
    let ignore = |i: i64| ("ignore_index", Attr::Int(i));
    let mut all = Vec::new();
    for op in ["NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"] {
        for r in ["none", "sum", "mean"] {
            all.extend([
                Case::new(op, &[reduction(r)], vec![f(&[3, 5], 1), labels(&[3])]),
                Case::new(op, &[reduction(r), ignore(2)], vec![f(&[3, 5, 4], 1), labels(&[3, 4])]),
                Case::new(op, &[reduction(r)], vec![f(&[2, 5, 2, 3], 1), labels(&[2, 2, 3]), f(&[5], 2)]),
                Case::new(op, &[reduction(r), ignore(-1)], vec![f(&[3, 5], 1), labels(&[3]), f(&[5], 2)]).opset(12),
                Case::new(op, &[reduction(r)], vec![f(&[0, 5], 1), labels(&[0])]),
            ]);
        }
        all.extend(f(&[2, 5], 3).narrowed(DType::F16, true).map(|x| Case::new(op, &[], vec![x, labels(&[2])])));
    }
    let two = vec![Some(f(&[2, 5, 3], 1)), Some(labels(&[2, 3]))];
    all.push(Case::with_optional("SoftmaxCrossEntropyLoss", &[], two, 2));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_must_be_classes_unless_ignored() {
        let loss = |ignore_index| Loss { logits: false, reduction: Reduction::Mean, ignore_index };
        let (x, labels) = (sample::floats(&[2, 3], 1), sample::ints(&[0, 7]));
        let run = |l: Loss| l.eval(&EvalCx::default(), &[Some(&x), Some(&labels)]);
        assert!(run(loss(None)).is_err());
        assert_eq!(run(loss(Some(7))).unwrap()[0].to_f64s().unwrap()[0], -x.to_f64s().unwrap()[0]);
    }
}
