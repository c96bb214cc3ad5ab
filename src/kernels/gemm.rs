//! Matrix product `C[m][n] = act(alpha · A[m][k] · B[k][n] + bias + residual)`, batched, any strides of A and B.
//!
//! Ladder: dot products → columns as vectors, B packed in panels `[panel][k][NR]` → register tile of MR rows × NR
//! columns → A packed once per thread tile by tile, `[tile][k block][row][lanes]`, so that a tile is read from end to end
//! ([`crate::simd::panel`]); where few columns meet it, read in place ([`crate::simd::strip`]) → blocks of k so that a panel of B
//! stays in the first-level cache and a block of A in the second → dynamic tasks of rows × panels.
//!
//! Constant B is packed once ([`PackedB`]); otherwise each task packs the columns it needs.

use super::epilogue::Act;
use super::few_bits::FewBits;
use super::kept::Source;
use crate::engine::pool::{Grid, Pool, Scratch};
use crate::simd::panel::{Panel, PanelDst, PanelForm, PanelSrc, panel, tiles_of};
use crate::simd::strip::{Strip, strip};
use crate::simd::turn::Turn;
use crate::simd::{Isa, Simd, SimdOp, dispatch};
use crate::tensor::Pages;

/// Values of k per pass, the best first: a smaller one where all rows of A then fit one pass, so that B is read once.
const KC: [usize; 2] = [384, 256];
/// Panels of columns from which on rows are laid out for them.
const LAY_OUT: usize = 3;
/// Values packed at a time.
const PACK: usize = 48 << 10;
/// Bytes of A that a pass reuses.
const A_BYTES: usize = 208 << 10;
/// Bytes of the result that passes over k come back to.
const C_BYTES: usize = 160 << 10;
/// Multiply-adds below which a task is not split further.
const MIN_TASK_MADDS: usize = 200_000;
/// Tasks per thread to aim at.
const TASKS_PER_THREAD: usize = 8;

/// A strided matrix: element `(r, c)` of batch `i` is `data[i·batch + r·row + c·col]`.
#[derive(Clone, Copy, Debug)]
pub struct Mat<'a> {
    /// The values.
    pub data: &'a [f32],
    /// Distance between batches, 0 to use one matrix for all.
    pub batch: usize,
    /// Distance between rows.
    pub row: usize,
    /// Distance between columns.
    pub col: usize,
}

impl<'a> Mat<'a> {
    /// `[batch][rows][cols]`, contiguous.
    pub fn rows(data: &'a [f32], rows: usize, cols: usize) -> Mat<'a> {
        Mat { data, batch: rows * cols, row: cols, col: 1 }
    }
    /// The transpose of `[batch][cols][rows]`: the view still has `rows` rows and `cols` columns.
    pub fn transposed(data: &'a [f32], rows: usize, cols: usize) -> Mat<'a> {
        Mat { data, batch: rows * cols, row: 1, col: rows }
    }
    /// The same matrix for every batch.
    pub fn shared(self) -> Mat<'a> {
        Mat { batch: 0, ..self }
    }
    fn check(&self, batch: usize, rows: usize, cols: usize, what: &str) {
        if batch * rows * cols > 0 {
            let last = [(batch - 1, self.batch), (rows - 1, self.row), (cols - 1, self.col)];
            let last = last.iter().try_fold(0usize, |at, &(n, s)| n.checked_mul(s).and_then(|d| at.checked_add(d)));
            assert!(last.is_some_and(|i| i < self.data.len()), "{what}: matrix {rows}x{cols} outside its data");
        }
    }
}

/// Constant start value of the result.
#[derive(Clone, Copy, Debug, Default)]
pub enum Bias<'a> {
    /// 0
    #[default]
    None,
    /// One value per column, `[n]`.
    Col(&'a [f32]),
    /// One value per row, `[m]`.
    Row(&'a [f32]),
}

/// What happens to a product besides the sum.
#[derive(Clone, Copy, Debug)]
pub struct Finish<'a> {
    /// Factor on A·B.
    pub alpha: f32,
    /// Added constant.
    pub bias: Bias<'a>,
    /// Added tensor of the destination's shape.
    pub residual: Option<&'a [f32]>,
    /// Applied last.
    pub act: Act,
}

impl Default for Finish<'_> {
    fn default() -> Self {
        Finish { alpha: 1.0, bias: Bias::None, residual: None, act: Act::None }
    }
}

