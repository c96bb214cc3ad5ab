//! Changes of layout between NCHW and NCHWc.

use super::task::{Accept, Entry, Kind, Layout, Prepared, Task, Verdict};
use crate::engine::pool::Pool;
use crate::error::{Error, Result};

/// The kernel that the planner inserts where layouts differ.
pub const REORDER: Entry = Entry { name: "reorder", accepts, prepare, tolerance: 0.0 };

struct Reorder {
    to: Layout,
    channels: usize,
    plane: usize,
    lanes: usize,
}

fn accepts(task: &Task) -> Verdict {
    match task.kind {
        Kind::Reorder { from, to } => Ok(Accept { srcs: vec![*from], dst: *to }),
        _ => Err(String::new()),
    }
}

fn prepare(task: &Task) -> Result<Box<dyn Prepared>> {
    let (Kind::Reorder { to, .. }, [_, c, rest @ ..]) = (task.kind, task.srcs[0].as_slice()) else {
        return Err(Error::run("not a change of layout"));
    };
    Ok(Box::new(Reorder { to: *to, channels: *c, plane: rest.iter().product(), lanes: task.isa.lanes() }))
}

impl Prepared for Reorder {
    fn run(&self, pool: &Pool, srcs: &[&[f32]], dsts: &mut [&mut [f32]]) {
        let (src, l, p) = (srcs[0], self.lanes, self.plane);
        let blocks = self.channels.div_ceil(l);
        match self.to {
            // One chunk is one channel block of one image.
            Layout::Blocked => pool.for_chunks(dsts[0], p * l, |i, block, _| {
                let (n, b) = (i / blocks, i % blocks);
                let here = (self.channels - b * l).min(l);
                let planes = &src[(n * self.channels + b * l) * p..][..here * p];
                for (y, out) in block.chunks_exact_mut(l).enumerate() {
                    for (c, o) in out.iter_mut().enumerate() {
                        *o = if c < here { planes[c * p + y] } else { 0.0 };
                    }
                }
            }),
            // One chunk is one channel.
            Layout::Plain => pool.for_chunks(dsts[0], p, |i, plane, _| {
                let (n, c) = (i / self.channels, i % self.channels);
                let block = &src[(n * blocks + c / l) * p * l..][..p * l];
                for (y, out) in plane.iter_mut().enumerate() {
                    *out = block[y * l + c % l];
                }
            }),
        }
    }
}
