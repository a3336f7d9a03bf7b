package vmcell_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	vmcell "example.com/vmcell"
)

const realm = 0xac1705

func newNetwork(t *testing.T) *vmcell.Network {
	network, err := vmcell.NewNetwork(vmcell.NetworkOptions{Realm: realm, Number: 7})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { network.Close() })
	return network
}

func TestAddressesAreMadeOfNumbersAndReadBack(t *testing.T) {
	machine := vmcell.MachineAddress{Realm: realm, Network: 7, Host: 1, Machine: 2}
	ip, err := machine.IP()
	if err != nil || ip.String() != "fdac:1705:0:7:0:1ff:fe00:2" {
		t.Fatal(ip, err)
	}
	if read, err := vmcell.ParseMachineAddress(ip); err != nil || read != machine {
		t.Error(read, err)
	}
	if local, err := machine.LinkLocal(); err != nil || local.String() != "fe80::1ff:fe00:2" {
		t.Error(local, err)
	}
	if mac, err := machine.MAC(); err != nil || mac.String() != "02:00:01:00:00:02" {
		t.Error(mac, err)
	}
	host, err := machine.HostPrefix()
	if err != nil || !host.Contains(ip) || host.Bits() != 88 {
		t.Error(host, err)
	}
	whole, err := machine.NetworkPrefix()
	if err != nil || !whole.Contains(ip) || whole.Bits() != 64 {
		t.Error(whole, err)
	}
	dns, err := machine.DNS()
	if err != nil || !whole.Contains(dns) {
		t.Error(dns, err)
	}
	service, err := machine.ServiceIP(0x50)
	if err != nil || service.String() != "fdac:1705:0:7:0:1:0:50" {
		t.Error(service, err)
	}
	if services, err := machine.ServicesPrefix(); err != nil || !services.Contains(service) || services.Contains(ip) || services.Bits() != 96 {
		t.Error(services, err)
	}
	if _, err := vmcell.ParseMachineAddress(dns); !errors.Is(err, vmcell.ErrBadValue) {
		t.Error(err)
	}
	machine.Host = 0
	if _, err := machine.IP(); !errors.Is(err, vmcell.ErrBadValue) || !strings.Contains(err.Error(), "1 to 65535") {
		t.Error(err)
	}
}

func TestANetworkHasRulesThatCount(t *testing.T) {
	network := newNetwork(t)
	if err := network.SetRules("allow tcp 80 to fdac:1705:0:7::/64", "deny all"); err != nil {
		t.Fatal(err)
	}
	counts, err := network.RuleCounts()
	if err != nil || len(counts) != 2 || counts[0] != (vmcell.RuleCount{Rule: "allow tcp 80-80 from ::/0 to fdac:1705:0:7::/64"}) {
		t.Error(counts, err)
	}
	if err := network.SetRules("allow icmp", "allow sctp"); !errors.Is(err, vmcell.ErrInvalidConfig) || !strings.HasPrefix(err.Error(), "line 2 of the rules") {
		t.Error(err)
	}
	if counts, err := network.RuleCounts(); err != nil || len(counts) != 2 {
		t.Error(counts, err)
	}
	if err := network.SetRules(); err != nil {
		t.Error(err)
	}
	if dropped, err := network.Dropped("policy"); err != nil || dropped != 0 {
		t.Error(dropped, err)
	}
	if _, err := network.Dropped("luck"); !errors.Is(err, vmcell.ErrBadValue) {
		t.Error(err)
	}
	for _, options := range []vmcell.NetworkOptions{
		{MTU: 1279}, {MTU: 65536}, {MTU: -1}, {Flows: 63}, {Ports: 65537}, {TCPIdle: time.Millisecond}, {Idle: 8 * 24 * time.Hour},
		{Idle: time.Microsecond}, {Realm: 1 << 24},
	} {
		if _, err := vmcell.NewNetwork(options); !errors.Is(err, vmcell.ErrInvalidConfig) && !errors.Is(err, vmcell.ErrBadValue) {
			t.Errorf("%+v: %v", options, err)
		}
	}
}

