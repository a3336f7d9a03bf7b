//! WebSockets on streams of HTTP/2 by Debian's Chromium, with TLS.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::certificates::Kept;
use super::routes::{Backend, Refusal, Routes};
use super::store::Store;
use super::websocket::confirmation;
use super::{Edge, EdgeLimits, EdgeSettings};
use crate::chromium_test::Browser;

const NAME: &str = "one.example";
/// Says text, and bytes in an order that the app turns around; closes one WebSocket itself and has the app close the other.
const PAGE: &str = r"<!doctype html><title>chat</title><script>
const said = { one: [], other: [] }, SIZE = 300000;
function open(list) {
    const socket = new WebSocket(`wss://${location.host}/chat?a=1`, ['none', 'chat']);
    socket.binaryType = 'arraybuffer';
    socket.onclose = (event) => list.push(event.code, event.reason, event.wasClean);
    return socket;
}
const one = open(said.one), other = open(said.other);
one.onopen = () => one.send('grüße');
one.onmessage = ({ data }) => {
    if (typeof data === 'string') {
        said.one.push(data, one.protocol);
        one.send(Uint8Array.from({ length: SIZE }, (_, at) => at % 251));
        return;
    }
    const bytes = new Uint8Array(data);
    said.one.push(bytes.length, bytes.every((byte, at) => byte === (SIZE - 1 - at) % 251));
    one.close(4001, 'bye');
};
other.onopen = () => other.send('close');
</script>";

