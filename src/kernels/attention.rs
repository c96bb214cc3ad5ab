//! Attention, `softmax(scale · q·kᵀ + mask) · v`, head by head on operands that stay where their producers left them.
//!
//! Ladder: three steps with the scores in memory → one task per head and block of queries: the scores of a block exist only in
//! scratch memory that fits the second-level cache → keys and values of a head packed once per thread, products by
//! [`crate::simd::strip`] → maximum, exponential and sum in one sweep per row, the division left to the rows of the result → keys that a
//! causal mask hides are not computed → few queries (decoding) read keys and values as they lie, without packing.

use super::gemm::{Mat, pack_b};
use crate::engine::pool::{Grid, Pool, Scratch};
use crate::simd::strip::{Strip, strip};
use crate::simd::{Isa, Simd, SimdOp, TileMut, dispatch, math};

/// Values of scores a task keeps, about.
const SCORES: usize = 48 << 10;
/// Fewest queries of a task that packs keys and values.
const LEAST: usize = 48;
/// Most queries that are computed without packing.
const FEW: usize = 4;

/// A strided operand: value `(row, col)` of a head is at `offset + row·row + col·col`, the offset being the head's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lay {
    /// Distance between rows (queries or keys).
    pub row: usize,
    /// Distance between columns.
    pub col: usize,
}

/// Where the operands of one head start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Offset of its queries.
    pub q: usize,
    /// Offset of its keys.
    pub k: usize,
    /// Offset of its values.
    pub v: usize,
    /// Offset of its mask.
    pub mask: usize,
}

/// Geometry of an attention over all heads of all batches. The result is `[outer][queries][inner][dim_v]`; head `(o, i)` of it is
/// `heads[o · inner + i]`.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Heads, those that lie between queries innermost.
    pub heads: Vec<Head>,
    /// How many heads lie side by side in a row of the result.
    pub inner: usize,
    /// Queries per head.
    pub queries: usize,
    /// Keys per head.
    pub keys: usize,
    /// Length of queries and keys.
    pub dim: usize,
    /// Length of values.
    pub dim_v: usize,
    /// Factor on the scores.
    pub scale: f32,
    /// Query `i` sees keys up to `i + keys − queries` only.
    pub causal: bool,
    /// A query that sees no key (all its scores −∞) gives zeros, not NaN.
    pub zero_unseen: bool,
    /// Lay-out of the queries.
    pub q: Lay,
    /// Lay-out of the keys.
    pub k: Lay,
    /// Lay-out of the values.
    pub v: Lay,
    /// Lay-out of the mask: rows are queries, columns keys; 0 where it is spread.
    pub mask: Lay,
}

impl Shape {
    /// Multiply-adds of the two products.
    pub fn madds(&self) -> usize {
        self.heads.len() * self.queries * self.keys * (self.dim + self.dim_v)
    }

    fn check(&self, data: &[f32], rows: usize, cols: usize, lay: Lay, offset: impl Fn(&Head) -> usize, what: &str) {
        let far = self.heads.iter().map(offset).max().unwrap_or(0);
        let last = [(rows - 1, lay.row), (cols - 1, lay.col)];
        let last = last.iter().try_fold(far, |at, &(n, s)| n.checked_mul(s).and_then(|d| at.checked_add(d)));
        assert!(last.is_some_and(|i| i < data.len()), "{what} of attention outside its data");
    }

    /// Keys that some query below `end` may see.
    fn visible(&self, end: usize) -> usize {
        if self.causal { (end + self.keys).saturating_sub(self.queries).clamp(1, self.keys) } else { self.keys }
    }
}

/// The operands.
#[derive(Clone, Copy, Debug)]
pub struct Operands<'a> {
    /// Queries.
    pub q: &'a [f32],
    /// Keys.
    pub k: &'a [f32],
    /// Values.
    pub v: &'a [f32],
    /// Added to the scaled scores.
    pub mask: Option<&'a [f32]>,
}

