//! The arithmetic of a search: dot products, the softmax over clusters, the final scores.
//!
//! [`Kernels`] is the safe face. It hides one implementation ([`generic`]) that is written over a
//! vector type and compiled for each instruction set; the best set of this machine is detected
//! once. Within one set a dot product's operations always come in the same order, however rows and
//! queries are grouped, so a result doesn't depend on the batch that it is computed in.

mod generic;
#[cfg(target_arch = "x86_64")]
mod x86_64;

use std::sync::OnceLock;

use crate::matrix::MatrixView;
use generic::Portable;

/// An instruction set that this machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    /// What the compiler makes of plain arrays.
    Portable,
    /// AVX2 with fused multiply-add.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512F.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

/// The kernels for one instruction set. Only [`Kernels::detect`] and [`Kernels::available`] make
/// one, for sets that the machine has: the calls below rely on it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kernels {
    level: Level,
}

/// Calls a kernel at the level of `$self`.
macro_rules! dispatch {
    ($self:ident, $kernel:ident($($argument:expr),*)) => {
        match $self.level {
            // SAFETY: the portable vector needs no instruction set beyond the target's own.
            Level::Portable => unsafe { generic::$kernel::<Portable>($($argument),*) },
            // SAFETY: a `Kernels` of this level exists only where the set was detected.
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => unsafe { x86_64::avx2::$kernel($($argument),*) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => unsafe { x86_64::avx512::$kernel($($argument),*) },
        }
    };
}

impl Kernels {
    /// The best kernels that this machine can run.
    pub(crate) fn detect() -> Self {
        static DETECTED: OnceLock<Kernels> = OnceLock::new();
        *DETECTED.get_or_init(|| *Self::available().last().expect("there is a portable level"))
    }

    /// All kernels that this machine can run, the slowest first.
    pub(crate) fn available() -> Vec<Self> {
        let mut levels = vec![Level::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                levels.push(Level::Avx2);
                if is_x86_feature_detected!("avx512f") {
                    levels.push(Level::Avx512);
                }
            }
        }
        levels.into_iter().map(|level| Self { level }).collect()
    }

    /// `out[q][r] = rows[r] · queries[q] + bias[r]` for all rows: `queries` \[Q, D\], `out` \[Q, R\].
    pub(crate) fn linear(
        self,
        rows: MatrixView<'_>,
        bias: Option<&[f32]>,
        queries: MatrixView<'_>,
        out: &mut [f32],
    ) {
        assert_eq!(rows.cols(), queries.cols());
        assert_eq!(out.len(), rows.rows() * queries.rows());
        assert!(bias.is_none_or(|bias| bias.len() == rows.rows()));
        dispatch!(self, linear(rows, bias, queries, out));
    }

    /// `out[i] = rows[ids[i]] · query + bias[ids[i]]`.
    ///
    /// # Panics
    /// If an id is no row.
    pub(crate) fn linear_rows(
        self,
        rows: MatrixView<'_>,
        bias: &[f32],
        ids: &[u32],
        query: &[f32],
        out: &mut [f32],
    ) {
        assert_eq!(rows.cols(), query.len());
        assert_eq!(rows.rows(), bias.len());
        assert_eq!(ids.len(), out.len());
        dispatch!(self, linear_rows(rows, bias, ids, query, out));
    }

    /// Replaces logits by `min(1, alpha · softmax)`.
    pub(crate) fn cluster_scores(self, logits: &mut [f32], alpha: f64) {
        dispatch!(self, cluster_scores(logits, alpha));
    }

    /// Replaces logits by `path_scores · sigmoid(logits)`.
    pub(crate) fn final_scores(self, logits: &mut [f32], path_scores: &[f32]) {
        assert_eq!(logits.len(), path_scores.len());
        dispatch!(self, final_scores(logits, path_scores));
    }
}

#[cfg(test)]
mod tests;
