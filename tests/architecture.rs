//! Reads the sources and keeps the house in order: rooms name only lower rooms, `unsafe` and third-party crates stay in their
//! places, every operator and kernel file is in its table, every file says what it is, and only `cli` prints.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Rooms from the lowest up. A room may name itself and what is above it in this list (which is: lower in the house).
/// `engine::pool` is a room of its own: kernels run on it, and the engine runs kernels.
const ROOMS: &[&str] = &[
    "error",
    "units",
    "files",
    "formula",
    "tensor",
    "cost",
    "ops",
    "config",
    "ir",
    "onnx",
    "zoo",
    "analysis",
    "lens",
    "variants",
    "simd",
    "engine::pool",
    "machine",
    "kernels",
    "engine",
    "measure",
    "budget",
    "report",
    "cli",
];

/// The only places for `unsafe`: vector lanes, the fork-join pool, disjoint buffers of one allocation, parts of one mapping, mapping a file.
const UNSAFE: &[&str] =
    &["src/simd/", "src/engine/pool", "src/engine/arena", "src/tensor/pages.rs", "src/tensor/map.rs"];

/// Each third-party crate and the only places that may name it.
const CRATES: &[(&str, &[&str])] = &[
    ("bytemuck", &["src/tensor/", "src/ops/elements.rs"]),
    ("bytes", &["src/onnx/", "src/tensor/dense.rs", "src/tensor/map.rs", "src/tensor/pages.rs"]),
    ("clap", &["src/cli/"]),
    ("clap_complete", &["src/cli/"]),
    ("clap_mangen", &["src/cli/about.rs"]),
    ("ctrlc", &["src/cli/mod.rs"]),
    ("csv", &["src/report/csv.rs"]),
    ("foldhash", &["src/analysis/params.rs", "src/ir/", "src/ops/mod.rs"]),
    ("half", &["src/tensor/", "src/ops/cast.rs"]),
    ("indicatif", &["src/cli/progress.rs"]),
    ("libm", &["src/ops/unary.rs"]),
    ("memmap2", &["src/tensor/map.rs", "src/tensor/pages.rs"]),
    ("onnx_protobuf", &["src/onnx/write.rs"]),
    ("ort", &["src/measure/onnxruntime.rs"]),
    ("prettytable", &["src/report/table.rs"]),
    ("prost", &["src/onnx/"]),
    ("protobuf", &["src/onnx/write.rs"]),
    ("strsim", &["src/cli/mod.rs"]),
    ("regex_lite", &["src/ops/strings.rs"]),
    (
        "serde_json",
        &[
            "src/budget/",
            "src/cli/break_even.rs",
            "src/cli/conformance.rs",
            "src/cli/diff.rs",
            "src/cli/formulas.rs",
            "src/cli/machine.rs",
            "src/cli/switches.rs",
            "src/cli/variants.rs",
            "src/machine/cache.rs",
            "src/report/benchmark.rs",
            "src/measure/import",
            "src/report/candidates.rs",
            "src/report/gitlab.rs",
            "src/report/grid.rs",
            "src/report/html.rs",
            "src/report/json.rs",
            "src/report/model_explorer.rs",
            "src/report/sarif.rs",
            "src/report/trace.rs",
            "src/report/verdict.rs",
            "src/zoo/",
        ],
    ),
    ("rust_xlsxwriter", &["src/report/xlsx.rs"]),
    ("rustix", &["src/machine/affinity.rs"]),
    ("smallvec", &["src/engine/operands.rs", "src/kernels/"]),
    (
        "tempfile",
        &["src/files.rs", "src/machine/", "src/measure/import", "src/onnx/", "src/tensor/map.rs", "src/tensor/npz.rs"],
    ),
    ("terminal_size", &["src/cli/mod.rs"]),
    ("toml", &["src/budget/settings.rs", "src/config.rs"]),
    ("zip", &["src/tensor/npz.rs"]),
];

fn rust_files(folder: &str) -> Vec<PathBuf> {
    let mut out = Vec::new();
    let mut todo = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                todo.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                out.push(path);
            }
        }
    }
    out.sort();
    out
}

fn name_of(path: &Path) -> String {
    path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap().to_string_lossy().replace('\\', "/")
}

/// Every source file by name, comments and string contents blanked out so that only code is looked at.
fn sources() -> BTreeMap<String, String> {
    rust_files("src").iter().map(|p| (name_of(p), code_of(&fs::read_to_string(p).unwrap()))).collect()
}

