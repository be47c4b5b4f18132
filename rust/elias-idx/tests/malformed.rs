//! Bytes that are no index, or a damaged one: each is refused with an error that says so, and none
//! makes the crate panic.

mod common;

use std::fs;
use std::path::Path;

use common::{Files, Model, Numbers, SPARSE, options, reseal};
use elias_idx::{Dtype, Error, FormatError, Index, Loading, SearchOptions};

fn files() -> Files {
    Model::complete().to_files()
}

fn error(files: &Files) -> FormatError {
    match Index::from_files(files).err() {
        Some(Error::Format { kind, .. }) => kind,
        other => panic!("{other:?}"),
    }
}

fn message(files: &Files) -> String {
    Index::from_files(files).err().expect("an error").to_string()
}

/// Uses all of an index that was let in.
fn exercise(index: &Index) {
    let queries = vec![0.5; 2 * index.dim()];
    index.search(&queries, 9, &options(9, 9), &mut || false).unwrap();
    index.shortlist(&queries, &options(1, 9), &mut || false).unwrap();
    if index.num_features() == Some(SPARSE.num_columns) {
        let options = SearchOptions { sparse: Some(SPARSE), ..options(9, 9) };
        let evidence = index.evidence(&queries, &options, &mut || false).unwrap();
        assert!(evidence.values.iter().all(|value| value.is_finite()));
        let _ = index.search(&queries, 9, &options, &mut || false);
    }
    for label in 0..index.num_labels() {
        let _ = index.label_names().map(|names| names.get(label));
    }
    let _ = index.verify();
}

/// The start of a tensor's data within its file.
fn data_start(file: &[u8]) -> usize {
    8 + u64::from_le_bytes(file[..8].try_into().unwrap()) as usize
}

#[test]
fn the_undamaged_index_loads() {
    exercise(&Index::from_files(&files()).unwrap());
    let mut resealed = files();
    reseal(&mut resealed, |_| ());
    exercise(&Index::from_files(&resealed).unwrap());
}

#[test]
fn every_truncation_is_refused() {
    let whole = files();
    for (name, bytes) in &whole {
        for len in 0..bytes.len() {
            let mut damaged = whole.clone();
            damaged.insert(name.clone(), bytes[..len].to_vec());
            assert!(Index::from_files(&damaged).is_err(), "{name}, {len} bytes");
            if name != "index.json" {
                // Even where the manifest agrees with the shorter file.
                reseal(&mut damaged, |_| ());
                assert!(Index::from_files(&damaged).is_err(), "{name}, {len} bytes, resealed");
            }
        }
    }
}

#[test]
fn appended_bytes_are_refused() {
    let whole = files();
    for name in whole.keys() {
        let mut damaged = whole.clone();
        damaged.get_mut(name).unwrap().push(0);
        assert!(Index::from_files(&damaged).is_err(), "{name}");
        if name != "index.json" {
            reseal(&mut damaged, |_| ());
            assert!(Index::from_files(&damaged).is_err(), "{name}, resealed");
        }
    }
}

#[test]
fn every_changed_byte_is_noticed() {
    let whole = files();
    for (name, bytes) in &whole {
        for at in 0..bytes.len() {
            let mut damaged = whole.clone();
            damaged.get_mut(name).unwrap()[at] ^= 1 << (at % 8);
            let Ok(index) = Index::from_files(&damaged) else { continue };
            let error = index.verify().expect_err("a changed byte");
            assert!(error.to_string().starts_with(name.as_str()), "{error}");
        }
    }
}

#[test]
fn changed_bytes_under_right_checksums_do_no_harm() {
    let mut numbers = Numbers::new(3);
    for dtype in Dtype::ALL {
        let whole = Model::complete_as(dtype, true).to_files();
        for name in whole.keys().filter(|name| *name != "index.json") {
            for round in 0..150 {
                let mut damaged = whole.clone();
                let file = damaged.get_mut(name).unwrap();
                for _ in 0..1 + round % 4 {
                    let at = numbers.bits() as usize % file.len();
                    file[at] = numbers.bits() as u8;
                }
                reseal(&mut damaged, |_| ());
                match Index::from_files(&damaged) {
                    Ok(index) => exercise(&index),
                    Err(Error::Format { .. }) => (),
                    Err(other) => panic!("{other}"),
                }
            }
        }
    }
}

