//! The arithmetic of a search: dot products, the softmax over clusters, the final scores.
//!
//! [`Kernels`] is the safe face. It hides one implementation ([`generic`]) that is written over a
//! vector type and compiled for each instruction set; the best set of this machine is detected
//! once. Within one set a dot product's operations always come in the same order, however rows and
//! queries are grouped, so a result doesn't depend on the batch that it is computed in.

mod generic;
mod int8;
mod select;
mod train;
mod trees;
#[cfg(target_arch = "x86_64")]
mod x86_64;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod x86_64_amx;
#[cfg(target_arch = "x86_64")]
mod x86_64_int8;

use std::ffi::OsStr;
use std::sync::OnceLock;

use half::bf16;

use crate::error::ArgumentError;
use crate::label_rows::ExactRows;
use crate::matrix::MatrixView;
use crate::panels::{PANEL_ROWS, PanelsView};
use crate::quantize::CodedRowsView;
use crate::query_codes::{PADDING, QueryCodesSlice, QueryCodesView};

pub(crate) use trees::{Lanes, SmallTree, Split, TREE_LANES, Tree};

/// An instruction set that kernels are compiled for, from the slowest to the fastest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    /// What the compiler makes of plain arrays.
    Portable,
    /// AVX2 with fused multiply-add and half precision.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512 with byte instructions and VNNI.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// The same, with AMX for the codes of many queries.
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    Amx,
}

impl Level {
    /// What [`LEVEL_VARIABLE`] calls it.
    fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => "avx512",
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Self::Amx => "amx",
        }
    }
}

/// The environment variable that chooses a level below the best one.
const LEVEL_VARIABLE: &str = "ELIAS_IDX_ISA";

/// Where bounds of logits go, those of each row: the exact logit lies between them.
pub(crate) struct LogitBounds<'a> {
    pub(crate) upper: &'a mut [f32],
    pub(crate) lower: &'a mut [f32],
}

/// The kernels for one instruction set. Only [`Kernels::available`] makes any, for sets that
/// the machine has: the calls below rely on it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kernels {
    level: Level,
}

/// Sums over x = exp(logit − `max`), `max` being the largest logit, and the logits' deviations d.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ExpSums {
    pub(crate) max: f32,
    /// Σ x.
    pub(crate) sum: f64,
    /// Σ (x d)².
    pub(crate) squares: f64,
    /// Σ x d².
    pub(crate) curvature: f64,
}

/// A row of a table that is trained, as it is stored.
#[derive(Clone, Copy)]
pub(crate) enum RowValues<'a> {
    Float32(&'a [f32]),
    BFloat16(&'a [bf16]),
}

/// A row and its momentum, to be updated.
pub(crate) enum MomentRow<'a> {
    Float32 { weight: &'a mut [f32], momentum: &'a mut [f32] },
    BFloat16 { weight: &'a mut [bf16], momentum: &'a mut [bf16], rounding: Rounding },
}

/// A row with a second moment for each element, to be updated.
pub(crate) struct ElementRow<'a> {
    pub(crate) weight: &'a mut [f32],
    pub(crate) momentum: &'a mut [f32],
    pub(crate) second_moment: &'a mut [f32],
}

/// How the elements of one row are rounded in one step: at random, but always the same.
#[derive(Clone, Copy)]
pub(crate) struct Rounding(pub(crate) u32);

/// The factors of Adam in one step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AdamScales {
    /// 1 − β₁: how far a momentum moves towards a gradient.
    pub(crate) momentum_rate: f32,
    /// 1 − β₂.
    pub(crate) second_moment_rate: f32,
    /// The learning rate, corrected for the momentum's start at 0.
    pub(crate) learning_rate: f32,
    /// What corrects second moments for their start at 0.
    pub(crate) correction: f32,
    pub(crate) epsilon: f32,
}

impl AdamScales {
    /// What the momentum is multiplied by to be the step of a weight.
    #[inline(always)]
    pub(crate) fn scale(self, second_moment: f32) -> f32 {
        self.learning_rate / ((second_moment * self.correction).sqrt() + self.epsilon)
    }
}

/// Where the losses of pairs go, and their derivatives.
pub(crate) struct PairLosses<'a> {
    pub(crate) losses: &'a mut [f32],
    pub(crate) by_logit: &'a mut [f32],
    pub(crate) by_path: &'a mut [f32],
}

/// Values that [`Kernels::chunk_maxima`] takes the largest of.
pub(crate) const MAXIMA_CHUNK: usize = 64;

