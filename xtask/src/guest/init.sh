#!/bin/sh
# The first program in a guest. It loads the drivers, then
#   runs /test.sh and powers off, if an archive appended to this initrd brought one; otherwise
#   mounts root= and goes on there with /run/vmcell/init, which is
#     the file of that name on the device that vmcell.assets= names (the nested host), or
#     shell.sh of this initrd.
# On the command line: root=DEVICE, rootfstype= (ext4), ro or rw, vmcell.assets=DEVICE, vmcell.nomodules.
export PATH=/bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys

root= rootfstype=ext4 mode=ro assets= nomodules=
read -r line </proc/cmdline
for word in $line; do
    case $word in
        root=*) root=${word#*=} ;;
        rootfstype=*) rootfstype=${word#*=} ;;
        ro | rw) mode=$word ;;
        vmcell.assets=*) assets=${word#*=} ;;
        vmcell.nomodules) nomodules=1 ;;
    esac
done

# A kernel that is not the one these modules were made for refuses them; it may have the drivers built in.
[ -n "$nomodules" ] || for module in /modules/*.ko; do
    [ -e "$module" ] && insmod "$module" 2>/dev/null
done

if [ -f /test.sh ]; then
    sh /test.sh
    poweroff -f
fi

give_up() {
    echo "init: $*" >/dev/console
    poweroff -f
}

await() {
    tries=0
    until [ -b "$1" ]; do
        tries=$((tries + 1))
        [ $tries -le 100 ] || give_up "no $1 after 10 seconds"
        usleep 100000
    done
}

[ -n "$root" ] || give_up "neither /test.sh nor root= on the command line"
await "$root"
mount -t "$rootfstype" -o "$mode" "$root" /newroot || give_up "cannot mount $root as $rootfstype"
mount -t tmpfs -o mode=755 run /newroot/run
mkdir /newroot/run/vmcell
if [ -n "$assets" ]; then
    await "$assets"
    mount -t ext4 "$assets" /newroot/run/vmcell || give_up "cannot mount $assets"
else
    cp /shell.sh /newroot/run/vmcell/init
    cp /bin/busybox /newroot/run/vmcell/busybox
    [ ! -f /script ] || cp /script /newroot/run/vmcell/script
fi
for dir in dev proc sys; do
    mount --move /$dir /newroot/$dir
done
exec switch_root /newroot /run/vmcell/init
