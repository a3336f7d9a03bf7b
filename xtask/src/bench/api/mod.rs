//! `cargo xtask bench api`: programs that serve Firecracker's API, each driven over its socket as an orchestrator does it.

mod client;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use client::Client;
use serde_json::json;

use super::contender::{self, MEMORY_MIB};
use super::result::RowResult;
use super::rows::{ApiLoad, Load, Row};
use super::runs::Sample;
use super::session::Session;
use super::{process, report, rounds, setup, turn};
use crate::args::ApiOptions;
use crate::cargo;
use crate::exec::{Context, Error, Result};
use crate::host::Kvm;
use crate::scratch::Scratch;

const ROWS: [(&str, ApiLoad); 5] = [
    ("exec-to-answer", ApiLoad::Answer),
    ("exec-to-first-byte", ApiLoad::FirstByte),
    ("memory", ApiLoad::Memory),
    ("requests-one-connection", ApiLoad::Kept),
    ("requests-new-connections", ApiLoad::New),
];
const PROFILE: &str = "tuned";
const LIMIT: Duration = Duration::from_secs(20);
/// It has to be there; nothing is read from it.
const DISK_BYTES: u64 = 1 << 20;

/// Measures; returns the exit status.
pub fn run(options: &ApiOptions) -> Result<u8> {
    let kvm = Kvm::detect();
    if !kvm.runs_tiny_guests() {
        return Err(Error::new(format!("bench api needs a KVM on this host: {kvm}")));
    }
    println!("host: {kvm}");
    let ours = cargo::build_program("vmcell-firecracker", "vmcell-firecracker", PROFILE)?;
    let mut served = vec![("vmcell", ours)];
    let mut absent = Vec::new();
    match &options.firecracker {
        Some(path) => {
            println!("firecracker: {}", contender::version(path)?);
            served.push(("firecracker", path.into()));
        }
        None => absent.push("firecracker: not given, see --firecracker PATH".to_owned()),
    }
    let _turn = turn::Turn::wait()?;
    let scratch = Scratch::new(&cargo::target_dir().join("xtask/bench"), "api")?;
    let bench = Bench::prepare(&scratch, options.run_ms)?;
    let results: Vec<RowResult> = ROWS
        .into_iter()
        .map(|(name, load)| {
            eprintln!("bench: {name}, {} rounds", options.rounds);
            let labels = served.iter().map(|(label, _)| (*label).to_owned());
            let runs = rounds::turns(labels, options.rounds, |number| bench.once(load, &served[number].1));
            RowResult { row: Row::new(name, Load::Api(load)), runs }
        })
        .collect();
    print!("{}", report::table(&results, &absent));
    Ok(0)
}

/// What all programs are given.
struct Bench<'a> {
    scratch: &'a Scratch,
    guest: PathBuf,
    disk: PathBuf,
    run: Duration,
}

impl<'a> Bench<'a> {
    fn prepare(scratch: &'a Scratch, run_ms: u32) -> Result<Self> {
        let guest = setup::write_guest(scratch)?;
        let disk = scratch.path().join("disk");
        std::fs::File::create(&disk).and_then(|file| file.set_len(DISK_BYTES)).context(disk.display())?;
        Ok(Self { scratch, guest, disk, run: Duration::from_millis(run_ms.into()) })
    }

    fn once(&self, load: ApiLoad, program: &Path) -> Result<Sample> {
        let socket = self.scratch.path().join("api");
        // One that was killed has left it.
        let _ = std::fs::remove_file(&socket);
        let mut command = Command::new(program);
        command.arg("--api-sock").arg(&socket).args(["--level", "Error"]);
        let began = Instant::now();
        let mut session = Session::start(&mut command, self.scratch.path().join("errors"))?;
        let mut client = Client::wait_for(&socket)?;
        let figure = match load {
            ApiLoad::Kept => return self.rate(|| client.get("/machine-config")),
            ApiLoad::New => return self.rate(|| Client::connect(&socket)?.get("/machine-config")),
            ApiLoad::Answer => {
                self.boot(&mut client)?;
                let took = began.elapsed();
                session.expect_first_byte(LIMIT)?;
                micros(took)
            }
            ApiLoad::FirstByte => {
                self.boot(&mut client)?;
                micros(session.expect_first_byte(LIMIT)?)
            }
            ApiLoad::Memory => {
                self.boot(&mut client)?;
                session.expect_first_byte(LIMIT)?;
                process::kib_beside_guest(session.process(), MEMORY_MIB << 10)?
            }
        };
        session.end()?;
        Ok(Sample::of(figure))
    }

    /// Describes a machine with a disk and starts it.
    fn boot(&self, client: &mut Client) -> Result<()> {
        let machine = json!({ "vcpu_count": 1, "mem_size_mib": MEMORY_MIB });
        let source = json!({ "kernel_image_path": self.guest, "boot_args": "bench=none" });
        let drive = json!({ "drive_id": "disk", "path_on_host": self.disk, "is_root_device": false });
        client.put("/machine-config", &machine.to_string())?;
        client.put("/boot-source", &source.to_string())?;
        client.put("/drives/disk", &drive.to_string())?;
        client.put("/actions", &json!({ "action_type": "InstanceStart" }).to_string())
    }

    /// How often a second it can be done, one after another. A machine that is not started has no say in that.
    fn rate(&self, mut ask: impl FnMut() -> Result<()>) -> Result<Sample> {
        let warm = Instant::now();
        while warm.elapsed() < self.run / 5 {
            ask()?;
        }
        let (began, mut done) = (Instant::now(), 0_u32);
        while began.elapsed() < self.run {
            ask()?;
            done += 1;
        }
        Ok(Sample::of(f64::from(done) / began.elapsed().as_secs_f64()))
    }
}

fn micros(took: Duration) -> f64 {
    took.as_secs_f64() * 1e6
}
