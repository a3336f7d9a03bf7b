//! A tiny guest that counts what is typed.

use std::io::{Read, Write};

use vmcell::testing::TinyGuest;
use vmcell::{Console, ConsoleReader, ConsoleWriter, MemoryBacking, MemoryConfig, Snapshot, Vm, VmBuilder};

use super::{Kernel, tiny};

/// Counts the bytes that are typed, in memory, and answers each by the letter for the count: `a`, `b`, `c`.
pub fn counter() -> TinyGuest {
    TinyGuest::new([
        0x66, 0xba, 0xfd, 0x03, //                   mov dx, 0x3fd
        0xec, //                                     in al, dx
        0xa8, 0x01, //                               test al, 1
        0x74, 0xf7, //                               jz to the start
        0x66, 0xba, 0xf8, 0x03, //                   mov dx, 0x3f8
        0xec, //                                     in al, dx
        0xff, 0x04, 0x25, 0x00, 0x00, 0x20, 0x00, // inc dword [0x200000]
        0x8a, 0x04, 0x25, 0x00, 0x00, 0x20, 0x00, // mov al, [0x200000]
        0x04, 0x60, //                               add al, 'a' - 1
        0xee, //                                     out dx, al
        0xeb, 0xdf, //                               jmp to the start
    ])
}

pub struct Counts {
    pub vm: Vm,
    pub output: ConsoleReader,
    pub input: ConsoleWriter,
}

impl Counts {
    pub fn start(builder: VmBuilder) -> Self {
        let (console, output, input) = Console::pair().unwrap();
        let vm = builder.console(console).build().unwrap();
        vm.start().unwrap();
        Self { vm, output, input }
    }

    pub fn boot() -> Self {
        Self::boot_on(MemoryBacking::Memfd)
    }

    pub fn boot_on(backing: MemoryBacking) -> Self {
        Self::boot_with(backing, 0)
    }

    /// One with an initrd of so many bytes in its memory, none of which is zero.
    pub fn boot_with(backing: MemoryBacking, bytes: usize) -> Self {
        let kernel = Kernel::new(&counter());
        let mut boot = kernel.boot();
        let initrd = kernel.path.with_extension("initrd");
        if bytes > 0 {
            std::fs::write(&initrd, vec![7; bytes]).unwrap();
            boot = boot.initrd(initrd);
        }
        Self::start(tiny(&kernel).boot(boot).memory(MemoryConfig::mib(16).backing(backing)))
    }

    pub fn fork(snapshot: &Snapshot) -> Self {
        Self::start(Vm::builder().fork_of(snapshot))
    }

    /// Types a byte; returns the answer.
    pub fn next(&mut self) -> char {
        self.input.write_all(b"x").unwrap();
        let mut answer = [0];
        self.output.read_exact(&mut answer).unwrap();
        char::from(answer[0])
    }
}
