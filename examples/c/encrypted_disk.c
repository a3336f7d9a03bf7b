/*
 * A guest with a disk that lies encrypted in a file: how a backend in C is written. The guest sees plain bytes as /dev/vdb, and
 * the file holds none of them. Its root, /dev/vda, is an ordinary disk.
 *
 *     encrypted_disk KERNEL INITRD CMDLINE ROOT IMAGE KEY
 *
 * The cipher is a TOY: it shows where a cipher belongs, and protects nothing.
 *
 * The operations of the disk go to two threads, which read and write the file, and complete them in any order. Data is
 * encrypted and decrypted in buffers of those threads: what lies in the guest's memory the guest sees, and may change.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <vmcell.h>

enum { THREADS = 2, CHUNK = 65536 };

/* What the functions of the backend share. */
struct disk {
    int file;
    uint64_t key;
    vmcell_disk_port *port;
    pthread_t threads[THREADS];
    pthread_mutex_t lock;
    pthread_cond_t work;
    /* Operations that no thread has begun with, in a ring that has room for all that can be in flight. */
    const vmcell_disk_operation *waiting[VMCELL_DISK_MAX_OPERATIONS];
    unsigned first, count;
    int ends;
};

/* Encrypts or decrypts the bytes that lie at `at` on the disk: the same, with this cipher. */
static void cipher(uint64_t key, uint64_t at, uint8_t *bytes, size_t len) {
    for (size_t i = 0; i < len; i++) {
        uint64_t stream = key + (at + i) / 8 * 0x9e3779b97f4a7c15;
        stream = (stream ^ stream >> 30) * 0xbf58476d1ce4e5b9;
        stream = (stream ^ stream >> 27) * 0x94d049bb133111eb;
        bytes[i] ^= (uint8_t)((stream ^ stream >> 31) >> (at + i) % 8 * 8);
    }
}

/* Moves all of `len` bytes between the file and a buffer; gives 0 or an errno. */
static int transfer(int file, int writes, uint8_t *buffer, size_t len, uint64_t at) {
    while (len > 0) {
        ssize_t moved = writes ? pwrite(file, buffer, len, (off_t)at) : pread(file, buffer, len, (off_t)at);
        if (moved < 0 && errno == EINTR)
            continue;
        if (moved <= 0)
            return moved < 0 ? errno : EIO; /* the file has become shorter */
        buffer += moved;
        len -= (size_t)moved;
        at += (uint64_t)moved;
    }
    return 0;
}

/* Carries out a read, or a write, piece by piece; `data` is NULL for zeroes. */
static int carry_out_range(const struct disk *disk, int32_t kind, uint8_t *data, uint64_t len, uint64_t at) {
    uint8_t buffer[CHUNK];
    int status = 0;
    for (uint64_t done = 0; status == 0 && done < len; done += CHUNK) {
        size_t piece = len - done < CHUNK ? (size_t)(len - done) : CHUNK;
        if (kind == VMCELL_DISK_READ)
            status = transfer(disk->file, 0, buffer, piece, at + done);
        else if (data == NULL)
            memset(buffer, 0, piece);
        else
            memcpy(buffer, data + done, piece);
        cipher(disk->key, at + done, buffer, piece);
        if (kind == VMCELL_DISK_WRITE)
            status = transfer(disk->file, 1, buffer, piece, at + done);
        else if (status == 0)
            memcpy(data + done, buffer, piece);
    }
    return status;
}

static int carry_out(const struct disk *disk, const vmcell_disk_operation *operation) {
    uint64_t at = operation->at;
    int status = 0;
    switch (operation->kind) {
    case VMCELL_DISK_READ:
    case VMCELL_DISK_WRITE:
        for (size_t i = 0; status == 0 && i < operation->part_count; i++) {
            const struct iovec *part = &operation->parts[i];
            status = carry_out_range(disk, operation->kind, part->iov_base, part->iov_len, at);
            at += part->iov_len;
        }
        break;
    case VMCELL_DISK_WRITE_ZEROES: status = carry_out_range(disk, VMCELL_DISK_WRITE, NULL, operation->len, at); break;
    case VMCELL_DISK_FLUSH: return fdatasync(disk->file) == 0 ? 0 : errno;
    case VMCELL_DISK_DISCARD: return 0; /* a hint */
    default: return EOPNOTSUPP;
    }
    if (status == 0 && operation->flags & VMCELL_DISK_STABLE)
        status = fdatasync(disk->file) == 0 ? 0 : errno;
    return status;
}

