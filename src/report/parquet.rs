//! Parquet: one row per layer with the model's name, for fleets of models read together. The part of the format this needs is small
//! (one row group, plain encoding, no compression), so it is written here: <https://parquet.apache.org/docs/file-format/>.

use super::Look;
use super::columns::Cell;
use super::csv::cells_of;
use super::model::Report;
use crate::error::Result;

/// Physical types, by their numbers in the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    Boolean = 0,
    Int64 = 2,
    Double = 5,
    /// With converted type UTF8.
    ByteArray = 6,
    /// Int64 with a sign; the plain one above is a count.
    Signed = -2,
}

/// The type of a report's column: fixed by its key, so that files of different models have one schema.
fn type_of_key(key: &str) -> Type {
    match key {
        "model" | "name" | "kind" | "op" | "class" | "output_shape" | "kernel" | "operands" | "basis" | "bound"
        | "path" | "isa" => Type::ByteArray,
        "known" | "static" | "above_ceiling" => Type::Boolean,
        "intensity" | "gmadds_per_s" | "madds_share" | "time_share" | "efficiency" => Type::Double,
        k if k.ends_with("_ms") => Type::Double,
        _ => Type::Int64,
    }
}

/// The type of a column of a table: that of its cells.
fn type_of_cells<'a>(mut cells: impl Iterator<Item = &'a Cell>) -> Type {
    let of = |c: &Cell| {
        Some(match c {
            Cell::Text(_) | Cell::Name(_) | Cell::Shape(_) => Type::ByteArray,
            Cell::Count(_) | Cell::AtLeast(_) | Cell::Bytes(_) | Cell::AtLeastBytes(_) => Type::Int64,
            Cell::Delta(_) => Type::Signed,
            Cell::Ms(_) | Cell::Giga(_) | Cell::Ratio(_) | Cell::Share(_) | Cell::Efficiency(_) => Type::Double,
            Cell::Flag(_) => Type::Boolean,
            Cell::FusedInto(_) | Cell::Between(_) | Cell::Unknown | Cell::Blank => return None,
        })
    };
    cells.find_map(of).unwrap_or(Type::Double)
}

/// Makes the bytes.
pub fn render(report: &Report, _look: &Look) -> Result<Vec<u8>> {
    let (mut keys, mut rows) = cells_of(report);
    keys.insert(0, "model");
    for row in &mut rows {
        row.insert(0, Cell::Name(report.model.name.clone()));
    }
    let types: Vec<Type> = keys.iter().map(|k| type_of_key(k)).collect();
    Ok(file(&keys, &types, &rows))
}

/// A table of cells.
pub(super) fn table(keys: &[&str], rows: &[Vec<Cell>]) -> Vec<u8> {
    let types: Vec<Type> = (0..keys.len()).map(|i| type_of_cells(rows.iter().map(|r| &r[i]))).collect();
    file(keys, &types, rows)
}

/// Thrift's compact protocol, as far as it is needed.
#[derive(Default)]
struct Thrift {
    out: Vec<u8>,
    /// The last field number of every open struct.
    last: Vec<i16>,
}

impl Thrift {
    fn varint(&mut self, mut n: u64) {
        while n >= 0x80 {
            self.out.push(n as u8 | 0x80);
            n >>= 7;
        }
        self.out.push(n as u8);
    }
    fn zigzag(&mut self, n: i64) {
        self.varint(((n << 1) ^ (n >> 63)) as u64);
    }
    fn field(&mut self, id: i16, kind: u8) {
        let last = self.last.last_mut();
        let delta = last.as_ref().map_or(id, |l| id - **l);
        if let Some(l) = last {
            *l = id;
        }
        // Fields go up by less than 16 here, so the short form always does.
        self.out.push((delta as u8) << 4 | kind);
    }
    fn i32(&mut self, id: i16, n: i32) {
        self.field(id, 5);
        self.zigzag(n.into());
    }
    fn i64(&mut self, id: i16, n: i64) {
        self.field(id, 6);
        self.zigzag(n);
    }
    fn bytes(&mut self, b: &[u8]) {
        self.varint(b.len() as u64);
        self.out.extend_from_slice(b);
    }
    fn text(&mut self, id: i16, s: &str) {
        self.field(id, 8);
        self.bytes(s.as_bytes());
    }
    fn list(&mut self, id: i16, kind: u8, n: usize) {
        self.field(id, 9);
        if n < 15 {
            self.out.push((n as u8) << 4 | kind);
        } else {
            self.out.push(0xf0 | kind);
            self.varint(n as u64);
        }
    }
    fn open(&mut self) {
        self.last.push(0);
    }
    fn field_struct(&mut self, id: i16) {
        self.field(id, 12);
        self.open();
    }
    fn close(&mut self) {
        self.out.push(0);
        self.last.pop();
    }
}

const STRUCT: u8 = 12;
const MAGIC: &[u8] = b"PAR1";

