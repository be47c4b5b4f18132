//! Label weights in every dtype, with and without 8-bit codes beside them: what is stored, how one
//! becomes another, and what is refused.

mod common;

use std::path::Path;

use common::{Model, options, reseal};
use elias_idx::{ArgumentError, Destination, Dtype, Error, Index, LabelWeights, Loading};

const TO_MEMORY: Destination<'static> = Destination::Memory;

/// A model of odd sizes.
fn model() -> Model {
    Model::random(11, 33, 21, 50, 9)
}

fn rows(index: &Index) -> Vec<f32> {
    let mut rows = vec![0.0; index.num_labels() * index.label_dim()];
    for (label, row) in rows.chunks_mut(index.label_dim()).enumerate() {
        index.label_row(label, row).unwrap();
    }
    rows
}

fn argument_error(result: Result<Index, Error>) -> ArgumentError {
    match result.err() {
        Some(Error::Argument(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_dtype_survives_every_way_of_keeping_it() {
    let root = tempfile::tempdir().unwrap();
    for dtype in Dtype::ALL {
        for screen in [true, false] {
            let built = model().build_as(dtype, screen, None);
            assert_eq!((built.dtype(), built.has_screen()), (dtype, screen));
            let folder = root.path().join(format!("{dtype}-{screen}"));
            built.save(&folder, false).unwrap();
            for loading in [Loading::Map, Loading::Prefault, Loading::Read] {
                let loaded = Index::load(&folder, loading).unwrap();
                loaded.verify().unwrap();
                assert_eq!((loaded.dtype(), loaded.has_screen()), (dtype, screen));
                assert_eq!(loaded.to_files(), built.to_files());
                assert_eq!(rows(&loaded), rows(&built));
                let queries = vec![0.25; 3 * built.dim()];
                let search =
                    |index: &Index| index.search(&queries, 7, &options(5, 30), &mut || false);
                assert_eq!(search(&loaded).unwrap(), search(&built).unwrap());
            }
        }
    }
}

#[test]
fn rows_are_rounded_to_the_nearest() {
    let weights = model().label_weights;
    for (dtype, step) in
        [(Dtype::Float32, 0.0), (Dtype::BFloat16, 1.0 / 256.0), (Dtype::Float16, 1.0 / 2048.0)]
    {
        for (stored, exact) in rows(&model().build_as(dtype, true, None)).iter().zip(&weights) {
            assert!((stored - exact).abs() <= step * exact.abs(), "{dtype}: {stored} for {exact}");
        }
    }
    for (stored, exact) in
        rows(&model().build_as(Dtype::Int8, true, None)).chunks(33).zip(weights.chunks(33))
    {
        let scale = exact.iter().fold(0.0_f32, |largest, value| largest.max(value.abs())) / 127.0;
        for (stored, exact) in stored.iter().zip(exact) {
            assert!((stored - exact).abs() <= 0.5001 * scale, "{stored} for {exact}");
        }
    }
    // Halves go to the even neighbour.
    let mut halfway = Model::random(1, 1, 1, 2, 1);
    halfway.label_weights = vec![1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0];
    assert_eq!(rows(&halfway.build_as(Dtype::BFloat16, true, None)), [1.0, 1.0 + 4.0 / 256.0]);
}

#[test]
fn weights_are_seen_as_they_are_stored() {
    let weights = |dtype| {
        let index = model().build_as(dtype, false, None);
        let bytes = index.memory();
        let shown = match index.label_weights() {
            Some(LabelWeights::Float32(rows)) => (Dtype::Float32, rows.len()),
            Some(LabelWeights::BFloat16(rows)) => (Dtype::BFloat16, rows.len()),
            Some(LabelWeights::Float16(rows)) => (Dtype::Float16, rows.len()),
            None => (Dtype::Int8, 0),
        };
        (shown, bytes.get("label_weights").copied(), bytes.get("label_codes").copied())
    };
    let len = 50 * 33;
    assert_eq!(weights(Dtype::Float32), ((Dtype::Float32, len), Some(4 * len), None));
    assert_eq!(weights(Dtype::BFloat16), ((Dtype::BFloat16, len), Some(2 * len), None));
    assert_eq!(weights(Dtype::Float16), ((Dtype::Float16, len), Some(2 * len), None));
    assert_eq!(weights(Dtype::Int8), ((Dtype::Int8, 0), None, Some(len)));
    let index = model().build();
    let mut row = vec![0.0; 33];
    assert!(matches!(
        index.label_row(50, &mut row),
        Err(Error::Argument(ArgumentError::NoSuchLabel { .. }))
    ));
    assert!(matches!(
        index.label_row(0, &mut row[1..]),
        Err(Error::Argument(ArgumentError::WrongLength { .. }))
    ));
}

#[test]
fn quantizing_gives_what_building_in_that_dtype_gives() {
    let root = tempfile::tempdir().unwrap();
    let complete = |dtype, screen| Model::complete_as(dtype, screen);
    for source_screen in [true, false] {
        let source = complete(Dtype::Float32, source_screen);
        source.save(root.path().join("source"), true).unwrap();
        let mapped = Index::load(root.path().join("source"), Loading::Map).unwrap();
        for dtype in Dtype::ALL {
            for screen in [true, false] {
                let expected = complete(dtype, screen).to_files();
                let in_memory = source.quantize(dtype, screen, TO_MEMORY).unwrap();
                assert_eq!(in_memory.to_files(), expected, "{dtype} {screen}");
                let path = root.path().join("quantized");
                let folder = Destination::Folder { path: &path, overwrite: true };
                let streamed = mapped.quantize(dtype, screen, folder).unwrap();
                streamed.verify().unwrap();
                assert_eq!(streamed.to_files(), expected, "{dtype} {screen}");
                assert_eq!(streamed.source().unwrap().path, path);
            }
        }
    }
}

#[test]
fn floats_widen_exactly_and_codes_never_become_floats() {
    for dtype in [Dtype::BFloat16, Dtype::Float16] {
        let half = model().build_as(dtype, true, None);
        let wide = half.quantize(Dtype::Float32, true, TO_MEMORY).unwrap();
        assert_eq!(rows(&wide), rows(&half));
        let back = wide.quantize(dtype, true, TO_MEMORY).unwrap();
        assert_eq!(back.to_files(), half.to_files());
    }
    let coded = model().build_as(Dtype::Int8, true, None);
    for dtype in [Dtype::Float32, Dtype::BFloat16, Dtype::Float16] {
        let error = argument_error(coded.quantize(dtype, true, TO_MEMORY));
        assert_eq!(error, ArgumentError::NoExactRows { dtype: dtype.name() });
    }
    let bare = coded.quantize(Dtype::Int8, false, TO_MEMORY).unwrap();
    assert_eq!(bare.to_files(), model().build_as(Dtype::Int8, false, None).to_files());
    assert_eq!(bare.quantize(Dtype::Int8, true, TO_MEMORY).unwrap().to_files(), coded.to_files());
}

#[test]
fn an_index_may_replace_the_one_that_it_is_made_of() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("index");
    model().build().save(&folder, false).unwrap();
    let mapped = Index::load(&folder, Loading::Map).unwrap();
    let keep = Destination::Folder { path: &folder, overwrite: false };
    assert!(matches!(mapped.quantize(Dtype::Int8, true, keep), Err(Error::Io { .. })));
    let replace = Destination::Folder { path: &folder, overwrite: true };
    let coded = mapped.quantize(Dtype::Int8, true, replace).unwrap();
    assert_eq!(coded.dtype(), Dtype::Int8);
    assert_eq!(mapped.to_files(), model().build().to_files());
    mapped.verify().unwrap();
    assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 1);
}

#[test]
fn a_damaged_source_is_not_converted_or_saved() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("copy");
    let folder = Destination::Folder { path: &path, overwrite: false };
    for dtype in Dtype::ALL {
        let files = Model::complete_as(dtype, true).to_files();
        let mut tested = Vec::new();
        for name in files.keys().filter(|name| name.ends_with(".safetensors")) {
            let mut files = files.clone();
            // The lowest bit of a number, or a bit of a name.
            let bytes = files.get_mut(name).unwrap();
            let at = bytes.len() - 4;
            bytes[at] ^= 1;
            let Ok(damaged) = Index::from_files(&files) else {
                continue; // seen even without the checksum
            };
            // Codes are made anew where there are exact weights.
            let is_read = !name.starts_with("cluster_panel")
                && (dtype == Dtype::Int8 || !name.starts_with("label_code"));
            let quantized = damaged.quantize(Dtype::Int8, true, folder).map(drop);
            assert_eq!(quantized.is_err(), is_read, "{dtype} {name}");
            if is_read {
                tested.push(name.strip_suffix(".safetensors").unwrap());
                for result in [quantized, damaged.save(&path, false)] {
                    let message = result.unwrap_err().to_string();
                    assert!(message.starts_with(&format!("{name}: damaged")), "{message}");
                    assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
                }
            } else {
                Index::load(&path, Loading::Map).unwrap().verify().unwrap();
                std::fs::remove_dir_all(&path).unwrap();
            }
        }
        for name in ["cluster_weights", "cluster_bias", "label_projection", "label_bias"] {
            assert!(tested.contains(&name), "{name}");
        }
        let rows = if dtype == Dtype::Int8 { "label_codes" } else { "label_weights" };
        assert!(tested.contains(&rows), "{rows}");
    }
}

#[test]
fn values_beyond_a_dtype_are_refused_by_position() {
    let with = |value: f32| {
        let mut model = model();
        model.label_weights[5 * 33 + 32] = value;
        model.build()
    };
    for (dtype, most, beyond, limit) in [
        (Dtype::Float16, 65_504.0, 65_505.0, 65_504.0),
        (Dtype::BFloat16, 3.389_531_4e38, f32::MAX, 3.389_531_4e38),
    ] {
        for sign in [1.0, -1.0] {
            let fits = with(sign * most).quantize(dtype, true, TO_MEMORY).unwrap();
            assert_eq!(rows(&fits)[5 * 33 + 32], sign * most);
            let value = sign * beyond;
            let error = argument_error(with(value).quantize(dtype, true, TO_MEMORY));
            let (name, position, dtype) = ("label_weights", "5, 32".to_owned(), dtype.name());
            assert_eq!(error, ArgumentError::TooLarge { name, position, value, dtype, limit });
        }
    }
    with(f32::MAX).quantize(Dtype::Int8, true, TO_MEMORY).unwrap();
}

#[test]
fn very_wide_rows_have_no_codes() {
    let wide = |dim| Model::random(3, dim, 1, 1, 1);
    assert!(wide(65_536).build().has_screen());
    let index = wide(65_537).build();
    assert!(!index.has_screen());
    let error = argument_error(index.quantize(Dtype::Int8, true, TO_MEMORY));
    assert_eq!(error, ArgumentError::TooWide { limit: 65_536, received: 65_537 });
    // Only the labels' dimensions count for their codes.
    let projected = wide(65_537).with_projection(1, 4).build_as(Dtype::Int8, true, None);
    assert!(!projected.has_screen());
    assert_eq!(projected.dtype(), Dtype::Int8);
}

#[test]
fn required_features_name_the_dtype() {
    for (dtype, feature) in [
        (Dtype::Float32, None),
        (Dtype::BFloat16, Some("bfloat16_labels")),
        (Dtype::Float16, Some("float16_labels")),
        (Dtype::Int8, Some("int8_labels")),
    ] {
        let files = model().build_as(dtype, true, None).to_files();
        let manifest: serde_json::Value = serde_json::from_slice(&files["index.json"]).unwrap();
        let expected: Vec<&str> = feature.into_iter().collect();
        assert_eq!(manifest["required_features"], serde_json::json!(expected));
    }
}

#[test]
fn a_reader_can_do_without_the_codes_beside_exact_weights() {
    let mut files = model().build().to_files();
    for name in ["cluster_panels", "cluster_panel_meta", "label_codes", "label_code_meta"] {
        files.remove(&format!("{name}.safetensors"));
    }
    reseal(&mut files, |manifest| {
        let tensors = manifest["tensors"].as_object_mut().unwrap();
        tensors.retain(|name, _| !name.contains("panel") && !name.contains("code"));
    });
    let bare = Index::from_files(&files).unwrap();
    assert!(!bare.has_screen());
    assert_eq!(
        bare.to_files().len(),
        model().build_as(Dtype::Float32, false, None).to_files().len()
    );
}

/// An index written before there were codes; its folder is kept as it was.
#[test]
fn an_index_of_before_the_codes_still_opens() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/format-1-float32");
    for loading in [Loading::Map, Loading::Read] {
        let old = Index::load(&folder, loading).unwrap();
        old.verify().unwrap();
        assert_eq!((old.dtype(), old.has_screen()), (Dtype::Float32, false));
        let unscreened = Model::dense_as(Dtype::Float32, false);
        assert_eq!(old.to_files(), unscreened.to_files());
        let screened = old.quantize(Dtype::Float32, true, TO_MEMORY).unwrap();
        assert_eq!(screened.to_files(), Model::dense_as(Dtype::Float32, true).to_files());
    }
}
