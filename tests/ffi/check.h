/* What the parts of the test program share. Each check that fails says where, and ends the program. */
#ifndef CHECK_H
#define CHECK_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <vmcell.h>

#define CHECK(condition) \
    do { \
        if (!(condition)) \
            check_failed(__FILE__, __LINE__, #condition); \
    } while (0)

/* The error of the call that is being checked: pass `&e` as its last argument. Never read by a call. */
extern _Thread_local vmcell_error *e;

/* The call works, and leaves the place of the error alone. */
#define OK(call) check_ok((e = NULL, call), __FILE__, __LINE__, #call)
/* The call fails with this number, and makes an error object with it. */
#define FAILS(number, call) check_fails(number, (e = NULL, call), __FILE__, __LINE__, #call)
/* The same, and the message holds a text. */
#define FAILS_SAYING(number, text, call) check_saying(number, text, (e = NULL, call), __FILE__, __LINE__, #call)

_Noreturn void check_failed(const char *file, int line, const char *condition);
void check_ok(int32_t number, const char *file, int line, const char *call);
void check_fails(int32_t wanted, int32_t number, const char *file, int line, const char *call);
void check_saying(int32_t wanted, const char *text, int32_t number, const char *file, int line, const char *call);

/* A path in a folder, valid until the next call but three. */
const char *in(const char *folder, const char *name);

/* A configuration with 16 MiB that starts a guest. */
vmcell_config *config_of(const char *guest);

/* Stops a VM, however slow this machine is: valgrind and others may need more than the 100 ms of one call. */
void stop(vmcell_vm *vm);

/* The parts: `folder` holds the guests, and may be written to. */
void test_errors(void);
void test_host(void);
void test_objects(const char *folder);
void test_config(void);
void test_vm(const char *folder);
void test_console(const char *folder);
void test_threads(const char *folder);
void test_backends(const char *folder);
void test_snapshots(const char *folder);
void test_volumes(const char *folder);
void test_secrets(const char *folder);
void test_networks(const char *folder);

#endif
