//! Large stretches of zeroed `f32`, on huge pages where the system lends them: packed weights and activations are streamed, and with
//! small pages every 4 KiB costs a fault when first touched, a table walk when read, and a stop of the hardware's prefetching.

use super::{DType, Tensor, element_count};
use bytes::Bytes;
use memmap2::{Mmap, MmapMut};
use std::fs::File;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Bytes of a huge page.
const HUGE: usize = 2 << 20;
/// Bytes from which on a mapping of its own pays: its last page may be mostly unused.
const OWN: usize = 1 << 20;
/// Bytes from which on a part of a model gets a mapping of its own.
const LARGE: usize = 4 << 20;
/// Bytes of a slab.
const SLAB: usize = 32 << 20;
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
    /// Values from this one on of a slab, nobody else's.
    Part(Arc<Slab>, usize),
    /// Bytes from this one on of a file; copied when somebody wants to write.
    Kept(Arc<Mmap>, usize),
    /// Another's, likewise.
    Lent(Arc<Pages>),
}

/// A mapped file of values. Written in one go it lies in huge pages as well, where the file system has them.
#[derive(Debug, Clone)]
pub struct PageFile(Arc<Mmap>);

impl PageFile {
    /// Maps it.
    ///
    /// # Errors
    /// If the system does not let it be mapped.
    pub fn map(file: &File) -> std::io::Result<PageFile> {
        // SAFETY: read-only and private. Files mapped here are replaced by renaming, never written to in their values or cut
        // (somebody else's cutting would end this process, it cannot make it write anywhere).
        Ok(PageFile(Arc::new(unsafe { Mmap::map(file) }?)))
    }
    /// All of it.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
    /// A tensor whose payload is the bytes from `at` on; `None` if they are not there.
    pub fn tensor(&self, at: usize, dtype: DType, dims: &[usize]) -> Option<Tensor> {
        struct Part(Arc<Mmap>, Range<usize>);
        impl AsRef<[u8]> for Part {
            fn as_ref(&self) -> &[u8] {
                &self.0[self.1.clone()]
            }
        }
        let end = dtype.bytes_of(element_count(dims).ok()?)?.checked_add(at)?;
        let part = (end <= self.0.len()).then(|| Part(self.0.clone(), at..end))?;
        Tensor::from_file_bytes(dtype, Bytes::from_owner(part), dims).ok()
    }
    /// `len` values from byte `at` on; `None` if they are not there or not on a cache line.
    pub fn pages(&self, at: usize, len: usize) -> Option<Pages> {
        let end = len.checked_mul(4)?.checked_add(at)?;
        (at.is_multiple_of(4 * LINE) && end <= self.0.len())
            .then(|| Pages { store: Store::Kept(self.0.clone(), at), len })
    }
}

/// A mapping handed out from front to back, each value once. It goes back to the system with the last part.
#[derive(Debug)]
struct Slab {
    /// Keeps the mapping; everything is read and written through `base`.
    _map: MmapMut,
    base: NonNull<f32>,
    /// Values handed out.
    used: AtomicUsize,
}

// SAFETY: `base` is only dereferenced by the parts, each for values of its own.
unsafe impl Send for Slab {}
// SAFETY: likewise; `used` is atomic.
unsafe impl Sync for Slab {}

/// The slab that parts come from at the moment, while any of them lives.
static SLABS: Mutex<Weak<Slab>> = Mutex::new(Weak::new());

impl Slab {
    fn new() -> Option<Arc<Slab>> {
        let mut map = huge(SLAB)?;
        let base = NonNull::new(map.as_mut_ptr().cast())?;
        Some(Arc::new(Slab { _map: map, base, used: AtomicUsize::new(0) }))
    }

    /// The first of `len` values of their own; `None` when there are not so many left.
    fn take(&self, len: usize) -> Option<usize> {
        let len = len.next_multiple_of(LINE);
        let fits = |used: usize| (used + len <= SLAB / 4).then_some(used + len);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).ok()
    }
}

/// A mapping of zeros, on huge pages where the system lends them.
fn huge(bytes: usize) -> Option<MmapMut> {
    let map = MmapMut::map_anon(bytes.checked_next_multiple_of(HUGE)?).ok()?;
    // Advice: a system without huge pages goes on with small ones.
    #[cfg(target_os = "linux")]
    let _ = map.advise(memmap2::Advice::HugePage);
    Some(map)
}

impl Pages {
    /// `len` zeros.
    pub fn zeros(len: usize) -> Pages {
        let mapped = len.checked_mul(4).filter(|bytes| *bytes >= OWN).and_then(huge);
        let store = match mapped {
            Some(map) => Store::Map(map),
            None => {
                let store = vec![0.0f32; len + LINE - 1];
                // `align_offset` may say "impossible"; alignment is a matter of speed only.
                let start = store.as_ptr().align_offset(64).min(LINE - 1);
                Store::Heap(store, start)
            }
        };
        Pages { store, len }
    }

    /// These values, as [`Pages::part`] has them.
    pub fn holding(values: &[f32]) -> Arc<Pages> {
        let mut pages = Pages::part(values.len());
        pages.copy_from_slice(values);
        Arc::new(pages)
    }

