//! Which of the host's CPUs a thread may run on.

use std::io;

use super::thread::spawn;

/// As many CPUs as Linux can be built for on any machine that we run on.
const MAX_CPUS: usize = 8192;

/// A set of CPUs, as the kernel takes and gives it: a bit each.
pub(crate) struct CpuSet([u64; MAX_CPUS / 64]);

impl CpuSet {
    /// # Errors
    /// If there is a number that no CPU has.
    pub(crate) fn new(cpus: &[u32]) -> io::Result<Self> {
        let mut words = [0u64; MAX_CPUS / 64];
        for cpu in cpus {
            let word = words.get_mut(*cpu as usize / 64).ok_or(io::ErrorKind::InvalidInput)?;
            *word |= 1 << (cpu % 64);
        }
        Ok(Self(words))
    }

    /// The numbers of its CPUs, in order.
    pub(crate) fn cpus(&self) -> Vec<u32> {
        let bits = self.0.iter().flat_map(|word| (0..64).map(move |bit| word >> bit & 1 == 1));
        (0..).zip(bits).filter(|(_, is_in)| *is_in).map(|(cpu, _)| cpu).collect()
    }

    /// Those of the calling thread.
    pub(crate) fn of_this_thread() -> io::Result<Self> {
        let mut set = Self([0; MAX_CPUS / 64]);
        // SAFETY: the kernel writes at most as many bytes as it is told that there are, and any bits are a valid set.
        let result = unsafe { libc::sched_getaffinity(0, size_of_val(&set.0), set.0.as_mut_ptr().cast()) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(set) }
    }

    /// Lets the calling thread run on these CPUs only.
    ///
    /// # Errors
    /// What the kernel says; `InvalidInput` if the host does not allow all of them, of which the kernel would say nothing.
    pub(crate) fn bind_this_thread(&self) -> io::Result<()> {
        // SAFETY: the kernel reads as many bytes as it is told that there are.
        let result = unsafe { libc::sched_setaffinity(0, size_of_val(&self.0), self.0.as_ptr().cast()) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        if Self::of_this_thread()?.0 == self.0 { Ok(()) } else { Err(io::ErrorKind::InvalidInput.into()) }
    }

    /// In the C library's form, which has room for 1024 CPUs.
    pub(super) fn in_c(&self) -> libc::cpu_set_t {
        // SAFETY: it is plain integers, for which zero is a valid value.
        let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        for cpu in self.cpus().into_iter().map(|cpu| cpu as usize).filter(|cpu| *cpu < libc::CPU_SETSIZE as usize) {
            // SAFETY: the number is smaller than the size of the set.
            unsafe { libc::CPU_SET(cpu, &mut set) };
        }
        set
    }
}

/// The CPUs that threads of this process may be bound to, in order. Asks from a thread of its own, so that the caller stays
/// where it is.
pub(crate) fn allowed_cpus() -> io::Result<Vec<u32>> {
    let (reply, answer) = std::sync::mpsc::sync_channel(1);
    let ask = move || {
        // The kernel takes those of them that are allowed.
        let _ = CpuSet([u64::MAX; MAX_CPUS / 64]).bind_this_thread();
        let _ = reply.send(CpuSet::of_this_thread().map(|set| set.cpus()));
    };
    spawn("vmcell-cpus", ask).map_err(io::Error::other)?.join();
    answer.recv().map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_gives_the_cpus_that_it_was_made_of() {
        assert_eq!(CpuSet::new(&[0, 63, 64, 8191, 1]).unwrap().cpus(), [0, 1, 63, 64, 8191]);
        assert!(CpuSet::new(&[8192]).is_err());
    }

    #[test]
    fn a_thread_is_bound_to_what_is_allowed_and_to_nothing_else() {
        let allowed = allowed_cpus().unwrap();
        let last = *allowed.last().unwrap();
        std::thread::spawn(move || {
            CpuSet::new(&[last]).unwrap().bind_this_thread().unwrap();
            assert_eq!(CpuSet::of_this_thread().unwrap().cpus(), [last]);
            assert!(CpuSet::new(&[last, 8191]).unwrap().bind_this_thread().is_err(), "the kernel drops CPU 8191");
        })
        .join()
        .unwrap();
        assert_eq!(allowed_cpus().unwrap(), allowed);
    }
}
