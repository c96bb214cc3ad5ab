//! Packed weights kept between runs: the next time a model is opened they are mapped, not made.
//!
//! Packing touches every weight twice, and memory that a system has to clear first; a mapped file is there already, shared by all
//! processes that use the model. One file per model in the state it is in, this build of the program and what was packed; it is
//! replaced when more was packed and never changed. Nothing depends on it: what does not fit, is damaged or of another build counts
//! as none.
//!
//! A file: the bytes, each matrix on a cache line of its own; the index, 48 bytes an entry (key, first byte, bytes, sum, nothing); the end,
//! [`END`] bytes (magic, where the index begins, entries, sum of the index, which start of the system wrote it or has checked it).

use crate::error::Result;
use crate::files::{Output, cannot_write};
use crate::tensor::map;
use crate::tensor::{DType, Identity, PageFile, Pages, Tensor};
use std::collections::HashMap;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::SystemTime;

/// What names of files end with.
const ENDING: &str = "weights";
const MAGIC: [u8; 8] = *b"madd-w1\n";
/// Bytes of an entry of the index.
const ENTRY: usize = 48;
/// Bytes at the end of a file.
const END: usize = 48;
/// Bytes written at a time: whole huge pages, so that the system keeps the file in such.
const WRITTEN: usize = 8 << 20;
/// Bytes that matrices start at multiples of.
const LINE: usize = 64;
/// Bytes below which packing again is as quick.
const LEAST: u64 = 256 << 10;

type Key = u128;

/// The packed weights of models, by the files these come from.
#[derive(Debug)]
pub struct Kept {
    folder: PathBuf,
    /// This build of the program: another may pack in another way.
    build: u64,
    /// Bytes that all files together may have.
    limit: u64,
    /// Bytes of one model, at most: it does not drive out all others, nor itself out of memory.
    most: u64,
    shelves: Mutex<HashMap<u64, Arc<Shelf>>>,
    /// Bytes taken from files.
    taken: AtomicU64,
}

/// The packed weights of one model.
#[derive(Debug, Default)]
struct Shelf {
    found: Option<Found>,
    made: Mutex<Vec<(Key, Made)>>,
}

/// What is not kept yet, as long as somebody uses it.
#[derive(Debug)]
enum Made {
    Packed(Weak<Pages>),
    /// As the model's file has it.
    Stored(Weak<Tensor>),
}

/// What is written.
#[derive(Debug)]
enum Blob {
    Packed(Pages),
    Stored(Arc<Tensor>),
}

impl Made {
    fn used(&self) -> Option<Blob> {
        match self {
            Made::Packed(pages) => Some(Blob::Packed(Pages::lent(&pages.upgrade()?))),
            Made::Stored(tensor) => tensor.upgrade().map(Blob::Stored),
        }
    }
}

impl Blob {
    fn bytes(&self) -> &[u8] {
        match self {
            Blob::Packed(pages) => pages.bytes(),
            Blob::Stored(tensor) => tensor.bytes().unwrap_or_default(),
        }
    }
}

#[derive(Debug)]
struct Found {
    file: PageFile,
    entries: HashMap<Key, Entry>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    at: usize,
    bytes: usize,
    sum: u64,
}

impl Kept {
    /// What is kept in a folder, which need not be there yet; all files together have at most `limit` bytes, that of one model at most half of
    /// it and `most`. `None` where the program cannot tell which build it is.
    pub fn new(folder: &Path, limit: u64, most: u64) -> Option<Kept> {
        let program = std::env::current_exe().ok()?;
        let meta = std::fs::metadata(&program).ok()?;
        let mut hasher = DefaultHasher::new();
        (env!("CARGO_PKG_VERSION"), meta.len(), meta.modified().ok()?).hash(&mut hasher);
        Some(Kept { most: most.min(limit / 2), ..Kept::of_build(folder, limit, hasher.finish()) })
    }

    fn of_build(folder: &Path, limit: u64, build: u64) -> Kept {
        let (folder, most) = (folder.to_path_buf(), limit / 2);
        Kept { folder, build, limit, most, shelves: Mutex::default(), taken: AtomicU64::new(0) }
    }

