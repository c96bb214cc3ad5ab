//! MatMul and Gemm, and ONNX Runtime's FusedMatMul.
//!
//! <https://onnx.ai/onnx/operators/onnx__MatMul.html>, <https://onnx.ai/onnx/operators/onnx__Gemm.html>.
//!
//! MAdds: `batch · M · N · K`, integer products included. Other FLOPs per output element: one for an added `C`, one for
//! `alpha ≠ 1`, one for `beta ≠ 1`. Integer arithmetic outside the product is free.

use super::dims;
use super::recipe::{Recipe, Ref};
use super::spec::{Attr, NodeSpec};
use super::transpose::Transpose;
use super::{Case, Charge, CostCx, Entry, EvalCx, Family, Infer, Inputs, Op, Role, input, opt, sample};
use crate::cost::{Work, product};
use crate::error::{Error, Result};
use crate::tensor::{DType, Dim, Fact, Num, Shape, Tensor, element_count, is_num, tally_madds};
use crate::with_num;

/// The family's table rows.
pub const ENTRIES: &[Entry] = &[
    Entry { domain: "", name: "MatMul", parse: parse_matmul, cases },
    Entry { domain: "", name: "Gemm", parse: parse_gemm, cases },
    Entry { domain: "com.microsoft", name: "FusedMatMul", parse: parse_fused, cases },
    Entry { domain: "com.microsoft", name: "TransposeMatMul", parse: parse_fused, cases },
];

/// A matrix product.
#[derive(Debug, Clone)]
pub enum MatMul {
    /// `numpy.matmul`, with the transpositions and the factor that FusedMatMul adds.
    Broadcast {
        /// The last two axes of A are swapped.
        trans_a: bool,
        /// The last two axes of B are swapped.
        trans_b: bool,
        /// Factor of the product.
        alpha: f32,
    },
    /// `alpha · op(A) · op(B) + beta · C` of matrices.
    Gemm {
        /// A is transposed.
        trans_a: bool,
        /// B is transposed.
        trans_b: bool,
        /// Factor of the product.
        alpha: f32,
        /// Factor of C.
        beta: f32,
    },
}

fn parse_matmul(node: &NodeSpec) -> Result<Op> {
    node.expect_inputs(2, 2)?;
    Ok(Op::MatMul(MatMul::Broadcast { trans_a: false, trans_b: false, alpha: 1.0 }))
}

fn parse_fused(node: &NodeSpec) -> Result<Op> {
    node.expect_inputs(2, 2)?;
    let product = Op::MatMul(MatMul::Broadcast {
        trans_a: node.flag("transA", false)?,
        trans_b: node.flag("transB", false)?,
        alpha: node.float("alpha", 1.0)?,
    });
    let batch = [node.flag("transBatchA", false)?, node.flag("transBatchB", false)?];
    if batch == [false; 2] {
        return Ok(product);
    }
    let mut r = Recipe::new();
    let mut operands = Vec::with_capacity(2);
    for (i, moved) in batch.into_iter().enumerate() {
        let x = Ref::Input(i);
        let inward = Op::Transpose(Transpose::FirstInward);
        operands.push(Some(if moved { r.op(inward, vec![Some(x)], 1) } else { x }));
    }
    let y = r.op(product, operands, 1);
    Ok(Op::Fused(r.give(vec![y]).with_role(0, Role::Weight).with_role(1, Role::Weight)))
}

fn parse_gemm(node: &NodeSpec) -> Result<Op> {
    node.expect_inputs(2, 3)?;
    Ok(Op::MatMul(MatMul::Gemm {
        trans_a: node.flag("transA", false)?,
        trans_b: node.flag("transB", false)?,
        alpha: node.float("alpha", 1.0)?,
        beta: node.float("beta", 1.0)?,
    }))
}

/// Offsets into a tensor of `dims` for each position, in row-major order, of a shape it broadcasts to.
pub fn broadcast_offsets(dims: &[usize], to: &[usize]) -> Vec<usize> {
    let mut offsets = Vec::new();
    dims::walk(to, [dims], |[at]| offsets.push(at));
    offsets
}

