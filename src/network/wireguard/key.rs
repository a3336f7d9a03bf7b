//! The keys of tunnels, and their text as `wg` reads and writes it: base64 with padding, 44 characters.

use std::fmt;
use std::str::FromStr;

use base64ct::{Base64, Encoding};
use boringtun::x25519::{PublicKey as CurvePoint, StaticSecret};
use zeroize::Zeroizing;

use super::refused;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::random_bytes;

/// The length of each key in bytes.
pub const KEY_LEN: usize = 32;
const TEXT_LEN: usize = 44;

/// What an interface proves that it is itself with. It is zeroed when it is dropped, and never printed.
///
/// ```
/// use vmcell::network::wireguard::PrivateKey;
///
/// let key = PrivateKey::generate()?;
/// let text = key.public_key().to_string();
/// assert_eq!(text.len(), 44);
/// assert_eq!(format!("{key:?}"), format!("PrivateKey(of {text})"));
/// # Ok::<(), vmcell::Error>(())
/// ```
#[derive(Clone)]
pub struct PrivateKey(Zeroizing<[u8; KEY_LEN]>);

/// Names a peer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; KEY_LEN]);

/// A secret that two peers share beside their key pairs, so that what is recorded today stays secret from a quantum computer. It is
/// zeroed when it is dropped, and never printed.
#[derive(Clone)]
pub struct PresharedKey(Zeroizing<[u8; KEY_LEN]>);

impl PrivateKey {
    /// Makes a key from the kernel's random bytes. Waits only on a host that has just booted and has no entropy yet.
    ///
    /// # Errors
    /// [`Host`](ErrorKind::Host) if the kernel gives no random bytes.
    pub fn generate() -> Result<Self> {
        let mut bytes = random_key()?;
        // What `wg genkey` does, too: every user of the curve does it to a key before using it (RFC 7748, section 5).
        let [first, .., last] = &mut *bytes;
        *first &= 0b1111_1000;
        *last = (*last & 0b0111_1111) | 0b0100_0000;
        Ok(Self(bytes))
    }

    /// Takes a key as it is.
    pub fn from_bytes(bytes: [u8; KEY_LEN]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The key that peers know this one by.
    pub fn public_key(&self) -> PublicKey {
        PublicKey(*CurvePoint::from(&self.secret()).as_bytes())
    }

    /// The key in base64, for a configuration file. The text is the caller's to protect and to erase.
    pub fn reveal(&self) -> String {
        Base64::encode_string(&*self.0)
    }

    /// Whether no secret comes of this key and that of a peer: a public key that everybody can prove to have.
    pub(super) fn shares_nothing_with(&self, peer: &PublicKey) -> bool {
        !self.secret().diffie_hellman(&peer.point()).was_contributory()
    }

    /// Whether this key itself was given as a public one.
    pub(super) fn is_given_away_by(&self, peer: &PublicKey) -> bool {
        *self.0 == *peer.as_bytes()
    }

    pub(super) fn secret(&self) -> StaticSecret {
        StaticSecret::from(*self.0)
    }
}

impl PublicKey {
    /// Takes a key as it is.
    pub fn from_bytes(bytes: [u8; KEY_LEN]) -> Self {
        Self(bytes)
    }

    /// The key as it is.
    pub fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    pub(super) fn point(self) -> CurvePoint {
        CurvePoint::from(self.0)
    }
}

impl PresharedKey {
    /// Makes a key from the kernel's random bytes. Waits only on a host that has just booted and has no entropy yet.
    ///
    /// # Errors
    /// [`Host`](ErrorKind::Host) if the kernel gives no random bytes.
    pub fn generate() -> Result<Self> {
        random_key().map(Self)
    }