    /// Bytes of packed weights that were there already, so far.
    pub fn taken_bytes(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// The name of a model's file. Those of one path begin alike, and those of one state of it go on alike, for `n` parts.
    fn name(&self, file: u64, parts: usize) -> Option<String> {
        let mut path = DefaultHasher::new();
        map::path_of(file)?.hash(&mut path);
        let all = [path.finish(), file, self.build];
        Some(all[..parts].iter().map(|n| format!("{n:016x}-")).collect())
    }

    fn file_name(&self, file: u64) -> Option<String> {
        Some(format!("{}{ENDING}", self.name(file, 3)?))
    }

    fn shelf(&self, file: u64) -> Arc<Shelf> {
        let mut shelves = self.shelves.lock().unwrap_or_else(PoisonError::into_inner);
        let open = || {
            let found = self.file_name(file).and_then(|name| Found::open(&self.folder.join(name)));
            Arc::new(Shelf { found, made: Mutex::default() })
        };
        shelves.entry(file).or_insert_with(open).clone()
    }

    /// Whether weights of the model that a tensor comes from were kept by an earlier run.
    pub fn knows(&self, tensor: &Tensor) -> bool {
        map::identity(tensor).is_some_and(|of| self.shelf(of.file).found.is_some())
    }

    /// Weights of `len` values that are packed in a form: those that are kept, or what `pack` makes.
    pub(super) fn pages(&self, of: Identity, form: impl Hash, len: usize, pack: impl FnOnce() -> Pages) -> Pages {
        let (shelf, key) = (self.shelf(of.file), of.changed((form, len)).value);
        if let Some(pages) = shelf.found.as_ref().and_then(|f| f.pages(key, len)) {
            self.taken.fetch_add(4 * len as u64, Ordering::Relaxed);
            return pages;
        }
        let made = Arc::new(pack());
        shelf.add(key, Made::Packed(Arc::downgrade(&made)));
        Pages::lent(&made)
    }

    /// Weights that are read as the model's file has them: from a kept copy in large pages, or at first where they are. Streaming them from
    /// there takes up to 1.5 times as long.
    pub(super) fn placed(&self, tensor: &Tensor) -> Arc<Tensor> {
        let Some(of) = map::identity(tensor).filter(|_| tensor.is_file_backed()) else {
            return Arc::new(tensor.clone());
        };
        let (shelf, key) = (self.shelf(of.file), of.changed("stored").value);
        if let Some(kept) = shelf.found.as_ref().and_then(|f| f.tensor(key, tensor)) {
            self.taken.fetch_add(kept.bytes().map_or(0, <[u8]>::len) as u64, Ordering::Relaxed);
            return Arc::new(kept);
        }
        let stored = Arc::new(tensor.clone());
        shelf.add(key, Made::Stored(Arc::downgrade(&stored)));
        stored
    }

    /// Writes what was packed since and is still in use, beside what was kept already. Gives the bytes written.
    ///
    /// # Errors
    /// If the folder cannot be made or written to.
    pub fn write(&self) -> Result<u64> {
        let shelves = self.shelves.lock().unwrap_or_else(PoisonError::into_inner);
        let mut written = 0;
        for (&file, shelf) in shelves.iter() {
            let made = shelf.made.lock().unwrap_or_else(PoisonError::into_inner);
            let made: HashMap<Key, Blob> = made.iter().filter_map(|(k, m)| Some((*k, m.used()?))).collect();
            let Some(name) = self.file_name(file).filter(|_| !made.is_empty()) else { continue };
            let mut all: Vec<(Key, &[u8])> = shelf.found.iter().flat_map(Found::all).collect();
            all.retain(|(key, _)| !made.contains_key(key));
            all.extend(made.iter().map(|(key, blob)| (*key, blob.bytes())));
            let bytes: u64 = all.iter().map(|(_, b)| b.len() as u64).sum();
            if bytes < LEAST || bytes > self.most {
                continue;
            }
            std::fs::create_dir_all(&self.folder).map_err(|e| cannot_write(&self.folder, &e))?;
            self.make_room(bytes, file, &name);
            write(&self.folder.join(name), &all)?;
            written += bytes;
        }
        Ok(written)
    }

    /// Removes what the same model had in other states, and the longest unused files until `bytes` more fit.
    fn make_room(&self, bytes: u64, file: u64, name: &str) {
        let (Some(path), Some(state)) = (self.name(file, 1), self.name(file, 2)) else { return };
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let (own, meta) = (entry.file_name(), entry.metadata());
            let (Some(own), Ok(meta)) = (own.to_str(), meta) else { continue };
            if own == name || !own.ends_with(ENDING) {
                continue;
            }
            if own.starts_with(&path) && !own.starts_with(&state) {
                let _ = std::fs::remove_file(entry.path());
            } else {
                files.push((meta.modified().unwrap_or(SystemTime::UNIX_EPOCH), meta.len(), entry.path()));
            }
        }
        files.sort();
        let mut total: u64 = bytes + files.iter().map(|f| f.1).sum::<u64>();
        for (_, len, path) in files {
            if total <= self.limit {
                break;
            }
            if std::fs::remove_file(path).is_ok() {
                total -= len;
            }
        }
    }
}

