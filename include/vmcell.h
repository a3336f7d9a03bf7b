/*
 * vmcell: micro-VMs for Linux/KVM as a library. A program makes a VM, keeps a handle to it, and stays in control:
 * nothing here exits the process, prints, or installs a signal handler, and one process may hold a thousand
 * VMs. The guest is treated as hostile from its first instruction.
 *
 * This header is the manual. It is generated from src/ffi/ and cbindgen.toml; examples are in examples/c and
 * examples/go.
 *
 *     vmcell_config *config;
 *     vmcell_vm *vm;
 *     vmcell_error *error = NULL;
 *     int32_t exit_kind;
 *     if (vmcell_config_new(&config, &error) || vmcell_config_set_kernel(config, "vmlinuz", &error) ||
 *         vmcell_config_set_cmdline(config, "console=ttyS0", &error) || vmcell_vm_new(config, &vm, &error) ||
 *         vmcell_vm_start(vm, &error) || vmcell_vm_wait(vm, VMCELL_WAIT_FOREVER, &exit_kind, &error))
 *         fprintf(stderr, "%s\n", vmcell_error_chain(error));
 *
 * CALLS
 *   - A function is called vmcell_<object>_<verb>; the object is its first argument.
 *   - It returns VMCELL_OK (0) or one of VMCELL_ERROR_*. If it fails and `error`, always the last argument, is not
 *     NULL, it writes an error object there, which the caller frees. A function's "Errors" list the numbers that it can
 *     fail with, without their prefix VMCELL_ERROR_, and apart from NULL_ARGUMENT, BAD_HANDLE, NOT_UTF8, HOST and
 *     PANIC, which are possible everywhere.
 *   - Results are written through pointers, and only on success; otherwise the old value stays. The same is true of
 *     `error`: a call that succeeds does not touch it, and one that fails does not free the old value. Set it to NULL
 *     first.
 *   - Arguments that stand for a choice are plain integers; a value that this version does not know is refused
 *     (BAD_VALUE).
 *   - Any version may add functions, numbers and constants. A number never changes its meaning.
 *
 * POINTERS
 *   - Every pointer may be NULL: if NULL has no meaning of its own, it is refused (NULL_ARGUMENT).
 *   - Texts end with a NUL and are UTF-8, except paths, which may hold any bytes. The library keeps copies.
 *   - A text that the library returns is borrowed from the object that it came from, and valid until that object is
 *     freed.
 *   - The library cannot notice a pointer that is neither NULL nor valid if it stands for bytes, a text or a place for
 *     a result: such a call is undefined behaviour, as everywhere in C.
 *
 * OBJECTS
 *   - vmcell_<object>_new makes an object. It belongs to the caller, who frees it with vmcell_<object>_free (NULL is
 *     fine) or hands it over: an argument that is "taken" is gone afterwards WHATEVER the call returns.
 *   - A "borrowed" argument is used during the call and stays the caller's.
 *   - An object's pointer is a number that the library looks up. It points to nothing, is never used again in this
 *     process, and means nothing to another process. So the library refuses a pointer to an object that was freed or
 *     taken, to one of another type (by a cast), or to anything else (BAD_HANDLE), and no harm is done. After a fork
 *     only the parent may use objects.
 *   - The library cannot notice that one thread frees an error while another still uses a text borrowed from it.
 *   - `const` in front of an object means that the call does not change it.
 *
 * FILE DESCRIPTORS
 *   - "Taken": the library closes it, even if the call fails, unless it was not open (BAD_DESCRIPTOR). Do not use it
 *     again.
 *   - "Borrowed": it stays with its owner; the documentation says how long it is valid.
 *
 * THREADS
 *   - Any thread may call any function with any object at any time, even with the same object at once. No state belongs
 *     to a thread: goroutines and anything else that moves between threads may call freely.
 *   - A function blocks only if its documentation says so. A VM may be stopped or freed while other threads wait for
 *     it.
 *   - The library's threads (one per vCPU, one or more for I/O) block every signal and run none of the caller's code
 *     except the functions given to vmcell_console_new_callback, vmcell_config_set_thread_start and vmcell_config_set_log,
 *     those in the tables of backends, and those of vmcell_tunnel_settings and vmcell_service_settings. A vCPU's thread lets one signal through, only
 *     while it is in the guest: it makes the thread leave. It is never delivered; vmcell_config_set_kick_signal chooses it.
 *   - A function of the caller's that an I/O thread or a vCPU's thread calls may call any function of this library, for any
 *     object, also for the VM that it serves, unless its own documentation forbids that. As others wait for that thread,
 *     these do not wait in it: vmcell_vm_pause, vmcell_vm_pause_within, vmcell_disk_handle_replace, vmcell_tunnel_add_peer,
 *     vmcell_tunnel_remove_peer, and vmcell_vm_wait with a time limit other than 0 fail (INVALID_STATE); vmcell_vm_resume
 *     fails so while another thread is in one of the first two; vmcell_vm_free does what vmcell_vm_discard does.
 *     vmcell_vm_stop works, and blocks for up to 100 ms.
 *   - The library installs no handler, changes no signal's disposition, and gives errno no meaning.
 *
 * BACKENDS
 *   - A disk or a network interface can lie on functions of the caller's own: a table of them (vmcell_disk_backend,
 *     vmcell_nic_backend) is given to vmcell_disk_new_backend or vmcell_nic_new_backend. The table says which thread calls
 *     each function, and what that may do. Two functions of one table never run at once, and `destroy` comes once, last.
 *   - Each structure that the caller fills in begins with its size, so that a later version can add members. Clear it, then
 *     set `struct_size` to its sizeof: `vmcell_disk_backend table = {.struct_size = sizeof table, ...};` does both.
 *   - A port is the library's end of a backend, by which any thread completes operations or delivers frames. It belongs to
 *     the library. A call with a port whose backend was destroyed fails (BAD_HANDLE), so threads need not know when a VM
 *     is freed.
 *   - What a backend does wrong through its port is refused, and at worst its own disk or interface fails, which
 *     vmcell_vm_device_failures_json tells. A backend that can never go on says so by its port (give_up). The library
 *     cannot notice a function that touches memory that is not its own, such as the data of a completed operation.
 *
 * PANICS
 *   - If the library notices a bug in itself, the call returns VMCELL_ERROR_PANIC, after the Rust runtime has written a
 *     line about it to standard error. The objects of that call should be freed.
 *
 * SECURITY
 *   - A guest reaches only what it was given: its memory, its disks, its interfaces, its console. A disk is raw because
 *     its owner said so; the library never looks into it for a format. A guest's output is not clean: filter escape
 *     sequences before they reach a terminal.
 */


#ifndef VMCELL_H
#define VMCELL_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/** The version of this header; vmcell_version() is that of the library. */
#define VMCELL_VERSION "0.1.0"
#define VMCELL_VERSION_MAJOR 0
#define VMCELL_VERSION_MINOR 1
#define VMCELL_VERSION_PATCH 0


/**
 * The call succeeded.
 */
#define VMCELL_OK 0

/**
 * A value in the configuration is out of range, or two values contradict each other.
 */
#define VMCELL_ERROR_INVALID_CONFIG 1

/**
 * A kernel, an initrd or a command line was refused.
 */
#define VMCELL_ERROR_BOOT_IMAGE 2

/**
 * A disk was refused, or its file could not be used.
 */
#define VMCELL_ERROR_DISK 3

/**
 * A network interface was refused, or its TAP device could not be used.
 */
#define VMCELL_ERROR_NETWORK 4

/**
 * A console could not be used.
 */
#define VMCELL_ERROR_CONSOLE 5

/**
 * `/dev/kvm` is missing, was refused, or lacks a capability.
 */
#define VMCELL_ERROR_KVM_UNAVAILABLE 6

/**
 * KVM refused an operation.
 */
#define VMCELL_ERROR_KVM 7

/**
 * The host could not provide the guest's memory.
 */
#define VMCELL_ERROR_HOST_MEMORY 8

/**
 * An address or a range lies outside the guest's memory.
 */
#define VMCELL_ERROR_GUEST_ADDRESS 9

/**
 * The call is not legal in the VM's present state.
 */
#define VMCELL_ERROR_INVALID_STATE 10

/**
 * Another request to the host's operating system failed.
 */
#define VMCELL_ERROR_HOST 11

/**
 * The guest did something that ends the VM: an exit that cannot be served.
 */
#define VMCELL_ERROR_GUEST 12

/**
 * A time limit passed.
 */
#define VMCELL_ERROR_TIMEOUT 13

/**
 * The guest broke the virtio specification in one of its queues.
 */
#define VMCELL_ERROR_VIRTQUEUE 14

/**
 * A vsock was refused, its Unix socket could not be used, or a connection to the guest was refused.
 */
#define VMCELL_ERROR_VSOCK 15

/**
 * A file of a snapshot was refused, or could not be used.
 */
#define VMCELL_ERROR_SNAPSHOT 16

/**
 * An encrypted volume was refused, or its file could not be used.
 */
#define VMCELL_ERROR_VOLUME 17

/**
 * No key of a volume's is opened by what was given.
 */
#define VMCELL_ERROR_VOLUME_KEY 18

/**
 * A secret was refused, or could not be sealed, opened, kept or delivered.
 */
#define VMCELL_ERROR_SECRET 19

/**
 * An argument is NULL but must not be.
 */
#define VMCELL_ERROR_NULL_ARGUMENT 100

/**
 * An object was freed or handed over before, has another type, or does not come from this library.
 */
#define VMCELL_ERROR_BAD_HANDLE 101

/**
 * A text is not UTF-8.
 */
#define VMCELL_ERROR_NOT_UTF8 102

/**
 * A number means nothing to this version of the library.
 */
#define VMCELL_ERROR_BAD_VALUE 103

/**
 * A file descriptor is not open.
 */
#define VMCELL_ERROR_BAD_DESCRIPTOR 104

/**
 * The library noticed a bug in itself: please report the message.
 */
#define VMCELL_ERROR_PANIC 105

/**
 * Everything is as it should be.
 */
#define VMCELL_FINDING_FINE 0

/**
 * The host does not tell something.
 */
#define VMCELL_FINDING_UNKNOWN 1

/**
 * VMs run, and could run faster, or in greater numbers.
 */
#define VMCELL_FINDING_ADVICE 2

/**
 * VMs run, but what one of them has may reach another one, or other parts of the host.
 */
#define VMCELL_FINDING_RISK 3

/**
 * No VM can start.
 */
#define VMCELL_FINDING_PROBLEM 4

/**
 * What `submit` of a disk's backend and `send` of a network interface's return to say that there is no room now. It is far
 * from -1, so that a function that just fails does not say it.
 */
#define VMCELL_FULL (-4096)

/**
 * The io_uring if the host has it, otherwise ordinary system calls. The default.
 */
#define VMCELL_ENGINE_AUTO 0

/**
 * Ordinary system calls. Requests that wait for the storage do so one after another.
 */
#define VMCELL_ENGINE_SYNC 1

/**
 * The io_uring of the disk's I/O thread (Linux 5.18 or later). Making the VM fails if the host has none.
 */
#define VMCELL_ENGINE_URING 2

/**
 * Fill the parts with what lies on the disk from `at` on. Once the operation is completed with 0, each byte of them must
 * have been written.
 */
#define VMCELL_DISK_READ 1

/**
 * Write the parts to the disk from `at` on.
 */
#define VMCELL_DISK_WRITE 2

/**
 * Make stable whatever was completed before this was submitted: it must survive a crash of the host.
 */
#define VMCELL_DISK_FLUSH 3

/**
 * The guest no longer needs `len` bytes from `at` on, whose content may be lost. This is a hint: a backend that has no use
 * for it completes it with 0.
 */
#define VMCELL_DISK_DISCARD 4

/**
 * Make `len` bytes from `at` on read as zeroes. This is a promise, unlike VMCELL_DISK_DISCARD.
 */
#define VMCELL_DISK_WRITE_ZEROES 5

/**
 * A flag of VMCELL_DISK_WRITE and VMCELL_DISK_WRITE_ZEROES: it must be stable, as after a flush, when it is completed.
 */
#define VMCELL_DISK_STABLE 1

/**
 * A flag of VMCELL_DISK_WRITE_ZEROES: preferably by giving the storage of the range back.
 */
#define VMCELL_DISK_UNMAP 2

/**
 * The most operations of one disk that are in flight at once.
 */
#define VMCELL_DISK_MAX_OPERATIONS 256

/**
 * The backend takes no VMCELL_DISK_DISCARD.
 */
#define VMCELL_DISK_NO_DISCARD 1

/**
 * The backend takes no VMCELL_DISK_WRITE_ZEROES.
 */
#define VMCELL_DISK_NO_WRITE_ZEROES 2

/**
 * A passphrase: its key slot takes a tenth of a second and 64 MiB to open (argon2id).
 */
#define VMCELL_KEY_PASSPHRASE 0

/**
 * At least 32 bytes that the caller vouches are random: the key slot takes milliseconds to open.
 */
#define VMCELL_KEY_RANDOM 1

/**
 * The key of the data itself, 32 or 64 bytes, which needs no key slot.
 */
#define VMCELL_KEY_OF_DATA 2

/**
 * The guest may only read.
 */
#define VMCELL_VOLUME_READ_ONLY 1

/**
 * The guest may give space back, which shows whoever has the file what is not in use.
 */
#define VMCELL_VOLUME_DISCARD 2

/**
 * Data go past the host's page cache (O_DIRECT).
 */
#define VMCELL_VOLUME_DIRECT 4

/**
 * The commit is refused, unless the base's header says that this is the only fork that was ever made over it.
 */
#define VMCELL_OTHER_FORKS_REFUSE 0

/**
 * The caller vouches that there are none any more. If there is one, it is refused from the commit on.
 */
#define VMCELL_OTHER_FORKS_GIVE_UP 1

/**
 * X25519, HKDF-SHA256, ChaCha20-Poly1305 (RFC 9180).
 */
#define VMCELL_SUITE_X25519 0

/**
 * X-Wing in the place of X25519: what is sealed stays so if that falls to a quantum computer.
 */
#define VMCELL_SUITE_X_WING 1

/**
 * The length of a MAC address in bytes.
 */
#define VMCELL_MAC_BYTES 6

/**
 * The length in bytes of the header that belongs to each frame, `struct virtio_net_hdr_v1` of Linux's
 * `<linux/virtio_net.h>`: it says what the sender has left to the receiver.
 */
#define VMCELL_NIC_HEADER_BYTES 12

/**
 * Checksums of TCP and UDP.
 */
#define VMCELL_OFFLOAD_CHECKSUM 1

/**
 * Cutting TCP over IPv4 into segments. Needs VMCELL_OFFLOAD_CHECKSUM.
 */
#define VMCELL_OFFLOAD_TSO4 2

/**
 * Cutting TCP over IPv6 into segments. Needs VMCELL_OFFLOAD_CHECKSUM.
 */
#define VMCELL_OFFLOAD_TSO6 4

/**
 * Cutting segments with congestion notification. Needs VMCELL_OFFLOAD_TSO4 or VMCELL_OFFLOAD_TSO6.
 */
#define VMCELL_OFFLOAD_ECN 8

/**
 * The IPv6 address of the machine, such as "fdac:1705:0:7:0:1ff:fe00:2".
 */
#define VMCELL_ADDRESS_MACHINE 0

/**
 * The address that the machine has on its link alone, such as "fe80::1ff:fe00:2".
 */
#define VMCELL_ADDRESS_LINK_LOCAL 1

/**
 * The range of all machines of its host, such as "fdac:1705:0:7:0:100::/88": what a tunnel to that host may carry.
 */
#define VMCELL_ADDRESS_HOST 2

/**
 * The range of the whole network, such as "fdac:1705:0:7::/64".
 */
#define VMCELL_ADDRESS_NETWORK 3

/**
 * Where the network's name server answers, such as "fdac:1705:0:7::3".
 */
#define VMCELL_ADDRESS_DNS 4

/**
 * The range of all services of the network, such as "fdac:1705:0:7:0:1::/96": what a tunnel to a host that has services may carry, too.
 */
#define VMCELL_ADDRESS_SERVICES 5

/**
 * The address of the service whose number is `machine`, of 32 bits, such as "fdac:1705:0:7:0:1:0:50": what the rules of other hosts name.
 */
#define VMCELL_ADDRESS_SERVICE 6

/**
 * The room for a key of WireGuard's as text, in bytes: 44 characters of base64, and a NUL.
 */
#define VMCELL_WIREGUARD_KEY_BYTES 45

/**
 * Private anonymous memory. The default.
 */
#define VMCELL_MEMORY_ANONYMOUS 0

/**
 * An unnamed file in memory (memfd), which another process could map too.
 */
#define VMCELL_MEMORY_MEMFD 1

/**
 * Pages of the sizes that the host's policy for transparent huge pages gives. The default.
 */
#define VMCELL_PAGES_DEFAULT 0

/**
 * Asks for transparent huge pages; falls back to small ones if there are none.
 */
#define VMCELL_PAGES_TRANSPARENT 1

/**
 * Pages of 2 MiB from the host's reserved pool; refused if the pool has too few.
 */
#define VMCELL_PAGES_HUGE_2_MIB 2

/**
 * SIGSTKFLT, by which vCPU threads are made to leave the guest unless vmcell_config_set_kick_signal chooses another one.
 */
#define VMCELL_KICK_SIGNAL_DEFAULT 16

/**
 * PVH for an ELF image that carries the note, the 64-bit Linux protocol for everything else. The default.
 */
#define VMCELL_PROTOCOL_AUTO 0

/**
 * The 64-bit Linux boot protocol.
 */
#define VMCELL_PROTOCOL_LINUX64 1

/**
 * PVH: only for an ELF image that carries the note.
 */
#define VMCELL_PROTOCOL_PVH 2

/**
 * ACPI tables describe the devices. The default.
 */
#define VMCELL_DISCOVERY_ACPI 0

/**
 * The devices are appended to the command line, and there are no ACPI tables.
 */
#define VMCELL_DISCOVERY_CMDLINE 1

/**
 * Whichever NUMA node the host chooses. The default.
 */
#define VMCELL_NUMA_NODE_ANY (-1)

/**
 * All that the host and KVM can give. The default.
 */
#define VMCELL_CPU_HOST 0

/**
 * x86-64-v2 of the psABI: up to SSE4.2.
 */
#define VMCELL_CPU_V2 2

/**
 * x86-64-v3: AVX2, BMI and FMA.
 */
#define VMCELL_CPU_V3 3

/**
 * x86-64-v4: AVX-512.
 */
#define VMCELL_CPU_V4 4

/**
 * Nothing is filtered. The default.
 */
#define VMCELL_SECCOMP_OFF 0

/**
 * The call fails with ENOSYS, as if the kernel did not have it, and the VM goes on.
 */
#define VMCELL_SECCOMP_REFUSE 1

/**
 * The kernel ends the process, and with it all its VMs, by the signal SIGSYS.
 */
#define VMCELL_SECCOMP_KILL 2

/**
 * A VM or a device has failed.
 */
#define VMCELL_LOG_ERROR 1

/**
 * Something is not as it should be, and goes on all the same.
 */
#define VMCELL_LOG_WARN 2

/**
 * What a VM does.
 */
#define VMCELL_LOG_INFO 3

/**
 * A user namespace of its own.
 */
#define VMCELL_JAIL_USER_NAMESPACE 0

/**
 * A network namespace of its own, without any network.
 */
#define VMCELL_JAIL_NETWORK_NAMESPACE 1

/**
 * An IPC namespace of its own.
 */
#define VMCELL_JAIL_IPC_NAMESPACE 2

/**
 * A UTS namespace of its own.
 */
#define VMCELL_JAIL_UTS_NAMESPACE 3

/**
 * A cgroup namespace of its own.
 */
#define VMCELL_JAIL_CGROUP_NAMESPACE 4

/**
 * An empty root, but for what is kept.
 */
#define VMCELL_JAIL_EMPTY_ROOT 5

/**
 * No further user namespaces.
 */
#define VMCELL_JAIL_NESTED_NAMESPACES 6

/**
 * No rights from programs that are executed.
 */
#define VMCELL_JAIL_NEW_PRIVILEGES 7

/**
 * Landlock: no files, but for what is kept.
 */
#define VMCELL_JAIL_FILES 8

/**
 * Landlock: no TCP.
 */
#define VMCELL_JAIL_TCP 9

/**
 * Landlock: no signals and abstract sockets of other processes.
 */
#define VMCELL_JAIL_OUTSIDE 10

/**
 * No capabilities.
 */
#define VMCELL_JAIL_CAPABILITIES 11

/**
 * No core dump, and no debugger without privileges.
 */
#define VMCELL_JAIL_LOOKING_IN 12

/**
 * The cgroup, if one was given.
 */
#define VMCELL_JAIL_CGROUP 13

/**
 * The limits, if some were given.
 */
#define VMCELL_JAIL_LIMITS 14

/**
 * Inherited descriptors, if they were to be closed.
 */
#define VMCELL_JAIL_DESCRIPTORS 15

/**
 * The cgroup's limits of memory, if one was given.
 */
#define VMCELL_JAIL_CGROUP_MEMORY 16

/**
 * The cgroup's limit of processes and threads, if one was given.
 */
#define VMCELL_JAIL_CGROUP_PROCESSES 17

/**
 * The cgroup's limit of CPU time, if one was given.
 */
#define VMCELL_JAIL_CGROUP_CPU 18

/**
 * The cgroup's limits of I/O.
 */
#define VMCELL_JAIL_CGROUP_IO 19

/**
 * One more than the highest descriptor that can be opened.
 */
#define VMCELL_LIMIT_OPEN_FILES 0

/**
 * How many processes and threads the user may have.
 */
#define VMCELL_LIMIT_PROCESSES 1

/**
 * The size in bytes to which files may grow.
 */
#define VMCELL_LIMIT_FILE_BYTES 2

/**
 * The size in bytes of a core dump.
 */
#define VMCELL_LIMIT_CORE_BYTES 3

/**
 * How many bytes may be locked in memory.
 */
#define VMCELL_LIMIT_LOCKED_BYTES 4

/**
 * Made, but not started.
 */
#define VMCELL_STATUS_READY 1

/**
 * Its vCPUs run.
 */
#define VMCELL_STATUS_RUNNING 2

/**
 * Its vCPUs and devices stand still.
 */
#define VMCELL_STATUS_PAUSED 3

/**
 * It has ended; vmcell_vm_wait tells how.
 */
#define VMCELL_STATUS_ENDED 4

/**
 * It is about to end: no vCPU enters the guest any more, and not all of its threads have left.
 */
#define VMCELL_STATUS_ENDING 5

/**
 * The RAM is copied from the file, and its checksums are compared. The file may be changed or deleted afterwards.
 */
#define VMCELL_LOAD_COPY 0

/**
 * The file is mapped, and read as a guest uses it. The caller vouches that nobody changes or cuts it for as long as the snapshot or a VM
 * that began with it lives: an access to what was cut off ends the process (SIGBUS).
 */
#define VMCELL_LOAD_MAP 1

/**
 * The time since the snapshot has passed, for the time of day and for the time since boot. The default.
 */
#define VMCELL_FORK_CLOCK_JUMP 0

/**
 * No time has passed.
 */
#define VMCELL_FORK_CLOCK_KEEP 1

/**
 * The disks that the snapshot's description names, by their paths.
 */
#define VMCELL_FORK_DISKS 1

/**
 * The network interfaces that it names.
 */
#define VMCELL_FORK_NICS 2

/**
 * The guest turned itself off.
 */
#define VMCELL_EXIT_SHUTDOWN 1

/**
 * The guest asked for a restart (a reboot, a panic, a crash of its CPU); vmcell_vm_reset_cause tells how. A VM starts
 * only once; make another one.
 */
#define VMCELL_EXIT_RESET 2

/**
 * vmcell_vm_stop or vmcell_vm_free ended it.
 */
#define VMCELL_EXIT_STOPPED 3

/**
 * The guest did something that cannot be served, or the host failed; vmcell_vm_exit_error tells what happened.
 */
#define VMCELL_EXIT_FAILED 4

