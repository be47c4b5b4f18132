//! What is saved comes back, and saving never leaves half an index or harms another one.

mod common;

use std::fs;
use std::io;
use std::path::Path;

use common::{Model, options};
use elias_idx::{
    Defaults, Destination, Dtype, EVIDENCE, Error, Index, IndexParts, IndexWriter, LabelWeights,
    Loading,
};

fn assert_same(one: &Index, other: &Index) {
    assert_eq!(one.cluster_weights(), other.cluster_weights());
    assert_eq!(one.cluster_bias(), other.cluster_bias());
    assert_eq!(one.adjacency(), other.adjacency());
    assert_eq!(one.label_weights(), other.label_weights());
    assert_eq!(one.label_bias(), other.label_bias());
    assert_eq!((one.dtype(), one.has_screen()), (other.dtype(), other.has_screen()));
    assert_eq!(one.label_projection(), other.label_projection());
    assert_eq!(one.defaults(), other.defaults());
    assert_eq!(one.nbytes(), other.nbytes());
    let names = |index: &Index| -> Option<Vec<String>> {
        let names = index.label_names()?;
        Some((0..names.len()).map(|label| names.get(label).unwrap().to_owned()).collect())
    };
    assert_eq!(names(one), names(other));
}

fn entries(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn io_kind(result: Result<(), Error>) -> (io::ErrorKind, String) {
    match result {
        Err(Error::Io { source, .. }) => (source.kind(), source.to_string()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_index_survives_every_way_of_keeping_it() {
    let root = tempfile::tempdir().unwrap();
    let mut no_edges = Model::random(3, 2, 2, 2, 1);
    no_edges.rows.iter_mut().for_each(std::collections::BTreeMap::clear);
    let models = [
        Model::complete(),
        Model::random(1, 1, 1, 1, 1).build(),
        Model::random(2, 65, 9, 33, 5).build(),
        no_edges.build(),
    ];
    for (i, built) in models.iter().enumerate() {
        let folder = root.path().join(i.to_string());
        built.save(&folder, false).unwrap();
        for loading in [Loading::Map, Loading::Prefault, Loading::Read] {
            let loaded = Index::load(&folder, loading).unwrap();
            loaded.verify().unwrap();
            assert_same(built, &loaded);
            let source = loaded.source().unwrap();
            assert_eq!((&source.path, source.loading), (&folder, loading));
            assert_eq!(loaded.to_files(), built.to_files());
        }
        let copied = Index::from_files(&built.to_files()).unwrap();
        assert_same(built, &copied);
        assert!(copied.source().is_none());
        copied.verify().unwrap();
        for (name, bytes) in built.to_files() {
            assert_eq!(fs::read(folder.join(name)).unwrap(), bytes);
        }
    }
}

/// Two clusters and three labels of two dimensions, edges and label rows still to come.
fn shell() -> IndexParts<'static> {
    IndexParts {
        num_labels: 3,
        num_clusters: 2,
        dim: 2,
        cluster_weights: &[1.0, 2.0, 3.0, 4.0],
        cluster_bias: &[0.5, -0.5],
        adjacency_offsets: &[0, 2, 3],
        ..IndexParts::default()
    }
}

#[test]
fn an_index_grows_in_its_folder() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("index");
    let (labels, edges) = ([2, 0, 1], [0.5, 1.0, 1.0]);
    let (weights, bias) = ([1.0, -1.0, 2.0, 0.25, 3.0, 0.0], [0.0, 1.0, 2.0]);
    let whole = Index::build(&IndexParts {
        adjacency_labels: &labels,
        adjacency_weights: &edges,
        label_weights: &weights,
        label_bias: &bias,
        ..shell()
    });
    let folder = Destination::Folder { path: &path, overwrite: false };
    let mut writer = IndexWriter::new(&shell(), 3, folder).unwrap();
    // In any order, as long as the rows of each are.
    writer.push_labels(&weights[..2], &bias[..1]).unwrap();
    writer.push_edges(&labels[..2], &edges[..2]).unwrap();
    writer.push_labels(&weights[2..], &bias[1..]).unwrap();
    assert!(!path.exists());
    writer.push_edges(&labels[2..], &edges[2..]).unwrap();
    let built = writer.finish().unwrap();
    assert_eq!(built.source().unwrap().path, path);
    assert_same(&whole.unwrap(), &built);
    assert_eq!(entries(root.path()), ["index"]);
}

#[test]
fn an_index_that_is_not_finished_leaves_nothing() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("index");
    let folder = Destination::Folder { path: &path, overwrite: false };
    let mut writer = IndexWriter::new(&shell(), 3, folder).unwrap();
    writer.push_edges(&[2, 0, 1], &[0.5, 1.0, 1.0]).unwrap();
    writer.push_labels(&[1.0; 4], &[0.0; 2]).unwrap();
    let message = writer.finish().err().unwrap().to_string();
    assert_eq!(message, "label_bias must have 3 values, got 2");
    assert!(entries(root.path()).is_empty());
    for (weights, bias) in [(&[1.0; 4][..], &[0.0; 3][..]), (&[1.0; 8], &[0.0; 4])] {
        let mut writer = IndexWriter::new(&shell(), 3, folder).unwrap();
        assert!(writer.push_labels(weights, bias).is_err(), "too few weights, too many labels");
        // What was written of it is not known.
        let again = writer.push_labels(&[1.0; 6], &[0.0; 3]).err().unwrap().to_string();
        assert!(again.contains("start over"), "{again}");
        assert!(writer.push_edges(&[2, 0, 1], &[0.5, 1.0, 1.0]).is_err());
        assert!(writer.finish().is_err());
    }
    assert!(entries(root.path()).is_empty());
    // Nor does one that is given up, or that finds its place taken at the end.
    drop(IndexWriter::new(&shell(), 3, folder).unwrap());
    assert!(entries(root.path()).is_empty());
    let mut writer = IndexWriter::new(&shell(), 3, folder).unwrap();
    writer.push_edges(&[2, 0, 1], &[0.5, 1.0, 1.0]).unwrap();
    writer.push_labels(&[1.0; 6], &[0.0; 3]).unwrap();
    fs::create_dir(&path).unwrap();
    assert_eq!(io_kind(writer.finish().map(drop)).0, io::ErrorKind::AlreadyExists);
    assert_eq!(entries(root.path()), ["index"]);
    assert!(entries(&path).is_empty());
}

#[test]
fn all_tensors_start_at_multiples_of_64() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("index");
    Model::complete().save(&folder, false).unwrap();
    for loading in [Loading::Map, Loading::Read] {
        let index = Index::load(&folder, loading).unwrap();
        let Some(LabelWeights::Float32(weights)) = index.label_weights() else { panic!() };
        assert_eq!(weights.as_ptr() as usize % 64, 0);
        assert_eq!(index.adjacency().1.as_ptr() as usize % 64, 0);
    }
    for (name, bytes) in Model::complete().to_files() {
        if name != "index.json" {
            assert_eq!((8 + u64::from_le_bytes(bytes[..8].try_into().unwrap())) % 64, 0);
        }
    }
}

