//! Label rows on their way into a new index: in blocks, into the tensors that its dtype calls for.

use std::thread;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use crate::error::{ArgumentError, Result};
use crate::format::manifest::Dims;
use crate::format::schema;
use crate::format::write::{Store, TensorWriter};
use crate::label_rows::{Dtype, ExactRows};
use crate::matrix::{MatrixView, cell, position_beyond, position_of_non_finite};
use crate::quantize::{RowMeta, quantize_row};
use crate::threads::guard;

const WEIGHTS: &str = "label_weights";
const BIAS: &str = "label_bias";

/// Numbers that are converted, coded and written at once, about.
const BLOCK: usize = 1 << 22;

/// Writes the label classifiers, row after row.
pub(crate) struct LabelWriter {
    dtype: Dtype,
    num_rows: usize,
    cols: usize,
    /// The row that comes next.
    row: usize,
    bias: TensorWriter,
    exact: Option<TensorWriter>,
    codes: Option<CodeWriter>,
    /// A block in the dtype that it is stored in.
    bfloat16: Vec<bf16>,
    float16: Vec<f16>,
}

impl LabelWriter {
    /// Begins the tensors; `coded` says whether there are 8-bit codes beside rows of floats.
    pub(crate) fn new(store: &Store, dims: Dims, dtype: Dtype, coded: bool) -> Result<Self> {
        let (num_rows, cols) = (dims.num_labels, dims.label_dim);
        let (name, shape) = (schema::LABEL_WEIGHTS, [num_rows, cols]);
        let exact = match dtype {
            Dtype::Float32 => Some(store.tensor::<f32>(name, &shape)?),
            Dtype::BFloat16 => Some(store.tensor::<bf16>(name, &shape)?),
            Dtype::Float16 => Some(store.tensor::<f16>(name, &shape)?),
            Dtype::Int8 => None,
        };
        let coded = coded || dtype == Dtype::Int8;
        Ok(Self {
            dtype,
            num_rows,
            cols,
            row: 0,
            bias: store.tensor::<f32>(schema::LABEL_BIAS, &[num_rows])?,
            exact,
            codes: coded.then(|| CodeWriter::new(store, dtype, num_rows, cols)).transpose()?,
            bfloat16: Vec::new(),
            float16: Vec::new(),
        })
    }

    /// Takes the next rows \[n, D'\] and their biases \[n\].
    pub(crate) fn push(&mut self, weights: &[f32], bias: &[f32]) -> Result<()> {
        let expected = bias.len().saturating_mul(self.cols);
        if weights.len() != expected {
            let received = weights.len();
            return Err(ArgumentError::WrongLength { name: WEIGHTS, expected, received }.into());
        }
        if bias.len() > self.num_rows - self.row {
            return Err(self.wrong_length(self.row + bias.len()).into());
        }
        let rows = self.block_rows();
        for (weights, bias) in weights.chunks(rows * self.cols).zip(bias.chunks(rows)) {
            self.check(weights, bias)?;
            self.bias.push(bias)?;
            self.write(weights, bias)?;
            self.row += bias.len();
        }
        Ok(())
    }

    /// Takes rows of another index, of these labels, and their biases. Codes that are all there is stay as they are.
    pub(crate) fn push_from(
        &mut self,
        rows: ExactRows<'_>,
        bias: &[f32],
        labels: impl Iterator<Item = usize>,
    ) -> Result<()> {
        let (mut block, mut biases) = (Vec::new(), Vec::new());
        for label in labels {
            if let ExactRows::Int8(coded) = rows {
                self.push_codes(coded.codes.row(label), coded.meta[label])?;
                continue;
            }
            block.resize(block.len() + self.cols, 0.0);
            let start = block.len() - self.cols;
            rows.copy_row(label, &mut block[start..]);
            biases.push(bias[label]);
            if biases.len() == self.block_rows() {
                self.push(&block, &biases)?;
                block.clear();
                biases.clear();
            }
        }
        self.push(&block, &biases)
    }

    /// Takes a row of codes, for an index that has nothing else.
    fn push_codes(&mut self, codes: &[i8], meta: RowMeta) -> Result<()> {
        let writer = self.codes.as_mut().expect("an index of codes has them");
        writer.codes.push(codes)?;
        writer.meta.push::<f32>(bytemuck::cast_slice(&[meta]))?;
        self.bias.push(&[meta.bias])?;
        self.row += 1;
        Ok(())
    }

    /// Adds the tensors to the store.
    pub(crate) fn finish(self, store: &mut Store) -> Result<()> {
        if self.row != self.num_rows {
            return Err(self.wrong_length(self.row).into());
        }
        store.add(self.bias)?;
        if let Some(exact) = self.exact {
            store.add(exact)?;
        }
        if let Some(codes) = self.codes {
            store.add(codes.codes)?;
            store.add(codes.meta)?;
        }
        Ok(())
    }

    fn block_rows(&self) -> usize {
        (BLOCK / self.cols).max(1)
    }

    fn wrong_length(&self, received: usize) -> ArgumentError {
        ArgumentError::WrongLength { name: BIAS, expected: self.num_rows, received }
    }

