/*
 * vmcell: micro-VMs for Linux/KVM as a library. A program makes a VM, keeps a handle to it, and stays in control: nothing
 * here exits the process, prints, installs a signal handler, or keeps anything outside the objects that it gives out, so
 * one process may hold a thousand VMs. The guest is taken to be hostile from its first instruction.
 *
 * This header is the manual. It is generated from src/ffi/ and cbindgen.toml; examples are in examples/c and examples/go.
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
 *   - It returns VMCELL_OK (0) or one of VMCELL_ERROR_*. Where it fails and `error`, always last, is not NULL, an error
 *     object is written there, which the caller frees. A function's "Errors" say what it can fail with besides
 *     NULL_ARGUMENT, BAD_HANDLE, NOT_UTF8, HOST and PANIC, which are possible everywhere (VMCELL_ERROR_ is left out there).
 *   - Results are written through pointers, and only on success; otherwise what was there stays. The same is true of
 *     `error`: a call that works does not touch it, and one that fails does not free what was there. Set it to NULL.
 *   - Arguments that stand for a choice are plain integers; what this version does not know is refused (BAD_VALUE).
 *   - New functions, numbers and constants may come with any version. Numbers are never used for something else.
 *
 * POINTERS
 *   - Every pointer may be NULL: where that has no meaning of its own it is refused (NULL_ARGUMENT).
 *   - Texts end with a NUL and are UTF-8, but for paths, which are of any bytes. The library keeps copies.
 *   - A text that the library returns is borrowed from the object that it came from, and valid until that is freed.
 *   - What can't be known: a pointer that is neither NULL nor valid, where bytes, a text or a place for a result are wanted,
 *     is undefined behaviour as everywhere in C.
 *
 * OBJECTS
 *   - An object is made by a vmcell_<object>_new and belongs to the caller, who frees it by vmcell_<object>_free (NULL is
 *     fine), or hands it over: an argument that is "taken" is gone afterwards WHATEVER the call returns.
 *   - A "borrowed" argument is used during the call and stays the caller's.
 *   - An object's pointer is a number that the library looks up; it points to nothing, is never used again in this process,
 *     and means nothing to another process. So a pointer to an object that was freed or taken, to one of another type (by a
 *     cast), or to anything else is refused (BAD_HANDLE) and does no harm. After a fork only the parent may use objects.
 *   - What can't be known: a text borrowed from an error that another thread frees meanwhile.
 *   - `const` in front of an object means that the call does not change it.
 *
 * FILE DESCRIPTORS
 *   - "Taken": the library closes it, also if the call fails, unless it was not open (BAD_DESCRIPTOR). Don't use it again.
 *   - "Borrowed": it stays with whom it belongs to; the documentation says until when it is valid.
 *
 * THREADS
 *   - Any function may be called from any thread, with any object, at any time, also with the same object at once. There is
 *     no state of a thread: goroutines and other things that move between threads may call freely.
 *   - A function blocks only where it says so. A VM may be stopped or freed while other threads wait for it.
 *   - The library's threads (one a vCPU, one or more for I/O) block every signal and run none of the caller's code but the
 *     functions given to vmcell_console_new_callback.
 *   - No handler is installed, no signal's disposition is changed, errno means nothing.
 *
 * PANICS
 *   - A bug that the library notices in itself comes back as VMCELL_ERROR_PANIC, after the Rust runtime has written a line
 *     about it to standard error. The objects of that call should be freed.
 *
 * SECURITY
 *   - What a guest does reaches what it was given: its memory, its disks, its interfaces, its console. A disk is raw because
 *     its owner said so; nothing looks into it for a format. What a guest prints is not clean: filter escape sequences before
 *     it gets to a terminal.
 */


#ifndef VMCELL_H
#define VMCELL_H

#include <stddef.h>
#include <stdint.h>

/** The version of this header; vmcell_version() is that of the library. */
#define VMCELL_VERSION "0.1.0"
#define VMCELL_VERSION_MAJOR 0
#define VMCELL_VERSION_MINOR 1
#define VMCELL_VERSION_PATCH 0


