//! MaxPool, AveragePool, LpPool, their global forms, and MaxUnpool.
//!
//! <https://onnx.ai/onnx/operators/onnx__MaxPool.html>, <https://onnx.ai/onnx/operators/onnx__AveragePool.html>,
//! <https://onnx.ai/onnx/operators/onnx__LpPool.html>, <https://onnx.ai/onnx/operators/onnx__MaxUnpool.html>.
//!
//! Other FLOPs per output, padded windows in full (`ΠK` is the whole map for global pools): maximum `ΠK − 1` comparisons; average
//! `ΠK` (`ΠK − 1` additions and a division); Lp `2·ΠK` (a power per tap, `ΠK − 1` additions, a root). Integers are free.

use super::matmul::from_ints;
use super::spec::{Attr, NodeSpec};
use super::window::{Axis, Window, advance};
use super::{Case, Charge, CostCx, Entry, EvalCx, Family, Infer, Inputs, Op, Role, input, opt, sample};
use crate::cost::{Work, product};
use crate::error::{Error, Result};
use crate::tensor::{DType, Fact, Num, Shape, Tensor, element_count, is_num};
use crate::with_num;

/// The family's table rows.
pub const ENTRIES: &[Entry] = &[
    Entry { domain: "", name: "MaxPool", parse: Pool::parse, cases },
    Entry { domain: "", name: "AveragePool", parse: Pool::parse, cases },
    Entry { domain: "", name: "LpPool", parse: Pool::parse, cases },
    Entry { domain: "", name: "GlobalMaxPool", parse: Pool::parse, cases },
    Entry { domain: "", name: "GlobalAveragePool", parse: Pool::parse, cases },
    Entry { domain: "", name: "GlobalLpPool", parse: Pool::parse, cases },
    Entry { domain: "", name: "MaxUnpool", parse: Pool::parse, cases },
];

/// How a window becomes one number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Its largest element; optionally with the element's flat index.
    Max {
        /// Indices count columns first.
        column_major: bool,
    },
    /// Its mean.
    Average {
        /// The divisor counts padding too.
        include_pad: bool,
    },
    /// Its Lp norm.
    Lp {
        /// The order of the norm.
        p: f64,
    },
    /// The inverse of `Max`: elements go back to the indices they came from.
    Unpool,
}

/// A pooling over `[n, c, spatial…]`.
#[derive(Debug, Clone)]
pub struct Pool {
    /// How a window is reduced.
    pub kind: Kind,
    /// The window; `None` pools the whole map.
    pub window: Option<Window>,
}

impl Pool {
    fn parse(node: &NodeSpec) -> Result<Op> {
        let global = node.op_type.starts_with("Global");
        let kind = match node.op_type.trim_start_matches("Global") {
            "MaxPool" => {
                let order = node.int("storage_order", 0)?;
                if !(0..=1).contains(&order) {
                    return Err(Error::input("must be 0 or 1").at_attribute("storage_order"));
                }
                Kind::Max { column_major: order == 1 }
            }
            "AveragePool" => Kind::Average { include_pad: node.flag("count_include_pad", false)? },
            "MaxUnpool" => Kind::Unpool,
            _ => {
                let p = f64::from(node.float("p", 2.0)?);
                if p <= 0.0 || !p.is_finite() {
                    return Err(Error::input("must be positive").at_attribute("p"));
                }
                Kind::Lp { p }
            }
        };
        if kind == Kind::Unpool {
            node.expect_inputs(2, 3)?;
        } else {
            node.expect_inputs(1, 1)?;
        }
        let window = if global { None } else { Some(Window::parse(node)?) };
        if window.as_ref().is_some_and(|w| w.kernel.is_none()) {
            return Err(Error::input("is required").at_attribute("kernel_shape"));
        }
        Ok(Op::Pool(Pool { kind, window }))
    }

    fn kernel(&self) -> &[usize] {
        self.window.as_ref().and_then(|w| w.kernel.as_deref()).unwrap_or_default()
    }

    /// The spatial axes for input dims `x`.
    ///
    /// # Errors
    /// If the rank does not fit, or a window is larger than the padded input.
    pub fn axes(&self, x: &[usize]) -> Result<Vec<Axis>> {
        if x.len() < 2 {
            return Err(Error::input(format!("pooling needs [n, c, spatial…], not rank {}", x.len())));
        }
        match &self.window {
            Some(w) => w.resolve(&x[2..], self.kernel()),
            None => Ok(x[2..].iter().map(|&i| Axis { k: i, s: 1, d: 1, begin: 0, end: 0, i, o: 1 }).collect()),
        }
    }

