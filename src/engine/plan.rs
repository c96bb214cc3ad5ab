//! From fused work to an executable plan: kernels and layouts chosen per step, layout changes inserted, memory placed.

use super::arena::{self, Arena, Request};
use super::joins::{Joins, Spot, whole_blocks};
use super::operands::{Few, Operands};
use super::passes::{Item, Work};
use super::pool::Pool;
use super::reference::{check_inputs, refuse_unknown};
use super::tune::Tuning;
use super::{Options, Runner, Step};
use crate::error::{Error, Result};
use crate::ir::{Graph, NodeId, Source, ValueId, interp};
use crate::kernels::{self, Accept, Entry, Kind, Layout, Prepared, Task, buffer_len};
use crate::machine::affinity;
use crate::ops::sequence::Sequence;
use crate::ops::{Access, EvalCx, Op};
use crate::simd::{Isa, denormals};
use crate::tensor::{Container, DType, Tensor};
use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// Where an operand of a fast kernel is.
#[derive(Debug, Clone)]
enum Place {
    /// A buffer of the arena (index until memory is placed, then its range).
    Buffer(usize),
    /// A tensor on the heap: a graph input or the result of a fallback step.
    Heap(ValueId),
    /// A constant.
    Static(Arc<Vec<f32>>),
}

enum Exec {
    /// A kernel of the table. Where its operands lie is known when memory is placed.
    Fast { prepared: Box<dyn Prepared>, srcs: Vec<Place>, dsts: Vec<usize>, operands: Operands },
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

struct Buffer {
    len: usize,
    first: usize,
    last: usize,
    /// The buffer it is a part of, and where it starts there.
    inside: Option<(usize, usize)>,
}

struct Planner<'g> {
    graph: &'g Graph,
    isa: Isa,
    threads: usize,
    tuning: Option<&'g Tuning>,
    statics: &'g interp::Statics,
    static_floats: HashMap<ValueId, Arc<Vec<f32>>>,
    /// Buffers by value and layout.
    buffers: Vec<Buffer>,
    at: HashMap<(ValueId, Layout), usize>,
    /// Layout each value was made in (arena values only).
    made: HashMap<ValueId, Layout>,
    execs: Vec<Exec>,
    steps: Vec<Step>,
    heap_last_use: HashMap<ValueId, usize>,
    joins: Joins,
    winograd: bool,
}

/// Dims of a value that a fast kernel can handle: `f32`, fully known, not empty.
pub(super) fn fast_dims(graph: &Graph, v: ValueId) -> Option<Vec<usize>> {
    let fact = &graph.value(v).fact;
    let dims = fact.shape.concrete()?;
    (fact.dtype == Some(DType::F32) && fact.container == crate::tensor::Container::Tensor && !dims.contains(&0))
        .then_some(dims)
}

