//! Stores of sealed secrets: what is set comes back with the host's key alone, nothing is lost, and bad files are refused by what is wrong
//! with them.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;
use vmcell::ErrorKind;
use vmcell::secret::{HostKey, MOST_VERSION, SealingKey, Secret, SecretStore, Suite};

struct Rig {
    folder: TempDir,
    host: HostKey,
    path: PathBuf,
    store: SecretStore,
}

impl Rig {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shop.secrets");
        let store = SecretStore::create(&path, "shop").unwrap();
        Self { folder, host: HostKey::generate().unwrap(), path, store }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn set(&self, name: &str, value: &str) -> u64 {
        self.store.set(self.host.sealing_key(), &secret(name, value)).unwrap()
    }

    fn get(&self, name: &str) -> String {
        String::from_utf8(self.store.get(&self.host, name).unwrap().expose().to_vec()).unwrap()
    }
}

fn secret(name: &str, value: &str) -> Secret {
    Secret::new(name, value.as_bytes()).unwrap()
}

/// Why it is refused, with the cause.
fn told<T>(result: vmcell::Result<T>) -> String {
    let error = result.err().expect("it is refused");
    assert_eq!(error.kind(), ErrorKind::Secret);
    error.chain()
}

#[test]
fn what_is_set_comes_back_and_the_file_has_none_of_it() {
    let rig = Rig::new();
    assert_eq!((rig.set("DB_PASS", "correct horse"), rig.set("A_TOKEN", "battery staple")), (1, 2));
    assert_eq!((rig.get("DB_PASS"), rig.get("A_TOKEN")), ("correct horse".into(), "battery staple".into()));
    let file = fs::read(&rig.path).unwrap();
    assert!(
        ["correct", "battery"].iter().all(|part| !file.windows(part.len()).any(|window| window == part.as_bytes()))
    );
    assert_eq!(fs::metadata(&rig.path).unwrap().mode() & 0o777, 0o600);

    let info = SecretStore::inspect(&rig.path).unwrap();
    assert_eq!(info, rig.store.list().unwrap());
    let listed: Vec<_> = info.secrets.iter().map(|it| (it.name.as_str(), it.version, it.value_len)).collect();
    assert_eq!(listed, [("A_TOKEN", 2, 14), ("DB_PASS", 1, 13)]);
    assert_eq!((info.application.as_str(), info.revision), ("shop", 2));
    assert_eq!(info.secrets[0].digest, rig.store.sealed("A_TOKEN").unwrap().digest());
    assert!(info.to_json().starts_with(
        r#"{"application":"shop","revision":2,"secrets":[{"name":"A_TOKEN","version":2,"suite":"x25519""#
    ));
}

#[test]
fn versions_only_rise_also_if_a_secret_is_taken_out_and_set_again() {
    let rig = Rig::new();
    let versions = [rig.set("one", "a"), rig.set("one", "b"), rig.store.unset("one").unwrap(), rig.set("one", "c")];
    assert_eq!((versions, rig.get("one").as_str()), ([1, 2, 3, 4], "c"));
    assert_eq!(rig.store.list().unwrap().secrets.len(), 1);
    rig.store.unset("one").unwrap();
    assert!(told(rig.store.unset("one")).ends_with("it has no secret one"));
    assert!(told(rig.store.get(&rig.host, "one")).ends_with("it has no secret one"));
    assert!(told(rig.store.get(&rig.host, "o/ne")).contains("no name that is allowed"));
    assert_eq!(rig.store.list().unwrap().revision, 5, "what failed was no change");
}

#[test]
fn an_older_copy_of_the_file_is_noticed_by_who_has_seen_a_newer_one() {
    let rig = Rig::new();
    rig.set("one", "old");
    let old = fs::read(&rig.path).unwrap();
    let version = rig.set("one", "new");
    fs::write(&rig.path, old).unwrap();
    let expected = "it is at revision 1 and was at 2: an older copy was put back";
    assert!(told(rig.store.get(&rig.host, "one")).ends_with(expected));
    assert!(told(rig.store.set(rig.host.sealing_key(), &secret("two", "x"))).ends_with(expected));
    let anew = || SecretStore::open(&rig.path, "shop").unwrap();
    assert!(told(anew().at_least(2).list()).ends_with(expected));
    let told = told(anew().get_version(&rig.host, "one", version));
    assert!(told.contains("secret one of application shop: it is version 1, asked for was 2"), "{told}");
    assert_eq!(anew().get_version(&rig.host, "one", 1).unwrap().expose(), b"old");
}

