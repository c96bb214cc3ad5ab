//! ConvTranspose.
//!
//! <https://onnx.ai/onnx/operators/onnx__ConvTranspose.html>. MAdds: `N · Ci · ΠI · ΠK · Co/g`, on the *input* map, products that
//! fall into the cropped border included (`useful_madds` leaves them out). A bias is one other FLOP per output element.

use super::spec::{Attr, NodeSpec};
use super::window::{AutoPad, Window, advance};
use super::{Case, Charge, CostCx, Entry, EvalCx, Family, Infer, Inputs, Op, Role, input, opt, sample};
use crate::cost::{Work, product};
use crate::error::{Error, Result};
use crate::tensor::{Dim, Fact, Num, Shape, Tensor, element_count};
use crate::with_num;

/// The family's table rows.
pub const ENTRIES: &[Entry] = &[Entry { domain: "", name: "ConvTranspose", parse: ConvTranspose::parse, cases }];

/// A transposed convolution over `[n, ic, spatial…]` with weights `[ic, oc/g, kernel…]` and an optional bias `[oc]`.
#[derive(Debug, Clone)]
pub struct ConvTranspose {
    /// Kernel, strides, pads, dilations.
    pub window: Window,
    /// Groups.
    pub group: usize,
    /// Extra size at the end of each axis.
    pub output_padding: Option<Vec<usize>>,
    /// Output sizes from which the pads follow.
    pub output_shape: Option<Vec<usize>>,
}

/// One axis of a transposed convolution, resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Axis {
    /// Kernel size.
    pub k: usize,
    /// Stride.
    pub s: usize,
    /// Dilation.
    pub d: usize,
    /// Positions cropped at the beginning.
    pub begin: usize,
    /// Input size.
    pub i: usize,
    /// Output size.
    pub o: usize,
}

impl Axis {
    /// The output position that input `i` and tap `k` add to, or `None` in the cropped border.
    pub fn position(&self, i: usize, k: usize) -> Option<usize> {
        (i * self.s + k * self.d).checked_sub(self.begin).filter(|&p| p < self.o)
    }
    /// How many (input, tap) pairs fall inside the output.
    pub fn useful_taps(&self) -> u64 {
        (0..self.k)
            .map(|k| {
                // i·s + k·d − begin in [0, o)
                let at = k * self.d;
                let low = self.begin.saturating_sub(at).div_ceil(self.s);
                let high = (self.o + self.begin).saturating_sub(at).div_ceil(self.s).min(self.i);
                high.saturating_sub(low) as u64
            })
            .sum()
    }
}

/// A transposed convolution's geometry, resolved for concrete shapes.
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
    /// MAdds on the whole input map, and those that land in the output.
    pub fn work(&self) -> Option<Work> {
        let per_point = [self.n, self.ic, self.oc / self.g];
        let madds = product(per_point.into_iter().chain(self.axes.iter().flat_map(|a| [a.i, a.k])))?;
        let useful = self.axes.iter().try_fold(product(per_point)?, |n, a| n.checked_mul(a.useful_taps()))?;
        Some(Work { madds, other_flops: 0, useful_madds: useful })
    }
}

impl ConvTranspose {
    fn parse(node: &NodeSpec) -> Result<Op> {
        node.expect_inputs(2, 3)?;
        let group = node.int("group", 1)?;
        let group = usize::try_from(group).ok().filter(|&g| g > 0);
        Ok(Op::ConvTranspose(ConvTranspose {
            window: Window::parse(node)?,
            group: group.ok_or_else(|| Error::input("must be positive").at_attribute("group"))?,
            output_padding: node.opt_sizes("output_padding")?,
            output_shape: node.opt_sizes("output_shape")?,
        }))
    }

