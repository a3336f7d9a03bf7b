/* The same objects from many threads at once. */
#include "check.h"

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

enum { THREADS = 8, VMS = 4 };

static vmcell_vm *started(const char *guest) {
    vmcell_vm *vm;
    OK(vmcell_vm_new(config_of(guest), &vm, &e));
    OK(vmcell_vm_start(vm, &e));
    return vm;
}

static void run_all(void *(*body)(void *), void *argument) {
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, body, argument) == 0);
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
}

struct waiting {
    vmcell_vm *vm;
    atomic_int inside;
    atomic_int stopped;
};

static void *wait_for_it(void *argument) {
    struct waiting *waiting = argument;
    int32_t ended = 0;
    waiting->inside++;
    int32_t number = vmcell_vm_wait(waiting->vm, VMCELL_WAIT_FOREVER, &ended, NULL);
    if (number == VMCELL_OK && ended == VMCELL_EXIT_STOPPED)
        waiting->stopped++;
    else
        CHECK(number == VMCELL_ERROR_BAD_HANDLE); /* it came too late */
    return NULL;
}

static void *end_it(void *argument) {
    struct waiting *waiting = argument;
    while (waiting->inside < THREADS)
        usleep(1000);
    usleep(20000);
    CHECK(vmcell_vm_free(waiting->vm) == VMCELL_OK);
    return NULL;
}

/* A VM that is freed while others wait for it ends, and they hear of it. */
static void test_free_while_waiting(const char *folder) {
    struct waiting waiting = {.vm = started(in(folder, "spin"))};
    pthread_t ending;
    CHECK(pthread_create(&ending, NULL, end_it, &waiting) == 0);
    run_all(wait_for_it, &waiting);
    CHECK(pthread_join(ending, NULL) == 0);
    CHECK(waiting.stopped > 0 && vmcell_vm_status(waiting.vm, NULL, NULL) != VMCELL_OK);
}

struct racing {
    vmcell_vm *vm;
    atomic_int freed;
};

static void *use_and_free(void *argument) {
    struct racing *racing = argument;
    int32_t status, fd;
    size_t taken;
    for (int i = 0; i < 100; i++) {
        int32_t number = vmcell_vm_status(racing->vm, &status, NULL);
        CHECK(number == VMCELL_OK || number == VMCELL_ERROR_BAD_HANDLE);
        number = vmcell_vm_write_console(racing->vm, (const uint8_t *)"x", 1, &taken, NULL);
        CHECK(number == VMCELL_OK || number == VMCELL_ERROR_BAD_HANDLE);
        number = vmcell_vm_ended_fd(racing->vm, &fd, NULL);
        CHECK(number == VMCELL_OK || number == VMCELL_ERROR_BAD_HANDLE);
        vmcell_vm_pause(racing->vm, NULL);
        vmcell_vm_resume(racing->vm, NULL);
        if (i == 50 && vmcell_vm_free(racing->vm) == VMCELL_OK)
            racing->freed++;
    }
    return NULL;
}

/* Of many who free the same object, one does. */
static void test_free_races(const char *folder) {
    for (int i = 0; i < 3; i++) {
        struct racing racing = {.vm = started(in(folder, "spin"))};
        run_all(use_and_free, &racing);
        CHECK(racing.freed == 1);
    }
}

static void *take_config(void *argument) {
    vmcell_vm *vm;
    int32_t number = vmcell_vm_new(argument, &vm, NULL);
    CHECK(number == VMCELL_OK || number == VMCELL_ERROR_BAD_HANDLE);
    CHECK(vmcell_config_set_vcpus(argument, 1, NULL) == VMCELL_ERROR_BAD_HANDLE);
    if (number == VMCELL_OK)
        CHECK(vmcell_vm_free(vm) == VMCELL_OK);
    return NULL;
}

static void *live(void *argument) {
    const char *folder = argument;
    for (int i = 0; i < VMS; i++) {
        int32_t ended;
        vmcell_vm *vm = started(in(folder, i % 2 ? "power_off" : "spin"));
        if (i % 2 == 0)
            stop(vm);
        OK(vmcell_vm_wait(vm, VMCELL_WAIT_FOREVER, &ended, &e));
        CHECK(ended == (i % 2 ? VMCELL_EXIT_SHUTDOWN : VMCELL_EXIT_STOPPED));
        CHECK(vmcell_vm_free(vm) == VMCELL_OK);
    }
    return NULL;
}

void test_threads(const char *folder) {
    test_free_while_waiting(folder);
    test_free_races(folder);
    run_all(take_config, config_of(in(folder, "spin")));
    run_all(live, (void *)folder);
}
