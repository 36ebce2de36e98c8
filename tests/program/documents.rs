//! The guides hold: what they name is there.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use http::Response;
use quoit::Cores;
use quoit_net::http::{Page, Server};
use serde_json::Value;
use tests::http_client::Client;

use crate::program::{Program, folder, path, run};

fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("the workspace").to_owned()
}

pub(crate) fn document(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Returns the words in `text` that begin like this, and go on with letters, digits and `more`.
fn words(text: &str, begin: &str, more: char) -> BTreeSet<String> {
    let goes_on = |c: char| c.is_ascii_alphanumeric() || c == more;
    let found = text.match_indices(begin).filter(|(at, _)| {
        let before = text[..*at].chars().next_back();
        !before.is_some_and(|c| goes_on(c) || c == '/' || c == '-')
    });
    found
        .map(|(at, _)| {
            let rest = &text[at + begin.len()..];
            let length = rest.find(|c| !goes_on(c)).unwrap_or(rest.len());
            format!("{begin}{}", &rest[..length])
        })
        .filter(|word| word.len() > begin.len())
        .collect()
}

// --- metrics ---

#[test]
fn every_metric_that_operations_names_is_told_by_a_server() {
    let server = Server::bind("127.0.0.1:0")
        .cores(Cores::Count(1))
        .page(Page::at("/_quoit/"))
        .serve(|_| async { Ok::<_, Infallible>(Response::new("hello\n".to_owned())) });
    let server = server.expect("a server");
    let mut client = Client::connect(server.local_addr());
    assert_eq!(client.get("/").text(), "hello\n");
    let told = client.get("/_quoit/metrics");
    let mut known: BTreeSet<String> = told
        .text()
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .map(str::to_owned)
        .collect();
    // They are sorted by name: what stands above is any other.
    let text = told.text();
    let mut helps = text
        .lines()
        .filter_map(|line| line.strip_prefix("# HELP ")?.split_once(' '));
    let linked = ["Of ", "Such ", "How much of that", "Times it "];
    let linked = helps.find(|(_, help)| linked.iter().any(|begin| help.starts_with(begin)));
    assert_eq!(linked, None, "it does not stand alone");
    // Histograms that have seen nothing yet are left out of the text.
    let snapshot = server.snapshot();
    for latency in &snapshot.cores[0].latencies {
        known.insert(format!("quoit_{}_seconds", latency.name));
    }
    let is_known = |name: &str| {
        let histogram = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|part| name.strip_suffix(part));
        known.contains(name) || histogram.is_some_and(|whole| known.contains(whole))
    };
    let named = words(&document("docs/operations.md"), "quoit_", '_');
    assert!(named.len() > 20, "only {named:?}");
    let unknown: Vec<_> = named.iter().filter(|name| !is_known(name)).collect();
    assert!(unknown.is_empty(), "{unknown:?} are not among {known:?}");
}

// --- options ---

/// Returns the options of commands that start the server, and those that are named on their own.
fn options_named(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let joined = text.replace("\\\n", " ");
    for line in joined.lines() {
        let is_ours = ["quoit serve", "-- serve", "\"serve\""]
            .iter()
            .find_map(|begin| line.find(begin).map(|at| at + begin.len()));
        if let Some(at) = is_ours {
            found.extend(words(&line[at..], "--", '-'));
        }
        for span in line.split('`').skip(1).step_by(2) {
            let others = [
                "--ulimit",
                "--cpus",
                "--cpuset-cpus",
                "--deploy-hook",
                "--workspace",
            ];
            if span.starts_with("--") && !others.iter().any(|other| span.starts_with(other)) {
                found.extend(words(span, "--", '-'));
            }
        }
    }
    found
}

