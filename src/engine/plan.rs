//! An executable plan: kernels made ready, operands in their places, run step by step.

use super::arena::Arena;
use super::operands::{Few, Operands};
use super::planner::{self, Draft, Drawn};
use super::pool::Pool;
use super::prepare::{self, Waiting};
use super::reference::{check_inputs, refuse_unknown};
use super::{Options, Pack, Runner, Step};
use crate::error::{Error, Result};
use crate::ir::{Graph, NodeId, ValueId, interp};
use crate::kernels::Prepared;
use crate::machine::affinity;
use crate::ops::sequence::Sequence;
use crate::ops::{Access, EvalCx, Op};
use crate::simd::{Isa, denormals};
use crate::tensor::{Container, Tensor};
use std::borrow::{Borrow, Cow};
use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

/// Where an operand of a fast kernel is.
#[derive(Debug, Clone)]
pub(super) enum Place {
    /// A buffer of the arena (index until memory is placed, then its range).
    Buffer(usize),
    /// A tensor on the heap: a graph input or the result of a fallback step.
    Heap(ValueId),
    /// A constant.
    Static(Arc<Vec<f32>>),
}

pub(super) enum Exec {
    /// A kernel of the table; `None` while it waits to be made ready.
    Fast { prepared: Option<Box<dyn Prepared>>, srcs: Vec<Place>, operands: Operands },
    /// The operator's reference kernel; results go to the heap.
    Fallback { node: NodeId, arena_inputs: Vec<(ValueId, usize, Vec<usize>)>, frees: Vec<ValueId> },
    /// A view of a heap tensor: same payload, new dims.
    HeapView { from: ValueId, to: ValueId, dims: Vec<usize> },
    /// A view of an arena buffer: nothing to do.
    Nothing,
}

/// A graph prepared for the optimized path.
pub(super) struct Plan {
    graph: Arc<Graph>,
    isa: Isa,
    pool: Pool,
    arena: Arena,
    ranges: Vec<Range<usize>>,
    statics: interp::Statics,
    execs: Vec<Exec>,
    steps: Vec<Step>,
    /// For each graph output: the buffer that holds it in plain layout, or the heap.
    outputs: Vec<(ValueId, Option<(usize, Vec<usize>)>)>,
    /// The results of the last run, for their room.
    kept: Vec<Option<Tensor>>,
    heap: Vec<Option<Tensor>>,
    options: Options,
    /// What is not made ready for good yet.
    late: Late,
}

/// Steps whose weights are packed when the plan runs.
enum Late {
    /// None (any more).
    Settled,
    /// Steps and what they wait for, in order: for the first run, a few at a time.
    Fresh(Vec<(usize, Waiting)>),
    /// The same after a run: the next one packs for all that follow.
    RunOnce(Vec<(usize, Waiting)>),
}

/// Bytes of weights, as the model has them, that the first run packs at a time. More is faster where memory is at hand, since cores wait for
/// each other less often, and slower where the system has to find it.
const AT_A_TIME: usize = 8 << 20;

/// Values of a result that one task copies.
const COPIED: usize = 1 << 16;

impl Plan {
    pub(super) fn new(graph: &Arc<Graph>, options: &Options) -> Result<Plan> {
        let (isa, threads) = (options.isa, options.threads.max(1));
        refuse_unknown(graph)?;
        let mut statics = interp::statics(graph)?;
        let items = super::passes::items(graph, &statics, isa.lanes(), options.weights.as_ref())?;
        let Drawn { drafts, waiting, steps, outputs, ranges, len } = planner::draw(graph, options, &statics, items)?;
        let mut waiting = waiting.into_iter();
        let (mut now, mut late) = (Vec::new(), Vec::new());
        let mut execs = Vec::with_capacity(drafts.len());
        for draft in drafts {
            let i = execs.len();
            execs.push(match draft {
                Draft::Ready(exec) => exec,
                Draft::Fast { srcs, dsts } => {
                    let kernel = waiting.next().ok_or_else(|| Error::run("a step without a kernel"))?;
                    // Sessions that share packed weights need those of the first when the next is prepared.
                    let at_once = options.pack == Pack::AtOnce || options.weights.is_some();
                    if at_once || kernel.unpacked(options) == 0 { &mut now } else { &mut late }.push((i, kernel));
                    let read: Vec<Option<Range<usize>>> = srcs
                        .iter()
                        .map(|p| if let Place::Buffer(b) = p { Some(ranges[*b].clone()) } else { None })
                        .collect();
                    let written: Vec<Range<usize>> = dsts.iter().map(|&b| ranges[b].clone()).collect();
                    let operands =
                        Operands::of(&read, &written).map_err(|e| e.hint(format!("step '{}'", steps[i].label)))?;
                    Exec::Fast { prepared: None, srcs, operands }
                }
            });
        }
        // Computed constants that live on as packed weights only are dropped.
        let mut read: HashSet<ValueId> = graph.outputs().iter().copied().collect();
        for exec in &execs {
            if let Exec::Fallback { node, .. } = exec {
                read.extend(graph.node(*node).inputs.iter().flatten());
            }
        }
        statics.retain(|v, _| read.contains(v));
        let cores = options.cores.clone();
        let pool = Pool::with_hook(threads, move |id| {
            denormals::flush_for_good();
            if let Some(&cpu) = cores.get(id) {
                affinity::pin(cpu);
            }
        });
        let mut plan = Plan {
            graph: graph.clone(),
            isa,
            pool,
            arena: Arena::new(len),
            ranges,
            heap: vec![None; graph.values().len()],
            statics,
            execs,
            steps,
            outputs,
            kept: Vec::new(),
            options: options.clone(),
            late: if late.is_empty() { Late::Settled } else { Late::Fresh(late) },
        };
        plan.make_ready(now)?;
        Ok(plan)
    }

