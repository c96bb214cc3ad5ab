//! The drawing of a plan: which step runs on which kernel, in which layouts, and where its operands lie.
//!
//! Items come in an order that runs. Each is given a kernel by what accepts it and costs least, layout changes are inserted
//! where a kernel wants another than a value has, and memory is placed when all lifetimes are known.

use super::arena::{self, Request};
use super::joins::{Joins, Spot, whole_blocks};
use super::passes::{Item, Work};
use super::plan::{Exec, Place};
use super::prepare::Waiting;
use super::tune::Tuning;
use super::{Options, Step};
use crate::error::{Error, Result};
use crate::ir::{Graph, Source, ValueId, interp};
use crate::kernels::{self, Accept, Entry, Kind, Layout, Task, buffer_len};
use crate::simd::Isa;
use crate::tensor::DType;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

struct Buffer {
    len: usize,
    first: usize,
    last: usize,
    /// The buffer it is a part of, and where it starts there.
    inside: Option<(usize, usize)>,
}

/// What the steps are and where their operands lie; the kernels are not made ready yet.
pub(super) struct Drawn {
    pub(super) drafts: Vec<Draft>,
    pub(super) waiting: Vec<Waiting>,
    pub(super) steps: Vec<Step>,
    /// For each graph output: the buffer that holds it in plain layout, or the heap.
    pub(super) outputs: Vec<(ValueId, Option<(usize, Vec<usize>)>)>,
    /// Where each buffer lies in the arena.
    pub(super) ranges: Vec<Range<usize>>,
    /// Values of the arena.
    pub(super) len: usize,
}

