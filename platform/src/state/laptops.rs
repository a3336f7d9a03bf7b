//! Laptops that may come into the private network.

use rusqlite::params;

use super::database::State;
use crate::fault::{Context, Fault, Result};

/// So many are kept.
const MOST: u32 = 1000;

impl State {
    /// All laptops, by name: name, number, public key.
    ///
    /// # Errors
    /// Those of the database.
    pub fn laptops(&self) -> Result<Vec<(String, u32, String)>> {
        let database = self.database();
        let mut query =
            database.prepare("SELECT name, number, public_key FROM laptops ORDER BY name").context("state")?;
        let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).context("state")?;
        rows.collect::<rusqlite::Result<_>>().context("state")
    }

    /// Writes a laptop down; returns its number.
    ///
    /// # Errors
    /// The name is taken, or there are too many; those of the database.
    pub fn add_laptop(&self, name: &str, public_key: &str) -> Result<u32> {
        let known = self.laptops()?;
        if known.iter().any(|(known, ..)| known == name) {
            let next = format!("Choose another name, or remove it: `cell wireguard remove {name}`.");
            return Err(Fault::new(format!("there is a laptop {name} already")).next(next));
        }
        let free = (1..=MOST).find(|number| known.iter().all(|(_, taken, _)| taken != number));
        let number = free.ok_or_else(|| Fault::new(format!("there are {MOST} laptops, and no more are allowed")))?;
        let insert = "INSERT INTO laptops (name, number, public_key) VALUES (?, ?, ?)";
        self.database().execute(insert, params![name, number, public_key]).context("state")?;
        Ok(number)
    }

    /// Forgets a laptop.
    ///
    /// # Errors
    /// Those of the database.
    pub fn remove_laptop(&self, name: &str) -> Result<()> {
        self.database().execute("DELETE FROM laptops WHERE name = ?", [name]).context("state").map(drop)
    }
}
