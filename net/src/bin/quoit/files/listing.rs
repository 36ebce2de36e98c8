//! The page that shows what is in a folder.
//!
//! Names in a folder are arbitrary bytes, chosen by whoever may write there. What is always true:
//! - A name in a link is percent-encoded and stands behind `./`, so it is a step down from this
//!   page and never a scheme, a host, a query or an option.
//! - A name in the text is escaped and isolated: it ends with its element, and so does its writing
//!   direction.
//! - Links are relative to a page whose own path ends with a slash; the server redirects to that.
//! - The page loads nothing and runs nothing. `default-src 'none'; style-src 'unsafe-inline'` is
//!   all it needs of a `Content-Security-Policy`.

use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::SystemTime;

use super::escape::Text;
use super::human::{Minute, Size};
use super::target;

/// What the page shows of one file or folder.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// The name within the folder, as the kernel reports it.
    pub(crate) name: Vec<u8>,
    /// Whether this is a folder itself.
    pub(crate) is_directory: bool,
    /// The size in bytes; not shown for folders.
    pub(crate) size: u64,
    /// When the contents last changed.
    pub(crate) modified: SystemTime,
}

/// Returns the page for a folder, in UTF-8.
///
/// `directory` is relative to the root, as `Target::relative` gives it, and `.` is the root. The
/// entries may come in any order, also with `.` and `..`, which are left out.
pub(crate) fn page(directory: &Path, mut entries: Vec<Entry>) -> String {
    entries.retain(|entry| entry.name != b"." && entry.name != b"..");
    // Folders first, then as a person looks for names; the bytes settle what is left, so that the
    // order never depends on the file system.
    entries.sort_by_cached_key(|entry| {
        (
            !entry.is_directory,
            entry.name.to_ascii_lowercase(),
            entry.name.clone(),
        )
    });
    let steps = directory
        .iter()
        .map(OsStrExt::as_bytes)
        .filter(|step| *step != b".")
        .collect();
    Page { steps, entries }.to_string()
}

/// A page about to be written.
struct Page<'a> {
    /// The names that lead from the root to this folder.
    steps: Vec<&'a [u8]>,
    entries: Vec<Entry>,
}

impl fmt::Display for Page<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(concat!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n",
            "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n",
            "<title>/",
        ))?;
        for step in &self.steps {
            write!(formatter, "{}/", Text(step))?;
        }
        let style = include_str!("listing.css");
        write!(
            formatter,
            "</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n<h1>"
        )?;
        self.write_steps(formatter)?;
        formatter.write_str(concat!(
            "</h1>\n<table>\n<thead><tr><th class=\"name\">Name</th>",
            "<th class=\"size\">Size</th><th class=\"time\">Modified (UTC)</th></tr></thead>\n",
            "<tbody>\n",
        ))?;
        if !self.steps.is_empty() {
            formatter.write_str(concat!(
                "<tr class=\"parent\"><td class=\"name\"><a href=\"../\">Parent folder</a></td>",
                "<td class=\"size\"></td><td class=\"time\"></td></tr>\n",
            ))?;
        }
        for entry in &self.entries {
            write_entry(entry, formatter)?;
        }
        formatter.write_str("</tbody>\n</table>\n<p class=\"summary\">")?;
        self.write_summary(formatter)?;
        formatter.write_str("</p>\n</main>\n</body>\n</html>\n")
    }
}

impl Page<'_> {
    /// Writes where this folder is, each folder above it as a link.
    fn write_steps(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let depth = self.steps.len();
        let names = std::iter::once("Files".as_bytes()).chain(self.steps.iter().copied());
        for (index, name) in names.enumerate() {
            if index > 0 {
                formatter.write_str("<span class=\"slash\">/</span>")?;
            }
            let name = Text(name);
            if index < depth {
                let up = "../".repeat(depth - index);
                write!(formatter, "<a href=\"{up}\"><bdi>{name}</bdi></a>")?;
            } else {
                write!(formatter, "<bdi>{name}</bdi>")?;
            }
        }
        Ok(())
    }

    fn write_summary(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let folders = self
            .entries
            .iter()
            .filter(|entry| entry.is_directory)
            .count();
        let files = self.entries.len() - folders;
        let ending = |count| if count == 1 { "" } else { "s" };
        match (folders, files) {
            (0, 0) => formatter.write_str("This folder is empty"),
            (0, files) => write!(formatter, "{files} file{}", ending(files)),
            (folders, 0) => write!(formatter, "{folders} folder{}", ending(folders)),
            (folders, files) => {
                write!(formatter, "{folders} folder{}, ", ending(folders))?;
                write!(formatter, "{files} file{}", ending(files))
            }
        }
    }
}

