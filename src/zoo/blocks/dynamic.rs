//! Convolutions whose weights depend on the image: CondConv mixes experts, ODConv also weights taps, channels and filters.
//!
//! Mixing is written as a matrix product of the mixing weights and the stored kernels, so it is counted as the multiply-adds it takes.

use super::super::net::{Act, Conv, Net, Value};
use super::super::row::Row;
use super::super::seed::Fill;
use crate::error::Result;
use crate::ops::spec::Attr;

/// How a block's convolutions come by their weights.
pub enum Weights {
    /// They are stored.
    Stored,
    /// Experts mixed by `[n, experts]`, told once for the whole block (Yang et al. 2019).
    Routed(Value),
    /// Kernels mixed, and taps, input channels and filters weighted, by an attention in front of every convolution (Li et al. 2022).
    Omni {
        /// Kernels that are mixed.
        kernels: usize,
        /// Features of the attention per input channel.
        reduction: f64,
    },
}

impl Weights {
    /// As the row says: `experts` for CondConv, `kernels` for ODConv.
    pub fn of(net: &mut Net, row: &Row, x: &Value) -> Result<Weights> {
        if let Some(experts) = row.opt_size("experts")? {
            return Ok(Weights::Routed(routing(net, x, &row.at("routing_fn"), experts)?));
        }
        match row.opt_size("kernels")? {
            Some(kernels) => Ok(Weights::Omni { kernels, reduction: row.number("reduction")? }),
            None => Ok(Weights::Stored),
        }
    }

    /// The convolution.
    pub fn conv(&self, net: &mut Net, x: &Value, path: &str, out: usize, conv: Conv) -> Result<Value> {
        match self {
            Weights::Stored => net.conv(x, path, out, conv),
            Weights::Routed(routing) => {
                // Shares are about a half each and independent: their squares sum to a quarter of their number.
                let squares = routing.features() as f32 / 4.0;
                let weight = mixed(net, routing, x, path, out, conv.gained(1.0 / squares))?;
                let dims = conv.weight_dims(x.c(), x.dims[0] * out);
                let weight = net.reshape(&weight, &dims, path)?;
                net.conv_computed(x, path, &weight, conv)
            }
            Weights::Omni { kernels, reduction } => omni(net, x, path, out, conv, *kernels, *reduction),
        }
    }

    /// Convolution, normalisation, activation.
    pub fn conv_bn_act(&self, net: &mut Net, x: &Value, path: &str, out: usize, conv: Conv, act: Act) -> Result<Value> {
        let [a, b, c] = [0, 1, 2].map(|i| format!("{path}.{i}"));
        let conv = if act == Act::None { conv.linear() } else { conv };
        let y = self.conv(net, x, &a, out, conv)?;
        let y = net.bn(&y, &b)?;
        net.act(&y, &c, act)
    }
}

/// How much of each expert an image gets: its channels' means through a small layer and a sigmoid.
fn routing(net: &mut Net, x: &Value, path: &str, experts: usize) -> Result<Value> {
    let y = match x.dims.len() {
        4 => {
            let y = net.global_pool(x, path)?;
            net.flatten(&y, path)
        }
        _ => x.clone(),
    };
    let y = net.linear(&y, path, experts)?;
    net.act(&y, path, Act::Sigmoid)
}

/// `[n, weights]`: stored kernels summed with the given shares.
fn mixed(net: &mut Net, shares: &Value, x: &Value, path: &str, out: usize, conv: Conv) -> Result<Value> {
    let [n, kernels] = [shares.dims[0], shares.dims[1]];
    let size = conv.weight_dims(x.c(), out).iter().product::<usize>();
    let stored = net.weight(&format!("{path}.weight"), &[kernels, size], conv.fill(x.c()))?;
    Ok(net.node(path, "MatMul", &[&shares.name, &stored], &[], &[n, size]))
}

