//! Attention steps: adapter from tasks to [`super::attention`].

use super::attention::{Operands, attention};
use super::task::{Accept, Attention, Entry, Kind, Mask, Prepared, Task, Verdict};
use crate::engine::pool::Pool;
use crate::error::{Error, Result};
use crate::simd::Isa;

pub(super) const ENTRY: Entry = Entry { name: "attention", accepts, prepare, tolerance: 1e-5 };

fn accepts(task: &Task) -> Verdict {
    match task.kind {
        Kind::Attention(_) => Ok(Accept::plain(task)),
        _ => Err(String::new()),
    }
}

struct Prepare {
    isa: Isa,
    task: Attention,
}

fn prepare(task: &Task) -> Result<Box<dyn Prepared>> {
    let Kind::Attention(a) = task.kind else { return Err(Error::run("not an attention")) };
    Ok(Box::new(Prepare { isa: task.isa, task: a.clone() }))
}

impl Prepared for Prepare {
    fn run(&self, pool: &Pool, srcs: &[&[f32]], dsts: &mut [&mut [f32]]) {
        let [q, k, v] = self.task.operands.map(|i| srcs[i]);
        let mask = match &self.task.mask {
            Mask::None => None,
            Mask::Operand(i) => Some(srcs[*i]),
            Mask::Constant(m) => Some(&m[..]),
        };
        attention(pool, self.isa, &self.task.shape, Operands { q, k, v, mask }, dsts[0]);
    }
}
