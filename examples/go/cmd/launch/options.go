package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	vmcell "example.com/vmcell"
)

// A description is no larger.
const longestDescription = 1 << 20

// options is what the command line says.
type options struct {
	config vmcell.Config
	// console is empty if the description says what it is.
	console string
	// metadata is a file of JSON for the first TAP device; empty for none.
	metadata string
	// volumes come behind the disks.
	volumes []volume
	// secrets are texts of NAME=FILE.
	secrets []string
	// memoryMax is for the process in the cgroup, if there is one.
	memoryMax uint64
	verbose   bool
	// jail demands what a Go program cannot have, noJail is content without.
	jail, noJail bool
}

// volume is a disk that is encrypted, and the file that opens it.
type volume struct {
	disk    vmcell.Disk
	keyFile string
}

// parse ends the program with status 2 if the command line is refused.
func parse() options {
	var o options
	var description string
	flag.StringVar(&description, "config", "", "a description of the VM as JSON, a `FILE`; options beside it replace what it says, and disks and "+
		"TAP devices are added behind its own")
	flag.StringVar(&o.console, "console", "", "what the serial port is connected to, `stdio|none|PATH` [default: stdio, or what the --config says]")
	flag.BoolVar(&o.verbose, "v", false, "says on standard error how long things took, what happens to the VM, and how the guest ended")
	flag.BoolVar(&o.jail, "jail", false, "gives up what the VM does not need, which a Go program cannot: refuses to go on [default: says so]")
	flag.BoolVar(&o.noJail, "no-jail", false, "gives up nothing, and does not say so")
	o.machine()
	o.devices()
	flag.Usage = usage
	flag.Parse()
	if flag.NArg() > 0 {
		refuse(fmt.Errorf("unknown argument '%s'", flag.Arg(0)))
	}
	if o.config.Kernel == "" && description == "" {
		refuse(errors.New("--kernel is missing"))
	}
	if o.jail && o.noJail {
		refuse(errors.New("--jail and --no-jail cannot both be asked for"))
	}
	// The flag package would repeat what was given, which may be the secret itself.
	for _, secret := range o.secrets {
		if name, file, _ := strings.Cut(secret, "="); name == "" || file == "" {
			refuse(errors.New("--secret: allowed is NAME=FILE, with the file that has the secret"))
		}
	}
	if o.config.ScrubSecretsAfter != 0 && len(o.secrets) == 0 {
		refuse(errors.New("--scrub-secrets was given without a --secret"))
	}
	if o.metadata != "" {
		o.addMetadata()
	}
	isConsole := false
	flag.Visit(func(f *flag.Flag) { isConsole = isConsole || f.Name == "console" })
	if isConsole && o.console == "" {
		refuse(errors.New("'' is no value for --console, allowed are stdio, none, or the path of a file"))
	}
	if description != "" {
		o.config.Description = read(description, "description")
		return o
	}
	if !isConsole {
		o.console = "stdio"
	}
	if o.config.Seccomp == vmcell.SeccompDefault {
		o.config.Seccomp = vmcell.SeccompRefuse
	}
	return o
}

// addMetadata gives the first TAP device what the file says.
func (o *options) addMetadata() {
	json := read(o.metadata, "metadata")
	if len(o.config.NICs) == 0 {
		refuse(errors.New("--metadata was given without the --tap that it is read by"))
	}
	metadata, err := vmcell.NewMetadata(vmcell.MetadataOptions{})
	if err == nil {
		err = metadata.Set(string(json))
	}
	if err != nil {
		refuse(fmt.Errorf("%s: %w", o.metadata, err))
	}
	o.config.NICs[0].Metadata = metadata
}

