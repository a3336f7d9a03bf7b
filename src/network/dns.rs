//! Names of the network's machines (RFC 1035): one question, one answer, and nothing that takes memory.
//!
//! `NAME.internal` has an AAAA record for each machine of that name that runs, and a TXT record that says which machines those are; or one
//! for the service of that name.
//! `_names.internal` has a TXT record for each name. Nobody is asked for anything else: other names are refused.

use super::address::MachineAddress;
use super::names::{Named, Names};

/// The domain, as it stands in a question.
const DOMAIN: &[u8] = b"\x08internal\x00";
/// The name of which all names are.
const ALL_NAMES: &[u8] = b"_names";
/// Without a word of the asker's, an answer is no longer.
const SHORT: usize = 512;
/// As long as fits a packet that passes everywhere.
pub(super) const LONGEST: usize = 1232;
/// For how many seconds an answer may be kept: machines come and go.
const KEPT: u32 = 5;

const HEADER: usize = 12;
/// Points to what is behind the header.
const NAME_OF_QUESTION: [u8; 2] = [0xc0, 12];
const TXT: u16 = 16;
const AAAA: u16 = 28;
const OPT: u16 = 41;
const INTERNET: u16 = 1;

const RESPONSE: u8 = 0x80;
const OPCODE: u8 = 0x78;
const AUTHORITATIVE: u8 = 0x04;
const RECURSION_DESIRED: u8 = 0x01;

const NO_ERROR: u8 = 0;
const FORMAT_ERROR: u8 = 1;
const NO_SUCH_NAME: u8 = 3;
const NOT_IMPLEMENTED: u8 = 4;
const REFUSED: u8 = 5;

/// An answer as it is written.
pub(super) struct Answer {
    bytes: [u8; LONGEST],
    len: usize,
    limit: usize,
    records: u16,
}

/// What is asked for.
#[derive(Clone, Copy)]
struct Question<'a> {
    /// With its length in front of each label, and a zero at the end.
    name: &'a [u8],
    /// The name, the type and the class.
    whole: &'a [u8],
    kind: u16,
    class: u16,
    /// How long the answer may be, if the asker knows extensions (RFC 6891).
    extended: Option<u16>,
}

