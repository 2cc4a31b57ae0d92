/* Counts what a call costs in cache lines, for `make lines`: a TCG plugin of QEMU.
 *
 * Four hint instructions mark the measured calls in the guest's code:
 *   HINT #80  a call of kind 0 begins on this CPU (map, or read)
 *   HINT #84  a call of kind 1 begins on this CPU (unmap)
 *   HINT #81  the call ends
 *   HINT #82  the next case begins, on all CPUs
 * For each call the plugin writes one row: instructions, loads, stores, distinct 64-byte lines,
 * atomic read-modify-writes, DSB, DMB, ISB, TLBI, and transfers of lines.
 *
 * A transfer is what an invalidation protocol with caches of unlimited size would do. Each line
 * is in one of three states: untouched; dirty in one CPU; or shared, clean, by a set of CPUs.
 *   store: a transfer if any other CPU has the line; then it is dirty here and nowhere else.
 *   load:  a transfer if the line is dirty in another CPU; then it is shared by both.
 * So only sharing counts, never capacity. A line that was never written is served by memory.
 *
 * The declarations below restate the plugin interface that QEMU documents, since distributions
 * ship no header for it. API is the version of that interface: 1 for QEMU 7.2, 3 for 9.1 and later.
 */
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef API
#define API 1
#endif

#define EXPORTED __attribute__((visibility("default")))

typedef uint64_t plugin_id;
typedef uint32_t access_info;
struct block;
struct instruction;
struct hwaddr;

enum { NO_REGISTERS = 0 };
enum { READ_AND_WRITE = 3 };

void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, void (*)(plugin_id, struct block *));
void qemu_plugin_register_atexit_cb(plugin_id, void (*)(plugin_id, void *), void *);
size_t qemu_plugin_tb_n_insns(const struct block *);
struct instruction *qemu_plugin_tb_get_insn(const struct block *, size_t);
#if API >= 3
size_t qemu_plugin_insn_data(const struct instruction *, void *, size_t);
#else
const void *qemu_plugin_insn_data(const struct instruction *);
#endif
uint64_t qemu_plugin_insn_vaddr(const struct instruction *);
void qemu_plugin_register_vcpu_insn_exec_cb(struct instruction *, void (*)(unsigned, void *), int, void *);
void qemu_plugin_register_vcpu_mem_cb(struct instruction *, void (*)(unsigned, access_info, uint64_t, void *), int, int,
                                      void *);
bool qemu_plugin_mem_is_store(access_info);
struct hwaddr *qemu_plugin_get_hwaddr(access_info, uint64_t);
uint64_t qemu_plugin_hwaddr_phys_addr(const struct hwaddr *);
bool qemu_plugin_hwaddr_is_io(const struct hwaddr *);

EXPORTED int qemu_plugin_version = API;

enum field { INSTRUCTIONS, LOADS, STORES, LINES, RMW, DSB, DMB, ISB, TLBI, TRANSFERS, NR_FIELDS };

#define MAX_CPUS 256
#define NR_WORDS (MAX_CPUS / 64)

/* A set of CPUs. */
struct set {
    uint64_t words[NR_WORDS];
};

static void set_add(struct set *set, unsigned cpu)
{
    set->words[cpu / 64] |= UINT64_C(1) << cpu % 64;
}

static bool set_has_others(const struct set *set, unsigned cpu)
{
    for (unsigned word = 0; word < NR_WORDS; word++) {
        uint64_t own = word == cpu / 64 ? UINT64_C(1) << cpu % 64 : 0;
        if (set->words[word] & ~own)
            return true;
    }
    return false;
}

struct line {
    uint64_t number;
    struct set holders;
    bool dirty;
    bool used;
    uint32_t owner;
    /* The last call that touched it: the CPU's, and the number of the call. */
    uint32_t *seen;
};

