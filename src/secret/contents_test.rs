use proptest::prelude::*;

use super::super::{HostKey, Secret};
use super::*;

fn seal(host: &HostKey, application: &str, name: &str, version: u64) -> SealedSecret {
    host.sealing_key().seal(&Secret::new(name, b"value").unwrap(), application, version).unwrap()
}

fn contents(names: &[&str]) -> Contents {
    let host = HostKey::generate().unwrap();
    let mut contents = Contents::new("shop").unwrap();
    for name in names {
        contents.revision += 1;
        contents.put(seal(&host, "shop", name, contents.revision));
    }
    contents
}

fn told(bytes: &[u8]) -> String {
    Contents::parse(bytes).unwrap_err().to_string()
}

/// Puts the right length and checksum into a file.
fn sign(bytes: &mut Vec<u8>) {
    let len = (bytes.len() as u32).to_le_bytes();
    bytes[LEN_AT..LEN_AT + 4].copy_from_slice(&len);
    let body = bytes.len() - CHECKSUM_LEN;
    let checksum = sum(&bytes[..body]);
    bytes.truncate(body);
    bytes.extend(checksum);
}

/// What is told of contents that were changed by somebody who knows how the checksum is made.
fn forged(change: impl FnOnce(&mut Contents)) -> String {
    let mut contents = contents(&["one", "two"]);
    change(&mut contents);
    told(&contents.to_bytes().unwrap())
}

#[test]
fn what_is_written_is_read_again() {
    for names in [&[][..], &["one"], &["b", "a", "c", "a"]] {
        let contents = contents(names);
        assert_eq!(Contents::parse(&contents.to_bytes().unwrap()).unwrap(), contents);
        assert!(contents.secrets.is_sorted_by(|a, b| a.name() < b.name()));
    }
}

#[test]
fn each_flipped_bit_and_each_cut_is_refused() {
    let bytes = contents(&["one", "two"]).to_bytes().unwrap();
    for at in 0..bytes.len() {
        assert!(Contents::parse(&bytes[..at]).is_err(), "{at} bytes");
        let mut other = bytes.clone();
        other[at] ^= 1 << (at % 8);
        assert!(Contents::parse(&other).is_err(), "byte {at}");
    }
    assert!(told(&bytes[..100]).contains("it is cut, or longer than it was: it has 100 bytes"));
    assert!(told(b"VMCELLSS").contains("it does not begin with \"VMCELLST\""));
    assert!(told(b"VMCELLST\x02\0\0\0").contains("it is of format 2, known is 1"));
    assert!(told(&vec![0; MOST_BYTES + 1]).contains("more than 16777216 bytes"));
}

#[test]
fn a_secret_that_does_not_belong_there_is_told_by_its_name() {
    let host = HostKey::generate().unwrap();
    assert_eq!(
        forged(|it| it.secrets[0] = seal(&host, "forum", "one", 1)),
        "the secret one in it is of application forum, the store is of shop"
    );
    assert_eq!(
        forged(|it| it.secrets[0] = seal(&host, "shop", "one", 9)),
        "the secret one in it is of version 9, the store is at revision 2"
    );
    assert_eq!(forged(|it| it.secrets.swap(0, 1)), "the secret one in it is not in order, or twice");
    assert_eq!(forged(|it| it.secrets[1] = it.secrets[0].clone()), "the secret one in it is not in order, or twice");
}

#[test]
fn an_older_secret_in_the_place_of_a_newer_one_is_refused() {
    let host = HostKey::generate().unwrap();
    let (old, new) = (seal(&host, "shop", "one", 1), seal(&host, "shop", "one", 2));
    let mut contents = Contents::new("shop").unwrap();
    contents.revision = 2;
    contents.put(new.clone());
    let mut bytes = contents.to_bytes().unwrap();
    let at = bytes.windows(new.as_bytes().len()).position(|window| window == new.as_bytes()).unwrap();
    bytes[at..at + old.as_bytes().len()].copy_from_slice(old.as_bytes());
    sign(&mut bytes);
    assert_eq!(told(&bytes), "the secret one in it is of version 1, there should be 2");
}

#[test]
fn numbers_are_checked_before_anything_is_made_of_them() {
    let forged = |at: usize, with: &[u8]| {
        let mut bytes = contents(&["one"]).to_bytes().unwrap();
        bytes[at..at + with.len()].copy_from_slice(with);
        sign(&mut bytes);
        told(&bytes)
    };
    assert_eq!(forged(16, &[255; 4]), "it has 4294967295 secrets, allowed are 1024");
    assert_eq!(forged(16, &[2]), "it is cut");
    assert!(forged(16, &[0]).contains("bytes are behind its last secret"));
    assert!(forged(20, &[255; 8]).contains("it is at revision 18446744073709551615"));
    assert_eq!(forged(28, &[255]), "it is cut");
    assert_eq!(
        forged(28, &[0]),
        "application \"\" has no name that is allowed: 1 to 255 ASCII letters, digits, '_', '-' and '.', not a dot first"
    );
    assert_eq!(forged(33 + 8, &[255; 4]), "a secret in it is longer than any");
}

#[test]
fn there_is_room_for_so_many_secrets_and_no_more() {
    let mut contents = contents(&["one"]);
    let one = contents.secrets[0].clone();
    contents.secrets.resize(MOST_SECRETS + 1, one);
    assert_eq!(contents.to_bytes().unwrap_err().to_string(), "there is room for 1024 secrets and no more");
    let host = HostKey::generate().unwrap();
    let long = host.sealing_key().seal(&Secret::new("one", &vec![1; 65536]).unwrap(), "shop", 1).unwrap();
    contents.secrets = vec![long; 256];
    let told = contents.to_bytes().unwrap_err().to_string();
    assert_eq!(told, "there is room for 16777216 bytes of sealed secrets and no more");
}

proptest! {
    #[test]
    fn any_bytes_are_refused_or_stay_as_they_are(tail in proptest::collection::vec(any::<u8>(), 45..400), count in 0u8..3) {
        let mut bytes = [b"VMCELLST\x01\0\0\0\0\0\0\0".as_slice(), &[count, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 1], b"a", &tail].concat();
        sign(&mut bytes);
        if let Ok(contents) = Contents::parse(&bytes) {
            prop_assert_eq!(contents.to_bytes().unwrap(), bytes);
        }
    }
}
