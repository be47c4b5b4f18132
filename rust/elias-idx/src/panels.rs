//! Rows of 8-bit codes in the order in which a scan over all of them reads them.
//!
//! A panel holds 16 rows. For each group of four columns it has the four codes of row 0, of row 1
//! and so on: 64 bytes, one vector register, which a dot-product instruction multiplies with the
//! same four of a query. What is missing from the last panel and the last group is zeros.

use crate::error::Result;
use crate::matrix::{MatrixView, Tensor};
use crate::quantize::RowMeta;

/// Rows in a panel.
pub(crate) const PANEL_ROWS: usize = 16;
/// Columns in a group.
pub(crate) const GROUP: usize = 4;

/// Panels of codes of `rows` rows and `cols` columns.
#[derive(Clone)]
pub(crate) struct Panels {
    /// \[⌈R/16⌉, ⌈D/4⌉, 16, 4\].
    pub(crate) codes: Tensor<i8>,
    /// \[R\].
    pub(crate) meta: Tensor<RowMeta>,
    pub(crate) cols: usize,
}

/// Borrowed [`Panels`].
#[derive(Clone, Copy)]
pub(crate) struct PanelsView<'a> {
    pub(crate) codes: &'a [i8],
    pub(crate) meta: &'a [RowMeta],
    pub(crate) cols: usize,
}

impl Panels {
    /// Brings rows of codes into panels.
    pub(crate) fn pack(codes: MatrixView<'_, i8>, meta: Tensor<RowMeta>) -> Result<Self> {
        let groups = codes.cols().div_ceil(GROUP);
        let mut packed = vec![0; codes.rows().div_ceil(PANEL_ROWS) * groups * PANEL_ROWS * GROUP];
        let panels = packed.chunks_mut(groups * PANEL_ROWS * GROUP);
        for (panel, rows) in panels.zip(codes.values().chunks(PANEL_ROWS * codes.cols())) {
            for (r, row) in rows.chunks(codes.cols()).enumerate() {
                for (g, group) in row.chunks(GROUP).enumerate() {
                    panel[(g * PANEL_ROWS + r) * GROUP..][..group.len()].copy_from_slice(group);
                }
            }
        }
        Ok(Self { codes: Tensor::copy_of(&packed)?, meta, cols: codes.cols() })
    }

    pub(crate) fn view(&self) -> PanelsView<'_> {
        PanelsView { codes: self.codes.as_slice(), meta: self.meta.as_slice(), cols: self.cols }
    }
}

impl PanelsView<'_> {
    /// Bytes of a panel.
    pub(crate) fn panel_len(&self) -> usize {
        self.cols.div_ceil(GROUP) * PANEL_ROWS * GROUP
    }
}
