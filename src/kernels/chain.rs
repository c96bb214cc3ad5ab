//! A pointwise, a depthwise and a pointwise convolution in one pass: the inverted residual block of MobileNetV2 and what descends
//! from it, or two of the three. The wide maps in the middle are never written whole.
//!
//! Ladder: three passes over memory → bands of output rows, the middle of a band in the second-level cache → the expanded rows of
//! two channel blocks at a time, which the depthwise convolution reads while they are hot → rows that the next band needs again are
//! kept, not computed twice → bands dealt out to the threads (there, the first rows of a task are computed twice), or channel blocks
//! where no pointwise convolution at the end needs them all.

use super::conv::shape as conv_shape;
use super::conv_blocked::{Conv, ConvShape, SrcLayout};
use super::epilogue::Act;
use super::kept::Source;
use super::task::{Accept, ConvChain, ConvPart, Entry, Kind, Layout, Prepared, Task, Verdict};
use crate::engine::pool::{Grid, Pool, Scratch};
use crate::error::{Error, Result};
use crate::simd::depthwise::{Depthwise, depthwise};
use crate::simd::{Isa, TileMut};

pub(super) const ENTRY: Entry = Entry { name: "conv-chain", accepts, prepare, tolerance: 1e-5 };

/// Bytes of depthwise results that a band keeps.
const BAND_BYTES: usize = 160 << 10;
/// Bytes of expanded rows of two channel blocks.
const PAIR_BYTES: usize = 64 << 10;
/// Bytes of a map from which on writing and reading it again costs more than working in bands.
const WORTH_BYTES: usize = 700 << 10;

/// Bytes of weights that stay close from band to band.
const CLOSE_BYTES: usize = 512 << 10;

/// Channels in from which on a pointwise convolution gains more from all its pixels at once ([`super::strassen`]) than from a band.
const DEEP: usize = 384;

/// Output rows of a band over vectors of `l` lanes, with a convolution before and after the depthwise one or without.
fn band_rows(s: &ConvShape, l: usize, expand: bool, project: bool) -> usize {
    let kept = if project { s.oc.div_ceil(l) * l * s.ow() * 4 } else { 0 };
    let pair = if expand { 2 * l * s.iw * s.sh * 4 } else { 0 };
    let fit = |budget: usize, row: usize| budget.checked_div(row).unwrap_or(usize::MAX);
    fit(BAND_BYTES, kept).min(fit(PAIR_BYTES, pair)).clamp(1, s.oh().max(1))
}

/// Whether a chain of these parts is worth its bands: what would otherwise be written between them leaves the second-level cache, and is
/// more than the weights that every band reads again; and no part is so deep that it runs better by itself.
pub fn worth(expand: Option<&ConvPart>, depthwise: &ConvPart, project: Option<&ConvPart>) -> bool {
    let Some(shape) = conv_shape(&depthwise.geometry) else { return false };
    let bytes = |p: &ConvPart| {
        let g = &p.geometry;
        4 * g.oc * g.axes.iter().map(|a| a.o).product::<usize>()
    };
    let maps = [expand, project.map(|_| depthwise)].into_iter().flatten().map(bytes);
    let weights = |p: &ConvPart| 4 * p.geometry.ic * p.geometry.oc;
    let weights: usize = [expand, project].into_iter().flatten().map(weights).sum();
    // Of the widest vectors: plans of several instruction sets are to have the same steps.
    let rows = band_rows(&shape, 16, expand.is_some(), project.is_some());
    let again = if weights > CLOSE_BYTES { (shape.oh().div_ceil(rows) - 1) * weights } else { 0 };
    let deep = [expand, project].into_iter().flatten().any(|p| p.geometry.ic >= DEEP);
    !deep && maps.clone().any(|map| map > WORTH_BYTES) && 2 * maps.sum::<usize>() > again
}

fn accepts(task: &Task) -> Verdict {
    match task.kind {
        Kind::ConvChain(_) => Ok(Accept::of(vec![Layout::Blocked; task.srcs.len()], Layout::Blocked)),
        _ => Err(String::new()),
    }
}

