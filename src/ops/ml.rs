//! What the operators of `ai.onnx.ml` share: features as numbers, class labels, what becomes of scores, looking at maps.
//!
//! <https://onnx.ai/onnx/operators/index_ml.html>. Features are integers or floats; arithmetic is in `f32`, for `f64` features in `f64`, and
//! scores are `f32`. Where the standard is silent this does as ONNX Runtime does.
//!
//! A map is held as a sequence of two tensors, its keys and its values; a sequence of maps is a sequence of such sequences.

use super::cast::cast;
use super::spec::NodeSpec;
use super::unary::sigmoid;
use super::{Input, softmax::softmax};
use crate::error::{Error, Result};
use crate::tensor::{DType, Dim, Fact, Num, Shape, Tensor};

/// The domain of these operators.
pub const DOMAIN: &str = "ai.onnx.ml";

/// Features as numbers that kernels compute with.
///
/// # Errors
/// If they are neither numbers nor booleans.
pub fn features(x: &Tensor) -> Result<Tensor> {
    if matches!(x.dtype(), DType::F32 | DType::F64) { Ok(x.clone()) } else { cast(x, DType::F32, true) }
}

/// Rows and columns of `[N, C]` or `[C]` features.
///
/// # Errors
/// If they have more axes.
pub fn rows(dims: &[usize]) -> Result<(usize, usize)> {
    match *dims {
        [c] => Ok((1, c)),
        [n, c] => Ok((n, c)),
        _ => Err(Error::input(format!("features must be [N, C], not {}", Shape::known(dims)))),
    }
}

/// [`rows`] of what is known.
///
/// # Errors
/// If there are more axes.
pub fn row_dims(x: Input) -> Result<(Dim, Dim)> {
    match x.fact.shape.dims() {
        None => Ok((None, None)),
        Some(&[c]) => Ok((Some(1), c)),
        Some(&[n, c]) => Ok((n, c)),
        Some(_) => Err(Error::input(format!("features must be [N, C], not {}", x.fact.shape))),
    }
}

/// An `f32` fact of rows and columns.
pub fn scores_fact(rows: Dim, columns: Dim) -> Fact {
    Fact::new(DType::F32, Shape::partial(vec![rows, columns]))
}

/// Names of classes.
#[derive(Debug, Clone)]
pub enum Labels {
    /// Numbers.
    Ints(Vec<i64>),
    /// Text.
    Strings(Vec<String>),
}

impl Labels {
    /// The labels in one of two attributes; none if neither is given.
    ///
    /// # Errors
    /// If both are given.
    pub fn parse(node: &NodeSpec, ints: &str, strings: &str) -> Result<Labels> {
        let given = node.opt_ints(ints)?.filter(|v| !v.is_empty());
        match (given, node.opt_strs(strings)?.filter(|v| !v.is_empty())) {
            (Some(_), Some(_)) => Err(Error::input(format!("stands beside {ints}")).at_attribute(strings)),
            (Some(v), None) => Ok(Labels::Ints(v)),
            (None, Some(v)) => Ok(Labels::Strings(v)),
            (None, None) => Ok(Labels::Ints(Vec::new())),
        }
    }
    /// Number of classes.
    pub fn len(&self) -> usize {
        match self {
            Labels::Ints(v) => v.len(),
            Labels::Strings(v) => v.len(),
        }
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Type of a tensor of labels.
    pub fn dtype(&self) -> DType {
        if matches!(self, Labels::Strings(_)) { DType::Str } else { DType::I64 }
    }
    /// The labels of classes by number; a number without a label is itself, or no text.
    ///
    /// # Errors
    /// None that inputs can cause.
    pub fn of(&self, classes: &[usize]) -> Result<Tensor> {
        let dims = [classes.len()];
        match self {
            Labels::Ints(v) => {
                Tensor::from_vec(classes.iter().map(|&c| v.get(c).copied().unwrap_or(c as i64)).collect(), &dims)
            }
            Labels::Strings(v) => {
                Tensor::from_strings(classes.iter().map(|&c| v.get(c).cloned().unwrap_or_default()).collect(), &dims)
            }
        }
    }
}

/// What becomes of a row of scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Post {
    /// Nothing.
    None,
    /// Softmax: 5 FLOPs per score.
    Softmax,
    /// Sigmoid: 4 FLOPs per score.
    Logistic,
    /// Softmax in which zeros stay zeros: 5 FLOPs per score.
    SoftmaxZero,
    /// The inverse of the normal distribution: 1 FLOP per score.
    Probit,
}

