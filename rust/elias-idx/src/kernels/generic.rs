//! The kernels, once, over a vector type.
//!
//! A dot product keeps one vector of partial sums: lane `i` adds up the products at `i`,
//! `i + LANES`, ... in this order, the last ones with zeros for what is beyond the end; then the
//! lanes are added in a fixed tree. Tiles of rows × queries only interleave independent dot
//! products, to have enough of them in flight and to load each value once for several of them.
//!
//! All functions here are `inline(always)`: they take on the instruction set of their caller.

use half::{bf16, f16};

use super::{ExpSums, MAXIMA_CHUNK, prefetch};
use crate::label_rows::ExactRows;
use crate::matrix::MatrixView;

/// A few `f32`s that are computed on together.
///
/// # Safety
/// All methods may only be called where the implementation's instruction set is there.
pub(super) trait Vector: Copy {
    /// How many.
    const LANES: usize;
    /// Whether `mul_add` rounds once.
    const FUSED: bool;
    /// Queries that a tile of four rows takes at once, by the number of registers.
    const TILE_QUERIES: usize;

    /// Zeros.
    unsafe fn zero() -> Self;
    /// The `LANES` values at `from`, which must be readable.
    unsafe fn load(from: *const f32) -> Self;
    /// The `count < LANES` values at `from`, which must be readable, then zeros.
    unsafe fn load_partial(from: *const f32, count: usize) -> Self;
    /// The `LANES` values at `from`, which must be readable, widened.
    unsafe fn load_bf16(from: *const bf16) -> Self;
    /// The `LANES` values at `from`, which must be readable, widened.
    unsafe fn load_f16(from: *const f16) -> Self;
    /// The `LANES` values at `from`, which must be readable, widened.
    unsafe fn load_i8(from: *const i8) -> Self;
    /// `self + a · b`.
    unsafe fn mul_add(self, a: Self, b: Self) -> Self;
    /// The sum of all lanes, in a fixed order.
    unsafe fn sum(self) -> f32;
    /// Writes the lanes to `to`, which must be writable.
    unsafe fn store(self, to: *mut f32);
    /// Takes lanes as bits, and clears those of `bits` where `values` aren't up to `threshold`.
    unsafe fn clear_above(self, bits: u32, values: Self, threshold: f32) -> Self;
    /// `self + table[(i − 1) mod 16]` for the highest of the lowest eight bits, i, that `bits` have.
    unsafe fn add_of_highest_bit(self, bits: Self, table: &[f32; 16]) -> Self;
}

/// What rows are stored as: something that widens to `f32` without error.
pub(super) trait Stored<V>: Copy + Default {
    /// The `LANES` values at `from`.
    ///
    /// # Safety
    /// `V`'s instruction set must be there, and the values readable.
    unsafe fn load(from: *const Self) -> V;

    /// The `count < LANES` values at `from`, then zeros.
    ///
    /// # Safety
    /// `V`'s instruction set must be there, and `count` values readable.
    #[inline(always)]
    unsafe fn load_partial(from: *const Self, count: usize) -> V {
        let mut values = [Self::default(); MAX_LANES];
        // SAFETY: the caller promises the values, and that they are fewer than there are lanes.
        unsafe {
            std::ptr::copy_nonoverlapping(from, values.as_mut_ptr(), count);
            Self::load(values.as_ptr())
        }
    }
}

/// Lanes of the widest vector.
const MAX_LANES: usize = 16;

impl<V: Vector> Stored<V> for f32 {
    #[inline(always)]
    unsafe fn load(from: *const f32) -> V {
        // SAFETY: as promised by the caller.
        unsafe { V::load(from) }
    }

    #[inline(always)]
    unsafe fn load_partial(from: *const f32, count: usize) -> V {
        // SAFETY: as promised by the caller.
        unsafe { V::load_partial(from, count) }
    }
}

impl<V: Vector> Stored<V> for bf16 {
    #[inline(always)]
    unsafe fn load(from: *const bf16) -> V {
        // SAFETY: as promised by the caller.
        unsafe { V::load_bf16(from) }
    }
}