fn prepare(task: &Task) -> Result<Box<dyn Prepared>> {
    let Kind::ConvChain(chain) = task.kind else { return Err(Error::run("not a chain of convolutions")) };
    let ConvChain { expand, depthwise, project, residual } = chain.as_ref();
    let ready = |p: &ConvPart| -> Result<Part> {
        let shape = conv_shape(&p.geometry).ok_or_else(|| Error::run("more than two spatial axes"))?;
        let (weights, bias) = (Source::of(&p.weights, task.kept())?, p.bias.as_deref());
        let conv = Conv::sharing(task.isa, shape, SrcLayout::Blocked, weights, bias, p.share.as_ref());
        Ok(Part { conv, act: p.act })
    };
    Ok(Box::new(Chain {
        isa: task.isa,
        expand: expand.as_ref().map(ready).transpose()?,
        depthwise: ready(depthwise)?,
        project: project.as_ref().map(ready).transpose()?,
        residual: *residual,
    }))
}

struct Part {
    conv: Conv,
    act: Act,
}

struct Chain {
    isa: Isa,
    expand: Option<Part>,
    depthwise: Part,
    project: Option<Part>,
    residual: bool,
}

/// Rows of the map in the middle that a band reads: from the first to before the last.
struct Band {
    /// Output rows.
    out: std::ops::Range<usize>,
    /// Input rows of the depthwise convolution.
    read: std::ops::Range<usize>,
}

impl Chain {
    fn band(&self, first: usize, rows: usize) -> Band {
        let s = self.depthwise.conv.shape();
        let top = (first * s.sh).saturating_sub(s.ph).min(s.ih);
        let end = ((first + rows - 1) * s.sh + (s.kh - 1) * s.dh + 1).saturating_sub(s.ph).clamp(top, s.ih);
        Band { out: first..first + rows, read: top..end }
    }

    /// Output rows of a band.
    fn band_rows(&self) -> usize {
        band_rows(self.depthwise.conv.shape(), self.isa.lanes(), self.expand.is_some(), self.project.is_some())
    }

    /// Rows of the expanded map that a band needs again of those that the bands before `first` had read.
    fn again(&self, first: usize) -> std::ops::Range<usize> {
        let s = self.depthwise.conv.shape();
        let read = self.band(first - 1, 1).read;
        let next = self.band(first, 1).read.start.min(read.end);
        let again = ((s.kh - 1) * s.dh + 1).saturating_sub(s.sh).min(s.ih);
        if read.end - next <= again { next..read.end } else { read.end..read.end }
    }

