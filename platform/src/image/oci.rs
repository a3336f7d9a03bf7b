//! An OCI image layout, in a folder or a tar archive: which layers the image has and what it runs. All that is read is checked against
//! its digest.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, open, openat};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::entry::{Kind, shown_place};
use super::limits::Limits;
use super::stream::{Digesting, unpacked};
use super::tar::{self, End, Visit};
use crate::fault::{Context, Fault, Result};

/// The most bytes of an index, a manifest or a configuration.
const MOST_JSON: u64 = 4 << 20;
/// Indexes in indexes.
const MOST_DEPTH: usize = 3;

/// An image whose manifest and configuration were read.
pub struct Layout {
    store: Store,
    layers: Vec<Layer>,
    /// What it runs.
    pub config: Config,
}

/// Where its blobs are.
enum Store {
    Folder(PathBuf),
    /// By name, where each begins and how long it is.
    Archive(PathBuf, HashMap<String, (u64, u64)>),
}

struct Layer {
    blob: Descriptor,
    /// The digest of the unpacked layer.
    unpacked: String,
}

/// What an image runs, as its configuration has it.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "PascalCase", default)]
pub struct Config {
    /// `NAME=VALUE`.
    pub env: Option<Vec<String>>,
    /// In front of the command.
    pub entrypoint: Option<Vec<String>>,
    /// The program, or its arguments if there is an entry point.
    pub cmd: Option<Vec<String>>,
    /// Where it begins.
    pub working_dir: Option<String>,
    /// Whose it is.
    pub user: Option<String>,
    /// What ends it.
    pub stop_signal: Option<String>,
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    platform: Option<Platform>,
}

#[derive(Clone, Deserialize)]
struct Platform {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
}

#[derive(Deserialize)]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Description {
    #[serde(default)]
    config: Option<Config>,
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<String>,
}

impl Layout {
    /// Opens one in a folder.
    ///
    /// # Errors
    /// As those of [`archive`](Self::archive).
    pub fn folder(folder: &Path, limits: &Limits) -> Result<Self> {
        Self::open(Store::Folder(folder.to_owned()), limits)
    }

    /// Opens one in an archive, if `archive` is one.
    ///
    /// # Errors
    /// If a digest is wrong, something is missing, or there is none or more than one image for this machine.
    pub fn archive(archive: &Path, limits: &Limits) -> Result<Option<Self>> {
        let file = File::open(archive).context("cannot open it")?;
        let (mut blobs, mut begin) = (HashMap::new(), [0; 2]);
        let packed =
            (&file).read(&mut begin).context("cannot read it")? == 2 && matches!(begin, [0x1f, 0x8b] | [0x28, 0xb5]);
        (&file).seek(SeekFrom::Start(0)).context("cannot read it")?;
        let mut stream = Digesting::new(unpacked(&file)?, limits.archive_bytes);
        tar::read(&mut stream, End::Marked, &mut |_, entry, _| {
            if let (
                Kind::File(bytes),
                Some(b"oci-layout" | b"index.json" | b"manifest.json" | b"blobs" | b"repositories"),
            ) = (&entry.kind, entry.place.first().map(Vec::as_slice))
            {
                let name = shown_place(&entry.place);
                if blobs.len() as u64 >= limits.files || blobs.insert(name.clone(), (entry.mark, *bytes)).is_some() {
                    return Err(Fault::new(format!(
                        "the entry `{name}`: the archive has it twice, or too many like it"
                    )));
                }
            }
            Ok(())
        })?;
        let is_layout = blobs.contains_key("oci-layout") && blobs.contains_key("index.json");
        if is_layout && packed {
            return Err(Fault::new("an OCI image layout that is packed as a whole")
                .next("unpack it first, by gunzip or unzstd"));
        }
        if !is_layout && blobs.contains_key("manifest.json") && blobs.contains_key("repositories") {
            return Err(Fault::new("an archive as `podman save` and old versions of `docker save` write it")
                .next("make an OCI one of it: skopeo copy docker-archive:OLD oci-archive:NEW"));
        }
        if is_layout { Self::open(Store::Archive(archive.to_owned(), blobs), limits).map(Some) } else { Ok(None) }
    }

    fn open(store: Store, limits: &Limits) -> Result<Self> {
        let mut bytes = Vec::new();
        store.open("index.json", None)?.take(MOST_JSON).read_to_end(&mut bytes).context("index.json")?;
        let index: Index = parsed("index.json", &bytes)?;
        let manifest: Manifest = store.json(&chosen(&store, index, 0)?)?;
        let description: Description = store.json(&manifest.config)?;
        let (layers, ids) = (manifest.layers.len(), description.rootfs.diff_ids.len());
        if layers != ids || layers > limits.layers {
            return Err(Fault::new(format!(
                "the image has {layers} layers and {ids} digests of them; allowed are as many of each, at most {}",
                limits.layers
            )));
        }
        let both = manifest.layers.into_iter().zip(description.rootfs.diff_ids);
        let layers: Vec<Layer> = both.map(|(blob, unpacked)| Layer { blob, unpacked }).collect();
        if let Some(other) = layers
            .iter()
            .find(|layer| !layer.blob.media_type.contains("tar") || layer.blob.media_type.contains("encrypted"))
        {
            return Err(Fault::new(format!(
                "a layer of the type `{}`; allowed are tar archives, plain or packed",
                other.blob.media_type
            )));
        }
        Ok(Self { store, layers, config: description.config.unwrap_or_default() })
    }

