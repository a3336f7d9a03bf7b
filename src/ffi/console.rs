//! Consoles.

use std::ffi::{c_char, c_void};
use std::os::fd::{IntoRawFd, OwnedFd};

use super::caller::{ReleaseUser, User};
use super::convert::{Out, read_path, take_fd};
use super::failure::{Failure, VMCELL_ERROR_BAD_VALUE, VMCELL_ERROR_NULL_ARGUMENT};
use super::guard::{free, guard};
use super::objects::Object;
use super::report::{ErrorObject, Report};
use super::slot::{Described, Slot, hand_over, update};
use crate::console::Console;

/// The host's end of the serial console: what the guest's output goes to, and where its input comes from.
/// vmcell_vm_write_console types into it, whatever it is connected to. Made by one of vmcell_console_new_*; taken by
/// vmcell_config_set_console or vmcell_console_also; freed by vmcell_console_free.
///
/// Nothing that it is connected to holds up the guest for long, another sink, or anything else on the I/O thread. Each sink takes the
/// output at its own pace and may lag behind by 64 KiB; one that is slower misses the oldest bytes, and one that fails is tried again
/// after a second. vmcell_vm_console_sinks counts what each got and missed. A descriptor is closed when the guest has ended and all
/// was written to it, otherwise with the VM.
pub struct ConsoleObject(Slot<Console>);

impl Object for ConsoleObject {
    const NAME: &'static str = "vmcell_console";
}

impl Described for ConsoleObject {
    type Value = Console;

    fn slot(&self) -> &Slot<Console> {
        &self.0
    }
}

/// Receives the guest's output: `len` bytes, 1 to 4096, valid until it returns, and `user` as the caller gave it. The
/// I/O thread that serves the VM calls it, never two threads at once, and never after the release function. It must not
/// block, because the devices on that thread would wait for it, and must not unwind: no C++ exception, no longjmp. It
/// may call any function of this library, also for its own VM; THREADS at the top says what each does there.
pub type ConsoleOutput = Option<unsafe extern "C" fn(bytes: *const u8, len: usize, user: *mut c_void)>;

/// Stands for no descriptor.
const NO_INPUT: i32 = -1;

/// No console: output is discarded. This is a configuration's default. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_console_new_none(
    console: *mut *mut ConsoleObject,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a place for the result.
        let console = unsafe { Out::new(console, "console") }?;
        console.insert(ConsoleObject(Slot::new(Console::none())))
    })
}

/// Output goes to the process's standard output, input comes from its standard input. The library changes neither
/// stream's flags, and leaves a terminal's mode alone: a program that wants each key to reach the guest makes the
/// terminal raw itself. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_console_new_stdio(
    console: *mut *mut ConsoleObject,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a place for the result.
        let console = unsafe { Out::new(console, "console") }?;
        console.insert(ConsoleObject(Slot::new(Console::stdio())))
    })
}

/// Output goes to a file, which is created or emptied when the VM is made; there is no input. The path may hold any bytes. Never
/// blocks.
///
/// Errors: when the VM is made, INVALID_CONFIG if the path is empty; CONSOLE if the file cannot be opened for writing, or is a FIFO
/// that nobody reads.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_console_new_file(
    path: *const c_char,
    console: *mut *mut ConsoleObject,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a place for the result.
        let console = unsafe { Out::new(console, "console") }?;
        // SAFETY: the header demands NULL or a text that ends with a NUL.
        let path = unsafe { read_path(path, "path") }?;
        console.insert(ConsoleObject(Slot::new(Console::file(path))))
    })
}

/// Sets whether what a console's file holds already stays: 0 means no (the default), anything else yes. Means nothing to a console
/// without a file. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_console_set_append(
    console: *mut ConsoleObject,
    append: i32,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || update(console, |console| console.change_files(|file| file.append(append != 0))))
}

/// Limits a console's file to `max_bytes`, 4096 or more. If it would grow above that, it is renamed to its name with ".1" at the end,
/// an older ".1" to ".2" and so on, up to `keep` of them, 0 to 100; the oldest is replaced, and with 0 the file is emptied instead. It
/// is divided at the end of a line if there is one in what the guest has just printed, otherwise where it is full. If renaming fails, the
/// file is emptied all the same. The file must not be that of another VM: what writes to it goes on in the renamed one.
/// Means nothing to a console without a file; the default is no limit. Never blocks.
///
/// Errors: when the VM is made, INVALID_CONFIG for a number that is not allowed, or if another console of the VM has the same file or
/// one of the older ones; CONSOLE if it is no regular file.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_console_set_rotation(
    console: *mut ConsoleObject,
    max_bytes: u64,
    keep: u32,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || update(console, |console| console.change_files(|file| file.rotate(max_bytes, keep))))
}

