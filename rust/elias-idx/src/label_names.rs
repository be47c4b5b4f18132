//! Names of labels: one UTF-8 blob with offsets, so that millions of them load instantly.

use std::collections::HashMap;

use crate::error::{ArgumentError, Error, FormatError, Result};
use crate::format::schema;
use crate::matrix::{MAX_IDS, Tensor};

/// The names of all labels: `offsets` u64 \[L+1\] into `bytes` u8 \[n\].
#[derive(Clone)]
pub struct LabelNames {
    pub(crate) offsets: Tensor<u64>,
    pub(crate) bytes: Tensor<u8>,
}

impl LabelNames {
    /// Joins names, which must be unique.
    ///
    /// # Errors
    /// [`ArgumentError::BadNames`] when a name occurs twice.
    pub fn new<S: AsRef<str>>(names: &[S]) -> Result<Self> {
        let mut seen = HashMap::with_capacity(names.len());
        let mut offsets = Vec::with_capacity(names.len() + 1);
        let mut bytes = Vec::new();
        offsets.push(0);
        for (label, name) in names.iter().map(AsRef::as_ref).enumerate() {
            if let Some(first) = seen.insert(name, label) {
                return Err(ArgumentError::BadNames(format!(
                    "names must be unique, {name:?} is that of labels {first} and {label}"
                ))
                .into());
            }
            bytes.extend_from_slice(name.as_bytes());
            offsets.push(bytes.len() as u64);
        }
        Ok(Self { offsets: Tensor::copy_of(&offsets)?, bytes: Tensor::copy_of(&bytes)? })
    }

    /// The number of labels.
    #[must_use]
    pub fn len(&self) -> usize {
        self.offsets.as_slice().len() - 1
    }

    /// Whether there are no names; an index has at least one label.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The name of a label. Names are checked here, not when an index is loaded.
    ///
    /// # Errors
    /// [`ArgumentError::NoSuchLabel`]; [`FormatError::Invalid`] when the stored bytes are damaged.
    pub fn get(&self, label: usize) -> Result<&str> {
        let offsets = self.offsets.as_slice();
        if label >= self.len() {
            let label = i64::try_from(label).unwrap_or(i64::MAX);
            return Err(ArgumentError::NoSuchLabel { label, num_labels: self.len() }.into());
        }
        let damaged = |what: &str| {
            Error::format(
                schema::LABEL_NAME_BYTES,
                FormatError::Invalid(format!("the name of label {label} {what}")),
            )
        };
        let start = usize::try_from(offsets[label]).map_err(|_| damaged("lies outside"))?;
        let end = usize::try_from(offsets[label + 1]).map_err(|_| damaged("lies outside"))?;
        let name = self.bytes.as_slice().get(start..end).ok_or_else(|| damaged("lies outside"))?;
        std::str::from_utf8(name).map_err(|_| damaged("is not UTF-8"))
    }

    /// The ids of the labels with these names, in their order. Takes a pass over all names.
    ///
    /// # Errors
    /// [`ArgumentError::NoSuchName`] for the first name that no label has.
    pub fn find<S: AsRef<str>>(&self, names: &[S]) -> Result<Vec<i64>> {
        let mut ids: HashMap<&str, Option<i64>> =
            names.iter().map(|name| (name.as_ref(), None)).collect();
        for label in 0..self.len() {
            if let Some(id) = ids.get_mut(self.get(label)?) {
                *id = Some(label as i64);
            }
        }
        let found =
            |name: &str| ids[name].ok_or_else(|| ArgumentError::NoSuchName(name.to_owned()).into());
        names.iter().map(|name| found(name.as_ref())).collect()
    }

    fn is_same(&self, other: &Self) -> bool {
        self.offsets.as_slice() == other.offsets.as_slice()
            && self.bytes.as_slice() == other.bytes.as_slice()
    }

    /// Checks the ends of the offsets; what lies between is checked when a name is read.
    pub(crate) fn check_ends(&self) -> Result<(), String> {
        let offsets = self.offsets.as_slice();
        let bytes = self.bytes.as_slice().len() as u64;
        if offsets.first() == Some(&0) && offsets.last() == Some(&bytes) {
            return Ok(());
        }
        Err(format!("must go from 0 to the number of bytes, {bytes}"))
    }
}

