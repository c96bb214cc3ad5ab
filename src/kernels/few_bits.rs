//! Products with weights of four or eight bits, which stay packed in memory: `(code − zero) · scale`, one scale for a block of k.
//!
//! Ladder: weights unpacked once, as f32 → codes widened in registers while they are streamed, so that a vector times the matrix
//! reads an eighth or a quarter of the bytes; zero and scale once per block, on the sum → many rows: a task unpacks the
//! columns it needs into panels of a packed product ([`super::gemm`]). Where bytes can be multiplied, `packed_bits` takes over.

use super::gemv::{After, MAX_M};
use crate::engine::pool::{Grid, Pool, Scratch};
use crate::simd::codes::{Codes, Zeros, dots};
use crate::simd::{Isa, Simd, SimdOp, dispatch};
use crate::tensor::{Pages, Tensor};
use std::sync::Arc;

/// A constant matrix of `k` rows and `n` columns in few bits.
#[derive(Clone, Debug)]
pub struct FewBits {
    /// Rows.
    pub k: usize,
    /// Columns.
    pub n: usize,
    /// Four (the low half of a byte first; unsigned) or eight.
    pub bits: usize,
    /// Codes of eight bits are signed.
    pub signed: bool,
    /// Bytes lie `[n][row_bytes]`, the codes of a column together; otherwise `[k][n]`, eight bits only.
    pub by_column: bool,
    /// Bytes of a column (or row).
    pub row_bytes: usize,
    /// Values of k that share a scale.
    pub block: usize,
    /// `[n][blocks]`
    pub scales: Arc<Pages>,
    /// `[n][blocks]`, or one for all.
    pub zeros: Arc<Pages>,
    /// The bytes, where the file has them.
    pub data: Arc<Tensor>,
}

impl FewBits {
    /// Scales per column.
    pub fn blocks(&self) -> usize {
        self.k.div_ceil(self.block.max(1))
    }

    /// Whether everything has the size it must have.
    pub fn fits(&self) -> bool {
        let codes = if self.by_column { self.k } else { self.n };
        let rows = if self.by_column { self.n } else { self.k };
        let scales = self.n * self.blocks();
        matches!(self.bits, 4 | 8)
            && (self.by_column || self.bits == 8)
            && self.block > 0
            && self.row_bytes >= (codes * self.bits).div_ceil(8)
            && self.data.bytes().is_ok_and(|b| b.len() == rows * self.row_bytes)
            && self.scales.len() == scales
            && (self.zeros.len() == scales || self.zeros.len() == 1)
    }

    fn code(&self, byte: u8, high: bool) -> f32 {
        match (self.bits, self.signed) {
            (4, _) => f32::from(if high { byte >> 4 } else { byte & 15 }),
            (_, true) => f32::from(byte as i8),
            _ => f32::from(byte),
        }
    }

    /// Weights `k0..k0 + out.len()` of a column.
    fn column(&self, bytes: &[u8], col: usize, k0: usize, out: &mut [f32]) {
        for (i, x) in out.iter_mut().enumerate() {
            let at = k0 + i;
            let (scale, zero) = self.scale(col, at / self.block);
            let byte = match (self.by_column, self.bits) {
                (false, _) => bytes[at * self.row_bytes + col],
                (true, 4) => bytes[col * self.row_bytes + at / 2],
                _ => bytes[col * self.row_bytes + at],
            };
            *x = (self.code(byte, at % 2 == 1) - zero) * scale;
        }
    }

    /// Scale and zero of a block of a column.
    pub(super) fn scale(&self, col: usize, block: usize) -> (f32, f32) {
        let at = col * self.blocks() + block;
        (self.scales[at], self.zeros[at.min(self.zeros.len() - 1)])
    }

    /// Columns `n0..n0 + nn` as panels `[panel][k][NR]`, as a packed product wants them.
    pub fn panels(&self, isa: Isa, n0: usize, nn: usize, to: &mut [f32]) {
        let bytes = self.data.bytes().unwrap_or_default();
        dispatch(isa, Panels { w: self, bytes, n0, nn, to });
    }

    /// Whether a vector can be multiplied with the codes as they lie.
    pub fn streams(&self, isa: Isa) -> bool {
        !self.by_column || self.bits == 8 || self.block.is_multiple_of(2 * isa.lanes())
    }
}

