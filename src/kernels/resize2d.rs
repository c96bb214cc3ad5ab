//! Resize of the last two axes from precomputed taps: nearest is one tap of weight 1, linear two, cubic four per axis.
//!
//! Separable. Ladder: a sum of taps per value → columns first where rows are repeated (each input row is resampled once, and an output row
//! is a blend of such rows, a vector at a time), rows first where they are dropped → of a plain tensor, a vector of columns that takes
//! from few neighbours is a load and a permutation per tap; in the layout NCHWc a column is a vector and no tap gathers.

use super::task::{Accept, Entry, Kind, Layout, Prepared, Task, Verdict};
use crate::engine::pool::{Grid, Pool, Scratch};
use crate::error::{Error, Result};
use crate::simd::{Isa, Simd, SimdOp, TileMut, dispatch};

pub(super) const ENTRY: Entry = Entry { name: "resize2d", accepts, prepare, tolerance: 1e-5 };

/// Values of resampled rows that a task keeps: they stay in the second-level cache.
const KEEP: usize = 24 << 10;
/// Values a task makes.
const CHUNK: usize = 64 << 10;
/// Where the resampled rows of a blocked map may not be much larger than the map: its reorders would cost more than they save.
const GROWTH: usize = 4;

type Taps = Vec<Vec<(usize, f32)>>;

/// Which axis goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// Each output row is one input row.
    Picked,
    /// Input rows are resampled along their columns, then blended.
    ColumnsFirst,
    /// Input rows are blended, then resampled.
    RowsFirst,
}

struct Resize {
    isa: Isa,
    order: Order,
    rows: Taps,
    cols: Columns,
    planes: usize,
    ih: usize,
    /// Output rows per task.
    band: usize,
    /// Input rows that any output row reads.
    read: Vec<bool>,
}

/// The taps of the output columns, the same number for each.
struct Columns {
    /// Values per pixel: the lanes, or 1 of a plain map.
    width: usize,
    iw: usize,
    ow: usize,
    taps: usize,
    /// Output columns are the input columns.
    same: bool,
    /// Blocked: `[column][tap]`. Plain: `[vector][tap][lane]`, counted from the vector's base where it has one.
    places: Vec<i32>,
    /// Likewise.
    weights: Vec<f32>,
    /// Of each vector of columns of a plain map: where the `LANES` input columns begin that it takes from, if they are enough.
    bases: Vec<Option<usize>>,
}

/// `taps` taps that sum to the same as these: a value is taken twice at half its weight, which is exact.
fn spread(list: &[(usize, f32)], taps: usize) -> Vec<(usize, f32)> {
    let mut list = list.to_vec();
    if list.is_empty() {
        list.push((0, 0.0));
    }
    while list.len() < taps {
        let last = list.len() - 1;
        list[last].1 /= 2.0;
        list.push(list[last]);
    }
    list
}

impl Columns {
    fn new(cols: &Taps, iw: usize, l: usize, blocked: bool) -> Columns {
        let ow = cols.len();
        let taps = cols.iter().map(Vec::len).max().unwrap_or(0).max(1);
        let same = ow == iw && cols.iter().enumerate().all(|(x, t)| t.as_slice() == [(x, 1.0)]);
        let even: Vec<_> = cols.iter().map(|t| spread(t, taps)).collect();
        let (mut places, mut weights, mut bases) = (Vec::new(), Vec::new(), Vec::new());
        if blocked {
            places.extend(even.iter().flatten().map(|t| t.0 as i32));
            weights.extend(even.iter().flatten().map(|t| t.1));
        } else {
            for group in even.chunks(l) {
                let all = || group.iter().flatten().map(|t| t.0);
                let (first, last) = (all().min().unwrap_or(0), all().max().unwrap_or(0));
                let base = first.min(iw.saturating_sub(l));
                let near = last - base < l;
                bases.push(near.then_some(base));
                let from = if near { base } else { 0 };
                for t in 0..taps {
                    for lane in 0..l {
                        let (x, w) = group.get(lane).map_or((from, 0.0), |c| c[t]);
                        places.push((x - from) as i32);
                        weights.push(w);
                    }
                }
            }
        }
        Columns { width: if blocked { l } else { 1 }, iw, ow, taps, same, places, weights, bases }
    }