/// Adds to a console what another one is connected to, so that each of their sinks gets all output, and all of their sources type.
/// `other` is taken, even if this call fails. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_console_also(
    console: *mut ConsoleObject,
    other: *mut ConsoleObject,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        let other = hand_over(other)?;
        update(console, |console| console.also(other))
    })
}

/// Output goes to a reader, input comes from a writer, both of which are the caller's: each is one end of a pipe, blocking and
/// close-on-exec. The caller may set O_NONBLOCK on them and wait for them by poll or epoll, and closes them whenever it likes.
///
/// `reader` has its end when the guest has ended and all that it printed was read, or when the VM is freed; a VM that was never
/// started only ends by that. Writing to `writer` waits while the guest does not read and the pipe is full; after the guest has ended
/// it fails with EPIPE, and the thread gets SIGPIPE, which a program that uses this ignores or blocks. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_console_new_pair(
    reader: *mut i32,
    writer: *mut i32,
    console: *mut *mut ConsoleObject,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a place for the result.
        let reader = unsafe { Out::new(reader, "reader") }?;
        // SAFETY: as before.
        let writer = unsafe { Out::new(writer, "writer") }?;
        // SAFETY: as before.
        let console = unsafe { Out::new(console, "console") }?;
        let (made, output, input) = Console::pair()?;
        console.insert(ConsoleObject(Slot::new(made)))?;
        reader.write(OwnedFd::from(output).into_raw_fd());
        writer.write(OwnedFd::from(input).into_raw_fd());
        Ok(())
    })
}

/// Output goes to one descriptor, input comes from another, or from none (-1). Anything will do: files, pipes, FIFOs, sockets,
/// terminals, either side of a pseudo-terminal, devices; blocking or not, shared with other processes or not. Their flags are never
/// changed. Both descriptors are taken: they are closed with the console or with the VM that got it, even if this call fails. Never
/// blocks.
///
/// Errors: BAD_DESCRIPTOR; BAD_VALUE if both are the same descriptor (use dup). When the VM is made, CONSOLE if `output` is not open
/// for writing, or `input` not for reading.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_console_new_fds(
    output: i32,
    input: i32,
    console: *mut *mut ConsoleObject,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        if output == input && output >= 0 {
            let message = format!("output and input are both {output}, and each of them is closed at the end");
            return Err(Failure::new(VMCELL_ERROR_BAD_VALUE, message));
        }
        // SAFETY: the header says that the descriptor is taken.
        let taken = unsafe { take_fd(output, "output") };
        // SAFETY: as before, and it is another one.
        let input = (input != NO_INPUT).then(|| unsafe { take_fd(input, "input") }).transpose()?;
        // SAFETY: the header demands NULL or a place for the result.
        let console = unsafe { Out::new(console, "console") }?;
        console.insert(ConsoleObject(Slot::new(Console::descriptors(taken?, input))))
    })
}

/// Output goes to a function; there is no input. `user` is passed to `output` and, at the end, to `release`; their
/// types say on which thread. `user` is taken: unless `release` is NULL, it is called for `user` even if this call
/// fails.
///
/// Errors: NULL_ARGUMENT if `output` is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_console_new_callback(
    output: ConsoleOutput,
    user: *mut c_void,
    release: ReleaseUser,
    console: *mut *mut ConsoleObject,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        let user = User { user, release };
        let output = output.ok_or_else(|| Failure::new(VMCELL_ERROR_NULL_ARGUMENT, "output is NULL"))?;
        // SAFETY: the header demands NULL or a place for the result.
        let console = unsafe { Out::new(console, "console") }?;
        let print = move |bytes: &[u8]| {
            let user = &user;
            // SAFETY: the header demands a function that takes this; the bytes are valid until it returns.
            unsafe { output(bytes.as_ptr(), bytes.len(), user.user) };
        };
        console.insert(ConsoleObject(Slot::new(Console::callback(print))))
    })
}

/// Frees a console that no VM got: closes its descriptors, releases its `user`. NULL is fine.
///
/// Errors: BAD_HANDLE, also if it was handed over to a configuration.
#[unsafe(no_mangle)]
pub extern "C" fn vmcell_console_free(console: *mut ConsoleObject) -> i32 {
    free(console, drop)
}