impl Found {
    /// A file whose index is whole. Its values are whole too: it was renamed into its place after they were written, and a start of the system
    /// since then, after which some may be missing, makes it be read once.
    fn open(path: &Path) -> Option<Found> {
        let mut file = File::options().read(true).write(true).open(path).ok()?;
        let map = PageFile::map(&file).ok()?;
        let bytes = map.bytes();
        let end = bytes.len().checked_sub(END)?;
        let number = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let (magic, start, count, sum) = (&bytes[end..end + 8], number(end + 8)?, number(end + 16)?, number(end + 24)?);
        let index = bytes.get(usize::try_from(start).ok()?..end)?;
        if magic != MAGIC || index.len() as u64 != count.checked_mul(ENTRY as u64)? || sum != summed(index) {
            return None;
        }
        let entry = |e: &[u8]| {
            let number = |at: usize| Some(u64::from_le_bytes(e.get(at..at + 8)?.try_into().ok()?));
            let key = Key::from(number(0)?) << 64 | Key::from(number(8)?);
            let (at, bytes) = (usize::try_from(number(16)?).ok()?, usize::try_from(number(24)?).ok()?);
            (at.checked_add(bytes)? <= end).then_some((key, Entry { at, bytes, sum: number(32)? }))
        };
        let entries: HashMap<Key, Entry> = index.chunks_exact(ENTRY).map(entry).collect::<Option<_>>()?;
        let found = Found { file: map.clone(), entries };
        let checked: [u8; 16] = bytes[end + 32..].try_into().ok()?;
        if this_start() != Some(checked) {
            let whole = |e: &Entry| summed(&bytes[e.at..][..e.bytes]) == e.sum;
            found.entries.values().all(whole).then_some(())?;
            if let Some(start) = this_start() {
                let _ = file.seek(SeekFrom::End(-16)).and_then(|_| file.write_all(&start));
            }
        }
        // The time of its last use decides which goes first.
        let _ = file.set_modified(SystemTime::now());
        Some(found)
    }

    fn pages(&self, key: Key, len: usize) -> Option<Pages> {
        let entry = self.entries.get(&key).filter(|e| Some(e.bytes) == len.checked_mul(4))?;
        self.file.pages(entry.at, len)
    }

    fn tensor(&self, key: Key, like: &Tensor) -> Option<Tensor> {
        let entry = self.entries.get(&key).filter(|e| like.bytes().is_ok_and(|b| b.len() == e.bytes))?;
        self.file.tensor(entry.at, like.dtype(), like.dims())
    }

    fn all(&self) -> impl Iterator<Item = (Key, &[u8])> {
        self.entries.iter().map(|(key, e)| (*key, &self.file.bytes()[e.at..][..e.bytes]))
    }
}

impl Shelf {
    fn add(&self, key: Key, made: Made) {
        let mut all = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|(_, made)| match made {
            Made::Packed(pages) => pages.strong_count() > 0,
            Made::Stored(tensor) => tensor.strong_count() > 0,
        });
        all.push((key, made));
    }
}

fn write(path: &Path, all: &[(Key, &[u8])]) -> Result<()> {
    let cannot = |e: std::io::Error| cannot_write(path, &e);
    let mut out = Chunks { out: Output::create(path)?, waiting: Vec::with_capacity(WRITTEN), at: 0 };
    let mut index = Vec::with_capacity(all.len() * ENTRY);
    for (key, bytes) in all {
        out.put(&[0; LINE][..out.at.next_multiple_of(LINE) - out.at]).map_err(cannot)?;
        let halves = [(key >> 64) as u64, *key as u64];
        let numbers = [halves[0], halves[1], out.at as u64, bytes.len() as u64, summed(bytes), 0];
        numbers.iter().for_each(|n| index.extend(n.to_le_bytes()));
        out.put(bytes).map_err(cannot)?;
    }
    let start = out.at as u64;
    out.put(&index).map_err(cannot)?;
    let mut end = Vec::with_capacity(END);
    end.extend(MAGIC);
    [start, all.len() as u64, summed(&index)].iter().for_each(|n| end.extend(n.to_le_bytes()));
    end.extend(this_start().unwrap_or_default());
    out.put(&end).map_err(cannot)?;
    out.out.write_all(&out.waiting).map_err(cannot)?;
    out.out.commit()
}

