//! Vectors in fixed point times panels of four- or eight-bit codes, by the instruction that multiplies bytes.
//!
//! A block of a vector is `scale · q` with integers `q` of 24 bits, each of them three signed digits of eight: `q = 65536 d₀ + 256 d₁ + d₂`.
//! Sums of codes times digits are exact integers, so that a product has the precision of one in f32 and costs no widening of the codes.
//!
//! Ladder: codes widened to f32, a column at a time ([`super::codes`]) → three products of bytes for four codes (5.5 cycles for 128 codes of
//! four bits on Zen 4 instead of 20) → a vector's width of columns side by side, with their scales behind each block: one stream, which the
//! hardware follows at the full bandwidth of the memory, no sums across lanes and one multiplication by the scales for a block.

use super::{Isa, Simd, SimdOp, dispatch_bytes};

/// Digits of a value.
const DIGITS: usize = 3;
/// The largest value of a block in fixed point: a little less than 127 in every digit, since the factor is rounded.
const MOST: f32 = 8_355_700.0;
/// Blocks whose values are all smaller count as zeros: the factor that fixes them would leave the range of f32.
const LEAST: f32 = 1e-30;
/// Words before the digits of a block: scale, sum, and what each of the three sums begins with.
const HEAD: usize = 2 + DIGITS;

/// How a matrix of codes lies in panels, of two vectors of columns and at its end perhaps of one.
///
/// A panel is its blocks of k one after another; a block its lines of codes, a line of scales and, unless one zero serves all, a line of
/// zeros. A line has a word of 32 bits for each column: four codes of eight bits or eight of four, in the order of k from the lowest bit up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Blocks {
    /// Four or eight; without sign.
    pub bits: usize,
    /// Number of blocks.
    pub count: usize,
    /// Codes of a block; the last may have fewer.
    pub codes: usize,
    /// The code that stands for zero, or each block and column has its own.
    pub zero: Option<i32>,
}

impl Blocks {
    /// Codes in a word.
    fn in_word(&self) -> usize {
        32 / self.bits
    }
    /// Lines of codes of a block.
    pub fn lines(&self) -> usize {
        self.codes.div_ceil(self.in_word())
    }
    /// All lines of a block.
    pub fn block(&self) -> usize {
        self.lines() + if self.zero.is_some() { 1 } else { 2 }
    }
    /// Lines of a panel.
    pub fn panel(&self) -> usize {
        self.count * self.block()
    }
    /// Words of a vector in fixed point.
    pub fn fixed(&self) -> usize {
        self.count * self.fixed_block()
    }
    fn fixed_block(&self) -> usize {
        HEAD + DIGITS * self.lines() * self.in_word() / 4
    }
    /// Whether sums of a block stay inside 32 bits.
    pub fn fit(&self) -> bool {
        matches!(self.bits, 4 | 8) && (1..=1 << 15).contains(&self.codes) && self.zero.is_none_or(|z| z.abs() < 512)
    }
}

/// A vector in fixed point. Panics unless `to` has [`Blocks::fixed`] words and `x` values for all blocks.
///
/// Meanwhile the beginning of `ahead` is asked for: what the vector is multiplied with, for which memory would wait.
///
/// Each block is its head, then for each line of codes and each digit a word of four bytes (of four bits two: the even codes of the line,
/// the odd ones). A block with a value that is not finite makes every product with it NaN.
pub fn fix(isa: Isa, blocks: &Blocks, x: &[f32], ahead: &[f32], to: &mut [i32]) {
    assert!(blocks.fit() && to.len() == blocks.fixed() && x.len().div_ceil(blocks.codes) == blocks.count);
    dispatch_bytes(isa, Fix { blocks, x, ahead, to });
}

struct Fix<'a> {
    blocks: &'a Blocks,
    x: &'a [f32],
    ahead: &'a [f32],
    to: &'a mut [i32],
}

/// Values of a cache line.
const LINE: usize = 16;
/// Values that are fixed in the time in which memory gives a line.
const VALUES_PER_LINE: usize = 2;

/// Values that are fixed together: whole lines of either kind.
const RUN: usize = 32;
/// Makes the digits of a sum carry into each other, so that each byte is a digit and 128.
const CARRY: i32 = 0x80_8080;

