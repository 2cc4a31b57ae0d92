use kernel::arch::features::Features;
use kernel::print;
use trace_replay::{Need, Trace};

use super::failure::Finding;
use super::frames::MIX;
use super::space::Space;
use super::stats::{Peaks, Stats, Verified};

pub fn machine(features: &Features, cpus: usize, counted: bool) {
    print!(
        "replay {{\"machine\":{{\"midr\":{},\"tlbi_range\":{},\"cpus\":{cpus},\"instructions\":{counted}}}}}\n",
        features.midr, features.tlbi_range
    );
}

pub fn trace(trace: &Trace, need: &Need, free: u64) {
    print!(
        "replay {{\"trace\":{{\"events\":{},\"areas\":{},\"cpus\":{},\"pre\":{},\"skipped\":{},\"peak_areas\":{},\"peak_bytes\":{},\"peak_ram\":{},\"left_areas\":{},\"needs\":{},\"free\":{free},\"mix\":\"{MIX}\"}}}}\n",
        trace.events.len(),
        trace.areas.len(),
        trace.nr_cpus,
        trace.nr_pre,
        trace.nr_skipped,
        need.peak_areas,
        need.peak_bytes,
        need.peak_ram,
        need.left_areas,
        need.free_ram
    );
}

/// Prints instructions of one pass, barriers and invalidations of the other.
pub fn stats(plain: &Stats, counted: &Stats) {
    for ((operation, about, plain), (.., counted)) in plain.rows().zip(counted.rows()) {
        print!(
            "replay {{\"op\":\"{}\",\"kind\":\"{}\",\"count\":{}",
            operation.name(),
            about.name(),
            plain.count
        );
        if let Some(summary) = plain.summary() {
            print!(
                ",\"instructions\":{{\"median\":{},\"p99\":{},\"max\":{},\"total\":{}}}",
                summary.median, summary.p99, summary.max, summary.total
            );
        }
        let counts = counted.counts;
        print!(
            ",\"tlbi\":{},\"dsb\":{},\"isb\":{}}}\n",
            counts.tlbi, counts.dsb, counts.isb
        );
    }
}

pub fn peaks(peaks: &Peaks, verified: &Verified) {
    print!(
        "replay {{\"peak\":{{\"live_areas\":{},\"live_bytes\":{},\"lazy_areas\":{},\"lazy_bytes\":{},\"ram_bytes\":{},\"tables\":{}}}}}\n",
        peaks.live_areas, peaks.live_bytes, peaks.lazy_areas, peaks.lazy_bytes, peaks.ram_bytes, peaks.tables
    );
    print!(
        "replay {{\"verified\":{{\"pages\":{},\"code_pages\":{},\"device_pages\":{},\"guards\":{},\"gone\":{}}}}}\n",
        verified.pages, verified.code_pages, verified.device_pages, verified.guards, verified.gone
    );
}

pub fn space(space: &Space) {
    print!(
        "replay {{\"space\":{{\"areas\":{},\"span\":{},\"holes\":{},\"hole_bytes\":{},\"largest_hole\":{},\"gaps\":{},\"most_gaps\":{},\"largest_gap\":{},\"lazy\":{},\"kept\":{}}}}}\n",
        space.areas,
        space.span,
        space.holes,
        space.hole_bytes,
        space.largest_hole,
        space.gaps,
        space.most_gaps,
        space.largest_gap,
        space.lazy,
        space.kept
    );
}

pub fn failure(finding: &Finding) {
    print!("replay {{\"failure\":\"{finding}\"}}\n");
}

pub fn failures(nr: u64) {
    print!("replay {{\"failures\":{nr}}}\n");
}
