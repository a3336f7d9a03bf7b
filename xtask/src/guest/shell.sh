#!/bin/sh
# The first program on a guest's own root file system: network, a ping to the host, a shell on the console, and power off.
# On the command line: vmcell.address=ADDRESS/PREFIX and vmcell.host=ADDRESS.
# Where an archive appended to the initrd brought a /script, the shell reads that instead of the console.
run=/run/vmcell
box=$run/busybox
# Tools that the root file system may lack stand behind its own; poweroff stands before, as it has no service manager here.
export HOME=/root TERM=${TERM:-vt100} PATH=$run/sbin:/usr/sbin:/usr/bin:/sbin:/bin:$run/bin

address= host=
read -r line </proc/cmdline
for word in $line; do
    case $word in
        vmcell.address=*) address=${word#*=} ;;
        vmcell.host=*) host=${word#*=} ;;
    esac
done

$box mkdir -p $run/bin $run/sbin /dev/pts /dev/shm
$box --install -s $run/bin
$box mount -t devpts devpts /dev/pts
# The lines that begin with `vmcell:` are read by xtask.
for word in poweroff reboot halt; do
    cat >$run/sbin/$word <<END
#!/bin/sh
echo 'vmcell: the guest ends on purpose' >/dev/console
sync
mount -o remount,ro / 2>/dev/null
exec $box $word -f
END
    chmod +x $run/sbin/$word
done
hostname vmcell

status=0
ip link set lo up
if [ -n "$address" ]; then
    ip address add "$address" dev eth0 && ip link set eth0 up
    ping -c 3 "$host" || status=$?
fi

shell=$(command -v bash || echo sh)
cd "$HOME" || cd /
echo 'vmcell: the guest is up'
if [ -f $run/script ]; then
    $shell <$run/script || status=$?
else
    echo "$(. /etc/os-release && echo "$PRETTY_NAME"), Linux $(uname -r). To leave: poweroff, or end the shell."
    # A shell wants a terminal of its own for job control, and init's console cannot be one.
    setsid -c "$shell" </dev/ttyS0 >/dev/ttyS0 2>&1 || status=$?
fi
echo "vmcell: the guest's shell ended with status $status"
poweroff
