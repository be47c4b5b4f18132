//! Indexes for the tests of the whole crate, and a naive search in f64 to hold it to.

#![allow(dead_code, reason = "each test file uses a part of this")]

use std::collections::BTreeMap;

use elias_idx::{
    Defaults, Dtype, EVIDENCE, EvidenceParts, FusionTrees, Hits, Index, IndexParts, LabelNames,
    SearchOptions, SparseRows,
};

/// The files of an index, by name.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

/// What an index is built from, owned; rows of the adjacency map labels to weights.
#[derive(Debug, Clone)]
pub(crate) struct Model {
    pub(crate) dim: usize,
    pub(crate) label_dim: usize,
    pub(crate) cluster_weights: Vec<f32>,
    pub(crate) cluster_bias: Vec<f32>,
    pub(crate) rows: Vec<BTreeMap<u32, f32>>,
    pub(crate) label_weights: Vec<f32>,
    pub(crate) label_bias: Vec<f32>,
    pub(crate) label_projection: Option<Vec<f32>>,
    pub(crate) alpha: f64,
}

/// Numbers in [-1, 1) that look random, the same in every run.
pub(crate) struct Numbers(u64);

impl Numbers {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn bits(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 20
    }

    pub(crate) fn next(&mut self) -> f32 {
        (self.bits() & 0xff_ffff) as f32 / (1 << 23) as f32 - 1.0
    }

    pub(crate) fn vec(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.next()).collect()
    }
}

impl Model {
    /// A model of these sizes; `edges` for each cluster, with weights of a few steps so that some tie.
    pub(crate) fn random(
        seed: u64,
        dim: usize,
        num_clusters: usize,
        num_labels: usize,
        edges: usize,
    ) -> Self {
        let mut numbers = Numbers::new(seed);
        let rows = (0..num_clusters)
            .map(|_| {
                let mut row = BTreeMap::new();
                for _ in 0..edges {
                    let label = (numbers.bits() % num_labels as u64) as u32;
                    row.insert(label, (1 + numbers.bits() % 8) as f32 / 8.0);
                }
                row
            })
            .collect();
        Self {
            dim,
            label_dim: dim,
            cluster_weights: numbers.vec(num_clusters * dim),
            cluster_bias: numbers.vec(num_clusters),
            rows,
            label_weights: numbers.vec(num_labels * dim),
            label_bias: numbers.vec(num_labels),
            label_projection: None,
            alpha: 10.0,
        }
    }

    pub(crate) fn with_projection(self, seed: u64, label_dim: usize) -> Self {
        let mut numbers = Numbers::new(seed);
        Self {
            label_dim,
            label_weights: numbers.vec(self.label_bias.len() * label_dim),
            label_projection: Some(numbers.vec(label_dim * self.dim)),
            ..self
        }
    }

    pub(crate) fn build(&self) -> Index {
        self.build_with_names(None)
    }

    pub(crate) fn build_with_names(&self, names: Option<&LabelNames>) -> Index {
        self.build_as(Dtype::Float32, true, names)
    }

    pub(crate) fn build_as(&self, dtype: Dtype, screen: bool, names: Option<&LabelNames>) -> Index {
        let mut offsets = vec![0];
        let (mut labels, mut weights) = (Vec::new(), Vec::new());
        for row in &self.rows {
            labels.extend(row.keys().map(|&label| i64::from(label)));
            weights.extend(row.values());
            offsets.push(labels.len() as i64);
        }
        Index::build(&IndexParts {
            num_labels: self.label_bias.len(),
            num_clusters: self.cluster_bias.len(),
            dim: self.dim,
            label_dim: self.label_dim,
            cluster_weights: &self.cluster_weights,
            cluster_bias: &self.cluster_bias,
            adjacency_offsets: &offsets,
            adjacency_labels: &labels,
            adjacency_weights: &weights,
            label_weights: &self.label_weights,
            label_bias: &self.label_bias,
            label_projection: self.label_projection.as_deref(),
            label_names: names,
            defaults: Defaults { alpha: self.alpha, ..Defaults::default() },
            dtype,
            screen,
        })
        .unwrap()
    }

    /// A small index with everything that an index can have.
    pub(crate) fn complete() -> Index {
        Self::complete_as(Dtype::Float32, true)
    }

    pub(crate) fn complete_as(dtype: Dtype, screen: bool) -> Index {
        with_fusion(&Self::dense_as(dtype, screen))
    }

    /// The same without what takes sparse features.
    pub(crate) fn dense_as(dtype: Dtype, screen: bool) -> Index {
        let model = Self::random(7, 5, 4, 6, 3).with_projection(8, 3);
        let names: Vec<String> = (0..6).map(|label| format!("näme {label}")).collect();
        model.build_as(dtype, screen, Some(&LabelNames::new(&names).unwrap()))
    }
}

