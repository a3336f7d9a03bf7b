//! The system calls that each kind of thread makes, and why.
//!
//! They are those of this crate, of the standard library, and of the C library under it. Newer C libraries try newer calls first and do
//! without them if the kernel has none, which a refused one looks like.

/// What a thread is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It runs a vCPU.
    Vcpu,
    /// It serves devices and the console, or is a helper that such a thread has started. It may have logs to
    /// [rotate](crate::ConsoleFile::rotate), and a vsock, which may have a [path](crate::VsockConfig::unix_path).
    Io { rotates: bool, vsock: bool, connects: bool },
    /// It is one of the host program's, which starts, pauses, resumes, ends and frees VMs that were built before.
    Control,
}

/// A system call that some threads may make.
#[cfg_attr(not(test), expect(dead_code, reason = "names and reasons are for docs/confinement.md"))]
pub(super) struct Call {
    pub(super) name: &'static str,
    pub(super) number: i64,
    pub(super) by: By,
    pub(super) only: Only,
    pub(super) why: &'static str,
}

/// Who may make a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    Both,
    Vcpu,
    Io,
    /// A thread that rotates logs.
    Rotation,
    /// A thread that serves a vsock.
    Vsock,
    /// A thread that serves a vsock with a path.
    Paths,
    /// Either of the two that have files of their own.
    Removal,
    Control,
}

