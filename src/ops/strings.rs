//! StringConcat, StringNormalizer, StringSplit, RegexFullMatch.
//!
//! <https://onnx.ai/onnx/operators/onnx__StringConcat.html>, <https://onnx.ai/onnx/operators/onnx__StringNormalizer.html>,
//! <https://onnx.ai/onnx/operators/onnx__StringSplit.html>, <https://onnx.ai/onnx/operators/onnx__RegexFullMatch.html>.
//!
//! Cost: none; text is no arithmetic. Case follows Unicode in every locale. Patterns are matched in linear time; of RE2's syntax only
//! Unicode classes (`\p{…}`) are missing.

use super::dims::{broadcast, broadcast_dims, walk};
use super::elements::reserved;
use super::spec::{Attr, NodeSpec};
use super::{Case, Charge, CostCx, Entry, EvalCx, Family, Infer, Inputs, Op, Role, input, sample};
use crate::error::{Error, Result};
use crate::tensor::{DType, Dim, Fact, Shape, Tensor, element_count};
use regex_lite::Regex;
use std::collections::HashSet;

const fn entry(name: &'static str) -> Entry {
    Entry { domain: "", name, parse: Strings::parse, cases }
}

/// The family's table rows.
pub const ENTRIES: &[Entry] =
    &[entry("RegexFullMatch"), entry("StringConcat"), entry("StringNormalizer"), entry("StringSplit")];

/// An operator on text.
#[derive(Debug, Clone)]
pub enum Strings {
    /// Pairs of broadcast strings put together.
    Concat,
    /// Whether a whole string matches.
    Match(Regex),
    /// Words without stop words, in one case.
    Normalize {
        /// What becomes of the case.
        case: Letters,
        /// Stop words match in their own case only.
        sensitive: bool,
        /// Words that are left out (in lower case, unless case matters).
        stopwords: HashSet<String>,
    },
    /// Parts of strings.
    Split {
        /// What stands between parts; blanks if not given.
        delimiter: Option<String>,
        /// Most cuts per string.
        most: Option<usize>,
    },
}

/// What becomes of letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Letters {
    /// They stay.
    Keep,
    /// Small.
    Lower,
    /// Capital.
    Upper,
}

impl Strings {
    fn parse(node: &NodeSpec) -> Result<Op> {
        let (inputs, op) = match node.op_type.as_str() {
            "StringConcat" => (2, Strings::Concat),
            "RegexFullMatch" => {
                let pattern = node.opt_str("pattern")?.unwrap_or_default();
                let bad = |e: regex_lite::Error| Error::input(format!("is no regular expression: {e}")).at_attribute("pattern");
                // By itself first, so that the frame cannot complete it. A comment may hide the frame's end.
                Regex::new(pattern).map_err(bad)?;
                let framed = Regex::new(&format!("^(?:{pattern})$")).or_else(|_| Regex::new(&format!("^(?:{pattern}\n)$")));
                (1, Strings::Match(framed.map_err(bad)?))
            }
            "StringNormalizer" => {
                let case = match node.str("case_change_action", "NONE")? {
                    "NONE" => Letters::Keep,
                    "LOWER" => Letters::Lower,
                    "UPPER" => Letters::Upper,
                    other => {
                        return Err(Error::input(format!("'{other}' is not an action")).at_attribute("case_change_action"));
                    }
                };
                let sensitive = node.flag("is_case_sensitive", false)?;
                let words = node.opt_strs("stopwords")?.unwrap_or_default();
                let stopwords = words.into_iter().map(|w| if sensitive { w } else { w.to_lowercase() }).collect();
                (1, Strings::Normalize { case, sensitive, stopwords })
            }
            "StringSplit" => {
                let delimiter = node.opt_str("delimiter")?.filter(|d| !d.is_empty()).map(String::from);
                (1, Strings::Split { delimiter, most: node.opt_int("maxsplit")?.and_then(|n| usize::try_from(n).ok()) })
            }
            other => return Err(Error::unsupported(format!("{other} is not an operator on text"))),
        };
        node.expect_inputs(inputs, inputs)?;
        Ok(Op::Strings(op))
    }
}