/// The index with small parts of all kinds for searches with sparse features, F being 4.
fn with_fusion(index: &Index) -> Index {
    let rows = |offsets: &'static [i64], columns: &'static [i32], num_columns| SparseRows {
        offsets,
        columns,
        values: &[0.5, -0.25, 0.75, 1.0, 0.5, 0.5][..columns.len()],
        num_columns,
    };
    let ranker = rows(&[0, 2, 2, 3, 4, 5, 6], &[0, 2, 1, 3, 0, 1], 4);
    let parts = EvidenceParts {
        num_features: 4,
        num_candidates: 2,
        num_neighbours: 2,
        label_counts: &[1, 2, 0, 1, 0, 7],
        ranker: Some((ranker, &[0.5, 0.0, -0.5, 0.0, 0.0, 1.0])),
        label_texts: Some(rows(&[0, 1, 2, 2, 3, 3, 3], &[1, 0, 3], 4)),
        cooccurrence: Some(rows(&[0, 1, 2, 2, 3, 3, 4], &[3, 4, 0, 1], 6)),
        neighbours: Some((rows(&[0, 2, 3], &[0, 3, 2], 4), rows(&[0, 2, 3], &[1, 4, 0], 6))),
    };
    let trees = FusionTrees {
        offsets: &[0, 3, 4],
        columns: &[4, -1, -1, -1],
        thresholds: &[0.25, 0.0, 0.0, 0.0],
        children: &[1, 2, 0, 0, 0, 0, 0, 0],
        values: &[0.0, 1.0, -1.0, 0.5],
    };
    let linear: Vec<f32> = (0..EVIDENCE.len()).map(|column| column as f32 / 100.0).collect();
    index.with_evidence(&parts).unwrap().with_fusion(&linear, -0.5, Some(&trees)).unwrap()
}

/// Sparse features of two queries for [`Model::complete`].
pub(crate) const SPARSE: SparseRows<'static> = SparseRows {
    offsets: &[0, 2, 4],
    columns: &[0, 2, 1, 3],
    values: &[0.5, 0.5, 1.0, 0.25],
    num_columns: 4,
};

/// The naive search of one query, in f64.
pub(crate) struct Oracle<'a> {
    pub(crate) model: &'a Model,
    pub(crate) beam_size: usize,
    pub(crate) shortlist_size: usize,
    /// The labels that the query may have.
    pub(crate) allowed: Option<&'a [bool]>,
}

/// Everything that was ranked for one query, best first, and by how much, relatively, f32 logits may
/// change its scores.
pub(crate) struct Ranking {
    pub(crate) all: Vec<(u32, f64)>,
    pub(crate) rounding: f64,
}

/// The error of an f32 dot product is a few half-units in the last place of the sum of its absolute
/// summands. An exponential's relative error is its argument's error.
const EPSILONS: f64 = 2.0 * f32::EPSILON as f64;

impl Oracle<'_> {
    /// All clusters.
    pub(crate) fn clusters(&self, query: &[f32]) -> Ranking {
        let model = self.model;
        let rows = || model.cluster_weights.chunks(model.dim).zip(&model.cluster_bias);
        let query = wide(query);
        let logits: Vec<f64> = rows().map(|(row, &b)| dot(row, &query) + f64::from(b)).collect();
        let max = logits.iter().copied().fold(f64::MIN, f64::max);
        let total: f64 = logits.iter().map(|z| (z - max).exp()).sum();
        let score = |z: &f64| (model.alpha * (z - max).exp() / total).min(1.0);
        let sums = rows().map(|(row, &b)| dot_of_absolutes(row, &query) + f64::from(b.abs()));
        Ranking {
            all: sorted((0..).zip(logits.iter().map(score)).collect()),
            rounding: EPSILONS * sums.fold(0.0, f64::max),
        }
    }

    /// All allowed labels that the beam reaches.
    pub(crate) fn paths(&self, query: &[f32]) -> Ranking {
        let mut paths: BTreeMap<u32, f64> = BTreeMap::new();
        let clusters = self.clusters(query);
        let wanted = match self.allowed {
            Some(_) => self.shortlist_size.min(self.model.label_bias.len()),
            None => 0,
        };
        for (rank, &(cluster, score)) in clusters.all.iter().enumerate() {
            if rank >= self.beam_size && paths.len() >= wanted {
                break;
            }
            for (&label, &weight) in &self.model.rows[cluster as usize] {
                if self.allowed.is_some_and(|allowed| !allowed[label as usize]) {
                    continue;
                }
                let best = paths.entry(label).or_insert(0.0);
                *best = best.max(score * f64::from(weight));
            }
        }
        Ranking { all: sorted(paths.into_iter().collect()), rounding: clusters.rounding }
    }

    /// All labels of the shortlist.
    pub(crate) fn labels(&self, query: &[f32]) -> Ranking {
        let model = self.model;
        let (projected, sums) = match &model.label_projection {
            Some(projection) => {
                let rows = || projection.chunks(model.dim);
                let query = wide(query);
                (
                    rows().map(|row| dot(row, &query)).collect(),
                    rows().map(|row| dot_of_absolutes(row, &query)).collect(),
                )
            }
            None => (wide(query), wide(query)),
        };
        let mut paths = self.paths(query);
        paths.all.truncate(self.shortlist_size);
        let mut largest = 0.0_f64;
        for (label, score) in &mut paths.all {
            let row = &model.label_weights[*label as usize * model.label_dim..][..model.label_dim];
            let bias = f64::from(model.label_bias[*label as usize]);
            *score /= 1.0 + (-dot(row, &projected) - bias).exp();
            largest = largest.max(dot_of_absolutes(row, &sums) + bias.abs());
        }
        Ranking { all: sorted(paths.all), rounding: paths.rounding + EPSILONS * largest }
    }
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().copied().map(f64::from).collect()
}