    /// How many layers there are.
    pub fn layers(&self) -> usize {
        self.layers.len()
    }

    /// Reads a layer.
    ///
    /// # Errors
    /// If its digest is wrong; those of archives.
    pub fn read(&self, number: usize, limits: &Limits, visit: Visit<'_>) -> Result<()> {
        let Some(Layer { blob, unpacked: wanted }) = self.layers.get(number) else { return Ok(()) };
        let mut read = || -> Result<(String, String)> {
            let mut packed = Digesting::new(self.store.blob(blob)?, blob.size);
            let inner = {
                let mut stream = Digesting::new(unpacked(&mut packed)?, limits.archive_bytes);
                tar::read(&mut stream, End::Digested, visit)?;
                stream.finish().context("cannot read the layer")?
            };
            Ok((packed.finish().context("cannot read the layer")?, inner))
        };
        let (packed, inner) = read()
            .map_err(|fault| Fault { message: format!("the layer {}: {}", blob.digest, fault.message), ..fault })?;
        check(&blob.digest, &packed)?;
        check(wanted, &inner)
    }
}

/// The one manifest for this machine.
fn chosen(store: &Store, index: Index, depth: usize) -> Result<Descriptor> {
    let is_here = |platform: &Option<Platform>| {
        platform
            .as_ref()
            .is_none_or(|platform| (platform.os.as_str(), platform.architecture.as_str()) == ("linux", "amd64"))
    };
    let all = index.manifests.len();
    let mut here: Vec<Descriptor> = index.manifests.into_iter().filter(|one| is_here(&one.platform)).collect();
    // One image under several names is there once for each.
    here.sort_by(|one, other| one.digest.cmp(&other.digest));
    here.dedup_by(|one, other| (&one.digest, one.size) == (&other.digest, other.size));
    let (Some(one), true) = (here.pop(), here.is_empty()) else {
        return Err(Fault::new(format!("{all} images, of which not exactly one is for linux/amd64"))
            .next("write an archive of the one that you want"));
    };
    if !one.media_type.contains("index") && !one.media_type.contains("manifest.list") {
        return Ok(one);
    }
    if depth >= MOST_DEPTH {
        return Err(Fault::new(format!("more than {MOST_DEPTH} indexes in each other")));
    }
    chosen(store, store.json(&one)?, depth.saturating_add(1))
}

impl Store {
    fn json<T: DeserializeOwned>(&self, blob: &Descriptor) -> Result<T> {
        if blob.size > MOST_JSON {
            return Err(Fault::new(format!(
                "the blob {} of {} bytes; allowed are {MOST_JSON} for what is no layer",
                blob.digest, blob.size
            )));
        }
        let mut bytes = Vec::new();
        let mut stream = Digesting::new(self.blob(blob)?, MOST_JSON);
        stream.read_to_end(&mut bytes).context(&blob.digest)?;
        check(&blob.digest, &stream.finish().context(&blob.digest)?)?;
        parsed(&blob.digest, &bytes)
    }

    /// A blob, whose digest the caller checks.
    fn blob(&self, blob: &Descriptor) -> Result<Box<dyn Read>> {
        let hex = blob
            .digest
            .strip_prefix("sha256:")
            .filter(|hex| hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let hex =
            hex.ok_or_else(|| Fault::new(format!("the digest `{}`; allowed are those of SHA-256", blob.digest)))?;
        self.open(&format!("blobs/sha256/{hex}"), Some(blob.size))
    }

    /// A file of the layout, which has to have this size.
    fn open(&self, name: &str, wanted: Option<u64>) -> Result<Box<dyn Read>> {
        let (file, size) = match self {
            Self::Folder(folder) => {
                let flags = OFlags::RDONLY | OFlags::CLOEXEC;
                let mut here = open(folder, flags | OFlags::DIRECTORY, Mode::empty()).context(folder.display())?;
                for part in name.split('/') {
                    here = openat(&here, part, flags | OFlags::NOFOLLOW | OFlags::NONBLOCK, Mode::empty())
                        .context(name)?;
                }
                let file = File::from(here);
                let size = file.metadata().context(name)?.len();
                (file, size)
            }
            Self::Archive(archive, blobs) => {
                let (at, size) =
                    *blobs.get(name).ok_or_else(|| Fault::new(format!("there is no {name} in the archive")))?;
                let mut file = File::open(archive).context(archive.display())?;
                file.seek(SeekFrom::Start(at)).context(archive.display())?;
                (file, size)
            }
        };
        match wanted {
            Some(wanted) if wanted != size => {
                Err(Fault::new(format!("{name} has {size} bytes, and the image says {wanted}")))
            }
            _ => Ok(Box::new(file.take(size))),
        }
    }
}

fn check(wanted: &str, found: &str) -> Result<()> {
    if wanted == found {
        Ok(())
    } else {
        Err(Fault::new(format!("the digest {wanted} is wrong: the content has {found}")))
    }
}

fn parsed<T: DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| Fault::new(format!("{name} is not as OCI has it: {error}")))
}

/// The environment, by names.
///
/// # Errors
/// If a variable has no name.
pub fn environment(config: &Config) -> Result<BTreeMap<String, String>> {
    let all = config.env.iter().flatten();
    let split = |text: &String| {
        text.split_once('=')
            .filter(|(name, _)| !name.is_empty())
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
    };
    all.map(|text| {
        split(text).ok_or_else(|| Fault::new(format!("the image's variable `{text}`; allowed is NAME=VALUE")))
    })
    .collect()
}