/// The parts of a text, as Python's `str.split` gives them.
fn parts<'a>(text: &'a str, delimiter: Option<&str>, most: Option<usize>) -> Vec<&'a str> {
    let most = most.unwrap_or(usize::MAX);
    if let Some(d) = delimiter {
        return text.splitn(most.saturating_add(1), d).collect();
    }
    let mut out = Vec::new();
    let mut left = text.trim_start();
    while !left.is_empty() {
        let end = if out.len() < most { left.find(char::is_whitespace) } else { None };
        let (part, rest) = left.split_at(end.unwrap_or(left.len()));
        out.push(part);
        left = rest.trim_start();
    }
    out
}

/// Where the words of a StringNormalizer lie: `[C]` or `[1, C]`.
fn words_axis<D: Copy + PartialEq>(dims: &[D], one: D) -> Result<usize> {
    match dims {
        [_] => Ok(0),
        [first, _] if *first == one => Ok(1),
        _ => Err(Error::input("words must be [C] or [1, C]")),
    }
}

impl Family for Strings {
    fn infer(&self, cx: &Infer) -> Result<Vec<Fact>> {
        let x = cx.fact(0)?;
        if let Some(d) = x.dtype.filter(|d| *d != DType::Str) {
            return Err(Error::input(format!("a {d} tensor where strings are needed")));
        }
        Ok(match self {
            Strings::Concat => vec![x.with_shape(broadcast(&[&x.shape, cx.shape(1)?])?)],
            Strings::Match(_) => vec![x.with_dtype(DType::Bool)],
            Strings::Normalize { stopwords, .. } => {
                let Some(dims) = x.shape.dims() else { return Ok(vec![x.clone()]) };
                let known: Vec<Dim> = dims.iter().map(|d| d.or(Some(1))).collect();
                let at = words_axis(&known, Some(1))?;
                let mut dims = dims.to_vec();
                dims[at] = dims[at].filter(|_| stopwords.is_empty());
                vec![x.with_shape(Shape::partial(dims))]
            }
            Strings::Split { .. } => {
                let longer = x.shape.dims().map(|d| Shape::partial(d.iter().copied().chain([None]).collect()));
                vec![x.with_shape(longer.unwrap_or(Shape::UNKNOWN)), x.with_dtype(DType::I64)]
            }
        })
    }
    fn charge(&self, _cx: &CostCx) -> Charge {
        Charge::FREE
    }
    fn eval(&self, _cx: &EvalCx, inputs: &Inputs) -> Result<Vec<Tensor>> {
        let x = input(inputs, 0)?;
        let text = x.strings()?;
        Ok(match self {
            Strings::Concat => {
                let other = input(inputs, 1)?;
                let (b, dims) = (other.strings()?, broadcast_dims(&[x.dims(), other.dims()])?);
                let mut y = reserved(element_count(&dims)?)?;
                walk(&dims, [x.dims(), other.dims()], |[i, j]| y.push(format!("{}{}", text[i], b[j])));
                vec![Tensor::from_strings(y, &dims)?]
            }
            Strings::Match(regex) => vec![Tensor::from_bools(text.iter().map(|s| regex.is_match(s)), x.dims())?],
            Strings::Normalize { case, sensitive, stopwords } => {
                let at = words_axis(x.dims(), 1)?;
                let stays = |w: &&String| {
                    stopwords.is_empty() || !stopwords.contains(if *sensitive { (*w).clone() } else { w.to_lowercase() }.as_str())
                };
                let cased = |w: &String| match case {
                    Letters::Keep => w.clone(),
                    Letters::Lower => w.to_lowercase(),
                    Letters::Upper => w.to_uppercase(),
                };
                let mut words: Vec<String> = text.iter().filter(stays).map(cased).collect();
                if words.is_empty() && !text.is_empty() {
                    words.push(String::new());
                }
                let mut dims = x.dims().to_vec();
                dims[at] = words.len();
                vec![Tensor::from_strings(words, &dims)?]
            }
            Strings::Split { delimiter, most } => {
                let all: Vec<Vec<&str>> = text.iter().map(|s| parts(s, delimiter.as_deref(), *most)).collect();
                let longest = all.iter().map(Vec::len).max().unwrap_or(0);
                let dims: Vec<usize> = x.dims().iter().copied().chain([longest]).collect();
                let mut y = reserved(element_count(&dims)?)?;
                for parts in &all {
                    y.extend(parts.iter().map(ToString::to_string));
                    y.resize(y.len() + longest - parts.len(), String::new());
                }
                let counts: Vec<i64> = all.iter().map(|p| p.len() as i64).collect();
                vec![Tensor::from_strings(y, &dims)?, Tensor::from_vec(counts, x.dims())?]
            }
        })
    }
    fn role(&self, _i: usize) -> Role {
        Role::Setting
    }
}