    /// Output sizes of MaxUnpool when none are given: `(I − 1)·s + k − pads`.
    fn unpooled(&self, x: &[usize]) -> Result<Vec<usize>> {
        let kernel = self.kernel();
        let Some(w) = self.window.as_ref().filter(|_| x.len() == kernel.len() + 2) else {
            return Err(Error::input(format!("a {}-axis window over rank {}", kernel.len(), x.len()))
                .at_attribute("kernel_shape"));
        };
        let sizes = x[2..].iter().zip(w.axes(kernel)?).map(|(&i, (k, s, _, begin, end))| {
            let full = i.checked_sub(1)?.checked_mul(s)?.checked_add(k)?;
            full.checked_sub(begin)?.checked_sub(end)
        });
        let sizes: Option<Vec<usize>> = sizes.collect();
        let sizes = sizes.ok_or_else(|| Error::input("sizes that vanish or overflow").at_attribute("pads"))?;
        Ok(x[..2].iter().copied().chain(sizes).collect())
    }

    fn flops_per_output(&self, axes: &[Axis]) -> Option<u64> {
        let taps = product(axes.iter().map(|a| a.k))?;
        match self.kind {
            Kind::Max { .. } => Some(taps.saturating_sub(1)),
            Kind::Average { .. } => Some(taps.max(1)),
            Kind::Lp { .. } => taps.max(1).checked_mul(2),
            Kind::Unpool => Some(0),
        }
    }

    fn eval_unpool(&self, inputs: &Inputs) -> Result<Vec<Tensor>> {
        let (x, at) = (input(inputs, 0)?, input(inputs, 1)?.to_i64s()?);
        let own = self.unpooled(x.dims())?;
        let dims = match opt(inputs, 2) {
            None => own.clone(),
            Some(t) => t
                .to_i64s()?
                .into_iter()
                .map(|d| usize::try_from(d).map_err(|_| Error::run(format!("{d} is not a size"))))
                .collect::<Result<_>>()?,
        };
        if dims.len() != own.len() || at.len() != x.len() {
            return Err(Error::run("the output shape or the indices do not fit the input"));
        }
        // Indices count in the map that was pooled; a larger output keeps their coordinates.
        let (values, n) = (x.to_f64s()?, element_count(&dims)?);
        let mut y = vec![0.0; n];
        for (v, flat) in values.into_iter().zip(at) {
            let wrong = || Error::run(format!("index {flat} is outside the output"));
            let mut rest = usize::try_from(flat).map_err(|_| wrong())?;
            let (mut place, mut step) = (0, 1);
            for (&o, &d) in own.iter().zip(&dims).rev() {
                let c = if o == 0 { 0 } else { rest % o };
                rest = rest.checked_div(o).unwrap_or(0);
                if c >= d {
                    return Err(wrong());
                }
                place += c * step;
                step *= d;
            }
            *y.get_mut(place).filter(|_| rest == 0).ok_or_else(wrong)? = v;
        }
        Ok(vec![match x.dtype() {
            DType::F32 => Tensor::from_vec(y.into_iter().map(|v| v as f32).collect::<Vec<_>>(), &dims)?,
            DType::F64 => Tensor::from_vec(y, &dims)?,
            other => from_ints(other, &y.into_iter().map(|v| v as i64).collect::<Vec<_>>(), &dims)?,
        }])
    }
}

