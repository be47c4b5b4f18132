//! The arithmetic of a training step: losses of pairs, gradients of rows, Adam.
//!
//! Most loops here are plain and left to the compiler, which vectorises them with the instruction set
//! of the caller.

use half::bf16;

pub(super) use super::generic::Portable;
use super::generic::{Stored, Vector, exp, mul_add, tile};
use super::{AdamScales, ElementRow, MomentRow, PairLosses, Rounding, RowValues};
use crate::matrix::MatrixView;

/// See [`super::Kernels::row_dots`], which checks the lengths.
///
/// # Safety
/// `V`'s instruction set must be there.
#[inline(always)]
pub(super) unsafe fn row_dots<V: Vector>(
    row: RowValues<'_>,
    queries: MatrixView<'_>,
    ids: &[u32],
    out: &mut [f32],
) {
    // SAFETY: as promised by the caller.
    unsafe {
        match row {
            RowValues::Float32(row) => dots::<V, _>(row, queries, ids, out),
            RowValues::BFloat16(row) => dots::<V, _>(row, queries, ids, out),
        }
    }
}

/// `out[i] = row · queries[ids[i]]`.
///
/// # Safety
/// `V`'s instruction set must be there, and the row must be as long as the queries.
#[inline(always)]
unsafe fn dots<V: Vector, E: Stored<V>>(
    row: &[E],
    queries: MatrixView<'_>,
    ids: &[u32],
    out: &mut [f32],
) {
    let start = |id: u32| queries.row(id as usize).as_ptr();
    let (row, dim) = (row.as_ptr(), row.len());
    for (four, out) in ids.chunks(4).zip(out.chunks_mut(4)) {
        // SAFETY: each start is that of a query of `dim` values, as is the row's; the set is promised
        // by the caller.
        unsafe {
            if let &[a, b, c, d] = four {
                let starts = [start(a), start(b), start(c), start(d)];
                let dots = tile::<V, E, 1, 4>([row], starts, dim);
                out.copy_from_slice(&dots.map(|[dot]| dot));
            } else {
                for (out, &id) in out.iter_mut().zip(four) {
                    *out = tile::<V, E, 1, 1>([row], [start(id)], dim)[0][0];
                }
            }
        }
    }
}

/// The largest |z| whose e^−|z| is told apart from that of a larger one; far from underflow.
const LARGEST_LOGIT: f32 = 80.0;

/// See [`super::Kernels::irrelevant_pairs`], which checks the lengths.
///
/// With p = s σ(z), u = e^−|z| and t = 1 − s, the odds p / (1 − p) are s · r, where
/// r = u / (1 + t u) for z ≤ 0 and r = 1 / (t + u) for z > 0. Then
///
/// ```text
/// −log(1 − p) = log(1 + s r)    d/dz = s r (1 − σ(z))    d/ds = r
/// ```
///
/// where nothing cancels and nothing overflows, |z| being cut to what can be told apart.
///
/// # Safety
/// `V`'s instruction set must be there (nothing here uses it but through the compiler).
#[inline(always)]
pub(super) unsafe fn irrelevant_pairs<V: Vector>(
    logits: &[f32],
    path_scores: &[f32],
    out: PairLosses<'_>,
) {
    let gradients = out.by_logit.iter_mut().zip(out.by_path.iter_mut());
    let outputs = out.losses.iter_mut().zip(gradients);
    for ((&z, &s), (loss, (by_logit, by_path))) in logits.iter().zip(path_scores).zip(outputs) {
        let magnitude = if z.abs() < LARGEST_LOGIT { z.abs() } else { LARGEST_LOGIT };
        let u = exp::<V>(-magnitude);
        let t = 1.0 - s;
        let positive = z > 0.0;
        let (above, below) = if positive { (1.0, t + u) } else { (u, 1.0 + t * u) };
        let r = above / below;
        let opposite = (if positive { u } else { 1.0 }) / (1.0 + u);
        let odds = s * r;
        *by_logit = odds * opposite;
        // min(1, ·) passes no gradient on.
        *by_path = if s < 1.0 { r } else { 0.0 };
        // The loss grows on beyond the cut, if nothing else bounds it.
        let excess = if positive && t <= 0.0 { z.abs() - magnitude } else { 0.0 };
        // A logit that isn't finite must show.
        let invalid = 0.0 * z;
        *loss = ln_1p::<V>(odds) + excess + invalid;
    }
}

