//! The command line of `cell`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

use crate::fault::Fault;

/// Runs apps in VMs on this host: deploys them, keeps them private, and shows what they do.
#[derive(Debug, Parser)]
#[command(name = "cell", version, disable_help_subcommand = true)]
pub struct Options {
    /// The folder with the state; /var/lib/cell for root, and ~/.local/state/cell for others, if neither this nor CELL_STATE is given
    #[arg(long, global = true, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// Prints results, and what is refused, as JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs the apps of this host until it is told to end by SIGTERM or SIGINT
    Serve(Box<Serve>),
    /// Deploys the app that a file describes: a new release replaces the old one once it is healthy
    Deploy {
        /// The description
        #[arg(default_value = "app.toml")]
        file: PathBuf,
        /// Waits for another deploy of the app, instead of being refused
        #[arg(long)]
        wait: bool,
        /// Leaves a dead host out, which gets the release when it is back; may be given several times
        #[arg(long, value_name = "HOST")]
        without: Vec<String>,
    },
    /// Shows what runs
    Status {
        /// One app; all if none is named
        app: Option<String>,
    },
    /// Shows what the VMs of an app have said
    Logs {
        /// The app
        app: String,
        /// Goes on with what they say from now on
        #[arg(short, long)]
        follow: bool,
    },
    /// Runs a command in a VM of an app, and ends with its exit status
    Exec {
        /// The app
        app: String,
        /// The VM's number; any if none is given
        #[arg(long)]
        vm: Option<u32>,
        /// The VM's host, if there are several; any if none is given
        #[arg(long, value_name = "NAME")]
        host: Option<String>,
        /// The command and its arguments
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Makes a port of an app one of this host's loopback
    Proxy {
        /// The app
        app: String,
        /// PORT, or LOCAL:PORT; LOCAL 0 is any that is free
        ports: String,
    },
    /// Sets how many VMs of an app run
    Scale {
        /// The app
        app: String,
        /// How many
        count: u32,
    },
    /// Replaces the VMs of an app by new ones of the same release
    Restart {
        /// The app
        app: String,
        /// Leaves a dead host out; may be given several times
        #[arg(long, value_name = "HOST")]
        without: Vec<String>,
    },
    /// Ends a deploy that is under way; what ran before goes on
    Cancel {
        /// The app
        app: String,
    },
    /// Ends an app and forgets it
    Destroy {
        /// The app
        app: String,
        /// Its name once more, so that it is not destroyed by mistake
        #[arg(long, value_name = "APP")]
        yes: String,
    },
    /// Shows the releases of an app
    Releases {
        /// The app
        app: String,
    },
    /// Sets, takes out and lists secrets
    #[command(subcommand)]
    Secrets(Secrets),
    /// Lists volumes, and takes, restores and forks snapshots of them
    #[command(subcommand)]
    Volumes(Volumes),
    /// Lets laptops into the private network by WireGuard
    #[command(subcommand)]
    Wireguard(Wireguard),
    /// Makes several hosts one platform
    #[command(subcommand)]
    Hosts(Hosts),
    /// Makes a host that has nothing yet one of others; then `cell serve` runs it
    Join {
        /// The line that `cell hosts invite` has printed
        token: String,
        /// The address and port by which the other hosts find this one: UDP and TCP
        #[arg(long, value_name = "ADDRESS:PORT")]
        mesh: SocketAddr,
        /// The name of this host among them; that of the system if none is given
        #[arg(long)]
        name: Option<String>,
    },
    /// Prints what a shell reads to complete commands
    Completion {
        /// bash, elvish, fish, powershell or zsh
        shell: clap_complete::Shell,
    },
}

/// What to do with secrets.
#[derive(Clone, Debug, Subcommand)]
pub enum Secrets {
    /// Seals the text of standard input; a running app that has the secret is deployed anew
    Set {
        /// The app, which need not be there yet
        app: String,
        /// The secret's name, that of a variable
        name: String,
        /// Leaves what runs as it is until the next deploy
        #[arg(long)]
        stage: bool,
        /// Leaves a dead host out, which gets the new value when it is back; may be given several times
        #[arg(long, value_name = "HOST", conflicts_with = "stage")]
        without: Vec<String>,
    },
    /// Takes a secret out that no running app has
    Unset {
        /// The app
        app: String,
        /// The secret's name
        name: String,
    },
    /// Lists names, versions and digests; the digests tell nothing of the values
    List {
        /// The app
        app: String,
    },
}

/// What to do with volumes.
#[derive(Clone, Debug, Subcommand)]
pub enum Volumes {
    /// Lists the volumes of an app and their snapshots
    List {
        /// The app
        app: String,
    },
    /// Takes a snapshot, while the VM runs
    Snapshot {
        /// The app
        app: String,
        /// The volume
        volume: String,
    },
    /// Makes a copy of another host's volume one that may be written to, as it was when it was sent last; that host's is refused from then on
    Promote {
        /// The app
        app: String,
        /// The volume
        volume: String,
    },
    /// Destroys a volume that no app uses, or a copy of another host's, with its snapshots and its key
    Destroy {
        /// The app
        app: String,
        /// The volume
        volume: String,
        /// Its name once more, so that it is not destroyed by mistake
        #[arg(long, value_name = "VOLUME")]
        yes: String,
    },
    /// Removes a snapshot; its space comes back a while later, and the VM runs on
    Remove {
        /// The app
        app: String,
        /// The volume
        volume: String,
        /// The snapshot's number
        snapshot: u32,
    },
    /// Makes a volume begin as a snapshot; its VM starts anew, and what it had becomes a snapshot
    Restore {
        /// The app
        app: String,
        /// The volume
        volume: String,
        /// The snapshot's number
        snapshot: u32,
    },
    /// Makes a volume for another app, or of another name, that begins as a snapshot
    Fork {
        /// The app
        app: String,
        /// The volume
        volume: String,
        /// The snapshot's number
        snapshot: u32,
        /// The app that gets it
        to_app: String,
        /// The new volume's name
        to_volume: String,
    },
    /// Makes a volume larger; its file system grows when the VM starts anew
    Extend {
        /// The app
        app: String,
        /// The volume
        volume: String,
        /// Its new size, such as 20G
        size: String,
    },
}

/// Who may come into the private network.
#[derive(Clone, Debug, Subcommand)]
pub enum Wireguard {
    /// Lets a laptop reach the services of all apps, and prints its configuration, which is kept nowhere: `wg-quick up FILE`
    Create {
        /// The laptop's name
        name: String,
    },
    /// Lets a laptop in no longer
    Remove {
        /// The laptop's name
        name: String,
    },
    /// Lists the laptops
    List,
}

/// The hosts that are one platform.
#[derive(Clone, Debug, Subcommand)]
pub enum Hosts {
    /// Prints a token by which one host may join within an hour: `cell join TOKEN --mesh ADDRESS:PORT`
    Invite,
    /// Lists the hosts, and which of them are alive
    List,
    /// Takes a host out, for ever
    Remove {
        /// Its name
        name: String,
    },
}

/// How the apps are run.
#[derive(Debug, clap::Args)]
pub struct Serve {
    /// The kernel of apps that name none
    #[arg(long, value_name = "PATH")]
    pub kernel: Option<PathBuf>,
    /// The kernel's modules, the folder that has its modules.dep
    #[arg(long, value_name = "DIR")]
    pub modules: Option<PathBuf>,
    /// The address and UDP port by which laptops find this host, to let them in
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub wireguard: Option<SocketAddr>,
    /// The address and port by which other hosts find this one, to be one platform with them: UDP and TCP
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub mesh: Option<SocketAddr>,
    /// The name of this host among them, when it is the first; that of the system if none is given
    #[arg(long, requires = "mesh")]
    pub name: Option<String>,
    /// Serves the public names of apps by HTTPS here, such as 0.0.0.0:443; may be given several times
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub https: Vec<SocketAddr>,
    /// The port of HTTPS as clients see it, if it is not that of the first --https
    #[arg(long, value_name = "PORT", requires = "https")]
    pub https_port: Option<u16>,
    /// Answers HTTP here, such as 0.0.0.0:80, by redirects to HTTPS, and the ACME server's questions; may be given several times
    #[arg(long, value_name = "ADDRESS:PORT", requires = "https")]
    pub http: Vec<SocketAddr>,
    /// Where certificates come from: the directory of an ACME server, whose terms you accept by this
    #[arg(long, value_name = "URL", requires = "https")]
    pub acme: Option<String>,
    /// Where the ACME server may write to, such as mailto:admin@example.com
    #[arg(long, value_name = "URL", requires = "acme")]
    pub acme_contact: Option<String>,
    /// Certificates in PEM that are trusted beside those of the host, to reach the ACME server
    #[arg(long, value_name = "PATH", requires = "acme")]
    pub acme_roots: Option<PathBuf>,
    /// Serves a page here that shows what runs, such as 127.0.0.1:8000; an address of this host's loopback
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub ui: Option<SocketAddr>,
    /// The program that guests start with, instead of the cell-init beside this program
    #[arg(long, value_name = "PATH")]
    pub init: Option<PathBuf>,
}

/// Why arguments are refused, for those who read it as JSON: their mistake, and how they are used.
#[must_use]
pub fn refused(error: &clap::Error) -> Fault {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return Fault::new("a command is missing")
            .next("`cell --help`, and `--help` of a command, list what is allowed.");
    }
    let text = error.to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let (message, next) = text.split_once("\n\n").unwrap_or((text, "`--help` shows what is allowed."));
    Fault::new(message.trim_end()).next(next.trim())
}