/// Run over all heads. Panics on extents that do not fit.
pub fn attention(pool: &Pool, isa: Isa, shape: &Shape, of: Operands<'_>, dst: &mut [f32]) {
    let Shape { heads, inner, queries, keys, dim, dim_v, .. } = shape;
    let (inner, queries, keys, dim, dim_v) = (*inner, *queries, *keys, *dim, *dim_v);
    assert!(inner > 0 && heads.len().is_multiple_of(inner) && keys > 0 && dim > 0, "geometry of attention");
    let size = [heads.len(), queries, dim_v].iter().try_fold(1usize, |p, &d| p.checked_mul(d));
    assert_eq!(size, Some(dst.len()), "destination of attention");
    if dst.is_empty() {
        return;
    }
    shape.check(of.q, queries, dim, shape.q, |h| h.q, "queries");
    shape.check(of.k, keys, dim, shape.k, |h| h.k, "keys");
    shape.check(of.v, keys, dim_v, shape.v, |h| h.v, "values");
    if let Some(mask) = of.mask {
        shape.check(mask, queries, keys, shape.mask, |h| h.mask, "mask");
    }
    let few = queries <= FEW && shape.q.col == 1 && shape.k.col == 1 && shape.v.col == 1;
    // Queries whose scores stay close; a head is one task, unless heads are too few for the threads.
    let rows = (SCORES / keys).next_multiple_of(isa.mr()).max(4 * isa.mr());
    let split =
        if pool.threads() > 1 && heads.len() < 8 * pool.threads() { 8 * pool.threads() / heads.len() } else { 1 };
    let b_tile = queries.div_ceil(split.max(1)).max(LEAST).min(queries);
    let grid =
        Grid { outer: heads.len() / inner, a: 1, b: queries, len: inner * dim_v, a_tile: 1, b_tile, len_tile: dim_v };
    let (ticket, l) = (pool.ticket(), isa.lanes());
    pool.for_tiles(dst, grid, |mut tile, id| {
        pool.scratch(id, |scratch| {
            let index = tile.outer * inner + tile.c0 / dim_v;
            let head = heads[index];
            if few {
                let scores = Scratch::grow(&mut scratch.a, keys.next_multiple_of(l));
                scratch.tag_a = (0, 0);
                dispatch(isa, Few { shape, head, of, scores, tile: &mut tile });
                return;
            }
            let block = Block { isa, shape, head, of, ticket, index };
            for at in (0..tile.b_len()).step_by(rows) {
                let n = rows.min(tile.b_len() - at);
                block.run(scratch, &mut tile.part(at, n));
            }
        });
    });
}

/// One block of queries of one head.
struct Block<'a> {
    isa: Isa,
    shape: &'a Shape,
    head: Head,
    of: Operands<'a>,
    ticket: u64,
    index: usize,
}

