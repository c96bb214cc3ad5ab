//! DenseNet's layers and transitions (the BC form: bottlenecks and compression by half).

use super::super::net::{Act, Conv, Net, Pool, Value};
use super::super::row::Row;
use crate::error::Result;

/// Norm, rectifier, 1x1 to four times the growth, norm, rectifier, 3x3 to the growth; concatenated to what came in.
pub fn layer(net: &mut Net, row: &Row, x: &Value) -> Result<Value> {
    let growth = row.size("growth")?;
    let y = net.bn(x, &row.at("norm1"))?;
    let y = net.act(&y, &row.at("relu1"), Act::Relu)?;
    let y = net.conv_bn_act(
        &y,
        [&row.at("conv1"), &row.at("norm2"), &row.at("relu2")],
        4 * growth,
        Conv::of(1),
        Act::Relu,
    )?;
    let y = net.conv(&y, &row.at("conv2"), growth, Conv::of(3).linear())?;
    net.concat(&[x, &y], 1, &row.path)
}

/// Norm, rectifier, 1x1 to half the channels, 2x2 average pooling.
pub fn transition(net: &mut Net, row: &Row, x: &Value) -> Result<Value> {
    let y = net.bn(x, &row.at("norm"))?;
    let y = net.act(&y, &row.at("relu"), Act::Relu)?;
    let y = net.conv(&y, &row.at("conv"), x.c() / 2, Conv::of(1).linear())?;
    net.avg_pool(&y, &row.at("pool"), Pool { k: 2, s: 2, p: 0, ceil: false })
}
