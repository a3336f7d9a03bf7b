/*
 * A micro-VM launcher in C: the command line of the one in Rust (examples/launch), without --doctor, --network and --print-config, and without those
 * of snapshots.
 *
 * One guest, its serial console on standard output, everything else on standard error. Exit status: 0 the guest shut down or
 * reset itself; 1 it failed; 2 bad arguments.
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include <vmcell.h>

enum { FAILED = 1, BAD_ARGUMENTS = 2 };

/* A description is no larger. */
enum { LONGEST_DESCRIPTION = 1 << 20 };

static const char USAGE[] = "usage: launch --kernel PATH [OPTIONS]\n"
                            "       launch --config FILE [OPTIONS]\n";

// In two, since a compiler need not take a longer text.
static const char HELP[] =
    "\n"
    "  --config FILE        a description of the VM as JSON; options beside it replace what it says, and disks and TAP\n"
    "                       devices are added behind its own\n"
    "  --kernel PATH        a bzImage or an ELF image; needed unless the --config says which one\n"
    "  --initrd PATH        an initial RAM disk\n"
    "  --cmdline TEXT       the kernel's command line [default: empty]\n"
    "  --vcpus N            how many vCPUs, 1 to 64 [default: 1]\n"
    "  --cpu host|v2|v3|v4[,FEATURE]...\n"
    "                       what the vCPUs can do: all that the host can give, or a level of the x86-64 psABI and features\n"
    "                       beyond it [default: host]\n"
    "  --memory MIB         the guest's memory, 16 or more [default: 128]\n"
    "  --pages default|transparent|2mib\n"
    "                       the pages that the host backs the memory with\n"
    "  --numa-node N        the NUMA node that the host takes the memory from, as long as that has some\n"
    "  --lock-memory        locks memory that the guest has used, so that it is never written to swap space\n"
    "  --core-scheduling    runs the VM's threads on the hyperthreads of a core only beside each other\n"
    "  --seccomp refuse|kill|off\n"
    "                       what becomes of a system call that a thread of the VM has no reason to make [default: refuse, or what\n"
    "                       the --config says]\n"
    "  --jail               gives up what the VM does not need, and refuses to go on if the host does not take all of it [default:\n"
    "                       gives up what it can, and says what is missing]\n"
    "  --no-jail            gives up nothing, for debuggers and the like\n";
static const char DEVICES_HELP[] =
    "  --disk PATH[,ro][,engine=uring|sync][,direct][,iops=N[:BURST]][,bandwidth=BYTES[:BURST]]\n"
    "                       a raw disk image or block device; may be given several times. Limits are so many requests a second\n"
    "                       and so many at once, which are as many as in a second unless a burst is given, and the same of bytes\n"
    "  --volume PATH,key-file=FILE[,discard][,ro][,engine=uring|sync][,direct][,iops=N[:BURST]][,bandwidth=BYTES[:BURST]]\n"
    "                       an encrypted volume (LUKS2) as a disk, opened by what is in the key file; may be given several times.\n"
    "                       Volumes come behind the disks. With discard, the guest may give space back, which shows what it does\n"
    "                       not use\n"
    "  --tap NAME[,mac=XX:XX:XX:XX:XX:XX][,queues=N][,{rx|tx}-{frames|bandwidth}=N[:BURST]]...\n"
    "                       a TAP device; may be given several times. Limits are those of a disk, for the frames that the guest\n"
    "                       gets (rx) and for those that it sends (tx)\n"
    "  --metadata FILE      JSON that the guest reads at 169.254.169.254 by the first --tap, of at most 51,200 bytes without white\n"
    "                       space [default: none]\n"
    "  --rng unlimited|BYTES[,burst=BYTES]\n"
    "                       a source of random bytes: as many as the guest asks for, or so many a second and so many at once\n"
    "                       [default: none]\n"
    "  --balloon MIB[,deflate-on-oom=on|off][,reporting=on|off][,statistics=SECONDS]\n"
    "                       a balloon: how much memory the guest is asked to give back, whether it may take some back when it\n"
    "                       runs out, whether it reports free pages (both: on), and how often it is asked for statistics\n"
    "                       [default: none]\n"
    "  --vsock CID[,path=PATH]\n"
    "                       sockets between host and guest, which has this context ID; with a path, other programs of the\n"
    "                       host use them by a Unix socket there [default: none]\n"
    "  --secret NAME=FILE   a secret of the guest's, which is what the file holds: systemd in the guest has it as a credential, by\n"
    "                       LoadCredential=NAME. May be given several times\n"
    "  --scrub-secrets SECONDS\n"
    "                       how many seconds after the start the secrets are wiped from where the guest finds them [default: 300]\n"
    "  --cgroup DIR[,name=NAME][,cpu=N[/M]][,burst=MS][,weight=N][,memory=BYTES]\n"
    "                       joins the cgroup of version 2 in that folder, limits the memory of all its processes, and makes a\n"
    "                       cgroup in it for the VM's threads, with a share of the CPUs (1/16 or 2, for instance), milliseconds\n"
    "                       that are kept of what was not used, and a weight [default: stays where it is]\n"
    "  --discovery acpi|cmdline\n"
    "                       how the guest finds its devices [default: acpi]\n"
    "  --protocol auto|linux64|pvh\n"
    "                       how the kernel is entered [default: auto]\n"
    "  --console stdio|none|PATH\n"
    "                       what the serial port is connected to [default: stdio, or what the --config says]\n"
    "  --console-rate BYTES[:BURST]\n"
    "                       how many bytes a second of what the guest prints are passed on, and how many at once, which are as\n"
    "                       many as in a second unless a burst is given [default: no limit]\n"
    "  --log PATH[,append][,max=BYTES][,keep=N]\n"
    "                       a file that gets what the guest prints as well; may be given several times\n"
    "  --poll-us N          for how many microseconds at most the I/O thread looks for more to do before it sleeps, 0 to 1000;\n"
    "                       0 turns that off [default: 50]\n"
    "  -v                   says on standard error how long things took, what happens to the VM, and how the guest ended\n"
    "  -h, --help           prints this\n"
    "\n"
    "Exit status: 0 the guest shut down or reset itself; 1 it failed; 2 bad arguments.\n";

