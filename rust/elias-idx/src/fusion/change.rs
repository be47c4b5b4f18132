//! What is known of labels beside the dense model, when labels leave an index or join it.

use super::neighbours::invert;
use super::sparse_matrix::{NewRow, SparseMatrix, put_made};
use super::{Fusion, Neighbours};
use crate::arguments::check_len;
use crate::build::{Change, NewEvidence, NewLabels};
use crate::error::{ArgumentError, Result};
use crate::format::schema::{self, Element, SparseNames};
use crate::format::write::Store;
use crate::index::Index;
use crate::matrix::{MAX_IDS, check_finite};
use crate::sparse::SparseRows;

/// The ranker's bias of a label without texts.
const NO_TEXTS: f32 = -1.0;

impl Index {
    /// Checks what is said of new labels against what the index has.
    pub(crate) fn check_new_evidence(&self, new: &NewLabels<'_>) -> Result<(), ArgumentError> {
        let NewEvidence { label_counts, ranker, label_texts, cooccurrence, neighbours } =
            &new.evidence;
        for (name, given, has) in [
            ("label_counts", label_counts.is_some(), self.fusion.is_some()),
            ("ranker", ranker.is_some(), self.has_ranker()),
            ("label_texts", label_texts.is_some(), self.has_label_texts()),
            ("cooccurrence", cooccurrence.is_some(), self.has_cooccurrence()),
            ("neighbours", neighbours.is_some(), self.has_neighbours()),
        ] {
            if given && !has {
                let reason = "the index has no such part: leave it out";
                return Err(ArgumentError::BadMatrix { name, reason });
            }
        }
        let Some(fusion) = &self.fusion else { return Ok(()) };
        let (num_old, num_new) = (self.num_labels(), new.bias.len());
        let (num_labels, num_features) = (num_old + num_new, fusion.sizes.num_features);
        if let Some(counts) = label_counts {
            check_len("label_counts", counts.len(), num_new)?;
        }
        if let Some((rows, bias)) = ranker {
            rows.check_shape("ranker", (num_new, num_features))?;
            check_len("the ranker's bias", bias.len(), num_new)?;
            check_finite("the ranker's bias", bias, None)?;
        }
        if let Some(rows) = label_texts {
            rows.check_shape("label_texts", (num_new, num_features))?;
        }
        if let Some(rows) = cooccurrence {
            check_shares(rows, num_old, num_labels)?;
        }
        if let Some((texts, labels)) = neighbours {
            texts.check_shape("the neighbours' features", (texts.len(), num_features))?;
            labels.check_shape("the neighbours' labels", (texts.len(), num_labels))?;
            let received = texts.len() + fusion.neighbours.as_ref().map_or(0, |old| old.num_texts);
            if received > MAX_IDS {
                return Err(ArgumentError::TooMany { name: "texts", received });
            }
        }
        Ok(())
    }
}

/// Checks that shares are between no two labels that there were before.
fn check_shares(
    rows: &SparseRows<'_>,
    num_old: usize,
    num_labels: usize,
) -> Result<(), ArgumentError> {
    rows.check_shape("cooccurrence", (num_labels, num_labels))?;
    let is_new = |row| rows.row(row).next().is_none_or(|(first, _)| first >= num_old);
    if (0..num_old).all(is_new) {
        return Ok(());
    }
    let reason = "a share is that of two labels which the index has already";
    Err(ArgumentError::BadMatrix { name: "cooccurrence", reason })
}

impl Fusion {
    /// Writes the parts of evidence that depend on labels, which are checked.
    pub(crate) fn write_changed(&self, change: &Change<'_>, store: &mut Store) -> Result<()> {
        let evidence = change.new.map_or_else(NewEvidence::default, |new| new.evidence);
        let counts = self.label_counts.as_slice();
        put_values(store, schema::LABEL_COUNTS, change, (counts, evidence.label_counts, 0))?;
        if let Some(ranker) = &self.ranker {
            let (rows, bias) = evidence.ranker.unzip();
            put_label_rows(store, schema::RANKER, change, &ranker.rows, rows)?;
            let old = ranker.bias.as_slice();
            put_values(store, schema::RANKER_BIAS, change, (old, bias, NO_TEXTS))?;
        }
        if let Some(rows) = &self.label_texts {
            put_label_rows(store, schema::LABEL_TEXTS, change, rows, evidence.label_texts)?;
        }
        if let Some(rows) = &self.cooccurrence {
            put_shares(store, change, rows, evidence.cooccurrence)?;
        }
        if let Some(neighbours) = &self.neighbours {
            if let Some((texts, _)) = &evidence.neighbours {
                neighbours.put_texts(store, texts)?;
            }
            let labels = evidence.neighbours.map(|(_, labels)| labels);
            neighbours.put_labels(store, change, labels)?;
        }
        Ok(())
    }
}

