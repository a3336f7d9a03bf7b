use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use super::*;

struct Bound {
    folder: tempfile::TempDir,
    server: Server,
}

impl Bound {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::bind(&folder.path().join("api"), 1000).unwrap();
        Self { folder, server }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("api")
    }

    fn connect(&self) -> UnixStream {
        UnixStream::connect(self.path()).unwrap()
    }

    fn turn(&mut self, now: Instant) {
        let ready = vec![true; self.server.connections.len() + 1];
        self.server.turn(&ready, now, &mut |_| Response::done());
    }
}

#[test]
fn a_path_with_something_at_it_is_refused_and_left_alone() {
    let bound = Bound::new();
    let refused = Server::bind(&bound.path(), 1000).err().unwrap();
    assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
    assert!(bound.path().exists());
}

#[test]
fn the_socket_is_removed_at_the_end_unless_another_one_is_in_its_place() {
    let bound = Bound::new();
    let (folder, path) = (bound.folder, bound.server.path.clone());
    drop(bound.server);
    assert!(!path.exists());
    let server = Server::bind(&path, 1000).unwrap();
    fs::remove_file(&path).unwrap();
    let _another = UnixListener::bind(&path).unwrap();
    drop(server);
    assert!(path.exists());
    drop(folder);
}

#[test]
fn a_connection_more_than_there_can_be_is_told_so_and_one_that_is_silent_makes_room() {
    let (mut bound, now) = (Bound::new(), Instant::now());
    let mut clients = Vec::new();
    for _ in 0..MOST {
        clients.push(bound.connect());
        bound.turn(now);
    }
    let mut more = bound.connect();
    bound.turn(now);
    let mut told = String::new();
    more.read_to_string(&mut told).unwrap();
    assert!(told.starts_with("HTTP/1.1 503 ") && told.contains("allowed are 256"), "{told}");
    // Some of them are in the midst of a request.
    clients.iter_mut().skip(1).for_each(|client| client.write_all(b"GET /").unwrap());
    bound.turn(now);
    let mut late = bound.connect();
    late.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    (0..2).for_each(|_| bound.turn(now + IDLE));
    late.read_exact(&mut [0; 12]).unwrap();
    assert_eq!(clients[0].read(&mut [0; 1]).unwrap(), 0, "it made room");
}
