//! The program as its users meet it: exit codes, streams, formats, wrong flags, broken files, pipes.

use serde_json::Value;
use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

fn program() -> Command {
    let mut c = Command::new(env!("CARGO_BIN_EXE_madd-prof"));
    // Ceilings are probed once for all tests, and never kept where the user's are.
    let cache = concat!(env!("CARGO_TARGET_TMPDIR"), "/cache");
    c.env_remove("COLUMNS").env_remove("MADD_PROF_ISA").env("MADD_PROF_CACHE", cache).stdin(Stdio::null());
    c
}

fn run(args: &[&str]) -> Output {
    program().args(args).output().unwrap()
}

fn stdout(o: &Output) -> String {
    String::from_utf8(o.stdout.clone()).unwrap()
}

fn stderr(o: &Output) -> String {
    String::from_utf8(o.stderr.clone()).unwrap()
}

fn fine(args: &[&str]) -> String {
    let o = run(args);
    assert_eq!(o.status.code(), Some(0), "{args:?}: {}", stderr(&o));
    stdout(&o)
}

/// Runs what must fail: exit code 2, one message with a hint, nothing on stdout, no panic.
fn fails(args: &[&str]) -> String {
    let o = run(args);
    let text = stderr(&o);
    assert_eq!(o.status.code(), Some(2), "{args:?}: {text}");
    assert!(o.stdout.is_empty(), "{args:?} prints results: {}", stdout(&o));
    assert!(text.starts_with("error: "), "{args:?}: {text}");
    assert!(!text.contains("bug in madd-prof") && !text.contains("panicked"), "{args:?}: {text}");
    text
}

