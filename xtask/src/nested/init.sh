#!/bin/sh
# The first program on the nested host's root file system: makes a KVM host of it, then does what `main` says.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
here=/run/vmcell
export TMPDIR=$here/tmp

mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
for module in $here/modules/*.ko; do
    [ ! -e "$module" ] || insmod "$module" || echo "init: $module was not loaded"
done
# Otherwise one huge page more or less decides over a memory figure.
echo madvise >/sys/kernel/mm/transparent_hugepage/enabled
ip link set lo up
[ -c /dev/kvm ] || echo 'init: no /dev/kvm'

. $here/main
# There is no service manager to ask: the kernel does it.
sync
echo o >/proc/sysrq-trigger
while :; do sleep 1; done