fn cases() -> Vec<Case> {
    let text = |v: &[&str], dims: &[usize]| {
        Tensor::from_strings(v.iter().map(ToString::to_string).collect(), dims).unwrap_or_else(|_| sample::ints(&[]))
    };
    let str = |name: &'static str, v: &str| (name, Attr::Str(v.into()));
    let days = || text(&["Monday", "tuesday", "Wednesday", "monday"], &[1, 4]);
    let stop = ("stopwords", Attr::Strs(vec!["monday".into()]));
    let split = |attrs: &[(&str, Attr)], v: &[&str]| {
        Case::with_optional("StringSplit", attrs, vec![Some(text(v, &[v.len()]))], 2)
    };
    vec![
        Case::new("StringConcat", &[], vec![text(&["a", "b"], &[2, 1]), text(&["x", "", "日"], &[3])]),
        Case::new("RegexFullMatch", &[str("pattern", "a|b+")], vec![text(&["bb", "ab", ""], &[3])]),
        Case::new("StringNormalizer", &[stop.clone(), str("case_change_action", "UPPER")], vec![days()]),
        Case::new("StringNormalizer", &[stop, ("is_case_sensitive", Attr::Int(1))], vec![days()]),
        Case::new("StringNormalizer", &[str("case_change_action", "LOWER")], vec![text(&["ÄB", "c"], &[2])]),
        split(&[str("delimiter", ",")], &["a,b,,c", "", "d"]),
        split(&[("maxsplit", Attr::Int(1))], &["  a b  c ", "", "d"]),
        split(&[], &[]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_split_as_in_python() {
        assert_eq!(parts("a,,b,c", Some(","), Some(2)), ["a", "", "b,c"]);
        assert_eq!(parts("", Some(","), None), [""]);
        assert_eq!(parts(" a  b c ", None, None), ["a", "b", "c"]);
        assert_eq!(parts(" a  b c ", None, Some(1)), ["a", "b c "]);
        assert_eq!(parts(" a  b c ", None, Some(0)), ["a  b c "]);
        assert!(parts("  ", None, None).is_empty());
    }

    #[test]
    fn a_pattern_must_match_the_whole_text_and_be_whole_itself() {
        let of = |pattern: &str| {
            let attrs = [("pattern", Attr::Str(pattern.into()))];
            let x = ["ab", "a", "xa", "a\n"].map(String::from).to_vec();
            let case = Case::new("RegexFullMatch", &attrs, vec![Tensor::from_strings(x, &[4]).unwrap()]);
            let op = Op::parse(&case.node)?;
            op.eval(&EvalCx::default(), &[case.inputs[0].as_ref()])?[0].to_i64s()
        };
        assert_eq!(of("a|ab").unwrap(), [1, 1, 0, 0]);
        assert_eq!(of("(?x) a b # comment").unwrap(), [1, 0, 0, 0]);
        assert!(of("a)|(b").is_err() && of("(").is_err());
    }
}
