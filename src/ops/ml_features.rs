//! Scaler, Normalizer, Imputer, Binarizer, OneHotEncoder, ArrayFeatureExtractor, FeatureVectorizer: features made ready.
//!
//! <https://onnx.ai/onnx/operators/onnx_aionnxml_Scaler.html>, <https://onnx.ai/onnx/operators/onnx_aionnxml_Normalizer.html>,
//! <https://onnx.ai/onnx/operators/onnx_aionnxml_Imputer.html> and their neighbours.
//!
//! Cost in other FLOPs: Scaler 1 per element for an offset and 1 for a scale; Normalizer per element MAX 2, L1 3, L2 3 and 1 per row;
//! Binarizer 1 per element of floats. The others move and choose: free. Offsets, scales and imputed values are statistics.

use super::cast::cast;
use super::elements::{Elements, Writer};
use super::ml::{DOMAIN, Labels, features, row_dims, rows};
use super::spec::{Attr, NodeSpec};
use super::{Access, Case, Charge, CostCx, Entry, EvalCx, Family, Held, Infer, Inputs, Op, Role, input, sample};
use crate::cost::Work;
use crate::error::{Error, Result};
use crate::tensor::{DType, Dim, Fact, Num, Shape, Tensor, element_count};
use crate::with_num;
use std::collections::HashMap;

const fn entry(name: &'static str) -> Entry {
    Entry { domain: DOMAIN, name, parse: MlFeatures::parse, cases }
}

/// The family's table rows.
pub const ENTRIES: &[Entry] = &[
    entry("ArrayFeatureExtractor"),
    entry("Binarizer"),
    entry("FeatureVectorizer"),
    entry("Imputer"),
    entry("Normalizer"),
    entry("OneHotEncoder"),
    entry("Scaler"),
];

/// An operator that makes features ready.
#[derive(Debug, Clone)]
pub enum MlFeatures {
    /// `(x − offset) · scale`, one of each or one per column.
    Scale {
        /// Offsets.
        offset: Vec<f32>,
        /// Scales.
        scale: Vec<f32>,
    },
    /// Rows divided by their norm.
    Normalize(Norm),
    /// Missing values replaced.
    Impute {
        /// What stands for missing; NaN is any NaN.
        missing: f64,
        /// One value, or one per column.
        values: Vec<f64>,
    },
    /// 1 above a threshold, else 0.
    Binarize(f32),
    /// A 1 at the category's place.
    OneHot {
        /// Categories.
        categories: Labels,
        /// Unknown categories are all zeros rather than errors.
        zeros: bool,
    },
    /// Chosen columns.
    Extract,
    /// Columns of all inputs side by side, of given widths.
    Join(Vec<usize>),
}

/// What a row is divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Norm {
    /// Its largest value.
    Max,
    /// The sum of its magnitudes.
    L1,
    /// The root of the sum of its squares.
    L2,
}

