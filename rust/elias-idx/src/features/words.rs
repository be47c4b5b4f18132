//! Texts as words.

use std::ops::Range;

use super::Field;
use super::classes::{CharClass, CharClasses};

/// The words of a text, in lower case; the memory is kept for the next text.
///
/// A word is letters, numbers and underscores in a row, with combining marks behind any of them. Lower case is that of
/// Unicode's full mappings: İ becomes two characters, and Σ is ς at the end of a word.
#[derive(Default)]
pub(crate) struct Words {
    lower: String,
    spans: Vec<Range<usize>>,
    in_first_line: usize,
}

impl Words {
    /// Those of `text`.
    pub(crate) fn read(&mut self, text: &str, classes: &CharClasses) {
        self.lower.clear();
        if text.is_ascii() {
            self.lower.push_str(text);
            self.lower.make_ascii_lowercase();
        } else {
            self.lower = text.to_lowercase();
        }
        self.split(classes);
        let end = first_line_end(&self.lower);
        self.in_first_line = self.spans.partition_point(|span| span.start < end);
    }

    fn split(&mut self, classes: &CharClasses) {
        self.spans.clear();
        let mut start = None;
        for (at, character) in self.lower.char_indices() {
            match (classes.of(character), start) {
                (CharClass::Word, None) => start = Some(at),
                (CharClass::Other, Some(first)) => {
                    self.spans.push(first..at);
                    start = None;
                }
                _ => {}
            }
        }
        self.spans.extend(start.map(|first| first..self.lower.len()));
    }

    /// The words of all of the text, or of its first line.
    pub(crate) fn of(&self, field: Field) -> impl ExactSizeIterator<Item = &str> {
        let spans = &self.spans[..self.count(field)];
        spans.iter().map(|span| &self.lower[span.clone()])
    }

    /// How many there are.
    pub(crate) fn count(&self, field: Field) -> usize {
        match field {
            Field::Text => self.spans.len(),
            Field::FirstLine => self.in_first_line,
        }
    }
}

/// Where the first line that isn't blank ends.
fn first_line_end(text: &str) -> usize {
    let start = text.len() - text.trim_start_matches(is_space).len();
    text[start..].find('\n').map_or(text.len(), |length| start + length)
}

/// Unicode's white space, and the separators of files, groups, records and units, which are space to Python too.
fn is_space(character: char) -> bool {
    character.is_whitespace() || ('\x1c'..='\x1f').contains(&character)
}

/// The words of a text, in lower case, as features are made of them.
#[must_use]
pub fn split_words(text: &str) -> Vec<String> {
    let mut words = Words::default();
    words.read(text, CharClasses::get());
    words.of(Field::Text).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words_of(text: &str, field: Field) -> Vec<String> {
        let mut words = Words::default();
        words.read("left over", CharClasses::get());
        words.read(text, CharClasses::get());
        words.of(field).map(str::to_owned).collect()
    }

    #[test]
    fn words_are_letters_numbers_and_underscores_with_their_marks() {
        assert_eq!(
            split_words("Acute_x2, (viral)-Hepatitis½"),
            ["acute_x2", "viral", "hepatitis½"]
        );
        assert_eq!(split_words("हिन्दी \u{301}cafe\u{301}s"), ["हिन्दी", "cafe\u{301}s"]);
        assert!(split_words(" .\u{301} ").is_empty());
    }

    #[test]
    fn lower_case_depends_on_what_stands_around() {
        assert_eq!(split_words("ΟΔΟΣ ΣΑΣ'Α İ"), ["οδος", "σασ", "α", "i\u{307}"]);
    }

    #[test]
    fn the_first_line_is_the_first_that_is_not_blank() {
        for (text, expected) in [
            ("\n \u{1f}\u{a0}\nA b\nc", vec!["a", "b"]),
            ("A b", vec!["a", "b"]),
            ("ÄB\r\nc", vec!["äb"]),
            ("\u{2028}!\nc", vec![]),
            (" \n ", vec![]),
        ] {
            assert_eq!(words_of(text, Field::FirstLine), expected, "{text:?}");
        }
    }
}