/**
 * The guest's kernel said that it panicked, by the register that QEMU calls pvpanic (in Linux the module pvpanic-mmio). The
 * VM ends at once; if a crash kernel was loaded, when that is done. Other panics are a VMCELL_EXIT_RESET.
 */
#define VMCELL_EXIT_PANICKED 5

/**
 * By the reset register that the ACPI tables name.
 */
#define VMCELL_RESET_ACPI 1

/**
 * By the reset line of the keyboard controller.
 */
#define VMCELL_RESET_KEYBOARD_CONTROLLER 2

/**
 * By a triple fault: on purpose, or because the guest lost its way.
 */
#define VMCELL_RESET_TRIPLE_FAULT 3

/**
 * By a request to KVM itself.
 */
#define VMCELL_RESET_SYSTEM_EVENT 4

/**
 * For vmcell_vm_wait: no time limit.
 */
#define VMCELL_WAIT_FOREVER (-1)

/**
 * The thread runs the vCPU of its index.
 */
#define VMCELL_THREAD_VCPU 1

/**
 * The thread serves the VM's devices and its console; its index is 0.
 */
#define VMCELL_THREAD_IO 2

/**
 * The thread serves one device alone: its index is the place of the device in the order in which the guest finds them.
 */
#define VMCELL_THREAD_DEVICE_IO 3

/**
 * How long ago the statistics came, in nanoseconds: the first of the numbers that vmcell_vm_balloon_statistics writes.
 */
#define VMCELL_BALLOON_AGE_NS 0

/**
 * Bytes that the guest has swapped in.
 */
#define VMCELL_BALLOON_SWAP_IN 1

/**
 * Bytes that it has swapped out.
 */
#define VMCELL_BALLOON_SWAP_OUT 2

/**
 * Page faults for which it read a disk.
 */
#define VMCELL_BALLOON_MAJOR_FAULTS 3

/**
 * Its other page faults.
 */
#define VMCELL_BALLOON_MINOR_FAULTS 4

/**
 * Bytes that it uses for nothing.
 */
#define VMCELL_BALLOON_FREE 5

/**
 * Bytes of all its memory.
 */
#define VMCELL_BALLOON_TOTAL 6

/**
 * Bytes that could be had without swapping.
 */
#define VMCELL_BALLOON_AVAILABLE 7

/**
 * Bytes of caches that could be given up without swapping.
 */
#define VMCELL_BALLOON_CACHES 8

/**
 * Huge pages that were allocated.
 */
#define VMCELL_BALLOON_HUGE_PAGE_ALLOCATIONS 9

/**
 * Huge pages that were asked for, and not there.
 */
#define VMCELL_BALLOON_HUGE_PAGE_FAILURES 10

/**
 * Processes that the guest has ended because memory ran out (Linux 6.12, as is what follows).
 */
#define VMCELL_BALLOON_OOM_KILLS 11

/**
 * How often an allocation had to wait.
 */
#define VMCELL_BALLOON_ALLOCATION_STALLS 12

/**
 * Pages that were looked at, to reclaim them, in the background.
 */
#define VMCELL_BALLOON_ASYNC_SCANS 13

/**
 * Pages that were looked at, to reclaim them, while an allocation waited.
 */
#define VMCELL_BALLOON_DIRECT_SCANS 14

/**
 * Pages that were reclaimed in the background.
 */
#define VMCELL_BALLOON_ASYNC_RECLAIMS 15

/**
 * Pages that were reclaimed while an allocation waited.
 */
#define VMCELL_BALLOON_DIRECT_RECLAIMS 16

/**
 * The configuration of a VM. Made by vmcell_config_new, vmcell_config_new_from_json or vmcell_config_new_fork; taken by vmcell_vm_new; freed by
 * vmcell_config_free.
 *
 * The setters store values; vmcell_vm_new refuses those that are out of range, missing or contradictory.
 */
typedef struct vmcell_config vmcell_config;

/**
 * The host's end of the serial console: what the guest's output goes to, and where its input comes from.
 * vmcell_vm_write_console types into it, whatever it is connected to. Made by one of vmcell_console_new_*; taken by
 * vmcell_config_set_console or vmcell_console_also; freed by vmcell_console_free.
 *
 * Nothing that it is connected to holds up the guest for long, another sink, or anything else on the I/O thread. Each sink takes the
 * output at its own pace and may lag behind by 64 KiB; one that is slower misses the oldest bytes, and one that fails is tried again
 * after a second. vmcell_vm_console_sinks counts what each got and missed. A descriptor is closed when the guest has ended and all
 * was written to it, otherwise with the VM.
 */
typedef struct vmcell_console vmcell_console;

/**
 * A counter of the caller's own, which stands in the metrics of the VM: vmcell_disk_port_add_counter and
 * vmcell_nic_port_add_counter say of which device. Made by vmcell_counter_new; freed by vmcell_counter_free.
 */
typedef struct vmcell_counter vmcell_counter;

/**
 * Changes a disk while its VM runs. Made by vmcell_disk_handle_new or vmcell_disk_handle_new_from_vm; freed by vmcell_disk_handle_free, before or after the
 * disk or its VM.
 */
typedef struct vmcell_disk_handle vmcell_disk_handle;

/**
 * What a guest gets as a disk: a raw file, a block device, or a backend of the caller's own. Made by vmcell_disk_new,
 * vmcell_disk_new_from_fd or vmcell_disk_new_backend; taken by vmcell_config_add_disk or vmcell_disk_handle_replace; freed by
 * vmcell_disk_free.
 */
typedef struct vmcell_disk vmcell_disk;

/**
 * The library's end of a disk backend: by it, any thread says that an operation is done. Made by
 * vmcell_disk_new_backend, it belongs to the library and is never freed by the caller: it is gone when the backend's
 * `destroy` has returned, and then each call with it fails with BAD_HANDLE and does no harm.
 */
typedef struct vmcell_disk_port vmcell_disk_port;

/**
 * Why a call failed: a number, a message and the causes behind it. It never changes. Freed by vmcell_error_free.
 */
typedef struct vmcell_error vmcell_error;

/**
 * The private key of a host: it opens what was sealed to it. It lies in memory that is locked, is in no core dump and in no child process, and
 * is zeroed when it is freed. Made by vmcell_host_key_new and vmcell_host_key_new_from_file; freed by vmcell_host_key_free. Any thread
 * may make any call if its stack has 320 KiB left, which also goes for sealing and for stores: the calls zero what they have used of it.
 */
typedef struct vmcell_host_key vmcell_host_key;

/**
 * A thread that serves the devices of one VM or of many. A device that waits, such as a disk with a slow file, holds
 * up the others on its thread. By default, each VM has a thread of its own. Made by vmcell_io_thread_new; freed by
 * vmcell_io_thread_free.
 */
typedef struct vmcell_io_thread vmcell_io_thread;

/**
 * What a process gives up for good, before it has threads. Made by vmcell_jail_new; taken by vmcell_jail_enter; freed by
 * vmcell_jail_free.
 */
typedef struct vmcell_jail vmcell_jail;

/**
 * What opens encrypted volumes. Its bytes lie in memory that is locked, is in no core dump and in no child process, and is zeroed when it
 * is freed. Made by vmcell_key_new and vmcell_key_new_from_file; freed by vmcell_key_free. Any thread may make any call.
 */
typedef struct vmcell_key vmcell_key;

/**
 * Limits that several disks and interfaces keep to together, of one VM or of several, on whatever I/O threads. A device that waits is
 * kept what it needs next, so none starves, and those that want more than there is get the same in the long run. Made by
 * vmcell_limit_group_new; freed by vmcell_limit_group_free, before or after the devices and their VMs.
 */
typedef struct vmcell_limit_group vmcell_limit_group;

/**
 * A metadata service for guests: a JSON document that a guest reads over HTTP at a link-local address, as at a cloud's. docs/metadata.md
 * says what it answers. Made by vmcell_metadata_new; given to interfaces by vmcell_nic_set_metadata, which does not take it; freed by
 * vmcell_metadata_free, before or after the VM. The document may be changed at any time, from any thread.
 */
typedef struct vmcell_metadata vmcell_metadata;

/**
 * A private network between VMs in this process: a switch that needs no TAP device and no right of root's. Nothing passes until
 * vmcell_network_set_rules allows it, in either direction. Machines come to it by vmcell_network_port_new, other hosts and laptops by
 * vmcell_tunnel_new. docs/network.md says what passes, and what guests need. Made by vmcell_network_new; freed by vmcell_network_free, before or
 * after its ports and tunnels, which keep it. Any thread may make any call.
 */
typedef struct vmcell_network vmcell_network;

/**
 * The place of a machine in a private network, which has its address as long as the port, or the interface that it became, lives. Made by
 * vmcell_network_port_new or vmcell_network_port_new_for_clone; taken by vmcell_nic_new_network; freed by vmcell_network_port_free. Any thread may make any call.
 */
typedef struct vmcell_network_port vmcell_network_port;

/**
 * Changes a network interface while its VM runs. Made by vmcell_nic_handle_new or vmcell_nic_handle_new_from_vm; freed
 * by vmcell_nic_handle_free, before or after the interface or its VM.
 */
typedef struct vmcell_nic_handle vmcell_nic_handle;

/**
 * A network interface on a TAP device, or on a backend of the caller's own. Made by vmcell_nic_new, vmcell_nic_new_from_fd or
 * vmcell_nic_new_backend; taken by vmcell_config_add_nic; freed by vmcell_nic_free.
 */
typedef struct vmcell_nic vmcell_nic;

/**
 * The library's end of a network backend: by it, any thread delivers frames to the guest. Made by vmcell_nic_new_backend, it
 * belongs to the library and is never freed by the caller: it is gone when the backend's `destroy` has returned, and then
 * each call with it fails with BAD_HANDLE and does no harm.
 */
typedef struct vmcell_nic_port vmcell_nic_port;

/**
 * A secret: a name, and a value of 1 byte to 64 KiB in memory that is locked, is in no core dump and in no child process, and is zeroed when
 * it is freed. Made by vmcell_secret_new, vmcell_secret_new_from_file, vmcell_host_key_open, vmcell_secret_store_get and vmcell_secret_store_get_all; freed by
 * vmcell_secret_free. Any thread may make any call.
 */
typedef struct vmcell_secret vmcell_secret;

/**
 * The sealed secrets of one application, in one file. Any number of threads and processes may change and read it at the same time; a change
 * replaces the file at once, and is on storage when the call returns. All calls block while they read and write. Made by
 * vmcell_secret_store_new; freed by vmcell_secret_store_free. Any thread may make any call.
 */
typedef struct vmcell_secret_store vmcell_secret_store;

/**
 * An address of a private network that stands for several machines, its members: a TCP connection, or whatever else flows to it, goes to the member
 * with the least flows, and stays there. A rule to its address says who may use it. docs/network.md says what clients notice. Made by
 * vmcell_service_new; freed by vmcell_service_free, which ends its flows. Any thread may make any call.
 */
typedef struct vmcell_service vmcell_service;

/**
 * A VM at one moment: all of it but the content of disks. Any number of VMs begin with it, by vmcell_config_new_fork. Made by vmcell_vm_snapshot
 * and vmcell_snapshot_load; freed by vmcell_snapshot_free, before or after the VM it was taken of and those that began with it. Any thread may
 * make any call. docs/snapshot.md says what a fork can rely on.
 */
typedef struct vmcell_snapshot vmcell_snapshot;

/**
 * A WireGuard interface whose inside is a private network and whose outside is a UDP socket. It needs no TUN device, no kernel module and no right of
 * root's. Its peers are tunnels of other processes, or any other WireGuard. Made by vmcell_tunnel_new; freed by vmcell_tunnel_free. Any thread may
 * make any call.
 */
typedef struct vmcell_tunnel vmcell_tunnel;

/**
 * A peer that has begun a handshake with a tunnel and is not known. Made for each call of `on_unknown_peer`; taken by vmcell_unknown_peer_accept; freed by
 * vmcell_unknown_peer_free, which refuses it. Any thread may make any call.
 */
typedef struct vmcell_unknown_peer vmcell_unknown_peer;

/**
 * A virtual machine, run by threads of its own: one per vCPU and one for I/O. Made by vmcell_vm_new; freed by
 * vmcell_vm_free. Any thread may make any call, even while others are in a call with the same VM.
 */
typedef struct vmcell_vm vmcell_vm;

/**
 * Takes snapshots of a volume and makes it larger while its VM runs. Made by vmcell_volume_handle_new; freed by vmcell_volume_handle_free, before or after the disk or
 * its VM. Any thread may make any call.
 */
typedef struct vmcell_volume_handle vmcell_volume_handle;

/**
 * A snapshot of a volume that is prepared. Made by vmcell_volume_handle_prepare_snapshot; freed by vmcell_volume_snapshot_free, which leaves the
 * volume as it was unless vmcell_volume_snapshot_take was called. If it was called and nobody waits, the old file stays locked until the VM ends.
 */
typedef struct vmcell_volume_snapshot vmcell_volume_snapshot;

/**
 * A port of the host that a guest connects to. Made by vmcell_vsock_listener_new; freed by vmcell_vsock_listener_free, before or after
 * its VM. Any thread may make any call.
 */
typedef struct vmcell_vsock_listener vmcell_vsock_listener;

/**
 * An operation that a disk's backend is to carry out. It stays as it is, at the same address, until it is completed: a
 * backend may keep the pointer, and pass it to a thread of its own.
 *
 * The range lies inside the capacity, or inside one that was there a moment before, in whole blocks; data is from one block to
 * the largest transfer of the backend.
 */
typedef struct {
    /**
     * The size of this structure, in bytes, in this version of the library.
     */
    size_t struct_size;
    /**
     * Names the operation to vmcell_disk_port_complete. No other operation of the process is likely to have the same tag,
     * and none that is in flight on the same disk has it.
     */
    uint64_t tag;
    /**
     * What to do, one of VMCELL_DISK_READ to VMCELL_DISK_WRITE_ZEROES. A later version may have more: complete one that you
     * do not know with EOPNOTSUPP.
     */
    int32_t kind;
    /**
     * A sum of VMCELL_DISK_STABLE and VMCELL_DISK_UNMAP, or 0.
     */
    uint32_t flags;
    /**
     * The first byte on the disk; 0 for a flush.
     */
    uint64_t at;
    /**
     * The number of bytes; 0 for a flush.
     */
    uint64_t len;
    /**
     * Where the data of a read or a write lies, as readv, writev and their relatives take it: `part_count` parts, in order,
     * `len` bytes in all. NULL for other kinds.
     *
     * The parts lie in the guest's memory, mostly, and the guest may change their bytes at any time: copy what you check
     * before you check it, and let nothing lie there that the guest must not see. They are valid until the operation is
     * completed, and then must not be touched again.
     */
    const struct iovec *parts;
    /**
     * The number of parts: at most the `max_segments` of the backend.
     */
    size_t part_count;
} vmcell_disk_operation;

/**
 * Receives `user` when the library no longer needs it: once, after the last call with it, on any thread, often the one
 * that frees the VM.
 */
typedef void (*vmcell_release)(void *user);

/**
 * The functions of a disk's backend. Set `struct_size` to sizeof(vmcell_disk_backend), and what the backend does not need to
 * NULL. The table is copied.
 *
 * One I/O thread calls all of them but `destroy`, one call at a time: a thread of the disk's own, unless
 * vmcell_disk_set_io_thread chooses one or vmcell_disk_set_never_blocks vouches for the backend. A call that takes long holds
 * up whatever that thread serves, vmcell_vm_pause, and a reset by the guest, but neither other VMs nor vmcell_vm_stop.
 *
 * A function may call any function of this library, for any object, also its own port, and also for the VM that it serves;
 * THREADS at the top says what each does there. vmcell_vm_new waits for `attach`, at most for ten seconds. No function may
 * unwind: no C++ exception, no longjmp.
 */
typedef struct {
    /**
     * The size of this structure, in bytes. A later version may have more members: they count as NULL in a table that ends
     * before them. A table that is longer than this version knows is refused unless the rest is NULL.
     */
    size_t struct_size;
    /**
     * Passed to each function.
     */
    void *user;
    /**
     * Begins with an operation, and returns 0: vmcell_disk_port_complete says later, or within this very call, that it is
     * done. Or returns VMCELL_FULL, and does not keep it: it is offered again, under another tag, after the next completion or
     * vmcell_disk_port_retry. Or returns an errno, 1 to 4095, and does not keep it: the operation has failed. Any other number
     * counts as EIO. Whatever it returns, an operation that was completed is completed. At most VMCELL_DISK_MAX_OPERATIONS are in
     * flight at once.
     *
     * Must not be NULL.
     */
    int32_t (*submit)(void *user, vmcell_disk_port *port, const vmcell_disk_operation *operation);
    /**
     * The end of a batch: what `submit` only collected is to be begun with now. May be NULL.
     */
    void (*commit)(void *user);
    /**
     * The guest's driver has gone, and waits until all operations in flight are completed: fail what has not begun, hurry the
     * rest. May be NULL.
     */
    void (*cancel)(void *user);
    /**
     * vmcell_disk_handle_refresh was called: look at the size of what the disk lies on again, and call
     * vmcell_disk_port_set_capacity if it has changed. May be NULL.
     */
    void (*refresh)(void *user);
    /**
     * The disk is gone, with its VM or before it got one, or another one has taken its place: the last call, made once, on any
     * thread, often the one that frees the VM. It may block: it stops the backend's threads and waits for them. Operations in
     * flight may be completed until it returns, but need not be: what is left then is taken back, so nothing may touch an
     * operation or its parts any more. May be NULL.
     */
    vmcell_release destroy;
} vmcell_disk_backend;

/**
 * What a disk on a backend is like. Set `struct_size` to sizeof(vmcell_disk_info), and what has no need of another value to
 * 0, which stands for the default.
 */
typedef struct {
    /**
     * The size of this structure, in bytes.
     */
    size_t struct_size;
    /**
     * The disk's size in bytes: a multiple of the block size, above 0. There is no default. It may change later, by
     * vmcell_disk_port_set_capacity; the other members never do.
     */
    uint64_t capacity;
    /**
     * The most bytes of a read or a write: a multiple of the block size. The default is 131072.
     */
    uint64_t max_transfer;
    /**
     * The most bytes of a discard or of zeroes: a multiple of the block size. The default is 67108864.
     */
    uint64_t max_range;
    /**
     * What operations are aligned to, in bytes: a power of two from 512 to 4096. The default is 512.
     */
    uint32_t block_size;
    /**
     * The most parts of a read or a write: 512, which is the default, or more. Linux takes 1024 at once (IOV_MAX).
     */
    uint32_t max_segments;
    /**
     * VMCELL_DISK_NO_* of what the backend does not take. The guest is not offered it, and `submit` never gets it. An operation
     * that the backend does take may still end with EOPNOTSUPP, which tells the guest to do without.
     */
    uint32_t flags;
} vmcell_disk_info;

/**
 * Is told how far work on a volume has come: `done` of `total` bytes of its disk. Called each MiB, on the calling thread. Returns 0 to go on, anything
 * else to break off. It must not unwind: no C++ exception, no longjmp.
 */
typedef int32_t (*vmcell_volume_progress)(void *user, uint64_t done, uint64_t total);

/**
 * A frame that the guest sends, valid until `send` returns.
 */
typedef struct {
    /**
     * The size of this structure, in bytes, in this version of the library.
     */
    size_t struct_size;
    /**
     * VMCELL_NIC_HEADER_BYTES bytes that say what the guest has left undone: no more than the backend offers, and nothing that
     * lies outside the frame. They are a copy, which the guest cannot change.
     */
    const uint8_t *header;
    /**
     * The frame's length in bytes without the header, 14 to 65553. It begins with the Ethernet address that it is for.
     */
    size_t len;
    /**
     * Where the frame lies, as writev and its relatives take it: `part_count` parts, in order, `len` bytes in all. They lie in
     * the guest's memory, and the guest may change their bytes at any time: copy what you check before you check it.
     */
    const struct iovec *parts;
    /**
     * The number of parts.
     */
    size_t part_count;
} vmcell_nic_frame;

/**
 * The functions of an interface's backend. Set `struct_size` to sizeof(vmcell_nic_backend), and what the backend does not
 * need to NULL. The table is copied.
 *
 * One I/O thread calls all of them but `destroy`, one call at a time: a thread of the interface's own, unless
 * vmcell_nic_set_io_thread chooses one or vmcell_nic_set_never_blocks vouches for the backend. A call that takes long holds up
 * whatever that thread serves, vmcell_vm_pause, and a reset by the guest, but neither other VMs nor vmcell_vm_stop.
 *
 * A function may call any function of this library, for any object, also its own port and those of other VMs, and also for the
 * VM that it serves; THREADS at the top says what each does there. vmcell_vm_new waits for `attach`, at most for ten seconds. No
 * function may unwind: no C++ exception, no longjmp.
 */
typedef struct {
    /**
     * The size of this structure, in bytes. A later version may have more members: they count as NULL in a table that ends
     * before them. A table that is longer than this version knows is refused unless the rest is NULL.
     */
    size_t struct_size;
    /**
     * Passed to each function.
     */
    void *user;
    /**
     * Takes a frame of the guest, and returns 0; it copies what it needs, as the frame is only valid until it returns. Or
     * returns VMCELL_FULL: the same frame is offered again after vmcell_nic_port_retry, or earlier, and the guest's other
     * frames wait. After any other number, such as an errno, the frame is dropped and counted.
     *
     * Must not be NULL.
     */
    int32_t (*send)(void *user, vmcell_nic_port *port, const vmcell_nic_frame *frame);
    /**
     * The guest's driver is ready, and copes with frames that leave these things undone, a sum of VMCELL_OFFLOAD_*. Called
     * again if another driver takes over. Returns 0; after any other number the driver is told that the device does not work.
     * May be NULL: a frame that leaves more undone is dropped in any case.
     */
    int32_t (*negotiate)(void *user, uint32_t offloads);
    /**
     * The interface is gone, with its VM or before it got one: the last call, made once, on any thread, often the one that
     * frees the VM. It may block: it stops the backend's threads and waits for them. May be NULL.
     */
    vmcell_release destroy;
} vmcell_nic_backend;

/**
 * What the link of an interface on a backend is like. Set `struct_size` to sizeof(vmcell_nic_info), and what has no need of
 * another value to 0, which stands for the default.
 */
typedef struct {
    /**
     * The size of this structure, in bytes.
     */
    size_t struct_size;
    /**
     * What the backend does for the guest in the frames that the guest sends, as a sum of VMCELL_OFFLOAD_*. The default is
     * nothing: each frame has its checksums, and is no longer than the MTU. What needs another one is left out without it.
     */
    uint32_t offloads;
    /**
     * Whether the link is down at first: 0 for no, the default, anything else for yes.
     */
    int32_t link_down;
} vmcell_nic_info;

/**
 * A machine of a private network, by its numbers. docs/network.md shows how its addresses are made of them.
 */
typedef struct {
    /**
     * What networks belong together, 0 to 0xffffff: draw it by lot, so that realms which are joined one day do not clash.
     */
    uint32_t realm;
    /**
     * The network in its realm.
     */
    uint32_t network;
    /**
     * The host, 1 to 65535.
     */
    uint32_t host;
    /**
     * The machine on its host, 1 to 0xffffff; for VMCELL_ADDRESS_SERVICE, the service.
     */
    uint32_t machine;
} vmcell_machine_address;

/**
 * The settings of a network. Set `struct_size` to sizeof(vmcell_network_settings), and what has no need of another value to 0, which stands for the
 * default.
 */
