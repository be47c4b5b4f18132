//! The fuzz targets. They are in the core's tests, where inputs that were kept are tried without a fuzzer.

#[path = "../../rust/elias-idx/tests/common/mod.rs"]
mod common;
#[allow(unused, reason = "a binary runs one of them")]
#[path = "../../rust/elias-idx/tests/fuzzing/mod.rs"]
mod fuzzing;

/// Runs the target of this name.
///
/// # Panics
/// There is none, or the target found a fault.
pub fn run(name: &str, bytes: &[u8]) {
    let target = fuzzing::TARGETS.iter().find(|target| target.0 == name).expect("a target");
    (target.1)(bytes);
}
