/// Returns whether `name` matches: `*` is any run of characters, `?` one. Only the last star met
/// may have to take more.
#[must_use]
pub fn matches(glob: &str, name: &str) -> bool {
    let (glob, name) = (glob.as_bytes(), name.as_bytes());
    let (mut g, mut n) = (0, 0);
    let mut last_star = None;
    while n < name.len() {
        match glob.get(g) {
            Some(b'*') => {
                last_star = Some((g, n));
                g += 1;
            }
            Some(&c) if c == b'?' || c == name[n] => {
                g += 1;
                n += 1;
            }
            _ => {
                let Some((star, taken)) = last_star else {
                    return false;
                };
                last_star = Some((star, taken + 1));
                g = star + 1;
                n = taken + 1;
            }
        }
    }
    glob[g..].iter().all(|c| *c == b'*')
}

/// Returns whether one of the comma-separated globs matches.
#[must_use]
pub fn matches_any(list: &str, name: &str) -> bool {
    list.split(',').any(|glob| matches(glob, name))
}