typedef struct {
    /**
     * The size of this structure, in bytes.
     */
    size_t struct_size;
    /**
     * How long a packet may be, in bytes with its IPv6 header: 1280 to 65535. The default is 1420, which fits through a tunnel on a link of 1500.
     */
    uint32_t mtu;
    /**
     * How many flows are remembered that one machine, or what lies behind one tunnel, has begun: a power of two from 64 to 16384. The
     * default is 4096.
     */
    uint32_t flows;
    /**
     * How many ports the network may have at once, 1 to 65536. The default is 4096.
     */
    size_t ports;
    /**
     * After how many milliseconds without a packet a TCP connection is forgotten: 1000 to 604800000, which are seven days. The default is two hours.
     */
    uint32_t tcp_idle_ms;
    /**
     * The same for what is not TCP. The default is two minutes.
     */
    uint32_t idle_ms;
    /**
     * How many bytes of packets may wait for members of all services together, with 128 for each packet: 65536 to 1073741824. The default is 8388608.
     */
    size_t held_bytes;
} vmcell_network_settings;

/**
 * Is called when a member of a service is wanted, and returns 0 if there is one, or one is on its way, or another number, such as an errno: then what
 * waits is refused. `service` is borrowed until it returns: vmcell_service_add adds the member, once its server is up. `host` and `machine` are the member
 * that has a packet and does not run (it is paused, or its driver is not up), or both 0 if any will do. It is called on a thread of its own, one call at a
 * time, perhaps before vmcell_service_new has returned, and may block. It must not unwind: no C++ exception, no longjmp.
 */
typedef int32_t (*vmcell_demand_call)(void *user, vmcell_service *service, uint32_t host, uint32_t machine);

/**
 * The settings of a service. Set `struct_size` to sizeof(vmcell_service_settings), and what has no need of another value to 0 or NULL, which stands for
 * the default.
 */
typedef struct {
    /**
     * The size of this structure, in bytes.
     */
    size_t struct_size;
    /**
     * The network's name server has its address under "NAME.internal", whether members run or not. The default is no name.
     */
    const char *name;
    /**
     * How many flows a member is to have at most, 1 to 65536: above that, another member is wanted. The default is 1024, or `hard_limit` if that is less.
     */
    uint32_t soft_limit;
    /**
     * How many flows a member has at the very most, `soft_limit` to 65536. The default is 1024, or `soft_limit` if that is more.
     */
    uint32_t hard_limit;
    /**
     * How many packets may wait for a member, 1 to 4096. The default is 256.
     */
    size_t held_packets;
    /**
     * How many bytes these may have, with 128 for each packet: 2048 to 16777216. The default is 262144.
     */
    size_t held_bytes;
    /**
     * How many milliseconds a packet waits before it is refused, 100 to 300000. The default is 30000.
     */
    uint32_t hold_time_ms;
    /**
     * For how many milliseconds after the end of a call there is no other one, 10 to 3600000. The default is 1000.
     */
    uint32_t call_interval_ms;
    /**
     * Is called when a member is wanted. The default is that a flow without a member is refused.
     */
    vmcell_demand_call on_demand;
    /**
     * Passed to `on_demand`.
     */
    void *user;
    /**
     * Called for `user` at the end, also if vmcell_service_new fails, unless it fails for the settings' `struct_size`. It may come after
     * vmcell_service_free has returned. The default is that nothing is called.
     */
    vmcell_release release;
} vmcell_service_settings;

/**
 * Is asked about a peer that is not known. `peer` belongs to the function, which accepts or frees it, or has another thread do that later. `public_key` is what it
 * claims to be, and `source` the address and the port that its handshake came from; both are valid until the function returns. It is called on a thread of its
 * own, for one peer after the other, and may block: the tunnel goes on meanwhile. It must not unwind: no C++ exception, no longjmp.
 */
typedef void (*vmcell_unknown_peer_call)(void *user,
                                         vmcell_unknown_peer *peer,
                                         const char *public_key,
                                         const char *source);

/**
 * The settings of a tunnel that its configuration does not have. Set `struct_size` to sizeof(vmcell_tunnel_settings), and what has no need of another
 * value to 0 or NULL, which stands for the default.
 */
typedef struct {
    /**
     * The size of this structure, in bytes.
     */
    size_t struct_size;
    /**
     * The IP address of the host that the socket is bound to. The default is all of them, of IPv4 and IPv6.
     */
    const char *listen_address;
    /**
     * The I/O thread that serves the tunnel, borrowed; its system calls may not be filtered (vmcell_io_thread_confine). The default is a thread of the
     * tunnel's own.
     */
    const vmcell_io_thread *io_thread;
    /**
     * How many packets of the network may wait for the tunnel, 1 to 65536. The default is 1024.
     */
    size_t packets;
    /**
     * How many peers the tunnel may have, 1 to 65536. The default is 1024.
     */
    size_t peers;
    /**
     * Is asked about peers that are not known, and may make them just in time. The default is that their handshakes are dropped.
     */
    vmcell_unknown_peer_call on_unknown_peer;
    /**
     * Passed to `on_unknown_peer`.
     */
    void *user;
    /**
     * Called for `user` at the end, also if vmcell_tunnel_new fails, unless it fails for the settings' `struct_size`. It may come
     * after vmcell_tunnel_free has returned. The default is that nothing is called.
     */
    vmcell_release release;
} vmcell_tunnel_settings;

/**
 * Receives the guest's output: `len` bytes, 1 to 4096, valid until it returns, and `user` as the caller gave it. The
 * I/O thread that serves the VM calls it, never two threads at once, and never after the release function. It must not
 * block, because the devices on that thread would wait for it, and must not unwind: no C++ exception, no longjmp. It
 * may call any function of this library, also for its own VM; THREADS at the top says what each does there.
 */
typedef void (*vmcell_console_output)(const uint8_t *bytes, size_t len, void *user);

/**
 * Is called on a new thread of a VM before that does anything: to set its CPUs, its priority or its cgroup. `role` is one of
 * VMCELL_THREAD_*, `index` as in vmcell_thread, and `user` as the caller gave it. Returns 0, or an errno (above 0), by which
 * vmcell_vm_new or vmcell_vm_start fails. Those calls wait for it, so it must not wait for them or for the VM. Never two threads at
 * once call it. Signals are blocked on the thread. It must not unwind: no C++ exception, no longjmp.
 */
typedef int32_t (*vmcell_thread_start)(int32_t role, uint32_t index, void *user);

/**
 * Receives what is said of a VM: `level` is one of VMCELL_LOG_*, `vm` the VM's name (empty if it has none), `target` what it is about
 * ("vm", "console", "disk0" and so on), `message` one line, and `user` as the caller gave it. The texts are UTF-8, and valid until it
 * returns; the wording of messages may change. It is called on the thread that it is about: one that makes, starts or frees the VM, an
 * I/O thread, or the thread of a vCPU that has left the guest for good; never by two threads at once. It must not block, must not call
 * a function of this library for this VM, and must not unwind: no C++ exception, no longjmp.
 */
typedef void (*vmcell_log_sink)(int32_t level, const char *vm, const char *target, const char *message, void *user);

/**
 * Is called on the calling thread while the VM stands still, to copy its disks for instance. Returns 0, or an errno (above 0), by which
 * vmcell_vm_snapshot fails. It must not call for VMs: to pause, resume or snapshot one is refused. It must not unwind: no C++ exception, no longjmp.
 */
typedef int32_t (*vmcell_at_standstill)(void *user);

/**
 * One thread of a VM.
 */
typedef struct {
    /**
     * One of VMCELL_THREAD_*.
     */
    int32_t role;
    /**
     * Which of these it is, from 0 on.
     */
    uint32_t index;
    /**
     * The kernel's identifier of it, as in /proc/self/task.
     */
    int32_t tid;
} vmcell_thread;

/**
 * What became of the bytes that one sink of a console should have got.
 */
typedef struct {
    /**
     * How many bytes it got.
     */
    uint64_t delivered;
    /**
     * How many wait to be written to it.
     */
    uint64_t waiting;
    /**
     * How many it missed since it was too slow: they made room for newer ones.
     */
    uint64_t dropped;
    /**
     * How many it missed since writing to it failed.
     */
    uint64_t lost;
    /**
     * How often a file could not be renamed when it had grown too large, and was emptied instead.
     */
    uint64_t failed_rotations;
} vmcell_sink;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Returns the version of the running library, such as "1.2.3"; VMCELL_VERSION is that of this header. Before 1.0.0 a
 * program needs the same major and minor version; from then on, the same major version and at least the same minor
 * version. Static, never freed. Never blocks.
 */
const char *vmcell_version(void);

/**
 * Returns 1 if this build of the library has a feature; 0 if it does not, if it does not know the name, or if the name
 * is NULL. Every function is in every build; a missing feature fails at run time. Names: "acpi", "console", "disk",
 * "engine-sync", "json" (descriptions of VMs), "metadata" (its service), "network" (private networks), "nic", "save" (files of snapshots), "secret",
 * "test-util" (only tests have it), "volume" (encrypted volumes), "wireguard" (tunnels of private networks). Never blocks.
 */
int32_t vmcell_has_feature(const char *name);

/**
 * Returns how many objects of this library the process holds, neither freed nor handed over: for a test at its end.
 */
uint64_t vmcell_handle_count(void);

/**
 * Returns how many threads of this process wait for a console's terminal, device or file that does not answer, although their VM was
 * freed. Each ends when the host answers, or with the process. Never blocks.
 */
uint64_t vmcell_console_threads_abandoned(void);

/**
 * Returns how many threads of this process wait for a disk's storage that does not answer, although their VM was freed. Each ends
 * when the host answers, or with the process. Never blocks.
 */
uint64_t vmcell_disk_threads_abandoned(void);

/**
 * Returns how many transfers of io_uring wait for a disk's storage that does not answer, although their VM was freed. Each holds the
 * guest memory that it transfers to or from. Never blocks.
 */
uint64_t vmcell_disk_transfers_abandoned(void);

/**
 * Returns the number of an error, one of VMCELL_ERROR_*, the same that the failed call returned. Returns VMCELL_OK for
 * NULL, and VMCELL_ERROR_BAD_HANDLE for a pointer that is not, or is no longer, an error. Never blocks.
 */
int32_t vmcell_error_number(const vmcell_error *error);

/**
 * Returns what was refused, its value and what is allowed, without the causes: one line without a line end. The text
 * is borrowed, and valid until the error is freed. Never NULL: for NULL, and for a pointer that is not, or is no
 * longer, an error, the text says so. Never blocks.
 */
const char *vmcell_error_message(const vmcell_error *error);

/**
 * Returns the message and all causes behind it, joined by ": ", for a log line. Lifetime and NULL as for
 * vmcell_error_message.
 */
const char *vmcell_error_chain(const vmcell_error *error);

/**
 * Returns how many causes stand behind the message; 0 for NULL and for a pointer that is not, or is no longer, an
 * error. Never blocks.
 */
size_t vmcell_error_cause_count(const vmcell_error *error);

/**
 * Returns a cause: 0 led to the message, each later one led to the one before. The text is borrowed, and valid until
 * the error is freed. Returns NULL for an index out of range, for NULL, and for a pointer that is not, or is no
 * longer, an error. Never blocks.
 */
const char *vmcell_error_cause(const vmcell_error *error, size_t index);

/**
 * Frees an error and all texts borrowed from it. NULL is fine. Never blocks.
 *
 * Errors: BAD_HANDLE.
 */
int32_t vmcell_error_free(vmcell_error *error);

/**
 * Looks at the host that this runs on, as this process and its user see it: whether VMs can start, how well they are kept apart, and
 * what makes them slow. `level` gets the level of what weighs most, one of VMCELL_FINDING_*. The findings are written as a JSON object,
 * UTF-8 with a NUL behind it, to `buffer`, which has room for `capacity` bytes. `length` gets the length of the text without the NUL. If
 * that is not below `capacity`, nothing is written to `buffer`: call again with more room. 16 KiB suffice. `buffer` may be NULL if
 * `capacity` is 0.
 *
 * The object has a member "findings", an array of objects with "name", "level" ("fine", "unknown", "advice", "risk" or "problem"), "found",
 * and, if there is something to do, "advice". The documentation of the Rust crate (HostCheck) lists the names. A later version may look
 * at more. Opens /dev/kvm, makes an io_uring, closes both, and changes nothing. Takes some milliseconds.
 */
int32_t vmcell_host_check(int32_t *level,
                          char *buffer,
                          size_t capacity,
                          size_t *length,
                          vmcell_error **error);

/**
 * Makes a counter that stands at 0. Never blocks.
 */
int32_t vmcell_counter_new(vmcell_counter **counter, vmcell_error **error);

/**
 * Adds to a counter. Any thread may, at any time. Each call looks the counter up, so a backend that is fast counts once for what it
 * did in a batch. Never blocks.
 */
int32_t vmcell_counter_add(vmcell_counter *counter,
                           uint64_t count,
                           vmcell_error **error);

/**
 * Frees a counter. The metrics go on to tell where it stood. NULL is fine.
 *
 * Errors: BAD_HANDLE.
 */
int32_t vmcell_counter_free(vmcell_counter *counter);

/**
 * Starts a thread; Linux keeps 15 bytes of its name. It blocks every signal.
 *
 * Errors: HOST if the host provides no thread or no descriptor.
 */
int32_t vmcell_io_thread_new(const char *name, vmcell_io_thread **io_thread, vmcell_error **error);

/**
 * Sets for how many microseconds at most the thread looks for more to do before it sleeps: 0 turns that off, the default is 50,
 * and more than 1000 counts as 1000. How long it looks is learned, so a thread that is seldom needed does not look, and an idle
 * VM costs nothing. Never blocks.
 */
int32_t vmcell_io_thread_set_polling(vmcell_io_thread *io_thread,
                                     uint32_t max_us,
                                     vmcell_error **error);

/**
 * Lets go of a thread. It lives for as long as a disk, an interface, a configuration or a VM uses it, then ends. If
 * nothing uses it, this call waits for its end. NULL is fine.
 *
 * Errors: BAD_HANDLE.
 */
int32_t vmcell_io_thread_free(vmcell_io_thread *io_thread);

/**
 * Makes a group, with limits as for vmcell_disk_set_limits. Never blocks.
 *
 * Errors: BAD_VALUE; INVALID_CONFIG for a number above 2^40.
 */
int32_t vmcell_limit_group_new(uint64_t operations_per_second,
                               uint64_t operations_burst,
                               uint64_t bytes_per_second,
                               uint64_t bytes_burst,
                               vmcell_limit_group **group,
                               vmcell_error **error);

/**
 * Sets other limits, or none if all are 0, at once and also for requests that wait. What has not been used of a limit stays, up to its
 * new burst. Never blocks, on any thread.
 *
 * Errors: BAD_VALUE, INVALID_CONFIG as from vmcell_limit_group_new. Then the limits stay as they are.
 */
int32_t vmcell_limit_group_set_limits(vmcell_limit_group *group,
                                      uint64_t operations_per_second,
                                      uint64_t operations_burst,
                                      uint64_t bytes_per_second,
                                      uint64_t bytes_burst,
                                      vmcell_error **error);

/**
 * Lets go of a group. Devices that are in it keep to its limits. NULL is fine. Never blocks.
 *
 * Errors: BAD_HANDLE.
 */
int32_t vmcell_limit_group_free(vmcell_limit_group *group);

/**
 * Opens a raw file or block device by its path, which may hold any bytes. The file is opened for reading now, and for
 * writing when the VM is made, unless the disk is read-only by then. Its size, in whole sectors of 512 bytes, is taken
 * when the VM is made. Its content is never looked at: the library never guesses an image format. Does not wait,
 * whatever the path leads to.
 *
 * Errors, which name the path, as the disk has no number before it is added: DISK if the file is missing, may not be read, is empty, or is neither a regular file nor a block device.
 */
int32_t vmcell_disk_new(const char *path,
                        vmcell_disk **disk,
                        vmcell_error **error);

/**
 * As vmcell_disk_new, for a file that the caller has open, for reading and writing unless the disk will be read-only.
 * `fd` is taken: it is closed with the disk or with the VM that got the disk, even if this call fails.
 *
 * Errors: BAD_DESCRIPTOR; DISK if the file is empty, or is neither a regular file nor a block device.
 */
int32_t vmcell_disk_new_from_fd(int32_t fd, vmcell_disk **disk, vmcell_error **error);

/**
 * Sets whether the guest may only read: 0 means no (the default), anything else yes. Never blocks.
 */
int32_t vmcell_disk_set_read_only(vmcell_disk *disk, int32_t read_only, vmcell_error **error);

/**
 * Sets the serial number that the guest sees, at most 20 printable ASCII characters, copied; the default is empty. Any
 * other is refused when the VM is made. Never blocks.
 */
int32_t vmcell_disk_set_serial(vmcell_disk *disk, const char *serial, vmcell_error **error);

/**
 * Sets how requests reach the file, one of VMCELL_ENGINE_*. Never blocks.
 *
 * Errors: BAD_VALUE.
 */
int32_t vmcell_disk_set_engine(vmcell_disk *disk, int32_t engine, vmcell_error **error);

/**
 * Sets whether the guest's data go past the host's page cache (O_DIRECT): 0 means no (the default), anything else yes. The
 * guest sees blocks of the size that the storage demands. Never blocks.
 *
 * Errors: when the VM is made, DISK if the file system has no direct I/O, the file's size is not a multiple of that block size,
 * or the file was given by a descriptor that was opened without O_DIRECT.
 */
int32_t vmcell_disk_set_direct(vmcell_disk *disk,
                               int32_t direct,
                               vmcell_error **error);

/**
 * Sets how many queues the guest's driver may use, 1 to 16. The default is one for each vCPU, but no more than four. One I/O
 * thread serves all queues of a disk, in turn. Any other number is refused when the VM is made. Never blocks.
 */
int32_t vmcell_disk_set_queues(vmcell_disk *disk,
                               uint16_t queues,
                               vmcell_error **error);

/**
 * Serves the disk on this I/O thread rather than on the VM's own. `io_thread` is borrowed for the call: it may be
 * freed at any time, and the thread lives for as long as something uses it. Never blocks.
 */
int32_t vmcell_disk_set_io_thread(vmcell_disk *disk, const vmcell_io_thread *io_thread, vmcell_error **error);

/**
 * Limits what the guest may do with the disk: so many operations a second and so many at once, and the same of bytes, each 1 to 2^40, or
 * no limit if both numbers of a pair are 0, which is the default. A read, a write, a flush, and each range of a discard is an operation;
 * bytes are those of reads, writes and zeroes. A request that exceeds a limit waits, and those behind it; other devices do not. Numbers
 * above 2^40 are refused when the VM is made. Never blocks.
 *
 * Errors: BAD_VALUE if one number of a pair is 0.
 */
int32_t vmcell_disk_set_limits(vmcell_disk *disk,
                               uint64_t operations_per_second,
                               uint64_t operations_burst,
                               uint64_t bytes_per_second,
                               uint64_t bytes_burst,
                               vmcell_error **error);

/**
 * Has the disk keep to the limits of a group, besides its own. `group` is borrowed for the call: it may be freed at any time. Never
 * blocks.
 */
int32_t vmcell_disk_set_limit_group(vmcell_disk *disk,
                                    const vmcell_limit_group *group,
                                    vmcell_error **error);

/**
 * Vouches that the functions of the disk's backend never block, so that the VM's own I/O thread may call them, rather than a
 * thread of the disk's own. Means nothing to a disk on a file, which never blocks its thread, nor if
 * vmcell_disk_set_io_thread chooses a thread. Never blocks.
 */
int32_t vmcell_disk_set_never_blocks(vmcell_disk *disk,
                                     vmcell_error **error);

/**
 * Frees a disk that no VM got, and closes its file, or destroys its backend, for which it waits. NULL is fine.
 *
 * Errors: BAD_HANDLE, also if it was handed over to a configuration.
 */
int32_t vmcell_disk_free(vmcell_disk *disk);

/**
 * Says that an operation is done: `status` is 0, or an errno (1 to 4095; any other number counts as EIO). The guest is only
 * told whether it failed. Once per operation, in any order, from any thread, even before `submit` has returned. From then on
 * neither the operation nor its parts may be touched. Never blocks.
 *
 * Errors: BAD_VALUE if no operation with this tag is in flight: it was completed before, or was refused by `submit`. Nothing
 * happens then.
 */
int32_t vmcell_disk_port_complete(vmcell_disk_port *port,
                                  uint64_t tag,
                                  int32_t status,
                                  vmcell_error **error);

/**
 * Says that there is room again: an operation that `submit` refused with VMCELL_FULL is offered again, on the disk's I/O
 * thread. A completion says the same, so only a backend that was full with nothing in flight needs this call. Never blocks.
 */
int32_t vmcell_disk_port_retry(vmcell_disk_port *port,
                               vmcell_error **error);

/**
 * Says that the disk has another size now, in bytes: a multiple of its block size, above 0. The guest's driver is told soon.
 * If it is smaller, operations behind the new end may still come for a moment: they are to be failed. Never blocks.
 *
 * Errors: BAD_VALUE.
 */
int32_t vmcell_disk_port_set_capacity(vmcell_disk_port *port,
                                      uint64_t capacity,
                                      vmcell_error **error);

/**
 * Says that the backend can never go on, and why: the storage is lost, for instance. The disk fails then: no function of the table is
 * called again but `destroy`, on a thread that is made for it; the guest's driver is told that the device needs a reset; and
 * vmcell_vm_device_failures_json tells `why`. vmcell_disk_handle_replace can put another backend in its
 * place; a backend that can still serve some operations fails the others instead. Never blocks.
 */
int32_t vmcell_disk_port_give_up(vmcell_disk_port *port,
                                 const char *why,
                                 vmcell_error **error);

/**
 * Adds a counter to what the metrics tell of this disk, under a name such as "cache_hits": vmcell_vm_metrics_json has it in the
 * device's "counters". Several of one name count as one, their sum. `counter` is borrowed, and counts for as long as it lives. Never
 * blocks.
 *
 * Errors: INVALID_STATE if the VM was made before.
 */
int32_t vmcell_disk_port_add_counter(vmcell_disk_port *port,
                                     const char *name,
                                     const vmcell_counter *counter,
                                     vmcell_error **error);

/**
 * Makes a disk on a backend of the caller's own. `port` receives the library's end of it, and may be NULL, as `submit` gets
 * it too. `info` is copied.
 *
 * The table's `user` is taken: `destroy` is called for it when the disk is gone, and also if this call fails, unless it fails
 * because `table` is NULL or has a `struct_size` that is refused. Never blocks, but for `destroy`.
 *
 * Errors: NULL_ARGUMENT also if `submit` is NULL; BAD_VALUE for a `struct_size` or `flags`; DISK if `info` is like no disk.
 */
int32_t vmcell_disk_new_backend(const vmcell_disk_backend *table,
                                const vmcell_disk_info *info,
                                vmcell_disk **disk,
                                vmcell_disk_port **port,
                                vmcell_error **error);

/**
 * Makes a handle to a disk that is not handed over yet, and is read-only already if it will be. `disk` is borrowed. Never
 * blocks.
 */
int32_t vmcell_disk_handle_new(const vmcell_disk *disk,
                               vmcell_disk_handle **handle,
                               vmcell_error **error);

/**
 * Makes a handle to a disk of a VM, counted from 0: first those of a JSON text, then those that were added. `vm` is borrowed. Never
 * blocks.
 *
 * Errors: INVALID_CONFIG if the VM has no such disk.
 */
int32_t vmcell_disk_handle_new_from_vm(const vmcell_vm *vm,
                                       size_t index,
                                       vmcell_disk_handle **handle,
                                       vmcell_error **error);

/**
 * Says that the size of the disk's file or block device may have changed; a backend is asked by its `refresh`. The disk looks
 * at it soon, and tells the guest's driver if so. Does nothing once the VM has ended. Never blocks.
 */
int32_t vmcell_disk_handle_refresh(vmcell_disk_handle *handle,
                                   vmcell_error **error);

/**
 * Sets other limits for the disk, as vmcell_disk_set_limits does, at once and also for a request that waits. What has not been used of a
 * limit stays, up to its new burst. Does nothing once the VM has ended. Never blocks.
 *
 * Errors: BAD_VALUE; INVALID_CONFIG for a number above 2^40. Then the limits stay as they are.
 */
int32_t vmcell_disk_handle_set_limits(vmcell_disk_handle *handle,
                                      uint64_t operations_per_second,
                                      uint64_t operations_burst,
                                      uint64_t bytes_per_second,
                                      uint64_t bytes_burst,
                                      vmcell_error **error);