#[test]
fn missing_files_are_named() {
    let whole = files();
    for name in whole.keys() {
        let mut damaged = whole.clone();
        damaged.remove(name);
        assert_eq!(error(&damaged), FormatError::Missing);
        assert!(message(&damaged).starts_with(name.as_str()));
    }
}

#[test]
fn missing_tensors_are_named() {
    for name in [
        "cluster_weights",
        "adjacency_offsets",
        "label_bias",
        "label_name_bytes",
        "label_code_meta",
        "cluster_panel_meta",
        "label_counts",
        "ranker_weights",
        "ranker_bias",
        "label_text_features",
        "cooccurrence_shares",
        "neighbour_values",
        "neighbour_labels",
        "fusion_tree_columns",
        "fusion_tree_values",
    ] {
        let mut damaged = files();
        reseal(&mut damaged, |manifest| {
            manifest["tensors"].as_object_mut().unwrap().remove(name);
        });
        assert!(message(&damaged).contains(&format!("lacks the tensor '{name}'")));
    }
    // An index without exact label weights or codes has no labels.
    let mut damaged = files();
    reseal(&mut damaged, |manifest| {
        let tensors = manifest["tensors"].as_object_mut().unwrap();
        tensors.retain(|name, _| name != "label_weights" && name != "label_codes");
    });
    assert!(message(&damaged).contains("lacks the tensor 'label_weights'"));
    let mut damaged = files();
    reseal(&mut damaged, |manifest| {
        manifest["tensors"].as_object_mut().unwrap().remove("label_projection");
    });
    assert!(message(&damaged).contains("label_dim 3 is not dim 5"));
}

#[test]
fn newer_versions_and_unknown_features_are_refused_by_name() {
    let mut newer = files();
    reseal(&mut newer, |manifest| manifest["format_version"] = 2.into());
    assert_eq!(
        message(&newer),
        "index.json: written by a newer elias_idx, format 2; this reads 1: upgrade"
    );
    let mut feature = files();
    reseal(&mut feature, |manifest| manifest["required_features"] = ["warp"].as_slice().into());
    assert!(message(&feature).contains("needs the feature 'warp'"));
}

#[test]
fn unknown_tensors_and_keys_are_let_in_sized_and_verified() {
    let mut extended = files();
    extended.insert("ranker.bin".to_owned(), vec![1, 2, 3]);
    let add = |manifest: &mut serde_json::Value| {
        manifest["note"] = "hello".into();
        manifest["dims"]["more"] = 1.into();
        manifest["tensors"]["ranker"] = serde_json::json!({
            "file": "ranker.bin", "dtype": "Q9", "shape": [1], "bytes": 3, "codec": "new",
            "sha256": "039058c6f2c0cb492c533b0a4d14ef77cc0f78abccced5287d84a1a2011cfb81",
        });
    };
    reseal(&mut extended, add);
    let index = Index::from_files(&extended).unwrap();
    exercise(&index);
    index.verify().unwrap();
    extended.insert("ranker.bin".to_owned(), vec![1, 2, 4]);
    let error = Index::from_files(&extended).unwrap().verify().unwrap_err();
    assert!(error.to_string().starts_with("ranker.bin: damaged"));
    extended.insert("ranker.bin".to_owned(), vec![1, 2]);
    assert_eq!(error_size(&extended), (3, 2));
}

fn error_size(files: &Files) -> (u64, u64) {
    match error(files) {
        FormatError::WrongSize { expected, found } => (expected, found),
        other => panic!("{other}"),
    }
}

#[test]
fn paths_that_lead_elsewhere_are_refused() {
    for file in ["../x", "/etc/passwd", "a/b", "..", "", "C:\\x", ".hidden", "index.json", "a\0b"] {
        let mut damaged = files();
        if file != "index.json" {
            damaged.insert(file.to_owned(), damaged["cluster_bias.safetensors"].clone());
        }
        reseal(&mut damaged, |manifest| {
            manifest["tensors"]["cluster_bias"]["file"] = file.into();
        });
        assert!(message(&damaged).contains("no plain name"), "{file}");
    }
}

#[test]
fn two_tensors_never_share_a_file() {
    let mut damaged = files();
    reseal(&mut damaged, |manifest| {
        let entry = manifest["tensors"]["label_bias"].clone();
        manifest["tensors"]["ranker"] = entry;
    });
    assert!(message(&damaged).contains("'label_bias' and 'ranker' have the same file"));
}