static _Noreturn void refuse(const char *format, ...) {
    va_list values;
    va_start(values, format);
    fputs("launch: ", stderr);
    vfprintf(stderr, format, values);
    fputc('\n', stderr);
    va_end(values);
    exit(BAD_ARGUMENTS);
}

/*
 * Ends the program where a call failed. What it holds ends with it. It gets the place of the error: the error itself might be
 * read before the call is made, as C evaluates arguments in any order.
 */
static void check(int32_t number, vmcell_error **error) {
    if (number == VMCELL_OK)
        return;
    fprintf(stderr, "launch: %s\n", vmcell_error_chain(*error));
    vmcell_error_free(*error);
    exit(number == VMCELL_ERROR_INVALID_CONFIG ? BAD_ARGUMENTS : FAILED);
}

static unsigned long long number_of(const char *name, const char *text, unsigned long long most) {
    char *end;
    errno = 0;
    unsigned long long number = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end != '\0' || errno != 0 || number > most)
        refuse("'%s' is no value for %s, allowed is a number up to %llu", text, name, most);
    return number;
}

struct choice {
    const char *name;
    int32_t value;
};

static int32_t choice_of(const char *option, const char *text, const struct choice *choices) {
    for (; choices->name != NULL; choices++)
        if (strcmp(text, choices->name) == 0)
            return choices->value;
    refuse("'%s' is no value for %s", text, option);
}

/* Reads a file that is called `what` in messages, of at most LONGEST_DESCRIPTION bytes. */
static char *read_file(const char *path, const char *what, size_t *length) {
    char *text = malloc(LONGEST_DESCRIPTION + 1);
    FILE *file = fopen(path, "re");
    if (text == NULL || file == NULL)
        refuse("cannot read the %s %s: %s", what, path, strerror(errno));
    *length = fread(text, 1, LONGEST_DESCRIPTION + 1, file);
    if (ferror(file))
        refuse("cannot read the %s %s: %s", what, path, strerror(errno));
    if (*length > LONGEST_DESCRIPTION)
        refuse("the %s %s has more than the %d bytes that are allowed", what, path, LONGEST_DESCRIPTION);
    fclose(file);
    return text;
}

/* The configuration in a file, or a new one for none. */
static vmcell_config *config_of(const char *path) {
    vmcell_config *config;
    vmcell_error *error = NULL;
    if (path == NULL) {
        check(vmcell_config_new(&config, &error), &error);
        return config;
    }
    size_t length;
    char *json = read_file(path, "description", &length);
    int32_t failed = vmcell_config_new_from_json(json, length, &config, &error);
    if (failed != VMCELL_OK)
        refuse("%s: %s", path, vmcell_error_chain(error));
    free(json);
    return config;
}

/* Cuts "NAME,option,option": gives the name, and moves `rest` behind it. */
static char *name_of(char *text, char **rest) {
    *rest = text;
    char *name = strsep(rest, ",");
    if (*name == '\0')
        refuse("a path or a name is missing in front of the options");
    return name;
}

/* So many a second, and so many at once. */
struct rate {
    uint64_t per_second, burst;
};

