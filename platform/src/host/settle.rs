//! Mends what does not fit together between hosts, once it has not for a while: a host was dead when an app was deployed or destroyed.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::apps::Host;
use super::beat::AppTold;
use super::lifecycle::end;
use super::spread::{catch_up, others};
use crate::state::{AppRow, owner_of};

/// For so long, it may be that a change is under way, or that what was told is old.
const LASTS: Duration = Duration::from_secs(8);

impl Host {
    /// Compares what runs here with what another host has told just now. An app of its own that it does not have here any more ends; one of
    /// this host's that runs there by another release is deployed there once more.
    pub(super) fn settle_with(self: &Arc<Self>, other: u16) {
        let Some(view) = self.parts.mesh.as_ref().and_then(|mesh| mesh.seen().remove(&other)) else { return };
        let Ok(rows) = self.parts.state.apps() else { return };
        for row in rows {
            let told = view.beat().apps.iter().find(|told| told.number == row.number && told.name == row.name);
            let owner = owner_of(row.number);
            let is_orphan = owner == other && !told.is_some_and(|told| told.hosts.contains(&self.number()));
            let lags = owner == self.number() && self.lags(&row, told, other);
            if self.lasts(&row.name, other, is_orphan || lags, LASTS) {
                let (host, app) = (Arc::clone(self), row.name);
                let mend = move || {
                    // If it fails, it is seen again.
                    let _ = if is_orphan { end(&host, &app, &|_| {}) } else { catch_up(&host, &app, other) };
                };
                let _ = thread::Builder::new().name("settle".into()).spawn(mend);
            }
        }
    }

    /// Whether a host runs another release of an app than it should.
    fn lags(&self, row: &AppRow, told: Option<&AppTold>, other: u16) -> bool {
        let Ok(release) = self.parts.state.active(&row.name) else { return false };
        let is_there = others(self, &release.spec).iter().any(|(member, _)| member.number == other);
        is_there && told.is_none_or(|told| told.release != row.active)
    }

    /// Whether something has been wrong for so long. It begins anew then.
    fn lasts(&self, app: &str, other: u16, is_wrong: bool, time: Duration) -> bool {
        let key = (app.to_owned(), other);
        let mut wrong = self.wrong();
        if !is_wrong {
            wrong.remove(&key);
            return false;
        }
        let since = wrong.entry(key).or_insert_with(Instant::now);
        let lasts = since.elapsed() >= time;
        if lasts {
            *since = Instant::now();
        }
        lasts
    }
}
