//! The transforms of Winograd's minimal filtering F(m×m, 3×3), m = 2 or 4, on vectors of channels.
//!
//! An output tile of m×m pixels is `Aᵀ[(G g Gᵀ) ⊙ (Bᵀ d B)]A` with `d` the (m+2)×(m+2) pixels it reads (Lavin and Gray 2015,
//! arXiv:1509.09308, §4; interpolation points 0, ±1 and, for m = 4, ±2). The products in the middle are matrix products over the
//! channels, one for each of the (m+2)² positions; here are the two sides.
//!
//! Ladder: matrix products with Bᵀ and Aᵀ → the shared terms written out, 12 additions for 6 values → rows, then columns, with the
//! middle on the stack → tiles inside the map read in place, tiles at an edge from a copy with zeros.

use super::{Isa, Simd, SimdOp, TileMut, dispatch};

/// Most positions of a tile, 6×6.
pub const MAX_POINTS: usize = 36;

/// Filters that are transformed together.
pub const TOGETHER: usize = 16;

/// `G g Gᵀ` of [`TOGETHER`] 3×3 filters: `g[3·row + column]` holds one tap of each, `out[(m+2)·row + column]` one position.
pub fn filters(isa: Isa, m: usize, g: &[[f32; TOGETHER]; 9], out: &mut [[f32; TOGETHER]; MAX_POINTS]) {
    dispatch(isa, Filters { m, g, out });
}

struct Filters<'a> {
    m: usize,
    g: &'a [[f32; TOGETHER]; 9],
    out: &'a mut [[f32; TOGETHER]; MAX_POINTS],
}

impl SimdOp for Filters<'_> {
    type Out = ();
    #[inline(always)]
    #[allow(clippy::needless_range_loop)] // position i of three rows
    fn call<S: Simd>(self, s: S) {
        let mut at = 0;
        while at < TOGETHER {
            let mut g = [[s.splat(0.0); 3]; 3];
            for (t, tap) in self.g.iter().enumerate() {
                // Columns first.
                g[t % 3][t / 3] = s.load(&tap[at..]);
            }
            if self.m == 2 {
                let rows = [weigh_2(s, g[0]), weigh_2(s, g[1]), weigh_2(s, g[2])];
                for i in 0..4 {
                    let row = weigh_2(s, [rows[0][i], rows[1][i], rows[2][i]]);
                    for (j, v) in row.into_iter().enumerate() {
                        s.store(&mut self.out[i * 4 + j][at..], v);
                    }
                }
            } else {
                let rows = [weigh_4(s, g[0]), weigh_4(s, g[1]), weigh_4(s, g[2])];
                for i in 0..6 {
                    let row = weigh_4(s, [rows[0][i], rows[1][i], rows[2][i]]);
                    for (j, v) in row.into_iter().enumerate() {
                        s.store(&mut self.out[i * 6 + j][at..], v);
                    }
                }
            }
            at += S::LANES;
        }
    }
}

/// `G x` of F(2, 3): `[x0, (x0 + x1 + x2)/2, (x0 − x1 + x2)/2, x2]`.
#[inline(always)]
fn weigh_2<S: Simd>(s: S, x: [S::F; 3]) -> [S::F; 4] {
    let half = s.splat(0.5);
    let (ends, middle) = (s.mul(half, s.add(x[0], x[2])), s.mul(half, x[1]));
    [x[0], s.add(ends, middle), s.sub(ends, middle), x[2]]
}

