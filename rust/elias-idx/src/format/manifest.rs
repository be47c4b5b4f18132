//! `index.json`: what the index is, which files it has, and their checksums, its own included.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{FORMAT_VERSION, schema, sha256_hex};
use crate::arguments::check_positive;
use crate::error::{ArgumentError, FormatError};
use crate::matrix::MAX_IDS;

/// The first bytes of the file; its checksum follows, as 64 lower-case hex digits and a quote.
const PREFIX: &[u8] = b"{\n  \"sha256\": \"";
const DIGITS: usize = 64;
const FORMAT: &str = "elias_idx";

/// Larger manifests are refused unread.
pub(crate) const MAX_BYTES: u64 = 1 << 20;

/// The contents of `index.json`, fields in the order in which they are written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    sha256: String,
    format: String,
    format_version: u64,
    required_features: Vec<String>,
    pub(crate) dims: Dims,
    pub(crate) defaults: Defaults,
    /// There if the index has what evidence takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) fusion: Option<FusionSizes>,
    pub(crate) tensors: BTreeMap<String, TensorEntry>,
}

/// The sizes of an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Dims {
    pub(crate) num_labels: usize,
    pub(crate) num_clusters: usize,
    pub(crate) dim: usize,
    pub(crate) label_dim: usize,
}

/// What a search uses unless told otherwise, and the scale α of the cluster scores.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Defaults {
    /// α: cluster scores are min(1, α · softmax). Finite and positive.
    pub alpha: f64,
    /// B: clusters kept, at least 1.
    pub beam_size: usize,
    /// S: labels kept before the label classifiers, at least 1.
    pub shortlist_size: usize,
}

impl Default for Defaults {
    /// The paper's: α 10, B 20, S 2,000.
    fn default() -> Self {
        Self { alpha: 10.0, beam_size: 20, shortlist_size: 2000 }
    }
}

impl Defaults {
    pub(crate) fn check(&self) -> Result<(), ArgumentError> {
        if !(self.alpha.is_finite() && self.alpha > 0.0) {
            return Err(ArgumentError::BadAlpha(self.alpha));
        }
        check_positive("beam_size", self.beam_size)?;
        check_positive("shortlist_size", self.shortlist_size)
    }
}

/// What evidence is computed with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FusionSizes {
    /// F.
    pub(crate) num_features: usize,
    /// R: labels of the dense search that are candidates.
    pub(crate) num_candidates: usize,
    /// Training texts that vote.
    pub(crate) num_neighbours: usize,
    /// The names of the columns, in order.
    pub(crate) evidence: Vec<String>,
}

/// One tensor's file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TensorEntry {
    pub(crate) file: String,
    pub(crate) dtype: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) bytes: u64,
    pub(crate) sha256: String,
}

/// The part that every version has, read before the rest.
#[derive(Deserialize)]
struct Preamble {
    format: String,
    format_version: u64,
    #[serde(default)]
    required_features: Vec<String>,
}

impl Manifest {
    pub(crate) fn new(
        dims: Dims,
        defaults: Defaults,
        fusion: Option<FusionSizes>,
        required_feature: Option<&str>,
        tensors: BTreeMap<String, TensorEntry>,
    ) -> Self {
        Self {
            sha256: "0".repeat(DIGITS),
            format: FORMAT.to_owned(),
            format_version: FORMAT_VERSION,
            required_features: required_feature.into_iter().map(str::to_owned).collect(),
            dims,
            defaults,
            fusion,
            tensors,
        }
    }

