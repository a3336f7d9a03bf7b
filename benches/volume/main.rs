//! What encryption takes: `cargo xtask bench volume`.
//!
//! An encrypted volume and a plain file, each behind the same engine, in turns; and the cipher alone, beside OpenSSL's. A figure, no
//! test: nothing is held to a limit.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints what it measures")]

mod load;
#[path = "../median.rs"]
mod median;
mod nothing;

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use load::{Kind, Load, Rig};
use median::median;
use nothing::Nothing;
use vmcell::block::FileBackend;
use vmcell::volume::{Encrypted, Key, Volume, VolumeOptions};
use vmcell::{DiskConfig, Engine, Error, ErrorKind, Result};

const ROUNDS: usize = 7;
const SIZE: u64 = 256 << 20;
/// Of one volume, each over the one before.
const SNAPSHOTS: usize = 7;
const MIB: f64 = 1048576.0;
/// Each turn of a load.
const TURN: Duration = Duration::from_millis(400);

const LOADS: [Load; 6] = [
    Load { name: "reads of 4 KiB, depth 32", kind: Kind::RandomRead, len: 4 << 10, depth: 32 },
    Load { name: "writes of 4 KiB, depth 32", kind: Kind::RandomWrite, len: 4 << 10, depth: 32 },
    Load { name: "reads of 4 KiB, depth 1", kind: Kind::RandomRead, len: 4 << 10, depth: 1 },
    Load { name: "writes of 4 KiB, depth 1", kind: Kind::RandomWrite, len: 4 << 10, depth: 1 },
    Load { name: "reads of 256 KiB in order, depth 4", kind: Kind::Read, len: 256 << 10, depth: 4 },
    Load { name: "writes of 256 KiB in order, depth 4", kind: Kind::Write, len: 256 << 10, depth: 4 },
];

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("volume: {}", error.chain());
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let failed = |e| Error::new(ErrorKind::Host, "there is no place for a file").with_source(e);
    let folder = tempfile::tempdir_in("/var/tmp").map_err(failed)?;
    cipher()?;
    for direct in [false, true] {
        encrypted_beside_raw(folder.path(), direct)?;
    }
    fork_beside_base(folder.path())?;
    snapshots(folder.path())?;
    opening(folder.path())
}

/// The cipher with the copy that a layer makes, over a backend that does nothing.
fn cipher() -> Result<()> {
    let key = Key::of_data(&[0x42; 64])?;
    println!("cipher: AES-256-XTS on one core, with a copy of the data, MiB a second of CPU time (median of {ROUNDS})");
    println!("{:<44} {:>10} {:>10} {:>8}", "", "vmcell", "OpenSSL", "quotient");
    for (sector_size, len) in [(4096, 4 << 10), (512, 4 << 10), (4096, 256 << 10)] {
        for (kind, word) in [(Kind::RandomWrite, "encrypt"), (Kind::RandomRead, "decrypt")] {
            let load = Load { name: "", kind, len, depth: 32 };
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            for _ in 0..ROUNDS {
                let mut rig = Rig::new(Encrypted::over(Nothing::new(SIZE), &key, sector_size)?)?;
                ours.push(rig.run_by_cpu(load, TURN)? * len as f64 / MIB);
                theirs.extend(openssl(sector_size.min(len), kind == Kind::RandomRead));
            }
            let name = format!("{word}, sectors of {sector_size} B, requests of {} KiB", len >> 10);
            let (ours, theirs) = (median(ours), median(theirs));
            println!("{name:<44} {ours:>10.0} {theirs:>10.0} {:>8.2}", ours / theirs);
        }
    }
    Ok(())
}

/// MiB a second of OpenSSL on sectors of this size, if it is installed.
fn openssl(sector_size: usize, decrypt: bool) -> Option<f64> {
    let mut command = Command::new("openssl");
    command.args(["speed", "-mr", "-seconds", "1", "-bytes", &sector_size.to_string(), "-evp", "aes-256-xts"]);
    if decrypt {
        command.arg("-decrypt");
    }
    let output = command.output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let figure = text.lines().find(|line| line.starts_with("+F:"))?.rsplit(':').next()?.parse::<f64>().ok()?;
    Some(figure / MIB)
}

/// Both on files that are whole and in the page cache, if it is used.
fn encrypted_beside_raw(folder: &Path, direct: bool) -> Result<()> {
    let (plain, volume) = (folder.join("plain"), folder.join("volume"));
    let key = Key::generate()?;
    let _ = std::fs::remove_file(&volume);
    let failed = |e| Error::new(ErrorKind::Host, "a file cannot be written").with_source(e);
    std::fs::File::create(&plain).and_then(|file| file.set_len(SIZE)).map_err(failed)?;
    Volume::create(&volume, SIZE, &key)?;
    let config = |path: &Path| {
        let mut config = DiskConfig::new(path);
        (config.direct, config.engine) = (direct, Engine::Auto);
        config
    };
    let mut raw = Rig::new(FileBackend::open(&config(&plain))?)?;
    let options = VolumeOptions::new(config(&volume));
    let mut encrypted = Rig::new(Volume::open_with(options, &key)?.into_backend())?;
    raw.fill()?;
    encrypted.fill()?;
    let how = if direct { "past the page cache" } else { "in the page cache" };
    println!("\nencrypted beside raw, {how}: operations a second (median of {ROUNDS} turns each)");
    println!("{:<44} {:>10} {:>10} {:>8}", "", "encrypted", "raw", "quotient");
    for load in LOADS {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            ours.push(encrypted.run(load, TURN)?);
            theirs.push(raw.run(load, TURN)?);
        }
        let (ours, theirs) = (median(ours), median(theirs));
        println!("{:<44} {ours:>10.0} {theirs:>10.0} {:>8.2}", load.name, ours / theirs);
    }
    Ok(())
}

