//! Texts as sparse vectors: text → words → n-grams of words or characters, in blocks → tf-idf → rows of unit length.
//!
//! An n-gram's weight in a text is (1 + ln count) · idf, with idf = 1 + ln((1 + N) / (1 + texts that have it)). A text's
//! n-grams of a block are given the block's weight as their length; then all of its n-grams together get unit length.
//!
//! N texts, F features, D dimensions of an embedding.

mod bag;
mod classes;
mod fit;
mod ids;
mod ngrams;
mod rows;
mod texts;
mod words;

pub use bag::{BagLayer, embed_bags};
pub use fit::fit;
pub use rows::FeatureRows;
pub use texts::Texts;
pub use words::split_words;

use ids::{CharIds, WordIds};
use ngrams::Ngrams;
use words::Words;

use crate::error::{ArgumentError, Result};

/// The number of what has none.
const NONE: u32 = u32::MAX;

/// Features at most, so that their columns are int32.
const MAX_FEATURES: usize = i32::MAX as usize;

/// Which part of a text n-grams are taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// All of it.
    Text,
    /// Its first line that isn't blank.
    FirstLine,
}

/// What n-grams are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Words of the field.
    Word,
    /// Characters of a word with a space on each side.
    Char,
}

/// n-grams of one kind, which are weighted by tf-idf and given a length of their own.
#[derive(Debug, Clone, PartialEq)]
pub struct Block {
    /// Where they are taken from.
    pub field: Field,
    /// What they are made of.
    pub unit: Unit,
    /// The shortest n, at least 1.
    pub shortest: usize,
    /// The longest n.
    pub longest: usize,
    /// In how many training texts an n-gram must be.
    pub min_texts: usize,
    /// The block's length beside the other blocks'.
    pub weight: f64,
}

/// The longest n-gram: memory of this many symbols is kept for each text at work.
const MAX_N: usize = 100;

impl Block {
    fn check(&self) -> Result<()> {
        let weighted = self.weight.is_finite() && self.weight >= 0.0;
        let ordered = (1..=self.longest).contains(&self.shortest);
        if ordered && self.longest <= MAX_N && weighted {
            return Ok(());
        }
        let message = format!(
            "a block's n-grams must have n from 1 to {MAX_N}, and its weight must not be negative"
        );
        Err(bad(message))
    }
}

/// What a block's n-grams are, beside the block itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BlockParts {
    /// The known symbols: words, or single characters.
    pub symbols: Vec<String>,
    /// The keys of the known n-grams for n = 2, 3, ..., ascending: the number of the first n − 1 symbols among the known
    /// (n−1)-grams times the number of symbols, plus the last symbol's number.
    pub keys: Vec<Vec<i64>>,
    /// Of the n-grams that are features, the shortest first.
    pub idf: Vec<f32>,
}

/// Turns texts into sparse vectors.
pub struct TextFeatures {
    /// The words of all blocks.
    vocabulary: WordIds,
    blocks: Vec<FittedBlock>,
}

/// A block with its n-grams.
struct FittedBlock {
    block: Block,
    symbols: Symbols,
    ngrams: Ngrams,
    /// Of each feature.
    idf: Vec<f32>,
}

/// The symbols of a block.
enum Symbols {
    /// Numbers of words in the vocabulary; and of each word in it, the symbol's number.
    Words {
        words: Vec<u32>,
        ids: Vec<u32>,
    },
    Chars(CharIds),
}

impl TextFeatures {
    /// Puts together what [`parts`](Self::parts) gave.
    ///
    /// # Errors
    /// [`ArgumentError::BadFeatures`] where the parts don't fit together.
    pub fn from_parts(blocks: &[(Block, BlockParts)]) -> Result<Self> {
        let mut vocabulary = WordIds::default();
        for (block, parts) in blocks {
            vocabulary.add_symbols(block.unit, &parts.symbols);
        }
        let fitted = blocks.iter().enumerate().map(|(place, (block, parts))| {
            block.check()?;
            let symbols =
                Symbols::new(block.unit, &parts.symbols, &vocabulary).ok_or_else(|| {
                    bad(format!(
                        "the symbols of block {place} must be distinct words, or characters"
                    ))
                })?;
            let mut ngrams = Ngrams::new(symbols.len(), block.shortest);
            ngrams.push_all(place, block.longest, &parts.keys)?;
            if parts.idf.len() != ngrams.num_features()
                || !parts.idf.iter().all(|idf| idf.is_finite())
            {
                return Err(bad(format!(
                    "idf must be finite numbers, {} of block {place}",
                    ngrams.num_features()
                )));
            }
            Ok(FittedBlock { block: block.clone(), symbols, ngrams, idf: parts.idf.clone() })
        });
        let blocks = fitted.collect::<Result<_>>()?;
        Self { vocabulary, blocks }.checked()
    }

