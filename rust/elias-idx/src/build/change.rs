//! Labels that leave an index, and labels that join it.
//!
//! Labels that stay keep their order, and so all that is known of them to the bit; new ones come after them.

use super::adjacency::AdjacencyWriter;
use super::labels::LabelWriter;
use super::{finish, put_names};
use crate::adjacency::is_weight;
use crate::arguments::{check_len, check_positive};
use crate::error::{ArgumentError, Result};
use crate::format::manifest::Dims;
use crate::format::schema;
use crate::format::write::{Destination, Store};
use crate::index::Index;
use crate::label_names::LabelNames;
use crate::matrix::MAX_IDS;
use crate::sparse::SparseRows;

/// What is known of n new labels, of an index with L.
#[derive(Clone, Copy)]
pub struct NewLabels<'a> {
    /// Their classifiers \[n, D'\].
    pub weights: &'a [f32],
    /// The classifiers' biases \[n\]; these say how many labels there are, at least 1.
    pub bias: &'a [f32],
    /// The edges that lead to them \[C, n\], of weights in (0, 1].
    pub edges: SparseRows<'a>,
    /// Their names, for an index that has names, and for no other.
    pub names: Option<&'a LabelNames>,
    /// What searches with sparse features look at.
    pub evidence: NewEvidence<'a>,
}

/// What is known of n new labels beside the dense model. Parts that an index lacks can't be given; what isn't given of those
/// that it has is that of labels without training texts.
#[derive(Debug, Clone, Copy, Default)]
pub struct NewEvidence<'a> {
    /// Training texts that have each label \[n\].
    pub label_counts: Option<&'a [u32]>,
    /// A sparse linear classifier for each label: weights \[n, F\] and biases \[n\].
    pub ranker: Option<(SparseRows<'a>, &'a [f32])>,
    /// The features of each label's own text \[n, F\], of unit length.
    pub label_texts: Option<SparseRows<'a>>,
    /// Which labels go together \[L + n, L + n\], as in [`crate::EvidenceParts`], of pairs with a new label alone.
    pub cooccurrence: Option<SparseRows<'a>>,
    /// Further training texts' features \[N, F\], of unit length, and their labels \[N, L + n\].
    pub neighbours: Option<(SparseRows<'a>, SparseRows<'a>)>,
}

/// Which labels stay, and which come.
pub(crate) struct Change<'a> {
    /// Ids of those that stay, ascending.
    pub(crate) kept: Vec<u32>,
    /// The new id of each old one.
    ids: Vec<Option<u32>>,
    pub(crate) new: Option<&'a NewLabels<'a>>,
}

impl<'a> Change<'a> {
    fn new(keeps: &[bool], new: Option<&'a NewLabels<'a>>) -> Self {
        let labels = 0..keeps.len() as u32;
        let kept: Vec<u32> = labels.filter(|&label| keeps[label as usize]).collect();
        let mut ids = vec![None; keeps.len()];
        for (id, &label) in kept.iter().enumerate() {
            ids[label as usize] = Some(id as u32);
        }
        Self { kept, ids, new }
    }

    /// The new id of an old one; None for a label that leaves.
    pub(crate) fn id(&self, label: u32) -> Option<u32> {
        self.ids[label as usize]
    }

    /// n.
    pub(crate) fn num_new(&self) -> usize {
        self.new.map_or(0, |new| new.bias.len())
    }

    /// Whether there are new texts that vote.
    fn adds_texts(&self) -> bool {
        self.new.is_some_and(|new| new.evidence.neighbours.is_some())
    }

    /// Labels afterwards.
    pub(crate) fn num_labels(&self) -> usize {
        self.kept.len() + self.num_new()
    }
}

