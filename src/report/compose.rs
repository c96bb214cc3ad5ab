//! The one place where what was counted and what was measured meet.

use super::conventions::Convention;
use super::model::{BodyRows, ClassRow, Imported, Kind, Latency, Layer, ModelInfo, Port, Report, StepRow, Time};
use super::{findings, hierarchy, live, roofline};
use crate::analysis::{Analysis, Class, Demands, class_of, live_bytes};
use crate::cost::Work;
use crate::engine::Path;
use crate::ir::{Graph, Model, NodeId};
use crate::lens::Lens;
use crate::machine::Machine;
use crate::measure::Profile;
use crate::measure::host::Host;
use crate::measure::import::Joined;
use std::collections::{BTreeMap, HashMap};

/// What a report is about and what goes into it.
pub struct Source<'a> {
    /// Subcommand.
    pub command: &'static str,
    /// File stem or zoo name.
    pub name: String,
    /// The file, unless it came from the zoo.
    pub path: Option<String>,
    /// The model.
    pub model: &'a Model,
    /// Its counts.
    pub analysis: &'a Analysis,
    /// Per-step measurements, at most one per path.
    pub profiles: &'a [Profile],
    /// Whole-run measurements (`bench`), at most one per path.
    pub latency: Vec<Latency>,
    /// Reference ÷ optimized, where paired.
    pub paired_speedup: Option<f64>,
    /// The machine, if something was measured.
    pub host: Option<Host>,
    /// Its ceilings with their age in seconds, if there are any.
    pub machine: Option<(&'a Machine, u64)>,
    /// Nodes covered by each step of the optimized path, where its steps were not measured.
    pub steps: Vec<Vec<NodeId>>,
    /// What another runtime measured, joined with the model; its profile is among `profiles`.
    pub imported: Option<Joined>,
    /// The most memory this process has held at once, where that is asked for.
    pub peak_resident_bytes: Option<u64>,
    /// Totals under other conventions.
    pub conventions: Vec<Convention>,
    /// What other counters print.
    pub lenses: Vec<Lens>,
    /// Things the reader must know, besides what the model's own notes say.
    pub warnings: Vec<String>,
}

/// Makes the report.
pub fn compose(source: Source) -> Report {
    let graph = &source.model.graph;
    let analysis = source.analysis;
    let mut latency = source.latency.clone();
    latency.extend(source.profiles.iter().map(|p| Latency {
        path: p.path,
        stats: p.stats,
        warmup_runs: p.samples.warmup_runs,
        stop: p.samples.stop.name(),
        threads: p.threads,
        isa: p.isa.clone(),
        arena_bytes: p.arena_bytes,
        prepare_s: p.prepare_s,
        first_s: p.first_s,
        kept_bytes: p.kept_bytes,
        samples: p.samples.seconds.clone(),
        per_step: true,
    }));
    let measured = |path: Path| latency.iter().find(|l| l.path == path);
    let main = [Path::Optimized, Path::Runtime, Path::Reference].into_iter().find(|&p| measured(p).is_some());
    let speedup = source.paired_speedup.or_else(|| {
        let (r, o) = (measured(Path::Reference)?, measured(Path::Optimized)?);
        (o.stats.median > 0.0).then(|| r.stats.median / o.stats.median)
    });
    let mut layers = rows(graph, &analysis.rows);
    live::attach(graph, &mut layers);
    for (layer, bytes) in layers.iter_mut().zip(live_bytes(graph).into_iter().flatten()) {
        layer.live_bytes = (layer.kind == Kind::Layer).then_some(bytes);
    }
    let mut overhead = Vec::new();
    for profile in source.profiles {
        attribute(&mut layers, &mut overhead, graph, profile);
    }
    let total_ms = source.profiles.iter().find(|p| Some(p.path) == main).map(|p| p.total_s() * 1e3);
    let total_madds = analysis.totals.work.madds;
    let fused_work = fused_work(source.profiles.iter().find(|p| Some(p.path) == main), analysis);
    for (i, layer) in layers.iter_mut().chain(&mut overhead).enumerate() {
        let counted = layer.kind == Kind::Layer && layer.unknown_nodes == 0;
        layer.madds_share = (counted && total_madds > 0).then(|| layer.work.madds as f64 / total_madds as f64);
        let ms = layer.main_ms(main);
        layer.time_share = ms.zip(total_ms).and_then(|(ms, total)| (total > 0.0).then(|| ms / total));
        // The step's time is spent on all it covers, so its rate is over all it covers.
        let madds = fused_work.get(&i).map_or(layer.work.madds, |w| w.madds);
        layer.madds_per_s = ms.filter(|ms| *ms > 0.0 && madds > 0 && counted).map(|ms| madds as f64 / ms * 1e3);
    }
    let roofline = roofline::attach(&mut layers, &source, &latency);
    let steps = match source.profiles.iter().find(|p| Some(p.path) == main) {
        Some(profile) => steps(graph, analysis, profile, roofline.as_ref()),
        None => Vec::new(),
    };
    let mut not_learned: BTreeMap<&'static str, u64> = BTreeMap::new();
    for e in &analysis.params.excluded {
        *not_learned.entry(e.why.words()).or_default() += e.elements;
    }
    let mut warnings = source.model.notes.clone();
    warnings.extend(source.warnings);
    let mut report = Report {
        command: source.command,
        model: info(&source.name, source.path, source.model),
        totals: analysis.totals,
        time_coverage: time_coverage(&layers, main),
        madds_by_type: analysis.madds_by_type().into_iter().map(|(o, n)| (o.name(), n)).collect(),
        bytes_by_type: analysis.bytes_by_type().into_iter().map(|(d, n)| (d.name().to_string(), n)).collect(),
        distinct: None,
        static_nodes: layers.iter().filter(|l| l.kind == Kind::Static).count(),
        not_learned: not_learned.into_iter().collect(),
        classes: classes(&layers, main, total_ms, total_madds),
        layers,
        overhead,
        steps,
        latency,
        speedup,
        main,
        conventions: source.conventions,
        lenses: source.lenses,
        host: source.host,
        machine: source.machine.map(|(m, _)| m.clone()),
        roofline,
        imported: source.imported.map(|j| Imported::of(&j, graph)),
        peak_resident_bytes: source.peak_resident_bytes,
        image: live::image_sizes(graph),
        symbolic: None,
        findings: Vec::new(),
        warnings,
    };
    report.findings = findings::findings(&report);
    report
}

