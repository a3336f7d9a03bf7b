//! A writer of JSON (RFC 8259). It is written by hand, so that every build has it, and no build needs a library for it.

use std::fmt::Write;
use std::time::Duration;

/// A text that grows.
#[derive(Default)]
pub(super) struct Json {
    text: String,
}

impl Json {
    pub(super) fn into_text(self) -> String {
        self.text
    }

    pub(super) fn object(&mut self, members: impl FnOnce(&mut Self)) {
        self.text.push('{');
        members(self);
        self.text.push('}');
    }

    pub(super) fn list<T>(&mut self, name: &str, items: &[T], write: impl Fn(&mut Self, &T)) {
        self.member(name);
        self.text.push('[');
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                self.text.push(',');
            }
            self.object(|json| write(json, item));
        }
        self.text.push(']');
    }

    /// Begins a member of the present object.
    pub(super) fn member(&mut self, name: &str) {
        if !self.text.ends_with('{') {
            self.text.push(',');
        }
        self.string(name);
        self.text.push(':');
    }

    pub(super) fn text(&mut self, name: &str, value: &str) {
        self.member(name);
        self.string(value);
    }

    pub(super) fn number(&mut self, name: &str, value: u64) {
        self.member(name);
        self.text += &value.to_string();
    }

    pub(super) fn signed(&mut self, name: &str, value: i64) {
        self.member(name);
        self.text += &value.to_string();
    }

    pub(super) fn flag(&mut self, name: &str, value: bool) {
        self.member(name);
        self.text += if value { "true" } else { "false" };
    }

    pub(super) fn time(&mut self, name: &str, value: Duration) {
        self.number(name, u64::try_from(value.as_nanos()).unwrap_or(u64::MAX));
    }

    fn string(&mut self, value: &str) {
        self.text.push('"');
        for character in value.chars() {
            match character {
                '"' | '\\' => self.text.extend(['\\', character]),
                // A text takes everything that is written to it.
                '\0'..='\x1f' => _ = write!(self.text, "\\u{:04x}", u32::from(character)),
                _ => self.text.push(character),
            }
        }
        self.text.push('"');
    }
}
