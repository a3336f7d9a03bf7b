//! HPKE (RFC 9180) in its base mode: which algorithms there are, and one message for one key by each.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use hpke::aead::{AeadTag, ChaCha20Poly1305};
use hpke::inout::InOutBuf;
use hpke::kdf::HkdfSha256;
use hpke::kem::{X25519HkdfSha256, XWing};
use hpke::rand_core::{TryCryptoRng, TryRng};
use hpke::{Deserializable, HpkeError, Kem, OpModeR, OpModeS, Serializable};

use super::{no_random, refused};
use crate::error::{Error, Result};
use crate::sys::{LockedBytes, on_scrubbed_stack, random_bytes, zero};

/// The algorithms that a host's key is for. All use HKDF-SHA256 and ChaCha20-Poly1305.
///
/// ```
/// use vmcell::secret::Suite;
///
/// assert_eq!(Suite::default().to_string(), "x25519");
/// assert_eq!("x-wing".parse(), Ok(Suite::XWing));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Suite {
    /// DHKEM(X25519, HKDF-SHA256), RFC 9180: keys of 32 bytes.
    #[default]
    X25519,
    /// X-Wing (draft-ietf-hpke-pq): X25519 together with ML-KEM-768, so that what is sealed today stays so if X25519 falls to a
    /// quantum computer. Public keys have 1216 bytes, and what is sealed is 1088 bytes longer.
    XWing,
}

/// All suites, by their names.
const SUITES: [(Suite, &str); 2] = [(Suite::X25519, "x25519"), (Suite::XWing, "x-wing")];

/// The numbers of a suite's algorithms, as IANA has them (HPKE registry): how keys are agreed on, derived, and used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ids {
    pub(super) kem: u16,
    pub(super) kdf: u16,
    pub(super) aead: u16,
}

type Aead = ChaCha20Poly1305;
type Kdf = HkdfSha256;
type Hpke<T> = std::result::Result<T, HpkeError>;
type Sure<T> = std::result::Result<T, Infallible>;

/// Bytes of a private key, whatever the suite.
pub(super) const PRIVATE_LEN: usize = 32;
/// By how many bytes a text becomes longer when it is encrypted.
pub(super) const TAG_LEN: usize = 16;

impl Suite {
    pub(super) fn ids(self) -> Ids {
        let kem = match self {
            Self::X25519 => X25519HkdfSha256::KEM_ID,
            Self::XWing => XWing::KEM_ID,
        };
        Ids { kem, kdf: 1, aead: 3 }
    }

    pub(super) fn of_ids(ids: Ids) -> Result<Self> {
        let found = SUITES.iter().find(|(suite, _)| suite.ids() == ids);
        found.map(|(suite, _)| *suite).ok_or_else(|| {
            let Ids { kem, kdf, aead } = ids;
            let [Ids { kem: x25519, .. }, Ids { kem: x_wing, .. }] = [Self::X25519.ids(), Self::XWing.ids()];
            refused(format!(
                "it uses the HPKE algorithms {kem:#06x}, {kdf:#06x}, {aead:#06x}; known are KEM {x25519:#06x} (x25519) and {x_wing:#06x} \
                 (x-wing) with KDF 0x0001 and AEAD 0x0003"
            ))
        })
    }

    /// Bytes of a public key.
    pub(super) fn public_len(self) -> usize {
        match self {
            Self::X25519 => <X25519HkdfSha256 as Kem>::PublicKey::size(),
            Self::XWing => <XWing as Kem>::PublicKey::size(),
        }
    }

    /// Bytes that say which key a message is encrypted by, to the owner of the private key.
    pub(super) fn encapsulated_len(self) -> usize {
        match self {
            Self::X25519 => <X25519HkdfSha256 as Kem>::EncappedKey::size(),
            Self::XWing => <XWing as Kem>::EncappedKey::size(),
        }
    }

    pub(super) fn public_of(self, private: &[u8]) -> Result<Vec<u8>> {
        on_scrubbed_stack(|| match self {
            Self::X25519 => public_of::<X25519HkdfSha256>(private),
            Self::XWing => public_of::<XWing>(private),
        })
        .map_err(|e| failed("the private key is refused", e))
    }

    /// Refuses what no public key is.
    pub(super) fn check_public(self, public: &[u8]) -> Result<()> {
        match self {
            Self::X25519 => <X25519HkdfSha256 as Kem>::PublicKey::from_bytes(public).map(drop),
            Self::XWing => <XWing as Kem>::PublicKey::from_bytes(public).map(drop),
        }
        .map_err(|e| failed("the public key is none of its kind", e))
    }

    /// Encrypts a text to a public key: into `encapsulated` goes what the owner of the private key needs, and into `sealed` the text
    /// with its tag. Nobody can change `associated` or `info` without the opening failing.
    pub(super) fn seal(self, public: &[u8], message: &Message, text: &[u8]) -> Result<(Vec<u8>, Vec<u8>)> {
        let mut random = Drawn::new()?;
        let sealed = self.seal_by(public, message, text, &mut random);
        if random.is_short {
            return Err(refused("it takes more random bytes than were drawn"));
        }
        sealed
    }

