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
//! equation 23.6.) What belongs to which half of k and of the columns is free. Here panels that lie side by side are the left and the right
//! columns, and k is cut into slices with two halves each: so the packed matrix is the one all products share ([`PackedB`]), and its sums
//! are made by a task for one pair of panels and one slice, in cache. The sums of A are made when a task lays out its rows, those of C by the
//! register tile all products share ([`crate::simd::panel`]), which starts from one product when it makes the next.
//!
//! Error: bounded by the largest magnitudes of A and B rather than element by element (Higham, §23.2.2). A test holds it to 1e-5
//! relative to the largest result. An infinity or NaN in A reaches the other row of its pair.

use super::epilogue::Act;
use super::gemm::PackedB;
use crate::engine::pool::{Grid, Pool, Scratch};
use crate::simd::panel::{Panel, PanelDst, PanelForm, PanelSrc, panel, panel_of_difference, tiles_of};
use crate::simd::{Isa, Simd, SimdOp, TileMut, dispatch};

/// Products of halves, and left factors in the order in which they are laid out: A11, A12, S1, S2, S4, S3, A22.
const PRODUCTS: usize = 7;
/// Right factors that are sums and in use at the same time.
const TERMS: usize = 2;
/// Sums of products.
const SUMS: usize = 6;
/// A11·B11, and what is added to it before others use it.
const U: usize = 0;
/// S1·T1.
const V: usize = 1;
/// The quarters of C, less what `done` adds.
const X11: usize = 2;
const X12: usize = 3;
const X21: usize = 4;
const X22: usize = 5;

/// A product's part of the result.
#[derive(Clone, Copy, Debug)]
struct Goes {
    /// Its left factor.
    left: usize,
    /// The quarter of B, by rows, that is its right factor.
    by: usize,
    /// What is taken from it, and the term where the difference is left.
    less: Option<(Less, usize)>,
    /// Which sum it is added to.
    to: usize,
    /// When that sum starts.
    starts: Starts,
    /// The sum added with it.
    onto: Option<usize>,
    /// The quarter of C, by rows, that is complete after the last slice, and the other sum it takes.
    done: Option<(usize, Option<usize>)>,
}

/// When a sum starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Starts {
    /// With this product, in every slice of k.
    Here,
    /// With this product in the first slice.
    First,
    /// An earlier product has started it.
    Earlier,
}

/// What is taken from a quarter of B.
#[derive(Clone, Copy, Debug)]
enum Less {
    /// Another quarter, by rows.
    Quarter(usize),
    /// The other term, which an earlier product has made.
    Term,
}

/// A pair of panels. T1 and T2 are terms 0 and 1; T3 and T4 take the place of T1 when T2 no longer needs it.
const PAIR: [Goes; PRODUCTS] = [
    Goes { left: 0, by: 0, less: None, to: U, starts: Starts::Here, onto: None, done: None },
    Goes { left: 1, by: 2, less: None, to: X11, starts: Starts::First, onto: Some(U), done: Some((0, None)) },
    Goes { left: 2, by: 1, less: Some((Less::Quarter(0), 0)), to: V, starts: Starts::First, onto: None, done: None },
    Goes { left: 3, by: 3, less: Some((Less::Term, 1)), to: U, starts: Starts::Earlier, onto: None, done: None },
    Goes { left: 4, by: 3, less: None, to: X12, starts: Starts::First, onto: Some(U), done: Some((1, Some(V))) },
    Goes {
        left: 5,
        by: 3,
        less: Some((Less::Quarter(1), 0)),
        to: X22,
        starts: Starts::First,
        onto: Some(U),
        done: Some((3, Some(V))),
    },
    Goes {
        left: 6,
        by: 2,
        less: Some((Less::Term, 0)),
        to: X21,
        starts: Starts::First,
        onto: None,
        done: Some((2, Some(X22))),
    },
];

