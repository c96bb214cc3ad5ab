//! Excel workbook with live formulas: batch, resolution and width are cells, every row follows the rows before it, totals sum the rows.
//! What a spreadsheet cannot follow stays a constant and is grey. Cached results are the exact counts, so that a reader which does not
//! recompute shows the same numbers.

use super::columns::Cell;
use super::csv::cells_of;
use super::live::{Axis, From, Live, Shape, Sizes};
use super::model::{Layer, Report};
use super::{Look, people};
use crate::analysis::symbolic::{Formula as Counted, Symbolic};
use crate::error::{Error, Result};
use rust_xlsxwriter::{Color, DocProperties, ExcelDateTime, Format, Formula, Workbook, Worksheet, XlsxError};
use std::collections::HashMap;

fn failed(e: XlsxError) -> Error {
    Error::run(format!("the report cannot be written as a workbook: {e}"))
}

/// A sheet holds at most this many rows.
const MOST_ROWS: usize = 1_048_000;

struct Styles {
    bold: Format,
    input: Format,
    count: Format,
    constant: Format,
    share: Format,
    wrap: Format,
}

impl Styles {
    fn new() -> Styles {
        let count = Format::new().set_num_format("#,##0");
        Styles {
            bold: Format::new().set_bold(),
            input: Format::new().set_bold().set_background_color(Color::RGB(0x00FF_F2CC)),
            constant: count.clone().set_font_color(Color::RGB(0x0080_8080)),
            share: Format::new().set_num_format("0.0%"),
            wrap: Format::new().set_text_wrap(),
            count,
        }
    }
}

fn workbook() -> Result<Workbook> {
    let mut book = Workbook::new();
    // The same report gives the same bytes.
    let when = ExcelDateTime::from_ymd(2000, 1, 1).map_err(failed)?;
    book.set_properties(&DocProperties::new().set_creation_datetime(&when).set_author("madd-prof"));
    Ok(book)
}

/// Makes the bytes.
pub fn render(report: &Report, _look: &Look) -> Result<Vec<u8>> {
    let mut book = workbook()?;
    let s = Styles::new();
    if report.layers.len() + report.overhead.len() > MOST_ROWS {
        return Err(Error::unsupported("a sheet does not hold so many rows").hint("--depth or --top makes fewer"));
    }
    if !report.layers.is_empty() {
        let mut front = Worksheet::new();
        let mut rows = Worksheet::new();
        front.set_name("Model").map_err(failed)?;
        rows.set_name("Layers").map_err(failed)?;
        let inputs = model_sheet(&mut front, report, &s).map_err(failed)?;
        let live = layer_sheet(&mut rows, report, &inputs, &s).map_err(failed)?;
        let constant = report.layers.len() - live;
        let note = format!(
            "{live} of {} rows follow the yellow cells; {constant} are constants (grey), among them all that move no sizes the sheet knows.",
            report.layers.len()
        );
        front.write_string_with_format(inputs.note_row, 0, note, &s.wrap).map_err(failed)?;
        book.push_worksheet(front);
        book.push_worksheet(rows);
    }
    let (keys, cells) = cells_of(report);
    table_sheet(book.add_worksheet(), "Table", &keys, &cells, &s).map_err(failed)?;
    book.save_to_buffer().map_err(failed)
}

/// A table of cells as a workbook of one sheet.
pub(super) fn table(name: &str, keys: &[&str], rows: &[Vec<Cell>]) -> Result<Vec<u8>> {
    let mut book = workbook()?;
    table_sheet(book.add_worksheet(), name, keys, rows, &Styles::new()).map_err(failed)?;
    book.save_to_buffer().map_err(failed)
}