/// A file written in chunks of [`WRITTEN`] bytes.
struct Chunks {
    out: Output,
    waiting: Vec<u8>,
    /// Bytes put so far.
    at: usize,
}

impl Chunks {
    fn put(&mut self, mut bytes: &[u8]) -> std::io::Result<()> {
        self.at += bytes.len();
        while !bytes.is_empty() {
            let now = bytes.len().min(WRITTEN - self.waiting.len());
            self.waiting.extend(&bytes[..now]);
            bytes = &bytes[now..];
            if self.waiting.len() == WRITTEN {
                self.out.write_all(&self.waiting)?;
                self.waiting.clear();
            }
        }
        Ok(())
    }
}

/// Which start of the system this is; files written before it may have been cut short when it ended.
fn this_start() -> Option<[u8; 16]> {
    static START: OnceLock<Option<[u8; 16]>> = OnceLock::new();
    *START.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let id = u128::from_str_radix(&text.trim().replace('-', ""), 16).ok()?;
        Some(id.to_le_bytes())
    })
}

fn mixed(sum: u64, word: u64) -> u64 {
    (sum ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
}

/// In several sums side by side: one multiplication waits for the one before.
pub(super) fn summed(bytes: &[u8]) -> u64 {
    const SIDE: usize = 8;
    let mut sums = [bytes.len() as u64; SIDE];
    let (words, rest) = bytes.as_chunks::<8>();
    for some in words.chunks(SIDE) {
        sums.iter_mut().zip(some).for_each(|(s, w)| *s = mixed(*s, u64::from_le_bytes(*w)));
    }
    let sum = rest.iter().fold(0, |sum, b| mixed(sum, u64::from(*b)));
    sums.into_iter().fold(sum, mixed)
}

/// `f32` weights before they are packed: read where they lie, and only when they are not kept already.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    values: Values<'a>,
    kept: Option<(&'a Kept, Identity)>,
}

#[derive(Debug, Clone, Copy)]
enum Values<'a> {
    Bytes(&'a [u8]),
    Tensor(&'a Tensor),
}

impl<'a> Source<'a> {
    /// A tensor's.
    ///
    /// # Errors
    /// If it is not of `f32`.
    pub fn of(tensor: &'a Tensor, kept: Option<&'a Kept>) -> Result<Source<'a>> {
        if tensor.dtype() != DType::F32 || !tensor.is_lazy() {
            let bytes = tensor.f32_bytes()?.as_flattened();
            return Ok(Source { values: Values::Bytes(bytes), kept: kept.zip(map::identity(tensor)) });
        }
        Ok(Source { values: Values::Tensor(tensor), kept: kept.zip(tensor.identity()) })
    }

    /// Part of a tensor's bytes.
    pub fn part(bytes: &'a [u8], kept: Option<&'a Kept>) -> Source<'a> {
        let kept = kept.and_then(|k| Some((k, map::of_bytes(bytes)?)));
        Source { values: Values::Bytes(bytes), kept }
    }

    /// Number of values.
    pub(super) fn count(&self) -> usize {
        match self.values {
            Values::Bytes(b) => b.len() / 4,
            Values::Tensor(t) => t.len(),
        }
    }

    /// The values, little-endian, at any alignment.
    pub fn values(&self) -> &'a [[u8; 4]] {
        match self.values {
            Values::Bytes(b) => b.as_chunks().0,
            // Of `f32`, as was seen to.
            Values::Tensor(t) => t.f32_bytes().unwrap_or_default(),
        }
    }

    /// What tells this matrix from the others of a plan.
    pub(super) fn identity(&self) -> Option<Identity> {
        self.kept.map(|k| k.1)
    }

    /// `len` values in a form that tells how they are packed, from those kept or by `pack`.
    pub(super) fn packed(&self, form: impl Hash, len: usize, pack: impl FnOnce(&'a [[u8; 4]]) -> Pages) -> Pages {
        match self.kept {
            Some((kept, identity)) => kept.pages(identity, form, len, || pack(self.values())),
            None => pack(self.values()),
        }
    }
}

