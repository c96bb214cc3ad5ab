//! Changes of layout between NCHW and NCHWc.

use super::task::{Accept, Entry, Kind, Layout, Prepared, Task, Verdict};
use crate::engine::pool::Pool;
use crate::error::{Error, Result};
use crate::simd::Isa;

/// The kernel that the planner inserts where layouts differ.
pub const REORDER: Entry = Entry { name: "reorder", accepts, prepare, tolerance: 0.0 };

struct Reorder {
    to: Layout,
    channels: usize,
    plane: usize,
    images: usize,
    isa: Isa,
}

fn accepts(task: &Task) -> Verdict {
    match task.kind {
        Kind::Reorder { from, to } => Ok(Accept::of(vec![*from], *to)),
        _ => Err(String::new()),
    }
}

fn prepare(task: &Task) -> Result<Box<dyn Prepared>> {
    let (Kind::Reorder { to, .. }, [n, c, rest @ ..]) = (task.kind, task.srcs[0].as_slice()) else {
        return Err(Error::run("not a change of layout"));
    };
    Ok(Box::new(Reorder { to: *to, channels: *c, plane: rest.iter().product(), images: *n, isa: task.isa }))
}

impl Prepared for Reorder {
    fn run(&self, pool: &Pool, srcs: &[&[f32]], dsts: &mut [&mut [f32]]) {
        let size = (self.images, self.channels, self.plane);
        match self.to {
            Layout::Blocked => super::reorder::to_blocked(pool, self.isa, size, srcs[0], dsts[0]),
            Layout::Plain => super::reorder::to_plain(pool, self.isa, size, srcs[0], dsts[0]),
        }
    }
}
