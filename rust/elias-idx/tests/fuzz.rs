//! The inputs that fuzzing found worth keeping, tried again: `make fuzz` looks for more of them.

mod common;
mod fuzzing;

use std::fs;
use std::path::Path;

#[test]
fn nothing_in_the_corpus_does_harm() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    for (name, target) in fuzzing::TARGETS {
        let inputs = fs::read_dir(corpus.join(name)).unwrap().map(|entry| entry.unwrap().path());
        let inputs: Vec<_> = inputs.collect();
        assert!(inputs.len() > 9, "the corpus of {name} has {} inputs", inputs.len());
        for path in inputs {
            // Shown by the test runner where the target panics.
            println!("{}", path.display());
            target(&fs::read(&path).unwrap());
        }
    }
}