impl<V: Vector> Stored<V> for f16 {
    #[inline(always)]
    unsafe fn load(from: *const f16) -> V {
        // SAFETY: as promised by the caller.
        unsafe { V::load_f16(from) }
    }
}

impl<V: Vector> Stored<V> for i8 {
    #[inline(always)]
    unsafe fn load(from: *const i8) -> V {
        // SAFETY: as promised by the caller.
        unsafe { V::load_i8(from) }
    }
}

/// Plain arrays, for any machine.
#[derive(Clone, Copy)]
pub(super) struct Portable([f32; 8]);

impl Vector for Portable {
    const LANES: usize = 8;
    const FUSED: bool = cfg!(any(target_feature = "fma", target_arch = "aarch64"));
    const TILE_QUERIES: usize = 1;

    #[inline(always)]
    unsafe fn zero() -> Self {
        Self([0.0; 8])
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller promises that the values are readable; an array of f32 needs no more
        // alignment than an f32.
        Self(unsafe { from.cast::<[f32; 8]>().read() })
    }

    #[inline(always)]
    unsafe fn load_partial(from: *const f32, count: usize) -> Self {
        let mut lanes = [0.0; 8];
        // SAFETY: the caller promises that `count` values are readable and fewer than the lanes.
        unsafe { std::ptr::copy_nonoverlapping(from, lanes.as_mut_ptr(), count) };
        Self(lanes)
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const bf16) -> Self {
        // SAFETY: the caller promises that the values are readable; arrays need no more alignment.
        Self(unsafe { from.cast::<[bf16; 8]>().read() }.map(bf16::to_f32))
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const f16) -> Self {
        // SAFETY: as above.
        Self(unsafe { from.cast::<[f16; 8]>().read() }.map(f16::to_f32))
    }

    #[inline(always)]
    unsafe fn load_i8(from: *const i8) -> Self {
        // SAFETY: as above.
        Self(unsafe { from.cast::<[i8; 8]>().read() }.map(f32::from))
    }

    #[inline(always)]
    unsafe fn mul_add(self, a: Self, b: Self) -> Self {
        let mut lanes = self.0;
        for ((lane, a), b) in lanes.iter_mut().zip(a.0).zip(b.0) {
            *lane = mul_add::<Self>(a, b, *lane);
        }
        Self(lanes)
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        tree_sum(self.0)
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller promises that the place is writable.
        unsafe { to.cast::<[f32; 8]>().write(self.0) }
    }

    #[inline(always)]
    unsafe fn clear_above(self, bits: u32, values: Self, threshold: f32) -> Self {
        Self(std::array::from_fn(|lane| {
            let cleared = if values.0[lane] <= threshold { 0 } else { bits };
            f32::from_bits(self.0[lane].to_bits() & !cleared)
        }))
    }

    #[inline(always)]
    unsafe fn add_of_highest_bit(self, bits: Self, table: &[f32; 16]) -> Self {
        Self(std::array::from_fn(|lane| {
            // A float's exponent tells its highest bit, beside an offset of 127.
            let exponent = (bits.0[lane].to_bits() as f32).to_bits() >> 23;
            self.0[lane] + table[exponent as usize % 16]
        }))
    }
}

/// The sum of values in a fixed order, see [`tree`].
#[inline(always)]
fn tree_sum<const N: usize>(values: [f32; N]) -> f32 {
    tree(values, |one, other| one + other)
}

/// Combines halves, value by value, until one is left: in few steps that wait for each other.
#[inline(always)]
pub(super) fn tree<const N: usize>(mut values: [f32; N], combine: impl Fn(f32, f32) -> f32) -> f32 {
    const { assert!(N.is_power_of_two()) };
    let mut width = N / 2;
    while width > 0 {
        for i in 0..width {
            values[i] = combine(values[i], values[i + width]);
        }
        width /= 2;
    }
    values[0]
}

/// The larger value; the second for a first that is NaN, so that what goes on as the second never becomes NaN.
#[inline(always)]
pub(super) fn larger(one: f32, other: f32) -> f32 {
    if one > other { one } else { other }
}