impl Post {
    /// The attribute `post_transform`.
    ///
    /// # Errors
    /// If it is unknown.
    pub fn parse(node: &NodeSpec) -> Result<Post> {
        Ok(match node.str("post_transform", "NONE")? {
            "NONE" => Post::None,
            "SOFTMAX" => Post::Softmax,
            "LOGISTIC" => Post::Logistic,
            "SOFTMAX_ZERO" => Post::SoftmaxZero,
            "PROBIT" => Post::Probit,
            other => return Err(Error::input(format!("'{other}' is not a transform")).at_attribute("post_transform")),
        })
    }
    /// The transform of number `n` in TreeEnsemble.
    pub fn from_number(n: i64) -> Option<Post> {
        [Post::None, Post::Softmax, Post::Logistic, Post::SoftmaxZero, Post::Probit]
            .get(usize::try_from(n).ok()?)
            .copied()
    }
    /// FLOPs per row of scores.
    pub fn flops(self, scores: usize) -> Option<u64> {
        let per = match self {
            Post::Probit => 1,
            _ if scores < 2 => 0,
            Post::None => 0,
            Post::Softmax | Post::SoftmaxZero => 5,
            Post::Logistic => 4,
        };
        (scores as u64).checked_mul(per)
    }
    /// Applies it to a row. A lone score stays as it is but for a probit.
    pub fn apply<T: Num>(self, row: &mut [T]) {
        match self {
            _ if row.len() < 2 && self != Post::Probit => {}
            Post::None => {}
            Post::Softmax => softmax(row),
            Post::Logistic => row.iter_mut().for_each(|v| *v = sigmoid(*v)),
            Post::Probit => row.iter_mut().for_each(|v| *v = v.apply(probit)),
            Post::SoftmaxZero => {
                let max = row.iter().fold(T::of(f64::NEG_INFINITY), |m, &v| m.max_nan(v));
                let mut sum = T::zero();
                for v in row.iter_mut() {
                    let is_zero = v.get().abs() <= 1e-7;
                    let e = (*v - max).exp();
                    *v = if is_zero { T::zero() } else { e };
                    sum = sum + *v;
                }
                // Zeros alone are all equally likely.
                let (by, add) = if sum.get() == 0.0 { (T::of(1.0), Some(T::of(0.5))) } else { (sum, None) };
                row.iter_mut().for_each(|v| *v = add.unwrap_or(*v) / by);
            }
        }
    }
}

/// `√2 · erf⁻¹(2p − 1)`, by Winitzki's approximation of erf⁻¹ (2008), as ONNX Runtime computes it.
fn probit(p: f64) -> f64 {
    let x = 2.0 * p - 1.0;
    let log = ((1.0 - x) * (1.0 + x)).ln();
    let v = 2.0 / (std::f64::consts::PI * 0.147) + 0.5 * log;
    let inverse = (-v + (v * v - log / 0.147).sqrt()).sqrt();
    std::f64::consts::SQRT_2 * if x < 0.0 { -inverse } else { inverse }
}

/// The index of the largest score, the first of equals.
pub fn largest<T: Num>(row: &[T]) -> usize {
    (1..row.len()).fold(0, |best, i| if row[i].get() > row[best].get() { i } else { best })
}

/// What a lone score of the positive of two classes is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lone {
    /// A probability: the other class has 1 − s.
    Share,
    /// A margin: the other class has −s.
    Margin,
}

/// Scores of two classes made from that of the second: a sigmoid for both (9 FLOPs), else as [`Lone`] says (1 FLOP); no other transform
/// but a probit (1 more) is done to a lone score.
pub fn two_scores<T: Num>(s: T, lone: Lone, post: Post) -> [T; 2] {
    match (post, lone) {
        (Post::Logistic, _) => [sigmoid(-s), sigmoid(s)],
        (Post::Probit, _) => {
            let p = s.apply(probit);
            [-p, p]
        }
        (_, Lone::Share) => [T::of(1.0) - s, s],
        (_, Lone::Margin) => [-s, s],
    }
}

/// FLOPs of [`two_scores`].
pub fn two_scores_flops(post: Post) -> u64 {
    match post {
        Post::Logistic => 9,
        Post::Probit => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transforms_of_scores() {
        let of = |post: Post, mut row: Vec<f64>| {
            post.apply(&mut row);
            row.iter().map(|v| (v * 1e4).round() / 1e4).collect::<Vec<f64>>()
        };
        assert_eq!(of(Post::Softmax, vec![1.0, 2.0]), [0.2689, 0.7311]);
        assert_eq!(of(Post::SoftmaxZero, vec![0.0, 2.0, 2.0]), [0.0, 0.5, 0.5]);
        assert_eq!(of(Post::Logistic, vec![0.0, 0.0]), [0.5, 0.5]);
        assert_eq!(of(Post::Logistic, vec![3.0]), [3.0]);
        assert_eq!(two_scores(0.25, Lone::Share, Post::Softmax), [0.75, 0.25]);
        assert!((probit(0.975) - 1.96).abs() < 0.01 && (probit(0.025) + 1.96).abs() < 0.01);
    }
}
