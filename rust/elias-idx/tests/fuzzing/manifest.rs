//! Any bytes as `index.json`: with its checksum made right, so that they are parsed, or as they are.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::LazyLock;

use elias_idx::{Error, Index};

use super::input::Input;
use super::searches::exercise;
use crate::common::{Files, Model, seal};

/// The files that a manifest may name.
static FILES: LazyLock<Files> = LazyLock::new(|| Model::complete().to_files());

pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let manifest = if input.u8() == 0 { input.rest().to_vec() } else { seal(input.rest()) };
    let mut files: BTreeMap<_, _> =
        FILES.iter().map(|(name, bytes)| (name.clone(), Cow::Borrowed(&bytes[..]))).collect();
    files.insert("index.json".to_owned(), Cow::Owned(manifest));
    match Index::from_files(&files) {
        Ok(index) => exercise(&index),
        Err(Error::Format { .. }) => (),
        Err(other) => panic!("{other}"),
    }
}
