use crate::backend::{Backend, Lock};
use crate::error::Error;
use crate::owner::COMMON;
use crate::place::{self, Phase};
use crate::record::{Area, WORDS};
use crate::region::{Context, Vmalloc};
use crate::shard::{Held, Shard, State};
use crate::va::{self, Fit};
use paging::Granule;

enum Lack {
    /// In this shard.
    Nodes(usize),
    /// For this span's owner.
    Note(u64),
    /// Addresses, a lock, or sense.
    Else(Error),
}

impl<B: Backend> Vmalloc<B> {
    #[inline(always)]
    const fn is_small(fit: &Fit) -> bool {
        fit.align <= Self::SPAN_PAGES && fit.residue() + fit.reserved() <= Self::SPAN_PAGES
    }

    #[inline(always)]
    pub(crate) fn reserve(
        &self,
        fit: Fit,
        phase: Phase,
        align: u64,
        words: &[u64; WORDS],
        context: Context,
    ) -> Result<Area, Error> {
        let shard = self.drain_some(context);
        let best = place::best::<B::Granule>(fit, phase, align);
        if Self::is_small(&best) {
            if let Ok(area) = shard.state.lock().reserve(&best, words) {
                return Ok(area);
            }
        } else if let Ok(best) = Self::in_whole_spans(&best) {
            let common = self.shards.common();
            if let Ok(area) = common.state.lock().reserve(&best, words) {
                return Ok(area);
            }
        }
        self.reserve_anywhere(fit, phase, align, words, context)
    }

    #[inline(never)]
    fn reserve_anywhere(
        &self,
        fit: Fit,
        phase: Phase,
        align: u64,
        words: &[u64; WORDS],
        context: Context,
    ) -> Result<Area, Error> {
        let once = || self.reserve_once(fit, phase, align, words, context);
        if context == Context::Waiting {
            self.under_pressure(once)
        } else {
            once()
        }
    }

    pub(crate) fn reserve_once(
        &self,
        fit: Fit,
        phase: Phase,
        align: u64,
        words: &[u64; WORDS],
        context: Context,
    ) -> Result<Area, Error> {
        let mut refused = Error::Empty;
        for fit in place::candidates::<B::Granule>(fit, phase, align, self.leaves) {
            match self.reserve_at(&fit, words, context) {
                Err(error @ (Error::OutOfSpace(_) | Error::TooLarge { .. })) => refused = error,
                done => return done,
            }
        }
        Err(refused)
    }

    fn reserve_at(&self, fit: &Fit, words: &[u64; WORDS], context: Context) -> Result<Area, Error> {
        loop {
            let result = if Self::is_small(fit) {
                self.reserve_small(self.this_shard(), fit, words, context)
            } else {
                self.reserve_large(fit, words, context)
            };
            let lack = match result {
                Ok(area) => return Ok(area),
                Err(Lack::Else(error)) => return Err(error),
                Err(lack) => lack,
            };
            // Memory is never allocated under a lock.
            let page = if context == Context::Exception {
                self.backend.without_waiting(|| self.backend.node_page())
            } else {
                self.backend.node_page()
            };
            let page = page.ok_or(Error::OutOfNodes)?;
            match lack {
                Lack::Note(span) => self.owners.feed(span, page),
                Lack::Nodes(shard) => self.hold(self.shards.get(shard), context)?.space.feed(page),
                Lack::Else(_) => {}
            }
        }
    }

