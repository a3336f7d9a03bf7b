//! What is measured: the rows of the table.

use crate::exec::{Error, Result};

const KIB: u32 = 1024;

/// One row: a load, and how the figure is read.
#[derive(Debug, Clone)]
pub struct Row {
    pub name: String,
    pub load: Load,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// From the start of the monitor to the guest's first byte on the serial port.
    FirstByte,
    /// What the monitor has in memory beside the guest's, after some work for its disk.
    Memory,
    Disk(DiskLoad),
    /// Frames of this size, sent or received by the guest.
    Send(u32),
    Receive(u32),
    /// From the start of the monitor to the first program of a distribution's kernel, in instructions.
    Boot,
    /// Of a program that is driven over an API. A command of its own has these rows.
    Api(ApiLoad),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApiLoad {
    /// From the start of the program to the answer to the start of the machine, which was described before.
    Answer,
    /// To the guest's first byte on the serial port.
    FirstByte,
    /// What the program has in memory beside the guest's while the guest runs.
    Memory,
    /// Requests over one connection.
    Kept,
    /// Requests each of which has a connection of its own.
    New,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskLoad {
    pub write: bool,
    pub size: u32,
    pub depth: u32,
    pub random: bool,
    /// Past the host's page cache.
    pub direct: bool,
    /// The guest sleeps until it is interrupted, instead of polling.
    pub interrupts: bool,
}

impl Row {
    pub fn new(name: &str, load: Load) -> Self {
        Self { name: name.into(), load }
    }

    pub fn unit(&self) -> &'static str {
        match self.load {
            Load::FirstByte | Load::Api(ApiLoad::Answer | ApiLoad::FirstByte) => "us",
            Load::Memory | Load::Api(ApiLoad::Memory) => "KiB",
            Load::Boot => "instructions",
            Load::Disk(_) | Load::Api(ApiLoad::Kept | ApiLoad::New) => "requests/s",
            Load::Send(_) | Load::Receive(_) => "frames/s",
        }
    }

    /// Is a smaller figure a better one?
    pub fn less_is_better(&self) -> bool {
        const API: [Load; 3] = [Load::Api(ApiLoad::Answer), Load::Api(ApiLoad::FirstByte), Load::Api(ApiLoad::Memory)];
        matches!(self.load, Load::FirstByte | Load::Memory | Load::Boot) || API.contains(&self.load)
    }

    /// Does it need a TAP?
    pub fn needs_network(&self) -> bool {
        matches!(self.load, Load::Send(_) | Load::Receive(_))
    }
}

impl DiskLoad {
    fn row(self) -> Row {
        let Self { write, size, depth, random, direct, interrupts } = self;
        let order = if random { "random" } else { "sequential" };
        let kind = if write { "write" } else { "read" };
        let cache = if direct { "direct" } else { "buffered" };
        let end = if interrupts { "-interrupts" } else { "" };
        Row::new(&format!("disk-{order}-{kind}-{}k-depth{depth}-{cache}{end}", size / KIB), Load::Disk(self))
    }
}

/// Every row, in the order of the table.
fn all() -> Vec<Row> {
    let mut rows = vec![Row::new("first-byte", Load::FirstByte), Row::new("memory", Load::Memory)];
    let read = DiskLoad { write: false, size: 4 * KIB, depth: 1, random: true, direct: false, interrupts: false };
    for direct in [false, true] {
        let random = |write, depth| DiskLoad { write, depth, direct, ..read };
        let sequential = DiskLoad { size: 256 * KIB, depth: 16, random: false, direct, ..read };
        let loads = [random(false, 1), random(false, 32), random(true, 1), random(true, 32), sequential];
        rows.extend(loads.map(DiskLoad::row));
    }
    rows.extend([1, 32].map(|depth| DiskLoad { depth, interrupts: true, ..read }.row()));
    for size in [64, 1514] {
        rows.push(Row::new(&format!("frames-sent-{size}"), Load::Send(size)));
        rows.push(Row::new(&format!("frames-received-{size}"), Load::Receive(size)));
    }
    rows.push(Row::new("boot-instructions", Load::Boot));
    rows
}

/// The rows whose name contains one of the filters. If there is no filter, all of them but the one that takes a nested host.
pub fn matching(filters: &[String]) -> Result<Vec<Row>> {
    let mut rows = all();
    let names = rows.iter().map(|row| row.name.clone()).collect::<Vec<_>>().join("\n  ");
    let named = |row: &Row| filters.iter().any(|filter| row.name.contains(filter.as_str()));
    rows.retain(|row| if filters.is_empty() { row.load != Load::Boot } else { named(row) });
    if rows.is_empty() {
        return Err(Error::new(format!("no row's name contains `{}`; there are\n  {names}", filters.join("` or `"))));
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_leaves_the_rows_that_contain_it() {
        let names = |filters: &[&str]| {
            let filters: Vec<String> = filters.iter().map(ToString::to_string).collect();
            matching(&filters).map(|rows| rows.into_iter().map(|row| row.name).collect::<Vec<_>>())
        };
        assert_eq!(names(&["random-read-4k-depth1-"]).unwrap().len(), 3);
        assert_eq!(names(&[]).unwrap().len(), all().len() - 1);
        assert!(names(&["tape"]).unwrap_err().to_string().contains("disk-random-read-4k-depth32-direct"));
    }
}