/// Codes of a column that are widened together.
const RUN: usize = 32;

struct Panels<'a> {
    w: &'a FewBits,
    bytes: &'a [u8],
    n0: usize,
    nn: usize,
    to: &'a mut [f32],
}

impl SimdOp for Panels<'_> {
    type Out = ();
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let Panels { w, bytes, n0, nn, to } = self;
        let (l, nr) = (S::LANES, 2 * S::LANES);
        let mut at = 0;
        for col in (0..nn).step_by(nr) {
            let width = (nn - col).min(nr);
            let padded = width.next_multiple_of(l);
            let panel = &mut to[at..at + w.k * padded];
            at += w.k * padded;
            if !w.by_column && width == nr {
                rows_of_codes(s, w, bytes, n0 + col, panel);
                continue;
            }
            if width < padded {
                panel.fill(0.0);
            }
            // Runs of k of eight columns at a time, then written as runs of eight of each row.
            for c0 in (0..width).step_by(8) {
                let (wide, first) = (8.min(width - c0), n0 + col + c0);
                for k0 in (0..w.k).step_by(RUN) {
                    let here = RUN.min(w.k - k0);
                    let mut part = [[0.0f32; RUN]; 8];
                    if w.by_column && here == RUN && wide == 8 && w.block.is_multiple_of(RUN) {
                        run_of_codes(s, w, bytes, first, k0, &mut part);
                    } else {
                        for (c, part) in part.iter_mut().enumerate().take(wide) {
                            w.column(bytes, first + c, k0, &mut part[..here]);
                        }
                    }
                    for i in 0..here {
                        let row = &mut panel[(k0 + i) * padded + c0..][..wide];
                        if let Some(row) = row.first_chunk_mut::<8>() {
                            // Spelled out: eight stores without a loop.
                            row[0] = part[0][i];
                            row[1] = part[1][i];
                            row[2] = part[2][i];
                            row[3] = part[3][i];
                            row[4] = part[4][i];
                            row[5] = part[5][i];
                            row[6] = part[6][i];
                            row[7] = part[7][i];
                            continue;
                        }
                        for (x, part) in row.iter_mut().zip(&part) {
                            *x = part[i];
                        }
                    }
                }
            }
        }
    }
}

/// A full panel out of rows of codes: both vectors of a row at once.
#[inline(always)]
fn rows_of_codes<S: Simd>(s: S, w: &FewBits, bytes: &[u8], col: usize, panel: &mut [f32]) {
    let (l, nr) = (S::LANES, 2 * S::LANES);
    let (mut scales, mut zeros) = ([0.0f32; 32], [0.0f32; 32]);
    for (r, row) in panel.chunks_exact_mut(nr).enumerate() {
        if r % w.block == 0 {
            for c in 0..nr {
                (scales[c], zeros[c]) = w.scale(col + c, r / w.block);
            }
        }
        let codes = &bytes[r * w.row_bytes + col..][..nr];
        for j in 0..2 {
            let codes = &codes[j * l..][..l];
            let v = if w.signed { s.load_i8(codes) } else { s.load_u8(codes) };
            let x = s.sub(s.to_float(v), s.load(&zeros[j * l..]));
            s.store(&mut row[j * l..], s.mul(x, s.load(&scales[j * l..])));
        }
    }
}

/// A run of eight columns of codes, inside one block.
#[inline(always)]
fn run_of_codes<S: Simd>(s: S, w: &FewBits, bytes: &[u8], col: usize, k0: usize, to: &mut [[f32; RUN]; 8]) {
    let l = S::LANES;
    let low = s.splat_int(15);
    for (c, to) in to.iter_mut().enumerate() {
        let (scale, zero) = w.scale(col + c, k0 / w.block);
        let (scale, zero) = (s.splat(scale), s.splat(zero));
        let codes = &bytes[(col + c) * w.row_bytes + k0 * w.bits / 8..][..RUN * w.bits / 8];
        if w.bits == 8 {
            for (codes, to) in codes.chunks_exact(l).zip(to.chunks_exact_mut(l)) {
                let v = if w.signed { s.load_i8(codes) } else { s.load_u8(codes) };
                s.store(to, s.mul(s.sub(s.to_float(v), zero), scale));
            }
            continue;
        }
        let (mut even, mut odd) = ([0.0f32; RUN / 2], [0.0f32; RUN / 2]);
        for (i, codes) in codes.chunks_exact(l).enumerate() {
            let v = s.load_u8(codes);
            let x = s.mul(s.sub(s.to_float(s.and_int(v, low)), zero), scale);
            s.store(&mut even[i * l..], x);
            let x = s.mul(s.sub(s.to_float(s.shr_int::<4>(v)), zero), scale);
            s.store(&mut odd[i * l..], x);
        }
        for i in 0..RUN / 2 {
            to[2 * i] = even[i];
            to[2 * i + 1] = odd[i];
        }
    }
}