/// A panel that has none beside it: A11·B11 + A12·B21, and S1·B11 + A22·(B21 − B11), which is A21·B11 + A22·B21.
const ALONE: [Goes; 4] = [
    Goes { left: 0, by: 0, less: None, to: X11, starts: Starts::First, onto: None, done: None },
    Goes { left: 1, by: 2, less: None, to: X11, starts: Starts::Earlier, onto: None, done: Some((0, None)) },
    Goes { left: 2, by: 0, less: None, to: X21, starts: Starts::First, onto: None, done: None },
    Goes {
        left: 6,
        by: 2,
        less: Some((Less::Quarter(0), 0)),
        to: X21,
        starts: Starts::Earlier,
        onto: None,
        done: Some((2, None)),
    },
];

/// Most values of k of half a slice.
const KC: usize = 384;
/// Bytes of a product's left factor that is used for pair after pair.
const A_BYTES: usize = 128 << 10;
/// Bytes of sums that slices come back to.
const C_BYTES: usize = 192 << 10;
/// Panel pairs of a task, at least, where there are as many: they share what was laid out.
const PAIRS: usize = 3;
/// Blocks of k of a row that are laid out before the next row.
const RUNS: usize = 4;

/// Fewest rows, values of k and columns: below, sums take more than the eighth product (49 rows took 0.99 to 1.08 of the plain time).
const FEWEST: [usize; 3] = [64, 256, 96];
/// Multiply-adds of a well-filled register tile in the time that a value of A takes for its sums, in rows and in blocks, beyond what the
/// product of 8 takes: it lays out rows too, but reads maps in place.
const A_MADDS: [f64; 2] = [3.0, 12.0];
/// The same for a value of B, each time that sums are made of it.
const B_MADDS: f64 = 1.5;
/// The same for a value of C.
const C_MADDS: f64 = 16.0;
/// What is won at least where it is chosen.
const MARGIN: f64 = 1.02;
/// Columns per multiply-add that laying out a value of A takes, below which threads share rows rather than columns: nothing is then laid
/// out twice.
const FEW_COLUMNS: usize = 100;
/// Rows of a task, at least, where threads share rows.
const FEW_ROWS: usize = 48;
/// Multiply-adds of one thread in the time of one byte of weights from memory, which all threads share.
const MADDS_PER_BYTE: f64 = 2.0;

/// A stretch of k with two halves.
#[derive(Clone, Copy, Debug)]
struct Slice {
    /// First value of k.
    k0: usize,
    /// Values of the first half, whole vectors; the second half may have fewer.
    kc: usize,
    /// Values.
    len: usize,
    /// Values of the first halves of the slices before.
    before: usize,
}

/// Slices as even as whole vectors allow; the halves are equal but for the last slice's. `k` is more than one vector.
fn slices(isa: Isa, k: usize) -> impl Iterator<Item = Slice> + Clone {
    let l = isa.lanes();
    // Vectors of all first halves.
    let vectors = k.div_ceil(2 * l);
    let count = vectors.div_ceil(KC / l);
    (0..count).map(move |i| {
        let (start, end) = (vectors * i / count, vectors * (i + 1) / count);
        let k0 = 2 * start * l;
        Slice { k0, kc: (end - start) * l, len: k.min(2 * end * l) - k0, before: start * l }
    })
}

/// How tasks share a product.
#[derive(Clone, Copy, Debug)]
struct Parts {
    /// Parts of the rows.
    rows: usize,
    /// Pairs of panels of a task.
    width: usize,
}

impl Parts {
    fn of(isa: Isa, threads: usize, lay: Lay, (batch, m): (usize, usize), [k, n]: [usize; 2]) -> Parts {
        let (mr, pairs) = (isa.mr(), n.div_ceil(2 * isa.nr()));
        let kc = slices(isa, k).map(|s| s.kc).max().unwrap_or(1);
        let fit = 2 * (A_BYTES / (4 * kc)).max(4 * mr);
        let mut rows = m.div_ceil(fit);
        // As wide as every thread gets the same to do, and the narrowest of those: others of the machine take their share too.
        let busy = |width: usize, rows: usize| (batch * rows * pairs.div_ceil(width)).div_ceil(threads) * width;
        let widths = PAIRS.min(pairs.div_ceil(threads))..=pairs.div_ceil(threads).max(PAIRS.min(pairs));
        let best = |rows: usize| widths.clone().min_by_key(|&w| busy(w, rows)).unwrap_or(1);
        let mut width = if threads == 1 { pairs } else { best(rows) };
        let few = FEW_COLUMNS * (1.0 + A_MADDS[lay as usize]) as usize * (threads - 1);
        if n < few && m.div_ceil(rows.next_multiple_of(threads)) >= FEW_ROWS {
            (rows, width) = (rows.next_multiple_of(threads), pairs);
        }
        // Rows are split further only where threads would idle: each part reads all of B.
        while 8 * busy(width, rows) * threads > 9 * batch * rows * pairs && m > 8 * mr * rows {
            rows *= 2;
            width = best(rows);
        }
        Parts { rows, width }
    }
}

