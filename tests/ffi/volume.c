/* Encrypted volumes: created, opened as the disk of a VM, and their keys changed. */
#include "check.h"

#include <sys/stat.h>
#include <unistd.h>

static vmcell_key *key_of(uint8_t byte) {
    uint8_t bytes[32];
    vmcell_key *key;
    memset(bytes, byte, sizeof bytes);
    OK(vmcell_key_new(VMCELL_KEY_RANDOM, bytes, sizeof bytes, &key, &e));
    return key;
}

static void test_keys(const char *folder) {
    vmcell_key *key;
    FAILS_SAYING(VMCELL_ERROR_VOLUME, "31 bytes, allowed are 32 to", vmcell_key_new(VMCELL_KEY_RANDOM, (const uint8_t *)"0123456789012345678901234567890", 31, &key, &e));
    FAILS(VMCELL_ERROR_BAD_VALUE, vmcell_key_new(7, (const uint8_t *)"x", 1, &key, &e));
    FAILS(VMCELL_ERROR_BAD_VALUE, vmcell_key_new_from_file(VMCELL_KEY_OF_DATA, in(folder, "echo"), &key, &e));
    FAILS(VMCELL_ERROR_VOLUME, vmcell_key_new_from_file(VMCELL_KEY_PASSPHRASE, in(folder, "none"), &key, &e));
    OK(vmcell_key_new(VMCELL_KEY_PASSPHRASE, (const uint8_t *)"x", 1, &key, &e));
    CHECK(vmcell_key_free(key) == VMCELL_OK && vmcell_key_free(key) == VMCELL_ERROR_BAD_HANDLE);
    CHECK(vmcell_key_free(NULL) == VMCELL_OK);
}

static void test_a_vm_on(const char *folder, const char *path, vmcell_key *key) {
    vmcell_disk *disk, *again;
    vmcell_vm *vm;
    vmcell_config *config = config_of(in(folder, "echo"));
    OK(vmcell_disk_new_volume(path, key, NULL, VMCELL_VOLUME_DISCARD, VMCELL_ENGINE_AUTO, &disk, &e));
    FAILS_SAYING(VMCELL_ERROR_DISK, "only one may write to it", vmcell_disk_new_volume(path, key, NULL, 0, VMCELL_ENGINE_SYNC, &again, &e));
    OK(vmcell_config_add_disk(config, disk, &e));
    OK(vmcell_vm_new(config, &vm, &e));
    OK(vmcell_vm_start(vm, &e));
    OK(vmcell_volume_grow(path, 2 << 20, &e));
    stop(vm);
    CHECK(vmcell_vm_free(vm) == VMCELL_OK);
    OK(vmcell_disk_new_volume(path, key, NULL, VMCELL_VOLUME_READ_ONLY, VMCELL_ENGINE_AUTO, &disk, &e));
    CHECK(vmcell_disk_free(disk) == VMCELL_OK);
}

static int32_t take(void *snapshot) { return vmcell_volume_snapshot_take(snapshot, NULL); }

