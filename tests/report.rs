//! Reports byte for byte: a small model, a clock that only moves when told to, every format against a file in `tests/snapshots/`.
//! `MADD_PROF_BLESS=1 cargo test --test report` rewrites the files; the difference is then for a person to judge.

use madd_prof::analysis::analyze;
use madd_prof::engine::Path;
use madd_prof::ir::{Bindings, Model, NodeId, build};
use madd_prof::machine::{Bandwidth, Bound, Cache, Identity, Level, Machine, Peak, Reach};
use madd_prof::measure::clock::FakeClock;
use madd_prof::measure::host::Host;
use madd_prof::measure::profile::fake::FakeSubject;
use madd_prof::measure::{Policy, Profile, StepTime, profile};
use madd_prof::ops::spec::{Attr, DimSpec, GraphSpec, ModelSpec, NodeSpec, ValueSpec};
use madd_prof::report::conventions;
use madd_prof::report::{COLUMNS, FORMATS, Kind, Look, Report, Source, Time, View, compose, is_binary, view};
use madd_prof::tensor::{Container, DType};
use std::path::PathBuf;

fn node(name: &str, op: &str, inputs: &[&str], output: &str, attrs: &[(&str, Attr)]) -> NodeSpec {
    NodeSpec {
        name: name.into(),
        op_type: op.into(),
        inputs: inputs.iter().map(ToString::to_string).collect(),
        outputs: vec![output.into()],
        attrs: attrs.iter().map(|(k, v)| (k.to_string(), v.clone())).collect(),
        opset: 17,
        ..NodeSpec::default()
    }
}

/// Stem, two equal separable blocks, an unknown operator under a hostile name.
fn model() -> Model {
    let value = |name: &str, dims: &[usize]| ValueSpec {
        name: name.into(),
        dtype: Some(DType::F32),
        shape: Some(dims.iter().map(|&d| DimSpec::Size(d)).collect()),
        container: Container::Tensor,
    };
    let weights =
        |name: &str, dims: &[usize]| (name.to_string(), madd_prof::ops::sample::floats(dims, name.len() as u64));
    let pads = ("pads", Attr::Ints(vec![1; 4]));
    let mut nodes = vec![
        node("/stem/Conv", "Conv", &["x", "w0", "b0"], "s", &[pads.clone(), ("strides", Attr::Ints(vec![2, 2]))]),
        node("/stem/Relu", "Relu", &["s"], "h0", &[]),
    ];
    let mut initializers = vec![weights("w0", &[8, 3, 3, 3]), weights("b0", &[8])];
    for i in 0..2 {
        let (from, to) = (format!("h{i}"), format!("h{}", i + 1));
        let (dw, pw) = (format!("dw{i}"), format!("pw{i}"));
        let group = ("group", Attr::Int(8));
        let (a, b) = (format!("a{i}"), format!("b{i}x"));
        nodes.push(node(&format!("/block.{i}/dw/Conv"), "Conv", &[&from, &dw], &a, &[pads.clone(), group]));
        nodes.push(node(&format!("/block.{i}/relu/Relu"), "Relu", &[&a], &b, &[]));
        nodes.push(node(&format!("/block.{i}/pw/Conv"), "Conv", &[&b, &pw], &to, &[]));
        initializers.extend([weights(&dw, &[8, 1, 3, 3]), weights(&pw, &[8, 8, 1, 1])]);
    }
    let mut odd = node("=cmd|' /C calc'!A0", "Frob\u{1b}[31m", &["h2"], "y", &[]);
    odd.domain = "com.example".into();
    nodes.push(odd);
    let spec = ModelSpec {
        graph: GraphSpec {
            name: "small".into(),
            nodes,
            inputs: vec![value("x", &[1, 3, 16, 16])],
            outputs: vec![value("y", &[1, 8, 8, 8])],
            initializers,
            value_info: vec![],
        },
        opsets: vec![(String::new(), 17), ("com.example".into(), 1)],
        producer: ("test".into(), "1".into()),
        notes: vec!["dim 'batch' is free and taken as 1; --dim batch=N sets it".into()],
        ..ModelSpec::default()
    };
    build(&spec, &Bindings::default()).unwrap()
}

fn measured(path: Path, steps: &[(&str, &[u32], f64)]) -> Profile {
    let clock = FakeClock::new(1.0 / 1024.0 / 1024.0);
    let steps = steps
        .iter()
        .map(|(kernel, covers, ms)| StepTime {
            label: kernel.to_string(),
            kernel: kernel.to_string(),
            covers: covers.iter().map(|&i| NodeId(i)).collect(),
            declined: vec![],
            live_bytes: Some(4096),
            // Times that binary fractions hold exactly, so that every run is the same to the last bit.
            seconds: ms / 1024.0,
        })
        .collect();
    let mut subject = FakeSubject { clock: &clock, path, steps, between_s: 0.25 / 1024.0 };
    let policy = Policy { limit_s: 64.0, ..Policy::default() };
    profile(&clock, &policy, &mut subject, &mut |_| {}).unwrap()
}