    fn hold(&self, shard: &'static Shard<B>, context: Context) -> Result<Held<'static, B>, Error> {
        if context == Context::Exception {
            shard.state.try_lock().ok_or(Error::WouldBlock)
        } else {
            Ok(shard.state.lock())
        }
    }

    fn reserve_small(
        &self,
        shard: &'static Shard<B>,
        fit: &Fit,
        words: &[u64; WORDS],
        context: Context,
    ) -> Result<Area, Lack> {
        let mut state = self.hold(shard, context).map_err(Lack::Else)?;
        let refused = match state.reserve(fit, words) {
            Ok(area) => return Ok(area),
            Err(va::Error::NoNodes) => return Err(Lack::Nodes(shard.number)),
            Err(error @ (va::Error::NoSpace { .. } | va::Error::NoAlignedSpace { .. })) => error,
            Err(error) => return Err(Lack::Else(Self::refusal(error))),
        };
        self.reserve_in_new_piece(shard, &mut state, fit, words, context)?
            .ok_or(Lack::Else(Self::refusal(refused)))
    }

    /// In the common shard's lowest piece, which becomes the locked `shard`'s. Needs both locks:
    /// see `owner`.
    fn reserve_in_new_piece(
        &self,
        shard: &Shard<B>,
        state: &mut State<B::Granule>,
        fit: &Fit,
        words: &[u64; WORDS],
        context: Context,
    ) -> Result<Option<Area>, Lack> {
        let common = self.shards.common();
        let mut common = self.hold(common, context).map_err(Lack::Else)?;
        let Ok(start) = common.space.lowest(&Self::PIECE) else {
            return Ok(None);
        };
        let span = self.span_of(start);
        if common.space.nr_spare_nodes() == 0 {
            return Err(Lack::Nodes(COMMON));
        }
        if !self.owners.set(span, shard.number) {
            return Err(Lack::Note(span));
        }
        match state.space.add_reserved(start, Self::SPAN_PAGES, fit, words) {
            Ok(area) => {
                let removed = common.space.remove(start, Self::SPAN_PAGES);
                debug_assert_eq!(removed, Ok(true), "it was found there");
                Ok(Some(area))
            }
            Err(error) => {
                self.owners.set(span, COMMON);
                Err(match error {
                    va::Error::NoNodes => Lack::Nodes(shard.number),
                    error => Lack::Else(Self::refusal(error)),
                })
            }
        }
    }

    fn reserve_large(&self, fit: &Fit, words: &[u64; WORDS], context: Context) -> Result<Area, Lack> {
        let fit = Self::in_whole_spans(fit).map_err(Lack::Else)?;
        let mut state = self.hold(self.shards.common(), context).map_err(Lack::Else)?;
        match state.space.reserve(&fit, words) {
            Ok(area) => Ok(area),
            Err(va::Error::NoNodes) => Err(Lack::Nodes(COMMON)),
            Err(error) => Err(Lack::Else(Self::refusal(error))),
        }
    }

    /// The guards fill whole spans: the body begins at its phase in the first.
    pub(crate) fn in_whole_spans(fit: &Fit) -> Result<Fit, Error> {
        let span = Self::SPAN_PAGES;
        let lead = u64::from(fit.lead);
        let begins = if fit.align <= span {
            lead + (fit.phase.wrapping_sub(lead) & (fit.align - 1))
        } else {
            let phase = fit.phase & (span - 1);
            if phase < lead { phase + span } else { phase }
        };
        let used = fit
            .pages
            .checked_add(begins + u64::from(fit.trail) + span)
            .ok_or(Error::TooLarge {
                size: u64::MAX,
                limit: u64::MAX,
            })?
            - span;
        let total = used.div_ceil(span) * span;
        let (lead, trail) = (begins as u16, (total - begins - fit.pages) as u16);
        debug_assert!(begins.max(total - begins - fit.pages) <= u64::from(u16::MAX));
        let (align, phase) = if fit.align <= span {
            (span, begins & (span - 1))
        } else {
            (fit.align, fit.phase)
        };
        Ok(fit.congruent(align, phase).guarded(lead, trail))
    }

    #[cold]
    pub(crate) fn refusal(error: va::Error) -> Error {
        let bytes = |pages: u64| pages.saturating_mul(B::Granule::PAGE_SIZE);
        match error {
            va::Error::NoNodes => Error::OutOfNodes,
            va::Error::TooLarge { pages, region } => Error::TooLarge {
                size: bytes(pages),
                limit: bytes(region),
            },
            error => Error::OutOfSpace(error),
        }
    }
}
