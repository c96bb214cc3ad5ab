//! What people read and type: the HTML report, modules, other runtimes' profiles, colours, settings, completions, Ctrl-C.

use serde_json::{Value, json};
use std::process::{Command, Output, Stdio};

const SMALL: &str = "mobilenet_v2@res=32";

fn program() -> Command {
    let mut c = Command::new(env!("CARGO_BIN_EXE_madd-prof"));
    let cache = concat!(env!("CARGO_TARGET_TMPDIR"), "/cache");
    for name in ["COLUMNS", "MADD_PROF_ISA", "NO_COLOR", "CLICOLOR", "FORCE_COLOR", "CLICOLOR_FORCE"] {
        c.env_remove(name);
    }
    c.env("MADD_PROF_CACHE", cache).stdin(Stdio::null());
    c
}

fn text(o: &Output) -> String {
    assert_eq!(o.status.code(), Some(0), "{}", String::from_utf8_lossy(&o.stderr));
    String::from_utf8(o.stdout.clone()).unwrap()
}

fn fine(args: &[&str]) -> String {
    text(&program().args(args).output().unwrap())
}

fn parsed(args: &[&str]) -> Value {
    serde_json::from_str(&fine(args)).unwrap()
}

/// What a page holds.
fn data(page: &str) -> Value {
    let (_, rest) = page.split_once("<script type=\"application/json\" id=\"data\">").unwrap();
    serde_json::from_str(rest.split_once("</script>").unwrap().0).unwrap()
}

fn sum(rows: &[Value], key: &str, kinds: &[&str]) -> u64 {
    let of_kind = |r: &&Value| kinds.contains(&r["kind"].as_str().unwrap());
    rows.iter().filter(of_kind).map(|r| r[key].as_u64().unwrap_or(0)).sum()
}

#[test]
fn the_page_holds_every_row_and_every_module_and_their_sums() {
    let page = fine(&["count", SMALL, "--quiet", "--format", "html"]);
    assert!(page.starts_with("<!doctype html>") && page.trim_end().ends_with("</html>"));
    let data = data(&page);
    let totals = &data["report"]["totals"];
    let column = |key: &str| data["columns"].as_array().unwrap().iter().position(|c| c["key"] == key).unwrap();
    let rows = data["rows"].as_array().unwrap();
    assert_eq!(rows.len(), parsed(&["count", SMALL, "--format", "json"])["layers"].as_array().unwrap().len());
    let all: u64 = rows.iter().map(|r| r[column("madds")].as_u64().unwrap()).sum();
    assert_eq!(totals["madds"], all);
    // The tree names every row once, and its outermost lines sum to the whole.
    let tree = data["tree"].as_array().unwrap();
    let named: std::collections::BTreeSet<i64> =
        tree.iter().map(|l| l[1].as_i64().unwrap()).filter(|i| *i >= 0).collect();
    assert_eq!(named.len(), rows.len());
    let outermost = tree.iter().filter(|l| l[0] == 0).map(|l| match l[1].as_i64().unwrap() {
        -1 => l[3][column("params")].as_u64().unwrap(),
        i => rows[i as usize][column("params")].as_u64().unwrap(),
    });
    assert_eq!(totals["params"], outermost.sum::<u64>());
    let page = fine(&["compare", SMALL, "squeezenet1_1@res=32", "--no-run", "--quiet", "--format", "html"]);
    assert_eq!(self::data(&page)["rows"].as_array().unwrap().len(), 2);
}

#[test]
fn modules_stand_above_their_rows_in_every_format() {
    let flat = parsed(&["count", SMALL, "--format", "json"]);
    let nested = parsed(&["count", SMALL, "--modules", "--format", "json"]);
    let (flat, rows) = (flat["layers"].as_array().unwrap(), nested["layers"].as_array().unwrap());
    for key in ["params", "madds", "bytes"] {
        assert_eq!(sum(flat, key, &["layer", "static"]), sum(rows, key, &["layer", "static"]), "{key}");
    }
    let module = rows.iter().find(|r| r["kind"] == "module" && r["name"] == "features.3").expect("a module");
    let inner: Vec<Value> =
        flat.iter().filter(|r| r["module"].as_str().is_some_and(|m| m.starts_with("features.3"))).cloned().collect();
    assert!(inner.len() > 5);
    assert_eq!(module["madds"], sum(&inner, "madds", &["layer"]));
    let count = |depth: &str| {
        let args = ["count", SMALL, "--modules", "--depth", depth, "--format", "json"];
        parsed(&args)["layers"].as_array().unwrap().len()
    };
    assert!(count("1") < count("2") && count("2") < rows.len());
    let table = fine(&["count", SMALL, "--modules", "--quiet"]);
    assert!(table.contains("\n  3 ") && table.contains("\n    conv"), "{table}");
    assert!(fine(&["count", SMALL, "--modules", "--format", "csv"]).contains("features.3,module,"));
    assert!(fine(&["count", SMALL, "--modules", "--format", "markdown"]).contains("&emsp;"));
}

