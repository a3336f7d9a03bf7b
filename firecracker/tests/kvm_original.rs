//! The same requests to this program and to a Firecracker 1.16.1, which `VMCELL_FIRECRACKER` names: the answers are the same but for
//! what `docs/orchestrators.md` says.

mod support;

use std::path::PathBuf;
use std::process::Command;

use support::compare::differences;
use support::script::{Step, after, before};
use support::walk::rows;
use support::{Answer, Program};
use vmcell::testing::TinyGuest;

/// This program and the original, each with a folder of its own.
struct Pair {
    here: Program,
    there: Program,
}

impl Pair {
    fn new() -> Self {
        let path = std::env::var_os("VMCELL_FIRECRACKER").map(PathBuf::from);
        let path =
            path.filter(|path| path.is_absolute()).expect("VMCELL_FIRECRACKER names a Firecracker by its whole path");
        let folder = || tempfile::tempdir().expect("a temporary directory");
        let arguments = ["--level", "Error"];
        let pair = Self {
            here: Program::in_folder(folder(), &arguments),
            there: Program::of(Command::new(path), folder(), &arguments),
        };
        let version = pair.there.get("/version");
        assert_eq!(version["firecracker_version"], "1.16.1", "the table is about that version");
        pair
    }

    fn each(&self, mut act: impl FnMut(&Program)) {
        [&self.here, &self.there].into_iter().for_each(&mut act);
    }

    fn ask(&self, ask: impl Fn(&Program) -> Answer) -> (Answer, Answer) {
        // Paths are those of its own folder.
        let plain = |program: &Program| {
            let answer = ask(program);
            let text = answer.text.replace(program.folder.path().to_str().expect("a plain path"), "FOLDER");
            Answer { text, ..answer }
        };
        (plain(&self.here), plain(&self.there))
    }

    /// Asks both, and notes what differs otherwise than it should.
    fn compare(&self, steps: &[Step], wrong: &mut Vec<String>) {
        for step in steps {
            let (here, there) = self.ask(|program| program.ask(step.method, step.path, step.body));
            let found = differences(&here, &there);
            if found != step.differences {
                wrong.push(format!(
                    "{} {} {}: {found:?}, told are {:?}\n  here  {}\n  there {}",
                    step.method, step.path, step.body, step.differences, here.text, there.text
                ));
            }
        }
    }
}

#[test]
#[ignore = "needs /dev/kvm and VMCELL_FIRECRACKER: cargo xtask test"]
fn the_original_answers_every_path_and_method_with_the_status_that_the_table_says() {
    let pair = Pair::new();
    pair.each(|program| program.describe(&TinyGuest::spin()));
    let (ours, theirs) = (rows(pair.here.folder.path()), rows(pair.there.folder.path()));
    let statuses = || -> Vec<u16> { theirs.iter().map(|row| row.ask(&pair.there).status).collect() };
    let (before, after) = (statuses(), statuses());
    let mut wrong = Vec::new();
    for (row, seen) in theirs.iter().zip(before.into_iter().zip(after)) {
        if seen != row.firecracker {
            wrong.push(format!(
                "{} {} {}: {seen:?}, the table says {:?}",
                row.method, row.path, row.body, row.firecracker
            ));
        }
    }
    assert_eq!(ours.len(), theirs.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
#[ignore = "needs /dev/kvm and VMCELL_FIRECRACKER: cargo xtask test"]
fn a_script_of_right_and_wrong_requests_is_answered_as_the_original_does() {
    let pair = Pair::new();
    pair.each(|program| {
        program.guest(&TinyGuest::spin());
        support::image(program.folder.path(), "disk", 1 << 20);
        support::image(program.folder.path(), "other", 2 << 20);
    });
    let mut wrong = Vec::new();
    pair.compare(&before(), &mut wrong);
    pair.compare(&after(), &mut wrong);
    assert!(wrong.is_empty(), "{} answers are not as told:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn answers_differ_by_status_headers_members_types_and_values() {
    let answer = |status, head: &str, text: &str| Answer {
        status,
        head: format!("HTTP/1.1\r\n{head}\r\n"),
        text: text.to_owned(),
    };
    let here = answer(200, "Server: A\r\nContent-Length: 1", r#"{"a": [1, {"b": 1}], "c": 1, "d": null, "f": 1}"#);
    let there =
        answer(200, "server: A\r\nContent-Length: 2\r\nX: 1", r#"{"a": [2, {"b": "1"}], "d": null, "e": 1, "f": 1}"#);
    let found = ["header x", "/a/0 value", "/a/1/b type", "/c here", "/e there"];
    assert_eq!(differences(&here, &there), found);
    assert_eq!(differences(&here, &here), [""; 0]);
    assert_eq!(differences(&here, &answer(204, "", "")), ["status 200, 204"]);
    let drives = |text: &str| answer(200, "", &format!(r#"{{"drives": [{text}]}}"#));
    let (one, two) = (r#"{"drive_id": "a", "b": 1}"#, r#"{"drive_id": "c", "b": 2}"#);
    assert_eq!(differences(&drives(&format!("{one}, {two}")), &drives(&format!("{two}, {one}"))), [""; 0]);
    assert_eq!(differences(&drives(one), &drives(&format!("{two}, {one}"))), ["/drives length"]);
    let fault = |text: &str| answer(400, "", text);
    let refused = fault(r#"{"fault_message": "no"}"#);
    assert_eq!(differences(&refused, &refused), [""; 0]);
    assert_eq!(differences(&refused, &fault(r#"{"fault_message": "other"}"#)), ["text"]);
    for other in [r#"{"fault_message": 1}"#, r#"{"fault_message": "no", "more": 1}"#, "no JSON"] {
        assert_eq!(differences(&refused, &fault(other)), ["form"]);
    }
    assert_eq!(differences(&refused, &fault("")), ["body"]);
}
