//! Resize of the last two axes from precomputed taps: nearest is one tap of weight 1, linear two, cubic four per axis.
//!
//! Separable: each output row is a weighted sum of input rows, resampled along its columns.

use super::task::{Accept, Entry, Kind, Layout, Prepared, Task, Verdict};
use crate::engine::pool::Pool;
use crate::error::{Error, Result};

pub(super) const ENTRY: Entry = Entry { name: "resize2d", accepts, prepare, tolerance: 1e-5 };

struct Resize {
    rows: Vec<Vec<(usize, f32)>>,
    cols: Vec<Vec<(usize, f32)>>,
    ih: usize,
    iw: usize,
}

fn accepts(task: &Task) -> Verdict {
    match task.kind {
        Kind::Resize { .. } => Ok(Accept::of(vec![Layout::Plain], Layout::Plain)),
        _ => Err(String::new()),
    }
}

fn prepare(task: &Task) -> Result<Box<dyn Prepared>> {
    let (Kind::Resize { rows, cols }, [.., ih, iw]) = (task.kind, task.srcs[0].as_slice()) else {
        return Err(Error::run("not a resize of the last two axes"));
    };
    let inside = |taps: &[Vec<(usize, f32)>], n: usize| taps.iter().flatten().all(|t| t.0 < n);
    if !inside(rows, *ih) || !inside(cols, *iw) {
        return Err(Error::run("a resize that reads outside its input"));
    }
    Ok(Box::new(Resize { rows: rows.clone(), cols: cols.clone(), ih: *ih, iw: *iw }))
}

impl Prepared for Resize {
    fn run(&self, pool: &Pool, srcs: &[&[f32]], dsts: &mut [&mut [f32]]) {
        let (oh, ow) = (self.rows.len(), self.cols.len());
        let src = srcs[0];
        pool.for_chunks(dsts[0], oh * ow, |plane, dst, _| {
            let plane = &src[plane * self.ih * self.iw..][..self.ih * self.iw];
            for (row, taps) in dst.chunks_mut(ow).zip(&self.rows) {
                for (d, cols) in row.iter_mut().zip(&self.cols) {
                    *d = taps
                        .iter()
                        .map(|&(y, wy)| {
                            let line = &plane[y * self.iw..][..self.iw];
                            wy * cols.iter().map(|&(x, wx)| wx * line[x]).sum::<f32>()
                        })
                        .sum();
                }
            }
        });
    }
}
