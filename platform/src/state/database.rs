//! What `cell serve` has to remember, in SQLite: `state.db` in its folder.
//!
//! A change is stable on the disk when its call returns. VMs are not in it: they end with the process, and are made anew from the active
//! releases.

use std::collections::BTreeMap;
use std::fs::{File, Permissions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};

use crate::app::App;
use crate::fault::{Context, Fault, Result};

/// The largest number of an app: its VMs and their addresses follow from it.
pub const MOST_APPS: u32 = 65_535;
/// Each host gives its apps numbers of its own: so many.
pub const APPS_OF_A_HOST: u32 = 1023;

/// What makes the tables those of each version, from those of the one before.
const CHANGES: [&str; 4] = [FIRST, SECOND, THIRD, FOURTH];

const FIRST: &str = "
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE apps (name TEXT PRIMARY KEY, number INTEGER NOT NULL UNIQUE, count INTEGER NOT NULL, active INTEGER) STRICT;
CREATE TABLE releases (app TEXT NOT NULL REFERENCES apps ON DELETE CASCADE, number INTEGER NOT NULL, created INTEGER NOT NULL,
  status TEXT NOT NULL, reason TEXT, spec TEXT NOT NULL, image TEXT NOT NULL, PRIMARY KEY (app, number)) STRICT;
CREATE TABLE volumes (app TEXT NOT NULL, name TEXT NOT NULL, file INTEGER NOT NULL, next INTEGER, size INTEGER NOT NULL, is_new INTEGER NOT NULL, 
  PRIMARY KEY (app, name)) STRICT;
CREATE TABLE snapshots (app TEXT NOT NULL, volume TEXT NOT NULL, file INTEGER NOT NULL, created INTEGER NOT NULL,
  size INTEGER NOT NULL, PRIMARY KEY (app, volume, file)) STRICT;
CREATE TABLE laptops (name TEXT PRIMARY KEY, number INTEGER NOT NULL UNIQUE, public_key TEXT NOT NULL) STRICT;
";

const SECOND: &str = "
ALTER TABLE snapshots ADD COLUMN made TEXT NOT NULL DEFAULT 'person';
ALTER TABLE snapshots ADD COLUMN retired INTEGER NOT NULL DEFAULT 0;
ALTER TABLE volumes ADD COLUMN making TEXT NOT NULL DEFAULT 'person';
";

const THIRD: &str = "
CREATE TABLE replicas (app TEXT NOT NULL, volume TEXT NOT NULL, source TEXT NOT NULL, generation INTEGER NOT NULL, received INTEGER NOT NULL,
  PRIMARY KEY (app, volume)) STRICT;
CREATE TABLE generations (app TEXT NOT NULL, volume TEXT NOT NULL, generation INTEGER NOT NULL, PRIMARY KEY (app, volume)) STRICT;
CREATE TABLE targets (app TEXT NOT NULL, volume TEXT NOT NULL, host TEXT NOT NULL, acknowledged INTEGER, at INTEGER NOT NULL, promoted INTEGER,
  PRIMARY KEY (app, volume, host)) STRICT;
CREATE TABLE followers (app TEXT NOT NULL, volume TEXT NOT NULL, source TEXT NOT NULL, file INTEGER NOT NULL, PRIMARY KEY (app, volume)) STRICT;
";

const FOURTH: &str = "
CREATE TABLE placed (app TEXT NOT NULL, volume TEXT NOT NULL, host INTEGER NOT NULL, PRIMARY KEY (app, volume)) STRICT;
";

/// An app as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppRow {
    /// Its name.
    pub name: String,
    /// 1 to [`MOST_APPS`], its own as long as it is there.
    pub number: u32,
    /// How many VMs are to run.
    pub count: u32,
    /// The release that is to run.
    pub active: Option<u32>,
}

/// What has become of a release.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ReleaseStatus {
    /// It is being deployed.
    Deploying,
    /// It runs.
    Active,
    /// It has run, and another one took its place.
    Replaced,
    /// It never took traffic.
    Failed,
}

