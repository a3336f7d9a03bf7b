//! A host's certificate, by whose digest the others know it.

use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::fault::{Context, Result};

/// A certificate that its host has signed itself, and its key.
#[derive(Deserialize, Serialize)]
pub struct Identity {
    certificate: String,
    key: String,
}

impl Identity {
    /// Makes one.
    ///
    /// # Errors
    /// The host has no random bytes.
    pub fn generate() -> Result<Self> {
        let key = KeyPair::generate().context("a key for the link of hosts")?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let certificate = params.self_signed(&key).context("a certificate for the link of hosts")?;
        Ok(Self { certificate: certificate.pem(), key: key.serialize_pem() })
    }

    /// The certificate.
    ///
    /// # Errors
    /// It is none.
    pub(super) fn certificate(&self) -> Result<CertificateDer<'static>> {
        CertificateDer::from_pem_slice(self.certificate.as_bytes()).context("the certificate of the link of hosts")
    }

    /// Its key.
    ///
    /// # Errors
    /// It is none.
    pub(super) fn key(&self) -> Result<PrivateKeyDer<'static>> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes()).context("the key of the link of hosts")
    }

    /// The digest by which others know it: 64 hexadecimal digits.
    ///
    /// # Errors
    /// The certificate is none.
    pub fn digest(&self) -> Result<String> {
        Ok(digest(&self.certificate()?))
    }
}

/// The digest of a certificate, or of anything else.
pub(super) fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
