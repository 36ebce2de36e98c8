//! Files and folders, as they lie on disk, and nothing else.

use std::fs::{self, File, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;
use tests::bytes;
use tests::http_client::Client;

use crate::program::{self, Program, folder};

const MIB: usize = 1 << 20;

/// A folder with files of these names, and the program that serves it.
fn with_files(files: &[(&str, &[u8])]) -> (TempDir, Program) {
    let root = folder();
    for (name, contents) in files {
        let path = root.path().join(name);
        fs::create_dir_all(path.parent().expect("below the root")).expect("a new folder");
        fs::write(path, contents).expect("a new file");
    }
    let program = Program::serving(root.path(), &[]);
    (root, program)
}

/// Files of sizes around the limits of what is read and sent at once.
fn sizes() -> Vec<(String, Vec<u8>)> {
    [0, 1, 64 * 1024 - 1, 64 * 1024, 64 * 1024 + 1, MIB, MIB + 1]
        .into_iter()
        .map(|size| (format!("size-{size}"), bytes(size, size as u64)))
        .collect()
}

fn borrowed(files: &[(String, Vec<u8>)]) -> Vec<(&str, &[u8])> {
    files
        .iter()
        .map(|(name, file)| (&**name, &**file))
        .collect()
}

// --- contents ---

#[test]
fn files_arrive_as_they_are() {
    let files = sizes();
    let (_root, program) = with_files(&borrowed(&files));
    let mut client = program.client();
    for (name, contents) in &files {
        let answer = client.get(&format!("/{name}"));
        assert_eq!(answer.status(), 200);
        assert_eq!(
            answer.field("content-length"),
            Some(&*contents.len().to_string())
        );
        assert!(answer.body == *contents, "{name} is another");
    }
}

#[test]
fn files_arrive_as_they_are_by_http_2() {
    let files = sizes();
    let (_root, program) = with_files(&borrowed(&files));
    if !curl_speaks_http_2() {
        println!("left out: this machine has no curl that speaks HTTP/2");
        return;
    }
    let came = folder();
    for (name, contents) in &files {
        let to = came.path().join(name);
        let output = Command::new("curl")
            .args([
                "--http2-prior-knowledge",
                "--silent",
                "--show-error",
                "--noproxy",
                "*",
            ])
            .args(["--write-out", "%{http_code} %{http_version}", "--output"])
            .arg(&to)
            .arg(program.url(&format!("/{name}")))
            .output()
            .expect("curl can be started");
        let complaints = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name}: {complaints}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "200 2", "{name}");
        // For an empty answer it makes no file.
        let came = fs::read(&to).unwrap_or_default();
        assert!(came == *contents, "{name} is another");
    }
}

#[test]
fn curl_gets_the_part_it_asks_for_and_goes_on_where_it_was_cut() {
    if !curl_speaks_http_2() {
        println!("left out: this machine has no curl that speaks HTTP/2");
        return;
    }
    let contents = bytes(MIB, 5);
    let (_root, program) = with_files(&[("file", &contents)]);
    let came = folder();
    let to = came.path().join("file");
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let get = |options: &[&str]| {
            let mut command = Command::new("curl");
            command.args([version, "--silent", "--show-error", "--noproxy", "*"]);
            command.args(["--write-out", "%{http_code}", "--output"]);
            command.arg(&to).args(options).arg(program.url("/file"));
            let output = command.output().expect("curl can be started");
            let complaints = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{version}: {complaints}");
            assert_eq!(String::from_utf8_lossy(&output.stdout), "206", "{version}");
            fs::read(&to).expect("it came")
        };
        assert!(get(&["--range", "1000-1999"]) == contents[1000..2000]);
        assert!(get(&["--range", "-10"]) == contents[MIB - 10..]);
        fs::write(&to, &contents[..MIB / 3]).expect("a file");
        assert!(get(&["--continue-at", "-"]) == contents, "{version}");
    }
}

fn curl_speaks_http_2() -> bool {
    let said = Command::new("curl").arg("--version").output();
    said.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("HTTP2"))
}

#[test]
fn the_head_alone_is_as_with_the_body() {
    let (_root, program) = with_files(&[("page.html", b"<p>hello"), ("empty", b"")]);
    let mut client = program.client();
    for path in ["/page.html", "/empty", "/", "/missing"] {
        let with_body = client.get(path);
        client.ask("HEAD", path, "");
        let mut alone = client.head();
        // The next answer begins right behind it.
        let mut expected = with_body.head.clone();
        for head in [&mut alone, &mut expected] {
            head.fields.retain(|(name, _)| name != "date");
            head.fields.sort();
        }
        assert_eq!(alone, expected, "{path}");
        assert_eq!(client.get("/page.html").text(), "<p>hello");
    }
}