static struct cpu {
    bool measured;
    unsigned kind;
    uint32_t call;
    uint64_t counts[NR_FIELDS];
} cpus[MAX_CPUS];

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static FILE *output;
static unsigned current_case;

/* Lines by number: open addressing, doubled when half full. */
static struct line *lines;
static size_t nr_slots, nr_lines;

static size_t slot_of(const struct line *table, size_t slots, uint64_t number)
{
    size_t slot = number * UINT64_C(0x9e3779b97f4a7c15) >> 20 & (slots - 1);
    while (table[slot].used && table[slot].number != number)
        slot = (slot + 1) & (slots - 1);
    return slot;
}

static struct line *line_of(uint64_t address)
{
    uint64_t number = address >> 6;
    if (nr_lines * 2 >= nr_slots) {
        size_t slots = nr_slots ? nr_slots * 2 : 1 << 16;
        struct line *table = calloc(slots, sizeof *table);
        if (!table)
            abort();
        for (size_t i = 0; i < nr_slots; i++)
            if (lines[i].used)
                table[slot_of(table, slots, lines[i].number)] = lines[i];
        free(lines);
        lines = table;
        nr_slots = slots;
    }
    struct line *line = &lines[slot_of(lines, nr_slots, number)];
    if (!line->used) {
        line->used = true;
        line->number = number;
        nr_lines++;
    }
    return line;
}

/* Whether this is the first access of the CPU's current call to the line. */
static bool first_of_call(struct line *line, unsigned cpu)
{
    if (!line->seen && !(line->seen = calloc(MAX_CPUS, sizeof *line->seen)))
        abort();
    if (line->seen[cpu] == cpus[cpu].call)
        return false;
    line->seen[cpu] = cpus[cpu].call;
    return true;
}

/* Moves the line to where the access leaves it. Whether that takes a transfer. */
static bool access_line(struct line *line, unsigned cpu, bool store)
{
    bool transfer;
    if (store) {
        transfer = set_has_others(&line->holders, cpu);
        line->holders = (struct set){0};
        line->dirty = true;
        line->owner = cpu;
    } else {
        transfer = line->dirty && line->owner != cpu;
        if (transfer)
            line->dirty = false;
    }
    set_add(&line->holders, cpu);
    return transfer;
}

static void on_access(unsigned cpu, access_info info, uint64_t va, void *pc)
{
    if (cpu >= MAX_CPUS)
        return;
    struct hwaddr *where = qemu_plugin_get_hwaddr(info, va);
    if (!where || qemu_plugin_hwaddr_is_io(where))
        return;
    uint64_t pa = qemu_plugin_hwaddr_phys_addr(where);
    bool store = qemu_plugin_mem_is_store(info);
    struct cpu *self = &cpus[cpu];

    pthread_mutex_lock(&lock);
    struct line *line = line_of(pa);
    bool transfer = access_line(line, cpu, store);
    if (self->measured) {
        self->counts[store ? STORES : LOADS]++;
        self->counts[LINES] += first_of_call(line, cpu);
        if (transfer) {
            self->counts[TRANSFERS]++;
            fprintf(output, "transfer %u %u %#llx %#llx\n", current_case, self->kind,
                    (unsigned long long)(uintptr_t)pc, (unsigned long long)va);
        }
    }
    pthread_mutex_unlock(&lock);
}

static void on_instruction(unsigned cpu, void *field)
{
    if (cpu >= MAX_CPUS || !cpus[cpu].measured)
        return;
    cpus[cpu].counts[INSTRUCTIONS]++;
    if ((uintptr_t)field != INSTRUCTIONS)
        cpus[cpu].counts[(uintptr_t)field]++;
}

static void on_begin(unsigned cpu, void *kind)
{
    if (cpu >= MAX_CPUS)
        return;
    memset(cpus[cpu].counts, 0, sizeof cpus[cpu].counts);
    cpus[cpu].kind = (uintptr_t)kind;
    cpus[cpu].call++;
    cpus[cpu].measured = true;
}