/// What matrix products are made of: floating-point [`Num`]s, or integers that wrap.
pub(super) trait Ring: Copy {
    const ZERO: fn() -> Self;
    /// `self + a·b`.
    fn fma(self, a: Self, b: Self) -> Self;
    /// `self + b`.
    fn plus(self, b: Self) -> Self;
    /// Called beside a loop of `n` [`Ring::fma`]s.
    fn looped(_n: usize) {}
}
impl<T: Num> Ring for T {
    const ZERO: fn() -> Self = T::zero;
    #[inline(always)]
    fn fma(self, a: Self, b: Self) -> Self {
        self.madd(a, b)
    }
    #[inline(always)]
    fn plus(self, b: Self) -> Self {
        self + b
    }
}
impl Ring for i64 {
    const ZERO: fn() -> Self = || 0;
    #[inline(always)]
    fn fma(self, a: Self, b: Self) -> Self {
        self.wrapping_add(a.wrapping_mul(b))
    }
    fn plus(self, b: Self) -> Self {
        self.wrapping_add(b)
    }
    fn looped(n: usize) {
        tally_madds(n as u64);
    }
}

/// `c[m, n] += Σ_k a[m, k] · b[k, n]`, all row-major.
pub(super) fn accumulate<T: Ring>((m, n, k): (usize, usize, usize), a: &[T], b: &[T], c: &mut [T]) {
    if n == 0 || k == 0 {
        return;
    }
    for (row, c) in a[..m * k].chunks_exact(k).zip(c.chunks_exact_mut(n)) {
        for (&a, b) in row.iter().zip(b.chunks_exact(n)) {
            T::looped(n);
            for (c, &b) in c.iter_mut().zip(b) {
                *c = c.fma(a, b);
            }
        }
    }
}

/// `Σ_k a[m, k] · b[k, n]` of row-major matrices: `m·n·k` MAdds.
pub fn product_of<T: Num>(m: usize, n: usize, k: usize, a: &[T], b: &[T]) -> Vec<T> {
    let mut c = vec![T::zero(); m * n];
    accumulate((m, n, k), a, b, &mut c);
    c
}

/// The matrices of `[batch, rows, cols]` transposed.
fn transposed<T: Copy>(x: &[T], rows: usize, cols: usize) -> Vec<T> {
    let mut out = Vec::with_capacity(x.len());
    if rows * cols == 0 {
        return out;
    }
    for plane in x.chunks_exact(rows * cols) {
        for c in 0..cols {
            out.extend((0..rows).map(|r| plane[r * cols + c]));
        }
    }
    out
}

/// Integers as a tensor of an integer type; values beyond it wrap.
///
/// # Errors
/// If `dtype` is not an integer type.
pub fn from_ints(dtype: DType, values: &[i64], dims: &[usize]) -> Result<Tensor> {
    super::elements::from_ints(dtype, &values.iter().map(|&v| v.into()).collect::<Vec<i128>>(), dims)
}

/// Sizes of a batched product, operands already in `[batch…, rows, cols]` form.
#[derive(Debug, Clone)]
struct Sizes {
    m: usize,
    n: usize,
    k: usize,
    batch: Vec<usize>,
    a_batch: Vec<usize>,
    b_batch: Vec<usize>,
    out: Vec<usize>,
}

