//! The JSON of a header (LUKS2 on-disk format, section 3). What is not known here stays as it is when the header is written again.

use std::collections::BTreeSet;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::digest::Digest;
use super::json::Long;
use super::keyslot::Keyslot;
use super::segment::{Data, Segment};
use crate::error::Result;
use crate::volume::refused;

/// The most key slots, and digests.
pub(super) const MOST_SLOTS: u32 = 32;

/// The whole.
#[derive(Clone)]
pub(super) struct Metadata {
    root: Map<String, Value>,
}

impl Metadata {
    /// Of a volume without a key slot.
    pub(super) fn new(header_size: u64, binary: u64, data: (u64, usize), digest: &Digest) -> Self {
        // Key slots lie between the second header and the data, or the end of a header of its own.
        let keyslots_size = KEYSLOTS_END.saturating_sub(header_size.saturating_mul(2));
        let root = json!({
            "keyslots": {},
            "tokens": {},
            "segments": { "0": Segment::new(data.0, data.1) },
            "digests": { "0": digest },
            "config": { "json_size": Long(header_size.saturating_sub(binary)), "keyslots_size": Long(keyslots_size) },
        });
        let Value::Object(root) = root else { return Self { root: Map::new() } };
        Self { root }
    }

    pub(super) fn parse(text: &[u8]) -> Result<Self> {
        let root = serde_json::from_slice(text)
            .map_err(|e| refused("the header is not the JSON of a volume").with_source(e))?;
        let metadata = Self { root };
        metadata.check()?;
        Ok(metadata)
    }

    pub(super) fn text(&self) -> Vec<u8> {
        serde_json::to_vec(&self.root).unwrap_or_default()
    }

    fn check(&self) -> Result<()> {
        for list in ["keyslots", "digests", "segments"] {
            let count = self.list(list)?.len();
            if count > MOST_SLOTS as usize {
                return Err(refused(format!("the header has {count} {list}, allowed are {MOST_SLOTS}")));
            }
        }
        let demands = self.root.get("config").and_then(|config| config.get("requirements")?.get("mandatory"));
        match demands {
            None => Ok(()),
            Some(Value::Array(none)) if none.is_empty() => Ok(()),
            Some(demands) => Err(refused(format!("it demands what is not known here: {demands}"))),
        }
    }

    fn list(&self, name: &str) -> Result<&Map<String, Value>> {
        let list = self.root.get(name).and_then(Value::as_object);
        list.ok_or_else(|| refused(format!("the header has no {name}")))
    }

    fn list_mut(&mut self, name: &str) -> Option<&mut Map<String, Value>> {
        self.root.get_mut(name).and_then(Value::as_object_mut)
    }

    /// How many bytes key slots may take, behind both copies of the header.
    pub(super) fn keyslots_size(&self) -> Result<u64> {
        let size = self.root.get("config").and_then(|config| config.get("keyslots_size"));
        let size: Long = typed(size.unwrap_or(&Value::Null), "the size of the key slots")?;
        if size.0 > MOST_KEYSLOTS {
            return Err(refused(format!("key slots have {} bytes, allowed are {MOST_KEYSLOTS}", size.0)));
        }
        Ok(size.0)
    }

    /// The numbers of all key slots, also those of a kind that is not known.
    pub(super) fn slots(&self) -> Result<BTreeSet<u32>> {
        self.list("keyslots")?.keys().map(|name| number(name)).collect()
    }

    pub(super) fn slot(&self, slot: u32) -> Result<Keyslot> {
        let slots = self.list("keyslots")?;
        let value = slots.get(&slot.to_string()).ok_or_else(|| refused(format!("there is no key slot {slot}")))?;
        typed(value, &format!("key slot {slot}"))
    }

    /// Where each key slot's area lies, also of one whose kind is not known.
    pub(super) fn areas(&self) -> Result<Vec<(u32, u64, u64)>> {
        let mut areas = Vec::new();
        for (name, slot) in self.list("keyslots")? {
            let place = |what| typed::<Long>(slot.pointer(what).unwrap_or(&Value::Null), "a key slot's area");
            areas.push((number(name)?, place("/area/offset")?.0, place("/area/size")?.0));
        }
        Ok(areas)
    }