/// Changing which labels there are.
impl Index {
    /// The same index without some labels. Those that stay keep their order: their ids close up.
    ///
    /// Training texts that vote stay, without these labels.
    ///
    /// # Errors
    /// [`ArgumentError::NoSuchLabel`]; [`ArgumentError::NoLabelsLeft`]; [`crate::Error::Format`] where this index's
    /// files are damaged; [`crate::Error::Io`] as [`Index::save`].
    pub fn remove_labels(&self, labels: &[i64], destination: Destination<'_>) -> Result<Self> {
        let num_labels = self.num_labels();
        let mut keeps = vec![true; num_labels];
        for &label in labels {
            let place = usize::try_from(label).ok().and_then(|label| keeps.get_mut(label));
            *place.ok_or(ArgumentError::NoSuchLabel { label, num_labels })? = false;
        }
        if !keeps.contains(&true) {
            return Err(ArgumentError::NoLabelsLeft.into());
        }
        self.changed(&Change::new(&keeps, None), destination)
    }

    /// The same index with more labels, whose ids follow on those that there are. Its dtype is kept, to which new
    /// classifiers are rounded; so is its fusion.
    ///
    /// # Errors
    /// [`crate::Error::Argument`] for what doesn't fit the index, or what an index can't have;
    /// [`crate::Error::Format`] where this index's files are damaged; [`crate::Error::Io`] as [`Index::save`].
    pub fn add_labels(&self, new: &NewLabels<'_>, destination: Destination<'_>) -> Result<Self> {
        let change = Change::new(&vec![true; self.num_labels()], Some(new));
        self.check_new(new)?;
        self.check_new_evidence(new)?;
        self.changed(&change, destination)
    }

    fn check_new(&self, new: &NewLabels<'_>) -> Result<(), ArgumentError> {
        let (num_new, Dims { num_labels, num_clusters, label_dim, .. }) =
            (new.bias.len(), self.dims());
        check_positive("the number of new labels", num_new)?;
        if num_labels + num_new > MAX_IDS {
            return Err(ArgumentError::TooMany {
                name: "num_labels",
                received: num_labels + num_new,
            });
        }
        check_len("weights", new.weights.len(), num_new.saturating_mul(label_dim))?;
        new.edges.check_shape("edges", (num_clusters, num_new))?;
        if !new.edges.values.iter().all(|&weight| is_weight(weight)) {
            let reason = "a weight isn't in (0, 1] as float32";
            return Err(ArgumentError::BadMatrix { name: "edges", reason });
        }
        match (self.label_names(), new.names) {
            (Some(_), Some(names)) => check_len("names", names.len(), num_new),
            (None, None) => Ok(()),
            (Some(_), None) => Err(bad_names("the index has names: give those of the new labels")),
            (None, Some(_)) => {
                Err(bad_names("the index has no names: leave out those of the new labels"))
            }
        }
    }

    /// Writes the index with other labels.
    fn changed(&self, change: &Change<'_>, destination: Destination<'_>) -> Result<Self> {
        let mut store = Store::new(destination)?;
        for name in self.files().tensor_names() {
            if schema::is_of_labels(name) || (change.adds_texts() && schema::is_of_texts(name)) {
                // What is written of these has checksums of its own, which would hide a damage.
                self.files().verify_tensor(name)?;
            } else if schema::tensors().any(|known| known == name) {
                store.share(self.files(), name)?;
            }
        }
        let dims = Dims { num_labels: change.num_labels(), ..self.dims() };
        self.write_edges(change, &mut store)?;
        let mut labels = LabelWriter::new(&store, dims, self.dtype(), self.label_codes.is_some())?;
        let kept = change.kept.iter().map(|&label| label as usize);
        labels.push_from(self.exact_rows(), self.label_bias(), kept)?;
        if let Some(new) = change.new {
            labels.push(new.weights, new.bias)?;
        }
        labels.finish(&mut store)?;
        if let Some(names) = self.label_names() {
            put_names(&mut store, &changed_names(names, change)?)?;
        }
        if let Some(fusion) = &self.fusion {
            fusion.write_changed(change, &mut store)?;
        }
        finish(store, dims, self.defaults(), self.files().manifest.fusion.clone(), self.dtype())
    }

