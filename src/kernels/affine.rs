//! Boxes of a tensor at any start, step and order of axes: Slice, Pad, Expand, Transpose in one kernel.
//!
//! Every destination axis walks the source at `start + i·step` positions `stride` values apart; positions outside `0..limit` give
//! the fill value. Ladder: index arithmetic per element → per row, with runs of neighbours copied whole → axes that walk the source as
//! one merged, so that rows are long → rows split over threads.

use super::task::{Accept, Entry, Kind, Layout, Prepared, Task, Verdict};
use crate::engine::pool::Pool;
use crate::error::{Error, Result};
use smallvec::SmallVec;

pub(super) const ENTRY: Entry = Entry { name: "affine", accepts, prepare, tolerance: 0.0 };

/// How one destination axis walks the source.
#[derive(Debug, Clone, Copy)]
struct AxisMap {
    start: isize,
    step: isize,
    limit: usize,
    stride: usize,
}

struct Affine {
    dims: Vec<usize>,
    axes: Vec<AxisMap>,
    fill: f32,
}

fn strides(dims: &[usize]) -> Vec<usize> {
    let mut s = vec![1; dims.len()];
    for a in (1..dims.len()).rev() {
        s[a - 1] = s[a] * dims[a];
    }
    s
}

impl Affine {
    fn of(kind: &Kind, src: &[usize], dst: &[usize]) -> Option<Affine> {
        let s = strides(src);
        let whole = |a: usize| AxisMap { start: 0, step: 1, limit: src[a], stride: s[a] };
        let (axes, fill): (Vec<AxisMap>, f32) = match kind {
            Kind::Slice(cuts) if cuts.len() == src.len() => {
                let cut =
                    |(a, &(start, step)): (usize, &(usize, isize))| AxisMap { start: start as isize, step, ..whole(a) };
                (cuts.iter().enumerate().map(cut).collect(), 0.0)
            }
            Kind::Pad { pads, value } if pads.len() == src.len() => {
                let pad = |(a, p): (usize, &(usize, usize))| AxisMap { start: -(p.0 as isize), ..whole(a) };
                (pads.iter().enumerate().map(pad).collect(), *value)
            }
            Kind::Expand if dst.len() >= src.len() => {
                let lead = dst.len() - src.len();
                let axis = |i: usize| match i.checked_sub(lead) {
                    Some(a) if src[a] != 1 || dst[i] == 1 => whole(a),
                    _ => AxisMap { start: 0, step: 0, limit: 1, stride: 0 },
                };
                ((0..dst.len()).map(axis).collect(), 0.0)
            }
            Kind::Transpose(perm) if perm.len() == src.len() => (perm.iter().map(|&a| whole(a)).collect(), 0.0),
            _ => return None,
        };
        // A scalar is one row of one element.
        if axes.is_empty() {
            let one = AxisMap { start: 0, step: 1, limit: 1, stride: 1 };
            return Some(Affine { dims: vec![1], axes: vec![one], fill });
        }
        Some(Affine::merged(dst, &axes, fill))
    }

    /// Neighbouring axes that walk the source as one are one: the rest is rows as long as can be.
    fn merged(dims: &[usize], axes: &[AxisMap], fill: f32) -> Affine {
        let mut out: (Vec<usize>, Vec<AxisMap>) = (Vec::new(), Vec::new());
        for (&len, axis) in dims.iter().zip(axes) {
            if let (Some(l), Some(a)) = (out.0.last_mut(), out.1.last_mut()) {
                let whole = axis.start == 0 && axis.step == 1 && axis.limit == len;
                let runs_on = whole && a.step == 1 && a.stride == axis.limit * axis.stride;
                if runs_on || (a.step == 0 && axis.step == 0) {
                    *l *= len;
                    if runs_on {
                        let by = axis.limit;
                        let start = a.start * by as isize;
                        *a = AxisMap { start, limit: a.limit * by, ..*axis };
                    }
                    continue;
                }
            }
            out.0.push(len);
            out.1.push(*axis);
        }
        Affine { dims: out.0, axes: out.1, fill }
    }

    fn row(&self, src: &[f32], base: usize, row: &mut [f32], from: usize) {
        let axis = self.axes[self.axes.len() - 1];
        let at = |i: usize| axis.start + (from + i) as isize * axis.step;
        let inside = |p: isize| p >= 0 && (p as usize) < axis.limit;
        if axis.step == 1 && axis.stride == 1 {
            // Fill, copy, fill.
            let first = (-at(0)).max(0) as usize;
            let first = first.min(row.len());
            let room = (axis.limit as isize - at(first)).max(0) as usize;
            let last = (first + room).min(row.len());
            row[..first].fill(self.fill);
            if last > first {
                let s = base + at(first) as usize;
                row[first..last].copy_from_slice(&src[s..s + last - first]);
            }
            row[last.max(first)..].fill(self.fill);
        } else if axis.step == 0 {
            row.fill(src[base]);
        } else {
            for (i, d) in row.iter_mut().enumerate() {
                let p = at(i);
                *d = if inside(p) { src[base + p as usize * axis.stride] } else { self.fill };
            }
        }
    }
}

/// Destination values per task.
const CHUNK: usize = 1 << 14;

impl Prepared for Affine {
    fn run(&self, pool: &Pool, srcs: &[&[f32]], dsts: &mut [&mut [f32]]) {
        let (src, dst) = (srcs[0], &mut *dsts[0]);
        let row_len = self.dims[self.dims.len() - 1].max(1);
        let lead = &self.dims[..self.dims.len() - 1];
        let chunk = if row_len >= CHUNK { row_len } else { CHUNK / row_len * row_len };
        pool.for_chunks(dst, chunk, |c, piece, _| {
            let first_row = c * chunk / row_len;
            let mut index: SmallVec<[usize; 8]> = SmallVec::from_elem(0, lead.len());
            let mut rest = first_row;
            for a in (0..lead.len()).rev() {
                index[a] = rest % lead[a];
                rest /= lead[a];
            }
            for row in piece.chunks_mut(row_len) {
                let base = index.iter().zip(&self.axes).try_fold(0usize, |base, (&i, axis)| {
                    let p = axis.start + i as isize * axis.step;
                    (p >= 0 && (p as usize) < axis.limit).then(|| base + p as usize * axis.stride)
                });
                match base {
                    Some(base) => self.row(src, base, row, 0),
                    None => row.fill(self.fill),
                }
                crate::ops::window::advance(&mut index, lead);
            }
        });
    }
}

fn accepts(task: &Task) -> Verdict {
    if !matches!(task.kind, Kind::Slice(_) | Kind::Pad { .. } | Kind::Expand | Kind::Transpose(_)) {
        return Err(String::new());
    }
    match Affine::of(task.kind, &task.srcs[0], &task.dsts[0]) {
        Some(_) => Ok(Accept::of(vec![Layout::Plain], Layout::Plain)),
        None => Err("ranks do not fit".into()),
    }
}

fn prepare(task: &Task) -> Result<Box<dyn Prepared>> {
    let affine = Affine::of(task.kind, &task.srcs[0], &task.dsts[0]);
    Ok(Box::new(affine.ok_or_else(|| Error::run("a box that does not fit its source"))?))
}
