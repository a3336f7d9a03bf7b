//! A description of a VM as JSON.

use serde::de::IgnoredAny;
use serde_json::Value;

use super::cpu::CpuLevel;
use super::vm::VmConfig;
use crate::error::{Error, ErrorKind, Result};
use crate::logging::in_one_line;

impl VmConfig {
    /// Reads a description from JSON. Settings that are missing have their default. Nothing is opened, and only the form is checked:
    /// [`validate`](Self::validate) checks the values. Needs the feature `serde`.
    ///
    /// ```
    /// use vmcell::VmConfig;
    ///
    /// let config = VmConfig::from_json(r#"{ "boot": { "kernel": "vmlinuz" }, "disks": [{ "path": "root.img", "read_only": true }] }"#)?;
    /// assert_eq!((config.vcpus, config.memory.mib), (1, 128));
    ///
    /// let error = VmConfig::from_json(r#"{ "disks": [{ "path": "root.img", "readonly": true }] }"#).unwrap_err();
    /// assert!(error.to_string().starts_with("disks[0].readonly: unknown field `readonly`, expected one of `path`, `read_only`"));
    /// # Ok::<(), vmcell::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] for what is no JSON, an unknown setting, a setting that is given twice, a value of another type
    /// than the setting's, or a word or a number that the setting cannot be. The message says where.
    pub fn from_json(json: &str) -> Result<Self> {
        let mut reader = serde_json::Deserializer::from_str(json);
        let config = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
            let path = error.path().to_string();
            // A question mark stands for a name that could not be read, and a full stop for the whole.
            let place = match path.trim_end_matches(['?', '.']) {
                "" => "the description of a VM",
                place => place,
            };
            let message = format!("{place}: {}", what_is_wrong(json, error.inner()));
            // Names come from the description, which may have any characters in them.
            Error::new(ErrorKind::InvalidConfig, in_one_line(message))
        })?;
        let behind = |error| Error::new(ErrorKind::InvalidConfig, format!("behind the description of a VM: {error}"));
        reader.end().map_err(behind)?;
        refuse_arrays(json, &config)?;
        Ok(config)
    }

    /// Writes the description as JSON, in several lines, and without the settings that have their default, except for the number of
    /// vCPUs and the amount of memory. [`from_json`](Self::from_json) reads the same description from it. Needs the feature `serde`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] for a path that is not UTF-8, which JSON cannot hold.
    pub fn to_json(&self) -> Result<String> {
        serde_json::to_string_pretty(self)
            .map_err(|e| Error::new(ErrorKind::InvalidConfig, format!("this description of a VM cannot be JSON: {e}")))
    }
}

/// What serde says of a choice that is neither a word nor an object with one member fits broken JSON alone. What it says of a word
/// that needs settings, which only a console's can, is in terms of Rust.
fn what_is_wrong(json: &str, error: &serde_json::Error) -> String {
    let text = error.to_string();
    let (line, column) = (error.line(), error.column());
    if text.starts_with("invalid type: unit variant") {
        return format!(
            "needs settings, as in {{ \"file\": {{ \"path\": \"guest.log\" }} }}, at line {line} column {column}"
        );
    }
    if !text.starts_with("expected value at") || serde_json::from_str::<IgnoredAny>(json).is_err() {
        return text;
    }
    format!(
        "neither a word in quotes nor, for a console, an object with one member, `file` or `all`, at line {line} column \
         {column}"
    )
}

/// Serde takes the elements of an array for the settings of an object, in the order in which they are declared. A description like
/// that would mean something else once there is another setting.
fn refuse_arrays(json: &str, config: &VmConfig) -> Result<()> {
    // Objects that are left out at their default must be there to be compared.
    let mut config = config.clone();
    config.cpu.level = CpuLevel::V2;
    config.affinity.io = vec![0];
    let values = || Ok::<_, serde_json::Error>((serde_json::from_str(json)?, serde_json::to_value(&config)?));
    let unreadable = |error| Error::new(ErrorKind::InvalidConfig, format!("the description of a VM: {error}"));
    let (given, meant) = values().map_err(unreadable)?;
    let Some(path) = array_for_object(&given, &meant) else { return Ok(()) };
    let place = if path.is_empty() { "the description of a VM" } else { path.trim_start_matches('.') };
    Err(Error::new(ErrorKind::InvalidConfig, format!("{place}: invalid type: an array, expected an object")))
}

/// Where an array was given for what is written as an object.
fn array_for_object(given: &Value, meant: &Value) -> Option<String> {
    match (given, meant) {
        (Value::Array(_), Value::Object(_)) => Some(String::new()),
        (Value::Object(given), Value::Object(meant)) => meant.iter().find_map(|(name, meant)| {
            let path = array_for_object(given.get(name)?, meant)?;
            Some(format!(".{name}{path}"))
        }),
        (Value::Array(given), Value::Array(meant)) => {
            given.iter().zip(meant).enumerate().find_map(|(index, (given, meant))| {
                let path = array_for_object(given, meant)?;
                Some(format!("[{index}]{path}"))
            })
        }
        _ => None,
    }
}

#[cfg(test)]
#[path = "json_test.rs"]
mod tests;
