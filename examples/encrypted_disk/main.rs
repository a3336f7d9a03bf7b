//! A VM whose disk is encrypted by a layer of this program's own: the crate knows nothing of it.
//!
//! `cargo run --release --example encrypted_disk -- vmlinuz disk.img --initrd initrd.img --cmdline console=ttyS0`
#![allow(clippy::print_stdout, reason = "a program talks to the person who runs it")]

mod cipher;

use std::fs::File;
use std::path::PathBuf;

use cipher::{Encrypted, ToyCipher};
use clap::Parser;
use vmcell::block::FileBackend;
use vmcell::{Boot, Console, Disk, Vm};

/// Boots a guest with an encrypted disk. An image of zeros will do: to the guest it looks like random bytes.
#[derive(Parser)]
struct Options {
    /// A bzImage or an ELF image
    kernel: PathBuf,
    /// The image that ciphertext is written to
    disk: PathBuf,
    #[arg(long)]
    initrd: Option<PathBuf>,
    #[arg(long, default_value = "console=ttyS0", allow_hyphen_values = true)]
    cmdline: String,
    #[arg(long, default_value_t = 0)]
    key: u64,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = Options::parse();
    let image = File::options().read(true).write(true).open(&options.disk)?;
    let layer = Encrypted::new(FileBackend::new(image)?, ToyCipher(options.key));
    let mut boot = Boot::linux(options.kernel).cmdline(options.cmdline);
    if let Some(initrd) = options.initrd {
        boot = boot.initrd(initrd);
    }
    let disk = Disk::backend(layer).never_blocks();
    let vm = Vm::builder().memory_mib(256).boot(boot).disk(disk).console(Console::stdio()).build()?;
    vm.start()?;
    println!("the guest ended: {:?}", vm.wait()?);
    Ok(())
}
