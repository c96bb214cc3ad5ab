//! What kernel tests share: reproducible values, NCHWc packing by the book, guarded destinations, comparison.

use crate::simd::Isa;

/// Reproducible values in −1..1.
pub fn values(len: usize, seed: u64) -> Vec<f32> {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            ((x >> 40) as f32) / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

/// Values as a file holds them.
pub fn in_file(values: &[f32]) -> Vec<[u8; 4]> {
    values.iter().map(|v| v.to_ne_bytes()).collect()
}

/// `[n][ch][hw]` to `[n][cb][hw][c]`; missing channels are `fill`.
pub fn blocked(x: &[f32], n: usize, ch: usize, hw: usize, c: usize, fill: f32) -> Vec<f32> {
    let cb = ch.div_ceil(c);
    let mut out = vec![fill; n * cb * hw * c];
    for i in 0..n {
        for k in 0..ch {
            for p in 0..hw {
                out[((i * cb + k / c) * hw + p) * c + k % c] = x[(i * ch + k) * hw + p];
            }
        }
    }
    out
}

/// The inverse of [`blocked`].
pub fn plain(x: &[f32], n: usize, ch: usize, hw: usize, c: usize) -> Vec<f32> {
    let cb = ch.div_ceil(c);
    let mut out = vec![0.0; n * ch * hw];
    for i in 0..n {
        for k in 0..ch {
            for p in 0..hw {
                out[(i * ch + k) * hw + p] = x[((i * cb + k / c) * hw + p) * c + k % c];
            }
        }
    }
    out
}

/// Run `f` on a destination of `len` NaN between sentinels; gives what was written.
pub fn guarded(len: usize, f: impl FnOnce(&mut [f32])) -> Vec<f32> {
    const GUARD: usize = 64;
    const MARK: f32 = 12345.0;
    let mut all = vec![MARK; len + 2 * GUARD];
    all[GUARD..GUARD + len].fill(f32::NAN);
    f(&mut all[GUARD..GUARD + len]);
    assert!(all[..GUARD].iter().chain(&all[GUARD + len..]).all(|&v| v == MARK), "written outside the destination");
    all[GUARD..GUARD + len].to_vec()
}

/// Largest difference, relative to `max(1, |want|)`, must be at most `tolerance`; NaN matches NaN only.
pub fn close(got: &[f32], want: &[f32], tolerance: f32, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (&g, &w)) in got.iter().zip(want).enumerate() {
        let ok = g == w || g.is_nan() && w.is_nan() || (g - w).abs() <= tolerance * w.abs().max(1.0);
        assert!(ok, "{what}: value {i} is {g}, expected {w}");
    }
}

/// Every ISA of this machine and the 16-lane portable one.
pub fn isas() -> Vec<Isa> {
    Isa::for_tests()
}
