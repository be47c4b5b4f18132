//! Rows of 8-bit codes in the order in which a scan over all of them reads them.
//!
//! A panel holds 16 rows. For each group of four columns it has the four codes of row 0, of row 1
//! and so on: 64 bytes, one vector register, which a dot-product instruction multiplies with the
//! same four of a query. What is missing from the last panel and the last group is zeros.

use crate::matrix::Tensor;
use crate::quantize::RowMeta;

/// Rows in a panel.
pub(crate) const PANEL_ROWS: usize = 16;
/// Columns in a group.
pub(crate) const GROUP: usize = 4;

/// Panels of codes of R rows and `cols` columns.
#[derive(Clone)]
pub(crate) struct Panels {
    /// \[⌈R/16⌉, ⌈D/4⌉, 16, 4\].
    pub(crate) codes: Tensor<i8>,
    /// \[R\].
    pub(crate) meta: Tensor<RowMeta>,
    cols: usize,
    /// Of `meta`, for whole panels; zeros for the rows that are missing from the last one.
    scales: Vec<f32>,
    biases: Vec<f32>,
    /// The largest of `meta`.
    max_residual: f32,
    max_norm: f32,
    max_bias: f32,
    deviations: Vec<f32>,
}

/// Borrowed [`Panels`].
#[derive(Clone, Copy)]
pub(crate) struct PanelsView<'a> {
    pub(crate) codes: &'a [i8],
    pub(crate) meta: &'a [RowMeta],
    pub(crate) cols: usize,
    pub(crate) scales: &'a [f32],
    pub(crate) biases: &'a [f32],
    /// At least ‖w − ŵ‖ of every row.
    pub(crate) max_residual: f32,
    /// At least ‖ŵ‖ of every row.
    pub(crate) max_norm: f32,
    /// At least |b| of every row.
    pub(crate) max_bias: f32,
    /// About the standard deviation of (w − ŵ) · e for a query e of length 1, for each row, in units of
    /// `max_residual`; see [`deviations`].
    pub(crate) deviations: &'a [f32],
}

impl Panels {
    /// Panels whose codes are as described above; `meta` has an element for each row.
    pub(crate) fn new(codes: Tensor<i8>, meta: Tensor<RowMeta>, cols: usize) -> Self {
        let rows = meta.as_slice();
        let padding = rows.len().next_multiple_of(PANEL_ROWS) - rows.len();
        let padded = |value: fn(&RowMeta) -> f32| -> Vec<f32> {
            rows.iter().map(value).chain(std::iter::repeat_n(0.0, padding)).collect()
        };
        let largest = |value: fn(&RowMeta) -> f32| rows.iter().map(value).fold(0.0, f32::max);
        Self {
            scales: padded(|row| row.scale),
            biases: padded(|row| row.bias),
            max_residual: largest(|row| row.residual),
            max_norm: largest(|row| row.norm),
            max_bias: largest(|row| row.bias.abs()),
            deviations: deviations(rows, cols),
            codes,
            meta,
            cols,
        }
    }

    pub(crate) fn view(&self) -> PanelsView<'_> {
        PanelsView {
            codes: self.codes.as_slice(),
            meta: self.meta.as_slice(),
            cols: self.cols,
            scales: &self.scales,
            biases: &self.biases,
            max_residual: self.max_residual,
            max_norm: self.max_norm,
            max_bias: self.max_bias,
            deviations: &self.deviations,
        }
    }
}

impl PanelsView<'_> {
    /// How many panels.
    pub(crate) fn len(&self) -> usize {
        self.meta.len().div_ceil(PANEL_ROWS)
    }

    /// Bytes of a panel.
    pub(crate) fn panel_len(&self) -> usize {
        panel_len(self.cols)
    }
}

/// How far the product of a row's residual and a query of length 1 is from 0, as a standard deviation
/// over rows, in units of the largest residual.
///
/// A number rounded to a multiple of `scale` is off by `scale`/√12 in the quadratic mean, or by more where
/// numbers are rounded evenly, and as often one way as the other; a product is never off by more than
/// the residual's length. Equal rows are off by the same, so the sum over m of them deviates by √m times what m different ones would. Their
/// biases aside, equal rows have equal [`RowMeta`], and others hardly ever do.
fn deviations(rows: &[RowMeta], cols: usize) -> Vec<f32> {
    let key = |row: &RowMeta| [row.scale, row.residual, row.norm].map(f32::to_bits);
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_unstable_by_key(|&row| key(&rows[row]));
    let largest = rows.iter().map(|row| row.residual).fold(f32::MIN_POSITIVE, f32::max);
    let mut deviations = vec![0.0; rows.len()];
    for equal in order.chunk_by(|&a, &b| key(&rows[a]) == key(&rows[b])) {
        for &row in equal {
            let RowMeta { scale, residual, .. } = rows[row];
            let of_numbers = (scale / 12.0_f32.sqrt()).max(residual / (cols as f32).sqrt());
            let one = residual.min(of_numbers) / largest;
            deviations[row] = one * (equal.len() as f32).sqrt();
        }
    }
    deviations
}

/// The shape of panels.
pub(crate) fn shape(rows: usize, cols: usize) -> [usize; 4] {
    [rows.div_ceil(PANEL_ROWS), cols.div_ceil(GROUP), PANEL_ROWS, GROUP]
}

/// Bytes of a panel of rows of `cols` codes.
pub(crate) fn panel_len(cols: usize) -> usize {
    cols.div_ceil(GROUP) * PANEL_ROWS * GROUP
}

/// Brings the codes of up to 16 rows of `cols` into the order of a `panel`.
pub(crate) fn pack_panel(codes: &[i8], cols: usize, panel: &mut [i8]) {
    panel.fill(0);
    for (r, row) in codes.chunks(cols).enumerate() {
        for (g, group) in row.chunks(GROUP).enumerate() {
            panel[(g * PANEL_ROWS + r) * GROUP..][..group.len()].copy_from_slice(group);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_stand_in_groups_of_four_row_by_row() {
        for (rows, cols) in [(1, 1), (16, 4), (3, 5), (15, 7), (16, 9)] {
            let codes: Vec<i8> = (0..rows * cols).map(|at| (at % 127 + 1) as i8).collect();
            let mut panel = vec![99; panel_len(cols)];
            pack_panel(&codes, cols, &mut panel);
            for (at, &code) in panel.iter().enumerate() {
                let (group, row, place) = (at / 64, at / GROUP % PANEL_ROWS, at % GROUP);
                let col = group * GROUP + place;
                let expected = if row < rows && col < cols { codes[row * cols + col] } else { 0 };
                assert_eq!(code, expected, "row {row}, column {col} of {rows} × {cols}");
            }
        }
    }
}
