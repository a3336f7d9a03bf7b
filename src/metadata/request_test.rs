use std::collections::BTreeMap;

use super::*;

const DOCUMENT: &str = r#"{"latest":{"meta-data":{"cpus":2,"instance-id":"i-1"},"user-data":"hello\n"}}"#;

fn service_of(metadata: &Metadata) -> Service {
    metadata.set(DOCUMENT).unwrap();
    Service { metadata: metadata.clone(), tokens: Tokens::new().unwrap() }
}

fn request(line: &str, headers: &[(&str, &str)]) -> Vec<u8> {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("{line} HTTP/1.1\r\nHost: 169.254.169.254\r\n{headers}\r\n").into_bytes()
}

/// The status, the type, and the body of the answer to a whole request.
fn ask(service: &Service, line: &str, headers: &[(&str, &str)]) -> (u16, String, String) {
    let bytes = request(line, headers);
    let Input::Request { len, answer, closes: false } = service.read(&bytes, 0) else { panic!("{line} is a request") };
    assert_eq!(len, bytes.len());
    parts(answer)
}

fn parts(answer: Answer) -> (u16, String, String) {
    let status = answer.status.code();
    let kind = if answer.is_json { "json" } else { "text" };
    let body = match answer.body {
        Body::Own(text) => text,
        Body::Document(piece) => piece.as_str().to_owned(),
    };
    (status, kind.to_owned(), body)
}