    /// What is known of each block.
    #[must_use]
    pub fn parts(&self) -> Vec<BlockParts> {
        let parts = |fitted: &FittedBlock| BlockParts {
            symbols: fitted.symbols.names(&self.vocabulary),
            keys: fitted.ngrams.keys(),
            idf: fitted.idf.clone(),
        };
        self.blocks.iter().map(parts).collect()
    }

    /// F.
    #[must_use]
    pub fn num_features(&self) -> usize {
        self.blocks.iter().map(|block| block.idf.len()).sum()
    }

    fn checked(self) -> Result<Self> {
        if self.num_features() <= MAX_FEATURES {
            return Ok(self);
        }
        Err(bad(format!(
            "there are {} n-grams, more than {MAX_FEATURES}: raise min_texts",
            self.num_features()
        )))
    }

    /// The number of each word of a text in the vocabulary.
    fn word_ids(&self, words: &Words, ids: &mut Vec<u32>) {
        ids.clear();
        if self.blocks.iter().any(|block| block.block.unit == Unit::Word) {
            ids.extend(words.of(Field::Text).map(|word| self.vocabulary.get(word)));
        }
    }
}

impl FittedBlock {
    /// The symbols of a text, [`NONE`] for unknown ones. So many of these stand at the end, and one between the characters
    /// of two words, that no n-gram goes on there.
    fn read(&self, words: &Words, word_ids: &[u32], symbols: &mut Vec<u32>) {
        symbols.clear();
        match &self.symbols {
            Symbols::Words { ids, .. } => {
                let known = &word_ids[..words.count(self.block.field)];
                symbols.extend(
                    known.iter().map(|&word| ids.get(word as usize).copied().unwrap_or(NONE)),
                );
            }
            Symbols::Chars(ids) => {
                let space = ids.get(' ');
                for word in words.of(self.block.field) {
                    symbols.push(space);
                    symbols.extend(word.chars().map(|character| ids.get(character)));
                    symbols.extend([space, NONE]);
                }
            }
        }
        symbols.resize(symbols.len() + self.block.longest, NONE);
    }
}

impl Symbols {
    /// The symbols of these names, which are in the vocabulary if they are words; None if they aren't distinct, or no
    /// characters.
    fn new(unit: Unit, names: &[String], vocabulary: &WordIds) -> Option<Self> {
        if unit == Unit::Word {
            let words: Vec<u32> = names.iter().map(|name| vocabulary.get(name)).collect();
            let mut ids = vec![NONE; vocabulary.len()];
            for (id, &word) in words.iter().enumerate() {
                ids[word as usize] = id as u32;
            }
            let distinct = words.iter().zip(0..).all(|(&word, id)| ids[word as usize] == id);
            return distinct.then_some(Self::Words { words, ids });
        }
        let chars = names.iter().map(|name| name.parse().ok()).collect::<Option<Vec<char>>>()?;
        let ids = CharIds::new(chars);
        let distinct = ids.chars().iter().zip(0..).all(|(&character, id)| ids.get(character) == id);
        distinct.then_some(Self::Chars(ids))
    }

    fn len(&self) -> usize {
        match self {
            Self::Words { words, .. } => words.len(),
            Self::Chars(ids) => ids.chars().len(),
        }
    }

    fn names(&self, vocabulary: &WordIds) -> Vec<String> {
        match self {
            Self::Words { words, .. } => {
                words.iter().map(|&word| vocabulary.word(word).to_owned()).collect()
            }
            Self::Chars(ids) => ids.chars().iter().map(char::to_string).collect(),
        }
    }
}

fn bad(message: String) -> crate::error::Error {
    ArgumentError::BadFeatures(message).into()
}
