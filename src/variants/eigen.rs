//! Eigenvectors of symmetric matrices: Householder's reduction to three diagonals, then implicit QL steps (Golub and Van Loan,
//! "Matrix Computations", 8.3). About `6·n³` operations; rows are contiguous throughout.

/// The `r` eigenvectors (of length 1) of the largest eigenvalues of the symmetric `n × n` matrix with entries `at(i, j)`, largest first.
pub fn leading(n: usize, r: usize, at: impl Fn(usize, usize) -> f64) -> Vec<Vec<f64>> {
    // One triangle is computed, the other copied.
    let mut a: Vec<Vec<f64>> = (0..n).map(|i| (0..=i).map(|j| at(i, j)).collect()).collect();
    for i in 0..n {
        let above: Vec<f64> = a[i + 1..].iter().map(|row| row[i]).collect();
        a[i].extend(above);
    }
    let (mut diagonal, mut beside, mut vectors) = tridiagonal(a);
    ql(&mut diagonal, &mut beside, &mut vectors);
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&i, &j| diagonal[j].total_cmp(&diagonal[i]));
    order.truncate(r);
    order.into_iter().map(|i| std::mem::take(&mut vectors[i])).collect()
}

/// `(diagonal, off-diagonal, Q)` with `A = Qᵀ·T·Q`: row `i` of `Q` goes with diagonal entry `i`.
fn tridiagonal(mut a: Vec<Vec<f64>>) -> (Vec<f64>, Vec<f64>, Vec<Vec<f64>>) {
    let n = a.len();
    let mut q: Vec<Vec<f64>> = (0..n).map(|i| (0..n).map(|j| f64::from(u8::from(i == j))).collect()).collect();
    let mut reflectors: Vec<(usize, Vec<f64>)> = Vec::new();
    for k in 0..n.saturating_sub(2) {
        // Reflect column k below the diagonal onto its first entry.
        let mut v: Vec<f64> = (k + 1..n).map(|i| a[i][k]).collect();
        let norm = v.iter().map(|x| x * x).sum::<f64>().sqrt();
        if norm == 0.0 || v[1..].iter().all(|x| *x == 0.0) {
            continue;
        }
        v[0] += norm.copysign(v[0]);
        let length = v.iter().map(|x| x * x).sum::<f64>().sqrt();
        v.iter_mut().for_each(|x| *x /= length);
        // A ← (I − 2vvᵀ)·A·(I − 2vvᵀ) as a symmetric update of rank two: A − v·wᵀ − w·vᵀ.
        let mut p: Vec<f64> =
            (k + 1..n).map(|i| 2.0 * a[i][k + 1..].iter().zip(&v).map(|(x, y)| x * y).sum::<f64>()).collect();
        let half: f64 = p.iter().zip(&v).map(|(x, y)| x * y).sum();
        p.iter_mut().zip(&v).for_each(|(x, y)| *x -= half * y);
        for (i, row) in a[k + 1..].iter_mut().enumerate() {
            let (vi, wi) = (v[i], p[i]);
            row[k + 1..].iter_mut().zip(v.iter().zip(&p)).for_each(|(x, (vj, wj))| *x -= vi * wj + wi * vj);
        }
        let first = a[k + 1][k];
        a[k + 1][k] = -norm.copysign(first);
        reflectors.push((k + 1, v));
    }
    // Q = H_last ⋯ H_first: rows from each reflector's start on.
    for (start, v) in &reflectors {
        let mut sum = vec![0f64; n];
        for (row, c) in q[*start..].iter().zip(v) {
            sum.iter_mut().zip(row).for_each(|(s, x)| *s += c * x);
        }
        for (row, c) in q[*start..].iter_mut().zip(v) {
            row.iter_mut().zip(&sum).for_each(|(x, s)| *x -= 2.0 * c * s);
        }
    }
    let diagonal = (0..n).map(|i| a[i][i]).collect();
    let beside = (1..n).map(|i| a[i][i - 1]).collect();
    (diagonal, beside, q)
}

/// Most steps spent on one eigenvalue; two or three are usual.
const MOST_STEPS: usize = 60;

/// Makes the off-diagonal vanish, turning the rows of `q` along.
fn ql(d: &mut [f64], beside: &mut [f64], q: &mut [Vec<f64>]) {
    let n = d.len();
    let mut e = beside.to_vec();
    e.push(0.0);
    for l in 0..n {
        for _ in 0..MOST_STEPS {
            // The block from l to the first negligible entry.
            let m = (l..n - 1).find(|&m| e[m].abs() <= f64::EPSILON * (d[m].abs() + d[m + 1].abs())).unwrap_or(n - 1);
            if m == l {
                break;
            }
            // Wilkinson's shift.
            let g = (d[l + 1] - d[l]) / (2.0 * e[l]);
            let mut r = g.hypot(1.0);
            let mut g = d[m] - d[l] + e[l] / (g + r.copysign(g));
            let (mut s, mut c, mut p) = (1.0f64, 1.0f64, 0.0f64);
            let mut vanished = false;
            for i in (l..m).rev() {
                let (f, b) = (s * e[i], c * e[i]);
                r = f.hypot(g);
                e[i + 1] = r;
                if r == 0.0 {
                    d[i + 1] -= p;
                    e[m] = 0.0;
                    vanished = true;
                    break;
                }
                (s, c) = (f / r, g / r);
                let h = d[i + 1] - p;
                r = (d[i] - h) * s + 2.0 * c * b;
                p = s * r;
                d[i + 1] = h + p;
                g = c * r - b;
                let (low, high) = q.split_at_mut(i + 1);
                for (x, y) in low[i].iter_mut().zip(high[0].iter_mut()) {
                    let (u, v) = (*x, *y);
                    *y = s * u + c * v;
                    *x = c * u - s * v;
                }
            }
            if vanished {
                continue;
            }
            d[l] -= p;
            e[l] = g;
            e[m] = 0.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zoo::seed::{Fill, values};

    #[test]
    fn vectors_are_orthonormal_and_give_the_matrix_back() {
        for n in [1usize, 2, 3, 7, 40] {
            let v = values("m", n * n, Fill::Within(1.0));
            let at = |i: usize, j: usize| f64::from(v[i * n + j] + v[j * n + i]);
            let q = leading(n, n, at);
            let times = |x: &[f64]| -> Vec<f64> { (0..n).map(|i| (0..n).map(|j| at(i, j) * x[j]).sum()).collect() };
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
            let mut last = f64::INFINITY;
            for (i, x) in q.iter().enumerate() {
                let ax = times(x);
                let value = dot(&ax, x);
                assert!(ax.iter().zip(x).all(|(a, x)| (a - value * x).abs() < 1e-9), "n = {n}, vector {i}");
                assert!(value <= last + 1e-9, "n = {n}: {value} after {last}");
                last = value;
                for (j, y) in q.iter().enumerate() {
                    assert!((dot(x, y) - f64::from(u8::from(i == j))).abs() < 1e-9, "n = {n}: {i} and {j}");
                }
            }
        }
        // Zeros and equal eigenvalues are no obstacle.
        assert_eq!(leading(3, 3, |_, _| 0.0).len(), 3);
        let q = leading(4, 2, |i, j| f64::from(u8::from(i == j)));
        assert!(q.iter().all(|x| (x.iter().map(|v| v * v).sum::<f64>() - 1.0).abs() < 1e-12));
    }
}