/// A release of an app.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Release {
    /// The app.
    pub app: String,
    /// From 1 on.
    pub number: u32,
    /// Seconds since 1970.
    pub created: u64,
    /// What has become of it.
    pub status: ReleaseStatus,
    /// Why it failed.
    pub reason: Option<String>,
    /// The app as it was deployed.
    pub spec: App,
    /// Its image, as it was built.
    pub image: Built,
}

/// An image that was built, and what it says of itself.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct Built {
    /// The file's name in the folder `images`.
    pub file: String,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// The environment.
    pub env: BTreeMap<String, String>,
    /// Where the command runs.
    pub working_dir: Option<String>,
    /// As whom it runs.
    pub user: Option<String>,
}

/// The database.
pub struct State {
    database: Mutex<Connection>,
    /// Of volumes, by app and name.
    pub(super) locks: Mutex<Locks>,
}

type Locks = BTreeMap<(String, String), Arc<Mutex<()>>>;

pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl State {
    /// Opens the database in this folder, or makes it.
    ///
    /// # Errors
    /// It cannot be read, is damaged, or is of a later version.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join("state.db");
        let named = |what: &str| format!("{what} {}", path.display());
        // SQLite gives the files beside it the same mode.
        let file = File::options().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let owned = file.and_then(|file| file.set_permissions(Permissions::from_mode(0o600)));
        owned.context(named("cannot open"))?;
        let mut database = Connection::open(&path).context(named("cannot open"))?;
        database.pragma_update(None, "journal_mode", "WAL").context(named("cannot write to"))?;
        database.pragma_update(None, "synchronous", "FULL").context(named("cannot write to"))?;
        database.pragma_update(None, "foreign_keys", true).context(named("cannot read"))?;
        let format: i64 =
            database.pragma_query_value(None, "user_version", |row| row.get(0)).context(named("cannot read"))?;
        let missing = usize::try_from(format).ok().and_then(|format| CHANGES.get(format..)).ok_or_else(|| {
            Fault::new(format!("{} has the format {format}; this cell knows {}", path.display(), CHANGES.len()))
        })?;
        if !missing.is_empty() {
            let change = database.transaction().context(named("cannot write to"))?;
            missing.iter().try_for_each(|tables| change.execute_batch(tables)).context(named("cannot write to"))?;
            let format = i64::try_from(CHANGES.len()).unwrap_or(i64::MAX);
            change.pragma_update(None, "user_version", format).context(named("cannot write to"))?;
            change.commit().context(named("cannot write to"))?;
        }
        Ok(Self { database: Mutex::new(database), locks: Mutex::default() })
    }

    pub(super) fn database(&self) -> MutexGuard<'_, Connection> {
        self.database.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A setting of the host, which is made by `first` and kept if there is none.
    ///
    /// # Errors
    /// Those of the database, and of `first`.
    pub fn setting(&self, name: &str, first: impl FnOnce() -> Result<String>) -> Result<String> {
        let database = self.database();
        let found =
            database.query_row("SELECT value FROM settings WHERE name = ?", [name], |row| row.get(0)).optional();
        if let Some(value) = found.context("state")? {
            return Ok(value);
        }
        let value = first()?;
        database.execute("INSERT INTO settings VALUES (?, ?)", [name, &value]).context("state")?;
        Ok(value)
    }

    /// All apps, by name.
    ///
    /// # Errors
    /// Those of the database.
    pub fn apps(&self) -> Result<Vec<AppRow>> {
        let database = self.database();
        let mut query =
            database.prepare("SELECT name, number, count, active FROM apps ORDER BY name").context("state")?;
        let rows = query.query_map([], app_of).context("state")?;
        rows.collect::<rusqlite::Result<_>>().context("state")
    }

    /// One app.
    ///
    /// # Errors
    /// There is none of this name; those of the database.
    pub fn app(&self, name: &str) -> Result<AppRow> {
        let database = self.database();
        let row = database.query_row("SELECT name, number, count, active FROM apps WHERE name = ?", [name], app_of);
        row.optional().context("state")?.ok_or_else(|| {
            Fault::new(format!("there is no app {name}"))
                .next("`cell status` lists them; `cell deploy app.toml` makes one.")
        })
    }

    /// Begins a release of an app, which is made if it is new.
    ///
    /// # Errors
    /// This host has [`APPS_OF_A_HOST`] apps already; those of the database.
    pub fn begin_release(&self, spec: &App, image: &Built) -> Result<Release> {
        let mut database = self.database();
        let change = database.transaction().context("state")?;
        let known: Option<u32> = change
            .query_row("SELECT number FROM apps WHERE name = ?", [&spec.name], |row| row.get(0))
            .optional()
            .context("state")?;
        if known.is_none() {
            let (first, last) = numbers(&change)?;
            let free = "SELECT MIN(n) FROM (SELECT ?1 AS n UNION SELECT number + 1 FROM apps WHERE number BETWEEN ?1 AND ?2) WHERE n NOT IN (SELECT number FROM apps)";
            let number: u32 = change.query_row(free, [first, last], |row| row.get(0)).context("state")?;
            if number > last {
                return Err(Fault::new(format!("this host has {APPS_OF_A_HOST} apps, and no more are allowed")));
            }
            change.execute("INSERT INTO apps VALUES (?, ?, 1, NULL)", params![spec.name, number]).context("state")?;
        }
        let last = "SELECT COALESCE(MAX(number), 0) FROM releases WHERE app = ?";
        let last: u32 = change.query_row(last, [&spec.name], |row| row.get(0)).context("state")?;
        let release = Release {
            app: spec.name.clone(),
            number: last.saturating_add(1),
            created: now(),
            status: ReleaseStatus::Deploying,
            reason: None,
            spec: spec.clone(),
            image: image.clone(),
        };
        let (spec, image) = (json(&release.spec)?, json(&release.image)?);
        let row = params![release.app, release.number, release.created.cast_signed(), "deploying", spec, image];
        change.execute("INSERT INTO releases VALUES (?, ?, ?, ?, NULL, ?, ?)", row).context("state")?;
        change.commit().context("state")?;
        Ok(release)
    }

    /// Begins a release of another host's app, which is made if it is new. One that is there as it was goes on.
    ///
    /// # Errors
    /// There is another app of this name or number; those of the database.
    pub fn place(&self, number: u32, release: &Release) -> Result<()> {
        let mut database = self.database();
        let change = database.transaction().context("state")?;
        let app = &release.app;
        let new = "INSERT INTO apps VALUES (?, ?, 0, NULL) ON CONFLICT DO NOTHING";
        change.execute(new, params![app, number]).context("state")?;
        let known = "SELECT number FROM apps WHERE name = ?";
        let known: Option<u32> = change.query_row(known, [app], |row| row.get(0)).optional().context("state")?;
        if known != Some(number) {
            return Err(Fault::new(format!("there is another app {app} here, or one with its number {number}"))
                .next("One that was destroyed while this host was dead is gone within seconds: deploy again."));
        }
        let (spec, image) = (json(&release.spec)?, json(&release.image)?);
        let same = "SELECT status FROM releases WHERE app = ? AND number = ? AND spec = ? AND image = ?";
        let same = change.query_row(same, params![app, release.number, spec, image], |row| row.get::<_, String>(0));
        if same.optional().context("state")?.is_none_or(|status| status == "failed") {
            let row = params![app, release.number, release.created.cast_signed(), "deploying", spec, image];
            change.execute("INSERT OR REPLACE INTO releases VALUES (?, ?, ?, ?, NULL, ?, ?)", row).context("state")?;
        }
        change.commit().context("state")
    }

    /// Makes a release the active one, with so many VMs, also if it is so already. The one before is replaced by the same change.
    ///
    /// # Errors
    /// It was cancelled; those of the database.
    pub fn activate(&self, release: &Release, count: u32) -> Result<()> {
        let mut database = self.database();
        let change = database.transaction().context("state")?;
        let (app, number) = (&release.app, release.number);
        change
            .execute("UPDATE releases SET status = 'replaced' WHERE app = ? AND status = 'active'", [app])
            .context("state")?;
        let active = "UPDATE releases SET status = 'active' WHERE app = ? AND number = ? AND status <> 'failed'";
        if change.execute(active, params![app, number]).context("state")? == 0 {
            return Err(cancelled(release));
        }
        change
            .execute("UPDATE apps SET active = ?, count = ? WHERE name = ?", params![number, count, app])
            .context("state")?;
        change.commit().context("state")
    }

    /// Refuses a release that was cancelled, or has failed otherwise.
    ///
    /// # Errors
    /// It was; those of the database.
    pub fn check_not_cancelled(&self, release: &Release) -> Result<()> {
        let found = "SELECT count(*) FROM releases WHERE app = ? AND number = ? AND status = 'failed'";
        let failed: u32 = self
            .database()
            .query_row(found, params![release.app, release.number], |row| row.get(0))
            .context("state")?;
        if failed == 0 { Ok(()) } else { Err(cancelled(release)) }
    }

    /// Says that a release has failed. An app that never had another one is forgotten no sooner than it is destroyed.
    ///
    /// # Errors
    /// Those of the database.
    pub fn fail(&self, release: &Release, reason: &str) -> Result<()> {
        let failed =
            "UPDATE releases SET status = 'failed', reason = ? WHERE app = ? AND number = ? AND status = 'deploying'";
        self.database().execute(failed, params![reason, release.app, release.number]).context("state").map(drop)
    }

    /// Says that the release of an app which is being deployed has failed; returns its number.
    ///
    /// # Errors
    /// None is; those of the database.
    pub fn fail_deploying(&self, app: &str, reason: &str) -> Result<u32> {
        let failed =
            "UPDATE releases SET status = 'failed', reason = ? WHERE app = ? AND status = 'deploying' RETURNING number";
        let number = self.database().query_row(failed, [reason, app], |row| row.get(0)).optional().context("state")?;
        number.ok_or_else(|| {
            Fault::new(format!("no release of {app} is being deployed")).next(format!(
                "`cell releases {app}` lists them; one whose image is being built is not among them yet."
            ))
        })
    }

    /// Says that releases which were being deployed when the process ended have failed.
    ///
    /// # Errors
    /// Those of the database.
    pub fn fail_interrupted(&self) -> Result<usize> {
        let reason = "cell serve ended during the deploy";
        let failed = "UPDATE releases SET status = 'failed', reason = ? WHERE status = 'deploying'";
        self.database().execute(failed, [reason]).context("state")
    }

    /// The releases of an app, the newest first; of all apps if none is named.
    ///
    /// # Errors
    /// Those of the database.
    pub fn releases(&self, app: Option<&str>) -> Result<Vec<Release>> {
        let database = self.database();
        let query = "SELECT app, number, created, status, reason, spec, image FROM releases WHERE ?1 IS NULL OR app = ?1 ORDER BY app, number DESC";
        let mut query = database.prepare(query).context("state")?;
        let mut rows = query.query([app]).context("state")?;
        let mut releases = Vec::new();
        while let Some(row) = rows.next().context("state")? {
            releases.push(release_of(row)?);
        }
        Ok(releases)
    }

    /// The active release of an app.
    ///
    /// # Errors
    /// There is none; those of the database.
    pub fn active(&self, app: &str) -> Result<Release> {
        let row = self.app(app)?;
        let found = self.releases(Some(app))?.into_iter().find(|release| Some(release.number) == row.active);
        found.ok_or_else(|| {
            Fault::new(format!("the app {app} has no active release")).next("Deploy it: `cell deploy app.toml`.")
        })
    }

    /// Forgets a release.
    ///
    /// # Errors
    /// Those of the database.
    pub fn forget_release(&self, release: &Release) -> Result<()> {
        let forget = "DELETE FROM releases WHERE app = ? AND number = ?";
        self.database().execute(forget, params![release.app, release.number]).context("state").map(drop)
    }

    /// Forgets all releases of an app. One that has none is being destroyed.
    ///
    /// # Errors
    /// Those of the database.
    pub fn forget_releases(&self, app: &str) -> Result<()> {
        let mut database = self.database();
        let change = database.transaction().context("state")?;
        change.execute("UPDATE apps SET active = NULL WHERE name = ?", [app]).context("state")?;
        change.execute("DELETE FROM releases WHERE app = ?", [app]).context("state")?;
        change.commit().context("state")
    }

    /// Sets how many VMs of an app are to run.
    ///
    /// # Errors
    /// Those of the database.
    pub fn set_count(&self, app: &str, count: u32) -> Result<()> {
        self.database()
            .execute("UPDATE apps SET count = ? WHERE name = ?", params![count, app])
            .context("state")
            .map(drop)
    }

    /// Forgets an app and its releases; its volumes stay.
    ///
    /// # Errors
    /// Those of the database.
    pub fn remove(&self, app: &str) -> Result<()> {
        self.database().execute("DELETE FROM apps WHERE name = ?", [app]).context("state").map(drop)
    }
}

