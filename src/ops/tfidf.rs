//! TfIdfVectorizer: how often n-grams of a pool occur.
//!
//! <https://onnx.ai/onnx/operators/onnx__TfIdfVectorizer.html>.
//!
//! Cost: in mode TFIDF with weights one other FLOP per output element; counting and choosing are free. The weights are statistics of the
//! texts they were fitted to.

use super::elements::reserved;
use super::spec::{Attr, NodeSpec};
use super::{Case, Charge, CostCx, Entry, EvalCx, Family, Held, Infer, Inputs, Op, input, sample};
use crate::cost::Work;
use crate::error::{Error, Result};
use crate::tensor::{DType, Dim, Fact, Num, Shape, Tensor, element_count};
use crate::with_num;
use std::collections::HashMap;

/// The family's table rows.
pub const ENTRIES: &[Entry] = &[Entry { domain: "", name: "TfIdfVectorizer", parse: TfIdf::parse, cases }];

/// What a count becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Itself.
    Tf,
    /// The weight, if it is not zero.
    Idf,
    /// The product of count and weight.
    TfIdf,
}

/// A vectorizer.
#[derive(Debug, Clone)]
pub struct TfIdf {
    mode: Mode,
    /// Sizes of n-grams that count.
    sizes: (usize, usize),
    /// Most items left out between two items of an n-gram.
    skip: usize,
    words: Words,
    /// Output column of each n-gram, as numbers of words.
    grams: HashMap<Vec<usize>, usize>,
    columns: usize,
    weights: Option<Vec<f32>>,
}

/// Numbers of the pool's distinct items.
#[derive(Debug, Clone)]
enum Words {
    Ints(HashMap<i64, usize>),
    Strings(HashMap<String, usize>),
}

/// Numbers items by their first occurrence.
fn numbered<K: std::hash::Hash + Eq + Clone>(pool: &[K]) -> (HashMap<K, usize>, Vec<usize>) {
    let mut map = HashMap::new();
    let numbers = pool.iter().map(|k| {
        let n = map.len();
        *map.entry(k.clone()).or_insert(n)
    });
    let numbers = numbers.collect();
    (map, numbers)
}

impl TfIdf {
    fn parse(node: &NodeSpec) -> Result<Op> {
        node.expect_inputs(1, 1)?;
        let needed = |name: &str| Error::input("is required").at_attribute(name);
        let mode = match node.opt_str("mode")?.ok_or_else(|| needed("mode"))? {
            "TF" => Mode::Tf,
            "IDF" => Mode::Idf,
            "TFIDF" => Mode::TfIdf,
            other => return Err(Error::input(format!("'{other}' is not a mode")).at_attribute("mode")),
        };
        let size = |name: &str| node.opt_size(name)?.ok_or_else(|| needed(name));
        let sizes = (size("min_gram_length")?, size("max_gram_length")?);
        if sizes.0 == 0 || sizes.0 > sizes.1 {
            return Err(Error::input("must be positive and not above max_gram_length").at_attribute("min_gram_length"));
        }
        let (words, pool) = match (node.opt_ints("pool_int64s")?, node.opt_strs("pool_strings")?) {
            (Some(ints), None) => {
                let (map, pool) = numbered(&ints);
                (Words::Ints(map), pool)
            }
            (None, Some(strings)) => {
                let (map, pool) = numbered(&strings);
                (Words::Strings(map), pool)
            }
            _ => return Err(Error::input("takes either integers or strings").at_attribute("pool_int64s")),
        };
        let starts = node.opt_sizes("ngram_counts")?.ok_or_else(|| needed("ngram_counts"))?;
        let indexes = node.opt_sizes("ngram_indexes")?.ok_or_else(|| needed("ngram_indexes"))?;
        let columns = indexes.iter().max().map_or(0, |&m| m.saturating_add(1));
        element_count(&[columns])?;
        let mut grams = HashMap::new();
        let mut next = indexes.into_iter();
        for (k, &start) in starts.iter().enumerate() {
            let end = starts.get(k + 1).copied().unwrap_or(pool.len());
            let part = pool.get(start..end).filter(|p| p.len() % (k + 1) == 0);
            let part = part.ok_or_else(|| Error::input("does not divide the pool into n-grams").at_attribute("ngram_counts"))?;
            for gram in part.chunks_exact(k + 1) {
                let too_few = || Error::input("has fewer entries than there are n-grams").at_attribute("ngram_indexes");
                grams.insert(gram.to_vec(), next.next().ok_or_else(too_few)?);
            }
        }
        let weights = node.opt_floats("weights")?.filter(|w| !w.is_empty());
        if weights.as_ref().is_some_and(|w| w.len() < columns) {
            return Err(Error::input(format!("must have one value per output column ({columns})")).at_attribute("weights"));
        }
        let skip = size("max_skip_count")?;
        Ok(Op::TfIdf(TfIdf { mode, sizes, skip, words, grams, columns, weights }))
    }

    /// Numbers of a tensor's items; `None` for those not in the pool.
    fn items(&self, x: &Tensor) -> Result<Vec<Option<usize>>> {
        match &self.words {
            Words::Ints(map) => Ok(x.to_i64s()?.iter().map(|v| map.get(v).copied()).collect()),
            Words::Strings(map) => Ok(x.strings()?.iter().map(|v| map.get(v).copied()).collect()),
        }
    }

