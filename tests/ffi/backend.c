/*
 * Disks and network interfaces on tables of functions of our own, and the handles that change devices while a VM runs. The
 * guests here have no driver, so no operation comes: those are in examples/c/encrypted_disk.c, under a Linux guest.
 */
#include "check.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/uio.h>
#include <unistd.h>

enum { CAPACITY = 1 << 20, THREADS = 4, ROUNDS = 2000 };

/* What both tables work on: who was called how often. */
struct host {
    atomic_int calls;
    atomic_int refreshes;
    atomic_int destroyed;
};

static int32_t submit(void *user, vmcell_disk_port *port, const vmcell_disk_operation *operation) {
    struct host *host = user;
    host->calls++;
    return vmcell_disk_port_complete(port, operation->tag, EIO, NULL) == VMCELL_OK ? 0 : EIO;
}

static int32_t take_frame(void *user, vmcell_nic_port *port, const vmcell_nic_frame *frame) {
    struct host *host = user;
    host->calls++;
    return frame->len > 0 && port != NULL ? VMCELL_FULL : 0;
}

static int32_t negotiate(void *user, uint32_t offloads) {
    (void)user;
    return offloads == 0 ? 0 : ENOTSUP;
}

static void called(void *user) {
    ((struct host *)user)->calls++;
}

static void refresh(void *user) {
    ((struct host *)user)->refreshes++;
}

static void destroy(void *user) {
    ((struct host *)user)->destroyed++;
}

static vmcell_disk_backend disk_table(struct host *host) {
    return (vmcell_disk_backend){
        .struct_size = sizeof(vmcell_disk_backend),
        .user = host,
        .submit = submit,
        .commit = called,
        .cancel = called,
        .refresh = refresh,
        .destroy = destroy,
    };
}

static vmcell_nic_backend nic_table(struct host *host) {
    return (vmcell_nic_backend){
        .struct_size = sizeof(vmcell_nic_backend),
        .user = host,
        .send = take_frame,
        .negotiate = negotiate,
        .destroy = destroy,
    };
}

static const vmcell_disk_info DISK_INFO = {.struct_size = sizeof DISK_INFO, .capacity = CAPACITY};

static vmcell_disk *disk_of(struct host *host, vmcell_disk_port **port) {
    vmcell_disk *disk;
    vmcell_disk_backend table = disk_table(host);
    OK(vmcell_disk_new_backend(&table, &DISK_INFO, &disk, port, &e));
    return disk;
}

static vmcell_nic *nic_of(struct host *host, vmcell_nic_port **port) {
    vmcell_nic *nic;
    vmcell_nic_backend table = nic_table(host);
    vmcell_nic_info info = {.struct_size = sizeof info, .link_down = 1};
    OK(vmcell_nic_new_backend(&table, &info, &nic, port, &e));
    return nic;
}

static void disk_port_is_refused(int32_t number, vmcell_disk_port *port) {
    FAILS(number, vmcell_disk_port_complete(port, 1, 0, &e));
    FAILS(number, vmcell_disk_port_retry(port, &e));
    FAILS(number, vmcell_disk_port_set_capacity(port, CAPACITY, &e));
}

