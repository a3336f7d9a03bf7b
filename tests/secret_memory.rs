//! Secrets and keys lie where nobody else reads them, and are gone when they are dropped.

#[path = "support/memory.rs"]
mod memory;

use memory::copies_in_memory;
use vmcell::secret::{HostKey, SealedSecret, Secret, SecretStore, Suite};

/// Random bytes that lie in memory that cannot be read.
fn random() -> HostKey {
    HostKey::generate().unwrap()
}

#[test]
fn no_value_and_no_key_is_left_in_memory_that_can_be_read() {
    for suite in [Suite::X25519, Suite::XWing] {
        let folder = tempfile::tempdir().unwrap();
        let (value, key) = (random(), random());
        let host = HostKey::from_bytes(suite, key.expose()).unwrap();
        let secret = Secret::new("one", value.expose()).unwrap();
        let sealed = host.sealing_key().seal(&secret, "app", 1).unwrap();
        let sealed = SealedSecret::from_bytes(sealed.as_bytes()).unwrap();
        let opened = host.open(&sealed, "app", "one", 1).unwrap();
        assert!(opened.expose() == secret.expose());

        let path = |name: &str| folder.path().join(name);
        host.save(path("key")).unwrap();
        let host = HostKey::file(path("key")).unwrap();
        let store = SecretStore::create(path("store"), "app").unwrap();
        store.set(host.sealing_key(), &secret).unwrap();
        let other = HostKey::generate_for(suite).unwrap();
        store.reseal(&host, other.sealing_key()).unwrap();
        assert!(store.get(&other, "one").unwrap().expose() == secret.expose());
        drop((secret, opened, host));

        for (what, of) in [("a value", value.expose()), ("a host key", key.expose()), ("another", other.expose())] {
            for part in of.chunks(16) {
                assert_eq!(copies_in_memory(part), 0, "{what}, {suite}");
            }
        }
    }
}

#[test]
fn nothing_prints_a_value_or_a_key() {
    let host = HostKey::from_bytes(Suite::X25519, b"hunter2hunter2hunter2hunter2hunt").unwrap();
    let secret = Secret::new("one", b"hunter2hunter2").unwrap();
    let sealed = host.sealing_key().seal(&secret, "app", 1).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let store = SecretStore::create(folder.path().join("store"), "app").unwrap();
    let printed = format!("{host:?} {:?} {secret:?} {sealed:?} {store:?}", host.sealing_key());
    assert!(!printed.contains("hunter2") && !printed.contains("104, 117"), "{printed}");
    let id = host.sealing_key().id();
    assert!(printed.starts_with(&format!("HostKey(x25519, {id}) SealingKey(x25519, {id}) Secret(one, 14 bytes)")));
}

#[test]
fn as_much_stack_as_is_documented_is_enough() {
    for suite in [Suite::X25519, Suite::XWing] {
        let work = move || {
            let folder = tempfile::tempdir().unwrap();
            let path = |name: &str| folder.path().join(name);
            HostKey::generate_for(suite).unwrap().save(path("key")).unwrap();
            let host = HostKey::file(path("key")).unwrap();
            let store = SecretStore::create(path("store"), "app").unwrap();
            store.set(host.sealing_key(), &Secret::new("one", b"value").unwrap()).unwrap();
            store.reseal(&host, host.sealing_key()).unwrap();
            assert_eq!(store.get(&host, "one").unwrap().expose(), b"value");
        };
        std::thread::Builder::new().stack_size(320 << 10).spawn(work).unwrap().join().unwrap();
    }
}
