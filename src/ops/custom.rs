//! Cost rules that users give for operators this build does not know: formulas over the sizes of inputs and outputs.
//!
//! Sizes have names. `inputs = ["n ic ih iw", "oc _ kh kw"]` and `outputs = ["n oc oh ow"]` name them by position (`_` names nothing);
//! without such patterns the usual names hold: `n ic ih iw` for a first input of rank 4 (`n ic iw` of rank 3, `n ic id ih iw` of rank 5,
//! `m k` of rank 2), `n oc oh ow` for the first output, and `kh kw` for the last dims of a second input of rank 4. Always there are
//! `in[1]` and `out[0]` (element counts), `in[1][2]` and `out[0][3]` (single sizes) and integer attributes as `attr.group`.

use crate::cost::Work;
use crate::error::{Error, Result};
use crate::formula::Formula;
use crate::tensor::{Dim, Fact, Shape};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// A user's rule for one operator.
#[derive(Debug, Clone, Default)]
pub struct Rule {
    /// Multiply-adds.
    pub madds: Option<Formula>,
    /// Other floating-point operations; none if not given.
    pub other_flops: Option<Formula>,
    /// Names of input sizes, by input and axis.
    pub inputs: Vec<Vec<String>>,
    /// Names of output sizes, by output and axis.
    pub outputs: Vec<Vec<String>>,
    /// Output sizes as formulas over the inputs, where the file does not declare them.
    pub shapes: Vec<Vec<Formula>>,
}

/// Rules by domain and operator name.
#[derive(Debug, Clone, Default)]
pub struct Rules(pub HashMap<(String, String), Arc<Rule>>);

impl Rules {
    /// The rule for an operator.
    pub fn get(&self, domain: &str, name: &str) -> Option<Arc<Rule>> {
        let domain = if domain == "ai.onnx" { "" } else { domain };
        self.0.get(&(domain.to_string(), name.to_string())).cloned()
    }
}

/// The names of sizes by default, for input or output number `i` of a rank.
fn usual(i: usize, rank: usize, output: bool) -> Vec<String> {
    let side = if output { 'o' } else { 'i' };
    let with = |axes: &[&str]| {
        let own = axes.iter().map(|a| format!("{side}{a}"));
        ["n".to_string(), format!("{side}c")].into_iter().chain(own).collect()
    };
    match (i, rank, output) {
        (0, 3, _) => with(&["w"]),
        (0, 4, _) => with(&["h", "w"]),
        (0, 5, _) => with(&["d", "h", "w"]),
        (0, 2, false) => vec!["m".into(), "k".into()],
        (0, 2, true) => vec!["m".into(), "n".into()],
        (1, 3, false) => vec!["_".into(), "_".into(), "kw".into()],
        (1, 4, false) => vec!["_".into(), "_".into(), "kh".into(), "kw".into()],
        (1, 5, false) => vec!["_".into(), "_".into(), "kd".into(), "kh".into(), "kw".into()],
        _ => Vec::new(),
    }
}

/// Sizes by name, as far as they are known; a name that exists but has no size yet holds `None`.
type Sizes = BTreeMap<String, Option<i128>>;

impl Rule {
    fn sizes(
        &self,
        inputs: &[Option<&Fact>],
        outputs: &[Option<&Fact>],
        attributes: &BTreeMap<String, i64>,
    ) -> Result<Sizes> {
        let mut sizes = Sizes::new();
        for (name, value) in attributes {
            sizes.insert(format!("attr.{name}"), Some(i128::from(*value)));
        }
        let sides = [(inputs, &self.inputs, "in", false), (outputs, &self.outputs, "out", true)];
        for (facts, patterns, word, is_output) in sides {
            for (i, fact) in facts.iter().enumerate() {
                let dims: Option<&[Dim]> = fact.and_then(|f| f.shape.dims());
                let elements = fact.and_then(|f| f.elements()).map(|n| n as i128);
                sizes.insert(format!("{word}[{i}]"), elements);
                for (axis, d) in dims.into_iter().flatten().enumerate() {
                    sizes.insert(format!("{word}[{i}][{axis}]"), d.map(|n| n as i128));
                }
                let given = patterns.get(i).cloned();
                let names = given.clone().unwrap_or_else(|| usual(i, dims.map_or(0, <[Dim]>::len), is_output));
                if let (Some(names), Some(dims)) = (&given, dims)
                    && names.len() != dims.len()
                {
                    let what = if is_output { "output" } else { "input" };
                    return Err(Error::input(format!(
                        "the rule names {} sizes of {what} {i} ({}), which has {}",
                        names.len(),
                        names.join(" "),
                        dims.len()
                    )));
                }
                for (axis, name) in names.into_iter().enumerate().filter(|(_, n)| n != "_") {
                    let size = dims.and_then(|d| d.get(axis).copied().flatten()).map(|n| n as i128);
                    let old = sizes.insert(name.clone(), size).flatten();
                    match (old, size) {
                        (Some(a), Some(b)) if a != b && given.is_some() => {
                            return Err(Error::input(format!("the rule's size '{name}' is {a} and {b}")));
                        }
                        // Of the usual names the first occurrence holds.
                        (Some(a), _) => drop(sizes.insert(name, Some(a))),
                        _ => {}
                    }
                }
            }
        }
        Ok(sizes)
    }

