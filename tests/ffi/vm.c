/* VMs: their life, how they end, and their consoles. */
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

enum { LONG_MS = 30000 };

vmcell_config *config_of(const char *guest) {
    vmcell_config *config;
    OK(vmcell_config_new(&config, &e));
    OK(vmcell_config_set_memory(config, 16, VMCELL_MEMORY_ANONYMOUS, VMCELL_PAGES_DEFAULT, &e));
    OK(vmcell_config_set_kernel(config, guest, &e));
    return config;
}

static vmcell_vm *vm_of(vmcell_config *config) {
    vmcell_vm *vm;
    OK(vmcell_vm_new(config, &vm, &e));
    return vm;
}

static vmcell_vm *started(const char *guest) {
    vmcell_vm *vm = vm_of(config_of(guest));
    OK(vmcell_vm_start(vm, &e));
    return vm;
}

static int32_t status_of(const vmcell_vm *vm) {
    int32_t status = 0;
    OK(vmcell_vm_status(vm, &status, &e));
    return status;
}

static int32_t exit_of(const vmcell_vm *vm) {
    int32_t ended = 0;
    OK(vmcell_vm_wait(vm, LONG_MS, &ended, &e));
    CHECK(status_of(vm) == VMCELL_STATUS_ENDED);
    return ended;
}

static int is_readable(const vmcell_vm *vm, int timeout_ms) {
    struct pollfd poller = {.events = POLLIN};
    OK(vmcell_vm_ended_fd(vm, &poller.fd, &e));
    return poll(&poller, 1, timeout_ms) == 1;
}

/* Every call with a VM, refused for this one. */
static void vm_is_refused(int32_t number, vmcell_vm *vm) {
    int32_t value = -7;
    size_t taken = 7;
    uint64_t dropped = 7;
    vmcell_error *failure = NULL;
    FAILS(number, vmcell_vm_start(vm, &e));
    FAILS(number, vmcell_vm_pause(vm, &e));
    FAILS(number, vmcell_vm_resume(vm, &e));
    FAILS(number, vmcell_vm_stop(vm, &e));
    FAILS(number, vmcell_vm_request_stop(vm, &e));
    FAILS(number, vmcell_vm_wait(vm, 0, &value, &e));
    FAILS(number, vmcell_vm_status(vm, &value, &e));
    FAILS(number, vmcell_vm_ended_fd(vm, &value, &e));
    FAILS(number, vmcell_vm_write_console(vm, (const uint8_t *)"x", 1, &taken, &e));
    FAILS(number, vmcell_vm_console_dropped(vm, &dropped, &e));
    FAILS(number, vmcell_vm_reset_cause(vm, &value, &e));
    FAILS(number, vmcell_vm_exit_error(vm, &failure, &e));
    FAILS(number, vmcell_vm_exit_is_crash(vm, &value, &e));
    FAILS(number, vmcell_vm_exit_text(vm, NULL, 0, &taken, &e));
    CHECK(value == -7 && taken == 7 && dropped == 7 && failure == NULL); /* nothing is written by a call that fails */
}

static void test_refused_configurations(const char *folder) {
    vmcell_vm *vm = NULL;
    vmcell_config *config;
    OK(vmcell_config_new(&config, &e));
    FAILS_SAYING(VMCELL_ERROR_INVALID_CONFIG, "no kernel", vmcell_vm_new(config, &vm, &e));
    CHECK(vm == NULL && vmcell_config_free(config) == VMCELL_ERROR_BAD_HANDLE); /* taken although it failed */
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_vm_new(config_of(in(folder, "spin")), NULL, &e));
    FAILS(VMCELL_ERROR_BOOT_IMAGE, vmcell_vm_new(config_of("/does/not/exist"), &vm, &e));
    config = config_of(in(folder, "spin"));
    OK(vmcell_config_set_vcpus(config, 65, &e));
    FAILS_SAYING(VMCELL_ERROR_INVALID_CONFIG, "65 vCPUs", vmcell_vm_new(config, &vm, &e));
    static const int32_t BAD_SIGNALS[] = {INT32_MIN, -1, 0, SIGKILL, SIGSEGV, SIGCONT, 32, 64, INT32_MAX};
    for (size_t i = 0; i < sizeof BAD_SIGNALS / sizeof *BAD_SIGNALS; i++) {
        config = config_of(in(folder, "spin"));
        OK(vmcell_config_set_kick_signal(config, BAD_SIGNALS[i], &e));
        FAILS_SAYING(VMCELL_ERROR_INVALID_CONFIG, "allowed are 1 to 31", vmcell_vm_new(config, &vm, &e));
    }
    config = config_of(in(folder, "spin"));
    OK(vmcell_config_set_memory(config, UINT64_MAX, VMCELL_MEMORY_ANONYMOUS, VMCELL_PAGES_DEFAULT, &e));
    FAILS(VMCELL_ERROR_INVALID_CONFIG, vmcell_vm_new(config, &vm, &e));
    /* The file is in use, and only one VM may write to it. */
    vmcell_disk *disk;
    vmcell_config *other = config_of(in(folder, "spin"));
    config = config_of(in(folder, "spin"));
    OK(vmcell_disk_new(in(folder, "disk.img"), &disk, &e));
    OK(vmcell_config_add_disk(config, disk, &e));
    OK(vmcell_disk_new(in(folder, "disk.img"), &disk, &e));
    OK(vmcell_config_add_disk(other, disk, &e));
    vm = vm_of(config);
    vmcell_vm *second = NULL;
    FAILS_SAYING(VMCELL_ERROR_DISK, "in use", vmcell_vm_new(other, &second, &e));
    CHECK(second == NULL && vmcell_vm_free(vm) == VMCELL_OK);
}

