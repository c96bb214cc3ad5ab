//! Depthwise-separable blocks: MobileNetV1's pairs, and the inverted residuals of everything after it.

use super::super::net::{Act, Conv, Net, Value};
use super::super::row::{Row, rounded};
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
/// The hidden width is `exp` (scaled) or `t` times the input; no expansion where it equals the input. `se` names what the
/// squeeze width is a quarter of: `exp` (rounded to 8) or the block's `in`put.
pub fn inverted_residual(net: &mut Net, row: &Row, x: &Value) -> Result<Value> {
    let (k, out, stride, act) = (row.size("k")?, row.channels("c")?, row.stride()?, row.act()?);
    let hidden = match row.opt_size("t")? {
        Some(t) => x.c() * t,
        None => row.width.of(row.size("exp")?),
    };
    let part = row.text_or("part", "block")?;
    let mut j = 0;
    let mut next = || {
        j += 1;
        row.at(&format!("{part}.{}", j - 1))
    };
    let mut y = x.clone();
    if hidden != x.c() {
        y = net.conv_seq(&y, &next(), hidden, Conv::of(1), act)?;
    }
    y = net.conv_seq(&y, &next(), hidden, Conv::of(k).stride(stride).groups(hidden), act)?;
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
    y = net.conv(&y, &project, out, Conv::of(1).linear())?;
    if stride != 1 || x.c() != out {
        return net.bn(&y, &bn);
    }
    y = net.bn_residual(&y, &bn)?;
    net.add(x, &y, &row.path)
}
