//! The reader and its rules, on small programs that keep or break them.

use crate::program::Program;
use crate::reader::read;
use crate::rules::{House, circles};

const SMALL: House<'_> = House { ranks: &[&["low", "other"], &["high"]], unsafe_rooms: &["low"], apart: "testing" };

fn program(files: &[(&str, &str)]) -> Program {
    read(&files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect(), "lib.rs")
}

/// The forbidden uses of a program whose room `low` has this code.
fn uses_of_low(code: &str) -> Vec<String> {
    let root = "mod low; mod other; mod high; pub use high::{Thing, Thing as Renamed}; pub mod testing;";
    let high =
        ("high.rs", "pub struct Thing; impl Thing { pub fn new() {} }\npub fn act() {}\npub const LIMIT: u8 = 1;");
    let program = program(&[
        ("lib.rs", root),
        ("low/mod.rs", code),
        ("low/inner.rs", "use super::super::high::act;\npub use crate::high::Thing;"),
        ("other.rs", "pub struct Other;"),
        high,
        ("testing.rs", "use crate::high::act;"),
    ]);
    assert!(program.unreadable.is_empty(), "{:?}", program.unreadable);
    SMALL.forbidden_uses(&program)
}

/// The circles of a program whose room has the files `a`, `b` and `c` with this code, and this `mod.rs`.
fn circles_in_room(parent: &str, [a, b, c]: [&str; 3]) -> Vec<Vec<String>> {
    let parent = format!("mod a; mod b; mod c; {parent}");
    let files =
        [("lib.rs", "mod room;"), ("room/mod.rs", &parent), ("room/a.rs", a), ("room/b.rs", b), ("room/c.rs", c)];
    let program = program(&files);
    assert!(program.unreadable.is_empty(), "{:?}", program.unreadable);
    circles(&program).into_iter().map(|circle| circle.files).collect()
}

#[test]
fn a_use_of_a_higher_room_is_found_in_every_form() {
    let forms = [
        "use crate::high::Thing;",
        "use crate::{error::X, high::{self, act}};",
        "use crate::high;",
        "use crate::high::*;",
        "use crate::high as below;",
        "use super::high::act;",
        "pub(crate) use crate::high::act;",
        "fn f() { crate::high::act() }",
        "fn f() { use crate::high::act; act() }",
        "fn f() -> Vec<Option<crate::high::Thing>> { vec![] }",
        "fn f() { <crate::high::Thing>::new() }",
        "impl From<u8> for crate::high::Thing {}",
        "fn f(x: u8) { match x { crate::high::LIMIT => {} _ => {} } }",
        "fn f() { println!(\"{}\", crate::high::LIMIT) }",
        "fn f() { assert!(matches!(1, crate::high::LIMIT)) }",
        "macro_rules! m { () => { $crate::high::act() } }",
        "macro_rules! m { () => { use $crate::{other::Other, high::{act}}; } }",
        "mod inline { use super::super::high::act; }",
        "use crate::Thing;",
        "use crate::Renamed;",
        "use crate::testing;",
        "use crate::unheard_of::X; mod x {} fn f() { crate::high::made_by_a_macro() }",
        "struct S { #[cfg(feature = \"x\")] field: crate::high::Thing }",
        "#[cfg(any(test, feature = \"x\"))] use crate::high::act;",
        "#[cfg(not(test))] use crate::high::act;",
    ];
    for code in forms {
        let found = uses_of_low(code);
        assert!(!found.is_empty(), "{code}");
        assert!(found.iter().all(|line| line.starts_with("low/mod.rs:1: low uses ")), "{code}: {found:?}");
    }
}

#[test]
fn a_clean_room_is_accepted() {
    let clean = [
        "",
        "use std::sync::Mutex; use ::high::x;",
        "//! crate::high\n/// [`crate::high::Thing`]\nfn f() { /* crate::high */ let _ = \"crate::high\"; }",
        "#[cfg(test)] use crate::high::act;",
        "#[cfg(test)] mod tests { use crate::high::act; }",
        "#[cfg(test)] mod missing_file_test;",
        "#[cfg(all(test, unix))] fn f() { crate::high::act() }",
        "#[test] fn f() { crate::high::act() }",
        "fn f() { #[cfg(test)] { crate::high::act() } }",
        "fn f() { #[cfg(test)] crate::high::act(); #[cfg(test)] let x = crate::high::LIMIT; }",
        "struct S; impl S { #[cfg(test)] fn f() { crate::high::act() } }",
        "struct S { #[cfg(test)] field: crate::high::Thing }",
        "pub(in crate::low) struct S; impl S { fn high(&self) { self.high(); let high = 1; high; } }",
        "struct S { high: u8 } fn f(s: S) { println!(\"{}\", s.high); vec![S { high: 1 }]; }",
    ];
    for code in clean {
        assert_eq!(uses_of_low(code), [""; 0], "{code}");
    }
}

