//! What was used over the last ten minutes, in memory alone.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::Serialize;

use super::figures::{Figures, HostFigures, Sample};

/// Between two looks.
pub const STEP: Duration = Duration::from_secs(2);
/// So many looks are kept.
const KEPT: usize = 300;

/// The last looks. Of an app that is newer there are fewer.
#[derive(Debug, Default, Serialize)]
pub struct History {
    /// Milliseconds since 1970.
    at: VecDeque<u64>,
    host: VecDeque<HostFigures>,
    /// All apps together.
    all: VecDeque<Figures>,
    apps: BTreeMap<String, VecDeque<Figures>>,
}

impl History {
    /// Adds a look. Apps that are gone are forgotten.
    pub fn add(&mut self, sample: &Sample) {
        push(&mut self.at, sample.at);
        push(&mut self.host, sample.host);
        push(
            &mut self.all,
            sample.apps.values().flat_map(BTreeMap::values).fold(Figures::default(), |sum, one| sum.and(one)),
        );
        self.apps.retain(|app, _| sample.apps.contains_key(app));
        for (app, vms) in &sample.apps {
            let sum = vms.values().fold(Figures::default(), |sum, one| sum.and(one));
            push(self.apps.entry(app.clone()).or_default(), sum);
        }
    }

    /// The last figures of all apps together.
    pub fn all(&self) -> Figures {
        self.all.back().copied().unwrap_or_default()
    }

    /// The last figures of an app.
    pub fn app(&self, app: &str) -> Option<Figures> {
        self.apps.get(app)?.back().copied()
    }
}

fn push<T>(kept: &mut VecDeque<T>, one: T) {
    if kept.len() >= KEPT {
        kept.pop_front();
    }
    kept.push_back(one);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_minutes_are_kept_and_apps_that_are_gone_are_forgotten() {
        let vms = |cpu| BTreeMap::from([(1, Figures { cpu, ..Figures::default() }), (2, Figures::default())]);
        let mut history = History::default();
        for at in 0..1000 {
            let mut apps = BTreeMap::from([("web".to_owned(), vms(at))]);
            if at < 990 {
                apps.insert("gone".to_owned(), vms(1));
            }
            history.add(&Sample { at, apps, ..Sample::default() });
        }
        assert_eq!((history.at.len(), history.host.len(), history.all.len()), (300, 300, 300));
        assert_eq!((history.apps.len(), history.apps["web"].len(), history.at[0]), (1, 300, 700));
        assert_eq!((history.all().cpu, history.app("web").unwrap().cpu, history.app("gone")), (999, 999, None));
    }
}
