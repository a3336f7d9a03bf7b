//! Copies of volumes: those that are here, those that are elsewhere, and who reads them.

use rusqlite::{OptionalExtension, params};

use super::database::State;
use super::volumes::{MadeBy, SnapshotRow, VolumeRow};
use crate::fault::{Context, Result};

/// A volume here that is a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaRow {
    /// The host that has the volume.
    pub from: String,
    /// How often the volume was promoted.
    pub generation: u64,
    /// When something came last, seconds since 1970.
    pub received: u64,
}

/// What is known of the copy of a volume at another host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetRow {
    /// The snapshot that it has.
    pub acknowledged: Option<u32>,
    /// Since when, seconds since 1970.
    pub at: u64,
    /// It was promoted, so often.
    pub promoted: Option<u64>,
}

impl State {
    /// What is known of a copy that is here, if the volume is one.
    ///
    /// # Errors
    /// Those of the database.
    pub fn replica(&self, app: &str, name: &str) -> Result<Option<ReplicaRow>> {
        let query = "SELECT source, generation, received FROM replicas WHERE app = ? AND volume = ?";
        let found = self.database().query_row(query, [app, name], |row| {
            let (generation, received): (i64, i64) = (row.get(1)?, row.get(2)?);
            let (generation, received) = (generation.cast_unsigned(), received.cast_unsigned());
            Ok(ReplicaRow { from: row.get(0)?, generation, received })
        });
        found.optional().context("state")
    }

    /// How often a volume was promoted, here or where it is a copy of.
    ///
    /// # Errors
    /// Those of the database.
    pub fn generation(&self, app: &str, name: &str) -> Result<u64> {
        let query = "SELECT generation FROM generations WHERE app = ? AND volume = ?";
        let found = self.database().query_row(query, [app, name], |row| row.get::<_, i64>(0));
        Ok(found.optional().context("state")?.map_or(0, i64::cast_unsigned))
    }

    /// Writes down what a copy has now, at once: its newest file and the volume's size, and those that it builds on. Other files are over.
    ///
    /// # Errors
    /// Those of the database.
    pub fn replica_received(
        &self,
        app: &str,
        name: &str,
        newest: (u32, u64),
        rows: &[SnapshotRow],
        replica: &ReplicaRow,
    ) -> Result<()> {
        let mut database = self.database();
        let change = database.transaction().context("state")?;
        // What was the newest until now, and all others, until they are said to stay.
        let before = "INSERT OR IGNORE INTO snapshots (app, volume, file, created, size, made, retired)
            SELECT app, name, file, ?, size, ?, TRUE FROM volumes WHERE app = ? AND name = ? AND file <> ?";
        let values = params![replica.received.cast_signed(), MadeBy::Replication.name(), app, name, newest.0];
        change.execute(before, values).context("state")?;
        let over = "UPDATE snapshots SET retired = TRUE WHERE app = ? AND volume = ?";
        change.execute(over, [app, name]).context("state")?;
        // The newest one is the volume, and was a snapshot if another host's volume was here before.
        let newest_only = "DELETE FROM snapshots WHERE app = ? AND volume = ? AND file = ?";
        change.execute(newest_only, params![app, name, newest.0]).context("state")?;
        for row in rows {
            let set = "INSERT OR REPLACE INTO snapshots (app, volume, file, created, size, made, retired) VALUES (?, ?, ?, ?, ?, ?, ?)";
            let (created, size) = (row.created.cast_signed(), row.size.cast_signed());
            let values = params![app, name, row.file, created, size, row.made.name(), row.is_retired];
            change.execute(set, values).context("state")?;
        }
        let set =
            "INSERT OR REPLACE INTO volumes (app, name, file, next, size, is_new) VALUES (?, ?, ?, NULL, ?, FALSE)";
        change.execute(set, params![app, name, newest.0, newest.1.cast_signed()]).context("state")?;
        let (generation, received) = (replica.generation.cast_signed(), replica.received.cast_signed());
        let set = "INSERT OR REPLACE INTO replicas VALUES (?, ?, ?, ?, ?)";
        change.execute(set, params![app, name, replica.from, generation, received]).context("state")?;
        change
            .execute("INSERT OR REPLACE INTO generations VALUES (?, ?, ?)", params![app, name, generation])
            .context("state")?;
        change.commit().context("state")
    }