impl MatMul {
    /// Output dims of the NumPy form.
    fn broadcast_output(&self, a: &[Dim], b: &[Dim]) -> Result<Vec<Dim>> {
        let (trans_a, trans_b) = self.transposed();
        if a.is_empty() || b.is_empty() {
            return Err(Error::input("a matrix product of a scalar")
                .hint("MatMul takes tensors of rank 1 and more; multiply scalars with Mul"));
        }
        let (pa, pb) = (padded(a, true), padded(b, false));
        let swap = |d: &[Dim], t: bool| {
            let (r, c) = (d[d.len() - 2], d[d.len() - 1]);
            if t { (c, r) } else { (r, c) }
        };
        let (m, ka) = swap(&pa, trans_a && a.len() > 1);
        let (kb, n) = swap(&pb, trans_b && b.len() > 1);
        if let (Some(x), Some(y)) = (ka, kb)
            && x != y
        {
            return Err(Error::input(format!(
                "{} times {}: the inner sizes {x} and {y} differ",
                Shape::partial(a.to_vec()),
                Shape::partial(b.to_vec())
            )));
        }
        let batch = |d: &[Dim]| Shape::partial(d[..d.len() - 2].to_vec());
        let mut out = dims::broadcast(&[&batch(&pa), &batch(&pb)])?.dims().unwrap_or_default().to_vec();
        if a.len() > 1 {
            out.push(m);
        }
        if b.len() > 1 {
            out.push(n);
        }
        Ok(out)
    }

    /// Output dims of Gemm.
    fn gemm_output(&self, a: &[Dim], b: &[Dim], c: Option<&[Dim]>) -> Result<Vec<Dim>> {
        if a.len() != 2 || b.len() != 2 {
            return Err(Error::input(format!("Gemm takes matrices, not ranks {} and {}", a.len(), b.len())));
        }
        let out = self.broadcast_output(a, b)?;
        if let Some(c) = c {
            let fits = c.len() <= 2
                && c.iter()
                    .rev()
                    .zip(out.iter().rev())
                    .all(|(&c, &o)| c == Some(1) || c == o || c.is_none() || o.is_none());
            if !fits {
                return Err(Error::input(format!(
                    "C of shape {} does not broadcast to {}",
                    Shape::partial(c.to_vec()),
                    Shape::partial(out)
                )));
            }
        }
        Ok(out)
    }

    fn transposed(&self) -> (bool, bool) {
        match *self {
            MatMul::Broadcast { trans_a, trans_b, .. } | MatMul::Gemm { trans_a, trans_b, .. } => (trans_a, trans_b),
        }
    }

    fn output(&self, a: &[Dim], b: &[Dim], c: Option<&[Dim]>) -> Result<Vec<Dim>> {
        match self {
            MatMul::Broadcast { .. } => self.broadcast_output(a, b),
            MatMul::Gemm { .. } => self.gemm_output(a, b, c),
        }
    }

    fn sizes(&self, a: &[usize], b: &[usize], c: Option<&[usize]>) -> Result<Sizes> {
        let known = |d: &[usize]| -> Vec<Dim> { d.iter().map(|&d| Some(d)).collect() };
        let out = self.output(&known(a), &known(b), c.map(known).as_deref())?;
        let out: Vec<usize> = out.into_iter().flatten().collect();
        element_count(&out)?;
        let (trans_a, trans_b) = self.transposed();
        let (pa, pb) = (padded(a, true), padded(b, false));
        let (a_batch, a_mat) = pa.split_at(pa.len() - 2);
        let (b_batch, b_mat) = pb.split_at(pb.len() - 2);
        let batch = &out[..out.len() - usize::from(a.len() > 1) - usize::from(b.len() > 1)];
        let (m, k) = if trans_a && a.len() > 1 { (a_mat[1], a_mat[0]) } else { (a_mat[0], a_mat[1]) };
        let n = if trans_b && b.len() > 1 { b_mat[0] } else { b_mat[1] };
        Ok(Sizes { m, n, k, batch: batch.to_vec(), a_batch: a_batch.to_vec(), b_batch: b_batch.to_vec(), out })
    }

