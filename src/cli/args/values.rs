//! How values of arguments are read.

use crate::report::{FORMATS, VERDICT_FORMATS};

pub(super) fn verdict_parser() -> clap::builder::PossibleValuesParser {
    VERDICT_FORMATS.iter().map(|f| f.name).collect::<Vec<_>>().into()
}

pub(super) fn format_parser() -> clap::builder::PossibleValuesParser {
    FORMATS.iter().map(|f| f.name).collect::<Vec<_>>().into()
}

pub(super) fn parse_positive(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(n) if n > 0 => Ok(n),
        _ => Err("must be a whole number of at least 1".into()),
    }
}

pub(super) fn parse_seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(s) if s.is_finite() && s >= 0.0 => Ok(s),
        _ => Err("must be a number of seconds, 0 or more".into()),
    }
}

pub(super) fn parse_dim(text: &str) -> Result<(String, usize), String> {
    let (name, size) = text.rsplit_once('=').ok_or("must be NAME=N, for example batch=1")?;
    match size.trim().parse::<usize>() {
        Ok(n) if n > 0 && !name.is_empty() => Ok((name.to_string(), n)),
        _ => Err("must be NAME=N with N a whole number of at least 1, for example batch=1".into()),
    }
}

/// Most sizes of a sweep.
const MOST_SIZES: usize = 1000;

pub(super) fn parse_sweep(text: &str) -> Result<(String, Vec<usize>), String> {
    let wrong = "must be NAME=FROM..TO:xFACTOR, NAME=FROM..TO:+STEP or NAME=A,B,C";
    let (name, sizes) = text.split_once('=').filter(|(n, _)| !n.is_empty()).ok_or(wrong)?;
    let number = |t: &str| t.trim().parse::<usize>().ok().filter(|&n| n > 0).ok_or(wrong);
    let Some((from, rest)) = sizes.split_once("..") else {
        let list: Vec<usize> = sizes.split(',').map(number).collect::<Result<_, _>>()?;
        return Ok((name.to_string(), list));
    };
    let (to, step) = rest.split_once(':').unwrap_or((rest, "x2"));
    let (from, to) = (number(from)?, number(to)?);
    let next: Box<dyn Fn(usize) -> Option<usize>> = if let Some(factor) = step.strip_prefix('x') {
        let factor = number(factor)?;
        if factor < 2 {
            return Err("the factor must be at least 2".into());
        }
        Box::new(move |n| n.checked_mul(factor))
    } else {
        let step = number(step.trim_start_matches('+'))?;
        Box::new(move |n| n.checked_add(step))
    };
    let mut list = Vec::new();
    let mut at = Some(from);
    while let Some(n) = at.filter(|&n| n <= to) {
        list.push(n);
        if list.len() > MOST_SIZES {
            return Err(format!("makes more than {MOST_SIZES} sizes"));
        }
        at = next(n);
    }
    if list.is_empty() { Err("holds no size: FROM is larger than TO".into()) } else { Ok((name.to_string(), list)) }
}

pub(super) fn parse_value(text: &str) -> Result<(String, Vec<f64>), String> {
    let wrong = "must be NAME=V with a number, true or false, or numbers separated by commas";
    let (name, list) = text.rsplit_once('=').filter(|(name, _)| !name.is_empty()).ok_or(wrong)?;
    let number = |t: &str| match t.trim() {
        "true" => Some(1.0),
        "false" => Some(0.0),
        t => t.parse::<f64>().ok(),
    };
    let values: Option<Vec<f64>> = list.trim().trim_matches(['[', ']']).split(',').map(number).collect();
    Ok((name.to_string(), values.ok_or(wrong)?))
}

pub(super) fn parse_percent(text: &str) -> Result<f64, String> {
    match text.trim_end_matches(['%', ' ']).parse::<f64>() {
        Ok(p) if (0.0..=100.0).contains(&p) => Ok(p),
        _ => Err("must be a percentage from 0 to 100".into()),
    }
}

pub(super) fn parse_shape(text: &str) -> Result<(String, Vec<usize>), String> {
    let wrong = "must be NAME=SHAPE with sizes of at least 1, for example images=1x3x224x224";
    // Names may hold colons (`x:0`), so `=` decides where there is one; otherwise the spellings of other tools are understood.
    let (name, shape) = text.rsplit_once('=').or_else(|| text.rsplit_once(':')).ok_or(wrong)?;
    let shape = shape.trim().trim_start_matches('[').trim_end_matches(']');
    if name.is_empty() {
        return Err(wrong.into());
    }
    if shape.is_empty() || shape == "scalar" {
        return Ok((name.to_string(), Vec::new()));
    }
    let sizes: Option<Vec<usize>> =
        shape.split(['x', ',', 'X']).map(|n| n.trim().parse().ok().filter(|&n: &usize| n > 0)).collect();
    Ok((name.to_string(), sizes.ok_or(wrong)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_of_other_tools_are_understood() {
        let want = Ok(("x".to_string(), vec![1, 3, 8, 8]));
        for text in ["x=1x3x8x8", "x:1x3x8x8", "x:[1,3,8,8]", "x=1,3,8,8"] {
            assert_eq!(parse_shape(text), want, "{text}");
        }
        assert_eq!(parse_shape("x:0=2x4"), Ok(("x:0".to_string(), vec![2, 4])));
        for text in ["x", "=1x2", "x=0x3", "x=1xa", "x=-1x3"] {
            assert!(parse_shape(text).is_err(), "{text}");
        }
        assert_eq!(parse_dim("batch=4"), Ok(("batch".to_string(), 4)));
        assert!(parse_dim("batch=0").is_err() && parse_dim("batch").is_err() && parse_dim("=3").is_err());
    }
}
