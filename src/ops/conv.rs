//! Conv.
//!
//! <https://onnx.ai/onnx/operators/onnx__Conv.html>. MAdds: `N · Co · ΠO · ΠK · Ci/g`, padded windows in full (`useful_madds`
//! leaves the padding out). A bias is one other FLOP per output element.

use super::elements::reserved;
use super::spec::{Attr, NodeSpec};
use super::window::{Axis, Window, advance};
use super::{Case, Charge, CostCx, Entry, EvalCx, Family, Infer, Inputs, Op, Role, input, opt, sample};
use crate::cost::{Work, product};
use crate::error::{Error, Result};
use crate::tensor::{Fact, Num, Shape, Tensor, element_count};
use crate::with_num;

/// The family's table rows.
pub const ENTRIES: &[Entry] = &[Entry { domain: "", name: "Conv", parse: Conv::parse, cases }];

/// A convolution over `[n, ic, spatial…]` with weights `[oc, ic/g, kernel…]` and an optional bias `[oc]`.
#[derive(Debug, Clone)]
pub struct Conv {
    /// Kernel, strides, pads, dilations.
    pub window: Window,
    /// Groups.
    pub group: usize,
}

/// A convolution's geometry, resolved for concrete shapes.
#[derive(Debug, Clone)]
pub struct Geometry {
    /// Batch.
    pub n: usize,
    /// Input channels.
    pub ic: usize,
    /// Output channels.
    pub oc: usize,
    /// Groups.
    pub g: usize,
    /// Spatial axes.
    pub axes: Vec<Axis>,
}

impl Geometry {
    /// Output dims `[n, oc, spatial…]`.
    pub fn output(&self) -> Vec<usize> {
        [self.n, self.oc].into_iter().chain(self.axes.iter().map(|a| a.o)).collect()
    }
    /// The same convolution without taps that meet only padding, as wide dilations of small maps have them, and the taps that are left
    /// of each axis; `None` where all are needed.
    pub fn cropped(&self) -> Option<(Geometry, Vec<std::ops::Range<usize>>)> {
        // Few taps hang over an edge for all outputs unless the window is as large as the map.
        if self.axes.iter().all(|a| (a.k - 1) * a.d < a.i) {
            return None;
        }
        let (axes, left): (Vec<Axis>, Vec<_>) = self.axes.iter().map(Axis::cropped).unzip();
        (axes != self.axes).then(|| (Geometry { axes, ..self.clone() }, left))
    }
    /// MAdds with padded windows in full, and without the padding.
    pub fn work(&self) -> Option<Work> {
        let per_point = [self.n, self.oc, self.ic / self.g];
        let madds = product(per_point.into_iter().chain(self.axes.iter().flat_map(|a| [a.o, a.k])))?;
        let useful = self.axes.iter().try_fold(product(per_point)?, |n, a| n.checked_mul(a.useful_taps()))?;
        Some(Work { madds, other_flops: 0, useful_madds: useful })
    }
}

impl Conv {
    fn parse(node: &NodeSpec) -> Result<Op> {
        node.expect_inputs(2, 3)?;
        let group = node.int("group", 1)?;
        let group = usize::try_from(group).ok().filter(|&g| g > 0);
        let group = group.ok_or_else(|| Error::input("must be positive").at_attribute("group"))?;
        Ok(Op::Conv(Conv { window: Window::parse(node)?, group }))
    }

    /// The geometry for input dims `x` and weight dims `w`.
    ///
    /// # Errors
    /// If ranks, channels or groups contradict each other.
    pub fn geometry(&self, x: &[usize], w: &[usize]) -> Result<Geometry> {
        self.check(x.len(), w.len())?;
        let g = self.group;
        if w[1].checked_mul(g) != Some(x[1]) || !w[0].is_multiple_of(g) {
            return Err(Error::input(format!(
                "input {} and weights {} do not fit with {g} group(s)",
                Shape::known(x),
                Shape::known(w)
            ))
            .at_attribute("group"));
        }
        if let Some(k) = &self.window.kernel
            && k[..] != w[2..]
        {
            return Err(Error::input(format!("says {} but the weights are {}", Shape::known(k), Shape::known(w)))
                .at_attribute("kernel_shape"));
        }
        Ok(Geometry { n: x[0], ic: x[1], oc: w[0], g, axes: self.window.resolve(&x[2..], &w[2..])? })
    }

