//! ShuffleNet units, first and second version: grouped or split branches whose channels are shuffled.

use super::super::net::{Act, Conv, Net, Pool, Value};
use super::super::row::Row;
use crate::error::Result;

/// Channels of `groups` groups interleaved.
fn shuffle(net: &mut Net, x: &Value, path: &str, groups: usize) -> Result<Value> {
    let dims = x.dims.clone();
    let &[n, c, h, w] = &dims[..] else { return Ok(x.clone()) };
    let y = net.reshape(x, &[n, groups, c / groups.max(1), h, w], path)?;
    let y = net.transpose(&y, &[0, 2, 1, 3, 4], path);
    net.reshape(&y, &dims, path)
}

/// First version: grouped 1x1 to a quarter, shuffle, depthwise, grouped 1x1; summed with the input, or where strided concatenated
/// to its average pooling. `first_groups` are those of the first 1x1.
pub fn grouped(net: &mut Net, row: &Row, x: &Value) -> Result<Value> {
    let (out, stride, groups) = (row.channels("c")?, row.stride()?, row.size("groups")?);
    let first = if row.index == 0 { row.size_or("first_groups", groups)? } else { groups };
    let paths = |i: usize| [row.at(&format!("conv{i}")), row.at(&format!("bn{i}"))];
    let inner = out / 4;
    let branch = if stride > 1 { out.saturating_sub(x.c()) } else { out };
    let ([c1, b1], [c2, b2], [c3, b3], relu) = (paths(1), paths(2), paths(3), row.at("relu"));
    let y = net.conv_bn_act(x, [&c1, &b1, &relu], inner, Conv::of(1).groups(first), Act::Relu)?;
    let y = shuffle(net, &y, &row.at("shuffle"), groups)?;
    let depthwise = Conv::of(3).stride(stride).groups(inner);
    let y = net.conv_bn_act(&y, [&c2, &b2, ""], inner, depthwise, Act::None)?;
    let y = net.conv_bn(&y, [&c3, &b3], branch, Conv::of(1).groups(groups), stride == 1)?;
    let y = if stride > 1 {
        let pooled = net.avg_pool(x, &row.at("pool"), Pool { k: 3, s: stride, p: 1, ceil: false })?;
        net.concat(&[&pooled, &y], 1, &row.path)?
    } else {
        net.add(x, &y, &row.path)?
    };
    net.act(&y, &relu, Act::Relu)
}

/// Second version: half of the channels pass by, the other half see 1x1, depthwise, 1x1; where strided both halves are made from
/// all channels. The result is shuffled.
pub fn split(net: &mut Net, row: &Row, x: &Value) -> Result<Value> {
    let (out, stride) = (row.channels("c")?, row.stride()?);
    let half = out / 2;
    let names = |branch: usize, i: usize| row.at(&format!("branch{branch}.{i}"));
    let branch = |net: &mut Net, x: &Value, which: usize| -> Result<Value> {
        let mut i = 0;
        let mut at = |steps: usize| {
            i += steps;
            names(which, i - steps)
        };
        let mut y = x.clone();
        if which == 2 {
            let paths = [at(1), at(1), at(1)];
            y = net.conv_bn_act(&y, [&paths[0], &paths[1], &paths[2]], half, Conv::of(1), Act::Relu)?;
        }
        let depthwise = Conv::of(3).stride(stride).groups(y.c());
        let (paths, c) = ([at(1), at(1)], y.c());
        y = net.conv_bn_act(&y, [&paths[0], &paths[1], ""], c, depthwise, Act::None)?;
        let paths = [at(1), at(1), at(1)];
        net.conv_bn_act(&y, [&paths[0], &paths[1], &paths[2]], half, Conv::of(1), Act::Relu)
    };
    let (left, right) = if stride > 1 {
        (branch(net, x, 1)?, branch(net, x, 2)?)
    } else {
        let halves = net.split(x, &[x.c() - half, half], 1, &row.path)?;
        let right = branch(net, &halves[1], 2)?;
        (halves[0].clone(), right)
    };
    let y = net.concat(&[&left, &right], 1, &row.path)?;
    shuffle(net, &y, &row.path, 2)
}