fn json(args: &[&str]) -> Value {
    serde_json::from_str(&fine(args)).unwrap()
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn path(folder: &tempfile::TempDir, name: &str) -> (PathBuf, String) {
    let p = folder.path().join(name);
    let text = p.to_string_lossy().into_owned();
    (p, text)
}

const SMALL: &str = "mobilenet_v2@res=32";

#[test]
fn weights_packed_by_one_run_are_mapped_by_the_next_and_give_the_same_result() {
    let dir = folder();
    let (model, x, y) = (dir.path().join("model.onnx"), dir.path().join("x.npz"), dir.path().join("y.npz"));
    let (model_name, x_name, y_name) = (model.to_str().unwrap(), x.to_str().unwrap(), y.to_str().unwrap());
    fine(&["zoo", "export", "squeezenet1_1@classes=50,res=64", "-o", model_name]);
    // Only what has settled is kept.
    let before = std::time::SystemTime::now() - std::time::Duration::from_secs(60);
    fs::File::options().write(true).open(&model).unwrap().set_modified(before).unwrap();
    let input = madd_prof::ops::sample::floats(&[1, 3, 64, 64], 7);
    madd_prof::tensor::npz::write(&x, [("input", &input)]).unwrap();
    let result = || {
        let o = program()
            .args(["run", model_name, "--input", x_name, "--output", y_name, "--path", "optimized", "--threads", "2"])
            .env("MADD_PROF_CACHE", dir.path())
            .output()
            .unwrap();
        assert_eq!(o.status.code(), Some(0), "{}", stderr(&o));
        madd_prof::tensor::npz::read(&y).unwrap().remove(0).1.bytes().unwrap().to_vec()
    };
    let kept = |gib: &str| {
        let o = program()
            .args([
                "bench",
                model_name,
                "--path",
                "optimized",
                "--threads",
                "2",
                "--seconds",
                "0.05",
                "--format",
                "json",
            ])
            .env("MADD_PROF_CACHE", dir.path())
            .env("MADD_PROF_KEEP_GIB", gib)
            .output()
            .unwrap();
        let doc: Value = serde_json::from_str(&stdout(&o)).unwrap();
        doc["latency"]["optimized"]["kept_bytes"].as_u64()
    };
    let packed = result();
    assert_eq!((kept("1"), kept("0")), (Some(0), None));
    assert!(kept("1").unwrap() > 1 << 20);
    assert_eq!(result(), packed);
    // Whatever is in the folder instead, it is packed again.
    for file in fs::read_dir(dir.path().join("weights")).unwrap() {
        fs::write(file.unwrap().path(), "something else").unwrap();
    }
    assert_eq!(kept("1"), Some(0));
    assert_eq!(result(), packed);
}

#[test]
fn count_is_exact_and_its_json_keeps_the_contract() {
    let doc = json(&["count", "mobilenet_v2", "--format", "json"]);
    assert_eq!(doc["schema"], "madd-prof/1");
    assert_eq!(doc["totals"]["madds"].as_u64(), Some(300_774_272));
    assert_eq!(doc["totals"]["params"].as_u64(), Some(3_504_872));
    let keys: Vec<&str> = doc.as_object().unwrap().keys().map(String::as_str).collect();
    for key in ["schema", "tool", "model", "totals", "layers", "latency", "machine", "warnings"] {
        assert!(keys.contains(&key), "no {key} in {keys:?}");
    }
    let layer = doc["layers"][0].as_object().unwrap();
    for key in [
        "name",
        "op",
        "output_shape",
        "params",
        "madds",
        "other_flops",
        "flops",
        "read_bytes",
        "write_bytes",
        "weight_bytes",
        "intensity",
        "known",
        "reference_ms",
        "optimized_ms",
    ] {
        assert!(layer.contains_key(key), "no {key} in layers");
    }
    for key in ["params", "madds", "other_flops", "flops", "weight_bytes", "read_bytes", "write_bytes"] {
        let sum: u64 = doc["layers"].as_array().unwrap().iter().map(|l| l[key].as_u64().unwrap()).sum();
        assert_eq!(Some(sum), doc["totals"][key].as_u64(), "{key}");
    }
    assert!(layer["reference_ms"].is_null(), "nothing was measured");
}

#[test]
fn profile_is_the_default_and_its_books_balance() {
    let doc = json(&[SMALL, "--seconds", "0.2", "--format", "json", "--quiet"]);
    for which in ["reference", "optimized"] {
        let rows = doc["layers"].as_array().unwrap().iter().chain(doc["overhead"].as_array().unwrap());
        let sum: f64 = rows.filter_map(|l| l[format!("{which}_ms")].as_f64()).sum();
        let want = doc["latency"][which]["median_ms"].as_f64().unwrap();
        assert!((sum - want).abs() < 1e-6 * want, "{which}: rows sum to {sum}, the median is {want}");
        assert!(doc["latency"][which]["runs"].as_u64().unwrap() >= 1);
    }
    assert!(!doc["findings"].as_array().unwrap().is_empty());
}

#[test]
fn bench_prints_latency_in_the_contract_shape() {
    let doc = json(&["bench", SMALL, "--path", "optimized", "--threads", "1", "--seconds", "0.1", "--format", "json"]);
    let latency = doc["latency"]["optimized"].as_object().unwrap();
    for key in ["min_ms", "median_ms", "p90_ms", "runs", "prepare_ms"] {
        assert!(latency[key].as_f64().unwrap() > 0.0, "{key}");
    }
    assert!(latency["first_ms"].as_f64().unwrap() > latency["prepare_ms"].as_f64().unwrap());
    assert_eq!(latency["threads"], 1);
    if cfg!(target_os = "linux") {
        assert!(doc["process"]["peak_resident_bytes"].as_u64().unwrap() > 1 << 20);
    }
    assert!(doc["latency"].get("reference").is_none());
    let csv = fine(&["bench", SMALL, "--seconds", "0.1", "--format", "csv", "-q"]);
    assert_eq!(csv.lines().count(), 3, "{csv}");
}

#[test]
fn csv_has_one_record_per_row_and_exact_numbers() {
    let text = fine(&["count", "mobilenet_v2", "--format", "csv"]);
    let mut lines = text.split("\r\n").filter(|l| !l.is_empty());
    let head: Vec<&str> = lines.next().unwrap().split(',').collect();
    let at = head.iter().position(|h| *h == "madds").unwrap();
    let sum: u64 = lines.map(|l| l.split(',').nth(at).unwrap().parse::<u64>().unwrap()).sum();
    assert_eq!(sum, 300_774_272);
}

#[test]
fn tables_fit_the_width_they_are_given() {
    for columns in ["60", "80", "100", "200"] {
        let o = program().args(["count", "ghostnet"]).env("COLUMNS", columns).output().unwrap();
        let widest = stdout(&o).lines().map(|l| l.chars().count()).max().unwrap();
        assert!(widest <= columns.parse().unwrap(), "{widest} at {columns}:\n{}", stdout(&o));
    }
    for line in [
        "count resnet18 --modules",
        "count resnet18 --convention all",
        "variants --list",
        "count bert_base --as all",
        "diff resnet18 resnet34",
        "compare resnet18 resnet34 --no-run",
        "zoo list",
        "zoo show mobilenet_v2",
        "knobs",
    ] {
        for columns in [40, 56, 80] {
            let args: Vec<&str> = line.split(' ').collect();
            let o = program().args(args).env("COLUMNS", columns.to_string()).output().unwrap();
            assert!(o.status.success(), "{line}: {}", stderr(&o));
            let text = stdout(&o);
            let widest = text.lines().map(|l| l.chars().count()).max().unwrap();
            assert!(widest <= columns, "{line}: {widest} at {columns}:\n{text}");
        }
    }
    let piped = fine(&["count", "ghostnet"]);
    assert!(piped.lines().all(|l| l.chars().count() <= 120) && !piped.contains('\u{1b}'));
}

#[test]
fn views_keep_the_total() {
    let text = fine(&["count", "resnet50", "--depth", "1", "--sort", "madds", "--top", "3"]);
    assert!(text.contains("[") && text.contains("more rows]") && text.contains("4,089,184,256"), "{text}");
    let text = fine(&["count", "resnet50", "--convention", "all"]);
    for name in ["madds-bias", "flops-core", "madds-useful", "madds-weights"] {
        assert!(text.contains(name), "{text}");
    }
}

#[test]
fn output_goes_to_a_file_in_the_format_of_its_ending() {
    let dir = folder();
    for (name, start) in [("a.json", "{"), ("a.csv", "name,"), ("a.md", "## "), ("a.txt", "squeezenet")] {
        let (file, text) = path(&dir, name);
        assert_eq!(fine(&["count", "squeezenet1_1", "-o", &text]), "");
        assert!(fs::read_to_string(file).unwrap().starts_with(start), "{name}");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 4, "temporary files stay behind");
    let (_, odd) = path(&dir, "a.xyz");
    assert!(fails(&["count", "squeezenet1_1", "-o", &odd]).contains("--format"));
    fails(&["count", "squeezenet1_1", "-o", "/nonexistent/folder/a.json"]);
}

#[test]
fn export_run_and_both_paths_agree() {
    let dir = folder();
    let (_, model) = path(&dir, "net.onnx");
    fine(&["zoo", "export", "mobilenet_v2@width=0.35,res=32", "-o", &model]);
    let from_zoo = json(&["count", "mobilenet_v2@width=0.35,res=32", "--format", "json"]);
    let from_file = json(&["count", &model, "--format", "json"]);
    assert_eq!(from_zoo["totals"], from_file["totals"]);
    let x = madd_prof::ops::sample::floats(&[1, 3, 32, 32], 7);
    let (x_file, x_name) = path(&dir, "x.npz");
    madd_prof::tensor::npz::write(&x_file, [("input", &x)]).unwrap();
    let mut results = Vec::new();
    for which in ["reference", "optimized"] {
        let (y_file, y_name) = path(&dir, &format!("{which}.npz"));
        fine(&["run", &model, "--input", &x_name, "--output", &y_name, "--path", which]);
        let y = madd_prof::tensor::npz::read(&y_file).unwrap().remove(0).1;
        results.push(y.to_f64s().unwrap());
    }
    let (a, b) = (&results[0], &results[1]);
    let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
    let error = norm(&mut a.iter().zip(b).map(|(x, y)| x - y)) / norm(&mut a.iter().copied());
    assert!(error < 1e-4, "relative error {error}");
    // Missing, unknown and ill-fitting inputs are named.
    let (_, y) = path(&dir, "y.npz");
    assert!(fails(&["run", &model, "--output", &y]).contains("'input'"));
    let (wrong_file, wrong) = path(&dir, "wrong.npz");
    madd_prof::tensor::npz::write(&wrong_file, [("image", &x)]).unwrap();
    fails(&["run", &model, "--input", &wrong, "--output", &y]);
    fails(&["run", &model, "--input", &model, "--output", &y]);
}

#[test]
fn wrong_requests_end_with_code_2_and_a_hint() {
    assert!(fails(&["count", "mobilenet_v9"]).contains("hint:"));
    assert!(fails(&["cuont", "mobilenet_v2"]).contains("'mobilenet_v2'"));
    assert!(fails(&["count", "no/such/file.onnx"]).contains("no such file"));
    fails(&["count", "mobilenet_v2", "--format", "xml"]);
    fails(&["count", "mobilenet_v2", "--sort", "beauty"]);
    fails(&["count", "mobilenet_v2", "--top", "0"]);
    fails(&["count", "mobilenet_v2", "--convention", "guess"]);
    fails(&["count", "mobilenet_v2", "--dim", "batch"]);
    fails(&["count", "mobilenet_v2", "--dim", "nope=3"]);
    fails(&["count", "mobilenet_v2", "--input-shape", "input=0x3x224x224"]);
    fails(&["count", "mobilenet_v2", "--input-shape", "nope=1x3x224x224"]);
    fails(&["count", "mobilenet_v2@width=banana"]);
    fails(&["bench", "mobilenet_v2", "--threads", "0"]);
    fails(&["bench", "mobilenet_v2", "--path", "fast"]);
    fails(&["machine", "--format", "xml"]);
    fails(&["machine", "mobilenet_v2"]);
    fails(&["kernels", "mobilenet_v2", "--seconds", "-1"]);
    let o = program().args(["bench", SMALL]).env("MADD_PROF_ISA", "mmx").output().unwrap();
    assert_eq!(o.status.code(), Some(2));
    assert!(stderr(&o).contains("mmx"), "{}", stderr(&o));
}

#[test]
fn broken_files_end_with_code_2_and_one_message() {
    let dir = folder();
    let (file, whole) = path(&dir, "whole.onnx");
    fine(&["zoo", "export", SMALL, "-o", &whole]);
    let bytes = fs::read(&file).unwrap();
    let cases: [(&str, &[u8]); 5] = [
        ("empty.onnx", b""),
        ("text.onnx", b"hello, this is not a model\n"),
        ("zip.onnx", b"PK\x03\x04 nothing more"),
        ("half.onnx", &bytes[..bytes.len() / 2]),
        ("nearly.onnx", &bytes[..bytes.len() - 1]),
    ];
    for (name, content) in cases {
        let (file, text) = path(&dir, name);
        fs::write(file, content).unwrap();
        for command in ["count", "profile", "bench"] {
            assert!(fails(&[command, &text]).contains(name), "{name}");
        }
    }
    fails(&["count", &dir.path().to_string_lossy()]);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut child = program()
        .args(["count", "densenet121", "--format", "json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 16];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let o = child.wait_with_output().unwrap();
    assert_eq!((o.status.code(), stderr(&o).as_str()), (Some(0), ""));
}

/// Probes once, keeps it, uses it again, probes anew on demand, and takes no other machine's or damaged ceilings.
#[test]
fn ceilings_are_probed_once_and_used_from_then_on() {
    let dir = folder();
    let machine = |more: &[&str]| -> Value {
        let args = ["machine", "--format", "json", "-q"];
        let o = program().args(args).args(more).env("MADD_PROF_CACHE", dir.path()).output().unwrap();
        assert_eq!(o.status.code(), Some(0), "{}", stderr(&o));
        serde_json::from_slice(&o.stdout).unwrap()
    };
    let of = |doc: &Value| doc["machine"]["reach"].clone();
    let first = machine(&[]);
    for r in first["machine"]["reach"].as_array().unwrap() {
        assert!(r["peaks"].as_array().unwrap().iter().all(|p| p["madds_per_s"].as_f64().unwrap() > 0.0));
        assert_eq!(r["memory"].as_array().unwrap().last().unwrap()["level"], "DRAM");
    }
    assert!(first["ceilings"].as_array().unwrap().len() >= 6);
    // The contract: keys may be added.
    let has = |v: &Value, keys: &[&str]| keys.iter().for_each(|k| assert!(v.get(*k).is_some(), "no {k} in {v}"));
    has(&first, &["schema", "title", "machine", "ceilings", "notes"]);
    has(&first["ceilings"][0], &["ceiling", "unit", "size_bytes", "threads_1", "ridge_flops_per_byte_1"]);
    let m = &first["machine"];
    has(m, &["probed_unix_s", "probe_s", "steadiness", "timer_s", "caches", "reach", "age_s", "kept_in", "identity"]);
    has(&m["reach"][0], &["threads", "peaks", "memory", "fork_join_s"]);
    has(&m["reach"][0]["peaks"][0], &["isa", "dtype", "madds_per_s"]);
    has(&m["reach"][0]["memory"][0], &["level", "read_bytes_per_s", "copy_bytes_per_s", "buffer_bytes"]);
    assert_eq!(of(&machine(&[])), of(&first), "probed again");
    assert_ne!(of(&machine(&["--probe"])), of(&first), "not probed again");
    let file = dir.path().join("machine.json");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("\"cores\"", "\"score\"")).unwrap();
    machine(&[]);
    assert_eq!(fs::read_to_string(&file).unwrap().matches("\"cores\"").count(), 1, "a damaged file is replaced");
}

#[test]
fn nothing_depends_on_the_cache() {
    // A folder that cannot be made, and none at all.
    for cache in ["/proc/nowhere", ""] {
        let args = ["profile", SMALL, "--path", "optimized", "--seconds", "0.1", "--autotune", "--format", "json"];
        let o = program().args(args).env("MADD_PROF_CACHE", cache).output().unwrap();
        assert_eq!(o.status.code(), Some(0), "{}", stderr(&o));
        let doc: Value = serde_json::from_slice(&o.stdout).unwrap();
        assert!(doc["roofline"]["floor_ms"].as_f64().unwrap() > 0.0);
        assert_eq!(stderr(&o).contains("not kept"), !cache.is_empty(), "{}", stderr(&o));
    }
    // `bench` never probes: it measures its own memory.
    let o =
        program().args(["bench", SMALL, "--seconds", "0.1", "--format", "json"]).env("MADD_PROF_CACHE", "").output();
    let doc: Value = serde_json::from_slice(&o.unwrap().stdout).unwrap();
    assert!(doc["roofline"].is_null() && doc["machine"]["ceilings"].is_null());
}

#[test]
fn rows_say_what_bounds_them_and_how_near_they_come() {
    let doc = json(&["profile", SMALL, "--path", "optimized", "--seconds", "0.1", "--format", "json", "-q", "--pin"]);
    let layers = doc["layers"].as_array().unwrap();
    let timed: Vec<&Value> = layers.iter().filter(|l| l["optimized_ms"].is_number() && l["kernel"] != "view").collect();
    assert!(timed.len() > 20);
    let bounds = ["compute", "L1", "L2", "L3", "L4", "DRAM", "overhead"];
    let mut sum = 0.0;
    for l in &timed {
        assert!(bounds.contains(&l["bound"].as_str().unwrap()), "{l}");
        let (ms, least) = (l["optimized_ms"].as_f64().unwrap(), l["attainable_ms"].as_f64().unwrap());
        sum += least;
        // What takes no longer than measuring it has no efficiency.
        assert_eq!(l["efficiency"].is_null(), l["bound"] == "overhead", "{l}");
        if let Some(efficiency) = l["efficiency"].as_f64() {
            assert!((efficiency - least / ms).abs() < 1e-9 * efficiency, "{l}");
            assert_eq!(l["above_ceiling"].as_bool(), Some(efficiency > 1.0));
        }
    }
    let all = doc["roofline"]["attainable_ms"].as_f64().unwrap();
    assert!(sum <= all * (1.0 + 1e-9) && doc["roofline"]["floor_ms"].as_f64().unwrap() <= all);
    let text = fine(&["profile", SMALL, "--path", "optimized", "--seconds", "0.1", "-q"]);
    assert!(text.contains("%roof") && text.contains("floor ") && text.contains("Bound"), "{text}");
}

#[test]
fn kernels_are_told_with_their_share_of_the_gap() {
    let doc = json(&["kernels", SMALL, "--seconds", "0.1", "--format", "json", "-q"]);
    let steps = doc["steps"].as_array().unwrap();
    let shares: f64 = steps.iter().filter_map(|s| s["gap_share"].as_f64()).sum();
    assert!(shares > 0.0 && shares <= 1.0 + 1e-9, "{shares}");
    assert!(steps.iter().all(|s| !s["kernel"].as_str().unwrap().is_empty() && s["ms"].is_number()));
    assert!(doc["attainable_ms"].as_f64().unwrap() > 0.0);
    for key in ["index", "step", "ops", "kernel", "detail", "ms", "madds", "gmadds_per_s", "best_algorithm", "bound"]
        .into_iter()
        .chain(["attainable_ms", "efficiency", "gap_share", "declined"])
    {
        assert!(steps[0].get(key).is_some(), "no {key}");
    }
    assert!(steps[0]["detail"].as_str().unwrap().starts_with("direct"), "{}", steps[0]);
    let plan = json(&["kernels", SMALL, "--no-run", "--format", "json", "-q"]);
    assert_eq!(plan["steps"].as_array().unwrap().len(), steps.len());
    assert!(plan["steps"].as_array().unwrap().iter().all(|s| s["ms"].is_null()) && plan["measured_ms"].is_null());
    let csv = fine(&["kernels", SMALL, "--no-run", "--format", "csv", "-q"]);
    assert_eq!(csv.lines().count(), steps.len() + 1);
    let o = program().args(["kernels", SMALL, "--seconds", "0.1", "-q"]).env("COLUMNS", "100").output().unwrap();
    let widest = stdout(&o).lines().map(|l| l.chars().count()).max().unwrap();
    assert!(widest <= 100, "{widest}:\n{}", stdout(&o));
}

/// The last layer, a product of one row, fits two kernels: the faster is found, kept, and used without asking.
#[test]
fn tuned_choices_are_kept_and_used() {
    let dir = folder();
    let kernels = |more: &[&str]| -> Value {
        let args = ["kernels", SMALL, "--no-run", "--threads", "1", "--format", "json", "-q"];
        let o = program().args(args).args(more).env("MADD_PROF_CACHE", dir.path()).output().unwrap();
        assert_eq!(o.status.code(), Some(0), "{}", stderr(&o));
        serde_json::from_slice(&o.stdout).unwrap()
    };
    let slower = |doc: &Value| -> Vec<String> {
        let steps = doc["steps"].as_array().unwrap().iter();
        steps.filter_map(|s| s["declined"].as_str()).filter(|d| d.contains("slower here")).map(str::to_string).collect()
    };
    assert!(slower(&kernels(&[])).is_empty() && !dir.path().join("tuned.json").exists());
    let tuned = kernels(&["--autotune"]);
    assert!(!slower(&tuned).is_empty(), "{tuned}");
    assert_eq!(slower(&kernels(&[])), slower(&tuned), "what was found is used again, not found again");
    // Of another machine: not used.
    let file = dir.path().join("tuned.json");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("\"platform\": \"", "\"platform\": \"other ")).unwrap();
    assert!(slower(&kernels(&[])).is_empty());
}

#[test]
fn verify_proves_the_counts() {
    let o = run(&["count", SMALL, "--verify"]);
    assert_eq!(o.status.code(), Some(0), "{}", stderr(&o));
    assert!(stderr(&o).contains("0 different"), "{}", stderr(&o));
}

#[test]
fn help_teaches_and_the_zoo_tells() {
    let help = fine(&["--help"]);
    for word in ["MADD_PROF_ISA", "Examples", "Exit codes", "zoo", "count"] {
        assert!(help.contains(word), "{word} is missing in:\n{help}");
    }
    assert!(fine(&["--version"]).starts_with("madd-prof "));
    let list = fine(&["zoo", "list"]);
    for name in
        ["mobilenet_v1", "mobilenet_v2", "resnet18", "resnet50", "vgg16", "squeezenet1_1", "densenet121", "ghostnet"]
    {
        assert!(list.contains(name), "{name}");
    }
    assert!(fine(&["zoo", "show", "mobilenet_v2"]).contains("300,774,272"));
    assert!(fine(&["kernels", SMALL, "--no-run"]).contains("steps for"));
    let o = run(&[]);
    assert_eq!(o.status.code(), Some(2));
    assert!(stderr(&o).contains("Usage"));
}

/// A row of a grid by its name.
fn named<'a>(doc: &'a Value, rows: &str, name: &str) -> &'a Value {
    let all = doc[rows].as_array().unwrap();
    all.iter().find(|r| r["name"] == name).unwrap_or_else(|| panic!("no row {name} in {all:?}"))
}

