//! Products with weights of four or eight bits where bytes can be multiplied: codes in panels, vectors in fixed point
//! ([`crate::simd::digits`]).

use super::few_bits::FewBits;
use super::gemv::{After, PARTS_PER_THREAD};
use super::kept::{Kept, summed};
use crate::engine::pool::{Grid, Pool};
use crate::simd::digits::{Blocks, fix, products, products_of_two};
use crate::simd::{Isa, multiplies_bytes};
use crate::tensor::Pages;
use crate::tensor::map;

/// A matrix of codes in panels.
#[derive(Debug)]
pub struct PackedBits {
    isa: Isa,
    k: usize,
    n: usize,
    blocks: Blocks,
    /// `[panel][line][2 · LANES]`, at the end perhaps of one vector; each word as the bits of an `f32`.
    panels: Pages,
}

/// Bytes of panels that a task multiplies at least.
const PART: usize = 64 << 10;
/// Rows that a task takes: in fixed point they stay in the second-level cache while panel after panel passes.
const ROWS: usize = 64;

impl PackedBits {
    /// How a matrix lies in panels, if it can and if that is worth its while on this CPU.
    pub fn blocks(isa: Isa, w: &FewBits) -> Option<Blocks> {
        (multiplies_bytes(isa) && w.fits()).then(|| laid(w)).flatten()
    }

    /// Packs it, or finds it where packed weights are kept. The blocks are what [`PackedBits::blocks`] gave.
    pub fn new(isa: Isa, w: &FewBits, blocks: Blocks, kept: Option<&Kept>) -> PackedBits {
        let l = isa.lanes();
        let len = w.n.next_multiple_of(l) * blocks.panel();
        let bytes = w.data.bytes().unwrap_or_default();
        let pack = || {
            let panels = panels(l, w, &blocks, bytes, len);
            map::release(bytes);
            panels
        };
        let panels = match kept.zip(map::identity(&w.data).filter(|_| w.data.is_file_backed())) {
            Some((kept, of)) => {
                let factors = (summed(w.scales.bytes()), summed(w.zeros.bytes()));
                kept.pages(of, ("few bits", isa, blocks, w.by_column, w.signed, w.n, factors), len, pack)
            }
            None => pack(),
        };
        PackedBits { isa, k: w.k, n: w.n, blocks, panels }
    }

    /// Bytes of it.
    pub fn bytes(&self) -> usize {
        self.panels.bytes().len()
    }

    /// Whether the same vector in fixed point meets both.
    pub fn is_like(&self, other: &PackedBits) -> bool {
        (self.isa, self.k, self.blocks) == (other.isa, other.k, other.blocks)
    }

    /// Columns.
    #[cfg(test)]
    pub fn n(&self) -> usize {
        self.n
    }

    /// Words of `m` rows in fixed point.
    pub fn fixed(&self, m: usize) -> usize {
        m * self.blocks.fixed()
    }

    /// `dst[m][n] = act(alpha · x[m][k] · W + bias[n] + residual)`; `fixed` is room for the rows in fixed point.
    ///
    /// Panics on lengths that do not fit.
    pub fn product(&self, pool: &Pool, m: usize, x: &[f32], fixed: &mut [i32], after: After<'_>, dst: &mut [f32]) {
        let PackedBits { isa, k, n, blocks, ref panels } = *self;
        assert!(x.len() == m * k && dst.len() == m * n && fixed.len() == self.fixed(m), "few bits {m}x{k}x{n}");
        assert!(after.fits(m, n), "few bits {m}x{k}x{n}: bias or residual");
        if dst.is_empty() {
            return;
        }
        let row = blocks.fixed();
        if m == 1 {
            fix_vector(pool, isa, &blocks, x, fixed, |i, parts| &panels[i * (panels.len() / parts)..]);
        } else {
            // Arithmetic is what takes the time.
            pool.for_chunks(fixed, row, |i, to, _| fix(isa, &blocks, &x[i * k..][..k], &[], to));
        }
        let fixed = &*fixed;
        let (nr, lines) = (isa.nr(), blocks.panel());
        let step = n.div_ceil(parts(pool.threads(), panels.len() * m.min(16))).next_multiple_of(nr);
        let grid = Grid { outer: 1, a: 1, b: m, len: n, a_tile: 1, b_tile: m.min(ROWS), len_tile: step };
        pool.for_tiles(dst, grid, |mut tile, _| {
            let (n0, b0, wide) = (tile.c0, tile.b0, tile.seg_len());
            let row = |i: usize| &fixed[(b0 + i) * row..][..row];
            if tile.b_len() == 1 {
                let y = tile.seg(0, 0);
                products(isa, &blocks, &panels[n0 * lines..], row(0), y);
                return after.apply(isa, b0 * n + n0, n0, y);
            }
            // Each panel for all rows.
            for c in (0..wide).step_by(nr) {
                let here = nr.min(wide - c);
                let codes = &panels[(n0 + c) * lines..][..here.next_multiple_of(isa.lanes()) * lines];
                for i in (0..tile.b_len()).step_by(2) {
                    let mut sums = [[0.0f32; 32]; 2];
                    let [a, b] = &mut sums;
                    let (a, b) = (&mut a[..here], &mut b[..here]);
                    let both = i + 1 < tile.b_len();
                    if both {
                        products_of_two(isa, &blocks, codes, [row(i), row(i + 1)], [a, b]);
                    } else {
                        products(isa, &blocks, codes, row(i), a);
                    }
                    for (j, sums) in sums.iter().enumerate().take(1 + usize::from(both)) {
                        let y = &mut tile.seg(0, i + j)[c..c + here];
                        y.copy_from_slice(&sums[..here]);
                        after.apply(isa, (b0 + i + j) * n + n0 + c, n0 + c, y);
                    }
                }
            }
        });
    }
}

