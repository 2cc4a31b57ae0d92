//! `ptmap`: the tables for a program: one line of JSON for each region, each area and each run, each line with `ptmap ` before it.
//!
//! Addresses and sizes are numbers, which JSON does not limit; the last line says how many runs there were, so that a reader knows it has them all.

use paging::{DisplaySize, Granule4K, VirtAddr};

use super::Shell;
use super::refusal::Refusal;
use super::tables::for_each_run;
use crate::mm::areas::kernel_vmalloc;
use crate::mm::kernel_tree;
use crate::mm::layout::{LINEAR_BASE, LINEAR_END, VMALLOC_BASE, VMALLOC_END};
use crate::println;

/// `ptmap`.
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
    for_each_run(kernel_tree().range(), |run| {
        nr += 1;
        let leaf = run.size.bytes::<Granule4K>();
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
    });
    println!("ptmap {{\"runs\":{nr}}}");
    Ok(())
}