/// `dst[m][n] = act(alpha · x[m][k] · W + bias[n] + residual)` for few rows.
///
/// Panics on lengths that do not fit, `m > MAX_M` or a matrix that cannot be streamed.
pub fn few_rows(pool: &Pool, isa: Isa, m: usize, x: &[f32], w: &FewBits, after: After<'_>, dst: &mut [f32]) {
    let (k, n, l) = (w.k, w.n, isa.lanes());
    assert!(m <= MAX_M && x.len() == m * k && dst.len() == m * n && w.fits() && w.streams(isa), "few bits {m}x{k}x{n}");
    assert!(after.fits(m, n), "few bits {m}x{k}x{n}: bias or residual");
    if dst.is_empty() {
        return;
    }
    let bytes = w.data.bytes().unwrap_or_default();
    let most = if pool.threads() == 1 { 1 } else { 8 * pool.threads() };
    let parts = (bytes.len() / (32 << 10)).clamp(1, most).max(if m > 1 { bytes.len() / (128 << 10) } else { 1 });
    let step = n.div_ceil(parts).next_multiple_of(64).max(64);
    let ticket = pool.ticket();
    // Each row in the order of the codes, and the sums of its blocks.
    let wide = w.blocks() * w.block.next_multiple_of(2 * l);
    let row = wide + w.blocks();
    let grid = Grid { outer: 1, a: 1, b: m, len: n, a_tile: 1, b_tile: m, len_tile: step };
    pool.for_tiles(dst, grid, |mut tile, id| {
        pool.scratch(id, |scratch| {
            let Scratch { a, tag_a, .. } = scratch;
            let rows = Scratch::grow(a, m * row);
            if *tag_a != (ticket, 0) {
                *tag_a = (0, 0);
                for (x, to) in x.chunks_exact(k.max(1)).zip(rows.chunks_exact_mut(row)) {
                    let (to, sums) = to.split_at_mut(wide);
                    ordered(w, l, x, to, sums);
                }
                *tag_a = (ticket, 0);
            }
            let n0 = tile.c0;
            for i in 0..m {
                let (x, sums) = rows[i * row..][..row].split_at(wide);
                let y = tile.seg(0, i);
                if w.by_column && w.k.is_multiple_of(w.block) && w.block.is_multiple_of(2 * l) {
                    let (blocks, column) = (w.blocks(), w.row_bytes);
                    let codes = Codes {
                        bits: w.bits,
                        signed: w.signed,
                        bytes: &bytes[n0 * column..],
                        column,
                        block: w.block,
                        x,
                        sums,
                        scales: &w.scales[n0 * blocks..],
                        zeros: match w.zeros[..] {
                            [zero] => Zeros::All(zero),
                            _ => Zeros::Each(&w.zeros[n0 * blocks..]),
                        },
                    };
                    dots(isa, &codes, y);
                } else if w.by_column {
                    dispatch(isa, Dots { w, bytes, x, sums, n0, y });
                } else {
                    dispatch(isa, Sums { w, bytes, x, sums, n0, y });
                }
                after.apply(isa, i * n + n0, n0, y);
            }
        });
    });
}

/// `x` as its products meet the codes: plainly, or for halves of bytes the even ones of each `2 · lanes` before the odd ones.
fn ordered(w: &FewBits, l: usize, x: &[f32], to: &mut [f32], sums: &mut [f32]) {
    let wide = w.block.next_multiple_of(2 * l);
    for ((x, to), sum) in x.chunks(w.block).zip(to.chunks_exact_mut(wide)).zip(sums) {
        *sum = x.iter().sum();
        to.fill(0.0);
        if w.bits == 8 {
            to[..x.len()].copy_from_slice(x);
            continue;
        }
        for (x, to) in x.chunks(2 * l).zip(to.chunks_exact_mut(2 * l)) {
            for (i, &v) in x.iter().enumerate() {
                to[i / 2 + if i % 2 == 1 { l } else { 0 }] = v;
            }
        }
    }
}

