//! `examples/secrets.rs`, as a person uses it.

mod support;

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

struct Rig {
    program: PathBuf,
    folder: TempDir,
}

impl Rig {
    fn new() -> Self {
        Self { program: support::built_example("secrets"), folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, content: &[u8]) {
        fs::write(self.path(name), content).unwrap();
    }

    /// What the program prints, or what it says is wrong. `input` is the file that is piped in.
    fn try_run(&self, line: &str, input: Option<&str>) -> Result<Vec<u8>, String> {
        let mut command = Command::new(&self.program);
        command.args(line.split(' ')).current_dir(self.folder.path());
        command.stdin(input.map_or_else(Stdio::null, |name| File::open(self.path(name)).unwrap().into()));
        let Output { status, stdout, stderr } = command.output().unwrap();
        if status.success() { Ok(stdout) } else { Err(String::from_utf8(stderr).unwrap()) }
    }

    fn run(&self, line: &str) -> String {
        String::from_utf8(self.try_run(line, None).unwrap()).unwrap()
    }

    fn told(&self, line: &str) -> String {
        self.try_run(line, None).unwrap_err()
    }
}

#[test]
fn keys_are_made_and_secrets_set_listed_opened_moved_and_taken_out() {
    let rig = Rig::new();
    let public = rig.run("key new host.key");
    assert_eq!(public, rig.run("key public host.key"));
    assert!(public.starts_with("vmcell-sealing-key:1:x25519:"), "{public}");
    rig.write("host.pub", public.as_bytes());
    rig.run("create shop.secrets --application shop");
    rig.write("value", b"correct horse\n\xff");
    assert_eq!(rig.try_run("set shop.secrets DB_PASS --to host.pub", Some("value")).unwrap(), b"version 1\n");
    assert_eq!(rig.run("set shop.secrets TOKEN --to host.pub --file value"), "version 2\n");
    let get = "get shop.secrets DB_PASS --key host.key";
    assert_eq!(rig.try_run(get, None).unwrap(), b"correct horse\n\xff");
    assert!(rig.told(&format!("{get} --version 3")).contains("it is version 1, asked for was 3"));

    let listed = rig.run("list shop.secrets");
    assert!(listed.starts_with("application shop, revision 2\nDB_PASS  version 1, 15 bytes, to "), "{listed}");
    assert!(rig.run("list shop.secrets --json").starts_with(r#"{"application":"shop","revision":2,"#));
    assert!(!listed.contains("horse"));

    rig.write("next.pub", rig.run("key new next.key --suite x-wing").as_bytes());
    assert_eq!(rig.run("reseal shop.secrets --key host.key --to next.pub"), "version 3\n");
    assert!(rig.told(get).contains("it is sealed to the host key"));
    assert_eq!(rig.try_run("get shop.secrets TOKEN --key next.key", None).unwrap(), b"correct horse\n\xff");
    assert_eq!(rig.run("unset shop.secrets TOKEN"), "revision 4\n");
    assert!(rig.told("get shop.secrets TOKEN --key next.key").contains("it has no secret TOKEN"));
}

#[test]
fn what_is_wrong_is_told_without_the_value() {
    let rig = Rig::new();
    rig.write("host.pub", rig.run("key new host.key").as_bytes());
    rig.run("create shop.secrets --application shop");
    assert!(rig.told("key new host.key").contains("host key host.key: it cannot be made: File exists"));
    assert!(rig.told("key new other.key --suite rsa").contains(r#"the suite "rsa" was asked for"#));
    assert!(rig.told("create shop.secrets --application shop").contains("File exists"));
    assert!(rig.told("create other --application a/b").contains(r#"application "a/b" has no name that is allowed"#));
    assert!(rig.told("set shop.secrets ONE --to host.pub").contains("secret ONE: the value has 0 bytes"));
    assert!(rig.told("set shop.secrets ONE --to host.key --file host.pub").contains("it is a host key (private)"));
    assert!(rig.told("set host.key ONE --to host.pub --file host.pub").contains("it is no store of secrets"));
    rig.write("long", &[b'q'; 70_000]);
    let told = rig.told("set shop.secrets ONE --to host.pub --file long");
    assert!(told.contains("more than 65536 bytes") && !told.contains("qq"), "{told}");
    // There is no way to give a value as an argument.
    assert!(rig.told("set shop.secrets ONE hunter2 --to host.pub").contains("unexpected argument"));
}

#[test]
#[ignore = "needs age"]
fn what_age_has_encrypted_is_sealed() {
    let rig = Rig::new();
    let age = |program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).current_dir(rig.folder.path()).output();
        let output = output.expect("age is installed (Debian: age)");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    rig.write("host.pub", rig.run("key new host.key").as_bytes());
    rig.run("create shop.secrets --application shop");
    for identity in ["mine", "other"] {
        age("age-keygen", &["-o", identity]);
    }
    let recipient = age("age-keygen", &["-y", "mine"]);
    let encrypt = |name: &str, value: &[u8]| {
        rig.write("value", value);
        age("age", &["-r", recipient.trim(), "-o", name, "value"]);
    };
    encrypt("one.age", b"correct horse");
    assert_eq!(rig.run("import shop.secrets ONE --to host.pub --age one.age --identity mine"), "version 1\n");
    assert_eq!(rig.try_run("get shop.secrets ONE --key host.key", None).unwrap(), b"correct horse");
    encrypt("long.age", &[b'q'; 1 << 20]);
    encrypt("empty.age", b"");
    for (line, said) in [
        ("import shop.secrets TWO --to host.pub --age one.age --identity other", "age has not decrypted one.age"),
        ("import shop.secrets TWO --to host.pub --age none.age --identity mine", "age has not decrypted none.age"),
        ("import shop.secrets TWO --to host.pub --age long.age --identity mine", "more than 65536 bytes"),
        ("import shop.secrets TWO --to host.pub --age empty.age --identity mine", "the value has 0 bytes"),
    ] {
        let told = rig.told(line);
        assert!(told.contains(said) && !told.contains("qq"), "{told}");
    }
    // All but the end arrives before age notices.
    let whole = fs::read(rig.path("one.age")).unwrap();
    rig.write("cut.age", &whole[..whole.len() - 1]);
    assert!(rig.told("import shop.secrets TWO --to host.pub --age cut.age --identity mine").contains("age has not"));
    assert!(rig.run("list shop.secrets").starts_with("application shop, revision 1"));
}
