/* Private networks: addresses, rules, ports with VMs on them, and tunnels. */
#include "check.h"

#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#define REALM 0xac1705

static void test_addresses(void) {
    vmcell_machine_address address = {REALM, 7, 1, 2}, read;
    uint8_t mac[VMCELL_MAC_BYTES];
    char text[64];
    size_t length;
    const char *wanted[] = {"fdac:1705:0:7:0:1ff:fe00:2", "fe80::1ff:fe00:2", "fdac:1705:0:7:0:100::/88", "fdac:1705:0:7::/64", "fdac:1705:0:7::3", "fdac:1705:0:7:0:1::/96", "fdac:1705:0:7:0:1:0:2"};
    for (int32_t what = VMCELL_ADDRESS_MACHINE; what <= VMCELL_ADDRESS_SERVICE; what++) {
        OK(vmcell_machine_address_text(&address, what, text, sizeof text, &length, &e));
        CHECK(strcmp(text, wanted[what]) == 0 && length == strlen(text));
    }
    strcpy(text, "as it was");
    OK(vmcell_machine_address_text(&address, VMCELL_ADDRESS_DNS, text, 16, &length, &e));
    CHECK(length == 16 && strcmp(text, "as it was") == 0);
    FAILS(VMCELL_ERROR_BAD_VALUE, vmcell_machine_address_text(&address, 7, text, sizeof text, &length, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_machine_address_text(NULL, 0, text, sizeof text, &length, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_machine_address_text(&address, 0, NULL, 1, &length, &e));
    OK(vmcell_machine_address_parse(wanted[0], &read, &e));
    CHECK(memcmp(&read, &address, sizeof read) == 0);
    FAILS_SAYING(VMCELL_ERROR_BAD_VALUE, "no IPv6 address", vmcell_machine_address_parse("10.0.0.1", &read, &e));
    FAILS_SAYING(VMCELL_ERROR_BAD_VALUE, "a machine of a network has", vmcell_machine_address_parse(wanted[4], &read, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_machine_address_parse(wanted[0], NULL, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_machine_address_parse(NULL, &read, &e));
    OK(vmcell_machine_address_mac(&address, mac, &e));
    CHECK(memcmp(mac, "\x02\x00\x01\x00\x00\x02", sizeof mac) == 0);
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_machine_address_mac(&address, NULL, &e));
    vmcell_machine_address bad[] = {{1 << 24, 7, 1, 2}, {REALM, 7, 0, 2}, {REALM, 7, 65536, 2}, {REALM, 7, 1, 0}, {REALM, 7, 1, 1 << 24}};
    const char *says[] = {"0 to 0xffffff", "1 to 65535", "1 to 65535", "1 to 16777215", "1 to 16777215"};
    for (size_t i = 0; i < 5; i++)
        FAILS_SAYING(VMCELL_ERROR_BAD_VALUE, says[i], vmcell_machine_address_mac(&bad[i], mac, &e));
    OK(vmcell_machine_address_text(&bad[3], VMCELL_ADDRESS_HOST, text, sizeof text, &length, &e));
    FAILS(VMCELL_ERROR_BAD_VALUE, vmcell_machine_address_text(&bad[1], VMCELL_ADDRESS_HOST, text, sizeof text, &length, &e));
    OK(vmcell_machine_address_text(&bad[1], VMCELL_ADDRESS_NETWORK, text, sizeof text, &length, &e));
    vmcell_machine_address service = {REALM, 7, 0, UINT32_MAX};
    OK(vmcell_machine_address_text(&service, VMCELL_ADDRESS_SERVICE, text, sizeof text, &length, &e));
    CHECK(strcmp(text, "fdac:1705:0:7:0:1:ffff:ffff") == 0);
}

static vmcell_network *network_of(uint32_t number) {
    vmcell_network *network;
    OK(vmcell_network_new(REALM, number, NULL, &network, &e));
    return network;
}

static void test_settings(void) {
    vmcell_network *network;
    vmcell_network_settings settings = {.struct_size = sizeof settings, .mtu = 9000, .flows = 64, .ports = 1, .tcp_idle_ms = 1000, .idle_ms = 604800000, .held_bytes = 65536};
    vmcell_network_port *port, *other;
    OK(vmcell_network_new(REALM, 1, &settings, &network, &e));
    OK(vmcell_network_port_new(network, 1, 1, &port, &e));
    FAILS_SAYING(VMCELL_ERROR_INVALID_CONFIG, "1 ports, which is the limit", vmcell_network_port_new(network, 1, 2, &other, &e));
    CHECK(vmcell_network_free(network) == VMCELL_OK && vmcell_network_free(network) == VMCELL_ERROR_BAD_HANDLE);
    CHECK(vmcell_network_port_free(port) == VMCELL_OK && vmcell_network_free(NULL) == VMCELL_OK);
    FAILS(VMCELL_ERROR_BAD_VALUE, vmcell_network_new(1 << 24, 1, NULL, &network, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_network_new(REALM, 1, NULL, NULL, &e));
    vmcell_network_settings bad[] = {{.mtu = 1279}, {.flows = 65}, {.flows = 32768}, {.ports = 65537}, {.tcp_idle_ms = 999}, {.idle_ms = 604800001}, {.held_bytes = 65535}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        bad[i].struct_size = sizeof *bad;
        FAILS_SAYING(VMCELL_ERROR_INVALID_CONFIG, "allowed are", vmcell_network_new(REALM, 1, &bad[i], &network, &e));
    }
    bad[0].mtu = 65536;
    FAILS_SAYING(VMCELL_ERROR_BAD_VALUE, "1280 to 65535", vmcell_network_new(REALM, 1, &bad[0], &network, &e));
    bad[0].struct_size = 8;
    FAILS_SAYING(VMCELL_ERROR_BAD_VALUE, "struct_size", vmcell_network_new(REALM, 1, &bad[0], &network, &e));
}

static void test_rules(void) {
    vmcell_network *network = network_of(7);
    char json[1024];
    size_t length;
    uint64_t count = 99;
    OK(vmcell_network_set_rules(network, "# who may what\n\nallow tcp 80 to fdac:1705:0:7::/64\n  deny all\n", &e));
    OK(vmcell_network_rule_counts_json(network, json, sizeof json, &length, &e));
    CHECK(length == strlen(json) && strstr(json, "\"rule\":\"allow tcp 80-80 from ::/0 to fdac:1705:0:7::/64\""));
    CHECK(strstr(json, "\"flows\":0") && strstr(json, "\"packets\":0") && strstr(json, "\"bytes\":0") && strstr(json, "deny all"));
    FAILS_SAYING(VMCELL_ERROR_INVALID_CONFIG, "line 3 of the rules", vmcell_network_set_rules(network, "allow icmp\n\nallow tcp eighty", &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_network_set_rules(network, NULL, &e));
    FAILS(VMCELL_ERROR_NOT_UTF8, vmcell_network_set_rules(network, "\xff", &e));
    OK(vmcell_network_rule_counts_json(network, json, sizeof json, &length, &e));
    CHECK(strstr(json, "deny all")); /* those before have stayed */
    char *many = malloc(1025 * 10 + 1);
    CHECK(many != NULL);
    for (size_t i = 0; i < 1025; i++)
        strcpy(many + i * 10, "allow tcp\n");
    FAILS_SAYING(VMCELL_ERROR_INVALID_CONFIG, "1025 rules", vmcell_network_set_rules(network, many, &e));
    free(many);
    OK(vmcell_network_set_rules(network, "", &e));
    OK(vmcell_network_rule_counts_json(network, json, sizeof json, &length, &e));
    CHECK(strcmp(json, "[]") == 0);
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_network_rule_counts_json(network, json, sizeof json, NULL, &e));
    OK(vmcell_network_dropped(network, "policy", &count, &e));
    CHECK(count == 0);
    FAILS_SAYING(VMCELL_ERROR_BAD_VALUE, "allowed are malformed, not_ipv6", vmcell_network_dropped(network, "bad luck", &count, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_network_dropped(network, NULL, &count, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_network_dropped(network, "policy", NULL, &e));
    CHECK(vmcell_network_free(network) == VMCELL_OK);
    FAILS(VMCELL_ERROR_BAD_HANDLE, vmcell_network_set_rules(network, "", &e));
    FAILS(VMCELL_ERROR_BAD_HANDLE, vmcell_network_dropped(network, "policy", &count, &e));
    FAILS(VMCELL_ERROR_BAD_HANDLE, vmcell_network_rule_counts_json(network, json, sizeof json, &length, &e));
}

static void test_ports(const char *folder) {
    vmcell_network *network = network_of(7);
    vmcell_network_port *port, *other;
    vmcell_machine_address machines[2];
    vmcell_nic *nic;
    vmcell_vm *vm;
    char text[64];
    size_t length, count;
    OK(vmcell_network_port_new(network, 1, 2, &port, &e));
    OK(vmcell_network_port_address(port, text, sizeof text, &length, &e));
    CHECK(strcmp(text, "fdac:1705:0:7:0:1ff:fe00:2") == 0 && length == strlen(text));
    FAILS_SAYING(VMCELL_ERROR_INVALID_CONFIG, "in use", vmcell_network_port_new(network, 1, 2, &other, &e));
    FAILS(VMCELL_ERROR_BAD_VALUE, vmcell_network_port_new(network, 0, 2, &other, &e));
    FAILS(VMCELL_ERROR_BAD_VALUE, vmcell_network_port_new(network, 1, 0, &other, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_network_port_new(network, 1, 3, NULL, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_network_port_new(NULL, 1, 3, &other, &e));
    OK(vmcell_network_port_new_for_clone(network, 1, 3, 1, 2, &other, &e));
    OK(vmcell_network_port_address(other, text, sizeof text, &length, &e));
    CHECK(strcmp(text, "fdac:1705:0:7:0:1ff:fe00:3") == 0 && vmcell_network_port_free(other) == VMCELL_OK);
    FAILS_SAYING(VMCELL_ERROR_INVALID_CONFIG, "in use", vmcell_network_port_new_for_clone(network, 1, 2, 1, 3, &other, &e));
    FAILS(VMCELL_ERROR_BAD_VALUE, vmcell_network_port_new_for_clone(network, 1, 3, 1, 0, &other, &e));
    FAILS(VMCELL_ERROR_BAD_VALUE, vmcell_network_port_new_for_clone(network, 0, 3, 1, 2, &other, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_network_port_new_for_clone(network, 1, 3, 1, 2, NULL, &e));
    OK(vmcell_network_port_add_name(port, "web", &e));
    FAILS_SAYING(VMCELL_ERROR_INVALID_CONFIG, "already", vmcell_network_port_add_name(port, "WEB", &e));
    FAILS(VMCELL_ERROR_INVALID_CONFIG, vmcell_network_port_add_name(port, "-", &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_network_port_add_name(port, NULL, &e));
    for (int i = 2; i <= 8; i++) { /* it is as it was before what was refused */
        snprintf(text, sizeof text, "name-%d", i);
        OK(vmcell_network_port_add_name(port, text, &e));
    }
    FAILS_SAYING(VMCELL_ERROR_INVALID_CONFIG, "8 names", vmcell_network_port_add_name(port, "ninth", &e));
    OK(vmcell_network_machines(network, machines, 2, &count, &e));
    CHECK(count == 1 && machines[0].realm == REALM && machines[0].network == 7 && machines[0].host == 1 && machines[0].machine == 2);
    OK(vmcell_network_machines(network, NULL, 0, &count, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_network_machines(network, NULL, 1, &count, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_network_machines(network, machines, 2, NULL, &e));

    OK(vmcell_nic_new_network(port, &nic, &e));
    FAILS(VMCELL_ERROR_BAD_HANDLE, vmcell_nic_new_network(port, &nic, &e));
    FAILS(VMCELL_ERROR_BAD_HANDLE, vmcell_network_port_address(port, text, sizeof text, &length, &e));
    FAILS(VMCELL_ERROR_BAD_HANDLE, vmcell_network_port_add_name(port, "late", &e));
    CHECK(vmcell_network_port_free(port) == VMCELL_ERROR_BAD_HANDLE && vmcell_network_port_free(NULL) == VMCELL_OK);
    vmcell_config *config = config_of(in(folder, "echo"));
    OK(vmcell_config_add_nic(config, nic, &e));
    OK(vmcell_vm_new(config, &vm, &e));
    OK(vmcell_vm_start(vm, &e));
    FAILS_SAYING(VMCELL_ERROR_INVALID_CONFIG, "in use", vmcell_network_port_new(network, 1, 2, &port, &e));
    char metrics[1 << 16];
    OK(vmcell_vm_metrics_json(vm, metrics, sizeof metrics, &length, &e));
    CHECK(length < sizeof metrics && strstr(metrics, "network_dropped_policy"));
    stop(vm);
    CHECK(vmcell_vm_free(vm) == VMCELL_OK);
    /* The address is free with the VM. What is taken is taken, also by a call that fails. */
    OK(vmcell_network_port_new(network, 1, 2, &port, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_nic_new_network(port, NULL, &e));
    OK(vmcell_network_machines(network, machines, 2, &count, &e));
    CHECK(count == 0 && vmcell_network_port_free(port) == VMCELL_ERROR_BAD_HANDLE);
    CHECK(vmcell_network_free(network) == VMCELL_OK);
}

/* A script stands for passt: it says that it is ready, and stays. */
static void test_passt(const char *folder) {
    vmcell_nic *nic = NULL;
    char path[4096];
    snprintf(path, sizeof path, "%s", in(folder, "passt"));
    FILE *script = fopen(path, "w");
    CHECK(script && fputs("#!/bin/sh\necho $$\nexec sleep 1000\n", script) > 0 && fclose(script) == 0 && chmod(path, 0700) == 0);
    OK(vmcell_nic_new_passt(path, 0, NULL, &nic, &e));
    CHECK(vmcell_nic_free(nic) == VMCELL_OK);
    OK(vmcell_nic_new_passt(path, 1500, "tcp 8080:80\nudp 127.0.0.1/53:5353", &nic, &e));
    CHECK(vmcell_nic_free(nic) == VMCELL_OK);
    FAILS_SAYING(VMCELL_ERROR_INVALID_CONFIG, "1280 to 65520", vmcell_nic_new_passt(path, 1279, NULL, &nic, &e));
    FAILS_SAYING(VMCELL_ERROR_BAD_VALUE, "65536", vmcell_nic_new_passt(path, 65536, NULL, &nic, &e));
    FAILS_SAYING(VMCELL_ERROR_INVALID_CONFIG, "tcp 80", vmcell_nic_new_passt(path, 0, "tcp 80", &nic, &e));
    FAILS_SAYING(VMCELL_ERROR_NETWORK, "/nowhere", vmcell_nic_new_passt("/nowhere", 0, NULL, &nic, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_nic_new_passt(path, 0, NULL, NULL, &e));
}

struct asked {
    pthread_mutex_t lock;
    int calls, released;
    char key[VMCELL_WIREGUARD_KEY_BYTES];
    vmcell_unknown_peer *kept;
};

static void release(void *user) {
    struct asked *asked = user;
    CHECK(pthread_mutex_lock(&asked->lock) == 0);
    asked->released++;
    CHECK(pthread_mutex_unlock(&asked->lock) == 0);
}

static void await_release(struct asked *asked, int wanted) {
    int released = -1;
    for (int tries = 0; tries < 3000 && released < wanted; tries++) {
        usleep(1000);
        CHECK(pthread_mutex_lock(&asked->lock) == 0);
        released = asked->released;
        CHECK(pthread_mutex_unlock(&asked->lock) == 0);
    }
    CHECK(released == wanted);
}

static int32_t no_member(void *user, vmcell_service *service, uint32_t host, uint32_t machine) {
    (void)user, (void)service, (void)host, (void)machine;
    return 1;
}

static void test_services(const char *folder) {
    vmcell_network *network = network_of(7);
    vmcell_service *service, *other;
    vmcell_network_port *port;
    vmcell_nic *nic;
    vmcell_vm *vm;
    struct asked asked = {.lock = PTHREAD_MUTEX_INITIALIZER};
    char text[4096];
    size_t length;
    uint64_t idle = UINT64_MAX;
    int32_t was = 7;
    vmcell_service_settings settings = {.struct_size = sizeof settings, .name = "web", .soft_limit = 20, .hard_limit = 25, .held_packets = 4096, .held_bytes = 1 << 24, .hold_time_ms = 100, .call_interval_ms = 10, .on_demand = no_member, .user = &asked, .release = release};
    OK(vmcell_service_new(network, 0x50, &settings, &service, &e));
    FAILS_SAYING(VMCELL_ERROR_INVALID_CONFIG, "in use", vmcell_service_new(network, 0x50, &settings, &other, &e));
    FAILS_SAYING(VMCELL_ERROR_INVALID_CONFIG, "the name", vmcell_service_new(network, 0x51, &settings, &other, &e));
    settings.name = "-";
    FAILS(VMCELL_ERROR_INVALID_CONFIG, vmcell_service_new(network, 0x51, &settings, &other, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_service_new(network, 0x51, &settings, NULL, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_service_new(NULL, 0x51, &settings, &other, &e));
    await_release(&asked, 5);
    vmcell_service_settings bad[] = {{.soft_limit = 65537}, {.soft_limit = 2, .hard_limit = 1}, {.held_packets = 4097}, {.held_bytes = 2047}, {.hold_time_ms = 99}, {.call_interval_ms = 9}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        bad[i].struct_size = sizeof *bad;
        FAILS_SAYING(VMCELL_ERROR_INVALID_CONFIG, "allowed are", vmcell_service_new(network, 0x51, &bad[i], &other, &e));
    }
    bad[0].struct_size = 8;
    FAILS_SAYING(VMCELL_ERROR_BAD_VALUE, "struct_size", vmcell_service_new(network, 0x51, &bad[0], &other, &e));
    OK(vmcell_service_new(network, UINT32_MAX, NULL, &other, &e));
    OK(vmcell_service_address(service, text, sizeof text, &length, &e));
    CHECK(strcmp(text, "fdac:1705:0:7:0:1:0:50") == 0 && length == strlen(text));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_service_address(service, text, sizeof text, NULL, &e));

    FAILS_SAYING(VMCELL_ERROR_INVALID_CONFIG, "no port", vmcell_service_add(service, 1, 2, &e));
    FAILS_SAYING(VMCELL_ERROR_INVALID_CONFIG, "no port", vmcell_network_idle(network, 1, 2, &idle, &e));
    OK(vmcell_network_port_new(network, 1, 2, &port, &e));
    OK(vmcell_nic_new_network(port, &nic, &e));
    vmcell_config *config = config_of(in(folder, "echo"));
    OK(vmcell_config_add_nic(config, nic, &e));
    OK(vmcell_vm_new(config, &vm, &e));
    OK(vmcell_vm_start(vm, &e));
    OK(vmcell_network_idle(network, 1, 2, &idle, &e));
    CHECK(idle < 600000);
    FAILS(VMCELL_ERROR_BAD_VALUE, vmcell_network_idle(network, 0, 2, &idle, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_network_idle(network, 1, 2, NULL, &e));
    OK(vmcell_service_add(service, 1, 2, &e));
    FAILS_SAYING(VMCELL_ERROR_INVALID_CONFIG, "member", vmcell_service_add(service, 1, 2, &e));
    FAILS(VMCELL_ERROR_BAD_VALUE, vmcell_service_add(service, 1, 0, &e));
    OK(vmcell_service_drain(service, 1, 2, &was, &e));
    CHECK(was == 1);
    OK(vmcell_service_members_json(service, text, sizeof text, &length, &e));
    CHECK(length == strlen(text) && strstr(text, "\"host\":1") && strstr(text, "\"machine\":2") && strstr(text, "\"draining\":true"));
    CHECK(strstr(text, "\"runs\":false") && strstr(text, "\"flows\":0") && strstr(text, "\"flows_total\":0")); /* its guest has no driver */
    OK(vmcell_service_remove(service, 1, 2, &was, &e));
    CHECK(was == 1);
    OK(vmcell_service_remove(service, 1, 2, NULL, &e));
    OK(vmcell_service_drain(service, 1, 2, &was, &e));
    CHECK(was == 0);
    FAILS(VMCELL_ERROR_BAD_VALUE, vmcell_service_drain(service, 65536, 2, &was, &e));
    FAILS(VMCELL_ERROR_BAD_VALUE, vmcell_service_remove(service, 65536, 2, &was, &e));
    OK(vmcell_service_add(service, 1, 2, &e));
    stop(vm);
    CHECK(vmcell_vm_free(vm) == VMCELL_OK);
    OK(vmcell_service_members_json(service, text, sizeof text, &length, &e));
    CHECK(strcmp(text, "[]") == 0);
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_service_members_json(service, NULL, 1, &length, &e));
    OK(vmcell_service_metrics_json(service, text, sizeof text, &length, &e));
    CHECK(length == strlen(text) && strstr(text, "\"service_waiting\":0") && strstr(text, "\"service_calls\":0"));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_service_metrics_json(service, NULL, 1, &length, &e));
    CHECK(vmcell_network_free(network) == VMCELL_OK);
    CHECK(vmcell_service_free(service) == VMCELL_OK && vmcell_service_free(service) == VMCELL_ERROR_BAD_HANDLE);
    CHECK(vmcell_service_free(other) == VMCELL_OK && vmcell_service_free(NULL) == VMCELL_OK);
    FAILS(VMCELL_ERROR_BAD_HANDLE, vmcell_service_add(service, 1, 2, &e));
    await_release(&asked, 6);
}

static void test_keys(void) {
    char one[VMCELL_WIREGUARD_KEY_BYTES], other[VMCELL_WIREGUARD_KEY_BYTES], public_key[VMCELL_WIREGUARD_KEY_BYTES];
    size_t length;
    OK(vmcell_wireguard_private_key(one, sizeof one, &length, &e));
    CHECK(length == 44 && strlen(one) == 44);
    OK(vmcell_wireguard_preshared_key(other, sizeof other, &length, &e));
    CHECK(length == 44 && strcmp(one, other) != 0);
    strcpy(other, "as it was");
    OK(vmcell_wireguard_private_key(other, 44, &length, &e));
    CHECK(length == 44 && strcmp(other, "as it was") == 0);
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_wireguard_private_key(NULL, 45, &length, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_wireguard_preshared_key(other, 45, NULL, &e));
    /* RFC 7748, section 6.1. */
    OK(vmcell_wireguard_public_key("dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=", public_key, sizeof public_key, &length, &e));
    CHECK(strcmp(public_key, "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=") == 0 && length == 44);
    one[43] = '!';
    FAILS_SAYING(VMCELL_ERROR_NETWORK, "private_key: 44 characters", vmcell_wireguard_public_key(one, public_key, sizeof public_key, &length, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_wireguard_public_key(NULL, public_key, sizeof public_key, &length, &e));
}

/* A configuration with a new key, and more lines. */
static void config_text(char *text, size_t size, const char *more) {
    char key[VMCELL_WIREGUARD_KEY_BYTES];
    size_t length;
    OK(vmcell_wireguard_private_key(key, sizeof key, &length, &e));
    CHECK(snprintf(text, size, "[Interface]\nPrivateKey = %s\n%s", key, more) < (int)size);
}

/* Refuses the first one, has another thread accept the second. */
static void ask(void *user, vmcell_unknown_peer *peer, const char *public_key, const char *source) {
    struct asked *asked = user;
    CHECK(strncmp(source, "127.0.0.1:", 10) == 0 || strncmp(source, "[::ffff:127.0.0.1]:", 19) == 0);
    CHECK(pthread_mutex_lock(&asked->lock) == 0);
    snprintf(asked->key, sizeof asked->key, "%s", public_key);
    asked->calls++;
    CHECK(asked->kept == NULL);
    asked->kept = peer;
    CHECK(pthread_mutex_unlock(&asked->lock) == 0);
}

static vmcell_unknown_peer *await_question(struct asked *asked) {
    vmcell_unknown_peer *peer = NULL;
    for (int tries = 0; tries < 3000 && peer == NULL; tries++) {
        usleep(10000);
        CHECK(pthread_mutex_lock(&asked->lock) == 0);
        peer = asked->kept;
        asked->kept = NULL;
        CHECK(pthread_mutex_unlock(&asked->lock) == 0);
    }
    CHECK(peer != NULL);
    return peer;
}

static void test_a_peer_just_in_time(void) {
    vmcell_network *near = network_of(7), *far = network_of(7);
    vmcell_tunnel *server, *client;
    vmcell_io_thread *thread;
    struct asked asked = {.lock = PTHREAD_MUTEX_INITIALIZER};
    char text[512], address[64], key[VMCELL_WIREGUARD_KEY_BYTES], other[VMCELL_WIREGUARD_KEY_BYTES], json[4096];
    size_t length;
    int32_t was_there;
    OK(vmcell_io_thread_new("tunnels", &thread, &e));
    vmcell_tunnel_settings settings = {.struct_size = sizeof settings, .listen_address = "127.0.0.1", .io_thread = thread, .packets = 16, .peers = 2, .on_unknown_peer = ask, .user = &asked, .release = release};
    config_text(text, sizeof text, "MTU = 1400\n");
    OK(vmcell_tunnel_new(near, text, &settings, &server, &e));
    CHECK(vmcell_io_thread_free(thread) == VMCELL_OK);
    OK(vmcell_tunnel_local_address(server, address, sizeof address, &length, &e));
    CHECK(strncmp(address, "127.0.0.1:", 10) == 0 && length == strlen(address));
    OK(vmcell_tunnel_public_key(server, key, sizeof key, &length, &e));
    CHECK(length == 44);

    config_text(text, sizeof text, "");
    OK(vmcell_tunnel_new(far, text, NULL, &client, &e));
    OK(vmcell_tunnel_public_key(client, other, sizeof other, &length, &e));
    /* It begins by itself, as it has something to say each second. */
    OK(vmcell_tunnel_add_peer(client, key, NULL, "fdac:1705:0:7:0:100::/88", address, 1, &e));
    CHECK(vmcell_unknown_peer_free(await_question(&asked)) == VMCELL_OK);
    CHECK(vmcell_unknown_peer_free(NULL) == VMCELL_OK);
    OK(vmcell_tunnel_remove_peer(client, key, &was_there, &e));
    CHECK(was_there == 1);
    OK(vmcell_tunnel_remove_peer(client, key, &was_there, &e));
    CHECK(was_there == 0);
    CHECK(vmcell_tunnel_free(client) == VMCELL_OK && vmcell_tunnel_free(client) == VMCELL_ERROR_BAD_HANDLE);

    /* Another one, since the first was refused for a while. */
    config_text(text, sizeof text, "");
    OK(vmcell_tunnel_new(far, text, NULL, &client, &e));
    OK(vmcell_tunnel_public_key(client, other, sizeof other, &length, &e));
    OK(vmcell_tunnel_add_peer(client, key, NULL, "fdac:1705:0:7:0:100::/88, fd00::1", address, 1, &e));
    vmcell_unknown_peer *peer = await_question(&asked);
    CHECK(strcmp(asked.key, other) == 0);
    OK(vmcell_unknown_peer_accept(peer, NULL, "fdac:1705:0:7:0:200::/88", NULL, 0, &e));
    FAILS(VMCELL_ERROR_BAD_HANDLE, vmcell_unknown_peer_accept(peer, NULL, "", NULL, 0, &e));
    CHECK(vmcell_unknown_peer_free(peer) == VMCELL_ERROR_BAD_HANDLE);
    int shaken = 0;
    for (int tries = 0; tries < 3000 && !shaken; tries++) {
        usleep(10000);
        OK(vmcell_tunnel_peers_json(server, json, sizeof json, &length, &e));
        shaken = strstr(json, "\"last_handshake_ms\":") != NULL && strstr(json, "\"last_handshake_ms\":null") == NULL;
    }
    CHECK(shaken && strstr(json, other) && strstr(json, "\"endpoint\":\"127.0.0.1:") && strstr(json, "\"received_bytes\":"));
    OK(vmcell_tunnel_metrics_json(client, json, sizeof json, &length, &e));
    CHECK(length == strlen(json) && strstr(json, "\"wireguard_handshakes\":1"));
    CHECK(vmcell_tunnel_free(server) == VMCELL_OK && vmcell_tunnel_free(client) == VMCELL_OK && vmcell_tunnel_free(NULL) == VMCELL_OK);
    FAILS(VMCELL_ERROR_BAD_HANDLE, vmcell_tunnel_metrics_json(client, json, sizeof json, &length, &e));
    CHECK(asked.calls == 2);
    await_release(&asked, 1);
    CHECK(vmcell_network_free(near) == VMCELL_OK && vmcell_network_free(far) == VMCELL_OK);
}

static void test_bad_tunnels(void) {
    vmcell_network *network = network_of(7);
    vmcell_tunnel *tunnel, *other;
    struct asked asked = {.lock = PTHREAD_MUTEX_INITIALIZER};
    char text[512], key[VMCELL_WIREGUARD_KEY_BYTES], peer_key[VMCELL_WIREGUARD_KEY_BYTES], json[4096];
    size_t length;
    vmcell_tunnel_settings settings = {.struct_size = sizeof settings, .user = &asked, .release = release};
    FAILS_SAYING(VMCELL_ERROR_NETWORK, "line 2", vmcell_tunnel_new(network, "[Interface]\nPrivateKey = x\n", &settings, &tunnel, &e));
    config_text(text, sizeof text, "PostUp = reboot\n");
    FAILS_SAYING(VMCELL_ERROR_NETWORK, "line 3", vmcell_tunnel_new(network, text, &settings, &tunnel, &e));
    config_text(text, sizeof text, "MTU = 576\n");
    FAILS_SAYING(VMCELL_ERROR_INVALID_CONFIG, "1280", vmcell_tunnel_new(network, text, &settings, &tunnel, &e));
    config_text(text, sizeof text, "");
    settings.listen_address = "localhost";
    FAILS_SAYING(VMCELL_ERROR_BAD_VALUE, "no IP address", vmcell_tunnel_new(network, text, &settings, &tunnel, &e));
    settings.listen_address = "192.0.2.1"; /* of nobody (RFC 5737) */
    FAILS_SAYING(VMCELL_ERROR_NETWORK, "cannot bind", vmcell_tunnel_new(network, text, &settings, &tunnel, &e));
    settings.listen_address = NULL;
    settings.packets = 65537;
    FAILS(VMCELL_ERROR_INVALID_CONFIG, vmcell_tunnel_new(network, text, &settings, &tunnel, &e));
    settings.packets = 0;
    settings.peers = 65537;
    FAILS(VMCELL_ERROR_NETWORK, vmcell_tunnel_new(network, text, &settings, &tunnel, &e));
    settings.peers = 0;
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_tunnel_new(network, text, &settings, NULL, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_tunnel_new(network, NULL, &settings, &tunnel, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_tunnel_new(NULL, text, &settings, &tunnel, &e));
    CHECK(asked.released == 10); /* by each call, although it failed */
    settings.struct_size = 8;
    FAILS(VMCELL_ERROR_BAD_VALUE, vmcell_tunnel_new(network, text, &settings, &tunnel, &e));
    settings.struct_size = sizeof settings;
    settings.io_thread = (vmcell_io_thread *)&text;
    FAILS(VMCELL_ERROR_BAD_HANDLE, vmcell_tunnel_new(network, text, &settings, &tunnel, &e));
    CHECK(asked.released == 11);

    OK(vmcell_tunnel_new(network, text, NULL, &tunnel, &e));
    OK(vmcell_tunnel_public_key(tunnel, key, sizeof key, &length, &e));
    OK(vmcell_wireguard_private_key(peer_key, sizeof peer_key, &length, &e));
    OK(vmcell_wireguard_public_key(peer_key, peer_key, sizeof peer_key, &length, &e));
    FAILS_SAYING(VMCELL_ERROR_NETWORK, "public_key: 1 characters", vmcell_tunnel_add_peer(tunnel, "x", NULL, "", NULL, 0, &e));
    FAILS_SAYING(VMCELL_ERROR_NETWORK, "of the interface itself", vmcell_tunnel_add_peer(tunnel, key, NULL, "", NULL, 0, &e));
    FAILS_SAYING(VMCELL_ERROR_NETWORK, "preshared_key", vmcell_tunnel_add_peer(tunnel, peer_key, "x", "", NULL, 0, &e));
    FAILS_SAYING(VMCELL_ERROR_NETWORK, "allowed_ips", vmcell_tunnel_add_peer(tunnel, peer_key, NULL, "fd00::/16, x", NULL, 0, &e));
    FAILS_SAYING(VMCELL_ERROR_BAD_VALUE, "no address with a port", vmcell_tunnel_add_peer(tunnel, peer_key, NULL, "", "example.com:1", 0, &e));
    FAILS_SAYING(VMCELL_ERROR_BAD_VALUE, "0 to 65535", vmcell_tunnel_add_peer(tunnel, peer_key, NULL, "", NULL, 65536, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_tunnel_add_peer(tunnel, peer_key, NULL, NULL, NULL, 0, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_tunnel_add_peer(tunnel, NULL, NULL, "", NULL, 0, &e));
    OK(vmcell_tunnel_add_peer(tunnel, peer_key, peer_key, "fd00::/16", "[::1]:9", 25, &e));
    FAILS(VMCELL_ERROR_NETWORK, vmcell_tunnel_add_peer(tunnel, peer_key, NULL, "", NULL, 0, &e));
    OK(vmcell_tunnel_peers_json(tunnel, json, sizeof json, &length, &e));
    CHECK(strstr(json, "\"last_handshake_ms\":null") && strstr(json, "\"endpoint\":\"[::1]:9\""));
    FAILS(VMCELL_ERROR_NETWORK, vmcell_tunnel_remove_peer(tunnel, "x", NULL, &e));
    config_text(text, sizeof text, "");
    OK(vmcell_tunnel_new(network, text, NULL, &other, &e));
    FAILS_SAYING(VMCELL_ERROR_INVALID_CONFIG, "fd00", vmcell_tunnel_add_peer(other, key, NULL, "fd00::1", NULL, 0, &e));
    OK(vmcell_tunnel_remove_peer(tunnel, peer_key, NULL, &e));
    OK(vmcell_tunnel_add_peer(other, key, NULL, "fd00::1", NULL, 0, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_tunnel_local_address(tunnel, NULL, 1, &length, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_tunnel_public_key(tunnel, key, sizeof key, NULL, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_tunnel_peers_json(tunnel, NULL, 1, &length, &e));
    CHECK(vmcell_tunnel_free(tunnel) == VMCELL_OK && vmcell_tunnel_free(other) == VMCELL_OK);
    FAILS(VMCELL_ERROR_BAD_HANDLE, vmcell_tunnel_add_peer(tunnel, peer_key, NULL, "", NULL, 0, &e));
    CHECK(vmcell_network_free(network) == VMCELL_OK);
}

void test_networks(const char *folder) {
    CHECK(vmcell_has_feature("network") == 1 && vmcell_has_feature("wireguard") == 1);
    test_addresses();
    test_settings();
    test_rules();
    test_ports(folder);
    test_passt(folder);
    test_services(folder);
    test_keys();
    test_a_peer_just_in_time();
    test_bad_tunnels();
}