impl MlFeatures {
    fn parse(node: &NodeSpec) -> Result<Op> {
        let floats = |name: &str| -> Result<Vec<f32>> { Ok(node.opt_floats(name)?.unwrap_or_default()) };
        let op = match node.op_type.as_str() {
            "Scaler" => MlFeatures::Scale { offset: floats("offset")?, scale: floats("scale")? },
            "Normalizer" => MlFeatures::Normalize(match node.str("norm", "MAX")? {
                "MAX" => Norm::Max,
                "L1" => Norm::L1,
                "L2" => Norm::L2,
                other => return Err(Error::input(format!("'{other}' is not a norm")).at_attribute("norm")),
            }),
            "Imputer" => {
                let ints = node.opt_ints("imputed_value_int64s")?.filter(|v| !v.is_empty());
                match ints {
                    Some(v) => MlFeatures::Impute {
                        missing: node.int("replaced_value_int64", 0)? as f64,
                        values: v.into_iter().map(|v| v as f64).collect(),
                    },
                    None => MlFeatures::Impute {
                        missing: node.float("replaced_value_float", 0.0)?.into(),
                        values: floats("imputed_value_floats")?.into_iter().map(f64::from).collect(),
                    },
                }
            }
            "Binarizer" => MlFeatures::Binarize(node.float("threshold", 0.0)?),
            "OneHotEncoder" => MlFeatures::OneHot {
                categories: Labels::parse(node, "cats_int64s", "cats_strings")?,
                zeros: node.flag("zeros", true)?,
            },
            "ArrayFeatureExtractor" => MlFeatures::Extract,
            "FeatureVectorizer" => MlFeatures::Join(node.opt_sizes("inputdimensions")?.unwrap_or_default()),
            other => return Err(Error::unsupported(format!("{other} makes no features"))),
        };
        match &op {
            MlFeatures::Extract => node.expect_inputs(2, 2)?,
            MlFeatures::Join(_) => node.expect_inputs(1, usize::MAX)?,
            _ => node.expect_inputs(1, 1)?,
        }
        if let MlFeatures::Impute { values, .. } = &op
            && values.is_empty()
        {
            return Err(Error::input("is required").at_attribute("imputed_value_floats"));
        }
        Ok(Op::MlFeatures(op))
    }
}

/// The value for a column out of one, or one per column.
fn per_column<V: Copy>(values: &[V], columns: usize, what: &str) -> Result<impl Fn(usize) -> V> {
    if values.len() != 1 && values.len() != columns {
        return Err(Error::input(format!("has {} values for {columns} columns", values.len())).at_attribute(what));
    }
    Ok(move |i: usize| if values.len() == 1 { values[0] } else { values[i % columns] })
}

/// Rows that a FeatureVectorizer sees in an input: a vector is a column.
fn columns_of(dims: &[usize]) -> Result<(usize, usize)> {
    match *dims {
        [n] => Ok((n, 1)),
        [n, c] => Ok((n, c)),
        _ => Err(Error::input(format!("features must be [N, C], not {}", Shape::known(dims)))),
    }
}

fn join(inputs: &Inputs, widths: &[usize]) -> Result<Tensor> {
    let n = columns_of(input(inputs, 0)?.dims())?.0;
    let mut parts = Vec::with_capacity(inputs.len());
    for i in 0..inputs.len() {
        let x = features(input(inputs, i)?)?;
        let (rows, c) = columns_of(x.dims())?;
        if rows != n {
            return Err(Error::input("inputs of different numbers of rows"));
        }
        parts.push((cast(&x, DType::F32, true)?, c, widths.get(i).copied().unwrap_or(c)));
    }
    let total = parts.iter().try_fold(0usize, |sum, p| sum.checked_add(p.2));
    let dims = [n, total.ok_or_else(|| Error::input("too many columns").at_attribute("inputdimensions"))?];
    let zero = Tensor::zeros(DType::F32, &[])?;
    let (mut w, zero) = (Writer::new(DType::F32, &dims)?, Elements::of(&zero)?);
    let cells: Vec<Elements> = parts.iter().map(|p| Elements::of(&p.0)).collect::<Result<_>>()?;
    for row in 0..n {
        for ((_, c, width), cells) in parts.iter().zip(&cells) {
            w.run(cells, row * c, *c.min(width));
            w.fill(&zero, width.saturating_sub(*c));
        }
    }
    w.finish()
}