static void test_snapshots_in_use(const char *folder, vmcell_key *key) {
    char paths[4][256], info[4096];
    const char *names[] = {"monday", "tuesday", "wednesday", "thursday"};
    uint64_t pause = UINT64_MAX;
    int32_t done = -1;
    size_t length;
    vmcell_disk *disk, *plain;
    vmcell_volume_handle *handle;
    vmcell_volume_snapshot *prepared;
    vmcell_snapshot *ram;
    vmcell_vm *vm;
    for (int i = 0; i < 4; i++)
        snprintf(paths[i], sizeof paths[i], "%s", in(folder, names[i])), unlink(paths[i]);
    OK(vmcell_volume_create(paths[0], 1 << 20, key, NULL, 0, NULL, &e));
    OK(vmcell_disk_new(paths[0], &plain, &e));
    FAILS(VMCELL_ERROR_BAD_VALUE, vmcell_volume_handle_new(plain, &handle, &e));
    CHECK(vmcell_disk_free(plain) == VMCELL_OK);
    OK(vmcell_disk_new_volume(paths[0], key, NULL, 0, VMCELL_ENGINE_AUTO, &disk, &e));
    OK(vmcell_volume_handle_new(disk, &handle, &e));
    FAILS(VMCELL_ERROR_TIMEOUT, vmcell_volume_handle_snapshot(handle, paths[1], key, 20, &pause, &e));
    FAILS_SAYING(VMCELL_ERROR_VOLUME, "no other volume", vmcell_volume_handle_reopen(handle, 20, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_volume_handle_grow(NULL, 2 << 20, 20, &e));
    FAILS(VMCELL_ERROR_TIMEOUT, vmcell_volume_handle_grow(handle, 2 << 20, 20, &e));
    vmcell_config *config = config_of(in(folder, "spin"));
    OK(vmcell_config_add_disk(config, disk, &e));
    OK(vmcell_vm_new(config, &vm, &e));
    OK(vmcell_vm_start(vm, &e));
    OK(vmcell_volume_handle_snapshot(handle, paths[1], key, 60000, &pause, &e));
    CHECK(pause < 60000000);
    OK(vmcell_volume_handle_prepare_snapshot(handle, paths[2], key, 60000, &prepared, &e));
    FAILS(VMCELL_ERROR_INVALID_STATE, vmcell_volume_handle_snapshot(handle, paths[3], key, 1, NULL, &e));
    FAILS(VMCELL_ERROR_INVALID_STATE, vmcell_volume_handle_grow(handle, 64 << 20, 60000, &e));
    FAILS(VMCELL_ERROR_INVALID_STATE, vmcell_volume_snapshot_wait(prepared, 1, NULL, &e));
    OK(vmcell_vm_snapshot(vm, take, prepared, &ram, &e));
    OK(vmcell_volume_snapshot_wait(prepared, 60000, &pause, &e));
    CHECK(vmcell_volume_snapshot_free(prepared) == VMCELL_OK && vmcell_snapshot_free(ram) == VMCELL_OK);
    OK(vmcell_volume_handle_prepare_snapshot(handle, paths[3], key, 60000, &prepared, &e));
    CHECK(vmcell_volume_snapshot_free(prepared) == VMCELL_OK && access(paths[3], F_OK) != 0);
    OK(vmcell_volume_info(paths[2], info, sizeof info, &length, &e));
    CHECK(strstr(info, "\"is_fork\":true,\"is_base\":false"));
    OK(vmcell_volume_handle_grow(handle, 64 << 20, 60000, &e));
    FAILS_SAYING(VMCELL_ERROR_VOLUME, "from the 67108864 that it has", vmcell_volume_handle_grow(handle, 32 << 20, 60000, &e));
    FAILS_SAYING(VMCELL_ERROR_VOLUME, "no other volume", vmcell_volume_absorb(paths[0], key, paths[3], NULL, NULL, NULL, &e));
    OK(vmcell_volume_absorb(paths[1], key, paths[3], NULL, NULL, &done, &e));
    CHECK(done == 1 && unlink(paths[0]) == 0 && access(paths[3], F_OK) != 0);
    OK(vmcell_volume_handle_reopen(handle, 60000, &e));
    stop(vm);
    CHECK(vmcell_vm_free(vm) == VMCELL_OK);
    FAILS_SAYING(VMCELL_ERROR_VOLUME, "not in use any more", vmcell_volume_handle_snapshot(handle, paths[3], key, 1000, NULL, &e));
    CHECK(vmcell_volume_handle_free(handle) == VMCELL_OK && vmcell_volume_handle_free(NULL) == VMCELL_OK);
    CHECK(vmcell_volume_snapshot_free(NULL) == VMCELL_OK);
}

static int32_t count(void *user, uint64_t done, uint64_t total) {
    uint64_t *left = user;
    CHECK(done <= total);
    return (*left)-- == 0;
}

static void test_merges(const char *folder, vmcell_key *key) {
    char paths[4][256], info[4096];
    const char *names[] = {"golden", "tenant", "second", "copy"};
    uint64_t left = 0;
    int32_t done = -1;
    size_t length;
    for (int i = 0; i < 4; i++)
        snprintf(paths[i], sizeof paths[i], "%s", in(folder, names[i])), unlink(paths[i]);
    OK(vmcell_volume_create(paths[0], 2 << 20, key, NULL, 0, NULL, &e));
    OK(vmcell_volume_fork(paths[0], key, paths[1], key, &e));
    OK(vmcell_volume_fork(paths[0], key, paths[2], key, &e));
    OK(vmcell_volume_grow_fork(paths[1], key, 4 << 20, &e));
    FAILS(VMCELL_ERROR_VOLUME, vmcell_volume_grow_fork(paths[1], key, 2 << 20, &e));
    OK(vmcell_volume_flatten(paths[1], key, count, &left, &done, &e));
    CHECK(done == 0);
    left = 100;
    OK(vmcell_volume_flatten_to(paths[1], key, paths[3], key, count, &left, &done, &e));
    CHECK(done == 1 && left < 97);
    OK(vmcell_volume_flatten(paths[1], key, NULL, NULL, NULL, &e));
    FAILS_SAYING(VMCELL_ERROR_VOLUME, "no other volume", vmcell_volume_flatten(paths[1], key, NULL, NULL, NULL, &e));
    FAILS_SAYING(VMCELL_ERROR_VOLUME, "2 forks", vmcell_volume_commit(paths[2], key, VMCELL_OTHER_FORKS_REFUSE, NULL, NULL, &done, &e));
    FAILS(VMCELL_ERROR_BAD_VALUE, vmcell_volume_commit(paths[2], key, 7, NULL, NULL, &done, &e));
    OK(vmcell_volume_commit(paths[2], key, VMCELL_OTHER_FORKS_GIVE_UP, NULL, NULL, &done, &e));
    CHECK(done == 1 && access(paths[2], F_OK) != 0);
    OK(vmcell_volume_info(paths[0], info, sizeof info, &length, &e));
    CHECK(strstr(info, "\"is_base\":false"));
    OK(vmcell_volume_info(paths[3], info, sizeof info, &length, &e));
    CHECK(strstr(info, "\"capacity\":4194304") && strstr(info, "\"is_fork\":false"));
}

void test_volumes(const char *folder) {
    char path[256], header[256], backup[256], info[4096];
    uint32_t slot = 99;
    size_t length;
    vmcell_disk *disk;
    vmcell_key *one = key_of(1), *other = key_of(2);
    test_keys(folder);
    snprintf(path, sizeof path, "%s", in(folder, "volume"));
    snprintf(header, sizeof header, "%s", in(folder, "header"));
    snprintf(backup, sizeof backup, "%s", in(folder, "backup"));
    unlink(path), unlink(header), unlink(backup);

    FAILS_SAYING(VMCELL_ERROR_VOLUME, "multiples of 4096", vmcell_volume_create(path, 4097, one, NULL, 0, NULL, &e));
    FAILS_SAYING(VMCELL_ERROR_VOLUME, "is no block device", vmcell_volume_format_device("/dev/null", one, NULL, 0, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_volume_format_device("/dev/null", NULL, "a name", 512, &e));
    OK(vmcell_volume_create(path, 1 << 20, one, "a name", 512, NULL, &e));
    FAILS(VMCELL_ERROR_VOLUME, vmcell_volume_create(path, 1 << 20, one, NULL, 0, NULL, &e));
    struct stat of;
    CHECK(stat(path, &of) == 0 && (of.st_mode & 0777) == 0600);
    FAILS(VMCELL_ERROR_VOLUME_KEY, vmcell_disk_new_volume(path, other, NULL, 0, VMCELL_ENGINE_AUTO, &disk, &e));
    FAILS_SAYING(VMCELL_ERROR_BAD_VALUE, "0x8", vmcell_disk_new_volume(path, one, NULL, 8, VMCELL_ENGINE_AUTO, &disk, &e));
    FAILS(VMCELL_ERROR_BAD_HANDLE, vmcell_disk_new_volume(path, (vmcell_key *)&of, NULL, 0, VMCELL_ENGINE_AUTO, &disk, &e));
    test_a_vm_on(folder, path, one);
    test_snapshots_in_use(folder, one);
    test_merges(folder, one);

    OK(vmcell_volume_back_up_header(path, backup, &e));
    OK(vmcell_volume_add_key(path, one, other, &slot, &e));
    CHECK(slot == 1);
    OK(vmcell_volume_info(path, info, sizeof info, &length, &e));
    CHECK(length == strlen(info) && strstr(info, "\"label\":\"a name\"") && strstr(info, "\"number\":1"));
    OK(vmcell_volume_info(path, NULL, 0, &length, &e));
    CHECK(length == strlen(info));
    OK(vmcell_volume_remove_key(path, 0, &e));
    FAILS_SAYING(VMCELL_ERROR_VOLUME, "the last one", vmcell_volume_remove_key(path, 1, &e));
    FAILS(VMCELL_ERROR_VOLUME_KEY, vmcell_volume_change_key(path, one, other, NULL, &e));
    OK(vmcell_volume_change_key(path, other, one, NULL, &e));
    OK(vmcell_volume_restore_header(path, backup, &e));
    FAILS_SAYING(VMCELL_ERROR_VOLUME, "it ends in the middle of its header", vmcell_volume_restore_header(path, in(folder, "echo"), &e));
    OK(vmcell_disk_new_volume(path, one, NULL, 0, VMCELL_ENGINE_AUTO, &disk, &e));
    CHECK(vmcell_disk_free(disk) == VMCELL_OK);

    snprintf(header, sizeof header, "%s", in(folder, "fork"));
    unlink(header);
    FAILS(VMCELL_ERROR_VOLUME_KEY, vmcell_volume_fork(path, other, header, other, &e));
    OK(vmcell_volume_fork(path, one, header, other, &e));
    FAILS_SAYING(VMCELL_ERROR_VOLUME, "only be read", vmcell_disk_new_volume(path, one, NULL, 0, VMCELL_ENGINE_AUTO, &disk, &e));
    OK(vmcell_disk_new_volume(header, other, NULL, 0, VMCELL_ENGINE_AUTO, &disk, &e));
    CHECK(vmcell_disk_free(disk) == VMCELL_OK);
    OK(vmcell_volume_release(path, &e));
    FAILS_SAYING(VMCELL_ERROR_VOLUME, "another volume", vmcell_disk_new_volume(header, other, NULL, 0, VMCELL_ENGINE_AUTO, &disk, &e));

    snprintf(header, sizeof header, "%s", in(folder, "header"));
    unlink(path);
    OK(vmcell_volume_create(path, 1 << 20, other, NULL, 0, header, &e));
    FAILS(VMCELL_ERROR_VOLUME, vmcell_disk_new_volume(path, other, NULL, 0, VMCELL_ENGINE_AUTO, &disk, &e));
    OK(vmcell_disk_new_volume(path, other, header, 0, VMCELL_ENGINE_AUTO, &disk, &e));
    CHECK(vmcell_disk_free(disk) == VMCELL_OK);
    CHECK(vmcell_key_free(one) == VMCELL_OK && vmcell_key_free(other) == VMCELL_OK);
}