#[test]
fn variants_of_a_layer_are_exact_and_timed_in_pairs() {
    let layer = "conv 3x3 16->32 @8x8";
    let doc = json(&["variants", "--layer", layer, "--seconds", "0.05", "--format", "json", "--quiet", "-j", "1"]);
    assert_eq!((doc["schema"].as_str(), doc["layer"].as_str()), (Some("madd-prof/1"), Some(layer)));
    let original = named(&doc, "variants", "original");
    assert_eq!((original["params"].as_u64(), original["madds"].as_u64()), (Some(4608), Some(4608 * 64)));
    let separable = named(&doc, "variants", "separable");
    assert_eq!((separable["params"].as_u64(), separable["madds"].as_u64()), (Some(656), Some(656 * 64)));
    for row in doc["variants"].as_array().unwrap() {
        for key in
            ["reference_ms", "optimized_ms", "predicted_ms", "gmadds_per_s", "intensity", "madds_ratio", "time_ratio"]
        {
            assert!(
                row[key].as_f64().is_some_and(|v| v >= 0.0) || (key == "time_ratio" && row == original),
                "{key} of {row}"
            );
        }
        assert!(row["bound"].is_string(), "{row}");
        let (low, high) = (row["time_ratio_low"].as_f64(), row["time_ratio_high"].as_f64());
        assert!(row == original || low.zip(high).is_none_or(|(l, h)| l <= h));
    }
    let points = doc["break_even"][0]["points"].as_array().unwrap();
    assert!(points.len() >= 3 && points.iter().all(|p| p["time_ratio"].as_f64().unwrap() > 0.0), "{points:?}");
    assert!(named(&doc, "variants", "separable")["break_even"].is_string());
    // Reasons, also for people.
    let table = fine(&["variants", "--layer", layer, "--no-run"]);
    assert!(table.contains("stacked-3x3: nothing to rewrite: 3x3 is not made of several 3x3"), "{table}");
    for format in ["csv", "markdown"] {
        let text = fine(&["variants", "--layer", layer, "--no-run", "--format", format]);
        assert!(text.contains("separable") && text.contains("656") || format == "markdown", "{text}");
    }
    let list = fine(&["variants", "--list"]);
    assert!(madd_prof::variants::VARIANTS.iter().all(|v| list.contains(v.name)), "{list}");
}

