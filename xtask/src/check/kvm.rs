//! The tests that need a KVM: `tests/kvm_*.rs` need any KVM, for guests of a few instructions; `tests/linux_*.rs` need
//! one that boots Linux. A plain `cargo test` ignores all of them; here each function is a run of its own, on this host
//! or in the nested one.

use std::fmt;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::capi::{self, CFace};
use super::direct::{self, FIGURE};
use super::example;
use super::listing::{self, KvmTest};
use super::summary::{Status, Summary};
use crate::args::TestOptions;
use crate::cache::Cache;
use crate::cargo;
use crate::distro::Distro;
use crate::exec::{self, Context, Error, Result};
use crate::guest::{Assets, Guest, Modules};
use crate::host::Kvm;
use crate::nested::image::{self, Item};
use crate::nested::queue::{Done, Job};
use crate::nested::shards::{self, Event, Setup};
use crate::scratch::Scratch;
use crate::tools::CARGO_C;

/// The time limit of one test; one that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(300);
/// The same for one under more load.
const LONG_LIMIT: Duration = Duration::from_secs(3600);
/// Names the initramfs of virtio-villain, for `tests/linux_villain.rs`.
const VILLAIN: &str = "VMCELL_VILLAIN";
/// Names the program that serves Firecracker's API, for the tests of its package.
const SERVED: &str = "VMCELL_SERVED";
/// Names the program that the one above is compared with.
const ORIGINAL: &str = "VMCELL_FIRECRACKER";
const SERVED_PROGRAM: &str = "vmcell-firecracker";
/// Names the first program of the platform's guests, for the tests of its package.
const CELL_INIT: &str = "VMCELL_CELL_INIT";
const CELL_INIT_PROGRAM: &str = "cell-init";
/// Names the platform's program, for the same tests.
const CELL: &str = "VMCELL_CELL";
const CELL_PROGRAM: &str = "cell";
const LAUNCHER: &str = "launch";
/// With the features that the tests have as well, so that what is common is built once.
#[rustfmt::skip]
const PROGRAMS: &[&str] = &[
    "build", "--release", "--workspace", "--example", LAUNCHER,
    "--bin", SERVED_PROGRAM, "--bin", CELL_PROGRAM, "--bin", CELL_INIT_PROGRAM,
];
/// Names the folder of the guest's kernel's modules.
const MODULES: &str = "VMCELL_MODULES";
const AGENT: &str = include_str!("../nested/agent.sh");

/// Which tests run on this host; the others run in the nested one.
pub struct Place {
    kvm: Kvm,
    tiny_here: bool,
    linux_here: bool,
}

impl Place {
    /// Linux guests need a network, so root.
    pub fn choose(kvm: Kvm, nested: bool) -> Self {
        let tiny_here = kvm.runs_tiny_guests() && !nested;
        let linux_here = kvm.boots_linux() && exec::is_root() && !nested;
        Self { kvm, tiny_here, linux_here }
    }

    fn is_here(&self, test: &KvmTest) -> bool {
        if test.compiles() || test.wants_original() {
            // The nested host has no compiler, and not the program.
            return self.kvm.runs_tiny_guests();
        }
        if test.boots_linux() { self.linux_here } else { self.tiny_here }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = |here| if here { "directly" } else { "in the nested host" };
        let (tiny, linux) = (place(self.tiny_here), place(self.linux_here));
        write!(f, "{}: tiny guests run {tiny}, Linux guests {linux}", self.kvm)
    }
}

/// Runs the tests that the filter leaves; it is a failure if none ran.
pub fn run(place: &Place, distro: &Distro, options: &TestOptions, summary: &mut Summary) {
    println!("\n== KVM tests");
    let began = Instant::now();
    if let Err(error) = try_run(place, distro, options, summary) {
        summary.add("KVM tests", Status::Failed(error.to_string()), began.elapsed());
    }
}