    /// The file's bytes, its own checksum filled in.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let blank = Self { sha256: "0".repeat(DIGITS), ..self.clone() };
        let mut bytes = serde_json::to_vec_pretty(&blank).expect("a manifest has a JSON form");
        bytes.push(b'\n');
        let sha256 = sha256_hex(&[&bytes]);
        bytes[PREFIX.len()..PREFIX.len() + DIGITS].copy_from_slice(sha256.as_bytes());
        bytes
    }

    /// Reads and checks the file's bytes.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        check_checksum(bytes)?;
        let json_error = |error: serde_json::Error| FormatError::Invalid(error.to_string());
        let preamble: Preamble = serde_json::from_slice(bytes).map_err(json_error)?;
        if preamble.format != FORMAT {
            return Err(FormatError::Foreign(format!("its format is '{}'", preamble.format)));
        }
        if preamble.format_version > FORMAT_VERSION {
            let found = preamble.format_version;
            return Err(FormatError::Newer { found, supported: FORMAT_VERSION });
        }
        if preamble.format_version == 0 {
            return Err(FormatError::Invalid("there is no format version 0".to_owned()));
        }
        let mut features = preamble.required_features.into_iter();
        if let Some(unknown) = features.find(|feature| !schema::is_known_feature(feature)) {
            return Err(FormatError::UnknownFeature(unknown));
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(json_error)?;
        manifest.check().map_err(FormatError::Invalid)?;
        Ok(manifest)
    }

    /// The recorded checksum of the manifest itself.
    pub(crate) fn sha256(&self) -> &str {
        &self.sha256
    }

    fn check(&self) -> Result<(), String> {
        let Dims { num_labels, num_clusters, dim, label_dim } = self.dims;
        if [num_labels, num_clusters, dim, label_dim].contains(&0) {
            return Err("all dims must be at least 1".to_owned());
        }
        if num_labels > MAX_IDS || num_clusters > MAX_IDS {
            return Err(format!("more than {MAX_IDS} labels or clusters"));
        }
        self.defaults.check().map_err(|error| error.to_string())?;
        self.fusion.as_ref().map_or(Ok(()), FusionSizes::check)?;
        let mut owners = BTreeMap::new();
        for (name, entry) in &self.tensors {
            if let Some(other) = owners.insert(&entry.file, name) {
                return Err(format!("tensors '{other}' and '{name}' have the same file"));
            }
            if !is_plain_name(&entry.file) {
                return Err(format!(
                    "the file of tensor '{name}', {:?}, is no plain name",
                    entry.file
                ));
            }
        }
        Ok(())
    }
}

impl FusionSizes {
    fn check(&self) -> Result<(), String> {
        if [self.num_features, self.num_candidates, self.num_neighbours].contains(&0) {
            return Err("all sizes of fusion must be at least 1".to_owned());
        }
        if self.num_features > MAX_IDS {
            return Err(format!("more than {MAX_IDS} features"));
        }
        Ok(())
    }
}

/// Whether the bytes begin as those of a manifest.
pub(crate) fn has_prefix(bytes: &[u8]) -> bool {
    bytes.starts_with(PREFIX)
}

/// Compares the recorded checksum to that of the file with the digits replaced by zeros.
pub(crate) fn check_checksum(bytes: &[u8]) -> Result<(), FormatError> {
    if !has_prefix(bytes) {
        return Err(FormatError::Foreign("index.json does not begin as one does".to_owned()));
    }
    let (head, rest) = bytes.split_at(PREFIX.len());
    let Some((digits, tail)) = rest.split_at_checked(DIGITS) else {
        return Err(FormatError::Checksum);
    };
    let zeros = [b'0'; DIGITS];
    if sha256_hex(&[head, &zeros, tail]).as_bytes() == digits {
        Ok(())
    } else {
        Err(FormatError::Checksum)
    }
}

