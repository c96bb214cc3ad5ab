//! Large stretches of zeroed `f32`, on huge pages where the system lends them: packed weights and activations are streamed, and with
//! small pages every 4 KiB costs a fault when first touched, a table walk when read, and a stop of the hardware's prefetching.

use memmap2::MmapMut;

/// Bytes from which on a mapping of its own pays; its last page may be mostly unused.
const LARGE: usize = 4 << 20;
/// Values per cache line.
const LINE: usize = 16;

/// `f32` values that start on a cache line.
#[derive(Debug)]
pub struct Pages {
    store: Store,
    len: usize,
}

#[derive(Debug)]
enum Store {
    /// Where in the vector the first line starts.
    Heap(Vec<f32>, usize),
    Map(MmapMut),
}

impl Pages {
    /// `len` zeros.
    pub fn zeros(len: usize) -> Pages {
        let mapped = (len * 4 >= LARGE).then(|| MmapMut::map_anon(len * 4).ok()).flatten();
        let store = match mapped {
            Some(map) => {
                // Advice: a system without huge pages goes on with small ones.
                #[cfg(target_os = "linux")]
                let _ = map.advise(memmap2::Advice::HugePage);
                Store::Map(map)
            }
            None => {
                let store = vec![0.0f32; len + LINE - 1];
                // `align_offset` may say "impossible"; alignment is a matter of speed only.
                let start = store.as_ptr().align_offset(64).min(LINE - 1);
                Store::Heap(store, start)
            }
        };
        Pages { store, len }
    }
}

impl Default for Pages {
    fn default() -> Self {
        Pages::zeros(0)
    }
}

impl Clone for Pages {
    fn clone(&self) -> Self {
        let mut copy = Pages::zeros(self.len);
        copy.copy_from_slice(self);
        copy
    }
}

impl std::ops::Deref for Pages {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        match &self.store {
            Store::Heap(store, start) => &store[*start..*start + self.len],
            Store::Map(map) => bytemuck::cast_slice(&map[..self.len * 4]),
        }
    }
}

impl std::ops::DerefMut for Pages {
    fn deref_mut(&mut self) -> &mut [f32] {
        match &mut self.store {
            Store::Heap(store, start) => &mut store[*start..*start + self.len],
            Store::Map(map) => bytemuck::cast_slice_mut(&mut map[..self.len * 4]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_and_large_ones_are_zero_aligned_and_of_the_length_asked_for() {
        for len in [0, 1, 17, LARGE / 4 - 1, LARGE / 4, LARGE / 4 + 3] {
            let mut p = Pages::zeros(len);
            assert_eq!(p.len(), len);
            assert!(p.iter().all(|&v| v == 0.0));
            assert_eq!(p.as_ptr() as usize % 64, 0);
            p.fill(2.0);
            assert_eq!(p.clone().iter().sum::<f32>(), 2.0 * len as f32);
        }
    }
}
