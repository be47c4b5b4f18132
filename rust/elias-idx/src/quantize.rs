//! Rows of numbers as 8-bit codes, and how far the codes can be from them.
//!
//! A row w becomes ŵ = scale · codes, each code one of the two integers next to
//! w / scale, from −127 to 127: the nearest ([`quantize_row`]), or sometimes the other ([`quantize_evenly`]).
//! With a row go
//! two lengths, rounded up: that of the *residual* w − ŵ, and that of ŵ. What bounds are made of
//! them is said in [`crate::screen`].

use bytemuck::{Pod, Zeroable};

use crate::matrix::{Matrix, MatrixView, Tensor};

/// The most columns of coded rows: sums of products of 8-bit numbers must fit 32 bits.
pub(crate) const MAX_COLS: usize = 1 << 16;

/// The largest code; −128 is not used.
pub(crate) const MAX_CODE: f32 = 127.0;

/// What is known of a row besides its codes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct RowMeta {
    /// ŵ = scale · codes.
    pub(crate) scale: f32,
    /// The row's bias, here too so that all that a score needs lies together.
    pub(crate) bias: f32,
    /// At least ‖w − ŵ‖.
    pub(crate) residual: f32,
    /// At least ‖ŵ‖.
    pub(crate) norm: f32,
}

impl RowMeta {
    /// Numbers that it consists of.
    pub(crate) const LEN: usize = size_of::<Self>() / size_of::<f32>();

    /// Whether all of `rows` are what a row can have.
    pub(crate) fn are_sound(rows: &[Self]) -> bool {
        // Bounds may be infinite: those of rows whose length float32 can't hold.
        rows.iter().fold(true, |sound, row| {
            let scale = (row.scale >= 0.0) & (row.scale <= f32::MAX);
            sound & scale & row.bias.is_finite() & (row.residual >= 0.0) & (row.norm >= 0.0)
        })
    }
}

/// Rows of codes.
#[derive(Clone)]
pub(crate) struct CodedRows {
    /// \[R, D\].
    pub(crate) codes: Matrix<i8>,
    /// \[R\].
    pub(crate) meta: Tensor<RowMeta>,
}

/// Borrowed [`CodedRows`].
#[derive(Clone, Copy)]
pub(crate) struct CodedRowsView<'a> {
    pub(crate) codes: MatrixView<'a, i8>,
    pub(crate) meta: &'a [RowMeta],
}

impl CodedRows {
    pub(crate) fn view(&self) -> CodedRowsView<'_> {
        CodedRowsView { codes: self.codes.view(), meta: self.meta.as_slice() }
    }
}

/// Sums of squares are in this many lanes, to be fast and to round little.
pub(crate) const LANES: usize = 16;

/// Fills `codes` with those of `row`, finite numbers; the bias of what is returned is 0.
///
/// Rows too small for a normal scale get zeros for codes: their residual is all of them.
pub(crate) fn quantize_row(row: &[f32], codes: &mut [i8]) -> RowMeta {
    let largest = row.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    let scale = largest / MAX_CODE;
    if !scale.is_normal() {
        codes.fill(0);
        return RowMeta {
            residual: upper_norm(largest * (row.len() as f32).sqrt(), row.len()),
            ..RowMeta::default()
        };
    }
    let inverse = scale.recip();
    for (value, code) in row.iter().zip(&mut *codes) {
        *code = round(value * inverse).clamp(-MAX_CODE, MAX_CODE) as i8;
    }
    measure(row, codes, scale)
}

