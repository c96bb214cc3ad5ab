//! The one error type: what went wrong, where (file, node, operator, attribute), and what to do about it.
//!
//! Every fallible function of the crate returns [`Result`]. Context is added where it is known: an operator knows its
//! attribute, the builder its node, the reader its file.

use std::fmt;
use std::path::{Path, PathBuf};

/// The crate's result type.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of failure it is; decides how a caller may react, never the wording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A wrong flag, name or value on the command line.
    Usage,
    /// A file that cannot be read, or is not what it claims to be.
    Input,
    /// A well-formed request that this build does not implement.
    Unsupported,
    /// A failure while a model runs (an index out of range in its data, say).
    Run,
}

#[derive(Debug, Clone)]
struct Inner {
    kind: Kind,
    message: String,
    file: Option<PathBuf>,
    node: Option<String>,
    op: Option<String>,
    attribute: Option<String>,
    hint: Option<String>,
}

/// An error with its place and a hint. One pointer wide, so `Result` stays small.
#[derive(Clone)]
pub struct Error(Box<Inner>);

impl Error {
    fn new(kind: Kind, message: impl Into<String>) -> Self {
        Error(Box::new(Inner {
            kind,
            message: message.into(),
            file: None,
            node: None,
            op: None,
            attribute: None,
            hint: None,
        }))
    }
    /// A wrong flag, name or value given by the user.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }
    /// A file or model that is malformed or unreadable.
    pub fn input(message: impl Into<String>) -> Self {
        Self::new(Kind::Input, message)
    }
    /// Something valid that this build cannot do.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(Kind::Unsupported, message)
    }
    /// A failure while a model runs.
    pub fn run(message: impl Into<String>) -> Self {
        Self::new(Kind::Run, message)
    }
    /// Adds the file, unless one is already named (the innermost place wins).
    #[must_use]
    pub fn in_file(mut self, file: &Path) -> Self {
        self.0.file.get_or_insert_with(|| file.to_path_buf());
        self
    }
    /// Adds the node's name and operator, unless already named.
    #[must_use]
    pub fn at_node(mut self, node: &str, op: &str) -> Self {
        self.0.node.get_or_insert_with(|| node.to_string());
        self.0.op.get_or_insert_with(|| op.to_string());
        self
    }
    /// Adds the attribute's name, unless already named.
    #[must_use]
    pub fn at_attribute(mut self, attribute: &str) -> Self {
        self.0.attribute.get_or_insert_with(|| attribute.to_string());
        self
    }
    /// Adds what the user can do about it, unless a hint is there.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint.get_or_insert_with(|| hint.into());
        self
    }
    /// The kind of failure.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }
    /// The bare message, without place and hint.
    pub fn message(&self) -> &str {
        &self.0.message
    }
    /// What the user can do about it.
    pub fn hint_text(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let e = &*self.0;
        if let Some(file) = &e.file {
            write!(f, "{}: ", printable(&file.display().to_string()))?;
        }
        match (&e.node, &e.op) {
            (Some(node), Some(op)) => write!(f, "node '{}' ({}): ", printable(node), printable(op))?,
            (Some(node), None) => write!(f, "node '{}': ", printable(node))?,
            (None, Some(op)) => write!(f, "{}: ", printable(op))?,
            (None, None) => {}
        }
        if let Some(attribute) = &e.attribute {
            write!(f, "attribute '{}': ", printable(attribute))?;
        }
        write!(f, "{}", printable(&e.message))?;
        if let Some(hint) = &e.hint {
            write!(f, "\n  hint: {hint}")?;
        }
        Ok(())
    }
}

/// Names come from files we do not trust: control characters are shown escaped and very long names are cut.
pub fn printable(text: &str) -> String {
    const LONGEST: usize = 400;
    let mut out: String = text
        .chars()
        .take(LONGEST)
        .flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] })
        .collect();
    if text.chars().nth(LONGEST).is_some() {
        out.push('…');
    }
    out
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_place_wins_and_the_text_reads_outside_in() {
        let e = Error::input("must be positive")
            .at_attribute("strides")
            .at_node("conv1", "Conv")
            .at_node("outer", "If")
            .in_file(Path::new("a.onnx"))
            .hint("re-export the model");
        assert_eq!(
            e.to_string(),
            "a.onnx: node 'conv1' (Conv): attribute 'strides': must be positive\n  hint: re-export the model"
        );
    }

    #[test]
    fn control_characters_from_files_do_not_reach_the_terminal() {
        let e = Error::input("bad").at_node("a\u{1b}[31m", "Conv");
        assert!(!e.to_string().contains('\u{1b}'));
    }
}