/// Rows in a tile.
const TILE_ROWS: usize = 4;

/// See [`super::Kernels::linear`], which checks the lengths.
///
/// # Safety
/// `V`'s instruction set must be there.
#[inline(always)]
pub(super) unsafe fn linear<V: Vector>(
    rows: MatrixView<'_>,
    bias: Option<&[f32]>,
    queries: MatrixView<'_>,
    out: &mut [f32],
) {
    let num_rows = rows.rows();
    let (row_values, query_values) = (rows.values(), queries.values());
    let dim = rows.cols();
    let mut row = 0;
    while row < num_rows {
        let tile_rows = TILE_ROWS.min(num_rows - row);
        let mut query = 0;
        while query < queries.rows() {
            let left = queries.rows() - query;
            let rows = &row_values[row * dim..];
            let queries = &query_values[query * dim..];
            let out = &mut out[query * num_rows + row..];
            // SAFETY: the caller promises the instruction set. There are `tile_rows` rows and at
            // least as many queries left as the tile takes, both of `dim` values.
            query += unsafe {
                match (tile_rows, V::TILE_QUERIES) {
                    (TILE_ROWS, 4) if left >= 4 => {
                        store::<V, TILE_ROWS, 4>(rows, queries, dim, out, num_rows)
                    }
                    (TILE_ROWS, 2 | 4) if left >= 2 => {
                        store::<V, TILE_ROWS, 2>(rows, queries, dim, out, num_rows)
                    }
                    (TILE_ROWS, _) => store::<V, TILE_ROWS, 1>(rows, queries, dim, out, num_rows),
                    _ => {
                        for r in 0..tile_rows {
                            let (rows, out) = (&rows[r * dim..], &mut out[r..]);
                            store::<V, 1, 1>(rows, queries, dim, out, num_rows);
                        }
                        1
                    }
                }
            };
        }
        row += tile_rows;
    }
    if let Some(bias) = bias {
        for out in out.chunks_exact_mut(num_rows) {
            for (logit, bias) in out.iter_mut().zip(bias) {
                *logit += bias;
            }
        }
    }
}

/// Stores the dot products of the first `R` rows and `Q` queries; `out` has `stride` values a query.
/// Returns `Q`.
///
/// # Safety
/// `V`'s instruction set must be there.
#[inline(always)]
unsafe fn store<V: Vector, const R: usize, const Q: usize>(
    rows: &[f32],
    queries: &[f32],
    dim: usize,
    out: &mut [f32],
    stride: usize,
) -> usize {
    assert!(rows.len() >= R * dim && queries.len() >= Q * dim);
    // SAFETY: the lengths were checked just now; the set is promised by the caller.
    let products = unsafe {
        tile::<V, f32, R, Q>(
            std::array::from_fn(|r| rows.as_ptr().add(r * dim)),
            std::array::from_fn(|q| queries.as_ptr().add(q * dim)),
            dim,
        )
    };
    for (q, products) in products.iter().enumerate() {
        out[q * stride..q * stride + R].copy_from_slice(products);
    }
    Q
}

/// Rows that are fetched ahead of their use.
const PREFETCH_ROWS: usize = 12;

/// See [`super::Kernels::linear_rows`], which checks the lengths.
///
/// # Safety
/// `V`'s instruction set must be there.
#[inline(always)]
pub(super) unsafe fn linear_rows<V: Vector>(
    rows: ExactRows<'_>,
    bias: &[f32],
    ids: &[u32],
    query: &[f32],
    out: &mut [f32],
) {
    for &id in ids {
        prefetch((&raw const bias[id as usize]).cast(), 1);
    }
    // SAFETY: as promised by the caller.
    unsafe {
        match rows {
            ExactRows::Float32(rows) => dot_rows::<V, _>(rows, ids, query, out),
            ExactRows::BFloat16(rows) => dot_rows::<V, _>(rows, ids, query, out),
            ExactRows::Float16(rows) => dot_rows::<V, _>(rows, ids, query, out),
            ExactRows::Int8(rows) => {
                dot_rows::<V, _>(rows.codes, ids, query, out);
                for (out, &id) in out.iter_mut().zip(ids) {
                    *out *= rows.meta[id as usize].scale;
                }
            }
        }
    }
    for (out, &id) in out.iter_mut().zip(ids) {
        *out += bias[id as usize];
    }
}