    /// An input row to an output row.
    #[inline(always)]
    fn across<S: Simd>(&self, s: S, line: &[f32], out: &mut [f32]) {
        match (self.width, self.taps) {
            _ if self.same => out.copy_from_slice(line),
            (1, 1) => self.plain::<S, 1>(s, line, out),
            (1, 2) => self.plain::<S, 2>(s, line, out),
            (1, _) => self.plain::<S, 0>(s, line, out),
            (_, 1) => self.blocked::<S, 1>(s, line, out),
            (_, 2) => self.blocked::<S, 2>(s, line, out),
            _ => self.blocked::<S, 0>(s, line, out),
        }
    }

    /// `N` taps, or as many as there are.
    #[inline(always)]
    fn plain<S: Simd, const N: usize>(&self, s: S, line: &[f32], out: &mut [f32]) {
        let l = S::LANES;
        let line = &line[..self.iw];
        let taps = if N == 0 { self.taps } else { N };
        let lists = self.places.chunks_exact(taps * l).zip(self.weights.chunks_exact(taps * l));
        for ((y, base), (places, weights)) in out.chunks_mut(l).zip(&self.bases).zip(lists) {
            let mut acc = s.splat(0.0);
            if let Some(base) = *base {
                let near = &line[base..];
                let near = if near.len() >= l { s.load(near) } else { s.load_tail(near) };
                for t in 0..taps {
                    let x = s.permute(near, s.load_int(&places[t * l..]));
                    acc = s.fma(s.load(&weights[t * l..]), x, acc);
                }
            } else {
                for t in 0..taps {
                    let mut x = [0.0f32; 16];
                    for (x, &p) in x[..l].iter_mut().zip(&places[t * l..][..l]) {
                        *x = line[p as usize];
                    }
                    acc = s.fma(s.load(&weights[t * l..]), s.load(&x), acc);
                }
            }
            if y.len() == l {
                s.store(y, acc);
            } else {
                s.store_tail(y, acc);
            }
        }
    }

    #[inline(always)]
    fn blocked<S: Simd, const N: usize>(&self, s: S, line: &[f32], out: &mut [f32]) {
        let l = S::LANES;
        let taps = if N == 0 { self.taps } else { N };
        let lists = self.places.chunks_exact(taps).zip(self.weights.chunks_exact(taps));
        for (y, (places, weights)) in out.chunks_exact_mut(l).zip(lists) {
            let mut acc = s.splat(0.0);
            for t in 0..taps {
                acc = s.fma(s.splat(weights[t]), s.load(&line[places[t] as usize * l..]), acc);
            }
            s.store(y, acc);
        }
    }
}

/// `out = Σ weight · row`, rows from `row(input row)`, two at a time.
#[inline(always)]
fn blend<'r, S: Simd>(s: S, taps: &[(usize, f32)], row: impl Fn(usize) -> &'r [f32], out: &mut [f32]) {
    let l = S::LANES;
    if taps.is_empty() {
        out.fill(0.0);
    }
    for (i, two) in taps.chunks(2).enumerate() {
        let n = out.len();
        let (a, b) = (&row(two[0].0)[..n], &row(two[two.len() - 1].0)[..n]);
        if let [(_, 1.0)] = taps {
            out.copy_from_slice(a);
            return;
        }
        // A single row is taken twice at half its weight.
        let part = if two.len() == 1 { 0.5 } else { 1.0 };
        let (wa, wb) = (s.splat(two[0].1 * part), s.splat(two[two.len() - 1].1 * part));
        let (mut ys, mut xs, mut zs) = (out.chunks_exact_mut(l), a.chunks_exact(l), b.chunks_exact(l));
        for ((y, a), b) in (&mut ys).zip(&mut xs).zip(&mut zs) {
            let v = if i == 0 { s.mul(wa, s.load(a)) } else { s.fma(wa, s.load(a), s.load(y)) };
            s.store(y, s.fma(wb, s.load(b), v));
        }
        let (y, a, b) = (ys.into_remainder(), s.load_tail(xs.remainder()), s.load_tail(zs.remainder()));
        let v = if i == 0 { s.mul(wa, a) } else { s.fma(wa, a, s.load_tail(y)) };
        s.store_tail(y, s.fma(wb, b, v));
    }
}

fn accepts(task: &Task) -> Verdict {
    let Kind::Resize { rows, cols } = task.kind else { return Err(String::new()) };
    let layout = match (task.layouts, task.srcs[0].as_slice()) {
        // Where the result is much larger than the map, as at the end of a segmentation, it had better be made as it is wanted there.
        ([Layout::Blocked], [_, c, ih, iw])
            if c.is_multiple_of(task.isa.lanes()) || rows.len() * cols.len() <= GROWTH * ih * iw =>
        {
            Layout::Blocked
        }
        _ => Layout::Plain,
    };
    Ok(Accept::of(vec![layout], layout))
}

