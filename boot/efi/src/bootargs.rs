//! Boot arguments, as firmware and files have them.

use alloc::string::String;

/// Returns the boot arguments in an application's load options: UTF-16, of which the UEFI shell
/// makes the first word the application itself. `None` for none, or what is no text.
#[must_use]
pub fn of_load_options(bytes: &[u8]) -> Option<String> {
    let units = bytes
        .chunks_exact(2)
        .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
        .take_while(|unit| *unit != 0);
    let text: String = char::decode_utf16(units).collect::<Result<_, _>>().ok()?;
    if text.chars().any(char::is_control) {
        return None;
    }
    let text = text.trim();
    let (first, rest) = text.split_once(' ').unwrap_or((text, ""));
    let is_application = first.to_ascii_lowercase().ends_with(".efi");
    let text = if is_application { rest.trim() } else { text };
    (!text.is_empty()).then(|| text.into())
}

/// Returns the boot arguments in a file: its words, on any number of lines.
#[must_use]
pub fn of_file(text: &str) -> String {
    let mut words = String::new();
    for word in text.split_whitespace() {
        if !words.is_empty() {
            words.push(' ');
        }
        words.push_str(word);
    }
    words
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use std::vec::Vec;

    fn options(text: &str) -> Option<String> {
        let bytes: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        of_load_options(&bytes)
    }

    #[test]
    fn load_options_are_arguments_with_or_without_the_application() {
        assert_eq!(
            options("selftest=map.* seed=3\0").as_deref(),
            Some("selftest=map.* seed=3")
        );
        assert_eq!(
            options("FS0:\\EFI\\BOOT\\bootaa64.EFI  seed=3\0junk").as_deref(),
            Some("seed=3")
        );
        assert_eq!(options("seed=3").as_deref(), Some("seed=3"));
    }

    #[test]
    fn what_is_no_text_is_no_argument() {
        assert_eq!(options(""), None);
        assert_eq!(options("BOOTAA64.EFI\0"), None);
        assert_eq!(of_load_options(&[1, 0, 2, 0]), None);
        assert_eq!(of_load_options(&[0, 0xd8, b'a', 0]), None);
        assert_eq!(of_load_options(b"a"), None);
    }

    #[test]
    fn a_file_may_have_lines() {
        assert_eq!(of_file("selftest=*\r\n  seed=3\n\n"), "selftest=* seed=3");
        assert_eq!(of_file("\n"), "");
    }
}