fn info(name: &str, path: Option<String>, model: &Model) -> ModelInfo {
    let ports = |ids: &[crate::ir::ValueId]| -> Vec<Port> {
        let port = |v: &crate::ir::Value| Port { name: v.name.clone(), fact: v.fact.clone() };
        ids.iter().map(|&id| port(model.graph.value(id))).collect()
    };
    ModelInfo {
        name: name.to_string(),
        path,
        opsets: model.opsets.clone(),
        producer: model.producer.clone(),
        inputs: ports(model.graph.inputs()),
        outputs: ports(model.graph.outputs()),
        bound: model.bound.clone(),
    }
}

/// Share of the measured time of nodes that is spent in nodes of known cost.
fn time_coverage(layers: &[Layer], main: Option<Path>) -> Option<f64> {
    let time = |known: bool| -> f64 {
        layers.iter().filter(|l| !known || l.unknown_nodes == 0).filter_map(|l| l.main_ms(main)).sum()
    };
    let all = time(false);
    (all > 0.0).then(|| time(true) / all)
}

/// One row per node, without times.
fn rows(graph: &Graph, analysis: &[crate::analysis::Row]) -> Vec<Layer> {
    let row = |r: &crate::analysis::Row| {
        let node = graph.node(r.node);
        // Subgraphs come in the order of attribute names; people think of `then` before `else`.
        let inner = node.op.family().bodies();
        let bodies = r.bodies.iter().zip(&inner).rev().filter_map(|(b, inner)| {
            Some(BodyRows {
                name: b.name,
                rounds: b.rounds,
                span: b.span,
                is_executed: b.is_executed,
                layers: rows(inner.as_any().downcast_ref()?, &b.rows),
            })
        });
        let kind = if r.is_static { Kind::Static } else { Kind::Layer };
        Layer {
            path: hierarchy::path(node),
            op: r.op.clone(),
            class: Some(class_of(graph, node)),
            output_name: node.outputs.first().copied().flatten().map(|v| graph.value(v).name.clone()),
            source_elements: node
                .inputs
                .iter()
                .flatten()
                .find(|v| !graph.value(**v).is_static)
                .and_then(|v| graph.value(*v).fact.elements())
                .map(|n| n as u64),
            output_shape: Some(r.output_shape.clone()),
            output_dtype: r.output_dtype,
            params: r.params,
            shared_params: r.shared_params,
            statistics: r.statistics,
            work: r.work().unwrap_or(Work::NONE),
            span: r.span,
            is_executed: r.is_executed,
            operands: r.operands.filter(|_| r.work().is_none_or(|w| w.madds > 0)).map(|o| o.name()),
            activation_madds: r.activation_madds,
            bodies: bodies.collect(),
            traffic: r.traffic.unwrap_or_default(),
            nodes: 1,
            unknown_nodes: usize::from(r.work().is_none()),
            unknown_traffic: usize::from(r.traffic.is_none()),
            ..Layer::empty(kind, &r.name)
        }
    };
    analysis.iter().map(row).collect()
}

