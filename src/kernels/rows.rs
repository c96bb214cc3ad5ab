//! Steps over rows and windows: softmax, normalisation, transposition, pooling. Adapters to the files
//! named after the algorithms.

use super::norm::{self, Norm, Normalize};
use super::pool2d::{self, PoolShape, Reduce, Window};
use super::softmax::{self, Softmax};
use super::task::{Accept, Entry, Kind, Layout, Prepared, Task, Verdict};
use super::transpose;
use crate::engine::pool::Pool;
use crate::error::{Error, Result};
use crate::ops::window::Axis;
use crate::simd::Isa;

pub(super) const SOFTMAX: Entry = Entry {
    name: "softmax",
    accepts: |t| plain(t, matches!(t.kind, Kind::Softmax | Kind::SoftmaxOver { .. })),
    prepare,
    tolerance: 1e-5,
};
pub(super) const NORM: Entry = Entry {
    name: "norm",
    accepts: |t| plain(t, matches!(t.kind, Kind::Norm { .. })),
    prepare: prepare_norm,
    tolerance: 1e-5,
};
pub(super) const TRANSPOSE: Entry = Entry {
    name: "transpose",
    accepts: |t| plain(t, matches!(t.kind, Kind::Transpose(_) | Kind::Tokens(_))),
    prepare,
    // Of activations; what only moves is exact.
    tolerance: 1e-5,
};
pub(super) const POOL: Entry = Entry { name: "pool", accepts: accepts_pool, prepare: prepare_pool, tolerance: 1e-6 };
pub(super) const GLOBAL_POOL: Entry =
    Entry { name: "global-pool", accepts: accepts_pool_global, prepare: prepare_pool, tolerance: 1e-5 };

/// Values that one task applies an activation to.
const ACTIVATED: usize = 1 << 14;

fn plain(task: &Task, mine: bool) -> Verdict {
    if mine { Ok(Accept::plain(task)) } else { Err(String::new()) }
}

struct Rows {
    isa: Isa,
    dims: Vec<usize>,
    kind: Kind,
}

fn prepare(task: &Task) -> Result<Box<dyn Prepared>> {
    Ok(Box::new(Rows { isa: task.isa, dims: task.srcs[0].clone(), kind: task.kind.clone() }))
}

impl Prepared for Rows {
    fn run(&self, pool: &Pool, srcs: &[&[f32]], dsts: &mut [&mut [f32]]) {
        let (isa, src, dst) = (self.isa, srcs[0], &mut *dsts[0]);
        match &self.kind {
            Kind::Softmax => {
                softmax::softmax(pool, isa, Softmax::new(self.dims.last().copied().unwrap_or(1)), src, dst)
            }
            Kind::SoftmaxOver { len, inner: 1 } => softmax::softmax(pool, isa, Softmax::new(*len), src, dst),
            Kind::SoftmaxOver { len, inner } => softmax::softmax_over(pool, isa, *len, *inner, src, dst),
            Kind::Transpose(perm) => transpose::permute(pool, isa, &self.dims, perm, src, dst),
            Kind::Tokens(act) => {
                // The axis that stays, the one that goes last, and what is behind it, of tokens and of a map.
                let (n, a) = (self.dims[0], self.dims[1]);
                transpose::permute(pool, isa, &[n, a, self.dims[2..].iter().product()], &[0, 2, 1], src, dst);
                pool.for_chunks(dst, ACTIVATED, |_, part, _| act.apply(isa, part));
            }
            _ => {}
        }
    }
}

// ------------------------------------------------------------------------------------------------------------ normalisation

struct Normal {
    isa: Isa,
    norm: Norm,
    len: usize,
    plane: usize,
    affine: Option<(Vec<f32>, Vec<f32>)>,
}

