use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use vmcell_platform::guest::Message;
use vsock::VsockStream;

use crate::listening;

/// For a connection over the loopback.
const LIMIT: Duration = Duration::from_secs(5);

/// Makes the TCP connection that the host asks for, and passes on what comes, until both have ended. `services` are the ports that others may reach.
pub fn serve(mut host: VsockStream, services: &[u16]) {
    let port = match Message::read(&mut host) {
        Ok(Some(Message::Forward(port))) => port,
        Ok(None) => return,
        Ok(Some(_)) => return refuse(&mut host, "this port takes the number of a TCP port".to_owned()),
        Err(error) => return refuse(&mut host, error.to_string()),
    };
    match connect(port) {
        Ok(guest) => {
            listening::connected(port, services);
            if Message::Connected.write(&mut host).is_ok() {
                pass(host, guest);
            }
        }
        Err(error) => refuse(&mut host, format!("nothing answers at port {port} of the loopback: {error}")),
    }
}

fn refuse(host: &mut VsockStream, why: String) {
    // It may be gone.
    let _ = Message::Failed(why).write(host);
}

/// A program may listen on one of the two alone.
fn connect(port: u16) -> io::Result<TcpStream> {
    let at = |address| TcpStream::connect_timeout(&address, LIMIT);
    at(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
        .or_else(|first| at(SocketAddr::from((Ipv6Addr::LOCALHOST, port))).map_err(|_| first))
}

fn pass(host: VsockStream, guest: TcpStream) {
    let (Ok(mut from_host), Ok(mut to_guest)) = (host.try_clone(), guest.try_clone()) else { return };
    let (mut to_host, mut from_guest) = (host, guest);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            if io::copy(&mut from_host, &mut to_guest).is_err() {
                // The host is gone, or the program: the other direction is of no use either.
                let _ = to_guest.shutdown(Shutdown::Both);
            }
            let _ = to_guest.shutdown(Shutdown::Write);
        });
        if io::copy(&mut from_guest, &mut to_host).is_err() {
            let _ = to_host.shutdown(Shutdown::Both);
        }
        let _ = to_host.shutdown(Shutdown::Write);
    });
}
