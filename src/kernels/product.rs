//! Matrix-product steps: adapters from tasks to [`super::gemm`], [`super::gemv`] and [`super::strassen`].

use super::few_bits::{FewBits, few_rows, rounded_to_bytes};
use super::gemm::{Bias, Finish, GemmShape, Mat, PackedB, Rhs, gemm};
use super::gemv::{self, After, Order};
use super::kept::{Kept, Source};
use super::packed_bits::{PackedBits, Together};
use super::strassen::{self, Lay, strassen};
use super::task::{Accept, Entry, FewBitsProduct, Kind, MatMul, Prepared, Task, Verdict};
use crate::engine::pool::Pool;
use crate::error::{Error, Result};
use crate::simd::Isa;
use crate::tensor::{DType, Identity, Tensor};
use smallvec::SmallVec;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

pub(super) const GEMM: Entry = Entry { name: "gemm", accepts: accepts_gemm, prepare: prepare_gemm, tolerance: 1e-5 };
pub(super) const GEMV: Entry = Entry { name: "gemv", accepts: accepts_gemv, prepare: prepare_gemv, tolerance: 1e-5 };

pub(super) const STRASSEN: Entry =
    Entry { name: "gemm-strassen", accepts: accepts_strassen, prepare: prepare_strassen, tolerance: 2e-5 };

pub(super) const FEW_BITS: Entry =
    Entry { name: "few-bits", accepts: accepts_few, prepare: prepare_few, tolerance: 2e-5 };

pub(super) const TOGETHER: Entry =
    Entry { name: "few-bits-together", accepts: accepts_together, prepare: prepare_together, tolerance: 2e-5 };

fn matmul<'a>(task: &Task<'a>) -> std::result::Result<&'a MatMul, String> {
    match task.kind {
        Kind::MatMul(m) => Ok(m),
        _ => Err(String::new()),
    }
}

/// Rows of the whole left operand when b is the same for every batch.
fn all_rows(m: &MatMul) -> usize {
    m.batch.iter().product::<usize>() * m.m
}

fn accepts_gemv(task: &Task) -> Verdict {
    let m = matmul(task)?;
    if m.b.is_none() {
        return Err("the matrix is not a constant".into());
    }
    if all_rows(m) > gemv::MAX_M || m.trans_a {
        return Err(format!("more than {} rows", gemv::MAX_M));
    }
    Ok(Accept::plain(task))
}

/// Bytes of a `[k][n]` matrix from which on it is packed for few vectors too: from memory, many rows side by side are read at two
/// thirds of the speed of a single stream.
const PANELS: usize = 2 << 20;

/// A matrix for few vectors.
enum Streamed {
    /// Read where it is: in the file, as a rule, or in a copy kept in large pages.
    Stored(Arc<Tensor>, Order),
    /// In panels, and whether an earlier step of the plan holds them too.
    Panels(Arc<PackedB>, bool),
}

struct Gemv {
    isa: Isa,
    rows: usize,
    k: usize,
    n: usize,
    weights: Streamed,
    task: MatMul,
}

fn prepare_gemv(task: &Task) -> Result<Box<dyn Prepared>> {
    let (m, isa) = (matmul(task).map_err(Error::run)?, task.isa);
    let b = m.b.as_ref().ok_or_else(|| Error::run("the matrix is not a constant"))?;
    (b.dtype() == DType::F32 && b.bytes()?.len() == 4 * m.k * m.n)
        .then_some(())
        .ok_or_else(|| Error::run("the matrix has another size"))?;
    let weights = if m.trans_b || 4 * m.k * m.n < PANELS || all_rows(m) == 0 {
        let order = if m.trans_b { Order::NK } else { Order::KN };
        Streamed::Stored(task.kept().map_or_else(|| Arc::new(b.clone()), |k| k.placed(b)), order)
    } else {
        let (packed, own) = packed(task, m, b)?;
        Streamed::Panels(packed, !own)
    };
    let task = MatMul { b: None, ..m.clone() };
    Ok(Box::new(Gemv { isa, rows: all_rows(m), k: m.k, n: m.n, weights, task }))
}

