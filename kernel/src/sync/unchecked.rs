//! Checks nothing, in release builds.

#[derive(Debug)]
pub struct Token;

impl Token {
    #[inline(always)]
    pub fn wait_for(_class: &'static str) -> Self {
        Self
    }

    #[inline(always)]
    pub fn had(_class: &'static str) -> Self {
        Self
    }
}
