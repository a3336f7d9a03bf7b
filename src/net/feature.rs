//! Feature bits (5.1.3).

pub(super) const CSUM: u32 = 0;
pub(super) const GUEST_CSUM: u32 = 1;
pub(super) const MTU: u32 = 3;
pub(super) const MAC: u32 = 5;
pub(super) const GUEST_TSO4: u32 = 7;
pub(super) const GUEST_TSO6: u32 = 8;
pub(super) const GUEST_ECN: u32 = 9;
pub(super) const HOST_TSO4: u32 = 11;
pub(super) const HOST_TSO6: u32 = 12;
pub(super) const HOST_ECN: u32 = 13;
pub(super) const MRG_RXBUF: u32 = 15;
pub(super) const STATUS: u32 = 16;
pub(super) const CTRL_VQ: u32 = 17;
pub(super) const GUEST_ANNOUNCE: u32 = 21;
pub(super) const MQ: u32 = 22;