// usage names options as other launchers do, with two dashes; the flag package takes one as well.
func usage() {
	out := flag.CommandLine.Output()
	fmt.Fprint(out, "usage: launch --kernel PATH [OPTIONS]\n       launch --config FILE [OPTIONS]\n\n")
	flag.VisitAll(func(f *flag.Flag) {
		value, about := flag.UnquoteUsage(f)
		fmt.Fprintf(out, "  %s%s %s\n    \t%s\n", "--"[:min(len(f.Name), 2)], f.Name, value, about)
	})
	fmt.Fprint(out, "  -h, --help\n    \tprints this\n")
	fmt.Fprint(out, "\nExit status: 0 the guest shut down or reset itself; 1 it failed; 2 bad arguments.\n")
}

func min(a, b int) int {
	if a < b {
		return a
	}
	return b
}

// read gives a file that is called what in messages.
func read(path, what string) []byte {
	file, err := os.Open(path)
	if err != nil {
		refuse(fmt.Errorf("cannot read the %s: %w", what, err))
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, longestDescription+1))
	if err != nil {
		refuse(fmt.Errorf("cannot read the %s: %w", what, err))
	}
	if len(text) > longestDescription {
		refuse(fmt.Errorf("the %s %s has more than the %d bytes that are allowed", what, path, longestDescription))
	}
	return text
}

// number gives an option that is a number in a range.
func number(name, about string, least, most uint64, set func(number uint64)) {
	flag.Func(name, about, func(text string) error {
		number, err := strconv.ParseUint(text, 10, 64)
		if err != nil || number < least || number > most {
			return fmt.Errorf("allowed are %d to %d", least, most)
		}
		set(number)
		return nil
	})
}

func (o *options) machine() {
	config := &o.config
	flag.StringVar(&config.Kernel, "kernel", "", "a bzImage or an ELF image, a `PATH`; needed unless the --config says which one")
	flag.StringVar(&config.Initrd, "initrd", "", "an initial RAM disk, a `PATH`")
	flag.StringVar(&config.Cmdline, "cmdline", "", "the kernel's command line, a `TEXT` [default: empty]")
	number("vcpus", "how many vCPUs, `N` from 1 to 64 [default: 1]", 1, 64, func(number uint64) { config.VCPUs = uint32(number) })
	number("memory", "the guest's memory in `MIB`, 16 or more [default: 128]", 16, 1<<40, func(number uint64) { config.MemoryMiB = number })
	number("numa-node", "the NUMA node `N` that the host takes the memory from, as long as that has some", 0, 1023, func(number uint64) {
		node := uint32(number)
		config.NUMANode = &node
	})
	number("poll-us", "for how many microseconds, `N` from 0 to 1000, at most the I/O thread looks for more to do before it sleeps; 0 turns that "+
		"off [default: 50]", 0, 1000, func(number uint64) {
		polling := time.Duration(number) * time.Microsecond
		config.Polling = &polling
	})
	flag.BoolVar(&config.LockMemory, "lock-memory", false, "locks memory that the guest has used, so that it is never written to swap space")
	flag.BoolVar(&config.CoreScheduling, "core-scheduling", false, "runs the VM's threads on the hyperthreads of a core only beside each other")
	flag.Func("cpu", "what the vCPUs can do: all that the host can give, or a level of the x86-64 psABI and features beyond it, "+
		"`host|v2|v3|v4[,FEATURE]...` [default: host]", func(text string) error {
		level, features, found := strings.Cut(text, ",")
		if found {
			config.CPUFeatures = strings.Split(features, ",")
		}
		return choose(&config.CPU, level, map[string]vmcell.CPULevel{
			"host": vmcell.CPUHost, "v2": vmcell.CPUV2, "v3": vmcell.CPUV3, "v4": vmcell.CPUV4})
	})
	flag.Func("pages", "the pages that the host backs the memory with: `default|transparent|2mib`", func(text string) error {
		return choose(&config.Pages, text, map[string]vmcell.Pages{
			"default": vmcell.DefaultPages, "transparent": vmcell.TransparentPages, "2mib": vmcell.Huge2MiBPages})
	})
	flag.Func("discovery", "how the guest finds its devices, `acpi|cmdline` [default: acpi]", func(text string) error {
		return choose(&config.Discovery, text, map[string]vmcell.Discovery{"acpi": vmcell.DiscoveryACPI, "cmdline": vmcell.DiscoveryCmdline})
	})
	flag.Func("seccomp", "what becomes of a system call that a thread of the VM has no reason to make, `refuse|kill|off` [default: refuse, or what the --config says]", func(text string) error {
		return choose(&config.Seccomp, text, map[string]vmcell.Seccomp{
			"refuse": vmcell.SeccompRefuse, "kill": vmcell.SeccompKill, "off": vmcell.SeccompOff})
	})
	flag.Func("protocol", "how the kernel is entered, `auto|linux64|pvh` [default: auto]", func(text string) error {
		return choose(&config.Protocol, text, map[string]vmcell.Protocol{
			"auto": vmcell.ProtocolAuto, "linux64": vmcell.ProtocolLinux64, "pvh": vmcell.ProtocolPVH})
	})
}