fn table_sheet(
    sheet: &mut Worksheet,
    name: &str,
    keys: &[&str],
    rows: &[Vec<Cell>],
    s: &Styles,
) -> Result<(), XlsxError> {
    let name: String = name.chars().filter(|c| !"[]:*?/\\".contains(*c)).take(31).collect();
    sheet.set_name(name)?;
    for (c, key) in keys.iter().enumerate() {
        sheet.write_string_with_format(0, c as u16, *key, &s.bold)?;
    }
    for (r, row) in rows.iter().enumerate() {
        for (c, cell) in row.iter().enumerate() {
            let (r, c) = (r as u32 + 1, c as u16);
            match cell {
                Cell::Text(t) | Cell::Name(t) => sheet.write_string(r, c, fit(t))?,
                Cell::Shape(v) => sheet.write_string(r, c, fit(&v.to_string()))?,
                Cell::Count(n) | Cell::AtLeast(n) | Cell::Bytes(n) | Cell::AtLeastBytes(n) => {
                    sheet.write_number_with_format(r, c, *n as f64, &s.count)?
                }
                Cell::Delta(n) => sheet.write_number_with_format(r, c, *n as f64, &s.count)?,
                Cell::Ms(v) | Cell::Giga(v) | Cell::Ratio(v) if v.is_finite() => sheet.write_number(r, c, *v)?,
                Cell::Share(v) | Cell::Efficiency(v) if v.is_finite() => {
                    sheet.write_number_with_format(r, c, *v, &s.share)?
                }
                Cell::Flag(b) => sheet.write_boolean(r, c, *b)?,
                _ => sheet,
            };
        }
    }
    sheet.set_freeze_panes(1, 1)?;
    if !rows.is_empty() && !keys.is_empty() {
        sheet.autofilter(0, 0, rows.len() as u32, keys.len() as u16 - 1)?;
    }
    sheet.set_column_width(0, 36)?;
    Ok(())
}

/// Text as a cell takes it: 32,767 characters, none that XML cannot hold.
fn fit(text: &str) -> String {
    crate::error::printable(text).chars().take(32_000).collect()
}

/// Cells of the first sheet that rows refer to.
struct Inputs {
    /// By free dim, where rows are polynomials.
    dims: HashMap<String, String>,
    /// Whether batch, height and width are cells.
    image: Option<Sizes>,
    note_row: u32,
}

const BATCH: &str = "Model!$B$4";
const HEIGHT: &str = "Model!$B$5";
const WIDTH: &str = "Model!$B$6";
const FACTOR: &str = "Model!$B$7";
const DIVISOR: &str = "Model!$B$8";
/// Columns of the sheet of layers.
const COLUMNS: [&str; 12] =
    ["Layer", "Op", "N", "C", "H", "W", "Params", "MAdds", "Other FLOPs", "FLOPs", "%MAdds", "Optimized ms"];

