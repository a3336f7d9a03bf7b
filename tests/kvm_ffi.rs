//! The installed library, used by programs in C, Go and Python that run guests of a few instructions.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use support::ffi::{Prefix, go, guests, repository, run, valgrind};
use tempfile::TempDir;
use vmcell::testing::TinyGuest;
use vmcell::volume::{Key, Volume};

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
        // Whether it is jailed is the host's and the language's affair.
        let said =
            text(&output.stderr).split_inclusive('\n').filter(|line| !line.contains("jailed")).collect::<String>();
        (output.status.code(), text(&output.stdout), said)
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

/// What the launcher in Rust has beyond the others: what concerns the host, and what is no data in C.
const IN_RUST_ALONE: [&str; 5] = ["--doctor", "--network", "--print-config", "--restore", "--snapshot-to"];

/// The options that a help names.
fn named(help: &str) -> BTreeSet<&str> {
    let words = help.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '-');
    words.filter(|word| word.starts_with('-') && word.len() > 1).collect()
}

/// Each option with a use of it, beside others that it needs.
const USES: [&[&str]; 37] = [
    &["--config", "vm.json", "--console", "stdio"],
    &["--kernel", "guest", "--config", "vm.json", "--console", "stdio"],
    &["--initrd", "disk.img", "--kernel", "guest"],
    &["--cmdline", "quiet", "--kernel", "guest"],
    &["--cmdline", "quiet", "--config", "vm.json", "--log", "log"],
    &["--vcpus", "2", "--kernel", "guest"],
    &["--cpu", "host", "--kernel", "guest"],
    &["--memory", "17", "--config", "vm.json", "--disk", "disk.img"],
    &["--pages", "transparent", "--config", "vm.json"],
    &["--numa-node", "0", "--kernel", "guest"],
    &["--lock-memory", "--kernel", "guest", "--memory", "16"],
    &["--core-scheduling", "--kernel", "guest"],
    &["--seccomp", "kill", "--kernel", "guest", "--disk", "disk.img", "--vcpus", "2"],
    &["--jail", "--kernel", "guest", "--disk", "disk.img"],
    &["--no-jail", "--kernel", "guest"],
    &["--disk", "disk.img,ro,engine=sync,direct", "--discovery", "cmdline", "--kernel", "guest"],
    &["--tap", "vmcell-none,mac=02:00:00:00:00:01,queues=2", "--kernel", "guest"],
    &["--discovery", "cmdline", "--kernel", "guest", "--disk", "disk.img"],
    &["--protocol", "linux64", "--kernel", "guest"],
    &["--console", "log", "--cmdline", "quiet", "--kernel", "guest"],
    &["--metadata", "vm.json", "--tap", "vmcell-none", "--kernel", "guest"],
    &["--rng", "1024,burst=64", "--kernel", "guest", "--cmdline", "quiet"],
    &["--balloon", "1,deflate-on-oom=off,reporting=on,statistics=5", "--kernel", "guest", "--cmdline", "quiet"],
    &["--console-rate", "4096:1024", "--kernel", "guest", "--cmdline", "quiet"],
    &["--disk", "disk.img,iops=2000:100,bandwidth=8388608", "--kernel", "guest"],
    &["--disk", "disk.img,bandwidth=1:65536,ro,iops=1", "--kernel", "guest"],
    &["--vsock", "3,path=vsock", "--kernel", "guest", "--cmdline", "quiet"],
    &["--cgroup", "none,cpu=1/4,burst=10,weight=50,memory=1048576,name=web", "--kernel", "guest"],
    &["--log", "log,append,max=4096,keep=1", "--cmdline", "quiet", "--kernel", "guest"],
    &["--log", "log", "--console", "none", "--cmdline", "quiet", "--kernel", "guest"],
    &["--poll-us", "0", "--kernel", "guest"],
    &["--volume", "data.vol,key-file=key", "--kernel", "guest", "--disk", "disk.img"],
    &["--volume", "data.vol,key-file=key,ro,engine=sync,discard,iops=2000:100", "--kernel", "guest"],
    &["--secret", "TOKEN=key", "--secret", "OTHER=disk.img", "--kernel", "guest", "--cmdline", "quiet"],
    &["--scrub-secrets", "1", "--secret", "TOKEN=key", "--kernel", "guest"],
    &["-v", "--kernel", "guest"],
    &["--help"],
];

