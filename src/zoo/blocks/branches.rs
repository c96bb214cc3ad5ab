//! Inception modules as data: parallel branches of small layers, concatenated.
//!
//! A layer is written `3x3 128`, `1x7 192`, `3x3 320 /2 p0` (stride 2, no padding), `max 3 /2` or `avg 3 p1`; a list of lists in
//! place of a layer is a fork inside a branch.

use super::super::net::{Act, Conv, Net, Pool, Value};
use super::super::row::Row;
use crate::error::{Error, Result};
use serde_json::Value as Json;

/// Parallel branches, concatenated along the channels.
pub fn branches(net: &mut Net, row: &Row, x: &Value) -> Result<Value> {
    let list = row.get("branches").and_then(Json::as_array).ok_or_else(|| wrong(&row.path, "no branches"))?;
    fork(net, row, x, list, &row.path)
}

/// A chain of such layers as a row of its own.
pub fn chain(net: &mut Net, row: &Row, x: &Value) -> Result<Value> {
    let list = row.get("layers").and_then(Json::as_array).ok_or_else(|| wrong(&row.path, "no layers"))?;
    sequence(net, row, x, list, &row.path)
}

fn fork(net: &mut Net, row: &Row, x: &Value, branches: &[Json], path: &str) -> Result<Value> {
    let mut parts = Vec::new();
    for (i, branch) in branches.iter().enumerate() {
        let layers = branch.as_array().ok_or_else(|| wrong(path, "a branch is a list of layers"))?;
        parts.push(sequence(net, row, x, layers, &format!("{path}.branch{}", i + 1))?);
    }
    net.concat(&parts.iter().collect::<Vec<_>>(), 1, path)
}

fn sequence(net: &mut Net, row: &Row, x: &Value, layers: &[Json], path: &str) -> Result<Value> {
    let mut y = x.clone();
    for (i, layer) in layers.iter().enumerate() {
        let path = format!("{path}.{i}");
        y = match layer {
            Json::String(text) => single(net, row, &y, text, &path)?,
            Json::Array(forked) => fork(net, row, &y, forked, &path)?,
            _ => return Err(wrong(&path, "a layer is text or a list of branches")),
        };
    }
    Ok(y)
}

fn single(net: &mut Net, row: &Row, x: &Value, text: &str, path: &str) -> Result<Value> {
    let bad = || wrong(path, text);
    let number = |t: &str| t.parse::<usize>().map_err(|_| bad());
    let words: Vec<&str> = text.split_whitespace().collect();
    let [kind, size, options @ ..] = &words[..] else { return Err(bad()) };
    let size = number(size)?;
    let (mut stride, mut pad) = (1, None);
    for option in options {
        match option.split_at_checked(1) {
            Some(("/", s)) => stride = number(s)?,
            Some(("p", p)) => pad = Some(number(p)?),
            _ => return Err(bad()),
        }
    }
    let pool = Pool { k: size, s: stride, p: pad.unwrap_or(0), ceil: false };
    match *kind {
        "max" => return net.max_pool(x, path, pool),
        "avg" => return net.avg_pool(x, path, pool),
        _ => {}
    }
    let (kh, kw) = kind.split_once('x').ok_or_else(bad)?;
    let mut conv = Conv::rect(number(kh)?, number(kw)?).stride(stride);
    if let Some(p) = pad {
        conv = conv.pad(p);
    }
    let out = row.width.of(size);
    if row.flag_or("bn", true)? {
        net.conv_bn_act(x, [&format!("{path}.conv"), &format!("{path}.bn"), path], out, conv, Act::Relu)
    } else {
        let y = net.conv(x, path, out, conv.bias(true))?;
        net.act(&y, path, Act::Relu)
    }
}

fn wrong(path: &str, what: &str) -> Error {
    Error::input(format!("zoo row {path}: not a layer: {what}"))
}
