//! Entity tags as they stand in a field, and the two ways to compare them (RFC 9110, section
//! 8.8.3).
//!
//! A tag borrows from the field it was read from. What is between its quotes is opaque: commas and
//! backslashes in there mean nothing, and `W/` is written with a capital letter.

/// One entity tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EntityTag<'a> {
    /// Whether it is marked `W/`: it vouches for the meaning, not for the bytes.
    pub(crate) is_weak: bool,
    /// What stands between the quotes.
    pub(crate) opaque: &'a [u8],
}

impl<'a> EntityTag<'a> {
    /// Reads a value that is one tag and nothing else.
    pub(crate) fn parse(value: &'a [u8]) -> Option<Self> {
        let (tag, rest) = Self::split_from(value)?;
        rest.is_empty().then_some(tag)
    }

    /// Reads a list of tags, skipping its empty elements.
    ///
    /// The list ends at the first element that is no tag: where the next one would start can then
    /// only be guessed.
    pub(crate) fn parse_list(mut value: &'a [u8]) -> impl Iterator<Item = Self> {
        std::iter::from_fn(move || {
            while let [b' ' | b'\t' | b',', rest @ ..] = value {
                value = rest;
            }
            let (tag, rest) = Self::split_from(value)?;
            value = rest.trim_ascii_start();
            matches!(value, [] | [b',', ..]).then_some(tag)
        })
    }

    /// Compares byte for byte; a weak tag equals nothing, not even itself.
    pub(crate) fn equals_strongly(self, other: EntityTag<'_>) -> bool {
        !self.is_weak && !other.is_weak && self.opaque == other.opaque
    }

    /// Compares what is between the quotes only.
    pub(crate) fn equals_weakly(self, other: EntityTag<'_>) -> bool {
        self.opaque == other.opaque
    }

    /// Splits a value into the tag it starts with and what follows it.
    fn split_from(value: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (is_weak, quoted) = match value {
            [b'W', b'/', quoted @ ..] => (true, quoted),
            quoted => (false, quoted),
        };
        let [b'"', inside @ ..] = quoted else {
            return None;
        };
        let end = inside.iter().position(|byte| *byte == b'"')?;
        let opaque = &inside[..end];
        // Visible ASCII and everything above it; so no space and no control character.
        let is_well_formed = opaque.iter().all(|byte| *byte > b' ' && *byte != 0x7f);
        is_well_formed.then_some((Self { is_weak, opaque }, &inside[end + 1..]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strong(opaque: &str) -> EntityTag<'_> {
        EntityTag {
            is_weak: false,
            opaque: opaque.as_bytes(),
        }
    }

    fn weak(opaque: &str) -> EntityTag<'_> {
        EntityTag {
            is_weak: true,
            opaque: opaque.as_bytes(),
        }
    }

    /// The table of RFC 9110, section 8.8.3.2.
    #[test]
    fn tags_compare_as_in_the_table_of_the_rfc() {
        let cases = [
            (weak("1"), weak("1"), false, true),
            (weak("1"), weak("2"), false, false),
            (weak("1"), strong("1"), false, true),
            (strong("1"), strong("1"), true, true),
        ];
        for (one, other, strongly, weakly) in cases {
            for (one, other) in [(one, other), (other, one)] {
                assert_eq!(one.equals_strongly(other), strongly, "{one:?} {other:?}");
                assert_eq!(one.equals_weakly(other), weakly, "{one:?} {other:?}");
            }
        }
        assert!(!strong("1").equals_strongly(strong("2")));
    }

    #[test]
    fn a_single_tag_is_read_whole() {
        for (value, tag) in [
            (r#""xyzzy""#, strong("xyzzy")),
            (r#"W/"xyzzy""#, weak("xyzzy")),
            (r#""""#, strong("")),
            (r#""a,b""#, strong("a,b")),
            (r#""a\""#, strong(r"a\")),
            (r#""W/""#, strong("W/")),
            (r#""é""#, strong("é")),
        ] {
            assert_eq!(EntityTag::parse(value.as_bytes()), Some(tag), "{value}");
        }
    }

    #[test]
    fn what_is_no_tag_is_not_read() {
        for value in [
            "",
            "*",
            "xyzzy",
            "\"",
            "\"xyzzy",
            "xyzzy\"",
            "w/\"xyzzy\"",
            "W/xyzzy",
            "W \"xyzzy\"",
            "W/",
            "W",
            "\"xy zzy\"",
            "\"xy\tzzy\"",
            "\"xy\x7fzzy\"",
            "'xyzzy'",
            "\"x\"\"y\"",
            "\"x\", \"y\"",
            " \"x\"",
        ] {
            assert_eq!(EntityTag::parse(value.as_bytes()), None, "{value}");
        }
    }

    #[test]
    fn a_list_yields_its_tags_in_order() {
        let cases: &[(&str, &[EntityTag<'_>])] = &[
            ("", &[]),
            (" , ,", &[]),
            (r#""x""#, &[strong("x")]),
            (r#""x", "y""#, &[strong("x"), strong("y")]),
            (r#""x",W/"y","z""#, &[strong("x"), weak("y"), strong("z")]),
            (",, \"x\" \t,\t, \"y\" ,", &[strong("x"), strong("y")]),
            (r#""a,b","c""#, &[strong("a,b"), strong("c")]),
        ];
        for (value, tags) in cases {
            let read: Vec<_> = EntityTag::parse_list(value.as_bytes()).collect();
            assert_eq!(read, *tags, "{value}");
        }
    }

    #[test]
    fn a_list_ends_at_its_first_ill_formed_element() {
        let cases: &[(&str, &[EntityTag<'_>])] = &[
            ("*", &[]),
            (r#"x, "y""#, &[]),
            (r#""x", y, "z""#, &[strong("x")]),
            (r#""x", "y z", "w""#, &[strong("x")]),
            (r#""x", "y"#, &[strong("x")]),
            (r#""x" "y", "z""#, &[]),
            (r#""x""y", "z""#, &[]),
            (r#""w", "x"; q=1, "z""#, &[strong("w")]),
        ];
        for (value, tags) in cases {
            let read: Vec<_> = EntityTag::parse_list(value.as_bytes()).collect();
            assert_eq!(read, *tags, "{value}");
        }
    }
}
