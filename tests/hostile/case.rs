//! What a case is: what the guest does, what it needs, and how it may end.

use std::fs::File;
use std::time::Duration;

use vmcell::Limits;

use super::run;

/// One bad thing that a guest can do.
pub struct Case {
    /// Also the name of the test, and of the guest's function.
    pub name: &'static str,
    /// What the guest does.
    pub did: &'static str,
    /// What it must not achieve by that.
    pub must_not: &'static str,
    pub ends: Ends,
    pub setup: Setup,
}

/// How a case must end for the guest that did it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// Its next valid request is served.
    Served,
    /// Valid requests are served after a reset, and not before.
    AfterReset,
    /// Either of the two.
    Either,
    /// The guest goes on as before.
    GoesOn,
    /// The guest is ended by what it did.
    Ended,
}

impl Ends {
    pub fn words(self) -> &'static str {
        match self {
            Self::Served => "the next valid request is served",
            Self::AfterReset => "valid requests are served after a reset",
            Self::Either => "valid requests are served, at the latest after a reset",
            Self::GoesOn => "the guest goes on",
            Self::Ended => "the guest ends",
        }
    }
}

/// Where the bad guest's disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// In a file in memory.
    Memory,
    /// In an ordinary file.
    File,
    /// On a file system of 1 MiB, which needs root.
    Small,
}

/// What a case needs.
#[derive(Clone, Copy)]
pub struct Setup {
    pub storage: Storage,
    pub mib: u64,
    pub read_only: bool,
    pub nic: bool,
    /// Pairs of queues of the network card.
    pub pairs: u16,
    /// Queues of the disk.
    pub queues: u16,
    pub vcpus: u32,
    /// What the guest may do with its disk.
    pub limits: fn() -> Limits,
    /// A source of random bytes.
    pub rng: bool,
    /// A balloon.
    pub balloon: bool,
    /// A vsock, of which the host listens on port 80 and reads nothing.
    pub vsock: bool,
    /// All of the process's threads together get the time of one processor.
    pub scarce: bool,
    /// Its first 8 MiB are noise.
    pub noise: bool,
    /// After this long the test goes on, whether or not the guest is done.
    pub limit: Duration,
    /// The guest need not be done by then: what it asked for may be that much.
    pub may_take_longer: bool,
    /// How many VMs run the case, one after the other on the same disk. Each is told its number.
    pub runs: u32,
    /// What the host program must be told of a device that fails, if the case has one fail that is not the guest's fault.
    pub told: Option<&'static str>,
    /// What the test does on the host when the guest asks for it.
    pub help: fn(&Host<'_>, &str),
}

/// What a case's helper can reach.
pub struct Host<'a> {
    /// The bad guest's disk.
    pub disk: &'a File,
    /// Its size in bytes when the guest was started.
    pub len: u64,
    /// The name of its network card's device, if it has one.
    pub tap: Option<&'a str>,
}

impl Setup {
    /// A disk of 64 MiB in memory.
    pub const DISK: Self = Self {
        storage: Storage::Memory,
        mib: 64,
        read_only: false,
        nic: false,
        pairs: 1,
        queues: 1,
        vcpus: 1,
        limits: Limits::new,
        rng: false,
        balloon: false,
        vsock: false,
        scarce: false,
        noise: false,
        limit: Duration::from_secs(10),
        may_take_longer: false,
        runs: 1,
        told: None,
        help: |_, what| panic!("the guest asks for {what:?}"),
    };
}

/// Makes a list of cases, and a test of each.
macro_rules! cases {
    ($($name:ident {
        did: $did:literal,
        must_not: $must_not:literal,
        ends: $ends:ident,
        $(needs: { $($field:ident: $value:expr),* $(,)? },)?
    })*) => {
        pub const CASES: &[$crate::hostile::case::Case] = &[$($crate::hostile::case::Case {
            name: stringify!($name),
            did: $did,
            must_not: $must_not,
            ends: $crate::hostile::case::Ends::$ends,
            setup: $crate::hostile::case::Setup { $($($field: $value,)*)? ..$crate::hostile::case::Setup::DISK },
        }),*];
        $(
            #[test]
            #[ignore = "needs /dev/kvm: cargo xtask test"]
            fn $name() {
                $crate::hostile::case::run_by_name(CASES, stringify!($name));
            }
        )*
    };
}
pub(crate) use cases;

pub fn run_by_name(cases: &[Case], name: &str) {
    run::run(cases.iter().find(|case| case.name == name).expect("a case of the list"));
}