#[test]
fn a_use_is_reported_with_its_file_its_line_and_its_path() {
    assert_eq!(
        uses_of_low("mod inner;"),
        [
            "low/inner.rs:1: low uses high (super::super::high::act)",
            "low/inner.rs:2: low uses high (crate::high::Thing)",
        ]
    );
    assert_eq!(
        uses_of_low("\n\nfn f() {\n    crate::other::g() }"),
        ["low/mod.rs:4: low uses other (crate::other::g)"]
    );
}

#[test]
fn a_use_of_a_lower_room_is_accepted() {
    let root = ("lib.rs", "mod low; mod high; use high::X;");
    let files = [root, ("low.rs", "pub struct L;"), ("high.rs", "use crate::low::L; pub struct X;")];
    assert_eq!(SMALL.forbidden_uses(&program(&files)), [""; 0]);
}

#[test]
fn a_room_without_a_rank_is_reported() {
    let files = [("lib.rs", "mod strange;"), ("strange.rs", "")];
    assert_eq!(SMALL.forbidden_uses(&program(&files)), ["strange.rs: the room strange has no rank"]);
}

#[test]
fn a_circle_is_found_in_every_form() {
    let forms = [
        ("", ["use super::b::B; pub struct A;", "use super::a::A; pub struct B;", ""]),
        ("", ["use crate::room::b::B; pub struct A;", "pub struct B(crate::room::a::A);", ""]),
        ("", ["use super::b; pub struct A; fn f() { b::f() }", "use super::*; pub fn f(_: a::A) {}", ""]),
        ("pub use b::B; pub use a::A;", ["use super::B; pub struct A;", "use super::A; pub struct B;", ""]),
        ("pub use b::*; pub use a::*;", ["use super::B; pub struct A;", "pub struct B(super::A);", ""]),
        (
            "pub use b::B;",
            ["use crate::room::B; pub struct A;", "macro_rules! m { () => { super::a::A } } pub struct B;", ""],
        ),
        ("", ["pub fn f() { vec![super::b::g()]; }", "pub fn g() { super::a::f() }", ""]),
        ("", ["pub fn f() { super::b::made() }", "make!(); fn g() { super::a::f() }", ""]),
        (
            "",
            [
                "pub const A: u8 = 1; use super::b::g;",
                "pub fn g(x: u8) { use super::a::*; match x { A => {} _ => {} } }",
                "",
            ],
        ),
    ];
    for (parent, files) in forms {
        assert_eq!(circles_in_room(parent, files), [["room/a.rs", "room/b.rs"]], "{files:?}");
    }
}

#[test]
fn a_circle_over_a_third_file_is_found() {
    let files = ["use super::b::B; pub struct A;", "use super::c::C; pub struct B;", "use super::a::A; pub struct C;"];
    assert_eq!(circles_in_room("", files), [["room/a.rs", "room/b.rs", "room/c.rs"]]);
}

#[test]
fn two_circles_are_told_apart() {
    let (a, b) = ("use super::b::B; use super::c::C; pub struct A;", "use super::a::A; pub struct B;");
    let c = "mod d; pub struct C; fn f() { d::g() }";
    let root = "mod a; mod b; mod c;";
    let found = circles(&program(&[
        ("lib.rs", root),
        ("a.rs", a),
        ("b.rs", b),
        ("c.rs", c),
        ("c/d.rs", "pub fn g() -> super::C {}"),
    ]));
    assert_eq!(found.iter().map(|circle| circle.files.join(" ")).collect::<Vec<_>>(), ["a.rs b.rs", "c.rs c/d.rs"]);
    assert_eq!(found[1].uses, ["c.rs:1: uses c/d.rs (d::g)", "c/d.rs:1: uses c.rs (super::C)"]);
}

#[test]
fn code_in_a_parent_counts_as_the_parents() {
    let found = circles_in_room("pub struct P; fn f() { a::g() }", ["use super::P; pub fn g() {}", "", ""]);
    assert_eq!(found, [["room/a.rs", "room/mod.rs"]]);
    let found = circles_in_room("pub use a::A; pub struct P(A);", ["use super::P; pub struct A;", "", ""]);
    assert_eq!(found, [["room/a.rs", "room/mod.rs"]], "a name that is passed on and used");
}

