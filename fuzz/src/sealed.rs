//! Any bytes as a sealed secret, and changes of one that was sealed: what is read is what a model of the format reads, and nothing opens but
//! what was sealed.

use std::sync::OnceLock;
use std::time::Duration;

use vmcell::ErrorKind;
use vmcell::secret::{HostKey, SealedSecret, Secret, Suite};

use crate::alloc::Meter;
use crate::clock::within;
use crate::input::{Input, Script};

const PATIENCE: Duration = Duration::from_secs(2);
/// What looking at it may hold, beside so many times as much as it has.
const MOST_HELD: i64 = 64 << 10;
const TIMES: i64 = 4;

const APPLICATION: &str = "shop";
const NAME: &str = "DB_PASS";
const VERSION: u64 = 7;
const VALUE: &[u8] = b"correct horse battery staple";

/// Runs one input: bytes, or changes of what was sealed.
pub fn run(bytes: &[u8]) {
    match bytes.split_first() {
        Some((0, rest)) => look_at(rest),
        Some((suite, rest)) => change(real(if suite % 2 == 0 { Suite::XWing } else { Suite::X25519 }), rest),
        None => {}
    }
}

/// Sealed once for all inputs: random, but always of the same length.
fn real(suite: Suite) -> &'static (HostKey, Vec<u8>) {
    static X25519: OnceLock<(HostKey, Vec<u8>)> = OnceLock::new();
    static X_WING: OnceLock<(HostKey, Vec<u8>)> = OnceLock::new();
    let once = if suite == Suite::XWing { &X_WING } else { &X25519 };
    once.get_or_init(|| {
        let host = HostKey::generate_for(suite).expect("there are random bytes");
        let secret = Secret::new(NAME, VALUE).expect("its name is allowed");
        let sealed = host.sealing_key().seal(&secret, APPLICATION, VERSION).expect("the key is good");
        (host, sealed.as_bytes().to_vec())
    })
}

/// What the model reads.
#[derive(Debug, PartialEq)]
struct Read<'a> {
    kem: u16,
    application: &'a str,
    name: &'a str,
    version: u64,
    key_id: &'a [u8],
    value_len: usize,
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// The name that these bytes are, if a secret may have it.
fn name(bytes: &[u8]) -> Option<&str> {
    let is_allowed = |byte: &u8| matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' | b'.');
    let allowed = !bytes.is_empty() && bytes[0] != b'.' && bytes.iter().all(is_allowed);
    if allowed { std::str::from_utf8(bytes).ok() } else { None }
}

/// As `docs/secrets.md` has the format.
fn model(bytes: &[u8]) -> Option<Read<'_>> {
    let head = bytes.get(..40)?;
    let kem = number(&head[12..14]) as u16;
    let encapsulated = match kem {
        0x20 => 32,
        0x647a => 1120,
        _ => return None,
    };
    let (application_end, value_len) = (40 + usize::from(head[18]), number(&head[36..40]) as usize);
    let name_end = application_end + usize::from(head[19]);
    let read = Read {
        kem,
        application: name(bytes.get(40..application_end)?)?,
        name: name(bytes.get(application_end..name_end)?)?,
        version: number(&head[20..28]),
        key_id: &head[28..36],
        value_len,
    };
    let is_known = head[..12] == *b"VMCELLSS\x01\0\0\0" && head[14..18] == [1, 0, 3, 0];
    let in_range = (1..1 << 53).contains(&read.version) && (1..=65536).contains(&value_len);
    (is_known && in_range && bytes.len() == name_end + encapsulated + value_len + 16).then_some(read)
}

fn parse(bytes: &[u8]) -> vmcell::Result<SealedSecret> {
    let mut meter = Meter::new(MOST_HELD + TIMES * bytes.len() as i64);
    let parsed = meter.run(|| within(PATIENCE, || SealedSecret::from_bytes(bytes)));
    if let Err(error) = &parsed {
        assert_eq!(error.kind(), ErrorKind::Secret, "{}", error.chain());
    }
    parsed
}

