//! A stack of 3×3 convolutions in the place of a larger one: two for 5×5, three for 7×7, `n` for `2n + 1` (VGG, arXiv:1409.1556;
//! Inception v2, arXiv:1512.00567). The same window at stride 1, with a ReLU between.
//!
//! `9n/(2n + 1)²` of the multiply-adds at equal channels: 18/25 and 27/49. The layers between have the output's channels, so that
//! growing channels can cost more: 16 → 32 takes 13,824 products per position where a 5×5 takes 12,800.

use super::edit::{Gain, Window};
use super::{Block, Choice, Editor, Entry, Fit, Make, Site, illegal, unwise};
use crate::error::Result;

/// The table's row.
pub static ENTRY: Entry = Entry {
    name: "stacked-3x3",
    about: "two 3x3 for a 5x5, three for a 7x7",
    knobs: &[],
    make: Make::Block(Block { fits, build, adds: false, opset: 7 }),
};

/// Largest kernel worth a stack.
const LARGE: usize = 15;

/// The layers' windows: the stride in the first where that gives the same size, else in the last.
fn windows(site: &Site) -> Option<Vec<Window>> {
    let n = (site.square()? - 1) / 2;
    let [a, b] = site.axes;
    let pads = [a.begin, b.begin, a.end, b.end];
    // Padding is handed out from the first layer on, one position each.
    let share = |i: usize| pads.map(|p| usize::from(i < p.min(n)) + if i == 0 { p.saturating_sub(n) } else { 0 });
    let with = |strided: usize| -> Vec<Window> {
        let s = |i: usize| if i == strided { [a.s, b.s] } else { [1, 1] };
        (0..n).map(|i| Window { k: [3, 3], s: s(i), d: [1, 1], pads: share(i), group: 1 }).collect()
    };
    let size = |list: &[Window], axis: usize| {
        list.iter().try_fold(site.axes[axis].i, |i, w| {
            Some((i + w.pads[axis] + w.pads[axis + 2]).checked_sub(3)? / w.s[axis] + 1)
        })
    };
    [0, n - 1].map(with).into_iter().find(|list| (0..2).all(|axis| size(list, axis) == Some(site.axes[axis].o)))
}

fn fits(site: &Site, _: &Choice) -> Fit {
    match site.square() {
        None => illegal("has a window that is not square"),
        Some(k) if k < 5 || k.is_multiple_of(2) => illegal(format!("{k}x{k} is not made of several 3x3")),
        Some(k) if k > LARGE => unwise(format!("{k}x{k} would take {} layers", (k - 1) / 2)),
        _ if site.axes.iter().any(|a| a.d != 1) => illegal("is dilated"),
        _ if windows(site).is_none() => illegal("its stride and padding cannot be split over several layers"),
        _ => Ok(()),
    }
}

fn build(ed: &mut Editor, site: &Site, _: &Choice) -> Result<()> {
    let windows = windows(site).unwrap_or_default();
    let (mut x, mut ic) = (site.x.clone(), site.ic);
    for (i, window) in windows.iter().enumerate() {
        let role = format!("conv{}", i + 1);
        let last = i + 1 == windows.len();
        let gain = match (i, last) {
            (0, _) => Gain::Unit,
            (_, false) => Gain::AfterRelu,
            (_, true) => Gain::ClosingAfterRelu,
        };
        let w = ed.weights(&role, site, &[site.oc, ic, 3, 3], gain)?;
        let bias = site.bias.as_ref().filter(|_| last).map(|b| b.0.as_str());
        x = ed.conv(&role, &x, &w, bias, window);
        if !last {
            x = ed.relu(&format!("{role}_relu"), &x);
        }
        ic = site.oc;
    }
    ed.finish(&x, &site.y)
}
