//! Clocks: the machine's, and one that only moves when told to, so that reports can be tested byte for byte.

use std::cell::Cell;
use std::time::Instant;

/// A monotonic clock in seconds.
pub trait Clock {
    /// Seconds since an arbitrary origin.
    fn now_s(&self) -> f64;
    /// What one reading costs, in seconds: subtracted from what is timed, and shown.
    fn read_cost_s(&self) -> f64;
}

/// The machine's monotonic clock.
#[derive(Debug)]
pub struct WallClock {
    origin: Instant,
    read_cost_s: f64,
}

impl WallClock {
    /// Starts the clock and calibrates the cost of reading it (about a tenth of a millisecond).
    pub fn start() -> WallClock {
        const READS: u32 = 256;
        let batch = || {
            let start = Instant::now();
            let mut last = start;
            for _ in 0..READS {
                last = std::hint::black_box(Instant::now());
            }
            (last - start).as_secs_f64() / f64::from(READS)
        };
        let read_cost_s = (0..8).map(|_| batch()).fold(f64::INFINITY, f64::min);
        WallClock { origin: Instant::now(), read_cost_s }
    }
}

impl Clock for WallClock {
    fn now_s(&self) -> f64 {
        self.origin.elapsed().as_secs_f64()
    }
    fn read_cost_s(&self) -> f64 {
        self.read_cost_s
    }
}

/// A clock that moves only when told to.
#[derive(Debug, Default)]
pub struct FakeClock {
    now_s: Cell<f64>,
    /// What the clock says one reading costs.
    pub read_cost_s: f64,
}

impl FakeClock {
    /// A clock at zero.
    pub fn new(read_cost_s: f64) -> FakeClock {
        FakeClock { now_s: Cell::new(0.0), read_cost_s }
    }
    /// Lets time pass.
    pub fn advance(&self, seconds: f64) {
        self.now_s.set(self.now_s.get() + seconds);
    }
}

impl Clock for FakeClock {
    fn now_s(&self) -> f64 {
        self.now_s.get()
    }
    fn read_cost_s(&self) -> f64 {
        self.read_cost_s
    }
}
