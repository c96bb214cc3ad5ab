//! The table for terminals: as many columns as fit, names elided, totals exact, then the sentences.

use super::columns::{COLUMNS, Cell, Column, applies, total_row};
use super::model::{Layer, Report};
use super::text::{elide, wrap};
use super::{Look, people};
use crate::error::Result;
use prettytable::format::{Alignment, FormatBuilder, LinePosition, LineSeparator, TableFormat};
use prettytable::{Cell as TableCell, Row, Table};

/// Narrowest name column before other columns give way.
const NAME_MIN: usize = 24;
/// Widest name column.
const NAME_MAX: usize = 60;

/// Below this width every column counts: one space between columns, shorter operator names.
const NARROW: usize = 100;
/// The same of tables that are not about layers.
const TIGHT: usize = 60;

/// Spaces between columns of a table that is not about layers.
pub(super) fn gap(width: usize) -> usize {
    if width < TIGHT { 1 } else { 2 }
}

/// Which columns are not there for want of room.
pub(super) fn hidden(titles: &[&str], width: usize) -> String {
    if titles.is_empty() {
        return String::new();
    }
    let text = format!("Hidden for width: {} (a wider terminal, --format csv or json shows them).", titles.join(", "));
    wrap(&text, "", "  ", width)
}

/// Spaces between columns, a rule under the titles.
fn style(gap: usize) -> TableFormat {
    FormatBuilder::new()
        .column_separator(' ')
        .padding(0, gap - 1)
        .separator(LinePosition::Title, LineSeparator::new('-', '-', '-', '-'))
        .build()
}