/// What all launchers refuse as bad arguments.
const REFUSED: [&[&str]; 51] = [
    &["--kernel", "guest", "--jail", "--no-jail"],
    &["--kernel", "guest", "--cpu", "v5"],
    &["--kernel", "guest", "--cpu", "v2,warp"],
    &["--kernel", "guest", "--seccomp", "on"],
    &["--kernel", "guest", "--pages", "4k"],
    &["--kernel", "guest", "--poll-us", "1001"],
    &["--kernel", "guest", "--numa-node", "many"],
    &["--kernel", "guest", "--log", ",append"],
    &["--kernel", "guest", "--log", "log,rotate"],
    &["--kernel", "guest", "--log", "log,max=x"],
    &["--kernel", "guest", "--log", "log,max=0"],
    &["--kernel", "guest", "--log", "log,max=1"],
    &["--kernel", "guest", "--log", "log,keep=2"],
    &["--kernel", "guest", "--rng", "all"],
    &["--kernel", "guest", "--vsock", "2"],
    &["--kernel", "guest", "--vsock", "guest"],
    &["--kernel", "guest", "--rng", "0"],
    &["--kernel", "guest", "--rng", "1,peak=2"],
    &["--kernel", "guest", "--metadata", "vm.json"],
    &["--kernel", "guest", "--metadata", "missing.json", "--tap", "vmcell-none"],
    &["--kernel", "guest", "--balloon", "most"],
    &["--kernel", "guest", "--balloon", "1,reporting=yes"],
    &["--kernel", "guest", "--balloon", "1,statistics=86401"],
    &["--kernel", "guest", "--balloon", "1000000"],
    &["--kernel", "guest", "--console-rate", "0"],
    &["--kernel", "guest", "--disk", "disk.img,iops=0"],
    &["--kernel", "guest", "--disk", "disk.img,iops=1:"],
    &["--kernel", "guest", "--disk", "disk.img,bandwidth=1K"],
    &["--kernel", "guest", "--tap", "tap0,rx-frames=x"],
    &["--kernel", "guest", "--console", ""],
    &["--kernel", "guest", "--cgroup", "none"],
    &["--kernel", "guest", "--cgroup", ",cpu=1"],
    &["--kernel", "guest", "--cgroup", "none,cpu=1/0"],
    &["--kernel", "guest", "--cgroup", "none,cpu=half"],
    &["--kernel", "guest", "--cgroup", "none,burst=10"],
    &["--kernel", "guest", "--cgroup", "none,cpu=1,burst=1001"],
    &["--kernel", "guest", "--cgroup", "none,weight=0"],
    &["--kernel", "guest", "--cgroup", "none,pids=10"],
    &["--kernel", "guest", "--volume", "data.vol"],
    &["--kernel", "guest", "--volume", "data.vol,key-file="],
    &["--kernel", "guest", "--volume", ",key-file=key"],
    &["--kernel", "guest", "--volume", "data.vol,key-file=key,rw"],
    &["--kernel", "guest", "--secret", "hunter2"],
    &["--kernel", "guest", "--secret", "=hunter2"],
    &["--kernel", "guest", "--secret", "hunter2="],
    &["--kernel", "guest", "--scrub-secrets", "5"],
    &["--kernel", "guest", "--scrub-secrets", "0", "--secret", "TOKEN=key"],
    &["--kernel", "guest", "--scrub-secrets", "soon", "--secret", "TOKEN=key"],
    &["--config", "missing.json"],
    &["--config", "/dev/zero"],
    &["--config", "disk.img"],
];