#[test]
fn the_kind_of_a_file_is_told_by_its_name() {
    let (_root, program) =
        with_files(&[("page.html", b"<p>"), ("picture.png", b""), ("data", b"")]);
    let mut client = program.client();
    for (path, kind) in [
        ("/page.html", "text/html"),
        ("/picture.png", "image/png"),
        ("/data", "application/octet-stream"),
    ] {
        let answer = client.get(path);
        let told = answer.field("content-type").expect("it is told");
        assert!(told.starts_with(kind), "{path}: {told}");
        assert_eq!(answer.field("x-content-type-options"), Some("nosniff"));
    }
}

#[test]
fn a_name_is_taken_as_bytes() {
    let (_root, program) = with_files(&[
        ("a b", b"space"),
        ("%2e", b"percent"),
        ("\u{e9}", b"letter"),
    ]);
    let mut client = program.client();
    for (path, contents) in [
        ("/a%20b", "space"),
        ("/%252e", "percent"),
        ("/%c3%a9", "letter"),
    ] {
        assert_eq!(client.get(path).text(), contents);
    }
    let listing = client.get("/");
    for name in ["a%20b", "%252e", "%C3%A9"] {
        assert!(
            listing.text().contains(&format!("\"./{name}\"")),
            "{}",
            listing.text()
        );
    }
}

// --- conditions and ranges ---

#[test]
fn a_file_the_client_has_is_not_sent_again() {
    let (root, program) = with_files(&[("file", b"first")]);
    let mut client = program.client();
    let answer = client.get("/file");
    let tag = answer.field("etag").expect("files have a tag").to_owned();
    let modified = answer
        .field("last-modified")
        .expect("files have a time")
        .to_owned();
    for condition in [
        format!("if-none-match: {tag}\r\n"),
        format!("if-none-match: \"other\", W/{tag}\r\n"),
        "if-none-match: *\r\n".to_owned(),
        format!("if-modified-since: {modified}\r\n"),
    ] {
        let answer = client.get_with("/file", &condition);
        assert_eq!(answer.status(), 304, "{condition}");
        assert_eq!(answer.field("etag"), Some(&*tag));
    }
    for condition in [
        "if-none-match: \"other\"\r\n".to_owned(),
        "if-modified-since: Sun, 06 Nov 1994 08:49:37 GMT\r\n".to_owned(),
        // The tag decides (RFC 9110, section 13.2.2).
        format!("if-none-match: \"other\"\r\nif-modified-since: {modified}\r\n"),
    ] {
        let answer = client.get_with("/file", &condition);
        assert_eq!(
            (answer.status(), answer.text()),
            (200, "first"),
            "{condition}"
        );
    }
    fs::write(root.path().join("file"), "second one").expect("a file of ours");
    let answer = client.get_with("/file", &format!("if-none-match: {tag}\r\n"));
    assert_eq!((answer.status(), answer.text()), (200, "second one"));
    let answer = client.get_with("/file", &format!("if-match: {tag}\r\n"));
    assert_eq!(answer.status(), 412);
}

#[test]
fn a_range_is_sent_and_no_more() {
    let contents = bytes(MIB, 3);
    let (_root, program) = with_files(&[("file", &contents)]);
    let mut client = program.client();
    let last = MIB - 1;
    for (range, first, last) in [
        ("0-0".to_owned(), 0, 0),
        ("0-".to_owned(), 0, last),
        ("100-199999".to_owned(), 100, 199_999),
        (format!("{last}-"), last, last),
        ("1000000-99999999".to_owned(), 1_000_000, last),
        ("-70000".to_owned(), MIB - 70_000, last),
    ] {
        let answer = client.get_with("/file", &format!("range: bytes={range}\r\n"));
        assert_eq!(answer.status(), 206, "{range}");
        let told = format!("bytes {first}-{last}/{MIB}");
        assert_eq!(answer.field("content-range"), Some(&*told));
        assert!(answer.body == contents[first..=last], "{range} is another");
    }
    let answer = client.get_with("/file", &format!("range: bytes={MIB}-\r\n"));
    assert_eq!(answer.status(), 416);
    assert_eq!(
        answer.field("content-range"),
        Some(&*format!("bytes */{MIB}"))
    );
    for ignored in ["bytes=5-2", "lines=1-2", "bytes=0-1,5-6"] {
        let answer = client.get_with("/file", &format!("range: {ignored}\r\n"));
        assert_eq!(
            (answer.status(), answer.body.len()),
            (200, MIB),
            "{ignored}"
        );
    }
}

