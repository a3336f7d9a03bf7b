//! The side that has the volume: what the copy has not got yet is sent.

use std::io::{BufReader, BufWriter};
use std::os::unix::net::UnixStream;

use super::super::volumes::Volumes;
use super::files::Source;
use super::frames::{Answer, Link, MOST_FILES, MOST_SAID, Offer, Pieces};
use super::receive::PATIENCE;
use crate::fault::{Context, Fault, Result};
use crate::lines::{receive, send as say};
use crate::state::MadeBy;

/// What has become of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// The copy has this snapshot, whatever happens to this host.
    Done(u32),
    /// The copy was promoted, and takes nothing any more.
    Promoted(u64),
}

/// Sends a volume up to its newest snapshot, over a stream whose other end [`receive`](super::receive()) has.
///
/// # Errors
/// The copy refuses it, or the stream ends before all is there. The copy has what it had then.
pub fn send(volumes: &Volumes<'_>, app: &str, name: &str, generation: u64, stream: &UnixStream) -> Result<Sent> {
    let gone = "the other host";
    stream.set_read_timeout(Some(PATIENCE)).context(gone)?;
    stream.set_write_timeout(Some(PATIENCE)).context(gone)?;
    let (mut from, mut to) = (BufReader::new(stream), BufWriter::new(stream));
    let chain = chain(volumes, app, name)?;
    let newest = chain.last().map(|link| (link.file, link.size));
    let (newest, size) =
        newest.ok_or_else(|| Fault::new(format!("the volume {name} of {app} has no snapshot to send")))?;
    let (app, volume, key) = (app.to_owned(), name.to_owned(), volumes.secrets.volume_key_text(app, name)?);
    let offer = Offer { app: app.clone(), volume, generation, size, chain, key };
    say(&mut to, &offer)?;
    flush(&mut to)?;
    let has = match hear(&mut from)? {
        Answer::Has(has) => has,
        Answer::Promoted(generation) => return Ok(Sent::Promoted(generation)),
        other => return Err(unexpected(&other)),
    };
    for link in offer.chain.iter().filter(|link| !has.contains(&link.file)) {
        let source = Source::open(&volumes.file(&app, name, link.file), link.file)?;
        say(&mut to, &source.head)?;
        flush(&mut to)?;
        let Answer::From(begin) = hear(&mut from)? else {
            return Err(Fault::new("the other host does not say from where on it wants a file"));
        };
        let mut pieces = Pieces::new(&mut to);
        source.pieces(begin, |at, bytes| pieces.put(at, bytes))?;
        pieces.end()?;
        match hear(&mut from)? {
            Answer::Took(file) if file == link.file => {}
            other => return Err(unexpected(&other)),
        }
    }
    match hear(&mut from)? {
        Answer::Done(file) if file == newest => Ok(Sent::Done(newest)),
        other => Err(unexpected(&other)),
    }
}

fn flush(to: &mut BufWriter<&UnixStream>) -> Result<()> {
    std::io::Write::flush(to).context("the other host is gone")
}

fn hear(from: &mut BufReader<&UnixStream>) -> Result<Answer> {
    match receive(from, MOST_SAID)? {
        Some(Answer::Refused(why)) => Err(Fault { message: format!("the other host: {}", why.message), ..why }),
        Some(answer) => Ok(answer),
        None => Err(Fault::new("the other host ended the stream")),
    }
}

fn unexpected(answer: &Answer) -> Fault {
    Fault::new(format!("the other host answers by {answer:?}"))
}

/// The snapshots that the newest one builds on, and that one.
fn chain(volumes: &Volumes<'_>, app: &str, name: &str) -> Result<Vec<Link>> {
    let rows = volumes.state.snapshots(app, name)?;
    let mut chain = Vec::new();
    let mut next = rows.last().map(|row| row.file);
    while let Some(number) = next {
        let Some(row) = rows.iter().find(|row| row.file == number) else { break };
        let stays = !row.is_retired && row.made != MadeBy::Replication;
        chain.push(Link { file: number, created: row.created, size: row.size, stays });
        if chain.len() > MOST_FILES {
            return Err(Fault::new(format!("the volume {name} of {app} builds on more than {MOST_FILES} files")));
        }
        let base = volumes.base_of(app, name, number)?;
        let own = |base| rows.iter().map(|row| row.file).find(|other| volumes.file(app, name, *other) == base);
        let foreign = || {
            Fault::new(format!(
                "the volume {name} of {app} began as a snapshot of another volume; such ones are not sent"
            ))
            .next("Copy its files to a volume that began empty, and replicate that.")
        };
        next = base.map(|base| own(base).ok_or_else(foreign)).transpose()?;
    }
    chain.reverse();
    Ok(chain)
}
