#![doc = include_str!("../README.md")]
//!
//! Shape legend, used throughout: Q queries, D dim, C clusters, L labels, D' label dim, B beam,
//! S shortlist, nnz edges of the adjacency.

#[cfg(target_endian = "big")]
compile_error!("elias_idx reads little-endian files in place and has no big-endian build");

mod adjacency;
mod arguments;
mod build;
mod by_label;
mod cluster;
mod error;
pub mod features;
mod filter;
pub mod format;
mod fusion;
mod index;
mod kernels;
mod label_names;
mod label_rows;
mod lazy;
mod matrix;
mod panels;
mod progress;
mod quantize;
mod query_codes;
mod scramble;
mod screen;
mod search;
mod sparse;
mod storage;
mod sync;
mod threads;
pub mod train;

pub use build::{IndexParts, IndexWriter, NewEvidence, NewLabels};
pub use cluster::{ClusterOptions, LabelFeatures, cluster_labels};
pub use error::{ArgumentError, Error, FormatError, Result};
pub use filter::{Filter, FilterRows, LabelFilter};
pub use format::manifest::Defaults;
pub use format::publish::Staging;
pub use format::write::Destination;
pub use fusion::{EVIDENCE, EvidenceParts, FusionTrees};
pub use index::{Index, Source};
pub use label_names::{LabelNames, SharedLabels};
pub use label_rows::{Dtype, LabelWeights};
pub use progress::Progress;
pub use search::{
    EnsembleMember, EnsembleOptions, Evidence, Explanation, Explanations, Hits, HitsMut, Path,
    SearchOptions, search_ensemble,
};
pub use sparse::SparseRows;
pub use storage::Loading;
pub use threads::guard;

/// The instruction set that searches use on this machine: `portable`, `avx2`, `avx512` or `amx`. The
/// environment variable `ELIAS_IDX_ISA` chooses a lower one than the best; it is read once.
///
/// # Errors
/// [`ArgumentError::UnknownLevel`] where the variable names none that the machine has.
pub fn instruction_set() -> Result<&'static str> {
    Ok(kernels::Kernels::detect()?.name())
}
