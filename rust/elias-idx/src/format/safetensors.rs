//! One tensor in a safetensors file, its header padded so that the data starts at a multiple of 64.

use ::safetensors::SafeTensors;

use crate::error::FormatError;
use crate::storage::ALIGNMENT;

/// The 8 bytes that hold the header's length.
const LENGTH_BYTES: usize = 8;

/// All bytes before the tensor's data: the header's length, the header, and spaces.
pub(crate) fn header(name: &str, dtype: &str, shape: &[usize], data_bytes: usize) -> Vec<u8> {
    let json = format!(
        r#"{{"{name}":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[0,{data_bytes}]}}}}"#
    );
    let data_start = (LENGTH_BYTES + json.len()).next_multiple_of(ALIGNMENT);
    let mut header = ((data_start - LENGTH_BYTES) as u64).to_le_bytes().to_vec();
    header.extend_from_slice(json.as_bytes());
    header.resize(data_start, b' ');
    header
}

/// Where the data of a file's only tensor starts, once the file is as it should be.
pub(crate) fn data_start(
    file: &[u8],
    name: &str,
    dtype: &str,
    shape: &[usize],
) -> Result<usize, FormatError> {
    let invalid = |message: String| Err(FormatError::Invalid(message));
    let (header_len, metadata) = match SafeTensors::read_metadata(file) {
        Ok(read) => read,
        Err(error) => return invalid(format!("not a proper safetensors file, {error}")),
    };
    let tensors = metadata.tensors();
    let Some(info) = tensors.get(name).filter(|_| tensors.len() == 1) else {
        return invalid(format!("must hold the tensor '{name}' and no other"));
    };
    if info.dtype.to_string() != dtype || info.shape != shape {
        return invalid(format!(
            "holds {} {:?}, index.json says {dtype} {shape:?}",
            info.dtype, info.shape
        ));
    }
    let start = LENGTH_BYTES + header_len;
    if !start.is_multiple_of(ALIGNMENT) {
        return invalid(format!("its data starts at byte {start}, no multiple of {ALIGNMENT}"));
    }
    Ok(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(values: &[f32]) -> Vec<u8> {
        let data: &[u8] = bytemuck::cast_slice(values);
        [&header("t", "F32", &[values.len()], data.len()), data].concat()
    }

    #[test]
    fn written_files_are_read_back() {
        for len in [0, 1, 17] {
            let file = file(&vec![1.5; len]);
            let start = data_start(&file, "t", "F32", &[len]).unwrap();
            assert_eq!(start % ALIGNMENT, 0);
            assert_eq!(file.len(), start + 4 * len);
        }
    }

    #[test]
    fn every_truncation_is_noticed() {
        let file = file(&[1.5; 4]);
        for len in 0..file.len() {
            assert!(data_start(&file[..len], "t", "F32", &[4]).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn files_unlike_the_manifest_are_refused() {
        let good = file(&[1.5; 4]);
        assert!(data_start(&good, "u", "F32", &[4]).is_err(), "name");
        assert!(data_start(&good, "t", "U32", &[4]).is_err(), "dtype");
        assert!(data_start(&good, "t", "F32", &[5]).is_err(), "shape");
        assert!(data_start(&good, "t", "F32", &[2, 2]).is_err(), "rank");
    }

    #[test]
    fn hostile_headers_are_refused() {
        let with_header = |json: &str| {
            let mut file = (json.len() as u64).to_le_bytes().to_vec();
            file.extend_from_slice(json.as_bytes());
            file
        };
        let huge = r#"{"t":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}}"#;
        let two = r#"{"t":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"u":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}"#;
        let misaligned = r#"{"t":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}"#;
        for json in ["", "{", "{}", "[]", "null", huge, two, misaligned] {
            assert!(data_start(&with_header(json), "t", "F32", &[0]).is_err(), "{json}");
        }
        let mut endless = vec![0xff; 8];
        endless.extend_from_slice(b"{}");
        assert!(data_start(&endless, "t", "F32", &[0]).is_err());
    }
}