/* Takes "NAME=N[:BURST]"; says whether the option has this name. */
static int takes_rate(char *option, const char *name, struct rate *rate) {
    size_t length = strlen(name);
    if (strncmp(option, name, length) != 0 || option[length] != '=')
        return 0;
    char *burst = option + length + 1, *per_second = strsep(&burst, ":");
    rate->per_second = number_of(name, per_second, UINT64_MAX);
    rate->burst = burst == NULL ? rate->per_second : number_of(name, burst, UINT64_MAX);
    if (rate->per_second == 0 || rate->burst == 0)
        refuse("%s is 0, allowed are 1 or more", name);
    return 1;
}

/* What a disk and a volume are told alike. */
struct disk_options {
    int32_t read_only, direct, engine;
    struct rate iops, bandwidth;
};

/* Takes an option of a disk; says whether it is one. */
static int takes_disk_option(char *option, struct disk_options *of) {
    if (strcmp(option, "ro") == 0)
        of->read_only = 1;
    else if (strcmp(option, "engine=sync") == 0)
        of->engine = VMCELL_ENGINE_SYNC;
    else if (strcmp(option, "engine=uring") == 0)
        of->engine = VMCELL_ENGINE_URING;
    else if (strcmp(option, "direct") == 0)
        of->direct = 1;
    else
        return takes_rate(option, "iops", &of->iops) || takes_rate(option, "bandwidth", &of->bandwidth);
    return 1;
}

static void set_limits(vmcell_disk *disk, const struct disk_options *of) {
    vmcell_error *error = NULL;
    check(vmcell_disk_set_limits(disk, of->iops.per_second, of->iops.burst, of->bandwidth.per_second, of->bandwidth.burst, &error),
          &error);
}

static void add_disk(vmcell_config *config, char *text) {
    vmcell_disk *disk;
    vmcell_error *error = NULL;
    char *rest, *option, *path = name_of(text, &rest);
    struct disk_options of = {0, 0, VMCELL_ENGINE_AUTO, {0, 0}, {0, 0}};
    while ((option = strsep(&rest, ",")) != NULL)
        if (!takes_disk_option(option, &of))
            refuse("unknown disk option '%s', allowed are ro, engine=uring, engine=sync, direct, iops=N[:BURST] and "
                   "bandwidth=BYTES[:BURST]",
                   option);
    check(vmcell_disk_new(path, &disk, &error), &error);
    check(vmcell_disk_set_read_only(disk, of.read_only, &error), &error);
    check(vmcell_disk_set_engine(disk, of.engine, &error), &error);
    check(vmcell_disk_set_direct(disk, of.direct, &error), &error);
    set_limits(disk, &of);
    check(vmcell_config_add_disk(config, disk, &error), &error);
}

/* Opens an encrypted volume by all that is in its key file. */
static void add_volume(vmcell_config *config, char *text) {
    vmcell_key *key;
    vmcell_disk *disk;
    vmcell_error *error = NULL;
    char *rest, *option, *path = name_of(text, &rest), *key_file = NULL;
    struct disk_options of = {0, 0, VMCELL_ENGINE_AUTO, {0, 0}, {0, 0}};
    uint32_t flags = 0;
    while ((option = strsep(&rest, ",")) != NULL) {
        if (strncmp(option, "key-file=", 9) == 0)
            key_file = option + 9;
        else if (strcmp(option, "discard") == 0)
            flags |= VMCELL_VOLUME_DISCARD;
        else if (!takes_disk_option(option, &of))
            refuse("unknown volume option '%s', allowed are key-file=FILE, discard, ro, engine=uring, engine=sync, direct, "
                   "iops=N[:BURST] and bandwidth=BYTES[:BURST]",
                   option);
    }
    if (key_file == NULL || *key_file == '\0')
        refuse("a volume needs key-file=FILE");
    if (of.read_only)
        flags |= VMCELL_VOLUME_READ_ONLY;
    if (of.direct)
        flags |= VMCELL_VOLUME_DIRECT;
    check(vmcell_key_new_from_file(VMCELL_KEY_PASSPHRASE, key_file, &key, &error), &error);
    check(vmcell_disk_new_volume(path, key, NULL, flags, of.engine, &disk, &error), &error);
    vmcell_key_free(key);
    set_limits(disk, &of);
    check(vmcell_config_add_disk(config, disk, &error), &error);
}

/* Takes "NAME=FILE". What was given is not repeated if it is something else: it may be the secret itself. */
static void add_secret(vmcell_config *config, char *text) {
    vmcell_secret *secret;
    vmcell_error *error = NULL;
    char *file = text, *name = strsep(&file, "=");
    if (*name == '\0' || file == NULL || *file == '\0')
        refuse("--secret: allowed is NAME=FILE, with the file that has the secret");
    check(vmcell_secret_new_from_file(name, file, &secret, &error), &error);
    check(vmcell_config_add_secret(config, secret, &error), &error);
    vmcell_secret_free(secret);
}

