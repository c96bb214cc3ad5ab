//! Elementwise steps: activations, binary operations with broadcasting, per-channel affine maps. Adapters to [`super::eltwise`], and the
//! general broadcast that it does not cover.

use super::eltwise::{self, Binary, Spread};
use super::epilogue::Act;
use super::task::{Accept, BinaryOp, Entry, Kind, Layout, Prepared, Task, Verdict};
use crate::engine::pool::Pool;
use crate::error::{Error, Result};
use crate::simd::{Isa, Simd, SimdOp, dispatch};

pub(super) const UNARY: Entry =
    Entry { name: "activation", accepts: accepts_unary, prepare: prepare_unary, tolerance: 1e-5 };
pub(super) const BINARY: Entry =
    Entry { name: "binary", accepts: accepts_binary, prepare: prepare_binary, tolerance: 1e-6 };
pub(super) const BROADCAST: Entry =
    Entry { name: "broadcast", accepts: accepts_broadcast, prepare: prepare_broadcast, tolerance: 1e-6 };
pub(super) const AFFINE: Entry =
    Entry { name: "channel-affine", accepts: accepts_affine, prepare: prepare_affine, tolerance: 1e-5 };

// -------------------------------------------------------------------------------------------------------------------- unary

struct Unary {
    isa: Isa,
    acts: Vec<Act>,
}

fn accepts_unary(task: &Task) -> Verdict {
    match task.kind {
        Kind::Unary(_) => Ok(Accept::of(vec![task.layouts[0]], task.layouts[0])),
        _ => Err(String::new()),
    }
}

fn prepare_unary(task: &Task) -> Result<Box<dyn Prepared>> {
    let Kind::Unary(acts) = task.kind else { return Err(Error::run("not an activation")) };
    Ok(Box::new(Unary { isa: task.isa, acts: acts.clone() }))
}

impl Prepared for Unary {
    fn run(&self, pool: &Pool, srcs: &[&[f32]], dsts: &mut [&mut [f32]]) {
        let first = self.acts.first().copied().unwrap_or(Act::None);
        eltwise::unary(pool, self.isa, first, srcs[0], dsts[0]);
        for act in self.acts.iter().skip(1) {
            pool.for_chunks(dsts[0], 1 << 14, |_, part, _| act.apply(self.isa, part));
        }
    }
}

// ------------------------------------------------------------------------------------------------------------------- binary

struct Fit {
    spread: Spread,
    /// The second operand is the large one.
    swap: bool,
    layout: Layout,
}

fn fit(task: &Task) -> Option<Fit> {
    let (a, b, out) = (&task.srcs[0], &task.srcs[1], &task.dsts[0]);
    let count = |d: &[usize]| d.iter().product::<usize>();
    let any_blocked = task.layouts.contains(&Layout::Blocked);
    if a == b && a == out {
        return Some(Fit {
            spread: Spread::Same,
            swap: false,
            layout: if any_blocked { Layout::Blocked } else { Layout::Plain },
        });
    }
    for (swap, big, small, big_layout) in [(false, a, b, task.layouts[0]), (true, b, a, task.layouts[1])] {
        if big != out || small.len() > big.len() {
            continue;
        }
        if count(small) == 1 {
            // A blocked scalar would be a block; only plain ones are spread.
            return Some(Fit { spread: Spread::Scalar, swap, layout: big_layout });
        }
        if big_layout == Layout::Blocked
            && big.len() == 4
            && small.len() == 4
            && small[..2] == big[..2]
            && small[2..] == [1, 1]
        {
            return Some(Fit {
                spread: Spread::Block { row: big[2] * big[3] * task.isa.lanes() },
                swap,
                layout: Layout::Blocked,
            });
        }
        let trimmed: &[usize] = &small[small.iter().take_while(|&&d| d == 1).count()..];
        if trimmed.len() <= big.len() && big[big.len() - trimmed.len()..] == *trimmed {
            return Some(Fit { spread: Spread::Row { row: count(trimmed) }, swap, layout: Layout::Plain });
        }
        let small = [vec![1; big.len() - small.len()], small.clone()].concat();
        let tail = small.iter().rev().take_while(|&&d| d == 1).count();
        if small.len() == big.len() && small[..small.len() - tail] == big[..big.len() - tail] {
            return Some(Fit {
                spread: Spread::Outer { row: count(&big[big.len() - tail..]) },
                swap,
                layout: Layout::Plain,
            });
        }
    }
    None
}

