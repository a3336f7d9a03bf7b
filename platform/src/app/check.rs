//! What the fields of `app.toml` may say.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;

use super::raw::{self, Number, Text};
use super::{App, Check, Mount, Replicate, Service, Snapshots};
use crate::edge::check_name;
use crate::fault::{Fault, Result};

/// A field that is refused.
pub struct Refused {
    pub at: Range<usize>,
    pub why: String,
}

type Checked<T> = std::result::Result<T, Refused>;

/// The presets: name, vCPUs, MiB.
const SIZES: [(&str, u32, u64); 5] =
    [("tiny", 1, 128), ("small", 1, 256), ("medium", 2, 1024), ("large", 4, 4096), ("huge", 8, 16384)];
/// An app has no more services.
pub const MOST_SERVICES: usize = 32;
const MOST_VOLUMES: usize = 8;
/// The serial number of a disk has no room for more.
const MOST_VOLUME_NAME: usize = 20;
/// So many VMs of an app may be asked for.
pub const MOST_VMS: u32 = 100;
/// A mesh has no more hosts, so an app is at no more.
pub const MOST_HOSTS: usize = 16;
const SMALLEST_VOLUME: u64 = 1 << 20;
const LARGEST_VOLUME: u64 = 1 << 50;
/// The seconds between two snapshots by the clock.
const SHORTEST_EVERY: u64 = 10;
const LONGEST_EVERY: u64 = 30 * 86_400;
/// The seconds after which what has changed is sent to another host.
const SHORTEST_SEND: u64 = 2;
const LONGEST_SEND: u64 = 86_400;
/// A volume has 16 files at most that build on each other; some of these snapshots are taken by people.
const MOST_SNAPSHOTS: u32 = 10;

fn refused<T, V>(value: &Spanned<V>, why: impl Into<String>) -> Checked<T> {
    Err(Refused { at: value.span(), why: why.into() })
}

pub fn checked(raw: raw::App, folder: &Path) -> Checked<App> {
    let (vcpus, memory_mib) = size(&raw)?;
    let volumes = volumes(&raw)?;
    let count = raw.count.as_ref().map(|count| number(count, "count", 0, MOST_VMS.into())).transpose()?;
    let count = count.map(|count| u32::try_from(count).unwrap_or(MOST_VMS));
    if let (Some(count), Some(written), false) = (count, &raw.count, volumes.is_empty())
        && count > 1
    {
        return refused(
            written,
            format!("count = {count} with volumes: a volume is in one VM at a time, so allowed are 0 and 1"),
        );
    }
    let (env, secrets) = variables(&raw)?;
    Ok(App {
        name: name(&raw.name, "name")?,
        image: path(&raw.image, "image", folder)?,
        kernel: raw.kernel.as_ref().map(|kernel| path(kernel, "kernel", folder)).transpose()?,
        command: raw.command.clone(),
        env,
        secrets,
        vcpus,
        memory_mib,
        count,
        hosts: hosts(&raw, &volumes)?,
        stop_grace: duration(raw.stop_grace.as_ref(), "stop_grace", 10, 0..=300)?,
        services: services(&raw)?,
        volumes,
        idle: raw.idle.as_ref().map(|idle| duration(Some(idle), "idle", 0, 1..=604_800)).transpose()?,
    })
}

/// The environment, and the names of secrets, which become part of it.
fn variables(raw: &raw::App) -> Checked<(BTreeMap<String, String>, Vec<String>)> {
    let mut env = BTreeMap::new();
    for (name, value) in &raw.env {
        env.insert(variable(name, "env")?, plain(value, "a value of env")?);
    }
    let secrets = raw.secrets.iter().map(|secret| variable(secret, "secrets")).collect::<Checked<Vec<_>>>()?;
    if let Some(twice) = raw.secrets.iter().find(|secret| env.contains_key(secret.get_ref())) {
        return refused(twice, format!("{} is in env and in secrets; allowed is one of them", twice.get_ref()));
    }
    Ok((env, secrets))
}