static void set_scrubbing(vmcell_config *config, const char *text) {
    vmcell_error *error = NULL;
    unsigned long long seconds = number_of("--scrub-secrets", text, UINT64_MAX / 1000 - 1);
    if (seconds == 0)
        refuse("--scrub-secrets is 0, allowed are 1 or more");
    check(vmcell_config_set_scrub_secrets_after(config, seconds * 1000, &error), &error);
}

/* The metadata in a file, which the first --tap takes; NULL for none, or if that was taken. */
static vmcell_metadata *metadata;

static void read_metadata(const char *path) {
    vmcell_error *error = NULL;
    size_t length;
    char *json = read_file(path, "metadata", &length);
    check(vmcell_metadata_new(&metadata, &error), &error);
    if (vmcell_metadata_set(metadata, json, length, &error) != VMCELL_OK)
        refuse("%s: %s", path, vmcell_error_chain(error));
    free(json);
}

static void add_tap(vmcell_config *config, char *text) {
    vmcell_nic *nic;
    vmcell_error *error = NULL;
    char *rest, *option, *name = name_of(text, &rest);
    uint8_t mac[VMCELL_MAC_BYTES];
    uint16_t queues = 0;
    int has_mac = 0;
    /* Frames and bytes that the guest gets, and the same that it sends. */
    struct rate rx[2] = {{0, 0}, {0, 0}}, tx[2] = {{0, 0}, {0, 0}};
    while ((option = strsep(&rest, ",")) != NULL) {
        int end = 0;
        if (takes_rate(option, "rx-frames", &rx[0]) || takes_rate(option, "rx-bandwidth", &rx[1]) ||
            takes_rate(option, "tx-frames", &tx[0]) || takes_rate(option, "tx-bandwidth", &tx[1]))
            continue;
        if (strncmp(option, "queues=", 7) == 0) {
            unsigned number = 0;
            if (sscanf(option, "queues=%2u%n", &number, &end) != 1 || option[end] != '\0' || number < 1 || number > 16)
                refuse("'%s' is no number of queues, allowed are 1 to 16", option + 7);
            queues = (uint16_t)number;
            continue;
        }
        int found = sscanf(option, "mac=%2hhx:%2hhx:%2hhx:%2hhx:%2hhx:%2hhx%n", &mac[0], &mac[1], &mac[2], &mac[3], &mac[4],
                           &mac[5], &end);
        if (found != VMCELL_MAC_BYTES || end != 21 || option[end] != '\0')
            refuse("unknown tap option '%s', allowed are mac=XX:XX:XX:XX:XX:XX, queues=N, and rx-frames, rx-bandwidth, tx-frames and "
                   "tx-bandwidth with =N[:BURST]",
                   option);
        has_mac = 1;
    }
    check(vmcell_nic_new(name, &nic, &error), &error);
    if (has_mac)
        check(vmcell_nic_set_mac(nic, mac, &error), &error);
    if (queues != 0)
        check(vmcell_nic_set_queues(nic, queues, &error), &error);
    check(vmcell_nic_set_receive_limits(nic, rx[0].per_second, rx[0].burst, rx[1].per_second, rx[1].burst, &error), &error);
    check(vmcell_nic_set_send_limits(nic, tx[0].per_second, tx[0].burst, tx[1].per_second, tx[1].burst, &error), &error);
    if (metadata != NULL) {
        check(vmcell_nic_set_metadata(nic, metadata, &error), &error);
        vmcell_metadata_free(metadata);
        metadata = NULL;
    }
    check(vmcell_config_add_nic(config, nic, &error), &error);
}

static void set_cpu(vmcell_config *config, char *text) {
    static const struct choice LEVELS[] = {
        {"host", VMCELL_CPU_HOST}, {"v2", VMCELL_CPU_V2}, {"v3", VMCELL_CPU_V3}, {"v4", VMCELL_CPU_V4}, {NULL, 0}};
    vmcell_error *error = NULL;
    char *features = text;
    int32_t level = choice_of("--cpu", strsep(&features, ","), LEVELS);
    check(vmcell_config_set_cpu(config, level, features == NULL ? "" : features, &error), &error);
}

static void set_rng(vmcell_config *config, char *text) {
    vmcell_error *error = NULL;
    unsigned long long per_second = 0, burst = 0;
    if (strcmp(text, "unlimited") != 0) {
        char *first = strsep(&text, ",");
        if (text != NULL && strncmp(text, "burst=", 6) != 0)
            refuse("unknown rng option '%s', allowed is burst=BYTES", text);
        per_second = number_of("--rng", first, UINT64_MAX);
        burst = text == NULL ? per_second : number_of("burst", text + 6, UINT64_MAX);
        if (per_second == 0 || burst == 0)
            refuse("--rng gives no byte, allowed are unlimited, and 1 or more");
    }
    check(vmcell_config_set_rng(config, per_second, burst, &error), &error);
}