impl Family for Pool {
    fn infer(&self, cx: &Infer) -> Result<Vec<Fact>> {
        let x = cx.fact(0)?;
        let Some(dims) = x.shape.dims() else {
            return Ok(vec![x.clone(), x.with_dtype(DType::I64)].into_iter().take(cx.outputs.max(1)).collect());
        };
        if dims.len() < 2 {
            return Err(Error::input(format!("pooling needs [n, c, spatial…], not rank {}", dims.len())));
        }
        let shape = if self.kind == Kind::Unpool {
            match (cx.opt(2), cx.ints(2)?) {
                (Some(_), Some(v)) => Shape::partial(v.into_iter().map(|d| usize::try_from(d).ok()).collect()),
                (Some(_), None) => Shape::of_rank(dims.len()),
                (None, _) => match x.shape.concrete() {
                    Some(d) => self.unpooled(&d)?.into(),
                    None => Shape::of_rank(dims.len()),
                },
            }
        } else {
            let spatial = match &self.window {
                Some(w) => w.output_dims(&dims[2..], self.kernel())?,
                None => vec![Some(1); dims.len() - 2],
            };
            Shape::partial(dims[..2].iter().copied().chain(spatial).collect())
        };
        let mut facts = vec![x.with_shape(shape)];
        if cx.outputs > 1 {
            facts.push(facts[0].with_dtype(DType::I64));
        }
        Ok(facts)
    }

    fn charge(&self, cx: &CostCx) -> Charge {
        if self.kind == Kind::Unpool || cx.dtype(0).is_some_and(|d| !d.is_float()) {
            return Charge::Known(Work::NONE);
        }
        Charge::of((|| {
            let axes = self.axes(&cx.dims(0)?).ok()?;
            Some(Work::other(cx.out_elements(0)?.checked_mul(self.flops_per_output(&axes)?)?))
        })())
    }

    fn eval(&self, cx: &EvalCx, inputs: &Inputs) -> Result<Vec<Tensor>> {
        if self.kind == Kind::Unpool {
            return self.eval_unpool(inputs);
        }
        let x = input(inputs, 0)?;
        let axes = self.axes(x.dims())?;
        let dims: Vec<usize> = x.dims()[..2].iter().copied().chain(axes.iter().map(|a| a.o)).collect();
        if element_count(&dims)? == 0 {
            let facts = [x.dtype(), DType::I64];
            return facts.iter().take(cx.outputs.max(1)).map(|&d| Tensor::zeros(d, &dims)).collect();
        }
        let (planes, indexed) = (dims[0] * dims[1], cx.outputs > 1);
        let maximum = matches!(self.kind, Kind::Max { .. });
        if !is_num(x.dtype()) && maximum {
            let x_ints = x.to_i64s()?;
            let (y, at) = max_pool(&axes, planes, &x_ints, i64::MIN, |v, best| v > best)?;
            let y = from_ints(x.dtype(), &y, &dims)?;
            return self.with_indices(y, at, indexed, x.dims(), &dims);
        }
        with_num!(cx.arith, x.dtype(), T => {
            let x_nums = T::load(x)?;
            match self.kind {
                Kind::Max { .. } => {
                    // NaN is larger than anything, as in Max.
                    #[expect(clippy::eq_op, reason = "only NaN differs from itself, and == is free of charge")]
                    let larger = |v: T, best: T| v.gt(best) || (v != v && best == best);
                    let (y, at) = max_pool(&axes, planes, &x_nums, T::of(f64::NEG_INFINITY), larger)?;
                    self.with_indices(T::store(y, &dims)?, at, indexed, x.dims(), &dims)
                }
                Kind::Average { include_pad } => {
                    let y = reduce(&axes, planes, &x_nums, |v: T| v, |sum, real, counted| {
                        let n = if include_pad { counted } else { real };
                        sum / T::of(n as f64)
                    })?;
                    Ok(vec![T::store(y, &dims)?])
                }
                Kind::Lp { p } => {
                    let power = |v: T| v.apply2(T::of(p), |v, p| if p == 2.0 { v * v } else { v.abs().powf(p) });
                    let root = |sum: T, _, _| sum.apply2(T::of(p), |s, p| if p == 2.0 { s.sqrt() } else { s.powf(1.0 / p) });
                    Ok(vec![T::store(reduce(&axes, planes, &x_nums, power, root)?, &dims)?])
                }
                Kind::Unpool => Err(Error::run("MaxUnpool is evaluated apart")),
            }
        })
    }

    fn role(&self, i: usize) -> Role {
        if i == 0 { Role::Data } else { Role::Setting }
    }
}

