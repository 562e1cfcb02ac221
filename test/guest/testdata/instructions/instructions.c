/*
 * A plugin of QEMU that counts the instructions of the guest in a file, which
 * other processes can read at any time: 8 bytes in the host's order. TCG
 * executes the same instructions however busy the host is.
 *
 * QEMU's documentation describes the functions in "QEMU TCG Plugins". They are
 * declared here because Debian has no package with their header.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct qemu_plugin_tb; /* a block of translated instructions */

void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id, void (*translated)(uint64_t, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *block, void (*executed)(unsigned, void *), int flags, void *data);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *block);

/* The version of the interface: 1, or 2 since QEMU 9. Both have these functions. */
int qemu_plugin_version = VERSION;

static volatile uint64_t *count;

static void executed(unsigned processor, void *instructions)
{
	(void)processor;
	*count += (uintptr_t)instructions; /* the machine has one processor */
}

static void translated(uint64_t id, struct qemu_plugin_tb *block)
{
	(void)id;
	qemu_plugin_register_vcpu_tb_exec_cb(block, executed, 0, (void *)(uintptr_t)qemu_plugin_tb_n_insns(block));
}

int qemu_plugin_install(uint64_t id, const void *info, int argc, char **argv)
{
	(void)info;
	if (argc != 1 || strncmp(argv[0], "count=", 6) != 0)
		return 1;
	int file = open(argv[0] + 6, O_RDWR | O_CREAT, 0600);
	if (file < 0 || ftruncate(file, sizeof *count) != 0)
		return 1;
	void *memory = mmap(NULL, sizeof *count, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	if (memory == MAP_FAILED)
		return 1;
	close(file);
	count = memory;
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
	return 0;
}