#[test]
fn another_application_or_another_host_opens_nothing() {
    let rig = Rig::new();
    rig.set("one", "value");
    assert!(
        told(SecretStore::open(&rig.path, "forum"))
            .contains(r#"it is the store of application shop, asked for was "forum""#)
    );
    let other = HostKey::generate().unwrap();
    let told = told(rig.store.get(&other, "one"));
    let ids = [rig.host.sealing_key().id(), other.sealing_key().id()];
    assert!(
        told.contains(&format!("it is sealed to the host key {} (x25519), this one is {}", ids[0], ids[1])),
        "{told}"
    );
}

#[test]
fn a_secret_sealed_elsewhere_is_put_in_if_it_is_the_next_version() {
    let rig = Rig::new();
    rig.set("other", "x");
    let key: SealingKey = rig.host.sealing_key().to_string().parse().unwrap();
    let seal = |application: &str, version| key.seal(&secret("one", "sealed at home"), application, version).unwrap();
    for (application, version, expected) in [
        ("shop", 1, "the sealed secret one is of version 1, the next one is 2"),
        ("shop", MOST_VERSION, "the next one is 2"),
        ("forum", 2, "the sealed secret one is of application forum"),
    ] {
        let told = told(rig.store.put(&seal(application, version)));
        assert!(told.contains(expected), "{told}");
    }
    rig.store.put(&seal("shop", 2)).unwrap();
    assert_eq!((rig.get("one").as_str(), rig.store.list().unwrap().revision), ("sealed at home", 2));
}

#[test]
fn several_secrets_are_set_at_once_or_none_is() {
    let rig = Rig::new();
    let (user, password) = (secret("user", "u"), secret("password", "p"));
    assert_eq!(rig.store.set_all(rig.host.sealing_key(), &[&user, &password]).unwrap(), 1);
    assert!(rig.store.list().unwrap().secrets.iter().all(|it| it.version == 1));
    let all = rig.store.get_all(&rig.host).unwrap();
    let all: Vec<_> = all.iter().map(|secret| (secret.name(), secret.expose())).collect();
    assert_eq!(all, [("password", &b"p"[..]), ("user", b"u")]);
    assert!(told(rig.store.get_all(&HostKey::generate().unwrap())).contains("sealed secret password"));
    let twice = rig.store.set_all(rig.host.sealing_key(), &[&user, &password, &user]);
    assert!(told(twice).ends_with("the secret user is to be set twice at once"));
    assert_eq!(rig.store.list().unwrap().revision, 1);
}

#[test]
fn a_store_moves_to_another_host_key_at_once() {
    let rig = Rig::new();
    rig.set("one", "1");
    rig.set("two", "2");
    let next = HostKey::generate_for(Suite::XWing).unwrap();
    assert_eq!(rig.store.reseal(&rig.host, next.sealing_key()).unwrap(), 3);
    assert_eq!(rig.store.get(&next, "two").unwrap().expose(), b"2");
    assert!(told(rig.store.get(&rig.host, "one")).contains("it is sealed to the host key"));
    // One of them is another host's: then none is changed.
    rig.set("two", "2");
    let before = fs::read(&rig.path).unwrap();
    assert!(told(rig.store.reseal(&next, rig.host.sealing_key())).contains("sealed secret two"));
    assert_eq!(fs::read(&rig.path).unwrap(), before);
}

const CHILD: &str = "VMCELL_TEST_SETS_SECRETS";
const NAMES: usize = 100;

/// Not a test of its own: another process that sets secrets.
#[test]
fn as_a_child() {
    let Ok(asked) = std::env::var(CHILD) else { return };
    let [path, key, prefix] = asked.split('|').collect::<Vec<_>>()[..] else { panic!("{asked}") };
    let (store, key) = (SecretStore::open(path, "shop").unwrap(), key.parse::<SealingKey>().unwrap());
    for number in 0..NAMES {
        store.set(&key, &secret(&format!("{prefix}-{number}"), prefix)).unwrap();
    }
}

fn child(rig: &Rig, prefix: &str) -> Child {
    let asked = format!("{}|{}|{prefix}", rig.path.display(), rig.host.sealing_key());
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "as_a_child", "--quiet"]).env(CHILD, asked).stdout(Stdio::null()).spawn().unwrap()
}