fn prepare(task: &Task) -> Result<Box<dyn Prepared>> {
    let (Kind::Resize { rows, cols }, [outer @ .., ih, iw]) = (task.kind, task.srcs[0].as_slice()) else {
        return Err(Error::run("not a resize of the last two axes"));
    };
    let inside = |taps: &Taps, n: usize| taps.iter().flatten().all(|t| t.0 < n);
    if !inside(rows, *ih) || !inside(cols, *iw) || i32::try_from(*iw).is_err() {
        return Err(Error::run("a resize that reads outside its input"));
    }
    let l = task.isa.lanes();
    let blocked = accepts(task).map_err(Error::run)?.dst == Layout::Blocked;
    let planes = match (blocked, outer) {
        (true, [n, c]) => n * c.div_ceil(l),
        _ => outer.iter().product(),
    };
    Ok(Box::new(Resize::new(task.isa, planes, *ih, *iw, rows, cols, blocked)))
}

impl Resize {
    fn new(isa: Isa, planes: usize, ih: usize, iw: usize, rows: &Taps, cols: &Taps, blocked: bool) -> Resize {
        let mut read = vec![false; ih];
        rows.iter().flatten().for_each(|t| read[t.0] = true);
        let used = read.iter().filter(|r| **r).count();
        let cols = Columns::new(cols, iw, isa.lanes(), blocked);
        let order = match () {
            _ if rows.iter().all(|t| matches!(t[..], [(_, 1.0)])) => Order::Picked,
            _ if used <= rows.len() => Order::ColumnsFirst,
            _ => Order::RowsFirst,
        };
        let row = cols.ow * cols.width;
        let band = (1..=rows.len().max(1)).rev().find(|&band| {
            // Every output row of a band needs its share of the input rows, and the band two more.
            let kept = band * used / rows.len().max(1) + 2;
            band * row <= CHUNK && (order != Order::ColumnsFirst || kept * row <= KEEP)
        });
        Resize { isa, order, rows: rows.clone(), cols, planes, ih, band: band.unwrap_or(1), read }
    }
}

impl Prepared for Resize {
    fn run(&self, pool: &Pool, srcs: &[&[f32]], dsts: &mut [&mut [f32]]) {
        let c = &self.cols;
        let (from, to) = (c.iw * c.width, c.ow * c.width);
        let grid =
            Grid { outer: self.planes, a: 1, b: self.rows.len(), len: to, a_tile: 1, b_tile: self.band, len_tile: to };
        if dsts[0].is_empty() {
            return;
        }
        let plane = self.ih * from;
        pool.for_tiles(dsts[0], grid, |tile, id| {
            let src = &srcs[0][tile.outer * plane..][..plane];
            pool.scratch(id, |scratch| {
                let first = tile.b0;
                let rows = &self.rows[first..first + tile.b_len()];
                let reach = || rows.iter().flatten().map(|t| t.0);
                let (low, high) = (reach().min().unwrap_or(0), reach().max().map_or(0, |h| h + 1));
                let len = match self.order {
                    Order::Picked => 0,
                    Order::ColumnsFirst if c.same => 0,
                    Order::ColumnsFirst => (high - low) * to,
                    Order::RowsFirst => from,
                };
                let kept = Scratch::grow(&mut scratch.a, len);
                dispatch(self.isa, Band { r: self, src, rows, reach: (low, high), kept, tile });
            });
        });
    }
    fn detail(&self) -> String {
        let order = match self.order {
            Order::Picked => "rows copied",
            Order::ColumnsFirst => "columns first",
            Order::RowsFirst => "rows first",
        };
        order.into()
    }
}

/// Output rows of one plane.
struct Band<'a, 't> {
    r: &'a Resize,
    src: &'a [f32],
    rows: &'a [Vec<(usize, f32)>],
    /// Input rows from, to.
    reach: (usize, usize),
    kept: &'a mut [f32],
    tile: TileMut<'t>,
}

