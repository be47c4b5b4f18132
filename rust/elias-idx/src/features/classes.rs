//! Which characters are part of words.

use std::sync::OnceLock;

use regex_syntax::hir::{Class, HirKind};

const PAGE: usize = 256;
const NUM_PAGES: usize = (char::MAX as usize + 1) / PAGE;

/// What a character is to words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CharClass {
    /// It is in no word.
    Other,
    /// A letter, a number or an underscore: it starts a word or goes on with one.
    Word,
    /// A combining mark: it goes on with a word. Without them, words of Indian and other scripts would be cut at the
    /// marks that are their vowels.
    Mark,
}

/// The class of each character by Unicode's general categories: L, N and the underscore are [`CharClass::Word`], M is
/// [`CharClass::Mark`]. The version of Unicode is that of the crate `regex-syntax`.
pub(crate) struct CharClasses {
    /// Of each 256 characters, the place of their page.
    place: Vec<u8>,
    /// The distinct pages.
    pages: Vec<[CharClass; PAGE]>,
}

impl CharClasses {
    /// The table, which is made when it is first asked for.
    pub(crate) fn get() -> &'static Self {
        static CLASSES: OnceLock<CharClasses> = OnceLock::new();
        CLASSES.get_or_init(Self::make)
    }

    pub(crate) fn of(&self, character: char) -> CharClass {
        let code = character as usize;
        self.pages[usize::from(self.place[code / PAGE])][code % PAGE]
    }

    fn make() -> Self {
        let mut every = vec![CharClass::Other; NUM_PAGES * PAGE];
        for (pattern, class) in [(r"[\p{L}\p{N}_]", CharClass::Word), (r"\p{M}", CharClass::Mark)] {
            for (first, last) in ranges(pattern) {
                every[first as usize..=last as usize].fill(class);
            }
        }
        let mut classes = Self { place: Vec::with_capacity(NUM_PAGES), pages: Vec::new() };
        for page in every.as_chunks::<PAGE>().0 {
            let place = classes.pages.iter().position(|known| known == page);
            let place = place.unwrap_or_else(|| {
                classes.pages.push(*page);
                classes.pages.len() - 1
            });
            classes.place.push(u8::try_from(place).expect("scripts are on fewer than 256 pages"));
        }
        classes
    }
}

/// The first and last characters of the runs in a character class.
fn ranges(pattern: &str) -> Vec<(char, char)> {
    let class = regex_syntax::parse(pattern).expect("the pattern is a constant");
    match class.kind() {
        HirKind::Class(Class::Unicode(class)) => {
            class.iter().map(|range| (range.start(), range.end())).collect()
        }
        other => unreachable!("{pattern} is a class of characters, not {other:?}"),
    }
}