/// Draws a grid: titles, rows, and which columns are numbers (right-aligned).
fn draw(titles: &[&str], rows: &[Vec<String>], right: &[bool], gap: usize) -> String {
    let mut table = Table::new();
    table.set_format(style(gap));
    let make = |text: &str, i: usize| {
        let side = if right.get(i).copied().unwrap_or(false) { Alignment::RIGHT } else { Alignment::LEFT };
        TableCell::new_align(text, side)
    };
    table.set_titles(Row::new(titles.iter().enumerate().map(|(i, t)| make(t, i)).collect()));
    for row in rows {
        table.add_row(Row::new(row.iter().enumerate().map(|(i, t)| make(t, i)).collect()));
    }
    let drawn = table.to_string();
    let mut out = String::with_capacity(drawn.len());
    for line in drawn.lines() {
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// Narrowest a column of words becomes, unless its title is wider.
const WORDS_MIN: usize = 10;
/// The same of a column with a title.
pub(super) fn words_min(title: &str) -> usize {
    WORDS_MIN.max(title.chars().count())
}
/// By how much the first of them stays wider than the others.
const NAME_MORE: usize = 14;

/// A plain table of strings that fits `width`: left-aligned columns give way, the widest first.
pub fn simple(titles: &[&str], rows: &[Vec<String>], right: &[bool], width: usize) -> String {
    let mut rows = rows.to_vec();
    let widths: Vec<usize> = (0..titles.len()).map(|i| column_width(titles[i], &rows, i)).collect();
    let mut room = widths.clone();
    let words = |i: &usize| !right.get(*i).copied().unwrap_or(false);
    // What names a row stays longer than what is said of it.
    let named = (0..titles.len()).find(words);
    let more = |i: usize| if named == Some(i) { NAME_MORE } else { 0 };
    while room.iter().sum::<usize>() + gap(width) * titles.len() > width {
        match (0..titles.len())
            .filter(words)
            .filter(|&i| room[i] > words_min(titles[i]))
            .max_by_key(|&i| room[i].saturating_sub(more(i)))
        {
            Some(i) => room[i] -= 1,
            None => break,
        }
    }
    for i in (0..titles.len()).filter(|&i| room[i] < widths[i]) {
        // Prose gives way at its end, names in their middle.
        let fit = |c: &str| if c.contains(' ') { cut(c, room[i]) } else { elide(c, room[i]) };
        rows.iter_mut().for_each(|r| r[i] = fit(&r[i]));
    }
    draw(titles, &rows, right, gap(width))
}

/// The same, where columns give way by `yields` (the larger the earlier; 0 never) once shortened words make no more room.
pub fn yielding(titles: &[&str], rows: &[Vec<String>], right: &[bool], yields: &[u8], width: usize) -> String {
    let mut at: Vec<usize> = (0..titles.len()).collect();
    let is_right = |i: usize| right.get(i).copied().unwrap_or(false);
    let least = |&i: &usize| {
        let wide = column_width(titles[i], rows, i);
        gap(width) + if is_right(i) { wide } else { wide.min(words_min(titles[i])) }
    };
    let mut gone = Vec::new();
    while at.iter().map(least).sum::<usize>() > width {
        let yields = |i: usize| yields.get(i).copied().unwrap_or(0);
        let Some(first) = at.iter().copied().filter(|&i| yields(i) > 0).max_by_key(|&i| yields(i)) else { break };
        at.retain(|&i| i != first);
        gone.push(titles[first]);
    }
    let titles: Vec<&str> = at.iter().map(|&i| titles[i]).collect();
    let rows: Vec<Vec<String>> = rows.iter().map(|r| at.iter().map(|&i| r[i].clone()).collect()).collect();
    let right: Vec<bool> = at.iter().map(|&i| is_right(i)).collect();
    simple(&titles, &rows, &right, width) + &hidden(&gone, width)
}

fn column_width(title: &str, rows: &[Vec<String>], i: usize) -> usize {
    let cells = rows.iter().map(|r| r[i].chars().count());
    cells.max().unwrap_or(0).max(title.chars().count())
}

struct Drawn {
    title: &'static str,
    yields: u8,
    is_name: bool,
    right: bool,
    cells: Vec<String>,
}

impl Drawn {
    fn width(&self) -> usize {
        self.cells.iter().map(|c| c.chars().count()).max().unwrap_or(0).max(self.title.chars().count())
    }
}

/// A row's name with how often its block is repeated.
fn name(l: &Layer, with_op: bool) -> String {
    let name = people::display_name(l, with_op);
    if l.repeat > 1 { format!("{name} ×{}", l.repeat) } else { name }
}

/// Operator names differ at their beginning, so the end gives way.
fn cut(op: &str, longest: usize) -> String {
    if op.chars().count() <= longest { op.to_string() } else { op.chars().take(longest - 1).chain(['…']).collect() }
}

fn column(c: &'static Column, rows: &[&Layer], report: &Report, narrow: bool) -> Option<Drawn> {
    let title = c.title?;
    let cells: Vec<Cell> = rows.iter().map(|l| (c.get)(l, report)).collect();
    let right = cells.iter().any(people::is_number) && c.key != "name" && c.key != "output_shape" && c.key != "op";
    let text = cells.iter().zip(rows).map(|(cell, l)| match c.key {
        "name" => name(l, true),
        "op" => cut(&people::cell(cell), if narrow { 10 } else { 16 }),
        _ => people::cell(cell),
    });
    Some(Drawn { title, yields: c.yields, is_name: c.key == "name", right, cells: text.collect() })
}

/// The layer table, and the titles of the columns that did not fit.
fn layers(report: &Report, width: usize) -> (String, Vec<&'static str>) {
    let total = total_row(report);
    let rows: Vec<&Layer> = report.layers.iter().chain(&report.overhead).chain([&total]).collect();
    let narrow = width < NARROW;
    let gap = if narrow { 1 } else { 2 };
    let mut columns: Vec<Drawn> =
        COLUMNS.iter().filter(|c| applies(c, report)).filter_map(|c| column(c, &rows, report, narrow)).collect();
    let mut dropped = Vec::new();
    loop {
        let others: usize = columns.iter().filter(|c| !c.is_name).map(Drawn::width).sum();
        let room = width.saturating_sub(others + gap * columns.len());
        let name = columns.iter().find(|c| c.is_name).map_or(0, Drawn::width);
        let yielding = columns.iter().enumerate().filter(|(_, c)| c.yields > 0).max_by_key(|(_, c)| c.yields);
        match yielding {
            Some((i, _)) if room < name.min(if narrow { NAME_MIN - 6 } else { NAME_MIN }) => {
                let gone = columns.remove(i).title;
                dropped.push(gone);
                if gone == "Op"
                    && let Some(c) = columns.iter_mut().find(|c| c.is_name)
                {
                    c.cells = rows.iter().map(|l| self::name(l, false)).collect();
                }
            }
            _ => {
                let room = room.clamp(8, NAME_MAX);
                if let Some(c) = columns.iter_mut().find(|c| c.is_name) {
                    c.cells.iter_mut().for_each(|n| *n = elide_name(n, room));
                }
                break;
            }
        }
    }
    let titles: Vec<&str> = columns.iter().map(|c| c.title).collect();
    let right: Vec<bool> = columns.iter().map(|c| c.right).collect();
    let grid: Vec<Vec<String>> =
        (0..rows.len()).map(|i| columns.iter().map(|c| c.cells[i].clone()).collect()).collect();
    (draw(&titles, &grid, &right, gap), dropped)
}

/// Elides a name but keeps its `×N`.
fn elide_name(name: &str, room: usize) -> String {
    match name.rsplit_once(" ×") {
        Some((front, times)) => {
            let tail = format!(" ×{times}");
            format!("{}{tail}", elide(front, room.saturating_sub(tail.chars().count())))
        }
        None => elide(name, room),
    }
}

/// A counter's figure and the lines from ours to it.
fn rosetta(l: &crate::lens::Lens, width: usize) -> String {
    let (name, rows) = people::rosetta(l);
    let mut out = wrap(&name, "As ", "   ", width);
    let (amount, nodes) = (width_of(&rows, 0), width_of(&rows, 1).max(1));
    for [a, n, why] in &rows {
        let first =
            format!("  {}{a}  {}{n}  ", " ".repeat(amount - a.chars().count()), " ".repeat(nodes - n.chars().count()));
        out.push_str(&wrap(why, &first, &" ".repeat((amount + nodes + 6).min(width / 2)), width));
    }
    for note in &l.notes {
        out.push_str(&wrap(note, "  ", "  ", width));
    }
    out
}

fn width_of(rows: &[[String; 3]], i: usize) -> usize {
    rows.iter().map(|r| r[i].chars().count()).max().unwrap_or(0)
}

/// Draws the report.
pub fn render(report: &Report, look: &Look) -> Result<Vec<u8>> {
    let width = look.width.max(40);
    let mut out = wrap(&people::heading(report), "", "  ", width);
    out.push('\n');
    if !report.layers.is_empty() {
        let (table, dropped) = layers(report, width);
        out.push_str(&table);
        for line in people::remarks(report) {
            out.push_str(&wrap(&line, "", "  ", width));
        }
        out.push_str(&hidden(&dropped, width));
        out.push('\n');
    }
    let totals = people::totals(report);
    let label = totals.iter().map(|t| t.0.len()).max().unwrap_or(0);
    let value = totals.iter().map(|t| t.1.chars().count()).max().unwrap_or(0);
    for (name, v, remark) in &totals {
        let pad = value - v.chars().count();
        let first = format!("{name:label$}  {}{v}  ", " ".repeat(pad));
        let later = " ".repeat((label + value + 4).min(width / 2));
        out.push_str(&wrap(remark, &first, &later, width));
    }
    for l in &report.lenses {
        out.push('\n');
        out.push_str(&rosetta(l, width));
    }
    if report.classes.len() > 1 && !report.layers.is_empty() {
        out.push('\n');
        let (head, rows) = people::classes(report);
        let right: Vec<bool> = (0..head.len()).map(|i| i > 0).collect();
        out.push_str(&yielding(&head, &rows, &right, &[0, 3, 0, 2, 4, 0, 0, 1], width));
    }
    if !report.latency.is_empty() {
        out.push('\n');
        for (path, text) in people::latencies(report) {
            out.push_str(&wrap(&text, &format!("{path:10} "), "           ", width));
        }
        if let (Some(x), true) = (report.speedup, report.command == "bench") {
            out.push_str(&format!("speedup    {} (reference / optimized)\n", crate::units::rate(x)));
        }
    }
    if !report.findings.is_empty() && report.command != "bench" {
        out.push('\n');
        for sentence in &report.findings {
            out.push_str(&wrap(sentence, "- ", "  ", width));
        }
    }
    Ok(out.into_bytes())
}
