//! What follows a product before its result is stored: an activation, fused into the store or into the next pass
//! over the same, still cached, values.
//!
//! Activations that are a clamp cost nothing (two instructions on the registers of the tile). The others run over
//! the tile's rows right after its last product.

use crate::simd::{Isa, Simd, SimdOp, TileMut, dispatch, math};

/// An activation function.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Act {
    /// x
    #[default]
    None,
    /// max(x, 0)
    Relu,
    /// min(max(x, lo), hi); ReLU6 is `Clip { lo: 0.0, hi: 6.0 }`
    Clip {
        /// Lower bound.
        lo: f32,
        /// Upper bound.
        hi: f32,
    },
    /// x where x ≥ 0, a·x elsewhere
    LeakyRelu(f32),
    /// x · clamp(x/6 + 1/2, 0, 1)
    HardSwish,
    /// clamp(alpha·x + beta, 0, 1)
    HardSigmoid {
        /// Slope.
        alpha: f32,
        /// Offset.
        beta: f32,
    },
    /// 1 / (1 + e^−x)
    Sigmoid,
    /// x · sigmoid(x)
    Silu,
    /// x·Φ(x), exact form
    Gelu,
    /// x·Φ(x), tanh approximation
    GeluTanh,
    /// tanh(x)
    Tanh,
    /// x where x ≥ 0, a·(e^x − 1) elsewhere
    Elu(f32),
    /// log(1 + e^x)
    Softplus,
    /// x · tanh(softplus(x))
    Mish,
    /// erf(x)
    Erf,
    /// e^x
    Exp,
    /// ln x
    Log,
    /// √x
    Sqrt,
    /// |x|
    Abs,
    /// −x
    Neg,
    /// 1/x
    Reciprocal,
    /// x²
    Square,
    /// Largest integer not above
    Floor,
    /// Nearest integer, ties to even
    Round,
}

impl Act {
    /// The clamp this is, if it is one.
    pub fn clamp(self) -> Option<(f32, f32)> {
        match self {
            Act::None => Some((f32::NEG_INFINITY, f32::INFINITY)),
            Act::Relu => Some((0.0, f32::INFINITY)),
            Act::Clip { lo, hi } => Some((lo, hi)),
            _ => None,
        }
    }

    /// The clamp to fuse into the store and the activation left to do after it.
    pub fn split(self) -> ((f32, f32), Option<Act>) {
        match self.clamp() {
            Some(c) => (c, None),
            None => ((f32::NEG_INFINITY, f32::INFINITY), Some(self)),
        }
    }

    /// Apply to every value of `x`, with the lanes of `isa`.
    pub fn apply(self, isa: Isa, x: &mut [f32]) {
        if self != Act::None {
            dispatch(isa, InPlace { act: self, x });
        }
    }

    /// `dst = act(src)`, same length.
    pub fn map(self, isa: Isa, src: &[f32], dst: &mut [f32]) {
        dst.copy_from_slice(src);
        self.apply(isa, dst);
    }

    /// Apply to some columns of all rows of a tile of one plane.
    pub fn apply_columns(self, isa: Isa, tile: &mut TileMut<'_>, columns: std::ops::Range<usize>) {
        if self != Act::None {
            dispatch(isa, Columns { act: self, tile, columns });
        }
    }

    /// Apply to the values of planes `a`, all `b`, of a tile.
    pub fn apply_tile(self, isa: Isa, tile: &mut TileMut<'_>, planes: std::ops::Range<usize>) {
        for a in planes {
            if tile.is_contiguous() {
                self.apply(isa, tile.plane(a));
            } else {
                for b in 0..tile.b_len() {
                    self.apply(isa, tile.seg(a, b));
                }
            }
        }
    }
}

/// `clamp(x · factors + shift + residual)` on a plane of a tile, a channel per lane.
pub(super) struct Scaled<'a> {
    /// A factor per lane.
    pub factors: &'a [f32],
    /// Added, per lane.
    pub shift: Option<&'a [f32]>,
    /// Added; a tensor of the destination's shape.
    pub residual: Option<&'a [f32]>,
    /// Bounds of the result.
    pub clamp: (f32, f32),
}

impl Scaled<'_> {
    /// Over plane `a` of a tile.
    pub fn apply(&self, isa: Isa, tile: &mut TileMut<'_>, a: usize) {
        let (from, step) = (tile.origin + a * tile.stride_a(), tile.stride_b());
        if tile.is_contiguous() {
            let x = tile.plane(a);
            let residual = self.residual.map(|r| &r[from..][..x.len()]);
            return dispatch(isa, ScaledPlane { how: self, residual, x });
        }
        for b in 0..tile.b_len() {
            let x = tile.seg(a, b);
            let residual = self.residual.map(|r| &r[from + b * step..][..x.len()]);
            dispatch(isa, ScaledPlane { how: self, residual, x });
        }
    }
}

struct ScaledPlane<'a> {
    how: &'a Scaled<'a>,
    residual: Option<&'a [f32]>,
    x: &'a mut [f32],
}

