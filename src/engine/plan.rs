//! An executable plan: kernels made ready, operands in their places, run step by step.

use super::arena::Arena;
use super::operands::{Few, Operands};
use super::planner::{self, Draft, Drawn};
use super::pool::Pool;
use super::prepare;
use super::reference::{check_inputs, refuse_unknown};
use super::{Options, Runner, Step};
use crate::error::{Error, Result};
use crate::ir::{Graph, NodeId, ValueId, interp};
use crate::kernels::Prepared;
use crate::machine::affinity;
use crate::ops::sequence::Sequence;
use crate::ops::{Access, EvalCx, Op};
use crate::simd::{Isa, denormals};
use crate::tensor::{Container, Tensor};
use std::borrow::Cow;
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
    /// A kernel of the table.
    Fast { prepared: Box<dyn Prepared>, srcs: Vec<Place>, operands: Operands },
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
    poison: bool,
}

/// Values of a result that one task copies.
const COPIED: usize = 1 << 16;

impl Plan {
    pub(super) fn new(graph: &Arc<Graph>, options: &Options) -> Result<Plan> {
        let (isa, threads) = (options.isa, options.threads.max(1));
        refuse_unknown(graph)?;
        let mut statics = interp::statics(graph)?;
        let items = super::passes::items(graph, &statics, isa.lanes(), options.weights.as_ref())?;
        super::passes::keep_read(graph, &items, &mut statics);
        let Drawn { drafts, waiting, mut steps, outputs, ranges, len } =
            planner::draw(graph, options, &statics, items)?;
        // In the order of the drafts that wait for them.
        let mut ready = prepare::all(waiting, options).into_iter();
        let mut execs = Vec::with_capacity(drafts.len());
        for (draft, step) in drafts.into_iter().zip(&mut steps) {
            execs.push(match draft {
                Draft::Ready(exec) => exec,
                Draft::Fast { srcs, dsts } => {
                    let made = ready.next().unwrap_or_else(|| Err(Error::run("a kernel that was not made")));
                    let prepared = made.map_err(|e| match step.covers.first().map(|&id| graph.node(id)) {
                        Some(node) => e.at_node(&node.name, &node.op_type),
                        None => e,
                    })?;
                    step.detail = prepared.detail();
                    let read: Vec<Option<Range<usize>>> = srcs
                        .iter()
                        .map(|p| if let Place::Buffer(b) = p { Some(ranges[*b].clone()) } else { None })
                        .collect();
                    let written: Vec<Range<usize>> = dsts.iter().map(|&b| ranges[b].clone()).collect();
                    let operands =
                        Operands::of(&read, &written).map_err(|e| e.hint(format!("step '{}'", step.label)))?;
                    Exec::Fast { prepared, srcs, operands }
                }
            });
        }
        let cores = options.cores.clone();
        let pool = Pool::with_hook(threads, move |id| {
            denormals::flush_for_good();
            if let Some(&cpu) = cores.get(id) {
                affinity::pin(cpu);
            }
        });
        Ok(Plan {
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
            poison: options.poison,
        })
    }
}

/// Runs one fast step: splits the arena into its operands and calls the kernel.
fn run_fast(
    arena: &mut Arena,
    heap: &[Option<Tensor>],
    pool: &Pool,
    prepared: &dyn Prepared,
    srcs: &[Place],
    operands: &Operands,
) -> Result<()> {
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
        let of = |e: &Exec| if let Exec::Fast { prepared, .. } = e { prepared.packed_bytes() as u64 } else { 0 };
        Some(self.execs.iter().map(of).sum())
    }
    fn run(&mut self, inputs: &[Tensor], mut times: Option<&mut [f64]>) -> Result<Vec<Tensor>> {
        check_inputs(&self.graph, inputs)?;
        let Plan { graph, pool, arena, ranges, statics, execs, outputs, kept, heap, poison, .. } = self;
        if *poison {
            arena.fill(f32::NAN);
        }
        heap.fill(None);
        for (&id, t) in graph.inputs().iter().zip(inputs) {
            heap[id.0 as usize] = Some(t.clone());
        }
        let _active = pool.activate();
        let _denormals = denormals::Mode::flushed();
        for (i, exec) in execs.iter().enumerate() {
            let start = std::time::Instant::now();
            match exec {
                Exec::Nothing => {}
                Exec::Fast { prepared, srcs, operands } => {
                    run_fast(arena, heap, pool, prepared.as_ref(), srcs, operands)?;
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
