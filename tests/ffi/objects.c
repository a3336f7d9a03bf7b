/* Errors, configurations, disks, network interfaces, consoles, I/O threads: all that needs no KVM. */
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define NOT_UTF8 "\xff\xfe"

static int is_open(int fd) {
    return fcntl(fd, F_GETFD) >= 0 || errno != EBADF;
}

/* What is freed is known to be: by number, by message, and by each function of it. */
void test_errors(void) {
    CHECK(strcmp(vmcell_version(), VMCELL_VERSION) == 0);
    char version[64];
    snprintf(version, sizeof version, "%d.%d.%d", VMCELL_VERSION_MAJOR, VMCELL_VERSION_MINOR, VMCELL_VERSION_PATCH);
    CHECK(strcmp(version, VMCELL_VERSION) == 0);
    CHECK(vmcell_has_feature("disk") == 1 && vmcell_has_feature("acpi") == 1 && vmcell_has_feature("engine-sync") == 1);
    CHECK(vmcell_has_feature("") == 0 && vmcell_has_feature(NULL) == 0 && vmcell_has_feature(NOT_UTF8) == 0);
    CHECK(vmcell_has_feature("test-util") == 0);

    CHECK(vmcell_error_number(NULL) == VMCELL_OK && vmcell_error_cause_count(NULL) == 0);
    CHECK(strcmp(vmcell_error_message(NULL), "no error") == 0 && strcmp(vmcell_error_chain(NULL), "no error") == 0);
    CHECK(vmcell_error_cause(NULL, 0) == NULL && vmcell_error_free(NULL) == VMCELL_OK);

    vmcell_disk *disk = (vmcell_disk *)&version;
    vmcell_error *error = NULL;
    CHECK(vmcell_disk_new("/does/not/exist", &disk, &error) == VMCELL_ERROR_DISK);
    CHECK(disk == (vmcell_disk *)&version); /* a result is written only on success */
    CHECK(vmcell_error_number(error) == VMCELL_ERROR_DISK);
    CHECK(strcmp(vmcell_error_message(error), "disk /does/not/exist cannot be opened") == 0);
    CHECK(vmcell_error_cause_count(error) == 1 && vmcell_error_cause(error, 1) == NULL);
    CHECK(strstr(vmcell_error_cause(error, 0), "No such file") != NULL);
    CHECK(strstr(vmcell_error_chain(error), "cannot be opened: No such file") != NULL);
    CHECK(vmcell_disk_new("/does/not/exist", &disk, NULL) == VMCELL_ERROR_DISK);
    CHECK(vmcell_error_free(error) == VMCELL_OK);
    CHECK(vmcell_error_free(error) == VMCELL_ERROR_BAD_HANDLE);
    CHECK(vmcell_error_number(error) == VMCELL_ERROR_BAD_HANDLE && vmcell_error_cause_count(error) == 0);
    CHECK(strstr(vmcell_error_message(error), "freed") != NULL && strstr(vmcell_error_chain(error), "freed") != NULL);
    CHECK(vmcell_error_cause(error, 0) == NULL);
    CHECK(vmcell_error_free((vmcell_error *)&version) == VMCELL_ERROR_BAD_HANDLE);
}

static vmcell_config *freed_config(void) {
    vmcell_config *config;
    OK(vmcell_config_new(&config, &e));
    CHECK(vmcell_config_free(config) == VMCELL_OK);
    CHECK(vmcell_config_free(config) == VMCELL_ERROR_BAD_HANDLE);
    return config;
}

static vmcell_console *freed_console(void) {
    vmcell_console *console;
    OK(vmcell_console_new_none(&console, &e));
    CHECK(vmcell_console_free(console) == VMCELL_OK);
    CHECK(vmcell_console_free(console) == VMCELL_ERROR_BAD_HANDLE);
    return console;
}

static vmcell_io_thread *freed_io_thread(void) {
    vmcell_io_thread *io_thread;
    OK(vmcell_io_thread_new("freed", &io_thread, &e));
    CHECK(vmcell_io_thread_free(io_thread) == VMCELL_OK);
    CHECK(vmcell_io_thread_free(io_thread) == VMCELL_ERROR_BAD_HANDLE);
    return io_thread;
}