/// Parts for so many values of panels.
fn parts(threads: usize, values: usize) -> usize {
    let most = if threads == 1 { 1 } else { PARTS_PER_THREAD * threads };
    (4 * values / PART).clamp(1, most)
}

/// A vector in fixed point, a part by each thread, which meanwhile asks for the panels it begins with: `ahead(part, parts)`.
fn fix_vector<'a>(
    pool: &Pool,
    isa: Isa,
    blocks: &Blocks,
    x: &[f32],
    fixed: &mut [i32],
    ahead: impl Fn(usize, usize) -> &'a [f32] + Sync,
) {
    let count = blocks.count.div_ceil(pool.threads());
    let parts = blocks.count.div_ceil(count);
    pool.for_chunks(fixed, Blocks { count, ..*blocks }.fixed(), |i, to, _| {
        let x = &x[i * count * blocks.codes..];
        let count = count.min(blocks.count - i * count);
        let x = &x[..x.len().min(count * blocks.codes)];
        fix(isa, &Blocks { count, ..*blocks }, x, ahead(i, parts), to);
    });
}

/// Matrices that meet the same vector one after the other, as one product.
#[derive(Debug)]
pub struct Together {
    matrices: Vec<PackedBits>,
    /// Where the tasks' parts of the result begin, and its end.
    starts: Vec<usize>,
    /// The matrix of each part, and the part's first column.
    from: Vec<(usize, usize)>,
}

impl Together {
    /// Of matrices that are like each other, for so many threads. Panics if there are none, or others.
    pub fn new(matrices: Vec<PackedBits>, threads: usize) -> Together {
        assert!(matrices.iter().all(|m| m.is_like(&matrices[0])), "matrices that lie in panels of several kinds");
        let nr = matrices[0].isa.nr();
        let columns: usize = matrices.iter().map(|m| m.n).sum();
        let parts = parts(threads, matrices.iter().map(|m| m.panels.len()).sum());
        let step = columns.div_ceil(parts).next_multiple_of(nr).max(nr);
        let (mut starts, mut from, mut at) = (Vec::new(), Vec::new(), 0);
        for (i, m) in matrices.iter().enumerate() {
            // Of each matrix as many columns as the others' parts have, or nearly: parts of equal size.
            let own = m.n.div_ceil(m.n.div_ceil(step).max(1)).next_multiple_of(nr);
            for col in (0..m.n).step_by(own.max(1)) {
                starts.push(at + col);
                from.push((i, col));
            }
            at += m.n;
        }
        starts.push(at);
        Together { matrices, starts, from }
    }

    /// The matrices.
    pub fn matrices(&self) -> &[PackedBits] {
        &self.matrices
    }