impl SimdOp for ScaledPlane<'_> {
    type Out = ();
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let Scaled { factors, shift, clamp: (lo, hi), .. } = *self.how;
        let factors = s.load(factors);
        let shift = shift.map_or(s.splat(0.0), |b| s.load(b));
        let (lo, hi) = (s.splat(lo), s.splat(hi));
        // Loops, not closures, which would be compiled without the instruction set.
        let mut at = 0;
        for x in self.x.chunks_exact_mut(S::LANES) {
            let mut v = s.fma(s.load(x), factors, shift);
            if let Some(r) = self.residual {
                v = s.add(v, s.load(&r[at..]));
            }
            s.store(x, s.min(hi, s.max(lo, v)));
            at += S::LANES;
        }
    }
}

struct Columns<'a, 'd> {
    act: Act,
    tile: &'a mut TileMut<'d>,
    columns: std::ops::Range<usize>,
}

impl SimdOp for Columns<'_, '_> {
    type Out = ();
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        for b in 0..self.tile.b_len() {
            InPlace { act: self.act, x: &mut self.tile.seg(0, b)[self.columns.clone()] }.call(s);
        }
    }
}

struct InPlace<'a> {
    act: Act,
    x: &'a mut [f32],
}

/// An expression of `$v` over all lanes of `$x`. A macro, because a closure that is not inlined would be compiled without the
/// instruction set, and every intrinsic in it would be a call.
macro_rules! each {
    ($s:ident, $x:ident, |$v:ident| $y:expr) => {{
        let mut it = $x.chunks_exact_mut(S::LANES);
        for part in &mut it {
            let $v = $s.load(part);
            let y = $y;
            $s.store(part, y);
        }
        let rest = it.into_remainder();
        if !rest.is_empty() {
            let $v = $s.load_tail(rest);
            let y = $y;
            $s.store_tail(rest, y);
        }
    }};
}

/// A function of several vectors at once over all lanes of `$x`.
macro_rules! each_of_four {
    ($s:ident, $x:ident, $f:path) => {{
        let mut it = $x.chunks_exact_mut(4 * S::LANES);
        for part in &mut it {
            let l = S::LANES;
            let v = [$s.load(part), $s.load(&part[l..]), $s.load(&part[2 * l..]), $s.load(&part[3 * l..])];
            let y = $f($s, v);
            for (i, y) in y.into_iter().enumerate() {
                $s.store(&mut part[i * l..], y);
            }
        }
        let rest = it.into_remainder();
        each!($s, rest, |v| $f($s, [v])[0]);
    }};
}

impl SimdOp for InPlace<'_> {
    type Out = ();
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let x = self.x;
        let zero = s.splat(0.0);
        match self.act {
            Act::None => {}
            Act::Relu => each!(s, x, |v| s.max(zero, v)),
            Act::Clip { lo, hi } => {
                let (lo, hi) = (s.splat(lo), s.splat(hi));
                each!(s, x, |v| s.min(hi, s.max(lo, v)));
            }
            Act::LeakyRelu(a) => {
                let a = s.splat(a);
                each!(s, x, |v| s.select(s.lt(v, zero), s.mul(a, v), v));
            }
            Act::HardSwish => each!(s, x, |v| math::hard_swish(s, v)),
            Act::HardSigmoid { alpha, beta } => each!(s, x, |v| math::hard_sigmoid(s, v, alpha, beta)),
            Act::Sigmoid => each_of_four!(s, x, math::sigmoids),
            Act::Silu => each_of_four!(s, x, math::silus),
            Act::Gelu => each_of_four!(s, x, math::gelus),
            Act::GeluTanh => each_of_four!(s, x, math::gelus_tanh),
            Act::Tanh => each!(s, x, |v| math::tanh(s, v)),
            Act::Elu(a) => {
                let (a, one) = (s.splat(a), s.splat(1.0));
                each!(s, x, |v| s.select(s.lt(v, zero), s.mul(a, s.sub(math::exp(s, v), one)), v));
            }
            Act::Softplus => each!(s, x, |v| math::softplus(s, v)),
            Act::Mish => each!(s, x, |v| s.mul(v, math::tanh(s, math::softplus(s, v)))),
            Act::Erf => each!(s, x, |v| math::erf(s, v)),
            Act::Exp => each!(s, x, |v| math::exp(s, v)),
            Act::Log => each!(s, x, |v| math::log(s, v)),
            Act::Sqrt => each!(s, x, |v| s.sqrt(v)),
            Act::Abs => each!(s, x, |v| s.abs(v)),
            Act::Neg => each!(s, x, |v| s.neg(v)),
            Act::Reciprocal => {
                let one = s.splat(1.0);
                each!(s, x, |v| s.div(one, v));
            }
            Act::Square => each!(s, x, |v| s.mul(v, v)),
            Act::Floor => each!(s, x, |v| s.floor(v)),
            Act::Round => each!(s, x, |v| s.round(v)),
        }
    }
}
