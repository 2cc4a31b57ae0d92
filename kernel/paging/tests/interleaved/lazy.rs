use crate::interleaved::Case;
use crate::interleaved::kernel::Kernel;

fn purge_and_map(cpu: &Kernel, foreign: bool) {
    let mut nr = 0;
    while nr < 3 {
        for (page, pages) in cpu.purge(foreign) {
            for page in page..page + pages {
                cpu.map_page(page, 63 - page);
            }
            nr += 1;
        }
        cpu.seat.turn();
    }
}

const fn lazy(flush: fn(&Kernel)) -> [fn(&Kernel); 3] {
    [
        |cpu| {
            cpu.map(0, 3);
            cpu.unmap_lazily(0, 3);
            cpu.map(8, 4);
            cpu.unmap_lazily(8, 4);
        },
        |cpu| {
            cpu.map(4, 1);
            cpu.unmap_lazily(4, 1);
            cpu.map(5, 2);
        },
        flush,
    ]
}

/// A third CPU maps other frames there.
pub const LAZY: Case = Case::new(|_| {}, &lazy(|cpu| purge_and_map(cpu, true)));

pub const LAZY_NOT_FOREIGN: Case = Case::new(|_| {}, &lazy(|cpu| purge_and_map(cpu, false)));

#[test]
fn a_lazy_flush_by_another_cpu() {
    LAZY.run();
}
