//! SqueezeNet's fire module.

use super::super::net::{Act, Conv, Net, Value};
use super::super::row::Row;
use crate::error::Result;

/// Squeeze with 1x1, then expand with 1x1 and 3x3 side by side.
pub fn fire(net: &mut Net, row: &Row, x: &Value) -> Result<Value> {
    let (squeeze, expand) = (row.channels("squeeze")?, row.channels("expand")?);
    let mut layer = |x: &Value, name: &str, k: usize, out: usize| {
        let y = net.conv(x, &row.at(name), out, Conv::of(k).bias(true))?;
        net.act(&y, &row.at(&format!("{name}_activation")), Act::Relu)
    };
    let s = layer(x, "squeeze", 1, squeeze)?;
    let (a, b) = (layer(&s, "expand1x1", 1, expand)?, layer(&s, "expand3x3", 3, expand)?);
    net.concat(&[&a, &b], 1, &row.path)
}
