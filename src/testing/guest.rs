//! Tiny guests: a few instructions each, as ELF images that are entered like a 64-bit Linux kernel.
//!
//! They run on every kind of KVM, in microseconds. They have no drivers, so they cannot show whether a real driver works.

use std::io;
use std::path::Path;

/// Where the code is loaded and entered.
const ENTRY: u64 = 0x10_0000;

/// Writes SLP_EN and the type of S5 to the sleep control register, and spins in case that did nothing.
const POWER_OFF: [u8; 9] = [
    0x66, 0xba, 0x00, 0x06, // mov dx, 0x600
    0xb0, 0x34, //             mov al, SLP_EN | 5 << 2
    0xee, //                   out dx, al
    0xeb, 0xfe, //             spin
];

/// A guest of a few instructions. Each constructor makes a guest that does one thing; [`write_to`](Self::write_to) makes a kernel
/// of it.
///
/// ```
/// use vmcell::testing::TinyGuest;
///
/// let directory = std::env::temp_dir();
/// let kernel = directory.join("vmcell-doc-spin");
/// TinyGuest::spin().write_to(&kernel)?;
/// let boot = vmcell::Boot::linux(&kernel);
/// # std::fs::remove_file(kernel)?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct TinyGuest {
    code: Vec<u8>,
}

impl TinyGuest {
    /// Runs `code`, 64-bit instructions that are loaded at 1 MiB. They start with interrupts off, the first 4 GiB mapped to
    /// themselves, and the address of the zero page in `rsi`.
    pub fn new(code: impl Into<Vec<u8>>) -> Self {
        Self { code: code.into() }
    }

    /// Spins for ever.
    pub fn spin() -> Self {
        Self::new([0xeb, 0xfe])
    }

    /// Halts with interrupts off. Only the host can end that.
    pub fn halt() -> Self {
        Self::new([
            0xfa, //       cli
            0xf4, //       hlt
            0xeb, 0xfd, // jmp to the hlt
        ])
    }

    /// Turns itself off by the sleep control register of ACPI.
    pub fn power_off() -> Self {
        Self::print("")
    }

    /// Prints `text`, then turns itself off.
    pub fn print(text: &str) -> Self {
        let mut code = vec![0x66, 0xba, 0xf8, 0x03]; // mov dx, 0x3f8
        for byte in text.bytes() {
            code.extend([0xb0, byte, 0xee]); // mov al, byte; out dx, al
        }
        code.extend(POWER_OFF);
        Self::new(code)
    }

    /// Prints the command line that the zero page leads to, then turns itself off.
    pub fn print_cmdline() -> Self {
        let mut code = vec![
            0x8b, 0xb6, 0x28, 0x02, 0x00, 0x00, // mov esi, [rsi + 0x228]
            0x66, 0xba, 0xf8, 0x03, //             mov dx, 0x3f8
            0x8a, 0x06, //                         mov al, [rsi]
            0x84, 0xc0, //                         test al, al
            0x74, 0x06, //                         jz behind the loop
            0xee, //                               out dx, al
            0x48, 0xff, 0xc6, //                   inc rsi
            0xeb, 0xf4, //                         jmp to the load
        ];
        code.extend(POWER_OFF);
        Self::new(code)
    }

    /// Prints the four bytes of the device register at `address`, lowest first, then turns itself off.
    pub fn print_register(address: u32) -> Self {
        let mut code = vec![0xbb]; // mov ebx, address
        code.extend(address.to_le_bytes());
        code.extend([
            0x8b, 0x03, //             mov eax, [rbx]
            0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8
        ]);
        code.extend([0xee, 0xc1, 0xe8, 0x08].repeat(4)); // out dx, al; shr eax, 8
        code.extend(POWER_OFF);
        Self::new(code)
    }

    /// Writes to ACPI's reset register.
    pub fn acpi_reset() -> Self {
        Self::new([
            0x66, 0xba, 0x02, 0x06, // mov dx, 0x602
            0xb0, 0x01, //             mov al, 1
            0xee, //                   out dx, al
            0xeb, 0xfe, //             spin
        ])
    }

    /// Writes `events` to the register by which a kernel says that it panicked (bit 0), or that its crash kernel goes on (bit 1),
    /// and then to ACPI's reset register.
    pub fn panic(events: u8) -> Self {
        let mut code = vec![
            0x66, 0xba, 0x05, 0x05, // mov dx, 0x505
            0xb0, events, //           mov al, events
            0xee,   //                   out dx, al
        ];
        code.extend(Self::acpi_reset().code);
        Self::new(code)
    }

