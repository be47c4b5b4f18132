//! Checks of what callers give.

use crate::error::ArgumentError;

/// Checks a size, which must be at least 1.
pub(crate) fn check_positive(name: &'static str, value: usize) -> Result<(), ArgumentError> {
    if value == 0 { Err(ArgumentError::Zero { name }) } else { Ok(()) }
}

/// Checks an array's length against that which others imply.
pub(crate) fn check_len(
    name: &'static str,
    received: usize,
    expected: usize,
) -> Result<(), ArgumentError> {
    if received == expected {
        return Ok(());
    }
    Err(ArgumentError::WrongLength { name, expected, received })
}
