//! The checker of the locks' order, in a build that does not check.

/// A lock that is held.
#[derive(Debug)]
pub struct Token;

impl Token {
    /// For a lock that will be waited for now.
    #[inline(always)]
    pub fn wait_for(_class: &'static str) -> Self {
        Self
    }

    /// For a lock that was had without waiting.
    #[inline(always)]
    pub fn had(_class: &'static str) -> Self {
        Self
    }
}