/// log(1 + x) for x ≥ 0, within a few ulp. No branches, so that loops of it vectorise.
///
/// 1 + x = 2^n m with m in [√½, √2), and log m = 2 artanh((m − 1) / (m + 1)) by its series; what the sum
/// 1 + x rounds off is added to first order.
#[inline(always)]
fn ln_1p<V: Vector>(x: f32) -> f32 {
    const SERIES: [f32; 5] = [2.0 / 9.0, 2.0 / 7.0, 2.0 / 5.0, 2.0 / 3.0, 2.0];
    let y = 1.0 + x;
    let rounded_off = (x - (y - 1.0)) / y;
    let n = (y.to_bits().wrapping_sub(std::f32::consts::FRAC_1_SQRT_2.to_bits()) as i32) >> 23;
    let m = f32::from_bits(y.to_bits().wrapping_sub((n << 23) as u32));
    let t = (m - 1.0) / (m + 1.0);
    let square = t * t;
    let mut sum = SERIES[0];
    for coefficient in &SERIES[1..] {
        sum = mul_add::<V>(sum, square, *coefficient);
    }
    mul_add::<V>(n as f32, std::f32::consts::LN_2, mul_add::<V>(sum, t, rounded_off))
}

/// See [`super::Kernels::add_pairs`], which checks the lengths.
///
/// # Safety
/// `V`'s instruction set must be there (nothing here uses it but through the compiler).
#[inline(always)]
pub(super) unsafe fn add_pairs<V: Vector>(
    row: &[f32],
    queries: MatrixView<'_>,
    pairs: &[(u32, f32)],
    gradient: &mut [f32],
    query_gradients: &mut [f32],
) {
    let dim = row.len();
    for &(query, factor) in pairs {
        let from_query = queries.row(query as usize);
        let to_query = &mut query_gradients[query as usize * dim..][..dim];
        let gradients = to_query.iter_mut().zip(gradient.iter_mut());
        for ((weight, value), (to_query, to_row)) in row.iter().zip(from_query).zip(gradients) {
            *to_query = mul_add::<V>(factor, *weight, *to_query);
            *to_row = mul_add::<V>(factor, *value, *to_row);
        }
    }
}

/// See [`super::Kernels::add_scaled`], which checks the lengths.
///
/// # Safety
/// `V`'s instruction set must be there (nothing here uses it but through the compiler).
#[inline(always)]
pub(super) unsafe fn add_scaled<V: Vector>(factor: f32, values: &[f32], sum: &mut [f32]) {
    for (value, sum) in values.iter().zip(sum) {
        *sum = mul_add::<V>(factor, *value, *sum);
    }
}

/// Lanes of the sum of squares, enough for any vector.
const WIDE: usize = 32;

/// See [`super::Kernels::mean_square`].
///
/// # Safety
/// `V`'s instruction set must be there (nothing here uses it but through the compiler).
#[inline(always)]
pub(super) unsafe fn mean_square<V: Vector>(values: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; WIDE];
    let chunks = values.chunks_exact(WIDE);
    for (lane, value) in lanes.iter_mut().zip(chunks.remainder()) {
        *lane = value * value;
    }
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = mul_add::<V>(*value, *value, *lane);
        }
    }
    lanes.iter().sum::<f32>() / values.len() as f32
}

