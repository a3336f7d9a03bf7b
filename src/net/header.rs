//! The header in front of each frame (5.1.6), and the features that say what may stand in it.

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

/// Feature bits (5.1.3).
pub(super) mod feature {
    pub(crate) const CSUM: u32 = 0;
    pub(crate) const GUEST_CSUM: u32 = 1;
    pub(crate) const MTU: u32 = 3;
    pub(crate) const MAC: u32 = 5;
    pub(crate) const GUEST_TSO4: u32 = 7;
    pub(crate) const GUEST_TSO6: u32 = 8;
    pub(crate) const GUEST_ECN: u32 = 9;
    pub(crate) const HOST_TSO4: u32 = 11;
    pub(crate) const HOST_TSO6: u32 = 12;
    pub(crate) const HOST_ECN: u32 = 13;
    pub(crate) const MRG_RXBUF: u32 = 15;
}

/// The features that concern the content of frames, all of which we offer.
pub(super) const OFFLOAD_FEATURES: u64 = 1 << feature::CSUM
    | 1 << feature::GUEST_CSUM
    | 1 << feature::GUEST_TSO4
    | 1 << feature::GUEST_TSO6
    | 1 << feature::GUEST_ECN
    | 1 << feature::HOST_TSO4
    | 1 << feature::HOST_TSO6
    | 1 << feature::HOST_ECN;

const FLAG_NEEDS_CSUM: u8 = 1;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_ECN: u8 = 0x80;

/// What one direction may leave to the other side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Offers {
    pub(super) checksum: bool,
    pub(super) tso4: bool,
    pub(super) tso6: bool,
    pub(super) ecn: bool,
}

impl Offers {
    /// What the guest copes with in the frames that it receives.
    pub(super) fn to_guest(features: u64) -> Self {
        use feature::{GUEST_CSUM, GUEST_ECN, GUEST_TSO4, GUEST_TSO6};
        Self::of(features, GUEST_CSUM, GUEST_TSO4, GUEST_TSO6, GUEST_ECN)
    }

    /// What the guest may leave undone in the frames that it sends.
    pub(super) fn to_host(features: u64) -> Self {
        use feature::{CSUM, HOST_ECN, HOST_TSO4, HOST_TSO6};
        Self::of(features, CSUM, HOST_TSO4, HOST_TSO6, HOST_ECN)
    }

    fn of(features: u64, checksum: u32, tso4: u32, tso6: u32, ecn: u32) -> Self {
        let has = |bit: u32| features.checked_shr(bit).is_some_and(|bits| bits & 1 == 1);
        Self { checksum: has(checksum), tso4: has(tso4), tso6: has(tso6), ecn: has(ecn) }
    }

    /// Whether what depends on something stands together with it (5.1.3.1).
    pub(super) fn is_consistent(self) -> bool {
        let segments = self.tso4 || self.tso6;
        (self.checksum || !segments) && (segments || !self.ecn)
    }
}

/// The header of a frame that the guest sends, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    flags: u8,
    gso_type: u8,
    header_len: u16,
    gso_size: u16,
    csum_start: u16,
    csum_offset: u16,
}

impl Header {
    /// Checks a header that stands in front of `frame_len` bytes; `None` where the frame must not be sent.
    pub(super) fn parse(bytes: [u8; HEADER_LEN as usize], frame_len: u32, offers: Offers) -> Option<Self> {
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
        let fits = (ETHERNET_LEN..=MAX_FRAME).contains(&frame_len);
        (fits && header.checksum_fits(frame_len, offers) && header.segments_fit(frame_len, offers)).then_some(header)
    }

    fn checksum_fits(&self, frame_len: u32, offers: Offers) -> bool {
        if self.flags & FLAG_NEEDS_CSUM == 0 {
            return true;
        }
        let end = u32::from(self.csum_start).saturating_add(self.csum_offset.into()).saturating_add(2);
        offers.checksum && end <= frame_len
    }

    fn segments_fit(&self, frame_len: u32, offers: Offers) -> bool {
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

    /// The header as the host takes it.
    pub(super) fn bytes(&self) -> [u8; HEADER_LEN as usize] {
        let [a, b] = self.header_len.to_le_bytes();
        let [c, d] = self.gso_size.to_le_bytes();
        let [e, f] = self.csum_start.to_le_bytes();
        let [g, h] = self.csum_offset.to_le_bytes();
        [self.flags, self.gso_type, a, b, c, d, e, f, g, h, 0, 0]
    }
}
