use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, recv, sendto, socket};
use vmcell_platform::guest::Settings;

use crate::mounts::Root;

/// For a router's first advertisement.
const ADDRESS_LIMIT: Duration = Duration::from_secs(5);
/// A request to change a link (RTM_NEWLINK), which is answered (NLM_F_REQUEST, NLM_F_ACK).
const NEW_LINK: u16 = 16;
const ANSWERED: u16 = 5;
/// The flag of a link that is up.
const UP: u32 = 1;

/// Brings all links up, and waits for an address if that is wanted.
pub fn begin(settings: &Settings) -> Result<(), String> {
    let mut has_card = false;
    for entry in fs::read_dir("/sys/class/net").map_err(|error| format!("/sys/class/net: {error}"))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        has_card |= name != "lo";
        // Addresses of the MAC address, which the host knows, at once and without asking neighbours whether they have them.
        for (setting, value) in [("addr_gen_mode", "0"), ("accept_dad", "0"), ("dad_transmits", "0")] {
            // A kernel without IPv6 has none of them.
            let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{name}/{setting}"), value);
        }
        up(&entry.path()).map_err(|error| format!("the network link {name}: {error}"))?;
    }
    let began = Instant::now();
    while settings.await_address && has_card && !has_address() && began.elapsed() < ADDRESS_LIMIT {
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Writes who this is and whom to ask for names.
pub fn names(settings: &Settings, root: &Root) -> Result<(), String> {
    let name = settings.hostname.as_deref().unwrap_or("localhost");
    rustix::system::sethostname(name.as_bytes()).map_err(|error| format!("the name `{name}`: {error}"))?;
    root.write("etc", "hostname", &format!("{name}\n"))?;
    root.write("etc", "hosts", &format!("127.0.0.1 localhost\n::1 localhost\n127.0.1.1 {name}\n"))?;
    if settings.nameservers.is_empty() {
        return Ok(());
    }
    let servers: String = settings.nameservers.iter().map(|server| format!("nameserver {server}\n")).collect();
    let search = settings.search.iter().map(|domain| format!("search {domain}\n")).collect::<String>();
    root.write("etc", "resolv.conf", &(search + &servers))
}

fn up(link: &Path) -> Result<(), String> {
    let index = fs::read_to_string(link.join("ifindex")).map_err(|error| error.to_string())?;
    let index: u32 = index.trim().parse().map_err(|_| format!("the index `{}`", index.trim()))?;
    let send = || -> rustix::io::Result<i32> {
        let socket = socket(AddressFamily::NETLINK, SocketType::RAW, None)?;
        sendto(&socket, &request(index), SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        let mut answer = [0; 256];
        recv(&socket, &mut answer[..], RecvFlags::empty())?;
        // Behind the header of 16 bytes: 0 or a negative error.
        Ok(answer.get(16..20).and_then(|bytes| bytes.try_into().ok()).map_or(0, i32::from_ne_bytes))
    };
    match send().map_err(|error| error.to_string())? {
        0 => Ok(()),
        error => Err(std::io::Error::from_raw_os_error(error.saturating_neg()).to_string()),
    }
}

fn request(index: u32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(32);
    bytes.extend(32_u32.to_ne_bytes());
    bytes.extend(NEW_LINK.to_ne_bytes());
    bytes.extend(ANSWERED.to_ne_bytes());
    bytes.extend([0; 12]);
    bytes.extend(index.to_ne_bytes());
    bytes.extend(UP.to_ne_bytes());
    bytes.extend(UP.to_ne_bytes());
    bytes
}

/// Is there an address that is valid everywhere?
fn has_address() -> bool {
    fs::read_to_string("/proc/net/if_inet6").is_ok_and(|text| is_global(&text))
}

/// Lines have an address, numbers of link and prefix, scope, flags, and the link's name.
fn is_global(text: &str) -> bool {
    text.lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .any(|words| words.get(3) == Some(&"00") && words.get(5) != Some(&"lo"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_address_beyond_the_link_counts() {
        let local = "00000000000000000000000000000001 01 80 10 80       lo\nfe800000000000000000000000000001 02 40 20 80     eth0\n";
        assert!(!is_global(local));
        assert!(is_global(&format!("{local}fd000000000000000000000000000001 02 40 00 00     eth0\n")));
    }

    #[test]
    fn a_request_has_the_length_that_it_says() {
        assert_eq!((request(2).len(), request(2)[16..].len()), (32, 16));
    }
}
