//! Texts as rows of weighted n-grams.

use std::ops::Range;

use super::classes::CharClasses;
use super::ngrams::Occurrences;
use super::texts::Texts;
use super::words::Words;
use super::{FittedBlock, TextFeatures};
use crate::error::Result;
use crate::threads::{self, Hook, Loops};

/// Texts that a thread takes at once.
const TEXTS_AT_ONCE: usize = 32;

/// The features of texts, as CSR \[N, F\]; the columns of each row ascend.
#[derive(Debug, Clone, PartialEq)]
pub struct FeatureRows {
    /// Where each row starts and ends, \[N + 1\].
    pub offsets: Vec<i64>,
    /// The feature of each entry.
    pub columns: Vec<i32>,
    /// The weight of each entry.
    pub values: Vec<f32>,
}

impl Default for FeatureRows {
    fn default() -> Self {
        Self { offsets: vec![0], columns: Vec::new(), values: Vec::new() }
    }
}

impl FeatureRows {
    fn push(&mut self, other: &Self) {
        let before = self.columns.len() as i64;
        self.offsets.extend(other.offsets[1..].iter().map(|offset| before + offset));
        self.columns.extend_from_slice(&other.columns);
        self.values.extend_from_slice(&other.values);
    }
}

impl TextFeatures {
    /// Adds the rows of some texts to `rows`; n-grams that aren't known are left out.
    ///
    /// # Errors
    /// Those of a call on threads.
    pub fn transform(
        &self,
        texts: &Texts,
        rows: &mut FeatureRows,
        num_threads: usize,
        hook: Hook<'_>,
    ) -> Result<()> {
        let mut parts = vec![FeatureRows::default(); texts.len().div_ceil(TEXTS_AT_ONCE)];
        threads::lead(num_threads.min(parts.len()), hook, |team| {
            team.for_each_part(&mut parts, 1, &|part, own| {
                let start = part * TEXTS_AT_ONCE;
                let range = start..texts.len().min(start + TEXTS_AT_ONCE);
                self.transform_part(texts, range, &mut own[0]);
            })
        })?;
        let total: usize = parts.iter().map(|part| part.columns.len()).sum();
        rows.columns.reserve(total);
        rows.values.reserve(total);
        parts.iter().for_each(|part| rows.push(part));
        Ok(())
    }

    fn transform_part(&self, texts: &Texts, range: Range<usize>, rows: &mut FeatureRows) {
        let (classes, mut scratch) = (CharClasses::get(), Scratch::default());
        for text in range {
            let start = rows.values.len();
            scratch.words.read(texts.get(text), classes);
            self.word_ids(&scratch.words, &mut scratch.word_ids);
            let mut first_column = 0;
            for block in &self.blocks {
                scratch.add_block(block, first_column, rows);
                first_column += block.idf.len();
            }
            scale(&mut rows.values[start..], 1.0);
            rows.offsets.push(rows.values.len() as i64);
        }
    }
}

/// Memory for one text at a time.
#[derive(Default)]
pub(crate) struct Scratch {
    pub(crate) words: Words,
    pub(crate) word_ids: Vec<u32>,
    pub(crate) symbols: Vec<u32>,
    pub(crate) occurrences: Occurrences,
    features: Vec<u32>,
}

impl Scratch {
    /// Adds a block's n-grams to the row of the text whose words these are.
    fn add_block(&mut self, block: &FittedBlock, first_column: usize, rows: &mut FeatureRows) {
        block.read(&self.words, &self.word_ids, &mut self.symbols);
        block.ngrams.find(&self.symbols, &mut self.occurrences, &mut self.features);
        self.features.sort_unstable();
        let start = rows.values.len();
        for same in self.features.chunk_by(|one, next| one == next) {
            let feature = same[0] as usize;
            rows.columns.push((first_column + feature) as i32);
            rows.values.push(tf(same.len()) * block.idf[feature]);
        }
        scale(&mut rows.values[start..], block.block.weight);
    }
}

fn tf(count: usize) -> f32 {
    if count == 1 { 1.0 } else { 1.0 + (count as f64).ln() as f32 }
}

/// Gives a row this length; zeros stay so.
fn scale(values: &mut [f32], length: f64) {
    let squares: f64 = values.iter().map(|&value| f64::from(value) * f64::from(value)).sum();
    if squares > 0.0 {
        let factor = (length / squares.sqrt()) as f32;
        values.iter_mut().for_each(|value| *value *= factor);
    }
}