    /// Writes down that a copy is the volume now, and is in the next file; what it was in is a snapshot of it.
    ///
    /// # Errors
    /// Those of the database.
    pub fn promoted(&self, row: &VolumeRow, next: u32, generation: u64) -> Result<()> {
        let mut database = self.database();
        let change = database.transaction().context("state")?;
        let (app, name) = (&row.app, &row.name);
        let (size, made) = (row.size.cast_signed(), MadeBy::Replication.name());
        let insert =
            "INSERT OR REPLACE INTO snapshots (app, volume, file, created, size, made) VALUES (?, ?, ?, ?, ?, ?)";
        change
            .execute(insert, params![app, name, row.file, super::now().cast_signed(), size, made])
            .context("state")?;
        change
            .execute("UPDATE volumes SET file = ? WHERE app = ? AND name = ?", params![next, app, name])
            .context("state")?;
        change.execute("DELETE FROM replicas WHERE app = ? AND volume = ?", [app, name]).context("state")?;
        let set = "INSERT OR REPLACE INTO generations VALUES (?, ?, ?)";
        change.execute(set, params![app, name, generation.cast_signed()]).context("state")?;
        change.commit().context("state")
    }

    /// What is known of a volume's copy at a host.
    ///
    /// # Errors
    /// Those of the database.
    pub fn target(&self, app: &str, name: &str, host: &str) -> Result<TargetRow> {
        let query = "SELECT acknowledged, at, promoted FROM targets WHERE app = ? AND volume = ? AND host = ?";
        let found = self.database().query_row(query, [app, name, host], |row| {
            let (at, promoted): (i64, Option<i64>) = (row.get(1)?, row.get(2)?);
            Ok(TargetRow {
                acknowledged: row.get(0)?,
                at: at.cast_unsigned(),
                promoted: promoted.map(i64::cast_unsigned),
            })
        });
        Ok(found.optional().context("state")?.unwrap_or_default())
    }

    /// What is known of all copies of a volume elsewhere, by their hosts.
    ///
    /// # Errors
    /// Those of the database.
    pub fn targets(&self, app: &str, name: &str) -> Result<Vec<(String, TargetRow)>> {
        let hosts: Vec<String> = {
            let database = self.database();
            let query = "SELECT host FROM targets WHERE app = ? AND volume = ? ORDER BY host";
            let mut query = database.prepare(query).context("state")?;
            let rows = query.query_map([app, name], |row| row.get(0)).context("state")?;
            rows.collect::<rusqlite::Result<_>>().context("state")?
        };
        let found = |host: String| self.target(app, name, &host).map(|target| (host, target));
        hosts.into_iter().map(found).collect()
    }

    /// Writes that down.
    ///
    /// # Errors
    /// Those of the database.
    pub fn set_target(&self, app: &str, name: &str, host: &str, target: &TargetRow) -> Result<()> {
        let (at, promoted) = (target.at.cast_signed(), target.promoted.map(u64::cast_signed));
        let values = params![app, name, host, target.acknowledged, at, promoted];
        let set = "INSERT OR REPLACE INTO targets VALUES (?, ?, ?, ?, ?, ?)";
        self.database().execute(set, values).context("state").map(drop)
    }

    /// The app whose volume of the same name a volume follows, and which file of that it has.
    ///
    /// # Errors
    /// Those of the database.
    pub fn follows(&self, app: &str, name: &str) -> Result<Option<(String, u32)>> {
        let query = "SELECT source, file FROM followers WHERE app = ? AND volume = ?";
        let found = self.database().query_row(query, [app, name], |row| Ok((row.get(0)?, row.get(1)?)));
        found.optional().context("state")
    }

    /// Writes that down.
    ///
    /// # Errors
    /// Those of the database.
    pub fn set_follows(&self, app: &str, name: &str, source: &str, file: u32) -> Result<()> {
        let set = "INSERT OR REPLACE INTO followers VALUES (?, ?, ?, ?)";
        self.database().execute(set, params![app, name, source, file]).context("state").map(drop)
    }
}