fn one_hot(x: &Tensor, categories: &Labels, zeros: bool) -> Result<Tensor> {
    let classes = categories.len();
    let dims: Vec<usize> = x.dims().iter().copied().chain([classes]).collect();
    let found: Vec<Option<usize>> = match categories {
        Labels::Strings(v) => {
            let places: HashMap<&str, usize> = v.iter().enumerate().map(|(i, s)| (s.as_str(), i)).collect();
            x.strings()?.iter().map(|s| places.get(s.as_str()).copied()).collect()
        }
        Labels::Ints(v) => {
            let places: HashMap<i64, usize> = v.iter().enumerate().map(|(i, s)| (*s, i)).collect();
            cast(x, DType::I64, true)?.to_i64s()?.iter().map(|s| places.get(s).copied()).collect()
        }
    };
    let n = element_count(&dims)?;
    let mut y: Vec<f32> = super::elements::reserved(n)?;
    y.resize(n, 0.0);
    for (i, place) in found.into_iter().enumerate() {
        match place {
            Some(p) => y[i * classes + p] = 1.0,
            None if zeros => {}
            None => return Err(Error::run("a category that the encoder does not know")),
        }
    }
    Tensor::from_vec(y, &dims)
}

/// Columns of the last axis; a vector becomes a row.
fn extract(x: &Tensor, at: &Tensor) -> Result<Tensor> {
    let Some((&width, outer)) = x.dims().split_last() else { return Err(Error::input("features of rank 0")) };
    let picks = at.to_i64s()?;
    let bad = |i: i64| Error::run(format!("there is no feature {i} among {width}"));
    let picks: Vec<usize> = picks
        .iter()
        .map(|&i| usize::try_from(i).ok().filter(|&p| p < width).ok_or_else(|| bad(i)))
        .collect::<Result<_>>()?;
    let outer = if outer.is_empty() { vec![1] } else { outer.to_vec() };
    let rows: usize = element_count(&outer)?;
    let dims: Vec<usize> = outer.into_iter().chain([picks.len()]).collect();
    let (mut w, cells) = (Writer::new(x.dtype(), &dims)?, Elements::of(x)?);
    for row in 0..rows {
        picks.iter().for_each(|&p| w.run(&cells, row * width + p, 1));
    }
    w.finish()
}

fn normalize<T: Num>(x: &Tensor, norm: Norm) -> Result<Vec<T>> {
    let (_, width) = rows(x.dims())?;
    let mut y = T::load(x)?;
    for row in y.chunks_mut(width.max(1)) {
        let size = match norm {
            Norm::Max => row.iter().fold(T::of(f64::NEG_INFINITY), |m, &v| m.max_nan(v)),
            Norm::L1 => row.iter().fold(T::zero(), |sum, &v| sum + v.apply(f64::abs)),
            Norm::L2 => row.iter().fold(T::zero(), |sum, &v| sum + v * v).sqrt(),
        };
        // A row of zeros stays one.
        let size = if size.get() == 0.0 { T::of(1.0) } else { size };
        row.iter_mut().for_each(|v| *v = *v / size);
    }
    Ok(y)
}

