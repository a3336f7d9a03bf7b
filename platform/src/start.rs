//! Puts a host together: its folder, its network, its kernels and images.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use vmcell::network::{Network, NetworkConfig, Subnet};

use crate::app::is_name;
use crate::edge::{Authority, EdgeLimits, EdgeSettings};
use crate::fault::{Context, Fault, Result};
use crate::host::{self, Folder, Host, Joined, Laptops, Mesh, Parts, Secrets, Volumes};
use crate::image;
use crate::machine::launch::Vms;
use crate::options::Serve;
use crate::page::Page;
use crate::serve;
use crate::state::{Built, State};

/// The number of the network; the realm is drawn by lot.
const NETWORK: u32 = 1;
/// How long a name waits after its first order of a certificate that failed.
const ORDER_AGAIN: Duration = Duration::from_secs(60);

/// What a person is told who has named a file that is not there.
const KERNEL: &str = "Name the file of a Linux kernel; that of a Debian or Ubuntu host is /boot/vmlinuz-$(uname -r).";
const MODULES: &str = "Name the folder of the kernel's modules, such as /lib/modules/$(uname -r).";
const INIT: &str = "`cargo build --release -p vmcell-platform` makes cell-init beside cell; from elsewhere, name it: `cell serve --init PATH`.";

/// Runs `cell serve`.
///
/// # Errors
/// The folder is not ours, or what is in it cannot be read; those of [`serve::serve`].
pub fn serve(state: &Path, how: &Serve, say: fn(&str)) -> Result<()> {
    // With fewer of them, less can run; that is no reason to run nothing.
    serve::raise_descriptors().unwrap_or_else(|fault| say(&fault.message));
    let folder = Folder::open(state)?;
    let kernel = how.kernel.as_ref().map(|kernel| existing(kernel, "--kernel", KERNEL)).transpose()?;
    if kernel.is_none() {
        say("Without --kernel, those apps alone run that name a kernel of their own");
    }
    let state = Arc::new(State::open(folder.path())?);
    let realm = realm(&state)?;
    let network = Network::new(NetworkConfig::new(Subnet::new(realm, NETWORK)))?;
    let initrds = initrds(folder.path().join("boot"), how)?;
    let secrets = Arc::new(Secrets::open(&folder.secrets())?);
    let (known, keys, volumes) = (Arc::clone(&state), Arc::clone(&secrets), folder.volumes());
    let disks = move |app: &str, volume: &str| {
        Volumes { state: &known, secrets: &keys, folder: volumes.clone() }.opened(app, volume)
    };
    let laptops = how.wireguard.map(|endpoint| Laptops::open(&network, &state, &secrets, endpoint)).transpose()?;
    let is_several = how.mesh.is_some() || state.roster()?.is_some();
    let named = if is_several { own_name(&state, how.name.clone(), &system_name())? } else { String::new() };
    let mesh =
        is_several.then(|| Mesh::open(&network, &state, &secrets, (&named, how.mesh)).map(Arc::new)).transpose()?;
    let launcher = Arc::new(Vms { network: network.clone(), disks: Box::new(disks), initrds });
    let parts = Parts { folder, state, secrets, network, laptops, mesh, launcher, build: Box::new(build), kernel };
    let certificates = parts.folder.path().join("edge");
    let host = Arc::new(Host::new(parts));
    if !how.https.is_empty() {
        host.start_edge(edge(how, certificates)?, Arc::new(move |line: String| say(&line)))?;
    }
    host.start_mesh()?;
    let page = how.ui.map(|address| Page::start(&host, address)).transpose()?;
    if let Some(page) = &page {
        say(&format!("http://{}/ shows what runs", page.address()));
    }
    serve::serve(&host, &say)
}

/// Runs `cell join`.
///
/// # Errors
/// Those of [`host::join`].
pub fn join(state: &Path, token: &str, mesh: SocketAddr, given: Option<String>) -> Result<Joined> {
    host::join(&Folder::open(state)?, token, &name(given, &system_name())?, mesh)
}

/// What the system calls this host.
fn system_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().to_ascii_lowercase()
}

/// The name of a host that is in a mesh, or becomes the first of one.
fn own_name(state: &State, given: Option<String>, system: &str) -> Result<String> {
    let own = state.own_number()?;
    let known = state.roster()?.and_then(|roster| roster.numbered(own).map(|member| member.name.clone()));
    known.map_or_else(|| name(given, system), Ok)
}

