//! Which files volumes are in.

use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};

use super::database::{State, now};
use crate::fault::{Context, Result};

/// Who has made a snapshot.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MadeBy {
    /// Somebody, by `cell volumes snapshot`: it stays until somebody removes it.
    Person,
    /// `cell serve`, as `snapshots` of `app.toml` says.
    Clock,
    /// `cell volumes restore`, of what the volume had before; it stays as well.
    Restore,
    /// `cell serve`, to send it to another host.
    Replication,
}

impl MadeBy {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Person => "person",
            Self::Clock => "clock",
            Self::Restore => "restore",
            Self::Replication => "replication",
        }
    }

    fn named(name: &str) -> Self {
        match name {
            "clock" => Self::Clock,
            "restore" => Self::Restore,
            "replication" => Self::Replication,
            _ => Self::Person,
        }
    }
}

/// A snapshot as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotRow {
    /// The number of its file, and its own.
    pub file: u32,
    /// Seconds since 1970.
    pub created: u64,
    /// The volume's size at that time, in bytes.
    pub size: u64,
    /// Who has made it.
    pub made: MadeBy,
    /// It is a snapshot no more, and its file goes once nothing builds on it.
    pub is_retired: bool,
}

/// A volume as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeRow {
    /// The app.
    pub app: String,
    /// Its name in the app.
    pub name: String,
    /// The number of the file that it is in.
    pub file: u32,
    /// The number of the file that it goes on in, while a snapshot is taken.
    pub next: Option<u32>,
    /// Who has this snapshot taken.
    pub making: MadeBy,
    /// Its size in bytes.
    pub size: u64,
    /// Whether no VM has had it yet.
    pub is_new: bool,
}

impl VolumeRow {
    /// A volume that is in this file, and that VMs have had.
    #[must_use]
    pub fn new(app: &str, name: &str, file: u32, size: u64) -> Self {
        Self {
            app: app.to_owned(),
            name: name.to_owned(),
            file,
            next: None,
            making: MadeBy::Person,
            size,
            is_new: false,
        }
    }
}

fn row_of(row: &Row<'_>) -> rusqlite::Result<VolumeRow> {
    let size: i64 = row.get(4)?;
    Ok(VolumeRow {
        app: row.get(0)?,
        name: row.get(1)?,
        file: row.get(2)?,
        next: row.get(3)?,
        making: MadeBy::named(&row.get::<_, String>(6)?),
        size: size.cast_unsigned(),
        is_new: row.get(5)?,
    })
}

