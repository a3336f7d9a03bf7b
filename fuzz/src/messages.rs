//! Any bytes as what the first program of a guest says to the platform: each is a message that is written and read again as the same, or is refused.

use std::io::ErrorKind;
use std::time::Duration;

use crate::alloc::Meter;
use crate::clock::within;
use crate::input::Script;
use crate::platform_guest::{Ended, MOST_TEXT, Message};

const PATIENCE: Duration = Duration::from_secs(2);
/// What reading may hold, beside so many times as much as the stream has.
const MOST_HELD: i64 = 16 << 10;
const TIMES: i64 = 64;

/// Runs one input: a stream; or messages of these kinds with this content, and right lengths.
pub fn run(bytes: &[u8]) {
    match bytes.split_first() {
        Some((0, stream)) => read(stream),
        Some((_, rest)) => {
            let pieces = rest.split(|byte| *byte == b'\n').filter(|piece| !piece.is_empty());
            let stream: Vec<u8> =
                pieces.flat_map(|piece| [&(piece.len() as u32).to_le_bytes(), piece].concat()).collect();
            read(&stream);
        }
        None => {}
    }
}

fn read(mut stream: &[u8]) {
    let mut meter = Meter::new(MOST_HELD + TIMES * stream.len() as i64);
    loop {
        let before = stream.len();
        match within(PATIENCE, || meter.run(|| Message::read(&mut stream))) {
            Ok(None) => return assert_eq!(before, 0, "it ends before the stream does"),
            Ok(Some(message)) => {
                assert!(stream.len() < before);
                check(&message);
                meter.run(|| drop(message));
            }
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof), "{error:?}");
                let text = error.to_string();
                assert!(text.chars().count() <= MOST_TEXT && !text.contains(char::is_control), "{text:?}");
                return;
            }
        }
    }
}

fn check(message: &Message) {
    if let Message::Failed(why) = message {
        assert!(why.chars().count() <= MOST_TEXT && !why.contains(char::is_control), "{why:?}");
    }
    let mut written = Vec::new();
    message.write(&mut written).expect("what was read can be written");
    assert_eq!(Message::read(&mut written.as_slice()).expect("what was written can be read").as_ref(), Some(message));
}

/// Inputs that reach far.
///
/// # Panics
/// If a message cannot be written.
#[must_use]
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let mut all = vec![0];
    let failed = Message::Failed("no\u{1b}[2J\u{202e}such file".to_owned());
    for message in
        [Message::Ready, failed, Message::Output(vec![7; 9]), Message::Connected, Message::Ended(Ended::Killed(9))]
    {
        message.write(&mut all).expect("memory");
    }
    let piece = |kind: u8, content: &str| Script::new().bytes(&[1, kind]).bytes(content.as_bytes()).bytes(b"\n").done();
    vec![
        ("stream", all),
        ("long", vec![0, 0xff, 0xff, 0x0f, 0, 8]),
        (
            "settings",
            piece(
                1,
                r#"{"root":"root","command":["/bin/true"],"volumes":[{"serial":"d","path":"/d"}],"nameservers":["fd00::3"]}"#,
            ),
        ),
        ("exec", piece(7, r#"{"command":["sh"],"terminal":{"rows":24,"columns":80}}"#)),
        ("deep", piece(6, &"[".repeat(200))),
    ]
}
