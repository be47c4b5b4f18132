//! Texts end to end.

/// Some texts, one after the other in memory that is kept for the next ones.
#[derive(Debug, Default)]
pub struct Texts {
    joined: String,
    ends: Vec<usize>,
}

impl Texts {
    /// Bytes and texts that are enough to be worked on together.
    const ENOUGH: (usize, usize) = (1 << 22, 1 << 14);

    /// Adds a text.
    pub fn push(&mut self, text: &str) {
        self.joined.push_str(text);
        self.ends.push(self.joined.len());
    }

    /// Whether there are enough texts to be worked on: with more, only memory grows.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.joined.len() >= Self::ENOUGH.0 || self.len() >= Self::ENOUGH.1
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Forgets the texts.
    pub fn clear(&mut self) {
        self.joined.clear();
        self.ends.clear();
    }

    /// The text with this number.
    ///
    /// # Panics
    /// There is none.
    #[must_use]
    pub fn get(&self, number: usize) -> &str {
        let start = if number == 0 { 0 } else { self.ends[number - 1] };
        &self.joined[start..self.ends[number]]
    }
}
