//! Scores from more than the dense model: what is known of a query's sparse features.
//!
//! A search with sparse features takes the best R labels of the dense search, and the labels of the nearest training
//! texts, as its *candidates* (`candidates`). For each of them it computes the *evidence* (`evidence`): numbers from the
//! dense model, a sparse ranker, the neighbours' votes, the labels' frequencies, their own texts, and which labels go together. *Fusion* makes one score of
//! these: σ of a linear function, to which decision trees (`trees`) may be added.
//!
//! All parts are optional; columns of evidence that need a part that isn't there are 0.

mod build;
mod candidates;
mod change;
mod evidence;
mod neighbours;
mod places;
mod query_features;
pub(crate) mod scorer;
mod sparse_matrix;
mod trees;

use crate::error::{ArgumentError, FormatError, Result};
use crate::format::MANIFEST_FILE;
use crate::format::manifest::{Dims, FusionSizes};
use crate::format::read::Files;
use crate::format::schema;
use crate::index::Index;
use crate::kernels::{Kernels, Lanes, TREE_LANES};
use crate::matrix::{Tensor, check_finite};
use evidence::EvidenceTable;
use neighbours::{Postings, TextLabels};
use sparse_matrix::{Pattern, SparseMatrix};
use trees::{ReadyTree, StoredTrees, Trees};

pub use build::EvidenceParts;
pub use evidence::EVIDENCE;
pub(crate) use evidence::NUM_COLUMNS;
pub use trees::FusionTrees;

/// What an index has for searches with sparse features.
pub(crate) struct Fusion {
    pub(crate) sizes: FusionSizes,
    /// Training texts that have each label \[L\].
    label_counts: Tensor<u32>,
    ranker: Option<Ranker>,
    /// The features of the labels' own texts \[L, F\].
    label_texts: Option<SparseMatrix>,
    /// Of the texts with a label, the share that has another \[L, L\].
    cooccurrence: Option<SparseMatrix>,
    neighbours: Option<Neighbours>,
    model: Option<FusionModel>,
}

/// A sparse linear classifier for each label.
struct Ranker {
    /// \[L, F\].
    rows: SparseMatrix,
    /// \[L\].
    bias: Tensor<f32>,
}

/// The training texts and their labels.
struct Neighbours {
    /// The texts by feature \[F, N\].
    texts: SparseMatrix,
    /// \[N, L\].
    labels: Pattern,
    num_texts: usize,
}

/// What makes one score of evidence.
struct FusionModel {
    /// A weight for each column, then the bias.
    linear: Tensor<f32>,
    stored_trees: Option<StoredTrees>,
    trees: Trees,
}

impl Fusion {
    /// Opens what the index has, if anything, and checks it.
    pub(crate) fn open(files: &Files) -> Result<Option<Self>> {
        let Some(sizes) = &files.manifest.fusion else { return Ok(None) };
        if sizes.evidence != EVIDENCE {
            let kind = FormatError::UnknownFeature(format!("evidence {:?}", sizes.evidence));
            return Err(files.error(MANIFEST_FILE, kind));
        }
        let num_labels = files.manifest.dims.num_labels;
        let label_rows = |names| SparseMatrix::open(files, names, num_labels, sizes.num_features);
        Ok(Some(Self {
            sizes: sizes.clone(),
            label_counts: files.tensor(schema::LABEL_COUNTS, &[num_labels])?,
            ranker: match label_rows(schema::RANKER)? {
                Some(rows) => {
                    Some(Ranker { rows, bias: floats(files, schema::RANKER_BIAS, num_labels)? })
                }
                None => None,
            },
            label_texts: label_rows(schema::LABEL_TEXTS)?,
            cooccurrence: SparseMatrix::open(files, schema::COOCCURRENCE, num_labels, num_labels)?,
            neighbours: Neighbours::open(files, sizes.num_features)?,
            model: FusionModel::open(files)?,
        }))
    }

    pub(crate) fn has_model(&self) -> bool {
        self.model.is_some()
    }
}

impl Neighbours {
    fn open(files: &Files, num_features: usize) -> Result<Option<Self>> {
        let Dims { num_labels, .. } = files.manifest.dims;
        let num_texts = files.len_of(schema::NEIGHBOUR_LABEL_OFFSETS).saturating_sub(1);
        let names = (schema::NEIGHBOUR_LABEL_OFFSETS, schema::NEIGHBOUR_LABELS);
        let texts = SparseMatrix::open(files, schema::NEIGHBOURS, num_features, num_texts)?;
        let labels = Pattern::open(files, names, num_texts, num_labels)?;
        match (texts, labels) {
            (Some(texts), Some(labels)) => Ok(Some(Self { texts, labels, num_texts })),
            (None, None) => Ok(None),
            _ => {
                Err(files
                    .invalid(schema::NEIGHBOURS.offsets, "neighbours need both texts and labels"))
            }
        }
    }