/**
 * Tells how the disk's requests reach its file: VMCELL_ENGINE_URING or VMCELL_ENGINE_SYNC; VMCELL_ENGINE_AUTO if the disk is not
 * part of a VM yet, or lies on a backend of the caller's. Never blocks.
 */
int32_t vmcell_disk_handle_engine(const vmcell_disk_handle *handle,
                                  int32_t *engine,
                                  vmcell_error **error);

/**
 * Exchanges what the disk lies on for that of another disk, whose other settings mean nothing. Requests in flight end on the
 * old one first; what the guest has not flushed may or may not be on it. The old one is closed, or destroyed, before this
 * returns. Blocks until the exchange is made, for at most `limit_ms` milliseconds. `disk` is taken, even if this call fails.
 *
 * Errors: TIMEOUT if requests were still in flight, or no VM was there, at the limit; INVALID_STATE if the VM has ended, and in a function that an I/O thread calls;
 * INVALID_CONFIG if only one of the two is read-only; DISK as from vmcell_vm_new, and if the new one has larger blocks, which
 * the guest cannot be told. Nothing was exchanged then. After TIMEOUT, the new one is closed, or destroyed, by the old one's I/O
 * thread when it comes to it.
 */
int32_t vmcell_disk_handle_replace(vmcell_disk_handle *handle,
                                   vmcell_disk *disk,
                                   uint32_t limit_ms,
                                   vmcell_error **error);

/**
 * Frees a handle. The disk stays as it is. NULL is fine. Never blocks.
 *
 * Errors: BAD_HANDLE.
 */
int32_t vmcell_disk_handle_free(vmcell_disk_handle *handle);

/**
 * Makes a key of `len` bytes, at most 64 KiB, which are copied: the caller zeroes its own. `kind` is one of VMCELL_KEY_*. Never blocks.
 *
 * Errors: BAD_VALUE for another kind; VOLUME for another length, or if the process may not lock so much memory (RLIMIT_MEMLOCK).
 */
int32_t vmcell_key_new(int32_t kind,
                       const uint8_t *bytes,
                       size_t len,
                       vmcell_key **key,
                       vmcell_error **error);

/**
 * Makes a key of all that is in a file, of a line's end as well. `kind` is VMCELL_KEY_PASSPHRASE or VMCELL_KEY_RANDOM. Blocks while it reads.
 *
 * Errors: BAD_VALUE for another kind; VOLUME if the file cannot be read, and as for vmcell_key_new.
 */
int32_t vmcell_key_new_from_file(int32_t kind,
                                 const char *path,
                                 vmcell_key **key,
                                 vmcell_error **error);

/**
 * Zeroes a key and frees it. Volumes that it has opened stay open. NULL is fine. Never blocks.
 *
 * Errors: BAD_HANDLE.
 */
int32_t vmcell_key_free(vmcell_key *key);

/**
 * Creates an encrypted volume (LUKS2, AES-XTS) for `size` bytes of data, a multiple of its sectors, in a new file that nobody else may
 * read, with a key slot for `key`. `label` is a name for people, or NULL. `sector_size` is 512, 1024, 2048 or 4096, or 0 for the default of 4096.
 * `header_path` is where the header goes, or NULL for the front of the volume's file. Takes as long as a key slot of that kind takes to open; the file is
 * on storage when it returns.
 *
 * Errors: VOLUME if the file exists, which is left alone, or cannot be written, and for a size or a setting that is not allowed.
 */
int32_t vmcell_volume_create(const char *path,
                             uint64_t size,
                             const vmcell_key *key,
                             const char *label,
                             size_t sector_size,
                             const char *header_path,
                             vmcell_error **error);

/**
 * Makes the block device at `path` an encrypted volume, as large as the device but for the 16 MiB in front. What was on it is lost. `label` and
 * `sector_size` are as in vmcell_volume_create.
 *
 * Errors: DISK if the device is mounted or in use otherwise; VOLUME if it is no block device, is too small, or cannot be written, and for a setting
 * that is not allowed.
 */
int32_t vmcell_volume_format_device(const char *path,
                                    const vmcell_key *key,
                                    const char *label,
                                    size_t sector_size,
                                    vmcell_error **error);

/**
 * Opens an encrypted volume and makes a disk of it, whose file is locked from now on. `header_path` is where the header is, or NULL for
 * the front of the volume's file. `flags` is a sum of VMCELL_VOLUME_*, `engine` one of VMCELL_ENGINE_*. The disk takes its other settings as
 * any disk does, but its engine, direct I/O, and whether it is read-only stay as they are here. Takes as long as the key slot costs.
 *
 * Errors: VOLUME_KEY if no key slot is opened by the key; VOLUME if the file is no volume, is damaged, or uses what is not known, which is
 * named; DISK if the file cannot be opened, or is in use; BAD_VALUE for other flags or another engine.
 */
int32_t vmcell_disk_new_volume(const char *path,
                               const vmcell_key *key,
                               const char *header_path,
                               uint32_t flags,
                               int32_t engine,
                               vmcell_disk **disk,
                               vmcell_error **error);

/**
 * Writes what a volume's header tells without a key, as JSON with a NUL behind it, into `buffer` of `capacity` bytes, if it fits; `length`
 * is set to what it needs without the NUL. Its fields are `uuid`, `label`, `cipher`, `sector_size`, `data_offset`, `capacity`, `is_fork`, `is_base`, `slots` (a list of
 * `number` and `opened_by`), and `header_problem`. Blocks while it reads.
 *
 * Errors: VOLUME if it is no volume, or is damaged.
 */
int32_t vmcell_volume_info(const char *path,
                           char *buffer,
                           size_t capacity,
                           size_t *length,
                           vmcell_error **error);

/**
 * Creates a volume in the new file `path` that begins as the one at `base`, which `base_key` opens, and takes space only for what is
 * changed in it. It has a key slot for `key`, which opens it with all that it builds on. From now on, until vmcell_volume_release, the base may only be
 * read. Takes as long as both key slots cost.
 *
 * Errors: those of vmcell_volume_create and vmcell_disk_new_volume; DISK also if the base is in use for writing.
 */
int32_t vmcell_volume_fork(const char *base,
                           const vmcell_key *base_key,
                           const char *path,
                           const vmcell_key *key,
                           vmcell_error **error);

/**
 * Lets a base be written to again. The caller vouches that no volume builds on it any more: one that does is refused from now on.
 *
 * Errors: VOLUME if it is no volume, or its header cannot be written.
 */
int32_t vmcell_volume_release(const char *base,
                              vmcell_error **error);

/**
 * Makes a volume's file longer, so that it has room for `size` bytes of data. If it is in use, vmcell_disk_handle_refresh tells its guest;
 * vmcell_volume_handle_grow does both.
 *
 * Errors: VOLUME if it has more room already, the size is no multiple of its sectors, it is a fork, its header is elsewhere, or the file cannot
 * grow.
 */
int32_t vmcell_volume_grow(const char *path,
                           uint64_t size,
                           vmcell_error **error);

/**
 * Adds a key slot for `new_key` to the volume or the detached header at `path`, which may be in use. `with` opens it already. `slot` gets the number of the
 * key slot, 0 to 31, unless it is NULL. Takes as long as both key slots take to open.
 *
 * Errors: VOLUME_KEY if `with` opens no key slot; VOLUME if none is free, or the header cannot be read or written: then it is as it was.
 */
int32_t vmcell_volume_add_key(const char *path,
                              const vmcell_key *with,
                              const vmcell_key *new_key,
                              uint32_t *slot,
                              vmcell_error **error);

/**
 * Puts `new_key` in the place of `old_key`, in the volume or the detached header at `path`, which may be in use. At any moment one of them
 * opens it. `slot` gets the number of the new key slot, unless it is NULL.
 *
 * Errors: those of vmcell_volume_add_key and vmcell_volume_remove_key.
 */
int32_t vmcell_volume_change_key(const char *path,
                                 const vmcell_key *old_key,
                                 const vmcell_key *new_key,
                                 uint32_t *slot,
                                 vmcell_error **error);

/**
 * Overwrites a key slot of the volume or the detached header at `path` and takes it out, also while the volume is in use.
 *
 * Errors: VOLUME if there is no such key slot, it is the last one, or the header cannot be read or written.
 */
int32_t vmcell_volume_remove_key(const char *path,
                                 uint32_t slot,
                                 vmcell_error **error);

/**
 * Copies the header at `path` and its key slots to a new file, as `cryptsetup luksHeaderBackup` does.
 *
 * Errors: VOLUME if the file exists or cannot be written, or the header cannot be read.
 */
int32_t vmcell_volume_back_up_header(const char *path, const char *to, vmcell_error **error);

/**
 * Puts a header back that was copied before: the keys of that moment open the volume again, and later ones no longer.
 *
 * Errors: VOLUME if the file is no header or another volume's, or this one cannot be written.
 */
int32_t vmcell_volume_restore_header(const char *path, const char *from, vmcell_error **error);

/**
 * Makes a handle to the volume of a disk that vmcell_disk_new_volume has made. `disk` is borrowed. Never blocks.
 *
 * Errors: BAD_VALUE if the disk is none of a volume.
 */
int32_t vmcell_volume_handle_new(const vmcell_disk *disk, vmcell_volume_handle **handle, vmcell_error **error);

/**
 * Takes a snapshot of a volume in use: what is in its file stays as it is, and the VM goes on writing to a new file at `path`, a fork that `key` opens.
 * From now on, that is the file to open for the VM; the old one may be read and forked, and both stay where they are, or move
 * together. After a crash in the middle, the new file has all that the VM had made stable, or, if that one is refused, the old one has it.
 * `pause_us` gets for how long the disk stood still, in microseconds, unless it is NULL. Blocks for as long as making a fork takes, and
 * then until the disk was served, at most `limit_ms` milliseconds, and until the old file is stable, at most as long again.
 *
 * Errors: VOLUME if `path` exists or cannot be written, the volume is read-only, has a header of its own or blocks of less than 4096 bytes, lies
 * over 16 others, or its file was replaced; TIMEOUT if the disk was not served, because its VM is not there or paused; INVALID_STATE while
 * another snapshot is prepared, and in a function that an I/O thread calls. If the file exists after an error, the snapshot was taken, and only
 * the old file's data are not known to be stable.
 */
int32_t vmcell_volume_handle_snapshot(const vmcell_volume_handle *handle,
                                      const char *path,
                                      const vmcell_key *key,
                                      uint32_t limit_ms,
                                      uint64_t *pause_us,
                                      vmcell_error **error);

/**
 * Makes a volume larger while its VM runs, to `size` bytes, whether it is a fork or not. The guest sees the new size when this returns. What is added is
 * zeroes in a fork, and noise otherwise until it is written. In a crash, the volume is as large as before, or as it was to be. Blocks while the file is
 * written, 256 KiB for each GiB that a fork grows by, and until the disk was served, at most `limit_ms` milliseconds.
 *
 * Errors: VOLUME if it has more room already, `size` is no multiple of its blocks or too large, its header limits its size, it is read-only or has a
 * header of its own, a fork has grown in use 64 times since vmcell_volume_grow_fork was last called for it, or the file cannot be written: then the call may be made again; TIMEOUT if the disk was not served: the file is larger
 * then, and the guest sees that once it is; INVALID_STATE while a snapshot is prepared or another thread has it grow, and in a function that an I/O
 * thread calls.
 */
int32_t vmcell_volume_handle_grow(const vmcell_volume_handle *handle,
                                  uint64_t size,
                                  uint32_t limit_ms,
                                  vmcell_error **error);

/**
 * Opens what the volume builds on anew, and has its VM go on with that while it runs: after vmcell_volume_absorb, the chain is shorter then, and the space
 * of files that were removed comes back. Blocks until the disk was served, at most `limit_ms` milliseconds.
 *
 * Errors: VOLUME if it builds on no other volume, what it builds on cannot be opened, or is another one than it was; TIMEOUT if the disk was not served;
 * INVALID_STATE while a snapshot is prepared or it grows, if what it wrote before its last snapshot is not stable yet, and in a function that an I/O
 * thread calls. Then the VM goes on with the files that it has.
 */
int32_t vmcell_volume_handle_reopen(const vmcell_volume_handle *handle,
                                    uint32_t limit_ms,
                                    vmcell_error **error);

/**
 * Does what takes time of vmcell_volume_handle_snapshot, so that vmcell_volume_snapshot_take takes none: in the function of vmcell_vm_snapshot, for instance,
 * so that RAM and disks are of one instant. The VM must have been made, and not be paused. Blocks for as long as making a fork takes, and
 * until the disk was served, at most `limit_ms` milliseconds.
 *
 * Errors: those of vmcell_volume_handle_snapshot. The volume is as it was then.
 */
int32_t vmcell_volume_handle_prepare_snapshot(const vmcell_volume_handle *handle,
                                              const char *path,
                                              const vmcell_key *key,
                                              uint32_t limit_ms,
                                              vmcell_volume_snapshot **snapshot,
                                              vmcell_error **error);

/**
 * Frees a handle. The disk stays as it is. NULL is fine. Never blocks.
 *
 * Errors: BAD_HANDLE.
 */
int32_t vmcell_volume_handle_free(vmcell_volume_handle *handle);

/**
 * Takes a snapshot that is prepared: what the disk begins from now on goes to the new file. A second call does nothing. Never blocks.
 */
int32_t vmcell_volume_snapshot_take(const vmcell_volume_snapshot *snapshot,
                                    vmcell_error **error);

/**
 * Waits until a snapshot is taken and the old file is stable; then it may be read and forked. `pause_us` is as in
 * vmcell_volume_handle_snapshot. May be called again. Blocks for at most `limit_ms` milliseconds.
 *
 * Errors: TIMEOUT if that has not come, because the VM is paused or the storage is slow; INVALID_STATE if vmcell_volume_snapshot_take was not called, the
 * VM has ended, and in a function that an I/O thread calls; VOLUME if the old file's data cannot be made stable.
 */
int32_t vmcell_volume_snapshot_wait(const vmcell_volume_snapshot *snapshot,
                                    uint32_t limit_ms,
                                    uint64_t *pause_us,
                                    vmcell_error **error);

/**
 * Frees a snapshot. If it was not taken, the new file is removed, for which this blocks, unless the VM has ended and that file is in use or was
 * written to. NULL is fine.
 *
 * Errors: BAD_HANDLE.
 */
int32_t vmcell_volume_snapshot_free(vmcell_volume_snapshot *snapshot);

/**
 * Copies what a fork has from the volumes that it builds on into its own file, so that it builds on none. `key` opens it; no VM may use it meanwhile.
 * `progress` is called with `user`, unless it is NULL. `is_done` gets 0 if that has broken off, else 1, unless it is NULL. The fork is as good as before
 * then, and after an error or a crash; flattening it again goes on where this has stopped. Blocks while it reads and writes.
 *
 * Errors: VOLUME if it builds on no other volume, or data cannot be read or written; VOLUME_KEY; DISK if it is in use.
 */
int32_t vmcell_volume_flatten(const char *path,
                              const vmcell_key *key,
                              vmcell_volume_progress progress,
                              void *user,
                              int32_t *is_done,
                              vmcell_error **error);

/**
 * Copies a volume, with all that it builds on, to a new file at `to`: a volume of its own, opened by `new_key`, which cryptsetup opens as well. No VM may write
 * to the old one meanwhile. `progress`, `user` and `is_done` are as in vmcell_volume_flatten; if this is broken off or fails, there is no new file.
 * Blocks while it reads and writes.
 *
 * Errors: VOLUME if the new file exists or cannot be written, or data cannot be read; VOLUME_KEY; DISK if the old one is in use for writing.
 */
int32_t vmcell_volume_flatten_to(const char *path,
                                 const vmcell_key *key,
                                 const char *to,
                                 const vmcell_key *new_key,
                                 vmcell_volume_progress progress,
                                 void *user,
                                 int32_t *is_done,
                                 vmcell_error **error);

/**
 * Takes what the base of a fork has into the fork, also while VMs read both, but not while one writes to the fork: a new file with the data of both is
 * written at `new_path`, in the fork's folder, and then renamed to the fork's name. It builds on what the base builds on, or on nothing, and opens by the same
 * keys; the base is as it was, and may be removed once nothing else builds on it. A VM that has opened the chain before goes on with the files that
 * were there until vmcell_volume_handle_reopen. `progress`, `user` and `is_done` are as in vmcell_volume_flatten; if this is broken off or fails,
 * nothing has changed. After a crash, the chain is as it was or as it was to be, and there may be a file at `new_path`. Blocks while it reads and writes.
 *
 * Errors: VOLUME if it builds on no other volume, it is a block device, `new_path` exists or is elsewhere, or data cannot be read or written; VOLUME_KEY; DISK
 * if the fork is in use for writing.
 */
int32_t vmcell_volume_absorb(const char *path,
                             const vmcell_key *key,
                             const char *new_path,
                             vmcell_volume_progress progress,
                             void *user,
                             int32_t *is_done,
                             vmcell_error **error);

/**
 * Writes a fork's changes into its base, which then may be written to, and removes the fork's file. `key` opens the fork; no VM may use either
 * meanwhile. `others` is one of VMCELL_OTHER_FORKS_*: other forks of the base would see data that are not theirs, so they are refused from then on. `progress`, `user`
 * and `is_done` are as in vmcell_volume_flatten. If this is broken off or fails, and after a crash, the fork has all data as before, and works; the base
 * opens alone no longer until the fork is committed again, which begins anew. Blocks while it reads and writes.
 *
 * Errors: VOLUME if it builds on no other volume, others build on it, there may be other forks of its base, or data cannot be read or written; VOLUME_KEY; DISK if
 * either is in use; BAD_VALUE for another number of `others`.
 */
int32_t vmcell_volume_commit(const char *path,
                             const vmcell_key *key,
                             int32_t others,
                             vmcell_volume_progress progress,
                             void *user,
                             int32_t *is_done,
                             vmcell_error **error);

/**
 * Makes a fork larger, to `size` bytes; what is added is zeroes. `key` opens it. No VM may use it meanwhile:
 * vmcell_volume_handle_grow is for one in use, vmcell_volume_grow for volumes that are no forks. Blocks while it writes a new map, of 256 KiB for each GiB.
 *
 * Errors: VOLUME if it is no fork, has more room already, `size` is no multiple of 4096 or too large, or the file cannot grow; VOLUME_KEY; DISK if it is in use.
 */
int32_t vmcell_volume_grow_fork(const char *path,
                                const vmcell_key *key,
                                uint64_t size,
                                vmcell_error **error);

/**
 * Makes a secret of `len` bytes, which are copied: the caller zeroes its own. A name has 1 to 255 ASCII letters, digits, '_', '-' and '.', and
 * does not begin with a dot. Never blocks.
 *
 * Errors: SECRET for another name or length, or if the process may not lock so much memory (RLIMIT_MEMLOCK).
 */
int32_t vmcell_secret_new(const char *name,
                          const uint8_t *value,
                          size_t len,
                          vmcell_secret **secret,
                          vmcell_error **error);

/**
 * Makes a secret of all that is in a file, of a line's end as well. Blocks while it reads.
 *
 * Errors: SECRET if the file cannot be read, and as for vmcell_secret_new.
 */
int32_t vmcell_secret_new_from_file(const char *name, const char *path, vmcell_secret **secret, vmcell_error **error);

/**
 * Writes what the secret is called, with a NUL behind it, into `buffer` of `capacity` bytes, if it fits; `length` is set to what it needs without the
 * NUL, at most 255. Never blocks.
 */
int32_t vmcell_secret_name(const vmcell_secret *secret,
                           char *buffer,
                           size_t capacity,
                           size_t *length,
                           vmcell_error **error);

/**
 * Copies the value into `buffer` of `capacity` bytes, if it fits; `length` is set to how many bytes it has. The caller zeroes its copy. Never
 * blocks.
 */
int32_t vmcell_secret_value(const vmcell_secret *secret,
                            uint8_t *buffer,
                            size_t capacity,
                            size_t *length,
                            vmcell_error **error);

/**
 * Zeroes a secret and frees it. NULL is fine. Never blocks.
 *
 * Errors: BAD_HANDLE.
 */
int32_t vmcell_secret_free(vmcell_secret *secret);

/**
 * Seals a secret to the owner of `sealing_key`, the text of a public key, and writes it into `buffer` of `capacity` bytes, if it fits; `length` is set
 * to how many bytes it has: those of the value and at most 1,686 more. It opens only for the same application and version (1 to 2^53 - 1) and
 * under the secret's name. Random: each call writes other bytes. Never blocks.
 *
 * Errors: SECRET for what is no such key, for an application whose name no secret could have, and for another version.
 */
int32_t vmcell_secret_seal(const vmcell_secret *secret,
                           const char *sealing_key,
                           const char *application,
                           uint64_t version,
                           uint8_t *buffer,
                           size_t capacity,
                           size_t *length,
                           vmcell_error **error);

/**
 * Makes a new key. `suite` is one of VMCELL_SUITE_*. If `bytes` is not NULL, it is the key of these 32 bytes, which are copied, instead of a random
 * one. Never blocks.
 *
 * Errors: BAD_VALUE for another suite; SECRET for another length, or if the process may not lock so much memory (RLIMIT_MEMLOCK).
 */
int32_t vmcell_host_key_new(int32_t suite,
                            const uint8_t *bytes,
                            size_t len,
                            vmcell_host_key **key,
                            vmcell_error **error);

/**
 * Reads a key from a file that vmcell_host_key_save has written. Blocks while it reads.
 *
 * Errors: SECRET if it cannot be read or is no host key, and if users other than its owner may change it, or any but its owner and group may read
 * it.
 */
int32_t vmcell_host_key_new_from_file(const char *path,
                                      vmcell_host_key **key,
                                      vmcell_error **error);

/**
 * Writes a key to a new file that nobody else may read (mode 0600), and that is on storage when the call returns.
 *
 * Errors: SECRET if the file exists, which is left alone, or cannot be written.
 */
int32_t vmcell_host_key_save(const vmcell_host_key *key, const char *path, vmcell_error **error);

/**
 * Writes the text of the public half, which others need to seal secrets to this host, with a NUL behind it, into `buffer` of `capacity` bytes, if it fits;
 * `length` is set to what it needs without the NUL, at most 1,700. Never blocks.
 */
int32_t vmcell_host_key_sealing_key(const vmcell_host_key *key,
                                    char *buffer,
                                    size_t capacity,
                                    size_t *length,
                                    vmcell_error **error);

/**
 * Opens `len` bytes that vmcell_secret_seal wrote, if they are what the caller takes them for. Never blocks.
 *
 * Errors: SECRET, which names what is not as it should be, if they were sealed for another application, under another name, as another
 * version, to another key, or were changed since.
 */
int32_t vmcell_host_key_open(const vmcell_host_key *key,
                             const uint8_t *sealed,
                             size_t len,
                             const char *application,
                             const char *name,
                             uint64_t version,
                             vmcell_secret **secret,
                             vmcell_error **error);

/**
 * Zeroes a key and frees it. NULL is fine. Never blocks.
 *
 * Errors: BAD_HANDLE.
 */
int32_t vmcell_host_key_free(vmcell_host_key *key);

/**
 * Makes an empty store in a new file that nobody else may read (mode 0600). The name of an application follows the rules for those of
 * secrets, and that of the file has at most 250 bytes.
 *
 * Errors: SECRET for another name, or if the file exists, which is left alone, or cannot be written.
 */
int32_t vmcell_secret_store_create(const char *path,
                                   const char *application,
                                   vmcell_error **error);

/**
 * Opens the store of an application. If its file is at a lower revision than `at_least`, now or later, an older copy was put back, and it is
 * refused; 0 for no such bound.
 *
 * Errors: SECRET if the file cannot be read, is damaged, is no store, older than that, or another application's.
 */
int32_t vmcell_secret_store_new(const char *path,
                                const char *application,
                                uint64_t at_least,
                                vmcell_secret_store **store,
                                vmcell_error **error);