/// `G x` of F(4, 3): `[x0/4, −(x0 + x1 + x2)/6, −(x0 − x1 + x2)/6, (x0 + 2·x1 + 4·x2)/24, (x0 − 2·x1 + 4·x2)/24, x2]`.
#[inline(always)]
fn weigh_4<S: Simd>(s: S, x: [S::F; 3]) -> [S::F; 6] {
    let sixth = s.splat(-1.0 / 6.0);
    let (ends, middle) = (s.mul(sixth, s.add(x[0], x[2])), s.mul(sixth, x[1]));
    let far = s.fma(x[2], s.splat(1.0 / 6.0), s.mul(x[0], s.splat(1.0 / 24.0)));
    let near = s.mul(x[1], s.splat(1.0 / 12.0));
    let first = s.mul(x[0], s.splat(0.25));
    [first, s.add(ends, middle), s.sub(ends, middle), s.add(far, near), s.sub(far, near), x[2]]
}

/// One channel block's side of a row of tiles.
#[derive(Clone, Copy, Debug)]
pub struct Rows {
    /// Output pixels of a tile along each axis, 2 or 4.
    pub m: usize,
    /// First tile row.
    pub tile_row: usize,
    /// Tile rows.
    pub tile_rows: usize,
    /// Tiles in a row.
    pub tile_cols: usize,
    /// Height of the map.
    pub h: usize,
    /// Width of the map.
    pub w: usize,
    /// Padding above and on the left of a source map.
    pub pad: (usize, usize),
}

impl Rows {
    fn tiles(&self) -> usize {
        self.tile_rows * self.tile_cols
    }
    fn check(&self) {
        assert!(self.m == 2 || self.m == 4, "no tiles of {}", self.m);
        for d in [self.tile_row + self.tile_rows, self.tile_cols, self.h, self.w, self.pad.0, self.pad.1] {
            assert!(d < 1 << 28, "{self:?}: extent too large");
        }
    }
}

/// `Bᵀ d B` of all tiles of some rows: `src` is one plane `[h][w][lanes]`, segment `(p, 0)` of `to` gets position `p` of tile after
/// tile.
///
/// Panics when an extent does not fit.
pub fn input(isa: Isa, rows: &Rows, src: &[f32], to: &mut TileMut<'_>) {
    rows.check();
    let (l, n) = (isa.lanes(), rows.m + 2);
    assert!(src.len() >= rows.h * rows.w * l, "winograd reads outside its source");
    assert!(to.a_len() == n * n && to.b_len() == 1 && to.seg_len() >= rows.tiles() * l, "winograd outside its tile");
    match rows.m {
        2 => dispatch(isa, Input::<2, 4> { rows, src, to }),
        _ => dispatch(isa, Input::<4, 6> { rows, src, to }),
    }
}

struct Input<'a, 'd, const M: usize, const N: usize> {
    rows: &'a Rows,
    src: &'a [f32],
    to: &'a mut TileMut<'d>,
}

#[inline(always)]
fn forward<S: Simd, const N: usize>(s: S, d: [S::F; N]) -> [S::F; N] {
    let mut t = d;
    if N == 4 {
        t[0] = s.sub(d[0], d[2]);
        t[1] = s.add(d[1], d[2]);
        t[2] = s.sub(d[2], d[1]);
        t[3] = s.sub(d[1], d[3]);
        return t;
    }
    let (four, five, two) = (s.splat(4.0), s.splat(-5.0), s.splat(2.0));
    let minus_four = s.splat(-4.0);
    let (even, odd) = (s.fma(minus_four, d[2], d[4]), s.fma(minus_four, d[1], d[3]));
    let (near, far) = (s.sub(d[4], d[2]), s.mul(two, s.sub(d[3], d[1])));
    t[0] = s.fma(four, d[0], s.fma(five, d[2], d[4]));
    t[1] = s.add(even, odd);
    t[2] = s.sub(even, odd);
    t[3] = s.add(near, far);
    t[4] = s.sub(near, far);
    t[5] = s.fma(four, d[1], s.fma(five, d[3], d[5]));
    t
}

