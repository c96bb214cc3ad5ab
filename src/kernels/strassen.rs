//! Matrix product with a constant right-hand side by Strassen's algorithm in Winograd's form, one level deep: 7 products of halves
//! instead of 8.
//!
//! With A cut into halves of its rows and of k, and B into halves of k and of its columns,
//!
//! ```text
//! S1 = A21 + A22   S2 = S1 − A11    S3 = A11 − A21   S4 = A12 − S2
//! T1 = B12 − B11   T2 = B22 − T1    T3 = B22 − B12   T4 = B21 − T2
//! C11 = A11·B11 + A12·B21           U2 = A11·B11 + S2·T2           U3 = U2 + S3·T3
//! C12 = U2 + S4·B22 + S1·T1         C21 = U3 + A22·T4              C22 = U3 + S1·T1
//! ```
//!
//! (Strassen, "Gaussian elimination is not optimal", 1969; the form with 15 sums: Higham, "Accuracy and Stability of Numerical Algorithms",
//! equation 23.6.) Which columns are the left and which the right ones is free: here panels that lie side by side are, so that a task's
//! columns run on. The sums of B are made when it is packed (7/4 of its size), those of A when a task lays out its rows, those of C by
//! the register tile all products share ([`crate::simd::panel`]), which starts from one product when it makes the next.
//!
//! Error: bounded by the largest magnitudes of A and B rather than element by element (Higham, §23.2.2). A test holds it to 1e-5
//! relative to the largest result. An infinity or NaN in A reaches the other row of its pair.

use super::epilogue::Act;
use super::gemm::{Mat, pack_b};
use super::kept::Source;
use crate::engine::pool::{Grid, Pool, Scratch};
use crate::simd::panel::{Panel, PanelDst, PanelForm, PanelSrc, panel, tiles_of};
use crate::simd::{Isa, Simd, SimdOp, TileMut, dispatch};
use crate::tensor::Pages;

/// Products of halves.
const PRODUCTS: usize = 7;

/// A product's part of the result.
#[derive(Clone, Copy, Debug)]
struct Goes {
    /// Which sum it makes or goes on with.
    to: usize,
    /// It goes on with it.
    on: bool,
    /// The sum it is made on top of.
    onto: Option<usize>,
    /// A quarter of C that is then complete, by rows: the sum, and another one to add.
    done: Option<(usize, Option<usize>)>,
}

/// U, the sum of a quarter, S1·T1.
const U: usize = 0;
const Q: usize = 1;
const V: usize = 2;
/// Sums.
const SUMS: usize = 3;
/// The products in the order in which they are packed and made: A11·B11, A12·B21, S2·T2, S1·T1, S4·B22, S3·T3, A22·T4.
const GOES: [Goes; PRODUCTS] = [
    Goes { to: U, on: false, onto: None, done: None },
    Goes { to: Q, on: false, onto: Some(U), done: Some((0, None)) },
    Goes { to: U, on: true, onto: None, done: None },
    Goes { to: V, on: false, onto: None, done: None },
    Goes { to: Q, on: false, onto: Some(U), done: Some((1, Some(V))) },
    Goes { to: U, on: true, onto: None, done: Some((3, Some(V))) },
    Goes { to: Q, on: false, onto: Some(U), done: Some((2, None)) },
];

/// Most values of k per pass.
const KC: usize = 384;
/// Bytes of a product's left factor that a pass reuses.
const A_BYTES: usize = 208 << 10;
/// Bytes of products and sums that passes come back to.
const C_BYTES: usize = 192 << 10;
/// Panel pairs of a task, at least, where there are as many: they share what was laid out.
const PAIRS: usize = 3;

/// A constant right-hand matrix as the sums of its quarters, packed for one ISA.
#[derive(Clone, Debug)]
pub struct Halves {
    isa: Isa,
    k: usize,
    n: usize,
    /// `[pair of panels][product][half of k][NR]`; what is behind k and n is 0.
    data: Pages,
}

/// Rows of a half of k, whole vectors: the second half may have fewer.
fn half(isa: Isa, k: usize) -> usize {
    k.div_ceil(2).next_multiple_of(isa.lanes())
}

/// Values of the packed form.
fn packed_len(isa: Isa, k: usize, n: usize) -> usize {
    n.div_ceil(2 * isa.nr()) * PRODUCTS * half(isa, k) * isa.nr()
}

