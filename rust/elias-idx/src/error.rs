//! Everything that can go wrong, as one enum: a bad argument, a bad index, the file system.

use std::io;
use std::path::{Path, PathBuf};

/// The result of anything that can fail here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The caller passed something that can't be used.
    #[error(transparent)]
    Argument(#[from] ArgumentError),
    /// The index is damaged, foreign or newer than this library.
    #[error("{location}: {kind}")]
    Format {
        /// The file or folder that is at fault.
        location: String,
        /// What is wrong with it.
        kind: FormatError,
    },
    /// The file system refused.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The path that was worked on.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The caller's hook asked to stop.
    #[error("the search was interrupted")]
    Interrupted,
    /// The system gave no memory.
    #[error("no memory for {bytes} bytes of {what}")]
    OutOfMemory {
        /// What the memory was for.
        what: &'static str,
        /// How much was asked for.
        bytes: usize,
    },
    /// A fault of this library: a thread panicked.
    #[error("a thread panicked: {0}; please report this")]
    Panicked(String),
}

impl Error {
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        Error::Io { path: path.to_path_buf(), source }
    }

    pub(crate) fn format(location: impl Into<String>, kind: FormatError) -> Self {
        Error::Format { location: location.into(), kind }
    }
}

/// A caller's mistake, with the numbers that show it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ArgumentError {
    /// The environment asks for kernels that there are none of.
    #[error("the environment variable {variable} is '{found}': this machine has {available}")]
    UnknownLevel {
        /// The variable.
        variable: &'static str,
        /// Its value.
        found: String,
        /// What it may be.
        available: String,
    },
    /// An array's length doesn't fit the others.
    #[error("{name} must have {expected} values, got {received}")]
    WrongLength {
        /// The argument.
        name: &'static str,
        /// What the other arguments imply.
        expected: usize,
        /// What was passed.
        received: usize,
    },
    /// A count that must be positive is 0.
    #[error("{name} must be at least 1, got 0")]
    Zero {
        /// The argument.
        name: &'static str,
    },
    /// A count is above what ids of 32 bits can name.
    #[error("{name} must be at most {limit}, got {received}", limit = crate::matrix::MAX_IDS)]
    TooMany {
        /// The argument.
        name: &'static str,
        /// What was passed.
        received: usize,
    },
    /// A query holds NaN or infinity.
    #[error("row {row} of embeddings holds NaN or infinity (as float32)")]
    NonFiniteQuery {
        /// The query's number in the batch.
        row: usize,
    },
    /// A weight is NaN or infinite.
    #[error("{name}[{position}] is {value}: it must be finite as float32")]
    NonFinite {
        /// The argument.
        name: &'static str,
        /// Its index, as text: `3` or `3, 17`.
        position: String,
        /// The value found there.
        value: f32,
    },
    /// A value is beyond what the index's dtype holds.
    #[error(
        "{name}[{position}] is {value}, beyond the {limit} that {dtype} can hold: use another dtype"
    )]
    TooLarge {
        /// The argument.
        name: &'static str,
        /// Its row and column, as text: `3, 17`.
        position: String,
        /// The value found there.
        value: f32,
        /// The dtype's name.
        dtype: &'static str,
        /// The largest value of that dtype.
        limit: f32,
    },
    /// A name that no dtype has.
    #[error("dtype must be 'float32', 'bfloat16', 'float16' or 'int8', got '{0}'")]
    BadDtype(String),
    /// Rows are too wide for 8-bit codes.
    #[error("dtype int8 takes at most {limit} dimensions, got {received}: use another dtype")]
    TooWide {
        /// The largest number of dimensions.
        limit: usize,
        /// D'.
        received: usize,
    },
    /// The rows that another dtype would be made of are gone.
    #[error("an int8 index can't become {dtype}: start from the index that it was made of")]
    NoExactRows {
        /// The dtype that was asked for.
        dtype: &'static str,
    },
    /// An index in the making missed something.
    #[error("an earlier push to this writer failed: start over")]
    BrokenWriter,
    /// Alpha isn't a finite positive number.
    #[error("alpha must be finite and positive, got {0}")]
    BadAlpha(f64),
    /// The adjacency isn't a proper CSR matrix of weights in (0, 1].
    #[error("adjacency: {0}")]
    BadAdjacency(String),
    /// A sparse matrix isn't proper CSR.
    #[error("{name}: {reason}")]
    BadMatrix {
        /// The argument.
        name: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A matrix has another shape than the others imply.
    #[error("{name} must be {expected:?}, got {received:?}")]
    WrongShape {
        /// The argument.
        name: &'static str,
        /// Rows and columns that the other arguments imply.
        expected: [usize; 2],
        /// What was passed.
        received: [usize; 2],
    },
    /// The index lacks what a call with sparse features takes.
    #[error("{0}")]
    NoFusion(&'static str),
    /// The trees of a fusion aren't proper.
    #[error("trees: {0}")]
    BadTrees(String),
    /// There can't be so many clusters.
    #[error("num_clusters must be from 1 to the number of labels, {expected}, got {received}")]
    BadNumClusters {
        /// L.
        expected: usize,
        /// What was passed.
        received: usize,
    },
    /// The label names can't be used.
    #[error("label_names: {0}")]
    BadNames(String),
    /// The CSR matrix of a filter is broken.
    #[error("filter: {0}")]
    BadFilter(String),
    /// A filter was made by another index, whose labels may be others.
    #[error("the filter was made by another index: make it with label_filter of this one")]
    ForeignFilter,
    /// The least score isn't a number.
    #[error("min_score must not be NaN")]
    BadMinScore,
    /// A name that no label has.
    #[error("no label is called {0:?}")]
    NoSuchName(String),
    /// A label id doesn't exist.
    #[error("label {label} is out of range: the index has {num_labels} labels")]
    NoSuchLabel {
        /// The id.
        label: i64,
        /// L.
        num_labels: usize,
    },
    /// All labels would be gone.
    #[error("an index has at least one label: these are all that there are")]
    NoLabelsLeft,
    /// Blocks of n-grams, or their parts, aren't proper.
    #[error("{0}")]
    BadFeatures(String),
    /// The arrays of a training step don't fit together.
    #[error("{0}")]
    BadStep(String),
    /// A path that no folder can be saved to.
    #[error("{path}: {reason}", path = path.display())]
    BadPath {
        /// The path.
        path: PathBuf,
        /// Why not.
        reason: &'static str,
    },
}

/// What is wrong with an index's files.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// The folder or file was not written by elias_idx.
    #[error("not an elias_idx index ({0})")]
    Foreign(String),
    /// A later version of the format.
    #[error("written by a newer elias_idx, format {found}; this reads {supported}: upgrade")]
    Newer {
        /// The file's version.
        found: u64,
        /// The newest version that this library reads.
        supported: u64,
    },
    /// The index can't be used without something that this library lacks.
    #[error("needs the feature '{0}', which this version of elias_idx lacks: upgrade")]
    UnknownFeature(String),
    /// A file's bytes don't match its recorded checksum.
    #[error("damaged: its SHA-256 is not the recorded one")]
    Checksum,
    /// A file is longer or shorter than recorded.
    #[error("damaged: {found} bytes long, {expected} recorded")]
    WrongSize {
        /// The recorded size.
        expected: u64,
        /// The real size.
        found: u64,
    },
    /// A file that the manifest names isn't there.
    #[error("missing, though the index's index.json names it")]
    Missing,
    /// The contents break a rule of the format.
    #[error("damaged: {0}")]
    Invalid(String),
}
