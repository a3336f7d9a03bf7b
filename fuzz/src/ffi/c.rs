//! The functions of `include/vmcell.h` that the target calls. A test compares them with the header.

use std::ffi::{c_char, c_void};

/// An object, or none.
pub type Handle = *mut c_void;

macro_rules! functions {
    ($($name:ident($($argument:ident: $type:ty),*);)*) => {
        unsafe extern "C" {
            $(pub fn $name($($argument: $type),*) -> i32;)*
        }

        /// Each function with the types of its arguments.
        #[cfg(test)]
        pub const FUNCTIONS: &[(&str, &[&str])] = &[$((stringify!($name), &[$(stringify!($type)),*])),*];
    };
}

functions! {
    vmcell_config_new(config: *mut Handle, error: *mut Handle);
    vmcell_config_new_from_json(json: *const c_char, length: usize, config: *mut Handle, error: *mut Handle);
    vmcell_config_to_json(config: Handle, buffer: *mut c_char, capacity: usize, length: *mut usize, error: *mut Handle);
    vmcell_config_set_name(config: Handle, name: *const c_char, error: *mut Handle);
    vmcell_config_set_vcpus(config: Handle, vcpus: u32, error: *mut Handle);
    vmcell_config_set_memory(config: Handle, mib: u64, backing: i32, pages: i32, error: *mut Handle);
    vmcell_config_set_kernel(config: Handle, path: *const c_char, error: *mut Handle);
    vmcell_config_set_initrd(config: Handle, path: *const c_char, error: *mut Handle);
    vmcell_config_set_cmdline(config: Handle, cmdline: *const c_char, error: *mut Handle);
    vmcell_config_set_protocol(config: Handle, protocol: i32, error: *mut Handle);
    vmcell_config_set_discovery(config: Handle, discovery: i32, error: *mut Handle);
    vmcell_config_set_kick_signal(config: Handle, signal: i32, error: *mut Handle);
    vmcell_config_set_polling(config: Handle, max_us: u32, error: *mut Handle);
    vmcell_config_set_io_affinity(config: Handle, cpus: *const u32, count: usize, error: *mut Handle);
    vmcell_config_set_core_scheduling(config: Handle, core_scheduling: i32, error: *mut Handle);
    vmcell_config_add_disk(config: Handle, disk: Handle, error: *mut Handle);
    vmcell_config_add_nic(config: Handle, nic: Handle, error: *mut Handle);
    vmcell_config_set_console(config: Handle, console: Handle, error: *mut Handle);
    vmcell_config_add_console(config: Handle, console: Handle, error: *mut Handle);
    vmcell_config_free(config: Handle);
    vmcell_disk_new_from_fd(fd: i32, disk: *mut Handle, error: *mut Handle);
    vmcell_disk_set_read_only(disk: Handle, read_only: i32, error: *mut Handle);
    vmcell_disk_set_serial(disk: Handle, serial: *const c_char, error: *mut Handle);
    vmcell_disk_set_engine(disk: Handle, engine: i32, error: *mut Handle);
    vmcell_disk_handle_new(disk: Handle, handle: *mut Handle, error: *mut Handle);
    vmcell_disk_handle_refresh(handle: Handle, error: *mut Handle);
    vmcell_disk_handle_free(handle: Handle);
    vmcell_disk_free(disk: Handle);
    vmcell_nic_new(name: *const c_char, nic: *mut Handle, error: *mut Handle);
    vmcell_nic_new_from_fd(fd: i32, nic: *mut Handle, error: *mut Handle);
    vmcell_nic_free(nic: Handle);
    vmcell_console_new_none(console: *mut Handle, error: *mut Handle);
    vmcell_console_new_file(path: *const c_char, console: *mut Handle, error: *mut Handle);
    vmcell_console_set_append(console: Handle, append: i32, error: *mut Handle);
    vmcell_console_set_rotation(console: Handle, max_bytes: u64, keep: u32, error: *mut Handle);
    vmcell_console_also(console: Handle, other: Handle, error: *mut Handle);
    vmcell_console_free(console: Handle);
    vmcell_vm_new(config: Handle, vm: *mut Handle, error: *mut Handle);
    vmcell_vm_start(vm: Handle, error: *mut Handle);
    vmcell_vm_stop(vm: Handle, error: *mut Handle);
    vmcell_vm_free(vm: Handle);
    vmcell_error_number(error: Handle);
    vmcell_error_free(error: Handle);
}

unsafe extern "C" {
    pub fn vmcell_error_chain(error: Handle) -> *const c_char;
    pub fn vmcell_handle_count() -> u64;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a type of the header is in Rust.
    fn in_rust(argument: &str) -> &'static str {
        let name_at = argument.rfind(|c: char| !c.is_alphanumeric() && c != '_').map_or(0, |at| at + 1);
        match argument[..name_at].trim() {
            "int32_t" => "i32",
            "uint32_t" => "u32",
            "uint64_t" => "u64",
            "size_t" => "usize",
            "size_t *" => "*mut usize",
            "char *" => "*mut c_char",
            "const char *" => "*const c_char",
            "const uint32_t *" => "*const u32",
            object if object.ends_with("**") => "*mut Handle",
            object if object.ends_with('*') => "Handle",
            other => panic!("{other}"),
        }
    }

    #[test]
    fn the_functions_are_those_of_the_header() {
        let header = include_str!("../../../include/vmcell.h");
        for (name, types) in FUNCTIONS {
            let begin = format!("\nint32_t {name}(");
            let at = header.find(&begin).unwrap_or_else(|| panic!("{name} is not in the header"));
            let arguments = &header[at + begin.len()..];
            let arguments = &arguments[..arguments.find(");").unwrap()];
            let found: Vec<_> = arguments.split(',').map(in_rust).collect();
            assert_eq!(found, *types, "{name}");
        }
    }
}