/// A constant right-hand matrix, packed in panels for one ISA.
#[derive(Clone, Debug)]
pub struct PackedB {
    isa: Isa,
    k: usize,
    n: usize,
    data: Pages,
}

impl PackedB {
    /// Pack `b` (`k` rows, `n` columns; the batch stride is not used).
    pub fn new(isa: Isa, k: usize, n: usize, b: Mat<'_>) -> PackedB {
        b.check(1, k, n, "B");
        let mut data = Pages::part(k * n.next_multiple_of(isa.lanes()));
        pack_b(isa, b, 0, k, 0, n, &mut data);
        PackedB { isa, k, n, data }
    }
    /// Pack a constant `[k][n]` (or `[n][k]`) out of its bytes, a stretch of rows at a time: nothing is copied whole, and what was read of a
    /// mapped file is given back to the system.
    ///
    /// Panics when there are not `k · n` values.
    pub fn of_source(isa: Isa, k: usize, n: usize, transposed: bool, source: Source<'_>) -> PackedB {
        assert_eq!(source.count(), k * n, "matrix {k}x{n}");
        let len = k * n.next_multiple_of(isa.lanes());
        let pack = |values| PackedB::of_values(isa, k, n, transposed, values);
        PackedB { isa, k, n, data: source.packed(("columns", isa, k, n, transposed), len, pack) }
    }

    fn of_values(isa: Isa, k: usize, n: usize, transposed: bool, values: &[[u8; 4]]) -> Pages {
        let (l, nr) = (isa.lanes(), isa.nr());
        let mut data = Pages::part(k * n.next_multiple_of(l));
        let mut part: Vec<f32> = Vec::new();
        let (rows, width) = if transposed { (n, k) } else { (k, n) };
        if k > 0 {
            // Whole panels of a transposed matrix; otherwise rows that stay in the second-level cache.
            let step = (PACK / width.max(1)).max(16).next_multiple_of(if transposed { nr } else { 1 });
            for r0 in (0..rows).step_by(step) {
                let here = step.min(rows - r0);
                let from = &values[r0 * width..][..here * width];
                part.clear();
                part.extend(from.iter().map(|b| f32::from_ne_bytes(*b)));
                crate::tensor::map::release(from.as_flattened());
                if transposed {
                    let to = &mut data[r0 * k..][..k * here.next_multiple_of(l)];
                    pack_b(isa, Mat::transposed(&part, k, here), 0, k, 0, here, to);
                    continue;
                }
                for col in (0..n).step_by(nr) {
                    let wide = (n - col).min(nr);
                    let padded = wide.next_multiple_of(l);
                    let panel = &mut data[k * col..][r0 * padded..][..here * padded];
                    for (row, from) in panel.chunks_exact_mut(padded).zip(part.chunks_exact(n)) {
                        row[..wide].copy_from_slice(&from[col..][..wide]);
                    }
                }
            }
        }
        data
    }
    /// For which instruction set.
    pub fn isa(&self) -> Isa {
        self.isa
    }
    /// Rows `rows` of a panel, `[row][NR]` or, of the last panel, as many vectors as it has; nothing of a panel that there is not.
    pub(super) fn part(&self, panel: usize, rows: std::ops::Range<usize>) -> &[f32] {
        let (l, col) = (self.isa.lanes(), panel * self.isa.nr());
        let wide = self.n.saturating_sub(col).min(self.isa.nr()).next_multiple_of(l);
        if wide == 0 { &[] } else { &self.data[self.k * col..][rows.start * wide..rows.end * wide] }
    }
    /// Rows.
    pub fn k(&self) -> usize {
        self.k
    }
    /// Columns.
    pub fn n(&self) -> usize {
        self.n
    }
    /// Bytes of the packed copy.
    pub fn packed_bytes(&self) -> usize {
        4 * self.data.len()
    }
}