impl Halves {
    /// Pack a constant `[k][n]` (or `[n][k]`) out of its bytes, a stretch of rows at a time; what was read of a mapped file is given back to
    /// the system.
    ///
    /// Panics when there are not `k · n` values.
    pub fn of_source(isa: Isa, k: usize, n: usize, transposed: bool, source: Source<'_>) -> Halves {
        assert_eq!(source.count(), k * n, "matrix {k}x{n}");
        let pack = |values| Halves::of_values(isa, k, n, transposed, values);
        Halves { isa, k, n, data: source.packed(("halves", isa, k, n, transposed), packed_len(isa, k, n), pack) }
    }

    fn of_values(isa: Isa, k: usize, n: usize, transposed: bool, values: &[[u8; 4]]) -> Pages {
        let (nr, kh) = (isa.nr(), half(isa, k));
        let mut data = Pages::part(packed_len(isa, k, n));
        // One pair of panels for a stretch of rows, and the same rows of the second half of k.
        let mut near: Vec<f32> = Vec::new();
        let floats = |from: &[[u8; 4]], to: &mut Vec<f32>| {
            to.clear();
            to.extend(from.iter().map(|b| f32::from_ne_bytes(*b)));
            crate::onnx::map::release(from.as_flattened());
        };
        if transposed {
            let mut panels = vec![0.0; 2 * nr * k];
            for (to, from) in data.chunks_exact_mut(PRODUCTS * kh * nr).zip(values.chunks(2 * nr * k)) {
                floats(from, &mut near);
                let columns = from.len() / k;
                panels.fill(0.0);
                for (p, to) in panels.chunks_exact_mut(nr * k).enumerate().take(columns.div_ceil(nr)) {
                    let here = (columns - p * nr).min(nr);
                    let from = Mat::transposed(&near[p * nr * k..], k, here);
                    pack_columns(isa, from, k, here, to);
                }
                let (left, right) = panels.split_at(nr * k);
                let cut = kh.min(k) * nr;
                let quarters = [&left[..cut], &right[..cut], &left[cut..], &right[cut..]];
                dispatch(isa, Sums { quarters, step: nr, from: 0, rows: kh, to, kh });
            }
            return data;
        }
        let mut far: Vec<f32> = Vec::new();
        let step = (ROWS / (2 * n.max(1))).max(8);
        let padded = n.next_multiple_of(2 * nr);
        for r0 in (0..kh).step_by(step) {
            let rows = step.min(kh - r0);
            for (first, to) in [(r0, &mut near), (kh + r0, &mut far)] {
                // Rows behind k are none: `Sums` takes them as 0.
                let from = &values[first.min(k) * n..(first + rows).min(k) * n];
                to.clear();
                for row in from.chunks_exact(n) {
                    to.extend(row.iter().map(|b| f32::from_ne_bytes(*b)));
                    to.resize(to.len() + padded - n, 0.0);
                }
                crate::onnx::map::release(from.as_flattened());
            }
            for (p, to) in data.chunks_exact_mut(PRODUCTS * kh * nr).enumerate() {
                let at = |x: &'_ [f32], c: usize| c.min(x.len());
                let (l, r) = (2 * p * nr, (2 * p + 1) * nr);
                let quarters = [&near[at(&near, l)..], &near[at(&near, r)..], &far[at(&far, l)..], &far[at(&far, r)..]];
                dispatch(isa, Sums { quarters, step: padded, from: r0, rows, to, kh });
            }
        }
        data
    }

    /// How it is used, for reports.
    pub(super) fn detail(&self) -> String {
        format!("7 products of halves {}x{}", self.isa.mr(), self.isa.nr())
    }

    /// Bytes of the packed copy.
    pub fn packed_bytes(&self) -> usize {
        4 * self.data.len()
    }
}

