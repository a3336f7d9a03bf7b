/* Snapshots, their files, forks, and VMs that are suspended, with a guest that repeats what is typed. */
#include "check.h"

#include <errno.h>
#include <pthread.h>
#include <unistd.h>

/* What a guest printed. */
struct printed {
    pthread_mutex_t lock;
    char text[256];
    size_t length;
};

static void print(const uint8_t *bytes, size_t length, void *user) {
    struct printed *printed = user;
    pthread_mutex_lock(&printed->lock);
    CHECK(printed->length + length < sizeof printed->text);
    memcpy(printed->text + printed->length, bytes, length);
    printed->length += length;
    pthread_mutex_unlock(&printed->lock);
}

/* Types a text, and waits until the guest has printed this and no more. */
static void type(vmcell_vm *vm, const char *text, struct printed *printed, const char *all) {
    size_t taken;
    OK(vmcell_vm_write_console(vm, (const uint8_t *)text, strlen(text), &taken, &e));
    CHECK(taken == strlen(text));
    for (int tries = 0; tries < 10000; tries++) {
        pthread_mutex_lock(&printed->lock);
        int is_all = strcmp(printed->text, all) == 0;
        pthread_mutex_unlock(&printed->lock);
        if (is_all)
            return;
        usleep(1000);
    }
    fprintf(stderr, "%s instead of %s\n", printed->text, all);
    CHECK(0);
}

static vmcell_vm *start(vmcell_config *config, struct printed *printed) {
    vmcell_console *console;
    vmcell_vm *vm;
    memset(printed, 0, sizeof *printed);
    pthread_mutex_init(&printed->lock, NULL);
    OK(vmcell_console_new_callback(print, printed, NULL, &console, &e));
    OK(vmcell_config_set_console(config, console, &e));
    OK(vmcell_vm_new(config, &vm, &e));
    OK(vmcell_vm_start(vm, &e));
    return vm;
}

static vmcell_vm *fork_of(vmcell_snapshot *snapshot, struct printed *printed) {
    vmcell_config *config;
    OK(vmcell_config_new_fork(snapshot, 0, &config, &e));
    OK(vmcell_config_set_fork_clock(config, VMCELL_FORK_CLOCK_KEEP, &e));
    return start(config, printed);
}

static void end(vmcell_vm *vm) {
    stop(vm);
    CHECK(vmcell_vm_free(vm) == VMCELL_OK);
}

/* The moment of a snapshot: how often it came, and what it answers. */
struct moment {
    int calls, answer;
};

static int32_t at_standstill(void *user) {
    struct moment *moment = user;
    moment->calls++;
    return moment->answer;
}