static void set_balloon(vmcell_config *config, char *text) {
    static const struct choice SWITCH[] = {{"on", 1}, {"off", 0}, {NULL, 0}};
    vmcell_error *error = NULL;
    int32_t deflates = 1, reports = 1;
    unsigned long long seconds = 0, mib = number_of("--balloon", strsep(&text, ","), UINT64_MAX);
    char *option;
    while ((option = strsep(&text, ",")) != NULL) {
        if (strncmp(option, "deflate-on-oom=", 15) == 0)
            deflates = choice_of("deflate-on-oom", option + 15, SWITCH);
        else if (strncmp(option, "reporting=", 10) == 0)
            reports = choice_of("reporting", option + 10, SWITCH);
        else if (strncmp(option, "statistics=", 11) == 0)
            seconds = number_of("statistics", option + 11, 86400);
        else
            refuse("unknown balloon option '%s', allowed are deflate-on-oom=on|off, reporting=on|off and statistics=SECONDS", option);
    }
    check(vmcell_config_set_balloon(config, mib, deflates, reports, (uint32_t)seconds, &error), &error);
}

static void set_console_rate(vmcell_config *config, char *text) {
    vmcell_error *error = NULL;
    char *per_second = strsep(&text, ":");
    unsigned long long rate = number_of("--console-rate", per_second, UINT64_MAX);
    unsigned long long burst = text == NULL ? rate : number_of("--console-rate", text, UINT64_MAX);
    if (rate == 0 || burst == 0)
        refuse("--console-rate is 0, allowed are 1 or more");
    check(vmcell_config_set_console_rate(config, rate, burst, &error), &error);
}

static void set_vsock(vmcell_config *config, char *text) {
    vmcell_error *error = NULL;
    char *path = strstr(text, ",path=");
    if (path != NULL) {
        *path = '\0';
        path += 6;
    }
    unsigned long long cid = number_of("--vsock", text, UINT32_MAX);
    check(vmcell_config_set_vsock(config, cid, path, 0, &error), &error);
}

/* The cgroup that the process joins, or NULL, and its limit of memory. */
static char *cgroup_folder;
static unsigned long long cgroup_memory = UINT64_MAX;

static void set_cgroup(vmcell_config *config, char *text) {
    vmcell_error *error = NULL;
    char own_name[32], *rest, *option, *folder = name_of(text, &rest), *name = own_name;
    unsigned long long numerator = 0, denominator = 1, burst = 0, weight = 0, period = 100000;
    snprintf(own_name, sizeof own_name, "vm-%ld", (long)getpid());
    while ((option = strsep(&rest, ",")) != NULL) {
        if (strncmp(option, "name=", 5) == 0 && option[5] != '\0')
            name = option + 5;
        else if (strncmp(option, "cpu=", 4) == 0) {
            char *of = option + 4;
            numerator = number_of("cpu", strsep(&of, "/"), UINT32_MAX);
            denominator = of == NULL ? 1 : number_of("cpu", of, UINT32_MAX);
            if (numerator == 0 || denominator == 0)
                refuse("cpu is no share of a CPU, allowed are N and N/M, as in 1/16");
        } else if (strncmp(option, "burst=", 6) == 0)
            burst = number_of("burst", option + 6, 1000);
        else if (strncmp(option, "weight=", 7) == 0 && (weight = number_of("weight", option + 7, 10000)) != 0)
            continue;
        else if (strncmp(option, "memory=", 7) == 0 && (cgroup_memory = number_of("memory", option + 7, UINT64_MAX)) != 0)
            continue;
        else
            refuse("unknown cgroup option '%s', allowed are name=NAME, cpu=N[/M], burst=MS, weight=N and memory=BYTES", option);
    }
    if (burst != 0 && numerator == 0)
        refuse("a burst means nothing without cpu");
    if (numerator * 100 < denominator)
        period = 1000000;
    unsigned long long quota = period * numerator / denominator;
    if (numerator != 0 && quota == 0)
        quota = 1;
    cgroup_folder = folder;
    quota = quota < UINT32_MAX ? quota : UINT32_MAX;
    check(vmcell_config_set_cgroup(config, folder, name, (uint32_t)quota, (uint32_t)period, (uint32_t)burst * 1000, (uint32_t)weight, &error),
          &error);
}

