//! RAM in a file that has no name, for the process that wrote it alone.

use std::fs::File;
use std::io;
use std::path::Path;

use super::chain::Chain;
use super::header::Section;
use super::pace::Pace;
use super::part::nameless;
use super::write::Draft;
use super::{Seal, refused};
use crate::error::Result;
use crate::memory::Template;

/// Writes RAM into a file in this folder that is gone with the last who has it open, so that a process that is killed leaves nothing.
pub(crate) fn put_away(memory: &Template, folder: &Path, seal: Box<dyn Seal>, pace: &mut Pace<'_>) -> Result<Chain> {
    let failed = |e: io::Error| refused("it cannot be written").with_source(e);
    let draft =
        Draft { identity: [0; 16], machine: &[], memory, base: None, left_out: &[], sync: false, seal: Some(&*seal) };
    let file: File = nameless(folder).map_err(failed)?;
    let mut map = draft.empty_map(None);
    draft.write_blocks(&file, &mut map, &mut Section::default(), pace).map_err(failed)?;
    Chain::sealed(file, map, seal)
}
