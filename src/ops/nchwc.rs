//! The blocked operators (`com.microsoft.nchwc`) of models that ONNX Runtime saves optimized for one machine.
//!
//! <https://github.com/microsoft/onnxruntime/blob/main/onnxruntime/core/optimizer/nchwc_transformer.cc>. Their tensors are declared
//! `[n, c, h, w]`, channels rounded up to whole blocks, and lie in memory as `[n, c/b, h, w, b]`; weights lie as
//! `[o/b, i/b, h, w, b, b]`, or `[o/b, i, h, w, b]` where the input is not blocked or the convolution is depthwise. The file does not
//! say what `b` is: like ONNX Runtime, what runs here is 16 with AVX-512, else 8. Cost: what the plain operator costs at the declared
//! sizes, channels that only fill a block included.

use super::fused::{attributes, given};
use super::recipe::{Recipe, Ref};
use super::spec::{Attr, NodeSpec};
use super::{Case, Charge, CostCx, Entry, EvalCx, Family, Infer, Inputs, Op, Role, input, opt, sample};
use crate::error::{Error, Result};
use crate::tensor::{Dim, Fact, Shape, Tensor};

const fn entry(name: &'static str, parse: fn(&NodeSpec) -> Result<Op>) -> Entry {
    Entry { domain: "com.microsoft.nchwc", name, parse, cases }
}

/// The family's table rows.
pub const ENTRIES: &[Entry] = &[
    entry("AveragePool", parse_pool),
    entry("Conv", parse_conv),
    entry("GlobalAveragePool", parse_pool),
    entry("GlobalMaxPool", parse_pool),
    entry("MaxPool", parse_pool),
    entry("ReorderInput", parse_reorder),
    entry("ReorderOutput", parse_reorder),
    entry("Upsample", parse_upsample),
];

/// An operator on blocked data.
#[derive(Debug, Clone)]
pub enum Nchwc {
    /// To blocks.
    ReorderInput {
        /// The data has its channels last.
        channels_last: bool,
    },
    /// From blocks.
    ReorderOutput {
        /// Channels without what fills the last block.
        channels: usize,
        /// The result has its channels last.
        channels_last: bool,
    },
    /// An operator of ai.onnx (or a fused one) between blocks.
    Plain(Box<Op>),
    /// A convolution: its weights are blocked too.
    Conv(Box<Op>),
}

/// Channels per block.
fn block() -> usize {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx512f") {
        return 16;
    }
    8
}

fn padded(channels: usize) -> Option<usize> {
    channels.checked_next_multiple_of(block())
}

fn parse_reorder(node: &NodeSpec) -> Result<Op> {
    node.expect_inputs(1, 1)?;
    let channels_last = node.flag("channels_last", false)?;
    Ok(Op::Nchwc(if node.op_type == "ReorderInput" {
        Nchwc::ReorderInput { channels_last }
    } else {
        let channels = node.opt_size("channels")?.filter(|&c| c > 0);
        let channels = channels.ok_or_else(|| Error::input("must be positive").at_attribute("channels"))?;
        Nchwc::ReorderOutput { channels, channels_last }
    }))
}

fn parse_pool(node: &NodeSpec) -> Result<Op> {
    let names = ["auto_pad", "ceil_mode", "count_include_pad", "dilations", "kernel_shape", "pads", "strides"];
    let mut r = Recipe::new();
    let y = r.node(&node.op_type, &attributes(node, &names), &[given(node, 0)])?;
    Ok(Op::Nchwc(Nchwc::Plain(Box::new(Op::Fused(r.give(vec![y]))))))
}

fn parse_conv(node: &NodeSpec) -> Result<Op> {
    let plain = NodeSpec { op_type: "FusedConv".into(), domain: "com.microsoft".into(), opset: 1, ..node.clone() };
    Ok(Op::Nchwc(Nchwc::Conv(Box::new(Op::parse(&plain)?))))
}

fn parse_upsample(node: &NodeSpec) -> Result<Op> {
    node.expect_inputs(1, 1)?;
    let scales: Vec<f32> = node.opt_ints("scales")?.unwrap_or_default().into_iter().map(|s| s as f32).collect();
    let n = scales.len();
    let attrs = attributes(node, &["mode", "coordinate_transformation_mode"]);
    let mut attrs: Vec<(&str, Attr)> = attrs;
    attrs.push(("nearest_mode", Attr::Str("floor".into())));
    if node.opt_str("coordinate_transformation_mode")?.is_none() {
        attrs.push(("coordinate_transformation_mode", Attr::Str("asymmetric".into())));
    }
    let mut r = Recipe::new();
    let scales = Ref::Constant(Tensor::from_vec(scales, &[n])?);
    let y = r.node("Resize", &attrs, &[given(node, 0), None, Some(scales)])?;
    Ok(Op::Nchwc(Nchwc::Plain(Box::new(Op::Fused(r.give(vec![y]))))))
}