/// Calls a kernel at the level of `$self`.
macro_rules! dispatch {
    ($self:ident, $module:ident::$kernel:ident($($argument:expr),*)) => {
        match $self.level {
            // SAFETY: the portable vector needs no instruction set beyond the target's own.
            Level::Portable => unsafe { $module::$kernel::<$module::Portable>($($argument),*) },
            // SAFETY: a `Kernels` of this level exists only where the set was detected.
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => unsafe { x86_64::avx2::$kernel($($argument),*) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => unsafe { x86_64::avx512::$kernel($($argument),*) },
            // SAFETY: as above, AVX-512 being part of the level.
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Level::Amx => unsafe { x86_64::avx512::$kernel($($argument),*) },
        }
    };
}

impl Kernels {
    /// The kernels of the level that `ELIAS_IDX_ISA` names, without it the best that this machine can
    /// run. The variable is read once.
    ///
    /// # Errors
    /// [`ArgumentError::UnknownLevel`] where the machine doesn't have the level.
    pub(crate) fn detect() -> Result<Self, ArgumentError> {
        static DETECTED: OnceLock<Result<Kernels, ArgumentError>> = OnceLock::new();
        let detect = || Self::named(std::env::var_os(LEVEL_VARIABLE).as_deref());
        DETECTED.get_or_init(detect).clone()
    }

    /// The kernels of a level, the best one if there is no name or an empty one.
    fn named(name: Option<&OsStr>) -> Result<Self, ArgumentError> {
        let available = Self::available();
        let Some(name) = name.filter(|name| !name.is_empty()) else {
            return Ok(*available.last().expect("there is a portable level"));
        };
        let found = available.iter().find(|kernels| name == kernels.name());
        found.copied().ok_or_else(|| ArgumentError::UnknownLevel {
            variable: LEVEL_VARIABLE,
            found: name.to_string_lossy().into_owned(),
            available: available
                .iter()
                .map(|kernels| kernels.name())
                .collect::<Vec<_>>()
                .join(", "),
        })
    }

    /// The level's name.
    pub(crate) fn name(self) -> &'static str {
        self.level.name()
    }

    /// All kernels that this machine can run, the slowest first.
    pub(crate) fn available() -> Vec<Self> {
        #[cfg(not(target_arch = "x86_64"))]
        let levels = [Level::Portable];
        #[cfg(target_arch = "x86_64")]
        let levels = {
            let mut levels = vec![Level::Portable];
            let has_avx2 = is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c");
            let has_avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512vnni");
            if has_avx2 {
                levels.push(Level::Avx2);
                if has_avx512 {
                    levels.push(Level::Avx512);
                    // SAFETY: where the system saves AVX-512's registers, there is XSAVE.
                    #[cfg(target_os = "linux")]
                    if unsafe { x86_64_amx::is_available() } {
                        levels.push(Level::Amx);
                    }
                }
            }
            levels
        };
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
        dispatch!(self, generic::linear(rows, bias, queries, out));
    }

    /// `out[i] = rows[ids[i]] · query + bias[ids[i]]`, exactly but for float rounding.
    ///
    /// # Panics
    /// If an id is no row.
    pub(crate) fn linear_rows(
        self,
        rows: ExactRows<'_>,
        bias: &[f32],
        ids: &[u32],
        query: &[f32],
        out: &mut [f32],
    ) {
        assert_eq!(rows.cols(), query.len());
        assert_eq!(ids.len(), out.len());
        dispatch!(self, generic::linear_rows(rows, bias, ids, query, out));
    }

    /// The screened logits of the rows of panels `first` to `end`, exclusive, for all queries: `out`
    /// \[Q, `stride`\], of which the first 16 · (`end` − `first`) columns are used. Rows that are missing
    /// from the last panel get one too.
    pub(crate) fn scan_panels(
        self,
        panels: PanelsView<'_>,
        (first, end): (usize, usize),
        queries: QueryCodesSlice<'_>,
        out: &mut [f32],
        stride: usize,
    ) {
        assert!(first <= end && end <= panels.len() && (end - first) * PANEL_ROWS <= stride);
        assert!(out.len() >= queries.len() * stride);
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        if self.level == Level::Amx {
            // SAFETY: a `Kernels` of this level exists only where AMX was found.
            return unsafe {
                x86_64_amx::scan_panels(panels, (first, end), queries, out, stride);
            };
        }
        dispatch!(self, int8::scan_panels(panels, (first, end), queries, out, stride));
    }

    /// Bounds of the logits of `rows[ids]` for a query, from both parts of its codes.
    ///
    /// # Panics
    /// If an id is no row.
    pub(crate) fn coded_rows(
        self,
        rows: CodedRowsView<'_>,
        ids: &[u32],
        query: QueryCodesView<'_>,
        bounds: LogitBounds<'_>,
    ) {
        let padded = rows.codes.cols().next_multiple_of(PADDING);
        assert!(query.high.len() >= padded && query.low.len() >= padded);
        assert!(ids.len() == bounds.upper.len() && ids.len() == bounds.lower.len());
        dispatch!(self, int8::coded_rows(rows, ids, query, bounds));
    }

    /// Bounds of the logits of `rows[ids[i]]` for query `of_queries[i]`, for all i, from the first part
    /// of the queries' codes. Fast where equal ids follow one another.
    ///
    /// # Panics
    /// If an id is no row, or no query.
    pub(crate) fn coded_pairs(
        self,
        rows: CodedRowsView<'_>,
        ids: &[u32],
        queries: QueryCodesSlice<'_>,
        of_queries: &[u16],
        bounds: LogitBounds<'_>,
    ) {
        assert!(queries.stride() >= rows.codes.cols().next_multiple_of(PADDING));
        assert_eq!(ids.len(), of_queries.len());
        assert!(ids.len() == bounds.upper.len() && ids.len() == bounds.lower.len());
        dispatch!(self, int8::coded_pairs(rows, ids, queries, of_queries, bounds));
    }

    /// What a softmax over `logits` divides by, and how far that deviates where each logit does by its
    /// element of `deviations`. The order of the sums depends on nothing but their number.
    pub(crate) fn exp_sums(self, logits: &[f32], deviations: &[f32]) -> ExpSums {
        assert_eq!(logits.len(), deviations.len());
        dispatch!(self, generic::exp_sums(logits, deviations))
    }

    /// Replaces logits by `min(1, scale · exp(logit − max))`.
    pub(crate) fn exp_scores(self, logits: &mut [f32], max: f32, scale: f32) {
        dispatch!(self, generic::exp_scores(logits, max, scale));
    }

    /// The largest of every [`MAXIMA_CHUNK`] values.
    pub(crate) fn chunk_maxima(self, values: &[f32], out: &mut [f32]) {
        assert_eq!(values.len().div_ceil(MAXIMA_CHUNK), out.len());
        dispatch!(self, generic::chunk_maxima(values, out));
    }

    /// Replaces logits by `min(1, alpha · softmax)`.
    pub(crate) fn cluster_scores(self, logits: &mut [f32], alpha: f64) {
        dispatch!(self, generic::cluster_scores(logits, alpha));
    }

    /// Replaces logits by `scale · softmax`.
    pub(crate) fn scaled_softmax(self, logits: &mut [f32], scale: f64) {
        dispatch!(self, generic::scaled_softmax(logits, scale));
    }

    /// `out[i] = row · queries[ids[i]]`.
    ///
    /// # Panics
    /// If an id is no query.
    pub(crate) fn row_dots(
        self,
        row: RowValues<'_>,
        queries: MatrixView<'_>,
        ids: &[u32],
        out: &mut [f32],
    ) {
        let dim = match row {
            RowValues::Float32(row) => row.len(),
            RowValues::BFloat16(row) => row.len(),
        };
        assert!(dim == queries.cols() && ids.len() == out.len());
        dispatch!(self, train::row_dots(row, queries, ids, out));
    }

    /// The losses −log(1 − s σ(z)) of pairs with logits z and path scores s in \[0, 1\], and their
    /// derivatives. No gradient reaches an s of 1.
    pub(crate) fn irrelevant_pairs(self, logits: &[f32], path_scores: &[f32], out: PairLosses<'_>) {
        let len = logits.len();
        assert!(path_scores.len() == len && out.losses.len() == len);
        assert!(out.by_logit.len() == len && out.by_path.len() == len);
        dispatch!(self, train::irrelevant_pairs(logits, path_scores, out));
    }

    /// For each pair (query, factor): adds `factor · queries[query]` to `gradient`, and `factor · row` to
    /// the query's row of `query_gradients`, which is as large as `queries`.
    ///
    /// # Panics
    /// If there is no such query.
    pub(crate) fn add_pairs(
        self,
        row: &[f32],
        queries: MatrixView<'_>,
        pairs: &[(u32, f32)],
        gradient: &mut [f32],
        query_gradients: &mut [f32],
    ) {
        assert!(row.len() == queries.cols() && gradient.len() == row.len());
        assert_eq!(query_gradients.len(), queries.values().len());
        dispatch!(self, train::add_pairs(row, queries, pairs, gradient, query_gradients));
    }

    /// Adds `factor · values` to `sum`.
    pub(crate) fn add_scaled(self, factor: f32, values: &[f32], sum: &mut [f32]) {
        assert_eq!(values.len(), sum.len());
        dispatch!(self, train::add_scaled(factor, values, sum));
    }

    /// The mean of the values' squares.
    pub(crate) fn mean_square(self, values: &[f32]) -> f32 {
        dispatch!(self, train::mean_square(values))
    }

    /// Moves the row's momentum by the share `rate` of the way to `gradient`, and the row by −`scale` times
    /// the new momentum.
    pub(crate) fn update_row(self, row: MomentRow<'_>, gradient: &[f32], rate: f32, scale: f32) {
        let (weights, momenta) = match &row {
            MomentRow::Float32 { weight, momentum } => (weight.len(), momentum.len()),
            MomentRow::BFloat16 { weight, momentum, .. } => (weight.len(), momentum.len()),
        };
        assert!(weights == gradient.len() && momenta == weights);
        dispatch!(self, train::update_row(row, gradient, rate, scale));
    }

    /// A step of Adam for each element of a row.
    pub(crate) fn update_elements(self, row: ElementRow<'_>, gradient: &[f32], scales: AdamScales) {
        let len = gradient.len();
        assert!(row.weight.len() == len && row.momentum.len() == len);
        assert_eq!(row.second_moment.len(), len);
        dispatch!(self, train::update_elements(row, gradient, scales));
    }

    /// Replaces the gradient by `min(1, scaled)` by that by the logits, where
    /// `scaled = scale · softmax(logits)`.
    pub(crate) fn softmax_gradient(self, scaled: &[f32], scale: f32, gradient: &mut [f32]) {
        assert_eq!(scaled.len(), gradient.len());
        dispatch!(self, train::softmax_gradient(scaled, scale, gradient));
    }

    /// Replaces logits by `path_scores · sigmoid(logits)`.
    pub(crate) fn final_scores(self, logits: &mut [f32], path_scores: &[f32]) {
        assert_eq!(logits.len(), path_scores.len());
        dispatch!(self, generic::final_scores(logits, path_scores));
    }

    /// Adds what a tree says of each row of a table to `scores`. The table holds one column of blocks like those of
    /// `scores` after the other; `reach` is memory for a block for each node.
    ///
    /// # Panics
    /// If the tree names a column or a node that isn't there.
    pub(crate) fn add_tree(
        self,
        tree: &Tree,
        table: &[Lanes],
        reach: &mut [Lanes],
        scores: &mut [Lanes],
    ) {
        dispatch!(self, trees::add_tree(tree, table, reach, scores));
    }

    /// Like [`add_tree`](Self::add_tree), for a small tree.
    ///
    /// # Panics
    /// If the tree names a column that isn't there.
    pub(crate) fn add_small_tree(self, tree: &SmallTree, table: &[Lanes], scores: &mut [Lanes]) {
        let columns = table.len() / scores.len().max(1);
        assert!(tree.columns().all(|column| (column as usize) < columns));
        dispatch!(self, trees::add_small_tree(tree, table, scores));
    }

    /// The `k`-th largest value, counted from 1; 0 and −0 are the same, and there must be no NaN.
    ///
    /// # Panics
    /// If there are fewer than `k` values, or `k` is 0.
    pub(crate) fn kth_largest(self, values: &[f32], k: usize) -> f32 {
        assert!((1..=values.len()).contains(&k));
        dispatch!(self, select::kth_largest(values, k))
    }

    /// How many values are `least` or more.
    pub(crate) fn count_from(self, values: &[f32], least: f32) -> usize {
        dispatch!(self, select::count_from(values, least))
    }
}

/// Asks for the cache lines of `len` bytes.
#[inline(always)]
pub(crate) fn prefetch(from: *const i8, len: usize) {
    #[cfg(target_arch = "x86_64")]
    for at in (0..len).step_by(64) {
        // SAFETY: a prefetch of any address is harmless.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(at));
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (from, len);
}

#[cfg(all(test, unix))]
mod guard_pages;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod train_tests;
