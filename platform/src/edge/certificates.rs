//! The certificates that the edge shows, and its answers to the challenges by which a name is proved to be ours.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, RwLock};
use std::time::SystemTime;

use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use rustls::client::verify_server_name;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use serde::{Deserialize, Serialize};

use super::validity::Validity;

/// The protocol of TLS-ALPN-01 (RFC 8737), in which nothing is said.
pub const CHALLENGE_PROTOCOL: &[u8] = b"acme-tls/1";

/// A certificate with those of who issued it, and its key, as they are kept.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// In PEM.
    pub chain: String,
    /// In PEM.
    pub key: String,
}

/// What clients are shown, by the name that they ask for.
#[derive(Default)]
pub struct Certificates {
    held: RwLock<BTreeMap<String, (Arc<CertifiedKey>, Validity)>>,
    /// Of TLS-ALPN-01, by names.
    answers: RwLock<HashMap<String, Arc<CertifiedKey>>>,
    /// Of HTTP-01, by tokens.
    tokens: RwLock<HashMap<String, String>>,
}

/// An answer to a challenge, which is given as long as this lives.
pub struct Offer<'a> {
    certificates: &'a Certificates,
    key: String,
    is_token: bool,
}

impl Certificates {
    /// Shows a certificate from now on.
    ///
    /// # Errors
    /// If it is not one for this name and key.
    pub fn add(&self, name: &str, kept: &Kept) -> Result<(), String> {
        let (key, validity) = read(name, kept)?;
        write(&self.held).insert(name.to_owned(), (Arc::new(key), validity));
        Ok(())
    }

    /// From when until when the certificate of a name holds, if it has one.
    pub fn validity(&self, name: &str) -> Option<Validity> {
        self.held.read().unwrap_or_else(|broken| broken.into_inner()).get(name).map(|(_, validity)| *validity)
    }

    /// When the next one is to be ordered, of those that are not yet.
    pub fn next_renewal(&self, now: SystemTime) -> Option<SystemTime> {
        let held = self.held.read().unwrap_or_else(|broken| broken.into_inner());
        held.values().map(|(_, validity)| validity.renewal()).filter(|renewal| *renewal > now).min()
    }

    /// Drops those of names that are not served any more.
    pub fn keep(&self, names: &[String]) {
        write(&self.held).retain(|name, _| names.contains(name));
    }

    /// Answers HTTP-01: whoever asks for `token` is told `text`.
    pub fn offer_token(&self, token: &str, text: &str) -> Offer<'_> {
        write(&self.tokens).insert(token.to_owned(), text.to_owned());
        Offer { certificates: self, key: token.to_owned(), is_token: true }
    }

    /// Answers TLS-ALPN-01: whoever asks for `name` in that protocol is shown a certificate with this digest of 32 bytes.
    ///
    /// # Errors
    /// If there can be none.
    pub fn offer_certificate(&self, name: &str, digest: &[u8]) -> Result<Offer<'_>, String> {
        let key = answer(name, digest)?;
        write(&self.answers).insert(name.to_owned(), Arc::new(key));
        Ok(Offer { certificates: self, key: name.to_owned(), is_token: false })
    }

    /// What HTTP-01 is told for a token.
    pub fn token(&self, token: &str) -> Option<String> {
        self.tokens.read().unwrap_or_else(|broken| broken.into_inner()).get(token).cloned()
    }

    /// When that of a name ends, for those that have one.
    pub fn ends(&self) -> BTreeMap<String, SystemTime> {
        let held = self.held.read().unwrap_or_else(|broken| broken.into_inner());
        held.iter().map(|(name, (_, validity))| (name.clone(), validity.until)).collect()
    }
}

impl Drop for Offer<'_> {
    fn drop(&mut self) {
        if self.is_token {
            write(&self.certificates.tokens).remove(&self.key);
        } else {
            write(&self.certificates.answers).remove(&self.key);
        }
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name()?.to_ascii_lowercase();
        if hello.alpn().is_some_and(|mut protocols| protocols.any(|protocol| protocol == CHALLENGE_PROTOCOL)) {
            return self.answers.read().unwrap_or_else(|broken| broken.into_inner()).get(&name).cloned();
        }
        let held = self.held.read().unwrap_or_else(|broken| broken.into_inner());
        held.get(&name).map(|(key, _)| Arc::clone(key))
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").field("names", &self.ends().keys()).finish_non_exhaustive()
    }
}