/**
 * It worked.
 */
#define VMCELL_OK 0

/**
 * A value in the configuration is out of range, or two of them contradict each other.
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
 * An argument is NULL that must not be.
 */
#define VMCELL_ERROR_NULL_ARGUMENT 100

/**
 * An object was freed or handed over before, is of another type, or is none of this library's.
 */
#define VMCELL_ERROR_BAD_HANDLE 101

/**
 * A text is not UTF-8.
 */
#define VMCELL_ERROR_NOT_UTF8 102

/**
 * A number stands for nothing that this version of the library knows.
 */
#define VMCELL_ERROR_BAD_VALUE 103

/**
 * A file descriptor is not open.
 */
#define VMCELL_ERROR_BAD_DESCRIPTOR 104

/**
 * The library has a bug, which it noticed: please report the message.
 */
#define VMCELL_ERROR_PANIC 105

/**
 * Ordinary system calls, one request after the other. The default.
 */
#define VMCELL_ENGINE_SYNC 0

/**
 * How many bytes a MAC address has.
 */
#define VMCELL_MAC_BYTES 6

/**
 * Private anonymous memory. The default.
 */
#define VMCELL_MEMORY_ANONYMOUS 0

/**
 * An unnamed file in memory (memfd), which another process could map too.
 */
#define VMCELL_MEMORY_MEMFD 1

/**
 * Pages as the host's policy for transparent huge pages gives them. The default.
 */
#define VMCELL_PAGES_DEFAULT 0

/**
 * Asks for transparent huge pages, and runs on small ones where there are none.
 */
#define VMCELL_PAGES_TRANSPARENT 1

/**
 * Pages of 2 MiB from the host's reserved pool; refused where the pool has too few.
 */
#define VMCELL_PAGES_HUGE_2_MIB 2

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
 * Made, and not started.
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
 * The guest turned itself off.
 */
#define VMCELL_EXIT_SHUTDOWN 1

/**
 * The guest asked for a restart (a reboot, a panic, a crash of its CPU); vmcell_vm_reset_cause tells by which way. A VM
 * starts once; make another one.
 */
#define VMCELL_EXIT_RESET 2

/**
 * vmcell_vm_stop or vmcell_vm_free ended it.
 */
#define VMCELL_EXIT_STOPPED 3

/**
 * The guest did something that cannot be served, or the host failed; vmcell_vm_exit_error tells what.
 */
#define VMCELL_EXIT_FAILED 4

/**
 * The reset register that the ACPI tables name.
 */
#define VMCELL_RESET_ACPI 1

/**
 * The reset line of the keyboard controller.
 */
#define VMCELL_RESET_KEYBOARD_CONTROLLER 2

/**
 * A triple fault: asked for, or by a guest that lost its way.
 */
#define VMCELL_RESET_TRIPLE_FAULT 3

/**
 * A request to KVM itself.
 */
#define VMCELL_RESET_SYSTEM_EVENT 4

/**
 * For vmcell_vm_wait: no time limit.
 */
#define VMCELL_WAIT_FOREVER (-1)

/**
 * What a VM is to be. Made by vmcell_config_new; taken by vmcell_vm_new; freed by vmcell_config_free.
 *
 * The setters store; what is out of range, missing or contradictory is refused by vmcell_vm_new.
 */
typedef struct vmcell_config vmcell_config;

/**
 * What a serial console is connected to. Whatever it is, vmcell_vm_write_console types into it. Made by one of
 * vmcell_console_new_*; taken by vmcell_config_set_console; freed by vmcell_console_free.
 */
typedef struct vmcell_console vmcell_console;

/**
 * A raw file or block device that a guest gets as a disk. Made by vmcell_disk_new or vmcell_disk_new_from_fd; taken by
 * vmcell_config_add_disk; freed by vmcell_disk_free.
 */
typedef struct vmcell_disk vmcell_disk;

/**
 * Why a call failed: a number, a message and the causes behind it. It never changes. Freed by vmcell_error_free.
 */