/// Shows the page, and speaks WebSockets: text in capitals, bytes turned around.
struct Chat {
    heads: Arc<Mutex<Vec<String>>>,
    /// What browsers closed with.
    closed: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Routes for Chat {
    fn connect(&self, _: &str) -> Result<Backend, Refusal> {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let (heads, closed) = (Arc::clone(&self.heads), Arc::clone(&self.closed));
        std::thread::spawn(move || {
            let (mut head, mut byte) = (String::new(), [0]);
            while !head.ends_with("\r\n\r\n") {
                theirs.read_exact(&mut byte)?;
                head.push(char::from(byte[0]));
            }
            heads.lock().unwrap().push(head.clone());
            let Some(key) = head.lines().find_map(|line| line.strip_prefix("sec-websocket-key: ")) else {
                return write!(
                    theirs,
                    "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\n\r\n{PAGE}",
                    PAGE.len()
                );
            };
            let fields = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Protocol: chat";
            let accept = confirmation(key);
            write!(theirs, "HTTP/1.1 101 Switching\r\n{fields}\r\nSec-WebSocket-Accept: {accept}\r\n\r\n")?;
            chat(&mut theirs, &closed)
        });
        Ok(Backend { again: None, ..ours.into() })
    }

    fn names(&self) -> Vec<String> {
        vec![NAME.to_owned()]
    }
}

fn chat(stream: &mut UnixStream, closed: &Mutex<Vec<Vec<u8>>>) -> io::Result<()> {
    let mut has_closed = false;
    loop {
        match message(stream)? {
            (1, text) if text == b"close" => {
                has_closed = true;
                say(stream, 8, &[&4002_u16.to_be_bytes()[..], b"done"].concat())?;
            }
            (1, text) => say(stream, 1, String::from_utf8(text).unwrap().to_uppercase().as_bytes())?,
            (2, bytes) => say(stream, 2, &bytes.into_iter().rev().collect::<Vec<_>>())?,
            (8, why) => {
                if !has_closed {
                    say(stream, 8, &why)?;
                }
                closed.lock().unwrap().push(why);
                return Ok(());
            }
            (kind, _) => panic!("a message of the kind {kind}"),
        }
    }
}

/// A whole message, and its kind (RFC 6455, section 5.2).
fn message(stream: &mut UnixStream) -> io::Result<(u8, Vec<u8>)> {
    let (mut kind, mut all) = (0, Vec::new());
    loop {
        let mut head = [0; 2];
        stream.read_exact(&mut head)?;
        assert!(head[0] & 0x70 == 0 && head[1] & 0x80 != 0, "{head:?}");
        let more = [0, 2, 8][usize::from(head[1] & 0x7f).saturating_sub(125)];
        let mut long = [0; 8];
        stream.read_exact(&mut long[8 - more..])?;
        let len = if more == 0 { u64::from(head[1] & 0x7f) } else { u64::from_be_bytes(long) };
        let (mut mask, mut bytes) = ([0; 4], vec![0; usize::try_from(len).unwrap()]);
        stream.read_exact(&mut mask)?;
        stream.read_exact(&mut bytes)?;
        all.extend(bytes.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        kind |= head[0] & 0xf;
        if head[0] & 0x80 != 0 {
            return Ok((kind, all));
        }
    }
}

fn say(stream: &mut UnixStream, kind: u8, bytes: &[u8]) -> io::Result<()> {
    let mut frame = vec![0x80 | kind];
    match u8::try_from(bytes.len()) {
        Ok(len) if len < 126 => frame.push(len),
        _ => {
            frame.push(127);
            frame.extend((bytes.len() as u64).to_be_bytes());
        }
    }
    stream.write_all(&[&frame, bytes].concat())
}

#[test]
#[ignore = "needs Debian's chromium-driver: cargo xtask test --check page"]
fn a_browser_speaks_by_websockets_on_streams_of_the_connection_that_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).unwrap();
    let kept = Kept { chain: made.cert.pem(), key: made.signing_key.serialize_pem() };
    Store::open(folder.path()).unwrap().keep_certificate(NAME, &kept).unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let settings = EdgeSettings {
        http: Vec::new(),
        https: vec![listener],
        https_port: port,
        folder: folder.path().to_owned(),
        authority: None,
        limits: EdgeLimits::default(),
    };
    let (heads, closed) = (Arc::default(), Arc::default());
    let routes = Chat { heads: Arc::clone(&heads), closed: Arc::clone(&closed) };
    let _edge = Edge::start(settings, Arc::new(routes), Arc::new(|_| {})).unwrap();
    let log = folder.path().join("net.json");
    let arguments = [
        "--ignore-certificate-errors".to_owned(),
        format!("--host-resolver-rules=MAP {NAME} 127.0.0.1"),
        format!("--log-net-log={}", log.display()),
    ];
    let browser = Browser::open(&format!("https://{NAME}:{port}/"), &arguments);
    browser.until("said.one.length === 7 && said.other.length === 3");
    let said = browser.value("said");
    assert_eq!(said["one"], json!(["GRÜSSE", "chat", 300_000, true, 4001, "bye", true]));
    assert_eq!(said["other"], json!([4002, "done", true]));
    assert_eq!(browser.value("performance.getEntriesByType('navigation')[0].nextHopProtocol"), "h2");
    let closed: Vec<Vec<u8>> = closed.lock().unwrap().clone();
    assert!(closed.contains(&[&4001_u16.to_be_bytes()[..], b"bye"].concat()), "{closed:?}");
    let heads: Vec<String> = heads.lock().unwrap().clone();
    let chats: Vec<_> = heads.iter().filter(|head| head.starts_with("GET /chat?a=1 HTTP/1.1\r\n")).collect();
    let wanted = [format!("origin: https://{NAME}:{port}\r\n"), "sec-websocket-version: 13\r\n".to_owned()];
    assert!(chats.len() == 2 && chats.iter().all(|head| wanted.iter().all(|line| head.contains(line))), "{heads:?}");
    // The browser writes down what it has sent, and ends that when it ends.
    drop(browser);
    let log: Value = serde_json::from_slice(&std::fs::read(&log).unwrap()).unwrap();
    // The connections of HTTP/2 on which a head with this line was sent.
    let sent = |line: &str| -> Vec<&Value> {
        let has = |event: &&Value| {
            let params = &event["params"];
            params["stream_id"].is_number()
                && params["headers"].as_array().is_some_and(|all| all.contains(&json!(line)))
        };
        log["events"].as_array().unwrap().iter().filter(has).map(|event| &event["source"]["id"]).collect()
    };
    let (pages, websockets) = (sent(":path: /"), sent(":protocol: websocket"));
    assert!(pages.len() == 1 && websockets == [pages[0]; 2], "{pages:?} {websockets:?}");
}