impl Neighbours {
    /// Writes the texts by feature, the new ones after the old ones. A feature that no old text is listed for may have
    /// been left out as too common; listed for new texts alone, it would bring these nearer than others.
    fn put_texts(&self, store: &mut Store, new: &SparseRows<'_>) -> Result<()> {
        let inverted = invert(new, usize::MAX)?;
        let first = self.num_texts as u32;
        put_made(store, names(schema::NEIGHBOURS), new.num_columns, |feature, row| {
            let (texts, values) = self.texts.row(feature);
            if texts.is_empty() {
                return;
            }
            let range = inverted.offsets[feature] as usize..inverted.offsets[feature + 1] as usize;
            row.columns.extend(texts);
            row.columns.extend(inverted.texts[range.clone()].iter().map(|text| first + text));
            row.values.extend(values);
            row.values.extend(&inverted.values[range]);
        })
    }

    /// Writes the texts' labels.
    fn put_labels(
        &self,
        store: &mut Store,
        change: &Change<'_>,
        new: Option<SparseRows<'_>>,
    ) -> Result<()> {
        let names = (schema::NEIGHBOUR_LABEL_OFFSETS, schema::NEIGHBOUR_LABELS, None);
        let labels = self.labels();
        let num_texts = self.num_texts + new.map_or(0, |new| new.len());
        put_made(store, names, num_texts, |text, row| match text.checked_sub(self.num_texts) {
            None => {
                let range = labels.offsets[text] as usize..labels.offsets[text + 1] as usize;
                row.columns
                    .extend(labels.labels[range].iter().filter_map(|&label| change.id(label)));
            }
            Some(text) => extend(row, new.as_ref(), text),
        })
    }
}

/// The names of a sparse matrix with values.
fn names(names: SparseNames) -> (&'static str, &'static str, Option<&'static str>) {
    (names.offsets, names.columns, Some(names.values))
}

/// Appends a row, if there are rows.
fn extend(row: &mut NewRow, rows: Option<&SparseRows<'_>>, number: usize) {
    for (column, value) in rows.into_iter().flat_map(|rows| rows.row(number)) {
        row.columns.push(column as u32);
        row.values.push(value);
    }
}

/// Writes a value of each label; new ones that aren't given have `otherwise`.
fn put_values<T: Element>(
    store: &mut Store,
    name: &'static str,
    change: &Change<'_>,
    (old, new, otherwise): (&[T], Option<&[T]>, T),
) -> Result<()> {
    let mut values: Vec<T> = change.kept.iter().map(|&label| old[label as usize]).collect();
    match new {
        Some(new) => values.extend(new),
        None => values.resize(change.num_labels(), otherwise),
    }
    store.put(name, &[values.len()], &values)
}

/// Writes a row of features of each label.
fn put_label_rows(
    store: &mut Store,
    matrix: SparseNames,
    change: &Change<'_>,
    old: &SparseMatrix,
    new: Option<SparseRows<'_>>,
) -> Result<()> {
    put_made(store, names(matrix), change.num_labels(), |label, row| match change.kept.get(label) {
        Some(&label) => {
            let (columns, values) = old.row(label as usize);
            row.columns.extend(columns);
            row.values.extend(values);
        }
        None => extend(row, new.as_ref(), label - change.kept.len()),
    })
}

/// Writes which labels go together.
fn put_shares(
    store: &mut Store,
    change: &Change<'_>,
    old: &SparseMatrix,
    new: Option<SparseRows<'_>>,
) -> Result<()> {
    put_made(store, names(schema::COOCCURRENCE), change.num_labels(), |label, row| {
        if let Some(&label) = change.kept.get(label) {
            let (columns, values) = old.row(label as usize);
            for (&column, &value) in columns.iter().zip(values) {
                if let Some(id) = change.id(column) {
                    row.columns.push(id);
                    row.values.push(value);
                }
            }
        }
        // New labels come after all others.
        extend(row, new.as_ref(), label);
    })
}
