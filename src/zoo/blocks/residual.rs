//! Residual blocks: basic and bottleneck, with the variants that widen, group, or squeeze them.

use super::super::net::{Act, Conv, Net, Value};
use super::super::row::Row;
use super::squeeze_excite;
use crate::error::Result;

/// The shortcut: a strided 1x1 convolution wherever stride or width changes.
fn shortcut(net: &mut Net, row: &Row, x: &Value, out: usize, stride: usize) -> Result<Value> {
    if stride == 1 && x.c() == out {
        return Ok(x.clone());
    }
    let (conv, bn) = (row.at("downsample.0"), row.at("downsample.1"));
    net.conv_bn_act(x, [&conv, &bn, ""], out, Conv::of(1).stride(stride), Act::None)
}

/// Two 3x3 convolutions.
pub fn basic(net: &mut Net, row: &Row, x: &Value) -> Result<Value> {
    let (out, stride, relu) = (row.channels("c")?, row.stride()?, row.at("relu"));
    let y =
        net.conv_bn_act(x, [&row.at("conv1"), &row.at("bn1"), &relu], out, Conv::of(3).stride(stride), Act::Relu)?;
    let y = net.conv_bn(&y, [&row.at("conv2"), &row.at("bn2")], out, Conv::of(3), true)?;
    finish(net, row, x, y, stride)
}

/// 1x1 to the inner width, 3x3 (grouped for ResNeXt), 1x1 to four times `c`. `stride_in` says where the stride sits:
/// `v1.5` on the 3x3, `v1` on the first 1x1. `deform` makes the 3x3 deformable: `v1` or `v2`.
pub fn bottleneck(net: &mut Net, row: &Row, x: &Value) -> Result<Value> {
    let (c, stride, relu) = (row.channels("c")?, row.stride()?, row.at("relu"));
    let groups = row.size_or("groups", 1)?;
    let inner = c * row.size_or("base_width", 64)? / 64 * groups;
    let (first, second) = if row.text_or("stride_in", "v1.5")? == "v1" { (stride, 1) } else { (1, stride) };
    let reduce = Conv::of(1).stride(first);
    let y = net.conv_bn_act(x, [&row.at("conv1"), &row.at("bn1"), &relu], inner, reduce, Act::Relu)?;
    let spatial = Conv::of(3).stride(second).groups(groups);
    let (conv2, bn2) = (row.at("conv2"), row.at("bn2"));
    let y = match row.text_or("deform", "none")? {
        "none" => net.conv_bn_act(&y, [&conv2, &bn2, &relu], inner, spatial, Act::Relu)?,
        version => {
            let y = net.deform_conv(&y, &conv2, inner, spatial, version == "v2")?;
            let y = net.bn(&y, &bn2)?;
            net.act(&y, &relu, Act::Relu)?
        }
    };
    // Universally slimmable networks round the block's result by itself.
    let wide = if row.flag("own_width")? { row.width.of(4 * row.size("c")?) } else { 4 * c };
    let y = net.conv_bn(&y, [&row.at("conv3"), &row.at("bn3")], wide, Conv::of(1), true)?;
    finish(net, row, x, y, stride)
}

/// Squeeze and excitation if asked for, the sum with the shortcut, and the last rectifier.
fn finish(net: &mut Net, row: &Row, x: &Value, mut y: Value, stride: usize) -> Result<Value> {
    if let Some(reduction) = row.opt_size("se")? {
        let squeeze = (y.c() / reduction).max(1);
        y = squeeze_excite(net, &y, &row.at("se"), ["fc1", "fc2"], squeeze, [Act::Relu, Act::Sigmoid])?;
    }
    let identity = shortcut(net, row, x, y.c(), stride)?;
    let y = net.add(&y, &identity, &row.path)?;
    net.act(&y, &row.at("relu"), Act::Relu)
}

/// RegNet's block: 1x1, grouped 3x3 (groups of `group_width` channels), squeeze-and-excite by a quarter of the block's input for
/// the Y nets, 1x1; no bottleneck.
pub fn regnet(net: &mut Net, row: &Row, x: &Value) -> Result<Value> {
    let (out, stride) = (row.channels("c")?, row.stride()?);
    let group_width = row.size("group_width")?.min(out).max(1);
    let f = |part: &str| row.at(&format!("f.{part}"));
    let y = net.conv_seq(x, &f("a"), out, Conv::of(1), Act::Relu)?;
    let spatial = Conv::of(3).stride(stride).groups(out / group_width);
    let mut y = net.conv_seq(&y, &f("b"), out, spatial, Act::Relu)?;
    if row.flag("se")? {
        // Half rounds to even, as the published networks do.
        let squeeze = (x.c() as f64 / 4.0).round_ties_even().max(1.0) as usize;
        y = squeeze_excite(net, &y, &f("se"), ["fc1", "fc2"], squeeze, [Act::Relu, Act::Sigmoid])?;
    }
    let y = net.conv_bn(&y, [&f("c.0"), &f("c.1")], out, Conv::of(1), true)?;
    let mut identity = x.clone();
    if stride != 1 || x.c() != out {
        let (conv, bn) = (row.at("proj.0"), row.at("proj.1"));
        identity = net.conv_bn_act(x, [&conv, &bn, ""], out, Conv::of(1).stride(stride), Act::None)?;
    }
    let y = net.add(&identity, &y, &row.path)?;
    net.act(&y, &row.at("activation"), Act::Relu)
}
