//! What the host and `cell-init`, the first program of each guest, tell each other: the settings of a guest, and the messages on the
//! ports of its vsock.
//!
//! | Port | Who begins | What is said |
//! |---|---|---|
//! | [`CONTROL_PORT`] | the host | [`Message::Start`] with the settings, once a boot; [`Message::Attach`] on later connections. The guest answers [`Message::Ready`] once the command runs, or [`Message::Failed`], and [`Message::Ended`] when the command ends; then it turns itself off. The host may send [`Message::Stop`], and [`Message::Clock`] now and then. The last connection is the one that is told. |
//! | [`EXEC_PORT`] | the host | [`Message::Exec`], then [`Message::Input`], [`Message::InputEnd`], [`Message::Resize`] and [`Message::Signal`]. The guest sends [`Message::Output`] and [`Message::ErrorOutput`], and [`Message::Ended`] or [`Message::Failed`] last. A connection that closes early kills the command. |
//! | [`FORWARD_PORT`] | the host | [`Message::Forward`]. The guest answers [`Message::Connected`] or [`Message::Failed`]; after `Connected`, both send the bytes of the TCP connection as they are, with their half closes. |
//!
//! A message is its length (4 bytes, little-endian, of what follows), a byte that says which it is, and its content: bytes as they are, or
//! JSON. All of it is an enemy's to the host: no message is longer than [`MOST_BYTES`], and memory is taken as the bytes come.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::IpAddr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Where the host tells the guest what to run, and hears of its end.
pub const CONTROL_PORT: u32 = 101;
/// Where commands are run beside the main one.
pub const EXEC_PORT: u32 = 102;
/// Where TCP connections to ports of the guest's loopback are made.
pub const FORWARD_PORT: u32 = 103;
/// The longest message, in bytes.
pub const MOST_BYTES: usize = 1 << 20;
/// The most characters of a text by which the guest says why something failed.
pub const MOST_TEXT: usize = 500;
/// So many bytes of a stream are put into a message at most.
pub const MOST_PIECE: usize = 32 << 10;

/// What a guest has to do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The serial number of the disk with the root file system, an EROFS image. What the guest writes to its root goes to memory.
    pub root: String,
    /// The program and its arguments. A program without a slash is looked up in `PATH` of `env`.
    pub command: Vec<String>,
    /// The environment, beside `HOME`, `PATH` and `HOSTNAME`, which have values of their own if these are not given.
    pub env: BTreeMap<String, String>,
    /// Secrets: part of the environment, never printed.
    pub secrets: BTreeMap<String, String>,
    /// An absolute path; `/` if there is none.
    pub working_dir: Option<String>,
    /// A name or a number, and perhaps a group behind a colon; root if there is none.
    pub user: Option<String>,
    /// The guest's name.
    pub hostname: Option<String>,
    /// What is mounted beside the root.
    pub volumes: Vec<Volume>,
    /// The name servers, for `/etc/resolv.conf`. If there are none, the file of the image stays.
    pub nameservers: Vec<IpAddr>,
    /// The domain that names without a dot are looked up in.
    pub search: Option<String>,
    /// The number of the signal that ends the command; SIGTERM if there is none.
    pub stop_signal: Option<i32>,
    /// Waits a few seconds at most for an address on the network, by a router advertisement, before the command begins.
    pub await_address: bool,
    /// The TCP ports of its services. If one passes checks over the loopback, and others cannot reach it by IPv6, the guest says so.
    pub services: Vec<u16>,
    /// The time since 1970 in milliseconds, for the guest's clock; the clock stays as it is if there is none.
    pub time_millis: Option<u64>,
}

/// A disk with an ext4 file system, which is grown if the disk has grown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Volume {
    /// The disk's serial number.
    pub serial: String,
    /// Where it is mounted: an absolute path. The folder is made if there is none.
    pub path: String,
    /// Mounted without writing.
    #[serde(default)]
    pub read_only: bool,
    /// The host has just made the disk, and nobody has written to it: makes a file system if there is no ext4. Without it, that is done
    /// only if the first mebibyte is zeros, which a new encrypted volume is not. Anything else that is no ext4 is refused, and kept.
    #[serde(default)]
    pub is_new: bool,
}

