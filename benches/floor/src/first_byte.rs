//! The least that a monitor does until its guest's first byte: a VM with an interrupt controller, memory, and one vCPU.

use std::io::{self, Read, Write};

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::{Kvm, VcpuExit};

const MEMORY: usize = 128 << 20;
const SERIAL: u16 = 0x3f8;
const CODE_AT: usize = 0x1000;
/// mov dx, SERIAL; mov al, 2; out dx, al; hlt
const CODE: [u8; 7] = [0xba, SERIAL as u8, (SERIAL >> 8) as u8, 0xb0, 2, 0xee, 0xf4];

pub fn run() -> io::Result<String> {
    let vm = Kvm::new()?.create_vm()?;
    // SAFETY: an anonymous mapping at a place that the kernel chooses.
    let memory = unsafe {
        let (access, kind) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE);
        libc::mmap(core::ptr::null_mut(), MEMORY, access, kind, -1, 0)
    };
    if memory == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the mapping is larger than that, and nobody else uses it yet.
    unsafe { memory.cast::<u8>().add(CODE_AT).copy_from(CODE.as_ptr(), CODE.len()) };
    let region = kvm_userspace_memory_region {
        slot: 0,
        flags: 0,
        guest_phys_addr: 0,
        memory_size: MEMORY as u64,
        userspace_addr: memory as u64,
    };
    // SAFETY: the mapping stays until the process ends.
    unsafe { vm.set_user_memory_region(region)? };
    vm.create_irq_chip()?;
    let mut vcpu = vm.create_vcpu(0)?;
    let mut segments = vcpu.get_sregs()?;
    (segments.cs.base, segments.cs.selector) = (0, 0);
    vcpu.set_sregs(&segments)?;
    let mut registers = vcpu.get_regs()?;
    (registers.rip, registers.rflags) = (CODE_AT as u64, 2);
    vcpu.set_regs(&registers)?;
    match vcpu.run()? {
        VcpuExit::IoOut(SERIAL, bytes) => io::stdout().write_all(bytes)?,
        other => return Err(io::Error::other(format!("the guest ended with {other:?}"))),
    }
    io::stdout().flush()?;
    io::stdin().read_exact(&mut [0])?;
    Ok("end".into())
}