static void test_life(const char *folder) {
    int32_t ended = -7, cause = -7;
    vmcell_error *failure = NULL;
    vmcell_config *config = config_of(in(folder, "spin"));
    OK(vmcell_config_set_vcpus(config, 2, &e));
    OK(vmcell_config_set_kick_signal(config, SIGUSR1, &e));
    FAILS_SAYING(VMCELL_ERROR_BAD_VALUE, "level", vmcell_config_set_cpu(config, 1, "", &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_config_set_cpu(config, VMCELL_CPU_V2, NULL, &e));
    OK(vmcell_config_set_cpu(config, VMCELL_CPU_HOST, "", &e));
    OK(vmcell_config_set_prealloc(config, 1, &e));
    vmcell_vm *vm = vm_of(config);
    CHECK(vmcell_config_free(config) == VMCELL_ERROR_BAD_HANDLE);
    CHECK(status_of(vm) == VMCELL_STATUS_READY);
    FAILS(VMCELL_ERROR_TIMEOUT, vmcell_vm_wait(vm, 0, &ended, &e));
    FAILS(VMCELL_ERROR_TIMEOUT, vmcell_vm_wait(vm, 1, &ended, &e));
    FAILS(VMCELL_ERROR_INVALID_STATE, vmcell_vm_pause(vm, &e));
    FAILS(VMCELL_ERROR_INVALID_STATE, vmcell_vm_pause_within(vm, 1000, &e));
    FAILS(VMCELL_ERROR_INVALID_STATE, vmcell_vm_resume(vm, &e));
    FAILS_SAYING(VMCELL_ERROR_INVALID_STATE, "not started", vmcell_vm_request_shutdown(vm, &e));
    OK(vmcell_vm_start(vm, &e));
    OK(vmcell_vm_request_shutdown(vm, &e));
    CHECK(status_of(vm) == VMCELL_STATUS_RUNNING);
    FAILS_SAYING(VMCELL_ERROR_INVALID_STATE, "cannot start a VM that runs", vmcell_vm_start(vm, &e));
    OK(vmcell_vm_pause(vm, &e));
    OK(vmcell_vm_pause(vm, &e));
    CHECK(status_of(vm) == VMCELL_STATUS_PAUSED);
    OK(vmcell_vm_resume(vm, &e));
    OK(vmcell_vm_pause_within(vm, UINT32_MAX, &e));
    CHECK(status_of(vm) == VMCELL_STATUS_PAUSED);
    OK(vmcell_vm_pause_within(vm, 0, &e));
    OK(vmcell_vm_resume(vm, &e));
    FAILS(VMCELL_ERROR_TIMEOUT, vmcell_vm_wait(vm, 0, &ended, &e));
    FAILS(VMCELL_ERROR_TIMEOUT, vmcell_vm_wait(vm, 10, &ended, &e));
    FAILS_SAYING(VMCELL_ERROR_BAD_VALUE, "timeout_ms is -2", vmcell_vm_wait(vm, -2, &ended, &e));
    FAILS(VMCELL_ERROR_BAD_VALUE, vmcell_vm_wait(vm, INT64_MIN, &ended, &e));
    FAILS(VMCELL_ERROR_INVALID_STATE, vmcell_vm_reset_cause(vm, &cause, &e));
    FAILS(VMCELL_ERROR_INVALID_STATE, vmcell_vm_exit_error(vm, &failure, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_vm_status(vm, NULL, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_vm_ended_fd(vm, NULL, &e));
    CHECK(ended == -7 && !is_readable(vm, 0));
    stop(vm);
    OK(vmcell_vm_stop(vm, &e));
    CHECK(exit_of(vm) == VMCELL_EXIT_STOPPED && is_readable(vm, 0) && is_readable(vm, 0));
    OK(vmcell_vm_wait(vm, VMCELL_WAIT_FOREVER, NULL, &e));
    OK(vmcell_vm_wait(vm, INT64_MAX, NULL, NULL));
    FAILS(VMCELL_ERROR_INVALID_STATE, vmcell_vm_start(vm, &e));
    FAILS(VMCELL_ERROR_INVALID_STATE, vmcell_vm_reset_cause(vm, &cause, &e));
    FAILS_SAYING(VMCELL_ERROR_INVALID_STATE, "ended otherwise", vmcell_vm_exit_error(vm, &failure, &e));
    CHECK(vmcell_vm_free(vm) == VMCELL_OK);
    CHECK(vmcell_vm_free(vm) == VMCELL_ERROR_BAD_HANDLE);
    CHECK(vmcell_vm_free(NULL) == VMCELL_OK);
    vm_is_refused(VMCELL_ERROR_BAD_HANDLE, vm);
    vm_is_refused(VMCELL_ERROR_NULL_ARGUMENT, NULL);
    config = config_of(in(folder, "spin"));
    vm_is_refused(VMCELL_ERROR_BAD_HANDLE, (vmcell_vm *)config);
    CHECK(vmcell_config_free(config) == VMCELL_OK);
}

static void test_cpu(const char *folder) {
    vmcell_vm *vm = NULL;
    vmcell_config *config = config_of(in(folder, "spin"));
    OK(vmcell_config_set_cpu(config, VMCELL_CPU_V2, "aes,none", &e));
    FAILS_SAYING(VMCELL_ERROR_INVALID_CONFIG, "\"none\" was asked for", vmcell_vm_new(config, &vm, &e));
}

static int is_crash(const vmcell_vm *vm) {
    int32_t crashed = -7;
    OK(vmcell_vm_exit_is_crash(vm, &crashed, &e));
    return crashed;
}

/* How a VM ended, in words, whatever room there is for them. */
static void test_exit_text(const char *folder) {
    static const char WHOLE[] = "the guest turned itself off";
    char text[64];
    size_t length = 7;
    vmcell_vm *vm = started(in(folder, "power_off"));
    CHECK(exit_of(vm) == VMCELL_EXIT_SHUTDOWN && is_crash(vm) == 0);
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_vm_exit_text(vm, NULL, 1, &length, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_vm_exit_is_crash(vm, NULL, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_vm_exit_text(vm, text, sizeof text, NULL, &e));
    CHECK(length == 7);
    OK(vmcell_vm_exit_text(vm, NULL, 0, &length, &e));
    CHECK(length == sizeof WHOLE - 1);
    memset(text, '#', sizeof text);
    OK(vmcell_vm_exit_text(vm, text, sizeof WHOLE - 1, &length, &e));
    CHECK(text[0] == '#');
    OK(vmcell_vm_exit_text(vm, text, sizeof WHOLE, &length, &e));
    CHECK(strcmp(text, WHOLE) == 0 && text[sizeof WHOLE] == '#');
    CHECK(vmcell_vm_free(vm) == VMCELL_OK);
}

static void wait_until_freed(void) {
    struct pollfd poller = {.events = POLLIN};
    OK(vmcell_vms_discards_done_fd(&poller.fd, &e));
    CHECK(poll(&poller, 1, LONG_MS) == 1 && vmcell_vms_discarded() == 0);
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_vms_discards_done_fd(NULL, &e));
}

static void test_ending_without_waiting(const char *folder) {
    vmcell_vm *vm = started(in(folder, "spin"));
    OK(vmcell_vm_request_stop(vm, &e));
    CHECK(is_readable(vm, LONG_MS) && exit_of(vm) == VMCELL_EXIT_STOPPED);
    CHECK(vmcell_vm_discard(vm) == VMCELL_OK && vmcell_vm_discard(vm) == VMCELL_ERROR_BAD_HANDLE);
    CHECK(vmcell_vm_discard(NULL) == VMCELL_OK);
    CHECK(vmcell_vm_discard(started(in(folder, "spin"))) == VMCELL_OK);
    wait_until_freed();
}

static void test_resets(const char *folder) {
    static const struct {
        const char *guest;
        int32_t cause;
    } RESETS[] = {
        {"acpi_reset", VMCELL_RESET_ACPI},
        {"keyboard_reset", VMCELL_RESET_KEYBOARD_CONTROLLER},
        {"triple_fault", VMCELL_RESET_TRIPLE_FAULT},
    };
    for (size_t i = 0; i < sizeof RESETS / sizeof *RESETS; i++) {
        int32_t cause = 0;
        vmcell_vm *vm = started(in(folder, RESETS[i].guest));
        CHECK(exit_of(vm) == VMCELL_EXIT_RESET);
        FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_vm_reset_cause(vm, NULL, &e));
        OK(vmcell_vm_reset_cause(vm, &cause, &e));
        CHECK(cause == RESETS[i].cause && is_crash(vm) == (cause == VMCELL_RESET_TRIPLE_FAULT));
        CHECK(vmcell_vm_free(vm) == VMCELL_OK);
    }
}

static void test_panic(const char *folder) {
    int32_t cause = 0;
    vmcell_vm *vm = started(in(folder, "panic"));
    CHECK(exit_of(vm) == VMCELL_EXIT_PANICKED);
    FAILS_SAYING(VMCELL_ERROR_INVALID_STATE, "ended otherwise", vmcell_vm_reset_cause(vm, &cause, &e));
    CHECK(vmcell_vm_free(vm) == VMCELL_OK);
}

static void test_failure(const char *folder) {
    int32_t cause;
    vmcell_error *failure = NULL;
    vmcell_vm *vm = started(in(folder, "failing"));
    CHECK(exit_of(vm) == VMCELL_EXIT_FAILED);
    FAILS(VMCELL_ERROR_INVALID_STATE, vmcell_vm_reset_cause(vm, &cause, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_vm_exit_error(vm, NULL, &e));
    OK(vmcell_vm_exit_error(vm, &failure, &e));
    CHECK(vmcell_vm_free(vm) == VMCELL_OK);
    /* It outlives its VM. */
    CHECK(vmcell_error_number(failure) == VMCELL_ERROR_GUEST || vmcell_error_number(failure) == VMCELL_ERROR_KVM);
    CHECK(*vmcell_error_message(failure) != '\0' && vmcell_error_free(failure) == VMCELL_OK);
}

static void test_disk_and_thread(const char *folder) {
    vmcell_disk *disk;
    vmcell_io_thread *io_thread;
    vmcell_config *config = config_of(in(folder, "power_off"));
    OK(vmcell_io_thread_new("shared", &io_thread, &e));
    OK(vmcell_config_set_io_thread(config, io_thread, &e));
    OK(vmcell_disk_new_from_fd(open(in(folder, "disk.img"), O_RDONLY | O_CLOEXEC), &disk, &e));
    OK(vmcell_disk_set_read_only(disk, 1, &e));
    OK(vmcell_disk_set_io_thread(disk, io_thread, &e));
    OK(vmcell_config_add_disk(config, disk, &e));
    CHECK(vmcell_io_thread_free(io_thread) == VMCELL_OK); /* goes on as long as the VM needs it */
    vmcell_vm *vm = vm_of(config);
    OK(vmcell_vm_start(vm, &e));
    CHECK(is_readable(vm, LONG_MS) && exit_of(vm) == VMCELL_EXIT_SHUTDOWN && vmcell_vm_free(vm) == VMCELL_OK);
}

void test_vm(const char *folder) {
    test_refused_configurations(folder);
    test_life(folder);
    test_panic(folder);
    test_cpu(folder);
    test_resets(folder);
    test_failure(folder);
    test_exit_text(folder);
    test_ending_without_waiting(folder);
    test_disk_and_thread(folder);
    /* Freed in any state. */
    CHECK(vmcell_vm_free(vm_of(config_of(in(folder, "spin")))) == VMCELL_OK);
    CHECK(vmcell_vm_free(started(in(folder, "spin"))) == VMCELL_OK);
}

/* What a guest printed, and how often its console was released. */
struct transcript {
    pthread_mutex_t lock;
    char text[4096];
    size_t len;
    int released;
    vmcell_vm *vm;
    pthread_t caller;
};

static void collect(const uint8_t *bytes, size_t len, void *user) {
    struct transcript *transcript = user;
    pthread_mutex_lock(&transcript->lock);
    CHECK(len > 0 && transcript->released == 0);
    size_t room = sizeof transcript->text - 1 - transcript->len;
    memcpy(transcript->text + transcript->len, bytes, len < room ? len : room);
    transcript->len += len < room ? len : room;
    transcript->caller = pthread_self();
    pthread_mutex_unlock(&transcript->lock);
}

static void release(void *user) {
    struct transcript *transcript = user;
    pthread_mutex_lock(&transcript->lock);
    transcript->released++;
    pthread_mutex_unlock(&transcript->lock);
}

static vmcell_config *with_callback(vmcell_config *config, vmcell_console_output output, struct transcript *transcript) {
    vmcell_console *console;
    OK(vmcell_console_new_callback(output, transcript, release, &console, &e));
    OK(vmcell_config_set_console(config, console, &e));
    return config;
}

static size_t length_of(struct transcript *transcript) {
    pthread_mutex_lock(&transcript->lock);
    size_t len = transcript->len;
    pthread_mutex_unlock(&transcript->lock);
    return len;
}

static void test_callback(const char *folder) {
    struct transcript transcript = {.lock = PTHREAD_MUTEX_INITIALIZER};
    vmcell_vm *vm = vm_of(with_callback(config_of(in(folder, "hello")), collect, &transcript));
    OK(vmcell_vm_start(vm, &e));
    CHECK(exit_of(vm) == VMCELL_EXIT_SHUTDOWN);
    CHECK(strcmp(transcript.text, "hello") == 0 && !pthread_equal(transcript.caller, pthread_self()));
    CHECK(transcript.released == 0 && vmcell_vm_free(vm) == VMCELL_OK && transcript.released == 1);
}

static void test_echo(const char *folder) {
    struct transcript transcript = {.lock = PTHREAD_MUTEX_INITIALIZER};
    vmcell_vm *vm = vm_of(with_callback(config_of(in(folder, "echo")), collect, &transcript));
    size_t taken = 7;
    uint64_t dropped = 7;
    OK(vmcell_vm_start(vm, &e));
    OK(vmcell_vm_console_dropped(vm, &dropped, &e));
    CHECK(dropped == 0);
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_vm_console_dropped(vm, NULL, &e));
    OK(vmcell_vm_write_console(vm, NULL, 0, &taken, &e));
    CHECK(taken == 0);
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_vm_write_console(vm, NULL, 1, &taken, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_vm_write_console(vm, (const uint8_t *)"x", 1, NULL, &e));
    FAILS(VMCELL_ERROR_BAD_VALUE, vmcell_vm_write_console(vm, (const uint8_t *)"x", SIZE_MAX, &taken, &e));
    for (size_t sent = 0; sent < 2000; sent += taken) {
        static const uint8_t DIGITS[] = "0123456789";
        size_t at = sent % 10;
        OK(vmcell_vm_write_console(vm, DIGITS + at, 10 - at, &taken, &e));
        CHECK(taken <= 10 - at);
    }
    while (length_of(&transcript) < 2000)
        usleep(1000);
    stop(vm);
    for (size_t i = 0; i < 2000; i++)
        CHECK(transcript.text[i] == (char)('0' + i % 10));
    CHECK(vmcell_vm_free(vm) == VMCELL_OK && transcript.released == 1);
}

static void test_pipes(const char *folder) {
    int output[2], input[2];
    char text[6] = "";
    vmcell_console *console;
    vmcell_config *config = config_of(in(folder, "echo"));
    CHECK(pipe(output) == 0 && pipe(input) == 0);
    OK(vmcell_console_new_fds(output[1], input[0], &console, &e));
    OK(vmcell_config_set_console(config, console, &e));
    vmcell_vm *vm = vm_of(config);
    OK(vmcell_vm_start(vm, &e));
    CHECK(write(input[1], "typed", 5) == 5);
    for (ssize_t len = 0; len < 5;)
        len += read(output[0], text + len, (size_t)(5 - len));
    CHECK(strcmp(text, "typed") == 0 && vmcell_vm_free(vm) == VMCELL_OK);
    CHECK(read(output[0], text, 1) == 0); /* the library's end is closed */
    close(output[0]);
    close(input[1]);
}

static void test_pair(const char *folder) {
    int reader, writer;
    char text[6] = "";
    vmcell_console *console;
    vmcell_config *config = config_of(in(folder, "echo"));
    OK(vmcell_console_new_pair(&reader, &writer, &console, &e));
    OK(vmcell_config_set_console(config, console, &e));
    vmcell_vm *vm = vm_of(config);
    OK(vmcell_vm_start(vm, &e));
    CHECK(write(writer, "typed", 5) == 5);
    for (ssize_t len = 0; len < 5;)
        len += read(reader, text + len, (size_t)(5 - len));
    CHECK(strcmp(text, "typed") == 0);
    OK(vmcell_vm_stop(vm, &e));
    CHECK(read(reader, text, 1) == 0); /* the guest has ended, although the VM is still there */
    CHECK(vmcell_vm_free(vm) == VMCELL_OK);
    close(reader);
    close(writer);
}

/* A file, and a device that is always full. */
static void test_sinks(const char *folder) {
    vmcell_console *console, *full;
    vmcell_config *config = config_of(in(folder, "hello"));
    OK(vmcell_console_new_file(in(folder, "log"), &console, &e));
    OK(vmcell_console_new_file("/dev/full", &full, &e));
    OK(vmcell_console_also(console, full, &e));
    OK(vmcell_config_set_console(config, console, &e));
    vmcell_vm *vm = vm_of(config);
    OK(vmcell_vm_start(vm, &e));
    CHECK(exit_of(vm) == VMCELL_EXIT_SHUTDOWN);
    vmcell_sink sinks[3] = {{.delivered = 7}};
    size_t count = 0;
    OK(vmcell_vm_console_sinks(vm, NULL, 0, &count, &e));
    CHECK(count == 2);
    OK(vmcell_vm_console_sinks(vm, sinks, 3, &count, &e));
    CHECK(count == 2 && sinks[0].delivered == 5 && sinks[0].waiting + sinks[0].dropped + sinks[0].lost == 0);
    CHECK(sinks[1].delivered == 0 && sinks[1].waiting + sinks[1].lost == 5 && sinks[1].failed_rotations == 0);
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_vm_console_sinks(vm, NULL, 1, &count, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_vm_console_sinks(vm, sinks, 3, NULL, &e));
    vmcell_error *last = NULL;
    OK(vmcell_vm_console_sink_error(vm, 1, &last, &e));
    CHECK(last != NULL && strstr(vmcell_error_chain(last), "/dev/full: No space left on device") != NULL);
    CHECK(vmcell_error_free(last) == VMCELL_OK);
    OK(vmcell_vm_console_sink_error(vm, 0, &last, &e));
    CHECK(last == NULL);
    FAILS_SAYING(VMCELL_ERROR_BAD_VALUE, "the console has 2 sinks", vmcell_vm_console_sink_error(vm, 2, &last, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_vm_console_sink_error(vm, 0, NULL, &e));
    CHECK(vmcell_vm_free(vm) == VMCELL_OK);
}

static void test_file(const char *folder) {
    char text[16] = "";
    vmcell_console *console;
    vmcell_config *config = config_of(in(folder, "hello"));
    OK(vmcell_console_new_file(in(folder, "log"), &console, &e));
    OK(vmcell_config_set_console(config, console, &e));
    vmcell_vm *vm = vm_of(config);
    OK(vmcell_vm_start(vm, &e));
    CHECK(exit_of(vm) == VMCELL_EXIT_SHUTDOWN && vmcell_vm_free(vm) == VMCELL_OK);
    FILE *log = fopen(in(folder, "log"), "r");
    CHECK(log != NULL && fgets(text, sizeof text, log) != NULL && fclose(log) == 0 && strcmp(text, "hello") == 0);
}

static void stop_it(const uint8_t *bytes, size_t len, void *user) {
    struct transcript *transcript = user;
    collect(bytes, len, user);
    int32_t number = vmcell_vm_stop(transcript->vm, NULL);
    CHECK(number == VMCELL_OK || number == VMCELL_ERROR_TIMEOUT || number == VMCELL_ERROR_BAD_HANDLE);
}

static void free_it(const uint8_t *bytes, size_t len, void *user) {
    struct transcript *transcript = user;
    collect(bytes, len, user);
    /* What was printed before may still come. */
    int32_t number = vmcell_vm_free(transcript->vm);
    CHECK(number == VMCELL_OK || number == VMCELL_ERROR_BAD_HANDLE);
}

/* The I/O thread may still be in a call with the VM while that is freed, and then it is the one that releases. */
static void wait_for_release(struct transcript *transcript) {
    for (int released = 0; !released;) {
        usleep(1000);
        pthread_mutex_lock(&transcript->lock);
        released = transcript->released;
        pthread_mutex_unlock(&transcript->lock);
    }
}

/* A console's function may end its own VM, and even free it. */
static void test_end_from_callback(const char *folder) {
    struct transcript stopped = {.lock = PTHREAD_MUTEX_INITIALIZER};
    stopped.vm = vm_of(with_callback(config_of(in(folder, "flood")), stop_it, &stopped));
    OK(vmcell_vm_start(stopped.vm, &e));
    CHECK(exit_of(stopped.vm) == VMCELL_EXIT_STOPPED && vmcell_vm_free(stopped.vm) == VMCELL_OK);
    wait_for_release(&stopped);

    struct transcript freed = {.lock = PTHREAD_MUTEX_INITIALIZER};
    freed.vm = vm_of(with_callback(config_of(in(folder, "flood")), free_it, &freed));
    vmcell_vm *vm = freed.vm;
    OK(vmcell_vm_start(vm, &e));
    wait_for_release(&freed);
    vm_is_refused(VMCELL_ERROR_BAD_HANDLE, vm);
    wait_until_freed();
}

/* What waits is refused where others wait for the thread. */
static void try_to_wait(const uint8_t *bytes, size_t len, void *user) {
    struct transcript *transcript = user;
    collect(bytes, len, user);
    int32_t ended;
    FAILS(VMCELL_ERROR_INVALID_STATE, vmcell_vm_pause(transcript->vm, &e));
    FAILS(VMCELL_ERROR_INVALID_STATE, vmcell_vm_wait(transcript->vm, VMCELL_WAIT_FOREVER, &ended, &e));
    FAILS(VMCELL_ERROR_INVALID_STATE, vmcell_vm_wait(transcript->vm, 1, &ended, &e));
    OK(vmcell_vm_request_stop(transcript->vm, &e));
}

static void test_waiting_in_a_callback(const char *folder) {
    struct transcript tried = {.lock = PTHREAD_MUTEX_INITIALIZER};
    tried.vm = vm_of(with_callback(config_of(in(folder, "flood")), try_to_wait, &tried));
    OK(vmcell_vm_start(tried.vm, &e));
    CHECK(exit_of(tried.vm) == VMCELL_EXIT_STOPPED && vmcell_vm_free(tried.vm) == VMCELL_OK && tried.released == 1);
}

struct starts {
    int calls;
    int32_t last_role;
    int fails;
    int released;
};

static int32_t count_start(int32_t role, uint32_t index, void *user) {
    struct starts *starts = user;
    starts->calls++;
    starts->last_role = role;
    CHECK(index < 2);
    return starts->fails && role == VMCELL_THREAD_VCPU ? EPERM : 0;
}

static void count_release(void *user) {
    ((struct starts *)user)->released++;
}

/* A VM's name, its threads, and the function that is called on each of them. */
/* The configuration says so. */
static void check_described(const vmcell_config *config, const char *text) {
    char json[4096];
    size_t length = 0;
    OK(vmcell_config_to_json(config, json, sizeof json, &length, &e));
    CHECK(length < sizeof json && strstr(json, text) != NULL);
}

static void test_names_and_threads(const char *folder) {
    for (int fails = 0; fails <= 1; fails++) {
        struct starts starts = {.fails = fails};
        vmcell_config *config = config_of(in(folder, "spin"));
        OK(vmcell_config_set_vcpus(config, 2, &e));
        OK(vmcell_config_set_name(config, "web-1", &e));
        OK(vmcell_config_set_thread_start(config, count_start, &starts, count_release, &e));
        vmcell_vm *vm = vm_of(config);
        CHECK(starts.calls == 1 && starts.last_role == VMCELL_THREAD_IO);
        FAILS_SAYING(VMCELL_ERROR_INVALID_STATE, "cannot pause the VM \"web-1\"", vmcell_vm_pause(vm, &e));
        if (fails) {
            FAILS_SAYING(VMCELL_ERROR_HOST, "web-1:vcpu0", vmcell_vm_start(vm, &e));
            CHECK(exit_of(vm) == VMCELL_EXIT_FAILED);
        } else {
            vmcell_thread threads[4] = {{.tid = 0}};
            size_t count = 0;
            OK(vmcell_vm_start(vm, &e));
            CHECK(starts.calls == 3 && starts.last_role == VMCELL_THREAD_VCPU);
            OK(vmcell_vm_threads(vm, NULL, 0, &count, &e));
            CHECK(count == 3);
            OK(vmcell_vm_threads(vm, threads, 4, &count, &e));
            CHECK(threads[1].role == VMCELL_THREAD_VCPU && threads[1].index == 1 && threads[1].tid > 0);
            CHECK(threads[2].role == VMCELL_THREAD_IO && threads[2].tid > 0 && threads[3].tid == 0);
            FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_vm_threads(vm, NULL, 1, &count, &e));
        }
        CHECK(vmcell_vm_free(vm) == VMCELL_OK && starts.released == 1);
    }
    const uint32_t none_such = 8191;
    vmcell_vm *vm;
    vmcell_config *config = config_of(in(folder, "spin"));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_config_set_thread_start(config, NULL, NULL, NULL, &e));
    OK(vmcell_config_set_io_affinity(config, &none_such, 1, &e));
    FAILS_SAYING(VMCELL_ERROR_INVALID_CONFIG, "CPU 8191", vmcell_vm_new(config, &vm, &e));
    config = config_of(in(folder, "spin"));
    OK(vmcell_config_set_vcpu_affinity(config, 1, &none_such, 1, &e));
    FAILS_SAYING(VMCELL_ERROR_INVALID_CONFIG, "vCPU 1", vmcell_vm_new(config, &vm, &e));
    config = config_of(in(folder, "spin"));
    OK(vmcell_config_set_seccomp(config, VMCELL_SECCOMP_KILL, &e));
    check_described(config, "\"seccomp\": \"kill\"");
    FAILS(VMCELL_ERROR_BAD_VALUE, vmcell_config_set_seccomp(config, 3, &e));
    OK(vmcell_config_set_seccomp(config, VMCELL_SECCOMP_OFF, &e));
    OK(vmcell_config_set_core_scheduling(config, 1, &e));
    check_described(config, "\"core_scheduling\": true");
    OK(vmcell_config_set_core_scheduling(config, 0, &e));
    OK(vmcell_config_set_memory_locked(config, 1, &e));
    check_described(config, "\"locked\": true");
    OK(vmcell_config_set_memory_locked(config, 0, &e));
    OK(vmcell_config_set_console_rate(config, 1024, 65, &e));
    check_described(config, "\"console_rate\": {");
    check_described(config, "\"burst\": 65");
    FAILS_SAYING(VMCELL_ERROR_BAD_VALUE, "per_second is 1 and burst is 0", vmcell_config_set_console_rate(config, 1, 0, &e));
    OK(vmcell_config_set_console_rate(config, 0, 0, &e));
    OK(vmcell_config_set_rng(config, 0, 0, &e));
    check_described(config, "\"rng\": {}");
    OK(vmcell_config_set_rng(config, 1024, 64, &e));
    check_described(config, "\"burst\": 64");
    FAILS_SAYING(VMCELL_ERROR_BAD_VALUE, "per_second is 0 and burst is 1", vmcell_config_set_rng(config, 0, 1, &e));
    OK(vmcell_config_set_balloon(config, 0, 1, 1, 0, &e));
    check_described(config, "\"balloon\": {}");
    OK(vmcell_config_set_balloon(config, 1, 0, 0, 5, &e));
    check_described(config, "\"deflate_on_oom\": false");
    OK(vmcell_config_set_vsock(config, 3, NULL, 0, &e));
    check_described(config, "\"cid\": 3");
    OK(vmcell_config_set_vsock(config, 4, "guest.vsock", 5, &e));
    check_described(config, "\"path\": \"guest.vsock\"");
    check_described(config, "\"max_connections\": 5");
    FAILS_SAYING(VMCELL_ERROR_BAD_VALUE, "node is -2", vmcell_config_set_numa_node(config, -2, &e));
    OK(vmcell_config_set_numa_node(config, 1024, &e));
    check_described(config, "\"numa_node\": 1024");
    FAILS_SAYING(VMCELL_ERROR_INVALID_CONFIG, "NUMA node 1024", vmcell_vm_new(config, &vm, &e));
    config = config_of(in(folder, "spin"));
    OK(vmcell_config_set_numa_node(config, 0, &e));
    OK(vmcell_config_set_numa_node(config, VMCELL_NUMA_NODE_ANY, &e));
    OK(vmcell_vm_new(config, &vm, &e));
    CHECK(vmcell_vm_free(vm) == VMCELL_OK);
}

/* Rates that change while a VM runs. */
static void test_rates(const char *folder) {
    vmcell_config *config = config_of(in(folder, "spin"));
    vmcell_vm *vm;
    OK(vmcell_vm_new(config, &vm, &e));
    FAILS_SAYING(VMCELL_ERROR_INVALID_CONFIG, "no rng", vmcell_vm_set_rng_rate(vm, 1, 1, &e));
    CHECK(vmcell_vm_free(vm) == VMCELL_OK);
    config = config_of(in(folder, "spin"));
    OK(vmcell_config_set_rng(config, 0, 0, &e));
    OK(vmcell_vm_new(config, &vm, &e));
    OK(vmcell_vm_start(vm, &e));
    OK(vmcell_vm_set_rng_rate(vm, 100, 64, &e));
    OK(vmcell_vm_set_console_rate(vm, 100, 64, &e));
    FAILS_SAYING(VMCELL_ERROR_BAD_VALUE, "burst is 0", vmcell_vm_set_rng_rate(vm, 1, 0, &e));
    FAILS_SAYING(VMCELL_ERROR_BAD_VALUE, "per_second is 0", vmcell_vm_set_console_rate(vm, 0, 1, &e));
    FAILS_SAYING(VMCELL_ERROR_INVALID_CONFIG, "the rng", vmcell_vm_set_rng_rate(vm, UINT64_MAX, 1, &e));
    FAILS_SAYING(VMCELL_ERROR_INVALID_CONFIG, "the console", vmcell_vm_set_console_rate(vm, 1, UINT64_MAX, &e));
    OK(vmcell_vm_set_rng_rate(vm, 0, 0, &e));
    OK(vmcell_vm_set_console_rate(vm, 0, 0, &e));
    CHECK(vmcell_vm_free(vm) == VMCELL_OK);
}

/* What can be seen of a balloon in a guest without a driver. */
static void test_balloon(const char *folder) {
    vmcell_config *config = config_of(in(folder, "spin"));
    vmcell_vm *vm;
    uint64_t target, actual, reported, values[32];
    size_t count;
    OK(vmcell_config_set_memory_mib(config, 32, &e));
    OK(vmcell_config_set_balloon(config, 33, 1, 1, 0, &e));
    FAILS_SAYING(VMCELL_ERROR_INVALID_CONFIG, "allowed are 0 to 32 MiB", vmcell_vm_new(config, &vm, &e));
    config = config_of(in(folder, "spin"));
    OK(vmcell_vm_new(config, &vm, &e));
    FAILS_SAYING(VMCELL_ERROR_INVALID_CONFIG, "no balloon", vmcell_vm_balloon_set_target(vm, 0, &e));
    CHECK(vmcell_vm_free(vm) == VMCELL_OK);
    config = config_of(in(folder, "spin"));
    OK(vmcell_config_set_memory_mib(config, 32, &e));
    OK(vmcell_config_set_balloon(config, 1, 1, 1, 0, &e));
    OK(vmcell_vm_new(config, &vm, &e));
    OK(vmcell_vm_balloon_state(vm, &target, &actual, &reported, &e));
    CHECK(target == 1 << 20 && actual == 0 && reported == 0);
    OK(vmcell_vm_balloon_set_target(vm, 5 * 4096 + 1, &e));
    OK(vmcell_vm_balloon_state(vm, &target, &actual, &reported, &e));
    CHECK(target == 5 * 4096);
    FAILS_SAYING(VMCELL_ERROR_INVALID_CONFIG, "33554433 bytes", vmcell_vm_balloon_set_target(vm, (32 << 20) + 1, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_vm_balloon_state(vm, &target, NULL, &reported, &e));
    OK(vmcell_vm_balloon_set_statistics_interval(vm, 86400, &e));
    FAILS_SAYING(VMCELL_ERROR_INVALID_CONFIG, "86401 s", vmcell_vm_balloon_set_statistics_interval(vm, 86401, &e));
    for (uint32_t limit = 0; limit < 20; limit += 10)
        FAILS(VMCELL_ERROR_TIMEOUT, vmcell_vm_balloon_statistics(vm, limit, values, 32, &count, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_vm_balloon_statistics(vm, 0, NULL, 32, &count, &e));
    CHECK(vmcell_vm_free(vm) == VMCELL_OK);
}

/* What a process gives up, and what is opened before. The launcher enters a jail: here there are other threads. */
static void test_jail(const char *folder) {
    vmcell_config *config = config_of(in(folder, "hello"));
    vmcell_jail *jail;
    vmcell_io_thread *io_thread;
    vmcell_vm *vm;
    uint32_t missing = 77;
    size_t length;
    const int32_t keep[2] = {0, 1};
    OK(vmcell_jail_new(&jail, &e));
    FAILS(VMCELL_ERROR_INVALID_STATE, vmcell_jail_keep_folders(jail, config, &e));
    OK(vmcell_config_open(config, &e));
    FAILS_SAYING(VMCELL_ERROR_INVALID_STATE, "was opened", vmcell_config_set_vcpus(config, 2, &e));
    OK(vmcell_config_open(config, &e));
    OK(vmcell_jail_keep_folders(jail, config, &e));
    FAILS(VMCELL_ERROR_BAD_VALUE, vmcell_jail_leave_out(jail, 20, &e));
    FAILS(VMCELL_ERROR_BAD_VALUE, vmcell_jail_limit(jail, -1, 0, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_jail_keep(jail, NULL, 0, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_jail_close_inherited(jail, NULL, 1, &e));
    OK(vmcell_jail_leave_out(jail, VMCELL_JAIL_NETWORK_NAMESPACE, &e));
    OK(vmcell_jail_limit(jail, VMCELL_LIMIT_CORE_BYTES, 0, &e));
    OK(vmcell_jail_keep(jail, folder, 1, &e));
    OK(vmcell_jail_close_inherited(jail, keep, 2, &e));
    OK(vmcell_jail_set_cgroup(jail, folder, 1 << 20, UINT64_MAX, 50000, &e));
    FAILS_SAYING(VMCELL_ERROR_INVALID_CONFIG, "version 2", vmcell_cgroup_join(folder, 1, 1, 1, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_cgroup_join(NULL, 1, 1, 1, &e));
    OK(vmcell_io_thread_new("filtered", &io_thread, &e));
    FAILS(VMCELL_ERROR_INVALID_STATE, vmcell_jail_enter(jail, &missing, NULL, 0, &length, &e));
    CHECK(missing == 77);
    FAILS(VMCELL_ERROR_BAD_HANDLE, vmcell_jail_enter(jail, &missing, NULL, 0, &length, &e));
    OK(vmcell_jail_new(&jail, &e));
    CHECK(vmcell_jail_free(jail) == VMCELL_OK && vmcell_jail_free(jail) == VMCELL_ERROR_BAD_HANDLE);
    if (vmcell_io_thread_confine(io_thread, VMCELL_SECCOMP_REFUSE, &e) == VMCELL_OK) {
        FAILS(VMCELL_ERROR_INVALID_STATE, vmcell_io_thread_confine(io_thread, VMCELL_SECCOMP_REFUSE, &e));
    } else {
        /* Under valgrind, which has no filters. */
        CHECK(strstr(vmcell_error_chain(e), "Function not implemented") != NULL);
        vmcell_error_free(e);
        e = NULL;
    }
    FAILS(VMCELL_ERROR_BAD_VALUE, vmcell_thread_confine(3, &e));
    OK(vmcell_thread_confine(VMCELL_SECCOMP_OFF, &e));
    OK(vmcell_vm_new(config, &vm, &e));
    CHECK(vmcell_vm_free(vm) == VMCELL_OK && vmcell_io_thread_free(io_thread) == VMCELL_OK);
    config = config_of(in(folder, "missing"));
    FAILS(VMCELL_ERROR_BOOT_IMAGE, vmcell_config_open(config, &e));
    CHECK(vmcell_config_free(config) == VMCELL_OK);
}

static int holds_hello(const char *path) {
    char text[8] = "";
    FILE *file = fopen(path, "r");
    return file != NULL && fread(text, 1, sizeof text, file) == 5 && fclose(file) == 0 && strcmp(text, "hello") == 0;
}

/* A console beside that of a description, and one beside another. */
static void test_consoles_beside_others(const char *folder) {
    char json[8192];
    vmcell_config *config;
    vmcell_console *console;
    CHECK(snprintf(json, sizeof json, "{\"boot\":{\"kernel\":\"%s\"},\"console\":{\"file\":{\"path\":\"%s\"}}}",
                   in(folder, "hello"), in(folder, "described")) < (int)sizeof json);
    OK(vmcell_config_new_from_json(json, strlen(json), &config, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_config_add_console(config, NULL, &e));
    for (int i = 0; i < 2; i++) {
        OK(vmcell_console_new_file(in(folder, i == 0 ? "first" : "second"), &console, &e));
        OK(vmcell_config_add_console(config, console, &e));
    }
    FAILS(VMCELL_ERROR_BAD_HANDLE, vmcell_config_add_console(config, console, &e));
    vmcell_vm *vm = vm_of(config);
    OK(vmcell_vm_start(vm, &e));
    CHECK(exit_of(vm) == VMCELL_EXIT_SHUTDOWN && vmcell_vm_free(vm) == VMCELL_OK);
    CHECK(holds_hello(in(folder, "described")) && holds_hello(in(folder, "first")) && holds_hello(in(folder, "second")));
}

/* What VMs have done, as JSON and as OpenMetrics text. */
static void test_metrics(const char *folder) {
    vmcell_config *config = config_of(in(folder, "hello"));
    OK(vmcell_config_set_name(config, "counted", &e));
    vmcell_vm *vm = vm_of(config);
    OK(vmcell_vm_measure_turns(vm, &e));
    OK(vmcell_vm_start(vm, &e));
    CHECK(exit_of(vm) == VMCELL_EXIT_SHUTDOWN);
    size_t length = 0, again = 0;
    OK(vmcell_vm_metrics_json(vm, NULL, 0, &length, &e));
    char *text = malloc(length + 100);
    CHECK(text != NULL);
    memset(text, 'x', length + 1);
    OK(vmcell_vm_metrics_json(vm, text, 10, &again, &e));
    CHECK(text[0] == 'x'); /* all of it, or nothing */
    OK(vmcell_vm_metrics_json(vm, text, length + 100, &length, &e));
    CHECK(strlen(text) == length && strncmp(text, "{\"vm\":\"counted\",", 16) == 0);
    /* Five bytes, and the register that turns the guest off. */
    CHECK(strstr(text, "\"pio_write\":6,") != NULL && strstr(text, "\"output_bytes\":5,") != NULL);
    free(text);
    const vmcell_vm *vms[2] = {vm, vm};
    OK(vmcell_vm_metrics_openmetrics(vms, 2, NULL, 0, &length, &e));
    text = malloc(length + 100);
    CHECK(text != NULL);
    OK(vmcell_vm_metrics_openmetrics(vms, 2, text, length + 100, &length, &e));
    CHECK(strlen(text) == length && strcmp(text + length - 6, "# EOF\n") == 0);
    CHECK(strstr(text, "{vm=\"counted\",vcpu=\"0\",kind=\"pio_write\"} 6\n") != NULL);
    CHECK(strstr(text, "{vm=\"counted\",same_name=\"2\",vcpu=\"0\",kind=\"pio_write\"} 6\n") != NULL);
    free(text);
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_vm_metrics_json(vm, NULL, 1, &length, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_vm_metrics_json(vm, NULL, 0, NULL, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_vm_metrics_openmetrics(NULL, 1, NULL, 0, &length, &e));
    CHECK(vmcell_vm_free(vm) == VMCELL_OK);
    FAILS(VMCELL_ERROR_BAD_HANDLE, vmcell_vm_metrics_json(vm, NULL, 0, &length, &e));
    FAILS(VMCELL_ERROR_BAD_HANDLE, vmcell_vm_metrics_openmetrics(vms, 2, NULL, 0, &length, &e));
}

/* This guest has no driver: connections wait for one, until the VM ends. */
static void test_vsock(const char *folder) {
    vmcell_config *config = config_of(in(folder, "spin"));
    OK(vmcell_config_set_vsock(config, 3, NULL, 2, &e));
    vmcell_vm *vm = vm_of(config);
    OK(vmcell_vm_start(vm, &e));
    int32_t fd = -1, other = -1;
    uint32_t port = 7;
    char byte;
    OK(vmcell_vm_vsock_connect(vm, 52, 0, &fd, &e));
    CHECK(write(fd, "waits", 5) == 5);
    FAILS(VMCELL_ERROR_TIMEOUT, vmcell_vm_vsock_connect(vm, 52, 10, &other, &e));
    vmcell_vsock_listener *listener = NULL, *second = NULL;
    OK(vmcell_vsock_listener_new(vm, 80, &listener, &e));
    FAILS(VMCELL_ERROR_VSOCK, vmcell_vsock_listener_new(vm, 80, &second, &e));
    FAILS(VMCELL_ERROR_TIMEOUT, vmcell_vsock_listener_accept(listener, 0, &other, &port, &e));
    FAILS(VMCELL_ERROR_TIMEOUT, vmcell_vsock_listener_accept(listener, 10, &other, &port, &e));
    FAILS_SAYING(VMCELL_ERROR_BAD_VALUE, "timeout_ms is -2", vmcell_vsock_listener_accept(listener, -2, &other, &port, &e));
    struct pollfd poller = {.events = POLLIN};
    OK(vmcell_vsock_listener_fd(listener, &poller.fd, &e));
    CHECK(poll(&poller, 1, 0) == 0);
    CHECK(vmcell_vm_free(vm) == VMCELL_OK);
    CHECK(poll(&poller, 1, LONG_MS) == 1);
    FAILS(VMCELL_ERROR_INVALID_STATE, vmcell_vsock_listener_accept(listener, VMCELL_WAIT_FOREVER, &other, &port, &e));
    CHECK(read(fd, &byte, 1) <= 0 && close(fd) == 0);
    CHECK(vmcell_vsock_listener_free(listener) == VMCELL_OK && vmcell_vsock_listener_free(NULL) == VMCELL_OK);
    FAILS(VMCELL_ERROR_BAD_HANDLE, vmcell_vsock_listener_fd(listener, &poller.fd, &e));
    CHECK(vmcell_vsock_listener_free(listener) == VMCELL_ERROR_BAD_HANDLE);
    CHECK(other == -1 && port == 7 && second == NULL);
    vm = started(in(folder, "spin"));
    FAILS(VMCELL_ERROR_INVALID_CONFIG, vmcell_vm_vsock_connect(vm, 52, 0, &other, &e));
    FAILS(VMCELL_ERROR_INVALID_CONFIG, vmcell_vsock_listener_new(vm, 80, &second, &e));
    CHECK(vmcell_vm_free(vm) == VMCELL_OK);
}

struct told {
    int starts;
    int ends;
    int released;
};

static void hear(int32_t level, const char *vm, const char *target, const char *message, void *user) {
    struct told *told = user;
    if (level != VMCELL_LOG_INFO) /* such as an engine that this host does not have */
        return;
    CHECK(strcmp(vm, "told") == 0 && strcmp(target, "vm") == 0);
    told->starts += strstr(message, "starts with 1 vCPU") != NULL;
    told->ends += strstr(message, "turned itself off") != NULL;
}

static void unhear(void *user) {
    ((struct told *)user)->released++;
}

/* A function is told what happens to a VM. */
static void test_log(const char *folder) {
    struct told told = {0};
    vmcell_config *config = config_of(in(folder, "hello"));
    OK(vmcell_config_set_name(config, "told", &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_config_set_log(config, NULL, &told, unhear, &e));
    CHECK(told.released == 1);
    OK(vmcell_config_set_log(config, hear, &told, unhear, &e));
    vmcell_vm *vm = vm_of(config);
    CHECK(told.starts == 0);
    OK(vmcell_vm_start(vm, &e));
    CHECK(exit_of(vm) == VMCELL_EXIT_SHUTDOWN);
    CHECK(told.starts == 1 && told.ends == 1);
    CHECK(vmcell_vm_free(vm) == VMCELL_OK && told.released == 2);
}

/* A VM that JSON describes, and handles to its devices. */
static void test_description(const char *folder) {
    char json[4096];
    vmcell_config *config;
    vmcell_disk *second;
    vmcell_disk_handle *disk;
    vmcell_nic_handle *nic;
    const char *image = in(folder, "disk.img");
    snprintf(json, sizeof json,
             "{\"memory\": {\"mib\": 16}, \"boot\": {\"kernel\": \"%s\"}, \"disks\": [{\"path\": \"%s\", \"read_only\": true}]}",
             in(folder, "hello"), image);
    OK(vmcell_config_new_from_json(json, strlen(json), &config, &e));
    OK(vmcell_disk_new(image, &second, &e));
    OK(vmcell_disk_set_read_only(second, 1, &e));
    OK(vmcell_config_add_disk(config, second, &e));
    vmcell_vm *vm = vm_of(config);
    for (size_t index = 0; index < 2; index++) {
        OK(vmcell_disk_handle_new_from_vm(vm, index, &disk, &e));
        OK(vmcell_disk_handle_refresh(disk, &e));
        CHECK(vmcell_disk_handle_free(disk) == VMCELL_OK);
    }
    FAILS_SAYING(VMCELL_ERROR_INVALID_CONFIG, "disk 2 was asked for", vmcell_disk_handle_new_from_vm(vm, 2, &disk, &e));
    FAILS_SAYING(VMCELL_ERROR_INVALID_CONFIG, "the VM has 0", vmcell_nic_handle_new_from_vm(vm, 0, &nic, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_disk_handle_new_from_vm(vm, 0, NULL, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_disk_handle_new_from_vm(NULL, 0, &disk, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_nic_handle_new_from_vm(vm, 0, NULL, &e));
    OK(vmcell_disk_handle_new_from_vm(vm, 0, &disk, &e));
    OK(vmcell_vm_start(vm, &e));
    CHECK(exit_of(vm) == VMCELL_EXIT_SHUTDOWN && vmcell_vm_free(vm) == VMCELL_OK);
    OK(vmcell_disk_handle_refresh(disk, &e)); /* a handle outlives its VM */
    CHECK(vmcell_disk_handle_free(disk) == VMCELL_OK);
    /* What cannot be opened is said with which disk it is. */
    strcpy(json, "{\"boot\": {\"kernel\": \"k\"}, \"disks\": [{\"path\": \"/does/not/exist\"}]}");
    OK(vmcell_config_new_from_json(json, strlen(json), &config, &e));
    FAILS_SAYING(VMCELL_ERROR_DISK, "disk 0 (/does/not/exist) cannot be opened", vmcell_vm_new(config, &vm, &e));
}

void test_console(const char *folder) {
    test_log(folder);
    test_consoles_beside_others(folder);
    test_metrics(folder);
    test_vsock(folder);
    test_description(folder);
    test_names_and_threads(folder);
    test_rates(folder);
    test_balloon(folder);
    test_jail(folder);
    test_callback(folder);
    test_echo(folder);
    test_pipes(folder);
    test_pair(folder);
    test_file(folder);
    test_sinks(folder);
    test_end_from_callback(folder);
    test_waiting_in_a_callback(folder);
}
