//! The books of one tool: lines of difference that, with our MAdds, sum to the tool's figure.

use std::borrow::Cow;

/// One reason for a difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// What is counted otherwise, and why.
    pub why: String,
    /// How many nodes of the graph it concerns.
    pub nodes: usize,
    /// What it adds to our MAdds (or takes away).
    pub amount: i64,
}

/// Lines as they are written.
#[derive(Debug, Default)]
pub struct Books {
    lines: Vec<(Cow<'static, str>, usize, i128)>,
    notes: Vec<String>,
    refused: Vec<String>,
}

impl Books {
    /// Writes a difference of `nodes` nodes; equal reasons share a line. Nothing is written for nothing.
    pub fn add(&mut self, why: impl Into<Cow<'static, str>>, nodes: usize, amount: i128) {
        if amount == 0 {
            return;
        }
        let why = why.into();
        // The sign is part of a reason: what is left out and what is counted twice do not cancel in one line.
        match self.lines.iter_mut().find(|(w, _, a)| *w == why && (*a > 0) == (amount > 0)) {
            Some((_, n, a)) => {
                *n += nodes;
                *a += amount;
            }
            None => self.lines.push((why, nodes, amount)),
        }
    }

    /// The figure so far, given what it starts from.
    pub fn figure(&self, ours: u64) -> i128 {
        i128::from(ours) + self.lines.iter().map(|(_, _, a)| a).sum::<i128>()
    }

    /// Says what was assumed.
    pub fn note(&mut self, text: impl Into<String>) {
        let text = text.into();
        if !self.notes.contains(&text) {
            self.notes.push(text);
        }
    }

    /// Says why there is no figure.
    pub fn refuse(&mut self, why: impl Into<String>) {
        let why = why.into();
        if !self.refused.contains(&why) {
            self.refused.push(why);
        }
    }

    /// The figure, the lines with the largest first, and the notes. Without a figure there are no lines.
    pub fn close(mut self, ours: u64) -> (Option<u64>, Vec<Line>, Vec<String>) {
        let figure = u64::try_from(self.figure(ours)).ok();
        let lines: Option<Vec<Line>> = self
            .lines
            .drain(..)
            .map(|(why, nodes, amount)| {
                Some(Line { why: why.into_owned(), nodes, amount: i64::try_from(amount).ok()? })
            })
            .collect();
        if let (true, Some(figure), Some(mut lines)) = (self.refused.is_empty(), figure, lines) {
            lines.sort_by_key(|l| std::cmp::Reverse(l.amount.unsigned_abs()));
            return (Some(figure), lines, self.notes);
        }
        if self.refused.is_empty() {
            self.refused.push("the figure does not fit in 64 bits".into());
        }
        (None, Vec::new(), self.refused.iter().map(|why| format!("not comparable: {why}")).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn books_balance_and_a_refusal_leaves_no_figure() {
        let mut books = Books::default();
        books.add("bias", 1, 10);
        books.add("bias", 2, 5);
        books.add("attention", 1, -40);
        books.add("nothing", 1, 0);
        let (figure, lines, _) = books.close(100);
        assert_eq!(figure, Some(75));
        assert_eq!(
            lines.iter().map(|l| (l.why.as_str(), l.nodes, l.amount)).collect::<Vec<_>>(),
            [("attention", 1, -40), ("bias", 3, 15)]
        );
        let mut books = Books::default();
        books.add("bias", 1, 10);
        books.refuse("no");
        assert_eq!(books.close(1), (None, Vec::new(), vec!["not comparable: no".to_string()]));
        let mut books = Books::default();
        books.add("all", 1, -5);
        assert_eq!(books.close(1).0, None);
    }
}
