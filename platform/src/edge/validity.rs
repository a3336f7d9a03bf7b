//! From when and until when a certificate holds: the one thing of it that is read here (RFC 5280, section 4.1).

use std::time::{Duration, SystemTime};

/// Tags of DER.
const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The times between which a certificate holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first moment.
    pub from: SystemTime,
    /// The last one.
    pub until: SystemTime,
}

impl Validity {
    /// Reads it from a certificate in DER.
    pub fn of(certificate: &[u8]) -> Option<Self> {
        let (SEQUENCE, certificate, _) = next(certificate)? else { return None };
        let (SEQUENCE, mut rest, _) = next(certificate)? else { return None };
        if rest.first() == Some(&VERSION) {
            rest = next(rest)?.2;
        }
        // The serial number, the algorithm, and who issued it.
        for tag in [INTEGER, SEQUENCE, SEQUENCE] {
            let (found, _, behind) = next(rest)?;
            if found != tag {
                return None;
            }
            rest = behind;
        }
        let (SEQUENCE, times, _) = next(rest)? else { return None };
        let (from_tag, from, behind) = next(times)?;
        let (until_tag, until, _) = next(behind)?;
        Some(Self { from: time(from_tag, from)?, until: time(until_tag, until)? })
    }

    /// When another one should be had: when a third of its time is left, so that there is time for what goes wrong.
    pub fn renewal(&self) -> SystemTime {
        let whole = self.until.duration_since(self.from).unwrap_or_default();
        self.until.checked_sub(whole.checked_div(3).unwrap_or_default()).unwrap_or(self.from)
    }
}

/// The tag of the value at the front, its content, and what is behind it.
fn next(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = bytes.split_first()?;
    let (len, rest) = rest.split_first()?;
    let (len, rest) = match len {
        0..=0x7f => (usize::from(*len), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(len & 0x7f))?;
            let len =
                digits.iter().try_fold(0_usize, |len, digit| len.checked_mul(256)?.checked_add(usize::from(*digit)))?;
            (len, rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(len)?;
    Some((*tag, content, rest))
}

/// `YYMMDDHHMMSSZ`, or with four digits of the year.
fn time(tag: u8, text: &[u8]) -> Option<SystemTime> {
    let text = str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let (years, len) = match tag {
        UTC_TIME => (2, 12),
        GENERALIZED_TIME => (4, 14),
        _ => return None,
    };
    if !text.bytes().all(|byte| byte.is_ascii_digit()) || text.len() != len {
        return None;
    }
    let (year, rest) = text.split_at_checked(years)?;
    let year: u64 = year.parse().ok()?;
    let year = match (tag, year) {
        (UTC_TIME, 50..) => year.checked_add(1900)?,
        (UTC_TIME, _) => year.checked_add(2000)?,
        _ => year,
    };
    let number = |at: usize| rest.get(at..at.checked_add(2)?)?.parse::<u64>().ok();
    let (month, day, hour, minute, second) = (number(0)?, number(2)?, number(4)?, number(6)?, number(8)?);
    let days = days_before(year, month)?.checked_add(day.checked_sub(1)?)?;
    let hours = days.checked_mul(24)?.checked_add(hour)?;
    let seconds = hours.checked_mul(60)?.checked_add(minute)?.checked_mul(60)?.checked_add(second)?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

/// How many days lie between 1970 and a month.
fn days_before(year: u64, month: u64) -> Option<u64> {
    const DAYS: [u64; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let is_leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let whole: u64 = (1970..year).map(|year| if is_leap(year) { 366 } else { 365 }).sum();
    let months = DAYS.get(..usize::try_from(month.checked_sub(1)?).ok()?.min(12))?.iter().sum::<u64>();
    let leap_day = u64::from(month > 2 && is_leap(year));
    (year >= 1970).then_some(whole)?.checked_add(months)?.checked_add(leap_day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(tag: u8, text: &str) -> Option<u64> {
        time(tag, text.as_bytes()).map(|time| time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs())
    }

    #[test]
    fn times_are_seconds_since_1970() {
        assert_eq!(seconds(GENERALIZED_TIME, "19700101000000Z"), Some(0));
        assert_eq!(seconds(UTC_TIME, "261129085100Z"), Some(1_795_942_260));
        assert_eq!(seconds(UTC_TIME, "000229235959Z"), Some(951_868_799));
        assert_eq!(seconds(GENERALIZED_TIME, "20500301000000Z"), Some(2_529_705_600));
        for (tag, text) in [
            (UTC_TIME, ""),
            (UTC_TIME, "2611290851Z"),
            (UTC_TIME, "261129085100"),
            (GENERALIZED_TIME, "196901010000 0Z"),
            (4, "261129085100Z"),
        ] {
            assert_eq!(seconds(tag, text), None, "{text}");
        }
    }

    #[test]
    fn a_certificate_says_when_it_ends_and_one_that_is_cut_says_nothing() {
        let mut params = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        (params.not_before, params.not_after) = (rcgen::date_time_ymd(2026, 1, 1), rcgen::date_time_ymd(2026, 4, 1));
        let certificate = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        let validity = Validity::of(certificate.der()).unwrap();
        let day = Duration::from_secs(24 * 3600);
        assert_eq!(validity.until.duration_since(validity.from).unwrap(), day * 90);
        assert_eq!(validity.until.duration_since(validity.renewal()).unwrap(), day * 30);
        for len in 0..certificate.der().len() {
            assert_eq!(Validity::of(&certificate.der()[..len]), None);
        }
    }
}
