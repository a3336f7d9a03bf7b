//! The CPU that a stock kernel finds if a level was asked for, by the instruction `cpuid` itself: what the kernel makes of it differs
//! on emulated hosts.

mod support;

use support::linux::{LinuxGuest, between, path_of};
use vmcell::{Boot, CpuConfig, CpuLevel, ErrorKind, Vm};

/// Reads leaves by the driver `cpuid`, whose position is the leaf and, above that, the subleaf.
const LEAVES: &str = r#"
for module in /spare/*-cpuid.ko; do insmod $module; done
leaf() { dd if=/dev/cpu/1/cpuid bs=16 count=1 iflag=skip_bytes skip=$(($1 | $2 << 32)) 2>/dev/null | od -An -t x4; }
for leaf in "1 0" "7 0" "7 1" "10 0" "13 0" "13 1" "13 2" "1073741825 0" "2147483649 0"; do
    echo "leaf $leaf:$(leaf $leaf)."
done
"#;

struct Answers(String);

impl Answers {
    fn of(cpu: CpuConfig) -> Self {
        Self(LinuxGuest::new(LEAVES).run(|builder| builder.cpu(cpu).vcpus(2)))
    }

    /// EAX, EBX, ECX, EDX.
    fn at(&self, leaf: u32, subleaf: u32) -> [u32; 4] {
        let words = between(&self.0, &format!("leaf {leaf} {subleaf}:"), ".").split_whitespace();
        let words: Vec<_> = words.map(|word| u32::from_str_radix(word, 16).expect("a number")).collect();
        words.try_into().unwrap_or_else(|words| panic!("{words:x?} in:\n{}", self.0))
    }
}

/// Are all of these bits set?
fn all(register: u32, bits: &[u32]) -> bool {
    bits.iter().all(|bit| register >> bit & 1 == 1)
}

fn none(register: u32, bits: &[u32]) -> bool {
    bits.iter().all(|bit| register >> bit & 1 == 0)
}

fn host_has(flag: &str) -> bool {
    std::fs::read_to_string("/proc/cpuinfo").expect("it is there").split_whitespace().any(|word| word == flag)
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn a_guest_of_the_second_level_has_no_avx() {
    let answers = Answers::of(CpuConfig::level(CpuLevel::V2));
    let [_, _, ecx, _] = answers.at(1, 0);
    // SSE3, SSSE3, CMPXCHG16B, SSE4.1, SSE4.2, POPCNT; a hypervisor.
    assert!(all(ecx, &[0, 9, 13, 19, 20, 23, 31]), "{ecx:#x}");
    // PCLMULQDQ, FMA, MOVBE, AES, XSAVE, AVX, F16C, RDRAND.
    assert!(none(ecx, &[1, 12, 22, 25, 26, 28, 29, 30]), "{ecx:#x}");
    let [_, ebx, _, _] = answers.at(7, 0);
    assert!(none(ebx, &[3, 5, 8, 16, 18, 19, 29]), "{ebx:#x}");
    for (leaf, subleaf) in [(7, 1), (10, 0), (13, 0), (13, 1), (13, 2)] {
        assert_eq!(answers.at(leaf, subleaf), [0; 4], "leaf {leaf} {subleaf}");
    }
    // KVM tells of itself: its clock.
    assert!(all(answers.at(0x4000_0001, 0)[0], &[3]));
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test --long"]
fn a_guest_of_the_third_level_has_what_was_asked_for_beside() {
    let cpu = CpuConfig::level(CpuLevel::V3).with("aes");
    if !host_has("avx2") || !host_has("aes") {
        return is_refused(cpu);
    }
    let answers = Answers::of(cpu);
    let [_, _, ecx, _] = answers.at(1, 0);
    assert!(all(ecx, &[0, 9, 12, 13, 19, 20, 22, 23, 25, 26, 28, 29]), "{ecx:#x}");
    assert!(none(ecx, &[1, 30]), "{ecx:#x}");
    // BMI1, AVX2, BMI2, but no AVX-512, RDSEED, ADX, SHA.
    let [_, ebx, _, _] = answers.at(7, 0);
    assert!(all(ebx, &[3, 5, 8]) && none(ebx, &[16, 17, 18, 19, 28, 29, 30, 31]), "{ebx:#x}");
    // x87, SSE and AVX; the first register is that of XCR0, whose present value KVM tells in EBX.
    let [eax, _, ecx, edx] = answers.at(13, 0);
    assert_eq!((eax, ecx, edx), (0b111, 832, 0));
    assert_eq!(answers.at(13, 1), [0; 4]);
    assert_eq!(answers.at(13, 2)[..2], [256, 576]);
    // LAHF, LZCNT.
    assert!(all(answers.at(0x8000_0001, 0)[2], &[0, 5]));
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn a_level_that_the_host_does_not_have_is_refused_by_what_it_lacks() {
    if !host_has("avx512f") {
        is_refused(CpuConfig::level(CpuLevel::V4));
    }
    is_refused(CpuConfig::level(CpuLevel::V2).with("no-such-feature"));
}

fn is_refused(cpu: CpuConfig) {
    let error = Vm::builder().cpu(cpu).boot(Boot::linux(path_of("VMCELL_KERNEL_ELF"))).build().unwrap_err();
    let said = error.to_string();
    assert!(error.kind() == ErrorKind::InvalidConfig && said.contains("was asked for"), "{error:?}");
    assert!(said.contains("lacks avx512f") || said.contains("lacks a") || said.contains("allowed are"), "{error:?}");
}
