//! Mends what does not fit together between hosts, once it has not for a while: a host was dead when an app was deployed or destroyed.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::apps::{Host, Wrong};
use super::beat::AppTold;
use super::lifecycle::end;
use super::spread::{catch_up, others};
use crate::fault::Fault;
use crate::state::{AppRow, owner_of};

/// For so long, it may be that a change is under way, or that what was told is old.
const LASTS: Duration = Duration::from_secs(8);
/// What does not work is tried again after so long at the latest.
const LONGEST: Duration = Duration::from_mins(5);

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
            let wrong = (is_orphan || lags).then_some(row.active);
            if self.lasts(&row.name, other, wrong, Instant::now()) {
                let (host, app) = (Arc::clone(self), row.name);
                let mend = move || {
                    let mended = if is_orphan { end(&host, &app, &|_| {}) } else { catch_up(&host, &app, other) };
                    host.mended(&app, other, mended.err());
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

    /// Whether something of this release has been wrong for so long that it is to be mended, after twice as long each time.
    fn lasts(&self, app: &str, other: u16, wrong: Option<Option<u32>>, now: Instant) -> bool {
        let key = (app.to_owned(), other);
        let mut wrongs = self.wrong();
        let Some(release) = wrong else {
            wrongs.remove(&key);
            return false;
        };
        let new = || Wrong { release, since: now, wait: LASTS, why: None };
        let known = wrongs.entry(key).or_insert_with(new);
        if known.release != release {
            *known = new();
        }
        let lasts = now.saturating_duration_since(known.since) >= known.wait;
        if lasts {
            (known.since, known.wait) = (now, known.wait.saturating_mul(2).min(LONGEST));
        }
        lasts
    }

    /// It was tried to mend it. If that failed, it is seen and tried again.
    fn mended(&self, app: &str, other: u16, why: Option<Fault>) {
        if let Some(known) = self.wrong().get_mut(&(app.to_owned(), other)) {
            known.why = why.map(|why| why.message);
        }
    }

    /// The hosts that have not got the release of an app which they should have, and why.
    #[must_use]
    pub fn behind(&self, app: &str) -> Vec<(String, String)> {
        let Some(mesh) = &self.parts.mesh else { return Vec::new() };
        let roster = mesh.roster();
        let of_it = |of: &str, other: u16, wrong: &Wrong| {
            let name = roster.numbered(other).filter(|_| of == app)?.name.clone();
            let wait = humantime::format_duration(wrong.wait);
            Some((name, format!("{}; it is tried every {wait}", wrong.why.as_ref()?)))
        };
        self.wrong().iter().filter_map(|((of, other), wrong)| of_it(of, *other, wrong)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::host_test::Bench;
    use super::*;

    #[test]
    fn what_does_not_work_is_tried_less_and_less_often_and_a_new_release_at_once() {
        let bench = Bench::new();
        let begin = Instant::now();
        let at = |release: Option<u32>, seconds: u64| {
            bench.host.lasts("web", 2, Some(release), begin + Duration::from_secs(seconds))
        };
        let tried: Vec<u64> = (0..2000).filter(|second| at(Some(1), *second)).collect();
        assert_eq!(tried[..5], [8, 24, 56, 120, 248]);
        assert!(tried.windows(2).all(|two| two[1] - two[0] <= 300) && tried.len() < 12, "{tried:?}");
        assert!(!at(Some(2), 2000) && at(Some(2), 2008));
        bench.host.mended("web", 2, Some(Fault::new("there is no kernel")));
        assert_eq!(bench.host.wrong()[&("web".to_owned(), 2)].why.as_deref(), Some("there is no kernel"));
        assert!(!bench.host.lasts("web", 2, None, begin) && bench.host.wrong().is_empty());
    }
}
