//! Formulas over named integers: `n*oc*oh*ow*ic*kh*kw/g`. Exact, checked, never floating point.
//!
//! Operators by increasing strength: `+ -`, `* / %`, unary `-`, `^`. Division must come out even, so that a formula never rounds in
//! silence; `ceil_div(a, b)` and `floor_div(a, b)` round openly. Further functions: `min`, `max`. Names are letters, digits, `_`, `.`
//! and bracketed numbers (`in[0][2]`); numbers are whole and may hold `_` between digits and an exponent (`2e9`, `1.5e12`).

use crate::error::{Error, Result};
use std::fmt;

/// A parsed formula.
#[derive(Debug, Clone, PartialEq)]
pub struct Formula {
    text: String,
    root: Node,
}

#[derive(Debug, Clone, PartialEq)]
enum Node {
    Number(i128),
    Name(String),
    Negate(Box<Node>),
    Binary(char, Box<Node>, Box<Node>),
    Call(Function, Vec<Node>),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Function {
    Min,
    Max,
    CeilDiv,
    FloorDiv,
}

/// Formulas nest at most this deep.
const DEEPEST: usize = 64;

impl fmt::Display for Formula {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Formula {
    /// Reads a formula.
    ///
    /// # Errors
    /// If it is not one; the message says where.
    pub fn parse(text: &str) -> Result<Formula> {
        let mut p = Parser { text: text.as_bytes(), at: 0 };
        let root = p.sum(0)?;
        match p.peek() {
            None => Ok(Formula { text: text.trim().to_string(), root }),
            Some(c) => Err(p.wrong(&format!("'{}' does not belong here", c as char))),
        }
    }

    /// All names it uses.
    pub fn names(&self) -> Vec<&str> {
        fn walk<'a>(n: &'a Node, into: &mut Vec<&'a str>) {
            match n {
                Node::Number(_) => {}
                Node::Name(s) => into.push(s),
                Node::Negate(a) => walk(a, into),
                Node::Binary(_, a, b) => {
                    walk(a, into);
                    walk(b, into);
                }
                Node::Call(_, all) => all.iter().for_each(|a| walk(a, into)),
            }
        }
        let mut names = Vec::new();
        walk(&self.root, &mut names);
        names
    }

    /// Its value; `None` where a name has no value.
    ///
    /// # Errors
    /// If a division does not come out even or is by zero, or the result does not fit.
    pub fn value(&self, of: &dyn Fn(&str) -> Option<i128>) -> Result<Option<i128>> {
        value(&self.root, of).map_err(|why| Error::input(format!("formula '{}': {why}", self.text)))
    }
}

fn value(n: &Node, of: &dyn Fn(&str) -> Option<i128>) -> std::result::Result<Option<i128>, String> {
    let big = || "the result is too large".to_string();
    Ok(match n {
        Node::Number(v) => Some(*v),
        Node::Name(name) => of(name),
        Node::Negate(a) => value(a, of)?.map(|v| v.checked_neg().ok_or_else(big)).transpose()?,
        Node::Binary(op, a, b) => {
            let (Some(a), Some(b)) = (value(a, of)?, value(b, of)?) else { return Ok(None) };
            let r = match op {
                '+' => a.checked_add(b),
                '-' => a.checked_sub(b),
                '*' => a.checked_mul(b),
                '/' if b == 0 => return Err(format!("{a} / 0")),
                '/' if a % b != 0 => {
                    return Err(format!(
                        "{a} / {b} does not come out even; ceil_div or floor_div say which way to round"
                    ));
                }
                '/' => a.checked_div(b),
                '%' if b == 0 => return Err(format!("{a} % 0")),
                '%' => a.checked_rem_euclid(b),
                _ => u32::try_from(b).ok().and_then(|e| a.checked_pow(e)),
            };
            Some(r.ok_or_else(big)?)
        }
        Node::Call(f, args) => {
            let args: Option<Vec<i128>> = args.iter().map(|a| value(a, of)).collect::<std::result::Result<_, _>>()?;
            let Some(args) = args else { return Ok(None) };
            Some(match (f, &args[..]) {
                (Function::Min, all) => all.iter().copied().min().unwrap_or(0),
                (Function::Max, all) => all.iter().copied().max().unwrap_or(0),
                (_, [a, 0]) => return Err(format!("{a} divided by 0")),
                (Function::FloorDiv, [a, b]) => a.checked_div_euclid(*b).ok_or_else(big)?,
                (Function::CeilDiv, [a, b]) => {
                    let floor = a.checked_div_euclid(*b).ok_or_else(big)?;
                    floor + i128::from(a.rem_euclid(*b) != 0)
                }
                _ => return Err("ceil_div and floor_div take two numbers".into()),
            })
        }
    })
}

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
}