    /// `act(alpha · x · W + bias)` of each matrix, one result behind the other; `fixed` is room for the vector in fixed point.
    ///
    /// Panics on lengths that do not fit.
    pub fn product(&self, pool: &Pool, x: &[f32], fixed: &mut [i32], after: &[After<'_>], dst: &mut [f32]) {
        let Together { matrices, starts, from } = self;
        let PackedBits { isa, k, blocks, .. } = matrices[0];
        assert!(x.len() == k && fixed.len() == blocks.fixed() && after.len() == matrices.len(), "few bits {k}");
        assert!(after.iter().zip(matrices).all(|(a, m)| a.fits(1, m.n)), "few bits {k}: bias");
        if dst.is_empty() {
            return;
        }
        let panels = |part: usize| {
            let (matrix, col) = from[part];
            &matrices[matrix].panels[col * blocks.panel()..]
        };
        fix_vector(pool, isa, &blocks, x, fixed, |i, parts| panels(i * from.len() / parts));
        let fixed = &*fixed;
        pool.for_parts(dst, starts, |part, y, _| {
            let (matrix, col) = from[part];
            products(isa, &blocks, panels(part), fixed, y);
            after[matrix].apply(isa, col, col, y);
        });
    }
}

/// The blocks of a matrix, if they can be laid in lines.
pub(super) fn laid(w: &FewBits) -> Option<Blocks> {
    let in_word = 32 / w.bits;
    let codes = w.block.min(w.k);
    // A block starts with a word, in the file too.
    let whole = w.blocks() == 1 || (w.block.is_multiple_of(in_word) && w.by_column);
    // Codes with a sign are moved to those without.
    let moved = if w.signed { 128.0 } else { 0.0 };
    let zero = match w.zeros[..] {
        [zero] if zero.fract() == 0.0 && zero.abs() <= 256.0 => Some((zero + moved) as i32),
        _ => None,
    };
    let blocks = Blocks { bits: w.bits, count: w.blocks(), codes, zero };
    (whole && w.k > 0 && blocks.fit()).then_some(blocks)
}

/// Lines of codes, scales and zeros.
fn panels(l: usize, w: &FewBits, blocks: &Blocks, bytes: &[u8], len: usize) -> Pages {
    let mut to = Pages::part(len);
    let moved = if w.signed { 0x8080_8080u32 } else { 0 };
    let mut rest = &mut to[..];
    for first in (0..w.n).step_by(2 * l) {
        let wide = (w.n - first).next_multiple_of(l).min(2 * l);
        let columns = first..(first + wide).min(w.n);
        let (panel, others) = rest.split_at_mut(blocks.panel() * wide);
        rest = others;
        for (b, block) in panel.chunks_exact_mut(blocks.block() * wide).enumerate() {
            let (codes, factors) = block.split_at_mut(blocks.lines() * wide);
            let k0 = b * w.block;
            if w.by_column {
                // Words as the file has them; at its end perhaps fewer bytes than a word.
                let mut from = [(&[][..], [0u8; 4]); 32];
                for (from, col) in from.iter_mut().zip(columns.clone()) {
                    let at = col * w.row_bytes + k0 * w.bits / 8;
                    let here = &bytes[at..(at + 4 * blocks.lines()).min((col + 1) * w.row_bytes)];
                    let (words, rest) = here.as_chunks::<4>();
                    from.0 = words;
                    from.1[..rest.len()].copy_from_slice(rest);
                }
                for (line, to) in codes.chunks_exact_mut(wide).enumerate() {
                    for (to, (words, last)) in to.iter_mut().zip(&from[..columns.len()]) {
                        *to = f32::from_bits(u32::from_le_bytes(*words.get(line).unwrap_or(last)) ^ moved);
                    }
                }
            } else {
                for (line, to) in codes.chunks_exact_mut(wide).enumerate() {
                    let row = |j: usize| {
                        let r = k0 + 4 * line + j;
                        if r < w.k { &bytes[r * w.row_bytes..][columns.clone()] } else { &[] }
                    };
                    let rows = [row(0), row(1), row(2), row(3)];
                    for (c, to) in to[..columns.len()].iter_mut().enumerate() {
                        let word = rows.map(|r| r.get(c).copied().unwrap_or(0));
                        *to = f32::from_bits(u32::from_le_bytes(word) ^ moved);
                    }
                }
            }
            for (c, col) in columns.clone().enumerate() {
                let (scale, zero) = w.scale(col, b);
                factors[c] = scale;
                if blocks.zero.is_none() {
                    factors[wide + c] = zero + if w.signed { 128.0 } else { 0.0 };
                }
            }
        }
    }
    to
}