    /// The spatial axes; sizes of `input` that are unknown give unknown outputs.
    fn axes(&self, input: &[usize], kernel: &[usize]) -> Result<Vec<Axis>> {
        let rank = kernel.len();
        if input.len() != rank {
            return Err(Error::input(format!("a {rank}-axis kernel over {} spatial axes", input.len())));
        }
        let per_axis = |v: &Option<Vec<usize>>, name: &str| match v {
            None => Ok(None),
            Some(v) if v.len() == rank => Ok(Some(v.clone())),
            // Some exporters write batch and channels too.
            Some(v) if name == "output_shape" && v.len() == rank + 2 => Ok(Some(v[2..].to_vec())),
            Some(v) => Err(Error::input(format!("has {} values where {rank} are needed", v.len())).at_attribute(name)),
        };
        let extra = per_axis(&self.output_padding, "output_padding")?;
        let wanted = per_axis(&self.output_shape, "output_shape")?;
        let mut axes = Vec::with_capacity(rank);
        for (a, (k, s, d, begin, end)) in self.window.axes(kernel)?.into_iter().enumerate() {
            let i = input[a];
            let full = (|| {
                let span = k.checked_sub(1)?.checked_mul(d)?.checked_add(1)?;
                let extra = extra.as_ref().map_or(0, |v| v[a]);
                i.saturating_sub(1).checked_mul(s)?.checked_add(span)?.checked_add(extra)
            })();
            let full = full.ok_or_else(|| Error::input("window sizes that overflow"))?;
            let same = matches!(self.window.auto_pad, AutoPad::SameUpper | AutoPad::SameLower);
            let wanted = match &wanted {
                Some(v) => Some(v[a]),
                None if same => Some(i.checked_mul(s).ok_or_else(|| Error::input("window sizes that overflow"))?),
                None => None,
            };
            let (begin, o) = match wanted {
                Some(o) => {
                    let total = full.saturating_sub(o);
                    let small = total / 2;
                    (if self.window.auto_pad == AutoPad::SameUpper { small } else { total - small }, o)
                }
                None => {
                    let (begin, end) = if self.window.auto_pad == AutoPad::Valid { (0, 0) } else { (begin, end) };
                    let o = full.checked_sub(begin).and_then(|v| v.checked_sub(end)).filter(|&o| o > 0);
                    let o = o.ok_or_else(|| {
                        Error::input(format!("crops {begin} and {end} from an output of {full}")).at_attribute("pads")
                    })?;
                    (begin, o)
                }
            };
            axes.push(Axis { k, s, d, begin, i, o });
        }
        Ok(axes)
    }

    /// The geometry for input dims `x` and weight dims `w`.
    ///
    /// # Errors
    /// If ranks, channels or groups contradict each other.
    pub fn geometry(&self, x: &[usize], w: &[usize]) -> Result<Geometry> {
        check_ranks(x.len(), w.len())?;
        let g = self.group;
        let oc = w[1].checked_mul(g);
        let (Some(oc), true) = (oc, x[1] == w[0] && w[0].is_multiple_of(g)) else {
            return Err(Error::input(format!(
                "input {} and weights {} do not fit with {g} group(s)",
                Shape::known(x),
                Shape::known(w)
            ))
            .at_attribute("group"));
        };
        if let Some(k) = &self.window.kernel
            && k[..] != w[2..]
        {
            return Err(Error::input(format!("says {} but the weights are {}", Shape::known(k), Shape::known(w)))
                .at_attribute("kernel_shape"));
        }
        Ok(Geometry { n: x[0], ic: x[1], oc, g, axes: self.axes(&x[2..], &w[2..])? })
    }
}

fn check_ranks(x: usize, w: usize) -> Result<()> {
    if x < 2 || x != w {
        return Err(Error::input(format!("input of rank {x} and weights of rank {w}")));
    }
    Ok(())
}

impl Family for ConvTranspose {
    fn infer(&self, cx: &Infer) -> Result<Vec<Fact>> {
        let (x, w) = (cx.fact(0)?, cx.fact(1)?);
        let (Some(xd), Some(wd)) = (x.shape.dims(), w.shape.dims()) else {
            return Ok(vec![x.with_shape(Shape::UNKNOWN)]);
        };
        check_ranks(xd.len(), wd.len())?;
        if let (Some(xc), Some(wc)) = (x.shape.concrete(), w.shape.concrete()) {
            return Ok(vec![x.with_shape(self.geometry(&xc, &wc)?.output())]);
        }
        let kernel = self.window.kernel.clone().or_else(|| wd[2..].iter().copied().collect());
        let spatial: Vec<Dim> = match kernel {
            Some(k) => {
                // Axes do not influence each other: unknown ones are replaced by a size that always fits, then masked.
                let stand_in: Vec<usize> = xd[2..].iter().map(|d| d.unwrap_or(1 << 20)).collect();
                let axes = self.axes(&stand_in, &k)?;
                let fixed = self.output_shape.is_some();
                xd[2..].iter().zip(axes).map(|(d, a)| if fixed { Some(a.o) } else { d.map(|_| a.o) }).collect()
            }
            None => vec![None; xd.len() - 2],
        };
        let oc = wd[1].and_then(|c| c.checked_mul(self.group));
        Ok(vec![x.with_shape(Shape::partial([xd[0], oc].into_iter().chain(spatial).collect()))])
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
        if element_count(&g.output())? == 0 {
            return Ok(vec![Tensor::zeros(x.dtype(), &g.output())?]);
        }
        let (positions, taps): (Vec<usize>, Vec<usize>) = g.axes.iter().map(|a| (a.i, a.k)).unzip();
        element_count(&[positions, taps].concat())?;
        let bias = opt(inputs, 2);
        if bias.is_some_and(|b| b.len() != g.oc) {
            return Err(Error::run(format!("the bias needs {} elements", g.oc)));
        }
        with_num!(cx.arith, x.dtype(), T => {
            let bias = bias.map(T::load).transpose()?;
            let y = conv_transpose(&g, &T::load(x)?, &T::load(w)?, bias.as_deref());
            Ok(vec![T::store(y, &g.output())?])
        })
    }