impl SimdOp for Fix<'_> {
    type Out = ();
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let Fix { blocks, x, mut ahead, to } = self;
        let l = S::LANES;
        for (x, to) in x.chunks(blocks.codes).zip(to.chunks_exact_mut(blocks.fixed_block())) {
            let (head, words) = to.split_at_mut(HEAD);
            let (lines, later) = ahead.split_at((x.len() / VALUES_PER_LINE * LINE).min(ahead.len()));
            for line in lines.iter().step_by(LINE) {
                s.prefetch_far(line);
            }
            ahead = later;
            // Not a number if a value is infinite or none itself: so is the product then.
            let (mut most, mut none) = (s.splat(0.0), s.splat(0.0));
            for v in x.chunks(l) {
                let v = s.load_tail(v);
                most = s.max(s.abs(v), most);
                none = s.fma(v, s.splat(0.0), none);
            }
            let (most, none) = (s.reduce_max(most), s.reduce_add(none));
            let (scale, per) = if most < LEAST { (none, 0.0) } else { (most / MOST + none, MOST / most) };
            let (per, carry, byte) = (s.splat(per), s.splat_int(CARRY), s.splat_int(255));
            let (mut d0, mut d1, mut d2) = (s.splat_int(0), s.splat_int(0), s.splat_int(0));
            let line_words = DIGITS * blocks.in_word() / 4;
            let mut runs = x.chunks(RUN);
            for words in words.chunks_mut(RUN / blocks.in_word() * line_words) {
                let mut x = runs.next().unwrap_or_default();
                let mut fixed = [0.0f32; RUN];
                for to in fixed.chunks_exact_mut(l) {
                    let (here, rest) = x.split_at(x.len().min(l));
                    x = rest;
                    let q = s.add_int(s.to_int(s.round(s.mul(s.load_tail(here), per))), carry);
                    d0 = s.add_int(d0, s.and_int(s.shr_int::<16>(q), byte));
                    d1 = s.add_int(d1, s.and_int(s.shr_int::<8>(q), byte));
                    d2 = s.add_int(d2, s.and_int(q, byte));
                    s.store(to, s.bits_to_float(q));
                }
                let q = fixed.map(f32::to_bits);
                if blocks.bits == 4 {
                    for (q, to) in q.as_chunks::<8>().0.iter().zip(words.as_chunks_mut::<6>().0) {
                        let (even, odd) = (turned([q[0], q[2], q[4], q[6]]), turned([q[1], q[3], q[5], q[7]]));
                        *to = [even[0], odd[0], even[1], odd[1], even[2], odd[2]];
                    }
                } else {
                    for (q, to) in q.as_chunks::<4>().0.iter().zip(words.as_chunks_mut::<DIGITS>().0) {
                        *to = turned(*q);
                    }
                }
            }
            // Every value that was fixed, those beyond the end too, has 128 in each digit's sum.
            let all = (blocks.lines() * blocks.in_word()).next_multiple_of(RUN) as i32;
            // Sums of bytes below 2^24: exact.
            let sum = |d| s.reduce_add(s.to_float(d)) as i32 - 128 * all;
            let (d0, d1, d2) = (sum(d0), sum(d1), sum(d2));
            let sum = (65536 * i64::from(d0) + 256 * i64::from(d1) + i64::from(d2)) as f32 * scale;
            let zero = blocks.zero.unwrap_or(0);
            let begins = [d0, d1, d2].map(|d| (-zero).wrapping_mul(d));
            head.copy_from_slice(&[scale.to_bits() as i32, sum.to_bits() as i32, begins[0], begins[1], begins[2]]);
        }
    }
}

/// The digits of four values, those of the same weight in a word.
#[inline(always)]
fn turned([a, b, c, d]: [u32; 4]) -> [i32; DIGITS] {
    const OUTER: u32 = 0x00ff_00ff;
    let (ab, cd) = ((a & OUTER) | (b & OUTER) << 8, (c & OUTER) | (d & OUTER) << 8);
    let inner = |a: u32, b: u32| (a >> 8 & 255) | (b & 0xff00);
    let words = [ab >> 16 | (cd & 0xffff_0000), inner(a, b) | inner(c, d) << 16, (ab & 0xffff) | cd << 16];
    // From a digit and 128 to the digit with its sign.
    words.map(|w| (w ^ 0x8080_8080) as i32)
}

/// `y[c] = Σ scale · (code − zero) · x` for the columns of consecutive panels, from the first of `panels` on, `fixed` being x as [`fix`]
/// makes it. Panics when an extent does not fit its slice.
pub fn products(isa: Isa, blocks: &Blocks, panels: &[f32], fixed: &[i32], y: &mut [f32]) {
    dispatch_bytes(isa, Products { blocks, panels, fixed, y });
}

