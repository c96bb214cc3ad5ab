//! Channels put together anew: joins, cuts and shuffles of channels that do not fall on block borders; and plain copies.
//!
//! In the layout NCHWc a block of the result takes its lanes from a few blocks of the operands, the same ones for every pixel. Ladder:
//! one lane at a time → per pixel, each source block permuted as one vector and blended in under its mask → whole blocks that only
//! move are copied. A plain tensor's channels are copied plane by plane.

use super::task::{Accept, Entry, Kind, Layout, Prepared, Task, Verdict};
use crate::engine::pool::{Grid, Pool};
use crate::error::{Error, Result};
use crate::simd::{Isa, Simd, SimdOp, dispatch};

pub(super) const ENTRY: Entry = Entry { name: "channels", accepts, prepare, tolerance: 0.0 };
/// Copies operands to destinations; the planner asks for it by name.
pub const COPY: Entry = Entry { name: "copy", accepts: accepts_copy, prepare: prepare_copy, tolerance: 0.0 };

// -------------------------------------------------------------------------------------------------------------------- copy

struct Copy;

/// Values per task.
const CHUNK: usize = 1 << 15;

fn accepts_copy(task: &Task) -> Verdict {
    match task.kind {
        Kind::Copy => Ok(Accept::of(task.layouts.to_vec(), task.layouts[0])),
        _ => Err(String::new()),
    }
}

fn prepare_copy(_: &Task) -> Result<Box<dyn Prepared>> {
    Ok(Box::new(Copy))
}