/// A fork that nothing was written to, and one of which all was, each beside a volume without a base.
fn fork_beside_base(folder: &Path) -> Result<()> {
    let [base, alone, fresh, written] = ["base", "alone", "fresh", "written"].map(|name| folder.join(name));
    let key = Key::generate()?;
    let open = |path: &Path| Rig::new(Volume::open(path, &key)?.into_backend());
    for path in [&base, &alone] {
        Volume::create(path, SIZE, &key)?;
        open(path)?.fill()?;
    }
    let began = Instant::now();
    Volume::fork(&base, &key, &fresh, &key)?;
    let took = began.elapsed().as_secs_f64() * 1e3;
    Volume::fork(&base, &key, &written, &key)?;
    open(&written)?.fill()?;
    println!(
        "\nforks beside a volume without a base, in the page cache: operations a second (median of {ROUNDS} turns each)"
    );
    println!("{:<44} {:>10} {:>10} {:>8}", "", "fork", "volume", "quotient");
    for (path, what) in [(&fresh, "unwritten"), (&written, "written")] {
        let (mut fork, mut volume) = (open(path)?, open(&alone)?);
        for load in LOADS.iter().filter(|load| path == &written || matches!(load.kind, Kind::Read | Kind::RandomRead)) {
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            for _ in 0..ROUNDS {
                ours.push(fork.run(*load, TURN)?);
                theirs.push(volume.run(*load, TURN)?);
            }
            let (ours, theirs) = (median(ours), median(theirs));
            let name = format!("{what}: {}", load.name);
            println!("{name:<44} {ours:>10.0} {theirs:>10.0} {:>8.2}", ours / theirs);
        }
    }
    println!("{:<44} {took:>10.2} ms", "making a fork");
    Ok(())
}

/// How long a disk stands still for a snapshot, under a load, and how long it takes in all.
fn snapshots(folder: &Path) -> Result<()> {
    let key = Key::generate()?;
    println!("\nsnapshots of a volume in use (median and most of {SNAPSHOTS} each)");
    println!("{:<60} {:>11} {:>12} {:>12}", "", "pause", "most", "in all");
    for direct in [false, true] {
        for load in LOADS.iter().filter(|load| load.depth > 1) {
            let path =
                |number: usize| folder.join(format!("snapshot-{direct}-{}-{number}", load.name.replace(' ', "-")));
            Volume::create(path(0), SIZE, &key)?;
            let mut config = DiskConfig::new(path(0));
            config.direct = direct;
            let volume = Volume::open_with(VolumeOptions::new(config), &key)?;
            let handle = volume.handle();
            let mut rig = Rig::new(volume.into_backend())?;
            rig.fill()?;
            let taken = std::thread::scope(|scope| {
                let taker = scope.spawn(|| {
                    (1..=SNAPSHOTS)
                        .map(|number| {
                            let began = Instant::now();
                            let pause = handle.snapshot(path(number), &key, Duration::from_secs(60))?;
                            Ok((pause.as_secs_f64() * 1e3, began.elapsed().as_secs_f64() * 1e3))
                        })
                        .collect::<Result<Vec<_>>>()
                });
                while !taker.is_finished() {
                    rig.look();
                    rig.run(*load, TURN / 200)?;
                }
                taker.join().unwrap_or_else(|_| Err(Error::new(ErrorKind::Host, "a thread has panicked")))
            })?;
            let (pauses, totals): (Vec<f64>, Vec<f64>) = taken.into_iter().unzip();
            let most = pauses.iter().copied().fold(0.0, f64::max);
            let name = format!("{}{}", load.name, if direct { ", past the page cache" } else { "" });
            println!("{name:<60} {:>8.3} ms {most:>9.3} ms {:>9.1} ms", median(pauses), median(totals));
            drop(rig);
            (0..=SNAPSHOTS).for_each(|number| drop(std::fs::remove_file(path(number))));
        }
    }
    Ok(())
}

/// How long a volume takes to open.
fn opening(folder: &Path) -> Result<()> {
    println!("\nopening a volume (median of {ROUNDS})");
    for (name, key) in [("random key", Key::generate()?), ("passphrase", Key::passphrase(b"a passphrase")?)] {
        let path = folder.join(name);
        Volume::create(&path, SIZE, &key)?;
        let mut times = Vec::new();
        for _ in 0..ROUNDS {
            let began = Instant::now();
            drop(Volume::open(&path, &key)?);
            times.push(began.elapsed().as_secs_f64() * 1e3);
        }
        println!("{name:<44} {:>10.2} ms", median(times));
    }
    Ok(())
}
