//! One row of a definition as a block sees it: its fields, with `$name` resolved and widths scaled.

use super::net::Act;
use crate::error::{Error, Result};
use serde_json::{Map, Value as Json};

/// How a family scales its channels.
#[derive(Debug, Clone, Copy)]
pub struct Width {
    /// The width multiplier.
    pub by: f64,
    /// Channels are multiples of this.
    pub round: usize,
}

impl Width {
    /// `channels` scaled and rounded.
    pub fn of(self, channels: usize) -> usize {
        rounded(channels as f64 * self.by, self.round)
    }
}

/// The multiple of `step` nearest to `value`, at least `step`, and never below nine tenths of `value`.
pub fn rounded(value: f64, step: usize) -> usize {
    let step_f = step as f64;
    let nearest = ((value + step_f / 2.0) / step_f).floor() * step_f;
    let r = nearest.max(step_f);
    // In range: definitions bound channels and widths far below 2^53.
    (if r < 0.9 * value { r + step_f } else { r }) as usize
}

/// A row: fields of the definition, falling back to the family's defaults.
#[derive(Debug)]
pub struct Row<'a> {
    /// The row's own fields.
    pub fields: &'a Map<String, Json>,
    /// The family's defaults.
    pub defaults: &'a Map<String, Json>,
    /// What `$name` stands for.
    pub vars: &'a Map<String, Json>,
    /// How channels scale.
    pub width: Width,
    /// The module path of this instance.
    pub path: String,
    /// Which repetition this is, from 0.
    pub index: usize,
}

impl Row<'_> {
    /// A field's value, if the row or the family gives one.
    pub fn get(&self, field: &str) -> Option<&Json> {
        let found = self.fields.get(field).or_else(|| self.defaults.get(field))?;
        resolve(found, self.vars)
    }

    fn wrong(&self, field: &str, want: &str) -> Error {
        let block = self.fields.get("block").and_then(Json::as_str).unwrap_or("?");
        Error::input(format!("the zoo row '{}' ({block}) needs '{field}' as {want}", self.path))
    }

    /// A size, if given.
    pub fn opt_size(&self, field: &str) -> Result<Option<usize>> {
        match self.get(field) {
            None => Ok(None),
            Some(v) => v.as_u64().map(|v| Some(v as usize)).ok_or_else(|| self.wrong(field, "a size")),
        }
    }
    /// A size.
    pub fn size(&self, field: &str) -> Result<usize> {
        self.opt_size(field)?.ok_or_else(|| self.wrong(field, "a size"))
    }
    /// A size with a default.
    pub fn size_or(&self, field: &str, default: usize) -> Result<usize> {
        Ok(self.opt_size(field)?.unwrap_or(default))
    }
    /// A number.
    pub fn number(&self, field: &str) -> Result<f64> {
        self.get(field).and_then(Json::as_f64).ok_or_else(|| self.wrong(field, "a number"))
    }
    /// Whether a field is set and true.
    pub fn flag(&self, field: &str) -> Result<bool> {
        match self.get(field) {
            None => Ok(false),
            Some(v) => v.as_bool().ok_or_else(|| self.wrong(field, "true or false")),
        }
    }
    /// A flag that holds unless the row says otherwise.
    pub fn flag_or(&self, field: &str, default: bool) -> Result<bool> {
        if self.get(field).is_some() { self.flag(field) } else { Ok(default) }
    }
    /// A word, if given.
    pub fn opt_text(&self, field: &str) -> Result<Option<&str>> {
        match self.get(field) {
            None => Ok(None),
            Some(v) => v.as_str().map(Some).ok_or_else(|| self.wrong(field, "a word")),
        }
    }
    /// A word with a default.
    pub fn text_or<'b>(&'b self, field: &str, default: &'b str) -> Result<&'b str> {
        Ok(self.opt_text(field)?.unwrap_or(default))
    }
    /// A channel count, scaled by the network's width. `"scale": "none"` leaves it alone, `"up"` never makes it smaller.
    pub fn channels(&self, field: &str) -> Result<usize> {
        let c = self.size(field)?;
        Ok(match self.text_or("scale", "")? {
            "none" => c,
            "up" => Width { by: self.width.by.max(1.0), ..self.width }.of(c),
            _ => self.width.of(c),
        })
    }
    /// The stride: `s` for the first repetition, 1 for the others.
    pub fn stride(&self) -> Result<usize> {
        if self.index == 0 { self.size_or("s", 1) } else { Ok(1) }
    }
    /// The activation, `relu` unless given.
    pub fn act(&self) -> Result<Act> {
        Act::named(self.text_or("act", "relu")?)
    }
    /// The path of a module inside this block.
    pub fn at(&self, part: &str) -> String {
        format!("{}.{part}", self.path)
    }
}

/// A field's value with `$name` and `$name.2` looked up; `None` when the name stands for nothing (or for null).
pub fn resolve<'a>(field: &'a Json, vars: &'a Map<String, Json>) -> Option<&'a Json> {
    let value = match field.as_str().and_then(|s| s.strip_prefix('$')) {
        None => field,
        Some(reference) => match reference.split_once('.') {
            None => vars.get(reference)?,
            Some((name, i)) => vars.get(name)?.get(i.parse::<usize>().ok()?)?,
        },
    };
    (!value.is_null()).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths_round_to_multiples_and_never_lose_a_tenth() {
        let at = |by, c| Width { by, round: 8 }.of(c);
        assert_eq!((at(0.5, 24), at(0.35, 32), at(0.35, 16), at(1.4, 32)), (16, 16, 8, 48));
        assert_eq!((at(0.75, 24), at(0.1, 16), at(1.0, 1280)), (24, 8, 1280));
        assert_eq!(Width { by: 0.5, round: 4 }.of(24), 12);
    }
}
