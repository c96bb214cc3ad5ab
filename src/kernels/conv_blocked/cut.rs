//! How the product of a map's pixels with pairs of output blocks is cut into tasks: so that all threads are done at the same time.
//!
//! Five pairs of output blocks on two threads are three and two: a fifth of the time one of them waits. The same work in halves of
//! the pixels comes out even, but reads all weights twice. So the end is worked out for each way to cut, with what a task reads.

/// What is to be cut.
#[derive(Clone, Copy, Debug)]
pub(super) struct Work {
    pub images: usize,
    /// Pixels of an image.
    pub pixels: usize,
    /// Pairs of output blocks.
    pub pairs: usize,
    /// Source blocks that every product goes through.
    pub depth: usize,
    /// Pixels of a register tile.
    pub tile: usize,
    /// Parts of the pixels, at the least.
    pub least: usize,
    /// Tasks of an image, at the most, as far as `least` allows.
    pub most: usize,
    pub threads: usize,
    /// Time of reading a pixel's block for the first time: [`SOURCE`] or [`MAPPED`].
    pub source: usize,
    /// Pixels whose source stays near from task to task.
    pub near: usize,
}

/// A task, at the most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    pub pixels: usize,
    pub pairs: usize,
}

/// Time of a pixel with a pair of output blocks, for one source block: the unit is two cycles.
const PRODUCT: usize = 16;
/// Pixels that take as long as reading a pair's weights from the next cache, as far as that is waited for.
const WEIGHTS: usize = 2;
/// Time of reading a pixel's block for the first time.
pub(super) const SOURCE: usize = 3;
/// Time of reading it to map it, which writes it too.
pub(super) const MAPPED: usize = 8;
/// Time to begin a task.
const BEGIN: usize = 200;
/// Images that are looked at: more share as these do.
const IMAGES: usize = 4;

impl Work {
    /// The cut with the earliest end; of several such the one of the fewest tasks.
    pub(super) fn cut(&self) -> Cut {
        let tile = |parts: usize| self.pixels.div_ceil(parts).next_multiple_of(self.tile).min(self.pixels);
        let whole = Cut { pixels: tile(self.least), pairs: self.pairs };
        if self.threads == 1 {
            return whole;
        }
        let mut best = (self.end(whole), whole);
        let mut before = 0;
        for parts in self.least..=self.most.max(self.least) {
            let pixels = tile(parts);
            if pixels == before {
                continue;
            }
            before = pixels;
            let most = (self.most / self.pixels.div_ceil(pixels)).clamp(1, self.pairs);
            let mut had = 0;
            for parts in 1..=most {
                let cut = Cut { pixels, pairs: self.pairs.div_ceil(parts) };
                // Many numbers of parts come to the same: with many threads, looking at each would take long.
                if cut.pairs == had {
                    continue;
                }
                had = cut.pairs;
                let end = self.end(cut);
                if end < best.0 {
                    best = (end, cut);
                }
            }
        }
        best.1
    }

    /// When the last thread is done if each has a share of the tasks and then helps the others, as [`crate::engine::pool`] does it.
    fn end(&self, cut: Cut) -> usize {
        let (np, na) = (self.pixels.div_ceil(cut.pixels), self.pairs.div_ceil(cut.pairs));
        let tasks = self.images.min(IMAGES) * np * na;
        let share = |i: usize| i * tasks / self.threads..(i + 1) * tasks / self.threads;
        let mut shares: Vec<_> = (0..self.threads).map(share).collect();
        let mut threads = vec![(0, usize::MAX); self.threads];
        let mut longest = 0;
        for _ in 0..tasks {
            let Some(first) = (0..self.threads).min_by_key(|&t| threads[t].0) else { break };
            let Some(task) = (0..self.threads).find_map(|i| shares[(first + i) % self.threads].next()) else { break };
            let (part, pairs) = (task / na, task % na * cut.pairs);
            let (p0, pairs) = (part % np * cut.pixels, cut.pairs.min(self.pairs - pairs));
            let pixels = cut.pixels.min(self.pixels - p0);
            // A tile that is not full takes little less than one pixel more.
            let tiled = pixels + usize::from(!pixels.is_multiple_of(self.tile));
            let (clock, had) = &mut threads[first];
            let source = if *had == part && pixels <= self.near { 0 } else { self.source * pixels };
            let took = PRODUCT * pairs * (tiled + WEIGHTS) + source + BEGIN / self.depth;
            (*clock, *had) = (*clock + took, part);
            longest = longest.max(took);
        }
        // Cores are not equally fast at all times: what is left over then is shorter where tasks are.
        threads.iter().map(|t| t.0).max().unwrap_or(0) + longest / 8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(pixels: usize, blocks: usize, depth: usize, threads: usize) -> Work {
        let (images, tile, least) = (1, 14, 1);
        let (pairs, most, source, near) = (blocks.div_ceil(2), 8 * threads, SOURCE, pixels);
        Work { images, pixels, pairs, depth, tile, least, most, threads, source, near }
    }

    #[test]
    fn threads_end_together() {
        // Four pairs by seven tiles of pixels, five by three and a half: halves of the pixels rather than 2:2 or 3:2 pairs.
        assert_eq!(work(196, 7, 42, 2).cut().pixels, 98);
        assert!(work(49, 10, 60, 2).cut().pixels <= 28);
        // Two pairs with few pixels: a pair each.
        assert_eq!(work(14, 4, 60, 2).cut(), Cut { pixels: 14, pairs: 1 });
        for threads in 1..6 {
            for (pixels, blocks) in [(1, 1), (49, 10), (196, 7), (3136, 2), (12_544, 1), (49, 80), (784, 3)] {
                for images in [1, 3] {
                    let w = Work { images, ..work(pixels, blocks, 9, threads) };
                    let cut = w.cut();
                    assert!((1..=pixels).contains(&cut.pixels) && (1..=w.pairs).contains(&cut.pairs), "{w:?}: {cut:?}");
                    assert!(w.end(cut) <= w.end(Cut { pixels, pairs: w.pairs }), "{w:?}: {cut:?}");
                    if threads == 1 {
                        assert_eq!(cut, Cut { pixels, pairs: w.pairs });
                    }
                }
            }
        }
    }
}
