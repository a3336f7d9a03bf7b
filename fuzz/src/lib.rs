//! Fuzz targets: each is a function from bytes to nothing that panics if a device breaks a promise.
//!
//! The code that ships runs on the calling thread, turn by turn, without a clock, so an input does the same each time. What
//! it should do is said by models, written from the specification, that share no code with it.
//!
//! Two things run the targets: libFuzzer, guided by coverage (`fuzz_targets/`), and [`sweep`], which needs nothing but a
//! compiler (`tests/`).

pub mod alloc;
pub mod api;
/// The platform's. Its files are taken one by one: the whole of it would bring SQLite and a web server.
#[path = "../../platform/src/app/mod.rs"]
pub mod app;
pub mod app_toml;
pub mod balloon;
pub mod block;
pub mod boot;
pub mod clock;
#[path = "../../examples/launch/describe.rs"]
pub mod describe;
pub mod description;
pub mod disk;
/// The platform's rule for names, which `app` needs.
#[path = "../../platform/src/edge/routes.rs"]
pub mod edge;
#[path = "../../platform/src/fault.rs"]
pub mod fault;
pub mod ffi;
pub mod frame_stream;
pub mod guest;
#[path = "../../platform/src/image/mod.rs"]
pub mod image;
pub mod images;
pub mod input;
pub mod launcher;
pub mod messages;
pub mod metadata;
pub mod net;
/// The launcher's, which its options need.
#[path = "../../examples/launch/network.rs"]
pub mod network;
#[path = "../../examples/launch/options.rs"]
pub mod options;
#[path = "../../examples/launch/place.rs"]
pub mod place;
#[path = "../../platform/src/guest.rs"]
pub mod platform_guest;
pub mod ports;
#[path = "network.rs"]
pub mod private_network;
pub mod queue;
pub mod random;
pub mod registers;
pub mod ring;
pub mod saved;
pub mod sealed;
pub mod secret_store;
pub mod sweep;
pub mod volume;
pub mod volume_fork;
pub mod vsock;
pub mod wg_quick;
#[path = "../../examples/launch/wire.rs"]
pub mod wire;
pub mod wireguard;
pub mod world;

/// A target by its name.
pub struct Target {
    /// As in `cargo xtask fuzz NAME`, and as its folder of seeds is called.
    pub name: &'static str,
    /// Runs one input.
    pub run: fn(&[u8]),
    /// Inputs that reach far, by their names.
    pub seeds: fn() -> Vec<(&'static str, Vec<u8>)>,
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "queue", run: queue::run, seeds: queue::seeds },
    Target { name: "block", run: block::run, seeds: block::seeds },
    Target { name: "net", run: net::run, seeds: net::seeds },
    Target { name: "registers", run: registers::run, seeds: registers::seeds },
    Target { name: "random", run: random::run, seeds: random::seeds },
    Target { name: "balloon", run: balloon::run, seeds: balloon::seeds },
    Target { name: "metadata", run: metadata::run, seeds: metadata::seeds },
    Target { name: "network", run: private_network::run, seeds: private_network::seeds },
    Target { name: "frame_stream", run: frame_stream::run, seeds: frame_stream::seeds },
    Target { name: "vsock", run: vsock::run, seeds: vsock::seeds },
    Target { name: "elf", run: boot::elf::run, seeds: boot::elf::seeds },
    Target { name: "pvh", run: boot::pvh::run, seeds: boot::pvh::seeds },
    Target { name: "bzimage", run: boot::bzimage::run, seeds: boot::bzimage::seeds },
    Target { name: "initrd", run: boot::initrd::run, seeds: boot::initrd::seeds },
    Target { name: "cmdline", run: boot::cmdline::run, seeds: boot::cmdline::seeds },
    Target { name: "ports", run: ports::run, seeds: ports::seeds },
    Target { name: "serial", run: ports::serial::run, seeds: ports::serial::seeds },
    Target { name: "windows", run: ports::windows::run, seeds: ports::windows::seeds },
    Target { name: "description", run: description::run, seeds: description::seeds },
    Target { name: "saved", run: saved::run, seeds: saved::seeds },
    Target { name: "volume", run: volume::run, seeds: volume::seeds },
    Target { name: "volume_fork", run: volume_fork::run, seeds: volume_fork::seeds },
    Target { name: "sealed", run: sealed::run, seeds: sealed::seeds },
    Target { name: "secret_store", run: secret_store::run, seeds: secret_store::seeds },
    Target { name: "wireguard", run: wireguard::run, seeds: wireguard::seeds },
    Target { name: "wg_quick", run: wg_quick::run, seeds: wg_quick::seeds },
    Target { name: "launcher", run: launcher::run, seeds: launcher::seeds },
    Target { name: "api", run: api::run, seeds: api::seeds },
    Target { name: "ffi", run: ffi::run, seeds: ffi::seeds },
    Target { name: "image", run: images::run, seeds: images::seeds },
    Target { name: "app_toml", run: app_toml::run, seeds: app_toml::seeds },
    Target { name: "guest_messages", run: messages::run, seeds: messages::seeds },
];
