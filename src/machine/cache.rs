//! What is kept between runs: ceilings and tuned choices, as JSON in the user's cache folder, with the machine they belong to.
//!
//! Nothing depends on it. A file of another machine, another version, a damaged or an old one counts as none; files are written
//! beside their place and renamed, so that a reader never sees half of one.

use super::{Bandwidth, Cache, Identity, Level, Machine, Peak, Reach};
use crate::error::{Error, Result};
use crate::files::Output;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// Environment variable that says where the cache is; empty: keep nothing.
pub const ENV: &str = "MADD_PROF_CACHE";
/// Environment variable for the GiB of packed weights that may be kept; 0: none.
pub const KEEP: &str = "MADD_PROF_KEEP_GIB";
/// GiB of packed weights that are kept where nothing else is said.
pub const KEEP_GIB: f64 = 4.0;
/// Name and version of the files' contents.
const SCHEMA: &str = "madd-prof-cache/1";
/// Files are small; anything larger is not ours.
const MOST_BYTES: u64 = 16 << 20;
/// Ceilings older than this are probed anew: memory is added, firmware and virtual machines change.
pub const MAX_AGE_S: u64 = 30 * 24 * 3600;

/// Where things are kept: `MADD_PROF_CACHE`, else `madd-prof` in `XDG_CACHE_HOME`, else in `~/.cache`; `None` where there is no place.
pub fn folder() -> Option<PathBuf> {
    folder_of(&|name| std::env::var_os(name).map(PathBuf::from))
}

fn folder_of(var: &dyn Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    if let Some(own) = var(ENV) {
        return (!own.as_os_str().is_empty()).then_some(own);
    }
    let absolute = |name: &str| var(name).filter(|p| p.is_absolute());
    let base = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")));
    // Windows knows neither.
    base.or_else(|| absolute("LOCALAPPDATA")).map(|p| p.join("madd-prof"))
}

/// Bytes of packed weights that may be kept; 0 where the variable says so or no number of GiB.
pub fn most_weight_bytes() -> u64 {
    let gib = match std::env::var(KEEP) {
        Ok(text) => text.trim().parse().ok().filter(|g: &f64| g.is_finite() && *g > 0.0).unwrap_or(0.0),
        Err(_) => KEEP_GIB,
    };
    (gib * f64::from(1 << 30)) as u64
}

/// The ceilings kept for this machine; `None` where there are none, or they are another's, damaged or too old.
pub fn read_machine(folder: &Path, identity: &Identity, now_unix_s: u64) -> Option<Machine> {
    let machine = machine_from(&document(&folder.join("machine.json"), identity)?["machine"], identity)?;
    // A probe from the future is one of another clock.
    let age = now_unix_s.checked_sub(machine.probed_unix_s)?;
    (age <= MAX_AGE_S).then_some(machine)
}

/// Keeps ceilings.
///
/// # Errors
/// If the folder cannot be made or written to.
pub fn write_machine(folder: &Path, machine: &Machine) -> Result<PathBuf> {
    write(folder, "machine.json", &machine.identity, "machine", machine_json(machine))
}

/// A kernel that was fastest for a task.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// The kernel's name.
    pub kernel: String,
    /// Its time and those of the others, in seconds, fastest first.
    pub times: Vec<(String, f64)>,
}

/// Tuned choices by task.
pub type Choices = BTreeMap<String, Choice>;

/// The choices kept for this machine; none where there is no such file.
pub fn read_choices(folder: &Path, identity: &Identity) -> Choices {
    let Some(doc) = document(&folder.join("tuned.json"), identity) else { return Choices::new() };
    let choice = |v: &Value| -> Option<Choice> {
        let pair = |t: &Value| Some((t[0].as_str()?.to_string(), finite(&t[1])?));
        Some(Choice {
            kernel: v["kernel"].as_str()?.to_string(),
            times: v["seconds"].as_array()?.iter().map(pair).collect::<Option<_>>()?,
        })
    };
    let map = doc["choices"].as_object();
    map.into_iter().flatten().filter_map(|(k, v)| Some((k.clone(), choice(v)?))).collect()
}

/// Keeps choices beside those that are kept already.
///
/// # Errors
/// If the folder cannot be made or written to.
pub fn write_choices(folder: &Path, identity: &Identity, choices: &Choices) -> Result<PathBuf> {
    // Another process may have tuned other tasks meanwhile.
    let mut all = read_choices(folder, identity);
    all.extend(choices.iter().map(|(k, v)| (k.clone(), v.clone())));
    let map: serde_json::Map<String, Value> =
        all.iter().map(|(k, c)| (k.clone(), json!({ "kernel": c.kernel, "seconds": c.times }))).collect();
    write(folder, "tuned.json", identity, "choices", map.into())
}