    /// Pulses the keyboard controller's reset line.
    pub fn keyboard_reset() -> Self {
        Self::new([
            0xb0, 0xfe, // mov al, 0xfe
            0xe6, 0x64, // out 0x64, al
            0xeb, 0xfe, // spin
        ])
    }

    /// Reads where nothing is mapped, with an empty interrupt descriptor table, so that the CPU triple-faults.
    pub fn triple_fault() -> Self {
        Self::new([
            0xbc, 0x00, 0x00, 0x20, 0x00, // mov esp, 0x200000
            0x6a, 0x00, //                   push 0
            0x6a, 0x00, //                   push 0
            0x0f, 0x01, 0x1c, 0x24, //       lidt [rsp]
            0x48, 0x31, 0xc0, //             xor rax, rax
            0x48, 0xff, 0xc8, //             dec rax
            0x8a, 0x00, //                   mov al, [rax]
        ])
    }

    /// Prints the same byte for ever, as fast as it can.
    pub fn flood(byte: u8) -> Self {
        Self::new([
            0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8
            0xb0, byte, //             mov al, byte
            0xee, //                   out dx, al
            0xeb, 0xfd, //             jmp to the out
        ])
    }

    /// Prints what is typed, byte by byte, for ever.
    pub fn echo() -> Self {
        Self::new([
            0x66, 0xba, 0xfd, 0x03, // mov dx, 0x3fd
            0xec, //                   in al, dx
            0xa8, 0x01, //             test al, 1
            0x74, 0xf7, //             jz to the start
            0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8
            0xec, //                   in al, dx
            0xee, //                   out dx, al
            0xeb, 0xef, //             jmp to the start
        ])
    }

    /// Reads every port and writes zero to it, a byte and four bytes at a time, then turns itself off.
    pub fn touch_every_port() -> Self {
        let mut code = vec![
            0x31, 0xd2, //                   xor edx, edx
            0xec, //                         in al, dx
            0xed, //                         in eax, dx
            0x31, 0xc0, //                   xor eax, eax
            0xee, //                         out dx, al
            0xef, //                         out dx, eax
            0x66, 0xff, 0xc2, //             inc dx
            0x75, 0xf5, //                   jnz to the first in
        ];
        code.extend(POWER_OFF);
        Self::new(code)
    }

    /// Writes a 32-bit value to an address for ever, as fast as it can.
    pub fn store(address: u32, value: u32) -> Self {
        let mut code = vec![0xbb]; // mov ebx, address
        code.extend(address.to_le_bytes());
        code.push(0xb8); // mov eax, value
        code.extend(value.to_le_bytes());
        code.extend([0x89, 0x03, 0xeb, 0xfc]); // mov [rbx], eax; jmp to it
        Self::new(code)
    }

    /// Returns the ELF image.
    pub fn image(&self) -> Vec<u8> {
        const HEADERS: u64 = 64 + 56;
        let size = self.code.len() as u64;
        let mut image = Vec::new();
        image.extend([0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        push16(&mut image, &[2, 62]); // an executable, for x86_64
        push32(&mut image, &[1]);
        push64(&mut image, &[ENTRY, 64, 0]); // entry, program headers, no sections
        push32(&mut image, &[0]);
        push16(&mut image, &[64, 56, 1, 64, 0, 0]);
        push32(&mut image, &[1, 5]); // PT_LOAD, readable and executable
        push64(&mut image, &[HEADERS, ENTRY, ENTRY, size, size, 0x1000]);
        image.extend(&self.code);
        image
    }

    /// Writes the ELF image to a file, for [`Boot::linux`](crate::Boot::linux).
    ///
    /// # Errors
    /// What the host reports.
    pub fn write_to(&self, path: impl AsRef<Path>) -> io::Result<()> {
        std::fs::write(path, self.image())
    }
}

fn push16(image: &mut Vec<u8>, values: &[u16]) {
    image.extend(values.iter().flat_map(|value| value.to_le_bytes()));
}

fn push32(image: &mut Vec<u8>, values: &[u32]) {
    image.extend(values.iter().flat_map(|value| value.to_le_bytes()));
}

fn push64(image: &mut Vec<u8>, values: &[u64]) {
    image.extend(values.iter().flat_map(|value| value.to_le_bytes()));
}