#[test]
fn another_runtimes_times_find_their_rows_and_the_books_balance() {
    let layers = parsed(&["count", SMALL, "--format", "json"]);
    let convs: Vec<String> = layers["layers"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|l| l["op"] == "Conv")
        .map(|l| l["name"].as_str().unwrap().to_string())
        .collect();
    let mut events = vec![json!({"cat": "Session", "name": "model_run", "dur": 10_000})];
    for (i, name) in convs.iter().enumerate() {
        events.push(json!({"cat": "Node", "name": format!("{name}_nchwc_kernel_time"), "dur": 100, "args": {"op_name": "Conv", "node_index": i.to_string()}}));
    }
    events.push(json!({"cat": "Node", "name": "reorder_kernel_time", "dur": 50, "args": {"op_name": "ReorderOutput", "node_index": "999"}}));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("profile.json");
    std::fs::write(&path, Value::from(events).to_string()).unwrap();
    let path = path.to_str().unwrap();
    let doc = parsed(&["count", SMALL, "--import-profile", path, "--format", "json"]);
    let time =
        |rows: &str| -> f64 { doc[rows].as_array().unwrap().iter().filter_map(|l| l["runtime_ms"].as_f64()).sum() };
    assert!((time("layers") - 0.1 * convs.len() as f64).abs() < 1e-9, "{}", time("layers"));
    assert!((time("layers") + time("overhead") - 10.0).abs() < 1e-9);
    assert_eq!(doc["latency"]["runtime"]["median_ms"], 10.0);
    let mapped = doc["imported"]["mapped_ms"].as_f64().unwrap() / doc["imported"]["measured_ms"].as_f64().unwrap();
    assert!(mapped > 0.98 && mapped < 1.0, "{mapped}");
    let table = fine(&["count", SMALL, "--import-profile", path, "--quiet"]);
    assert!(table.contains("Run ms") && table.contains("ReorderOutput x1 0.050 ms"), "{table}");
    let o = program().args(["count", SMALL, "--import-profile", "none.json"]).output().unwrap();
    assert_eq!(o.status.code(), Some(2));
}

#[test]
fn colours_come_when_they_are_wanted() {
    let with = |name: &str, value: &str| text(&program().args(["count", SMALL]).env(name, value).output().unwrap());
    let escape = "\u{1b}[";
    assert!(!fine(&["count", SMALL]).contains(escape), "a pipe gets none");
    assert!(with("FORCE_COLOR", "1").contains(escape) && with("CLICOLOR_FORCE", "1").contains(escape));
    assert!(!with("NO_COLOR", "1").contains(escape));
    let json = text(&program().args(["count", SMALL, "--format", "json"]).env("FORCE_COLOR", "1").output().unwrap());
    assert!(!json.contains(escape), "machines never get any");
}

#[test]
fn settings_are_listed_with_value_and_origin() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("madd-prof.toml"), "[ops.\"a::B\"]\nmadds = \"n*7\"\n").unwrap();
    let mut c = program();
    c.args(["knobs", "--format", "json"]).env("MADD_PROF_ISA", "portable").current_dir(folder.path());
    let doc: Value = serde_json::from_str(&text(&c.output().unwrap())).unwrap();
    let row = |name: &str| doc["knobs"].as_array().unwrap().iter().find(|r| r["name"] == name).unwrap().clone();
    assert_eq!(
        (row("MADD_PROF_ISA")["value"].as_str(), row("MADD_PROF_ISA")["origin"].as_str()),
        (Some("portable"), Some("environment"))
    );
    assert_eq!(row("TERM")["meaning"], "dumb: no colours");
    assert_eq!(row("ops.\"a::B\".madds")["value"], "\"n*7\"");
    assert!(row("ops.\"a::B\".madds")["origin"].as_str().unwrap().ends_with("madd-prof.toml"));
}

#[test]
fn shells_and_man_get_what_they_want() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = fine(&["completions", shell]);
        assert!(script.contains("variants") && script.contains("import-profile"), "{shell}");
    }
    assert!(fine(&["man"]).contains(".TH madd-prof 1"));
    let folder = tempfile::tempdir().unwrap();
    fine(&["man", "--output", folder.path().to_str().unwrap()]);
    let page = std::fs::read_to_string(folder.path().join("madd-prof-count.1")).unwrap();
    assert!(page.contains("symbolic"), "{page}");
    let version = fine(&["--version", "--verbose"]);
    for part in ["madd-prof ", "build: ", "isa: ", "reports: madd-prof/1", "opset: up to "] {
        assert!(version.contains(part), "{part} in {version}");
    }
    assert_eq!(fine(&["--version"]).lines().count(), 1);
}

#[cfg(unix)]
#[test]
fn an_interrupt_ends_measuring_early_and_tells_what_there_is() {
    // A busy machine may take a while until it measures; before that, an interrupt just ends the program.
    for wait_s in [3, 10, 30] {
        let mut c = program();
        c.args(["bench", "squeezenet1_1@res=32", "--path", "optimized", "--threads", "1", "--seconds", "600"]);
        let child = c.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_secs(wait_s));
        assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
        let o = child.wait_with_output().unwrap();
        let (out, err) = (String::from_utf8_lossy(&o.stdout), String::from_utf8_lossy(&o.stderr));
        match o.status.code() {
            // A fast and quiet machine knows the median before that.
            Some(0) => return,
            Some(130) if out.is_empty() => continue,
            code => {
                assert_eq!(code, Some(130), "{err}");
                assert!(out.contains("stopped by the interruption") && out.contains("median"), "{out}\n{err}");
                assert!(err.contains("stopping after this run"), "{err}");
                return;
            }
        }
    }
    panic!("the program never came to measure");
}