/// For which arguments a call may be made. Arguments are counted from 0.
#[derive(Clone, Copy)]
#[cfg_attr(not(test), expect(dead_code, reason = "names are for docs/confinement.md"))]
pub(super) enum Only {
    Any,
    /// If an argument of four bytes is one of these.
    OneOf(u8, &'static [(&'static str, u64)]),
    /// If an argument has all of these bits.
    With(u8, &'static str, u64),
    /// If an argument has none of these bits.
    Without(u8, &'static str, u64),
    /// If its first argument is this process.
    Own,
    /// If its arguments of these numbers are zero.
    Zero(&'static [u8]),
}

impl By {
    pub(super) fn includes(self, kind: Kind) -> bool {
        match self {
            Self::Both => true,
            // A thread has no more than the one that starts it.
            Self::Vcpu => matches!(kind, Kind::Vcpu | Kind::Control),
            Self::Io => matches!(kind, Kind::Io { .. } | Kind::Control),
            Self::Control => kind == Kind::Control,
            Self::Rotation => matches!(kind, Kind::Io { rotates: true, .. }),
            Self::Vsock => matches!(kind, Kind::Io { vsock: true, .. } | Kind::Control),
            Self::Paths => matches!(kind, Kind::Io { connects: true, .. }),
            Self::Removal => Self::Rotation.includes(kind) || Self::Paths.includes(kind),
        }
    }
}

macro_rules! call {
    ($by:ident, $number:ident, $why:literal) => {
        call!($by, $number, Only::Any, $why)
    };
    ($by:ident, $number:ident, $only:expr, $why:literal) => {
        Call { name: stringify!($number), number: libc::$number, by: By::$by, only: $only, why: $why }
    };
}

/// The requests to KVM that a vCPU's thread makes (`linux/kvm.h`).
const KVM_REQUESTS: Only = Only::OneOf(
    1,
    &[
        ("KVM_RUN", 0xae80),
        ("KVM_GET_REGS", 0x8090_ae81),
        ("KVM_SET_SIGNAL_MASK", 0x4004_ae8b),
        ("KVM_KVMCLOCK_CTRL", 0xaead),
    ],
);
/// The requests to KVM by which the state of a VM is read (`linux/kvm.h`).
const STATE_REQUESTS: Only = Only::OneOf(
    1,
    &[
        ("KVM_GET_MP_STATE", 0x8004_ae98),
        ("KVM_GET_REGS", 0x8090_ae81),
        ("KVM_GET_SREGS", 0x8138_ae83),
        ("KVM_GET_CPUID2", 0xc008_ae91),
        ("KVM_GET_XCRS", 0x8188_aea6),
        ("KVM_GET_DEBUGREGS", 0x8080_aea1),
        ("KVM_GET_LAPIC", 0x8400_ae8e),
        ("KVM_GET_XSAVE", 0x9000_aea4),
        ("KVM_GET_MSRS", 0xc008_ae88),
        ("KVM_GET_TSC_KHZ", 0xaea3),
        ("KVM_GET_DEVICE_ATTR", 0x4018_aee2),
        ("KVM_GET_VCPU_EVENTS", 0x8040_ae9f),
        ("KVM_GET_IRQCHIP", 0xc208_ae62),
        ("KVM_GET_PIT2", 0x8070_ae9f),
        ("KVM_GET_CLOCK", 0x8030_ae7c),
    ],
);
const SEALABLE: Only =
    Only::With(1, "MFD_CLOEXEC|MFD_ALLOW_SEALING", (libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING) as u64);
const TO_KEEP_APART: Only = Only::OneOf(2, &[("MADV_DONTFORK", libc::MADV_DONTFORK as u64)]);
/// The request by which nobody can change a snapshot's memory any more (`linux/fcntl.h`).
const SEAL_REQUESTS: Only = Only::OneOf(1, &[("F_ADD_SEALS", libc::F_ADD_SEALS as u64)]);
/// The requests to a TAP device, a block device or a terminal that serving it takes (`linux/if_tun.h`, `linux/fs.h`).
const DEVICE_REQUESTS: Only = Only::OneOf(
    1,
    &[
        ("TUNSETOFFLOAD", 0x4004_54d0),
        ("TUNGETIFF", 0x8004_54d2),
        ("BLKSSZGET", 0x1268),
        ("BLKGETSIZE64", 0x8008_1272),
        ("BLKDISCARD", 0x1277),
        ("BLKZEROOUT", 0x127f),
        ("TCGETS", 0x5401),
        ("FIONREAD", 0x541b),
    ],
);
/// The requests to a terminal by which its mode is put back.
const TERMINAL_REQUESTS: Only = Only::OneOf(1, &[("TCSETS", 0x5402), ("TCSETSW", 0x5403), ("TCSETSF", 0x5404)]);
/// The request to a stream by which it blocks, or does not (`asm-generic/ioctls.h`).
const STREAM_REQUESTS: Only = Only::OneOf(1, &[("FIONBIO", 0x5421)]);
const UNIX_SOCKETS: Only = Only::OneOf(0, &[("AF_UNIX", libc::AF_UNIX as u64)]);
/// What a thread is given before it is filtered itself (`linux/prctl.h`).
const THREAD_SETTINGS: Only =
    Only::OneOf(0, &[("PR_SET_NO_NEW_PRIVS", libc::PR_SET_NO_NEW_PRIVS as u64), ("PR_SCHED_CORE", 62)]);
const FCNTL_REQUESTS: Only = Only::OneOf(
    1,
    &[
        ("F_GETFD", libc::F_GETFD as u64),
        ("F_GETFL", libc::F_GETFL as u64),
        ("F_OFD_SETLK", libc::F_OFD_SETLK as u64),
        ("F_DUPFD_CLOEXEC", libc::F_DUPFD_CLOEXEC as u64),
    ],
);
/// Others take pages of the host out of use, if the process is privileged.
const ADVICE: Only = Only::OneOf(
    2,
    &[
        ("MADV_DONTNEED", libc::MADV_DONTNEED as u64),
        ("MADV_FREE", libc::MADV_FREE as u64),
        ("MADV_HUGEPAGE", libc::MADV_HUGEPAGE as u64),
        ("MADV_NOHUGEPAGE", libc::MADV_NOHUGEPAGE as u64),
        ("MADV_DONTDUMP", libc::MADV_DONTDUMP as u64),
        ("MADV_DODUMP", libc::MADV_DODUMP as u64),
        ("MADV_GUARD_INSTALL", 102),
        ("MADV_GUARD_REMOVE", 103),
    ],
);
const TO_WRITE_A_LOG: Only =
    Only::With(2, "O_WRONLY|O_CREAT|O_APPEND", (libc::O_WRONLY | libc::O_CREAT | libc::O_APPEND) as u64);
const NOT_EXECUTABLE: Only = Only::Without(2, "PROT_EXEC", libc::PROT_EXEC as u64);

#[rustfmt::skip]
pub(super) const CALLS: &[Call] = &[
    // What a guest has a part in.
    call!(Vcpu, SYS_ioctl, KVM_REQUESTS, "runs the guest, and says where it was if that fails"),
    call!(Io, SYS_ioctl, DEVICE_REQUESTS, "agrees on offloads, discards and zeroes, and asks for sizes"),
    call!(Both, SYS_read, "takes an eventfd's signal, or the console's input"),
    call!(Both, SYS_write, "signals an eventfd, or writes the console's output"),
    call!(Io, SYS_readv, "takes a frame"),
    call!(Io, SYS_writev, "sends a frame"),
    call!(Io, SYS_pread64, "reads a disk"),
    call!(Io, SYS_pwrite64, "writes a disk"),
    call!(Io, SYS_preadv, "reads a disk"),
    call!(Io, SYS_pwritev, "writes a disk"),
    call!(Io, SYS_preadv2, "reads a disk or the console without waiting"),
    call!(Io, SYS_pwritev2, "writes a disk or the console without waiting"),
    call!(Io, SYS_recvfrom, "reads a console that is a socket"),
    call!(Io, SYS_sendto, Only::Zero(&[4, 5]), "writes a console that is a socket, or the host's end of a vsock connection"),
    call!(Io, SYS_pipe2, "makes a pipe between us and a console's, on kernels that cannot be asked not to wait for one"),
    call!(Io, SYS_splice, "moves bytes from pipe to pipe"),
    call!(Io, SYS_fdatasync, "makes a disk's data stable"),
    call!(Io, SYS_fsync, "makes a disk stable"),
    call!(Io, SYS_fallocate, "discards and zeroes, and gives the guest's memory back if it is on memfd"),
    call!(Io, SYS_ftruncate, "starts a log anew"),
    call!(Io, SYS_lseek, "finds the end of a disk, and what of it is data"),
    call!(Io, SYS_fstat, "asks for a file's size and kind"),
    call!(Io, SYS_statx, Only::Any, "asks for a file's size, kind and alignment"),
    call!(Io, SYS_fstatfs, "asks what file system a file is on"),
    call!(Io, SYS_io_uring_enter, "hands requests to the ring, which was made and restricted before the filter"),
    call!(Io, SYS_io_uring_register, Only::OneOf(1, &[("IORING_REGISTER_FILES_UPDATE", 6)]), "puts a disk's file into the ring"),
    call!(Io, SYS_epoll_wait, "waits for what there is to do"),
    call!(Io, SYS_epoll_pwait, "waits for what there is to do"),
    call!(Io, SYS_epoll_pwait2, "waits for what there is to do"),
    call!(Io, SYS_epoll_ctl, "says what to wait for"),
    call!(Io, SYS_epoll_create1, "looks what kind of descriptor a console has"),
    call!(Io, SYS_poll, "waits for a console's reader"),
    call!(Both, SYS_fcntl, FCNTL_REQUESTS, "asks for a descriptor's flags, duplicates it, and lets a disk's lock go"),
    call!(Both, SYS_close, "lets a descriptor go"),
    // Threads.
    call!(Both, SYS_futex, "waits for another thread, and wakes it"),
    call!(Both, SYS_tgkill, Only::Own, "makes a vCPU leave the guest"),
    call!(Both, SYS_getpid, "names the process to tgkill"),
    call!(Both, SYS_gettid, "names the thread"),
    call!(Both, SYS_sched_yield, "lets another thread run"),
    call!(Both, SYS_nanosleep, "waits for a moment"),
    call!(Both, SYS_clock_nanosleep, "waits for a moment"),
    call!(Both, SYS_clock_gettime, "reads a clock"),
    call!(Both, SYS_rt_sigprocmask, "blocks signals"),
    call!(Both, SYS_rt_sigtimedwait, "takes a kick that came too late"),
    call!(Both, SYS_rt_sigreturn, "comes back from a handler of the host program's"),
    call!(Both, SYS_restart_syscall, "goes on waiting after the process was stopped"),
    call!(Both, SYS_sigaltstack, "gives its stack for signals back"),
    call!(Both, SYS_sched_getaffinity, "is how the C library finds a thread's stack"),
    call!(Both, SYS_exit, "ends the thread"),
    call!(Both, SYS_exit_group, "ends the process, if the host program says so"),
    call!(Both, SYS_clone, Only::With(0, "CLONE_THREAD", libc::CLONE_THREAD as u64), "starts a helper, or a thread that ends a VM; there is no new process"),
    call!(Both, SYS_set_robust_list, "begins a thread"),
    call!(Both, SYS_rseq, "begins a thread"),
    call!(Both, SYS_prctl, Only::OneOf(0, &[("PR_SET_NAME", libc::PR_SET_NAME as u64)]), "names a helper"),
    // Memory.
    call!(Both, SYS_mmap, NOT_EXECUTABLE, "allocates"),
    call!(Both, SYS_mprotect, NOT_EXECUTABLE, "allocates"),
    call!(Both, SYS_mremap, "allocates"),
    call!(Both, SYS_munmap, "gives memory back"),
    call!(Both, SYS_madvise, ADVICE, "gives memory back, the guest's as well, and guards stacks"),
    call!(Both, SYS_brk, "allocates"),
    call!(Both, SYS_getrandom, "seeds a hash table"),
    // What a thread that keeps VMs does beside.
    call!(Control, SYS_seccomp, Only::OneOf(0, &[("SECCOMP_SET_MODE_FILTER", 1)]), "filters a thread of a VM further"),
    call!(Control, SYS_prctl, THREAD_SETTINGS, "filters a thread of a VM further, and chooses what it shares a core with"),
    call!(Control, SYS_sched_setaffinity, Only::Any, "binds a thread of a VM to CPUs"),
    call!(Control, SYS_eventfd2, Only::Any, "makes a doorbell"),
    call!(Control, SYS_rt_sigaction, Only::Any, "prepares the C library for threads, and changes handlers"),
    call!(Control, SYS_ioctl, TERMINAL_REQUESTS, "puts a terminal's mode back"),
    call!(Control, SYS_wait4, Only::Any, "waits for a program that was started before"),
    call!(Control, SYS_waitid, Only::Any, "waits for a program that was started before"),
    call!(Control, SYS_ioctl, STREAM_REQUESTS, "has a stream of a vsock block"),
    call!(Io, SYS_unlinkat, Only::OneOf(2, &[("AT_REMOVEDIR", libc::AT_REMOVEDIR as u64)]), "removes the cgroup of a VM that has ended"),
    // Snapshots.
    call!(Control, SYS_ioctl, STATE_REQUESTS, "reads the state of vCPUs and chips for a snapshot"),
    call!(Control, SYS_memfd_create, SEALABLE, "makes the file in memory that holds the RAM of a snapshot"),
    call!(Control, SYS_madvise, TO_KEEP_APART, "keeps the RAM out of child processes once it lies elsewhere"),
    call!(Control, SYS_fcntl, SEAL_REQUESTS, "sees to it that the RAM of a snapshot stays as it is"),
    // A vsock.
    call!(Vsock, SYS_socketpair, UNIX_SOCKETS, "makes the two ends of a connection, of which one is the host program's"),
    call!(Vsock, SYS_shutdown, Only::Any, "passes on that the guest sends or receives no more"),
    call!(Paths, SYS_accept4, Only::Any, "accepts a client of the vsock's Unix socket"),
    call!(Paths, SYS_socket, UNIX_SOCKETS, "makes the host's end of what the guest connects"),
    call!(Paths, SYS_connect, Only::Any, "connects it to the program that serves the port"),
    // Logs of a limited size, which are opened by their paths.
    call!(Rotation, SYS_openat, TO_WRITE_A_LOG, "opens a log of a limited size"),
    call!(Rotation, SYS_rename, "keeps an old log"),
    call!(Removal, SYS_unlink, "removes the oldest log, and the Unix socket of a VM that has ended"),
];

/// What the C library and the standard library ask for of their own accord, and can do without. Where it is not listed, it fails as if it
/// were not there, even if other calls kill.
pub(super) const DONE_WITHOUT: &[i64] = &[
    // Is tried first to start a thread. What it is for lies in memory, where no filter can look; then `clone` is tried.
    libc::SYS_clone3,
    // How the host overcommits memory, before a heap is made smaller, and how many CPUs there are, before there is another heap. The
    // program's own file, for the trace that a panic may print; the others are for that as well.
    libc::SYS_openat,
    libc::SYS_statx,
    libc::SYS_newfstatat,
    libc::SYS_readlink,
    libc::SYS_getcwd,
];
