//! LabelEncoder, CategoryMapper, DictVectorizer, ZipMap, CastMap: names for numbers and back.
//!
//! <https://onnx.ai/onnx/operators/onnx_aionnxml_LabelEncoder.html>, <https://onnx.ai/onnx/operators/onnx_aionnxml_CategoryMapper.html>,
//! <https://onnx.ai/onnx/operators/onnx_aionnxml_DictVectorizer.html>, <https://onnx.ai/onnx/operators/onnx_aionnxml_ZipMap.html>.
//!
//! Cost: none; looking up is no arithmetic. Vocabularies are not learned. A map is a sequence of two tensors, keys and values (see
//! [`super::ml`]).

use super::cast::cast;
use super::elements::{Elements, Writer};
use super::ml::{DOMAIN, Labels, rows};
use super::spec::{Attr, NodeSpec};
use super::{Access, Case, Charge, CostCx, Entry, EvalCx, Family, Infer, Inputs, Op, Role, input, sample};
use crate::error::{Error, Result};
use crate::tensor::{Container, DType, Fact, Shape, Tensor};
use std::collections::HashMap;

const fn entry(name: &'static str) -> Entry {
    Entry { domain: DOMAIN, name, parse: MlLabels::parse, cases }
}

/// The family's table rows.
pub const ENTRIES: &[Entry] =
    &[entry("CastMap"), entry("CategoryMapper"), entry("DictVectorizer"), entry("LabelEncoder"), entry("ZipMap")];

/// An operator that looks things up.
#[derive(Debug, Clone)]
pub enum MlLabels {
    /// Elements replaced by what a table holds for them, strings by numbers or the other way round.
    Lookup(Vec<Table>),
    /// The values of a map in the order of a vocabulary.
    Vector(Labels),
    /// A map from labels to scores for every row.
    Zip(Labels),
    /// The values of a map as a row, by the order of keys or at their places.
    Cast {
        /// Type of the row.
        to: DType,
        /// Width of a row in which keys are places.
        places: Option<usize>,
    },
}

/// What stands for keys.
#[derive(Debug, Clone)]
pub struct Table {
    from: DType,
    places: HashMap<Key, usize>,
    values: Tensor,
    default: Tensor,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Int(i64),
    /// Bits of a float; all NaNs and both zeros are one.
    Float(u64),
    Text(String),
}

/// The elements of a tensor as keys.
fn keys(t: &Tensor) -> Result<Vec<Key>> {
    let float = |v: f64| Key::Float(if v.is_nan() { f64::NAN.to_bits() } else { (v + 0.0).to_bits() });
    Ok(match t.dtype() {
        DType::Str => t.strings()?.iter().map(|s| Key::Text(s.clone())).collect(),
        d if d.is_float() => t.to_f64s()?.into_iter().map(float).collect(),
        _ => t.to_i64s()?.into_iter().map(Key::Int).collect(),
    })
}

fn one_text(s: &str) -> Result<Tensor> {
    Tensor::from_strings(vec![s.into()], &[])
}

impl Table {
    fn new(from: &Tensor, values: Tensor, default: Tensor) -> Result<Table> {
        if from.len() != values.len() || default.is_empty() || default.dtype() != values.dtype() {
            return Err(Error::input(format!("{} keys for {} values of the default's type", from.len(), values.len()))
                .at_attribute("keys_tensor"));
        }
        let mut places = HashMap::new();
        for (i, key) in keys(from)?.into_iter().enumerate() {
            places.entry(key).or_insert(i);
        }
        Ok(Table { from: from.dtype(), places, values, default })
    }
    fn of(&self, x: &Tensor) -> Result<Tensor> {
        let (values, default) = (Elements::of(&self.values)?, Elements::of(&self.default)?);
        let mut w = Writer::new(self.values.dtype(), x.dims())?;
        for key in keys(x)? {
            match self.places.get(&key) {
                Some(&i) => w.run(&values, i, 1),
                None => w.fill(&default, 1),
            }
        }
        w.finish()
    }
}

/// A list attribute in any of its forms: `NAME_int64s`, `NAME_floats`, `NAME_strings`, `NAME_tensor`.
fn list(node: &NodeSpec, name: &str) -> Result<Tensor> {
    if let Some(t) = node.opt_tensor(&format!("{name}_tensor"))? {
        return Ok(t);
    }
    let n = |len: usize| [len];
    if let Some(v) = node.opt_ints(&format!("{name}_int64s"))?.filter(|v| !v.is_empty()) {
        return Tensor::from_vec(v.clone(), &n(v.len()));
    }
    if let Some(v) = node.opt_floats(&format!("{name}_floats"))?.filter(|v| !v.is_empty()) {
        return Tensor::from_vec(v.clone(), &n(v.len()));
    }
    if let Some(v) = node.opt_strs(&format!("{name}_strings"))? {
        let dims = n(v.len());
        return Tensor::from_strings(v, &dims);
    }
    Err(Error::input("is required in one of its forms").at_attribute(&format!("{name}_tensor")))
}

