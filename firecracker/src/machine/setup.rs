//! What the command line says of the machine.

use vmcell::Seccomp;

/// What is the program's choice and not the client's.
#[derive(Clone, Debug)]
pub struct Setup {
    /// What the machine is called.
    pub id: String,
    /// What becomes of system calls that the machine's threads have no reason to make.
    pub seccomp: Seccomp,
    /// The most that the metadata service holds, in bytes.
    pub most_metadata: usize,
}