fn try_run(place: &Place, distro: &Distro, options: &TestOptions, summary: &mut Summary) -> Result<()> {
    let filter = options.filter.as_deref();
    let (mut tests, left_out) = listing::matching(filter, options.long)?;
    if left_out > 0 {
        summary.note(format!("{left_out} tests that take long were left out; --long or their names run them"));
    }
    if tests.is_empty() {
        let what = filter.map(|filter| format!(" whose name contains `{filter}`")).unwrap_or_default();
        return Err(Error::new(format!("tests/ has no KVM test{what}, so none was run")));
    }
    let cache = Cache::open()?;
    let c_face = c_face(place, &mut tests, summary)?;
    let postgres = postgres(&cache, distro, &mut tests, summary);
    let (here, nested): (Vec<KvmTest>, Vec<KvmTest>) = tests.into_iter().partition(|test| place.is_here(test));
    let assets = Assets::prepare(&cache, distro)?;
    let scratch = Scratch::new(&cargo::target_dir().join("xtask"), "test")?;
    let guest = Guest::choose(&assets, scratch.path())?;
    let villain = std::env::var_os(VILLAIN).map(PathBuf::from);
    if let Some(path) = villain.as_ref().filter(|path| !path.is_file()) {
        return Err(Error::new(format!("{VILLAIN} names {}, which is no file", path.display())));
    }
    let built = cargo::build(PROGRAMS)?;
    let program = |name| cargo::path_of(&built, name);
    let (launcher, served) = (program(LAUNCHER)?, program(SERVED_PROGRAM)?);
    let (cell, cell_init) = (program(CELL_PROGRAM)?, program(CELL_INIT_PROGRAM)?);
    let modules = assets.modules()?;
    let long = options.long;
    let programs = Programs { launcher, served, cell, cell_init, modules, c_face, postgres, villain, long };
    run_here(&here, &guest, &programs, &scratch, summary)?;
    if nested.is_empty() { Ok(()) } else { run_nested(&nested, &assets, &guest, &programs, &scratch, summary) }
}

/// The programs that the tests run.
struct Programs {
    launcher: PathBuf,
    /// Serves Firecracker's API.
    served: PathBuf,
    /// The platform's program.
    cell: PathBuf,
    /// The first program of the platform's guests.
    cell_init: PathBuf,
    /// The modules of the guest's kernel.
    modules: Modules,
    c_face: Option<CFace>,
    /// The image of the platform's example, if a test wants it.
    postgres: Option<PathBuf>,
    /// The initramfs of virtio-villain, if the user has named one.
    villain: Option<PathBuf>,
    /// Put the tests under more load.
    long: bool,
}

impl Programs {
    fn limit(&self) -> Duration {
        if self.long { LONG_LIMIT } else { LIMIT }
    }

    /// Tells the tests that more load is wanted.
    fn load(&self) -> Option<(String, String)> {
        self.long.then(|| ("VMCELL_LONG".into(), "1".into()))
    }
}

/// Builds the C interface if a test wants it, and takes out the tests that lack it or another program.
fn c_face(place: &Place, tests: &mut Vec<KvmTest>, summary: &mut Summary) -> Result<Option<CFace>> {
    let mut skip = |tests: &mut Vec<KvmTest>, which: &dyn Fn(&KvmTest) -> bool, why: &str| {
        skip(tests, which, why, summary);
    };
    let lost = |test: &KvmTest| test.compiles() && !place.is_here(test);
    skip(tests, &lost, "needs a KVM where the compilers are, and this host's runs no guests");
    let alone =
        |test: &KvmTest| test.wants_original() && (std::env::var_os(ORIGINAL).is_none() || !place.is_here(test));
    skip(tests, &alone, &format!("needs a Firecracker 1.16.1, which {ORIGINAL} names, and a KVM on this host"));
    if !tests.iter().any(capi::wanted_by) {
        return Ok(None);
    }
    let c_face = CFace::build()?;
    if c_face.is_none() {
        skip(tests, &capi::wanted_by, &CARGO_C.hint());
    }
    Ok(c_face)
}