/// A command to run beside the main one. It has the main command's environment, secrets included.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Exec {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Added to the main command's environment.
    pub env: BTreeMap<String, String>,
    /// The main command's if there is none.
    pub working_dir: Option<String>,
    /// The main command's if there is none.
    pub user: Option<String>,
    /// Runs it in a terminal of this size; all output is then [`Message::Output`].
    pub terminal: Option<Size>,
}

/// The size of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Size {
    /// How many lines.
    pub rows: u16,
    /// How many characters a line.
    pub columns: u16,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// With this exit status.
    Exited(i32),
    /// By this signal.
    Killed(i32),
}

impl Ended {
    /// The exit status that a shell would show: 128 and the signal if one killed it.
    #[must_use]
    pub fn code(self) -> i32 {
        match self {
            Self::Exited(status) => status,
            Self::Killed(signal) => signal.saturating_add(128),
        }
    }
}

/// The end of a command that the host asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stop {
    /// After so long it is killed, and the guest turns itself off.
    pub grace_millis: u64,
}

/// One message on any of the ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// To the guest: begin.
    Start(Box<Settings>),
    /// To the guest: this connection is the one that is told from now on.
    Attach,
    /// To the guest: end the command.
    Stop(Stop),
    /// From the guest: the command runs.
    Ready,
    /// From the guest: how the command ended.
    Ended(Ended),
    /// From the guest: what was asked for cannot be done, and why. What is read is a line of at most [`MOST_TEXT`] characters.
    Failed(String),
    /// To the guest: run this.
    Exec(Box<Exec>),
    /// To the guest: input of the command.
    Input(Vec<u8>),
    /// To the guest: the input ends.
    InputEnd,
    /// From the guest: output of the command.
    Output(Vec<u8>),
    /// From the guest: error output of the command.
    ErrorOutput(Vec<u8>),
    /// To the guest: the terminal has another size.
    Resize(Size),
    /// To the guest: a signal, by its number, for the command.
    Signal(i32),
    /// To the guest: connect to this TCP port of the loopback.
    Forward(u16),
    /// From the guest: it is connected.
    Connected,
    /// To the guest: the time since 1970 in milliseconds, for its clock.
    Clock(u64),
}