impl Pool {
    /// The results with flat indices of the maxima made from their positions in each plane.
    fn with_indices(
        &self,
        y: Tensor,
        at: Vec<usize>,
        wanted: bool,
        x: &[usize],
        dims: &[usize],
    ) -> Result<Vec<Tensor>> {
        if !wanted {
            return Ok(vec![y]);
        }
        let plane: usize = x[2..].iter().product();
        let per_plane: usize = dims[2..].iter().product();
        let column_major = matches!(self.kind, Kind::Max { column_major: true });
        let flat = |(i, mut p): (usize, usize)| -> i64 {
            if column_major {
                let (mut q, mut rest) = (0, plane);
                for &d in x[2..].iter().rev() {
                    rest /= d.max(1);
                    q += p % d.max(1) * rest;
                    p /= d.max(1);
                }
                p = q;
            }
            (i / per_plane.max(1) * plane + p) as i64
        };
        Ok(vec![y, Tensor::from_vec(at.into_iter().enumerate().map(flat).collect::<Vec<i64>>(), dims)?])
    }
}

/// Calls `f(output position, where each tap reads, taps that read input or padding but not beyond)` for each window of a plane.
fn windows(axes: &[Axis], mut f: impl FnMut(usize, &[Option<usize>], usize)) -> Result<()> {
    let outs: Vec<usize> = axes.iter().map(|a| a.o).collect();
    let kernel: Vec<usize> = axes.iter().map(|a| a.k).collect();
    if outs.contains(&0) {
        return Ok(());
    }
    let taps = element_count(&kernel)?;
    let mut reads = Vec::new();
    reads.try_reserve_exact(taps).map_err(|_| Error::run("a window too large for memory"))?;
    let mut y = vec![0; outs.len()];
    for at in 0.. {
        reads.clear();
        let mut counted = 0;
        if taps > 0 {
            let mut k = vec![0; kernel.len()];
            loop {
                let place = axes
                    .iter()
                    .enumerate()
                    .try_fold(0usize, |place, (a, axis)| Some(place * axis.i + axis.position(y[a], k[a])?));
                reads.push(place);
                let within = |(a, axis): (usize, &Axis)| y[a] * axis.s + k[a] * axis.d < axis.begin + axis.i + axis.end;
                counted += usize::from(axes.iter().enumerate().all(within));
                if !advance(&mut k, &kernel) {
                    break;
                }
            }
        }
        f(at, &reads, counted);
        if !advance(&mut y, &outs) {
            break;
        }
    }
    Ok(())
}

/// The largest element of each window and its position in the plane; padding never wins over an element.
fn max_pool<T: Copy>(
    axes: &[Axis],
    planes: usize,
    x: &[T],
    lowest: T,
    larger: impl Fn(T, T) -> bool,
) -> Result<(Vec<T>, Vec<usize>)> {
    let plane: usize = axes.iter().map(|a| a.i).product();
    let outs: usize = axes.iter().map(|a| a.o).product();
    let mut y = vec![lowest; planes * outs];
    let mut found = vec![0; planes * outs];
    windows(axes, |at, reads, _| {
        let Some((&first, others)) = reads.split_first() else { return };
        for c in 0..planes {
            let x = &x[c * plane..][..plane];
            let (mut best, mut place) = (first.map_or(lowest, |p| x[p]), first);
            for &p in others {
                let v = p.map_or(lowest, |p| x[p]);
                if larger(v, best) || (place.is_none() && p.is_some()) {
                    (best, place) = (v, p);
                }
            }
            y[c * outs + at] = best;
            found[c * outs + at] = place.unwrap_or(0);
        }
    })?;
    Ok((y, found))
}

/// `finish(Σ map(tap), real taps, taps that are not beyond the padding)` of each window; padding counts as zero.
fn reduce<T: Num>(
    axes: &[Axis],
    planes: usize,
    x: &[T],
    map: impl Fn(T) -> T,
    finish: impl Fn(T, usize, usize) -> T,
) -> Result<Vec<T>> {
    let plane: usize = axes.iter().map(|a| a.i).product();
    let outs: usize = axes.iter().map(|a| a.o).product();
    let mut y = vec![T::zero(); planes * outs];
    windows(axes, |at, reads, counted| {
        let real = reads.iter().flatten().count();
        for c in 0..planes {
            let x = &x[c * plane..][..plane];
            let mut taps = reads.iter().map(|p| map(p.map_or(T::zero(), |p| x[p])));
            let first = taps.next().unwrap_or_else(|| map(T::zero()));
            y[c * outs + at] = finish(taps.fold(first, |sum, v| sum + v), real, counted);
        }
    })?;
    Ok(y)
}

