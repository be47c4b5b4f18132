//! Typed views over shared bytes: tensors of one dimension, and matrices of rows.

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

use bytemuck::Pod;

use crate::error::{ArgumentError, Result};
use crate::storage::Bytes;

/// The most labels or clusters that an index can have: ids are `u32`, and two are kept free.
pub(crate) const MAX_IDS: usize = u32::MAX as usize - 1;

/// A run of numbers within shared bytes. Cloning shares the bytes.
#[derive(Clone)]
pub(crate) struct Tensor<T> {
    bytes: Arc<Bytes>,
    start: usize,
    len: usize,
    element: PhantomData<T>,
}

impl<T: Pod> Tensor<T> {
    /// The `len` elements from byte `start` on; None where the bytes end early or are misaligned.
    pub(crate) fn new(bytes: Arc<Bytes>, start: usize, len: usize) -> Option<Self> {
        let end = start.checked_add(len.checked_mul(size_of::<T>())?)?;
        bytemuck::try_cast_slice::<u8, T>(bytes.get(start..end)?).ok()?;
        Some(Self { bytes, start, len, element: PhantomData })
    }

    /// A copy of `values` in aligned memory.
    pub(crate) fn copy_of(values: &[T]) -> Result<Self> {
        let bytes = Arc::new(Bytes::copy_of(bytemuck::cast_slice(values))?);
        Ok(Self { bytes, start: 0, len: values.len(), element: PhantomData })
    }

    /// The same bytes as elements of another type.
    ///
    /// # Panics
    /// If the bytes aren't a whole number of them or are misaligned.
    pub(crate) fn cast<U: Pod>(self) -> Tensor<U> {
        let len = bytemuck::cast_slice::<u8, U>(self.as_bytes()).len();
        Tensor { bytes: self.bytes, start: self.start, len, element: PhantomData }
    }

    pub(crate) fn as_slice(&self) -> &[T] {
        bytemuck::cast_slice(self.as_bytes())
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.len * size_of::<T>()]
    }
}

/// Rows of numbers, stored one after the other.
#[derive(Clone)]
pub(crate) struct Matrix<T = f32> {
    values: Tensor<T>,
    cols: usize,
}

impl<T: Pod> Matrix<T> {
    /// Rows of `cols` values each; `cols` divides the number of values.
    pub(crate) fn new(values: Tensor<T>, cols: usize) -> Self {
        debug_assert!(cols > 0 && values.len.is_multiple_of(cols));
        Self { values, cols }
    }

    pub(crate) fn view(&self) -> MatrixView<'_, T> {
        MatrixView { values: self.values.as_slice(), cols: self.cols }
    }

    pub(crate) fn tensor(&self) -> &Tensor<T> {
        &self.values
    }
}

/// A borrowed [`Matrix`].
#[derive(Clone, Copy)]
pub(crate) struct MatrixView<'a, T = f32> {
    values: &'a [T],
    cols: usize,
}

impl<'a, T> MatrixView<'a, T> {
    /// Rows of `cols` values each.
    ///
    /// # Panics
    /// If `cols` is 0 or doesn't divide the number of values.
    pub(crate) fn new(values: &'a [T], cols: usize) -> Self {
        assert!(cols > 0 && values.len().is_multiple_of(cols));
        Self { values, cols }
    }

    pub(crate) fn rows(&self) -> usize {
        self.values.len() / self.cols
    }

    pub(crate) fn cols(&self) -> usize {
        self.cols
    }

    pub(crate) fn values(&self) -> &'a [T] {
        self.values
    }

    /// Some of the rows.
    ///
    /// # Panics
    /// If there are not so many.
    pub(crate) fn range(&self, rows: Range<usize>) -> Self {
        Self { values: &self.values[rows.start * self.cols..rows.end * self.cols], ..*self }
    }

    /// One row.
    ///
    /// # Panics
    /// If there is no such row.
    #[inline]
    pub(crate) fn row(&self, row: usize) -> &'a [T] {
        &self.values[row * self.cols..][..self.cols]
    }
}

/// Refuses NaN and infinity, naming where they stand; a matrix has `cols`, a vector None.
pub(crate) fn check_finite(
    name: &'static str,
    values: &[f32],
    cols: Option<usize>,
) -> Result<(), ArgumentError> {
    let Some(at) = position_of_non_finite(values) else { return Ok(()) };
    let position = cols.map_or_else(|| at.to_string(), |cols| cell(at, cols));
    Err(ArgumentError::NonFinite { name, position, value: values[at] })
}

/// How errors name an element of a matrix: by its row and column.
pub(crate) fn cell(at: usize, cols: usize) -> String {
    format!("{}, {}", at / cols, at % cols)
}

/// Where the first NaN or infinity stands.
pub(crate) fn position_of_non_finite(values: &[f32]) -> Option<usize> {
    position_beyond(values, f32::MAX)
}

/// Where the first value stands that is NaN or whose magnitude exceeds `limit`.
pub(crate) fn position_beyond(values: &[f32], limit: f32) -> Option<usize> {
    // Whole chunks are tested without a branch in between, so that the test vectorises.
    const CHUNK: usize = 1024;
    let good = |value: &f32| value.abs() <= limit;
    let bad_chunk = values
        .chunks(CHUNK)
        .position(|chunk| !chunk.iter().fold(true, |all, value| all & good(value)))?;
    let start = bad_chunk * CHUNK;
    values[start..].iter().position(|value| !good(value)).map(|at| start + at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_refuse_what_the_bytes_cannot_give() {
        let bytes = Arc::new(Bytes::copy_of(&[0; 64]).unwrap());
        assert!(Tensor::<f32>::new(bytes.clone(), 0, 16).is_some());
        assert!(Tensor::<f32>::new(bytes.clone(), 0, 17).is_none(), "too long");
        assert!(Tensor::<f32>::new(bytes.clone(), 2, 1).is_none(), "misaligned");
        assert!(Tensor::<f32>::new(bytes.clone(), 4, usize::MAX).is_none(), "overflow");
        assert!(Tensor::<u64>::new(bytes, usize::MAX, 1).is_none(), "overflow");
    }

    #[test]
    fn non_finite_values_are_found_wherever_they_stand() {
        for at in [0, 1, 1023, 1024, 2500] {
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut values = vec![1.0; 3000];
                values[at] = bad;
                assert_eq!(position_of_non_finite(&values), Some(at));
            }
        }
        assert_eq!(position_of_non_finite(&[f32::MAX; 3000]), None);
        assert_eq!(position_beyond(&[2.0, -2.0, 2.5, -3.0], 2.0), Some(2));
        assert_eq!(position_beyond(&[2.0, -2.5], 2.0), Some(1));
        let values = [0.0, 0.0, f32::NAN, 0.0];
        for (cols, expected) in
            [(None, "2"), (Some(1), "2, 0"), (Some(2), "1, 0"), (Some(4), "0, 2")]
        {
            let error = check_finite("bias", &values, cols).unwrap_err();
            assert!(error.to_string().starts_with(&format!("bias[{expected}] is NaN")), "{error}");
        }
    }
}