    /// The bare product in `[batch, m, n]` order.
    fn multiply<T: Ring>(&self, s: &Sizes, a: &[T], b: &[T]) -> Vec<T> {
        let (trans_a, trans_b) = self.transposed();
        let a = if trans_a { &transposed(a, s.k, s.m)[..] } else { a };
        let b = if trans_b { &transposed(b, s.n, s.k)[..] } else { b };
        if s.out.contains(&0) || s.batch.contains(&0) {
            return Vec::new();
        }
        let plane = s.m * s.n;
        let mut c = vec![T::ZERO(); s.batch.iter().product::<usize>() * plane];
        if plane == 0 {
            return c;
        }
        let offsets = broadcast_offsets(&s.a_batch, &s.batch).into_iter().zip(broadcast_offsets(&s.b_batch, &s.batch));
        for (c, (ia, ib)) in c.chunks_exact_mut(plane).zip(offsets) {
            accumulate((s.m, s.n, s.k), &a[ia * s.m * s.k..], &b[ib * s.k * s.n..][..s.k * s.n], c);
        }
        c
    }
}

/// A vector operand as the matrix NumPy makes of it: a row on the left, a column on the right.
fn padded<D: Copy + From<Unit>>(d: &[D], left: bool) -> Vec<D> {
    match d {
        [n] if left => vec![D::from(Unit), *n],
        [n] => vec![*n, D::from(Unit)],
        _ => d.to_vec(),
    }
}
/// The size 1.
struct Unit;
impl From<Unit> for usize {
    fn from(_: Unit) -> usize {
        1
    }
}
impl From<Unit> for Dim {
    fn from(_: Unit) -> Dim {
        Some(1)
    }
}

impl Family for MatMul {
    fn infer(&self, cx: &Infer) -> Result<Vec<Fact>> {
        let (a, b) = (cx.fact(0)?, cx.fact(1)?);
        let (Some(ad), Some(bd)) = (a.shape.dims(), b.shape.dims()) else {
            let shape = if matches!(self, MatMul::Gemm { .. }) { Shape::of_rank(2) } else { Shape::UNKNOWN };
            return Ok(vec![a.with_shape(shape)]);
        };
        let c = cx.opt(2).and_then(|c| c.fact.shape.dims());
        Ok(vec![a.with_shape(Shape::partial(self.output(ad, bd, c)?))])
    }

    fn charge(&self, cx: &CostCx) -> Charge {
        Charge::of((|| {
            let s = self.sizes(&cx.dims(0)?, &cx.dims(1)?, None).ok()?;
            let madds = product(s.batch.iter().copied().chain([s.m, s.n, s.k]))?;
            let per_output = match self {
                _ if !cx.dtype(0)?.is_float() => 0,
                MatMul::Broadcast { alpha, .. } => u64::from(*alpha != 1.0),
                MatMul::Gemm { alpha, beta, .. } => {
                    let added = if cx.has(2) { 1 + u64::from(*beta != 1.0) } else { 0 };
                    added + u64::from(*alpha != 1.0)
                }
            };
            let outputs = product(s.out.iter().copied())?;
            Some(Work::madds(madds).and_other(outputs.checked_mul(per_output)?))
        })())
    }

    fn eval(&self, cx: &EvalCx, inputs: &Inputs) -> Result<Vec<Tensor>> {
        let (a, b) = (input(inputs, 0)?, input(inputs, 1)?);
        let c = opt(inputs, 2);
        let s = self.sizes(a.dims(), b.dims(), c.map(Tensor::dims))?;
        let (alpha, beta) = match *self {
            MatMul::Broadcast { alpha, .. } => (alpha, 1.0),
            MatMul::Gemm { alpha, beta, .. } => (alpha, beta),
        };
        let c_at = c.map(|c| broadcast_offsets(c.dims(), &s.out));
        if !is_num(a.dtype()) {
            let mut y = self.multiply(&s, &a.to_i64s()?, &b.to_i64s()?);
            let scale = |v: i64, f: f32| if f == 1.0 { v } else { (v as f64 * f64::from(f)) as i64 };
            let added = c.map(Tensor::to_i64s).transpose()?;
            for (i, y) in y.iter_mut().enumerate() {
                *y = scale(*y, alpha);
                if let (Some(c), Some(at)) = (&added, &c_at) {
                    *y = y.wrapping_add(scale(c[at[i]], beta));
                }
            }
            return Ok(vec![from_ints(a.dtype(), &y, &s.out)?]);
        }
        with_num!(cx.arith, a.dtype(), T => {
            let mut y = self.multiply(&s, &T::load(a)?, &T::load(b)?);
            scale(&mut y, alpha);
            if let (Some(c), Some(at)) = (c, &c_at) {
                add_scaled(&mut y, &T::load(c)?, at, beta);
            }
            Ok(vec![T::store(y, &s.out)?])
        })
    }