impl SimdOp for Band<'_, '_> {
    type Out = ();
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let Band { r, src, rows, reach: (low, high), kept, mut tile } = self;
        let c = &r.cols;
        let (from, to) = (c.iw * c.width, c.ow * c.width);
        let line = |y: usize| &src[y * from..][..from];
        match r.order {
            Order::Picked => {
                let out = tile.plane(0);
                for (i, taps) in rows.iter().enumerate() {
                    if i > 0 && taps[0].0 == rows[i - 1][0].0 {
                        out.copy_within((i - 1) * to..i * to, i * to);
                    } else {
                        c.across(s, line(taps[0].0), &mut out[i * to..][..to]);
                    }
                }
            }
            Order::ColumnsFirst if c.same => {
                for (i, taps) in rows.iter().enumerate() {
                    blend(s, taps, line, tile.seg(0, i));
                }
            }
            Order::ColumnsFirst => {
                for y in (low..high).filter(|&y| r.read[y]) {
                    c.across(s, line(y), &mut kept[(y - low) * to..][..to]);
                }
                let kept = &*kept;
                for (i, taps) in rows.iter().enumerate() {
                    blend(s, taps, |y| &kept[(y - low) * to..][..to], tile.seg(0, i));
                }
            }
            Order::RowsFirst => {
                for (i, taps) in rows.iter().enumerate() {
                    blend(s, taps, line, kept);
                    c.across(s, kept, tile.seg(0, i));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::{blocked, close, guarded, isas, plain, values};

    fn nearest(i: usize, o: usize) -> Taps {
        (0..o).map(|y| vec![(y * i / o, 1.0)]).collect()
    }

    /// Taps around `(y + ½) · i/o − ½`, those outside left out.
    fn smooth(i: usize, o: usize, taps: usize) -> Taps {
        let axis = |y: usize| {
            let at = (y as f32 + 0.5) * i as f32 / o as f32 - 0.5;
            let first = at.floor() as isize - (taps as isize / 2 - 1);
            let all = (first..first + taps as isize).filter(|p| (0..i as isize).contains(p));
            all.map(|p| (p as usize, 1.0 / (1.0 + (at - p as f32).abs()))).collect()
        };
        (0..o).map(axis).collect()
    }

    fn naive(rows: &Taps, cols: &Taps, (planes, ih, iw): (usize, usize, usize), src: &[f32]) -> Vec<f32> {
        let mut out = Vec::new();
        for p in 0..planes {
            for row in rows {
                for col in cols {
                    let one = |y: usize| col.iter().map(|t| t.1 * src[(p * ih + y) * iw + t.0]).sum::<f32>();
                    out.push(row.iter().map(|t| t.1 * one(t.0)).sum());
                }
            }
        }
        out
    }

    #[test]
    fn every_order_and_layout() {
        let (n, ch) = (2, 11);
        let sizes = [(1, 1, 5, 9), (5, 7, 40, 37), (20, 20, 41, 20), (9, 40, 9, 17), (33, 50, 7, 19), (4, 33, 8, 66)];
        for (ih, iw, oh, ow) in sizes {
            let src = values(n * ch * ih * iw, 3);
            for taps in [1, 2, 4] {
                let along = |i, o| if taps == 1 { nearest(i, o) } else { smooth(i, o, taps) };
                let copied = (0..iw).map(|x| vec![(x, 1.0)]).collect();
                for (rows, cols) in [(along(ih, oh), along(iw, ow)), (along(ih, oh), copied)] {
                    let ow = cols.len();
                    let want = naive(&rows, &cols, (n * ch, ih, iw), &src);
                    for threads in [1, 3] {
                        let pool = Pool::new(threads);
                        for isa in isas() {
                            let what = format!("{isa} {taps} taps {ih}x{iw} to {oh}x{ow}");
                            let r = Resize::new(isa, n * ch, ih, iw, &rows, &cols, false);
                            let got = guarded(want.len(), |d| r.run(&pool, &[&src], &mut [d]));
                            close(&got, &want, 1e-5, &what);
                            let l = isa.lanes();
                            let planes = n * ch.div_ceil(l);
                            let r = Resize::new(isa, planes, ih, iw, &rows, &cols, true);
                            let from = blocked(&src, n, ch, ih * iw, l, 0.0);
                            let got = guarded(planes * l * oh * ow, |d| r.run(&pool, &[&from], &mut [d]));
                            close(&plain(&got, n, ch, oh * ow, l), &want, 1e-5, &what);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn infinite_values_stay_where_they_are() {
        let mut src = values(4 * 6, 9);
        src[13] = f32::INFINITY;
        let (rows, cols) = (smooth(4, 11, 2), smooth(6, 17, 2));
        let want = naive(&rows, &cols, (1, 4, 6), &src);
        for isa in isas() {
            let r = Resize::new(isa, 1, 4, 6, &rows, &cols, false);
            let got = guarded(want.len(), |d| r.run(&Pool::new(1), &[&src], &mut [d]));
            close(&got, &want, 1e-5, isa.name());
        }
    }
}