/* Every setter of a configuration, refused for this one. */
static void config_is_refused(int32_t number, vmcell_config *config, const char *why) {
    FAILS_SAYING(number, why, vmcell_config_set_vcpus(config, 1, &e));
    FAILS_SAYING(number, why, vmcell_config_set_memory(config, 16, 0, 0, &e));
    FAILS_SAYING(number, why, vmcell_config_set_memory_mib(config, 16, &e));
    FAILS_SAYING(number, why, vmcell_config_set_memory_backing(config, 0, &e));
    FAILS_SAYING(number, why, vmcell_config_set_memory_pages(config, 0, &e));
    FAILS_SAYING(number, why, vmcell_config_set_polling(config, 0, &e));
    FAILS_SAYING(number, why, vmcell_config_set_kernel(config, "k", &e));
    FAILS_SAYING(number, why, vmcell_config_set_initrd(config, NULL, &e));
    FAILS_SAYING(number, why, vmcell_config_set_cmdline(config, "", &e));
    FAILS_SAYING(number, why, vmcell_config_set_protocol(config, VMCELL_PROTOCOL_AUTO, &e));
    FAILS_SAYING(number, why, vmcell_config_set_prealloc(config, 1, &e));
    FAILS_SAYING(number, why, vmcell_config_set_kick_signal(config, VMCELL_KICK_SIGNAL_DEFAULT, &e));
    FAILS_SAYING(number, why, vmcell_config_set_discovery(config, VMCELL_DISCOVERY_ACPI, &e));
    vmcell_console *console;
    OK(vmcell_console_new_none(&console, &e));
    FAILS_SAYING(number, why, vmcell_config_set_console(config, console, &e));
    CHECK(vmcell_console_free(console) == VMCELL_ERROR_BAD_HANDLE); /* taken although it failed */
    vmcell_io_thread *io_thread;
    OK(vmcell_io_thread_new("t", &io_thread, &e));
    FAILS_SAYING(number, why, vmcell_config_set_io_thread(config, io_thread, &e));
    CHECK(vmcell_io_thread_free(io_thread) == VMCELL_OK); /* borrowed */
    vmcell_vm *vm;
    FAILS_SAYING(number, why, vmcell_vm_new(config, &vm, &e));
}