impl Block<'_> {
    fn run(&self, scratch: &mut Scratch, tile: &mut TileMut<'_>) {
        let Block { isa, shape, head, of, ticket, index } = self;
        let (isa, l, nr) = (*isa, isa.lanes(), isa.nr());
        let Shape { queries, keys, dim, dim_v, .. } = **shape;
        let Scratch { a, b, tag_a, tag_b } = scratch;
        // Keys and values of the head, packed once for all its blocks that come to this thread.
        let (k_len, v_len) = (dim * keys.next_multiple_of(l), keys * dim_v.next_multiple_of(l));
        let packed = Scratch::grow(b, k_len + v_len);
        let tag = (*ticket, *index);
        if *tag_b != tag {
            *tag_b = (0, 0);
            let (to_k, to_v) = packed.split_at_mut(k_len);
            let k = Mat { data: &of.k[head.k..], batch: 0, row: shape.k.col, col: shape.k.row };
            pack_b(isa, k, 0, dim, 0, keys, to_k);
            let v = Mat { data: &of.v[head.v..], batch: 0, row: shape.v.row, col: shape.v.col };
            pack_b(isa, v, 0, keys, 0, dim_v, to_v);
            *tag_b = tag;
        }
        let (to_k, to_v) = packed.split_at(k_len);
        let (row0, rows) = (tile.b0, tile.b_len());
        let visible = shape.visible(row0 + rows);
        let width = visible.next_multiple_of(l);
        // Scores, the factors of the rows and, where columns of the queries are apart, a copy of them.
        *tag_a = (0, 0);
        let copied = if shape.q.col == 1 { 0 } else { rows * dim };
        let (scores, rest) = Scratch::grow(a, rows * width + rows + copied).split_at_mut(rows * width);
        let (factors, copy) = rest.split_at_mut(rows);
        let q = &of.q[head.q + row0 * shape.q.row..];
        let (q, q_row) = if shape.q.col == 1 {
            (q, shape.q.row)
        } else {
            for (i, to) in copy.chunks_exact_mut(dim).enumerate() {
                for (j, x) in to.iter_mut().enumerate() {
                    *x = q[i * shape.q.row + j * shape.q.col];
                }
            }
            (&*copy, dim)
        };
        let open = (f32::NEG_INFINITY, f32::INFINITY);
        let pass = |a, row, k, wei, nb| Strip {
            a,
            row,
            k,
            wei,
            nb,
            bias: None,
            accumulate: false,
            residual: None,
            clamp: open,
            next: &[],
        };
        let mut into = TileMut::new(scores, 1, rows, width);
        for col in (0..visible).step_by(nr) {
            let nb = (keys - col).div_ceil(l).min(2);
            strip(isa, &pass(q, q_row, dim, &to_k[col * dim..], nb), col, &mut into);
        }
        let mask = of.mask.map(|m| &m[head.mask + row0 * shape.mask.row..]);
        // Query `i` of the block sees keys below `i + sees`.
        let sees = if shape.causal { row0 + 1 + keys - queries.min(keys) } else { keys };
        dispatch(isa, Weigh { shape, mask, sees, visible, width, scores, factors });
        for col in (0..dim_v).step_by(nr) {
            let nb = (dim_v - col).div_ceil(l).min(2);
            strip(isa, &pass(scores, width, visible, &to_v[col * keys..], nb), col, tile);
        }
        dispatch(isa, Divide { factors, tile });
    }
}

/// Scores of a block to unnormalised weights, and the factor that normalises each row.
struct Weigh<'a> {
    shape: &'a Shape,
    mask: Option<&'a [f32]>,
    sees: usize,
    visible: usize,
    width: usize,
    scores: &'a mut [f32],
    factors: &'a mut [f32],
}

impl SimdOp for Weigh<'_> {
    type Out = ();
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let Weigh { shape, mask, sees, visible, width, scores, factors } = self;
        for (i, (row, factor)) in scores.chunks_exact_mut(width).zip(factors).enumerate() {
            let seen = if shape.causal { (sees + i).min(visible) } else { visible };
            let mask = mask.map(|m| &m[i * shape.mask.row..]);
            let Shape { scale, zero_unseen, .. } = *shape;
            *factor = weigh(s, row, seen, Weights { scale, mask, apart: shape.mask.col, zero_unseen });
            row[seen.next_multiple_of(S::LANES)..].fill(0.0);
        }
    }
}

/// The numbers of the lanes of the widest vector.
const NUMBERS: [f32; 16] = [0., 1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11., 12., 13., 14., 15.];

/// What becomes of the scores of a row.
#[derive(Clone, Copy)]
struct Weights<'a> {
    scale: f32,
    mask: Option<&'a [f32]>,
    /// Distance between values of the mask, 0 where one is for all.
    apart: usize,
    zero_unseen: bool,
}