/// A slow machine of round numbers: 20 MMAdd/s; 16 MB/s from the first level, 4 MB/s from memory, half that when copying.
fn machine() -> Machine {
    let at = |level, mb: f64| Bandwidth {
        level,
        read_bytes_per_s: mb * 1e6,
        copy_bytes_per_s: mb * 0.5e6,
        buffer_bytes: 4096,
    };
    Machine {
        identity: Identity {
            cpu: "Test CPU".into(),
            cores: 2,
            platform: "test os".into(),
            isas: vec!["fake".into()],
            version: "0".into(),
        },
        probed_unix_s: 1_000_000,
        probe_s: 1.0,
        steadiness: 1.0,
        timer_s: 1e-6,
        caches: vec![Cache { level: 1, bytes: 8192, shared_by: 1 }],
        reach: vec![Reach {
            threads: 1,
            peaks: vec![Peak { isa: "fake".into(), dtype: "float32".into(), madds_per_s: 20e6 }],
            memory: vec![at(Level::Cache(1), 16.0), at(Level::Dram, 4.0)],
            fork_join_s: 0.0,
        }],
    }
}

fn report(command: &'static str) -> Report {
    let model = model();
    let analysis = analyze(&model.graph);
    let reference: Vec<(&str, &[u32], f64)> = vec![
        ("reference", &[0], 16.0),
        ("reference", &[1], 1.0),
        ("reference", &[2], 4.0),
        ("reference", &[3], 1.0),
        ("reference", &[4], 8.0),
        ("reference", &[5], 4.0),
        ("reference", &[6], 1.0),
        ("reference", &[7], 8.0),
    ];
    let optimized: Vec<(&str, &[u32], f64)> = vec![
        ("conv-direct", &[0, 1], 1.0),
        ("reorder", &[], 0.5),
        ("conv-depthwise", &[2, 3], 2.0),
        ("conv-pointwise", &[4], 0.5),
        ("conv-depthwise", &[5, 6], 2.0),
        ("conv-pointwise", &[7], 0.5),
    ];
    let profiles = match command {
        "profile" => {
            let optimized = Profile { prepare_s: Some(0.125), ..measured(Path::Optimized, &optimized) };
            vec![measured(Path::Reference, &reference), optimized]
        }
        _ => vec![],
    };
    let machine = machine();
    compose(Source {
        command,
        name: "small".into(),
        path: Some("dir/small.onnx".into()),
        model: &model,
        analysis: &analysis,
        profiles: &profiles,
        latency: vec![],
        paired_speedup: None,
        host: (command == "profile").then(|| Host {
            cpu: Some("Test CPU".into()),
            cores: 2,
            platform: "test os".into(),
        }),
        machine: (command == "profile").then_some((&machine, 7200)),
        steps: vec![],
        imported: None,
        peak_resident_bytes: (command == "profile").then_some(3 << 20),
        conventions: conventions::totals("madds-bias,flops-core", &model.graph, &analysis).unwrap(),
        lenses: Vec::new(),
        warnings: vec!["a warning of the run".into()],
    })
}

fn check(name: &str, bytes: &[u8]) {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots").join(name);
    if std::env::var_os("MADD_PROF_BLESS").is_some() {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, bytes).unwrap();
        return;
    }
    let want = std::fs::read(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let (got, want) = (String::from_utf8_lossy(bytes), String::from_utf8_lossy(&want));
    // The version changes with every release; the contract does not.
    let got = got.replace(&format!("\"version\": \"{}\"", env!("CARGO_PKG_VERSION")), "\"version\": \"0.1.0\"");
    assert!(got == want, "{name} differs; MADD_PROF_BLESS=1 rewrites it.\n--- got\n{got}\n--- want\n{want}");
}