#[test]
fn nothing_is_lost_if_processes_and_threads_set_secrets_at_once() {
    let rig = Rig::new();
    let mut children = ["a", "b"].map(|prefix| child(&rig, prefix));
    std::thread::scope(|scope| {
        for prefix in ["c", "d"] {
            let rig = &rig;
            scope.spawn(move || (0..10).for_each(|number| _ = rig.set(&format!("{prefix}-{number}"), prefix)));
        }
        // What is read meanwhile is always whole.
        scope.spawn(|| (0..50).for_each(|_| drop(SecretStore::open(&rig.path, "shop").unwrap())));
    });
    assert!(children.iter_mut().all(|child| child.wait().unwrap().success()));
    let info = rig.store.list().unwrap();
    assert_eq!((info.secrets.len(), info.revision), (2 * NAMES + 20, 2 * NAMES as u64 + 20));
    let mut versions: Vec<_> = info.secrets.iter().map(|it| it.version).collect();
    versions.sort_unstable();
    assert!(versions.iter().copied().eq(1..=2 * NAMES as u64 + 20), "no version was given twice");
    assert_eq!((rig.get("a-99"), rig.get("b-0"), rig.get("d-9")), ("a".into(), "b".into(), "d".into()));
}

#[test]
fn a_writer_that_is_killed_at_any_moment_leaves_a_whole_store_that_others_go_on_with() {
    let rig = Rig::new();
    for round in 0..20 {
        let before = rig.store.list().unwrap().revision;
        let mut child = child(&rig, &format!("round{round}"));
        while rig.store.list().unwrap().revision < before + round % 3 {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        rig.set("after", &round.to_string());
        assert_eq!(rig.get("after"), round.to_string());
    }
    let left: Vec<_> = fs::read_dir(rig.folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["shop.secrets"]);
}

#[test]
fn a_link_to_a_store_stays_one_and_what_it_leads_to_is_replaced() {
    let rig = Rig::new();
    let link = rig.file("link");
    symlink("shop.secrets", &link).unwrap();
    let through = SecretStore::open(&link, "shop").unwrap();
    through.set(rig.host.sealing_key(), &secret("one", "through the link")).unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(rig.get("one"), "through the link");
    symlink("nowhere", rig.file("dangling")).unwrap();
    assert!(told(SecretStore::open(rig.file("dangling"), "shop")).contains("No such file"));
    assert!(told(SecretStore::create(rig.file("dangling"), "shop")).contains("File exists"));
}

#[test]
fn what_is_no_file_is_refused_without_waiting_for_it() {
    let rig = Rig::new();
    let fifo = rig.file("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    assert!(fs::metadata(&fifo).unwrap().file_type().is_fifo());
    assert!(told(HostKey::file(&fifo)).contains("it is a FIFO, allowed are files and pipes without a name"));
    assert!(told(SealingKey::file(&fifo)).contains("it is a FIFO"));
    assert!(told(Secret::file("token", &fifo)).contains("it is a FIFO"));
    for path in [&fifo, rig.folder.path(), "/dev/zero".as_ref()] {
        let refused = told(SecretStore::open(path, "shop"));
        assert!(refused.contains("it is no file, but a folder, a pipe or a device"), "{refused}");
        assert!(told(SecretStore::create(path, "shop")).contains("File exists"));
    }
    assert!(told(SecretStore::open(rig.file("none"), "shop")).contains("No such file"));
    assert!(told(SecretStore::create(rig.file("none/store"), "shop")).contains("No such file"));
    assert!(told(SecretStore::create("..", "shop")).contains("its path has no file's name"));
    // It becomes something else while the store is open.
    fs::remove_file(&rig.path).unwrap();
    fs::rename(&fifo, &rig.path).unwrap();
    assert!(told(rig.store.list()).contains("it is no file"));
    assert!(told(rig.store.unset("one")).contains("it is no file"));
}

#[test]
fn a_change_that_cannot_be_written_leaves_the_store_as_it_was() {
    let rig = Rig::new();
    rig.set("one", "value");
    let before = fs::read(&rig.path).unwrap();
    // What is in the way of the new file cannot be removed as a file is.
    fs::create_dir(rig.file(".shop.secrets.new")).unwrap();
    let refused = told(rig.store.set(rig.host.sealing_key(), &secret("one", "other")));
    assert!(refused.contains("it cannot be replaced: Is a directory"), "{refused}");
    assert_eq!((fs::read(&rig.path).unwrap(), rig.get("one").as_str()), (before, "value"));
}

#[test]
fn a_file_without_end_is_not_read_to_its_end() {
    let rig = Rig::new();
    let path = rig.file("sparse");
    File::create(&path).unwrap().set_len(1 << 40).unwrap();
    assert!(told(SecretStore::open(&path, "shop")).contains("it has more than 16777216 bytes"));
    assert!(told(HostKey::file(&path)).contains("it can be read by others"));
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    assert!(told(HostKey::file(&path)).contains("more than 4096 bytes"));
    assert!(told(SealingKey::file("/dev/zero")).contains("more than 4096 bytes"));
}

#[test]
fn a_host_key_is_saved_for_its_owner_alone_and_refused_if_others_have_it() {
    let rig = Rig::new();
    let path = rig.file("host.key");
    rig.host.save(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    assert!(told(HostKey::generate().unwrap().save(&path)).contains("it cannot be made: File exists"));
    for (mode, expected) in [
        (0o600, None),
        (0o400, None),
        (0o640, None),
        (0o644, Some("it can be read by others: its mode is 0644, allowed are 0600 and")),
        (0o620, Some("it can be changed by others: its mode is 0620")),
        (0o606, Some("it can be changed by others")),
    ] {
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        match (HostKey::file(&path), expected) {
            (Ok(key), None) => assert_eq!(key.sealing_key(), rig.host.sealing_key()),
            (key, expected) => assert!(told(key).contains(expected.unwrap()), "{mode:o}"),
        }
    }
    fs::write(rig.file("host.pub"), format!("{}\n", rig.host.sealing_key())).unwrap();
    assert_eq!(SealingKey::file(rig.file("host.pub")).unwrap(), *rig.host.sealing_key());
    assert_eq!(fs::read_dir(rig.folder.path()).unwrap().count(), 3, "nothing is left over");
}

#[test]
fn keys_of_another_length_are_refused() {
    assert!(told(HostKey::from_bytes(Suite::X25519, &[1; 31])).contains("a host key has 32 bytes, 31 were given"));
    assert!(
        told(SealingKey::from_bytes(Suite::XWing, &[1; 32])).contains("a sealing key of x-wing has 1216 bytes, 32")
    );
    let host = HostKey::from_bytes(Suite::X25519, &[1; 32]).unwrap();
    let key = SealingKey::from_bytes(Suite::X25519, host.sealing_key().as_bytes()).unwrap();
    assert_eq!((&key, key.suite(), host.expose()), (host.sealing_key(), Suite::X25519, &[1; 32][..]));
}

#[test]
fn a_store_whose_file_could_not_be_replaced_later_is_not_made() {
    let rig = Rig::new();
    let error = told(SecretStore::create(rig.file(&"n".repeat(251)), "shop"));
    assert!(error.ends_with("the name of its file has 251 bytes, allowed are 250"), "{error}");
    assert_eq!(fs::read_dir(rig.folder.path()).unwrap().count(), 1);
    let store = SecretStore::create(rig.file(&"n".repeat(250)), "shop").unwrap();
    assert_eq!(store.set(rig.host.sealing_key(), &secret("one", "value")).unwrap(), 1);
}
