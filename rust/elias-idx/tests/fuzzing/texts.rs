//! Any text is split, counted and weighted, by features that were fitted and by such as a damaged model has.

use elias_idx::features::{
    Block, BlockParts, FeatureRows, Field, TextFeatures, Texts, Unit, fit, split_words,
};

use super::input::Input;

pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut blocks = input.list(block);
    blocks.truncate(3);
    let parts = input.bool().then(|| blocks.iter().map(|_| parts(&mut input)).collect::<Vec<_>>());
    let text = String::from_utf8_lossy(input.rest());
    for word in split_words(&text) {
        assert!(!word.is_empty());
    }
    let features = match parts {
        Some(parts) => TextFeatures::from_parts(&blocks.into_iter().zip(parts).collect::<Vec<_>>()),
        None => fitted(&blocks, &text),
    };
    if let Ok(features) = features {
        transform(&features, &text);
    }
}

fn block(input: &mut Input<'_>) -> Block {
    Block {
        field: if input.bool() { Field::Text } else { Field::FirstLine },
        unit: if input.bool() { Unit::Word } else { Unit::Char },
        shortest: input.below(4),
        longest: input.below(5),
        min_texts: input.below(3),
        weight: f64::from(input.u8()) - 1.0,
    }
}

/// What a model's files might say.
fn parts(input: &mut Input<'_>) -> BlockParts {
    let symbol = |input: &mut Input<'_>| {
        let len = usize::from(input.u8() % 4);
        String::from_utf8_lossy(input.bytes(len)).into_owned()
    };
    BlockParts {
        symbols: input.list(symbol),
        keys: input.list(|input| input.list(Input::id)),
        idf: input.list(Input::f32),
    }
}

fn fitted(blocks: &[Block], text: &str) -> elias_idx::Result<TextFeatures> {
    let lines: Vec<&str> = text.lines().collect();
    let read = &mut |start: usize, texts: &mut Texts| {
        lines[start..].iter().for_each(|line| texts.push(line));
        Ok(())
    };
    fit(blocks, lines.len(), read, 1, &mut || false)
}

/// Columns ascend, are features, and rows have unit length or none.
fn transform(features: &TextFeatures, text: &str) {
    let mut texts = Texts::default();
    texts.push(text);
    text.lines().for_each(|line| texts.push(line));
    let mut rows = FeatureRows::default();
    features.transform(&texts, &mut rows, 1, &mut || false).unwrap();
    for pair in rows.offsets.windows(2) {
        let columns = &rows.columns[pair[0] as usize..pair[1] as usize];
        assert!(columns.is_sorted_by(|one, next| one < next));
        assert!(columns.last().is_none_or(|&last| (last as usize) < features.num_features()));
    }
}