    /// Prepares steps, given away or lent.
    fn make_ready<W: Borrow<Waiting> + Send>(&mut self, waiting: Vec<(usize, W)>) -> Result<()> {
        let (at, waiting): (Vec<usize>, Vec<W>) = waiting.into_iter().unzip();
        for (i, made) in at.into_iter().zip(prepare::all(waiting, &self.options)) {
            let step = &mut self.steps[i];
            let made = made.map_err(|e| match step.covers.first().map(|&id| self.graph.node(id)) {
                Some(node) => e.at_node(&node.name, &node.op_type),
                None => e,
            })?;
            step.detail = made.detail();
            if let Exec::Fast { prepared, .. } = &mut self.execs[i] {
                *prepared = Some(made);
            }
        }
        Ok(())
    }

    /// The first run: weights are packed for a few steps at a time and thrown away after them. All of them would be as much memory again as
    /// the model, which a system has to find and clear; a session that runs once does without.
    fn run_packing(&mut self, waiting: &[(usize, Waiting)], mut times: Option<&mut [f64]>) -> Result<()> {
        let (mut done, mut first) = (0, 0);
        while first < waiting.len() {
            let mut bytes = 0;
            let fits = |(_, w): &&(usize, Waiting)| {
                bytes += w.unpacked(&self.options);
                bytes <= AT_A_TIME
            };
            let last = first + waiting[first..].iter().take_while(fits).count().max(1);
            self.make_ready(waiting[first..last].iter().map(|(i, w)| (*i, w)).collect())?;
            let end = waiting.get(last).map_or(self.execs.len(), |next| next.0);
            let result = self.run_steps(done..end, times.as_deref_mut());
            for (i, _) in &waiting[first..last] {
                self.steps[*i].detail.clear();
                if let Exec::Fast { prepared, .. } = &mut self.execs[*i] {
                    *prepared = None;
                }
            }
            result?;
            (done, first) = (end, last);
        }
        Ok(())
    }

    fn run_steps(&mut self, which: Range<usize>, mut times: Option<&mut [f64]>) -> Result<()> {
        let Plan { graph, pool, arena, ranges, statics, execs, heap, .. } = self;
        let _active = pool.activate();
        let _denormals = denormals::Mode::flushed();
        for (i, exec) in execs.iter().enumerate().take(which.end).skip(which.start) {
            let start = std::time::Instant::now();
            match exec {
                Exec::Nothing => {}
                Exec::Fast { prepared, srcs, operands } => {
                    run_fast(arena, heap, pool, prepared.as_deref(), srcs, operands)?;
                }
                Exec::HeapView { from, to, dims } => {
                    let t = heap[from.0 as usize]
                        .as_ref()
                        .ok_or_else(|| Error::run("a view of a value that was not made"))?;
                    heap[to.0 as usize] = Some(t.reshaped(dims)?);
                }
                Exec::Fallback { node, arena_inputs, frees } => {
                    // The readable loops say what an operator means, to the last denormal.
                    let _exact = denormals::Mode::exact();
                    for (v, b, dims) in arena_inputs {
                        heap[v.0 as usize] = Some(Tensor::from_vec(arena.slice(ranges[*b].clone()).to_vec(), dims)?);
                    }
                    let get = |v: ValueId| {
                        heap[v.0 as usize].as_ref().or_else(|| statics.get(&v)).or(graph.value(v).constant.as_ref())
                    };
                    let made = interp::eval_node(graph, *node, &EvalCx::default(), get)?;
                    for (v, _, _) in arena_inputs {
                        heap[v.0 as usize] = None;
                    }
                    for v in frees {
                        heap[v.0 as usize] = None;
                    }
                    for (v, t) in graph.node(*node).outputs.iter().zip(made) {
                        if let Some(v) = v {
                            heap[v.0 as usize] = Some(t);
                        }
                    }
                }
            }
            if let Some(times) = times.as_deref_mut() {
                times[i] += start.elapsed().as_secs_f64();
            }
        }
        Ok(())
    }
}

