use super::*;

fn whole(text: &str) -> (Request, usize) {
    match parse(text.as_bytes(), 100) {
        Ok(Parsed::Whole(request, len)) => (request, len),
        other => panic!("{other:?} for {text:?}"),
    }
}

fn refused(text: &str) -> String {
    parse(text.as_bytes(), 100).unwrap_err().message().to_owned()
}

#[test]
fn a_request_has_its_method_path_and_body_and_leaves_what_is_behind_it() {
    let text = "PUT /boot-source HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\n{  }GET / HTTP/1.1\r\n\r\n";
    let (request, len) = whole(text);
    assert_eq!((request.method.name(), request.path.as_str()), ("PUT", "/boot-source"));
    assert_eq!((request.body.as_slice(), request.keeps_alive), (&b"{  }"[..], true));
    assert_eq!(&text[len..], "GET / HTTP/1.1\r\n\r\n");
}

#[test]
fn a_request_is_partial_until_its_last_byte_is_there() {
    let text = "PATCH /vm HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}";
    for len in 0..text.len() {
        assert_eq!(parse(&text.as_bytes()[..len], 100), Ok(Parsed::Partial { waits: false }), "{len}");
    }
    assert_eq!(whole(text).1, text.len());
}

#[test]
fn a_client_that_waits_to_go_on_is_seen_until_its_body_begins() {
    let head = "PUT /mmds HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n";
    assert_eq!(parse(head.as_bytes(), 100), Ok(Parsed::Partial { waits: true }));
    assert_eq!(parse(format!("{head}{{").as_bytes(), 100), Ok(Parsed::Partial { waits: false }));
    assert!(refused("GET / HTTP/1.1\r\nExpect: tea\r\n\r\n").contains("allowed is 100-continue"));
}

#[test]
fn a_connection_is_kept_as_the_version_and_the_header_say() {
    let keeps = |text: &str| whole(text).0.keeps_alive;
    assert!(keeps("GET / HTTP/1.1\r\n\r\n") && !keeps("GET / HTTP/1.0\r\n\r\n"));
    assert!(!keeps("GET / HTTP/1.1\r\nConnection: Keep-Alive, close\r\n\r\n"));
    assert!(keeps("GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n"));
}

#[test]
fn a_body_that_is_too_long_is_refused_before_it_comes() {
    let message = refused("PUT / HTTP/1.1\r\nContent-Length: 101\r\n\r\n");
    assert_eq!(message, "Request payload with size 101 is larger than the limit of 100 allowed by server.");
    for length in ["18446744073709551616", "-1", "+4", "4 4", "0x4", ""] {
        let message = refused(&format!("PUT / HTTP/1.1\r\nContent-Length: {length}\r\n\r\n"));
        assert!(message.contains("it is no number of bytes"), "{message}");
    }
}

#[test]
fn a_body_whose_length_is_not_sure_is_refused() {
    let message = refused("PUT / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}");
    assert!(message.contains("another one says otherwise"), "{message}");
    let message = refused("PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
    assert!(message.contains("Content-Length"), "{message}");
}

#[test]
fn a_head_without_an_end_is_refused_at_its_limit() {
    let long = format!("GET / HTTP/1.1\r\nA: {}", "a".repeat(MOST_HEAD));
    assert_eq!(refused(&long), "Invalid request: its head is longer than 8192 bytes.");
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(MOST_HEADERS + 1));
    assert_eq!(refused(&many), "Invalid request: it has more than 64 headers.");
    assert!(refused("\u{1}\u{2} / HTTP/1.1\r\n\r\n").starts_with("Invalid request: "));
    assert!(refused(&"\r\n".repeat(MOST_HEAD)).starts_with("Invalid request: "));
}

#[test]
fn a_whole_url_and_empty_lines_before_it_are_understood() {
    assert_eq!(whole("\r\nGET http://localhost/vm/config HTTP/1.1\r\n\r\n").0.path, "/vm/config");
    assert_eq!(whole("GET http://localhost HTTP/1.1\r\n\r\n").0.path, "/");
}
