use core::fmt;

/// Made by [`boot_argument!`](crate::boot_argument).
pub struct Argument<T> {
    pub name: &'static str,
    /// Writes what may follow `=`.
    pub values: fn(&mut fmt::Formatter<'_>) -> fmt::Result,
    pub what: &'static str,
    /// `None` if not understood.
    pub set: fn(&mut T, &'static str) -> Option<()>,
}

impl<T: 'static> Argument<T> {
    /// Returns `None` if the name is not in `list`.
    ///
    /// # Errors
    /// The argument, which displays what it takes.
    pub fn set(
        list: &'static [Self],
        name: &str,
        noted: &mut T,
        value: &'static str,
    ) -> Option<Result<(), &'static dyn fmt::Display>> {
        let known = list.iter().find(|known| known.name == name)?;
        Some((known.set)(noted, value).ok_or(known))
    }
}

impl<T> fmt::Display for Argument<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}=", self.name)?;
        (self.values)(f)?;
        write!(f, ": {}", self.what)
    }
}

impl<T> fmt::Debug for Argument<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Of [`Choices`], or of values as displayed. A `?` in `$note` refuses one.
#[macro_export]
macro_rules! boot_argument {
    ($name:literal, one of $choices:expr, $what:literal, |$args:ident, $chosen:ident| $note:expr) => {
        $crate::bootargs::Argument {
            name: $name,
            values: |f| $crate::bootargs::names(f, $choices),
            what: $what,
            set: |$args, value| {
                let $chosen = $crate::bootargs::pick($choices, value)?;
                $note;
                Some(())
            },
        }
    };
    ($name:literal, $values:literal, $what:literal, |$args:ident, $value:ident| $note:expr) => {
        $crate::bootargs::Argument {
            name: $name,
            values: |f| f.write_str($values),
            what: $what,
            set: |$args, $value| {
                $note;
                Some(())
            },
        }
    };
}

pub type Choices<T> = [(&'static str, T)];

/// # Errors
/// The writer's.
pub fn names<T>(f: &mut fmt::Formatter<'_>, choices: &Choices<T>) -> fmt::Result {
    let mut separator = "";
    for (name, _) in choices {
        write!(f, "{separator}{name}")?;
        separator = "|";
    }
    Ok(())
}

#[must_use]
pub fn pick<T: Copy>(choices: &Choices<T>, value: &str) -> Option<T> {
    let found = choices.iter().find(|(name, _)| *name == value);
    found.map(|(_, choice)| *choice)
}

#[must_use]
pub fn number(value: &str, least: u64, most: u64) -> Option<u64> {
    parse_number(value).filter(|number| (least..=most).contains(number))
}

/// Parses decimal, or hexadecimal with 0x.
#[must_use]
pub fn parse_number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        // `from_str_radix` would take a sign.
        Some(digits) if digits.bytes().all(|b| b.is_ascii_hexdigit()) => u64::from_str_radix(digits, 16).ok(),
        None if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok(),
        _ => None,
    }
}
