//! The list as programs for the kernel.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

use super::calls::{CALLS, Call, DONE_WITHOUT, Kind, Only};
use crate::config::Seccomp;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::{Filtered, filtered, note_filtered};

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// What one kind of thread may ask of the kernel.
pub(crate) struct ThreadFilter {
    /// The kernel goes by the sternest.
    programs: Vec<BpfProgram>,
    kind: Kind,
}

impl ThreadFilter {
    /// The filter of a kind of thread, or none if nothing is to be filtered.
    pub(crate) fn new(kind: Kind, seccomp: Seccomp) -> Result<Option<Self>> {
        let programs = match seccomp {
            Seccomp::Off => return Ok(None),
            Seccomp::Refuse => vec![compile(listed(kind)?, refuse(), SeccompAction::Allow)?],
            Seccomp::Kill => {
                let (listed, done_without) = apart(kind)?;
                // The list comes last, because no filter can be added behind it.
                vec![
                    compile(done_without, SeccompAction::Allow, refuse())?,
                    compile(listed, SeccompAction::KillProcess, SeccompAction::Allow)?,
                ]
            }
        };
        Ok(Some(Self { programs, kind }))
    }

    /// Filters what the calling thread does from now on, and the threads that it starts. It cannot be undone, and the thread gains no
    /// rights by executing programs any more.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidState`] if the thread is filtered by us already, other than as one that keeps VMs;
    /// [`ErrorKind::Host`] if the kernel has no filters of system calls, which it needs `CONFIG_SECCOMP_FILTER` for.
    pub(crate) fn apply(&self) -> Result<()> {
        // Its filter may well kill whoever asks for another one.
        if filtered() == Filtered::AsVm {
            return Err(Error::new(ErrorKind::InvalidState, "the thread's system calls are filtered already"));
        }
        let refused = |e| Error::new(ErrorKind::Host, "the host does not filter system calls").with_source(e);
        self.programs.iter().try_for_each(|program| seccompiler::apply_filter(program).map_err(refused))?;
        note_filtered(if self.kind == Kind::Control { Filtered::AsControl } else { Filtered::AsVm });
        Ok(())
    }
}

/// Filters what the calling thread asks of the kernel from now on, and the threads that it starts: it may do what it takes to start, pause,
/// resume, watch, end and free VMs that were built before, to take snapshots of them, and to change their disks for others that are open. It builds none, and opens
/// neither files nor sockets. `docs/confinement.md` lists the calls, and says what becomes of others. With [`Seccomp::Off`], this does
/// nothing. It cannot be undone.
///
/// For a thread of the host program's own, such as a `main` that has started its VM and waits for it. Other threads that exist are not
/// affected.
///
/// ```no_run
/// use vmcell::{Boot, Seccomp, Vm, confine_this_thread};
///
/// let vm = Vm::builder().boot(Boot::linux("vmlinuz")).seccomp(Seccomp::Refuse).build()?;
/// confine_this_thread(Seccomp::Refuse)?;
/// vm.start()?;
/// vm.wait()?;
/// # Ok::<(), vmcell::Error>(())
/// ```
///
/// # Errors
/// [`ErrorKind::InvalidState`] on a thread of a VM, which is filtered already; [`ErrorKind::Host`] if the kernel has no filters of system
/// calls (`CONFIG_SECCOMP_FILTER`).
pub fn confine_this_thread(seccomp: Seccomp) -> Result<()> {
    ThreadFilter::new(Kind::Control, seccomp)?.map_or(Ok(()), |filter| filter.apply())
}

/// What a kind of thread may do.
fn listed(kind: Kind) -> Result<Rules> {
    let mut rules = Rules::new();
    for call in CALLS.iter().filter(|call| call.by.includes(kind)) {
        rules.entry(call.number).or_default().extend(rules_of(call)?);
    }
    Ok(rules)
}

/// What a kind of thread may do, and what is to fail rather than to kill; the list lets that pass.
fn apart(kind: Kind) -> Result<(Rules, Rules)> {
    let (mut listed, mut done_without) = (listed(kind)?, Rules::new());
    for number in DONE_WITHOUT {
        let call = CALLS.iter().find(|call| call.number == *number && call.by.includes(kind));
        match call.map(|call| call.only) {
            None => _ = done_without.insert(*number, Vec::new()),
            Some(Only::With(index, _, bits)) => _ = done_without.insert(*number, without_one_of(index, bits)?),
            Some(_) => continue,
        }
        listed.insert(*number, Vec::new());
    }
    Ok((listed, done_without))
}

/// As a kernel does that does not have the call.
fn refuse() -> SeccompAction {
    SeccompAction::Errno(libc::ENOSYS.unsigned_abs())
}

fn compile(rules: Rules, unlisted: SeccompAction, listed: SeccompAction) -> Result<BpfProgram> {
    let filter = SeccompFilter::new(rules, unlisted, listed, TargetArch::x86_64).map_err(malformed)?;
    BpfProgram::try_from(filter).map_err(malformed)
}

/// Any of these lets a call pass; if there is none, it always passes.
fn rules_of(call: &Call) -> Result<Vec<SeccompRule>> {
    use SeccompCmpArgLen::{Dword, Qword};
    use SeccompCmpOp::{Eq, MaskedEq};
    let one = |index, len, operator, value| SeccompCondition::new(index, len, operator, value);
    let conditions: Vec<Vec<_>> = match call.only {
        Only::Any => Vec::new(),
        Only::OneOf(index, values) => values.iter().map(|(_, value)| vec![one(index, Dword, Eq, *value)]).collect(),
        Only::With(index, _, bits) => vec![vec![one(index, Qword, MaskedEq(bits), bits)]],
        Only::Without(index, _, bits) => vec![vec![one(index, Qword, MaskedEq(bits), 0)]],
        Only::Own => vec![vec![one(0, Dword, Eq, u64::from(std::process::id()))]],
        Only::Zero(indices) => vec![indices.iter().map(|index| one(*index, Qword, Eq, 0)).collect()],
    };
    let rule = |conditions: Vec<std::result::Result<SeccompCondition, _>>| {
        conditions.into_iter().collect::<std::result::Result<Vec<_>, _>>().and_then(SeccompRule::new).map_err(malformed)
    };
    conditions.into_iter().map(rule).collect()
}

/// Each of these lets a call pass that lacks one of the bits.
fn without_one_of(index: u8, bits: u64) -> Result<Vec<SeccompRule>> {
    let single = (0..u64::BITS).map(|bit| 1 << bit).filter(|bit| bits & bit != 0);
    single
        .map(|bit| {
            let lacks = SeccompCondition::new(index, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(bit), 0);
            lacks.and_then(|lacks| SeccompRule::new(vec![lacks])).map_err(malformed)
        })
        .collect()
}

fn malformed(error: seccompiler::BackendError) -> Error {
    Error::new(ErrorKind::Host, "the filter of system calls cannot be made").with_source(error)
}