/// The labels of several indexes as one set: those of the first one keep their ids, names that it lacks get the ids
/// after these, as they occur.
#[derive(Debug, PartialEq, Eq)]
pub struct SharedLabels {
    /// For each index the ids of its labels, None where they are the same.
    pub ids: Vec<Option<Vec<u32>>>,
    /// The names that the first index lacks.
    pub further: Vec<String>,
}

impl SharedLabels {
    /// Joins the names of at least one index.
    ///
    /// # Errors
    /// [`FormatError::Invalid`] when stored bytes are damaged; [`ArgumentError::TooMany`] names in all.
    pub fn new(first: &LabelNames, others: &[&LabelNames]) -> Result<Self> {
        let mut shared = Self { ids: vec![None], further: Vec::new() };
        let mut known: HashMap<&str, u32> = HashMap::new();
        for names in others {
            if names.is_same(first) {
                shared.ids.push(None);
                continue;
            }
            if known.is_empty() {
                known.reserve(first.len());
                for label in 0..first.len() {
                    known.insert(first.get(label)?, label as u32);
                }
            }
            let mut ids = Vec::with_capacity(names.len());
            for label in 0..names.len() {
                let name = names.get(label)?;
                ids.push(*known.entry(name).or_insert_with(|| {
                    shared.further.push(name.to_owned());
                    (first.len() + shared.further.len() - 1) as u32
                }));
            }
            shared.ids.push(Some(ids));
        }
        let received = first.len() + shared.further.len();
        if received > MAX_IDS {
            return Err(ArgumentError::TooMany { name: "label names", received }.into());
        }
        Ok(shared)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back() {
        let names = LabelNames::new(&["Cholera", "", "Fièvre 🌡"]).unwrap();
        assert_eq!(names.len(), 3);
        assert_eq!(names.get(0).unwrap(), "Cholera");
        assert_eq!(names.get(1).unwrap(), "");
        assert_eq!(names.get(2).unwrap(), "Fièvre 🌡");
        assert!(names.get(3).is_err());
        names.check_ends().unwrap();
    }

    #[test]
    fn labels_are_found_by_name() {
        let names = LabelNames::new(&["Cholera", "", "Fièvre 🌡"]).unwrap();
        assert_eq!(names.find(&["Fièvre 🌡", "Cholera", "", "Cholera"]).unwrap(), [2, 0, 1, 0]);
        assert!(names.find::<&str>(&[]).unwrap().is_empty());
        let error = names.find(&["", "cholera", "nothing"]).unwrap_err();
        assert_eq!(error.to_string(), "no label is called \"cholera\"");
    }

    #[test]
    fn labels_of_several_indexes_are_joined_by_name() {
        let names = |names: &[&str]| LabelNames::new(names).unwrap();
        let first = names(&["b", "a", ""]);
        let others = [names(&["b", "a", ""]), names(&["new", "a", "b"]), names(&["x", "new"])];
        let shared = SharedLabels::new(&first, &others.each_ref()).unwrap();
        assert_eq!(shared.ids, [None, None, Some(vec![3, 1, 0]), Some(vec![4, 3])]);
        assert_eq!(shared.further, ["new", "x"]);
    }

    #[test]
    fn a_name_that_occurs_twice_is_refused() {
        let error = LabelNames::new(&["a", "b", "a"]).err().unwrap();
        assert!(error.to_string().contains("labels 0 and 2"), "{error}");
    }

    #[test]
    fn damaged_names_are_errors() {
        let names = |offsets: &[u64], bytes: &[u8]| LabelNames {
            offsets: Tensor::copy_of(offsets).unwrap(),
            bytes: Tensor::copy_of(bytes).unwrap(),
        };
        assert!(names(&[0, 2, 1, 2], b"ab").get(1).is_err(), "decreasing");
        assert!(names(&[0, u64::MAX, 2], b"ab").get(0).is_err(), "far outside");
        assert!(names(&[0, 2], b"\xff\xff").get(0).is_err(), "not UTF-8");
        assert!(names(&[0, 1], b"ab").check_ends().is_err());
        assert!(names(&[1, 2], b"ab").check_ends().is_err());
    }
}
