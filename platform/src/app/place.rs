//! From text to an app, or to an error with its line and column.

use std::ops::Range;
use std::path::Path;

use super::App;
use super::check::{Refused, checked};
use super::raw;
use crate::fault::{Fault, Result};

/// The longest `app.toml`, in bytes.
const MOST_BYTES: usize = 256 << 10;
/// So many characters of a line are shown.
const MOST_SHOWN: usize = 80;

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
        let why = in_plain_words(error.message(), line_of(text, at.start));
        located(text, file, at, &why)
    })?;
    checked(raw, folder).map_err(|Refused { at, why }| located(text, file, at, &why))
}

fn located(text: &str, file: &str, at: Range<usize>, why: &str) -> Fault {
    let (line, column) = line_and_column(text, at.start);
    let why = why.trim_end().replace('\n', ", ");
    Fault::new(format!("{file}:{line}:{column}: {why}"))
        .next("Mend that line and deploy again; docs/platform.md lists the fields.")
}

/// The line at this place.
fn line_of(text: &str, at: usize) -> &str {
    let (before, after) = text.split_at_checked(at).unwrap_or((text, ""));
    let begins = before.rfind('\n').map_or(0, |end| end.saturating_add(1));
    let ends = after.find('\n').map_or(text.len(), |end| at.saturating_add(end));
    text.get(begins..ends).unwrap_or_default().trim()
}

/// What the reader of TOML says, with the line and without words of Rust's.
fn in_plain_words(why: &str, line: &str) -> String {
    let (why, shown) = (why.trim_end(), line.chars().take(MOST_SHOWN).collect::<String>());
    if let Some((is, expected)) = why.strip_prefix("invalid type: ").and_then(|why| why.split_once(", expected ")) {
        let is = match is {
            "map" => "a table",
            "sequence" => "a list",
            other => other,
        };
        let allowed = match expected {
            "a sequence" if matches!(line, "[services]" | "[volumes]") => format!("[{line}], for each of them"),
            "a sequence" => "a list such as [\"one\", \"two\"]".into(),
            "a string" => "text in quotation marks".into(),
            "a map" => "a table such as { NAME = \"value\" }".into(),
            "i64" => "a whole number, without quotation marks".into(),
            other => other.to_owned(),
        };
        return format!("`{shown}` has {is}; allowed is {allowed}");
    }
    let unknown = why.strip_prefix("unknown field `").and_then(|why| why.split_once('`'));
    match unknown.filter(|(field, _)| is_of_the_app(field)) {
        Some((field, _)) => {
            format!("{why}; `{field}` is a field of the app: put it above the first line that begins with `[`")
        }
        None if why == "duplicate key" => format!("`{shown}`: this is given twice"),
        None => why.to_owned(),
    }
}

/// Is there a field of this name beside `name` and `image`?
fn is_of_the_app(field: &str) -> bool {
    let asked = toml::from_str::<raw::App>(&format!("{field:?} = 0"));
    asked.is_err_and(|error| ["invalid type", "missing field"].iter().any(|why| error.message().starts_with(why)))
}

/// Both count from 1; the column counts characters.
fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let before: String = text.char_indices().take_while(|(place, _)| *place < at).map(|(_, letter)| letter).collect();
    let line = before.matches('\n').count().saturating_add(1);
    let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count()).saturating_add(1);
    (line, column)
}