#[test]
fn nothing_is_overwritten_unasked() {
    let root = tempfile::tempdir().unwrap();
    let index = Model::complete();
    for name in ["index", "file"] {
        let path = root.path().join(name);
        if name == "index" {
            index.save(&path, false).unwrap();
        } else {
            fs::write(&path, "precious").unwrap();
        }
        let (kind, text) = io_kind(index.save(&path, false));
        assert_eq!(kind, io::ErrorKind::AlreadyExists);
        assert!(text.contains("overwrite"), "{text}");
    }
    assert_eq!(io_kind(index.save(root.path().join("file"), true)).0, io::ErrorKind::NotADirectory);
    assert_eq!(fs::read_to_string(root.path().join("file")).unwrap(), "precious");
}

#[test]
fn only_an_index_and_nothing_more_is_overwritten() {
    let root = tempfile::tempdir().unwrap();
    let index = Model::complete();
    let folder = root.path().join("folder");
    fs::create_dir(&folder).unwrap();
    let refused = |expected: &str| {
        let before = entries(&folder);
        let (kind, text) = io_kind(index.save(&folder, true));
        assert_eq!(kind, io::ErrorKind::AlreadyExists);
        assert!(text.contains(expected), "{text}");
        assert_eq!(entries(&folder), before);
        assert_eq!(entries(root.path()), ["folder"]);
    };
    refused("has no index.json");
    fs::write(folder.join("index.json"), "{\"sha256\": 1}").unwrap();
    refused("another's");
    fs::remove_dir_all(&folder).unwrap();
    index.save(&folder, false).unwrap();
    fs::write(folder.join("notes.txt"), "precious").unwrap();
    refused("holds \"notes.txt\"");
    fs::remove_file(folder.join("notes.txt")).unwrap();
    fs::create_dir(folder.join("sub")).unwrap();
    refused("holds \"sub\"");
    fs::remove_dir(folder.join("sub")).unwrap();
    // A damaged index may be replaced.
    fs::write(folder.join("label_bias.safetensors"), "x").unwrap();
    fs::remove_file(folder.join("label_weights.safetensors")).unwrap();
    index.save(&folder, true).unwrap();
    Index::load(&folder, Loading::Map).unwrap().verify().unwrap();
}