fn eltwise_op(op: BinaryOp, swap: bool) -> Option<Binary> {
    Some(match (op, swap) {
        (BinaryOp::Add, _) => Binary::Add,
        (BinaryOp::Mul, _) => Binary::Mul,
        (BinaryOp::Max, _) => Binary::Max,
        (BinaryOp::Min, _) => Binary::Min,
        (BinaryOp::Sub, false) => Binary::Sub,
        (BinaryOp::Sub, true) => Binary::RevSub,
        (BinaryOp::Div, false) => Binary::Div,
        (BinaryOp::Div, true) => Binary::RevDiv,
        (BinaryOp::Pow, _) => return None,
    })
}

fn accepts_binary(task: &Task) -> Verdict {
    let Kind::Binary(op, _) = task.kind else { return Err(String::new()) };
    let fit = fit(task).ok_or("neither operand has the result's shape, or the other is no row or column of it")?;
    eltwise_op(*op, fit.swap).ok_or("no vector form")?;
    let small = if fit.spread == Spread::Scalar { Layout::Plain } else { fit.layout };
    let srcs = if fit.swap { vec![small, fit.layout] } else { vec![fit.layout, small] };
    Ok(Accept::of(srcs, fit.layout))
}

struct Spreading {
    isa: Isa,
    op: Binary,
    spread: Spread,
    swap: bool,
    act: Act,
}

fn prepare_binary(task: &Task) -> Result<Box<dyn Prepared>> {
    let Kind::Binary(op, act) = task.kind else { return Err(Error::run("not a binary operation")) };
    let fit = fit(task).ok_or_else(|| Error::run("shapes that do not fit"))?;
    let vector = eltwise_op(*op, fit.swap).ok_or_else(|| Error::run("no vector form"))?;
    Ok(Box::new(Spreading { isa: task.isa, op: vector, spread: fit.spread, swap: fit.swap, act: *act }))
}

impl Prepared for Spreading {
    fn run(&self, pool: &Pool, srcs: &[&[f32]], dsts: &mut [&mut [f32]]) {
        let (a, b) = if self.swap { (srcs[1], srcs[0]) } else { (srcs[0], srcs[1]) };
        eltwise::binary(pool, self.isa, self.op, self.spread, self.act, a, b, dsts[0]);
    }
}

// --------------------------------------------------------------------------------------------------------- general broadcast

struct Broadcast {
    isa: Isa,
    op: BinaryOp,
    act: Act,
    /// Result axes, at least one: length and the strides of both operands, 0 where they are spread. Axes that both operands run
    /// through without a gap, or along which both are spread alike, are one.
    axes: Vec<(usize, [usize; 2])>,
}

fn accepts_broadcast(task: &Task) -> Verdict {
    match task.kind {
        Kind::Binary(..) => Ok(Accept::plain(task)),
        _ => Err(String::new()),
    }
}