#[test]
fn every_format_is_what_it_was() {
    for command in ["profile", "count"] {
        for format in FORMATS {
            // Workbooks and Parquet are opened by other readers, in fixtures/gate.py; a trace needs times.
            if is_binary(format.name) || (format.name == "trace" && command == "count") {
                continue;
            }
            let how = View { group_blocks: format.for_people, hide_static: format.for_people, ..View::default() };
            let report = view(report(command), &how).unwrap();
            for width in if format.name == "table" { vec![80, 120] } else { vec![120] } {
                let bytes = (format.render)(&report, &Look { width }).unwrap();
                let size = if format.name == "table" { format!("-{width}") } else { String::new() };
                // Of the page its data: the rest is the same in every report, and a browser looks at it.
                let kept = match format.name {
                    "html" => bytes
                        .split(|b| *b == b'\n')
                        .find(|l| l.starts_with(b"<script type=\"application/json\""))
                        .unwrap(),
                    _ => &bytes[..],
                };
                let ending =
                    format.endings.first().map_or_else(|| format!("{}.json", format.name), ToString::to_string);
                check(&format!("{command}{size}.{ending}"), kept);
                if format.name == "table" {
                    let text = String::from_utf8(bytes).unwrap();
                    let widest = text.lines().map(|l| l.chars().count()).max().unwrap();
                    assert!(widest <= width, "{widest} columns at width {width}:\n{text}");
                    assert!(!text.contains('\u{1b}'), "control characters reach the terminal");
                }
            }
        }
    }
}

/// Rows and overhead sum to the whole, whatever the view.
#[test]
fn the_books_balance_in_every_view() {
    let views = [
        View::default(),
        View { group_blocks: true, hide_static: true, ..View::default() },
        View { depth: Some(1), ..View::default() },
        View { sort: Some("time".into()), top: Some(2), ..View::default() },
        View { depth: Some(2), sort: Some("madds".into()), top: Some(1), ..View::default() },
    ];
    for how in &views {
        let r = view(report("profile"), how).unwrap();
        let rows = || r.layers.iter().chain(&r.overhead);
        assert_eq!(rows().map(|l| l.params).sum::<u64>(), r.totals.params, "{how:?}");
        assert_eq!(rows().map(|l| l.work.madds).sum::<u64>(), r.totals.work.madds, "{how:?}");
        assert_eq!(rows().map(|l| l.work.flops()).sum::<u64>(), r.totals.work.flops(), "{how:?}");
        assert_eq!(rows().map(|l| l.traffic.total()).sum::<u64>(), r.totals.traffic.total(), "{how:?}");
        assert_eq!(rows().map(|l| l.nodes).sum::<usize>(), r.totals.nodes, "{how:?}");
        assert_eq!(rows().map(|l| l.unknown_nodes).sum::<usize>(), r.totals.unknown_nodes, "{how:?}");
        for l in &r.latency {
            let of = |row: &madd_prof::report::Layer| match l.path {
                Path::Reference => row.reference.ms(),
                Path::Optimized => row.optimized.ms(),
                Path::Runtime => row.runtime.ms(),
            };
            let sum: f64 = rows().filter_map(of).sum();
            let want = l.stats.median * 1e3;
            assert!((sum - want).abs() < 1e-9 * want, "{how:?}: {} of {want} ms", sum);
        }
        let share: f64 = rows().filter_map(|l| l.time_share).sum();
        assert!((share - 1.0).abs() < 1e-9, "{how:?}: shares of time sum to {share}");
    }
}

#[test]
fn fused_rows_point_to_the_row_that_has_the_time() {
    let r = report("profile");
    assert_eq!(r.layers[1].optimized, Time::FusedInto("/stem/Conv".into()));
    assert_eq!(r.layers[1].optimized.ms(), None);
    assert!(r.layers[0].optimized.ms().unwrap() > 0.9);
    assert!(r.overhead.iter().all(|l| l.kind == Kind::Overhead));
    let names: Vec<&str> = r.overhead.iter().map(|l| l.name.as_str()).collect();
    assert_eq!(names, ["[timer]", "[between steps]", "[reorder]"]);
}

