package vmcell

/*
#include <stdlib.h>
#include <vmcell.h>
*/
import "C"

import (
	"encoding/json"
	"fmt"
	"math"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"time"
	"unsafe"
)

// MachineAddress is a machine of a private network, by its numbers. docs/network.md shows how its addresses are made of them.
type MachineAddress struct {
	// Realm is what networks belong together, 0 to 0xffffff: draw it by lot, so that realms which are joined one day do not clash.
	Realm uint32
	// Network is the network in its realm.
	Network uint32
	// Host is 1 to 65535, and Machine 1 to 0xffffff.
	Host, Machine uint32
}

// ParseMachineAddress reads the IPv6 address of a machine of whatever network.
func ParseMachineAddress(ip netip.Addr) (MachineAddress, error) {
	var read C.vmcell_machine_address
	err := withTexts(func(texts []*C.char, e **C.vmcell_error) C.int32_t {
		return C.vmcell_machine_address_parse(texts[0], &read, e)
	}, ip.String())
	return machineOf(read), err
}

// IP is the machine's IPv6 address, by which its guest is reached.
func (a MachineAddress) IP() (netip.Addr, error) { return a.addr(C.VMCELL_ADDRESS_MACHINE) }

// LinkLocal is the address that it has on its link alone.
func (a MachineAddress) LinkLocal() (netip.Addr, error) { return a.addr(C.VMCELL_ADDRESS_LINK_LOCAL) }

// DNS is where the network's name server answers. Host and Machine do not matter.
func (a MachineAddress) DNS() (netip.Addr, error) { return a.addr(C.VMCELL_ADDRESS_DNS) }

// HostPrefix is the range of all machines of its host: what a tunnel to that host may carry. Machine does not matter.
func (a MachineAddress) HostPrefix() (netip.Prefix, error) { return a.prefix(C.VMCELL_ADDRESS_HOST) }

// NetworkPrefix is the range of the whole network. Host and Machine do not matter.
func (a MachineAddress) NetworkPrefix() (netip.Prefix, error) {
	return a.prefix(C.VMCELL_ADDRESS_NETWORK)
}

// ServicesPrefix is the range of all services of the network: what a tunnel to a host that has services may carry beside HostPrefix. Host and
// Machine do not matter.
func (a MachineAddress) ServicesPrefix() (netip.Prefix, error) {
	return a.prefix(C.VMCELL_ADDRESS_SERVICES)
}

// ServiceIP is the address of service number number, whichever host has it: what the rules of other hosts name. Host and Machine do not matter.
func (a MachineAddress) ServiceIP(number uint32) (netip.Addr, error) {
	a.Machine = number
	return a.addr(C.VMCELL_ADDRESS_SERVICE)
}

// MAC is the address that the machine's interface has.
func (a MachineAddress) MAC() (net.HardwareAddr, error) {
	mac := make(net.HardwareAddr, C.VMCELL_MAC_BYTES)
	numbers := a.numbers()
	var e *C.vmcell_error
	number := C.vmcell_machine_address_mac(&numbers, (*C.uint8_t)(unsafe.Pointer(&mac[0])), &e)
	return mac, failure(number, e)
}

func (a MachineAddress) numbers() C.vmcell_machine_address {
	return C.vmcell_machine_address{
		realm: C.uint32_t(a.Realm), network: C.uint32_t(a.Network), host: C.uint32_t(a.Host), machine: C.uint32_t(a.Machine),
	}
}

func machineOf(a C.vmcell_machine_address) MachineAddress {
	return MachineAddress{Realm: uint32(a.realm), Network: uint32(a.network), Host: uint32(a.host), Machine: uint32(a.machine)}
}

func (a MachineAddress) text(what C.int32_t) (string, error) {
	numbers := a.numbers()
	text, err := readText(func(buffer *C.char, capacity C.size_t, length *C.size_t) error {
		var e *C.vmcell_error
		return failure(C.vmcell_machine_address_text(&numbers, what, buffer, capacity, length, &e), e)
	})
	return string(text), err
}

func (a MachineAddress) addr(what C.int32_t) (netip.Addr, error) {
	text, err := a.text(what)
	if err != nil {
		return netip.Addr{}, err
	}
	return netip.ParseAddr(text)
}

func (a MachineAddress) prefix(what C.int32_t) (netip.Prefix, error) {
	text, err := a.text(what)
	if err != nil {
		return netip.Prefix{}, err
	}
	return netip.ParsePrefix(text)
}

