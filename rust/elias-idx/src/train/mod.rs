//! Training on a CPU: what a step spends its time on, fused so that each row is visited once.
//!
//! A step touches a few hundred thousand pairs of a query and a shortlisted label. Their arithmetic is
//! little; reading and writing the label classifiers' rows and moments is much. So the pairs are sorted by
//! label (`pairs`), and a label's row is visited once (`labels`): while it is in the cache, the logits of
//! its pairs are computed, their losses and derivatives, what it adds to the queries' gradients, its own
//! gradient, and its update. Tables of n-gram embeddings are treated alike (`bag`). Nothing is as large as
//! the number of labels or of the adjacency's entries: only rows and clusters that a step touches count.
//!
//! Sums have an order that depends on the data alone, so that results have the same bits with any number
//! of threads.

mod adjacency;
mod bag;
mod inputs;
mod label_step;
mod labels;
mod pairs;
mod ranker;
mod rows;
mod shortlist;

pub use bag::{Bags, bag_gradient, bag_product};
pub use inputs::{AdjacencyRows, Logits, Positives, Queries, Settings};
pub use label_step::{LabelStep, Loss, StepResult};
pub use ranker::{Ranker, RankerData, RankerOptions, train_ranker};
pub use rows::{Adam, Bias, Mode, RowGradients, Table, Weights, apply_gradients};

use crate::arguments::check_len;
use crate::error::{ArgumentError, Result};

/// Fails with a message unless the condition holds.
fn check(condition: bool, message: impl FnOnce() -> String) -> Result<()> {
    if condition { Ok(()) } else { Err(ArgumentError::BadStep(message()).into()) }
}

/// Checks the offsets of ragged rows over `num_entries` entries.
fn check_offsets(name: &str, offsets: &[i64], num_rows: usize, num_entries: usize) -> Result<()> {
    let whole = offsets.len() == num_rows + 1
        && offsets[0] == 0
        && usize::try_from(offsets[num_rows]) == Ok(num_entries)
        && offsets.is_sorted();
    check(whole, || {
        format!("{name} must rise from 0 to {num_entries} and have {} values", num_rows + 1)
    })
}

/// The entries of a ragged row; the offsets were checked.
fn entries(offsets: &[i64], row: usize) -> std::ops::Range<usize> {
    offsets[row] as usize..offsets[row + 1] as usize
}

/// An id as an index below `limit`.
fn checked_id(name: &str, id: i64, limit: usize) -> Result<usize> {
    let found = usize::try_from(id).ok().filter(|&id| id < limit);
    found.ok_or_else(|| {
        ArgumentError::BadStep(format!("{name} holds {id}, which must be below {limit}")).into()
    })
}
