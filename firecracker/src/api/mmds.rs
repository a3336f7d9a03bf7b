//! `/mmds/config`: the metadata service. What it tells is any JSON.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// How the guest reaches the service.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct MmdsConfig {
    /// Whether the guest needs a token.
    #[serde(default)]
    pub version: MmdsVersion,
    /// The cards that have it, by their names.
    pub network_interfaces: Vec<String>,
    /// Where it is.
    pub ipv4_address: Option<Ipv4Addr>,
    /// Whether answers are text whatever is accepted.
    #[serde(default)]
    pub imds_compat: bool,
}

/// Whether the guest needs a token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub enum MmdsVersion {
    /// None.
    #[default]
    V1,
    /// One.
    V2,
}
