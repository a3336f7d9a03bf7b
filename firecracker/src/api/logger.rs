//! `/logger` and `/metrics`: where the program says what it does.

use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize};

use crate::log::Level;

/// What changes of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoggerUpdate {
    /// A file or a named pipe.
    pub log_path: Option<String>,
    /// What is important enough to be said.
    #[serde(default, deserialize_with = "level")]
    pub level: Option<Level>,
    /// Whether each line says how important it is.
    pub show_level: Option<bool>,
    /// Whether each line says where in the program it comes from.
    pub show_log_origin: Option<bool>,
    /// The part of the program whose lines are wanted.
    pub module: Option<String>,
}

/// Where metrics go.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct MetricsTarget {
    /// A file or a named pipe.
    pub metrics_path: String,
}

fn level<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Level>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| text.parse().map_err(de::Error::custom)).transpose()
}