/// The name of this host: what was given, or what the system calls it.
fn name(given: Option<String>, system: &str) -> Result<String> {
    if let Some(name) = given {
        return Ok(name);
    }
    let first = system.split('.').next().unwrap_or_default().to_owned();
    if is_name(&first) {
        return Ok(first);
    }
    Err(Fault::new(format!("the system's name {first:?} is no name of a host")).next("Name it: `--name NAME`."))
}

/// What the edge is to be.
fn edge(how: &Serve, folder: PathBuf) -> Result<EdgeSettings> {
    let bind = |what: &str, to: &[SocketAddr]| -> Result<Vec<TcpListener>> {
        to.iter().map(|address| TcpListener::bind(address).context(format!("{what} {address}"))).collect()
    };
    let (http, https) = (bind("--http", &how.http)?, bind("--https", &how.https)?);
    let bound = https.first().and_then(|listener| listener.local_addr().ok()).map_or(443, |address| address.port());
    let authority = how.acme.as_ref().map(|directory| Authority {
        directory: directory.clone(),
        contact: how.acme_contact.clone(),
        roots: how.acme_roots.clone(),
        wait: ORDER_AGAIN,
    });
    let https_port = how.https_port.unwrap_or(bound);
    Ok(EdgeSettings { http, https, https_port, folder, authority, limits: EdgeLimits::default() })
}

fn existing(path: &Path, what: &str, next: &str) -> Result<PathBuf> {
    let found = path.canonicalize().context(format!("{what} {}", path.display()));
    found.map_err(|fault| fault.next(next))
}

/// The first three bytes of the network's addresses, drawn once.
fn realm(state: &State) -> Result<[u8; 3]> {
    let drawn = state.setting("realm", || {
        let mut bytes = [0; 3];
        rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).context("random bytes")?;
        Ok(u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]).to_string())
    })?;
    let number: u32 = drawn.parse().context("state: the realm")?;
    let [_, first, second, third] = number.to_be_bytes();
    Ok([first, second, third])
}

fn build(source: &Path, into: &Path) -> Result<Built> {
    let image = image::build(source, into, &image::Limits::default())?;
    let name = image.digest.trim_start_matches("sha256:").to_owned();
    if name.len() != 64 || !name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Fault::new(format!("the image's digest is {name:?}; allowed are 64 hexadecimal digits")));
    }
    Ok(Built {
        file: format!("{name}.erofs"),
        command: image.command,
        env: image.env,
        working_dir: image.working_dir,
        user: image.user,
    })
}

type Initrds = Box<crate::machine::launch::Initrds>;

/// Makes an initrd for each kernel, once in the life of the process.
fn initrds(folder: PathBuf, how: &Serve) -> Result<Initrds> {
    let init = match &how.init {
        Some(init) => existing(init, "--init", INIT)?,
        None => beside()?,
    };
    let modules = how.modules.as_ref().map(|modules| existing(modules, "--modules", MODULES)).transpose()?;
    let made = Mutex::new(Vec::<(PathBuf, PathBuf)>::new());
    Ok(Box::new(move |kernel| {
        // One at a time; others wait for the same file.
        let mut made = made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, initrd)) = made.iter().find(|(known, _)| known == kernel) {
            return Ok(initrd.clone());
        }
        let initrd = folder.join(format!("{}.initrd", made.len()));
        image::initrd(&init, kernel, modules.as_deref(), &initrd)?;
        made.push((kernel.to_owned(), initrd.clone()));
        Ok(initrd)
    }))
}

/// `cell-init` in the folder of this program.
fn beside() -> Result<PathBuf> {
    let own = std::env::current_exe().context("this program's place")?;
    let init = own.with_file_name("cell-init");
    if init.is_file() {
        return Ok(init);
    }
    Err(Fault::new(format!("{}: there is no such file", init.display())).next(INIT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{Member, Roster};

    #[test]
    fn a_host_has_the_name_that_it_has_joined_by_whatever_the_system_says() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(folder.path()).unwrap();
        assert_eq!(own_name(&state, None, "alpha.example.com").unwrap(), "alpha");
        assert_eq!(own_name(&state, Some("beta".into()), "(none)").unwrap(), "beta");
        let none = own_name(&state, None, "(none)").unwrap_err();
        assert!(none.message.contains("no name of a host") && none.next.unwrap().contains("--name NAME"));
        let endpoint = SocketAddr::from(([127, 0, 0, 1], 7000));
        let (certificate, tunnel) = ("0".repeat(64), String::new());
        let member = Member { number: 2, name: "gamma".into(), endpoint, moves: 0, certificate, tunnel };
        state.join(0, 2, &Roster::of_one(member)).unwrap();
        assert_eq!(own_name(&state, None, "(none)").unwrap(), "gamma");
    }
}
