//! How a graph runs: a session prepares a graph once and runs it many times, on one of two paths with the same interface.
//!
//! *Reference*: every node by its operator's readable loops, nothing fused. *Optimized*: graph passes, packed weights, an arena,
//! vector kernels and a thread pool. In both, steps cover nodes, and the covers partition the nodes that run per inference.

pub mod pool;
pub mod tune;
pub use reference::refuse_unknown;

mod arena;
mod joins;
mod meaning;
mod operands;
mod passes;
mod plan;
mod planner;
mod prepare;
mod reference;

use crate::error::{Error, Result};
use crate::ir::{Graph, NodeId};
pub use crate::kernels::{Kept, WeightSet};
use crate::simd::Isa;
use crate::tensor::Tensor;
use std::sync::Arc;

/// Which kernels run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Path {
    /// Readable loops.
    Reference,
    /// Vector kernels.
    Optimized,
    /// Another runtime, whose times were measured or read from its profile.
    Runtime,
}

impl Path {
    /// Lower-case name, as on the command line and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Path::Reference => "reference",
            Path::Optimized => "optimized",
            Path::Runtime => "runtime",
        }
    }
}

/// How a session is prepared.
#[derive(Debug, Clone)]
pub struct Options {
    /// Kernel path.
    pub path: Path,
    /// Threads, at least 1. The reference path always runs on one.
    pub threads: usize,
    /// Instruction set of the optimized path.
    pub isa: Isa,
    /// Processor of each thread, the caller's first; empty: the system places them.
    pub cores: Vec<usize>,
    /// Measured choices between kernels, if any.
    pub tuning: Option<Arc<tune::Tuning>>,
    /// Fill the activation memory with NaN before every run, so that reading what was not written shows. For tests.
    pub poison: bool,
    /// Let 3×3 convolutions use Winograd's algorithm.
    pub winograd: bool,
    /// Let matrix products with constants use Strassen's algorithm.
    pub strassen: bool,
    /// Packed weights to share with other sessions: the widths of one network, the widest opened first.
    pub weights: Option<Arc<WeightSet>>,
    /// Where packed weights are kept between runs.
    pub kept: Option<Arc<Kept>>,
    /// When weights that are not kept are packed.
    pub pack: Pack,
}

/// When a session packs its weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pack {
    /// For good when it runs a second time; the first run packs those of a few steps at a time and throws them away. The result of a session
    /// that runs once is there earlier where memory has to be found first.
    #[default]
    WhenRunAgain,
    /// While it is prepared: every run is like the others.
    AtOnce,
}

impl Options {
    /// A path with a number of threads, on the best instruction set.
    pub fn new(path: Path, threads: usize) -> Options {
        Options {
            path,
            threads,
            isa: Isa::best(),
            cores: Vec::new(),
            tuning: None,
            poison: false,
            winograd: true,
            strassen: true,
            weights: None,
            kept: None,
            pack: Pack::default(),
        }
    }
}

/// One step of a plan: one kernel call, covering one node or several fused ones.
#[derive(Debug, Clone, Default)]
pub struct Step {
    /// The kernel's name, e.g. `reference`, `conv-direct-nchwc`.
    pub kernel: String,
    /// The nodes whose work it does, the one that names the step first. Empty for steps that only move data between layouts.
    pub covers: Vec<NodeId>,
    /// What the step does, for reports: the first node's name, with what is fused.
    pub label: String,
    /// How the kernel does it: algorithm, tile; empty where there is nothing to tell.
    pub detail: String,
    /// Why faster kernels declined, where one did.
    pub declined: Vec<String>,
    /// Bytes of the arena's buffers that hold something while the step runs; `None` where no memory is planned.
    pub live_bytes: Option<u64>,
}

/// A graph prepared to run.
pub struct Session(Box<dyn Runner>);

/// What both paths implement.
trait Runner: Send {
    fn steps(&self) -> &[Step];
    fn threads(&self) -> usize;
    /// The instruction set its kernels use.
    fn isa(&self) -> &'static str;
    /// Bytes of activation memory the plan reserves, if it plans memory.
    fn arena_bytes(&self) -> Option<u64>;
    /// Whether all kernels are ready for good.
    fn settled(&self) -> bool {
        true
    }
    /// Bytes of weights as kernels want them that no other session holds, if it packs any.
    fn packed_bytes(&self) -> Option<u64> {
        None
    }
    /// Runs once. `times[i]` is increased by step i's wall time in seconds when given.
    fn run(&mut self, inputs: &[Tensor], times: Option<&mut [f64]>) -> Result<Vec<Tensor>>;
}

impl Session {
    /// Prepares a graph: constant folding, the choice of kernels, memory planning, and packing of weights unless [`Options::pack`] puts it
    /// off. With `cores`, the calling thread is kept on the first of them from here on.
    ///
    /// # Errors
    /// If the graph holds an operator that cannot run, or preparation fails.
    pub fn new(graph: &Arc<Graph>, options: &Options) -> Result<Session> {
        if let Some(&cpu) = options.cores.first() {
            crate::machine::affinity::pin(cpu);
        }
        Ok(Session(match options.path {
            Path::Reference => Box::new(reference::Reference::new(graph)?),
            Path::Optimized => Box::new(plan::Plan::new(graph, options)?),
            Path::Runtime => return Err(Error::unsupported("another runtime's path cannot be prepared here")),
        }))
    }
    /// The plan's steps, in execution order. Those that wait to be made ready have no detail yet.
    pub fn steps(&self) -> &[Step] {
        self.0.steps()
    }
    /// Threads in use.
    pub fn threads(&self) -> usize {
        self.0.threads()
    }
    /// Instruction set in use (`portable`, `avx2` …).
    pub fn isa(&self) -> &'static str {
        self.0.isa()
    }
    /// Planned activation memory in bytes.
    pub fn arena_bytes(&self) -> Option<u64> {
        self.0.arena_bytes()
    }
    /// Whether the next run is done as all later ones will be: nothing is packed in it.
    pub fn settled(&self) -> bool {
        self.0.settled()
    }
    /// Bytes of packed weights, once the session is settled, without those that a wider session with the same [`Options::weights`] holds.
    pub fn packed_bytes(&self) -> Option<u64> {
        self.0.packed_bytes()
    }
    /// Runs once on the graph's inputs, in order.
    ///
    /// # Errors
    /// If an input does not fit, or a kernel fails (an index out of range in the data).
    pub fn run(&mut self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        self.0.run(inputs, None)
    }
    /// Runs once and adds each step's wall time in seconds to `times` (as long as [`Session::steps`]).
    ///
    /// # Errors
    /// As [`Session::run`].
    pub fn run_timed(&mut self, inputs: &[Tensor], times: &mut [f64]) -> Result<Vec<Tensor>> {
        self.0.run(inputs, Some(times))
    }
}
