//! A guest that uses so much memory, says so, and then answers each byte that is typed.

use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use vmcell::testing::TinyGuest;
use vmcell::{Boot, Console, Error, ErrorKind, IoThread, MemoryBacking, MemoryConfig, Result, Snapshot, Vm, VmBuilder};

/// Where the memory begins that it uses: behind its own code.
const USED_FROM: u32 = 4 << 20;
const PAGE: u32 = 4096;
/// What a guest takes to answer is some microseconds; what is not there by then is lost.
const PATIENCE: Duration = Duration::from_secs(60);

/// Writes to each page of `used` bytes, prints `r`, and then answers each byte by the same.
fn code(used: u64) -> Vec<u8> {
    let pages = u32::try_from(used / u64::from(PAGE)).unwrap_or(0).max(1);
    let mut code = vec![0xbf]; //                                   mov edi, USED_FROM
    code.extend(USED_FROM.to_le_bytes());
    code.push(0xb9); //                                             mov ecx, pages
    code.extend(pages.to_le_bytes());
    code.extend([0x89, 0x3f]); //                              1:   mov [rdi], edi
    code.extend([0x48, 0x81, 0xc7, 0x00, 0x10, 0x00, 0x00]); //     add rdi, 4096
    code.extend([0xff, 0xc9, 0x75, 0xf3]); //                       dec ecx; jnz 1
    code.extend([0x66, 0xba, 0xf8, 0x03, 0xb0, b'r', 0xee]); //     mov dx, 0x3f8; mov al, 'r'; out dx, al
    code.extend([0x66, 0xba, 0xfd, 0x03, 0xec]); //            2:   mov dx, 0x3fd; in al, dx
    code.extend([0xa8, 0x01, 0x74, 0xf7]); //                       test al, 1; jz 2
    code.extend([0x66, 0xba, 0xf8, 0x03, 0xec, 0xee]); //           mov dx, 0x3f8; in al, dx; out dx, al
    code.extend([0xeb, 0xef]); //                                   jmp 2
    code
}

/// A VM, and when its guest printed something.
pub struct Guest {
    pub vm: Vm,
    printed: Receiver<Instant>,
}

impl Guest {
    /// Starts one with so much memory, of which it uses so much, and waits until it has.
    pub fn boot(mib: u64, used_mib: u64, backing: MemoryBacking) -> Result<Self> {
        let image = Image::write(used_mib << 20)?;
        let memory = MemoryConfig::mib(mib).backing(backing);
        let guest = Self::start(Vm::builder().memory(memory).boot(Boot::linux(&image.0)))?;
        guest.wait()?;
        Ok(guest)
    }

    /// Starts a fork that has something to answer.
    pub fn fork(snapshot: &Snapshot, io_thread: Option<&IoThread>) -> Result<Self> {
        let builder = Vm::builder().fork_of(snapshot);
        Self::start(io_thread.cloned().into_iter().fold(builder, VmBuilder::io_thread))
    }

    fn start(builder: VmBuilder) -> Result<Self> {
        let (tell, printed) = channel();
        let console = Console::callback(move |_| _ = tell.send(Instant::now()));
        let vm = builder.console(console).build()?;
        vm.write_console(b"x");
        vm.start()?;
        Ok(Self { vm, printed })
    }

    /// Waits until it prints, and says when that was.
    pub fn wait(&self) -> Result<Instant> {
        let silent = |_| Error::new(ErrorKind::Timeout, "a guest did not answer");
        self.printed.recv_timeout(PATIENCE).map_err(silent)
    }
}

/// The guest's image, for as long as it is needed.
struct Image(PathBuf);

impl Image {
    fn write(used: u64) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("vmcell-bench-snapshot-{}", std::process::id()));
        let failed = |e: io::Error| Error::new(ErrorKind::Host, "no guest").with_source(e);
        TinyGuest::new(code(used)).write_to(&path).map_err(failed)?;
        Ok(Self(path))
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
