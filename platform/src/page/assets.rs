//! The page itself, which needs nothing from elsewhere.

/// The page.
pub const PAGE: &str = include_str!("page.html");
/// What it does.
pub const SCRIPT: &str = include_str!("page.js");
/// How it looks.
pub const STYLE: &str = include_str!("page.css");
/// Its sign in a browser's tab.
pub const ICON: &str = include_str!("icon.svg");
/// All that a browser may load, and from where: nothing but these files and what the page asks this program for.
pub const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
