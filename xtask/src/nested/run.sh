# What the nested host of `cargo xtask run` does: a TAP device, the launcher on the console, and its exit status as a marker.
dmesg -n 1 # the console is the guest's
@TAP_UP@
# The launcher's guest ends its lines itself.
stty -F /dev/ttyS0 raw -echo
@LAUNCH@ </dev/ttyS0 >/dev/ttyS0 2>&1
code=$?
printf 'vmcell: the launcher ended, the nested host powers off\r\n' >/dev/ttyS0
printf '@vmcell launcher %s\n' $code >/dev/ttyS1