struct Products<'a> {
    blocks: &'a Blocks,
    panels: &'a [f32],
    fixed: &'a [i32],
    y: &'a mut [f32],
}

impl SimdOp for Products<'_> {
    type Out = ();
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let Products { blocks, panels, fixed, y } = self;
        let (l, lines) = (S::LANES, blocks.panel());
        assert!(blocks.fit() && fixed.len() == blocks.fixed(), "a vector of another length");
        let all = y.len().next_multiple_of(l).checked_mul(lines);
        assert!(all.is_some_and(|all| all <= panels.len()), "columns outside their panels");
        for (y, words) in y.chunks_mut(2 * l).zip(panels.chunks(lines * 2 * l)) {
            if let Some((first, second)) = y.split_at_mut_checked(l)
                && !second.is_empty()
            {
                // SAFETY: a panel and a vector have the lines and words that their blocks say, as checked above.
                let [sums] = unsafe { panel::<S, 2, 1>(s, blocks, words.as_ptr(), [fixed.as_ptr()]) };
                s.store(first, sums[0]);
                s.store_tail(second, sums[1]);
            } else {
                // SAFETY: likewise, of one vector of columns.
                let [sums] = unsafe { panel::<S, 1, 1>(s, blocks, words.as_ptr(), [fixed.as_ptr()]) };
                s.store_tail(y, sums[0]);
            }
        }
    }
}

/// `y[row][c]` likewise for two vectors and one panel, whose codes are read and taken apart once for both. Panics when an extent does not
/// fit its slice, or there are more columns than a panel has.
pub fn products_of_two(isa: Isa, blocks: &Blocks, panel: &[f32], fixed: [&[i32]; 2], y: [&mut [f32]; 2]) {
    dispatch_bytes(isa, OfTwo { blocks, panel, fixed, y });
}

struct OfTwo<'a> {
    blocks: &'a Blocks,
    panel: &'a [f32],
    fixed: [&'a [i32]; 2],
    y: [&'a mut [f32]; 2],
}

impl SimdOp for OfTwo<'_> {
    type Out = ();
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let OfTwo { blocks, panel: words, fixed, y: [a, b] } = self;
        let (l, wide) = (S::LANES, a.len());
        assert!(blocks.fit() && fixed.iter().all(|f| f.len() == blocks.fixed()), "a vector of another length");
        assert!(b.len() == wide && (1..=2 * l).contains(&wide), "{wide} columns of a panel");
        assert!(wide.next_multiple_of(l) * blocks.panel() <= words.len(), "columns outside their panel");
        let fixed = fixed.map(<[i32]>::as_ptr);
        if wide > l {
            // SAFETY: a panel and vectors have the lines and words that their blocks say, as checked above.
            let sums = unsafe { panel::<S, 2, 2>(s, blocks, words.as_ptr(), fixed) };
            s.store(a, sums[0][0]);
            s.store_tail(&mut a[l..], sums[0][1]);
            s.store(b, sums[1][0]);
            s.store_tail(&mut b[l..], sums[1][1]);
        } else {
            // SAFETY: likewise, of one vector of columns.
            let sums = unsafe { panel::<S, 1, 2>(s, blocks, words.as_ptr(), fixed) };
            s.store_tail(a, sums[0][0]);
            s.store_tail(b, sums[1][0]);
        }
    }
}

/// [`sums`] for the usual sizes of blocks, in which a loop disappears.
///
/// # Safety
/// As [`sums`].
#[inline(always)]
unsafe fn panel<S: Simd, const W: usize, const R: usize>(
    s: S,
    blocks: &Blocks,
    words: *const f32,
    fixed: [*const i32; R],
) -> [[S::F; W]; R] {
    // SAFETY: as the caller vouches.
    unsafe {
        match (blocks.bits, blocks.zero.is_some(), blocks.lines()) {
            (4, true, 4) => sums::<S, W, R, 4, true, 4>(s, blocks, words, fixed),
            (4, true, _) => sums::<S, W, R, 4, true, 0>(s, blocks, words, fixed),
            (4, false, 4) => sums::<S, W, R, 4, false, 4>(s, blocks, words, fixed),
            (4, false, _) => sums::<S, W, R, 4, false, 0>(s, blocks, words, fixed),
            (_, true, 8) => sums::<S, W, R, 8, true, 8>(s, blocks, words, fixed),
            (_, true, _) => sums::<S, W, R, 8, true, 0>(s, blocks, words, fixed),
            (_, false, _) => sums::<S, W, R, 8, false, 0>(s, blocks, words, fixed),
        }
    }
}

