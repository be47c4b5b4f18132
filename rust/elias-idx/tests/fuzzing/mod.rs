//! What is tried on arbitrary bytes. A fuzzer that is guided by coverage (`fuzz/` in the repository) calls these
//! functions with bytes that it makes up, the test `fuzz.rs` with those that the fuzzer found worth keeping.
//!
//! None of them may panic, read out of bounds, ask for absurd memory or never come back, whatever the bytes are.

mod damaged;
mod input;
mod manifest;
mod queries;
mod searches;
mod texts;

/// A function that is tried on bytes.
pub(crate) type Target = fn(&[u8]);

/// All of them, by the names of their folders in the corpus.
pub(crate) const TARGETS: [(&str, Target); 4] = [
    ("damaged", damaged::run),
    ("manifest", manifest::run),
    ("queries", queries::run),
    ("texts", texts::run),
];
