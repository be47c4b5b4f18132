//! The label classifiers' rows, in the dtype that they are stored in.

use std::fmt;
use std::str::FromStr;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use crate::error::ArgumentError;
use crate::matrix::{Matrix, MatrixView};
use crate::quantize::CodedRowsView;

/// What the label classifiers are stored as.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Dtype {
    /// 4 bytes a number.
    #[default]
    Float32,
    /// 2 bytes a number: the upper half of a float32, 8 bits of precision.
    BFloat16,
    /// 2 bytes a number: 11 bits of precision, but nothing above 65,504.
    Float16,
    /// 1 byte a number, and a scale for each row.
    Int8,
}

impl Dtype {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Float32, Self::BFloat16, Self::Float16, Self::Int8];

    /// Its name: `float32`, `bfloat16`, `float16` or `int8`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Float32 => "float32",
            Self::BFloat16 => "bfloat16",
            Self::Float16 => "float16",
            Self::Int8 => "int8",
        }
    }

    /// The largest magnitude that it can hold.
    pub(crate) fn limit(self) -> f32 {
        match self {
            Self::Float32 | Self::Int8 => f32::MAX,
            Self::BFloat16 => bf16::MAX.to_f32(),
            Self::Float16 => f16::MAX.to_f32(),
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Dtype {
    type Err = ArgumentError;

    fn from_str(name: &str) -> Result<Self, ArgumentError> {
        let found = Self::ALL.into_iter().find(|dtype| dtype.name() == name);
        found.ok_or_else(|| ArgumentError::BadDtype(name.to_owned()))
    }
}

/// The label classifiers `W_L` \[L, D'\] as they are stored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum LabelWeights<'a> {
    /// As [`Dtype::Float32`].
    Float32(&'a [f32]),
    /// As [`Dtype::BFloat16`].
    BFloat16(&'a [bf16]),
    /// As [`Dtype::Float16`].
    Float16(&'a [f16]),
}

/// Rows of floats \[L, D'\] of one of the dtypes.
#[derive(Clone)]
pub(crate) enum FloatRows {
    Float32(Matrix<f32>),
    BFloat16(Matrix<bf16>),
    Float16(Matrix<f16>),
}

/// The rows that a label's exact score comes from.
#[derive(Clone, Copy)]
pub(crate) enum ExactRows<'a> {
    Float32(MatrixView<'a, f32>),
    BFloat16(MatrixView<'a, bf16>),
    Float16(MatrixView<'a, f16>),
    /// Scale times code is what counts as exact where there is nothing else.
    Int8(CodedRowsView<'a>),
}

impl FloatRows {
    pub(crate) fn dtype(&self) -> Dtype {
        match self {
            Self::Float32(_) => Dtype::Float32,
            Self::BFloat16(_) => Dtype::BFloat16,
            Self::Float16(_) => Dtype::Float16,
        }
    }

    pub(crate) fn view(&self) -> ExactRows<'_> {
        match self {
            Self::Float32(rows) => ExactRows::Float32(rows.view()),
            Self::BFloat16(rows) => ExactRows::BFloat16(rows.view()),
            Self::Float16(rows) => ExactRows::Float16(rows.view()),
        }
    }

    pub(crate) fn weights(&self) -> LabelWeights<'_> {
        match self {
            Self::Float32(rows) => LabelWeights::Float32(rows.tensor().as_slice()),
            Self::BFloat16(rows) => LabelWeights::BFloat16(rows.tensor().as_slice()),
            Self::Float16(rows) => LabelWeights::Float16(rows.tensor().as_slice()),
        }
    }
}

impl ExactRows<'_> {
    /// D'.
    pub(crate) fn cols(&self) -> usize {
        match self {
            Self::Float32(rows) => rows.cols(),
            Self::BFloat16(rows) => rows.cols(),
            Self::Float16(rows) => rows.cols(),
            Self::Int8(rows) => rows.codes.cols(),
        }
    }

    /// Writes one row as float32 to `out` \[D'\].
    ///
    /// # Panics
    /// If there is no such row, or `out` has another length.
    pub(crate) fn copy_row(&self, row: usize, out: &mut [f32]) {
        match self {
            Self::Float32(rows) => out.copy_from_slice(rows.row(row)),
            Self::BFloat16(rows) => rows.row(row).convert_to_f32_slice(out),
            Self::Float16(rows) => rows.row(row).convert_to_f32_slice(out),
            Self::Int8(rows) => {
                let (codes, scale) = (rows.codes.row(row), rows.meta[row].scale);
                assert_eq!(codes.len(), out.len());
                for (value, &code) in out.iter_mut().zip(codes) {
                    *value = scale * f32::from(code);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dtypes_are_known_by_their_names() {
        for dtype in Dtype::ALL {
            assert_eq!(dtype.to_string().parse(), Ok(dtype));
        }
        let error = "float64".parse::<Dtype>().unwrap_err();
        assert!(error.to_string().ends_with("got 'float64'"), "{error}");
    }

    #[test]
    fn limits_are_the_largest_values() {
        for (dtype, limit) in [(Dtype::Float16, 65_504.0), (Dtype::BFloat16, 3.389_531_4e38)] {
            assert_eq!(dtype.limit(), limit);
        }
    }
}