typedef struct vmcell_error vmcell_error;

/**
 * A thread that serves devices of one VM or of many. A device that waits, such as a disk whose file is slow, holds up the
 * others on its thread. Without one, each VM has its own. Made by vmcell_io_thread_new; freed by vmcell_io_thread_free.
 */
typedef struct vmcell_io_thread vmcell_io_thread;

/**
 * A network interface on a TAP device. Made by vmcell_nic_new or vmcell_nic_new_from_fd; taken by vmcell_config_add_nic;
 * freed by vmcell_nic_free.
 */
typedef struct vmcell_nic vmcell_nic;

/**
 * A virtual machine, run by threads of its own, one a vCPU and one for I/O. Made by vmcell_vm_new; freed by vmcell_vm_free.
 * Every call may be made by any thread, also while others are in a call with the same VM.
 */
typedef struct vmcell_vm vmcell_vm;

/**
 * Gets what the guest prints: `len` bytes, 1 to 4096, valid until it returns, and `user` as it was given. Called on the
 * I/O thread that serves the VM, never by two threads at once, never after the release function. It must not block (the
 * devices on that thread wait for as long), and must not unwind: no C++ exception, no longjmp. It may call anything of
 * this library for any VM, this one included, but vmcell_vm_pause and vmcell_vm_wait.
 */
typedef void (*vmcell_console_output)(const uint8_t *bytes, size_t len, void *user);

/**
 * Gets `user` when the library has no more use for it: once, after the last call with it, on any thread, often on the one
 * that frees the VM.
 */
typedef void (*vmcell_release)(void *user);

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The version of the library that runs, such as "1.2.3"; VMCELL_VERSION is that of this header. Before 1.0.0 a program
 * needs the same major and minor version, from then on the same major one and a minor one not below. Static, never freed.
 * Never blocks.
 */
const char *vmcell_version(void);

/**
 * Whether this build of the library has a feature: 1 yes, 0 no, also for names that it does not know and for NULL. Every
 * function is in every build; what is not there fails at run time. Names: "acpi", "console", "disk", "engine-sync", "nic",
 * "test-util" (only tests have it). Never blocks.
 */
int32_t vmcell_has_feature(const char *name);

/**
 * How many objects of this library the process holds that were neither freed nor handed over: for a test at its end.
 */
uint64_t vmcell_handle_count(void);

/**
 * The number of an error, one of VMCELL_ERROR_*; the same that the failed call returned. Gives VMCELL_OK for NULL and
 * VMCELL_ERROR_BAD_HANDLE for what is no error (any more). Never blocks.
 */
int32_t vmcell_error_number(const vmcell_error *error);

/**
 * What was refused, its value and what is allowed, without the causes: one line without an end of line. Borrowed, valid
 * until the error is freed. Never NULL: for NULL, and for what is no error (any more), it is a text that says so. Never
 * blocks.
 */
const char *vmcell_error_message(const vmcell_error *error);

/**
 * The message and all causes behind it, joined by ": ", for a log line. Lifetime and NULL as for vmcell_error_message.
 */
const char *vmcell_error_chain(const vmcell_error *error);

/**
 * How many causes there are behind the message; 0 for NULL and for what is no error (any more). Never blocks.
 */
size_t vmcell_error_cause_count(const vmcell_error *error);

/**
 * A cause: 0 is what led to the message, each further one led to the one before. Borrowed, valid until the error is freed.
 * NULL for an index out of range, for NULL, and for what is no error (any more). Never blocks.
 */
const char *vmcell_error_cause(const vmcell_error *error,
                               size_t index);

/**
 * Frees an error and all texts that were borrowed from it. NULL is fine. Never blocks.
 *
 * Errors: BAD_HANDLE.
 */
int32_t vmcell_error_free(vmcell_error *error);

/**
 * Starts a thread; of its name Linux keeps 15 bytes. It blocks every signal.
 *
 * Errors: HOST where the host gives no thread or no descriptor.
 */
int32_t vmcell_io_thread_new(const char *name, vmcell_io_thread **io_thread, vmcell_error **error);

