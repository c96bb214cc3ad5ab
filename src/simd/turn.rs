//! Matrices turned over their diagonal, in squares of lanes.

use super::{Simd, SimdOp};

/// Lane numbers with one bit flipped.
const FLIPPED: [[i32; 16]; 4] = {
    let mut t = [[0; 16]; 4];
    let mut bit = 0;
    while bit < 4 {
        let mut i = 0;
        while i < 16 {
            t[bit][i] = (i ^ (1 << bit)) as i32;
            i += 1;
        }
        bit += 1;
    }
    t
};

/// 1 in lanes whose number has a bit set.
const SET: [[f32; 16]; 4] = {
    let mut t = [[0.0; 16]; 4];
    let mut bit = 0;
    while bit < 4 {
        let mut i = 0;
        while i < 16 {
            t[bit][i] = ((i >> bit) & 1) as f32;
            i += 1;
        }
        bit += 1;
    }
    t
};

/// Turn the square in the first `LANES` vectors: lane `j` of vector `i` becomes lane `i` of vector `j`.
///
/// Eklundh's way: blocks of 1, 2, 4 … lanes change places over the diagonal.
#[inline(always)]
pub fn square<S: Simd>(s: S, r: &mut [S::F; 16]) {
    stage::<S, 0>(s, r);
    stage::<S, 1>(s, r);
    stage::<S, 2>(s, r);
    if S::LANES > 8 {
        stage::<S, 3>(s, r);
    }
}

/// Whether vector `i` is the lower one of its pair.
const fn is_lower(i: usize, bit: usize) -> bool {
    i >> bit & 1 == 0
}

/// Blocks of `2^BIT` lanes change places.
#[inline(always)]
fn stage<S: Simd, const BIT: usize>(s: S, r: &mut [S::F; 16]) {
    let flip = s.load_int(&FLIPPED[BIT]);
    let set = s.lt(s.splat(0.0), s.load(&SET[BIT]));
    // Spelled out: in a loop the vectors would be an array in memory.
    macro_rules! pairs {
        ($($i:literal)*) => {$(
            if $i < S::LANES && is_lower($i, BIT) {
                let (a, b) = (r[$i], r[$i | (1 << BIT)]);
                r[$i] = s.select(set, s.permute(b, flip), a);
                r[$i | (1 << BIT)] = s.select(set, b, s.permute(a, flip));
            }
        )*};
    }
    pairs!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
}

/// `to[a · to_stride + b] = from[b · stride + a]` for `a < count`, `b < row`.
pub struct Turn<'a> {
    /// Source, from its first value.
    pub from: &'a [f32],
    /// Distance of its rows.
    pub stride: usize,
    /// Values in a row of the result.
    pub row: usize,
    /// Rows of the result.
    pub count: usize,
    /// Result, from its first value.
    pub to: &'a mut [f32],
    /// Distance of its rows.
    pub to_stride: usize,
}

impl SimdOp for Turn<'_> {
    type Out = ();
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let Turn { from, stride, row, count, to, to_stride } = self;
        let l = S::LANES;
        // Two squares side by side where lanes are half a cache line: both read the same lines.
        for a1 in (0..count).step_by(16) {
            for b0 in (0..row).step_by(l) {
                for a0 in (a1..count.min(a1 + 16)).step_by(l) {
                    let (an, bn) = (l.min(count - a0), l.min(row - b0));
                    let mut r = [s.splat(0.0); 16];
                    if an == l && bn == l {
                        macro_rules! each {
                            ($($i:literal)*) => {{
                                $(if $i < S::LANES { r[$i] = s.load(&from[(b0 + $i) * stride + a0..]); })*
                                square(s, &mut r);
                                $(if $i < S::LANES { s.store(&mut to[(a0 + $i) * to_stride + b0..], r[$i]); })*
                            }};
                        }
                        each!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
                    } else {
                        for (j, r) in r.iter_mut().enumerate().take(bn) {
                            *r = s.load_tail(&from[(b0 + j) * stride + a0..][..an]);
                        }
                        square(s, &mut r);
                        for (i, r) in r.iter().enumerate().take(an) {
                            s.store_tail(&mut to[(a0 + i) * to_stride + b0..][..bn], *r);
                        }
                    }
                }
            }
        }
    }
}