/**
 * Seals `count` secrets to the owner of `sealing_key`, the text of a public key, and puts each in the place of the one of its name, all at
 * once. `version` is set to their version, unless it is NULL.
 *
 * Errors: SECRET for what is no such key, if two secrets have the same name, there is no room (1024 secrets, 16 MiB), or the file cannot be
 * read or written: then it is as it was.
 */
int32_t vmcell_secret_store_set(const vmcell_secret_store *store,
                                const char *sealing_key,
                                const vmcell_secret *const *secrets,
                                size_t count,
                                uint64_t *version,
                                vmcell_error **error);

/**
 * Puts `len` bytes that vmcell_secret_seal wrote in the place of the secret of their name. Their version must be one more than the store's
 * revision.
 *
 * Errors: SECRET if they are of another application or version, and as for vmcell_secret_store_set.
 */
int32_t vmcell_secret_store_put(const vmcell_secret_store *store,
                                const uint8_t *sealed,
                                size_t len,
                                vmcell_error **error);

/**
 * Takes a secret out. `revision` is set to the store's without it, unless it is NULL.
 *
 * Errors: SECRET if there is none of this name, or the file cannot be read or written: then it is as it was.
 */
int32_t vmcell_secret_store_unset(const vmcell_secret_store *store,
                                  const char *name,
                                  uint64_t *revision,
                                  vmcell_error **error);

/**
 * Opens all secrets by `from` and seals them to the owner of `to`, the text of a public key, at once. `version` is set to the version that all
 * have then, unless it is NULL.
 *
 * Errors: SECRET if one of them is not opened by `from`, and as for vmcell_secret_store_set.
 */
int32_t vmcell_secret_store_reseal(const vmcell_secret_store *store,
                                   const vmcell_host_key *from,
                                   const char *to,
                                   uint64_t *version,
                                   vmcell_error **error);

/**
 * Writes which secrets there are, as JSON with a NUL behind it, into `buffer` of `capacity` bytes, if it fits; `length` is set to what it needs
 * without the NUL. Its fields are `application`, `revision`, and `secrets` (a list of `name`, `version`, `suite`, `sealed_to`, `value_len` and `digest`, which is of the sealed bytes).
 *
 * Errors: SECRET if the file cannot be read, is damaged, older than it was, or another application's.
 */
int32_t vmcell_secret_store_list(const vmcell_secret_store *store,
                                 char *buffer,
                                 size_t capacity,
                                 size_t *length,
                                 vmcell_error **error);

/**
 * Opens the secret of this name, if it is of `version`; 0 for any.
 *
 * Errors: SECRET if there is none, it is of another version, or is not opened by the key, and as for vmcell_secret_store_list.
 */
int32_t vmcell_secret_store_get(const vmcell_secret_store *store,
                                const vmcell_host_key *key,
                                const char *name,
                                uint64_t version,
                                vmcell_secret **secret,
                                vmcell_error **error);

/**
 * Opens all secrets, in the order of their names: those of one moment. Writes them into `secrets`, if there are no more than `capacity`; otherwise none is
 * made. `count` is set to how many there are, at most 1024.
 *
 * Errors: SECRET if one of them is not opened by the key, and as for vmcell_secret_store_list.
 */
int32_t vmcell_secret_store_get_all(const vmcell_secret_store *store,
                                    const vmcell_host_key *key,
                                    vmcell_secret **secrets,
                                    size_t capacity,
                                    size_t *count,
                                    vmcell_error **error);

/**
 * Closes a store and frees it. NULL is fine. Never blocks.
 *
 * Errors: BAD_HANDLE.
 */
int32_t vmcell_secret_store_free(vmcell_secret_store *store);

/**
 * Attaches to an existing TAP device by its name, 1 to 15 bytes. Nothing else can attach to it while the interface, or
 * the VM that gets it, lives. Never waits.
 *
 * Errors: INVALID_CONFIG for a name that no device can have; NETWORK if the device is missing, in use, not a TAP
 * device, or not ours to use.
 */
int32_t vmcell_nic_new(const char *name, vmcell_nic **nic, vmcell_error **error);

/**
 * As vmcell_nic_new, for a descriptor of /dev/net/tun that the caller has attached to a TAP device with IFF_TAP,
 * IFF_NO_PI and IFF_VNET_HDR. It is made non-blocking. `fd` is taken: it is closed with the interface or with the VM
 * that got it, even if this call fails.
 *
 * Errors: BAD_DESCRIPTOR; NETWORK if the descriptor is anything else.
 */
int32_t vmcell_nic_new_from_fd(int32_t fd, vmcell_nic **nic, vmcell_error **error);

/**
 * As vmcell_nic_new_from_fd, for `count` descriptors, 1 to 16, that the caller has attached to one TAP device with
 * IFF_MULTI_QUEUE, too. The interface has a pair of queues for each. All of them are taken, even if this call fails, unless it
 * fails because `fds` is NULL or `count` is one that no array has. `fds` itself is copied.
 *
 * Errors: BAD_DESCRIPTOR, also for one that is there twice; BAD_VALUE for a count that no array has; INVALID_CONFIG for any other
 * count that is refused; NETWORK if a descriptor is anything else, of another device than the first, or a copy of another one.
 */
int32_t vmcell_nic_new_from_fds(const int32_t *fds,
                                size_t count,
                                vmcell_nic **nic,
                                vmcell_error **error);

/**
 * Sets the MAC address that the guest sees: VMCELL_MAC_BYTES bytes, copied. The default is a random one, marked as
 * locally administered. An address that is not unicast is refused when the VM is made. Never blocks.
 */
int32_t vmcell_nic_set_mac(vmcell_nic *nic, const uint8_t *mac, vmcell_error **error);

/**
 * Sets the largest packet, without its Ethernet header, that the guest is told to send: 68 to 65535 bytes. The TAP
 * device, or the backend, must be able to take it. By default the guest is told nothing, and then guests use 1500.
 * Smaller values are refused when the VM is made. Never blocks.
 */
int32_t vmcell_nic_set_mtu(vmcell_nic *nic, uint16_t mtu, vmcell_error **error);

/**
 * Sets how many pairs of queues the guest's driver may use, 1 to 16, each of which is one to receive and one to send. The default
 * is one for each vCPU, but no more than four, if the TAP device was made with several queues (ip tuntap add ... multi_queue),
 * and otherwise one. An interface on descriptors has as many as it was given, one on a backend has one, and this must be the same
 * number. One I/O thread serves all queues of an interface, in turn. What is refused is refused when the VM is made: with
 * INVALID_CONFIG, or with NETWORK if the TAP device has fewer queues. Never blocks.
 */
int32_t vmcell_nic_set_queues(vmcell_nic *nic,
                              uint16_t queues,
                              vmcell_error **error);

/**
 * Serves the interface on this I/O thread rather than on the VM's own, as vmcell_disk_set_io_thread does for a disk.
 * Never blocks.
 */
int32_t vmcell_nic_set_io_thread(vmcell_nic *nic, const vmcell_io_thread *io_thread, vmcell_error **error);

/**
 * Limits the frames that the guest gets, on all queues of the interface together, as vmcell_disk_set_limits does for a disk: each frame is an
 * operation, and its bytes are those without virtio's header. What exceeds a limit may be dropped on the host meanwhile, as on a real link. Never blocks.
 *
 * Errors: BAD_VALUE if one number of a pair is 0.
 */
int32_t vmcell_nic_set_receive_limits(vmcell_nic *nic,
                                      uint64_t operations_per_second,
                                      uint64_t operations_burst,
                                      uint64_t bytes_per_second,
                                      uint64_t bytes_burst,
                                      vmcell_error **error);

/**
 * Limits the frames that the guest sends, on all queues of the interface together, as vmcell_disk_set_limits does for a disk: each frame is an
 * operation, and its bytes are those without virtio's header. What exceeds a limit waits, and those behind it. Never blocks.
 *
 * Errors: BAD_VALUE if one number of a pair is 0.
 */
int32_t vmcell_nic_set_send_limits(vmcell_nic *nic,
                                   uint64_t operations_per_second,
                                   uint64_t operations_burst,
                                   uint64_t bytes_per_second,
                                   uint64_t bytes_burst,
                                   vmcell_error **error);

/**
 * Has the frames that the guest gets keep to the limits of a group, besides the interface's own. `group` is borrowed, as by
 * vmcell_disk_set_limit_group. Never blocks.
 */
int32_t vmcell_nic_set_receive_group(vmcell_nic *nic,
                                     const vmcell_limit_group *group,
                                     vmcell_error **error);

/**
 * Has the frames that the guest sends keep to the limits of a group, besides the interface's own. `group` is borrowed, as by
 * vmcell_disk_set_limit_group. Never blocks.
 */
int32_t vmcell_nic_set_send_group(vmcell_nic *nic,
                                  const vmcell_limit_group *group,
                                  vmcell_error **error);

/**
 * Vouches that the functions of the interface's backend never block, as vmcell_disk_set_never_blocks does for a disk's. Never
 * blocks.
 */
int32_t vmcell_nic_set_never_blocks(vmcell_nic *nic,
                                    vmcell_error **error);

/**
 * Frees an interface that no VM got, and lets go of its TAP device, or destroys its backend, for which it waits. NULL is
 * fine.
 *
 * Errors: BAD_HANDLE, also if it was handed over to a configuration.
 */
int32_t vmcell_nic_free(vmcell_nic *nic);

/**
 * Delivers a frame to the guest: `len` bytes, 14 to 65553, beginning with the Ethernet address that it is for, and its
 * header of VMCELL_NIC_HEADER_BYTES bytes, or NULL if nothing is left undone. Both are copied to a queue of at most 1024 frames
 * and 1 MiB, from which the interface's I/O thread moves them to the guest, as far as the guest has buffers and the link is
 * up. A frame that has no room there is dropped and counted, as is one that is too long for the guest's buffers or leaves
 * undone what the guest does not cope with: see vmcell_nic_port_dropped. Never blocks.
 *
 * Errors: BAD_VALUE for a length out of range, or a header that contradicts itself or leads outside the frame.
 */
int32_t vmcell_nic_port_deliver(vmcell_nic_port *port,
                                const uint8_t *header,
                                const uint8_t *frame,
                                size_t len,
                                vmcell_error **error);

/**
 * Says that there is room again: the frame that `send` refused with VMCELL_FULL is offered again, on the interface's I/O
 * thread. Never blocks.
 */
int32_t vmcell_nic_port_retry(vmcell_nic_port *port,
                              vmcell_error **error);

/**
 * Says that the backend's link is up, or down if `up` is 0. The guest is told soon. The guest's link is up if both this and
 * vmcell_nic_handle_set_link say so; while it is down, what the guest sends is dropped, and frames for it wait. Never blocks.
 */
int32_t vmcell_nic_port_set_link(vmcell_nic_port *port,
                                 int32_t up,
                                 vmcell_error **error);

/**
 * Writes how many frames were dropped so far: those delivered that the guest did not get, to `to_guest`, and those of the
 * guest that `send` did not take, to `from_guest`. Either may be NULL. Never blocks.
 */
int32_t vmcell_nic_port_dropped(vmcell_nic_port *port,
                                uint64_t *to_guest,
                                uint64_t *from_guest,
                                vmcell_error **error);

/**
 * Says that the backend can never go on, and why: the storage is lost, for instance. The interface fails then: no function of the table is
 * called again but `destroy`, on a thread that is made for it; the guest's driver is told that the device needs a reset; and
 * vmcell_vm_device_failures_json tells `why`. Never blocks.
 */
int32_t vmcell_nic_port_give_up(vmcell_nic_port *port,
                                const char *why,
                                vmcell_error **error);

/**
 * Adds a counter to what the metrics tell of this interface, under a name such as "cache_hits": vmcell_vm_metrics_json has it in the
 * device's "counters". Several of one name count as one, their sum. `counter` is borrowed, and counts for as long as it lives. Never
 * blocks.
 *
 * Errors: INVALID_STATE if the VM was made before.
 */
int32_t vmcell_nic_port_add_counter(vmcell_nic_port *port,
                                    const char *name,
                                    const vmcell_counter *counter,
                                    vmcell_error **error);

/**
 * Makes a network interface on a backend of the caller's own. `port` receives the library's end of it, and may be NULL, as
 * `send` gets it too. `info` is copied; NULL stands for the defaults.
 *
 * The table's `user` is taken: `destroy` is called for it when the interface is gone, and also if this call fails, unless it
 * fails because `table` is NULL or has a `struct_size` that is refused. Never blocks, but for `destroy`.
 *
 * Errors: NULL_ARGUMENT also if `send` is NULL; BAD_VALUE for a `struct_size` or `offloads`.
 */
int32_t vmcell_nic_new_backend(const vmcell_nic_backend *table,
                               const vmcell_nic_info *info,
                               vmcell_nic **nic,
                               vmcell_nic_port **port,
                               vmcell_error **error);

/**
 * Makes a handle to an interface that is not handed over yet. `nic` is borrowed. Never blocks.
 */
int32_t vmcell_nic_handle_new(const vmcell_nic *nic, vmcell_nic_handle **handle, vmcell_error **error);

/**
 * Makes a handle to an interface of a VM, counted as by vmcell_disk_handle_new_from_vm. `vm` is borrowed. Never blocks.
 *
 * Errors: INVALID_CONFIG if the VM has no such interface.
 */
int32_t vmcell_nic_handle_new_from_vm(const vmcell_vm *vm,
                                      size_t index,
                                      vmcell_nic_handle **handle,
                                      vmcell_error **error);

/**
 * Connects the link, or cuts it if `up` is 0; it is connected at first. While it is down, what the guest sends is dropped, and
 * it gets no frames. Does nothing once the VM has ended. Never blocks.
 */
int32_t vmcell_nic_handle_set_link(vmcell_nic_handle *handle,
                                   int32_t up,
                                   vmcell_error **error);

/**
 * Asks the guest to announce itself to its neighbours, as after a move to another host. A guest whose driver knows no
 * announcements does nothing. Never blocks.
 */
int32_t vmcell_nic_handle_announce(vmcell_nic_handle *handle, vmcell_error **error);

/**
 * Sets other limits for the frames that the guest gets, as vmcell_disk_handle_set_limits does for a disk. Never blocks.
 *
 * Errors: BAD_VALUE; INVALID_CONFIG for a number above 2^40. Then the limits stay as they are.
 */
int32_t vmcell_nic_handle_set_receive_limits(vmcell_nic_handle *handle,
                                             uint64_t operations_per_second,
                                             uint64_t operations_burst,
                                             uint64_t bytes_per_second,
                                             uint64_t bytes_burst,
                                             vmcell_error **error);

/**
 * Sets other limits for the frames that the guest sends, as vmcell_disk_handle_set_limits does for a disk. Never blocks.
 *
 * Errors: BAD_VALUE; INVALID_CONFIG for a number above 2^40. Then the limits stay as they are.
 */
int32_t vmcell_nic_handle_set_send_limits(vmcell_nic_handle *handle,
                                          uint64_t operations_per_second,
                                          uint64_t operations_burst,
                                          uint64_t bytes_per_second,
                                          uint64_t bytes_burst,
                                          vmcell_error **error);

/**
 * Frees a handle. The interface stays as it is. NULL is fine. Never blocks.
 *
 * Errors: BAD_HANDLE.
 */
int32_t vmcell_nic_handle_free(vmcell_nic_handle *handle);

/**
 * Writes an address as text, with a NUL behind it, into `buffer` of `capacity` bytes, if it fits; `length` is set to what it needs without the NUL, at
 * most 43. `what` is one of VMCELL_ADDRESS_*; the machine, or that and the host, are not looked at if it does not need them. Never blocks.
 *
 * Errors: BAD_VALUE for another `what`, and for a number that is out of range.
 */
int32_t vmcell_machine_address_text(const vmcell_machine_address *address,
                                    int32_t what,
                                    char *buffer,
                                    size_t capacity,
                                    size_t *length,
                                    vmcell_error **error);

/**
 * Reads the IPv6 address of a machine of whatever network, and sets `address` to its numbers. Never blocks.
 *
 * Errors: BAD_VALUE if the text is no IPv6 address, or one that no machine of any network can have.
 */
int32_t vmcell_machine_address_parse(const char *text, vmcell_machine_address *address, vmcell_error **error);

/**
 * Writes the MAC address that belongs to an address: VMCELL_MAC_BYTES bytes. The interface of the machine has it. Never blocks.
 *
 * Errors: BAD_VALUE for a number that is out of range.
 */
int32_t vmcell_machine_address_mac(const vmcell_machine_address *address,
                                   uint8_t *mac,
                                   vmcell_error **error);

/**
 * Makes a network without machines, in which nothing is allowed. `realm` is 0 to 0xffffff, and drawn by lot once, `number` the network in it: the
 * addresses follow from them (vmcell_machine_address). `settings` is copied; NULL stands for the defaults. Never blocks.
 *
 * Errors: BAD_VALUE for another realm, or a `struct_size`; INVALID_CONFIG for a setting that is out of range.
 */
int32_t vmcell_network_new(uint32_t realm,
                           uint32_t number,
                           const vmcell_network_settings *settings,
                           vmcell_network **network,
                           vmcell_error **error);

/**
 * Sets what may pass, in place of the rules before, also while VMs run: at most 1024 rules, one a line; empty lines, and those that begin with
 * '#', say nothing. The first rule that fits a flow decides whether it may begin; if none fits, it may not. Answers pass by themselves. A
 * rule reads "allow tcp 80-89 from fdac:1705:0:7:0:100::/88 to fdac:1705:0:7:0:1ff:fe00:2": "allow" or "deny"; then "all", "tcp", "udp", "icmp", or
 * "protocol" and its number; behind "tcp" and "udp" a port, or the first and the last one, if not all; then "from" and "to" with a
 * range of addresses, if not everybody. Flows that are not allowed any more end. Never blocks for long.
 *
 * Errors: INVALID_CONFIG, with the number of the line, for what is no rule, and for too many. Then those before stay.
 */
int32_t vmcell_network_set_rules(vmcell_network *network,
                                 const char *rules,
                                 vmcell_error **error);

/**
 * Writes how often each rule has decided, as a JSON array in the order of the rules, with a NUL behind it, into `buffer` of `capacity` bytes, if it fits;
 * `length` is set to what it needs without the NUL. Each element has the members "rule" (its text), "flows" (how many it has let begin, or how many
 * packets that would have begun one it has refused), and "packets" and "bytes", which have passed by it, answers among them. Never blocks for long.
 */
int32_t vmcell_network_rule_counts_json(const vmcell_network *network,
                                        char *buffer,
                                        size_t capacity,
                                        size_t *length,
                                        vmcell_error **error);

/**
 * Sets `count` to how many frames and packets of the network were dropped for a reason, which has one of the names of docs/network.md: "policy", for
 * instance, if no rule allowed them. What one machine sent is among the counters of its interface in vmcell_vm_metrics_json, as
 * "network_dropped_" and the name. Never blocks for long.
 *
 * Errors: BAD_VALUE for another name.
 */
int32_t vmcell_network_dropped(const vmcell_network *network,
                               const char *reason,
                               uint64_t *count,
                               vmcell_error **error);

/**
 * Writes which machines have ports now to `machines`, which has room for `capacity`, in no order, and how many they are to `count`, which may be more.
 * `machines` may be NULL if `capacity` is 0. Never blocks for long.
 */
int32_t vmcell_network_machines(const vmcell_network *network,
                                vmcell_machine_address *machines,
                                size_t capacity,
                                size_t *count,
                                vmcell_error **error);

/**
 * Sets `idle_ms` to how many milliseconds ago the last packet was sent to a machine or by it, or, if there was none, its port was made. What was
 * dropped, and neighbour discovery, do not count. Never blocks for long.
 *
 * Errors: BAD_VALUE for a number that no machine has; INVALID_CONFIG if the machine has no port.
 */
int32_t vmcell_network_idle(const vmcell_network *network,
                            uint32_t host,
                            uint32_t number,
                            uint64_t *idle_ms,
                            vmcell_error **error);

/**
 * Lets go of a network. Its ports, and the VMs and tunnels that have them, keep it. NULL is fine. Never blocks.
 *
 * Errors: BAD_HANDLE.
 */
int32_t vmcell_network_free(vmcell_network *network);

/**
 * Makes the port of machine number `number`, 1 to 0xffffff, of host number `host`, 1 to 65535. `network` is borrowed. Never blocks for long.
 *
 * Errors: BAD_VALUE for another number; INVALID_CONFIG if the address is in use, or the network has as many ports as it may.
 */
int32_t vmcell_network_port_new(const vmcell_network *network,
                                uint32_t host,
                                uint32_t number,
                                vmcell_network_port **port,
                                vmcell_error **error);

/**
 * As vmcell_network_port_new, for a machine whose guest takes itself for machine number `source` of host number `source_host`: a fork of that one,
 * which keeps the addresses that it had at the snapshot. The network knows it by its own address alone, and replaces the one by the other in
 * its packets. The guest and the machine that it takes itself for cannot reach each other.
 *
 * Errors: as vmcell_network_port_new.
 */
int32_t vmcell_network_port_new_for_clone(const vmcell_network *network,
                                          uint32_t host,
                                          uint32_t number,
                                          uint32_t source_host,
                                          uint32_t source,
                                          vmcell_network_port **port,
                                          vmcell_error **error);

/**
 * Gives the machine a name, 1 to 63 letters, digits and hyphens: the network's name server has its address under "NAME.internal" while it runs.
 * Several machines may have one name, and a machine eight. Never blocks for long.
 *
 * Errors: INVALID_CONFIG for another name, one that the machine has, and the ninth. Then the port stays as it is.
 */
int32_t vmcell_network_port_add_name(vmcell_network_port *port,
                                     const char *name,
                                     vmcell_error **error);

/**
 * Writes the machine's IPv6 address as text, with a NUL behind it, into `buffer` of `capacity` bytes, if it fits; `length` is set to what it needs without
 * the NUL, at most 39. Never blocks.
 */
int32_t vmcell_network_port_address(const vmcell_network_port *port,
                                    char *buffer,
                                    size_t capacity,
                                    size_t *length,
                                    vmcell_error **error);

/**
 * Frees a port that no interface got: its address is free again. NULL is fine. Never blocks for long.
 *
 * Errors: BAD_HANDLE, also if it was handed over to an interface.
 */
int32_t vmcell_network_port_free(vmcell_network_port *port);

/**
 * Makes an interface on a port, with the MAC address and the MTU that belong to it, which must stay as they are. `port` is taken. It never blocks,
 * so the VM's own I/O thread serves it. Never blocks.
 */
int32_t vmcell_nic_new_network(vmcell_network_port *port,
                               vmcell_nic **nic,
                               vmcell_error **error);

/**
 * Makes an interface whose guest reaches the world outside by passt, which is started as a child process and ends with the interface. The guest
 * reaches what a program of this user reaches, but not what listens on the host's loopback; nothing reaches the guest but what comes to `ports`. The
 * guest has its address, routes and name servers from passt.
 *
 * `program` is passt's path, or its name in the search path; NULL stands for "passt". `mtu` is 1280 to 65520 bytes; 0 stands for 65520. `ports` has
 * a line for each port of the host's that leads to the guest, such as "tcp 8080:80" or "udp 127.0.0.1/53:5353", at most 256; NULL and "" stand for
 * none. A process that is jailed may not start programs: call this before vmcell_jail_enter. Waits until passt is ready, mostly some tens of
 * milliseconds, at most ten seconds.
 *
 * Errors: INVALID_CONFIG for an `mtu` that is out of range, for what is no port, and for too many; BAD_VALUE for an `mtu` above 65535; NETWORK if
 * passt does not start, with what it says; TIMEOUT; INVALID_STATE in a function that a thread of the library's calls.
 */
int32_t vmcell_nic_new_passt(const char *program,
                             uint32_t mtu,
                             const char *ports,
                             vmcell_nic **nic,
                             vmcell_error **error);

/**
 * Makes service number `number` of a network. `network` is borrowed, `settings` copied; NULL stands for the defaults. Never blocks for long.
 *
 * Errors: INVALID_CONFIG for a number or a name that is in use, what is no name, a setting that is out of range, and above 1024 services; BAD_VALUE for a
 * `struct_size`; HOST if the host gives no thread.
 */
