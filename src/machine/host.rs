//! What little of the machine a measurement needs to state: processor, cores, load, memory. Read on demand, never for a count.

use std::io::Read;

/// The machine as far as the operating system tells without probing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// The processor's name, if the system tells.
    pub cpu: Option<String>,
    /// Hardware threads this process may use.
    pub cores: usize,
    /// Operating system and architecture, `linux x86_64`.
    pub platform: String,
}

impl Host {
    /// Asks the operating system.
    pub fn read() -> Host {
        // Every core repeats it: the first lines are enough, and on large machines the whole takes long.
        let mut info = Vec::new();
        if let Ok(file) = std::fs::File::open("/proc/cpuinfo") {
            let _ = file.take(4096).read_to_end(&mut info);
        }
        let info = String::from_utf8_lossy(&info);
        let name = info.lines().find_map(|l| l.strip_prefix("model name")?.split_once(':').map(|(_, v)| v.trim()));
        Host {
            cpu: name.map(str::to_string),
            cores: cores(),
            platform: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        }
    }
}

/// Hardware threads this process may use, at least one.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get())
}

/// Memory that can be taken without swapping, if the system tells.
pub fn available_memory_bytes() -> Option<u64> {
    let info = std::fs::read_to_string("/proc/meminfo").ok()?;
    let kib = info.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?.trim().strip_suffix("kB")?.trim();
    kib.parse::<u64>().ok()?.checked_mul(1024)
}

/// The most memory this process has held at once, if the system tells.
pub fn peak_resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kib = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?.trim().strip_suffix("kB")?.trim();
    kib.parse::<u64>().ok()?.checked_mul(1024)
}

/// How many runnable threads the machine had over the last minute, if the system tells.
pub fn load() -> Option<f64> {
    std::fs::read_to_string("/proc/loadavg").ok()?.split(' ').next()?.parse().ok()
}
