//! Deformable convolution: every tap is sampled where another convolution says (arXiv:1703.06211), in version 2 also weighted
//! (arXiv:1811.11168). The layer's own weights are kept; offsets are seeded and small.
//!
//! 3×3 on 512 channels adds 82,962 parameters, version 2 124,443.

use super::edit::{Gain, Window};
use super::{Block, Choice, Editor, Entry, Fit, Knob, Make, Site, illegal, unwise};
use crate::error::Result;
use crate::ops::spec::Attr;

const GROUPS: Knob = Knob {
    name: "groups",
    default: 1.0,
    range: (1.0, 64.0),
    whole: true,
    about: "channel groups with offsets of their own",
};

/// The table's row.
pub static ENTRY: Entry = Entry {
    name: "deformable",
    about: "taps sampled where a convolution says",
    knobs: &[GROUPS],
    make: Make::Block(Block { fits, build: plain, adds: true, opset: 19 }),
};

/// The table's row of version 2.
pub static MODULATED: Entry = Entry {
    name: "deformable-v2",
    about: "the same, and each sample weighted",
    knobs: &[GROUPS],
    make: Make::Block(Block { fits, build: modulated, adds: true, opset: 19 }),
};

/// Fewest input channels from which offsets can be told.
const FEW: usize = 16;

fn fits(site: &Site, choice: &Choice) -> Fit {
    let groups = choice.size("groups");
    match site {
        s if s.is_pointwise() => illegal("is pointwise: there are no taps to move"),
        s if !s.ic.is_multiple_of(groups) => illegal(format!("{} channels do not split into {groups} groups", s.ic)),
        s if s.ic < FEW => unwise(format!("has only {} input channels to tell offsets from", s.ic)),
        _ => Ok(()),
    }
}

fn plain(ed: &mut Editor, site: &Site, choice: &Choice) -> Result<()> {
    block(ed, site, choice.size("groups"), false)
}

fn modulated(ed: &mut Editor, site: &Site, choice: &Choice) -> Result<()> {
    block(ed, site, choice.size("groups"), true)
}

fn block(ed: &mut Editor, site: &Site, groups: usize, modulated: bool) -> Result<()> {
    let [a, b] = site.axes;
    let offsets = 2 * site.taps() * groups;
    let all = if modulated { offsets / 2 * 3 } else { offsets };
    let window = Window::of(&site.axes);
    let w = ed.weights("offset", site, &[all, site.ic, a.k, b.k], Gain::Share(0.1))?;
    let zeros = crate::tensor::Tensor::from_vec(vec![0f32; all], &[all])?;
    let bias = ed.constant("offset.bias", zeros);
    let told = ed.conv("offset", &site.x, &w, Some(&bias), &window);
    let bias = site.bias.as_ref().map_or("", |b| b.0.as_str());
    let mut attrs = window.attrs();
    attrs.push(("offset_group", Attr::Int(groups as i64)));
    let y = if modulated {
        let moves = ed.channels("moves", &told, 0, offsets)?;
        let mask = ed.channels("mask", &told, offsets, all)?;
        let mask = ed.node("mask_sigmoid", "Sigmoid", &[&mask], &[]);
        ed.node("deform", "DeformConv", &[&site.x, &site.weight_name, &moves, bias, &mask], &attrs)
    } else {
        let inputs = [&site.x, &site.weight_name, &told, bias];
        let given = if bias.is_empty() { 3 } else { 4 };
        ed.node("deform", "DeformConv", &inputs[..given], &attrs)
    };
    ed.finish(&y, &site.y)
}