// --- folders ---

#[test]
fn a_folder_without_its_slash_is_elsewhere() {
    let (_root, program) = with_files(&[("folder/file", b"inside")]);
    let mut client = program.client();
    let answer = client.get("/folder?query");
    assert_eq!(answer.status(), 301);
    assert_eq!(answer.field("location"), Some("/folder/?query"));
    // Another server's name would be read out of two slashes.
    assert_eq!(client.get("//folder").field("location"), Some("/folder/"));
    assert_eq!(client.get("/folder/").status(), 200);
    assert_eq!(client.get("/folder/file").text(), "inside");
    assert_eq!(client.get("/folder/file/").status(), 404, "it is no folder");
}

#[test]
fn a_folder_lists_what_would_be_served() {
    let (root, program) = with_files(&[("file", b"123"), ("folder/inner", b""), ("<b>&", b"")]);
    symlink("file", root.path().join("link")).expect("a new link");
    symlink("/etc/passwd", root.path().join("outside")).expect("a new link");
    symlink("nowhere", root.path().join("dangling")).expect("a new link");
    let answer = program.client().get("/");
    assert_eq!(answer.status(), 200);
    assert_eq!(
        answer.field("content-type"),
        Some("text/html; charset=utf-8")
    );
    let page = answer.text();
    for listed in [
        "\"./file\"",
        "\"./folder/\"",
        "\"./link\"",
        "&lt;b&gt;&amp;",
    ] {
        assert!(page.contains(listed), "{listed} is not in: {page}");
    }
    for hidden in ["outside", "dangling", "<b>"] {
        assert!(!page.contains(hidden), "{hidden} is in: {page}");
    }
}

#[test]
fn an_index_is_sent_in_place_of_the_list() {
    let (_root, program) = with_files(&[("index.html", b"<p>home"), ("sub/index.html", b"<p>sub")]);
    let mut client = program.client();
    let answer = client.get("/");
    assert_eq!(answer.text(), "<p>home");
    assert!(
        answer
            .field("content-type")
            .is_some_and(|kind| kind.starts_with("text/html"))
    );
    assert_eq!(client.get("/sub/").text(), "<p>sub");
}

// --- refusals ---

#[test]
fn other_methods_are_refused_with_those_that_are_not() {
    let (_root, program) = with_files(&[("file", b"safe")]);
    let mut client = program.client();
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "QUERY"] {
        client.ask(method, "/file", "content-length: 0\r\n");
        let answer = client.answer();
        assert_eq!(answer.status(), 405, "{method}");
        assert_eq!(answer.field("allow"), Some("GET, HEAD"));
    }
    assert_eq!(client.get("/file").text(), "safe");
}

#[test]
fn what_is_not_there_is_not_found() {
    let (_root, program) = with_files(&[("file", b"")]);
    let mut client = program.client();
    let long = format!("/{}", "x".repeat(300));
    for path in [
        "/missing",
        "/missing/",
        "/file/below",
        "/missing/below",
        &long,
    ] {
        assert_eq!(client.get(path).status(), 404, "{path}");
    }
    assert_eq!(client.get("/file").status(), 200);
}

/// A folder with a secret beside the one that is served.
fn beside_a_secret() -> (TempDir, PathBuf, Program) {
    let outer = folder();
    fs::write(outer.path().join("secret"), "a secret").expect("a new file");
    let root = outer.path().join("root");
    fs::create_dir_all(root.join("folder")).expect("a new folder");
    let program = Program::serving(&root, &[]);
    (outer, root, program)
}

#[test]
fn no_spelling_of_the_folder_above_leads_there() {
    let (_outer, _root, program) = beside_a_secret();
    for path in [
        "/../secret",
        "/folder/../../secret",
        "/%2e%2e/secret",
        "/.%2E/secret",
        "/..%2fsecret",
        "/..%2Fsecret",
        "/folder/..%2f..%2fsecret",
        "/..%5csecret",
        "/..\\secret",
        "/%2e%2e%2fsecret",
        "/..%00/secret",
        "/%252e%252e/secret",
        "/..%c0%afsecret",
        "/..;/secret",
    ] {
        let mut client = program.client();
        client.ask("GET", path, "");
        let answer = client.answer();
        assert!(
            (400..500).contains(&answer.status()),
            "{path}: {}",
            answer.status()
        );
        assert!(!answer.text().contains("a secret"), "{path}");
    }
    let mut client = program.client();
    client.send(format!(
        "GET {} HTTP/1.1\r\nhost: test\r\n\r\n",
        program.url("/../secret")
    ));
    assert!(
        (400..500).contains(&client.answer().status()),
        "in the absolute form"
    );
}

