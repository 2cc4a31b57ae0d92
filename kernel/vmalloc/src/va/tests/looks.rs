//! Looks at areas that others hold meanwhile.

use super::*;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

/// Holders come and go by a cache, whose lock the one who looks does not have. What he sees of one that is alive is all that
/// one's.
#[test]
fn a_look_beside_a_cache_never_mixes_two_holders() {
    let rounds = if cfg!(miri) { 60 } else { 300_000 };
    let mut space = space(100);
    let mut cache = Cache::new(4);
    let area = reserve(&mut space, &Fit::new(3)).unwrap();
    let page = area.start();
    let first = area.word(0);
    area.set_word(1, first * 7);
    cache.put(area).unwrap();
    let (space, cache) = (Mutex::new(space), Mutex::new(cache));
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in first + 1..first + rounds {
                let mut area = cache
                    .lock()
                    .unwrap()
                    .take(&Fit::new(3), &[round, round * 7])
                    .expect("nobody else takes it");
                area.retire();
                cache.lock().unwrap().put(area).expect("there is room");
            }
            done.store(true, Relaxed);
        });
        let mut lives = Vec::new();
        while !done.load(Relaxed) {
            let seen = space.lock().unwrap().find(page).unwrap();
            assert_eq!((seen.start(), seen.pages()), (page, 3));
            if seen.state != State::Taken {
                let [first, second] = seen.words;
                assert_eq!(second, first * 7, "{seen:?}");
                lives.push((seen.life, first));
            }
        }
        // One life is one holder, as far as it was seen.
        for pair in lives.windows(2) {
            assert_eq!(pair[0].0 == pair[1].0, pair[0].1 == pair[1].1, "{pair:?}");
        }
    });
}

#[test]
fn a_life_ends_when_the_area_is_given_back() {
    let mut space = space(100);
    let mut cache = Cache::new(4);
    let area = reserve(&mut space, &Fit::new(1)).unwrap();
    let page = area.start();
    let first = space.find(page).unwrap().life;
    area.set_word(0, 9);
    assert_eq!(space.find(page).unwrap().life, first, "a word is no life");
    cache.put(area).unwrap();
    let area = cache.take(&Fit::new(1), &[0, 0]).unwrap();
    let second = space.find(page).unwrap().life;
    assert_ne!(first, second);
    space.release(area);
    let area = reserve(&mut space, &Fit::new(1)).unwrap();
    assert_eq!(area.start(), page);
    let third = space.find(page).unwrap().life;
    assert!(third != first && third != second);
    space.release(area);
}