/// `out[i] = rows[ids[i]] · query`.
///
/// # Safety
/// `V`'s instruction set must be there, and the query must be as long as the rows.
#[inline(always)]
unsafe fn dot_rows<V: Vector, E: Stored<V>>(
    rows: MatrixView<'_, E>,
    ids: &[u32],
    query: &[f32],
    out: &mut [f32],
) {
    let dim = rows.cols();
    let start = |id: u32| rows.row(id as usize).as_ptr();
    for (chunk, (four, out)) in ids.chunks(TILE_ROWS).zip(out.chunks_mut(TILE_ROWS)).enumerate() {
        for &id in ids.iter().skip(TILE_ROWS * chunk + PREFETCH_ROWS).take(TILE_ROWS) {
            prefetch(start(id).cast(), size_of::<E>() * dim);
        }
        // SAFETY: each start is that of a row of `dim` values, as is the query's; the set is
        // promised by the caller.
        unsafe {
            if let &[a, b, c, d] = four {
                let starts = [start(a), start(b), start(c), start(d)];
                out.copy_from_slice(&tile::<V, E, TILE_ROWS, 1>(starts, [query.as_ptr()], dim)[0]);
            } else {
                for (out, &id) in out.iter_mut().zip(four) {
                    *out = tile::<V, E, 1, 1>([start(id)], [query.as_ptr()], dim)[0][0];
                }
            }
        }
    }
}

/// The dot products of `R` rows with `Q` queries, by query.
///
/// # Safety
/// `V`'s instruction set must be there, and `dim` values must be readable at each pointer.
#[inline(always)]
pub(super) unsafe fn tile<V: Vector, E: Stored<V>, const R: usize, const Q: usize>(
    rows: [*const E; R],
    queries: [*const f32; Q],
    dim: usize,
) -> [[f32; R]; Q] {
    // Plain loops, no closures: those would be functions without the caller's instruction set.
    let mut sums = [[0.0; R]; Q];
    // SAFETY: as promised by the caller; all reads are of values before `dim`.
    unsafe {
        let mut lanes = [[V::zero(); R]; Q];
        let mut row_values = [V::zero(); R];
        let whole = dim / V::LANES * V::LANES;
        let mut at = 0;
        while at < whole {
            for r in 0..R {
                row_values[r] = E::load(rows[r].add(at));
            }
            for q in 0..Q {
                let query_values = V::load(queries[q].add(at));
                for r in 0..R {
                    lanes[q][r] = lanes[q][r].mul_add(row_values[r], query_values);
                }
            }
            at += V::LANES;
        }
        if whole < dim {
            for r in 0..R {
                row_values[r] = E::load_partial(rows[r].add(whole), dim - whole);
            }
            for q in 0..Q {
                let query_values = V::load_partial(queries[q].add(whole), dim - whole);
                for r in 0..R {
                    lanes[q][r] = lanes[q][r].mul_add(row_values[r], query_values);
                }
            }
        }
        for q in 0..Q {
            for r in 0..R {
                sums[q][r] = lanes[q][r].sum();
            }
        }
    }
    sums
}

/// Lanes of the element-wise loops, enough for any vector.
const WIDE: usize = 32;
/// Values that are summed in f32 before the sum is added up in f64.
const SUM_BLOCK: usize = 1024;