#[test]
fn a_link_that_leads_out_is_forbidden() {
    let (outer, root, program) = beside_a_secret();
    let secret = outer.path().join("secret");
    fs::write(root.join("file"), "inside").expect("a new file");
    symlink("../secret", root.join("relative")).expect("a new link");
    symlink(&secret, root.join("absolute")).expect("a new link");
    symlink("..", root.join("up")).expect("a new link");
    symlink("loop", root.join("loop")).expect("a new link");
    symlink("/proc/self/root", root.join("magic")).expect("a new link");
    symlink("../file", root.join("folder/inside")).expect("a new link");
    let mut client = program.client();
    let through_magic = format!("/magic{}", secret.display());
    for path in [
        "/relative",
        "/absolute",
        "/up/secret",
        "/up/",
        "/loop",
        "/magic",
        &through_magic,
    ] {
        let answer = client.get(path);
        assert_eq!(answer.status(), 403, "{path}");
        assert!(!answer.text().contains("a secret"), "{path}");
    }
    assert_eq!(
        client.get("/folder/inside").text(),
        "inside",
        "it stays below the root"
    );
}

#[test]
fn a_link_of_the_root_s_own_name_is_followed() {
    let outer = folder();
    let root = outer.path().join("root");
    fs::create_dir(&root).expect("a new folder");
    fs::write(root.join("file"), "inside").expect("a new file");
    symlink("root", outer.path().join("link")).expect("a new link");
    let program = Program::serving(&outer.path().join("link"), &[]);
    assert_eq!(program.client().get("/file").text(), "inside");
}

/// As the guide says: a release that a link is switched to is served after a restart.
#[test]
fn the_folder_that_was_there_at_the_start_is_served() {
    let outer = folder();
    for release in ["one", "two"] {
        fs::create_dir(outer.path().join(release)).expect("a new folder");
        fs::write(outer.path().join(release).join("file"), release).expect("a new file");
    }
    let current = outer.path().join("current");
    let switched_to = |release: &str| {
        let next = outer.path().join("next");
        symlink(release, &next).expect("a new link");
        fs::rename(&next, &current).expect("it takes the other's place");
    };
    switched_to("one");
    let program = Program::serving(&current, &[]);
    assert_eq!(program.client().get("/file").text(), "one");
    switched_to("two");
    assert_eq!(program.client().get("/file").text(), "one");
    fs::write(outer.path().join("one/file"), "one, changed").expect("it is ours");
    assert_eq!(program.client().get("/file").text(), "one, changed");
    let again = Program::serving(&current, &[]);
    assert_eq!(again.client().get("/file").text(), "two");
}

#[test]
fn what_is_neither_file_nor_folder_is_forbidden_and_holds_nobody_up() {
    let (root, program) = with_files(&[("file", b"well")]);
    let pipe = root.path().join("pipe");
    let status = Command::new("mkfifo").arg(&pipe).status();
    assert!(status.expect("there is a mkfifo").success());
    let _socket = std::os::unix::net::UnixListener::bind(root.path().join("socket"));
    let mut client = program.client();
    for path in ["/pipe", "/socket"] {
        assert_eq!(client.get(path).status(), 403, "{path}");
        assert_eq!(client.get("/file").text(), "well");
    }
    assert_eq!(client.get("/").status(), 200, "the list does not open it");
}

/// Starts the program as a user whom file modes bind; `None` if that cannot be done here.
fn as_an_ordinary_user(root: &Path, copies: &Path) -> Option<Program> {
    let output = Command::new("id")
        .arg("-u")
        .output()
        .expect("there is an id");
    if output.stdout != b"0\n" {
        return Some(Program::serving(root, &[]));
    }
    let is_there = Command::new("setpriv")
        .arg("--version")
        .stdout(Stdio::null())
        .status();
    if !is_there.is_ok_and(|status| status.success()) {
        return None;
    }
    // Where it was built, that user may not be able to go.
    let copy = copies.join("quoit");
    // By a process of its own: what is open for writing anywhere cannot be run, and a process that
    // another test starts just now would have it open.
    let copied = Command::new("cp").arg(program::path()).arg(&copy).status();
    assert!(copied.expect("there is a cp").success());
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(copy)
        .args(["serve", "--listen", "127.0.0.1:0", "--root"])
        .arg(root);
    Some(Program::started(&mut command))
}

