//! Linux guests at the ports of a private network: what they make of it, and what they can do to each other.

mod support;

use std::time::Duration;

use support::Transcript;
use support::linux::{LinuxGuest, RunningGuest, between, root_disk};
use vmcell::network::{MachineAddress, Network, NetworkConfig, Refusal, Rule, Subnet};
use vmcell::{Nic, Vm};

const LONG: Duration = Duration::from_secs(150);
const SUBNET: Subnet = Subnet::new([0xac, 0x17, 0x05], 7);

fn machine(number: u32) -> MachineAddress {
    SUBNET.machine(1, number).expect("a number that is allowed")
}

/// The card of a machine that is called `vm` and its number.
fn nic(network: &Network, number: u32) -> Nic {
    let port = network.port(machine(number)).expect("the address is free");
    port.named(&format!("vm{number}")).expect("a plain name").into_nic()
}

/// A guest that does no more for its network than to turn its card on.
fn guest(script: &str) -> LinuxGuest {
    let setup = r#"
in_root ip link set lo up; in_root ip link set eth0 up
for n in $(seq 200); do in_root ip -6 -o address show dev eth0 scope global -tentative | grep -q inet6 && break; sleep 0.2; done
echo addresses=$(in_root ip -6 -o address show dev eth0 -tentative | grep -o 'inet6 [^ ]*' | sort | tr '\n' ',')-end
"#;
    let limit = if support::is_long() { 6 * LONG } else { LONG };
    LinuxGuest::in_distribution(&format!("{setup}{script}")).limit(limit)
}

fn serve(network: &Network, number: u32, script: &str) -> RunningGuest {
    let server = guest(script).start(|builder| builder.memory_mib(512).disk(root_disk()).nic(nic(network, number)));
    server.expect("listening");
    server
}

