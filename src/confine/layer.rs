//! The layers of a jail, and what became of each.

use std::fmt;

/// What a [`Jail`](crate::Jail) takes from its process.
///
/// A jail has those of the first group unless it is [told otherwise](crate::Jail::without), and those of the second if it is told what
/// is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum JailLayer {
    /// A user namespace of its own (user_namespaces(7)): the process has no capabilities over anything of the host's, and needs no
    /// privileges for the layers below that want some.
    UserNamespace,
    /// A network namespace of its own, in which there is no network. Sockets and TAP devices that are open stay as they are.
    NetworkNamespace,
    /// An IPC namespace of its own: no shared memory, semaphores or message queues of others.
    IpcNamespace,
    /// A UTS namespace of its own: the host's name is not the process's to change.
    UtsNamespace,
    /// A cgroup namespace of its own: the process does not see where in the hierarchy it is.
    CgroupNamespace,
    /// A mount namespace whose root is empty and read-only, but for what is [kept](crate::Jail::keep). What is open stays open.
    EmptyRoot,
    /// No further user namespaces, in which the process would have capabilities again.
    NestedNamespaces,
    /// Programs that the process executes gain no rights (`PR_SET_NO_NEW_PRIVS`).
    NewPrivileges,
    /// Landlock: no file is opened, made, renamed or removed, but for what is [kept](crate::Jail::keep). Descriptors that are open stay
    /// usable.
    Files,
    /// Landlock: no TCP connection is made, and no port can be connected to (Linux 6.7). Sockets that are connected stay so.
    Tcp,
    /// Landlock: no signals to processes outside, and no abstract sockets of theirs (Linux 6.12).
    Outside,
    /// No capabilities (capabilities(7)), and none to be had from a program.
    Capabilities,
    /// No core dump, and no other process without privileges looks into this one (`PR_SET_DUMPABLE`).
    LookingIn,
    /// A cgroup; see [`Jail::cgroup`](crate::Jail::cgroup).
    Cgroup,
    /// The limits of its memory.
    CgroupMemory,
    /// The limit of its processes and threads.
    CgroupProcesses,
    /// The limits of its CPU time.
    CgroupCpu,
    /// The limits of what it does with block devices.
    CgroupIo,
    /// Limits of resources; see [`Jail::limit`](crate::Jail::limit).
    Limits,
    /// Descriptors that were inherited are closed; see [`Jail::close`](crate::Jail::close).
    Descriptors,
}

impl fmt::Display for JailLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UserNamespace => "a user namespace",
            Self::NetworkNamespace => "a network namespace",
            Self::IpcNamespace => "an IPC namespace",
            Self::UtsNamespace => "a UTS namespace",
            Self::CgroupNamespace => "a cgroup namespace",
            Self::EmptyRoot => "an empty root",
            Self::NestedNamespaces => "a ban on user namespaces",
            Self::NewPrivileges => "a ban on new privileges",
            Self::Files => "Landlock for files",
            Self::Tcp => "Landlock for TCP",
            Self::Outside => "Landlock for signals",
            Self::Capabilities => "dropped capabilities",
            Self::LookingIn => "a ban on looking in",
            Self::Cgroup => "the cgroup",
            Self::CgroupMemory => "the cgroup's limit of memory",
            Self::CgroupProcesses => "the cgroup's limit of processes",
            Self::CgroupCpu => "the cgroup's limit of CPU time",
            Self::CgroupIo => "the cgroup's limit of I/O",
            Self::Limits => "the limits of resources",
            Self::Descriptors => "closed descriptors",
        })
    }
}

/// What became of each layer that was wanted. Its text is one line that says what is missing, and why; it is empty if nothing is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "it says what is missing"]
pub struct JailReport {
    layers: Vec<(JailLayer, Option<String>)>,
}

impl JailReport {
    pub(super) fn add(&mut self, layer: JailLayer, became: Result<(), String>) {
        self.layers.push((layer, became.err()));
    }

    /// Whether a layer is in place. A layer that was not wanted is not.
    pub fn has(&self, layer: JailLayer) -> bool {
        self.layers.iter().any(|(other, missing)| *other == layer && missing.is_none())
    }

    /// The layers that were wanted and that the host does not give, each with the reason.
    pub fn missing(&self) -> impl Iterator<Item = (JailLayer, &str)> {
        self.layers.iter().filter_map(|(layer, missing)| Some((*layer, missing.as_deref()?)))
    }

    /// The layers that are in place.
    pub fn in_place(&self) -> impl Iterator<Item = JailLayer> {
        self.layers.iter().filter(|(_, missing)| missing.is_none()).map(|(layer, _)| *layer)
    }

    /// Whether every layer that was wanted is in place.
    pub fn is_complete(&self) -> bool {
        self.missing().next().is_none()
    }
}

impl fmt::Display for JailReport {
    /// Layers with the same reason stand together.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut reasons: Vec<(&str, Vec<String>)> = Vec::new();
        for (layer, reason) in self.missing() {
            match reasons.iter_mut().find(|(known, _)| *known == reason) {
                Some((_, layers)) => layers.push(layer.to_string()),
                None => reasons.push((reason, vec![layer.to_string()])),
            }
        }
        for (index, (reason, layers)) in reasons.iter().enumerate() {
            let begin = if index == 0 { "without " } else { "; without " };
            write!(f, "{begin}{} ({reason})", layers.join(", "))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_one_line_in_which_layers_with_the_same_reason_stand_together() {
        let mut report = JailReport::default();
        report.add(JailLayer::NewPrivileges, Ok(()));
        assert_eq!((report.to_string().as_str(), report.is_complete()), ("", true));
        let refused = || Err("not permitted".to_owned());
        report.add(JailLayer::UserNamespace, refused());
        report.add(JailLayer::Files, Err("no Landlock".to_owned()));
        report.add(JailLayer::EmptyRoot, refused());
        let line = "without a user namespace, an empty root (not permitted); without Landlock for files (no Landlock)";
        assert_eq!(report.to_string(), line);
        assert_eq!(report.in_place().collect::<Vec<_>>(), [JailLayer::NewPrivileges]);
        assert!(report.has(JailLayer::NewPrivileges) && !report.has(JailLayer::Files) && !report.is_complete());
        assert!(!report.has(JailLayer::Cgroup), "nobody asked for it");
    }
}
