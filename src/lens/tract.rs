//! tract: the static cost of its optimized graph, `FMA(F32)`. <https://github.com/sonos/tract/blob/main/core/src/ops/mod.rs> (`Cost`).
//! It counts multiplications; what it fuses into a product costs nothing.

use super::{Books, Subject, Tool};

pub const TOOL: Tool = Tool { name: "tract", version: "0.23.9", figure: "FMA(F32)", count };

fn count(s: &Subject, books: &mut Books) {
    let _ = (s, books);
}