/// As [`quantize_row`], but with some numbers rounded to the other side, so that what rounding leaves
/// adds up to nothing. The error of a product with a query then doesn't depend on the query's mean: that
/// of many rows together cancels even if all numbers are of one sign.
pub(crate) fn quantize_evenly(row: &[f32], codes: &mut [i8]) -> RowMeta {
    let nearest = quantize_row(row, codes);
    if nearest.scale == 0.0 {
        return nearest;
    }
    let inverse = nearest.scale.recip();
    let rest = |value: f32, code: i8| value * inverse - f32::from(code);
    let sum: f64 = row.iter().zip(&*codes).map(|(&v, &code)| f64::from(rest(v, code))).sum();
    let (step, sign) = if sum > 0.0 { (1, 1.0) } else { (-1, -1.0) };
    // Those that are nearly half way first. Where many are alike, chance decides which, another for each
    // row: else the errors of rows that are alike would be, too.
    let mut random = sum.to_bits();
    let mut order: Vec<(f32, usize)> = Vec::with_capacity(row.len());
    for (at, (&value, &code)) in row.iter().zip(&*codes).enumerate() {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let chance = (random >> 40) as f32 / (1 << 24) as f32;
        if f32::from(code) * sign < MAX_CODE {
            order.push((rest(value, code) * sign + CHANCE * chance, at));
        }
    }
    order.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
    for &(_, at) in order.iter().take(sum.abs().round() as usize) {
        codes[at] += step;
    }
    measure(row, codes, nearest.scale)
}

/// By how much of a step chance changes the order in which numbers are rounded to the other side.
const CHANCE: f32 = 0.125;

/// The lengths of a row that was coded with a normal scale.
fn measure(row: &[f32], codes: &[i8], scale: f32) -> RowMeta {
    let inverse = scale.recip();
    let (mut residual, mut norm) = ([0.0_f32; LANES], [0.0_f32; LANES]);
    for (values, codes) in row.chunks(LANES).zip(codes.chunks(LANES)) {
        for (i, (value, &code)) in values.iter().zip(codes).enumerate() {
            // In units of the scale, so that squares neither overflow nor underflow.
            let code = f32::from(code);
            let rest = value * inverse - code;
            residual[i] += rest * rest;
            norm[i] += code * code;
        }
    }
    let norm = norm.iter().sum::<f32>().sqrt();
    // `value * inverse` was rounded, twice: together by less than two epsilons of w / scale.
    let residual = residual.iter().sum::<f32>().sqrt();
    let residual = residual + 4.0 * f32::EPSILON * (norm + residual);
    RowMeta {
        scale,
        bias: 0.0,
        residual: upper_norm(scale * residual, row.len()),
        norm: upper_norm(scale * norm, row.len()),
    }
}

/// An upper bound of a length that was computed with rounding, from `dim` squares summed in lanes.
pub(crate) fn upper_norm(computed: f32, dim: usize) -> f32 {
    let sums = (dim / LANES + LANES) as f32;
    computed * (1.0 + 2.0 * f32::EPSILON * sums) + f32::MIN_POSITIVE
}