/// A table in both directions between strings and numbers.
fn both_ways(strings: Vec<String>, numbers: Vec<i64>, node: &NodeSpec) -> Result<Vec<Table>> {
    let (s, n) = ([strings.len()], [numbers.len()]);
    let (strings, numbers) = (Tensor::from_strings(strings, &s)?, Tensor::from_vec(numbers, &n)?);
    let number = Tensor::scalar(node.int("default_int64", -1)?);
    let text = one_text(node.str("default_string", "_Unused")?)?;
    Ok(vec![Table::new(&strings, numbers.clone(), number)?, Table::new(&numbers, strings, text)?])
}

impl MlLabels {
    fn parse(node: &NodeSpec) -> Result<Op> {
        node.expect_inputs(1, 1)?;
        Ok(Op::MlLabels(match node.op_type.as_str() {
            "CategoryMapper" => {
                let numbers = node.opt_ints("cats_int64s")?.unwrap_or_default();
                MlLabels::Lookup(both_ways(node.opt_strs("cats_strings")?.unwrap_or_default(), numbers, node)?)
            }
            "LabelEncoder" => match node.opt_strs("classes_strings")? {
                // Version 1: a class and its place in the list.
                Some(classes) => {
                    let numbers = (0..classes.len() as i64).collect();
                    MlLabels::Lookup(both_ways(classes, numbers, node)?)
                }
                None => {
                    let (from, values) = (list(node, "keys")?, list(node, "values")?);
                    let default = match (node.opt_tensor("default_tensor")?, values.dtype()) {
                        (Some(t), _) => t,
                        (None, DType::Str) => one_text(node.str("default_string", "_Unused")?)?,
                        (None, d) if d.is_float() => cast(&Tensor::scalar(node.float("default_float", -0.0)?), d, true)?,
                        (None, d) => cast(&Tensor::scalar(node.int("default_int64", -1)?), d, true)?,
                    };
                    MlLabels::Lookup(vec![Table::new(&from, values, default)?])
                }
            },
            "DictVectorizer" => MlLabels::Vector(Labels::parse(node, "int64_vocabulary", "string_vocabulary")?),
            "ZipMap" => MlLabels::Zip(Labels::parse(node, "classlabels_int64s", "classlabels_strings")?),
            "CastMap" => {
                let to = match node.str("cast_to", "TO_FLOAT")? {
                    "TO_FLOAT" => DType::F32,
                    "TO_STRING" => DType::Str,
                    "TO_INT64" => DType::I64,
                    other => return Err(Error::input(format!("'{other}' is not a type")).at_attribute("cast_to")),
                };
                let places = match node.str("map_form", "DENSE")? {
                    "DENSE" => None,
                    "SPARSE" => Some(node.opt_size("max_map")?.unwrap_or(1)),
                    other => return Err(Error::input(format!("'{other}' is not a form")).at_attribute("map_form")),
                };
                MlLabels::Cast { to, places }
            }
            other => return Err(Error::unsupported(format!("{other} looks nothing up"))),
        }))
    }
    /// The table for elements of a type.
    fn table(tables: &[Table], from: DType) -> Result<&Table> {
        let table = tables.iter().find(|t| t.from == from);
        table.ok_or_else(|| Error::input(format!("the table has no keys of type {from}")))
    }
}

/// Keys and values of a map.
fn map_of(t: &Tensor) -> Result<(&Tensor, &Tensor)> {
    match t.sequence()? {
        [keys, values] if keys.len() == values.len() => Ok((keys, values)),
        _ => Err(Error::input("a map is a sequence of keys and values")),
    }
}