static void test_disk_port(void) {
    struct host host = {0};
    vmcell_disk_port *port;
    vmcell_disk *disk = disk_of(&host, &port);
    uint64_t handles = vmcell_handle_count();
    FAILS_SAYING(VMCELL_ERROR_BAD_VALUE, "no operation in flight", vmcell_disk_port_complete(port, 0, 0, &e));
    FAILS(VMCELL_ERROR_BAD_VALUE, vmcell_disk_port_complete(port, UINT64_MAX, EIO, &e));
    OK(vmcell_disk_port_retry(port, &e));
    OK(vmcell_disk_port_set_capacity(port, 512, &e));
    FAILS_SAYING(VMCELL_ERROR_BAD_VALUE, "a multiple of 512 above 0", vmcell_disk_port_set_capacity(port, 0, &e));
    FAILS(VMCELL_ERROR_BAD_VALUE, vmcell_disk_port_set_capacity(port, 1000, &e));
    OK(vmcell_disk_set_never_blocks(disk, &e));
    OK(vmcell_disk_set_serial(disk, "c", &e));
    disk_port_is_refused(VMCELL_ERROR_BAD_HANDLE, (vmcell_disk_port *)disk);
    CHECK(vmcell_disk_free((vmcell_disk *)port) == VMCELL_ERROR_BAD_HANDLE); /* a port is freed by nobody */
    CHECK(host.destroyed == 0 && vmcell_disk_free(disk) == VMCELL_OK && host.destroyed == 1 && host.calls == 0);
    CHECK(vmcell_handle_count() == handles - 2); /* the disk, and its port */
    disk_port_is_refused(VMCELL_ERROR_BAD_HANDLE, port);
    disk_port_is_refused(VMCELL_ERROR_NULL_ARGUMENT, NULL);
    FAILS(VMCELL_ERROR_BAD_HANDLE, vmcell_disk_set_never_blocks(disk, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_disk_set_never_blocks(NULL, &e));
}

/* What is taken although the call fails, and what is not. */
static void test_disk_tables(void) {
    struct host host = {0};
    vmcell_disk *disk = NULL;
    vmcell_disk_port *port = NULL;
    vmcell_disk_info info = DISK_INFO;
    vmcell_disk_backend table = disk_table(&host);
    FAILS_SAYING(VMCELL_ERROR_NULL_ARGUMENT, "table is NULL", vmcell_disk_new_backend(NULL, &info, &disk, &port, &e));
    table.struct_size = sizeof table + 1;
    FAILS_SAYING(VMCELL_ERROR_BAD_VALUE, "table->struct_size is 57",
                 vmcell_disk_new_backend(&table, &info, &disk, &port, &e));
    CHECK(host.destroyed == 0);
    table = disk_table(&host);
    table.submit = NULL;
    FAILS_SAYING(VMCELL_ERROR_NULL_ARGUMENT, "submit", vmcell_disk_new_backend(&table, &info, &disk, &port, &e));
    table = disk_table(&host);
    FAILS_SAYING(VMCELL_ERROR_NULL_ARGUMENT, "info is NULL", vmcell_disk_new_backend(&table, NULL, &disk, &port, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_disk_new_backend(&table, &info, NULL, &port, &e));
    info.struct_size = 0;
    FAILS_SAYING(VMCELL_ERROR_BAD_VALUE, "info->struct_size", vmcell_disk_new_backend(&table, &info, &disk, &port, &e));
    info = DISK_INFO;
    info.block_size = 1000;
    FAILS_SAYING(VMCELL_ERROR_DISK, "block size 1000", vmcell_disk_new_backend(&table, &info, &disk, &port, &e));
    CHECK(host.destroyed == 5 && disk == NULL && port == NULL);

    struct { /* as a later version of the library would have it */
        vmcell_disk_backend table;
        void (*more)(void *user);
    } later = {.table = disk_table(&host), .more = called};
    later.table.struct_size = sizeof later;
    FAILS_SAYING(VMCELL_ERROR_BAD_VALUE, "does not know",
                 vmcell_disk_new_backend(&later.table, &DISK_INFO, &disk, NULL, &e));
    later.more = NULL;
    OK(vmcell_disk_new_backend(&later.table, &DISK_INFO, &disk, NULL, &e));
    CHECK(host.destroyed == 5 && vmcell_disk_free(disk) == VMCELL_OK && host.destroyed == 6);
}

static void nic_port_is_refused(int32_t number, vmcell_nic_port *port) {
    static const uint8_t FRAME[60];
    uint64_t dropped = 7;
    FAILS(number, vmcell_nic_port_deliver(port, NULL, FRAME, sizeof FRAME, &e));
    FAILS(number, vmcell_nic_port_retry(port, &e));
    FAILS(number, vmcell_nic_port_set_link(port, 1, &e));
    FAILS(number, vmcell_nic_port_dropped(port, &dropped, NULL, &e));
    CHECK(dropped == 7);
}

static void test_nic_port(void) {
    static const uint8_t FRAME[60], HEADER[VMCELL_NIC_HEADER_BYTES], BAD_HEADER[VMCELL_NIC_HEADER_BYTES] = {0, 77};
    struct host host = {0};
    vmcell_nic_port *port;
    vmcell_nic *nic = nic_of(&host, &port);
    uint64_t to_guest = 7, from_guest = 7;
    OK(vmcell_nic_port_deliver(port, NULL, FRAME, sizeof FRAME, &e));
    OK(vmcell_nic_port_deliver(port, HEADER, FRAME, sizeof FRAME, &e));
    FAILS(VMCELL_ERROR_BAD_VALUE, vmcell_nic_port_deliver(port, BAD_HEADER, FRAME, sizeof FRAME, &e));
    FAILS(VMCELL_ERROR_BAD_VALUE, vmcell_nic_port_deliver(port, NULL, FRAME, 13, &e));
    FAILS(VMCELL_ERROR_BAD_VALUE, vmcell_nic_port_deliver(port, NULL, FRAME, SIZE_MAX, &e));
    FAILS_SAYING(VMCELL_ERROR_NULL_ARGUMENT, "frame is NULL", vmcell_nic_port_deliver(port, NULL, NULL, 60, &e));
    for (int i = 0; i < 1030; i++)
        OK(vmcell_nic_port_deliver(port, NULL, FRAME, sizeof FRAME, &e));
    OK(vmcell_nic_port_dropped(port, &to_guest, &from_guest, &e));
    CHECK(to_guest == 8 && from_guest == 0);
    OK(vmcell_nic_port_dropped(port, NULL, NULL, &e));
    OK(vmcell_nic_port_retry(port, &e));
    OK(vmcell_nic_port_set_link(port, 1, &e));
    OK(vmcell_nic_set_never_blocks(nic, &e));
    nic_port_is_refused(VMCELL_ERROR_BAD_HANDLE, (vmcell_nic_port *)nic);
    CHECK(host.destroyed == 0 && vmcell_nic_free(nic) == VMCELL_OK && host.destroyed == 1 && host.calls == 0);
    nic_port_is_refused(VMCELL_ERROR_BAD_HANDLE, port);
    nic_port_is_refused(VMCELL_ERROR_NULL_ARGUMENT, NULL);
    FAILS(VMCELL_ERROR_BAD_HANDLE, vmcell_nic_set_never_blocks(nic, &e));
}

static void test_nic_tables(void) {
    struct host host = {0};
    vmcell_nic *nic = NULL;
    vmcell_nic_port *port = NULL;
    vmcell_nic_info info = {.struct_size = sizeof info, .offloads = 16};
    vmcell_nic_backend table = nic_table(&host);
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_nic_new_backend(NULL, NULL, &nic, &port, &e));
    table.struct_size = 8;
    FAILS_SAYING(VMCELL_ERROR_BAD_VALUE, "24 to 4096", vmcell_nic_new_backend(&table, NULL, &nic, &port, &e));
    CHECK(host.destroyed == 0);
    table = nic_table(&host);
    table.send = NULL;
    FAILS_SAYING(VMCELL_ERROR_NULL_ARGUMENT, "send", vmcell_nic_new_backend(&table, NULL, &nic, &port, &e));
    table = nic_table(&host);
    FAILS_SAYING(VMCELL_ERROR_BAD_VALUE, "0x10", vmcell_nic_new_backend(&table, &info, &nic, &port, &e));
    info.struct_size = 12;
    FAILS(VMCELL_ERROR_BAD_VALUE, vmcell_nic_new_backend(&table, &info, &nic, &port, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_nic_new_backend(&table, NULL, NULL, &port, &e));
    CHECK(host.destroyed == 4 && nic == NULL && port == NULL);
    OK(vmcell_nic_new_backend(&table, NULL, &nic, NULL, &e));
    CHECK(vmcell_nic_free(nic) == VMCELL_OK && host.destroyed == 5);
}

static void test_limits(vmcell_disk *disk, vmcell_nic *nic) {
    vmcell_limit_group *group = NULL;
    FAILS_SAYING(VMCELL_ERROR_BAD_VALUE, "operations_per_second is 0 and operations_burst is 1",
                 vmcell_limit_group_new(0, 1, 0, 0, &group, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_limit_group_new(1, 1, 1, 1, NULL, &e));
    OK(vmcell_limit_group_new(1000, 100, 0, 0, &group, &e));
    OK(vmcell_limit_group_set_limits(group, 0, 0, 0, 0, &e));
    OK(vmcell_disk_set_limits(disk, 1, 2, 3, 4, &e));
    FAILS(VMCELL_ERROR_BAD_VALUE, vmcell_disk_set_limits(disk, 1, 0, 3, 4, &e));
    OK(vmcell_disk_set_limit_group(disk, group, &e));
    OK(vmcell_nic_set_receive_limits(nic, 1, 2, 3, 4, &e));
    OK(vmcell_nic_set_send_limits(nic, 0, 0, 3, 4, &e));
    OK(vmcell_nic_set_receive_group(nic, group, &e));
    OK(vmcell_nic_set_send_group(nic, group, &e));
    CHECK(vmcell_limit_group_free(group) == VMCELL_OK && vmcell_limit_group_free(NULL) == VMCELL_OK);
    FAILS(VMCELL_ERROR_BAD_HANDLE, vmcell_nic_set_send_group(nic, group, &e));
    FAILS(VMCELL_ERROR_BAD_HANDLE, vmcell_limit_group_set_limits(group, 0, 0, 0, 0, &e));
}

static void test_handles(const char *folder) {
    struct host host = {0}, other = {0};
    vmcell_disk *disk;
    vmcell_nic *nic = nic_of(&host, NULL);
    vmcell_disk_handle *disk_handle = NULL;
    vmcell_nic_handle *nic_handle = NULL;
    OK(vmcell_disk_new(in(folder, "disk.img"), &disk, &e));
    OK(vmcell_disk_handle_new(disk, &disk_handle, &e));
    OK(vmcell_nic_handle_new(nic, &nic_handle, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_disk_handle_new(NULL, &disk_handle, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_disk_handle_new(disk, NULL, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_nic_handle_new(NULL, &nic_handle, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_nic_handle_new(nic, NULL, &e));
    OK(vmcell_disk_handle_refresh(disk_handle, &e));
    FAILS(VMCELL_ERROR_TIMEOUT, vmcell_disk_handle_replace(disk_handle, disk_of(&other, NULL), 1, &e));
    vmcell_disk *reader = disk_of(&other, NULL);
    OK(vmcell_disk_set_read_only(reader, 1, &e));
    FAILS_SAYING(VMCELL_ERROR_INVALID_CONFIG, "read-only", vmcell_disk_handle_replace(disk_handle, reader, 1, &e));
    CHECK(vmcell_disk_free(reader) == VMCELL_ERROR_BAD_HANDLE); /* taken although it failed */
    FAILS(VMCELL_ERROR_BAD_HANDLE, vmcell_disk_handle_replace(disk_handle, reader, 1, &e));
    OK(vmcell_nic_handle_set_link(nic_handle, 0, &e));
    OK(vmcell_nic_handle_announce(nic_handle, &e));
    OK(vmcell_disk_handle_set_limits(disk_handle, 1, 1, 0, 0, &e));
    FAILS_SAYING(VMCELL_ERROR_BAD_VALUE, "bytes_per_second is 1 and bytes_burst is 0",
                 vmcell_disk_handle_set_limits(disk_handle, 1, 1, 1, 0, &e));
    FAILS_SAYING(VMCELL_ERROR_INVALID_CONFIG, "operations: a limit of 1099511627777 a second and 1 at once",
                 vmcell_nic_handle_set_receive_limits(nic_handle, (1ULL << 40) + 1, 1, 0, 0, &e));
    OK(vmcell_nic_handle_set_receive_limits(nic_handle, 0, 0, 0, 0, &e));
    OK(vmcell_nic_handle_set_send_limits(nic_handle, 0, 0, 1500, 3000, &e));
    test_limits(disk, nic);
    CHECK(vmcell_disk_free(disk) == VMCELL_OK && vmcell_nic_free(nic) == VMCELL_OK && host.destroyed == 1);
    FAILS(VMCELL_ERROR_BAD_HANDLE, vmcell_disk_handle_new(disk, &disk_handle, &e));
    FAILS(VMCELL_ERROR_BAD_HANDLE, vmcell_nic_handle_new(nic, &nic_handle, &e));
    OK(vmcell_disk_handle_refresh(disk_handle, &e)); /* a handle outlives what it changes */
    OK(vmcell_nic_handle_set_link(nic_handle, 1, &e));
    CHECK(vmcell_disk_handle_free(disk_handle) == VMCELL_OK && vmcell_nic_handle_free(nic_handle) == VMCELL_OK);
    CHECK(other.destroyed == 2); /* the one that came too early ends with the handle, if no VM comes */

    CHECK(vmcell_disk_handle_free(NULL) == VMCELL_OK && vmcell_nic_handle_free(NULL) == VMCELL_OK);
    CHECK(vmcell_disk_handle_free(disk_handle) == VMCELL_ERROR_BAD_HANDLE);
    CHECK(vmcell_nic_handle_free(nic_handle) == VMCELL_ERROR_BAD_HANDLE);
    FAILS(VMCELL_ERROR_BAD_HANDLE, vmcell_disk_handle_refresh(disk_handle, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_disk_handle_refresh(NULL, &e));
    FAILS(VMCELL_ERROR_BAD_HANDLE, vmcell_disk_handle_replace(disk_handle, disk_of(&other, NULL), 1, &e));
    CHECK(other.destroyed == 3);
    FAILS(VMCELL_ERROR_BAD_HANDLE, vmcell_nic_handle_set_link(nic_handle, 1, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_nic_handle_set_link(NULL, 1, &e));
    FAILS(VMCELL_ERROR_BAD_HANDLE, vmcell_nic_handle_announce(nic_handle, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_nic_handle_announce(NULL, &e));
}

/* Waits until a device of the VM has failed for this cause, and checks what is told. */
static void wait_failed(vmcell_vm *vm, const char *cause, const char *told) {
    char text[4096] = "";
    size_t length = 0;
    while (strstr(text, cause) == NULL) {
        usleep(1000);
        OK(vmcell_vm_device_failures_json(vm, text, sizeof text, &length, &e));
        CHECK(strlen(text) == length);
    }
    if (strstr(text, told) == NULL)
        fprintf(stderr, "%s\n", text);
    CHECK(strstr(text, told) != NULL);
}

/* Devices that fail: one whose backend gives up, and one whose queue the guest breaks again and again. */
static void test_failures(const char *folder) {
    struct host first = {0}, wire = {0};
    vmcell_disk_port *port;
    vmcell_nic_port *nic_port;
    vmcell_vm *vm;
    char text[4096];
    size_t length = 0;
    vmcell_config *config = config_of(in(folder, "spin"));
    OK(vmcell_config_add_disk(config, disk_of(&first, &port), &e));
    OK(vmcell_config_add_nic(config, nic_of(&wire, &nic_port), &e));
    OK(vmcell_vm_new(config, &vm, &e));
    OK(vmcell_vm_device_failures_json(vm, text, sizeof text, &length, &e));
    CHECK(length == strlen(text) && strcmp(text, "{\"failures\":[]}") == 0);
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_disk_port_give_up(port, NULL, &e));
    FAILS(VMCELL_ERROR_NOT_UTF8, vmcell_disk_port_give_up(port, "\xff", &e));
    OK(vmcell_disk_port_give_up(port, "the storage is gone", &e));
    wait_failed(vm, "gave_up",
                "{\"failures\":[{\"device\":\"disk0\",\"label\":\"disk 0 (on a backend)\",\"cause\":\"gave_up\",\"is_final\":true,"
                "\"message\":\"the backend gave up: the storage is gone\",\"at_ns\":");
    /* The port is gone when `destroy` has returned, a moment after it has said that it was called. */
    while (vmcell_disk_port_retry(port, NULL) != VMCELL_ERROR_BAD_HANDLE)
        usleep(1000);
    CHECK(first.destroyed == 1);
    disk_port_is_refused(VMCELL_ERROR_BAD_HANDLE, port);
    FAILS(VMCELL_ERROR_BAD_HANDLE, vmcell_disk_port_give_up(port, "again", &e));
    OK(vmcell_nic_port_give_up(nic_port, "the network is gone", &e));
    wait_failed(vm, "the network is gone", "{\"device\":\"nic0\",");
    OK(vmcell_vm_start(vm, &e));
    OK(vmcell_vm_pause(vm, &e));
    CHECK(vmcell_vm_free(vm) == VMCELL_OK && first.destroyed == 1 && wire.destroyed == 1);
    FAILS(VMCELL_ERROR_BAD_HANDLE, vmcell_vm_device_failures_json(vm, text, sizeof text, &length, &e));
    FAILS(VMCELL_ERROR_BAD_HANDLE, vmcell_nic_port_give_up(nic_port, "again", &e));

    struct host broken = {0};
    config = config_of(in(folder, "break_queues"));
    OK(vmcell_config_add_disk(config, disk_of(&broken, NULL), &e));
    OK(vmcell_vm_new(config, &vm, &e));
    OK(vmcell_vm_start(vm, &e));
    wait_failed(vm, "broken_queue", "\"is_final\":false");
    CHECK(vmcell_vm_free(vm) == VMCELL_OK && broken.destroyed == 1);
}

struct ports {
    vmcell_disk_port *disk;
    vmcell_nic_port *nic;
    atomic_int gone;
};

/* Uses both ports, right and wrong, while the VM comes and goes. */
static void *use_ports(void *argument) {
    static const uint8_t FRAME[60];
    struct ports *ports = argument;
    for (int i = 0; i < ROUNDS || !ports->gone; i++) {
        int32_t numbers[] = {
            vmcell_disk_port_complete(ports->disk, (uint64_t)i, 0, NULL),
            vmcell_disk_port_set_capacity(ports->disk, CAPACITY + (uint64_t)(i % 8) * 512, NULL),
            vmcell_disk_port_retry(ports->disk, NULL),
            vmcell_nic_port_deliver(ports->nic, NULL, FRAME, sizeof FRAME, NULL),
            vmcell_nic_port_set_link(ports->nic, i % 2, NULL),
            vmcell_nic_port_retry(ports->nic, NULL),
        };
        CHECK(numbers[0] == VMCELL_ERROR_BAD_VALUE || numbers[0] == VMCELL_ERROR_BAD_HANDLE);
        for (size_t n = 1; n < sizeof numbers / sizeof *numbers; n++)
            CHECK(numbers[n] == VMCELL_OK || numbers[n] == VMCELL_ERROR_BAD_HANDLE);
    }
    return NULL;
}

/* A VM whose devices are all ours, with threads of ours at work on them. */
static void test_in_a_vm(const char *folder) {
    struct host first = {0}, second = {0}, wire = {0};
    struct ports ports = {0};
    vmcell_disk_handle *handle;
    vmcell_vm *vm;
    pthread_t threads[THREADS];
    vmcell_config *config = config_of(in(folder, "spin"));
    vmcell_disk *disk = disk_of(&first, &ports.disk);
    vmcell_nic *nic = nic_of(&wire, &ports.nic);
    OK(vmcell_disk_handle_new(disk, &handle, &e));
    OK(vmcell_nic_set_never_blocks(nic, &e));
    OK(vmcell_config_add_disk(config, disk, &e));
    OK(vmcell_config_add_nic(config, nic, &e));
    OK(vmcell_vm_new(config, &vm, &e));
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, use_ports, &ports) == 0);
    OK(vmcell_vm_start(vm, &e));
    OK(vmcell_disk_handle_refresh(handle, &e));
    while (first.refreshes == 0)
        usleep(1000);
    OK(vmcell_vm_pause(vm, &e));
    OK(vmcell_vm_resume(vm, &e));
    CHECK(first.destroyed == 0);
    OK(vmcell_disk_handle_replace(handle, disk_of(&second, NULL), 60000, &e));
    CHECK(first.destroyed == 1 && second.destroyed == 0);
    disk_port_is_refused(VMCELL_ERROR_BAD_HANDLE, ports.disk);
    stop(vm);
    CHECK(second.destroyed == 0 && wire.destroyed == 0 && vmcell_vm_free(vm) == VMCELL_OK);
    CHECK(first.destroyed == 1 && second.destroyed == 1 && wire.destroyed == 1);
    ports.gone = 1;
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    nic_port_is_refused(VMCELL_ERROR_BAD_HANDLE, ports.nic);
    FAILS(VMCELL_ERROR_INVALID_STATE, vmcell_disk_handle_replace(handle, disk_of(&first, NULL), 1, &e));
    CHECK(first.destroyed == 2 && vmcell_disk_handle_free(handle) == VMCELL_OK);
}

/* What a function of a backend does on the thread that serves its own VM. */
struct inside {
    vmcell_vm *vm;
    vmcell_disk_handle *handle;
    vmcell_disk_port *port;
    struct host other;
    int32_t paused, replaced, resized, freed;
    atomic_int destroyed;
};

static int32_t never_submit(void *user, vmcell_disk_port *port, const vmcell_disk_operation *operation) {
    (void)user, (void)port, (void)operation;
    return EIO;
}

static void misbehave(void *user) {
    struct inside *inside = user;
    inside->resized = vmcell_disk_port_set_capacity(inside->port, 4096, NULL);
    inside->paused = vmcell_vm_pause(inside->vm, NULL);
    inside->replaced = vmcell_disk_handle_replace(inside->handle, disk_of(&inside->other, NULL), 1, NULL);
    inside->freed = vmcell_vm_free(inside->vm);
}

static void end_inside(void *user) {
    ((struct inside *)user)->destroyed++;
}

/* A function that waits for its own VM is refused, and one that frees it is destroyed when it has returned. */
static void test_misuse_from_inside(const char *folder) {
    struct inside inside = {0};
    vmcell_disk *disk;
    vmcell_config *config = config_of(in(folder, "spin"));
    vmcell_disk_backend table = {.struct_size = sizeof table, .user = &inside, .submit = never_submit,
                                 .refresh = misbehave, .destroy = end_inside};
    OK(vmcell_disk_new_backend(&table, &DISK_INFO, &disk, &inside.port, &e));
    OK(vmcell_disk_handle_new(disk, &inside.handle, &e));
    OK(vmcell_config_add_disk(config, disk, &e));
    OK(vmcell_vm_new(config, &inside.vm, &e));
    OK(vmcell_vm_start(inside.vm, &e));
    OK(vmcell_disk_handle_refresh(inside.handle, &e));
    while (inside.destroyed == 0 || inside.other.destroyed == 0)
        usleep(1000);
    CHECK(inside.resized == VMCELL_OK && inside.paused == VMCELL_ERROR_INVALID_STATE);
    CHECK(inside.replaced == VMCELL_ERROR_INVALID_STATE && inside.freed == VMCELL_OK);
    CHECK(vmcell_vm_free(inside.vm) == VMCELL_ERROR_BAD_HANDLE && vmcell_disk_handle_free(inside.handle) == VMCELL_OK);
    while (vmcell_handle_count() != 0 || vmcell_vms_discarded() != 0) /* freed on another thread */
        usleep(1000);
    CHECK(inside.destroyed == 1 && inside.other.destroyed == 1);
}

/* A configuration that no VM is made from, and a VM that is refused, destroy what they were given. */
static void test_without_a_vm(void) {
    struct host host = {0};
    vmcell_config *config;
    vmcell_vm *vm;
    for (int makes_vm = 0; makes_vm < 2; makes_vm++) {
        OK(vmcell_config_new(&config, &e));
        OK(vmcell_config_add_disk(config, disk_of(&host, NULL), &e));
        OK(vmcell_config_add_nic(config, nic_of(&host, NULL), &e));
        CHECK(host.destroyed == 2 * makes_vm);
        if (makes_vm)
            FAILS(VMCELL_ERROR_INVALID_CONFIG, vmcell_vm_new(config, &vm, &e));
        else
            CHECK(vmcell_config_free(config) == VMCELL_OK);
    }
    CHECK(host.destroyed == 4 && host.calls == 0);
}

/* What backends count stands in the metrics of their VM, also after a counter was freed. */
static void test_counters(const char *folder) {
    struct host host = {0};
    vmcell_counter *hits, *more, *frames;
    vmcell_disk_port *disk_port;
    vmcell_nic_port *nic_port;
    vmcell_vm *vm;
    char text[16384] = "";
    size_t length;
    vmcell_config *config = config_of(in(folder, "power_off"));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_counter_new(NULL, &e));
    OK(vmcell_counter_new(&hits, &e));
    OK(vmcell_counter_new(&more, &e));
    OK(vmcell_counter_new(&frames, &e));
    OK(vmcell_config_add_disk(config, disk_of(&host, &disk_port), &e));
    OK(vmcell_config_add_nic(config, nic_of(&host, &nic_port), &e));
    OK(vmcell_disk_port_add_counter(disk_port, "cache_hits", hits, &e));
    OK(vmcell_disk_port_add_counter(disk_port, "cache_hits", more, &e));
    OK(vmcell_nic_port_add_counter(nic_port, "frames", frames, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_disk_port_add_counter(disk_port, NULL, hits, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_nic_port_add_counter(nic_port, "x", NULL, &e));
    FAILS(VMCELL_ERROR_BAD_HANDLE, vmcell_nic_port_add_counter((vmcell_nic_port *)disk_port, "x", hits, &e));
    OK(vmcell_counter_add(hits, 2, &e));
    OK(vmcell_vm_new(config, &vm, &e));
    FAILS_SAYING(VMCELL_ERROR_INVALID_STATE, "\"late\" was added after", vmcell_disk_port_add_counter(disk_port, "late", hits, &e));
    FAILS(VMCELL_ERROR_INVALID_STATE, vmcell_nic_port_add_counter(nic_port, "late", hits, &e));
    OK(vmcell_counter_add(hits, 5, &e));
    OK(vmcell_counter_add(more, 100, &e));
    CHECK(vmcell_counter_free(hits) == VMCELL_OK && vmcell_counter_free(more) == VMCELL_OK);
    FAILS(VMCELL_ERROR_BAD_HANDLE, vmcell_counter_add(hits, 1, &e));
    OK(vmcell_vm_metrics_json(vm, text, sizeof text, &length, &e));
    CHECK(strstr(text, "\"counters\":{\"cache_hits\":107}") != NULL && strstr(text, "\"counters\":{\"frames\":0}") != NULL);
    CHECK(vmcell_counter_free(frames) == VMCELL_OK && vmcell_counter_free(frames) == VMCELL_ERROR_BAD_HANDLE);
    CHECK(vmcell_vm_free(vm) == VMCELL_OK && vmcell_counter_free(NULL) == VMCELL_OK && host.destroyed == 2);
}

void test_backends(const char *folder) {
    test_disk_port();
    test_disk_tables();
    test_nic_port();
    test_nic_tables();
    test_handles(folder);
    test_without_a_vm();
    test_failures(folder);
    test_in_a_vm(folder);
    test_misuse_from_inside(folder);
    test_counters(folder);
}