void test_config(void) {
    vmcell_config *config;
    FAILS_SAYING(VMCELL_ERROR_NULL_ARGUMENT, "config is NULL", vmcell_config_new(NULL, &e));
    CHECK(vmcell_config_new(NULL, NULL) == VMCELL_ERROR_NULL_ARGUMENT);
    CHECK(vmcell_config_free(NULL) == VMCELL_OK);
    OK(vmcell_config_new(&config, &e));

    OK(vmcell_config_set_vcpus(config, 2, &e));
    OK(vmcell_config_set_memory(config, 16, VMCELL_MEMORY_MEMFD, VMCELL_PAGES_TRANSPARENT, &e));
    FAILS_SAYING(VMCELL_ERROR_BAD_VALUE, "backing is 2, allowed are 0, 1", vmcell_config_set_memory(config, 16, 2, 0, &e));
    FAILS_SAYING(VMCELL_ERROR_BAD_VALUE, "pages is -1", vmcell_config_set_memory(config, 16, 0, -1, &e));
    FAILS_SAYING(VMCELL_ERROR_BAD_VALUE, "pages is 3, allowed are 0, 1, 2", vmcell_config_set_memory_pages(config, 3, &e));
    FAILS_SAYING(VMCELL_ERROR_BAD_VALUE, "backing is 2, allowed are 0, 1", vmcell_config_set_memory_backing(config, 2, &e));
    OK(vmcell_config_set_polling(config, 7, &e));
    OK(vmcell_config_set_kernel(config, NOT_UTF8, &e)); /* a path is of any bytes */
    FAILS_SAYING(VMCELL_ERROR_NULL_ARGUMENT, "path is NULL", vmcell_config_set_kernel(config, NULL, &e));
    OK(vmcell_config_set_initrd(config, "initrd", &e));
    OK(vmcell_config_set_initrd(config, NULL, &e));
    OK(vmcell_config_set_cmdline(config, "console=ttyS0 s\xc3\xbc\xc3\x9f", &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_config_set_cmdline(config, NULL, &e));
    FAILS_SAYING(VMCELL_ERROR_NOT_UTF8, "from byte 3 on", vmcell_config_set_cmdline(config, "abc" NOT_UTF8, &e));
    OK(vmcell_config_set_protocol(config, VMCELL_PROTOCOL_PVH, &e));
    FAILS_SAYING(VMCELL_ERROR_BAD_VALUE, "protocol is 3", vmcell_config_set_protocol(config, 3, &e));
    OK(vmcell_config_set_prealloc(config, 1, &e));
    OK(vmcell_config_set_prealloc(config, 0, &e));
    OK(vmcell_config_set_kick_signal(config, SIGUSR2, &e));
    OK(vmcell_config_set_kick_signal(config, VMCELL_KICK_SIGNAL_DEFAULT, &e));
    OK(vmcell_config_set_discovery(config, VMCELL_DISCOVERY_CMDLINE, &e));
    FAILS_SAYING(VMCELL_ERROR_BAD_VALUE, "discovery is 77", vmcell_config_set_discovery(config, 77, &e));

    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_config_add_disk(config, NULL, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_config_add_nic(config, NULL, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_config_set_console(config, NULL, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_config_set_io_thread(config, NULL, &e));
    FAILS(VMCELL_ERROR_BAD_HANDLE, vmcell_config_set_console(config, freed_console(), &e));
    FAILS(VMCELL_ERROR_BAD_HANDLE, vmcell_config_set_io_thread(config, freed_io_thread(), &e));
    FAILS_SAYING(VMCELL_ERROR_BAD_HANDLE, "a vmcell_disk was expected, this is a vmcell_config",
                 vmcell_config_add_disk(config, (vmcell_disk *)config, &e));
    FAILS(VMCELL_ERROR_BAD_HANDLE, vmcell_config_add_nic(config, (vmcell_nic *)config, &e));
    OK(vmcell_config_set_vcpus(config, 2, &e)); /* a wrong guess takes nothing */

    config_is_refused(VMCELL_ERROR_NULL_ARGUMENT, NULL, "NULL");
    config_is_refused(VMCELL_ERROR_BAD_HANDLE, freed_config(), "freed or handed over");
    config_is_refused(VMCELL_ERROR_BAD_HANDLE, (vmcell_config *)"a text", "no object of this library");
    vmcell_console *console;
    OK(vmcell_console_new_stdio(&console, &e));
    config_is_refused(VMCELL_ERROR_BAD_HANDLE, (vmcell_config *)console, "this is a vmcell_console");
    CHECK(vmcell_config_free((vmcell_config *)console) == VMCELL_ERROR_BAD_HANDLE);
    CHECK(vmcell_console_free(console) == VMCELL_OK);
    CHECK(vmcell_config_free(config) == VMCELL_OK);
}

static void disk_is_refused(int32_t number, vmcell_disk *disk, vmcell_io_thread *io_thread, vmcell_config *config) {
    FAILS(number, vmcell_disk_set_read_only(disk, 1, &e));
    FAILS(number, vmcell_disk_set_serial(disk, "", &e));
    FAILS(number, vmcell_disk_set_engine(disk, VMCELL_ENGINE_SYNC, &e));
    FAILS(number, vmcell_disk_set_io_thread(disk, io_thread, &e));
    FAILS(number, vmcell_config_add_disk(config, disk, &e));
}

static void test_disks(const char *image, vmcell_io_thread *io_thread, vmcell_config *config) {
    vmcell_disk *disk;
    OK(vmcell_disk_new(image, &disk, &e));
    OK(vmcell_disk_set_read_only(disk, 1, &e));
    OK(vmcell_disk_set_serial(disk, "serial", &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_disk_set_serial(disk, NULL, &e));
    FAILS(VMCELL_ERROR_NOT_UTF8, vmcell_disk_set_serial(disk, NOT_UTF8, &e));
    OK(vmcell_disk_set_engine(disk, VMCELL_ENGINE_SYNC, &e));
    FAILS_SAYING(VMCELL_ERROR_BAD_VALUE, "engine is 99", vmcell_disk_set_engine(disk, 99, &e));
    OK(vmcell_disk_set_io_thread(disk, io_thread, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_disk_set_io_thread(disk, NULL, &e));
    OK(vmcell_config_add_disk(config, disk, &e));
    disk_is_refused(VMCELL_ERROR_BAD_HANDLE, disk, io_thread, config); /* handed over */
    CHECK(vmcell_disk_free(disk) == VMCELL_ERROR_BAD_HANDLE);
    disk_is_refused(VMCELL_ERROR_NULL_ARGUMENT, NULL, io_thread, config);
    CHECK(vmcell_disk_free(NULL) == VMCELL_OK);

    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_disk_new(NULL, &disk, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_disk_new(image, NULL, &e));
    FAILS_SAYING(VMCELL_ERROR_DISK, "is a directory", vmcell_disk_new("/", &disk, &e));

    int fd = open(image, O_RDWR | O_CLOEXEC);
    OK(vmcell_disk_new_from_fd(fd, &disk, &e));
    CHECK(is_open(fd) && vmcell_disk_free(disk) == VMCELL_OK && !is_open(fd));
    FAILS_SAYING(VMCELL_ERROR_BAD_DESCRIPTOR, "no open descriptor", vmcell_disk_new_from_fd(fd, &disk, &e));
    FAILS(VMCELL_ERROR_BAD_DESCRIPTOR, vmcell_disk_new_from_fd(-1, &disk, &e));
    fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    FAILS(VMCELL_ERROR_DISK, vmcell_disk_new_from_fd(fd, &disk, &e));
    CHECK(!is_open(fd)); /* taken although it failed */
    fd = open(image, O_RDWR | O_CLOEXEC);
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_disk_new_from_fd(fd, NULL, &e));
    CHECK(!is_open(fd));
}

/* A queue of the TAP device of this name, or of a new one if there is none, or -1 where the host gives none. */
static int tap_queue(char name[IFNAMSIZ], short flags) {
    struct ifreq request;
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    memset(&request, 0, sizeof request);
    memcpy(request.ifr_name, name, IFNAMSIZ);
    request.ifr_flags = (short)(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | flags);
    if (fd >= 0 && ioctl(fd, TUNSETIFF, &request) != 0) {
        close(fd);
        fd = -1;
    }
    if (fd < 0)
        fprintf(stderr, "no TAP device can be made here (%s): vmcell_nic is checked in part\n", strerror(errno));
    memcpy(name, request.ifr_name, IFNAMSIZ);
    return fd;
}

/* An unused TAP device. */
static int new_tap(void) {
    char name[IFNAMSIZ] = "";
    return tap_queue(name, 0);
}

/* An interface with a pair of queues for each descriptor, which are closed with it, and with a call that fails. */
static void test_several_queues(void) {
    char name[IFNAMSIZ] = "", other[IFNAMSIZ] = "";
    int32_t fds[3] = {-1, -1, -1};
    vmcell_nic *nic = NULL;
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_nic_new_from_fds(NULL, 1, &nic, &e));
    FAILS(VMCELL_ERROR_INVALID_CONFIG, vmcell_nic_new_from_fds(NULL, 0, &nic, &e));
    FAILS(VMCELL_ERROR_BAD_VALUE, vmcell_nic_new_from_fds(fds, SIZE_MAX, &nic, &e));
    FAILS(VMCELL_ERROR_BAD_DESCRIPTOR, vmcell_nic_new_from_fds(fds, 3, &nic, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_nic_set_queues(NULL, 2, &e));
    if ((fds[0] = tap_queue(name, IFF_MULTI_QUEUE)) < 0)
        return;
    fds[1] = tap_queue(name, IFF_MULTI_QUEUE);
    OK(vmcell_nic_new_from_fds(fds, 2, &nic, &e));
    CHECK(is_open(fds[0]) && is_open(fds[1]));
    OK(vmcell_nic_set_queues(nic, 2, &e));
    CHECK(vmcell_nic_free(nic) == VMCELL_OK);
    CHECK(!is_open(fds[0]) && !is_open(fds[1]));

    fds[0] = tap_queue(name, IFF_MULTI_QUEUE);
    fds[1] = fds[0];
    FAILS(VMCELL_ERROR_BAD_DESCRIPTOR, vmcell_nic_new_from_fds(fds, 2, &nic, &e));
    CHECK(!is_open(fds[0]));
    fds[0] = tap_queue(name, IFF_MULTI_QUEUE);
    fds[1] = -1;
    fds[2] = tap_queue(other, IFF_MULTI_QUEUE);
    FAILS(VMCELL_ERROR_BAD_DESCRIPTOR, vmcell_nic_new_from_fds(fds, 3, &nic, &e));
    CHECK(!is_open(fds[0]) && !is_open(fds[2]));
    fds[0] = tap_queue(name, IFF_MULTI_QUEUE);
    memset(other, 0, sizeof other);
    fds[1] = tap_queue(other, IFF_MULTI_QUEUE);
    FAILS(VMCELL_ERROR_NETWORK, vmcell_nic_new_from_fds(fds, 2, &nic, &e));
    CHECK(!is_open(fds[0]) && !is_open(fds[1]));
}

static void nic_is_refused(int32_t number, vmcell_nic *nic, vmcell_io_thread *io_thread, vmcell_config *config) {
    static const uint8_t MAC[VMCELL_MAC_BYTES] = {2, 0, 0, 0, 0, 1};
    FAILS(number, vmcell_nic_set_mac(nic, MAC, &e));
    FAILS(number, vmcell_nic_set_mtu(nic, 1500, &e));
    FAILS(number, vmcell_nic_set_queues(nic, 1, &e));
    FAILS(number, vmcell_nic_set_io_thread(nic, io_thread, &e));
    FAILS(number, vmcell_config_add_nic(config, nic, &e));
}

static void test_nics(vmcell_io_thread *io_thread, vmcell_config *config) {
    static const uint8_t MAC[VMCELL_MAC_BYTES] = {2, 0, 0, 0, 0, 1};
    vmcell_nic *nic;
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_nic_new(NULL, &nic, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_nic_new("tap0", NULL, &e));
    FAILS(VMCELL_ERROR_NOT_UTF8, vmcell_nic_new(NOT_UTF8, &nic, &e));
    FAILS(VMCELL_ERROR_INVALID_CONFIG, vmcell_nic_new("a name that is too long", &nic, &e));
    FAILS(VMCELL_ERROR_NETWORK, vmcell_nic_new("vmcell-none", &nic, &e));
    FAILS(VMCELL_ERROR_BAD_DESCRIPTOR, vmcell_nic_new_from_fd(-1, &nic, &e));
    int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    FAILS(VMCELL_ERROR_NETWORK, vmcell_nic_new_from_fd(fd, &nic, &e));
    CHECK(!is_open(fd));
    nic_is_refused(VMCELL_ERROR_NULL_ARGUMENT, NULL, io_thread, config);
    nic_is_refused(VMCELL_ERROR_BAD_HANDLE, (vmcell_nic *)config, io_thread, config);
    CHECK(vmcell_nic_free(NULL) == VMCELL_OK);
    test_several_queues();

    if ((fd = new_tap()) < 0)
        return;
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_nic_new_from_fd(fd, NULL, &e));
    CHECK(!is_open(fd));
    OK(vmcell_nic_new_from_fd(new_tap(), &nic, &e));
    OK(vmcell_nic_set_mac(nic, MAC, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_nic_set_mac(nic, NULL, &e));
    OK(vmcell_nic_set_mtu(nic, 1400, &e));
    OK(vmcell_nic_set_io_thread(nic, io_thread, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_nic_set_io_thread(nic, NULL, &e));
    OK(vmcell_config_add_nic(config, nic, &e));
    nic_is_refused(VMCELL_ERROR_BAD_HANDLE, nic, io_thread, config);
    CHECK(vmcell_nic_free(nic) == VMCELL_ERROR_BAD_HANDLE);
    OK(vmcell_nic_new_from_fd(new_tap(), &nic, &e));
    CHECK(vmcell_nic_free(nic) == VMCELL_OK);
}

static void metadata_is_refused(int32_t number, vmcell_metadata *metadata) {
    size_t length;
    FAILS(number, vmcell_metadata_set_address(metadata, "169.254.1.1", &e));
    FAILS(number, vmcell_metadata_set_limit(metadata, 1, &e));
    FAILS(number, vmcell_metadata_set_needs_token(metadata, 1, &e));
    FAILS(number, vmcell_metadata_set_always_text(metadata, 1, &e));
    FAILS(number, vmcell_metadata_set(metadata, "{}", 2, &e));
    FAILS(number, vmcell_metadata_patch(metadata, "{}", 2, &e));
    FAILS(number, vmcell_metadata_get(metadata, NULL, 0, &length, &e));
    FAILS(number, vmcell_nic_set_metadata(NULL, metadata, &e));
}

static int metadata_is(vmcell_metadata *metadata, const char *wanted) {
    char text[64];
    size_t length;
    OK(vmcell_metadata_get(metadata, text, sizeof text, &length, &e));
    return strcmp(text, wanted) == 0 && strlen(wanted) == length;
}

static void test_metadata(vmcell_config *config) {
    vmcell_metadata *metadata;
    char small[3] = "ab";
    size_t length = 0;
    OK(vmcell_metadata_new(&metadata, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_metadata_new(NULL, &e));
    CHECK(metadata_is(metadata, "{}"));
    OK(vmcell_metadata_set(metadata, "{ \"a\": {\"b\": 1} } and more", 17, &e));
    OK(vmcell_metadata_patch(metadata, "{\"a\":{\"b\":null,\"c\":2}}", 22, &e));
    CHECK(metadata_is(metadata, "{\"a\":{\"c\":2}}"));
    OK(vmcell_metadata_get(metadata, small, sizeof small, &length, &e));
    CHECK(strcmp(small, "ab") == 0 && length == 13);
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_metadata_get(metadata, small, sizeof small, NULL, &e));
    OK(vmcell_metadata_set_limit(metadata, 2, &e));
    FAILS_SAYING(VMCELL_ERROR_INVALID_CONFIG, "allowed are at most 2", vmcell_metadata_set(metadata, "123", 3, &e));
    FAILS_SAYING(VMCELL_ERROR_INVALID_CONFIG, "not JSON", vmcell_metadata_set(metadata, "{", 1, &e));
    FAILS_SAYING(VMCELL_ERROR_INVALID_CONFIG, "not JSON", vmcell_metadata_patch(metadata, NULL, 0, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_metadata_set(metadata, NULL, 1, &e));
    FAILS(VMCELL_ERROR_NOT_UTF8, vmcell_metadata_patch(metadata, NOT_UTF8, 2, &e));
    CHECK(metadata_is(metadata, "{\"a\":{\"c\":2}}"));
    OK(vmcell_metadata_set_address(metadata, "169.254.169.253", &e));
    FAILS_SAYING(VMCELL_ERROR_INVALID_CONFIG, "10.0.0.1", vmcell_metadata_set_address(metadata, "10.0.0.1", &e));
    FAILS_SAYING(VMCELL_ERROR_BAD_VALUE, "'x'", vmcell_metadata_set_address(metadata, "x", &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_metadata_set_address(metadata, NULL, &e));
    OK(vmcell_metadata_set_needs_token(metadata, 0, &e));
    OK(vmcell_metadata_set_always_text(metadata, 1, &e));
    int fd = new_tap();
    if (fd >= 0) {
        vmcell_nic *nic;
        OK(vmcell_nic_new_from_fd(fd, &nic, &e));
        OK(vmcell_nic_set_metadata(nic, metadata, &e));
        FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_nic_set_metadata(nic, NULL, &e));
        CHECK(vmcell_nic_free(nic) == VMCELL_OK);
        FAILS(VMCELL_ERROR_BAD_HANDLE, vmcell_nic_set_metadata(nic, metadata, &e));
    }
    CHECK(vmcell_metadata_free(metadata) == VMCELL_OK && vmcell_metadata_free(NULL) == VMCELL_OK);
    CHECK(vmcell_metadata_free(metadata) == VMCELL_ERROR_BAD_HANDLE);
    metadata_is_refused(VMCELL_ERROR_BAD_HANDLE, metadata);
    metadata_is_refused(VMCELL_ERROR_BAD_HANDLE, (vmcell_metadata *)config);
    metadata_is_refused(VMCELL_ERROR_NULL_ARGUMENT, NULL);
}

static void count(void *user) {
    ++*(int *)user;
}

static void print_nothing(const uint8_t *bytes, size_t len, void *user) {
    (void)bytes, (void)len, (void)user;
}

static void test_consoles(const char *folder, vmcell_config *config) {
    vmcell_console *console;
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_console_new_none(NULL, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_console_new_stdio(NULL, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_console_new_file(NULL, &console, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_console_new_file(in(folder, "log"), NULL, &e));
    CHECK(mkfifo(in(folder, "fifo"), 0600) == 0 || errno == EEXIST);
    OK(vmcell_console_new_file(in(folder, "not opened"), &console, &e));
    OK(vmcell_console_set_append(console, 1, &e));
    OK(vmcell_console_set_rotation(console, 4096, 2, &e));
    vmcell_console *other;
    OK(vmcell_console_new_none(&other, &e));
    OK(vmcell_console_also(console, other, &e));
    CHECK(vmcell_console_free(other) == VMCELL_ERROR_BAD_HANDLE); /* taken */
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_console_also(console, NULL, &e));
    OK(vmcell_console_new_none(&other, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_console_also(NULL, other, &e));
    CHECK(vmcell_console_free(other) == VMCELL_ERROR_BAD_HANDLE); /* taken although it failed */
    CHECK(access(in(folder, "not opened"), F_OK) != 0);
    OK(vmcell_config_set_console(config, console, &e));
    CHECK(vmcell_console_free(console) == VMCELL_ERROR_BAD_HANDLE);

    int pipes[2][2];
    CHECK(pipe(pipes[0]) == 0 && pipe(pipes[1]) == 0);
    FAILS(VMCELL_ERROR_BAD_VALUE, vmcell_console_new_fds(pipes[0][1], pipes[0][1], &console, &e));
    CHECK(is_open(pipes[0][1]));
    OK(vmcell_console_new_fds(pipes[0][1], pipes[1][0], &console, &e));
    CHECK(vmcell_console_free(console) == VMCELL_OK && !is_open(pipes[0][1]) && !is_open(pipes[1][0]));
    FAILS(VMCELL_ERROR_BAD_DESCRIPTOR, vmcell_console_new_fds(-1, -1, &console, &e));
    FAILS_SAYING(VMCELL_ERROR_BAD_DESCRIPTOR, "input is 7777", vmcell_console_new_fds(pipes[0][0], 7777, &console, &e));
    CHECK(!is_open(pipes[0][0])); /* taken although it failed */
    FAILS_SAYING(VMCELL_ERROR_BAD_DESCRIPTOR, "output is -2", vmcell_console_new_fds(-2, pipes[1][1], &console, &e));
    CHECK(!is_open(pipes[1][1]));

    int reader = -1, writer = -1;
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_console_new_pair(NULL, &writer, &console, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_console_new_pair(&reader, NULL, &console, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_console_new_pair(&reader, &writer, NULL, &e));
    CHECK(reader == -1 && writer == -1);
    OK(vmcell_console_new_pair(&reader, &writer, &console, &e));
    CHECK(vmcell_console_free(console) == VMCELL_OK && is_open(reader) && is_open(writer));
    close(reader);
    close(writer);

    int released = 0;
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_console_new_callback(NULL, &released, count, &console, &e));
    CHECK(released == 1); /* taken although it failed */
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_console_new_callback(print_nothing, &released, count, NULL, &e));
    CHECK(released == 2);
    OK(vmcell_console_new_callback(print_nothing, &released, count, &console, &e));
    CHECK(released == 2 && vmcell_console_free(console) == VMCELL_OK && released == 3);
    OK(vmcell_console_new_callback(print_nothing, NULL, NULL, &console, &e));
    OK(vmcell_config_set_console(config, console, &e));
    CHECK(vmcell_console_free(NULL) == VMCELL_OK);
}

/* As JSON, without the white space of which each reader makes its own. */
static int is_json(const vmcell_config *config, const char *wanted) {
    char text[1024], packed[1024];
    size_t length = 0, packed_length = 0;
    OK(vmcell_config_to_json(config, text, sizeof text, &length, &e));
    CHECK(strlen(text) == length);
    for (const char *byte = text; *byte != '\0'; byte++)
        if (strchr(" \n", *byte) == NULL)
            packed[packed_length++] = *byte;
    packed[packed_length] = '\0';
    return strcmp(packed, wanted) == 0;
}

static int32_t config_from(const char *json, vmcell_config **config) {
    return vmcell_config_new_from_json(json, strlen(json), config, &e);
}

static void test_json(void) {
    static const char JSON[] = "{\"vcpus\":2,\"memory\":{\"mib\":64,\"pages\":\"transparent\"},\"boot\":{\"kernel\":\"k\"},"
                               "\"disks\":[{\"path\":\"d\",\"read_only\":true}],\"nics\":[{\"tap\":\"t\"}]}";
    vmcell_config *config;
    size_t length = 7;
    char small[8] = "before";
    OK(config_from(JSON, &config));
    CHECK(is_json(config, JSON));
    OK(vmcell_config_to_json(config, NULL, 0, &length, &e));
    CHECK(length > sizeof JSON - 1); /* it comes in lines */
    OK(vmcell_config_to_json(config, small, sizeof small, &length, &e));
    CHECK(strcmp(small, "before") == 0); /* nothing rather than a part */
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_config_to_json(config, NULL, 1, &length, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_config_to_json(config, small, sizeof small, NULL, &e));
    OK(vmcell_config_set_vcpus(config, 3, &e)); /* setters go on where the text ends */
    OK(vmcell_config_set_prealloc(config, 1, &e));
    OK(vmcell_config_set_cmdline(config, "quiet", &e));
    CHECK(is_json(config, "{\"vcpus\":3,\"memory\":{\"mib\":64,\"pages\":\"transparent\",\"prealloc\":true},"
                          "\"boot\":{\"kernel\":\"k\",\"cmdline\":\"quiet\"},"
                          "\"disks\":[{\"path\":\"d\",\"read_only\":true}],\"nics\":[{\"tap\":\"t\"}]}"));
    CHECK(vmcell_config_free(config) == VMCELL_OK);
    FAILS(VMCELL_ERROR_BAD_HANDLE, vmcell_config_to_json(config, NULL, 0, &length, &e));
    OK(config_from("{}", &config));
    CHECK(is_json(config, "{\"vcpus\":1,\"memory\":{\"mib\":128}}"));
    OK(vmcell_config_set_kernel(config, NOT_UTF8, &e));
    FAILS_SAYING(VMCELL_ERROR_INVALID_CONFIG, "UTF-8", vmcell_config_to_json(config, NULL, 0, &length, &e));
    CHECK(vmcell_config_free(config) == VMCELL_OK);
    FAILS_SAYING(VMCELL_ERROR_INVALID_CONFIG, "disks[0].ro: unknown field", config_from("{\"disks\":[{\"ro\":1}]}", &config));
    FAILS_SAYING(VMCELL_ERROR_INVALID_CONFIG, "EOF", vmcell_config_new_from_json(NULL, 0, &config, &e));
    FAILS(VMCELL_ERROR_NOT_UTF8, config_from(NOT_UTF8, &config));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_config_new_from_json(NULL, 1, &config, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, config_from("{}", NULL));
}

void test_objects(const char *folder) {
    vmcell_config *config;
    vmcell_io_thread *io_thread;
    const char *image = in(folder, "disk.img");
    FILE *file = fopen(image, "w");
    CHECK(file != NULL && ftruncate(fileno(file), 1 << 20) == 0 && fclose(file) == 0);
    OK(vmcell_config_new(&config, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_io_thread_new(NULL, &io_thread, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_io_thread_new("t", NULL, &e));
    FAILS(VMCELL_ERROR_NOT_UTF8, vmcell_io_thread_new(NOT_UTF8, &io_thread, &e));
    CHECK(vmcell_io_thread_free(NULL) == VMCELL_OK);
    OK(vmcell_io_thread_new("shared", &io_thread, &e));
    test_disks(image, io_thread, config);
    test_nics(io_thread, config);
    test_metadata(config);
    test_consoles(folder, config);
    test_json();
    OK(vmcell_config_set_io_thread(config, io_thread, &e));
    CHECK(vmcell_io_thread_free(io_thread) == VMCELL_OK);
    CHECK(vmcell_config_free(config) == VMCELL_OK);
}