/// One panel of `W` vectors of columns times `R` vectors; `LINES` of codes in a block unless that is 0.
///
/// # Safety
/// `W` times [`Blocks::panel`] lines are readable from `words`, [`Blocks::fixed`] words from each of `fixed`.
#[inline(always)]
unsafe fn sums<S: Simd, const W: usize, const R: usize, const BITS: usize, const ONE_ZERO: bool, const LINES: usize>(
    s: S,
    blocks: &Blocks,
    mut words: *const f32,
    mut fixed: [*const i32; R],
) -> [[S::F; W]; R] {
    let (l, lines) = (S::LANES, if LINES > 0 { LINES } else { blocks.lines() });
    let low = s.splat_int(0x0f0f_0f0f);
    let mut total = [[s.splat(0.0); W]; R];
    for _ in 0..blocks.count {
        // SAFETY: block by block and line by line over what the caller vouches for.
        unsafe {
            let head = fixed;
            let (mut first, mut second, mut third) = ([[low; W]; R], [[low; W]; R], [[low; W]; R]);
            for r in 0..R {
                first[r] = [s.splat_int(*head[r].add(2)); W];
                second[r] = [s.splat_int(*head[r].add(3)); W];
                third[r] = [s.splat_int(*head[r].add(4)); W];
                fixed[r] = head[r].add(HEAD);
            }
            for _ in 0..lines {
                for j in 0..W {
                    let v = s.to_bits(s.load_ptr(words.add(j * l)));
                    if BITS == 4 {
                        let (even, odd) = (s.and_int(v, low), s.and_int(s.shr_int::<4>(v), low));
                        for r in 0..R {
                            let x = fixed[r];
                            first[r][j] = s.dot_bytes(first[r][j], even, s.splat_int(*x));
                            second[r][j] = s.dot_bytes(second[r][j], even, s.splat_int(*x.add(2)));
                            third[r][j] = s.dot_bytes(third[r][j], even, s.splat_int(*x.add(4)));
                            first[r][j] = s.dot_bytes(first[r][j], odd, s.splat_int(*x.add(1)));
                            second[r][j] = s.dot_bytes(second[r][j], odd, s.splat_int(*x.add(3)));
                            third[r][j] = s.dot_bytes(third[r][j], odd, s.splat_int(*x.add(5)));
                        }
                    } else {
                        for r in 0..R {
                            let x = fixed[r];
                            first[r][j] = s.dot_bytes(first[r][j], v, s.splat_int(*x));
                            second[r][j] = s.dot_bytes(second[r][j], v, s.splat_int(*x.add(1)));
                            third[r][j] = s.dot_bytes(third[r][j], v, s.splat_int(*x.add(2)));
                        }
                    }
                }
                for x in &mut fixed {
                    *x = x.add(if BITS == 4 { 2 * DIGITS } else { DIGITS });
                }
                words = words.add(W * l);
            }
            for r in 0..R {
                let scale = s.splat(f32::from_bits(*head[r] as u32));
                for j in 0..W {
                    let sum = s.fma(s.to_float(second[r][j]), s.splat(256.0), s.to_float(third[r][j]));
                    let mut sum = s.mul(s.fma(s.to_float(first[r][j]), s.splat(65536.0), sum), scale);
                    if !ONE_ZERO {
                        let zeros = s.load_ptr(words.add((W + j) * l));
                        sum = s.sub(sum, s.mul(zeros, s.splat(f32::from_bits(*head[r].add(1) as u32))));
                    }
                    total[r][j] = s.fma(sum, s.load_ptr(words.add(j * l)), total[r][j]);
                }
            }
            words = words.add(if ONE_ZERO { W } else { 2 * W } * l);
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    fn isas() -> Vec<Isa> {
        Isa::for_tests()
    }

    /// Values in ±1.
    fn values(len: usize, seed: u64) -> Vec<f32> {
        let bits = (0..len as u64).map(|i| (i + seed * 977).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40);
        bits.map(|b| b as f32 / (1 << 23) as f32 - 1.0).collect()
    }

    fn word(blocks: &Blocks, codes: &[u8]) -> f32 {
        let mut word = 0u32;
        codes.iter().enumerate().for_each(|(i, &c)| word |= u32::from(c) << (blocks.bits * i));
        f32::from_bits(word)
    }

    #[test]
    fn sums_are_those_of_the_codes_for_all_sizes_of_blocks_and_extreme_codes() {
        let sizes = [(32usize, 96usize), (32, 80), (128, 256), (16, 48), (40, 70), (5, 5), (1000, 1000), (8, 8)];
        for ((codes, k), bits) in sizes.into_iter().flat_map(|s| [(s, 4usize), (s, 8)]) {
            for (zero, seed) in [(Some(0), 1u64), (Some(8), 2), (Some(128), 3), (None, 4)] {
                let blocks = Blocks { bits, count: k.div_ceil(codes), codes, zero };
                assert!(blocks.fit());
                // Panels of two vectors and of one, of 8 and of 16 lanes.
                let n = 37;
                let most = (1usize << bits) - 1;
                let code = |c: usize, r: usize| if c == 3 { most } else { (c * 7919 + r * 104_729 + (c * r) / 3) % (most + 1) } as u8;
                let (scales, zeros) = (values(n * blocks.count, seed), values(n * blocks.count, seed + 9));
                let mut x = values(k, seed + 5);
                x[k / 2] = 300.0;
                for isa in isas() {
                    let l = isa.lanes();
                    let mut panels = Vec::new();
                    for first in (0..n).step_by(2 * l) {
                        let wide = (n - first).next_multiple_of(l).min(2 * l);
                        for b in 0..blocks.count {
                            let rows: Vec<usize> = (b * codes..((b + 1) * codes).min(k)).collect();
                            for line in 0..blocks.lines() {
                                let rows: Vec<usize> =
                                    rows.iter().copied().skip(line * 32 / bits).take(32 / bits).collect();
                                let of = |c: usize| rows.iter().map(|&r| code(c, r)).collect::<Vec<u8>>();
                                panels.extend((first..first + wide).map(|c| word(&blocks, &of(c))));
                            }
                            let at = |c: usize| c.min(n - 1) * blocks.count + b;
                            panels.extend((first..first + wide).map(|c| scales[at(c)]));
                            if zero.is_none() {
                                panels.extend((first..first + wide).map(|c| zeros[at(c)]));
                            }
                        }
                    }
                    let mut fixed = vec![0; blocks.fixed()];
                    fix(isa, &blocks, &x, &[], &mut fixed);
                    let mut y = vec![f32::NAN; n];
                    products(isa, &blocks, &panels, &fixed, &mut y);
                    for (c, y) in y.iter().enumerate() {
                        let (mut want, mut size) = (0.0f64, 0.0f64);
                        for (b, x) in x.chunks(codes).enumerate() {
                            let at = c * blocks.count + b;
                            let z = f64::from(zero.map_or(zeros[at], |z| z as f32));
                            // Rounding is relative to the largest value of a block.
                            let largest = x.iter().fold(0.0f32, |m, v| m.max(v.abs()));
                            for (i, &x) in x.iter().enumerate() {
                                let w = f64::from(scales[at]) * (f64::from(code(c, b * codes + i)) - z);
                                want += w * f64::from(x);
                                size += w.abs() * f64::from(largest);
                            }
                        }
                        assert!((f64::from(*y) - want).abs() <= 2e-7 * size, "{isa} {blocks:?} column {c}: {y} {want}");
                    }
                }
            }
        }
    }

    #[test]
    fn tiny_and_infinite_vectors() {
        let blocks = Blocks { bits: 8, count: 2, codes: 4, zero: Some(0) };
        for isa in isas() {
            let l = isa.lanes();
            let mut panels = vec![f32::from_bits(0x0101_0101); l];
            panels.extend(vec![2.0; l]);
            panels.extend_from_within(..);
            for (x, want) in [
                ([1e-38f32; 8], 0.0),
                ([0.0; 8], 0.0),
                ([1e30; 8], 1.6e31),
                ([0.0, 1.0, f32::INFINITY, 0.0, 0.0, 0.0, 0.0, 0.0], f32::NAN),
                ([0.0, 1.0, 0.0, 0.0, 0.0, 0.0, f32::NAN, 0.0], f32::NAN),
            ] {
                let (mut fixed, mut y) = (vec![0; blocks.fixed()], [7.0f32; 3]);
                fix(isa, &blocks, &x, &[], &mut fixed);
                products(isa, &blocks, &panels, &fixed, &mut y);
                let same = |y: f32| if want.is_nan() { y.is_nan() } else { (y - want).abs() <= 1e-6 * want };
                assert!(y.into_iter().all(same), "{isa} {x:?}: {y:?}");
            }
        }
    }
}