/// The first and the last number of the apps that belong to this host.
fn numbers(database: &Connection) -> Result<(u32, u32)> {
    let query = "SELECT CAST(value AS INTEGER) FROM settings WHERE name = 'host'";
    let own: Option<u32> = database.query_row(query, [], |row| row.get(0)).optional().context("state")?;
    let before = own.unwrap_or(1).saturating_sub(1).saturating_mul(APPS_OF_A_HOST.saturating_add(1));
    Ok((before.saturating_add(1), before.saturating_add(APPS_OF_A_HOST)))
}

fn json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).context("state")
}

fn app_of(row: &Row<'_>) -> rusqlite::Result<AppRow> {
    Ok(AppRow { name: row.get(0)?, number: row.get(1)?, count: row.get(2)?, active: row.get(3)? })
}

fn release_of(row: &Row<'_>) -> Result<Release> {
    let text = |column: usize| row.get::<_, String>(column).context("state");
    let status = match text(3)?.as_str() {
        "deploying" => ReleaseStatus::Deploying,
        "active" => ReleaseStatus::Active,
        "replaced" => ReleaseStatus::Replaced,
        _ => ReleaseStatus::Failed,
    };
    Ok(Release {
        app: text(0)?,
        number: row.get(1).context("state")?,
        created: row.get::<_, i64>(2).context("state")?.cast_unsigned(),
        status,
        reason: row.get(4).context("state")?,
        spec: serde_json::from_str(&text(5)?).context("state: the release's app")?,
        image: serde_json::from_str(&text(6)?).context("state: the release's image")?,
    })
}

