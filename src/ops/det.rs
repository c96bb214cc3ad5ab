//! Det: determinants of square matrices.
//!
//! <https://onnx.ai/onnx/operators/onnx__Det.html>.
//!
//! Cost: Gaussian elimination with row exchanges. Per matrix of size n: `n(n−1)(2n−1)/6` MAdds, and other FLOPs `n(n−1)/2` for the row
//! factors and n for the product of the pivots. Looking for a pivot compares, which is free.

use super::spec::NodeSpec;
use super::{Case, Charge, CostCx, Entry, EvalCx, Family, Infer, Inputs, Op, input, sample};
use crate::cost::{Work, product};
use crate::error::{Error, Result};
use crate::tensor::{Dim, Fact, Num, Shape, Tensor, element_count};
use crate::with_num;

/// The family's table rows.
pub const ENTRIES: &[Entry] = &[Entry { domain: "", name: "Det", parse: Det::parse, cases }];

/// The determinant of each matrix in the last two axes.
#[derive(Debug, Clone, Copy)]
pub struct Det;

impl Det {
    fn parse(node: &NodeSpec) -> Result<Op> {
        node.expect_inputs(1, 1)?;
        Ok(Op::Det(Det))
    }
}

fn split<D: Copy + PartialEq>(dims: &[D], agree: impl Fn(D, D) -> bool) -> Result<(&[D], D)> {
    match dims {
        [batch @ .., rows, columns] if agree(*rows, *columns) => Ok((batch, *rows)),
        _ => Err(Error::input("needs square matrices in the last two axes")),
    }
}

/// Eliminates in place; the determinant.
fn determinant<T: Num>(a: &mut [T], n: usize) -> T {
    let mut det = T::of(1.0);
    for k in 0..n {
        let size = |row: usize| a[row * n + k].get().abs();
        let pivot = (k + 1..n).fold(k, |best, row| if size(row) > size(best) { row } else { best });
        if pivot != k {
            (0..n).for_each(|c| a.swap(k * n + c, pivot * n + c));
            det = T::of(-det.get());
        }
        let p = a[k * n + k];
        det = det * p;
        // Under a pivot of zero everything is zero: any divisor will do, and the product is zero.
        let divisor = if p.get() == 0.0 { T::of(1.0) } else { p };
        for row in k + 1..n {
            let factor = a[row * n + k] / divisor;
            let minus = T::of(-factor.get());
            for c in k + 1..n {
                a[row * n + c] = a[row * n + c].madd(minus, a[k * n + c]);
            }
        }
    }
    det
}

impl Family for Det {
    fn infer(&self, cx: &Infer) -> Result<Vec<Fact>> {
        let x = cx.fact(0)?;
        let Some(dims) = x.shape.dims() else { return Ok(vec![x.clone()]) };
        let (batch, _) = split(dims, |a: Dim, b: Dim| a.is_none() || b.is_none() || a == b)?;
        Ok(vec![x.with_shape(Shape::partial(batch.to_vec()))])
    }
    fn charge(&self, cx: &CostCx) -> Charge {
        Charge::of((|| {
            let dims = cx.dims(0)?;
            let (batch, n) = split(&dims, |a, b| a == b).ok()?;
            let n = n as u64;
            let pairs = n.checked_mul(n.saturating_sub(1))?;
            let madds = u128::from(pairs) * u128::from(n.checked_mul(2)?.saturating_sub(1)) / 6;
            Work::madds(madds.try_into().ok()?).and_other((pairs / 2).checked_add(n)?).times(product(batch.iter().copied())?)
        })())
    }
    fn eval(&self, cx: &EvalCx, inputs: &Inputs) -> Result<Vec<Tensor>> {
        let x = input(inputs, 0)?;
        let (batch, n) = split(x.dims(), |a, b| a == b)?;
        with_num!(cx.arith, x.dtype(), T => {
            let mut a = T::load(x)?;
            let count = element_count(batch)?;
            let mut y = super::elements::reserved(count)?;
            y.extend((0..count).map(|m| determinant(&mut a[m * n * n..][..n * n], n)));
            Ok(vec![T::store(y, batch)?])
        })
    }
}

fn cases() -> Vec<Case> {
    let f = sample::floats;
    let singular = Tensor::from_vec(vec![1f32, 2., 2., 4.], &[2, 2]).unwrap_or_else(|_| f(&[2, 2], 1));
    vec![
        Case::new("Det", &[], vec![f(&[4, 4], 1)]),
        Case::new("Det", &[], vec![f(&[2, 3, 5, 5], 2)]),
        Case::new("Det", &[], vec![f(&[3, 1, 1], 3)]),
        Case::new("Det", &[], vec![f(&[2, 0, 0], 4)]),
        Case::new("Det", &[], vec![singular]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_change_places_and_with_them_the_sign() {
        assert_eq!(determinant(&mut [0f64, 2., 3., 1.], 2), -6.0);
        assert_eq!(determinant(&mut [1f64, 2., 2., 4.], 2), 0.0);
    }
}