    fn role(&self, _i: usize) -> Role {
        Role::Weight
    }
}

/// `y · alpha`, free of charge when `alpha` is 1.
fn scale<T: Num>(y: &mut [T], alpha: f32) {
    if alpha != 1.0 {
        y.iter_mut().for_each(|y| *y = *y * T::of(alpha.into()));
    }
}

/// `y[i] + beta · c[at[i]]`, the factor free of charge when it is 1.
fn add_scaled<T: Num>(y: &mut [T], c: &[T], at: &[usize], beta: f32) {
    for (y, &at) in y.iter_mut().zip(at) {
        *y = *y + if beta == 1.0 { c[at] } else { c[at] * T::of(beta.into()) };
    }
}

fn cases() -> Vec<Case> {
    let f = sample::floats;
    let i32s = |v: &[i64], dims: &[usize]| from_ints(DType::I32, v, dims).expect("a case's values fit its dims");
    let mm = |a: &[usize], b: &[usize]| Case::new("MatMul", &[], vec![f(a, 1), f(b, 2)]);
    let gemm = |attrs: &[(&str, Attr)], dims: &[&[usize]]| {
        Case::new("Gemm", attrs, dims.iter().enumerate().map(|(i, d)| f(d, i as u64)).collect())
    };
    let fused = |attrs: &[(&str, Attr)], a: &[usize], b: &[usize]| {
        Case::new("FusedMatMul", attrs, vec![f(a, 1), f(b, 2)]).domain("com.microsoft")
    };
    let (yes, half) = (Attr::Int(1), Attr::Float(0.5));
    vec![
        mm(&[5, 7], &[7, 3]),
        mm(&[7], &[7, 3]),
        mm(&[5, 7], &[7]),
        mm(&[7], &[7]),
        mm(&[2, 1, 3, 5], &[4, 5, 2]),
        mm(&[3, 5], &[2, 3, 5, 4]),
        mm(&[2, 0, 3], &[3, 4]),
        mm(&[2, 0], &[0, 3]),
        Case::new("MatMul", &[], vec![i32s(&[1, -2, 3, 4, 5, 6], &[2, 3]), i32s(&[7, 8, -9], &[3, 1])]).opset(9),
        gemm(&[], &[&[3, 4], &[4, 5], &[5]]),
        gemm(&[("transB", yes.clone())], &[&[3, 4], &[5, 4], &[3, 1]]).opset(9),
        gemm(&[("transA", yes.clone()), ("alpha", half.clone())], &[&[4, 3], &[4, 5]]),
        gemm(&[("beta", half.clone())], &[&[1, 4], &[4, 5], &[]]).opset(7),
        gemm(
            &[("alpha", half.clone()), ("beta", half.clone()), ("transA", yes.clone()), ("transB", yes.clone())],
            &[&[4, 3], &[5, 4], &[3, 5]],
        ),
        Case::new("Gemm", &[], vec![i32s(&[1, 2], &[1, 2]), i32s(&[3, 4], &[2, 1]), i32s(&[5], &[1])]),
        fused(&[("transB", yes.clone()), ("alpha", half)], &[2, 3, 4], &[2, 5, 4]),
        fused(&[("transA", yes.clone())], &[4, 3], &[2, 4, 5]),
        fused(&[("transBatchA", yes.clone())], &[3, 2, 4], &[2, 4, 5]),
        fused(&[("transBatchA", yes.clone()), ("transA", yes.clone()), ("transBatchB", yes.clone())], &[3, 2, 4], &[3, 2, 5]),
        Case::new("TransposeMatMul", &[("transB", yes)], vec![f(&[3, 4], 1), f(&[5, 4], 2)]).domain("com.microsoft"),
    ]
}