impl Message {
    /// Reads one message; none if the stream ends before it.
    ///
    /// # Errors
    /// Those of the stream; [`io::ErrorKind::InvalidData`] or [`io::ErrorKind::UnexpectedEof`] if what comes is no message, is longer than
    /// [`MOST_BYTES`], or is cut off.
    pub fn read(from: &mut impl Read) -> io::Result<Option<Self>> {
        let mut first = [0; 1];
        loop {
            match from.read(&mut first) {
                Ok(0) => return Ok(None),
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let mut rest = [0; 3];
        from.read_exact(&mut rest)?;
        let len = u32::from_le_bytes([first[0], rest[0], rest[1], rest[2]]);
        let len = usize::try_from(len).ok().filter(|len| (1..=MOST_BYTES).contains(len));
        let len = len.ok_or_else(|| wrong(format!("a message has from 1 to {MOST_BYTES} bytes")))?;
        let mut bytes = Vec::new();
        // Memory grows as bytes come, not as the length claims.
        if from.take(len as u64).read_to_end(&mut bytes)? != len {
            return Err(wrong(format!("a message of {len} bytes is cut off")));
        }
        let content = bytes.split_off(1);
        Self::decode(bytes.first().copied().unwrap_or(0), content).map(Some)
    }

    /// Writes the message.
    ///
    /// # Errors
    /// Those of the stream; [`io::ErrorKind::InvalidData`] if the message is longer than [`MOST_BYTES`].
    pub fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let (kind, content) = self.encode()?;
        let len = content.len().saturating_add(1);
        let fits = u32::try_from(len).ok().filter(|_| len <= MOST_BYTES);
        let fits =
            fits.ok_or_else(|| wrong(format!("a message of {len} bytes is too long; allowed are {MOST_BYTES}")))?;
        let mut bytes = fits.to_le_bytes().to_vec();
        bytes.push(kind);
        bytes.extend(content);
        to.write_all(&bytes)?;
        to.flush()
    }

    fn encode(&self) -> io::Result<(u8, Vec<u8>)> {
        Ok(match self {
            Self::Start(settings) => (1, json(settings)?),
            Self::Attach => (2, Vec::new()),
            Self::Stop(stop) => (3, json(stop)?),
            Self::Ready => (4, Vec::new()),
            Self::Ended(ended) => (5, json(ended)?),
            Self::Failed(why) => (6, json(why)?),
            Self::Exec(exec) => (7, json(exec)?),
            Self::Input(bytes) => (8, bytes.clone()),
            Self::InputEnd => (9, Vec::new()),
            Self::Output(bytes) => (10, bytes.clone()),
            Self::ErrorOutput(bytes) => (11, bytes.clone()),
            Self::Resize(size) => (12, json(size)?),
            Self::Signal(number) => (13, json(number)?),
            Self::Forward(port) => (14, json(port)?),
            Self::Connected => (15, Vec::new()),
            Self::Clock(millis) => (16, json(millis)?),
        })
    }

    fn decode(kind: u8, content: Vec<u8>) -> io::Result<Self> {
        let bare = |message: Self| {
            let len = content.len();
            if len == 0 {
                Ok(message)
            } else {
                Err(wrong(format!("message {kind} has no content, and came with {len} bytes")))
            }
        };
        Ok(match kind {
            1 => Self::Start(parsed(kind, &content)?),
            2 => bare(Self::Attach)?,
            3 => Self::Stop(parsed(kind, &content)?),
            4 => bare(Self::Ready)?,
            5 => Self::Ended(parsed(kind, &content)?),
            6 => Self::Failed(plain(&parsed::<String>(kind, &content)?)),
            7 => Self::Exec(parsed(kind, &content)?),
            8 => Self::Input(content),
            9 => bare(Self::InputEnd)?,
            10 => Self::Output(content),
            11 => Self::ErrorOutput(content),
            12 => Self::Resize(parsed(kind, &content)?),
            13 => Self::Signal(parsed(kind, &content)?),
            14 => Self::Forward(parsed(kind, &content)?),
            15 => bare(Self::Connected)?,
            16 => Self::Clock(parsed(kind, &content)?),
            _ => return Err(wrong(format!("there is no message {kind}; allowed are 1 to 16"))),
        })
    }
}

fn json(value: &impl Serialize) -> io::Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| wrong(error.to_string()))
}

fn parsed<T: DeserializeOwned>(kind: u8, content: &[u8]) -> io::Result<T> {
    serde_json::from_slice(content).map_err(|error| wrong(plain(&format!("the content of message {kind}: {error}"))))
}

/// What may be shown of a text that a guest made: no more than [`MOST_TEXT`] characters of one line, and none that steers a terminal or
/// turns the order of the others about.
fn plain(text: &str) -> String {
    let turns = |c| matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().take(MOST_TEXT).map(|c| if c.is_control() || turns(c) { '\u{fffd}' } else { c }).collect()
}

