//! What papers call "FLOPs" or "MAdds": multiply-adds of convolutions, linear layers and matrix products, nothing else. That is our own
//! convention, so the lens only shows what such tables usually leave out.

use super::{Books, Subject, Tool};
use crate::analysis::{Class, class_of};

pub const TOOL: Tool = Tool { name: "paper", version: "convention", figure: "MAdds", count };

fn count(s: &Subject, books: &mut Books) {
    for row in &s.analysis.rows {
        let node = s.graph.node(row.node);
        let work = row.work().unwrap_or_default();
        // Products, attention and recurrences are ours as they are theirs; multiply-adds of other operators are left out.
        let counted = !matches!(class_of(s.graph, node), Class::Normalization | Class::Other | Class::Reduction);
        if !counted {
            books.add("operators outside convolutions, linear layers and matrix products", 1, -i128::from(work.madds));
        }
    }
}