/// Takes tests out, and says why.
fn skip(tests: &mut Vec<KvmTest>, which: &dyn Fn(&KvmTest) -> bool, why: &str, summary: &mut Summary) {
    for test in tests.extract_if(.., |test| which(test)) {
        summary.add(&test.to_string(), Status::Skipped(why.into()), Duration::ZERO);
    }
}

/// Makes the image of the platform's example if a test wants it; takes that test out if it cannot be made.
fn postgres(cache: &Cache, distro: &Distro, tests: &mut Vec<KvmTest>, summary: &mut Summary) -> Option<PathBuf> {
    tests.iter().find(|test| example::wanted_by(test))?;
    let made = example::prepare(cache, distro);
    if let Err(error) = &made {
        let why = format!("the image of platform/examples/postgres cannot be made here: {error}");
        skip(tests, &example::wanted_by, &why, summary);
    }
    made.ok()
}

/// The tests' environment, for files at these places.
fn environment(guest: [&str; 6]) -> Vec<(String, String)> {
    let names =
        ["KERNEL", "KERNEL_ELF", "KERNEL_PC", "INITRD", "ROOTFS", "LAUNCH"].map(|name| format!("VMCELL_{name}"));
    names.into_iter().zip(guest).map(|(name, value)| (name, value.to_string())).collect()
}

fn run_here(
    tests: &[KvmTest],
    guest: &Guest,
    programs: &Programs,
    scratch: &Scratch,
    summary: &mut Summary,
) -> Result<()> {
    let files = [&guest.kernel, &guest.elf, &guest.pc_elf, &guest.initrd, &guest.rootfs, &programs.launcher];
    let files = files.map(|path| path.to_string_lossy());
    let mut environment = environment(files.each_ref().map(|file| file.as_ref()));
    if let Some(c_face) = &programs.c_face {
        let named = c_face.programs().map(|(variable, _, path)| (variable, path));
        let named = named.into_iter().chain([("VMCELL_PREFIX", &c_face.prefix)]);
        environment.extend(named.map(|(name, path)| (name.into(), path.to_string_lossy().into_owned())));
    }
    if let Some(villain) = &programs.villain {
        let path = std::path::absolute(villain).context(villain.display())?;
        environment.push((VILLAIN.into(), path.to_string_lossy().into_owned()));
    }
    let (cell, init) = ((CELL, &programs.cell), (CELL_INIT, &programs.cell_init));
    for (variable, path) in [(SERVED, &programs.served), cell, init, (MODULES, &programs.modules.folder)] {
        environment.push((variable.into(), path.to_string_lossy().into_owned()));
    }
    if let Some(postgres) = &programs.postgres {
        environment.push((example::VARIABLE.into(), postgres.to_string_lossy().into_owned()));
    }
    environment.extend(programs.load());
    for test in tests {
        let tmp = Scratch::new(scratch.path(), "tmp")?;
        let (status, took) = direct::run(test, programs.limit(), &environment, tmp.path());
        summary.add(&test.to_string(), status, took);
    }
    Ok(())
}