/// The estimated cost in multiply-adds of a well-filled register tile, or why not.
pub(super) fn cost(isa: Isa, threads: usize, lay: Lay, batch: usize, [m, k, n]: [usize; 3]) -> Result<f64, String> {
    let [few_m, few_k, few_n] = FEWEST;
    if m < few_m || k < few_k || n < few_n {
        return Err(format!("fewer than {few_m} rows, {few_k} values of k or {few_n} columns"));
    }
    // Threads that share columns make the sums of A each for themselves: 49 pixels of four networks took 1.0 to 1.2 of the time on two
    // threads, 196 took 0.9 to 1.05. In rows A costs less.
    if lay == Lay::Blocks && threads > 1 && batch * m < FEW_ROWS * threads {
        return Err(format!("fewer than {FEW_ROWS} pixels for each thread"));
    }
    let parts = Parts::of(isa, threads, lay, (batch, m), [k, n]);
    let k = 2.0 * slices(isa, k).map(|s| s.kc).sum::<usize>() as f64;
    // Pairs of panels take 7 of 8 products; a panel alone takes all.
    let (nr, rows) = (isa.nr(), (batch * m) as f64);
    let (panels, n) = (n.div_ceil(nr), n.next_multiple_of(nr) as f64);
    let products = rows * k * ((panels / 2 * 2) as f64 * 7.0 / 8.0 + (panels % 2) as f64) * nr as f64;
    let stream = 4.0 * k * n * MADDS_PER_BYTE * threads as f64;
    let sums = A_MADDS[lay as usize] * rows * k + B_MADDS * (batch * parts.rows) as f64 * k * n + C_MADDS * rows * n;
    Ok((products.max(stream) + sums) * MARGIN)
}

/// How it runs, for reports.
pub(super) fn detail(isa: Isa) -> String {
    format!("7 products of halves {}x{}", isa.mr(), isa.nr())
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

/// Rows of a slice of A as the seven left factors, each in tiles `[k block][row][lanes]`.
struct Rows<'a> {
    a: Left<'a>,
    slice: Slice,
    to: &'a mut [f32],
}