/// A step to be.
pub(super) enum Draft {
    /// By the next of the kernels that wait to be made ready.
    Fast { srcs: Vec<Place>, dsts: Vec<usize> },
    /// Needs nothing more.
    Ready(Exec),
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
    drafts: Vec<Draft>,
    waiting: Vec<Waiting>,
    steps: Vec<Step>,
    heap_last_use: HashMap<ValueId, usize>,
    joins: Joins,
    winograd: bool,
    strassen: bool,
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
        let now = self.drafts.len();
        let whole = self.buffers[b].inside.map(|i| i.0);
        for b in std::iter::once(b).chain(whole) {
            let buffer = &mut self.buffers[b];
            (buffer.first, buffer.last) = (buffer.first.min(now), buffer.last.max(now));
        }
    }

    fn push_buffer(&mut self, len: usize, inside: Option<(usize, usize)>) -> usize {
        let now = self.drafts.len();
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
        self.drafts.push(Draft::Ready(exec));
        self.steps.push(step);
    }

    /// A step by a kernel, which is made ready later.
    fn push_fast(&mut self, waiting: Waiting, srcs: Vec<Place>, dsts: Vec<usize>, mut step: Step) {
        step.kernel = waiting.entry.name.into();
        self.drafts.push(Draft::Fast { srcs, dsts });
        self.waiting.push(waiting);
        self.steps.push(step);
    }

    fn task<'a>(
        &self,
        kind: &'a Kind,
        srcs: &'a [Vec<usize>],
        layouts: &'a [Layout],
        dsts: &'a [Vec<usize>],
    ) -> Task<'a> {
        let (isa, threads, winograd, strassen) = (self.isa, self.threads, self.winograd, self.strassen);
        Task { kind, srcs, layouts, dsts, isa, threads, winograd, strassen, packs: None }
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
        let b = self.new_buffer(v, want, &dims);
        let label =
            format!("{} → {}", self.graph.value(v).name, if want == Layout::Blocked { "NCHWc" } else { "NCHW" });
        let kind = Kind::Reorder { from, to: want };
        let waiting =
            Waiting { entry: &kernels::REORDER, kind, srcs: vec![dims.clone()], layouts: vec![from], dsts: vec![dims] };
        self.push_fast(waiting, vec![src], vec![b], Step { label, ..Step::default() });
        Ok(Place::Buffer(b))
    }

    fn item(&mut self, mut item: Item) -> Result<()> {
        let label = label_of(self.graph, &item);
        let mut step = Step { covers: item.covers.clone(), label, ..Step::default() };
        match std::mem::replace(&mut item.work, Work::Unused) {
            Work::Kernel(kind) => self.fast(&item, *kind, step),
            Work::View => self.view(&item, step),
            Work::Unused => {
                step.kernel = "unused".into();
                self.push(Exec::Nothing, step);
                Ok(())
            }
            Work::Fallback(why) => {
                step.declined.extend(why);
                self.fallback(&item, step)
            }
        }
    }

    fn fast(&mut self, item: &Item, kind: Kind, mut step: Step) -> Result<()> {
        let dims_of = |v: ValueId| {
            fast_dims(self.graph, v)
                .ok_or_else(|| Error::run(format!("'{}' is not fit for a kernel", self.graph.value(v).name)))
        };
        let srcs: Vec<Vec<usize>> = item.srcs.iter().map(|&v| dims_of(v)).collect::<Result<_>>()?;
        let dsts: Vec<Vec<usize>> = item.dsts.iter().map(|&v| dims_of(v)).collect::<Result<_>>()?;
        let layouts: Vec<Layout> = item.srcs.iter().map(|&v| self.layout(v)).collect();
        match &kind {
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
        let task = self.task(&kind, &srcs, &layouts, &dsts);
        let tuned = self.tuning.map(|t| t.choose(&task)).transpose()?.flatten();
        let chosen = match tuned {
            Some(t) => {
                step.declined.extend(t.others);
                (t.entry.accepts)(&task).ok().map(|accept| (t.entry, accept))
            }
            None => choose(&task, &mut step.declined),
        };
        if let Some((entry, accept)) = chosen {
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
            let out = match kind {
                // Results that lie one behind the other.
                Kind::FewBitsTogether(_) => {
                    let lens: Vec<usize> = dsts.iter().map(|d| buffer_len(d, Layout::Plain, self.isa)).collect();
                    let (whole, mut at) = (self.push_buffer(lens.iter().sum(), None), 0);
                    for (&v, len) in item.dsts.iter().zip(lens) {
                        let part = self.push_buffer(len, Some((whole, at)));
                        self.at.insert((v, Layout::Plain), part);
                        self.made.insert(v, Layout::Plain);
                        at += len;
                    }
                    vec![whole]
                }
                _ => item.dsts.iter().zip(&dsts).map(|(&v, d)| self.new_buffer(v, accept.dst, d)).collect(),
            };
            for p in &places {
                if let Place::Heap(v) = p {
                    self.heap_last_use.insert(*v, self.drafts.len());
                }
            }
            self.push_fast(Waiting { entry, kind, srcs, layouts, dsts }, places, out, step);
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
        let waiting = Waiting { entry: &kernels::COPY, kind: Kind::Copy, srcs: dims.clone(), layouts, dsts: dims };
        self.push_fast(waiting, places, dsts, step);
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
                self.heap_last_use.insert(from, self.drafts.len());
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
            self.heap_last_use.insert(*v, self.drafts.len());
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

/// Draws the plan of the items of a graph.
///
/// # Errors
/// If a value is not fit for the kernel its step needs.
pub(super) fn draw(graph: &Graph, options: &Options, statics: &interp::Statics, items: Vec<Item>) -> Result<Drawn> {
    let mut p = Planner {
        graph,
        isa: options.isa,
        threads: options.threads.max(1),
        tuning: options.tuning.as_deref(),
        statics,
        static_floats: HashMap::new(),
        buffers: Vec::new(),
        at: HashMap::new(),
        made: HashMap::new(),
        drafts: Vec::new(),
        waiting: Vec::new(),
        steps: Vec::new(),
        heap_last_use: HashMap::new(),
        joins: Joins::find(graph, &items, options.isa.lanes()),
        winograd: options.winograd,
        strassen: options.strassen,
    };
    for item in items {
        let node = graph.node(item.covers[0]);
        p.item(item).map_err(|e| e.at_node(&node.name, &node.op_type))?;
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
    let end = p.drafts.len();
    for (_, place) in &outputs {
        if let Some((b, _)) = place {
            debug_assert_eq!(end, p.drafts.len());
            p.use_buffer(*b);
        }
    }
    for &v in graph.outputs() {
        p.heap_last_use.remove(&v);
    }
    // Heap tensors are dropped after their last reader.
    for (v, step) in &p.heap_last_use {
        if let (Draft::Ready(Exec::Fallback { frees, .. }), Source::Node(..)) =
            (&mut p.drafts[*step], graph.value(*v).source)
        {
            frees.push(*v);
        }
    }
    let wholes: Vec<usize> = (0..p.buffers.len()).filter(|&b| p.buffers[b].inside.is_none()).collect();
    let request = |&b: &usize| Request { len: p.buffers[b].len, first: p.buffers[b].first, last: p.buffers[b].last };
    let requests: Vec<Request> = wholes.iter().map(request).collect();
    let (offsets, total) = arena::place(&requests);
    for (step, bytes) in p.steps.iter_mut().zip(arena::alive(&requests, end)) {
        step.live_bytes = Some(bytes);
    }
    let mut starts = vec![0; p.buffers.len()];
    wholes.iter().zip(offsets).for_each(|(&b, at)| starts[b] = at);
    let ranges: Vec<Range<usize>> = (p.buffers.iter().zip(&starts))
        .map(|(b, &own)| b.inside.map_or(own, |(whole, at)| starts[whole] + at))
        .zip(&p.buffers)
        .map(|(start, b)| start..start + b.len)
        .collect();
    Ok(Drawn { drafts: p.drafts, waiting: p.waiting, steps: p.steps, outputs, ranges, len: total })
}