static void add_log(vmcell_config *config, char *text) {
    vmcell_console *console;
    vmcell_error *error = NULL;
    unsigned long long most = 0, keep = 0;
    int is_limited = 0, appends = 0;
    char *rest, *option, *path = name_of(text, &rest);
    while ((option = strsep(&rest, ",")) != NULL) {
        if (strcmp(option, "append") == 0)
            appends = 1;
        else if (strncmp(option, "max=", 4) == 0) {
            most = number_of("max", option + 4, UINT64_MAX);
            is_limited = 1;
        } else if (strncmp(option, "keep=", 5) == 0)
            keep = number_of("keep", option + 5, UINT32_MAX);
        else
            refuse("unknown log option '%s', allowed are append, max=BYTES and keep=N", option);
    }
    check(vmcell_console_new_file(path, &console, &error), &error);
    check(vmcell_console_set_append(console, appends, &error), &error);
    if (is_limited)
        check(vmcell_console_set_rotation(console, most, (uint32_t)keep, &error), &error);
    else if (keep != 0)
        refuse("keep=%llu means nothing for a log without max", keep);
    check(vmcell_config_add_console(config, console, &error), &error);
}

/* A line for each thing that happens to the VM. */
static void say(int32_t level, const char *vm, const char *target, const char *message, void *user) {
    (void)level, (void)user;
    fprintf(stderr, "launch: %s%s%s: %s\r\n", vm, *vm == '\0' ? "" : ": ", target, message);
}

/* The terminal as it was, which is what it becomes again however the launcher ends, SIGKILL aside. */
static struct termios cooked;
static int is_raw;

static void leave_raw(void) {
    if (is_raw)
        tcsetattr(STDIN_FILENO, TCSANOW, &cooked);
}

static void leave_raw_and_die(int number) {
    leave_raw();
    signal(number, SIG_DFL);
    raise(number);
}

static void enter_raw(void) {
    struct termios raw;
    if (tcgetattr(STDIN_FILENO, &cooked) != 0)
        return;
    raw = cooked;
    cfmakeraw(&raw);
    is_raw = tcsetattr(STDIN_FILENO, TCSANOW, &raw) == 0;
    atexit(leave_raw);
    signal(SIGTERM, leave_raw_and_die);
    signal(SIGINT, leave_raw_and_die);
    signal(SIGHUP, leave_raw_and_die);
}

static void set_console(vmcell_config *config, const char *text) {
    vmcell_console *console;
    vmcell_error *error = NULL;
    if (*text == '\0')
        refuse("'' is no value for --console, allowed are stdio, none, or the path of a file");
    else if (strcmp(text, "stdio") == 0)
        check(vmcell_console_new_stdio(&console, &error), &error);
    else if (strcmp(text, "none") == 0)
        check(vmcell_console_new_none(&console, &error), &error);
    else
        check(vmcell_console_new_file(text, &console, &error), &error);
    check(vmcell_config_set_console(config, console, &error), &error);
}

static long long now_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000LL + now.tv_nsec / 1000;
}

/* Whether the process gives up what the VM does not need, and must. */
enum jailed { NOT_AT_ALL, AS_FAR_AS_POSSIBLE, WHOLLY };

/* What the launcher may lock beside the guest's memory, in bytes. */
#define LOCKED_BESIDE (64ULL << 20)

/* Gives up what the VM does not need, and says in one line which layers the host does not give. */
static void enter_jail(vmcell_config *config, enum jailed jailed, unsigned long long locked_bytes) {
    vmcell_jail *jail;
    vmcell_error *error = NULL;
    uint32_t missing;
    size_t length;
    char which[4096] = "without layers too many to name";
    check(vmcell_config_open(config, &error), &error);
    check(vmcell_jail_new(&jail, &error), &error);
    /* The launcher uses no descriptor above 2 that the library has not opened. */
    check(vmcell_jail_close_inherited(jail, NULL, 0, &error), &error);
    check(vmcell_jail_limit(jail, VMCELL_LIMIT_CORE_BYTES, 0, &error), &error);
    if (locked_bytes != 0)
        check(vmcell_jail_limit(jail, VMCELL_LIMIT_LOCKED_BYTES, locked_bytes + LOCKED_BESIDE, &error), &error);
    check(vmcell_jail_keep_folders(jail, config, &error), &error);
    check(vmcell_jail_enter(jail, &missing, which, sizeof which, &length, &error), &error);
    if (missing != 0 && jailed == WHOLLY) {
        fprintf(stderr, "launch: the launcher is jailed %s\n", which);
        exit(FAILED);
    }
    if (missing != 0)
        fprintf(stderr, "launch: jailed %s\n", which);
}

