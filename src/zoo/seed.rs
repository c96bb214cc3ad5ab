//! Weights out of nothing but a name: the same numbers on every machine, made only when somebody looks at them.
//!
//! SplitMix64 is used as a counter-based generator (Steele, Lea, Flood: "Fast splittable pseudorandom number generators",
//! 2014): element `i` of a tensor depends on the tensor's name and on `i`, on nothing else.

use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// How a tensor is filled.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fill {
    /// Uniform in (-bound, bound).
    Within(f32),
    /// Uniform in (centre - spread, centre + spread).
    Around(f32, f32),
}

impl Fill {
    /// Uniform with variance `gain / fan_in`: He scaling for `gain` 2, variance-preserving linear maps for 1.
    pub fn scaled(gain: f32, fan_in: usize) -> Fill {
        Fill::Within((3.0 * gain / fan_in.max(1) as f32).sqrt())
    }
}

/// A tensor of reproducible numbers, made when first looked at.
///
/// # Errors
/// If the shape does not fit in memory.
pub fn tensor(name: &str, dims: &[usize], fill: Fill) -> Result<Tensor> {
    let (name, n) = (name.to_string(), dims.iter().product());
    Tensor::lazy(dims, move || values(&name, n, fill))
}

/// The leading entries of a tensor along every axis, read off the whole when first looked at.
///
/// # Errors
/// If the sizes are not a part of the whole's, or do not fit in memory.
pub fn leading(whole: &Tensor, dims: &[usize]) -> Result<Tensor> {
    let full = whole.dims().to_vec();
    if full == dims {
        return Ok(whole.clone());
    }
    if full.len() != dims.len() || full.iter().zip(dims).any(|(f, d)| d > f) {
        return Err(Error::input(format!("{dims:?} is not the leading part of {full:?}")));
    }
    let (whole, part) = (whole.clone(), dims.to_vec());
    Tensor::lazy(dims, move || {
        let values = whole.view::<f32>().map(|v| v.into_owned()).unwrap_or_default();
        let n: usize = part.iter().product();
        let place = |i: usize| {
            let (mut rest, mut at, mut step) = (i, 0, 1);
            for (d, f) in part.iter().zip(&full).rev() {
                at += rest % d * step;
                rest /= d;
                step *= f;
            }
            at
        };
        (0..n).map(|i| values.get(place(i)).copied().unwrap_or_default()).collect::<Vec<f32>>()
    })
}

/// The first `n` numbers of a name.
pub fn values(name: &str, n: usize, fill: Fill) -> Vec<f32> {
    let seed = hash(name);
    let (centre, spread) = match fill {
        Fill::Within(bound) => (0.0, bound),
        Fill::Around(centre, spread) => (centre, spread),
    };
    (0..n as u64).map(|i| centre + spread * unit(seed, i)).collect()
}

/// FNV-1a, 64 bits.
fn hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// Element `i` of a stream, uniform in [-1, 1) on a grid of 2^-23.
fn unit(seed: u64, i: u64) -> f32 {
    let mut z = seed.wrapping_add(i.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    (z >> 40) as f32 / (1u64 << 23) as f32 - 1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_depend_on_the_name_only_and_have_the_asked_variance() {
        let a = tensor("a.weight", &[100, 100], Fill::scaled(2.0, 100)).unwrap();
        let again = tensor("a.weight", &[100, 100], Fill::scaled(2.0, 100)).unwrap();
        let b = tensor("b.weight", &[100, 100], Fill::scaled(2.0, 100)).unwrap();
        assert_eq!(a.bytes().unwrap(), again.bytes().unwrap());
        assert_ne!(a.bytes().unwrap(), b.bytes().unwrap());
        let v = a.view::<f32>().unwrap();
        let n = v.len() as f32;
        let mean = v.iter().sum::<f32>() / n;
        let variance = v.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / n;
        assert!(mean.abs() < 0.01 && (variance - 0.02).abs() < 0.002, "{mean} {variance}");
    }

    #[test]
    fn a_leading_part_holds_the_numbers_of_the_whole() {
        let fill = Fill::Around(1.0, 0.5);
        let whole = tensor("w", &[4, 3, 2], fill).unwrap();
        let part = leading(&whole, &[2, 2, 2]).unwrap();
        assert!(leading(&whole, &[5, 3, 2]).is_err() && leading(&whole, &[4, 3]).is_err());
        let (whole, part) = (whole.view::<f32>().unwrap().into_owned(), part.view::<f32>().unwrap().into_owned());
        let want: Vec<f32> = [0, 1, 2, 3, 6, 7, 8, 9].iter().map(|&i: &usize| whole[i]).collect();
        assert_eq!(part, want);
    }
}
