//! What the steps of a search work with: the index's parts, borrowed, and the sizes to use.

use super::SearchOptions;
use super::batch::Workers;
use crate::adjacency::AdjacencyView;
use crate::arguments::check_positive;
use crate::by_label::ByLabel;
use crate::error::{ArgumentError, Result};
use crate::filter::Filter;
use crate::fusion::scorer::FusedSearch;
use crate::index::Index;
use crate::kernels::Kernels;
use crate::label_rows::ExactRows;
use crate::matrix::MatrixView;
use crate::panels::{Panels, PanelsView};
use crate::quantize::{CodedRows, CodedRowsView};

/// Bytes of classifiers that a query reads, about, from which on waking another thread for it pays.
const MIN_BYTES_TO_SHARE: usize = 1 << 20;

/// One search call's view of an index.
#[derive(Clone, Copy)]
pub(crate) struct Plan<'a> {
    pub(crate) cluster_weights: MatrixView<'a>,
    pub(crate) cluster_bias: &'a [f32],
    pub(crate) adjacency: AdjacencyView<'a>,
    /// 8-bit codes of the cluster classifiers, to screen them with.
    pub(crate) cluster_panels: Option<PanelsView<'a>>,
    /// Where exact scores of labels come from.
    pub(crate) label_rows: ExactRows<'a>,
    /// 8-bit codes of the label classifiers, to screen them with.
    pub(crate) label_codes: Option<CodedRowsView<'a>>,
    pub(crate) label_bias: &'a [f32],
    pub(crate) label_projection: Option<MatrixView<'a>>,
    pub(crate) alpha: f64,
    /// B, at most C.
    pub(crate) beam_size: usize,
    /// S, at most L.
    pub(crate) shortlist_size: usize,
    pub(crate) filter: Option<Filter<'a>>,
    /// There for queries with sparse features.
    pub(crate) fused: Option<FusedSearch<'a>>,
    /// There when a filter is small enough to start from its labels.
    pub(crate) by_label: Option<&'a ByLabel>,
    /// Results with a score below this are left out.
    pub(crate) min_score: f64,
    pub(crate) kernels: Kernels,
    /// Memory to search in.
    pub(crate) workers: &'a Workers,
}

impl<'a> Plan<'a> {
    pub(crate) fn new(
        index: &'a Index,
        options: &SearchOptions<'a>,
    ) -> Result<Self, ArgumentError> {
        let beam_size = options.beam_size.unwrap_or(index.defaults.beam_size);
        let shortlist_size = options.shortlist_size.unwrap_or(index.defaults.shortlist_size);
        check_positive("beam_size", beam_size)?;
        check_positive("shortlist_size", shortlist_size)?;
        let min_score = options.min_score.unwrap_or(0.0);
        if min_score.is_nan() {
            return Err(ArgumentError::BadMinScore);
        }
        Ok(Self {
            cluster_weights: index.cluster_weights.view(),
            cluster_bias: index.cluster_bias.as_slice(),
            adjacency: index.adjacency.view(),
            cluster_panels: index.cluster_panels.as_ref().map(Panels::view),
            label_rows: index.exact_rows(),
            label_codes: index.label_codes.as_ref().map(CodedRows::view),
            label_bias: index.label_bias.as_slice(),
            label_projection: index.label_projection.as_ref().map(crate::matrix::Matrix::view),
            alpha: index.defaults.alpha,
            beam_size: beam_size.min(index.dims.num_clusters),
            shortlist_size: shortlist_size.min(index.dims.num_labels),
            filter: options.filter,
            fused: FusedSearch::new(index, options)?,
            by_label: None,
            min_score,
            kernels: Kernels::detect()?,
            workers: &index.workers,
        })
    }

    /// Whether a single query is enough work to share between threads.
    pub(crate) fn worth_sharing(&self) -> bool {
        let clusters = match self.cluster_panels {
            Some(panels) => panels.codes.len(),
            None => size_of_val(self.cluster_weights.values()),
        };
        let label = if self.label_codes.is_some() { 1 } else { size_of::<f32>() };
        clusters + self.shortlist_size * self.label_rows.cols() * label > MIN_BYTES_TO_SHARE
    }

    /// Labels that the dense search is to return where `width` results are wanted.
    pub(crate) fn dense_width(&self, width: usize) -> usize {
        self.fused.map_or(width, |fused| fused.num_candidates)
    }

    pub(crate) fn num_clusters(&self) -> usize {
        self.cluster_weights.rows()
    }

    pub(crate) fn num_labels(&self) -> usize {
        self.label_bias.len()
    }

    pub(crate) fn dim(&self) -> usize {
        self.cluster_weights.cols()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::build::IndexParts;

    /// An index of D = 1 without edges, for tests of single steps.
    pub(crate) fn tiny_index(num_clusters: usize, num_labels: usize) -> Index {
        Index::build(&IndexParts {
            num_labels,
            num_clusters,
            dim: 1,
            cluster_weights: &vec![0.0; num_clusters],
            cluster_bias: &vec![0.0; num_clusters],
            adjacency_offsets: &vec![0; num_clusters + 1],
            label_weights: &vec![0.0; num_labels],
            label_bias: &vec![0.0; num_labels],
            ..IndexParts::default()
        })
        .unwrap()
    }

    #[test]
    fn sizes_are_clamped_and_never_zero() {
        let index = tiny_index(3, 5);
        let plan = Plan::new(&index, &SearchOptions::default()).unwrap();
        assert_eq!((plan.beam_size, plan.shortlist_size), (3, 5));
        let small = SearchOptions {
            beam_size: Some(2),
            shortlist_size: Some(4),
            ..SearchOptions::default()
        };
        let plan = Plan::new(&index, &small).unwrap();
        assert_eq!((plan.beam_size, plan.shortlist_size), (2, 4));
        for zero in [
            SearchOptions { beam_size: Some(0), ..SearchOptions::default() },
            SearchOptions { shortlist_size: Some(0), ..SearchOptions::default() },
        ] {
            assert!(matches!(Plan::new(&index, &zero), Err(ArgumentError::Zero { .. })));
        }
    }
}