int32_t vmcell_service_new(const vmcell_network *network,
                           uint32_t number,
                           const vmcell_service_settings *settings,
                           vmcell_service **service,
                           vmcell_error **error);

/**
 * Writes the IPv6 address of a service as text, such as "fdac:1705:0:7:0:1:0:50", with a NUL behind it, into `buffer` of `capacity` bytes, if it fits; `length`
 * is set to what it needs without the NUL, at most 39. Never blocks.
 */
int32_t vmcell_service_address(const vmcell_service *service,
                               char *buffer,
                               size_t capacity,
                               size_t *length,
                               vmcell_error **error);

/**
 * Makes a machine a member, which has a port in the network; or has one that is drained get new flows again. It gets flows as soon as its driver is up, so add
 * one that boots when its server is up. The end of its VM takes it out. Never blocks for long.
 *
 * Errors: BAD_VALUE for a number that no machine has; INVALID_CONFIG for a machine without a port, or that is a member already, and above 256 members.
 */
int32_t vmcell_service_add(vmcell_service *service,
                           uint32_t host,
                           uint32_t number,
                           vmcell_error **error);

/**
 * Gives a member no new flows; those that it has go on. `was_member` is set to 1 if it is one, else to 0, unless it is NULL. Never blocks for long.
 *
 * Errors: BAD_VALUE for a number that no machine has.
 */
int32_t vmcell_service_drain(vmcell_service *service,
                             uint32_t host,
                             uint32_t number,
                             int32_t *was_member,
                             vmcell_error **error);

/**
 * Takes a member out: its flows end. `was_member` is set to 1 if it was one, else to 0, unless it is NULL. Never blocks for long.
 *
 * Errors: BAD_VALUE for a number that no machine has.
 */
int32_t vmcell_service_remove(vmcell_service *service,
                              uint32_t host,
                              uint32_t number,
                              int32_t *was_member,
                              vmcell_error **error);

/**
 * Writes the members of a service as a JSON array, in no order, with a NUL behind it, into `buffer` of `capacity` bytes, if it fits; `length` is set to what it
 * needs without the NUL. The members of each element are "host", "machine", "runs" (its driver is up, and it is not paused), "draining", "flows" (how many it
 * has now) and "flows_total" (how many it was given). Never blocks for long.
 */
int32_t vmcell_service_members_json(const vmcell_service *service,
                                    char *buffer,
                                    size_t capacity,
                                    size_t *length,
                                    vmcell_error **error);

/**
 * Writes the counters of a service as a JSON object, as vmcell_tunnel_metrics_json does: "service_flows" that were given to members; packets "service_held",
 * "service_replayed" of these, "service_refused" of these, and "service_waiting", those that are held now; "service_calls" of `on_demand`, and
 * "service_calls_refused". A later version may have more. Never blocks.
 */
int32_t vmcell_service_metrics_json(const vmcell_service *service,
                                    char *buffer,
                                    size_t capacity,
                                    size_t *length,
                                    vmcell_error **error);

/**
 * Frees a service: its address is free again, its flows end, and what waits is refused. Does not wait for a call of `on_demand`, which keeps the service
 * until it returns. NULL is fine.
 *
 * Errors: BAD_HANDLE.
 */
int32_t vmcell_service_free(vmcell_service *service);

/**
 * Writes a new private key, with a NUL behind it, into `buffer` of `capacity` bytes (VMCELL_WIREGUARD_KEY_BYTES), if it fits; `length` is set to what it
 * needs without the NUL, 44. The text is the caller's to protect and to erase. Waits only on a host that has just booted and has no entropy yet.
 *
 * Errors: HOST if the kernel gives no random bytes.
 */
int32_t vmcell_wireguard_private_key(char *buffer,
                                     size_t capacity,
                                     size_t *length,
                                     vmcell_error **error);

/**
 * As vmcell_wireguard_private_key, for a preshared key: a secret that two peers share beside their key pairs, so that what is recorded today stays
 * secret from a quantum computer.
 */
int32_t vmcell_wireguard_preshared_key(char *buffer,
                                       size_t capacity,
                                       size_t *length,
                                       vmcell_error **error);

/**
 * Writes the public key that belongs to a private one, as vmcell_wireguard_private_key writes that. Never blocks.
 *
 * Errors: NETWORK for what is no key; the message does not contain it.
 */
int32_t vmcell_wireguard_public_key(const char *private_key,
                                    char *buffer,
                                    size_t capacity,
                                    size_t *length,
                                    vmcell_error **error);

/**
 * Makes an unknown peer a peer, as vmcell_tunnel_add_peer does, and answers its handshake. `peer` is taken. It is forgotten when it has had no key for ten
 * minutes, and asked about again the next time. The key is only claimed until the handshake has ended: an impostor is forgotten after 15 seconds. A range
 * that another peer has refuses the peer. Never blocks.
 *
 * Errors: NETWORK for what is no key or no range; BAD_VALUE for another `endpoint` or `keepalive_s`. Then the peer is refused.
 */
int32_t vmcell_unknown_peer_accept(vmcell_unknown_peer *peer,
                                   const char *preshared_key,
                                   const char *allowed_ips,
                                   const char *endpoint,
                                   uint32_t keepalive_s,
                                   vmcell_error **error);

/**
 * Refuses an unknown peer: its handshake has no answer, and it is not asked about again for ten seconds. NULL is fine. Never blocks.
 *
 * Errors: BAD_HANDLE, also if it was accepted.
 */
int32_t vmcell_unknown_peer_free(vmcell_unknown_peer *peer);

/**
 * Makes a tunnel of a network from the text of a wg-quick file, of which it takes PrivateKey, ListenPort, MTU and the peers. The network's packets
 * that go there are no longer than the MTU, 1420 if there is none. What the peers are allowed lies behind the tunnel from now on; the rules of the network
 * say what may pass. `network` is borrowed, `settings` copied; NULL stands for the defaults. An endpoint is an address: look names up before. The
 * caller erases its text, which holds the private key. Waits for the tunnel's thread, at most for ten seconds.
 *
 * Errors: NETWORK for a configuration that is refused, with the number of the line, and if the port cannot be bound; BAD_VALUE for a `struct_size` or a
 * `listen_address`; INVALID_CONFIG for an address that lies behind another tunnel, and for an MTU below 1280 or another setting that is out of
 * range; INVALID_STATE for an `io_thread` that is filtered, and in a function that this thread calls; TIMEOUT.
 */
int32_t vmcell_tunnel_new(const vmcell_network *network,
                          const char *config,
                          const vmcell_tunnel_settings *settings,
                          vmcell_tunnel **tunnel,
                          vmcell_error **error);

/**
 * Writes the key by which peers know the tunnel, as vmcell_wireguard_public_key does. Never blocks.
 */
int32_t vmcell_tunnel_public_key(const vmcell_tunnel *tunnel,
                                 char *buffer,
                                 size_t capacity,
                                 size_t *length,
                                 vmcell_error **error);

/**
 * Writes where the socket is bound to, with the port that was chosen, such as "192.0.2.7:51820" or "[::]:51820", with a NUL behind it, into `buffer` of
 * `capacity` bytes, if it fits; `length` is set to what it needs without the NUL, at most 58. Never blocks.
 */
int32_t vmcell_tunnel_local_address(const vmcell_tunnel *tunnel,
                                    char *buffer,
                                    size_t capacity,
                                    size_t *length,
                                    vmcell_error **error);

/**
 * Writes the tunnel's counters as a JSON object, with a NUL behind it, into `buffer` of `capacity` bytes, if it fits; `length` is set to what it needs without
 * the NUL. They begin at 0 and only go up: "wireguard_sent_packets", "wireguard_received_bytes", "wireguard_handshakes", and one for each reason for
 * which something is dropped, "wireguard_dropped_unknown_peer" for instance. A later version may have more. Never blocks.
 */
int32_t vmcell_tunnel_metrics_json(const vmcell_tunnel *tunnel,
                                   char *buffer,
                                   size_t capacity,
                                   size_t *length,
                                   vmcell_error **error);

/**
 * Closes a tunnel: nothing lies behind it any more, and its port is free. Waits for its thread, but not for a call of `on_unknown_peer`. NULL is
 * fine.
 *
 * Errors: BAD_HANDLE.
 */
int32_t vmcell_tunnel_free(vmcell_tunnel *tunnel);

/**
 * Adds a peer by its public key. `preshared_key` is a secret that is shared with it, or NULL. `allowed_ips` are ranges of addresses, separated by commas: the
 * sources that its packets may have, and the destinations that go to it; another host of the network has the range of VMCELL_ADDRESS_HOST. `endpoint` is the
 * address and the port where it is found first, or NULL: then it is where its first message comes from. After `keepalive_s` seconds without a message to it, an
 * empty one is sent; 0 is never. Waits for the tunnel's thread, at most for ten seconds.
 *
 * Errors: NETWORK for what is no key or no range, for a key or a range that another peer has, and above the limit of peers; BAD_VALUE for another `endpoint` or
 * `keepalive_s`; INVALID_CONFIG for a range that lies behind another tunnel of the network; INVALID_STATE in a function that the library calls; TIMEOUT.
 */
int32_t vmcell_tunnel_add_peer(vmcell_tunnel *tunnel,
                               const char *public_key,
                               const char *preshared_key,
                               const char *allowed_ips,
                               const char *endpoint,
                               uint32_t keepalive_s,
                               vmcell_error **error);

/**
 * Removes a peer: nothing is sent to it or taken from it any more. `was_there` is set to 1 if there was one, else to 0, unless it is NULL. Waits for the
 * tunnel's thread, at most for ten seconds.
 *
 * Errors: NETWORK for what is no key; INVALID_STATE in a function that the library calls; TIMEOUT.
 */
int32_t vmcell_tunnel_remove_peer(vmcell_tunnel *tunnel,
                                  const char *public_key,
                                  int32_t *was_there,
                                  vmcell_error **error);

/**
 * Writes what became of each peer, also of those that were made just in time, as a JSON array with a NUL behind it, into `buffer` of `capacity` bytes, if it
 * fits; `length` is set to what it needs without the NUL. The members of each element are "public_key", "endpoint" (where its last authentic message came
 * from, or null), "last_handshake_ms" (how many milliseconds ago keys were exchanged last, or null), "sent_bytes" and "received_bytes". Never
 * blocks for long.
 */
int32_t vmcell_tunnel_peers_json(const vmcell_tunnel *tunnel,
                                 char *buffer,
                                 size_t capacity,
                                 size_t *length,
                                 vmcell_error **error);

/**
 * Makes a service at 169.254.169.254, with an empty object as its document. Never blocks.
 */
int32_t vmcell_metadata_new(vmcell_metadata **metadata, vmcell_error **error);

/**
 * Sets the address, as text: one from 169.254.1.0 to 169.254.254.255. Interfaces that have the service already keep theirs. Never blocks.
 *
 * Errors: BAD_VALUE for what is no IPv4 address; INVALID_CONFIG for any other address.
 */
int32_t vmcell_metadata_set_address(vmcell_metadata *metadata,
                                    const char *address,
                                    vmcell_error **error);

/**
 * Sets how many bytes the document may have as JSON without white space. The default is 51,200. It matters for what is set from now on.
 * Never blocks.
 */
int32_t vmcell_metadata_set_limit(vmcell_metadata *metadata,
                                  size_t bytes,
                                  vmcell_error **error);

/**
 * Sets whether the guest needs a token, which it does unless this is 0. Without that, a program in the guest that forwards requests for
 * others is all it takes to read the document. Interfaces that have the service already keep to what they had. Never blocks.
 */
int32_t vmcell_metadata_set_needs_token(vmcell_metadata *metadata,
                                        int32_t needs_token,
                                        vmcell_error **error);

/**
 * Sets whether answers are text whatever a request accepts, which they are if this is not 0. By default, one that accepts
 * application/json is answered by JSON. Interfaces that have the service already keep to what they had. Never blocks.
 */
int32_t vmcell_metadata_set_always_text(vmcell_metadata *metadata,
                                        int32_t always_text,
                                        vmcell_error **error);

/**
 * Replaces the document by JSON: `length` bytes of UTF-8, without a NUL, copied. A request sees either the old one or the new one. Blocks
 * while another thread changes it.
 *
 * Errors: NOT_UTF8; INVALID_CONFIG for what is no JSON, has more than 127 levels, or is longer than the limit. The document stays what it
 * was then.
 */
int32_t vmcell_metadata_set(vmcell_metadata *metadata,
                            const char *json,
                            size_t length,
                            vmcell_error **error);

/**
 * Changes the document by a JSON merge patch (RFC 7396): members of objects are replaced or added, and those that are null in the patch
 * are removed. `json` is as for vmcell_metadata_set. Blocks while another thread changes it.
 *
 * Errors: those of vmcell_metadata_set.
 */
int32_t vmcell_metadata_patch(vmcell_metadata *metadata,
                              const char *json,
                              size_t length,
                              vmcell_error **error);

/**
 * Writes the document as JSON without white space, UTF-8 with a NUL behind it, to `buffer`, which has room for `capacity` bytes. `length`
 * gets the length of the text without the NUL. If that is not below `capacity`, nothing is written to `buffer`: call again with more
 * room. `buffer` may be NULL if `capacity` is 0. Never blocks.
 */
int32_t vmcell_metadata_get(const vmcell_metadata *metadata,
                            char *buffer,
                            size_t capacity,
                            size_t *length,
                            vmcell_error **error);

/**
 * Gives the guest a metadata service on this interface. What the guest sends to the service's address goes to the service, and no further.
 * The service's settings are those of now; its document may change at any time. `metadata` is borrowed, and may be given to several
 * interfaces. Never blocks.
 */
int32_t vmcell_nic_set_metadata(vmcell_nic *nic,
                                const vmcell_metadata *metadata,
                                vmcell_error **error);

/**
 * Frees the handle; VMs that have the service keep it. NULL is fine. Never blocks.
 *
 * Errors: BAD_HANDLE.
 */
int32_t vmcell_metadata_free(vmcell_metadata *metadata);

/**
 * No console: output is discarded. This is a configuration's default. Never blocks.
 */
int32_t vmcell_console_new_none(vmcell_console **console, vmcell_error **error);

/**
 * Output goes to the process's standard output, input comes from its standard input. The library changes neither
 * stream's flags, and leaves a terminal's mode alone: a program that wants each key to reach the guest makes the
 * terminal raw itself. Never blocks.
 */
int32_t vmcell_console_new_stdio(vmcell_console **console, vmcell_error **error);

/**
 * Output goes to a file, which is created or emptied when the VM is made; there is no input. The path may hold any bytes. Never
 * blocks.
 *
 * Errors: when the VM is made, INVALID_CONFIG if the path is empty; CONSOLE if the file cannot be opened for writing, or is a FIFO
 * that nobody reads.
 */
int32_t vmcell_console_new_file(const char *path,
                                vmcell_console **console,
                                vmcell_error **error);

/**
 * Sets whether what a console's file holds already stays: 0 means no (the default), anything else yes. Means nothing to a console
 * without a file. Never blocks.
 */
int32_t vmcell_console_set_append(vmcell_console *console,
                                  int32_t append,
                                  vmcell_error **error);

/**
 * Limits a console's file to `max_bytes`, 4096 or more. If it would grow above that, it is renamed to its name with ".1" at the end,
 * an older ".1" to ".2" and so on, up to `keep` of them, 0 to 100; the oldest is replaced, and with 0 the file is emptied instead. It
 * is divided at the end of a line if there is one in what the guest has just printed, otherwise where it is full. If renaming fails, the
 * file is emptied all the same. The file must not be that of another VM: what writes to it goes on in the renamed one.
 * Means nothing to a console without a file; the default is no limit. Never blocks.
 *
 * Errors: when the VM is made, INVALID_CONFIG for a number that is not allowed, or if another console of the VM has the same file or
 * one of the older ones; CONSOLE if it is no regular file.
 */
int32_t vmcell_console_set_rotation(vmcell_console *console,
                                    uint64_t max_bytes,
                                    uint32_t keep,
                                    vmcell_error **error);

/**
 * Adds to a console what another one is connected to, so that each of their sinks gets all output, and all of their sources type.
 * `other` is taken, even if this call fails. Never blocks.
 */
int32_t vmcell_console_also(vmcell_console *console,
                            vmcell_console *other,
                            vmcell_error **error);

/**
 * Output goes to a reader, input comes from a writer, both of which are the caller's: each is one end of a pipe, blocking and
 * close-on-exec. The caller may set O_NONBLOCK on them and wait for them by poll or epoll, and closes them whenever it likes.
 *
 * `reader` has its end when the guest has ended and all that it printed was read, or when the VM is freed; a VM that was never
 * started only ends by that. Writing to `writer` waits while the guest does not read and the pipe is full; after the guest has ended
 * it fails with EPIPE, and the thread gets SIGPIPE, which a program that uses this ignores or blocks. Never blocks.
 */
int32_t vmcell_console_new_pair(int32_t *reader,
                                int32_t *writer,
                                vmcell_console **console,
                                vmcell_error **error);

/**
 * Output goes to one descriptor, input comes from another, or from none (-1). Anything will do: files, pipes, FIFOs, sockets,
 * terminals, either side of a pseudo-terminal, devices; blocking or not, shared with other processes or not. Their flags are never
 * changed. Both descriptors are taken: they are closed with the console or with the VM that got it, even if this call fails. Never
 * blocks.
 *
 * Errors: BAD_DESCRIPTOR; BAD_VALUE if both are the same descriptor (use dup). When the VM is made, CONSOLE if `output` is not open
 * for writing, or `input` not for reading.
 */
int32_t vmcell_console_new_fds(int32_t output,
                               int32_t input,
                               vmcell_console **console,
                               vmcell_error **error);

/**
 * Output goes to a function; there is no input. `user` is passed to `output` and, at the end, to `release`; their
 * types say on which thread. `user` is taken: unless `release` is NULL, it is called for `user` even if this call
 * fails.
 *
 * Errors: NULL_ARGUMENT if `output` is NULL.
 */
int32_t vmcell_console_new_callback(vmcell_console_output output,
                                    void *user,
                                    vmcell_release release,
                                    vmcell_console **console,
                                    vmcell_error **error);

/**
 * Frees a console that no VM got: closes its descriptors, releases its `user`. NULL is fine.
 *
 * Errors: BAD_HANDLE, also if it was handed over to a configuration.
 */
int32_t vmcell_console_free(vmcell_console *console);

/**
 * Checks a configuration and opens what it names: KVM, the kernel and the initrd, disks, TAP devices with all their queues, and the
 * console's files. No thread is started. vmcell_vm_new opens nothing more then, and needs no privileges, so that a process may enter a
 * vmcell_jail in between. The configuration cannot be changed any more. If this fails, it can only be freed.
 *
 * Errors: those of vmcell_vm_new that are about the configuration and what it names.
 */
int32_t vmcell_config_open(vmcell_config *config,
                           vmcell_error **error);

/**
 * Makes a configuration with 1 vCPU, 128 MiB, no kernel, no device and no console. Never blocks.
 */
int32_t vmcell_config_new(vmcell_config **config, vmcell_error **error);

/**
 * Sets the number of vCPUs, 1 to 64; the default is 1. Never blocks.
 */
int32_t vmcell_config_set_vcpus(vmcell_config *config, uint32_t vcpus, vmcell_error **error);

/**
 * Sets the guest's RAM in MiB, 16 or more (the default is 128), where the host takes it from (one of VMCELL_MEMORY_*),
 * and the pages that back it (one of VMCELL_PAGES_*). Never blocks.
 *
 * Errors: BAD_VALUE.
 */
int32_t vmcell_config_set_memory(vmcell_config *config,
                                 uint64_t mib,
                                 int32_t backing,
                                 int32_t pages,
                                 vmcell_error **error);

/**
 * Sets whether all RAM is taken from the host when the VM is made, rather than page by page when the guest first uses
 * one: 0 for no, the default, anything else for yes. Then vmcell_vm_new also takes as long as the host needs to clear the pages, and
 * private anonymous memory needs Linux 5.14. Memory on memfd is taken so in any case if the host overcommits none (vm.overcommit_memory is 2, as far
 * as /proc tells): it could run out later, and the access would end the process. Never blocks.
 */
int32_t vmcell_config_set_prealloc(vmcell_config *config,
                                   int32_t prealloc,
                                   vmcell_error **error);

/**
 * Sets the guest's kernel, a bzImage or an ELF image. The path may hold any bytes and is copied; the file is opened
 * when the VM is made. There is no default. Never blocks.
 */
int32_t vmcell_config_set_kernel(vmcell_config *config, const char *path, vmcell_error **error);

/**
 * Sets the initial RAM disk. The path may hold any bytes and is copied; the file is opened when the VM is made. NULL
 * means none, the default. Never blocks.
 */
int32_t vmcell_config_set_initrd(vmcell_config *config, const char *path, vmcell_error **error);

/**
 * Sets the kernel's command line, UTF-8, copied: at most 2047 bytes including what discovery appends. If it appends something, double
 * quotes must come in pairs, up to a lone `--`. The default is empty. Never blocks.
 */
int32_t vmcell_config_set_cmdline(vmcell_config *config,
                                  const char *cmdline,
                                  vmcell_error **error);

/**
 * Sets how the kernel is entered, one of VMCELL_PROTOCOL_*. Never blocks.
 *
 * Errors: BAD_VALUE.
 */
int32_t vmcell_config_set_protocol(vmcell_config *config, int32_t protocol, vmcell_error **error);

/**
 * Sets how the guest finds its devices, one of VMCELL_DISCOVERY_*. Never blocks.
 *
 * Errors: BAD_VALUE.
 */
int32_t vmcell_config_set_discovery(vmcell_config *config, int32_t discovery, vmcell_error **error);

/**
 * Adds a disk: Linux calls the first /dev/vda, the second /dev/vdb, and so on. It comes behind those of a JSON text. `disk` is taken, even if this call
 * fails. Never blocks.
 */
int32_t vmcell_config_add_disk(vmcell_config *config,
                               vmcell_disk *disk,
                               vmcell_error **error);

/**
 * Adds a network interface after the earlier ones, and after those of a JSON text. `nic` is taken, even if this call fails. Never blocks.
 */
int32_t vmcell_config_add_nic(vmcell_config *config,
                              vmcell_nic *nic,
                              vmcell_error **error);

/**
 * Connects the serial port (ttyS0 in Linux) to `console`, in place of an earlier one; the default is no console.
 * `console` is taken, even if this call fails. Never blocks.
 */
int32_t vmcell_config_set_console(vmcell_config *config, vmcell_console *console, vmcell_error **error);

/**
 * Adds what `console` is connected to, so that each sink gets all output and each source types: to what a console that was set or
 * added before is connected to, or else to what the description says, which stays. `console` is taken, even if this call fails. Never
 * blocks.
 */
int32_t vmcell_config_add_console(vmcell_config *config,
                                  vmcell_console *console,
                                  vmcell_error **error);

/**
 * Serves the VM's devices and console on this I/O thread rather than on one of its own, except devices that have their
 * own. `io_thread` is borrowed, as by vmcell_disk_set_io_thread. Never blocks.
 */
int32_t vmcell_config_set_io_thread(vmcell_config *config, const vmcell_io_thread *io_thread, vmcell_error **error);

/**
 * Sets the signal by which vCPU threads are made to leave the guest: a standard one, 1 to 31, but for 4 to 9, 11, 18 to 22 and
 * 31, which tell of a fault, stop or continue the process, or cannot be blocked. The default is
 * VMCELL_KICK_SIGNAL_DEFAULT. It is only sent to the VM's own threads, which block it outside the guest, so that it is
 * never delivered: whether the program handles or ignores it makes no difference. Choose one that is not sent to the
 * process as a whole while VMs run, because a vCPU thread may take it in place of the thread that it was meant for. Never
 * blocks.
 */
int32_t vmcell_config_set_kick_signal(vmcell_config *config,
                                      int32_t signal,
                                      vmcell_error **error);