impl Prepared for Gemv {
    fn run(&self, pool: &Pool, srcs: &[&[f32]], dsts: &mut [&mut [f32]]) {
        let t = &self.task;
        let residual = t.residual.then(|| srcs[srcs.len() - 1]);
        let after = After { alpha: t.alpha, bias: t.bias.as_deref(), residual, act: t.act };
        match &self.weights {
            Streamed::Panels(packed, _) => gemv::gemv_panels(pool, self.rows, srcs[0], packed, after, dsts[0]),
            Streamed::Stored(weights, order) => {
                // Checked when it was prepared.
                let weights = weights.bytes().unwrap_or_default();
                gemv::gemv(pool, self.isa, (self.rows, self.k, self.n), srcs[0], weights, *order, after, dsts[0]);
            }
        }
    }
    fn detail(&self) -> String {
        let how = match &self.weights {
            Streamed::Stored(_, Order::NK) => "rows",
            Streamed::Stored(_, Order::KN) => "columns",
            Streamed::Panels(..) => "panels",
        };
        format!("{} x {} by {how}", self.k, self.n)
    }
    fn packed_bytes(&self) -> usize {
        match &self.weights {
            Streamed::Panels(packed, false) => packed.packed_bytes(),
            _ => 0,
        }
    }
}

fn accepts_gemm(task: &Task) -> Verdict {
    let m = matmul(task)?;
    Ok(Accept { cost: all_rows(m) as f64 * (m.k * m.n) as f64, ..Accept::plain(task) })
}

/// Packed matrices of one plan: steps with the same weights, as layers that repeat have them, share one.
#[derive(Debug, Default)]
pub struct Packs {
    /// Where packed weights are kept between runs, if they are.
    pub(super) kept: Option<Arc<Kept>>,
    panels: Mutex<HashMap<Read, Arc<OnceLock<Arc<PackedB>>>>>,
}

/// Which weights (by name, or where they lie: all of a plan's are alive while it is made ready), k, n, transposed.
type Read = (std::result::Result<Identity, (usize, usize)>, usize, usize, bool);

impl Packs {
    /// None yet.
    pub fn new(kept: Option<Arc<Kept>>) -> Packs {
        Packs { kept, ..Packs::default() }
    }
}

/// The packed matrix, and whether this call made it: otherwise an earlier step of the plan holds it too.
fn packed(task: &Task, m: &MatMul, b: &Tensor) -> Result<(Arc<PackedB>, bool)> {
    if b.dtype() != DType::F32 {
        return Err(Error::run(format!("{} weights of a product", b.dtype())));
    }
    let source = Source::of(b, task.kept())?;
    let pack = |source| Arc::new(PackedB::of_source(task.isa, m.k, m.n, m.trans_b, source));
    let Some(packs) = task.packs else { return Ok((pack(source), true)) };
    let name = match source.identity().or_else(|| b.identity()) {
        Some(identity) => Ok(identity),
        // Where such values lie says nothing: they go with their step, and those of the next may be put in the same place.
        None if b.is_derived() => return Ok((pack(source), true)),
        None => Err((source.values().as_ptr().addr(), source.count())),
    };
    let read = (name, m.k, m.n, m.trans_b);
    let slot = packs.panels.lock().unwrap_or_else(PoisonError::into_inner).entry(read).or_default().clone();
    let mut own = false;
    let packed = slot.get_or_init(|| {
        own = true;
        pack(source)
    });
    Ok((packed.clone(), own))
}

struct Gemm {
    isa: Isa,
    task: MatMul,
    packed: Option<Arc<PackedB>>,
    /// Whether an earlier step of the plan holds the packed weights too.
    lent: bool,
    /// Offsets of a and b for each batch where the strides are not uniform.
    offsets: Option<Vec<(usize, usize)>>,
}

/// The distance between batches if it is the same for all: all dims there, or none.
fn uniform(batch: &[usize], own: &[usize], matrix: usize) -> Option<usize> {
    if own == batch {
        Some(matrix)
    } else if own.iter().all(|&d| d == 1) {
        Some(0)
    } else {
        None
    }
}

