//! Single layers as rows: convolution, pooling, normalisation, fully connected.

use super::super::net::{Act, Conv, Net, Pool, Value};
use super::super::row::Row;
use crate::error::Result;
use crate::ops::spec::Attr;

/// A convolution, with batch normalisation unless `bn` is false, and an activation.
///
/// Module names: `path.0`, `path.1`, `path.2` as a sequence; a running number each where the path holds `{+}`; `path` itself,
/// `bn_name` and `act_name` where those are given or there is no normalisation.
pub fn conv(net: &mut Net, row: &Row, x: &Value) -> Result<Value> {
    let (k, out, bn, act) = (row.size("k")?, row.channels("c")?, row.flag_or("bn", true)?, row.act()?);
    let groups = if row.flag("depthwise")? { x.c() } else { row.size_or("groups", 1)? };
    let mut conv = Conv::of(k).stride(row.stride()?).groups(groups).bias(row.flag_or("bias", !bn)?);
    if let Some(p) = row.opt_size("p")? {
        conv = conv.pad(p);
    }
    if act == Act::None {
        conv = conv.linear();
    }
    let leaves = row.path.contains("{+}");
    let sequence = bn && !leaves && row.opt_text("bn_name")?.is_none();
    let conv_path = if sequence { row.at("0") } else { net.leaf(&row.path) };
    let mut y = net.conv(x, &conv_path, out, conv)?;
    if bn {
        let path = if sequence { row.at("1") } else { net.leaf(row.text_or("bn_name", &row.path)?) };
        y = net.bn(&y, &path)?;
    }
    if act == Act::None {
        return Ok(y);
    }
    let path = if sequence { row.at("2") } else { net.leaf(row.text_or("act_name", &row.path)?) };
    net.act(&y, &path, act)
}

fn window(row: &Row) -> Result<Pool> {
    let k = row.size("k")?;
    Ok(Pool { k, s: row.size_or("s", k)?, p: row.size_or("p", 0)?, ceil: row.flag("ceil")? })
}

/// Max pooling.
pub fn max_pool(net: &mut Net, row: &Row, x: &Value) -> Result<Value> {
    let path = net.leaf(&row.path);
    net.max_pool(x, &path, window(row)?)
}

/// Average pooling.
pub fn avg_pool(net: &mut Net, row: &Row, x: &Value) -> Result<Value> {
    let path = net.leaf(&row.path);
    net.avg_pool(x, &path, window(row)?)
}

/// The mean of each channel.
pub fn global_pool(net: &mut Net, row: &Row, x: &Value) -> Result<Value> {
    let path = net.leaf(&row.path);
    net.global_pool(x, &path)
}

/// Batch normalisation and an activation.
pub fn norm(net: &mut Net, row: &Row, x: &Value) -> Result<Value> {
    let y = net.bn(x, &row.path)?;
    net.act(&y, row.text_or("act_name", "relu")?, row.act()?)
}

/// All but the batch in one dim.
pub fn flatten(net: &mut Net, row: &Row, x: &Value) -> Result<Value> {
    Ok(net.flatten(x, &row.path))
}

/// A fully connected layer and an activation (none unless given).
pub fn linear(net: &mut Net, row: &Row, x: &Value) -> Result<Value> {
    let path = net.leaf(&row.path);
    let y = net.linear(x, &path, row.channels("c")?)?;
    let path = net.leaf(row.text_or("act_name", &path)?);
    net.act(&y, &path, Act::named(row.text_or("act", "none")?)?)
}

/// Global average pooling and a fully connected layer to the classes.
pub fn classifier(net: &mut Net, row: &Row, x: &Value) -> Result<Value> {
    let y = net.global_pool(x, row.text_or("pool", "avgpool")?)?;
    let y = net.flatten(&y, "flatten");
    net.linear(&y, &row.path, row.size("classes")?)
}

/// A classifier on the side, a result of its own: average pooling, a pointwise convolution, two fully connected layers. What follows goes on
/// from `x`.
pub fn auxiliary(net: &mut Net, row: &Row, x: &Value) -> Result<Value> {
    let y = net.avg_pool(x, &row.at("pool"), window(row)?)?;
    let y = net.conv(&y, &row.at("conv"), row.channels("c")?, Conv::of(1).bias(true))?;
    let y = net.act(&y, &row.at("conv"), Act::Relu)?;
    let y = net.flatten(&y, &row.at("flatten"));
    let y = net.linear(&y, &row.at("fc1"), row.channels("hidden")?)?;
    let y = net.act(&y, &row.at("fc1"), Act::Relu)?;
    let y = net.linear(&y, &row.at("fc2"), row.size("classes")?)?;
    net.output(&y, &row.path);
    Ok(x.clone())
}

/// Local response normalisation over neighbouring channels.
pub fn local_norm(net: &mut Net, row: &Row, x: &Value) -> Result<Value> {
    let attrs = [
        ("size", Attr::Int(row.size("size")? as i64)),
        ("alpha", Attr::Float(1e-4)),
        ("beta", Attr::Float(0.75)),
        ("bias", Attr::Float(1.0)),
    ];
    Ok(net.node(&row.path, "LRN", &[&x.name], &attrs, &x.dims))
}