fn look_at(bytes: &[u8]) {
    let parsed = parse(bytes);
    let read = model(bytes);
    assert_eq!(parsed.is_ok(), read.is_some(), "{:?} and {read:?}", parsed.as_ref().map_err(vmcell::Error::chain));
    let (Ok(sealed), Some(read)) = (parsed, read) else { return };
    let kem = if sealed.suite() == Suite::XWing { 0x647a } else { 0x20 };
    let key_id: String = read.key_id.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!((kem, sealed.application(), sealed.name()), (read.kem, read.application, read.name));
    assert_eq!((sealed.version(), sealed.value_len()), (read.version, read.value_len));
    assert_eq!((sealed.sealed_to(), sealed.as_bytes()), (key_id, bytes));
    opens(&real(sealed.suite()).0, &sealed, false);
}

/// Changes what was sealed: it opens if nothing is changed in the end.
fn change((host, original): &(HostKey, Vec<u8>), changes: &[u8]) {
    let mut input = Input::new(changes);
    let mut bytes = original.clone();
    while !input.is_over() && !bytes.is_empty() {
        let (what, at) = (input.below(4), usize::from(input.half()) % bytes.len());
        match what {
            0 | 1 => bytes[at] ^= input.byte(),
            2 => bytes.truncate(at + 1),
            _ => bytes.insert(at, input.byte()),
        }
    }
    if let Ok(sealed) = parse(&bytes) {
        opens(host, &sealed, bytes == *original);
    }
}

/// Whoever opens it believes what it says.
fn opens(host: &HostKey, sealed: &SealedSecret, expected: bool) {
    let opened = within(PATIENCE, || host.open(sealed, sealed.application(), sealed.name(), sealed.version()));
    match opened {
        Ok(secret) => assert!(expected && secret.expose() == VALUE && secret.name() == NAME),
        Err(error) => assert!(!expected && error.kind() == ErrorKind::Secret, "{}", error.chain()),
    }
}

/// A sealed secret as the format has it, which no key opens.
pub fn made_up(application: &str, name: &str, version: u64, value_len: u32) -> Vec<u8> {
    let mut bytes = b"VMCELLSS\x01\0\0\0\x20\0\x01\0\x03\0".to_vec();
    bytes.extend([application.len() as u8, name.len() as u8]);
    bytes.extend(version.to_le_bytes());
    bytes.extend([9; 8]);
    bytes.extend(value_len.to_le_bytes());
    bytes.extend(application.as_bytes());
    bytes.extend(name.as_bytes());
    bytes.resize(bytes.len() + 32 + value_len as usize + 16, 0x5a);
    bytes
}

/// One that is read, one of the other suite, and changes of what was sealed: none, in the head, behind it, back again, and a cut.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let read = made_up("shop", "DB_PASS", 7, 20);
    let mut x_wing = read.clone();
    x_wing[12..14].copy_from_slice(&[0x7a, 0x64]);
    x_wing.resize(read.len() + 1120 - 32, 1);
    let changed = |suite: u8, changes: &[(u8, u16, u8)]| {
        let script = Script::new().bytes(&[suite]);
        let script = changes.iter().fold(script, |script, (what, at, byte)| {
            let script = script.bytes(&[*what]).half(*at);
            if *what == 2 { script } else { script.bytes(&[*byte]) }
        });
        script.done()
    };
    vec![
        ("read", [&[0], &*read].concat()),
        ("x-wing", [&[0], &*x_wing].concat()),
        ("unchanged", changed(1, &[])),
        ("unchanged-x-wing", changed(2, &[])),
        ("version", changed(1, &[(0, 20, 1)])),
        ("behind", changed(1, &[(0, 100, 4)])),
        ("back-again", changed(1, &[(0, 100, 4), (0, 100, 4)])),
        ("cut", changed(2, &[(2, 1000, 0)])),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_seeds_are_read_and_what_is_unchanged_opens() {
        for (name, seed) in seeds() {
            run(&seed);
            assert_eq!(model(&seed[1..]).is_some(), matches!(name, "read" | "x-wing"), "{name}");
        }
        let (host, bytes) = real(Suite::XWing);
        assert!(model(bytes).is_some());
        opens(host, &SealedSecret::from_bytes(bytes).expect("it was sealed"), true);
    }
}