/// Source positions of `[n, c, plane]` in `[n, c/b, plane, b]`.
fn positions(n: usize, c: usize, plane: usize, b: usize) -> impl Iterator<Item = usize> {
    let wide = c.next_multiple_of(b);
    (0..n * c * plane).map(move |i| {
        let (s, ch, p) = (i / (c * plane).max(1), i / plane.max(1) % c.max(1), i % plane.max(1));
        s * wide * plane + (ch / b * plane + p) * b + ch % b
    })
}

/// `[n, c, …]` data out of blocks.
fn unblocked(x: &Tensor) -> Result<Tensor> {
    let (&[n, c], rest) = x.dims().split_first_chunk::<2>().ok_or_else(too_flat)?;
    let v = x.view::<f32>()?;
    let plane = rest.iter().product();
    if c % block() != 0 {
        return Err(Error::run(format!("{c} channels are no whole number of blocks of {}", block())));
    }
    Tensor::from_vec(positions(n, c, plane, block()).map(|i| v[i]).collect(), x.dims())
}

/// `[n, c, …]` data in blocks, the last filled with zeros; the dims say so.
fn blocked(x: &Tensor) -> Result<Tensor> {
    let (&[n, c], rest) = x.dims().split_first_chunk::<2>().ok_or_else(too_flat)?;
    let v = x.view::<f32>()?;
    let plane: usize = rest.iter().product();
    let wide = padded(c).ok_or_else(too_flat)?;
    let dims: Vec<usize> = [n, wide].into_iter().chain(rest.iter().copied()).collect();
    let mut out = super::elements::reserved(crate::tensor::element_count(&dims)?)?;
    out.resize(n * wide * plane, 0f32);
    for (from, to) in positions(n, c, plane, block()).enumerate() {
        out[to] = v[from];
    }
    Tensor::from_vec(out, &dims)
}

/// Plain weights `[o, i, …]` out of blocks; `pairs` says whether input channels are blocked too.
fn plain_weights(w: &Tensor, pairs: bool) -> Result<Tensor> {
    let (&[o, i], rest) = w.dims().split_first_chunk::<2>().ok_or_else(too_flat)?;
    let (v, b) = (w.view::<f32>()?, block());
    let taps: usize = rest.iter().product();
    if o % b != 0 || (pairs && i % b != 0) {
        return Err(Error::run(format!("weights {} are no whole blocks of {b}", w.fact())));
    }
    let mut out = Vec::with_capacity(v.len());
    for oc in 0..o {
        for ic in 0..i {
            for t in 0..taps {
                out.push(v[if pairs {
                    (((oc / b * (i / b) + ic / b) * taps + t) * b + ic % b) * b + oc % b
                } else {
                    ((oc / b * i + ic) * taps + t) * b + oc % b
                }]);
            }
        }
    }
    Tensor::from_vec(out, w.dims())
}

fn too_flat() -> Error {
    Error::input("needs [n, c, …] data")
}

impl Family for Nchwc {
    fn infer(&self, cx: &Infer) -> Result<Vec<Fact>> {
        let x = cx.fact(0)?;
        let reordered = |f: &dyn Fn(&[Dim]) -> Vec<Dim>| {
            let shape = match x.shape.dims() {
                Some(d) if d.len() > 2 => Shape::partial(f(d)),
                Some(_) => return Err(too_flat()),
                None => Shape::UNKNOWN,
            };
            Ok(vec![x.with_shape(shape)])
        };
        match self {
            Nchwc::ReorderInput { channels_last } => reordered(&|d| {
                let n = d.len();
                let (c, rest) = if *channels_last { (d[n - 1], &d[1..n - 1]) } else { (d[1], &d[2..]) };
                [d[0], c.and_then(padded)].into_iter().chain(rest.iter().copied()).collect()
            }),
            Nchwc::ReorderOutput { channels, channels_last } => reordered(&|d| {
                let c = Some(*channels);
                let spatial = d[2..].iter().copied();
                if *channels_last {
                    std::iter::once(d[0]).chain(spatial).chain([c]).collect()
                } else {
                    [d[0], c].into_iter().chain(spatial).collect()
                }
            }),
            Nchwc::Plain(op) | Nchwc::Conv(op) => op.family().infer(cx),
        }
    }

    fn charge(&self, cx: &CostCx) -> Charge {
        match self {
            Nchwc::ReorderInput { .. } | Nchwc::ReorderOutput { .. } => Charge::FREE,
            Nchwc::Plain(op) | Nchwc::Conv(op) => op.family().charge(cx),
        }
    }

