//! Says so if other apps cannot reach a service, though its checks pass: they come by IPv6, and the checks come by the loopback.

use std::collections::BTreeMap;
use std::fs;
use std::sync::{Mutex, PoisonError};

/// At the first connection, a program may still be about to listen at other addresses.
const LOOKED_AT: u32 = 2;
/// In the kernel's table of sockets, the loopback's address and the state of a socket that listens.
const LOOPBACK: &str = "00000000000000000000000001000000";
const LISTENS: &str = "0A";

/// How often a connection was made to each port.
static MADE: Mutex<BTreeMap<u16, u32>> = Mutex::new(BTreeMap::new());

/// A connection was made to this port. If it is one of a service, whoever reads the log is told once that others cannot do so.
pub fn connected(port: u16, services: &[u16]) {
    if !services.contains(&port) {
        return;
    }
    let times = {
        let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
        let times = made.entry(port).or_insert(0);
        *times = times.saturating_add(1);
        *times
    };
    if times == LOOKED_AT
        && let Ok(sockets) = fs::read_to_string("/proc/net/tcp6")
        && !is_open(&sockets, port)
    {
        eprintln!(
            "cell-init: port {port} takes connections by IPv4 or from this VM alone. Other apps come by IPv6, and do not reach it: have the command listen at [::]:{port}"
        );
    }
}

/// Does a socket listen at this port, at another address than the loopback's? Lines have a number, the socket's own address, the other side's, and a state.
fn is_open(sockets: &str, port: u16) -> bool {
    sockets.lines().skip(1).any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let own = words.get(1).and_then(|own| own.split_once(':'));
        let is_open = own.is_some_and(|(address, at)| address != LOOPBACK && u16::from_str_radix(at, 16) == Ok(port));
        is_open && words.get(3) == Some(&LISTENS)
    })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::is_open;

    /// Of this host's kernel: sockets that the test has made.
    #[test]
    fn only_a_socket_that_listens_beyond_the_loopback_counts() {
        let at = |address: &str| {
            let listener = TcpListener::bind(address).unwrap();
            let port = listener.local_addr().unwrap().port();
            (listener, port)
        };
        let (_open, open) = at("[::]:0");
        let (_loopback, loopback) = at("[::1]:0");
        let (_ipv4, ipv4) = at("0.0.0.0:0");
        let table = std::fs::read_to_string("/proc/net/tcp6").unwrap();
        assert!(is_open(&table, open));
        assert!(!is_open(&table, loopback), "{table}");
        assert!(!is_open(&table, ipv4));
        assert!(!is_open(&table.replace(" 0A ", " 01 "), open), "a connection does not listen");
        assert!(!is_open("", open) && !is_open("a heading\nbroken\n 0: x:y z 0A\n", open));
    }
}