/**
 * Lets go of a thread. It goes on for as long as a disk, an interface, a configuration or a VM uses it; then it ends. If
 * nothing does, this call waits for its end. NULL is fine.
 *
 * Errors: BAD_HANDLE.
 */
int32_t vmcell_io_thread_free(vmcell_io_thread *io_thread);

/**
 * Opens a raw file or block device by its path, of any bytes. It is opened for reading now, and for writing when the VM is
 * made, unless it is read-only then. Its size, in whole sectors of 512 bytes, is taken when the VM is made. Its content is
 * never looked at: no image format is ever guessed. Does not wait, whatever the path leads to.
 *
 * Errors: DISK where it is missing, may not be read, is empty, or is neither a regular file nor a block device.
 */
int32_t vmcell_disk_new(const char *path,
                        vmcell_disk **disk,
                        vmcell_error **error);

/**
 * The same for a file that the caller has open, for reading and writing unless the disk will be read-only. `fd` is taken:
 * it is closed with the disk or with the VM that got the disk, also if this call fails.
 *
 * Errors: BAD_DESCRIPTOR; DISK where it is empty, or is neither a regular file nor a block device.
 */
int32_t vmcell_disk_new_from_fd(int32_t fd,
                                vmcell_disk **disk,
                                vmcell_error **error);

/**
 * Whether the guest may only read: 0 no (the default), anything else yes. Never blocks.
 */
int32_t vmcell_disk_set_read_only(vmcell_disk *disk, int32_t read_only, vmcell_error **error);

/**
 * The serial number that the guest is told, at most 20 printable ASCII characters; the default is an empty one. Copied.
 * What is not allowed is refused when the VM is made. Never blocks.
 */
int32_t vmcell_disk_set_serial(vmcell_disk *disk, const char *serial, vmcell_error **error);

/**
 * How requests reach the file, one of VMCELL_ENGINE_*. Never blocks.
 *
 * Errors: BAD_VALUE.
 */
int32_t vmcell_disk_set_engine(vmcell_disk *disk, int32_t engine, vmcell_error **error);

/**
 * Serves the disk on this I/O thread rather than on the VM's own. `io_thread` is borrowed for the call: it may be freed any
 * time, and the thread goes on for as long as something uses it. Never blocks.
 */
int32_t vmcell_disk_set_io_thread(vmcell_disk *disk,
                                  const vmcell_io_thread *io_thread,
                                  vmcell_error **error);

/**
 * Frees a disk that no VM got, and closes its file. NULL is fine.
 *
 * Errors: BAD_HANDLE, also where it was handed over to a configuration.
 */
int32_t vmcell_disk_free(vmcell_disk *disk);

/**
 * Attaches to a TAP device that exists, by its name of 1 to 15 bytes. Nothing else can attach to it for as long as the
 * interface, or the VM that gets it, lives. Never waits.
 *
 * Errors: INVALID_CONFIG for a name that no device can have; NETWORK where the device is missing, in use, no TAP device, or
 * not ours to use.
 */
int32_t vmcell_nic_new(const char *name,
                       vmcell_nic **nic,
                       vmcell_error **error);

/**
 * The same for a descriptor of /dev/net/tun that the caller has attached to a TAP device, with IFF_TAP, IFF_NO_PI and
 * IFF_VNET_HDR. It is made non-blocking. `fd` is taken: it is closed with the interface or with the VM that got it, also if
 * this call fails.
 *
 * Errors: BAD_DESCRIPTOR; NETWORK where it is something else.
 */
int32_t vmcell_nic_new_from_fd(int32_t fd,
                               vmcell_nic **nic,
                               vmcell_error **error);

/**
 * The address that the guest is told: VMCELL_MAC_BYTES bytes, copied. The default is a random one, marked as locally
 * administered. One that is not unicast is refused when the VM is made. Never blocks.
 */
int32_t vmcell_nic_set_mac(vmcell_nic *nic, const uint8_t *mac, vmcell_error **error);

