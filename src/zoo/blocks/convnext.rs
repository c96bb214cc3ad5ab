//! ConvNeXt: depthwise 7x7 and a channel-last perceptron with layer normalisation and a learned scale per channel.

use super::super::net::{Act, Conv, Net, Value};
use super::super::row::Row;
use super::super::seed::Fill;
use super::transformer::{dense, layer_norm};
use crate::error::Result;

const LAST: [usize; 4] = [0, 2, 3, 1];
const FIRST: [usize; 4] = [0, 3, 1, 2];

/// Layer normalisation over the channels of an image.
fn norm(net: &mut Net, x: &Value, path: &str) -> Result<Value> {
    let y = net.transpose(x, &LAST, path);
    let y = layer_norm(net, &y, path, 1e-6)?;
    Ok(net.transpose(&y, &FIRST, path))
}

/// A strided convolution and a normalisation behind it (`patchify`), or before it (between stages).
pub fn downsample(net: &mut Net, row: &Row, x: &Value) -> Result<Value> {
    let (k, out) = (row.size("k")?, row.channels("c")?);
    let conv = Conv::of(k).stride(k).pad(0).bias(true).linear();
    if row.flag("patchify")? {
        let y = net.conv(x, &row.at("0"), out, conv)?;
        return norm(net, &y, &row.at("1"));
    }
    let y = norm(net, x, &row.at("0"))?;
    net.conv(&y, &row.at("1"), out, conv)
}

/// The residual block.
pub fn block(net: &mut Net, row: &Row, x: &Value) -> Result<Value> {
    let c = x.c();
    let part = |i: usize| row.at(&format!("block.{i}"));
    let y = net.conv(x, &part(0), c, Conv::of(7).groups(c).bias(true).linear())?;
    let y = net.transpose(&y, &LAST, &part(1));
    let y = layer_norm(net, &y, &part(2), 1e-6)?;
    let y = dense(net, &y, &part(3), 4 * c, true)?;
    let y = net.act(&y, &part(4), Act::Gelu)?;
    let y = dense(net, &y, &part(5), c, true)?;
    let y = net.transpose(&y, &FIRST, &part(6));
    let scale = net.weight(&row.at("layer_scale"), &[c, 1, 1], Fill::Around(0.3, 0.03))?;
    let y = net.node(&row.path, "Mul", &[&scale, &y.name], &[], &y.dims);
    net.add(&y, x, &row.path)
}

/// Global pooling, normalisation, fully connected.
pub fn head(net: &mut Net, row: &Row, x: &Value) -> Result<Value> {
    let y = net.global_pool(x, "avgpool")?;
    let y = norm(net, &y, &row.at("0"))?;
    let y = net.flatten(&y, &row.at("1"));
    net.linear(&y, &row.at("2"), row.size("classes")?)
}
