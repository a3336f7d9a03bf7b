//! What the metadata service tells.

use serde_json::Value;
use vmcell::Metadata;

use crate::api::{MmdsConfig, MmdsVersion, NetworkInterface};
use crate::fault::Fault;

/// Refuses a service that no card has, or one that there is not.
pub fn check(config: &MmdsConfig, nics: &[NetworkInterface]) -> Result<(), Fault> {
    let refused = |why: String| Err(Fault::new(format!("mmds/config: {why}")));
    if config.network_interfaces.is_empty() {
        return refused("network_interfaces is empty, allowed are the names of one and more".to_owned());
    }
    let is_there = |id: &&String| nics.iter().any(|nic| nic.iface_id == **id);
    match config.network_interfaces.iter().find(|id| !is_there(id)) {
        Some(other) => refused(format!("network_interfaces has {other:?}, and there is no such network interface")),
        None => Ok(()),
    }
}

/// The service, and whether it was told anything.
pub struct Store {
    service: Metadata,
    limit: usize,
    is_told: bool,
}

impl Store {
    /// One that holds up to so many bytes.
    pub fn new(limit: usize) -> Self {
        Self { service: Metadata::new().limit(limit), limit, is_told: false }
    }

    /// All of it.
    pub fn get(&self) -> String {
        let json = self.service.get();
        if json == "null" { "{}".to_owned() } else { json }
    }

    /// Replaces it.
    pub fn put(&mut self, data: &Value) -> Result<(), Fault> {
        let json = data.to_string();
        self.check_len(json.len())?;
        self.service.set(&json).map_err(|error| Fault::of("mmds", &error))?;
        self.is_told = true;
        Ok(())
    }

    /// Changes it by a merge patch.
    pub fn patch(&mut self, changes: &Value) -> Result<(), Fault> {
        if !self.is_told {
            return Err(not_initialized());
        }
        // A patch that is refused for its length alone is what a client may want to tell from others.
        let refused = self.service.patch(&changes.to_string());
        refused.map_err(|error| {
            let fault = Fault::of("mmds", &error);
            if fault.message().contains("allowed are at most") { Fault::too_large(fault.message()) } else { fault }
        })
    }

    /// The service as cards have it.
    pub fn service(&self, config: &MmdsConfig) -> Result<Metadata, Fault> {
        let service = self.service.clone().needs_token(config.version == MmdsVersion::V2);
        let service = service.always_text(config.imds_compat);
        match config.ipv4_address {
            None => Ok(service),
            Some(address) => service.address(address).map_err(|error| Fault::of("mmds/config", &error)),
        }
    }

    fn check_len(&self, len: usize) -> Result<(), Fault> {
        if len <= self.limit {
            return Ok(());
        }
        Err(Fault::too_large(format!("mmds: {len} bytes of JSON, allowed are at most {}", self.limit)))
    }
}

/// There is nothing to be told of or to be changed.
pub fn not_initialized() -> Fault {
    Fault::new("MMDS error: The MMDS data store is not initialized.")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn data_are_put_before_they_are_patched_and_keep_to_the_limit() {
        let mut store = Store::new(20);
        assert_eq!(store.get(), "{}");
        assert_eq!(store.patch(&json!({"a": 1})).unwrap_err(), not_initialized());
        store.put(&json!({"a": 1})).unwrap();
        store.patch(&json!({"b": 2})).unwrap();
        assert_eq!(store.get(), r#"{"a":1,"b":2}"#);
        let long = json!({"c": "0123456789"});
        for fault in [store.put(&json!({"c": "0123456789abcdef"})).unwrap_err(), store.patch(&long).unwrap_err()] {
            let told = String::from_utf8(fault.response().to_bytes(true)).unwrap();
            assert!(told.starts_with("HTTP/1.1 413 "), "{told}");
        }
        assert_eq!(store.get(), r#"{"a":1,"b":2}"#);
    }
}