fn prepare_broadcast(task: &Task) -> Result<Box<dyn Prepared>> {
    let Kind::Binary(op, act) = task.kind else { return Err(Error::run("not a binary operation")) };
    let out = if task.dsts[0].is_empty() { vec![1] } else { task.dsts[0].clone() };
    let strides = |own: &[usize]| {
        let lead = out.len() - own.len();
        let mut s = vec![0; out.len()];
        let mut at = 1;
        for a in (0..own.len()).rev() {
            s[lead + a] = if own[a] == 1 { 0 } else { at };
            at *= own[a];
        }
        s
    };
    let (sa, sb) = (strides(&task.srcs[0]), strides(&task.srcs[1]));
    let mut axes: Vec<(usize, [usize; 2])> = Vec::new();
    for (i, &len) in out.iter().enumerate().filter(|(_, len)| **len != 1) {
        let by = [sa[i], sb[i]];
        match axes.last_mut() {
            Some((l, b)) if *b == [len * by[0], len * by[1]] => (*l, *b) = (*l * len, by),
            _ => axes.push((len, by)),
        }
    }
    if axes.is_empty() {
        axes.push((1, [0, 0]));
    }
    Ok(Box::new(Broadcast { isa: task.isa, op: *op, act: *act, axes }))
}

impl Prepared for Broadcast {
    fn run(&self, pool: &Pool, srcs: &[&[f32]], dsts: &mut [&mut [f32]]) {
        if let Some(op) = eltwise_op(self.op, false) {
            eltwise::broadcast(pool, self.isa, op, &self.axes, self.act, srcs[0], srcs[1], dsts[0]);
            return;
        }
        // A power has no vector form.
        let last = self.axes.len() - 1;
        let (row, by) = self.axes[last];
        let rows = ((1 << 13) / row.max(1)).max(1);
        pool.for_chunks(dsts[0], (rows * row).max(1), |c, part, _| {
            for (r, y) in part.chunks_mut(row).enumerate() {
                let (mut rest, mut at) = (c * rows + r, [0, 0]);
                for (len, by) in self.axes[..last].iter().rev() {
                    at = [at[0] + rest % len * by[0], at[1] + rest % len * by[1]];
                    rest /= len;
                }
                for (i, y) in y.iter_mut().enumerate() {
                    *y = srcs[0][at[0] + i * by[0]].powf(srcs[1][at[1] + i * by[1]]);
                }
            }
            self.act.apply(self.isa, part);
        });
    }
}

// ------------------------------------------------------------------------------------------------------------ channel affine

struct ChannelAffine {
    isa: Isa,
    /// Values next to each other of one channel, or of one channel block.
    plane: usize,
    /// Channels that take turns from value to value: a block's, all of them, or one.
    width: usize,
    /// Planes after which the channels come again.
    blocks: usize,
    scale: Vec<f32>,
    shift: Vec<f32>,
    act: Act,
}

fn accepts_affine(task: &Task) -> Verdict {
    match task.kind {
        Kind::ChannelAffine { .. } if task.srcs[0].len() >= 2 => Ok(Accept::of(vec![task.layouts[0]], task.layouts[0])),
        Kind::ChannelAffine { .. } => Err("no channel axis".into()),
        _ => Err(String::new()),
    }
}

fn prepare_affine(task: &Task) -> Result<Box<dyn Prepared>> {
    let Kind::ChannelAffine { scale, shift, act } = task.kind else { return Err(Error::run("not an affine map")) };
    let pixels: usize = task.srcs[0][2..].iter().product();
    // Where the channel is the last axis, all of them are one row.
    let width = match task.layouts[0] {
        Layout::Blocked => task.isa.lanes(),
        Layout::Plain if pixels == 1 => scale.len().max(1),
        Layout::Plain => 1,
    };
    let blocks = scale.len().div_ceil(width);
    let padded = |v: &[f32]| {
        let mut v = v.to_vec();
        v.resize(blocks * width, 0.0);
        v
    };
    let (scale, shift) = (padded(scale), padded(shift));
    Ok(Box::new(ChannelAffine { isa: task.isa, plane: pixels * width, width, blocks, scale, shift, act: *act }))
}

/// Values per task, about.
const AFFINE_TASK: usize = 1 << 13;

