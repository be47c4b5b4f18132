//! The folder that an index is kept in: a JSON manifest, `index.json`, with sizes and checksums, and
//! one safetensors file for each tensor. `docs/format.md` in the repository specifies every byte of
//! it, what readers check and how writers replace a folder; a change here changes that document too.

pub(crate) mod manifest;
pub mod publish;
pub(crate) mod read;
pub(crate) mod safetensors;
pub(crate) mod schema;
pub(crate) mod write;

use sha2::{Digest, Sha256};

/// The newest version of the format that this library reads, and the one that it writes.
pub const FORMAT_VERSION: u64 = 1;

/// The name of the JSON file that makes a folder an index.
pub const MANIFEST_FILE: &str = "index.json";

/// The SHA-256 of some bytes, given in parts, as 64 lower-case hex digits.
pub(crate) fn sha256_hex(parts: &[&[u8]]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
    }
    hex(hasher)
}

/// What was hashed so far, as 64 lower-case hex digits.
pub(crate) fn hex(hasher: Sha256) -> String {
    hasher.finalize().iter().flat_map(|byte| [byte >> 4, byte & 15]).map(hex_digit).collect()
}

fn hex_digit(nibble: u8) -> char {
    char::from(b"0123456789abcdef"[usize::from(nibble)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sha256_is_the_standard_one() {
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256_hex(&[b"abc"]), expected);
        assert_eq!(sha256_hex(&[b"a", b"", b"bc"]), expected);
    }
}