fn prepare_gemm(task: &Task) -> Result<Box<dyn Prepared>> {
    let m = matmul(task).map_err(Error::run)?;
    let packed = m.b.as_ref().map(|b| packed(task, m, b)).transpose()?;
    let lent = packed.as_ref().is_some_and(|(_, own)| !own);
    let packed = packed.map(|(packed, _)| packed);
    let (sa, sb) = (uniform(&m.batch, &m.batch_a, m.m * m.k), uniform(&m.batch, &m.batch_b, m.k * m.n));
    let offsets = (packed.is_none() && (sa.is_none() || sb.is_none())).then(|| {
        let strides = |own: &[usize], matrix: usize| {
            let mut s = vec![0; own.len()];
            let mut at = matrix;
            for a in (0..own.len()).rev() {
                s[a] = if own[a] == 1 { 0 } else { at };
                at *= own[a];
            }
            s
        };
        let (sa, sb) = (strides(&m.batch_a, m.m * m.k), strides(&m.batch_b, m.k * m.n));
        let mut index = vec![0; m.batch.len()];
        let mut out = Vec::new();
        loop {
            let at = |s: &[usize]| index.iter().zip(s).map(|(i, s)| i * s).sum::<usize>();
            out.push((at(&sa), at(&sb)));
            if !crate::ops::window::advance(&mut index, &m.batch) {
                break;
            }
        }
        out
    });
    Ok(Box::new(Gemm { isa: task.isa, task: MatMul { b: None, ..m.clone() }, packed, lent, offsets }))
}

impl Prepared for Gemm {
    fn run(&self, pool: &Pool, srcs: &[&[f32]], dsts: &mut [&mut [f32]]) {
        let t = &self.task;
        let residual = t.residual.then(|| srcs[srcs.len() - 1]);
        let bias = t.bias.as_deref().map_or(Bias::None, Bias::Col);
        let fin = Finish { alpha: t.alpha, bias, residual, act: t.act };
        let left = |data| if t.trans_a { Mat::transposed(data, t.m, t.k) } else { Mat::rows(data, t.m, t.k) };
        let right = |data| if t.trans_b { Mat::transposed(data, t.k, t.n) } else { Mat::rows(data, t.k, t.n) };
        let batch: usize = t.batch.iter().product();
        if let Some(p) = &self.packed {
            // One matrix for all batches: the rows of all of them are one tall matrix, unless a is transposed.
            let (batch, m) = if t.trans_a { (batch, t.m) } else { (1, batch * t.m) };
            let a = if t.trans_a { left(srcs[0]) } else { Mat::rows(srcs[0], m, t.k) };
            gemm(pool, self.isa, GemmShape { batch, m, k: t.k, n: t.n }, a, Rhs::Packed(p), fin, dsts[0]);
            return;
        }
        match &self.offsets {
            None => {
                let shape = GemmShape { batch, m: t.m, k: t.k, n: t.n };
                let shared = |own: &[usize], m: Mat<'_>| if own == t.batch { m.batch } else { 0 };
                let (a, b) = (left(srcs[0]), right(srcs[1]));
                let a = Mat { batch: shared(&t.batch_a, a), ..a };
                let b = Mat { batch: shared(&t.batch_b, b), ..b };
                gemm(pool, self.isa, shape, a, Rhs::Mat(b), fin, dsts[0]);
            }
            Some(offsets) => {
                let shape = GemmShape { batch: 1, m: t.m, k: t.k, n: t.n };
                let size = t.m * t.n;
                for (i, (dst, &(a, b))) in dsts[0].chunks_mut(size.max(1)).zip(offsets).enumerate() {
                    let fin = Finish { residual: residual.map(|r| &r[i * size..][..size]), ..fin };
                    let (a, b) = (left(&srcs[0][a..]), right(&srcs[1][b..]));
                    gemm(pool, self.isa, shape, a, Rhs::Mat(b), fin, dst);
                }
            }
        }
    }
    fn detail(&self) -> String {
        let how = if self.packed.is_some() { "packed" } else { "two activations" };
        format!("{how} {}x{}", self.isa.mr(), self.isa.nr())
    }
    fn packed_bytes(&self) -> usize {
        self.packed.as_ref().filter(|_| !self.lent).map_or(0, |p| p.packed_bytes())
    }
}

fn accepts_strassen(task: &Task) -> Verdict {
    let m = matmul(task)?;
    if !task.strassen {
        return Err("switched off (--no-strassen)".into());
    }
    if m.b.is_none() || m.trans_a || m.alpha != 1.0 {
        return Err("a computed matrix, a transposed or a factor".into());
    }
    let cost = strassen::cost(task.isa, task.threads, Lay::Rows, 1, [all_rows(m), m.k, m.n])?;
    Ok(Accept { cost, ..Accept::plain(task) })
}

