//! The Rosetta lens: the figure another counter gives for a graph, and the whole difference from our MAdds, line by line.
//!
//! Most counters look at a torch program, not at a graph. `calls` reconstructs the calls of that program from what the exporter left
//! (node metadata, scope names, names of constants, the shape of the graph), each tool's file says what its tool counts for each call,
//! and `Books` keeps the difference: our MAdds plus all lines is the figure, always and exactly.
//!
//! To add a tool: a file with a [`Tool`] and one line in `TOOLS`.

mod books;
mod calflops;
mod calls;
mod evidence;
mod fvcore;
mod modules;
mod onnx_tool;
mod paper;
mod patterns;
mod ptflops;
mod recognize;
mod thop;
mod torch;
mod torchinfo;
mod torchprofile;
mod tract;
mod ultralytics_thop;

pub use books::Line;

use crate::analysis::Analysis;
use crate::error::{Error, Result};
use crate::ir::{Graph, Model};
use books::Books;
use calls::Program;

/// One row of the tool table.
#[derive(Debug)]
pub struct Tool {
    /// Name on the command line.
    pub name: &'static str,
    /// The version whose behaviour is modelled.
    pub version: &'static str,
    /// The tool's own word for its figure.
    pub figure: &'static str,
    /// What is counted; reads the subject and writes the books.
    count: fn(&Subject, &mut Books),
}

/// The tools. A tool with two figures has two rows of the same name.
static TOOLS: &[&Tool] = &[
    &fvcore::TOOL,
    &thop::TOOL,
    &ultralytics_thop::TOOL,
    &ptflops::TOOL,
    &ptflops::ATEN,
    &torchinfo::TOOL,
    &torchprofile::TOOL,
    &calflops::MACS,
    &calflops::FLOPS,
    &torch::TOOL,
    &onnx_tool::TOOL,
    &tract::TOOL,
    &paper::TOOL,
];

/// What tools look at.
#[derive(Debug)]
struct Subject<'a> {
    graph: &'a Graph,
    analysis: &'a Analysis,
    /// The torch calls behind the graph.
    program: &'a Program,
    /// Gradients are enabled while the tool runs the model, so attention modules run call by call instead of as one kernel.
    gradients: bool,
}

impl Subject<'_> {
    /// Tells that convolutions with a folded BatchNorm are taken to have had no bias of their own.
    fn lost_bias(&self, books: &mut Books) {
        if self.program.bias_assumed > 0 {
            books.note(format!(
                "{} with a BatchNorm folded in taken to have had no bias, as is usual",
                crate::units::plural(self.program.bias_assumed, "convolution")
            ));
        }
    }

    /// Tells that classes are not known, for tools that look at the exact class.
    fn classes(&self, books: &mut Books) {
        if !self.program.classes_told {
            books.note("the file does not name classes: modules are taken for torch.nn's own, whose subclasses this tool does not count");
        }
    }

    /// Refuses graphs that no torch program exports to: what a torch counter prints for them is anybody's guess.
    fn is_torch(&self, books: &mut Books) -> bool {
        for (op, n) in &self.program.foreign {
            books.refuse(format!("no torch program exports to {op} ({})", crate::units::plural(*n, "node")));
        }
        self.program.notes.iter().for_each(|n| books.note(n.as_str()));
        self.program.foreign.is_empty()
    }
}

/// A tool's figure and why it is not ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lens {
    /// The tool.
    pub tool: &'static str,
    /// The version whose behaviour is modelled.
    pub version: &'static str,
    /// The tool's own word for its figure.
    pub figure_name: &'static str,
    /// The figure; `None` where the tool cannot be compared (the notes say why).
    pub figure: Option<u64>,
    /// Our MAdds, from which the lines start.
    pub ours_madds: u64,
    /// The difference, largest line first. `ours_madds` and all amounts sum to `figure`.
    pub lines: Vec<Line>,
    /// What was assumed because the graph does not tell.
    pub notes: Vec<String>,
}

/// Names of all tools.
pub fn names() -> Vec<&'static str> {
    let mut names: Vec<&str> = TOOLS.iter().map(|t| t.name).collect();
    names.dedup();
    names
}

/// Looks at a model as the named tools would (`all`, or names separated by commas).
///
/// # Errors
/// If a name is no tool.
pub fn look(asked: &str, model: &Model, analysis: &Analysis) -> Result<Vec<Lens>> {
    let mut tools: Vec<&Tool> = Vec::new();
    for name in asked.split(',').map(str::trim) {
        let found: Vec<&&Tool> = TOOLS.iter().filter(|t| name == "all" || t.name == name).collect();
        if found.is_empty() {
            return Err(Error::usage(format!("--as: there is no counter '{name}'"))
                .hint(format!("counters: all, {}", names().join(", "))));
        }
        for tool in found {
            if !tools.iter().any(|t| std::ptr::eq(*t, *tool)) {
                tools.push(tool);
            }
        }
    }
    let program = recognize::program(model);
    let subject = Subject { graph: &model.graph, analysis, program: &program, gradients: false };
    Ok(tools.into_iter().map(|tool| through(tool, &subject)).collect())
}

fn through(tool: &'static Tool, subject: &Subject) -> Lens {
    let ours_madds = subject.analysis.totals.work.madds;
    let mut books = Books::default();
    if subject.analysis.totals.unknown_nodes > 0 {
        let mut ops: Vec<&str> = Vec::new();
        for row in subject.analysis.rows.iter().filter(|r| r.work().is_none()) {
            if !ops.contains(&row.op.as_str()) {
                ops.push(&row.op);
            }
        }
        ops.truncate(6);
        books.refuse(format!("our own count is incomplete: the cost of {} is unknown", ops.join(", ")));
    } else {
        (tool.count)(subject, &mut books);
    }
    let (figure, lines, mut notes) = books.close(ours_madds);
    if figure.is_some() {
        let mut other = Books::default();
        (tool.count)(&Subject { gradients: true, ..*subject }, &mut other);
        let other = other.close(ours_madds).0;
        if let Some(other) = other.filter(|o| Some(*o) != figure) {
            notes.push(format!(
                "taken as run in evaluation mode under no_grad; with gradients enabled it prints {}",
                crate::units::exact(other)
            ));
        }
    }
    if figure.is_some() && subject.program.spelling_assumed {
        let with = |operator: bool| {
            let mut books = Books::default();
            let program = subject.program.spelt(operator);
            (tool.count)(&Subject { program: &program, ..*subject }, &mut books);
            books.close(ours_madds).0
        };
        if let (Some(functions), Some(operators)) = (with(false), with(true))
            && functions != operators
        {
            notes.push(format!(
                "the file does not say how products of activations were written: with torch.matmul and F.softmax the tool prints {}, with \
                 @ and x.softmax {}; one is assumed by the shape of the code",
                crate::units::exact(functions),
                crate::units::exact(operators)
            ));
        }
    }
    Lens { tool: tool.name, version: tool.version, figure_name: tool.figure, figure, ours_madds, lines, notes }
}

/// FLOPs as `numpy.einsum_path` prints them: to four digits.
fn four_digits(n: i128) -> i128 {
    format!("{:.3e}", n as f64).parse::<f64>().map_or(n, |f| f as i128)
}

/// Elements of known dims.
fn volume(dims: &[usize]) -> i128 {
    dims.iter().map(|&d| d as i128).product()
}