#[test]
fn files_without_a_circle_are_accepted() {
    let clean = [
        ("pub use a::A; pub use b::{self, B};", ["use super::B; pub struct A;", "pub struct B;", "use super::{A, B};"]),
        ("pub struct P; pub use a::A;", ["use super::P; pub struct A;", "use super::{A, P};", ""]),
        (
            "",
            ["use super::b::B; pub struct A;", "#[cfg(test)] mod tests { use super::super::a::A; } pub struct B;", ""],
        ),
        ("", ["use super::b::B; pub struct A;", "/// [`A`](super::a::A)\npub struct B;", ""]),
        ("", ["mod b { pub struct B; } use b::B; pub struct A;", "use super::a::A; pub struct B;", ""]),
        ("", ["pub struct A; mod inner { use super::A; }", "use super::a; pub struct B;", "use super::b::B;"]),
        ("fn c() {}", ["use super::c::C; pub struct A;", "use super::a::A;", "pub struct C;"]),
        ("use std::fmt;", ["use super::fmt; pub struct A;", "use super::a::A;", ""]),
    ];
    for (parent, files) in clean {
        assert_eq!(circles_in_room(parent, files), [[""; 0]; 0], "{files:?}");
    }
}

#[test]
fn imports_that_lead_round_in_a_circle_are_followed_once() {
    let files =
        ["pub use super::b::x; pub use super::b::*;", "pub use super::a::x; pub use super::a::*;", "use super::a::x;"];
    assert_eq!(circles_in_room("", files), [["room/a.rs", "room/b.rs"]]);
    assert_eq!(circles_in_room("use libc::{self, libc};", ["use super::libc::x;", "", ""]), [[""; 0]; 0]);
}

fn unsafe_in(room: &str, code: &str) -> Vec<String> {
    let file = format!("{room}.rs");
    SMALL.forbidden_unsafe(&program(&[("lib.rs", &format!("mod {room};")), (&file, code)]))
}

#[test]
fn unsafe_code_is_found_in_every_form() {
    let forms = [
        "fn f() { unsafe { g() } }",
        "unsafe fn f() {}",
        "unsafe impl Send for S {}",
        "unsafe trait T {}",
        "trait T { unsafe fn f(); }",
        "impl S { unsafe fn f() {} }",
        "unsafe extern \"C\" { fn f(); }",
        "extern \"C\" { fn f(); }",
        "fn f() { println!(\"{}\", unsafe { g() }) }",
        "macro_rules! m { () => { unsafe { g() } } }",
        "#[unsafe(no_mangle)] extern \"C\" fn f() {}",
        "#![allow(unsafe_code, reason = \"none\")]",
        "#[expect(unsafe_code)] fn f() {}",
        "#[cfg_attr(unix, allow(unsafe_code))] mod inner {}",
    ];
    for code in forms {
        assert_eq!(unsafe_in("high", code), ["high.rs:1: unsafe in the room high"], "{code}");
        assert_eq!(unsafe_in("low", code), [""; 0], "{code}");
    }
}

#[test]
fn safe_code_is_accepted_wherever_it_stands() {
    let clean = [
        "// unsafe { }\nfn f() { let _ = \"unsafe\"; }",
        "#![deny(unsafe_code)] fn f() {}",
        "#![cfg_attr(not(test), deny(unsafe_code))]",
        "#[cfg(test)] mod tests { fn f() { unsafe { g() } } }",
        "type Callback = unsafe extern \"C\" fn();",
    ];
    for code in clean {
        assert_eq!(unsafe_in("high", code), [""; 0], "{code}");
    }
}

#[test]
fn what_the_reader_cannot_follow_is_reported() {
    let wrong = [
        ("mod gone;", "lib.rs:1: there is no file for the module gone"),
        ("#[path = \"x.rs\"] mod a;", "lib.rs:1: #[path] is for tests only"),
        ("\ninclude!(\"x.rs\");", "lib.rs:2: include! hides code from the reader"),
        ("fn f() -> {}", "lib.rs:1: expected"),
    ];
    for (code, expected) in wrong {
        let found = program(&[("lib.rs", code)]).unreadable;
        assert!(found.len() == 1 && found[0].starts_with(expected), "{code}: {found:?}");
    }
}
