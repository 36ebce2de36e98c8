//! The content type of a file, told from its name.
//!
//! The name alone decides; contents are never sniffed here, and `X-Content-Type-Options: nosniff`
//! (set with the other fields of a response) keeps browsers from it. A name that says nothing is
//! `application/octet-stream`, which browsers save instead of showing.
//!
//! Text is announced as UTF-8. Other types are announced as they are: `application/javascript`
//! and `application/json` are UTF-8 by their own definition.

use std::path::Path;

use http::HeaderValue;
use mime_guess::mime;

/// Returns the `Content-Type` of the file with this name or path.
///
/// Only the last extension counts, in any case: `a.tar.GZ` is gzip. A file called `.html` has no
/// extension.
pub(crate) fn of(name: &Path) -> HeaderValue {
    let Some(guess) = mime_guess::from_path(name).first() else {
        return HeaderValue::from_static("application/octet-stream");
    };
    let value = if guess.type_() == mime::TEXT && guess.get_param(mime::CHARSET).is_none() {
        format!("{guess}; charset=utf-8")
    } else {
        guess.to_string()
    };
    HeaderValue::try_from(value).expect("a media type is visible ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    #[track_caller]
    fn check(cases: &[(&str, &str)]) {
        for (name, content_type) in cases {
            assert_eq!(of(Path::new(name)), content_type, "{name}");
        }
    }

    #[test]
    fn text_is_announced_as_utf_8() {
        check(&[
            ("index.html", "text/html; charset=utf-8"),
            ("index.htm", "text/html; charset=utf-8"),
            ("style.css", "text/css; charset=utf-8"),
            ("notes.txt", "text/plain; charset=utf-8"),
            ("README.md", "text/markdown; charset=utf-8"),
            ("script.js", "text/javascript; charset=utf-8"),
            ("table.csv", "text/csv; charset=utf-8"),
        ]);
    }

    #[test]
    fn other_types_are_announced_as_they_are() {
        check(&[
            ("module.mjs", "application/javascript"),
            ("data.json", "application/json"),
            ("program.wasm", "application/wasm"),
            ("image.png", "image/png"),
            ("photo.jpg", "image/jpeg"),
            ("drawing.svg", "image/svg+xml"),
            ("font.woff2", "font/woff2"),
            ("film.mp4", "video/mp4"),
            ("song.mp3", "audio/mpeg"),
            ("paper.pdf", "application/pdf"),
        ]);
    }

    #[test]
    fn a_name_that_says_nothing_is_a_stream_of_octets() {
        check(&[
            ("", "application/octet-stream"),
            (".", "application/octet-stream"),
            ("Makefile", "application/octet-stream"),
            ("html", "application/octet-stream"),
            (".html", "application/octet-stream"),
            ("name.", "application/octet-stream"),
            ("name.unheard-of", "application/octet-stream"),
            ("folder.html/name", "application/octet-stream"),
        ]);
        let not_text = OsStr::from_bytes(b"name.\xff\xfe");
        assert_eq!(of(Path::new(not_text)), "application/octet-stream");
    }

    #[test]
    fn the_last_extension_counts_in_any_case() {
        check(&[
            ("archive.tar.gz", "application/gzip"),
            ("page.html.png", "image/png"),
            ("PAGE.HTML", "text/html; charset=utf-8"),
            ("a/folder.txt/page.Html", "text/html; charset=utf-8"),
        ]);
        let not_text = OsStr::from_bytes(b"\xff\xfe.png");
        assert_eq!(of(Path::new(not_text)), "image/png");
    }

    /// Whatever the table says becomes a field value, and text always has its charset.
    #[test]
    fn every_extension_of_three_characters_has_a_content_type() {
        let letters = || (b'a'..=b'z').chain(b'0'..=b'9').map(char::from);
        for (first, second, third) in letters().flat_map(|first| {
            letters().flat_map(move |second| letters().map(move |third| (first, second, third)))
        }) {
            let content_type = of(Path::new(&format!("name.{first}{second}{third}")));
            let text = content_type.to_str().expect("visible ASCII");
            assert_eq!(
                text.starts_with("text/"),
                text.ends_with("; charset=utf-8"),
                "{text}"
            );
        }
    }
}