/**
 * The largest packet without its Ethernet header that the guest is told to send, 68 to 65535 bytes. The TAP device must be
 * able to take it. The default is to say nothing, and then guests use 1500. Too small ones are refused when the VM is made.
 * Never blocks.
 */
int32_t vmcell_nic_set_mtu(vmcell_nic *nic,
                           uint16_t mtu,
                           vmcell_error **error);

/**
 * Serves the interface on this I/O thread rather than on the VM's own; as vmcell_disk_set_io_thread. Never blocks.
 */
int32_t vmcell_nic_set_io_thread(vmcell_nic *nic, const vmcell_io_thread *io_thread, vmcell_error **error);

/**
 * Frees an interface that no VM got, and lets go of its TAP device. NULL is fine.
 *
 * Errors: BAD_HANDLE, also where it was handed over to a configuration.
 */
int32_t vmcell_nic_free(vmcell_nic *nic);

/**
 * No console: output is discarded. That is the default of a configuration. Never blocks.
 */
int32_t vmcell_console_new_none(vmcell_console **console, vmcell_error **error);

/**
 * Output to the process's standard output, input from its standard input. Neither's flags are changed, and a terminal's mode
 * is left as it is: a program that wants each key to reach the guest makes it raw itself. Never blocks.
 */
int32_t vmcell_console_new_stdio(vmcell_console **console,
                                 vmcell_error **error);

/**
 * Output to a file, which is made or emptied; no input. The path may be of any bytes. Does not wait, whatever it leads to.
 *
 * Errors: CONSOLE where the file cannot be opened for writing; a FIFO that nobody reads is refused too.
 */
int32_t vmcell_console_new_file(const char *path,
                                vmcell_console **console,
                                vmcell_error **error);

/**
 * Output to one descriptor, input from another or none (-1): files, pipes, sockets, terminals. A pipe or socket that nobody
 * reads holds output back for a moment (64 KiB are buffered), then it is dropped; the guest never waits. Both are taken: they
 * are closed with the console or with the VM that got it, also if this call fails. Never blocks.
 *
 * Errors: BAD_DESCRIPTOR; BAD_VALUE where one descriptor is given for both (use dup).
 */
int32_t vmcell_console_new_fds(int32_t output,
                               int32_t input,
                               vmcell_console **console,
                               vmcell_error **error);

/**
 * Output to a function; no input. `user` is handed to `output` and, at the end, to `release`, either of which tells on which
 * thread. `user` is taken: `release`, unless it is NULL, is called for it also if this call fails.
 *
 * Errors: NULL_ARGUMENT where `output` is NULL.
 */
int32_t vmcell_console_new_callback(vmcell_console_output output,
                                    void *user,
                                    vmcell_release release,
                                    vmcell_console **console,
                                    vmcell_error **error);

/**
 * Frees a console that no VM got: closes its descriptors, releases its `user`. NULL is fine.
 *
 * Errors: BAD_HANDLE, also where it was handed over to a configuration.
 */
int32_t vmcell_console_free(vmcell_console *console);

/**
 * Makes a configuration of 1 vCPU, 128 MiB, no kernel, no device and no console. Never blocks.
 */
int32_t vmcell_config_new(vmcell_config **config, vmcell_error **error);

/**
 * How many vCPUs, 1 to 64; the default is 1. Never blocks.
 */
int32_t vmcell_config_set_vcpus(vmcell_config *config, uint32_t vcpus, vmcell_error **error);

/**
 * How much RAM in MiB, 16 or more (the default is 128), what the host takes it from, one of VMCELL_MEMORY_*, and the pages
 * that back it, one of VMCELL_PAGES_*. Never blocks.
 *
 * Errors: BAD_VALUE.
 */
int32_t vmcell_config_set_memory(vmcell_config *config,
                                 uint64_t mib,
                                 int32_t backing,
                                 int32_t pages,
                                 vmcell_error **error);

/**
 * The guest's kernel, a bzImage or an ELF image: a path of any bytes, copied, which is opened when the VM is made. There is
 * no default. Never blocks.
 */
