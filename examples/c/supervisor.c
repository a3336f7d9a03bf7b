/*
 * Keeps many VMs running from one thread: an epoll loop watches their consoles and their ends. Each VM has a log of its own, whose lines
 * begin with the time, and is started again if it crashes.
 *
 *     supervisor [-n VMS] [-m MIB] [-i INITRD] [-c CMDLINE] [-l FOLDER] KERNEL
 *
 * Exit status: 0 all VMs have ended, by themselves or because SIGINT or SIGTERM came; 1 something failed; 2 bad arguments.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include <vmcell.h>

enum { FAILED = 1, BAD_ARGUMENTS = 2 };

enum {
    MOST_VMS = 1000,
    LONGEST_CMDLINE = 4096,
    /* A VM waits this long after its first crash, and twice as long after each further one. */
    FIRST_DELAY_MS = 100,
    LONGEST_DELAY_MS = 30 * 1000,
    /* After it has run for this long, a crash counts as its first. */
    LONG_RUN_MS = 60 * 1000,
    /* How long VMs may take to end once they were told to. It is a matter of milliseconds, unless the host hangs. */
    END_LIMIT_MS = 10 * 1000,
    /* A guest prints as much as it likes: a log that is this long is renamed to "NAME.1", which replaces an older one. */
    LONGEST_LOG = 16 << 20,
};

/* What an epoll event is about: one of these, and the index of a VM. */
enum { SIGNAL, OUTPUT, ENDED };

struct vm {
    char name[16];
    vmcell_vm *handle; /* NULL unless it runs */
    int ended_fd, output_fd; /* -1 once its event has come */
    long long started_at, restart_at; /* 0 for no restart */
    long long delay;
    FILE *log;
    int is_new_line, is_failing;
};

static struct {
    const char *kernel, *initrd, *cmdline, *logs;
    unsigned vms, memory;
} options = {.cmdline = "console=ttyS0 panic=-1", .logs = ".", .vms = 20, .memory = 128};

static struct vm vms[MOST_VMS];
static int epoll;
/* When it has taken too long to quit; 0 until it is time to. */
static long long quit_limit;

static long long now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

/* Ends the program because the host does not give what it needs. The kernel frees what the VMs hold. */
static _Noreturn void die(const char *what, const char *why) {
    fprintf(stderr, "supervisor: %s: %s\n", what, why);
    exit(FAILED);
}

/* Has epoll watch a descriptor, or ends the program. */
static void watch(int fd, int event, size_t index) {
    struct epoll_event wanted = {.events = EPOLLIN, .data.u64 = index << 2 | (unsigned)event};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &wanted) != 0)
        die("epoll_ctl", strerror(errno));
}

static void unwatch(int *fd) {
    epoll_ctl(epoll, EPOLL_CTL_DEL, *fd, NULL);
    *fd = -1;
}

static void log_path(const struct vm *vm, const char *end, char path[PATH_MAX]) {
    if (snprintf(path, PATH_MAX, "%s/%s.log%s", options.logs, vm->name, end) >= PATH_MAX)
        die(options.logs, strerror(ENAMETOOLONG));
}

/* Opens a VM's log, or ends the program. */
static FILE *open_log(const struct vm *vm) {
    char path[PATH_MAX];
    log_path(vm, "", path);
    FILE *log = fopen(path, "ae");
    if (log == NULL)
        die(path, strerror(errno));
    fseek(log, 0, SEEK_END);
    return log;
}

/* Says whether the log takes more. */
static int make_room(struct vm *vm) {
    char path[PATH_MAX], old[PATH_MAX];
    if (ftell(vm->log) < LONGEST_LOG)
        return 1;
    log_path(vm, "", path);
    log_path(vm, ".1", old);
    rename(path, old);
    FILE *emptied = fopen(path, "we");
    if (emptied == NULL)
        return 0;
    fclose(vm->log);
    vm->log = emptied;
    return 1;
}

static void write_lines(struct vm *vm, const char *bytes, size_t count) {
    struct timespec now;
    struct tm utc;
    char second[sizeof "2026-01-01T00:00:00"];
    clock_gettime(CLOCK_REALTIME, &now);
    strftime(second, sizeof second, "%FT%T", gmtime_r(&now.tv_sec, &utc));
    while (count > 0) {
        const char *end = memchr(bytes, '\n', count);
        size_t piece = end == NULL ? count : (size_t)(end - bytes) + 1;
        if (vm->is_new_line)
            fprintf(vm->log, "%s.%03ldZ ", second, now.tv_nsec / 1000000);
        fwrite(bytes, 1, piece, vm->log);
        vm->is_new_line = end != NULL;
        bytes += piece;
        count -= piece;
    }
}