    /// The digest of the data's key, and its slots'.
    pub(super) fn digest(&self) -> Result<Digest> {
        let is_of_data = |digest: &&Value| {
            digest.get("segments").and_then(Value::as_array).is_some_and(|all| all.iter().any(|one| one == "0"))
        };
        let digest = self.list("digests")?.values().find(is_of_data);
        typed(digest.ok_or_else(|| refused("the header has no digest of the data's key"))?, "a digest")
    }

    pub(super) fn data(&self) -> Result<Data> {
        let segments = self.list("segments")?;
        match segments.get("0") {
            Some(segment) if segments.len() == 1 => typed::<Segment>(segment, "the segment of the data")?.data(),
            _ => {
                let message =
                    format!("its data have {} segments, known is one (is it being re-encrypted?)", segments.len());
                Err(refused(message))
            }
        }
    }

    /// A token of ours, which other programs keep and do not look into.
    pub(super) fn token(&self, kind: &str) -> Option<&Map<String, Value>> {
        let tokens = self.root.get("tokens").and_then(Value::as_object)?;
        let ours = |token: &&Value| token.get("type").and_then(Value::as_str) == Some(kind);
        tokens.values().find(ours).and_then(Value::as_object)
    }

    /// Adds a token, with these fields beside its type.
    pub(super) fn add_token(&mut self, kind: &str, mut fields: Map<String, Value>) {
        let Some(tokens) = self.list_mut("tokens") else { return };
        let number = (0..MOST_SLOTS).find(|number| !tokens.contains_key(&number.to_string())).unwrap_or_default();
        fields.insert("type".into(), kind.into());
        fields.insert("keyslots".into(), json!([]));
        tokens.insert(number.to_string(), fields.into());
    }

    pub(super) fn remove_tokens(&mut self, kind: &str) {
        if let Some(tokens) = self.list_mut("tokens") {
            tokens.retain(|_, token| token.get("type").and_then(Value::as_str) != Some(kind));
        }
    }

    /// Adds a slot, whose key is the data's.
    pub(super) fn add(&mut self, slot: u32, keyslot: &Keyslot) {
        if let Some(slots) = self.list_mut("keyslots") {
            slots.insert(slot.to_string(), json!(keyslot));
        }
        self.each_list_of_slots("digests", |slots| slots.push(json!(slot.to_string())), true);
    }

    /// Removes a slot from wherever it is named.
    pub(super) fn remove(&mut self, slot: u32) {
        let name = slot.to_string();
        if let Some(slots) = self.list_mut("keyslots") {
            slots.remove(&name);
        }
        for list in ["digests", "tokens"] {
            self.each_list_of_slots(list, |slots| slots.retain(|one| *one != name), false);
        }
    }

    fn each_list_of_slots(&mut self, list: &str, mut change: impl FnMut(&mut Vec<Value>), of_data_alone: bool) {
        for entry in self.list_mut(list).into_iter().flat_map(|list| list.values_mut()) {
            let segments = entry.get("segments").and_then(Value::as_array);
            let is_meant = !of_data_alone || segments.is_some_and(|all| all.iter().any(|one| one == "0"));
            if let Some(slots) = entry.get_mut("keyslots").and_then(Value::as_array_mut).filter(|_| is_meant) {
                change(slots);
            }
        }
    }
}

/// Where the key slots of a volume that we make end, and its data begin.
pub(super) const KEYSLOTS_END: u64 = 16 << 20;
const MOST_KEYSLOTS: u64 = 128 << 20;

fn number(name: &str) -> Result<u32> {
    let number = name.parse().ok().filter(|number| *number < MOST_SLOTS);
    number.ok_or_else(|| refused(format!("a key slot is called {name:?}, allowed are 0 to {}", MOST_SLOTS - 1)))
}

fn typed<T: DeserializeOwned>(value: &Value, what: &str) -> Result<T> {
    T::deserialize(value).map_err(|e| refused(format!("{what} makes no sense")).with_source(e))
}
