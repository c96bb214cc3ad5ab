//! MobileNetV4's multi-query attention over a map: every head asks, all share one set of keys and values.

use super::super::net::{Conv, Net, Value};
use super::super::row::Row;
use super::super::seed::Fill;
use crate::error::{Error, Result};
use crate::ops::spec::Attr;
use crate::tensor::Tensor;

/// Normalisation, attention with `heads` of `width` features, a learned scale, and the sum with the input. Keys and values come from
/// a depthwise convolution of stride `kv_stride` where that is more than 1.
pub fn multi_query(net: &mut Net, row: &Row, x: &Value) -> Result<Value> {
    let &[n, c, h, w] = &x.dims[..] else { return Err(Error::input(format!("{}: not an image", row.path))) };
    let (heads, width, stride) = (row.size("heads")?, row.size("head_width")?, row.size_or("kv_stride", 1)?);
    let at = |part: &str| row.at(&format!("attn.{part}"));
    let normed = net.bn(x, &row.at("norm"))?;
    let project = |net: &mut Net, x: &Value, path: &str, out: usize| net.conv(x, path, out, Conv::of(1).linear());
    let q = project(net, &normed, &at("query.proj"), heads * width)?;
    let mut shared = Vec::new();
    for name in ["key", "value"] {
        let mut y = normed.clone();
        if stride > 1 {
            let small = Conv::of(row.size_or("k", 3)?).stride(stride).groups(c).linear();
            y = net.conv(&y, &at(&format!("{name}.down_conv")), c, small)?;
            y = net.bn(&y, &at(&format!("{name}.norm")))?;
        }
        let y = project(net, &y, &at(&format!("{name}.proj")), width)?;
        shared.push(net.reshape(&y, &[n, 1, width, y.dims[2] * y.dims[3]], &at(name))?);
    }
    let (path, seen) = (at("scores"), shared[0].dims[3]);
    let q = net.reshape(&q, &[n, heads, width, h * w], &at("query"))?;
    let q = net.transpose(&q, &[0, 1, 3, 2], &at("query"));
    let scores = [n, heads, h * w, seen];
    let root = net.scalar((width as f32).sqrt().recip())?;
    let y = net.node(&path, "MatMul", &[&q.name, &shared[0].name], &[], &scores);
    let y = net.node(&path, "Mul", &[&y.name, &root], &[], &scores);
    let y = net.node(&path, "Softmax", &[&y.name], &[("axis", Attr::Int(-1))], &scores);
    let v = net.transpose(&shared[1], &[0, 1, 3, 2], &at("value"));
    let y = net.node(&path, "MatMul", &[&y.name, &v.name], &[], &[n, heads, h * w, width]);
    let y = net.transpose(&y, &[0, 1, 3, 2], &path);
    let y = net.reshape(&y, &[n, heads * width, h, w], &path)?;
    let y = project(net, &y, &at("output.proj"), c)?;
    let y = layer_scale(net, &y, &row.path)?;
    net.add(&y, x, &row.path)
}

/// A learned factor per channel.
pub fn layer_scale(net: &mut Net, x: &Value, path: &str) -> Result<Value> {
    let path = format!("{path}.layer_scale");
    let gamma = net.weight(&format!("{path}.gamma"), &[x.c()], Fill::Around(0.3, 0.03))?;
    let shape = net.constant("image_channel", || Tensor::from_vec(vec![-1i64, 1, 1], &[3]))?;
    let gamma = net.node(&path, "Reshape", &[&gamma, &shape], &[], &[x.c(), 1, 1]);
    Ok(net.mul(x, &gamma, &path))
}