    /// The output rows and blocks of one tile, band by band; all blocks where a pointwise convolution follows. A thread whose last
    /// task of this run (`ticket`) ended where this one begins has the expanded rows that both need.
    fn rows(
        &self,
        x: &[f32],
        residual: Option<&[f32]>,
        tile: &mut TileMut<'_>,
        first: usize,
        ticket: u64,
        scratch: &mut Scratch,
    ) {
        let (s, l) = (*self.depthwise.conv.shape(), self.isa.lanes());
        let (all, ow, line) = (s.oc.div_ceil(l), s.ow(), s.iw * l);
        let (block0, cb) = if self.project.is_some() { (0, all) } else { (tile.a0, tile.a_len()) };
        let per_row = if self.project.is_some() { ow } else { 1 };
        let rows = tile.b_len() / per_row;
        let step = self.band_rows();
        let most_read = ((step - 1) * s.sh + (s.kh - 1) * s.dh + 1).min(s.ih);
        let Scratch { a, b, tag_a, tag_b } = scratch;
        let image = tile.outer;
        let place = |row: usize| (ticket, image * s.oh() + row);
        let goes_on = first > 0 && *tag_a == place(first);
        (*tag_a, *tag_b) = ((0, 0), (0, 0));
        // Expanded rows of two blocks, and of all blocks those that the next band needs again.
        let again = ((s.kh - 1) * s.dh + 1).saturating_sub(s.sh).min(s.ih);
        let (pair_len, kept_len) =
            if self.expand.is_some() { (2 * most_read * line, cb * again * line) } else { (0, 0) };
        let (pair, kept) = Scratch::grow(a, pair_len + kept_len).split_at_mut(pair_len);
        let middle = Scratch::grow(b, if self.project.is_some() { cb * step * ow * l } else { 0 });
        // Rows of the expanded map that `kept` holds.
        let mut held = if goes_on { self.again(first) } else { 0..0 };
        let mut at = 0;
        while at < rows {
            let band = self.band(first + at, step.min(rows - at));
            let (count, read) = (band.out.len(), band.read.clone());
            let keep = self.again(band.out.end);
            let mut block = 0;
            while block < cb {
                let nb = if self.expand.is_some() { (cb - block).min(2) } else { 1 };
                let len = read.len() * line;
                if let Some(part) = &self.expand {
                    let ready = held.start.max(read.start)..held.end.max(read.start).min(read.end);
                    let ready = if ready.start == read.start && !ready.is_empty() { ready.len() } else { 0 };
                    for i in 0..nb {
                        let skip = read.start.saturating_sub(held.start);
                        let from = &kept[((block + i) * again + if ready > 0 { skip } else { 0 }) * line..];
                        pair[i * len..][..ready * line].copy_from_slice(&from[..ready * line]);
                    }
                    if ready < read.len() {
                        let mut to = TileMut::new(&mut pair[..nb * len], nb, read.len() * s.iw, l);
                        let mut to = to.part(ready * s.iw, (read.len() - ready) * s.iw);
                        to.a0 = block0 + block;
                        let source = part.conv.blocks_from(x, tile.outer, (read.start + ready) * s.iw);
                        part.conv.pointwise_tile(source, None, part.act, &mut to);
                    }
                    for i in 0..nb {
                        let from = &pair[i * len..][(keep.start - read.start) * line..][..keep.len() * line];
                        kept[(block + i) * again * line..][..from.len()].copy_from_slice(from);
                    }
                }
                for i in 0..nb {
                    let here = block + i;
                    let plane = if self.expand.is_some() {
                        &pair[i * len..][..len]
                    } else {
                        let start = ((tile.outer * all + block0 + here) * s.ih + read.start) * line;
                        &x[start..start + len]
                    };
                    if self.project.is_some() {
                        let mut to =
                            TileMut::new(&mut middle[here * count * ow * l..][..count * ow * l], 1, count, ow * l);
                        let top = s.ph + read.start - band.out.start * s.sh;
                        self.window(block0 + here, plane, read.len(), top, 0, &mut to);
                    } else {
                        let mut to = tile.part(at, count);
                        to.b0 = band.out.start;
                        self.window(block0 + here, plane, read.len(), s.ph + read.start, here, &mut to);
                    }
                }
                block += nb;
            }
            held = keep;
            if let Some(part) = &self.project {
                let mut to = tile.part(at * ow, count * ow);
                let blocks = (&*middle, 0, count * ow * l);
                part.conv.pointwise_tile(blocks, residual, part.act, &mut to);
            }
            at += count;
        }
        *tag_a = place(first + rows);
    }

    /// The depthwise window of one block over `rows` rows of its plane, `top` rows of padding above.
    fn window(&self, block: usize, plane: &[f32], rows: usize, top: usize, a: usize, to: &mut TileMut<'_>) {
        let s = self.depthwise.conv.shape();
        let (clamp, after) = self.depthwise.act.split();
        let (wei, bias) = self.depthwise.conv.depthwise_weights(block);
        let job = Depthwise {
            src: plane,
            ih: rows,
            iw: s.iw,
            k: (s.kh, s.kw),
            stride: (s.sh, s.sw),
            pad: (top, s.pw),
            dilation: (s.dh, s.dw),
            wei,
            bias,
            residual: None,
            clamp,
        };
        depthwise(self.isa, &job, a, to);
        if let Some(act) = after {
            act.apply_tile(self.isa, to, a..a + 1);
        }
    }
}

