//! Bottleneck: pointwise to a few channels, the window there, pointwise back (ResNet, arXiv:1512.03385).
//!
//! `Ci·w + k²·w² + w·Co` multiply-adds per position; 256 channels with `w` = 64 take 69,632 instead of 589,824.

use super::edit::{Gain, Window};
use super::{Block, Choice, Editor, Entry, Fit, Knob, Make, Site, illegal, unwise};
use crate::error::Result;

/// The table's row.
pub static ENTRY: Entry = Entry {
    name: "bottleneck",
    about: "pointwise, the window on few channels, pointwise",
    knobs: &[Knob {
        name: "ratio",
        default: 4.0,
        range: (1.0, 64.0),
        whole: false,
        about: "of output channels to the few",
    }],
    make: Make::Block(Block { fits, build, adds: false, opset: 7 }),
};

/// Fewest channels in the middle.
const FEW: usize = 4;

fn middle(site: &Site, choice: &Choice) -> usize {
    ((site.oc as f64 / choice.float("ratio")).round() as usize).max(1)
}

fn fits(site: &Site, choice: &Choice) -> Fit {
    match middle(site, choice) {
        _ if site.is_pointwise() => illegal("is pointwise: there is no window to put on fewer channels"),
        w if w < FEW => unwise(format!("would be left with {w} channels in the middle")),
        _ => Ok(()),
    }
}

fn build(ed: &mut Editor, site: &Site, choice: &Choice) -> Result<()> {
    let width = middle(site, choice);
    let [a, b] = site.axes;
    let w = ed.weights("reduce", site, &[width, site.ic, 1, 1], Gain::Unit)?;
    let y = ed.conv("reduce", &site.x, &w, None, &Window::POINT);
    let y = ed.relu("reduce_relu", &y);
    let w = ed.weights("window", site, &[width, width, a.k, b.k], Gain::AfterRelu)?;
    let y = ed.conv("window", &y, &w, None, &Window::of(&site.axes));
    let y = ed.relu("window_relu", &y);
    let w = ed.weights("expand", site, &[site.oc, width, 1, 1], Gain::ClosingAfterRelu)?;
    let y = ed.conv("expand", &y, &w, site.bias.as_ref().map(|b| b.0.as_str()), &Window::POINT);
    ed.finish(&y, &site.y)
}