/* A disk that is full must not end a VM: that is said once, and the bytes are lost. */
static void write_log(struct vm *vm, const char *bytes, size_t count) {
    int has_room = make_room(vm);
    if (has_room)
        write_lines(vm, bytes, count);
    int failed = !has_room || fflush(vm->log) != 0 || ferror(vm->log);
    if (failed && !vm->is_failing)
        printf("%s: its log cannot be written: %s\n", vm->name, strerror(errno));
    vm->is_failing = failed;
    clearerr(vm->log);
}

/* Says what to run, and connects the guest's console to a pipe, of which `output` becomes our end. */
static int describe(const struct vm *vm, vmcell_config *config, int *output, vmcell_error **e) {
    char cmdline[LONGEST_CMDLINE + sizeof " hostname=" + sizeof vm->name];
    vmcell_console *console;
    int32_t input;
    snprintf(cmdline, sizeof cmdline, "%s hostname=%s", options.cmdline, vm->name);
    if (vmcell_config_set_name(config, vm->name, e) || vmcell_config_set_kernel(config, options.kernel, e) ||
        vmcell_config_set_memory_mib(config, options.memory, e) || vmcell_config_set_cmdline(config, cmdline, e) ||
        (options.initrd != NULL && vmcell_config_set_initrd(config, options.initrd, e)) ||
        vmcell_console_new_pair(output, &input, &console, e))
        return FAILED;
    close(input);
    fcntl(*output, F_SETFL, O_NONBLOCK);
    return vmcell_config_set_console(config, console, e);
}

/* Builds and starts a VM, which takes as long as reading its kernel does. If that fails, nothing is left of it. */
static int start(struct vm *vm, vmcell_error **e) {
    vmcell_config *config;
    vm->started_at = now_ms();
    vm->output_fd = -1;
    if (vmcell_config_new(&config, e))
        return FAILED;
    int failed = describe(vm, config, &vm->output_fd, e);
    if (failed)
        vmcell_config_free(config);
    else
        failed = vmcell_vm_new(config, &vm->handle, e) || vmcell_vm_start(vm->handle, e) ||
                 vmcell_vm_ended_fd(vm->handle, &vm->ended_fd, e);
    if (failed) {
        if (vm->output_fd >= 0)
            close(vm->output_fd);
        vmcell_vm_discard(vm->handle);
        vm->handle = NULL;
        return FAILED;
    }
    watch(vm->output_fd, OUTPUT, (size_t)(vm - vms));
    watch(vm->ended_fd, ENDED, (size_t)(vm - vms));
    vm->restart_at = 0;
    printf("%s: started\n", vm->name);
    return 0;
}

static void restart_later(struct vm *vm) {
    if (now_ms() - vm->started_at > LONG_RUN_MS || vm->delay == 0)
        vm->delay = FIRST_DELAY_MS;
    printf("%s: restarts in %lld ms\n", vm->name, vm->delay);
    vm->restart_at = now_ms() + vm->delay;
    vm->delay = vm->delay * 2 < LONGEST_DELAY_MS ? vm->delay * 2 : LONGEST_DELAY_MS;
}

/* The host may be short of something for a while: a start that fails counts as a crash. */
static void restart(struct vm *vm) {
    vmcell_error *error = NULL;
    if (start(vm, &error) == 0)
        return;
    printf("%s: cannot be started: %s\n", vm->name, vmcell_error_chain(error));
    vmcell_error_free(error);
    restart_later(vm);
}

/* The guest has ended, and all that it printed was read. */
static void finish(struct vm *vm) {
    char how[4096] = "for a reason too long to print";
    size_t length;
    int32_t is_crash = 0;
    if (!vm->is_new_line)
        write_log(vm, "\n", 1);
    vmcell_vm_exit_text(vm->handle, how, sizeof how, &length, NULL);
    vmcell_vm_exit_is_crash(vm->handle, &is_crash, NULL);
    printf("%s: ended: %s\n", vm->name, how);
    /* vmcell_vm_free would hold up the other VMs until the kernel has freed this one. */
    vmcell_vm_discard(vm->handle);
    vm->handle = NULL;
    if (is_crash && quit_limit == 0)
        restart_later(vm);
    else
        fclose(vm->log);
}

static void read_output(struct vm *vm) {
    char bytes[16384];
    ssize_t count = read(vm->output_fd, bytes, sizeof bytes);
    if (count > 0)
        write_log(vm, bytes, (size_t)count);
    if (count > 0 || (count < 0 && (errno == EAGAIN || errno == EINTR)))
        return;
    int fd = vm->output_fd;
    unwatch(&vm->output_fd);
    close(fd);
}

/* The guests have nothing to save; VMs with disks would get vmcell_vm_request_shutdown and some time. */
static void quit(void) {
    quit_limit = now_ms() + END_LIMIT_MS;
    for (struct vm *vm = vms; vm < vms + options.vms; vm++) {
        if (vm->handle != NULL)
            vmcell_vm_request_stop(vm->handle, NULL);
        else if (vm->restart_at != 0)
            fclose(vm->log);
        vm->restart_at = 0;
    }
}

