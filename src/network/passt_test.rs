//! passt as the host has it, and programs that are no passt.

use std::os::unix::fs::PermissionsExt;

use super::*;

/// A script in place of passt.
fn script(text: &str) -> (tempfile::TempDir, Passt) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("passt");
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    (folder, Passt::new().program(path))
}

#[test]
fn numbers_out_of_range_are_refused_before_anything_is_started() {
    let missing = || Passt::new().program("/nowhere/passt");
    for (passt, said) in [
        (missing().mtu(1279), "an MTU of 1279 was asked for, passt has 1280 to 65520"),
        (missing().mtu(65521), "an MTU of 65521"),
        (missing().tcp(None, 0, 80), "port number 0"),
        (missing().udp(None, 53, 0), "port number 0"),
        ((0..257).fold(missing(), |passt, _| passt.tcp(None, 1, 1)), "257 ports were given to passt, allowed are 256"),
    ] {
        let error = passt.start().err().unwrap();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(error.to_string().contains(said), "{error}");
    }
    let error = missing().start().err().unwrap();
    assert!(error.chain().contains("/nowhere/passt: No such file"), "{}", error.chain());
}

#[test]
fn what_it_says_when_it_does_not_begin_is_repeated() {
    let (_folder, passt) = script("echo 'the port is taken' >&2; echo at all >&2; exit 1");
    let error = passt.start().err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Network);
    assert!(error.to_string().ends_with("ended at once, saying: the port is taken at all"), "{error}");
    let (_folder, passt) = script("exec sleep 1000 1>&-");
    assert!(passt.start().err().unwrap().to_string().ends_with("without a word"), "it closed what it was to say so by");
}

#[test]
fn it_is_told_what_is_forwarded_and_nothing_else() {
    let words = |passt: Passt| passt.arguments().join(" ");
    let none = words(Passt::new());
    assert!(none.contains("--no-map-gw") && none.ends_with("--tcp-ports none --udp-ports none"), "{none}");
    let passt = Passt::new().tcp(None, 8080, 80).tcp("::1".parse().ok(), 22, 23).udp("127.0.0.1".parse().ok(), 53, 54);
    let some = words(passt.mtu(1500).without_name_servers());
    assert!(some.ends_with("--tcp-ports 8080:80 --tcp-ports ::1/22:23 --udp-ports 127.0.0.1/53:54"), "{some}");
    assert!(some.contains("--mtu 1500 --no-dhcp-dns --no-dhcp-search"), "{some}");
}

#[test]
fn ports_are_read_as_they_are_written_and_anything_else_is_refused_with_what_is_allowed() {
    let read =
        ["tcp 8080:80", "udp ::1/53:5353"].iter().try_fold(Passt::new(), |passt, text| passt.port(text)).unwrap();
    assert_eq!(read, Passt::new().tcp(None, 8080, 80).udp("::1".parse().ok(), 53, 5353));
    for wrong in
        ["", "tcp", "tcp 80", "tcp 0:80", "tcp 80:65536", "icmp 1:1", "tcp localhost/80:80", "tcp  80:80", "tcp 80:80 "]
    {
        let error = Passt::new().port(wrong).unwrap_err();
        assert!(error.to_string().starts_with(&format!("{wrong:?} is no port for passt")), "{error}");
    }
}

#[test]
fn a_child_that_is_ready_lives_as_long_as_its_card() {
    let (folder, passt) = script("echo $$ > \"$(dirname \"$0\")/number\"; echo $$ > /dev/stdout; exec sleep 1000");
    let nic = passt.start().unwrap();
    let number = std::fs::read_to_string(folder.path().join("number")).unwrap();
    let process = PathBuf::from(format!("/proc/{}", number.trim()));
    assert!(process.exists());
    drop(nic);
    let begun = Instant::now();
    while process.exists() {
        assert!(begun.elapsed() < PATIENCE, "{} is still there", process.display());
        thread::sleep(PAUSE);
    }
}