impl Planner<'_> {
    /// The buffer is alive now; so is the one it is a part of.
    fn use_buffer(&mut self, b: usize) {
        let now = self.execs.len();
        let whole = self.buffers[b].inside.map(|i| i.0);
        for b in std::iter::once(b).chain(whole) {
            let buffer = &mut self.buffers[b];
            (buffer.first, buffer.last) = (buffer.first.min(now), buffer.last.max(now));
        }
    }

    fn push_buffer(&mut self, len: usize, inside: Option<(usize, usize)>) -> usize {
        let now = self.execs.len();
        self.buffers.push(Buffer { len, first: now, last: now, inside });
        let b = self.buffers.len() - 1;
        self.use_buffer(b);
        b
    }

    fn new_buffer(&mut self, v: ValueId, layout: Layout, dims: &[usize]) -> usize {
        let spot = self.joins.spots.get(&v).copied().filter(|_| layout == Layout::Blocked);
        let inside = spot.map(|s| self.whole_at(s));
        let b = self.push_buffer(buffer_len(dims, layout, self.isa), inside);
        self.at.insert((v, layout), b);
        self.made.entry(v).or_insert(layout);
        b
    }

    /// The buffer of a whole and the position of a spot in it.
    fn whole_at(&mut self, spot: Spot) -> (usize, usize) {
        let dims = &self.joins.wholes[spot.whole].dims;
        let (len, at) = (buffer_len(dims, Layout::Blocked, self.isa), spot.channel * dims[2] * dims[3]);
        let b = match self.joins.wholes[spot.whole].buffer {
            Some(b) => b,
            None => self.push_buffer(len, None),
        };
        self.joins.wholes[spot.whole].buffer = Some(b);
        (b, at)
    }

    fn push(&mut self, exec: Exec, step: Step) {
        self.execs.push(exec);
        self.steps.push(step);
    }

    /// The layout a value has now; heap and static values are plain.
    fn layout(&self, v: ValueId) -> Layout {
        self.made.get(&v).copied().unwrap_or(Layout::Plain)
    }

    fn static_floats(&mut self, v: ValueId) -> Result<Arc<Vec<f32>>> {
        if let Some(f) = self.static_floats.get(&v) {
            return Ok(f.clone());
        }
        let t = self.statics.get(&v).or(self.graph.value(v).constant.as_ref());
        let t = t.ok_or_else(|| Error::run(format!("constant '{}' has no value", self.graph.value(v).name)))?;
        let floats = Arc::new(t.view::<f32>()?.into_owned());
        self.static_floats.insert(v, floats.clone());
        Ok(floats)
    }

    /// Makes a value available in a layout, inserting a layout change if it is not.
    fn place(&mut self, v: ValueId, want: Layout) -> Result<Place> {
        if let Some(&b) = self.at.get(&(v, want)) {
            self.use_buffer(b);
            return Ok(Place::Buffer(b));
        }
        let from = self.layout(v);
        if want == from {
            // Plain, and not in the arena: static or heap.
            if self.graph.value(v).is_static {
                return Ok(Place::Static(self.static_floats(v)?));
            }
            return Ok(Place::Heap(v));
        }
        let dims = fast_dims(self.graph, v)
            .ok_or_else(|| Error::run(format!("'{}' has no layout to change", self.graph.value(v).name)))?;
        let src = self.place(v, from)?;
        let kind = Kind::Reorder { from, to: want };
        let (dims_in, dims_out) = ([dims.clone()], [dims.clone()]);
        let task = Task {
            kind: &kind,
            srcs: &dims_in,
            layouts: &[from],
            dsts: &dims_out,
            isa: self.isa,
            threads: self.threads,
            winograd: self.winograd,
        };
        let prepared = (kernels::REORDER.prepare)(&task)?;
        let b = self.new_buffer(v, want, &dims);
        let label =
            format!("{} → {}", self.graph.value(v).name, if want == Layout::Blocked { "NCHWc" } else { "NCHW" });
        let step = Step { kernel: kernels::REORDER.name.into(), label, ..Step::default() };
        self.push(Exec::Fast { prepared, srcs: vec![src], dsts: vec![b], operands: Operands::default() }, step);
        Ok(Place::Buffer(b))
    }

    fn item(&mut self, item: &Item) -> Result<()> {
        let label = label_of(self.graph, item);
        let mut step = Step { covers: item.covers.clone(), label, ..Step::default() };
        match &item.work {
            Work::Kernel(kind) => self.fast(item, kind, step),
            Work::View => self.view(item, step),
            Work::Unused => {
                step.kernel = "unused".into();
                self.push(Exec::Nothing, step);
                Ok(())
            }
            Work::Fallback(why) => {
                step.declined.extend(why.clone());
                self.fallback(item, step)
            }
        }
    }

    fn fast(&mut self, item: &Item, kind: &Kind, mut step: Step) -> Result<()> {
        let dims_of = |v: ValueId| {
            fast_dims(self.graph, v)
                .ok_or_else(|| Error::run(format!("'{}' is not fit for a kernel", self.graph.value(v).name)))
        };
        let srcs: Vec<Vec<usize>> = item.srcs.iter().map(|&v| dims_of(v)).collect::<Result<_>>()?;
        let dsts: Vec<Vec<usize>> = item.dsts.iter().map(|&v| dims_of(v)).collect::<Result<_>>()?;
        let layouts: Vec<Layout> = item.srcs.iter().map(|&v| self.layout(v)).collect();
        match kind {
            Kind::Concat(1) if self.joins.spots.contains_key(&item.dsts[0]) && layouts.contains(&Layout::Blocked) => {
                return self.join(item, &srcs, step);
            }
            Kind::Split { axis: 1, parts }
                if layouts == [Layout::Blocked] && whole_blocks(&srcs[0], parts, self.isa.lanes()) =>
            {
                let parts = parts.clone();
                return self.parts(item, &srcs[0], &parts, step);
            }
            Kind::Slice(cuts) if layouts == [Layout::Blocked] => {
                let part = (cuts[1].0, dsts[0][1]);
                let rest = [0, 2, 3].iter().all(|&a| cuts[a] == (0, 1) && srcs[0][a] == dsts[0][a]);
                if rest && cuts[1].1 == 1 && whole_blocks(&srcs[0], &[part], self.isa.lanes()) {
                    return self.parts(item, &srcs[0], &[part], step);
                }
            }
            _ => {}
        }
        let task = Task {
            kind,
            srcs: &srcs,
            layouts: &layouts,
            dsts: &dsts,
            isa: self.isa,
            threads: self.threads,
            winograd: self.winograd,
        };
        let tuned = self.tuning.map(|t| t.choose(&task)).transpose()?.flatten();
        let chosen = match tuned {
            Some(t) => {
                step.declined.extend(t.others);
                (t.entry.accepts)(&task).ok().map(|accept| (t.entry, accept))
            }
            None => choose(&task, &mut step.declined),
        };
        if let Some((entry, accept)) = chosen {
            let prepared = (entry.prepare)(&task)?;
            step.kernel = entry.name.into();
            step.detail = prepared.detail();
            let mut places = Vec::with_capacity(item.srcs.len());
            for (&v, &want) in item.srcs.iter().zip(&accept.srcs) {
                places.push(self.place(v, want)?);
            }
            // Inserting layout changes moved "now": buffers read by this step live until it.
            for p in &places {
                if let Place::Buffer(b) = p {
                    self.use_buffer(*b);
                }
            }
            let out = item.dsts.iter().zip(&dsts).map(|(&v, d)| self.new_buffer(v, accept.dst, d)).collect();
            for p in &places {
                if let Place::Heap(v) = p {
                    self.heap_last_use.insert(*v, self.execs.len());
                }
            }
            self.push(Exec::Fast { prepared, srcs: places, dsts: out, operands: Operands::default() }, step);
            return Ok(());
        }
        // No kernel takes it: only single nodes can fall back, and every kind has a plain kernel for those that are fused.
        match item.covers.as_slice() {
            [_] => self.fallback(item, step),
            _ => Err(Error::run(format!("no kernel takes the fused step '{}'", step.label))),
        }
    }

    /// A join whose parts were made in their places; those that were not are copied there.
    fn join(&mut self, item: &Item, dims: &[Vec<usize>], mut step: Step) -> Result<()> {
        let out = item.dsts[0];
        let spot = self.joins.spots[&out];
        let (mut srcs, mut copies, mut channel) = (Vec::new(), Vec::new(), 0);
        for (&v, d) in item.srcs.iter().zip(dims) {
            let place = self.place(v, Layout::Blocked)?;
            let here = self.whole_at(Spot { channel: spot.channel + channel, ..spot });
            channel += d[1];
            if matches!(place, Place::Buffer(b) if self.buffers[b].inside == Some(here)) {
                continue;
            }
            srcs.push((place, d.clone()));
            copies.push(here);
        }
        for (place, _) in &srcs {
            if let Place::Buffer(b) = place {
                self.use_buffer(*b);
            }
        }
        let whole = fast_dims(self.graph, out).unwrap_or_default();
        self.new_buffer(out, Layout::Blocked, &whole);
        if srcs.is_empty() {
            step.kernel = "in-place".into();
            self.push(Exec::Nothing, step);
            return Ok(());
        }
        let mut dsts = Vec::with_capacity(copies.len());
        for ((_, d), here) in srcs.iter().zip(copies) {
            dsts.push(self.push_buffer(buffer_len(d, Layout::Blocked, self.isa), Some(here)));
        }
        let (places, dims): (Vec<Place>, Vec<Vec<usize>>) = srcs.into_iter().unzip();
        let layouts = vec![Layout::Blocked; dims.len()];
        let task = Task {
            kind: &Kind::Copy,
            srcs: &dims,
            layouts: &layouts,
            dsts: &dims,
            isa: self.isa,
            threads: self.threads,
            winograd: self.winograd,
        };
        step.kernel = kernels::COPY.name.into();
        let prepared = (kernels::COPY.prepare)(&task)?;
        self.push(Exec::Fast { prepared, srcs: places, dsts, operands: Operands::default() }, step);
        Ok(())
    }

    /// Parts of an image's channels: stretches of its buffer.
    fn parts(&mut self, item: &Item, dims: &[usize], parts: &[(usize, usize)], mut step: Step) -> Result<()> {
        let Place::Buffer(b) = self.place(item.srcs[0], Layout::Blocked)? else {
            return Err(Error::run("parts of a value that is not in the arena"));
        };
        let (whole, base) = self.buffers[b].inside.unwrap_or((b, 0));
        for (&v, &(start, len)) in item.dsts.iter().zip(parts) {
            let len = buffer_len(&[1, len, dims[2], dims[3]], Layout::Blocked, self.isa);
            let part = self.push_buffer(len, Some((whole, base + start * dims[2] * dims[3])));
            self.at.insert((v, Layout::Blocked), part);
            self.made.insert(v, Layout::Blocked);
        }
        step.kernel = "in-place".into();
        self.push(Exec::Nothing, step);
        Ok(())
    }

    fn view(&mut self, item: &Item, mut step: Step) -> Result<()> {
        let (from, to) = (item.srcs[0], item.dsts[0]);
        step.kernel = "view".into();
        let dims = self.graph.value(to).fact.shape.concrete();
        // The same value by another name: in whatever layouts it has.
        if self.made.contains_key(&from) && self.graph.value(from).fact.shape.concrete() == dims {
            for layout in [Layout::Plain, Layout::Blocked] {
                if let Some(&b) = self.at.get(&(from, layout)) {
                    self.use_buffer(b);
                    self.at.insert((to, layout), b);
                }
            }
            self.made.insert(to, self.layout(from));
            self.push(Exec::Nothing, step);
            return Ok(());
        }
        match (fast_dims(self.graph, from), dims) {
            (Some(_), Some(_)) if self.made.contains_key(&from) => {
                let Place::Buffer(b) = self.place(from, Layout::Plain)? else {
                    return Err(Error::run("a view of an arena value is not in the arena"));
                };
                self.use_buffer(b);
                self.at.insert((to, Layout::Plain), b);
                self.made.insert(to, Layout::Plain);
                self.push(Exec::Nothing, step);
                Ok(())
            }
            (_, Some(dims)) if !self.graph.value(from).is_static => {
                self.heap_last_use.insert(from, self.execs.len());
                self.push(Exec::HeapView { from, to, dims }, step);
                Ok(())
            }
            _ => self.fallback(item, step),
        }
    }

    fn fallback(&mut self, item: &Item, mut step: Step) -> Result<()> {
        step.kernel = "reference".into();
        let node = item.covers[0];
        let mut arena_inputs = Vec::new();
        for v in self.graph.node(node).inputs.iter().flatten() {
            if self.made.contains_key(v)
                && let Place::Buffer(b) = self.place(*v, Layout::Plain)?
            {
                let dims = fast_dims(self.graph, *v).unwrap_or_default();
                arena_inputs.push((*v, b, dims));
            }
        }
        for (_, b, _) in &arena_inputs {
            self.use_buffer(*b);
        }
        for v in self.graph.node(node).inputs.iter().flatten() {
            self.heap_last_use.insert(*v, self.execs.len());
        }
        self.push(Exec::Fallback { node, arena_inputs, frees: Vec::new() }, step);
        Ok(())
    }
}

