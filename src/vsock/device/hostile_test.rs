//! Guests and programs of the host that do what none should.

use super::*;

#[test]
fn a_client_that_waits_for_room_is_accepted_once_the_guest_ends_a_connection() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("guest.vsock");
    let mut rig = Rig::with(VsockConfig::new(CID).unix_path(&path).max_connections(1), None);
    let (_stream, ports) = rig.connected(1);
    let mut client = UnixStream::connect(&path).unwrap();
    client.write_all(b"CONNECT 52\n").unwrap();
    rig.expect_nothing();
    rig.send(ports, op::RST);
    let (header, _) = rig.packet();
    assert_eq!((header.op, header.dst_port), (op::REQUEST, 52));
}

#[test]
fn a_client_that_says_nothing_for_ten_seconds_makes_room_for_another() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("guest.vsock");
    let mut rig = Rig::with(VsockConfig::new(CID).unix_path(&path).max_connections(1), None);
    let silent = UnixStream::connect(&path).unwrap();
    let mut client = UnixStream::connect(&path).unwrap();
    client.write_all(b"CONNECT 52\n").unwrap();
    assert!(is_closed(&silent));
    let (header, _) = rig.packet();
    assert_eq!((header.op, header.dst_port), (op::REQUEST, 52));
}

#[test]
fn a_guest_that_closes_at_the_same_time_as_the_host_is_answered() {
    let mut rig = Rig::new();
    let (stream, ports) = rig.connected(1);
    drop(stream);
    while rig.packet().0.flags != ends::BOTH {}
    rig.shut(ports, ends::BOTH);
    rig.expect(ports, op::RST);
    rig.send(ports, op::RST);
    rig.expect_nothing();
}

#[test]
fn a_vm_that_is_paused_while_a_client_writes_uses_no_cpu() {
    let mut rig = Rig::new();
    let (mut stream, _) = rig.connected(1);
    rig.driver.transport().pause(LIMIT).unwrap();
    stream.write_all(b"hello").unwrap();
    let turns = rig.thread.metrics().turns;
    std::thread::sleep(Duration::from_millis(100));
    assert!(rig.thread.metrics().turns - turns < 5);
    rig.driver.transport().resume();
    assert_eq!(rig.read_in_guest(5), b"hello");
}

#[test]
fn a_guest_that_never_reads_from_a_host_that_is_gone_costs_no_cpu() {
    let mut rig = Rig::new();
    rig.room = 10;
    let (mut stream, ports) = rig.connected(1);
    stream.write_all(&bytes(1000)).unwrap();
    drop(stream);
    let mut ops: Vec<_> = (0..3).map(|_| rig.packet().0.op).collect();
    ops.sort_unstable();
    assert_eq!(ops, [op::SHUTDOWN, op::RW, op::CREDIT_REQUEST]);
    let turns = rig.thread.metrics().turns;
    std::thread::sleep(Duration::from_millis(100));
    assert!(rig.thread.metrics().turns - turns < 5);
    rig.send(ports, op::RST);
    rig.expect_nothing();
}

#[test]
fn a_reset_of_connections_that_have_much_unread_keeps_to_the_time_of_a_turn() {
    let mut rig = Rig::new();
    rig.room = 0;
    let mut measured = || {
        let mut streams = Vec::new();
        for guest in 0..64 {
            streams.push(rig.connected(guest));
            rig.expect(streams[guest as usize].1, op::CREDIT_REQUEST);
        }
        for (stream, _) in &mut streams {
            stream.set_nonblocking(true).unwrap();
            while stream.write(&[1; 4096]).is_ok() {}
            stream.set_nonblocking(false).unwrap();
        }
        rig.thread.measure_turns();
        rig.driver.write(mmio::STATUS, 0);
        assert!(streams.iter().all(|(stream, _)| is_closed(stream)));
        rig.restart();
        rig.thread.longest_turn()
    };
    // A busy host makes a turn longer than it is: the best of some.
    let longest = (0..5).map(|_| measured()).min().unwrap();
    assert!(longest < Duration::from_micros(500), "{longest:?}");
}

#[test]
fn readers_that_all_go_on_at_once_keep_to_the_time_of_a_turn() {
    let mut rig = Rig::new();
    let mut measured = || {
        let streams: Vec<_> = (0..64).map(|guest| rig.connected(guest)).collect();
        let piece = bytes(ROOM as usize / 2);
        let sent: Vec<_> = streams.iter().map(|(_, ports)| rig.send_all_it_may(*ports, &piece)).collect();
        rig.driver.transport().pause(LIMIT).unwrap();
        let mut got = Vec::new();
        for (stream, _) in &streams {
            stream.set_nonblocking(true).unwrap();
            let (mut all, mut len) = (vec![0; 1 << 20], 0);
            while let Ok(read) = (&*stream).read(&mut all[len..]) {
                len += read;
            }
            stream.set_nonblocking(false).unwrap();
            got.push(len);
        }
        rig.thread.measure_turns();
        rig.driver.transport().resume();
        for (((stream, _), sent), got) in streams.iter().zip(&sent).zip(got) {
            let mut rest = vec![0; *sent as usize - got];
            assert!(!rest.is_empty());
            (&*stream).read_exact(&mut rest).unwrap();
        }
        let longest = rig.thread.longest_turn();
        rig.driver.write(mmio::STATUS, 0);
        rig.restart();
        longest
    };
    let longest = (0..5).map(|_| measured()).min().unwrap();
    assert!(longest < Duration::from_micros(500), "{longest:?}");
}
