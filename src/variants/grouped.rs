//! Grouped convolution with a channel shuffle behind it (ShuffleNet, arXiv:1707.01083): `1/g` of the multiply-adds.
//!
//! The weights of the connections that remain are kept.

use super::edit::Window;
use super::{Block, Choice, Editor, Entry, Fit, Knob, Make, Site, illegal};
use crate::error::Result;
use crate::ops::spec::Attr;
use crate::tensor::Tensor;

/// The table's row.
pub static ENTRY: Entry = Entry {
    name: "grouped",
    about: "grouped convolution and channel shuffle",
    knobs: &[Knob { name: "groups", default: 4.0, range: (2.0, 1024.0), whole: true, about: "number of groups" }],
    make: Make::Block(Block { fits, build, adds: false, opset: 7 }),
};

fn fits(site: &Site, choice: &Choice) -> Fit {
    let g = choice.size("groups");
    match site {
        s if !s.ic.is_multiple_of(g) => illegal(format!("{} input channels do not split into {g} groups", s.ic)),
        s if !s.oc.is_multiple_of(g) => illegal(format!("{} output channels do not split into {g} groups", s.oc)),
        _ => Ok(()),
    }
}

fn build(ed: &mut Editor, site: &Site, choice: &Choice) -> Result<()> {
    let g = choice.size("groups");
    let [a, b] = site.axes;
    let (icg, ocg) = (site.ic / g, site.oc / g);
    let (dense, ic, taps) = (site.weight.clone(), site.ic, site.taps());
    let kept = Tensor::lazy(&[site.oc, icg, a.k, b.k], move || {
        let w = dense.view::<f32>().map(|v| v.into_owned()).unwrap_or_default();
        let rows = w.chunks_exact(ic * taps).enumerate();
        // Output channel o belongs to group o / ocg, which sees inputs of the same group.
        rows.flat_map(|(o, row)| row[o / ocg * icg * taps..][..icg * taps].iter().copied()).collect::<Vec<f32>>()
    })?;
    let w = ed.constant("grouped.weight", kept);
    let bias = site.bias.as_ref().map(|b| b.0.as_str());
    let y = ed.conv("grouped", &site.x, &w, bias, &Window::of(&site.axes).groups(g));
    let (h, w) = (a.o as i64, b.o as i64);
    // A leading 0 keeps the batch, whatever it is.
    let apart = ed.ints("shuffle_apart", &[0, g as i64, ocg as i64, h, w])?;
    let together = ed.ints("shuffle_together", &[0, site.oc as i64, h, w])?;
    let y = ed.node("shuffle_split", "Reshape", &[&y, &apart], &[]);
    let y = ed.node("shuffle_turn", "Transpose", &[&y], &[("perm", Attr::Ints(vec![0, 2, 1, 3, 4]))]);
    let y = ed.node("shuffle_join", "Reshape", &[&y, &together], &[]);
    ed.finish(&y, &site.y)
}
