//! `cell proxy`: a port of an app on this host's loopback.

use std::io::{self, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::ask::Connection;
use crate::api::Request;
use crate::fault::{Context, Fault, Result};

/// So many connections are carried at a time; more wait.
const MOST: usize = 128;

/// Carries connections until it is killed.
pub fn proxy(state: &Path, app: &str, ports: &str, json: bool) -> Result<u8> {
    let (local, port) = parse(ports)?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, local)).map_err(|error| {
        Fault::new(format!("127.0.0.1:{local}: {error}"))
            .next(format!("Choose another port, or any that is free: `cell proxy {app} 0:{port}`."))
    })?;
    let address = listener.local_addr().context("the listener")?;
    let line = if json {
        serde_json::json!({ "listening": address.to_string() }).to_string()
    } else {
        format!("{app}:{port} is at {address}")
    };
    let _ = writeln!(io::stdout(), "{line}");
    let carried = Arc::new(AtomicUsize::new(0));
    for client in listener.incoming().flatten() {
        while carried.load(Ordering::Relaxed) >= MOST {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        carried.fetch_add(1, Ordering::Relaxed);
        let (state, app, carried): (PathBuf, String, _) = (state.to_owned(), app.to_owned(), Arc::clone(&carried));
        std::thread::spawn(move || {
            if let Err(fault) = carry(&state, app, port, &client) {
                let _ = writeln!(io::stderr(), "cell: {fault}");
            }
            carried.fetch_sub(1, Ordering::Relaxed);
        });
    }
    Ok(0)
}

fn carry(state: &Path, app: String, port: u16, client: &TcpStream) -> Result<()> {
    let guest = Connection::open(state, &Request::Connect { app, port })?.stream()?;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _ = io::copy(&mut &*client, &mut &guest);
            let _ = guest.shutdown(Shutdown::Write);
        });
        back(&guest, client);
    });
    Ok(())
}

fn back(mut guest: &UnixStream, mut client: &TcpStream) {
    let broken = io::copy(&mut guest, &mut client).is_err();
    let _ = client.shutdown(if broken { Shutdown::Both } else { Shutdown::Write });
}

/// `PORT`, or `LOCAL:PORT`.
fn parse(ports: &str) -> Result<(u16, u16)> {
    let (local, port) = ports.split_once(':').unwrap_or((ports, ports));
    let number = |text: &str| text.parse::<u16>().ok();
    match (number(local), number(port)) {
        (Some(local), Some(port @ 1..)) => Ok((local, port)),
        _ => Err(Fault::new(format!(
            "{ports:?} is no port; allowed are PORT and LOCAL:PORT, with numbers to 65535, such as 8080:80"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn ports_are_one_number_or_two() {
        assert_eq!(parse("80"), Ok((80, 80)));
        assert_eq!(parse("0:80"), Ok((0, 80)));
        for wrong in ["", "x", "80:", "80:0", "65536", "1:2:3"] {
            assert!(parse(wrong).unwrap_err().message.contains("such as 8080:80"), "{wrong}");
        }
    }
}