func TestNumbersThatTheLibraryCannotHaveAreRefusedAsTheyWereGiven(t *testing.T) {
	network := newNetwork(t)
	for _, test := range []struct {
		options vmcell.ServiceOptions
		says    string
	}{
		{vmcell.ServiceOptions{HoldTime: -time.Second}, "HoldTime is -1s, allowed are 0"},
		{vmcell.ServiceOptions{HoldTime: 60 * 24 * time.Hour}, "HoldTime is 1440h0m0s, allowed are 0"},
		{vmcell.ServiceOptions{SoftLimit: -1}, "SoftLimit is -1, allowed are 0"},
		{vmcell.ServiceOptions{HoldTime: time.Nanosecond}, "holds packets for 1ms"},
	} {
		if _, err := network.Service(1, test.options); !errors.Is(err, vmcell.ErrInvalidConfig) || !strings.Contains(err.Error(), test.says) {
			t.Error(err)
		}
	}
	if _, err := vmcell.NewNetwork(vmcell.NetworkOptions{Idle: -1}); !errors.Is(err, vmcell.ErrInvalidConfig) || !strings.Contains(err.Error(), "Idle is -1ns") {
		t.Error(err)
	}
	if err := network.Close(); err != nil {
		t.Error(err)
	}
	if err := network.Close(); !errors.Is(err, vmcell.ErrClosed) || !strings.Contains(err.Error(), "closed or handed over") {
		t.Error(err)
	}
}

func TestAVMTakesAPortAndGivesItsAddressBack(t *testing.T) {
	network := newNetwork(t)
	port, err := network.Port(1, 2, "web", "www")
	if err != nil {
		t.Fatal(err)
	}
	if ip, err := port.IP(); err != nil || ip.String() != "fdac:1705:0:7:0:1ff:fe00:2" {
		t.Error(ip, err)
	}
	if _, err := network.Port(1, 3, "web", "web"); !errors.Is(err, vmcell.ErrInvalidConfig) {
		t.Error(err)
	}
	clone, err := network.PortForClone(1, 3, 1, 2, "clone")
	if err != nil {
		t.Fatal(err)
	}
	if ip, err := clone.IP(); err != nil || ip.String() != "fdac:1705:0:7:0:1ff:fe00:3" || clone.Close() != nil {
		t.Errorf("a clone has %v, %v", ip, err)
	}
	if _, err := network.PortForClone(1, 3, 1, 0); !errors.Is(err, vmcell.ErrBadValue) {
		t.Errorf("a clone of machine 0: %v", err)
	}
	if _, err := network.Port(0, 3); !errors.Is(err, vmcell.ErrBadValue) {
		t.Error(err)
	}
	both := vmcell.NIC{Port: port, Tap: "tap0"}
	if _, err := vmcell.New(vmcell.Config{Kernel: "k", NICs: []vmcell.NIC{both}}); !errors.Is(err, vmcell.ErrInvalidConfig) || !strings.Contains(err.Error(), "a port") {
		t.Error(err)
	}
	vm := started(t, context.Background(), vmcell.Config{Kernel: guest(t, "echo"), NICs: []vmcell.NIC{{Port: port}}})
	machines, err := network.Machines()
	if err != nil || len(machines) != 1 || machines[0] != (vmcell.MachineAddress{Realm: realm, Network: 7, Host: 1, Machine: 2}) {
		t.Error(machines, err)
	}
	if err := port.Close(); !errors.Is(err, vmcell.ErrBadHandle) {
		t.Error(err)
	}
	if err := vm.Close(); err != nil {
		t.Error(err)
	}
	if machines, err := network.Machines(); err != nil || len(machines) != 0 {
		t.Error(machines, err)
	}
	if port, err = network.Port(1, 2); err != nil || port.Close() != nil {
		t.Error(err)
	}
}

func config(t *testing.T, lines string) string {
	key, err := vmcell.NewWireGuardKey()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("[Interface]\nPrivateKey = %s\n%s", key, lines)
}