static void test_refused(const char *folder) {
    vmcell_snapshot *snapshot = (vmcell_snapshot *)&folder;
    vmcell_config *config;
    vmcell_vm *vm;
    struct printed printed;
    FAILS(VMCELL_ERROR_SNAPSHOT, vmcell_snapshot_load(in(folder, "none"), VMCELL_LOAD_COPY, &snapshot, &e));
    FAILS_SAYING(VMCELL_ERROR_SNAPSHOT, "it is no snapshot", vmcell_snapshot_load(in(folder, "echo"), VMCELL_LOAD_MAP, &snapshot, &e));
    FAILS_SAYING(VMCELL_ERROR_BAD_VALUE, "memory is 2, allowed are 0, 1", vmcell_snapshot_load(in(folder, "none"), 2, &snapshot, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_snapshot_load(NULL, VMCELL_LOAD_COPY, &snapshot, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_snapshot_load(in(folder, "none"), VMCELL_LOAD_COPY, NULL, &e));
    FAILS(VMCELL_ERROR_BAD_HANDLE, vmcell_snapshot_save(snapshot, in(folder, "vm"), NULL, NULL, 0, &e));
    CHECK(vmcell_snapshot_free(NULL) == VMCELL_OK && vmcell_snapshot_free(snapshot) == VMCELL_ERROR_BAD_HANDLE);

    config = config_of(in(folder, "echo"));
    FAILS(VMCELL_ERROR_BAD_VALUE, vmcell_config_set_fork_clock(config, 2, &e));
    OK(vmcell_config_set_never_snapshot(config, 1, &e));
    vm = start(config, &printed);
    FAILS_SAYING(VMCELL_ERROR_INVALID_STATE, "never_snapshot", vmcell_vm_snapshot(vm, NULL, NULL, &snapshot, &e));
    FAILS_SAYING(VMCELL_ERROR_INVALID_STATE, "never_snapshot", vmcell_vm_suspend(vm, in(folder, "vm"), VMCELL_LOAD_COPY, &e));
    CHECK(access(in(folder, "vm"), F_OK) != 0);
    end(vm);
}

void test_snapshots(const char *folder) {
    vmcell_snapshot *first, *second, *loaded;
    vmcell_config *config;
    vmcell_disk *disk;
    vmcell_vm *vm, *fork;
    struct printed printed, forked;
    struct moment moment = {0, 0};
    uint64_t nanoseconds = 1, own, shared;
    int32_t status;
    test_refused(folder);

    config = config_of(in(folder, "echo"));
    OK(vmcell_config_set_memory_backing(config, VMCELL_MEMORY_MEMFD, &e));
    vm = start(config, &printed);
    type(vm, "ab", &printed, "ab");
    OK(vmcell_vm_snapshot(vm, at_standstill, &moment, &first, &e));
    CHECK(moment.calls == 1);
    moment.answer = EIO;
    second = first;
    FAILS_SAYING(VMCELL_ERROR_HOST, "failed", vmcell_vm_snapshot(vm, at_standstill, &moment, &second, &e));
    CHECK(moment.calls == 2 && second == first); /* a result is written only on success */
    OK(vmcell_snapshot_standstill(first, &nanoseconds, &e));
    CHECK(nanoseconds > 1);
    type(vm, "c", &printed, "abc");

    fork = fork_of(first, &forked);
    type(fork, "x", &forked, "x");
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_vm_memory_use(fork, NULL, &shared, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_vm_memory_use(fork, &own, NULL, &e));
    OK(vmcell_vm_memory_use(fork, &own, &shared, &e));
    CHECK(own < 1 << 20 && shared > 0 && own % 4096 == 0 && shared % 4096 == 0);
    OK(vmcell_snapshot_save(first, in(folder, "first"), NULL, NULL, 0, &e));
    OK(vmcell_vm_snapshot(fork, NULL, NULL, &second, &e));
    FAILS_SAYING(VMCELL_ERROR_SNAPSHOT, "another snapshot",
                 vmcell_snapshot_save(second, in(folder, "second"), second, "first", 0, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_snapshot_save(second, in(folder, "second"), NULL, "first", 0, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_snapshot_save(second, in(folder, "second"), first, NULL, 0, &e));
    OK(vmcell_snapshot_save(second, in(folder, "second"), first, "first", 1 << 30, &e));
    CHECK(vmcell_snapshot_free(first) == VMCELL_OK && vmcell_snapshot_free(second) == VMCELL_OK);
    end(fork);

    for (int32_t memory = VMCELL_LOAD_COPY; memory <= VMCELL_LOAD_MAP; memory++) {
        OK(vmcell_snapshot_load(in(folder, "second"), memory, &loaded, &e));
        fork = fork_of(loaded, &forked);
        type(fork, "y", &forked, "y");
        FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_vm_save_working_set(fork, NULL, &e));
        FAILS(VMCELL_ERROR_SNAPSHOT, vmcell_vm_save_working_set(fork, folder, &e));
        OK(vmcell_vm_save_working_set(fork, in(folder, "parts"), &e));
        FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_snapshot_read_ahead(loaded, NULL, &e));
        FAILS_SAYING(VMCELL_ERROR_SNAPSHOT, "it is no working set", vmcell_snapshot_read_ahead(loaded, in(folder, "echo"), &e));
        OK(vmcell_snapshot_read_ahead(loaded, in(folder, "parts"), &e));
        FAILS(VMCELL_ERROR_BAD_VALUE, vmcell_vm_suspend(fork, in(folder, "away"), 2, &e));
        FAILS(VMCELL_ERROR_SNAPSHOT, vmcell_vm_suspend_encrypted(fork, in(folder, "none"), &e));
        OK(vmcell_vm_suspend_encrypted(fork, folder, &e));
        OK(vmcell_vm_resume(fork, &e));
        OK(vmcell_vm_suspend(fork, in(folder, "away"), memory, &e));
        OK(vmcell_vm_status(fork, &status, &e));
        CHECK(status == VMCELL_STATUS_PAUSED);
        FAILS_SAYING(VMCELL_ERROR_INVALID_STATE, "suspended", vmcell_vm_snapshot(fork, NULL, NULL, &first, &e));
        OK(vmcell_vm_resume(fork, &e));
        type(fork, "z", &forked, "yz");
        end(fork);
        OK(vmcell_snapshot_standstill(loaded, &nanoseconds, &e));
        CHECK(nanoseconds == 0);
        /* One disk more than the source had. */
        FAILS_SAYING(VMCELL_ERROR_BAD_VALUE, "keep is 4", vmcell_config_new_fork(loaded, 4, &config, &e));
        OK(vmcell_config_new_fork(loaded, VMCELL_FORK_DISKS | VMCELL_FORK_NICS, &config, &e));
        OK(vmcell_disk_new(in(folder, "first"), &disk, &e));
        OK(vmcell_disk_set_read_only(disk, 1, &e));
        OK(vmcell_config_add_disk(config, disk, &e));
        FAILS_SAYING(VMCELL_ERROR_INVALID_CONFIG, "those of its source: none", vmcell_vm_new(config, &fork, &e));
        CHECK(vmcell_snapshot_free(loaded) == VMCELL_OK && vmcell_snapshot_free(loaded) == VMCELL_ERROR_BAD_HANDLE);
    }
    end(vm);
    for (size_t i = 0; i < 4; i++)
        CHECK(unlink(in(folder, (const char *[]){"first", "second", "away", "parts"}[i])) == 0);
}
