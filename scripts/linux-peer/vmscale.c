// SPDX-License-Identifier: GPL-2.0
/*
 * vmscale: one call at a time, the CPUs in turn (own code, for measuring only). Each CPU works on areas of its own; the markers tell an
 * emulator plugin which instructions belong to a call. "vmscale=1" on the command line.
 */
#include <linux/kernel.h>
#include <linux/init.h>
#include <linux/mm.h>
#include <linux/io.h>
#include <linux/slab.h>
#include <linux/sched.h>
#include <linux/kthread.h>
#include <linux/vmalloc.h>
#include <linux/delay.h>
#include <linux/moduleparam.h>
#include <linux/cpumask.h>
#include <linux/completion.h>

static int on;
core_param(vmscale, on, int, 0444);
#define BEGIN_MAP   asm volatile("hint #80" ::: "memory")
#define BEGIN_UNMAP asm volatile("hint #84" ::: "memory")
#define END         asm volatile("hint #81" ::: "memory")
#define NEXT        asm volatile("hint #82" ::: "memory")

enum op { VMALLOC, VMAP, MAPRAM, IOREMAP, REMOTE };
static const struct kase { const char *name; enum op op; unsigned int pages; int cpus; } cases[] = {
	{ "vmalloc 1", VMALLOC, 1, 1 }, { "vmalloc 1", VMALLOC, 1, 0 },
	{ "vmalloc 16", VMALLOC, 16, 1 }, { "vmalloc 16", VMALLOC, 16, 0 },
	{ "vmalloc 256", VMALLOC, 256, 1 }, { "vmalloc 256", VMALLOC, 256, 0 },
	{ "vmap 16", VMAP, 16, 1 }, { "vmap 16", VMAP, 16, 0 },
	{ "vm_map_ram 16", MAPRAM, 16, 1 }, { "vm_map_ram 16", MAPRAM, 16, 0 },
	{ "ioremap 16", IOREMAP, 16, 1 }, { "ioremap 16", IOREMAP, 16, 0 },
	{ "vmalloc 1, freed by another", REMOTE, 1, 0 },
};
#define WARM 64
#define ROUNDS 256

static struct page *pages[64][16];
static void *held[64];
static atomic_t turn;
static int ncpus, cur;
static struct completion done;

static void *get(const struct kase *k, int cpu)
{
	switch (k->op) {
	case VMALLOC: case REMOTE: return vmalloc(k->pages * PAGE_SIZE);
	case VMAP: return vmap(pages[cpu], k->pages, VM_MAP, PAGE_KERNEL);
	case MAPRAM: return vm_map_ram(pages[cpu], k->pages, NUMA_NO_NODE);
	case IOREMAP: return (void *)ioremap(0x4000000000ULL + cpu * SZ_1M, k->pages * PAGE_SIZE);
	}
	return NULL;
}
static void put(const struct kase *k, void *p)
{
	switch (k->op) {
	case VMALLOC: case REMOTE: vfree(p); break;
	case VMAP: vunmap(p); break;
	case MAPRAM: vm_unmap_ram(p, k->pages); break;
	case IOREMAP: iounmap((void __iomem *)p); break;
	}
}
static int worker(void *arg)
{
	int cpu = (long)arg, r;
	const struct kase *k = &cases[cur];
	int n = k->cpus ? k->cpus : ncpus;

	for (r = 0; r < WARM + ROUNDS; r++) {
		void *p;

		/* an emulator that runs its CPUs in turn goes on with the next at this YIELD */
		while (atomic_read(&turn) % n != cpu) {
			cpu_relax();
			cond_resched();
		}
		if (r == WARM && cpu == 0)
			NEXT;
		if (k->op == REMOTE) {
			/* frees what the CPU before it made, then makes one for the next */
			p = held[(cpu + n - 1) % n];
			if (p) {
				BEGIN_UNMAP; put(k, p); END;
			}
			BEGIN_MAP; p = get(k, cpu); END;
			held[cpu] = p;
		} else {
			BEGIN_MAP; p = get(k, cpu); END;
			BEGIN_UNMAP; put(k, p); END;
		}
		atomic_inc(&turn);
	}
	complete(&done);
	return 0;
}
static int __init vmscale_init(void)
{
	int c, i;

	if (!on)
		return 0;
	ncpus = num_online_cpus();
	for (c = 0; c < ncpus; c++)
		for (i = 0; i < 16; i++)
			pages[c][i] = alloc_page(GFP_KERNEL);
	msleep(200);
	for (cur = 0; cur < ARRAY_SIZE(cases); cur++) {
		int n = cases[cur].cpus ? cases[cur].cpus : ncpus;

		init_completion(&done);
		atomic_set(&turn, 0);
		memset(held, 0, sizeof(held));
		NEXT;
		for (c = 0; c < n; c++) {
			struct task_struct *t = kthread_create(worker, (void *)(long)c, "vmscale%d", c);

			kthread_bind(t, c);
			wake_up_process(t);
		}
		for (c = 0; c < n; c++)
			wait_for_completion(&done);
		for (c = 0; c < n; c++)
			if (held[c])
				put(&cases[cur], held[c]);
		pr_info("VMS|%d|%s|%d CPUs\n", (int)cur * 2 + 2, cases[cur].name, n);
	}
	pr_info("VMS|done\n");
	return 0;
}
late_initcall_sync(vmscale_init);