static void *work(void *user) {
    struct disk *disk = user;
    for (;;) {
        pthread_mutex_lock(&disk->lock);
        while (disk->count == 0 && !disk->ends)
            pthread_cond_wait(&disk->work, &disk->lock);
        if (disk->ends) {
            pthread_mutex_unlock(&disk->lock);
            return NULL;
        }
        const vmcell_disk_operation *operation = disk->waiting[disk->first];
        disk->first = (disk->first + 1) % VMCELL_DISK_MAX_OPERATIONS;
        disk->count--;
        pthread_mutex_unlock(&disk->lock);
        vmcell_disk_port_complete(disk->port, operation->tag, carry_out(disk, operation), NULL);
    }
}

/* Called by the disk's I/O thread: leaves the operation to the threads. It stays where it is until it is completed. */
static int32_t submit(void *user, vmcell_disk_port *port, const vmcell_disk_operation *operation) {
    struct disk *disk = user;
    (void)port; /* the threads have it already */
    pthread_mutex_lock(&disk->lock);
    disk->waiting[(disk->first + disk->count++) % VMCELL_DISK_MAX_OPERATIONS] = operation;
    pthread_cond_signal(&disk->work);
    pthread_mutex_unlock(&disk->lock);
    return 0;
}

/* The disk is gone. What is still waiting is given up: the guest is gone, too. */
static void destroy(void *user) {
    struct disk *disk = user;
    pthread_mutex_lock(&disk->lock);
    disk->ends = 1;
    pthread_cond_broadcast(&disk->work);
    pthread_mutex_unlock(&disk->lock);
    for (int i = 0; i < THREADS; i++)
        pthread_join(disk->threads[i], NULL);
    close(disk->file);
    free(disk);
}

static void check(int32_t number, vmcell_error **error) {
    if (number != VMCELL_OK)
        errx(1, "%s", vmcell_error_chain(*error));
}

static vmcell_disk *encrypted_disk(const char *path, const char *key) {
    struct disk *disk = calloc(1, sizeof *disk);
    struct stat status;
    vmcell_disk *result;
    vmcell_error *error = NULL;
    if (disk == NULL || (disk->file = open(path, O_RDWR | O_CLOEXEC)) < 0 || fstat(disk->file, &status) != 0)
        err(1, "%s", path);
    disk->key = strtoull(key, NULL, 0);
    pthread_mutex_init(&disk->lock, NULL);
    pthread_cond_init(&disk->work, NULL);
    vmcell_disk_info info = {.struct_size = sizeof info, .capacity = (uint64_t)status.st_size / 512 * 512};
    vmcell_disk_backend table = {.struct_size = sizeof table, .user = disk, .submit = submit, .destroy = destroy};
    for (int i = 0; i < THREADS; i++)
        if (pthread_create(&disk->threads[i], NULL, work, disk) != 0)
            errx(1, "the host gives no thread");
    check(vmcell_disk_new_backend(&table, &info, &result, &disk->port, &error), &error);
    check(vmcell_disk_set_never_blocks(result, &error), &error); /* `submit` only takes a lock that is held for a moment */
    return result;
}

int main(int argc, char **argv) {
    vmcell_config *config;
    vmcell_console *console;
    vmcell_disk *root;
    vmcell_vm *vm;
    vmcell_error *e = NULL;
    int32_t ended;
    if (argc != 7)
        errx(2, "usage: encrypted_disk KERNEL INITRD CMDLINE ROOT IMAGE KEY");
    check(vmcell_config_new(&config, &e), &e);
    check(vmcell_config_set_memory(config, 256, VMCELL_MEMORY_ANONYMOUS, VMCELL_PAGES_DEFAULT, &e), &e);
    check(vmcell_config_set_kernel(config, argv[1], &e), &e);
    check(vmcell_config_set_initrd(config, argv[2], &e), &e);
    check(vmcell_config_set_cmdline(config, argv[3], &e), &e);
    check(vmcell_disk_new(argv[4], &root, &e), &e);
    check(vmcell_disk_set_read_only(root, 1, &e), &e);
    check(vmcell_config_add_disk(config, root, &e), &e);
    check(vmcell_config_add_disk(config, encrypted_disk(argv[5], argv[6]), &e), &e);
    check(vmcell_console_new_stdio(&console, &e), &e);
    check(vmcell_config_set_console(config, console, &e), &e);
    check(vmcell_vm_new(config, &vm, &e), &e);
    check(vmcell_vm_start(vm, &e), &e);
    check(vmcell_vm_wait(vm, VMCELL_WAIT_FOREVER, &ended, &e), &e);
    check(vmcell_vm_free(vm), &e);
    return ended == VMCELL_EXIT_SHUTDOWN || ended == VMCELL_EXIT_RESET ? EXIT_SUCCESS : EXIT_FAILURE;
}