/// The first `seen` values of a row become `e^(scale·value + mask − max)`, those behind them up to a whole vector 0; gives one over the sum.
/// The row has whole vectors.
#[inline(always)]
fn weigh<S: Simd>(s: S, row: &mut [f32], seen: usize, how: Weights<'_>) -> f32 {
    let l = S::LANES;
    let row = &mut row[..seen.next_multiple_of(l)];
    let whole = seen / l * l;
    let factor = s.splat(how.scale);
    let mut top = s.splat(f32::NEG_INFINITY);
    // One value for the whole row, or none.
    let plus = s.splat(how.mask.filter(|_| how.apart != 1).map_or(0.0, |m| m[0]));
    let each = how.mask.filter(|_| how.apart == 1).map(|m| &m[..seen]);
    match each {
        Some(m) => {
            for (v, m) in row.chunks_exact_mut(l).zip(m.chunks_exact(l)) {
                let x = s.fma(s.load(v), factor, s.load(m));
                s.store(v, x);
                top = s.max(top, x);
            }
        }
        None => {
            for v in row[..whole].chunks_exact_mut(l) {
                let x = s.fma(s.load(v), factor, plus);
                s.store(v, x);
                top = s.max(top, x);
            }
        }
    }
    if whole < seen {
        // Lanes behind the row hold anything; they become what weighs nothing.
        let v = &mut row[whole..];
        let x = s.fma(s.load(v), factor, each.map_or(plus, |m| s.load_tail(&m[whole..])));
        let inside = s.lt(s.load(&NUMBERS), s.splat((seen - whole) as f32));
        let x = s.select(inside, x, s.splat(f32::NEG_INFINITY));
        s.store(v, x);
        top = s.max(top, x);
    }
    let max = s.reduce_max(top);
    if how.zero_unseen && max == f32::NEG_INFINITY && row[..seen].iter().all(|x| *x == max) {
        row.fill(0.0);
        return 0.0;
    }
    let base = s.splat(max);
    let mut sums = [s.splat(0.0); 2];
    let mut pairs = row.chunks_exact_mut(2 * l);
    for v in &mut pairs {
        let (x, y) = (s.sub(s.load(v), base), s.sub(s.load(&v[l..]), base));
        let (x, y) = (math::exp_weight(s, x), math::exp_weight(s, y));
        s.store(v, x);
        s.store(&mut v[l..], y);
        sums[0] = s.add(sums[0], x);
        sums[1] = s.add(sums[1], y);
    }
    for v in pairs.into_remainder().chunks_exact_mut(l) {
        let x = math::exp_weight(s, s.sub(s.load(v), base));
        s.store(v, x);
        sums[0] = s.add(sums[0], x);
    }
    1.0 / s.reduce_add(s.add(sums[0], sums[1]))
}

/// Rows of the tile times their factors.
struct Divide<'a, 'd> {
    factors: &'a [f32],
    tile: &'a mut TileMut<'d>,
}

impl SimdOp for Divide<'_, '_> {
    type Out = ();
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        for (i, &f) in self.factors.iter().enumerate() {
            let f = s.splat(f);
            for v in self.tile.seg(0, i).chunks_mut(S::LANES) {
                let x = s.mul(s.load_tail(v), f);
                s.store_tail(v, x);
            }
        }
    }
}

/// Few queries: keys as rows of dot products, values as rows of scaled sums.
struct Few<'a, 'd> {
    shape: &'a Shape,
    head: Head,
    of: Operands<'a>,
    scores: &'a mut [f32],
    tile: &'a mut TileMut<'d>,
}