    fn role(&self, i: usize) -> Role {
        if i == 0 { Role::Data } else { Role::Weight }
    }
}

/// `dst[n, o, i·s + k·d − begin] += src[n, c, i] · wei[c, o, k]`, then the bias; products beyond the border are made and dropped.
pub fn conv_transpose<T: Num>(g: &Geometry, src: &[T], wei: &[T], bias: Option<&[T]>) -> Vec<T> {
    let (icg, ocg) = (g.ic / g.g, g.oc / g.g);
    let in_dims: Vec<usize> = g.axes.iter().map(|a| a.i).collect();
    let k_dims: Vec<usize> = g.axes.iter().map(|a| a.k).collect();
    let in_plane: usize = in_dims.iter().product();
    let taps: usize = k_dims.iter().product();
    let out_plane: usize = g.axes.iter().map(|a| a.o).product();
    let mut dst = vec![T::zero(); g.n * g.oc * out_plane];
    // Where the product of input position `i` and tap `k` goes in an output plane; `None` beyond the border.
    let mut writes = Vec::with_capacity(in_plane * taps);
    let mut i = vec![0; in_dims.len()];
    if in_plane * taps > 0 {
        loop {
            let mut k = vec![0; k_dims.len()];
            loop {
                writes.push(
                    g.axes
                        .iter()
                        .enumerate()
                        .try_fold(0usize, |at, (a, axis)| Some(at * axis.o + axis.position(i[a], k[a])?)),
                );
                if !advance(&mut k, &k_dims) {
                    break;
                }
            }
            if !advance(&mut i, &in_dims) {
                break;
            }
        }
    }
    for n in 0..g.n {
        for o in 0..g.oc {
            let dst = &mut dst[(n * g.oc + o) * out_plane..][..out_plane];
            let first = o / ocg * icg;
            for c in first..first + icg {
                let plane = &src[(n * g.ic + c) * in_plane..][..in_plane];
                let row = &wei[(c * ocg + o % ocg) * taps..][..taps];
                for (&x, at) in plane.iter().zip(writes.chunks_exact(taps.max(1))) {
                    for (&w, p) in row.iter().zip(at) {
                        match p {
                            Some(p) => dst[*p] = dst[*p].madd(x, w),
                            None => {
                                T::zero().madd(x, w);
                            }
                        }
                    }
                }
            }
            if let Some(b) = bias {
                dst.iter_mut().for_each(|v| *v = *v + b[o]);
            }
        }
    }
    dst
}

fn cases() -> Vec<Case> {
    let ints = |v: &[i64]| Attr::Ints(v.to_vec());
    let name = |s: &str| Attr::Str(s.into());
    let f = sample::floats;
    let case =
        |attrs: &[(&str, Attr)], x: &[usize], w: &[usize]| Case::new("ConvTranspose", attrs, vec![f(x, 1), f(w, 2)]);
    let two = || ("strides", ints(&[2, 2]));
    vec![
        case(&[], &[2, 3, 3, 4], &[3, 2, 3, 3]),
        case(&[], &[0, 3, 3, 4], &[3, 2, 3, 3]),
        Case::new(
            "ConvTranspose",
            &[two(), ("pads", ints(&[1; 4])), ("output_padding", ints(&[1, 0]))],
            vec![f(&[1, 4, 3, 5], 1), f(&[4, 3, 3, 3], 2), f(&[3], 3)],
        ),
        Case::new(
            "ConvTranspose",
            &[("group", Attr::Int(2)), two()],
            vec![f(&[2, 4, 3, 3], 1), f(&[4, 3, 2, 2], 2), f(&[6], 3)],
        ),
        case(&[two(), ("output_shape", ints(&[7, 8]))], &[1, 1, 3, 3], &[1, 2, 3, 3]),
        case(&[two(), ("output_shape", ints(&[10, 8]))], &[1, 1, 3, 3], &[1, 2, 3, 3]),
        case(&[two(), ("auto_pad", name("SAME_UPPER"))], &[1, 1, 3, 4], &[1, 2, 3, 3]),
        case(&[two(), ("auto_pad", name("SAME_LOWER"))], &[1, 1, 3, 4], &[1, 2, 3, 3]).opset(7),
        case(&[("dilations", ints(&[2])), ("pads", ints(&[0, 2]))], &[1, 2, 5], &[2, 1, 3]),
        case(&[("strides", ints(&[1, 2, 2]))], &[1, 2, 2, 3, 2], &[2, 1, 2, 3, 2]),
    ]
}
