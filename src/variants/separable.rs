//! Depthwise-separable: a depthwise convolution with the layer's window, then a pointwise one (MobileNetV1, arXiv:1704.04861).
//!
//! Costs `1/Co + 1/k²` of the dense convolution's MAdds. A ReLU stands between the two, as in the paper.

use super::edit::{Gain, Window};
use super::{Block, Choice, Editor, Entry, Fit, Make, Site, illegal, unwise};
use crate::error::Result;

/// The table's row.
pub static ENTRY: Entry = Entry {
    name: "separable",
    about: "depthwise convolution, then pointwise",
    knobs: &[],
    make: Make::Block(Block { fits, build, adds: false, opset: 7 }),
};

/// Fewest input channels worth filtering one by one.
const FEW: usize = 8;

fn fits(site: &Site, _: &Choice) -> Fit {
    match site {
        s if s.is_pointwise() => illegal("is pointwise: there is no window to separate"),
        s if s.ic < FEW => unwise(format!("has only {} input channels to filter one by one", s.ic)),
        _ => Ok(()),
    }
}

fn build(ed: &mut Editor, site: &Site, _: &Choice) -> Result<()> {
    let [a, b] = site.axes;
    let w = ed.weights("depthwise", site, &[site.ic, 1, a.k, b.k], Gain::Unit)?;
    let y = ed.conv("depthwise", &site.x, &w, None, &Window::of(&site.axes).groups(site.ic));
    let y = ed.relu("depthwise_relu", &y);
    let w = ed.weights("pointwise", site, &[site.oc, site.ic, 1, 1], Gain::ClosingAfterRelu)?;
    let y = ed.conv("pointwise", &y, &w, site.bias.as_ref().map(|b| b.0.as_str()), &Window::POINT);
    ed.finish(&y, &site.y)
}
