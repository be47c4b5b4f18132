//! Giving an index what searches with sparse features take.

use super::neighbours::invert;
use super::sparse_matrix::{Pattern, SparseMatrix};
use super::trees::{self, FusionTrees, Trees};
use super::{EVIDENCE, NUM_COLUMNS};
use crate::arguments::{check_len, check_positive};
use crate::build::finish;
use crate::error::{ArgumentError, Result};
use crate::format::manifest::FusionSizes;
use crate::format::schema;
use crate::format::write::{Destination, Store};
use crate::index::Index;
use crate::matrix::{MAX_IDS, check_finite};
use crate::sparse::SparseRows;

/// Features of more texts than this share (and than [`FEW_TEXTS`]) say little of which texts are near: their lists,
/// which would take most of the time, are left out.
const COMMON: f64 = 0.05;
const FEW_TEXTS: usize = 1000;

/// What evidence is computed from, beside the dense model.
#[derive(Debug, Clone, Copy)]
pub struct EvidenceParts<'a> {
    /// F, at least 1.
    pub num_features: usize,
    /// R: labels of the dense search that are candidates, and at most as many of neighbours; at least 1.
    pub num_candidates: usize,
    /// Training texts that vote, at least 1.
    pub num_neighbours: usize,
    /// Training texts that have each label \[L\].
    pub label_counts: &'a [u32],
    /// A sparse linear classifier for each label: weights \[L, F\] and biases \[L\].
    pub ranker: Option<(SparseRows<'a>, &'a [f32])>,
    /// The features of each label's own text \[L, F\], of unit length.
    pub label_texts: Option<SparseRows<'a>>,
    /// Row m has the share of the texts with label m that have label l, too, for labels l ≠ m \[L, L\].
    pub cooccurrence: Option<SparseRows<'a>>,
    /// The features of the training texts \[N, F\], of unit length, and their labels \[N, L\].
    pub neighbours: Option<(SparseRows<'a>, SparseRows<'a>)>,
}

/// Searching with sparse features.
impl Index {
    /// The same index with what evidence is computed from, in memory; it has no fusion.
    ///
    /// # Errors
    /// [`crate::Error::Argument`] for sizes and shapes that don't fit, columns that don't ascend within a row, and
    /// values that aren't finite.
    pub fn with_evidence(&self, parts: &EvidenceParts<'_>) -> Result<Self> {
        parts.check(self.num_labels())?;
        let mut store =
            self.copy_without(&[&schema::EVIDENCE_TENSORS[..], &schema::FUSION_TENSORS])?;
        let (num_labels, counts) = (self.num_labels(), parts.label_counts);
        store.put(schema::LABEL_COUNTS, &[num_labels], counts)?;
        if let Some((rows, bias)) = &parts.ranker {
            SparseMatrix::put(&mut store, schema::RANKER, rows)?;
            store.put(schema::RANKER_BIAS, &[num_labels], bias)?;
        }
        if let Some(rows) = &parts.label_texts {
            SparseMatrix::put(&mut store, schema::LABEL_TEXTS, rows)?;
        }
        if let Some(rows) = &parts.cooccurrence {
            SparseMatrix::put(&mut store, schema::COOCCURRENCE, rows)?;
        }
        if let Some((texts, labels)) = &parts.neighbours {
            let max_texts = ((COMMON * texts.len() as f64) as usize).max(FEW_TEXTS);
            let inverted = invert(texts, max_texts)?;
            let (names, entries) = (schema::NEIGHBOURS, inverted.texts.len());
            store.put(names.offsets, &[inverted.offsets.len()], &inverted.offsets)?;
            store.put(names.columns, &[entries], &inverted.texts)?;
            store.put(names.values, &[entries], &inverted.values)?;
            let names = (schema::NEIGHBOUR_LABEL_OFFSETS, schema::NEIGHBOUR_LABELS);
            Pattern::put(&mut store, names, labels)?;
        }
        let sizes = FusionSizes {
            num_features: parts.num_features,
            num_candidates: parts.num_candidates,
            num_neighbours: parts.num_neighbours,
            evidence: EVIDENCE.map(str::to_owned).to_vec(),
        };
        finish(store, self.dims(), self.defaults(), Some(sizes), self.dtype())
    }

    /// The same index with what makes scores of evidence: a weight for each column of [`EVIDENCE`] and a bias,
    /// and trees.
    ///
    /// # Errors
    /// [`crate::Error::Argument`] where the index has nothing to compute evidence from, and for weights and trees that
    /// aren't proper.
    pub fn with_fusion(
        &self,
        linear: &[f32],
        bias: f32,
        trees: Option<&FusionTrees<'_>>,
    ) -> Result<Self> {
        let sizes = self.fusion_or_error()?.sizes.clone();
        check_len("linear", linear.len(), NUM_COLUMNS)?;
        check_finite("linear", linear, None)?;
        check_finite("bias", &[bias], None)?;
        trees.map(Trees::new).transpose()?;
        let mut store = self.copy_without(&[&schema::FUSION_TENSORS])?;
        let linear: Vec<f32> = linear.iter().copied().chain([bias]).collect();
        store.put(schema::FUSION_LINEAR, &[linear.len()], &linear)?;
        if let Some(trees) = trees {
            trees::put(&mut store, trees)?;
        }
        finish(store, self.dims(), self.defaults(), Some(sizes), self.dtype())
    }

    /// A new index in the making, in memory, with all tensors of this one but those of these names.
    pub(crate) fn copy_without(&self, left_out: &[&[&str]]) -> Result<Store> {
        let mut store = Store::new(Destination::Memory)?;
        for name in self.files().tensor_names() {
            if !left_out.iter().any(|names| names.contains(&name)) {
                store.share(self.files(), name)?;
            }
        }
        Ok(store)
    }
}

impl EvidenceParts<'_> {
    fn check(&self, num_labels: usize) -> Result<(), ArgumentError> {
        check_positive("num_features", self.num_features)?;
        check_positive("num_candidates", self.num_candidates)?;
        check_positive("num_neighbours", self.num_neighbours)?;
        if self.num_features > MAX_IDS {
            let received = self.num_features;
            return Err(ArgumentError::TooMany { name: "num_features", received });
        }
        let shape = (num_labels, self.num_features);
        check_len("label_counts", self.label_counts.len(), num_labels)?;
        if let Some((rows, bias)) = &self.ranker {
            rows.check_shape("ranker", shape)?;
            check_len("the ranker's bias", bias.len(), num_labels)?;
            check_finite("bias", bias, None)?;
        }
        if let Some(rows) = &self.label_texts {
            rows.check_shape("label_texts", shape)?;
        }
        if let Some(rows) = &self.cooccurrence {
            rows.check_shape("cooccurrence", (num_labels, num_labels))?;
        }
        if let Some((texts, labels)) = &self.neighbours {
            texts.check_shape("the neighbours' features", (texts.len(), self.num_features))?;
            labels.check_shape("the neighbours' labels", (texts.len(), num_labels))?;
        }
        Ok(())
    }
}