impl Family for MlLabels {
    fn infer(&self, cx: &Infer) -> Result<Vec<Fact>> {
        let x = cx.fact(0)?;
        Ok(vec![match self {
            MlLabels::Lookup(tables) => match x.dtype {
                Some(d) => x.with_dtype(Self::table(tables, d)?.values.dtype()),
                None => Fact { dtype: None, ..x.clone() },
            },
            MlLabels::Vector(words) => {
                Fact { dtype: x.dtype, ..Fact::of(DType::F32, &[1, words.len()]) }
            }
            MlLabels::Zip(_) => Fact { container: Container::Sequence, ..Fact::new(DType::F32, Shape::UNKNOWN) },
            MlLabels::Cast { to, places } => Fact::new(*to, Shape::partial(vec![Some(1), *places])),
        }])
    }
    fn charge(&self, _cx: &CostCx) -> Charge {
        Charge::FREE
    }
    fn eval(&self, _cx: &EvalCx, inputs: &Inputs) -> Result<Vec<Tensor>> {
        let x = input(inputs, 0)?;
        Ok(vec![match self {
            MlLabels::Lookup(tables) => Self::table(tables, x.dtype())?.of(x)?,
            MlLabels::Vector(words) => {
                let (from, values) = map_of(x)?;
                let default = Tensor::zeros(values.dtype(), &[1])?;
                let all: Vec<usize> = (0..words.len()).collect();
                Table::new(from, values.clone(), default)?.of(&words.of(&all)?)?.reshaped(&[1, words.len()])?
            }
            MlLabels::Zip(labels) => {
                let (n, width) = rows(x.dims())?;
                if width != labels.len() {
                    return Err(Error::input(format!("{width} scores for {} labels", labels.len())));
                }
                let all: Vec<usize> = (0..width).collect();
                let (labels, scores) = (labels.of(&all)?, x.view::<f32>()?);
                let map = |row: usize| {
                    let values = Tensor::from_vec(scores[row * width..][..width].to_vec(), &[width])?;
                    Ok(Tensor::from_sequence(DType::F32, vec![labels.clone(), values]))
                };
                Tensor::from_sequence(DType::F32, (0..n).map(map).collect::<Result<_>>()?)
            }
            MlLabels::Cast { to, places } => {
                let (from, values) = map_of(x)?;
                let (places_of, values) = (from.to_i64s()?, cast(values, *to, true)?);
                let mut order: Vec<usize> = (0..places_of.len()).collect();
                order.sort_by_key(|&i| places_of[i]);
                let width = places.unwrap_or(order.len());
                let (cells, zero) = (Elements::of(&values)?, Tensor::zeros(*to, &[1])?);
                let (zero, mut w) = (Elements::of(&zero)?, Writer::new(*to, &[1, width])?);
                if places.is_none() {
                    order.into_iter().for_each(|i| w.run(&cells, i, 1));
                    return Ok(vec![w.finish()?]);
                }
                let by_place: HashMap<i64, usize> = order.into_iter().map(|i| (places_of[i], i)).collect();
                if by_place.keys().any(|&p| usize::try_from(p).is_err()) {
                    return Err(Error::run("a negative key in a sparse map"));
                }
                for p in 0..width {
                    match by_place.get(&(p as i64)) {
                        Some(&i) => w.run(&cells, i, 1),
                        None => w.fill(&zero, 1),
                    }
                }
                w.finish()?
            }
        }])
    }
    fn role(&self, _i: usize) -> Role {
        Role::Data
    }
    fn access(&self) -> Access {
        Access::Compulsory
    }
}

fn cases() -> Vec<Case> {
    let ints = |name: &'static str, v: &[i64]| (name, Attr::Ints(v.to_vec()));
    let strs = |name: &'static str, v: &[&str]| (name, Attr::Strs(v.iter().map(ToString::to_string).collect()));
    let str = |name: &'static str, v: &str| (name, Attr::Str(v.into()));
    let words = |v: &[&str]| {
        Tensor::from_strings(v.iter().map(ToString::to_string).collect(), &[v.len()]).unwrap_or_else(|_| sample::ints(&[]))
    };
    let map = |keys: Tensor| Tensor::from_sequence(DType::F32, vec![keys, sample::floats(&[2], 1)]);
    let tensor = |name: &'static str, t: Tensor| (name, Attr::Tensor(t));
    let cats = [strs("cats_strings", &["a", "b"]), ints("cats_int64s", &[5, 6])];
    let small = |v: &[i64]| cast(&sample::ints(v), DType::I16, true).unwrap_or_else(|_| sample::ints(v));
    let f64s = |v: &[f64]| Tensor::from_vec(v.to_vec(), &[v.len()]).unwrap_or_else(|_| sample::ints(&[]));
    let all = vec![
        Case::new("CategoryMapper", &cats, vec![words(&["b", "x"])]),
        Case::new("CategoryMapper", &cats, vec![sample::ints(&[5, 7])]),
        Case::new("LabelEncoder", &[strs("classes_strings", &["u", "v"])], vec![words(&["v", "w"])]).opset(1),
        Case::new("LabelEncoder", &[ints("keys_int64s", &[3, 4]), strs("values_strings", &["c", "d"])], vec![sample::ints(&[4, 9])]),
        Case::new(
            "LabelEncoder",
            &[tensor("keys_tensor", f64s(&[1.5, f64::NAN])), tensor("values_tensor", small(&[7, 8]))],
            vec![f64s(&[f64::NAN, 1.5, 0.0])],
        ),
        Case::new("DictVectorizer", &[strs("string_vocabulary", &["q", "p", "r"])], vec![map(words(&["p", "q"]))]),
        Case::new("ZipMap", &[ints("classlabels_int64s", &[1, 2, 3])], vec![sample::floats(&[2, 3], 1)]),
        Case::new("CastMap", &[], vec![map(sample::ints(&[4, 1]))]),
        Case::new("CastMap", &[str("map_form", "SPARSE"), ("max_map", Attr::Int(3))], vec![map(sample::ints(&[2, 0]))]),
    ];
    all.into_iter().map(|c| c.domain(DOMAIN)).collect()
}