    fn value(&self, formula: &Formula, sizes: &Sizes) -> Result<Option<u64>> {
        if let Some(name) = formula.names().into_iter().find(|n| !sizes.contains_key(*n)) {
            let known: Vec<&str> = sizes.keys().map(String::as_str).collect();
            return Err(Error::input(format!(
                "the rule's formula '{formula}' uses '{name}', which names nothing here"
            ))
            .hint(format!("names here: {}", known.join(", "))));
        }
        let value = formula.value(&|name| sizes.get(name).copied().flatten())?;
        value
            .map(|v| {
                u64::try_from(v)
                    .map_err(|_| Error::input(format!("the rule's formula '{formula}' gives {v}, which is no count")))
            })
            .transpose()
    }

    /// What a node costs; `None` where a size is not known.
    ///
    /// # Errors
    /// If a formula uses a name that does not exist, or gives no count.
    pub fn work(
        &self,
        inputs: &[Option<&Fact>],
        outputs: &[Option<&Fact>],
        attributes: &BTreeMap<String, i64>,
    ) -> Result<Option<Work>> {
        let sizes = self.sizes(inputs, outputs, attributes)?;
        let of = |f: &Option<Formula>| f.as_ref().map_or(Ok(Some(0)), |f| self.value(f, &sizes));
        Ok(of(&self.madds)?.zip(of(&self.other_flops)?).map(|(madds, other)| Work::madds(madds).and_other(other)))
    }

    /// The shapes of the outputs that the rule gives.
    ///
    /// # Errors
    /// As [`Rule::work`].
    pub fn output_shapes(&self, inputs: &[Option<&Fact>], attributes: &BTreeMap<String, i64>) -> Result<Vec<Shape>> {
        let sizes = self.sizes(inputs, &[], attributes)?;
        let dim = |f: &Formula| -> Result<Dim> {
            self.value(f, &sizes)?
                .map(|n| usize::try_from(n).map_err(|_| Error::input("a size is too large")))
                .transpose()
        };
        self.shapes.iter().map(|dims| Ok(Shape::partial(dims.iter().map(dim).collect::<Result<_>>()?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DType;

    fn facts(dims: &[&[usize]]) -> Vec<Fact> {
        dims.iter().map(|d| Fact::of(DType::F32, d)).collect()
    }

    fn work(rule: &Rule, inputs: &[&[usize]], outputs: &[&[usize]]) -> Result<Option<Work>> {
        let (i, o) = (facts(inputs), facts(outputs));
        let (i, o): (Vec<_>, Vec<_>) = (i.iter().map(Some).collect(), o.iter().map(Some).collect());
        rule.work(&i, &o, &BTreeMap::from([("group".to_string(), 2)]))
    }

    #[test]
    fn usual_names_and_given_names_mean_the_same_sizes() {
        let usual = Rule { madds: Formula::parse("n*oc*oh*ow*ic*kh*kw/attr.group").ok(), ..Rule::default() };
        let shapes: (&[&[usize]], &[&[usize]]) = (&[&[1, 8, 16, 16], &[4, 4, 3, 3]], &[&[1, 4, 14, 14]]);
        let want = Some(Work::madds(4 * 14 * 14 * 8 * 9 / 2));
        assert_eq!(work(&usual, shapes.0, shapes.1).unwrap(), want);
        let words = |list: &[&str]| list.iter().map(|s| s.split(' ').map(str::to_string).collect()).collect();
        let given = Rule {
            madds: Formula::parse("out[0]*c*r*s/attr.group").ok(),
            inputs: words(&["b c y x", "_ _ r s"]),
            ..Rule::default()
        };
        assert_eq!(work(&given, shapes.0, shapes.1).unwrap(), want);
        let twice = Rule { inputs: words(&["b b y x"]), ..given };
        assert!(work(&twice, shapes.0, shapes.1).unwrap_err().to_string().contains("'b' is 1 and 8"));
    }

    #[test]
    fn a_name_that_does_not_exist_is_an_error_and_a_size_that_is_not_known_is_unknown() {
        let rule = Rule { madds: Formula::parse("n*nonsense").ok(), ..Rule::default() };
        assert!(work(&rule, &[&[1, 2, 3, 4]], &[]).unwrap_err().to_string().contains("'nonsense'"));
        let rule = Rule { madds: Formula::parse("n*ic").ok(), ..Rule::default() };
        let fact = Fact { shape: Shape::partial(vec![None, Some(3), Some(4), Some(4)]), ..Fact::of(DType::F32, &[]) };
        assert_eq!(rule.work(&[Some(&fact)], &[], &BTreeMap::new()).unwrap(), None);
    }
}
