//! Ghost module: a smaller convolution makes `1/ratio` of the channels, cheap depthwise ones derive the others from them (GhostNet,
//! arXiv:1911.11907).
//!
//! `k²·Ci·m + d²·m·(ratio − 1)` multiply-adds per position with `m = ⌈Co/ratio⌉`: close to `ratio` times fewer.

use super::edit::{Gain, Window};
use super::{Block, Choice, Editor, Entry, Fit, Knob, Make, Site, illegal, unwise};
use crate::error::Result;
use crate::ops::spec::Attr;

/// The table's row.
pub static ENTRY: Entry = Entry {
    name: "ghost",
    about: "a smaller convolution, and cheap depthwise maps derived from it",
    knobs: &[
        Knob {
            name: "ratio",
            default: 2.0,
            range: (2.0, 16.0),
            whole: true,
            about: "of all channels to computed ones",
        },
        Knob { name: "kernel", default: 3.0, range: (1.0, 7.0), whole: true, about: "of the cheap operation, odd" },
    ],
    make: Make::Block(Block { fits, build, adds: false, opset: 7 }),
};

/// Fewest output channels worth deriving from each other.
const FEW: usize = 16;

fn fits(site: &Site, choice: &Choice) -> Fit {
    let ratio = choice.size("ratio");
    match site.oc {
        oc if oc < ratio => illegal(format!("has {oc} output channels, fewer than the ratio {ratio}")),
        _ if choice.size("kernel").is_multiple_of(2) => {
            illegal("a cheap kernel of even size does not keep the map's size")
        }
        oc if oc < FEW => unwise(format!("has only {oc} output channels")),
        _ => Ok(()),
    }
}

fn build(ed: &mut Editor, site: &Site, choice: &Choice) -> Result<()> {
    let (ratio, d) = (choice.size("ratio"), choice.size("kernel"));
    let m = site.oc.div_ceil(ratio);
    let cheap = m * (ratio - 1);
    let [a, b] = site.axes;
    let w = ed.weights("primary", site, &[m, site.ic, a.k, b.k], Gain::Closing)?;
    let bias = ed.part_of_bias("primary", site, 0, m)?;
    let primary = ed.conv("primary", &site.x, &w, bias.as_deref(), &Window::of(&site.axes));
    let w = ed.weights("cheap", site, &[cheap, 1, d, d], Gain::Unit)?;
    let bias = ed.part_of_bias("cheap", site, m, m + cheap)?;
    let derived = ed.conv("cheap", &primary, &w, bias.as_deref(), &Window::same(d).groups(m));
    let mut y = ed.node("concat", "Concat", &[&primary, &derived], &[("axis", Attr::Int(1))]);
    if m + cheap > site.oc {
        y = ed.channels("keep", &y, 0, site.oc)?;
    }
    ed.finish(&y, &site.y)
}