fn cases() -> Vec<Case> {
    let ints = |v: &[i64]| Attr::Ints(v.to_vec());
    let f = sample::floats;
    let k = |v: &[i64]| ("kernel_shape", ints(v));
    let ceil = ("ceil_mode", Attr::Int(1));
    let bytes = |n: u8, dims: &[usize]| Tensor::from_vec((0..n).map(|v| v.wrapping_mul(37)).collect::<Vec<u8>>(), dims);
    vec![
        Case::new(
            "MaxPool",
            &[k(&[3, 3]), ("strides", ints(&[2, 2])), ("pads", ints(&[1; 4]))],
            vec![f(&[2, 3, 7, 6], 1)],
        ),
        Case::with_optional(
            "MaxPool",
            &[k(&[2, 2]), ("dilations", ints(&[2, 1])), ceil.clone(), ("strides", ints(&[3, 2]))],
            vec![Some(f(&[2, 2, 8, 7], 2))],
            2,
        ),
        Case::with_optional(
            "MaxPool",
            &[k(&[2, 3]), ("storage_order", Attr::Int(1))],
            vec![Some(f(&[1, 2, 5, 6], 3))],
            2,
        )
        .opset(8),
        Case::new(
            "MaxPool",
            &[k(&[3]), ("auto_pad", Attr::Str("SAME_UPPER".into())), ("strides", ints(&[2]))],
            vec![f(&[1, 2, 8], 4)],
        )
        .opset(7),
        Case::new("MaxPool", &[k(&[2, 2, 2])], vec![f(&[1, 2, 3, 4, 3], 5)]),
        Case::new("MaxPool", &[k(&[2, 2])], vec![bytes(24, &[1, 2, 3, 4]).expect("24 values")]),
        Case::new("AveragePool", &[k(&[3, 2]), ("pads", ints(&[1, 0, 1, 1]))], vec![f(&[2, 3, 5, 5], 1)]),
        Case::new(
            "AveragePool",
            &[
                k(&[3, 3]),
                ("pads", ints(&[1; 4])),
                ("count_include_pad", Attr::Int(1)),
                ceil.clone(),
                ("strides", ints(&[2, 2])),
            ],
            vec![f(&[1, 3, 6, 8], 2)],
        ),
        Case::new("AveragePool", &[k(&[2]), ("dilations", ints(&[3]))], vec![f(&[1, 3, 9], 3)]).opset(19),
        Case::new(
            "AveragePool",
            &[k(&[2, 2]), ("auto_pad", Attr::Str("SAME_LOWER".into()))],
            vec![f(&[1, 2, 4, 4], 4)],
        )
        .opset(7),
        Case::new("LpPool", &[k(&[2, 3]), ("pads", ints(&[0, 1, 0, 1]))], vec![f(&[1, 2, 4, 5], 1)]),
        Case::new("LpPool", &[k(&[3]), ("p", Attr::Int(3)), ("dilations", ints(&[2])), ceil], vec![f(&[2, 2, 9], 2)])
            .opset(18),
        Case::new("MaxPool", &[k(&[2, 2])], vec![f(&[0, 3, 4, 4], 1)]),
        Case::new("GlobalMaxPool", &[], vec![f(&[2, 3, 4, 5], 1)]),
        Case::new("GlobalAveragePool", &[], vec![f(&[2, 3, 7, 7], 1)]),
        Case::new("GlobalAveragePool", &[], vec![f(&[2, 3], 1)]),
        Case::new("GlobalLpPool", &[("p", Attr::Int(1))], vec![f(&[2, 3, 2, 2, 3], 1)]),
        Case::new(
            "MaxUnpool",
            &[k(&[2, 2]), ("strides", ints(&[2, 2]))],
            vec![f(&[1, 1, 2, 2], 1), sample::ints(&[1, 2, 8, 15]).reshaped(&[1, 1, 2, 2]).expect("4 values")],
        ),
        Case::new(
            "MaxUnpool",
            &[k(&[2, 2]), ("strides", ints(&[2, 2]))],
            vec![
                f(&[1, 1, 2, 2], 1),
                sample::ints(&[1, 2, 8, 15]).reshaped(&[1, 1, 2, 2]).expect("4 values"),
                sample::ints(&[1, 1, 5, 5]),
            ],
        ),
    ]
}