impl SimdOp for Few<'_, '_> {
    type Out = ();
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let Few { shape, head, of, scores, tile } = self;
        let Shape { queries, keys, dim, dim_v, .. } = *shape;
        let l = S::LANES;
        for i in 0..tile.b_len() {
            let query = tile.b0 + i;
            let q = &of.q[head.q + query * shape.q.row..][..dim];
            let seen = if shape.causal { (query + 1 + keys).saturating_sub(queries).clamp(1, keys) } else { keys };
            for (t, x) in scores[..seen].iter_mut().enumerate() {
                let k = &of.k[head.k + t * shape.k.row..][..dim];
                let (mut a, mut b) = (s.splat(0.0), s.splat(0.0));
                let (mut qs, mut ks) = (q.chunks_exact(2 * l), k.chunks_exact(2 * l));
                for (q, k) in (&mut qs).zip(&mut ks) {
                    a = s.fma(s.load(q), s.load(k), a);
                    b = s.fma(s.load(&q[l..]), s.load(&k[l..]), b);
                }
                for (q, k) in qs.remainder().chunks(l).zip(ks.remainder().chunks(l)) {
                    a = s.fma(s.load_tail(q), s.load_tail(k), a);
                }
                *x = s.reduce_add(s.add(a, b));
            }
            let mask = of.mask.map(|m| &m[head.mask + query * shape.mask.row..]);
            let Shape { scale, zero_unseen, .. } = *shape;
            let factor = weigh(s, scores, seen, Weights { scale, mask, apart: shape.mask.col, zero_unseen });
            let scores = &scores[..seen];
            let out = tile.seg(0, i);
            // Stretches of the result that stay in registers.
            for c in (0..dim_v).step_by(4 * l) {
                let width = (dim_v - c).min(4 * l);
                let mut acc = [s.splat(0.0); 4];
                for (t, &w) in scores.iter().enumerate() {
                    let v = &of.v[head.v + t * shape.v.row + c..][..width];
                    let w = s.splat(w);
                    if width == 4 * l {
                        acc[0] = s.fma(w, s.load(v), acc[0]);
                        acc[1] = s.fma(w, s.load(&v[l..]), acc[1]);
                        acc[2] = s.fma(w, s.load(&v[2 * l..]), acc[2]);
                        acc[3] = s.fma(w, s.load(&v[3 * l..]), acc[3]);
                    } else {
                        for (a, v) in acc.iter_mut().zip(v.chunks(l)) {
                            *a = s.fma(w, s.load_tail(v), *a);
                        }
                    }
                }
                let f = s.splat(factor);
                for (a, o) in acc.into_iter().zip(out[c..c + width].chunks_mut(l)) {
                    s.store_tail(o, s.mul(a, f));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::{close, guarded, isas, values};

    /// The formula, in f64.
    fn naive(shape: &Shape, of: Operands<'_>) -> Vec<f32> {
        let mut out = vec![0.0; shape.heads.len() * shape.queries * shape.dim_v];
        for (h, head) in shape.heads.iter().enumerate() {
            for i in 0..shape.queries {
                let mut scores: Vec<f64> = (0..shape.keys)
                    .map(|t| {
                        let dot: f64 = (0..shape.dim)
                            .map(|d| {
                                let q = of.q[head.q + i * shape.q.row + d * shape.q.col] as f64;
                                q * of.k[head.k + t * shape.k.row + d * shape.k.col] as f64
                            })
                            .sum();
                        let add = of.mask.map_or(0.0, |m| m[head.mask + i * shape.mask.row + t * shape.mask.col]);
                        let hidden = shape.causal && t > i + shape.keys - shape.queries;
                        if hidden { f64::NEG_INFINITY } else { dot * shape.scale as f64 + add as f64 }
                    })
                    .collect();
                let top = scores.iter().fold(f64::NEG_INFINITY, |a, &b| a.max(b));
                scores.iter_mut().for_each(|x| *x = (*x - top).exp());
                let sum: f64 = scores.iter().sum();
                for d in 0..shape.dim_v {
                    let y: f64 = (0..shape.keys)
                        .map(|t| scores[t] / sum * of.v[head.v + t * shape.v.row + d * shape.v.col] as f64)
                        .sum();
                    let unseen = shape.zero_unseen && top == f64::NEG_INFINITY;
                    let (o, n) = (h / shape.inner, h % shape.inner);
                    out[((o * shape.queries + i) * shape.inner + n) * shape.dim_v + d] =
                        if unseen { 0.0 } else { y as f32 };
                }
            }
        }
        out
    }

    #[test]
    fn heads_groups_masks_and_lays() {
        // batch, heads, groups of keys, queries, keys, dim, dim_v
        let sizes = [
            (1, 1, 1, 1, 1, 1, 1),
            (2, 4, 2, 1, 37, 20, 20),
            (1, 2, 2, 3, 9, 64, 70),
            (2, 3, 3, 17, 17, 8, 24),
            (1, 6, 2, 70, 131, 33, 16),
            (1, 2, 1, 130, 130, 64, 64),
        ];
        for (batch, heads, groups, queries, keys, dim, dim_v) in sizes {
            for variant in 0..8 {
                let (masked, causal, apart) = (variant & 1 > 0, variant & 2 > 0, variant & 4 > 0);
                // [batch][position][head][dim], or keys and queries transposed: [batch][head][dim][position].
                let q = values(batch * queries * heads * dim, 1);
                let k = values(batch * keys * groups * dim, 2);
                let v = values(batch * keys * groups * dim_v, 3);
                let mut mask = values(batch * queries * keys, 4);
                mask.iter_mut().step_by(7).for_each(|x| *x = -1e9);
                mask[..keys].fill(f32::NEG_INFINITY);
                let head = |b: usize, h: usize| {
                    let g = h / (heads / groups);
                    Head {
                        q: if apart { (b * heads + h) * dim * queries } else { (b * queries * heads + h) * dim },
                        k: if apart { (b * groups + g) * dim * keys } else { (b * keys * groups + g) * dim },
                        v: (b * keys * groups + g) * dim_v,
                        mask: b * queries * keys,
                    }
                };
                let shape = Shape {
                    heads: (0..batch * heads).map(|i| head(i / heads, i % heads)).collect(),
                    inner: heads,
                    queries,
                    keys,
                    dim,
                    dim_v,
                    scale: 0.7,
                    causal,
                    zero_unseen: true,
                    q: if apart { Lay { row: 1, col: queries } } else { Lay { row: heads * dim, col: 1 } },
                    k: if apart { Lay { row: 1, col: keys } } else { Lay { row: groups * dim, col: 1 } },
                    v: Lay { row: groups * dim_v, col: 1 },
                    mask: Lay { row: keys, col: 1 },
                };
                let of = Operands { q: &q, k: &k, v: &v, mask: masked.then_some(&mask[..]) };
                let want = naive(&shape, of);
                for isa in isas() {
                    for threads in [1, 3] {
                        let pool = Pool::new(threads);
                        let got = guarded(want.len(), |d| attention(&pool, isa, &shape, of, d));
                        let what = format!("{isa} {threads} variant {variant} of {queries}x{keys}x{dim}x{dim_v}");
                        close(&got, &want, 3e-5, &what);
                    }
                }
            }
        }
    }

    #[test]
    fn nothing_seen_is_nan_unless_asked_for_zeros() {
        let (q, k, v, mask) = (values(8, 1), values(24, 2), values(24, 3), [f32::NEG_INFINITY; 3]);
        for zero_unseen in [false, true] {
            let lay = Lay { row: 8, col: 1 };
            let shape = Shape {
                heads: vec![Head::default()],
                inner: 1,
                queries: 1,
                keys: 3,
                dim: 8,
                dim_v: 8,
                scale: 1.0,
                causal: false,
                zero_unseen,
                q: lay,
                k: lay,
                v: lay,
                mask: Lay { row: 3, col: 1 },
            };
            for isa in isas() {
                let of = Operands { q: &q, k: &k, v: &v, mask: Some(&mask) };
                let got = guarded(8, |d| attention(&Pool::new(1), isa, &shape, of, d));
                assert!(got.iter().all(|x| if zero_unseen { *x == 0.0 } else { x.is_nan() }), "{isa}: {got:?}");
            }
        }
    }
}