int32_t vmcell_config_set_kernel(vmcell_config *config,
                                 const char *path,
                                 vmcell_error **error);

/**
 * The initial RAM disk: a path of any bytes, copied, which is opened when the VM is made; NULL for none, the default. Never
 * blocks.
 */
int32_t vmcell_config_set_initrd(vmcell_config *config,
                                 const char *path,
                                 vmcell_error **error);

/**
 * The kernel's command line, UTF-8, copied: at most 2047 bytes with what discovery appends to it. The default is an empty
 * one. Never blocks.
 */
int32_t vmcell_config_set_cmdline(vmcell_config *config,
                                  const char *cmdline,
                                  vmcell_error **error);

/**
 * How the kernel is entered, one of VMCELL_PROTOCOL_*. Never blocks.
 *
 * Errors: BAD_VALUE.
 */
int32_t vmcell_config_set_protocol(vmcell_config *config, int32_t protocol, vmcell_error **error);

/**
 * How the guest finds its devices, one of VMCELL_DISCOVERY_*. Never blocks.
 *
 * Errors: BAD_VALUE.
 */
int32_t vmcell_config_set_discovery(vmcell_config *config, int32_t discovery, vmcell_error **error);

/**
 * Adds a disk: the first is /dev/vda in Linux, the second /dev/vdb, and so on. `disk` is taken, also if this call fails.
 * Never blocks.
 */
int32_t vmcell_config_add_disk(vmcell_config *config,
                               vmcell_disk *disk,
                               vmcell_error **error);

/**
 * Adds a network interface after those added before. `nic` is taken, also if this call fails. Never blocks.
 */
int32_t vmcell_config_add_nic(vmcell_config *config, vmcell_nic *nic, vmcell_error **error);

/**
 * What the serial port (ttyS0 in Linux) is connected to, in place of what was set before; the default is nothing. `console`
 * is taken, also if this call fails. Never blocks.
 */
int32_t vmcell_config_set_console(vmcell_config *config,
                                  vmcell_console *console,
                                  vmcell_error **error);

/**
 * Serves the VM's devices and console on this I/O thread rather than on one of its own, but for those that have their own.
 * `io_thread` is borrowed, as by vmcell_disk_set_io_thread. Never blocks.
 */
int32_t vmcell_config_set_io_thread(vmcell_config *config,
                                    const vmcell_io_thread *io_thread,
                                    vmcell_error **error);

/**
 * Frees a configuration of which no VM was made, with all that it was given. NULL is fine.
 *
 * Errors: BAD_HANDLE, also where it was handed over to vmcell_vm_new.
 */
int32_t vmcell_config_free(vmcell_config *config);

/**
 * Makes a VM: everything is checked, the kernel is loaded, every device is there, nothing runs. Takes as long as reading the
 * kernel and the initrd does. `config` is taken, also if this call fails.
 *
 * Errors: what was refused has its own numbers, VMCELL_ERROR_INVALID_CONFIG to VMCELL_ERROR_HOST.
 */
int32_t vmcell_vm_new(vmcell_config *config,
                      vmcell_vm **vm,
                      vmcell_error **error);

/**
 * Starts the vCPUs and returns at once.
 *
 * Errors: INVALID_STATE unless the VM is ready; HOST where the host gives no more threads, and then the VM has ended.
 */
int32_t vmcell_vm_start(vmcell_vm *vm, vmcell_error **error);

/**
 * Makes vCPUs and devices stand still. Returns when no vCPU is in the guest and no device touches its memory; may block for
 * as long as a disk or another thing of the host that is in use does. A paused VM may be paused again, which does nothing.
 * The guest's clocks go on.
 *
 * Errors: INVALID_STATE where the VM was not started or has ended, also if it ends meanwhile.
 */
int32_t vmcell_vm_pause(vmcell_vm *vm,
                        vmcell_error **error);

/**
 * Lets vCPUs and devices go on where they were; does nothing to a VM that runs. Blocks only while another thread is in
 * vmcell_vm_pause.
 *
 * Errors: INVALID_STATE where the VM was not started or has ended.
 */