func TestATunnelHasPeersOneOfThemJustInTime(t *testing.T) {
	near, far := newNetwork(t), newNetwork(t)
	thread, err := vmcell.NewIOThread("tunnels")
	if err != nil {
		t.Fatal(err)
	}
	defer thread.Close()
	asked := make(chan *vmcell.UnknownPeer, 8)
	server, err := near.NewTunnel(config(t, "MTU = 1400"), vmcell.TunnelOptions{
		ListenAddress: netip.MustParseAddr("127.0.0.1"), IOThread: thread, Packets: 16, Peers: 2,
		OnUnknownPeer: func(peer *vmcell.UnknownPeer) { asked <- peer },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	client, err := far.NewTunnel(config(t, ""), vmcell.TunnelOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	serverKey, err := server.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	clientKey, err := client.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	address, err := server.LocalAddress()
	if err != nil || address.Addr().String() != "127.0.0.1" {
		t.Fatal(address, err)
	}
	shared, err := vmcell.NewPresharedKey()
	if err != nil {
		t.Fatal(err)
	}
	host := func(number uint32) []netip.Prefix {
		prefix, err := vmcell.MachineAddress{Realm: realm, Network: 7, Host: number}.HostPrefix()
		if err != nil {
			t.Fatal(err)
		}
		return []netip.Prefix{prefix}
	}
	peer := vmcell.Peer{PublicKey: serverKey, PresharedKey: shared, AllowedIPs: host(1), Endpoint: address, Keepalive: time.Second}
	if err := client.AddPeer(peer); err != nil {
		t.Fatal(err)
	}
	unknown := <-asked
	if unknown.PublicKey != clientKey || !unknown.Source.Addr().IsLoopback() {
		t.Error(unknown)
	}
	if err := unknown.Accept(vmcell.Peer{PresharedKey: shared, AllowedIPs: host(2)}); err != nil {
		t.Fatal(err)
	}
	if err := unknown.Refuse(); !errors.Is(err, vmcell.ErrBadHandle) {
		t.Error(err)
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		peers, err := server.Peers()
		if err != nil {
			t.Fatal(err)
		}
		if len(peers) == 1 && peers[0].LastHandshakeMillis != nil && peers[0].PublicKey == clientKey && peers[0].Endpoint.IsValid() {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%+v", peers)
		}
	}
	if metrics, err := client.Metrics(); err != nil || metrics["wireguard_handshakes"] != 1 {
		t.Error(metrics, err)
	}
	if was, err := client.RemovePeer(serverKey); err != nil || !was {
		t.Error(was, err)
	}
	if was, err := client.RemovePeer(serverKey); err != nil || was {
		t.Error(was, err)
	}
}

func TestWhatNoTunnelCanHaveIsRefused(t *testing.T) {
	network := newNetwork(t)
	never := func(peer *vmcell.UnknownPeer) { t.Error(peer) }
	for _, test := range []struct {
		config  string
		options vmcell.TunnelOptions
		number  vmcell.Number
	}{
		{"[Interface]", vmcell.TunnelOptions{}, vmcell.ErrNetwork},
		{config(t, "PostUp = reboot"), vmcell.TunnelOptions{OnUnknownPeer: never}, vmcell.ErrNetwork},
		{config(t, "MTU = 576"), vmcell.TunnelOptions{OnUnknownPeer: never}, vmcell.ErrInvalidConfig},
		{config(t, ""), vmcell.TunnelOptions{Packets: -1}, vmcell.ErrInvalidConfig},
		{config(t, ""), vmcell.TunnelOptions{Peers: 65537}, vmcell.ErrNetwork},
		{config(t, ""), vmcell.TunnelOptions{ListenAddress: netip.MustParseAddr("192.0.2.1")}, vmcell.ErrNetwork},
	} {
		if tunnel, err := network.NewTunnel(test.config, test.options); !errors.Is(err, test.number) {
			t.Errorf("%+v: %v %v", test.options, tunnel, err)
		}
	}
	tunnel, err := network.NewTunnel(config(t, ""), vmcell.TunnelOptions{})
	if err != nil {
		t.Fatal(err)
	}
	key, err := tunnel.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	for _, peer := range []vmcell.Peer{{}, {PublicKey: key}, {PublicKey: key, PresharedKey: "x"}} {
		if err := tunnel.AddPeer(peer); !errors.Is(err, vmcell.ErrNetwork) {
			t.Errorf("%+v: %v", peer, err)
		}
	}
	// A part of a second counts as a whole one, so that little is not never.
	for _, keepalive := range []time.Duration{65535*time.Second + time.Nanosecond, -time.Second} {
		if err := tunnel.AddPeer(vmcell.Peer{PublicKey: key, Keepalive: keepalive}); !errors.Is(err, vmcell.ErrBadValue) {
			t.Error(keepalive, err)
		}
	}
	if err := tunnel.Close(); err != nil {
		t.Error(err)
	}
	if _, err := tunnel.Metrics(); !errors.Is(err, vmcell.ErrBadHandle) {
		t.Error(err)
	}
	private, err := vmcell.NewWireGuardKey()
	if err != nil {
		t.Fatal(err)
	}
	if public, err := vmcell.WireGuardPublicKey(private); err != nil || len(public) != 44 || public == private {
		t.Error(public, err)
	}
	if _, err := vmcell.WireGuardPublicKey("x"); !errors.Is(err, vmcell.ErrNetwork) {
		t.Error(err)
	}
}

func TestAServiceHasMembersAsLongAsTheyHavePorts(t *testing.T) {
	network := newNetwork(t)
	never := func(demand vmcell.Demand) error { t.Error(demand); return nil }
	service, err := network.Service(0x50, vmcell.ServiceOptions{
		Name: "web", SoftLimit: 20, HardLimit: 25, HeldPackets: 16, HeldBytes: 4096, HoldTime: time.Second, CallInterval: time.Second, OnDemand: never,
	})
	if err != nil {
		t.Fatal(err)
	}
	if ip, err := service.IP(); err != nil || ip.String() != "fdac:1705:0:7:0:1:0:50" {
		t.Error(ip, err)
	}
	for _, options := range []vmcell.ServiceOptions{
		{}, {Name: "-"}, {SoftLimit: -1}, {SoftLimit: 2, HardLimit: 1}, {HeldPackets: 4097}, {HeldBytes: 1}, {HoldTime: time.Microsecond},
		{CallInterval: 2 * time.Hour, OnDemand: never},
	} {
		if other, err := network.Service(0x50, options); !errors.Is(err, vmcell.ErrInvalidConfig) {
			t.Error(options, other, err)
		}
	}
	if err := service.Add(1, 2); !errors.Is(err, vmcell.ErrInvalidConfig) {
		t.Error(err)
	}
	if _, err := network.Idle(1, 2); !errors.Is(err, vmcell.ErrInvalidConfig) {
		t.Error(err)
	}
	port, err := network.Port(1, 2)
	if err != nil {
		t.Fatal(err)
	}
	if err := service.Add(1, 2); err != nil {
		t.Error(err)
	}
	if idle, err := network.Idle(1, 2); err != nil || idle > time.Minute {
		t.Error(idle, err)
	}
	if is, err := service.Drain(1, 2); err != nil || !is {
		t.Error(is, err)
	}
	members, err := service.Members()
	if err != nil || len(members) != 1 || members[0] != (vmcell.ServiceMember{Host: 1, Machine: 2, Draining: true}) {
		t.Error(members, err)
	}
	if is, err := service.Remove(1, 2); err != nil || !is {
		t.Error(is, err)
	}
	if is, err := service.Remove(1, 2); err != nil || is {
		t.Error(is, err)
	}
	if err := service.Add(1, 2); err != nil {
		t.Error(err)
	}
	if err := port.Close(); err != nil {
		t.Error(err)
	}
	if members, err := service.Members(); err != nil || len(members) != 0 {
		t.Error(members, err)
	}
	if metrics, err := service.Metrics(); err != nil || metrics["service_waiting"] != 0 || len(metrics) < 7 {
		t.Error(metrics, err)
	}
	if err := service.Close(); err != nil {
		t.Error(err)
	}
	if err := service.Add(1, 2); !errors.Is(err, vmcell.ErrBadHandle) {
		t.Error(err)
	}
}
