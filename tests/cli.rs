//! The program as its users meet it: exit codes, streams, formats, wrong flags, broken files, pipes.

use serde_json::Value;
use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

fn program() -> Command {
    let mut c = Command::new(env!("CARGO_BIN_EXE_madd-prof"));
    c.env_remove("COLUMNS").env_remove("MADD_PROF_ISA").stdin(Stdio::null());
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
    for key in ["min_ms", "median_ms", "p90_ms", "runs"] {
        assert!(latency[key].as_f64().unwrap() > 0.0, "{key}");
    }
    assert_eq!(latency["threads"], 1);
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
    assert!(fine(&["kernels", SMALL]).contains("steps for"));
    let o = run(&[]);
    assert_eq!(o.status.code(), Some(2));
    assert!(stderr(&o).contains("Usage"));
}
