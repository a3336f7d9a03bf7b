//! Linux guests behind one address of a private network, and one that is started by the first packet to it.

mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use support::Transcript;
use support::linux::{LinuxGuest, RunningGuest, between, root_disk};
use vmcell::network::{MachineAddress, Network, NetworkConfig, Refusal, Rule, Service, ServiceConfig, Subnet};
use vmcell::{Nic, Seccomp, Vm};

const LONG: Duration = Duration::from_secs(300);
const SUBNET: Subnet = Subnet::new([0xac, 0x17, 0x05], 7);
/// How many connections a client makes.
const CONNECTIONS: usize = 8;

fn machine(number: u32) -> MachineAddress {
    SUBNET.machine(1, number).expect("a number that is allowed")
}

fn nic(network: &Network, number: u32) -> Nic {
    network.port(machine(number)).expect("the address is free").into_nic()
}

/// A network in which everybody may use the service, and nothing else.
fn network() -> Network {
    let network = Network::new(NetworkConfig::new(SUBNET)).expect("the defaults are allowed");
    let service = SUBNET.service(1).into();
    network.set_rules(&[Rule::allow().to(service).tcp(7000..=7000), Rule::allow().to(service).icmp()]).unwrap();
    network
}

/// A guest that waits until it has its address, and asks the network for names.
fn guest(script: &str) -> LinuxGuest {
    let setup = format!(
        r#"
in_root ip link set lo up; in_root ip link set eth0 up
for n in $(seq 200); do in_root ip -6 -o address show dev eth0 scope global -tentative | grep -q inet6 && break; sleep 0.2; done
echo nameserver {} > /root/tmp/resolv.conf && mount --bind /root/tmp/resolv.conf /root/etc/resolv.conf
"#,
        SUBNET.dns()
    );
    LinuxGuest::in_distribution(&format!("{setup}{script}")).limit(LONG)
}

/// Says who it is and the sum of what it was sent, for each connection.
fn server(network: &Network, number: u32) -> RunningGuest {
    let script = format!(
        r#"
printf 'echo vm{number} $(md5sum)\n' > /root/tmp/serve
in_root socat -t 60 TCP6-LISTEN:7000,fork,reuseaddr SYSTEM:"sh /tmp/serve" &
for n in $(seq 100); do in_root ss -ltn | grep -q :7000 && break; sleep 0.2; done
echo listening; sleep 1000
"#
    );
    let server = guest(&script).start(|builder| builder.memory_mib(384).disk(root_disk()).nic(nic(network, number)));
    server.expect("listening");
    server
}

fn flows_total(service: &Service) -> Vec<u64> {
    let mut members = service.members();
    members.sort_by_key(|member| member.machine.machine());
    members.iter().map(|member| member.flows_total).collect()
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn connections_to_one_address_spread_over_two_guests_and_carry_megabytes() {
    let network = network();
    let service = network.service(SUBNET.service(1), ServiceConfig::new().name("web")).unwrap();
    let servers = [2, 3].map(|number| server(&network, number));
    [2, 3].iter().for_each(|number| service.add(machine(*number)).unwrap());
    let client = format!(
        r#"
dd if=/dev/urandom of=/root/tmp/data bs=1M count=1 2>/dev/null
echo found=$(in_root getent ahostsv6 web.internal | grep STREAM | cut -d' ' -f1)-end
in_root ping -c 3 -i 0.2 -W 5 web.internal
echo sent=$(md5sum < /root/tmp/data | cut -d' ' -f1)-end
# At once: one that ends before the next begins leaves its member the one with the least.
for n in $(seq {CONNECTIONS}); do
    in_root sh -c 'socat -t 60 - TCP6:web.internal:7000 < /tmp/data > /tmp/answer'$n &
    pids="$pids $!"
done
wait $pids
sed 's/^/answer: /' /root/tmp/answer*
in_root timeout 5 socat -u TCP6:[{two}]:7000 STDOUT && echo reached-by-itself
echo "errors $(cat /sys/class/net/eth0/statistics/rx_errors /sys/class/net/eth0/statistics/tx_errors | tr '\n' ' ')"
"#,
        two = machine(2).ip(),
    );
    let text = guest(&client).run(|builder| builder.memory_mib(384).disk(root_disk()).nic(nic(&network, 1)));
    assert_eq!(between(&text, "found=", "-end"), SUBNET.service(1).to_string(), "{text}");
    assert!(text.contains(" 0% packet loss") && text.contains("errors 0 0"), "{text}");
    let sum = between(&text, "sent=", "-end");
    let answers = |name: &str| text.matches(&format!("answer: {name} {sum}")).count();
    assert_eq!(answers("vm2") + answers("vm3"), CONNECTIONS, "{text}");
    assert!(answers("vm2") > 0 && answers("vm3") > 0, "{text}");
    assert!(!text.contains("reached-by-itself"), "{text}");
    assert_eq!(flows_total(&service).iter().sum::<u64>(), CONNECTIONS as u64 + 1, "one of them is the ping");
    for reason in [Refusal::Malformed, Refusal::FlowTable, Refusal::NoMember] {
        assert_eq!(network.dropped(reason), 0, "{reason:?}");
    }
    servers.iter().for_each(|server| server.vm.stop().unwrap());
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn the_first_syn_to_a_service_starts_a_fork_that_answers_it() {
    let network = network();
    // The server as it is when it listens. Its fork takes its place.
    let source = server(&network, 2);
    let snapshot = source.vm.snapshot().expect("a snapshot");
    source.vm.stop().unwrap();
    drop(source);
    let forks = Arc::new(Mutex::new(Vec::<(Vm, Transcript)>::new()));
    let (keeps, starts) = (Arc::clone(&forks), network.clone());
    let config = ServiceConfig::new().name("web").hold_time(LONG).on_demand(move |demand| {
        let transcript = Transcript::default();
        let builder = Vm::builder().fork_of(&snapshot).disk(root_disk()).nic(nic(&starts, 2));
        let vm = builder.console(transcript.console()).seccomp(Seccomp::Kill).build()?;
        vm.start()?;
        demand.service().add(machine(2))?;
        keeps.lock().unwrap().push((vm, transcript));
        Ok(())
    });
    let service = network.service(SUBNET.service(1), config).unwrap();
    let client = r#"
echo begin-answer
in_root bash -c 'time { echo hello | socat -t 60 - TCP6:web.internal:7000; }' 2>&1
echo end-answer
echo begin-second
in_root sh -c 'echo hello | socat -t 60 - TCP6:web.internal:7000'
echo end-second
"#;
    let text = guest(client).run(|builder| builder.memory_mib(384).disk(root_disk()).nic(nic(&network, 1)));
    let metrics = service.metrics();
    let sum = "vm2 b1946ac92492d2347c6235b4d2611184";
    let forks = std::mem::take(&mut *forks.lock().unwrap());
    let said: String = forks.iter().map(|(_, transcript)| transcript.text()).collect();
    assert!(between(&text, "begin-answer", "end-answer").contains(sum), "{metrics:?} {text} {said}");
    assert!(between(&text, "begin-second", "end-second").contains(sum), "{metrics:?} {text} {said}");
    assert_eq!((metrics["service_calls"], metrics["service_held"], metrics["service_replayed"]), (1, 1, 1), "{text}");
    assert_eq!((metrics["service_flows"], network.dropped(Refusal::NoMember)), (2, 0), "{text}");
    assert!(network.idle(machine(2)).is_some_and(|idle| idle < LONG));
    assert_eq!(forks.len(), 1);
    forks.iter().for_each(|(vm, _)| vm.stop().unwrap());
}
