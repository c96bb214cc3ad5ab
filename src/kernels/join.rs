//! Concat and Split: whole runs copied, in either layout.
//!
//! A join along an axis is, for each index before the axis, one run per operand. In the blocked layout a join of channels is the same
//! thing over channel blocks, when every part but the last is a whole number of blocks.

use super::task::{Accept, Entry, Kind, Layout, Prepared, Task, Verdict};
use crate::engine::pool::Pool;
use crate::error::Result;

pub(super) const ENTRY: Entry = Entry { name: "join", accepts, prepare, tolerance: 0.0 };

struct Join {
    /// Values per outer index of each part.
    runs: Vec<usize>,
    /// Where each part starts within the joined row.
    starts: Vec<usize>,
    /// Values per outer index of the joined tensor.
    row: usize,
    split: bool,
}

fn parts<'a>(task: &'a Task) -> Option<(usize, Vec<(usize, usize)>, &'a [usize])> {
    match task.kind {
        Kind::Concat(axis) => {
            let mut at = 0;
            let parts = task
                .srcs
                .iter()
                .map(|s| {
                    let p = (at, s[*axis]);
                    at += s[*axis];
                    p
                })
                .collect();
            Some((*axis, parts, &task.dsts[0]))
        }
        Kind::Split { axis, parts } => Some((*axis, parts.clone(), &task.srcs[0])),
        _ => None,
    }
}

/// Whether every part is a whole number of channel blocks (the last may be ragged if it ends the tensor).
fn blocks_fit(task: &Task, axis: usize, parts: &[(usize, usize)], whole: &[usize]) -> bool {
    let l = task.isa.lanes();
    axis == 1
        && task.srcs.iter().chain(task.dsts).all(|d| d.len() == 4)
        && parts.iter().all(|&(start, len)| start % l == 0 && (len % l == 0 || start + len == whole[1]))
}

fn make(task: &Task, layout: Layout) -> Option<Join> {
    let (axis, parts, whole) = parts(task)?;
    let l = if layout == Layout::Blocked { task.isa.lanes() } else { 1 };
    let inner: usize = whole[axis + 1..].iter().product::<usize>() * l;
    let units = |n: usize| n.div_ceil(l) * inner;
    Some(Join {
        runs: parts.iter().map(|p| units(p.1)).collect(),
        starts: parts.iter().map(|p| p.0 / l * inner).collect(),
        row: units(whole[axis]),
        split: matches!(task.kind, Kind::Split { .. }),
    })
}

fn layout_for(task: &Task, axis: usize, fits: bool) -> Layout {
    let _ = axis;
    if fits && task.layouts.contains(&Layout::Blocked) { Layout::Blocked } else { Layout::Plain }
}

fn accepts(task: &Task) -> Verdict {
    let Some((axis, p, whole)) = parts(task) else { return Err(String::new()) };
    let layout = layout_for(task, axis, blocks_fit(task, axis, &p, whole));
    Ok(Accept::of(vec![layout; task.srcs.len()], layout))
}

fn prepare(task: &Task) -> Result<Box<dyn Prepared>> {
    let accept = accepts(task).map_err(crate::error::Error::run)?;
    let join = make(task, accept.dst).ok_or_else(|| crate::error::Error::run("neither a join nor a split"))?;
    Ok(Box::new(join))
}

/// Destination values per task.
const CHUNK: usize = 1 << 14;

impl Prepared for Join {
    fn run(&self, pool: &Pool, srcs: &[&[f32]], dsts: &mut [&mut [f32]]) {
        if self.split {
            for ((dst, &run), &start) in dsts.iter_mut().zip(&self.runs).zip(&self.starts) {
                let src = srcs[0];
                // Chunks of whole runs, or parts of one run.
                let chunk = (CHUNK / run.max(1)).max(1) * run.max(1);
                pool.for_chunks(dst, chunk, |c, piece, _| {
                    let first = c * chunk / run.max(1);
                    for (k, d) in piece.chunks_mut(run.max(1)).enumerate() {
                        let at = (first + k) * self.row + start;
                        d.copy_from_slice(&src[at..at + d.len()]);
                    }
                });
            }
            return;
        }
        let row = self.row.max(1);
        pool.for_chunks(dsts[0], CHUNK, |c, piece, _| {
            let mut at = c * CHUNK;
            let mut done = 0;
            while done < piece.len() {
                let (outer, offset) = (at / row, at % row);
                // The part this offset lies in: the last that starts at or before it.
                let k = self.starts.partition_point(|&s| s <= offset).saturating_sub(1);
                // Empty parts share a start with their successor; partition_point already skipped them.
                let within = offset - self.starts[k];
                let n = (self.runs[k] - within).min(piece.len() - done);
                let from = outer * self.runs[k] + within;
                piece[done..done + n].copy_from_slice(&srcs[k][from..from + n]);
                done += n;
                at += n;
            }
        });
    }
}
