# What the program ethtool would say of eth0: "channels" tells how many pairs of queues are in use, and sets that to the number that
# follows; "packets" tells how many packets went through each queue. The numbers are those of <linux/ethtool.h>, and of
# <linux/netdev.h> for Linux 6.12, which tells packets by netlink alone.
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
    my $found = 0;
    for my $index (0 .. $n - 1) {
        my $name = unpack("Z32", substr($names, 12 + 32 * $index, 32));
        next unless $name =~ /^([rt]x)_queue_(\d+)_packets$/;
        print "${1}_queue_${2}_packets=$values[$index];\n";
        $found = 1;
    }
    packets_by_netlink() unless $found;
}

sub attribute {
    my ($kind, $data) = @_;
    my $len = 4 + length $data;
    return pack("S2", $len, $kind) . $data . "\0" x (-$len % 4);
}

sub attributes {
    my ($bytes, %found) = @_;
    while (length $bytes >= 4) {
        my ($len, $kind) = unpack("S2", $bytes);
        $found{$kind} = substr($bytes, 4, $len - 4);
        $bytes = substr($bytes, ($len + 3) & ~3);
    }
    return %found;
}

# The attributes of each message of the answer.
sub netlink {
    my ($socket, $family, $flags, $command, $attributes) = @_;
    my $body = pack("C2S", $command, 1, 0) . $attributes;
    syswrite($socket, pack("LS2L2", 16 + length $body, $family, 1 | $flags, 1, 0) . $body) or die "netlink: $!";
    my @answers;
    while (sysread($socket, my $bytes, 65536)) {
        while (length $bytes >= 16) {
            my ($len, $kind) = unpack("LS", $bytes);
            return @answers if $kind == 3;
            die "netlink: error " . unpack("x16l", $bytes) . "\n" if $kind == 2;
            push @answers, {attributes(substr($bytes, 20, $len - 20))};
            $bytes = substr($bytes, ($len + 3) & ~3);
        }
        return @answers unless $flags;
    }
}

sub number { my ($bytes) = @_; return length $bytes == 8 ? unpack("Q", $bytes) : unpack("L", $bytes); }

sub packets_by_netlink {
    socket(my $socket, 16, 3, 16) or die "socket: $!";
    my ($family) = netlink($socket, 16, 0, 3, attribute(2, "netdev\0"));
    for my $queue (netlink($socket, unpack("S", $family->{1}), 0x300, 12, attribute(4, pack("L", 1)))) {
        my ($name, $packets) = number($queue->{2}) == 0 ? ("rx", 8) : ("tx", 10);
        print "${name}_queue_" . number($queue->{3}) . "_packets=" . number($queue->{$packets}) . ";\n";
    }
}
