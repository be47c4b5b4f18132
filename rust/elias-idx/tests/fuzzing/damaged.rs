//! An index whose files are damaged behind their checksums is refused, or opened and searched without harm.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::LazyLock;

use elias_idx::{Dtype, Error, Index};
use serde_json::Value;

use super::input::Input;
use super::searches::{exercise, search};
use crate::common::{Files, Model, seal};

/// Files of an index, those that no edit touched borrowed.
type Edited = BTreeMap<String, Cow<'static, [u8]>>;

/// A whole index, and its manifest as JSON.
struct Base {
    files: Files,
    manifest: Value,
}

/// Of each dtype, with a screen and without, with fusion and without.
static BASES: LazyLock<Vec<Base>> = LazyLock::new(|| {
    let kinds = Dtype::ALL.into_iter().flat_map(|dtype| [(dtype, true), (dtype, false)]);
    kinds
        .flat_map(|(dtype, screen)| {
            [Model::complete_as(dtype, screen), Model::dense_as(dtype, screen)]
        })
        .map(|index| Base::of(&index))
        .collect()
});

impl Base {
    /// The index with the shortest manifest, as reading that takes the longest: checksums of tensors aren't looked at
    /// when an index is opened.
    fn of(index: &Index) -> Self {
        let mut files = index.to_files();
        let mut manifest: Value = serde_json::from_slice(&files["index.json"]).unwrap();
        for entry in manifest["tensors"].as_object_mut().unwrap().values_mut() {
            entry["sha256"] = "".into();
        }
        files.insert("index.json".to_owned(), sealed(manifest.clone()));
        Self { files, manifest }
    }
}

fn sealed(mut manifest: Value) -> Vec<u8> {
    manifest.as_object_mut().unwrap().remove("sha256");
    seal(&serde_json::to_vec(&manifest).unwrap()[1..])
}

pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let base = &BASES[usize::from(input.u8()) % BASES.len()];
    // What is searched for comes first, so that it stays as it is while the fuzzer adds edits.
    let mut wanted = Input::new(input.bytes(24));
    match Index::from_files(&edited(base, &mut input)) {
        Ok(index) => {
            search(&index, &mut wanted);
            exercise(&index);
        }
        Err(Error::Format { .. }) => (),
        Err(other) => panic!("{other}"),
    }
}

fn edited(base: &'static Base, input: &mut Input<'_>) -> Edited {
    let whole = base.files.iter();
    let mut files: Edited =
        whole.map(|(name, bytes)| (name.clone(), Cow::Borrowed(&bytes[..]))).collect();
    let mut manifest = Cow::Borrowed(&base.manifest);
    while !input.is_empty() {
        edit(&mut files, &mut manifest, input);
    }
    if let Cow::Owned(manifest) = manifest {
        files.insert("index.json".to_owned(), Cow::Owned(sealed(manifest)));
    }
    files
}

/// Makes one change to a tensor's file, or to what the manifest says.
fn edit(files: &mut Edited, manifest: &mut Cow<'static, Value>, input: &mut Input<'_>) {
    let kind = input.u8();
    let names: Vec<&String> = manifest["tensors"].as_object().unwrap().keys().collect();
    if names.is_empty() {
        input.rest();
        return;
    }
    let tensor = names[usize::from(input.u8()) % names.len()].clone();
    let file = files.get_mut(&format!("{tensor}.safetensors")).unwrap();
    let at = input.below(file.len() + 1);
    let header = data_start(file);
    match kind % 8 {
        // Often, as most of what can be wrong is wrong there.
        0..=2 => overwrite(file, header + at % (file.len() + 1 - header.min(file.len())), input),
        3 => overwrite(file, at, input),
        4 => {
            let len = usize::from(input.u8());
            let end = file.len().min(at + usize::from(input.u8()));
            file.to_mut().splice(at..end, input.bytes(len).iter().copied());
            let len = file.len();
            manifest.to_mut()["tensors"][tensor]["bytes"] = len.into();
        }
        5 => {
            let sizes = manifest.to_mut();
            let part = ["dims", "defaults", "fusion"][at % 3];
            if let Some(sizes) = sizes[part].as_object_mut() {
                let number = usize::from(input.u8()) % sizes.len();
                *sizes.values_mut().nth(number).unwrap() = input.size().into();
            }
        }
        6 => {
            let entry = &mut manifest.to_mut()["tensors"][tensor];
            match at % 4 {
                0 => entry["shape"] = input.list(Input::size).into(),
                1 => entry["dtype"] = ["F32", "F16", "BF16", "I8", "U64"][input.below(5)].into(),
                2 => entry["bytes"] = input.u64().into(),
                _ => entry["file"] = String::from_utf8_lossy(input.bytes(at % 32)).into(),
            }
        }
        _ => {
            manifest.to_mut()["tensors"].as_object_mut().unwrap().remove(&tensor);
        }
    }
}

fn overwrite(file: &mut Cow<'static, [u8]>, at: usize, input: &mut Input<'_>) {
    let len = 1 + usize::from(input.u8() % 16);
    let at = at.min(file.len());
    let end = file.len().min(at + len);
    let new = input.bytes(end - at);
    file.to_mut()[at..at + new.len()].copy_from_slice(new);
}

/// Where a tensor's data starts, as its file says.
fn data_start(file: &[u8]) -> usize {
    let header = file.first_chunk().map_or(0, |length| u64::from_le_bytes(*length));
    usize::try_from(header).unwrap_or(usize::MAX).saturating_add(8).min(file.len())
}