/// Answers a query; `None` for what is none.
pub(super) fn answer(query: &[u8], names: &Names) -> Option<Answer> {
    let header = query.first_chunk::<HEADER>()?;
    let [id_high, id_low, flags, _, ..] = *header;
    if flags & RESPONSE != 0 {
        return None;
    }
    let mut answer = Answer { bytes: [0; LONGEST], len: 0, limit: SHORT, records: 0 };
    let flags = RESPONSE | AUTHORITATIVE | flags & (OPCODE | RECURSION_DESIRED);
    answer.add(&[id_high, id_low, flags, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let Some(question) = Question::parse(query) else {
        let code = if flags & OPCODE == 0 { FORMAT_ERROR } else { NOT_IMPLEMENTED };
        return Some(answer.finish(code, None));
    };
    answer.add(question.whole);
    if let Some(len) = question.extended {
        // An answer to one who knows extensions ends with a word about ours.
        answer.limit = usize::from(len).clamp(SHORT, LONGEST).saturating_sub(11);
    }
    let code = if flags & OPCODE == 0 { answer.look_up(&question, names) } else { NOT_IMPLEMENTED };
    Some(answer.finish(code, Some(&question)))
}

impl<'a> Question<'a> {
    fn parse(query: &'a [u8]) -> Option<Self> {
        let word = |at: usize| query.get(at..)?.first_chunk().map(|pair| u16::from_be_bytes(*pair));
        // One question, and no records but perhaps one about extensions.
        let counts = [word(4)?, word(6)?, word(8)?];
        if counts != [1, 0, 0] {
            return None;
        }
        let mut end = HEADER;
        loop {
            let len = usize::from(*query.get(end)?);
            end = end.checked_add(len)?.checked_add(1)?;
            if len == 0 {
                break;
            }
            // A question points nowhere, and a name has 255 bytes at the most.
            if len > 63 || end > HEADER.saturating_add(255) {
                return None;
            }
        }
        let behind = end.checked_add(4)?;
        let (name, whole) = (query.get(HEADER..end)?, query.get(HEADER..behind)?);
        let (kind, class) = (word(end)?, word(end.checked_add(2)?)?);
        let is_extension = query.get(behind) == Some(&0) && word(behind.checked_add(1)?) == Some(OPT);
        let extended = match word(10)? {
            0 => None,
            1 if is_extension => word(behind.checked_add(3)?),
            _ => return None,
        };
        Some(Self { name, whole, kind, class, extended })
    }

    /// The one label in front of the domain; `None` for what is not in the domain, and what lies deeper has none that is known.
    fn label(&self) -> Option<&'a [u8]> {
        let at = self.name.len().checked_sub(DOMAIN.len())?;
        let (front, domain) = self.name.split_at_checked(at)?;
        if !domain.eq_ignore_ascii_case(DOMAIN) {
            return None;
        }
        let Some((len, label)) = front.split_first() else { return Some(&[]) };
        Some(if usize::from(*len) == label.len() { label } else { b"." })
    }
}

impl Answer {
    /// Adds bytes if they fit.
    fn add(&mut self, bytes: &[u8]) -> bool {
        let Some(end) = self.len.checked_add(bytes.len()).filter(|end| *end <= self.limit) else { return false };
        let Some(room) = self.bytes.get_mut(self.len..end) else { return false };
        room.copy_from_slice(bytes);
        self.len = end;
        true
    }

    /// Adds a record about the name that was asked for; says whether it fitted.
    fn record(&mut self, kind: u16, data: &[u8]) -> bool {
        let before = self.len;
        let len = u16::try_from(data.len()).unwrap_or(u16::MAX);
        let fits = self.add(&NAME_OF_QUESTION)
            && self.add(&kind.to_be_bytes())
            && self.add(&INTERNET.to_be_bytes())
            && self.add(&KEPT.to_be_bytes())
            && self.add(&len.to_be_bytes())
            && self.add(data);
        if fits {
            self.records = self.records.saturating_add(1);
        } else {
            self.len = before;
        }
        fits
    }

    fn look_up(&mut self, question: &Question, names: &Names) -> u8 {
        let Some(label) = question.label().filter(|_| question.class == INTERNET) else { return REFUSED };
        if label.is_empty() {
            return NO_ERROR;
        }
        if label.eq_ignore_ascii_case(ALL_NAMES) {
            if question.kind == TXT {
                // As many as fit: beginning with another each time, so that each is heard of.
                names.running(|name| self.text(name.as_bytes()));
            }
            return NO_ERROR;
        }
        let known = names.find(label, |named| match (question.kind, named) {
            (AAAA, Named::Machine(machine)) => self.record(AAAA, &machine.ip().octets()),
            (AAAA, Named::Service(address)) => self.record(AAAA, &address.octets()),
            (TXT, Named::Machine(machine)) => self.machine(machine),
            (TXT, Named::Service(_)) => self.text(b"service"),
            // There is nothing of another kind.
            _ => false,
        });
        if known { NO_ERROR } else { NO_SUCH_NAME }
    }

    fn text(&mut self, text: &[u8]) -> bool {
        let mut data = [0; 256];
        let Ok(len) = u8::try_from(text.len()) else { return false };
        let Some((first, rest)) = data.split_first_mut() else { return false };
        *first = len;
        for (to, byte) in rest.iter_mut().zip(text) {
            *to = *byte;
        }
        let whole = usize::from(len).saturating_add(1);
        self.record(TXT, data.get(..whole).unwrap_or_default())
    }

    /// Says which machine of which host it is.
    fn machine(&mut self, machine: MachineAddress) -> bool {
        use std::io::Write;
        let mut text = [0u8; 64];
        let mut rest = &mut text[..];
        let written = write!(rest, "host={} machine={}", machine.host(), machine.machine());
        let left = rest.len();
        let used = text.len().saturating_sub(left);
        written.is_ok() && self.text(text.get(..used).unwrap_or_default())
    }

    fn finish(mut self, code: u8, question: Option<&Question>) -> Self {
        if question.is_some_and(|question| question.extended.is_some()) {
            self.limit = LONGEST;
            let [high, low] = u16::try_from(LONGEST).unwrap_or(u16::MAX).to_be_bytes();
            self.add(&[0, 0, 41, high, low, 0, 0, 0, 0, 0, 0]);
            self.set(11, 1);
        }
        self.set(3, code);
        self.set(5, u8::from(question.is_some()));
        let [high, low] = self.records.to_be_bytes();
        self.set(6, high);
        self.set(7, low);
        self
    }

    fn set(&mut self, at: usize, byte: u8) {
        if let Some(place) = self.bytes.get_mut(at) {
            *place = byte;
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

#[cfg(test)]
#[path = "dns_test.rs"]
mod tests;
