//! Splits labels into clusters of nearly equal size: a balanced hierarchy of spherical 2-means.
//!
//! A label's *centroid* is the direction of the summed features of its texts ([`centroids`]). The
//! hierarchy ([`hierarchy`]) halves the labels by their centroids until there are as many parts as
//! clusters were asked for. The result doesn't depend on the number of threads: what is summed in which
//! order follows from the data alone, and each split draws its start from a seed of its own.
//!
//! N texts, L labels, F sparse features, D dense ones, C clusters.

mod centroids;
mod hierarchy;

use crate::error::{ArgumentError, Result};
use crate::matrix::MAX_IDS;
use crate::progress::Progress;
use crate::sparse::{SparseRows, all_finite};
use crate::threads;
use centroids::Centroids;

/// What labels are clustered by: the features of their texts, of one kind or both.
#[derive(Debug, Clone, Copy, Default)]
pub struct LabelFeatures<'a> {
    /// The texts of each label and their weights, \[L, N\].
    pub texts: SparseRows<'a>,
    /// The texts' sparse features, \[N, F\].
    pub sparse: Option<SparseRows<'a>>,
    /// The texts' dense features, \[N, D\].
    pub dense: Option<&'a [f32]>,
}

/// How labels are clustered.
#[derive(Debug, Clone, Copy)]
pub struct ClusterOptions {
    /// C, at most L.
    pub num_clusters: usize,
    /// Sparse entries that a label's centroid keeps, the largest ones.
    pub max_entries: usize,
    /// Of the random starting points.
    pub seed: u64,
    /// Threads at most; those that are available without it.
    pub num_threads: Option<usize>,
}

/// The cluster of each label, \[L\]: a partition into C parts, whose sizes differ by at most one where C is a
/// power of two. Clusters that lie near each other in the hierarchy have near numbers.
///
/// `hook` is called now and then, by the calling thread; true stops the clustering.
///
/// # Errors
/// [`Error::Argument`](crate::Error::Argument) for arrays that don't fit one another;
/// [`Error::Interrupted`](crate::Error::Interrupted) when the hook asked to stop.
pub fn cluster_labels(
    features: &LabelFeatures<'_>,
    options: ClusterOptions,
    progress: &Progress,
    hook: &mut dyn FnMut() -> bool,
) -> Result<Vec<u32>> {
    features.check()?;
    let num_labels = features.texts.len();
    if num_labels > MAX_IDS {
        return Err(ArgumentError::TooMany { name: "labels", received: num_labels }.into());
    }
    if options.num_clusters == 0 || options.num_clusters > num_labels {
        let (expected, received) = (num_labels, options.num_clusters);
        return Err(ArgumentError::BadNumClusters { expected, received }.into());
    }
    let num_threads = threads::available().min(options.num_threads.unwrap_or(usize::MAX));
    let splits = hierarchy::total_rows(num_labels, options.num_clusters);
    progress.start(centroids::WORK_PER_LABEL * num_labels + splits);
    let centroids = Centroids::new(features, options.max_entries, num_threads, progress, hook)?;
    hierarchy::cluster(&centroids, options, num_threads, progress, hook)
}

impl LabelFeatures<'_> {
    /// D.
    fn dim(&self) -> usize {
        self.dense.map_or(0, |dense| dense.len() / self.texts.num_columns.max(1))
    }

    fn check(&self) -> Result<(), ArgumentError> {
        self.texts.check("labels")?;
        let num_texts = self.texts.num_columns;
        if let Some(sparse) = &self.sparse {
            sparse.check("sparse features")?;
            if sparse.len() != num_texts {
                let (name, received) = ("sparse features' rows", sparse.len());
                return Err(ArgumentError::WrongLength { name, expected: num_texts, received });
            }
        }
        if let Some(dense) = self.dense {
            let (name, expected) = ("dense features", num_texts * self.dim());
            if dense.len() != expected {
                return Err(ArgumentError::WrongLength { name, expected, received: dense.len() });
            }
            if !all_finite(dense) {
                return Err(ArgumentError::BadMatrix {
                    name,
                    reason: "a value is NaN or infinite",
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