fn write_entry(entry: &Entry, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
    let (class, slash) = if entry.is_directory {
        ("folder", "/")
    } else {
        ("file", "")
    };
    let (link, name) = (target::encode_segment(&entry.name), Text(&entry.name));
    write!(formatter, "<tr class=\"{class}\"><td class=\"name\">")?;
    write!(
        formatter,
        "<a href=\"./{link}{slash}\"><bdi>{name}</bdi>{slash}</a></td>"
    )?;
    if entry.is_directory {
        formatter.write_str("<td class=\"size\"></td>")?;
    } else {
        let bytes = entry.size;
        write!(
            formatter,
            "<td class=\"size\" title=\"{bytes} bytes\">{}</td>",
            Size(bytes)
        )?;
    }
    writeln!(
        formatter,
        "<td class=\"time\">{}</td></tr>",
        Minute(entry.modified)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};
    use target::Target;

    fn entry(name: impl AsRef<[u8]>, is_directory: bool) -> Entry {
        let modified = UNIX_EPOCH + Duration::from_secs(784_111_777);
        Entry {
            name: name.as_ref().to_vec(),
            is_directory,
            size: 1536,
            modified,
        }
    }

    fn file(name: impl AsRef<[u8]>) -> Entry {
        entry(name, false)
    }

    fn folder(name: impl AsRef<[u8]>) -> Entry {
        entry(name, true)
    }

    fn root(entries: Vec<Entry>) -> String {
        page(Path::new("."), entries)
    }

    /// What stands between each `start` and the `end` that follows it.
    fn all_between<'a>(page: &'a str, start: &str, end: &str) -> Vec<&'a str> {
        let inside = |rest: &'a str| rest.split_once(end).expect("what starts also ends").0;
        page.split(start).skip(1).map(inside).collect()
    }

    /// The links of a page in the order they stand.
    fn links(page: &str) -> Vec<&str> {
        all_between(page, "href=\"", "\"")
    }

    #[test]
    fn folders_come_first_and_names_are_sorted_without_regard_to_case() {
        let names = ["b", "A", "a", "B", "_", "Z", "é"];
        let mut entries: Vec<_> = names.iter().map(file).collect();
        entries.extend([folder("z"), folder("Y")]);
        let sorted = "./Y/ ./z/ ./_ ./A ./a ./B ./b ./Z ./%C3%A9";
        assert_eq!(links(&root(entries)).join(" "), sorted);
    }

    #[test]
    fn the_order_does_not_depend_on_the_order_of_the_entries() {
        let mut entries = vec![
            file("a"),
            file("A"),
            folder("a"),
            file("b"),
            folder(b"\xff"),
        ];
        let page = root(entries.clone());
        entries.reverse();
        assert_eq!(root(entries), page);
    }

    #[test]
    fn a_link_is_always_a_step_down() {
        for (name, link) in [
            ("javascript:alert(1)", "./javascript%3Aalert%281%29"),
            ("//evil.example", "./%2F%2Fevil.example"),
            ("\\evil", "./%5Cevil"),
            ("-rf", "./-rf"),
            ("a?b#c", "./a%3Fb%23c"),
            ("\"onclick=\"x", "./%22onclick%3D%22x"),
            ("a'b<c>&amp;", "./a%27b%3Cc%3E%26amp%3B"),
            ("two\nlines\r", "./two%0Alines%0D"),
            ("100%", "./100%25"),
            (" ", "./%20"),
            ("...", "./..."),
            ("é", "./%C3%A9"),
        ] {
            assert_eq!(links(&root(vec![file(name)])), [link], "{name:?}");
        }
        assert_eq!(links(&root(vec![folder(b"\xff\xfe")])), ["./%FF%FE/"]);
    }

    #[test]
    fn a_link_leads_back_to_the_name() {
        for byte in (1..=u8::MAX).filter(|byte| !b"./".contains(byte)) {
            let page = root(vec![file([byte])]);
            let link = links(&page)[0].trim_start_matches('.');
            let target = Target::parse(link).expect("a link is well-formed");
            assert_eq!(target.relative().as_os_str().as_bytes(), [byte]);
        }
    }

    #[test]
    fn a_name_shows_as_text() {
        let page = root(vec![file("</bdi><b>&"), folder(b"\xff\n")]);
        let shown = ["Files", "\u{fffd}\u{fffd}", "&lt;/bdi&gt;&lt;b&gt;&amp;"];
        assert_eq!(all_between(&page, "<bdi>", "</bdi>"), shown);
    }

    #[test]
    fn the_page_escapes_its_own_path() {
        let page = page(Path::new("</title><script>/a&b"), vec![]);
        let path = "/&lt;/title&gt;&lt;script&gt;/a&amp;b/";
        assert_eq!(all_between(&page, "<title>", "</title>"), [path]);
        assert!(!page.contains("<script>"));
    }

    #[test]
    fn the_root_has_no_way_up() {
        let page = root(vec![]);
        assert_eq!(links(&page), [""; 0]);
        assert_eq!(all_between(&page, "<title>", "</title>"), ["/"]);
    }

    #[test]
    fn a_folder_links_to_every_folder_above_it_and_to_its_parent() {
        let deep = page(Path::new("a/b b/c"), vec![]);
        assert_eq!(links(&deep), ["../../../", "../../", "../", "../"]);
        let steps = all_between(&deep, "<bdi>", "</bdi>");
        assert_eq!(steps, ["Files", "a", "b b", "c"]);
        assert_eq!(links(&page(Path::new("a"), vec![])), ["../", "../"]);
    }

    #[test]
    fn a_row_shows_size_and_time_and_a_folder_has_no_size() {
        let page = root(vec![file("f"), folder("d")]);
        let sizes = all_between(&page, "<td class=\"size\"", "</td>");
        assert_eq!(sizes, [">", " title=\"1536 bytes\">1.5 KiB"]);
        let times = all_between(&page, "<td class=\"time\">", "</td>");
        assert_eq!(times, ["1994-11-06 08:49"; 2]);
    }

    #[test]
    fn the_directory_itself_and_its_parent_are_left_out() {
        let names = [".", "..", "...", ".hidden"];
        let page = root(names.iter().map(folder).collect());
        assert_eq!(links(&page), ["./.../", "./.hidden/"]);
    }

    #[test]
    fn the_summary_counts_folders_and_files() {
        for (folders, files, summary) in [
            (0, 0, "This folder is empty"),
            (1, 0, "1 folder"),
            (0, 1, "1 file"),
            (0, 2, "2 files"),
            (2, 1, "2 folders, 1 file"),
            (1, 20, "1 folder, 20 files"),
        ] {
            let names = |count: u8| (b'a'..).take(count.into()).map(|byte| [byte]);
            let mut entries: Vec<_> = names(folders).map(folder).collect();
            entries.extend(names(files).map(file));
            let page = root(entries);
            assert_eq!(
                all_between(&page, "<p class=\"summary\">", "</p>"),
                [summary]
            );
        }
    }

    #[test]
    fn the_page_declares_its_charset_first_and_loads_nothing() {
        let page = root(vec![file("a")]);
        let charset = page.find("<meta charset=\"utf-8\">").expect("a charset");
        assert!(charset < page.find("<title>").expect("a title"));
        assert!(page.contains("<meta name=\"viewport\" content=\"width=device-width"));
        assert!(page.contains("@media (prefers-color-scheme: dark)"));
        for loading in ["<script", "src=", "url(", "@import", "<link", "http"] {
            assert!(!page.contains(loading), "{loading}");
        }
    }
}
