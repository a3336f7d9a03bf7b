//! What a host that joins has to know: where it is let in, by which certificate that host is known, and a secret that is good once.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use rustix::rand::{GetRandomFlags, getrandom};
use sha2::{Digest, Sha256};

use crate::fault::{Context, Fault, Result};
use crate::link::Peer;

const BEGIN: &str = "cell1";
/// The bytes of a secret.
const SECRET: usize = 16;

/// An invitation, as it is handed on: `cell1,ADDRESS:PORT,CERTIFICATE,SECRET`.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// The host that has made it.
    pub peer: Peer,
    /// 32 hexadecimal digits.
    pub secret: String,
}

impl Token {
    /// An invitation of this host's, with a secret that nobody knows yet.
    ///
    /// # Errors
    /// The host has no random bytes.
    pub fn new(peer: Peer) -> Result<Self> {
        let mut bytes = [0; SECRET];
        getrandom(&mut bytes, GetRandomFlags::empty()).context("random bytes")?;
        Ok(Self { peer, secret: hex(&bytes) })
    }
}

/// What is kept of a secret.
#[must_use]
pub fn digest(secret: &str) -> String {
    hex(&Sha256::digest(secret.as_bytes()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{BEGIN},{},{},{}", self.peer.endpoint, self.peer.certificate, self.secret)
    }
}

impl FromStr for Token {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self> {
        let refused = || {
            Fault::new("this is no token of a host, or not all of one")
                .next("Copy the whole line that `cell hosts invite` prints on a host of the mesh.")
        };
        let parts: Vec<&str> = text.trim().split(',').collect();
        let [BEGIN, endpoint, certificate, secret] = parts[..] else { return Err(refused()) };
        let is_hex = |text: &str, len: usize| text.len() == len && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_hex(certificate, 64) || !is_hex(secret, SECRET.saturating_mul(2)) {
            return Err(refused());
        }
        let endpoint: SocketAddr = endpoint.parse().map_err(|_| refused())?;
        Ok(Self { peer: Peer { endpoint, certificate: certificate.to_owned() }, secret: secret.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_written_and_nothing_else_is_one() {
        let peer = Peer { endpoint: "[fd00::1]:7000".parse().unwrap(), certificate: "a".repeat(64) };
        let token = Token::new(peer.clone()).unwrap();
        let text = token.to_string();
        assert!(text.parse::<Token>().unwrap() == token && Token::new(peer).unwrap() != token);
        for wrong in [
            "",
            "cell1",
            "cell2,1.2.3.4:5,a,b",
            &text[..text.len() - 1],
            &text.replace("7000", "x"),
            &format!("{text},"),
        ] {
            assert!(wrong.parse::<Token>().err().unwrap().message.contains("no token"), "{wrong}");
        }
    }
}
