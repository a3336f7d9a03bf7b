use proptest::prelude::*;

use super::super::{HostKey, Secret};
use super::*;

fn sealed(suite: Suite) -> (HostKey, SealedSecret) {
    let host = HostKey::generate_for(suite).unwrap();
    let secret = Secret::new("DB_PASS", b"correct horse").unwrap();
    let sealed = host.sealing_key().seal(&secret, "shop", 7).unwrap();
    (host, sealed)
}

fn told(bytes: &[u8]) -> String {
    SealedSecret::from_bytes(bytes).unwrap_err().to_string()
}

#[test]
fn what_was_sealed_is_opened_by_its_host() {
    for suite in [Suite::X25519, Suite::XWing] {
        let (host, sealed) = sealed(suite);
        let again = SealedSecret::from_bytes(sealed.as_bytes()).unwrap();
        let secret = host.open(&again, "shop", "DB_PASS", 7).unwrap();
        assert_eq!((secret.name(), secret.expose()), ("DB_PASS", &b"correct horse"[..]));
        assert_eq!((again.suite(), again.value_len(), again.sealed_to()), (suite, 13, host.sealing_key().id()));
        assert!(!sealed.as_bytes().windows(7).any(|window| window == b"correct"));
    }
}

#[test]
fn each_thing_that_is_not_as_it_should_be_is_told_by_its_name() {
    let (host, sealed) = sealed(Suite::X25519);
    let other = HostKey::generate().unwrap();
    let told = |host: &HostKey, application: &str, name: &str, version| {
        let error = host.open(&sealed, application, name, version).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Secret);
        error.to_string()
    };
    let [ours, its] = [&other, &host].map(|key| key.sealing_key().id());
    assert_eq!(
        told(&host, "forum", "DB_PASS", 7),
        "sealed secret DB_PASS of application forum: it is of application shop"
    );
    assert_eq!(told(&host, "shop", "TOKEN", 7), "sealed secret TOKEN of application shop: it is the secret DB_PASS");
    assert!(told(&host, "shop", "DB_PASS", 8).ends_with("it is version 7, asked for was 8"));
    let expected = format!("it is sealed to the host key {its} (x25519), this one is {ours} (x25519)");
    assert!(told(&other, "shop", "DB_PASS", 7).ends_with(&expected));
    let post_quantum = HostKey::generate_for(Suite::XWing).unwrap();
    assert!(told(&post_quantum, "shop", "DB_PASS", 7).ends_with("(x-wing)"));
    assert!(told(&host, "sh op", "DB_PASS", 7).starts_with(r#"application "sh op" has no name that is allowed"#));
    assert!(told(&host, "shop", "DB_PASS", 0).contains("it is of version 0, allowed are 1 to 9007199254740991"));
}

#[test]
fn nothing_is_sealed_under_a_bad_name_or_version() {
    let (host, _) = sealed(Suite::X25519);
    let secret = Secret::new("DB_PASS", b"correct horse").unwrap();
    for (application, version) in [("", 1), ("a/b", 1), (".a", 1), ("shop", 0), ("shop", MOST_VERSION + 1)] {
        assert!(host.sealing_key().seal(&secret, application, version).is_err(), "{application} {version}");
    }
    assert!(host.sealing_key().seal(&secret, &"a".repeat(255), MOST_VERSION).is_ok());
}

#[test]
fn each_flipped_bit_and_each_cut_is_refused() {
    for suite in [Suite::X25519, Suite::XWing] {
        let (host, sealed) = sealed(suite);
        let bytes = sealed.as_bytes();
        // Each byte of the long one takes as long as a key.
        let step = if suite == Suite::XWing { 7 } else { 1 };
        for at in (0..bytes.len()).step_by(step) {
            assert!(told(&bytes[..at]).contains("it is cut"), "{at} bytes");
            let mut other = bytes.to_vec();
            other[at] ^= 1 << (at % 8);
            let opened = SealedSecret::from_bytes(&other).and_then(|other| host.open(&other, "shop", "DB_PASS", 7));
            assert!(opened.is_err(), "byte {at} of {suite}");
            // Also if whoever opens it believes what it says.
            let believed = SealedSecret::from_bytes(&other)
                .and_then(|it| host.open(&it, it.application(), it.name(), it.version()));
            assert!(believed.is_err(), "byte {at} of {suite}");
        }
        assert!(told(&[bytes, &[0]].concat()).contains("something is behind it"));
    }
}

/// The head with other bytes at a place.
fn changed(at: usize, bytes: &[u8]) -> String {
    let mut sealed = sealed(Suite::X25519).1.as_bytes().to_vec();
    sealed[at..at + bytes.len()].copy_from_slice(bytes);
    told(&sealed)
}

#[test]
fn each_field_of_the_head_is_checked() {
    assert!(changed(0, b"x").contains("it does not begin with \"VMCELLSS\""));
    assert!(changed(8, &[2]).contains("it is of format 2, known is 1"));
    assert!(
        changed(12, &[0x10, 0]).contains("it uses the HPKE algorithms 0x0010, 0x0001, 0x0003; known are KEM 0x0020")
    );
    assert!(changed(14, &[3, 0]).contains("0x0020, 0x0003, 0x0003"));
    assert!(changed(16, &[1, 0]).contains("0x0020, 0x0001, 0x0001"));
    assert!(changed(18, &[255]).contains("it is cut"));
    assert!(changed(20, &[0; 8]).contains("it is of version 0"));
    assert!(changed(20, &[255; 8]).contains("it is of version 18446744073709551615"));
    assert!(changed(36, &[0; 4]).contains("its value has 0 bytes"));
    assert!(changed(36, &[255; 4]).contains("its value has 4294967295 bytes, allowed are 1 to 65536"));
    assert!(changed(40, b"/").contains("application \"/hop\" has no name that is allowed"));
    assert!(changed(44, b"\xff").contains("has no name that is allowed"));
}

#[test]
fn values_of_one_byte_and_the_longest_are_sealed() {
    for suite in [Suite::X25519, Suite::XWing] {
        let host = HostKey::generate_for(suite).unwrap();
        for len in [1, LONGEST_VALUE] {
            let secret = Secret::new(&"n".repeat(255), &vec![7; len]).unwrap();
            let sealed = host.sealing_key().seal(&secret, &"a".repeat(255), 1).unwrap();
            assert!(sealed.as_bytes().len() <= SealedSecret::LONGEST);
            assert_eq!(*host.open(&sealed, &"a".repeat(255), secret.name(), 1).unwrap().expose(), *secret.expose());
        }
    }
}

#[test]
fn the_same_secret_sealed_twice_has_two_digests() {
    let (host, sealed) = sealed(Suite::X25519);
    let secret = Secret::new("DB_PASS", b"correct horse").unwrap();
    let again = host.sealing_key().seal(&secret, "shop", 7).unwrap();
    assert!(again.digest() != sealed.digest() && again.digest().len() == 64);
    assert_eq!(format!("{sealed:?}"), format!("SealedSecret(DB_PASS of shop, version 7, to {})", sealed.sealed_to()));
}

proptest! {
    #[test]
    fn any_bytes_are_refused_or_stay_as_they_are(
        tail in proptest::collection::vec(any::<u8>(), 0..200),
        begins_right in any::<bool>(),
    ) {
        let head: &[u8] = if begins_right { b"VMCELLSS\x01\0\0\0\x20\0\x01\0\x03\0\x01\x01" } else { b"" };
        let bytes = [head, &tail].concat();
        if let Ok(sealed) = SealedSecret::from_bytes(&bytes) {
            prop_assert_eq!(sealed.as_bytes(), &bytes);
        }
    }

    #[test]
    fn a_head_says_what_it_was_made_of(application in "[a-zA-Z0-9_-]{1,40}", name in "[a-zA-Z0-9_-]{1,40}", version in 1..=MOST_VERSION, len in 1..=LONGEST_VALUE) {
        let binding = Binding { application: &application, name: &name, version };
        let mut bytes = binding.head(Suite::X25519, KeyId([3; 8]), len).unwrap();
        bytes.resize(bytes.len() + 32 + len + TAG_LEN, 0);
        let sealed = SealedSecret::from_bytes(&bytes).unwrap();
        prop_assert_eq!((sealed.application(), sealed.name(), sealed.version()), (&*application, &*name, version));
        prop_assert!(sealed.check(&binding).is_ok() && sealed.value_len() == len && sealed.key_id() == KeyId([3; 8]));
    }
}
