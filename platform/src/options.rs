//! The command line of `cell`.

use clap::Parser;

/// Runs apps in VMs on this host: deploys them, keeps them private, and shows what they do.
#[derive(Debug, Parser)]
#[command(name = "cell", disable_version_flag = true)]
pub struct Options {}
