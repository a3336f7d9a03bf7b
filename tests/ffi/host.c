#include "check.h"

/* The tests need a host on which VMs start. */
void test_host(void) {
    char text[16384] = "untouched";
    size_t length = 0, again = 0;
    int32_t level = -1;
    OK(vmcell_host_check(&level, NULL, 0, &length, &e));
    CHECK(level >= VMCELL_FINDING_FINE && level < VMCELL_FINDING_PROBLEM);
    CHECK(length > 100 && length < sizeof text);
    OK(vmcell_host_check(&level, text, 10, &again, &e));
    CHECK(strcmp(text, "untouched") == 0);
    OK(vmcell_host_check(&level, text, sizeof text, &length, &e));
    CHECK(strlen(text) == length);
    CHECK(strncmp(text, "{\"findings\":[{\"name\":\"kvm\",\"level\":\"fine\",", 41) == 0);
    CHECK(strstr(text, "\"name\":\"open-files\"") != NULL);
    level = -1;
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_host_check(NULL, text, sizeof text, &length, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_host_check(&level, NULL, 1, &length, &e));
    FAILS(VMCELL_ERROR_NULL_ARGUMENT, vmcell_host_check(&level, text, sizeof text, NULL, &e));
    CHECK(level == -1);
}
