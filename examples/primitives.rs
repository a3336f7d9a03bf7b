//! The layer under [`vmcell::Vm`]: a machine of one vCPU and one page of memory that runs a few instructions of its own.
#![allow(clippy::print_stdout, reason = "an example talks to the person who runs it")]

use vmcell::kvm::{Kvm, Registers, VcpuExit};
use vmcell::{GuestAddress, GuestMemory};

/// 16-bit code, as a CPU runs it in real mode: adds two numbers, prints the sum, asks a device, halts.
const CODE: &[u8] = &[
    0xba, 0xf8, 0x03, // mov dx, 0x3f8
    0x00, 0xd8, //       add al, bl
    0x04, b'0', //       add al, '0'
    0xee, //             out dx, al
    0xa0, 0x00, 0x20, // mov al, [0x2000]: no memory is there
    0xee, //             out dx, al
    0xf4, //             hlt
];

fn main() -> vmcell::Result<()> {
    let entry = GuestAddress(0x1000);
    let memory = GuestMemory::anonymous(&[(entry, 0x1000)])?;
    memory.write(entry, CODE)?;

    let vm = Kvm::open()?.create_vm()?;
    vm.add_memory(&memory)?;
    let mut vcpu = vm.create_vcpu(0)?;
    let mut special = vcpu.special_registers()?;
    special.cs.base = 0;
    special.cs.selector = 0;
    vcpu.set_special_registers(&special)?;
    vcpu.set_registers(&Registers { rip: entry.0, rax: 2, rbx: 3, rflags: 2, ..Registers::default() })?;

    loop {
        match vcpu.run()? {
            VcpuExit::PioWrite { port: 0x3f8, data, .. } => println!("the guest wrote {:?}", char::from(data[0])),
            VcpuExit::MmioRead { gpa, data } => {
                println!("the guest reads {} bytes at {gpa}", data.len());
                data.fill(b'!');
            }
            VcpuExit::Halt => return Ok(()),
            other => println!("not served: {other:?}"),
        }
    }
}