/**
 * Frees a configuration that no VM was made from, with everything that was added to it. NULL is fine.
 *
 * Errors: BAD_HANDLE, also if it was handed over to vmcell_vm_new.
 */
int32_t vmcell_config_free(vmcell_config *config);

/**
 * Limits how many bytes of the guest's output the console's sinks get: burst bytes at once and per_second bytes a second from then on, each 1
 * to 2^40, or no limit if both are 0, which is the default. What they may not have yet is kept, up to 64 KiB; if that is full, the guest
 * is asked to wait, for a quarter of a second, and what it writes from then on is missed. Never blocks.
 *
 * Errors: BAD_VALUE if one of the two is 0.
 */
int32_t vmcell_config_set_console_rate(vmcell_config *config,
                                       uint64_t per_second,
                                       uint64_t burst,
                                       vmcell_error **error);

/**
 * Sets the guest's RAM in MiB, 16 or more, and leaves the rest of what vmcell_config_set_memory sets, or a description, as it is.
 * Never blocks.
 */
int32_t vmcell_config_set_memory_mib(vmcell_config *config,
                                     uint64_t mib,
                                     vmcell_error **error);

/**
 * Sets where the host takes the guest's RAM from, one of VMCELL_MEMORY_*, and leaves the rest as it is. Never blocks.
 *
 * Errors: BAD_VALUE.
 */
int32_t vmcell_config_set_memory_backing(vmcell_config *config, int32_t backing, vmcell_error **error);

/**
 * Sets the pages that back the guest's RAM, one of VMCELL_PAGES_*, and leaves the rest as it is. Never blocks.
 *
 * Errors: BAD_VALUE.
 */
int32_t vmcell_config_set_memory_pages(vmcell_config *config, int32_t pages, vmcell_error **error);

/**
 * Sets the NUMA node that the host takes the guest's RAM from, as long as that node has free memory, 0 to 1023, or
 * VMCELL_NUMA_NODE_ANY. vmcell_vm_new refuses one that this process may not have memory of. Never blocks.
 *
 * Errors: BAD_VALUE for another number below 0.
 */
int32_t vmcell_config_set_numa_node(vmcell_config *config, int32_t node, vmcell_error **error);

/**
 * Sets whether RAM that the guest has used is locked in memory, and so never written to swap space: 0 for no, the default, anything else
 * for yes. All of the RAM counts against RLIMIT_MEMLOCK (ulimit -l) from the beginning, unless the caller of vmcell_vm_new has
 * CAP_IPC_LOCK; if that is too low, vmcell_vm_new says how much is needed. Never blocks.
 */
int32_t vmcell_config_set_memory_locked(vmcell_config *config,
                                        int32_t locked,
                                        vmcell_error **error);

/**
 * Gives the guest a source of random bytes of the host's kernel (virtio 1.2, section 5.4), which Linux shows as /dev/hwrng and mixes
 * into its own. The guest gets burst bytes at once and per_second bytes a second from then on, each 1 to 2^40, or as many as the I/O thread
 * makes if both are 0. The VM's I/O thread serves it. Without this call there is none. Never blocks.
 *
 * Errors: BAD_VALUE if one of the two is 0.
 */
int32_t vmcell_config_set_rng(vmcell_config *config,
                              uint64_t per_second,
                              uint64_t burst,
                              vmcell_error **error);

/**
 * Gives the guest a vsock (virtio 1.2, section 5.10): stream sockets between host and guest, without a network. cid is the guest's
 * context ID, 3 to 4294967294, which is checked when the VM is made. The host program uses vmcell_vm_vsock_connect and
 * vmcell_vsock_listener_new.
 *
 * If path is not NULL, other programs of the host can use the vsock, too. A Unix socket is made at that path, of up to 107 bytes, with
 * access for this user alone, when the VM is made, and removed when it has ended. A program that connects to it and writes "CONNECT 52" and a line feed is
 * connected to port 52 of the guest; the first line that comes back is "OK" and the port of the host's end. If a program in the
 * guest connects to port 52 of CID 2, it is connected to the Unix socket at the path with "_52" behind it.
 *
 * max_connections is how many connections there may be at once, 1 to 4096, or 0 for 1024. The VM's I/O thread serves them. Without this
 * call there is no vsock. Never blocks.
 */
int32_t vmcell_config_set_vsock(vmcell_config *config,
                                uint64_t cid,
                                const char *path,
                                uint32_t max_connections,
                                vmcell_error **error);

/**
 * Sets what the vCPUs can do: `level` is one of VMCELL_CPU_*, and `features` are names of what is wanted beyond it, separated by
 * commas, or "". They are called as in Linux's /proc/cpuinfo: adx, aes, erms, fsgsbase, fsrm, gfni, invpcid, pcid, pclmulqdq,
 * pdpe1gb, rdrand, rdseed, rdtscp, sha_ni, vaes, vpclmulqdq. The last two need a level above V2.
 *
 * With a level the guest finds the same instructions on every host of that level. Vendor, model and caches stay the host's, and
 * so do the means against flaws of the CPU. What is hidden is not forbidden: most of it works if a guest tries. vmcell_vm_new
 * refuses what the host lacks, by name, and other names of features. Never blocks.
 *
 * Errors: BAD_VALUE.
 */
int32_t vmcell_config_set_cpu(vmcell_config *config,
                              int32_t level,
                              const char *features,
                              vmcell_error **error);

/**
 * Makes a configuration from JSON: `length` bytes of UTF-8, without a NUL, copied. docs/description.md lists the settings; a missing
 * one has its default, so that "{}" is what vmcell_config_new makes. Setters replace what the text says, and disks and interfaces can be
 * added behind its own, which are opened when the VM is made. The values are not checked before that. Never blocks.
 *
 * Errors: NOT_UTF8; INVALID_CONFIG for what is no JSON, an unknown setting, and a value of a wrong type. The message says where.
 */
int32_t vmcell_config_new_from_json(const char *json,
                                    size_t length,
                                    vmcell_config **config,
                                    vmcell_error **error);

/**
 * Writes a configuration as JSON, UTF-8 with a NUL behind it, to `buffer`, which has room for `capacity` bytes. `length` gets the length
 * of the text without the NUL. If that is not below `capacity`, nothing is written to `buffer`: call again with more room. `buffer` may be
 * NULL if `capacity` is 0. The text holds the settings that are not at their default. It does not hold what is no data: objects that
 * were added, an I/O thread, and a function for threads. Never blocks.
 *
 * Errors: INVALID_CONFIG for a path that is not UTF-8.
 */
int32_t vmcell_config_to_json(const vmcell_config *config,
                              char *buffer,
                              size_t capacity,
                              size_t *length,
                              vmcell_error **error);

/**
 * Names the VM: 0 to 64 printable ASCII characters, copied. The name stands in messages, and in the names of the VM's threads, as
 * NAME:vcpu0, NAME:io and NAME:disk, of which Linux keeps 15 bytes: a longer name is cut there. An empty name, the default, is none.
 * Names need not differ. Never blocks.
 */
int32_t vmcell_config_set_name(vmcell_config *config,
                               const char *name,
                               vmcell_error **error);

/**
 * Sets on which of the host's CPUs, `count` numbers from 0 on as in /proc/cpuinfo, the thread of a vCPU may run. They are copied.
 * By default it may run where the thread may that starts the VM. vmcell_vm_new refuses CPUs that the host does not allow, none at
 * all, and a vCPU that the VM does not have. Never blocks.
 */
int32_t vmcell_config_set_vcpu_affinity(vmcell_config *config,
                                        uint32_t vcpu,
                                        const uint32_t *cpus,
                                        size_t count,
                                        vmcell_error **error);

/**
 * Sets on which of the host's CPUs the I/O threads may run that the VM makes for itself, with disks' helper threads and the workers
 * of io_uring. None, the default, means where the thread may that makes the VM. Otherwise as vmcell_config_set_vcpu_affinity.
 */
int32_t vmcell_config_set_io_affinity(vmcell_config *config,
                                      const uint32_t *cpus,
                                      size_t count,
                                      vmcell_error **error);

/**
 * Sets whether the VM's threads run on the hyperthreads of a core only beside each other, so that no other tenant is there to watch what
 * the guest does: 0 for no, the default, anything else for yes. That is true of the threads of vCPUs, of I/O threads that the VM makes
 * for itself, and of what these start; a vmcell_io_thread stays as it is. It takes Linux 5.14 with CONFIG_SCHED_CORE. If no two
 * hyperthreads share a core, there is nothing to do, which the log says; otherwise vmcell_vm_new fails without it (HOST).
 * vmcell_host_check tells beforehand, as "core-scheduling". What is started on a thread of such a VM, in a callback, counts as that VM's: a
 * thread, a process, a vmcell_io_thread, and another VM, unless that one has core scheduling itself. Never blocks.
 */
int32_t vmcell_config_set_core_scheduling(vmcell_config *config,
                                          int32_t core_scheduling,
                                          vmcell_error **error);

/**
 * Sets for how many microseconds at most the I/O threads that the VM makes for itself look for more to do before they sleep, 0 to
 * 1000: 0 turns that off, the default is 50. vmcell_io_thread_set_polling says what that means, and sets it for a thread of the
 * caller's. vmcell_vm_new refuses more. Never blocks.
 */
int32_t vmcell_config_set_polling(vmcell_config *config,
                                  uint32_t max_us,
                                  vmcell_error **error);

/**
 * Sets what becomes of a system call that a thread of the VM has no reason to make (one of VMCELL_SECCOMP_*). vCPUs' threads are filtered
 * before the guest runs, and the I/O threads that the VM makes for itself, with the helper threads that they start; a vmcell_io_thread is
 * not. Functions of yours on these threads, such as a backend's or a console's, can make no other calls than those that
 * docs/confinement.md lists. Never blocks.
 */
int32_t vmcell_config_set_seccomp(vmcell_config *config,
                                  int32_t seccomp,
                                  vmcell_error **error);

/**
 * Has a function called on each new thread of the VM: for I/O threads during vmcell_vm_new, for vCPUs during vmcell_vm_start. It is not
 * called for a vmcell_io_thread, nor for disks' helper threads and io_uring's workers, which begin in the cgroup of the I/O thread that
 * starts them. `user` is taken: unless `release` is NULL, it is called for `user` at the end, even if this call fails. Never blocks.
 *
 * Errors: NULL_ARGUMENT if `start` is NULL.
 */
int32_t vmcell_config_set_thread_start(vmcell_config *config,
                                       vmcell_thread_start start,
                                       void *user,
                                       vmcell_release release,
                                       vmcell_error **error);

/**
 * Gives the VM's threads a cgroup of their own (version 2), which is made in folder when the configuration is opened or the VM is made, and
 * removed when the VM is gone. folder is that of the cgroup in which the process is (vmcell_cgroup_join), and the program owns it. name is 1 to 64
 * letters, digits, `-`, `_` and `.`, and does not begin with a `.`; NULL stands for the VM's name. The threads of vCPUs, the VM's own I/O threads and what
 * these start are in it; a vmcell_io_thread is not.
 *
 * The threads run quota_us microseconds of CPU time at most in each period_us (1000 to 1000000), 1000 or more, or without a limit if
 * quota_us is 0. burst_us of what was not used are kept at most, 0 to quota_us. weight, 1 to 10000, is how much they get beside those
 * of other cgroups in the folder, or 0 for the kernel's default, which is 100. Values are checked when the VM is made. Never blocks.
 */
int32_t vmcell_config_set_cgroup(vmcell_config *config,
                                 const char *folder,
                                 const char *name,
                                 uint32_t quota_us,
                                 uint32_t period_us,
                                 uint32_t burst_us,
                                 uint32_t weight,
                                 vmcell_error **error);

/**
 * Moves the process with all its threads to a cgroup of version 2, given by its folder, which exists, and limits the memory of all its
 * processes in bytes (memory.max, and memory.high, beyond which the kernel takes memory back), and how many processes and threads there are
 * (pids.max). UINT64_MAX leaves a limit as it is. A limit needs its controller (memory, pids), which the cgroup above names in
 * cgroup.subtree_control. It works in a process with several threads; vmcell_jail_set_cgroup does it for one that is jailed. Never blocks.
 *
 * Errors: INVALID_CONFIG if it is no cgroup of version 2, and then nothing has changed; HOST if the kernel refuses something: the
 * message says all that is missing, and the rest is in place.
 */
int32_t vmcell_cgroup_join(const char *folder,
                           uint64_t memory_max,
                           uint64_t memory_high,
                           uint64_t pids_max,
                           vmcell_error **error);

/**
 * Has a function told what happens to the VM: that it starts and how it ends, a device that fails, an engine that is not the first
 * choice, a sink or a source of the console that fails, output that is lost, and requests that break the rules. What a guest can cause
 * is said once a second at most, with how often it happened. By default nobody is told. `user` is taken: unless `release` is NULL, it
 * is called for `user` at the end, even if this call fails. Never blocks.
 *
 * Errors: NULL_ARGUMENT if `sink` is NULL.
 */
int32_t vmcell_config_set_log(vmcell_config *config,
                              vmcell_log_sink sink,
                              void *user,
                              vmcell_release release,
                              vmcell_error **error);

/**
 * Makes a jail with every layer that can be had without saying more about it: VMCELL_JAIL_USER_NAMESPACE to VMCELL_JAIL_LOOKING_IN. Nothing
 * happens before vmcell_jail_enter. docs/confinement.md says what each layer refuses. Never blocks.
 */
int32_t vmcell_jail_new(vmcell_jail **jail,
                        vmcell_error **error);

/**
 * Leaves a layer out (one of VMCELL_JAIL_*). Never blocks.
 */
int32_t vmcell_jail_leave_out(vmcell_jail *jail, int32_t layer, vmcell_error **error);

/**
 * Keeps a file or a folder, with everything beneath it, at its path, which must be absolute and free of `..`: to be read, or to be written
 * as well if `writable` is not 0, and then files and Unix sockets can be made and removed in a folder.
 * A path that is kept twice can be written if one of the two says so, and a path may lie in a folder that is kept. Never blocks.
 */
int32_t vmcell_jail_keep(vmcell_jail *jail,
                         const char *path,
                         int32_t writable,
                         vmcell_error **error);

/**
 * Keeps the folders in which files are made, renamed and removed while a guest of this configuration runs: those of a console's files of a
 * limited size, and of a vsock's Unix socket. Lets its cgroup (vmcell_config_set_cgroup) be removed. `config` is borrowed, and was opened by vmcell_config_open. Never blocks.
 *
 * Errors: INVALID_STATE if it was not opened.
 */
int32_t vmcell_jail_keep_folders(vmcell_jail *jail,
                                 const vmcell_config *config,
                                 vmcell_error **error);

/**
 * Limits a resource (one of VMCELL_LIMIT_*) for good. If the process may not have that much, the layer VMCELL_JAIL_LIMITS is missing.
 * Never blocks.
 */
int32_t vmcell_jail_limit(vmcell_jail *jail,
                          int32_t limit,
                          uint64_t most,
                          vmcell_error **error);

/**
 * Joins a cgroup of version 2, given by its folder, which exists, and sets its limits before: memory in bytes, how many processes and
 * threads, and for how many of each 100000 microseconds its threads may run together, 1000 or more. UINT64_MAX leaves a limit as it is.
 * A limit needs its controller (memory, pids, cpu), which the cgroup above names in cgroup.subtree_control. One that cannot be set is a
 * layer that is missing, and costs no other. Never blocks.
 */
int32_t vmcell_jail_set_cgroup(vmcell_jail *jail,
                               const char *path,
                               uint64_t memory_max,
                               uint64_t pids_max,
                               uint64_t cpu_max_us,
                               vmcell_error **error);

/**
 * Closes the descriptors that the process got from the one that started it: those above 2 that are not marked as close-on-exec, but for
 * the `count` in `keep`, which may be NULL if `count` is 0. Everything that the library has opened is marked. No other code of the program may
 * use a descriptor that is closed. Never blocks.
 */
int32_t vmcell_jail_close_inherited(vmcell_jail *jail,
                                    const int32_t *keep,
                                    size_t count,
                                    vmcell_error **error);

/**
 * Enters the jail, for good. `jail` is taken. The process must have no thread but the calling one, so this comes before vmcell_vm_new,
 * and after vmcell_config_open. `missing` gets a number in which bit N is set for each layer that was wanted and that the host does not
 * give, where N is its VMCELL_JAIL_*; 0 if none is missing. One line that says which and why is written to `buffer`, with a NUL behind
 * it, if it fits in `capacity` bytes; 4 KiB suffice. `length` gets its length without the NUL. `buffer` may be NULL if `capacity` is 0.
 * Takes less than a millisecond on most hosts.
 *
 * Errors: INVALID_STATE if the process has another thread; INVALID_CONFIG if what is to be kept is not there, or the cgroup is none:
 * nothing has changed then. HOST if the process is in a user namespace in which its user has no number: it had better end.
 */
int32_t vmcell_jail_enter(vmcell_jail *jail,
                          uint32_t *missing,
                          char *buffer,
                          size_t capacity,
                          size_t *length,
                          vmcell_error **error);

/**
 * Frees a jail that was not entered. NULL is fine.
 *
 * Errors: BAD_HANDLE, also if it was handed over to vmcell_jail_enter.
 */
int32_t vmcell_jail_free(vmcell_jail *jail);

/**
 * Filters what the calling thread asks of the kernel from now on (one of VMCELL_SECCOMP_*), and the threads that it starts: it may do
 * what it takes to start, pause, resume, watch, end and free VMs that were made before. docs/confinement.md lists the calls. It
 * cannot be undone.
 *
 * Errors: INVALID_STATE on a thread of a VM, which is filtered already.
 */
int32_t vmcell_thread_confine(int32_t seccomp,
                              vmcell_error **error);

/**
 * Filters what the thread asks of the kernel from now on (one of VMCELL_SECCOMP_*), as vmcell_config_set_seccomp does for the I/O threads
 * that a VM makes for itself. Devices can be added later. A VM whose console has a file of a limited size needs another thread. It
 * cannot be undone. Waits until it is done, at most for ten seconds.
 *
 * Errors: INVALID_STATE if it is filtered already, or if the caller runs on this very thread; TIMEOUT if the thread does not come to it
 * in that time.
 */
int32_t vmcell_io_thread_confine(vmcell_io_thread *io_thread,
                                 int32_t seccomp,
                                 vmcell_error **error);

/**
 * Makes a VM: everything is checked, the kernel is loaded, every device is there, nothing runs. Takes as long as it
 * takes to read the kernel and the initrd. `config` is taken, even if this call fails.
 *
 * Errors: each kind of refusal has its own number, VMCELL_ERROR_INVALID_CONFIG to VMCELL_ERROR_HOST; TIMEOUT if a backend's
 * `attach`, or another function that holds its I/O thread, does not return within ten seconds. That thread is left to itself.
 */
int32_t vmcell_vm_new(vmcell_config *config,
                      vmcell_vm **vm,
                      vmcell_error **error);

/**
 * Starts the vCPUs and returns at once.
 *
 * Errors: INVALID_STATE unless the VM is ready; HOST if the host provides no more threads, and then the VM has ended.
 */
int32_t vmcell_vm_start(vmcell_vm *vm, vmcell_error **error);

/**
 * Makes vCPUs and devices stand still. When it returns, no vCPU is in the guest, no request is in flight, and no device
 * touches the guest's memory. Blocks until then, at most for ten seconds. Pausing a paused VM does nothing. The guest's
 * clocks go on.
 *
 * Errors: INVALID_STATE if the VM was not started, has ended, or ends meanwhile, and in a function that an I/O thread calls;
 * TIMEOUT if a device still had requests in flight after ten seconds, and then the VM goes on.
 */
int32_t vmcell_vm_pause(vmcell_vm *vm,
                        vmcell_error **error);

/**
 * As vmcell_vm_pause, but blocks for at most `limit_ms` milliseconds.
 *
 * Errors: as vmcell_vm_pause; TIMEOUT if a device still had requests in flight, or a vCPU had not left the guest, at the limit, and
 * then the VM goes on.
 */
int32_t vmcell_vm_pause_within(vmcell_vm *vm,
                               uint32_t limit_ms,
                               vmcell_error **error);

/**
 * Lets vCPUs and devices go on where they were; does nothing to a running VM. Blocks while another thread is in
 * vmcell_vm_pause, until a suspension that is under way was broken off, and while the RAM of a suspended VM is read.
 *
 * Errors: INVALID_STATE if the VM was not started or has ended, and in a function that an I/O thread calls while another
 * thread is in vmcell_vm_pause.
 */
int32_t vmcell_vm_resume(vmcell_vm *vm,
                         vmcell_error **error);

/**
 * Ends the VM from outside, whatever its state. Once it returns, the guest executes nothing. Returns within 100 ms,
 * whatever the guest or the host does. The guest gets no chance to write its disks back. A VM that has ended stays as
 * it is. Threads in vmcell_vm_wait return. If threads of the VM have something left to do outside of the guest, such as the
 * last output to a slow reader, its status is VMCELL_STATUS_ENDING for a moment.
 *
 * Errors: TIMEOUT if the host, which is busy, did not run a vCPU's thread in time. The thread was told to leave, and enters
 * the guest no more; vmcell_vm_wait and vmcell_vm_free wait for it.
 */
int32_t vmcell_vm_stop(vmcell_vm *vm,
                       vmcell_error **error);

/**
 * Asks the guest to shut down, as the power button of a PC does, and returns at once. A guest in which nothing listens to the
 * button goes on: wait with a time limit, then call vmcell_vm_stop. Linux hears it once the driver `button` is loaded; systemd's
 * logind then turns the machine off. A paused guest is asked when it goes on.
 *
 * Errors: INVALID_STATE if the VM was not started or has ended, and if the guest has no ACPI tables
 * (VMCELL_DISCOVERY_CMDLINE), which is where it finds the button.
 */
int32_t vmcell_vm_request_shutdown(vmcell_vm *vm,
                                   vmcell_error **error);

/**
 * Tells the VM to end, as vmcell_vm_stop does, and does not wait for that: vmcell_vm_wait does, or the descriptor of
 * vmcell_vm_ended_fd tells when it has. Never blocks.
 */
int32_t vmcell_vm_request_stop(vmcell_vm *vm, vmcell_error **error);

/**
 * Tells what the VM is doing, one of VMCELL_STATUS_*. It is VMCELL_STATUS_ENDED exactly when vmcell_vm_wait returns at once.
 * Never blocks.
 */
int32_t vmcell_vm_status(const vmcell_vm *vm,
                         int32_t *status,
                         vmcell_error **error);

/**
 * Gives an eventfd that is readable once the VM has ended, for poll, epoll, or an event loop in place of
 * vmcell_vm_wait; so one thread waits for many VMs. It is borrowed, and valid until the VM is freed (dup it to keep it longer). Do not close it, and do
 * not read from it, or others miss the event. It stays readable. Never blocks.
 */
int32_t vmcell_vm_ended_fd(const vmcell_vm *vm,
                           int32_t *fd,
                           vmcell_error **error);

/**
 * Types `len` bytes into the guest's console, and writes to `taken` how many of them there was room for, 0 to `len`.
 * The caller sends the rest again once the guest has read: try again some milliseconds later. `bytes` may be NULL if
 * `len` is 0; they are copied. Never blocks.
 */
int32_t vmcell_vm_write_console(vmcell_vm *vm, const uint8_t *bytes, size_t len, size_t *taken, vmcell_error **error);

/**
 * Writes to `bytes` how many bytes of the guest's output were dropped so far, because the other end of the console did
 * not take them. Never blocks.
 */
int32_t vmcell_vm_console_dropped(const vmcell_vm *vm, uint64_t *bytes, vmcell_error **error);

/**
 * Stops the VM, as vmcell_vm_stop does, and frees it: when this returns, no thread, descriptor or memory of it
 * remains. May block for as long as a disk, or a function of a console or a backend, holds one of its threads, and until
 * its backends are destroyed. In a function that an I/O thread calls, it is the same as vmcell_vm_discard. NULL is fine.
 *
 * If other threads are in a call with this VM, it is stopped and their calls return (vmcell_vm_wait gives
 * VMCELL_EXIT_STOPPED); the last of them frees what remains, maybe after this call has returned.
 *
 * Errors: BAD_HANDLE.
 */
