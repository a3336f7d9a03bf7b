//! An input as a stream of choices. At its end all choices are 0.

use arbitrary::Unstructured;

/// Makes choices of bytes.
pub struct Input<'a>(Unstructured<'a>);

impl<'a> Input<'a> {
    /// Choices from these bytes.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(Unstructured::new(bytes))
    }

    /// Whether the bytes are used up.
    pub fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    /// Any byte; takes one.
    pub fn byte(&mut self) -> u8 {
        self.0.arbitrary().unwrap_or(0)
    }

    /// Any 16 bits; takes two bytes.
    pub fn half(&mut self) -> u16 {
        self.0.arbitrary().unwrap_or(0)
    }

    /// Any 32 bits; takes four bytes.
    pub fn word(&mut self) -> u32 {
        self.0.arbitrary().unwrap_or(0)
    }

    /// Any 64 bits; takes eight bytes.
    pub fn long(&mut self) -> u64 {
        self.0.arbitrary().unwrap_or(0)
    }

    /// A number below `count`, which is from 1 to 256; takes one byte.
    pub fn below(&mut self, count: u16) -> u16 {
        u16::from(self.byte()) % count
    }

    /// Whether something is so that is so one time in `count`; takes one byte. 0 means no.
    pub fn one_in(&mut self, count: u8) -> bool {
        self.byte() % count == count - 1
    }
}

/// Writes an input, choice by choice, as [`Input`] reads it.
#[derive(Clone, Default)]
pub struct Script(Vec<u8>);

impl Script {
    /// One without a choice.
    pub fn new() -> Self {
        Self::default()
    }

    /// Single bytes.
    #[must_use]
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    /// 16 bits.
    #[must_use]
    pub fn half(self, value: u16) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    /// 32 bits.
    #[must_use]
    pub fn word(self, value: u32) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    /// 64 bits.
    #[must_use]
    pub fn long(self, value: u64) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    /// The input.
    pub fn done(self) -> Vec<u8> {
        self.0
    }
}

/// The text that an input stands for: what follows its first byte as it is, or words behind a beginning that is right.
pub fn text_of(bytes: &[u8], beginning: &str, words: &[&str]) -> Option<String> {
    let (kind, rest) = bytes.split_first()?;
    if *kind == 0 {
        return Some(String::from_utf8_lossy(rest).into_owned());
    }
    let picked = rest.iter().map(|byte| words[usize::from(*byte) % words.len()]);
    Some(std::iter::once(beginning).chain(picked).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_read_as_it_was_written_and_then_as_zeros() {
        let bytes = Script::new().bytes(&[7]).half(0x1234).word(0x5678_9abc).long(u64::MAX - 1).done();
        let mut input = Input::new(&bytes);
        assert_eq!((input.byte(), input.half(), input.word(), input.long()), (7, 0x1234, 0x5678_9abc, u64::MAX - 1));
        assert!(input.is_over() && input.long() == 0 && !input.one_in(2));
    }
}
