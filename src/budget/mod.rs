//! What models may cost: limits in `madd-prof.toml`, baselines to grow from, verdicts with the layers responsible, and what changed
//! between two models. Static limits are exact; what cannot be known is *cannot tell*, never pass.

pub mod amount;
pub mod baseline;
pub mod blame;
pub mod diff;
pub mod formula;
pub mod judge;
pub mod latency;
pub mod settings;
pub mod snapshot;

use std::path::{Component, PathBuf};

pub use settings::{Budget, Limit, Settings};
pub use snapshot::{Metric, Row, Snapshot, Value};

/// How much a limit matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// It is not looked at.
    Off,
    /// It is told, and changes no exit code.
    Warn,
    /// It fails the check.
    Error,
}

impl Level {
    /// As in the file.
    pub fn name(self) -> &'static str {
        match self {
            Level::Off => "off",
            Level::Warn => "warn",
            Level::Error => "error",
        }
    }
}

/// What became of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It holds.
    Pass,
    /// It does not hold.
    Breach,
    /// Whether it holds is not known: a cost without a rule, no baseline, too much noise.
    CannotTell,
}

impl Outcome {
    /// For machines.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Pass => "pass",
            Outcome::Breach => "breach",
            Outcome::CannotTell => "cannot_tell",
        }
    }
    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Outcome::Pass => "pass",
            Outcome::Breach => "BREACH",
            Outcome::CannotTell => "cannot tell",
        }
    }
}

/// A layer that a limit's figure comes from.
#[derive(Debug, Clone, PartialEq)]
pub struct Culprit {
    /// Its name in the file.
    pub layer: String,
    /// Its operator.
    pub op: String,
    /// Its part of the figure; of what was added, where there is a baseline.
    pub amount: u64,
    /// `added`, `grown`, or `largest` where there is nothing to compare with.
    pub how: &'static str,
}

/// One limit on one model, looked at.
#[derive(Debug, Clone)]
pub struct Finding {
    /// Name of the budget.
    pub budget: String,
    /// File or built-in network.
    pub model: String,
    /// Whether that is a file.
    pub is_file: bool,
    /// The limit's key: `madds`, `layer.madds`, `op.Conv.params`, `growth.bytes`, `formula`, `latency`.
    pub rule: String,
    /// The limit in words.
    pub limit: String,
    /// What was found, in words.
    pub found: String,
    /// What was found, where it is a number; the unit is the rule's.
    pub value: Option<f64>,
    /// The limit, where it is a number.
    pub bound: Option<f64>,
    /// What became of it.
    pub outcome: Outcome,
    /// How much that matters.
    pub level: Level,
    /// The layers responsible, the first most.
    pub culprits: Vec<Culprit>,
    /// Why it cannot be told, and with `--why` what would fit.
    pub notes: Vec<String>,
    /// Line of the limit in the file.
    pub line: usize,
}

impl Finding {
    /// Whether it fails the check.
    pub fn fails(&self) -> bool {
        self.level == Level::Error && self.outcome == Outcome::Breach
    }
    /// One sentence: what, how much, how much is allowed, and which layer.
    pub fn sentence(&self) -> String {
        let mut text = match self.outcome {
            Outcome::Breach => format!("{}: {} is {}, allowed: {}", self.budget, self.rule, self.found, self.limit),
            Outcome::Pass => format!("{}: {} is {}, within {}", self.budget, self.rule, self.found, self.limit),
            Outcome::CannotTell => format!("{}: whether {} is {} cannot be told", self.budget, self.rule, self.limit),
        };
        if let Some(c) = self.culprits.first().filter(|_| self.outcome == Outcome::Breach) {
            let how = match c.how {
                "added" => "added",
                "grown" => "grew",
                _ => "is the largest",
            };
            let amount = crate::units::exact(c.amount);
            let amount = if c.how == "largest" { amount } else { format!("+{amount}") };
            text.push_str(&format!("; layer '{}' ({}) {how}: {amount}", c.layer, c.op));
        }
        if self.outcome == Outcome::CannotTell
            && let Some(note) = self.notes.first()
        {
            text.push_str(&format!(": {note}"));
        }
        text
    }
}

/// All limits looked at.
#[derive(Debug, Clone, Default)]
pub struct Verdict {
    /// The file the limits are in.
    pub config: String,
    /// The folder that paths here are from, and the top of its repository: what services show is named from there.
    pub here: PathBuf,
    /// See `here`.
    pub top: PathBuf,
    /// One per limit and model.
    pub findings: Vec<Finding>,
    /// How many budgets and models were looked at.
    pub models: usize,
}

impl Verdict {
    /// A path from the top of the repository; one outside of it is whole.
    pub fn from_top(&self, path: &str) -> String {
        let mut whole = PathBuf::new();
        for part in self.here.join(path).components() {
            match part {
                Component::CurDir => {}
                Component::ParentDir => _ = whole.pop(),
                part => whole.push(part),
            }
        }
        if self.here.as_os_str().is_empty() {
            return path.replace('\\', "/");
        }
        whole.strip_prefix(&self.top).unwrap_or(&whole).to_string_lossy().replace('\\', "/")
    }
    /// The worst that counts: a breach before what cannot be told before a pass.
    pub fn outcome(&self) -> Outcome {
        let has = |o: Outcome| self.findings.iter().any(|f| f.level == Level::Error && f.outcome == o);
        if has(Outcome::Breach) {
            Outcome::Breach
        } else if has(Outcome::CannotTell) {
            Outcome::CannotTell
        } else {
            Outcome::Pass
        }
    }
    /// Findings of an outcome.
    pub fn of(&self, outcome: Outcome) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(move |f| f.outcome == outcome)
    }
}
