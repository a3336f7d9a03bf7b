//! Archives and layouts for the tests.

use std::io::Write;
use std::path::Path;

use ::tar::{Builder, EntryType, Header};
use serde_json::json;
use sha2::{Digest, Sha256};

/// An archive under way.
pub struct Archive(Builder<Vec<u8>>);

impl Archive {
    pub fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    pub fn entry(mut self, path: &str, kind: EntryType, mode: u32, link: &str, content: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        // As it is, also if it leads outside.
        header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_gnu_mut().unwrap().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(1000);
        header.set_gid(100);
        header.set_mtime(1_700_000_000);
        header.set_size(content.len() as u64);
        header.set_device_major(1).unwrap();
        header.set_device_minor(3).unwrap();
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    pub fn file(self, path: &str, content: &[u8]) -> Self {
        self.entry(path, EntryType::Regular, 0o644, "", content)
    }

    pub fn folder(self, path: &str) -> Self {
        self.entry(path, EntryType::Directory, 0o755, "", b"")
    }

    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(path, EntryType::Symlink, 0o777, target, b"")
    }

    pub fn link(self, path: &str, target: &str) -> Self {
        self.entry(path, EntryType::Link, 0o644, target, b"")
    }

    /// In front of the next entry.
    pub fn pax(mut self, headers: &[(&str, &[u8])]) -> Self {
        self.0.append_pax_extensions(headers.iter().copied()).unwrap();
        self
    }

    pub fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(bytes).unwrap();
    packed.finish().unwrap()
}

pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

pub fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// An OCI image layout: its files by name. Layers come as they are packed, and as they are.
pub fn layout(layers: &[(Vec<u8>, Vec<u8>)]) -> Vec<(String, Vec<u8>)> {
    let mut blobs = Vec::new();
    let mut add = |bytes: Vec<u8>, kind: &str| {
        let descriptor = json!({"mediaType": kind, "digest": digest(&bytes), "size": bytes.len()});
        blobs.push((format!("blobs/sha256/{}", &digest(&bytes)[7..]), bytes));
        descriptor
    };
    let ids: Vec<String> = layers.iter().map(|(_, plain)| digest(plain)).collect();
    let config = json!({
        "architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": ids},
        "config": {"Entrypoint": ["/bin/sh", "-c"], "Cmd": ["echo $WHAT"], "Env": ["WHAT=a=b", "PATH=/bin"], "WorkingDir": "/srv", "User": "web"},
    });
    let layers: Vec<_> =
        layers.iter().map(|(packed, _)| add(packed.clone(), "application/vnd.oci.image.layer.v1.tar+gzip")).collect();
    let config = add(config.to_string().into_bytes(), "application/vnd.oci.image.config.v1+json");
    let manifest = json!({"schemaVersion": 2, "config": config, "layers": layers}).to_string().into_bytes();
    let mut manifest = add(manifest, "application/vnd.oci.image.manifest.v1+json");
    manifest["platform"] = json!({"os": "linux", "architecture": "amd64"});
    let other = json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest(b""), "size": 0,
                       "platform": {"os": "linux", "architecture": "arm64"}});
    let index = json!({"schemaVersion": 2, "manifests": [other, manifest]});
    blobs.push(("index.json".into(), index.to_string().into_bytes()));
    blobs.push(("oci-layout".into(), br#"{"imageLayoutVersion": "1.0.0"}"#.to_vec()));
    blobs
}

pub fn archived(layout: &[(String, Vec<u8>)]) -> Vec<u8> {
    layout.iter().fold(Archive::new(), |archive, (name, bytes)| archive.file(name, bytes)).bytes()
}

pub fn in_folder(layout: &[(String, Vec<u8>)], folder: &Path) {
    for (name, bytes) in layout {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
}
