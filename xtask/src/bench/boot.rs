//! A distribution's kernel in each monitor, up to its first program, in instructions of monitor, host and guest together.
//!
//! All of it runs in a nested host whose clock counts instructions. That is stable, and needs no hardware; it prices no exit from the
//! guest, and shows no overlap of threads.

use std::path::Path;
use std::time::Duration;

use super::carry;
use super::contender::Contender;
use super::result::RowResult;
use super::rows::Row;
use super::runs::Sample;
use super::session::Session;
use super::setup::Setup;
use crate::args::BenchOptions;
use crate::cache::Cache;
use crate::distro::Distro;
use crate::exec::{Context, Error, Result};
use crate::guest::{Assets, cpio};
use crate::nested::image::{self, Item};
use crate::nested::qemu::{self, Serial};
use crate::scratch::Scratch;

const BUSYBOX: &str = "/bin/busybox";
/// What the guest's first program says.
const UP: &str = "vmcell-init-is-up";
const CMDLINE: &str = "console=ttyS0 reboot=k panic=-1 quiet";
/// More are not needed: the rounds hardly differ.
const MOST_ROUNDS: u32 = 3;
/// From QEMU's start to the first figure, and to each later one. QEMU's nested SVM hangs now and then.
const LIMIT: Duration = Duration::from_secs(240);
const STARTS: u32 = 3;

type Runs = Vec<(String, Result<Vec<Sample>>)>;

/// Runs the row; it has rounds of its own.
pub fn run(row: &Row, contenders: &[Contender], setup: &Setup, options: &BenchOptions) -> Result<RowResult> {
    let rounds = options.rounds.min(MOST_ROUNDS);
    eprintln!("bench: {}, {rounds} rounds in the nested host", row.name);
    let assets = Assets::prepare(&Cache::open()?, &Distro::detect()?)?;
    let scratch = Scratch::new(setup.scratch.path(), "boot")?;
    let (commands, items): (Vec<_>, Vec<_>) = contenders
        .iter()
        .enumerate()
        .map(|(number, contender)| carry::command(number, contender, CMDLINE, scratch.path()))
        .collect();
    let mut items: Vec<Item> = items.into_iter().flatten().collect();
    let initrd = scratch.path().join("init.img");
    std::fs::write(&initrd, first_program()?).context(initrd.display())?;
    items.extend(
        [("vmlinux", &assets.elf), ("init.img", &initrd), ("floor", &setup.floor)]
            .map(|(name, from)| Item { name: name.into(), from: from.clone() }),
    );
    let disk = image::make(&scratch, &assets, &items, &script(&commands, rounds))?;
    for start in 1..=STARTS {
        match attempt(&assets, &disk, contenders, &commands, &scratch) {
            Err(error) if start < STARTS => eprintln!("bench: start {start} of {STARTS} of the nested host: {error}"),
            result => return Ok(RowResult { row: row.clone(), runs: result? }),
        }
    }
    Err(Error::new("the nested host was not started"))
}

/// An initrd whose first program says that it is up.
fn first_program() -> Result<Vec<u8>> {
    let mut archive = cpio::Archive::default();
    ["bin", "dev"].into_iter().for_each(|dir| archive.dir(dir));
    // The kernel opens it for the first program.
    archive.char_device("dev/console", 5, 1);
    archive.file("bin/busybox", true, &std::fs::read(BUSYBOX).context(BUSYBOX)?);
    archive.file("init", true, format!("#!/bin/busybox sh\necho {UP}\nexec /bin/busybox reboot -f\n").as_bytes());
    Ok(archive.finish())
}

/// What the nested host does: a round to warm up, then those that count, and a line for each run.
fn script(commands: &[Result<String>], rounds: u32) -> String {
    let mut text = String::from("exec 3<>/dev/ttyS1\nstty -F /dev/ttyS1 raw -echo\ncd $TMPDIR\n");
    for round in 0..=rounds {
        for (number, command) in commands.iter().enumerate() {
            let Ok(command) = command else { continue };
            text += &format!(
                "timeout --kill-after=5 200 $here/floor until {UP} {command} >out 2>err </dev/null\n\
                 printf '@bench %s %s %s %s\\n' {round} {number} \"$(cat out)\" \"$(head -n 1 err)\" >&3\n"
            );
        }
    }
    text + "printf '@bench over\\n' >&3\n"
}

fn attempt(
    assets: &Assets,
    disk: &Path,
    contenders: &[Contender],
    commands: &[Result<String>],
    scratch: &Scratch,
) -> Result<Runs> {
    let console = scratch.path().join("console.log");
    let machine = qemu::Machine {
        assets,
        disk,
        guest_rootfs: &assets.rootfs,
        memory_mib: qemu::fitting(1).1,
        serial: Serial::Pipes { console: &console },
        counts_instructions: true,
    };
    let mut session = Session::start(&mut machine.command(), scratch.path().join("errors"))?;
    let mut runs: Runs = Vec::new();
    for (contender, command) in contenders.iter().zip(commands) {
        let nothing = command.as_ref().map(|_| Vec::new()).map_err(|why| Error::new(why.to_string()));
        runs.push((contender.label.clone(), nothing));
    }
    loop {
        let line = session.expect("@bench ", LIMIT)?;
        if line == "over" {
            return Ok(runs);
        }
        take(&line, &mut runs);
        eprintln!("bench: in the nested host: {line}");
    }
}

/// `ROUND NUMBER end ns=N`, or `ROUND NUMBER` and what went wrong.
fn take(line: &str, runs: &mut Runs) {
    let mut words = line.splitn(3, ' ');
    let mut number = || words.next().and_then(|word| word.parse::<usize>().ok());
    let (Some(round), Some(contender)) = (number(), number()) else { return };
    let told = words.next().unwrap_or_default().trim();
    let Some((_, samples)) = runs.get_mut(contender) else { return };
    match (told.strip_prefix("end ns=").and_then(|text| text.trim().parse::<f64>().ok()), &mut *samples) {
        (Some(figure), Ok(kept)) if round > 0 => kept.push(Sample::of(figure)),
        (None, Ok(_)) => *samples = Err(Error::new(format!("its guest does not come up: {told}"))),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_the_rounds_that_count_are_kept_and_a_failure_decides() {
        let mut runs: Runs = vec![("a".into(), Ok(Vec::new())), ("b".into(), Ok(Vec::new()))];
        for line in ["0 0 end ns=9", "0 1 end ns=9", "1 0 end ns=7", "1 1 floor: the command ended", "2 1 end ns=3"] {
            take(line, &mut runs);
        }
        assert_eq!(runs[0].1.as_ref().unwrap(), &[Sample::of(7.0)]);
        assert!(runs[1].1.as_ref().unwrap_err().to_string().contains("floor: the command ended"));
    }

    #[test]
    fn the_script_runs_each_that_has_a_command_in_each_round() {
        let text = script(&[Ok("/run/vmcell/0-program --x".into()), Err(Error::new("no"))], 2);
        assert_eq!(text.matches("0-program --x").count(), 3);
        assert!(text.ends_with("'@bench over\\n' >&3\n"), "{text}");
    }
}