#[test]
fn every_option_that_a_guide_names_is_in_the_help() {
    let output = run(&["serve", "--help"]);
    let help = words(&String::from_utf8_lossy(&output.stdout), "--", '-');
    assert!(help.contains("--listen"), "{help:?}");
    for name in ["docs/operations.md", "README.md"] {
        let named = options_named(&document(name));
        assert!(named.len() > 2, "{name}: only {named:?}");
        let unknown: Vec<_> = named.difference(&help).collect();
        assert!(
            unknown.is_empty(),
            "{name}: {unknown:?} are not in {help:?}"
        );
    }
}

/// Returns the names of all documents, from the root of the workspace.
fn documents() -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder)).expect("a folder") {
            let entry = entry.expect("it is listed");
            let name = entry.file_name().into_string().expect("text");
            let path = folder.join(&name);
            let is_foreign = ["target", "node_modules"].contains(&&*name) || name.starts_with('.');
            if entry.file_type().expect("it has one").is_dir() {
                folders.extend((!is_foreign).then_some(path));
            } else if name.ends_with(".md") {
                found.push(path.to_str().expect("text").to_owned());
            }
        }
    }
    found
}

/// Returns where the links of a document lead that stay in the workspace: the file, and the heading in it.
fn links(name: &str) -> Vec<(PathBuf, String)> {
    let text = document(name);
    let here = root().join(name);
    let folder = here.parent().expect("a folder");
    let targets = text
        .match_indices("](")
        .map(|(at, _)| text[at + 2..].split(')').next().unwrap_or_default());
    // Those with colons lead to other sites, or to items of a crate.
    let ours = targets.filter(|target| !target.contains(':'));
    ours.map(|target| {
        let (file, heading) = target.split_once('#').unwrap_or((target, ""));
        let file = if file.is_empty() {
            here.clone()
        } else {
            folder.join(file)
        };
        (file, heading.to_owned())
    })
    .collect()
}

#[test]
fn every_place_that_a_document_links_to_is_there() {
    let mut seen = 0;
    for name in documents() {
        for (file, heading) in links(&name) {
            assert!(file.exists(), "{name} links to {}", file.display());
            seen += 1;
            if heading.is_empty() {
                continue;
            }
            let text = fs::read_to_string(&file).expect("a document");
            let headings = text.lines().filter(|line| line.starts_with('#'));
            let mut anchors = headings.map(|line| {
                let kept = line.trim_start_matches('#').trim().to_lowercase();
                let kept = kept.replace(' ', "-");
                kept.replace(|c: char| !(c.is_alphanumeric() || "-_".contains(c)), "")
            });
            assert!(
                anchors.any(|anchor| anchor == heading),
                "{name} links to #{heading}"
            );
        }
    }
    assert!(seen > 20, "only {seen} links");
}

#[test]
fn all_documents_are_listed() {
    let path = |file: &Path| fs::canonicalize(file).expect("it is there");
    let listed: BTreeSet<_> = links("docs/README.md")
        .iter()
        .map(|(file, _)| path(file))
        .collect();
    for name in documents() {
        let is_first = ["README.md", "docs/README.md"].contains(&&*name);
        let is_listed = listed.contains(&path(&root().join(&name)));
        assert!(is_first || is_listed, "{name} is not in docs/README.md");
    }
}

#[test]
fn the_programs_of_the_readme_are_the_examples() {
    // A document has narrower lines.
    let tokens = |text: &str| text.split_whitespace().collect::<String>();
    let readme = tokens(&document("README.md"));
    for name in ["echo", "embedded"] {
        let example = document(&format!("net/examples/{name}.rs"));
        let (_, program) = example
            .split_once("\n\n")
            .expect("what it is, and the program");
        assert!(readme.contains(&tokens(program)), "{name}.rs is another");
    }
}

#[test]
fn each_scenario_of_the_pools_has_a_test_of_its_name() {
    let text = document("docs/pools.md");
    let rows = text.lines().filter(|line| line.starts_with("| P"));
    let mut seen = 0;
    for row in rows {
        let id = row[2..].split(' ').next().expect("a number");
        let begin = format!("fn {}_", id.to_lowercase());
        let places = row.split('`').skip(1).step_by(2);
        let mut files = places.filter(|place| place.ends_with(".rs")).map(|place| {
            let is_here = root().join(place).exists();
            document(&if is_here {
                place.to_owned()
            } else {
                format!("tests/{place}")
            })
        });
        assert!(files.any(|file| file.contains(&begin)), "{row}");
        seen += 1;
    }
    assert!(seen > 15, "only {seen} scenarios");
}