func (o *options) devices() {
	config := &o.config
	flag.Func("disk", "a raw disk image or block device, `PATH[,ro][,engine=uring|sync][,direct][,iops=N[:BURST]][,bandwidth=BYTES[:BURST]]`; may be given several times. "+
		"Limits are so many requests a second and so many at once, which are as many as in a second unless a burst is given, and the same of bytes", func(text string) error {
		disk, err := parseDisk(text)
		config.Disks = append(config.Disks, disk)
		return err
	})
	flag.Func("volume", "an encrypted volume (LUKS2) as a disk, opened by what is in the key file, "+
		"`PATH,key-file=FILE[,discard][,ro][,engine=uring|sync][,direct][,iops=N[:BURST]][,bandwidth=BYTES[:BURST]]`; may be given several times. "+
		"Volumes come behind the disks. With discard, the guest may give space back, which shows what it does not use", func(text string) error {
		volume, err := parseVolume(text)
		o.volumes = append(o.volumes, volume)
		return err
	})
	flag.Func("secret", "a secret of the guest's, which is what the file holds, `NAME=FILE`: systemd in the guest has it as a credential, by "+
		"LoadCredential=NAME. May be given several times", func(text string) error {
		o.secrets = append(o.secrets, text)
		return nil
	})
	number("scrub-secrets", "how many `SECONDS` after the start the secrets are wiped from where the guest finds them [default: 300]", 1,
		uint64(math.MaxInt64/time.Second), func(number uint64) { config.ScrubSecretsAfter = time.Duration(number) * time.Second })
	flag.Func("tap", "a TAP device, `NAME[,mac=XX:XX:XX:XX:XX:XX][,queues=N][,{rx|tx}-{frames|bandwidth}=N[:BURST]]...`; may be given several times. Limits are "+
		"those of a disk, for the frames that the guest gets (rx) and for those that it sends (tx)", func(text string) error {
		nic, err := parseTap(text)
		config.NICs = append(config.NICs, nic)
		return err
	})
	flag.StringVar(&o.metadata, "metadata", "", "JSON that the guest reads at 169.254.169.254 by the first --tap, of at most 51,200 bytes "+
		"without white space, in a `FILE` [default: none]")
	flag.Func("rng", "a source of random bytes: as many as the guest asks for, or so many a second and so many at once, "+
		"`unlimited|BYTES[,burst=BYTES]` [default: none]", func(text string) error {
		rng, err := parseRNG(text)
		config.RNG = rng
		return err
	})
	flag.Func("balloon", "a balloon: how much memory the guest is asked to give back, whether it may take some back when it runs out, "+
		"whether it reports free pages (both: on), and how often it is asked for statistics, "+
		"`MIB[,deflate-on-oom=on|off][,reporting=on|off][,statistics=SECONDS]` [default: none]", func(text string) error {
		balloon, err := parseBalloon(text)
		config.Balloon = balloon
		return err
	})
	flag.Func("console-rate", "how many bytes a second of what the guest prints are passed on, and how many at once, which are as many as in a "+
		"second unless a burst is given, `BYTES[:BURST]` [default: no limit]", func(text string) error {
		_, err := takeRate("rate="+text, map[string]*vmcell.Rate{"rate": &config.ConsoleRate})
		return err
	})
	flag.Func("vsock", "sockets between host and guest, which has this context ID; with a path, other programs of the host use them by a "+
		"Unix socket there, `CID[,path=PATH]` [default: none]", func(text string) error {
		vsock, err := parseVsock(text)
		config.Vsock = vsock
		return err
	})
	flag.Func("cgroup", "joins the cgroup of version 2 in that folder, limits the memory of all its processes, and makes a cgroup in it for "+
		"the VM's threads, with a share of the CPUs (1/16 or 2, for instance), milliseconds that are kept of what was not used, and a weight, "+
		"`DIR[,name=NAME][,cpu=N[/M]][,burst=MS][,weight=N][,memory=BYTES]` [default: stays where it is]", func(text string) error {
		return o.parseCgroup(text)
	})
	flag.Func("log", "a file that gets what the guest prints as well, `PATH[,append][,max=BYTES][,keep=N]`; may be given several times", func(text string) error {
		log, err := parseLog(text)
		config.LogFiles = append(config.LogFiles, log)
		return err
	})
}