    fn postings(&self) -> Postings<'_> {
        Postings {
            offsets: self.texts.pattern().offsets(),
            texts: self.texts.pattern().columns(),
            values: self.texts.values(),
            num_texts: self.num_texts,
        }
    }

    fn labels(&self) -> TextLabels<'_> {
        TextLabels { offsets: self.labels.offsets(), labels: self.labels.columns() }
    }
}

impl FusionModel {
    fn open(files: &Files) -> Result<Option<Self>> {
        if files.shape(schema::FUSION_LINEAR).is_none() {
            return Ok(None);
        }
        let linear = floats(files, schema::FUSION_LINEAR, NUM_COLUMNS + 1)?;
        let stored_trees = StoredTrees::open(files)?;
        let trees = stored_trees.as_ref().map(|trees| trees.ready(files)).transpose()?;
        Ok(Some(Self { linear, stored_trees, trees: trees.unwrap_or_default() }))
    }

    /// Replaces `scores` by those of the rows of a table, before σ. `reach` is memory.
    fn score(
        &self,
        kernels: Kernels,
        table: &EvidenceTable,
        reach: &mut Vec<Lanes>,
        scores: &mut Vec<Lanes>,
    ) {
        let (bias, weights) = self.linear.as_slice().split_last().expect("there is a bias");
        let num_blocks = table.num_blocks();
        scores.clear();
        scores.resize(num_blocks, [*bias; TREE_LANES]);
        if num_blocks == 0 {
            return;
        }
        for (weight, column) in weights.iter().zip(table.blocks().chunks(num_blocks)) {
            let scores = scores.as_flattened_mut().iter_mut();
            for (score, value) in scores.zip(column.as_flattened()) {
                *score += weight * value;
            }
        }
        for tree in self.trees.iter() {
            match tree {
                ReadyTree::Small(tree) => kernels.add_small_tree(tree, table.blocks(), scores),
                ReadyTree::Large(tree) => {
                    let nodes = tree.splits.len() + tree.leaves.len();
                    reach.resize(nodes, [0.0; TREE_LANES]);
                    kernels.add_tree(tree, table.blocks(), reach, scores);
                }
            }
        }
    }
}

/// What an index has for searches with sparse features.
impl Index {
    pub(crate) fn fusion_or_error(&self) -> Result<&Fusion, ArgumentError> {
        let message = "the index takes no sparse features: with_evidence makes one that does";
        self.fusion.as_ref().ok_or(ArgumentError::NoFusion(message))
    }

    /// F, the number of sparse features that a query may have; None where the index takes none.
    #[must_use]
    pub fn num_features(&self) -> Option<usize> {
        self.fusion.as_ref().map(|fusion| fusion.sizes.num_features)
    }

    /// R, labels of the dense search that are candidates unless a search is told otherwise.
    #[must_use]
    pub fn num_candidates(&self) -> Option<usize> {
        self.fusion.as_ref().map(|fusion| fusion.sizes.num_candidates)
    }

    /// Training texts that vote.
    #[must_use]
    pub fn num_neighbours(&self) -> Option<usize> {
        self.fusion.as_ref().map(|fusion| fusion.sizes.num_neighbours)
    }

    /// Whether there is a sparse ranker.
    #[must_use]
    pub fn has_ranker(&self) -> bool {
        self.fusion.as_ref().is_some_and(|fusion| fusion.ranker.is_some())
    }

    /// Whether there are training texts that vote.
    #[must_use]
    pub fn has_neighbours(&self) -> bool {
        self.fusion.as_ref().is_some_and(|fusion| fusion.neighbours.is_some())
    }

    /// Whether there are the labels' own texts.
    #[must_use]
    pub fn has_label_texts(&self) -> bool {
        self.fusion.as_ref().is_some_and(|fusion| fusion.label_texts.is_some())
    }

    /// Whether there is which labels go together.
    #[must_use]
    pub fn has_cooccurrence(&self) -> bool {
        self.fusion.as_ref().is_some_and(|fusion| fusion.cooccurrence.is_some())
    }

    /// Whether searches with sparse features are possible.
    #[must_use]
    pub fn has_fusion(&self) -> bool {
        self.fusion.as_ref().is_some_and(Fusion::has_model)
    }

    /// A weight for each column of [`EVIDENCE`], then the bias, as [`Index::with_fusion`] was given them; None without
    /// fusion.
    #[must_use]
    pub fn fusion_linear(&self) -> Option<&[f32]> {
        self.fusion_model().map(|model| model.linear.as_slice())
    }

    /// The trees of the fusion, if it has any.
    #[must_use]
    pub fn fusion_trees(&self) -> Option<FusionTrees<'_>> {
        self.fusion_model()?.stored_trees.as_ref().map(StoredTrees::view)
    }

    fn fusion_model(&self) -> Option<&FusionModel> {
        self.fusion.as_ref()?.model.as_ref()
    }
}

fn floats(files: &Files, name: &'static str, len: usize) -> Result<Tensor<f32>> {
    let tensor: Tensor<f32> = files.tensor(name, &[len])?;
    check_finite(name, tensor.as_slice(), None).map_err(|error| files.invalid(name, error))?;
    Ok(tensor)
}