fn prepare_norm(task: &Task) -> Result<Box<dyn Prepared>> {
    let Kind::Norm { inner, plane, epsilon, rms, scale, shift } = task.kind else {
        return Err(Error::run("not a normalisation"));
    };
    let norm = if *rms { Norm::Rms { eps: *epsilon } } else { Norm::Layer { eps: *epsilon } };
    let affine = match (scale, shift) {
        (None, None) => None,
        (Some(k), None) => Some((k.clone(), vec![0.0; k.len()])),
        (None, Some(b)) => Some((vec![1.0; b.len()], b.clone())),
        (Some(k), Some(b)) => Some((k.clone(), b.clone())),
    };
    Ok(Box::new(Normal { isa: task.isa, norm, len: *inner, plane: *plane, affine }))
}

impl Prepared for Normal {
    fn run(&self, pool: &Pool, srcs: &[&[f32]], dsts: &mut [&mut [f32]]) {
        let affine = self.affine.as_ref().map(|(k, b)| (&k[..], &b[..]));
        let what = Normalize { norm: self.norm, len: self.len, plane: self.plane, affine };
        norm::normalize(pool, self.isa, what, srcs[0], dsts[0]);
    }
}

// ------------------------------------------------------------------------------------------------------------------ pooling

struct Pooling {
    isa: Isa,
    shape: PoolShape,
    window: Window,
    layout: Layout,
    global_mean: bool,
}

fn accepts_pool(task: &Task) -> Verdict {
    let Kind::Pool(w) = task.kind else { return Err(String::new()) };
    if w.average && w.axes.iter().any(|a| a.d != 1) {
        return Err("a dilated average".into());
    }
    Ok(Accept::of(vec![task.layouts[0]], task.layouts[0]))
}

fn accepts_pool_global(task: &Task) -> Verdict {
    match task.kind {
        Kind::GlobalPool { .. } if task.srcs[0].len() == 4 && task.dsts[0].len() == 4 => {
            Ok(Accept::of(vec![task.layouts[0]], task.layouts[0]))
        }
        Kind::GlobalPool { .. } if task.srcs[0].len() >= 2 => Ok(Accept::plain(task)),
        _ => Err(String::new()),
    }
}

fn prepare_pool(task: &Task) -> Result<Box<dyn Prepared>> {
    let x = &task.srcs[0];
    let (axes, reduce, global_mean) = match task.kind {
        Kind::Pool(w) => {
            let reduce = match (w.average, w.include_pad) {
                (false, _) => Reduce::Max,
                (true, false) => Reduce::Mean,
                (true, true) => Reduce::MeanPadded,
            };
            (w.axes, reduce, false)
        }
        Kind::GlobalPool { average } => {
            // All spatial axes as one row, so that any rank is served.
            let whole = |i: usize| Axis { k: i, s: 1, d: 1, begin: 0, end: 0, i, o: 1 };
            ([whole(1), whole(x[2..].iter().product())], if *average { Reduce::Mean } else { Reduce::Max }, *average)
        }
        _ => return Err(Error::run("not a pooling")),
    };
    let [y, w] = axes;
    let shape = PoolShape {
        n: x[0],
        ch: x[1],
        ih: y.i,
        iw: w.i,
        oh: y.o,
        ow: w.o,
        kh: y.k,
        kw: w.k,
        sh: y.s,
        sw: w.s,
        ph: y.begin,
        pw: w.begin,
        ph_end: y.end,
        pw_end: w.end,
        dh: y.d,
        dw: w.d,
    };
    let layout = if task.dsts[0].len() == 4 { task.layouts[0] } else { Layout::Plain };
    let window = Window::new(task.isa, shape, reduce, layout == Layout::Blocked);
    Ok(Box::new(Pooling { isa: task.isa, shape, window, layout, global_mean }))
}

impl Prepared for Pooling {
    fn run(&self, pool: &Pool, srcs: &[&[f32]], dsts: &mut [&mut [f32]]) {
        let (s, isa) = (&self.shape, self.isa);
        match (self.layout, self.global_mean) {
            (Layout::Blocked, true) => {
                pool2d::global_mean_blocked(pool, isa, (s.n, s.ch, s.ih * s.iw), srcs[0], dsts[0])
            }
            (Layout::Plain, true) => pool2d::global_mean_plain(pool, isa, s.ih * s.iw, srcs[0], dsts[0]),
            (_, false) => self.window.run(pool, srcs[0], dsts[0]),
        }
    }
}
