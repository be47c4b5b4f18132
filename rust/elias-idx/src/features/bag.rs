//! Embeddings of sparse rows: a weighted sum of each feature's embedding, layer norm, a fixed length.

use crate::arguments::check_len;
use crate::error::{ArgumentError, Result};
use crate::kernels::{Kernels, prefetch};
use crate::matrix::MatrixView;
use crate::sparse::SparseRows;
use crate::threads::{self, Hook, Loops};

/// Embeddings that are fetched ahead of their use.
const ROWS_AHEAD: usize = 6;
/// Numbers that are summed side by side.
const LANES: usize = 8;

/// What makes an embedding: length · LN(Σ x_f · v_f) / ‖LN(...)‖.
#[derive(Debug, Clone, Copy)]
pub struct BagLayer<'a> {
    /// v, \[F, D\].
    pub embeddings: &'a [f32],
    /// Of the layer norm, \[D\].
    pub gain: &'a [f32],
    /// Of the layer norm, \[D\].
    pub bias: &'a [f32],
    /// What the layer norm adds to variances.
    pub epsilon: f64,
    /// The norm of every embedding.
    pub length: f64,
}

impl BagLayer<'_> {
    fn check(&self, rows: &SparseRows<'_>, out: &[f32]) -> Result<()> {
        rows.check("features")?;
        let dim = self.gain.len();
        if dim == 0 {
            return Err(ArgumentError::Zero { name: "the size of embeddings" }.into());
        }
        check_len("embeddings", self.embeddings.len(), rows.num_columns * dim)?;
        check_len("bias", self.bias.len(), dim)?;
        Ok(check_len("out", out.len(), rows.len() * dim)?)
    }

    /// Makes an embedding of a sum. All sums are in float64, in the same order on all machines.
    fn normalise(&self, sum: &mut [f32]) {
        let size = sum.len() as f64;
        let mean = lane_sum(sum, f64::from) / size;
        let variance = lane_sum(sum, |value| (f64::from(value) - mean).powi(2)) / size;
        let deviation = (variance + self.epsilon).sqrt();
        for ((value, &gain), &bias) in sum.iter_mut().zip(self.gain).zip(self.bias) {
            *value =
                ((f64::from(*value) - mean) / deviation * f64::from(gain) + f64::from(bias)) as f32;
        }
        let norm = lane_sum(sum, |value| f64::from(value).powi(2)).sqrt();
        let factor = (self.length / norm.max(1e-12)) as f32;
        sum.iter_mut().for_each(|value| *value *= factor);
    }
}

/// The embeddings of rows \[N, F\], written to `out` \[N, D\]; their bits don't depend on the number of threads.
///
/// # Errors
/// Arrays that don't fit together; those of a call on threads.
pub fn embed_bags(
    rows: SparseRows<'_>,
    layer: BagLayer<'_>,
    out: &mut [f32],
    num_threads: usize,
    hook: Hook<'_>,
) -> Result<()> {
    layer.check(&rows, out)?;
    let kernels = Kernels::detect()?;
    let dim = layer.gain.len();
    let table = MatrixView::new(layer.embeddings, dim);
    threads::lead(num_threads.min(rows.len()), hook, |team| {
        team.for_each_part(out, dim, &|row, sum| {
            sum.fill(0.0);
            let mut ahead = rows.row(row).skip(ROWS_AHEAD);
            for (feature, weight) in rows.row(row) {
                if let Some((next, _)) = ahead.next() {
                    prefetch(table.row(next).as_ptr().cast(), size_of_val(sum));
                }
                kernels.add_scaled(weight, table.row(feature), sum);
            }
            layer.normalise(sum);
        })
    })
}

fn lane_sum(values: &[f32], term: impl Fn(f32) -> f64) -> f64 {
    let mut sums = [0.0; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for (sum, &value) in sums.iter_mut().zip(chunk) {
            *sum += term(value);
        }
    }
    for (sum, &value) in sums.iter_mut().zip(rest) {
        *sum += term(value);
    }
    sums.iter().sum()
}