fn model_sheet(sheet: &mut Worksheet, report: &Report, s: &Styles) -> Result<Inputs, XlsxError> {
    sheet.set_column_width(0, 44)?.set_column_width(1, 20)?.set_column_width(2, 60)?;
    sheet.write_string_with_format(0, 0, fit(&people::heading(report)), &s.bold)?;
    // Totals of which most would stand still are worse than none that move.
    let follow: u64 = report.layers.iter().filter(|l| l.live.is_some()).map(|l| l.work.madds).sum();
    let image = report.image.filter(|_| follow > 0 && follow >= report.totals.work.madds / 2);
    let words = if image.is_some() || report.symbolic.is_some() {
        "Change a yellow cell; everything below and the sheet Layers follow."
    } else {
        "This model's sizes are fixed in ways a sheet cannot follow: all figures are as counted."
    };
    sheet.write_string(1, 0, words)?;
    let mut inputs = Inputs { dims: HashMap::new(), image, note_row: 16 };
    let mut put = |r: u32, label: &str, n: u64, words: &str| -> Result<(), XlsxError> {
        sheet.write_string(r, 0, label)?;
        sheet.write_number_with_format(r, 1, n as f64, &s.input)?;
        sheet.write_string(r, 2, words)?;
        Ok(())
    };
    if let Some(x) = image {
        put(3, "Batch", x.n, "images per inference")?;
        put(4, "Height", x.h, "of the input, in pixels")?;
        put(5, "Width", x.w, "of the input, in pixels")?;
        put(
            6,
            "Channel factor",
            1,
            "times all channels but the input's and the last layer's (0.5 halves the network's width)",
        )?;
        put(
            7,
            "Channel divisor",
            8,
            "scaled channels are rounded to multiples of this, never below 0.9 of what was asked for",
        )?;
    } else if let Some(symbolic) = &report.symbolic {
        for (i, dim) in symbolic.dims.iter().enumerate() {
            let row = 3 + i as u32;
            let n = report.model.bound.get(dim).copied().unwrap_or(1);
            put(row, &fit(dim), n as u64, "free dim of the model")?;
            inputs.dims.insert(dim.clone(), format!("Model!$B${}", row + 1));
            inputs.note_row = inputs.note_row.max(row + 8);
        }
    }
    let first = inputs.note_row - 6;
    let last = report.layers.len() + 1;
    let t = &report.totals;
    let totals: [(&str, char, u64); 4] = [
        ("Params", 'G', t.params),
        ("MAdds", 'H', t.work.madds),
        ("Other FLOPs", 'I', t.work.other_flops),
        ("FLOPs", 'J', t.work.flops()),
    ];
    for (i, (label, column, n)) in totals.into_iter().enumerate() {
        let r = first + i as u32;
        sheet.write_string_with_format(r, 0, label, &s.bold)?;
        let formula = Formula::new(format!("=SUM(Layers!{column}2:{column}{last})")).set_result(n.to_string());
        sheet.write_formula_with_format(r, 1, formula, &s.count)?;
    }
    if t.unknown_nodes > 0 {
        let words = format!("lower bounds: the cost of {} nodes is unknown", t.unknown_nodes);
        sheet.write_string(first, 2, words)?;
    }
    Ok(inputs)
}

/// A row's sizes as formulas or numbers.
fn size_formulas(live: &Live, at: &dyn Fn(From, char) -> Option<String>) -> Option<[String; 4]> {
    let first = *live.from.first()?;
    let (n, c, h, w) = (at(first, 'C')?, at(first, 'D')?, at(first, 'E')?, at(first, 'F')?);
    let axis = |a: &Axis, i: &str| match (a.same, a.ceil) {
        (true, _) => format!("-INT(-{i}/{})", a.s),
        (_, true) => format!("-INT(-({i}+{}-{})/{})+1", a.p, a.d * (a.k - 1) + 1, a.s),
        _ => format!("INT(({i}+{}-{})/{})+1", a.p, a.d * (a.k - 1) + 1, a.s),
    };
    let scaled = |oc: u64, is_last: bool| {
        if is_last {
            return oc.to_string();
        }
        let rounded = format!("MAX({DIVISOR},INT({oc}*{FACTOR}/{DIVISOR}+0.5)*{DIVISOR})");
        format!("IF({FACTOR}=1,{oc},{rounded}+IF({rounded}<0.9*{oc}*{FACTOR},{DIVISOR},0))")
    };
    let ratio = |of: &str, (a, b): (u64, u64)| match (a, b) {
        (1, 1) => of.to_string(),
        (a, 1) => format!("{of}*{a}"),
        (a, b) => format!("INT({of}*{a}/{b})"),
    };
    Some(match &live.shape {
        Shape::Conv { axes, oc, is_last, depthwise, .. } => {
            let channels = match depthwise {
                Some(1) => c,
                Some(m) => format!("{c}*{m}"),
                None => scaled(*oc, *is_last),
            };
            [n, channels, axis(&axes[0], &h), axis(&axes[1], &w)]
        }
        Shape::Dense { oc, is_last } => [n, scaled(*oc, *is_last), "1".into(), "1".into()],
        Shape::Window(axes) => [n, c, axis(&axes[0], &h), axis(&axes[1], &w)],
        Shape::Global => [n, c, "1".into(), "1".into()],
        Shape::Concat => {
            let parts: Option<Vec<String>> = live.from.iter().map(|f| at(*f, 'D')).collect();
            [n, parts?.join("+"), h, w]
        }
        Shape::Flat => [n, format!("{c}*{h}*{w}"), "1".into(), "1".into()],
        Shape::Ratio([rc, rh, rw]) => [n, ratio(&c, *rc), ratio(&h, *rh), ratio(&w, *rw)],
    })
}