int32_t vmcell_vm_resume(vmcell_vm *vm, vmcell_error **error);

/**
 * Ends the VM from outside, in whatever state it is. From the moment it returns, the guest executes nothing. Returns within
 * 100 ms whatever the guest or the host does. The guest gets no chance to write its disks back. A VM that has ended stays as
 * it is. Threads in vmcell_vm_wait return.
 *
 * Errors: TIMEOUT where a slow disk, or a console's function that blocks, still holds one of the VM's threads outside the
 * guest; vmcell_vm_free waits for it.
 */
int32_t vmcell_vm_stop(vmcell_vm *vm,
                       vmcell_error **error);

/**
 * Blocks until the VM has ended, for at most `timeout_ms` milliseconds: 0 only looks, VMCELL_WAIT_FOREVER (-1) has no limit.
 * How the VM ended, one of VMCELL_EXIT_*, is written to `exit_kind`, which may be NULL. What the guest printed has reached its
 * console then, or a reader that took too long has missed it. Any number of threads may wait, and again.
 *
 * Errors: TIMEOUT where it had not ended by then; INVALID_STATE where it was not started; BAD_VALUE below -1.
 */
int32_t vmcell_vm_wait(const vmcell_vm *vm,
                       int64_t timeout_ms,
                       int32_t *exit_kind,
                       vmcell_error **error);

/**
 * What the VM is doing, one of VMCELL_STATUS_*. Never blocks.
 */
int32_t vmcell_vm_status(const vmcell_vm *vm, int32_t *status, vmcell_error **error);

/**
 * An eventfd that is readable once the VM has ended: for poll, epoll, or an event loop in place of vmcell_vm_wait. It is
 * borrowed, valid until the VM is freed (dup it to keep it longer): do not close it, and do not read from it, or others
 * miss the event. It stays readable. Never blocks.
 */
int32_t vmcell_vm_ended_fd(const vmcell_vm *vm,
                           int32_t *fd,
                           vmcell_error **error);

/**
 * Types `len` bytes into the guest's console, and writes to `taken` how many there was room for, 0 to `len`. What has no
 * room is for the caller to send again, once the guest has read: try again some milliseconds later. `bytes` may be NULL if
 * `len` is 0; they are copied. Never blocks.
 */
int32_t vmcell_vm_write_console(vmcell_vm *vm,
                                const uint8_t *bytes,
                                size_t len,
                                size_t *taken,
                                vmcell_error **error);

/**
 * Writes to `bytes` how many bytes of what the guest printed were dropped so far, since what the console is connected to did
 * not take them. Never blocks.
 */
int32_t vmcell_vm_console_dropped(const vmcell_vm *vm,
                                  uint64_t *bytes,
                                  vmcell_error **error);

/**
 * By which way the guest asked for a restart, one of VMCELL_RESET_*. Never blocks.
 *
 * Errors: INVALID_STATE where the VM has not ended, or ended otherwise.
 */
int32_t vmcell_vm_reset_cause(const vmcell_vm *vm, int32_t *cause, vmcell_error **error);

/**
 * The error that a failed VM ended with, a new object that the caller frees by vmcell_error_free. (`error` is for a failure
 * of this very call.) Never blocks.
 *
 * Errors: INVALID_STATE where the VM has not ended, or ended otherwise.
 */
int32_t vmcell_vm_exit_error(const vmcell_vm *vm,
                             vmcell_error **failure,
                             vmcell_error **error);

/**
 * Stops the VM, as vmcell_vm_stop, and frees it: when this returns, no thread, descriptor or memory of it remains. May
 * block for as long as a disk, or a console's function, holds one of its threads. NULL is fine.
 *
 * While other threads are in a call with this VM, it is stopped and their calls return (vmcell_vm_wait gives
 * VMCELL_EXIT_STOPPED); the last of them frees what remains, maybe after this call has returned.
 *
 * Errors: BAD_HANDLE.
 */
int32_t vmcell_vm_free(vmcell_vm *vm);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* VMCELL_H */