    /// Counts the n-grams of a row.
    fn count(&self, row: &[Option<usize>], counts: &mut [u64]) {
        let (mut least, most) = self.sizes;
        for step in 1..=self.skip.saturating_add(1) {
            // No pair of items is that far apart.
            if step > 1 && step >= row.len() {
                break;
            }
            for start in 0..row.len() {
                let known = row[start..].iter().step_by(step).take(most).map_while(|v| *v);
                let mut gram = Vec::new();
                for item in known {
                    gram.push(item);
                    if gram.len() >= least
                        && let Some(&column) = self.grams.get(&gram)
                    {
                        counts[column] += 1;
                    }
                }
            }
            // Single items are the same however many are left out between items.
            if least == 1 {
                least = 2;
                if most < 2 {
                    break;
                }
            }
        }
    }
}

/// Rows and items per row.
fn rows<D: Copy>(dims: &[D], one: D) -> Result<(D, D)> {
    match *dims {
        [] => Ok((one, one)),
        [n] => Ok((one, n)),
        [rows, n] => Ok((rows, n)),
        _ => Err(Error::input("items must be [C] or [N, C]")),
    }
}

impl Family for TfIdf {
    fn infer(&self, cx: &Infer) -> Result<Vec<Fact>> {
        let shape = match cx.shape(0)?.dims() {
            None => Shape::UNKNOWN,
            Some(dims) => {
                let (n, _): (Dim, Dim) = rows(dims, Some(1))?;
                let columns = Some(self.columns);
                Shape::partial(if dims.len() < 2 { vec![columns] } else { vec![n, columns] })
            }
        };
        Ok(vec![Fact::new(DType::F32, shape)])
    }
    fn charge(&self, cx: &CostCx) -> Charge {
        match (self.mode, &self.weights) {
            (Mode::TfIdf, Some(_)) => Charge::of(cx.out_elements(0).map(Work::other)),
            _ => Charge::FREE,
        }
    }
    fn eval(&self, cx: &EvalCx, inputs: &Inputs) -> Result<Vec<Tensor>> {
        let x = input(inputs, 0)?;
        let (n, width) = rows(x.dims(), 1)?;
        let dims = if x.rank() < 2 { vec![self.columns] } else { vec![n, self.columns] };
        let items = self.items(x)?;
        let total = element_count(&dims)?;
        let mut counts = reserved(total)?;
        counts.resize(total, 0u64);
        if self.columns > 0 && width > 0 {
            for (row, counts) in items.chunks(width).zip(counts.chunks_mut(self.columns)) {
                self.count(row, counts);
            }
        }
        with_num!(cx.arith, DType::F32, T => {
            let weight = |i: usize| self.weights.as_ref().map(|w| T::of(f64::from(w[i % self.columns])));
            let y = counts.iter().enumerate().map(|(i, &n)| match (self.mode, weight(i)) {
                (Mode::Tf, _) | (Mode::TfIdf, None) => T::of(n as f64),
                (Mode::Idf, w) => if n > 0 { w.unwrap_or(T::of(1.0)) } else { T::zero() },
                (Mode::TfIdf, Some(w)) => T::of(n as f64) * w,
            });
            Ok(vec![T::store(y.collect(), &dims)?])
        })
    }
    fn held(&self) -> Held {
        Held::floats(0, self.weights.as_ref().map_or(0, Vec::len))
    }
}

fn cases() -> Vec<Case> {
    let list = |v: &[i64]| Attr::Ints(v.to_vec());
    let make = |mode: &str, sizes: (i64, i64), skip: i64, weights: bool, x: Tensor| {
        let mut attrs = vec![
            ("mode", Attr::Str(mode.into())),
            ("min_gram_length", Attr::Int(sizes.0)),
            ("max_gram_length", Attr::Int(sizes.1)),
            ("max_skip_count", Attr::Int(skip)),
            ("ngram_counts", list(&[0, 4])),
            ("ngram_indexes", list(&[0, 1, 2, 3, 4, 5, 6])),
            ("pool_int64s", list(&[2, 3, 5, 4, 5, 6, 7, 8, 6, 7])),
        ];
        if weights {
            attrs.push(("weights", Attr::Floats(vec![1.5; 7])));
        }
        Case::new("TfIdfVectorizer", &attrs, vec![x])
    };
    let x = || Tensor::from_vec(vec![1i64, 1, 3, 3, 3, 7, 8, 6, 7, 5, 6, 8], &[2, 6]).unwrap_or_else(|_| sample::ints(&[]));
    let strings = Tensor::from_strings(["a", "b", "a", "c"].map(String::from).to_vec(), &[4]);
    let mut all = vec![
        make("TF", (1, 2), 0, false, x()),
        make("TFIDF", (2, 2), 5, true, x()),
        make("IDF", (1, 2), 5, true, x()),
        make("TFIDF", (1, 1), 0, false, sample::ints(&[7, 8, 6])),
    ];
    all.extend(strings.map(|x| {
        let mut case = make("IDF", (1, 2), 1, false, x);
        case.node.attrs.remove("pool_int64s");
        let pool = ["a", "b", "c", "d", "a", "b", "a", "a", "b", "c"].map(String::from).to_vec();
        case.node.attrs.insert("pool_strings".into(), Attr::Strs(pool));
        case
    }));
    all
}
