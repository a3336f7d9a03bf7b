//! A secret as a guest's systemd finds it: a string of SMBIOS (systemd.system-credentials(7), "SMBIOS OEM strings").

use base64ct::{Base64, Encoding};

#[cfg(feature = "save")]
use super::secret::check_name;
use super::{Secret, refused};
use crate::arch;
use crate::error::Result;
use crate::memory::{GuestAddress, GuestMemory};
use crate::sys::zero;

const PREFIX: &str = "io.systemd.credential.binary:";

/// Where a secret lies in the memory of a guest, and how much room it has there.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "save", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub(crate) struct Place {
    pub(crate) name: String,
    at: u64,
    len: u32,
}

impl Place {
    /// Writes tables in which the guest finds these secrets, and the secrets.
    ///
    /// # Errors
    /// Those of [`check`], and `ErrorKind::GuestAddress` if the guest has not so much memory.
    pub(crate) fn for_all(memory: &GuestMemory, secrets: &[Secret]) -> Result<Vec<Self>> {
        check(secrets)?;
        let lens: Vec<_> = secrets.iter().map(string_len).collect();
        let places = arch::write_oem_strings(memory, &lens)?;
        let place = |((secret, len), at): ((&Secret, usize), GuestAddress)| {
            let place = Self { name: secret.name().into(), at: at.0, len: u32::try_from(len).unwrap_or(u32::MAX) };
            place.fill(memory, secret).map(|()| place)
        };
        secrets.iter().zip(lens).zip(places).map(place).collect()
    }

    /// Refuses a value that is longer than the one that it was made for.
    ///
    /// # Errors
    /// `ErrorKind::Secret`.
    pub(crate) fn check_room(&self, secret: &Secret) -> Result<()> {
        if string_len(secret) <= self.len() {
            return Ok(());
        }
        let (name, len) = (secret.name(), secret.expose().len());
        let most = (self.len().saturating_sub(string_len_of(name, 0)) / 4).saturating_mul(3);
        Err(refused(format!(
            "secret {name} has {len} bytes, allowed are {most} in the place of the one with which the guest was booted"
        )))
    }

    /// Writes a secret for which there is room. Behind a shorter one than it was made for are lines' ends, which those who read base64 skip.
    ///
    /// # Errors
    /// `ErrorKind::GuestAddress` if the place is not in the guest's memory.
    pub(crate) fn fill(&self, memory: &GuestMemory, secret: &Secret) -> Result<()> {
        let rest = self.len().saturating_sub(string_len(secret));
        let mut at = self.at;
        let mut write = |bytes: &[u8]| {
            memory.write(GuestAddress(at), bytes)?;
            at = at.saturating_add(bytes.len() as u64);
            Ok(())
        };
        [PREFIX, secret.name(), "="].iter().try_for_each(|part| write(part.as_bytes()))?;
        for bytes in secret.expose().chunks(48) {
            let mut encoded = [0; 64];
            let text = Base64::encode(bytes, &mut encoded).map(str::len).unwrap_or_default();
            let written = write(encoded.get(..text).unwrap_or_default());
            zero(&mut encoded);
            written?;
        }
        write(&vec![b'\n'; rest])
    }

    /// Writes over it. The table stays one that can be walked.
    ///
    /// # Errors
    /// `ErrorKind::GuestAddress` if the place is not in the guest's memory.
    pub(crate) fn scrub(&self, memory: &GuestMemory) -> Result<()> {
        memory.write(GuestAddress(self.at), &vec![arch::BLANK; self.len()])
    }

    /// Refuses places that no table of ours has. They may be anybody's.
    ///
    /// # Errors
    /// `ErrorKind::Secret` for a name that no secret has, and `ErrorKind::GuestAddress`.
    #[cfg(feature = "save")]
    pub(crate) fn check_all(places: &[Self], memory: &GuestMemory) -> Result<()> {
        let refused = |message| Err(crate::Error::new(crate::ErrorKind::GuestAddress, message));
        let (count, most, room) = (places.len(), arch::MOST_OEM_STRINGS, arch::OEM_STRINGS_ROOM);
        if count > most {
            return refused(format!("there are places for {count} secrets, allowed are {most}"));
        }
        let bytes = places.iter().fold(0, |sum: usize, place| sum.saturating_add(place.len()).saturating_add(1));
        if bytes > room {
            return refused(format!("the places of secrets take {bytes} bytes, allowed are {room}"));
        }
        for Self { name, at, len } in places {
            check_name(name)?;
            if !memory.contains(GuestAddress(*at), u64::from(*len)) {
                return refused(format!("secret {name} lies in {len} bytes at {at:#x}, where none can be"));
            }
        }
        Ok(())
    }

    fn len(&self) -> usize {
        usize::try_from(self.len).unwrap_or(usize::MAX)
    }
}

fn string_len(secret: &Secret) -> usize {
    string_len_of(secret.name(), secret.expose().len())
}

fn string_len_of(name: &str, value: usize) -> usize {
    let encoded = value.div_ceil(3).saturating_mul(4);
    [PREFIX.len(), name.len(), 1, encoded].into_iter().fold(0, usize::saturating_add)
}

/// Refuses secrets that no table can have.
///
/// # Errors
/// `ErrorKind::Secret`.
pub(crate) fn check(secrets: &[Secret]) -> Result<()> {
    let (count, most) = (secrets.len(), arch::MOST_OEM_STRINGS);
    if count > most {
        return Err(refused(format!("a VM was given {count} secrets, allowed are {most}")));
    }
    let mut names: Vec<_> = secrets.iter().map(Secret::name).collect();
    names.sort_unstable();
    if let Some([name, _]) = names.array_windows().find(|[one, other]| one == other) {
        return Err(refused(format!("secret {name} was given twice, allowed is once")));
    }
    let bytes = secrets.iter().fold(0, |sum: usize, secret| sum.saturating_add(string_len(secret)).saturating_add(1));
    let room = arch::OEM_STRINGS_ROOM;
    if bytes <= room {
        return Ok(());
    }
    let message = format!(
        "the secrets of a VM take {bytes} bytes in its tables, allowed are {room}: each takes its name, 31 bytes, and 4 bytes for 3 of its value"
    );
    Err(refused(message))
}

#[cfg(test)]
#[path = "credential_test.rs"]
mod tests;
