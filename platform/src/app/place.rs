//! From text to an app, or to an error with its line and column.

use std::ops::Range;
use std::path::Path;

use super::App;
use super::check::{Refused, checked};
use super::raw;
use crate::fault::{Fault, Result};

/// The longest `app.toml`, in bytes.
const MOST_BYTES: usize = 256 << 10;

/// Reads `app.toml`. Relative paths count from `folder`; `file` is its name in errors.
///
/// # Errors
/// A fault that begins with `FILE:LINE:COLUMN:` and says what is allowed.
pub fn parse(text: &str, file: &str, folder: &Path) -> Result<App> {
    if text.len() > MOST_BYTES {
        return Err(Fault::new(format!("{file} has {} bytes; allowed are {MOST_BYTES}", text.len())));
    }
    let raw: raw::App = toml::from_str(text).map_err(|error| {
        let at = error.span().unwrap_or(0..0);
        located(text, file, at, error.message())
    })?;
    checked(raw, folder).map_err(|Refused { at, why }| located(text, file, at, &why))
}

fn located(text: &str, file: &str, at: Range<usize>, why: &str) -> Fault {
    let (line, column) = line_and_column(text, at.start);
    let why = why.trim_end().replace('\n', ", ");
    Fault::new(format!("{file}:{line}:{column}: {why}"))
        .next("Mend that line and deploy again; docs/platform.md lists the fields.")
}

/// Both count from 1; the column counts characters.
fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let before: String = text.char_indices().take_while(|(place, _)| *place < at).map(|(_, letter)| letter).collect();
    let line = before.matches('\n').count().saturating_add(1);
    let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count()).saturating_add(1);
    (line, column)
}
