//! What it did cost: clocks, statistics, repetition until the answer is steady, and per-step times that sum to the whole.

pub mod clock;
pub mod import;
pub mod interrupt;
pub mod onnxruntime;
pub mod profile;
pub mod sample;
pub mod stats;

pub use crate::machine::host;
pub use clock::{Clock, WallClock};
pub use profile::{Profile, StepTime, Subject, profile};
pub use sample::{Policy, Ratio, Samples, Stop, paired, sample};
pub use stats::Stats;