    fn eval(&self, cx: &EvalCx, inputs: &Inputs) -> Result<Vec<Tensor>> {
        let x = input(inputs, 0)?;
        let moved = |t: &Tensor, to_second: bool| -> Result<Tensor> {
            let perm = super::fused::channels(t.rank(), to_second);
            let node = NodeSpec {
                op_type: "Transpose".into(),
                inputs: vec!["x".into()],
                outputs: vec!["y".into()],
                attrs: [("perm".to_string(), perm)].into(),
                opset: super::NEWEST_OPSET,
                ..NodeSpec::default()
            };
            let made = Op::parse(&node)?.eval(&EvalCx { outputs: 1, ..EvalCx::default() }, &[Some(t)])?;
            made.into_iter().next().ok_or_else(|| Error::run("no result"))
        };
        match self {
            Nchwc::ReorderInput { channels_last } => {
                Ok(vec![if *channels_last { blocked(&moved(x, true)?)? } else { blocked(x)? }])
            }
            Nchwc::ReorderOutput { channels, channels_last } => {
                let all = unblocked(x)?;
                let (&[n, c], rest) = all.dims().split_first_chunk::<2>().ok_or_else(too_flat)?;
                if *channels > c {
                    return Err(Error::run(format!("{channels} channels of {c}")));
                }
                let plane: usize = rest.iter().product();
                let v = all.view::<f32>()?;
                let kept = (0..n).flat_map(|s| v[s * c * plane..][..channels * plane].iter().copied()).collect();
                let dims: Vec<usize> = [n, *channels].into_iter().chain(rest.iter().copied()).collect();
                let y = Tensor::from_vec(kept, &dims)?;
                Ok(vec![if *channels_last { moved(&y, false)? } else { y }])
            }
            Nchwc::Plain(op) => {
                let made = op.eval(cx, &[Some(&unblocked(x)?)])?;
                made.iter().map(blocked).collect()
            }
            Nchwc::Conv(op) => {
                let w = input(inputs, 1)?;
                let (xc, per_group) = (x.dims().get(1).copied().unwrap_or(0), w.dims().get(1).copied().unwrap_or(0));
                // Few channels come unblocked; a depthwise convolution has one per group.
                let direct = xc == per_group && xc < block();
                let pairs = !direct && per_group % block() == 0;
                let x = if direct { x.clone() } else { unblocked(x)? };
                let w = plain_weights(w, pairs)?;
                let sum = opt(inputs, 3).map(unblocked).transpose()?;
                let made = op.eval(cx, &[Some(&x), Some(&w), opt(inputs, 2), sum.as_ref()])?;
                made.iter().map(blocked).collect()
            }
        }
    }

    fn role(&self, i: usize) -> Role {
        match self {
            Nchwc::ReorderInput { .. } | Nchwc::ReorderOutput { .. } => Role::Data,
            Nchwc::Plain(op) | Nchwc::Conv(op) => op.family().role(i),
        }
    }
}

fn cases() -> Vec<Case> {
    let f = sample::floats;
    let ints = |v: &[i64]| Attr::Ints(v.to_vec());
    let case = |name: &str, attrs: &[(&str, Attr)], inputs: Vec<Option<Tensor>>| {
        Case::with_optional(name, attrs, inputs, 1).domain("com.microsoft.nchwc").opset(1)
    };
    let some = |v: Vec<Tensor>| v.into_iter().map(Some).collect::<Vec<_>>();
    // Whole blocks whatever their size.
    let x = || f(&[1, 16, 4, 5], 1);
    let kernel = ("kernel_shape", ints(&[2, 2]));
    let pads = ("pads", ints(&[1, 1, 1, 1]));
    vec![
        case("ReorderInput", &[], some(vec![f(&[2, 5, 2, 3], 1)])),
        case("ReorderInput", &[("channels_last", Attr::Int(1))], some(vec![f(&[1, 2, 3, 16], 1)])),
        case("ReorderOutput", &[("channels", Attr::Int(13))], some(vec![x()])),
        case("ReorderOutput", &[("channels", Attr::Int(16)), ("channels_last", Attr::Int(1))], some(vec![x()])),
        case("Conv", std::slice::from_ref(&pads), some(vec![x(), f(&[32, 16, 3, 3], 2), f(&[32], 3)])),
        case(
            "Conv",
            &[("activation", Attr::Str("Relu".into())), ("strides", ints(&[2, 2]))],
            some(vec![f(&[1, 3, 5, 5], 1), f(&[16, 3, 3, 3], 2)]),
        ),
        case("Conv", &[pads, ("group", Attr::Int(16))], some(vec![x(), f(&[16, 1, 3, 3], 2), f(&[16], 3), x()])),
        case("MaxPool", &[kernel.clone(), ("strides", ints(&[2, 2]))], some(vec![x()])),
        case("AveragePool", &[kernel], some(vec![x()])),
        case("GlobalAveragePool", &[], some(vec![x()])),
        case("GlobalMaxPool", &[], some(vec![x()])),
        case("Upsample", &[("scales", ints(&[1, 1, 2, 2])), ("mode", Attr::Str("nearest".into()))], some(vec![x()])),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_hold_what_they_were_made_of() {
        let x = sample::floats(&[2, 11, 3, 2], 1);
        let there = blocked(&x).unwrap();
        assert_eq!(there.dims()[1] % block(), 0);
        let back = unblocked(&there).unwrap();
        let (a, b) = (x.view::<f32>().unwrap(), back.view::<f32>().unwrap());
        let wide = there.dims()[1];
        for (i, v) in a.iter().enumerate() {
            let (n, rest) = (i / 66, i % 66);
            assert_eq!(*v, b[n * wide * 6 + rest]);
        }
    }
}