/// Blanks comments and string literals (raw strings with hashes included).
fn code_of(text: &str) -> String {
    let b: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut i = 0;
    while i < b.len() {
        let rest = |n: usize| b.get(i + n).copied().unwrap_or('\0');
        if b[i] == '/' && rest(1) == '/' {
            while i < b.len() && b[i] != '\n' {
                i += 1;
            }
        } else if b[i] == '/' && rest(1) == '*' {
            while i < b.len() && !(b[i] == '*' && b.get(i + 1) == Some(&'/')) {
                i += 1;
            }
            i += 2;
        } else if b[i] == 'r' && (rest(1) == '"' || rest(1) == '#') && (i == 0 || !b[i - 1].is_alphanumeric()) {
            let mut hashes = 0;
            while rest(1 + hashes) == '#' {
                hashes += 1;
            }
            if rest(1 + hashes) != '"' {
                out.push(b[i]);
                i += 1;
                continue;
            }
            i += 2 + hashes;
            while i < b.len() && !(b[i] == '"' && (1..=hashes).all(|k| b.get(i + k) == Some(&'#'))) {
                i += 1;
            }
            i += 1 + hashes;
        } else if b[i] == '"' {
            i += 1;
            while i < b.len() && b[i] != '"' {
                i += if b[i] == '\\' { 2 } else { 1 };
            }
            i += 1;
        } else if b[i] == '\'' && (rest(1) == '\\' || rest(2) == '\'') {
            // A character literal, not a lifetime.
            i += 2 + usize::from(rest(1) == '\\');
            while i < b.len() && b[i] != '\'' {
                i += 1;
            }
            i += 1;
        } else {
            out.push(b[i]);
            i += 1;
        }
    }
    out
}

/// Whether `code` contains `word` as a whole word.
fn has_word(code: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).any(|(at, _)| {
        !code[..at].chars().next_back().is_some_and(part) && !code[at + word.len()..].chars().next().is_some_and(part)
    })
}

/// The room of a file: `src/ops/conv.rs` is `ops`.
fn room_of(file: &str) -> Option<&'static str> {
    let path = file.strip_prefix("src/")?.trim_end_matches(".rs").replace('/', "::");
    let within = |room: &&&str| path == **room || path.starts_with(&format!("{room}::"));
    ROOMS.iter().filter(within).max_by_key(|r| r.len()).copied()
}

/// Everything code names behind `crate::`, with grouped imports (`crate::{a, b::c}`) taken apart.
fn named(code: &str) -> Vec<String> {
    let mut out = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + 7..];
        if let Some(group) = rest.strip_prefix('{') {
            let (mut depth, mut start) = (1, 0);
            for (i, c) in group.char_indices() {
                depth += i32::from(c == '{') - i32::from(c == '}');
                if (c == ',' && depth == 1) || depth == 0 {
                    out.push(group[start..i].trim().to_string());
                    start = i + 1;
                }
                if depth == 0 {
                    break;
                }
            }
        } else {
            let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).unwrap_or(rest.len());
            out.push(rest[..end].to_string());
        }
    }
    out
}

#[test]
fn rooms_name_only_lower_rooms() {
    let mut wrong = Vec::new();
    for (file, code) in sources() {
        let Some(room) = room_of(&file) else {
            assert!(matches!(file.as_str(), "src/lib.rs" | "src/main.rs"), "{file} is in no room of ROOMS");
            continue;
        };
        let own = ROOMS.iter().position(|r| *r == room).unwrap();
        for name in named(&code) {
            let target = ROOMS
                .iter()
                .enumerate()
                .filter(|(_, r)| name == **r || name.starts_with(&format!("{r}::")))
                .max_by_key(|(_, r)| r.len());
            if let Some((other, higher)) = target.filter(|(other, _)| *other > own) {
                wrong.push(format!("{file} ({room}, {own}) names {higher} ({other})"));
            }
        }
    }
    assert!(wrong.is_empty(), "lower rooms must not name higher ones:\n{}", wrong.join("\n"));
}

#[test]
fn unsafe_stays_in_its_rooms() {
    let wrong: Vec<String> = sources()
        .into_iter()
        .filter(|(file, code)| has_word(code, "unsafe") && !UNSAFE.iter().any(|place| file.starts_with(place)))
        .map(|(file, _)| file)
        .collect();
    assert!(wrong.is_empty(), "unsafe outside its rooms: {}", wrong.join(", "));
}