fn dot(row: &[f32], query: &[f64]) -> f64 {
    row.iter().zip(query).map(|(&a, b)| f64::from(a) * b).sum()
}

fn dot_of_absolutes(row: &[f32], query: &[f64]) -> f64 {
    row.iter().zip(query).map(|(&a, b)| (f64::from(a) * b).abs()).sum()
}

fn sorted(mut scored: Vec<(u32, f64)>) -> Vec<(u32, f64)> {
    scored.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    scored
}

/// Holds one row of results to the oracle's; see [`compare`].
pub(crate) fn assert_row(hits: &Hits, row: usize, expected: &Ranking) {
    let row = row * hits.width..(row + 1) * hits.width;
    if let Err(message) = compare(&hits.ids[row.clone()], &hits.scores[row], expected) {
        panic!("{message}");
    }
}

/// Compares ids and scores, padded with −1 and 0, to the oracle's ranking.
///
/// Scores agree relatively, as far as rounding leaves them. Another id than the oracle's is forgiven
/// only where the oracle's score of that very id ties with the expected one; and not where all that
/// ties there is exactly equal, for then the smaller id comes first whatever the rounding.
pub(crate) fn compare(ids: &[i64], scores: &[f32], expected: &Ranking) -> Result<(), String> {
    let found = expected.all.len().min(ids.len());
    if ids[found..].iter().any(|&id| id != -1) || scores[found..].iter().any(|&score| score != 0.0)
    {
        return Err(format!("{ids:?} {scores:?} are padded wrongly, {found} can be found"));
    }
    for (at, (&id, &score)) in ids[..found].iter().zip(scores).enumerate() {
        let (expected_id, expected_score) = expected.all[at];
        let allowed = (1e-6 + expected.rounding) * expected_score;
        let ties = |score: f64| (score - expected_score).abs() <= allowed;
        if !ties(f64::from(score)) {
            return Err(format!("score {score} instead of {expected_score} at {at}"));
        }
        let tied = || expected.all.iter().filter(|pair| ties(pair.1));
        let known = tied().any(|pair| i64::from(pair.0) == id);
        let equal = tied().all(|pair| pair.1 == expected_score);
        if ids[..at].contains(&id) || id != i64::from(expected_id) && (!known || equal) {
            return Err(format!("id {id} instead of {expected_id} at {at}"));
        }
    }
    Ok(())
}

/// The relative error of scores whose softmax's denominator was summed from codes.
pub(crate) const SCREENED: f64 = 2e-3;

/// Options for a search on one thread.
pub(crate) fn options(beam_size: usize, shortlist_size: usize) -> SearchOptions<'static> {
    SearchOptions {
        beam_size: Some(beam_size),
        shortlist_size: Some(shortlist_size),
        num_threads: Some(1),
        ..SearchOptions::default()
    }
}

/// Makes the manifest anew for changed files: sizes and checksums. `edit` changes its text first.
pub(crate) fn reseal(files: &mut Files, edit: impl FnOnce(&mut serde_json::Value)) {
    let mut manifest: serde_json::Value = serde_json::from_slice(&files["index.json"]).unwrap();
    for entry in manifest["tensors"].as_object_mut().unwrap().values_mut() {
        if let Some(bytes) = files.get(entry["file"].as_str().unwrap()) {
            entry["bytes"] = bytes.len().into();
            entry["sha256"] = sha256(bytes).into();
        }
    }
    edit(&mut manifest);
    manifest.as_object_mut().unwrap().remove("sha256");
    let body = serde_json::to_string_pretty(&manifest).unwrap();
    let manifest = seal(body.strip_prefix('{').unwrap().as_bytes());
    files.insert("index.json".to_owned(), manifest);
}

/// An `index.json` with the right checksum; `rest` is what follows the checksum and a comma.
pub(crate) fn seal(rest: &[u8]) -> Vec<u8> {
    let prefix = b"{\n  \"sha256\": \"";
    let mut manifest = [&prefix[..], &[b'0'; 64], b"\",", rest].concat();
    let checksum = sha256(&manifest);
    manifest[prefix.len()..][..64].copy_from_slice(checksum.as_bytes());
    manifest
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