#[test]
fn variants_of_a_model_are_written_and_read_back() {
    let d = folder();
    let (file, text) = path(&d, "light.onnx");
    let args = [
        "variants",
        "resnet18@res=32",
        "--apply",
        "separable,se",
        "--emit",
        &text,
        "--no-run",
        "--format",
        "json",
        "-q",
    ];
    let doc = json(&args);
    assert!(file.exists());
    let row = named(&doc, "variants", "separable+se");
    let counted = json(&["count", &text, "--format", "json", "-q"]);
    for key in ["params", "madds"] {
        assert_eq!(row[key], counted["totals"][key], "{key}");
    }
    let step = &doc["rewritten"][0];
    assert_eq!(step["variant"], "separable");
    let layers = step["layers"].as_array().unwrap();
    assert_eq!(
        layers.len() as u64 + doc["rewritten"][1]["layers"].as_array().unwrap().len() as u64,
        row["layers_rewritten"].as_u64().unwrap()
    );
    assert!(layers.iter().all(|l| l["madds"][0].as_u64() > l["madds"][1].as_u64()), "{layers:?}");
    assert!(!step["left_alone"].as_array().unwrap().is_empty());
    // Measured, with the first row as the measure of the others.
    let doc = json(&[
        "variants",
        SMALL,
        "--apply",
        "grouped",
        "--apply",
        "slim@width=0.75",
        "--seconds",
        "0.05",
        "--format",
        "json",
        "-q",
    ]);
    assert_eq!(doc["variants"].as_array().unwrap().len(), 3);
    assert!(named(&doc, "variants", "slim@width=0.75")["time_ratio"].as_f64().unwrap() > 0.0);
}