#[test]
fn shapes_and_dtypes_must_agree_everywhere() {
    let huge = u64::MAX;
    let edits: [(&str, &str, serde_json::Value); 22] = [
        ("dims", "num_labels", 7.into()),
        ("dims", "num_labels", 4_294_967_294_u64.into()),
        ("dims", "num_labels", huge.into()),
        ("dims", "num_clusters", 3.into()),
        ("dims", "num_clusters", 4_294_967_294_u64.into()),
        ("dims", "dim", 6.into()),
        ("dims", "dim", huge.into()),
        ("dims", "label_dim", huge.into()),
        ("cluster_weights", "shape", [4_u64, 6].as_slice().into()),
        ("cluster_weights", "shape", [huge, huge].as_slice().into()),
        ("adjacency_labels", "shape", [1_u64 << 62].as_slice().into()),
        ("adjacency_labels", "shape", serde_json::json!([])),
        ("label_name_bytes", "shape", [huge].as_slice().into()),
        ("label_weights", "dtype", "F16".into()),
        ("label_weights", "dtype", "BF16".into()),
        ("label_weights", "dtype", "I8".into()),
        ("label_codes", "shape", [6_u64, 4].as_slice().into()),
        ("label_codes", "dtype", "U8".into()),
        ("label_code_meta", "shape", [6_u64, 3].as_slice().into()),
        ("cluster_panels", "shape", [2_u64, 2, 16, 4].as_slice().into()),
        ("cluster_panels", "shape", [1_u64, 2, 64].as_slice().into()),
        ("cluster_panel_meta", "shape", [3_u64, 4].as_slice().into()),
    ];
    for (part, key, value) in edits {
        let mut damaged = files();
        reseal(&mut damaged, |manifest| {
            let whole = if part == "dims" { manifest } else { &mut manifest["tensors"] };
            whole[part][key] = value.clone();
        });
        assert!(matches!(error(&damaged), FormatError::Invalid(_)), "{part} {key} {value}");
    }
}

#[test]
fn a_huge_claimed_size_is_compared_to_the_file_first() {
    let mut damaged = files();
    reseal(&mut damaged, |manifest| {
        manifest["tensors"]["label_weights"]["bytes"] = (u64::MAX / 2).into();
    });
    assert_eq!(error_size(&damaged).0, u64::MAX / 2);
}

