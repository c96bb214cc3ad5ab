//! What the hardware allows: this machine's ceilings, probed once and kept with their age, and the roofline they span.
//!
//! Nothing here is needed to count or to run: without a probe reports lack the columns that compare with it.

pub mod affinity;
pub mod cache;
pub mod host;
pub mod probe;
pub mod roofline;

pub use roofline::{Bound, Ceilings, Roof};

use host::Host;

/// Which machine, and which of its instruction sets: what was measured on another says nothing here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The processor's name, or the platform where the system does not tell it.
    pub cpu: String,
    /// Hardware threads this process may use.
    pub cores: usize,
    /// Operating system and architecture.
    pub platform: String,
    /// Instruction sets, best last.
    pub isas: Vec<String>,
    /// Version of this program, whose loops make the figures; unoptimised builds are versions of their own.
    pub version: String,
}

impl Identity {
    /// This machine and this program.
    pub fn here() -> Identity {
        let host = Host::read();
        Identity {
            cpu: host.cpu.unwrap_or_else(|| host.platform.clone()),
            cores: host.cores,
            platform: host.platform,
            isas: crate::simd::Isa::available().iter().map(|i| i.name().to_string()).collect(),
            version: format!("{}{}", env!("CARGO_PKG_VERSION"), if cfg!(debug_assertions) { "-debug" } else { "" }),
        }
    }
}

/// A place memory can be read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// A cache, by its number.
    Cache(u8),
    /// Main memory.
    Dram,
}

impl Level {
    /// `L1` … `DRAM`.
    pub fn name(self) -> String {
        match self {
            Level::Cache(n) => format!("L{n}"),
            Level::Dram => "DRAM".to_string(),
        }
    }
}

/// A data cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cache {
    /// Its number.
    pub level: u8,
    /// Capacity of one.
    pub bytes: u64,
    /// Hardware threads that share one.
    pub shared_by: usize,
}

/// Multiply-adds per second of one instruction set.
#[derive(Debug, Clone, PartialEq)]
pub struct Peak {
    /// Instruction set.
    pub isa: String,
    /// What is multiplied. Kernels compute in `float32`, whatever the weights are stored in; other types get a figure with a kernel.
    pub dtype: String,
    /// Multiply-adds per second.
    pub madds_per_s: f64,
}

/// Bandwidth of one level.
#[derive(Debug, Clone, PartialEq)]
pub struct Bandwidth {
    /// Which.
    pub level: Level,
    /// Bytes read per second.
    pub read_bytes_per_s: f64,
    /// Bytes read and written per second while copying: both count.
    pub copy_bytes_per_s: f64,
    /// The buffers this was measured on, all threads together.
    pub buffer_bytes: u64,
}

/// What a number of threads reaches.
#[derive(Debug, Clone, PartialEq)]
pub struct Reach {
    /// Threads.
    pub threads: usize,
    /// Arithmetic by instruction set.
    pub peaks: Vec<Peak>,
    /// Memory by level, nearest first.
    pub memory: Vec<Bandwidth>,
    /// From handing out work to everybody being done with it, in seconds; nothing for one thread.
    pub fork_join_s: f64,
}

/// This machine's ceilings.
#[derive(Debug, Clone, PartialEq)]
pub struct Machine {
    /// Where they were measured.
    pub identity: Identity,
    /// When, in seconds since 1970.
    pub probed_unix_s: u64,
    /// How long the probe took.
    pub probe_s: f64,
    /// Middle ÷ best round of the arithmetic probe: near 1 on a machine that is left alone.
    pub steadiness: f64,
    /// One reading of the clock, in seconds.
    pub timer_s: f64,
    /// Data caches, nearest first.
    pub caches: Vec<Cache>,
    /// By number of threads, rising.
    pub reach: Vec<Reach>,
}

/// Below this steadiness the probe says that something else used the machine.
pub const STEADY: f64 = 0.8;

/// Seconds since 1970.
pub fn now_unix_s() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs())
}
