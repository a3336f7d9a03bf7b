//! The fields of `app.toml` as they are written, each with its place.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

pub type Text = Spanned<String>;
pub type Number = Spanned<i64>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct App {
    pub name: Text,
    pub image: Text,
    pub kernel: Option<Text>,
    #[serde(default)]
    pub command: Vec<String>,
    #[serde(default)]
    pub env: BTreeMap<Text, Text>,
    #[serde(default)]
    pub secrets: Vec<Text>,
    pub size: Option<Text>,
    pub vcpus: Option<Number>,
    pub memory: Option<Text>,
    pub count: Option<Number>,
    pub hosts: Option<Spanned<BTreeMap<Text, Number>>>,
    pub stop_grace: Option<Text>,
    #[serde(default)]
    pub services: Vec<Spanned<Service>>,
    #[serde(default)]
    pub volumes: Vec<Mount>,
    pub idle: Option<Text>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table such as { port = 8080 }")]
pub struct Service {
    pub port: Number,
    #[serde(default)]
    pub names: Vec<Text>,
    #[serde(default)]
    pub allow: Vec<Text>,
    #[serde(default)]
    pub check: Check,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table such as { path = \"/health\" }")]
pub struct Check {
    pub path: Option<Text>,
    pub interval: Option<Text>,
    pub timeout: Option<Text>,
    pub grace: Option<Text>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table such as { name = \"data\", path = \"/data\", size = \"10G\" }")]
pub struct Mount {
    pub name: Text,
    pub path: Text,
    pub size: Option<Text>,
    pub snapshots: Option<Snapshots>,
    pub replicate: Option<Replicate>,
    pub replica_of: Option<Text>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table such as { to = \"beta\", every = \"10s\" }")]
pub struct Replicate {
    pub to: Text,
    pub every: Text,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table such as { every = \"1d\", keep = \"5d\" }")]
pub struct Snapshots {
    pub every: Text,
    pub keep: Text,
}
