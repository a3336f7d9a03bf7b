//! The host's half: a command goes to the agent in the guest, and what it prints and how it ends come back.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// The port of the guest on which the agent listens.
pub const PORT: u32 = 52;
/// The agent sends no longer frames.
const MOST: usize = 1 << 16;

/// Connects by the Unix socket of a VM's vsock. A program that has the VM itself calls `vm.vsock()?.connect_timeout(PORT, ..)` instead.
pub fn connect(path: &Path) -> io::Result<UnixStream> {
    let mut stream = UnixStream::connect(path)?;
    writeln!(stream, "CONNECT {PORT}")?;
    let mut answer = Vec::new();
    let mut byte = [0];
    // Byte by byte, since what follows belongs to the agent.
    while stream.read(&mut byte)? == 1 && byte != *b"\n" {
        answer.push(byte[0]);
    }
    if answer.starts_with(b"OK ") { Ok(stream) } else { Err(io::Error::other("no agent listens in the guest")) }
}

/// Runs a shell command in the guest, and returns its exit status: 0 to 255, or the number of the signal that ended it, negative.
pub fn run(mut agent: UnixStream, command: &str, out: &mut impl Write, err: &mut impl Write) -> io::Result<i32> {
    agent.write_all(command.as_bytes())?;
    agent.shutdown(Shutdown::Write)?;
    loop {
        let mut head = [0; 5];
        agent.read_exact(&mut head)?;
        let [kind, length @ ..] = head;
        let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
        // The guest is not to be trusted with the size of a buffer.
        let mut content = vec![0; length.min(MOST)];
        agent.read_exact(&mut content)?;
        match (kind, <[u8; 4]>::try_from(content.as_slice())) {
            (b'o', _) => out.write_all(&content)?,
            (b'e', _) => err.write_all(&content)?,
            (b'x', Ok(status)) => return Ok(i32::from_le_bytes(status)),
            _ => return Err(io::Error::other("the agent sends what no agent sends")),
        }
    }
}
