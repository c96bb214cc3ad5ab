//! Convolution steps: the adapter from tasks to [`super::conv_blocked`].

use super::conv_blocked::{Conv, ConvShape, SrcLayout};
use super::epilogue::Act;
use super::gemm::PackedB;
use super::kept::Source;
use super::strassen::{self, Lay, strassen};
use super::task::{Accept, Entry, Kind, Layout, Prepared, Task, Verdict};
use super::winograd::direct_cost;
use crate::engine::pool::Pool;
use crate::error::{Error, Result};
use crate::ops::conv::Geometry;

pub(super) const ENTRY: Entry = Entry { name: "conv-nchwc", accepts, prepare, tolerance: 1e-5 };

pub(super) const STRASSEN: Entry =
    Entry { name: "conv-strassen", accepts: accepts_strassen, prepare: prepare_strassen, tolerance: 2e-5 };

struct Ready {
    conv: Conv,
    act: Act,
    gate: bool,
    residual: bool,
}

/// The 2-D shape of a convolution over one or two spatial axes.
pub fn shape(g: &Geometry) -> Option<ConvShape> {
    let unit = crate::ops::window::Axis { k: 1, s: 1, d: 1, begin: 0, end: 0, i: 1, o: 1 };
    let (y, x) = match g.axes.as_slice() {
        [x] => (unit, *x),
        [y, x] => (*y, *x),
        _ => return None,
    };
    Some(ConvShape {
        n: g.n,
        ic: g.ic,
        ih: y.i,
        iw: x.i,
        oc: g.oc,
        kh: y.k,
        kw: x.k,
        sh: y.s,
        sw: x.s,
        ph: y.begin,
        pw: x.begin,
        ph_end: y.end,
        pw_end: x.end,
        dh: y.d,
        dw: x.d,
        g: g.g,
    })
}

/// A first layer reads its few channels from the plain image.
pub(super) fn src_layout(g: &Geometry) -> SrcLayout {
    if g.g == 1 && g.ic <= 4 && g.oc > 1 { SrcLayout::Plain } else { SrcLayout::Blocked }
}

/// Whether a convolution can map its input on the way in: pointwise, without padding, one group.
pub fn takes_pre(g: &Geometry) -> bool {
    let plain = |a: &crate::ops::window::Axis| (a.k, a.s, a.begin, a.end) == (1, 1, 0, 0);
    g.g == 1 && src_layout(g) == SrcLayout::Blocked && g.axes.len() == 2 && g.axes.iter().all(plain)
}

/// Whether a convolution can be computed here, with what follows it.
pub fn convolves(g: &Geometry) -> bool {
    fitting(g).is_ok()
}

/// The shape of a convolution that can be computed here, or why it cannot.
pub(super) fn fitting(geometry: &Geometry) -> std::result::Result<ConvShape, String> {
    let Some(s) = shape(geometry) else { return Err("more than two spatial axes".into()) };
    if (s.oh(), s.ow())
        != (
            geometry.axes.len().checked_sub(2).map_or(1, |i| geometry.axes[i].o),
            geometry.axes[geometry.axes.len() - 1].o,
        )
    {
        return Err("an output size the window does not give (ceil mode)".into());
    }
    Ok(s)
}

fn accepts(task: &Task) -> Verdict {
    let Kind::Conv { geometry, residual, pre, .. } = task.kind else { return Err(String::new()) };
    let s = fitting(geometry)?;
    let src = if src_layout(geometry) == SrcLayout::Plain { Layout::Plain } else { Layout::Blocked };
    let mut srcs = vec![src];
    if let Some(pre) = pre {
        if !takes_pre(geometry) {
            return Err("a map of the input of a convolution with a window".into());
        }
        srcs.extend(pre.gate.then_some(Layout::Blocked));
    }
    srcs.extend(residual.then_some(Layout::Blocked));
    Ok(Accept { srcs, dst: Layout::Blocked, cost: direct_cost(&s) })
}

