//! ONNX Runtime's operators that belong to no other family: Inverse, CDist, ConvTransposeWithDynamicPads.
//!
//! <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md>. Other FLOPs: Inverse `2n³ − n²` per matrix (Gauss and
//! Jordan's elimination in place); CDist `3d` per pair of rows, one more for the root. ConvTransposeWithDynamicPads costs what
//! ConvTranspose costs, which does not depend on the pads.

use super::conv_transpose::ConvTranspose;
use super::spec::{Attr, NodeSpec};
use super::{Case, Charge, CostCx, Entry, EvalCx, Family, Infer, Inputs, Op, Role, input, opt, sample};
use crate::cost::{Work, product};
use crate::error::{Error, Result};
use crate::tensor::{Fact, Num, Shape, Tensor, element_count};
use crate::with_num;

const fn contrib(name: &'static str, parse: fn(&NodeSpec) -> Result<Op>) -> Entry {
    Entry { domain: "com.microsoft", name, parse, cases }
}

/// The family's table rows.
pub const ENTRIES: &[Entry] =
    &[contrib("CDist", parse_cdist), contrib("ConvTransposeWithDynamicPads", parse_conv), contrib("Inverse", parse_inverse)];

/// One of the operators.
#[derive(Debug, Clone)]
pub enum Contrib {
    /// The inverse of each matrix.
    Inverse,
    /// Distances between the rows of two matrices, squared unless `root`.
    CDist {
        /// The root is taken.
        root: bool,
    },
    /// ConvTranspose with pads as an input: x, weights, pads, bias.
    DynamicPads(ConvTranspose),
}

fn parse_inverse(node: &NodeSpec) -> Result<Op> {
    node.expect_inputs(1, 1)?;
    Ok(Op::Contrib(Contrib::Inverse))
}

fn parse_cdist(node: &NodeSpec) -> Result<Op> {
    node.expect_inputs(2, 2)?;
    match node.str("metric", "sqeuclidean")? {
        "sqeuclidean" => Ok(Op::Contrib(Contrib::CDist { root: false })),
        "euclidean" => Ok(Op::Contrib(Contrib::CDist { root: true })),
        other => Err(Error::unsupported(format!("the distance '{other}'")).at_attribute("metric")),
    }
}

fn parse_conv(node: &NodeSpec) -> Result<Op> {
    node.expect_inputs(2, 4)?;
    let spec = NodeSpec { op_type: "ConvTranspose".into(), domain: String::new(), inputs: node.inputs[..2].to_vec(), ..node.clone() };
    match Op::parse(&spec)? {
        Op::ConvTranspose(conv) => Ok(Op::Contrib(Contrib::DynamicPads(conv))),
        _ => Err(Error::input("is not a transposed convolution")),
    }
}

/// The convolution with these pads.
fn padded(conv: &ConvTranspose, pads: Option<Vec<i64>>) -> Result<ConvTranspose> {
    let mut conv = conv.clone();
    if let Some(pads) = pads {
        let pads = pads.into_iter().map(|p| usize::try_from(p).map_err(|_| Error::input("a negative pad")));
        conv.window.pads = Some(pads.collect::<Result<_>>()?);
    }
    Ok(conv)
}

/// Batch and size of square matrices.
fn square(dims: &[usize]) -> Result<(usize, usize)> {
    match dims.split_last_chunk::<2>() {
        Some((batch, &[r, c])) if r == c => Ok((element_count(batch)?, r)),
        _ => Err(Error::input(format!("square matrices are needed, not {}", Shape::known(dims)))),
    }
}

/// (rows of A, rows of B, width).
fn pairs(a: &[usize], b: &[usize]) -> Result<(usize, usize, usize)> {
    match (a, b) {
        (&[m, n], &[k, w]) if n == w => Ok((m, k, n)),
        _ => Err(Error::input(format!("rows of {} and {} cannot be compared", Shape::known(a), Shape::known(b)))),
    }
}

/// Inverts an `n × n` matrix in place.
fn invert<T: Num>(a: &mut [T], n: usize) -> Result<()> {
    let mut swaps = Vec::with_capacity(n);
    for p in 0..n {
        let size = |r: usize| a[r * n + p].get().abs();
        let best = (p..n).max_by(|&x, &y| size(x).total_cmp(&size(y))).unwrap_or(p);
        if size(best) == 0.0 {
            return Err(Error::run("a matrix that has no inverse"));
        }
        if best != p {
            (0..n).for_each(|j| a.swap(p * n + j, best * n + j));
        }
        swaps.push(best);
        let pivot = a[p * n + p];
        a[p * n + p] = T::of(1.0);
        a[p * n..][..n].iter_mut().for_each(|v| *v = *v / pivot);
        let row = a[p * n..][..n].to_vec();
        for i in (0..n).filter(|&i| i != p) {
            let factor = a[i * n + p];
            a[i * n + p] = T::zero();
            a[i * n..][..n].iter_mut().zip(&row).for_each(|(v, &r)| *v = *v - factor * r);
        }
    }
    for (p, &best) in swaps.iter().enumerate().rev() {
        (0..n).for_each(|i| a.swap(i * n + p, i * n + best));
    }
    Ok(())
}

