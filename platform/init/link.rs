use std::io::Read;
use std::net::Shutdown;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use vmcell_platform::guest::{Message, Settings, Stop};
use vsock::{VMADDR_CID_ANY, VMADDR_CID_HOST, VsockListener, VsockStream};

use crate::clock;

/// The host has so long to take the last word.
const LAST_WORD: Duration = Duration::from_secs(1);

/// The connection on which the host is told, and what it was told last.
pub struct Link {
    inner: Mutex<Inner>,
}

struct Inner {
    stream: VsockStream,
    last: Option<Message>,
}

/// Listens on a port for the host alone.
pub struct Listener(VsockListener);

impl Listener {
    pub fn new(port: u32) -> Result<Self, String> {
        VsockListener::bind_with_cid_port(VMADDR_CID_ANY, port)
            .map(Self)
            .map_err(|error| format!("port {port} of the vsock: {error}"))
    }

    /// The next connection of the host.
    pub fn accept(&self) -> VsockStream {
        loop {
            match self.0.accept() {
                Ok((stream, from)) if from.cid() == VMADDR_CID_HOST => return stream,
                Ok(_) => {}
                // For want of memory or descriptors, which others give back.
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }
}

/// Waits until the host says what to do.
pub fn first(listener: &Listener) -> (Link, Settings) {
    loop {
        let mut stream = listener.accept();
        match Message::read(&mut stream) {
            Ok(Some(Message::Start(settings))) => {
                return (Link { inner: Mutex::new(Inner { stream, last: None }) }, *settings);
            }
            Ok(_) => drop(
                Message::Failed("a guest that has not begun takes its settings, and nothing else".into())
                    .write(&mut stream),
            ),
            Err(error) => drop(Message::Failed(error.to_string()).write(&mut stream)),
        }
    }
}

impl Link {
    /// Tells the host. If it is gone, the next connection is told.
    pub fn tell(&self, message: Message) {
        let mut inner = self.lock();
        let _ = message.write(&mut inner.stream);
        inner.last = Some(message);
    }

    /// Takes connections, the last of which is the one that is told, and gives on what the host wants.
    pub fn serve(&self, listener: &Listener, stop: &(dyn Fn(Stop) + Sync)) -> ! {
        std::thread::scope(|scope| {
            let first = self.lock().stream.try_clone();
            let mut next = first.ok();
            loop {
                if let Some(stream) = next.take() {
                    scope.spawn(move || self.hear(stream, stop));
                }
                next = Some(listener.accept());
            }
        })
    }

    fn hear(&self, mut stream: VsockStream, stop: &(dyn Fn(Stop) + Sync)) {
        while let Ok(Some(message)) = Message::read(&mut stream) {
            match message {
                Message::Attach => {
                    let Ok(copy) = stream.try_clone() else { return };
                    let mut inner = self.lock();
                    inner.stream = copy;
                    if let Some(last) = inner.last.clone() {
                        let _ = last.write(&mut inner.stream);
                    }
                }
                Message::Stop(how) => stop(how),
                Message::Clock(millis) => clock::follow(millis),
                _ => {
                    let _ = Message::Failed(
                        "the guest has begun already; allowed are to attach, to stop, and the time".into(),
                    )
                    .write(&mut stream);
                    return;
                }
            }
        }
    }

    /// Waits until the host has taken the last word and closed, or a moment.
    pub fn end(&self) {
        let mut inner = self.lock();
        let _ = inner.stream.shutdown(Shutdown::Write);
        let _ = inner.stream.set_read_timeout(Some(LAST_WORD));
        while inner.stream.read(&mut [0; 64]).is_ok_and(|read| read > 0) {}
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
