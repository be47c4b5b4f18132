//! The tensors of version 1: their names and dtypes, and the features that some of them are.

use half::{bf16, f16};

use crate::label_rows::Dtype;

pub(crate) const CLUSTER_WEIGHTS: &str = "cluster_weights";
pub(crate) const CLUSTER_BIAS: &str = "cluster_bias";
pub(crate) const ADJACENCY_OFFSETS: &str = "adjacency_offsets";
pub(crate) const ADJACENCY_LABELS: &str = "adjacency_labels";
pub(crate) const ADJACENCY_WEIGHTS: &str = "adjacency_weights";
pub(crate) const LABEL_WEIGHTS: &str = "label_weights";
pub(crate) const LABEL_BIAS: &str = "label_bias";
pub(crate) const LABEL_PROJECTION: &str = "label_projection";
pub(crate) const LABEL_NAME_OFFSETS: &str = "label_name_offsets";
pub(crate) const LABEL_NAME_BYTES: &str = "label_name_bytes";
pub(crate) const CLUSTER_PANELS: &str = "cluster_panels";
pub(crate) const CLUSTER_PANEL_META: &str = "cluster_panel_meta";
pub(crate) const LABEL_CODES: &str = "label_codes";
pub(crate) const LABEL_CODE_META: &str = "label_code_meta";

pub(crate) const LABEL_COUNTS: &str = "label_counts";
pub(crate) const RANKER: SparseNames =
    SparseNames { offsets: "ranker_offsets", columns: "ranker_features", values: "ranker_weights" };
pub(crate) const RANKER_BIAS: &str = "ranker_bias";
pub(crate) const LABEL_TEXTS: SparseNames = SparseNames {
    offsets: "label_text_offsets",
    columns: "label_text_features",
    values: "label_text_weights",
};
pub(crate) const COOCCURRENCE: SparseNames = SparseNames {
    offsets: "cooccurrence_offsets",
    columns: "cooccurrence_labels",
    values: "cooccurrence_shares",
};
pub(crate) const NEIGHBOURS: SparseNames = SparseNames {
    offsets: "neighbour_offsets",
    columns: "neighbour_texts",
    values: "neighbour_values",
};
pub(crate) const NEIGHBOUR_LABEL_OFFSETS: &str = "neighbour_label_offsets";
pub(crate) const NEIGHBOUR_LABELS: &str = "neighbour_labels";
pub(crate) const FUSION_LINEAR: &str = "fusion_linear";
pub(crate) const FUSION_TREE_OFFSETS: &str = "fusion_tree_offsets";
pub(crate) const FUSION_TREE_COLUMNS: &str = "fusion_tree_columns";
pub(crate) const FUSION_TREE_THRESHOLDS: &str = "fusion_tree_thresholds";
pub(crate) const FUSION_TREE_CHILDREN: &str = "fusion_tree_children";
pub(crate) const FUSION_TREE_VALUES: &str = "fusion_tree_values";

/// The tensors of a sparse matrix by rows.
#[derive(Clone, Copy)]
pub(crate) struct SparseNames {
    pub(crate) offsets: &'static str,
    pub(crate) columns: &'static str,
    pub(crate) values: &'static str,
}

/// All tensor names of version 1.
pub(crate) fn tensors() -> impl Iterator<Item = &'static str> {
    DENSE_TENSORS.into_iter().chain(EVIDENCE_TENSORS).chain(FUSION_TENSORS)
}

/// Those of the dense model.
pub(crate) const DENSE_TENSORS: [&str; 14] = [
    CLUSTER_WEIGHTS,
    CLUSTER_BIAS,
    ADJACENCY_OFFSETS,
    ADJACENCY_LABELS,
    ADJACENCY_WEIGHTS,
    LABEL_WEIGHTS,
    LABEL_BIAS,
    LABEL_PROJECTION,
    LABEL_NAME_OFFSETS,
    LABEL_NAME_BYTES,
    CLUSTER_PANELS,
    CLUSTER_PANEL_META,
    LABEL_CODES,
    LABEL_CODE_META,
];

