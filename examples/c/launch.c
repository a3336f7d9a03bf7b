/*
 * A micro-VM launcher in C: the same command line as the one in Rust (examples/launch).
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

static const char USAGE[] =
    "usage: launch --kernel PATH [--initrd PATH] [--cmdline TEXT] [--vcpus N] [--memory MIB]\n"
    "              [--disk PATH[,ro][,engine=uring|sync][,direct]]... [--tap NAME[,mac=XX:XX:XX:XX:XX:XX][,queues=N]]...\n"
    "              [--discovery acpi|cmdline] [--protocol auto|linux64|pvh] [--console stdio|none|PATH] [-v]\n";

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

/* Cuts "NAME,option,option": gives the name, and moves `rest` behind it. */
static char *name_of(char *text, char **rest) {
    *rest = text;
    char *name = strsep(rest, ",");
    if (*name == '\0')
        refuse("a path or a name is missing in front of the options");
    return name;
}

static void add_disk(vmcell_config *config, char *text) {
    vmcell_disk *disk;
    vmcell_error *error = NULL;
    char *rest, *option, *path = name_of(text, &rest);
    int32_t read_only = 0, direct = 0, engine = VMCELL_ENGINE_AUTO;
    while ((option = strsep(&rest, ",")) != NULL) {
        if (strcmp(option, "ro") == 0)
            read_only = 1;
        else if (strcmp(option, "engine=sync") == 0)
            engine = VMCELL_ENGINE_SYNC;
        else if (strcmp(option, "engine=uring") == 0)
            engine = VMCELL_ENGINE_URING;
        else if (strcmp(option, "direct") == 0)
            direct = 1;
        else
            refuse("unknown disk option '%s', allowed are ro, engine=uring, engine=sync and direct", option);
    }
    check(vmcell_disk_new(path, &disk, &error), &error);
    check(vmcell_disk_set_read_only(disk, read_only, &error), &error);
    check(vmcell_disk_set_engine(disk, engine, &error), &error);
    check(vmcell_disk_set_direct(disk, direct, &error), &error);
    check(vmcell_config_add_disk(config, disk, &error), &error);
}

static void add_tap(vmcell_config *config, char *text) {
    vmcell_nic *nic;
    vmcell_error *error = NULL;
    char *rest, *option, *name = name_of(text, &rest);
    uint8_t mac[VMCELL_MAC_BYTES];
    uint16_t queues = 0;
    int has_mac = 0;
    while ((option = strsep(&rest, ",")) != NULL) {
        int end = 0;
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
            refuse("unknown tap option '%s', allowed are mac=XX:XX:XX:XX:XX:XX and queues=N", option);
        has_mac = 1;
    }
    check(vmcell_nic_new(name, &nic, &error), &error);
    if (has_mac)
        check(vmcell_nic_set_mac(nic, mac, &error), &error);
    if (queues != 0)
        check(vmcell_nic_set_queues(nic, queues, &error), &error);
    check(vmcell_config_add_nic(config, nic, &error), &error);
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

static int run(vmcell_config *config, int wants_terminal, int verbose) {
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

int main(int argc, char **argv) {
    static const struct option OPTIONS[] = {
        {"kernel", required_argument, NULL, 'k'},  {"initrd", required_argument, NULL, 'i'},
        {"cmdline", required_argument, NULL, 'l'}, {"vcpus", required_argument, NULL, 'c'},
        {"memory", required_argument, NULL, 'm'},  {"disk", required_argument, NULL, 'd'},
        {"tap", required_argument, NULL, 't'},     {"discovery", required_argument, NULL, 'y'},
        {"console", required_argument, NULL, 'o'}, {"protocol", required_argument, NULL, 'p'},
        {"help", no_argument, NULL, 'h'},          {NULL, 0, NULL, 0},
    };
    static const struct choice DISCOVERY[] = {
        {"acpi", VMCELL_DISCOVERY_ACPI}, {"cmdline", VMCELL_DISCOVERY_CMDLINE}, {NULL, 0}};
    static const struct choice PROTOCOL[] = {
        {"auto", VMCELL_PROTOCOL_AUTO}, {"linux64", VMCELL_PROTOCOL_LINUX64}, {"pvh", VMCELL_PROTOCOL_PVH}, {NULL, 0}};
    const char *console = "stdio", *kernel = NULL;
    uint64_t memory = 128;
    int option, verbose = 0;
    vmcell_config *config;
    vmcell_error *e = NULL;

    check(vmcell_config_new(&config, &e), &e);
    while ((option = getopt_long(argc, argv, "vh", OPTIONS, NULL)) != -1) {
        switch (option) {
        case 'k': kernel = optarg; break;
        case 'i': check(vmcell_config_set_initrd(config, optarg, &e), &e); break;
        case 'l': check(vmcell_config_set_cmdline(config, optarg, &e), &e); break;
        case 'c': check(vmcell_config_set_vcpus(config, number_of("--vcpus", optarg, UINT32_MAX), &e), &e); break;
        case 'm': memory = number_of("--memory", optarg, UINT64_MAX); break;
        case 'd': add_disk(config, optarg); break;
        case 't': add_tap(config, optarg); break;
        case 'y': check(vmcell_config_set_discovery(config, choice_of("--discovery", optarg, DISCOVERY), &e), &e); break;
        case 'p': check(vmcell_config_set_protocol(config, choice_of("--protocol", optarg, PROTOCOL), &e), &e); break;
        case 'o': console = optarg; break;
        case 'v': verbose = 1; break;
        case 'h': fputs(USAGE, stdout); return EXIT_SUCCESS;
        default: fputs(USAGE, stderr); return BAD_ARGUMENTS;
        }
    }
    if (optind < argc)
        refuse("unknown argument '%s'\n%s", argv[optind], USAGE);
    if (kernel == NULL)
        refuse("--kernel is missing\n%s", USAGE);
    check(vmcell_config_set_kernel(config, kernel, &e), &e);
    check(vmcell_config_set_memory(config, memory, VMCELL_MEMORY_ANONYMOUS, VMCELL_PAGES_DEFAULT, &e), &e);
    set_console(config, console);
    return run(config, strcmp(console, "stdio") == 0, verbose);
}