/// What all launchers fail with, and what they say.
const FAILING: [(&[&str], &str); 7] = [
    (&["--kernel", "guest", "--volume", "data.vol,key-file=disk.img"], "no key slot is opened by this key"),
    (&["--kernel", "guest", "--volume", "data.vol,key-file=none"], "key file none: it cannot be read: No such file"),
    (&["--kernel", "guest", "--volume", "disk.img,key-file=key"], "it is no LUKS volume"),
    (
        &["--kernel", "guest", "--volume", "data.vol,key-file=key", "--volume", "data.vol,key-file=key"],
        "only one may write",
    ),
    (&["--kernel", "guest", "--secret", "TOKEN=none"], "No such file"),
    (&["--kernel", "guest", "--secret", ".hidden=key"], "hidden"),
    (&["--kernel", "guest", "--secret", "TOKEN=key", "--secret", "TOKEN=key"], "TOKEN"),
];

/// A folder with what the uses name.
fn used_files() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    TinyGuest::print_cmdline().write_to(folder.path().join("guest")).unwrap();
    fs::write(folder.path().join("disk.img"), vec![0; 4096]).unwrap();
    fs::write(folder.path().join("key"), [7; 32]).unwrap();
    let key = Key::random(&[7; 32]).unwrap();
    Volume::create(folder.path().join("data.vol"), 1 << 20, &key).unwrap();
    let json = r#"{"boot": {"kernel": "guest", "cmdline": "described"}, "memory": {"mib": 16, "backing": "memfd"}}"#;
    fs::write(folder.path().join("vm.json"), json).unwrap();
    folder
}