/// Reads `N`×`N` pixels with rows `stride` values apart, writes position `p` at `to + p·step`.
///
/// # Safety
/// All of them are readable and writable.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // columns of an array of rows
unsafe fn input_tile<S: Simd, const N: usize>(s: S, src: *const f32, stride: usize, to: *mut f32, step: usize) {
    // SAFETY: as vouched for by the caller.
    unsafe {
        let l = S::LANES;
        let mut mid = [[s.splat(0.0); N]; N];
        for (r, mid) in mid.iter_mut().enumerate() {
            let mut d = [s.splat(0.0); N];
            for (c, d) in d.iter_mut().enumerate() {
                *d = s.load_ptr(src.add(r * stride + c * l));
            }
            *mid = forward(s, d);
        }
        for c in 0..N {
            let mut d = [s.splat(0.0); N];
            for (r, d) in d.iter_mut().enumerate() {
                *d = mid[r][c];
            }
            let t = forward(s, d);
            for (r, t) in t.into_iter().enumerate() {
                s.store_ptr(to.add((r * N + c) * step), t);
            }
        }
    }
}

impl<const M: usize, const N: usize> SimdOp for Input<'_, '_, M, N> {
    type Out = ();
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let Input { rows, src, to } = self;
        let (l, h, w) = (S::LANES, rows.h as isize, rows.w as isize);
        let step = to.stride_a();
        let out = to.as_mut_ptr();
        let mut edge = [0.0f32; MAX_POINTS * 16];
        for tr in 0..rows.tile_rows {
            let y0 = ((rows.tile_row + tr) * M) as isize - rows.pad.0 as isize;
            for tc in 0..rows.tile_cols {
                let x0 = (tc * M) as isize - rows.pad.1 as isize;
                let at = (tr * rows.tile_cols + tc) * l;
                let inside = y0 >= 0 && x0 >= 0 && y0 + N as isize <= h && x0 + N as isize <= w;
                // SAFETY: an inside tile's pixels are in the plane; the copy has N·N vectors. The segment of every position
                // (one per `a`) has room for all tiles: checked by `input`.
                unsafe {
                    if inside {
                        let from = src.as_ptr().add((y0 * w + x0) as usize * l);
                        input_tile::<S, N>(s, from, rows.w * l, out.add(at), step);
                    } else {
                        for r in 0..N {
                            for c in 0..N {
                                let (y, x) = (y0 + r as isize, x0 + c as isize);
                                let v = if y >= 0 && x >= 0 && y < h && x < w {
                                    s.load_ptr(src.as_ptr().add((y * w + x) as usize * l))
                                } else {
                                    s.splat(0.0)
                                };
                                s.store_ptr(edge.as_mut_ptr().add((r * N + c) * l), v);
                            }
                        }
                        input_tile::<S, N>(s, edge.as_ptr(), N * l, out.add(at), step);
                    }
                }
            }
        }
    }
}

/// What is added to a tile before it is stored.
#[derive(Clone, Copy, Debug)]
pub struct Finish<'a> {
    /// One vector.
    pub bias: &'a [f32],
    /// A tensor of the destination's shape.
    pub residual: Option<&'a [f32]>,
    /// Applied last.
    pub clamp: (f32, f32),
}

/// `Aᵀ m A` of all tiles of some rows into plane `a` of `dst`, whose segments are whole output rows, the first being row
/// `rows.tile_row · m`. Position `p` of tile after tile is at `products[p · step..]`.
///
/// Panics when an extent does not fit.
pub fn output(isa: Isa, rows: &Rows, products: &[f32], step: usize, fin: &Finish<'_>, a: usize, dst: &mut TileMut<'_>) {
    rows.check();
    let (l, n) = (isa.lanes(), rows.m + 2);
    let last = (n * n - 1).checked_mul(step).and_then(|x| x.checked_add(rows.tiles() * l));
    assert!(last.is_some_and(|x| x <= products.len()), "winograd reads outside its products");
    assert!(a < dst.a_len() && dst.seg_len() == rows.w * l && fin.bias.len() >= l, "winograd outside its tile");
    assert!(dst.b0 == rows.tile_row * rows.m && dst.b_len() <= rows.tile_rows * rows.m);
    if let Some(r) = fin.residual {
        let end = dst.origin + (dst.a_len() - 1) * dst.stride_a() + dst.b_len() * dst.stride_b();
        assert!(end <= r.len(), "residual smaller than the destination");
    }
    match rows.m {
        2 => dispatch(isa, Output::<2, 4> { rows, products, step, fin, a, dst }),
        _ => dispatch(isa, Output::<4, 6> { rows, products, step, fin, a, dst }),
    }
}

