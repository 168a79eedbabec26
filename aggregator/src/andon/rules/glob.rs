//! Patterns of names: `*` stands for any text, `?` for one character, everything else for itself. *(pure)*
//!
//! Not regular expressions: a pattern takes at most its length times the name's length in steps, whatever it is.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A pattern of names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Glob(String);

/// Longest pattern, in bytes.
const MOST_BYTES: usize = 256;

impl Glob {
    /// Whether the whole of `name` is as the pattern says. Upper and lower case differ.
    pub(crate) fn matches(&self, name: &str) -> bool {
        let (pattern, name) = (self.0.as_bytes(), name.as_bytes());
        let (mut p, mut n) = (0, 0);
        // Where to go on when what follows the last `*` does not fit.
        let mut back: Option<(usize, usize)> = None;
        while n < name.len() {
            match pattern.get(p) {
                Some(b'*') => {
                    back = Some((p + 1, n));
                    p += 1;
                }
                Some(b'?') => {
                    p += 1;
                    n += 1;
                    // The rest of a character of several bytes.
                    while name.get(n).is_some_and(|byte| byte & 0xC0 == 0x80) {
                        n += 1;
                    }
                }
                Some(byte) if *byte == name[n] => {
                    p += 1;
                    n += 1;
                }
                _ => match &mut back {
                    Some((after, from)) => {
                        *from += 1;
                        (p, n) = (*after, *from);
                    }
                    None => return false,
                },
            }
        }
        pattern[p..].iter().all(|byte| *byte == b'*')
    }

    /// The only name that it matches; `None`: there may be several.
    pub(crate) fn literal(&self) -> Option<&str> {
        (!self.0.contains(['*', '?'])).then_some(self.0.as_str())
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Glob {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Glob {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        if text.is_empty() || text.len() > MOST_BYTES {
            let reason = format!("a pattern has 1 to {MOST_BYTES} characters: `*` matches all");
            return Err(serde::de::Error::custom(reason));
        }
        Ok(Self(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_any_text_and_a_question_mark_one_character() {
        let check = |pattern: &str, name: &str, expected: bool| {
            let glob = Glob(pattern.into());
            assert_eq!(glob.matches(name), expected, "{pattern} on {name}");
        };
        check("*", "", true);
        check("*H100*", "NVIDIA H100 80GB HBM3", true);
        check("*H100*", "NVIDIA H200", false);
        check("r?", "r7", true);
        check("r?", "r17", false);
        check("r?", "rä", true);
        check("gpu-a*-?", "gpu-a12-4-7", true);
        check("a*b*c", "axxbyyc", true);
        check("a*b*c", "axxbyy", false);
        check("rack", "rack", true);
        check("rack", "Rack", false);
        check("[ab]", "a", false);
        check("[ab]", "[ab]", true);
    }

    #[test]
    fn no_pattern_explodes() {
        let glob = Glob("*a".repeat(100) + "*b");
        assert!(!glob.matches(&"a".repeat(10_000)));
    }
}