func choose[T any](place *T, text string, choices map[string]T) error {
	value, known := choices[text]
	if !known {
		return errors.New("unknown")
	}
	*place = value
	return nil
}

func parseDisk(text string) (vmcell.Disk, error) {
	disk, options, err := splitDisk(text)
	for _, option := range options {
		found, err := takeDiskOption(option, &disk)
		if err == nil && !found {
			err = fmt.Errorf("unknown disk option '%s', allowed are ro, engine=uring, engine=sync, direct, iops=N[:BURST] and "+
				"bandwidth=BYTES[:BURST]", option)
		}
		if err != nil {
			return disk, err
		}
	}
	return disk, err
}

func parseVolume(text string) (volume, error) {
	disk, options, err := splitDisk(text)
	volume := volume{disk: disk}
	if err != nil {
		return volume, err
	}
	volume.disk.Volume = &vmcell.Volume{}
	for _, option := range options {
		if strings.HasPrefix(option, "key-file=") {
			volume.keyFile = strings.TrimPrefix(option, "key-file=")
			continue
		}
		if option == "discard" {
			volume.disk.Volume.Discard = true
			continue
		}
		found, err := takeDiskOption(option, &volume.disk)
		if err == nil && !found {
			err = fmt.Errorf("unknown volume option '%s', allowed are key-file=FILE, discard, ro, engine=uring, engine=sync, direct, "+
				"iops=N[:BURST] and bandwidth=BYTES[:BURST]", option)
		}
		if err != nil {
			return volume, err
		}
	}
	if volume.keyFile == "" {
		return volume, errors.New("a volume needs key-file=FILE")
	}
	return volume, nil
}

// splitDisk cuts "PATH,option,option".
func splitDisk(text string) (vmcell.Disk, []string, error) {
	parts := strings.Split(text, ",")
	if parts[0] == "" {
		return vmcell.Disk{}, nil, errors.New("a path is missing in front of the options")
	}
	return vmcell.Disk{Path: parts[0]}, parts[1:], nil
}

// takeDiskOption takes an option of a disk, and says whether it is one.
func takeDiskOption(option string, disk *vmcell.Disk) (bool, error) {
	switch option {
	case "ro":
		disk.ReadOnly = true
	case "engine=sync":
		disk.Engine = vmcell.EngineSync
	case "engine=uring":
		disk.Engine = vmcell.EngineUring
	case "direct":
		disk.Direct = true
	default:
		return takeRate(option, map[string]*vmcell.Rate{"iops": &disk.Limits.Operations, "bandwidth": &disk.Limits.Bytes})
	}
	return true, nil
}

