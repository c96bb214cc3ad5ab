//! Words for terminals: wrapping, elision, and keeping control characters of hostile names out.

use crate::error::printable;

/// A name shortened to `width` characters: the end says most, so the middle of the front gives way.
pub fn elide(name: &str, width: usize) -> String {
    let name = printable(name);
    let n = name.chars().count();
    if n <= width {
        return name;
    }
    if width == 0 {
        return String::new();
    }
    let head = (width - 1) / 4;
    let tail = width - 1 - head;
    let front: String = name.chars().take(head).collect();
    let back: String = name.chars().skip(n - tail).collect();
    format!("{front}…{back}")
}

/// Breaks a sentence into lines of at most `width` characters, later lines indented.
pub fn wrap(text: &str, first: &str, later: &str, width: usize) -> String {
    let mut out = String::new();
    let mut line = first.to_string();
    let mut empty = true;
    for word in text.split_whitespace() {
        if !empty && line.chars().count() + 1 + word.chars().count() > width {
            out.push_str(line.trim_end());
            out.push('\n');
            line = later.to_string();
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(word);
        empty = false;
    }
    out.push_str(line.trim_end());
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_name_survives() {
        assert_eq!(elide("features.12.conv.0", 30), "features.12.conv.0");
        assert_eq!(elide("features.12.conv.0", 13), "fea…12.conv.0");
        assert_eq!(elide("a\u{1b}[2Jb", 20), "a\\u{1b}[2Jb");
        assert_eq!(elide("abc", 0), "");
        assert_eq!(elide("abc", 1), "…");
    }

    #[test]
    fn wrapped_lines_fit() {
        let text = wrap("one two three four", "- ", "  ", 9);
        assert_eq!(text, "- one two\n  three\n  four\n");
    }
}
