//! Sparse matrices as callers pass them.

use crate::error::ArgumentError;

/// Rows of a sparse matrix in CSR form.
#[derive(Debug, Clone, Copy, Default)]
pub struct SparseRows<'a> {
    /// Where each row starts and ends, \[R + 1\].
    pub offsets: &'a [i64],
    /// The column of each entry, \[nnz\].
    pub columns: &'a [i32],
    /// The value of each entry, \[nnz\].
    pub values: &'a [f32],
    /// Columns of the matrix.
    pub num_columns: usize,
}

impl SparseRows<'_> {
    /// Number of rows.
    pub(crate) fn len(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    /// Columns and values of a row.
    pub(crate) fn row(&self, row: usize) -> impl ExactSizeIterator<Item = (usize, f32)> {
        let range = self.offsets[row] as usize..self.offsets[row + 1] as usize;
        let columns = self.columns[range.clone()].iter().map(|&column| column as usize);
        columns.zip(self.values[range].iter().copied())
    }

    pub(crate) fn check(&self, name: &'static str) -> Result<(), ArgumentError> {
        let (nnz, bad) = (self.columns.len(), |reason| ArgumentError::BadMatrix { name, reason });
        if self.values.len() != nnz {
            return Err(bad("indices and data differ in length"));
        }
        if self.offsets.first() != Some(&0)
            || self.offsets.last() != Some(&(nnz as i64))
            || !self.offsets.is_sorted()
        {
            return Err(bad("indptr must rise from 0 to the number of entries"));
        }
        let in_range = |&column: &i32| usize::try_from(column).is_ok_and(|c| c < self.num_columns);
        if !self.columns.iter().all(in_range) {
            return Err(bad("a column index is out of range"));
        }
        if !all_finite(self.values) {
            return Err(bad("a value is NaN or infinite"));
        }
        Ok(())
    }

    /// [`check`](Self::check), and that the columns of each row ascend.
    pub(crate) fn check_sorted(&self, name: &'static str) -> Result<(), ArgumentError> {
        self.check(name)?;
        let ascends = |row: &[i64]| {
            self.columns[row[0] as usize..row[1] as usize].is_sorted_by(|one, next| one < next)
        };
        if self.offsets.windows(2).all(ascends) {
            return Ok(());
        }
        let reason =
            "a row's columns don't ascend: sum_duplicates() sorts them and adds up equal ones";
        Err(ArgumentError::BadMatrix { name, reason })
    }

    /// [`check_sorted`](Self::check_sorted), and the shape.
    pub(crate) fn check_shape(
        &self,
        name: &'static str,
        (rows, columns): (usize, usize),
    ) -> Result<(), ArgumentError> {
        let (expected, received) = ([rows, columns], [self.len(), self.num_columns]);
        if expected != received {
            return Err(ArgumentError::WrongShape { name, expected, received });
        }
        self.check_sorted(name)
    }
}

pub(crate) fn all_finite(values: &[f32]) -> bool {
    values.iter().fold(true, |all, value| all & value.is_finite())
}
