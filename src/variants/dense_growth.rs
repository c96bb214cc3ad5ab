//! Dense connection: some output channels are the input's own, only the others are computed (DenseNet, arXiv:1608.06993).
//!
//! A layer of growth `k` behind `C` channels costs `9·C·k`, with a bottleneck of `4k` channels before it `4·C·k + 36·k²`: the
//! bottleneck saves once `C > 7.2·k`. In place of a convolution `Ci → Co` the growth is `Co − Ci`, or half of `Co` where that is
//! not positive.

use super::edit::{Gain, Window};
use super::{Block, Choice, Editor, Entry, Fit, Knob, Make, Site, illegal};
use crate::error::Result;
use crate::ops::spec::Attr;

const GROWTH: Knob = Knob {
    name: "growth",
    default: 0.0,
    range: (0.0, 65536.0),
    whole: true,
    about: "channels computed (0: what is missing, or half)",
};

/// The table's row.
pub static ENTRY: Entry = Entry {
    name: "dense",
    about: "input channels passed on beside newly computed ones",
    knobs: &[GROWTH],
    make: Make::Block(Block { fits, build: plain, adds: false, opset: 7 }),
};

/// The table's row of the form with a bottleneck.
pub static BOTTLENECK: Entry = Entry {
    name: "dense-bottleneck",
    about: "the same with a pointwise convolution to 4 x growth before",
    knobs: &[GROWTH],
    make: Make::Block(Block { fits, build: with_bottleneck, adds: false, opset: 7 }),
};

fn growth(site: &Site, choice: &Choice) -> usize {
    match choice.size("growth") {
        0 if site.oc > site.ic => site.oc - site.ic,
        0 => site.oc.div_ceil(2),
        k => k,
    }
}

fn fits(site: &Site, choice: &Choice) -> Fit {
    let k = growth(site, choice);
    if !site.keeps_size() {
        return illegal("changes the map's size, so that inputs cannot be passed on");
    }
    if k >= site.oc {
        return illegal(format!("makes {} channels, no more than the growth {k}", site.oc));
    }
    if site.oc - k > site.ic {
        return illegal(format!("has {} input channels where {} are to be passed on", site.ic, site.oc - k));
    }
    Ok(())
}

fn plain(ed: &mut Editor, site: &Site, choice: &Choice) -> Result<()> {
    let x = site.x.clone();
    layer(ed, site, choice, &x, site.ic, Gain::Closing)
}

fn with_bottleneck(ed: &mut Editor, site: &Site, choice: &Choice) -> Result<()> {
    let wide = 4 * growth(site, choice);
    let w = ed.weights("reduce", site, &[wide, site.ic, 1, 1], Gain::Unit)?;
    let y = ed.conv("reduce", &site.x, &w, None, &Window::POINT);
    let y = ed.relu("reduce_relu", &y);
    layer(ed, site, choice, &y, wide, Gain::ClosingAfterRelu)
}

fn layer(ed: &mut Editor, site: &Site, choice: &Choice, x: &str, ic: usize, gain: Gain) -> Result<()> {
    let k = growth(site, choice);
    let passed = site.oc - k;
    let [a, b] = site.axes;
    let w = ed.weights("grow", site, &[k, ic, a.k, b.k], gain)?;
    let bias = ed.part_of_bias("grow", site, passed, site.oc)?;
    let new = ed.conv("grow", x, &w, bias.as_deref(), &Window::of(&site.axes));
    let old = if passed == site.ic { site.x.clone() } else { ed.channels("pass", &site.x, 0, passed)? };
    let y = ed.node("concat", "Concat", &[&old, &new], &[("axis", Attr::Int(1))]);
    ed.finish(&y, &site.y)
}