func parseTap(text string) (vmcell.NIC, error) {
	parts := strings.Split(text, ",")
	nic := vmcell.NIC{Tap: parts[0]}
	if nic.Tap == "" {
		return nic, errors.New("a name is missing in front of the options")
	}
	rates := map[string]*vmcell.Rate{
		"rx-frames": &nic.ReceiveLimits.Operations, "rx-bandwidth": &nic.ReceiveLimits.Bytes,
		"tx-frames": &nic.SendLimits.Operations, "tx-bandwidth": &nic.SendLimits.Bytes}
	for _, option := range parts[1:] {
		found, err := takeRate(option, rates)
		if err != nil {
			return nic, err
		}
		if found {
			continue
		}
		if strings.HasPrefix(option, "queues=") {
			text := strings.TrimPrefix(option, "queues=")
			queues, err := strconv.ParseUint(text, 10, 16)
			if err != nil || queues < 1 || queues > 16 {
				return nic, fmt.Errorf("'%s' is no number of queues, allowed are 1 to 16", text)
			}
			nic.Queues = uint16(queues)
			continue
		}
		address, err := net.ParseMAC(strings.TrimPrefix(option, "mac="))
		if !strings.HasPrefix(option, "mac=") || err != nil || len(address) != 6 {
			return nic, fmt.Errorf("unknown tap option '%s', allowed are mac=XX:XX:XX:XX:XX:XX, queues=N, and rx-frames, rx-bandwidth, tx-frames "+
				"and tx-bandwidth with =N[:BURST]", option)
		}
		nic.MAC = address
	}
	return nic, nil
}

// takeRate takes "NAME=N[:BURST]" if the option has one of these names.
func takeRate(option string, rates map[string]*vmcell.Rate) (bool, error) {
	name, value, _ := strings.Cut(option, "=")
	rate, known := rates[name]
	if !known {
		return false, nil
	}
	perSecond, burst, found := strings.Cut(value, ":")
	if !found {
		burst = perSecond
	}
	var err, other error
	rate.PerSecond, err = strconv.ParseUint(perSecond, 10, 64)
	rate.Burst, other = strconv.ParseUint(burst, 10, 64)
	if err != nil || other != nil || rate.PerSecond == 0 || rate.Burst == 0 {
		return false, fmt.Errorf("'%s' has no number, allowed are 1 or more, without a unit", option)
	}
	return true, nil
}

func parseRNG(text string) (*vmcell.RNG, error) {
	if text == "unlimited" {
		return &vmcell.RNG{}, nil
	}
	perSecond, burst, found := strings.Cut(text, ",burst=")
	if !found {
		burst = perSecond
	}
	var rng vmcell.RNG
	for _, one := range []struct {
		text string
		to   *uint64
	}{{perSecond, &rng.PerSecond}, {burst, &rng.Burst}} {
		number, err := strconv.ParseUint(one.text, 10, 64)
		if err != nil || number == 0 {
			return nil, fmt.Errorf("'%s' is no number of bytes, allowed are unlimited, and 1 or more", one.text)
		}
		*one.to = number
	}
	return &rng, nil
}

func parseBalloon(text string) (*vmcell.Balloon, error) {
	parts := strings.Split(text, ",")
	mib, err := strconv.ParseUint(parts[0], 10, 64)
	if err != nil {
		return nil, fmt.Errorf("'%s' is no number of MiB", parts[0])
	}
	balloon := vmcell.Balloon{MiB: mib}
	for _, option := range parts[1:] {
		name, value, _ := strings.Cut(option, "=")
		isSwitch := value == "on" || value == "off"
		seconds, err := strconv.ParseUint(value, 10, 32)
		switch {
		case name == "deflate-on-oom" && isSwitch:
			balloon.KeepOnOOM = value == "off"
		case name == "reporting" && isSwitch:
			balloon.NoReporting = value == "off"
		case name == "statistics" && err == nil && seconds <= 86400:
			balloon.StatisticsEvery = time.Duration(seconds) * time.Second
		default:
			return nil, fmt.Errorf("unknown balloon option '%s', allowed are deflate-on-oom=on|off, reporting=on|off and "+
				"statistics=SECONDS, at most 86400", option)
		}
	}
	return &balloon, nil
}

