//! Convolutions whose weights are computed at every run, as CondConv, ODConv and networks that predict kernels have them: the kernels of
//! [`super::conv_blocked`], packed anew each time. Packing takes a pass over the weights, the reference path one over them per pixel.

use super::conv::{fitting, src_layout};
use super::conv_blocked::{Conv, SrcLayout};
use super::epilogue::Act;
use super::task::{Accept, Entry, Kind, Layout, Prepared, Task, Verdict};
use crate::engine::pool::Pool;
use crate::error::{Error, Result};
use std::sync::{Mutex, PoisonError};

pub(super) const ENTRY: Entry = Entry { name: "conv-computed", accepts, prepare, tolerance: 1e-5 };

struct Ready {
    conv: Mutex<Conv>,
    scale: Option<Vec<f32>>,
    act: Act,
    residual: bool,
    detail: String,
    bytes: usize,
}

fn accepts(task: &Task) -> Verdict {
    let Kind::ConvComputed { geometry, residual, .. } = task.kind else { return Err(String::new()) };
    fitting(geometry)?;
    let src = if src_layout(geometry) == SrcLayout::Plain { Layout::Plain } else { Layout::Blocked };
    let mut srcs = vec![src, Layout::Plain];
    srcs.extend(residual.then_some(Layout::Blocked));
    Ok(Accept::of(srcs, Layout::Blocked))
}

fn prepare(task: &Task) -> Result<Box<dyn Prepared>> {
    let Kind::ConvComputed { geometry, scale, bias, act, residual } = task.kind else {
        return Err(Error::run("not a convolution with computed weights"));
    };
    let shape = fitting(geometry).map_err(Error::run)?;
    let weights = vec![[0; 4]; task.srcs[1].iter().product()];
    let conv = Conv::new(task.isa, shape, src_layout(geometry), &weights, bias.as_deref());
    Ok(Box::new(Ready {
        scale: scale.clone(),
        act: *act,
        residual: *residual,
        detail: format!("{}, packed at every run", conv.algorithm()),
        bytes: conv.packed_bytes(),
        conv: Mutex::new(conv),
    }))
}

impl Prepared for Ready {
    fn run(&self, pool: &Pool, srcs: &[&[f32]], dsts: &mut [&mut [f32]]) {
        let mut conv = self.conv.lock().unwrap_or_else(PoisonError::into_inner);
        conv.repack(pool, srcs[1], self.scale.as_deref());
        conv.run(pool, srcs[0], self.residual.then(|| srcs[2]), self.act, dsts[0]);
    }
    fn detail(&self) -> String {
        self.detail.clone()
    }
    fn packed_bytes(&self) -> usize {
        self.bytes
    }
}