/// Figures of a row as formulas over its own and its source's sizes, where they give what was counted.
fn figure_formulas(l: &Layer, live: &Live, row: u32, at: &dyn Fn(From, char) -> Option<String>) -> [Option<String>; 3] {
    let own = format!("C{row}*D{row}*E{row}*F{row}");
    let source = live.from.first().copied();
    let ic = source.and_then(|f| at(f, 'D'));
    let per = |count: u64, what: u64| (what > 0 && count.is_multiple_of(what)).then(|| count / what);
    let times = |n: u64, of: &str| if n == 1 { of.to_string() } else { format!("{of}*{n}") };
    let zero = || Some("0".to_string());
    let (params, madds) = match &live.shape {
        Shape::Conv { axes, depthwise, groups, oc, .. } => {
            let taps = axes[0].k * axes[1].k;
            let (inputs, count) = match depthwise {
                Some(_) => (Some("1".to_string()), Some(1)),
                None => (ic.map(|c| if *groups == 1 { c } else { format!("{c}/{groups}") }), None),
            };
            let madds = inputs.clone().map(|i| format!("{own}*{taps}*{i}"));
            // What one output channel holds beside its taps is the bias.
            let per_input = count.or_else(|| per(l.work.madds, live.now.elements() * taps));
            let rest = per_input.and_then(|i| l.params.checked_sub(oc * i * taps));
            let params = match (inputs, rest) {
                (Some(i), Some(0)) => Some(format!("D{row}*{taps}*{i}")),
                (Some(i), Some(b)) if b == *oc => Some(format!("D{row}*{taps}*{i}+D{row}")),
                _ => None,
            };
            (params, madds)
        }
        Shape::Dense { oc, .. } => {
            let k = ic.clone();
            let per_input = per(l.work.madds, live.now.n * oc);
            let rest = per_input.and_then(|i| l.params.checked_sub(oc * i));
            let params = match (&k, rest) {
                (Some(k), Some(0)) => Some(format!("D{row}*{k}")),
                (Some(k), Some(b)) if b == *oc => Some(format!("D{row}*{k}+D{row}")),
                _ => None,
            };
            (params, k.map(|k| format!("{own}*{k}")))
        }
        _ => {
            let params = match l.params {
                0 => zero(),
                n => per(n, live.now.c).map(|p| times(p, &format!("D{row}"))),
            };
            (params, if l.work.madds == 0 { zero() } else { None })
        }
    };
    let other = match (l.work.other_flops, &live.shape) {
        (0, _) => zero(),
        // A reduction works on what it reads.
        (n, Shape::Global) => (|| {
            let f = source?;
            let all = format!("{}*{}*{}*{}", at(f, 'C')?, at(f, 'D')?, at(f, 'E')?, at(f, 'F')?);
            per(n, l.source_elements?).map(|p| times(p, &all))
        })(),
        (n, _) => per(n, live.now.elements()).map(|p| times(p, &own)),
    };
    [params, madds, other]
}

/// A polynomial as a formula over cells.
fn polynomial(f: &Counted, symbolic: &Symbolic, cells: &HashMap<String, String>) -> Option<String> {
    let Counted::Polynomial(p) = f else { return None };
    if p.terms.is_empty() {
        return Some("0".into());
    }
    let mut out = String::new();
    for (powers, c) in &p.terms {
        let mut factors = vec![if c.den == 1 { format!("{}", c.num) } else { format!("({}/{})", c.num, c.den) }];
        for (dim, &power) in symbolic.dims.iter().zip(powers).filter(|(_, p)| **p > 0) {
            let cell = cells.get(dim)?;
            factors.push(if power == 1 { cell.clone() } else { format!("{cell}^{power}") });
        }
        if !out.is_empty() {
            out.push('+');
        }
        out.push_str(&factors.join("*"));
    }
    Some(out)
}

