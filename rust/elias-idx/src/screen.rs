//! How far a score from 8-bit codes can be from the exact one.
//!
//! A row w is stored as ŵ with w = ŵ + r, a query e as ê with e = ê + d (see [`crate::quantize`] and
//! [`crate::query_codes`]). The exact logit is w · e + b, the *screened* one ŵ · ê + b. As
//!
//! > w · e − ŵ · ê = r · e + ŵ · d,
//!
//! the two differ, by Cauchy and Schwarz, by at most ‖r‖ ‖e‖ + ‖ŵ‖ ‖d‖ in exact arithmetic. All four
//! lengths are known, rounded up. To this comes what rounding does in the two computations:
//!
//! - The screened one sums integers without error and then rounds a handful of times; each rounding
//!   is at most ε = 2⁻²³ of a number that is at most ‖ŵ‖ ‖ê‖ + |b|, and ‖ê‖ ≤ ‖e‖ + ‖d‖ ≤ 2 ‖e‖.
//! - The exact one is a dot product in at least 8 lanes and a bias. The classic bound of a sum
//!   (Higham, Accuracy and Stability of Numerical Algorithms, §3.1) is n ε Σ |wᵢ eᵢ| with n the
//!   longest chain of roundings, here D / 8 + 3 for the lanes and their tree and 2 for product and
//!   bias; and Σ |wᵢ eᵢ| ≤ ‖w‖ ‖e‖ ≤ (‖ŵ‖ + ‖r‖) ‖e‖.
//!
//! So [`error_bound`] with n = D / 8 + 32 covers both. Scores are s · sigmoid(logit): increasing in the
//! logit, and computed with a relative error of a few ε where they are normal numbers. [`upper_score`]
//! and [`lower_score`] leave room for that, and for subnormal scores, which have no relative accuracy.
//!
//! Hence a label whose upper score is below the lower scores of k others can't be among the best k,
//! not even by a tie; the others are scored exactly. Where numbers near the end of the range overflow,
//! bounds become infinite and leave nothing out.

use crate::quantize::RowMeta;
use crate::query_codes::QueryMeta;

/// Rounding in a dot product of `dim` dimensions, relative to the lengths of its factors.
pub(crate) fn rounding(dim: usize) -> f32 {
    (dim / 8 + 32) as f32 * f32::EPSILON
}

/// The most by which the exact logit of a row and the screened one differ. `query_residual` is the
/// query's, of the part of its codes that was used.
#[inline(always)]
pub(crate) fn error_bound(
    row: &RowMeta,
    query: &QueryMeta,
    query_residual: f32,
    rounding: f32,
) -> f32 {
    let lengths = (row.norm + row.residual) * query.norm + row.bias.abs();
    row.residual * query.norm + row.norm * query_residual + rounding * lengths
}

/// Relative error of a computed score, generously.
pub(crate) const SCORE_ERROR: f32 = 1.0 / (1 << 18) as f32;

/// At least the score that is computed exactly, given one computed from an upper bound of the logit.
#[inline(always)]
pub(crate) fn upper_score(score: f32) -> f32 {
    score * (1.0 + SCORE_ERROR) + f32::MIN_POSITIVE
}

/// At most the score that is computed exactly, given one computed from a lower bound of the logit.
#[inline(always)]
pub(crate) fn lower_score(score: f32) -> f32 {
    score * (1.0 - SCORE_ERROR) - f32::MIN_POSITIVE
}