/// Do these arguments ask for JSON? What comes after `--` is another program's.
pub fn ask_for_json(arguments: impl IntoIterator<Item = std::ffi::OsString>) -> bool {
    arguments.into_iter().take_while(|argument| argument != "--").any(|argument| argument == "--json")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(arguments: &[&str]) -> Fault {
        refused(&Options::try_parse_from([&["cell"], arguments].concat()).unwrap_err())
    }

    #[test]
    fn a_refusal_is_told_in_two_parts() {
        let fault = refusal(&["logs"]);
        assert!(fault.message.contains("<APP>") && !fault.message.contains("Usage"), "{fault:?}");
        assert!(fault.next.unwrap().contains("Usage: cell logs <APP>"));
        let fault = refusal(&["scale", "web", "many"]);
        assert!(fault.message.starts_with("invalid value 'many' for '<COUNT>'"), "{fault:?}");
        let fault = refusal(&["deploi"]);
        assert!(fault.message.contains("'deploi'") && fault.next.unwrap().contains("'deploy'"));
        for none in [&[][..], &["volumes"]] {
            assert_eq!(refusal(none).message, "a command is missing");
        }
    }

    #[test]
    fn json_is_asked_for_by_arguments_of_cell_alone() {
        let asks = |arguments: &[&str]| ask_for_json(arguments.iter().map(Into::into));
        assert!(asks(&["--json", "status"]) && asks(&["logs", "--json", "web"]));
        assert!(!asks(&["exec", "web", "--", "ls", "--json"]) && !asks(&["logs", "web"]));
    }
}