#[test]
fn switches_of_a_slimmable_network_share_weights_and_say_what_switching_costs() {
    let counted = json(&["variants", "s_mobilenet_v1", "--no-run", "--format", "json", "-q"]);
    let params: Vec<u64> =
        counted["variants"].as_array().unwrap().iter().map(|r| r["params"].as_u64().unwrap()).collect();
    assert_eq!(params, [4_231_976, 2_585_560, 1_331_592, 470_072]);
    assert_eq!(
        (counted["whole"]["params"].as_u64(), counted["whole"]["bn_statistics"].as_u64()),
        (Some(4_264_808), Some(54_720))
    );
    let small =
        ["variants", "s_mobilenet_v1@res=32,width=0.25", "--seconds", "0.05", "--format", "json", "-q", "-j", "1"];
    let rows = json(&small);
    let rows = rows["variants"].as_array().unwrap();
    for row in rows {
        assert!(row["switch_ms"].is_number() && row["prepare_ms"].as_f64().unwrap() > 0.0, "{row}");
        let (packed, all) = (row["packed_bytes"].as_u64().unwrap(), rows[0]["packed_bytes"].as_u64().unwrap());
        assert!(row["name"] == rows[0]["name"] || (1..all / 10).contains(&packed), "{row}: weights are shared");
    }
    assert!(fails(&["variants", "s_mobilenet_v1", "--emit", "x.onnx"]).contains("--apply"));
    // All switches in one model: stored once, and each of them counted when it is the one.
    let all = "s_mobilenet_v1@switch=all";
    let undecided = json(&["count", all, "--format", "json", "-q"]);
    assert_eq!(undecided["totals"]["params"].as_u64(), Some(4_264_808));
    let range = &undecided["totals"]["madds_range"];
    assert_eq!((range["low"].as_u64(), range["high"].as_u64()), (Some(41_030_272), Some(568_740_352)));
    for (switch, madds) in [("0", 41_030_272), ("2", 325_400_448), ("3", 568_740_352)] {
        let doc = json(&["count", all, "--value", &format!("switch={switch}"), "--format", "json", "-q"]);
        assert_eq!(doc["totals"]["madds"].as_u64(), Some(madds), "switch {switch}");
    }
}

