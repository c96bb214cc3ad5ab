//! Tables that are not about layers: formulas, sweeps. Typed cells in named columns, in every format that layers have.

use super::columns::Cell;
use super::csv::records;
use super::people;
use super::{Look, SCHEMA, html, json, markdown, parquet, table, text, xlsx};
use crate::error::{Error, Result};

/// A column of a grid.
#[derive(Debug, Clone)]
pub struct GridColumn {
    /// Key for machines, with the unit.
    pub key: String,
    /// Heading for people; `None` where the column is for machines only.
    pub title: Option<String>,
    /// Which columns give way first on a narrow terminal (larger first; 0 never).
    pub yields: u8,
    /// Whether it stays as long as shortened words make room enough.
    pub last: bool,
}

impl GridColumn {
    /// A column for all.
    pub fn new(key: &str, title: &str) -> GridColumn {
        GridColumn { key: key.to_string(), title: Some(title.to_string()), yields: 0, last: false }
    }
    /// A column for machines.
    pub fn machine(key: &str) -> GridColumn {
        GridColumn { key: key.to_string(), title: None, yields: 0, last: false }
    }
    /// Gives way on a narrow terminal, the larger the earlier.
    #[must_use]
    pub fn yields(self, yields: u8) -> GridColumn {
        GridColumn { yields, ..self }
    }
    /// Gives way only where shortening words is not enough, the larger the earlier.
    #[must_use]
    pub fn yields_last(self, yields: u8) -> GridColumn {
        GridColumn { yields, last: true, ..self }
    }
}

/// A table with what surrounds it.
#[derive(Debug, Clone, Default)]
pub struct Grid {
    /// What it is: key of the rows in JSON.
    pub name: &'static str,
    /// One line above it.
    pub heading: String,
    /// Its key in JSON; empty: `model`.
    pub heading_key: &'static str,
    /// Lines of (label, value) between heading and table.
    pub summary: Vec<(String, String)>,
    /// Columns.
    pub columns: Vec<GridColumn>,
    /// Rows, one cell per column.
    pub rows: Vec<Vec<Cell>>,
    /// A drawing in characters below it, for people.
    pub figure: Option<String>,
    /// Sentences below it.
    pub notes: Vec<String>,
    /// Further keys for JSON.
    pub extra: Vec<(String, serde_json::Value)>,
}

/// The formats that grids have.
const FORMATS: &[&str] = &["table", "markdown", "html", "csv", "json", "xlsx", "parquet"];

/// Refuses a format that grids do not have.
///
/// # Errors
/// If it is one.
pub fn takes(format: &str) -> Result<()> {
    if FORMATS.contains(&format) {
        return Ok(());
    }
    Err(Error::usage(format!("--format {format} has no form for this table"))
        .hint(format!("formats here: {}", FORMATS.join(", "))))
}

/// Renders a grid in a format of the format table.
///
/// # Errors
/// If the format has no grids, or cannot be written.
pub fn render(grid: &Grid, format: &str, look: &Look) -> Result<Vec<u8>> {
    match format {
        "table" => Ok(as_table(grid, look).into_bytes()),
        "html" => html::render_grid(grid),
        "markdown" => Ok(markdown::within_limit(as_markdown(grid), look).into_bytes()),
        "csv" => {
            let head: Vec<&str> = grid.columns.iter().map(|c| c.key.as_str()).collect();
            records(&head, &grid.rows)
        }
        "xlsx" => {
            let head: Vec<&str> = grid.columns.iter().map(|c| c.key.as_str()).collect();
            xlsx::table(grid.name, &head, &grid.rows)
        }
        "parquet" => {
            let head: Vec<&str> = grid.columns.iter().map(|c| c.key.as_str()).collect();
            Ok(parquet::table(&head, &grid.rows))
        }
        "json" => {
            let mut map = serde_json::Map::new();
            map.insert("schema".into(), SCHEMA.into());
            let key = if grid.heading_key.is_empty() { "model" } else { grid.heading_key };
            map.insert(key.into(), grid.heading.clone().into());
            for (key, value) in &grid.extra {
                map.insert(key.clone(), value.clone());
            }
            let row = |cells: &Vec<Cell>| -> serde_json::Value {
                grid.columns
                    .iter()
                    .zip(cells)
                    .map(|(c, cell)| (c.key.clone(), json::cell(cell)))
                    .collect::<serde_json::Map<_, _>>()
                    .into()
            };
            map.insert(grid.name.into(), grid.rows.iter().map(row).collect::<Vec<_>>().into());
            map.insert("notes".into(), grid.notes.clone().into());
            json::bytes(&map.into())
        }
        other => takes(other).map(|()| Vec::new()),
    }
}

