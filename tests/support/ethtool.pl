# What the program ethtool would say of eth0: "channels" tells how many pairs of queues are in use, and sets that to the number that
# follows; "packets" tells how many packets went through each queue. The numbers are those of <linux/ethtool.h>.
use strict;
my ($what, $count) = @ARGV;
socket(my $socket, 2, 2, 0) or die "socket: $!";
sub ask {
    my $request = pack("a16P", "eth0", $_[0]);
    ioctl($socket, 0x8946, $request) or die "$what: $!\n";
}
if ($what eq "channels") {
    my $channels = pack("L9", 0x3c, (0) x 8);
    ask($channels);
    if ($count) {
        my @fields = unpack("L9", $channels);
        @fields[0, 8] = (0x3d, $count);
        $channels = pack("L9", @fields);
        ask($channels);
    }
    my @fields = unpack("L9", $channels);
    print "channels $fields[8] of $fields[4]\n";
} else {
    my $names = pack("L3", 0x1b, 1, 0) . "\0" x 16384;
    ask($names);
    my $n = (unpack("L3", $names))[2];
    my $values = pack("L2", 0x1d, $n) . "\0" x 16384;
    ask($values);
    my @values = unpack("x8Q$n", $values);
    for my $index (0 .. $n - 1) {
        my $name = unpack("Z32", substr($names, 12 + 32 * $index, 32));
        # Linux 6.1 calls it rx_queue_0_packets, and 6.12 rx0_packets.
        print "${1}_queue_${2}_packets=$values[$index];\n" if $name =~ /^([rt]x)(?:_queue_)?(\d+)_packets$/;
    }
}
