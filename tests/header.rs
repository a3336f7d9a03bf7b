//! `include/vmcell.h` is what `src/ffi/` says, and `tests/ffi/symbols.txt` lists its functions.
//!
//! `VMCELL_UPDATE=1 cargo test --test header` writes both anew.

use std::fs;
use std::path::PathBuf;

/// In the order in which a reader wants them.
const SOURCES: [&str; 57] = [
    "library",
    "failure",
    "report",
    "error",
    "host",
    "caller",
    "counter",
    "io_thread",
    "limit_group",
    "disk",
    "disk_operation",
    "disk_port",
    "disk_backend",
    "disk_handle",
    "volume",
    "volume_handle",
    "volume_merge",
    "secret",
    "host_key",
    "secret_store",
    "nic",
    "nic_frame",
    "nic_port",
    "nic_backend",
    "nic_handle",
    "machine_address",
    "network",
    "network_port",
    "passt",
    "service",
    "wireguard_key",
    "unknown_peer",
    "tunnel",
    "tunnel_peer",
    "metadata",
    "console",
    "config",
    "config_console",
    "config_memory",
    "config_rng",
    "config_vsock",
    "config_cpu",
    "config_json",
    "config_threads",
    "config_cgroup",
    "config_log",
    "jail",
    "vm",
    "snapshot",
    "secret_delivery",
    "vm_exit",
    "vm_threads",
    "vm_metrics",
    "vm_rates",
    "balloon",
    "console_status",
    "vsock",
];

fn repository(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn source(name: &str) -> PathBuf {
    repository(&format!("src/ffi/{name}.rs"))
}

fn generated() -> String {
    let mut config = cbindgen::Config::from_file(repository("cbindgen.toml")).expect("cbindgen.toml is whole");
    config.after_includes = Some(version_macros());
    let builder = SOURCES.iter().fold(cbindgen::Builder::new(), |all, name| all.with_src(source(name)));
    let mut text = Vec::new();
    builder.with_config(config).generate().expect("the sources are understood").write(&mut text);
    let text = String::from_utf8(text).expect("a header is text");
    text.lines().map(|line| bracketed(line) + "\n").collect()
}

/// A macro's value must hold together wherever it is used.
fn bracketed(line: &str) -> String {
    match line.rsplit_once(' ') {
        Some((define, value)) if line.starts_with("#define") && value.starts_with('-') => format!("{define} ({value})"),
        _ => line.to_owned(),
    }
}

fn version_macros() -> String {
    let number = |name, value| format!("#define VMCELL_VERSION_{name} {value}\n");
    format!(
        "\n/** The version of this header; vmcell_version() is that of the library. */\n#define VMCELL_VERSION \"{}\"\n{}{}{}",
        env!("CARGO_PKG_VERSION"),
        number("MAJOR", env!("CARGO_PKG_VERSION_MAJOR")),
        number("MINOR", env!("CARGO_PKG_VERSION_MINOR")),
        number("PATCH", env!("CARGO_PKG_VERSION_PATCH")),
    )
}

/// The names of all functions that the sources export, sorted.
fn functions() -> Vec<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(repository("src/ffi")).expect("the room is there") {
        let text = fs::read_to_string(entry.expect("an entry").path()).expect("a source");
        for exported in text.split("#[unsafe(no_mangle)]").skip(1) {
            let name = exported.split_once("extern \"C\" fn ").and_then(|(_, rest)| rest.split_once('('));
            names.extend(name.map(|(name, _)| name.to_owned()));
        }
    }
    names.sort();
    names
}

fn check(path: &str, wanted: &str) {
    let path = repository(path);
    if std::env::var_os("VMCELL_UPDATE").is_some() {
        fs::write(&path, wanted).expect("the file is written");
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    let difference = found.lines().zip(wanted.lines()).find(|(found, wanted)| found != wanted);
    assert!(
        found == wanted,
        "{} is not up to date (first difference: {difference:?}); run: VMCELL_UPDATE=1 cargo test --test header",
        path.display()
    );
}

#[test]
fn the_committed_header_is_what_the_sources_say() {
    check("include/vmcell.h", &generated());
}

#[test]
fn the_committed_list_of_symbols_is_what_the_sources_export() {
    let list: String = functions().iter().map(|name| format!("{name}\n")).collect();
    assert!(list.lines().all(|name| name.starts_with("vmcell_")), "{list}");
    check("tests/ffi/symbols.txt", &list);
}

#[test]
fn every_function_stands_in_the_header_with_its_documentation() {
    let header = generated();
    for name in functions() {
        let at = header.rfind(&format!("{name}(")).unwrap_or_else(|| panic!("{name} is not in the header"));
        let declaration = header[..at].rfind("*/\n").map(|end| &header[end + 3..at]);
        assert!(declaration.is_some_and(|text| text.lines().count() <= 1), "{name} has no documentation of its own");
    }
}

#[test]
fn every_function_is_guarded() {
    for entry in fs::read_dir(repository("src/ffi")).expect("the room is there") {
        let text = fs::read_to_string(entry.expect("an entry").path()).expect("a source");
        for function in text.split("#[unsafe(no_mangle)]").skip(1) {
            let body = function.split("\n}\n").next().unwrap_or_default();
            let name = body.split_once("fn ").and_then(|(_, rest)| rest.split_once('(')).map_or("", |(name, _)| name);
            let calls = ["guard(", "guard_value(", " free(", " text("];
            let constant = name == "vmcell_version";
            assert!(constant || calls.iter().any(|call| body.contains(call)), "{name} is not guarded");
        }
    }
}