/// Fewest rows, values of k and columns: below, sums take more than the eighth product.
const FEWEST: [usize; 3] = [32, 256, 96];
/// Multiply-adds of a well-filled register tile in the time that a value of A takes for its sums, in rows and in blocks, beyond what the
/// product of 8 takes: it lays out rows too, but reads maps in place.
const A_MADDS: [f64; 2] = [3.0, 16.0];
/// The same for a value of C.
const C_MADDS: f64 = 20.0;
/// What is won at least where it is chosen.
const MARGIN: f64 = 1.04;
/// Columns per multiply-add that laying out a value of A takes, below which threads share rows rather than columns: nothing is then laid
/// out twice.
const FEW_COLUMNS: usize = 100;
/// Rows of a task, at least, where threads share rows.
const FEW_ROWS: usize = 48;
/// Multiply-adds of one thread in the time of one byte of weights from memory, which all threads share.
const MADDS_PER_BYTE: f64 = 2.0;

/// Blocks of k of a row that are laid out before the next row.
const RUNS: usize = 4;

/// The estimated cost in multiply-adds of a well-filled register tile, or why not.
pub(super) fn cost(isa: Isa, threads: usize, lay: Lay, [m, k, n]: [usize; 3]) -> Result<f64, String> {
    let [few_m, few_k, few_n] = FEWEST;
    if m < few_m || k < few_k || n < few_n {
        return Err(format!("fewer than {few_m} rows, {few_k} values of k or {few_n} columns"));
    }
    let (rows, k, n) = (m as f64, 2.0 * half(isa, k) as f64, n.next_multiple_of(2 * isa.nr()) as f64);
    let products = rows * n * k * 7.0 / 8.0;
    let stream = 7.0 * k * n * MADDS_PER_BYTE * threads as f64;
    // It is to win clearly: weights take nearly twice the room.
    Ok((products.max(stream) + A_MADDS[lay as usize] * rows * k + C_MADDS * rows * n) * MARGIN)
}

/// Values read at a time of a matrix `[k][n]`.
const ROWS: usize = 96 << 10;

/// `here` columns as a panel `[k][NR]`.
fn pack_columns(isa: Isa, from: Mat<'_>, k: usize, here: usize, to: &mut [f32]) {
    let nr = isa.nr();
    let padded = here.next_multiple_of(isa.lanes());
    if padded == nr {
        return pack_b(isa, from, 0, k, 0, here, to);
    }
    // A panel of one vector: its rows lie closer.
    let mut close = vec![0.0; k * padded];
    pack_b(isa, from, 0, k, 0, here, &mut close);
    for (to, from) in to.chunks_exact_mut(nr).zip(close.chunks_exact(padded)) {
        to[..padded].copy_from_slice(from);
    }
}

/// Rows of the quarters B11, B12, B21, B22, `step` apart, as rows `from..from + rows` of the seven right factors; rows that a quarter
/// does not have are 0.
struct Sums<'a> {
    quarters: [&'a [f32]; 4],
    step: usize,
    from: usize,
    rows: usize,
    to: &'a mut [f32],
    kh: usize,
}

impl SimdOp for Sums<'_> {
    type Out = ();
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let Sums { quarters, step, from, rows, to, kh } = self;
        let (l, nr) = (S::LANES, 2 * S::LANES);
        let zeros = [0.0f32; 64];
        for r in 0..rows {
            let [b11, b12, b21, b22] = quarters.map(|q| q.get(r * step..r * step + nr).unwrap_or(&zeros[..nr]));
            for v in [0, l] {
                let [b11, b12, b21, b22] = [b11, b12, b21, b22].map(|b| s.load(&b[v..]));
                let t1 = s.sub(b12, b11);
                let t2 = s.sub(b22, t1);
                let sums = [b11, b21, t2, t1, b22, s.sub(b22, b12), s.sub(b21, t2)];
                for (i, x) in sums.into_iter().enumerate() {
                    s.store(&mut to[(i * kh + from + r) * nr + v..], x);
                }
            }
        }
    }
}

/// How A and C lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lay {
    /// Row after row.
    Rows,
    /// NCHWc: rows are pixels, columns channels in blocks of lanes.
    Blocks,
}

/// Rows of A that a task takes: `rows` of `k` values.
#[derive(Clone, Copy)]
struct Left<'a> {
    data: &'a [f32],
    row_step: usize,
    /// Distance between blocks of lanes.
    block_step: usize,
    rows: usize,
    k: usize,
}

