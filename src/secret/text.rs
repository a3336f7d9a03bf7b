//! Keys as text: one line that says what it is and for which suite, with a checksum, so that a slip is noticed.

use base64ct::{Base64UrlUnpadded, Encoding};
use sha2::{Digest, Sha256};

use super::suite::Suite;
use super::{no_secret_memory, refused};
use crate::error::Result;
use crate::sys::{LockedBytes, on_scrubbed_stack};

/// What a text is, in its first two fields.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Sealing,
    Host,
}

/// The version of the form of all texts.
const FORM: &str = "1";
const CHECK_LEN: usize = 4;
/// Before the text of a key is looked at: that of X-Wing's public key has 1659 bytes.
pub(super) const MOST_TEXT: usize = 4096;

impl Kind {
    fn prefix(self) -> &'static str {
        match self {
            Self::Sealing => "vmcell-sealing-key",
            Self::Host => "vmcell-host-key",
        }
    }

    fn what(self) -> &'static str {
        match self {
            Self::Sealing => "a sealing key (public)",
            Self::Host => "a host key (private)",
        }
    }

    /// The first bytes of the SHA-256 of what the text says, so that another kind, suite or key has others.
    fn check(self, suite: Suite, key: &[u8]) -> [u8; CHECK_LEN] {
        let mut hash = Sha256::new();
        for part in [self.prefix().as_bytes(), FORM.as_bytes(), suite.to_string().as_bytes()] {
            hash.update(part);
            hash.update([0]);
        }
        hash.update(key);
        let mut check = [0; CHECK_LEN];
        check.iter_mut().zip(hash.finalize()).for_each(|(check, byte)| *check = byte);
        check
    }

    /// The text of a key: `KIND:FORM:SUITE:KEY`, the last with its checksum.
    fn head(self, suite: Suite) -> String {
        format!("{}:{FORM}:{suite}:", self.prefix())
    }

    /// The text of a key that anybody may have.
    pub(super) fn write_public(self, suite: Suite, key: &[u8]) -> String {
        let checked = [key, &self.check(suite, key)].concat();
        self.head(suite) + &Base64UrlUnpadded::encode_string(&checked)
    }

    /// The text of a key that nobody else may have.
    pub(super) fn write_private(self, suite: Suite, key: &[u8]) -> Result<LockedBytes> {
        let mut checked = LockedBytes::zeroed(key.len().saturating_add(CHECK_LEN)).map_err(no_secret_memory)?;
        let check = on_scrubbed_stack(|| self.check(suite, key));
        checked.iter_mut().zip(key.iter().chain(&check)).for_each(|(place, byte)| *place = *byte);
        let head = self.head(suite);
        let len = head.len().saturating_add(Base64UrlUnpadded::encoded_len(&checked));
        let mut text = LockedBytes::zeroed(len).map_err(no_secret_memory)?;
        let (front, back) = text.split_at_mut_checked(head.len()).unwrap_or_default();
        front.copy_from_slice(head.as_bytes());
        Base64UrlUnpadded::encode(&checked, back).map_err(|_| refused("a key is too long for a text"))?;
        Ok(text)
    }

    /// Reads a text. No message shows any of it but for the names of suites.
    pub(super) fn read(self, text: &[u8]) -> Result<(Suite, LockedBytes)> {
        let text = text.trim_ascii();
        if text.len() > MOST_TEXT {
            return Err(refused(format!("it has more than {MOST_TEXT} bytes, which no key has")));
        }
        let other = match self {
            Self::Sealing => Self::Host,
            Self::Host => Self::Sealing,
        };
        let is = |kind: Self| text.strip_prefix(kind.prefix().as_bytes()).and_then(|rest| rest.strip_prefix(b":"));
        let Some(rest) = is(self) else {
            let found = if is(other).is_some() { other.what() } else { "something else" };
            return Err(refused(format!("it is {found}, {} begins with \"{}:\"", self.what(), self.prefix())));
        };
        let mut fields = rest.split(|byte| *byte == b':');
        let mut field = || fields.next().and_then(|field| std::str::from_utf8(field).ok());
        let (Some(form), Some(suite), Some(key)) = (field(), field(), field()) else {
            return Err(self.garbled("it is cut"));
        };
        if form != FORM {
            return Err(refused(format!("it is of form {form:.16}, known is {FORM}")));
        }
        if suite.len() > 16 {
            return Err(self.garbled("the name of its suite is too long"));
        }
        let suite: Suite = suite.parse()?;
        let key = self.decode(suite, key)?;
        Ok((suite, key))
    }

    fn key_len(self, suite: Suite) -> usize {
        match self {
            Self::Sealing => suite.public_len(),
            Self::Host => super::suite::PRIVATE_LEN,
        }
    }

    fn decode(self, suite: Suite, text: &str) -> Result<LockedBytes> {
        let mut bytes = LockedBytes::zeroed(text.len()).map_err(no_secret_memory)?;
        let decoded = Base64UrlUnpadded::decode(text, &mut bytes);
        let decoded = decoded.map_err(|_| self.garbled("it is no base64url"))?;
        let len = self.key_len(suite);
        let Some((key, check)) = decoded.split_at_checked(len).filter(|(_, check)| check.len() == CHECK_LEN) else {
            let (has, takes) = (decoded.len(), len.saturating_add(CHECK_LEN));
            return Err(self.garbled(&format!("it has {has} bytes, those of {suite} have {takes}")));
        };
        if check != on_scrubbed_stack(|| self.check(suite, key)) {
            return Err(self.garbled("its checksum is wrong"));
        }
        LockedBytes::copy_of(key).map_err(no_secret_memory)
    }

    fn garbled(self, how: &str) -> crate::error::Error {
        refused(format!("it is no whole text of {}: {how}", self.what()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(kind: Kind, text: &[u8]) -> String {
        kind.read(text).map(drop).unwrap_err().to_string()
    }

    #[test]
    fn each_changed_byte_and_each_cut_is_noticed() {
        for suite in [Suite::X25519, Suite::XWing] {
            let key: Vec<u8> = (0..suite.public_len()).map(|at| at as u8).collect();
            let text = Kind::Sealing.write_public(suite, &key).into_bytes();
            assert!(text.len() < MOST_TEXT);
            let (read, bytes) = Kind::Sealing.read(&text).unwrap();
            assert_eq!((read, &*bytes), (suite, &*key));
            for at in 0..text.len() {
                assert!(Kind::Sealing.read(&text[..at]).is_err(), "{at} bytes of {suite}");
                let mut other = text.clone();
                other[at] = if text[at] == b'A' { b'B' } else { b'A' };
                assert!(Kind::Sealing.read(&other).is_err(), "byte {at} of {suite}");
            }
        }
    }

    #[test]
    fn what_is_no_key_of_this_kind_is_told_and_not_shown() {
        let host = Kind::Host.write_private(Suite::X25519, &[0x5a; 32]).unwrap();
        let public = Kind::Sealing.write_public(Suite::X25519, &[0x5a; 32]);
        assert!(Kind::Host.read(&[&*host, b"\n"].concat()).is_ok_and(|(_, key)| *key == [0x5a; 32]));
        assert!(said(Kind::Sealing, &host).contains("it is a host key (private), a sealing key (public) begins with"));
        assert!(said(Kind::Host, public.as_bytes()).contains("it is a sealing key (public)"));
        assert!(said(Kind::Host, b"AGE-SECRET-KEY-1").contains("it is something else"));
        assert!(said(Kind::Host, b"vmcell-host-key:2:x25519:Wlpa").contains("it is of form 2, known is 1"));
        assert!(said(Kind::Host, b"vmcell-host-key:1:x448:Wlpa").contains(r#"the suite "x448" was asked for"#));
        assert!(said(Kind::Host, b"vmcell-host-key:1:x25519:Wlpa").contains("it has 3 bytes, those of x25519 have 36"));
        assert!(said(Kind::Host, &[b'x'; 5000]).contains("more than 4096 bytes"));
        for cut in 1..host.len() {
            let said = said(Kind::Host, &host[..cut]);
            assert!(!said.contains("WlpaWlpa"), "{said}");
        }
    }
}