/// Columns of codes: dot products.
struct Dots<'a> {
    w: &'a FewBits,
    bytes: &'a [u8],
    x: &'a [f32],
    sums: &'a [f32],
    n0: usize,
    y: &'a mut [f32],
}

impl SimdOp for Dots<'_> {
    type Out = ();
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let Dots { w, bytes, x, sums, n0, y } = self;
        let (l, blocks) = (S::LANES, w.blocks());
        let wide = w.block.next_multiple_of(2 * l);
        let block_bytes = w.block * w.bits / 8;
        for (c, y) in y.iter_mut().enumerate() {
            let col = n0 + c;
            let codes = &bytes[col * w.row_bytes..][..w.row_bytes];
            let scales = &w.scales[col * blocks..][..blocks];
            let mut total = s.splat(0.0);
            let mut shift = 0.0;
            for b in 0..blocks {
                let codes = &codes[b * block_bytes..];
                let codes = &codes[..block_bytes.min(codes.len())];
                let x = &x[b * wide..][..wide];
                let mut rest = 0.0;
                let mut acc = s.splat(0.0);
                if w.bits == 4 {
                    let low = s.splat_int(15);
                    let pairs = codes.chunks_exact(l);
                    // A last block that ends inside a vector of codes; its values of x beyond k are zeros.
                    for (i, byte) in pairs.remainder().iter().enumerate() {
                        let at = codes.len() / l * 2 * l + i;
                        rest += f32::from(byte & 15) * x[at] + f32::from(byte >> 4) * x[at + l];
                    }
                    for (codes, x) in pairs.zip(x.chunks_exact(2 * l)) {
                        let v = s.load_u8(codes);
                        acc = s.fma(s.to_float(s.and_int(v, low)), s.load(x), acc);
                        acc = s.fma(s.to_float(s.shr_int::<4>(v)), s.load(&x[l..]), acc);
                    }
                } else {
                    let vectors = codes.chunks_exact(l);
                    for (i, &byte) in vectors.remainder().iter().enumerate() {
                        rest += w.code(byte, false) * x[codes.len() / l * l + i];
                    }
                    for (codes, x) in vectors.zip(x.chunks_exact(l)) {
                        let v = if w.signed { s.load_i8(codes) } else { s.load_u8(codes) };
                        acc = s.fma(s.to_float(v), s.load(x), acc);
                    }
                }
                total = s.fma(acc, s.splat(scales[b]), total);
                shift += scales[b] * (rest - w.scale(col, b).1 * sums[b]);
            }
            *y = s.reduce_add(total) + shift;
        }
    }
}

/// Rows of codes, one scale per column (or blocks of rows): scaled sums of stretches of columns that stay in registers.
struct Sums<'a> {
    w: &'a FewBits,
    bytes: &'a [u8],
    x: &'a [f32],
    sums: &'a [f32],
    n0: usize,
    y: &'a mut [f32],
}

/// Vectors of columns in registers.
const WIDE: usize = 8;
/// Rows asked for in advance.
const AHEAD: usize = 8;

impl SimdOp for Sums<'_> {
    type Out = ();
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let Sums { w, bytes, x, sums, n0, y } = self;
        let (l, blocks) = (S::LANES, w.blocks());
        let wide = w.block.next_multiple_of(2 * l);
        for (piece, y) in y.chunks_mut(WIDE * l).enumerate() {
            let col = n0 + piece * WIDE * l;
            let width = y.len();
            y.fill(0.0);
            for b in 0..blocks {
                let rows = b * w.block..((b + 1) * w.block).min(w.k);
                let x = &x[b * wide..][..rows.len()];
                let mut out = [0.0f32; WIDE * 16];
                if width == WIDE * l {
                    let mut acc = [s.splat(0.0); WIDE];
                    for (r, &x) in rows.clone().zip(x) {
                        let codes = &bytes[r * w.row_bytes + col..][..WIDE * l];
                        s.prefetch(codes.as_ptr().wrapping_add(AHEAD * w.row_bytes).cast());
                        let x = s.splat(x);
                        for j in 0..WIDE {
                            let codes = &codes[j * l..][..l];
                            let v = if w.signed { s.load_i8(codes) } else { s.load_u8(codes) };
                            acc[j] = s.fma(s.to_float(v), x, acc[j]);
                        }
                    }
                    for j in 0..WIDE {
                        s.store(&mut out[j * l..], acc[j]);
                    }
                } else {
                    for (r, &x) in rows.clone().zip(x) {
                        let codes = &bytes[r * w.row_bytes + col..][..width];
                        for (o, &byte) in out.iter_mut().zip(codes) {
                            *o += x * w.code(byte, false);
                        }
                    }
                }
                for (c, (y, o)) in y.iter_mut().zip(out).enumerate() {
                    let (scale, zero) = w.scale(col + c, b);
                    *y += scale * (o - zero * sums[b]);
                }
            }
        }
    }
}