impl Family for MlFeatures {
    fn infer(&self, cx: &Infer) -> Result<Vec<Fact>> {
        let x = cx.fact(0)?;
        Ok(vec![match self {
            MlFeatures::Scale { .. } | MlFeatures::Normalize(_) => x.with_dtype(DType::F32),
            MlFeatures::Impute { .. } | MlFeatures::Binarize(_) => x.clone(),
            MlFeatures::OneHot { categories, .. } => {
                let longer = |d: &[Dim]| Shape::partial(d.iter().copied().chain([Some(categories.len())]).collect());
                Fact::new(DType::F32, x.shape.dims().map_or(Shape::UNKNOWN, longer))
            }
            MlFeatures::Extract => {
                let picks = cx.shape(1)?.elements();
                let shape = match x.shape.dims() {
                    Some([]) => return Err(Error::input("features of rank 0")),
                    Some([_]) => Shape::partial(vec![Some(1), picks]),
                    Some([outer @ .., _]) => Shape::partial(outer.iter().copied().chain([picks]).collect()),
                    None => Shape::UNKNOWN,
                };
                x.with_shape(shape)
            }
            MlFeatures::Join(widths) => {
                let mut total = Some(0usize);
                for i in 0..cx.inputs.len() {
                    let input = cx.input(i)?;
                    let own = if input.fact.shape.rank() == Some(1) { Some(1) } else { row_dims(input)?.1 };
                    total = total.zip(widths.get(i).copied().or(own)).and_then(|(a, b)| a.checked_add(b));
                }
                Fact::new(DType::F32, Shape::partial(vec![x.shape.dim(0), total]))
            }
        }])
    }
    fn charge(&self, cx: &CostCx) -> Charge {
        let float = cx.dtype(0).is_none_or(DType::is_float);
        let (per_element, per_row) = match self {
            MlFeatures::Scale { offset, scale } => (u64::from(!offset.is_empty()) + u64::from(!scale.is_empty()), 0),
            MlFeatures::Normalize(Norm::Max) => (2, 0),
            MlFeatures::Normalize(Norm::L1) => (3, 0),
            MlFeatures::Normalize(Norm::L2) => (3, 1),
            MlFeatures::Binarize(_) => (u64::from(float), 0),
            _ => return Charge::FREE,
        };
        Charge::of((|| {
            let elements = cx.elements(0)?;
            // Rows without columns have no norm.
            let rows = if per_row > 0 && elements > 0 { rows(&cx.dims(0)?).ok()?.0 as u64 } else { 0 };
            Some(Work::other(elements.checked_mul(per_element)?.checked_add(rows.checked_mul(per_row)?)?))
        })())
    }
    fn eval(&self, cx: &EvalCx, inputs: &Inputs) -> Result<Vec<Tensor>> {
        let x = input(inputs, 0)?;
        Ok(vec![match self {
            MlFeatures::Scale { offset, scale } => {
                let x = features(x)?;
                let width = x.dims().last().copied().unwrap_or(1).max(1);
                let y = with_num!(cx.arith, x.dtype(), T => {
                    let mut y = T::load(&x)?;
                    let mut each = |values: &[f32], name: &str, f: fn(T, T) -> T| -> Result<()> {
                        if !values.is_empty() {
                            let at = per_column(values, width, name)?;
                            y.iter_mut().enumerate().for_each(|(i, v)| *v = f(*v, T::of(f64::from(at(i)))));
                        }
                        Ok(())
                    };
                    each(offset, "offset", |v, c| v - c)?;
                    each(scale, "scale", |v, c| v * c)?;
                    T::store(y, x.dims())
                })?;
                cast(&y, DType::F32, true)?
            }
            MlFeatures::Normalize(norm) => {
                let x = features(x)?;
                let y = with_num!(cx.arith, x.dtype(), T => T::store(normalize::<T>(&x, *norm)?, x.dims()))?;
                cast(&y, DType::F32, true)?
            }
            MlFeatures::Impute { missing, values } => {
                let width = x.dims().last().copied().unwrap_or(1).max(1);
                let at = per_column(values, width, "imputed_value_floats")?;
                let same = |v: f64| v == *missing || (v.is_nan() && missing.is_nan());
                let fill: Vec<f64> = (0..width).map(at).collect();
                let fill = cast(&Tensor::from_vec(fill, &[width])?, x.dtype(), true)?;
                let (cells, fill) = (Elements::of(x)?, Elements::of(&fill)?);
                let mut w = Writer::new(x.dtype(), x.dims())?;
                for (i, v) in x.to_f64s()?.into_iter().enumerate() {
                    if same(v) { w.run(&fill, i % width, 1) } else { w.run(&cells, i, 1) }
                }
                w.finish()?
            }
            MlFeatures::Binarize(threshold) if x.dtype().is_float() => with_num!(cx.arith, x.dtype(), T => {
                let t = T::of(f64::from(*threshold));
                T::store(T::load(x)?.into_iter().map(|v| T::of(f64::from(u8::from(v.gt(t))))).collect(), x.dims())
            })?,
            MlFeatures::Binarize(threshold) => {
                let above = |v: f64| i128::from(v > f64::from(*threshold));
                let y: Vec<i128> = x.to_f64s()?.into_iter().map(above).collect();
                super::elements::from_ints(x.dtype(), &y, x.dims())?
            }
            MlFeatures::OneHot { categories, zeros } => one_hot(x, categories, *zeros)?,
            MlFeatures::Extract => extract(x, input(inputs, 1)?)?,
            MlFeatures::Join(widths) => join(inputs, widths)?,
        }])
    }
    fn role(&self, i: usize) -> Role {
        if matches!(self, MlFeatures::Extract) && i == 1 { Role::Setting } else { Role::Data }
    }
    fn access(&self) -> Access {
        if matches!(self, MlFeatures::Extract) { Access::Selected } else { Access::Compulsory }
    }
    fn held(&self) -> Held {
        match self {
            MlFeatures::Scale { offset, scale } => Held::floats(0, offset.len() + scale.len()),
            MlFeatures::Impute { values, .. } => Held::floats(0, values.len()),
            _ => Held::default(),
        }
    }
}

