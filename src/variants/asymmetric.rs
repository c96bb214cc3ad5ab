//! `k×1`, then `1×k` (Inception v3, arXiv:1512.00567), with a ReLU between. `2/k` of the multiply-adds at equal channels.

use super::edit::{Gain, Window};
use super::{Block, Choice, Editor, Entry, Fit, Make, Site, illegal};
use crate::error::Result;

/// The table's row.
pub static ENTRY: Entry = Entry {
    name: "asymmetric",
    about: "k x 1, then 1 x k",
    knobs: &[],
    make: Make::Block(Block { fits, build, adds: false, opset: 7 }),
};

fn fits(site: &Site, _: &Choice) -> Fit {
    if site.axes.iter().any(|a| a.k == 1) { illegal("has no window of two dimensions") } else { Ok(()) }
}

fn build(ed: &mut Editor, site: &Site, _: &Choice) -> Result<()> {
    let [a, b] = site.axes;
    let first = Window { k: [a.k, 1], s: [a.s, 1], d: [a.d, 1], pads: [a.begin, 0, a.end, 0], group: 1 };
    let second = Window { k: [1, b.k], s: [1, b.s], d: [1, b.d], pads: [0, b.begin, 0, b.end], group: 1 };
    let w = ed.weights("vertical", site, &[site.oc, site.ic, a.k, 1], Gain::Unit)?;
    let y = ed.conv("vertical", &site.x, &w, None, &first);
    let y = ed.relu("vertical_relu", &y);
    let w = ed.weights("horizontal", site, &[site.oc, site.oc, 1, b.k], Gain::ClosingAfterRelu)?;
    let y = ed.conv("horizontal", &y, &w, site.bias.as_ref().map(|b| b.0.as_str()), &second);
    ed.finish(&y, &site.y)
}
