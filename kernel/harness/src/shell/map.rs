//! `ptmap`: a line of JSON for each region, area and run, and one with the number of runs.

use kernel::layout;
use kernel::mm::areas::kernel_vmalloc;
use kernel::mm::layout::{LINEAR_BASE, LINEAR_END, VMALLOC_BASE, VMALLOC_END};
use kernel::println;
use paging::{DisplaySize, DumpRun, VirtAddr, VirtRange};

use super::Shell;
use super::refusal::Refusal;
use super::tables::for_each_run;

pub fn ptmap<'a>(_: &mut Shell, _: &[&'a str]) -> Result<(), Refusal<'a>> {
    let regions = [
        ("linear", LINEAR_BASE, LINEAR_END),
        ("vmalloc", VMALLOC_BASE, VMALLOC_END),
    ];
    for (name, start, end) in regions {
        println!(
            "ptmap {{\"region\":\"{name}\",\"start\":{start},\"size\":{}}}",
            end - start
        );
    }
    let mut next = kernel_vmalloc().next_vm_area(VirtAddr(0));
    while let Some(area) = next {
        println!(
            "ptmap {{\"area\":\"{:?}\",\"va\":{},\"size\":{},\"caller\":\"{}\"}}",
            area.kind, area.va.0, area.size, area.caller
        );
        next = kernel_vmalloc().next_vm_area(area.va.add(1));
    }
    let mut nr = 0;
    let mut print = |run: &DumpRun<layout::Granule>| {
        nr += 1;
        let leaf = run.size.bytes::<layout::Granule>();
        println!(
            "ptmap {{\"va\":{},\"pa\":{},\"size\":{},\"level\":{},\"contiguous\":{},\"leaf\":{leaf},\"name\":\"{}\",\"attributes\":\"{:?}\",\"valid\":{}}}",
            run.range.start.0,
            run.pa.0,
            run.range.size,
            run.size.level(),
            run.size.is_contiguous(),
            DisplaySize(leaf),
            run.attributes,
            run.valid
        );
        true
    };
    for (_, start, end) in regions {
        let range = VirtRange::new(VirtAddr(start as u64), (end - start) as u64);
        for_each_run(range, &mut print);
    }
    println!("ptmap {{\"runs\":{nr}}}");
    Ok(())
}