fn write(folder: &Path, name: &str, identity: &Identity, key: &str, content: Value) -> Result<PathBuf> {
    let path = folder.join(name);
    std::fs::create_dir_all(folder).map_err(|e| crate::files::cannot_write(folder, &e))?;
    let doc = json!({ "schema": SCHEMA, "identity": identity_json(identity), key: content });
    let text = serde_json::to_vec_pretty(&doc).map_err(|e| Error::run(format!("cannot be written as JSON: {e}")))?;
    let mut out = Output::create(&path)?;
    out.write_all(&text).and_then(|()| out.write_all(b"\n")).map_err(|e| crate::files::cannot_write(&path, &e))?;
    out.commit()?;
    Ok(path)
}

fn document(path: &Path, identity: &Identity) -> Option<Value> {
    let mut text = String::new();
    std::fs::File::open(path).ok()?.take(MOST_BYTES).read_to_string(&mut text).ok()?;
    let doc: Value = serde_json::from_str(&text).ok()?;
    (doc["schema"] == SCHEMA && doc["identity"] == identity_json(identity)).then_some(doc)
}

fn identity_json(i: &Identity) -> Value {
    json!({ "cpu": i.cpu, "cores": i.cores, "platform": i.platform, "isas": i.isas, "version": i.version })
}

/// Ceilings as JSON, as kept and as reported.
pub fn machine_json(m: &Machine) -> Value {
    let memory = |b: &Bandwidth| {
        json!({
            "level": b.level.name(),
            "read_bytes_per_s": b.read_bytes_per_s,
            "copy_bytes_per_s": b.copy_bytes_per_s,
            "buffer_bytes": b.buffer_bytes,
        })
    };
    let reach = |r: &Reach| {
        json!({
            "threads": r.threads,
            "peaks": r.peaks.iter()
                .map(|p| json!({ "isa": p.isa, "dtype": p.dtype, "madds_per_s": p.madds_per_s })).collect::<Vec<_>>(),
            "memory": r.memory.iter().map(memory).collect::<Vec<_>>(),
            "fork_join_s": r.fork_join_s,
        })
    };
    json!({
        "probed_unix_s": m.probed_unix_s,
        "probe_s": m.probe_s,
        "steadiness": m.steadiness,
        "timer_s": m.timer_s,
        "caches": m.caches.iter()
            .map(|c| json!({ "level": c.level, "bytes": c.bytes, "shared_by": c.shared_by })).collect::<Vec<_>>(),
        "reach": m.reach.iter().map(reach).collect::<Vec<_>>(),
    })
}

fn finite(v: &Value) -> Option<f64> {
    v.as_f64().filter(|v| v.is_finite() && *v >= 0.0)
}

fn list<T>(v: &Value, of: impl Fn(&Value) -> Option<T>) -> Option<Vec<T>> {
    v.as_array()?.iter().map(of).collect()
}

fn machine_from(v: &Value, identity: &Identity) -> Option<Machine> {
    let size = |v: &Value| usize::try_from(v.as_u64()?).ok().filter(|n| *n > 0);
    let level = |v: &Value| match v.as_str()? {
        "DRAM" => Some(Level::Dram),
        name => name.strip_prefix('L')?.parse().ok().map(Level::Cache),
    };
    let memory = |b: &Value| {
        Some(Bandwidth {
            level: level(&b["level"])?,
            read_bytes_per_s: finite(&b["read_bytes_per_s"])?,
            copy_bytes_per_s: finite(&b["copy_bytes_per_s"])?,
            buffer_bytes: b["buffer_bytes"].as_u64()?,
        })
    };
    let peak = |p: &Value| {
        Some(Peak {
            isa: p["isa"].as_str()?.to_string(),
            dtype: p["dtype"].as_str()?.to_string(),
            madds_per_s: finite(&p["madds_per_s"])?,
        })
    };
    let reach = |r: &Value| {
        Some(Reach {
            threads: size(&r["threads"])?,
            peaks: list(&r["peaks"], peak)?,
            memory: list(&r["memory"], memory)?,
            fork_join_s: finite(&r["fork_join_s"])?,
        })
    };
    let cache = |c: &Value| {
        Some(Cache {
            level: u8::try_from(c["level"].as_u64()?).ok()?,
            bytes: c["bytes"].as_u64()?,
            shared_by: size(&c["shared_by"])?,
        })
    };
    Some(Machine {
        identity: identity.clone(),
        probed_unix_s: v["probed_unix_s"].as_u64()?,
        probe_s: finite(&v["probe_s"])?,
        steadiness: finite(&v["steadiness"])?,
        timer_s: finite(&v["timer_s"])?,
        caches: list(&v["caches"], cache)?,
        reach: list(&v["reach"], reach).filter(|r| !r.is_empty())?,
    })
}

