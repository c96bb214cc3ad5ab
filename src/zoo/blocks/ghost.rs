//! GhostNet: half of the feature maps by convolution, the other half by a cheap depthwise operation on the first.

use super::super::net::{Act, Conv, Net, Pool, Value};
use super::super::row::{Row, rounded};
use super::squeeze_excite;
use crate::error::Result;

/// A ghost module: 1x1 to half the channels, depthwise 3x3 on those, both side by side. Without activation it closes a branch.
fn ghost(net: &mut Net, x: &Value, path: &str, out: usize, act: Act) -> Result<Value> {
    let half = out.div_ceil(2);
    let [a, b, c] = [0, 1, 2].map(|i| format!("{path}.primary_conv.{i}"));
    let primary = match act {
        Act::None => net.conv_bn(x, [&a, &b], half, Conv::of(1), true)?,
        _ => net.conv_bn_act(x, [&a, &b, &c], half, Conv::of(1), act)?,
    };
    let cheap = net.conv_seq(&primary, &format!("{path}.cheap_operation"), half, Conv::of(3).groups(half), act)?;
    let y = net.concat(&[&primary, &cheap], 1, path)?;
    if y.c() == out { Ok(y) } else { net.slice(&y, 0, out, 1, path) }
}

/// GhostNetV2's attention of a ghost module, the input's size: of the halved map a 1x1 convolution and one along each axis, and a
/// sigmoid, brought back to `like`'s size.
fn decoupled(net: &mut Net, x: &Value, path: &str, like: &Value) -> Result<Value> {
    let path = format!("{path}.short_conv");
    let out = like.c();
    let y = net.avg_pool(x, &path, Pool { k: 2, s: 2, p: 0, ceil: false })?;
    let along = [Conv::of(1), Conv::rect(1, 5).groups(out), Conv::rect(5, 1).groups(out)];
    let mut y = y;
    for (i, conv) in along.into_iter().enumerate() {
        let [a, b] = [2 * i, 2 * i + 1].map(|j| format!("{path}.{j}"));
        y = net.conv_bn_act(&y, [&a, &b, ""], out, conv, Act::None)?;
    }
    let y = net.act(&y, &path, Act::Sigmoid)?;
    net.resize_nearest(&y, [like.dims[2], like.dims[3]], &path)
}

/// Ghost to `exp`, depthwise where strided, squeeze-and-excite if asked for, ghost to `c`; the shortcut is depthwise and
/// pointwise where the shape changes. With `attention` (GhostNetV2) the first ghost module's maps are scaled by what a small
/// convolution along each axis makes of the halved input.
pub fn bottleneck(net: &mut Net, row: &Row, x: &Value) -> Result<Value> {
    let (k, stride, out) = (row.size("k")?, row.stride()?, row.channels("c")?);
    let hidden = row.channels("exp")?;
    let depthwise = |c: usize| Conv::of(k).stride(stride).groups(c);
    let mut y = ghost(net, x, &row.at("ghost1"), hidden, Act::Relu)?;
    if row.flag("attention")? {
        let gate = decoupled(net, x, &row.at("ghost1"), &y)?;
        y = net.mul(&y, &gate, &row.at("ghost1"));
    }
    if stride > 1 {
        y = net.conv_bn_act(&y, [&row.at("conv_dw"), &row.at("bn_dw"), ""], hidden, depthwise(hidden), Act::None)?;
    }
    if row.flag("se")? {
        let (squeeze, acts) = (rounded(hidden as f64 / 4.0, 4), [Act::Relu, Act::HardSigmoid]);
        y = squeeze_excite(net, &y, &row.at("se"), ["conv_reduce", "conv_expand"], squeeze, acts)?;
    }
    y = ghost(net, &y, &row.at("ghost2"), out, Act::None)?;
    let mut identity = x.clone();
    if stride > 1 || x.c() != out {
        let c = x.c();
        let [a, b, d, e] = [0, 1, 2, 3].map(|i| row.at(&format!("shortcut.{i}")));
        identity = net.conv_bn_act(&identity, [&a, &b, ""], c, depthwise(c), Act::None)?;
        identity = net.conv_bn_act(&identity, [&d, &e, ""], out, Conv::of(1), Act::None)?;
    }
    net.add(&y, &identity, &row.path)
}