/// Runs one fast step: splits the arena into its operands and calls the kernel.
fn run_fast(
    arena: &mut Arena,
    heap: &[Option<Tensor>],
    pool: &Pool,
    prepared: Option<&dyn Prepared>,
    srcs: &[Place],
    operands: &Operands,
) -> Result<()> {
    let prepared = prepared.ok_or_else(|| Error::run("a kernel that was not made ready"))?;
    let mut heap_views: Few<Cow<'_, [f32]>> = Few::new();
    for p in srcs {
        heap_views.push(match p {
            Place::Heap(v) => heap[v.0 as usize]
                .as_ref()
                .ok_or_else(|| Error::run("a step reads a value that was not made"))?
                .view::<f32>()?,
            Place::Static(s) => Cow::Borrowed(s),
            Place::Buffer(_) => Cow::Borrowed(&[]),
        });
    }
    operands.with(arena, |i| &heap_views[i], |srcs, dsts| prepared.run(pool, srcs, dsts));
    Ok(())
}

impl Runner for Plan {
    fn steps(&self) -> &[Step] {
        &self.steps
    }
    fn threads(&self) -> usize {
        self.pool.threads()
    }
    fn isa(&self) -> &'static str {
        self.isa.name()
    }
    fn arena_bytes(&self) -> Option<u64> {
        Some(self.arena.bytes())
    }
    fn packed_bytes(&self) -> Option<u64> {
        let of = |e: &Exec| match e {
            Exec::Fast { prepared, .. } => prepared.as_ref().map(|p| p.packed_bytes() as u64),
            _ => Some(0),
        };
        self.execs.iter().map(of).sum()
    }
    fn settled(&self) -> bool {
        matches!(self.late, Late::Settled)
    }
    fn run(&mut self, inputs: &[Tensor], times: Option<&mut [f64]>) -> Result<Vec<Tensor>> {
        check_inputs(&self.graph, inputs)?;
        if self.options.poison {
            self.arena.fill(f32::NAN);
        }
        self.heap.fill(None);
        for (&id, t) in self.graph.inputs().iter().zip(inputs) {
            self.heap[id.0 as usize] = Some(t.clone());
        }
        match std::mem::replace(&mut self.late, Late::Settled) {
            Late::Settled => self.run_steps(0..self.execs.len(), times)?,
            Late::Fresh(waiting) => {
                let result = self.run_packing(&waiting, times);
                self.late = if result.is_ok() { Late::RunOnce(waiting) } else { Late::Fresh(waiting) };
                result?;
            }
            Late::RunOnce(waiting) => {
                self.make_ready(waiting)?;
                self.run_steps(0..self.execs.len(), times)?;
            }
        }
        let Plan { graph, pool, arena, ranges, statics, outputs, kept, heap, .. } = self;
        // Copies are shared too.
        let _active = pool.activate();
        kept.resize(outputs.len(), None);
        outputs
            .iter()
            .zip(kept)
            .map(|((v, place), kept)| match place {
                Some((b, dims)) => {
                    let values = arena.slice(ranges[*b].clone());
                    // Fresh pages cost as much as the copy: the last result is written over, unless somebody still has it.
                    match kept.as_mut().and_then(Tensor::sole_floats) {
                        Some(room) => pool.for_chunks(room, COPIED, |i, part, _| {
                            part.copy_from_slice(&values[i * COPIED..][..part.len()]);
                        }),
                        None => *kept = Some(Tensor::from_vec(values.to_vec(), dims)?),
                    }
                    kept.clone().ok_or_else(|| Error::run("an output that was not kept"))
                }
                None => heap[v.0 as usize]
                    .as_ref()
                    .or_else(|| statics.get(v))
                    .or(graph.value(*v).constant.as_ref())
                    .cloned()
                    .ok_or_else(|| Error::run(format!("output '{}' was not made", graph.value(*v).name))),
            })
            .collect()
    }
}

/// Whether a node only shows its first input, a tensor, under another shape (same type, nothing else made). What sequences and
/// optionals show is theirs to say.
pub(super) fn is_view(graph: &Graph, id: NodeId) -> bool {
    let node = graph.node(id);
    let fact = |v: Option<&Option<ValueId>>| v.copied().flatten().map(|v| &graph.value(v).fact);
    let (Some(from), Some(to)) = (fact(node.inputs.first()), fact(node.outputs.first())) else { return false };
    // What says something about its input (its shape, whether it is there) moves nothing either, but does not show it.
    let tells = matches!(node.op, Op::Constant(_) | Op::Sequence(Sequence::Has | Sequence::Length));
    !tells
        && node.op.family().access() == Access::View
        && node.outputs.iter().flatten().count() == 1
        && from.dtype == to.dtype
        && from.container == Container::Tensor
        && to.container == Container::Tensor
}