    /// Takes a key as it is.
    pub fn from_bytes(bytes: [u8; KEY_LEN]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The key in base64, for a configuration file. The text is the caller's to protect and to erase.
    pub fn reveal(&self) -> String {
        Base64::encode_string(&*self.0)
    }

    pub(super) fn bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }
}

fn random_key() -> Result<Zeroizing<[u8; KEY_LEN]>> {
    let mut bytes = Zeroizing::new([0; KEY_LEN]);
    let failed = |cause| Error::new(ErrorKind::Host, "the kernel gave no random bytes for a key").with_source(cause);
    random_bytes(&mut *bytes).map_err(failed)?;
    Ok(bytes)
}

/// Reads a key. The message does not contain the text, which may be a secret with a slip in it.
fn parse(text: &str) -> Result<Zeroizing<[u8; KEY_LEN]>> {
    let mut bytes = Zeroizing::new([0; KEY_LEN]);
    // The length comes first: the decoder would take a shorter text for a shorter key.
    let right_length = text.len() == TEXT_LEN;
    let decoded = right_length.then(|| Base64::decode(text, &mut *bytes).map(<[u8]>::len));
    match decoded {
        Some(Ok(KEY_LEN)) => Ok(bytes),
        _ => Err(refused(format!(
            "{} characters that are no key: a key is 32 bytes in base64, 44 characters of which the last is `=`",
            text.chars().count()
        ))),
    }
}

impl FromStr for PrivateKey {
    type Err = Error;

    /// # Errors
    /// [`Network`](ErrorKind::Network) if the text is not 32 bytes in base64. The message does not contain it.
    fn from_str(text: &str) -> Result<Self> {
        parse(text).map(Self)
    }
}

impl FromStr for PublicKey {
    type Err = Error;

    /// # Errors
    /// [`Network`](ErrorKind::Network) if the text is not 32 bytes in base64. The message does not contain it.
    fn from_str(text: &str) -> Result<Self> {
        parse(text).map(|bytes| Self(*bytes))
    }
}

impl FromStr for PresharedKey {
    type Err = Error;

    /// # Errors
    /// [`Network`](ErrorKind::Network) if the text is not 32 bytes in base64. The message does not contain it.
    fn from_str(text: &str) -> Result<Self> {
        parse(text).map(Self)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&Base64::encode_string(&self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey(of {})", self.public_key())
    }
}

impl fmt::Debug for PresharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PresharedKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7748, section 6.1: Alice's keys.
    const PRIVATE: &str = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=";
    const PUBLIC: &str = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";

    #[test]
    fn a_public_key_is_what_the_rfc_says_of_a_private_one() {
        let key: PrivateKey = PRIVATE.parse().unwrap();
        assert_eq!(key.public_key().to_string(), PUBLIC);
        assert_eq!(key.reveal(), PRIVATE);
        assert_eq!(PUBLIC.parse::<PublicKey>().unwrap(), key.public_key());
    }

    #[test]
    fn secret_keys_are_not_printed() {
        let key: PrivateKey = PRIVATE.parse().unwrap();
        assert!(!format!("{key:?}").contains(PRIVATE));
        let shared: PresharedKey = PRIVATE.parse().unwrap();
        assert_eq!(format!("{shared:?}"), "PresharedKey(..)");
        let slip = PRIVATE.replace('=', "!");
        let message = slip.parse::<PrivateKey>().unwrap_err().chain();
        assert!(!message.contains(&PRIVATE[..10]), "{message}");
    }

    #[test]
    fn texts_that_are_no_keys_are_refused() {
        let long = format!("{PRIVATE}=");
        // The last one has bits set that stand for nothing.
        let bad = ["", "x", &PRIVATE[..43], &long, "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCp="];
        for text in bad {
            let message = text.parse::<PublicKey>().unwrap_err().to_string();
            assert!(message.contains("44 characters"), "{message}");
        }
        assert!("é".repeat(22).parse::<PublicKey>().is_err());
    }

    #[test]
    fn keys_that_are_made_differ() {
        let (one, other) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
        assert_ne!(one.public_key(), other.public_key());
        assert_ne!(PresharedKey::generate().unwrap().bytes(), PresharedKey::generate().unwrap().bytes());
        assert_eq!((one.0[0] & 7, one.0[31] & 0xc0), (0, 0x40));
    }

    #[test]
    fn a_key_that_everybody_can_prove_to_have_is_noticed() {
        let key: PrivateKey = PRIVATE.parse().unwrap();
        let mut one = [0; KEY_LEN];
        one[0] = 1;
        for point in [[0; KEY_LEN], one] {
            assert!(key.shares_nothing_with(&PublicKey::from_bytes(point)));
        }
        assert!(!key.shares_nothing_with(&PUBLIC.parse().unwrap()));
    }
}