fn layer_sheet(sheet: &mut Worksheet, report: &Report, inputs: &Inputs, s: &Styles) -> Result<usize, XlsxError> {
    for (c, title) in COLUMNS.iter().enumerate() {
        sheet.write_string_with_format(0, c as u16, *title, &s.bold)?;
    }
    let rows: HashMap<usize, u32> =
        report.layers.iter().enumerate().filter_map(|(r, l)| l.id.map(|id| (id, r as u32 + 2))).collect();
    let at = |from: From, column: char| -> Option<String> {
        match (from, column) {
            (From::Row(id), column) => rows.get(&id).map(|r| format!("{column}{r}")),
            (From::Input, 'C') => Some(BATCH.into()),
            (From::Input, 'D') => inputs.image.map(|x| x.c.to_string()),
            (From::Input, 'E') => Some(HEIGHT.into()),
            (From::Input, _) => Some(WIDTH.into()),
        }
    };
    let named: HashMap<&str, usize> = report
        .symbolic
        .as_ref()
        .filter(|_| inputs.image.is_none())
        .map(|s| s.rows.iter().enumerate().map(|(i, r)| (r.name.as_str(), i)).collect())
        .unwrap_or_default();
    let mut live_rows = 0;
    for (i, l) in report.layers.iter().enumerate() {
        let (r, excel) = (i as u32 + 1, i as u32 + 2);
        sheet.write_string(r, 0, fit(&l.name))?;
        sheet.write_string(r, 1, fit(&l.op))?;
        let live = l.live.as_ref().filter(|_| inputs.image.is_some());
        let sizes = live.and_then(|live| size_formulas(live, &at));
        let now = l.live.as_ref().map(|x| x.now);
        let mut put = |c: u16, formula: Option<String>, n: Option<u64>| -> Result<bool, XlsxError> {
            match (formula, n) {
                (Some(f), Some(n)) if f.parse::<u64>().is_err() => {
                    let f = Formula::new(format!("={f}")).set_result(n.to_string());
                    sheet.write_formula_with_format(r, c, f, &s.count)?;
                    return Ok(true);
                }
                (_, Some(n)) => sheet.write_number_with_format(r, c, n as f64, &s.constant)?,
                _ => return Ok(false),
            };
            Ok(false)
        };
        let mut is_live = false;
        if let (Some([n, c, h, w]), Some(x)) = (&sizes, now) {
            for (column, formula, n) in [(2, n, x.n), (3, c, x.c), (4, h, x.h), (5, w, x.w)] {
                is_live |= put(column, Some(formula.clone()), Some(n))?;
            }
        }
        let mut figures = match (live, sizes.is_some()) {
            (Some(live), true) => figure_formulas(l, live, excel, &at),
            _ => [None, None, None],
        };
        if let (Some(symbolic), Some(&k)) = (&report.symbolic, named.get(l.name.as_str())) {
            let row = &symbolic.rows[k];
            figures = [
                None,
                polynomial(&row.madds, symbolic, &inputs.dims),
                polynomial(&row.other_flops, symbolic, &inputs.dims),
            ];
        }
        let known = |n: u64| (l.unknown_nodes == 0).then_some(n);
        let [params, madds, other] = figures;
        put(6, params, Some(l.params))?;
        is_live |= put(7, madds, known(l.work.madds))?;
        is_live |= put(8, other, known(l.work.other_flops))?;
        put(9, Some(format!("2*H{excel}+I{excel}")), known(l.work.flops()))?;
        live_rows += usize::from(is_live);
        if let Some(share) = l.madds_share {
            let total = format!("=IF(SUM(H$2:H${0})=0,0,H{excel}/SUM(H$2:H${0}))", report.layers.len() + 1);
            let f = Formula::new(total).set_result(share.to_string());
            sheet.write_formula_with_format(r, 10, f, &s.share)?;
        }
        if let Some(ms) = l.optimized.ms() {
            sheet.write_number(r, 11, ms)?;
        }
    }
    sheet.set_freeze_panes(1, 1)?;
    sheet.set_column_width(0, 40)?.set_column_width(1, 16)?;
    for c in 6..10 {
        sheet.set_column_width(c, 16)?;
    }
    Ok(live_rows)
}
