//! Copy-on-write layers: a disk that begins as another one, its base, and keeps what is written in a file of its own. `docs/volumes.md`
//! specifies the layout.

mod blocks;
mod empty;
mod entry;
mod flush;
mod growth;
mod header;
mod layer;
mod load;
mod map;
mod operation;
mod page;
mod place;
mod settled;
mod space;
mod still;

pub(super) use blocks::Blocks;
pub(super) use empty::EmptyLayer;
pub(super) use growth::Growth;
pub(super) use header::Header as LayerHeader;
pub(super) use header::{BaseKey, BaseRef, Identity, MOST_CAPACITY};
pub(super) use load::{create, lengthen, new_header, open, read_header};
pub(super) use settled::Settled;
pub(super) use still::{Part, Still};