/// Columns `n0..n0 + nn` as panels `[panel][k][NR]`; the last panel may have fewer vectors, padded with zeros.
pub(super) fn pack_b(isa: Isa, b: Mat<'_>, batch: usize, k: usize, n0: usize, nn: usize, to: &mut [f32]) {
    if k > 0 {
        dispatch(isa, PackB { b, base: &b.data[batch * b.batch..], k, n0, nn, to });
    }
}

/// Rows of a matrix that are packed for all columns of a task before the next.
const RUNS: usize = 16;

struct PackB<'a> {
    b: Mat<'a>,
    base: &'a [f32],
    k: usize,
    n0: usize,
    nn: usize,
    to: &'a mut [f32],
}

impl SimdOp for PackB<'_> {
    type Out = ();
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let PackB { b, base, k, n0, nn, to } = self;
        let (l, nr) = (S::LANES, 2 * S::LANES);
        let full = nn / nr;
        // Rows that run on: a few of all panels at a time, so that they are read as streams.
        if b.col == 1 {
            for r0 in (0..k).step_by(RUNS) {
                let rows = RUNS.min(k - r0);
                for p in 0..full {
                    let panel = &mut to[(p * k + r0) * nr..][..rows * nr];
                    let mut src = r0 * b.row + n0 + p * nr;
                    for row in panel.chunks_exact_mut(nr) {
                        let run = &base[src..src + nr];
                        let (x, y) = (s.load(run), s.load(&run[l..]));
                        s.store(row, x);
                        s.store(&mut row[l..], y);
                        src += b.row;
                    }
                }
            }
        }
        let first = if b.col == 1 { full } else { 0 };
        let mut at = first * k * nr;
        let mut col = first * nr;
        while col < nn {
            let width = (nn - col).min(nr);
            let padded = width.next_multiple_of(l);
            let panel = &mut to[at..at + k * padded];
            let from = (n0 + col) * b.col;
            if b.col == 1 {
                for (r, row) in panel.chunks_exact_mut(padded).enumerate() {
                    row[..width].copy_from_slice(&base[r * b.row + from..][..width]);
                    row[width..].fill(0.0);
                }
            } else if b.row == 1 {
                // Columns are contiguous.
                let from = &base[from..];
                Turn { from, stride: b.col, row: width, count: k, to: panel, to_stride: padded }.call(s);
                if width < padded {
                    for row in panel.chunks_exact_mut(padded) {
                        row[width..].fill(0.0);
                    }
                }
            } else {
                panel.fill(0.0);
                for (r, row) in panel.chunks_exact_mut(padded).enumerate() {
                    let mut src = r * b.row + from;
                    for x in &mut row[..width] {
                        *x = base[src];
                        src += b.col;
                    }
                }
            }
            at += k * padded;
            col += width;
        }
    }
}

/// Rows `m0..m0 + mm` times `alpha` for passes of `kc` values of k, a whole number of vectors: of a pass, tile after tile of
/// `[k block][row][lanes]`. Values behind `k` are left as they are.
struct PackA<'a> {
    a: Mat<'a>,
    base: &'a [f32],
    k: usize,
    kc: usize,
    m0: usize,
    mm: usize,
    alpha: f32,
    to: &'a mut [f32],
}

impl SimdOp for PackA<'_> {
    type Out = ();
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let PackA { a, base, k, kc, m0, mm, alpha, to } = self;
        let (l, factor) = (S::LANES, s.splat(alpha));
        let mut tile = 0;
        for k0 in (0..k).step_by(kc) {
            let end = k.min(k0 + kc);
            let mut first = m0;
            for rows in tiles_of(mm, S::MR) {
                for i in 0..rows {
                    // Along the rows, where the values come as a stream.
                    for (b, kb) in (k0..end).step_by(l).enumerate() {
                        let to = &mut to[tile + (b * rows + i) * l..][..l];
                        let width = l.min(end - kb);
                        let at = (first + i) * a.row + kb * a.col;
                        if a.col == 1 && width == l {
                            s.store(to, s.mul(factor, s.load(&base[at..][..l])));
                        } else {
                            for (c, to) in to[..width].iter_mut().enumerate() {
                                *to = alpha * base[at + c * a.col];
                            }
                        }
                    }
                }
                tile += rows * (end - k0).next_multiple_of(l);
                first += rows;
            }
        }
    }
}