#[test]
fn values_that_a_search_relies_on_are_checked() {
    let f32s = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let u64s = |values: &[u64]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let u32s = |values: &[u32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let cases: [(&str, Vec<u8>, &str); 29] = [
        ("cluster_bias", f32s(&[f32::NAN]), "finite"),
        ("label_bias", f32s(&[f32::INFINITY]), "finite"),
        ("adjacency_offsets", u64s(&[1]), "must ascend from 0"),
        ("adjacency_offsets", u64s(&[0, u64::MAX]), "must ascend from 0"),
        ("adjacency_labels", 6_u32.to_le_bytes().to_vec(), "none of the 6 labels"),
        ("adjacency_weights", f32s(&[0.0]), "outside (0, 1]"),
        ("adjacency_weights", f32s(&[1e-9]), "descending"),
        ("label_name_offsets", u64s(&[1]), "from 0 to"),
        ("label_code_meta", f32s(&[-1.0]), "no row has"),
        ("label_code_meta", f32s(&[1.0, f32::NAN]), "isn't finite"),
        ("cluster_panel_meta", f32s(&[1.0, 0.0, f32::NAN]), "no row has"),
        ("cluster_panel_meta", f32s(&[1.0, 0.0, 0.0, -1.0]), "no row has"),
        ("ranker_offsets", u64s(&[1]), "must ascend from 0"),
        ("ranker_offsets", u64s(&[0, u64::MAX]), "must ascend from 0"),
        ("ranker_features", u32s(&[2]), "row 0 doesn't ascend"),
        ("ranker_features", u32s(&[0, 4]), "to a column below 4"),
        ("ranker_weights", f32s(&[f32::NAN]), "isn't finite"),
        ("ranker_bias", f32s(&[f32::INFINITY]), "finite"),
        ("label_text_features", u32s(&[4]), "to a column below 4"),
        ("cooccurrence_labels", u32s(&[6]), "to a column below 6"),
        ("neighbour_offsets", u64s(&[0, 4]), "must ascend from 0"),
        ("neighbour_texts", u32s(&[2]), "to a column below 2"),
        ("neighbour_label_offsets", u64s(&[0, 9]), "must ascend from 0"),
        ("neighbour_labels", u32s(&[1, 6]), "to a column below 6"),
        ("fusion_linear", f32s(&[f32::NAN]), "finite"),
        ("fusion_tree_columns", u32s(&[99]), "node 0 looks at column 99 of"),
        ("fusion_tree_columns", u32s(&[u32::MAX - 1]), "node 0 looks at column -2"),
        ("fusion_tree_children", u32s(&[0]), "must follow it"),
        ("fusion_tree_children", u32s(&[1, 3]), "must follow it in its tree"),
    ];
    for (tensor, start, expected) in cases {
        let mut damaged = files();
        let file = damaged.get_mut(&format!("{tensor}.safetensors")).unwrap();
        let data = data_start(file);
        file[data..data + start.len()].copy_from_slice(&start);
        reseal(&mut damaged, |_| ());
        let message = message(&damaged);
        let stem = if tensor.starts_with("fusion_tree") { "fusion_tree" } else { tensor };
        assert!(message.starts_with(stem) && message.contains(expected), "{tensor}: {message}");
    }
}

#[test]
fn names_are_checked_when_they_are_read() {
    let mut damaged = files();
    let file = damaged.get_mut("label_name_bytes.safetensors").unwrap();
    let data = data_start(file);
    file[data] = 0xff;
    reseal(&mut damaged, |_| ());
    let index = Index::from_files(&damaged).unwrap();
    let names = index.label_names().unwrap();
    assert!(names.get(0).unwrap_err().to_string().contains("not UTF-8"));
    assert_eq!(names.get(1).unwrap(), "näme 1");
}

/// What `load` says of a folder, mapped and read; both must say the same.
fn load_error(folder: &Path) -> Error {
    let mapped = Index::load(folder, Loading::Map).err().expect("an error");
    let read = Index::load(folder, Loading::Read).err().expect("an error");
    assert_eq!(mapped.to_string(), read.to_string());
    mapped
}

#[test]
fn folders_that_are_no_index_are_told_apart() {
    let root = tempfile::tempdir().unwrap();
    let missing = load_error(&root.path().join("missing"));
    assert!(
        matches!(missing, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
    );
    fs::write(root.path().join("file"), "x").unwrap();
    let file = load_error(&root.path().join("file"));
    assert!(
        matches!(file, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotADirectory)
    );
    let empty = load_error(root.path());
    assert!(empty.to_string().contains("not an elias_idx index"), "{empty}");
    fs::write(root.path().join("index.json"), "{}").unwrap();
    assert!(load_error(root.path()).to_string().contains("not an elias_idx index"));
    fs::write(root.path().join("index.json"), vec![b' '; 2 << 20]).unwrap();
    assert!(load_error(root.path()).to_string().contains("exceeds"));
    fs::remove_file(root.path().join("index.json")).unwrap();
    fs::create_dir(root.path().join("index.json")).unwrap();
    assert!(load_error(root.path()).to_string().contains("not a regular file"));
}

/// The error is one of the format and names the file.
fn assert_names(error: &Error, name: &str) {
    assert!(matches!(error, Error::Format { .. }), "{error}");
    assert!(error.to_string().contains(name), "{error} lacks {name}");
}

#[test]
fn files_that_shrank_grew_or_vanished_on_disk_are_named() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("index");
    let index = Model::complete();
    for name in index.to_files().keys() {
        let path = folder.join(name);
        let resave = || Index::save(&index, &folder, true);
        if folder.exists() {
            resave().unwrap();
        } else {
            index.save(&folder, false).unwrap();
        }
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        assert_names(&load_error(&folder), name);
        fs::write(&path, [&bytes[..], b"\0"].concat()).unwrap();
        assert_names(&load_error(&folder), name);
        fs::write(&path, "").unwrap();
        assert_names(&load_error(&folder), name);
        fs::remove_file(&path).unwrap();
        assert_names(&load_error(&folder), name);
        fs::write(&path, bytes).unwrap();
        Index::load(&folder, Loading::Map).unwrap().verify().unwrap();
    }
}