#[test]
fn models_break_even_over_resolution_or_width() {
    for (vary, sizes) in [("resolution", vec![32, 64, 96]), ("channels", vec![25, 50, 75, 100])] {
        let doc = json(&[
            "variants",
            "resnet18@res=64",
            "--apply",
            "separable",
            "--break-even",
            vary,
            "--seconds",
            "0.02",
            "--format",
            "json",
            "-q",
        ]);
        let points = doc["break_even"][0]["points"].as_array().unwrap();
        let tried: Vec<u64> = points.iter().map(|p| p["size"].as_u64().unwrap()).collect();
        assert_eq!(tried, sizes, "{vary}");
        assert!(named(&doc, "variants", "separable")["break_even"].is_string());
    }
}

#[test]
fn wrong_requests_for_variants_are_explained() {
    assert!(fails(&["variants", SMALL, "--apply", "nonsense"]).contains("variants: separable"));
    assert!(fails(&["variants", SMALL, "--emit", "x.onnx"]).contains("--apply, once"));
    assert!(fails(&["variants", SMALL, "--apply", "stacked-3x3", "--no-run"]).contains("no layer"));
    assert!(fails(&["variants", "--layer", "conv 3x3 64->128"]).contains("lacks the size"));
    assert!(fails(&["variants", SMALL, "--budget", "speed=1"]).contains("none of madds"));
    assert!(fails(&["compare", SMALL]).contains("nothing to be compared"));
    assert!(fails(&["compare", SMALL, "nosuchnet"]).contains("nosuchnet"));
    for args in [&["variants"][..], &["variants", SMALL, "--layer", "pw 1->1 @1"], &["compare"]] {
        assert_eq!(run(args).status.code(), Some(2), "{args:?}");
    }
}

