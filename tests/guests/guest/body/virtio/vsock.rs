//! The packets of a vsock (virtio 1.2, section 5.10).

use crate::body::machine::memory;

pub const DEVICE_ID: u32 = 19;
/// The host's context ID.
pub const HOST: u64 = 2;
/// How long a header is.
pub const HEADER: u64 = 44;
/// What the guest says that it has room for.
pub const ROOM: u32 = 0x1_0000;
pub const REQUEST: u16 = 1;
pub const RESPONSE: u16 = 2;
pub const RST: u16 = 3;
pub const SHUTDOWN: u16 = 4;
pub const RW: u16 = 5;
pub const CREDIT_UPDATE: u16 = 6;
pub const CREDIT_REQUEST: u16 = 7;
const STREAM: u16 = 1;

#[derive(Clone, Copy)]
pub struct Header {
    pub src_cid: u64,
    pub dst_cid: u64,
    pub src_port: u32,
    pub dst_port: u32,
    pub len: u32,
    pub kind: u16,
    pub op: u16,
    pub flags: u32,
    pub room: u32,
    pub consumed: u32,
}

impl Header {
    /// A packet without data from the guest, by its context ID and port, to a port of the host.
    pub fn new((src_cid, src_port): (u64, u32), dst_port: u32, op: u16) -> Self {
        Self { src_cid, dst_cid: HOST, src_port, dst_port, len: 0, kind: STREAM, op, flags: 0, room: ROOM, consumed: 0 }
    }

    pub fn write(self, at: u64) {
        memory::write(at, self.src_cid);
        memory::write(at + 8, self.dst_cid);
        memory::write(at + 16, self.src_port);
        memory::write(at + 20, self.dst_port);
        memory::write(at + 24, self.len);
        memory::write(at + 28, self.kind);
        memory::write(at + 30, self.op);
        memory::write(at + 32, self.flags);
        memory::write(at + 36, self.room);
        memory::write(at + 40, self.consumed);
    }

    pub fn read(at: u64) -> Self {
        Self {
            src_cid: memory::read(at),
            dst_cid: memory::read(at + 8),
            src_port: memory::read(at + 16),
            dst_port: memory::read(at + 20),
            len: memory::read(at + 24),
            kind: memory::read(at + 28),
            op: memory::read(at + 30),
            flags: memory::read(at + 32),
            room: memory::read(at + 36),
            consumed: memory::read(at + 40),
        }
    }
}