/// Gives each step's time to its first node, points its other nodes there, and keeps what belongs to no node as overhead.
fn attribute(layers: &mut [Layer], overhead: &mut Vec<Layer>, graph: &Graph, profile: &Profile) {
    let path = profile.path;
    let slot = |l: &mut Layer, time: Time| match path {
        Path::Reference => l.reference = time,
        Path::Optimized => l.optimized = time,
        Path::Runtime => l.runtime = time,
    };
    let mut add = |name: &str, ms: f64| {
        let at = overhead.iter().position(|l| l.name == name).unwrap_or_else(|| {
            overhead.push(Layer::empty(Kind::Overhead, name));
            overhead.len() - 1
        });
        let row = &mut overhead[at];
        let before = row.main_ms(Some(path));
        slot(row, Time::Ms(before.unwrap_or(0.0) + ms));
    };
    for step in &profile.steps {
        let ms = step.seconds * 1e3;
        let Some((&first, others)) = step.covers.split_first() else {
            add(&format!("[{}]", step.kernel), ms);
            continue;
        };
        let Some(row) = layers.get_mut(first.0 as usize) else { continue };
        let ms = row_ms(row, path) + ms;
        slot(row, Time::Ms(ms));
        if path == Path::Optimized || (path == Path::Runtime && row.kernel.is_none()) {
            row.kernel = Some(step.kernel.clone());
        }
        let name = graph.node(first).name.clone();
        for other in others {
            if let Some(row) = layers.get_mut(other.0 as usize) {
                slot(row, Time::FusedInto(name.clone()));
            }
        }
    }
    if path != Path::Runtime {
        add("[timer]", profile.timer_s * 1e3);
    }
    add("[between steps]", profile.other_s * 1e3);
}

fn row_ms(row: &Layer, path: Path) -> f64 {
    row.main_ms(Some(path)).unwrap_or(0.0)
}

/// For the first node of every step of several nodes: the work of all of them.
fn fused_work(profile: Option<&Profile>, analysis: &Analysis) -> HashMap<usize, Work> {
    let work = |id: &NodeId| analysis.rows.get(id.0 as usize).and_then(|r| r.work()).unwrap_or_default();
    let steps = profile.into_iter().flat_map(|p| &p.steps).filter(|s| s.covers.len() > 1);
    steps.map(|s| (s.covers[0].0 as usize, s.covers.iter().map(work).sum())).collect()
}

/// The steps of a profile with what their nodes cost together.
fn steps(graph: &Graph, analysis: &Analysis, profile: &Profile, roofline: Option<&roofline::Roofline>) -> Vec<StepRow> {
    let demands = Demands::new(graph, analysis);
    let roofline = roofline.filter(|_| profile.path == Path::Optimized);
    let step = |s: &crate::measure::StepTime| {
        let demand = if s.covers.is_empty() { None } else { demands.of(&s.covers) };
        let roof = demand.as_ref().zip(roofline).map(|(d, r)| r.ceilings.roof(d, demands.resident_bytes()));
        let madds = |id: &NodeId| analysis.rows.get(id.0 as usize).and_then(|r| r.work()).map_or(0, |w| w.madds);
        let largest = s.covers.iter().rev().max_by_key(|id| madds(id));
        StepRow {
            label: s.label.clone(),
            kernel: s.kernel.clone(),
            covers: s.covers.iter().map(|&id| graph.node(id).name.clone()).collect(),
            ms: s.seconds * 1e3,
            class: largest.map(|&id| class_of(graph, graph.node(id))),
            madds: demand.map(|d| d.madds),
            flops: demand.map(|d| d.madds.saturating_mul(2).saturating_add(d.other_flops)),
            bytes: demand.map(|d| d.bytes()),
            live_bytes: s.live_bytes,
            bound: roof.map(|r| r.bound),
            attainable_ms: roof.map(|r| r.attainable_s * 1e3),
        }
    };
    profile.steps.iter().map(step).collect()
}

fn classes(layers: &[Layer], main: Option<Path>, total_ms: Option<f64>, total_madds: u64) -> Vec<ClassRow> {
    let mut by_class: BTreeMap<Class, ClassRow> = BTreeMap::new();
    for l in layers.iter().filter(|l| l.kind == Kind::Layer) {
        let Some(class) = l.class else { continue };
        let row = by_class.entry(class).or_insert(ClassRow {
            class,
            nodes: 0,
            fused: 0,
            work: Work::NONE,
            traffic: Default::default(),
            madds_share: 0.0,
            ms: None,
            time_share: None,
        });
        row.nodes += 1;
        row.work = row.work + l.work;
        row.traffic = row.traffic + l.traffic;
        let time = match main {
            Some(Path::Reference) => &l.reference,
            Some(Path::Runtime) => &l.runtime,
            _ => &l.optimized,
        };
        row.fused += usize::from(matches!(time, Time::FusedInto(_)));
        if let Some(ms) = l.main_ms(main) {
            row.ms = Some(row.ms.unwrap_or(0.0) + ms);
        }
    }
    let mut rows: Vec<ClassRow> = by_class.into_values().collect();
    for row in &mut rows {
        row.madds_share = if total_madds > 0 { row.work.madds as f64 / total_madds as f64 } else { 0.0 };
        row.time_share = total_ms.filter(|t| *t > 0.0).map(|total| row.ms.unwrap_or(0.0) / total);
    }
    rows.sort_by(|a, b| {
        let time = b.time_share.unwrap_or(0.0).total_cmp(&a.time_share.unwrap_or(0.0));
        time.then(b.work.madds.cmp(&a.work.madds)).then(b.work.other_flops.cmp(&a.work.other_flops))
    });
    rows
}