fn wrong(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_message() -> Vec<Message> {
        let settings = Settings {
            root: "root".into(),
            command: vec!["/bin/true".into()],
            secrets: [("KEY".to_owned(), "x".to_owned())].into(),
            volumes: vec![Volume { serial: "data".into(), path: "/data".into(), read_only: false, is_new: true }],
            nameservers: vec!["fd00::3".parse().unwrap()],
            ..Settings::default()
        };
        let exec = Exec { terminal: Some(Size { rows: 24, columns: 80 }), ..Exec::default() };
        vec![
            Message::Start(Box::new(settings)),
            Message::Attach,
            Message::Stop(Stop { grace_millis: 5000 }),
            Message::Ready,
            Message::Ended(Ended::Killed(9)),
            Message::Failed("why".into()),
            Message::Exec(Box::new(exec)),
            Message::Input(vec![1, 2, 3]),
            Message::InputEnd,
            Message::Output(Vec::new()),
            Message::ErrorOutput(vec![0; MOST_PIECE]),
            Message::Resize(Size { rows: 1, columns: 2 }),
            Message::Signal(15),
            Message::Forward(65535),
            Message::Connected,
            Message::Clock(1_700_000_000_000),
        ]
    }

    #[test]
    fn every_message_arrives_as_it_was_sent() {
        let mut bytes = Vec::new();
        every_message().iter().for_each(|message| message.write(&mut bytes).unwrap());
        let mut stream = bytes.as_slice();
        for message in every_message() {
            assert_eq!(Message::read(&mut stream).unwrap(), Some(message));
        }
        assert_eq!(Message::read(&mut stream).unwrap(), None);
    }

    #[test]
    fn a_message_that_is_cut_off_is_refused() {
        for message in every_message() {
            let mut bytes = Vec::new();
            message.write(&mut bytes).unwrap();
            for len in 1..bytes.len().min(64) {
                assert!(Message::read(&mut &bytes[..len]).is_err(), "{message:?} cut to {len}");
            }
        }
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_memory_is_taken() {
        let error = Message::read(&mut [0xff, 0xff, 0xff, 0xff, 8].as_slice()).unwrap_err();
        assert_eq!(error.to_string(), "a message has from 1 to 1048576 bytes");
        assert!(Message::read(&mut [0; 4].as_slice()).is_err());
        let error = Message::Input(vec![0; MOST_BYTES]).write(&mut Vec::new()).unwrap_err();
        assert_eq!(error.to_string(), "a message of 1048577 bytes is too long; allowed are 1048576");
    }

    #[test]
    fn what_is_no_message_is_refused_by_name() {
        let read = |bytes: &[u8]| Message::read(&mut &bytes[..]).unwrap_err().to_string();
        assert_eq!(read(&[1, 0, 0, 0, 99]), "there is no message 99; allowed are 1 to 16");
        assert_eq!(read(&[2, 0, 0, 0, 2, 0]), "message 2 has no content, and came with 1 bytes");
        assert!(read(b"\x08\0\0\0\x0e\"80\" \n \n").starts_with("the content of message 14: invalid type"));
    }

    #[test]
    fn a_signal_shows_as_a_shell_shows_it() {
        assert_eq!([Ended::Exited(3).code(), Ended::Killed(15).code()], [3, 143]);
    }
    #[test]
    fn what_a_guest_says_of_a_failure_is_a_short_line_without_control_characters() {
        let read = |why: &str| {
            let mut bytes = Vec::new();
            Message::Failed(why.to_owned()).write(&mut bytes).unwrap();
            match Message::read(&mut bytes.as_slice()).unwrap() {
                Some(Message::Failed(why)) => why,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(read("no such file: /bin/\u{e9}"), "no such file: /bin/\u{e9}");
        let steered = read("a\u{1b}[2Jb\nc\r\u{9b}d\u{202e}e");
        assert_eq!(steered, "a\u{fffd}[2Jb\u{fffd}c\u{fffd}\u{fffd}d\u{fffd}e");
        assert_eq!(read(&"\u{e9}".repeat(400_000)).chars().count(), MOST_TEXT);
        // An error that shows what came is cut as well.
        let mut bytes = 100_001_u32.to_le_bytes().to_vec();
        bytes.push(5);
        bytes.extend(format!("\"{}\"", "\\u001b".repeat(16_666)).bytes().chain(*b"  "));
        let error = Message::read(&mut &bytes[..]).unwrap_err().to_string();
        assert!(error.chars().count() <= MOST_TEXT && !error.contains('\u{1b}'), "{error}");
    }
}
