//! curl, which asks for texts: it says what it read line by line, and each line begins with its number.

use std::fs;
use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tests::Dice;
use tests::http_client::pause;

use crate::questions::{MAX_BODY, Question, What};

/// Where the servers are, and what curl is to know of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Site<'a> {
    pub(crate) clear: SocketAddr,
    pub(crate) encrypted: SocketAddr,
    /// With `cert.pem`, and room for a body.
    pub(crate) folder: &'a Path,
}

/// Returns whether there is a curl that speaks HTTP/2.
pub(crate) fn is_here() -> bool {
    let output = Command::new("curl").arg("--version").output();
    let is_here =
        output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("HTTP2"));
    if !is_here {
        println!("left out: there is no curl here that speaks HTTP/2 (.ci/setup installs it)");
    }
    is_here
}

/// How it asks: in the clear or not, and in which version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    ClearOne,
    ClearTwo,
    EncryptedOne,
    EncryptedTwo,
}

impl Way {
    /// Draws one, and how many requests go with it.
    pub(crate) fn drawn(dice: &mut Dice) -> (Self, u64) {
        let way = dice.one_of(&[
            Self::ClearOne,
            Self::ClearTwo,
            Self::EncryptedOne,
            Self::EncryptedTwo,
        ]);
        let count = match way {
            // curl 7.88 uses no such connection twice.
            Self::ClearTwo => 1,
            _ => 1 + dice.below(5) as u64,
        };
        (way, count)
    }
}

/// Lets one curl ask for all of these, and kills it in between or not. Returns the numbers of the right
/// answers, and whether it was let live.
pub(crate) fn ask(site: Site<'_>, way: Way, numbers: &[u64], dice: &mut Dice) -> (Vec<u64>, bool) {
    // A body that is answered before it was sent is an error to curl 7.88 over HTTP/2: so it is one that the
    // server reads. All requests of a curl bring the same.
    let what = dice.one_of(&[What::Sum, What::Elsewhere]);
    let size = 1 + dice.below((MAX_BODY / 4) as usize);
    let question = |&number| Question { what, number, size };
    let mut questions: Vec<_> = numbers.iter().map(question).collect();
    let body = questions[0].body();
    let mut command = Command::new("curl");
    command.args([
        "--silent",
        "--show-error",
        "--noproxy",
        "*",
        "--max-time",
        "60",
    ]);
    let origin = match way {
        Way::ClearOne | Way::ClearTwo => format!("http://{}", site.clear),
        Way::EncryptedOne | Way::EncryptedTwo => {
            let port = site.encrypted.port();
            command.arg("--cacert").arg(site.folder.join("cert.pem"));
            command.args(["--resolve", &format!("site.test:{port}:127.0.0.1")]);
            format!("https://site.test:{port}")
        }
    };
    command.arg(match way {
        Way::ClearOne | Way::EncryptedOne => "--http1.1",
        Way::ClearTwo => "--http2-prior-knowledge",
        Way::EncryptedTwo => "--http2",
    });
    if questions[0].has_body() {
        let file = site.folder.join("body");
        fs::write(&file, &body).expect("a folder of ours");
        command
            .arg("--data-binary")
            .arg(format!("@{}", file.display()));
    }
    command.args(
        questions
            .iter()
            .map(|question| format!("{origin}{question}")),
    );
    let lives = dice.flip();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("curl");
    if !lives {
        pause(Duration::from_micros(1 + dice.below(60_000) as u64));
        // It may have ended before.
        let _ = child.kill();
    }
    let mut said = String::new();
    let mut out = child.stdout.take().expect("it is piped");
    out.read_to_string(&mut said).expect("text");
    let status = child.wait().expect("a child");
    assert!(!lives || status.success(), "{command:?}: {status}");
    let is_right = |question: &Question| {
        let expected = String::from_utf8(question.text(&body)).expect("a text");
        said.split_inclusive('\n').any(|line| line == expected)
    };
    questions.retain(is_right);
    (
        questions.iter().map(|question| question.number).collect(),
        lives,
    )
}
