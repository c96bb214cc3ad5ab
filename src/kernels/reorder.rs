//! Between plain NCHW and blocked NCHWc, `c` = lanes of the ISA.
//!
//! Ladder: element by element → per block, squares of lanes turned, so that the blocked side is one stream and the plain side `c`
//! of them → blocks dealt out to the threads.

use crate::engine::pool::{Grid, Pool};
use crate::simd::turn::{Turn, square};
use crate::simd::{Isa, Simd, SimdOp, TileMut, dispatch};

/// Pixels that one task moves at most.
const PIXELS: usize = 1024;

/// `[n][ch][hw]` to `[n][cb][hw][c]`; lanes past the last channel become zero.
pub fn to_blocked(pool: &Pool, isa: Isa, (n, ch, hw): (usize, usize, usize), src: &[f32], dst: &mut [f32]) {
    let c = isa.lanes();
    let cb = ch.div_ceil(c);
    assert_eq!(src.len(), n * ch * hw, "reorder source");
    let b_tile = hw.clamp(1, PIXELS);
    let grid = Grid { outer: n, a: cb, b: hw, len: c, a_tile: 1, b_tile, len_tile: c };
    pool.for_tiles(dst, grid, |mut t, _| {
        let (from, have) = (t.outer * ch + t.a0 * c, c.min(ch - t.a0 * c));
        let (p0, len) = (t.b0, t.b_len());
        let out = t.plane(0);
        if have < c {
            out.fill(0.0);
        }
        dispatch(isa, Turn { from: &src[from * hw + p0..], stride: hw, row: have, count: len, to: out, to_stride: c });
    });
}

/// `[n][cb][hw][c]` to `[n][ch][hw]`.
pub fn to_plain(pool: &Pool, isa: Isa, (n, ch, hw): (usize, usize, usize), src: &[f32], dst: &mut [f32]) {
    let c = isa.lanes();
    let cb = ch.div_ceil(c);
    assert_eq!(src.len(), n * cb * hw * c, "reorder source");
    let grid = Grid { outer: n, a: ch, b: 1, len: hw, a_tile: c, b_tile: 1, len_tile: hw.clamp(1, PIXELS) };
    pool.for_tiles(dst, grid, |mut t, _| {
        // a_tile = c, so a tile never spans two blocks.
        let (len, rows) = (t.seg_len(), t.a_len());
        let from = &src[((t.outer * cb + t.a0 / c) * hw + t.c0) * c..][..len * c];
        dispatch(isa, Rows { from, rows, to: &mut t });
    });
}

/// Lanes of `[pixels][LANES]` as rows of a tile, the first `rows` of them.
struct Rows<'a, 'd> {
    from: &'a [f32],
    rows: usize,
    to: &'a mut TileMut<'d>,
}

impl SimdOp for Rows<'_, '_> {
    type Out = ();
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        for (i, from) in self.from.chunks(S::LANES * S::LANES).enumerate() {
            let have = from.len() / S::LANES;
            let mut r = [s.splat(0.0); 16];
            if have == S::LANES && self.rows == S::LANES {
                macro_rules! each {
                    ($($i:literal)*) => {{
                        $(if $i < S::LANES { r[$i] = s.load(&from[$i * S::LANES..]); })*
                        square(s, &mut r);
                        $(if $i < S::LANES { s.store(&mut self.to.seg($i, 0)[i * S::LANES..], r[$i]); })*
                    }};
                }
                each!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
                continue;
            }
            for (r, from) in r.iter_mut().zip(from.chunks_exact(S::LANES)) {
                *r = s.load(from);
            }
            square(s, &mut r);
            for (lane, r) in r.iter().enumerate().take(self.rows) {
                let to = &mut self.to.seg(lane, 0)[i * S::LANES..][..have];
                if have == S::LANES {
                    s.store(to, *r);
                } else {
                    s.store_tail(to, *r);
                }
            }
        }
    }
}

/// Set the lanes past the last channel of `[n][cb][hw][c]` to zero.
pub fn clear_padding(isa: Isa, (n, ch, hw): (usize, usize, usize), x: &mut [f32]) {
    let (c, cb) = (isa.lanes(), ch.div_ceil(isa.lanes()));
    let have = ch - (cb.saturating_sub(1)) * c;
    if cb == 0 || have == c {
        return;
    }
    assert_eq!(x.len(), n * cb * hw * c, "blocked tensor");
    for image in x.chunks_exact_mut(cb * hw * c) {
        image[(cb - 1) * hw * c..].chunks_exact_mut(c).for_each(|p| p[have..].fill(0.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::{blocked, guarded, isas, values};

    #[test]
    fn there_and_back() {
        for isa in isas() {
            let c = isa.lanes();
            for threads in [1, 3] {
                let pool = Pool::new(threads);
                for (n, ch, hw) in [(1, 1, 1), (2, 8, 49), (1, 17, 5), (3, 33, 7), (1, 16, 2500), (1, 3, 1030)] {
                    let src = values(n * ch * hw, 1);
                    let want = blocked(&src, n, ch, hw, c, 0.0);
                    let got = guarded(want.len(), |d| to_blocked(&pool, isa, (n, ch, hw), &src, d));
                    assert_eq!(got, want);
                    let back = guarded(src.len(), |d| to_plain(&pool, isa, (n, ch, hw), &got, d));
                    assert_eq!(back, src);
                    let mut dirty = blocked(&src, n, ch, hw, c, f32::NAN);
                    clear_padding(isa, (n, ch, hw), &mut dirty);
                    assert_eq!(dirty, want);
                }
            }
        }
    }
}
