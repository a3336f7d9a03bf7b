//! What a browser is told from now on, as server-sent events: `full` first, then `state` and `note` as they come, and `log` of one app if it asks for that.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::channel::Sender;
use hyper::body::Bytes;
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};

use super::watch::{Watch, event};
use crate::host::{Log, Tail};

/// Between two looks at a log.
const LOOK: Duration = Duration::from_millis(250);
/// So many lines are told at once; of more, the last ones.
const MOST_LINES: usize = 200;
/// So many letters of a line are told.
const MOST_LETTERS: usize = 1000;

/// Tells it until the browser is gone or the page ends. The log is that of an app that is there.
pub async fn tell(watch: Arc<Watch>, app: Option<String>, mut to: Sender<Bytes>) {
    // First of all, so that nothing is missed.
    let mut told = watch.told();
    let Some(first) = full(&watch).await else { return };
    if to.send_data(first).await.is_err() {
        return;
    }
    let mut tail = app.map(|app| Tail::new(watch.host.parts.folder.logs(&app)));
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let message = tokio::select! {
            told = told.recv() => match told {
                Ok(message) => Some(message),
                Err(RecvError::Lagged(_)) => full(&watch).await,
                Err(RecvError::Closed) => None,
            },
            _ = look.tick(), if tail.is_some() => {
                let Some((after, lines, left_out)) = read(tail.take()).await else { return };
                tail = Some(after);
                if lines.is_empty() {
                    continue;
                }
                Some(said(&lines, left_out))
            }
        };
        let Some(message) = message else { return };
        // Waits as long as the browser does not read, and takes nothing meanwhile.
        if to.send_data(message).await.is_err() {
            return;
        }
    }
}

/// `None` if the database cannot be read.
async fn full(watch: &Arc<Watch>) -> Option<Bytes> {
    let watch = Arc::clone(watch);
    let full = spawn_blocking(move || watch.full().map(|full| event("full", &full)));
    full.await.ok()?.ok()
}

async fn read(tail: Option<Tail>) -> Option<(Tail, Vec<Log>, usize)> {
    let mut tail = tail?;
    let read = spawn_blocking(move || {
        let (lines, left_out) = tail.read_last(MOST_LINES);
        (tail, lines, left_out)
    });
    read.await.ok()
}

fn said(lines: &[Log], left_out: usize) -> Bytes {
    let shown: Vec<_> = lines
        .iter()
        .map(|log| json!({ "vm": log.vm, "line": log.line.chars().take(MOST_LETTERS).collect::<String>() }))
        .collect();
    event("log", &json!({ "left_out": left_out, "lines": shown }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_cut() {
        let said = said(&[Log { vm: 3, line: "é".repeat(5000) }], 300);
        let text = std::str::from_utf8(&said).unwrap().strip_prefix("event: log\ndata: ").unwrap();
        let value: serde_json::Value = serde_json::from_str(text).unwrap();
        assert_eq!((&value["left_out"], &value["lines"][0]["vm"]), (&json!(300), &json!(3)));
        assert_eq!(value["lines"][0]["line"].as_str().unwrap().chars().count(), 1000);
    }
}