/// Refuses an app that another host tells of and that no text could have described: what names files and disks, above all.
///
/// # Errors
/// What of it is refused.
pub fn check_told(app: &App) -> Result<()> {
    let refused = |what: &str| Err(Fault::new(format!("the app {} has {what}, which no app.toml can say", app.name)));
    let is_volume = |mount: &Mount| {
        // A copy has the size of what it is one of.
        let is_copy = mount.replica_of.is_some() && mount.size == 0;
        let is_size = is_copy || (SMALLEST_VOLUME..=LARGEST_VOLUME).contains(&mount.size);
        is_name(&mount.name) && mount.name.len() <= MOST_VOLUME_NAME && mount.path.starts_with('/') && is_size
    };
    let is_service = |service: &Service| service.port > 0 && service.names.iter().all(|name| check_name(name).is_ok());
    if !is_name(&app.name) {
        return refused("a name that is none");
    }
    if app.volumes.len() > MOST_VOLUMES || !app.volumes.iter().all(is_volume) {
        return refused("wrong volumes");
    }
    if app.services.len() > MOST_SERVICES || !app.services.iter().all(is_service) {
        return refused("wrong services");
    }
    if !(1..=64).contains(&app.vcpus) || !(64..=1 << 20).contains(&app.memory_mib) || app.kernel.is_some() {
        return refused("a wrong size, or a kernel of its own");
    }
    Ok(())
}

/// How many VMs run at which host. Which hosts there are is not known here.
fn hosts(raw: &raw::App, volumes: &[Mount]) -> Checked<Option<BTreeMap<String, u32>>> {
    let Some(written) = &raw.hosts else { return Ok(None) };
    if let Some(count) = &raw.count {
        return refused(count, "count beside hosts: hosts says how many VMs run where, so leave one of them out");
    }
    if let Some(kernel) = &raw.kernel {
        return refused(kernel, "kernel beside hosts: each host has the kernel of its own `cell serve --kernel`");
    }
    let (mut hosts, mut sum) = (BTreeMap::new(), 0);
    for (host, count) in written.get_ref() {
        let counted = number(count, "a count of hosts", 0, MOST_VMS.into())?;
        sum = counted.saturating_add(sum);
        hosts.insert(name(host, "hosts")?, u32::try_from(counted).unwrap_or(MOST_VMS));
    }
    if hosts.len() > MOST_HOSTS || sum > MOST_VMS.into() {
        return refused(
            written,
            format!("hosts names {} hosts and {sum} VMs; allowed are {MOST_HOSTS} and {MOST_VMS}", hosts.len()),
        );
    }
    if sum > 1 && !volumes.is_empty() {
        let why = format!("hosts with {sum} VMs and volumes: a volume is in one VM at a time, so allowed are 0 and 1");
        return refused(written, why);
    }
    Ok(Some(hosts))
}

fn size(raw: &raw::App) -> Checked<(u32, u64)> {
    let (mut vcpus, mut memory) = (1, 256);
    if let Some(size) = &raw.size {
        let Some(preset) = SIZES.iter().find(|(name, ..)| name == size.get_ref()) else {
            let names: Vec<&str> = SIZES.iter().map(|(name, ..)| *name).collect();
            return refused(size, format!("size = \"{}\"; allowed are {}", size.get_ref(), names.join(", ")));
        };
        (vcpus, memory) = (preset.1, preset.2);
    }
    if let Some(written) = &raw.vcpus {
        vcpus = u32::try_from(number(written, "vcpus", 1, 64)?).unwrap_or(vcpus);
    }
    if let Some(written) = &raw.memory {
        memory = bytes(written, "memory", 64 << 20, 1 << 40)? >> 20;
    }
    Ok((vcpus, memory))
}