/* Starts what is due, and gives the time until the next thing is. Says whether there is anything left to do. */
static int restart_all(long long *wait) {
    int is_left = 0;
    *wait = 1000;
    for (struct vm *vm = vms; vm < vms + options.vms; vm++) {
        if (vm->restart_at != 0 && vm->restart_at <= now_ms())
            restart(vm);
        if (vm->restart_at != 0 && vm->restart_at < now_ms() + *wait)
            *wait = vm->restart_at - now_ms();
        is_left |= vm->handle != NULL || vm->restart_at != 0;
    }
    if (!is_left) /* The library's threads free what was discarded, and have no descriptor to wait for. */
        *wait = 10;
    return is_left || vmcell_vms_discarded() > 0;
}

/* Until all VMs have ended for good. */
static void supervise(int signals) {
    struct epoll_event events[64];
    long long wait;
    while (restart_all(&wait)) {
        if (quit_limit != 0 && now_ms() > quit_limit)
            die("quit", "not all VMs have ended in time");
        int count = epoll_wait(epoll, events, 64, wait < 0 ? 0 : (int)wait);
        for (int i = 0; i < count; i++) {
            struct vm *vm = &vms[events[i].data.u64 >> 2];
            switch (events[i].data.u64 & 3) {
            case SIGNAL:
                unwatch(&signals);
                quit();
                continue;
            case OUTPUT: read_output(vm); break;
            case ENDED: unwatch(&vm->ended_fd); break;
            }
            if (vm->output_fd < 0 && vm->ended_fd < 0)
                finish(vm);
        }
    }
}

/* Blocks the signals that end the program, before the library makes its first thread, and gives a descriptor that tells of them. */
static int block_signals(void) {
    sigset_t ending;
    sigemptyset(&ending);
    sigaddset(&ending, SIGINT);
    sigaddset(&ending, SIGTERM);
    sigprocmask(SIG_BLOCK, &ending, NULL);
    signal(SIGPIPE, SIG_IGN);
    int fd = signalfd(-1, &ending, SFD_CLOEXEC);
    if (fd < 0)
        die("signalfd", strerror(errno));
    return fd;
}

static _Noreturn void usage(FILE *to, int status) {
    fputs("usage: supervisor [-n VMS] [-m MIB] [-i INITRD] [-c CMDLINE] [-l FOLDER] KERNEL\n", to);
    exit(status);
}

static unsigned number_of(char option, const char *text, unsigned most) {
    char *end;
    errno = 0;
    unsigned long number = strtoul(text, &end, 10);
    if (*text >= '0' && *text <= '9' && *end == '\0' && errno == 0 && number >= 1 && number <= most)
        return (unsigned)number;
    fprintf(stderr, "supervisor: '%s' is no value for -%c, allowed are 1 to %u\n", text, option, most);
    exit(BAD_ARGUMENTS);
}

static void read_options(int argc, char **argv) {
    for (int option; (option = getopt(argc, argv, "n:m:i:c:l:h")) != -1;) {
        switch (option) {
        case 'n': options.vms = number_of('n', optarg, MOST_VMS); break;
        case 'm': options.memory = number_of('m', optarg, UINT_MAX); break;
        case 'i': options.initrd = optarg; break;
        case 'c': options.cmdline = optarg; break;
        case 'l': options.logs = optarg; break;
        case 'h': usage(stdout, EXIT_SUCCESS);
        default: usage(stderr, BAD_ARGUMENTS);
        }
    }
    if (optind != argc - 1)
        usage(stderr, BAD_ARGUMENTS);
    options.kernel = argv[optind];
    if (strlen(options.cmdline) > LONGEST_CMDLINE) {
        fprintf(stderr, "supervisor: -c has %zu bytes, allowed are %d\n", strlen(options.cmdline), LONGEST_CMDLINE);
        exit(BAD_ARGUMENTS);
    }
}

int main(int argc, char **argv) {
    vmcell_error *error = NULL;
    int status = EXIT_SUCCESS;
    read_options(argc, argv);
    setvbuf(stdout, NULL, _IOLBF, 0);
    int signals = block_signals();
    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0)
        die("epoll_create1", strerror(errno));
    watch(signals, SIGNAL, 0);
    for (size_t i = 0; i < options.vms; i++) {
        snprintf(vms[i].name, sizeof vms[i].name, "vm-%zu", i);
        vms[i].log = open_log(&vms[i]);
        vms[i].is_new_line = 1;
    }
    for (size_t i = 0; i < options.vms && status == EXIT_SUCCESS; i++) {
        if (start(&vms[i], &error) == 0)
            continue;
        fprintf(stderr, "supervisor: %s\n", vmcell_error_chain(error));
        status = vmcell_error_number(error) == VMCELL_ERROR_INVALID_CONFIG ? BAD_ARGUMENTS : FAILED;
        quit();
    }
    supervise(signals);
    vmcell_error_free(error);
    return status;
}