impl Prepared for ChannelAffine {
    fn run(&self, pool: &Pool, srcs: &[&[f32]], dsts: &mut [&mut [f32]]) {
        let planes = (AFFINE_TASK / self.plane.max(1)).max(1);
        let chunk = planes * self.plane;
        pool.for_chunks(dsts[0], chunk.max(1), |i, part, _| {
            let x = &srcs[0][i * chunk..][..part.len()];
            dispatch(self.isa, Planes { map: self, first: i * planes, x, y: part });
            self.act.apply(self.isa, part);
        });
    }
}

/// Whole planes, from number `first` on.
struct Planes<'a> {
    map: &'a ChannelAffine,
    first: usize,
    x: &'a [f32],
    y: &'a mut [f32],
}

impl SimdOp for Planes<'_> {
    type Out = ();
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let Planes { map, first, x, y } = self;
        let (l, w, plane) = (S::LANES, map.width, map.plane);
        for (i, (y, x)) in y.chunks_exact_mut(plane).zip(x.chunks_exact(plane)).enumerate() {
            let c = (first + i) % map.blocks * w;
            let (scale, shift) = (&map.scale[c..c + w], &map.shift[c..c + w]);
            let whole = plane / l * l;
            let (y, y_rest) = y.split_at_mut(whole);
            let vectors = y.chunks_exact_mut(l).zip(x.chunks_exact(l));
            if w == 1 || w == l {
                let (k, b) =
                    if w == l { (s.load(scale), s.load(shift)) } else { (s.splat(scale[0]), s.splat(shift[0])) };
                for (y, x) in vectors {
                    s.store(y, s.fma(s.load(x), k, b));
                }
                if !y_rest.is_empty() {
                    s.store_tail(y_rest, s.fma(s.load_tail(&x[whole..]), k, b));
                }
                continue;
            }
            // A row of all channels: w = plane.
            for ((y, x), (k, b)) in vectors.zip(scale.chunks_exact(l).zip(shift.chunks_exact(l))) {
                s.store(y, s.fma(s.load(x), s.load(k), s.load(b)));
            }
            if !y_rest.is_empty() {
                let tail = |v: &[f32]| s.load_tail(&v[whole..]);
                s.store_tail(y_rest, s.fma(tail(x), tail(scale), tail(shift)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::{blocked, close, guarded, isas, plain, values};

    #[test]
    fn affine_maps_of_channels() {
        for (n, ch, px) in [(3, 5, 1), (40, 8, 1), (7, 384, 1), (2, 33, 1), (2, 3, 7), (1, 20, 49), (2, 9, 10_000)] {
            let (x, scale, shift) = (values(n * ch * px, 1), values(ch, 2), values(ch, 3));
            let want: Vec<f32> = (0..x.len())
                .map(|i| {
                    let c = i / px % ch;
                    (x[i] as f64 * scale[c] as f64 + shift[c] as f64).max(0.0) as f32
                })
                .collect();
            let kind = Kind::ChannelAffine { scale, shift, act: Act::Relu };
            for isa in isas() {
                for layout in [Layout::Plain, Layout::Blocked] {
                    let dims = if layout == Layout::Blocked || px > 1 { vec![n, ch, px, 1] } else { vec![n, ch] };
                    let task = Task {
                        kind: &kind,
                        srcs: std::slice::from_ref(&dims),
                        layouts: &[layout],
                        dsts: std::slice::from_ref(&dims),
                        isa,
                        threads: 2,
                        winograd: true,
                        strassen: true,
                        packs: None,
                    };
                    let made = prepare_affine(&task).expect("an affine map");
                    let run = |src: &[f32]| guarded(src.len(), |d| made.run(&Pool::new(2), &[src], &mut [d]));
                    let got = match layout {
                        Layout::Plain => run(&x),
                        Layout::Blocked => {
                            let src = blocked(&x, n, ch, px, isa.lanes(), 0.5);
                            plain(&run(&src), n, ch, px, isa.lanes())
                        }
                    };
                    close(&got, &want, 1e-6, &format!("{isa} {layout:?} {n}x{ch}x{px}"));
                }
            }
        }
    }
}