struct Strassen {
    rows: usize,
    task: MatMul,
    packed: Arc<PackedB>,
    /// Whether an earlier step of the plan holds the packed weights too.
    lent: bool,
}

fn prepare_strassen(task: &Task) -> Result<Box<dyn Prepared>> {
    let m = matmul(task).map_err(Error::run)?;
    let b = m.b.as_ref().ok_or_else(|| Error::run("the matrix is not a constant"))?;
    let (packed, own) = packed(task, m, b)?;
    Ok(Box::new(Strassen { rows: all_rows(m), task: MatMul { b: None, ..m.clone() }, packed, lent: !own }))
}

impl Prepared for Strassen {
    fn run(&self, pool: &Pool, srcs: &[&[f32]], dsts: &mut [&mut [f32]]) {
        let t = &self.task;
        let residual = t.residual.then(|| srcs[srcs.len() - 1]);
        let fin = strassen::Finish { bias: t.bias.as_deref(), residual, act: t.act };
        strassen(pool, Lay::Rows, (1, self.rows), srcs[0], &self.packed, fin, dsts[0]);
    }
    fn detail(&self) -> String {
        strassen::detail(self.packed.isa())
    }
    fn packed_bytes(&self) -> usize {
        if self.lent { 0 } else { self.packed.packed_bytes() }
    }
}

fn accepts_few(task: &Task) -> Verdict {
    match task.kind {
        Kind::FewBits(p) if p.product.trans_a => Err("a transposed".into()),
        Kind::FewBits(_) => Ok(Accept::plain(task)),
        _ => Err(String::new()),
    }
}

/// How a product with weights in few bits is done.
enum Coded {
    /// Out of panels of codes.
    Panels(PackedBits),
    /// Codes where they lie.
    Stored(Arc<FewBits>),
}

struct FewBitsStep {
    isa: Isa,
    rows: usize,
    product: MatMul,
    coded: Coded,
    /// The operand is rounded to bytes first.
    rounded: bool,
    /// Between runs: the rounded operand, and the operand in fixed point.
    held: Mutex<(Vec<f32>, Vec<i32>)>,
}

fn coded(task: &Task, p: &FewBitsProduct) -> Result<Coded> {
    let (isa, w) = (task.isa, &p.weights);
    let fits = w.fits() && w.k == p.product.k && w.n == p.product.n;
    fits.then_some(()).ok_or_else(|| Error::run("the matrix has another size"))?;
    Ok(match (PackedBits::blocks(isa, w), task.kept()) {
        (Some(blocks), kept) => Coded::Panels(PackedBits::new(isa, w, blocks, kept)),
        (None, Some(kept)) => Coded::Stored(Arc::new(FewBits { data: kept.placed(&w.data), ..(**w).clone() })),
        (None, None) => Coded::Stored(w.clone()),
    })
}

impl FewBitsStep {
    fn new(isa: Isa, p: &FewBitsProduct, coded: Coded) -> FewBitsStep {
        let rows = all_rows(&p.product);
        let fixed = if let Coded::Panels(panels) = &coded { panels.fixed(rows) } else { 0 };
        let held = Mutex::new((vec![0.0; if p.rounded { rows * p.product.k } else { 0 }], vec![0; fixed]));
        FewBitsStep { isa, rows, product: p.product.clone(), coded, rounded: p.rounded, held }
    }
}

fn prepare_few(task: &Task) -> Result<Box<dyn Prepared>> {
    let Kind::FewBits(p) = task.kind else { return Err(Error::run("not a product in few bits")) };
    Ok(Box::new(FewBitsStep::new(task.isa, p, coded(task, p)?)))
}