/// The nearest integer, halves to even, of |x| < 2²². Adding 1.5 · 2²³ leaves no room for fractions;
/// unlike a call of the library's, this vectorises everywhere.
#[inline]
pub(crate) fn round(x: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0;
    (x + MAGIC) - MAGIC
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Numbers of all magnitudes, zeros and subnormal ones included.
    fn number() -> impl Strategy<Value = f32> {
        prop_oneof![
            4 => -1.0_f32..1.0,
            1 => Just(0.0_f32),
            1 => any::<f32>().prop_filter("finite", |value| value.is_finite()),
        ]
    }

    /// Rows whose numbers are of about the same magnitude, whichever it is, or of any.
    fn row() -> impl Strategy<Value = Vec<f32>> {
        (prop::collection::vec(number(), 1..70), -149_i32..128, any::<bool>()).prop_map(
            |(row, exponent, scaled)| {
                let factor = if scaled { 2.0_f64.powi(exponent) } else { 1.0 };
                let limit = f64::from(f32::MAX);
                let value = |value: f32| (f64::from(value) * factor).clamp(-limit, limit) as f32;
                row.into_iter().map(value).collect()
            },
        )
    }

    fn length(values: impl Iterator<Item = f64>) -> f64 {
        values.map(|value| value * value).sum::<f64>().sqrt()
    }

    /// Holds what is said of a row to the row itself, in f64.
    fn check(row: &[f32]) {
        let mut codes = vec![99; row.len()];
        let meta = quantize_row(row, &mut codes);
        assert!(codes.iter().all(|code| *code != i8::MIN));
        let scale = f64::from(meta.scale);
        let coded = || codes.iter().map(|&code| scale * f64::from(code));
        let norm = length(coded());
        let residual =
            length(row.iter().zip(coded()).map(|(&value, coded)| f64::from(value) - coded));
        assert!(f64::from(meta.norm) >= norm, "{meta:?}, norm {norm:e} of {row:?}");
        assert!(f64::from(meta.residual) >= residual, "{meta:?}, residual {residual:e} of {row:?}");
        // The bounds are of use: a bit above what they bound.
        let slack = 1.0 + 4e-7 * (row.len() as f64 / 16.0 + 16.0);
        let tiny = 2.0 * f64::from(f32::MIN_POSITIVE);
        let (most_norm, most_residual) = (norm * slack, residual * slack + 1e-6 * norm);
        if most_norm + most_residual < f64::from(f32::MAX) && scale > 0.0 {
            assert!(f64::from(meta.norm) <= most_norm + tiny, "{meta:?}, norm {norm:e}");
            assert!(f64::from(meta.residual) <= most_residual + tiny, "{meta:?}, {residual:e}");
        }
        // Each number is within about half a step of its code.
        for (&value, coded) in row.iter().zip(coded()) {
            let error = (f64::from(value) - coded).abs();
            assert!(error <= 0.5001 * scale + 1.5e-36, "{value} {coded}");
        }
        assert!(RowMeta::are_sound(&[meta]));
    }

    proptest! {
        #[test]
        fn bounds_bound_rows_of_any_magnitude(row in row()) {
            check(&row);
        }
    }

    #[test]
    fn bounds_bound_long_and_extreme_rows() {
        for len in [1, 15, 16, 17, 1000, MAX_COLS] {
            for value in [0.0, f32::from_bits(1), 1e-38, 1.5e-36, 1.0, -3.0, 1e38, f32::MAX] {
                check(&vec![value; len]);
                // Halfway between two codes, where the residual is largest.
                let mut row = vec![value * (0.5 / MAX_CODE); len];
                row[len / 2] = value;
                check(&row);
            }
        }
    }

    #[test]
    fn evenly_rounded_rows_leave_nothing_in_sum_and_are_bounded() {
        for len in [1, 2, 17, 768] {
            // Mostly small and of one sign: to the nearest, they would all become 0.
            let row: Vec<f32> =
                (0..len).map(|i| if i == 0 { 1.0 } else { 0.0035 + 1e-6 * i as f32 }).collect();
            let mut codes = vec![99; len];
            let meta = quantize_evenly(&row, &mut codes);
            let rest = || {
                let pairs = row.iter().zip(&codes);
                pairs.map(|(&value, &code)| {
                    f64::from(value) - f64::from(meta.scale) * f64::from(code)
                })
            };
            assert!(rest().sum::<f64>().abs() <= 0.51 * f64::from(meta.scale), "{len}");
            assert!(f64::from(meta.residual) >= length(rest()), "{len}");
        }
    }

    #[test]
    fn codes_are_the_nearest() {
        let mut codes = [0; 5];
        let meta = quantize_row(&[127.0, -127.0, 0.4, 0.6, -63.2], &mut codes);
        assert_eq!(codes, [127, -127, 0, 1, -63]);
        assert_eq!(meta.scale, 1.0);
    }

    #[test]
    fn values_that_no_row_has_are_not_sound() {
        let good = RowMeta { scale: 1.0, bias: -1.0, residual: 1.0, norm: f32::INFINITY };
        assert!(RowMeta::are_sound(&[good, RowMeta::default()]));
        for bad in [
            RowMeta { scale: -1.0, ..good },
            RowMeta { scale: f32::INFINITY, ..good },
            RowMeta { scale: f32::NAN, ..good },
            RowMeta { bias: f32::NAN, ..good },
            RowMeta { bias: f32::NEG_INFINITY, ..good },
            RowMeta { residual: -1.0, ..good },
            RowMeta { residual: f32::NAN, ..good },
            RowMeta { norm: f32::NAN, ..good },
        ] {
            assert!(!RowMeta::are_sound(&[good, bad]), "{bad:?}");
        }
    }
}
