//! Which core each thread stays on, for `--pin`: one thread per physical core first, siblings only when cores run out.

/// The processor for each of `threads` threads, among those this process may use; empty where the system has no such thing.
pub fn cores_for(threads: usize) -> Vec<usize> {
    spread(&allowed(), &siblings, threads)
}

/// Takes a processor of every physical core in turn, then the second of each, and begins again when all are taken.
fn spread(allowed: &[usize], siblings: &dyn Fn(usize) -> Vec<usize>, threads: usize) -> Vec<usize> {
    if allowed.is_empty() {
        return Vec::new();
    }
    // How many siblings of the same core come before it.
    let rank = |cpu: usize| siblings(cpu).iter().filter(|s| allowed.contains(s) && **s < cpu).count();
    let mut order: Vec<(usize, usize)> = allowed.iter().map(|&cpu| (rank(cpu), cpu)).collect();
    order.sort_unstable();
    (0..threads).map(|i| order[i % order.len()].1).collect()
}

/// `0-3,8` as the kernel writes lists of processors.
pub(super) fn parse_list(text: &str) -> Vec<usize> {
    let mut out = Vec::new();
    for part in text.trim().split(',').filter(|p| !p.is_empty()) {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(from), Ok(to)) = (from.trim().parse::<usize>(), to.trim().parse::<usize>()) {
            out.extend(from..=to.min(from.saturating_add(4096)));
        }
    }
    out
}

#[cfg(target_os = "linux")]
fn siblings(cpu: usize) -> Vec<usize> {
    let file = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
    std::fs::read_to_string(file).map(|t| parse_list(&t)).unwrap_or_default()
}
#[cfg(not(target_os = "linux"))]
fn siblings(_cpu: usize) -> Vec<usize> {
    Vec::new()
}

#[cfg(target_os = "linux")]
fn allowed() -> Vec<usize> {
    match rustix::thread::sched_getaffinity(None) {
        Ok(set) => (0..rustix::thread::CpuSet::MAX_CPU).filter(|&i| set.is_set(i)).collect(),
        Err(_) => Vec::new(),
    }
}
#[cfg(not(target_os = "linux"))]
fn allowed() -> Vec<usize> {
    Vec::new()
}

/// Keeps the calling thread on a processor; whether that worked.
#[cfg(target_os = "linux")]
pub fn pin(cpu: usize) -> bool {
    let mut set = rustix::thread::CpuSet::new();
    if cpu >= rustix::thread::CpuSet::MAX_CPU {
        return false;
    }
    set.set(cpu);
    rustix::thread::sched_setaffinity(None, &set).is_ok()
}
/// Keeps the calling thread on a processor; whether that worked.
#[cfg(not(target_os = "linux"))]
pub fn pin(_cpu: usize) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn physical_cores_come_first() {
        assert_eq!(parse_list("0-2,8\n"), [0, 1, 2, 8]);
        assert!(parse_list("x,").is_empty());
        // Four processors on two cores: 0 and 2 share one, 1 and 3 the other.
        let pairs = |cpu: usize| vec![cpu % 2, cpu % 2 + 2];
        assert_eq!(spread(&[0, 1, 2, 3], &pairs, 3), [0, 1, 2]);
        assert_eq!(spread(&[0, 2, 3], &pairs, 4), [0, 3, 2, 0], "the first sibling that may be used is the core's own");
        assert!(spread(&[], &pairs, 2).is_empty());
        let adjacent = |cpu: usize| vec![cpu / 2 * 2, cpu / 2 * 2 + 1];
        assert_eq!(spread(&[0, 1, 2, 3], &adjacent, 4), [0, 2, 1, 3]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_pinned_thread_may_use_one_processor_only() {
        let seen = std::thread::spawn(|| {
            let cores = cores_for(1);
            assert!(pin(cores[0]));
            (cores, allowed())
        });
        let (cores, now) = seen.join().unwrap();
        assert_eq!(cores, now);
        assert!(!pin(usize::MAX));
    }
}