/// Definition levels (0: null, 1: there) as runs, with their length in front.
fn levels(there: &[bool]) -> Vec<u8> {
    let mut t = Thrift::default();
    let mut i = 0;
    while i < there.len() {
        let run = there[i..].iter().take_while(|b| **b == there[i]).count();
        t.varint((run as u64) << 1);
        t.out.push(u8::from(there[i]));
        i += run;
    }
    let mut out = (t.out.len() as u32).to_le_bytes().to_vec();
    out.extend(t.out);
    out
}

/// A cell's value in a column of a type; `None` where it has none of that type.
fn value(cell: &Cell, of: Type, into: &mut Vec<u8>, bits: &mut Vec<bool>) -> bool {
    let text = |s: &str, into: &mut Vec<u8>| {
        into.extend((s.len() as u32).to_le_bytes());
        into.extend(s.as_bytes());
    };
    match (of, cell) {
        (Type::ByteArray, Cell::Text(s) | Cell::Name(s)) => text(s, into),
        (Type::ByteArray, Cell::Shape(s)) => text(&s.to_string(), into),
        (Type::Int64, Cell::Count(n) | Cell::AtLeast(n) | Cell::Bytes(n) | Cell::AtLeastBytes(n)) => {
            into.extend(n.to_le_bytes());
        }
        (Type::Signed, Cell::Delta(n)) => into.extend(n.to_le_bytes()),
        (Type::Double, Cell::Ms(v) | Cell::Giga(v) | Cell::Ratio(v) | Cell::Share(v) | Cell::Efficiency(v)) => {
            into.extend(v.to_le_bytes())
        }
        (Type::Boolean, Cell::Flag(b)) => bits.push(*b),
        _ => return false,
    }
    true
}

fn physical(t: Type) -> i32 {
    if t == Type::Signed { Type::Int64 as i32 } else { t as i32 }
}

fn file(keys: &[&str], types: &[Type], rows: &[Vec<Cell>]) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    let mut chunks: Vec<(i64, i64)> = Vec::new();
    for (i, &of) in types.iter().enumerate() {
        let (mut values, mut bits, mut there) = (Vec::new(), Vec::new(), Vec::new());
        for row in rows {
            there.push(value(&row[i], of, &mut values, &mut bits));
        }
        for eight in bits.chunks(8) {
            values.push(eight.iter().enumerate().map(|(k, b)| u8::from(*b) << k).sum());
        }
        let mut page = levels(&there);
        page.extend(values);
        let mut head = Thrift::default();
        head.open();
        head.i32(1, 0); // a data page
        head.i32(2, page.len() as i32);
        head.i32(3, page.len() as i32);
        head.field_struct(5);
        head.i32(1, rows.len() as i32);
        head.i32(2, 0); // plain
        head.i32(3, 3); // levels in runs
        head.i32(4, 3);
        head.close();
        head.close();
        let start = out.len() as i64;
        out.extend(head.out);
        out.extend(page);
        chunks.push((start, out.len() as i64 - start));
    }
    let foot = footer(keys, types, rows.len() as i64, &chunks);
    out.extend(&foot);
    out.extend((foot.len() as u32).to_le_bytes());
    out.extend(MAGIC);
    out
}

fn footer(keys: &[&str], types: &[Type], rows: i64, chunks: &[(i64, i64)]) -> Vec<u8> {
    let mut t = Thrift::default();
    t.open();
    t.i32(1, 1);
    t.list(2, STRUCT, keys.len() + 1);
    t.open();
    t.text(4, "madd-prof");
    t.i32(5, keys.len() as i32);
    t.close();
    for (key, of) in keys.iter().zip(types) {
        t.open();
        t.i32(1, physical(*of));
        t.i32(3, 1); // optional
        t.text(4, key);
        match of {
            Type::ByteArray => t.i32(6, 0), // UTF8
            Type::Int64 => t.i32(6, 14),    // UINT_64
            _ => {}
        }
        t.close();
    }
    t.i64(3, rows);
    t.list(4, STRUCT, 1);
    t.open();
    t.list(1, STRUCT, keys.len());
    for ((key, of), (start, len)) in keys.iter().zip(types).zip(chunks) {
        t.open();
        t.i64(2, *start);
        t.field_struct(3);
        t.i32(1, physical(*of));
        t.list(2, 5, 2);
        t.zigzag(0); // plain
        t.zigzag(3); // runs
        t.list(3, 8, 1);
        t.bytes(key.as_bytes());
        t.i32(4, 0); // uncompressed
        t.i64(5, rows);
        t.i64(6, *len);
        t.i64(7, *len);
        t.i64(9, *start);
        t.close();
        t.close();
    }
    t.i64(2, chunks.iter().map(|c| c.1).sum());
    t.i64(3, rows);
    t.close();
    t.text(6, concat!("madd-prof ", env!("CARGO_PKG_VERSION")));
    t.close();
    t.out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_runs() {
        assert_eq!(levels(&[true, true, false]), [4, 0, 0, 0, 4, 1, 2, 0]);
        assert_eq!(levels(&[]), [0, 0, 0, 0]);
    }

    #[test]
    fn numbers_of_the_protocol() {
        let mut t = Thrift::default();
        t.zigzag(-1);
        t.zigzag(150);
        t.varint(300);
        assert_eq!(t.out, [1, 0xac, 2, 0xac, 2]);
    }
}