/// The kernel of the least estimated cost, the first of equals, and why the others were not taken.
fn choose(task: &Task, declined: &mut Vec<String>) -> Option<(&'static Entry, Accept)> {
    let mut found: Vec<(&Entry, Accept)> = Vec::new();
    for entry in kernels::TABLE {
        match (entry.accepts)(task) {
            Ok(accept) => found.push((entry, accept)),
            Err(why) if why.is_empty() => {}
            Err(why) => declined.push(format!("{}: {why}", entry.name)),
        }
    }
    let least = found.iter().map(|(_, a)| a.cost).fold(f64::INFINITY, f64::min);
    let best = found.iter().position(|(_, a)| a.cost <= least)?;
    for (entry, accept) in found.iter().filter(|(_, a)| a.cost > least && least > 0.0) {
        declined.push(format!("{}: {:.2} times the estimated cost", entry.name, accept.cost / least));
    }
    Some(found.swap_remove(best))
}

fn label_of(graph: &Graph, item: &Item) -> String {
    let mut label = graph.node(item.covers[0]).name.clone();
    for id in &item.covers[1..] {
        label.push_str(" + ");
        label.push_str(&graph.node(*id).op_type);
    }
    label
}

impl Plan {
    pub(super) fn new(graph: &Arc<Graph>, options: &Options) -> Result<Plan> {
        let (isa, threads) = (options.isa, options.threads.max(1));
        refuse_unknown(graph)?;
        let mut statics = interp::statics(graph)?;
        let items = super::passes::items(graph, &statics, isa.lanes())?;
        super::passes::keep_read(graph, &items, &mut statics);
        let mut p = Planner {
            graph,
            isa,
            threads,
            tuning: options.tuning.as_deref(),
            statics: &statics,
            static_floats: HashMap::new(),
            buffers: Vec::new(),
            at: HashMap::new(),
            made: HashMap::new(),
            execs: Vec::new(),
            steps: Vec::new(),
            heap_last_use: HashMap::new(),
            joins: Joins::find(graph, &items, isa.lanes()),
            winograd: options.winograd,
        };
        // Each goes with its unpacked weights when it is planned.
        for item in items {
            p.item(&item).map_err(|e| {
                let node = graph.node(item.covers[0]);
                e.at_node(&node.name, &node.op_type)
            })?;
        }
        let mut outputs = Vec::new();
        for &v in graph.outputs() {
            if p.made.contains_key(&v)
                && let Place::Buffer(b) = p.place(v, Layout::Plain)?
            {
                outputs.push((v, Some((b, fast_dims(graph, v).unwrap_or_default()))));
                continue;
            }
            outputs.push((v, None));
        }
        let end = p.execs.len();
        for (_, place) in &outputs {
            if let Some((b, _)) = place {
                debug_assert_eq!(end, p.execs.len());
                p.use_buffer(*b);
            }
        }
        for &v in graph.outputs() {
            p.heap_last_use.remove(&v);
        }
        // Heap tensors are dropped after their last reader.
        for (v, step) in &p.heap_last_use {
            if let (Exec::Fallback { frees, .. }, Source::Node(..)) = (&mut p.execs[*step], graph.value(*v).source) {
                frees.push(*v);
            }
        }
        let wholes: Vec<usize> = (0..p.buffers.len()).filter(|&b| p.buffers[b].inside.is_none()).collect();
        let request =
            |&b: &usize| Request { len: p.buffers[b].len, first: p.buffers[b].first, last: p.buffers[b].last };
        let requests: Vec<Request> = wholes.iter().map(request).collect();
        let (offsets, total) = arena::place(&requests);
        let mut starts = vec![0; p.buffers.len()];
        wholes.iter().zip(offsets).for_each(|(&b, at)| starts[b] = at);
        let ranges: Vec<Range<usize>> = (p.buffers.iter().zip(&starts))
            .map(|(b, &own)| b.inside.map_or(own, |(whole, at)| starts[whole] + at))
            .zip(&p.buffers)
            .map(|(start, b)| start..start + b.len)
            .collect();
        for (exec, step) in p.execs.iter_mut().zip(&p.steps) {
            if let Exec::Fast { srcs, dsts, operands, .. } = exec {
                let read = srcs
                    .iter()
                    .map(|p| if let Place::Buffer(b) = p { Some(ranges[*b].clone()) } else { None })
                    .collect::<Vec<_>>();
                let written: Vec<Range<usize>> = dsts.iter().map(|&b| ranges[b].clone()).collect();
                *operands = Operands::of(&read, &written).map_err(|e| e.hint(format!("step '{}'", step.label)))?;
            }
        }
        let (execs, steps) = (p.execs, p.steps);
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
            arena: Arena::new(total),
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
                Exec::Fast { prepared, srcs, operands, .. } => {
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
