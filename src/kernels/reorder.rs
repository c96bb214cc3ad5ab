//! Between plain NCHW and blocked NCHWc, `c` = lanes of the ISA.
//!
//! Ladder: element by element → per block, `c` rows read side by side, so that the blocked side is one stream and
//! the plain side `c` of them → blocks dealt out to the threads.

use crate::engine::pool::{Grid, Pool};
use crate::simd::Isa;

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
        match c {
            8 if have == c => gather::<8>(&src[from * hw..], hw, p0, out),
            16 if have == c => gather::<16>(&src[from * hw..], hw, p0, out),
            _ => {
                for lane in 0..have {
                    let row = &src[(from + lane) * hw + p0..][..len];
                    out[lane..].iter_mut().step_by(c).zip(row).for_each(|(d, s)| *d = *s);
                }
            }
        }
    });
}

/// `C` rows `hw` apart, from column `p0`, interleaved into `out`.
fn gather<const C: usize>(src: &[f32], hw: usize, p0: usize, out: &mut [f32]) {
    let len = out.len() / C;
    let rows: [&[f32]; C] = std::array::from_fn(|i| &src[i * hw + p0..][..len]);
    let (body, _) = out.as_chunks_mut::<C>();
    for (p, pixel) in body.iter_mut().enumerate() {
        for (d, row) in pixel.iter_mut().zip(rows) {
            *d = row[p];
        }
    }
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
        for lane in 0..rows {
            let row = t.seg(lane, 0);
            row.iter_mut().zip(from[lane..].iter().step_by(c)).for_each(|(d, s)| *d = *s);
        }
    });
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
