//! The sparse features of one query, to be multiplied with many sparse rows.

use super::places::Places;
use super::sparse_matrix::SparseMatrix;
use crate::sparse::SparseRows;

/// A query's features. Few features of a row are among them: a small table of bits, which stays in the nearest cache,
/// rules nearly all others out.
pub(crate) struct QueryFeatures {
    /// A bit for all features of the same remainder.
    filter: [u64; FILTER_WORDS],
    columns: Vec<u32>,
    values: Vec<f32>,
    places: Places,
}

/// Of 64 bits each.
const FILTER_WORDS: usize = 512;
/// Features of a row that pass the filter are collected from so many at once: their places fit a byte.
const CHUNK: usize = 256;
/// Rows whose memory is asked for ahead of their use.
const AHEAD: usize = 2;

impl Default for QueryFeatures {
    fn default() -> Self {
        let (columns, values, places) = Default::default();
        Self { filter: [0; FILTER_WORDS], columns, values, places }
    }
}

impl QueryFeatures {
    /// Takes the features of the next query, a checked row.
    pub(crate) fn set(&mut self, rows: &SparseRows<'_>, query: usize) {
        for &column in &self.columns {
            self.filter[word(column)] = 0;
        }
        self.columns.clear();
        self.values.clear();
        for (column, value) in rows.row(query) {
            let column = column as u32;
            self.filter[word(column)] |= 1 << (column % 64);
            self.columns.push(column);
            self.values.push(value);
        }
        self.places.set(&self.columns);
    }

    /// The products with the rows of these numbers.
    pub(crate) fn dots(&self, matrix: &SparseMatrix, rows: &[u32], out: &mut [f32]) {
        rows.iter().take(AHEAD).for_each(|&row| matrix.prefetch(row as usize));
        for (at, (&row, product)) in rows.iter().zip(out).enumerate() {
            if let Some(&next) = rows.get(at + AHEAD) {
                matrix.prefetch(next as usize);
            }
            *product = self.dot(matrix.row(row as usize));
        }
    }

    fn dot(&self, (columns, values): (&[u32], &[f32])) -> f32 {
        let mut sum = 0.0;
        for (columns, values) in columns.chunks(CHUNK).zip(values.chunks(CHUNK)) {
            // Without a branch for each feature: nothing foresees which ones pass.
            let (mut passing, mut count) = ([0_u8; CHUNK], 0);
            for (at, &column) in columns.iter().enumerate() {
                passing[count % CHUNK] = at as u8;
                count += (self.filter[word(column)] >> (column % 64)) as usize & 1;
            }
            for &at in &passing[..count] {
                if let Some(place) = self.places.find(&self.columns, columns[at as usize]) {
                    sum += self.values[place] * values[at as usize];
                }
            }
        }
        sum
    }
}

fn word(column: u32) -> usize {
    (column / 64) as usize % FILTER_WORDS
}