impl SimdOp for Rows<'_> {
    type Out = ();
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let Rows { a, slice: Slice { k0, kc, .. }, to } = self;
        let (l, mh) = (S::LANES, a.rows.div_ceil(2));
        // Blocks of k of a row before the next row: of maps the rows run on, of rows the blocks, but not too many places are written at once.
        let runs = if a.row_step == l { 1 } else { RUNS };
        let mut parts = to.chunks_exact_mut(mh * kc);
        let parts: [&mut [f32]; PRODUCTS] = [(); PRODUCTS].map(|()| parts.next().unwrap_or_default());
        let mut first = 0;
        for rows in tiles_of(mh, S::MR) {
            for run in (0..kc).step_by(runs * l) {
                for i in 0..rows {
                    let row = first + i;
                    for kb in (run..kc.min(run + runs * l)).step_by(l) {
                        let (near, far) = (k0 + kb, k0 + kc + kb);
                        let (a11, a12) = (a.load(s, row, near), a.load(s, row, far));
                        let (a21, a22) = (a.load(s, mh + row, near), a.load(s, mh + row, far));
                        let s1 = s.add(a21, a22);
                        let s2 = s.sub(s1, a11);
                        let at = first * kc + kb * rows + i * l;
                        s.store(&mut parts[0][at..], a11);
                        s.store(&mut parts[1][at..], a12);
                        s.store(&mut parts[2][at..], s1);
                        s.store(&mut parts[3][at..], s2);
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

/// The quarters of a pair of panels in a slice as they lie in the packed matrix; they may be smaller than the slice's halves.
fn quarters(b: &PackedB, pair: usize, slice: Slice) -> [&[f32]; 4] {
    let (near, far) = (slice.k0..slice.k0 + slice.kc, slice.k0 + slice.kc..slice.k0 + slice.len);
    let (left, right) = (2 * pair, 2 * pair + 1);
    [(left, &near), (right, &near), (left, &far), (right, &far)].map(|(panel, rows)| b.part(panel, rows.clone()))
}

/// Quarters, with zeros for the columns or rows that one lacks; of a panel alone the right ones are not looked at.
fn filled_up<'a>(quarters: [&'a [f32]; 4], slice: Slice, nr: usize, copies: &'a mut [f32]) -> [&'a [f32]; 4] {
    let Slice { kc, len, .. } = slice;
    let alone = quarters[1].is_empty();
    let mut copies = copies.chunks_exact_mut(kc * nr);
    let mut of = |part: &'a [f32], rows: usize| -> &'a [f32] {
        if part.len() == kc * nr || alone && part.is_empty() {
            return part;
        }
        let to = copies.next().unwrap_or_default();
        let wide = part.len() / rows.max(1);
        if wide == nr {
            let (whole, rest) = to.split_at_mut(part.len());
            whole.copy_from_slice(part);
            rest.fill(0.0);
            return to;
        }
        to.fill(0.0);
        for (to, from) in to.chunks_exact_mut(nr).zip(part.chunks_exact(wide.max(1))) {
            to[..wide].copy_from_slice(from);
        }
        to
    };
    let [b11, b12, b21, b22] = quarters;
    [of(b11, kc), of(b12, kc), of(b21, len - kc), of(b22, len - kc)]
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
/// Panics on extents that do not fit, or a k of one vector or less.
pub fn strassen(
    pool: &Pool,
    lay: Lay,
    (batch, m): (usize, usize),
    a: &[f32],
    b: &PackedB,
    fin: Finish<'_>,
    dst: &mut [f32],
) {
    let (isa, k, n) = (b.isa(), b.k(), b.n());
    let (l, nr) = (isa.lanes(), isa.nr());
    let wide = |columns: usize| if lay == Lay::Rows { columns } else { columns.next_multiple_of(l) };
    let len = |columns: usize| batch.checked_mul(m).and_then(|rows| rows.checked_mul(wide(columns)));
    assert_eq!((Some(a.len()), Some(dst.len())), (len(k), len(n)), "{batch}x{m}x{k}x{n}");
    assert!(fin.bias.is_none_or(|c| c.len() == n) && fin.residual.is_none_or(|r| r.len() == dst.len()));
    assert!(k > l, "no halves of {k} values of k");
    if dst.is_empty() {
        return;
    }
    let (clamp, after) = fin.act.split();
    let slices = slices(isa, k);
    let kh: usize = slices.clone().map(|s| s.kc).sum();
    let largest = slices.clone().map(|s| s.kc).max().unwrap_or(0);
    let count = slices.clone().count();
    let Parts { rows: m_parts, width } = Parts::of(isa, pool.threads(), lay, (batch, m), [k, n]);
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
                for slice in slices.clone() {
                    let a = Left { data, row_step, block_step, rows: mm, k: slice.k0 + slice.len };
                    let to = &mut lhs[PRODUCTS * mh * slice.before..][..PRODUCTS * mh * slice.kc];
                    dispatch(isa, Rows { a, slice, to });
                }
                *tag_a = tag;
            }
            *tag_b = (0, 0);
            let quarter = mh * nr;
            let here = nn.div_ceil(2 * nr);
            // Pairs whose sums stay in the second-level cache from slice to slice.
            let group = if count == 1 { 1 } else { (C_BYTES / (4 * SUMS * quarter)).clamp(1, here) };
            let whole = largest * nr;
            let (sums, rest) =
                Scratch::grow(sb, SUMS * group * quarter + (TERMS + 4) * whole).split_at_mut(SUMS * group * quarter);
            let (terms, copies) = rest.split_at_mut(TERMS * whole);
            let first = c0 / (2 * nr);
            let steps = (0..here).step_by(group).flat_map(|p0| {
                let end = (p0 + group).min(here);
                slices.clone().flat_map(move |slice| (p0..end).map(move |p| (p0, p, slice)))
            });
            let mut ahead = steps.clone().skip(1);
            for (p0, p, slice) in steps {
                let Slice { k0, kc, len: in_slice, before } = slice;
                let last = k0 + in_slice == k;
                let parts = quarters(b, first + p, slice);
                let alone = parts[1].is_empty();
                let parts = filled_up(parts, slice, nr, copies);
                let next = ahead.next().map_or(&[][..], |(_, p, slice)| quarters(b, first + p, slice)[0]);
                let sums = &mut sums[(p - p0) * SUMS * quarter..][..SUMS * quarter];
                let products = if alone { &ALONE[..] } else { &PAIR };
                for (i, goes) in products.iter().enumerate() {
                    let from = PanelSrc {
                        src: &lhs[(PRODUCTS * before + goes.left * kc) * mh..][..kc * mh],
                        base: 0,
                        row_stride: 0,
                        kb_stride: mh * l,
                        kb: kc / l,
                        c_last: l,
                        taps: &[0],
                        form: PanelForm::Tiles,
                    };
                    let (under, over) = sums.split_at_mut(goes.to * quarter);
                    let (to, over) = over.split_at_mut(quarter);
                    // The sum `at`, which is not the one written.
                    let other = |at: usize| match at.checked_sub(goes.to + 1) {
                        Some(at) => &over[at * quarter..][..quarter],
                        None => &under[at * quarter..][..quarter],
                    };
                    // What the next product reads that was not read just now; the last one asks for the next pair's first.
                    let ask = products.get(i + 1).map(|g| match g.less {
                        Some((Less::Quarter(q), _)) if q == 1 => q,
                        _ => g.by,
                    });
                    let job = Panel {
                        from,
                        wei: parts[goes.by],
                        nb: 2,
                        bias: None,
                        accumulate: goes.starts == Starts::Earlier || goes.starts == Starts::First && k0 > 0,
                        residual: goes.onto.map(other),
                        clamp: (f32::NEG_INFINITY, f32::INFINITY),
                        next: ask.map_or(next, |q| parts[q]),
                    };
                    let (at, mut into) = (PanelDst::Columns { col: 0 }, TileMut::new(to, 1, mh, nr));
                    match goes.less {
                        None => panel(isa, &job, at, &mut into),
                        Some((less, term)) => {
                            let (zero, one) = terms.split_at_mut(whole);
                            let (made, term) = if term == 0 { (zero, &*one) } else { (one, &*zero) };
                            let less = match less {
                                Less::Quarter(q) => parts[q],
                                Less::Term => term,
                            };
                            panel_of_difference(isa, &job, less, made, at, &mut into);
                        }
                    }
                    let Some((q, plus)) = goes.done.filter(|_| last) else { continue };
                    let (row, col) = ((q / 2) * mh, (2 * p + q % 2) * nr);
                    if col >= nn || row >= mm {
                        continue;
                    }
                    let mut bias = [0.0f32; 32];
                    if let Some(c) = fin.bias {
                        let c = &c[c0 + col..n.min(c0 + nn.min(col + nr))];
                        bias[..c.len()].copy_from_slice(c);
                    }
                    let (bias, residual, tile) = (&bias[..], fin.residual, &mut tile);
                    let (sum, other) = (&*to, plus.map(other));
                    dispatch(isa, Last { sum, other, bias, residual, clamp, lay, tile, row, col });
                }
                let Some(act) = after.filter(|_| last) else { continue };
                let columns = 2 * p * nr..nn.min(2 * (p + 1) * nr);
                match lay {
                    Lay::Rows => act.apply_columns(isa, &mut tile, columns),
                    Lay::Blocks => act.apply_tile(isa, &mut tile, columns.start / l..columns.end / l),
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
            let packed = PackedB::of_source(isa, k, n, transposed, (&bytes[..]).into());
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
        for (m, k, n) in
            [(1, 17, 1), (2, 40, 64), (7, 33, 65), (29, 64, 96), (57, 130, 31), (64, 96, 128), (3, 17, 200)]
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
