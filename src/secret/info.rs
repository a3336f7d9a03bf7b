//! What a store tells without a key.

use serde::Serialize;

use super::contents::Contents;
use super::sealed::SealedSecret;

/// What a store tells without a key. Nothing vouches for it: whoever can write to the file chooses it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct StoreInfo {
    /// The application whose secrets they are.
    pub application: String,
    /// Counts the changes from 0 on.
    pub revision: u64,
    /// The secrets, in the order of their names.
    pub secrets: Vec<SecretInfo>,
}

/// What a store tells of one secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SecretInfo {
    /// What it is called.
    pub name: String,
    /// The revision of the store in which it was set. It only rises, also if the secret is taken out and set again.
    pub version: u64,
    /// The suite of the key that it is sealed to.
    pub suite: String,
    /// The [id](super::SealingKey::id) of that key.
    pub sealed_to: String,
    /// How many bytes the value has.
    pub value_len: usize,
    /// The [digest](super::SealedSecret::digest) of the sealed secret: another one whenever it is set, also to the same value.
    pub digest: String,
}

impl StoreInfo {
    /// The same as JSON, with the names of the fields.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    pub(super) fn of(contents: &Contents) -> Self {
        Self {
            application: contents.application.clone(),
            revision: contents.revision,
            secrets: contents.secrets.iter().map(SecretInfo::of).collect(),
        }
    }
}

impl SecretInfo {
    fn of(secret: &SealedSecret) -> Self {
        Self {
            name: secret.name().to_owned(),
            version: secret.version(),
            suite: secret.suite().to_string(),
            sealed_to: secret.sealed_to(),
            value_len: secret.value_len(),
            digest: secret.digest(),
        }
    }
}