impl Left<'_> {
    /// A block of lanes from `col` on; 0 what is no row or behind k: lanes of maps that are no channels hold anything.
    #[inline(always)]
    fn load<S: Simd>(&self, s: S, row: usize, col: usize) -> S::F {
        if row >= self.rows || col >= self.k {
            return s.splat(0.0);
        }
        let from = &self.data[row * self.row_step + col / S::LANES * self.block_step..];
        if col + S::LANES <= self.k { s.load(from) } else { s.load_tail(&from[..self.k - col]) }
    }
}

/// Rows of A as the seven left factors, each laid out for passes of `kc` values of k in tiles `[k block][row][lanes]`.
struct Rows<'a> {
    a: Left<'a>,
    kh: usize,
    kc: usize,
    to: &'a mut [f32],
}

impl SimdOp for Rows<'_> {
    type Out = ();
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let Rows { a, kh, kc, to } = self;
        let (l, mh) = (S::LANES, a.rows.div_ceil(2));
        // Blocks of k of a row before the next row: of maps the rows run on, of rows the blocks, but not too many places are written at once.
        let runs = if a.row_step == l { 1 } else { RUNS };
        let mut parts = to.chunks_exact_mut(mh * kh);
        let parts: [&mut [f32]; PRODUCTS] = [(); PRODUCTS].map(|()| parts.next().unwrap_or_default());
        for k0 in (0..kh).step_by(kc) {
            let end = kh.min(k0 + kc);
            let mut first = 0;
            for rows in tiles_of(mh, S::MR) {
                let tile = k0 * mh + first * (end - k0);
                for run in (k0..end).step_by(runs * l) {
                    for i in 0..rows {
                        let row = first + i;
                        for kb in (run..end.min(run + runs * l)).step_by(l) {
                            let (a11, a12) = (a.load(s, row, kb), a.load(s, row, kh + kb));
                            let (a21, a22) = (a.load(s, mh + row, kb), a.load(s, mh + row, kh + kb));
                            let s1 = s.add(a21, a22);
                            let s2 = s.sub(s1, a11);
                            let at = tile + (kb - k0) * rows + i * l;
                            s.store(&mut parts[0][at..], a11);
                            s.store(&mut parts[1][at..], a12);
                            s.store(&mut parts[2][at..], s2);
                            s.store(&mut parts[3][at..], s1);
                            s.store(&mut parts[4][at..], s.sub(a12, s2));
                            s.store(&mut parts[5][at..], s.sub(a11, a21));
                            s.store(&mut parts[6][at..], a22);
                        }
                    }
                }
                first += rows;
            }
        }
    }
}

/// What is added to a product, and the bounds of the result.
#[derive(Clone, Copy, Debug)]
pub struct Finish<'a> {
    /// One value per column.
    pub bias: Option<&'a [f32]>,
    /// A tensor of the destination's shape.
    pub residual: Option<&'a [f32]>,
    /// Applied last.
    pub act: Act,
}

/// A quarter of C: one or two sums `[rows][NR]` go to rows `row..` and columns `col..` of the tile.
struct Last<'a, 'd> {
    sum: &'a [f32],
    other: Option<&'a [f32]>,
    bias: &'a [f32],
    residual: Option<&'a [f32]>,
    clamp: (f32, f32),
    lay: Lay,
    tile: &'a mut TileMut<'d>,
    row: usize,
    col: usize,
}

impl SimdOp for Last<'_, '_> {
    type Out = ();
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let Last { sum, other, bias, residual, clamp, lay, tile, row, col } = self;
        let (l, nr) = (S::LANES, 2 * S::LANES);
        let bounds = clamp != (f32::NEG_INFINITY, f32::INFINITY);
        let (lo, hi) = (s.splat(clamp.0), s.splat(clamp.1));
        let rows = (tile.b_len() - row).min(sum.len() / nr);
        let (origin, step_a, step_b) = (tile.origin, tile.stride_a(), tile.stride_b());
        // Vectors that exist.
        let vectors = match lay {
            Lay::Rows => (tile.seg_len() - col).min(nr).div_ceil(l),
            Lay::Blocks => (tile.a_len() - col / l).min(2),
        };
        // In the order in which the values lie.
        let (outer, inner) = if lay == Lay::Rows { (rows, vectors) } else { (vectors, rows) };
        for o in 0..outer {
            for n in 0..inner {
                let (i, v) = if lay == Lay::Rows { (o, n * l) } else { (n, o * l) };
                // The plane, the first column there, and how many.
                let (a, at, width) = match lay {
                    Lay::Rows => (0, col + v, (tile.seg_len() - col - v).min(l)),
                    Lay::Blocks => ((col + v) / l, 0, l),
                };
                let mut x = s.add(s.load(&sum[i * nr + v..]), s.load(&bias[v..]));
                if let Some(o) = other {
                    x = s.add(x, s.load(&o[i * nr + v..]));
                }
                if let Some(r) = residual {
                    let r = &r[origin + a * step_a + (row + i) * step_b + at..][..width];
                    x = s.add(x, if width == l { s.load(r) } else { s.load_tail(r) });
                }
                if bounds {
                    // A NaN passes both: the second operand is the one returned.
                    x = s.min(hi, s.max(lo, x));
                }
                let to = &mut tile.seg(a, row + i)[at..][..width];
                if width == l { s.store(to, x) } else { s.store_tail(to, x) }
            }
        }
    }
}