/// Worked by hand from the slow machine's numbers.
#[test]
fn rows_stand_beside_their_ceilings() {
    let r = report("profile");
    let near = |a: Option<f64>, b: f64| assert!(a.is_some_and(|a| (a - b).abs() < 1e-9 * b), "{a:?} is not {b}");
    // The stem: 13824 MAdds and 1024 other operations at 20 M a second; its 5 KiB take 0.576 ms.
    near(r.layers[0].attainable_ms, (13824.0 + 512.0) / 20e6 * 1e3);
    assert_eq!(r.layers[0].bound, Some(Bound::Compute));
    // A depthwise convolution with its activation: 2 KiB in, 2 KiB out at 8 MB/s of copying.
    near(r.layers[2].attainable_ms, 4096.0 / 8e6 * 1e3);
    assert_eq!(r.layers[2].bound, Some(Bound::Memory(Level::Cache(1))));
    near(r.layers[2].efficiency(), 0.512 / r.layers[2].optimized.ms().unwrap());
    // What is fused, not run, or no node has no ceiling of its own.
    assert_eq!((r.layers[1].attainable_ms, r.layers[1].bound), (None, None));
    assert!(r.layers[7].attainable_ms.is_some() && r.layers[8].attainable_ms.is_none());
    assert!(r.overhead.iter().all(|l| l.efficiency().is_none()));
    // The pointwise convolutions were faster than their bytes allow, and that is said, not praised.
    assert!(r.layers[4].efficiency().unwrap() > 1.0 && r.layers[7].efficiency().unwrap() > 1.0);
    assert!(r.findings.iter().any(|f| f.starts_with("2 rows are above their ceiling (!)")), "{:?}", r.findings);
    let roofline = r.roofline.as_ref().unwrap();
    near(Some(roofline.floor_ms), 0.7168 + 4.0 * 0.512);
    near(roofline.measured_over_floor(), r.latency[1].stats.median * 1e3 / (0.7168 + 4.0 * 0.512));
    assert_eq!((roofline.steps, roofline.unknown_steps, roofline.weights_in), (5, 0, Level::Cache(1)));
    // Folded rows keep the ratio of their sums.
    let folded = view(report("profile"), &View { group_blocks: true, ..View::default() }).unwrap();
    let row = folded.layers.iter().find(|l| l.repeat == 2 && l.attainable_ms.is_some()).unwrap();
    near(row.attainable_ms, 2.0 * 0.512);
    // Without a probe there are no such columns, and nothing else changes.
    let bare = report("count");
    assert!(bare.roofline.is_none() && bare.layers.iter().all(|l| l.attainable_ms.is_none()));
}

#[test]
fn sentences_follow_from_the_numbers() {
    let text = report("profile").findings.join("\n");
    // 9216 of 97792 MAdds and 4 of 6.75 ms (and a little) are depthwise.
    assert!(text.contains("Depthwise convolutions are "), "{text}");
    assert!(text.contains("run inside their neighbours' steps"), "{text}");
    assert!(text.contains("unknown (com.example.Frob"), "{text}");
    let sort = view(report("count"), &View { sort: Some("nonsense".into()), ..View::default() });
    assert!(sort.unwrap_err().to_string().contains("no column 'nonsense'"));
}

/// Everything a report holds is in the published schema, so that nobody has to guess.
#[test]
fn the_schema_names_every_key() {
    fn walk(schema: &serde_json::Value, defs: &serde_json::Value, doc: &serde_json::Value, at: &str) {
        let schema = match schema["$ref"].as_str() {
            Some(r) => &defs[r.rsplit('/').next().unwrap()],
            None => schema,
        };
        match doc {
            serde_json::Value::Object(map) if schema["properties"].is_object() => {
                for (key, value) in map {
                    let inner = &schema["properties"][key];
                    assert!(!inner.is_null(), "{at}.{key} is not in the schema");
                    walk(inner, defs, value, &format!("{at}.{key}"));
                }
            }
            serde_json::Value::Array(list) => {
                list.iter().for_each(|v| walk(&schema["items"], defs, v, &format!("{at}[]")));
            }
            _ => {}
        }
    }
    let text = include_str!("../schema/madd-prof-1.schema.json");
    let schema: serde_json::Value = serde_json::from_str(text).unwrap();
    let defs = &schema["$defs"];
    let json = FORMATS.iter().find(|f| f.name == "json").unwrap();
    for command in ["profile", "count"] {
        let bytes = (json.render)(&report(command), &Look { width: 80 }).unwrap();
        let doc: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        walk(&defs["report"], defs, &doc, "report");
        for key in defs["report"]["required"].as_array().unwrap() {
            assert!(doc.get(key.as_str().unwrap()).is_some(), "{key} is promised and not there");
        }
    }
    for c in COLUMNS {
        assert!(defs["layer"]["properties"].get(c.key).is_some(), "{} is not in the schema", c.key);
    }
}

/// The same report gives the same bytes, in every format.
#[test]
fn formats_are_reproducible() {
    for format in FORMATS {
        let once = || (format.render)(&report("profile"), &Look { width: 100 }).unwrap();
        assert!(once() == once(), "{}", format.name);
    }
}

#[test]
fn markdown_stays_within_a_job_summary() {
    let mut r = report("count");
    let row = r.layers[0].clone();
    r.layers.extend((0..20_000).map(|i| madd_prof::report::Layer { name: format!("layer {i}"), ..row.clone() }));
    let markdown = FORMATS.iter().find(|f| f.name == "markdown").unwrap();
    let text = String::from_utf8((markdown.render)(&r, &Look { width: 80 }).unwrap()).unwrap();
    assert!(text.len() <= 1 << 20 && text.len() > 1_000_000, "{}", text.len());
    assert!(text.lines().last().unwrap().starts_with("Cut at 1 MiB"), "{}", text.lines().last().unwrap());
}
