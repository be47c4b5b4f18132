//! The clusters' 8-bit codes for a new index.

use crate::error::Result;
use crate::format::schema;
use crate::format::write::Store;
use crate::matrix::MatrixView;
use crate::panels::{self, PANEL_ROWS, pack_panel, panel_len};
use crate::quantize::{RowMeta, quantize_evenly};

/// Writes the screen of cluster classifiers \[C, D\], panel by panel.
pub(crate) fn write_screen(store: &mut Store, weights: MatrixView<'_>, bias: &[f32]) -> Result<()> {
    let (rows, cols) = (weights.rows(), weights.cols());
    let mut panels = store.tensor::<i8>(schema::CLUSTER_PANELS, &panels::shape(rows, cols))?;
    let mut meta = store.tensor::<f32>(schema::CLUSTER_PANEL_META, &[rows, RowMeta::LEN])?;
    let mut panel = vec![0; panel_len(cols)];
    let mut codes = vec![0; PANEL_ROWS * cols];
    for (weights, bias) in weights.values().chunks(PANEL_ROWS * cols).zip(bias.chunks(PANEL_ROWS)) {
        for ((row, codes), &bias) in weights.chunks(cols).zip(codes.chunks_mut(cols)).zip(bias) {
            let row = RowMeta { bias, ..quantize_evenly(row, codes) };
            meta.push::<f32>(bytemuck::cast_slice(&[row]))?;
        }
        pack_panel(&codes[..weights.len()], cols, &mut panel);
        panels.push(&panel)?;
    }
    store.add(panels)?;
    store.add(meta)
}