    /// Refuses what the dtype can't hold.
    fn check(&self, weights: &[f32], bias: &[f32]) -> Result<(), ArgumentError> {
        let limit = self.dtype.limit();
        if let Some(at) = position_beyond(weights, limit) {
            let (position, value) = (cell(self.row * self.cols + at, self.cols), weights[at]);
            let (name, dtype) = (WEIGHTS, self.dtype.name());
            return Err(if value.is_finite() {
                ArgumentError::TooLarge { name, position, value, dtype, limit }
            } else {
                ArgumentError::NonFinite { name, position, value }
            });
        }
        match position_of_non_finite(bias) {
            Some(at) => {
                let position = (self.row + at).to_string();
                Err(ArgumentError::NonFinite { name: BIAS, position, value: bias[at] })
            }
            None => Ok(()),
        }
    }

    fn write(&mut self, weights: &[f32], bias: &[f32]) -> Result<()> {
        // What is coded is what is stored, so that the codes' bounds hold for it.
        let stored = match self.dtype {
            Dtype::Float32 | Dtype::Int8 => ExactRows::Float32(MatrixView::new(weights, self.cols)),
            Dtype::BFloat16 => {
                self.bfloat16.resize(weights.len(), bf16::ZERO);
                self.bfloat16.convert_from_f32_slice(weights);
                ExactRows::BFloat16(MatrixView::new(&self.bfloat16, self.cols))
            }
            Dtype::Float16 => {
                self.float16.resize(weights.len(), f16::ZERO);
                self.float16.convert_from_f32_slice(weights);
                ExactRows::Float16(MatrixView::new(&self.float16, self.cols))
            }
        };
        let (exact, codes) = (&mut self.exact, &mut self.codes);
        join(
            || exact.as_mut().map_or(Ok(()), |tensor| push_rows(tensor, stored)),
            || codes.as_mut().map_or(Ok(()), |codes| codes.push(stored, bias)),
        )
    }
}

fn push_rows(tensor: &mut TensorWriter, rows: ExactRows<'_>) -> Result<()> {
    match rows {
        ExactRows::Float32(rows) => tensor.push(rows.values()),
        ExactRows::BFloat16(rows) => tensor.push(rows.values()),
        ExactRows::Float16(rows) => tensor.push(rows.values()),
        ExactRows::Int8(rows) => tensor.push(rows.codes.values()),
    }
}

/// Runs both, on two threads where the system gives another one. A panic in either becomes an error.
fn join<F>(one: impl FnOnce() -> Result<()>, mut other: F) -> Result<()>
where
    F: FnMut() -> Result<()> + Send,
{
    let mut other = || guard(&mut other).flatten();
    let mut result = None;
    let first = thread::scope(|scope| {
        let thread = thread::Builder::new().name("elias-build".into());
        // Where none starts there is no result, and the other one is run here afterwards.
        let _ = thread.spawn_scoped(scope, || result = Some(other()));
        guard(one).flatten()
    });
    first.and(result.unwrap_or_else(other))
}

/// Writes 8-bit codes of rows, and what is known of each row besides.
struct CodeWriter {
    codes: TensorWriter,
    meta: TensorWriter,
    /// A row as float32.
    row: Vec<f32>,
    /// Whether there are no exact rows beside the codes.
    all_there_is: bool,
    /// The codes of a block, and the rest of it.
    block: (Vec<i8>, Vec<RowMeta>),
}

impl CodeWriter {
    fn new(store: &Store, dtype: Dtype, num_rows: usize, cols: usize) -> Result<Self> {
        Ok(Self {
            all_there_is: dtype == Dtype::Int8,
            codes: store.tensor::<i8>(schema::LABEL_CODES, &[num_rows, cols])?,
            meta: store.tensor::<f32>(schema::LABEL_CODE_META, &[num_rows, RowMeta::LEN])?,
            row: vec![0.0; cols],
            block: (Vec::new(), Vec::new()),
        })
    }

    fn push(&mut self, rows: ExactRows<'_>, bias: &[f32]) -> Result<()> {
        let (codes, meta) = &mut self.block;
        codes.resize(bias.len() * self.row.len(), 0);
        meta.clear();
        for ((row, codes), &bias) in codes.chunks_mut(self.row.len()).enumerate().zip(bias) {
            rows.copy_row(row, &mut self.row);
            let row = quantize_row(&self.row, codes);
            // Codes that are the exact rows themselves leave nothing.
            let residual = if self.all_there_is { 0.0 } else { row.residual };
            meta.push(RowMeta { bias, residual, ..row });
        }
        self.codes.push(codes)?;
        self.meta.push::<f32>(bytemuck::cast_slice(meta))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn panics_of_either_thread_become_errors() {
        let panicked = |result| matches!(result, Err(Error::Panicked(message)) if message == "why");
        assert!(panicked(join(|| Ok(()), || panic!("why"))));
        assert!(panicked(join(|| panic!("why"), || Ok(()))));
        assert!(join(|| Ok(()), || Ok(())).is_ok());
    }
}
