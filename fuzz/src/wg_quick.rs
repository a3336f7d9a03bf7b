//! Any text as the file of a WireGuard interface: it is refused by its line, or what it says is written and read again as the same.

use std::time::Duration;

use vmcell::ErrorKind;
use vmcell::network::wireguard::Config;

use crate::alloc::Meter;
use crate::clock::within;
use crate::input::{Script, text_of};

const PATIENCE: Duration = Duration::from_secs(2);
/// What reading may hold, beside so many times as much as the text has.
const MOST_HELD: i64 = 256 << 10;
const TIMES: i64 = 64;

const KEY: &str = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=";
const PEER: &str = "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=";

const WORDS: &[&str] = &[
    "[Interface]\n",
    "[Peer]\n",
    "PrivateKey = ",
    KEY,
    "\n",
    "PublicKey=",
    PEER,
    "PresharedKey=",
    "ListenPort=",
    "51820",
    "Address=",
    "10.0.0.1/24",
    ",",
    "MTU=",
    "1420",
    "DNS=",
    "fd00::3",
    "internal",
    "AllowedIPs=",
    "::/0",
    "0.0.0.0/0",
    "Endpoint=",
    "[fd00::1]:7",
    "gw.example.com:7",
    "PersistentKeepalive=",
    "25",
    "off",
    "PostUp=",
    "#",
    " ",
    "=",
    "/",
    "6gDDRWKEm6Un2gbzwPl1aQhIjGnIEqaJ2AGOTDEwFhw=",
    "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=",
];

/// Runs one input: a text, or words.
pub fn run(bytes: &[u8]) {
    if let Some(text) = text_of(bytes, &format!("[Interface]\nPrivateKey={KEY}\n"), WORDS) {
        read(&text);
    }
}

fn read(text: &str) {
    let mut meter = Meter::new(MOST_HELD + TIMES * text.len() as i64);
    match within(PATIENCE, || meter.run(|| Config::parse(text))) {
        Ok(config) => {
            config.check().expect("what is read is allowed");
            let written = config.to_text();
            let again = Config::parse(&written).expect("what is written can be read");
            assert!(again == config, "it was read as another one: {written}");
            assert_eq!(again.to_text(), written, "what is written twice");
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Network, "{error:?}");
            let message = error.to_string();
            assert!(!message.contains(char::is_control), "a message of several lines: {message:?}");
            assert!(!message.contains(KEY) && message.len() < 500, "{message}");
        }
    }
}

/// Inputs that reach far.
///
/// # Panics
/// If a word is none of those known.
#[must_use]
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let text = |text: &str| Script::new().bytes(&[0]).bytes(text.as_bytes()).done();
    let words = |words: &[&str]| {
        let number = |word: &&str| WORDS.iter().position(|known| known == word).expect("it is known") as u8;
        Script::new().bytes(&[1]).bytes(&words.iter().map(number).collect::<Vec<_>>()).done()
    };
    let everything = format!(
        "[Interface]\nPrivateKey={KEY}\nListenPort=1\nAddress=10.0.0.1/24,fd00::1\nMTU=1420\nDNS=10.0.0.3,internal\n[Peer]\nPublicKey={PEER}\n\
         PresharedKey={KEY}\nAllowedIPs=::/0,0.0.0.0/0\nEndpoint=gw.example.com:7\nPersistentKeepalive=25\n"
    );
    vec![
        ("everything", text(&everything)),
        ("twice", text(&(everything.clone() + &everything))),
        ("command", text("[Interface]\nPostUp=reboot")),
        ("control", text("[Interface]\nAddress=\u{1b}[2J\t/8")),
        (
            "words",
            words(&[
                "[Peer]\n",
                "PublicKey=",
                PEER,
                "\n",
                "AllowedIPs=",
                "::/0",
                ",",
                "10.0.0.1/24",
                "\n",
                "Endpoint=",
                "[fd00::1]:7",
            ]),
        ),
        ("private-key", words(&["[Peer]\n", "PublicKey=", KEY, "\n", "[Peer]\n", "PublicKey=", KEY])),
        ("own-key", words(&["[Peer]\n", "PublicKey=", "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="])),
    ]
}