/// How a launcher ends, what it prints, what it says, and what stands in the log then.
fn used(mut launcher: Command, arguments: &[&str]) -> (Option<i32>, String, String, String) {
    let folder = used_files();
    let output = launcher.args(arguments).current_dir(folder.path()).stdin(Stdio::null()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let log = fs::read_to_string(folder.path().join("log")).unwrap_or_default();
    (output.status.code(), text(&output.stdout), text(&output.stderr), log)
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn the_launchers_have_the_same_options_and_each_works_that_the_help_names() {
    let (prefix, folder) = (Prefix::new(), tempfile::tempdir().unwrap());
    let (in_c, in_go) = (folder.path().join("launch"), folder.path().join("launch-go"));
    let mut make = prefix.command("make");
    run(make.arg(format!("OUT={}", folder.path().display())).arg("-C").arg(repository("examples/c")).arg(&in_c));
    run(go(&prefix, &["build", "-o"]).arg(&in_go).arg("./cmd/launch"));
    let others = || [("C", prefix.command(&in_c)), ("Go", prefix.command(&in_go))];

    let help = used(support::launcher(), &["--help"]).1;
    let mut options = named(&help);
    IN_RUST_ALONE.iter().for_each(|option| assert!(options.remove(option), "{option}"));
    let tried: BTreeSet<&str> = USES.iter().map(|arguments| arguments[0]).chain(["-h"]).collect();
    assert_eq!(options, tried);
    for (language, launcher) in others() {
        let (_, printed, said, _) = used(launcher, &["--help"]);
        let help = printed + &said;
        assert_eq!(named(&help), options, "{language}");
        let status = "Exit status: 0 the guest shut down or reset itself; 1 it failed; 2 bad arguments.";
        for form in [
            status,
            "PATH[,ro][,engine=uring|sync][,direct]",
            "[,queues=N]",
            "[,append][,max=BYTES][,keep=N]",
            "2mib",
            "pvh",
        ] {
            assert!(help.contains(form), "{language}: no {form} in {help}");
        }
    }
    assert!(
        help.contains("\nExit status: 0 the guest shut down or reset itself; 1 it failed; 2 bad arguments.\n"),
        "{help}"
    );
    assert!(help.contains("2mib") && help.contains("pvh"), "{help}");

    for arguments in USES.iter().filter(|arguments| arguments[0] != "--help") {
        let (status, printed, said, log) = used(support::launcher(), arguments);
        // A TAP device that is not there is the host's affair, as is a scheduler that cannot do it.
        let may_fail = ["--tap", "--metadata", "--core-scheduling", "--numa-node", "--lock-memory", "--jail"]
            .contains(&arguments[0]);
        // Nor is a cgroup there that is called so.
        let has_none =
            arguments[0] == "--cgroup" && status == Some(2) && said.contains("is not the folder of a cgroup");
        assert!(status == Some(0) || may_fail && status == Some(1) || has_none, "{arguments:?}: {status:?} {said}");
        for (language, launcher) in others() {
            let other = used(launcher, arguments);
            if arguments[0] == "--jail" && language == "Go" {
                assert!(other.0 == Some(1) && other.2.contains("a Go program has several threads"), "{}", other.2);
                continue;
            }
            assert_eq!(
                (other.0, &other.1, &other.3),
                (status, &printed, &log),
                "{language}: {arguments:?}: {}",
                other.2
            );
            assert_eq!(
                other.2.contains("vm: starts with 1 vCPU"),
                said.contains("vm: starts with 1 vCPU"),
                "{language}"
            );
        }
    }
    for arguments in REFUSED {
        for (language, launcher) in others().into_iter().chain([("Rust", support::launcher())]) {
            let (status, _, said, _) = used(launcher, arguments);
            assert!(status == Some(2) && !said.is_empty(), "{language}: {arguments:?}: {status:?} {said}");
            assert!(!said.contains("hunter2"), "{language}: a secret may have been given by mistake: {said}");
        }
    }
    for (arguments, reason) in FAILING {
        for (language, launcher) in others().into_iter().chain([("Rust", support::launcher())]) {
            let (status, _, said, _) = used(launcher, arguments);
            assert!(status == Some(1) && said.contains(reason), "{language}: {arguments:?}: {status:?} {said}");
        }
    }
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

/// Compiles a block of the page with a `main` around it, and runs it with a guest that powers off.
fn check_block(language: &str, main: &str) {
    let (prefix, folder, guests) = (Prefix::new(), tempfile::tempdir().unwrap(), guests());
    let (source, program) = (folder.path().join("block.c"), folder.path().join("block"));
    fs::write(&source, documented(language) + main).unwrap();
    let mut compile = Command::new("gcc");
    compile.arg("-std=c11").args(STRICT).arg("-fsanitize=address,undefined").arg(&source).arg("-o").arg(&program);
    run(compile.args(prefix.pkg_config(&["--cflags", "--libs"])));
    // To find leaks takes looking at other threads, which a jail forbids.
    let leaks = format!("detect_leaks={}", u8::from(language != "c jail"));
    run(prefix.command(program).env("ASAN_OPTIONS", leaks).arg(guests.path().join("power_off")));
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn the_documented_backend_in_c_makes_a_disk_that_a_vm_takes() {
    let main = r#"
        int main(int argc, char **argv) {
            vmcell_config *config;
            vmcell_vm *vm;
            int32_t ended = 0;
            return argc != 2 || vmcell_config_new(&config, NULL) || vmcell_config_set_kernel(config, argv[1], NULL) ||
                   vmcell_config_add_disk(config, ram_disk(1 << 20, NULL), NULL) || vmcell_vm_new(config, &vm, NULL) ||
                   vmcell_vm_start(vm, NULL) || vmcell_vm_wait(vm, VMCELL_WAIT_FOREVER, &ended, NULL) ||
                   vmcell_vm_free(vm) || ended != VMCELL_EXIT_SHUTDOWN || vmcell_handle_count() != 0;
        }"#;
    check_block("c backend", main);
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn the_documented_jail_in_c_runs_a_vm_in_a_process_that_opens_no_file_any_more() {
    let main = r#"
        int main(int argc, char **argv) {
            vmcell_config *config;
            vmcell_vm *vm;
            int32_t ended = 0;
            if (argc != 2 || vmcell_config_new(&config, NULL) || vmcell_config_set_kernel(config, argv[1], NULL) ||
                jailed_vm(config, &vm, NULL))
                return 1;
            if (fopen("/etc/passwd", "r") != NULL)
                return 2;
            return vmcell_vm_start(vm, NULL) || vmcell_vm_wait(vm, VMCELL_WAIT_FOREVER, &ended, NULL) ||
                   vmcell_vm_free(vm) || ended != VMCELL_EXIT_SHUTDOWN || vmcell_handle_count() != 0;
        }"#;
    check_block("c jail", main);
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
