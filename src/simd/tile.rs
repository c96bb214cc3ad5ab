//! The view a parallel task writes through: a strided set of disjoint segments of one destination.

use std::marker::PhantomData;

/// Segments `(a, b)` of `len` values each, `a` strided by `sa`, `b` by `sb`, inside one destination slice.
///
/// Tasks of one parallel loop get tiles that never overlap, so each may write its own without synchronisation.
/// For NCHWc tensors `a` is the channel block, `b` the pixel (or output row) and `len` the lanes (or the row);
/// for a matrix `a` is single, `b` the row and `len` a range of columns.
pub struct TileMut<'d> {
    ptr: *mut f32,
    a: usize,
    b: usize,
    len: usize,
    sa: usize,
    sb: usize,
    /// Outermost index (image or batch) this tile belongs to.
    pub outer: usize,
    /// First `a` index of the tile in the destination.
    pub a0: usize,
    /// First `b` index of the tile in the destination.
    pub b0: usize,
    /// First value of a segment inside its full row.
    pub c0: usize,
    /// Index of the tile's first value in the destination slice; a second tensor of the same shape is read there.
    pub origin: usize,
    _life: PhantomData<&'d mut [f32]>,
}

// SAFETY: a tile is an exclusive borrow of its segments, as `&mut [f32]` is, and f32 may cross threads.
unsafe impl Send for TileMut<'_> {}

impl<'d> TileMut<'d> {
    /// The whole of `dst` as `[a][b][len]`, contiguous.
    pub fn new(dst: &'d mut [f32], a: usize, b: usize, len: usize) -> TileMut<'d> {
        let size = a.checked_mul(b).and_then(|n| n.checked_mul(len)).expect("tile size overflows");
        assert_eq!(dst.len(), size, "tile of {a}x{b}x{len} over {} values", dst.len());
        // SAFETY: contiguous segments of an exclusive borrow, all inside it.
        unsafe { TileMut::from_raw(dst.as_mut_ptr(), [a, b, len], [b * len, len], [0; 4], 0) }
    }

    /// A tile of `dims = [a, b, len]` segments with `strides = [sa, sb]`, at `at = [outer, a0, b0, c0]`.
    ///
    /// # Safety
    /// Every segment is inside one allocation, no two overlap, and nothing else touches them during `'d`.
    pub unsafe fn from_raw(
        ptr: *mut f32,
        dims: [usize; 3],
        strides: [usize; 2],
        at: [usize; 4],
        origin: usize,
    ) -> TileMut<'d> {
        let [a, b, len] = dims;
        let [sa, sb] = strides;
        let [outer, a0, b0, c0] = at;
        TileMut { ptr, a, b, len, sa, sb, outer, a0, b0, c0, origin, _life: PhantomData }
    }

    /// Number of `a` indices.
    pub fn a_len(&self) -> usize {
        self.a
    }
    /// Number of `b` indices.
    pub fn b_len(&self) -> usize {
        self.b
    }
    /// Values per segment.
    pub fn seg_len(&self) -> usize {
        self.len
    }
    /// Distance between `a` indices, in values.
    pub fn stride_a(&self) -> usize {
        self.sa
    }
    /// Distance between `b` indices, in values.
    pub fn stride_b(&self) -> usize {
        self.sb
    }

    /// The segment `(a, b)`.
    #[inline]
    pub fn seg(&mut self, a: usize, b: usize) -> &mut [f32] {
        assert!(a < self.a && b < self.b);
        // SAFETY: the segment is inside the tile, which is an exclusive borrow.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.add(a * self.sa + b * self.sb), self.len) }
    }

    /// All segments of `a` as one slice, when they follow each other without a gap.
    #[inline]
    pub fn plane(&mut self, a: usize) -> &mut [f32] {
        assert!(a < self.a && (self.sb == self.len || self.b == 1), "segments are not contiguous");
        // SAFETY: the segments b = 0.. of this `a` are contiguous and belong to the tile.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.add(a * self.sa), self.b * self.len) }
    }

    /// Segments `(.., b)` alone.
    pub fn row(&mut self, b: usize) -> TileMut<'_> {
        self.part(b, 1)
    }

    /// `n` segments of every `a`, from `b` on.
    pub fn part(&mut self, b: usize, n: usize) -> TileMut<'_> {
        assert!(b <= self.b && n <= self.b - b);
        let at = [self.outer, self.a0, self.b0 + b, self.c0];
        // SAFETY: a part of this tile, which is borrowed exclusively as long as the part lives.
        unsafe {
            let ptr = self.ptr.add(b * self.sb);
            TileMut::from_raw(ptr, [self.a, n, self.len], [self.sa, self.sb], at, self.origin + b * self.sb)
        }
    }

    /// Leaves the segments from `b` on out.
    pub fn shorten(&mut self, b: usize) {
        self.b = self.b.min(b);
    }

    /// Are the segments of one `a` contiguous, so that [`TileMut::plane`] may be called?
    pub fn is_contiguous(&self) -> bool {
        self.sb == self.len || self.b == 1
    }

    /// Pointer to the first value; reading or writing through it is for the lanes' room alone.
    pub(in crate::simd) fn as_mut_ptr(&mut self) -> *mut f32 {
        self.ptr
    }
}
