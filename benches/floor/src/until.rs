//! How long a program takes until it says a word.

use std::io::{self, Read};
use std::process::{Command, Stdio};
use std::time::Instant;

pub fn run(words: &[String]) -> io::Result<String> {
    let [word, program, arguments @ ..] = words else {
        return Err(io::Error::other("a word and a command are missing"));
    };
    let began = Instant::now();
    let mut child = Command::new(program).args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut stdout = child.stdout.take().ok_or_else(|| io::Error::other("the command has no output"))?;
    let (mut text, mut room) = (Vec::new(), [0; 4096]);
    let took = loop {
        let len = stdout.read(&mut room)?;
        text.extend_from_slice(&room[..len]);
        if text.windows(word.len()).any(|piece| piece == word.as_bytes()) {
            break Ok(began.elapsed());
        }
        if len == 0 {
            break Err(io::Error::other(format!("the command ended without `{word}`")));
        }
    };
    // It may have ended by itself.
    let _ = child.kill();
    child.wait()?;
    took.map(|took| format!("end ns={}", took.as_nanos()))
}
