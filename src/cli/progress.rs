//! Progress on stderr, for people, and only once something takes over half a second.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::cell::RefCell;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Patience before a bar appears.
const PATIENCE: Duration = Duration::from_millis(500);

/// A progress bar that stays invisible for short work, without a terminal, and when quiet is asked for.
pub struct Progress {
    start: Instant,
    what: String,
    wanted: bool,
    bar: RefCell<Option<ProgressBar>>,
}

impl Progress {
    /// Progress of `what`.
    pub fn new(what: &str, quiet: bool) -> Progress {
        // A terminal that cannot move its cursor would get a line per step.
        let dumb = std::env::var_os("TERM").is_some_and(|t| t == "dumb");
        let wanted = !quiet && !dumb && std::io::stderr().is_terminal();
        Progress { start: Instant::now(), what: what.to_string(), wanted, bar: RefCell::new(None) }
    }
    /// For work that cannot say how far it is: a spinner that appears by itself if the work takes long.
    pub fn spin(&self) {
        if self.wanted && self.bar.borrow().is_none() {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(5));
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
                bar.set_style(style);
            }
            bar.set_message(self.what.clone());
            // The first drawing happens at the first tick.
            bar.enable_steady_tick(PATIENCE);
            *self.bar.borrow_mut() = Some(bar);
        }
    }
    /// Says how far the work is, 0 to 1.
    pub fn tell(&self, share: f64) {
        if !self.wanted || self.start.elapsed() < PATIENCE {
            return;
        }
        let mut bar = self.bar.borrow_mut();
        let bar = bar.get_or_insert_with(|| {
            let bar = ProgressBar::with_draw_target(Some(1000), ProgressDrawTarget::stderr_with_hz(10));
            if let Ok(style) = ProgressStyle::with_template("{msg} [{bar:30}] {percent:>3} % {elapsed}, {eta} left") {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.set_message(self.what.clone());
            bar
        });
        bar.set_position((share.clamp(0.0, 1.0) * 1000.0) as u64);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.borrow_mut().take() {
            bar.finish_and_clear();
        }
    }
}