impl Prepared for FewBitsStep {
    fn run(&self, pool: &Pool, srcs: &[&[f32]], dsts: &mut [&mut [f32]]) {
        let (t, isa) = (&self.product, self.isa);
        let residual = t.residual.then(|| srcs[srcs.len() - 1]);
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let (rounded, fixed) = &mut *held;
        let a = if self.rounded {
            rounded_to_bytes(isa, srcs[0], rounded);
            &rounded[..]
        } else {
            srcs[0]
        };
        let after = After { alpha: t.alpha, bias: t.bias.as_deref(), residual, act: t.act };
        match &self.coded {
            Coded::Panels(panels) => panels.product(pool, self.rows, a, fixed, after, dsts[0]),
            Coded::Stored(w) if self.rows <= gemv::MAX_M && w.streams(isa) => {
                few_rows(pool, isa, self.rows, a, w, after, dsts[0]);
            }
            Coded::Stored(w) => {
                let bias = t.bias.as_deref().map_or(Bias::None, Bias::Col);
                let fin = Finish { alpha: t.alpha, bias, residual, act: t.act };
                let shape = GemmShape { batch: 1, m: self.rows, k: t.k, n: t.n };
                gemm(pool, isa, shape, Mat::rows(a, self.rows, t.k), Rhs::Bits(w), fin, dsts[0]);
            }
        }
    }
    fn detail(&self) -> String {
        match &self.coded {
            Coded::Panels(_) => "panels of codes, fixed point".into(),
            Coded::Stored(_) => String::new(),
        }
    }
    fn packed_bytes(&self) -> usize {
        if let Coded::Panels(panels) = &self.coded { panels.bytes() } else { 0 }
    }
}

fn accepts_together(task: &Task) -> Verdict {
    match task.kind {
        Kind::FewBitsTogether(products) if products.len() > 1 => Ok(Accept::plain(task)),
        _ => Err(String::new()),
    }
}

/// Products of one vector whose matrices lie alike.
struct TogetherStep {
    products: Vec<MatMul>,
    together: Together,
    /// Between runs: the operand in fixed point.
    fixed: Mutex<Vec<i32>>,
}

/// Products of one vector, each for itself.
struct InTurn(Vec<FewBitsStep>);

fn prepare_together(task: &Task) -> Result<Box<dyn Prepared>> {
    let Kind::FewBitsTogether(products) = task.kind else { return Err(Error::run("not products in few bits")) };
    let coded: Vec<Coded> = products.iter().map(|p| coded(task, p)).collect::<Result<_>>()?;
    let alike = |pair: &[Coded]| matches!(pair, [Coded::Panels(a), Coded::Panels(b)] if a.is_like(b));
    if !coded.windows(2).all(alike) {
        let steps = products.iter().zip(coded).map(|(p, coded)| FewBitsStep::new(task.isa, p, coded));
        return Ok(Box::new(InTurn(steps.collect())));
    }
    let panels = coded.into_iter().filter_map(|c| if let Coded::Panels(p) = c { Some(p) } else { None }).collect();
    let together = Together::new(panels, task.threads);
    let fixed = Mutex::new(vec![0; together.matrices()[0].fixed(1)]);
    let products = products.iter().map(|p| p.product.clone()).collect();
    Ok(Box::new(TogetherStep { products, together, fixed }))
}

impl Prepared for TogetherStep {
    fn run(&self, pool: &Pool, srcs: &[&[f32]], dsts: &mut [&mut [f32]]) {
        let mut fixed = self.fixed.lock().unwrap_or_else(PoisonError::into_inner);
        fn after(t: &MatMul) -> After<'_> {
            After { alpha: t.alpha, bias: t.bias.as_deref(), residual: None, act: t.act }
        }
        let after: SmallVec<[After<'_>; 4]> = self.products.iter().map(after).collect();
        self.together.product(pool, srcs[0], &mut fixed, &after, dsts[0]);
    }
    fn detail(&self) -> String {
        format!("{} matrices, panels of codes, fixed point", self.products.len())
    }
    fn packed_bytes(&self) -> usize {
        self.together.matrices().iter().map(PackedBits::bytes).sum()
    }
}

impl Prepared for InTurn {
    fn run(&self, pool: &Pool, srcs: &[&[f32]], dsts: &mut [&mut [f32]]) {
        let mut rest = &mut *dsts[0];
        for step in &self.0 {
            let (own, others) = std::mem::take(&mut rest).split_at_mut(step.product.n);
            step.run(pool, srcs, &mut [own]);
            rest = others;
        }
    }
    fn detail(&self) -> String {
        format!("{} matrices in turn", self.0.len())
    }
    fn packed_bytes(&self) -> usize {
        self.0.iter().map(Prepared::packed_bytes).sum()
    }
}