// NetworkOptions describe a private network. What is 0 stands for a default, but for Realm and Number.
type NetworkOptions struct {
	// Realm is what networks belong together, 0 to 0xffffff, and Number the network in it: its addresses follow from them.
	Realm, Number uint32
	// MTU is how long a packet may be, in bytes with its IPv6 header: 1280 to 65535. 1420 by default, which fits through a tunnel.
	MTU int
	// Flows is how many flows are remembered that one machine, or what lies behind one tunnel, has begun: a power of two from 64 to
	// 16384. 4096 by default.
	Flows int
	// Ports is how many machines it may have at once, 1 to 65536. 4096 by default.
	Ports int
	// TCPIdle is after how long without a packet a TCP connection is forgotten, and Idle the same for anything else: a second to seven
	// days. Two hours and two minutes by default.
	TCPIdle, Idle time.Duration
	// HeldBytes is how many bytes of packets may wait for members of all services together: 65536 to 1073741824. 8388608 by default.
	HeldBytes int
}

// Network is a private network between VMs in this process: a switch that needs no TAP device and no right of root's. Nothing passes until
// SetRules allows it, in either direction. Any goroutine may use it.
type Network struct{ handle *C.vmcell_network }

// NewNetwork makes a network without machines, in which nothing is allowed.
func NewNetwork(options NetworkOptions) (*Network, error) {
	var settings C.vmcell_network_settings
	settings.struct_size = C.size_t(unsafe.Sizeof(settings))
	var read settingsReader
	settings.mtu = read.number("MTU", options.MTU)
	settings.flows = read.number("Flows", options.Flows)
	settings.ports = C.size_t(read.number("Ports", options.Ports))
	settings.tcp_idle_ms = read.milliseconds("TCPIdle", options.TCPIdle)
	settings.idle_ms = read.milliseconds("Idle", options.Idle)
	settings.held_bytes = C.size_t(read.number("HeldBytes", options.HeldBytes))
	if read.err != nil {
		return nil, read.err
	}
	network := &Network{}
	var e *C.vmcell_error
	number := C.vmcell_network_new(C.uint32_t(options.Realm), C.uint32_t(options.Number), &settings, &network.handle, &e)
	if err := failure(number, e); err != nil {
		return nil, err
	}
	return network, nil
}

// settingsReader reads numbers into 32 bits. What fits is left to the library, which knows what is allowed; what does not is refused here, as it would be
// another number there.
type settingsReader struct{ err error }

func (read *settingsReader) number(name string, value int) C.uint32_t {
	return read.bounded(name, value, int64(value))
}

// milliseconds are not 0 for a time that is not.
func (read *settingsReader) milliseconds(name string, time time.Duration) C.uint32_t {
	if time > 0 && time.Milliseconds() == 0 {
		return 1
	}
	if time < 0 {
		return read.bounded(name, time, -1)
	}
	return read.bounded(name, time, time.Milliseconds())
}

func (read *settingsReader) bounded(name string, shown any, value int64) C.uint32_t {
	if value < 0 || value > math.MaxUint32 {
		if read.err == nil {
			message := fmt.Sprintf("%s is %v, allowed are 0, which stands for the default, and what its documentation says", name, shown)
			read.err = &Error{Number: ErrInvalidConfig, Message: message}
		}
		return 0
	}
	return C.uint32_t(value)
}

// Rule says of some flows whether they may begin, as "allow tcp 80-89 from fdac:1705:0:7:0:100::/88 to fdac:1705:0:7:0:1ff:fe00:2": "allow" or
// "deny"; then "all", "tcp", "udp", "icmp", or "protocol" and its number; behind "tcp" and "udp" a port, or the first and the last one, if not
// all; then "from" and "to" with a range of addresses, if not everybody.
type Rule string

// SetRules sets what may pass, at most 1024 rules, in place of those before, also while VMs run. The first one that fits a flow decides whether it
// may begin; if none fits, it may not. Answers pass by themselves. If one is refused, those before stay.
func (network *Network) SetRules(rules ...Rule) error {
	lines := make([]string, len(rules))
	for i, rule := range rules {
		lines[i] = string(rule)
	}
	return withTexts(func(texts []*C.char, e **C.vmcell_error) C.int32_t {
		return C.vmcell_network_set_rules(network.handle, texts[0], e)
	}, strings.Join(lines, "\n"))
}

