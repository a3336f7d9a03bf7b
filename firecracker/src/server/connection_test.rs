use super::*;

const NOW: Duration = Duration::ZERO;

/// A connection, its client, and a time to begin with.
fn connected() -> (Connection, UnixStream, Instant) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    theirs.set_nonblocking(true).unwrap();
    let now = Instant::now();
    (Connection::new(ours, now).unwrap(), theirs, now)
}

fn turn(connection: &mut Connection, now: Instant) -> Vec<String> {
    let mut served = Vec::new();
    connection.turn(true, now, 1000, &mut |request| {
        served.push(request.path);
        Response::done()
    });
    served
}

fn heard(client: &mut UnixStream) -> String {
    let mut bytes = vec![0; 65_536];
    let len = client.read(&mut bytes).unwrap_or(0);
    String::from_utf8_lossy(&bytes[..len]).into_owned()
}

#[test]
fn a_request_that_comes_byte_by_byte_is_served_once_it_is_whole() {
    let (mut connection, mut client, now) = connected();
    let text = b"GET /version HTTP/1.1\r\n\r\n";
    for (at, byte) in text.iter().enumerate() {
        client.write_all(&[*byte]).unwrap();
        let served = turn(&mut connection, now + NOW);
        assert_eq!(served.len(), usize::from(at == text.len() - 1));
    }
    assert!(heard(&mut client).starts_with("HTTP/1.1 204 "));
    assert!(connection.idle_since().is_some() && connection.deadline().is_none());
}

#[test]
fn requests_that_come_together_are_served_one_a_turn_in_their_order() {
    let (mut connection, mut client, now) = connected();
    client.write_all(b"GET /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n\r\nGET /c HTTP/1.1\r\n").unwrap();
    assert_eq!(turn(&mut connection, now), ["/a"]);
    assert!(connection.has_more());
    assert_eq!(turn(&mut connection, now), ["/b"]);
    assert_eq!(turn(&mut connection, now), [""; 0]);
    assert!(!connection.has_more() && connection.deadline().is_some());
    client.write_all(b"\r\n").unwrap();
    assert_eq!(turn(&mut connection, now), ["/c"]);
}

#[test]
fn a_client_that_says_no_more_is_answered_before_it_is_let_go() {
    let (mut connection, mut client, now) = connected();
    client.write_all(b"GET /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n\r\n").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let served: Vec<_> = (0..4).flat_map(|_| turn(&mut connection, now)).collect();
    assert_eq!((served, connection.is_gone()), (vec!["/a".to_owned(), "/b".to_owned()], true));
    assert_eq!(heard(&mut client).matches("204").count(), 2);
}

#[test]
fn a_client_that_waits_to_send_its_body_is_told_once() {
    let (mut connection, mut client, now) = connected();
    client.write_all(b"PUT /a HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n").unwrap();
    assert_eq!(turn(&mut connection, now), [""; 0]);
    assert_eq!(heard(&mut client), "HTTP/1.1 100 Continue\r\n\r\n");
    turn(&mut connection, now);
    assert_eq!(heard(&mut client), "");
    client.write_all(b"{}").unwrap();
    assert_eq!(turn(&mut connection, now), ["/a"]);
}

#[test]
fn a_client_that_is_refused_is_told_why_and_what_it_still_sends_is_thrown_away() {
    let (mut connection, mut client, now) = connected();
    client.write_all(b"PUT /a HTTP/1.1\r\nContent-Length: 1001\r\n\r\n").unwrap();
    assert_eq!(turn(&mut connection, now), [""; 0]);
    let told = heard(&mut client);
    assert!(told.starts_with("HTTP/1.1 400 ") && told.contains("Connection: close"), "{told}");
    client.write_all(&[b'x'; 4000]).unwrap();
    turn(&mut connection, now);
    assert!(!connection.is_gone());
    drop(client);
    (0..2).for_each(|_| drop(turn(&mut connection, now)));
    assert!(connection.is_gone());
}

#[test]
fn a_client_is_given_up_if_its_request_or_its_taking_an_answer_takes_too_long() {
    let (mut connection, mut client, now) = connected();
    client.write_all(b"GET /a").unwrap();
    turn(&mut connection, now);
    // More bytes are no more time.
    client.write_all(b"b").unwrap();
    turn(&mut connection, now + PATIENCE / 2);
    assert!(!connection.is_gone());
    turn(&mut connection, now + PATIENCE);
    assert!(connection.is_gone());

    let (mut connection, mut client, now) = connected();
    client.write_all(b"GET /a HTTP/1.1\r\n\r\n").unwrap();
    connection.turn(true, now, 1000, &mut |_| Response::json(crate::http::Status::Ok, "x".repeat(4 << 20)));
    assert!(!connection.is_gone() && connection.interest().1 == PollFlags::OUT);
    turn(&mut connection, now + PATIENCE);
    assert!(connection.is_gone());
}

#[test]
fn a_head_that_is_refused_has_an_answer_without_a_body() {
    for (method, has_body) in [("HEAD", false), ("GET", true)] {
        let (mut connection, mut client, now) = connected();
        client.write_all(format!("\r\n{method} / HTTP/1.1\r\nContent-Length: 1001\r\n\r\n").as_bytes()).unwrap();
        turn(&mut connection, now);
        let answer = heard(&mut client);
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.ends_with("\r\n\r\n") != has_body, "{answer}");
    }
}
