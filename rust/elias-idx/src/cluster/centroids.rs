//! The centroid of each label: the normalised sum of the features of its texts.

use std::sync::Mutex;

use half::bf16;

use super::{LabelFeatures, Progress};
use crate::error::Result;
use crate::threads::{self, Hook, Loops};

/// What a label's centroid costs beside a label's part in a split, for the progress.
pub(super) const WORK_PER_LABEL: usize = 6;

const BLOCK_LABELS: usize = 1024;

/// A value of a sparse row and its column.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Entry {
    pub(super) column: u32,
    pub(super) value: f32,
}

/// The centroids of all labels: a sparse part and a dense one, each of unit length, or of length 0 where the label's
/// texts have no features.
pub(super) struct Centroids {
    blocks: Vec<Block>,
    num_labels: usize,
    /// F, the columns of the sparse part; 0 without it.
    pub(super) num_columns: usize,
    /// D; 0 without a dense part.
    pub(super) dim: usize,
}

/// The centroids of some consecutive labels.
#[derive(Default)]
struct Block {
    ends: Vec<usize>,
    entries: Vec<Entry>,
    /// In half the memory, for at millions of labels it counts; the directions of sums of them are as good.
    dense: Vec<bf16>,
}

/// Memory of one thread; all zeros between two labels.
struct Sums {
    sparse: Vec<f32>,
    touched: Vec<u32>,
    dense: Vec<f32>,
    kept: Vec<Entry>,
}

impl Centroids {
    pub(super) fn new(
        features: &LabelFeatures<'_>,
        max_entries: usize,
        num_threads: usize,
        progress: &Progress,
        hook: Hook<'_>,
    ) -> Result<Self> {
        let num_labels = features.texts.len();
        let num_columns = features.sparse.map_or(0, |sparse| sparse.num_columns);
        let dim = features.dim();
        let mut blocks: Vec<Block> = Vec::new();
        blocks.resize_with(num_labels.div_ceil(BLOCK_LABELS), Block::default);
        let idle: Mutex<Vec<Sums>> = Mutex::default();
        let fill = |number: usize, block: &mut [Block]| {
            let taken = idle.lock().expect("no thread panics with it").pop();
            let mut sums = taken.unwrap_or_else(|| Sums::new(num_columns, dim));
            let first = number * BLOCK_LABELS;
            for label in first..num_labels.min(first + BLOCK_LABELS) {
                sums.add_texts(features, label);
                sums.drain_into(&mut block[0], max_entries);
                progress.add(WORK_PER_LABEL);
            }
            idle.lock().expect("no thread panics with it").push(sums);
        };
        threads::lead(num_threads, hook, |team| team.for_each_part(&mut blocks, 1, &fill))?;
        Ok(Self { blocks, num_labels, num_columns, dim })
    }

    /// L.
    pub(super) fn len(&self) -> usize {
        self.num_labels
    }

    /// The sparse part of a label's centroid, by column.
    #[inline]
    pub(super) fn sparse(&self, label: u32) -> &[Entry] {
        let (block, at) = self.block(label);
        let start = if at == 0 { 0 } else { block.ends[at - 1] };
        &block.entries[start..block.ends[at]]
    }

    /// The dense part of a label's centroid, \[D\].
    #[inline]
    pub(super) fn dense(&self, label: u32) -> &[bf16] {
        let (block, at) = self.block(label);
        &block.dense[at * self.dim..][..self.dim]
    }

    fn block(&self, label: u32) -> (&Block, usize) {
        (&self.blocks[label as usize / BLOCK_LABELS], label as usize % BLOCK_LABELS)
    }
}

impl Sums {
    fn new(num_columns: usize, dim: usize) -> Self {
        let (touched, kept) = (Vec::new(), Vec::new());
        Self { sparse: vec![0.0; num_columns], touched, dense: vec![0.0; dim], kept }
    }

    fn add_texts(&mut self, features: &LabelFeatures<'_>, label: usize) {
        for (text, weight) in features.texts.row(label) {
            for (column, value) in features.sparse.iter().flat_map(|sparse| sparse.row(text)) {
                let sum = &mut self.sparse[column];
                // A sum that comes back to 0 is noted twice, which does no harm.
                if *sum == 0.0 {
                    self.touched.push(column as u32);
                }
                *sum += weight * value;
            }
            let row = features.dense.map_or(&[][..], |dense| &dense[text * self.dense.len()..]);
            for (sum, value) in self.dense.iter_mut().zip(row) {
                *sum += weight * value;
            }
        }
    }

    /// Appends what was added up to a block, and starts over.
    fn drain_into(&mut self, block: &mut Block, max_entries: usize) {
        self.kept.clear();
        for column in self.touched.drain(..) {
            let value = std::mem::take(&mut self.sparse[column as usize]);
            if value != 0.0 {
                self.kept.push(Entry { column, value });
            }
        }
        if self.kept.len() > max_entries {
            let by_size = |entry: &Entry| (-entry.value.abs(), entry.column);
            self.kept.select_nth_unstable_by(max_entries, |a, b| {
                let (a, b) = (by_size(a), by_size(b));
                a.0.total_cmp(&b.0).then(a.1.cmp(&b.1))
            });
            self.kept.truncate(max_entries);
        }
        self.kept.sort_unstable_by_key(|entry| entry.column);
        let scale = 1.0 / length(self.kept.iter().map(|entry| entry.value));
        block.entries.extend(
            self.kept.iter().map(|&Entry { column, value }| Entry { column, value: value * scale }),
        );
        block.ends.push(block.entries.len());

        let scale = 1.0 / length(self.dense.iter().copied());
        block.dense.extend(self.dense.iter().map(|&value| bf16::from_f32(value * scale)));
        self.dense.fill(0.0);
    }
}

/// The length of a vector, 1 for zeros.
fn length(values: impl Iterator<Item = f32>) -> f32 {
    let squares: f64 = values.map(|value| f64::from(value).powi(2)).sum();
    if squares > 0.0 { squares.sqrt() as f32 } else { 1.0 }
}
