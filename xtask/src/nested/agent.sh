# The nested host's end of the second serial line: runs the tests that xtask names, one at a time. See session.rs.
line=/dev/ttyS1
exec 3<>$line
stty -F $line raw -echo
# One byte every two seconds says that this machine still runs; xtask takes it out of the lines.
while :; do
    printf '\005' >&3
    sleep 2
done &

printf '\n@vmcell ready\n' >&3
while read -r verb id limit binary name <&3; do
    [ "$verb" = run ] || break
    cd $TMPDIR || break
    timeout --kill-after=5 "$limit" $here/$binary --ignored --exact "$name" --nocapture >&3 2>&1 3>&- </dev/null
    code=$?
    cd /
    # The next test finds nothing of this one.
    pkill -KILL -x launch
    for link in /sys/class/net/*; do
        [ "${link##*/}" = lo ] || ip link delete "${link##*/}"
    done
    rm -rf "$TMPDIR"
    mkdir "$TMPDIR"
    printf '\n@vmcell end %s %s\n' "$id" "$code" >&3
done