struct Output<'a, 'b, 'd, const M: usize, const N: usize> {
    rows: &'a Rows,
    products: &'a [f32],
    step: usize,
    fin: &'a Finish<'b>,
    a: usize,
    dst: &'a mut TileMut<'d>,
}

#[inline(always)]
fn backward<S: Simd, const N: usize, const M: usize>(s: S, m: [S::F; N]) -> [S::F; M] {
    let mut o = [s.splat(0.0); M];
    if N == 4 {
        o[0] = s.add(m[0], s.add(m[1], m[2]));
        o[1] = s.sub(s.sub(m[1], m[2]), m[3]);
        return o;
    }
    let (s1, d1, s2, d2) = (s.add(m[1], m[2]), s.sub(m[1], m[2]), s.add(m[3], m[4]), s.sub(m[3], m[4]));
    o[0] = s.add(m[0], s.add(s1, s2));
    o[1] = s.fma(s.splat(2.0), d2, d1);
    o[2] = s.fma(s.splat(4.0), s2, s1);
    o[3] = s.fma(s.splat(8.0), d2, s.add(d1, m[5]));
    o
}

impl<const M: usize, const N: usize> SimdOp for Output<'_, '_, '_, M, N> {
    type Out = ();
    #[inline(always)]
    #[allow(clippy::needless_range_loop)] // columns of an array of rows
    fn call<S: Simd>(self, s: S) {
        let Output { rows, products, step, fin, a, dst } = self;
        let l = S::LANES;
        let (lo, hi) = (s.splat(fin.clamp.0), s.splat(fin.clamp.1));
        let bias = s.load(fin.bias);
        let sb = dst.stride_b();
        let shift = a * dst.stride_a();
        let res = fin.residual.map_or(std::ptr::null(), |r| r[dst.origin + shift..].as_ptr());
        let height = dst.b_len();
        // SAFETY: `a` is a plane of the tile.
        let plane = unsafe { dst.as_mut_ptr().add(shift) };
        for tr in 0..rows.tile_rows {
            for tc in 0..rows.tile_cols {
                let at = (tr * rows.tile_cols + tc) * l;
                let (y0, x0) = (tr * M, tc * M);
                // SAFETY: every position of every tile is in `products`; rows below `height` and columns below `w` are in the
                // plane, and in the residual: all checked by `output`.
                unsafe {
                    let from = products.as_ptr().add(at);
                    let mut mid = [[s.splat(0.0); N]; M];
                    for c in 0..N {
                        let mut m = [s.splat(0.0); N];
                        for (r, m) in m.iter_mut().enumerate() {
                            *m = s.load_ptr(from.add((r * N + c) * step));
                        }
                        let o: [S::F; M] = backward(s, m);
                        for (r, o) in o.into_iter().enumerate() {
                            mid[r][c] = o;
                        }
                    }
                    for (r, mid) in mid.into_iter().enumerate() {
                        if y0 + r >= height {
                            break;
                        }
                        let o: [S::F; M] = backward(s, mid);
                        for (c, o) in o.into_iter().enumerate() {
                            if x0 + c >= rows.w {
                                break;
                            }
                            let to = (y0 + r) * sb + (x0 + c) * l;
                            let mut v = s.add(o, bias);
                            if !res.is_null() {
                                v = s.add(v, s.load_ptr(res.add(to)));
                            }
                            s.store_ptr(plane.add(to), s.min(hi, s.max(lo, v)));
                        }
                    }
                }
            }
        }
    }
}