    /// As bytes.
    pub fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(self)
    }

    /// The same values, read where they are.
    pub fn lent(pages: &Arc<Pages>) -> Pages {
        Pages { store: Store::Lent(pages.clone()), len: pages.len }
    }

    /// `len` zeros that live as long as others made at the same time, such as the weights of a model: small ones share huge pages.
    pub fn part(len: usize) -> Pages {
        if len == 0 || len >= LARGE / 4 {
            return Pages::zeros(len);
        }
        let mut current = SLABS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slab) = current.upgrade()
            && let Some(at) = slab.take(len)
        {
            return Pages { store: Store::Part(slab, at), len };
        }
        let Some(slab) = Slab::new() else { return Pages::zeros(len) };
        *current = Arc::downgrade(&slab);
        match slab.take(len) {
            Some(at) => Pages { store: Store::Part(slab, at), len },
            None => Pages::zeros(len),
        }
    }
}

impl Default for Pages {
    fn default() -> Self {
        Pages::zeros(0)
    }
}

impl Clone for Pages {
    fn clone(&self) -> Self {
        let mut copy = Pages::part(self.len);
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
            // SAFETY: `len` values from here on are inside the slab and were handed out to this part alone; they were zeros, so
            // they are initialised; the borrow is that of the part.
            Store::Part(slab, at) => unsafe { std::slice::from_raw_parts(slab.base.as_ptr().add(*at), self.len) },
            Store::Kept(map, at) => bytemuck::cast_slice(&map[*at..*at + self.len * 4]),
            Store::Lent(pages) => pages,
        }
    }
}

impl std::ops::DerefMut for Pages {
    fn deref_mut(&mut self) -> &mut [f32] {
        if matches!(self.store, Store::Kept(..) | Store::Lent(_)) {
            *self = self.clone();
        }
        match &mut self.store {
            Store::Heap(store, start) => &mut store[*start..*start + self.len],
            Store::Map(map) => bytemuck::cast_slice_mut(&mut map[..self.len * 4]),
            // SAFETY: as above, and the part is borrowed exclusively.
            Store::Part(slab, at) => unsafe { std::slice::from_raw_parts_mut(slab.base.as_ptr().add(*at), self.len) },
            // Made its own above.
            Store::Kept(..) | Store::Lent(_) => &mut [],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_and_large_ones_are_zero_aligned_and_of_the_length_asked_for() {
        let lens = [0, 1, 17, OWN / 4 - 1, OWN / 4, LARGE / 4 - 1, LARGE / 4, LARGE / 4 + 3];
        for (len, part) in lens.into_iter().flat_map(|len| [(len, false), (len, true)]) {
            let mut p = if part { Pages::part(len) } else { Pages::zeros(len) };
            assert_eq!(p.len(), len);
            assert!(p.iter().all(|&v| v == 0.0));
            assert_eq!(p.as_ptr() as usize % 64, 0);
            p.fill(2.0);
            assert_eq!(p.clone().iter().sum::<f32>(), 2.0 * len as f32);
        }
    }

    #[test]
    fn values_of_a_file_and_of_others_are_read_in_place_and_copied_when_written() {
        let folder = crate::files::Folder::new().unwrap();
        let (path, values) = (folder.path().join("values"), (0..100).map(|i| i as f32).collect::<Vec<f32>>());
        std::fs::write(&path, bytemuck::cast_slice(&values)).unwrap();
        let map = PageFile::map(&File::open(&path).unwrap()).unwrap();
        assert_eq!(map.bytes().len(), 400);
        let mut p = map.pages(64, 10).unwrap();
        assert_eq!((p.as_ptr().addr(), &p[..]), (map.bytes()[64..].as_ptr().addr(), &values[16..26]));
        p[0] = -1.0;
        assert_eq!((&p[..2], &map.pages(64, 10).unwrap()[..]), (&[-1.0, 17.0][..], &values[16..26]));
        // Not there, not on a line, beyond all bounds.
        for (at, len) in [(64, 85), (4, 1), (448, 0), (0, usize::MAX), (usize::MAX - 63, 1)] {
            assert!(map.pages(at, len).is_none(), "{at} {len}");
        }
        let whole = Arc::new(map.pages(0, 100).unwrap().clone());
        let mut lent = Pages::lent(&whole);
        assert_eq!(lent.as_ptr(), whole.as_ptr());
        lent[99] = 0.5;
        assert_eq!((lent[99], whole[99], lent.len()), (0.5, 99.0, 100));
    }

    #[test]
    fn parts_of_a_slab_never_overlap_and_outlive_it_being_full() {
        let made: Vec<Pages> = std::thread::scope(|scope| {
            let make = |seed: usize| {
                let values = |i: usize| (seed * 1000 + i) as f32;
                let lens = (0..40).map(move |i| 1 + (seed * 7919 + i * 104_729) % (LARGE / 4 - 1));
                let fill = |(i, len)| {
                    let mut p = Pages::part(len);
                    assert!(p.iter().all(|&v| v == 0.0));
                    p.fill(values(i));
                    p
                };
                lens.enumerate().map(fill).collect::<Vec<_>>()
            };
            let threads: Vec<_> = (0..3).map(|seed| scope.spawn(move || make(seed))).collect();
            threads.into_iter().flat_map(|t| t.join().unwrap()).collect()
        });
        for (i, p) in made.iter().enumerate() {
            let want = (i / 40 * 1000 + i % 40) as f32;
            assert!(p.iter().all(|&v| v == want), "part {i}");
        }
    }
}