    pub(super) fn seal_by(
        self,
        public: &[u8],
        message: &Message,
        text: &[u8],
        random: &mut Drawn,
    ) -> Result<(Vec<u8>, Vec<u8>)> {
        on_scrubbed_stack(|| match self {
            Self::X25519 => seal::<X25519HkdfSha256>(public, message, text, random),
            Self::XWing => seal::<XWing>(public, message, text, random),
        })
        .map_err(|e| failed("nothing can be sealed to this key", e))
    }

    /// Decrypts what [`seal`](Self::seal) made into memory that is locked; `text` is as long as the text was. `false`: it was changed, or
    /// made for another key or with another `message`.
    pub(super) fn open(
        self,
        private: &[u8],
        message: &Message,
        (encapsulated, sealed): (&[u8], &[u8]),
        text: &mut LockedBytes,
    ) -> bool {
        on_scrubbed_stack(|| match self {
            Self::X25519 => open::<X25519HkdfSha256>(private, message, (encapsulated, sealed), text),
            Self::XWing => open::<XWing>(private, message, (encapsulated, sealed), text),
        })
        .is_ok()
    }
}

/// What a message is bound to.
pub(super) struct Message<'a> {
    /// What kind of message it is.
    pub(super) info: &'a [u8],
    /// What this one is about.
    pub(super) associated: &'a [u8],
}

fn public_of<K: Kem>(private: &[u8]) -> Hpke<Vec<u8>> {
    Ok(K::sk_to_pk(&K::PrivateKey::from_bytes(private)?).to_bytes().to_vec())
}

fn seal<K: Kem>(public: &[u8], message: &Message, text: &[u8], random: &mut Drawn) -> Hpke<(Vec<u8>, Vec<u8>)> {
    let public = K::PublicKey::from_bytes(public)?;
    let mut sealed = vec![0; text.len()];
    let place = InOutBuf::new(text, &mut sealed).map_err(|_| HpkeError::SealError)?;
    let (encapsulated, tag) = hpke::single_shot_seal_inout_detached_with_rng::<Aead, Kdf, K>(
        &OpModeS::Base,
        &public,
        message.info,
        place,
        message.associated,
        random,
    )?;
    sealed.extend_from_slice(&tag.to_bytes());
    Ok((encapsulated.to_bytes().to_vec(), sealed))
}

fn open<K: Kem>(
    private: &[u8],
    message: &Message,
    (encapsulated, sealed): (&[u8], &[u8]),
    text: &mut LockedBytes,
) -> Hpke<()> {
    let private = K::PrivateKey::from_bytes(private)?;
    let encapsulated = K::EncappedKey::from_bytes(encapsulated)?;
    let (sealed, tag) = sealed.split_at_checked(text.len()).ok_or(HpkeError::OpenError)?;
    let tag = AeadTag::<Aead>::from_bytes(tag)?;
    let place = InOutBuf::new(sealed, text).map_err(|_| HpkeError::OpenError)?;
    hpke::single_shot_open_inout_detached::<Aead, Kdf, K>(
        &OpModeR::Base,
        &private,
        &encapsulated,
        message.info,
        place,
        message.associated,
        &tag,
    )
}

fn failed(what: &str, cause: HpkeError) -> Error {
    refused(what).with_source(cause)
}

/// Random bytes that were asked of the kernel before, so that it cannot fail in the midst of a computation.
pub(super) struct Drawn {
    bytes: [u8; Self::LEN],
    used: usize,
    /// More were asked for than there were: what was made of them is worth nothing.
    pub(super) is_short: bool,
}

impl Drawn {
    /// What X-Wing takes; X25519 takes half of it.
    pub(super) const LEN: usize = 64;

    fn new() -> Result<Self> {
        let mut drawn = Self::of([0; Self::LEN]);
        random_bytes(&mut drawn.bytes).map_err(no_random)?;
        Ok(drawn)
    }

    pub(super) fn of(bytes: [u8; Self::LEN]) -> Self {
        Self { bytes, used: 0, is_short: false }
    }
}

impl TryRng for Drawn {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Sure<u32> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Sure<u64> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, into: &mut [u8]) -> Sure<()> {
        let end = self.used.saturating_add(into.len());
        match self.bytes.get(self.used..end) {
            Some(bytes) => into.copy_from_slice(bytes),
            None => self.is_short = true,
        }
        self.used = end;
        Ok(())
    }
}

impl TryCryptoRng for Drawn {}

impl Drop for Drawn {
    fn drop(&mut self) {
        zero(&mut self.bytes);
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SUITES.iter().find(|(suite, _)| suite == self).map_or("", |(_, name)| name))
    }
}

impl FromStr for Suite {
    type Err = Error;

    /// By the name that it is displayed as.
    fn from_str(name: &str) -> Result<Self> {
        let found = SUITES.iter().find(|(_, known)| *known == name);
        found
            .map(|(suite, _)| *suite)
            .ok_or_else(|| refused(format!("the suite {name:?} was asked for, known are x25519 and x-wing")))
    }
}

#[cfg(test)]
#[path = "suite_test.rs"]
mod tests;