/// See [`super::Kernels::exp_sums`], which checks the lengths.
///
/// # Safety
/// `V`'s instruction set must be there (nothing here uses it but through the compiler).
#[inline(always)]
pub(super) unsafe fn exp_sums<V: Vector>(logits: &[f32], deviations: &[f32]) -> ExpSums {
    let max = max(logits);
    let mut sums = ExpSums { max, sum: 0.0, squares: 0.0, curvature: 0.0 };
    for (logits, deviations) in logits.chunks(SUM_BLOCK).zip(deviations.chunks(SUM_BLOCK)) {
        let mut lanes = [[0.0; WIDE]; 3];
        let (mut logits, mut deviations) =
            (logits.chunks_exact(WIDE), deviations.chunks_exact(WIDE));
        for (logits, deviations) in (&mut logits).zip(&mut deviations) {
            add_exps::<V>(logits, deviations, max, &mut lanes);
        }
        add_exps::<V>(logits.remainder(), deviations.remainder(), max, &mut lanes);
        let [sum, squares, curvature] = lanes.map(|lanes| f64::from(tree_sum(lanes)));
        sums.sum += sum;
        sums.squares += squares;
        sums.curvature += curvature;
    }
    sums
}

/// Adds x = exp(logit − max), (x d)² and x d² for each logit and its deviation d, in lanes of their own.
#[inline(always)]
fn add_exps<V: Vector>(logits: &[f32], deviations: &[f32], max: f32, lanes: &mut [[f32; WIDE]; 3]) {
    let [sums, squares, curvatures] = lanes;
    let sums = sums.iter_mut().zip(squares).zip(curvatures);
    for ((logit, d), ((sum, square), curvature)) in logits.iter().zip(deviations).zip(sums) {
        let x = exp::<V>(logit - max);
        let deviation = x * d;
        *sum += x;
        *square += deviation * deviation;
        *curvature += deviation * d;
    }
}

/// See [`super::Kernels::exp_scores`].
///
/// # Safety
/// `V`'s instruction set must be there (nothing here uses it but through the compiler).
#[inline(always)]
pub(super) unsafe fn exp_scores<V: Vector>(logits: &mut [f32], max: f32, scale: f32) {
    for logit in logits {
        *logit = (exp::<V>(finite(*logit) - max) * scale).min(1.0);
    }
}

/// See [`super::Kernels::chunk_maxima`], which checks the lengths.
///
/// # Safety
/// `V`'s instruction set must be there (nothing here uses it but through the compiler).
#[inline(always)]
pub(super) unsafe fn chunk_maxima<V: Vector>(values: &[f32], out: &mut [f32]) {
    for (chunk, out) in values.chunks(MAXIMA_CHUNK).zip(out) {
        *out = max(chunk);
    }
}

/// The largest value; NaN is passed over.
#[inline(always)]
fn max(values: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; WIDE];
    let mut chunks = values.chunks_exact(WIDE);
    for chunk in &mut chunks {
        for (value, lane) in chunk.iter().zip(&mut lanes) {
            *lane = larger(*value, *lane);
        }
    }
    for (value, lane) in chunks.remainder().iter().zip(&mut lanes) {
        *lane = larger(*value, *lane);
    }
    tree(lanes, larger)
}

/// See [`super::Kernels::cluster_scores`].
///
/// Logits are clamped to finite values, so that queries whose dot products overflow still order
/// the clusters.
///
/// # Safety
/// `V`'s instruction set must be there (nothing here uses it but through the compiler).
#[inline(always)]
pub(super) unsafe fn cluster_scores<V: Vector>(logits: &mut [f32], alpha: f64) {
    capped_softmax::<V>(logits, alpha, 1.0);
}

/// See [`super::Kernels::scaled_softmax`].
///
/// # Safety
/// `V`'s instruction set must be there (nothing here uses it but through the compiler).
#[inline(always)]
pub(super) unsafe fn scaled_softmax<V: Vector>(logits: &mut [f32], scale: f64) {
    capped_softmax::<V>(logits, scale, f32::MAX);
}

/// Replaces logits by `min(cap, alpha · softmax)`.
#[inline(always)]
fn capped_softmax<V: Vector>(logits: &mut [f32], alpha: f64, cap: f32) {
    let max = clamp_and_max(logits);
    let mut total = 0.0_f64;
    for block in logits.chunks_mut(SUM_BLOCK) {
        for logit in block.iter_mut() {
            *logit = exp::<V>(*logit - max);
        }
        total += f64::from(lane_sum(block));
    }
    // At least one summand is exp(0) = 1. A huge alpha must not become infinite: 0 · inf is NaN.
    let scale = (alpha / total).min(f64::from(f32::MAX)) as f32;
    for score in logits {
        *score = (*score * scale).min(cap);
    }
}