fn run_nested(
    tests: &[KvmTest],
    assets: &Assets,
    guest: &Guest,
    programs: &Programs,
    scratch: &Scratch,
    summary: &mut Summary,
) -> Result<()> {
    let on_disk = |name: &str| format!("{}/{name}", image::MOUNT);
    let [kernel, elf, pc_elf, initrd, launch] =
        ["vmlinuz", "vmlinux", "vmlinux-pc", "initrd.img", "launch"].map(on_disk);
    let mut environment = environment([&kernel, &elf, &pc_elf, &initrd, image::ROOTFS, &launch]);
    let mut items = image::guest_items(guest);
    items.push(Item { name: LAUNCHER.into(), from: programs.launcher.clone() });
    items.push(Item { name: SERVED_PROGRAM.into(), from: programs.served.clone() });
    environment.push((SERVED.into(), on_disk(SERVED_PROGRAM)));
    items.push(Item { name: CELL_PROGRAM.into(), from: programs.cell.clone() });
    environment.push((CELL.into(), on_disk(CELL_PROGRAM)));
    items.push(Item { name: CELL_INIT_PROGRAM.into(), from: programs.cell_init.clone() });
    environment.push((CELL_INIT.into(), on_disk(CELL_INIT_PROGRAM)));
    let Modules { folder, files } = &programs.modules;
    items.extend(files.iter().map(|file| Item { name: format!("lib/modules/{file}"), from: folder.join(file) }));
    environment.push((MODULES.into(), on_disk("lib/modules")));
    if let Some(c_face) = &programs.c_face {
        for (variable, name, from) in c_face.programs() {
            environment.push((variable.into(), on_disk(name)));
            items.push(Item { name: name.into(), from: from.clone() });
        }
    }
    if let Some(villain) = &programs.villain {
        environment.push((VILLAIN.into(), on_disk("villain")));
        items.push(Item { name: "villain".into(), from: villain.clone() });
    }
    if let Some(postgres) = &programs.postgres {
        environment.push((example::VARIABLE.into(), on_disk(example::NAME)));
        items.push(Item { name: example::NAME.into(), from: postgres.clone() });
    }
    environment.extend(programs.load());
    let exports: String =
        environment.iter().map(|(name, value)| format!("export {name}={}\n", exec::quote(value))).collect();
    for test in tests {
        if !items.iter().any(|item| item.name == test.file) {
            items.push(Item { name: test.file.clone(), from: test.binary.clone() });
        }
    }
    let disk = image::make(scratch, assets, &items, &format!("{exports}{AGENT}"))?;
    let logs = cargo::target_dir().join("xtask");
    let setup = Setup { assets, disk: &disk, guest_rootfs: &guest.rootfs, logs: &logs, limit: programs.limit() };
    report(tests, &setup, summary)
}

fn report(tests: &[KvmTest], setup: &Setup<'_>, summary: &mut Summary) -> Result<()> {
    let job =
        |(id, test): (u32, &KvmTest)| Job { id, binary: test.file.clone(), name: test.name.clone(), lost: Vec::new() };
    let jobs = (0..).zip(tests).map(job).collect();
    let progress = Mutex::new((0, Instant::now()));
    let tell = |event: Event<'_>| {
        let Ok(mut progress) = progress.lock() else { return };
        let clock = progress.1.elapsed().as_secs();
        match event {
            Event::Note(note) => println!("[{clock:>4} s] {note}"),
            Event::Done(done) => {
                progress.0 += 1;
                let word = if done.failure.is_some() { "FAILED" } else { "ok" };
                let Job { binary, name, .. } = &done.job;
                let took = done.took.as_secs_f64();
                println!("[{clock:>4} s] {}/{} {word} {binary}::{name} ({took:.1} s)", progress.0, tests.len());
            }
        }
    };
    let report = shards::run(setup, jobs, &tell)?;
    println!();
    for done in &report.done {
        add(done, summary);
    }
    for loss in report.losses {
        summary.note(loss);
    }
    Ok(())
}

fn add(done: &Done, summary: &mut Summary) {
    let Job { binary, name, lost, .. } = &done.job;
    let title = format!("{binary}::{name}");
    let Some(why) = &done.failure else {
        summary.add(&title, Status::Passed, done.took);
        for figure in done.output.lines().filter_map(|line| line.split_once(FIGURE)) {
            println!("            {}", figure.1);
        }
        if !lost.is_empty() {
            summary.note(format!("{title} passed at try {}; before that: {}", lost.len() + 1, lost.join("; ")));
        }
        return;
    };
    println!("-- {title}\n{}", done.output);
    summary.add(&title, Status::Failed(why.clone()), done.took);
}
