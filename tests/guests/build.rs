//! Builds the guest: a program without an operating system, for the target that the host has anyway. The benchmarks' guest in
//! `benches/guest` is built by this file, too, and shares some of the sources.
//!
//! Cargo could not build it as one of its own targets, since it needs code generation options that no manifest can name. So
//! the compiler is called here, and whoever has Rust and a linker has all that this needs.

use std::path::{Path, PathBuf};
use std::process::Command;

const GUEST: &str = "guest";
/// This file and the shared sources, from either package.
const SHARED: [&str; 2] = ["../../tests/guests/build.rs", "../../tests/guests/guest"];

fn main() {
    SHARED.into_iter().chain([GUEST]).for_each(|path| println!("cargo::rerun-if-changed={path}"));
    println!("cargo::rustc-check-cfg=cfg(guest_is_built)");
    let arch = variable("CARGO_CFG_TARGET_ARCH");
    if arch != "x86_64" {
        println!("cargo::warning=there is no guest for {arch} yet");
        return;
    }
    println!("cargo::rustc-cfg=guest_is_built");
    let here = PathBuf::from(variable("CARGO_MANIFEST_DIR"));
    let out = Path::new(&variable("OUT_DIR")).join("guest.elf");
    let script = here.join(GUEST).join("link.ld");
    let mut rustc = Command::new(variable("RUSTC"));
    rustc.arg(here.join(GUEST).join("main.rs")).arg("-o").arg(&out);
    rustc.args(["--edition", "2024", "--crate-type", "bin", "--crate-name", "guest", "--target", &variable("TARGET")]);
    for option in [
        "opt-level=2",
        "codegen-units=1",
        "panic=abort",
        "relro-level=off",
        "relocation-model=static",
        "force-unwind-tables=no",
        "strip=symbols",
    ] {
        rustc.args(["-C", option]);
    }
    let script = format!("-Wl,-T,{}", script.display());
    for argument in ["-nostdlib", "-nostartfiles", "-static", "-no-pie", "-Wl,--build-id=none", "-Wl,-n", &script] {
        rustc.args(["-C", &format!("link-arg={argument}")]);
    }
    let status = rustc.status().expect("the compiler starts");
    assert!(status.success(), "the guest does not compile: {rustc:?}");
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"))
}
