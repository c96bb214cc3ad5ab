//! Convolution steps: the adapter from tasks to [`super::conv_blocked`].

use super::conv_blocked::{Conv, ConvShape, SrcLayout};
use super::epilogue::Act;
use super::task::{Accept, Entry, Kind, Layout, Prepared, Task, Verdict};
use crate::engine::pool::Pool;
use crate::error::{Error, Result};
use crate::ops::conv::Geometry;

pub(super) const ENTRY: Entry = Entry { name: "conv-nchwc", accepts, prepare, tolerance: 1e-5 };

struct Ready {
    conv: Conv,
    act: Act,
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
fn src_layout(g: &Geometry) -> SrcLayout {
    if g.g == 1 && g.ic <= 4 && g.oc > 1 { SrcLayout::Plain } else { SrcLayout::Blocked }
}

fn accepts(task: &Task) -> Verdict {
    let Kind::Conv { geometry, residual, .. } = task.kind else { return Err(String::new()) };
    let Some(s) = shape(geometry) else { return Err("more than two spatial axes".into()) };
    if (s.oh(), s.ow())
        != (
            geometry.axes.len().checked_sub(2).map_or(1, |i| geometry.axes[i].o),
            geometry.axes[geometry.axes.len() - 1].o,
        )
    {
        return Err("an output size the window does not give (ceil mode)".into());
    }
    let src = if src_layout(geometry) == SrcLayout::Plain { Layout::Plain } else { Layout::Blocked };
    let mut srcs = vec![src];
    if *residual {
        srcs.push(Layout::Blocked);
    }
    Ok(Accept { srcs, dst: Layout::Blocked })
}

fn prepare(task: &Task) -> Result<Box<dyn Prepared>> {
    let Kind::Conv { geometry, weights, bias, act, .. } = task.kind else {
        return Err(Error::run("not a convolution"));
    };
    let shape = shape(geometry).ok_or_else(|| Error::run("more than two spatial axes"))?;
    let conv = Conv::new(task.isa, shape, src_layout(geometry), &weights.view::<f32>()?, bias.as_deref());
    Ok(Box::new(Ready { conv, act: *act }))
}

impl Prepared for Ready {
    fn run(&self, pool: &Pool, srcs: &[&[f32]], dsts: &mut [&mut [f32]]) {
        self.conv.run(pool, srcs[0], srcs.get(1).copied(), self.act, dsts[0]);
    }
    fn packed_bytes(&self) -> usize {
        self.conv.packed_bytes()
    }
}