/// No thread panics while it has the lock; a map is whole in any case.
fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(|broken| broken.into_inner())
}

fn read(name: &str, kept: &Kept) -> Result<(CertifiedKey, Validity), String> {
    let refused = |why: &dyn fmt::Display| format!("the certificate of {name}: {why}");
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(kept.chain.as_bytes()).collect::<Result<_, _>>().map_err(|why| refused(&why))?;
    let leaf = chain.first().ok_or_else(|| refused(&"there is none"))?;
    let validity = Validity::of(leaf).ok_or_else(|| refused(&"it does not say when it ends"))?;
    let server = ServerName::try_from(name.to_owned()).map_err(|why| refused(&why))?;
    let parsed = ParsedCertificate::try_from(leaf).map_err(|why| refused(&why))?;
    verify_server_name(&parsed, &server).map_err(|why| refused(&why))?;
    let key = PrivateKeyDer::from_pem_slice(kept.key.as_bytes()).map_err(|why| refused(&why))?;
    let key = CertifiedKey::new(chain, any_supported_type(&key).map_err(|why| refused(&why))?);
    key.keys_match().map_err(|why| refused(&why))?;
    Ok((key, validity))
}

/// The certificate that answers TLS-ALPN-01.
fn answer(name: &str, digest: &[u8]) -> Result<CertifiedKey, String> {
    if digest.len() != 32 {
        return Err(format!("a digest has {} bytes, allowed are 32", digest.len()));
    }
    let mut params = CertificateParams::new(vec![name.to_owned()]).map_err(|why| why.to_string())?;
    params.distinguished_name = DistinguishedName::new();
    params.custom_extensions.push(CustomExtension::new_acme_identifier(digest));
    let key = KeyPair::generate().map_err(|why| why.to_string())?;
    let certificate = params.self_signed(&key).map_err(|why| why.to_string())?;
    let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let key = any_supported_type(&der).map_err(|why| why.to_string())?;
    Ok(CertifiedKey::new(vec![certificate.der().clone()], key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(name: &str) -> Kept {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        Kept { chain: made.cert.pem(), key: made.signing_key.serialize_pem() }
    }

    #[test]
    fn a_certificate_of_another_name_or_another_key_is_refused_and_the_present_one_stays() {
        let certificates = Certificates::default();
        certificates.add("a.example", &kept("a.example")).unwrap();
        let before = certificates.validity("a.example");
        let refused = certificates.add("a.example", &kept("b.example")).unwrap_err();
        assert!(refused.starts_with("the certificate of a.example: "), "{refused}");
        let other_key = Kept { key: kept("a.example").key, ..kept("a.example") };
        assert!(certificates.add("a.example", &other_key).is_err());
        for chain in ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            let broken = Kept { chain: chain.to_owned(), ..kept("a.example") };
            assert!(certificates.add("a.example", &broken).is_err(), "{chain:?}");
        }
        assert_eq!(certificates.validity("a.example"), before);
        certificates.keep(&["b.example".to_owned()]);
        assert_eq!(certificates.validity("a.example"), None);
    }

    #[test]
    fn an_answer_is_given_as_long_as_it_is_offered() {
        let certificates = Certificates::default();
        let offer = certificates.offer_token("token", "text");
        assert_eq!(certificates.token("token").as_deref(), Some("text"));
        drop(offer);
        assert_eq!(certificates.token("token"), None);
        assert!(certificates.offer_certificate("a.example", &[0; 31]).is_err());
        let offer = certificates.offer_certificate("a.example", &[0; 32]).unwrap();
        assert_eq!(write(&certificates.answers).len(), 1);
        drop(offer);
        assert_eq!(write(&certificates.answers).len(), 0);
    }
}