#[test]
fn each_request_has_its_answer() {
    let service = service_of(&Metadata::new());
    let token = service.tokens.give(1);
    let good = ("X-metadata-token", token.as_str());
    let ec2 = ("x-AWS-ec2-metadata-token", token.as_str());
    let json = ("Accept", "application/json");
    let ttl = ("X-metadata-token-ttl-seconds", "60");
    type Headers<'a> = &'a [(&'a str, &'a str)];
    let cases: &[(&str, Headers<'_>, u16, &str)] = &[
        ("GET /latest/user-data", &[good], 200, "hello\n"),
        ("GET /latest/user-data", &[ec2], 200, "hello\n"),
        ("GET /latest/user-data?x=1", &[good], 200, "hello\n"),
        ("GET http://169.254.169.254/latest/user-data", &[good], 200, "hello\n"),
        ("GET http://169.254.169.254", &[good], 200, "latest/"),
        ("GET /", &[good], 200, "latest/"),
        ("GET /", &[good, json], 200, DOCUMENT),
        ("GET //latest//meta-data/", &[good], 200, "cpus\ninstance-id"),
        ("GET /latest/meta-data", &[good, ("Accept", "*/*")], 200, "cpus\ninstance-id"),
        ("GET /latest/meta-data", &[good, ("Accept", "text/plain")], 200, "cpus\ninstance-id"),
        ("GET /latest/meta-data", &[good, ("accept", "text/html, Application/JSON;q=0.9, */*")], 200, META_DATA),
        ("GET /latest/meta-data/cpus", &[good, json], 200, "2"),
        ("GET /latest/meta-data/cpus", &[good], 501, "application/json"),
        ("GET /latest/meta-data", &[good, ("Accept", "text/html")], 406, "text/plain"),
        ("GET /latest/none", &[good], 404, "/latest/none"),
        ("GET /latest/api/token", &[good], 404, "/latest/api/token"),
        ("GET /latest/user-data", &[], 401, "X-metadata-token"),
        ("GET /latest/user-data", &[("X-metadata-token", "")], 401, "not good"),
        ("GET /latest/user-data", &[("X-metadata-token", "abc")], 401, "not good"),
        ("GET /latest/none", &[], 401, "X-metadata-token"),
        ("GET /latest/user-data", &[good, ("X-Forwarded-For", "10.0.0.1")], 200, "hello\n"),
        ("PUT /latest/api/token", &[], 400, "ttl-seconds"),
        ("PUT /latest/api/token", &[("X-metadata-token-ttl-seconds", "0")], 400, "1 to 21600 seconds, not for 0"),
        ("PUT /latest/api/token", &[("X-metadata-token-ttl-seconds", "21601")], 400, "not for 21601"),
        ("PUT /latest/api/token", &[("X-metadata-token-ttl-seconds", "+5")], 400, "not for +5"),
        ("PUT /latest/api/token", &[("X-metadata-token-ttl-seconds", "99999999999")], 400, "not for 99999999999"),
        ("PUT /latest/api/token", &[ttl, ("X-Forwarded-For", "10.0.0.1")], 400, "X-Forwarded-For"),
        ("PUT /latest/api/token", &[ttl, ("x-forwarded-FOR", "")], 400, "X-Forwarded-For"),
        ("PUT /latest/user-data", &[ttl], 404, "/latest/user-data"),
        ("PUT /latest/user-data", &[ttl, ("X-Forwarded-For", "10.0.0.1")], 400, "X-Forwarded-For"),
        ("HEAD /latest/user-data", &[good], 405, "HEAD"),
        ("POST /latest/user-data", &[good, ("Content-Length", "0")], 405, "POST"),
        ("DELETE /", &[], 405, "DELETE"),
    ];
    for (line, headers, status, body) in cases {
        let (got, _, text) = ask(&service, line, headers);
        let fits = if *status == 200 { text == *body } else { text.contains(body) };
        assert!(got == *status && fits, "{line} {headers:?}: {got} {text}");
    }
}

const META_DATA: &str = r#"{"cpus":2,"instance-id":"i-1"}"#;

#[test]
fn a_token_is_given_for_as_long_as_was_asked_under_either_name() {
    let service = service_of(&Metadata::new());
    for (name, seconds) in [(TTL[0], 1), (TTL[1], 21_600), (TTL[0], 60)] {
        let bytes = request("PUT //latest/api/token/", &[(&name.to_uppercase(), &seconds.to_string())]);
        let Input::Request { answer, .. } = service.read(&bytes, 500) else { panic!("it is a request") };
        assert_eq!(answer.header, Some((name, seconds.to_string())));
        let (status, kind, token) = parts(answer);
        assert_eq!((status, kind.as_str()), (200, "text"));
        let ask_at = |now| {
            let bytes = request("GET /latest/user-data", &[(TOKEN[0], &token)]);
            let Input::Request { answer, .. } = service.read(&bytes, now) else { panic!("it is a request") };
            answer.status.code()
        };
        let end = 500 + seconds * 1000;
        assert_eq!((ask_at(500), ask_at(end - 1), ask_at(end)), (200, 200, 401));
    }
}

#[test]
fn json_is_said_to_be_json() {
    let service = service_of(&Metadata::new().needs_token(false));
    assert_eq!(ask(&service, "GET /latest/user-data", &[("Accept", "application/json")]).1, "json");
    assert_eq!(ask(&service, "GET /latest/user-data", &[]).1, "text");
}

#[test]
fn settings_waive_the_token_and_the_choice_of_form() {
    let service = service_of(&Metadata::new().needs_token(false).always_text(true));
    for headers in
        [&[][..], &[("X-metadata-token", "abc")], &[("Accept", "application/json")], &[("Accept", "text/html")]]
    {
        let (status, kind, body) = ask(&service, "GET /latest/meta-data", headers);
        assert_eq!((status, kind.as_str(), body.as_str()), (200, "text", "cpus\ninstance-id"), "{headers:?}");
    }
}

fn wrong(service: &Service, bytes: &[u8]) -> u16 {
    let Input::Wrong(answer) = service.read(bytes, 0) else { panic!("{} is wrong", String::from_utf8_lossy(bytes)) };
    answer.status.code()
}

#[test]
fn what_is_no_request_ends_the_connection() {
    let service = service_of(&Metadata::new());
    let cases: BTreeMap<&str, u16> = [
        ("\0\0\0\0", 400),
        ("GET\r\n\r\n", 400),
        ("GET / HTTP/3.0\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nno header\r\n\r\n", 400),
        ("PUT / HTTP/1.1\r\nContent-Length: x\r\n\r\n", 400),
        ("PUT / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        ("PUT / HTTP/1.1\r\nContent-Length:\r\n\r\n", 400),
        ("PUT / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", 400),
        ("PUT / HTTP/1.1\r\nContent-Length: 4096\r\n\r\n", 413),
        ("PUT / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n", 413),
        ("PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 501),
    ]
    .into();
    for (bytes, status) in cases {
        assert_eq!(wrong(&service, bytes.as_bytes()), status, "{bytes:?}");
    }
    let many: Vec<_> = std::iter::repeat_n(("a", "b"), MOST_HEADERS).collect();
    assert_eq!(wrong(&service, &request("GET /", &many)), 431);
    let long = "a".repeat(MOST_BYTES);
    assert_eq!(wrong(&service, &request("GET /", &[("a", &long)])[..MOST_BYTES]), 431);
    assert_eq!(wrong(&service, format!("GET /{long}").as_bytes()), 431);
}

#[test]
fn a_request_is_waited_for_until_it_is_whole() {
    let service = service_of(&Metadata::new());
    let mut bytes = request("PUT /latest/api/token", &[("Content-Length", "5"), (TTL[0], "60")]);
    bytes.extend(b"hello");
    for len in 0..bytes.len() {
        assert!(matches!(service.read(&bytes[..len], 0), Input::Unfinished), "{len}");
    }
    let whole = bytes.len();
    bytes.extend(b"GET / HTTP/1.1\r\n");
    let Input::Request { len, answer, .. } = service.read(&bytes, 0) else { panic!("it is a request") };
    assert_eq!((len, answer.status), (whole, Status::Ok));
}

#[test]
fn a_connection_is_kept_as_the_version_and_the_client_say() {
    let service = service_of(&Metadata::new());
    let cases = [
        ("HTTP/1.1", "", false),
        ("HTTP/1.1", "Connection: close\r\n", true),
        ("HTTP/1.1", "connection: TE, Close\r\n", true),
        ("HTTP/1.0", "", true),
        ("HTTP/1.0", "Connection: Keep-Alive\r\n", false),
    ];
    for (version, header, ends) in cases {
        let bytes = format!("GET / {version}\r\n{header}\r\n");
        let Input::Request { closes, .. } = service.read(bytes.as_bytes(), 0) else { panic!("it is a request") };
        assert_eq!(closes, ends, "{version} {header}");
    }
}
