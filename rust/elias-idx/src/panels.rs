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
    /// The quadratic mean of the residuals.
    mean_residual: f32,
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
    /// The quadratic mean of ‖w − ŵ‖ over the rows.
    pub(crate) mean_residual: f32,
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
            mean_residual: {
                let squares: f64 = rows.iter().map(|row| f64::from(row.residual).powi(2)).sum();
                (squares / rows.len() as f64).sqrt() as f32
            },
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
            mean_residual: self.mean_residual,
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
