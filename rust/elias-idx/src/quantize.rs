//! Rows of numbers as 8-bit codes, and how far the codes can be from them.
//!
//! A row w becomes ŵ = scale · codes, each code the nearest integer from −127 to 127. With a row go
//! two lengths, rounded up: that of the *residual* w − ŵ, and that of ŵ. What bounds are made of
//! them is said in [`crate::screen`].

use bytemuck::{Pod, Zeroable};

use crate::error::Result;
use crate::matrix::{Matrix, MatrixView, Tensor};

/// The largest code; −128 is not used.
const MAX_CODE: f32 = 127.0;

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

    /// Codes of `rows` with their `bias`.
    pub(crate) fn of(rows: MatrixView<'_>, bias: &[f32]) -> Result<Self> {
        let mut codes = vec![0; rows.values().len()];
        let mut meta = Vec::with_capacity(rows.rows());
        for ((row, codes), &bias) in
            rows.values().chunks(rows.cols()).zip(codes.chunks_mut(rows.cols())).zip(bias)
        {
            meta.push(RowMeta { bias, ..quantize_row(row, codes) });
        }
        let codes = Matrix::new(Tensor::copy_of(&codes)?, rows.cols());
        Ok(Self { codes, meta: Tensor::copy_of(&meta)? })
    }
}

/// Sums of squares in this many lanes, to be fast and to round little.
const LANES: usize = 16;

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
    let (mut residual, mut norm) = ([0.0_f32; LANES], [0.0_f32; LANES]);
    for (values, codes) in row.chunks(LANES).zip(codes.chunks_mut(LANES)) {
        for (i, (value, code)) in values.iter().zip(codes).enumerate() {
            let rounded = round(value * inverse).clamp(-MAX_CODE, MAX_CODE);
            *code = rounded as i8;
            // In units of the scale, so that squares neither overflow nor underflow.
            let rest = value * inverse - rounded;
            residual[i] += rest * rest;
            norm[i] += rounded * rounded;
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
fn upper_norm(computed: f32, dim: usize) -> f32 {
    let sums = (dim / LANES + LANES) as f32;
    computed * (1.0 + 2.0 * f32::EPSILON * sums) + f32::MIN_POSITIVE
}

/// The nearest integer, halves to even, of |x| < 2²². Adding 1.5 · 2²³ leaves no room for fractions;
/// unlike a call of the library's, this vectorises everywhere.
#[inline]
fn round(x: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0;
    (x + MAGIC) - MAGIC
}
