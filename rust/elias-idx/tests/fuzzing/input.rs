//! Numbers and pieces taken off a fuzzer's bytes.

/// What is left of the bytes. Where they end, zeros follow.
pub(crate) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// At most `len` bytes.
    pub(crate) fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    pub(crate) fn rest(&mut self) -> &'a [u8] {
        self.bytes(usize::MAX)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let taken = self.bytes(N);
        array[..taken.len()].copy_from_slice(taken);
        array
    }

    pub(crate) fn u8(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    pub(crate) fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    /// Any number, NaN and infinities included.
    pub(crate) fn f32(&mut self) -> f32 {
        f32::from_le_bytes(self.array())
    }

    /// Any number.
    pub(crate) fn f64(&mut self) -> f64 {
        f64::from_le_bytes(self.array())
    }

    pub(crate) fn bool(&mut self) -> bool {
        self.u8() & 1 == 1
    }

    /// A number below `end`, which is at most 65,536.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::from(self.u16()) % end
    }

    /// A number that is small more often than not.
    pub(crate) fn size(&mut self) -> usize {
        match self.u8() {
            255 => self.u64() as usize,
            small => usize::from(small),
        }
    }

    /// None, or a [`size`](Self::size).
    pub(crate) fn option(&mut self) -> Option<usize> {
        self.bool().then(|| self.size())
    }

    /// Up to 15 of what `next` takes.
    pub(crate) fn list<T>(&mut self, mut next: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.u8() % 16).map(|_| next(self)).collect()
    }

    /// An id that is out of range now and then.
    pub(crate) fn id(&mut self) -> i64 {
        match self.u8() {
            255 => self.u64() as i64,
            small => i64::from(small % 8),
        }
    }
}
