//! The header in front of each frame (5.1.6), and the features that say what may stand in it.

use super::offloads::Offloads;

/// Bytes of the header, with the number of buffers.
pub(super) const HEADER_LEN: u32 = 12;
/// Where the number of buffers stands.
pub(super) const NUM_BUFFERS_OFFSET: u32 = 10;
/// Destination, source and type: no frame is shorter.
pub(super) const ETHERNET_LEN: u32 = 14;
/// The largest frame that either side may send: the most that IP can say, behind an Ethernet header with a VLAN tag. The
/// specification's own figure (5.1.6.3.1) leaves no room for the tag.
pub(super) const MAX_FRAME: u32 = 65535 + 18;
/// Such a frame with the header in front.
pub(super) const MAX_PACKET: u32 = HEADER_LEN + MAX_FRAME;

const FLAG_NEEDS_CSUM: u8 = 1;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_ECN: u8 = 0x80;

/// The header in front of a frame. It says what the sender has left undone; the default says that the frame is complete.
///
/// The header of a frame that the guest sends was checked: it asks for nothing that was not offered, and points nowhere outside
/// the frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VnetHeader {
    flags: u8,
    gso_type: u8,
    header_len: u16,
    gso_size: u16,
    csum_start: u16,
    csum_offset: u16,
}

impl VnetHeader {
    /// The length of the header in bytes.
    pub const LEN: usize = HEADER_LEN as usize;

    /// Checks the header of a frame of `frame_len` bytes. Returns `None` if the frame must not pass, because it leaves undone more
    /// than `offers` allows, or because the header contradicts itself.
    pub fn parse(bytes: [u8; Self::LEN], frame_len: u32, offers: Offloads) -> Option<Self> {
        let [flags, gso_type, a, b, c, d, e, f, g, h, _, _] = bytes;
        let pair = |low, high| u16::from_le_bytes([low, high]);
        let header = Self {
            // The other flags mean something only in frames that the guest receives.
            flags: flags & FLAG_NEEDS_CSUM,
            gso_type,
            header_len: pair(a, b),
            gso_size: pair(c, d),
            csum_start: pair(e, f),
            csum_offset: pair(g, h),
        };
        header.suits(frame_len, offers).then_some(header)
    }

    fn checksum_fits(&self, frame_len: u32, offers: Offloads) -> bool {
        if self.flags & FLAG_NEEDS_CSUM == 0 {
            return true;
        }
        let end = u32::from(self.csum_start).saturating_add(self.csum_offset.into()).saturating_add(2);
        offers.checksum && end <= frame_len
    }

    fn segments_fit(&self, frame_len: u32, offers: Offloads) -> bool {
        let ecn = self.gso_type & GSO_ECN != 0;
        let offered = match self.gso_type & !GSO_ECN {
            GSO_NONE => return !ecn,
            GSO_TCPV4 => offers.tso4,
            GSO_TCPV6 => offers.tso6,
            _ => false,
        };
        let checksum = self.flags & FLAG_NEEDS_CSUM != 0;
        let sizes = self.gso_size != 0 && u32::from(self.header_len) <= frame_len;
        offered && checksum && sizes && (!ecn || offers.ecn)
    }

    /// Whether the frame may pass to a receiver that copes with `offers`.
    pub(super) fn suits(&self, frame_len: u32, offers: Offloads) -> bool {
        let fits = (ETHERNET_LEN..=MAX_FRAME).contains(&frame_len);
        fits && self.checksum_fits(frame_len, offers) && self.segments_fit(frame_len, offers)
    }

    /// Where the checksum that is left undone begins, and where behind that it stands.
    #[cfg(feature = "network")]
    pub(crate) fn checksum(&self) -> Option<(u16, u16)> {
        (self.flags & FLAG_NEEDS_CSUM != 0).then_some((self.csum_start, self.csum_offset))
    }

    /// How long the segments are that a frame of TCP over IPv6 is to be cut into, and whether only the first has the flag that the
    /// sender's window was reduced. `None` for a frame that is not to be cut. What is to be cut as something else is an error.
    #[cfg(feature = "network")]
    pub(crate) fn segments(&self) -> Result<Option<(u16, bool)>, ()> {
        match self.gso_type & !GSO_ECN {
            GSO_NONE => Ok(None),
            GSO_TCPV6 => Ok(Some((self.gso_size, self.gso_type & GSO_ECN != 0))),
            _ => Err(()),
        }
    }

    /// The header of a frame whose checksum is left undone.
    #[cfg(feature = "network")]
    pub(crate) fn partial(csum_start: u16, csum_offset: u16) -> Self {
        Self { flags: FLAG_NEEDS_CSUM, csum_start, csum_offset, ..Self::default() }
    }

    /// The same for one that is to be cut into segments behind each of which there is a copy of the first `header_len` bytes.
    #[cfg(feature = "network")]
    pub(crate) fn to_be_cut(self, header_len: u16, size: u16, ecn: bool) -> Self {
        Self { gso_type: if ecn { GSO_TCPV6 | GSO_ECN } else { GSO_TCPV6 }, header_len, gso_size: size, ..self }
    }

    /// The header as the guest gets it, in front of a frame in so many buffers.
    pub(super) fn with_count(&self, count: u16) -> [u8; Self::LEN] {
        let mut bytes = self.to_bytes();
        let [.., low, high] = &mut bytes;
        [*low, *high] = count.to_le_bytes();
        bytes
    }

    /// Returns the header in the form of virtio 1.0, with the number of buffers set to zero.
    pub fn to_bytes(&self) -> [u8; Self::LEN] {
        let [a, b] = self.header_len.to_le_bytes();
        let [c, d] = self.gso_size.to_le_bytes();
        let [e, f] = self.csum_start.to_le_bytes();
        let [g, h] = self.csum_offset.to_le_bytes();
        [self.flags, self.gso_type, a, b, c, d, e, f, g, h, 0, 0]
    }
}