/// Numbers of the columns for people that fit a width, and the titles of those that do not.
fn fitting(grid: &Grid, width: usize) -> (Vec<usize>, Vec<&str>) {
    let mut at: Vec<usize> = (0..grid.columns.len()).filter(|&i| grid.columns[i].title.is_some()).collect();
    let title = |i: usize| grid.columns[i].title.as_deref().unwrap_or_default();
    let wide = |i: usize| {
        let cells = grid.rows.iter().map(|r| people::cell(&r[i]).chars().count());
        cells.max().unwrap_or(0).max(title(i).chars().count()) + table::gap(width)
    };
    let is_number = |i: usize| grid.rows.iter().any(|r| people::is_number(&r[i]));
    let least =
        |i: usize| if is_number(i) { wide(i) } else { wide(i).min(table::words_min(title(i)) + table::gap(width)) };
    let mut gone = Vec::new();
    for last in [false, true] {
        // Columns that stay as long as words can be shortened push no other one out before that.
        let room = |&i: &usize| if last || grid.columns[i].last { least(i) } else { wide(i) };
        while at.iter().map(room).sum::<usize>() > width {
            let yielding = at.iter().copied().filter(|&i| grid.columns[i].yields > 0 && grid.columns[i].last == last);
            let Some(first) = yielding.max_by_key(|&i| grid.columns[i].yields) else { break };
            at.retain(|&i| i != first);
            gone.push(title(first));
        }
    }
    (at, gone)
}

/// Columns for people with their cells as text.
fn shown<'a>(grid: &'a Grid, at: &[usize]) -> (Vec<&'a str>, Vec<Vec<String>>, Vec<bool>) {
    let titles = at.iter().map(|&i| grid.columns[i].title.as_deref().unwrap_or_default()).collect();
    let rows = grid.rows.iter().map(|r| at.iter().map(|&i| people::cell(&r[i])).collect()).collect();
    let right = at.iter().map(|&i| grid.rows.iter().any(|r| people::is_number(&r[i]))).collect();
    (titles, rows, right)
}

fn as_table(grid: &Grid, look: &Look) -> String {
    let width = look.width.max(40);
    let mut out = text::wrap(&grid.heading, "", "  ", width);
    out.push('\n');
    let label = grid.summary.iter().map(|s| s.0.chars().count()).max().unwrap_or(0);
    for (name, value) in &grid.summary {
        out.push_str(&text::wrap(value, &format!("{name:label$}  "), &" ".repeat(label + 4), width));
    }
    if !grid.rows.is_empty() {
        if !grid.summary.is_empty() {
            out.push('\n');
        }
        let (at, gone) = fitting(grid, width);
        let (titles, rows, right) = shown(grid, &at);
        out.push_str(&table::simple(&titles, &rows, &right, width));
        out.push_str(&table::hidden(&gone, width));
    }
    if let Some(figure) = &grid.figure {
        out.push('\n');
        out.push_str(figure);
    }
    if !grid.notes.is_empty() {
        out.push('\n');
    }
    for note in &grid.notes {
        out.push_str(&text::wrap(note, "- ", "  ", width));
    }
    out
}

fn as_markdown(grid: &Grid) -> String {
    let escaped = markdown::escaped;
    let mut out = format!("## {}\n\n", escaped(&grid.heading));
    for (name, value) in &grid.summary {
        out.push_str(&format!("- **{}**: {}\n", escaped(name.trim()), escaped(value)));
    }
    if !grid.rows.is_empty() {
        let (titles, rows, right) = shown(grid, &fitting(grid, usize::MAX).0);
        out.push('\n');
        out.push_str(&markdown::line(titles.iter().map(|t| escaped(t))));
        out.push_str(&markdown::line(right.iter().map(|r| if *r { "--:" } else { ":--" }.to_string())));
        for row in rows {
            out.push_str(&markdown::line(row.iter().map(|c| escaped(c))));
        }
    }
    if let Some(figure) = &grid.figure {
        out.push_str(&format!("\n```text\n{figure}```\n"));
    }
    if !grid.notes.is_empty() {
        out.push('\n');
    }
    for note in &grid.notes {
        out.push_str(&format!("- {}\n", escaped(note)));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_give_way_in_their_order_and_are_named() {
        let grid = Grid {
            name: "rows",
            heading: "a grid".into(),
            columns: vec![
                GridColumn::new("name", "Name"),
                GridColumn::new("a", "First to go").yields(2),
                GridColumn::new("b", "Second to go").yields(1),
                GridColumn::new("c", "Never goes"),
                GridColumn::machine("d"),
                GridColumn::new("e", "Stays").yields_last(1),
            ],
            rows: vec![vec![
                Cell::Text("x".into()),
                Cell::Count(1),
                Cell::Count(2),
                Cell::Count(3),
                Cell::Count(4),
                Cell::Text("w ".repeat(40)),
            ]],
            ..Grid::default()
        };
        let table = |width| String::from_utf8(render(&grid, "table", &Look { width }).unwrap()).unwrap();
        assert!(table(80).contains("First to go") && !table(80).contains("Hidden"));
        let narrow = table(44);
        let (above, below) = narrow.split_once("Hidden for width: ").unwrap();
        assert!(!above.contains("First to go") && above.contains("Second to go") && below.starts_with("First to go"));
        assert!(table(40).contains("Never goes"));
        let markdown = String::from_utf8(render(&grid, "markdown", &Look { width: 40 }).unwrap()).unwrap();
        assert!(markdown.contains("First to go") && !markdown.contains("Hidden"));
    }
}
