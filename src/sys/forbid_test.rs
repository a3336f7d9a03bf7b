//! A sandbox, for tests: system calls that the host forbids to a thread.

/// From now on, and for as long as it lives, the calling thread and those that it starts get `errno` from the system call `number`.
pub(crate) fn forbid(number: libc::c_long, errno: libc::c_int) {
    let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let number = u32::try_from(number).expect("it is the number of a system call");
    let is_other = libc::sock_filter { jf: 1, ..statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, number) };
    let mut filter = [
        // The number is the first field of `seccomp_data`.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
        is_other,
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | errno as u32),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: plain integers, and a program that is valid for the call.
    let done = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) | libc::prctl(libc::PR_SET_SECCOMP, 2, &raw const program)
    };
    assert_eq!(done, 0, "the host lets a thread restrict itself");
}