/// `x` rounded as DynamicQuantizeLinear does it: to a byte with a scale and zero point out of its range, and back.
pub fn rounded_to_bytes(isa: Isa, x: &[f32], to: &mut [f32]) {
    let (low, high) = x.iter().fold((0.0f32, 0.0f32), |(a, b), &v| (a.min(v), b.max(v)));
    let scale = (high - low) / 255.0;
    if scale == 0.0 {
        return to.fill(0.0);
    }
    let zero = (-low / scale).round_ties_even().clamp(0.0, 255.0);
    dispatch(isa, Rounded { x, scale, zero, to });
}

struct Rounded<'a> {
    x: &'a [f32],
    scale: f32,
    zero: f32,
    to: &'a mut [f32],
}

impl SimdOp for Rounded<'_> {
    type Out = ();
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let (scale, zero) = (s.splat(self.scale), s.splat(self.zero));
        let (least, most) = (s.splat(0.0), s.splat(255.0));
        for (x, to) in self.x.chunks(S::LANES).zip(self.to.chunks_mut(S::LANES)) {
            let q = s.add(s.round(s.div(s.load_tail(x), scale)), zero);
            let q = s.min(most, s.max(least, q));
            s.store_tail(to, s.mul(s.sub(q, zero), scale));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::Act;
    use crate::kernels::gemm::{Finish, GemmShape, Mat, Rhs, gemm};
    use crate::kernels::packed_bits::{PackedBits, Together, laid};
    use crate::kernels::testing::{close, guarded, isas, values};

    fn matrix(k: usize, n: usize, bits: usize, signed: bool, by_column: bool, block: usize) -> FewBits {
        let blocks = k.div_ceil(block);
        let row_bytes = if by_column { (blocks * block * bits).div_ceil(8) } else { n };
        let rows = if by_column { n } else { k };
        let bytes: Vec<u8> = (0..rows * row_bytes).map(|i| ((i * 2_654_435_761) >> 7) as u8).collect();
        let data = Arc::new(Tensor::from_vec(bytes, &[rows, row_bytes]).unwrap());
        let scales: Vec<f32> = values(n * blocks, 5).iter().map(|v| 0.01 * v).collect();
        let zeros: Vec<f32> = values(n * blocks, 6).iter().map(|v| (8.0 * v).round()).collect();
        let (scales, zeros) = (Pages::holding(&scales), Pages::holding(&zeros));
        FewBits { k, n, bits, signed, by_column, row_bytes, block, scales, zeros, data }
    }

    #[test]
    fn vectors_and_rows() {
        let mut laid_out = 0;
        for (k, n, block) in [(64usize, 70usize, 32usize), (50, 130, 32), (128, 64, 128), (33, 9, 33), (256, 40, 16)] {
            for (bits, signed, by_column) in [(4, false, true), (8, false, true), (8, true, false), (8, false, false)] {
                let w =
                    matrix(k, n, bits, signed, by_column, if bits == 4 { block.next_multiple_of(2) } else { block });
                let alone = FewBits { zeros: Pages::holding(&[7.0]), ..w.clone() };
                for w in [w, alone] {
                    assert!(w.fits());
                    let bytes = w.data.bytes().unwrap();
                    for m in [1, 3, 9, 70] {
                        let (x, bias, res) = (values(m * k, 1), values(n, 2), values(m * n, 3));
                        let mut want = Vec::new();
                        for i in 0..m {
                            for j in 0..n {
                                let mut column = vec![0.0; k];
                                w.column(bytes, j, 0, &mut column);
                                let dot: f64 = (0..k).map(|r| x[i * k + r] as f64 * column[r] as f64).sum();
                                want.push((0.5 * dot as f32 + bias[j] + res[i * n + j]).max(0.0));
                            }
                        }
                        let after = After { alpha: 0.5, bias: Some(&bias), residual: Some(&res), act: Act::Relu };
                        for isa in isas() {
                            let pool = Pool::new(2);
                            let what = format!("{isa} {m}x{k}x{n} {bits} bits by column {by_column}");
                            if m <= MAX_M && w.streams(isa) {
                                let got = guarded(m * n, |d| few_rows(&pool, isa, m, &x, &w, after, d));
                                close(&got, &want, 1e-4, &what);
                            }
                            if let Some(blocks) = laid(&w) {
                                let panels = PackedBits::new(isa, &w, blocks, None);
                                let mut fixed = vec![-1; panels.fixed(m)];
                                let got = guarded(m * n, |d| panels.product(&pool, m, &x, &mut fixed, after, d));
                                close(&got, &want, 1e-4, &what);
                                laid_out += 1;
                            }
                            let fin = Finish {
                                alpha: 0.5,
                                bias: crate::kernels::gemm::Bias::Col(&bias),
                                residual: Some(&res),
                                act: Act::Relu,
                            };
                            let shape = GemmShape { batch: 1, m, k, n };
                            let got =
                                guarded(m * n, |d| gemm(&pool, isa, shape, Mat::rows(&x, m, k), Rhs::Bits(&w), fin, d));
                            close(&got, &want, 1e-4, &what);
                        }
                    }
                }
            }
        }
        assert!(laid_out > 200, "{laid_out} in panels");
    }

    #[test]
    fn several_matrices_as_one_by_one() {
        let k = 96;
        for bits in [4, 8] {
            let sizes = [70, 1, 33, 256, 16];
            let matrices = sizes.map(|n| FewBits {
                zeros: Pages::holding(&[7.0]),
                scales: Pages::holding(&values(n * 3, n as u64)),
                ..matrix(k, n, bits, false, true, 32)
            });
            let blocks = laid(&matrices[0]).unwrap();
            let (x, bias) = (values(k, 1), values(70, 2));
            for isa in isas() {
                for threads in [1, 2, 3] {
                    let pool = Pool::new(threads);
                    let packed: Vec<_> = matrices.iter().map(|w| PackedBits::new(isa, w, blocks, None)).collect();
                    let plain = After { alpha: 0.5, bias: None, residual: None, act: Act::Relu };
                    let mut after = [plain; 5];
                    after[0].bias = Some(&bias);
                    let mut fixed = vec![0; packed[0].fixed(1)];
                    let mut want = Vec::new();
                    for (w, after) in packed.iter().zip(after) {
                        want.extend(guarded(w.n(), |y| w.product(&pool, 1, &x, &mut fixed, after, y)));
                    }
                    let together = Together::new(packed, threads);
                    fixed.fill(-1);
                    let got = guarded(want.len(), |y| together.product(&pool, &x, &mut fixed, &after, y));
                    // The same sums, cut elsewhere.
                    assert_eq!(got, want, "{isa}, {threads} threads, {bits} bits");
                }
            }
            let other = matrix(k, 16, bits, false, true, 32);
            let [one, two] = [(&matrices[0], blocks), (&other, laid(&other).unwrap())]
                .map(|(w, blocks)| PackedBits::new(Isa::best(), w, blocks, None));
            assert!(one.is_like(&one) && !one.is_like(&two) && !two.is_like(&one));
        }
    }

    #[test]
    fn rounding_as_the_operator_does() {
        let x = [-1.0f32, 0.0, 0.5, 2.0, 1.999, -0.003];
        for isa in isas() {
            let mut y = [f32::NAN; 6];
            rounded_to_bytes(isa, &x, &mut y);
            let (scale, zero) = (3.0f32 / 255.0, 85.0);
            for (x, y) in x.iter().zip(y) {
                let q = ((x / scale).round_ties_even() + zero).clamp(0.0, 255.0);
                assert!((y - (q - zero) * scale).abs() < 1e-6);
            }
        }
    }
}
