//! The command line.

use std::path::PathBuf;

use clap::Parser;

use crate::jail::{CgroupLimit, ResourceLimit};

/// The longest body of a request if nothing is said, in bytes.
const MOST_BODY: &str = "51200";

/// Runs one micro-VM, which is described over a Unix socket by Firecracker's API, or by a file.
#[derive(Debug, Parser)]
#[command(
    name = "vmcell-firecracker",
    disable_version_flag = true,
    after_help = "Exit status: 0 the guest ended, or SIGTERM or SIGINT ended the program; 1 the guest or the program failed, or \
                  the file of --config-file was refused; 152 the level of the log was; 153 the command line was."
)]
pub struct Options {
    /// The Unix socket of the API
    #[arg(long, value_name = "PATH", default_value = "/run/firecracker.socket")]
    pub api_sock: PathBuf,

    /// What the machine is called: 1 to 64 letters, digits and hyphens
    #[arg(long, value_name = "ID", default_value = "anonymous-instance", value_parser = parse_id)]
    pub id: String,

    /// A file that describes the machine as JSON, which is started at once
    #[arg(long, value_name = "PATH")]
    pub config_file: Option<PathBuf>,

    /// Has no API
    #[arg(long, requires = "config_file")]
    pub no_api: bool,

    /// A file with what the metadata service tells, as JSON
    #[arg(long, value_name = "PATH")]
    pub metadata: Option<PathBuf>,

    /// Taken for compatibility: vmcell has no boot timer, and says so in the log
    #[arg(long)]
    pub boot_timer: bool,

    /// A file or a named pipe for the log [default: standard output]
    #[arg(long, value_name = "PATH")]
    pub log_path: Option<String>,

    /// What is logged: Off, Error, Warning, Info, Debug or Trace [default: Info]
    #[arg(long, value_name = "LEVEL")]
    pub level: Option<String>,

    /// The part of the program whose lines are logged [default: all]
    #[arg(long, value_name = "NAME")]
    pub module: Option<String>,

    /// Shows in each line of the log how important it is
    #[arg(long)]
    pub show_level: bool,

    /// Shows in each line of the log which part of the program it comes from
    #[arg(long)]
    pub show_log_origin: bool,

    /// A file or a named pipe for metrics, as JSON [default: none]
    #[arg(long, value_name = "PATH")]
    pub metrics_path: Option<String>,

    /// Gives up what the machine does not need, but for the files below this folder, where all have to be that the API names; may be
    /// given several times. It needs no root, and is not one of Firecracker's options [default: no jail]
    #[arg(long, value_name = "FOLDER")]
    pub jail: Vec<PathBuf>,

    /// With --jail: the user that the program becomes, by its number; only root may
    #[arg(long, value_name = "NUMBER", requires = "jail", requires = "gid")]
    pub uid: Option<u32>,

    /// With --jail: the group that the program is in, by its number, and no other
    #[arg(long, value_name = "NUMBER", requires = "jail", requires = "uid")]
    pub gid: Option<u32>,

    /// With --jail: the folder of a cgroup of version 2, in which the program makes one called as --id says, and joins it
    #[arg(long, value_name = "FOLDER", requires = "jail")]
    pub parent_cgroup: Option<PathBuf>,

    /// With --parent-cgroup: what a file of the cgroup is to hold, such as memory.max=1073741824; may be given several times
    #[arg(long, value_name = "FILE=VALUE", requires = "parent_cgroup", value_parser = CgroupLimit::parse)]
    pub cgroup: Vec<CgroupLimit>,

    /// With --jail: no-file=NUMBER limits open files, fsize=BYTES the size of files that are written; may be given several times
    #[arg(long, value_name = "NAME=VALUE", requires = "jail", value_parser = ResourceLimit::parse)]
    pub resource_limit: Vec<ResourceLimit>,