fn omni(net: &mut Net, x: &Value, path: &str, out: usize, conv: Conv, kernels: usize, reduction: f64) -> Result<Value> {
    let (n, c) = (x.dims[0], x.c());
    let at = |part: &str| format!("{path}.attention.{part}");
    let dims = conv.weight_dims(c, out);
    let taps = [dims[2], dims[3]];
    // The fewest features are 16, whatever the share of the channels.
    let features = ((c as f64 * reduction) as usize).max(16);
    let y = net.global_pool(x, &at("avgpool"))?;
    let y = net.conv_bn_act(&y, [&at("fc"), &at("bn"), &at("relu")], features, Conv::of(1), Act::Relu)?;
    let told = |net: &mut Net, name: &str, size: usize| net.conv(&y, &at(name), size, Conv::of(1).bias(true).linear());
    let share = told(net, "channel_fc", c)?;
    let share = net.act(&share, &at("channel_fc"), Act::Sigmoid)?;
    let x = net.mul(x, &share, &at("channel_fc"));
    let spatial = match taps {
        [1, 1] => None,
        [kh, kw] => {
            let s = told(net, "spatial_fc", kh * kw)?;
            let s = net.act(&s, &at("spatial_fc"), Act::Sigmoid)?;
            Some(net.reshape(&s, &[n, 1, 1, kh, kw], &at("spatial_fc"))?)
        }
    };
    let stored = format!("{path}.weight");
    let mut y = if kernels == 1 && spatial.is_none() {
        net.conv(&x, path, out, conv)?
    } else {
        let apart = [n, dims[0], dims[1], dims[2], dims[3]];
        let mut weight = if kernels == 1 {
            Value { name: net.weight(&stored, &dims, conv.fill(c))?, dims: dims.to_vec() }
        } else {
            let shares = told(net, "kernel_fc", kernels)?;
            let shares = net.flatten(&shares, &at("kernel_fc"));
            let axis = [("axis", Attr::Int(-1))];
            let shares = net.node(&at("kernel_fc"), "Softmax", &[&shares.name], &axis, &shares.dims);
            mixed(net, &shares, &x, path, out, conv)?
        };
        if let Some(spatial) = spatial {
            if kernels > 1 {
                weight = net.reshape(&weight, &apart, path)?;
            }
            weight = net.node(path, "Mul", &[&spatial.name, &weight.name], &[], &apart);
        }
        let weight = net.reshape(&weight, &conv.weight_dims(c, n * out), path)?;
        net.conv_computed(&x, path, &weight, conv)?
    };
    // A depthwise convolution's filters are its channels, weighted already.
    if !(conv.groups_of() == c && out == c) {
        let share = told(net, "filter_fc", out)?;
        let share = net.act(&share, &at("filter_fc"), Act::Sigmoid)?;
        y = net.mul(&y, &share, &at("filter_fc"));
    }
    Ok(y)
}

/// A convolution with computed weights, normalisation, activation.
pub fn conv(net: &mut Net, row: &Row, x: &Value) -> Result<Value> {
    let weights = Weights::of(net, row, x)?;
    let conv = Conv::of(row.size("k")?).stride(row.stride()?);
    weights.conv_bn_act(net, x, &row.path, row.channels("c")?, conv, row.act()?)
}

/// Global average pooling and a fully connected layer mixed from experts.
pub fn classifier(net: &mut Net, row: &Row, x: &Value) -> Result<Value> {
    let (experts, classes, path) = (row.size("experts")?, row.size("classes")?, &row.path);
    let y = net.global_pool(x, "avgpool")?;
    let y = net.flatten(&y, "flatten");
    let (n, c) = (y.dims[0], y.features());
    let routing = routing(net, &y, &format!("{path}.routing_fn"), experts)?;
    let gain = 4.0 / experts as f32;
    let weight = net.weight(&format!("{path}.weight"), &[experts, c * classes], Fill::scaled(gain, c))?;
    let bias = net.weight(&format!("{path}.bias"), &[experts, classes], Fill::Within(0.1))?;
    let weight = net.node(path, "MatMul", &[&routing.name, &weight], &[], &[n, c * classes]);
    let weight = net.reshape(&weight, &[n, c, classes], path)?;
    let y = net.reshape(&y, &[n, 1, c], path)?;
    let y = net.node(path, "MatMul", &[&y.name, &weight.name], &[], &[n, 1, classes]);
    let y = net.reshape(&y, &[n, classes], path)?;
    let bias = net.node(path, "MatMul", &[&routing.name, &bias], &[], &[n, classes]);
    net.add(&y, &bias, path)
}
