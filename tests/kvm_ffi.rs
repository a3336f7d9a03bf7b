//! The installed library, used by programs in C, Go and Python that run guests of a few instructions.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::ffi::{Prefix, go, guests, repository, run, valgrind};
use tempfile::TempDir;

const STRICT: [&str; 5] = ["-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Werror"];

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn what_is_installed_is_a_library_of_the_ecosystem() {
    let prefix = Prefix::new();
    let header = fs::read_to_string(prefix.path("include/vmcell.h")).unwrap();
    assert_eq!(header, fs::read_to_string(repository("include/vmcell.h")).unwrap());
    assert_eq!(prefix.pkg_config(&["--modversion"]), [env!("CARGO_PKG_VERSION")]);
    assert!(prefix.path("lib/libvmcell.a").is_file());
    let library = prefix.path("lib/libvmcell.so");
    let soname = concat!("[libvmcell.so.", env!("CARGO_PKG_VERSION_MAJOR"), ".", env!("CARGO_PKG_VERSION_MINOR"), "]");
    assert!(run(Command::new("readelf").arg("-d").arg(&library)).contains(soname));
    let table = run(Command::new("nm").args(["-D", "--defined-only"]).arg(&library));
    let mut names: Vec<&str> = table.lines().filter_map(|line| line.split(' ').next_back()).collect();
    names.sort_unstable();
    let list = fs::read_to_string(repository("tests/ffi/symbols.txt")).unwrap();
    assert_eq!(names, list.lines().collect::<Vec<_>>());
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn the_header_compiles_alone_and_twice_as_c_and_cpp() {
    let folder = tempfile::tempdir().unwrap();
    let languages = [("gcc", "c11", "c"), ("clang", "c11", "c"), ("g++", "c++17", "cpp"), ("clang++", "c++17", "cpp")];
    for (compiler, standard, extension) in languages {
        for times in [1, 2] {
            let path = folder.path().join(format!("header.{extension}"));
            fs::write(&path, "#include <vmcell.h>\n".repeat(times)).unwrap();
            let mut command = Command::new(compiler);
            command.arg(format!("-std={standard}")).args(STRICT).arg("-fsyntax-only").arg(&path);
            run(command.arg("-I").arg(repository("include")));
        }
    }
}

/// The program of `tests/ffi`, which ends with "all checks passed".
fn build_checks(prefix: &Prefix, compiler: &str, options: &[&str], folder: &TempDir) -> PathBuf {
    let mut sources: Vec<PathBuf> =
        fs::read_dir(repository("tests/ffi")).unwrap().map(|entry| entry.unwrap().path()).collect();
    sources.retain(|path| path.extension().is_some_and(|extension| extension == "c"));
    sources.sort();
    let program = folder.path().join("checks");
    let mut command = Command::new(compiler);
    command.args(["-std=c11", "-D_GNU_SOURCE", "-g", "-pthread"]).args(STRICT).args(options);
    command.args(sources).arg("-o").arg(&program).args(prefix.pkg_config(&["--cflags", "--libs"]));
    run(&mut command);
    program
}

fn check_from_c(compiler: &str, options: &[&str], under: &[&str]) {
    let (prefix, built, guests) = (Prefix::new(), tempfile::tempdir().unwrap(), guests());
    let program = build_checks(&prefix, compiler, options, &built);
    let mut command = match under {
        [] => prefix.command(&program),
        [first, rest @ ..] => {
            let mut command = prefix.command(first);
            command.args(rest).arg(&program);
            command
        }
    };
    assert!(run(command.arg(guests.path())).contains("all checks passed"));
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn every_function_works_and_fails_as_told_by_gcc() {
    check_from_c("gcc", &["-O2"], &[]);
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn every_function_works_and_fails_as_told_by_clang() {
    check_from_c("clang", &["-O2"], &[]);
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn valgrind_finds_neither_an_error_nor_a_leak() {
    let under = valgrind();
    let under: Vec<&str> = under.iter().map(String::as_str).collect();
    check_from_c("gcc", &[], &under);
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn address_sanitizer_finds_neither_an_error_nor_a_leak() {
    for compiler in ["gcc", "clang"] {
        let options = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"];
        check_from_c(compiler, &options, &[]);
    }
}

/// What both launchers keep to, like the one in Rust.
fn check_launcher(prefix: &Prefix, launcher: &Path) {
    let guests = guests();
    let guest = |name: &str| guests.path().join(name).to_string_lossy().into_owned();
    let log = guest("log");
    let run = |arguments: &[&str]| {
        let output = prefix.command(launcher).args(arguments).stdin(std::process::Stdio::null()).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let tiny = |name: &str, more: &[&str]| {
        let kernel = guest(name);
        run(&[&["--kernel", &kernel, "--memory", "16"], more].concat())
    };
    assert_eq!(tiny("hello", &[]), (Some(0), "hello".into(), String::new()));
    let (status, _, said) = tiny("hello", &["-v", "--vcpus", "2", "--discovery", "cmdline", "--protocol", "linux64"]);
    assert!(status == Some(0) && said.contains("built and started in"), "{said}");
    assert_eq!(tiny("hello", &["--console", "none"]).1, "");
    assert_eq!(tiny("hello", &["--console", &log]).0, Some(0));
    assert_eq!(fs::read_to_string(&log).unwrap(), "hello");
    for reset in ["acpi_reset", "keyboard_reset", "triple_fault"] {
        assert_eq!(tiny(reset, &[]).0, Some(0), "{reset}");
    }
    let (status, _, said) = tiny("panic", &[]);
    assert!(status == Some(1) && said.contains("panicked"), "{said}");
    let (status, _, said) = tiny("failing", &[]);
    assert!(status == Some(1) && said.starts_with("launch: ") && said.contains("the guest"), "{said}");
    let disk = guest("disk.img");
    fs::write(&disk, vec![0; 4096]).unwrap();
    assert_eq!(tiny("power_off", &["--disk", &format!("{disk},ro,engine=sync"), "--disk", &disk]).0, Some(2));
    assert_eq!(tiny("power_off", &["--disk", &format!("{disk},ro")]).0, Some(0));
    let (status, _, said) = run(&["--kernel", "/does/not/exist"]);
    assert!(status == Some(1) && said.contains("No such file"), "{said}");
    let bad: [&[&str]; 11] = [
        &["--memory", "15"],
        &["--memory", "lots"],
        &["--vcpus", "0"],
        &["--disk", ",ro"],
        &["--disk", "x,rw"],
        &["--tap", "t,mac=02:00:00:00:00:0g"],
        &["--tap", "t,queues=17"],
        &["--tap", "t,queues=2x"],
        &["--discovery", "none"],
        &["--protocol", "none"],
        &["stray"],
    ];
    for arguments in bad {
        assert_eq!(tiny("hello", arguments).0, Some(2), "{arguments:?}");
    }
    assert_eq!(run(&[]).0, Some(2));
    assert_eq!(run(&["--bogus"]).0, Some(2));
    assert_eq!(run(&["--help"]).0, Some(0));
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn the_launcher_in_c_keeps_the_command_line() {
    let prefix = Prefix::new();
    for (compiler, linked) in [("gcc", "STATIC=0"), ("clang", "STATIC=0"), ("gcc", "STATIC=1")] {
        let folder = tempfile::tempdir().unwrap();
        let out = format!("OUT={}", folder.path().display());
        let mut make = prefix.command("make");
        run(make.args(["-B", &out, &format!("CC={compiler}"), linked, "-C"]).arg(repository("examples/c")));
        check_launcher(&prefix, &folder.path().join("launch"));
    }
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn the_go_package_is_formatted_vetted_and_passes_its_tests_under_the_race_detector() {
    let (prefix, guests) = (Prefix::new(), guests());
    assert_eq!(run(Command::new("gofmt").arg("-l").arg(repository("examples/go"))), "");
    run(&mut go(&prefix, &["vet", "./..."]));
    let tests = run(go(&prefix, &["test", "-race", "-count=1", "-v", "."]).env("VMCELL_GUESTS", guests.path()));
    assert!(tests.contains("--- PASS") && !tests.contains("--- SKIP"), "{tests}");
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn the_launcher_in_go_keeps_the_command_line() {
    let (prefix, folder) = (Prefix::new(), tempfile::tempdir().unwrap());
    let launcher = folder.path().join("launch");
    run(go(&prefix, &["build", "-o"]).arg(&launcher).arg("./cmd/launch"));
    check_launcher(&prefix, &launcher);
}

/// The one block of a language in `docs/ffi.md`.
fn documented(language: &str) -> String {
    let text = fs::read_to_string(repository("docs/ffi.md")).unwrap();
    let blocks: Vec<&str> = text.split(&format!("```{language}\n")).skip(1).collect();
    let [block] = blocks[..] else { panic!("{} blocks of {language}", blocks.len()) };
    block.split_once("```").unwrap().0.to_owned()
}

fn check_documented(mut command: Command) {
    let guests = guests();
    assert_eq!(run(command.arg(guests.path().join("hello"))), "hello");
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn the_documented_program_in_c_runs() {
    let (prefix, folder) = (Prefix::new(), tempfile::tempdir().unwrap());
    let (source, program) = (folder.path().join("first.c"), folder.path().join("first"));
    fs::write(&source, documented("c")).unwrap();
    let mut compile = Command::new("gcc");
    compile.arg("-std=c11").args(STRICT).arg(&source).arg("-o").arg(&program);
    run(compile.args(prefix.pkg_config(&["--cflags", "--libs"])));
    check_documented(prefix.command(program));
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn the_documented_backend_in_c_makes_a_disk_that_a_vm_takes() {
    let (prefix, folder, guests) = (Prefix::new(), tempfile::tempdir().unwrap(), guests());
    let (source, program) = (folder.path().join("backend.c"), folder.path().join("backend"));
    let used = r#"
        int main(int argc, char **argv) {
            vmcell_config *config;
            vmcell_vm *vm;
            int32_t ended = 0;
            return argc != 2 || vmcell_config_new(&config, NULL) || vmcell_config_set_kernel(config, argv[1], NULL) ||
                   vmcell_config_add_disk(config, ram_disk(1 << 20, NULL), NULL) || vmcell_vm_new(config, &vm, NULL) ||
                   vmcell_vm_start(vm, NULL) || vmcell_vm_wait(vm, VMCELL_WAIT_FOREVER, &ended, NULL) ||
                   vmcell_vm_free(vm) || ended != VMCELL_EXIT_SHUTDOWN || vmcell_handle_count() != 0;
        }"#;
    fs::write(&source, documented("c backend") + used).unwrap();
    let mut compile = Command::new("gcc");
    compile.arg("-std=c11").args(STRICT).arg("-fsanitize=address,undefined").arg(&source).arg("-o").arg(&program);
    run(compile.args(prefix.pkg_config(&["--cflags", "--libs"])));
    run(prefix.command(program).arg(guests.path().join("power_off")));
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn the_documented_program_in_go_runs() {
    let (prefix, folder) = (Prefix::new(), tempfile::tempdir().unwrap());
    let package = repository("examples/go");
    let module = format!(
        "module first\n\ngo 1.19\n\nrequire example.com/vmcell v0.0.0\n\nreplace example.com/vmcell => {}\n",
        package.display()
    );
    fs::write(folder.path().join("go.mod"), module).unwrap();
    fs::write(folder.path().join("first.go"), documented("go")).unwrap();
    run(go(&prefix, &["build", "-o", "first", "."]).current_dir(folder.path()));
    check_documented(prefix.command(folder.path().join("first")));
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn the_documented_program_in_python_runs_and_has_fifteen_lines() {
    let (prefix, text) = (Prefix::new(), documented("python"));
    assert_eq!(text.lines().count(), 15);
    let mut python = prefix.command("python3");
    python.arg("-c").arg(text);
    check_documented(python);
}
