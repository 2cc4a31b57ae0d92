/* Drives the plugin of `make lines` without an emulator: its callbacks, called with accesses whose
 * transfers are known by the protocol. Prints what the plugin writes; test_lines.py judges it. */
#include "../lines-plugin/lines.c"

static struct hwaddr { uint64_t pa; bool io; } where;
static bool stores;

void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id id, void (*f)(plugin_id, struct block *)) { (void)id, (void)f; }
void qemu_plugin_register_atexit_cb(plugin_id id, void (*f)(plugin_id, void *), void *u) { (void)id, (void)f, (void)u; }
size_t qemu_plugin_tb_n_insns(const struct block *b) { (void)b; return 0; }
struct instruction *qemu_plugin_tb_get_insn(const struct block *b, size_t i) { (void)b, (void)i; return NULL; }
const void *qemu_plugin_insn_data(const struct instruction *i) { return i; }
uint64_t qemu_plugin_insn_vaddr(const struct instruction *i) { (void)i; return 0; }
void qemu_plugin_register_vcpu_insn_exec_cb(struct instruction *i, void (*f)(unsigned, void *), int r, void *u)
{
    (void)i, (void)f, (void)r, (void)u;
}
void qemu_plugin_register_vcpu_mem_cb(struct instruction *i, void (*f)(unsigned, access_info, uint64_t, void *), int r,
                                      int w, void *u)
{
    (void)i, (void)f, (void)r, (void)w, (void)u;
}
bool qemu_plugin_mem_is_store(access_info info) { (void)info; return stores; }
struct hwaddr *qemu_plugin_get_hwaddr(access_info info, uint64_t va) { (void)info, (void)va; return &where; }
uint64_t qemu_plugin_hwaddr_phys_addr(const struct hwaddr *h) { return h->pa; }
bool qemu_plugin_hwaddr_is_io(const struct hwaddr *h) { return h->io; }

/* One command a line: `r CPU PA`, `w CPU PA`, `d CPU PA` (a device), `b CPU KIND`, `e CPU`, `n`, `i CPU WORD`. */
int main(void)
{
    char verb;
    unsigned cpu;
    unsigned long long value;
    output = stdout;
    while (scanf(" %c %u %llx", &verb, &cpu, &value) == 3) {
        where = (struct hwaddr){ value, verb == 'd' };
        stores = verb == 'w';
        switch (verb) {
        case 'r': case 'w': case 'd': on_access(cpu, 0, value, (void *)0x40); break;
        case 'b': on_begin(cpu, (void *)(uintptr_t)value); break;
        case 'e': on_end(cpu, NULL); break;
        case 'n': on_next_case(cpu, NULL); break;
        case 'i': on_instruction(cpu, (void *)(uintptr_t)kind_of((uint32_t)value)); break;
        default: return 2;
        }
    }
    on_quit(0, NULL);
    return 0;
}
