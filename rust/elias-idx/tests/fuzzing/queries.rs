//! Any queries, sparse rows, filters and options on whole indexes: an error, or results as they should be.

use std::sync::LazyLock;

use elias_idx::{Dtype, Index};

use super::input::Input;
use super::searches::{assert_scored, search};
use crate::common::Model;

static INDEXES: LazyLock<Vec<Index>> = LazyLock::new(|| {
    let kinds = Dtype::ALL.into_iter().flat_map(|dtype| [(dtype, true), (dtype, false)]);
    kinds.map(|(dtype, screen)| Model::complete_as(dtype, screen)).collect()
});

pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let index = &INDEXES[usize::from(input.u8()) % INDEXES.len()];
    if let Some(hits) = search(index, &mut input) {
        assert_scored(&hits);
    }
}