#[test]
fn compare_ranks_models_and_marks_the_pareto_set() {
    let names = ["mobilenet_v2", "mobilenet_v3_small", "shufflenet_v2_x0_5", "squeezenet1_1"];
    let counted = json(&[&["compare"], &names[..], &["--no-run", "--format", "json", "-q"]].concat());
    assert_eq!(counted["models"].as_array().unwrap().len(), 4);
    let small = names.map(|n| format!("{n}@res=64"));
    let small: Vec<&str> = small.iter().map(String::as_str).collect();
    let doc = json(&[&["compare"], &small[..], &["--seconds", "0.05", "--format", "json", "-q"]].concat());
    let models = doc["models"].as_array().unwrap();
    assert_eq!(models.len(), 4);
    assert!(
        models.iter().all(|m| m["optimized_ms"].as_f64().unwrap() > 0.0 && m["predicted_ms"].as_f64().unwrap() > 0.0)
    );
    let correlations = doc["correlations"].as_array().unwrap();
    let keys: Vec<&str> = correlations.iter().map(|c| c["measure"].as_str().unwrap()).collect();
    assert_eq!(keys, ["params", "madds", "bytes", "predicted_ms"]);
    assert!(correlations.iter().all(|c| c["models"] == 4 && c["kendall"].as_f64().is_some_and(|k| k.abs() <= 1.0)));
    // Published accuracy belongs to a network as it was published.
    assert!(named(&counted, "models", "mobilenet_v2")["top1_pct"].as_f64().is_some_and(|t| t > 70.0));
    assert!(models.iter().all(|m| m["top1_pct"].is_null()), "other resolutions have other figures");
    let table = fine(&["compare", "squeezenet1", "--seconds", "0.01", "-q", "-j", "1"]);
    assert!(
        table.contains("squeezenet1_0") && table.contains("squeezenet1_1") && table.contains(" MAdds\n"),
        "{table}"
    );
}

