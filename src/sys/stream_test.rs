use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use super::*;

fn fill(stream: &mut Stream) {
    while matches!(stream.try_write(&[b'x'; 4000]).unwrap(), Attempt::Moved(_)) {}
    while matches!(stream.try_write(b"x").unwrap(), Attempt::Moved(_)) {}
}

fn flags(fd: impl AsFd) -> libc::c_int {
    // SAFETY: the descriptor is open, and the command takes no argument.
    unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), libc::F_GETFL) }
}

/// Both ways that do not wait for a pipe.
fn on_pipe(fd: impl AsFd, direction: Direction) -> [Stream; 2] {
    [Way::NoWait, Way::Stage].map(|way| {
        let mut stream = Stream::new(fd.as_fd(), direction).unwrap();
        assert!(stream.is_pipe && stream.polled().is_some());
        stream.way = way;
        stream
    })
}

/// A process that another test is just starting holds the other end too, until it has become its program.
fn outlast_other_tests<T>(mut attempt: impl FnMut() -> Option<T>) -> T {
    loop {
        match attempt() {
            Some(result) => return result,
            None => std::thread::yield_now(),
        }
    }
}

#[test]
fn a_full_pipe_refuses_instead_of_waiting_and_its_flags_stay() {
    for index in 0..2 {
        let (reader, writer) = io::pipe().unwrap();
        let before = flags(&writer);
        let [_, mut stream] = on_pipe(&writer, Direction::FromUs);
        if index == 0 {
            [stream, _] = on_pipe(&writer, Direction::FromUs);
        }
        fill(&mut stream);
        assert_eq!(stream.try_write(b"x").unwrap(), Attempt::NotNow);
        assert_eq!(flags(&writer), before);
        drop(reader);
        let error = outlast_other_tests(|| stream.try_write(b"x").err());
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}

#[test]
fn what_passes_a_stage_arrives_once_and_in_order() {
    let (mut reader, writer) = io::pipe().unwrap();
    let [_, mut stream] = on_pipe(&writer, Direction::FromUs);
    let sent: Vec<u8> = (0..100_000u32).map(|n| (n % 251) as u8).collect();
    let mut back = vec![0; sent.len()];
    let (mut written, mut read) = (0, 0);
    while read < sent.len() {
        // Offered again and again, as a caller does.
        let end = sent.len().min(written + 3000);
        while let Attempt::Moved(count) = stream.try_write(&sent[written..end]).unwrap() {
            written += count;
            if written == end {
                break;
            }
        }
        read += reader.read(&mut back[read..]).unwrap();
    }
    assert_eq!(back, sent);
}

#[test]
fn an_empty_pipe_has_nothing_and_a_closed_one_has_ended() {
    let (reader, mut writer) = io::pipe().unwrap();
    let mut streams = on_pipe(&reader, Direction::ToUs);
    for stream in &mut streams {
        assert_eq!(stream.try_read(&mut [0; 4]).unwrap(), Attempt::NotNow);
        writer.write_all(b"abcdef").unwrap();
        let mut bytes = [0; 4];
        assert_eq!(stream.try_read(&mut bytes).unwrap(), Attempt::Moved(4));
        assert_eq!(&bytes, b"abcd");
        assert_eq!(stream.try_read(&mut bytes).unwrap(), Attempt::Moved(2));
        assert_eq!(&bytes[..2], b"ef");
    }
    drop(writer);
    for stream in &mut streams {
        let end = outlast_other_tests(|| match stream.try_read(&mut [0; 4]).unwrap() {
            Attempt::NotNow => None,
            other => Some(other),
        });
        assert_eq!(end, Attempt::Moved(0));
    }
}

#[test]
fn a_socket_refuses_instead_of_waiting_in_both_directions() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut input = Stream::new(ours.as_fd(), Direction::ToUs).unwrap();
    assert_eq!(input.try_read(&mut [0; 4]).unwrap(), Attempt::NotNow);
    let mut output = Stream::new(ours.as_fd(), Direction::FromUs).unwrap();
    fill(&mut output);
    assert_eq!(flags(&ours) & libc::O_NONBLOCK, 0);
    drop(theirs);
    let error = outlast_other_tests(|| output.try_write(b"x").err());
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}

#[test]
fn a_file_is_written_where_its_descriptor_stands() {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"before ").unwrap();
    let mut stream = Stream::new(file.as_fd(), Direction::FromUs).unwrap();
    assert!(stream.polled().is_none());
    let attempt = stream.try_write(b"after").unwrap();
    if attempt == Attempt::MayWait {
        assert_eq!(stream.write_waiting(b"after").unwrap(), 5);
    }
    assert_eq!(file.metadata().unwrap().len(), 12);
}

#[test]
fn what_has_no_way_that_does_not_wait_is_left_to_a_thread_that_may() {
    let (reader, writer) = io::pipe().unwrap();
    let mut input = Stream::new(reader.as_fd(), Direction::ToUs).unwrap();
    let mut output = Stream::new(writer.as_fd(), Direction::FromUs).unwrap();
    (input.way, output.way) = (Way::None, Way::None);
    assert_eq!(input.try_read(&mut [0; 4]).unwrap(), Attempt::NotNow);
    assert_eq!(output.try_write(b"x").unwrap(), Attempt::MayWait);
    assert_eq!(output.write_waiting(b"x").unwrap(), 1);
    assert_eq!(input.try_read(&mut [0; 4]).unwrap(), Attempt::MayWait);
    assert_eq!(input.read_waiting(&mut [0; 4]).unwrap(), 1);
}

#[test]
fn descriptors_that_are_not_open_in_the_direction_are_refused() {
    let null = |read, write| File::options().read(read).write(write).open("/dev/null").unwrap();
    let refused = |file: &File, direction| Stream::new(file.as_fd(), direction).err().unwrap();
    let error = refused(&null(true, false), Direction::FromUs);
    assert_eq!(error.kind(), ErrorKind::Console);
    assert!(error.to_string().ends_with("was given for a console's output, but is not open for writing"), "{error}");
    let error = refused(&null(false, true), Direction::ToUs);
    assert!(error.to_string().ends_with("was given for a console's input, but is not open for reading"), "{error}");
    Stream::new(null(true, true).as_fd(), Direction::ToUs).unwrap();
}
