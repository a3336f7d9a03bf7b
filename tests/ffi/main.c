/*
 * Calls every function of vmcell.h in every way that works and every way that must not. Run by tests/kvm_ffi.rs, plainly and
 * under valgrind and AddressSanitizer, with a folder that holds guests: main FOLDER.
 */
#include <dirent.h>
#include <unistd.h>

#include "check.h"

_Thread_local vmcell_error *e;

void check_failed(const char *file, int line, const char *condition) {
    fprintf(stderr, "%s:%d: %s\n", file, line, condition);
    exit(1);
}

void check_ok(int32_t number, const char *file, int line, const char *call) {
    if (number == VMCELL_OK && e == NULL)
        return;
    fprintf(stderr, "%s:%d: %s: %d, %s\n", file, line, call, (int)number, vmcell_error_chain(e));
    exit(1);
}

void check_fails(int32_t wanted, int32_t number, const char *file, int line, const char *call) {
    check_saying(wanted, "", number, file, line, call);
}

void check_saying(int32_t wanted, const char *text, int32_t number, const char *file, int line, const char *call) {
    const char *message = vmcell_error_message(e);
    if (number != wanted || vmcell_error_number(e) != wanted || *message == '\0' || strstr(message, text) == NULL) {
        fprintf(stderr, "%s:%d: %s: %d instead of %d, %s\n", file, line, call, (int)number, (int)wanted,
                vmcell_error_chain(e));
        exit(1);
    }
    CHECK(strncmp(vmcell_error_chain(e), message, strlen(message)) == 0);
    CHECK(vmcell_error_free(e) == VMCELL_OK);
}

const char *in(const char *folder, const char *name) {
    static _Thread_local char paths[4][4096];
    static _Thread_local unsigned next;
    char *path = paths[next++ % 4];
    CHECK(snprintf(path, sizeof paths[0], "%s/%s", folder, name) < (int)sizeof paths[0]);
    return path;
}

void stop(vmcell_vm *vm) {
    int32_t number = VMCELL_ERROR_TIMEOUT;
    for (int tries = 0; tries < 100 && number == VMCELL_ERROR_TIMEOUT; tries++)
        number = vmcell_vm_stop(vm, NULL);
    CHECK(number == VMCELL_OK);
}

/* How many threads this program has. */
static int threads(void) {
    int count = 0;
    DIR *tasks = opendir("/proc/self/task");
    CHECK(tasks != NULL);
    for (struct dirent *task; (task = readdir(tasks)) != NULL;)
        count += task->d_name[0] != '.';
    CHECK(closedir(tasks) == 0);
    return count;
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    const char *folder = argv[1];
    CHECK(vmcell_handle_count() == 0);
    test_errors();
    test_host();
    test_config();
    test_objects(folder);
    test_vm(folder);
    test_console(folder);
    test_threads(folder);
    test_backends(folder);
    test_snapshots(folder);
    test_volumes(folder);
    test_secrets(folder);
    test_networks(folder);
    /* Nothing was left behind by any of it. */
    CHECK(vmcell_handle_count() == 0);
    for (int tries = 0; tries < 10000 && threads() > 1; tries++) /* one that a VM was freed on ends by itself */
        usleep(1000);
    CHECK(threads() == 1);
    CHECK(vmcell_console_threads_abandoned() == 0);
    CHECK(vmcell_disk_threads_abandoned() == 0 && vmcell_disk_transfers_abandoned() == 0);
    puts("all checks passed");
    return 0;
}
