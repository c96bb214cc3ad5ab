//! What little of the machine a measurement needs to state: processor, cores, load, free memory. Read on demand, never for a count.

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
        let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
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

/// How many runnable threads the machine had over the last minute, if the system tells.
pub fn load() -> Option<f64> {
    std::fs::read_to_string("/proc/loadavg").ok()?.split(' ').next()?.parse().ok()
}