#[test]
fn budgets_are_met_exactly_and_the_least_change_comes_first() {
    let doc = json(&["variants", "mobilenet_v2", "--budget", "madds=150M", "--no-run", "--format", "json", "-q"]);
    let rows = doc["variants"].as_array().unwrap();
    assert!(rows.len() > 3, "{rows:?}");
    assert_eq!(rows[0]["madds"].as_u64(), Some(300_774_272));
    assert!(rows[1..].iter().all(|r| r["madds"].as_u64().unwrap() <= 150_000_000), "{rows:?}");
    let shares: Vec<f64> = rows[1..].iter().map(|r| r["weights_changed"].as_f64().unwrap()).collect();
    assert!(shares.is_sorted(), "{shares:?}");
    // A smaller input changes no weight; 160 still takes 154 M.
    assert_eq!((rows[1]["name"].as_str(), shares[0]), (Some("res=128"), 0.0));
    let width = rows.iter().find(|r| r["name"].as_str().unwrap().starts_with("width=")).unwrap();
    let built = json(&["count", &format!("mobilenet_v2@{}", width["name"].as_str().unwrap()), "--format", "json"]);
    assert_eq!(built["totals"]["madds"], width["madds"]);
    let none = fine(&["variants", "mobilenet_v2@res=32", "--budget", "params=10", "--no-run"]);
    assert!(none.contains("No single rewrite"), "{none}");
}

#[test]
fn layers_of_a_model_are_timed_one_by_one() {
    let doc = json(&[
        "variants",
        "resnet18@res=32",
        "--apply",
        "separable",
        "--per-layer",
        "--seconds",
        "0.02",
        "--format",
        "json",
        "-q",
    ]);
    let layers = doc["layers"].as_array().unwrap();
    // Every convolution with a window but the stem; shapes that repeat stand once.
    assert_eq!(layers.iter().map(|l| l["times"].as_u64().unwrap()).sum::<u64>(), 16);
    assert!(layers.len() < 16 && layers.iter().all(|l| l["time_ratio"].as_f64().unwrap() > 0.0), "{layers:?}");
    assert!(layers.iter().all(|l| l["variant_madds"].as_u64() < l["madds"].as_u64()));
    assert!(fails(&["variants", "resnet18@res=32", "--apply", "bf16", "--per-layer"]).contains("as a whole"));
    assert!(fails(&["variants", "resnet18@res=32", "--apply", "separable,se", "--per-layer"]).contains("by itself"));
}