    fn check(&self, x_rank: usize, w_rank: usize) -> Result<()> {
        if x_rank < 2 || x_rank != w_rank {
            return Err(Error::input(format!("input of rank {x_rank} and weights of rank {w_rank}")));
        }
        Ok(())
    }
}

impl Family for Conv {
    fn infer(&self, cx: &Infer) -> Result<Vec<Fact>> {
        let (x, w) = (cx.fact(0)?, cx.fact(1)?);
        let (Some(xd), Some(wd)) = (x.shape.dims(), w.shape.dims()) else {
            return Ok(vec![x.with_shape(Shape::UNKNOWN)]);
        };
        self.check(xd.len(), wd.len())?;
        if let (Some(xc), Some(wc)) = (x.shape.concrete(), w.shape.concrete()) {
            return Ok(vec![x.with_shape(self.geometry(&xc, &wc)?.output())]);
        }
        let kernel = self.window.kernel.clone().or_else(|| wd[2..].iter().copied().collect());
        let spatial = match kernel {
            Some(k) => self.window.output_dims(&xd[2..], &k)?,
            None => vec![None; xd.len() - 2],
        };
        Ok(vec![x.with_shape(Shape::partial([xd[0], wd[0]].into_iter().chain(spatial).collect()))])
    }

    fn charge(&self, cx: &CostCx) -> Charge {
        Charge::of((|| {
            let g = self.geometry(&cx.dims(0)?, &cx.dims(1)?).ok()?;
            let bias = if cx.has(2) { cx.out_elements(0)? } else { 0 };
            Some(g.work()?.and_other(bias))
        })())
    }

    fn eval(&self, cx: &EvalCx, inputs: &Inputs) -> Result<Vec<Tensor>> {
        let (x, w) = (input(inputs, 0)?, input(inputs, 1)?);
        let g = self.geometry(x.dims(), w.dims())?;
        with_num!(cx.arith, x.dtype(), T => {
            let bias = opt(inputs, 2).map(T::load).transpose()?;
            // Refused here rather than aborted in the kernel when memory cannot hold the result.
            drop(reserved::<T>(element_count(&g.output())?)?);
            let y = conv(&g, &T::load(x)?, &T::load(w)?, bias.as_deref());
            Ok(vec![T::store(y, &g.output())?])
        })
    }

    fn role(&self, i: usize) -> Role {
        if i == 0 { Role::Data } else { Role::Weight }
    }
}

/// `dst[n, o, y…] = Σ_c Σ_k src[n, c, y·s + k·d − p] · wei[o, c, k] + bias[o]`; positions in the padding read as zero and are
/// multiplied like any other.
///
/// Tap by tap over whole output rows, so that the innermost loop runs along both maps.
pub fn conv<T: Num>(g: &Geometry, src: &[T], wei: &[T], bias: Option<&[T]>) -> Vec<T> {
    let (icg, ocg) = (g.ic / g.g, g.oc / g.g);
    let unit = Axis { k: 1, s: 1, d: 1, begin: 0, end: 0, i: 1, o: 1 };
    let (outer, inner) = match g.axes.split_last() {
        Some((last, rest)) => (rest, *last),
        None => (&[][..], unit),
    };
    let in_plane: usize = g.axes.iter().map(|a| a.i).product();
    let out_plane: usize = g.axes.iter().map(|a| a.o).product();
    let rows = row_starts(outer, inner.i);
    let taps = rows.len() * inner.k;
    let mut dst = vec![T::zero(); g.n * g.oc * out_plane];
    if out_plane == 0 {
        return dst;
    }
    for (i, plane) in dst.chunks_exact_mut(out_plane).enumerate() {
        let (n, o) = (i / g.oc, i % g.oc);
        for c in 0..icg {
            let x = &src[(n * g.ic + o / ocg * icg + c) * in_plane..][..in_plane];
            let w = &wei[(o * icg + c) * taps..][..taps];
            for (t, &w) in w.iter().enumerate() {
                for (row, start) in plane.chunks_exact_mut(inner.o).zip(&rows[t / inner.k]) {
                    add_row(row, start.map(|s| &x[s..s + inner.i]), w, &inner, t % inner.k);
                }
            }
        }
        if let Some(b) = bias {
            plane.iter_mut().for_each(|y| *y = *y + b[o]);
        }
    }
    dst
}