impl Prepared for Copy {
    fn run(&self, pool: &Pool, srcs: &[&[f32]], dsts: &mut [&mut [f32]]) {
        for (src, dst) in srcs.iter().zip(dsts) {
            pool.for_chunks(dst, CHUNK, |i, part, _| part.copy_from_slice(&src[i * CHUNK..][..part.len()]));
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------- channels

/// One source block of a destination block.
#[derive(Debug, Clone)]
struct Part {
    operand: usize,
    block: usize,
    /// For each lane of the destination: the lane it comes from, and whether it comes from here.
    lanes: [i32; 16],
    mask: [f32; 16],
}

impl Part {
    fn is_whole(&self, l: usize) -> bool {
        (0..l).all(|j| self.lanes[j] == j as i32 && self.mask[j] == 1.0)
    }
}

struct Channels {
    isa: Isa,
    n: usize,
    pixels: usize,
    layout: Layout,
    /// Channels of each operand.
    channels: Vec<usize>,
    /// For each destination, for each of its channels.
    maps: Vec<Vec<(usize, usize)>>,
    /// For each destination, for each of its blocks.
    blocks: Vec<Vec<Vec<Part>>>,
}

fn accepts(task: &Task) -> Verdict {
    let Kind::Channels(_) = task.kind else { return Err(String::new()) };
    let layout = if task.layouts.contains(&Layout::Blocked) { Layout::Blocked } else { Layout::Plain };
    Ok(Accept::of(vec![layout; task.srcs.len()], layout))
}

fn prepare(task: &Task) -> Result<Box<dyn Prepared>> {
    let Kind::Channels(maps) = task.kind else { return Err(Error::run("not a map of channels")) };
    let layout = accepts(task).map_err(Error::run)?.dst;
    let l = task.isa.lanes();
    let blocks_of = |map: &Vec<(usize, usize)>| -> Vec<Vec<Part>> {
        map.chunks(l)
            .map(|lanes| {
                let mut parts: Vec<Part> = Vec::new();
                for (j, &(operand, channel)) in lanes.iter().enumerate() {
                    let block = channel / l;
                    let i = parts.iter().position(|p| (p.operand, p.block) == (operand, block)).unwrap_or_else(|| {
                        parts.push(Part { operand, block, lanes: [0; 16], mask: [0.0; 16] });
                        parts.len() - 1
                    });
                    parts[i].lanes[j] = (channel % l) as i32;
                    parts[i].mask[j] = 1.0;
                }
                // Lanes beyond the last channel have no meaning: a block that is moved whole may bring its own.
                if let [only] = &mut parts[..]
                    && (0..lanes.len()).all(|j| only.lanes[j] == j as i32)
                {
                    (0..l).for_each(|j| (only.lanes[j], only.mask[j]) = (j as i32, 1.0));
                }
                parts
            })
            .collect()
    };
    Ok(Box::new(Channels {
        isa: task.isa,
        n: task.srcs[0][0],
        pixels: task.srcs[0][2..].iter().product(),
        layout,
        channels: task.srcs.iter().map(|s| s[1]).collect(),
        blocks: maps.iter().map(blocks_of).collect(),
        maps: maps.clone(),
    }))
}

impl Prepared for Channels {
    fn run(&self, pool: &Pool, srcs: &[&[f32]], dsts: &mut [&mut [f32]]) {
        let (px, l) = (self.pixels, self.isa.lanes());
        for ((dst, map), blocks) in dsts.iter_mut().zip(&self.maps).zip(&self.blocks) {
            if self.layout == Layout::Plain {
                pool.for_chunks(dst, px.max(1), |i, plane, _| {
                    let (operand, channel) = map[i % map.len()];
                    let from = (i / map.len() * self.channels[operand] + channel) * px;
                    plane.copy_from_slice(&srcs[operand][from..][..plane.len()]);
                });
                continue;
            }
            let b_tile = (CHUNK / l).clamp(1, px);
            let grid = Grid { outer: self.n, a: blocks.len(), b: px, len: l, a_tile: 1, b_tile, len_tile: l };
            pool.for_tiles(dst, grid, |mut tile, _| {
                let (image, first) = (tile.outer, tile.b0);
                let parts = &blocks[tile.a0];
                let out = tile.plane(0);
                let len = out.len();
                let src = |p: &Part| {
                    let at = (image * self.channels[p.operand].div_ceil(l) + p.block) * px + first;
                    &srcs[p.operand][at * l..][..len]
                };
                match parts.as_slice() {
                    [] => out.fill(0.0),
                    [p] if p.is_whole(l) => {
                        let from = src(p);
                        out.copy_from_slice(from);
                    }
                    [p] => {
                        let from = [src(p)];
                        dispatch(self.isa, Gather { parts: &[p], from: &from, out, fresh: true });
                    }
                    many => {
                        for (i, two) in many.chunks(2).enumerate() {
                            let from: [&[f32]; 2] = [src(&two[0]), src(&two[two.len() - 1])];
                            let parts = [&two[0], &two[two.len() - 1]];
                            let job = Gather { parts: &parts[..two.len()], from: &from, out, fresh: i == 0 };
                            dispatch(self.isa, job);
                        }
                    }
                }
            });
        }
    }
}

/// Up to two source blocks into one, all pixels.
struct Gather<'a> {
    parts: &'a [&'a Part],
    from: &'a [&'a [f32]],
    out: &'a mut [f32],
    /// Lanes of other sources become zero rather than stay.
    fresh: bool,
}

impl SimdOp for Gather<'_> {
    type Out = ();
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let l = S::LANES;
        let Gather { parts, from, out, fresh } = self;
        let zero = s.splat(0.0);
        let (p, q) = (parts[0], parts[parts.len() - 1]);
        let (ip, iq) = (s.load_int(&p.lanes), s.load_int(&q.lanes));
        let (mp, mq) = (s.lt(zero, s.load(&p.mask)), s.lt(zero, s.load(&q.mask)));
        let pairs = from[0].chunks_exact(l).zip(from[from.len() - 1].chunks_exact(l));
        for (y, (a, b)) in out.chunks_exact_mut(l).zip(pairs) {
            let start = if fresh { zero } else { s.load(y) };
            let v = s.select(mp, s.permute(s.load(a), ip), start);
            s.store(y, s.select(mq, s.permute(s.load(b), iq), v));
        }
    }
}