static int run(vmcell_config *config, int wants_terminal, int verbose, int seccomp) {
    vmcell_vm *vm;
    vmcell_error *error = NULL;
    int32_t ended;
    char how[4096] = "for a reason too long to print";
    size_t length;
    long long begin = now_us();
    check(vmcell_vm_new(config, &vm, &error), &error);
    if (wants_terminal)
        enter_raw();
    check(vmcell_vm_start(vm, &error), &error);
    check(vmcell_thread_confine(seccomp, &error), &error);
    if (verbose)
        fprintf(stderr, "launch: built and started in %lld us\r\n", now_us() - begin);
    check(vmcell_vm_wait(vm, VMCELL_WAIT_FOREVER, &ended, &error), &error);
    leave_raw();
    check(vmcell_vm_exit_text(vm, how, sizeof how, &length, &error), &error);
    if (verbose)
        fprintf(stderr, "launch: ended after %lld ms: %s\n", (now_us() - begin) / 1000, how);
    vmcell_vm_free(vm);
    if (ended == VMCELL_EXIT_SHUTDOWN || ended == VMCELL_EXIT_RESET)
        return EXIT_SUCCESS;
    fprintf(stderr, "launch: %s\n", how);
    return FAILED;
}

static const struct option OPTIONS[] = {
    {"config", required_argument, NULL, 'f'},      {"kernel", required_argument, NULL, 'k'},
    {"initrd", required_argument, NULL, 'i'},      {"cmdline", required_argument, NULL, 'l'},
    {"vcpus", required_argument, NULL, 'c'},       {"cpu", required_argument, NULL, 'u'},
    {"memory", required_argument, NULL, 'm'},      {"pages", required_argument, NULL, 'g'},
    {"numa-node", required_argument, NULL, 'n'},   {"lock-memory", no_argument, NULL, 'a'},
    {"core-scheduling", no_argument, NULL, 's'},   {"disk", required_argument, NULL, 'd'},
    {"tap", required_argument, NULL, 't'},         {"discovery", required_argument, NULL, 'y'},
    {"protocol", required_argument, NULL, 'p'},    {"console", required_argument, NULL, 'o'},
    {"log", required_argument, NULL, 'w'},         {"poll-us", required_argument, NULL, 'z'},
    {"seccomp", required_argument, NULL, 'r'},     {"rng", required_argument, NULL, 'e'},
    {"console-rate", required_argument, NULL, 'R'},
    {"vsock", required_argument, NULL, 'V'},       {"cgroup", required_argument, NULL, 'G'},
    {"jail", no_argument, NULL, 'j'},              {"no-jail", no_argument, NULL, 'J'},
    {"balloon", required_argument, NULL, 'b'},     {"metadata", required_argument, NULL, 'M'},
    {"volume", required_argument, NULL, 'D'},      {"secret", required_argument, NULL, 'S'},
    {"scrub-secrets", required_argument, NULL, 'W'},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

static const struct choice SECCOMP[] = {
    {"refuse", VMCELL_SECCOMP_REFUSE}, {"kill", VMCELL_SECCOMP_KILL}, {"off", VMCELL_SECCOMP_OFF}, {NULL, 0}};

/* Sets what one option says. The console and logs come at the end, as a console replaces another one, and a log does not. */
static void set(vmcell_config *config, int option, char *text) {
    static const struct choice DISCOVERY[] = {
        {"acpi", VMCELL_DISCOVERY_ACPI}, {"cmdline", VMCELL_DISCOVERY_CMDLINE}, {NULL, 0}};
    static const struct choice PROTOCOL[] = {
        {"auto", VMCELL_PROTOCOL_AUTO}, {"linux64", VMCELL_PROTOCOL_LINUX64}, {"pvh", VMCELL_PROTOCOL_PVH}, {NULL, 0}};
    static const struct choice PAGES[] = {{"default", VMCELL_PAGES_DEFAULT},
                                          {"transparent", VMCELL_PAGES_TRANSPARENT},
                                          {"2mib", VMCELL_PAGES_HUGE_2_MIB},
                                          {NULL, 0}};
    vmcell_error *e = NULL;
    switch (option) {
    case 'k': check(vmcell_config_set_kernel(config, text, &e), &e); break;
    case 'i': check(vmcell_config_set_initrd(config, text, &e), &e); break;
    case 'l': check(vmcell_config_set_cmdline(config, text, &e), &e); break;
    case 'c': check(vmcell_config_set_vcpus(config, (uint32_t)number_of("--vcpus", text, UINT32_MAX), &e), &e); break;
    case 'u': set_cpu(config, text); break;
    case 'm': check(vmcell_config_set_memory_mib(config, number_of("--memory", text, UINT64_MAX), &e), &e); break;
    case 'g': check(vmcell_config_set_memory_pages(config, choice_of("--pages", text, PAGES), &e), &e); break;
    case 'n': check(vmcell_config_set_numa_node(config, (int32_t)number_of("--numa-node", text, INT32_MAX), &e), &e); break;
    case 'a': check(vmcell_config_set_memory_locked(config, 1, &e), &e); break;
    case 's': check(vmcell_config_set_core_scheduling(config, 1, &e), &e); break;
    case 'r': check(vmcell_config_set_seccomp(config, choice_of("--seccomp", text, SECCOMP), &e), &e); break;
    case 'd': add_disk(config, text); break;
    case 'S': add_secret(config, text); break;
    case 'W': set_scrubbing(config, text); break;
    case 'e': set_rng(config, text); break;
    case 'b': set_balloon(config, text); break;
    case 'R': set_console_rate(config, text); break;
    case 'V': set_vsock(config, text); break;
    case 'G': set_cgroup(config, text); break;
    case 't': add_tap(config, text); break;
    case 'y': check(vmcell_config_set_discovery(config, choice_of("--discovery", text, DISCOVERY), &e), &e); break;
    case 'p': check(vmcell_config_set_protocol(config, choice_of("--protocol", text, PROTOCOL), &e), &e); break;
    case 'z': check(vmcell_config_set_polling(config, (uint32_t)number_of("--poll-us", text, 1000), &e), &e); break;
    }
}

int main(int argc, char **argv) {
    const char *console = NULL, *description = NULL, *kernel = NULL, *metadata_path = NULL;
    char **logs = calloc((size_t)argc, sizeof *logs), **volumes = calloc((size_t)argc, sizeof *volumes);
    size_t log_count = 0, volume_count = 0;
    int option, verbose = 0, locks = 0, is_filtered = 0, has_secrets = 0, scrubs = 0;
    /* The description may say another one, which the launcher does not read: then its own thread is not filtered. */
    int seccomp = VMCELL_SECCOMP_OFF;
    unsigned long long memory_mib = 128;
    enum jailed jailed = AS_FAR_AS_POSSIBLE;
    vmcell_error *error = NULL;

    if (logs == NULL || volumes == NULL)
        refuse("no memory");
    /* First what the other options change. */
    while ((option = getopt_long(argc, argv, "vh", OPTIONS, NULL)) != -1) {
        switch (option) {
        case 'f': description = optarg; break;
        case 'k': kernel = optarg; break;
        case 'o': console = optarg; break;
        case 'w': logs[log_count++] = optarg; break;
        case 'D': volumes[volume_count++] = optarg; break;
        case 'S': has_secrets = 1; break;
        case 'W': scrubs = 1; break;
        case 'M': metadata_path = optarg; break;
        case 'a': locks = 1; break;
        case 'j': case 'J':
            if (jailed != AS_FAR_AS_POSSIBLE && jailed != (option == 'j' ? WHOLLY : NOT_AT_ALL))
                refuse("--jail and --no-jail cannot both be asked for");
            jailed = option == 'j' ? WHOLLY : NOT_AT_ALL;
            break;
        case 'm': memory_mib = number_of("--memory", optarg, UINT64_MAX); break;
        case 'r': seccomp = choice_of("--seccomp", optarg, SECCOMP), is_filtered = 1; break;
        case 'v': verbose = 1; break;
        case 'h': printf("%s%s%s", USAGE, HELP, DEVICES_HELP); return EXIT_SUCCESS;
        case '?': fputs(USAGE, stderr); return BAD_ARGUMENTS;
        }
    }
    if (optind < argc)
        refuse("unknown argument '%s'\n%s", argv[optind], USAGE);
    if (kernel == NULL && description == NULL)
        refuse("--kernel is missing\n%s", USAGE);
    if (scrubs && !has_secrets)
        refuse("--scrub-secrets was given without a --secret");
    vmcell_config *config = config_of(description);
    if (description == NULL && !is_filtered)
        seccomp = VMCELL_SECCOMP_REFUSE;
    if (description == NULL)
        check(vmcell_config_set_seccomp(config, seccomp, &error), &error);
    if (metadata_path != NULL)
        read_metadata(metadata_path);
    optind = 1;
    while ((option = getopt_long(argc, argv, "vh", OPTIONS, NULL)) != -1)
        set(config, option, optarg);
    /* Behind the disks, whatever the order. */
    for (size_t i = 0; i < volume_count; i++)
        add_volume(config, volumes[i]);
    free(volumes);
    if (metadata != NULL)
        refuse("--metadata was given without the --tap that it is read by");
    if (console == NULL && description == NULL)
        console = "stdio";
    if (console != NULL)
        set_console(config, console);
    for (size_t i = 0; i < log_count; i++)
        add_log(config, logs[i]);
    free(logs);
    if (verbose)
        check(vmcell_config_set_log(config, say, NULL, NULL, &error), &error);
    if (cgroup_folder != NULL)
        check(vmcell_cgroup_join(cgroup_folder, cgroup_memory, UINT64_MAX, UINT64_MAX, &error), &error);
    if (jailed != NOT_AT_ALL)
        enter_jail(config, jailed, locks ? memory_mib << 20 : 0);
    return run(config, console != NULL && strcmp(console, "stdio") == 0, verbose, seccomp);
}
