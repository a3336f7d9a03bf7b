//! What the host offers and the standard library does not: each file wraps one thing, and owns its descriptor.
//!
//! Nothing here knows of virtual machines. Rooms above use it instead of `libc`, but for `memory`, which maps the guest's RAM
//! and hands it to the kernel, and `kvm`, which talks to KVM.
//!
//! Where a safety note says that a descriptor is open, the `File`, `OwnedFd` or `BorrowedFd` that it is taken from keeps it
//! open for the call; none is kept as a number. Pointers that are passed lead to values of the calling function, which
//! outlive the call, and the kernel keeps none of them.
#![allow(unsafe_code, reason = "wraps system calls that have no safe interface")]

mod affinity;
mod caught;
mod core_scheduling;
mod elsewhere;
#[cfg(not(shuttle))]
mod epoll;
#[cfg(not(shuttle))]
mod eventfd;
mod file;
mod folder;
#[cfg(test)]
#[path = "forbid_test.rs"]
mod forbid;
mod landlock;
mod link;
mod lock;
#[cfg(any(feature = "secret", feature = "volume"))]
mod locked;
#[cfg(feature = "volume")]
mod locked_value;
#[cfg(shuttle)]
pub(crate) mod model;
#[cfg(any(feature = "save", feature = "secret"))]
mod nameless;
mod namespace;
mod process;
mod random;
#[cfg(any(feature = "secret", feature = "volume"))]
mod scrub;
mod signal;
mod stage;
mod stream;
pub(crate) mod sync;
mod tap;
mod thread;
#[cfg(feature = "wireguard")]
mod udp;
mod unix_socket;
mod uring;

pub(crate) use affinity::{CpuSet, allowed_cpus};
pub(crate) use caught::catch_panic;
pub(crate) use core_scheduling::{CoreGroup, core_cookie};
pub(crate) use elsewhere::{Parting, do_elsewhere};
#[cfg(not(shuttle))]
pub(crate) use epoll::{Epoll, Ready, Watch};
#[cfg(not(shuttle))]
pub use eventfd::EventFd;
#[cfg(any(test, feature = "test-util"))]
pub(crate) use file::anonymous_file;
#[cfg(any(test, feature = "capi"))]
pub(crate) use file::is_open;
#[cfg(any(feature = "secret", feature = "volume"))]
pub(crate) use file::open_whole;
#[cfg(feature = "save")]
pub(crate) use file::read_ahead;
pub(crate) use file::{
    DirectAlignment, ZeroMode, allocate, appends, direct_alignment, file_limit, is_direct, is_in_memory, is_writable,
    lockable_bytes, merges_memory, next_data, open_device_alone, open_disk, start_of_data, try_lock, unlock,
    waits_always, zero_range,
};
pub(crate) use folder::{Folder, folder_of};
#[cfg(test)]
pub(crate) use forbid::forbid;
pub(crate) use landlock::{Beneath, Forbids, landlock_version, restrict_this_thread};
pub(crate) use lock::{lock, lock_if_free};
#[cfg(any(feature = "secret", feature = "volume"))]
pub(crate) use locked::{LockedBytes, zero};
#[cfg(feature = "volume")]
pub(crate) use locked_value::Locked;
#[cfg(shuttle)]
pub use model::EventFd;
#[cfg(shuttle)]
pub(crate) use model::{Epoll, Ready, Watch};
#[cfg(any(feature = "save", feature = "secret"))]
pub(crate) use nameless::{give_name, nameless_file};
pub(crate) use namespace::{
    Kept, Namespace, NoUserNamespace, enter_empty_root, forbid_user_namespaces, leave_namespace, leave_user_namespace,
    open_path, try_user_namespace,
};
pub use process::InheritedDescriptors;
pub(crate) use process::{
    Resource, drop_capabilities, forbid_looking_in, forbid_new_privileges, hard_limit, is_single_threaded,
    limit_resource, locks_without_limit,
};
pub(crate) use random::{random_bytes, random_bytes_now};
#[cfg(feature = "secret")]
pub(crate) use scrub::on_scrubbed_stack;
pub use signal::DEFAULT_KICK_SIGNAL;
pub(crate) use signal::{KickSignal, SignalSet};
pub(crate) use stream::{Attempt, Direction, Stream, set_nonblocking};
pub use tap::Offloads;
pub(crate) use tap::{Tap, TapDevice};
pub(crate) use thread::{
    Filtered, ThreadHandle, block_all_signals, check_may_wait, current_thread_id, filtered, forbid_waiting,
    is_filtered, kick_thread, may_wait, name_of_helper, note_filtered, spawn, thread_cpu_time, thread_cpu_time_of,
    thread_name, without_waiting,
};
#[cfg(feature = "wireguard")]
pub(crate) use udp::{bind_udp, join_arrivals, receive_segments, send_segments, set_udp_buffers};
pub(crate) use unix_socket::{MAX_SOCKET_PATH, accept_now, connect_now, listen_privately, non_blocking_pair, peek};
pub(crate) use uring::{Move, Uring};