#[cfg(test)]
mod tests {
    use super::super::roofline::tests::machine;
    use super::*;

    #[test]
    fn ceilings_come_back_as_they_were_and_only_to_their_machine() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("not/yet/there");
        let m = machine();
        let now = m.probed_unix_s + 10;
        assert_eq!(read_machine(&folder, &m.identity, now), None);
        let path = write_machine(&folder, &m).unwrap();
        assert_eq!(read_machine(&folder, &m.identity, now), Some(m.clone()));
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1, "no temporary file stays");
        // Another processor, another version, fewer cores.
        let others = [
            Identity { cpu: "Other CPU".into(), ..m.identity.clone() },
            Identity { version: "9".into(), ..m.identity.clone() },
            Identity { cores: 1, ..m.identity.clone() },
            Identity { isas: vec![], ..m.identity.clone() },
        ];
        for other in &others {
            assert_eq!(read_machine(&folder, other, now), None, "{other:?}");
        }
        // Too old, and from the future.
        assert_eq!(read_machine(&folder, &m.identity, m.probed_unix_s + MAX_AGE_S + 1), None);
        assert_eq!(read_machine(&folder, &m.identity, m.probed_unix_s - 1), None);
        // Damaged in any way: at every length, with a number that is none, of another schema.
        let text = std::fs::read_to_string(&path).unwrap();
        for len in (0..text.len() - 1).step_by(37) {
            std::fs::write(&path, &text[..len]).unwrap();
            assert_eq!(read_machine(&folder, &m.identity, now), None, "{len} bytes");
        }
        for (from, to) in
            [("\"timer_s\": ", "\"timer_s\": -"), ("madd-prof-cache/1", "madd-prof-cache/0"), ("\"DRAM\"", "\"D\"")]
        {
            assert!(text.contains(from), "{text}");
            std::fs::write(&path, text.replace(from, to)).unwrap();
            assert_eq!(read_machine(&folder, &m.identity, now), None, "{to}");
        }
    }

    #[test]
    fn choices_add_up_over_runs() {
        let dir = tempfile::tempdir().unwrap();
        let m = machine();
        let choice =
            |kernel: &str| Choice { kernel: kernel.into(), times: vec![(kernel.into(), 1e-3), ("b".into(), 2e-3)] };
        let one = Choices::from([("task 1".to_string(), choice("a")), ("task 2".to_string(), choice("a"))]);
        write_choices(dir.path(), &m.identity, &one).unwrap();
        write_choices(dir.path(), &m.identity, &Choices::from([("task 2".to_string(), choice("c"))])).unwrap();
        let all = read_choices(dir.path(), &m.identity);
        assert_eq!(all.len(), 2);
        assert_eq!((all["task 1"].kernel.as_str(), all["task 2"].kernel.as_str()), ("a", "c"));
        assert_eq!(all["task 1"], one["task 1"]);
        assert!(read_choices(dir.path(), &Identity { cores: 7, ..m.identity }).is_empty());
    }

    #[test]
    fn the_folder_is_where_the_user_says() {
        let of = |pairs: &[(&str, &str)]| {
            let pairs: Vec<(String, String)> = pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
            folder_of(&move |name| pairs.iter().find(|(k, _)| k == name).map(|(_, v)| PathBuf::from(v)))
        };
        assert_eq!(of(&[("HOME", "/home/a")]), Some("/home/a/.cache/madd-prof".into()));
        assert_eq!(of(&[("HOME", "/home/a"), ("XDG_CACHE_HOME", "/x")]), Some("/x/madd-prof".into()));
        assert_eq!(of(&[("HOME", "/home/a"), ("XDG_CACHE_HOME", "x")]), Some("/home/a/.cache/madd-prof".into()));
        assert_eq!(of(&[("HOME", "/home/a"), (ENV, "here")]), Some("here".into()));
        assert_eq!(of(&[("HOME", "/home/a"), (ENV, "")]), None);
        assert_eq!(of(&[]), None);
    }
}
