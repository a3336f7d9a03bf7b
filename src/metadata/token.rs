//! Tokens that need no table: each says when it ends, under a seal that the guest cannot make.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::error::{Error, ErrorKind, Result};
use crate::sys::random_bytes;

/// Bytes of the moment, and of the seal over it.
const MOMENT: usize = 8;
const SEAL: usize = 32;

/// Gives tokens out and knows them again. The key is drawn at random and kept nowhere else, so that no other card's tokens are good
/// here, and none from before a VM was saved.
pub(super) struct Tokens {
    seal: Hmac<Sha256>,
}

impl Tokens {
    /// # Errors
    /// If the host has no random bytes.
    pub(super) fn new() -> Result<Self> {
        // As many as a block of the hash has.
        let mut key = [0; 64];
        random_bytes(&mut key)
            .map_err(|e| Error::new(ErrorKind::Host, "cannot get random bytes for a key of tokens").with_source(e))?;
        Ok(Self { seal: Hmac::new(&key.into()) })
    }

    /// Returns a token that is good until `end`, in milliseconds of the clock of [`is_good`](Self::is_good).
    pub(super) fn give(&self, end: u64) -> String {
        let end = end.to_be_bytes();
        let seal = self.seal.clone().chain_update(end).finalize().into_bytes();
        end.iter().chain(&seal).map(|byte| format!("{byte:02x}")).collect()
    }

    /// Whether a token is one of these and has not ended. How long that takes says nothing about what would be one.
    pub(super) fn is_good(&self, token: &[u8], now: u64) -> bool {
        let Some(bytes) = bytes_of(token) else { return false };
        let Some((end, seal)) = bytes.split_first_chunk::<MOMENT>() else { return false };
        self.seal.clone().chain_update(end).verify_slice(seal).is_ok() && now < u64::from_be_bytes(*end)
    }
}

fn bytes_of(token: &[u8]) -> Option<[u8; MOMENT + SEAL]> {
    let mut bytes = [0; MOMENT + SEAL];
    let (pairs, rest) = token.as_chunks::<2>();
    if pairs.len() != bytes.len() || !rest.is_empty() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(pairs) {
        let digits =
            std::str::from_utf8(pair).ok().filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        *byte = u8::from_str_radix(digits?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_until_its_end_and_only_where_it_was_given() {
        let (tokens, others) = (Tokens::new().unwrap(), Tokens::new().unwrap());
        let token = tokens.give(1000);
        assert!(tokens.is_good(token.as_bytes(), 0) && tokens.is_good(token.as_bytes(), 999));
        assert!(!tokens.is_good(token.as_bytes(), 1000));
        assert!(!others.is_good(token.as_bytes(), 0));
    }

    #[test]
    fn a_token_that_was_altered_anywhere_is_not_good() {
        let tokens = Tokens::new().unwrap();
        let token = tokens.give(1000);
        for place in 0..token.len() {
            let mut altered = token.clone().into_bytes();
            altered[place] = if altered[place] == b'0' { b'1' } else { b'0' };
            assert!(!tokens.is_good(&altered, 0), "{place}");
            assert!(!tokens.is_good(&token.as_bytes()[..place], 0), "{place}");
            altered[place] = b'+';
            assert!(!tokens.is_good(&altered, 0), "{place}");
        }
        assert!(!tokens.is_good(format!("{token}0").as_bytes(), 0));
        assert!(!tokens.is_good(format!("{token}00").as_bytes(), 0));
    }
}