fn cancelled(release: &Release) -> Fault {
    Fault::new(format!("release {} of {} was cancelled", release.number, release.app))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::MadeBy;

    #[test]
    fn a_database_of_the_first_version_becomes_one_of_the_last_with_all_that_it_has() {
        let folder = tempfile::tempdir().unwrap();
        let old = Connection::open(folder.path().join("state.db")).unwrap();
        old.execute_batch(FIRST).unwrap();
        old.execute_batch("INSERT INTO volumes VALUES ('web', 'data', 2, NULL, 4096, 0); INSERT INTO snapshots VALUES ('web', 'data', 1, 77, 4096)")
            .unwrap();
        old.pragma_update(None, "user_version", 1).unwrap();
        drop(old);
        for _ in 0..2 {
            let state = State::open(folder.path()).unwrap();
            let found = state.snapshots("web", "data").unwrap().remove(0);
            assert_eq!((found.file, found.created, found.made, found.is_retired), (1, 77, MadeBy::Person, false));
            assert_eq!(state.volume("web", "data").unwrap().unwrap().file, 2);
        }
        let later = Connection::open(folder.path().join("state.db")).unwrap();
        later.pragma_update(None, "user_version", 99).unwrap();
        let why = State::open(folder.path()).err().unwrap().message;
        assert!(why.ends_with(&format!("has the format 99; this cell knows {}", CHANGES.len())), "{why}");
    }
}