#[test]
fn every_third_party_crate_is_named_in_its_place() {
    let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    let sections = manifest.split("dependencies]\n").skip(1).map(|s| s.split("\n[").next().unwrap());
    for line in
        sections.flat_map(str::lines).filter(|l| !l.trim().is_empty() && !l.trim_start().starts_with(['#', '[']))
    {
        let name = line.split(['=', ' ', '.']).next().unwrap().replace('-', "_");
        let name = if name == "prettytable_rs" { "prettytable".into() } else { name };
        assert!(CRATES.iter().any(|(c, _)| *c == name), "{name} has no place in CRATES");
    }
    for (file, code) in sources() {
        for (name, places) in CRATES {
            let used = code.match_indices(&format!("{name}::")).any(|(at, _)| {
                !code[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
                    && !code[..at].ends_with("crate::")
            });
            // Modules may share a crate's name (`report::csv`); such uses say so with a path in front.
            let own_module = code.contains(&format!("mod {name};"));
            if used && !own_module {
                assert!(places.iter().any(|p| file.starts_with(p)), "{file} names {name}, whose places are {places:?}");
            }
        }
    }
}

#[test]
fn every_operator_and_kernel_file_is_in_its_table() {
    let read = |file: &str| fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
    let table = read("src/ops/mod.rs");
    for path in rust_files("src/ops") {
        let text = fs::read_to_string(&path).unwrap();
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        if text.contains("pub const ENTRIES") {
            assert!(table.contains(&format!(": {stem};")), "{} is not in families!", name_of(&path));
        } else {
            assert!(
                table.contains(&format!("mod {stem};"))
                    || stem == "mod"
                    || path.parent().unwrap().ends_with(&stem)
                    || rust_files("src/ops")
                        .iter()
                        .any(|p| fs::read_to_string(p).unwrap().contains(&format!("mod {stem};"))),
                "{} is used by nothing",
                name_of(&path)
            );
        }
    }
    let table = read("src/variants/mod.rs");
    for path in rust_files("src/variants") {
        let text = fs::read_to_string(&path).unwrap();
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        for line in text.lines().filter(|l| l.starts_with("pub static") && l.contains(": Entry =")) {
            let name = line.split("static ").nth(1).unwrap().split(':').next().unwrap().trim();
            assert!(table.contains(&format!("&{stem}::{name},")), "{stem}::{name} is not in the table of variants");
        }
    }
    let table = read("src/kernels/table.rs");
    for path in rust_files("src/kernels") {
        let text = fs::read_to_string(&path).unwrap();
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        for line in text.lines().filter(|l| l.contains("const") && l.contains(": Entry =")) {
            let name = line.split("const ").nth(1).unwrap().split(':').next().unwrap().trim();
            assert!(table.contains(&format!("{stem}::{name},")), "{stem}::{name} is not in the kernel table");
        }
    }
}

#[test]
fn every_file_says_what_it_is() {
    let mut folders = vec!["src", "tests"];
    folders.extend(["benches", "fuzz"].iter().filter(|f| Path::new(env!("CARGO_MANIFEST_DIR")).join(f).is_dir()));
    let files = folders.iter().flat_map(|f| rust_files(f)).filter(|p| !name_of(p).contains("/target/"));
    let silent: Vec<String> =
        files.filter(|p| !fs::read_to_string(p).unwrap().starts_with("//!")).map(|p| name_of(&p)).collect();
    assert!(silent.is_empty(), "files without a //! header: {}", silent.join(", "));
}

#[test]
fn only_the_command_line_prints() {
    for (file, code) in sources() {
        let prints = ["print!", "println!", "eprint!", "eprintln!", "dbg!"]
            .iter()
            .any(|m| has_word(&code, &m[..m.len() - 1]) && code.contains(m));
        let touches = code.contains("io::stdout") || code.contains("io::stderr");
        assert!(file.starts_with("src/cli/") || !(prints || touches), "{file} prints");
    }
}

#[test]
fn the_reader_of_sources_sees_code_only() {
    let code =
        code_of("a(\"unsafe // {\", 'x', '\\'', r#\"unsafe \" \"#); /* unsafe */ b // unsafe\nlet c: &'static str;");
    assert!(!has_word(&code, "unsafe"), "{code}");
    assert!(code.contains("b") && code.contains("&'static str"), "{code}");
    assert_eq!(named("use crate::{a, b::{c, d}, e}; crate::f::g()"), ["a", "b::{c, d}", "e", "f::g"]);
    assert_eq!(room_of("src/engine/pool/worker.rs"), Some("engine::pool"));
    assert_eq!(room_of("src/ops/conv.rs"), Some("ops"));
}