fn cases() -> Vec<Case> {
    let f = sample::floats;
    let floats = |name: &'static str, v: &[f32]| (name, Attr::Floats(v.to_vec()));
    let str = |name: &'static str, v: &str| (name, Attr::Str(v.into()));
    let doubles = |t: Tensor| cast(&t, DType::F64, true).unwrap_or(t);
    let cats = ("cats_int64s", Attr::Ints(vec![1, 4, 9]));
    let words = || Tensor::from_strings(["b", "x", "a"].map(String::from).to_vec(), &[3]).unwrap_or_else(|_| f(&[3], 1));
    let nan = || Tensor::from_vec(vec![1f32, f32::NAN, 3., f32::NAN], &[2, 2]).unwrap_or_else(|_| f(&[2, 2], 1));
    let mut all = vec![
        Case::new("Scaler", &[floats("offset", &[1., 2., 3.]), floats("scale", &[0.5])], vec![f(&[2, 3], 1)]),
        Case::new("Scaler", &[floats("scale", &[0.5])], vec![sample::ints(&[1, 2, 3])]),
        Case::new("Imputer", &[floats("imputed_value_floats", &[7., 8.]), floats("x", &[])], vec![nan()]),
        Case::new("Imputer", &[("imputed_value_int64s", Attr::Ints(vec![5]))], vec![sample::ints(&[0, 1])]),
        Case::new("Binarizer", &[("threshold", Attr::Float(0.2))], vec![f(&[2, 3], 1)]),
        Case::new("Binarizer", &[], vec![sample::ints(&[-1, 0, 1])]),
        Case::new("OneHotEncoder", std::slice::from_ref(&cats), vec![sample::ints(&[4, 5, 1])]),
        Case::new("OneHotEncoder", &[cats], vec![f(&[2, 2], 1)]),
        Case::new("OneHotEncoder", &[("cats_strings", Attr::Strs(vec!["a".into(), "b".into()]))], vec![words()]),
        Case::new("ArrayFeatureExtractor", &[], vec![f(&[3, 4], 1), sample::ints(&[2, 0])]),
        Case::new("ArrayFeatureExtractor", &[], vec![words(), sample::ints(&[2])]),
        Case::new(
            "FeatureVectorizer",
            &[("inputdimensions", Attr::Ints(vec![1, 3, 1]))],
            vec![f(&[2], 1), f(&[2, 2], 2), doubles(f(&[2, 2], 3))],
        ),
    ];
    all[2].node.attrs.insert("replaced_value_float".into(), Attr::Float(f32::NAN));
    for norm in ["MAX", "L1", "L2"] {
        all.push(Case::new("Normalizer", &[str("norm", norm)], vec![f(&[3, 4], 1)]));
        all.push(Case::new("Normalizer", &[str("norm", norm)], vec![doubles(f(&[2, 0], 1))]));
    }
    all.into_iter().map(|c| c.domain(DOMAIN)).collect()
}