/// `dst[batch][m][n] = act(a · b + bias + residual)` for `a[batch][m][k]`, both in the same lay; a residual too.
///
/// Panics on extents that do not fit, or k = 0.
pub fn strassen(
    pool: &Pool,
    lay: Lay,
    (batch, m): (usize, usize),
    a: &[f32],
    b: &Halves,
    fin: Finish<'_>,
    dst: &mut [f32],
) {
    let (isa, k, n) = (b.isa, b.k, b.n);
    let (l, mr, nr) = (isa.lanes(), isa.mr(), isa.nr());
    let wide = |columns: usize| if lay == Lay::Rows { columns } else { columns.next_multiple_of(l) };
    let len = |columns: usize| batch.checked_mul(m).and_then(|rows| rows.checked_mul(wide(columns)));
    assert_eq!((Some(a.len()), Some(dst.len())), (len(k), len(n)), "{batch}x{m}x{k}x{n}");
    assert!(fin.bias.is_none_or(|c| c.len() == n) && fin.residual.is_none_or(|r| r.len() == dst.len()));
    if dst.is_empty() {
        return;
    }
    let (clamp, after) = fin.act.split();
    let kh = half(isa, k);
    let kc = kh.div_ceil(kh.div_ceil(KC).max(1)).next_multiple_of(l).max(l);
    let (pairs, threads) = (n.div_ceil(2 * nr), pool.threads());
    let fit = 2 * (A_BYTES / (4 * kc)).max(4 * mr);
    let mut m_parts = m.div_ceil(fit);
    // As wide as every thread gets the same to do, and the narrowest of those: others of the machine take their share too.
    let busy = |width: usize, m_parts: usize| (batch * m_parts * pairs.div_ceil(width)).div_ceil(threads) * width;
    let widths = PAIRS.min(pairs.div_ceil(threads))..=pairs.div_ceil(threads).max(PAIRS.min(pairs));
    let best = |m_parts: usize| widths.clone().min_by_key(|&w| busy(w, m_parts)).unwrap_or(1);
    let mut width = if threads == 1 { pairs } else { best(m_parts) };
    let few = FEW_COLUMNS * (1.0 + A_MADDS[lay as usize]) as usize * (threads - 1);
    if n < few && m.div_ceil(m_parts.next_multiple_of(threads)) >= FEW_ROWS {
        (m_parts, width) = (m_parts.next_multiple_of(threads), pairs);
    }
    // Rows are split further only where threads would idle: each part reads all of B.
    while 8 * busy(width, m_parts) * threads > 9 * batch * m_parts * pairs && m > 8 * mr * m_parts {
        m_parts *= 2;
        width = best(m_parts);
    }
    let (b_tile, columns) = (m.div_ceil(m_parts), 2 * nr * width);
    let (grid, [row_step, block_step]) = match lay {
        Lay::Rows => (Grid { outer: batch, a: 1, b: m, len: n, a_tile: 1, b_tile, len_tile: columns.min(n) }, [k, l]),
        Lay::Blocks => {
            let blocks = n.div_ceil(l);
            (Grid { outer: batch, a: blocks, b: m, len: l, a_tile: columns / l, b_tile, len_tile: l }, [l, m * l])
        }
    };
    let ticket = pool.ticket();
    pool.for_tiles(dst, grid, |mut tile, id| {
        pool.scratch(id, |scratch| {
            let Scratch { a: sa, b: sb, tag_a, tag_b } = scratch;
            let (mm, nn, c0) = match lay {
                Lay::Rows => (tile.b_len(), tile.seg_len(), tile.c0),
                Lay::Blocks => (tile.b_len(), tile.a_len() * l, tile.a0 * l),
            };
            let mh = mm.div_ceil(2);
            let lhs = Scratch::grow(sa, PRODUCTS * mh * kh);
            let tag = (ticket, tile.outer * m + tile.b0);
            if *tag_a != tag {
                *tag_a = (0, 0);
                let data = &a[tile.outer * m * wide(k) + tile.b0 * row_step..];
                let a = Left { data, row_step, block_step, rows: mm, k };
                dispatch(isa, Rows { a, kh, kc, to: lhs });
                *tag_a = tag;
            }
            *tag_b = (0, 0);
            let quarter = mh * nr;
            let here = nn.div_ceil(2 * nr);
            // Pairs whose sums stay in the second-level cache.
            let group = (C_BYTES / (4 * SUMS * quarter)).clamp(1, here);
            let sums = Scratch::grow(sb, SUMS * group * quarter);
            let first = c0 / (2 * nr);
            for p0 in (0..here).step_by(group) {
                let end = (p0 + group).min(here);
                for (i, goes) in GOES.iter().enumerate() {
                    let part = |p: usize, i: usize, k0: usize| {
                        let at = (((first + p) * PRODUCTS + i) * kh + k0) * nr;
                        &b.data[at..at + kc.min(kh - k0) * nr]
                    };
                    for k0 in (0..kh).step_by(kc) {
                        let len = kc.min(kh - k0);
                        let from = PanelSrc {
                            src: &lhs[(i * kh + k0) * mh..][..len * mh],
                            base: 0,
                            row_stride: 0,
                            kb_stride: mh * l,
                            kb: len / l,
                            c_last: l,
                            taps: &[0],
                            form: PanelForm::Tiles,
                        };
                        for (p, sums) in (p0..end).zip(sums.chunks_exact_mut(SUMS * quarter)) {
                            let next = match () {
                                _ if p + 1 < end => part(p + 1, i, k0),
                                _ if k0 + len < kh => part(p0, i, k0 + len),
                                _ if i + 1 < PRODUCTS => part(p0, i + 1, 0),
                                _ if end < here => part(end, 0, 0),
                                _ => &[],
                            };
                            let last = k0 + len == kh;
                            let (under, rest) = sums.split_at_mut(goes.to * quarter);
                            let (to, _) = rest.split_at_mut(quarter);
                            let onto = goes.onto.filter(|_| last).map(|at| &under[at * quarter..][..quarter]);
                            let job = Panel {
                                from,
                                wei: part(p, i, k0),
                                nb: 2,
                                bias: None,
                                accumulate: goes.on || k0 > 0,
                                residual: onto,
                                clamp: (f32::NEG_INFINITY, f32::INFINITY),
                                next,
                            };
                            panel(isa, &job, PanelDst::Columns { col: 0 }, &mut TileMut::new(to, 1, mh, nr));
                        }
                    }
                    let Some((q, other)) = goes.done else { continue };
                    for (p, sums) in (p0..end).zip(sums.chunks_exact(SUMS * quarter)) {
                        let (row, col) = ((q / 2) * mh, (2 * p + q % 2) * nr);
                        if col >= nn || row >= mm {
                            continue;
                        }
                        let mut bias = [0.0f32; 32];
                        if let Some(c) = fin.bias {
                            let c = &c[c0 + col..n.min(c0 + nn.min(col + nr))];
                            bias[..c.len()].copy_from_slice(c);
                        }
                        let sum = |at: usize| &sums[at * quarter..][..quarter];
                        let (bias, residual, tile) = (&bias[..], fin.residual, &mut tile);
                        let (sum, other) = (sum(goes.to), other.map(sum));
                        dispatch(isa, Last { sum, other, bias, residual, clamp, lay, tile, row, col });
                    }
                }
                if let Some(act) = after {
                    let columns = 2 * p0 * nr..nn.min(2 * end * nr);
                    match lay {
                        Lay::Rows => act.apply_columns(isa, &mut tile, columns),
                        Lay::Blocks => act.apply_tile(isa, &mut tile, columns.start / l..columns.end / l),
                    }
                }
            }
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::{blocked, guarded, in_file, isas, plain, values};

    /// Against the sum in `f64`; errors relative to the largest result.
    fn check(m: usize, k: usize, n: usize, transposed: bool, act: Act, added: bool) {
        check_batch((1, m), k, n, transposed, act, added);
    }

    fn check_batch((batch, rows): (usize, usize), k: usize, n: usize, transposed: bool, act: Act, added: bool) {
        let m = batch * rows;
        let scale = 1.0 / (k as f32).sqrt();
        let a: Vec<f32> = values(m * k, 1).iter().map(|x| x * scale).collect();
        let (b, bias, residual) = (values(k * n, 2), values(n, 3), values(m * n, 4));
        let mut want: Vec<f32> = Vec::with_capacity(m * n);
        for i in 0..m {
            for j in 0..n {
                let at = |r: usize| if transposed { b[j * k + r] } else { b[r * n + j] };
                let sum: f64 = (0..k).map(|r| a[i * k + r] as f64 * at(r) as f64).sum();
                want.push(sum as f32 + if added { bias[j] + residual[i * n + j] } else { 0.0 });
            }
        }
        act.apply(Isa::Portable, &mut want);
        let largest = want.iter().fold(1.0f32, |w, x| w.max(x.abs()));
        let bytes = in_file(&b);
        for isa in isas() {
            let packed = Halves::of_source(isa, k, n, transposed, (&bytes[..]).into());
            for threads in [1, 2, 5] {
                let pool = Pool::new(threads);
                let fin = Finish { bias: added.then_some(&bias), residual: added.then_some(&residual), act };
                let what = format!("{isa} {threads} {batch}x{rows}x{k}x{n} {transposed} {act:?}");
                let near = |got: &[f32], lay: Lay| {
                    for (at, (g, w)) in got.iter().zip(&want).enumerate() {
                        assert!((g - w).abs() <= 1e-5 * largest, "{what} {lay:?}: value {at} is {g}, expected {w}");
                    }
                };
                let lay = Lay::Rows;
                near(&guarded(m * n, |d| strassen(&pool, lay, (batch, rows), &a, &packed, fin, d)), lay);
                // The same as maps: channels before pixels, in blocks.
                let (lay, l) = (Lay::Blocks, isa.lanes());
                let maps = |x: &[f32], columns: usize, fill: f32| {
                    let of = |i: usize, c: usize, p: usize| x[(i * rows + p) * columns + c];
                    let plain: Vec<f32> =
                        (0..m * columns).map(|at| of(at / (rows * columns), at / rows % columns, at % rows)).collect();
                    blocked(&plain, batch, columns, rows, l, fill)
                };
                let (a, residual) = (maps(&a, k, 1e9), maps(&residual, n, 0.0));
                let fin = Finish { residual: added.then_some(&residual), ..fin };
                let got = guarded(residual.len(), |d| strassen(&pool, lay, (batch, rows), &a, &packed, fin, d));
                let got = plain(&got, batch, n, rows, l);
                let rows: Vec<f32> =
                    (0..m * n).map(|at| got[(at / (rows * n) * n + at % n) * rows + at / n % rows]).collect();
                near(&rows, lay);
            }
        }
    }

    #[test]
    fn sizes_around_the_tiles() {
        for (m, k, n) in [(1, 1, 1), (2, 40, 64), (7, 33, 65), (29, 64, 96), (57, 130, 31), (64, 96, 128), (3, 17, 200)]
        {
            for transposed in [false, true] {
                check(m, k, n, transposed, Act::None, false);
            }
        }
    }

    #[test]
    fn passes_groups_and_parts() {
        for (m, k, n, transposed) in [(67, 1700, 200, true), (600, 48, 500, false), (131, 800, 330, false)] {
            check(m, k, n, transposed, Act::None, true);
        }
    }

    #[test]
    fn batches() {
        check_batch((3, 33), 70, 100, true, Act::None, true);
        check_batch((2, 5), 40, 64, false, Act::Relu, false);
    }

    #[test]
    fn activations() {
        for act in [Act::Relu, Act::Gelu, Act::Clip { lo: -0.5, hi: 0.25 }] {
            check(37, 70, 90, true, act, true);
        }
    }
}