impl Parser<'_> {
    fn wrong(&self, why: &str) -> Error {
        let text = String::from_utf8_lossy(self.text);
        Error::input(format!("formula '{text}': {why} (at character {})", self.at + 1))
            .hint("formulas hold names, numbers, + - * / % ^, parentheses, min, max, ceil_div and floor_div")
    }
    fn peek(&mut self) -> Option<u8> {
        while self.text.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        self.text.get(self.at).copied()
    }
    fn take(&mut self, any: &[u8]) -> Option<u8> {
        let c = self.peek().filter(|c| any.contains(c))?;
        self.at += 1;
        Some(c)
    }
    fn sum(&mut self, depth: usize) -> Result<Node> {
        if depth > DEEPEST {
            return Err(self.wrong("nested too deeply"));
        }
        let mut left = self.product(depth)?;
        while let Some(op) = self.take(b"+-") {
            left = Node::Binary(op as char, Box::new(left), Box::new(self.product(depth)?));
        }
        Ok(left)
    }
    fn product(&mut self, depth: usize) -> Result<Node> {
        let mut left = self.power(depth)?;
        while let Some(op) = self.take(b"*/%") {
            left = Node::Binary(op as char, Box::new(left), Box::new(self.power(depth)?));
        }
        Ok(left)
    }
    fn power(&mut self, depth: usize) -> Result<Node> {
        if depth > DEEPEST {
            return Err(self.wrong("nested too deeply"));
        }
        if self.take(b"-").is_some() {
            return Ok(Node::Negate(Box::new(self.power(depth + 1)?)));
        }
        let base = self.atom(depth)?;
        match self.take(b"^") {
            Some(_) => Ok(Node::Binary('^', Box::new(base), Box::new(self.power(depth + 1)?))),
            None => Ok(base),
        }
    }
    fn atom(&mut self, depth: usize) -> Result<Node> {
        match self.peek() {
            Some(b'(') => {
                self.at += 1;
                let inner = self.sum(depth + 1)?;
                self.take(b")").ok_or_else(|| self.wrong("a ')' is missing"))?;
                Ok(inner)
            }
            Some(c) if c.is_ascii_digit() => self.number(),
            Some(c) if c.is_ascii_alphabetic() || c == b'_' => {
                let name = self.name();
                if self.take(b"(").is_none() {
                    return Ok(Node::Name(name));
                }
                let function = match name.as_str() {
                    "min" => Function::Min,
                    "max" => Function::Max,
                    "ceil_div" => Function::CeilDiv,
                    "floor_div" => Function::FloorDiv,
                    _ => return Err(self.wrong(&format!("there is no function '{name}'"))),
                };
                let mut args = vec![self.sum(depth + 1)?];
                while self.take(b",").is_some() {
                    args.push(self.sum(depth + 1)?);
                }
                self.take(b")").ok_or_else(|| self.wrong("a ')' is missing"))?;
                if matches!(function, Function::CeilDiv | Function::FloorDiv) && args.len() != 2 {
                    return Err(self.wrong(&format!("{name} takes two numbers")));
                }
                Ok(Node::Call(function, args))
            }
            Some(c) => Err(self.wrong(&format!("'{}' where a number or a name is needed", c as char))),
            None => Err(self.wrong("ends where a number or a name is needed")),
        }
    }
    fn number(&mut self) -> Result<Node> {
        let digits = |p: &mut Self| {
            let start = p.at;
            while p.text.get(p.at).is_some_and(|c| c.is_ascii_digit() || *c == b'_') {
                p.at += 1;
            }
            String::from_utf8_lossy(&p.text[start..p.at]).replace('_', "")
        };
        let big = "a number is too large";
        let mut mantissa = digits(self);
        let mut places = 0;
        if self.text.get(self.at) == Some(&b'.') && self.text.get(self.at + 1).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
            let part = digits(self);
            let part = part.trim_end_matches('0');
            places = u32::try_from(part.len()).map_err(|_| self.wrong(big))?;
            mantissa.push_str(part);
        }
        let mantissa: i128 = mantissa.parse().map_err(|_| self.wrong(big))?;
        let exponent = matches!(self.text.get(self.at), Some(b'e' | b'E'))
            && self.text.get(self.at + 1).is_some_and(u8::is_ascii_digit);
        let mut e: u32 = 0;
        if exponent {
            self.at += 1;
            e = digits(self).parse().map_err(|_| self.wrong(big))?;
        }
        // `1.5e12` is whole, `1.5` is not.
        let e = e.checked_sub(places).ok_or_else(|| self.wrong("this number is not whole"))?;
        let value = 10i128.checked_pow(e).and_then(|p| p.checked_mul(mantissa));
        Ok(Node::Number(value.ok_or_else(|| self.wrong(big))?))
    }
    fn name(&mut self) -> String {
        let start = self.at;
        let part = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b'[' | b']');
        while self.text.get(self.at).is_some_and(|&c| part(c)) {
            self.at += 1;
        }
        String::from_utf8_lossy(&self.text[start..self.at]).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Option<i128> {
        let names = |n: &str| match n {
            "n" => Some(2),
            "oc" => Some(64),
            "in[0][2]" => Some(56),
            _ => None,
        };
        Formula::parse(text).unwrap().value(&names).unwrap()
    }

    #[test]
    fn arithmetic_is_exact_and_strong_where_it_should_be() {
        assert_eq!(of("1 + 2 * 3 ^ 2"), Some(19));
        assert_eq!(of("-2 ^ 2 + n"), Some(-2));
        assert_eq!(of("2 ^ 3 ^ 2"), Some(512));
        assert_eq!(of("(10 - 4 - 3) * oc / 4"), Some(48));
        assert_eq!(
            of("ceil_div(in[0][2], 3) + floor_div(in[0][2], 3) + min(n, 1, 7) + max(n, 5)"),
            Some(19 + 18 + 1 + 5)
        );
        assert_eq!(of("2e9 + 1_000"), Some(2_000_001_000));
        assert_eq!(of("n * unknown"), None);
    }

    #[test]
    fn nothing_is_rounded_or_overflows_in_silence() {
        for text in ["7 / 2", "1 / 0", "5 % 0", "10 ^ 40", "ceil_div(1, 0)", "9e30 * 9e30"] {
            assert!(Formula::parse(text).unwrap().value(&|_| None).is_err(), "{text}");
        }
        for text in
            ["", "1 +", "(1", "a b", "f(1)", "ceil_div(1)", "1 $ 2", &"(".repeat(1000), &"-".repeat(1000), "1e999"]
        {
            assert!(Formula::parse(text).is_err(), "{text}");
        }
    }
}