// RuleCount is how often a rule has decided.
type RuleCount struct {
	Rule Rule `json:"rule"`
	// Flows is how many it has let begin, or how many packets that would have begun one it has refused.
	Flows uint64 `json:"flows"`
	// Packets have passed by it, answers among them; Bytes are theirs with the IPv6 headers.
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

// RuleCounts gives the counts of the rules, in their order.
func (network *Network) RuleCounts() ([]RuleCount, error) {
	var counts []RuleCount
	text, err := readText(func(buffer *C.char, capacity C.size_t, length *C.size_t) error {
		var e *C.vmcell_error
		return failure(C.vmcell_network_rule_counts_json(network.handle, buffer, capacity, length, &e), e)
	})
	if err == nil {
		err = json.Unmarshal(text, &counts)
	}
	return counts, err
}

// Dropped is how many frames and packets were dropped for a reason, by its name: "policy" if no rule allowed them, and the others of
// docs/network.md.
func (network *Network) Dropped(reason string) (uint64, error) {
	var count C.uint64_t
	err := withTexts(func(texts []*C.char, e **C.vmcell_error) C.int32_t {
		return C.vmcell_network_dropped(network.handle, texts[0], &count, e)
	}, reason)
	return uint64(count), err
}

// Machines are those that have ports now, in no order.
func (network *Network) Machines() ([]MachineAddress, error) {
	for room := C.size_t(64); ; {
		found := make([]C.vmcell_machine_address, room)
		var count C.size_t
		var e *C.vmcell_error
		number := C.vmcell_network_machines(network.handle, &found[0], room, &count, &e)
		if err := failure(number, e); err != nil {
			return nil, err
		}
		if count <= room {
			machines := make([]MachineAddress, count)
			for i := range machines {
				machines[i] = machineOf(found[i])
			}
			return machines, nil
		}
		room = count + 64
	}
}

// Close lets go of the network. Its ports, and the VMs and tunnels that have them, keep it. A second call gives an error and does no harm.
func (network *Network) Close() error {
	return failure(C.vmcell_network_free(network.handle), nil)
}

func (network *Network) pointer() *C.vmcell_network {
	if network == nil {
		return nil
	}
	return network.handle
}

// Port is the place of a machine in a private network, for NIC.Port. It has the machine's address until its VM or the port is closed.
type Port struct{ handle *C.vmcell_network_port }

// Port makes the port of a machine, 1 to 0xffffff, of a host, 1 to 65535. The network's name server has its address under NAME.internal for
// each of the names, while it runs: a machine has at most eight, and several machines may have the same one.
func (network *Network) Port(host, machine uint32, names ...string) (*Port, error) {
	port := &Port{}
	var e *C.vmcell_error
	number := C.vmcell_network_port_new(network.pointer(), C.uint32_t(host), C.uint32_t(machine), &port.handle, &e)
	if err := failure(number, e); err != nil {
		return nil, err
	}
	return port.named(names)
}

// PortForClone makes the port of a machine whose guest takes itself for another one, the source: a fork of that machine, which keeps the
// addresses that it had at the snapshot. The network knows it by its own address alone, and replaces the one by the other in its packets. The
// guest and the machine that it takes itself for cannot reach each other. For the rest, it is as Port.
func (network *Network) PortForClone(host, machine, sourceHost, source uint32, names ...string) (*Port, error) {
	port := &Port{}
	var e *C.vmcell_error
	number := C.vmcell_network_port_new_for_clone(network.pointer(), C.uint32_t(host), C.uint32_t(machine), C.uint32_t(sourceHost),
		C.uint32_t(source), &port.handle, &e)
	if err := failure(number, e); err != nil {
		return nil, err
	}
	return port.named(names)
}

func (port *Port) named(names []string) (*Port, error) {
	for _, name := range names {
		err := withTexts(func(texts []*C.char, e **C.vmcell_error) C.int32_t {
			return C.vmcell_network_port_add_name(port.handle, texts[0], e)
		}, name)
		if err != nil {
			port.Close()
			return nil, err
		}
	}
	return port, nil
}

// IP is the machine's address.
func (port *Port) IP() (netip.Addr, error) {
	text, err := readText(func(buffer *C.char, capacity C.size_t, length *C.size_t) error {
		var e *C.vmcell_error
		return failure(C.vmcell_network_port_address(port.handle, buffer, capacity, length, &e), e)
	})
	if err != nil {
		return netip.Addr{}, err
	}
	return netip.ParseAddr(string(text))
}

// Close gives the address of a port back that no VM has. After New has taken it, that gives an error and does no harm.
func (port *Port) Close() error {
	return failure(C.vmcell_network_port_free(port.handle), nil)
}

func (nic NIC) openPort(d *describer, h **C.vmcell_nic) {
	d.do(func(e **C.vmcell_error) C.int32_t { return C.vmcell_nic_new_network(nic.Port.handle, h, e) })
	runtime.KeepAlive(nic.Port)
}

// Passt is a way to the world outside for one guest: a child process that speaks for it. The guest has its address, routes and name servers from there, and
// reaches what a program of this user reaches, but not what listens on the host's loopback.
type Passt struct {
	// Program is its path, or its name in the search path. The default is "passt".
	Program string
	// MTU is how long the guest's packets may be, 1280 to 65520 bytes, which is the default.
	MTU uint16
	// Ports are those of the host that lead to the guest, such as "tcp 8080:80" or "udp 127.0.0.1/53:5353", at most 256.
	Ports []string
}

func (passt *Passt) open(d *describer, h **C.vmcell_nic) {
	program := passt.Program
	if program == "" {
		program = "passt"
	}
	d.withText(program, func(program *C.char, e **C.vmcell_error) C.int32_t {
		ports := C.CString(strings.Join(passt.Ports, "\n"))
		defer C.free(unsafe.Pointer(ports))
		return C.vmcell_nic_new_passt(program, C.uint32_t(passt.MTU), ports, h, e)
	})
}
