//! The label classifiers' rows, in the dtype that they are stored in.

use half::{bf16, f16};

use crate::matrix::{Matrix, MatrixView};

/// What the label classifiers are stored as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dtype {
    /// 4 bytes a number.
    Float32,
    /// 2 bytes a number: the upper half of a float32, 8 bits of precision.
    BFloat16,
    /// 2 bytes a number: 11 bits of precision, but nothing above 65,504.
    Float16,
    /// 1 byte a number, and a scale for each row.
    Int8,
}

/// Rows of floats \[L, D'\] of one of the dtypes.
#[derive(Clone)]
pub(crate) enum FloatRows {
    Float32(Matrix<f32>),
    BFloat16(Matrix<bf16>),
    Float16(Matrix<f16>),
}

/// Borrowed [`FloatRows`].
#[derive(Clone, Copy)]
pub(crate) enum FloatRowsView<'a> {
    Float32(MatrixView<'a, f32>),
    BFloat16(MatrixView<'a, bf16>),
    Float16(MatrixView<'a, f16>),
}

impl FloatRows {
    pub(crate) fn view(&self) -> FloatRowsView<'_> {
        match self {
            Self::Float32(rows) => FloatRowsView::Float32(rows.view()),
            Self::BFloat16(rows) => FloatRowsView::BFloat16(rows.view()),
            Self::Float16(rows) => FloatRowsView::Float16(rows.view()),
        }
    }
}