// --- the seccomp profile ---

/// Runs a program where every system call kills it whose number is not given.
const LAUNCHER: &str = r#"
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static const unsigned allowed[] = {
    ALLOWED
};

int main(int argc, char **argv) {
    static struct sock_filter filter[2 * sizeof allowed / sizeof *allowed + 2];
    unsigned short length = 0;
    filter[length++] = (struct sock_filter) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (unsigned i = 0; i < sizeof allowed / sizeof *allowed; i++) {
        filter[length++] = (struct sock_filter) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, allowed[i], 0, 1);
        filter[length++] = (struct sock_filter) BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    }
    filter[length++] = (struct sock_filter) BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
    struct sock_fprog program = { length, filter };
    if (argc < 2 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) {
        perror("launcher");
        return 125;
    }
    execv(argv[1], argv + 1);
    perror(argv[1]);
    return 126;
}
"#;

/// Makes a launcher of what `docs/seccomp.json` allows, without some of it.
fn launcher(folder: &Path, without: &[&str]) -> PathBuf {
    let profile: Value = serde_json::from_str(&document("docs/seccomp.json")).expect("JSON");
    let groups = profile["syscalls"].as_array().expect("groups");
    let names = groups.iter().flat_map(|group| {
        assert_eq!(group["action"], "SCMP_ACT_ALLOW");
        group["names"].as_array().expect("names")
    });
    let names = names.map(|name| name.as_str().expect("a name"));
    let mut allowed = String::new();
    for name in names.filter(|name| !without.contains(name)) {
        // Not every machine has every call.
        allowed.push_str(&format!("#ifdef __NR_{name}\n    __NR_{name},\n#endif\n"));
    }
    let source = folder.join("launcher.c");
    let launcher = folder.join("launcher");
    fs::write(&source, LAUNCHER.replace("    ALLOWED\n", &allowed)).expect("room");
    let compiled = Command::new("gcc")
        .args([&source, Path::new("-o"), &launcher])
        .status();
    assert!(
        compiled.is_ok_and(|status| status.success()),
        "this test needs gcc and the kernel's headers"
    );
    launcher
}

#[test]
fn the_seccomp_profile_lets_the_program_serve_and_end() {
    let aside = folder();
    let site = folder();
    fs::write(site.path().join("text"), "some text").expect("room");
    fs::write(site.path().join("large"), vec![0; 1 << 20]).expect("room");
    let mut command = Command::new(launcher(aside.path(), &[]));
    let socket = aside.path().join("socket");
    let unix = format!("unix:{}", socket.display());
    command
        .arg(path())
        .args(["serve", "--listen", "127.0.0.1:0", "--listen", &unix])
        .args(["--unix-mode", "600", "--root"]);
    let program = Program::started(command.arg(site.path()));
    let mut client = program.client();
    for (target, status) in [
        ("/text", 200),
        ("/large", 200),
        ("/", 200),
        ("/missing", 404),
    ] {
        assert_eq!(client.get(target).status(), status, "{target}");
    }
    std::os::unix::net::UnixStream::connect(&socket).expect("it listens");
    program.signal("TERM");
    let end = program.end();
    assert!(end.status.success(), "{:?}: {}", end.status, end.said);
}

#[test]
fn the_seccomp_profile_is_a_filter() {
    let aside = folder();
    let launcher = launcher(aside.path(), &["io_uring_setup"]);
    let output = Command::new(launcher).arg(path()).arg("doctor").output();
    let output = output.expect("it was built");
    assert!(output.status.signal().is_some(), "{output:?}");
}
