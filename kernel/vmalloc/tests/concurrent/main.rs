//! Many CPUs in one region, on schedules of a model checker, judged by the model of the MMU. Beside
//! each [`Scenario`] are the [`Plant`]s on which it must fail.

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
    flush: FlushPolicy::Lazy {
        areas: 27,
        pages: 576,
    },
    ..STRICT
};

const ROOMY: Config = Config {
    cached_areas: 64,
    foreign: ForeignPages::Flush,
    ..LAZY
};

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

const REUSED: &[&str] = &[
    "FrameReused",
    "VaReused",
    "TableReused",
    "TlbiBeforeDsb",
    "StaleAccess",
];