func parseVsock(text string) (*vmcell.Vsock, error) {
	number, path, _ := strings.Cut(text, ",path=")
	cid, err := strconv.ParseUint(number, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("'%s' is no context ID, allowed are 3 to 4294967294", number)
	}
	return &vmcell.Vsock{CID: cid, Path: path}, nil
}

func (o *options) parseCgroup(text string) error {
	parts := strings.Split(text, ",")
	cgroup := &vmcell.Cgroup{Folder: parts[0], Name: fmt.Sprintf("vm-%d", os.Getpid())}
	if cgroup.Folder == "" {
		return errors.New("a path is missing in front of the options")
	}
	o.config.Cgroup, o.memoryMax = cgroup, vmcell.Unlimited
	for _, option := range parts[1:] {
		name, value, _ := strings.Cut(option, "=")
		number, err := strconv.ParseUint(value, 10, 64)
		switch {
		case name == "name" && value != "":
			cgroup.Name = value
		case name == "cpu":
			if cgroup.Quota, cgroup.Period, err = parseShare(value); err != nil {
				return err
			}
		case name == "burst" && err == nil && number <= 1000:
			cgroup.Burst = time.Duration(number) * time.Millisecond
		case name == "weight" && err == nil && number >= 1 && number <= 10000:
			cgroup.Weight = uint32(number)
		case name == "memory" && err == nil && number >= 1:
			o.memoryMax = number
		default:
			return fmt.Errorf("unknown cgroup option '%s', allowed are name=NAME, cpu=N[/M], burst=MS, weight=N and memory=BYTES", option)
		}
	}
	if cgroup.Burst != 0 && cgroup.Quota == 0 {
		return errors.New("a burst means nothing without cpu")
	}
	return nil
}

// parseShare gives the quota and the period of N or N/M of a CPU.
func parseShare(text string) (quota, period time.Duration, err error) {
	first, second, found := strings.Cut(text, "/")
	if !found {
		second = "1"
	}
	numerator, err := strconv.ParseUint(first, 10, 32)
	denominator, other := strconv.ParseUint(second, 10, 32)
	if err != nil || other != nil || numerator == 0 || denominator == 0 {
		return 0, 0, fmt.Errorf("'%s' is no share of a CPU, allowed are N and N/M, as in 1/16", text)
	}
	period = 100 * time.Millisecond
	if numerator*100 < denominator {
		period = time.Second
	}
	quota = time.Duration(uint64(period/time.Microsecond)*numerator/denominator) * time.Microsecond
	if quota == 0 {
		quota = time.Microsecond // which is refused, and is not no limit
	}
	return quota, period, nil
}

func parseLog(text string) (vmcell.LogFile, error) {
	parts := strings.Split(text, ",")
	log := vmcell.LogFile{Path: parts[0]}
	if log.Path == "" {
		return log, errors.New("a path is missing in front of the options")
	}
	for _, option := range parts[1:] {
		name, value, _ := strings.Cut(option, "=")
		number, err := strconv.ParseUint(value, 10, 64)
		switch {
		case option == "append":
			log.Append = true
		case name == "max" && err == nil && number > 0:
			log.MaxBytes = number
		case name == "keep" && err == nil && number <= math.MaxUint32:
			log.Keep = uint32(number)
		default:
			return log, fmt.Errorf("unknown log option '%s', allowed are append, max=BYTES and keep=N", option)
		}
	}
	return log, nil
}
