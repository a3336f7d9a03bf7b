//! The state of an x86_64 vCPU as plain values, and their way to and from KVM's types.

use kvm_bindings::{kvm_cpuid_entry2, kvm_dtable, kvm_regs, kvm_segment, kvm_sregs};

/// The general-purpose registers, the instruction pointer and the flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
#[allow(missing_docs, reason = "named as in the Intel SDM, volume 1, section 3.4")]
pub struct Registers {
    pub rax: u64,
    pub rbx: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub rsp: u64,
    pub rbp: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    pub rip: u64,
    pub rflags: u64,
}

/// A segment register with its hidden part (Intel SDM, volume 3, section 3.4.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct Segment {
    /// Linear address of its first byte.
    pub base: u64,
    /// Last offset inside it, in bytes whatever the granularity.
    pub limit: u32,
    /// The visible part.
    pub selector: u16,
    /// The four type bits.
    pub type_: u8,
    /// Whether it is present.
    pub present: bool,
    /// Descriptor privilege level, 0 to 3.
    pub dpl: u8,
    /// Default operation size: 32 bits if set.
    pub db: bool,
    /// Code or data if set, system if clear.
    pub s: bool,
    /// 64-bit code.
    pub l: bool,
    /// Granularity of the limit: 4 KiB if set.
    pub g: bool,
    /// Whether it may not be used.
    pub unusable: bool,
}

/// GDTR or IDTR.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct DescriptorTable {
    /// Linear address of its first byte.
    pub base: u64,
    /// Its size in bytes, less one.
    pub limit: u16,
}

/// Segments, descriptor tables and control registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
#[allow(missing_docs, reason = "named as in the Intel SDM, volume 3, section 2.1")]
pub struct SpecialRegisters {
    pub cs: Segment,
    pub ds: Segment,
    pub es: Segment,
    pub fs: Segment,
    pub gs: Segment,
    pub ss: Segment,
    pub tr: Segment,
    pub ldt: Segment,
    pub gdt: DescriptorTable,
    pub idt: DescriptorTable,
    pub cr0: u64,
    pub cr2: u64,
    pub cr3: u64,
    pub cr4: u64,
    pub cr8: u64,
    pub efer: u64,
    pub apic_base: u64,
}

/// What the `cpuid` instruction answers for one leaf and subleaf.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
#[allow(missing_docs, reason = "the registers speak for themselves")]
pub struct CpuidEntry {
    /// The leaf, `eax` of the question.
    pub function: u32,
    /// The subleaf, `ecx` of the question, where `flags` says that it counts.
    pub index: u32,
    /// KVM's flags; bit 0: the subleaf counts.
    pub flags: u32,
    pub eax: u32,
    pub ebx: u32,
    pub ecx: u32,
    pub edx: u32,
}

/// The way from KVM's types to ours. Not `From`, which would make theirs a part of our interface.
pub(super) trait FromKvm<T> {
    fn from_kvm(theirs: T) -> Self;
}

/// The way from our types to KVM's.
pub(super) trait ToKvm<T> {
    fn to_kvm(&self) -> T;
}

impl SpecialRegisters {
    pub(super) fn store(&self, sregs: &mut kvm_sregs) {
        sregs.cs = self.cs.to_kvm();
        sregs.ds = self.ds.to_kvm();
        sregs.es = self.es.to_kvm();
        sregs.fs = self.fs.to_kvm();
        sregs.gs = self.gs.to_kvm();
        sregs.ss = self.ss.to_kvm();
        sregs.tr = self.tr.to_kvm();
        sregs.ldt = self.ldt.to_kvm();
        sregs.gdt = self.gdt.to_kvm();
        sregs.idt = self.idt.to_kvm();
        sregs.cr0 = self.cr0;
        sregs.cr2 = self.cr2;
        sregs.cr3 = self.cr3;
        sregs.cr4 = self.cr4;
        sregs.cr8 = self.cr8;
        sregs.efer = self.efer;
        sregs.apic_base = self.apic_base;
    }
}

impl FromKvm<&kvm_sregs> for SpecialRegisters {
    fn from_kvm(sregs: &kvm_sregs) -> Self {
        Self {
            cs: Segment::from_kvm(sregs.cs),
            ds: Segment::from_kvm(sregs.ds),
            es: Segment::from_kvm(sregs.es),
            fs: Segment::from_kvm(sregs.fs),
            gs: Segment::from_kvm(sregs.gs),
            ss: Segment::from_kvm(sregs.ss),
            tr: Segment::from_kvm(sregs.tr),
            ldt: Segment::from_kvm(sregs.ldt),
            gdt: DescriptorTable::from_kvm(sregs.gdt),
            idt: DescriptorTable::from_kvm(sregs.idt),
            cr0: sregs.cr0,
            cr2: sregs.cr2,
            cr3: sregs.cr3,
            cr4: sregs.cr4,
            cr8: sregs.cr8,
            efer: sregs.efer,
            apic_base: sregs.apic_base,
        }
    }
}

impl ToKvm<kvm_segment> for Segment {
    fn to_kvm(&self) -> kvm_segment {
        let segment = self;
        kvm_segment {
            base: segment.base,
            limit: segment.limit,
            selector: segment.selector,
            type_: segment.type_,
            present: segment.present.into(),
            dpl: segment.dpl,
            db: segment.db.into(),
            s: segment.s.into(),
            l: segment.l.into(),
            g: segment.g.into(),
            unusable: segment.unusable.into(),
            ..Default::default()
        }
    }
}

impl FromKvm<kvm_segment> for Segment {
    fn from_kvm(segment: kvm_segment) -> Self {
        Self {
            base: segment.base,
            limit: segment.limit,
            selector: segment.selector,
            type_: segment.type_,
            present: segment.present != 0,
            dpl: segment.dpl,
            db: segment.db != 0,
            s: segment.s != 0,
            l: segment.l != 0,
            g: segment.g != 0,
            unusable: segment.unusable != 0,
        }
    }
}

impl ToKvm<kvm_dtable> for DescriptorTable {
    fn to_kvm(&self) -> kvm_dtable {
        kvm_dtable { base: self.base, limit: self.limit, ..Default::default() }
    }
}

impl FromKvm<kvm_dtable> for DescriptorTable {
    fn from_kvm(table: kvm_dtable) -> Self {
        Self { base: table.base, limit: table.limit }
    }
}

impl FromKvm<&kvm_cpuid_entry2> for CpuidEntry {
    fn from_kvm(entry: &kvm_cpuid_entry2) -> Self {
        let &kvm_cpuid_entry2 { function, index, flags, eax, ebx, ecx, edx, .. } = entry;
        Self { function, index, flags, eax, ebx, ecx, edx }
    }
}

impl ToKvm<kvm_cpuid_entry2> for CpuidEntry {
    fn to_kvm(&self) -> kvm_cpuid_entry2 {
        let &Self { function, index, flags, eax, ebx, ecx, edx } = self;
        kvm_cpuid_entry2 { function, index, flags, eax, ebx, ecx, edx, ..Default::default() }
    }
}

macro_rules! same_fields {
    ($ours:ty, $theirs:ident: $($field:ident),*) => {
        impl FromKvm<$theirs> for $ours {
            fn from_kvm(other: $theirs) -> Self {
                Self { $($field: other.$field),* }
            }
        }

        impl ToKvm<$theirs> for $ours {
            fn to_kvm(&self) -> $theirs {
                $theirs { $($field: self.$field),* }
            }
        }
    };
}

pub(super) use same_fields;

same_fields!(Registers, kvm_regs:
    rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8, r9, r10, r11, r12, r13, r14, r15, rip, rflags);