impl State {
    /// What is to be locked while a volume's files are changed or looked for, by whatever thread.
    #[must_use]
    pub fn volume_lock(&self, app: &str, name: &str) -> Arc<Mutex<()>> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that nobody has are of no use.
        locks.retain(|_, lock| Arc::strong_count(lock) > 1);
        Arc::clone(locks.entry((app.to_owned(), name.to_owned())).or_default())
    }

    /// A volume, if there is one.
    ///
    /// # Errors
    /// Those of the database.
    pub fn volume(&self, app: &str, name: &str) -> Result<Option<VolumeRow>> {
        let query = "SELECT app, name, file, next, size, is_new, making FROM volumes WHERE app = ? AND name = ?";
        self.database().query_row(query, [app, name], row_of).optional().context("state")
    }

    /// The volumes of an app.
    ///
    /// # Errors
    /// Those of the database.
    pub fn volumes(&self, app: &str) -> Result<Vec<VolumeRow>> {
        let database = self.database();
        let query = "SELECT app, name, file, next, size, is_new, making FROM volumes WHERE app = ? ORDER BY name";
        let mut query = database.prepare(query).context("state")?;
        let rows = query.query_map([app], row_of).context("state")?;
        rows.collect::<rusqlite::Result<_>>().context("state")
    }

    /// Writes a volume down, new or as it is now.
    ///
    /// # Errors
    /// Those of the database.
    pub fn set_volume(&self, row: &VolumeRow) -> Result<()> {
        let (size, making) = (row.size.cast_signed(), row.making.name());
        let values = params![row.app, row.name, row.file, row.next, size, row.is_new, making];
        let set =
            "INSERT OR REPLACE INTO volumes (app, name, file, next, size, is_new, making) VALUES (?, ?, ?, ?, ?, ?, ?)";
        self.database().execute(set, values).context("state").map(drop)
    }

    /// The number of the other host for whose app a volume was made, if it was for one.
    ///
    /// # Errors
    /// Those of the database.
    pub fn placed_by(&self, app: &str, name: &str) -> Result<Option<u16>> {
        let query = "SELECT host FROM placed WHERE app = ? AND volume = ?";
        self.database().query_row(query, [app, name], |row| row.get(0)).optional().context("state")
    }

    /// Writes that down; none: it is this host's.
    ///
    /// # Errors
    /// Those of the database.
    pub fn set_placed_by(&self, app: &str, name: &str, host: Option<u16>) -> Result<()> {
        let set = if host.is_some() {
            "INSERT OR REPLACE INTO placed VALUES (?1, ?2, ?3)"
        } else {
            "DELETE FROM placed WHERE app = ?1 AND volume = ?2 AND ?3 IS NULL"
        };
        self.database().execute(set, params![app, name, host]).context("state").map(drop)
    }

    /// Writes down that a VM has had the volume.
    ///
    /// # Errors
    /// Those of the database.
    pub fn volume_used(&self, app: &str, name: &str) -> Result<()> {
        let used = "UPDATE volumes SET is_new = FALSE WHERE app = ? AND name = ? AND is_new";
        self.database().execute(used, [app, name]).context("state").map(drop)
    }

    /// A number that no file of the volume has had.
    ///
    /// # Errors
    /// Those of the database.
    pub fn next_file(&self, app: &str, name: &str) -> Result<u32> {
        let query = "SELECT COALESCE(MAX(file), 0) + 1 FROM
            (SELECT file FROM volumes WHERE app = ?1 AND name = ?2 UNION SELECT file FROM snapshots WHERE app = ?1 AND volume = ?2)";
        self.database().query_row(query, [app, name], |row| row.get(0)).context("state")
    }

    /// Writes down that the volume's file became a snapshot, and that the volume is in the next one, which has so many bytes.
    ///
    /// # Errors
    /// Those of the database.
    pub fn snapshot_taken(&self, row: &VolumeRow, next: u32, size: u64, made: MadeBy) -> Result<()> {
        let mut database = self.database();
        let change = database.transaction().context("state")?;
        let values = params![row.app, row.name, row.file, now().cast_signed(), row.size.cast_signed(), made.name()];
        let insert = "INSERT INTO snapshots (app, volume, file, created, size, made) VALUES (?, ?, ?, ?, ?, ?)";
        change.execute(insert, values).context("state")?;
        let goes_on = "UPDATE volumes SET file = ?, next = NULL, size = ? WHERE app = ? AND name = ?";
        change.execute(goes_on, params![next, size.cast_signed(), row.app, row.name]).context("state")?;
        change.commit().context("state")
    }

    /// The snapshots of a volume, the oldest first, those that are retired too.
    ///
    /// # Errors
    /// Those of the database.
    pub fn snapshots(&self, app: &str, name: &str) -> Result<Vec<SnapshotRow>> {
        let database = self.database();
        let query =
            "SELECT file, created, size, made, retired FROM snapshots WHERE app = ? AND volume = ? ORDER BY file";
        let mut query = database.prepare(query).context("state")?;
        let row = |row: &Row<'_>| {
            Ok(SnapshotRow {
                file: row.get(0)?,
                created: row.get::<_, i64>(1)?.cast_unsigned(),
                size: row.get::<_, i64>(2)?.cast_unsigned(),
                made: MadeBy::named(&row.get::<_, String>(3)?),
                is_retired: row.get(4)?,
            })
        };
        let rows = query.query_map([app, name], row).context("state")?;
        rows.collect::<rusqlite::Result<_>>().context("state")
    }

    /// Writes down when a snapshot was made, seconds since 1970.
    ///
    /// # Errors
    /// Those of the database.
    pub fn snapshot_dated(&self, app: &str, name: &str, file: u32, created: u64) -> Result<()> {
        let dated = "UPDATE snapshots SET created = ? WHERE app = ? AND volume = ? AND file = ?";
        self.database().execute(dated, params![created.cast_signed(), app, name, file]).context("state").map(drop)
    }

    /// Writes down that a file is a snapshot no more.
    ///
    /// # Errors
    /// Those of the database.
    pub fn retire_snapshot(&self, app: &str, name: &str, file: u32) -> Result<()> {
        let retire = "UPDATE snapshots SET retired = TRUE WHERE app = ? AND volume = ? AND file = ?";
        self.database().execute(retire, params![app, name, file]).context("state").map(drop)
    }

    /// Forgets a volume, whose files are there no longer.
    ///
    /// # Errors
    /// Those of the database.
    pub fn forget_volume(&self, app: &str, name: &str) -> Result<()> {
        let mut database = self.database();
        let change = database.transaction().context("state")?;
        for table in ["snapshots", "replicas", "generations", "targets", "followers", "placed"] {
            let forget = format!("DELETE FROM {table} WHERE app = ? AND volume = ?");
            change.execute(&forget, [app, name]).context("state")?;
        }
        change.execute("DELETE FROM volumes WHERE app = ? AND name = ?", [app, name]).context("state")?;
        change.commit().context("state")
    }

    /// Forgets a retired file, which is there no longer.
    ///
    /// # Errors
    /// Those of the database.
    pub fn forget_snapshot(&self, app: &str, name: &str, file: u32) -> Result<()> {
        let forget = "DELETE FROM snapshots WHERE app = ? AND volume = ? AND file = ? AND retired";
        self.database().execute(forget, params![app, name, file]).context("state").map(drop)
    }

    /// The volumes that have files of retired snapshots: of which app, and their names.
    ///
    /// # Errors
    /// Those of the database.
    pub fn untidy_volumes(&self) -> Result<Vec<(String, String)>> {
        let database = self.database();
        let query = "SELECT DISTINCT app, volume FROM snapshots WHERE retired ORDER BY app, volume";
        let mut query = database.prepare(query).context("state")?;
        let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).context("state")?;
        rows.collect::<rusqlite::Result<_>>().context("state")
    }

    /// All volumes of all apps.
    ///
    /// # Errors
    /// Those of the database.
    pub fn all_volumes(&self) -> Result<Vec<VolumeRow>> {
        let database = self.database();
        let query = "SELECT app, name, file, next, size, is_new, making FROM volumes ORDER BY app, name";
        let mut query = database.prepare(query).context("state")?;
        let rows = query.query_map([], row_of).context("state")?;
        rows.collect::<rusqlite::Result<_>>().context("state")
    }
}
