//! Depthwise-separable blocks: MobileNetV1's pairs, and the inverted residuals of everything after it.

use super::super::net::{Act, Conv, Net, Value};
use super::super::row::{Row, rounded};
use super::dynamic::Weights;
use super::mobile_attention::layer_scale;
use super::squeeze_excite;
use crate::error::{Error, Result};

/// Depthwise 3x3 and pointwise, both normalised and rectified.
pub fn separable(net: &mut Net, row: &Row, x: &Value) -> Result<Value> {
    let (out, act) = (row.channels("c")?, row.act()?);
    let depthwise = Conv::of(row.size_or("k", 3)?).stride(row.stride()?).groups(x.c());
    let paths = ["depthwise", "bn1", "act1"].map(|p| row.at(p));
    let y = net.conv_bn_act(x, [&paths[0], &paths[1], &paths[2]], x.c(), depthwise, act)?;
    let paths = ["pointwise", "bn2", "act2"].map(|p| row.at(p));
    let last = if row.flag("linear")? { Act::None } else { act };
    net.conv_bn_act(&y, [&paths[0], &paths[1], &paths[2]], out, Conv::of(1), last)
}

/// Expand, depthwise, squeeze-and-excite if asked for, project without activation; a residual where the shape allows.
///
/// The hidden width is `exp` (scaled) or `t` times the input (rounded to 8); no expansion where it equals the input. `se` names what the
/// squeeze width is a quarter of: `exp` (rounded to 8) or the block's `in`put. `experts` or `kernels` make the weights depend on the
/// image.
pub fn inverted_residual(net: &mut Net, row: &Row, x: &Value) -> Result<Value> {
    let (k, out, stride, act) = (row.size("k")?, row.channels("c")?, row.stride()?, row.act()?);
    let hidden = match row.opt_size("exp")? {
        Some(exp) => row.width.of(exp),
        None => rounded(x.c() as f64 * row.number("t")?, 8),
    };
    let part = row.text_or("part", "block")?;
    let mut j = 0;
    let mut next = || {
        j += 1;
        row.at(&format!("{part}.{}", j - 1))
    };
    let weights = Weights::of(net, row, x)?;
    let mut y = x.clone();
    if hidden != x.c() {
        y = weights.conv_bn_act(net, &y, &next(), hidden, Conv::of(1), act)?;
    }
    let depthwise = Conv::of(k).stride(stride).groups(hidden);
    y = weights.conv_bn_act(net, &y, &next(), hidden, depthwise, act)?;
    let squeeze = match row.text_or("se", "none")? {
        "none" => None,
        "exp" => Some(rounded(hidden as f64 / 4.0, 8)),
        "in" => Some((x.c() / 4).max(1)),
        other => return Err(Error::input(format!("{}: 'se' is none, exp or in, not '{other}'", row.path))),
    };
    if let Some(squeeze) = squeeze {
        let acts = [Act::named(row.text_or("se_act", "relu")?)?, Act::named(row.text_or("gate", "sigmoid")?)?];
        y = squeeze_excite(net, &y, &next(), ["fc1", "fc2"], squeeze, acts)?;
    }
    // MobileNetV2's projection is two loose modules, everyone else's a sequence of its own.
    let [project, bn] = match part {
        "conv" => [next(), next()],
        _ => {
            let path = next();
            [format!("{path}.0"), format!("{path}.1")]
        }
    };
    let residual = stride == 1 && x.c() == out;
    y = weights.conv(net, &y, &project, out, Conv::of(1).linear())?;
    y = if residual { net.bn_residual(&y, &bn)? } else { net.bn(&y, &bn)? };
    if residual { net.add(x, &y, &row.path) } else { Ok(y) }
}

/// MobileNetV4's universal inverted bottleneck: depthwise `a` first (unless 0), expansion by `t`, depthwise `k` in the middle
/// (unless 0), projection, and with `layer_scale` a learned factor per channel. The stride goes to the middle, or to the first where
/// there is no middle.
pub fn universal(net: &mut Net, row: &Row, x: &Value) -> Result<Value> {
    let (scaled, act) = (row.flag("layer_scale")?, row.act()?);
    let (a, k, out, stride) = (row.size("a")?, row.size("k")?, row.channels("c")?, row.stride()?);
    let hidden = rounded(x.c() as f64 * row.number("t")?, 8);
    let (first, middle) = if k > 0 { (1, stride) } else { (stride, 1) };
    let paths = |name: &str| ["conv", "bn", "act"].map(|part| row.at(&format!("{name}.{part}")));
    let mut y = x.clone();
    let layer = |net: &mut Net, y: &Value, name: &str, out: usize, conv: Conv, act: Act| {
        let [conv_path, bn, act_path] = paths(name);
        net.conv_bn_act(y, [&conv_path, &bn, &act_path], out, conv, act)
    };
    if a > 0 {
        y = layer(net, &y, "dw_start", x.c(), Conv::of(a).stride(first).groups(x.c()), Act::None)?;
    }
    y = layer(net, &y, "pw_exp", hidden, Conv::of(1), act)?;
    if k > 0 {
        y = layer(net, &y, "dw_mid", hidden, Conv::of(k).stride(middle).groups(hidden), act)?;
    }
    let residual = stride == 1 && x.c() == out;
    let [project, bn, _] = paths("pw_proj");
    let mut y = net.conv_bn(&y, [&project, &bn], out, Conv::of(1), residual && !scaled)?;
    if scaled {
        y = layer_scale(net, &y, &row.path)?;
    }
    if residual { net.add(x, &y, &row.path) } else { Ok(y) }
}

/// A dense `k` x `k` convolution that also expands by `t`, then a projection; where nothing is expanded, the convolution alone.
pub fn fused(net: &mut Net, row: &Row, x: &Value) -> Result<Value> {
    let (out, stride, act) = (row.channels("c")?, row.stride()?, row.act()?);
    if row.number("t")? == 1.0 {
        let [conv, bn, act_path] = ["conv", "bn1", "act1"].map(|p| row.at(p));
        let y = net.conv_bn_act(x, [&conv, &bn, &act_path], out, Conv::of(row.size("k")?).stride(stride), act)?;
        return if stride == 1 && x.c() == out { net.add(x, &y, &row.path) } else { Ok(y) };
    }
    let hidden = rounded(x.c() as f64 * row.number("t")?, 8);
    let [conv, bn, act_path] = ["conv_exp", "bn1", "act1"].map(|p| row.at(p));
    let y = net.conv_bn_act(x, [&conv, &bn, &act_path], hidden, Conv::of(row.size("k")?).stride(stride), act)?;
    let residual = stride == 1 && x.c() == out;
    let y = net.conv_bn(&y, [&row.at("conv_pwl"), &row.at("bn2")], out, Conv::of(1), residual)?;
    if residual { net.add(x, &y, &row.path) } else { Ok(y) }
}