fn run(network: &Network, number: u32, script: &str) -> String {
    guest(script).run(|builder| builder.memory_mib(512).disk(root_disk()).nic(nic(network, number)))
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn guests_make_their_addresses_themselves_and_send_each_other_megabytes() {
    let network = Network::new(NetworkConfig::new(SUBNET)).unwrap();
    let two = machine(2).ip();
    network.set_rules(&[Rule::allow().to(two.into()).tcp(7000..=7001), Rule::allow().icmp()]).unwrap();
    let server = r#"
mount -t tmpfs -o size=90% big /tmp
echo listening
in_root socat -u TCP6-LISTEN:7000 STDOUT > /tmp/data
echo got=$(md5sum < /tmp/data | cut -d' ' -f1)-end
in_root socat -u STDIN TCP6-LISTEN:7001 < /tmp/data; echo served
"#;
    let server = serve(&network, 2, server);
    let mib = if support::is_long() { 100 } else { 8 };
    let client = format!(
        r#"
mount -t tmpfs -o size=90% big /tmp
echo mtu=$(cat /sys/class/net/eth0/mtu)-end
echo nameserver {dns} > /root/tmp/resolv.conf && mount --bind /root/tmp/resolv.conf /root/etc/resolv.conf
echo found=$(in_root getent ahostsv6 vm2.internal | grep STREAM | cut -d' ' -f1)-end
echo missing=$(in_root getent ahostsv6 vm3.internal; echo $?)-end
in_root ip -6 route show | sed 's/^/route: /'
in_root ping -c 3 -i 0.2 -W 5 vm2.internal
dd if=/dev/urandom of=/tmp/data bs=1M count={mib} 2>/dev/null
echo sent=$(md5sum < /tmp/data | cut -d' ' -f1)-end
in_root socat -u STDIN TCP6:[{two}]:7000 < /tmp/data
for n in 1 2 3 4 5 6 7 8 9; do in_root socat -u TCP6:[{two}]:7001 STDOUT > /tmp/back && break; sleep 1; done
echo back=$(md5sum < /tmp/back | cut -d' ' -f1)-end
echo "errors $(cat /sys/class/net/eth0/statistics/rx_errors /sys/class/net/eth0/statistics/tx_errors | tr '\n' ' ')"
"#,
        dns = SUBNET.dns(),
    );
    let text = run(&network, 1, &client);
    let own = machine(1);
    let addresses = format!("inet6 {}/64,inet6 {}/64,", own.ip(), own.link_local());
    assert_eq!(between(&text, "addresses=", "-end"), addresses, "{text}");
    assert_eq!(between(&text, "mtu=", "-end"), "1420");
    assert_eq!(between(&text, "found=", "-end"), two.to_string(), "{text}");
    assert_eq!(between(&text, "missing=", "-end"), "2", "{text}");
    assert!(text.contains("default via fe80::1") && text.contains("pref low"), "{text}");
    assert!(text.contains(" 0% packet loss") && text.contains("errors 0 0"), "{text}");
    let sum = between(&text, "sent=", "-end");
    assert_eq!(between(&text, "back=", "-end"), sum, "{text}");
    assert_eq!(between(&server.finish(), "got=", "-end"), sum);
    for reason in [Refusal::Malformed, Refusal::SourceAddress, Refusal::SourceMac, Refusal::FlowTable] {
        assert_eq!(network.dropped(reason), 0, "{reason:?}");
    }
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn iperf3_runs_both_ways_and_jumbo_packets_pass_whole() {
    let network = Network::new(NetworkConfig::new(SUBNET).mtu(9000)).unwrap();
    let two = machine(2).ip();
    network.set_rules(&[Rule::allow().from(machine(1).ip().into())]).unwrap();
    let server = serve(&network, 2, "echo listening; for n in 1 2 3; do in_root iperf3 -s -1; done; echo served");
    let client = format!(
        r#"
echo mtu=$(cat /sys/class/net/eth0/mtu)-end
in_root ping -M do -s 8952 -c 3 -i 0.2 -W 5 {two}
try() {{ for n in 1 2 3 4 5 6 7 8 9; do in_root iperf3 -6 -c {two} -f m "$@" && return; sleep 1; done; return 1; }}
try -t 3 && echo sent-fine
try -t 3 -R && echo received-fine
try -t 2 -u -b 20M -l 1300 && echo udp-fine
"#
    );
    let text = run(&network, 1, &client);
    assert_eq!(between(&text, "mtu=", "-end"), "9000");
    assert!(text.contains(" 0% packet loss"), "{text}");
    for done in ["sent-fine", "received-fine", "udp-fine"] {
        assert!(text.contains(done), "no {done} in {text}");
    }
    assert!(server.finish().contains("served"));
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn a_scan_from_another_machine_sees_nothing_that_was_not_allowed() {
    let network = Network::new(NetworkConfig::new(SUBNET)).unwrap();
    let (two, three) = (machine(2).ip(), machine(3).ip());
    network.set_rules(&[Rule::allow().to(two.into()).tcp(7001..=7001)]).unwrap();
    // Two services, of which one is allowed; machine 3 does not exist.
    let server = r#"
in_root sh -c 'for port in 7000 7001; do socat TCP6-LISTEN:$port,fork,reuseaddr SYSTEM:"echo hello" & done; sleep 1'
echo listening; sleep 1000
"#;
    let server = serve(&network, 2, server);
    let client = format!(
        r#"
scan() {{ in_root nmap -6 -n --max-retries 1 --max-rtt-timeout 500ms --host-timeout 25s "$@" 2>&1 | sed 's/^/nmap: /'; }}
echo begin-discovery; scan -sn {two} {three}; echo end-discovery
echo begin-ports; scan -Pn -p 7000-7001 {two}; echo end-ports
echo begin-nobody; scan -Pn -p 7000-7001 {three}; echo end-nobody
echo begin-udp; scan -Pn -sU -p 53,7001 {two}; echo end-udp
in_root timeout 5 socat -u TCP6:[{two}]:7001 STDOUT
in_root ip -6 neighbour show dev eth0 | sed 's/^/neighbour: /'
"#
    );
    let text = run(&network, 1, &client);
    server.vm.stop().unwrap();
    let ports = between(&text, "begin-ports", "end-ports");
    assert!(ports.contains("7000/tcp filtered") && ports.contains("7001/tcp open"), "{text}");
    let nobody = between(&text, "begin-nobody", "end-nobody");
    assert!(nobody.contains("7000/tcp filtered") && nobody.contains("7001/tcp filtered"), "{text}");
    let udp = between(&text, "begin-udp", "end-udp");
    assert!(udp.contains("53/udp") && !udp.contains(" open ") && !udp.contains(" closed "), "{text}");
    assert!(text.contains("hello"), "what is allowed works:\n{text}");
    // All neighbours look the same, whether they are there or not.
    assert!(!text.contains(&format!("neighbour: {three} FAILED")), "{text}");
    assert!(network.dropped(Refusal::Policy) > 0);
}

/// Says to each client how it sees it, and asks whoever is typed the same.
const WHO: &str = r#"
in_root socat TCP6-LISTEN:7000,fork,reuseaddr SYSTEM:'echo you are $SOCAT_PEERADDR' &
for n in $(seq 100); do in_root ss -ltn | grep -q :7000 && break; sleep 0.2; done
echo listening
while read -r to && [ "$to" != end ]; do
    # The card of a fork is there a while after the fork is.
    for n in $(seq 30); do
        answer=$(in_root timeout 5 socat -u TCP6:[$to]:7000,connect-timeout=4 STDOUT)
        [ -n "$answer" ] && break
        sleep 1
    done
    echo "$to says: $answer end"
done
"#;

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn forks_of_one_guest_reach_each_other_and_the_one_that_they_do_not_know_of() {
    let network = Network::new(NetworkConfig::new(SUBNET)).unwrap();
    network.set_rules(&[Rule::allow().tcp(7000..=7000)]).unwrap();
    let other = serve(&network, 1, WHO);
    let source = serve(&network, 2, WHO);
    let snapshot = source.vm.snapshot().expect("a snapshot");
    let forks = [3, 4].map(|number| {
        let (transcript, port) = (Transcript::default(), network.port_for_clone(machine(number), machine(2)).unwrap());
        let builder = Vm::builder().fork_of(&snapshot).disk(root_disk()).nic(port.into_nic());
        let vm = builder.console(transcript.console()).build().unwrap_or_else(|e| panic!("{}", e.chain()));
        vm.start().expect("the fork starts");
        (number, vm, transcript)
    });
    let whole = |number| machine(number).ip().segments().map(|part| format!("{part:04x}")).join(":");
    for (number, vm, transcript) in &forks {
        for to in [1, if *number == 3 { 4 } else { 3 }] {
            let line = format!("{}\n", machine(to).ip());
            assert_eq!(vm.write_console(line.as_bytes()), line.len());
            let answer = format!("{} says: you are [{}] end", machine(to).ip(), whole(*number));
            assert!(transcript.wait_until(LONG, |text| text.contains(&answer)), "{answer:?}:\n{}", transcript.text());
        }
    }
    // The other way, to each by its own address; the source goes on beside its forks.
    for number in [2, 3, 4] {
        other.type_in(&format!("{}\n", machine(number).ip()));
        other.expect(&format!("{} says: you are [{}] end", machine(number).ip(), whole(1)));
    }
    forks.iter().for_each(|(_, vm, _)| vm.stop().unwrap());
    [source, other].iter().for_each(|guest| guest.vm.stop().unwrap());
}