#[test]
fn what_may_not_be_read_is_forbidden() {
    let (root, copies) = (folder(), folder());
    fs::write(root.path().join("file"), "open").expect("a new file");
    fs::write(root.path().join("closed"), "shut").expect("a new file");
    fs::create_dir(root.path().join("folder")).expect("a new folder");
    for (path, mode) in [
        (root.path().to_owned(), 0o755),
        (copies.path().to_owned(), 0o755),
        (root.path().join("file"), 0o644),
        (root.path().join("closed"), 0o000),
        (root.path().join("folder"), 0o000),
    ] {
        fs::set_permissions(path, Permissions::from_mode(mode)).expect("they are ours");
    }
    let Some(program) = as_an_ordinary_user(root.path(), copies.path()) else {
        println!("left out: for root every file is open, and there is no setpriv");
        return;
    };
    let mut client = program.client();
    for path in ["/closed", "/folder/", "/folder/below"] {
        let answer = client.get(path);
        assert_eq!(answer.status(), 403, "{path}");
        assert!(!answer.text().contains("shut"), "{path}");
    }
    assert_eq!(client.get("/file").text(), "open");
    assert_eq!(client.get("/").status(), 200);
}

#[test]
fn a_folder_that_may_not_be_listed_has_its_index_nevertheless() {
    let (root, copies) = (folder(), folder());
    for name in ["home", "bare"] {
        fs::create_dir(root.path().join(name)).expect("a new folder");
    }
    fs::write(root.path().join("home/index.html"), "<p>home").expect("a new file");
    for (path, mode) in [
        (root.path().to_owned(), 0o755),
        (copies.path().to_owned(), 0o755),
        (root.path().join("home/index.html"), 0o644),
        (root.path().join("home"), 0o311),
        (root.path().join("bare"), 0o311),
    ] {
        fs::set_permissions(path, Permissions::from_mode(mode)).expect("they are ours");
    }
    let Some(program) = as_an_ordinary_user(root.path(), copies.path()) else {
        println!("left out: root may list every folder, and there is no setpriv");
        return;
    };
    let mut client = program.client();
    assert_eq!(client.get("/home/").text(), "<p>home");
    let elsewhere = client.get("/home");
    assert_eq!(elsewhere.status(), 301);
    assert_eq!(elsewhere.field("location"), Some("/home/"));
    assert_eq!(client.get("/bare/").status(), 403);
}

// --- memory ---

#[test]
fn a_file_of_any_size_costs_little_memory() {
    const SIZE: u64 = 512 << 20;
    let root = folder();
    let file = File::create(root.path().join("large")).expect("a new file");
    file.set_len(SIZE).expect("a hole costs nothing");
    let program = Program::serving(root.path(), &[]);
    // One that reads all of it, and one that reads nothing.
    let mut slow = Client::connect_narrow(program.address());
    slow.ask("GET", "/large", "");
    assert_eq!(slow.head().status, 200);
    let mut client = program.client();
    client.ask("GET", "/large", "");
    let head = client.head();
    let zeros = vec![0; 64 * 1024];
    let size = client.body(&head, |bytes| {
        assert!(zeros.starts_with(bytes), "a hole reads as zeros")
    });
    assert_eq!(size.expect("a whole answer"), SIZE);
    let most = program.memory_kib("VmHWM");
    assert!(most < 64 * 1024, "{most} KiB at the most");
}

#[test]
fn a_file_that_becomes_shorter_is_no_whole_answer() {
    const SIZE: u64 = 64 << 20;
    let (root, said) = (folder(), folder());
    fs::write(root.path().join("other"), "well").expect("a new file");
    let complaints = said.path().join("complaints");
    let program = Program::complaining_to(&complaints, root.path(), &[]);
    let file = File::create(root.path().join("file")).expect("a new file");
    file.set_len(SIZE).expect("a hole costs nothing");
    let mut client = Client::connect_narrow(program.address());
    client.ask("GET", "/file", "");
    let head = client.head();
    file.set_len(SIZE / 2).expect("it is ours");
    let error = client
        .body(&head, |_| {})
        .expect_err("the answer is not whole");
    let is_an_end = matches!(
        error.kind(),
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset
    );
    assert!(is_an_end, "{error}");
    assert_eq!(program.client().get("/other").text(), "well");
    // It says so: nothing else tells why the answer was cut.
    program.signal("TERM");
    assert!(program.end().status.success());
    let told = fs::read_to_string(&complaints).expect("a file");
    let what = "the file became shorter while it was sent";
    assert_eq!(told.matches(what).count(), 1, "{told}");
}