/// Rows `m0..m0 + mm` times `alpha`, each `row` values from the next.
#[allow(clippy::too_many_arguments)]
fn copy_a(a: Mat<'_>, batch: usize, k: usize, m0: usize, mm: usize, alpha: f32, row: usize, to: &mut [f32]) {
    let base = &a.data[batch * a.batch..];
    if a.col == 1 {
        for (m, to) in to.chunks_exact_mut(row).take(mm).enumerate() {
            to[..k].copy_from_slice(&base[(m0 + m) * a.row..][..k]);
        }
    } else {
        // Runs of eight columns of k, so that a line of the copy is written at once.
        for k0 in (0..k).step_by(8) {
            let width = 8.min(k - k0);
            for m in 0..mm {
                let run = &mut to[m * row + k0..][..width];
                for (c, x) in run.iter_mut().enumerate() {
                    *x = base[(k0 + c) * a.col + (m0 + m) * a.row];
                }
            }
        }
    }
    if alpha != 1.0 {
        to.chunks_exact_mut(row).take(mm).for_each(|r| r[..k].iter_mut().for_each(|x| *x *= alpha));
    }
}

/// Right-hand side of a product.
#[derive(Clone, Copy, Debug)]
pub enum Rhs<'a> {
    /// Packed beforehand, the same for every batch.
    Packed(&'a PackedB),
    /// Packed on the fly.
    Mat(Mat<'a>),
    /// In few bits, unpacked on the fly, the same for every batch.
    Bits(&'a FewBits),
}

/// Extents of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GemmShape {
    /// Independent products.
    pub batch: usize,
    /// Rows of A and C.
    pub m: usize,
    /// Columns of A, rows of B.
    pub k: usize,
    /// Columns of B and C.
    pub n: usize,
}

/// `dst[batch][m][n] = act(alpha · a · b + bias + residual)`.
///
/// Panics on extents that do not fit, or a packed B of another shape or ISA.
pub fn gemm(pool: &Pool, isa: Isa, shape: GemmShape, a: Mat<'_>, b: Rhs<'_>, fin: Finish<'_>, dst: &mut [f32]) {
    let GemmShape { batch, m, k, n } = shape;
    let (l, mr, nr) = (isa.lanes(), isa.mr(), isa.nr());
    let size = [batch, m, n].iter().try_fold(1usize, |p, &d| p.checked_mul(d));
    assert_eq!(size, Some(dst.len()), "{shape:?}: destination");
    a.check(batch, m, k, "A");
    match b {
        Rhs::Packed(p) => assert!(p.isa == isa && p.k == k && p.n == n, "{shape:?}: packed for {}x{}", p.k, p.n),
        Rhs::Mat(b) => b.check(batch, k, n, "B"),
        Rhs::Bits(b) => assert!(b.fits() && b.k == k && b.n == n, "{shape:?}: few bits for {}x{}", b.k, b.n),
    }
    let residual_fits = fin.residual.is_none_or(|r| r.len() == dst.len());
    assert!(residual_fits, "{shape:?}: residual");
    match fin.bias {
        Bias::Col(c) => assert_eq!(c.len(), n, "{shape:?}: bias per column"),
        Bias::Row(r) => assert_eq!(r.len(), m, "{shape:?}: bias per row"),
        Bias::None => {}
    }
    if dst.is_empty() {
        return;
    }
    let (clamp, after) = fin.act.split();
    if k == 0 {
        return no_products(shape, fin, dst, isa);
    }
    // Rows per task: a pass over them reuses one block of A from the second-level cache.
    let most_k = KC.into_iter().find(|&kc| m * 4 * kc.min(k) <= A_BYTES).unwrap_or(KC[0]);
    let fit = (A_BYTES / (4 * most_k.min(k))).max(4 * mr);
    let mut m_parts = m.div_ceil(fit);
    let madds = batch * m * k * n;
    let most = if pool.threads() == 1 { 1 } else { TASKS_PER_THREAD * pool.threads() };
    let want = (madds / MIN_TASK_MADDS).clamp(1, most).div_ceil(batch);
    let (panels, narrow) = (n.div_ceil(nr), if m > mr { LAY_OUT } else { 2 });
    let mut n_parts = want.div_ceil(m_parts).min(panels.div_ceil(narrow)).max(1);
    if want > m_parts * n_parts {
        // Fewer tasks than wanted: as wide as every thread gets the same to do. Only where there is no such width are rows split
        // further, since each part reads all of B.
        let threads = pool.threads();
        let busy = |width: usize| (batch * m_parts * panels.div_ceil(width)).div_ceil(threads) * width;
        let width = (narrow..=panels.div_ceil(threads)).min_by_key(|&w| busy(w));
        match width.filter(|&w| 8 * busy(w) * threads <= 9 * batch * m_parts * panels) {
            Some(w) => n_parts = panels.div_ceil(w),
            None => m_parts = want.div_ceil(n_parts).min(m.div_ceil(2 * mr)).max(m_parts),
        }
    }
    // A block of B packed by a task must stay close too.
    if !matches!(b, Rhs::Packed(_)) {
        n_parts = n_parts.max((n * k * 4).div_ceil(1 << 20).min(n.div_ceil(2 * nr)));
    }
    let b_tile = m.div_ceil(m_parts).next_multiple_of(mr).min(m);
    let len_tile = n.div_ceil(n_parts).next_multiple_of(nr).min(n.next_multiple_of(nr));
    let grid = Grid { outer: batch, a: 1, b: m, len: n, a_tile: 1, b_tile, len_tile };
    // Passes of even length, of whole vectors.
    let kc = k.div_ceil(k.div_ceil(most_k)).next_multiple_of(l);
    // What many columns meet is worth laying out; of the rest, rows contiguous in k are read where they are. The same for all tasks: the
    // next of a thread finds the rows as this one has left them.
    let tiles = b_tile > mr && len_tile >= LAY_OUT * nr;
    let ticket = pool.ticket();
    pool.for_tiles(dst, grid, |mut tile, id| {
        pool.scratch(id, |scratch| {
            let Scratch { a: sa, b: sb, tag_a, tag_b } = scratch;
            let (mm, nn) = (tile.b_len(), tile.seg_len());
            let direct = a.col == 1 && fin.alpha == 1.0;
            let (lhs, row) = if tiles {
                let to = Scratch::grow(sa, mm * k.next_multiple_of(l));
                let tag = (ticket, tile.outer * m + tile.b0);
                if *tag_a != tag {
                    *tag_a = (0, 0);
                    let base = &a.data[tile.outer * a.batch..];
                    dispatch(isa, PackA { a, base, k, kc, m0: tile.b0, mm, alpha: fin.alpha, to });
                    *tag_a = tag;
                }
                (&*to, 0)
            } else if direct {
                (&a.data[tile.outer * a.batch + tile.b0 * a.row..], a.row)
            } else {
                // Rows a power of two apart would fall into few sets of the caches.
                let row = k.next_multiple_of(16) | 16;
                let to = Scratch::grow(sa, mm * row);
                let tag = (ticket, tile.outer * m + tile.b0);
                if *tag_a != tag {
                    *tag_a = (0, 0);
                    copy_a(a, tile.outer, k, tile.b0, mm, fin.alpha, row, to);
                    *tag_a = tag;
                }
                (&*to, row)
            };
            let (rhs, first) = match b {
                // Panels before this task's columns are all full.
                Rhs::Packed(p) => (&*p.data, tile.c0 * k),
                _ => {
                    let to = Scratch::grow(sb, k * nn.next_multiple_of(l));
                    let tag = (ticket, tile.outer * n + tile.c0);
                    if *tag_b != tag {
                        *tag_b = (0, 0);
                        match b {
                            Rhs::Mat(b) => pack_b(isa, b, tile.outer, k, tile.c0, nn, to),
                            Rhs::Bits(b) => b.panels(isa, tile.c0, nn, to),
                            Rhs::Packed(_) => {}
                        }
                        *tag_b = tag;
                    }
                    (&*to, 0)
                }
            };
            if let Bias::Row(r) = fin.bias {
                for i in 0..mm {
                    let start = r[tile.b0 + i];
                    tile.seg(0, i).fill(start);
                }
            }
            let panels = nn.div_ceil(nr);
            let streamed = matches!(b, Rhs::Packed(_));
            // Columns whose part of the result stays in the second-level cache over the passes.
            let group = (C_BYTES / (4 * mm.max(1) * nr)).max(1);
            // The columns and the part of the packed matrix of a panel in the pass from `k0`.
            let part = |p: usize, k0: usize| {
                let nb = (nn - p * nr).div_ceil(l).min(2);
                (nb, &rhs[first + k * p * nr + k0 * nb * l..][..kc.min(k - k0) * nb * l])
            };
            let passes = (0..panels).step_by(group).flat_map(|p0| (0..k).step_by(kc).map(move |k0| (p0, k0)));
            for (p0, k0) in passes {
                let end = (p0 + group).min(panels);
                let here = kc.min(k - k0);
                let last = k0 + here == k;
                for p in p0..end {
                    let (col, (nb, wei)) = (p * nr, part(p, k0));
                    let mut padded = [0.0f32; 32];
                    let bias = match fin.bias {
                        Bias::Col(c) => {
                            let c = &c[tile.c0 + col..];
                            let width = c.len().min(nb * l);
                            padded[..width].copy_from_slice(&c[..width]);
                            Some(&padded[..nb * l])
                        }
                        _ => None,
                    };
                    let next = match () {
                        _ if !streamed => None,
                        _ if p + 1 < end => Some((p + 1, k0)),
                        _ if !last => Some((p0, k0 + here)),
                        _ if end < panels => Some((end, 0)),
                        _ => None,
                    };
                    let accumulate = k0 > 0 || matches!(fin.bias, Bias::Row(_));
                    let residual = fin.residual.filter(|_| last);
                    let clamp = if last { clamp } else { (f32::NEG_INFINITY, f32::INFINITY) };
                    let next = next.map_or(&[][..], |(p, k0)| part(p, k0).1);
                    if tiles {
                        let kb = here.div_ceil(l);
                        let from = PanelSrc {
                            src: &lhs[mm * k0..],
                            base: 0,
                            row_stride: 0,
                            kb_stride: mm * l,
                            kb,
                            c_last: here - (kb - 1) * l,
                            taps: &[0],
                            form: PanelForm::Tiles,
                        };
                        let job = Panel { from, wei, nb, bias, accumulate, residual, clamp, next };
                        panel(isa, &job, PanelDst::Columns { col }, &mut tile);
                    } else {
                        let a = &lhs[k0..];
                        let job = Strip { a, row, k: here, wei, nb, bias, accumulate, residual, clamp, next };
                        strip(isa, &job, col, &mut tile);
                    }
                    if let Some(act) = after.filter(|_| last) {
                        act.apply_columns(isa, &mut tile, col..(col + nb * l).min(nn));
                    }
                }
            }
        });
    });
}

/// k = 0: only what is added.
fn no_products(shape: GemmShape, fin: Finish<'_>, dst: &mut [f32], isa: Isa) {
    for (i, row) in dst.chunks_exact_mut(shape.n).enumerate() {
        match fin.bias {
            Bias::None => row.fill(0.0),
            Bias::Col(c) => row.copy_from_slice(c),
            Bias::Row(r) => row.fill(r[i % shape.m]),
        }
    }
    if let Some(r) = fin.residual {
        dst.iter_mut().zip(r).for_each(|(d, r)| *d += r);
    }
    fin.act.apply(isa, dst);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::{close, guarded, isas, values};

    fn naive(s: GemmShape, a: Mat<'_>, b: Mat<'_>, fin: Finish<'_>) -> Vec<f32> {
        let mut out = Vec::new();
        for i in 0..s.batch {
            for r in 0..s.m {
                for c in 0..s.n {
                    let mut sum = 0.0f64;
                    for k in 0..s.k {
                        let (x, y) = (i * a.batch + r * a.row + k * a.col, i * b.batch + k * b.row + c * b.col);
                        sum += a.data[x] as f64 * b.data[y] as f64;
                    }
                    let start = match fin.bias {
                        Bias::None => 0.0,
                        Bias::Col(b) => b[c],
                        Bias::Row(b) => b[r],
                    };
                    let add = fin.residual.map_or(0.0, |x| x[out.len()]);
                    out.push((sum * fin.alpha as f64) as f32 + start + add);
                }
            }
        }
        fin.act.apply(Isa::Portable, &mut out);
        out
    }

    fn check(s: GemmShape, ta: bool, tb: bool, packed: bool, fin: Finish<'_>) {
        let scale = 1.0 / (s.k.max(1) as f32).sqrt();
        let av: Vec<f32> = values(s.batch * s.m * s.k, 7).iter().map(|x| x * scale).collect();
        let bv = values(s.batch * s.k * s.n, 8);
        let a = if ta { Mat::transposed(&av, s.m, s.k) } else { Mat::rows(&av, s.m, s.k) };
        let b = if tb { Mat::transposed(&bv, s.k, s.n) } else { Mat::rows(&bv, s.k, s.n) };
        let b = if packed { b.shared() } else { b };
        let want = naive(s, a, b, fin);
        for isa in isas() {
            let held = packed.then(|| {
                let held = PackedB::new(isa, s.k, s.n, b);
                let bytes: Vec<u8> = bv[..s.k * s.n].iter().flat_map(|v| v.to_ne_bytes()).collect();
                assert_eq!(
                    *PackedB::of_source(isa, s.k, s.n, tb, Source::part(&bytes, None)).data,
                    *held.data,
                    "{s:?}"
                );
                held
            });
            for threads in [1, 3] {
                let pool = Pool::new(threads);
                let rhs = held.as_ref().map_or(Rhs::Mat(b), Rhs::Packed);
                let got = guarded(want.len(), |d| gemm(&pool, isa, s, a, rhs, fin, d));
                close(&got, &want, 2e-5, &format!("{isa} {threads} {s:?} ta {ta} tb {tb} packed {packed} {fin:?}"));
            }
        }
    }

    #[test]
    fn sizes_around_the_tile() {
        for m in [1, 5, 6, 7, 13, 14, 15, 31] {
            for n in [1, 7, 8, 9, 15, 16, 17, 31, 33, 70] {
                for k in [1, 8, 13] {
                    let s = GemmShape { batch: 1, m, k, n };
                    check(s, false, false, (m + n + k) % 2 == 0, Finish::default());
                }
            }
        }
    }

    #[test]
    fn transposes_batches_and_long_sums() {
        for (batch, m, k, n) in [(3, 20, 64, 20), (1, 9, 520, 37), (2, 40, 257, 70), (1, 130, 300, 200)] {
            for flags in 0..8 {
                let s = GemmShape { batch, m, k, n };
                check(s, flags & 1 > 0, flags & 2 > 0, flags & 4 > 0, Finish::default());
            }
        }
    }

    #[test]
    fn bias_residual_activation() {
        for (m, k, n) in [(7, 20, 33), (20, 300, 50), (3, 0, 5)] {
            let (row, col, res) = (values(m, 1), values(n, 2), values(2 * m * n, 3));
            for bias in [Bias::None, Bias::Col(&col), Bias::Row(&row)] {
                for residual in [None, Some(&res[..])] {
                    for act in [Act::None, Act::Relu, Act::Gelu] {
                        let s = GemmShape { batch: 2, m, k, n };
                        check(s, false, true, true, Finish { alpha: 0.5, bias, residual, act });
                    }
                }
            }
        }
    }

    #[test]
    fn empty_products() {
        for (m, n) in [(0, 3), (3, 0)] {
            check(GemmShape { batch: 1, m, k: 4, n }, false, false, false, Finish::default());
        }
    }
}