static void on_end(unsigned cpu, void *unused)
{
    (void)unused;
    if (cpu >= MAX_CPUS || !cpus[cpu].measured)
        return;
    cpus[cpu].measured = false;
    pthread_mutex_lock(&lock);
    fprintf(output, "call %u %u", current_case, cpus[cpu].kind);
    for (int field = 0; field < NR_FIELDS; field++)
        fprintf(output, " %llu", (unsigned long long)cpus[cpu].counts[field]);
    fputc('\n', output);
    pthread_mutex_unlock(&lock);
}

static void on_next_case(unsigned cpu, void *unused)
{
    (void)cpu;
    (void)unused;
    pthread_mutex_lock(&lock);
    current_case++;
    pthread_mutex_unlock(&lock);
}

/* What an instruction counts as, beside an instruction. Encodings: Arm ARM C4.1. */
static enum field kind_of(uint32_t word)
{
    if ((word & 0xfffff0ff) == 0xd503309f || (word & 0xfffff3ff) == 0xd503323f) /* DSB, DSB nXS */
        return DSB;
    if ((word & 0xfffff0ff) == 0xd50330bf)
        return DMB;
    if ((word & 0xfffff0ff) == 0xd50330df)
        return ISB;
    if ((word & 0xfff8e000) == 0xd5088000) /* SYS, CRn 8 or 9: TLBI */
        return TLBI;
    if ((word & 0x3f000000) == 0x08000000 && !(word & 1 << 22) && !(word & 1 << 23)) /* STXR, STLXR, STXP, CASP */
        return RMW;
    if ((word & 0x3fa07c00) == 0x08a07c00) /* CAS */
        return RMW;
    if ((word & 0x3f200c00) == 0x38200000 && (word & 0xf000) != 0xc000) /* LDADD and its like, SWP; not LDAPR */
        return RMW;
    return INSTRUCTIONS;
}

static void on_translate(plugin_id id, struct block *block)
{
    (void)id;
    size_t nr = qemu_plugin_tb_n_insns(block);
    for (size_t i = 0; i < nr; i++) {
        struct instruction *instruction = qemu_plugin_tb_get_insn(block, i);
        uint32_t word = 0;
#if API >= 3
        qemu_plugin_insn_data(instruction, &word, sizeof word);
#else
        memcpy(&word, qemu_plugin_insn_data(instruction), sizeof word);
#endif
        void (*call)(unsigned, void *) = on_instruction;
        uintptr_t argument = kind_of(word);
        switch (word) {
        case 0xd503201f | 80 << 5: call = on_begin, argument = 0; break;
        case 0xd503201f | 84 << 5: call = on_begin, argument = 1; break;
        case 0xd503201f | 81 << 5: call = on_end; break;
        case 0xd503201f | 82 << 5: call = on_next_case; break;
        }
        qemu_plugin_register_vcpu_insn_exec_cb(instruction, call, NO_REGISTERS, (void *)argument);
        qemu_plugin_register_vcpu_mem_cb(instruction, on_access, NO_REGISTERS, READ_AND_WRITE,
                                         (void *)(uintptr_t)qemu_plugin_insn_vaddr(instruction));
    }
}

static void on_quit(plugin_id id, void *unused)
{
    (void)id;
    (void)unused;
    fputs("end\n", output);
    fclose(output);
}

EXPORTED int qemu_plugin_install(plugin_id id, const void *emulator, int argc, char **argv)
{
    (void)emulator;
    for (int i = 0; i < argc; i++)
        if (!strncmp(argv[i], "out=", 4))
            output = fopen(argv[i] + 4, "w");
    if (!output) {
        fputs("lines: out=FILE names the file to write\n", stderr);
        return 1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translate);
    qemu_plugin_register_atexit_cb(id, on_quit, NULL);
    return 0;
}
