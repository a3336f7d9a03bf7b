/* Secrets: sealed to a host, opened by it, and kept in a store. */
#include "check.h"

#include <sys/stat.h>
#include <unistd.h>

static vmcell_secret *secret_of(const char *name, const char *value) {
    vmcell_secret *secret;
    OK(vmcell_secret_new(name, (const uint8_t *)value, strlen(value), &secret, &e));
    return secret;
}

static void check_value(vmcell_secret *secret, const char *expected) {
    uint8_t value[64] = {0};
    size_t length = 0;
    OK(vmcell_secret_value(secret, value, sizeof value, &length, &e));
    CHECK(length == strlen(expected) && memcmp(value, expected, length) == 0);
    CHECK(vmcell_secret_free(secret) == VMCELL_OK);
}

static void test_values(const char *folder) {
    vmcell_secret *secret;
    uint8_t value[4] = "....";
    size_t length;
    FAILS_SAYING(VMCELL_ERROR_SECRET, "no name that is allowed", vmcell_secret_new("../shadow", value, 1, &secret, &e));
    FAILS_SAYING(VMCELL_ERROR_SECRET, "the value has 0 bytes", vmcell_secret_new("one", NULL, 0, &secret, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_secret_new("one", NULL, 1, &secret, &e));
    FAILS(VMCELL_ERROR_SECRET, vmcell_secret_new_from_file("one", in(folder, "none"), &secret, &e));
    secret = secret_of("one", "hello");
    OK(vmcell_secret_value(secret, value, sizeof value, &length, &e));
    CHECK(length == 5 && memcmp(value, "....", 4) == 0);
    OK(vmcell_secret_value(secret, NULL, 0, &length, &e));
    CHECK(vmcell_secret_free(secret) == VMCELL_OK && vmcell_secret_free(secret) == VMCELL_ERROR_BAD_HANDLE);
    CHECK(vmcell_secret_free(NULL) == VMCELL_OK);
}

static void test_sealing(const char *folder, vmcell_host_key *host, const char *public_key) {
    uint8_t sealed[2048];
    size_t length;
    vmcell_host_key *other;
    vmcell_secret *opened, *secret = secret_of("token", "hunter2");
    OK(vmcell_secret_seal(secret, public_key, "shop", 3, sealed, sizeof sealed, &length, &e));
    CHECK(length == 88 + 4 + 5 + 7);
    OK(vmcell_host_key_open(host, sealed, length, "shop", "token", 3, &opened, &e));
    check_value(opened, "hunter2");
    FAILS_SAYING(VMCELL_ERROR_SECRET, "it is of application shop", vmcell_host_key_open(host, sealed, length, "forum", "token", 3, &opened, &e));
    FAILS_SAYING(VMCELL_ERROR_SECRET, "it is version 3, asked for was 4", vmcell_host_key_open(host, sealed, length, "shop", "token", 4, &opened, &e));
    FAILS_SAYING(VMCELL_ERROR_SECRET, "it is cut", vmcell_host_key_open(host, sealed, length - 1, "shop", "token", 3, &opened, &e));
    sealed[length - 1] ^= 1;
    FAILS_SAYING(VMCELL_ERROR_SECRET, "its seal is broken", vmcell_host_key_open(host, sealed, length, "shop", "token", 3, &opened, &e));
    OK(vmcell_host_key_new(VMCELL_SUITE_X_WING, NULL, 0, &other, &e));
    FAILS_SAYING(VMCELL_ERROR_SECRET, "it is sealed to the host key", vmcell_host_key_open(other, sealed, length, "shop", "token", 3, &opened, &e));
    CHECK(vmcell_host_key_free(other) == VMCELL_OK && vmcell_host_key_free(NULL) == VMCELL_OK);
    FAILS(VMCELL_ERROR_SECRET, vmcell_secret_seal(secret, "ssh-ed25519 AAAA", "shop", 3, sealed, sizeof sealed, &length, &e));
    FAILS(VMCELL_ERROR_SECRET, vmcell_secret_seal(secret, public_key, "shop", 0, sealed, sizeof sealed, &length, &e));
    FAILS(VMCELL_ERROR_BAD_VALUE, vmcell_host_key_new(7, NULL, 0, &other, &e));
    FAILS_SAYING(VMCELL_ERROR_SECRET, "a host key has 32 bytes, 3", vmcell_host_key_new(VMCELL_SUITE_X25519, sealed, 3, &other, &e));
    FAILS_SAYING(VMCELL_ERROR_SECRET, "it cannot be read", vmcell_host_key_new_from_file(in(folder, "none"), &other, &e));
    CHECK(vmcell_secret_free(secret) == VMCELL_OK);
}

static void test_stores(const char *folder, vmcell_host_key *host, const char *public_key) {
    char path[512], info[2048];
    uint8_t sealed[2048];
    uint64_t number = 0;
    size_t length;
    vmcell_secret_store *store;
    vmcell_host_key *next;
    vmcell_secret *opened;
    const vmcell_secret *both[2];
    snprintf(path, sizeof path, "%s", in(folder, "secrets"));
    unlink(path);
    FAILS(VMCELL_ERROR_SECRET, vmcell_secret_store_create(path, "a/b", &e));
    OK(vmcell_secret_store_create(path, "shop", &e));
    FAILS(VMCELL_ERROR_SECRET, vmcell_secret_store_create(path, "shop", &e));
    FAILS_SAYING(VMCELL_ERROR_SECRET, "store of application shop", vmcell_secret_store_new(path, "forum", 0, &store, &e));
    FAILS_SAYING(VMCELL_ERROR_SECRET, "an older copy was put back", vmcell_secret_store_new(path, "shop", 1, &store, &e));
    OK(vmcell_secret_store_new(path, "shop", 0, &store, &e));

    both[0] = secret_of("user", "u"), both[1] = secret_of("password", "p");
    OK(vmcell_secret_store_set(store, public_key, both, 2, &number, &e));
    CHECK(number == 1);
    CHECK(vmcell_secret_free((vmcell_secret *)both[1]) == VMCELL_OK);
    both[1] = both[0];
    FAILS_SAYING(VMCELL_ERROR_SECRET, "user is to be set twice", vmcell_secret_store_set(store, public_key, both, 2, NULL, &e));
    OK(vmcell_secret_store_set(store, public_key, both, 1, NULL, &e));
    OK(vmcell_secret_seal(both[0], public_key, "shop", 3, sealed, sizeof sealed, &length, &e));
    OK(vmcell_secret_store_put(store, sealed, length, &e));
    FAILS_SAYING(VMCELL_ERROR_SECRET, "the next one is 4", vmcell_secret_store_put(store, sealed, length, &e));
    CHECK(vmcell_secret_free((vmcell_secret *)both[0]) == VMCELL_OK);

    OK(vmcell_secret_store_list(store, info, sizeof info, &length, &e));
    CHECK(length == strlen(info) && strstr(info, "\"revision\":3") && strstr(info, "\"name\":\"password\",\"version\":1"));
    OK(vmcell_secret_store_get(store, host, "user", 3, &opened, &e));
    check_value(opened, "u");
    vmcell_secret *all[2] = {NULL, NULL};
    OK(vmcell_secret_store_get_all(store, host, all, 1, &length, &e));
    CHECK(length == 2 && all[0] == NULL);
    OK(vmcell_secret_store_get_all(store, host, all, 2, &length, &e));
    OK(vmcell_secret_name(all[1], info, sizeof info, &length, &e));
    CHECK(length == 4 && strcmp(info, "user") == 0);
    check_value(all[0], "p");
    check_value(all[1], "u");
    FAILS(VMCELL_ERROR_SECRET, vmcell_secret_store_get(store, host, "user", 2, &opened, &e));
    FAILS_SAYING(VMCELL_ERROR_SECRET, "it has no secret none", vmcell_secret_store_get(store, host, "none", 0, &opened, &e));

    OK(vmcell_host_key_new(VMCELL_SUITE_X_WING, NULL, 0, &next, &e));
    OK(vmcell_host_key_sealing_key(next, info, sizeof info, &length, &e));
    OK(vmcell_secret_store_reseal(store, host, info, &number, &e));
    CHECK(number == 4);
    OK(vmcell_secret_store_get(store, next, "password", 0, &opened, &e));
    check_value(opened, "p");
    OK(vmcell_secret_store_unset(store, "user", &number, &e));
    CHECK(number == 5);
    FAILS(VMCELL_ERROR_SECRET, vmcell_secret_store_unset(store, "user", NULL, &e));
    CHECK(vmcell_host_key_free(next) == VMCELL_OK);
    CHECK(vmcell_secret_store_free(store) == VMCELL_OK && vmcell_secret_store_free(NULL) == VMCELL_OK);
}

static vmcell_vm *started(vmcell_config *config) {
    vmcell_vm *vm;
    OK(vmcell_vm_new(config, &vm, &e));
    OK(vmcell_vm_start(vm, &e));
    return vm;
}

static void test_delivery(const char *folder) {
    vmcell_secret *secret = secret_of("token", "sesame"), *longer = secret_of("token", "sesame!"), *other = secret_of("other", "x");
    vmcell_config *config = config_of(in(folder, "echo"));
    vmcell_vm *vm, *fork;
    vmcell_snapshot *snapshot;
    int32_t in_clear = 7;
    OK(vmcell_config_add_secret(config, secret, &e));
    OK(vmcell_config_add_secret(config, secret, &e));
    FAILS_SAYING(VMCELL_ERROR_SECRET, "secret token was given twice", vmcell_vm_new(config, &vm, &e));
    config = config_of(in(folder, "echo"));
    OK(vmcell_config_add_secret(config, secret, &e));
    OK(vmcell_config_set_scrub_secrets_after(config, UINT64_MAX, &e));
    vm = started(config);
    OK(vmcell_vm_has_secrets_in_clear(vm, &in_clear, &e));
    CHECK(in_clear == 1);
    FAILS_SAYING(VMCELL_ERROR_INVALID_STATE, "secrets are in clear", vmcell_vm_snapshot(vm, NULL, NULL, &snapshot, &e));
    OK(vmcell_vm_scrub_secrets(vm, &e));
    OK(vmcell_vm_snapshot(vm, NULL, NULL, &snapshot, &e));
    OK(vmcell_config_new_fork(snapshot, 0, &config, &e));
    OK(vmcell_config_add_secret(config, other, &e));
    FAILS_SAYING(VMCELL_ERROR_SECRET, "secret other was given to a fork", vmcell_vm_new(config, &fork, &e));
    OK(vmcell_config_new_fork(snapshot, 0, &config, &e));
    OK(vmcell_config_set_scrub_secrets_after(config, 1, &e));
    fork = started(config);
    FAILS_SAYING(VMCELL_ERROR_SECRET, "allowed are 6", vmcell_vm_renew_secret(fork, longer, &e));
    FAILS_SAYING(VMCELL_ERROR_SECRET, "it has a place for: token", vmcell_vm_renew_secret(fork, other, &e));
    OK(vmcell_vm_renew_secret(fork, secret, &e));
    for (int tries = 0; in_clear == 1 && tries < 1000; tries++) {
        usleep(10000);
        OK(vmcell_vm_has_secrets_in_clear(fork, &in_clear, &e));
    }
    CHECK(in_clear == 0);
    CHECK(vmcell_snapshot_free(snapshot) == VMCELL_OK && vmcell_secret_free(secret) == VMCELL_OK);
    CHECK(vmcell_secret_free(longer) == VMCELL_OK && vmcell_secret_free(other) == VMCELL_OK);
    stop(fork);
    stop(vm);
    CHECK(vmcell_vm_free(fork) == VMCELL_OK && vmcell_vm_free(vm) == VMCELL_OK);
}

void test_secrets(const char *folder) {
    char path[512], public_key[2048], again[2048];
    struct stat about;
    size_t length;
    vmcell_host_key *made, *host;
    test_values(folder);
    snprintf(path, sizeof path, "%s", in(folder, "host.key"));
    unlink(path);
    OK(vmcell_host_key_new(VMCELL_SUITE_X25519, NULL, 0, &made, &e));
    OK(vmcell_host_key_save(made, path, &e));
    FAILS(VMCELL_ERROR_SECRET, vmcell_host_key_save(made, path, &e));
    CHECK(stat(path, &about) == 0 && (about.st_mode & 0777) == 0600);
    OK(vmcell_host_key_new_from_file(path, &host, &e));
    OK(vmcell_host_key_sealing_key(made, public_key, sizeof public_key, &length, &e));
    OK(vmcell_host_key_sealing_key(host, again, sizeof again, &length, &e));
    CHECK(strcmp(public_key, again) == 0 && length == strlen(again));
    CHECK(chmod(path, 0644) == 0 && vmcell_host_key_free(made) == VMCELL_OK);
    FAILS_SAYING(VMCELL_ERROR_SECRET, "its mode is 0644", vmcell_host_key_new_from_file(path, &made, &e));
    test_sealing(folder, host, public_key);
    test_stores(folder, host, public_key);
    test_delivery(folder);
    CHECK(vmcell_host_key_free(host) == VMCELL_OK);
}