impl Prepared for Chain {
    fn run(&self, pool: &Pool, srcs: &[&[f32]], dsts: &mut [&mut [f32]]) {
        let (s, l) = (self.depthwise.conv.shape(), self.isa.lanes());
        let (oh, ow) = (s.oh(), s.ow());
        let residual = self.residual.then(|| srcs[1]);
        let tasks = if pool.threads() == 1 { 1 } else { (4 * pool.threads()).div_ceil(s.n) };
        let rows = oh.div_ceil(tasks.min(oh.div_ceil(self.band_rows().min(oh.div_ceil(4)))).max(1));
        let oc = self.project.as_ref().map_or(s.oc, |p| p.conv.shape().oc);
        let ocb = oc.div_ceil(l);
        // Pixels for a pointwise end, rows for a depthwise one.
        let (b, len, per_row) = if self.project.is_some() { (oh * ow, l, ow) } else { (oh, ow * l, 1) };
        // Blocks where all threads have some: no row is computed twice then. Pairs of them share what they read.
        let pairs = ocb.div_ceil(2);
        let by_block = self.project.is_none() && pool.threads() > 1 && pairs >= 2 * pool.threads();
        let (a_tile, rows) = if by_block { (2 * pairs.div_ceil(tasks.max(pool.threads())), oh) } else { (ocb, rows) };
        let grid = Grid { outer: s.n, a: ocb, b, len, a_tile, b_tile: rows * per_row, len_tile: len };
        let ticket = pool.ticket();
        let unit = if by_block { b } else { per_row };
        pool.for_even_tiles(dsts[0], grid, unit, |mut tile, id| {
            let first = tile.b0 / per_row;
            pool.scratch(id, |scratch| self.rows(srcs[0], residual, &mut tile, first, ticket, scratch));
        });
    }
    fn packed_bytes(&self) -> usize {
        let parts = [self.expand.as_ref(), Some(&self.depthwise), self.project.as_ref()];
        parts.iter().flatten().map(|p| p.conv.packed_bytes()).sum()
    }
    fn detail(&self) -> String {
        let parts =
            [self.expand.as_ref().map(|_| "pointwise"), Some("depthwise"), self.project.as_ref().map(|_| "pointwise")];
        format!("{} in bands of {} rows", parts.into_iter().flatten().collect::<Vec<_>>().join(", "), self.band_rows())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::conv::Geometry;
    use crate::ops::window::Axis;
    use crate::tensor::Tensor;

    /// A convolution of `k × k` at stride 1 on square maps; its weights are not looked at.
    fn part(ic: usize, oc: usize, g: usize, k: usize, size: usize) -> ConvPart {
        let axis = Axis { k, s: 1, d: 1, begin: k / 2, end: k / 2, i: size, o: size };
        let geometry = Geometry { n: 1, ic, oc, g, axes: vec![axis; 2] };
        ConvPart { geometry, weights: Tensor::scalar(0.0f32), bias: None, act: Act::None, share: None }
    }

    #[test]
    fn bands_where_maps_are_wide_and_weights_few() {
        let worth = |expand: Option<usize>, middle: usize, project: Option<usize>, size: usize| {
            let before = expand.map(|c| part(c, middle, 1, 1, size));
            let after = project.map(|c| part(middle, c, 1, 1, size));
            super::worth(before.as_ref(), &part(middle, middle, middle, 3, size), after.as_ref())
        };
        assert!(worth(Some(16), 96, Some(24), 112), "an inverted residual on wide maps");
        assert!(worth(None, 128, Some(128), 147), "depthwise separable on wide maps");
        assert!(!worth(Some(96), 576, Some(96), 14), "maps that stay in the cache");
        assert!(!worth(None, 380, Some(728), 37), "a megabyte of weights read again by every band");
        assert!(worth(Some(380), 728, None, 300), "weights are read again, but maps are more");
        assert!(!worth(Some(384), 728, None, 300), "too deep for bands");
        assert!(!worth(None, 96, None, 112), "nothing beside it");
    }
}