/// Whether a file name can't lead out of the folder: letters, digits, `_`, `-`, `.`, no leading dot.
fn is_plain_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    !name.is_empty()
        && name.len() <= 255
        && !name.starts_with('.')
        && name != super::MANIFEST_FILE
        && name.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let dims = Dims { num_labels: 3, num_clusters: 2, dim: 4, label_dim: 4 };
        let entry = TensorEntry {
            file: "cluster_bias.safetensors".to_owned(),
            dtype: "F32".to_owned(),
            shape: vec![2],
            bytes: 72,
            sha256: "ab".repeat(32),
        };
        let tensors = BTreeMap::from([("cluster_bias".to_owned(), entry)]);
        Manifest::new(dims, Defaults::default(), None, None, tensors)
    }

    /// The manifest with a piece of its text replaced and the checksum made anew.
    fn with_change(from: &str, to: &str) -> Vec<u8> {
        let text = String::from_utf8(manifest().to_bytes()).unwrap();
        assert!(text.contains(from));
        resealed(&text.replace(from, to))
    }

    fn resealed(text: &str) -> Vec<u8> {
        let mut bytes = text.as_bytes().to_vec();
        bytes[PREFIX.len()..PREFIX.len() + DIGITS].fill(b'0');
        let sha256 = sha256_hex(&[&bytes]);
        bytes[PREFIX.len()..PREFIX.len() + DIGITS].copy_from_slice(sha256.as_bytes());
        bytes
    }

    #[test]
    fn written_manifests_are_read_back() {
        let bytes = manifest().to_bytes();
        let read = Manifest::parse(&bytes).unwrap();
        assert_eq!(read.dims, manifest().dims);
        assert_eq!(read.tensors, manifest().tensors);
        assert_eq!(read.to_bytes(), bytes);
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let bytes = manifest().to_bytes();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                assert!(Manifest::parse(&damaged).is_err(), "bit {bit} of byte {at}");
            }
        }
    }

    #[test]
    fn every_truncation_and_appended_bytes_are_noticed() {
        let mut bytes = manifest().to_bytes();
        for len in 0..bytes.len() {
            assert!(Manifest::parse(&bytes[..len]).is_err(), "{len} bytes");
        }
        bytes.push(b'\n');
        assert_eq!(Manifest::parse(&bytes), Err(FormatError::Checksum));
    }

    #[test]
    fn foreign_and_newer_files_are_told_apart() {
        assert!(matches!(Manifest::parse(b"{}"), Err(FormatError::Foreign(_))));
        let foreign = with_change("\"elias_idx\"", "\"other\"");
        assert!(matches!(Manifest::parse(&foreign), Err(FormatError::Foreign(_))));
        let newer = with_change("\"format_version\": 1", "\"format_version\": 2");
        assert_eq!(Manifest::parse(&newer), Err(FormatError::Newer { found: 2, supported: 1 }));
        // A newer version may look quite different after the part that all versions share.
        let text = format!(
            "{{\n  \"sha256\": \"{}\",\n  \"format\": \"elias_idx\", \"format_version\": 9}}",
            "0".repeat(DIGITS)
        );
        assert_eq!(
            Manifest::parse(&resealed(&text)),
            Err(FormatError::Newer { found: 9, supported: 1 })
        );
    }

    #[test]
    fn unknown_features_are_refused_by_name_and_unknown_keys_are_not() {
        let needs = with_change("\"required_features\": []", "\"required_features\": [\"pq\"]");
        assert_eq!(Manifest::parse(&needs), Err(FormatError::UnknownFeature("pq".to_owned())));
        let known = "\"required_features\": [\"int8_labels\", \"bfloat16_labels\"]";
        assert!(Manifest::parse(&with_change("\"required_features\": []", known)).is_ok());
        let both = "\"required_features\": [\"float16_labels\", \"pq\"]";
        let both = with_change("\"required_features\": []", both);
        assert_eq!(Manifest::parse(&both), Err(FormatError::UnknownFeature("pq".to_owned())));
        let more =
            with_change("\"required_features\": []", "\"note\": {}, \"required_features\": []");
        assert!(Manifest::parse(&more).is_ok());
    }

    #[test]
    fn contents_that_break_the_rules_are_refused() {
        let cases = [
            ("\"num_labels\": 3", "\"num_labels\": 0"),
            ("\"num_labels\": 3", "\"num_labels\": -1"),
            ("\"num_labels\": 3", "\"num_labels\": 4294967295"),
            ("\"num_labels\": 3", "\"num_labels\": 1e400"),
            ("\"alpha\": 10.0", "\"alpha\": 0.0"),
            ("\"alpha\": 10.0", "\"alpha\": null"),
            ("\"beam_size\": 20", "\"beam_size\": 0"),
            ("cluster_bias.safetensors", "../cluster_bias.safetensors"),
            ("cluster_bias.safetensors", "/etc/passwd"),
            ("cluster_bias.safetensors", "a\\\\b"),
            ("cluster_bias.safetensors", ".."),
            ("cluster_bias.safetensors", ""),
            ("cluster_bias.safetensors", "index.json"),
            ("\"format_version\": 1", "\"format_version\": 0"),
            ("\"format_version\": 1", "\"format_version\": 1.5"),
            ("\"dims\"", "\"sizes\""),
            ("\"tensors\"", "\"dims\""),
        ];
        for (from, to) in cases {
            let error = Manifest::parse(&with_change(from, to)).expect_err(to);
            assert!(matches!(error, FormatError::Invalid(_)), "{to}: {error}");
        }
    }
}