    fn write_edges(&self, change: &Change<'_>, store: &mut Store) -> Result<()> {
        let (num_clusters, adjacency) = (self.num_clusters(), self.adjacency.view());
        let kept = |cluster: usize| {
            let (labels, weights) = adjacency.row(cluster);
            let edges = labels.iter().zip(weights);
            edges.filter_map(|(&label, &weight)| Some((i64::from(change.id(label)?), weight)))
        };
        let new = |cluster: usize| {
            let row = change.new.map(|new| new.edges.row(cluster));
            row.into_iter()
                .flatten()
                .map(|(label, weight)| ((change.kept.len() + label) as i64, weight))
        };
        let mut offsets = vec![0];
        for cluster in 0..num_clusters {
            offsets.push(offsets[cluster] + (kept(cluster).count() + new(cluster).count()) as i64);
        }
        let num_edges = offsets[num_clusters] as usize;
        let mut writer =
            AdjacencyWriter::new(store, &offsets, num_edges, num_clusters, change.num_labels())?;
        for cluster in 0..num_clusters {
            let (labels, weights): (Vec<i64>, Vec<f32>) = kept(cluster).chain(new(cluster)).unzip();
            writer.push(&labels, &weights)?;
        }
        writer.finish(store)
    }
}

fn bad_names(message: &str) -> ArgumentError {
    ArgumentError::BadNames(message.to_owned())
}

fn changed_names(names: &LabelNames, change: &Change<'_>) -> Result<LabelNames> {
    let mut all = Vec::with_capacity(change.num_labels());
    for &label in &change.kept {
        all.push(names.get(label as usize)?);
    }
    if let Some(new) = change.new.and_then(|new| new.names) {
        for label in 0..new.len() {
            all.push(new.get(label)?);
        }
    }
    LabelNames::new(&all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::IndexParts;

    fn index() -> Index {
        let names = LabelNames::new(&["a", "b", "c"]).unwrap();
        Index::build(&IndexParts {
            num_labels: 3,
            num_clusters: 2,
            dim: 1,
            cluster_weights: &[1.0, -1.0],
            cluster_bias: &[0.0; 2],
            adjacency_offsets: &[0, 2, 4],
            adjacency_labels: &[0, 1, 1, 2],
            adjacency_weights: &[1.0, 0.5, 1.0, 0.25],
            label_weights: &[1.0, 2.0, 3.0],
            label_bias: &[0.5, 0.25, 0.0],
            label_names: Some(&names),
            ..IndexParts::default()
        })
        .unwrap()
    }

    #[test]
    fn ids_close_up_and_new_labels_follow() {
        let removed = index().remove_labels(&[1], Destination::Memory).unwrap();
        assert_eq!(removed.adjacency(), (&[0, 1, 2][..], &[0, 1][..], &[1.0, 0.25][..]));
        let names = LabelNames::new(&["d"]).unwrap();
        let edges =
            SparseRows { offsets: &[0, 0, 1], columns: &[0], values: &[0.5], num_columns: 1 };
        let evidence = NewEvidence::default();
        let (weights, bias) = (&[4.0][..], &[-1.0][..]);
        let new = NewLabels { weights, bias, edges, names: Some(&names), evidence };
        let added = removed.add_labels(&new, Destination::Memory).unwrap();
        assert_eq!(added.adjacency(), (&[0, 1, 3][..], &[0, 2, 1][..], &[1.0, 0.5, 0.25][..]));
        assert_eq!(added.label_bias(), [0.5, 0.0, -1.0]);
        let all: Vec<&str> =
            (0..3).map(|label| added.label_names().unwrap().get(label).unwrap()).collect();
        assert_eq!(all, ["a", "c", "d"]);
        added.verify().unwrap();
    }

    #[test]
    fn an_index_keeps_a_label() {
        let error = index().remove_labels(&[0, 2, 1], Destination::Memory).err().unwrap();
        assert_eq!(
            error.to_string(),
            "an index has at least one label: these are all that there are"
        );
    }
}