/// Makes all values finite and returns the largest.
#[inline(always)]
fn clamp_and_max(values: &mut [f32]) -> f32 {
    let mut lanes = [f32::MIN; WIDE];
    let mut chunks = values.chunks_exact_mut(WIDE);
    for chunk in &mut chunks {
        for (value, lane) in chunk.iter_mut().zip(&mut lanes) {
            *value = finite(*value);
            *lane = larger(*value, *lane);
        }
    }
    for (value, lane) in chunks.into_remainder().iter_mut().zip(&mut lanes) {
        *value = finite(*value);
        *lane = larger(*value, *lane);
    }
    tree(lanes, larger)
}

/// The nearest finite number; the smallest one for NaN.
#[inline(always)]
fn finite(value: f32) -> f32 {
    let above = if value > f32::MIN { value } else { f32::MIN };
    if above < f32::MAX { above } else { f32::MAX }
}

#[inline(always)]
fn lane_sum(values: &[f32]) -> f32 {
    let mut lanes = [0.0; WIDE];
    let chunks = values.chunks_exact(WIDE);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane += value;
        }
    }
    for (lane, value) in lanes.iter_mut().zip(rest) {
        *lane += value;
    }
    tree_sum(lanes)
}

/// See [`super::Kernels::final_scores`], which checks the lengths.
///
/// # Safety
/// `V`'s instruction set must be there (nothing here uses it but through the compiler).
#[inline(always)]
pub(super) unsafe fn final_scores<V: Vector>(logits: &mut [f32], path_scores: &[f32]) {
    for (logit, path_score) in logits.iter_mut().zip(path_scores) {
        let z = finite(*logit);
        // exp of what isn't positive can't overflow.
        let e = exp::<V>(-z.abs());
        let sigmoid = (if z >= 0.0 { 1.0 } else { e }) / (1.0 + e);
        *logit = path_score * sigmoid;
    }
}

/// e^x for x ≤ 0 within 2 ulp, down to subnormals. No branches, so that loops of it vectorise.
///
/// With n the integer next to x / ln 2, e^x = 2^n · e^(x − n ln 2). The polynomial is a minimax fit
/// on |r| ≤ ln 2 / 2 with a relative error of 3e-9; ln 2 is in two parts, of which the first has
/// zeros where its product with n needs room. 2^n is applied in two factors, for the subnormals.
#[inline(always)]
pub(super) fn exp<V: Vector>(x: f32) -> f32 {
    const LN_2_HIGH: f32 = 0.693_145_75;
    const LN_2_LOW: f32 = 1.428_606_8e-6;
    const POLYNOMIAL: [f32; 5] =
        [1.381_446_5e-3, 8.368_781e-3, 4.166_839e-2, 1.666_652e-1, 4.999_999_4e-1];
    // Adding 1.5 · 2^23 rounds to an integer, which then stands in the low bits.
    const ROUND: f32 = 12_582_912.0;
    const SMALLEST: f32 = -105.0;
    let x = if x > SMALLEST { x } else { SMALLEST };
    let shifted = mul_add::<V>(x, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = mul_add::<V>(n, -LN_2_LOW, mul_add::<V>(n, -LN_2_HIGH, x));
    let mut p = POLYNOMIAL[0];
    for coefficient in &POLYNOMIAL[1..] {
        p = mul_add::<V>(p, r, *coefficient);
    }
    let p = mul_add::<V>(p * r, r, r) + 1.0;
    let n = shifted.to_bits().wrapping_sub(ROUND.to_bits()) as i32;
    let half = n >> 1;
    p * power_of_two(half) * power_of_two(n - half)
}

/// 2^n for the n of normal numbers.
#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits(((n + 127) << 23) as u32)
}

/// `a · b + c`, fused where the set has that in hardware (elsewhere it would be a slow call).
#[inline(always)]
pub(super) fn mul_add<V: Vector>(a: f32, b: f32, c: f32) -> f32 {
    if V::FUSED { a.mul_add(b, c) } else { a * b + c }
}
