//! Many CPUs in one region, on schedules that a model checker chooses, judged by the model of the
//! MMU.
//!
//! Each claim is a [`Scenario`]; beside it stand the machines on which it must fail ([`Plant`]), so
//! that a claim which cannot fail is none. `SHUTTLE_SCHEDULES` sets how many schedules are tried.

mod caches;
mod contexts;
mod failures;
mod growth;
mod hand_over;
mod lazy_purge;
mod map_ram;

mod permissions;
mod readers;
#[path = "../support/mod.rs"]
mod support;
mod tables;

use paging::LeafSet;
use support::{Rig, Scenario};
use vmalloc::{Config, FlushPolicy, ForeignPages};

const STRICT: Config = Config {
    leaves: LeafSet::ALL,
    flush: FlushPolicy::Strict,
    cached_areas: 2,
    foreign: ForeignPages::Flush,
};

const LAZY: Config = Config {
    // Two or three for each shard.
    flush: FlushPolicy::Lazy {
        areas: 27,
        pages: 576,
    },
    ..STRICT
};

/// The CPU that flushes a range keeps it: nothing else is mapped there.
const ROOMY: Config = Config {
    cached_areas: 64,
    foreign: ForeignPages::Flush,
    ..LAZY
};

/// Nothing is flushed before a call asks.
const LAZIEST: Config = Config {
    flush: FlushPolicy::Lazy {
        areas: 1000,
        pages: 1000,
    },
    ..STRICT
};

const fn scenario(config: Config, schedules: usize, body: fn(&Rig)) -> Scenario {
    Scenario {
        config,
        schedules,
        body,
    }
}

/// What the model calls it when something is used again too early.
const REUSED: &[&str] = &[
    "FrameReused",
    "VaReused",
    "TableReused",
    "TlbiBeforeDsb",
    "StaleAccess",
];
