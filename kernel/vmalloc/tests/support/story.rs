//! What a test that is to fail says when it does: the first panic of a thread that listens, which
//! is not printed.

use std::cell::RefCell;
use std::sync::Once;

thread_local! {
    static STORY: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Makes it possible to listen. Before the checker runs for the first time: it installs a hook of
/// its own, which calls this one.
pub fn install() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let kept = STORY.try_with(|story| match story.borrow_mut().as_mut() {
                Some(story) => {
                    if story.is_empty() {
                        *story = info.to_string();
                    }
                    true
                }
                None => false,
            });
            if kept != Ok(true) {
                print(info);
            }
        }));
    });
}

/// From here on this thread's panics are kept, not printed.
pub fn listen() {
    STORY.set(Some(String::new()));
}

/// The first panic since then. Panics are printed again.
pub fn heard() -> String {
    STORY.take().unwrap_or_default()
}