    /// Does not filter the system calls of the machine's threads
    #[arg(long, conflicts_with = "seccomp_filter")]
    pub no_seccomp: bool,

    /// Refused: the filters are built in
    #[arg(long, value_name = "PATH")]
    pub seccomp_filter: Option<PathBuf>,

    /// Refused: devices are on MMIO
    #[arg(long)]
    pub enable_pci: bool,

    /// When the process was started, in microseconds since 1970
    #[arg(long, value_name = "US")]
    pub start_time_us: Option<u64>,

    /// How much CPU time this process had used when it was started, in microseconds
    #[arg(long, value_name = "US")]
    pub start_time_cpu_us: Option<u64>,

    /// How much CPU time the process that started this one had used, in microseconds
    #[arg(long, value_name = "US")]
    pub parent_cpu_time_us: Option<u64>,

    /// The longest body of a request, in bytes
    #[arg(long, value_name = "BYTES", default_value = MOST_BODY)]
    pub http_api_max_payload_size: usize,

    /// The most that the metadata service holds, in bytes [default: as much as a body of a request]
    #[arg(long, value_name = "BYTES")]
    pub mmds_size_limit: Option<usize>,

    /// Prints the version of Firecracker whose API this is, and ends
    #[arg(long)]
    pub version: bool,

    /// Prints the version of the snapshots that are written, and ends
    #[arg(long)]
    pub snapshot_version: bool,

    /// Prints the version of a snapshot, by the file of its snapshot_path, and ends
    #[arg(long, value_name = "PATH")]
    pub describe_snapshot: Option<PathBuf>,
}

impl Options {
    /// The most that the metadata service holds.
    pub fn most_metadata(&self) -> usize {
        self.mmds_size_limit.unwrap_or(self.http_api_max_payload_size)
    }
}

fn parse_id(text: &str) -> Result<String, String> {
    let len = text.len();
    if !(1..=64).contains(&len) {
        return Err(format!("it has {len} bytes, allowed are 1 to 64"));
    }
    match text.chars().find(|c| *c != '-' && !c.is_ascii_alphanumeric()) {
        Some(other) => Err(format!("it has a {other:?}, allowed are letters, digits and hyphens")),
        None => Ok(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Result<Options, String> {
        let words = std::iter::once("vmcell-firecracker").chain(words.iter().copied());
        Options::try_parse_from(words).map_err(|error| error.to_string())
    }

    #[test]
    fn the_defaults_are_those_of_the_original() {
        let options = parsed(&[]).unwrap();
        assert_eq!(options.api_sock, PathBuf::from("/run/firecracker.socket"));
        assert_eq!((options.id.as_str(), options.http_api_max_payload_size), ("anonymous-instance", 51_200));
        assert_eq!(options.most_metadata(), 51_200);
        assert_eq!(parsed(&["--http-api-max-payload-size", "9"]).unwrap().most_metadata(), 9);
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        assert!(parsed(&["--no-api"]).unwrap_err().contains("--config-file"));
        assert!(parsed(&["--no-seccomp", "--seccomp-filter", "x"]).is_err());
        assert!(parsed(&["--cgroup", "pids.max=7", "--jail", "/x"]).unwrap_err().contains("--parent-cgroup"));
        assert!(parsed(&["--jail", "/x", "--uid", "7"]).unwrap_err().contains("--gid"));
        for jailed in [["--parent-cgroup", "/x"], ["--resource-limit", "fsize=1"]] {
            assert!(parsed(&jailed).unwrap_err().contains("--jail"));
        }
        assert!(
            parsed(&["--jail", "/x", "--resource-limit", "x=1"]).unwrap_err().contains("allowed are no-file=NUMBER")
        );
        assert!(parsed(&["--id", "a_b"]).unwrap_err().contains("it has a '_', allowed are letters"));
        assert!(parsed(&["--id", &"a".repeat(65)]).unwrap_err().contains("it has 65 bytes"));
    }
}
