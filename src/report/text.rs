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

/// Breaks a sentence into lines of at most `width` characters, later lines indented. A word that does not fit behind the indentation gets
/// less of it; one that fits on no line is broken, behind a mark where it has one.
pub fn wrap(text: &str, first: &str, later: &str, width: usize) -> String {
    let mut out = String::new();
    let mut line = first.to_string();
    let mut empty = true;
    let mut words: Vec<&str> = text.split_whitespace().rev().collect();
    while let Some(word) = words.pop() {
        let long = word.chars().count();
        let room = |line: &str, empty: bool| width.saturating_sub(line.chars().count() + usize::from(!empty));
        // A label stays alone rather than with the first letters of a word.
        let alone = out.is_empty() && (long <= width || room(&line, empty) < LEAST_PART);
        if long > room(&line, empty) && (!empty || alone) {
            if !line.trim().is_empty() {
                out.push_str(line.trim_end());
                out.push('\n');
            }
            let indent = later.chars().count();
            line = " ".repeat(if long > width { indent } else { indent.min(width - long) });
            empty = true;
        }
        let room = room(&line, empty);
        if long > room && room > 0 {
            let (part, rest) = broken(word, room);
            line.push_str(part);
            words.push(rest);
        } else {
            if !empty {
                line.push(' ');
            }
            line.push_str(word);
        }
        empty = false;
    }
    out.push_str(line.trim_end());
    out.push('\n');
    out
}

/// Fewest letters of a broken word beside a label.
const LEAST_PART: usize = 12;

/// The beginning of a word that fits, up to the last mark in its second half, and what is left of it.
fn broken(word: &str, room: usize) -> (&str, &str) {
    let at = |n: usize| word.char_indices().nth(n).map_or(word.len(), |(i, _)| i);
    let front = &word[..at(room)];
    let mark = front.rfind(['/', '\\', ',', ';', '=', '-', '_']).map(|i| i + 1).filter(|&i| i > front.len() / 2);
    word.split_at(mark.unwrap_or(front.len()))
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
        // A figure beside a long label goes below it, with less indentation where it must, and is never broken.
        assert_eq!(
            wrap("2,468 more", "label  1,234  ", "         ", 16),
            "label  1,234\n         2,468\n         more\n"
        );
        assert_eq!(wrap("1,234,567,890 x", "label  ", "         ", 16), "label\n   1,234,567,890\n         x\n");
        let text = wrap("in some/long/folder/of/models/file.onnx (a file)", "- ", "  ", 16);
        assert_eq!(text, "- in\n  some/long/\n  folder/of/\nmodels/file.onnx\n  (a file)\n");
        assert!(wrap(&"x".repeat(50), "", "  ", 16).lines().all(|l| l.chars().count() <= 16));
    }
}