fn services(raw: &raw::App) -> Checked<Vec<Service>> {
    if let Some(over) = raw.services.get(MOST_SERVICES) {
        return refused(over, format!("more than {MOST_SERVICES} services"));
    }
    let (mut ports, mut names) = (BTreeSet::new(), BTreeSet::new());
    let mut services = Vec::new();
    for written in raw.services.iter().map(Spanned::get_ref) {
        let port = u16::try_from(number(&written.port, "port", 1, 65535)?).unwrap_or(0);
        if !ports.insert(port) {
            return refused(&written.port, format!("port {port} is given twice"));
        }
        for host in &written.names {
            if !names.insert(host_name(host)?) {
                return refused(host, format!("the name {} is given twice", host.get_ref()));
            }
        }
        services.push(Service {
            port,
            names: written.names.iter().map(host_name).collect::<Checked<_>>()?,
            allow: written.allow.iter().map(|app| name(app, "allow")).collect::<Checked<_>>()?,
            check: check(&written.check)?,
        });
    }
    Ok(services)
}

fn check(raw: &raw::Check) -> Checked<Check> {
    if let Some(path) = &raw.path {
        let text = path.get_ref();
        if !text.starts_with('/') || text.len() > 1024 || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return refused(path, format!("path = {text:?}; allowed is a path such as \"/health\" without spaces"));
        }
    }
    Ok(Check {
        path: raw.path.as_ref().map(|path| path.get_ref().clone()),
        interval: duration(raw.interval.as_ref(), "interval", 5, 1..=3600)?,
        timeout: duration(raw.timeout.as_ref(), "timeout", 2, 1..=60)?,
        grace: duration(raw.grace.as_ref(), "grace", 60, 1..=3600)?,
    })
}

fn volumes(raw: &raw::App) -> Checked<Vec<Mount>> {
    let mut seen = BTreeSet::new();
    let mut volumes = Vec::new();
    for written in &raw.volumes {
        let (name, path) = (name(&written.name, "the name of a volume")?, written.path.get_ref().clone());
        if name.len() > MOST_VOLUME_NAME {
            return refused(
                &written.name,
                format!("the name of a volume: {name:?}; allowed are {MOST_VOLUME_NAME} letters"),
            );
        }
        if volumes.len() == MOST_VOLUMES || !seen.insert(name.clone()) || !seen.insert(path.clone()) {
            let why = format!(
                "the volume {name} at {path}: names and paths are given once, and there are {MOST_VOLUMES} at most"
            );
            return refused(&written.name, why);
        }
        let parts = Path::new(&path).components().any(|part| matches!(part, std::path::Component::ParentDir));
        if !path.starts_with('/') || path == "/" || parts {
            return refused(&written.path, format!("path = {path:?}; allowed is an absolute path such as \"/data\""));
        }
        volumes.push(mount(written, name, path)?);
    }
    Ok(volumes)
}

fn mount(written: &raw::Mount, name: String, path: String) -> Checked<Mount> {
    let replica_of = written.replica_of.as_ref().map(|app| self::name(app, "replica_of")).transpose()?;
    let size = match (&written.size, &replica_of) {
        (Some(size), None) => bytes(size, "size", SMALLEST_VOLUME, LARGEST_VOLUME)?,
        (None, Some(_)) => 0,
        (None, None) => {
            return refused(&written.name, format!("the volume {name} has no size, such as size = \"10G\""));
        }
        (Some(size), Some(_)) => return refused(size, "size: a replica has that of the volume that it is a copy of"),
    };
    let snapshots = written.snapshots.as_ref().map(snapshots).transpose()?;
    let replicate = written.replicate.as_ref().map(replicate).transpose()?;
    if let (Some(of), true) = (&written.replica_of, snapshots.is_some() || replicate.is_some()) {
        return refused(of, "replica_of: a replica has neither snapshots nor replicas of its own");
    }
    Ok(Mount { name, path, size, snapshots, replicate, replica_of })
}

fn replicate(raw: &raw::Replicate) -> Checked<Replicate> {
    let every = duration(Some(&raw.every), "every", 0, SHORTEST_SEND..=LONGEST_SEND)?;
    Ok(Replicate { to: name(&raw.to, "to")?, every })
}

