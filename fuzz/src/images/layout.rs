//! OCI image layouts that are made of choices, in an archive or a folder.

use std::fs;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::archive::{self, END, Verdict, archive};
use super::{damaged, made, of_bytes, packed};
use crate::input::Input;

const MOST_LAYERS: u16 = 4;
const TEXTS: [&str; 8] = ["", "=", "A=b", "/bin/sh", "sha256:", "../../index.json", "a\u{1b}[2J\nb", "é"];
const TYPES: [&str; 4] = [
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+encrypted",
    "application/vnd.oci.image.index.v1+json",
];

/// A layout under way.
struct Maker<'a, 'b> {
    input: &'a mut Input<'b>,
    blobs: Vec<(String, Vec<u8>)>,
    /// Nothing of it was made wrong.
    is_right: bool,
}

/// Makes a layout of choices, and an image of it.
pub fn run(input: &mut Input<'_>) {
    let (in_folder, is_damaged) = (input.one_in(4), input.one_in(4));
    let mut maker = Maker { input, blobs: Vec::new(), is_right: true };
    let mut verdict = maker.layout();
    let Maker { input, blobs, is_right } = maker;
    if !is_right {
        verdict = Verdict::Unknown;
    }
    let made = if in_folder {
        in_a_folder(&blobs)
    } else {
        let bytes = archived(&blobs);
        if is_damaged {
            verdict = Verdict::Unknown;
        }
        of_bytes(&if is_damaged { damaged(bytes, input) } else { bytes })
    };
    archive::check(&verdict, made.as_ref().map(|(image, files)| (image.left_out, files)));
}

fn in_a_folder(blobs: &[(String, Vec<u8>)]) -> Option<(crate::image::Image, super::Files)> {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, bytes) in blobs {
        let path = folder.path().join("source").join(name);
        fs::create_dir_all(path.parent().expect("it is below the source")).expect("a folder");
        fs::write(path, bytes).expect("a file");
    }
    made(folder.path(), blobs.iter().map(|(_, bytes)| bytes.len()).sum())
}

fn archived(blobs: &[(String, Vec<u8>)]) -> Vec<u8> {
    let all = blobs.iter().flat_map(|(name, bytes)| archive::file(name, bytes));
    all.chain([0; 1024]).collect()
}

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

impl Maker<'_, '_> {
    /// Whether something is made wrong; then the model knows nothing of the whole any more.
    fn errs(&mut self) -> bool {
        let errs = self.input.one_in(24);
        self.is_right &= !errs;
        errs
    }

    fn text(&mut self) -> &'static str {
        TEXTS[usize::from(self.input.byte()) % TEXTS.len()]
    }

    /// The verdict is about the one layer, if it has no more.
    fn layout(&mut self) -> Verdict {
        let count = 1 + self.input.below(MOST_LAYERS);
        let (mut layers, mut ids, mut verdict) = (Vec::new(), Vec::new(), Verdict::Unknown);
        for _ in 0..count {
            let how = self.input.below(3);
            let (plain, of_layer) = archive(self.input);
            ids.push(self.id(&plain));
            // The model knows no whiteouts: to it they are files like others, which may be wrong where a whiteout is right.
            let has_whiteouts = plain.windows(4).any(|bytes| bytes == b".wh.");
            let kind =
                if self.errs() { TYPES[usize::from(self.input.byte()) % 4] } else { TYPES[usize::from(how == 0)] };
            layers.push(self.blob(packed(plain, how), kind));
            // Lower layers change what an entry does.
            verdict = if count == 1 && !has_whiteouts { of_layer } else { Verdict::Unknown };
        }
        if self.errs() {
            ids.pop();
        }
        let config = json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": ids}, "config": self.config()});
        let config = self.blob(config.to_string().into_bytes(), "application/vnd.oci.image.config.v1+json");
        let manifest = json!({"schemaVersion": 2, "config": config, "layers": layers}).to_string().into_bytes();
        let mut top = self.blob(manifest, "application/vnd.oci.image.manifest.v1+json");
        for _ in 0..self.input.below(6) {
            // More than three of them in each other are refused.
            self.is_right = false;
            let index = json!({"schemaVersion": 2, "manifests": [top]}).to_string().into_bytes();
            top = self.blob(index, TYPES[3]);
        }
        let other = json!({"mediaType": TYPES[3], "digest": digest(b""), "size": 0, "platform": {"os": "linux", "architecture": "arm64"}});
        let mut index = json!({"schemaVersion": 2, "manifests": [other, top]}).to_string().into_bytes();
        if self.errs() {
            index = damaged(index, self.input);
        }
        self.blobs.push(("index.json".to_owned(), index));
        self.blobs.push(("oci-layout".to_owned(), b"{}".to_vec()));
        verdict
    }

    fn id(&mut self, plain: &[u8]) -> String {
        if self.errs() { self.text().to_owned() } else { digest(plain) }
    }

    fn config(&mut self) -> Value {
        let mut config = json!({"Env": ["A=b=c"], "Cmd": ["x"], "User": "web", "WorkingDir": ""});
        if self.errs() {
            let field =
                ["Env", "Cmd", "User", "WorkingDir", "Entrypoint", "StopSignal"][usize::from(self.input.below(6))];
            let text = self.text();
            config[field] =
                [json!(text), json!([text]), Value::Null, json!({})][usize::from(self.input.below(4))].clone();
        }
        config
    }

    /// Puts a blob in, and describes it.
    fn blob(&mut self, bytes: Vec<u8>, kind: &str) -> Value {
        let mut described = json!({"mediaType": kind, "digest": digest(&bytes), "size": bytes.len()});
        let hex = digest(&bytes)[7..].to_owned();
        if self.errs() {
            let field = ["mediaType", "digest", "size", "platform"][usize::from(self.input.below(4))];
            let text = self.text();
            described[field] = [json!(text), json!(u64::MAX), json!(-1), json!({"os": text})]
                [usize::from(self.input.below(4))]
            .clone();
        }
        let (is_missing, is_damaged) = (self.errs(), self.errs());
        let bytes = if is_damaged { damaged(bytes, self.input) } else { bytes };
        let name = format!("blobs/sha256/{hex}");
        if !is_missing && !self.blobs.iter().any(|(known, _)| *known == name) {
            self.blobs.push((name, bytes));
        }
        described
    }
}

/// Inputs that reach far. The choices behind the layers are all 0: nothing is wrong.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let layer = |how: u8| [vec![how], archive::script(), vec![END, 0, 0]].concat();
    let layers = |count: u8, begin: u8| {
        let all: Vec<u8> = (0..count).flat_map(|number| [layer(number % 3), vec![0, 0, 0]].concat()).collect();
        [vec![2, begin, 0, count - 1], all].concat()
    };
    let with = |rest: &[u8]| [layers(1, 0), rest.to_vec()].concat();
    vec![
        ("layout", layers(1, 0)),
        ("layout-folder", layers(1, 3)),
        ("layout-layers", layers(3, 0)),
        ("layout-config", with(&[0, 23, 0, 1, 1])),
        ("layout-index", with(&[0, 0, 0, 0, 0, 0, 0, 0, 4])),
        ("layout-whiteout", [vec![2, 0, 0, 0, 0, 5, 0, 0, 0, 1, 9, 0, 227, 0, 0, 0, 0, 0], vec![END]].concat()),
    ]
}
