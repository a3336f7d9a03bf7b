//! The command line: plain words by their place, and `key=value`.

use std::io;

pub struct Args<'a>(&'a [String]);

impl<'a> Args<'a> {
    pub fn new(words: &'a [String]) -> Self {
        Self(words)
    }

    /// A word that is not `key=value`; these are counted from 0.
    pub fn word(&self, place: usize) -> io::Result<&'a str> {
        let plain = self.0.iter().filter(|word| word.starts_with('/') || !word.contains('='));
        plain.map(String::as_str).nth(place).ok_or_else(|| io::Error::other(format!("word {place} is missing")))
    }

    /// All words from this place on, of any kind.
    pub fn from(&self, place: usize) -> &'a [String] {
        self.0.get(place..).unwrap_or_default()
    }

    pub fn text(&self, key: &str) -> Option<&'a str> {
        self.0.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    }

    pub fn number(&self, key: &str) -> io::Result<u64> {
        let text = self.text(key).ok_or_else(|| io::Error::other(format!("{key}= is missing")))?;
        text.parse().map_err(|_| io::Error::other(format!("{key}={text} is not a number")))
    }
}
