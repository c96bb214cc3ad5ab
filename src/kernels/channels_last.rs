//! Between the blocked layout and channels last: what exporters write as a Transpose before or after a normalisation over channels, or
//! as a Transpose and a Reshape between the tokens of a transformer and the map of a convolution.
//!
//! Ladder: to plain NCHW and then turned → the lanes of a block are neighbours on both sides, so vectors are moved as they are, a few
//! pixels of all blocks at a time → pixels dealt out to the threads → an activation that follows applied while they are in the cache.

use super::epilogue::Act;
use super::task::{Accept, Entry, Kind, Layout, Prepared, Task, Verdict};
use crate::engine::pool::{Grid, Pool};
use crate::error::{Error, Result};
use crate::simd::{Isa, Simd, SimdOp, TileMut, dispatch};

/// The tolerance is that of activations; what only moves is exact.
pub(super) const ENTRY: Entry = Entry { name: "channels-last", accepts, prepare, tolerance: 1e-5 };

/// Pixels that one task moves.
const PIXELS: usize = 64;

struct Moved {
    isa: Isa,
    /// Images, channels, pixels.
    dims: (usize, usize, usize),
    /// To channels last rather than from there.
    last: bool,
    act: Act,
}

fn read(task: &Task) -> Option<Moved> {
    let (isa, blocked) = (task.isa, task.layouts.first() == Some(&Layout::Blocked));
    let (n, ch, hw, last, act) = match (task.kind, &task.srcs[0][..]) {
        (Kind::Transpose(perm), &[n, c, h, w]) if perm[..] == [0, 2, 3, 1] => (n, c, h * w, true, Act::None),
        (Kind::Transpose(perm), &[n, h, w, c]) if perm[..] == [0, 3, 1, 2] => (n, c, h * w, false, Act::None),
        (Kind::Tokens(act), &[n, c, h, w]) => (n, c, h * w, true, *act),
        // Lanes past the last channel would not stay zero.
        (Kind::Tokens(Act::None), &[n, hw, c]) => (n, c, hw, false, Act::None),
        _ => return None,
    };
    (if last { blocked } else { ch >= isa.lanes() }).then_some(Moved { isa, dims: (n, ch, hw), last, act })
}

fn accepts(task: &Task) -> Verdict {
    match read(task) {
        Some(Moved { last: true, .. }) => Ok(Accept::of(vec![Layout::Blocked], Layout::Plain)),
        Some(_) => Ok(Accept::of(vec![Layout::Plain], Layout::Blocked)),
        None => Err(String::new()),
    }
}

fn prepare(task: &Task) -> Result<Box<dyn Prepared>> {
    Ok(Box::new(read(task).ok_or_else(|| Error::run("no move of channels"))?))
}

impl Prepared for Moved {
    fn run(&self, pool: &Pool, srcs: &[&[f32]], dsts: &mut [&mut [f32]]) {
        let (isa, (n, ch, hw), l) = (self.isa, self.dims, self.isa.lanes());
        let (src, cb) = (srcs[0], ch.div_ceil(l));
        let shape = |a, len| Grid { outer: n, a, b: hw, len, a_tile: a.max(1), b_tile: PIXELS, len_tile: len.max(1) };
        if self.last {
            pool.for_tiles(dsts[0], shape(1, ch), |mut to, _| {
                let from = &src[(to.outer * cb * hw + to.b0) * l..];
                let pixels = to.b_len();
                dispatch(isa, Gather { from, hw, ch, pixels, to: to.plane(0) });
                self.act.apply(isa, to.plane(0));
            });
        } else {
            pool.for_tiles(dsts[0], shape(cb, l), |mut to, _| {
                let from = &src[(to.outer * hw + to.b0) * ch..][..to.b_len() * ch];
                dispatch(isa, Scatter { from, ch, to: &mut to });
            });
        }
    }
}

/// `to[p][c] = from[c / lanes][p][c % lanes]`
struct Gather<'a> {
    from: &'a [f32],
    hw: usize,
    ch: usize,
    pixels: usize,
    to: &'a mut [f32],
}

impl SimdOp for Gather<'_> {
    type Out = ();
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let Gather { from, hw, ch, pixels, to } = self;
        for c in (0..ch).step_by(S::LANES) {
            let from = &from[c * hw..][..pixels * S::LANES];
            let have = S::LANES.min(ch - c);
            for p in 0..pixels {
                let v = s.load(&from[p * S::LANES..]);
                if have == S::LANES {
                    s.store(&mut to[p * ch + c..], v);
                } else {
                    s.store_tail(&mut to[p * ch + c..][..have], v);
                }
            }
        }
    }
}

/// The other way; lanes past the last channel become zero.
struct Scatter<'a, 'd> {
    from: &'a [f32],
    ch: usize,
    to: &'a mut TileMut<'d>,
}

impl SimdOp for Scatter<'_, '_> {
    type Out = ();
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let Scatter { from, ch, to } = self;
        let pixels = from.len() / ch;
        for block in 0..to.a_len() {
            let (c, plane) = (block * S::LANES, to.plane(block));
            let have = S::LANES.min(ch - c);
            for p in 0..pixels {
                let from = &from[p * ch + c..];
                let v = if have == S::LANES { s.load(from) } else { s.load_tail(&from[..have]) };
                s.store(&mut plane[p * S::LANES..], v);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::{blocked, guarded, isas, values};

    #[test]
    fn there_and_back() {
        for isa in isas() {
            let l = isa.lanes();
            for (n, ch, hw) in [(1, l, 1), (2, l + 3, 65), (1, 3 * l, 130), (3, 5 * l - 1, 7)] {
                let plain = values(n * ch * hw, 1);
                let packed = blocked(&plain, n, ch, hw, l, 0.0);
                let at = |i: usize| (i / (ch * hw) * ch + i % ch) * hw + i / ch % hw;
                let want: Vec<f32> = (0..plain.len()).map(|i| plain[at(i)]).collect();
                let pool = Pool::new(3);
                let run = |last: bool, src: &[f32], len: usize| {
                    guarded(len, |d| {
                        Moved { isa, dims: (n, ch, hw), last, act: Act::None }.run(&pool, &[src], &mut [d])
                    })
                };
                assert_eq!(run(true, &packed, plain.len()), want, "{isa} {n} {ch} {hw}");
                assert_eq!(run(false, &want, packed.len()), packed, "{isa} {n} {ch} {hw}");
            }
        }
    }
}
