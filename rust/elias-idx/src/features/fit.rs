//! Which n-grams are in enough of the training texts.
//!
//! The texts are gone over once for each n. What is counted are the distinct n-grams whose first n − 1 symbols are known
//! already: memory is that of those, and of a piece of the texts.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::Range;

use super::classes::CharClasses;
use super::ids::{WordIds, mix};
use super::ngrams::Ngrams;
use super::rows::Scratch;
use super::texts::Texts;
use super::words::Words;
use super::{Block, Field, FittedBlock, Symbols, TextFeatures, Unit};
use crate::error::Result;
use crate::threads::{self, Hook, Loops};

/// Tables that keys are shared out to, so that threads can count at the same time.
const NUM_SHARDS: usize = 64;
/// Texts that a thread takes at once.
const TEXTS_AT_ONCE: usize = 256;

/// Learns the n-grams of blocks, and their weights, from `num_texts` texts.
///
/// `read` adds the texts from the given number on to [`Texts`], at least one, until they are full.
///
/// # Errors
/// Those of `read`; a block that is none, or too many n-grams; those of a call on threads.
pub fn fit(
    blocks: &[Block],
    num_texts: usize,
    read: &mut dyn FnMut(usize, &mut Texts) -> Result<()>,
    num_threads: usize,
    hook: Hook<'_>,
) -> Result<TextFeatures> {
    blocks.iter().try_for_each(Block::check)?;
    let mut corpus = Corpus { num_texts, read, num_threads, hook };
    let mut fits = corpus.fit_symbols(blocks)?;
    let longest = blocks.iter().map(|block| block.longest).max().unwrap_or(1);
    for n in 2..=longest {
        corpus.fit_longer(&mut fits, n)?;
    }
    fits.finish(num_texts)
}

/// Features in the making: the texts that have each n-gram, of the shortest ones first, stand in for its idf.
struct Fits {
    features: TextFeatures,
    /// Of each block, for each n.
    counts: Vec<Vec<Vec<u32>>>,
}

impl Fits {
    /// Blocks whose symbols, and the numbers of texts that have them, are given by `frequent`.
    fn new(blocks: &[Block], frequent: impl Fn(&Block) -> (Vec<String>, Vec<u32>)) -> Self {
        let (symbols, counts): (Vec<_>, Vec<_>) = blocks.iter().map(frequent).unzip();
        let mut vocabulary = WordIds::default();
        for (block, symbols) in blocks.iter().zip(&symbols) {
            vocabulary.add_symbols(block.unit, symbols);
        }
        let fitted = blocks.iter().zip(&symbols).map(|(block, symbols)| {
            let symbols = Symbols::new(block.unit, symbols, &vocabulary)
                .expect("symbols were counted once each");
            let ngrams = Ngrams::new(symbols.len(), block.shortest);
            FittedBlock { block: block.clone(), symbols, ngrams, idf: Vec::new() }
        });
        let blocks = fitted.collect();
        let counts = counts.into_iter().map(|counts| vec![counts]).collect();
        Self { features: TextFeatures { vocabulary, blocks }, counts }
    }

    fn finish(mut self, num_texts: usize) -> Result<TextFeatures> {
        for (fitted, counts) in self.features.blocks.iter_mut().zip(&self.counts) {
            let of_features = counts[fitted.block.shortest - 1..].iter().flatten();
            fitted.idf = of_features.map(|&count| idf(num_texts, count)).collect();
        }
        self.features.checked()
    }
}

fn idf(num_texts: usize, count: u32) -> f32 {
    (1.0 + ((1.0 + num_texts as f64) / (1.0 + f64::from(count))).ln()) as f32
}

/// The training texts.
struct Corpus<'a> {
    num_texts: usize,
    read: &'a mut dyn FnMut(usize, &mut Texts) -> Result<()>,
    num_threads: usize,
    hook: Hook<'a>,
}

