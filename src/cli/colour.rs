//! Whether to use colour: the conventions people set in their environment, in the order in which they beat each other.

use std::io::IsTerminal;

/// Whether what goes to a stream may have colours, by the environment and by whether the stream is a terminal.
fn wanted(env: &dyn Fn(&str) -> Option<String>, is_terminal: bool) -> bool {
    let set = |name: &str| env(name).filter(|v| !v.is_empty());
    // FORCE_COLOR=0 is how some programs say no.
    if let Some(v) = set("FORCE_COLOR").or_else(|| set("CLICOLOR_FORCE")) {
        return v != "0" && v != "false";
    }
    if set("NO_COLOR").is_some() || set("CLICOLOR").is_some_and(|v| v == "0") {
        return false;
    }
    is_terminal && set("TERM").is_none_or(|t| t != "dumb")
}

fn env(name: &str) -> Option<String> {
    std::env::var_os(name).map(|v| v.to_string_lossy().into_owned())
}

/// For stdout.
pub fn on_stdout() -> bool {
    wanted(&env, std::io::stdout().is_terminal())
}

/// For stderr.
pub fn on_stderr() -> bool {
    wanted(&env, std::io::stderr().is_terminal())
}

/// `error:`, `hint:` and `note:` at the beginning of lines, in colour if that is wanted on stderr.
pub fn marked(text: &str) -> String {
    if !on_stderr() {
        return text.to_string();
    }
    let line = |l: &str| {
        for (word, code) in [("error:", "1;31"), ("hint:", "1;32"), ("note:", "1;36")] {
            let rest = l.trim_start();
            if let Some(rest) = rest.strip_prefix(word) {
                let indent = &l[..l.len() - word.len() - rest.len()];
                return format!("{indent}\u{1b}[{code}m{word}\u{1b}[0m{rest}");
            }
        }
        l.to_string()
    };
    text.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

/// A table with colour where it informs: what is not known, what is above its ceiling and what changed for the worse stand out, what
/// stands elsewhere steps back.
pub fn table(text: &str) -> String {
    let word = |w: &str| -> Option<&'static str> {
        let is_number = |t: &str| !t.is_empty() && t.chars().all(|c| c.is_ascii_digit() || c == '.');
        match w {
            "unknown" | "\u{2265}" => Some("33"),
            "fused" => Some("2"),
            w if w.strip_suffix('!').is_some_and(is_number) => Some("33"),
            w if w.len() > 3 && w.chars().all(|c| c == '-') => Some("2"),
            _ => None,
        }
    };
    let mut out = String::with_capacity(text.len() + text.len() / 8);
    for part in text.split_inclusive([' ', '\n']) {
        let bare = part.trim_end_matches([' ', '\n']);
        match word(bare) {
            Some(code) => out.push_str(&format!("\u{1b}[{code}m{bare}\u{1b}[0m{}", &part[bare.len()..])),
            None => out.push_str(part),
        }
    }
    out
}

/// What `check` says, with its verdicts in colour: breaches stand out, what holds steps back.
pub fn verdict(text: &str) -> String {
    let line = |l: &str| {
        for (word, code) in [("BREACH", "1;31"), ("warning", "33"), ("cannot tell", "33"), ("pass", "2")] {
            if let Some(rest) = l.strip_prefix(word).filter(|r| r.starts_with(' ')) {
                return format!("\u{1b}[{code}m{word}\u{1b}[0m{rest}");
            }
        }
        l.to_string()
    };
    text.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_coloured_where_it_informs_and_nowhere_else() {
        let text = "Layer  ms\n---------\na   fused\nb  110.2!  unknown\nc  1.5  well-known\n";
        let coloured = table(text);
        assert_eq!(coloured.matches("\u{1b}[0m").count(), 4, "{coloured:?}");
        let plain = ["\u{1b}[33m", "\u{1b}[2m", "\u{1b}[0m"].iter().fold(coloured, |t, c| t.replace(c, ""));
        assert_eq!(plain, text);
        assert_eq!(table(""), "");
    }

    #[test]
    fn verdicts_are_coloured_at_the_beginning_of_their_lines() {
        let text = "a.toml: 1 breach\n\nBREACH      pass\n   note   warning x\npass        a\npassed      b\n";
        assert_eq!(
            verdict(text),
            text.replace("BREACH ", "\u{1b}[1;31mBREACH\u{1b}[0m ").replace("\npass ", "\n\u{1b}[2mpass\u{1b}[0m ")
        );
    }

    #[test]
    fn the_environment_decides_before_the_terminal() {
        let say = |vars: &[(&str, &str)], terminal: bool| {
            wanted(&|name| vars.iter().find(|v| v.0 == name).map(|v| v.1.to_string()), terminal)
        };
        assert!(say(&[], true) && !say(&[], false));
        assert!(!say(&[("NO_COLOR", "1")], true) && say(&[("NO_COLOR", "")], true), "empty means not set");
        assert!(!say(&[("TERM", "dumb")], true) && say(&[("TERM", "xterm")], true));
        assert!(
            !say(&[("CLICOLOR", "0")], true) && say(&[("CLICOLOR", "1")], true) && !say(&[("CLICOLOR", "1")], false)
        );
        assert!(say(&[("FORCE_COLOR", "1"), ("NO_COLOR", "1")], false) && !say(&[("FORCE_COLOR", "0")], true));
        assert!(say(&[("CLICOLOR_FORCE", "1")], false) && !say(&[("CLICOLOR_FORCE", "0")], true));
    }
}