/// For every tap of the outer axes and every output row: where the input row starts, `None` in the padding.
fn row_starts(outer: &[Axis], row: usize) -> Vec<Vec<Option<usize>>> {
    let out_dims: Vec<usize> = outer.iter().map(|a| a.o).collect();
    let k_dims: Vec<usize> = outer.iter().map(|a| a.k).collect();
    let mut all = Vec::new();
    let mut k = vec![0; outer.len()];
    loop {
        let mut starts = Vec::new();
        let mut y = vec![0; outer.len()];
        loop {
            let mut at = outer.iter().enumerate();
            let at = at.try_fold(0usize, |at, (a, axis)| Some(at * axis.i + axis.position(y[a], k[a])?));
            starts.push(at.map(|at| at * row));
            if !advance(&mut y, &out_dims) {
                break;
            }
        }
        all.push(starts);
        if !advance(&mut k, &k_dims) {
            return all;
        }
    }
}

/// `dst[y] += src[y·s + k·d − p] · w` along a row; all padding where there is no source row.
#[allow(clippy::needless_range_loop)] // short rows, many of them: setting up a zip would cost as much as the row
fn add_row<T: Num>(dst: &mut [T], src: Option<&[T]>, w: T, axis: &Axis, k: usize) {
    let pad = |dst: &mut [T]| dst.iter_mut().for_each(|d| *d = d.madd(T::zero(), w));
    let Some(src) = src else { return pad(dst) };
    let first = axis.begin.saturating_sub(k * axis.d).div_ceil(axis.s).min(axis.o);
    let end = (axis.i + axis.begin).saturating_sub(k * axis.d).div_ceil(axis.s).clamp(first, axis.o);
    pad(&mut dst[..first]);
    if first < end {
        let src = &src[first * axis.s + k * axis.d - axis.begin..];
        let inside = &mut dst[first..end];
        if axis.s == 1 {
            let src = &src[..inside.len()];
            for i in 0..inside.len() {
                inside[i] = inside[i].madd(src[i], w);
            }
        } else {
            for (i, d) in inside.iter_mut().enumerate() {
                *d = d.madd(src[i * axis.s], w);
            }
        }
    }
    pad(&mut dst[end..]);
}

fn cases() -> Vec<Case> {
    let ints = |v: &[i64]| Attr::Ints(v.to_vec());
    let f = sample::floats;
    vec![
        Case::new("Conv", &[("pads", ints(&[1, 1, 1, 1]))], vec![f(&[2, 3, 5, 6], 1), f(&[4, 3, 3, 3], 2), f(&[4], 3)]),
        Case::new("Conv", &[("strides", ints(&[2, 1])), ("dilations", ints(&[1, 2]))], vec![f(&[1, 2, 7, 8], 1), f(&[3, 2, 3, 2], 2)]),
        Case::new("Conv", &[("group", Attr::Int(4)), ("pads", ints(&[0, 1, 1, 2]))], vec![f(&[1, 4, 5, 5], 1), f(&[8, 1, 3, 3], 2), f(&[8], 5)]),
        Case::new("Conv", &[("auto_pad", Attr::Str("SAME_LOWER".into())), ("strides", ints(&[2]))], vec![f(&[1, 3, 8], 1), f(&[2, 3, 3], 2)]),
        // Taps that meet only padding: all but the middle row, one column of three.
        Case::new("Conv", &[("pads", ints(&[6, 4, 6, 6])), ("dilations", ints(&[6, 4]))], vec![f(&[1, 9, 5, 4], 1), f(&[10, 9, 3, 3], 2), f(&[10], 3)]),
        Case::new("Conv", &[("pads", ints(&[1; 4]))], vec![f(&[2, 8, 1, 1], 1), f(&[9, 8, 3, 3], 2)]),
        Case::new("Conv", &[("pads", ints(&[1; 6]))], vec![f(&[1, 2, 3, 4, 3], 1), f(&[2, 2, 2, 2, 2], 2)]),
    ]
}