/// See [`super::Kernels::update_row`], which checks the lengths.
///
/// # Safety
/// `V`'s instruction set must be there (nothing here uses it but through the compiler).
#[inline(always)]
pub(super) unsafe fn update_row<V: Vector>(
    row: MomentRow<'_>,
    gradient: &[f32],
    rate: f32,
    scale: f32,
) {
    match row {
        MomentRow::Float32 { weight, momentum } => {
            for ((weight, momentum), gradient) in weight.iter_mut().zip(momentum).zip(gradient) {
                *momentum = moved::<V>(*momentum, *gradient, rate);
                *weight = mul_add::<V>(-scale, *momentum, *weight);
            }
        }
        MomentRow::BFloat16 { weight, momentum, rounding } => {
            let columns = weight.iter_mut().zip(momentum).zip(gradient).zip(0..);
            for (((weight, momentum), gradient), column) in columns {
                let random = rounding.random(column);
                let new = moved::<V>(widened(*momentum), *gradient, rate);
                *momentum = rounded(new, random >> 16);
                *weight = rounded(mul_add::<V>(-scale, new, widened(*weight)), random & 0xffff);
            }
        }
    }
}

/// `(1 − rate) · old + rate · new`, as an average moves.
#[inline(always)]
fn moved<V: Vector>(old: f32, new: f32, rate: f32) -> f32 {
    mul_add::<V>(rate, new - old, old)
}

#[inline(always)]
fn widened(value: bf16) -> f32 {
    f32::from_bits(u32::from(value.to_bits()) << 16)
}

/// One of the two bfloat16 numbers next to a value, by a random number below 2^16: the expected result
/// is the value.
#[inline(always)]
fn rounded(value: f32, random: u32) -> bf16 {
    bf16::from_bits((value.to_bits().wrapping_add(random) >> 16) as u16)
}

impl Rounding {
    /// 32 random bits for a column of the row: a hash that mixes all bits of the two.
    #[inline(always)]
    fn random(self, column: u32) -> u32 {
        let mut x = self.0.wrapping_add(column.wrapping_mul(0x9e37_79b9));
        x = (x ^ (x >> 16)).wrapping_mul(0x21f0_aaad);
        x = (x ^ (x >> 15)).wrapping_mul(0xd35a_2d97);
        x ^ (x >> 15)
    }
}

/// See [`super::Kernels::update_elements`], which checks the lengths.
///
/// # Safety
/// `V`'s instruction set must be there (nothing here uses it but through the compiler).
#[inline(always)]
pub(super) unsafe fn update_elements<V: Vector>(
    row: ElementRow<'_>,
    gradient: &[f32],
    scales: AdamScales,
) {
    let moments = row.momentum.iter_mut().zip(row.second_moment);
    let elements = row.weight.iter_mut().zip(moments).zip(gradient);
    for ((weight, (momentum, second_moment)), gradient) in elements {
        *momentum = moved::<V>(*momentum, *gradient, scales.momentum_rate);
        *second_moment = moved::<V>(*second_moment, gradient * gradient, scales.second_moment_rate);
        *weight = mul_add::<V>(-scales.scale(*second_moment), *momentum, *weight);
    }
}

/// See [`super::Kernels::softmax_gradient`], which checks the lengths.
///
/// # Safety
/// `V`'s instruction set must be there (nothing here uses it but through the compiler).
#[inline(always)]
pub(super) unsafe fn softmax_gradient<V: Vector>(scaled: &[f32], scale: f32, gradient: &mut [f32]) {
    // Through a = min(1, b) with b = scale · softmax: db/dlogit_j = b_j (δ_ij − b_i / scale).
    let mut lanes = [0.0_f32; WIDE];
    for (values, gradients) in scaled.chunks(WIDE).zip(gradient.chunks_mut(WIDE)) {
        for ((value, gradient), lane) in values.iter().zip(gradients).zip(&mut lanes) {
            *gradient = if *value < 1.0 { *gradient } else { 0.0 };
            *lane = mul_add::<V>(*value, *gradient, *lane);
        }
    }
    let mean = lanes.iter().sum::<f32>() / scale;
    for (value, gradient) in scaled.iter().zip(gradient) {
        *gradient = value * (*gradient - mean);
    }
}