impl<'a> From<&'a [[u8; 4]]> for Source<'a> {
    fn from(values: &'a [[u8; 4]]) -> Source<'a> {
        Source { values: Values::Bytes(values.as_flattened()), kept: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::Folder;
    use crate::kernels::testing::values;
    use std::ops::Deref;

    /// A model's file of weights, written long enough ago; its values, and the identity of some of them.
    fn model(dir: &Path, name: &str, len: usize, seed: u64) -> (impl Deref<Target = [u8]> + use<>, Vec<f32>) {
        let (path, values) = (dir.join(name), values(len, seed));
        let text: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        std::fs::write(&path, text).unwrap();
        settle(&path);
        (map::map(&path).unwrap(), values)
    }

    fn settle(path: &Path) {
        let before = SystemTime::now() - std::time::Duration::from_secs(60);
        File::options().write(true).open(path).unwrap().set_modified(before).unwrap();
    }

    /// Twice the values, as a packing that counts how often it is done.
    fn doubled(kept: &Kept, bytes: &[u8], form: u32, made: &mut usize) -> Pages {
        let source = Source::part(bytes, Some(kept));
        source.packed(form, source.count(), |from| {
            *made += 1;
            let mut to = Pages::part(from.len());
            to.iter_mut().zip(from).for_each(|(t, f)| *t = 2.0 * f32::from_le_bytes(*f));
            to
        })
    }

    const MANY: usize = 1 << 17;

    #[test]
    fn weights_are_packed_once_for_all_runs_and_anew_for_another_state_form_or_build() {
        let dir = Folder::new().unwrap();
        let folder = dir.path().join("not/yet");
        let (bytes, values) = model(dir.path(), "m", 2 * MANY, 1);
        let (first, second) = bytes.split_at(4 * MANY + 4);
        let twice: Vec<f32> = values.iter().map(|v| 2.0 * v).collect();
        let mut made = 0;
        let run = |build: u64, forms: &[u32], made: &mut usize| {
            let kept = Kept::of_build(&folder, 1 << 30, build);
            let all: Vec<[Pages; 2]> =
                forms.iter().map(|f| [doubled(&kept, first, *f, made), doubled(&kept, second, *f, made)]).collect();
            for [a, b] in &all {
                assert!(a[..] == twice[..MANY + 1] && b[..] == twice[MANY + 1..]);
            }
            (kept.taken_bytes(), kept.write().unwrap())
        };
        let bytes_of_all = 4 * values.len() as u64;
        assert_eq!((run(1, &[1], &mut made), made), ((0, bytes_of_all), 2));
        assert_eq!((run(1, &[1], &mut made), made), ((bytes_of_all, 0), 2));
        // One more form is written beside what was there.
        assert_eq!((run(1, &[1, 2], &mut made), made), ((bytes_of_all, 2 * bytes_of_all), 4));
        assert_eq!((run(1, &[2], &mut made), made), ((bytes_of_all, 0), 4));
        assert_eq!((run(2, &[1], &mut made), made), ((0, bytes_of_all), 6));
        let files = || std::fs::read_dir(&folder).unwrap().count();
        assert_eq!(files(), 2, "one for each build, and no temporary file");
        // The model was written again.
        let (bytes, values) = model(dir.path(), "m", 2 * MANY, 2);
        let kept = Kept::of_build(&folder, 1 << 30, 2);
        let pages = doubled(&kept, &bytes, 1, &mut made);
        assert_eq!((pages[5], made), (2.0 * values[5], 7));
        kept.write().unwrap();
        assert_eq!(files(), 1, "what it was before is gone");
        // Just now: nobody knows whether it will be again.
        let text = bytes.to_vec();
        std::fs::write(dir.path().join("m"), text).unwrap();
        let bytes = map::map(&dir.path().join("m")).unwrap();
        assert_eq!((map::of_bytes(&bytes), map::of_bytes(&[0; 16])), (None, None));
    }

    #[test]
    fn weights_read_as_they_are_move_to_large_pages() {
        let dir = Folder::new().unwrap();
        let path = dir.path().join("m");
        let text: Vec<u8> = (0..4 * MANY + 4).map(|i| (i % 251) as u8).collect();
        std::fs::write(&path, &text).unwrap();
        settle(&path);
        let map = PageFile::map(&File::open(&path).unwrap()).unwrap();
        // Only what was mapped as a model has a name.
        let unnamed = map.tensor(4, DType::U8, &[4, MANY]).unwrap();
        let bytes = map::map(&path).unwrap();
        let named = Tensor::from_file_bytes(DType::U8, bytes.slice(4..), &[4, MANY]).unwrap();
        let run = |t: &Tensor| {
            let kept = Kept::of_build(&dir.path().join("kept"), 1 << 30, 1);
            let placed = kept.placed(t);
            assert_eq!((placed.bytes().unwrap(), placed.dims(), placed.dtype()), (&text[4..], t.dims(), t.dtype()));
            let written = kept.write().unwrap();
            (placed.bytes().unwrap().as_ptr() == t.bytes().unwrap().as_ptr(), kept.taken_bytes(), written)
        };
        let all = 4 * MANY as u64;
        assert_eq!((run(&unnamed), run(&named), run(&named)), ((true, 0, 0), (true, 0, all), (false, all, 0)));
        assert!(map.tensor(8, DType::U8, &[4, MANY]).is_none());
    }

    #[test]
    fn a_damaged_file_counts_as_none_and_an_unchecked_one_is_read() {
        let dir = Folder::new().unwrap();
        let (bytes, _) = model(dir.path(), "m", MANY, 1);
        let mut made = 0;
        let kept = Kept::of_build(dir.path(), 1 << 30, 1);
        let pages = doubled(&kept, &bytes, 1, &mut made);
        kept.write().unwrap();
        let name = kept.file_name(map::of_bytes(&bytes).unwrap().file).unwrap();
        let path = dir.path().join(name);
        let whole = std::fs::read(&path).unwrap();
        let finds = |text: &[u8]| {
            // Another file, as a writer would make it: the old one may be mapped.
            std::fs::remove_file(&path).unwrap();
            std::fs::write(&path, text).unwrap();
            let (kept, mut made) = (Kept::of_build(dir.path(), 1 << 30, 1), 0);
            assert_eq!(doubled(&kept, &bytes, 1, &mut made)[..], pages[..]);
            made == 0
        };
        assert!(finds(&whole));
        for len in [0, 1, END - 1, END, whole.len() / 2, whole.len() - 1] {
            assert!(!finds(&whole[..len]), "{len} bytes");
        }
        // Every byte of the index and the end but for the start of the system (and what an entry leaves free is in its sum too).
        for at in whole.len() - END - ENTRY..whole.len() - 16 {
            let mut text = whole.clone();
            text[at] ^= 0x40;
            assert!(!finds(&text), "byte {at}");
        }
        // Written in another start of the system: it is read before it is believed.
        let mut other = whole.clone();
        let end = other.len();
        other[end - 1] ^= 1;
        assert!(finds(&other));
        other[1000] ^= 1;
        assert!(!finds(&other));
        drop(pages);
    }

    #[test]
    fn what_is_kept_stays_within_its_limit_and_the_longest_unused_goes_first() {
        let dir = Folder::new().unwrap();
        let folder = dir.path().join("kept");
        let (mut made, one) = (0, 4 * MANY as u64);
        let models: Vec<_> = (0..4).map(|i| model(dir.path(), &format!("m{i}"), MANY, i).0).collect();
        let mut run = |i: usize| {
            let (kept, before) = (Kept::of_build(&folder, 3 * one + 1000, 1), made);
            let _used = doubled(&kept, &models[i], 1, &mut made);
            kept.write().unwrap();
            // Files of one second in order.
            for file in std::fs::read_dir(&folder).unwrap() {
                let file = File::options().write(true).open(file.unwrap().path()).unwrap();
                let older = file.metadata().unwrap().modified().unwrap() - std::time::Duration::from_secs(10);
                file.set_modified(older).unwrap();
            }
            made == before
        };
        assert!(!run(0) && !run(1) && !run(2));
        assert!(run(0), "all three fit");
        assert!(!run(3));
        assert!(run(0) && run(2) && run(3));
        assert!(!run(1), "it was the longest unused");
        // One that is too large for the half, and one too small to be worth a file.
        let (large, _) = model(dir.path(), "large", 2 * MANY, 9);
        let (small, _) = model(dir.path(), "small", 1000, 9);
        let kept = Kept::of_build(&folder, 3 * one, 1);
        let _held = [doubled(&kept, &large, 1, &mut made), doubled(&kept, &small, 1, &mut made)];
        assert_eq!(kept.write().unwrap(), 0);
    }
}