fn prepare(task: &Task) -> Result<Box<dyn Prepared>> {
    let Kind::Conv { geometry, weights, bias, act, pre, residual, share } = task.kind else {
        return Err(Error::run("not a convolution"));
    };
    let shape = shape(geometry).ok_or_else(|| Error::run("more than two spatial axes"))?;
    let (layout, weights) = (src_layout(geometry), Source::of(weights, task.kept())?);
    let mut conv = Conv::sharing(task.isa, shape, layout, weights, bias.as_deref(), share.as_ref());
    if let Some(pre) = pre {
        conv = conv.with_pre(pre.affine.as_ref().map(|(a, b)| (a.as_slice(), b.as_slice())), pre.act);
    }
    let gate = pre.as_ref().is_some_and(|p| p.gate);
    Ok(Box::new(Ready { conv, act: *act, gate, residual: *residual }))
}

impl Prepared for Ready {
    fn run(&self, pool: &Pool, srcs: &[&[f32]], dsts: &mut [&mut [f32]]) {
        let gate = self.gate.then(|| srcs[1]);
        let residual = self.residual.then(|| srcs[srcs.len() - 1]);
        self.conv.run_gated(pool, srcs[0], gate, residual, self.act, dsts[0]);
    }
    fn detail(&self) -> String {
        let (name, isa) = (self.conv.algorithm(), self.conv.isa());
        if name == "depthwise" { name.into() } else { format!("{name} {}x{}", isa.mr(), isa.nr()) }
    }
    fn packed_bytes(&self) -> usize {
        self.conv.packed_bytes()
    }
}

/// Pointwise convolutions at stride 1: products of pixels and weights.
fn accepts_strassen(task: &Task) -> Verdict {
    let Kind::Conv { geometry, residual, pre, share, .. } = task.kind else { return Err(String::new()) };
    if !task.strassen {
        return Err("switched off (--no-strassen)".into());
    }
    let s = fitting(geometry)?;
    if [s.kh, s.kw, s.sh, s.sw, s.g] != [1; 5] || [s.ph, s.pw, s.ph_end, s.pw_end] != [0; 4] {
        return Err("not pointwise at stride 1, or groups".into());
    }
    if pre.is_some() || share.is_some() || src_layout(geometry) == SrcLayout::Plain {
        return Err("a map of the input, shared weights or a first layer".into());
    }
    let cost = strassen::cost(task.isa, task.threads, Lay::Blocks, s.n, [s.ih * s.iw, s.ic, s.oc])?;
    let srcs = vec![Layout::Blocked; if *residual { 2 } else { 1 }];
    Ok(Accept { srcs, dst: Layout::Blocked, cost })
}

struct Strassen {
    shape: ConvShape,
    packed: PackedB,
    bias: Option<Vec<f32>>,
    act: Act,
    residual: bool,
}

fn prepare_strassen(task: &Task) -> Result<Box<dyn Prepared>> {
    let Kind::Conv { geometry, weights, bias, act, residual, .. } = task.kind else {
        return Err(Error::run("not a convolution"));
    };
    let shape = shape(geometry).ok_or_else(|| Error::run("more than two spatial axes"))?;
    let packed = PackedB::of_source(task.isa, shape.ic, shape.oc, true, Source::of(weights, task.kept())?);
    Ok(Box::new(Strassen { shape, packed, bias: bias.clone(), act: *act, residual: *residual }))
}

impl Prepared for Strassen {
    fn run(&self, pool: &Pool, srcs: &[&[f32]], dsts: &mut [&mut [f32]]) {
        let s = &self.shape;
        let residual = self.residual.then(|| srcs[1]);
        let fin = strassen::Finish { bias: self.bias.as_deref(), residual, act: self.act };
        strassen(pool, Lay::Blocks, (s.n, s.ih * s.iw), srcs[0], &self.packed, fin, dsts[0]);
    }
    fn detail(&self) -> String {
        strassen::detail(self.packed.isa())
    }
    fn packed_bytes(&self) -> usize {
        self.packed.packed_bytes()
    }
}