fn snapshots(raw: &raw::Snapshots) -> Checked<Snapshots> {
    let every = duration(Some(&raw.every), "every", 0, SHORTEST_EVERY..=LONGEST_EVERY)?;
    let longest = LONGEST_EVERY.saturating_mul(MOST_SNAPSHOTS.into());
    let keep = duration(Some(&raw.keep), "keep", 0, SHORTEST_EVERY..=longest)?;
    let most = every.saturating_mul(MOST_SNAPSHOTS);
    if (every..=most).contains(&keep) {
        return Ok(Snapshots { every, keep });
    }
    let [least, most] = [every, most].map(|time| humantime::format_duration(time).to_string());
    let why = format!("keep = {:?}; with this time between two, allowed are {least} to {most}", raw.keep.get_ref());
    refused(&raw.keep, why)
}

fn name(text: &Text, field: &str) -> Checked<String> {
    let value = text.get_ref();
    if is_name(value) {
        return Ok(value.clone());
    }
    refused(text, format!("{field}: {value:?}; allowed are 1 to 40 lower-case letters, digits and hyphens inside"))
}

/// Is it a name of an app or a volume?
pub fn is_name(value: &str) -> bool {
    let letters = value.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    (1..=40).contains(&value.len()) && letters && !value.starts_with('-') && !value.ends_with('-')
}

fn host_name(text: &Text) -> Checked<String> {
    let value = text.get_ref().to_ascii_lowercase();
    if check_name(&value).is_ok() {
        return Ok(value);
    }
    refused(text, format!("names: {:?}; allowed is a host name such as \"www.example.com\"", text.get_ref()))
}

fn variable(text: &Text, field: &str) -> Checked<String> {
    let value = text.get_ref();
    if is_variable(value) {
        return Ok(value.clone());
    }
    refused(text, format!("{field}: {value:?}; allowed are letters, digits and underscores, not a digit first"))
}

/// Is it a name of a variable, or of a secret?
pub fn is_variable(value: &str) -> bool {
    let letters = value.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    letters && (1..=200).contains(&value.len()) && !value.starts_with(|first: char| first.is_ascii_digit())
}

fn plain(text: &Text, field: &str) -> Checked<String> {
    if text.get_ref().contains('\0') {
        return refused(text, format!("{field} has a NUL in it"));
    }
    Ok(text.get_ref().clone())
}

fn path(text: &Text, field: &str, folder: &Path) -> Checked<PathBuf> {
    if plain(text, field)?.is_empty() {
        return refused(text, format!("{field} is empty; allowed is a path"));
    }
    Ok(folder.join(text.get_ref()))
}

fn number(value: &Number, field: &str, least: i64, most: i64) -> Checked<i64> {
    let number = *value.get_ref();
    if (least..=most).contains(&number) {
        return Ok(number);
    }
    refused(value, format!("{field} = {number}; allowed are {least} to {most}"))
}

fn duration(
    text: Option<&Text>,
    field: &str,
    default: u64,
    seconds: std::ops::RangeInclusive<u64>,
) -> Checked<Duration> {
    let Some(text) = text else { return Ok(Duration::from_secs(default)) };
    let (least, most) = (Duration::from_secs(*seconds.start()), Duration::from_secs(*seconds.end()));
    match humantime::parse_duration(text.get_ref()) {
        Ok(duration) if (least..=most).contains(&duration) => Ok(duration),
        _ => {
            let (least, most) = (humantime::format_duration(least), humantime::format_duration(most));
            refused(text, format!("{field} = {:?}; allowed are {least} to {most}, such as \"30s\"", text.get_ref()))
        }
    }
}

fn bytes(text: &Text, field: &str, least: u64, most: u64) -> Checked<u64> {
    match parse_bytes(text.get_ref()) {
        Some(bytes) if (least..=most).contains(&bytes) => Ok(bytes),
        _ => {
            let why = format!(
                "{field} = {:?}; allowed are {}M to {}G, such as \"512M\"",
                text.get_ref(),
                least >> 20,
                most >> 30
            );
            refused(text, why)
        }
    }
}

/// Reads a size such as `512M` or `2G`; in bytes.
pub fn parse_bytes(text: &str) -> Option<u64> {
    let end = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(end)?;
    let shift = match unit.trim_end_matches("iB").trim_end_matches('B') {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}