int32_t vmcell_vm_free(vmcell_vm *vm);

/**
 * Stops the VM, as vmcell_vm_request_stop does, and frees it on a thread that is made for this and ends then. Never blocks. NULL
 * is fine. If other threads are in a call with this VM, their calls return, and the last of them has it freed.
 *
 * Errors: BAD_HANDLE.
 */
int32_t vmcell_vm_discard(vmcell_vm *vm);

/**
 * Returns how many VMs of this process were discarded, or freed in a function that an I/O thread calls, and are not freed
 * entirely yet. Never blocks.
 */
uint64_t vmcell_vms_discarded(void);

/**
 * Gives an eventfd that is readable while vmcell_vms_discarded gives 0, for an event loop that ends when all VMs are freed. It is the same
 * one each time, borrowed, and stays open as long as the process lives. Do not close it, and do not read from it. Never blocks.
 *
 * Errors: HOST if the process may open no more descriptors, for the first call.
 */
int32_t vmcell_vms_discards_done_fd(int32_t *fd,
                                    vmcell_error **error);

/**
 * Takes a snapshot of a VM that runs or is paused. If it ran, it goes on afterwards. `at_standstill`, unless it is NULL, is called once
 * with `user` while the VM stands still and all else was taken. Blocks until requests in flight are done, at most for ten seconds, and
 * then for some milliseconds for each GiB if the RAM lies on a memfd (VMCELL_MEMORY_MEMFD), and otherwise for as long as copying takes
 * what is not zero.
 *
 * Errors: those of vmcell_vm_pause; INVALID_STATE if a device has failed or cannot be saved, and for a VM of which none may be taken or
 * that is suspended; HOST_MEMORY; HOST if `at_standstill` fails. The VM goes on.
 */
int32_t vmcell_vm_snapshot(vmcell_vm *vm,
                           vmcell_at_standstill at_standstill,
                           void *user,
                           vmcell_snapshot **snapshot,
                           vmcell_error **error);

/**
 * Gives the VM's RAM back to the host: pauses the VM, saves it in the file `path` as vmcell_snapshot_save does, and keeps the rest of it,
 * until vmcell_vm_resume takes the RAM from the file, as `memory` says (VMCELL_LOAD_*). With VMCELL_LOAD_COPY, that blocks for as long as
 * reading takes; if it fails, it may be tried again. Until then, nothing may be changed in the file. Blocks until the file is on storage.
 *
 * Errors: those of vmcell_vm_snapshot and vmcell_snapshot_save; INVALID_STATE if the VM is suspended, or if another thread called
 * vmcell_vm_resume meanwhile, which breaks this off. A VM that ran goes on then.
 */
int32_t vmcell_vm_suspend(vmcell_vm *vm,
                          const char *path,
                          int32_t memory,
                          vmcell_error **error);

/**
 * Does the same as vmcell_vm_suspend with VMCELL_LOAD_COPY, without leaving anything that can be read: the RAM is encrypted by AES-256-XTS with a key
 * that is made for this call and lies in locked memory of this process, in a file in the folder `folder` that has no name. Nothing of it is left when the
 * VM is resumed or freed, or the process ends. Blocks until the file is written, not until it is on storage.
 *
 * Errors: those of vmcell_vm_suspend; VOLUME if the host has no locked memory for the key. A VM that ran goes on then.
 */
int32_t vmcell_vm_suspend_encrypted(vmcell_vm *vm,
                                    const char *folder,
                                    vmcell_error **error);

/**
 * Puts a snapshot in the file `path`, which takes the place of one of that name once it is whole and on storage. It can be read by its
 * owner alone, and holds what the guest had in its memory, secrets too. If `older` is not NULL, what lies in the file of that snapshot is
 * left out: it is called `older_name`, and stays in the same folder. At most `bytes_per_second` bytes of RAM are written a second, 65536 or
 * more, or as many as can be if that is 0. Blocks until that is done.
 *
 * Errors: SNAPSHOT, and nothing of the file is left; INVALID_CONFIG for another rate, or if a path of the description is not UTF-8.
 */
int32_t vmcell_snapshot_save(const vmcell_snapshot *snapshot,
                             const char *path,
                             const vmcell_snapshot *older,
                             const char *older_name,
                             uint64_t bytes_per_second,
                             vmcell_error **error);

/**
 * Takes a snapshot from a file, and from those that it builds on; its RAM as `memory` says (VMCELL_LOAD_*). Blocks for as long as reading takes.
 *
 * Errors: SNAPSHOT for a file that cannot be read, is no snapshot, is damaged, was written by a newer version, or is of another
 * architecture; HOST_MEMORY; BAD_VALUE.
 */
int32_t vmcell_snapshot_load(const char *path,
                             int32_t memory,
                             vmcell_snapshot **snapshot,
                             vmcell_error **error);

/**
 * Puts in the file `path` which parts of its RAM the guest has used since the VM began, for vmcell_snapshot_read_ahead. It takes about a millisecond
 * for each GiB, and waits for the storage. It can be called in any state of the VM.
 *
 * Errors: HOST without /proc, in a jail for instance; SNAPSHOT if the file cannot be written.
 */
int32_t vmcell_vm_save_working_set(const vmcell_vm *vm,
                                   const char *path,
                                   vmcell_error **error);

/**
 * Asks the host to read those parts of the RAM into its cache that the file `path` names, made by vmcell_vm_save_working_set: VMs that begin with a
 * snapshot that was mapped (VMCELL_LOAD_MAP) are faster then. It does not wait until all is read.
 *
 * Errors: SNAPSHOT if that file cannot be read, is none of those, or names what is not within the RAM.
 */
int32_t vmcell_snapshot_read_ahead(const vmcell_snapshot *snapshot,
                                   const char *path,
                                   vmcell_error **error);

/**
 * For how many nanoseconds the VM stood still for a snapshot; 0 if it was paused already, or if the snapshot was loaded. Never blocks.
 */
int32_t vmcell_snapshot_standstill(const vmcell_snapshot *snapshot,
                                   uint64_t *nanoseconds,
                                   vmcell_error **error);

/**
 * Lets go of a snapshot. VMs that began with it go on. NULL is fine. Never blocks.
 *
 * Errors: BAD_HANDLE.
 */
int32_t vmcell_snapshot_free(vmcell_snapshot *snapshot);

/**
 * Makes the configuration of a VM that begins with a snapshot: the description of the VM that it was taken from, with its disks and
 * interfaces as `keep` says, a sum of VMCELL_FORK_DISKS and VMCELL_FORK_NICS. A fork needs as many disks, interfaces and other devices as
 * its source had, of the same kinds and in the same order, and disks with the content that they had: vmcell_vm_new says otherwise which
 * ones those are. vCPUs, memory, kernel, rng and balloon stay the source's, whatever is set. The console is as described, unless one is
 * set. Never blocks.
 *
 * Errors: BAD_VALUE for another `keep`.
 */
int32_t vmcell_config_new_fork(const vmcell_snapshot *snapshot,
                               uint32_t keep,
                               vmcell_config **config,
                               vmcell_error **error);

/**
 * Sets what the clocks of a VM show that begins with a snapshot: VMCELL_FORK_CLOCK_*. Never blocks.
 *
 * Errors: BAD_VALUE.
 */
int32_t vmcell_config_set_fork_clock(vmcell_config *config, int32_t clock, vmcell_error **error);

/**
 * Has vmcell_vm_snapshot and vmcell_vm_suspend refuse the VM if `never` is not 0: what is in its memory is never to be copied. The default
 * is 0. Never blocks.
 */
int32_t vmcell_config_set_never_snapshot(vmcell_config *config,
                                         int32_t never,
                                         vmcell_error **error);

/**
 * Gives the guest a secret, as a system credential of systemd and among the OEM strings of SMBIOS; docs/secrets.md says how it is read there. It is
 * copied, and may be freed or given to other VMs afterwards. vmcell_vm_new writes it to the guest's memory, zeroes the copy, and says what
 * cannot be given: SECRET for two of the same name, for more than 255, for more than there is room for, and for a fork, which
 * vmcell_vm_renew_secret gives one. Until vmcell_vm_scrub_secrets or the time limit, no snapshot is taken. Never blocks.
 *
 * Errors: SECRET if the process may not lock so much memory.
 */
int32_t vmcell_config_add_secret(vmcell_config *config,
                                 const vmcell_secret *secret,
                                 vmcell_error **error);

/**
 * Sets how many milliseconds after its start the VM writes over its secrets, unless vmcell_vm_scrub_secrets has done so before or the guest has ended;
 * UINT64_MAX is no limit. The default is 300,000. Never blocks.
 */
int32_t vmcell_config_set_scrub_secrets_after(vmcell_config *config,
                                              uint64_t milliseconds,
                                              vmcell_error **error);

/**
 * Writes over the secrets in the tables of the guest. What it has read of them stays its own. Does nothing if that is done already. Never blocks
 * for long.
 */
int32_t vmcell_vm_scrub_secrets(vmcell_vm *vm,
                                vmcell_error **error);

/**
 * Sets `in_clear` to 1 if secrets lie in the tables of the guest, and to 0 otherwise. Never blocks.
 */
int32_t vmcell_vm_has_secrets_in_clear(vmcell_vm *vm, int32_t *in_clear, vmcell_error **error);

/**
 * Puts a secret in the place of the one of that name with which the guest was booted, also in a fork, before its start or afterwards. Nothing tells the
 * guest. The time until it is written over begins anew. Blocks only while another thread pauses the VM or takes a snapshot.
 *
 * Errors: SECRET if the guest was booted without a secret of that name, or with a shorter one; INVALID_STATE if the VM was suspended, and in a
 * callback.
 */
int32_t vmcell_vm_renew_secret(vmcell_vm *vm,
                               const vmcell_secret *secret,
                               vmcell_error **error);

/**
 * Blocks until the VM has ended, for at most `timeout_ms` milliseconds: 0 only looks, VMCELL_WAIT_FOREVER (-1) has no
 * limit. Writes how the VM ended, one of VMCELL_EXIT_*, to `exit_kind`, which may be NULL. By then the guest's output
 * has reached its console, unless a reader took too long and missed it. Any number of threads may wait, any number of
 * times, also before the VM is started.
 *
 * Errors: TIMEOUT if it had not ended by then; INVALID_STATE in a function that an I/O thread calls, unless `timeout_ms` is
 * 0; BAD_VALUE below -1.
 */
int32_t vmcell_vm_wait(const vmcell_vm *vm,
                       int64_t timeout_ms,
                       int32_t *exit_kind,
                       vmcell_error **error);

/**
 * Tells how the guest asked for a restart, one of VMCELL_RESET_*. Never blocks.
 *
 * Errors: INVALID_STATE if the VM has not ended, or ended otherwise.
 */
int32_t vmcell_vm_reset_cause(const vmcell_vm *vm, int32_t *cause, vmcell_error **error);

/**
 * Gives the error that a failed VM ended with: a new object, which the caller frees with vmcell_error_free. (`error`
 * is for a failure of this very call.) Never blocks.
 *
 * Errors: INVALID_STATE if the VM has not ended, or ended otherwise.
 */
int32_t vmcell_vm_exit_error(const vmcell_vm *vm, vmcell_error **failure, vmcell_error **error);

/**
 * Writes how the VM ended in words, such as "the guest turned itself off", with a NUL at its end, to `buffer`, which has room for
 * `capacity` bytes, and its length without the NUL to `length`. If there is not room for all of it, only `length` is written. Never
 * blocks.
 *
 * Errors: INVALID_STATE if the VM has not ended.
 */
int32_t vmcell_vm_exit_text(const vmcell_vm *vm,
                            char *buffer,
                            size_t capacity,
                            size_t *length,
                            vmcell_error **error);

/**
 * Tells whether the guest crashed, or the host failed under it: writes 1 to `is_crash` for VMCELL_EXIT_FAILED,
 * VMCELL_EXIT_PANICKED and a reset by VMCELL_RESET_TRIPLE_FAULT, 0 otherwise.
 * Never blocks.
 *
 * Errors: INVALID_STATE if the VM has not ended.
 */
int32_t vmcell_vm_exit_is_crash(const vmcell_vm *vm, int32_t *is_crash, vmcell_error **error);

/**
 * Writes the VM's threads to `threads`, which has room for `capacity`, and how many there are to `count`, which may be more. First come
 * those of the vCPUs, once the VM was started, then the I/O threads that the VM made for itself. `threads` may be NULL if `capacity` is
 * 0. The thread of a vCPU that has ended is still listed, but the kernel may give its identifier to another thread. Never blocks for
 * long.
 */
int32_t vmcell_vm_threads(const vmcell_vm *vm,
                          vmcell_thread *threads,
                          size_t capacity,
                          size_t *count,
                          vmcell_error **error);

/**
 * Writes what the VM has done so far as a JSON object: UTF-8, with a NUL behind it, to `buffer`, which has room for `capacity` bytes.
 * `length` gets the length of the text without the NUL. If that is not below `capacity`, nothing is written to `buffer`: call again
 * with more room, some more than asked for, since numbers grow. 16 KiB suffice for a VM with some devices. `buffer` may be NULL if
 * `capacity` is 0.
 *
 * Members are called as in the documentation of the Rust crate (Metrics): "vm", "vcpus", "io_threads", "devices" (with "disk" or
 * "nic"), "console". Times are in nanoseconds. Counters begin at 0 and only go up. A later version may add members. Costs a short
 * system call for each thread of the VM; never blocks.
 */
int32_t vmcell_vm_metrics_json(const vmcell_vm *vm,
                               char *buffer,
                               size_t capacity,
                               size_t *length,
                               vmcell_error **error);

/**
 * Tells how many bytes the host keeps for the guest's RAM: in `own`, what is this VM's alone, and in `shared`, what it uses of a snapshot, which others
 * that began with it may use as well. Takes about a millisecond for each GiB.
 *
 * Errors: HOST without /proc.
 */
int32_t vmcell_vm_memory_use(const vmcell_vm *vm,
                             uint64_t *own,
                             uint64_t *shared,
                             vmcell_error **error);

/**
 * Writes what several VMs have done so far as one OpenMetrics text, which ends with "# EOF", for Prometheus for instance. `vms` are
 * `count` VMs. The label `vm` is a VM's name; of several with one name, all but the first have a label `same_name` with a number, too.
 * Otherwise as vmcell_vm_metrics_json.
 *
 * Errors: BAD_HANDLE if one of the VMs was freed.
 */
int32_t vmcell_vm_metrics_openmetrics(const vmcell_vm *const *vms,
                                      size_t count,
                                      char *buffer,
                                      size_t capacity,
                                      size_t *length,
                                      vmcell_error **error);

/**
 * Writes the devices of the VM that have failed since it was made as a JSON object, whose member "failures" is an array in the order in
 * which the guest finds the devices. Each has the members
 * - "device": "disk0", "nic0" or "device0" as in vmcell_vm_metrics_json, and "label", which for a disk or an interface says what it is
 *   on, such as "disk 0 (data.img)";
 * - "cause": "broken_queue" or "error" (a reset by the driver may help), "panicked", "broke_rule" or "gave_up" (it was
 *   dropped, and no reset helps: then "is_final" is true); "message": the same in words, on one line;
 * - "at_ns": when it failed last, in nanoseconds since 1970; "count": how often it has failed; "needs_reset": whether the driver is told
 *   now that the device needs a reset.
 *
 * The VM goes on without such a device. Otherwise as vmcell_vm_metrics_json.
 */
int32_t vmcell_vm_device_failures_json(const vmcell_vm *vm,
                                       char *buffer,
                                       size_t capacity,
                                       size_t *length,
                                       vmcell_error **error);

/**
 * Measures each turn of the VM's own I/O threads from now on, so that metrics have the longest one. Costs two system calls for each
 * turn. Never blocks.
 */
int32_t vmcell_vm_measure_turns(vmcell_vm *vm,
                                vmcell_error **error);

/**
 * Sets how many random bytes the guest gets: burst bytes at once and per_second bytes a second from then on, each 1 to 2^40, or as many as
 * the I/O thread makes if both are 0; at once and also for a request that waits. What has not been used of a limit stays, up to its new burst.
 * Never blocks.
 *
 * Errors: BAD_VALUE if one of the two is 0; INVALID_CONFIG if one is above 2^40, or if the VM has no rng. Then the limit stays as it is.
 */
int32_t vmcell_vm_set_rng_rate(vmcell_vm *vm,
                               uint64_t per_second,
                               uint64_t burst,
                               vmcell_error **error);

/**
 * Sets how many bytes of the guest's output the console's sinks get, as vmcell_config_set_console_rate does, at once and also for output
 * that waits; no limit if both are 0. What has not been used of a limit stays, up to its new burst. Never blocks.
 *
 * Errors: BAD_VALUE if one of the two is 0; INVALID_CONFIG if one is above 2^40. Then the limit stays as it is.
 */
int32_t vmcell_vm_set_console_rate(vmcell_vm *vm,
                                   uint64_t per_second,
                                   uint64_t burst,
                                   vmcell_error **error);

/**
 * Gives the guest a balloon (virtio 1.2, section 5.5), by which it gives memory back to the host. It is asked for `mib` MiB from the
 * beginning, at most its RAM. If `deflate_on_oom` is not 0, it may take memory back by itself rather than end a process when memory runs
 * out. If `reporting` is not 0, it reports pages that it has freed, which go back to the host at once and are taken again when it uses
 * them. It is asked for statistics every `statistics_s` seconds, at most 86400, or only by vmcell_vm_balloon_statistics if that is 0. The
 * VM's I/O thread serves it. Without this call there is none. Never blocks.
 *
 * vmcell_vm_new refuses it with INVALID_CONFIG if one of these is out of range, and if the memory cannot be given back: on
 * VMCELL_PAGES_HUGE_2_MIB, locked, or on a memfd of a host that overcommits no memory.
 */
int32_t vmcell_config_set_balloon(vmcell_config *config,
                                  uint64_t mib,
                                  int32_t deflate_on_oom,
                                  int32_t reporting,
                                  uint32_t statistics_s,
                                  vmcell_error **error);

/**
 * Asks the guest to have given back `bytes` bytes in all, in whole pages of 4096: a remainder is left out. It gives more, or takes some
 * back, as fast as it can; vmcell_vm_balloon_state tells how far it is. A guest without a driver does nothing. Never blocks.
 *
 * Errors: INVALID_CONFIG if that is more than the guest's RAM, or if the VM has no balloon.
 */
int32_t vmcell_vm_balloon_set_target(vmcell_vm *vm,
                                     uint64_t bytes,
                                     vmcell_error **error);

/**
 * Has the guest asked for statistics every `seconds` seconds, at most 86400, or never by itself if that is 0. Never blocks.
 *
 * Errors: INVALID_CONFIG if it is more, or if the VM has no balloon.
 */
int32_t vmcell_vm_balloon_set_statistics_interval(vmcell_vm *vm,
                                                  uint32_t seconds,
                                                  vmcell_error **error);

/**
 * Writes how many bytes the guest was asked to give back to `target`, how many its driver says that it has given back to `actual`, and
 * how many bytes of free pages it has reported, and the host got back, since the VM was made to `reported`. Never blocks.
 *
 * Errors: INVALID_CONFIG if the VM has no balloon.
 */
int32_t vmcell_vm_balloon_state(const vmcell_vm *vm,
                                uint64_t *target,
                                uint64_t *actual,
                                uint64_t *reported,
                                vmcell_error **error);

/**
 * Asks the guest what it says of its memory now, and waits for the answer for at most `limit_ms` milliseconds; with 0, it takes what
 * the guest said last. Writes the numbers to `values`, which has room for `capacity`, each at the index VMCELL_BALLOON_*, and how many
 * numbers there are to `count`, which may be more, and grows with later versions. What the guest does not say is UINT64_MAX. Nothing of it
 * is checked: a guest says what it likes.
 *
 * Errors: TIMEOUT if it has not answered, or with 0, if it has said nothing yet; INVALID_CONFIG if the VM has no balloon; INVALID_STATE
 * in a function that an I/O thread calls unless `limit_ms` is 0.
 */
int32_t vmcell_vm_balloon_statistics(const vmcell_vm *vm,
                                     uint32_t limit_ms,
                                     uint64_t *values,
                                     size_t capacity,
                                     size_t *count,
                                     vmcell_error **error);

/**
 * Writes what became of the guest's output to `sinks`, which has room for `capacity`, and how many sinks the console has to `count`,
 * which may be more. They come in the order in which the console was put together. `sinks` may be NULL if `capacity` is 0. Never
 * blocks.
 */
int32_t vmcell_vm_console_sinks(const vmcell_vm *vm,
                                vmcell_sink *sinks,
                                size_t capacity,
                                size_t *count,
                                vmcell_error **error);

/**
 * Writes to `last` why writing to the sink of this index, or renaming its file, failed last, or NULL if it never did. The caller frees
 * it with vmcell_error_free. The sink may have worked again since. Never blocks.
 *
 * Errors: BAD_VALUE if there is no such sink.
 */
int32_t vmcell_vm_console_sink_error(const vmcell_vm *vm,
                                     size_t index,
                                     vmcell_error **last,
                                     vmcell_error **error);

/**
 * Connects to a port of the guest, and writes to fd a Unix stream socket that blocks; it is the caller's to close. Waits until the guest has
 * accepted, at most for limit_ms milliseconds. If that is 0, it never blocks: what is written to the socket before the guest has accepted
 * waits there, and if the guest refuses, the socket is closed by its other end. While the guest has no driver for the vsock yet, the
 * connection waits for that.
 *
 * Errors: INVALID_CONFIG if the VM has no vsock; VSOCK if the guest refuses, or too many connections wait; TIMEOUT if there is no answer in
 * time; INVALID_STATE if the VM has ended, and, with a limit other than 0, in a function that the library calls.
 */
int32_t vmcell_vm_vsock_connect(const vmcell_vm *vm,
                                uint32_t port,
                                uint32_t limit_ms,
                                int32_t *fd,
                                vmcell_error **error);

/**
 * Listens on a port of the host: what the guest connects to it is accepted by vmcell_vsock_listener_accept, and not by the Unix socket of
 * another program. Up to 128 connections wait to be accepted, and others are refused. `vm` is borrowed. Never blocks.
 *
 * Errors: INVALID_CONFIG if the VM has no vsock; VSOCK if there is a listener for that port; INVALID_STATE if the VM has ended.
 */
int32_t vmcell_vsock_listener_new(const vmcell_vm *vm,
                                  uint32_t port,
                                  vmcell_vsock_listener **listener,
                                  vmcell_error **error);

/**
 * Waits for a connection of the guest, at most for timeout_ms milliseconds: 0 never blocks, VMCELL_WAIT_FOREVER (-1) has no limit.
 * Writes to fd a Unix stream socket that blocks, which is the caller's to close, and to guest_port the guest's port.
 *
 * Errors: TIMEOUT if none came in time; INVALID_STATE if the VM has ended and no connection is left, and, unless timeout_ms is 0, in a
 * function that the library calls; BAD_VALUE for another negative timeout_ms.
 */
int32_t vmcell_vsock_listener_accept(vmcell_vsock_listener *listener,
                                     int64_t timeout_ms,
                                     int32_t *fd,
                                     uint32_t *guest_port,
                                     vmcell_error **error);

/**
 * Gives a descriptor that is readable while there is a connection to accept, and once the VM has ended, for poll, epoll or an event
 * loop. It is borrowed, and valid until the listener is freed. Do not read it. Never blocks.
 */
int32_t vmcell_vsock_listener_fd(const vmcell_vsock_listener *listener,
                                 int32_t *fd,
                                 vmcell_error **error);

/**
 * Frees a listener, and closes connections that were not accepted. If another thread waits in vmcell_vsock_listener_accept, the port
 * stays taken until that returns. NULL is fine. Never blocks.
 *
 * Errors: BAD_HANDLE.
 */
int32_t vmcell_vsock_listener_free(vmcell_vsock_listener *listener);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* VMCELL_H */