#[test]
fn what_is_put_into_the_old_folder_during_a_build_is_not_deleted() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("index");
    Model::complete().save(&path, false).unwrap();
    let folder = Destination::Folder { path: &path, overwrite: true };
    let mut writer = IndexWriter::new(&shell(), 3, folder).unwrap();
    writer.push_edges(&[2, 0, 1], &[0.5, 1.0, 1.0]).unwrap();
    writer.push_labels(&[1.0; 6], &[0.0; 3]).unwrap();
    fs::write(path.join("notes.txt"), "precious").unwrap();
    let (kind, text) = io_kind(writer.finish().map(drop));
    assert_eq!(kind, io::ErrorKind::AlreadyExists);
    assert!(text.contains("holds \"notes.txt\""), "{text}");
    assert_eq!(fs::read_to_string(path.join("notes.txt")).unwrap(), "precious");
    assert_eq!(entries(root.path()), ["index"]);
}

#[test]
fn a_mapped_index_outlives_its_folder() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("index");
    let old = Model::random(1, 7, 5, 40, 9);
    old.build().save(&folder, false).unwrap();
    let mapped = Index::load(&folder, Loading::Map).unwrap();
    let queries = vec![0.25; 3 * 7];
    let before = mapped.search(&queries, 5, &options(3, 20), &mut || false).unwrap();
    let new = Model::random(2, 7, 5, 41, 9).build();
    new.save(&folder, true).unwrap();
    assert_eq!(mapped.search(&queries, 5, &options(3, 20), &mut || false).unwrap(), before);
    mapped.verify().unwrap();
    assert_same(&new, &Index::load(&folder, Loading::Map).unwrap());
    // It can even be saved over the folder that replaced its own.
    mapped.save(&folder, true).unwrap();
    assert_same(&mapped, &Index::load(&folder, Loading::Map).unwrap());
    fs::remove_dir_all(&folder).unwrap();
    assert_eq!(mapped.search(&queries, 5, &options(3, 20), &mut || false).unwrap(), before);
}

#[test]
fn a_load_during_saves_gets_one_index_whole() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("index");
    let models = [Model::random(1, 6, 4, 40, 5).build(), Model::random(2, 6, 4, 40, 5).build()];
    models[0].save(&folder, false).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for model in models.iter().cycle().take(60) {
                model.save(&folder, true).unwrap();
            }
            done.store(true, std::sync::atomic::Ordering::Release);
        });
        while !done.load(std::sync::atomic::Ordering::Acquire) {
            for loading in [Loading::Map, Loading::Read] {
                // The checksums of another index's files would not be those of this one's manifest.
                Index::load(&folder, loading).unwrap().verify().unwrap();
            }
        }
    });
}

#[test]
fn a_missing_parent_is_an_error() {
    let root = tempfile::tempdir().unwrap();
    let (kind, _) = io_kind(Model::complete().save(root.path().join("no/such"), false));
    assert_eq!(kind, io::ErrorKind::NotFound);
    assert!(entries(root.path()).is_empty());
}

#[test]
fn other_defaults_change_nothing_else() {
    let index = Model::complete();
    let other = index.with_defaults(Some(3), Some(4), Some(1)).unwrap();
    let expected = Defaults { beam_size: 3, shortlist_size: 4, ..index.defaults() };
    assert_eq!((other.defaults(), other.num_candidates()), (expected, Some(1)));
    assert_eq!(other.cluster_weights().as_ptr(), index.cluster_weights().as_ptr());
    other.verify().unwrap();
    assert_same(&other.with_defaults(None, None, None).unwrap(), &other);
    let back = other
        .with_defaults(
            Some(index.defaults().beam_size),
            Some(index.defaults().shortlist_size),
            index.num_candidates(),
        )
        .unwrap();
    assert_eq!(back.to_files(), index.to_files());
}

#[test]
fn defaults_must_make_sense() {
    let message = |result: Result<Index, Error>| result.err().unwrap().to_string();
    let index = Model::complete();
    assert!(message(index.with_defaults(Some(0), None, None)).contains("beam_size"));
    assert!(message(index.with_defaults(None, Some(0), None)).contains("shortlist_size"));
    assert!(message(index.with_defaults(None, None, Some(0))).contains("num_candidates"));
    let dense = Model::dense_as(Dtype::Float32, true);
    assert!(message(dense.with_defaults(None, None, Some(5))).contains("no sparse features"));
}

#[test]
fn the_fusion_comes_back_as_it_was_given() {
    let index = Model::complete();
    let (weights, bias) = index.fusion_linear().unwrap().split_at(EVIDENCE.len());
    assert_eq!(bias, [-0.5]);
    let trees = index.fusion_trees().unwrap();
    assert_eq!((trees.offsets, trees.columns), (&[0, 3, 4][..], &[4, -1, -1, -1][..]));
    let again = index.with_fusion(weights, bias[0], Some(&trees)).unwrap();
    assert_eq!(again.to_files(), index.to_files());
    assert!(index.with_fusion(weights, 0.0, None).unwrap().fusion_trees().is_none());
    let dense = Model::dense_as(Dtype::Float32, true);
    assert!(dense.fusion_linear().is_none() && dense.fusion_trees().is_none());
}