impl Family for Contrib {
    fn infer(&self, cx: &Infer) -> Result<Vec<Fact>> {
        let x = cx.fact(0)?;
        match self {
            Contrib::Inverse => {
                x.shape.concrete().map(|d| square(&d)).transpose()?;
                Ok(vec![x.clone()])
            }
            Contrib::CDist { .. } => {
                let b = cx.fact(1)?;
                if let (Some(a), Some(b)) = (x.shape.concrete(), b.shape.concrete()) {
                    pairs(&a, &b)?;
                }
                Ok(vec![x.with_shape(Shape::partial(vec![x.shape.dim(0), b.shape.dim(0)]))])
            }
            Contrib::DynamicPads(conv) => {
                let pads = cx.ints(2)?;
                if cx.opt(2).is_some() && pads.is_none() {
                    let rank = x.shape.rank();
                    return Ok(vec![x.with_shape(rank.map_or(Shape::UNKNOWN, Shape::of_rank))]);
                }
                let inputs = [cx.opt(0), cx.opt(1), cx.opt(3)];
                padded(conv, pads)?.infer(&Infer { inputs: &inputs, outputs: 1 })
            }
        }
    }

    fn charge(&self, cx: &CostCx) -> Charge {
        match self {
            Contrib::Inverse => Charge::of((|| {
                let (batch, n) = square(&cx.dims(0)?).ok()?;
                let one = product([n, n, n])?.checked_mul(2)?.checked_sub(product([n, n])?)?;
                Some(Work::other(one.checked_mul(batch as u64)?))
            })()),
            Contrib::CDist { root } => Charge::of((|| {
                let (m, k, n) = pairs(&cx.dims(0)?, &cx.dims(1)?).ok()?;
                let one = (n as u64).checked_mul(3)?.checked_add(u64::from(*root))?;
                Some(Work::other(product([m, k])?.checked_mul(one)?))
            })()),
            Contrib::DynamicPads(conv) => {
                let at = |i: usize| cx.inputs.get(i).copied().flatten();
                let pads = at(2).and_then(|p| p.value).and_then(|p| p.to_i64s().ok());
                match padded(conv, pads) {
                    Ok(conv) => conv.charge(&CostCx { inputs: &[at(0), at(1), at(3)], outputs: cx.outputs }),
                    Err(_) => Charge::Unknown,
                }
            }
        }
    }

    fn eval(&self, cx: &EvalCx, inputs: &Inputs) -> Result<Vec<Tensor>> {
        let x = input(inputs, 0)?;
        match self {
            Contrib::Inverse => with_num!(cx.arith, x.dtype(), T => {
                let (_, n) = square(x.dims())?;
                let mut v = T::load(x)?;
                for matrix in v.chunks_exact_mut((n * n).max(1)) {
                    invert(matrix, n)?;
                }
                Ok(vec![T::store(v, x.dims())?])
            }),
            Contrib::CDist { root } => with_num!(cx.arith, x.dtype(), T => {
                let other = input(inputs, 1)?;
                let (m, k, n) = pairs(x.dims(), other.dims())?;
                element_count(&[m, k])?;
                let (a, b) = (T::load(x)?, T::load(other)?);
                let mut y = Vec::with_capacity(m * k);
                for i in 0..m {
                    for j in 0..k {
                        let rows = a[i * n..][..n].iter().zip(&b[j * n..][..n]);
                        let sum = rows.fold(T::zero(), |sum, (&p, &q)| {
                            let d = p - q;
                            sum + d * d
                        });
                        y.push(if *root { sum.sqrt() } else { sum });
                    }
                }
                Ok(vec![T::store(y, &[m, k])?])
            }),
            Contrib::DynamicPads(conv) => {
                let conv = padded(conv, opt(inputs, 2).map(Tensor::to_i64s).transpose()?)?;
                conv.eval(cx, &[Some(x), Some(input(inputs, 1)?), opt(inputs, 3)])
            }
        }
    }

    fn role(&self, i: usize) -> Role {
        match (self, i) {
            (Contrib::DynamicPads(_), 1 | 3) => Role::Weight,
            (Contrib::DynamicPads(_), 2) => Role::Setting,
            _ => Role::Data,
        }
    }
}

fn cases() -> Vec<Case> {
    let f = sample::floats;
    let ms = |name: &str, attrs: &[(&str, Attr)], inputs: Vec<Tensor>| {
        Case::new(name, attrs, inputs).domain("com.microsoft").opset(1)
    };
    let metric = |m: &str| [("metric", Attr::Str(m.into()))];
    vec![
        ms("Inverse", &[], vec![f(&[2, 3, 3], 1)]),
        ms("Inverse", &[], vec![f(&[1, 1], 1)]),
        ms("CDist", &metric("euclidean"), vec![f(&[3, 4], 1), f(&[2, 4], 2)]),
        ms("CDist", &metric("sqeuclidean"), vec![f(&[3, 4], 1), f(&[2, 4], 2)]),
        ms("ConvTransposeWithDynamicPads", &[("strides", Attr::Ints(vec![2, 2]))], vec![f(&[1, 2, 3, 4], 1), f(&[2, 3, 3, 3], 2), sample::ints(&[1, 0, 1, 1]), f(&[3], 3)]),
        ms("ConvTransposeWithDynamicPads", &[], vec![f(&[1, 2, 3], 1), f(&[2, 3, 3], 2)]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inverse_times_its_matrix_is_one() {
        let a = [0.0f64, 2.0, 1.0, 1.0, -1.0, 3.0, 4.0, 0.5, 2.0];
        let mut inverse = a.to_vec();
        invert(&mut inverse, 3).unwrap();
        for i in 0..3 {
            for j in 0..3 {
                let sum: f64 = (0..3).map(|k| a[i * 3 + k] * inverse[k * 3 + j]).sum();
                assert!((sum - f64::from(u8::from(i == j))).abs() < 1e-12);
            }
        }
        assert!(invert(&mut [1.0f64, 2.0, 2.0, 4.0], 2).is_err());
    }
}