impl Corpus<'_> {
    /// Makes a `P` of every few texts, several at a time, and gives them to `merge`: those of a piece of the texts at
    /// once, in order.
    fn for_each_piece<P: Default + Clone + Send>(
        &mut self,
        make: impl Fn(&Texts, Range<usize>, &mut P) + Sync,
        mut merge: impl FnMut(&mut threads::Team<'_>, &[P]) -> Result<()>,
    ) -> Result<()> {
        let (mut texts, mut first) = (Texts::default(), 0);
        while first < self.num_texts {
            texts.clear();
            (self.read)(first, &mut texts)?;
            first += texts.len();
            let mut parts = vec![P::default(); texts.len().div_ceil(TEXTS_AT_ONCE)];
            threads::lead(self.num_threads, &mut *self.hook, |team| {
                team.for_each_part(&mut parts, 1, &|part, own| {
                    let start = part * TEXTS_AT_ONCE;
                    make(&texts, start..texts.len().min(start + TEXTS_AT_ONCE), &mut own[0]);
                })?;
                merge(team, &parts)
            })?;
        }
        Ok(())
    }

    /// The blocks with the symbols that are in enough texts.
    fn fit_symbols(&mut self, blocks: &[Block]) -> Result<Fits> {
        let mut kinds: Vec<(Field, Unit)> = Vec::new();
        let kind_of = |block: &Block| (block.field, block.unit);
        blocks.iter().for_each(|block| {
            if !kinds.contains(&kind_of(block)) {
                kinds.push(kind_of(block));
            }
        });
        let mut found = vec![SymbolCounts::default(); kinds.len()];
        let make = |texts: &Texts, range: Range<usize>, own: &mut Vec<SymbolCounts>| {
            own.resize(kinds.len(), SymbolCounts::default());
            let (classes, mut words) = (CharClasses::get(), Words::default());
            for text in range {
                words.read(texts.get(text), classes);
                for (counts, &(field, unit)) in own.iter_mut().zip(&kinds) {
                    counts.add_text(&words, field, unit, text);
                }
            }
        };
        self.for_each_piece(make, |_, parts: &[Vec<SymbolCounts>]| {
            for part in parts {
                found.iter_mut().zip(part).for_each(|(all, own)| all.merge(own));
            }
            Ok(())
        })?;
        let place = |block: &Block| kinds.iter().position(|&kind| kind == kind_of(block));
        Ok(Fits::new(blocks, |block| {
            let counts = &found[place(block).expect("all kinds were counted")];
            counts.frequent(block.unit, block.min_texts)
        }))
    }

    /// Adds the n-grams of one n to the blocks that have such.
    fn fit_longer(&mut self, fits: &mut Fits, n: usize) -> Result<()> {
        let features = &fits.features;
        let growing: Vec<usize> = (0..features.blocks.len())
            .filter(|&place| features.blocks[place].block.longest >= n)
            .collect();
        let mut shards = vec![HashMap::<u64, u32, KeyHash>::default(); growing.len() * NUM_SHARDS];
        let make = |texts: &Texts, range: Range<usize>, own: &mut Vec<Vec<u64>>| {
            own.resize(growing.len() * NUM_SHARDS, Vec::new());
            features.candidates(texts, range, &growing, own);
        };
        self.for_each_piece(make, |team, parts| {
            team.for_each_part(&mut shards, 1, &|shard, counts| {
                for &key in parts.iter().flat_map(|part| &part[shard]) {
                    *counts[0].entry(key).or_default() += 1;
                }
            })
        })?;
        for (counts, place) in shards.chunks(NUM_SHARDS).zip(growing) {
            let fitted = &mut fits.features.blocks[place];
            let frequent =
                counts.iter().flatten().filter(|entry| *entry.1 as usize >= fitted.block.min_texts);
            let mut frequent: Vec<(u64, u32)> =
                frequent.map(|(&key, &count)| (key, count)).collect();
            frequent.sort_unstable();
            let (keys, counts): (Vec<u64>, Vec<u32>) = frequent.into_iter().unzip();
            fitted.ngrams.push(&keys);
            fits.counts[place].push(counts);
        }
        Ok(())
    }
}

impl TextFeatures {
    /// The keys of the next n of some blocks, each once for each text that has it, shared out to shards.
    fn candidates(
        &self,
        texts: &Texts,
        range: Range<usize>,
        blocks: &[usize],
        shards: &mut [Vec<u64>],
    ) {
        let (classes, mut scratch, mut keys) = (CharClasses::get(), Scratch::default(), Vec::new());
        for text in range {
            scratch.words.read(texts.get(text), classes);
            self.word_ids(&scratch.words, &mut scratch.word_ids);
            for (&place, shards) in blocks.iter().zip(shards.chunks_mut(NUM_SHARDS)) {
                let block = &self.blocks[place];
                block.read(&scratch.words, &scratch.word_ids, &mut scratch.symbols);
                block.ngrams.candidates(&scratch.symbols, &mut scratch.occurrences, &mut keys);
                keys.sort_unstable();
                keys.dedup();
                keys.iter().for_each(|&key| shards[mix(key) as usize % NUM_SHARDS].push(key));
            }
        }
    }
}

/// In how many texts each symbol is, as they came first.
#[derive(Clone, Default)]
struct SymbolCounts {
    ids: WordIds,
    num_texts: Vec<u32>,
    /// The last text that had the symbol.
    last: Vec<usize>,
}

impl SymbolCounts {
    /// Counts the symbols of a text.
    fn add_text(&mut self, words: &Words, field: Field, unit: Unit, text: usize) {
        for word in words.of(field) {
            if unit == Unit::Word {
                self.add(word, text);
                continue;
            }
            self.add(" ", text);
            for character in word.chars() {
                self.add(character.encode_utf8(&mut [0; 4]), text);
            }
        }
    }

    fn add(&mut self, symbol: &str, text: usize) {
        let id = self.number(symbol);
        if self.last[id] != text {
            self.last[id] = text;
            self.num_texts[id] += 1;
        }
    }

    /// Adds what was counted in other texts.
    fn merge(&mut self, other: &Self) {
        for (symbol, &count) in other.ids.words().zip(&other.num_texts) {
            let id = self.number(symbol);
            self.num_texts[id] += count;
        }
    }

    fn number(&mut self, symbol: &str) -> usize {
        let id = self.ids.add(symbol) as usize;
        if id == self.num_texts.len() {
            self.num_texts.push(0);
            self.last.push(usize::MAX);
        }
        id
    }

    /// The symbols that are in enough texts, and in how many: words as they came first, characters in order.
    fn frequent(&self, unit: Unit, min_texts: usize) -> (Vec<String>, Vec<u32>) {
        let every = self.ids.words().zip(self.num_texts.iter().copied());
        let mut frequent: Vec<(&str, u32)> =
            every.filter(|entry| entry.1 as usize >= min_texts).collect();
        if unit == Unit::Char {
            frequent.sort_unstable();
        }
        frequent.into_iter().map(|(symbol, count)| (symbol.to_owned(), count)).unzip()
    }
}

/// Hashes keys of n-grams.
#[derive(Default)]
struct KeyHasher(u64);

type KeyHash = BuildHasherDefault<KeyHasher>;

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("keys are numbers")
    }

    fn write_u64(&mut self, key: u64) {
        // Keys of a shard have the lowest bits of `mix` in common.
        self.0 = mix(key).rotate_right(NUM_SHARDS.ilog2());
    }
}
