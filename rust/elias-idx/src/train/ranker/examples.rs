//! The examples of each label: its own texts, and those whose shortlist holds it without their having it.

use super::super::{check, check_len};
use crate::error::{ArgumentError, Result};
use crate::matrix::MAX_IDS;
use crate::sparse::SparseRows;
use crate::storage::zeros;

/// What a ranker is trained on.
#[derive(Debug, Clone, Copy)]
pub struct RankerData<'a> {
    /// The texts' sparse features \[N, F\].
    pub features: SparseRows<'a>,
    /// The texts' labels and their relevances \[N, L\]; an entry of 0 counts as none.
    pub labels: SparseRows<'a>,
    /// Labels that the texts might have \[N, K\], −1 for none.
    pub shortlists: &'a [i64],
}

/// Texts by label.
pub(super) struct Examples {
    /// \[L + 1\].
    offsets: Vec<u64>,
    texts: Vec<u32>,
    /// Relevance of the label to the text, 0 where it doesn't have it.
    relevances: Vec<f32>,
}

/// The examples of one label, by text.
#[derive(Clone, Copy)]
pub(super) struct LabelExamples<'a> {
    pub(super) texts: &'a [u32],
    pub(super) relevances: &'a [f32],
}

impl RankerData<'_> {
    pub(super) fn check(&self) -> Result<()> {
        // Of a column that occurs twice in a row, the solver would take too large steps.
        self.features.check_sorted("features")?;
        self.labels.check("labels")?;
        let (num_texts, num_labels) = (self.features.len(), self.labels.num_columns);
        for (name, received) in [("texts", num_texts), ("features", self.features.num_columns)] {
            if received > MAX_IDS {
                return Err(ArgumentError::TooMany { name, received }.into());
            }
        }
        check_len("labels' rows", self.labels.len(), num_texts)?;
        let whole = self.shortlists.len().is_multiple_of(num_texts.max(1));
        check(whole, || "shortlists must have as many rows as features".into())?;
        let in_range = |&label: &i64| label >= -1 && label < num_labels as i64;
        check(self.shortlists.iter().all(in_range), || {
            format!("shortlists must hold labels below {num_labels}, and -1 for none")
        })?;
        check(self.labels.values.iter().all(|&relevance| relevance >= 0.0), || {
            "relevances must not be negative".into()
        })
    }

    /// Calls `visit(label, relevance)` for each label that a text has or might have, each once.
    fn visit(
        &self,
        text: usize,
        scratch: &mut Vec<(usize, f32)>,
        mut visit: impl FnMut(usize, f32),
    ) {
        let width = self.shortlists.len() / self.features.len();
        let shortlist = &self.shortlists[text * width..][..width];
        scratch.clear();
        scratch.extend(self.labels.row(text).filter(|own| own.1 > 0.0));
        scratch.extend(
            shortlist.iter().filter_map(|&label| Some((usize::try_from(label).ok()?, 0.0))),
        );
        // Stable: what a text has comes first of the same labels.
        scratch.sort_by_key(|own| own.0);
        scratch.dedup_by_key(|own| own.0);
        scratch.iter().for_each(|&(label, relevance)| visit(label, relevance));
    }
}

impl Examples {
    pub(super) fn new(data: &RankerData<'_>) -> Result<Self> {
        let (num_texts, what) = (data.features.len(), "the ranker's examples");
        let mut scratch = Vec::new();
        let mut offsets: Vec<u64> = zeros(what, data.labels.num_columns + 1)?;
        for text in 0..num_texts {
            data.visit(text, &mut scratch, |label, _| offsets[label + 1] += 1);
        }
        let mut sum = 0;
        for length in &mut offsets[1..] {
            sum += *length;
            *length = sum;
        }
        let mut ends = offsets.clone();
        let (mut texts, mut relevances) = (zeros(what, sum as usize)?, zeros(what, sum as usize)?);
        for text in 0..num_texts {
            data.visit(text, &mut scratch, |label, relevance| {
                let place = ends[label] as usize;
                (texts[place], relevances[place]) = (text as u32, relevance);
                ends[label] += 1;
            });
        }
        Ok(Self { offsets, texts, relevances })
    }

    /// L.
    pub(super) fn num_labels(&self) -> usize {
        self.offsets.len() - 1
    }

    pub(super) fn of(&self, label: usize) -> LabelExamples<'_> {
        let range = self.offsets[label] as usize..self.offsets[label + 1] as usize;
        LabelExamples { texts: &self.texts[range.clone()], relevances: &self.relevances[range] }
    }
}

impl LabelExamples<'_> {
    /// The texts that have the label with its relevance, and those that don't with 1.
    pub(super) fn by_class(&self) -> [Vec<(u32, f32)>; 2] {
        let mut classes = [Vec::new(), Vec::new()];
        for (&text, &relevance) in self.texts.iter().zip(self.relevances) {
            let weight = if relevance > 0.0 { relevance } else { 1.0 };
            classes[usize::from(relevance == 0.0)].push((text, weight));
        }
        classes
    }
}
