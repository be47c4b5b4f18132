//! The one place where the core's errors become Python's.

use std::io;

use elias_idx::Error;
use pyo3::exceptions::{PyException, PyMemoryError, PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;

pyo3::create_exception!(elias_idx, EliasIdxError, PyException, "What elias_idx raises of its own.");
pyo3::create_exception!(
    elias_idx,
    FormatError,
    EliasIdxError,
    "An index that is damaged, not an index, or newer than this library."
);

/// The Python exception for an error of the core.
pub(crate) fn raise(error: Error) -> PyErr {
    match error {
        Error::Argument(error) => PyValueError::new_err(error.to_string()),
        Error::Format { .. } => FormatError::new_err(error.to_string()),
        Error::Io { path, source } => match errno(&source) {
            // With an errno, OSError makes itself FileNotFoundError and so on.
            Some(errno) => PyOSError::new_err((errno, reason(&source), path.into_os_string())),
            None if source.kind() == io::ErrorKind::InvalidInput => {
                PyValueError::new_err(format!("{}: {source}", path.display()))
            }
            None => PyOSError::new_err(format!("{}: {source}", path.display())),
        },
        Error::OutOfMemory { .. } => PyMemoryError::new_err(error.to_string()),
        Error::Interrupted => EliasIdxError::new_err(error.to_string()),
        _ => PyRuntimeError::new_err(error.to_string()),
    }
}

/// The system's error number; for errors of the core's own, the number that POSIX gives their kind
/// (these four are the same everywhere).
fn errno(error: &io::Error) -> Option<i32> {
    error.raw_os_error().or(match error.kind() {
        io::ErrorKind::NotFound => Some(2),
        io::ErrorKind::AlreadyExists => Some(17),
        io::ErrorKind::NotADirectory => Some(20),
        io::ErrorKind::InvalidData => Some(5),
        _ => None,
    })
}

/// The error's text without the number that Rust appends, for Python adds it too.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.rfind(" (os error ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}