/// What evidence is computed from, beside the dense model.
pub(crate) const EVIDENCE_TENSORS: [&str; 16] = [
    LABEL_COUNTS,
    RANKER.offsets,
    RANKER.columns,
    RANKER.values,
    RANKER_BIAS,
    LABEL_TEXTS.offsets,
    LABEL_TEXTS.columns,
    LABEL_TEXTS.values,
    COOCCURRENCE.offsets,
    COOCCURRENCE.columns,
    COOCCURRENCE.values,
    NEIGHBOURS.offsets,
    NEIGHBOURS.columns,
    NEIGHBOURS.values,
    NEIGHBOUR_LABEL_OFFSETS,
    NEIGHBOUR_LABELS,
];

/// What makes scores of evidence.
pub(crate) const FUSION_TENSORS: [&str; 6] = [
    FUSION_LINEAR,
    FUSION_TREE_OFFSETS,
    FUSION_TREE_COLUMNS,
    FUSION_TREE_THRESHOLDS,
    FUSION_TREE_CHILDREN,
    FUSION_TREE_VALUES,
];

/// Tensors that don't depend on the dtype of the label weights, nor on whether there is a screen.
pub(crate) fn converted_as_they_are() -> impl Iterator<Item = &'static str> {
    OF_ANY_DTYPE.into_iter().chain(EVIDENCE_TENSORS).chain(FUSION_TENSORS)
}

const OF_ANY_DTYPE: [&str; 8] = [
    CLUSTER_WEIGHTS,
    CLUSTER_BIAS,
    ADJACENCY_OFFSETS,
    ADJACENCY_LABELS,
    ADJACENCY_WEIGHTS,
    LABEL_PROJECTION,
    LABEL_NAME_OFFSETS,
    LABEL_NAME_BYTES,
];

/// Tensors that depend on which labels there are.
pub(crate) fn is_of_labels(name: &str) -> bool {
    const ANY_LABELS: [&str; 5] =
        [CLUSTER_WEIGHTS, CLUSTER_BIAS, LABEL_PROJECTION, CLUSTER_PANELS, CLUSTER_PANEL_META];
    tensors().any(|known| known == name)
        && !ANY_LABELS.contains(&name)
        && !FUSION_TENSORS.contains(&name)
        && !is_of_texts(name)
}

/// Tensors that depend on the training texts that vote, but not on their labels.
pub(crate) fn is_of_texts(name: &str) -> bool {
    [NEIGHBOURS.offsets, NEIGHBOURS.columns, NEIGHBOURS.values].contains(&name)
}

/// A Rust type that tensors are stored as.
pub(crate) trait Element: bytemuck::Pod {
    /// Its name in safetensors.
    const DTYPE: &'static str;
}

impl Element for f32 {
    const DTYPE: &'static str = "F32";
}
impl Element for u64 {
    const DTYPE: &'static str = "U64";
}
impl Element for u32 {
    const DTYPE: &'static str = "U32";
}
impl Element for i32 {
    const DTYPE: &'static str = "I32";
}
impl Element for u8 {
    const DTYPE: &'static str = "U8";
}
impl Element for i8 {
    const DTYPE: &'static str = "I8";
}
impl Element for f16 {
    const DTYPE: &'static str = "F16";
}
impl Element for bf16 {
    const DTYPE: &'static str = "BF16";
}

/// The name of the file that a tensor is written to.
pub(crate) fn file_name(tensor: &str) -> String {
    format!("{tensor}.safetensors")
}

/// What a reader must know to search an index whose label weights have this dtype.
pub(crate) fn required_feature(dtype: Dtype) -> Option<&'static str> {
    match dtype {
        Dtype::Float32 => None,
        Dtype::BFloat16 => Some("bfloat16_labels"),
        Dtype::Float16 => Some("float16_labels"),
        Dtype::Int8 => Some("int8_labels"),
    }
}

/// Whether this library knows a feature.
pub(crate) fn is_known_feature(feature: &str) -> bool {
    Dtype::ALL.iter().any(|&dtype| required_feature(dtype) == Some(feature))
}
